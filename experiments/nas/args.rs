//! Command line of `nas`: every option with its default and the source of the default.
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thruway::data::nats_bench::{Measure, Task};
use thruway::data::{Augment, NatsBench};
use thruway::error::{Error, Result};
use thruway::estimators::{self, Estimator, ExactOn, Knobs, Place, Takes, Tau};
use thruway::nas::Cell;
use thruway::nn::search_net::{Activation, Sizes};
use thruway::report::TablesArgs;
use thruway::run::RunArgs;

/// Searches for a cell on CIFAR-10: GDAS with any drop-in estimator.
///
/// One set of weights is shared by all cells. A step draws a cell and moves the weights on a batch of one half of the training
/// images, then draws another and moves the distribution over cells on a batch of the other half. Defaults are those of the
/// published code of GDAS, but for the estimator.
#[derive(Debug, Parser)]
#[command(name = "nas", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub search: SearchArgs,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Search without images: the table's accuracies are the objective, whose exact gradient is known
    Surrogate(Box<SurrogateArgs>),
    /// Train one cell from scratch, as the benchmark did
    Train(Box<TrainArgs>),
    /// Accuracies and ranks of one cell in the benchmark's table
    Query(QueryArgs),
    /// Tables and curves of finished searches
    Tables(TablesArgs),
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
            sizes: estimators::Sizes { latents: Some(6), context: None, place: Some(place) },
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

/// The search on images.
#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// Settings that go together; every option given beside it wins
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// DARTS in place of drawn cells: all operations, weighed by their probabilities
    #[arg(long, conflicts_with_all = ["estimator", "activation", "preset"])]
    pub soft: bool,
    /// Gradient estimator, any drop-in [default: reinmax; gdas-published: stgs]
    #[arg(long)]
    pub estimator: Option<String>,
    #[command(flatten)]
    pub knobs: KnobArgs,
    /// What an edge makes of its choice [default: selected; both presets: published]
    #[arg(long, value_enum)]
    pub activation: Option<Activation>,
    /// Images: auto takes CIFAR-10, else the generated ones
    #[arg(long, value_enum, default_value_t = Dataset::Auto)]
    pub dataset: Dataset,
    /// What is done to the images of both halves
    #[arg(long, value_enum, default_value_t = Augment::FlipCrop)]
    pub augment: Augment,
    /// Images for the weights (one half)
    #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(i64).range(2..=25_000))]
    pub train_size: i64,
    /// Images for the architecture (the other half)
    #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(i64).range(1..=25_000))]
    pub valid_size: i64,
    /// Of these, images on which the likeliest cell is evaluated with the shared weights
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub eval_size: i64,
    #[command(flatten)]
    pub sizes: SizeArgs,
    /// Images a step, of each half
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(i64).range(2..))]
    pub batch_size: i64,
    /// Epochs: the length of both schedules (the published configuration; its run script has 200, GDAS's paper 250)
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub epochs: i64,
    /// Steps to make at most; the schedules stay those of --epochs [default: no limit]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub steps: Option<i64>,
    /// Learning rate of the weights in the first epoch (SGD with Nesterov momentum 0.9), along half a cosine
    #[arg(long, default_value_t = 0.025, allow_hyphen_values = true)]
    pub lr: f64,
    /// Where the cosine ends
    #[arg(long, default_value_t = 0.001, allow_hyphen_values = true)]
    pub lr_min: f64,
    /// L2 penalty on the weights
    #[arg(long, default_value_t = 5e-4, allow_hyphen_values = true)]
    pub weight_decay: f64,
    /// Learning rate of the architecture (Adam with betas 0.5 and 0.999)
    #[arg(long, default_value_t = 3e-4, allow_hyphen_values = true)]
    pub arch_lr: f64,
    /// L2 penalty on the architecture's logits [default: 0.001; preset reinmax: 0.09 (Liu et al. 2023)]
    #[arg(long, allow_hyphen_values = true)]
    pub arch_weight_decay: Option<f64>,
    /// The benchmark's table, for the accuracies of cells [default: nats_bench/nats_tss.csv.gz in THRUWAY_DATA or data]
    #[arg(long)]
    pub table: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Sizes of the network.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct SizeArgs {
    /// Channels of the first of three stages
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i64).range(1..))]
    pub channels: i64,
    /// Cells of each stage
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(i64).range(1..))]
    pub cells: i64,
}

impl SizeArgs {
    /// With ten classes.
    pub fn sizes(&self) -> Sizes {
        Sizes { channels: self.channels, cells: self.cells, classes: 10 }
    }
}

