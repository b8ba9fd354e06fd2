//! A `vae` killed at any moment and resumed ends with the numbers of the uninterrupted run, bit for bit (CPU).
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// One of the binaries on the bundled digits, to be started in `dir`.
struct Job {
    binary: &'static str,
    flags: &'static str,
}

impl Job {
    fn command(&self, dir: &Path, out: &str, resume: bool) -> Command {
        let mut c = Command::new(self.binary);
        c.args(self.flags.split_whitespace()).args(["--seed", "5", "--quiet", "--out", out]);
        if resume {
            c.arg("--resume");
        }
        c.current_dir(dir).env_remove("THRUWAY_DATA").env("THRUWAY_OFFLINE", "1");
        c.env("THRUWAY_CACHE", dir.join("cache")).stderr(Stdio::null());
        c
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Lines of metrics.jsonl without times.
fn metrics(path: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(path).unwrap();
    lines
        .lines()
        .map(|l| {
            let mut v: Value = serde_json::from_str(l).unwrap();
            for time in ["wall_s", "epoch_s"] {
                v.as_object_mut().unwrap().remove(time);
            }
            v
        })
        .collect()
}

/// Runs a job whole, and again with kills between, and compares.
fn killed_and_resumed(job: Job) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    assert!(job.command(dir, "whole", false).status().unwrap().success());
    let state = dir.join("killed/checkpoint/state.json");
    let mut kills = 0;
    // Moments spread over the run, start and checkpoint writing included; once all are used the run may end.
    for ms in (0..6).map(|i| 150 + 173 * i % 400) {
        let started = dir.join("killed/config.json").exists();
        if started && !state.exists() {
            // killed before its first checkpoint: nothing to resume, so it starts again
            std::fs::remove_dir_all(dir.join("killed")).unwrap();
        }
        let mut child = job.command(dir, "killed", state.exists()).spawn().unwrap();
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
        assert!(job.command(dir, "killed", !fresh).status().unwrap().success());
    }
    assert!(kills >= 2, "the run ended before it could be killed twice: make it longer");
    let (a, b) = (read(&dir.join("whole/summary.json")), read(&dir.join("killed/summary.json")));
    let untimed = |summary: &Value| {
        let mut all = summary["final"].as_object().unwrap().clone();
        // of the last-named binary alone: the median time of an epoch
        assert!(all.remove("epoch_s").is_none_or(|s| s.as_f64().unwrap() > 0.0));
        all
    };
    assert_eq!(untimed(&a), untimed(&b));
    assert_eq!((&a["steps"], &a["epochs"]), (&b["steps"], &b["epochs"]));
    assert_eq!(metrics(&dir.join("whole/metrics.jsonl")), metrics(&dir.join("killed/metrics.jsonl")));
}

#[test]
fn killed_and_resumed_is_the_same_run() {
    killed_and_resumed(Job {
        binary: env!("CARGO_BIN_EXE_vae"),
        flags: "--preset 8x4 --estimator gumbel-rao --samples 3 --optimizer radam --epochs 9 --steps 170 \
                --checkpoint-every 7 --log-every 5",
    });
}

/// Dynamic binarisation, learned control variates of each of two layers with their optimizer, and measurements of gradients
/// that use the same estimators in between.
#[test]
fn killed_and_resumed_with_what_estimators_learn() {
    killed_and_resumed(Job {
        binary: env!("CARGO_BIN_EXE_sbn-vae"),
        flags: "--estimator rodeo --layers 2 --latent-dim 20 --hidden-dim 30 --batch-size 100 --steps 110 \
                --checkpoint-every 7 --log-every 5 --ll-samples 3 --grad-draws 3",
    });
}

/// A moving average and a learned baseline.
#[test]
fn killed_and_resumed_with_a_baseline() {
    killed_and_resumed(Job {
        binary: env!("CARGO_BIN_EXE_sbn-vae"),
        flags: "--preset gsb-sbn2 --estimator nvil --latent-dim 20 --steps 110 --epochs 9 --checkpoint-every 7 \
                --log-every 5 --ll-samples 3 --grad-draws 3",
    });
}
