//! The `listops` binary: a killed run resumed is the uninterrupted one bit for bit (CPU); trees; settings of Table 8; refusals.
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A small model on generated expressions, offline.
fn listops(dir: &Path, more: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_listops"));
    c.args(["--train-size", "500", "--max-length", "20", "--embedding-dim", "8", "--hidden-dim", "12"]).args(more);
    c.current_dir(dir).env_remove("THRUWAY_DATA").env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.join("cache"));
    c
}

const LONG: [&str; 10] =
    ["--estimator", "gumbel-rao", "--samples", "3", "--seed", "5", "--epochs", "30", "--checkpoint-every", "7"];

fn long(dir: &Path, out: &str, resume: bool) -> Command {
    let mut c = listops(dir, &LONG);
    c.args(["--validations", "3", "--log-every", "5", "--lr", "0.004", "--quiet", "--out", out]).stderr(Stdio::null());
    if resume {
        c.arg("--resume");
    }
    c
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Lines of metrics.jsonl without their times.
fn metrics(path: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(path).unwrap();
    let line = |l: &str| {
        let mut v: Value = serde_json::from_str(l).unwrap();
        v.as_object_mut().unwrap().remove("wall_s");
        v
    };
    lines.lines().map(line).collect()
}

#[test]
fn killed_and_resumed_is_the_same_run() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    assert!(long(dir, "whole", false).status().unwrap().success());
    let (state, summary) = (dir.join("killed/checkpoint/state.json"), dir.join("killed/summary.json"));
    let mut kills = 0;
    for patience in 1..40 {
        if !state.exists() {
            // killed before its first checkpoint: nothing to resume, so it starts again
            let _ = std::fs::remove_dir_all(dir.join("killed"));
        }
        let mut child = long(dir, "killed", state.exists()).spawn().unwrap();
        // the first three are killed once they have got somewhere: after a later checkpoint than the one they began with
        let before = std::fs::read(&state).unwrap_or_default();
        let mut changed = 0;
        while kills < 3 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(3));
            let now = std::fs::read(&state).unwrap_or_default();
            changed += usize::from(now != before);
            if changed > patience {
                child.kill().unwrap();
                kills += 1;
                break;
            }
        }
        child.wait().unwrap();
        if summary.exists() {
            break;
        }
    }
    assert!(kills >= 2, "the run ended before it could be killed twice: make it longer");
    let (a, b) = (read(&dir.join("whole/summary.json")), read(&summary));
    assert_eq!(a["final"], b["final"]);
    assert_eq!((&a["steps"], &a["epochs"]), (&b["steps"], &b["epochs"]));
    assert_eq!(metrics(&dir.join("whole/metrics.jsonl")), metrics(&dir.join("killed/metrics.jsonl")));
    for name in ["trees.txt", "tree-1.svg", "tree-5.svg"] {
        assert!(
            std::fs::read(dir.join("whole").join(name)).unwrap()
                == std::fs::read(dir.join("killed").join(name)).unwrap()
        );
    }
    let trees = std::fs::read_to_string(dir.join("whole/trees.txt")).unwrap();
    for line in trees.lines() {
        let [label, predicted, tree] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(label.parse::<u8>().unwrap() < 10 && predicted.parse::<u8>().unwrap() < 10);
        // a binary tree has a bracket fewer than words
        let words = tree.replace(['(', ')'], "").split(' ').count();
        assert_eq!(tree.matches('(').count(), words - 1, "{tree}");
    }
    // the best validation is the largest logged, and the rate was halved where the curve says so
    let logged = metrics(&dir.join("whole/metrics.jsonl"));
    let valid: Vec<f64> = logged.iter().filter_map(|l| l["valid_accuracy"].as_f64()).collect();
    assert_eq!(valid.len(), 90);
    assert_eq!(a["final"]["valid_accuracy"].as_f64(), valid.iter().copied().reduce(f64::max));
    let (mut highest, mut waited, mut lr) = (f64::NEG_INFINITY, 0, 0.004);
    for line in logged.iter().filter(|l| !l["valid_accuracy"].is_null()) {
        assert_eq!(line["lr"].as_f64(), Some(lr));
        let accuracy = line["valid_accuracy"].as_f64().unwrap();
        waited += 1;
        if accuracy > highest * 1.0001 || highest.is_infinite() {
            (highest, waited) = (accuracy, 0);
        }
        if waited > 4 {
            (lr, waited) = (lr / 2.0, 0);
        }
    }
    assert!(lr < 0.004, "the schedule never acted: make the run longer");
}

#[test]
fn settings_are_table_8s_and_the_split_is_named() {
    let place = tempfile::tempdir().unwrap();
    for (estimator, lr, tau) in [
        ("stgs", 5e-4, "0.1"),
        ("gumbel-rao", 5e-4, "0.3"),
        ("gst", 1e-3, "0.1"),
        ("st", 1e-3, "1.4"),
        ("reinmax", 7e-4, "1.1"),
    ] {
        let settings =
            ["--preset", "table1", "--estimator", estimator, "--steps", "1", "--out", estimator, "--trees", "0"];
        let out = listops(place.path(), &settings).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{said}");
        assert!(said.contains("NOT the official training split") && said.contains("GENERATED ONLY"), "{said}");
        let config = &read(&place.path().join(estimator).join("config.json"))["config"];
        assert_eq!((config["lr"].as_f64(), config["tau"].as_str()), (Some(lr), Some(tau)), "{estimator}");
        assert_eq!((&config["optimizer"], &config["units"]), (&"radam".into(), &"chars".into()));
        assert_eq!((&config["train_split"], &config["dataset"]), (&"generated".into(), &"listops-generated".into()));
    }
}

#[test]
fn baselines_are_printed() {
    let place = tempfile::tempdir().unwrap();
    let out = listops(place.path(), &["baselines"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    for word in ["majority class", "bag of symbols", "left-branching trees", "right-branching trees"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = tempfile::tempdir().unwrap();
    for (more, word) in [
        (&["--estimator", "gumbel-softmax"][..], "a merge needs a choice"),
        (&["--estimator", "exact"], "choose a drop-in"),
        (&["--clip", "0"], "--clip"),
        (&["--lr-factor", "2"], "--lr-factor"),
        (&["--dropout", "1"], "--dropout"),
        (&["--steps", "0"], "--steps"),
    ] {
        let out = listops(place.path(), more).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(word), "{more:?}: {said}");
    }
}
