//! Command line of `semhash`: every option with its default and the source of the default.
use crate::method::Method;
use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;
use thruway::error::{Error, Result};
use thruway::nn::bow::Precision;
use thruway::report::TablesArgs;
use thruway::run::RunArgs;

/// Sizes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 100 epochs and 50 of correction (caption of Fig. 1)
    Paper,
    /// 1000 epochs and 500 of correction (Section 5)
    Long,
    /// 500 words, 32 hidden units, 2 epochs and 1 of correction: to see everything once
    Smoke,
}

/// Trains an autoencoder of word counts with a binary code on 20 Newsgroups through one gradient estimator, then goes on with
/// ARM to correct its bias, and retrieves documents by the Hamming distance of their codes.
///
/// Defaults are those of Shekhovtsov & Yanush 2021, Appendix D.1, where it states them.
#[derive(Debug, Parser)]
#[command(name = "semhash", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Sizes of the run; every option given beside it wins
    #[arg(long, value_enum, default_value_t = Preset::Paper)]
    pub preset: Preset,
    /// Gradient estimator of the training phase (Table D.1, and psa, reinmax, disarm)
    #[arg(long, value_enum, default_value_t = Method::Arm)]
    pub estimator: Method,
    /// Temperature of gumbel-softmax (Table D.1: 1 and 0.1), st, reinmax [default: 1]
    #[arg(long, allow_hyphen_values = true)]
    pub tau: Option<f64>,
    /// Bits of the code, n (Fig. 1: 8, 64, 256)
    #[arg(long, default_value_t = 64, allow_hyphen_values = true)]
    pub bits: i64,
    /// Words kept, the most frequent of the training part [default: 10,000 (Appendix D.1)]
    #[arg(long, allow_hyphen_values = true)]
    pub words: Option<i64>,
    /// Units of the two hidden layers [default: 512 (Appendix D.1)]
    #[arg(long, allow_hyphen_values = true)]
    pub hidden_dim: Option<i64>,
    /// Products of the output layer, which is what a step costs
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Learning rate of Adam in both phases (Appendix D.1)
    #[arg(long, default_value_t = 1e-3, allow_hyphen_values = true)]
    pub lr: f64,
    /// Documents a step [not stated]
    #[arg(long, default_value_t = 100, allow_hyphen_values = true)]
    pub batch_size: i64,
    /// Epochs with the estimator [default: 100 (caption of Fig. 1; Section 5 has 1000)]
    #[arg(long, allow_hyphen_values = true)]
    pub epochs: Option<i64>,
    /// Epochs of the correction phase after them [default: 50 (Section 5: half as many)]
    #[arg(long, allow_hyphen_values = true)]
    pub correction_epochs: Option<i64>,
    /// Pairs of ARM whose mean is taken in the correction phase [default: 10 (Section 5)]
    #[arg(long, allow_hyphen_values = true)]
    pub correction_samples: Option<i64>,
    /// Go on with the estimator itself in the correction phase, Adam started afresh all the same: what ARM's correction is held
    /// against
    #[arg(long)]
    pub control: bool,
    /// Steps to train; with the epochs the first reached ends the run
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    /// Measure every estimator at the parameters after each so many epochs with --estimator arm, and at the start; 0: never
    /// [default: 20 for arm (Appendix D.1: 100, of 1000)]
    #[arg(long, allow_hyphen_values = true)]
    pub measure_every: Option<i64>,
    /// Batches of the measurement, or `all` there are (Appendix D.1: all) [default: 1]
    #[arg(long, value_name = "N|all", allow_hyphen_values = true)]
    pub measure_batches: Option<Batches>,
    /// Documents of each [default: 100]
    #[arg(long, allow_hyphen_values = true)]
    pub measure_batch_size: Option<i64>,
    /// Products of the output layer in the measurement, whatever they are in training [default: f32]
    #[arg(long, value_enum)]
    pub measure_precision: Option<Precision>,
    /// Estimates of each batch [default: 100 (Appendix D.1)]
    #[arg(long, allow_hyphen_values = true)]
    pub trials: Option<i64>,
    /// The same for psa, which costs n + 1 evaluations each [default: --trials / 10]
    #[arg(long, allow_hyphen_values = true)]
    pub psa_trials: Option<i64>,
    /// Pairs of ARM in the reference gradient, an even number [default: 1000 (Appendix D.1)]
    #[arg(long, allow_hyphen_values = true)]
    pub reference: Option<i64>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// How many batches are measured.
#[derive(Debug, Clone, Copy)]
pub enum Batches {
    /// All of the training part.
    All,
    /// So many.
    Some(i64),
}

impl FromStr for Batches {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Batches, String> {
        match text {
            "all" => Ok(Batches::All),
            _ => text.parse().map(Batches::Some).map_err(|_| "a number or `all` is expected".into()),
        }
    }
}

/// Besides a run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tables and figures of finished runs, and the paper's sentences held against them
    Tables(TablesArgs),
    /// Time of a training step with sparse and with dense input, of its parts, and the limit that the output layer sets
    Bench(BenchArgs),
}

