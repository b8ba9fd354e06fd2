//! VAEs and sigmoid belief networks with Boolean or categorical latents under any estimator (Liu et al. 2023, Section 6.5;
//! Pervez et al. 2020; Echraibi et al. 2020, Appendix B).
mod args;
mod images;
mod measure;
mod presets;
mod train;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    thruway::run::main(|| train::run(args::Args::parse()))
}
