//! What is measured beside training: bounds, and the variance of gradients. Nothing here changes a number of the training.
use crate::images::{Part, Split};
use tch::{Kind, Tensor};
use thruway::error::Result;
use thruway::estimators::{Built, GradEstimator};
use thruway::nn::BeliefNet;
use thruway::nn::likelihood::{Bounds, bounds};
use thruway::noise::TorchNoise;
use thruway::run::seeding::SideStream;

/// Bounds of one part with S draws an image, in the stream's place for this step.
pub fn of_part(net: &BeliefNet, part: &Part, samples: i64, stream: &SideStream, step: i64) -> Result<Bounds> {
    stream.at(step, || {
        let mut read = |from, n| part.range(from, n, &mut TorchNoise);
        bounds(net, part.len(), &mut read, samples, &mut TorchNoise)
    })
}

/// Single-draw -ELBO of training, validation and test images with frozen parameters.
pub fn frozen(net: &BeliefNet, split: &Split, stream: &SideStream, step: i64) -> Result<Vec<(&'static str, f64)>> {
    let mut all = vec![("frozen_neg_elbo", of_part(net, &split.train, 1, stream, step)?.neg_elbo)];
    if let Some(valid) = &split.valid {
        all.push(("valid_neg_elbo", of_part(net, valid, 1, stream, step)?.neg_elbo));
    }
    all.push(("test_neg_elbo", of_part(net, &split.test, 1, stream, step)?.neg_elbo));
    Ok(all)
}

/// Natural logarithm of the mean over the recognition network's parameters of the variance of the step's gradient, from
/// Adam's moments: `v / (1 - beta2^t) - (m / (1 - beta1^t))^2`, at least 0. As m scatters too, it is low by the factor
/// `1 - (1 - beta1) / (1 + beta1)` where gradients are stationary and independent; and it holds the variance between
/// minibatches. `None` before the second step (after one the two moments are the same gradient) or without moments.
pub fn log_variance_by_moments(state: &[(String, Tensor)], betas: (f64, f64)) -> Result<Option<f64>> {
    let find = |name: &str| state.iter().find(|(n, _)| n == name).map(|(_, t)| t);
    let (mut sum, mut count) = (0.0, 0);
    for (name, m) in state.iter().filter(|(n, _)| n.starts_with("encoder.")) {
        let Some(parameter) = name.strip_suffix(".exp_avg") else { continue };
        let (v, t) = (find(&format!("{parameter}.exp_avg_sq")), find(&format!("{parameter}.step")));
        let (Some(v), Some(t)) = (v, t) else { continue };
        let t = t.f_int64_value(&[0])? as f64;
        if t < 2.0 {
            return Ok(None);
        }
        let mean = m.f_to_kind(Kind::Double)? / (1.0 - betas.0.powf(t));
        let square = v.f_to_kind(Kind::Double)? / (1.0 - betas.1.powf(t));
        sum += (square - mean.f_square()?).f_clamp_min(0.0)?.f_sum(Kind::Double)?.f_double_value(&[])?;
        count += m.numel();
    }
    Ok((count > 0 && sum > 0.0).then(|| (sum / count as f64).ln()))
}

/// The same variance from `draws` gradients of one batch, given by `gradient` (which leaves it in the parameters): unbiased
/// in each coordinate. Moving averages of the estimators go on from one of these gradients to the next; all of their state
/// is put back afterwards.
pub fn log_variance(
    net: &BeliefNet,
    estimators: &[Built],
    draws: i64,
    mut gradient: impl FnMut() -> Result<()>,
) -> Result<Option<f64>> {
    let state =
        |e: &Built| e.parameters().into_iter().chain(e.buffers()).map(|(n, t)| (n, t.copy())).collect::<Vec<_>>();
    let before: Vec<Vec<(String, Tensor)>> = estimators.iter().map(state).collect();
    let (mut mean, mut square): (Option<Tensor>, Option<Tensor>) = (None, None);
    for i in 0..draws {
        gradient()?;
        let parts = net.params().iter().filter(|(n, _)| n.starts_with("encoder."));
        let all: Vec<Tensor> = parts.map(|(_, p)| p.grad().reshape([-1])).collect();
        let g = Tensor::f_cat(&all, 0)?.f_to_kind(Kind::Double)?;
        // Welford's update
        let old = mean.take().map_or_else(|| g.f_zeros_like(), Ok)?;
        let away = &g - &old;
        let new = old + &away / (i + 1) as f64;
        let moved = away * (g - &new);
        square = Some(square.map_or(moved.shallow_clone(), |s| s + &moved));
        mean = Some(new);
    }
    for (e, before) in estimators.iter().zip(before) {
        e.load(&|name| before.iter().find(|(n, _)| n == name).map(|(_, t)| t.shallow_clone()))?;
    }
    let Some(square) = square.filter(|_| draws > 1) else { return Ok(None) };
    let variance = square.f_mean(Kind::Double)?.f_double_value(&[])? / (draws - 1) as f64;
    Ok((variance > 0.0).then(|| variance.ln()))
}
