//! Run directories under fire: `examples/tiny_run.rs` as a child process is killed, starved of disk and asked for nonsense.
mod tiny;

use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tiny::{checkpoint_step, json, numbers, wait_for};

fn command(dir: &Path, arguments: &str) -> Command {
    // Bit for bit is a promise for the CPU.
    let device = if arguments.contains("--device") { "" } else { "--device cpu " };
    let line = format!("tiny_run --out {} {device}{arguments}", dir.display());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tiny::child", "--ignored", "--nocapture"]);
    command.env("TINY_RUN", line.split_whitespace().collect::<Vec<_>>().join("\n"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn run(dir: &Path, arguments: &str) -> Output {
    command(dir, arguments).output().unwrap()
}

fn start(dir: &Path, arguments: &str) -> Child {
    command(dir, arguments).spawn().unwrap()
}

#[track_caller]
fn good(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    stderr
}

/// A refusal: exit status, and one line on stderr that says all of `words`.
#[track_caller]
fn refused(output: Output, status: i32, words: &[&str]) {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
    println!("{}", stderr.trim());
}

#[test]
fn killed_and_resumed_gives_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let settings = "--steps 150 --log-every 7 --quiet";
    good(run(&whole, settings));
    let mut random = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() as u64;
    let (mut kills, mut resume) = (0, "");
    loop {
        // A checkpoint a step, so that many kills fall into the writing of one.
        let mut child = start(&broken, &format!("{settings} --checkpoint-every 1 --wait-ms 1 {resume}"));
        let from = checkpoint_step(&broken);
        wait_for("new checkpoint", || checkpoint_step(&broken) > from || child.try_wait().unwrap().is_some());
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Short at first, so that a quick machine too is killed a few times before the end.
        let longest = if kills < 5 { 30_000 } else { 400_000 };
        std::thread::sleep(Duration::from_micros((random >> 33) % longest));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        resume = "--resume";
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(9), "{}", good(child.wait_with_output().unwrap()));
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills >= 3, "the run ended too early to be killed");
    assert_eq!(numbers(&whole), numbers(&broken));
    let (summary, lines) = numbers(&whole);
    assert_eq!((summary["finished"].clone(), summary["steps"].clone()), (true.into(), 150.into()));
    assert_eq!(lines.len(), 150 / 7);
    assert_eq!(lines[0]["undefined"], Value::Null);
    // The process time of all of them counts, up to their checkpoints.
    assert!(json(broken.join("summary.json"))["wall_s"].as_f64() > json(whole.join("summary.json"))["wall_s"].as_f64());
    assert!(json(broken.join("summary.json"))["steps_per_second"].as_f64().unwrap() < 1000.0);
}

#[test]
fn probes_change_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let (with, without) = (dir.path().join("with"), dir.path().join("without"));
    good(run(&with, "--steps 120 --probe --quiet"));
    good(run(&without, "--steps 120 --quiet"));
    let ((with, lines), (without, fewer)) = (numbers(&with), numbers(&without));
    assert_eq!(with, without);
    let (probes, rest): (Vec<_>, Vec<_>) = lines.into_iter().partition(|l| l.get("probe").is_some());
    assert_eq!(rest, fewer);
    assert_eq!(probes.len(), 120);
    assert_ne!(probes[0]["probe"], probes[1]["probe"]);
}

#[test]
fn torn_and_late_lines_are_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    good(run(&whole, "--steps 60 --log-every 5 --quiet"));
    let settings = "--steps 60 --log-every 5 --quiet --checkpoint-every 30";
    let mut child = start(&broken, &format!("{settings} --wait-ms 5"));
    wait_for("lines after the checkpoint", || {
        let lines = std::fs::read_to_string(broken.join("metrics.jsonl")).unwrap_or_default().lines().count();
        checkpoint_step(&broken) == Some(30) && lines > 7
    });
    child.kill().unwrap();
    child.wait().unwrap();
    use std::io::Write;
    let metrics = std::fs::OpenOptions::new().append(true).open(broken.join("metrics.jsonl"));
    metrics.unwrap().write_all(b"{\"step\": 45, \"ep").unwrap();
    good(run(&broken, &format!("{settings} --resume")));
    assert_eq!(numbers(&whole), numbers(&broken));
}

#[test]
fn config_holds_what_repeats_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/b/c");
    let stderr = good(run(&dir, "--steps 5 --lr 0.1 --seed -4"));
    assert!(stderr.contains("5 steps in") && stderr.contains("a/b/c"), "{stderr}");
    let config = json(dir.join("config.json"));
    assert_eq!(config["family"], "tiny");
    assert_eq!(config["config"], serde_json::json!({ "steps": 5, "lr": 0.1 }));
    assert_eq!(config["seed"], -4);
    assert_eq!(config["device"].as_str().map(|d| d == "cpu" || d == "cuda:0"), Some(true));
    assert_eq!(config["threads"], 1);
    for key in ["crate_version", "git_revision", "libtorch_version"] {
        assert!(config[key].as_str().is_some_and(|s| !s.is_empty()), "{key}");
    }
    assert!(config["command"].as_array().unwrap().len() > 1);
    let summary = json(dir.join("summary.json"));
    assert!(summary["peak_rss_bytes"].as_f64().unwrap() > 1e7);
    assert!(summary["steps_per_second"].as_f64().unwrap() > 1.0);
    // Two steps are too few for a median.
    let short = dir.with_file_name("short");
    good(run(&short, "--steps 2 --quiet"));
    assert_eq!(json(short.join("summary.json"))["steps_per_second"], Value::Null);
}

