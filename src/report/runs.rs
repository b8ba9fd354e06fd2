//! Run directories as the report sees them: found, read, grouped by everything but the seed.
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One run directory.
#[derive(Debug, Clone)]
pub struct Run {
    /// The directory.
    pub dir: PathBuf,
    /// Experiment: `vae`, `poly` ...
    pub family: String,
    /// Seed.
    pub seed: i64,
    /// The `config` object: every setting of the run, without the seed.
    pub config: Map<String, Value>,
    /// Device it ran on.
    pub device: String,
    /// The exact command.
    pub command: String,
    /// Versions recorded with it, as (name, value): crate, git revision, libtorch.
    pub versions: Vec<(String, String)>,
    /// The summary, if the run finished.
    pub outcome: Option<Outcome>,
    /// What the command line changed of the preset's settings; `None` where there is no preset, or the run does not say.
    pub beside_preset: Option<Vec<String>>,
}

/// What `summary.json` says of a finished run.
#[derive(Debug, Clone, Deserialize)]
pub struct Outcome {
    /// Training steps done.
    pub steps: i64,
    /// Epochs done.
    pub epochs: f64,
    /// Wall time in seconds.
    pub wall_s: f64,
    /// Median training speed.
    #[serde(default)]
    pub steps_per_second: Option<f64>,
    /// Peak resident memory.
    #[serde(default)]
    pub peak_rss_bytes: Option<u64>,
    /// Final metrics: numbers, and arrays of flat objects (tables).
    #[serde(default, rename = "final")]
    pub metrics: Map<String, Value>,
    #[serde(default)]
    finished: bool,
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone)]
pub struct Point {
    /// Training step.
    pub step: f64,
    /// Metrics by name.
    pub values: Vec<(String, f64)>,
}

#[derive(Deserialize)]
struct ConfigFile {
    family: String,
    config: Map<String, Value>,
    seed: i64,
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    command: Value,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Settings that say how a run was watched and stored, not what it computed.
const BOOKKEEPING: &[&str] = &[
    "seed",
    "probe", // probes draw from a stream of their own
    "probe_draws",
    "grad_draws", // so do these
    "measure",    // and these
    "device",
    "out",
    "resume",
    "quiet",
    "threads",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "tensorboard",
    "beside_preset", // follows from the settings
];

fn parse<T: serde::de::DeserializeOwned>(dir: &Path, name: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::Run {
        dir: dir.to_path_buf(),
        reason: format!("{name} is damaged or not a run's: {e}"),
        remedy: "move the directory away, or repeat the run".into(),
    })
}

fn read(dir: &Path, name: &str) -> Result<Option<String>> {
    let path = dir.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path)(e)),
    }
}

impl Run {
    /// Reads `dir/config.json` and, if there, `dir/summary.json`.
    ///
    /// # Errors
    /// [`Error::Run`] names the directory and the file that is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        let text = read(dir, "config.json")?.ok_or_else(|| Error::Run {
            dir: dir.to_path_buf(),
            reason: "holds no config.json".into(),
            remedy: "give the directory of a run, or one above it".into(),
        })?;
        let mut file: ConfigFile = parse(dir, "config.json", &text)?;
        let beside_preset =
            file.config.get("beside_preset").and_then(|v| serde_json::from_value(v.clone()).ok()).flatten();
        file.config.retain(|key, _| !BOOKKEEPING.contains(&key.as_str()));
        if file.family == "listops" {
            // older runs do not say so: there was no choice
            file.config.entry("batches").or_insert("bucketed".into());
        }
        let outcome = match read(dir, "summary.json")? {
            Some(text) => Some(parse::<Outcome>(dir, "summary.json", &text)?).filter(|o| o.finished),
            None => None,
        };
        let command = match &file.command {
            Value::Array(words) => words.iter().map(show).collect::<Vec<_>>().join(" "),
            Value::Null => String::new(),
            other => show(other),
        };
        let is_version = |k: &str| k == "version" || k.ends_with("_version") || k.ends_with("_revision");
        let versions = file.rest.iter().filter(|(k, _)| is_version(k)).map(|(k, v)| (k.clone(), show(v))).collect();
        Ok(Self {
            dir: dir.to_path_buf(),
            family: file.family,
            seed: file.seed,
            config: file.config,
            device: file.device.unwrap_or_default(),
            command,
            versions,
            outcome,
            beside_preset,
        })
    }

    /// A setting as text; `None` when absent or null.
    pub fn setting(&self, key: &str) -> Option<String> {
        self.config.get(key).filter(|v| !v.is_null()).map(show)
    }

    /// A final metric of a finished run.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.outcome.as_ref()?.metrics.get(name)?.as_f64()
    }

    /// The lines of `metrics.jsonl`; empty when there is none. A last line without its newline is what a killed process
    /// leaves behind and is dropped.
    ///
    /// # Errors
    /// [`Error::Run`] names the directory and the damaged line.
    pub fn points(&self) -> Result<Vec<Point>> {
        let text = read(&self.dir, "metrics.jsonl")?.unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut points = Vec::new();
        for (index, line) in complete.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let object: Map<String, Value> = parse(&self.dir, &format!("metrics.jsonl line {}", index + 1), line)?;
            let Some(step) = object.get("step").and_then(Value::as_f64) else { continue };
            let metric = |(k, v): (&String, &Value)| Some((k.clone(), v.as_f64()?));
            let clock = ["step", "epoch", "wall_s"];
            let values = object.iter().filter(|(k, _)| !clock.contains(&k.as_str())).filter_map(metric).collect();
            points.push(Point { step, values });
        }
        Ok(points)
    }

    /// Everything that must agree for two runs to be averaged: family, kind of device, every setting but the seed.
    fn identity(&self) -> BTreeMap<String, String> {
        let mut key: BTreeMap<String, String> = self.config.iter().map(|(k, v)| (k.clone(), v.to_string())).collect();
        key.insert("family".into(), self.family.clone());
        key.insert("device".into(), self.device_kind().into());
        key
    }

    /// `cpu` or `cuda`: the device without its index.
    pub fn device_kind(&self) -> &str {
        self.device.split(':').next().unwrap_or_default()
    }
}

