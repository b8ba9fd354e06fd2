//! `thruway`: everything around the experiments: reports, results, set-up.
use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;
use thruway::report::{self, ReportArgs, collect::CollectArgs};

/// Gradient estimators for discrete random variables: set-up, data, sweeps and reports.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tables (ours beside the published) in the terminal, and one self-contained HTML page with curves and commands.
    Report(ReportArgs),
    /// Copy config.json and summary.json of finished runs to where quoted results are kept.
    Collect(CollectArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Report(args) => report::report(&args),
        Command::Collect(args) => report::collect::collect(&args),
    };
    match result {
        Ok(text) => {
            // A closed pipe (`| head`) is the reader's choice, not a failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
