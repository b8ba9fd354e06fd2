//! Command line of `nas`: every option with its default and the source of the default.
mod search;
mod surrogate;
mod train;
pub use search::{SearchArgs, SearchConfig};
pub use surrogate::{Objective, SurrogateArgs, SurrogateConfig, Way, applies};
pub use train::{TrainArgs, TrainConfig};

use clap::{Parser, Subcommand};
use std::fmt::Display;
use std::path::PathBuf;
use thruway::data::NatsBench;
use thruway::error::{Error, Result};
use thruway::estimators::{self, Knobs, Place, Tau};
use thruway::nas::{CELLS, Cell};
use thruway::nn::search_net::Sizes;
use thruway::report::TablesArgs;

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
    /// Temperature of the surrogate, dimensionless: a number, linear:FROM:TO:N or exponential:FROM:TO:N, over N epochs in a search
    /// on images and N steps in one on the table [default: 1; stgs on images: linear from 10 to 0.1 over --epochs (published code)]
    #[arg(long)]
    pub tau: Option<String>,
    /// Draws M of gumbel-rao [default: 100], rloo and double-cv [default: 2], local-expectation [default: 1]
    #[arg(long, allow_hyphen_values = true)]
    pub samples: Option<i64>,
    /// Gap of gst, nats [default: 1 (Fan et al. 2022)]
    #[arg(long, allow_hyphen_values = true)]
    pub gap: Option<f64>,
    /// Decay a step of the moving average of reinforce [default: no average] and nvil [default: 0.9]
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

    /// For [`refuse`].
    fn given(&self) -> [Given; 4] {
        [
            given("--tau", &self.tau),
            given("--samples", &self.samples),
            given("--gap", &self.gap),
            given("--decay", &self.decay),
        ]
    }
}

/// A flag, with its value where it is given.
type Given = (&'static str, Option<String>);

fn given<T: Display>(flag: &'static str, value: &Option<T>) -> Given {
    (flag, value.as_ref().map(T::to_string))
}

/// Refuses the first of these options that is given: it would be left out of account.
fn refuse(options: &[Given], why: &str) -> Result<()> {
    match options.iter().find_map(|(flag, value)| value.as_ref().map(|v| format!("{flag} {v}"))) {
        Some(option) => Err(Error::Usage(format!("{}: {why}", option.trim_end()))),
        None => Ok(()),
    }
}

fn above_0(flag: &str, v: f64) -> Result<f64> {
    if v.is_finite() && v > 0.0 { Ok(v) } else { Err(Error::range(flag, "positive and finite", v)) }
}

fn from_0(flag: &str, v: f64) -> Result<f64> {
    if v.is_finite() && v >= 0.0 { Ok(v) } else { Err(Error::range(flag, "at least 0 and finite", v)) }
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

/// Sizes of the network.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct SizeArgs {
    /// Channels of the first of three stages; each of the others has twice as many as the one before (the benchmark's network)
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i64).range(1..))]
    pub channels: i64,
    /// Cells of each stage (the benchmark's network)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(i64).range(1..))]
    pub cells: i64,
}

impl SizeArgs {
    /// With ten classes.
    pub fn sizes(&self) -> Sizes {
        Sizes { channels: self.channels, cells: self.cells, classes: 10 }
    }
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

/// The rate of an epoch, from 0: half a cosine from `from` to `to`.
pub fn cosine(from: f64, to: f64, epoch: i64, epochs: i64) -> f64 {
    to + (from - to) * (1.0 + (std::f64::consts::PI * epoch as f64 / epochs as f64).cos()) / 2.0
}

/// What the table says of a cell.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    /// The cell: its string in the benchmark's notation, or its index there, 0 to 15624
    #[arg(allow_negative_numbers = true)]
    pub arch: String,
    /// The benchmark's table [default: nats_bench/nats_tss.csv.gz in THRUWAY_DATA or data]
    #[arg(long)]
    pub table: Option<PathBuf>,
}

/// A cell by its string or its index.
pub fn cell(text: &str, table: Option<&NatsBench>) -> Result<Cell> {
    if text.contains('|') {
        return text.parse();
    }
    let index = text.parse::<usize>().ok().filter(|i| *i < CELLS).ok_or_else(|| {
        let either =
            format!("an index from 0 to {} or a string like |op~0|+|op~0|op~1|+|op~0|op~1|op~2| (quoted)", CELLS - 1);
        Error::range("a cell", either, format!("{text:?}"))
    })?;
    let table = table.ok_or_else(|| {
        let why = "an index needs the benchmark's table: give it by --table, or give the cell's string";
        Error::Usage(format!("{index}: {why}"))
    })?;
    Ok(table.cell(index).expect("a table has all cells"))
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
