//! Moments of the conditional Gumbel-softmax that Gumbel-Rao averages, streamed so that memory does not grow with the
//! number of samples.
//!
//! Given the drawn class c and rate-1 exponentials E, the conditioned perturbed logits are, up to a constant of the row,
//! `-log E_c` for c and `-log(E_j / pi_j + E_c)` for the others (reference facts, section 1). Their softmax at temperature
//! tau is therefore `r^(1/tau) / sum r^(1/tau)` with `r_c = 1`, `r_j = E_c / (E_j / pi_j + E_c)`: no exponential of a logit,
//! no logarithm of a difference, right for logits of any size, and at tau = 1 no transcendental function at all.
//!
//! Of M samples p the backward needs `mean p` and `mean p p^T` alone (K and K^2 numbers a row), since
//! `mean_m J(p_m) g = mean(p) * g - mean(p p^T) g`.
use super::real::Real;
use super::rows::{classes, own_loops};
use crate::autograd::slices::{slice, slice_mut};
use crate::error::Result;
use multiversion::multiversion;
use tch::{Kind, Tensor};

/// Noise in flight: about this many numbers.
const CHUNK: i64 = 1 << 20;

/// `mean p` `[rows, K]` and `mean p p^T` `[rows, K, K]` over `samples` draws.
///
/// `pi`: probabilities `[rows, K]`; `index`: drawn class `[rows]`; `exponential(size)`: rate-1 exponentials, called with
/// `[n, K, samples]` for consecutive groups of rows, the reference's order.
pub fn moments(
    pi: &Tensor,
    index: &Tensor,
    samples: i64,
    inv_tau: f64,
    mut exponential: impl FnMut(&[i64]) -> Result<Tensor>,
) -> Result<(Tensor, Tensor)> {
    let k = classes("gumbel-rao", pi)?;
    let rows = pi.numel() as i64 / k;
    let (pi, index) = (pi.f_reshape([rows, k])?.f_contiguous()?, index.f_reshape([rows])?.f_contiguous()?);
    let options = (pi.kind(), pi.device());
    let mut mean = Tensor::f_zeros([rows, k], options)?;
    let mut second = Tensor::f_zeros([rows, k, k], options)?;
    let group = (CHUNK / (k * samples)).clamp(1, rows.max(1));
    let mut scratch = Scratch::default();
    let mut done = 0;
    while done < rows {
        let n = group.min(rows - done);
        let e = exponential(&[n, k, samples])?;
        if own_loops(&pi) {
            let (first, k, s) = (done as usize, k as usize, samples as usize);
            let index: &[i64] = slice(&index)?;
            let at = Rows { first, n: n as usize, k, s };
            match pi.kind() {
                Kind::Float => group_f32(
                    &at,
                    slice(&pi)?,
                    index,
                    slice(&e)?,
                    inv_tau as f32,
                    &mut scratch,
                    slice_mut(&mut mean)?,
                    slice_mut(&mut second)?,
                ),
                _ => group_loop::<f64>(
                    &at,
                    slice(&pi)?,
                    index,
                    slice(&e)?,
                    inv_tau,
                    &mut Scratch::default(),
                    slice_mut(&mut mean)?,
                    slice_mut(&mut second)?,
                ),
            }
        } else {
            let p = pi.f_narrow(0, done, n)?.f_unsqueeze(-1)?; // [n, K, 1]
            let c = index.f_narrow(0, done, n)?.f_reshape([n, 1, 1])?;
            let chosen = e.f_gather(1, &c.f_expand([n, 1, samples], false)?, false)?; // [n, 1, M]
            let r = &chosen / (e / p + &chosen);
            let r = r.f_scatter_value(1, &c.f_expand([n, 1, samples], false)?, 1.0)?;
            let r = if inv_tau == 1.0 { r } else { r.f_pow_tensor_scalar(inv_tau)? };
            let total = r.f_sum_dim_intlist(1, true, r.kind())?;
            let q = r / total; // [n, K, M]
            mean.f_narrow(0, done, n)?.f_copy_(&q.f_mean_dim(-1, false, q.kind())?)?;
            second.f_narrow(0, done, n)?.f_copy_(&(q.f_bmm(&q.f_transpose(1, 2)?)? / samples as f64))?;
        }
        done += n;
    }
    Ok((mean, second))
}

struct Rows {
    first: usize,
    n: usize,
    k: usize,
    s: usize,
}

struct Scratch<T> {
    r: Vec<T>,
    total: Vec<T>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Scratch { r: Vec::new(), total: Vec::new() }
    }
}

/// Samples handled together: `[K, BLOCK]` stays in the first-level cache for the K of practice.
const BLOCK: usize = 128;
const LANES: usize = 16;

