//! The search on the table.
use crate::args::{self, Objective, SurrogateArgs, SurrogateConfig, Way, applies};
use crate::evolution::Sampled;
use serde_json::{Map, Value};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
use thruway::data::NatsBench;
use thruway::data::nats_bench::{Measure, Task};
use thruway::error::{Error, Result};
use thruway::estimators::{Built, Estimator, GradEstimator, Knobs, Place};
use thruway::nas::{Cell, Multilinear};
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Method, Settings};
use thruway::probe;
use thruway::run::{Checkpoint, Run, seeding};

/// Standard deviation of the first logits (published code of GDAS).
pub const INITIAL: f64 = 1e-3;

/// What is minimised, as a function of weights `[.., 6, 5]`.
pub struct Problem {
    accuracy: Multilinear,
    /// Of the objective's own values at the cells: its value at the probabilities is the objective's expectation.
    exact: Multilinear,
    objective: Objective,
}

impl Problem {
    /// Of one column of the table.
    pub fn new(table: &NatsBench, task: Task, measure: Measure, objective: Objective) -> Result<Problem> {
        let share: Vec<f64> = table.column(task, measure).iter().map(|a| a / 100.0).collect();
        let accuracy = Multilinear::new(&share, Device::Cpu)?;
        let exact = accuracy.map(|a| objective_of(objective, a))?;
        Ok(Problem { accuracy, exact, objective })
    }

    /// The objective: `[.., 6, 5] -> [..]`.
    pub fn at(&self, x: &Tensor) -> Result<Tensor> {
        objective_of(self.objective, &self.accuracy.at(x)?)
    }

    /// The exact gradient of its expectation in the logits `[6, 5]`.
    pub fn gradient(&self, logits: &Tensor) -> Result<Tensor> {
        let leaf = logits.detach().copy().f_set_requires_grad(true)?;
        let expected = self.exact.at(&leaf.f_softmax(-1, Kind::Double)?)?;
        Ok(Tensor::f_run_backward(&[expected], &[&leaf], false, false)?.remove(0))
    }
}

fn objective_of(objective: Objective, accuracy: &Tensor) -> Result<Tensor> {
    Ok(match objective {
        Objective::Accuracy => accuracy.f_neg()?,
        Objective::LogError => accuracy.f_neg()?.f_log1p()?,
    })
}

/// Where a search stands between two steps; with the tensors, all that a resumed one needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    sampled: Sampled,
    /// Sum over the log points and their number.
    regret: (f64, f64),
    /// The first log point at which the best cell was found.
    found: Option<i64>,
    /// Of a probe, summed over the log points: by metric.
    probed: Map<String, Value>,
}

