//! The run.
use crate::args::{Args, Config, Divergence, Features, Kl, Problem};
use crate::logistic::Logistic;
use crate::method::Method;
use crate::toy::Toy;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};
use thruway::error::{Error, Result};
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Settings};
use thruway::run::seeding::SideStream;
use thruway::run::{Checkpoint, Run, seeding};
use thruway::stochbp::{Caution, Estimate};

/// Draws of an evaluation of the evidence lower bound, at a log point and at the end.
const EVALUATION_DRAWS: (i64, i64) = (200, 5_000);
/// Orders of stochbp that a probe of the logistic problem measures.
const PROBED_ORDERS: [i64; 3] = [4, 8, 16];

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    /// Sum and number over the log points, by metric.
    over_run: BTreeMap<String, (f64, i64)>,
    /// Of the first step, at which all estimators have the same parameters.
    start_log_variance: Option<f64>,
    log_variance: Option<f64>,
    warned: bool,
}

/// Two parameters `[d]` as the optimizer sees them.
struct Leaves {
    first: Tensor,
    second: Tensor,
}

enum Task {
    Toy(Toy),
    Logistic(Logistic),
}

/// A step's loss with the gradient to take, and the estimate that it came from.
struct Step {
    loss: Tensor,
    estimate: Option<Estimate>,
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let config = Config::new(&args)?;
    let device = args.run.prepare()?;
    let task = Task::new(&config, device)?;
    let mut leaves = task.start(&config, device)?;
    let named = [("first", &leaves.first), ("second", &leaves.second)];
    let settings = Settings { lr: config.lr, ..Settings::default() };
    let mut optimizer = Adam::new(config.optimizer, settings, named)?;
    let mut method = config.estimator.name().to_string();
    method += &config.order.map(|n| format!("-{n}")).unwrap_or_default();
    let default_out: PathBuf =
        ["runs", "stochbp", &place(&config), &method, &args.run.seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("stochbp", &args.run, default_out, serde_json::to_value(&config)?)?;
    run.expect_steps(config.steps);
    let mut at = Progress::default();
    if let Some(c) = checkpoint {
        for (name, leaf) in [("first", &mut leaves.first), ("second", &mut leaves.second)] {
            tch::no_grad(|| leaf.f_copy_(c.tensor(name)?).map_err(Error::from))?;
        }
        optimizer.restore(|n| c.tensor(&format!("optimizer.{n}")).ok().map(Tensor::shallow_clone))?;
        seeding::restore(device, &c)?;
        at = run.state(&c)?;
    }
    let side = |purpose: &str| SideStream::new(device, args.run.seed, purpose);
    let (evaluation, probe) = (side("evaluation"), side("probe"));

    while at.step < config.steps {
        let step = task.step(&config, &leaves).map_err(|e| failed(&run.dir, at.step + 1, e))?;
        optimizer.zero_grad();
        step.loss.f_backward()?;
        let loss = number(&step.loss);
        if !loss.is_finite() {
            if let Some(warning) = step.estimate.as_ref().and_then(|e| e.warning.as_ref()) {
                run.say(&format!("step {}: {warning}", at.step + 1));
            }
            return Err(Error::NonFinite { step: at.step + 1, value: loss });
        }
        let logs = (at.step + 1) % args.run.log_every == 0 || at.step == 0 || at.step + 1 == config.steps;
        if logs {
            run.pause();
        }
        let mut metrics = vec![("loss".to_string(), loss)];
        if let Some(e) = &step.estimate {
            if let (Some(warning), false) = (&e.warning, at.warned) {
                run.say(&format!("step {}: {warning}", at.step + 1));
                at.warned = true;
            }
            if logs {
                let log_variance = e.variance()?.ln();
                at.start_log_variance.get_or_insert(log_variance);
                at.log_variance = Some(log_variance);
                metrics.push(("log_variance".into(), log_variance));
                metrics.extend(e.growth.map(|g| ("growth".to_string(), g)));
            }
        }
        if logs && config.probe {
            // before the update, at the parameters of this step's estimate
            let all = probe.at(at.step, || task.probe(&leaves));
            metrics.extend(all.map_err(|e| failed(&run.dir, at.step + 1, e))?);
        }
        run.resume_clock();
        optimizer.step()?;
        at.step += 1;
        run.step_done(at.step, loss);
        if logs {
            run.pause();
            metrics.extend(evaluation.at(at.step, || task.evaluate(&leaves, EVALUATION_DRAWS.0))?);
            for (name, value) in &metrics[1..] {
                let entry = at.over_run.entry(name.clone()).or_default();
                *entry = (entry.0 + value, entry.1 + 1);
            }
            let line: Vec<(&str, f64)> = metrics.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            run.log(at.step, 0, &line)?;
            run.resume_clock();
        }
        if at.step < config.steps && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, 0, &at.checkpoint(&leaves, &optimizer, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, 0, &at.checkpoint(&leaves, &optimizer, device)?)?;
    let mut last: Map<String, Value> = Map::new();
    for (name, value) in evaluation.at(at.step, || task.evaluate(&leaves, EVALUATION_DRAWS.1))? {
        last.insert(name, value.into());
    }
    let single = [("start_log_variance", at.start_log_variance), ("log_variance", at.log_variance)];
    last.extend(single.into_iter().filter_map(|(n, v)| Some((n.to_string(), v?.into()))));
    let means = at.over_run.iter().map(|(name, (sum, n))| (format!("mean_{name}"), (sum / *n as f64).into()));
    last.extend(means);
    run.finish(at.step, 0, last)?;
    Ok(())
}

/// A value that leaves its range in the middle of a run, as a refused series, is a failed run and no bad usage.
fn failed(dir: &Path, step: i64, error: Error) -> Error {
    match error {
        Error::Range { .. } => Error::Run {
            dir: dir.into(),
            reason: format!("step {step}: {error}"),
            remedy: "the run ends here, unfinished: give another --out, or move its directory away, to run with other settings"
                .into(),
        },
        other => other,
    }
}

/// The inverse of softplus.
fn unsoft(x: f64) -> f64 {
    x + (-(-x).exp_m1()).ln()
}

impl Task {
    fn new(config: &Config, device: Device) -> Result<Task> {
        let caution = match config.divergence {
            Divergence::Refuse => Caution::Refuse,
            Divergence::Warn => Caution::Warn,
        };
        let (problem, samples, order) = (config.problem, config.samples, config.order);
        if problem != Problem::Logistic {
            let epsilon = config.epsilon.unwrap_or(0.49);
            return Ok(Task::Toy(Toy { problem, epsilon, samples, order, caution }));
        }
        let scaling = (config.features.unwrap_or(Features::Standard), config.kl.unwrap_or(Kl::Once));
        let batch = config.batch_size.unwrap_or(64);
        Ok(Task::Logistic(Logistic::new(scaling, batch, samples, order.unwrap_or(4), caution, device)?))
    }

    /// Shapes and scales 1; or means 0 and the initial scale.
    fn start(&self, config: &Config, device: Device) -> Result<Leaves> {
        let full = |d: i64, x: f64| Tensor::f_full([d], x, (Kind::Float, device))?.f_set_requires_grad(true);
        Ok(match self {
            Task::Toy(_) => {
                let d = config.dim.unwrap_or(1);
                Leaves { first: full(d, unsoft(1.0))?, second: full(d, unsoft(1.0))? }
            }
            Task::Logistic(l) => {
                let b = config.initial_scale.unwrap_or(1.0);
                Leaves { first: full(l.dimensions(), 0.0)?, second: full(l.dimensions(), unsoft(b))? }
            }
        })
    }

    /// The parameters of the law: positive ones are softplus of what is trained.
    fn parameters(&self, leaves: &Leaves) -> Result<(Tensor, Tensor)> {
        let second = leaves.second.f_softplus()?;
        Ok(match self {
            Task::Toy(_) => (leaves.first.f_softplus()?, second),
            Task::Logistic(_) => (leaves.first.shallow_clone(), second),
        })
    }

    fn step(&self, config: &Config, leaves: &Leaves) -> Result<Step> {
        let (a, b) = self.parameters(leaves)?;
        match self {
            Task::Toy(toy) if config.estimator == Method::Exact => {
                Ok(Step { loss: toy.expected(&a, &b)?, estimate: None })
            }
            Task::Toy(toy) => {
                let estimate = toy.estimate(config.estimator, &a, &b, &mut TorchNoise)?;
                Ok(Step { loss: estimate.surrogate(&[&a, &b])?, estimate: Some(estimate) })
            }
            Task::Logistic(l) => {
                let batch = l.batch()?;
                let e = l.estimate(config.estimator, l.order, &batch, (&a, &b), &mut TorchNoise)?;
                let loss = e.surrogate(&[&a, &b])? + l.divergence(&a, &b)?;
                Ok(Step { loss, estimate: Some(e) })
            }
        }
    }

    /// The logarithm of the variance of every estimator at these parameters.
    fn probe(&self, leaves: &Leaves) -> Result<Vec<(String, f64)>> {
        let (a, b) = self.parameters(leaves)?;
        let mut all = vec![];
        let mut add = |name: String, e: Estimate| -> Result<()> {
            all.push((format!("log_variance_{}", name.replace('-', "_")), e.variance()?.ln()));
            Ok(())
        };
        match self {
            Task::Toy(toy) => {
                for m in [Method::Stochbp, Method::Score, Method::Pathwise, Method::Weak] {
                    add(m.name().into(), toy.estimate(m, &a, &b, &mut TorchNoise)?)?;
                }
            }
            Task::Logistic(l) => {
                let batch = l.batch()?;
                for n in PROBED_ORDERS {
                    let e = l.estimate(Method::Stochbp, n, &batch, (&a, &b), &mut TorchNoise)?;
                    add(format!("stochbp_{n}"), e)?;
                }
                for m in [Method::Score, Method::Pathwise, Method::MeasureValued] {
                    add(m.name().into(), l.estimate(m, l.order, &batch, (&a, &b), &mut TorchNoise)?)?;
                }
            }
        }
        Ok(all)
    }

    fn evaluate(&self, leaves: &Leaves, draws: i64) -> Result<Vec<(String, f64)>> {
        let _guard = tch::no_grad_guard();
        let (a, b) = self.parameters(leaves)?;
        let mean = |t: &Tensor| number(&t.mean(Kind::Double));
        Ok(match self {
            Task::Toy(toy) => vec![
                ("expected_loss".into(), number(&toy.expected(&a, &b)?)),
                ("shape".into(), mean(&a)),
                ("scale".into(), mean(&b)),
            ],
            Task::Logistic(l) => {
                let (elbo, accuracy) = l.evaluate(&a, &b, draws, &mut TorchNoise)?;
                vec![("elbo".into(), elbo), ("accuracy".into(), accuracy), ("scale".into(), mean(&b))]
            }
        })
    }
}

/// Folder of the runs of one problem.
fn place(config: &Config) -> String {
    let word = |v: Value| v.as_str().unwrap_or_default().to_string();
    let name = |v: &dyn Fn() -> serde_json::Result<Value>| v().map(word).unwrap_or_default();
    match (config.dim, config.features, config.kl) {
        (Some(d), ..) => format!("{}-{d}", name(&|| serde_json::to_value(config.problem))),
        (_, Some(f), Some(k)) => {
            let (f, k) = (name(&|| serde_json::to_value(f)), name(&|| serde_json::to_value(k)));
            format!("logistic-{f}-{k}-{}", config.initial_scale.unwrap_or(1.0))
        }
        _ => "logistic".into(),
    }
}

impl Progress {
    /// All that a resumed run needs: parameters, moments, generators.
    fn checkpoint(&self, leaves: &Leaves, optimizer: &Adam, device: Device) -> Result<Checkpoint> {
        let mut tensors = vec![("first".into(), leaves.first.detach()), ("second".into(), leaves.second.detach())];
        tensors.extend(optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
