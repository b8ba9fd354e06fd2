//! Stochastic binary networks on CIFAR-10 (Shekhovtsov, Yanush & Flach 2020, Section 5 and Appendix C.2).
mod args;
mod bench;
mod images;
mod measure;
mod network;
mod search;
mod train;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| {
        let mut args = args::Args::parse();
        match args.command.take() {
            None => train::run(args),
            Some(args::Command::Bench(bench)) => bench::run(bench),
        }
    })
}
