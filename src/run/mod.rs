//! (stop-gap, replaced by the run branch)
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
pub mod seeding {
    //! Order of the data.
    use super::*;
    /// DataLoader order.
    pub fn shuffle(n: i64) -> Result<Tensor> {
        let _base = Tensor::f_empty([1], (Kind::Int64, Device::Cpu))?.f_random_()?;
        let seed = Tensor::f_empty([1], (Kind::Int64, Device::Cpu))?.f_random_()?.int64_value(&[0]);
        let state = crate::autograd::libtorch::generator_state(Device::Cpu)?;
        tch::manual_seed(seed);
        let order = Tensor::f_randperm(n, (Kind::Int64, Device::Cpu))?;
        crate::autograd::libtorch::set_generator_state(Device::Cpu, &state)?;
        Ok(order)
    }
}
/// args
#[derive(Debug, Clone, clap::Args)]
#[allow(missing_docs)]
pub struct RunArgs {
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[arg(long)]
    pub resume: bool,
    #[arg(long, default_value_t = 0)]
    pub seed: i64,
    #[arg(long, default_value = "auto")]
    pub device: String,
    #[arg(long, default_value_t = 1)]
    pub threads: i32,
    #[arg(long, default_value_t = 100)]
    pub log_every: i64,
    #[arg(long, default_value_t = 1)]
    pub eval_every: i64,
    #[arg(long)]
    pub checkpoint_every: Option<i64>,
    #[arg(long)]
    pub quiet: bool,
}
impl RunArgs {
    /// prepare
    pub fn prepare(&self) -> Result<Device> {
        tch::set_num_threads(self.threads);
        tch::manual_seed(self.seed);
        Ok(Device::Cpu)
    }
}
/// ck
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Checkpoint {
    pub tensors: Vec<(String, Tensor)>,
    pub state: Value,
}
/// run
#[allow(missing_docs)]
pub struct Run {
    pub dir: PathBuf,
    log: std::fs::File,
    start: Instant,
    last: Instant,
    times: Vec<f32>,
    quiet: bool,
}
#[allow(missing_docs)]
impl Run {
    pub fn open(
        family: &'static str,
        args: &RunArgs,
        out: PathBuf,
        config: Value,
    ) -> Result<(Run, Option<Checkpoint>)> {
        let dir = args.out.clone().unwrap_or(out);
        std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        let c = json!({"family": family, "config": config, "seed": args.seed, "device": "cpu", "threads": args.threads,
            "crate_version": env!("CARGO_PKG_VERSION"), "git_revision": env!("THRUWAY_GIT_REVISION"),
            "libtorch_version": crate::autograd::libtorch::version(),
            "command": std::iter::once("vae".to_string()).chain(std::env::args().skip(1)).collect::<Vec<_>>()});
        std::fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&c)?).map_err(Error::io(&dir))?;
        let log = std::fs::File::create(dir.join("metrics.jsonl")).map_err(Error::io(&dir))?;
        Ok((Run { dir, log, start: Instant::now(), last: Instant::now(), times: vec![], quiet: args.quiet }, None))
    }
    pub fn log(&mut self, step: i64, epoch: i64, metrics: &[(&str, f64)]) -> Result<()> {
        let mut o = Map::new();
        o.insert("step".into(), step.into());
        o.insert("epoch".into(), epoch.into());
        o.insert("wall_s".into(), self.start.elapsed().as_secs_f64().into());
        for (k, v) in metrics {
            o.insert(k.to_string(), (*v).into());
        }
        writeln!(self.log, "{}", Value::Object(o.clone())).map_err(Error::io(&self.dir))?;
        if !self.quiet {
            println!("{}", Value::Object(o));
        }
        Ok(())
    }
    pub fn step_done(&mut self, _step: i64, _loss: f64) {
        self.times.push(self.last.elapsed().as_secs_f32());
        self.last = Instant::now();
    }
    pub fn pause(&mut self) {}
    pub fn resume_clock(&mut self) {
        self.last = Instant::now();
    }
    pub fn checkpoint_due(&mut self, _step: i64) -> bool {
        false
    }
    pub fn save(&mut self, _step: i64, _epoch: i64, _c: &Checkpoint) -> Result<()> {
        Ok(())
    }
    pub fn interrupted(&self) -> bool {
        false
    }
    pub fn finish(mut self, steps: i64, epochs: i64, metrics: Map<String, Value>) -> Result<()> {
        self.times.sort_by(f32::total_cmp);
        let s = json!({"family": "vae", "steps": steps, "epochs": epochs, "wall_s": self.start.elapsed().as_secs_f64(), "steps_per_second": 1.0 / self.times[self.times.len() / 2], "peak_rss_bytes": peak(), "finished": true, "final": metrics});
        std::fs::write(self.dir.join("summary.json"), serde_json::to_vec_pretty(&s)?).map_err(Error::io(&self.dir))?;
        Ok(())
    }
}
/// main
pub fn main(f: impl FnOnce() -> Result<()>) -> std::process::ExitCode {
    match f() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            e.exit_code().into()
        }
    }
}

fn peak() -> u64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    s.lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}
