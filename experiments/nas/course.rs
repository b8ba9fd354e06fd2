//! The way through the epochs, which a search on images and the training of one cell share: shuffled images, the log, checkpoints,
//! the end. And what both sum up on it.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ops::AddAssign;
use tch::{Device, Kind, Reduction, Tensor};
use thruway::error::{Error, Result};
use thruway::nn::loss::number;
use thruway::run::{Checkpoint, Run, RunArgs, seeding};

/// How long it is.
pub struct Length {
    pub images: i64,
    pub batch_size: i64,
    pub epochs: i64,
    /// Steps at most.
    pub steps: Option<i64>,
}

/// What is done on the way.
pub trait Work {
    /// Name of a step's loss in the log.
    const LOSS: &'static str;

    /// One step on these training images (int64 `[n]`) in an epoch, from 0; its loss.
    fn step(&mut self, epoch: i64, rows: &Tensor) -> Result<f64>;

    /// Figures since the last close, after so many whole epochs; with `evaluate`, of a measurement too.
    fn close(&mut self, epochs: i64, evaluate: bool, run: &Run) -> Result<Vec<(String, f64)>>;

    /// The final metrics.
    fn finals(&self) -> Result<Map<String, Value>>;

    /// All that a resumed run needs of it, but for the generators.
    fn save(&self) -> Result<Checkpoint>;

    /// Takes what [`Work::save`] gave.
    fn restore(&mut self, saved: Checkpoint) -> Result<()>;
}

/// Where a run stands between two steps.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Position {
    step: i64,
    /// Whole epochs.
    epoch: i64,
    /// Batches since.
    batch: i64,
}

/// The state of a checkpoint.
#[derive(Serialize, Deserialize)]
struct Kept {
    position: Position,
    /// What the work itself keeps.
    work: Value,
}

/// Goes all the way, or on from a checkpoint.
pub fn go<W: Work>(
    mut run: Run,
    args: &RunArgs,
    device: Device,
    length: &Length,
    checkpoint: Option<Checkpoint>,
    work: &mut W,
) -> Result<()> {
    let batches = (length.images + length.batch_size - 1) / length.batch_size;
    let last_step = length.steps.unwrap_or(i64::MAX).min(length.epochs * batches);
    run.expect_steps(last_step);
    let mut at = Position::default();
    let mut order = Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?;
    if let Some(mut c) = checkpoint {
        order = c.tensor("order")?.shallow_clone();
        let kept: Kept = run.state(&c)?;
        at = kept.position;
        seeding::restore(device, &c)?;
        c.state = kept.work;
        work.restore(c)?;
    }
    while at.step < last_step {
        if at.batch == 0 {
            order = seeding::shuffle(length.images)?;
        }
        let from = at.batch * length.batch_size;
        let rows = order.f_narrow(0, from, length.batch_size.min(length.images - from))?;
        let loss = work.step(at.epoch, &rows)?;
        at.step += 1;
        at.batch += 1;
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        run.step_done(at.step, loss);
        if at.step % args.log_every == 0 {
            run.log(at.step, at.epoch + 1, &[(W::LOSS, loss)])?;
        }
        if at.batch == batches || at.step == last_step {
            run.pause();
            at.epoch += i64::from(at.batch == batches);
            at.batch %= batches;
            let evaluate = at.step == last_step || (args.eval_every > 0 && at.epoch % args.eval_every == 0);
            let metrics = work.close(at.epoch, evaluate, &run)?;
            let line: Vec<(&str, f64)> = metrics.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            run.log(at.step, at.epoch, &line)?;
            run.resume_clock();
        }
        if at.step < last_step && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &checkpoint_of(work, at, &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &checkpoint_of(work, at, &order, device)?)?;
    run.finish(at.step, at.epoch, work.finals()?)?;
    Ok(())
}

fn checkpoint_of(work: &impl Work, at: Position, order: &Tensor, device: Device) -> Result<Checkpoint> {
    let Checkpoint { mut tensors, state } = work.save()?;
    tensors.push(("order".into(), order.shallow_clone()));
    let state = serde_json::to_value(Kept { position: at, work: state })?;
    let mut checkpoint = Checkpoint { tensors, state };
    seeding::capture(device, &mut checkpoint)?;
    Ok(checkpoint)
}

/// Sums over the images of some batches.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Tally {
    loss: f64,
    right: f64,
    images: f64,
}

impl Tally {
    /// Of one batch: its mean loss, scores `[B, classes]` and classes `[B]`.
    pub fn of(loss: &Tensor, scores: &Tensor, labels: &Tensor) -> Result<Tally> {
        let images = labels.size()[0] as f64;
        let right = number(&scores.f_argmax(-1, false)?.f_eq_tensor(labels)?.f_sum(Kind::Int64)?);
        Ok(Tally { loss: number(loss) * images, right, images })
    }

    /// Mean loss, nats.
    pub fn loss(&self) -> f64 {
        self.loss / self.images
    }

    /// Percent.
    pub fn accuracy(&self) -> f64 {
        100.0 * self.right / self.images
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.loss += other.loss;
        self.right += other.right;
        self.images += other.images;
    }
}

/// Cross-entropy, mean over the batch.
pub fn cross_entropy(scores: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(scores.f_cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
}
