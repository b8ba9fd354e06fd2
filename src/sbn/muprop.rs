//! MuProp.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::surrogate::{gradient_only, log_probability, mean};
use crate::error::Result;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Exact,
    randomness: Randomness::States,
    passes: "2, one of them backwards",
    source: "Gu, Levine, Sutskever & Mnih 2016; Shekhovtsov, Yanush & Flach 2020, Section C.1",
    knobs: &["constant"],
};

/// The score function with the linear expansion of the loss around the mean-field pass as baseline:
///
/// `[f(x) - b - h_k . (x^k - m^k)] d log p(x^k | x^{k-1}) + h_k . d E[x^k | x^{k-1}]` for layer k, where `m^k` are the states of
/// the deterministic pass `m^k = 2 F(a^k(m^{k-1})) - 1`, `h_k = df/dm^k` along it, and b its loss `f(m^L)`.
///
/// Unbiased, as `E[h . (x - m) d log p(x)] = h . d E[x]` for fixed h and m. A baseline of the caller's takes the place of
/// `f(m^L)`; `--constant` is added to either.
#[derive(Debug, Clone, Copy)]
pub struct MuProp {
    constant: f64,
}

/// From the knobs.
pub fn build(knobs: &Knobs) -> Result<MuProp> {
    Ok(MuProp { constant: knobs.baseline()? })
}

/// The deterministic pass: its loss, its states and the derivative of the loss in them, no graph.
fn mean_field(network: &Network, batch: &Batch) -> Result<(Tensor, Vec<Tensor>, Vec<Tensor>)> {
    tch::with_grad(|| {
        let mut states: Vec<Tensor> = vec![];
        for layer in network.layers() {
            let a = layer.preactivation(states.last().unwrap_or(batch.input))?;
            let m = mean(network.noise(), &a)?;
            // the first is a leaf: what lies below plays no part
            states.push(if states.is_empty() { m.detach().f_set_requires_grad(true)? } else { m });
        }
        let scores = network.head().scores(states.last().expect("a layer"))?;
        let f = network.objective().values(&scores, batch.target)?;
        let h = Tensor::f_run_backward(&[f.f_sum(f.kind())?], &states, false, false)?;
        Ok((f.detach(), states.iter().map(Tensor::detach).collect(), h))
    })
}

impl Rule for MuProp {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        let (f_mean, m, h) = mean_field(network, batch)?;
        let mut x = batch.input.shallow_clone();
        let mut layers = vec![];
        for (k, layer) in network.layers().iter().enumerate() {
            let a = layer.preactivation(&x)?;
            x = draws.states(k, network.noise(), &a)?;
            let log_p = layer.sum_units(&log_probability(network.noise(), &a, &x)?)?;
            let linear = layer.sum_units(&(&h[k] * (&x - &m[k])))?;
            let correction = layer.sum_units(&(&h[k] * mean(network.noise(), &a)?))?;
            layers.push((log_p, linear, correction));
        }
        let scores = network.head().scores(&x)?;
        let f = network.objective().values(&scores, batch.target)?;
        let reward = f.detach() - batch.baseline.unwrap_or(&f_mean).detach() - self.constant;
        let mut surrogate = f.shallow_clone();
        for (log_p, linear, correction) in layers {
            surrogate = surrogate + (&reward - linear) * gradient_only(&log_p) + gradient_only(&correction);
        }
        Ok(Loss { surrogate, value: f.detach(), scores: scores.detach() })
    }
}
