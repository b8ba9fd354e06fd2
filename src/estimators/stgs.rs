//! Straight-through Gumbel-softmax.
use super::{Built, Claims, DropIn, ExactOn, Knobs, NoiseKind, Surrogate, Takes, Tau};
use crate::dist::categorical::Point;
use crate::error::Result;
use crate::kernels::rows;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Nothing,
    source: "Liu et al. 2023, Section 5",
    noise: NoiseKind::Continuous,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &["tau"],
    tau: "<= 1",
};

/// Straight-through Gumbel-softmax: the argmax of Gumbel-perturbed logits forward, their softmax backward.
///
/// `grad = J(softmax((logits + G) / tau)) g / tau`    (Jang et al. 2017; Liu et al. 2023, Eq. 5). [`DropIn::draw`] keeps the
/// G that chose the class; [`DropIn::attach`] draws G given the class, the same law.
///
/// - **Shapes**: logits, draw `[.., K]`.
/// - **Units**: logits in nats; `tau` dimensionless, > 0.
/// - **Bias, cost**: Biased for every tau > 0, less as tau falls while the variance grows; one evaluation of f.
/// - **Errors**: [`crate::Error::Range`] if `tau` is not positive and finite.
/// - **Differs**: from `torch.nn.functional.gumbel_softmax`: noise is kept off 0, so nothing becomes infinite.
#[derive(Debug, Clone)]
pub struct StGumbelSoftmax {
    schedule: Tau,
    tau: f64,
}

impl StGumbelSoftmax {
    /// With this temperature.
    pub fn new(tau: Tau) -> Result<Self> {
        let schedule = tau.check("stgs", None)?;
        Ok(StGumbelSoftmax { schedule, tau: schedule.at(0) })
    }
}

impl DropIn for StGumbelSoftmax {
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
        let p = relaxation(point, self.tau, noise)?;
        Surrogate::hard(move |g, _| rows::jacobian(&p, g, tau))
    }
}

/// `softmax((logits + G) / tau)`, `[.., K]`, with the G of the draw or, where there is none, one drawn given the class:
/// up to a constant of the row `-log E_c` for the class c and `-log(E_j / pi_j + E_c)` for the others.
pub(super) fn relaxation(point: &Point, tau: f64, noise: &mut dyn Noise) -> Result<Tensor> {
    if let Some(perturbed) = &point.perturbed {
        return rows::softmax(perturbed, tau);
    }
    let (probs, hard) = (&point.probs, &point.hard);
    let e = noise.exponential(&probs.size(), probs.kind(), probs.device())?;
    let chosen = (&e * hard).f_sum_dim_intlist(-1, true, e.kind())?;
    // the class itself: E_c alone
    let others = (e / probs + &chosen).f_where_self(&hard.f_eq(0.0)?, &chosen)?;
    rows::softmax(&others.f_log()?.f_neg()?, tau)
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("stgs", CLAIMS.knobs)?;
    Ok(Built::DropIn(Box::new(StGumbelSoftmax::new(knobs.tau.unwrap_or(Tau::Constant(1.0)))?)))
}

