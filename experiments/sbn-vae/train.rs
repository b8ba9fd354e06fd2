//! Training and evaluation.
use crate::args::{Args, Config, Optimizer};
use crate::images::{self, Split};
use crate::measure;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use thruway::data::{self, Fetch};
use thruway::error::{Error, Result};
use thruway::estimators::{Built, GradEstimator, Place, Sizes};
use thruway::nn::loss::number;
use thruway::nn::vae::PIXELS;
use thruway::nn::{BeliefNet, Elbo};
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Method, Settings, Sgd, sgd};
use thruway::run::seeding::SideStream;
use thruway::run::{Checkpoint, Run, seeding};

/// Decay rates of Adam's moments.
const BETAS: (f64, f64) = (0.9, 0.999);

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    epoch: i64,
    batch: i64,
    /// Sum of the losses of the epoch so far, over images; and their number.
    sum: f64,
    images: f64,
    /// Seconds of training in the epoch so far, and in the whole epochs before it.
    seconds: f64,
    #[serde(default)]
    epoch_seconds: Vec<f64>,
    /// Metrics of the last end of an epoch, for the summary.
    last: Map<String, Value>,
}

/// The optimizer of the model.
enum Moves {
    Adam(Adam),
    Sgd(Sgd),
}

impl Moves {
    fn new(config: &Config, net: &BeliefNet) -> Result<Self> {
        let by = |method| {
            Adam::new(method, Settings { lr: config.lr, betas: BETAS, ..Settings::default() }, net.params().iter())
        };
        Ok(match config.optimizer {
            Optimizer::Adam => Moves::Adam(by(Method::Adam)?),
            Optimizer::RAdam => Moves::Adam(by(Method::RAdam)?),
            Optimizer::Sgd => {
                let settings = sgd::Settings { lr: config.lr, momentum: 0.9, nesterov: false, weight_decay: 0.0 };
                Moves::Sgd(Sgd::new(settings, net.params().iter())?)
            }
        })
    }

    fn zero_grad(&mut self) {
        match self {
            Moves::Adam(o) => o.zero_grad(),
            Moves::Sgd(o) => o.zero_grad(),
        }
    }

    fn step(&mut self) -> Result<()> {
        match self {
            Moves::Adam(o) => o.step(),
            Moves::Sgd(o) => o.step(),
        }
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        match self {
            Moves::Adam(o) => o.state(),
            Moves::Sgd(o) => o.state(),
        }
    }

    fn restore(&mut self, get: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        match self {
            Moves::Adam(o) => o.restore(get),
            Moves::Sgd(o) => o.restore(get),
        }
    }
}

/// Everything that a step changes.
struct Trained {
    net: BeliefNet,
    estimators: Vec<Built>,
    moves: Moves,
    /// Of what the estimators learn.
    learning: Adam,
}

/// What an estimator keeps between steps, under a name for each layer.
fn named(layer: usize, all: Vec<(String, Tensor)>) -> impl Iterator<Item = (String, Tensor)> {
    all.into_iter().map(move |(n, t)| (format!("{layer}.{n}"), t))
}

impl Trained {
    fn new(config: &Config, split: &Split, device: Device) -> Result<Self> {
        let mut net = BeliefNet::new(config.shape(), device)?;
        if config.centred {
            net.centre(&split.train.mean()?)?;
        }
        let sizes = Sizes {
            latents: Some(config.latent_dim),
            context: Some(PIXELS),
            place: Some(Place { kind: Kind::Float, device }),
        };
        // score functions act on all layers jointly, so that the first layer's estimator is the one at work
        let knobs = config.knobs(sizes)?;
        let estimators = (0..config.layers).map(|_| config.estimator.build(&knobs)).collect::<Result<Vec<_>>>()?;
        let learned: Vec<(String, Tensor)> =
            estimators.iter().enumerate().flat_map(|(l, e)| named(l, e.parameters())).collect();
        let settings = Settings { lr: config.cv_lr, ..Settings::default() };
        let learning = Adam::new(Method::Adam, settings, learned.iter().map(|(n, t)| (n.as_str(), t)))?;
        Ok(Trained { moves: Moves::new(config, &net)?, net, estimators, learning })
    }

