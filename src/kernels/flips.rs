//! Change of `sum_h softplus(a_h)` when a is moved by columns of a matrix, for all columns at once.
//!
//! `softplus(a + d) - softplus(a) = log(1 - p + p e^d)` with `p = sigmoid(a)`, and the sum of logarithms is the logarithm of a
//! product. With `1 - p`, `p` and `e^d` at hand a flip costs a multiply-add and a multiplication an output, in place of an
//! exponential and a logarithm; the exponent is taken out of the running product every few factors. Each factor lies
//! between 1 and `e^d`, so a product of n of them is safe while `n |d| < 80`. It is also more accurate in f32 than the
//! difference of two sums of the size of the loss.
//!
//! Legend: `N` rows, `L` variables, `K` classes, `H` outputs.
use crate::autograd::slices::slice;
use crate::error::{Error, Result};
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

/// Factors side by side.
const LANES: usize = 32;
/// Rows that share a pass over the columns, so that those are read from memory once for all of them.
const ROWS: usize = 8;
/// Largest move of a pre-activation by one entry; beyond it a single exponential would leave the range of f32.
const LARGEST: f64 = 40.0;

/// Whether the loops serve these tensors: f32 on the CPU with moderate columns.
pub fn own_loops(columns: &Tensor, slope: f64) -> Result<bool> {
    if columns.device() != Device::Cpu || columns.kind() != Kind::Float || columns.numel() == 0 {
        return Ok(false);
    }
    Ok(columns.f_abs()?.f_max()?.f_double_value(&[])? * slope < LARGEST)
}

/// Rows `[N, H]` of a contiguous tensor, padded to whole lanes with `fill`.
fn padded(t: &Tensor, fill: f64) -> Result<(Vec<f32>, usize)> {
    let h = t.size().last().copied().unwrap_or(0);
    let width = (h as usize).div_ceil(LANES) * LANES;
    let wide = t.f_constant_pad_nd([0, width as i64 - h])?;
    if width as i64 > h && fill != 0.0 {
        let _ = wide.f_narrow(-1, h, width as i64 - h)?.f_fill_(fill)?;
    }
    Ok((slice::<f32>(&wide.f_contiguous()?)?.to_vec(), width))
}

/// Factors that one product may take between two looks at its exponent.
fn run_length(columns: &Tensor, slope: f64, moves: f64) -> Result<usize> {
    let d = columns.f_abs()?.f_max()?.f_double_value(&[])? * slope * moves;
    Ok(((80.0 / d.max(1e-3)) as usize).clamp(1, 16))
}

