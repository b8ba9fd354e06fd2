//! Straight-through.
use super::{Built, Claims, DropIn, ExactOn, Knobs, NoiseKind, Surrogate, Takes, Tau};
use super::boolean::{BooleanDropIn, Placed, bits_or_draw};
use crate::dist::bernoulli::Code;
use crate::dist::categorical::Point;
use crate::error::Result;
use crate::kernels::rows;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Degree(1),
    source: "Liu et al. 2023, Theorem 3.1",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &["tau"],
    tau: ">= 1",
};

/// Straight-through: the draw is taken for `softmax(logits / tau)` on the way back.
///
/// `grad = J(pi_tau) g / tau`, `J(p) g = p * g - p (p . g)`, `pi_tau = softmax(logits / tau)`    (Liu et al. 2023, Eq. 4,
/// Alg. 1; Bengio et al. 2013). The draw is made at temperature 1.
///
/// - **Shapes**: logits, draw `[.., K]`.
/// - **Units**: logits in nats; `tau` dimensionless, > 0.
/// - **Bias, cost**: At tau = 1 its mean is the first-order approximation of the gradient, exact for linear f; one evaluation
///   of f.
/// - **Errors**: [`crate::Error::Range`] if `tau` is not positive and finite.
/// - **Differs**: from the published code, which casts to float32: the kind of the logits is kept.
#[derive(Debug, Clone)]
pub struct StraightThrough {
    schedule: Tau,
    tau: f64,
}

impl StraightThrough {
    /// With this temperature.
    pub fn new(tau: Tau) -> Result<Self> {
        let schedule = tau.check("st", None)?;
        Ok(StraightThrough { schedule, tau: schedule.at(0) })
    }
}

impl DropIn for StraightThrough {
    fn at_step(&mut self, step: i64) {
        self.tau = self.schedule.at(step);
    }

    fn tau(&self) -> Option<f64> {
        Some(self.tau)
    }

    fn surrogate(&self, point: &Point, _: &mut dyn Noise) -> Result<Surrogate> {
        let tau = self.tau;
        let p = rows::softmax(&point.logits, self.tau)?;
        Surrogate::hard(move |g, _| rows::jacobian(&p, g, tau))
    }
}

/// The same on Boolean variables: `grad = s (1 - s) / tau df/db`, `s = sigmoid(theta / tau)`, b drawn at temperature 1.
#[derive(Debug, Clone)]
pub struct BooleanStraightThrough {
    inner: StraightThrough,
    code: Code,
}

impl BooleanStraightThrough {
    /// With this temperature and code. A Boolean straight-through gives the same whatever the code, if f takes the code for
    /// granted: the slope of the code is in the gradient.
    pub fn new(tau: Tau, code: Code) -> Result<Self> {
        Ok(BooleanStraightThrough { inner: StraightThrough::new(tau)?, code })
    }
}

impl BooleanDropIn for BooleanStraightThrough {
    fn at_step(&mut self, step: i64) {
        self.inner.at_step(step);
    }

    fn code(&self) -> Code {
        self.code
    }

    fn place(&self, logits: &Tensor, bits: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Placed> {
        let p = logits.f_sigmoid()?;
        let bits = bits_or_draw(&p, bits, noise)?;
        let tau = self.inner.tau;
        let s = if tau == 1.0 { p } else { logits.f_div_scalar(tau)?.f_sigmoid()? };
        let factor = &s * (s.f_neg()? + 1.0);
        Ok(Placed { bits, value: None, factor: if tau == 1.0 { factor } else { factor / tau } })
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("st", CLAIMS.knobs)?;
    let tau = knobs.tau.unwrap_or(Tau::Constant(1.0));
    Ok(match knobs.code {
        Some(code) => Built::Boolean(Box::new(BooleanStraightThrough::new(tau, code)?)),
        None => Built::DropIn(Box::new(StraightThrough::new(tau)?)),
    })
}
