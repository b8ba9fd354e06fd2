//! The exact gradient, by enumeration.
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Takes, Variables};
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Everything,
    source: "Liu et al. 2023, Eq. 2",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "K^L + 1",
    needs_grad_f: false,
    knobs: &[],
    tau: "none",
};

/// The exact gradient of the logits by enumeration of all `K^L` codes; f's own parameters get their ordinary gradient at
/// one draw, as in the published code's `exact` method.
///
/// - **Shapes**: logits `[B, L, K]`, or `[B, L]` for Boolean variables; f maps `[M, B, ..]` to `[M, B]`.
/// - **Bias, cost**: None, and no variance in the logits; `K^L + 1` evaluations of f a row.
/// - **Errors**: [`crate::Error::Range`] if `K^L` exceeds [`crate::exact::MAX_STATES`].
/// - **Differs**: nothing known.
#[derive(Debug, Clone, Copy)]
pub struct Exact {
    variables: Variables,
}

impl Exact {
    /// On variables of this kind.
    pub fn new(variables: Variables) -> Self {
        Exact { variables }
    }
}

impl GradEstimator for Exact {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let probs = self.variables.probs("exact", logits)?;
        let draw = self.variables.indicators(logits, &probs, 1, noise)?;
        let at_draw = f.at(&self.variables.encode(&draw)?)?.f_squeeze_dim(0)?;
        // a Boolean variable has two classes, the first of which is the bit 1
        let classes = match self.variables {
            Variables::Categorical => logits.shallow_clone(),
            Variables::Boolean(_) => Tensor::f_stack(&[logits, &logits.f_zeros_like()?], -1)?,
        };
        let expected = crate::exact::expectation(&classes, &|d| {
            let _guard = tch::no_grad_guard();
            match self.variables {
                Variables::Categorical => f.branch(d),
                Variables::Boolean(code) => f.branch(&code.encode(&d.f_select(-1, 0)?)?),
            }
        })?;
        // value and f's own gradient from the draw, gradient of the logits from the enumeration
        Ok(at_draw + (&expected - expected.detach()))
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("exact", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(Exact::new(Variables::of(knobs.code))), "exact"))
}
