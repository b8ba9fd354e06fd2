//! A network of two inputs, one hidden layer of LeakyReLU units and two outputs, `(s, t) -> W2 h(W1 (s, t) + b1) + b2`, at many
//! points s for each t: the surrogate of RODEO, which is evaluated at every flip of every draw.
//!
//! Hidden values are made, used and forgotten, forward and backward: through libtorch's operations each pass over them, 4 million
//! for 100 images of 200 bits, goes through memory.
//!
//! Legend: `R` rows, each with a t of its own, `P` points of a row, `H` hidden units.
use super::real::{Fused, Real};
use crate::autograd::slices::{Element, slice, slice_mut};
use crate::error::{Error, Result};
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

/// Points side by side: one vector of AVX-512.
const LANES: usize = 16;

/// Whether the loops serve tensors of this place and kind: f32 and f64 on the CPU.
pub fn own_loops(t: &Tensor) -> bool {
    t.device() == Device::Cpu && matches!(t.kind(), Kind::Float | Kind::Double)
}

/// The network's numbers.
struct Net<'a, T> {
    /// `[H, 2]`: of s and of t.
    w1: &'a [T],
    b1: &'a [T],
    /// `[2, H]`.
    w2: &'a [T],
    /// What a negative pre-activation is multiplied by.
    slope: T,
}

/// Derivatives in the network's parameters.
struct Sums {
    w1: Vec<f64>,
    b1: Vec<f64>,
    w2: Vec<f64>,
    b2: [f64; 2],
}

/// Outputs at all points: s `[.., P]`, t `[..]`, parameters w1 `[H, 2]`, b1 `[H]`, w2 `[2, H]`, b2 `[2]`, the slope below 0
/// -> `[2, .., P]`.
///
/// # Errors
/// [`Error::Shape`] for other shapes and kinds; see [`own_loops`] for what is served.
pub fn forward(s: &Tensor, t: &Tensor, parameters: [&Tensor; 4], slope: f64) -> Result<Tensor> {
    check(s, t, parameters)?;
    let mut out = Tensor::f_empty([&[2], &s.size()[..]].concat(), (s.kind(), s.device()))?;
    match s.kind() {
        Kind::Float => with(s, t, parameters, slope, |net: &Net<f32>, b2, s, t, p| {
            forward_f32(net, b2, s, t, p, slice_mut(&mut out)?);
            Ok(())
        })?,
        _ => with(s, t, parameters, slope, |net: &Net<f64>, b2, s, t, p| {
            forward_loop(net, b2, s, t, p, slice_mut(&mut out)?);
            Ok(())
        })?,
    }
    Ok(out)
}

/// Derivatives in the four parameters, in their shapes, from those in the outputs, g `[2, .., P]`. At a pre-activation of 0 the
/// slope is that below it.
///
/// # Errors
/// As [`forward`].
pub fn backward(g: &Tensor, s: &Tensor, t: &Tensor, parameters: [&Tensor; 4], slope: f64) -> Result<[Tensor; 4]> {
    check(s, t, parameters)?;
    if g.size() != [&[2], &s.size()[..]].concat() {
        return Err(Error::shape("leaky_net", "g [2, .., P]", g.size()));
    }
    let g = g.f_contiguous()?;
    let mut sums = None;
    match s.kind() {
        Kind::Float => with(s, t, parameters, slope, |net: &Net<f32>, _, s, t, p| {
            sums = Some(backward_f32(net, slice(&g)?, s, t, p));
            Ok(())
        })?,
        _ => with(s, t, parameters, slope, |net: &Net<f64>, _, s, t, p| {
            sums = Some(backward_loop(net, slice(&g)?, s, t, p));
            Ok(())
        })?,
    }
    let Sums { w1, b1, w2, b2 } = sums.expect("one of the two ran");
    let tensor = |all: &[f64], like: &Tensor| -> Result<Tensor> {
        Ok(Tensor::f_from_slice(all)?.f_to_kind(like.kind())?.f_view(&like.size()[..])?)
    };
    let [like_w1, like_b1, like_w2, like_b2] = parameters;
    Ok([tensor(&w1, like_w1)?, tensor(&b1, like_b1)?, tensor(&w2, like_w2)?, tensor(&b2, like_b2)?])
}

