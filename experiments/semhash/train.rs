//! Both phases of training, and evaluation.
use crate::args::{Args, Config, Measure};
use crate::correction::repeated;
use crate::documents::{Data, rows};
use crate::measure::{self, Effort, Row};
use crate::method::Method;
use crate::model::Model;
use crate::retrieval::{Codes, precision};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
use thruway::data::newsgroups::Documents;
use thruway::dist::bernoulli;
use thruway::error::{Error, Result};
use thruway::estimators::{Built, GradEstimator, Objective};
use thruway::nn::bow::Bags;
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Method as Optimizer, Settings};
use thruway::run::seeding::SideStream;
use thruway::run::{Checkpoint, Run, seeding};

/// Documents of one piece of an evaluation.
const PIECE: i64 = 256;
/// Documents retrieved.
const RETRIEVED: usize = 100;

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    epoch: i64,
    batch: i64,
    /// Sum of the losses of the epoch so far, over documents; and their number.
    sum: f64,
    documents: f64,
    /// Evaluations so far, the start among them: epoch, training loss; with drawn codes, and with the more probable ones.
    curve: Vec<(i64, f64)>,
    curve_det: Vec<(i64, f64)>,
    /// Measurements so far, and the epochs they were made after.
    accuracy: Vec<Row>,
    measured: Vec<i64>,
    /// Metrics for the summary.
    last: Map<String, Value>,
}

/// Everything that a step changes.
pub struct Trained {
    pub model: Model,
    pub adam: Adam,
}

impl Trained {
    /// A fresh model.
    pub fn new(config: &Config, data: &Data, device: Device) -> Result<Trained> {
        let model = Model::new(data.vocabulary, config.hidden_dim, config.bits, config.precision, device)?;
        Ok(Trained { adam: adam(&model, config)?, model })
    }

    /// One step; the mean loss of a document before it.
    pub fn step(&mut self, estimator: &Built, times: i64, bags: &Bags) -> Result<f64> {
        self.step_on(estimator, times, bags, false)
    }

    /// The same, with the input of the first layer as a dense matrix or not.
    pub fn step_on(&mut self, estimator: &Built, times: i64, bags: &Bags, dense: bool) -> Result<f64> {
        self.adam.zero_grad();
        let logits = self.model.logits(bags, dense)?;
        let loss = if times > 1 {
            repeated(estimator, &self.model, bags, &logits, times, &mut TorchNoise)?
        } else {
            let loss = estimator.surrogate_loss(&logits, &self.model.reconstruction(bags), &mut TorchNoise)?;
            let loss = loss.f_mean(loss.kind())?;
            loss.f_backward()?;
            number(&loss)
        };
        self.adam.step()?;
        Ok(loss)
    }
}

fn adam(model: &Model, config: &Config) -> Result<Adam> {
    Adam::new(Optimizer::Adam, Settings { lr: config.lr, ..Settings::default() }, model.params().iter())
}

/// Mean losses of a document over a part: with one draw of its code, and with the more probable value of each bit, which is what
/// deterministic straight-through trains.
fn loss(model: &Model, data: &Data, part: &Documents, device: Device) -> Result<[f64; 2]> {
    let _guard = tch::no_grad_guard();
    let n = part.len() as i64;
    let (mut drawn, mut certain) = (0.0, 0.0);
    for from in (0..n).step_by(PIECE as usize) {
        let ids: Vec<i64> = (from..n.min(from + PIECE)).collect();
        let bags = data.bags(part, &ids, device)?;
        let logits = model.logits(&bags, false)?;
        let sum = |x: &Tensor| -> Result<f64> { Ok(number(&model.reconstruction(&bags).at(x)?.f_sum(Kind::Double)?)) };
        drawn += sum(&bernoulli::draw(&logits.f_sigmoid()?, 1, &mut TorchNoise)?.0)?;
        certain += sum(&logits.f_ge(0.0)?.f_to_kind(logits.kind())?.f_unsqueeze(0)?)?;
    }
    Ok([drawn, certain].map(|sum| sum / n as f64))
}

/// What an evaluation measures: both losses of both parts, and retrieval.
fn evaluate(model: &Model, data: &Data, device: Device) -> Result<Vec<(&'static str, f64)>> {
    let [train, train_det] = loss(model, data, &data.train, device)?;
    let [test, test_det] = loss(model, data, &data.test, device)?;
    let mut all =
        vec![("train_loss", train), ("test_loss", test), ("train_loss_det", train_det), ("test_loss_det", test_det)];
    all.extend(retrieve(model, data, device)?);
    Ok(all)
}

