//! The processes of a sweep: some at a time, watched until all have ended.
use super::Todo;
use super::spec::Cell;
use crate::run::{directory, interrupt, progress};
use crate::{Error, Result};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A run that did not end well.
pub(super) struct Failure {
    pub name: String,
    pub reason: String,
    pub log: PathBuf,
}

struct Job {
    cell: Cell,
    child: Child,
    log: PathBuf,
    /// Length of the log before this process.
    from: u64,
    start: Instant,
}

/// Runs what is to be run, `jobs` at a time, and tells what failed.
///
/// # Errors
/// [`Error::Interrupted`] after Ctrl-C, when every process has ended.
pub(super) fn run(binary: &Path, todo: impl Iterator<Item = (Cell, Todo)>, jobs: usize) -> Result<Vec<Failure>> {
    interrupt::watch()?;
    let (done, todo): (Vec<_>, Vec<_>) = todo.partition(|(_, todo)| *todo == Todo::Nothing);
    let total = done.len() + todo.len();
    let mut view = View::new(total, done.len());
    let mut queue = todo.into_iter();
    let mut running: Vec<Job> = Vec::new();
    let mut failures = Vec::new();
    let mut told = false;
    loop {
        while running.len() < jobs && !interrupt::interrupted() {
            let Some((cell, todo)) = queue.next() else { break };
            let log = cell.dir.join("log.txt");
            let name = cell.name.clone();
            match start(binary, cell, &todo) {
                Ok(job) => running.push(job),
                Err(error) => {
                    view.ended(&format!("{name} failed: {error}"));
                    failures.push(Failure { name, reason: error.to_string(), log });
                }
            }
        }
        view.show(running.len(), failures.len());
        if running.is_empty() {
            break;
        }
        if interrupt::interrupted() && !told {
            told = true;
            for job in &running {
                // One that has ended just now is no longer there to be told.
                let _ = kill(Pid::from_raw(job.child.id() as i32), Signal::SIGINT);
            }
        }
        let mut still = Vec::new();
        for mut job in running {
            let Some(status) = job.child.try_wait().map_err(Error::io(binary))? else {
                still.push(job);
                continue;
            };
            let took = HumanDuration(job.start.elapsed());
            match failure(&job, status) {
                None => view.ended(&format!("{} finished in {took}", job.cell.name)),
                Some(_) if told && (status.code() == Some(130) || ended_at_once(status.signal())) => {}
                Some(reason) => {
                    view.ended(&format!("{} failed after {took}: {reason}", job.cell.name));
                    failures.push(Failure { name: job.cell.name, reason, log: job.log });
                }
            }
        }
        running = still;
        std::thread::sleep(Duration::from_millis(30));
    }
    view.bar.finish_and_clear();
    if interrupt::interrupted() {
        return Err(Error::Interrupted);
    }
    let fine = total - failures.len();
    eprintln!("{fine} of {total} runs are finished, {} of them before", done.len());
    Ok(failures)
}

fn start(binary: &Path, cell: Cell, todo: &Todo) -> Result<Job> {
    match todo {
        Todo::Refuse(reason) => return Err(Error::Usage(reason.clone())),
        Todo::StartAgain => directory::clear(&cell.dir)?,
        Todo::Nothing | Todo::Start | Todo::Resume => {}
    }
    fs::create_dir_all(&cell.dir).map_err(Error::io(&cell.dir))?;
    let path = cell.dir.join("log.txt");
    let log = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
    let from = log.metadata().map_err(Error::io(&path))?.len();
    let child = Command::new(binary)
        .args(cell.arguments(*todo == Todo::Resume))
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(Error::io(&path))?)
        .stderr(log)
        // A Ctrl-C in the terminal then reaches it through this program alone, and once: twice means "at once".
        .process_group(0)
        .spawn()
        .map_err(Error::io(binary))?;
    Ok(Job { cell, child, log: path, from, start: Instant::now() })
}

/// Why a process failed: the last thing it said, or the signal that ended it; `None` if all is well.
fn failure(job: &Job, status: ExitStatus) -> Option<String> {
    if status.success() && directory::finished(&job.cell.dir).is_ok_and(|s| s.is_some()) {
        return None;
    }
    let last = last_line(&job.log, job.from).unwrap_or_default();
    Some(match (status.signal(), last) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (_, last) if !last.is_empty() => last,
        _ if status.success() => "it ended without a summary.json".into(),
        _ => format!("{status}, with no word"),
    })
}

fn last_line(log: &Path, from: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    // The end is enough, and a log may be long.
    let from = from.max(file.metadata().ok()?.len().saturating_sub(4096));
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().map(str::trim).find(|l| !l.is_empty()).map(String::from)
}

/// What the person at the terminal sees.
struct View {
    bar: ProgressBar,
    terminal: bool,
}

impl View {
    fn new(total: usize, done: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target).with_position(done as u64);
        bar.set_style(progress::style("{wide_bar} {pos}/{len} runs | {msg} | {elapsed}, {eta} left"));
        if terminal {
            bar.enable_steady_tick(Duration::from_secs(1));
        }
        View { bar, terminal }
    }

    fn show(&mut self, running: usize, failed: usize) {
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        self.bar.set_message(format!("{running} running{failed}"));
    }

    fn ended(&mut self, what: &str) {
        self.bar.inc(1);
        let line = format!("{}/{} {what}", self.bar.position(), self.bar.length().unwrap_or_default());
        if self.terminal { self.bar.println(line) } else { eprintln!("{line}") }
    }
}

/// By a second interrupt, or by a first one before the run watched for any.
fn ended_at_once(signal: Option<i32>) -> bool {
    signal.is_some_and(|s| [Signal::SIGINT, Signal::SIGKILL].map(|s| s as i32).contains(&s))
}
