//! One error type for the crate: each variant names the culprit, the rule, the value and, where there is one, the remedy.
use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong, by family.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor of the wrong shape.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The operation that refused it.
        op: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// A value outside its range.
    #[error("{what} must be {condition}, got {got}")]
    Range {
        /// The quantity.
        what: String,
        /// The rule, as in "positive and finite".
        condition: String,
        /// The value given.
        got: String,
    },
    /// A knob the estimator does not take, or one it needs.
    #[error("{estimator} takes no --{knob}; it takes: {takes}")]
    Knob {
        /// Name of the estimator.
        estimator: &'static str,
        /// The flag.
        knob: &'static str,
        /// The flags it does take.
        takes: String,
    },
    /// An unknown name.
    #[error("unknown {what} {got:?}; known: {known}")]
    Unknown {
        /// Kind of thing, as in "estimator".
        what: &'static str,
        /// The name given.
        got: String,
        /// The names there are.
        known: String,
    },
    /// Command-line options that contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A data file that is missing, damaged or not what it claims to be.
    #[error("{}: {reason}; {remedy}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong, with expectation and finding.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A run directory that cannot be used as asked.
    #[error("{}: {reason}; {remedy}", dir.display())]
    Run {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The requested device is not there.
    #[error("device {device}: {reason}")]
    Device {
        /// As given on the command line.
        device: String,
        /// Why it cannot be used, with the remedy.
        reason: String,
    },
    /// The loss left the finite numbers.
    #[error(
        "loss is {value} at step {step}; lower --lr (or raise --tau, if the estimator takes one), and look at the last lines of metrics.jsonl"
    )]
    NonFinite {
        /// Training step, from 1.
        step: i64,
        /// The value.
        value: f64,
    },
    /// A noise tape was replayed in another order than it was made.
    #[error("tape: {0}")]
    Tape(String),
    /// A run that was asked to go on has finished before. Nothing failed: the exit status is 0.
    #[error("{}: this run has finished before ({steps} steps); its results are in summary.json", dir.display())]
    Finished {
        /// The directory.
        dir: PathBuf,
        /// Training steps done.
        steps: i64,
    },
    /// The run was interrupted and has written its checkpoint.
    #[error("interrupted; continue with --resume (a sweep: by the same command)")]
    Interrupted,
    /// A file operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A custom autograd function failed in its forward pass, or was put together wrongly.
    #[error("{name}: {reason}")]
    Function {
        /// Name of the function.
        name: String,
        /// What its closure reported, or the rule that was broken.
        reason: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// A JSON file could not be read or written.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// A [`Error::Range`].
    pub fn range(what: impl Into<String>, condition: impl Into<String>, got: impl std::fmt::Display) -> Self {
        Error::Range { what: what.into(), condition: condition.into(), got: got.to_string() }
    }

    /// A [`Error::Shape`].
    pub fn shape(op: &'static str, expected: impl Into<String>, got: impl std::fmt::Debug) -> Self {
        Error::Shape { op, expected: expected.into(), got: format!("{got:?}") }
    }

    /// An [`Error::Io`], for `map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// Exit status of a binary that ends with this error: 2 for bad usage, 130 after an interrupt, 0 where
    /// nothing was left to do, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Range { .. }
            | Error::Knob { .. }
            | Error::Unknown { .. }
            | Error::Usage(_)
            | Error::Device { .. } => 2,
            Error::Finished { .. } => 0,
            Error::Interrupted => 130,
            _ => 1,
        }
    }
}

/// libtorch's messages carry a C++ backtrace of some forty lines; the first line says what is wrong.
fn first_line(e: &tch::TchError) -> String {
    let text = e.to_string();
    let text = text.split("\nException raised from").next().unwrap_or_default();
    text.lines().next().unwrap_or_default().to_string()
}
