//! Categorical variables given by logits `[.., K]`: draws, probabilities, entropy, divergences.
use crate::autograd::Function;
use crate::error::{Error, Result};
use crate::kernels::{elbo, rows};
use crate::noise::{Noise, Race};
use tch::{Kind, Tensor};

/// A draw with what was needed to make it; every tensor is free of a graph.
#[derive(Debug)]
pub struct Point {
    /// The logits, `[.., K]`, masked classes at -inf.
    pub logits: Tensor,
    /// `softmax(logits)`, `[.., K]`; exactly 0 for masked classes.
    pub probs: Tensor,
    /// Drawn class, i64, `[..]`.
    pub index: Tensor,
    /// One-hot of the draw, `[.., K]`, entries exactly 0 and 1.
    pub hard: Tensor,
    /// Gumbel-perturbed logits whose argmax made the draw, `[.., K]`, where the method draws so.
    pub perturbed: Option<Tensor>,
}

/// Logits with the classes that `mask` leaves out at -inf. `mask`: boolean, true = allowed, broadcast to the logits.
fn masked(logits: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let logits = logits.detach();
    match mask {
        None => Ok(logits),
        Some(m) if m.kind() != Kind::Bool => Err(Error::shape("mask", "a boolean tensor, true = allowed", m.kind())),
        Some(m) => match m.f_expand_as(&logits) {
            Ok(m) => Ok(logits.f_masked_fill(&m.f_logical_not()?, f64::NEG_INFINITY)?),
            Err(_) => Err(Error::shape("mask", format!("a shape that broadcasts to {:?}", logits.size()), m.size())),
        },
    }
}

impl Point {
    /// Draws at temperature 1 by the exponential race, `argmax p / E`.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty class axis or a mask that is not boolean; [`Error::Range`] on the CPU for NaN or
    /// +inf logits and for a row with every class masked.
    pub fn draw(logits: &Tensor, mask: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Point> {
        let k = rows::classes("draw", logits)?;
        let logits = masked(logits, mask)?;
        let probs = rows::softmax(&logits, 1.0)?;
        let n = logits.numel() as i64 / k;
        let (index, hard) = match noise.race(n, k, logits.kind(), logits.device())? {
            Race::Exponential(e) => rows::race(&probs.f_view([n, k])?, &e)?,
            Race::Index(index) => {
                let hard = rows::one_hot(&index, k, logits.kind())?;
                (index, hard)
            }
        };
        Self::assemble(logits, probs, index, hard, None)
    }

    /// Draws by adding Gumbel noise G and taking the argmax (the Gumbel-max trick; Maddison et al. 2014), and keeps
    /// `logits + G`.
    ///
    /// # Errors
    /// As [`Point::draw`].
    pub fn draw_gumbel(logits: &Tensor, mask: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Point> {
        rows::classes("draw", logits)?;
        let logits = masked(logits, mask)?;
        let probs = rows::softmax(&logits, 1.0)?;
        let g = noise.gumbel(&logits.size(), logits.kind(), logits.device())?;
        let perturbed = g.f_add(&logits)?;
        let (index, hard) = rows::argmax(&perturbed)?;
        Self::assemble(logits, probs, index, hard, Some(perturbed))
    }

    /// A point whose draw is given as one-hot rows `[.., K]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where `hard` has another shape than the logits, or as [`Point::draw`].
    pub fn given(logits: &Tensor, hard: &Tensor) -> Result<Point> {
        rows::classes("attach", logits)?;
        if hard.size() != logits.size() {
            return Err(Error::shape("attach", format!("a one-hot sample {:?}", logits.size()), hard.size()));
        }
        let logits = logits.detach();
        let probs = rows::softmax(&logits, 1.0)?;
        let hard = hard.detach().f_to_kind(logits.kind())?;
        let index = hard.f_argmax(-1, false)?;
        Ok(Point { logits, probs, index, hard, perturbed: None })
    }

    fn assemble(
        logits: Tensor,
        probs: Tensor,
        index: Tensor,
        hard: Tensor,
        perturbed: Option<Tensor>,
    ) -> Result<Point> {
        let size = logits.size();
        let index = index.f_view(&size[..size.len() - 1])?;
        let hard = hard.f_view(&size[..])?;
        Ok(Point { logits, probs, index, hard, perturbed })
    }
}

/// `log p(d)` of one-hot draws: logits, hard `[.., K]` -> `[..]`, differentiable in the logits.
pub fn log_prob(logits: &Tensor, hard: &Tensor) -> Result<Tensor> {
    let log_p = logits.f_log_softmax(-1, logits.kind())?;
    // where, not a product: a masked class has log p = -inf
    let zero = log_p.f_zeros_like()?;
    Ok(log_p.f_where_self(&hard.f_to_kind(Kind::Bool)?, &zero)?.f_sum_dim_intlist(-1, false, logits.kind())?)
}

/// KL divergence to the uniform distribution over K classes, summed over everything and divided by `batch`:
/// `sum q log(q + 1e-10) / batch + rows / batch * ln K`, a scalar in nats; the offset is the reference's. `probs` `[.., K]`;
/// differentiable. `rows` is the number of categorical variables in all.
///
/// On the CPU one fused pass; the derivative is that of the formula, offset included.
pub fn kl_to_uniform(probs: &Tensor, batch: i64) -> Result<Tensor> {
    let k = rows::classes("kl_to_uniform", probs)?;
    let constant = (probs.numel() as i64 / k) as f64 / batch as f64 * (k as f64).ln();
    if !rows::own_loops(probs) {
        let sum = (probs * (probs + 1e-10).f_log()?).f_sum(probs.kind())?;
        return Ok(sum / batch as f64 + constant);
    }
    let (sum, log) = elbo::negative_entropy(probs)?;
    let q = probs.detach();
    let value = Tensor::f_from_slice(&[sum / batch as f64 + constant])?.f_to_kind(probs.kind())?.f_squeeze()?;
    let mut out = Function::new("KlToUniform").inputs(&[probs]).apply(
        || Ok(vec![value]),
        move |node| {
            let Some(g) = &node.grads()[0] else { return Ok(vec![None]) };
            let g = (g / batch as f64).f_to_kind(Kind::Double)?.double_value(&[]);
            Ok(vec![Some(elbo::entropy_gradient(&q, &log, g)?)])
        },
    )?;
    Ok(out.remove(0))
}
