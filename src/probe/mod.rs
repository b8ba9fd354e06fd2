//! How good an estimate is: bias, standard deviation and cosine against the exact gradient, and z-scores.
use crate::error::Result;
use crate::estimators::{Estimator, GradEstimator, Knobs, NoiseKind, Objective};
use crate::exact;
use crate::noise::{HostNoise, Noise, Tape};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Accuracy of an estimator of one gradient g, in the norm over all its coordinates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accuracy {
    /// `|E - g| / |g|`, E the mean estimate.
    pub bias: f64,
    /// `|std| / |g|`, std coordinate-wise over single estimates.
    pub std: f64,
    /// Cosine of E and g.
    pub cosine: f64,
    /// `sqrt(mean |estimate - g|^2) / |g|` of a single estimate.
    pub rmse: f64,
    /// Estimates averaged; none where the mean was enumerated and has no sampling error.
    pub draws: Option<i64>,
}

/// Measures an estimator at logits `[1, L, K]` on f (`[M, B, L, K] -> [M, B]`, every row of the batch the same problem)
/// against `truth` `[L, K]`. An estimator whose noise is finite is enumerated over all states; others are drawn `draws`
/// times from `noise`.
pub fn accuracy(
    estimator: Estimator,
    knobs: &Knobs,
    logits: &Tensor,
    f: &dyn Objective,
    truth: &Tensor,
    draws: i64,
    noise: &mut dyn Noise,
) -> Result<Accuracy> {
    let (_, l, k) = logits.size3()?;
    let built = estimator.build(knobs)?;
    let finite = estimator.claims().noise == NoiseKind::Finite && (k as f64).powi(l as i32) <= exact::MAX_STATES as f64;
    let (gradients, weights) = if finite {
        let states = exact::states(l, k, logits.kind(), logits.device())?;
        let p = exact::probabilities(&logits.detach(), &states)?; // [S, 1]
        let mut tape = Tape::new([("index", states.f_argmax(-1, false)?)]);
        (estimates(&built, logits, states.size()[0], f, &mut tape)?, p.f_unsqueeze(-1)?)
    } else {
        let weight = Tensor::f_full([draws, 1, 1], 1.0 / draws as f64, (Kind::Double, logits.device()))?;
        (estimates(&built, logits, draws, f, noise)?, weight)
    };
    let gradients = gradients.f_to_kind(Kind::Double)?; // [N, L, K]
    let weights = weights.f_to_kind(Kind::Double)?;
    let truth = truth.f_to_kind(Kind::Double)?;
    let mean = (&gradients * &weights).f_sum_dim_intlist(0, false, Kind::Double)?;
    let variance = ((&gradients - &mean).f_square()? * &weights).f_sum_dim_intlist(0, false, Kind::Double)?;
    let squared = ((&gradients - &truth).f_square()? * &weights).f_sum(Kind::Double)?;
    let norm = |t: &Tensor| t.square().sum(Kind::Double).sqrt().double_value(&[]);
    let scale = norm(&truth);
    Ok(Accuracy {
        bias: norm(&(&mean - &truth)) / scale,
        std: variance.sum(Kind::Double).sqrt().double_value(&[]) / scale,
        cosine: (&mean * &truth).sum(Kind::Double).double_value(&[]) / (norm(&mean) * scale),
        rmse: squared.sqrt().double_value(&[]) / scale,
        draws: (!finite).then_some(draws),
    })
}

/// `n` estimates at once, as a batch of equal rows: `[n, L, K]`.
fn estimates(
    built: &crate::estimators::Built,
    logits: &Tensor,
    n: i64,
    f: &dyn Objective,
    noise: &mut dyn Noise,
) -> Result<Tensor> {
    let (_, l, k) = logits.size3()?;
    let leaf = logits.detach().f_expand([n, l, k], false)?.f_contiguous()?.f_set_requires_grad(true)?;
    let loss = built.surrogate_loss(&leaf, f, noise)?.f_sum(logits.kind())?;
    Ok(Tensor::f_run_backward(&[loss], &[&leaf], false, false)?.remove(0))
}

/// A stream for probes: independent of the training run's, the same on every device.
pub fn stream(seed: i64, step: i64) -> HostNoise {
    HostNoise::new((seed as u64) << 32 ^ step as u64)
}
