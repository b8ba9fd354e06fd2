//! Gumbel-softmax without the hard draw.
use super::stgs::relaxation;
use super::{Built, Claims, DropIn, ExactOn, Knobs, NoiseKind, Surrogate, Takes, Tau, Vjp};
use crate::dist::categorical::Point;
use crate::error::Result;
use crate::kernels::rows;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Nothing,
    source: "Jang et al. 2017, Section 2.2",
    noise: NoiseKind::Continuous,
    hard_forward: false,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &["tau"],
    tau: "<= 1",
};

/// Gumbel-softmax: the relaxed sample `y = softmax((logits + G) / tau)` itself goes forward and is differentiated as it is.
///
/// `grad = J(y) g / tau`    (Jang et al. 2017, Eq. 2; the Concrete distribution of Maddison et al. 2017). `tau` is the
/// temperature of the draw here, and of nothing else. The index is that of the largest entry.
///
/// - **Shapes**: logits, value `[.., K]`, rows on the simplex.
/// - **Units**: logits in nats; `tau` dimensionless, > 0.
/// - **Bias, cost**: Unbiased for the relaxed objective, biased for the discrete one; one evaluation of f, at a relaxed point.
/// - **Errors**: [`crate::Error::Range`] if `tau` is not positive and finite.
/// - **Differs**: nothing known.
#[derive(Debug, Clone)]
pub struct GumbelSoftmax {
    schedule: Tau,
    tau: f64,
}

impl GumbelSoftmax {
    /// With this temperature.
    pub fn new(tau: Tau) -> Result<Self> {
        let schedule = tau.check("gumbel-softmax", None)?;
        Ok(GumbelSoftmax { schedule, tau: schedule.at(0) })
    }
}

impl DropIn for GumbelSoftmax {
    fn at_step(&mut self, step: i64) {
        self.tau = self.schedule.at(step);
    }

    fn tau(&self) -> Option<f64> {
        Some(self.tau)
    }

    fn point(&self, logits: &Tensor, mask: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Point> {
        Point::draw_gumbel(logits, mask, noise)
    }

    fn surrogate(&self, point: &Point, noise: &mut dyn Noise) -> Result<Surrogate> {
        let tau = self.tau;
        let y = relaxation(point, self.tau, noise)?;
        Ok(Surrogate { relaxed: Some(y), vjp: Vjp::Sample(Box::new(move |g, y| rows::jacobian(y, g, tau))) })
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("gumbel-softmax", CLAIMS.knobs)?;
    Ok(Built::DropIn(Box::new(GumbelSoftmax::new(knobs.tau.unwrap_or(Tau::Constant(1.0)))?)))
}
