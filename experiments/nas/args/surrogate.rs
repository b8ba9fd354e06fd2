//! Options of the search on the table.
use super::{Given, KnobArgs, above_0, from_0, given, refuse};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thruway::data::NatsBench;
use thruway::data::nats_bench::{Measure, Task};
use thruway::error::{Error, Result};
use thruway::estimators::{Estimator, ExactOn, Takes};
use thruway::run::RunArgs;

/// How cells are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Along an estimate of the gradient
    Gradient,
    /// Cells drawn uniformly, the best one kept
    Random,
    /// Regularised evolution (Real et al. 2019)
    Evolution,
}

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Minus the accuracy (0 to 1), extended multilinearly
    Accuracy,
    /// ln(1 - a) of the multilinear extension a: curved between the cells
    LogError,
}

/// Searches the table: minimises an objective's expectation over independently drawn edges, 5^6 cells.
///
/// A step asks for the accuracy of one cell, or as many as the estimator needs. Drop-in estimators also take the extension's
/// derivative there, which is made of the accuracies of the 24 neighbours. Runs on the CPU.
#[derive(Debug, clap::Args)]
pub struct SurrogateArgs {
    /// How cells are looked for
    #[arg(long, value_enum, default_value_t = Way::Gradient)]
    pub search: Way,
    /// Gradient estimator of --search gradient [default: reinmax]
    #[arg(long)]
    pub estimator: Option<String>,
    #[command(flatten)]
    pub knobs: KnobArgs,
    /// What --search gradient minimises; the other two see accuracies alone
    #[arg(long, value_enum, default_value_t = Objective::Accuracy)]
    pub objective: Objective,
    /// Images whose accuracies are searched
    #[arg(long, value_enum, default_value_t = Task::Cifar10)]
    pub task: Task,
    /// Accuracy that is searched, percent (the benchmark's protocol: the one after 12 epochs)
    #[arg(long, value_enum, default_value_t = Measure::Valid12)]
    pub measure: Measure,
    /// The benchmark's table [default: nats_bench/nats_tss.csv.gz in THRUWAY_DATA or data]
    #[arg(long)]
    pub table: Option<PathBuf>,
    /// Rows a step over which the estimate is averaged; of --search gradient [default: 1 (ours)]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub batch_size: Option<i64>,
    /// Steps (ours); of random and evolution the number of cells asked for
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(i64).range(1..))]
    pub steps: i64,
    /// Learning rate of Adam with betas 0.5 and 0.999 (GDAS's); of --search gradient [default: 0.01 (ours)]
    #[arg(long, allow_hyphen_values = true)]
    pub lr: Option<f64>,
    /// L2 penalty on the logits, added to their gradient; of --search gradient [default: 0 (ours)]
    #[arg(long, allow_hyphen_values = true)]
    pub weight_decay: Option<f64>,
    /// Cells in the population of --search evolution [default: 10 (published code of Dong et al. 2021)]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub population: Option<i64>,
    /// Members, drawn with repetition, of which the best becomes a parent, of --search evolution [default: 3 (published code of
    /// Dong et al. 2021)]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub tournament: Option<i64>,
    /// At each log point measure bias, standard deviation and cosine of every estimator at this run's logits, relative to the
    /// length of the exact gradient; of --search gradient
    #[arg(long)]
    pub probe: bool,
    /// Draws of a probe, for estimators whose mean cannot be enumerated [default: 1024 (published code of Liu et al. 2023)]
    #[arg(long, value_parser = clap::value_parser!(i64).range(2..))]
    pub probe_draws: Option<i64>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Everything that decides the numbers of a surrogate search; the `config` of config.json.
