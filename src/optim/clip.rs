//! Clipping of gradients.
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// Scales the gradients of `params` so that the norm of all together is at most `limit`, and returns the norm before, as
/// `torch.nn.utils.clip_grad_norm_`: the factor is `limit / (norm + 1e-6)` where that is below 1. Parameters without a
/// gradient are passed over.
///
/// # Errors
/// [`Error::Range`] for a limit that is not positive.
///
/// ```
/// use tch::{Kind, Tensor};
/// let w = Tensor::from_slice(&[0f32, 0.0]).set_requires_grad(true);
/// (&w * Tensor::from_slice(&[3f32, 4.0])).sum(Kind::Float).backward();
/// assert_eq!(thruway::optim::clip_grad_norm([&w], 1.0)?, 5.0);
/// assert!((w.grad().double_value(&[1]) - 0.8).abs() < 1e-6);
/// # Ok::<(), thruway::Error>(())
/// ```
pub fn clip_grad_norm<'a>(params: impl IntoIterator<Item = &'a Tensor>, limit: f64) -> Result<f64> {
    if limit.is_nan() || limit <= 0.0 {
        return Err(Error::range("the largest norm of the gradient", "positive", limit));
    }
    let _guard = tch::no_grad_guard();
    let mut grads: Vec<Tensor> = params.into_iter().map(Tensor::grad).filter(Tensor::defined).collect();
    let norms = grads.iter().map(|g| g.f_norm()).collect::<std::result::Result<Vec<_>, _>>()?;
    if norms.is_empty() {
        return Ok(0.0);
    }
    let norm = Tensor::f_stack(&norms, 0)?.f_norm()?.f_to_kind(Kind::Double)?.f_double_value(&[])?;
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        for g in &mut grads {
            let _ = g.f_mul_scalar_(factor)?;
        }
    }
    Ok(norm)
}