/// A JSON value as a reader wants it: strings without quotes.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// Finds the runs at or under `paths`, in order of their path, each once. A directory with a `config.json` is a run;
/// nothing below it is searched.
///
/// # Errors
/// A path that does not exist or holds no run, and a run that cannot be read.
pub fn find(paths: &[PathBuf]) -> Result<Vec<Run>> {
    let mut dirs = BTreeMap::new();
    for path in paths {
        let before = dirs.len();
        let mut seen = 0;
        let mut todo = vec![path.clone()];
        while let Some(dir) = todo.pop() {
            if dir.join("config.json").is_file() {
                seen += 1;
                dirs.entry(dir.canonicalize().map_err(Error::io(&dir))?).or_insert(dir);
                continue;
            }
            for entry in std::fs::read_dir(&dir).map_err(Error::io(&dir))? {
                let entry = entry.map_err(Error::io(&dir))?;
                if entry.file_type().map_err(Error::io(entry.path()))?.is_dir() {
                    todo.push(entry.path());
                }
            }
        }
        if seen == 0 && dirs.len() == before {
            return Err(Error::Run {
                dir: path.clone(),
                reason: "holds no run (no config.json at or below it)".into(),
                remedy: "give a run directory, or one above several".into(),
            });
        }
    }
    dirs.into_values().map(|dir| Run::open(&dir)).collect()
}

/// Finished runs that differ in their seed alone.
#[derive(Debug, Clone)]
pub struct Group {
    /// The runs, by seed; never empty, no seed twice.
    pub runs: Vec<Run>,
    /// What a reader must know: several revisions, a seed given twice.
    pub notes: Vec<String>,
}

impl Group {
    /// A group of the runs given.
    ///
    /// # Errors
    /// [`Error::Run`] when one is unfinished or differs from the first in anything but its seed: such runs are never
    /// averaged. [`Error::Usage`] when there is no run.
    pub fn new(mut runs: Vec<Run>) -> Result<Self> {
        let Some(first) = runs.first() else { return Err(Error::Usage("a group needs at least one run".into())) };
        let key = first.identity();
        for run in &runs {
            let refuse = |reason: String| Error::Run {
                dir: run.dir.clone(),
                reason,
                remedy: "report it apart: runs are averaged over seeds and over nothing else".into(),
            };
            if run.outcome.is_none() {
                return Err(refuse("is not finished".into()));
            }
            let other = run.identity();
            let differs: BTreeSet<&String> =
                key.keys().chain(other.keys()).filter(|k| key.get(*k) != other.get(*k)).collect();
            if !differs.is_empty() {
                let list: Vec<String> = differs
                    .iter()
                    .map(|k| {
                        let show = |m: &BTreeMap<String, String>| m.get(*k).cloned().unwrap_or("absent".into());
                        format!("{k} ({} here, {} there)", show(&other), show(&key))
                    })
                    .collect();
                return Err(refuse(format!("differs from {} in {}", runs[0].dir.display(), list.join(", "))));
            }
        }
        runs.sort_by_key(|r| r.seed);
        let mut notes = Vec::new();
        let mut kept: Vec<Run> = Vec::new();
        for run in runs {
            match kept.last() {
                Some(last) if last.seed == run.seed => {
                    let finals = |r: &Run| r.outcome.as_ref().map(|o| o.metrics.clone());
                    let same = if finals(last) == finals(&run) { "with equal" } else { "WITH DIFFERENT" };
                    notes.push(format!(
                        "seed {} occurs twice {same} final metrics; counted once, from {} and not from {}",
                        run.seed,
                        last.dir.display(),
                        run.dir.display()
                    ));
                }
                _ => kept.push(run),
            }
        }
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, value) in kept.iter().flat_map(|r| &r.versions) {
            versions.entry(name).or_default().insert(value);
        }
        for (name, values) in versions.iter().filter(|(_, v)| v.len() > 1) {
            let list: Vec<&str> = values.iter().copied().collect();
            notes.push(format!("runs of {} values of {name}: {}", values.len(), list.join(", ")));
        }
        Ok(Self { runs: kept, notes })
    }

    /// The first run, which has the settings of all.
    pub fn first(&self) -> &Run {
        &self.runs[0]
    }

    /// The outcomes, by seed.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.runs.iter().filter_map(|r| r.outcome.as_ref())
    }

    /// Values of a final metric over the runs; `None` unless every run has it.
    pub fn values(&self, metric: &str) -> Option<Vec<f64>> {
        self.runs.iter().map(|r| r.metric(metric)).collect()
    }

    /// Epochs done, where all runs did the same number.
    pub fn epochs(&self) -> Option<f64> {
        let mut epochs = self.outcomes().map(|o| o.epochs);
        let first = epochs.next()?;
        epochs.all(|e| e == first).then_some(first)
    }
}

/// Sorts runs into groups that differ in their seed alone, and the unfinished ones.
pub fn group(runs: Vec<Run>) -> Result<(Vec<Group>, Vec<Run>)> {
    let (finished, unfinished): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|r| r.outcome.is_some());
    let mut groups: BTreeMap<BTreeMap<String, String>, Vec<Run>> = BTreeMap::new();
    for run in finished {
        groups.entry(run.identity()).or_default().push(run);
    }
    Ok((groups.into_values().map(Group::new).collect::<Result<_>>()?, unfinished))
}
