//! A `vae` killed at any moment and resumed ends with the numbers of the uninterrupted run, bit for bit (CPU).
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn vae(dir: &Path, out: &str, resume: bool) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_vae"));
    c.args(["--preset", "8x4", "--estimator", "gumbel-rao", "--samples", "3", "--optimizer", "radam", "--seed", "5"]);
    c.args(["--epochs", "9", "--steps", "170", "--checkpoint-every", "7", "--log-every", "5", "--quiet", "--out", out]);
    if resume {
        c.arg("--resume");
    }
    c.current_dir(dir).env_remove("THRUWAY_DATA").env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.join("cache"));
    c.stderr(Stdio::null());
    c
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Lines of metrics.jsonl without their times.
fn metrics(path: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(path).unwrap();
    lines
        .lines()
        .map(|l| {
            let mut v: Value = serde_json::from_str(l).unwrap();
            v.as_object_mut().unwrap().remove("wall_s");
            v
        })
        .collect()
}

#[test]
fn killed_and_resumed_is_the_same_run() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    assert!(vae(dir, "whole", false).status().unwrap().success());
    let state = dir.join("killed/checkpoint/state.json");
    let mut kills = 0;
    // Moments spread over the run, start and checkpoint writing included; once all are used the run may end.
    for ms in (0..6).map(|i| 150 + 173 * i % 400) {
        let started = dir.join("killed/config.json").exists();
        if started && !state.exists() {
            // killed before its first checkpoint: nothing to resume, so it starts again
            std::fs::remove_dir_all(dir.join("killed")).unwrap();
        }
        let mut child = vae(dir, "killed", state.exists()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(ms));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
        if dir.join("killed/summary.json").exists() {
            break;
        }
    }
    if !dir.join("killed/summary.json").exists() {
        let fresh = !state.exists();
        if fresh {
            let _ = std::fs::remove_dir_all(dir.join("killed"));
        }
        assert!(vae(dir, "killed", !fresh).status().unwrap().success());
    }
    assert!(kills >= 2, "the run ended before it could be killed twice: make it longer");
    let (a, b) = (read(&dir.join("whole/summary.json")), read(&dir.join("killed/summary.json")));
    assert_eq!(a["final"], b["final"]);
    assert_eq!((&a["steps"], &a["epochs"]), (&b["steps"], &b["epochs"]));
    assert_eq!(metrics(&dir.join("whole/metrics.jsonl")), metrics(&dir.join("killed/metrics.jsonl")));
}
