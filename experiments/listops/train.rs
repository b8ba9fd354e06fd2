//! Training and evaluation.
use crate::args::{Args, Config};
use crate::trees::{self, Agreement};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Reduction, Tensor};
use thruway::data::ListOps;
use thruway::data::listops::{Batch, Example, Split, TRAIN, Units};
use thruway::error::{Error, Result};
use thruway::estimators::DropIn;
use thruway::nn::loss::number;
use thruway::nn::tree_lstm::{Choice, TreeLstm};
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Settings, clip_grad_norm};
use thruway::run::{Checkpoint, Run, seeding};

/// Validations without a rise of the accuracy after which the next one lowers the learning rate (published code).
const PATIENCE: i64 = 4;
/// Expressions evaluated at once; changes no prediction beyond rounding.
const EVALUATED: usize = 64;

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    epoch: i64,
    batch: i64,
    lr: f64,
    /// Since the last validation: sums of losses and right answers, and how many.
    loss: f64,
    right: f64,
    seen: f64,
    /// The best validation so far, and the first whose accuracy it was.
    best: Option<Scores>,
    best_step: i64,
    /// Of the schedule: the best accuracy, and validations since.
    highest: Option<f64>,
    waited: i64,
    last: Option<Scores>,
}

/// Of one evaluation, in percent but the loss, in nats. Where no expression has an inner node, or an inner operation, there is
/// no agreement to speak of.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
struct Scores {
    accuracy: f64,
    loss: f64,
    f1: Option<f64>,
    operations: Option<f64>,
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let device = args.run.prepare()?;
    let (data, [train, valid, test]) = args.data.load()?;
    let (config, knobs) = Config::new(&args, &data)?;
    let model = TreeLstm::new(config.sizes(), device)?;
    let mut optimizer =
        Adam::new(config.optimizer, Settings { lr: config.lr, ..Settings::default() }, model.params().iter())?;
    let mut estimator = config.estimator.build(&knobs)?.drop_in()?;
    let mut recorded = serde_json::to_value(&config)?;
    recorded["data"] = json!({ "train": train.len(), "valid": valid.len(), "test": test.len() });
    let default_out: PathBuf =
        ["runs", "listops", &config.units.to_string(), &config.estimator.name(), &args.run.seed.to_string()]
            .iter()
            .collect();
    let (mut run, checkpoint) = Run::open("listops", &args.run, default_out, recorded)?;
    if let Some(warning) = not_official(&data, config.train_seed) {
        // whatever becomes of the numbers, this is said with them
        if args.run.quiet { eprintln!("{warning}") } else { run.say(&warning) }
    }
    // what every number of this run is of
    let of = format!("{}, {} split", config.units, config.train_split);

    let n = train.len() as i64;
    let lengths: Vec<usize> = train.iter().map(|e| config.units.encode(&e.expression).len()).collect();
    let batches = (n + config.batch_size - 1) / config.batch_size;
    let last_step = match (config.epochs, config.steps) {
        (Some(e), Some(s)) => s.min(e * batches),
        (Some(e), None) => e * batches,
        (None, Some(s)) => s,
        (None, None) => unreachable!("the configuration sets one of them"),
    };
    let mut at = Progress { lr: config.lr, ..Progress::default() };
    let mut order: Vec<i64> = Vec::new();
    let mut best: Vec<(String, Tensor)> = copies(&model);
    run.expect_steps(last_step);
    if let Some(c) = checkpoint {
        let find = |name: String| c.tensor(&name).ok().map(Tensor::shallow_clone);
        model.params().load(|n| find(format!("model.{n}")))?;
        optimizer.restore(|n| find(format!("optimizer.{n}")))?;
        for (name, t) in &mut best {
            *t = c.tensor(&format!("best.{name}"))?.f_to_device(device)?;
        }
        order = Vec::try_from(c.tensor("order")?)?;
        seeding::restore(device, &c)?;
        at = run.state(&c)?;
        optimizer.set_lr(at.lr)?;
    } else {
        run.save(0, 0, &at.checkpoint(&model, &optimizer, &best, &order, device)?)?;
    }

