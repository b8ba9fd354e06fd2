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

/// Straight-through as if the state ±1 were its pre-activation: derivative 1 everywhere. The states of a network are ±1; a bit
/// `(x + 1) / 2` made of one has derivative 1/2. A unit whose own code is 0/1 has 1 ([`super::Units::slope`]): it is another rule.
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
