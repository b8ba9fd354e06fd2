//! Independent gamma variables by shape and scale, with the exponential, Erlang and chi-squared distributions among them.
use super::{Continuous, over_last, parameter, same_length};
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// Density `z^(shape - 1) exp(-z / scale) / (Gamma(shape) scale^shape)` on z > 0, `[d]` each; the mean is `shape * scale`.
///
/// The paper's `Gamma(k, mu)`: its mu is the scale, not the mean.
#[derive(Debug)]
pub struct Gamma {
    /// Shapes k, `[d]`, positive.
    pub shape: Tensor,
    /// Scales mu, `[d]`, positive.
    pub scale: Tensor,
}

impl Gamma {
    /// # Errors
    /// [`Error::Range`] for a value out of range, [`Error::Shape`] for a wrong shape.
    pub fn new(shape: &Tensor, scale: &Tensor) -> Result<Self> {
        let (shape, scale) = (parameter("shape", shape, true)?, parameter("scale", scale, true)?);
        same_length("Gamma", &shape, &scale)?;
        Ok(Gamma { shape, scale })
    }

    /// Exponential variables of mean `scale` `[d]`: shape 1.
    ///
    /// # Errors
    /// As [`Gamma::new`].
    pub fn exponential(scale: &Tensor) -> Result<Self> {
        Gamma::new(&scale.f_ones_like()?, scale)
    }

    /// Erlang variables, sums of `stages` exponentials of mean `scale` `[d]` each.
    ///
    /// # Errors
    /// As [`Gamma::new`]; [`Error::Range`] unless there is a stage.
    pub fn erlang(stages: i64, scale: &Tensor) -> Result<Self> {
        if stages < 1 {
            return Err(Error::range("stages", "at least 1", stages));
        }
        Gamma::new(&scale.f_full_like(stages)?, scale)
    }

    /// Chi-squared variables of `freedom` `[d]` degrees: shape `freedom / 2`, scale 2. A derivative with respect to the
    /// degrees is half of that with respect to the shape.
    ///
    /// # Errors
    /// As [`Gamma::new`].
    pub fn chi_squared(freedom: &Tensor) -> Result<Self> {
        Gamma::new(&(freedom * 0.5), &freedom.f_full_like(2.0)?)
    }

    /// `P(Z <= z)`: `[.., d] -> [.., d]`.
    pub fn cdf(&self, z: &Tensor) -> Result<Tensor> {
        Ok(self.shape.f_expand_as(z)?.f_special_gammainc(&(z / &self.scale))?)
    }
}

impl Continuous for Gamma {
    fn name(&self) -> &'static str {
        "gamma"
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("shape", &self.shape), ("scale", &self.scale)]
    }

    fn sample(&self, samples: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        let shape = self.shape.f_expand([samples, self.shape.size()[0]], false)?.f_contiguous()?;
        Ok(noise.gamma(&shape)? * &self.scale)
    }

    fn log_prob(&self, z: &Tensor) -> Result<Tensor> {
        let norm = self.shape.f_lgamma()? + &self.shape * self.scale.f_log()?;
        over_last(&((&self.shape - 1.0) * z.f_log()? - z / &self.scale - norm))
    }

    fn score(&self, z: &Tensor) -> Result<Vec<Tensor>> {
        let e = z / &self.scale;
        let scale = (&e - &self.shape) / &self.scale;
        Ok(vec![e.f_log()? - self.shape.f_digamma()?, scale])
    }

    /// The shape's by implicit differentiation of the cdf (Figurnov, Mohamed & Mnih 2018), libtorch's `_standard_gamma_grad`:
    /// float32 accuracy at best (1e-4 of the value or better).
    fn pathwise(&self, z: &Tensor, slope: &Tensor) -> Result<Vec<Tensor>> {
        let standard = (z / &self.scale).f_contiguous()?;
        let shape = self.shape.f_expand_as(&standard)?.f_contiguous()?.f_internal_standard_gamma_grad(&standard)?;
        Ok(vec![slope * shape * &self.scale, slope * standard])
    }
}