    while at.step < last_step {
        if at.batch == 0 {
            let shuffle = |n: usize| Ok(Vec::try_from(seeding::shuffle(n as i64)?)?);
            order = config.batches.order(&lengths, config.batch_size as usize, shuffle)?;
        }
        let from = (at.batch * config.batch_size) as usize;
        let to = order.len().min(from + config.batch_size as usize);
        let examples: Vec<&Example> = order[from..to].iter().map(|&i| &train[i as usize]).collect();
        estimator.at_step(at.step);
        let (loss, right) = step(&model, &mut optimizer, &*estimator, &examples, &config, device)?;
        at.step += 1;
        at.batch += 1;
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        at.loss += loss * examples.len() as f64;
        at.right += right;
        at.seen += examples.len() as f64;
        run.step_done(at.step, loss);
        if at.step % args.run.log_every == 0 {
            run.log(at.step, at.epoch + 1, &[("loss", loss)])?;
        }
        let part = |batch: i64| batch * config.validations / batches;
        let due = part(at.batch) > part(at.batch - 1);
        let epoch = at.epoch + 1;
        if at.batch == batches {
            at.batch = 0;
            at.epoch += 1;
        }
        if due || at.step == last_step {
            let every = args.run.eval_every;
            let mut metrics =
                vec![("train_loss", at.loss / at.seen), ("train_accuracy", 100.0 * at.right / at.seen), ("lr", at.lr)];
            (at.loss, at.right, at.seen) = (0.0, 0.0, 0.0);
            if at.step == last_step || (every > 0 && epoch % every == 0) {
                run.pause();
                let seen = evaluate(&model, &valid, config.units, device)?;
                if !seen.loss.is_finite() {
                    return Err(Error::NonFinite { step: at.step, value: seen.loss });
                }
                metrics.extend([("valid_accuracy", seen.accuracy), ("valid_loss", seen.loss)]);
                metrics.extend(seen.f1.map(|v| ("valid_f1", v)));
                metrics.extend(seen.operations.map(|v| ("valid_operations", v)));
                let f1 = seen.f1.map_or(String::new(), |v| format!(", F1 {v:.2} %"));
                let (step, accuracy, loss) = (at.step, seen.accuracy, seen.loss);
                run.say(&format!("step {step}: valid accuracy {accuracy:.2} %, loss {loss:.4}{f1} ({of})"));
                at.last = Some(seen);
                if at.best.is_none_or(|b| seen.accuracy > b.accuracy) {
                    (at.best, at.best_step) = (Some(seen), at.step);
                    best = copies(&model);
                }
                if due {
                    at.plateau(seen.accuracy, config.lr_factor);
                    optimizer.set_lr(at.lr)?;
                }
                run.resume_clock();
            }
            run.log(at.step, epoch, &metrics)?;
        }
        if at.step < last_step && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &at.checkpoint(&model, &optimizer, &best, &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &at.checkpoint(&model, &optimizer, &best, &order, device)?)?;
    run.pause();
    model.params().load(|name| best.iter().find(|(n, _)| n == name).map(|(_, t)| t.shallow_clone()))?;
    let of_test = evaluate(&model, &test, config.units, device)?;
    let accuracy = of_test.accuracy;
    run.say(&format!("test accuracy of step {}'s parameters: {accuracy:.2} % ({of})", at.best_step));
    let trees = write_trees(&model, &valid[..args.trees.min(valid.len())], config.units, device, &run.dir)?;
    if !trees.is_empty() {
        run.say(&format!("value, prediction and tree of validation expressions ({of}):\n{}", trees.trim_end()));
    }
    let mut metrics = Map::new();
    let mut put = |prefix: &str, s: Scores| {
        let all = [("accuracy", Some(s.accuracy)), ("loss", Some(s.loss)), ("f1", s.f1), ("operations", s.operations)];
        for (name, v) in all {
            metrics.insert(format!("{prefix}_{name}"), v.into());
        }
    };
    at.best.into_iter().for_each(|s| put("valid", s));
    put("test", of_test);
    at.last.into_iter().for_each(|s| put("last_valid", s));
    metrics.insert("best_step".into(), Value::from(at.best_step));
    let epochs = at.epoch;
    run.finish(at.step, epochs, metrics)?;
    Ok(())
}

/// What must stand beside every number, unless the training split is the official one.
fn not_official(data: &ListOps, seed: u64) -> Option<String> {
    let n = data.train.len();
    match (data.train_split, &data.train_file) {
        (Split::Official, _) => None,
        (Split::File, Some(file)) => Some(format!(
            "listops: the {n} training expressions are those of {}, which has not the official {TRAIN} lines: NOT the official \
             training split",
            file.path.display()
        )),
        _ => Some(format!(
            "listops: the {n} training expressions are drawn with seed {seed}: NOT the official training split"
        )),
    }
}

/// One training step: the mean loss before the update, and how many answers were right.
fn step(
    model: &TreeLstm,
    optimizer: &mut Adam,
    estimator: &dyn DropIn,
    examples: &[&Example],
    config: &Config,
    device: Device,
) -> Result<(f64, f64)> {
    let batch = Batch::new(examples, config.units, device)?;
    let mut choice = Choice::Drawn(estimator, &mut TorchNoise);
    let parsed = model.forward(&batch.ids, &batch.lengths, &mut choice, true)?;
    let loss = parsed.logits.f_cross_entropy_loss(&batch.labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
    optimizer.zero_grad();
    loss.f_backward()?;
    clip_grad_norm(model.params().iter().map(|(_, t)| t), config.clip)?;
    optimizer.step()?;
    Ok((number(&loss), right(&parsed.logits, &batch.labels)?))
}

fn right(logits: &Tensor, labels: &Tensor) -> Result<f64> {
    Ok(number(&logits.f_argmax(-1, false)?.f_eq_tensor(labels)?.f_sum(Kind::Int64)?))
}

/// Greedy parses of a whole set, in batches of similar length.
fn evaluate(model: &TreeLstm, set: &[Example], units: Units, device: Device) -> Result<Scores> {
    let _guard = tch::no_grad_guard();
    let mut sorted: Vec<&Example> = set.iter().collect();
    sorted.sort_by_key(|e| units.encode(&e.expression).len());
    let (mut loss, mut correct) = (0.0, 0.0);
    let mut agreement = Agreement::default();
    for examples in sorted.chunks(EVALUATED) {
        let batch = Batch::new(examples, units, device)?;
        let parsed = model.forward(&batch.ids, &batch.lengths, &mut Choice::Greedy, false)?;
        loss +=
            number(&parsed.logits.f_cross_entropy_loss(&batch.labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
                * examples.len() as f64;
        correct += right(&parsed.logits, &batch.labels)?;
        examples.iter().zip(&parsed.merges).for_each(|(e, m)| agreement.add(e, units, m));
    }
    let n = set.len() as f64;
    Ok(Scores { accuracy: 100.0 * correct / n, loss: loss / n, f1: agreement.f1(), operations: agreement.operations() })
}

/// `trees.txt` (label, prediction, bracketing), whose text is returned, and `tree-N.svg` of these expressions.
fn write_trees(model: &TreeLstm, set: &[Example], units: Units, device: Device, dir: &Path) -> Result<String> {
    if set.is_empty() {
        return Ok(String::new());
    }
    let _guard = tch::no_grad_guard();
    let batch = Batch::new(&set.iter().collect::<Vec<_>>(), units, device)?;
    let parsed = model.forward(&batch.ids, &batch.lengths, &mut Choice::Greedy, false)?;
    let predicted: Vec<i64> = Vec::try_from(parsed.logits.f_argmax(-1, false)?.f_to_device(Device::Cpu)?)?;
    let mut text = String::new();
    let write = |name: String, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(Error::io(&path))
    };
    for (i, ((e, merges), predicted)) in set.iter().zip(&parsed.merges).zip(predicted).enumerate() {
        text += &format!("{}\t{predicted}\t{}\n", e.label, trees::bracketing(&units.spell(&e.expression), merges));
        write(format!("tree-{}.svg", i + 1), &trees::svg(e, units, merges, predicted))?;
    }
    write("trees.txt".into(), &text)?;
    Ok(text)
}

fn copies(model: &TreeLstm) -> Vec<(String, Tensor)> {
    model.params().iter().map(|(n, t)| (n.to_string(), t.detach().copy())).collect()
}

impl Progress {
    /// PyTorch's `ReduceLROnPlateau(mode = "max")` with its default threshold: a rise counts from 1e-4 of the best on.
    fn plateau(&mut self, accuracy: f64, factor: f64) {
        if self.highest.is_none_or(|best| accuracy > best * (1.0 + 1e-4)) {
            (self.highest, self.waited) = (Some(accuracy), 0);
        } else {
            self.waited += 1;
        }
        if self.waited > PATIENCE {
            (self.lr, self.waited) = (self.lr * factor, 0);
        }
    }

    /// All that a resumed run needs: parameters under PyTorch's names after `model.`, moments, the best parameters, the
    /// generators, data order.
    fn checkpoint(
        &self,
        model: &TreeLstm,
        optimizer: &Adam,
        best: &[(String, Tensor)],
        order: &[i64],
        device: Device,
    ) -> Result<Checkpoint> {
        let mut tensors: Vec<(String, Tensor)> =
            model.params().iter().map(|(n, t)| (format!("model.{n}"), t.detach())).collect();
        tensors.extend(optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        tensors.extend(best.iter().map(|(n, t)| (format!("best.{n}"), t.shallow_clone())));
        tensors.push(("order".into(), Tensor::f_from_slice(order)?));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
