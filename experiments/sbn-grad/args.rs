//! Command line of `sbn-grad`: every option with its default and the source of the default.
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thruway::error::{Error, Result};
use thruway::report::TablesArgs;
use thruway::run::RunArgs;
use thruway::sbn::Method;

fn methods() -> String {
    let lines: Vec<String> = Method::ALL.iter().map(|m| format!("  {:<14}{}", m.name(), m.title())).collect();
    format!("Methods:\n{}", lines.join("\n"))
}

/// Trains the small network of Section C.1 on 2D points of two classes and measures at chosen epochs how well every method
/// estimates the gradient: RMSE and cosine by layer against the exact gradient, for 1 to 10,000 samples.
///
/// Where the states are all that is random, mean and variance are enumerated too. Defaults are those of the PSA paper,
/// Section C.1, and where it is silent of its released code.
#[derive(Debug, Parser)]
#[command(name = "sbn-grad", version, args_conflicts_with_subcommands = true, after_help = methods())]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Binary units of each layer (Section C.1)
    #[arg(long, value_delimiter = ',', default_value = "5,5,5")]
    pub units: Vec<i64>,
    /// Training method of the reference trajectory (Fig. 2)
    #[arg(long, value_enum, default_value_t = Method::Reinforce)]
    pub estimator: Method,
    /// Epochs to train (Fig. 3)
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(i64).range(0..))]
    pub epochs: i64,
    /// Steps to train; with --epochs the first reached ends the run
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    pub steps: Option<i64>,
    /// Learning rate (released code)
    #[arg(long, default_value_t = 0.03, allow_hyphen_values = true)]
    pub lr: f64,
    /// Momentum, not Nesterov (released code)
    #[arg(long, default_value_t = 0.9, allow_hyphen_values = true)]
    pub momentum: f64,
    /// Points a step (released code)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=200))]
    pub batch_size: i64,
    /// Epochs after which the methods are measured (Fig. 3)
    #[arg(long, value_delimiter = ',', default_value = "1,100,2000")]
    pub measure_at: Vec<i64>,
    /// Methods to measure, exact excepted, which they are measured against [default: all others]
    #[arg(long, value_delimiter = ',', value_enum)]
    pub methods: Vec<Method>,
    /// Samples T of each method (released code; the text has 10,000)
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(i64).range(2..))]
    pub samples: i64,
    /// A file of the form of `psa_555.json` with published parameters, to be measured at first [default: the one in
    /// $THRUWAY_FIXTURES, if it is there]
    #[arg(long, value_name = "FILE")]
    pub published: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What else there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tables and figures of finished runs: prints them, fills a README and draws RMSE and cosine with 70 % intervals
    Tables(TablesArgs),
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub units: Vec<i64>,
    pub estimator: Method,
    pub epochs: i64,
    pub steps: i64,
    pub lr: f64,
    pub momentum: f64,
    pub batch_size: i64,
    pub measure_at: Vec<i64>,
    pub methods: Vec<Method>,
    pub samples: i64,
    /// SHA-256 of the file of published parameters, if one is measured.
    pub published: Option<String>,
}

impl Config {
    /// Fills in the defaults; `published` is the content of that file.
    pub fn new(args: &Args, steps_per_epoch: i64, published: Option<&[u8]>) -> Result<Config> {
        use sha2::{Digest, Sha256};
        if args.units.is_empty() || args.units.iter().any(|n| !(1..=12).contains(n)) {
            return Err(Error::range(
                "--units",
                "1 to 12 in each layer, to be enumerated",
                format!("{:?}", args.units),
            ));
        }
        if args.methods.contains(&Method::Exact) {
            let why = "--methods exact: the exact gradient is what the methods are measured against, leave it out";
            return Err(Error::Usage(why.into()));
        }
        if let Some(e) = args.measure_at.iter().find(|e| **e < 0 || **e > args.epochs) {
            return Err(Error::range("--measure-at", format!("0 to --epochs {}", args.epochs), e));
        }
        let steps = (args.epochs * steps_per_epoch).min(args.steps.unwrap_or(i64::MAX));
        let mut measure_at = args.measure_at.clone();
        measure_at.sort();
        measure_at.dedup();
        let all = || Method::ALL.iter().copied().filter(|m| *m != Method::Exact).collect();
        Ok(Config {
            units: args.units.clone(),
            estimator: args.estimator,
            epochs: args.epochs,
            steps,
            lr: args.lr,
            momentum: args.momentum,
            batch_size: args.batch_size,
            measure_at,
            methods: if args.methods.is_empty() { all() } else { args.methods.clone() },
            samples: args.samples,
            published: published.map(|bytes| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()),
        })
    }
}
