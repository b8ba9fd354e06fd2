//! Binary weights and activations on CIFAR-10 (Shekhovtsov & Yanush 2021, Section 5 and Appendix D.2).
mod args;
mod images;
mod measure;
mod network;
mod tables;
mod train;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| {
        let mut args = args::Args::parse();
        match args.command.take() {
            None => train::run(args),
            Some(args::Command::Tables(tables)) => tables::run(&tables),
        }
    })
}
