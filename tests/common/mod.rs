//! Shared by the tests: fixture files, JSON as tensors, noise that is kept.
#![allow(dead_code, missing_docs)]
pub mod psa;
pub mod sbn;
pub mod stats;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tch::{Device, Kind, Tensor};
use thruway::Result;
use thruway::dist::bernoulli::Code;
use thruway::estimators::{Estimator, GradEstimator, Knobs, Place, Sizes, Takes};
use thruway::noise::{HostNoise, Noise, Tape};

/// Says that a test did not run, past libtest's capture: a passing test's output is hidden, a skip must not be.
/// `make test` counts these lines.
#[allow(clippy::explicit_write)] // eprintln! is captured
pub fn skip(test: &str, why: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("\nSKIPPED {test}: {why}\n").as_bytes()).unwrap();
}

/// The fixtures of the project and, where `THRUWAY_FIXTURES` names a directory, those in it.
pub fn fixture_files() -> Vec<PathBuf> {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")];
    dirs.extend(std::env::var_os("THRUWAY_FIXTURES").map(PathBuf::from));
    let mut files: Vec<PathBuf> = dirs
        .iter()
        .flat_map(|d| std::fs::read_dir(d).unwrap_or_else(|e| panic!("{}: {e}", d.display())))
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

pub fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Fails with what a program that failed has said.
pub fn good(o: std::process::Output) {
    assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
}

/// Lines of metrics.jsonl without their times.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |l: &str| {
        let mut v: Value = serde_json::from_str(l).unwrap();
        v.as_object_mut().unwrap().remove("wall_s");
        v
    };
    text.lines().map(line).collect()
}

/// Final metrics of a run.
pub fn finals(run: &Path) -> Value {
    read(&run.join("summary.json"))["final"].clone()
}

/// Tensors of a run's last checkpoint by name, without the times of steps.
pub fn tensors(run: &Path) -> Vec<(String, Tensor)> {
    let folder = run.join("checkpoint");
    let name = read(&folder.join("state.json"))["tensors"].as_str().unwrap().to_string();
    let mut all = Tensor::read_safetensors(folder.join(name)).unwrap();
    all.retain(|(name, _)| name != "run.step_seconds");
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Brings the run to its end through kills: `start` gives the command, with what it is told appended (nothing, or ` --resume`).
/// Each time it is killed soon after the first checkpoint that is new, by `wait` later at each kill; after three it may end.
pub fn killed_and_resumed(run: &Path, wait: Duration, start: impl Fn(&str) -> Command) {
    let (state, summary) = (run.join("checkpoint/state.json"), run.join("summary.json"));
    let mut kills = 0;
    while !summary.exists() {
        if !state.exists() {
            // killed before its first checkpoint: nothing to resume
            let _ = std::fs::remove_dir_all(run);
        }
        let before = std::fs::read_to_string(&state).unwrap_or_default();
        let mut child = start(if state.exists() { " --resume" } else { "" }).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            let new = std::fs::read_to_string(&state).is_ok_and(|now| now != before);
            if new && kills < 3 {
                std::thread::sleep(wait * kills);
                kills += u32::from(child.kill().is_ok());
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait().unwrap();
    }
    assert!(kills >= 2, "{}: ended before it could be killed twice", run.display());
}

/// Nested lists of numbers as a float64 tensor.
pub fn tensor(v: &Value) -> Tensor {
    let (mut shape, mut data) = (vec![], vec![]);
    let mut level = v;
    while let Value::Array(a) = level {
        shape.push(a.len() as i64);
        level = &a[0];
    }
    fn flatten(v: &Value, out: &mut Vec<f64>) {
        match v {
            Value::Array(a) => a.iter().for_each(|v| flatten(v, out)),
            v => out.push(v.as_f64().expect("a number")),
        }
    }
    flatten(v, &mut data);
    Tensor::from_slice(&data).view(&shape[..])
}

/// Largest absolute difference.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    if a.numel() == 0 { 0.0 } else { (a - b).abs().max().double_value(&[]) }
}

/// Base64 of little-endian numbers, as the recordings hold them, as a tensor of that shape.
pub fn unpack(v: &Value, kind: Kind, shape: &[i64]) -> Tensor {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(v.as_str().expect("a base64 string")).unwrap();
    Tensor::from_data_size(&bytes, shape, kind)
}

/// Standard normals that depend on `seed` alone.
pub fn normals(size: &[i64], kind: Kind, seed: u64) -> Tensor {
    HostNoise::new(seed).normal(size, kind, Device::Cpu).unwrap()
}

/// Knobs to build an estimator with nothing chosen: Boolean ones need a code.
pub fn plain(e: Estimator) -> Knobs {
    let code = (e.claims().variables == Takes::Boolean).then_some(Code::ZeroOne);
    Knobs { code, sizes: sizes(3), ..Knobs::default() }
}

/// Learned parts in double for so many latents, without a context.
pub fn sizes(latents: i64) -> Sizes {
    let place = Some(Place { kind: Kind::Double, device: Device::Cpu });
    Sizes { latents: Some(latents), context: None, place }
}

/// Learned parameters away from where they start. Nothing is left of fresh weights, which come from the generator that all
/// tests of a file share.
pub fn perturb(e: &dyn GradEstimator, seed: u64) {
    let _guard = tch::no_grad_guard();
    for (i, (_, mut t)) in e.parameters().into_iter().enumerate() {
        let noise = normals(&t.size(), t.kind(), seed + i as u64);
        t.copy_(&if t.dim() == 0 { &t * 0.7 + noise * 0.3 } else { noise * 0.3 });
    }
}

/// Largest entry in absolute value.
pub fn largest(t: &Tensor) -> f64 {
    t.abs().max().double_value(&[])
}

/// Draws from a [`HostNoise`] and keeps what it gave, to be replayed by a [`Tape`] whole or changed.
pub struct Recording {
    inner: HostNoise,
    entries: Vec<(&'static str, Tensor)>,
}

impl Recording {
    pub fn new(seed: u64) -> Self {
        Recording { inner: HostNoise::new(seed), entries: vec![] }
    }

    /// A tape of everything drawn, each tensor passed through `change`.
    pub fn tape(&self, change: impl Fn(&Tensor) -> Tensor) -> Tape {
        Tape::new(self.entries.iter().map(|(name, t)| (*name, change(t))))
    }

    fn keep(&mut self, name: &'static str, t: Result<Tensor>) -> Result<Tensor> {
        let t = t?;
        self.entries.push((name, t.copy()));
        Ok(t)
    }
}

impl Noise for Recording {
    fn uniform(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let t = self.inner.uniform(size, kind, device);
        self.keep("uniform", t)
    }
    fn exponential(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let t = self.inner.exponential(size, kind, device);
        self.keep("exponential", t)
    }
    fn gumbel(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let t = self.inner.gumbel(size, kind, device);
        self.keep("gumbel", t)
    }
    fn logistic(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let t = self.inner.logistic(size, kind, device);
        self.keep("logistic", t)
    }
    fn normal(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let t = self.inner.normal(size, kind, device);
        self.keep("normal", t)
    }
}
