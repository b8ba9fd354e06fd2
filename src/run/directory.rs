//! The run directory, from the first look at it to the summary.
use super::checkpoint::{self, Checkpoint, Position, Saved};
use super::clock::Clock;
use super::files;
use super::progress::Progress;
use super::tensorboard::EventFile;
use super::{RunArgs, config, interrupt};
use crate::kernels::heap;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Without `--checkpoint-every`, a kill costs at most this much work and one step.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// A run at work on its directory, which it holds locked.
pub struct Run {
    /// The directory, for files of the experiment's own.
    pub dir: PathBuf,
    family: &'static str,
    clock: Clock,
    metrics: File,
    events: Option<EventFile>,
    progress: Progress,
    checkpoint_every: Option<i64>,
    saved: Instant,
    peak_rss_bytes: Option<u64>,
    _lock: File,
}

/// `summary.json`: how a finished run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// Experiment.
    pub family: String,
    /// Training steps done.
    pub steps: i64,
    /// Epochs done.
    pub epochs: i64,
    /// Wall time in seconds, summed over the processes of the run.
    pub wall_s: f64,
    /// One over the median time of a training step, without the first three of each process and without evaluation,
    /// set-up and checkpoints; `None` for fewer steps than that.
    pub steps_per_second: Option<f64>,
    /// Peak resident memory; `None` where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// True.
    pub finished: bool,
    /// Final metrics.
    #[serde(rename = "final")]
    pub metrics: Map<String, Value>,
}

impl Run {
    /// Takes the directory `args.out`, or else `default_out`, for a run of `family`: creates it and writes `config.json`, or
    /// with `--resume` gives the checkpoint to go on from. `config` is an object of the binary's own settings, defaults
    /// included, and nothing else: a run can be resumed only with an equal one.
    ///
    /// # Errors
    /// [`Error::Run`], with the remedy, if the directory holds a run and `--resume` is not given, holds none to resume or one
    /// with other settings or without a checkpoint, is in use by another process, or cannot be written;
    /// [`Error::Finished`] if there is nothing left to resume.
    pub fn open(
        family: &'static str,
        args: &RunArgs,
        default_out: PathBuf,
        config: Value,
    ) -> Result<(Run, Option<Checkpoint>)> {
        interrupt::watch()?;
        heap::keep_freed();
        let dir = args.out.clone().unwrap_or(default_out);
        let record = config::record(family, args, args.device()?, config)?;
        let (lock, saved) = match args.resume {
            false => (start(&dir, &record)?, None),
            true => reopen(&dir, &record, args.quiet).map(|(lock, saved)| (lock, Some(saved)))?,
        };
        let position = saved.as_ref().map(|s| &s.position);
        let (step, before, length) = position.map_or((0, 0.0, 0), |p| (p.step, p.wall_s, p.metrics_bytes));
        let peak_rss_bytes = position.and_then(|p| p.peak_rss_bytes);
        let path = dir.join("metrics.jsonl");
        let metrics =
            OpenOptions::new().create(true).append(true).open(&path).map_err(|e| files::unwritten(&path, e))?;
        if metrics.metadata().map_err(Error::io(&path))?.len() < length {
            let remedy = "move the directory away and start the run again";
            return Err(refuse(&dir, "metrics.jsonl is shorter than at the checkpoint", remedy));
        }
        metrics.set_len(length).map_err(|e| files::unwritten(&path, e))?;
        let (checkpoint, seconds) = saved.map_or((None, Vec::new()), |s| (Some(s.checkpoint), s.seconds));
        let run = Run {
            family,
            clock: Clock::new(before, seconds),
            metrics,
            events: args.tensorboard.then(|| EventFile::open(&dir, before)).transpose()?,
            progress: Progress::new(args.quiet, step),
            checkpoint_every: args.checkpoint_every,
            saved: Instant::now(),
            peak_rss_bytes,
            _lock: lock,
            dir,
        };
        Ok((run, checkpoint))
    }

    /// The number of steps at which the run will end, for the bar's ETA.
    pub fn expect_steps(&mut self, total: i64) {
        self.progress.expect(total);
    }

