//! The pathwise estimator: reparameterisation (Kingma & Welling 2014), implicit where the draw has no simple transformation
//! (Figurnov, Mohamed & Mnih 2018; Jankowiak & Obermeyer 2018).
use super::Estimate;
use super::objective::Objective;
use crate::dist::Continuous;
use crate::error::Result;
use crate::noise::Noise;

/// One estimate a sample, `grad f . dz / d theta`: unbiased for every f that is continuous and differentiable almost
/// everywhere; one evaluation of f and one backward pass. For gamma shapes, beta and Dirichlet `dz / d theta` is libtorch's
/// approximation.
pub fn pathwise(p: &dyn Continuous, f: &Objective, samples: i64, noise: &mut dyn Noise) -> Result<Estimate> {
    let z = p.sample(samples, noise)?;
    let (value, slope) = f.gradient(&z)?;
    let gradients = p.pathwise(&z, &slope)?;
    Ok(Estimate::new(p, value, gradients))
}
