//! How good the network is as a predictor: one draw, and the average over draws.
use super::network::Network;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::{Kind, Tensor};

/// Losses and accuracies of each datum, estimated from draws each of which is averaged over the flips of its last states
/// (Lemma B.2), as in the released code. All `[B]`, no graph.
#[derive(Debug)]
pub struct Evaluation {
    /// Expected loss of the randomised predictor, Eq. 15: the SBN objective, nats.
    pub loss: Tensor,
    /// Chance that one draw predicts the class.
    pub accuracy: Tensor,
    /// `-log` of the averaged predictive probability, Eq. 16: the loss of the ensemble, nats.
    pub ensemble_loss: Tensor,
    /// 1 where the ensemble's most probable class is right, else 0.
    pub ensemble_accuracy: Tensor,
    /// Mean entropy of a binary unit, bits.
    pub entropy: f64,
}

impl Network {
    /// Evaluates on a batch with this many draws: 1 for the randomised predictor, 10 for the paper's expected predictor.
    ///
    /// # Errors
    /// As [`Network::loss`]; [`Error::Range`] for less than one draw; [`Error::Usage`] for a custom objective.
    pub fn evaluate(&self, input: &Tensor, target: &Tensor, samples: i64, noise: &mut dyn Noise) -> Result<Evaluation> {
        if samples < 1 {
            return Err(Error::range("draws of an evaluation", "at least 1", samples));
        }
        let _guard = tch::no_grad_guard();
        let classes = self.objective().classes(target)?;
        let mut sums: Option<[Tensor; 3]> = None;
        let mut log_likelihood: Option<Tensor> = None;
        let (mut entropy, mut units) = (0.0, 0);
        for _ in 0..samples {
            let draw = self.sample(input, noise)?;
            for a in &draw.preactivations {
                let p = self.noise().cdf(a)?;
                // -p log p - (1 - p) log (1 - p), both ends 0
                let nats = p.f_special_entr()? + (p.f_neg()? + 1.0).f_special_entr()?;
                entropy += nats.f_sum(Kind::Double)?.f_double_value(&[])? / std::f64::consts::LN_2;
                units += a.numel();
            }
            let x = draw.states.last().expect("a layer");
            let up = self.noise().cdf(draw.preactivations.last().expect("a layer"))?;
            let flips = self.head().flips(x, target, self.objective())?;
            let (rest, each) = self.head().enhanced_weights(x, &up)?;
            let average = |at: &Tensor, flipped: &Tensor| -> Result<Tensor> {
                Ok(at * &rest + (flipped * &each).f_sum_dim_intlist(-1, false, at.kind())?)
            };
            let p = self.objective().probabilities(&flips.scores)?; // [B, C]
            let flipped_p = self.objective().probabilities(&flips.flipped_scores)?; // [B, n, C]
            let right = |p: &Tensor, classes: &Tensor| -> Result<Tensor> {
                Ok(p.f_argmax(-1, false)?.f_eq_tensor(classes)?.f_to_kind(p.kind())?)
            };
            let own = [
                average(&flips.at, &flips.flipped)?,
                average(&right(&p, &classes)?, &right(&flipped_p, &classes.f_unsqueeze(-1)?)?)?,
                p * rest.f_unsqueeze(-1)?
                    + (flipped_p * each.f_unsqueeze(-1)?).f_sum_dim_intlist(-2, false, each.kind())?,
            ];
            // in logarithms, as a loss above 104 has no probability in float32
            let log_p =
                |weight: &Tensor, loss: &Tensor| -> Result<Tensor> { Ok(weight.f_clamp_min(0.0)?.f_log()? - loss) };
            let log_p = [log_p(&rest, &flips.at)?.f_unsqueeze(-1)?, log_p(&each, &flips.flipped)?];
            let own_log = Tensor::f_cat(&log_p, -1)?.f_logsumexp(-1, false)?; // [B]
            log_likelihood = Some(match log_likelihood {
                None => own_log,
                Some(sum) => sum.f_logaddexp(&own_log)?,
            });
            sums = Some(match sums {
                None => own,
                Some([a, b, c]) => [a + &own[0], b + &own[1], c + &own[2]],
            });
        }
        let [loss, accuracy, p] = sums.expect("at least one draw").map(|t| t / samples as f64);
        let log_likelihood = log_likelihood.expect("at least one draw");
        Ok(Evaluation {
            loss,
            accuracy,
            ensemble_loss: log_likelihood.f_neg()? + (samples as f64).ln(),
            ensemble_accuracy: p.f_argmax(-1, false)?.f_eq_tensor(&classes)?.f_to_kind(p.kind())?,
            entropy: entropy / units as f64,
        })
    }
}
