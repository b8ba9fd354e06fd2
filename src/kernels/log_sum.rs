//! `ln sum_j e^(s_j + b_j)` over rows of scores in bfloat16: what a softmax over a vocabulary leaves in the loss.
//!
//! Limit: a score is 2 bytes, read once, and one exponential; libtorch widens to 4 bytes and writes the whole log-softmax, 18 bytes
//! a score in three passes. A row of 10,000 stays in the first-level cache between its maximum and its sum.
use super::real::Real;
use crate::autograd::slices::{slice, slice_mut};
use crate::autograd::threads::each;
use crate::error::{Error, Result};
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

/// Lanes of the running sums: enough for the widest vectors, and the rounding of a pairwise sum.
const LANES: usize = 64;

/// Scores `[R, V]` in bfloat16 and a bias `[V]` in f32, added in f32 -> f32 `[R]`. Without a graph. On the CPU one pass of the
/// crate's own loop over the threads of libtorch; elsewhere libtorch's ops.
///
/// A row with NaN or with +inf gives NaN.
///
/// # Errors
/// [`Error::Shape`] for other sizes and kinds.
pub fn log_sums(scores: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let size = scores.size();
    let fits = size.len() == 2 && size[1] > 0 && bias.size() == size[1..];
    if !fits || scores.kind() != Kind::BFloat16 || bias.kind() != Kind::Float {
        let got = (size, scores.kind(), bias.size(), bias.kind());
        return Err(Error::shape("log_sums", "bfloat16 scores [R, V], V >= 1, and an f32 bias [V]", got));
    }
    let (scores, bias) = (scores.detach().f_contiguous()?, bias.detach().f_contiguous()?);
    if scores.device() != Device::Cpu {
        return Ok((scores.f_to_kind(Kind::Float)? + bias).f_logsumexp([-1i64].as_slice(), false)?);
    }
    let mut out = Tensor::f_empty([size[0]], (Kind::Float, Device::Cpu))?;
    let threads = tch::get_num_threads().max(1) as usize;
    shared(slice::<u16>(&scores)?, slice::<f32>(&bias)?, slice_mut::<f32>(&mut out)?, threads);
    Ok(out)
}

/// [`row`] of each row, on so many threads.
fn shared(scores: &[u16], bias: &[f32], out: &mut [f32], threads: usize) {
    let v = bias.len();
    each(threads, out, 1, |i, out| out[0] = row(&scores[i * v..][..v], bias));
}

/// A bfloat16 is the upper half of a float.
#[inline(always)]
fn widened(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn row(s: &[u16], b: &[f32]) -> f32 {
    let whole = s.len() / LANES * LANES;
    let mut most = [f32::NEG_INFINITY; LANES];
    for (s, b) in s[..whole].chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for i in 0..LANES {
            let x = widened(s[i]) + b[i];
            most[i] = if x > most[i] { x } else { most[i] };
        }
    }
    for i in whole..s.len() {
        most[0] = most[0].max(widened(s[i]) + b[i]);
    }
    let most = most.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0f32; LANES];
    for (s, b) in s[..whole].chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for i in 0..LANES {
            sums[i] += (widened(s[i]) + b[i] - most).softmax_exp();
        }
    }
    for i in whole..s.len() {
        sums[0] += (widened(s[i]) + b[i] - most).softmax_exp();
    }
    most + sums.iter().map(|x| f64::from(*x)).sum::<f64>().ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(size: &[i64], scale: f64, seed: i64) -> Tensor {
        let n: i64 = size.iter().product();
        let x = (Tensor::arange(n, (Kind::Double, Device::Cpu)) * 12.9898 + seed as f64).sin() * 43758.5453;
        ((&x - x.floor() - 0.5) * scale).to_kind(Kind::Float).reshape(size)
    }

    #[test]
    fn rows_agree_with_libtorch_in_double() {
        // lengths around the lanes, one row and many, sums dominated by one score and by many
        for (r, v) in [(1, 1), (3, 63), (2, 64), (5, 65), (7, 1000), (40, 10_000)] {
            for scale in [0.1, 8.0, 60.0] {
                let (s, b) = (noise(&[r, v], scale, r + v).to_kind(Kind::BFloat16), noise(&[v], 1.0, v));
                let exact = (s.to_kind(Kind::Double) + b.to_kind(Kind::Double)).logsumexp([-1i64].as_slice(), false);
                let found = log_sums(&s, &b).unwrap();
                let error = (found.to_kind(Kind::Double) - &exact).abs().max().double_value(&[]);
                // three roundings of numbers up to |exact|, and 1e-7 of a sum
                let scale = exact.abs().max().double_value(&[]).max(1.0);
                assert!(error < 4e-7 * scale, "{r} x {v}: {error} of {scale}");
            }
        }
    }

    #[test]
    fn threads_share_the_rows() {
        let (r, v) = (7, 100);
        let (s, b) = (noise(&[r, v], 8.0, 1).to_kind(Kind::BFloat16), noise(&[v], 1.0, 2));
        let of = |threads: usize| {
            let mut out = vec![0.0; r as usize];
            shared(slice(&s).unwrap(), slice(&b).unwrap(), &mut out, threads);
            out
        };
        let alone = of(1);
        assert!(alone.windows(2).all(|w| w[0] != w[1]), "{alone:?}");
        for threads in [2, 3, 7, 16] {
            assert_eq!(of(threads), alone, "{threads} threads");
        }
    }

    #[test]
    fn rows_that_are_no_numbers_give_none_and_masked_scores_count_nothing() {
        let s =
            Tensor::from_slice2(&[[0.0f32, f32::NAN, 1.0], [0.0, f32::INFINITY, 1.0], [0.0, f32::NEG_INFINITY, 0.0]]);
        let found = log_sums(&s.to_kind(Kind::BFloat16), &Tensor::zeros([3], (Kind::Float, Device::Cpu))).unwrap();
        let found = Vec::<f32>::try_from(found).unwrap();
        assert!(found[0].is_nan() && found[1].is_nan(), "{found:?}");
        assert!((found[2] - 2f32.ln()).abs() < 1e-7, "{found:?}");
    }

    #[test]
    fn other_kinds_and_sizes_are_refused() {
        let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, Device::Cpu));
        let b = zeros(&[3], Kind::Float);
        for s in [zeros(&[2, 3], Kind::Float), zeros(&[2, 4], Kind::BFloat16), zeros(&[3], Kind::BFloat16)] {
            let e = log_sums(&s, &b).unwrap_err().to_string();
            assert!(e.contains("bfloat16 scores [R, V]"), "{e}");
        }
    }
}
