//! `thruway`: everything around the experiments: set-up, data, sweeps, reports, results.
mod doctor;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;
use thruway::data::{self, Set};
use thruway::error::Error;
use thruway::estimators::Estimator;
use thruway::report::{self, ReportArgs, collect::CollectArgs};
use thruway::run::sweep::{self, SweepArgs};
use thruway::sbn::Method;

/// Gradient estimators for discrete random variables: set-up, data, sweeps and reports.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// One variant a subcommand, one arm in `main`.
#[derive(Subcommand)]
enum Command {
    /// Print versions, threads, memory, CUDA and data found, with the remedy for each thing missing; exit status 1 if the
    /// main job lacks something.
    Doctor,
    /// Fetch and verify data sets.
    Data {
        /// Sets to fetch [default: all that can be].
        sets: Vec<Set>,
    },
    /// Run everything in a sweep file that has not finished yet: a process a run, several at a time.
    Sweep(SweepArgs),
    /// Tables (ours beside the published) in the terminal, and one self-contained HTML page with curves and commands.
    Report(ReportArgs),
    /// Print the tables of estimators and of methods for stochastic binary networks and what each promises, as Markdown.
    Estimators {
        /// Write it between the markers `<!-- estimators -->`, `<!-- sbn-methods -->` and their ends in this file instead
        #[arg(long, value_name = "FILE")]
        markdown: Option<std::path::PathBuf>,
    },
    /// Copy config.json and summary.json of finished runs to where quoted results are kept.
    Collect(CollectArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Doctor => Ok(doctor::doctor()),
        Command::Data { sets } => Ok(fetch(&sets)),
        Command::Sweep(args) => sweep::sweep(&args).map(|()| (String::new(), true)),
        Command::Report(args) => report::report(&args).map(|text| (text, true)),
        Command::Estimators { markdown: None } => Ok((format!("{}\n{}", Estimator::table(), Method::table()), true)),
        Command::Estimators { markdown: Some(file) } => estimators(&file).map(|text| (text, true)),
        Command::Collect(args) => report::collect::collect(&args).map(|text| (text, true)),
    };
    match result {
        Ok((text, good)) => {
            // A closed pipe (`| head`) is the reader's choice, not a failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::from(u8::from(!good))
        }
        Err(error) => thruway::run::main(|| Err(error)),
    }
}

/// What became of each set, a line each, and whether all are there.
fn fetch(sets: &[Set]) -> (String, bool) {
    let sets = if sets.is_empty() { &Set::FETCHED } else { sets };
    let outcomes = data::fetch_all(sets);
    let line = |(set, outcome): &(Set, thruway::Result<data::Source>)| match outcome {
        Ok(source) => format!("{set}: {source}, SHA-256 verified\n"),
        Err(error) => format!("{set}: {error}\n"),
    };
    (outcomes.iter().map(line).collect(), outcomes.iter().all(|(_, outcome)| outcome.is_ok()))
}

/// Replaces what stands between the markers of the two tables of a file by the registries' tables.
fn estimators(file: &std::path::Path) -> thruway::Result<String> {
    let mut text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    for (name, table) in [("estimators", Estimator::table()), ("sbn-methods", Method::table())] {
        let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let parts = text.split_once(&open).and_then(|(head, rest)| Some((head, rest.split_once(&close)?.1)));
        let Some((head, tail)) = parts else {
            let message = format!("{}: no line {:?} with {close:?} after it", file.display(), open.trim());
            return Err(Error::Usage(message));
        };
        text = format!("{head}{open}{table}{close}{tail}");
    }
    std::fs::write(file, text).map_err(Error::io(file))?;
    Ok(format!("{}: {} estimators, {} methods for SBNs\n", file.display(), Estimator::ALL.len(), Method::ALL.len()))
}
