//! `config.json`: what it holds, and what must be the same for a run to be continued.
use super::RunArgs;
use super::args::device_name;
use crate::autograd::libtorch;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;
use tch::Device;

/// Settings of how a run is watched and stored: they may change from one process to the next.
const BOOKKEEPING: &[&str] = &[
    "out",
    "resume",
    "seed",   // compared as a field of its own
    "device", // likewise, and only its kind
    "threads",
    "log_every",
    "eval_every",
    "checkpoint_every",
    "quiet",
    "tensorboard",
    "beside_preset", // follows from the settings
];

/// The content of `config.json`. `config` is an object of the binary's own settings, defaults included.
pub(super) fn record(family: &str, args: &RunArgs, device: Device, config: Value) -> Result<Value> {
    if !config.is_object() {
        return Err(Error::shape("Run::open", "an object of settings", config));
    }
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let value = json!({
        "family": family,
        "config": config,
        "seed": args.seed,
        "device": device_name(device),
        "threads": args.threads,
        "log_every": args.log_every,
        "eval_every": args.eval_every,
        "checkpoint_every": args.checkpoint_every,
        "crate_version": env!("CARGO_PKG_VERSION"),
        "git_revision": env!("THRUWAY_GIT_REVISION"),
        "libtorch_version": libtorch::version(),
        "command": command(),
        "started_unix": started.as_secs(),
    });
    // through text once, so that it equals what is read back (NaN is null, a float has one spelling)
    Ok(serde_json::from_str(&value.to_string())?)
}

/// Refuses to continue a run under other settings.
pub(super) fn check_same(dir: &Path, old: &Value, new: &Value) -> Result<()> {
    let (old, new) = (what_counts(old), what_counts(new));
    let mut keys: Vec<&String> = old.keys().collect();
    keys.extend(new.keys().filter(|k| !old.contains_key(*k)));
    let show = |m: &Map<String, Value>, k: &str| m.get(k).map_or("absent".into(), Value::to_string);
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|k| old.get(*k) != new.get(*k))
        .map(|k| format!("{k} (run: {}, now: {})", show(&old, k), show(&new, k)))
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Error::Run {
        dir: dir.to_path_buf(),
        reason: format!("was started with other settings: {}", differing.join(", ")),
        remedy: "resume with the settings in its config.json (a run's length is one of them), or start a new run in \
                 another --out"
            .into(),
    })
}

/// Everything that the numbers of a run depend on, as one flat object.
fn what_counts(record: &Value) -> Map<String, Value> {
    let mut map = Map::new();
    for key in ["family", "seed"] {
        map.insert(key.into(), record[key].clone());
    }
    let device = record["device"].as_str().unwrap_or_default();
    map.insert("device".into(), device.split(':').next().into());
    for (key, value) in record["config"].as_object().into_iter().flatten() {
        if !BOOKKEEPING.contains(&key.as_str()) {
            map.insert(key.clone(), value.clone());
        }
    }
    map
}

/// Versions that changed since the run began: its numbers may then differ from those of an uninterrupted run.
pub(super) fn changed_versions(old: &Value, new: &Value) -> Vec<String> {
    ["crate_version", "git_revision", "libtorch_version", "threads"]
        .iter()
        .filter(|k| old[**k] != new[**k])
        .map(|k| format!("{k} {} -> {}", old[*k], new[*k]))
        .collect()
}

/// The command line, the program by its name alone: where it lies says nothing about the run.
fn command() -> Vec<String> {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        *program =
            std::path::Path::new(program.as_str()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    }
    words
}
