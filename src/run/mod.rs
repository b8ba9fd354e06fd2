//! What every experiment needs around its training loop: flags, device and seed, a run directory, checkpoints that survive
//! any end of the process, metrics, progress, and sweeps over many runs. It knows no estimator and no model.
//!
//! | file of a run directory | holds |
//! |---|---|
//! | `config.json` | everything needed to repeat the run; written before the first step |
//! | `metrics.jsonl` | one object a log point: `step`, `epoch`, `wall_s`, then metrics; a value that is not finite is `null`, as JSON has no NaN |
//! | `checkpoint/` | `state.json`, and the `.safetensors` file that it names |
//! | `summary.json` | final metrics, times, memory; there when the run has finished |
//! | `tensorboard/` | event files, with `--tensorboard` |
//! | `lock` | locked by the process at work on the directory |
//!
//! Every file is written aside, flushed to disk and renamed, so a reader never meets half of one. `metrics.jsonl` grows in
//! place; what a killed process left after its last checkpoint is cut off on `--resume`.
//!
//! A training loop looks like this (`examples/tiny_run.rs` runs):
//!
//! ```ignore
//! let device = args.run.prepare()?;
//! let (mut run, checkpoint) = Run::open("vae", &args.run, default_out, serde_json::to_value(&args)?)?;
//! // build the model; if there is a checkpoint, restore model, optimizer, position and, last, the generators
//! run.expect_steps(total);
//! for step in first..=total {
//!     // one training step
//!     run.step_done(step, loss);
//!     if step % args.run.log_every == 0 {
//!         run.log(step, epoch, &[("loss", loss)])?;
//!     }
//!     if run.checkpoint_due(step) {
//!         run.save(step, epoch, &checkpoint_of(..)?)?;
//!         if run.interrupted() {
//!             return Err(Error::Interrupted);
//!         }
//!     }
//! }
//! run.save(total, epoch, &checkpoint_of(..)?)?; // the trained model
//! run.finish(total, epoch, final_metrics)?;
//! ```
mod args;
mod checkpoint;
mod clock;
mod config;
mod directory;
mod files;
mod interrupt;
mod progress;
pub mod seeding;
pub mod sweep;
mod tensorboard;

pub use args::RunArgs;
pub use checkpoint::Checkpoint;
pub use directory::{Run, Summary};
pub use interrupt::interrupted;

use crate::{Error, Result};
use std::process::ExitCode;

/// The `main` of a binary: runs it, prints what went wrong to stderr and gives the exit status ([`Error::exit_code`]). A run
/// that was finished before, or interrupted, is told without the word "error".
pub fn main(body: impl FnOnce() -> Result<()>) -> ExitCode {
    quiet_on_a_closed_pipe();
    match body() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let prefix = if matches!(error, Error::Finished { .. } | Error::Interrupted) { "" } else { "error: " };
            eprintln!("{prefix}{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Ends the process as SIGPIPE would, without the message of a panic, where whoever reads the standard output has gone
/// (`semhash tables .. | head`).
fn quiet_on_a_closed_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(141);
        }
        usual(panic);
    }));
}