/// Refuses more batches of the measurement than there are.
fn check_measure(measure: Option<Measure>, documents: i64) -> Result<()> {
    let Some((m, wanted)) = measure.and_then(|m| Some((m, m.batches?))) else { return Ok(()) };
    let most = (documents + m.batch_size - 1) / m.batch_size;
    if wanted > most {
        let rule = format!("at most the {most} batches of {} in {documents} documents, or `all`", m.batch_size);
        return Err(Error::range("--measure-batches", rule, wanted));
    }
    Ok(())
}

/// The codes of a part, each bit its more probable value.
fn codes(model: &Model, data: &Data, part: &Documents, device: Device) -> Result<Codes> {
    let _guard = tch::no_grad_guard();
    let n = part.len() as i64;
    let piece = |from: i64| -> Result<Tensor> {
        let ids: Vec<i64> = (from..n.min(from + PIECE)).collect();
        let logits = model.logits(&data.bags(part, &ids, device)?, false)?;
        Ok(logits.f_ge(0.0)?.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?)
    };
    let all = (0..n).step_by(PIECE as usize).map(piece).collect::<Result<Vec<_>>>()?;
    Codes::pack(&Tensor::f_cat(&all, 0)?)
}

/// Precision at 100 of test documents among the training documents, and how many different codes these have.
fn retrieve(model: &Model, data: &Data, device: Device) -> Result<[(&'static str, f64); 2]> {
    let (queries, database) = (codes(model, data, &data.test, device)?, codes(model, data, &data.train, device)?);
    let k = RETRIEVED.min(database.len());
    let found = precision((&queries, &data.test.groups), (&database, &data.train.groups), k)?;
    Ok([("precision_at_100", found), ("distinct_codes", database.distinct() as f64)])
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let config = Config::new(&args)?;
    let seed = args.run.seed;
    let device = args.run.prepare()?;
    let data = Data::load(config.words as usize)?;
    check_measure(config.measure, data.train.len() as i64)?;
    let mut recorded = serde_json::to_value(&config)?;
    recorded["dataset"] = json!(data.name);
    recorded["data"] = json!({
        "train": data.train.len(), "test": data.test.len(), "words": data.vocabulary,
        "omitted": { "words": data.omitted.words, "counts": data.omitted.counts, "documents": data.omitted.documents },
    });
    let mut trained = Trained::new(&config, &data, device)?;
    let default_out: PathBuf =
        ["runs", "semhash", &config.bits.to_string(), &config.label(), &seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("semhash", &args.run, default_out, recorded)?;

    let n = data.train.len() as i64;
    let batches = (n + config.batch_size - 1) / config.batch_size;
    let first_phase = config.epochs * batches;
    let last_step = (first_phase + config.correction_epochs * batches).min(config.steps.unwrap_or(i64::MAX));
    let (estimator, arm) = (config.estimator.build(config.tau)?, Method::Arm.build(None)?);
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
    if at.curve.is_empty() {
        for (name, value) in stream.at(0, || evaluate(&trained.model, &data, device))? {
            at.evaluated(0, name, value);
        }
    }
    let probe = SideStream::new(device, seed, "measurement");
    at.measure_if_due(&config, &trained.model, &data, &probe, device, &run)?;

    while at.step < last_step {
        if at.batch == 0 {
            order = seeding::shuffle(n)?;
        }
        if at.step == first_phase {
            trained.adam = adam(&trained.model, &config)?; // "we reinitialize Adam" (Appendix D.1)
        }
        let bags = data.bags(&data.train, &rows(&order, at.batch * config.batch_size, config.batch_size)?, device)?;
        let loss_now = match at.step < first_phase {
            true => trained.step(&estimator, 1, &bags)?,
            false if config.control => trained.step(&estimator, 1, &bags)?,
            false => trained.step(&arm, config.correction_samples, &bags)?,
        };
        at.step += 1;
        at.batch += 1;
        if !loss_now.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss_now });
        }
        at.sum += loss_now * bags.len() as f64;
        at.documents += bags.len() as f64;
        run.step_done(at.step, loss_now);
        let last = at.step == last_step;
        let end_of_epoch = at.batch == batches;
        if end_of_epoch || last {
            run.pause();
            let mut metrics = vec![("epoch_loss", at.sum / at.documents)];
            if end_of_epoch {
                (at.batch, at.epoch) = (0, at.epoch + 1);
            }
            (at.sum, at.documents) = (0.0, 0.0);
            let switch = at.step == first_phase;
            let every = args.run.eval_every;
            if last || switch || (every > 0 && at.epoch % every == 0) {
                metrics.extend(stream.at(at.step, || evaluate(&trained.model, &data, device))?);
            }
            for (name, value) in &metrics {
                at.evaluated(at.epoch + i64::from(!end_of_epoch), name, *value);
                at.last.insert((*name).into(), (*value).into());
                if switch {
                    at.last.insert(format!("{name}_before_correction"), (*value).into());
                }
            }
            run.log(at.step, at.epoch + i64::from(!end_of_epoch), &metrics)?;
            if end_of_epoch {
                at.measure_if_due(&config, &trained.model, &data, &probe, device, &run)?;
            }
            run.resume_clock();
        } else if at.step % args.run.log_every == 0 {
            run.log(at.step, at.epoch + 1, &[("loss", loss_now)])?;
        }
        if !last && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.epoch, &at.checkpoint(&trained, &order, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, at.epoch, &at.checkpoint(&trained, &order, device)?)?;
    let mut metrics = std::mem::take(&mut at.last);
    metrics.insert("curve".into(), json!(at.curve));
    metrics.insert("curve_det".into(), json!(at.curve_det));
    metrics.insert("unigram_loss".into(), json!(data.unigram_loss()));
    if config.measure.is_some() {
        metrics.insert("accuracy".into(), rounded(serde_json::to_value(&at.accuracy)?));
    }
    run.finish(at.step, at.epoch, metrics)?;
    Ok(())
}

