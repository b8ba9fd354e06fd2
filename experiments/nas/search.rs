//! The search on images.
use crate::args::{self, SearchArgs, SearchConfig};
use crate::images::{self, Part};
use crate::surrogate::{INITIAL, likeliest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tch::{Device, Kind, Reduction, Tensor};
use thruway::data::NatsBench;
use thruway::data::nats_bench::{Measure, Task};
use thruway::error::{Error, Result};
use thruway::estimators::{DropIn, Place};
use thruway::nas::{Cell, Multilinear};
use thruway::nn::SearchNet;
use thruway::nn::loss::number;
use thruway::nn::search_net::{self, Activation, Choice};
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Method, Settings, Sgd, sgd};
use thruway::run::{Checkpoint, Run, seeding};

/// Images evaluated at once. Batch norm in the cells uses these batches' statistics, so it does change figures.
const EVALUATED: i64 = 250;

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    step: i64,
    epoch: i64,
    batch: i64,
    /// Since the epoch began, for the weights' and the architecture's batches: sum of losses, right answers, images.
    weights: (f64, f64, f64),
    architecture: (f64, f64, f64),
    /// An entry an epoch.
    history: Vec<Entry>,
}

/// The distribution over cells after an epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub epoch: i64,
    /// The likeliest cell.
    pub cell: Cell,
    /// `[6][5]`.
    pub probabilities: Vec<Vec<f64>>,
    /// Of the likeliest cell, and expected under the distribution: test accuracy after 200 epochs by task, percent.
    pub test: Option<[f64; 3]>,
    pub expected: Option<[f64; 3]>,
}

/// How the edges are drawn.
enum Draw {
    Estimator(Box<dyn DropIn>, Option<Activation>),
    /// DARTS: the probabilities themselves.
    Soft,
}