    /// Adds a line to `metrics.jsonl`. A value that is not finite is written as `null`.
    ///
    /// # Errors
    /// [`Error::Run`] when the file cannot be written, as on a full disk.
    pub fn log(&mut self, step: i64, epoch: i64, metrics: &[(&str, f64)]) -> Result<()> {
        self.aside(|run| {
            let mut line = Map::new();
            line.insert("step".into(), step.into());
            line.insert("epoch".into(), epoch.into());
            line.insert("wall_s".into(), run.clock.wall_s().into());
            for (name, value) in metrics {
                line.insert((*name).into(), Number::from_f64(*value).map_or(Value::Null, Value::Number));
            }
            if let Some(events) = &mut run.events {
                events.add(&line)?;
            }
            let line = format!("{}\n", Value::Object(line));
            run.metrics.write_all(line.as_bytes()).map_err(|e| files::unwritten(&run.dir.join("metrics.jsonl"), e))
        })
    }

    /// To be called at the end of every training step, with its loss: times the step and moves the bar.
    pub fn step_done(&mut self, step: i64, loss: f64) {
        let now = Instant::now();
        self.clock.step_done(now);
        self.progress.step(step, loss, now);
    }

    /// Stops the clock of the training steps: before evaluation, probes, pictures. [`Run::log`] and [`Run::save`] do so
    /// themselves.
    pub fn pause(&mut self) {
        self.clock.pause();
    }

    /// Lets the clock of the training steps go on.
    pub fn resume_clock(&mut self) {
        self.clock.resume();
    }

    /// Whether the run should be saved after this step: by `--checkpoint-every`, else twenty seconds after the last
    /// checkpoint; and after an interrupt.
    pub fn checkpoint_due(&mut self, step: i64) -> bool {
        let due = match self.checkpoint_every {
            Some(every) => step % every == 0,
            None => self.saved.elapsed() >= CHECKPOINT_EVERY,
        };
        due || self.interrupted()
    }

    /// Writes a checkpoint. Whenever the process is killed, the directory holds either this one or the one before, whole.
    ///
    /// # Errors
    /// [`Error::Run`] when it cannot be written; the one before is then intact. [`Error::Shape`] for tensors of a kind that
    /// the format has not, or two of one name.
    pub fn save(&mut self, step: i64, epoch: i64, checkpoint: &Checkpoint) -> Result<()> {
        self.aside(|run| {
            let path = run.dir.join("metrics.jsonl");
            // The lines up to here must be on disk before a checkpoint says that they are.
            run.metrics.sync_data().map_err(|e| files::unwritten(&path, e))?;
            let position = Position {
                step,
                epoch,
                wall_s: run.clock.wall_s(),
                peak_rss_bytes: run.peak(),
                metrics_bytes: run.metrics.metadata().map_err(Error::io(&path))?.len(),
                tensors: String::new(),
                state: checkpoint.state.clone(),
            };
            let dir = run.dir.join("checkpoint");
            fs::create_dir_all(&dir).map_err(|e| files::unwritten(&dir, e))?;
            checkpoint::write(&dir, position, &checkpoint.tensors, &run.clock.steps)?;
            run.saved = Instant::now();
            Ok(())
        })
    }

    /// What the binary kept in [`Checkpoint::state`].
    ///
    /// # Errors
    /// [`Error::Run`] if it does not fit, as after a change of the binary; it names the file.
    pub fn state<T: serde::de::DeserializeOwned>(&self, checkpoint: &Checkpoint) -> Result<T> {
        serde_json::from_value(checkpoint.state.clone()).map_err(|e| {
            let reason = format!("checkpoint/state.json is not what this binary writes: {e}");
            refuse(&self.dir, reason, "move the directory away and start the run again")
        })
    }

    /// Whether Ctrl-C, SIGTERM or SIGHUP was seen: save, and return [`Error::Interrupted`].
    pub fn interrupted(&self) -> bool {
        interrupt::interrupted()
    }

    /// Prints a line beside the progress bar; nothing with `--quiet`.
    pub fn say(&self, text: &str) {
        self.progress.say(text);
    }

