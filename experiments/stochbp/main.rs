//! Stochastic backpropagation through gamma and Laplace variables: two toy problems and Bayesian logistic regression
//! (Echraibi et al. 2020, Section 6).
mod args;
mod claims;
mod curves;
mod logistic;
mod method;
mod tables;
mod toy;
mod train;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| {
        let args = Args::parse();
        match args.command {
            Some(Command::Tables(args)) => tables::run(&args),
            None => train::run(args),
        }
    })
}
