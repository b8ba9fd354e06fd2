//! Options of the training of one cell.
use super::{Dataset, SizeArgs, above_0, cell, from_0};
use serde::Serialize;
use std::path::PathBuf;
use thruway::data::NatsBench;
use thruway::error::Result;
use thruway::nas::Cell;
use thruway::run::RunArgs;

/// Trains one cell from scratch on all training images and reports its test accuracy; defaults are the benchmark's settings
/// for CIFAR-10 (Dong et al. 2021, Table 3).
#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// The cell: its string in the benchmark's notation, or its index there, 0 to 15624 (which needs the table)
    #[arg(allow_negative_numbers = true)]
    pub arch: String,
    /// Images: auto takes CIFAR-10, else the generated ones
    #[arg(long, value_enum, default_value_t = Dataset::Auto)]
    pub dataset: Dataset,
    /// Training images, of 50,000 (the benchmark trains on all)
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(i64).range(2..=50_000))]
    pub train_size: i64,
    /// Test images, of 10,000 (the benchmark: all)
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub test_size: i64,
    #[command(flatten)]
    pub sizes: SizeArgs,
    /// Images a step (the benchmark's)
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(i64).range(2..))]
    pub batch_size: i64,
    /// Epochs: the length of the schedule (the benchmark's)
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(i64).range(1..))]
    pub epochs: i64,
    /// Steps to make at most; the schedule stays that of --epochs [default: no limit]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub steps: Option<i64>,
    /// Learning rate in the first epoch (SGD with Nesterov momentum 0.9); half a cosine by epochs takes it to 0 (the benchmark's)
    #[arg(long, default_value_t = 0.1, allow_hyphen_values = true)]
    pub lr: f64,
    /// L2 penalty, added to the gradient (the benchmark's)
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
            weight_decay: from_0("--weight-decay", args.weight_decay)?,
        })
    }
}