impl Trained {
    fn restore(&mut self, c: &Checkpoint) -> Result<()> {
        let find = |prefix: &str, name: &str| c.tensor(&format!("{prefix}.{name}")).ok().map(Tensor::shallow_clone);
        self.model.params().load(|n| find("model", n))?;
        self.adam.restore(|n| find("optimizer", n))
    }
}

/// Numbers with six digits: the files stay small.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => {
            n.as_f64().and_then(|x| format!("{x:.5e}").parse::<f64>().ok()).map_or(Value::Number(n), |x| json!(x))
        }
        Value::Array(a) => a.into_iter().map(rounded).collect(),
        Value::Object(o) => Value::Object(o.into_iter().map(|(k, v)| (k, rounded(v))).collect()),
        other => other,
    }
}

impl Progress {
    /// Keeps what belongs to a curve.
    fn evaluated(&mut self, epoch: i64, name: &str, value: f64) {
        match name {
            "train_loss" => self.curve.push((epoch, value)),
            "train_loss_det" => self.curve_det.push((epoch, value)),
            _ => (),
        }
    }

    /// Measures all estimators if the configuration wants it here: at the start, and after every so many epochs of the first
    /// phase. The documents are the same at every measurement.
    fn measure_if_due(
        &mut self,
        config: &Config,
        model: &Model,
        data: &Data,
        stream: &SideStream,
        device: Device,
        run: &Run,
    ) -> Result<()> {
        let Some(m) = config.measure.filter(|m| self.epoch % m.every == 0 && self.epoch <= config.epochs) else {
            return Ok(());
        };
        if self.measured.contains(&self.epoch) {
            return Ok(());
        }
        let order = stream.at(-1, || Ok(Tensor::f_randperm(data.train.len() as i64, (Kind::Int64, Device::Cpu))?))?;
        let most = data.train.len() as i64;
        let batch = |i: i64| data.bags(&data.train, &rows(&order, i * m.batch_size, m.batch_size)?, device);
        let all = (most + m.batch_size - 1) / m.batch_size;
        let batches = (0..m.batches.unwrap_or(all)).map(batch).collect::<Result<Vec<_>>>()?;
        let effort =
            Effort { trials: m.trials, psa_trials: m.psa_trials, reference: m.reference, precision: m.precision };
        let say = |text: &str| run.say(text);
        let found =
            stream.at(self.step, || measure::measure(model, &batches, self.epoch, &effort, &mut TorchNoise, &say))?;
        self.accuracy.extend(found);
        self.measured.push(self.epoch);
        Ok(())
    }

    /// All that a resumed run needs.
    fn checkpoint(&self, trained: &Trained, order: &Tensor, device: Device) -> Result<Checkpoint> {
        let mut tensors: Vec<(String, Tensor)> =
            trained.model.params().iter().map(|(n, t)| (format!("model.{n}"), t.detach())).collect();
        tensors.extend(trained.adam.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        tensors.push(("order".into(), order.shallow_clone()));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
