//! Training of one cell from scratch, and what the table says of it.
use crate::args::{self, QueryArgs, TrainArgs, TrainConfig, cosine};
use crate::images::{self, Part};
use crate::search::{add, cross_entropy, tally};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
use thruway::data::nats_bench::{Measure, Task};
use thruway::data::{Augment, NatsBench};
use thruway::error::{Error, Result};
use thruway::nas::Cell;
use thruway::nn::SearchNet;
use thruway::nn::search_net::Choice;
use thruway::noise::TorchNoise;
use thruway::optim::{Sgd, sgd};
use thruway::report::table::Table;
use thruway::run::{Checkpoint, Run, seeding};

/// Test images evaluated at once; changes no prediction beyond rounding.
const EVALUATED: i64 = 250;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    step: i64,
    epoch: i64,
    batch: i64,
    /// Since the epoch began: sum of losses, right answers, images.
    sums: (f64, f64, f64),
    /// Test loss and accuracy after the last epoch.
    test: (f64, f64),
}

/// The whole training.
pub fn run(args: &TrainArgs) -> Result<()> {
    let device = args.run.prepare()?;
    let table = args::table(args.table.as_ref())?;
    let config = TrainConfig::new(args, table.as_ref())?;
    let cell = config.arch;
    let set = images::load(args.dataset, args.train_size, args.test_size)?;
    let rows = |n: i64| Tensor::f_arange(n, (Kind::Int64, Device::Cpu));
    let train = Part::of(&set.train, &set.train_labels, &rows(config.train_size)?, device)?;
    let test = Part::of(&set.test, &set.test_labels, &rows(config.test_size)?, device)?;
    let net = SearchNet::fixed(args.sizes.sizes(), cell, device)?;
    let settings = sgd::Settings { weight_decay: config.weight_decay, ..sgd::Settings::nesterov(config.lr) };
    let mut optimizer = Sgd::new(settings, net.params().iter())?;
    let mut recorded = serde_json::to_value(&config)?;
    recorded["dataset"] = json!(set.variant);
    let code = cell.code().to_string();
    let default_out: PathBuf = ["runs", "nas", "train", &code, &args.run.seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("nas-train", &args.run, default_out, recorded)?;
    let batches = (train.len() + config.batch_size - 1) / config.batch_size;
    let last_step = config.steps.unwrap_or(i64::MAX).min(config.epochs * batches);
    run.expect_steps(last_step);
    let mut at = Progress::default();
    let mut order = Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?;
    if let Some(c) = checkpoint {
        let find = |name: String| c.tensor(&name).ok().map(Tensor::shallow_clone);
        net.load(|n| find(format!("model.{n}")))?;
        optimizer.restore(|n| find(format!("optimizer.{n}")))?;
        order = c.tensor("order")?.shallow_clone();
        seeding::restore(device, &c)?;
        at = serde_json::from_value(c.state)?;
    }
    while at.step < last_step {
        if at.batch == 0 {
            order = seeding::shuffle(train.len())?;
        }
        optimizer.set_lr(cosine(config.lr, 0.0, at.epoch, config.epochs))?;
        let from = at.batch * config.batch_size;
        let rows = order.f_narrow(0, from, config.batch_size.min(train.len() - from))?;
        let (x, labels) = train.batch(&rows, Augment::FlipCrop, &mut TorchNoise)?;
        let scores = net.forward(&x, Choice::Cell(&cell), true)?;
        let loss = cross_entropy(&scores, &labels)?;
        optimizer.zero_grad();
        loss.f_backward()?;
        optimizer.step()?;
        let seen = tally(&loss, &scores, &labels)?;
        at.sums = add(at.sums, seen);
        at.step += 1;
        at.batch += 1;
        let loss = seen.0 / seen.2;
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        run.step_done(at.step, loss);
        if at.step % args.run.log_every == 0 {
            run.log(at.step, at.epoch + 1, &[("loss", loss)])?;
        }
        if at.batch == batches || at.step == last_step {
            run.pause();
            at.epoch += i64::from(at.batch == batches);
            at.batch %= batches;
            let sums = std::mem::take(&mut at.sums);
            let mut metrics = vec![("train_loss", sums.0 / sums.2), ("train_accuracy", 100.0 * sums.1 / sums.2)];
            let every = args.run.eval_every;
            if at.step == last_step || (every > 0 && at.epoch % every == 0) {
                at.test = evaluate(&net, &cell, &test)?;
                metrics.extend([("test_loss", at.test.0), ("test_accuracy", at.test.1)]);
            }
            run.log(at.step, at.epoch, &metrics)?;
            run.resume_clock();
        }
        if at.step < last_step && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &at.checkpoint(&net, &optimizer, &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &at.checkpoint(&net, &optimizer, &order, device)?)?;
    let mut last = Map::new();
    last.insert("test_loss".into(), at.test.0.into());
    last.insert("test_accuracy".into(), at.test.1.into());
    if let Some(table) = &table {
        last.insert("published_test_e200".into(), table.query(&cell, Task::Cifar10, Measure::Test200).into());
        last.insert("published_test_e12".into(), table.query(&cell, Task::Cifar10, Measure::Test12).into());
    }
    let epochs = at.epoch;
    run.finish(at.step, epochs, last)?;
    Ok(())
}

/// Mean loss and accuracy in percent, with the running statistics.
fn evaluate(net: &SearchNet, cell: &Cell, part: &Part) -> Result<(f64, f64)> {
    let _guard = tch::no_grad_guard();
    let mut sums = (0.0, 0.0, 0.0);
    for from in (0..part.len()).step_by(EVALUATED as usize) {
        let (x, labels) = part.slice(from, EVALUATED)?;
        let scores = net.forward(&x, Choice::Cell(cell), false)?;
        sums = add(sums, tally(&cross_entropy(&scores, &labels)?, &scores, &labels)?);
    }
    Ok((sums.0 / sums.2, 100.0 * sums.1 / sums.2))
}

impl Progress {
    fn checkpoint(&self, net: &SearchNet, optimizer: &Sgd, order: &Tensor, device: Device) -> Result<Checkpoint> {
        let model = net.params().iter().chain(net.buffers());
        let mut tensors: Vec<(String, Tensor)> = model.map(|(n, t)| (format!("model.{n}"), t.detach())).collect();
        tensors.extend(optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        tensors.push(("order".into(), order.shallow_clone()));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
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
