//! `bnn`: learning, resuming, the table, refusals; small networks on generated images.
mod common;
use common::{finals, good, killed_and_resumed, metrics, tensors};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The binary in a directory of its own, on generated images and nothing of the machine's.
fn bnn(dir: &Path, out: &str, args: &str) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_bnn"));
    c.args(["--preset", "smoke", "--quiet", "--device", "cpu", "--out", out]).args(args.split_whitespace());
    c.current_dir(dir).env_remove("THRUWAY_DATA").env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.join("cache"));
    c.stderr(Stdio::piped());
    c
}

/// Sixteen generated images are learnt by heart, as far as 8 channels go, under each noise of the units, from certain weights
/// within reach of the rate (on ±1); at a rate of nothing they are not.
#[test]
fn every_noise_learns() {
    let place = tempfile::tempdir().unwrap();
    let common = "--train-size 16 --batch-size 16 --test-size 8 --eval-every 0 --log-every 10 --augment none --width 8 \
                  --weight-noise uniform --clip --weight-spread 10";
    for (noise, steps) in [("logistic", 150), ("uniform", 150), ("triangular", 150), ("idle", 60)] {
        let case = if noise == "idle" { "--lr 1e-9".to_string() } else { format!("--noise {noise}") };
        good(bnn(place.path(), noise, &format!("{common} {case} --steps {steps}")).output().unwrap());
        let lines = metrics(&place.path().join(noise));
        let losses: Vec<f64> =
            lines.iter().filter(|l| l["accuracy"].is_number()).map(|l| l["loss"].as_f64().unwrap()).collect();
        let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
        let fall = mean(&losses[..3]) - mean(&losses[losses.len() - 3..]);
        println!("{noise}: the loss falls by {fall:.3} from {:.3}", mean(&losses[..3]));
        assert!(if noise == "idle" { fall.abs() < 0.3 } else { fall > 0.5 }, "{noise}: {fall}");
        let seen = finals(&place.path().join(noise));
        for name in ["det", "det_refit", "1", "10"] {
            assert!((0.0..=1.0).contains(&seen[format!("test_accuracy_{name}")].as_f64().unwrap()), "{name}");
        }
    }
}

/// Clipped latent weights stay in the support of their noise; unclipped ones leave it.
#[test]
fn clipping_keeps_latent_weights_in_their_support() {
    let place = tempfile::tempdir().unwrap();
    let args = "--weight-noise uniform --steps 30 --lr 0.1 --eval-every 0 --test-size 8";
    for (out, clip) in [("clipped", "--clip"), ("free", "")] {
        good(bnn(place.path(), out, &format!("{args} {clip}")).output().unwrap());
        let all = tensors(&place.path().join(out));
        let latent = all.iter().filter(|(n, _)| n.starts_with("model.") && n.ends_with(".eta"));
        let most = latent.map(|(_, t)| common::largest(t)).fold(0.0, f64::max);
        assert_eq!(most <= 1.0, out == "clipped", "{out}: {most}");
    }
}

/// Killed at several moments and resumed, a run ends with the numbers of the uninterrupted one, bit for bit: parameters, running
/// statistics, moments, order, generators.
#[test]
fn killed_and_resumed_is_the_same_run() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let args = "--steps 60 --train-size 60 --batch-size 8 --test-size 8 --eval-samples 2 --checkpoint-every 3 --log-every 4 \
                --refit-batches 2 --noise triangular";
    good(bnn(dir, "whole", args).output().unwrap());
    let killed = dir.join("killed");
    killed_and_resumed(&killed, Duration::from_millis(10), |resume| bnn(dir, "killed", &format!("{args}{resume}")));
    let whole = dir.join("whole");
    assert_eq!(finals(&whole), finals(&killed));
    assert_eq!(metrics(&whole), metrics(&killed));
    let (a, b) = (tensors(&whole), tensors(&killed));
    assert!(a.iter().any(|(n, _)| n == "model.norms.7.running_var") && a.len() == b.len());
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert!(a.equal(b), "{name} differs");
    }
}

/// Evaluations draw from a stream of their own: none, some or many of them change no training number.
#[test]
fn evaluations_leave_the_training_alone() {
    let place = tempfile::tempdir().unwrap();
    let args = "--steps 12 --train-size 32 --batch-size 8 --test-size 8 --log-every 1";
    let losses = |out: &str, more: &str| {
        good(bnn(place.path(), out, &format!("{args} {more}")).output().unwrap());
        let lines = metrics(&place.path().join(out));
        lines.iter().filter_map(|l| l["loss"].as_f64()).collect::<Vec<_>>()
    };
    assert_eq!(losses("many", "--eval-samples 7 --refit-batches 3"), losses("few", "--eval-every 0 --eval-samples 1"));
}

#[test]
fn the_table_sets_runs_beside_the_published_figures() {
    let place = tempfile::tempdir().unwrap();
    good(bnn(place.path(), "runs/bnn/a/0", "--steps 2 --eval-every 0").output().unwrap());
    let page = place.path().join("page.md");
    std::fs::write(&page, "<!-- table:bnn-table1 -->\n<!-- /table -->\n").unwrap();
    let mut c = Command::new(env!("CARGO_BIN_EXE_bnn"));
    good(c.args(["tables", "runs", "--markdown", "page.md"]).current_dir(place.path()).output().unwrap());
    let text = std::fs::read_to_string(&page).unwrap();
    for words in
        ["| published, width 128 | logistic |  | cifar10 | 500 | 4 | 89.6 ± 0.1 | 90.6 ± 0.2 |", "91.2 (16-sample)"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.contains("| ours, width 4 | logistic | logistic x 1.0 | synthetic (96 of training) |"), "{text}");
}

#[test]
fn options_that_make_no_sense_are_named() {
    let place = tempfile::tempdir().unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("--noise cauchy", &["cauchy", "triangular"]),
        ("--clip", &["--clip is for --weight-noise uniform or triangular"]),
        ("--lr 0", &["--lr must be positive and finite, got 0"]),
        ("--width 0", &["--width must be at least 1"]),
        ("--steps 0", &["--steps must be at least 1"]),
        ("--dataset synthetic --train-size 100000", &["--train-size must be at most the 2000 images"]),
        ("--dataset cifar10", &["--dataset cifar10", "cannot be had", "THRUWAY_DATA"]),
    ];
    for (args, words) in cases {
        let output = bnn(place.path(), "run", args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(words.iter().all(|w| text.contains(w)) && !text.contains("panicked"), "{args}: {text}");
    }
    assert!(!place.path().join("run").exists(), "no directory for a refused run");
}
