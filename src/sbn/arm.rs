//! Augment-REINFORCE-merge.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use super::surrogate::{continue_from, gradient_only};
use crate::dist::binary::Shape;
use crate::error::{Error, Result};
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Exact,
    randomness: Randomness::Continuous,
    passes: "L + 1 on average: the layers above, twice, for each layer",
    source: "Yin & Zhou 2019, Alg. 2",
    knobs: &[],
};

/// For each layer, one uniform U a unit gives two states, `x+ = [U > sigmoid(-a)]` and `x- = [U < sigmoid(a)]`, and the
/// gradient `(f(x+) - f(x-)) (U - 1/2)` in the logits a; the chain goes on from `x+`.
///
/// f stands for the layers above with noise of their own, independent for the two. Logistic noise only, as the
/// augmentation is that of a logit; a scale s makes the logit a / s.
#[derive(Debug, Clone, Copy)]
pub struct Arm;

/// From the knobs.
pub fn build(_: &Knobs) -> Result<Arm> {
    Ok(Arm)
}

impl Rule for Arm {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        let law = network.noise();
        if law.shape() != Shape::Logistic {
            return Err(Error::range("noise of a network under arm", "logistic", format!("{:?}", law.shape())));
        }
        let mut x = batch.input.shallow_clone();
        let mut surrogate: Option<Tensor> = None;
        for (k, layer) in network.layers().iter().enumerate() {
            let a = layer.preactivation(&x)?;
            let u = draws.noise("arm")?.uniform(&a.size(), a.kind(), a.device())?;
            let p = law.cdf(&a.detach())?;
            let signs = |up: Tensor| -> Result<Tensor> { Ok(up.f_to_kind(a.kind())? * 2.0 - 1.0) };
            // U > sigmoid(-a) as 1 - U < sigmoid(a)
            let plus = signs((u.f_neg()? + 1.0).f_lt_tensor(&p)?)?;
            let minus = signs(u.f_lt_tensor(&p)?)?;
            let f_plus = continue_from(network, batch, k + 1, &plus, draws)?;
            let f_minus = continue_from(network, batch, k + 1, &minus, draws)?;
            let own = layer.sum_units(&((u - 0.5) / law.scale() * gradient_only(&a)))? * (f_plus - f_minus);
            surrogate = Some(surrogate.map_or(own.shallow_clone(), |sum| sum + own));
            x = plus;
        }
        let scores = network.head().scores(&x)?;
        let f = network.objective().values(&scores, batch.target)?;
        let surrogate = &f + surrogate.expect("a layer was run");
        Ok(Loss { surrogate, value: f.detach(), scores: scores.detach() })
    }
}
