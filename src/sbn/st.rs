//! Straight-through.
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
    source: "Hinton 2012; Shekhovtsov, Yanush & Flach 2020, Alg. 2",
    knobs: &[],
};

/// Straight-through paired with the noise: the state counts as `2 F(a)` on the way back, derivative `2 F'(a)`.
///
/// What PSA becomes when F and f are linearised around the sample (Proposition 4); for logistic noise the derivative of
/// tanh(a / 2). On 0/1 states the same estimator has the derivative F'(a).
#[derive(Debug, Clone, Copy)]
pub struct StraightThrough;

/// From the knobs.
pub fn build(_: &Knobs) -> Result<StraightThrough> {
    Ok(StraightThrough)
}

impl Rule for StraightThrough {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        straight_through_loss(network, batch, Proxy::Matched, &mut |k, a| draws.states(k, network.noise(), a))
    }
}
