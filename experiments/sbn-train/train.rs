//! Training.
use crate::args::{Args, Baseline, Config, Lr};
use crate::images::{Batch, Images};
use crate::measure::{self, Seen};
use crate::network;
use crate::search::{Search, Trial};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use thruway::error::{Error, Result};
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::optim::{Sgd, sgd::Settings};
use thruway::run::{Checkpoint, Run, seeding, seeding::SideStream};
use thruway::sbn::{self, Draws, Ewa, Network, Rule};

/// Rows of the summary's history, beside the last one, at most.
const ROWS: usize = 50;

/// A network under training.
pub struct Learner<'a> {
    network: &'a Network,
    method: &'a dyn Rule,
    optimizer: Sgd,
    /// Of the method's baseline, where it has one: an average for each image.
    baseline: Option<Ewa>,
    clamp: Option<f64>,
}

impl<'a> Learner<'a> {
    /// At rest, for `n` training images.
    pub fn new(
        config: &Config,
        network: &'a Network,
        method: &'a dyn Rule,
        lr: f64,
        n: i64,
        device: Device,
    ) -> Result<Self> {
        let settings = Settings { momentum: config.momentum, ..Settings::nesterov(lr) };
        let optimizer = Sgd::new(settings, network.params().iter())?;
        let ewa = |Baseline::Ewa| Ewa::new(n, 0.9, Kind::Float, device);
        let baseline = config.baseline.map(ewa).transpose()?;
        Ok(Learner { network, method, optimizer, baseline, clamp: config.grad_clamp })
    }

    /// One step along the method's estimate; the method's own objective of each image before it, `[B]`.
    pub fn step(&mut self, batch: &Batch) -> Result<Tensor> {
        self.timed_step(batch, &mut [0.0; 3], &|| ())
    }

    /// [`Learner::step`], which adds the seconds of its forward pass, backward pass and update to `times`; `wait` waits for
    /// the device.
    pub fn timed_step(&mut self, batch: &Batch, times: &mut [f64; 3], wait: &dyn Fn()) -> Result<Tensor> {
        let mut mark = Instant::now();
        let mut lap = |part: usize| {
            wait();
            times[part] += std::mem::replace(&mut mark, Instant::now()).elapsed().as_secs_f64();
        };
        let known = self.baseline.as_ref().map(|b| b.get(&batch.rows)).transpose()?;
        let given = sbn::Batch { input: &batch.images, target: &batch.labels, baseline: known.as_ref() };
        let loss = self.network.run(&given, self.method, &mut Draws::random(&mut TorchNoise))?;
        if let Some(baseline) = &mut self.baseline {
            baseline.update(&batch.rows, &loss.value)?;
        }
        lap(0);
        self.optimizer.zero_grad();
        loss.surrogate.f_mean(loss.surrogate.kind())?.f_backward()?;
        lap(1);
        if let Some(most) = self.clamp {
            let _guard = tch::no_grad_guard();
            for (_, p) in self.network.params().iter().filter(|(_, p)| p.grad().defined()) {
                let _ = p.grad().f_clamp_(-most, most)?;
            }
        }
        self.optimizer.step()?;
        lap(2);
        Ok(loss.value)
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut all: Vec<_> = self.optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)).collect();
        all.extend(self.baseline.iter().map(|b| ("baseline".to_string(), b.state().shallow_clone())));
        all
    }

    fn restore(&mut self, saved: &Checkpoint) -> Result<()> {
        self.optimizer.restore(|n| saved.tensor(&format!("optimizer.{n}")).ok().map(Tensor::shallow_clone))?;
        match &mut self.baseline {
            Some(baseline) => baseline.restore(saved.tensor("baseline")?),
            None => Ok(()),
        }
    }
}