/// The whole run.
pub fn run(args: SearchArgs) -> Result<()> {
    let device = args.run.prepare()?;
    let table = args::table(args.table.as_ref())?;
    let set = images::load(args.dataset, 2 * args.train_size.max(args.valid_size), 0)?;
    let place = Place { kind: Kind::Float, device };
    let (config, knobs) = SearchConfig::new(&args, place, table.as_ref())?;
    let [train, valid] = images::halves(&set, [config.train_size, config.valid_size], device)?;
    let net = SearchNet::search(config.sizes(), device)?;
    let alphas = (Tensor::f_randn([6, 5], (Kind::Float, Device::Cpu))? * INITIAL).f_to_device(device)?;
    let alphas = alphas.f_set_requires_grad(true)?;
    let weights = sgd::Settings { weight_decay: config.weight_decay, ..sgd::Settings::nesterov(config.lr) };
    let mut optimizer = Sgd::new(weights, net.params().iter())?;
    let settings = Settings {
        lr: config.arch_lr,
        betas: (0.5, 0.999),
        weight_decay: config.arch_weight_decay,
        ..Settings::default()
    };
    let mut arch_optimizer = Adam::new(Method::Adam, settings, [("alphas", &alphas)])?;
    let mut draw = match config.estimator {
        Some(e) => Draw::Estimator(e.build(&knobs)?.drop_in()?, config.activation),
        None => Draw::Soft,
    };
    let mut recorded = serde_json::to_value(&config)?;
    recorded["dataset"] = json!(set.variant);
    let name = config.estimator.map_or("darts".into(), |e| e.name());
    let default_out: PathBuf = ["runs", "nas", "search", &name, &args.run.seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("nas", &args.run, default_out, recorded)?;
    if table.is_none() && checkpoint.is_none() {
        run.say("nas: without the benchmark's table no cell has an accuracy here (data/README.md)");
    }

    let batches = (train.len() + config.batch_size - 1) / config.batch_size;
    let last_step = config.steps.unwrap_or(i64::MAX).min(config.epochs * batches);
    run.expect_steps(last_step);
    let mut at = Progress::default();
    let mut order = Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?;
    if let Some(c) = checkpoint {
        let find = |name: String| c.tensor(&name).ok().map(Tensor::shallow_clone);
        net.load(|n| find(format!("model.{n}")))?;
        tch::no_grad(|| alphas.shallow_clone().f_copy_(c.tensor("alphas")?).map_err(Error::from))?;
        optimizer.restore(|n| find(format!("optimizer.{n}")))?;
        arch_optimizer.restore(|n| find(format!("arch-optimizer.{n}")))?;
        order = c.tensor("order")?.shallow_clone();
        seeding::restore(device, &c)?;
        at = serde_json::from_value(c.state)?;
    }
    let searched = Searched { net: &net, alphas: &alphas };

    while at.step < last_step {
        if at.batch == 0 {
            order = seeding::shuffle(train.len())?;
        }
        // both schedules go by epochs (published code)
        optimizer.set_lr(config.lr_at(at.epoch))?;
        if let Draw::Estimator(e, _) = &mut draw {
            e.at_step(at.epoch);
        }
        let from = at.batch * config.batch_size;
        let rows = order.f_narrow(0, from, config.batch_size.min(train.len() - from))?;
        let partners = Tensor::f_randint(valid.len(), [rows.size()[0]], (Kind::Int64, Device::Cpu))?;
        let first = train.batch(&rows, config.augment, &mut TorchNoise)?;
        let second = valid.batch(&partners, config.augment, &mut TorchNoise)?;

        let seen = searched.weight_step(&draw, &first, &mut optimizer)?;
        at.weights = add(at.weights, seen);
        let seen = searched.architecture_step(&draw, &second, &mut arch_optimizer)?;
        at.architecture = add(at.architecture, seen);
        at.step += 1;
        at.batch += 1;
        let loss = seen.0 / seen.2;
        if !loss.is_finite() || !number(&alphas.f_sum(Kind::Double)?).is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        run.step_done(at.step, loss);
        if at.step % args.run.log_every == 0 {
            run.log(at.step, at.epoch + 1, &[("arch_loss_step", loss)])?;
        }
        if at.batch == batches || at.step == last_step {
            run.pause();
            at.epoch += i64::from(at.batch == batches);
            at.batch %= batches;
            let every = args.run.eval_every;
            let evaluate = at.step == last_step || (every > 0 && at.epoch % every == 0);
            let metrics = at.close_epoch(&config, &searched, &valid, table.as_ref(), evaluate)?;
            let line: Vec<(&str, f64)> = metrics.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            run.log(at.step, at.epoch, &line)?;
            if let Some(entry) = at.history.last() {
                run.say(&format!("epoch {}: {}", entry.epoch, entry.cell));
            }
            crate::figures::write_history(&run.dir, &at.history)?;
            run.resume_clock();
        }
        if at.step < last_step && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &at.checkpoint(&searched, &optimizer, &arch_optimizer, &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &at.checkpoint(&searched, &optimizer, &arch_optimizer, &order, device)?)?;
    let epochs = at.epoch;
    run.finish(at.step, epochs, at.finals(&config, &searched, &valid, table.as_ref())?)?;
    Ok(())
}

/// Sums added up.
pub fn add(a: (f64, f64, f64), b: (f64, f64, f64)) -> (f64, f64, f64) {
    (a.0 + b.0, a.1 + b.1, a.2 + b.2)
}

/// Cross-entropy, mean over the batch.
pub fn cross_entropy(scores: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(scores.f_cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
}

/// Sum of losses, right answers, images.
pub fn tally(loss: &Tensor, scores: &Tensor, labels: &Tensor) -> Result<(f64, f64, f64)> {
    let n = labels.size()[0] as f64;
    Ok((number(loss) * n, number(&scores.f_argmax(-1, false)?.f_eq_tensor(labels)?.f_sum(Kind::Int64)?), n))
}

/// What is trained.
struct Searched<'a> {
    net: &'a SearchNet,
    alphas: &'a Tensor,
}

impl Searched<'_> {
    /// One step of the weights, the architecture drawn and held.
    fn weight_step(
        &self,
        draw: &Draw,
        (images, labels): &(Tensor, Tensor),
        optimizer: &mut Sgd,
    ) -> Result<(f64, f64, f64)> {
        let drawn = tch::no_grad(|| -> Result<_> {
            Ok(match draw {
                Draw::Estimator(e, activation) => {
                    let sample = e.draw(self.alphas, None, &mut TorchNoise)?;
                    (sample.value, activation.is_some())
                }
                Draw::Soft => (self.alphas.f_softmax(-1, Kind::Float)?, false),
            })
        })?;
        // what was not drawn is multiplied by 0 whatever the activation, so that the chosen operations do
        let cell = likeliest(&drawn.0)?;
        let choice = if drawn.1 { Choice::Cell(&cell) } else { Choice::Mixed(&drawn.0) };
        let scores = self.net.forward(images, choice, true)?;
        let loss = cross_entropy(&scores, labels)?;
        optimizer.zero_grad();
        loss.f_backward()?;
        optimizer.step()?;
        tally(&loss, &scores, labels)
    }

    /// One step of the architecture. No gradient of the weights is computed: the published code computes it and forgets it.
    fn architecture_step(
        &self,
        draw: &Draw,
        (images, labels): &(Tensor, Tensor),
        optimizer: &mut Adam,
    ) -> Result<(f64, f64, f64)> {
        let drawn = match draw {
            Draw::Estimator(e, _) => e.draw(self.alphas, None, &mut TorchNoise)?.value,
            Draw::Soft => self.alphas.f_softmax(-1, Kind::Float)?,
        };
        let choice = match draw {
            Draw::Estimator(_, Some(activation)) => Choice::Drawn(&drawn, *activation),
            _ => Choice::Mixed(&drawn),
        };
        let scores = self.net.forward(images, choice, true)?;
        let loss = cross_entropy(&scores, labels)?;
        optimizer.zero_grad();
        if search_net::backward(&loss, self.alphas)? {
            optimizer.step()?;
        }
        tally(&loss, &scores, labels)
    }

    /// Accuracy in percent of a cell with the shared weights.
    fn evaluate(&self, cell: &Cell, part: &Part, images: i64) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let n = images.min(part.len());
        let mut right = 0.0;
        for from in (0..n).step_by(EVALUATED as usize) {
            let (x, labels) = part.slice(from, EVALUATED.min(n - from))?;
            let scores = self.net.forward(&x, Choice::Cell(cell), false)?;
            right += number(&scores.f_argmax(-1, false)?.f_eq_tensor(&labels)?.f_sum(Kind::Int64)?);
        }
        Ok(100.0 * right / n as f64)
    }

    /// `[6, 5]`, f64 on the CPU.
    fn probabilities(&self) -> Result<Tensor> {
        Ok(self.alphas.detach().f_to_device(Device::Cpu)?.f_softmax(-1, Kind::Double)?)
    }
}

