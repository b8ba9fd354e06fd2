//! How a network does: the SBN objective and accuracies, beside the method's own objective.
use crate::images::Part;
use tch::{Kind, Tensor};
use thruway::error::Result;
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::sbn::{Network, Rule};

/// Images an evaluation holds at a time (the released code's).
const CHUNK: i64 = 128;

/// Means over images.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The method's own objective, nats.
    pub own: f64,
    /// The SBN objective: expected loss of one draw, nats.
    pub sbn: f64,
    /// Chance that one draw predicts the class.
    pub accuracy_1: f64,
    /// `-log` of the averaged predictive probability, nats.
    pub ensemble: f64,
    /// Accuracy of the average over draws.
    pub accuracy_10: f64,
    /// Mean entropy of a unit, bits.
    pub entropy: f64,
}

impl Seen {
    /// Names and values for metrics.jsonl, the names after `prefix`.
    pub fn named(&self, prefix: &str) -> Vec<(String, f64)> {
        let values = [
            ("loss", self.own),
            ("sbn_loss", self.sbn),
            ("ensemble_loss", self.ensemble),
            ("accuracy_1", self.accuracy_1),
            ("accuracy_10", self.accuracy_10),
            ("entropy_bits", self.entropy),
        ];
        values.map(|(name, v)| (format!("{prefix}{name}"), v)).into()
    }
}

/// Measures a set of images without changing them.
pub fn part(network: &Network, method: &dyn Rule, part: &Part, samples: i64) -> Result<Seen> {
    let mut sum = Seen::default();
    for from in (0..part.len()).step_by(CHUNK as usize) {
        let (images, labels) = part.slice(from, CHUNK)?;
        add(&mut sum, network, method, &images, &labels, samples)?;
    }
    Ok(sum.over(part.len()))
}

/// Measures one batch.
pub fn batch(network: &Network, method: &dyn Rule, images: &Tensor, labels: &Tensor, samples: i64) -> Result<Seen> {
    let mut sum = Seen::default();
    add(&mut sum, network, method, images, labels, samples)?;
    Ok(sum.over(images.size()[0]))
}

fn add(
    sum: &mut Seen,
    network: &Network,
    method: &dyn Rule,
    images: &Tensor,
    labels: &Tensor,
    samples: i64,
) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let total = |t: &Tensor| -> Result<f64> { Ok(number(&t.f_sum(Kind::Double)?)) };
    sum.own += total(&network.loss(images, labels, method, &mut TorchNoise)?.value)?;
    let e = network.evaluate(images, labels, samples, &mut TorchNoise)?;
    sum.sbn += total(&e.loss)?;
    sum.accuracy_1 += total(&e.accuracy)?;
    sum.ensemble += total(&e.ensemble_loss)?;
    sum.accuracy_10 += total(&e.ensemble_accuracy)?;
    sum.entropy += e.entropy * images.size()[0] as f64;
    Ok(())
}

impl Seen {
    fn over(mut self, n: i64) -> Self {
        let values = [
            &mut self.own,
            &mut self.sbn,
            &mut self.accuracy_1,
            &mut self.ensemble,
            &mut self.accuracy_10,
            &mut self.entropy,
        ];
        values.into_iter().for_each(|v| *v /= n as f64);
        self
    }
}
