//! Straight-through with derivative 1.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::surrogate::straight_through_loss;
use super::units::Proxy;
use crate::error::Result;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Biased,
    randomness: Randomness::States,
    passes: "1",
    source: "Bengio, Leonard & Courville 2013",
    knobs: &[],
};

/// Straight-through as if the state ±1 were its pre-activation: derivative 1 everywhere; of a 0/1 state it is 1/2.
#[derive(Debug, Clone, Copy)]
pub struct IdentityStraightThrough;

/// From the knobs.
pub fn build(_: &Knobs) -> Result<IdentityStraightThrough> {
    Ok(IdentityStraightThrough)
}

impl Rule for IdentityStraightThrough {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        straight_through_loss(network, batch, Proxy::Identity, &mut |k, a| draws.states(k, network.noise(), a))
    }
}
