//! Architecture search on NATS-Bench's topology space: GDAS with any drop-in estimator (Liu et al. 2023, Section 6.4; Dong &
//! Yang 2019), on images or on the benchmark's table alone.
mod args;
mod course;
mod curves;
mod evolution;
mod figures;
mod images;
mod search;
mod surrogate;
mod tables;
mod train;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| {
        let args = Args::parse();
        match args.command {
            None => search::run(args.search),
            Some(Command::Surrogate(args)) => surrogate::run(&args),
            Some(Command::Train(args)) => train::run(&args),
            Some(Command::Query(args)) => train::query(&args),
            Some(Command::Tables(args)) => tables::run(&args),
        }
    })
}