impl Progress {
    /// Figures of the epoch, an entry in the history, and the sums back to 0.
    fn close_epoch(
        &mut self,
        config: &SearchConfig,
        searched: &Searched,
        valid: &Part,
        table: Option<&NatsBench>,
        evaluate: bool,
    ) -> Result<Vec<(String, f64)>> {
        let p = searched.probabilities()?;
        let cell = likeliest(searched.alphas)?;
        let (w, a) = (std::mem::take(&mut self.weights), std::mem::take(&mut self.architecture));
        let mut metrics: Vec<(String, f64)> = vec![
            ("train_loss".into(), w.0 / w.2),
            ("train_accuracy".into(), 100.0 * w.1 / w.2),
            ("arch_loss".into(), a.0 / a.2),
            ("arch_accuracy".into(), 100.0 * a.1 / a.2),
            ("entropy".into(), number(&p.f_special_entr()?.f_sum(Kind::Double)?)),
        ];
        if evaluate {
            metrics.push(("valid_accuracy".into(), searched.evaluate(&cell, valid, config.eval_size)?));
        }
        let mut entry = Entry {
            epoch: self.epoch,
            cell,
            probabilities: (0..6).map(|e| Ok(Vec::try_from(p.f_get(e)?)?)).collect::<Result<_>>()?,
            test: None,
            expected: None,
        };
        if let Some(table) = table {
            let test = Task::ALL.map(|t| table.query(&cell, t, Measure::Test200));
            let mut expected = [0.0; 3];
            for (e, task) in expected.iter_mut().zip(Task::ALL) {
                *e = number(&Multilinear::new(table.column(task, Measure::Test200), Device::Cpu)?.at(&p)?);
            }
            for (i, task) in Task::ALL.iter().enumerate() {
                metrics.push((format!("{task}_test"), test[i]));
                metrics.push((format!("{task}_expected"), expected[i]));
            }
            (entry.test, entry.expected) = (Some(test), Some(expected));
        }
        self.history.push(entry);
        Ok(metrics)
    }

    fn finals(
        &self,
        config: &SearchConfig,
        searched: &Searched,
        valid: &Part,
        table: Option<&NatsBench>,
    ) -> Result<Map<String, Value>> {
        let cell = likeliest(searched.alphas)?;
        let mut last = Map::new();
        last.insert("valid_accuracy".into(), searched.evaluate(&cell, valid, config.eval_size)?.into());
        let entropy = searched.probabilities()?.f_special_entr()?.f_sum(Kind::Double)?;
        last.insert("entropy".into(), number(&entropy).into());
        if let Some(table) = table {
            for task in Task::ALL {
                last.insert(format!("{task}_test"), table.query(&cell, task, Measure::Test200).into());
                last.insert(format!("{task}_rank"), table.rank(&cell, task, Measure::Test200).into());
                last.insert(format!("{task}_regret"), table.regret(&cell, task, Measure::Test200).into());
            }
            last.insert("index".into(), table.index(&cell).into());
        }
        last.insert("cell".into(), cell.to_string().into());
        Ok(last)
    }

    /// All that a resumed run needs: parameters, running statistics, logits, both optimizers, the generators, data order.
    fn checkpoint(
        &self,
        searched: &Searched,
        optimizer: &Sgd,
        arch_optimizer: &Adam,
        order: &Tensor,
        device: Device,
    ) -> Result<Checkpoint> {
        let net = searched.net;
        let model = net.params().iter().chain(net.buffers());
        let mut tensors: Vec<(String, Tensor)> = model.map(|(n, t)| (format!("model.{n}"), t.detach())).collect();
        tensors.push(("alphas".into(), searched.alphas.detach()));
        tensors.extend(optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        tensors.extend(arch_optimizer.state().into_iter().map(|(n, t)| (format!("arch-optimizer.{n}"), t)));
        tensors.push(("order".into(), order.shallow_clone()));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
