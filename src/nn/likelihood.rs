//! Evaluation of a [`BeliefNet`]: bounds and log-likelihoods, with hard draws and frozen parameters.
use super::belief::BeliefNet;
use super::loss::bce_rows;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::{Kind, Tensor};

/// Images times draws evaluated together.
const TOGETHER: i64 = 1000;

/// Sums over a set of images, in double.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bounds {
    /// Mean over images and draws of `log q(b | x) - log p(x, b)`: the negative ELBO, nats.
    pub neg_elbo: f64,
    /// Mean over images of `-log 1/S sum_s p(x, b_s) / q(b_s | x)`: the importance-sampling estimate of `-log p(x)` from S draws of
    /// q, in expectation above it and below the negative ELBO; nats.
    pub neg_log_likelihood: f64,
}

/// `log p(x, b) - log q(b | x)` for S draws of the whole chain from q: images `[B, pixels]` -> `[S, B]`, no graph.
///
/// # Errors
/// Those of the network.
pub fn log_weights(net: &BeliefNet, x: &Tensor, samples: i64, noise: &mut dyn Noise) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let input = net.input(x)?.f_unsqueeze(0)?;
    let mut states: Vec<Tensor> = vec![];
    let mut log_w = Tensor::f_zeros([1], (x.kind(), x.device()))?;
    for layer in 0..net.depth() {
        let mut logits = net.recognise(layer, states.last().unwrap_or(&input))?;
        if layer == 0 {
            let mut size = logits.size();
            size[0] = samples;
            logits = logits.f_expand(size, false)?;
        }
        let rows = logits.f_flatten(0, 1)?;
        let v = net.variables();
        let bits = v.indicators(&rows, &v.probs("evaluation", &rows)?, 1, noise)?.f_view_as(&logits)?;
        log_w = &log_w - net.log_prob(&logits, &bits)?;
        if layer > 0 {
            let below = net.indicators(&states[layer - 1])?;
            log_w = &log_w + net.log_prob(&net.generate(layer, &net.encode(&bits)?)?, &below)?;
        }
        if layer + 1 == net.depth() {
            log_w = &log_w + net.log_prob(&net.prior()?, &bits)?;
        }
        states.push(net.encode(&bits)?);
    }
    Ok(log_w - bce_rows(&net.generate(0, &states[0])?, x)?)
}

/// Bounds of images given piece by piece: `images(from, n)` gives `[n, pixels]` of the N in all; S draws of each.
///
/// # Errors
/// [`Error::Range`] for no images or no draws; those of the network.
pub fn bounds(
    net: &BeliefNet,
    n: i64,
    images: &mut dyn FnMut(i64, i64) -> Result<Tensor>,
    samples: i64,
    noise: &mut dyn Noise,
) -> Result<Bounds> {
    for (what, v) in [("images", n), ("samples", samples)] {
        if v < 1 {
            return Err(Error::range(what, "at least 1", v));
        }
    }
    let (mut elbo, mut likelihood) = (0.0, 0.0);
    let piece = (TOGETHER / samples).clamp(1, n);
    let sum = |t: &Tensor| -> Result<f64> { Ok(t.f_sum(Kind::Double)?.f_double_value(&[])?) };
    for from in (0..n).step_by(piece as usize) {
        let x = images(from, piece.min(n - from))?;
        let log_w = log_weights(net, &x, samples, noise)?.f_to_kind(Kind::Double)?;
        elbo += sum(&log_w)? / samples as f64;
        likelihood += sum(&(log_w.f_logsumexp(0i64, false)? - (samples as f64).ln()))?;
    }
    Ok(Bounds { neg_elbo: -elbo / n as f64, neg_log_likelihood: -likelihood / n as f64 })
}
