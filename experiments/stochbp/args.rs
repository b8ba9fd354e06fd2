//! Command line of `stochbp`: every option with its default and the source of the default.
use crate::method::Method;
use clap::Parser;
use serde::{Deserialize, Serialize};
use thruway::error::{Error, Result};
use thruway::optim::Method as Optimizer;
use thruway::report::TablesArgs;
use thruway::run::RunArgs;
use thruway::stochbp::LOG_SIGMOID_ORDERS;

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// Toy problem 1: `E sum_j (z_j - epsilon)^2` over gamma laws
    Quadratic,
    /// Toy problem 2: `E sum_j exp(-epsilon z_j)` over gamma laws
    Exponential,
    /// Bayesian logistic regression, Laplace prior and posterior, breast-cancer data
    Logistic,
}

/// How the features are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Features {
    /// Mean 0, standard deviation 1
    Standard,
    /// Onto [0, 1]
    MinMax,
}

/// How often the KL divergence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kl {
    /// Once for the data set
    Once,
    /// Once for each data point, as Eq. 28 is printed
    Each,
}

/// What to do when a series diverges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    /// End the run with an error
    Refuse,
    /// Say so once and go on
    Warn,
}

/// Trains the parameters of gamma or Laplace laws through one gradient estimator, and measures its variance.
///
/// Defaults are those of Echraibi et al. 2020, Section 6, where it states them.
#[derive(Debug, Parser)]
#[command(name = "stochbp", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What is minimised
    #[arg(long, value_enum, default_value_t = Problem::Quadratic)]
    pub problem: Problem,
    /// Gradient estimator
    #[arg(long, value_enum, default_value_t = Method::Stochbp)]
    pub estimator: Method,
    /// Highest derivative of stochbp, N of Eq. 26, up to 24 [default: 4 for the logistic problem (Section 6.2: 4 and 8), where
    /// the scale's first term is at 2; none, the closed form, for the toy problems]
    #[arg(long, allow_hyphen_values = true)]
    pub order: Option<i64>,
    /// Gamma variables of a toy problem, d [default: 1] (Section 6.1: 1, 10 and 100)
    #[arg(long, allow_hyphen_values = true)]
    pub dim: Option<i64>,
    /// Constant of the toy problems [default: 0.49] (Section 6.1)
    #[arg(long, allow_hyphen_values = true)]
    pub epsilon: Option<f64>,
    /// Draws a step (Section 6.2; not stated for the toy problems)
    #[arg(long, default_value_t = 50, allow_hyphen_values = true)]
    pub samples: i64,
    /// Scaling of the features, logistic problem [default: standard; not stated]
    #[arg(long, value_enum)]
    pub features: Option<Features>,
    /// How often the KL divergence counts, logistic problem [default: once; Eq. 28 as printed: each]
    #[arg(long, value_enum)]
    pub kl: Option<Kl>,
    /// Scale of the posterior at the start, 1e-6 to 1e6, logistic problem [default: 1, the prior's; not stated]
    #[arg(long, allow_hyphen_values = true)]
    pub initial_scale: Option<f64>,
    /// Data points a step, logistic problem [default: 64] (Section 6.2)
    #[arg(long, allow_hyphen_values = true)]
    pub batch_size: Option<i64>,
    /// When the terms of a truncated series grow
    #[arg(long, value_enum, default_value_t = Divergence::Warn)]
    pub divergence: Divergence,
    /// Optimizer (Section 6)
    #[arg(long, value_enum, default_value_t = Optimizer::Adam)]
    pub optimizer: Optimizer,
    /// Learning rate (Section 6)
    #[arg(long, default_value_t = 1e-3, allow_hyphen_values = true)]
    pub lr: f64,
    /// Steps to train [not stated]
    #[arg(long, default_value_t = 2_000, allow_hyphen_values = true)]
    pub steps: i64,
    /// At every log point, measure the variance of every estimator at the same parameters
    #[arg(long)]
    pub probe: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Besides a run.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Tables of finished runs, the paper's claims held against them, and the curves of Figures 1 to 3
    Tables(TablesArgs),
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json. What a problem does not
/// have is null.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub dataset: Option<String>,
    pub problem: Problem,
    pub dim: Option<i64>,
    pub epsilon: Option<f64>,
    pub features: Option<Features>,
    pub kl: Option<Kl>,
    pub initial_scale: Option<f64>,
    pub batch_size: Option<i64>,
    pub estimator: Method,
    pub order: Option<i64>,
    pub samples: i64,
    pub divergence: Divergence,
    pub optimizer: Optimizer,
    pub lr: f64,
    pub steps: i64,
    pub probe: bool,
}

