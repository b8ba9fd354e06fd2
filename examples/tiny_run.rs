//! A whole experiment in one page: a least-squares fit on noisy gradients, with everything that `thruway::run` gives.
//!
//! ```text
//! cargo run --release --example tiny_run -- --out runs/tiny --steps 2000
//! ```
//! Press Ctrl-C, or kill it; the same command with `--resume` ends with the same numbers, bit for bit.
use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tch::{Device, Kind, Tensor};
use thruway::run::seeding::{self, SideStream};
use thruway::run::{Checkpoint, Run, RunArgs};
use thruway::{Error, Result};

/// Fits a line to 50 points by stochastic gradient descent.
#[derive(Parser)]
pub struct Args {
    /// Training steps
    #[arg(long, default_value_t = 500)]
    steps: i64,
    /// Learning rate
    #[arg(long, default_value_t = 0.05)]
    lr: f64,
    /// Log a draw from a stream of its own at every step; no training number depends on it
    #[arg(long)]
    probe: bool,
    /// Milliseconds to wait after each step, to have time to watch
    #[arg(long, default_value_t = 0)]
    wait_ms: u64,
    #[command(flatten)]
    run: RunArgs,
}

/// What is neither a tensor nor in a generator.
#[derive(Default, Serialize, Deserialize)]
struct Position {
    step: i64,
    epoch: i64,
    /// Next item of `order`.
    next: i64,
    /// Of the last step: a run killed between its last checkpoint and its summary has no step left to learn it from.
    loss: f64,
}

const ITEMS: i64 = 50;

/// The process: exit status 0, 1, 2 or 130.
pub fn main() -> ExitCode {
    thruway::run::main(|| train(Args::parse()))
}

/// The run.
pub fn train(args: Args) -> Result<()> {
    let device = args.run.prepare()?;
    let default_out: PathBuf = ["runs", "tiny", &args.run.seed.to_string()].iter().collect();
    let config = json!({ "steps": args.steps, "lr": args.lr });
    let (mut run, checkpoint) = Run::open("tiny", &args.run, default_out, config)?;
    run.expect_steps(args.steps);

    let x = Tensor::f_randn([ITEMS, 3], (Kind::Float, device))?;
    let mut w = Tensor::f_zeros([3], (Kind::Float, device))?;
    let mut order = Tensor::f_zeros([0], (Kind::Int64, Device::Cpu))?;
    let mut at = Position::default();
    let side = SideStream::new(device, args.run.seed, "probe");
    match checkpoint {
        Some(checkpoint) => {
            w = checkpoint.tensor("w")?.f_to_device(device)?;
            order = checkpoint.tensor("order")?.shallow_clone();
            at = serde_json::from_value(checkpoint.state.clone())?;
            seeding::restore(device, &checkpoint)?;
        }
        // A kill before the first due checkpoint then costs nothing either.
        None => save(&mut run, device, &w, &order, &at)?,
    }

    while at.step < args.steps {
        if at.next == 0 {
            order = seeding::shuffle(ITEMS)?;
        }
        let row = x.f_select(0, order.f_int64_value(&[at.next])?)?;
        let target = row.f_sum(Kind::Float)? + Tensor::f_randn([], (Kind::Float, device))? * 0.1;
        let error = (&row * &w).f_sum(Kind::Float)? - target;
        w = &w - &row * (&error * args.lr);
        let loss = error.f_double_value(&[])?.powi(2);
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step + 1, value: loss });
        }
        at.loss = loss;
        at.step += 1;
        at.next = (at.next + 1) % ITEMS;
        at.epoch += i64::from(at.next == 0);
        run.step_done(at.step, loss);
        if args.probe {
            let draw = side.at(at.step, || Ok(Tensor::f_randn([7], (Kind::Float, device))?.f_double_value(&[0])?))?;
            run.log(at.step, at.epoch, &[("probe", draw)])?;
        }
        if at.step % args.run.log_every == 0 {
            run.log(at.step, at.epoch, &[("loss", loss), ("undefined", f64::NAN)])?;
        }
        if run.checkpoint_due(at.step) {
            save(&mut run, device, &w, &order, &at)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
        std::thread::sleep(Duration::from_millis(args.wait_ms));
    }
    save(&mut run, device, &w, &order, &at)?;
    let mut metrics = Map::new();
    metrics.insert("loss".into(), at.loss.into());
    metrics.insert("weights".into(), Vec::<f32>::try_from(w)?.into());
    run.finish(at.step, at.epoch, metrics)?;
    Ok(())
}

fn save(run: &mut Run, device: Device, w: &Tensor, order: &Tensor, at: &Position) -> Result<()> {
    let tensors = vec![("w".into(), w.shallow_clone()), ("order".into(), order.shallow_clone())];
    let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(at)? };
    seeding::capture(device, &mut checkpoint)?;
    run.save(at.step, at.epoch, &checkpoint)
}
