//! VIMCO, for bounds of several samples.
use super::score::{self, Score, Weights};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Takes, Variables};
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Bound,
    source: "Mnih & Rezende 2016",
    noise: NoiseKind::Draws,
    hard_forward: true,
    f_evals: "M",
    needs_grad_f: false,
    knobs: &["samples"],
    tau: "none",
};

/// The multi-sample bound `-log 1/M sum_m exp(-f_m)` in place of `E f`, with a leave-one-out signal for each draw:
/// `grad = -sum_m (L - L_-m) (b_m - p)`, `L = log 1/M sum_m exp(-f_m)`, and `L_-m` the same with f_m replaced by the mean of
/// the others (the geometric mean of their weights).
///
/// f is `log q(b) - log p(x, b)`, and here the derivative of its `log q(b)` in the logits does **not** have mean zero: f must
/// not detach them.
///
/// - **Shapes**: logits `[B, L, K]`, or `[B, L]` for Boolean variables; f maps `[M, B, ..]` to `[M, B]`.
/// - **Bias, cost**: None for the bound; M evaluations of f (default 2), no derivative. The sum over m, not the mean: each
///   signal is already of the size `1/M`.
/// - **Errors**: [`crate::Error::Range`] for `samples` < 2.
pub struct Vimco {
    variables: Variables,
    samples: i64,
}

impl Vimco {
    /// With a bound of this many draws.
    pub fn new(variables: Variables, samples: i64) -> Result<Self> {
        Ok(Vimco { variables, samples: super::at_least(2, "vimco", samples)? })
    }
}

impl Score for Vimco {
    fn samples(&self) -> i64 {
        self.samples
    }

    fn bounds(&self) -> bool {
        true
    }

    fn loss(&self, values: &Tensor) -> Result<Tensor> {
        Ok((self.samples as f64).ln() - values.f_neg()?.f_logsumexp(0i64, false)?)
    }

    fn weights(&self, values: &Tensor, _: Option<&Tensor>) -> Result<Weights> {
        let m = self.samples;
        let log_w = values.f_neg()?; // [M, B]
        let others = (log_w.f_sum_dim_intlist(0i64, true, log_w.kind())? - &log_w) / (m - 1) as f64;
        // row m: all weights with the m-th replaced, [M, M, B]
        let own = Tensor::f_eye(m, (tch::Kind::Bool, log_w.device()))?.f_unsqueeze(-1)?;
        let replaced = others.f_unsqueeze(1)?.f_where_self(&own, &log_w.f_unsqueeze(0)?)?;
        let signal = log_w.f_logsumexp(0i64, true)? - replaced.f_logsumexp(1i64, false)?;
        Ok(signal.f_neg()?.into())
    }
}

impl GradEstimator for Vimco {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        score::surrogate_loss("vimco", self, self.variables, logits, f, noise)
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("vimco", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(Vimco::new(Variables::of(knobs.code), knobs.samples.unwrap_or(2))?), "vimco"))
}
