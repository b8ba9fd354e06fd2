//! `sbn-train bench`: a training step's time and memory by method, on one machine in one go.
//!
//! Blocks of steps alternate between the methods, so that a change of the machine's speed meets all of them; a figure is the
//! median over blocks of a block's time a step, a ratio the median over rounds of the two blocks' ratio. Memory is the
//! peak of a process that does nothing else.
use crate::args::Args;
use crate::images::Batch;
use crate::train::Learner;
use crate::{args, network};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::Command;
use tch::{Device, Kind, Tensor};
use thruway::data::{Cifar10, unit_interval};
use thruway::error::{Error, Result};
use thruway::kernels::delta::{Backend, DeltaOptions};
use thruway::noise::TorchNoise;
use thruway::report::table::Table;
use thruway::run::RunArgs;
use thruway::sbn::{Carrier, Knobs, Method, Network, Rule};

/// A method as the bench names it: `psa`, or with another back end `psa-exact`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Contender {
    method: Method,
    backend: Option<Backend>,
}

impl std::str::FromStr for Contender {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        use clap::ValueEnum;
        let (method, backend) = match name {
            "psa-exact" => ("psa", Some(Backend::Exact)),
            "psa-expansion" => ("psa", Some(Backend::Expansion)),
            other => (other, None),
        };
        let method = Method::from_str(method, false).ok().filter(|m| *m != Method::Exact);
        let method = method.ok_or("a method of sbn-train, psa-exact or psa-expansion")?;
        Ok(Contender { method, backend })
    }
}

impl Contender {
    fn name(self) -> String {
        match self.backend {
            Some(Backend::Exact) => "psa-exact".into(),
            Some(Backend::Expansion) => "psa-expansion".into(),
            _ => self.method.name(),
        }
    }

    fn build(self, tol: f64) -> Result<Box<dyn Rule>> {
        let psa = self.method == Method::Psa;
        let knobs = Knobs { psa_backend: self.backend, psa_tol: psa.then_some(tol), ..Knobs::default() };
        self.method.build(&knobs)
    }
}

/// Times a training step (forward, backward, update) of several methods side by side, with the ratio to st, the peak memory
/// of each, and the relative error of psa's gradient against the exact product with Delta.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// Methods, among them psa-exact and psa-expansion for one back end of psa
    #[arg(long, value_delimiter = ',', default_value = "st,psa")]
    estimators: Vec<Contender>,
    /// Images a step
    #[arg(long, value_delimiter = ',', default_value = "8,16,32,64", value_parser = clap::value_parser!(i64).range(1..))]
    batch_size: Vec<i64>,
    /// Rounds: a block of every method each
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(i64).range(1..))]
    rounds: i64,
    /// Steps of a block
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i64).range(1..))]
    block: i64,
    /// What a bracket of psa's expansion may err
    #[arg(long, default_value_t = DeltaOptions::default().tol)]
    psa_tol: f64,
    /// Output channels of the first three layers
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(i64).range(1..))]
    channels: i64,
    /// Training steps with st before measuring, so that the weights are no longer the initial ones
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    trained: i64,
    /// Threads within one operation
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    threads: i32,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Write the figures as JSON too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the peak memory of a few steps of the first method and batch size, as JSON, and nothing else
    #[arg(long, hide = true)]
    memory_only: bool,
}

/// Peak memory of a process, bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Memory {
    /// Of the whole process.
    peak: u64,
    /// Beyond what it held with the network and a batch before its first step.
    above_idle: u64,
}

/// A line of the result.
#[derive(Debug, Serialize)]
struct Row {
    batch: i64,
    estimator: String,
    /// Medians, seconds a step.
    forward_s: f64,
    backward_s: f64,
    update_s: f64,
    step_s: f64,
    /// Of whole steps, to st's: median, and the least and the most over the rounds.
    to_st: Option<[f64; 3]>,
    memory: Option<Memory>,
    /// Relative L2 distance of the gradient from the one with the exact product, all parameters; worst parameter.
    gradient_error: Option<[f64; 2]>,
}

/// The bench.
pub fn run(bench: BenchArgs) -> Result<()> {
    let defaults = Args::parse_from(["sbn-train"]).run;
    let device = RunArgs { threads: bench.threads, device: bench.device.clone(), ..defaults }.prepare()?;
    if bench.memory_only {
        let memory = memory_of_steps(&bench, device)?;
        println!("{}", serde_json::to_string(&memory)?);
        return Ok(());
    }
    let mut rows = vec![];
    for &batch in &bench.batch_size {
        rows.extend(measure(&bench, batch, device)?);
    }
    print!("{}", table(&rows, &bench).text());
    if let Some(path) = &bench.out {
        let text = serde_json::to_string_pretty(&serde_json::json!({
            "threads": bench.threads, "device": bench.device, "channels": bench.channels, "psa_tol": bench.psa_tol,
            "rounds": bench.rounds, "block": bench.block, "trained": bench.trained,
            "git_revision": env!("THRUWAY_GIT_REVISION"), "rows": rows,
        }))?;
        std::fs::write(path, text + "\n").map_err(Error::io(path))?;
    }
    Ok(())
}

