//! Copies what a quoted result needs, and no more, to where it is kept under version control.
use super::runs::{self, Run};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `thruway collect`
#[derive(Debug, Clone, clap::Args)]
pub struct CollectArgs {
    /// Run directories, or directories above them.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// Folder for the copies, as in experiments/vae/results; each goes to NAME/SEED below it.
    #[arg(long)]
    pub into: PathBuf,
}

/// Copies `config.json` and `summary.json` of every finished run to `into/<name>/<seed>/` and says what it did, a line a
/// run. The name is that of the folder above the run where the run's own folder is just its seed; runs that would share name
/// and seed, as two sweeps' may, get the next folder's name in front: `mnist_estimator-st`.
///
/// # Errors
/// Runs of several families, two runs with one destination even so, a destination that holds a run of other settings, and file
/// errors. Nothing is written before all is checked.
pub fn collect(args: &CollectArgs) -> Result<String> {
    let found = runs::find(&args.runs)?;
    if let Some(other) = found.iter().find(|r| r.family != found[0].family) {
        return Err(Error::Usage(format!(
            "{} is a run of {}, {} one of {}; collect one family at a time",
            found[0].dir.display(),
            found[0].family,
            other.dir.display(),
            other.family
        )));
    }
    let finished: Vec<&Run> = found.iter().filter(|r| r.outcome.is_some()).collect();
    let names = finished.iter().map(|run| names(run)).collect::<Result<Vec<_>>>()?;
    let mut places: BTreeMap<PathBuf, &Run> = BTreeMap::new();
    for (run, [name, longer]) in finished.iter().zip(&names) {
        let same = finished.iter().zip(&names).filter(|(other, [n, _])| n == name && other.seed == run.seed).count();
        let name = if same > 1 { longer } else { name };
        if let Some(first) = places.insert(args.into.join(name).join(run.seed.to_string()), run) {
            let (a, b) = (first.dir.display(), run.dir.display());
            return Err(Error::Usage(format!("{a} and {b} have the same name and seed; collect one of them")));
        }
    }
    for (place, run) in &places {
        if !place.join("config.json").exists() {
            continue;
        }
        let kept = Run::open(place)?;
        if kept.config != run.config || kept.seed != run.seed {
            let (kept, new) = (place.display(), run.dir.display());
            return Err(Error::Usage(format!(
                "{kept} holds a run of other settings than {new}; move it away, or collect into another folder"
            )));
        }
    }
    let mut out = String::new();
    for (place, run) in &places {
        std::fs::create_dir_all(place).map_err(Error::io(place))?;
        let mut changed = false;
        for file in ["config.json", "summary.json"] {
            let bytes = std::fs::read(run.dir.join(file)).map_err(Error::io(run.dir.join(file)))?;
            let target = place.join(file);
            if std::fs::read(&target).ok().as_ref() != Some(&bytes) {
                changed = true;
                super::write_aside(&target, &bytes)?;
            }
        }
        let what = if changed { "written" } else { "already there" };
        out += &format!("{} {what}, from {}\n", place.display(), run.dir.display());
    }
    for run in found.iter().filter(|r| r.outcome.is_none()) {
        out += &format!("{} left out: not finished\n", run.dir.display());
    }
    Ok(out)
}

/// The run's name, and the same with that of the folder above in front.
fn names(run: &Run) -> Result<[String; 2]> {
    let full = run.dir.canonicalize().map_err(Error::io(&run.dir))?;
    let of = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let own = of(&full);
    let is_seed = own.trim_start_matches("seed").trim_start_matches(['-', '_', '=']) == run.seed.to_string();
    let place = if is_seed { full.parent().unwrap_or(&full) } else { &full };
    let above = place.parent().map(of).unwrap_or_default();
    Ok([of(place), format!("{above}_{}", of(place))])
}
