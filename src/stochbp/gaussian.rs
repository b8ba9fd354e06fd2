//! Eq. 14: `log phi = i mean w - variance w^2 / 2`, so `a_1 = 1` for the mean and `a_2 = 1/2` for the variance, and no more.
use super::theorem1::LogCharacteristic;
use crate::dist::gaussian::Gaussian;
use crate::error::Result;
use tch::Tensor;

impl LogCharacteristic for Gaussian {
    fn coefficients(&self, n: i64) -> Result<Vec<Tensor>> {
        let (zero, one) = (self.mean.f_zeros_like()?, self.mean.f_ones_like()?);
        Ok(match n {
            1 => vec![one, zero],
            2 => vec![zero, one * 0.5],
            _ => vec![zero.shallow_clone(), zero],
        })
    }

    fn last(&self) -> Option<i64> {
        Some(2)
    }

    fn radius(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.mean.f_full_like(f64::INFINITY)?))
    }

    fn sum_at(&self, s: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![s.shallow_clone(), s.f_square()? * 0.5])
    }
}
