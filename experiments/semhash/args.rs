//! Command line of `semhash`: every option with its default and the source of the default.
use crate::method::Method;
use clap::Parser;
use serde::{Deserialize, Serialize};
use thruway::error::{Error, Result};
use thruway::run::RunArgs;

/// Trains an autoencoder of word counts with a binary code on 20 Newsgroups through one gradient estimator, then goes on with
/// ARM to correct its bias, and retrieves documents by the Hamming distance of their codes.
///
/// Defaults are those of Shekhovtsov & Yanush 2021, Appendix D.1, where it states them.
#[derive(Debug, Parser)]
#[command(name = "semhash", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Gradient estimator of the training phase (Table D.1, and psa, reinmax, disarm)
    #[arg(long, value_enum, default_value_t = Method::Arm)]
    pub estimator: Method,
    /// Temperature of gumbel-softmax (Table D.1: 1 and 0.1), st, reinmax [default: 1]
    #[arg(long, allow_hyphen_values = true)]
    pub tau: Option<f64>,
    /// Bits of the code, n (Fig. 1: 8, 64, 256)
    #[arg(long, default_value_t = 64, allow_hyphen_values = true)]
    pub bits: i64,
    /// Words kept, the most frequent of the training part (Appendix D.1)
    #[arg(long, default_value_t = 10_000, allow_hyphen_values = true)]
    pub words: i64,
    /// Units of the two hidden layers (Appendix D.1)
    #[arg(long, default_value_t = 512, allow_hyphen_values = true)]
    pub hidden_dim: i64,
    /// Learning rate of Adam in both phases (Appendix D.1)
    #[arg(long, default_value_t = 1e-3, allow_hyphen_values = true)]
    pub lr: f64,
    /// Documents a step [not stated]
    #[arg(long, default_value_t = 256, allow_hyphen_values = true)]
    pub batch_size: i64,
    /// Epochs with the estimator (caption of Fig. 1: 100; Section 5: 1000)
    #[arg(long, default_value_t = 100, allow_hyphen_values = true)]
    pub epochs: i64,
    /// Epochs of the correction phase after them (Section 5: half as many)
    #[arg(long, default_value_t = 50, allow_hyphen_values = true)]
    pub correction_epochs: i64,
    /// Pairs of ARM whose mean is taken in the correction phase (Section 5)
    #[arg(long, default_value_t = 10, allow_hyphen_values = true)]
    pub correction_samples: i64,
    /// Steps to train; with the epochs the first reached ends the run
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub estimator: Method,
    pub tau: Option<f64>,
    pub bits: i64,
    pub words: i64,
    pub hidden_dim: i64,
    pub lr: f64,
    pub batch_size: i64,
    pub epochs: i64,
    pub correction_epochs: i64,
    pub correction_samples: i64,
    pub steps: Option<i64>,
}

impl Config {
    /// Fills in the defaults and refuses what makes no sense.
    pub fn new(args: &Args) -> Result<Config> {
        let at_least = |least: i64, what: &str, v: i64| {
            if v < least { Err(Error::range(what, format!("at least {least}"), v)) } else { Ok(v) }
        };
        let tau = match args.estimator {
            Method::GumbelSoftmax => Some(args.tau.unwrap_or(1.0)),
            _ => args.tau,
        };
        args.estimator.build(tau)?; // what it refuses, at once
        let (epochs, correction) =
            (at_least(0, "--epochs", args.epochs)?, at_least(0, "--correction-epochs", args.correction_epochs)?);
        at_least(1, "--epochs and --correction-epochs together", epochs + correction)?;
        if !(args.lr.is_finite() && args.lr > 0.0) {
            return Err(Error::range("--lr", "positive and finite", args.lr));
        }
        Ok(Config {
            estimator: args.estimator,
            tau,
            bits: at_least(1, "--bits", args.bits)?,
            words: at_least(1, "--words", args.words)?,
            hidden_dim: at_least(1, "--hidden-dim", args.hidden_dim)?,
            lr: args.lr,
            batch_size: at_least(1, "--batch-size", args.batch_size)?,
            epochs,
            correction_epochs: correction,
            correction_samples: at_least(1, "--correction-samples", args.correction_samples)?,
            steps: args.steps.map(|n| at_least(1, "--steps", n)).transpose()?,
        })
    }

    /// The estimator as tables and paths name it: with its temperature, where it has one of its own.
    pub fn label(&self) -> String {
        match self.tau {
            Some(tau) => format!("{}-{tau}", self.estimator.name()),
            None => self.estimator.name(),
        }
    }
}
