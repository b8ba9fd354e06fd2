//! Results: published numbers, run directories read back, tables, curves and the report page.
//!
//! The report reads files and nothing else: `config.json`, `summary.json` and `metrics.jsonl` of each run directory.
//! Runs are averaged over seeds and over nothing else; a published figure always stands in its own column, with its own
//! number of runs and epochs, and a z appears only where ours has the same length and settings.
mod args;
pub mod collect;
pub mod compare;
pub mod curves;
mod generative;
pub mod html;
pub mod markdown;
pub mod published;
pub mod runs;
pub mod stats;
pub mod table;

pub use args::{PageArgs, TablesArgs};

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// `thruway report`
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArgs {
    /// Run directories, or directories above them.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// The HTML page to write [default: report.html, or none with --markdown].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Fill the tables between `<!-- table:NAME -->` and `<!-- /table -->` in this file; may be given several times. An
    /// unknown NAME is answered with the known ones.
    #[arg(long, value_name = "FILE")]
    pub markdown: Vec<PathBuf>,
}

/// Reads the runs, writes the page and fills the Markdown files; returns what a terminal should show: all tables, then
/// what was written.
///
/// # Errors
/// A path without runs, a damaged run directory (named), an unknown table name, and file errors.
pub fn report(args: &ReportArgs) -> Result<String> {
    let (groups, unfinished) = runs::group(runs::find(&args.runs)?)?;
    let families = compare::families(groups, unfinished);
    let mut tables = Vec::new();
    for family in &families {
        family.problems.iter().for_each(|p| tables.extend(p.tables()));
        tables.extend(compare::unfinished_table(family, &|dir| dir.display().to_string())?);
    }
    let mut text: String = tables.iter().map(|t| t.text() + "\n").collect();
    for file in &args.markdown {
        let count = markdown::fill_file(file, &tables)?;
        text += &format!("{}: {count} tables filled\n", file.display());
    }
    let page = args.out.clone().or_else(|| args.markdown.is_empty().then(|| PathBuf::from("report.html")));
    if let Some(page) = page {
        let base = page.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(base).map_err(Error::io(base))?;
        // `--out` given a run's own file would lose it
        if std::fs::read(&page).is_ok_and(|old| !old.is_empty() && !old.starts_with(b"<!DOCTYPE html>")) {
            let place = page.display();
            return Err(Error::Usage(format!(
                "--out {place} is there and is no report; give another path, or move it away"
            )));
        }
        write_aside(&page, html::page(&families, base)?.as_bytes())?;
        text += &format!("report: {}\n", page.display());
    }
    Ok(text)
}

/// Writes a file whole or not at all.
fn write_aside(path: &Path, bytes: &[u8]) -> Result<()> {
    let aside = path.with_extension("tmp");
    std::fs::write(&aside, bytes).map_err(Error::io(&aside))?;
    std::fs::rename(&aside, path).map_err(Error::io(path))
}
