//! Deterministic straight-through.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::surrogate::straight_through_loss;
use super::units::{Proxy, sign};
use crate::error::Result;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Relaxed,
    randomness: Randomness::None,
    passes: "1",
    source: "Shekhovtsov & Yanush 2021, det_ST",
    knobs: &[],
};

/// Straight-through with the noise set to 0 throughout: `x = sgn(a)`, `sgn(0) = 1`, and the derivative `2 F'(a)` of
/// [`super::st`].
#[derive(Debug, Clone, Copy)]
pub struct DeterministicStraightThrough;

/// From the knobs.
pub fn build(_: &Knobs) -> Result<DeterministicStraightThrough> {
    Ok(DeterministicStraightThrough)
}

impl Rule for DeterministicStraightThrough {
    fn loss(&self, network: &Network, batch: &Batch, _: &mut Draws) -> Result<Loss> {
        straight_through_loss(network, batch, Proxy::Matched, &mut |_, a| sign(a))
    }
}
