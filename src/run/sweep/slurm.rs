//! A Slurm array script for a sweep.
use super::spec::Cell;
use crate::run::files;
use crate::{Error, Result};
use std::fmt::Write;
use std::path::Path;

/// Writes the script: task N is run N of the sweep, started by this program, which skips and resumes as ever.
pub(super) fn write(script: &Path, file: &Path, cells: &[(usize, Cell)]) -> Result<()> {
    let program = std::env::current_exe().map_err(Error::io("this program"))?;
    let here = std::env::current_dir().map_err(Error::io("the working directory"))?;
    let indices: Vec<String> = cells.iter().map(|(index, _)| index.to_string()).collect();
    let array = match cells.len() {
        1 => indices[0].clone(),
        n => format!("0-{}", n - 1),
    };
    let threads = cells.iter().filter_map(|(_, c)| c.flags.get("threads")?.as_u64()).max().unwrap_or(1);
    let mut text = format!(
        "#!/bin/bash
#SBATCH --job-name=thruway
#SBATCH --array={array}
#SBATCH --cpus-per-task={threads}
#SBATCH --output=slurm-%A_%a.out
#SBATCH --signal=B:INT@120
# Two minutes before the time limit (add --time on the command line of sbatch) the run writes its checkpoint; submit the
# script again to go on. Finished runs are skipped.
"
    );
    for (index, cell) in cells {
        let _ = writeln!(text, "# {index}: {}", cell.name);
    }
    let [program, here, file] = [&program, &here, file].map(|p: &Path| quote(&p.to_string_lossy()));
    let _ = writeln!(text, "cd {here} || exit 1");
    let _ = writeln!(text, "exec {program} sweep {file} --only \"$SLURM_ARRAY_TASK_ID\" --jobs 1");
    files::replace(script, text.as_bytes())
}

/// A word for a shell.
pub(super) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
