//! The deterministic relaxation.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::surrogate::{deterministic_loss, mean};
use crate::error::Result;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Relaxed,
    randomness: Randomness::None,
    passes: "1",
    source: "Shekhovtsov, Yanush & Flach 2020, Section 3; AP1 of Shekhovtsov & Flach 2018",
    knobs: &["tanh-scale"],
};

/// The plain network in which every state is `2 F(s a) - 1`; for logistic noise tanh(s a / 2).
///
/// At s = 1 that is the mean of the state. The released code's small problem has s = 1; its CIFAR network has `tanh(a)`, which
/// is s = 2 and not the mean of the SBN's units.
#[derive(Debug, Clone, Copy)]
pub struct Tanh {
    scale: f64,
}

/// From the knobs.
pub fn build(knobs: &Knobs) -> Result<Tanh> {
    Ok(Tanh { scale: Knobs::positive("--tanh-scale", knobs.tanh_scale, 1.0)? })
}

impl Rule for Tanh {
    fn loss(&self, network: &Network, batch: &Batch, _: &mut Draws) -> Result<Loss> {
        deterministic_loss(network, batch, &mut |_, a| mean(network.noise(), &(a * self.scale)))
    }
}
