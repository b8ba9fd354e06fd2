//! One pass over memory for a step of gradient descent with momentum.
//!
//! Limit: a step reads parameter, gradient and momentum and writes two of them, 20 bytes a parameter in f32, once. Rounded
//! where PyTorch's loop over single tensors rounds: its additions of a multiple are fused.
use super::real::{Fused, Real};
use crate::autograd::slices::{Element, slice, slice_mut};
use crate::error::Result;
use multiversion::multiversion;
use tch::{Kind, Tensor};

/// Coefficients of a step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the momentum.
    pub momentum: f64,
    /// Whether the step looks ahead along the momentum.
    pub nesterov: bool,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f64,
}

/// Updates `param` and its momentum in place. All contiguous, one kind (f32 or f64) and size, on the CPU, without a graph.
pub fn step(param: &mut Tensor, grad: &Tensor, buffer: &mut Tensor, s: &Step) -> Result<()> {
    match param.kind() {
        Kind::Float => pass::<f32>(param, grad, buffer, s, update_f32),
        _ => pass::<f64>(param, grad, buffer, s, update_f64),
    }
}

type Update<T> = fn(&mut [T], &[T], &mut [T], &Step);

fn pass<T: Element>(param: &mut Tensor, grad: &Tensor, buffer: &mut Tensor, s: &Step, update: Update<T>) -> Result<()> {
    update(slice_mut(param)?, slice(grad)?, slice_mut(buffer)?, s);
    Ok(())
}

#[inline(always)]
fn update_loop<T: Real + Fused>(param: &mut [T], grad: &[T], buffer: &mut [T], s: &Step) {
    let (lr, momentum, decay) = (T::of(-s.lr), T::of(s.momentum), T::of(s.weight_decay));
    let decays = s.weight_decay != 0.0;
    for ((p, &g), m) in param.iter_mut().zip(grad).zip(buffer) {
        let g = if decays { decay.fused(*p, g) } else { g };
        *m = *m * momentum + g;
        let d = if s.nesterov { momentum.fused(*m, g) } else { *m };
        *p = lr.fused(d, *p);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn update_f32(param: &mut [f32], grad: &[f32], buffer: &mut [f32], s: &Step) {
    update_loop(param, grad, buffer, s)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn update_f64(param: &mut [f64], grad: &[f64], buffer: &mut [f64], s: &Step) {
    update_loop(param, grad, buffer, s)
}
