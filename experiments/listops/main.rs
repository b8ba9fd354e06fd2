//! ListOps: unsupervised parsing by a tree-LSTM that picks its merges through a drop-in estimator (Liu et al. 2023, Section
//! 6.2; Fan et al. 2022; Choi, Yoo & Lee 2018).
mod args;
mod baselines;
mod train;
mod trees;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| {
        let args = args::Args::parse();
        match &args.command {
            Some(args::Command::Baselines(args)) => baselines::run(args),
            None => train::run(args),
        }
    })
}
