//! Eq. 18: `log phi = i mean w - log(1 + b^2 w^2)`; the paper's formula lacks the mean.
//!
//! With `s = i w`, `w^2 = -s^2`: `d log phi / d b^2 = s^2 / (1 - b^2 s^2) = sum_{n >= 1} b^(2n - 2) s^(2n)`, as printed. The
//! parameter here is b itself, so `a_2n = 2 b^(2n - 1)`; odd coefficients are 0.
use super::theorem1::LogCharacteristic;
use crate::dist::laplace::Laplace;
use crate::error::{Error, Result};
use tch::Tensor;

impl LogCharacteristic for Laplace {
    fn coefficients(&self, n: i64) -> Result<Vec<Tensor>> {
        let mean = self.mean.f_full_like(if n == 1 { 1 } else { 0 })?;
        let scale =
            if n % 2 == 0 { self.scale.f_pow_tensor_scalar(n - 1)? * 2.0 } else { self.scale.f_zeros_like()? };
        Ok(vec![mean, scale])
    }

    /// `1 / b`.
    fn radius(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.scale.f_reciprocal()?))
    }

    /// `s` and `2 b s^2 / (1 - b^2 s^2)`.
    fn sum_at(&self, s: &Tensor) -> Result<Vec<Tensor>> {
        let bs = s * &self.scale;
        let largest = bs.f_abs()?.f_max()?.f_double_value(&[])?;
        if largest.is_nan() || largest >= 1.0 {
            return Err(Error::range(
                "laplace: scale |s| of exp(s z)",
                "below 1, or the expectation is infinite",
                largest,
            ));
        }
        let scale = &bs * s * 2.0 / bs.f_square()?.f_rsub_scalar(1.0)?;
        Ok(vec![s + bs.f_zeros_like()?, scale])
    }
}
