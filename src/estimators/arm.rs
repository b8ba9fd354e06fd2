//! Augment-REINFORCE-merge.
use super::objective::{Deposit, deposit, evaluate};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Variables, Takes};
use crate::dist::bernoulli::Code;
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Boolean,
    exact_on: ExactOn::Everything,
    source: "Yin & Zhou 2019, Theorem 1",
    noise: NoiseKind::Continuous,
    hard_forward: true,
    f_evals: "2",
    needs_grad_f: false,
    knobs: &[],
    tau: "none",
};

/// A pair of draws from one uniform: `grad = (f(b1) - f(b2)) (u - 1/2)`, `b1 = 1[u > 1 - p]`, `b2 = 1[u < p]`.
///
/// - **Shapes**: logits `[B, L]`; f maps `[2, B, L]` to `[2, B]`, b2 first.
/// - **Bias, cost**: None; two evaluations of f, no derivative. f's own parameters get the mean over the pair.
/// - **Differs**: nothing known.
pub struct Arm {
    code: Code,
}

impl Arm {
    /// On samples in this code.
    pub fn new(code: Code) -> Self {
        Arm { code }
    }
}

/// Probabilities `[B, L]` and uniforms `[.., B, L]` -> `(1[u < p], 1[1 - u < p])`, of the shape of u.
pub(super) fn pair(p: &Tensor, u: &Tensor) -> Result<(Tensor, Tensor)> {
    let kind = p.kind();
    Ok((u.f_lt_tensor(p)?.f_to_kind(kind)?, (u.f_neg()? + 1.0).f_lt_tensor(p)?.f_to_kind(kind)?))
}

impl GradEstimator for Arm {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let p = Variables::Boolean(self.code).probs("arm", logits)?;
        let u = noise.uniform(&p.size(), p.kind(), p.device())?;
        let (b2, b1) = pair(&p, &u)?;
        let e = evaluate("arm", f, &self.code.encode(&Tensor::f_stack(&[b2, b1], 0)?)?, false)?;
        let difference = e.values.f_get(1)? - e.values.f_get(0)?; // [B]
        let grad = difference.f_unsqueeze(-1)? * (u - 0.5);
        deposit(&e.loss, vec![Deposit::logits(logits, grad)])
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("arm", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(Arm::new(knobs.code("arm")?)), "arm"))
}