/// The whitened network, after `trained` steps, and a batch of generated images.
fn setup(bench: &BenchArgs, batch: i64, device: Device) -> Result<(Network, Batch)> {
    let set = Cifar10::synthetic(64.max(batch as usize), 0)?;
    let images = unit_interval(&set.train).f_to_device(device)?;
    let labels = set.train_labels.f_to_device(device)?;
    let network = network::whitened(bench.channels, &images.f_narrow(0, 0, 64)?, Carrier::Published, device)?;
    let take = |t: &Tensor, n: i64| t.f_narrow(0, 0, n);
    let cut = |n: i64| -> Result<Batch> {
        let rows = Tensor::f_arange(n, (Kind::Int64, device))?;
        Ok(Batch { rows, images: take(&images, n)?, labels: take(&labels, n)? })
    };
    let st = Method::St.build(&Knobs::default())?;
    let mut learner = learner(&network, &*st, batch, device)?;
    let warm = cut(64)?;
    for _ in 0..bench.trained {
        let _ = learner.step(&warm)?;
    }
    drop(learner);
    Ok((network, cut(batch)?))
}

fn learner<'a>(network: &'a Network, method: &'a dyn Rule, n: i64, device: Device) -> Result<Learner<'a>> {
    let (config, _) = args::Config::new(&Args::parse_from(["sbn-train"]))?;
    Learner::new(&config, network, method, 1e-3, n, device)
}

fn measure(bench: &BenchArgs, batch: i64, device: Device) -> Result<Vec<Row>> {
    let (network, images) = setup(bench, batch, device)?;
    let methods: Vec<Box<dyn Rule>> = bench.estimators.iter().map(|c| c.build(bench.psa_tol)).collect::<Result<_>>()?;
    let mut learners: Vec<Learner> =
        methods.iter().map(|m| learner(&network, &**m, batch, device)).collect::<Result<_>>()?;
    let start: Vec<Tensor> = network.params().iter().map(|(_, p)| p.detach().copy()).collect();
    let put_back = || -> Result<()> {
        let _guard = tch::no_grad_guard();
        network.params().iter().zip(&start).try_for_each(|((_, p), s)| Ok(p.shallow_clone().f_copy_(s)?))
    };
    // by method, by round: seconds of forward, backward, update, a step
    let mut times = vec![vec![]; learners.len()];
    for round in 0..=bench.rounds {
        for (learner, times) in learners.iter_mut().zip(&mut times) {
            put_back()?;
            let mut sums = [0.0; 3];
            for _ in 0..bench.block {
                let _ = learner.timed_step(&images, &mut sums, &|| synchronize(device))?;
            }
            // the first round warms up
            if round > 0 {
                times.push(sums.map(|s| s / bench.block as f64));
            }
        }
    }
    put_back()?;
    let st = bench.estimators.iter().position(|c| c.method == Method::St);
    let whole = |i: usize| times[i].iter().map(|t: &[f64; 3]| t.iter().sum::<f64>()).collect::<Vec<_>>();
    let mut rows = vec![];
    for (i, contender) in bench.estimators.iter().enumerate() {
        let part = |k: usize| median(&times[i].iter().map(|t| t[k]).collect::<Vec<_>>());
        let to_st = st.map(|st| {
            let ratios: Vec<f64> = whole(i).iter().zip(whole(st)).map(|(own, st)| own / st).collect();
            let ends = ratios.iter().fold((f64::INFINITY, 0.0f64), |(low, high), r| (low.min(*r), high.max(*r)));
            [median(&ratios), ends.0, ends.1]
        });
        rows.push(Row {
            batch,
            estimator: contender.name(),
            forward_s: part(0),
            backward_s: part(1),
            update_s: part(2),
            step_s: median(&whole(i)),
            to_st,
            memory: if device == Device::Cpu { Some(memory_apart(bench, *contender, batch)?) } else { None },
            gradient_error: (contender.method == Method::Psa)
                .then(|| gradient_error(&network, &*methods[i], &images))
                .transpose()?,
        });
        eprintln!("batch {batch}: {} measured", contender.name());
    }
    Ok(rows)
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
}

