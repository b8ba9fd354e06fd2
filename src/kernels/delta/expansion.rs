//! Logistic noise by R ordinary products: the geometric series of `x t / (1 - x t tau)`, economised.
//!
//! Let T be the largest `t = tanh |w|`, `u = t / T` in [-1, 1] and `kappa = T tau`. For any monic polynomial N of degree R
//! with the parity of R and `D = kappa^R N(1 / kappa)`,
//!
//! `1 / (1 - kappa u) = [sum_{m<R} kappa^m q_m(u)] / D + (kappa^R N(u) / D) / (1 - kappa u)`,
//! `q_m(u) = sum_{i<=m} n_{R-m+i} u^i`,
//!
//! an identity (both sides times `1 - kappa u` telescope). Dropping the last term leaves sums of products of something
//! of the output unit and something of the weight:
//!
//! `F(a) - F(a - 2wx) ~ sum_{m<R} [2F'(a) kappa^m / D] [x^(m+1) t q_m(t / T)]`,
//!
//! as `t q_m(t / T)` has the parity of m + 1. The sums of even and of odd m go apart, the first times x. The relative
//! error of a bracket is `kappa^R N(u) / D`, so w = 0 gives 0. What is wanted is an N with `u N(u)` small on [-1, 1]: the
//! Chebyshev polynomial `T_{R+1}` for even R; for odd R, where that does not vanish at 0, one in `u^2` stretched until
//! its outermost zero lies there. N = u^R is Taylor's series, and R = 1 straight-through times x with tanh w for w.
use super::geometry::Sizes;
use crate::error::Result;
use tch::{Device, Tensor};

/// The longest series on offer.
pub const LONGEST: usize = 8;

/// Coefficients `n_0 .. n_R` of N, and the largest `|u N(u)|`.
fn monic(order: usize) -> (Vec<f64>, f64) {
    // u N(u), from the Chebyshev polynomial T_n of z = alpha v + beta by its recurrence, in powers of v
    let chebyshev = |n: usize, alpha: f64, beta: f64| {
        let (mut before, mut now) = (vec![1.0], vec![beta, alpha]);
        for _ in 1..n {
            let mut next = vec![0.0; now.len() + 1];
            for (i, &c) in now.iter().enumerate() {
                next[i] += 2.0 * beta * c;
                next[i + 1] += 2.0 * alpha * c;
            }
            for (i, &c) in before.iter().enumerate() {
                next[i] -= c;
            }
            (before, now) = (now, next);
        }
        let lead = now[n];
        (now.iter().map(|c| c / lead).collect::<Vec<_>>(), 1.0 / lead)
    };
    if order.is_multiple_of(2) {
        let (t, norm) = chebyshev(order + 1, 1.0, 0.0);
        (t[1..].to_vec(), norm)
    } else {
        let n = order.div_ceil(2);
        let beta = (std::f64::consts::PI / (2 * n) as f64).cos();
        let (t, norm) = chebyshev(n, 1.0 + beta, -beta);
        let mut of_u = vec![0.0; order + 1];
        for (i, &c) in t.iter().enumerate().skip(1) {
            of_u[2 * i - 1] = c;
        }
        (of_u, norm)
    }
}

/// `D(kappa) = kappa^R N(1 / kappa)`, a polynomial in `kappa^2` with constant 1.
fn denominator(n: &[f64], kappa_squared: f64) -> f64 {
    n.iter().skip((n.len() + 1) % 2).step_by(2).fold(0.0, |d, &c| d * kappa_squared + c)
}

/// Beyond this `|w|` at scale 1 nothing changes in float64: tanh is 1 and the error of a bracket is that of its limit.
const SATURATED: f64 = 18.0;

/// The largest error of a bracket `F(a) - F(a - 2 w x)` over all a, for `|w| <= w_max` at scale 1, by a series of length
/// `order` >= 1. Attained up to the mesh of the search over a, of which it leaves 1 %. Infinite for weights that are not finite.
pub fn bound(order: usize, w_max: f64) -> f64 {
    if !w_max.is_finite() {
        return f64::INFINITY;
    }
    let (n, norm) = monic(order);
    let w_max = w_max.min(SATURATED);
    let t = w_max.tanh();
    let error = |a: f64| {
        let tau = (a / 2.0).tanh();
        let kappa = tau * t;
        let relative = kappa.powi(order as i32) / denominator(&n, kappa * kappa);
        // 1 - tau^2 and 1 - kappa without cancellation
        let rest = 2.0 / (a.exp() + 1.0) + tau * 2.0 / ((2.0 * w_max).exp() + 1.0);
        0.5 / (a / 2.0).cosh().powi(2) * t * norm * relative.abs() / rest
    };
    // where 1 - tau counts no more beside 1 - t the error decays as exp(-a)
    let largest = (1..=256).map(|i| error((2.0 * w_max + 8.0) * i as f64 / 256.0));
    1.01 * largest.fold(0.0, |top, e| if e > top || e.is_nan() { e } else { top })
}

