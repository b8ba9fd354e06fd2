//! ARMS: antithetic REINFORCE with several samples.
use super::objective::{Deposit, deposit, evaluate};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Takes, Variables};
use crate::dist::bernoulli::Code;
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Boolean,
    exact_on: ExactOn::Everything,
    source: "Dimitriev & Zhou 2021, Theorem 1; disarm at M = 2",
    noise: NoiseKind::Draws,
    hard_forward: true,
    f_evals: "M",
    needs_grad_f: false,
    knobs: &["samples"],
    tau: "none",
};

/// RLOO on M draws that repel each other, by the Dirichlet copula:
/// `grad = d / (M - 1) sum_m (f_m - mean f) (b_m - p)`, `d = p (1 - p) / (p - J)`, J the probability that two draws are both 1.
///
/// Each bit has `delta = e / sum e` over M exponentials e, uniform on the simplex, and `C_m = (1 - delta_m)^(M-1)`, uniform on
/// (0, 1); `b_m = 1[C_m < p]` for p < 1/2, else `1[1 - C_m < p]`. With `q = min(p, 1 - p)`:
/// `1/d = (1 - max(2 - q^(-1/(M-1)), 0)^(M-1)) / (1 - q)`.
///
/// - **Shapes**: logits `[B, L]`; f maps `[M, B, L]` to `[M, B]`.
/// - **Bias, cost**: None; M evaluations of f (default 2), no derivative. f's own parameters get the mean over the M draws;
///   the published code trains the decoder on M further independent ones and does not count them.
/// - **Errors**: [`crate::Error::Range`] for `samples` < 2.
/// - **Differs**: from the published code, which adds 1e-6 to `p - J`: written in q the quotient needs no patch at 0 and 1.
///   Its Gaussian copula is not here.
pub struct Arms {
    code: Code,
    samples: i64,
}

impl Arms {
    /// With this many draws.
    pub fn new(code: Code, samples: i64) -> Result<Self> {
        Ok(Arms { code, samples: super::at_least(2, "arms", samples)? })
    }
}

impl GradEstimator for Arms {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let p = Variables::Boolean(self.code).probs("arms", logits)?;
        let (bits, debias) = {
            let _guard = tch::no_grad_guard();
            let m1 = (self.samples - 1) as f64;
            let u = noise.uniform(&[&[self.samples], &p.size()[..]].concat(), p.kind(), p.device())?;
            let e = u.f_log()?.f_neg()?;
            let delta = &e / e.f_sum_dim_intlist(0i64, true, e.kind())?;
            let c = (delta.f_neg()? + 1.0).f_pow_tensor_scalar(m1)?;
            let rare = p.f_lt(0.5)?;
            let c = c.f_where_self(&rare, &(c.f_neg()? + 1.0))?;
            let bits = c.f_lt_tensor(&p)?.f_to_kind(p.kind())?; // [M, B, L]
            // the smaller probability from the logit, so that it does not round to 0
            let q = logits.detach().f_abs()?.f_neg()?.f_sigmoid()?;
            let both = (q.f_pow_tensor_scalar(-1.0 / m1)?.f_neg()? + 2.0).f_clamp_min(0.0)?.f_pow_tensor_scalar(m1)?;
            (bits, (q.f_neg()? + 1.0) / (both.f_neg()? + 1.0))
        };
        let e = evaluate("arms", f, &self.code.encode(&bits)?, false)?;
        let mean = e.values.f_mean_dim(0i64, true, e.values.kind())?;
        let weights = ((&e.values - mean) / (self.samples - 1) as f64).f_unsqueeze(-1)?;
        let grad = (weights * (bits - p)).f_sum_dim_intlist(0i64, false, debias.kind())? * debias;
        deposit(&e.loss, vec![Deposit::logits(logits, grad)])
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("arms", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(Arms::new(knobs.code("arms")?, knobs.samples.unwrap_or(2))?), "arms"))
}
