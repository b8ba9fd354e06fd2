//! The score function estimator (Williams 1992; Glynn 1989): `f(z) d log p(z) / d theta`, without a baseline.
use super::Estimate;
use super::objective::Objective;
use crate::dist::Continuous;
use crate::error::Result;
use crate::noise::Noise;

/// One estimate a sample. Unbiased for every f whose product with the score has a mean; f is evaluated once a sample.
///
/// # Errors
/// Where the distribution has no density.
pub fn score_function(p: &dyn Continuous, f: &Objective, samples: i64, noise: &mut dyn Noise) -> Result<Estimate> {
    let z = p.sample(samples, noise)?;
    let value = f.value(&z)?.detach();
    let weight = value.f_unsqueeze(-1)?;
    let gradients = p.score(&z)?.into_iter().map(|s| s * &weight).collect();
    Ok(Estimate::new(p, value, gradients))
}
