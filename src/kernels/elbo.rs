//! The two sums of a VAE's objective and their derivatives, one pass each way.
//!
//! The derivatives are rounded where the reference's chain of ops rounds them (sigmoid, then binary cross-entropy; logarithm,
//! then product), so that a gradient is PyTorch's bit for bit; the sums and the far ends, where that chain loses its digits,
//! are better than its own.
use super::real::Real;
use crate::autograd::slices::{slice, slice_mut};
use crate::error::{Error, Result};
use multiversion::multiversion;
use tch::{Kind, Tensor};

/// Binary cross-entropy with logits: the sum over all entries of `softplus(x) - x t`, and `y = sigmoid(x)` for
/// [`bce_gradient`]. `x`, `t`: one shape, f32 or f64, CPU.
pub fn bce_with_logits(x: &Tensor, t: &Tensor) -> Result<(f64, Tensor)> {
    if x.size() != t.size() {
        return Err(Error::shape("bce_with_logits", format!("{:?}", x.size()), t.size()));
    }
    let (x, t) = (x.detach().f_contiguous()?, t.f_contiguous()?);
    let mut y = Tensor::f_empty(x.size(), (x.kind(), x.device()))?;
    let sum = match x.kind() {
        Kind::Float => bce_f32(slice(&x)?, slice(&t)?, slice_mut(&mut y)?),
        _ => bce_loop::<f64>(slice(&x)?, slice(&t)?, slice_mut(&mut y)?),
    };
    Ok((sum, y))
}

/// Lanes of the running sums: enough for the widest vectors, and the rounding of a pairwise sum.
const LANES: usize = 32;

#[inline(always)]
fn total<T: Real>(lanes: [T; LANES]) -> f64 {
    lanes.iter().map(|v| v.f64()).sum()
}

/// Sigmoid and loss of one pixel: not a closure, so that it is always compiled with its caller's vector features.
#[inline(always)]
fn bce_one<T: Real>(x: T, t: T) -> (T, T) {
    // e^-x as libtorch's sigmoid has it; beyond 88 it overflows in f32, and 1 / (1 + e) is 0 to all purposes
    let most = T::of(88.0);
    let y = T::ONE / (T::ONE + (if -x < most { -x } else { most }).softmax_exp());
    let negative = x < T::ZERO;
    let e = (if negative { x } else { -x }).vexp(); // e^-|x|
    (y, (if negative { T::ZERO } else { x }) + (T::ONE + e).vln() - x * t)
}

#[inline(always)]
fn bce_loop<T: Real>(x: &[T], t: &[T], y: &mut [T]) -> f64 {
    let mut sum = 0.0;
    // Short blocks, so that an f32 lane sums few numbers before it joins the double.
    for ((x, t), y) in x.chunks(1024).zip(t.chunks(1024)).zip(y.chunks_mut(1024)) {
        let mut lanes = [T::ZERO; LANES];
        let whole = x.len() / LANES * LANES;
        for ((x, t), y) in x[..whole].chunks_exact(LANES).zip(t.chunks_exact(LANES)).zip(y.chunks_exact_mut(LANES)) {
            for i in 0..LANES {
                let (sigmoid, loss) = bce_one(x[i], t[i]);
                y[i] = sigmoid;
                lanes[i] += loss;
            }
        }
        for i in whole..x.len() {
            let (sigmoid, loss) = bce_one(x[i], t[i]);
            y[i] = sigmoid;
            lanes[0] += loss;
        }
        sum += total(lanes);
    }
    sum
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn bce_f32(x: &[f32], t: &[f32], y: &mut [f32]) -> f64 {
    bce_loop(x, t, y)
}

/// `g (y - t)`, the gradient of the logits for the upstream number g, from the y of [`bce_with_logits`].
///
/// The reference divides by `y (1 - y)` in one op and multiplies by it in the next; both are done here too, for the sake of
/// the last bit, as long as that product has digits.
pub fn bce_gradient(y: &Tensor, t: &Tensor, g: f64) -> Result<Tensor> {
    let t = t.f_contiguous()?;
    let mut d = Tensor::f_empty(y.size(), (y.kind(), y.device()))?;
    match y.kind() {
        Kind::Float => bce_gradient_f32(slice(y)?, slice(&t)?, g as f32, slice_mut(&mut d)?),
        _ => bce_gradient_loop::<f64>(slice(y)?, slice(&t)?, g, slice_mut(&mut d)?),
    }
    Ok(d)
}

#[inline(always)]
fn bce_gradient_loop<T: Real>(y: &[T], t: &[T], g: T, d: &mut [T]) {
    let least = T::of(1e-12); // the reference's
    for ((d, &y), &t) in d.iter_mut().zip(y).zip(t) {
        let plain = g * (y - t);
        let other = T::ONE - y;
        let slope = other * y;
        *d = if slope >= least { plain / slope * other * y } else { plain };
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn bce_gradient_f32(y: &[f32], t: &[f32], g: f32, d: &mut [f32]) {
    bce_gradient_loop(y, t, g, d)
}

/// Negative entropy with the reference's offset: the sum over all entries of `q log(q + 1e-10)`, and that logarithm for
/// [`entropy_gradient`]. `q`: probabilities, f32 or f64, CPU. At q = 0 the term is 0.
pub fn negative_entropy(q: &Tensor) -> Result<(f64, Tensor)> {
    let q = q.detach().f_contiguous()?;
    // libtorch's own logarithm: few numbers, and its last bit
    let log = q.f_add_scalar(OFFSET)?.f_log_()?;
    let sum = match q.kind() {
        Kind::Float => dot::<f32>(slice(&q)?, slice(&log)?),
        _ => dot::<f64>(slice(&q)?, slice(&log)?),
    };
    Ok((sum, log))
}

/// Added to a probability under the logarithm.
const OFFSET: f64 = 1e-10;

fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.chunks(1024).zip(b.chunks(1024)) {
        let mut lanes = [T::ZERO; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += a * b;
            }
        }
        sum += total(lanes);
    }
    sum
}

/// `g (log(q + 1e-10) + q / (q + 1e-10))`, the gradient of the probabilities for the upstream number g.
pub fn entropy_gradient(q: &Tensor, log: &Tensor, g: f64) -> Result<Tensor> {
    let q = q.f_contiguous()?;
    let mut d = Tensor::f_empty(q.size(), (q.kind(), q.device()))?;
    match q.kind() {
        Kind::Float => entropy_gradient_f32(slice(&q)?, slice(log)?, g as f32, slice_mut(&mut d)?),
        _ => entropy_gradient_loop::<f64>(slice(&q)?, slice(log)?, g, slice_mut(&mut d)?),
    }
    Ok(d)
}

#[inline(always)]
fn entropy_gradient_loop<T: Real>(q: &[T], log: &[T], g: T, d: &mut [T]) {
    let offset = T::of(OFFSET);
    for ((d, &q), &log) in d.iter_mut().zip(q).zip(log) {
        *d = g * log + g * q / (q + offset);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn entropy_gradient_f32(q: &[f32], log: &[f32], g: f32, d: &mut [f32]) {
    entropy_gradient_loop(q, log, g, d)
}
