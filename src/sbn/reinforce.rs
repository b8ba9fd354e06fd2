//! The score function estimator.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::surrogate::{gradient_only, log_probability};
use crate::error::Result;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Exact,
    randomness: Randomness::States,
    passes: "1",
    source: "Williams 1992; Shekhovtsov, Yanush & Flach 2020, Eq. 7",
    knobs: &["constant"],
};

/// `(f(x) - b) d log p(x^1..x^L) / d theta`, and f's own gradient in the head.
///
/// The baseline b is `--constant` (default 0) plus what the caller gives for each datum
/// ([`Batch::baseline`](super::Batch)): an exponentially weighted average ([`Ewa`](super::Ewa)) or the true expected loss
/// ([`Network::exact_loss`]). It must not depend on this draw.
#[derive(Debug, Clone, Copy)]
pub struct Reinforce {
    constant: f64,
}

/// From the knobs.
pub fn build(knobs: &Knobs) -> Result<Reinforce> {
    Ok(Reinforce { constant: knobs.baseline()? })
}

impl Rule for Reinforce {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        let mut x = batch.input.shallow_clone();
        let mut log_p: Option<Tensor> = None;
        for (k, layer) in network.layers().iter().enumerate() {
            let a = layer.preactivation(&x)?;
            x = draws.states(k, network.noise(), &a)?;
            let own = layer.sum_units(&log_probability(network.noise(), &a, &x)?)?;
            log_p = Some(log_p.map_or(own.shallow_clone(), |sum| sum + own));
        }
        let scores = network.head().scores(&x)?;
        let f = network.objective().values(&scores, batch.target)?;
        let mut reward = f.detach() - self.constant;
        if let Some(b) = batch.baseline {
            reward -= b.detach();
        }
        let surrogate = &f + reward * gradient_only(&log_p.expect("a layer was run"));
        Ok(Loss { surrogate, value: f.detach(), scores: scores.detach() })
    }
}
