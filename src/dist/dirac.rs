//! The Dirac distribution: a point, as a layer of a deterministic network is.
use super::{Continuous, parameter};
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// All mass at `point`, `[d]`.
#[derive(Debug)]
pub struct Dirac {
    /// Where the mass is, `[d]`.
    pub point: Tensor,
}

impl Dirac {
    /// # Errors
    /// [`Error::Range`] unless finite, [`Error::Shape`] unless a floating vector.
    pub fn new(point: &Tensor) -> Result<Self> {
        Ok(Dirac { point: parameter("point", point, false)? })
    }
}

fn no_density<T>() -> Result<T> {
    let reason = "a point mass has no density; use stochbp or pathwise, which are ordinary backpropagation here".into();
    Err(Error::Function { name: "dirac".into(), reason })
}

impl Continuous for Dirac {
    fn name(&self) -> &'static str {
        "dirac"
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("point", &self.point)]
    }

    fn sample(&self, samples: i64, _noise: &mut dyn Noise) -> Result<Tensor> {
        Ok(self.point.f_unsqueeze(0)?.f_repeat([samples, 1])?)
    }

    fn log_prob(&self, _z: &Tensor) -> Result<Tensor> {
        no_density()
    }

    fn score(&self, _z: &Tensor) -> Result<Vec<Tensor>> {
        no_density()
    }

    fn pathwise(&self, _z: &Tensor, slope: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![slope.shallow_clone()])
    }
}
