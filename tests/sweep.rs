//! `thruway sweep` over `examples/tiny_run.rs`.
mod tiny;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tiny::{checkpoint_step, json, numbers, wait_for};

/// A program `tiny` in `dir` that is the example.
fn program(dir: &Path) {
    let path = dir.join("tiny");
    let this = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\nTINY_RUN=$(printf '%s\\n' tiny_run --device=cpu \"$@\") exec '{}' --exact tiny::child --ignored --nocapture\n",
        this.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thruway"));
    command.current_dir(dir).arg("sweep").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// (exit status, stdout, stderr)
fn sweep(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(dir, arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn one_failing_run_stops_no_other_and_finished_ones_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    program(dir);
    let file = |steps: i64| {
        let text = format!(
            "binary = './tiny'\nout = 'runs/{{name}}/{{seed}}'\nseeds = [0, 1]\nbase = {{ steps = {steps}, log-every = 10 }}\n\
             cells = [{{ lr = 0.01 }}, {{ lr = 1e30 }}, {{ lr = 0.02, wait-ms = 1 }}]"
        );
        std::fs::write(dir.join("sweep.toml"), text).unwrap();
    };
    file(40);
    let (code, stdout, _) = sweep(dir, &["sweep.toml", "--dry-run"]);
    assert_eq!((code, stdout.lines().count()), (Some(0), 6), "{stdout}");
    assert!(stdout.lines().all(|l| l.contains(" to start ")), "{stdout}");
    assert!(!dir.join("runs").exists());

    // What is left of a run that was killed before its first checkpoint.
    let again = dir.join("runs/lr-0.01/1");
    std::fs::create_dir_all(&again).unwrap();
    std::fs::write(again.join("config.json"), r#"{"family": "tiny", "seed": 1, "config": {"steps": 40}}"#).unwrap();
    std::fs::write(again.join("metrics.jsonl"), "{\"st").unwrap();
    // A run of its own that is in the way.
    let other = dir.join("runs/lr-0.02_wait-ms-1/1");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("config.json"), r#"{"family": "tiny", "seed": 1, "config": {"steps": 41}}"#).unwrap();

    let (code, stdout, stderr) = sweep(dir, &["sweep.toml", "--jobs", "2"]);
    println!("{stdout}{stderr}");
    assert_eq!(code, Some(1), "{stderr}");
    for name in ["lr-0.01/0", "lr-0.01/1", "lr-0.02_wait-ms-1/0"] {
        assert!(stderr.contains(&format!("{name} finished in")), "{stderr}");
        assert_eq!(json(dir.join("runs").join(name).join("summary.json"))["finished"], true);
        assert_eq!(json(dir.join("runs").join(name).join("config.json"))["threads"], 1);
    }
    assert!(
        stderr.ends_with("error: sweep.toml: 3 of 6 runs failed; the same command runs what is missing\n"),
        "{stderr}"
    );
    assert_eq!(stdout.matches("lower --lr").count(), 2, "{stdout}");
    assert!(stdout.contains("lr-1e+30/0") && stdout.contains("runs/lr-1e+30/0/log.txt"), "{stdout}");
    assert!(stdout.contains("steps is 41, not 40"), "{stdout}");

    // The same again starts the failed ones alone.
    let (_, stdout, _) = sweep(dir, &["sweep.toml", "--dry-run"]);
    let states: Vec<&str> = stdout.lines().map(|l| l[5..21].trim()).collect();
    assert_eq!(states, ["finished", "to resume", "finished", "finished", "to resume", "refused"], "{stdout}");
    let (_, _, stderr) = sweep(dir, &["sweep.toml"]);
    assert!(
        !stderr.contains("finished in") && stderr.contains("3 of 6 runs are finished, 3 of them before"),
        "{stderr}"
    );
    // One alone.
    let (code, _, stderr) = sweep(dir, &["sweep.toml", "--only", "0"]);
    assert_eq!((code, stderr.as_str()), (Some(0), "1 of 1 runs are finished, 1 of them before\n"));
    let (code, _, stderr) = sweep(dir, &["sweep.toml", "--only", "6"]);
    assert!(code == Some(2) && stderr.contains("--only must be below 6"), "{stderr}");
    // Finished runs of other settings do not pass for these.
    file(50);
    let (_, stdout, _) = sweep(dir, &["sweep.toml", "--dry-run"]);
    assert_eq!(stdout.matches("steps is 40, not 50").count(), 5, "{stdout}");
}

#[test]
fn interrupted_and_killed_sweeps_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    program(dir);
    let write = |name: &str, wait: i64| {
        let text = format!(
            r#"{{"binary": "./tiny", "seeds": [3, 4, 5], "out": "{name}/{{seed}}", "base": {{"steps": 150, "wait-ms": {wait}, "log-every": 9}}}}"#
        );
        std::fs::write(dir.join(format!("{name}.json")), text).unwrap();
    };
    write("whole", 0);
    write("broken", 5);
    assert_eq!(sweep(dir, &["whole.json"]).0, Some(0));
    let child = command(dir, &["broken.json", "--jobs", "2"]).spawn().unwrap();
    let at = |seed: i64| dir.join(format!("broken/{seed}"));
    wait_for("two runs at work", || checkpoint_step(&at(3)).is_some() && checkpoint_step(&at(4)).is_some());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(!at(5).exists() && !stderr.contains("failed"), "{stderr}");
    for seed in [3, 4] {
        assert!(checkpoint_step(&at(seed)).unwrap() > 0 && !at(seed).join("summary.json").exists());
        assert!(std::fs::read_to_string(at(seed).join("log.txt")).unwrap().contains("interrupted"));
    }
    let (code, _, stderr) = sweep(dir, &["broken.json", "--jobs", "3"]);
    assert_eq!(code, Some(0), "{stderr}");
    for seed in [3, 4, 5] {
        assert_eq!(numbers(&at(seed)), numbers(&dir.join(format!("whole/{seed}"))));
    }
}

#[test]
fn slurm_tasks_are_the_runs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("it's here");
    std::fs::create_dir(&dir).unwrap();
    program(&dir);
    let text = "binary = './tiny'\nseeds = [0, 1]\nbase = { steps = 20, threads = 2 }\nout = 'r/{seed}'";
    std::fs::write(dir.join("s.toml"), text).unwrap();
    let (code, stdout, stderr) = sweep(&dir, &["s.toml", "--slurm", "array.sh"]);
    assert!(code == Some(0) && stdout.contains("sbatch array.sh"), "{stdout}{stderr}");
    assert!(!dir.join("r").exists());
    let script = std::fs::read_to_string(dir.join("array.sh")).unwrap();
    assert!(script.contains("--array=0-1\n") && script.contains("--cpus-per-task=2\n"), "{script}");
    for task in ["1", "0"] {
        let script = Command::new("bash").arg(dir.join("array.sh")).env("SLURM_ARRAY_TASK_ID", task).output().unwrap();
        assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
        assert_eq!(json(dir.join("r").join(task).join("summary.json"))["finished"], true);
        assert_eq!(dir.join("r/0").exists(), task == "0");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let refused = |arguments: &[&str], status: i32, words: &str| {
        let (code, _, stderr) = sweep(dir, arguments);
        assert!(code == Some(status) && stderr.lines().count() == 1 && stderr.contains(words), "{stderr}");
    };
    refused(&["none.toml"], 1, "none.toml: No such file");
    std::fs::write(dir.join("a.toml"), "binary = 'no-such'\nseeds = [0]").unwrap();
    refused(&["a.toml"], 2, "binary no-such: there is no ");
    std::fs::write(dir.join("b.json"), "{\"binary\": ").unwrap();
    refused(&["b.json"], 1, "b.json: not a sweep file: EOF");
}

/// A finished run passes for a cell only where both were given the same flags, and one on the bundled digits says so.
#[test]
fn runs_of_an_edited_sweep_and_of_the_sample_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |base: &str| {
        let vae = env!("CARGO_BIN_EXE_vae");
        let text = format!("binary = '{vae}'\nout = 'runs/{{seed}}'\nseeds = [0]\nbase = {{ steps = 2{base} }}");
        std::fs::write(dir.path().join("s.toml"), text).unwrap();
    };
    let sweep = |arguments: &[&str]| {
        let mut c = command(dir.path(), arguments);
        c.env_remove("THRUWAY_DATA").env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.path().join("cache"));
        let Output { status, stdout, stderr } = c.output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
    };
    write(", lr = 0.1");
    let (code, text) = sweep(&["s.toml"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = sweep(&["s.toml"]);
    assert!(code == Some(0) && text.contains("1 of the finished runs were made on the bundled sample"), "{text}");
    write("");
    let (code, text) = sweep(&["s.toml"]);
    assert!(code == Some(1) && text.contains("it was given --lr, which the sweep file does not have"), "{text}");
    write(", lr = 0.1, estimator = 'st'");
    let (code, text) = sweep(&["s.toml"]);
    assert!(code == Some(1) && text.contains("estimator is \"reinmax\", not \"st\""), "{text}");
}
