//! Command line of `semhash`: every option with its default and the source of the default.
use crate::method::Method;
use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
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
    /// Pairs of ARM whose mean is taken in the correction phase (Section 5)
    #[arg(long, default_value_t = 10, allow_hyphen_values = true)]
    pub correction_samples: i64,
    /// Steps to train; with the epochs the first reached ends the run
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    /// Measure every estimator at the parameters after each so many epochs with --estimator arm, and at the start; 0: never
    /// [default: 20 for arm (Appendix D.1: 100, of 1000)]
    #[arg(long, allow_hyphen_values = true)]
    pub measure_every: Option<i64>,
    /// Batches of the measurement (Appendix D.1: all)
    #[arg(long, default_value_t = 1, allow_hyphen_values = true)]
    pub measure_batches: i64,
    /// Documents of each
    #[arg(long, default_value_t = 100, allow_hyphen_values = true)]
    pub measure_batch_size: i64,
    /// Estimates of each batch (Appendix D.1)
    #[arg(long, default_value_t = 100, allow_hyphen_values = true)]
    pub trials: i64,
    /// The same for psa, which costs n + 1 evaluations each [default: --trials / 10]
    #[arg(long, allow_hyphen_values = true)]
    pub psa_trials: Option<i64>,
    /// Pairs of ARM in the reference gradient (Appendix D.1)
    #[arg(long, default_value_t = 1000, allow_hyphen_values = true)]
    pub reference: i64,
    #[command(flatten)]
    pub run: RunArgs,
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
    pub batches: i64,
    pub batch_size: i64,
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
        let measure = Measure {
            every: at_least(0, "--measure-every", args.measure_every.unwrap_or(20))?,
            batches: at_least(1, "--measure-batches", args.measure_batches)?,
            batch_size: at_least(1, "--measure-batch-size", args.measure_batch_size)?,
            trials: at_least(1, "--trials", args.trials)?,
            psa_trials: at_least(1, "--psa-trials", args.psa_trials.unwrap_or((args.trials / 10).max(1)))?,
            reference: at_least(2, "--reference", args.reference)?,
        };
        let arm = args.estimator == Method::Arm;
        if !arm && args.measure_every.is_some_and(|n| n > 0) {
            return Err(Error::Usage(
                "--measure-every is for --estimator arm, whose trajectory all are measured on".into(),
            ));
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
            correction_samples: at_least(1, "--correction-samples", args.correction_samples)?,
            steps: args.steps.map(|n| at_least(1, "--steps", n)).transpose()?,
            measure: (arm && measure.every > 0).then_some(measure),
        })
    }

    /// The estimator as tables and paths name it: with its temperature, where it has one of its own.
    pub fn label(&self) -> String {
        crate::measure::label(self.estimator, self.tau)
    }
}
