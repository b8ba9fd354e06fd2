//! The Concrete relaxation.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::surrogate::deterministic_loss;
use crate::error::Result;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Relaxed,
    randomness: Randomness::Continuous,
    passes: "1",
    source: "Maddison, Mnih & Teh 2017; Jang, Gu & Poole 2017",
    knobs: &["tau"],
};

/// States relaxed to `2 sigmoid((a - Z) / tau) - 1` with the network's own noise Z, differentiated along the sample.
///
/// With logistic noise of scale 1 this is the Concrete distribution at temperature tau, on ±1. The released code has
/// tau = 0.1 and 1 on the small problem; on CIFAR `tanh((a - Z) / T)` at T = 1, which is tau = 0.5 here.
#[derive(Debug, Clone, Copy)]
pub struct Concrete {
    tau: f64,
}

/// From the knobs; tau is 1 by default.
pub fn build(knobs: &Knobs) -> Result<Concrete> {
    Ok(Concrete { tau: Knobs::positive("--tau", knobs.tau, 1.0)? })
}

impl Rule for Concrete {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        let noise = draws.noise("concrete")?;
        deterministic_loss(network, batch, &mut |_, a| {
            let z = network.noise().sample(&a.size(), a.kind(), a.device(), noise)?;
            Ok(((a - z) / self.tau).f_sigmoid()? * 2.0 - 1.0)
        })
    }
}
