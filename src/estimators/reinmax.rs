//! ReinMax.
use super::{Built, Claims, DropIn, ExactOn, Knobs, NoiseKind, Surrogate, Takes, Tau, Vjp};
use crate::dist::categorical::Point;
use crate::error::Result;
use crate::kernels::rows;
use crate::noise::Noise;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Degree(2),
    source: "Liu et al. 2023, Theorem 3.2",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &["tau"],
    tau: ">= 1",
};

/// ReinMax: Heun's method in place of Euler's, second-order accurate with first derivatives alone.
///
/// `grad = 2 J((pi_tau + D) / 2) g - 1/2 J(pi) g`    (Liu et al. 2023, Eq. 7, Alg. 2, Section 5); `pi_tau =
/// softmax(logits / tau)`, `pi = softmax(logits)`. The first term has no factor 1 / tau, the second is at temperature 1.
///
/// - **Shapes**: logits, draw `[.., K]`.
/// - **Units**: logits in nats; `tau` dimensionless, >= 1.
/// - **Bias, cost**: At tau = 1 its mean is the second-order approximation of the gradient, exact for quadratic f; larger tau
///   smooths at the price of accuracy. One evaluation of f.
/// - **Errors**: [`crate::Error::Range`] if `tau` < 1 or not finite, as in the published package.
/// - **Differs**: from the published package: float64 stays float64, logits need not be contiguous.
#[derive(Debug, Clone)]
pub struct Reinmax {
    schedule: Tau,
    tau: f64,
}

impl Reinmax {
    /// With this temperature.
    pub fn new(tau: Tau) -> Result<Self> {
        let schedule = tau.check("reinmax", Some(1.0))?;
        Ok(Reinmax { schedule, tau: schedule.at(0) })
    }
}

impl DropIn for Reinmax {
    fn at_step(&mut self, step: i64) {
        self.tau = self.schedule.at(step);
    }

    fn tau(&self) -> Option<f64> {
        Some(self.tau)
    }

    fn surrogate(&self, point: &Point, _: &mut dyn Noise) -> Result<Surrogate> {
        let p_tau = if self.tau == 1.0 {
            point.probs.shallow_clone()
        } else {
            rows::softmax(&point.logits, self.tau)?
        };
        let half = rows::halfway(&p_tau, &point.hard)?;
        let p = point.probs.shallow_clone();
        let vjp = Vjp::Both(Box::new(move |g, g_p| rows::reinmax(&half, &p, g, g_p)));
        Ok(Surrogate { relaxed: None, vjp })
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("reinmax", CLAIMS.knobs)?;
    Ok(Built::DropIn(Box::new(Reinmax::new(knobs.tau.unwrap_or(Tau::Constant(1.0)))?)))
}
