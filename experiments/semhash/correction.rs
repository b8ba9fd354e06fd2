//! The gradient of the correction phase: the mean of several pairs of ARM (Section 5, ARM-10).
use crate::model::Model;
use tch::{Kind, Tensor};
use thruway::error::Result;
use thruway::estimators::{Built, GradEstimator};
use thruway::nn::bow::Bags;
use thruway::nn::loss::number;
use thruway::noise::Noise;

/// Leaves in the encoder, through `logits`, the mean of `times` estimates of the mean loss of these documents, and in the decoder
/// its own gradient at the first of them. Returns the mean loss over draws of the first.
///
/// One after the other, so that the scores of one pair at a time are in memory.
pub fn repeated(
    estimator: &Built,
    model: &Model,
    bags: &Bags,
    logits: &Tensor,
    times: i64,
    noise: &mut dyn Noise,
) -> Result<f64> {
    let leaf = logits.detach().f_set_requires_grad(true)?;
    let mut value = 0.0;
    let weight = 1.0 / (bags.len() * times) as f64;
    let mut f = model.reconstruction(bags);
    for k in 0..times {
        let loss = estimator.surrogate_loss(&leaf, &f, noise)?;
        if k == 0 {
            value = number(&loss.f_mean(Kind::Double)?);
            // the decoder's gradient is that of the mean loss of this pair alone, not of its share
            loss.f_mean(loss.kind())?.f_backward()?;
            let scaled = leaf.grad() / times as f64;
            leaf.grad().f_copy_(&scaled)?;
            f = f.frozen();
        } else {
            (loss.f_sum(loss.kind())? * weight).f_backward()?;
        }
    }
    (logits * leaf.grad()).f_sum(logits.kind())?.f_backward()?;
    Ok(value)
}
