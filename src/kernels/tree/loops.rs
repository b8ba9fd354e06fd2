//! The inner loops, vectorised for f32.
use crate::autograd::slices::Element;
use crate::error::Result;
use crate::kernels::real::Real;
use multiversion::multiversion;
use tch::Tensor;

/// The loops in one kind.
pub(super) trait Loops: Real + Element {
    /// `a + b + c`.
    fn add3(a: &[Self], b: &[Self], c: &[Self], out: &mut [Self]);
    /// The new c from gates (5H) and the children's c.
    fn cell(gates: &[Self], left: &[Self], right: &[Self], out: &mut [Self]);
    /// `g . a`, `g . b`, `g . c`.
    fn dots(g: &[Self], a: &[Self], b: &[Self], c: &[Self]) -> [Self; 3];
    /// From gradients of a cell's h and c to its children's: see [`cell_back_loop`].
    fn cell_back(cell: &Cell<Self>, dh: &[Self], dc: Option<&[Self]>, left: &mut [Self], right: &mut [Self]);
    /// `y = a x`, or `y += a x`.
    fn scaled(a: Self, x: &[Self], add: bool, y: &mut [Self]);
    /// A tensor of these.
    fn tensor(values: &[Self]) -> Result<Tensor>;
    /// A boolean tensor.
    fn tensor_of_bools(values: &[bool]) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(values)?)
    }
}

/// What a cell's backward needs: gates 5H, tanh c, and the c of its children.
pub(super) struct Cell<'a, T> {
    pub gates: &'a [T],
    pub tanh_c: &'a [T],
    pub left: &'a [T],
    pub right: &'a [T],
}

#[inline(always)]
fn add3_loop<T: Real>(a: &[T], b: &[T], c: &[T], out: &mut [T]) {
    for (((o, &a), &b), &c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *o = a + b + c;
    }
}

#[inline(always)]
fn cell_loop<T: Real>(gates: &[T], left: &[T], right: &[T], out: &mut [T]) {
    let w = out.len();
    let (i, f, g, u) = (&gates[..w], &gates[w..2 * w], &gates[2 * w..3 * w], &gates[3 * w..4 * w]);
    for ((((((o, &i), &f), &g), &u), &l), &r) in out.iter_mut().zip(i).zip(f).zip(g).zip(u).zip(left).zip(right) {
        *o = i * u + f * l + g * r;
    }
}

/// Lanes of the running sums of a dot product: two vectors of AVX-512.
const LANES: usize = 32;

#[inline(always)]
fn dots_loop<T: Real>(g: &[T], a: &[T], b: &[T], c: &[T]) -> [T; 3] {
    let n = g.len();
    let (a, b, c) = (&a[..n], &b[..n], &c[..n]);
    let mut sums = [[T::ZERO; LANES]; 3];
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (g, a) = (&g[at..at + LANES], &a[at..at + LANES]);
        let (b, c) = (&b[at..at + LANES], &c[at..at + LANES]);
        for i in 0..LANES {
            sums[0][i] += g[i] * a[i];
            sums[1][i] += g[i] * b[i];
            sums[2][i] += g[i] * c[i];
        }
    }
    for i in whole..n {
        sums[0][0] += g[i] * a[i];
        sums[1][0] += g[i] * b[i];
        sums[2][0] += g[i] * c[i];
    }
    sums.map(|lanes| lanes.into_iter().fold(T::ZERO, |s, x| s + x))
}

