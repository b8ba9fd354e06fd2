//! Change of `sum_h softplus(a_h)` when a is moved by columns of a matrix, for all columns at once.
//!
//! `softplus(a + d) - softplus(a) = log(1 - p + p e^d)` with `p = sigmoid(a)`, and the sum of logarithms is the logarithm of a
//! product. With `1 - p`, `p` and `e^d` at hand a flip costs a multiply-add and a multiplication an output, in place of an
//! exponential and a logarithm; the logarithm of the running product is taken once in many factors. Each factor lies
//! between 1 and `e^d`, so a product of n of them is safe while `n |d| < 80`. It is also more accurate in f32 than the
//! difference of two sums of the size of the loss.
//!
//! Legend: `N` rows, `L` variables, `K` classes, `H` outputs.
use super::real::Real;
use crate::autograd::slices::slice;
use crate::error::{Error, Result};
use multiversion::multiversion;
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;
use tch::{Device, Kind, Tensor};

/// Rows are padded to as many numbers: one vector of AVX-512.
const LANES: usize = 16;
/// Flips that share the loads of a row: as many chains of multiplications as hide each other's latency.
const SIDE: usize = 5;
/// Rows that share a pass over the columns, so that those are read from memory once for all of them.
const ROWS: usize = 8;
/// Largest move of a pre-activation by one entry; beyond it a single exponential would leave the range of f32.
const LARGEST: f32 = 40.0;

/// Whether the loops serve these tensors: f32 on the CPU. They may still decline, for columns that are too large.
pub fn own_loops(columns: &Tensor) -> bool {
    columns.device() == Device::Cpu && columns.kind() == Kind::Float && columns.numel() > 0
}

/// Buffers that outlive a call: fresh memory of this size would cost more page faults than the arithmetic does.
#[derive(Default)]
struct Scratch {
    p: Vec<f32>,
    q: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What the products need, rows padded to whole lanes so that padding gives factors of 1.
struct Ready<'a> {
    p: &'a [f32],
    q: &'a [f32],
    up: &'a [f32],
    down: &'a [f32],
    width: usize,
    /// Factors that one product may take before its logarithm must be.
    every: usize,
}

/// Runs `loops` on what is made of pre-activations `[N, H]` and columns `[C, H]`; none where the columns are too large.
/// `moves`: how many columns one flip adds up.
fn prepare<T>(
    pre: &Tensor,
    columns: &Tensor,
    slope: f64,
    moves: f32,
    loops: impl FnOnce(Ready) -> T,
) -> Result<Option<T>> {
    let (pre, columns) = (pre.f_contiguous()?, columns.f_contiguous()?);
    let h = *pre.size().last().expect("checked by the caller") as usize;
    let width = h.div_ceil(LANES) * LANES;
    let largest = largest(slice(&columns)?) * slope as f32;
    if largest.is_nan() || largest >= LARGEST {
        return Ok(None);
    }
    let every = ((80.0 / (largest * moves).max(1e-3)) as usize).clamp(1, 64);
    SCRATCH.with_borrow_mut(|s| {
        let Scratch { p, q, up, down } = s;
        for (buffers, of) in [([&mut *p, &mut *q], &pre), ([&mut *up, &mut *down], &columns)] {
            let size = of.numel() / h * width;
            buffers.into_iter().for_each(|b| b.resize(size, 0.0));
        }
        sigmoids(slice(&pre)?, h, width, p, q);
        exponentials(slice(&columns)?, slope as f32, h, width, up, down);
        Ok(Some(loops(Ready { p, q, up, down, width, every })))
    })
}

