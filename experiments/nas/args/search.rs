//! Options of the search on images.
use super::{Dataset, KnobArgs, SizeArgs, above_0, cosine, from_0, refuse};
use serde::Serialize;
use std::path::PathBuf;
use thruway::data::{Augment, NatsBench};
use thruway::error::{Error, Result};
use thruway::estimators::{Estimator, Knobs, Place};
use thruway::nn::search_net::{Activation, Sizes};
use thruway::run::RunArgs;

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
    /// What is done to the images of both halves in training (published: flip and crop)
    #[arg(long, value_enum, default_value_t = Augment::FlipCrop)]
    pub augment: Augment,
    /// Images for the weights, of one half of the training images (published: all of it)
    #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(i64).range(2..=25_000))]
    pub train_size: i64,
    /// Images for the architecture, of the other half (published: all of it)
    #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(i64).range(1..=25_000))]
    pub valid_size: i64,
    /// Of these, images on which the likeliest cell is evaluated with the shared weights [default: 1000 (ours), or all if fewer]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub eval_size: Option<i64>,
    #[command(flatten)]
    pub sizes: SizeArgs,
    /// Images a step, of each half (published code)
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(i64).range(2..))]
    pub batch_size: i64,
    /// Epochs: the length of both schedules (the published configuration; its run script has 200, GDAS's paper 250)
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub epochs: i64,
    /// Steps to make at most; the schedules stay those of --epochs [default: no limit]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub steps: Option<i64>,
    /// Learning rate of the weights in the first epoch (SGD with Nesterov momentum 0.9), along half a cosine by epochs
    /// (published code)
    #[arg(long, default_value_t = 0.025, allow_hyphen_values = true)]
    pub lr: f64,
    /// Learning rate at which the cosine would end after --epochs (published code)
    #[arg(long, default_value_t = 0.001, allow_hyphen_values = true)]
    pub lr_min: f64,
    /// L2 penalty on the weights, added to their gradient (published code)
    #[arg(long, default_value_t = 5e-4, allow_hyphen_values = true)]
    pub weight_decay: f64,
    /// Learning rate of the architecture, Adam with betas 0.5 and 0.999 (published code)
    #[arg(long, default_value_t = 3e-4, allow_hyphen_values = true)]
    pub arch_lr: f64,
    /// L2 penalty on the architecture's logits, added to their gradient [default: 0.001 (published code); preset reinmax: 0.09
    /// (Liu et al. 2023)]
    #[arg(long, allow_hyphen_values = true)]
    pub arch_weight_decay: Option<f64>,
    /// The benchmark's table, for the accuracies of cells [default: nats_bench/nats_tss.csv.gz in THRUWAY_DATA or data]
    #[arg(long)]
    pub table: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
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

impl SearchConfig {
    /// Fills in the preset and the defaults, and refuses what makes no sense.
    pub fn new(args: &SearchArgs, place: Place, table: Option<&NatsBench>) -> Result<(SearchConfig, Knobs)> {
        let published = args.preset == Some(Preset::GdasPublished);
        let name = args.estimator.as_deref().unwrap_or(if published { "stgs" } else { "reinmax" });
        let estimator = Estimator::by_name(name)?;
        let mut given = args.knobs.clone();
        if args.soft {
            refuse(&given.given(), "is for an estimator, and --soft draws nothing: give one of the two")?;
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
        let eval_size = args.eval_size.unwrap_or(args.valid_size.min(1000));
        if eval_size > args.valid_size {
            let most = format!("at most --valid-size ({})", args.valid_size);
            return Err(Error::range("--eval-size", most, eval_size));
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
            eval_size,
            channels: args.sizes.channels,
            cells: args.sizes.cells,
            batch_size: args.batch_size,
            epochs: args.epochs,
            steps: args.steps,
            lr: above_0("--lr", args.lr)?,
            lr_min: args.lr_min,
            weight_decay: from_0("--weight-decay", args.weight_decay)?,
            arch_lr: above_0("--arch-lr", args.arch_lr)?,
            arch_weight_decay: from_0("--arch-weight-decay", decay)?,
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
