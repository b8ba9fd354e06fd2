//! Assumed density filtering.
use super::draws::Draws;
use super::head::HeadGradient;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::surrogate::gradient_only;
use crate::error::Result;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Relaxed,
    randomness: Randomness::LastStates,
    passes: "1",
    source: "Shekhovtsov & Flach 2018, AP2; Shekhovtsov, Yanush & Flach 2020, Section C.2",
    knobs: &["head", "published-head"],
};

/// Means and variances of the states, propagated analytically as if all units of a layer were independent.
///
/// A layer's pre-activation has mean `W m + b` and variance `W^2 v`; a - Z is taken to have the noise's own shape, so that
/// `P(x = 1) = F(mean sqrt(V / (V + variance)))`, V the noise's variance (for logistic noise the logistic cdf of matching
/// variance), and the state mean `2P - 1` and variance `4 P (1 - P)`. The input has variance 0.
///
/// As in the paper's text the states of the last binary layer are sampled from their marginals; as these are independent the
/// gradient in P is that of Lemma B.1, unbiased for the relaxed objective.
///
/// - **Differs** from the released code, where the class scores themselves go through a binary unit and a normal with mean
///   2P - 1 and variance 4 P (1 - P) is taken for the score vector, which confines scores to about [-1, 1]:
///   `--published-head`.
#[derive(Debug, Clone, Copy)]
pub struct Adf(pub(super) Moments);

/// From the knobs.
pub fn build(knobs: &Knobs) -> Result<Adf> {
    Ok(Adf(Moments::new(knobs)?))
}

impl Rule for Adf {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        let big_v = network.noise().variance();
        self.0.loss(network, batch, draws, &|m, v, _| match v {
            // P's argument is the mean itself where there is no variance
            None => Ok(m),
            Some(v) => Ok(m * ((v + big_v).f_reciprocal()? * big_v).f_sqrt()?),
        })
    }
}

/// From mean, variance (None: 0) and the draws to the argument of F in a unit.
pub(super) type Unit<'a> = &'a dyn Fn(Tensor, Option<Tensor>, &mut Draws) -> Result<Tensor>;

/// What [`adf`](super::adf) and [`local_reparam`](super::local_reparam) share: moments through layers, and the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    head: HeadGradient,
    published_head: bool,
}

impl Moments {
    pub(super) fn new(knobs: &Knobs) -> Result<Self> {
        Ok(Moments { head: knobs.head.unwrap_or_default(), published_head: knobs.released_head()? })
    }

    pub(super) fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws, unit: Unit) -> Result<Loss> {
        let noise = network.noise();
        let (mut mean, mut variance) = (batch.input.shallow_clone(), None);
        let mut p = mean.shallow_clone();
        for layer in network.layers() {
            let fold = layer.fold()?;
            let m = fold.apply(&mean)?;
            let v = variance.as_ref().map(|v| fold.apply_squared(v)).transpose()?;
            p = noise.cdf(&unit(m, v, draws)?)?;
            mean = &p * 2.0 - 1.0;
            variance = Some(&p * (p.f_neg()? + 1.0) * 4.0);
        }
        if self.published_head {
            let (m, v) = network.head().moments(&mean, &variance.expect("a layer was run"))?;
            let p = noise.cdf(&unit(m, Some(v), draws)?)?;
            let normal = draws.noise("--published-head")?.normal(&p.size(), p.kind(), p.device())?;
            // the derivative of the root at 0 would be infinite
            let std = (&p * (p.f_neg()? + 1.0) * 4.0 + VARIANCE_FLOOR).f_sqrt()?;
            let scores = p * 2.0 - 1.0 + std * normal;
            let surrogate = network.objective().values(&scores, batch.target)?;
            return Ok(Loss { value: surrogate.detach(), surrogate, scores: scores.detach() });
        }
        let x = draws.states_from(network.layers().len() - 1, noise, &p)?;
        let q = gradient_only(&(&x * &p));
        let (scores, e) = network.head().psa(&x, &q, &p, batch.target, network.objective(), self.head)?;
        Ok(Loss { value: e.detach(), surrogate: e, scores })
    }
}

/// Added under a root (the released code's value).
pub(super) const VARIANCE_FLOOR: f64 = 1e-16;
