//! The search on images.
use crate::args::{self, SearchArgs, SearchConfig};
use crate::course::{self, Length, Tally, Work, cross_entropy};
use crate::images::{self, Part};
use crate::surrogate::{INITIAL, likeliest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
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
use thruway::run::{Checkpoint, Run};

/// Images evaluated at once. Batch norm in the cells uses these batches' statistics, so it does change figures.
const EVALUATED: i64 = 250;

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
    let place = Place { kind: Kind::Float, device };
    let (config, knobs) = SearchConfig::new(&args, place, table.as_ref())?;
    let set = images::load(args.dataset, 2 * args.train_size.max(args.valid_size), 0)?;
    let [train, valid] = images::halves(&set, [config.train_size, config.valid_size], device)?;
    let net = SearchNet::search(config.sizes(), device)?;
    let alphas = (Tensor::f_randn([6, 5], (Kind::Float, Device::Cpu))? * INITIAL).f_to_device(device)?;
    let alphas = alphas.f_set_requires_grad(true)?;
    let weights = sgd::Settings { weight_decay: config.weight_decay, ..sgd::Settings::nesterov(config.lr) };
    let optimizer = Sgd::new(weights, net.params().iter())?;
    let settings = Settings {
        lr: config.arch_lr,
        betas: (0.5, 0.999),
        weight_decay: config.arch_weight_decay,
        ..Settings::default()
    };
    let arch_optimizer = Adam::new(Method::Adam, settings, [("alphas", &alphas)])?;
    let draw = match config.estimator {
        Some(e) => Draw::Estimator(e.build(&knobs)?.drop_in()?, config.activation),
        None => Draw::Soft,
    };
    let mut recorded = serde_json::to_value(&config)?;
    recorded["dataset"] = json!(set.variant);
    let name = config.estimator.map_or("darts".into(), |e| e.name());
    let default_out: PathBuf = ["runs", "nas", "search", &name, &args.run.seed.to_string()].iter().collect();
    let (run, checkpoint) = Run::open("nas", &args.run, default_out, recorded)?;
    if table.is_none() && checkpoint.is_none() {
        run.say("nas: without the benchmark's table no cell has an accuracy here (data/README.md)");
    }
    let length =
        Length { images: train.len(), batch_size: config.batch_size, epochs: config.epochs, steps: config.steps };
    let seen = Seen::default();
    let mut search = Search { config, train, valid, table, net, alphas, draw, optimizer, arch_optimizer, seen };
    course::go(run, &args.run, device, &length, checkpoint, &mut search)
}

/// What is kept of the steps.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    /// Since the epoch began, of the weights' and the architecture's batches.
    weights: Tally,
    architecture: Tally,
    /// An entry an epoch.
    history: Vec<Entry>,
}

/// A search at work.
struct Search {
    config: SearchConfig,
    /// The two halves of the images.
    train: Part,
    valid: Part,
    table: Option<NatsBench>,
    net: SearchNet,
    /// `[6, 5]`.
    alphas: Tensor,
    draw: Draw,
    optimizer: Sgd,
    arch_optimizer: Adam,
    seen: Seen,
}

impl Work for Search {
    const LOSS: &'static str = "arch_loss_step";

    fn step(&mut self, epoch: i64, rows: &Tensor) -> Result<f64> {
        // both schedules go by epochs (published code)
        self.optimizer.set_lr(self.config.lr_at(epoch))?;
        if let Draw::Estimator(e, _) = &mut self.draw {
            e.at_step(epoch);
        }
        let partners = Tensor::f_randint(self.valid.len(), [rows.size()[0]], (Kind::Int64, Device::Cpu))?;
        let first = self.train.batch(rows, self.config.augment, &mut TorchNoise)?;
        let second = self.valid.batch(&partners, self.config.augment, &mut TorchNoise)?;
        let seen = self.weight_step(&first)?;
        self.seen.weights += seen;
        let seen = self.architecture_step(&second)?;
        self.seen.architecture += seen;
        let alphas = number(&self.alphas.f_sum(Kind::Double)?);
        Ok(if alphas.is_finite() { seen.loss() } else { alphas })
    }