/// Settings that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// GDAS as its code has it: STGS with tau from 10 to 0.1, linear over the epochs
    GdasPublished,
    /// Liu et al. 2023: ReinMax in its place, tau 1, weight decay 0.09 on the architecture
    Reinmax,
}

/// Which images are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dataset {
    /// CIFAR-10 where it can be had, else generated images
    Auto,
    /// CIFAR-10 and nothing else
    Cifar10,
    /// Generated images
    Synthetic,
}

/// Everything that decides the numbers of a search; the `config` of config.json, beside the images.
#[derive(Debug, Clone, Serialize)]
pub struct SearchConfig {
    pub preset: Option<Preset>,
    pub soft: bool,
    pub estimator: Option<Estimator>,
    pub tau: Option<String>,
    pub samples: Option<i64>,
    pub gap: Option<f64>,
    pub activation: Option<Activation>,
    pub augment: Augment,
    pub train_size: i64,
    pub valid_size: i64,
    pub eval_size: i64,
    pub channels: i64,
    pub cells: i64,
    pub batch_size: i64,
    pub epochs: i64,
    pub steps: Option<i64>,
    pub lr: f64,
    pub lr_min: f64,
    pub weight_decay: f64,
    pub arch_lr: f64,
    pub arch_weight_decay: f64,
    pub table_sha256: Option<String>,
}

fn above_0(what: &str, v: f64) -> Result<f64> {
    if v.is_finite() && v > 0.0 { Ok(v) } else { Err(Error::range(what, "positive and finite", v)) }
}

impl SearchConfig {
    /// Fills in the preset and the defaults, and refuses what makes no sense.
    pub fn new(args: &SearchArgs, place: Place, table: Option<&NatsBench>) -> Result<(SearchConfig, Knobs)> {
        let published = args.preset == Some(Preset::GdasPublished);
        let name = args.estimator.as_deref().unwrap_or(if published { "stgs" } else { "reinmax" });
        let estimator = Estimator::by_name(name)?;
        let mut given = args.knobs.clone();
        if args.soft && (given.tau.is_some() || given.samples.is_some() || given.gap.is_some() || given.decay.is_some())
        {
            return Err(Error::Usage("--soft draws nothing: it takes no tau, samples, gap or decay".into()));
        }
        if given.tau.is_none() && !args.soft && estimator.claims().knobs.contains(&"tau") {
            // steps of the schedule are epochs; the first epoch has the first value, the last one the last
            let schedule = || format!("linear:10:0.1:{}", (args.epochs - 1).max(1));
            given.tau = Some(if estimator == Estimator::Stgs { schedule() } else { "1".into() });
        }
        let knobs = given.knobs(place)?;
        let mut activation = None;
        if !args.soft {
            estimator.build(&knobs)?.drop_in()?;
            let default = if args.preset.is_some() { Activation::Published } else { Activation::Selected };
            activation = Some(args.activation.unwrap_or(default));
            if !estimator.claims().hard_forward {
                if args.activation.is_some() {
                    let why = format!(
                        "{} relaxes its samples: all operations are run; leave out --activation",
                        estimator.name()
                    );
                    return Err(Error::Usage(why));
                }
                activation = None;
            }
        }
        let decay = args.arch_weight_decay.unwrap_or(if args.preset == Some(Preset::Reinmax) { 0.09 } else { 1e-3 });
        if !(args.lr_min.is_finite() && args.lr_min > 0.0 && args.lr_min <= args.lr) {
            return Err(Error::range("--lr-min", "positive and at most --lr", args.lr_min));
        }
        let config = SearchConfig {
            preset: args.preset,
            soft: args.soft,
            estimator: (!args.soft).then_some(estimator),
            tau: given.tau,
            samples: given.samples,
            gap: given.gap,
            activation,
            augment: args.augment,
            train_size: args.train_size,
            valid_size: args.valid_size,
            eval_size: args.eval_size,
            channels: args.sizes.channels,
            cells: args.sizes.cells,
            batch_size: args.batch_size,
            epochs: args.epochs,
            steps: args.steps,
            lr: above_0("--lr", args.lr)?,
            lr_min: args.lr_min,
            weight_decay: args.weight_decay,
            arch_lr: above_0("--arch-lr", args.arch_lr)?,
            arch_weight_decay: decay,
            table_sha256: table.map(|t| t.sha256.clone()),
        };
        Ok((config, knobs))
    }

