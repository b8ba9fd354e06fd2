//! Training of one cell from scratch, and what the table says of it.
use crate::args::{self, QueryArgs, TrainArgs, TrainConfig, cosine};
use crate::course::{self, Length, Tally, Work, cross_entropy};
use crate::images::{self, Part};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
use thruway::data::nats_bench::{Measure, Task};
use thruway::data::{Augment, NatsBench};
use thruway::error::Result;
use thruway::nas::Cell;
use thruway::nn::SearchNet;
use thruway::nn::search_net::Choice;
use thruway::noise::TorchNoise;
use thruway::optim::{Sgd, sgd};
use thruway::report::table::Table;
use thruway::run::{Checkpoint, Run};

/// Test images evaluated at once; changes no prediction beyond rounding.
const EVALUATED: i64 = 250;

/// The whole training.
pub fn run(args: &TrainArgs) -> Result<()> {
    let device = args.run.prepare()?;
    let table = args::table(args.table.as_ref())?;
    let config = TrainConfig::new(args, table.as_ref())?;
    let set = images::load(args.dataset, args.train_size, args.test_size)?;
    let rows = |n: i64| Tensor::f_arange(n, (Kind::Int64, Device::Cpu));
    let train = Part::of(&set.train, &set.train_labels, &rows(config.train_size)?, device)?;
    let test = Part::of(&set.test, &set.test_labels, &rows(config.test_size)?, device)?;
    let net = SearchNet::fixed(args.sizes.sizes(), config.arch, device)?;
    let settings = sgd::Settings { weight_decay: config.weight_decay, ..sgd::Settings::nesterov(config.lr) };
    let optimizer = Sgd::new(settings, net.params().iter())?;
    let mut recorded = serde_json::to_value(&config)?;
    recorded["dataset"] = json!(set.variant);
    let code = config.arch.code().to_string();
    let default_out: PathBuf = ["runs", "nas", "train", &code, &args.run.seed.to_string()].iter().collect();
    let (run, checkpoint) = Run::open("nas-train", &args.run, default_out, recorded)?;
    let length =
        Length { images: train.len(), batch_size: config.batch_size, epochs: config.epochs, steps: config.steps };
    let mut training = Training { config, train, test, table, net, optimizer, seen: Seen::default() };
    course::go(run, &args.run, device, &length, checkpoint, &mut training)
}

/// What is kept of the steps.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    /// Since the epoch began.
    train: Tally,
    /// On the test images, when they were last looked at.
    test: Tally,
}

/// A training at work.
struct Training {
    config: TrainConfig,
    train: Part,
    test: Part,
    table: Option<NatsBench>,
    net: SearchNet,
    optimizer: Sgd,
    seen: Seen,
}

impl Work for Training {
    const LOSS: &'static str = "loss";

    fn step(&mut self, epoch: i64, rows: &Tensor) -> Result<f64> {
        self.optimizer.set_lr(cosine(self.config.lr, 0.0, epoch, self.config.epochs))?;
        let (x, labels) = self.train.batch(rows, Augment::FlipCrop, &mut TorchNoise)?;
        let scores = self.net.forward(&x, Choice::Cell(&self.config.arch), true)?;
        let loss = cross_entropy(&scores, &labels)?;
        self.optimizer.zero_grad();
        loss.f_backward()?;
        self.optimizer.step()?;
        let seen = Tally::of(&loss, &scores, &labels)?;
        self.seen.train += seen;
        Ok(seen.loss())
    }

    fn close(&mut self, _: i64, evaluate: bool, _: &Run) -> Result<Vec<(String, f64)>> {
        let seen = std::mem::take(&mut self.seen.train);
        let mut metrics = vec![
            ("train_loss".into(), seen.loss()),
            ("train_accuracy".into(), seen.accuracy()),
            ("lr".into(), self.optimizer.lr()),
        ];
        if evaluate {
            self.seen.test = self.evaluate()?;
            metrics.push(("test_loss".into(), self.seen.test.loss()));
            metrics.push(("test_accuracy".into(), self.seen.test.accuracy()));
        }
        Ok(metrics)
    }

    fn finals(&self) -> Result<Map<String, Value>> {
        let mut last = Map::new();
        last.insert("test_loss".into(), self.seen.test.loss().into());
        last.insert("test_accuracy".into(), self.seen.test.accuracy().into());
        if let Some(table) = &self.table {
            let published = |measure| table.query(&self.config.arch, Task::Cifar10, measure);
            last.insert("published_test_e200".into(), published(Measure::Test200).into());
            last.insert("published_test_e12".into(), published(Measure::Test12).into());
        }
        Ok(last)
    }

    /// Parameters, running statistics, the optimizer.
    fn save(&self) -> Result<Checkpoint> {
        let model = self.net.params().iter().chain(self.net.buffers());
        let mut tensors: Vec<(String, Tensor)> = model.map(|(n, t)| (format!("model.{n}"), t.detach())).collect();
        tensors.extend(self.optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        Ok(Checkpoint { tensors, state: serde_json::to_value(&self.seen)? })
    }

    fn restore(&mut self, saved: Checkpoint) -> Result<()> {
        let find = |name: String| saved.tensor(&name).ok().map(Tensor::shallow_clone);
        self.net.load(|n| find(format!("model.{n}")))?;
        self.optimizer.restore(|n| find(format!("optimizer.{n}")))?;
        self.seen = serde_json::from_value(saved.state)?;
        Ok(())
    }
}

impl Training {
    /// On all test images, with the running statistics.
    fn evaluate(&self) -> Result<Tally> {
        let _guard = tch::no_grad_guard();
        let mut seen = Tally::default();
        for from in (0..self.test.len()).step_by(EVALUATED as usize) {
            let (x, labels) = self.test.slice(from, EVALUATED)?;
            let scores = self.net.forward(&x, Choice::Cell(&self.config.arch), false)?;
            seen += Tally::of(&cross_entropy(&scores, &labels)?, &scores, &labels)?;
        }
        Ok(seen)
    }
}

/// `nas query`.
pub fn query(args: &QueryArgs) -> Result<()> {
    let table: NatsBench = args::needed_table(args.table.as_ref())?;
    let cell = args::cell(&args.arch, Some(&table))?;
    let isomorphic = Cell::all().filter(|c| c.isomorphism() == cell.isomorphism()).count();
    let mut rows = Vec::new();
    for task in Task::ALL {
        for measure in Measure::ALL {
            let (best, top) = table.best(task, measure);
            rows.push(vec![
                task.to_string(),
                measure.name().replace("_e", ", epochs "),
                format!("{:.2}", table.query(&cell, task, measure)),
                table.rank(&cell, task, measure).to_string(),
                format!("{top:.2}"),
                format!("{} ({})", best, table.index(&best)),
            ]);
        }
    }
    let columns = ["images", "accuracy", "%", "rank of 15625", "best, %", "best cell (index)"];
    let title = format!("{cell}: index {}, one of {isomorphic} isomorphic cells", table.index(&cell));
    let table = Table { title, columns: columns.map(String::from).to_vec(), rows, ..Table::default() };
    println!("{}", table.text());
    Ok(())
}
