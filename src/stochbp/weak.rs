//! Weak, or generalised, reparameterisation (Ruiz, Titsias & Blei 2016).
//!
//! A transformation `e = T^-1(z; theta)` makes the law of e depend on theta only weakly. With `h = d T(e; theta) / d theta` at
//! fixed e and J the Jacobian of T by e, the gradient is
//! `E[grad f . h] + E[f (h d log p / dz + d log p / d theta + d log J / d theta)]`: pathwise part and correction.
use super::Estimate;
use super::objective::Objective;
use crate::dist::Continuous;
use crate::dist::beta::Beta;
use crate::dist::gamma::Gamma;
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// Path and correction of each parameter at draws z, `[S, d]` each.
pub trait WeakReparameterisation: Continuous {
    /// `h` and the factor of f in the correction, per parameter.
    fn weak(&self, z: &Tensor) -> Result<Vec<(Tensor, Tensor)>>;
}

/// One estimate a sample. Unbiased; one evaluation of f and one backward pass. Where the law of e does not depend on theta at
/// all (Gaussian, Laplace, the gamma's scale) this is [`pathwise`](super::pathwise).
pub fn weak(p: &dyn WeakReparameterisation, f: &Objective, samples: i64, noise: &mut dyn Noise) -> Result<Estimate> {
    let z = p.sample(samples, noise)?;
    let (value, slope) = f.gradient(&z)?;
    let weight = value.f_unsqueeze(-1)?;
    let gradients = p.weak(&z)?.into_iter().map(|(h, correction)| &slope * h + &weight * correction).collect();
    Ok(Estimate::new(p, value, gradients))
}

impl WeakReparameterisation for Gamma {
    /// The standardised logarithm `e = (log z - psi(k) - log mu) / sqrt(psi'(k))`.
    fn weak(&self, z: &Tensor) -> Result<Vec<(Tensor, Tensor)>> {
        let (mean, variance, third) = (self.shape.f_digamma()?, self.shape.f_polygamma(1)?, self.shape.f_polygamma(2)?);
        let half = &third / (&variance * 2.0);
        let centred = (z / &self.scale).f_log()? - mean;
        // h / z: the slope of log z by the shape at fixed e
        let path = &centred * &half + &variance;
        // z d log p / dz = k - 1 - z / mu; d log p / dk = log(z / mu) - psi(k); log J = log z + log(psi') / 2
        let correction = &path * (&self.shape - z / &self.scale) + centred + half;
        Ok(vec![(path * z, correction), (z / &self.scale, z.f_zeros_like()?)])
    }
}

impl WeakReparameterisation for Beta {
    /// The standardised logit `e = (logit z - psi(alpha) + psi(beta)) / sqrt(psi'(alpha) + psi'(beta))`.
    fn weak(&self, z: &Tensor) -> Result<Vec<(Tensor, Tensor)>> {
        let mean = self.alpha.f_digamma()? - self.beta.f_digamma()?;
        let variances = [self.alpha.f_polygamma(1)?, self.beta.f_polygamma(1)?];
        let variance = &variances[0] + &variances[1];
        let rest = z.f_rsub_scalar(1.0)?;
        let centred = z.f_log()? - rest.f_log()? - mean;
        let sides = [(&self.alpha, 1.0, &variances[0]), (&self.beta, -1.0, &variances[1])];
        let one = |((a, sign, own), score): ((&Tensor, f64, &Tensor), Tensor)| {
            let half = a.f_polygamma(2)? / (&variance * 2.0);
            // the slope of logit z at fixed e
            let path = &centred * &half + own * sign;
            // z (1 - z) d log p / dz, and log J = log z + log(1 - z) + log(variance) / 2
            let along = (&self.alpha - 1.0) * &rest - (&self.beta - 1.0) * z + &rest - z;
            Ok((&path * z * &rest, path * along + score + half))
        };
        sides.into_iter().zip(self.score(z)?).map(one).collect()
    }
}
