//! MuProp.
use super::objective::{Deposit, deposit, evaluate};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Takes, Variables};
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Everything,
    source: "Gu et al. 2016",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "2",
    needs_grad_f: true,
    knobs: &[],
    tau: "none",
};

/// REINFORCE with the first-order Taylor expansion around the mean as control variate, whose own gradient is added back:
/// `grad = (f(b) - f(p) - df(p) . (b - p)) (b - p) + J(p) df(p)`    (Gu et al. 2016).
///
/// - **Shapes**: logits `[B, L, K]`, or `[B, L]` for Boolean variables; f maps `[1, B, ..]` to `[1, B]`.
/// - **Bias, cost**: None; two evaluations of f, one at the draw and one at the mean, where f must have a derivative.
pub struct MuProp {
    variables: Variables,
}

impl MuProp {
    /// On variables of this kind.
    pub fn new(variables: Variables) -> Self {
        MuProp { variables }
    }
}

impl GradEstimator for MuProp {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let v = self.variables;
        let probs = v.probs("muprop", logits)?;
        let draw = v.indicators(logits, &probs, 1, noise)?;
        let at_draw = evaluate("muprop", f, &v.encode(&draw)?, false)?;
        let mean = v.encode(&probs.f_unsqueeze(0)?)?.f_set_requires_grad(true)?;
        let at_mean = f.relaxed(&mean)?; // [1, B]
        let slope = match at_mean.requires_grad() {
            true => Tensor::f_run_backward(&[at_mean.f_sum(at_mean.kind())?], &[&mean], false, false)?.remove(0),
            false => mean.f_zeros_like()?,
        };
        let _guard = tch::no_grad_guard();
        let slope = match v {
            // whatever f does along a class that is never drawn
            Variables::Categorical => slope.f_masked_fill(&probs.f_eq(0.0)?, 0.0)?,
            Variables::Boolean(_) => slope,
        };
        let score = &draw - &probs;
        let along = v.sum(&(&slope * &score))? * v.slope();
        let signal = at_draw.values - at_mean - along;
        let grad = v.per_row(&signal)? * score + v.pull_back(&probs, &slope)?;
        drop(_guard);
        deposit(&at_draw.loss, vec![Deposit::logits(logits, grad.f_squeeze_dim(0)?)])
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("muprop", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(MuProp::new(Variables::of(knobs.code))), "muprop"))
}