/// `semhash bench`
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Documents a step
    #[arg(long, default_value_t = 100, allow_hyphen_values = true)]
    pub batch_size: i64,
    /// Bits of the code
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(i64).range(1..))]
    pub bits: i64,
    /// Words kept
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub words: i64,
    /// Units of the two hidden layers
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(i64).range(1..))]
    pub hidden_dim: i64,
    /// Rounds, each part once in each
    #[arg(long, default_value_t = 15, allow_hyphen_values = true)]
    pub rounds: i64,
    /// Threads within one operation
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pub threads: i32,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// File for the times, JSON
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Fill the table `bench` in this file
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// What is measured along ARM's trajectory.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Measure {
    pub every: i64,
    /// `None`: all there are.
    pub batches: Option<i64>,
    pub batch_size: i64,
    pub precision: Precision,
    pub trials: i64,
    pub psa_trials: i64,
    pub reference: i64,
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub estimator: Method,
    pub tau: Option<f64>,
    pub bits: i64,
    pub words: i64,
    pub hidden_dim: i64,
    pub precision: Precision,
    pub lr: f64,
    pub batch_size: i64,
    pub epochs: i64,
    pub correction_epochs: i64,
    pub correction_samples: i64,
    /// Whether the estimator itself corrects.
    pub control: bool,
    pub steps: Option<i64>,
    /// Draws from a stream of its own and changes no number of the training.
    pub measure: Option<Measure>,
}

impl Config {
    /// Fills in the defaults and refuses what makes no sense.
    pub fn new(args: &Args) -> Result<Config> {
        let at_least = |least: i64, what: &str, v: i64| {
            if v < least { Err(Error::range(what, format!("at least {least}"), v)) } else { Ok(v) }
        };
        let (words, hidden_dim, epochs, correction) = match args.preset {
            Preset::Paper => (10_000, 512, 100, 50),
            Preset::Long => (10_000, 512, 1000, 500),
            Preset::Smoke => (500, 32, 2, 1),
        };
        let tau = match args.estimator {
            Method::GumbelSoftmax => Some(args.tau.unwrap_or(1.0)),
            _ => args.tau,
        };
        args.estimator.build(tau)?; // what it refuses, at once
        let epochs = at_least(0, "--epochs", args.epochs.unwrap_or(epochs))?;
        let correction = at_least(0, "--correction-epochs", args.correction_epochs.unwrap_or(correction))?;
        at_least(1, "--epochs and --correction-epochs together", epochs + correction)?;
        if !(args.lr.is_finite() && args.lr > 0.0) {
            return Err(Error::range("--lr", "positive and finite", args.lr));
        }
        let trials = at_least(1, "--trials", args.trials.unwrap_or(100))?;
        let measure = Measure {
            every: at_least(0, "--measure-every", args.measure_every.unwrap_or(20))?,
            batches: match args.measure_batches.unwrap_or(Batches::Some(1)) {
                Batches::All => None,
                Batches::Some(n) => Some(at_least(1, "--measure-batches", n)?),
            },
            batch_size: at_least(1, "--measure-batch-size", args.measure_batch_size.unwrap_or(100))?,
            precision: args.measure_precision.unwrap_or(Precision::F32),
            trials,
            psa_trials: at_least(1, "--psa-trials", args.psa_trials.unwrap_or((trials / 10).max(1)))?,
            reference: at_least(2, "--reference", args.reference.unwrap_or(1000))?,
        };
        if measure.reference % 2 == 1 {
            return Err(Error::range("--reference", "even: its halves tell its own error", measure.reference));
        }
        let arm = args.estimator == Method::Arm;
        let of_measurement = [
            ("--measure-every", args.measure_every.is_some_and(|n| n > 0)),
            ("--measure-batches", args.measure_batches.is_some()),
            ("--measure-batch-size", args.measure_batch_size.is_some()),
            ("--measure-precision", args.measure_precision.is_some()),
            ("--trials", args.trials.is_some()),
            ("--psa-trials", args.psa_trials.is_some()),
            ("--reference", args.reference.is_some()),
        ];
        if let Some((flag, _)) = of_measurement.iter().find(|(_, given)| !arm && *given) {
            let reason = format!("{flag} is for --estimator arm, whose trajectory all are measured on");
            return Err(Error::Usage(reason));
        }
        if args.correction_samples.is_some() && (correction == 0 || args.control) {
            let why = if args.control { "--control has none" } else { "--correction-epochs 0 leaves none" };
            return Err(Error::Usage(format!("--correction-samples is for the correction by ARM: {why}")));
        }
        if args.control && correction == 0 {
            return Err(Error::Usage("--control is for a correction phase: --correction-epochs 0 leaves none".into()));
        }
        Ok(Config {
            estimator: args.estimator,
            tau,
            bits: at_least(1, "--bits", args.bits)?,
            words: at_least(1, "--words", args.words.unwrap_or(words))?,
            hidden_dim: at_least(1, "--hidden-dim", args.hidden_dim.unwrap_or(hidden_dim))?,
            precision: args.precision,
            lr: args.lr,
            batch_size: at_least(1, "--batch-size", args.batch_size)?,
            epochs,
            correction_epochs: correction,
            correction_samples: at_least(1, "--correction-samples", args.correction_samples.unwrap_or(10))?,
            control: args.control,
            steps: args.steps.map(|n| at_least(1, "--steps", n)).transpose()?,
            measure: (arm && measure.every > 0).then_some(measure),
        })
    }

    /// The estimator as tables and paths name it: with its temperature, where it has one of its own.
    pub fn label(&self) -> String {
        crate::measure::label(self.estimator, self.tau) + if self.control { "-control" } else { "" }
    }
}
