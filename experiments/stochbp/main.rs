//! Stochastic backpropagation through gamma and Laplace variables: two toy problems and Bayesian logistic regression
//! (Echraibi et al. 2020, Section 6).
mod args;
mod logistic;
mod method;
mod toy;
mod train;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| train::run(args::Args::parse()))
}
