//! Gapped straight-through with a constant gap.
use super::{Built, Claims, DropIn, ExactOn, Knobs, NoiseKind, Surrogate, Takes, Tau};
use crate::dist::categorical::Point;
use crate::error::{Error, Result};
use crate::kernels::rows;
use crate::noise::Noise;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Nothing,
    source: "Fan et al. 2022",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &["tau", "gap"],
    tau: "<= 1",
};

/// How far the other classes are pushed below the drawn one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gap {
    /// A constant, in nats (1.0: GST-1.0).
    Constant(f64),
    /// `-log1p(-q) / q`, `q = (1 - 1e-5) pi_c`: the mean gap that Gumbel noise leaves (GST-p).
    Probability,
}

/// Gapped straight-through: the deterministic stand-in for Gumbel noise. The drawn class is lifted to the largest logit and
/// the others are pushed at least `gap` below it.
///
/// `grad = J(softmax(xi / tau)) g / tau`, `xi_c = max logits`, `xi_j = min(logits_j, max logits - gap)`    (Fan et al. 2022,
/// Section 3; both shifts detached).
///
/// - **Shapes**: logits, draw `[.., K]`.
/// - **Units**: logits and gap in nats; `tau` dimensionless, > 0.
/// - **Bias, cost**: Biased; a function of the draw alone; one evaluation of f.
/// - **Errors**: [`crate::Error::Range`] if `tau` is not positive and finite or `gap` is negative or not finite.
/// - **Differs**: GST-p takes `log1p`: the published `-log(1 - q) / q` loses all digits for improbable draws and is 0 below
///   q = 3e-8 in float32, where the limit is 1. An unknown gap is an error, not GST-p.
#[derive(Debug, Clone)]
pub struct Gapped {
    schedule: Tau,
    tau: f64,
    gap: Gap,
}

impl Gapped {
    /// With this temperature and gap.
    pub fn new(tau: Tau, gap: Gap) -> Result<Self> {
        let name = if gap == Gap::Probability { "gst-p" } else { "gst" };
        let schedule = tau.check(name, None)?;
        match gap {
            Gap::Constant(c) if !(c.is_finite() && c >= 0.0) => Err(Error::range("gst: gap", "finite and at least 0", c)),
            _ => Ok(Gapped { schedule, tau: schedule.at(0), gap }),
        }
    }
}

impl DropIn for Gapped {
    fn at_step(&mut self, step: i64) {
        self.tau = self.schedule.at(step);
    }

    fn tau(&self) -> Option<f64> {
        Some(self.tau)
    }

    fn surrogate(&self, point: &Point, _: &mut dyn Noise) -> Result<Surrogate> {
        let tau = self.tau;
        let constant = match self.gap {
            Gap::Constant(c) => Some(c),
            Gap::Probability => None,
        };
        let xi = rows::gapped(&point.logits, &point.probs, &point.index, constant)?;
        let p = rows::softmax(&xi, self.tau)?;
        Surrogate::hard(move |g, _| rows::jacobian(&p, g, tau))
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("gst", CLAIMS.knobs)?;
    let tau = knobs.tau.unwrap_or(Tau::Constant(1.0));
    Ok(Built::DropIn(Box::new(Gapped::new(tau, Gap::Constant(knobs.gap.unwrap_or(1.0)))?)))
}