/// Bits flipped one at a time: pre-activations `[N, H]`, columns `[L, H]`, bits `[N, L]`, slope of their code
/// -> `[N, L]`.
///
/// # Errors
/// [`Error::Shape`] for other kinds and shapes; see [`own_loops`] for what is served.
pub fn boolean(pre: &Tensor, columns: &Tensor, bits: &Tensor, slope: f64) -> Result<Tensor> {
    let (n, h) = pre.size2()?;
    let (l, _) = columns.size2()?;
    if columns.size() != [l, h] || bits.size() != [n, l] {
        return Err(Error::shape(
            "flips",
            format!("columns [L, {h}] and bits [{n}, L]"),
            (columns.size(), bits.size()),
        ));
    }
    let (p, width) = padded(&pre.f_sigmoid()?, 0.0)?;
    let (q, _) = padded(&pre.f_neg()?.f_sigmoid()?, 1.0)?;
    let d = columns * slope;
    let (up, _) = padded(&d.f_exp()?, 0.0)?;
    let (down, _) = padded(&d.f_neg()?.f_exp()?, 0.0)?;
    let every = run_length(columns, slope, 1.0)?;
    let bits = bits.f_contiguous()?;
    let bits = slice::<f32>(&bits)?;
    let mut out = vec![0f32; (n * l) as usize];
    boolean_loop(&p, &q, &up, &down, bits, width, l as usize, every, &mut out);
    Ok(Tensor::f_from_slice(&out)?.f_view([n, l])?)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn boolean_loop(
    p: &[f32],
    q: &[f32],
    up: &[f32],
    down: &[f32],
    bits: &[f32],
    width: usize,
    l: usize,
    every: usize,
    out: &mut [f32],
) {
    let rows = p.len() / width;
    for first in (0..rows).step_by(ROWS) {
        let block = first..rows.min(first + ROWS);
        for j in 0..l {
            let columns = [&up[j * width..][..width], &down[j * width..][..width]];
            for n in block.clone() {
                let column = columns[usize::from(bits[n * l + j] != 0.0)];
                out[n * l + j] = log_product(&q[n * width..][..width], &p[n * width..][..width], column, every);
            }
        }
    }
}

/// Categorical variables moved one at a time to each of their other classes, `m + 1, m + 2, ..` modulo K from the class m:
/// pre-activations `[N, H]`, columns `[L, K, H]`, classes i64 `[N, L]` -> `[N, L, K - 1]`.
///
/// # Errors
/// As [`boolean`].
pub fn categorical(pre: &Tensor, columns: &Tensor, classes: &Tensor) -> Result<Tensor> {
    let (n, h) = pre.size2()?;
    let (l, k, _) = columns.size3()?;
    if columns.size() != [l, k, h] || classes.size() != [n, l] {
        let got = (columns.size(), classes.size());
        return Err(Error::shape("flips", format!("columns [L, K, {h}] and classes [{n}, L]"), got));
    }
    let (p, width) = padded(&pre.f_sigmoid()?, 0.0)?;
    let (q, _) = padded(&pre.f_neg()?.f_sigmoid()?, 1.0)?;
    let (up, _) = padded(&columns.f_exp()?, 0.0)?;
    let (down, _) = padded(&columns.f_neg()?.f_exp()?, 0.0)?;
    let every = run_length(columns, 1.0, 2.0)?;
    let classes = classes.f_contiguous()?;
    let classes = slice::<i64>(&classes)?;
    let mut out = vec![0f32; (n * l * (k - 1)) as usize];
    categorical_loop(&p, &q, &up, &down, classes, width, (l as usize, k as usize), every, &mut out);
    Ok(Tensor::f_from_slice(&out)?.f_view([n, l, k - 1])?)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn categorical_loop(
    p: &[f32],
    q: &[f32],
    up: &[f32],
    down: &[f32],
    classes: &[i64],
    width: usize,
    (l, k): (usize, usize),
    every: usize,
    out: &mut [f32],
) {
    let rows = p.len() / width;
    let mut without = vec![0f32; width];
    for first in (0..rows).step_by(ROWS) {
        let block = first..rows.min(first + ROWS);
        for j in 0..l {
            let column = |of: usize| (j * k + of) * width..(j * k + of + 1) * width;
            for n in block.clone() {
                let class = classes[n * l + j] as usize;
                // e^d splits into a factor of the class left and one of the class taken
                for ((w, p), d) in without.iter_mut().zip(&p[n * width..]).zip(&down[column(class)]) {
                    *w = p * d;
                }
                for o in 0..k - 1 {
                    let to = &up[column((class + o + 1) % k)];
                    out[(n * l + j) * (k - 1) + o] = log_product(&q[n * width..][..width], &without, to, every);
                }
            }
        }
    }
}

/// `sum log(q + r e)`.
#[inline(always)]
fn log_product(q: &[f32], r: &[f32], e: &[f32], every: usize) -> f32 {
    let mut product = [1f32; LANES];
    let mut exponent = [0i32; LANES];
    let run = every * LANES;
    for ((q, r), e) in q.chunks(run).zip(r.chunks(run)).zip(e.chunks(run)) {
        for ((q, r), e) in q.chunks_exact(LANES).zip(r.chunks_exact(LANES)).zip(e.chunks_exact(LANES)) {
            for i in 0..LANES {
                product[i] *= r[i].mul_add(e[i], q[i]);
            }
        }
        for i in 0..LANES {
            let bits = product[i].to_bits();
            exponent[i] += (bits >> 23) as i32 - 127;
            product[i] = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000); // into [1, 2)
        }
    }
    let exponent: i32 = exponent.iter().sum();
    let mantissa: f64 = product.iter().map(|&m| m as f64).product();
    (exponent as f64 * std::f64::consts::LN_2 + mantissa.ln()) as f32
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

    /// Each of the H factors is rounded twice at 6e-8: a few 1e-6 for hundreds of them, whatever the size of the sums; the
    /// double-precision difference is the truth.
    #[test]
    fn all_flips_as_by_definition() {
        tch::manual_seed(1);
        for (n, l, h, scale) in [(5, 3, 7, 1.0), (19, 6, 784, 0.3), (2, 4, 33, 10.0), (9, 5, 96, 0.0)] {
            let (pre, columns) = (normals(&[n, h], 3.0), normals(&[l, h], scale).clamp(-19.0, 19.0));
            let bits = normals(&[n, l], 1.0).gt(0.0).to_kind(Kind::Float);
            for slope in [1.0, 2.0] {
                assert!(own_loops(&columns, slope).unwrap());
                let got = boolean(&pre, &columns, &bits, slope).unwrap();
                let step: Tensor = (1.0 - &bits * 2.0) * slope;
                let moved = pre.unsqueeze(1).to_kind(Kind::Double) + step.unsqueeze(-1) * columns.unsqueeze(0);
                let want = softplus(&moved) - softplus(&pre).unsqueeze(-1);
                let off = (got.to_kind(Kind::Double) - &want).abs() / (want.abs() + 1.0);
                assert!(off.max().double_value(&[]) < 4e-6, "H {h}, scale {scale}: {off}");
            }
            let k = 3;
            let columns = normals(&[l, k, h], scale).clamp(-19.0, 19.0);
            let classes = Tensor::randint(k, [n, l], (Kind::Int64, Device::Cpu));
            let got = categorical(&pre, &columns, &classes).unwrap();
            for j in 0..l {
                let from = columns.get(j).index_select(0, &classes.select(1, j)); // [N, H]
                for o in 0..k - 1 {
                    let to = columns.get(j).index_select(0, &(classes.select(1, j) + o + 1).remainder(k));
                    let want = softplus(&(pre.to_kind(Kind::Double) + to - &from)) - softplus(&pre);
                    let off = (got.select(1, j).select(1, o).to_kind(Kind::Double) - &want).abs() / (want.abs() + 1.0);
                    assert!(off.max().double_value(&[]) < 4e-6, "H {h}, scale {scale}: {off}");
                }
            }
        }
        assert!(!own_loops(&normals(&[2, 3], 1e3), 1.0).unwrap());
    }
}