impl Config {
    /// Fills in the defaults and refuses what makes no sense.
    pub fn new(args: &Args) -> Result<Config> {
        let logistic = args.problem == Problem::Logistic;
        let positive = |what: &str, v: i64| if v < 1 { Err(Error::range(what, "at least 1", v)) } else { Ok(v) };
        let real = |what: &str, v: f64| match v.is_finite() && v > 0.0 {
            true => Ok(v),
            false => Err(Error::range(what, "positive and finite", v)),
        };
        let scale = |v: f64| match (1e-6..=1e6).contains(&v) {
            true => Ok(v),
            false => Err(Error::range("--initial-scale", "between 1e-6 and 1e6", v)),
        };
        let wrong = |flag: &str| Err(Error::Usage(format!("{flag} has no meaning for this --problem")));
        let (toys, others) = (
            [("--dim", args.dim.is_some()), ("--epsilon", args.epsilon.is_some())],
            [
                ("--features", args.features.is_some()),
                ("--kl", args.kl.is_some()),
                ("--initial-scale", args.initial_scale.is_some()),
                ("--batch-size", args.batch_size.is_some()),
            ],
        );
        let foreign: &[(&str, bool)] = if logistic { &toys } else { &others };
        if let Some((flag, _)) = foreign.iter().find(|(_, given)| *given) {
            return wrong(flag);
        }
        let lowest = if logistic { 2 } else { 1 };
        let order = match args.order {
            Some(n) if !(lowest..=LOG_SIGMOID_ORDERS).contains(&n) => {
                let why = if logistic {
                    " (the scale has no term below 2; above, derivatives of log sigmoid have no digits)"
                } else {
                    ""
                };
                return Err(Error::range("--order", format!("{lowest} to {LOG_SIGMOID_ORDERS}{why}"), n));
            }
            order => order,
        };
        if order.is_some() && args.estimator != Method::Stochbp {
            return Err(Error::Usage(format!("--estimator {} takes no --order", args.estimator.name())));
        }
        match (args.estimator, logistic) {
            (Method::Exact | Method::Weak, true) => {
                let why = format!("--estimator {} is for the toy problems", args.estimator.name());
                return Err(Error::Usage(why));
            }
            (Method::MeasureValued, false) => {
                let why = "--estimator measure-valued: a gamma's shape has no simple weak derivative";
                return Err(Error::Usage(why.into()));
            }
            _ => {}
        }
        if args.samples < 2 {
            return Err(Error::range("--samples", "at least 2, for the variance", args.samples));
        }
        let toy = |v: f64| (!logistic).then_some(v);
        Ok(Config {
            dataset: logistic.then(|| "uci_breast_cancer".to_string()),
            problem: args.problem,
            dim: if logistic { None } else { Some(positive("--dim", args.dim.unwrap_or(1))?) },
            epsilon: toy(real("--epsilon", args.epsilon.unwrap_or(0.49))?),
            features: logistic.then_some(args.features.unwrap_or(Features::Standard)),
            kl: logistic.then_some(args.kl.unwrap_or(Kl::Once)),
            initial_scale: logistic.then(|| scale(args.initial_scale.unwrap_or(1.0))).transpose()?,
            batch_size: logistic.then(|| positive("--batch-size", args.batch_size.unwrap_or(64))).transpose()?,
            estimator: args.estimator,
            order: match (args.estimator, logistic) {
                (Method::Stochbp, true) => Some(order.unwrap_or(4)),
                _ => order,
            },
            samples: args.samples,
            divergence: args.divergence,
            optimizer: args.optimizer,
            lr: args.lr,
            steps: positive("--steps", args.steps)?,
            probe: args.probe,
        })
    }
}
