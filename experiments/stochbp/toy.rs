//! Toy problems 1 and 2: independent gamma variables and a sum of functions of one variable each.
use crate::args::Problem;
use crate::method::{Law, Method, estimate};
use tch::Tensor;
use thruway::dist::gamma::Gamma;
use thruway::error::Result;
use thruway::noise::Noise;
use thruway::stochbp::{Caution, Estimate, Objective, Sum};

/// Minimise `E sum_j f(z_j)` over shapes k and scales mu of `z_j ~ Gamma(k_j, mu_j)`: `f(z) = (z - epsilon)^2` (problem 1),
/// whose infimum 0 lies at `mu = 0`, `k mu = epsilon`, or `exp(-epsilon z)` (problem 2), whose infimum 0 lies at infinity.
#[derive(Debug)]
pub struct Toy {
    pub problem: Problem,
    pub epsilon: f64,
    pub samples: i64,
    pub order: Option<i64>,
    pub caution: Caution,
}

impl Toy {
    /// Estimates by shape and scale `[d]`.
    pub fn estimate(&self, method: Method, shape: &Tensor, scale: &Tensor, noise: &mut dyn Noise) -> Result<Estimate> {
        let p = Gamma::new(shape, scale)?;
        let law = Law { series: &p, weak: Some(&p), measures: None };
        let quadratic = |z: &Tensor| Ok((z - self.epsilon).f_square()?);
        let exponential = |z: &Tensor| Ok((z * -self.epsilon).f_exp()?);
        let (f, whole): (&thruway::stochbp::Function, Sum) = match self.problem {
            Problem::Quadratic => (&quadratic, Sum::Polynomial(2)),
            _ => (&exponential, Sum::Exponential),
        };
        let sum = self.order.map_or(whole, Sum::Truncated);
        estimate(method, sum, self.caution, &law, &Objective::Separable(f), self.samples, noise)
    }

    /// The objective itself, differentiable: `sum k mu^2 + (k mu - epsilon)^2`, or `sum (1 + epsilon mu)^-k`.
    pub fn expected(&self, shape: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let each = match self.problem {
            Problem::Quadratic => {
                let mean = shape * scale;
                &mean * scale + (mean - self.epsilon).f_square()?
            }
            _ => (shape.f_neg()? * (scale * self.epsilon).f_log1p()?).f_exp()?,
        };
        Ok(each.f_sum(each.kind())?)
    }
}
