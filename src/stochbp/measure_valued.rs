//! Measure-valued derivatives (Pflug 1996): `d p / d theta = c (p+ - p-)`, so the gradient is `c E[f(z+) - f(z-)]`.
//!
//! | distribution | parameter | c | z+ | z- |
//! |---|---|---|---|---|
//! | Gaussian | mean | `1 / sqrt(2 pi variance)` | mean + sd * Rayleigh | mean - sd * Rayleigh |
//! | Gaussian | variance | `1 / (2 variance)` | mean + sd * double-sided Maxwell | a draw |
//! | Laplace | mean | `1 / (2 b)` | mean + b * exponential | mean - b * exponential |
//! | Laplace | scale b | `1 / b` | mean ± b * Erlang of 2 stages | a draw |
//! | gamma | scale mu | `k / mu` | gamma(k + 1, mu) | a draw |
//!
//! The two points share their noise where they can, which lowers the variance. There is no simple pair for a gamma's shape, a
//! beta or a Dirichlet.
use super::Estimate;
use super::objective::Objective;
use crate::dist::Continuous;
use crate::dist::gamma::Gamma;
use crate::dist::gaussian::Gaussian;
use crate::dist::laplace::Laplace;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// The weak derivative of the law of each entry by one parameter.
#[derive(Debug)]
pub struct Triplet {
    /// `[d]`.
    pub constant: Tensor,
    /// Draws of the positive part, `[S, d]`.
    pub positive: Tensor,
    /// Draws of the negative part, `[S, d]`.
    pub negative: Tensor,
}

/// A distribution with weak derivatives by some of its parameters.
pub trait MeasureValued: Continuous {
    /// The weak derivative by the parameter of this name.
    ///
    /// # Errors
    /// [`Error::Unknown`] where there is none.
    fn triplet(&self, parameter: &str, samples: i64, noise: &mut dyn Noise) -> Result<Triplet>;
}

/// One estimate a sample by each of `parameters`. Unbiased for every f, smooth or not; 2 d evaluations of f a sample and
/// parameter. In each direction the other entries are those of one common draw.
///
/// # Errors
/// [`Error::Unknown`] for a parameter without a weak derivative.
pub fn measure_valued(
    p: &dyn MeasureValued,
    parameters: &[&str],
    f: &Objective,
    samples: i64,
    noise: &mut dyn Noise,
) -> Result<Estimate> {
    let _guard = tch::no_grad_guard();
    let z = p.sample(samples, noise)?;
    let mut gradients = vec![];
    for name in parameters {
        let t = p.triplet(name, samples, noise)?;
        let difference = replaced(f, &z, &t.positive)? - replaced(f, &z, &t.negative)?;
        gradients.push((name.to_string(), difference * &t.constant));
    }
    Ok(Estimate { value: f.value(&z)?, gradients, warning: None, growth: None })
}

/// f with entry j of z replaced by entry j of `other`, for each j: `[S, d]`; a sum over terms without those that stay.
fn replaced(f: &Objective, z: &Tensor, other: &Tensor) -> Result<Tensor> {
    if let Objective::Separable(f) = f {
        return f(other);
    }
    let eye = Tensor::f_eye(z.size()[1], (z.kind(), z.device()))?;
    f.value(&(z.f_unsqueeze(-2)? + (other - z).f_unsqueeze(-1)? * eye))
}

fn undefined<T>(p: &dyn Continuous, parameter: &str, known: &str) -> Result<T> {
    let got = format!("{parameter} of a {}", p.name());
    Err(Error::Unknown { what: "weak derivative by", got, known: known.into() })
}

impl MeasureValued for Gaussian {
    fn triplet(&self, parameter: &str, samples: i64, noise: &mut dyn Noise) -> Result<Triplet> {
        let (size, kind, device) = ([samples, self.mean.size()[0]], self.mean.kind(), self.mean.device());
        let deviation = self.variance.f_sqrt()?;
        let at = |e: Tensor| e * &deviation + &self.mean;
        // a Rayleigh variable: the square root of twice an exponential
        let rayleigh = (noise.exponential(&size, kind, device)? * 2.0).f_sqrt()?;
        match parameter {
            "mean" => Ok(Triplet {
                constant: (&deviation * std::f64::consts::TAU.sqrt()).f_reciprocal()?,
                negative: at(rayleigh.f_neg()?),
                positive: at(rayleigh),
            }),
            "variance" => {
                // the length of three normals is Maxwell's; one of the three is the negative draw
                let e = noise.normal(&size, kind, device)?;
                let length = (e.f_square()? + rayleigh.f_square()?).f_sqrt()?;
                Ok(Triplet {
                    constant: (&self.variance * 2.0).f_reciprocal()?,
                    positive: at(length.f_copysign(&e)?),
                    negative: at(e),
                })
            }
            other => undefined(self, other, "mean, variance"),
        }
    }
}

impl MeasureValued for Laplace {
    fn triplet(&self, parameter: &str, samples: i64, noise: &mut dyn Noise) -> Result<Triplet> {
        let (size, kind, device) = ([samples, self.mean.size()[0]], self.mean.kind(), self.mean.device());
        let first = noise.exponential(&size, kind, device)?;
        let at = |e: Tensor| e * &self.scale + &self.mean;
        match parameter {
            "mean" => Ok(Triplet {
                constant: (&self.scale * 2.0).f_reciprocal()?,
                negative: at(first.f_neg()?),
                positive: at(first),
            }),
            "scale" => {
                let second = noise.exponential(&size, kind, device)?;
                let sign = (noise.uniform(&size, kind, device)? - 0.5).f_sign()?;
                Ok(Triplet {
                    constant: self.scale.f_reciprocal()?,
                    positive: at((&first + second) * &sign),
                    negative: at(first * sign),
                })
            }
            other => undefined(self, other, "mean, scale"),
        }
    }
}

impl MeasureValued for Gamma {
    fn triplet(&self, parameter: &str, samples: i64, noise: &mut dyn Noise) -> Result<Triplet> {
        if parameter != "scale" {
            return undefined(self, parameter, "scale");
        }
        let negative = self.sample(samples, noise)?;
        let more = noise.exponential(&negative.size(), negative.kind(), negative.device())? * &self.scale;
        Ok(Triplet { constant: &self.shape / &self.scale, positive: &negative + more, negative })
    }
}
