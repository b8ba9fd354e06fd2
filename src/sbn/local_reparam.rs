//! Local reparametrisation.
use super::adf::{Moments, VARIANCE_FLOOR};
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use crate::error::Result;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Relaxed,
    randomness: Randomness::Continuous,
    passes: "1",
    source: "Shekhovtsov, Yanush & Flach 2020, Section C.2; related to PBNET-S of Peters, Genewein & Welling 2019",
    knobs: &["head", "published-head"],
};

/// As [`adf`](super::adf), but pre-activations are sampled from their approximate normal, `a ~ N(W m + b, W^2 v)`, and the
/// probabilities `F(a)` given them are analytic. The first layer's pre-activations have no variance and are not sampled.
#[derive(Debug, Clone, Copy)]
pub struct LocalReparam(Moments);

/// From the knobs.
pub fn build(knobs: &Knobs) -> Result<LocalReparam> {
    Ok(LocalReparam(Moments::new(knobs)?))
}

impl Rule for LocalReparam {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        self.0.loss(network, batch, draws, &|m, v, draws| match v {
            None => Ok(m),
            Some(v) => {
                let normal = draws.noise("local-reparam")?.normal(&m.size(), m.kind(), m.device())?;
                Ok(m + (v + VARIANCE_FLOOR).f_sqrt()? * normal)
            }
        })
    }
}