/// The largest absolute value, or NaN: without their sign, numbers are ordered as their bits, and NaN comes last.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn largest(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().fold(0, |m, x| m.max(x.to_bits() & !(1 << 31))))
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn sigmoids(a: &[f32], h: usize, width: usize, p: &mut [f32], q: &mut [f32]) {
    for ((a, p), q) in a.chunks_exact(h).zip(p.chunks_exact_mut(width)).zip(q.chunks_exact_mut(width)) {
        for ((&a, p), q) in a.iter().zip(&mut *p).zip(&mut *q) {
            let t = (-a.abs()).vexp();
            let s = 1.0 / (1.0 + t);
            let (high, low) = (s, t * s);
            (*p, *q) = if a >= 0.0 { (high, low) } else { (low, high) };
        }
        p[h..].fill(0.0);
        q[h..].fill(1.0);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn exponentials(w: &[f32], slope: f32, h: usize, width: usize, up: &mut [f32], down: &mut [f32]) {
    for ((w, up), down) in w.chunks_exact(h).zip(up.chunks_exact_mut(width)).zip(down.chunks_exact_mut(width)) {
        for ((&w, up), down) in w.iter().zip(&mut *up).zip(&mut *down) {
            *up = (w * slope).vexp();
            *down = 1.0 / *up;
        }
        up[h..].fill(0.0);
        down[h..].fill(0.0);
    }
}

/// Bits flipped one at a time: pre-activations `[N, H]`, columns `[L, H]`, bits `[N, L]`, slope of their code
/// -> `[N, L]`; none where the columns are too large for f32.
///
/// # Errors
/// [`Error::Shape`] for other kinds and shapes; see [`own_loops`] for what is served.
pub fn boolean(pre: &Tensor, columns: &Tensor, bits: &Tensor, slope: f64) -> Result<Option<Tensor>> {
    let (n, h) = pre.size2()?;
    let (l, _) = columns.size2()?;
    if columns.size() != [l, h] || bits.size() != [n, l] {
        return Err(Error::shape(
            "flips",
            format!("columns [L, {h}] and bits [{n}, L]"),
            (columns.size(), bits.size()),
        ));
    }
    let bits = bits.f_contiguous()?;
    let bits = slice::<f32>(&bits)?;
    let mut out = vec![0f32; (n * l) as usize];
    let done = prepare(pre, columns, slope, 1.0, |ready| {
        Arch::new().dispatch(Boolean { ready, bits, l: l as usize, out: &mut out });
    })?;
    done.map(|()| Ok(Tensor::f_from_slice(&out)?.f_view([n, l])?)).transpose()
}

struct Boolean<'a> {
    ready: Ready<'a>,
    bits: &'a [f32],
    l: usize,
    out: &'a mut [f32],
}

impl WithSimd for Boolean<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Boolean { ready: r, bits, l, out } = self;
        let width = r.width;
        let rows = r.p.len() / width;
        for first in (0..rows).step_by(ROWS) {
            for j in (0..l).step_by(SIDE) {
                for n in first..rows.min(first + ROWS) {
                    let (q, p) = (&r.q[n * width..][..width], &r.p[n * width..][..width]);
                    let here = n * l + j..n * l + l.min(j + SIDE);
                    let column = |i: usize| {
                        let of = if bits[here.start + i] != 0.0 { r.down } else { r.up };
                        &of[(j + i) * width..][..width]
                    };
                    changes(simd, q, p, column, r.every, &mut out[here.clone()]);
                }
            }
        }
    }
}

/// Categorical variables moved one at a time to each of their other classes, `m + 1, m + 2, ..` modulo K from the class m:
/// pre-activations `[N, H]`, columns `[L, K, H]`, classes i64 `[N, L]` -> `[N, L, K - 1]`; none where the columns are too
/// large for f32.
///
/// # Errors
/// As [`boolean`].
pub fn categorical(pre: &Tensor, columns: &Tensor, classes: &Tensor) -> Result<Option<Tensor>> {
    let (n, h) = pre.size2()?;
    let (l, k, _) = columns.size3()?;
    if columns.size() != [l, k, h] || classes.size() != [n, l] {
        let got = (columns.size(), classes.size());
        return Err(Error::shape("flips", format!("columns [L, K, {h}] and classes [{n}, L]"), got));
    }
    let classes = classes.f_contiguous()?;
    let classes = slice::<i64>(&classes)?;
    let mut out = vec![0f32; (n * l * (k - 1)) as usize];
    let done = prepare(pre, columns, 1.0, 2.0, |ready| {
        Arch::new().dispatch(Categorical { ready, classes, l: l as usize, k: k as usize, out: &mut out });
    })?;
    done.map(|()| Ok(Tensor::f_from_slice(&out)?.f_view([n, l, k - 1])?)).transpose()
}

