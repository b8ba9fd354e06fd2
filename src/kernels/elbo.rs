//! The two sums of a VAE's objective with their derivatives, each in one pass.
use super::real::Real;
use crate::autograd::slices::{slice, slice_mut};
use crate::error::{Error, Result};
use multiversion::multiversion;
use tch::{Kind, Tensor};

/// Binary cross-entropy with logits: the sum over all entries of `softplus(x) - x t`, and its derivative `sigmoid(x) - t`.
/// `x`, `t`: one shape, f32 or f64, CPU.
pub fn bce_with_logits(x: &Tensor, t: &Tensor) -> Result<(f64, Tensor)> {
    if x.size() != t.size() {
        return Err(Error::shape("bce_with_logits", format!("{:?}", x.size()), t.size()));
    }
    let (x, t) = (x.detach().f_contiguous()?, t.f_contiguous()?);
    let mut d = Tensor::f_empty(x.size(), (x.kind(), x.device()))?;
    let sum = match x.kind() {
        Kind::Float => bce_f32(slice(&x)?, slice(&t)?, slice_mut(&mut d)?),
        _ => bce_loop::<f64>(slice(&x)?, slice(&t)?, slice_mut(&mut d)?),
    };
    Ok((sum, d))
}

/// Lanes of the running sums: enough for the widest vectors, and the rounding of a pairwise sum.
const LANES: usize = 32;

#[inline(always)]
fn total<T: Real>(lanes: [T; LANES]) -> f64 {
    lanes.iter().map(|v| v.f64()).sum()
}

#[inline(always)]
fn bce_loop<T: Real>(x: &[T], t: &[T], d: &mut [T]) -> f64 {
    let mut sum = 0.0;
    // Short blocks, so that an f32 lane sums few numbers before it joins the double.
    for ((x, t), d) in x.chunks(1024).zip(t.chunks(1024)).zip(d.chunks_mut(1024)) {
        let mut lanes = [T::ZERO; LANES];
        let one = |x: T, t: T, d: &mut T, lane: &mut T| {
            let negative = x < T::ZERO;
            let e = (if negative { x } else { -x }).vexp(); // e^-|x|
            let s = T::ONE / (T::ONE + e);
            *d = (if negative { e * s } else { s }) - t;
            *lane += (if negative { T::ZERO } else { x }) + (T::ONE + e).vln() - x * t;
        };
        let whole = x.len() / LANES * LANES;
        for ((x, t), d) in x[..whole].chunks_exact(LANES).zip(t.chunks_exact(LANES)).zip(d.chunks_exact_mut(LANES)) {
            for i in 0..LANES {
                one(x[i], t[i], &mut d[i], &mut lanes[i]);
            }
        }
        for i in whole..x.len() {
            one(x[i], t[i], &mut d[i], &mut lanes[0]);
        }
        sum += total(lanes);
    }
    sum
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn bce_f32(x: &[f32], t: &[f32], d: &mut [f32]) -> f64 {
    bce_loop(x, t, d)
}

/// Negative entropy with the reference's offset: the sum over all entries of `q log(q + 1e-10)`, and its derivative
/// `log(q + 1e-10) + q / (q + 1e-10)`. `q`: probabilities, f32 or f64, CPU. At q = 0 the term is 0.
pub fn negative_entropy(q: &Tensor) -> Result<(f64, Tensor)> {
    let q = q.detach().f_contiguous()?;
    let mut d = Tensor::f_empty(q.size(), (q.kind(), q.device()))?;
    let sum = match q.kind() {
        Kind::Float => entropy_f32(slice(&q)?, slice_mut(&mut d)?),
        _ => entropy_loop::<f64>(slice(&q)?, slice_mut(&mut d)?),
    };
    Ok((sum, d))
}

#[inline(always)]
fn entropy_loop<T: Real>(q: &[T], d: &mut [T]) -> f64 {
    let offset = T::of(1e-10);
    let mut sum = 0.0;
    for (q, d) in q.chunks(1024).zip(d.chunks_mut(1024)) {
        let mut lanes = [T::ZERO; LANES];
        for (i, (&q, d)) in q.iter().zip(d.iter_mut()).enumerate() {
            let log = (q + offset).vln();
            *d = log + q / (q + offset);
            lanes[i % LANES] += q * log;
        }
        sum += total(lanes);
    }
    sum
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn entropy_f32(q: &[f32], d: &mut [f32]) -> f64 {
    entropy_loop(q, d)
}
