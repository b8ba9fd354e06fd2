//! Deterministic straight-through.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::st;
use super::surrogate::straight_through_loss;
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
        straight_through_loss(network, batch, st::derivative, &mut |_, a| {
            let a = a.detach();
            Ok(a.f_ge(0.0)?.f_to_kind(a.kind())? * 2.0 - 1.0)
        })
    }
}
