//! The Dirichlet distribution on the simplex.
use super::beta::inside;
use super::{Continuous, over_last, parameter};
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// Density proportional to `prod_k z_k^(concentration_k - 1)` on the simplex of `[d]`, d >= 2. Its entries are not
/// independent: a derivative of f is taken with all entries free, f being a function on all of the space around the simplex.
#[derive(Debug)]
pub struct Dirichlet {
    /// `[d]`, positive.
    pub concentration: Tensor,
}

impl Dirichlet {
    /// # Errors
    /// [`Error::Range`] for a value out of range, [`Error::Shape`] for a wrong shape or fewer than two entries.
    pub fn new(concentration: &Tensor) -> Result<Self> {
        let concentration = parameter("concentration", concentration, true)?;
        match concentration.size()[0] {
            1 => Err(Error::shape("Dirichlet", "at least two entries", 1)),
            _ => Ok(Dirichlet { concentration }),
        }
    }
}

/// The mean `[d]` and covariance `[d, d]` of a Dirichlet with this concentration `[d]`; differentiable.
pub fn moments(concentration: &Tensor) -> Result<(Tensor, Tensor)> {
    let total = concentration.f_sum(concentration.kind())?;
    let mean = concentration / &total;
    let outer = mean.f_unsqueeze(-1)? * mean.f_unsqueeze(0)?;
    let covariance = (mean.f_diag(0)? - outer) / (total + 1.0);
    Ok((mean, covariance))
}

impl Continuous for Dirichlet {
    fn name(&self) -> &'static str {
        "dirichlet"
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("concentration", &self.concentration)]
    }

    /// Gamma draws over their sum.
    fn sample(&self, samples: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        let size = [samples, self.concentration.size()[0]];
        let g = noise.gamma(&self.concentration.f_expand(size, false)?.f_contiguous()?)?;
        let total = over_last(&g)?.f_unsqueeze(-1)?;
        inside(g / total)
    }

    fn log_prob(&self, z: &Tensor) -> Result<Tensor> {
        let a = &self.concentration;
        let norm = a.f_lgamma()?.f_sum(a.kind())? - a.f_sum(a.kind())?.f_lgamma()?;
        Ok(over_last(&((a - 1.0) * z.f_log()?))? - norm)
    }

    fn score(&self, z: &Tensor) -> Result<Vec<Tensor>> {
        let a = &self.concentration;
        Ok(vec![z.f_log()? - a.f_digamma()? + a.f_sum(a.kind())?.f_digamma()?])
    }

    /// By implicit differentiation, libtorch's `_dirichlet_grad`.
    fn pathwise(&self, z: &Tensor, slope: &Tensor) -> Result<Vec<Tensor>> {
        let z = z.f_contiguous()?;
        let a = self.concentration.f_expand_as(&z)?.f_contiguous()?;
        let total = self.concentration.f_sum(z.kind())?.f_expand_as(&z)?.f_contiguous()?;
        let centred = slope - over_last(&(&z * slope))?.f_unsqueeze(-1)?;
        Ok(vec![Tensor::f_internal_dirichlet_grad(&z, &a, &total)? * centred])
    }
}
