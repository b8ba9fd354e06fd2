//! Double control variates.
use super::learned::scalar;
use super::objective::{Deposit, deposit, evaluate};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Sizes, Takes, Variables};
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Everything,
    source: "Titsias & Shi 2022",
    noise: NoiseKind::Draws,
    hard_forward: true,
    f_evals: "M",
    needs_grad_f: true,
    knobs: &["samples"],
    tau: "none",
};

/// RLOO whose values carry a second control variate from the derivatives at the other draws:
/// `grad = 1/M sum_m (f_m + c_m - mean_(j != m) (f_j + c_j)) (b_m - p) - alpha J(p) mean_m df(b_m)`,
/// `c_m = alpha G_m . (b_m - p)`, `G_m = mean_(j != m) df(b_j)`.
///
/// alpha is learned, by the mean of `grad^2` over batch and variables; it starts at 0 (plain RLOO) and a good one is
/// **negative**: at -1 a linear f has no variance at all.
///
/// - **Shapes**: logits `[B, L, K]`, or `[B, L]` for Boolean variables; f maps `[M, B, ..]` to `[M, B]`.
/// - **Bias, cost**: None, whatever alpha is; M evaluations of f (default 2) and their derivatives at the draws.
/// - **State**: the parameter `alpha`. The published runs give it Adam with rate 1e-3.
/// - **Errors**: [`crate::Error::Range`] for `samples` < 2.
pub struct DoubleCv {
    variables: Variables,
    samples: i64,
    alpha: Tensor,
}

impl DoubleCv {
    /// With this many draws.
    pub fn new(variables: Variables, samples: i64, sizes: &Sizes) -> Result<Self> {
        let samples = super::at_least(2, "double-cv", samples)?;
        Ok(DoubleCv { variables, samples, alpha: scalar(0.0, sizes)? })
    }
}

/// Mean over the other draws: `[M, ..] -> [M, ..]`.
pub(super) fn mean_of_others(t: &Tensor) -> Result<Tensor> {
    let m = t.size()[0];
    Ok((t.f_sum_dim_intlist(0i64, true, t.kind())? - t) / (m - 1) as f64)
}

impl GradEstimator for DoubleCv {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let v = self.variables;
        let probs = v.probs("double-cv", logits)?;
        let draws = v.indicators(logits, &probs, self.samples, noise)?;
        let e = evaluate("double-cv", f, &v.encode(&draws)?, true)?;
        let _guard = tch::no_grad_guard();
        let mut slope = e.slope.expect("asked for");
        if v == Variables::Categorical {
            // whatever f does along a class that is never drawn
            slope = slope.f_masked_fill(&probs.f_eq(0.0)?, 0.0)?;
        }
        let score = draws - &probs;
        // the estimate is a + alpha c
        let loo = |values: &Tensor| -> Result<Tensor> {
            let weights = v.per_row(&(values - mean_of_others(values)?))?;
            Ok((weights * &score).f_mean_dim(0i64, false, probs.kind())?)
        };
        let a = loo(&e.values)?;
        let along = v.sum(&(mean_of_others(&slope)? * &score))? * v.slope();
        let c = loo(&along)? - v.pull_back(&probs, &slope.f_mean_dim(0i64, false, probs.kind())?)?;
        let grad = a + &c * &self.alpha;
        let d_alpha = (&grad * c * 2.0).f_mean(grad.kind())?;
        drop(_guard);
        deposit(&e.loss, vec![Deposit::logits(logits, grad), Deposit::parameter(&self.alpha, d_alpha)])
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        vec![("alpha".into(), self.alpha.shallow_clone())]
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("double-cv", CLAIMS.knobs)?;
    let built = DoubleCv::new(Variables::of(knobs.code), knobs.samples.unwrap_or(2), &knobs.sizes)?;
    Ok(Built::Wide(Box::new(built), "double-cv"))
}
