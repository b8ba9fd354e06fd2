//! Independent beta variables.
use super::{Continuous, over_last, parameter, same_length};
use crate::error::Result;
use crate::noise::Noise;
use tch::{Kind, Tensor};

/// Density `z^(alpha - 1) (1 - z)^(beta - 1) / B(alpha, beta)` on (0, 1), `[d]` each.
#[derive(Debug)]
pub struct Beta {
    /// `[d]`, positive.
    pub alpha: Tensor,
    /// `[d]`, positive.
    pub beta: Tensor,
}

impl Beta {
    /// # Errors
    /// [`Error::Range`](crate::Error::Range) for a value out of range, [`Error::Shape`](crate::Error::Shape) for a wrong shape.
    pub fn new(alpha: &Tensor, beta: &Tensor) -> Result<Self> {
        let (alpha, beta) = (parameter("alpha", alpha, true)?, parameter("beta", beta, true)?);
        same_length("Beta", &alpha, &beta)?;
        Ok(Beta { alpha, beta })
    }

    fn total(&self) -> Tensor {
        &self.alpha + &self.beta
    }
}

/// The open interval's smallest and largest number of a kind, for a quotient that rounds to an end.
pub(super) fn inside(z: Tensor) -> Result<Tensor> {
    let (low, high) = match z.kind() {
        Kind::Double => (f64::MIN_POSITIVE, 1.0 - f64::EPSILON / 2.0),
        _ => (f32::MIN_POSITIVE as f64, 1.0 - f32::EPSILON as f64 / 2.0),
    };
    Ok(z.f_clamp(low, high)?)
}

impl Continuous for Beta {
    fn name(&self) -> &'static str {
        "beta"
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("alpha", &self.alpha), ("beta", &self.beta)]
    }

    /// `g / (g + h)` of two gamma draws.
    fn sample(&self, samples: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        let size = [samples, self.alpha.size()[0]];
        let mut draw = |a: &Tensor| noise.gamma(&a.f_expand(size, false)?.f_contiguous()?);
        let (g, h) = (draw(&self.alpha)?, draw(&self.beta)?);
        inside(&g / (&g + h))
    }

    fn log_prob(&self, z: &Tensor) -> Result<Tensor> {
        let norm = self.alpha.f_lgamma()? + self.beta.f_lgamma()? - self.total().f_lgamma()?;
        let (a, b) = (&self.alpha - 1.0, &self.beta - 1.0);
        over_last(&(a * z.f_log()? + b * z.f_neg()?.f_log1p()? - norm))
    }

    fn score(&self, z: &Tensor) -> Result<Vec<Tensor>> {
        let total = self.total().f_digamma()?;
        Ok(vec![z.f_log()? - self.alpha.f_digamma()? + &total, z.f_neg()?.f_log1p()? - self.beta.f_digamma()? + &total])
    }

    /// By implicit differentiation, libtorch's `_dirichlet_grad` at two entries.
    fn pathwise(&self, z: &Tensor, slope: &Tensor) -> Result<Vec<Tensor>> {
        let z = z.f_contiguous()?;
        let wide = |t: &Tensor| t.f_expand_as(&z)?.f_contiguous();
        let (alpha, beta, total) = (wide(&self.alpha)?, wide(&self.beta)?, wide(&self.total())?);
        let rest = z.f_rsub_scalar(1.0)?;
        Ok(vec![
            Tensor::f_internal_dirichlet_grad(&z, &alpha, &total)? * slope * &rest,
            Tensor::f_internal_dirichlet_grad(&rest, &beta, &total)? * slope * z * -1.0,
        ])
    }
}