/// A mean in the making.
#[derive(Debug, Default, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then_some(self.sum / self.weight)
    }
}

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    epoch: i64,
    batch: i64,
    /// Over the steps of this epoch: the method's own objective.
    own: Mean,
    /// Over the log points of this epoch: the SBN objective of the batch.
    sbn: Mean,
    trials: Vec<Trial>,
    /// Once it is known.
    lr: Option<f64>,
    /// A row an evaluation.
    history: Vec<Map<String, Value>>,
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let (config, knobs) = Config::new(&args)?;
    let device = args.run.prepare()?;
    let images = Images::load(args.dataset, &config, device)?;
    let method = config.estimator.build(&knobs)?;
    let network = network::new(config.channels, device)?;
    let mut recorded = serde_json::to_value(&config)?;
    recorded["dataset"] = serde_json::to_value(images.variant)?;
    recorded["train_size"] = images.train.len().into();
    let default_out: PathBuf =
        ["runs", "sbn-train", &config.estimator.name(), &args.run.seed.to_string()].iter().collect();
    let (mut run, saved) = Run::open("sbn-train", &args.run, default_out, recorded)?;

    let mut at = Progress::default();
    let mut order = Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?;
    match &saved {
        Some(c) => {
            network.params().load(|n| c.tensor(&format!("model.{n}")).ok().map(Tensor::shallow_clone))?;
            order = c.tensor("order")?.shallow_clone();
            at = run.state(c)?;
            seeding::restore(device, c)?;
        }
        None => {
            let first = images.train.slice(0, config.batch_size)?.0;
            network.whiten(&config.augment.apply(&first, &mut TorchNoise)?, config.carrier)?;
            // so that a run killed in its first seconds resumes like any other
            run.save(0, 0, &at.checkpoint(&network, None, &order, device)?)?;
        }
    }
    let begun = at.lr.is_some();
    let lr = match (at.lr, config.lr) {
        (Some(lr), _) | (None, Lr::Fixed(lr)) => lr,
        (None, Lr::Auto) => {
            run.pause();
            let (seed, method) = (args.run.seed, &*method);
            let search = Search { config: &config, network: &network, method, images: &images, seed, device };
            let mut trials = std::mem::take(&mut at.trials);
            let lr = search.run(&mut trials, |made| {
                at.trials = made.to_vec();
                if let Some(t) = made.last() {
                    let judged = t.objective.map_or("diverged".into(), |o| format!("objective {o:.4}"));
                    run.say(&format!("learning rate, trial {}: {:.3e}, {judged}", made.len(), t.lr));
                }
                run.save(0, 0, &at.checkpoint(&network, None, &order, device)?)
            })?;
            run.say(&format!("learning rate: {lr:.3e}"));
            run.resume_clock();
            lr
        }
    };
    at.lr = Some(lr);
    let mut learner = Learner::new(&config, &network, &*method, lr, images.train.len(), device)?;
    if let Some(c) = saved.as_ref().filter(|_| begun) {
        learner.restore(c)?;
    }
    drop(saved);

    let n = images.train.len();
    let batches = (n + config.batch_size - 1) / config.batch_size;
    let by_epochs = config.epochs.map(|e| e.saturating_mul(batches));
    let last_step = [by_epochs, config.steps].into_iter().flatten().min().expect("the configuration sets one of them");
    run.expect_steps(last_step);
    let evaluation = SideStream::new(device, args.run.seed, "evaluation");
    let measurement = SideStream::new(device, args.run.seed, "measurement");
    let evaluate = |at: &mut Progress, run: &mut Run, epoch: i64, train: Vec<(String, f64)>| -> Result<()> {
        run.pause();
        let seen = evaluation.at(at.step, || measure::part(&network, &*method, &images.valid, config.eval_samples))?;
        let all: Vec<(String, f64)> = train.into_iter().chain(seen.named("valid_")).collect();
        run.log(at.step, epoch, &all.iter().map(|(n, v)| (n.as_str(), *v)).collect::<Vec<_>>())?;
        at.history.push(row(epoch, at.step, &all));
        run.resume_clock();
        Ok(())
    };
    if at.step == 0 && args.run.eval_every > 0 {
        evaluate(&mut at, &mut run, 0, vec![])?;
    }

    while at.step < last_step {
        if at.batch == 0 {
            order = seeding::shuffle(n)?;
        }
        let batch = images.train.batch(&order, at.batch, &config, &mut TorchNoise)?;
        let log = (at.step + 1) % args.run.log_every == 0;
        let mut measured: Option<Seen> = None;
        if log {
            run.pause();
            let seen = measurement.at(at.step, || {
                measure::batch(&network, &*method, &batch.images, &batch.labels, config.eval_samples)
            })?;
            at.sbn.add(seen.sbn, 1.0);
            measured = Some(seen);
            run.resume_clock();
        }
        let loss = number(&learner.step(&batch)?.f_mean(Kind::Double)?);
        at.step += 1;
        at.batch += 1;
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        at.own.add(loss, batch.rows.size()[0] as f64);
        run.step_done(at.step, loss);
        if let Some(seen) = measured {
            let mut metrics = vec![("loss".to_string(), loss)];
            metrics.extend(seen.named("batch_").into_iter().filter(|(name, _)| name != "batch_loss"));
            run.log(at.step, at.epoch + 1, &metrics.iter().map(|(n, v)| (n.as_str(), *v)).collect::<Vec<_>>())?;
        }
        let end_of_epoch = at.batch == batches;
        if end_of_epoch || at.step == last_step {
            let means = [("train_loss", at.own.value()), ("train_sbn_loss", at.sbn.value())];
            let train: Vec<(String, f64)> = means.into_iter().filter_map(|(n, v)| Some((n.to_string(), v?))).collect();
            if end_of_epoch {
                (at.batch, at.epoch) = (0, at.epoch + 1);
                (at.own, at.sbn) = Default::default();
            }
            let epoch = at.epoch + i64::from(!end_of_epoch);
            let every = args.run.eval_every;
            if at.step == last_step || (every > 0 && at.epoch % every == 0) {
                evaluate(&mut at, &mut run, epoch, train)?;
            } else {
                run.log(at.step, epoch, &train.iter().map(|(n, v)| (n.as_str(), *v)).collect::<Vec<_>>())?;
            }
        }
        if at.step < last_step && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &at.checkpoint(&network, Some(&learner), &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &at.checkpoint(&network, Some(&learner), &order, device)?)?;
    let mut metrics = Map::new();
    metrics.insert("lr".into(), lr.into());
    for (name, value) in
        at.history.last().into_iter().flatten().filter(|(n, _)| !["epoch", "step"].contains(&n.as_str()))
    {
        metrics.insert(name.clone(), value.clone());
    }
    metrics.insert("history".into(), thin(&at.history).into());
    if !at.trials.is_empty() {
        metrics.insert("lr_search".into(), serde_json::to_value(&at.trials)?);
    }
    run.finish(at.step, at.epoch, metrics)?;
    Ok(())
}

