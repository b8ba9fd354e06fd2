//! Independent Laplace (double-exponential) variables.
use super::{Continuous, over_last, parameter, same_length};
use crate::error::Result;
use crate::noise::Noise;
use tch::{Kind, Tensor};

/// Density `exp(-|z - mean| / scale) / (2 scale)`, `[d]` each; the variance is `2 scale^2`.
#[derive(Debug)]
pub struct Laplace {
    /// Means, `[d]`.
    pub mean: Tensor,
    /// Scales b, `[d]`, positive.
    pub scale: Tensor,
}

impl Laplace {
    /// # Errors
    /// [`Error::Range`](crate::Error::Range) for a value out of range, [`Error::Shape`](crate::Error::Shape) for a wrong shape.
    pub fn new(mean: &Tensor, scale: &Tensor) -> Result<Self> {
        let (mean, scale) = (parameter("mean", mean, false)?, parameter("scale", scale, true)?);
        same_length("Laplace", &mean, &scale)?;
        Ok(Laplace { mean, scale })
    }
}

/// `KL(Laplace(mean, scale) || Laplace(0, 1))` summed over everything, a scalar in nats, differentiable:
/// `sum |mean| + scale exp(-|mean| / scale) - log scale - 1` (Echraibi et al. 2020, Eq. 29).
pub fn kl_to_standard(mean: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let far = mean.f_abs()?;
    let near = scale * (&far / scale).f_neg()?.f_exp()?;
    Ok((far + near - scale.f_log()? - 1.0).f_sum(mean.kind())?)
}

impl Continuous for Laplace {
    fn name(&self) -> &'static str {
        "laplace"
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("mean", &self.mean), ("scale", &self.scale)]
    }

    /// As the difference of two exponentials.
    fn sample(&self, samples: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        let (size, kind, device) = ([samples, self.mean.size()[0]], self.mean.kind(), self.mean.device());
        let up = noise.exponential(&size, kind, device)?;
        let down = noise.exponential(&size, kind, device)?;
        Ok((up - down) * &self.scale + &self.mean)
    }

    fn log_prob(&self, z: &Tensor) -> Result<Tensor> {
        let far = (z - &self.mean).f_abs()? / &self.scale;
        over_last(&(far + (&self.scale * 2.0).f_log()?).f_neg()?)
    }

    fn score(&self, z: &Tensor) -> Result<Vec<Tensor>> {
        let e = z - &self.mean;
        let scale = (e.f_abs()? / &self.scale - 1.0) / &self.scale;
        Ok(vec![e.f_sign()? / &self.scale, scale])
    }

    fn pathwise(&self, z: &Tensor, slope: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![slope.shallow_clone(), slope * (z - &self.mean) / &self.scale])
    }
}

impl Laplace {
    /// `P(Z <= z)`: `[.., d] -> [.., d]`.
    pub fn cdf(&self, z: &Tensor) -> Result<Tensor> {
        let e = (z - &self.mean) / &self.scale;
        let tail = e.f_abs()?.f_neg()?.f_exp()? * 0.5;
        let above = e.f_gt(0.0)?.f_to_kind(Kind::Bool)?;
        Ok(tail.f_rsub_scalar(1.0)?.f_where_self(&above, &tail)?)
    }
}
