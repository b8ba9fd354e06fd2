//! What logits stand for: categorical variables `[B, L, K]` or Boolean ones `[B, L]` in a code. What follows is one
//! formula for both, in the indicators of a draw: one-hot rows, or bits.
use crate::dist::bernoulli::{self, Code};
use crate::dist::categorical::Point;
use crate::error::{Error, Result};
use crate::kernels::rows;
use crate::noise::Noise;
use tch::Tensor;

/// Kind of the latent variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variables {
    /// K classes each: logits `[B, L, K]`, samples one-hot.
    Categorical,
    /// Two values each: logits `[B, L]` of the probability of 1, samples in this code.
    Boolean(Code),
}

impl Variables {
    /// Categorical without a code, Boolean with one.
    pub fn of(code: Option<Code>) -> Self {
        code.map_or(Variables::Categorical, Variables::Boolean)
    }

    /// `softmax(logits)` or `sigmoid(logits)`, without a graph.
    ///
    /// # Errors
    /// [`Error::Shape`] where the logits are not `[B, L, K]` or `[B, L]`, [`Error::Range`] for bad values (on CPU).
    pub fn probs(self, op: &'static str, logits: &Tensor) -> Result<Tensor> {
        match self {
            Variables::Categorical if logits.dim() != 3 => Err(Error::shape(op, "logits [B, L, K]", logits.size())),
            Variables::Boolean(_) if logits.dim() != 2 => Err(Error::shape(op, "logits [B, L]", logits.size())),
            Variables::Categorical => rows::softmax(logits, 1.0),
            Variables::Boolean(_) => {
                bernoulli::check(op, logits)?;
                Ok(logits.detach().f_sigmoid()?)
            }
        }
    }

    /// M draws: logits, probabilities `[B, ..]` -> indicators `[M, B, ..]`, without a graph.
    pub fn indicators(self, logits: &Tensor, probs: &Tensor, m: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        match self {
            Variables::Categorical => {
                let size = [&[m], &logits.size()[..]].concat();
                Ok(Point::draw(&logits.f_unsqueeze(0)?.f_expand(size, false)?, None, noise)?.hard)
            }
            Variables::Boolean(_) => Ok(bernoulli::draw(probs, m, noise)?.0),
        }
    }

    /// Indicators, or anything between (means, relaxed draws), as f wants them.
    pub fn encode(self, indicators: &Tensor) -> Result<Tensor> {
        match self {
            Variables::Categorical => Ok(indicators.shallow_clone()),
            Variables::Boolean(code) => code.encode(indicators),
        }
    }

    /// Derivative of the encoded value in the indicator.
    pub fn slope(self) -> f64 {
        match self {
            Variables::Categorical => 1.0,
            Variables::Boolean(code) => code.slope(),
        }
    }

    /// Derivative of the mean of an encoded variable in the logits, times `g` (what arrives at the encoded value):
    /// `[.., B, ..]`, of the broadcast shape.
    pub fn pull_back(self, probs: &Tensor, g: &Tensor) -> Result<Tensor> {
        match self {
            Variables::Categorical => rows::jacobian(&probs.f_expand_as(g)?, g, 1.0),
            Variables::Boolean(code) => Ok(probs * (probs.f_neg()? + 1.0) * code.slope() * g),
        }
    }

    /// Axes of one variable set after the batch: 1 or 2.
    pub fn axes(self) -> usize {
        match self {
            Variables::Categorical => 2,
            Variables::Boolean(_) => 1,
        }
    }

    /// Numbers a row, `[M, B]`, shaped to multiply `[M, B, ..]`.
    pub fn per_row(self, values: &Tensor) -> Result<Tensor> {
        let mut t = values.shallow_clone();
        for _ in 0..self.axes() {
            t = t.f_unsqueeze(-1)?;
        }
        Ok(t)
    }

    /// The inner product over the variables: `[M, B, ..]` -> `[M, B]`.
    pub fn sum(self, t: &Tensor) -> Result<Tensor> {
        let dims: &[i64] = if self.axes() == 2 { &[-2, -1] } else { &[-1] };
        Ok(t.f_sum_dim_intlist(dims, false, t.kind())?)
    }
}