    fn close(&mut self, epochs: i64, evaluate: bool, run: &Run) -> Result<Vec<(String, f64)>> {
        let p = self.probabilities()?;
        let cell = likeliest(&self.alphas)?;
        let (w, a) = (std::mem::take(&mut self.seen.weights), std::mem::take(&mut self.seen.architecture));
        let mut metrics: Vec<(String, f64)> = vec![
            ("train_loss".into(), w.loss()),
            ("train_accuracy".into(), w.accuracy()),
            ("arch_loss".into(), a.loss()),
            ("arch_accuracy".into(), a.accuracy()),
            ("entropy".into(), number(&p.f_special_entr()?.f_sum(Kind::Double)?)),
            ("lr".into(), self.optimizer.lr()),
        ];
        if let Draw::Estimator(e, _) = &self.draw {
            metrics.extend(e.tau().map(|tau| ("tau".into(), tau)));
        }
        if evaluate {
            metrics.push(("valid_accuracy".into(), self.evaluate(&cell)?));
        }
        let mut entry = Entry {
            epoch: epochs,
            cell,
            probabilities: (0..6).map(|e| Ok(Vec::try_from(p.f_get(e)?)?)).collect::<Result<_>>()?,
            test: None,
            expected: None,
        };
        if let Some(table) = &self.table {
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
        run.say(&format!("epoch {epochs}: {cell}"));
        self.seen.history.push(entry);
        crate::figures::write_history(&run.dir, &self.seen.history)?;
        Ok(metrics)
    }

    fn finals(&self) -> Result<Map<String, Value>> {
        let cell = likeliest(&self.alphas)?;
        let mut last = Map::new();
        last.insert("valid_accuracy".into(), self.evaluate(&cell)?.into());
        let entropy = self.probabilities()?.f_special_entr()?.f_sum(Kind::Double)?;
        last.insert("entropy".into(), number(&entropy).into());
        if let Some(table) = &self.table {
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

    /// Parameters, running statistics, logits, both optimizers.
    fn save(&self) -> Result<Checkpoint> {
        let model = self.net.params().iter().chain(self.net.buffers());
        let mut tensors: Vec<(String, Tensor)> = model.map(|(n, t)| (format!("model.{n}"), t.detach())).collect();
        tensors.push(("alphas".into(), self.alphas.detach()));
        tensors.extend(self.optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        tensors.extend(self.arch_optimizer.state().into_iter().map(|(n, t)| (format!("arch-optimizer.{n}"), t)));
        Ok(Checkpoint { tensors, state: serde_json::to_value(&self.seen)? })
    }

    fn restore(&mut self, saved: Checkpoint) -> Result<()> {
        let find = |name: String| saved.tensor(&name).ok().map(Tensor::shallow_clone);
        self.net.load(|n| find(format!("model.{n}")))?;
        tch::no_grad(|| self.alphas.f_copy_(saved.tensor("alphas")?).map_err(Error::from))?;
        self.optimizer.restore(|n| find(format!("optimizer.{n}")))?;
        self.arch_optimizer.restore(|n| find(format!("arch-optimizer.{n}")))?;
        self.seen = serde_json::from_value(saved.state)?;
        Ok(())
    }
}

impl Search {
    /// One step of the weights, the architecture drawn and held.
    fn weight_step(&mut self, (images, labels): &(Tensor, Tensor)) -> Result<Tally> {
        let drawn = tch::no_grad(|| -> Result<_> {
            Ok(match &self.draw {
                Draw::Estimator(e, activation) => {
                    let sample = e.draw(&self.alphas, None, &mut TorchNoise)?;
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
        self.optimizer.zero_grad();
        loss.f_backward()?;
        self.optimizer.step()?;
        Tally::of(&loss, &scores, labels)
    }

    /// One step of the architecture. No gradient of the weights is computed: the published code computes it and forgets it.
    fn architecture_step(&mut self, (images, labels): &(Tensor, Tensor)) -> Result<Tally> {
        let drawn = match &self.draw {
            Draw::Estimator(e, _) => e.draw(&self.alphas, None, &mut TorchNoise)?.value,
            Draw::Soft => self.alphas.f_softmax(-1, Kind::Float)?,
        };
        let choice = match &self.draw {
            Draw::Estimator(_, Some(activation)) => Choice::Drawn(&drawn, *activation),
            _ => Choice::Mixed(&drawn),
        };
        let scores = self.net.forward(images, choice, true)?;
        let loss = cross_entropy(&scores, labels)?;
        self.arch_optimizer.zero_grad();
        if search_net::backward(&loss, &self.alphas)? {
            self.arch_optimizer.step()?;
        }
        Tally::of(&loss, &scores, labels)
    }

    /// Accuracy in percent of a cell with the shared weights.
    fn evaluate(&self, cell: &Cell) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let n = self.config.eval_size;
        let mut right = 0.0;
        for from in (0..n).step_by(EVALUATED as usize) {
            let (x, labels) = self.valid.slice(from, EVALUATED.min(n - from))?;
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
