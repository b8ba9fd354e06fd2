//! Command line of `bnn`: every option with its default and the source of the default.
use clap::{Parser, Subcommand};
use serde::Serialize;
use thruway::data::Augment;
use thruway::dist::binary::Shape;
use thruway::error::{Error, Result};
use thruway::report::PageArgs;
use thruway::run::RunArgs;

/// Trains a VGG-like network whose inner weights and all activations are ±1 on CIFAR-10, by straight-through for the
/// activations and mirror descent (latent weights) for the weights.
///
/// The network, its initialisation and its optimizer are those of Section 4 and Appendix D.2 of the paper, as are the defaults.
/// Without CIFAR-10 at hand generated shapes stand in, under the name `synthetic`.
#[derive(Debug, Parser)]
#[command(name = "bnn", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings that go together; every option given beside it wins
    #[arg(long, value_enum, default_value_t = Preset::Paper)]
    pub preset: Preset,
    /// Noise of the activations, scaled to 2 F'(0) = 1 (Section 4): decides the model and the proxy of its gradient
    #[arg(long, value_enum, default_value_t = Shape::Logistic)]
    pub noise: Shape,
    /// Noise of the weights: decides the divergence of the mirror descent [default: logistic, KL, which the paper prefers
    /// (Section 3); narrow: uniform]
    #[arg(long, value_enum)]
    pub weight_noise: Option<Shape>,
    /// Clip latent weights to the support of their noise after each step (Eq. 11); for uniform and triangular --weight-noise
    /// [narrow with these: always on]
    #[arg(long)]
    pub clip: bool,
    /// Factor on the latent weights at the start; the paper's 1 makes theta uniform, more makes weights more certain
    /// [default: 1; narrow: 10]
    #[arg(long, allow_hyphen_values = true)]
    pub weight_spread: Option<f64>,
    /// Factor on the noise of the activations; the paper's 1 is 2 F'(0) = 1, less is less noise
    #[arg(long, default_value_t = 1.0, allow_hyphen_values = true)]
    pub noise_scale: f64,
    /// Images: auto takes CIFAR-10, else the generated ones
    #[arg(long, value_enum, default_value_t = Dataset::Auto)]
    pub dataset: Dataset,
    /// What is done to training images (D.2)
    #[arg(long, value_enum, default_value_t = Augment::FlipCrop)]
    pub augment: Augment,
    /// Channels of the first two layers; the others follow as 2, 4 and 8 times [default: 128 (D.2); narrow: 32; smoke: 4]
    #[arg(long, allow_hyphen_values = true)]
    pub width: Option<i64>,
    /// Training images, the first so many [default: all; smoke: 96]
    #[arg(long, allow_hyphen_values = true)]
    pub train_size: Option<i64>,
    /// Test images of the last evaluation, the first so many [default: all; smoke: 32]
    #[arg(long, allow_hyphen_values = true)]
    pub test_size: Option<i64>,
    /// Test images of the evaluations before it [default: those of the last; narrow: 1000]
    #[arg(long, allow_hyphen_values = true)]
    pub eval_size: Option<i64>,
    /// Images a step (the paper does not say) [default: 100; smoke: 16]
    #[arg(long, allow_hyphen_values = true)]
    pub batch_size: Option<i64>,
    /// Epochs to train [default: 500 (D.2); narrow: 14]
    #[arg(long, allow_hyphen_values = true)]
    pub epochs: Option<i64>,
    /// Steps to train; with --epochs the first reached ends the run [default: no limit; smoke: 8]
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    /// Learning rate of Adam, divided by 10 after 3/5 and 4/5 of the steps (D.2: after 300 and 400 of 500 epochs)
    #[arg(long, default_value_t = 0.01, allow_hyphen_values = true)]
    pub lr: f64,
    /// Draws of the ensemble in evaluations (Table 1)
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..))]
    pub eval_samples: i64,
    /// Training batches from which the deterministic network's own normalisation is estimated, for `accuracy_det_refit`
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..))]
    pub refit_batches: i64,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What else the binary does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Table 1: finished runs beside the published figures
    Tables(PageArgs),
}

/// Settings that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// All of D.2: 128 to 1024 channels, 500 epochs
    Paper,
    /// For one CPU core: a quarter of the channels, 14 epochs, weights certain at the start and latent ones clipped (40 minutes)
    Narrow,
    /// Seconds on one core: 4 channels, 96 images, 8 steps
    Smoke,
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

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json, beside the images.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    pub preset: Preset,
    pub estimator: &'static str,
    pub noise: Shape,
    pub weight_noise: Shape,
    pub clip: bool,
    pub weight_spread: f64,
    pub noise_scale: f64,
    pub augment: Augment,
    pub width: i64,
    pub train_size: Option<i64>,
    pub test_size: Option<i64>,
    pub eval_size: Option<i64>,
    pub batch_size: i64,
    pub epochs: Option<i64>,
    pub steps: Option<i64>,
    pub optimizer: &'static str,
    pub lr: f64,
    pub eval_samples: i64,
    pub refit_batches: i64,
}

impl Config {
    /// Fills in the preset and the defaults, and refuses what makes no sense.
    pub fn new(args: &Args) -> Result<Config> {
        let (smoke, narrow) = (args.preset == Preset::Smoke, args.preset == Preset::Narrow);
        let weight_spread = args.weight_spread.unwrap_or(if narrow { 10.0 } else { 1.0 });
        let factors = [("--lr", args.lr), ("--weight-spread", weight_spread), ("--noise-scale", args.noise_scale)];
        for (flag, value) in factors {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::range(flag, "positive and finite", value));
            }
        }
        let weight_noise = args.weight_noise.unwrap_or(if narrow { Shape::Uniform } else { Shape::Logistic });
        let bounded = matches!(weight_noise, Shape::Uniform | Shape::Triangular);
        let clip = args.clip || (narrow && bounded);
        if clip && !bounded {
            return Err(Error::Usage("--clip is for --weight-noise uniform or triangular, whose support ends".into()));
        }
        let steps = optional("--steps", args.steps)?.or((smoke && args.epochs.is_none()).then_some(8));
        let epochs = optional("--epochs", args.epochs)?.or(match steps {
            Some(_) => None,
            None => Some(if narrow { 14 } else { 500 }),
        });
        let width = if smoke { 4 } else { 128 };
        Ok(Config {
            preset: args.preset,
            estimator: "st",
            noise: args.noise,
            weight_noise,
            clip,
            weight_spread,
            noise_scale: args.noise_scale,
            augment: args.augment,
            width: optional("--width", args.width)?.unwrap_or(if narrow { 32 } else { width }),
            train_size: optional("--train-size", args.train_size)?.or(smoke.then_some(96)),
            test_size: optional("--test-size", args.test_size)?.or(smoke.then_some(32)),
            eval_size: optional("--eval-size", args.eval_size)?.or(narrow.then_some(1000)),
            batch_size: optional("--batch-size", args.batch_size)?.unwrap_or(if smoke { 16 } else { 100 }),
            epochs,
            steps,
            optimizer: "adam",
            lr: args.lr,
            eval_samples: args.eval_samples,
            refit_batches: args.refit_batches,
        })
    }
}

fn optional(what: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        Some(n) if n < 1 => Err(Error::range(what, "at least 1", n)),
        v => Ok(v),
    }
}
