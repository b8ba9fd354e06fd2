//! Eq. 15: `log phi = i point w`, so `a_1 = 1` and no more: ordinary backpropagation.
use super::theorem1::LogCharacteristic;
use crate::dist::dirac::Dirac;
use crate::error::Result;
use tch::Tensor;

impl LogCharacteristic for Dirac {
    fn coefficients(&self, n: i64) -> Result<Vec<Tensor>> {
        Ok(vec![self.point.f_full_like(if n == 1 { 1 } else { 0 })?])
    }

    fn last(&self) -> Option<i64> {
        Some(1)
    }

    fn radius(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.point.f_full_like(f64::INFINITY)?))
    }

    fn sum_at(&self, s: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![s.shallow_clone()])
    }
}
