//! Training and evaluation.
use crate::args::{Args, Config};
use crate::{images, probe};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
use thruway::data::{self, Fetch, unit_interval};
use thruway::error::{Error, Result};
use thruway::estimators::{Built, Estimator, Knobs, Sample};
use thruway::exact;
use thruway::nn::CategoricalVae;
use thruway::nn::loss::number;
use thruway::noise::{HostNoise, Noise, TorchNoise};
use thruway::optim::{Adam, Settings};
use thruway::run::{Checkpoint, Run, seeding};

/// Sums over the steps of an epoch, in double.
#[derive(Debug, Default, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Sums {
    loss: f64,
    bce: f64,
    kl: f64,
    images: f64,
}

impl Sums {
    fn add(&mut self, bce: f64, kl: f64, images: i64) {
        self.loss += (bce + kl) * images as f64;
        self.bce += bce * images as f64;
        self.kl += kl * images as f64;
        self.images += images as f64;
    }

    fn means(&self) -> [f64; 3] {
        [self.loss / self.images, self.bce / self.images, self.kl / self.images]
    }
}

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    epoch: i64,
    batch: i64,
    sums: Sums,
    /// Means over the last finished epoch.
    train: Option<[f64; 3]>,
    test: Option<[f64; 3]>,
    probes: Vec<Value>,
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let (config, knobs) = Config::new(&args)?;
    if args.record_draws && args.run.resume {
        return Err(Error::Usage("--record-draws records a whole run: start it without --resume".into()));
    }
    let device = args.run.prepare()?;
    let images = data::load(config.dataset, Fetch::Allowed)?;
    let model = CategoricalVae::new(config.latent_dim, config.categorical_dim, config.activation, device)?;
    let mut optimizer =
        Adam::new(config.optimizer, Settings { lr: config.lr, ..Settings::default() }, model.params().iter())?;
    let mut estimator = config.estimator.build(&knobs)?;
    let mut recorded = serde_json::to_value(&config)?;
    recorded["data"] =
        json!({ "sample": images.is_sample(), "train": images.train.size()[0], "test": images.test.size()[0] });
    let sizes = format!("{}x{}", config.categorical_dim, config.latent_dim);
    let default_out: PathBuf =
        ["runs", "vae", &sizes, &config.estimator.name(), &args.run.seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("vae", &args.run, default_out, recorded)?;

    let train = images.train.f_to_device(device)?;
    let test = images.test.f_to_device(device)?;
    let n = train.size()[0];
    let batches = (n + config.batch_size - 1) / config.batch_size;
    let last_step = match (config.epochs, config.steps) {
        (Some(e), Some(s)) => s.min(e * batches),
        (Some(e), None) => e * batches,
        (None, Some(s)) => s,
        (None, None) => unreachable!("the configuration sets one of them"),
    };
    let mut at = Progress::default();
    let mut order = Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?;
    run.expect_steps(last_step);
    if let Some(c) = checkpoint {
        model.params().load(|n| c.tensor(&format!("model.{n}")).ok().map(Tensor::shallow_clone))?;
        optimizer.restore(|n| c.tensor(&format!("optimizer.{n}")).ok().map(Tensor::shallow_clone))?;
        order = c.tensor("order")?.shallow_clone();
        seeding::restore(device, &c)?;
        at = run.state(&c)?;
    } else {
        // so that a run killed in its first seconds resumes like any other
        run.save(0, 0, &at.checkpoint(&model, &optimizer, &order, device)?)?;
    }
    let mut recorder = args.record_draws.then(Recorder::default);

    while at.step < last_step {
        if at.batch == 0 {
            order = seeding::shuffle(n)?;
            if config.probe {
                run.pause();
                let first = batch(&train, &order, 0, config.batch_size, device)?;
                for row in probe::measure(&model, &first, &config, args.run.seed, at.step)? {
                    run.log(at.step, at.epoch + 1, &row.metrics())?;
                    at.probes.push(row.json(at.epoch + 1, at.step));
                }
                run.resume_clock();
            }
        }
        let x = batch(&train, &order, at.batch, config.batch_size, device)?;
        estimator.at_step(at.step);
        let (bce, kl, sample) = forward(&model, &estimator, config.estimator, &x, &mut TorchNoise)?;
        let loss = &bce + &kl;
        optimizer.zero_grad();
        loss.f_backward()?;
        optimizer.step()?;
        at.step += 1;
        at.batch += 1;
        let (bce, kl) = (number(&bce), number(&kl));
        if !(bce + kl).is_finite() {
            return Err(Error::NonFinite { step: at.step, value: bce + kl });
        }
        at.sums.add(bce, kl, x.size()[0]);
        run.step_done(at.step, bce + kl);
        if let Some(r) = &mut recorder {
            r.add(&sample);
        }
        if at.step % args.run.log_every == 0 {
            run.log(at.step, at.epoch + 1, &[("loss", bce + kl), ("bce", bce), ("kl", kl)])?;
        }
        let end_of_epoch = at.batch == batches;
        if end_of_epoch || at.step == last_step {
            let means = at.sums.means();
            at.train = Some(means);
            at.sums = Sums::default();
            if end_of_epoch {
                at.batch = 0;
                at.epoch += 1;
            }
            let epoch = at.epoch + i64::from(!end_of_epoch);
            let every = args.run.eval_every;
            let names = ["train_neg_elbo", "train_bce", "train_kl", "test_neg_elbo", "test_bce", "test_kl"];
            let mut values = means.to_vec();
            if at.step == last_step || (every > 0 && at.epoch % every == 0) {
                run.pause();
                let seen = evaluate(&model, &knobs, &config, &test, args.run.seed, at.step)?;
                at.test = Some(seen);
                values.extend(seen);
                run.resume_clock();
            }
            let metrics: Vec<(&str, f64)> = names.into_iter().zip(values).collect();
            run.log(at.step, epoch, &metrics)?;
        }
        if at.step < last_step && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &at.checkpoint(&model, &optimizer, &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &at.checkpoint(&model, &optimizer, &order, device)?)?;
    images::write(&model, &test, args.run.seed, &run.dir)?;
    if let Some(r) = recorder {
        r.write(&run.dir.join("draws.safetensors"))?;
    }
    let mut metrics = Map::new();
    let named = |prefix: &str, values: Option<[f64; 3]>, metrics: &mut Map<String, Value>| {
        for (name, v) in ["neg_elbo", "bce", "kl"].into_iter().zip(values.into_iter().flatten()) {
            metrics.insert(format!("{prefix}_{name}"), v.into());
        }
    };
    named("train", at.train, &mut metrics);
    named("test", at.test, &mut metrics);
    if config.probe {
        metrics.insert("probe".into(), Value::Array(std::mem::take(&mut at.probes)));
    }
    let epochs = at.epoch;
    run.finish(at.step, epochs, metrics)?;
    Ok(())
}

/// Images `[B, 784]` in [0, 1] of one batch; the last of an epoch may be shorter.
fn batch(data: &Tensor, order: &Tensor, index: i64, size: i64, device: Device) -> Result<Tensor> {
    let from = index * size;
    let n = size.min(order.size()[0] - from);
    let rows = order.f_narrow(0, from, n)?.f_to_device(device)?;
    Ok(unit_interval(&data.f_index_select(0, &rows)?))
}

/// A drop-in's sample and the logits it was drawn from.
type Drawn = Option<(Sample, Tensor)>;

/// Reconstruction and KL term, means over the batch, and the sample where a drop-in made one.
fn forward(
    model: &CategoricalVae,
    built: &Built,
    estimator: Estimator,
    x: &Tensor,
    noise: &mut dyn Noise,
) -> Result<(Tensor, Tensor, Drawn)> {
    let logits = model.encode(x)?;
    match built {
        Built::DropIn(e) => {
            let s = e.draw(&logits, None, noise)?;
            Ok((model.bce(&s.value, x)?, model.kl(&s.probs)?, Some((s, logits))))
        }
        Built::Boolean(_) => unreachable!("built without a code"),
        Built::Wide(e, _) => {
            let probs = logits.f_softmax(-1, logits.kind())?;
            let b = x.size()[0] as f64;
            let bce = if estimator == Estimator::Exact {
                // Each code decoded once for the whole batch, where the general rule would decode it for every image.
                let expected = exact::expectation_of_table(&logits, &model.bce_table(x)?)?.f_sum(logits.kind())? / b;
                let point = thruway::dist::categorical::Point::draw(&logits, None, noise)?;
                model.bce(&point.hard, x)? + (&expected - expected.detach())
            } else {
                e.surrogate_loss(&logits, &|d: &Tensor| model.bce_rows(d, x), noise)?.f_sum(logits.kind())? / b
            };
            Ok((bce, model.kl(&probs)?, None))
        }
    }
}

/// Mean -ELBO, reconstruction and KL over a set, one sample an image, from a stream of its own.
fn evaluate(
    model: &CategoricalVae,
    knobs: &Knobs,
    config: &Config,
    data: &Tensor,
    seed: i64,
    step: i64,
) -> Result<[f64; 3]> {
    let _guard = tch::no_grad_guard();
    let mut noise = HostNoise::new((seed as u64).wrapping_mul(1_000_003) ^ step as u64);
    // evaluation samples hard codes whatever the estimator; gumbel-softmax alone evaluates its relaxed ones
    let drop_in = match config.estimator.build(knobs)? {
        Built::DropIn(e) if config.estimator == Estimator::GumbelSoftmax => e,
        _ => Estimator::St.build(&Knobs::default())?.drop_in()?,
    };
    let mut sums = Sums::default();
    let n = data.size()[0];
    for from in (0..n).step_by(1000) {
        let x = unit_interval(&data.f_narrow(0, from, 1000.min(n - from))?);
        let s = drop_in.draw(&model.encode(&x)?, None, &mut noise)?;
        sums.add(number(&model.bce(&s.value, &x)?), number(&model.kl(&s.probs)?), x.size()[0]);
    }
    Ok(sums.means())
}

impl Progress {
    /// All that a resumed run needs: parameters under PyTorch's names after `model.`, moments, generators, data order.
    fn checkpoint(
        &self,
        model: &CategoricalVae,
        optimizer: &Adam,
        order: &Tensor,
        device: Device,
    ) -> Result<Checkpoint> {
        let mut tensors: Vec<(String, Tensor)> =
            model.params().iter().map(|(n, t)| (format!("model.{n}"), t.detach())).collect();
        tensors.extend(optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        tensors.push(("order".into(), order.shallow_clone()));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}

/// Draws and logits of every step, for the parity test that looks for the first differing draw.
#[derive(Default)]
struct Recorder {
    index: Vec<Tensor>,
    logits: Vec<Tensor>,
}

impl Recorder {
    fn add(&mut self, sample: &Drawn) {
        if let Some((s, logits)) = sample {
            self.index.push(s.index.to_kind(Kind::Int64));
            self.logits.push(logits.detach());
        }
    }

    fn write(&self, path: &std::path::Path) -> Result<()> {
        let index = Tensor::f_stack(&self.index, 0)?;
        let logits = Tensor::f_stack(&self.logits, 0)?;
        Ok(Tensor::write_safetensors(&[("index", index), ("logits", logits)], path)?)
    }
}
