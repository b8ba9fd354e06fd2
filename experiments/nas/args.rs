//! Command line of `nas`: every option with its default and the source of the default.
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thruway::data::NatsBench;
use thruway::data::nats_bench::{Measure, Task};
use thruway::error::{Error, Result};
use thruway::estimators::{Estimator, ExactOn, Knobs, Place, Sizes, Takes, Tau};
use thruway::run::RunArgs;

/// Searches for a cell.
#[derive(Debug, Parser)]
#[command(name = "nas", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Search without images: the table's accuracies are the objective, whose exact gradient is known
    Surrogate(SurrogateArgs),
}

/// The parameters of an estimator.
#[derive(Debug, Clone, clap::Args)]
pub struct KnobArgs {
    /// Temperature of the surrogate: a number, linear:FROM:TO:STEPS or exponential:FROM:TO:STEPS
    #[arg(long)]
    pub tau: Option<String>,
    /// Draws of gumbel-rao, rloo, double-cv, local-expectation
    #[arg(long, allow_hyphen_values = true)]
    pub samples: Option<i64>,
    /// Gap of gst, nats
    #[arg(long, allow_hyphen_values = true)]
    pub gap: Option<f64>,
    /// Decay of the moving average of reinforce and nvil
    #[arg(long, allow_hyphen_values = true)]
    pub decay: Option<f64>,
}

impl KnobArgs {
    /// As the registry takes them, for six edges in the given kind and place.
    pub fn knobs(&self, place: Place) -> Result<Knobs> {
        Ok(Knobs {
            tau: self.tau.as_deref().map(str::parse::<Tau>).transpose()?,
            samples: self.samples,
            gap: self.gap,
            decay: self.decay,
            sizes: Sizes { latents: Some(6), context: None, place: Some(place) },
            ..Knobs::default()
        })
    }
}

/// The table at `--table`, else where data sets are looked for.
pub fn table(path: Option<&PathBuf>) -> Result<Option<NatsBench>> {
    match path {
        Some(path) => NatsBench::read(path).map(Some),
        None => NatsBench::load(),
    }
}

/// [`table`], for what is nothing without one.
pub fn needed_table(path: Option<&PathBuf>) -> Result<NatsBench> {
    table(path)?.ok_or_else(|| {
        Error::Usage(
            "there is no nats_bench/nats_tss.csv.gz in THRUWAY_DATA or data: give the benchmark's table by --table \
             (its form: data/README.md)"
                .into(),
        )
    })
}

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
/// derivative there, which is made of the accuracies of the 24 neighbours.
#[derive(Debug, clap::Args)]
pub struct SurrogateArgs {
    /// How cells are looked for
    #[arg(long, value_enum, default_value_t = Way::Gradient)]
    pub search: Way,
    /// Gradient estimator [default: reinmax]
    #[arg(long)]
    pub estimator: Option<String>,
    #[command(flatten)]
    pub knobs: KnobArgs,
    /// What is minimised
    #[arg(long, value_enum, default_value_t = Objective::Accuracy)]
    pub objective: Objective,
    /// Images whose accuracies are searched
    #[arg(long, value_enum, default_value_t = Task::Cifar10)]
    pub task: Task,
    /// Accuracy that is searched (the benchmark's protocol: the one after 12 epochs)
    #[arg(long, value_enum, default_value_t = Measure::Valid12)]
    pub measure: Measure,
    /// The benchmark's table [default: nats_bench/nats_tss.csv.gz in THRUWAY_DATA or data]
    #[arg(long)]
    pub table: Option<PathBuf>,
    /// Draws a step
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub batch_size: i64,
    /// Steps
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(i64).range(1..))]
    pub steps: i64,
    /// Learning rate of Adam (0.5, 0.999)
    #[arg(long, default_value_t = 0.01, allow_hyphen_values = true)]
    pub lr: f64,
    /// L2 penalty on the logits
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub weight_decay: f64,
    /// Size of evolution's population (Dong et al. 2021)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..))]
    pub population: i64,
    /// Members of which the best becomes a parent (Dong et al. 2021)
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i64).range(1..))]
    pub tournament: i64,
    /// At each log point measure bias, standard deviation and cosine of every estimator at this run's logits
    #[arg(long)]
    pub probe: bool,
    /// Draws of a probe, for estimators whose mean cannot be enumerated
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(i64).range(2..))]
    pub probe_draws: i64,
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
        let gradient = args.search == Way::Gradient;
        let KnobArgs { tau, samples, gap, decay } = args.knobs.clone();
        if !gradient && (args.estimator.is_some() || args.probe || tau.or(samples.map(|s| s.to_string())).is_some()) {
            return Err(Error::Usage("--search random and evolution take no estimator and no probe".into()));
        }
        let estimator = Estimator::by_name(args.estimator.as_deref().unwrap_or("reinmax"))?;
        if !applies(estimator) {
            let why = "edges are categorical variables, and the mean of f is searched; choose another estimator";
            return Err(Error::Usage(format!("{} does not apply: {why}", estimator.name())));
        }
        if args.tournament > args.population {
            return Err(Error::range("--tournament", "at most --population", args.tournament));
        }
        let evolution = args.search == Way::Evolution;
        Ok(SurrogateConfig {
            search: args.search,
            estimator: gradient.then_some(estimator),
            tau: args.knobs.tau.clone(),
            samples,
            gap,
            decay,
            objective: args.objective,
            task: args.task,
            measure: args.measure,
            table_sha256: table.sha256.clone(),
            batch_size: args.batch_size,
            steps: args.steps,
            lr: gradient.then_some(args.lr),
            weight_decay: gradient.then_some(args.weight_decay),
            population: evolution.then_some(args.population),
            tournament: evolution.then_some(args.tournament),
            probe: args.probe,
            probe_draws: args.probe.then_some(args.probe_draws),
        })
    }
}
