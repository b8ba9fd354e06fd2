//! One pass over memory for a step of Adam or RAdam.
//!
//! Limit: a step reads parameter, gradient and two moments and writes three of them, 28 bytes a parameter in f32, once.
use super::real::Real;
use crate::autograd::slices::{slice, slice_mut};
use crate::error::Result;
use multiversion::multiversion;
use tch::{Kind, Tensor};

/// Coefficients of one step, in PyTorch's notation. `param -= step_size * m / (sqrt(v) / root + eps)`, or, where
/// `adaptive` is false, `param -= step_size * m`.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the gradient, times the parameter (L2, not decoupled).
    pub weight_decay: f64,
    /// Learning rate with every bias correction in it.
    pub step_size: f64,
    /// Square root of the second moment's bias correction (1 where it is in `step_size`).
    pub root: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Whether to divide by the second moment (RAdam's first steps do not).
    pub adaptive: bool,
}

/// Updates `param` and its moments in place. All contiguous, one kind and size, on the CPU, without a graph.
pub fn step(param: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor, s: &Step) -> Result<()> {
    match param.kind() {
        Kind::Float => step_f32(slice_mut(param)?, slice(grad)?, slice_mut(m)?, slice_mut(v)?, s),
        _ => step_loop::<f64>(slice_mut(param)?, slice(grad)?, slice_mut(m)?, slice_mut(v)?, s),
    }
    Ok(())
}

trait Root {
    fn root(self) -> Self;
}
impl Root for f32 {
    #[inline(always)]
    fn root(self) -> f32 {
        self.sqrt()
    }
}
impl Root for f64 {
    #[inline(always)]
    fn root(self) -> f64 {
        self.sqrt()
    }
}

#[inline(always)]
fn step_loop<T: Real + Root>(param: &mut [T], grad: &[T], m: &mut [T], v: &mut [T], s: &Step) {
    let (c1, b2, c2) = (T::of(1.0 - s.beta1), T::of(s.beta2), T::of(1.0 - s.beta2));
    let (decay, size, root, eps) = (T::of(s.weight_decay), T::of(s.step_size), T::of(s.root), T::of(s.eps));
    for (((p, &g), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
        let g = g + decay * *p;
        *m += c1 * (g - *m);
        *v = b2 * *v + c2 * g * g;
        // in PyTorch's order (addcdiv): scale, then divide
        let scaled = -size * *m;
        *p += if s.adaptive { scaled / ((*v).root() / root + eps) } else { scaled };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn step_f32(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], s: &Step) {
    step_loop(param, grad, m, v, s)
}