struct Categorical<'a> {
    ready: Ready<'a>,
    classes: &'a [i64],
    l: usize,
    k: usize,
    out: &'a mut [f32],
}

impl WithSimd for Categorical<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Categorical { ready: r, classes, l, k, out } = self;
        let width = r.width;
        let rows = r.p.len() / width;
        let mut without = vec![0f32; width];
        for first in (0..rows).step_by(ROWS) {
            for j in 0..l {
                for n in first..rows.min(first + ROWS) {
                    let class = classes[n * l + j] as usize;
                    let (q, p) = (&r.q[n * width..][..width], &r.p[n * width..][..width]);
                    // e^d splits into a factor of the class left and one of the class taken
                    let left = &r.down[(j * k + class) * width..][..width];
                    for ((w, p), d) in without.iter_mut().zip(p).zip(left) {
                        *w = p * d;
                    }
                    let start = (n * l + j) * (k - 1);
                    for o in (0..k - 1).step_by(SIDE) {
                        let here = start + o..start + (k - 1).min(o + SIDE);
                        let column = |i: usize| &r.up[(j * k + (class + o + i + 1) % k) * width..][..width];
                        changes(simd, q, &without, column, r.every, &mut out[here]);
                    }
                }
            }
        }
    }
}

/// Up to [`SIDE`] sums `sum log(q + r e)` with the columns e. The registers are spoken of by name (pulp): left to itself the
/// compiler keeps the running products in memory. Where fewer are asked for, the last column serves again.
#[inline(always)]
fn changes<'a, S: Simd>(
    simd: S,
    q: &[f32],
    r: &[f32],
    column: impl Fn(usize) -> &'a [f32],
    every: usize,
    out: &mut [f32],
) {
    let last = out.len() - 1;
    let (q, r) = (S::as_simd_f32s(q).0, S::as_simd_f32s(r).0);
    let [e0, e1, e2, e3, e4] = std::array::from_fn(|i| S::as_simd_f32s(column(i.min(last))).0);
    let one = simd.splat_f32s(1.0);
    let mut sums = [0f32; SIDE];
    let mut products = [0f32; SIDE * LANES];
    for from in (0..q.len()).step_by(every) {
        let here = from..q.len().min(from + every);
        let all = q[here.clone()].iter().zip(&r[here.clone()]);
        let all = all.zip(&e0[here.clone()]).zip(&e1[here.clone()]).zip(&e2[here.clone()]);
        let all = all.zip(&e3[here.clone()]).zip(&e4[here]);
        let (mut p0, mut p1, mut p2, mut p3, mut p4) = (one, one, one, one, one);
        for ((((((&q, &r), &e0), &e1), &e2), &e3), &e4) in all {
            p0 = simd.mul_f32s(p0, simd.mul_add_e_f32s(r, e0, q));
            p1 = simd.mul_f32s(p1, simd.mul_add_e_f32s(r, e1, q));
            p2 = simd.mul_f32s(p2, simd.mul_add_e_f32s(r, e2, q));
            p3 = simd.mul_f32s(p3, simd.mul_add_e_f32s(r, e3, q));
            p4 = simd.mul_f32s(p4, simd.mul_add_e_f32s(r, e4, q));
        }
        // vectors shorter than the longest fill the front alone
        S::as_mut_simd_f32s(&mut products).0[..SIDE].copy_from_slice(&[p0, p1, p2, p3, p4]);
        for x in &mut products[..SIDE * size_of::<S::f32s>() / 4] {
            *x = x.vln();
        }
        for (sum, logs) in sums.iter_mut().zip(S::as_simd_f32s(&products).0) {
            *sum += simd.reduce_sum_f32s(*logs);
        }
    }
    out.copy_from_slice(&sums[..=last]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normals(size: &[i64], scale: f64) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)) * scale
    }

    fn softplus(a: &Tensor) -> Tensor {
        a.to_kind(Kind::Double).softplus().sum_dim_intlist(-1, false, Kind::Double)
    }

    /// Largest distance, relative to 1 or the change, from the double-precision difference.
    fn off(got: &Tensor, moved: &Tensor, pre: &Tensor) -> f64 {
        let want = softplus(moved) - softplus(pre).unsqueeze(-1);
        ((got.to_kind(Kind::Double) - &want).abs() / (want.abs() + 1.0)).max().double_value(&[])
    }

    /// The loops in vectors of a single number, as on a processor without any.
    fn scalar(pre: &Tensor, columns: &Tensor, moves: f32, slope: f64, run: impl FnOnce(Ready)) {
        prepare(pre, columns, slope, moves, run).unwrap().unwrap();
    }

    /// Each of the H factors is rounded twice, by at most 6e-8 and 3.4e-8 in the root mean square, and the logarithms of 16 lanes
    /// with them: seven standard deviations are allowed, whatever the size of the sums. The double-precision difference is the truth.
    /// Fewer, as many, and more columns than share a pass.
    #[test]
    fn all_flips_as_by_definition() {
        tch::manual_seed(1);
        let cases =
            [(5, 3, 7, 1.0), (19, 6, 784, 0.3), (2, 4, 33, 10.0), (9, 5, 96, 0.0), (3, 1, 1, 1.0), (4, 11, 50, 0.5)];
        for (n, l, h, scale) in cases {
            let limit = 7.0 * 3.4e-8 * (2.0 * h as f64 + 16.0).sqrt();
            let (pre, columns) = (normals(&[n, h], 3.0), normals(&[l, h], scale).clamp(-19.0, 19.0));
            let bits = normals(&[n, l], 1.0).gt(0.0).to_kind(Kind::Float);
            for slope in [1.0, 2.0] {
                assert!(own_loops(&columns));
                let got = boolean(&pre, &columns, &bits, slope).unwrap().unwrap();
                let step: Tensor = (1.0 - &bits * 2.0) * slope;
                let moved = pre.unsqueeze(1).to_kind(Kind::Double) + step.unsqueeze(-1) * columns.unsqueeze(0);
                assert!(off(&got, &moved, &pre) < limit, "H {h}, scale {scale}");
                let mut out = vec![0f32; (n * l) as usize];
                let flags: Vec<f32> = Vec::try_from(bits.reshape([-1])).unwrap();
                scalar(&pre, &columns, 1.0, slope, |ready| {
                    Boolean { ready, bits: &flags, l: l as usize, out: &mut out }.with_simd(pulp::Scalar)
                });
                assert!(
                    off(&Tensor::from_slice(&out).view([n, l]), &moved, &pre) < limit,
                    "H {h}, one number at a time"
                );
            }
            for k in [2, 3, 6, 7, 11, 14] {
                let columns = normals(&[l, k, h], scale).clamp(-19.0, 19.0);
                let classes = Tensor::randint(k, [n, l], (Kind::Int64, Device::Cpu));
                let got = categorical(&pre, &columns, &classes).unwrap().unwrap();
                let mut out = vec![0f32; (n * l * (k - 1)) as usize];
                let indices: Vec<i64> = Vec::try_from(classes.reshape([-1])).unwrap();
                scalar(&pre, &columns, 2.0, 1.0, |ready| {
                    let (classes, l, k) = (&indices[..], l as usize, k as usize);
                    Categorical { ready, classes, l, k, out: &mut out }.with_simd(pulp::Scalar)
                });
                let single = Tensor::from_slice(&out).view([n, l, k - 1]);
                for j in 0..l {
                    let of = |class: &Tensor| columns.get(j).index_select(0, class).to_kind(Kind::Double); // [N, H]
                    let from = classes.select(1, j);
                    let to = (1..k).map(|o| of(&(&from + o).remainder(k)) - of(&from)).collect::<Vec<_>>();
                    let moved = pre.unsqueeze(1).to_kind(Kind::Double) + Tensor::stack(&to, 1); // [N, K - 1, H]
                    for got in [&got, &single] {
                        assert!(off(&got.select(1, j), &moved, &pre) < limit, "K {k}, H {h}, scale {scale}");
                    }
                }
            }
        }
        for bad in [1e3, f64::NAN] {
            let none = boolean(&normals(&[2, 3], 1.0), &(normals(&[4, 3], 0.0) + bad), &normals(&[2, 4], 1.0), 1.0);
            assert!(none.unwrap().is_none(), "columns of {bad}");
        }
    }
}
