//! Accuracy of gradient estimators in small stochastic binary networks (Shekhovtsov, Yanush & Flach 2020, Section 3 and
//! Sections C.1, C.3; Figs. 2, 3, C.2 to C.6).
mod args;
mod figures;
mod measure;
mod problem;
mod sentences;
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
            None => train::run(args),
        }
    })
}
