//! The run: published parameters first, then training with measurements on the way.
use crate::args::{Args, Config};
use crate::measure::{Row, measure};
use crate::problem::{self, Data};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use thruway::error::{Error, Result};
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::optim::{Sgd, sgd};
use thruway::run::{Checkpoint, Run, seeding};
use thruway::sbn::{Knobs, Network, ZeroOne};

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    /// Of the sampled losses of the epoch so far.
    sum: f64,
    train_loss: Option<f64>,
    /// Whether the published parameters were measured, and after how many epochs our own last were.
    published_done: bool,
    measured: Vec<i64>,
    rows: Vec<Row>,
    /// Losses at the evaluations.
    history: Vec<Value>,
}

/// Evaluations that summary.json lists, beside the last one, at most.
const HISTORY: usize = 100;

/// The file of published parameters: the one given, else the one in `$THRUWAY_FIXTURES`.
fn published_file(args: &Args) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let path = match &args.published {
        Some(path) => path.clone(),
        None => match std::env::var_os("THRUWAY_FIXTURES") {
            Some(dir) => Path::new(&dir).join("psa_555.json"),
            None => return Ok(None),
        },
    };
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some((path, bytes))),
        Err(_) if args.published.is_none() => Ok(None),
        Err(e) => Err(Error::io(&path)(e)),
    }
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let device = args.run.prepare()?;
    if device != Device::Cpu {
        let reason = "the network is too small for a GPU; use --device cpu".into();
        return Err(Error::Device { device: args.run.device.clone(), reason });
    }
    let data = problem::data()?;
    let n = data.x.size()[0];
    let steps_per_epoch = (n + args.batch_size - 1) / args.batch_size;
    let published = published_file(&args)?;
    let config = Config::new(&args, steps_per_epoch, published.as_ref().map(|(_, bytes)| &bytes[..]))?;
    let rule = config.estimator.build(&Knobs::default())?;
    let network = problem::network(&config.units)?;
    problem::initialise(&network, &data)?;
    let leaves = ZeroOne::of(&network)?;
    let settings = sgd::Settings { lr: config.lr, momentum: config.momentum, nesterov: false, weight_decay: 0.0 };
    let mut optimizer = Sgd::new(settings, leaves.params().iter())?;
    let units: Vec<String> = config.units.iter().map(i64::to_string).collect();
    let default_out: PathBuf =
        ["runs", "sbn-grad", &units.join("-"), &config.estimator.name(), &args.run.seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("sbn-grad", &args.run, default_out, serde_json::to_value(&config)?)?;
    run.expect_steps(config.steps);
    let mut at = Progress::default();
    if let Some(c) = checkpoint {
        leaves.params().load(|name| c.tensor(name).ok().map(Tensor::shallow_clone))?;
        optimizer.restore(|name| c.tensor(&format!("optimizer.{name}")).ok().map(Tensor::shallow_clone))?;
        seeding::restore(device, &c)?;
        at = run.state(&c)?;
    }
    let seed = args.run.seed as u64;

    if !at.published_done {
        match &published {
            None => run.say("no published parameters: give --published FILE or THRUWAY_FIXTURES to measure there too"),
            Some((path, bytes)) => {
                let (points, sets) = problem::published(bytes, path)?;
                for (label, network) in sets {
                    at.rows.extend(measure(&label, &network, &points, &config.methods, config.samples, seed, &|s| {
                        run.say(s)
                    })?);
                }
            }
        }
        at.published_done = true;
    }
    measure_if_due(&mut at, 0, &config, &leaves, &network, &data, seed, &run)?;
    while at.step < config.steps {
        let in_epoch = at.step % steps_per_epoch;
        let (from, count) = (in_epoch * config.batch_size, config.batch_size.min(n - in_epoch * config.batch_size));
        let order = order(args.run.seed, at.step / steps_per_epoch, n)?.f_narrow(0, from, count)?;
        let (x, y) = (data.x.f_index_select(0, &order)?, data.y.f_index_select(0, &order)?);
        optimizer.zero_grad();
        let loss = leaves.apply(&network)?.loss(&x, &y, &*rule, &mut TorchNoise)?;
        loss.surrogate.f_mean(Kind::Double)?.f_backward()?;
        optimizer.step()?;
        at.step += 1;
        let value = number(&loss.value.f_mean(Kind::Double)?);
        if !value.is_finite() {
            return Err(Error::NonFinite { step: at.step, value });
        }
        at.sum += value;
        run.step_done(at.step, value);
        let epoch = (at.step - 1) / steps_per_epoch + 1;
        let done = (at.step - 1) % steps_per_epoch + 1;
        let end_of_epoch = done == steps_per_epoch || at.step == config.steps;
        if end_of_epoch {
            at.train_loss = Some(at.sum / done as f64);
            at.sum = 0.0;
        }
        let last = at.step == config.steps;
        let evaluate = end_of_epoch && (last || (args.run.eval_every > 0 && epoch % args.run.eval_every == 0));
        if evaluate || at.step % args.run.log_every == 0 {
            run.pause();
            let mut metrics = vec![("loss", value)];
            if let (true, Some(mean)) = (end_of_epoch, at.train_loss) {
                metrics.push(("train_loss", mean));
            }
            if evaluate {
                let seen = evaluation(&leaves.apply(&network)?, &data)?;
                let [expected, ensemble] = seen.map(|(_, loss)| loss);
                at.history.push(json!({
                    "epoch": epoch, "expected_loss": expected, "ensemble_loss": ensemble, "train_loss": at.train_loss,
                }));
                metrics.extend(seen);
            }
            run.log(at.step, epoch, &metrics)?;
            run.resume_clock();
        }
        if done == steps_per_epoch {
            run.pause();
            measure_if_due(&mut at, epoch, &config, &leaves, &network, &data, seed, &run)?;
            run.resume_clock();
        }
        if !last && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.step / steps_per_epoch, &at.checkpoint(&leaves, &optimizer)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    let epochs = at.step / steps_per_epoch;
    run.save(at.step, epochs, &at.checkpoint(&leaves, &optimizer)?)?;
    let lines: Vec<String> =
        at.rows.iter().map(|r| Ok(rounded(serde_json::to_value(r)?, 6).to_string() + "\n")).collect::<Result<_>>()?;
    let path = run.dir.join("accuracy.jsonl");
    std::fs::write(&path, lines.concat()).map_err(Error::io(&path))?;
    println!("{}", crate::tables::text(&at.rows));
    let mut metrics = Map::new();
    for (name, value) in evaluation(&leaves.apply(&network)?, &data)? {
        metrics.insert(name.into(), value.into());
    }
    if let Some(loss) = at.train_loss {
        metrics.insert("train_loss".into(), loss.into());
    }
    let (stride, last) = (at.history.len().div_ceil(HISTORY).max(1), at.history.len());
    let listed = at.history.into_iter().enumerate().filter(|(i, _)| (i + 1) % stride == 0 || i + 1 == last);
    metrics.insert("history".into(), rounded(listed.map(|(_, row)| row).collect(), 6));
    let accuracy: Vec<Value> = at.rows.iter().map(headline).collect();
    metrics.insert("accuracy".into(), rounded(Value::Array(accuracy), 6));
    run.finish(at.step, epochs, metrics)?;
    Ok(())
}

/// Numbers with six digits, those of the curves, which have sampling error, with four: the files stay small.
fn rounded(value: Value, digits: usize) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => {
            let x = n.as_f64().expect("it is one");
            format!("{x:.*e}", digits - 1).parse::<f64>().map_or(Value::Number(n), |x| json!(x))
        }
        Value::Array(a) => Value::Array(a.into_iter().map(|v| rounded(v, digits)).collect()),
        Value::Object(o) => {
            let digits = |k: &str| if k == "points" { 4 } else { digits };
            Value::Object(
                o.into_iter()
                    .map(|(k, v)| {
                        let d = digits(&k);
                        (k, rounded(v, d))
                    })
                    .collect(),
            )
        }
        other => other,
    }
}