    /// Of the network.
    pub fn sizes(&self) -> Sizes {
        SizeArgs { channels: self.channels, cells: self.cells }.sizes()
    }

    /// Learning rate of the weights in an epoch, from 0.
    pub fn lr_at(&self, epoch: i64) -> f64 {
        cosine(self.lr, self.lr_min, epoch, self.epochs)
    }
}

/// The rate of an epoch, from 0: half a cosine from `from` to `to`.
pub fn cosine(from: f64, to: f64, epoch: i64, epochs: i64) -> f64 {
    to + (from - to) * (1.0 + (std::f64::consts::PI * epoch as f64 / epochs as f64).cos()) / 2.0
}

/// Trains one cell from scratch on all training images and reports its test accuracy; defaults are the benchmark's settings
/// for CIFAR-10 (Dong et al. 2021, Table 3).
#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// The cell: its string in the benchmark's notation, or its index (which needs the table)
    pub arch: String,
    /// Images: auto takes CIFAR-10, else the generated ones
    #[arg(long, value_enum, default_value_t = Dataset::Auto)]
    pub dataset: Dataset,
    /// Training images
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(i64).range(2..=50_000))]
    pub train_size: i64,
    /// Test images
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub test_size: i64,
    #[command(flatten)]
    pub sizes: SizeArgs,
    /// Images a step
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(i64).range(2..))]
    pub batch_size: i64,
    /// Epochs: the length of the schedule
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i64).range(1..))]
    pub epochs: i64,
    /// Steps to make at most; the schedule stays that of --epochs [default: no limit]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub steps: Option<i64>,
    /// Learning rate in the first epoch (SGD with Nesterov momentum 0.9); half a cosine takes it to 0
    #[arg(long, default_value_t = 0.1, allow_hyphen_values = true)]
    pub lr: f64,
    /// L2 penalty
    #[arg(long, default_value_t = 5e-4, allow_hyphen_values = true)]
    pub weight_decay: f64,
    /// The benchmark's table, for the published accuracy [default: nats_bench/nats_tss.csv.gz in THRUWAY_DATA or data]
    #[arg(long)]
    pub table: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Everything that decides the numbers of a training; the `config` of config.json, beside the images.
#[derive(Debug, Clone, Serialize)]
pub struct TrainConfig {
    pub arch: Cell,
    pub train_size: i64,
    pub test_size: i64,
    pub channels: i64,
    pub cells: i64,
    pub batch_size: i64,
    pub epochs: i64,
    pub steps: Option<i64>,
    pub lr: f64,
    pub weight_decay: f64,
}

impl TrainConfig {
    /// Refuses what makes no sense.
    pub fn new(args: &TrainArgs, table: Option<&NatsBench>) -> Result<TrainConfig> {
        Ok(TrainConfig {
            arch: cell(&args.arch, table)?,
            train_size: args.train_size,
            test_size: args.test_size,
            channels: args.sizes.channels,
            cells: args.sizes.cells,
            batch_size: args.batch_size,
            epochs: args.epochs,
            steps: args.steps,
            lr: above_0("--lr", args.lr)?,
            weight_decay: args.weight_decay,
        })
    }
}

/// What the table says of a cell.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    /// The cell: its string in the benchmark's notation, or its index
    pub arch: String,
    /// The benchmark's table [default: nats_bench/nats_tss.csv.gz in THRUWAY_DATA or data]
    #[arg(long)]
    pub table: Option<PathBuf>,
}

/// A cell by its string or its index.
pub fn cell(text: &str, table: Option<&NatsBench>) -> Result<Cell> {
    let Ok(index) = text.parse::<usize>() else { return text.parse() };
    let table =
        table.ok_or_else(|| Error::Usage("an index needs the benchmark's table: give the cell's string".into()))?;
    table.cell(index).ok_or_else(|| Error::range("an index", "from 0 to 15624", index))
}

#[cfg(test)]
mod tests {
    use super::cosine;

    /// 0.025 to 0.001 over 100 epochs, set at the start of each: the last stands at 0.001 + 0.024 (1 + cos 0.99 pi) / 2.
    #[test]
    fn nas_rate_of_the_weights_as_published() {
        let at = |epoch| cosine(0.025, 0.001, epoch, 100);
        for (epoch, want) in [(0, 0.025), (25, 0.021485281374238573), (50, 0.013), (99, 0.0010059212756112)] {
            assert!((at(epoch) - want).abs() < 1e-12, "epoch {epoch}: {}", at(epoch));
        }
    }
}
