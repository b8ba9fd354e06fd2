//! Independent Gaussian variables, by mean and variance.
use super::{Continuous, over_last, parameter, same_length};
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// `N(mean, variance)`, `[d]` each. The variance is the parameter, as the covariance is in Rezende, Mohamed & Wierstra 2014.
#[derive(Debug)]
pub struct Gaussian {
    /// Means, `[d]`.
    pub mean: Tensor,
    /// Variances, `[d]`, positive.
    pub variance: Tensor,
}

impl Gaussian {
    /// # Errors
    /// [`Error::Range`](crate::Error::Range) for a value out of range, [`Error::Shape`](crate::Error::Shape) for a wrong shape.
    pub fn new(mean: &Tensor, variance: &Tensor) -> Result<Self> {
        let (mean, variance) = (parameter("mean", mean, false)?, parameter("variance", variance, true)?);
        same_length("Gaussian", &mean, &variance)?;
        Ok(Gaussian { mean, variance })
    }
}

impl Continuous for Gaussian {
    fn name(&self) -> &'static str {
        "gaussian"
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("mean", &self.mean), ("variance", &self.variance)]
    }

    fn sample(&self, samples: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        let e = noise.normal(&[samples, self.mean.size()[0]], self.mean.kind(), self.mean.device())?;
        Ok(e * self.variance.f_sqrt()? + &self.mean)
    }

    fn log_prob(&self, z: &Tensor) -> Result<Tensor> {
        let squared = (z - &self.mean).f_square()? / &self.variance;
        over_last(&((squared + (&self.variance * std::f64::consts::TAU).f_log()?) * -0.5))
    }

    fn score(&self, z: &Tensor) -> Result<Vec<Tensor>> {
        let e = (z - &self.mean) / &self.variance;
        let variance = (e.f_square()? - self.variance.f_reciprocal()?) * 0.5;
        Ok(vec![e, variance])
    }

    fn pathwise(&self, z: &Tensor, slope: &Tensor) -> Result<Vec<Tensor>> {
        let variance = slope * (z - &self.mean) / (&self.variance * 2.0);
        Ok(vec![slope.shallow_clone(), variance])
    }
}