/// The whole search.
pub fn run(args: &SurrogateArgs) -> Result<()> {
    let mut run_args = args.run.clone();
    if run_args.device == "auto" {
        run_args.device = "cpu".into(); // also where there is a GPU
    }
    let device = run_args.prepare()?;
    if device != Device::Cpu {
        let why = "a search on the table is thirty numbers large and runs on the CPU: leave it out";
        return Err(Error::Usage(format!("--device {}: {why}", run_args.device)));
    }
    let table = args::needed_table(args.table.as_ref())?;
    let config = SurrogateConfig::new(args, &table)?;
    let problem = Problem::new(&table, config.task, config.measure, config.objective)?;
    let place = Place { kind: Kind::Double, device };
    let knobs = args.knobs.knobs(place)?;
    let mut logits = (Tensor::f_randn([6, 5], (Kind::Double, device))? * INITIAL).f_set_requires_grad(true)?;
    let mut search = match config.estimator {
        Some(estimator) => Some(Gradient::new(estimator, &knobs, &config, &logits)?),
        None => None,
    };
    let name = config.estimator.map_or(format!("{:?}", config.search).to_lowercase(), |e| e.name());
    let default_out: PathBuf = ["runs", "nas", "surrogate", &name, &args.run.seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("nas-surrogate", &run_args, default_out, serde_json::to_value(&config)?)?;
    run.expect_steps(config.steps);
    let mut at = Progress::default();
    if let Some(c) = checkpoint {
        tch::no_grad(|| logits.f_copy_(c.tensor("logits")?).map_err(Error::from))?;
        if let Some(search) = &mut search {
            search.restore(&c)?;
        }
        seeding::restore(device, &c)?;
        at = run.state(&c)?;
    }
    let (population, tournament) = (config.population.unwrap_or(0), config.tournament.unwrap_or(0));
    let by_code = table.column(config.task, config.measure);

    while at.step < config.steps {
        let loss = match &mut search {
            Some(search) => search.step(&problem, &logits, config.batch_size, at.step)?,
            None => {
                let accuracy = |code: usize| by_code[code];
                at.sampled.step(population as usize, tournament as usize, &accuracy, &mut TorchNoise)?;
                -by_code[at.sampled.best.unwrap_or(0)] / 100.0
            }
        };
        at.step += 1;
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        run.step_done(at.step, loss);
        if at.step % args.run.log_every == 0 || at.step == 1 || at.step == config.steps {
            run.pause();
            let cell = at.cell(&config, &logits)?;
            let regret = table.regret(&cell, config.task, config.measure);
            at.regret = (at.regret.0 + regret, at.regret.1 + 1.0);
            at.found = at.found.or((regret == 0.0).then_some(at.step));
            let mut metrics = vec![
                ("loss".to_string(), loss),
                ("regret".into(), regret),
                ("test_regret".into(), table.regret(&cell, config.task, Measure::Test200)),
            ];
            if search.is_some() {
                let (expected, entropy) = distribution(&problem, &logits)?;
                metrics.extend([("expected".into(), expected), ("entropy".into(), entropy)]);
            }
            if let Some(draws) = config.probe_draws {
                let probed = probe_all(&problem, &logits, draws, args.run.seed, at.step)?;
                for (name, value) in &probed {
                    let sum = at.probed.get(name).and_then(Value::as_f64).unwrap_or(0.0);
                    at.probed.insert(name.clone(), (sum + value).into());
                }
                metrics.extend(probed);
            }
            let line: Vec<(&str, f64)> = metrics.iter().map(|(n, v)| (n.as_str(), *v)).collect();
            run.log(at.step, 0, &line)?;
            run.resume_clock();
        }
        if at.step < config.steps && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, 0, &at.checkpoint(&logits, search.as_ref())?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    run.save(at.step, 0, &at.checkpoint(&logits, search.as_ref())?)?;
    let last = at.finals(&config, &table, &problem, &logits)?;
    run.finish(at.step, 0, last)?;
    Ok(())
}

/// Steps along an estimate.
struct Gradient {
    built: Built,
    /// Take the exact gradient from the extension, which costs one evaluation and not 15,625.
    exact: bool,
    optimizer: Adam,
    /// Of what the estimator learns itself.
    own: Option<Adam>,
}

impl Gradient {
    fn new(estimator: Estimator, knobs: &Knobs, config: &SurrogateConfig, logits: &Tensor) -> Result<Gradient> {
        let settings = Settings {
            lr: config.lr.unwrap_or_default(),
            betas: (0.5, 0.999),
            weight_decay: config.weight_decay.unwrap_or_default(),
            ..Settings::default()
        };
        let built = estimator.build(knobs)?;
        let optimizer = Adam::new(Method::Adam, settings, [("logits", logits)])?;
        let parameters = built.parameters();
        let own = (!parameters.is_empty()).then(|| {
            let settings = Settings { weight_decay: 0.0, ..settings };
            Adam::new(Method::Adam, settings, parameters.iter().map(|(n, t)| (n.as_str(), t)))
        });
        Ok(Gradient { built, exact: estimator == Estimator::Exact, optimizer, own: own.transpose()? })
    }

    /// One step; the mean objective of its draws.
    fn step(&mut self, problem: &Problem, logits: &Tensor, batch: i64, step: i64) -> Result<f64> {
        self.built.at_step(step);
        self.optimizer.zero_grad();
        self.own.iter_mut().for_each(Adam::zero_grad);
        let loss = if self.exact {
            problem.exact.at(&logits.f_softmax(-1, Kind::Double)?)?
        } else {
            let rows = logits.f_unsqueeze(0)?.f_expand([batch, 6, 5], false)?;
            let loss = self.built.surrogate_loss(&rows, &|x: &Tensor| problem.at(x), &mut TorchNoise)?;
            loss.f_mean(Kind::Double)?
        };
        loss.f_backward()?;
        self.optimizer.step()?;
        self.own.iter_mut().try_for_each(Adam::step)?;
        Ok(number(&loss))
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut all: Vec<(String, Tensor)> =
            self.optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)).collect();
        let own = self.built.parameters().into_iter().chain(self.built.buffers());
        all.extend(own.map(|(n, t)| (format!("estimator.{n}"), t.detach())));
        let state = self.own.iter().flat_map(Adam::state);
        all.extend(state.map(|(n, t)| (format!("estimator-optimizer.{n}"), t)));
        all
    }

    fn restore(&mut self, c: &Checkpoint) -> Result<()> {
        let find = |name: String| c.tensor(&name).ok().map(Tensor::shallow_clone);
        self.optimizer.restore(|n| find(format!("optimizer.{n}")))?;
        self.built.load(&|n| find(format!("estimator.{n}")))?;
        self.own.iter_mut().try_for_each(|o| o.restore(|n| find(format!("estimator-optimizer.{n}"))))
    }
}