    /// One step on images `[B, 784]`; the mean loss before it.
    fn step(&mut self, config: &Config, x: &Tensor) -> Result<f64> {
        let loss = mean_loss(&self.net, &self.estimators, config, x)?;
        self.moves.zero_grad();
        self.learning.zero_grad();
        loss.f_backward()?;
        self.moves.step()?;
        self.learning.step()?;
        Ok(number(&loss))
    }

    /// Log variance of the gradient of one batch, the first training images.
    fn log_variance(&mut self, config: &Config, split: &Split, stream: &SideStream, step: i64) -> Result<Option<f64>> {
        let Trained { net, estimators, moves, learning } = self;
        let n = config.batch_size.min(split.train.len());
        let value = stream.at(step, || {
            let x = split.train.range(0, n, &mut TorchNoise)?;
            measure::log_variance(net, estimators, config.grad_draws, || {
                let loss = mean_loss(net, estimators, config, &x)?;
                moves.zero_grad();
                Ok(loss.f_backward()?)
            })
        });
        moves.zero_grad();
        learning.zero_grad();
        value
    }

    /// Parameters after `model.`, moments, and what the estimators learn and keep.
    fn tensors(&self) -> Vec<(String, Tensor)> {
        let prefixed = |prefix: &str, all: Vec<(String, Tensor)>| {
            all.into_iter().map(|(n, t)| (format!("{prefix}.{n}"), t.detach())).collect::<Vec<_>>()
        };
        let model = self.net.params().iter().map(|(n, t)| (n.to_string(), t.shallow_clone())).collect();
        let mut all = prefixed("model", model);
        all.extend(prefixed("optimizer", self.moves.state()));
        all.extend(prefixed("learning", self.learning.state()));
        for (layer, e) in self.estimators.iter().enumerate() {
            all.extend(prefixed("estimator", named(layer, e.parameters()).collect()));
            all.extend(prefixed("estimator", named(layer, e.buffers()).collect()));
        }
        all
    }

    fn restore(&mut self, c: &Checkpoint) -> Result<()> {
        let find = |prefix: &str, name: &str| c.tensor(&format!("{prefix}.{name}")).ok().map(Tensor::shallow_clone);
        self.net.params().load(|n| find("model", n))?;
        self.moves.restore(|n| find("optimizer", n))?;
        self.learning.restore(|n| find("learning", n))?;
        for (layer, e) in self.estimators.iter().enumerate() {
            e.load(&|n| find("estimator", &format!("{layer}.{n}")))?;
        }
        Ok(())
    }
}

