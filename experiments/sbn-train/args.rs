//! Command line of `sbn-train`: every option with its default and the source of the default.
use crate::bench::BenchArgs;
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use thruway::data::Augment;
use thruway::error::{Error, Result};
use thruway::kernels::delta::{Backend, DeltaOptions};
use thruway::run::RunArgs;
use thruway::sbn::{Carrier, HeadGradient, Knobs, Method};

fn methods() -> String {
    let lines: Vec<String> = Method::ALL.iter().map(|m| format!("  {:<14}{}", m.name(), m.title())).collect();
    format!("Methods:\n{}", lines.join("\n"))
}

/// Trains the eight-layer convolutional network of binary units on CIFAR-10 with one method of the family.
///
/// The network is that of Appendix C.2 of the PSA paper, as are the defaults but for the length. Without CIFAR-10 at hand
/// generated shapes stand in, under the name `synthetic`.
#[derive(Debug, Parser)]
#[command(name = "sbn-train", version, args_conflicts_with_subcommands = true, after_help = methods())]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings that go together; every option given beside it wins
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Method of training
    #[arg(long, value_enum, default_value_t = Method::Psa)]
    pub estimator: Method,
    /// Images: auto takes CIFAR-10, else the generated ones
    #[arg(long, value_enum, default_value_t = Dataset::Auto)]
    pub dataset: Dataset,
    /// What is done to training images (Section 5 compares the three)
    #[arg(long, value_enum, default_value_t = Augment::None)]
    pub augment: Augment,
    /// Training images, from those that validation leaves [default: all; smoke: 128]
    #[arg(long, allow_hyphen_values = true)]
    pub train_size: Option<i64>,
    /// Training images withheld for validation [default: 5000 (C.2); smoke: 32]
    #[arg(long, allow_hyphen_values = true)]
    pub valid_size: Option<i64>,
    /// Output channels of the first three layers; the others have twice as many [default: 96 (C.2); smoke: 8]
    #[arg(long, allow_hyphen_values = true)]
    pub channels: Option<i64>,
    /// Images a step
    #[arg(long, default_value_t = 64, allow_hyphen_values = true)]
    pub batch_size: i64,
    /// Epochs to train [default: 5; paper: 2000, as configured in the released code]
    #[arg(long, allow_hyphen_values = true)]
    pub epochs: Option<i64>,
    /// Steps to train; with --epochs the first reached ends the run [default: no limit; smoke: 8]
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    /// Learning rate of SGD with Nesterov momentum 0.9: a number, or auto for the search of C.2 [default: 0.003; paper: auto]
    #[arg(long, allow_hyphen_values = true)]
    pub lr: Option<Lr>,
    /// Trials of the search, for --lr auto [default: 10 (C.2)]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub lr_trials: Option<i64>,
    /// Epochs of a trial, for --lr auto [default: 5 (C.2)]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub lr_epochs: Option<i64>,
    /// Steps of a trial at most, for --lr auto [default: no limit]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub lr_steps: Option<i64>,
    /// What a trial is judged by, for --lr auto [default: ewa (C.2)]
    #[arg(long, value_enum)]
    pub lr_objective: Option<LrObjective>,
    /// Clamp every entry of the gradient to this size (the released code: 1000) [default: no]
    #[arg(long, allow_hyphen_values = true)]
    pub grad_clamp: Option<f64>,
    /// Temperature of concrete (the released code's T = 1 is 0.5 here) [default: 1]
    #[arg(long, allow_hyphen_values = true)]
    pub tau: Option<f64>,
    /// Factor on the pre-activation in tanh's unit (the released code: 2) [default: 1, the mean of the state]
    #[arg(long, allow_hyphen_values = true)]
    pub tanh_scale: Option<f64>,
    /// Gradient of the head's own parameters, for psa, adf and local-reparam, not with --published-head [default: enhanced
    /// (B.3)]
    #[arg(long, value_enum)]
    pub head: Option<HeadGradient>,
    /// adf, local-reparam: the head of the released code in place of the paper's
    #[arg(long)]
    pub published_head: bool,
    /// reinforce, muprop: subtracted from every loss [default: 0]
    #[arg(long, allow_hyphen_values = true)]
    pub constant: Option<f64>,
    /// reinforce, muprop: baseline for each image [default: none]
    #[arg(long, value_enum)]
    pub baseline: Option<Baseline>,
    /// psa: way of the products with Delta [default: auto]
    #[arg(long, value_enum)]
    pub psa_backend: Option<Backend>,
    /// psa: what a bracket of the expansion may err, not for --psa-backend exact [default: 5e-6]
    #[arg(long, allow_hyphen_values = true)]
    pub psa_tol: Option<f64>,
    /// What the whitening pass hands from layer to layer: as the released code, or the mean of the state
    #[arg(long, value_enum, default_value_t = Carrier::Published)]
    pub carrier: Carrier,
    /// Draws of every evaluation (C.2)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..))]
    pub eval_samples: i64,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What else the binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Time and memory of a training step by method, side by side (the running-time table of C.2)
    Bench(BenchArgs),
}

/// Settings that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// All of C.2: 2000 epochs, the learning rate searched for
    Paper,
    /// Seconds on one core: 8 channels, 128 images, 8 steps
    Smoke,
}

impl Preset {
    fn name(self) -> &'static str {
        match self {
            Preset::Paper => "paper",
            Preset::Smoke => "smoke",
        }
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

/// A learning rate, or the wish for one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lr {
    /// To be searched for.
    Auto,
    #[serde(untagged)]
    Fixed(f64),
}

impl FromStr for Lr {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Lr::Auto),
            _ => text.parse().map(Lr::Fixed).map_err(|_| "a number, or auto".into()),
        }
    }
}

