//! How a network does on test images: as a deterministic binary network and as an ensemble of draws.
use crate::args::Config;
use crate::images::{Images, Part};
use crate::network::{Network, Statistics};
use tch::{Kind, Tensor};
use thruway::error::Result;
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::sbn::{Mode, ensemble};

/// Images an evaluation holds at a time.
const CHUNK: i64 = 250;

/// Means over the first n test images.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// All noises 0, normalised by the running statistics of training.
    pub det: f64,
    /// All noises 0, normalised by statistics of its own.
    pub det_refit: f64,
    /// Chance that one draw of weights and states predicts the class.
    pub one: f64,
    /// Accuracy of the average over draws (Eq. 69).
    pub ensemble: f64,
    /// `-log` of the averaged predictive probability, nats.
    pub loss: f64,
}

impl Seen {
    /// Names and values for metrics.jsonl.
    pub fn named(&self) -> Vec<(String, f64)> {
        let values = [
            ("test_accuracy_det", self.det),
            ("test_accuracy_det_refit", self.det_refit),
            ("test_accuracy_1", self.one),
            ("test_accuracy_10", self.ensemble),
            ("test_loss_10", self.loss),
        ];
        values.map(|(name, v)| (name.to_string(), v)).into()
    }
}

/// Measures without changing anything.
pub fn test(network: &Network, images: &Images, config: &Config, n: i64) -> Result<Seen> {
    let _guard = tch::no_grad_guard();
    let mut seen = Seen { det: deterministic(network, &images.test, n)?, ..Seen::default() };
    let n = n.min(images.test.len());
    for from in (0..n).step_by(CHUNK as usize) {
        let (x, y) = images.test.slice(from, CHUNK.min(n - from))?;
        let p = ensemble(config.eval_samples, &mut TorchNoise, |mode| {
            let p = network.forward(&x, mode, Statistics::Running)?.f_softmax(-1, Kind::Float)?;
            seen.one += right(&p, &y)? / (config.eval_samples * n) as f64;
            Ok(p)
        })?;
        seen.ensemble += right(&p, &y)? / n as f64;
        let of_class = p.f_gather(1, &y.f_unsqueeze(1)?, false)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
        seen.loss -= number(&of_class.f_log()?.f_sum(Kind::Double)?) / n as f64;
    }
    let kept: Vec<Tensor> = network.buffers().iter().map(|(_, t)| t.copy()).collect();
    for i in 0..config.refit_batches {
        let from = (i * config.batch_size) % images.train.len();
        let (x, _) = images.train.slice(from, config.batch_size)?;
        // a batch of one has no variance of its own where one place is left
        if x.size()[0] > 1 {
            let momentum = 1.0 / (i + 1) as f64; // the plain mean over batches
            let _scores = network.forward(&x, &mut Mode::Deterministic, Statistics::Batch { momentum })?;
        }
    }
    seen.det_refit = deterministic(network, &images.test, n)?;
    for ((_, t), kept) in network.buffers().into_iter().zip(&kept) {
        t.shallow_clone().f_copy_(kept)?;
    }
    Ok(seen)
}

fn deterministic(network: &Network, part: &Part, n: i64) -> Result<f64> {
    let n = n.min(part.len());
    let mut sum = 0.0;
    for from in (0..n).step_by(CHUNK as usize) {
        let (x, y) = part.slice(from, CHUNK.min(n - from))?;
        sum += right(&network.forward(&x, &mut Mode::Deterministic, Statistics::Running)?, &y)?;
    }
    Ok(sum / n as f64)
}

/// How many scores have their largest at the class.
pub fn right(scores: &Tensor, classes: &Tensor) -> Result<f64> {
    Ok(number(&scores.f_argmax(-1, false)?.f_eq_tensor(classes)?.f_sum(Kind::Double)?))
}
