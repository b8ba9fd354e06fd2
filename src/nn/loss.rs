//! Losses over pixels.
use crate::autograd::Function;
use crate::error::{Error, Result};
use crate::kernels::{elbo, rows};
use tch::{Kind, Tensor};

/// Binary cross-entropy of `sigmoid(logits)` against grey levels `target` in [0, 1], summed over everything and divided by
/// `batch`: a scalar in nats, differentiable in the logits. Both of one shape.
///
/// The reference applies sigmoid, then `binary_cross_entropy`, whose logarithm stops at -100; this is
/// `softplus(x) - x t`, the same number wherever |x| < 100 and right beyond. One fused pass on the CPU.
pub fn bce_with_logits(logits: &Tensor, target: &Tensor, batch: i64) -> Result<Tensor> {
    if logits.size() != target.size() {
        return Err(Error::shape("bce_with_logits", format!("target {:?}", logits.size()), target.size()));
    }
    if !rows::own_loops(logits) {
        return Ok(bce_rows(logits, target)?.f_sum(logits.kind())? / batch as f64);
    }
    let (sum, y) = elbo::bce_with_logits(logits, target)?;
    let target = target.detach();
    let value = Tensor::f_from_slice(&[sum / batch as f64])?.f_to_kind(logits.kind())?.f_squeeze()?;
    let mut out = Function::new("BceWithLogits").inputs(&[logits]).apply(
        || Ok(vec![value]),
        move |node| {
            let g = node.grads()[0].as_ref();
            let g = g.map(|g| elbo::bce_gradient(&y, &target, number(&(g / batch as f64)))).transpose()?;
            Ok(vec![g])
        },
    )?;
    Ok(out.remove(0))
}

/// The same summed over the last axis alone: `[.., D] -> [..]`; target broadcast.
pub fn bce_rows(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let each = logits.f_softplus()? - logits * target;
    Ok(each.f_sum_dim_intlist(-1, false, logits.kind())?)
}

/// Mean of a metric over a batch, as a plain number; synchronises on a GPU.
pub fn number(t: &Tensor) -> f64 {
    t.to_kind(Kind::Double).double_value(&[])
}
