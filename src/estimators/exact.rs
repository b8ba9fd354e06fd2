//! The exact gradient, by enumeration.
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective};
use crate::dist::categorical::Point;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
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
/// - **Shapes**: logits `[B, L, K]`; f maps `[M, B, L, K]` to `[M, B]`.
/// - **Bias, cost**: None, and no variance in the logits; `K^L + 1` evaluations of f a row.
/// - **Errors**: [`crate::Error::Range`] if `K^L` exceeds [`crate::exact::MAX_STATES`].
/// - **Differs**: nothing known.
#[derive(Debug, Clone, Copy)]
pub struct Exact;

impl GradEstimator for Exact {
    fn surrogate_loss(&self, logits: &Tensor, f: Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        logits.size3().map_err(|_| Error::shape("exact", "logits [B, L, K]", logits.size()))?;
        let point = Point::draw(logits, None, noise)?;
        let at_draw = f(&point.hard.f_unsqueeze(0)?)?.f_squeeze_dim(0)?;
        let expected = crate::exact::expectation(logits, &|d| {
            let _guard = tch::no_grad_guard();
            f(d)
        })?;
        // value and f's own gradient from the draw, gradient of the logits from the enumeration
        Ok(at_draw + (&expected - expected.detach()))
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("exact", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(Exact), "exact"))
}