/// The mean over a batch of the loss whose backward gives every estimate.
fn mean_loss(net: &BeliefNet, estimators: &[Built], config: &Config, x: &Tensor) -> Result<Tensor> {
    let rows = Elbo::new(net, x, config.kl)?.surrogate_loss(estimators, config.draws(), &mut TorchNoise)?;
    Ok(rows.f_mean(rows.kind())?)
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let config = Config::new(&args)?;
    let seed = args.run.seed;
    let device = args.run.prepare()?;
    let loaded = data::load(config.dataset, Fetch::Allowed)?;
    let whole = loaded.train.size()[0];
    if let Some(n) = args.train_images.filter(|n| *n > whole) {
        return Err(Error::range("--train-images", format!("at most the {whole} there are"), n));
    }
    let split = images::split(&loaded, &config, seed, device)?;
    let mut recorded = serde_json::to_value(&config)?;
    recorded["beside_preset"] = json!(config.beside_preset(&args)?);
    recorded["edition"] = json!(loaded.edition);
    recorded["data"] = json!({
        "sample": loaded.is_sample(), "train": split.train.len(), "test": split.test.len(),
        "valid": split.valid.as_ref().map_or(0, |v| v.len()),
    });
    drop(loaded);
    let mut trained = Trained::new(&config, &split, device)?;
    let model = config.preset.clone().unwrap_or_else(|| format!("{}x{}", config.layers, config.latent_dim));
    let default_out: PathBuf =
        ["runs", "sbn-vae", &model, &config.estimator.name(), &seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("sbn-vae", &args.run, default_out, recorded)?;

    let n = split.train.len();
    let batches = (n + config.batch_size - 1) / config.batch_size;
    let limits = [config.steps, config.epochs.map(|e| e.saturating_mul(batches))];
    let last_step = limits.into_iter().flatten().min().expect("the configuration sets one of them");
    let mut at = Progress::default();
    let mut order = Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?;
    run.expect_steps(last_step);
    if let Some(c) = checkpoint {
        trained.restore(&c)?;
        order = c.tensor("order")?.shallow_clone();
        seeding::restore(device, &c)?;
        at = run.state(&c)?;
    } else {
        // so that a run killed in its first seconds resumes like any other
        run.save(0, 0, &at.checkpoint(&trained, &order, device)?)?;
    }
    let stream = SideStream::new(device, seed, "evaluation");

    while at.step < last_step {
        let begun = Instant::now();
        if at.batch == 0 {
            order = seeding::shuffle(n)?;
        }
        let x = images::batch(&split.train, &order, at.batch, config.batch_size)?;
        trained.estimators.iter_mut().for_each(|e| e.at_step(at.step));
        let loss = trained.step(&config, &x)?;
        at.step += 1;
        at.batch += 1;
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        let count = x.size()[0] as f64;
        at.sum += loss * count;
        at.images += count;
        at.seconds += begun.elapsed().as_secs_f64();
        run.step_done(at.step, loss);
        if at.step % args.run.log_every == 0 {
            run.log(at.step, at.epoch + 1, &[("loss", loss)])?;
        }
        let end_of_epoch = at.batch == batches;
        if end_of_epoch || at.step == last_step {
            let mut metrics = vec![("train_neg_elbo", at.sum / at.images)];
            if end_of_epoch {
                metrics.push(("epoch_s", at.seconds));
                at.epoch_seconds.push(at.seconds);
                (at.batch, at.epoch) = (0, at.epoch + 1);
            }
            (at.sum, at.images, at.seconds) = (0.0, 0.0, 0.0);
            let epoch = at.epoch + i64::from(!end_of_epoch);
            run.pause();
            let moments = measure::log_variance_by_moments(&trained.moves.state(), BETAS)?;
            metrics.extend(moments.map(|v| ("log_grad_var_adam", v)));
            let every = args.run.eval_every;
            if at.step == last_step || (every > 0 && at.epoch % every == 0) {
                metrics.extend(measure::frozen(&trained.net, &split, &stream, at.step)?);
                if config.grad_draws > 0 {
                    let v = trained.log_variance(&config, &split, &stream, at.step)?;
                    metrics.extend(v.map(|v| ("log_grad_var", v)));
                }
            }
            run.resume_clock();
            run.log(at.step, epoch, &metrics)?;
            let kept = metrics.into_iter().filter(|(name, _)| *name != "epoch_s");
            kept.for_each(|(name, v)| drop(at.last.insert(name.into(), v.into())));
        }
        if at.step < last_step && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &at.checkpoint(&trained, &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &at.checkpoint(&trained, &order, device)?)?;
    let mut metrics = std::mem::take(&mut at.last);
    if let Some(median) = median(&mut at.epoch_seconds) {
        metrics.insert("epoch_s".into(), median.into());
    }
    if config.ll_samples > 0 {
        run.pause();
        let bounds = measure::of_part(&trained.net, &split.test, config.ll_samples, &stream, at.step)?;
        metrics.insert("test_neg_log_likelihood".into(), bounds.neg_log_likelihood.into());
    }
    run.finish(at.step, at.epoch, metrics)?;
    Ok(())
}

/// Of at least one number.
fn median(of: &mut [f64]) -> Option<f64> {
    of.sort_by(f64::total_cmp);
    let n = of.len();
    (n > 0).then(|| 0.5 * (of[(n - 1) / 2] + of[n / 2]))
}

impl Progress {
    /// All that a resumed run needs.
    fn checkpoint(&self, trained: &Trained, order: &Tensor, device: Device) -> Result<Checkpoint> {
        let mut tensors = trained.tensors();
        tensors.push(("order".into(), order.shallow_clone()));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
