//! `examples/tiny_run.rs` as a child process of the tests of run directories and sweeps, and how to read what it wrote.
#[path = "../../examples/tiny_run.rs"]
#[allow(dead_code, reason = "its main is the example's")]
mod tiny_run;

use clap::Parser;
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Not a test: the process that the tests start, under the name that `cargo test` gives their binary. Its arguments are the
/// lines of the variable `TINY_RUN`.
#[test]
#[ignore = "the child process of the others"]
fn child() {
    let Ok(arguments) = std::env::var("TINY_RUN") else { return };
    let code = thruway::run::main(|| tiny_run::train(tiny_run::Args::parse_from(arguments.lines())));
    // `ExitCode` does not tell its number otherwise.
    std::process::exit((0..=255u8).find(|n| ExitCode::from(*n) == code).map_or(1, i32::from));
}

pub fn json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// All that a run says of itself, without times and sizes.
pub fn numbers(dir: &Path) -> (Value, Vec<Value>) {
    let mut summary = json(dir.join("summary.json"));
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for times in ["wall_s", "steps_per_second", "peak_rss_bytes"] {
        summary.as_object_mut().unwrap().remove(times);
        lines.iter_mut().for_each(|l| drop(l.as_object_mut().unwrap().remove(times)));
    }
    (summary, lines)
}

pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < Duration::from_secs(30), "no {what} within 30 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn checkpoint_step(dir: &Path) -> Option<i64> {
    let text = std::fs::read_to_string(dir.join("checkpoint/state.json")).ok()?;
    serde_json::from_str::<Value>(&text).unwrap()["step"].as_i64()
}
