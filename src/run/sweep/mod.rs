//! Many runs from one file: each in a process and a directory of its own, so that one that fails stops no other.
mod pool;
mod slurm;
mod spec;

use super::{checkpoint, directory, files};
use crate::{Error, Result};
use comfy_table::{Table, presets};
use serde_json::Value;
use spec::{Cell, text};
use std::path::PathBuf;

/// Runs everything in a sweep file that has not finished yet: a process a run, one thread each.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The sweep file is TOML (*.toml) or JSON:

  binary = \"vae\"                  # beside this program, or a path
  command = \"tables\"              # a subcommand of it; default: none
  out = \"runs/table2/{name}/{seed}\"   # default: runs/<binary>/{name}/{seed}
  seeds = [0, 1, 2]
  cells = [                       # flags of a run, without the dashes
    { estimator = \"st\" },
    { estimator = \"gumbel-rao\", samples = 100 },
  ]
  [base]                          # flags of every run
  epochs = 160
  [grid]                          # every combination of these
  preset = [\"8x4\", \"4x24\"]

There is a run for every cell, every combination of the grid and every seed; {name} is made of the flags in cell and grid. \
Finished runs are skipped and killed ones resumed, so the same command goes on after any interruption. What a run prints \
goes to log.txt in its directory. Ctrl-C lets every run write its checkpoint.")]
pub struct SweepArgs {
    /// Sweep file
    pub file: PathBuf,
    /// Runs at a time [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Only the run of this number, from 0 in the order of --dry-run
    #[arg(long, value_name = "INDEX")]
    pub only: Option<usize>,
    /// Write a Slurm array script that does the same, a task a run, and run nothing
    #[arg(long, value_name = "OUT.sh")]
    pub slurm: Option<PathBuf>,
    /// Print each run's state and command, and run nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What is to be done about a run.
#[derive(Debug, Clone, PartialEq)]
enum Todo {
    Nothing,
    Start,
    Resume,
    /// It was killed before its first checkpoint.
    StartAgain,
    /// Its directory holds something else.
    Refuse(String),
}

/// Carries out a sweep, and prints what has failed.
///
/// # Errors
/// [`Error::Data`] for a sweep file that makes no sense, [`Error::Usage`] for a binary that is not there,
/// [`Error::Run`] when runs have failed, [`Error::Interrupted`] after Ctrl-C.
pub fn sweep(args: &SweepArgs) -> Result<()> {
    let spec = spec::read(&args.file)?;
    let binary = find(&spec.binary)?;
    let mut cells: Vec<(usize, Cell)> = spec.cells.into_iter().enumerate().collect();
    if let Some(only) = args.only {
        let count = cells.len();
        cells.retain(|(index, _)| *index == only);
        if cells.is_empty() {
            return Err(Error::range("--only", format!("below {count}, the number of runs"), only));
        }
    }
    if let Some(script) = &args.slurm {
        slurm::write(script, &args.file, &cells)?;
        println!("wrote {0} for {1} runs; submit it by `sbatch {0}`", script.display(), cells.len());
        return Ok(());
    }
    let todo: Vec<(usize, Cell, Todo)> = cells
        .into_iter()
        .map(|(index, cell)| {
            // What is wrong with one directory stops no other run.
            let todo = look(&cell).unwrap_or_else(|e| Todo::Refuse(e.to_string()));
            (index, cell, todo)
        })
        .collect();
    if args.dry_run {
        for (index, cell, todo) in &todo {
            let state = match todo {
                Todo::Nothing => "finished",
                Todo::Start => "to start",
                Todo::Resume => "to resume",
                Todo::StartAgain => "to start again",
                Todo::Refuse(reason) => {
                    println!("{index:4} refused         {reason}");
                    continue;
                }
            };
            let words = cell.arguments(*todo == Todo::Resume);
            let words: Vec<String> = words.iter().map(|w| slurm::quote(w)).collect();
            println!("{index:4} {state:15} {} {}", slurm::quote(&binary.to_string_lossy()), words.join(" "));
        }
        return Ok(());
    }
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let count = todo.len();
    let sampled: Vec<_> =
        todo.iter().filter(|(_, c, t)| *t == Todo::Nothing && on_sample(c)).map(|(_, c, _)| c).collect();
    if let Some(first) = sampled.first() {
        println!(
            "{} of the finished runs were made on the bundled sample, not on the data set ({} ...); remove their directories to \
             repeat them where the set can be had",
            sampled.len(),
            first.dir.display()
        );
    }
    let failures = pool::run(&binary, todo.into_iter().map(|(_, cell, todo)| (cell, todo)), jobs)?;
    if failures.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["run", "failed with", "log"]);
    for f in &failures {
        table.add_row([&f.name, &f.reason, &f.log.display().to_string()]);
    }
    println!("{table}");
    Err(Error::Run {
        dir: args.file.clone(),
        reason: format!("{} of {count} runs failed", failures.len()),
        remedy: "the same command runs what is missing".into(),
    })
}

/// The program: a path as it is, a bare name beside this program.
fn find(binary: &str) -> Result<PathBuf> {
    let path = if binary.contains('/') {
        PathBuf::from(binary)
    } else {
        let own = std::env::current_exe().map_err(Error::io("this program"))?;
        own.with_file_name(binary)
    };
    if !path.is_file() {
        let remedy = "build it by `cargo build --release`, or give a path in the sweep file";
        return Err(Error::Usage(format!("binary {binary}: there is no {}; {remedy}", path.display())));
    }
    Ok(path)
}

fn look(cell: &Cell) -> Result<Todo> {
    let Some(config) = files::read_json::<Value>(&cell.dir.join("config.json"))? else { return Ok(Todo::Start) };
    if let Some(clash) = clash(cell, &config) {
        return Ok(Todo::Refuse(format!(
            "{} holds another run: {clash}; give the sweep another out",
            cell.dir.display()
        )));
    }
    if directory::finished(&cell.dir)?.is_some() {
        return Ok(Todo::Nothing);
    }
    Ok(match checkpoint::position(&cell.dir.join("checkpoint"))? {
        Some(_) => Todo::Resume,
        None => Todo::StartAgain,
    })
}

/// Flags that do not change what a run computes.
const BOOKKEEPING: [&str; 10] = [
    "seed",
    "out",
    "resume",
    "quiet",
    "device",
    "threads",
    "log-every",
    "eval-every",
    "checkpoint-every",
    "tensorboard",
];

/// The flags of a recorded command that a cell lacks: `--lr 0.1` of a run that was asked for another rate before the line was
/// taken out of the sweep file. Presets stand for flags of their own and are compared like any.
fn unasked(cell: &Cell, config: &Value) -> Option<String> {
    let words = config["command"].as_array()?.iter().filter_map(Value::as_str);
    let given = words.filter_map(|w| w.strip_prefix("--")).map(|w| w.split_once('=').map_or(w, |(flag, _)| flag));
    let recorded = |flag: &str| config["config"].get(flag.replace('-', "_")).is_some();
    let mut extra = given.filter(|f| !BOOKKEEPING.contains(f) && recorded(f) && !cell.flags.contains_key(*f));
    extra.next().map(|flag| format!("it was given --{flag}, which the sweep file does not have"))
}

/// Whether a run fell back to the bundled digits.
fn on_sample(cell: &Cell) -> bool {
    let config = files::read_json::<Value>(&cell.dir.join("config.json")).ok().flatten();
    config.is_some_and(|c| c["config"]["data"]["sample"] == Value::Bool(true))
}

/// What the run in a cell's directory was given and the cell does not ask for, or the reverse. A sweep file that was edited
/// must not pass off old runs as new ones.
fn clash(cell: &Cell, config: &Value) -> Option<String> {
    let seed = Value::from(cell.seed);
    let flags = cell.flags.iter().map(|(flag, asked)| (flag, asked, &config["config"][flag.replace('-', "_")]));
    let same = |a: &Value, b: &Value| match (text(a).parse::<f64>(), text(b).parse::<f64>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => text(a) == text(b),
    };
    // A setting that the binary does not record, or records as its default, cannot be compared.
    let mut all = flags.filter(|(_, asked, found)| !asked.is_null() && !found.is_null());
    let flag = all.find(|(_, asked, found)| !same(asked, found)).map(|(k, a, b)| format!("{k} is {b}, not {a}"));
    let flag = flag.or_else(|| unasked(cell, config));
    flag.or_else(|| (config["seed"] != seed).then(|| format!("seed is {}, not {seed}", config["seed"])))
}