/// Expected accuracy in percent, and the entropy of all edges together in nats.
fn distribution(problem: &Problem, logits: &Tensor) -> Result<(f64, f64)> {
    let _guard = tch::no_grad_guard();
    let p = logits.f_softmax(-1, Kind::Double)?;
    Ok((100.0 * number(&problem.accuracy.at(&p)?), number(&p.f_special_entr()?.f_sum(Kind::Double)?)))
}

/// The likeliest cell.
pub fn likeliest(logits: &Tensor) -> Result<Cell> {
    Cell::from_classes(&Vec::<i64>::try_from(logits.f_argmax(-1, false)?.f_to_device(Device::Cpu)?)?)
}

/// Bias, standard deviation and cosine of every estimator that applies, at its default knobs and these logits.
fn probe_all(problem: &Problem, logits: &Tensor, draws: i64, seed: i64, step: i64) -> Result<Vec<(String, f64)>> {
    let truth = problem.gradient(logits)?;
    let place = Place { kind: Kind::Double, device: Device::Cpu };
    let mut all = vec![("gradient".to_string(), number(&truth.f_norm()?))];
    for e in Estimator::ALL.iter().copied().filter(|e| applies(*e) && *e != Estimator::Exact) {
        let sizes = thruway::estimators::Sizes { latents: Some(6), context: None, place: Some(place) };
        let knobs = Knobs { sizes, ..Knobs::default() };
        let rows = logits.detach().f_unsqueeze(0)?;
        let f = |x: &Tensor| problem.at(x);
        let seen = probe::accuracy(e, &knobs, &rows, &f, &truth, draws, &mut probe::stream(seed, step))?;
        let name = e.name().replace('-', "_");
        let values = [("bias", seen.bias), ("std", seen.std), ("cosine", seen.cosine), ("rmse", seen.rmse)];
        all.extend(values.map(|(what, v)| (format!("{what}_{name}"), v)));
    }
    Ok(all)
}

impl Progress {
    /// The cell that the search would give now.
    fn cell(&self, config: &SurrogateConfig, logits: &Tensor) -> Result<Cell> {
        match config.search {
            Way::Gradient => likeliest(logits),
            _ => Ok(self.sampled.best.and_then(Cell::from_code).expect("a step was made")),
        }
    }

    fn finals(
        &self,
        config: &SurrogateConfig,
        table: &NatsBench,
        problem: &Problem,
        logits: &Tensor,
    ) -> Result<Map<String, Value>> {
        let cell = self.cell(config, logits)?;
        let mut last = Map::new();
        last.insert("regret".into(), table.regret(&cell, config.task, config.measure).into());
        last.insert("mean_regret".into(), (self.regret.0 / self.regret.1).into());
        last.insert("rank".into(), table.rank(&cell, config.task, config.measure).into());
        last.insert("found_best".into(), u8::from(self.found.is_some()).into());
        if config.search == Way::Gradient {
            let (expected, entropy) = distribution(problem, logits)?;
            last.insert("expected".into(), expected.into());
            last.insert("entropy".into(), entropy.into());
        }
        for task in Task::ALL {
            last.insert(format!("{task}_test"), table.query(&cell, task, Measure::Test200).into());
        }
        last.insert("test_regret".into(), table.regret(&cell, config.task, Measure::Test200).into());
        for (name, sum) in &self.probed {
            let mean = sum.as_f64().unwrap_or(f64::NAN) / self.regret.1;
            last.insert(format!("mean_{name}"), mean.into());
        }
        last.insert("cell".into(), cell.to_string().into());
        Ok(last)
    }

    fn checkpoint(&self, logits: &Tensor, search: Option<&Gradient>) -> Result<Checkpoint> {
        let mut tensors = vec![("logits".to_string(), logits.detach())];
        tensors.extend(search.into_iter().flat_map(Gradient::tensors));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(Device::Cpu, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