/// The shortest series whose [`bound`] is within `tol`, if there is one; none for weights that are not finite.
pub fn order(w_max: f64, tol: f64) -> Option<usize> {
    (1..=LONGEST).find(|&r| bound(r, w_max) <= tol && w_max.is_finite())
}

/// Numbers of output units that are made at once on the CPU: images are taken a few at a time.
const AT_ONCE: usize = 1 << 18;

/// The product by a series of length `order`, any device. `w_max`: the largest `|w|` at scale 1.
pub(super) fn conv2d(
    op: &'static str,
    scale: f64,
    x: &Tensor,
    w: &Tensor,
    a: &Tensor,
    g: &Tensor,
    conv: &super::Conv,
    order: usize,
    w_max: f64,
) -> Result<Tensor> {
    let s = Sizes::new(op, x, w, a, conv)?;
    if x.numel() == 0 || a.numel() == 0 || w_max == 0.0 {
        return Ok(x.f_zeros_like()?);
    }
    let (n, _) = monic(order);
    let top = w_max.tanh();
    // of the weights: t q_m(t / T)
    let t = if scale == 1.0 { w.f_tanh()? } else { w.f_div_scalar(scale)?.f_tanh()? };
    let u = t.f_div_scalar(top)?;
    // by Horner; every other coefficient is 0
    let q = |m: usize| -> Result<Tensor> {
        let mut sum = t.shallow_clone();
        for i in (0..m).rev() {
            sum = sum.f_mul(&u)?;
            if (m - i).is_multiple_of(2) {
                sum = sum.f_add(&t.f_mul_scalar(n[order - m + i])?)?;
            }
        }
        Ok(sum)
    };
    let kernels = |parity: usize| -> Result<Tensor> {
        Ok(Tensor::f_cat(&(parity..order).step_by(2).map(q).collect::<Result<Vec<_>>>()?, 0)?)
    };
    let kernels = [kernels(0)?, if order > 1 { kernels(1)? } else { Tensor::new() }];
    drop((t, u));
    let series = Series { s: &s, n: &n, order, scale, top, kernels };
    let image = order.div_ceil(2) * s.output * s.to[0] * s.to[1];
    let count = if x.device() == Device::Cpu { (AT_ONCE / image).clamp(1, s.batch) } else { s.batch } as i64;
    let batch = s.batch as i64;
    if count == batch {
        return series.product(x, a, g);
    }
    let out = x.f_empty_like()?;
    for from in (0..batch).step_by(count as usize) {
        let part = |t: &Tensor| t.f_narrow(0, from, count.min(batch - from));
        part(&out)?.f_copy_(&series.product(&part(x)?, &part(a)?, &part(g)?)?)?;
    }
    Ok(out)
}

/// What all images share.
struct Series<'a> {
    s: &'a Sizes,
    n: &'a [f64],
    order: usize,
    scale: f64,
    top: f64,
    /// The weights' factors of even m, and of odd m.
    kernels: [Tensor; 2],
}

impl Series<'_> {
    /// Of some images.
    fn product(&self, x: &Tensor, a: &Tensor, g: &Tensor) -> Result<Tensor> {
        let &Series { s, n, order, scale, top, .. } = self;
        // of the output units: 2F'(a) g kappa^m / D for even m, beside each other as channels
        let mut kappa = a.f_mul_scalar(0.5 / scale)?;
        let _ = kappa.f_tanh_()?;
        let mut square = kappa.f_square()?;
        let slope = square.f_neg()?.f_add_scalar_(1.0)?.f_mul_scalar_(0.5)?.f_mul_(g)?;
        let mut d = square.f_full_like(n[order % 2])?;
        for &c in n.iter().skip(order % 2).step_by(2).skip(1) {
            d = d.f_mul_(&square)?.f_mul_scalar_(top * top)?.f_add_scalar_(c)?;
        }
        let [b, outputs, height, width] = [a.size()[0], s.output as i64, s.to[0] as i64, s.to[1] as i64];
        let many = [b, order.div_ceil(2) as i64 * outputs, height, width];
        let units = Tensor::f_empty(many, (a.kind(), a.device()))?;
        let place = |k: i64| units.f_narrow(1, k * outputs, outputs);
        let _ = slope.f_div_out(&place(0)?, &d)?;
        drop((slope, d));
        let _ = square.f_mul_scalar_(top * top)?;
        for k in 1..order.div_ceil(2) as i64 {
            let _ = place(k - 1)?.f_mul_out(&place(k)?, &square)?;
        }
        drop(square);
        let odd = transposed(s, &units, &self.kernels[0])?;
        if order == 1 {
            return Ok(odd.f_mul(x)?);
        }
        // those of odd m take their place: one kappa more
        let _ = kappa.f_mul_scalar_(top)?;
        let units = units.f_narrow(1, 0, (order / 2) as i64 * outputs)?;
        for k in 0..(order / 2) as i64 {
            let _ = units.f_narrow(1, k * outputs, outputs)?.f_mul_(&kappa)?;
        }
        drop(kappa);
        Ok(transposed(s, &units, &self.kernels[1])?.f_addcmul_(&odd, x)?)
    }
}