/// What a trial of the learning-rate search is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrObjective {
    /// The method's own objective, exponentially averaged over batches (C.2)
    Ewa,
    /// The mean of every image's most recent loss (the released code)
    Last,
}

/// A baseline for each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// Exponentially weighted average of its losses, momentum 0.9 (C.3)
    Ewa,
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json, beside the images.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    pub preset: Option<&'static str>,
    pub estimator: Method,
    pub augment: Augment,
    pub train_size: Option<i64>,
    pub valid_size: i64,
    pub channels: i64,
    pub batch_size: i64,
    pub epochs: Option<i64>,
    pub steps: Option<i64>,
    pub optimizer: &'static str,
    pub momentum: f64,
    pub lr: Lr,
    pub lr_trials: Option<i64>,
    pub lr_epochs: Option<i64>,
    pub lr_steps: Option<i64>,
    pub lr_objective: Option<LrObjective>,
    pub grad_clamp: Option<f64>,
    pub tau: Option<f64>,
    pub tanh_scale: Option<f64>,
    pub head: Option<HeadGradient>,
    pub published_head: Option<bool>,
    pub constant: Option<f64>,
    pub baseline: Option<Baseline>,
    pub psa_backend: Option<Backend>,
    pub psa_tol: Option<f64>,
    pub carrier: Carrier,
    pub eval_samples: i64,
}

impl Config {
    /// Fills in the preset and the defaults, and refuses what makes no sense.
    pub fn new(args: &Args) -> Result<(Config, Knobs)> {
        let (method, preset) = (args.estimator, args.preset);
        if method == Method::Exact {
            let why = "exact enumerates all states of a layer, and these have thousands of units: see sbn-grad";
            return Err(Error::Usage(why.into()));
        }
        let takes = |knob: &str| method.claims().knobs.contains(&knob);
        let delta = DeltaOptions::default();
        let knobs = Knobs {
            tau: args.tau.or(takes("tau").then_some(1.0)),
            tanh_scale: args.tanh_scale.or(takes("tanh-scale").then_some(1.0)),
            head: args.head.or((takes("head") && !args.published_head).then(HeadGradient::default)),
            published_head: args.published_head,
            psa_backend: args.psa_backend.or(takes("psa-backend").then_some(delta.backend)),
            psa_tol: args
                .psa_tol
                .or((takes("psa-tol") && args.psa_backend != Some(Backend::Exact)).then_some(delta.tol)),
            constant: args.constant.or(takes("constant").then_some(0.0)),
        };
        method.build(&knobs)?;
        if args.baseline.is_some() && !matches!(method, Method::Reinforce | Method::Muprop) {
            return Err(Error::Usage(format!("{} takes no --baseline; reinforce and muprop do", method.name())));
        }
        if let Some(clamp) = args.grad_clamp.filter(|c| c.is_nan() || *c <= 0.0) {
            return Err(Error::range("--grad-clamp", "positive", clamp));
        }
        let (smoke, paper) = (preset == Some(Preset::Smoke), preset == Some(Preset::Paper));
        let lr = args.lr.unwrap_or(if paper { Lr::Auto } else { Lr::Fixed(0.003) });
        if let Lr::Fixed(lr) = lr
            && !(lr.is_finite() && lr > 0.0)
        {
            return Err(Error::range("--lr", "positive and finite, or auto", lr));
        }
        let auto = lr == Lr::Auto;
        let of_the_search = [
            ("--lr-trials", args.lr_trials.is_some()),
            ("--lr-epochs", args.lr_epochs.is_some()),
            ("--lr-steps", args.lr_steps.is_some()),
            ("--lr-objective", args.lr_objective.is_some()),
        ];
        if let Some((flag, _)) = of_the_search.iter().find(|(_, given)| *given && !auto) {
            return Err(Error::Usage(format!(
                "{flag} is for the search for a learning rate: give --lr auto, or leave it out"
            )));
        }
        let steps = optional("--steps", args.steps)?.or((smoke && args.epochs.is_none()).then_some(8));
        let epochs = optional("--epochs", args.epochs)?.or(match steps {
            Some(_) => None,
            None => Some(if paper { 2000 } else { 5 }),
        });
        let config = Config {
            preset: preset.map(Preset::name),
            estimator: method,
            augment: args.augment,
            train_size: optional("--train-size", args.train_size)?.or(smoke.then_some(128)),
            valid_size: positive("--valid-size", args.valid_size, if smoke { 32 } else { 5000 })?,
            channels: positive("--channels", args.channels, if smoke { 8 } else { 96 })?,
            batch_size: positive("--batch-size", Some(args.batch_size), 64)?,
            epochs,
            steps,
            optimizer: "sgd-nesterov",
            momentum: 0.9,
            lr,
            lr_trials: auto.then_some(args.lr_trials.unwrap_or(10)),
            lr_epochs: auto.then_some(args.lr_epochs.unwrap_or(5)),
            lr_steps: args.lr_steps,
            lr_objective: auto.then_some(args.lr_objective.unwrap_or(LrObjective::Ewa)),
            grad_clamp: args.grad_clamp,
            tau: knobs.tau,
            tanh_scale: knobs.tanh_scale,
            head: knobs.head,
            published_head: takes("published-head").then_some(knobs.published_head),
            constant: knobs.constant,
            baseline: args.baseline,
            psa_backend: knobs.psa_backend,
            psa_tol: knobs.psa_tol,
            carrier: args.carrier,
            eval_samples: args.eval_samples,
        };
        Ok((config, knobs))
    }
}

fn optional(what: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        Some(n) if n < 1 => Err(Error::range(what, "at least 1", n)),
        v => Ok(v),
    }
}

fn positive(what: &str, value: Option<i64>, default: i64) -> Result<i64> {
    Ok(optional(what, value)?.unwrap_or(default))
}
