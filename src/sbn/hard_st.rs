//! Straight-through with the hard tanh.
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
    source: "Hubara et al. 2016",
    knobs: &[],
};

/// Straight-through with the derivative of `min(max(a, -1), 1)`, 1 where |a| < 1, whatever the noise: of the state ±1; of a
/// 0/1 state it is 1/2 there.
///
/// It fits uniform noise on [-1, 1], of which it is [`st`](super::st), and no other.
#[derive(Debug, Clone, Copy)]
pub struct HardStraightThrough;

/// From the knobs.
pub fn build(_: &Knobs) -> Result<HardStraightThrough> {
    Ok(HardStraightThrough)
}

impl Rule for HardStraightThrough {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        straight_through_loss(network, batch, Proxy::Htanh, &mut |k, a| draws.states(k, network.noise(), a))
    }
}
