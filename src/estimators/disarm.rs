//! DisARM, also known as U2G.
use super::arm::pair;
use super::objective::{Deposit, deposit, evaluate};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Variables, Takes};
use crate::dist::bernoulli::Code;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Boolean,
    exact_on: ExactOn::Everything,
    source: "Dong, Mnih & Tucker 2020: the mean of arm given its pair, so no more variance",
    noise: NoiseKind::Draws,
    hard_forward: true,
    f_evals: "M",
    needs_grad_f: false,
    knobs: &["samples"],
    tau: "none",
};

/// ARM with the uniform averaged out given the pair:
/// `grad = 1/2 (f(b1) - f(b2)) (-1)^b2 1[b1 != b2] sigmoid(|theta|)`, `b2 = 1[u < p]`, `b1 = 1[1 - u < p]`; for M > 2 the mean
/// over M/2 independent pairs.
///
/// - **Shapes**: logits `[B, L]`; f maps `[M, B, L]` to `[M, B]`: the b2 of every pair, then the b1.
/// - **Bias, cost**: None; M evaluations of f (default 2), no derivative. f's own parameters get the mean over all M draws;
///   the published code trains the decoder on M further independent ones and does not count them.
/// - **Errors**: [`crate::Error::Range`] for `samples` odd or < 2.
pub struct DisArm {
    code: Code,
    samples: i64,
}

impl DisArm {
    /// With this many draws, in pairs.
    pub fn new(code: Code, samples: i64) -> Result<Self> {
        if samples < 2 || samples % 2 != 0 {
            return Err(Error::range("disarm: samples", "even and at least 2 (arms takes any number)", samples));
        }
        Ok(DisArm { code, samples })
    }
}

impl GradEstimator for DisArm {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let p = Variables::Boolean(self.code).probs("disarm", logits)?;
        let pairs = self.samples / 2;
        let u = noise.uniform(&[&[pairs], &p.size()[..]].concat(), p.kind(), p.device())?;
        let (b2, b1) = pair(&p, &u)?;
        let e = evaluate("disarm", f, &self.code.encode(&Tensor::f_cat(&[&b2, &b1], 0)?)?, false)?;
        let half = |i: i64| e.values.f_narrow(0, i * pairs, pairs); // [M/2, B]
        let difference = (half(1)? - half(0)?).f_unsqueeze(-1)?;
        // b1 - b2 is (-1)^b2 where they differ, else 0
        let each = difference * (b1 - b2);
        let grad = each.f_mean_dim(0i64, false, p.kind())? * logits.detach().f_abs()?.f_sigmoid()? * 0.5;
        deposit(&e.loss, vec![Deposit::logits(logits, grad)])
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("disarm", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(DisArm::new(knobs.code("disarm")?, knobs.samples.unwrap_or(2))?), "disarm"))
}
