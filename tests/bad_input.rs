//! Bad input to the binaries: one clear message, exit status 1 or 2, nothing lost.
mod common;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `vae` in this place, offline, on the bundled digits.
    fn vae(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_vae"));
        c.args(args).current_dir(self.dir.path()).env_remove("THRUWAY_DATA");
        c.env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", self.path("cache"));
        c
    }
}

fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

/// Fails with this status; the message holds every word; no panic, no backtrace.
fn refused(o: Output, status: i32, words: &[&str]) {
    let text = stderr(&o);
    assert_eq!(o.status.code(), Some(status), "{text}");
    for w in words {
        assert!(text.contains(w), "{w:?} is not in: {text}");
    }
    assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
    assert!(text.lines().filter(|l| !l.trim().is_empty()).count() <= 8, "more than one message: {text}");
}

#[test]
fn options_that_make_no_sense_are_named_with_rule_and_value() {
    let p = Place::new();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--estimator", "reinmaxx"], &["unknown estimator", "reinmaxx", "gumbel-rao"]),
        (&["--estimator", "st", "--samples", "10"], &["st takes no --samples", "--tau"]),
        (&["--estimator", "reinmax", "--gap", "1"], &["reinmax takes no --gap"]),
        (&["--estimator", "exact", "--tau", "1"], &["exact takes no --tau", "none"]),
        (&["--tau", "0"], &["tau must be", "got 0"]),
        (&["--estimator", "st", "--tau", "NaN"], &["tau must be positive and finite", "NaN"]),
        (&["--estimator", "st", "--tau", "inf"], &["tau must be positive and finite", "inf"]),
        (&["--estimator", "st", "--tau=-1"], &["tau must be positive and finite", "-1"]),
        (&["--estimator", "reinmax", "--tau", "0.5"], &["tau must be at least 1", "0.5"]),
        (&["--tau", "warm"], &["tau must be a number", "warm"]),
        (&["--estimator", "gumbel-rao", "--samples", "0"], &["samples must be at least 1", "0"]),
        (&["--estimator", "gst", "--gap", "-1"], &["gap must be", "-1"]),
        (&["--categorical-dim", "0"], &["--categorical-dim must be at least 1", "0"]),
        (&["--latent-dim", "-4"], &["--latent-dim must be at least 1", "-4"]),
        (&["--batch-size", "0"], &["--batch-size must be at least 1"]),
        (&["--epochs", "0"], &["--epochs must be at least 1"]),
        (&["--steps", "-1"], &["--steps must be at least 1"]),
        (&["--lr", "0"], &["--lr must be positive and finite"]),
        (&["--lr", "inf"], &["--lr must be positive and finite"]),
        (&["--preset", "9x9"], &["9x9", "8x4"]),
        (&["--dataset", "minst"], &["minst", "mnist"]),
        (&["--estimator", "exact", "--preset", "10x30", "--steps", "1"], &["K^L", "at most"]),
        (&["--probe", "--latent-dim", "30"], &["K^L", "at most"]),
        (
            &["--categorical-dim", "9223372036854775807"],
            &["--categorical-dim times --latent-dim must be at most 1000000"],
        ),
        (&["--estimator", "stgs", "--tau", "1e-40"], &["tau must be between 1e-30 and 1e30"]),
        (&["--nonsense"], &["--nonsense"]),
    ];
    for (args, words) in cases {
        refused(p.vae(args).output().unwrap(), 2, words);
    }
    assert!(!p.path("runs").exists(), "no directory for a refused run");
}

#[test]
fn cuda_where_there_is_none_is_refused() {
    if thruway::autograd::libtorch::cuda_available() {
        common::skip("cuda_where_there_is_none_is_refused", "this machine has a GPU");
        return;
    }
    let p = Place::new();
    refused(p.vae(&["--device", "cuda", "--steps", "1"]).output().unwrap(), 2, &["device cuda"]);
    refused(p.vae(&["--device", "gpu", "--steps", "1"]).output().unwrap(), 2, &["gpu"]);
}

#[test]
fn an_unwritable_or_occupied_place_is_refused() {
    let p = Place::new();
    fs::write(p.path("file"), "mine").unwrap();
    refused(p.vae(&["--steps", "1", "--out", "file/run"]).output().unwrap(), 1, &["file"]);
    refused(p.vae(&["--steps", "1", "--out", "/proc/thruway"]).output().unwrap(), 1, &["/proc/thruway"]);
    refused(p.vae(&["--steps", "1", "--out", "new", "--resume"]).output().unwrap(), 1, &["new"]);
    assert!(p.vae(&["--steps", "2", "--out", "run", "--quiet"]).output().unwrap().status.success());
    let before = fs::read(p.path("run/summary.json")).unwrap();
    refused(p.vae(&["--steps", "2", "--out", "run"]).output().unwrap(), 1, &["run", "finished", "--out"]);
    assert_eq!(fs::read(p.path("run/summary.json")).unwrap(), before, "the finished run is as it was");
    assert_eq!(fs::read_to_string(p.path("file")).unwrap(), "mine");
}

#[test]
fn resume_with_another_configuration_names_the_difference() {
    let p = Place::new();
    let mut first =
        p.vae(&["--steps", "100000", "--out", "run", "--checkpoint-every", "1", "--quiet"]).spawn().unwrap();
    wait_for(&p.path("run/checkpoint/state.json"));
    // a second process on the same directory
    let second = p.vae(&["--steps", "100000", "--out", "run", "--resume"]).output().unwrap();
    refused(second, 1, &["run"]);
    first.kill().unwrap();
    first.wait().unwrap();
    let other = p.vae(&["--steps", "100000", "--out", "run", "--resume", "--lr", "0.5"]).output().unwrap();
    refused(other, 1, &["lr", "0.5", "0.001"]);
}

fn wait_for(path: &Path) {
    let start = std::time::Instant::now();
    while !path.exists() {
        assert!(start.elapsed().as_secs() < 60, "{} never appeared", path.display());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn damaged_data_is_named_and_never_skipped() {
    let p = Place::new();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample/mnist");
    let set = p.path("data/mnist");
    fs::create_dir_all(&set).unwrap();
    let names: Vec<String> =
        fs::read_dir(&sample).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    let run = || p.vae(&["--steps", "1", "--out", "run"]).env("THRUWAY_DATA", p.path("data")).output().unwrap();
    // the sample is no MNIST: right form, wrong sizes
    for n in &names {
        fs::copy(sample.join(n), set.join(n)).unwrap();
    }
    refused(run(), 1, &["ubyte", "expected"]);
    let images = names.iter().find(|n| n.starts_with("train-images")).unwrap();
    let bytes = fs::read(sample.join(images)).unwrap();
    fs::write(set.join(images), &bytes[..bytes.len() / 2]).unwrap();
    refused(run(), 1, &["train-images"]);
    fs::write(set.join(images), b"not an image file").unwrap();
    refused(run(), 1, &["train-images"]);
    fs::remove_file(set.join(images)).unwrap();
    refused(run(), 1, &["train-images"]);
    assert!(!p.path("run").exists(), "nothing was started");
}
