//! The exact gradient.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use crate::error::Result;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Exact,
    randomness: Randomness::None,
    passes: "2^n for a layer of n units",
    source: "Shekhovtsov, Yanush & Flach 2020, Eqs. 5-6",
    knobs: &[],
};

/// The expected loss itself, by enumeration of the states of each layer in turn ([`crate::exact::sbn`]); up to 12 units a
/// layer. Draws nothing. The scores it returns are those of the mean-field pass, as an expectation has none.
#[derive(Debug, Clone, Copy)]
pub struct Exact;

/// From the knobs.
pub fn build(_: &Knobs) -> Result<Exact> {
    Ok(Exact)
}

impl Rule for Exact {
    fn loss(&self, network: &Network, batch: &Batch, _: &mut Draws) -> Result<Loss> {
        let e = network.exact_loss(batch.input, batch.target)?;
        let scores = tch::no_grad(|| {
            let mut x = batch.input.shallow_clone();
            for layer in network.layers() {
                x = super::surrogate::mean(network.noise(), &layer.preactivation(&x)?)?;
            }
            network.head().scores(&x)
        })?;
        Ok(Loss { value: e.detach(), surrogate: e, scores })
    }
}
