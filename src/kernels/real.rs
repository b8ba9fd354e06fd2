//! The two floating kinds the loops run in, with exponential and logarithm that a compiler can vectorise.

/// f32 or f64. `vexp` and `vln` are branch-free in f32.
pub trait Real:
    Copy
    + PartialOrd
    + Send
    + Sync
    + 'static
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// -inf.
    const NEG_INFINITY: Self;
    /// From a double.
    fn of(x: f64) -> Self;
    /// To a double.
    fn f64(self) -> f64;
    /// `e^x`; 0 at -inf and where the result is below the smallest normal number. f32: within 2 ulp.
    fn vexp(self) -> Self;
    /// `e^x` for x <= 0 as libtorch's vectorised softmax computes it: f32 within 1 ulp, the same bits as libtorch
    /// wherever the processor has fused multiply-add (AVX2 and later), so that draws agree with PyTorch's; f64 exact.
    fn softmax_exp(self) -> Self;
    /// `ln x` for x > 0; -inf at 0 and below the smallest normal number. f32: within 2 ulp away from 1, 1e-7 absolute near it.
    fn vln(self) -> Self;
    /// Neither infinite nor NaN.
    fn finite(self) -> bool;
}

/// `self * b + c`, rounded once; fast where the loop around it is compiled for a processor with fused multiply-add.
pub(super) trait Fused {
    fn fused(self, b: Self, c: Self) -> Self;
}
impl Fused for f32 {
    #[inline(always)]
    fn fused(self, b: f32, c: f32) -> f32 {
        self.mul_add(b, c)
    }
}
impl Fused for f64 {
    #[inline(always)]
    fn fused(self, b: f64, c: f64) -> f64 {
        self.mul_add(b, c)
    }
}

/// 1.5 * 2^23: adding it rounds to an integer, held in the low bits.
const ROUND: f32 = 12_582_912.0;

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn vexp(self) -> f32 {
        // Cephes: e^x = 2^n e^r, r in [-ln2/2, ln2/2], polynomial of degree 7 in r.
        let t = self * std::f32::consts::LOG2_E + ROUND;
        let n = t - ROUND;
        let r = self - n * 0.693_359_4 - n * -2.121_944_4e-4;
        let mut p = 1.987_569_1e-4f32;
        p = p * r + 1.398_199_9e-3;
        p = p * r + 8.333_452e-3;
        p = p * r + 4.166_579_6e-2;
        p = p * r + 1.666_666_5e-1;
        p = p * r + 0.5;
        let y = p * r * r + r + 1.0;
        let scale = f32::from_bits((t.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
        let y = y * scale;
        let y = if self < -87.336_54 { 0.0 } else { y };
        if self > 88.722_83 { f32::INFINITY } else { y }
    }
    #[inline(always)]
    fn softmax_exp(self) -> f32 {
        // x = n ln2 + r, ln2 in two parts; a polynomial of degree 7 for e^r, fused multiply-adds throughout
        let t = self * std::f32::consts::LOG2_E + ROUND;
        let n = t - ROUND;
        let r = n.mul_add(-0.693_145_75, self);
        let r = n.mul_add(-1.428_606_8e-6, r);
        let mut p = 1.985_276_2e-4f32;
        p = p.mul_add(r, 1.393_043_5e-3);
        p = p.mul_add(r, 8.333_361e-3);
        p = p.mul_add(r, 4.166_648_5e-2);
        p = p.mul_add(r, 1.666_666_7e-1);
        p = p.mul_add(r, 0.5);
        let y = 1.0 + (r * r).mul_add(p, r);
        let y = y * f32::from_bits((t.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
        if self < -87.336_54 { 0.0 } else { y }
    }
    #[inline(always)]
    fn vln(self) -> f32 {
        // Cephes: x = 2^e m, m in [sqrt(1/2), sqrt(2)), polynomial of degree 9 in m - 1.
        let bits = self.to_bits();
        let shifted = bits.wrapping_sub(0x3f35_04f3); // bits of sqrt(1/2)
        let e = ((shifted as i32) >> 23) as f32;
        let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3));
        let f = m - 1.0;
        let z = f * f;
        let mut p = 7.037_683_6e-2f32;
        p = p * f - 1.151_461e-1;
        p = p * f + 1.167_699_9e-1;
        p = p * f - 1.242_014_1e-1;
        p = p * f + 1.424_932_3e-1;
        p = p * f - 1.666_805_7e-1;
        p = p * f + 2.000_071_5e-1;
        p = p * f - 2.499_999_4e-1;
        p = p * f + 3.333_333e-1;
        let mut y = p * f * z;
        y += e * -2.121_944_4e-4;
        y -= 0.5 * z;
        let y = f + y + e * 0.693_359_4;
        let y = if self < f32::MIN_POSITIVE { f32::NEG_INFINITY } else { y };
        if self == f32::INFINITY { f32::INFINITY } else { y }
    }
    #[inline(always)]
    fn finite(self) -> bool {
        self.is_finite()
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn vexp(self) -> f64 {
        self.exp()
    }
    #[inline(always)]
    fn softmax_exp(self) -> f64 {
        self.exp()
    }
    #[inline(always)]
    fn vln(self) -> f64 {
        self.ln()
    }
    #[inline(always)]
    fn finite(self) -> bool {
        self.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::Real;

    /// Distance in units of the last place of the true value.
    fn ulps(got: f32, truth: f64) -> f64 {
        let t = truth as f32;
        let ulp = (f32::from_bits(t.abs().to_bits() + 1) - t.abs()) as f64;
        (got as f64 - truth).abs() / ulp
    }

    #[test]
    fn exp_is_within_two_ulp_over_its_whole_range() {
        let mut worst = 0.0f64;
        for i in 0..200_000 {
            let x = -87.0 + 175.0 * (i as f32 / 200_000.0);
            worst = worst.max(ulps(x.vexp(), (x as f64).exp()));
        }
        assert!(worst < 2.0, "worst error {worst} ulp");
        assert_eq!(f32::NEG_INFINITY.vexp(), 0.0);
        assert_eq!((-200.0f32).vexp(), 0.0);
        assert_eq!(100.0f32.vexp(), f32::INFINITY);
        assert!(f32::NAN.vexp().is_nan());
        assert_eq!(0.0f32.vexp(), 1.0);
    }

    #[test]
    fn ln_is_within_two_ulp_or_1e_7() {
        for i in 0..200_000u32 {
            // every exponent, scattered mantissas
            let x = f32::from_bits(0x0080_0000 + i.wrapping_mul(10_601) % 0x7e80_0000);
            let truth = (x as f64).ln();
            let error = (x.vln() as f64 - truth).abs();
            assert!(error < 1e-7 || ulps(x.vln(), truth) < 2.0, "ln {x}: {} not {truth}", x.vln());
        }
        assert_eq!(0.0f32.vln(), f32::NEG_INFINITY);
        assert_eq!(1.0f32.vln(), 0.0);
        assert_eq!(f32::INFINITY.vln(), f32::INFINITY);
    }
}
