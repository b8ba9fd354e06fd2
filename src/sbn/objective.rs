//! Losses that are functions of class scores.
use crate::error::{Error, Result};
use std::fmt;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// From scores `[.., K]` and targets of the leading shape `[..]` to a loss `[..]` in nats, differentiable in the scores.
pub type ScoreLoss = dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync;

/// The loss f as a function of the class scores, row by row.
#[derive(Clone)]
pub enum Objective {
    /// Softmax cross-entropy; targets are classes, i64.
    CrossEntropy,
    /// `log(1 + exp(-y s))` of one score (K = 1); targets y are -1 and +1 of the scores' kind.
    Logistic,
    /// Any other.
    Custom(Arc<ScoreLoss>),
}

impl fmt::Debug for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Objective::CrossEntropy => "CrossEntropy",
            Objective::Logistic => "Logistic",
            Objective::Custom(_) => "Custom",
        })
    }
}

impl Objective {
    /// The loss of each row: scores `[.., K]`; targets `[B]`, where B is the last of the leading axes -> `[..]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where targets and scores do not fit.
    pub fn values(&self, scores: &Tensor, target: &Tensor) -> Result<Tensor> {
        let size = scores.size();
        let Some((&classes, lead)) = size.split_last().filter(|(_, lead)| !lead.is_empty()) else {
            return Err(Error::shape("objective", "scores [.., K]", size));
        };
        let fits = |t: &Tensor| t.f_expand(lead, false);
        let Ok(target) = fits(target) else {
            return Err(Error::shape("objective", format!("targets for scores {size:?}"), target.size()));
        };
        match self {
            Objective::CrossEntropy => {
                if target.kind() != Kind::Int64 {
                    return Err(Error::shape("cross-entropy", "targets of kind Int64", target.kind()));
                }
                let log_p = scores.f_log_softmax(-1, scores.kind())?;
                Ok(log_p.f_gather(-1, &target.f_unsqueeze(-1)?, false)?.f_squeeze_dim(-1)?.f_neg()?)
            }
            Objective::Logistic if classes == 1 => Ok((scores.f_squeeze_dim(-1)? * -target).f_softplus()?),
            Objective::Logistic => Err(Error::shape("logistic loss", "one score, [.., 1]", size)),
            Objective::Custom(f) => {
                let value = f(scores, &target)?;
                if value.size() == lead {
                    Ok(value)
                } else {
                    Err(Error::shape("custom objective", format!("a loss {lead:?}"), value.size()))
                }
            }
        }
    }

    /// Predictive probabilities of the classes: scores `[.., K]` -> `[.., K]`; with one score `[.., 2]`, class +1 last.
    ///
    /// # Errors
    /// [`Error::Usage`] for a custom objective, which has none.
    pub fn probabilities(&self, scores: &Tensor) -> Result<Tensor> {
        match self {
            Objective::CrossEntropy => Ok(scores.f_softmax(-1, scores.kind())?),
            Objective::Logistic => Ok(Tensor::f_cat(&[scores.f_neg()?, scores.shallow_clone()], -1)?.f_sigmoid()?),
            Objective::Custom(_) => Err(Error::Usage("a custom objective has no class probabilities".into())),
        }
    }

    /// Targets as class indices, i64, for [`Objective::probabilities`].
    pub(super) fn classes(&self, target: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Objective::Logistic => target.f_gt(0.0)?.f_to_kind(Kind::Int64)?,
            _ => target.shallow_clone(),
        })
    }
}
