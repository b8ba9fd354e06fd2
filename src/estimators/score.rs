//! What the score-function estimators share: `sum_m w_m (b_m - p)`, with weights that come from the values of f.
//!
//! As the weights see nothing but these values, the same estimators serve a whole cascade of layers drawn jointly.
use super::objective::{Deposit, deposit, evaluate};
use super::{Objective, Variables};
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// A member of the family.
pub trait Score {
    /// M, the number of draws.
    fn samples(&self) -> i64;

    /// The weight of each draw's score `[M, B]`, from the values of f at the draws `[M, B]` and what f depends on beside
    /// them. Called without grad mode; may update running means, after use.
    fn weights(&self, values: &Tensor, context: Option<&Tensor>) -> Result<Weights>;

    /// Whether [`Score::loss`] is another function than the mean: a bound of all draws together.
    fn bounds(&self) -> bool {
        false
    }

    /// The loss of all draws: values `[M, B]`, with f's graph, -> `[B]`.
    fn loss(&self, values: &Tensor) -> Result<Tensor> {
        Ok(values.f_mean_dim(0i64, false, values.kind())?)
    }
}

/// Weights of the scores, and gradients of what the estimator learns.
pub struct Weights {
    /// `[M, B]`.
    pub of_draws: Tensor,
    /// Parameters and the gradients of their own loss, mean over the batch.
    pub learned: Vec<(Tensor, Tensor)>,
}

impl From<Tensor> for Weights {
    fn from(of_draws: Tensor) -> Self {
        Weights { of_draws, learned: vec![] }
    }
}

/// The surrogate loss of a member on one layer of variables.
pub(super) fn surrogate_loss(
    op: &'static str,
    score: &dyn Score,
    variables: Variables,
    logits: &Tensor,
    f: &dyn Objective,
    noise: &mut dyn Noise,
) -> Result<Tensor> {
    let probs = variables.probs(op, logits)?;
    let draws = variables.indicators(logits, &probs, score.samples(), noise)?;
    let x = variables.encode(&draws)?;
    let (values, loss) = if score.bounds() {
        if f.draws() {
            return Err(Error::Usage(format!("{op} bounds all layers at once: use it on the cascade as a whole")));
        }
        let values = f.at(&x)?;
        (values.detach(), score.loss(&values)?)
    } else {
        let e = evaluate(op, f, &x, false)?;
        (e.values, e.loss)
    };
    let (weights, grad) = {
        let _guard = tch::no_grad_guard();
        let weights = score.weights(&values, f.context().as_ref())?;
        let each = variables.per_row(&weights.of_draws)? * (draws - &probs);
        (weights, each.f_sum_dim_intlist(0i64, false, logits.kind())?)
    };
    let mut all = vec![Deposit::logits(logits, grad)];
    all.extend(weights.learned.iter().map(|(p, g)| Deposit::parameter(p, g.shallow_clone())));
    deposit(&loss, all)
}
