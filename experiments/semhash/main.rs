//! Semantic hashing: a stochastic autoencoder of word counts with a binary code, trained through any Boolean estimator
//! (Shekhovtsov & Yanush 2021, Section 5 and Appendix D.1), and retrieval from its codes.
mod args;
mod documents;
mod method;
mod model;
mod retrieval;
mod train;

use args::Args;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| train::run(Args::parse()))
}