fn check(s: &Tensor, t: &Tensor, [w1, b1, w2, b2]: [&Tensor; 4]) -> Result<()> {
    let h = b1.numel() as i64;
    let lead = s.size().split_last().map(|(_, lead)| lead.to_vec());
    if lead != Some(t.size()) || w1.size() != [h, 2] || b1.dim() != 1 || w2.size() != [2, h] || b2.size() != [2] {
        let got = [s, t, w1, b1, w2, b2].map(Tensor::size);
        return Err(Error::shape("leaky_net", "s [.., P], t [..], w1 [H, 2], b1 [H], w2 [2, H], b2 [2]", got));
    }
    Ok(())
}

fn with<T: Real + Element>(
    s: &Tensor,
    t: &Tensor,
    parameters: [&Tensor; 4],
    slope: f64,
    run: impl FnOnce(&Net<T>, &[T], &[T], &[T], usize) -> Result<()>,
) -> Result<()> {
    let points = *s.size().last().expect("checked by the caller") as usize;
    let (s, t) = (s.f_contiguous()?, t.f_contiguous()?);
    let [w1, b1, w2, b2] = parameters.map(|p| p.detach().f_contiguous());
    let [w1, b1, w2, b2] = [w1?, b1?, w2?, b2?];
    let net = Net { w1: slice(&w1)?, b1: slice(&b1)?, w2: slice(&w2)?, slope: T::of(slope) };
    run(&net, slice(&b2)?, slice(&s)?, slice(&t)?, points)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn forward_f32(net: &Net<f32>, b2: &[f32], s: &[f32], t: &[f32], points: usize, out: &mut [f32]) {
    forward_loop(net, b2, s, t, points, out)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn backward_f32(net: &Net<f32>, g: &[f32], s: &[f32], t: &[f32], points: usize) -> Sums {
    backward_loop(net, g, s, t, points)
}

/// Some points, in whole lanes: what is beyond the last is 0.
#[inline(always)]
fn lanes<T: Real>(from: &[T]) -> [T; LANES] {
    let mut all = [T::ZERO; LANES];
    all[..from.len()].copy_from_slice(from);
    all
}

/// The part of the pre-activations that a row's points share.
#[inline(always)]
fn shared<T: Real + Fused>(net: &Net<T>, t: T, into: &mut [T]) {
    for (k, c) in into.iter_mut().enumerate() {
        *c = net.w1[2 * k + 1].fused(t, net.b1[k]);
    }
}

#[inline(always)]
fn forward_loop<T: Real + Fused>(net: &Net<T>, b2: &[T], s: &[T], t: &[T], points: usize, out: &mut [T]) {
    let h = net.b1.len();
    let (v0, v1) = net.w2.split_at(h);
    let (first, second) = out.split_at_mut(s.len());
    let mut rest = vec![T::ZERO; h];
    for (r, &t) in t.iter().enumerate() {
        shared(net, t, &mut rest);
        for start in (r * points..(r + 1) * points).step_by(LANES) {
            let end = (start + LANES).min((r + 1) * points);
            let x = lanes(&s[start..end]);
            let (mut y0, mut y1) = ([b2[0]; LANES], [b2[1]; LANES]);
            for k in 0..h {
                let (w, c, v0, v1) = (net.w1[2 * k], rest[k], v0[k], v1[k]);
                for i in 0..LANES {
                    let a = w.fused(x[i], c);
                    let a = if a > T::ZERO { a } else { a * net.slope };
                    y0[i] = v0.fused(a, y0[i]);
                    y1[i] = v1.fused(a, y1[i]);
                }
            }
            first[start..end].copy_from_slice(&y0[..end - start]);
            second[start..end].copy_from_slice(&y1[..end - start]);
        }
    }
}

#[inline(always)]
fn total<T: Real>(lanes: &[T; LANES]) -> f64 {
    let mut half = [T::ZERO; LANES / 2];
    for i in 0..LANES / 2 {
        half[i] = lanes[i] + lanes[i + LANES / 2];
    }
    half.iter().map(|x| x.f64()).sum()
}

#[inline(always)]
fn backward_loop<T: Real + Fused>(net: &Net<T>, g: &[T], s: &[T], t: &[T], points: usize) -> Sums {
    let h = net.b1.len();
    let (v0, v1) = net.w2.split_at(h);
    let (g0, g1) = g.split_at(s.len());
    let mut sums = Sums { w1: vec![0.0; 2 * h], b1: vec![0.0; h], w2: vec![0.0; 2 * h], b2: [0.0; 2] };
    let mut rest = vec![T::ZERO; h];
    // of a row: sums of the derivatives in a times s, in a, and of those in the outputs times the hidden value
    let mut row = vec![[[T::ZERO; LANES]; 4]; h];
    for (r, &t) in t.iter().enumerate() {
        shared(net, t, &mut rest);
        row.fill([[T::ZERO; LANES]; 4]);
        for start in (r * points..(r + 1) * points).step_by(LANES) {
            let end = (start + LANES).min((r + 1) * points);
            let (x, y0, y1) = (lanes(&s[start..end]), lanes(&g0[start..end]), lanes(&g1[start..end]));
            for k in 0..h {
                let (w, c, v0, v1) = (net.w1[2 * k], rest[k], v0[k], v1[k]);
                let [ds, da, d0, d1] = &mut row[k];
                for i in 0..LANES {
                    let a = w.fused(x[i], c);
                    let factor = if a > T::ZERO { T::ONE } else { net.slope };
                    let d = v0.fused(y0[i], v1 * y1[i]) * factor;
                    let a = a * factor;
                    ds[i] = d.fused(x[i], ds[i]);
                    da[i] += d;
                    d0[i] = y0[i].fused(a, d0[i]);
                    d1[i] = y1[i].fused(a, d1[i]);
                }
            }
            sums.b2[0] += total(&y0);
            sums.b2[1] += total(&y1);
        }
        for (k, [ds, da, d0, d1]) in row.iter().enumerate() {
            let da = total(da);
            sums.w1[2 * k] += total(ds);
            sums.w1[2 * k + 1] += da * t.f64();
            sums.b1[k] += da;
            sums.w2[k] += total(d0);
            sums.w2[h + k] += total(d1);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outputs and derivatives of libtorch's operations, with points that fill no whole vector.
    #[test]
    fn agrees_with_libtorch() {
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 3e-6)] {
            tch::manual_seed(1);
            let leaf = |size: &[i64]| Tensor::randn(size, (kind, Device::Cpu)).set_requires_grad(true);
            let p = [leaf(&[7, 2]), leaf(&[7]), leaf(&[2, 7]), leaf(&[2])];
            let [w1, b1, w2, b2] = &p;
            let parameters = [w1, b1, w2, b2];
            for points in [1, 15, 16, 37] {
                let (s, t) = (leaf(&[2, 3, points]).detach(), leaf(&[2, 3]).detach());
                let x = Tensor::stack(&[s.shallow_clone(), t.unsqueeze(-1).expand_as(&s)], -1);
                let a = x.linear(w1, Some(b1));
                let want = a.maximum(&(&a * 0.3)).linear(w2, Some(b2)).permute([3, 0, 1, 2]);
                let have = forward(&s, &t, parameters, 0.3).unwrap();
                let apart = |a: &Tensor, b: &Tensor| ((a - b).abs().max() / (b.abs().max() + 1.0)).double_value(&[]);
                assert!(apart(&have, &want) < tolerance, "{kind:?} {points}");
                let g = leaf(&[2, 2, 3, points]).detach();
                let wanted = Tensor::run_backward(&[&(&want * &g).sum(kind)], &parameters, false, false);
                for (have, want) in backward(&g, &s, &t, parameters, 0.3).unwrap().iter().zip(&wanted) {
                    assert!(have.size() == want.size() && apart(have, want) < 4.0 * tolerance, "{kind:?} {points}");
                }
            }
            let flat = forward(&w1.detach(), &b1.detach(), parameters, 0.3);
            assert_eq!(flat.unwrap().size(), [2, 7, 2]);
            assert!(forward(&w1.detach(), &b2.detach(), parameters, 0.3).unwrap_err().to_string().contains("t [..]"));
        }
    }
}