#[derive(Debug, Clone, Serialize)]
pub struct SurrogateConfig {
    pub search: Way,
    pub estimator: Option<Estimator>,
    pub tau: Option<String>,
    pub samples: Option<i64>,
    pub gap: Option<f64>,
    pub decay: Option<f64>,
    pub objective: Objective,
    pub task: Task,
    pub measure: Measure,
    pub table_sha256: String,
    pub batch_size: i64,
    pub steps: i64,
    pub lr: Option<f64>,
    pub weight_decay: Option<f64>,
    pub population: Option<i64>,
    pub tournament: Option<i64>,
    pub probe: bool,
    pub probe_draws: Option<i64>,
}

/// Whether an estimator can serve here: categorical variables, and an estimate of the mean of f.
pub fn applies(e: Estimator) -> bool {
    e.claims().variables == Takes::Both && e.claims().exact_on != ExactOn::Bound
}

impl SurrogateConfig {
    /// Fills in the defaults and refuses what makes no sense.
    pub fn new(args: &SurrogateArgs, table: &NatsBench) -> Result<SurrogateConfig> {
        let (gradient, evolution) = (args.search == Way::Gradient, args.search == Way::Evolution);
        let estimator = Estimator::by_name(args.estimator.as_deref().unwrap_or("reinmax"))?;
        args.refuse_foreign(estimator)?;
        if gradient && !applies(estimator) {
            let why = "edges are categorical variables, and the mean of f is searched; choose another estimator";
            return Err(Error::Usage(format!("{} does not apply: {why}", estimator.name())));
        }
        let (population, tournament) = (args.population.unwrap_or(10), args.tournament.unwrap_or(3));
        if tournament > population {
            return Err(Error::range("--tournament", format!("at most --population ({population})"), tournament));
        }
        let KnobArgs { tau, samples, gap, decay } = args.knobs.clone();
        Ok(SurrogateConfig {
            search: args.search,
            estimator: gradient.then_some(estimator),
            tau,
            samples,
            gap,
            decay,
            objective: args.objective,
            task: args.task,
            measure: args.measure,
            table_sha256: table.sha256.clone(),
            batch_size: args.batch_size.unwrap_or(1),
            steps: args.steps,
            lr: gradient.then(|| above_0("--lr", args.lr.unwrap_or(0.01))).transpose()?,
            weight_decay: gradient.then(|| from_0("--weight-decay", args.weight_decay.unwrap_or(0.0))).transpose()?,
            population: evolution.then_some(population),
            tournament: evolution.then_some(tournament),
            probe: args.probe,
            probe_draws: args.probe.then_some(args.probe_draws.unwrap_or(1024)),
        })
    }
}

impl SurrogateArgs {
    /// Refuses options that this search would leave out of account.
    fn refuse_foreign(&self, estimator: Estimator) -> Result<()> {
        if self.search != Way::Gradient {
            let mut gradient: Vec<Given> = vec![
                given("--estimator", &self.estimator),
                given("--batch-size", &self.batch_size),
                given("--lr", &self.lr),
                given("--weight-decay", &self.weight_decay),
                ("--probe", self.probe.then(String::new)),
                ("--objective", (self.objective == Objective::LogError).then(|| "log-error".into())),
            ];
            gradient.extend(self.knobs.given());
            refuse(&gradient, "is for --search gradient: give that, or leave this out")?;
        }
        if self.search != Way::Evolution {
            let evolution = [given("--population", &self.population), given("--tournament", &self.tournament)];
            refuse(&evolution, "is for --search evolution: give that, or leave this out")?;
        }
        if estimator == Estimator::Exact {
            let why = "--estimator exact draws nothing to average over: leave it out, or choose another estimator";
            refuse(&[given("--batch-size", &self.batch_size)], why)?;
        }
        if !self.probe {
            refuse(&[given("--probe-draws", &self.probe_draws)], "is for --probe: give that too, or leave this out")?;
        }
        let epochs = (self.run.eval_every != 1).then(|| self.run.eval_every.to_string());
        refuse(
            &[("--eval-every", epochs)],
            "a search on the table has no epochs: leave it out; --log-every counts steps",
        )
    }
}