    /// Writes `summary.json`: the run is finished. Its last checkpoint stays.
    ///
    /// # Errors
    /// [`Error::Run`] when it cannot be written.
    pub fn finish(self, steps: i64, epochs: i64, metrics: Map<String, Value>) -> Result<Summary> {
        let summary = Summary {
            family: self.family.into(),
            steps,
            epochs,
            wall_s: self.clock.wall_s(),
            steps_per_second: self.clock.steps_per_second(),
            peak_rss_bytes: self.peak(),
            finished: true,
            metrics,
        };
        let path = self.dir.join("metrics.jsonl");
        self.metrics.sync_data().map_err(|e| files::unwritten(&path, e))?;
        files::write_json(&self.dir.join("summary.json"), &summary)?;
        let took = indicatif::HumanDuration(Duration::from_secs_f64(summary.wall_s));
        self.progress.done(&format!("{steps} steps in {took}; run directory {}", self.dir.display()));
        Ok(summary)
    }

    /// Does something outside the training steps.
    fn aside<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let paused = self.clock.paused();
        self.clock.pause();
        let result = work(self);
        if !paused {
            self.clock.resume();
        }
        result
    }

    /// Peak resident memory over all processes of the run, as far as the system tells.
    fn peak(&self) -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).max(self.peak_rss_bytes)
    }
}

fn refuse(dir: &Path, reason: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::Run { dir: dir.to_path_buf(), reason: reason.into(), remedy: remedy.into() }
}

/// A directory for a new run.
fn start(dir: &Path, record: &Value) -> Result<File> {
    fs::create_dir_all(dir).map_err(|e| refuse(dir, format!("cannot be created: {e}"), "choose another --out"))?;
    let lock = lock(dir)?;
    if finished(dir)?.is_some() {
        return Err(refuse(dir, "holds a finished run", "choose another --out, or remove the directory"));
    }
    for name in ["config.json", "metrics.jsonl", "checkpoint"] {
        if dir.join(name).exists() {
            let remedy = match checkpoint::position(&dir.join("checkpoint"))? {
                Some(p) => format!("continue it from step {} with --resume, or choose another --out", p.step),
                None => "it has no checkpoint yet: remove the directory, or choose another --out".into(),
            };
            return Err(refuse(dir, format!("holds a run already ({name} is there)"), remedy));
        }
    }
    files::write_json(&dir.join("config.json"), record)?;
    Ok(lock)
}

/// The directory of a run to go on with.
fn reopen(dir: &Path, record: &Value, quiet: bool) -> Result<(File, Saved)> {
    let path = dir.join("config.json");
    let none =
        || refuse(dir, "holds no run to resume", "give its directory by --out, or leave out --resume to start one");
    if !path.is_file() {
        return Err(none());
    }
    let lock = lock(dir)?;
    let old: Value = files::read_json(&path)?.ok_or_else(none)?;
    config::check_same(dir, &old, record)?;
    if let Some(summary) = finished(dir)? {
        return Err(Error::Finished { dir: dir.to_path_buf(), steps: summary.steps });
    }
    let saved = checkpoint::read(&dir.join("checkpoint"))?.ok_or_else(|| {
        refuse(dir, "holds no checkpoint to resume from", "remove the directory and start again without --resume")
    })?;
    let changed = config::changed_versions(&old, record);
    if !changed.is_empty() && !quiet {
        eprintln!("note: changed since the run began: {}; its numbers may depend on it", changed.join(", "));
    }
    Ok((lock, saved))
}

/// The summary in `dir` if its run is finished.
pub(super) fn finished(dir: &Path) -> Result<Option<Summary>> {
    Ok(files::read_json::<Summary>(&dir.join("summary.json"))?.filter(|s| s.finished))
}

/// Removes what a run left that was killed before its first checkpoint.
pub(super) fn clear(dir: &Path) -> Result<()> {
    let _lock = lock(dir)?;
    for name in ["metrics.jsonl", "config.json"] {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path)(e)),
            _ => {}
        }
    }
    let path = dir.join("checkpoint");
    match fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

/// Locks the directory for this process; the system unlocks it when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|e| files::unwritten(&path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            let reason = format!("another process is at work on this run (process {})", holder.trim());
            return Err(refuse(dir, reason, "wait for it, stop it, or choose another --out"));
        }
        Err(TryLockError::Error(e)) => return Err(Error::io(path)(e)),
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(|e| files::unwritten(&path, e))?;
    Ok(file)
}