/// An evaluation as a row of the summary's history.
fn row(epoch: i64, step: i64, values: &[(String, f64)]) -> Map<String, Value> {
    let named = values.iter().map(|(name, v)| (name.clone(), Value::from(*v)));
    [("epoch".to_string(), epoch.into()), ("step".to_string(), step.into())].into_iter().chain(named).collect()
}

/// Rows evenly spread, the first and the last among them.
fn thin(rows: &[Map<String, Value>]) -> Vec<Value> {
    let stride = rows.len().div_ceil(ROWS).max(1);
    let kept = rows.iter().enumerate().filter(|(i, _)| i % stride == 0 || i + 1 == rows.len());
    kept.map(|(_, row)| Value::Object(row.clone())).collect()
}

impl Progress {
    /// All that a resumed run needs: parameters after `model.`, momentum, baselines, generators, data order.
    fn checkpoint(
        &self,
        network: &Network,
        learner: Option<&Learner>,
        order: &Tensor,
        device: Device,
    ) -> Result<Checkpoint> {
        let mut tensors: Vec<(String, Tensor)> =
            network.params().iter().map(|(n, t)| (format!("model.{n}"), t.detach())).collect();
        tensors.extend(learner.iter().flat_map(|l| l.state()));
        tensors.push(("order".into(), order.shallow_clone()));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