/// Relative distance of a method's gradient from that of psa with the exact product at the same states: of all parameters
/// together, and of the worst one alone.
fn gradient_error(network: &Network, method: &dyn Rule, batch: &Batch) -> Result<[f64; 2]> {
    let exact = Contender { method: Method::Psa, backend: Some(Backend::Exact) }.build(DeltaOptions::default().tol)?;
    let gradient = |method: &dyn Rule| -> Result<Vec<Tensor>> {
        tch::manual_seed(1);
        let loss = network.loss(&batch.images, &batch.labels, method, &mut TorchNoise)?;
        network.params().iter().for_each(|(_, p)| p.shallow_clone().zero_grad());
        loss.surrogate.f_mean(Kind::Float)?.f_backward()?;
        Ok(network
            .params()
            .iter()
            .map(|(_, p)| p.grad().f_to_kind(Kind::Double))
            .collect::<std::result::Result<_, _>>()?)
    };
    let (want, have) = (gradient(&*exact)?, gradient(method)?);
    let square = |t: Tensor| t.square().sum(Kind::Double).double_value(&[]);
    let (mut off, mut size, mut worst) = (0.0, 0.0, 0.0f64);
    for (want, have) in want.iter().zip(&have) {
        let (d, s) = (square(have - want), square(want.shallow_clone()));
        (off, size, worst) = (off + d, size + s, worst.max((d / s).sqrt()));
    }
    Ok([(off / size).sqrt(), worst])
}

/// [`Memory`] of a process of its own that does a few steps.
fn memory_apart(bench: &BenchArgs, contender: Contender, batch: i64) -> Result<Memory> {
    let program = std::env::current_exe().map_err(Error::io("sbn-train"))?;
    let mut child = Command::new(&program);
    child.args(["bench", "--memory-only", "--estimators", &contender.name(), "--batch-size", &batch.to_string()]);
    child.args(["--psa-tol", &bench.psa_tol.to_string(), "--channels", &bench.channels.to_string()]);
    child.args(["--threads", &bench.threads.to_string(), "--device", "cpu"]);
    let output = child.output().map_err(Error::io(&program))?;
    if !output.status.success() {
        return Err(Error::Usage(format!(
            "the memory of {}: {}",
            contender.name(),
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn memory_of_steps(bench: &BenchArgs, device: Device) -> Result<Memory> {
    let (network, images) = setup(bench, bench.batch_size[0], device)?;
    let method = bench.estimators[0].build(bench.psa_tol)?;
    let mut learner = learner(&network, &*method, bench.batch_size[0], device)?;
    let idle = status("VmRSS:")?;
    (0..3).try_for_each(|_| learner.step(&images).map(drop))?;
    let peak = status("VmHWM:")?;
    Ok(Memory { peak, above_idle: peak.saturating_sub(idle) })
}

/// A size from /proc/self/status, bytes.
fn status(key: &str) -> Result<u64> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let kib = text.lines().find_map(|l| l.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|k| k * 1024).ok_or_else(|| Error::Usage(format!("{path} has no {key}")))
}

fn table(rows: &[Row], bench: &BenchArgs) -> Table {
    let columns = [
        "batch",
        "estimator",
        "forward [ms]",
        "backward [ms]",
        "update [ms]",
        "step [ms]",
        "step / st",
        "peak [MiB]",
        "above idle [MiB]",
        "gradient error",
    ];
    let ms = |s: f64| format!("{:.2}", 1e3 * s);
    let mib = |b: u64| format!("{:.0}", b as f64 / 1048576.0);
    let row = |r: &Row| {
        vec![
            r.batch.to_string(),
            r.estimator.clone(),
            ms(r.forward_s),
            ms(r.backward_s),
            ms(r.update_s),
            ms(r.step_s),
            r.to_st.map(|[m, low, high]| format!("{m:.2} ({low:.2} to {high:.2})")).unwrap_or_default(),
            r.memory.map(|m| mib(m.peak)).unwrap_or_default(),
            r.memory.map(|m| mib(m.above_idle)).unwrap_or_default(),
            r.gradient_error.map(|[all, worst]| format!("{all:.1e} (worst parameter {worst:.1e})")).unwrap_or_default(),
        ]
    };
    Table {
        name: "sbn-train-bench".into(),
        title: format!(
            "training step of the CIFAR net, {} channels, {} threads, {}",
            bench.channels, bench.threads, bench.device
        ),
        columns: columns.map(String::from).into(),
        rows: rows.iter().map(row).collect(),
        notes: vec![
            format!("medians over {} rounds of blocks of {} steps, methods alternating", bench.rounds, bench.block),
            "gradient error: relative L2 distance from psa with the exact product at the same states".into(),
        ],
    }
}
