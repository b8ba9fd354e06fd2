//! Categorical VAEs on MNIST or Fashion-MNIST, trained through a drop-in estimator (Liu et al. 2023, Section 6.3).
mod args;
mod images;
mod probe;
mod train;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| train::run(args::Args::parse()))
}
