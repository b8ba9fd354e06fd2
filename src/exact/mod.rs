//! The enumeration oracle: expectations and gradients over all states, to which every estimator answers.
//!
//! Depends on no estimator and on none of the kernels, so it cannot share their mistakes: libtorch's own softmax, products
//! and autograd only.
//!
//! Legend: `L` variables, `K` classes, `S = K^L` states, `B` batch.
use crate::error::{Error, Result};
use tch::{Device, Kind, Tensor};

pub mod sbn;

/// Most states that are enumerated.
pub const MAX_STATES: i64 = 1 << 16;

/// `K^L`, the number of states.
///
/// # Errors
/// [`Error::Range`] if it exceeds [`MAX_STATES`].
pub fn count(l: i64, k: i64) -> Result<i64> {
    let s = (k as f64).powi(l as i32);
    if s > MAX_STATES as f64 || l < 1 || k < 1 {
        return Err(Error::range(format!("the number of states K^L = {k}^{l}"), format!("at most {MAX_STATES}"), s));
    }
    Ok(s as i64)
}

/// All one-hot states `[S, L, K]`, the last variable running fastest.
///
/// # Errors
/// Those of [`count`].
pub fn states(l: i64, k: i64, kind: Kind, device: Device) -> Result<Tensor> {
    let s = count(l, k)?;
    let digits: Vec<Tensor> = (0..l)
        .map(|i| {
            let stride = k.pow((l - 1 - i) as u32);
            Tensor::arange(s, (Kind::Int64, device)).divide_scalar_mode(stride, "floor").remainder(k)
        })
        .collect();
    Ok(Tensor::f_stack(&digits, -1)?.f_one_hot(k)?.f_to_kind(kind)?)
}

/// Probability of each state, differentiable in the logits: logits `[B, L, K]`, states `[S, L, K]` -> `[S, B]`.
pub fn probabilities(logits: &Tensor, states: &Tensor) -> Result<Tensor> {
    let probs = logits.f_softmax(-1, logits.kind())?;
    // [S, 1, L, K] * [1, B, L, K], the class summed out, the variables multiplied
    let each = (states.f_unsqueeze(1)? * probs.f_unsqueeze(0)?).f_sum_dim_intlist(-1, false, logits.kind())?;
    Ok(each.f_prod_dim_int(-1, false, logits.kind())?)
}

/// `E f(D)` by enumeration, differentiable in the logits and in what f closes over.
///
/// logits `[B, L, K]`; `f` maps states `[S, B, L, K]` to values `[S, B]`; returns `[B]`.
pub fn expectation(logits: &Tensor, f: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (b, l, k) = logits.size3().map_err(|_| Error::shape("exact", "logits [B, L, K]", logits.size()))?;
    let all = states(l, k, logits.kind(), logits.device())?;
    let p = probabilities(logits, &all)?;
    let s = all.size()[0];
    let values = f(&all.f_unsqueeze(1)?.f_expand([s, b, l, k], false)?)?;
    // a state with a masked class has p = 0: f may be anything there
    let values = values.f_masked_fill(&p.f_eq(0.0)?, 0.0)?;
    Ok((p * values).f_sum_dim_intlist(0, false, logits.kind())?)
}

/// Gradient of `sum_b E f(D_b)` in the logits, by enumeration: logits `[B, L, K]` -> `[B, L, K]`. f's own parameters get
/// nothing.
pub fn gradient(logits: &Tensor, f: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let leaf = logits.detach().copy().set_requires_grad(true);
    let e = expectation(&leaf, &|d| {
        let _guard = tch::no_grad_guard();
        f(d)
    })?;
    let total = e.f_sum(e.kind())?;
    Ok(Tensor::f_run_backward(&[total], &[&leaf], false, false)?.remove(0))
}

/// `E f(D)` from a table of f: logits `[B, L, K]`, values `[S, B]` of every state -> `[B]`, differentiable in both.
pub fn expectation_of_table(logits: &Tensor, values: &Tensor) -> Result<Tensor> {
    let (_, l, k) = logits.size3().map_err(|_| Error::shape("exact", "logits [B, L, K]", logits.size()))?;
    let p = probabilities(logits, &states(l, k, logits.kind(), logits.device())?)?;
    Ok((p * values).f_sum_dim_intlist(0, false, logits.kind())?)
}
