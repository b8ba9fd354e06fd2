//! Training.
use crate::args::{Args, Config};
use crate::images::Images;
use crate::measure;
use crate::network::{Network, Statistics};
use serde_json::{Map, Value};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
use thruway::error::{Error, Result};
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Method, Settings};
use thruway::run::{Checkpoint, Run, seeding, seeding::SideStream};
use thruway::sbn::Mode;

/// Rows of the summary's history, beside the last one, at most.
const ROWS: usize = 50;

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    epoch: i64,
    batch: i64,
    /// Over the steps of this epoch: sums of losses and of right predictions, and images.
    loss: f64,
    right: f64,
    images: f64,
    /// A row an evaluation.
    history: Vec<Map<String, Value>>,
}

/// The rate of a step (from 0): a tenth after three fifths of the run, a hundredth after four fifths.
pub fn rate(lr: f64, step: i64, last: i64) -> f64 {
    [3, 4].iter().fold(lr, |lr, part| if 5 * step >= part * last { lr / 10.0 } else { lr })
}

/// Refuses batches of one image: normalisation takes N / (N - 1) times their variance, and the running statistics become NaN.
fn check_batches(images: i64, batch: i64) -> Result<()> {
    let remedy = match (batch, images) {
        (1, _) => "give at least 2".to_string(),
        (_, 1) => "give --train-size 2 or more".to_string(),
        (_, n) if n % batch == 1 => format!("give --train-size {}, or another --batch-size", n - 1),
        _ => return Ok(()),
    };
    let rule = "such that no batch is of a single image, which has no variance to normalise by";
    Err(Error::range("--batch-size", rule, format!("{batch} for {images} training images: {remedy}")))
}