#[inline(always)]
fn group_loop<T: Real>(
    at: &Rows,
    pi: &[T],
    index: &[i64],
    e: &[T],
    inv_tau: T,
    scratch: &mut Scratch<T>,
    mean: &mut [T],
    second: &mut [T],
) {
    let (k, s) = (at.k, at.s);
    scratch.r.resize(k * BLOCK, T::ZERO);
    scratch.total.resize(BLOCK, T::ZERO);
    let inv_samples = T::ONE / T::of(s as f64);
    for row in 0..at.n {
        let absolute = at.first + row;
        let pi = &pi[absolute * k..][..k];
        let c = index[absolute] as usize;
        let mean = &mut mean[absolute * k..][..k];
        let second = &mut second[absolute * k * k..][..k * k];
        let e = &e[row * k * s..][..k * s];
        let mut start = 0;
        while start < s {
            let width = BLOCK.min(s - start);
            let chosen = &e[c * s + start..][..width];
            let total = &mut scratch.total[..width];
            total.fill(T::ONE);
            for j in 0..k {
                let r = &mut scratch.r[j * BLOCK..][..width];
                if j == c {
                    r.fill(T::ONE);
                    continue;
                }
                let inv = T::ONE / pi[j]; // inf for a masked class: r = 0
                for ((r, &ej), &ec) in r.iter_mut().zip(&e[j * s + start..][..width]).zip(chosen) {
                    *r = ec / (ej * inv + ec);
                }
                if inv_tau == T::of(2.0) {
                    r.iter_mut().for_each(|r| *r = *r * *r);
                } else if inv_tau != T::ONE {
                    r.iter_mut().for_each(|r| *r = (r.vln() * inv_tau).vexp());
                }
                for (t, &r) in total.iter_mut().zip(r.iter()) {
                    *t += r;
                }
            }
            for t in total.iter_mut() {
                *t = T::ONE / *t;
            }
            for j in 0..k {
                let r = &mut scratch.r[j * BLOCK..][..width];
                for (r, &t) in r.iter_mut().zip(total.iter()) {
                    *r = *r * t;
                }
            }
            for j in 0..k {
                let a = &scratch.r[j * BLOCK..][..width];
                mean[j] += sum(a) * inv_samples;
                for l in 0..j {
                    second[j * k + l] += dot(a, &scratch.r[l * BLOCK..][..width]) * inv_samples;
                }
            }
            start += width;
        }
        // Symmetric, and each row of p p^T sums to p.
        for j in 0..k {
            let mut off = T::ZERO;
            for l in 0..k {
                let v = if l < j { second[j * k + l] } else { second[l * k + j] };
                if l > j {
                    second[j * k + l] = v;
                }
                if l != j {
                    off += v;
                }
            }
            second[j * k + j] = mean[j] - off;
        }
    }
}

#[inline(always)]
fn sum<T: Real>(a: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let chunks = a.chunks_exact(LANES);
    let mut rest = T::ZERO;
    for &x in chunks.remainder() {
        rest += x;
    }
    for a in chunks {
        for i in 0..LANES {
            lanes[i] += a[i];
        }
    }
    fold(lanes) + rest
}

#[inline(always)]
fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let mut rest = T::ZERO;
    for (&x, &y) in ca.remainder().iter().zip(cb.remainder()) {
        rest += x * y;
    }
    for (a, b) in ca.zip(cb) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    fold(lanes) + rest
}

#[inline(always)]
fn fold<T: Real>(lanes: [T; LANES]) -> T {
    let mut s = T::ZERO;
    for v in lanes {
        s += v;
    }
    s
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn group_f32(
    at: &Rows,
    pi: &[f32],
    index: &[i64],
    e: &[f32],
    inv_tau: f32,
    scratch: &mut Scratch<f32>,
    mean: &mut [f32],
    second: &mut [f32],
) {
    group_loop(at, pi, index, e, inv_tau, scratch, mean, second)
}

/// `mean_m J(p_m) g / tau` from the moments: `[.., K]`, shape of g.
pub fn backward(mean: &Tensor, second: &Tensor, g: &Tensor, inv_tau: f64) -> Result<Tensor> {
    let k = classes("gumbel-rao", g)?;
    // a masked class has mean 0: its upstream value, whatever it is, must not reach the others
    let rows = g.f_reshape([-1, k])?.f_to_kind(mean.kind())?.f_masked_fill(&mean.f_eq(0.0)?, 0.0)?;
    let inner = second.f_bmm(&rows.f_unsqueeze(-1)?)?.f_squeeze_dim(-1)?;
    Ok((mean * rows - inner).f_mul_scalar_(inv_tau)?.f_reshape(g.size())?)
}
