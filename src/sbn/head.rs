//! The head: class scores that are affine in the last binary states, and all their flips at the cost of one product.
use super::layer::{linear, shaped};
use super::objective::Objective;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How the head's own parameters get their gradient, and what the value of the loss is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadGradient {
    /// Averaged over the flips of the last states, Lemma B.2 with gamma = 1/n: no more variance, same mean. What all
    /// experiments of the paper use.
    #[default]
    Enhanced,
    /// The ordinary gradient at the draw, line 10 of Algorithm 1.
    Plain,
}

/// Scores `W x + b`. Weight `[K, n]`, bias `[K]`, with replicas `[R, K, n]` and `[R, K]`.
#[derive(Debug)]
pub struct Head {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) below: Vec<i64>,
}

/// The loss at the states and at every state with one unit flipped.
#[derive(Debug)]
pub struct Flips {
    /// Scores at x, `[.., K]`.
    pub scores: Tensor,
    /// f(x), `[..]`.
    pub at: Tensor,
    /// Scores at each flip, `[.., n, K]`.
    pub flipped_scores: Tensor,
    /// f(x with unit i flipped), `[.., n]`.
    pub flipped: Tensor,
}

impl Head {
    /// The states flattened, `[.., n]`.
    pub(super) fn flat(&self, x: &Tensor) -> Result<Tensor> {
        shaped("head", x, &self.below, true)
    }

    /// Class scores of states `[.., units]` -> `[.., K]`.
    pub fn scores(&self, x: &Tensor) -> Result<Tensor> {
        linear(&self.flat(x)?, &self.weight, Some(&self.bias))
    }

    /// Mean and variance of the scores of independent states with means m and variances v.
    pub(super) fn moments(&self, m: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.scores(m)?, linear(&self.flat(v)?, &self.weight.f_square()?, None)?))
    }

    /// Scores of x with each unit flipped, `s - 2 x_i W_i`: one rank-one update a unit (Section B.5), `[.., n, K]`.
    fn flipped_scores(&self, x: &Tensor, scores: &Tensor) -> Result<Tensor> {
        let columns = self.weight.f_transpose(-1, -2)?; // [n, K] or [R, n, K]
        let columns = if columns.dim() == 3 { columns.f_unsqueeze(1)? } else { columns };
        Ok(scores.f_unsqueeze(-2)? - (self.flat(x)? * 2.0).f_unsqueeze(-1)? * columns)
    }

    /// f at the states and at all flips, differentiable in the head's parameters: x `[.., units]`, target `[B]`.
    pub fn flips(&self, x: &Tensor, target: &Tensor, objective: &Objective) -> Result<Flips> {
        let scores = self.scores(x)?;
        let at = objective.values(&scores, target)?;
        let flipped_scores = self.flipped_scores(x, &scores)?;
        let flipped = objective.values(&flipped_scores, &target.f_unsqueeze(-1)?)?;
        Ok(Flips { scores, at, flipped_scores, flipped })
    }

    /// `f(x) - f(x with unit i flipped)` for all i, the last factor of the PSA gradient (Alg. 1, line 10): states
    /// `[.., units]` -> `[.., n]`, without a graph.
    pub fn differences(&self, x: &Tensor, target: &Tensor, objective: &Objective) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let f = self.flips(x, target, objective)?;
        Ok(f.at.f_unsqueeze(-1)? - f.flipped)
    }

    /// The expression of Algorithm 1's last line, `E = f(x) + sum_i detach(f(x) - f(x flipped at i)) q_i`, or the enhanced
    /// `E = f(x) + sum_i (f(x) - f(x flipped at i)) (q_i - pi_i / n)`, pi_i the probability of the *flipped* state.
    ///
    /// The paper's Eq. 33a has `pi = 1 - ((x + 1)/2 + x F)`, which is -F at x = +1; it must be `1 - ((1 - x)/2 + x F)`
    /// (Lemma B.2), and the difference times q must be detached in 33b as it is in line 10.
    ///
    /// x, q: `[.., units]`; `up`: `P(x = 1)` of the last states. Returns scores `[.., K]`, detached, and E `[..]`.
    pub(super) fn psa(
        &self,
        x: &Tensor,
        q: &Tensor,
        up: &Tensor,
        target: &Tensor,
        objective: &Objective,
        gradient: HeadGradient,
    ) -> Result<(Tensor, Tensor)> {
        let q = self.flat(q)?;
        let through = |df: &Tensor| -> Result<Tensor> { Ok((df * &q).f_sum_dim_intlist(-1, false, q.kind())?) };
        match gradient {
            HeadGradient::Plain => {
                let df = self.differences(x, target, objective)?;
                let scores = self.scores(x)?;
                Ok((scores.detach(), objective.values(&scores, target)? + through(&df)?))
            }
            HeadGradient::Enhanced => {
                let f = self.flips(x, target, objective)?;
                let df = f.at.f_unsqueeze(-1)? - &f.flipped;
                let pi = self.flat(&flip_probability(x, up)?)?;
                let n = pi.size()[pi.dim() - 1] as f64;
                let correction = (&df * pi).f_sum_dim_intlist(-1, false, df.kind())? / n;
                Ok((f.scores.detach(), (f.at - correction) + through(&df.detach())?))
            }
        }
    }

    /// Weights of x and of its flips in the average of Lemma B.2 with gamma = 1/n: `1 - sum_i pi_i / n`, and `pi_i / n`;
    /// `[..]` and `[.., n]`.
    pub(super) fn enhanced_weights(&self, x: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
        let pi = self.flat(&flip_probability(x, up)?)?;
        let each = &pi / pi.size()[pi.dim() - 1] as f64;
        let rest = each.f_sum_dim_intlist(-1, false, each.kind())?.f_neg()? + 1.0;
        Ok((rest, each))
    }
}

/// Probability of the flipped state of each unit, `1 - p(x_i)`, from `up = P(x = 1)`; no graph.
fn flip_probability(x: &Tensor, up: &Tensor) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let up = up.detach();
    let down = up.f_neg()?.f_add_scalar(1.0)?;
    Ok(down.f_where_self(&x.f_gt(0.0)?, &up)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eq. 33a as printed, and as it must be.
    #[test]
    fn probability_of_the_flipped_state() {
        let x = Tensor::from_slice(&[1f64, -1.0]);
        let up = Tensor::from_slice(&[0.3f64, 0.3]);
        let got = flip_probability(&x, &up).unwrap();
        assert_eq!(Vec::<f64>::try_from(&got).unwrap(), [0.7, 0.3]);
        let formula = 1.0 - ((1.0 - &x) / 2.0 + &x * &up);
        assert!((&formula - &got).abs().max().double_value(&[]) < 1e-15);
        let printed: Tensor = 1.0 - ((&x + 1.0) / 2.0 + &x * &up);
        assert!((printed - got).abs().min().double_value(&[]) > 0.1);
    }
}
