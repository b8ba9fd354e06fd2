//! Eq. 19: `log phi = -k log(1 - i mu w)`, so `a_n = mu^n / n` for the shape k and `k mu^(n - 1)` for the scale mu, as printed.
//!
//! The exponential, Erlang and chi-squared distributions are [`Gamma::exponential`], [`Gamma::erlang`] and
//! [`Gamma::chi_squared`].
use super::theorem1::LogCharacteristic;
use crate::dist::gamma::Gamma;
use crate::error::{Error, Result};
use tch::Tensor;

impl LogCharacteristic for Gamma {
    fn coefficients(&self, n: i64) -> Result<Vec<Tensor>> {
        let power = self.scale.f_pow_tensor_scalar(n - 1)?;
        Ok(vec![&power * &self.scale / n as f64, &self.shape * power])
    }

    /// `1 / mu`.
    fn radius(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.scale.f_reciprocal()?))
    }

    /// `-log(1 - mu s)` and `k s / (1 - mu s)`.
    fn sum_at(&self, s: &Tensor) -> Result<Vec<Tensor>> {
        let ms = s * &self.scale;
        let largest = ms.f_max()?.f_double_value(&[])?;
        if largest.is_nan() || largest >= 1.0 {
            return Err(Error::range("gamma: scale s of exp(s z)", "below 1, or the expectation is infinite", largest));
        }
        let shape = ms.f_neg()?.f_log1p()?.f_neg()?;
        Ok(vec![shape, s * &self.shape / ms.f_rsub_scalar(1.0)?])
    }
}