/// The transposed convolution of `v [B, M, H', W']` with `k [M, C, kh, kw]`.
fn transposed(s: &Sizes, v: &Tensor, k: &Tensor) -> Result<Tensor> {
    if s.from == [1, 1] && s.kernel == [1, 1] && s.to == [1, 1] {
        let (rows, m) = (v.size()[0], v.size()[1]);
        let out = v.f_reshape([rows, m])?.f_matmul(&k.f_reshape([m, s.input as i64])?)?;
        return Ok(out.f_view([rows, s.input as i64, 1, 1])?);
    }
    let [stride, padding] = [s.conv.stride, s.conv.padding];
    let rest =
        [0, 1].map(|i| s.from[i] as i64 + 2 * padding[i] - s.kernel[i] as i64 - (s.to[i] as i64 - 1) * stride[i]);
    // as conv_transpose2d, but without TF32 on GPUs (libtorch's default for convolutions), whose 1e-3 would be the error
    let (dilation, groups, bias) = ([1, 1], 1, None::<&Tensor>);
    let [transposed, benchmark, deterministic, cudnn, tf32] = [true, false, false, true, false];
    Ok(v.f_internal_convolution(
        k,
        bias,
        stride,
        padding,
        dilation,
        transposed,
        rest,
        groups,
        benchmark,
        deterministic,
        cudnn,
        tf32,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The issue of N: its norm as claimed, `u N(u)` zero at 0, equioscillating, and the identity of the module.
    #[test]
    fn the_polynomials_are_small_and_telescope() {
        for order in 1..=LONGEST {
            let (n, norm) = monic(order);
            let value = |u: f64| n.iter().rev().fold(0.0, |sum, &c| sum * u + c);
            assert_eq!((n.len(), n[order]), (order + 1, 1.0));
            let mesh = (-1000..=1000).map(|i| i as f64 / 1000.0);
            let largest = mesh.map(|u| (u * value(u)).abs()).fold(0.0, f64::max);
            assert!(largest <= norm * (1.0 + 1e-12) && largest > norm * 0.9999, "R = {order}: {largest} not {norm}");
            let kappa = 0.37f64;
            let d = denominator(&n, kappa * kappa);
            assert!((d - kappa.powi(order as i32) * value(1.0 / kappa)).abs() < 1e-12);
            for u in [-1.0f64, -0.3, 0.0, 0.6, 1.0] {
                let q = |m: usize| (0..=m).map(|i| n[order - m + i] * u.powi(i as i32)).sum::<f64>();
                let sum: f64 = (0..order).map(|m| kappa.powi(m as i32) * q(m)).sum::<f64>() / d;
                let rest = kappa.powi(order as i32) * value(u) / d;
                assert!(((sum + rest / (1.0 - kappa * u)) * (1.0 - kappa * u) - 1.0).abs() < 1e-12, "R = {order}");
            }
        }
        assert_eq!(order(0.0, 1e-5), Some(1));
        assert_eq!(order(4.0, 1e-5), None);
        // as long as DESIGN.md has it, or shorter
        assert_eq!((order(0.125, 1e-5), order(0.26, 1e-5)), (Some(3), Some(4)));
    }

    /// Weights of any size: a bracket that is 1 or 0 errs by up to 1 and cannot err by more.
    #[test]
    fn the_bound_of_large_weights_is_no_promise() {
        for r in 1..=LONGEST {
            let mut before = 0.0;
            for w in [1.0, 4.0, 10.0, 17.0, 17.9, 18.0, 18.1, 30.0, 700.0, 4.7e3, 5e3, 1e30, f64::MAX] {
                let now = bound(r, w);
                assert!(now >= before, "R = {r}: {now} at {w} below {before}");
                assert!(w < 10.0 || (0.9..1.02).contains(&now), "R = {r}: {now} at {w}");
                before = now;
            }
            assert_eq!([f64::INFINITY, f64::NAN].map(|w| bound(r, w)), [f64::INFINITY; 2]);
        }
        for w in [10.0, 5e3, 1e30, f64::INFINITY, f64::NAN] {
            assert_eq!(order(w, 0.9), None, "{w}");
        }
        assert_eq!((order(f64::INFINITY, f64::INFINITY), order(f64::NAN, f64::INFINITY)), (None, None));
    }
}