/// Adds to the children's gradients, each the products (left 5H, right 5H), then c (H): the left child takes the gradient of
/// the gates' input into its left products, the right one into its right ones.
#[inline(always)]
fn cell_back_loop<T: Real>(cell: &Cell<T>, dh: &[T], dc: Option<&[T]>, left: &mut [T], right: &mut [T]) {
    let w = dh.len();
    let gate = |k: usize| &cell.gates[k * w..(k + 1) * w];
    let (gi, gf, gg, gu, go) = (gate(0), gate(1), gate(2), gate(3), gate(4));
    let (tanh_c, cl, cr) = (&cell.tanh_c[..w], &cell.left[..w], &cell.right[..w]);
    let (lp, lc) = left.split_at_mut(10 * w);
    let (rp, rc) = right.split_at_mut(10 * w);
    let (li, rest) = lp.split_at_mut(w);
    let (lf, rest) = rest.split_at_mut(w);
    let (lg, rest) = rest.split_at_mut(w);
    let (lu, rest) = rest.split_at_mut(w);
    let lo = &mut rest[..w];
    let (ri, rest) = rp[5 * w..].split_at_mut(w);
    let (rf, rest) = rest.split_at_mut(w);
    let (rg, rest) = rest.split_at_mut(w);
    let (ru, rest) = rest.split_at_mut(w);
    let ro = &mut rest[..w];
    let (lc, rc) = (&mut lc[..w], &mut rc[..w]);
    for k in 0..w {
        let (i, f, g, u, o, t) = (gi[k], gf[k], gg[k], gu[k], go[k], tanh_c[k]);
        let d = dh[k] * o * (T::ONE - t * t);
        let d = match dc {
            Some(dc) => d + dc[k],
            None => d,
        };
        let zi = d * u * i * (T::ONE - i);
        let zf = d * cl[k] * f * (T::ONE - f);
        let zg = d * cr[k] * g * (T::ONE - g);
        let zu = d * i * (T::ONE - u * u);
        let zo = dh[k] * t * o * (T::ONE - o);
        li[k] += zi;
        lf[k] += zf;
        lg[k] += zg;
        lu[k] += zu;
        lo[k] += zo;
        lc[k] += d * f;
        ri[k] += zi;
        rf[k] += zf;
        rg[k] += zg;
        ru[k] += zu;
        ro[k] += zo;
        rc[k] += d * g;
    }
}

#[inline(always)]
fn scaled_loop<T: Real>(a: T, x: &[T], add: bool, y: &mut [T]) {
    if add {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y += a * x);
    } else {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = a * x);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn add3_f32(a: &[f32], b: &[f32], c: &[f32], out: &mut [f32]) {
    add3_loop(a, b, c, out)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn cell_f32(gates: &[f32], left: &[f32], right: &[f32], out: &mut [f32]) {
    cell_loop(gates, left, right, out)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn dots_f32(g: &[f32], a: &[f32], b: &[f32], c: &[f32]) -> [f32; 3] {
    dots_loop(g, a, b, c)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn cell_back_f32(cell: &Cell<f32>, dh: &[f32], dc: Option<&[f32]>, left: &mut [f32], right: &mut [f32]) {
    cell_back_loop(cell, dh, dc, left, right)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn scaled_f32(a: f32, x: &[f32], add: bool, y: &mut [f32]) {
    scaled_loop(a, x, add, y)
}

impl Loops for f32 {
    fn add3(a: &[f32], b: &[f32], c: &[f32], out: &mut [f32]) {
        add3_f32(a, b, c, out)
    }
    fn cell(gates: &[f32], left: &[f32], right: &[f32], out: &mut [f32]) {
        cell_f32(gates, left, right, out)
    }
    fn dots(g: &[f32], a: &[f32], b: &[f32], c: &[f32]) -> [f32; 3] {
        dots_f32(g, a, b, c)
    }
    fn cell_back(cell: &Cell<f32>, dh: &[f32], dc: Option<&[f32]>, left: &mut [f32], right: &mut [f32]) {
        cell_back_f32(cell, dh, dc, left, right)
    }
    fn scaled(a: f32, x: &[f32], add: bool, y: &mut [f32]) {
        scaled_f32(a, x, add, y)
    }
    fn tensor(values: &[f32]) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(values)?)
    }
}

impl Loops for f64 {
    fn add3(a: &[f64], b: &[f64], c: &[f64], out: &mut [f64]) {
        add3_loop(a, b, c, out)
    }
    fn cell(gates: &[f64], left: &[f64], right: &[f64], out: &mut [f64]) {
        cell_loop(gates, left, right, out)
    }
    fn dots(g: &[f64], a: &[f64], b: &[f64], c: &[f64]) -> [f64; 3] {
        dots_loop(g, a, b, c)
    }
    fn cell_back(cell: &Cell<f64>, dh: &[f64], dc: Option<&[f64]>, left: &mut [f64], right: &mut [f64]) {
        cell_back_loop(cell, dh, dc, left, right)
    }
    fn scaled(a: f64, x: &[f64], add: bool, y: &mut [f64]) {
        scaled_loop(a, x, add, y)
    }
    fn tensor(values: &[f64]) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(values)?)
    }
}
