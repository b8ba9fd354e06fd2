//! Semantic hashing: a stochastic autoencoder of word counts with a binary code, trained through any Boolean estimator
//! (Shekhovtsov & Yanush 2021, Section 5 and Appendix D.1), and retrieval from its codes.
mod args;
mod bench;
mod claims;
mod correction;
mod documents;
mod figures;
mod measure;
mod method;
mod model;
mod retrieval;
mod tables;
mod train;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| {
        let args = Args::parse();
        match args.command {
            Some(Command::Tables(args)) => tables::run(&args),
            Some(Command::Bench(args)) => bench::run(&args),
            None => train::run(args),
        }
    })
}
