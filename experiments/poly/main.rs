//! Polynomial programming: binary variables drawn towards a constant in the p-th power (Liu et al. 2023, Sections 6.1, F.4
//! and F.6).
mod args;
mod problem;
mod train;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| train::run(args::Args::parse()))
}