#[test]
fn refusals_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let words = |o: Output, w: &[&str]| refused(o, 1, w);

    words(run(&at("none"), "--resume"), &["none: holds no run to resume", "leave out --resume"]);
    assert!(!at("none").exists(), "a refused resume has made a directory");

    good(run(&at("done"), "--steps 5 --quiet"));
    let before = std::fs::read(at("done/summary.json")).unwrap();
    words(run(&at("done"), "--steps 5"), &["done: holds a finished run", "another --out"]);
    refused(run(&at("done"), "--steps 5 --resume"), 0, &["finished before (5 steps)", "summary.json"]);
    words(run(&at("done"), "--steps 9 --resume"), &["steps (run: 5, now: 9)", "another --out"]);
    words(
        run(&at("done"), "--steps 5 --lr 0.2 --seed 3 --resume"),
        &["seed (run: 0, now: 3)", "lr (run: 0.05, now: 0.2)"],
    );
    assert_eq!(std::fs::read(at("done/summary.json")).unwrap(), before);

    let mut killed = start(&at("killed"), "--steps 9999 --wait-ms 1 --quiet");
    wait_for("checkpoint", || checkpoint_step(&at("killed")).is_some());
    words(
        run(&at("killed"), "--steps 9999 --resume"),
        &["killed: another process is at work", &killed.id().to_string()],
    );
    words(run(&at("killed"), "--steps 9999"), &["killed: another process is at work"]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    words(run(&at("killed"), "--steps 9999"), &["holds a run already", "--resume"]);
    std::fs::remove_dir_all(at("killed/checkpoint")).unwrap();
    words(run(&at("killed"), "--steps 9999 --resume"), &["no checkpoint to resume from", "without --resume"]);
    words(run(&at("killed"), "--steps 9999"), &["holds a run already", "remove the directory"]);
    std::fs::write(at("killed/config.json"), "{\"family\": ").unwrap();
    words(run(&at("killed"), "--steps 9999 --resume"), &["config.json is damaged", "move the directory away"]);

    std::fs::write(at("file"), "").unwrap();
    words(run(&at("file"), ""), &["file: cannot be created", "another --out"]);
    words(run(&at("file/below"), ""), &["below: cannot be created"]);
    words(run(Path::new("/proc/self/nothing"), ""), &["cannot be created"]);

    refused(run(&at("x"), "--device gpu"), 2, &["device gpu", "cpu, cuda or cuda:N"]);
    if !thruway::autograd::libtorch::cuda_available() {
        refused(run(&at("x"), "--device cuda"), 2, &["device cuda: ", "--device cpu"]);
        refused(run(&at("x"), "--device cuda:1"), 2, &["device cuda:1: ", "--device cpu"]);
    }
    assert!(!at("x").exists(), "a refused device has made a directory");
    refused(run(&at("x"), "--lr 1e30"), 1, &["at step", "lower --lr"]);
    for bad in ["--threads 0", "--log-every 0", "--checkpoint-every 0", "--eval-every -1", "--seed x"] {
        assert_eq!(run(&at("y"), bad).status.code(), Some(2), "{bad}");
    }
}

#[test]
fn interrupt_checkpoints_and_exits_130() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    good(run(&whole, "--steps 200 --quiet"));
    for (signal, resume) in [("INT", ""), ("TERM", "--resume")] {
        let child = start(&broken, &format!("--steps 200 --quiet --wait-ms 3 {resume}"));
        let lock = || std::fs::read_to_string(broken.join("lock")).is_ok_and(|l| l.trim() == child.id().to_string());
        wait_for("lock", lock);
        std::thread::sleep(Duration::from_millis(100));
        assert!(Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("interrupted; continue with --resume"), "{stderr}");
        assert!(checkpoint_step(&broken).unwrap() > 0);
    }
    good(run(&broken, "--steps 200 --quiet --resume"));
    assert_eq!(numbers(&whole), numbers(&broken));
}

/// A file that cannot grow beyond some size, as on a full disk: the run must say so, and go on later from the checkpoint
/// before.
#[test]
fn full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    good(run(&small, "--steps 1 --quiet"));
    let bytes = std::fs::metadata(small.join("checkpoint/step-1.safetensors")).unwrap().len();
    // Room for some more lines of metrics, or some more step times in the checkpoint, which is what grows.
    let limit = bytes / 1024 + 2;
    for (name, settings, culprit) in [
        ("metrics", "--steps 300 --log-every 1 --checkpoint-every 10 --quiet", "cannot write metrics.jsonl: "),
        ("tensors", "--steps 700 --log-every 100 --checkpoint-every 10 --quiet", ".safetensors: "),
    ] {
        let (whole, full) = (dir.path().join(format!("{name}-whole")), dir.path().join(format!("{name}-full")));
        good(run(&whole, settings));
        let inner = command(&full, settings);
        let mut limited = Command::new("bash");
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        limited.args(["-c", &script]).arg(inner.get_program()).args(inner.get_args());
        limited.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?)))).stdout(Stdio::null());
        refused(limited.output().unwrap(), 1, &[culprit, "free some space", "--resume"]);
        assert!(checkpoint_step(&full).unwrap() >= 10);
        good(run(&full, &format!("{settings} --resume")));
        assert_eq!(numbers(&whole), numbers(&full), "{name}");
    }
}
