//! REINFORCE leave-one-out.
use super::score::{self, Score, Weights};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Variables, Takes};
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Everything,
    source: "Kool, van Hoof & Welling 2019",
    noise: NoiseKind::Draws,
    hard_forward: true,
    f_evals: "M",
    needs_grad_f: false,
    knobs: &["samples"],
    tau: "none",
};

/// M draws, each with the mean of the others as its baseline: `grad = 1/(M - 1) sum_m (f_m - mean f) (b_m - p)`.
///
/// The mean over all M in place of `1/(M - 1)` would shrink the gradient by `(M - 1)/M`.
///
/// - **Shapes**: logits `[B, L, K]`, or `[B, L]` for Boolean variables; f maps `[M, B, ..]` to `[M, B]`, one call.
/// - **Bias, cost**: None; M evaluations of f (default 2), no derivative. f's own parameters get the mean over the draws.
/// - **Errors**: [`crate::Error::Range`] for `samples` < 2.
pub struct Rloo {
    variables: Variables,
    samples: i64,
}

impl Rloo {
    /// With this many draws.
    pub fn new(variables: Variables, samples: i64) -> Result<Self> {
        Ok(Rloo { variables, samples: super::at_least(2, "rloo", samples)? })
    }
}

impl Score for Rloo {
    fn samples(&self) -> i64 {
        self.samples
    }

    fn weights(&self, values: &Tensor, _: Option<&Tensor>) -> Result<Weights> {
        let mean = values.f_mean_dim(0i64, true, values.kind())?;
        Ok(((values - mean) / (self.samples - 1) as f64).into())
    }
}

impl GradEstimator for Rloo {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        score::surrogate_loss("rloo", self, self.variables, logits, f, noise)
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("rloo", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(Rloo::new(Variables::of(knobs.code), knobs.samples.unwrap_or(2))?), "rloo"))
}