/// One step on one draw of weights and states; the mean loss and the number of right predictions.
fn learn(network: &Network, adam: &mut Adam, images: &Tensor, classes: &Tensor) -> Result<(f64, f64)> {
    let scores = network.forward(images, &mut Mode::Sampled(&mut TorchNoise), Statistics::TRAINING)?;
    let loss = scores.f_cross_entropy_loss(classes, None::<&Tensor>, tch::Reduction::Mean, -100, 0.0)?;
    adam.zero_grad();
    loss.f_backward()?;
    adam.step()?;
    Ok((number(&loss.detach().f_to_kind(Kind::Double)?), measure::right(&scores, classes)?))
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let config = Config::new(&args)?;
    let device = args.run.prepare()?;
    let images = Images::load(args.dataset, &config, device)?;
    check_batches(images.train.len(), config.batch_size)?;
    let network = Network::new(&config, device)?;
    let mut adam = Adam::new(Method::Adam, Settings { lr: config.lr, ..Settings::default() }, network.params().iter())?;
    let mut recorded = serde_json::to_value(&config)?;
    recorded["dataset"] = serde_json::to_value(images.variant)?;
    recorded["train_size"] = images.train.len().into();
    recorded["test_size"] = images.test.len().into();
    let noise = recorded["noise"].as_str().unwrap_or_default().to_string();
    let default_out: PathBuf = ["runs", "bnn", &noise, &args.run.seed.to_string()].iter().collect();
    let (mut run, saved) = Run::open("bnn", &args.run, default_out, recorded)?;

    let mut at = Progress::default();
    let mut order = Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?;
    match &saved {
        Some(c) => {
            let of = |n: &str| c.tensor(&format!("model.{n}")).ok().map(Tensor::shallow_clone);
            network.params().load(of)?;
            for (name, t) in network.buffers() {
                t.shallow_clone().f_copy_(c.tensor(&format!("model.{name}"))?)?;
            }
            adam.restore(|n| c.tensor(&format!("optimizer.{n}")).ok().map(Tensor::shallow_clone))?;
            order = c.tensor("order")?.shallow_clone();
            at = run.state(c)?;
            seeding::restore(device, c)?;
        }
        // so that a run killed in its first seconds resumes like any other
        None => run.save(0, 0, &at.checkpoint(&network, &adam, &order, device)?)?,
    }
    drop(saved);

    let n = images.train.len();
    let batches = (n + config.batch_size - 1) / config.batch_size;
    let by_epochs = config.epochs.map(|e| e.saturating_mul(batches));
    let last_step = [by_epochs, config.steps].into_iter().flatten().min().expect("the configuration sets one of them");
    run.expect_steps(last_step);
    let evaluation = SideStream::new(device, args.run.seed, "evaluation");
    let evaluate = |at: &mut Progress, run: &mut Run, epoch: i64, train: &[(&str, f64)]| -> Result<()> {
        run.pause();
        let of_last = images.test.len();
        let rows = if at.step == last_step { of_last } else { config.eval_size.unwrap_or(of_last) };
        let seen = evaluation.at(at.step, || measure::test(&network, &images, &config, rows))?.named();
        let all: Vec<(&str, f64)> =
            train.iter().copied().chain(seen.iter().map(|(name, v)| (name.as_str(), *v))).collect();
        run.log(at.step, epoch, &all)?;
        let named = all.iter().map(|(name, v)| (name.to_string(), Value::from(*v)));
        at.history
            .push([("epoch".into(), epoch.into()), ("step".into(), at.step.into())].into_iter().chain(named).collect());
        run.resume_clock();
        Ok(())
    };
    while at.step < last_step {
        if at.batch == 0 {
            order = seeding::shuffle(n)?;
        }
        let (x, y) = images.train.batch(&order, at.batch, &config, &mut TorchNoise)?;
        adam.set_lr(rate(config.lr, at.step, last_step))?;
        let (loss, right) = learn(&network, &mut adam, &x, &y)?;
        if config.clip {
            network.clip()?;
        }
        at.step += 1;
        at.batch += 1;
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        let size = x.size()[0] as f64;
        (at.loss, at.right, at.images) = (at.loss + loss * size, at.right + right, at.images + size);
        run.step_done(at.step, loss);
        if at.step % args.run.log_every == 0 {
            run.log(at.step, at.epoch + 1, &[("loss", loss), ("accuracy", right / size)])?;
        }
        let end_of_epoch = at.batch == batches;
        if end_of_epoch || at.step == last_step {
            let train = [("train_loss", at.loss / at.images), ("train_accuracy", at.right / at.images)];
            let epoch = at.epoch + 1;
            if end_of_epoch {
                (at.batch, at.epoch) = (0, epoch);
                (at.loss, at.right, at.images) = Default::default();
            }
            let every = args.run.eval_every;
            if at.step == last_step || (every > 0 && at.epoch % every == 0) {
                evaluate(&mut at, &mut run, epoch, &train)?;
            } else {
                run.log(at.step, epoch, &train)?;
            }
        }
        if at.step < last_step && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &at.checkpoint(&network, &adam, &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &at.checkpoint(&network, &adam, &order, device)?)?;
    let mut metrics = Map::new();
    let last = at.history.last().into_iter().flatten();
    metrics.extend(last.filter(|(n, _)| *n != "epoch" && *n != "step").map(|(n, v)| (n.clone(), v.clone())));
    let sure = network.weights().map(certain).collect::<Result<Vec<f64>>>()?;
    metrics.insert("weights_certain".into(), (sure.iter().sum::<f64>() / sure.len() as f64).into());
    metrics.insert("history".into(), thin(&at.history).into());
    run.finish(at.step, at.epoch, metrics)?;
    Ok(())
}

/// Mean of `|2 theta - 1|` in a layer: 1/2 at the start, 1 where every weight is decided.
fn certain(w: &thruway::sbn::BinaryWeight) -> Result<f64> {
    Ok(number(&(w.theta()? * 2.0 - 1.0).f_abs()?.f_mean(Kind::Double)?))
}

/// Rows evenly spread, the first and the last among them.
fn thin(rows: &[Map<String, Value>]) -> Vec<Value> {
    let stride = rows.len().div_ceil(ROWS).max(1);
    let kept = rows.iter().enumerate().filter(|(i, _)| i % stride == 0 || i + 1 == rows.len());
    kept.map(|(_, row)| Value::Object(row.clone())).collect()
}

impl Progress {
    /// All that a resumed run needs: parameters and running statistics after `model.`, moments, generators, data order.
    fn checkpoint(&self, network: &Network, adam: &Adam, order: &Tensor, device: Device) -> Result<Checkpoint> {
        let params = network.params().iter().map(|(n, t)| (format!("model.{n}"), t.detach()));
        let buffers = network.buffers().into_iter().map(|(n, t)| (format!("model.{n}"), t.shallow_clone()));
        let moments = adam.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t));
        let mut tensors: Vec<(String, Tensor)> = params.chain(buffers).chain(moments).collect();
        tensors.push(("order".into(), order.shallow_clone()));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
