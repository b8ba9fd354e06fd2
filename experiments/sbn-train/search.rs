//! The search for a learning rate of Appendix C.2: short trainings from the same start, and Brent's method on log10 of the
//! rate.
use crate::args::{Config, LrObjective};
use crate::images::Images;
use crate::train::Learner;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use thruway::error::{Error, Result};
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::optim::minimize_bounded;
use thruway::run::{interrupted, seeding, seeding::SideStream};
use thruway::sbn::{Network, Rule};

/// Of log10 of the rate (C.2).
const BOUNDS: (f64, f64) = (-6.0, 0.0);
/// Of log10 of the rate (SciPy's default).
const TOLERANCE: f64 = 1e-5;
/// A loss beyond this is a divergence (the released code's).
const DIVERGED: f64 = 1e10;

/// One training of the search.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    pub log10_lr: f64,
    pub lr: f64,
    /// What it was judged by; none where it diverged.
    pub objective: Option<f64>,
}

/// What every trial shares.
pub struct Search<'a> {
    pub config: &'a Config,
    pub network: &'a Network,
    pub method: &'a dyn Rule,
    pub images: &'a Images,
    pub seed: i64,
    pub device: Device,
}

impl Search<'_> {
    /// The best rate. Trials already made, in their order, are taken from `trials`; a new one is added there, then `made` is
    /// called with all of them. Parameters and generators are as before when it returns, whatever the end.
    ///
    /// # Errors
    /// [`Error::Interrupted`] within a trial, which then counts as not made; [`Error::Usage`] if every rate diverged; those
    /// of the training and of `made`.
    pub fn run(&self, trials: &mut Vec<Trial>, mut made: impl FnMut(&[Trial]) -> Result<()>) -> Result<f64> {
        let start: Vec<Tensor> = self.network.params().iter().map(|(_, p)| p.detach().copy()).collect();
        let mut asked = 0;
        let count = self.config.lr_trials.unwrap_or(10) as usize;
        let found = minimize_bounded(BOUNDS, count, TOLERANCE, |log10_lr| {
            if asked == trials.len() {
                let lr = 10f64.powf(log10_lr);
                // one stream for all, so that they differ in the rate alone
                let objective = SideStream::new(self.device, self.seed, "learning-rate trial").at(0, || self.train(lr));
                self.put_back(&start)?;
                trials.push(Trial { log10_lr, lr, objective: objective? });
                made(trials)?;
            }
            asked += 1;
            Ok(trials[asked - 1].objective.unwrap_or(f64::INFINITY))
        })?;
        if found.value.is_infinite() {
            let why = "every learning rate that the search tried diverged: give --lr, below 1e-6 if need be";
            return Err(Error::Usage(why.into()));
        }
        Ok(10f64.powf(found.x))
    }

    fn put_back(&self, start: &[Tensor]) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut pairs = self.network.params().iter().zip(start);
        pairs.try_for_each(|((_, p), saved)| Ok(p.shallow_clone().f_copy_(saved).map(drop)?))
    }

    /// A short training; what it is judged by, or `None` where it diverged.
    fn train(&self, lr: f64) -> Result<Option<f64>> {
        let train = &self.images.train;
        let mut learner = Learner::new(self.config, self.network, self.method, lr, train.len(), self.device)?;
        let batches = (train.len() + self.config.batch_size - 1) / self.config.batch_size;
        let steps = (self.config.lr_epochs.unwrap_or(5) * batches).min(self.config.lr_steps.unwrap_or(i64::MAX));
        let mut judge = Judge::new(train.len(), self.device)?;
        let mut order = Tensor::new();
        for step in 0..steps {
            if interrupted() {
                return Err(Error::Interrupted);
            }
            if step % batches == 0 {
                order = seeding::shuffle(train.len())?;
            }
            let batch = train.batch(&order, step % batches, self.config, &mut TorchNoise)?;
            let losses = learner.step(&batch)?;
            if !judge.take(&batch.rows, &losses)? {
                return Ok(None);
            }
        }
        Ok(Some(match self.config.lr_objective.unwrap_or(LrObjective::Ewa) {
            LrObjective::Ewa => judge.average,
            LrObjective::Last => judge.last()?,
        }))
    }
}

/// Both judgements of a training, from the losses of its batches.
struct Judge {
    average: f64,
    batches: i64,
    /// The most recent loss of each image, NaN for those not seen.
    recent: Tensor,
}

impl Judge {
    fn new(n: i64, device: Device) -> Result<Self> {
        let recent = Tensor::f_full([n], f64::NAN, (Kind::Float, device))?;
        Ok(Judge { average: 0.0, batches: 0, recent })
    }

    /// Takes in a batch; false where the loss has diverged.
    fn take(&mut self, rows: &Tensor, losses: &Tensor) -> Result<bool> {
        let _ = self.recent.f_index_copy_(0, rows, &losses.f_to_kind(Kind::Float)?)?;
        let loss = number(&losses.f_mean(Kind::Double)?);
        self.average = ewa(self.average, loss, self.batches);
        self.batches += 1;
        Ok(loss.is_finite() && loss.abs() <= DIVERGED)
    }

    fn last(&self) -> Result<f64> {
        Ok(number(&self.recent.f_nanmean([0i64].as_slice(), false, Kind::Double)?))
    }
}

/// The average after one more loss, `n` having been averaged: the weight of the past halves every `(n + 1) / 10` batches,
/// at least 1 and at most 100. The paper does not give its rate; this is how the released code smooths its plots.
fn ewa(average: f64, loss: f64, n: i64) -> f64 {
    let keep = if n == 0 { 0.0 } else { 0.5f64.powf(1.0 / ((n + 1) as f64 / 10.0).clamp(1.0, 100.0)) };
    keep * average + (1.0 - keep) * loss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_forgets_by_its_rule() {
        let mut average = 0.0;
        (0..5).for_each(|n| average = ewa(average, 3.0, n));
        assert_eq!(average, 3.0, "of a constant: the constant");
        // from the 20th batch on, the past halves in two to three batches
        let (mut slow, mut n) = (1.0, 20);
        while slow > 0.5 {
            slow = ewa(slow, 0.0, n);
            n += 1;
        }
        assert_eq!(n - 20, 3);
        assert_eq!(ewa(1.0, 0.0, 1_000_000), 0.5f64.powf(0.01));
    }

    #[test]
    fn both_judgements_follow_the_losses() {
        let mut judge = Judge::new(4, Device::Cpu).unwrap();
        let rows = |r: &[i64]| Tensor::from_slice(r);
        assert!(judge.take(&rows(&[0, 2]), &Tensor::from_slice(&[1f32, 3.0])).unwrap());
        assert_eq!((judge.average, judge.last().unwrap()), (2.0, 2.0));
        assert!(judge.take(&rows(&[2, 1]), &Tensor::from_slice(&[5f32, 9.0])).unwrap());
        assert_eq!((judge.average, judge.last().unwrap()), (4.5, 5.0), "0.5 * 2 + 0.5 * 7; (1 + 5 + 9) / 3");
        assert!(!judge.take(&rows(&[0]), &Tensor::from_slice(&[f32::NAN])).unwrap());
        assert!(!judge.take(&rows(&[0]), &Tensor::from_slice(&[2e10f32])).unwrap());
    }
}
