//! Ctrl-C, SIGTERM and SIGHUP: the first asks for a checkpoint and an orderly end, the second ends the process at once.
use crate::{Error, Result};
use nix::sys::signal::{Signal, raise};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static SEEN: AtomicBool = AtomicBool::new(false);

/// Whether an interrupt was seen. It is watched for from [`Run::open`](super::Run::open) and [`sweep`](super::sweep::sweep) on.
pub fn interrupted() -> bool {
    SEEN.load(Ordering::Relaxed)
}

/// Starts to watch for interrupts, once per process.
pub(super) fn watch() -> Result<()> {
    static WATCHING: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let handler = || {
        if SEEN.swap(true, Ordering::Relaxed) {
            // not `exit`: it runs libtorch's destructors under the feet of the main thread, which then dies of signal 11
            let _ = raise(Signal::SIGKILL);
        }
        eprintln!("interrupt: stopping after a checkpoint; once more to stop at once");
    };
    let watching = WATCHING.get_or_init(|| ctrlc::set_handler(handler).map_err(|e| e.to_string()));
    watching.clone().map_err(|e| Error::Usage(format!("Ctrl-C cannot be watched: {e}")))
}