/// What of a row goes into summary.json.
fn headline(row: &Row) -> Value {
    let m = row.exact.unwrap_or(row.sampled);
    json!({
        "setting": row.setting, "method": row.method, "layer": row.layer, "bias": m.bias, "std": m.std, "cosine": m.cosine,
        "enumerated": row.exact.is_some(),
    })
}

/// Order of the points in an epoch: a function of the seed and the epoch alone.
fn order(seed: i64, epoch: i64, n: i64) -> Result<Tensor> {
    use thruway::noise::Noise;
    let mut stream = thruway::probe::stream(seed, epoch);
    Ok(stream.uniform(&[n], Kind::Double, Device::Cpu)?.f_argsort(-1, false)?)
}

fn measure_if_due(
    at: &mut Progress,
    epoch: i64,
    config: &Config,
    leaves: &ZeroOne,
    network: &Network,
    data: &Data,
    seed: u64,
    run: &Run,
) -> Result<()> {
    if !config.measure_at.contains(&epoch) || at.measured.contains(&epoch) {
        return Ok(());
    }
    leaves.write(network)?;
    let setting = format!("epoch {epoch}");
    at.rows.extend(measure(&setting, network, data, &config.methods, config.samples, seed, &|s| run.say(s))?);
    at.measured.push(epoch);
    Ok(())
}

/// Exact losses over all points: of the randomised predictor (Eq. 15) and of the ensemble (Eq. 16).
fn evaluation(network: &Network, data: &Data) -> Result<[(&'static str, f64); 2]> {
    let _guard = tch::no_grad_guard();
    let expected = network.exact_loss(&data.x, &data.y)?.f_mean(Kind::Double)?;
    let likelihood = network.exact_likelihood(&data.x, &data.y)?;
    Ok([("expected_loss", number(&expected)), ("ensemble_loss", number(&-likelihood.f_log()?.f_mean(Kind::Double)?))])
}

impl Progress {
    fn checkpoint(&self, leaves: &ZeroOne, optimizer: &Sgd) -> Result<Checkpoint> {
        let mut tensors: Vec<(String, Tensor)> =
            leaves.params().iter().map(|(n, t)| (n.to_string(), t.detach())).collect();
        tensors.extend(optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(Device::Cpu, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
