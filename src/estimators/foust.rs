//! FouST, the Fourier straight-through estimator.
use super::boolean::{BooleanDropIn, Placed, bits_or_draw};
use super::darn::half_of_the_other;
use super::{Built, Claims, ExactOn, Knobs, NoiseKind, Takes};
use crate::dist::bernoulli::Code;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Boolean,
    exact_on: ExactOn::Nothing,
    source: "Pervez, Cohen & Gavves 2020, Alg. 1; exact for one variable with the interval 1",
    noise: NoiseKind::Continuous,
    hard_forward: false,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &["interval", "scale"],
    tau: "none",
};

/// The steps of the algorithm; each may be switched off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// Importance re-weighting by `1 / (2 p(b))`; without it the factor is straight-through's `p (1 - p)`.
    pub importance: bool,
    /// Bernoulli splitting uniform: f sees `s r a`, `r ~ U(1 - interval, 1)`, in place of `s a`. Relative to a; 0 is off.
    pub interval: f64,
    /// Representation scaling: f sees the code times `a`; 1 is off.
    pub scale: f64,
    /// Constant factor gamma on the gradient.
    pub gamma: f64,
}

impl Default for Steps {
    /// Importance, interval 0.1 (the smaller of the paper's two), no scaling (its value for the MLPs is not stated).
    fn default() -> Self {
        Steps { importance: true, interval: 0.1, scale: 1.0, gamma: 1.0 }
    }
}

/// Straight-through on Boolean variables with three corrections (Pervez, Cohen & Gavves 2020, Alg. 1):
/// `grad = gamma p (1 - p) / (2 p(b)) df/db` at `s r a`, `s = 2 b - 1`, `r ~ U(1 - interval, 1)`, a the scale.
///
/// - **Shapes**: logits `[.., L]`.
/// - **Units**: the interval relative to a (the paper's "noise interval length" is `a - b` with `a = 1`).
/// - **Bias, cost**: Biased; without noise it is DARN, exact where f is quadratic in each bit; with the interval 1 exact for
///   one variable, while mixed terms of several shrink. One evaluation of f, at the split value, as are all activations.
/// - **Errors**: [`Error::Range`] for an interval outside [0, 1], a scale or gamma that is not positive and finite.
/// - **Differs**: from the paper in four places. Alg. 1 gives the gradient of `p` and leaves out the constant `2 a` of
///   `dE f/dp = 2 a E df/dy`, which disappears in gamma or the learning rate: here the gradient is that of the logit, with
///   every constant, so that gamma = 1 is right. Lemma 2 compares quantities that differ by this 2. Alg. 1 multiplies the
///   sample `x in {-a, a}` by `y in (b, a)`, which leaves the interval unless a = 1: the sign of x is meant, and taken. A
///   scale does nothing for a given f (chain rule); it acts by giving the same weights smaller inputs.
pub struct Foust {
    code: Code,
    steps: Steps,
}

impl Foust {
    /// With these steps, on this code: f sees `a (2 b - 1) r`, or for 0/1 `a (1 + (2 b - 1) r) / 2`.
    pub fn new(code: Code, steps: Steps) -> Result<Self> {
        if !(0.0..=1.0).contains(&steps.interval) {
            return Err(Error::range("foust: interval", "in [0, 1]", steps.interval));
        }
        for (what, v) in [("foust: scale", steps.scale), ("foust: gamma", steps.gamma)] {
            if !(v.is_finite() && v > 0.0) {
                return Err(Error::range(what, "positive and finite", v));
            }
        }
        Ok(Foust { code, steps })
    }
}

impl BooleanDropIn for Foust {
    fn code(&self) -> Code {
        self.code
    }

    fn scale(&self) -> f64 {
        self.steps.scale
    }

    fn place(&self, logits: &Tensor, bits: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Placed> {
        let Steps { importance, interval, gamma, .. } = self.steps;
        let p = logits.f_sigmoid()?;
        let bits = bits_or_draw(&p, bits, noise)?;
        let factor = match importance {
            true => half_of_the_other(&p, &bits)?,
            false => &p * (p.f_neg()? + 1.0),
        };
        let factor = if gamma == 1.0 { factor } else { factor * gamma };
        let value = match interval {
            0.0 => None,
            _ => {
                // 1/2 (1 + s r), r = 1 - interval u: the bit moved by interval u / 2 towards the middle
                let u = noise.uniform(&p.size(), p.kind(), p.device())?;
                Some(&bits - (&bits - 0.5) * u * interval)
            }
        };
        Ok(Placed { bits, value, factor })
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("foust", CLAIMS.knobs)?;
    let default = Steps::default();
    let steps = Steps {
        interval: knobs.interval.unwrap_or(default.interval),
        scale: knobs.scale.unwrap_or(default.scale),
        ..default
    };
    Ok(Built::Boolean(Box::new(Foust::new(knobs.code("foust")?, steps)?)))
}
