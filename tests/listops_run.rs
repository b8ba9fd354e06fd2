//! The `listops` binary: a killed run resumed is the uninterrupted one bit for bit (CPU); trees; settings of Table 8; refusals.
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The binary, offline and without data.
fn bare(dir: &Path, arguments: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_listops"));
    c.args(arguments);
    c.current_dir(dir).env_remove("THRUWAY_DATA").env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.join("cache"));
    c
}

/// A small model on generated expressions.
fn listops(dir: &Path, more: &[&str]) -> Command {
    let small = ["--train-size", "500", "--max-length", "20", "--embedding-dim", "8", "--hidden-dim", "12"];
    bare(dir, &[&small[..], more].concat())
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
        assert_eq!(config["batches"], "random");
        assert_eq!((&config["train_split"], &config["dataset"]), (&"generated".into(), &"listops-generated".into()));
    }
}

/// Units and split stand beside every accuracy; that the split is not the official one is said with --quiet too.
#[test]
fn the_terminal_names_units_and_split_and_shows_trees() {
    let place = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let out =
            listops(place.path(), &[&["--steps", "3", "--units", "chars", "--trees", "2"], more].concat()).output();
        String::from_utf8(out.unwrap().stderr).unwrap()
    };
    let said = run(&["--out", "said"]);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("accuracy")).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines.iter().all(|line| line.ends_with("(chars, generated split)")), "{said}");
    let trees = std::fs::read_to_string(place.path().join("said/trees.txt")).unwrap();
    assert!(trees.lines().count() == 2 && said.contains(trees.trim_end()), "{said}");
    let quiet = run(&["--out", "quiet", "--quiet"]);
    assert_eq!(quiet.matches("NOT the official training split").count(), 1, "{quiet}");
    assert!(!quiet.contains("accuracy") && !quiet.contains('\t'), "{quiet}");
    let batches = |out: &str| read(&place.path().join(out).join("config.json"))["config"]["batches"].clone();
    assert_eq!(batches("said"), "bucketed");
    run(&["--out", "random", "--batches", "random"]);
    assert_eq!(batches("random"), "random");
}

/// Expressions this short have no inner operation, so that there is nothing to agree with.
#[test]
fn scores_that_do_not_exist_are_resumed_too() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("run");
    let run = |more: &[&str]| {
        let short = ["--max-length", "8", "--train-size", "60", "--embedding-dim", "4", "--hidden-dim", "4"];
        let settings = ["--steps", "4", "--validations", "1", "--out", "run"];
        bare(place.path(), &[&short[..], &settings[..], more].concat()).output().unwrap()
    };
    assert!(run(&[]).status.success());
    let finals = |dir: &Path| read(&dir.join("summary.json"))["final"].clone();
    let before = finals(&dir);
    assert!(before["valid_operations"].is_null() && before["valid_f1"].is_number(), "{before}");
    std::fs::remove_file(dir.join("summary.json")).unwrap();
    let out = run(&["--resume"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(finals(&dir), before);
    // a state that is not ours is named with its file
    std::fs::remove_file(dir.join("summary.json")).unwrap();
    let state = dir.join("checkpoint/state.json");
    let mut damaged = read(&state);
    damaged["state"]["best"]["accuracy"] = Value::Null;
    std::fs::write(&state, damaged.to_string()).unwrap();
    let said = String::from_utf8(run(&["--resume"]).stderr).unwrap();
    assert!(said.contains("run: checkpoint/state.json is not what this binary writes"), "{said}");
}

/// --eval-every counts epochs, as in every binary, and is recorded, since the learning rate follows the validations.
#[test]
fn every_second_epoch_is_validated() {
    let place = tempfile::tempdir().unwrap();
    let more = ["--epochs", "5", "--eval-every", "2", "--train-size", "100", "--out", "run", "--trees", "0"];
    let small = ["--max-length", "20", "--embedding-dim", "4", "--hidden-dim", "4", "--quiet"];
    assert!(bare(place.path(), &[&small[..], &more[..]].concat()).status().unwrap().success());
    let logged = metrics(&place.path().join("run/metrics.jsonl"));
    let epochs = |key: &str| -> Vec<i64> {
        logged.iter().filter(|l| !l[key].is_null()).map(|l| l["epoch"].as_i64().unwrap()).collect()
    };
    assert_eq!(epochs("train_loss"), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    assert_eq!(epochs("valid_accuracy"), [2, 2, 4, 4, 5], "and at the end");
    assert_eq!(read(&place.path().join("run/config.json"))["config"]["validate_every"], 2);
}

#[test]
fn baselines_are_printed_and_written() {
    let place = tempfile::tempdir().unwrap();
    let small = ["baselines", "--generated", "--train-size", "500", "--max-length", "20"];
    let run = |more: &[&str]| bare(place.path(), &[&small[..], more].concat()).stdout(Stdio::piped()).spawn().unwrap();
    let out = run(&["--out", "baselines"]).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    for word in ["generated split", "majority class", "bag of symbols", "left-branching trees", "right-branching trees"]
    {
        assert!(text.contains(word), "{text}");
    }
    let finals = read(&place.path().join("baselines/summary.json"))["final"].clone();
    let trees = |units: &str| -> Vec<Value> {
        let lines = finals["baselines"].as_array().unwrap();
        lines.iter().filter(|l| l["units"] == units).cloned().collect()
    };
    let f1 = |units: &str, i: usize| trees(units)[i]["valid_f1"].as_f64().unwrap();
    assert_eq!((trees("tokens").len(), trees("chars").len()), (3, 3));
    // the last trees have all that can be had: everything in symbols, what symbols alone decide in characters
    assert_eq!((f1("tokens", 2), &trees("chars")[2]["valid_operations"]), (100.0, &100.0.into()));
    assert!(f1("chars", 2) < 80.0 && f1("chars", 2) > f1("chars", 0) && f1("chars", 1) == 0.0, "{finals}");
    // a reader that has gone is no error: the run is written, and the process ends as SIGPIPE would end it
    let mut head = run(&["--units", "chars", "--out", "unread"]);
    drop(head.stdout.take());
    assert_eq!(head.wait().unwrap().code(), Some(141));
    assert!(place.path().join("unread/summary.json").exists());
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
        (&["baselines"], "cannot be used with"),
        (&["--estimator", "nope"], "known: st, stgs, gumbel-rao, gst, gst-p, reinmax, reinmax-baseline\n"),
    ] {
        let out = listops(place.path(), more).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(word), "{more:?}: {said}");
    }
}
