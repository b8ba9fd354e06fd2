//! `sbn-train bench`: a training step's time and memory by method, on one machine in one go.
//!
//! Blocks of steps alternate between the methods, so that a change of the machine's speed meets all of them; a figure is the
//! median over blocks of a block's time a step, a ratio the median over rounds of the two blocks' ratio. Memory is measured in
//! a process of its own. The figures go to a JSON file, and tables in a page are filled from it.
use crate::args::Args;
use crate::images::Batch;
use crate::train::Learner;
use crate::{args, measure, network};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use thruway::data::{Cifar10, unit_interval};
use thruway::error::{Error, Result};
use thruway::kernels::delta::{Backend, DeltaOptions};
use thruway::noise::TorchNoise;
use thruway::report::{markdown, table::Table};
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
        let knobs = Knobs {
            psa_backend: self.backend,
            psa_tol: (psa && self.backend != Some(Backend::Exact)).then_some(tol),
            ..Knobs::default()
        };
        self.method.build(&knobs)
    }
}

/// Times a training step (forward, backward, update) of several methods side by side, with the ratio to st, the peak memory
/// of each, and the relative error of psa's gradient against float64 with the exact product with Delta.
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
    /// Also time the ten-sample measurement of a batch, and say what an epoch takes (the table of C.2)
    #[arg(long)]
    epoch: bool,
    /// Write the figures as JSON too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Measure nothing: read the figures from a file that --out wrote
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    from: Option<PathBuf>,
    /// Fill `<!-- table:NAME -->` of this page, NAME being the stem of the file of --out or --from
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Print the peak memory of a few steps of the first method and batch size, as JSON, and nothing else
    #[arg(long, hide = true)]
    memory_only: bool,
}

/// Peak memory of a process in a step, bytes; its first step, which allocates gradients and momentum, is over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Memory {
    /// Of the whole process.
    peak: u64,
    /// Beyond what it holds between two steps.
    above_idle: u64,
    /// Of the backward pass, beyond what the forward pass left.
    backward: u64,
}

/// A line of the result.
#[derive(Debug, Serialize, Deserialize)]
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
    /// Of `above_idle`, and of `backward`, to st's.
    memory_to_st: Option<[f64; 2]>,
    /// Median, seconds a measurement of a batch with ten samples.
    measurement_s: Option<f64>,
    /// Relative L2 distance of the gradient from that in float64 with the exact product, all parameters; worst parameter.
    gradient_error: Option<[f64; 2]>,
}

/// A finished bench, as its file has it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Of the images: time depends on their number and size alone.
    dataset: String,
    cpu: String,
    load_at_start: f64,
    threads: i32,
    device: String,
    channels: i64,
    psa_tol: f64,
    rounds: i64,
    block: i64,
    trained: i64,
    git_revision: String,
    rows: Vec<Row>,
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
    let record = match &bench.from {
        Some(path) => serde_json::from_str(&std::fs::read_to_string(path).map_err(Error::io(path))?)?,
        None => record(&bench, device)?,
    };
    let file = bench.out.as_deref().or(bench.from.as_deref());
    let table = table(&record, &name(file));
    print!("{}", table.text());
    if let Some(path) = &bench.out {
        let text = serde_json::to_string_pretty(&record)?;
        std::fs::write(path, text + "\n").map_err(Error::io(path))?;
    }
    if let Some(page) = &bench.markdown {
        markdown::fill_one(page, &table)?;
    }
    Ok(())
}

fn name(file: Option<&Path>) -> String {
    file.and_then(Path::file_stem).map_or("sbn-train-bench".into(), |s| s.to_string_lossy().into_owned())
}

fn record(bench: &BenchArgs, device: Device) -> Result<Record> {
    let proc = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cpu = proc("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("unknown");
    let load = proc("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or_default();
    let mut rows = vec![];
    for &batch in &bench.batch_size {
        rows.extend(measure(bench, batch, device)?);
    }
    Ok(Record {
        dataset: "synthetic".into(),
        cpu: cpu.trim().into(),
        load_at_start: load,
        threads: bench.threads,
        device: format!("{device:?}").to_lowercase(),
        channels: bench.channels,
        psa_tol: bench.psa_tol,
        rounds: bench.rounds,
        block: bench.block,
        trained: bench.trained,
        git_revision: env!("THRUWAY_GIT_REVISION").into(),
        rows,
    })
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
    // by method, by round: seconds of forward, backward, update; and of a measurement
    let mut times = vec![vec![]; learners.len()];
    let mut measurements = vec![vec![]; learners.len()];
    for round in 0..=bench.rounds {
        for (i, (learner, times)) in learners.iter_mut().zip(&mut times).enumerate() {
            put_back()?;
            let mut sums = [0.0; 3];
            for _ in 0..bench.block {
                let _ = learner.timed_step(&images, &mut sums, &|| synchronize(device))?;
            }
            // the first round warms up
            if round > 0 {
                times.push(sums.map(|s| s / bench.block as f64));
            }
            if bench.epoch && round > 0 {
                let start = Instant::now();
                measure::batch(&network, &*methods[i], &images.images, &images.labels, 10)?;
                synchronize(device);
                measurements[i].push(start.elapsed().as_secs_f64());
            }
        }
    }
    put_back()?;
    let st = bench.estimators.iter().position(|c| c.method == Method::St);
    let whole = |i: usize| times[i].iter().map(|t: &[f64; 3]| t.iter().sum::<f64>()).collect::<Vec<_>>();
    let mut rows: Vec<Row> = vec![];
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
            memory_to_st: None,
            measurement_s: bench.epoch.then(|| median(&measurements[i])),
            gradient_error: (contender.method == Method::Psa)
                .then(|| gradient_error(&network, &*methods[i], &images))
                .transpose()?,
        });
        eprintln!("batch {batch}: {} measured", contender.name());
    }
    if let Some(st) = st.and_then(|st| rows[st].memory) {
        let of = |own: u64, st: u64| own as f64 / st as f64;
        let ratios = |m: Memory| [of(m.above_idle, st.above_idle), of(m.backward, st.backward)];
        rows.iter_mut().for_each(|r| r.memory_to_st = r.memory.map(ratios));
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

/// Relative distance of a method's gradient from that of psa with the exact product, by the same network in float64 at the
/// same states: of all parameters together, and of the worst one alone.
fn gradient_error(network: &Network, method: &dyn Rule, batch: &Batch) -> Result<[f64; 2]> {
    let exact = Contender { method: Method::Psa, backend: Some(Backend::Exact) }.build(DeltaOptions::default().tol)?;
    let wide = network.with_parameters(&mut |_, t| Ok(t.detach().f_to_kind(Kind::Double)?))?;
    tch::manual_seed(1);
    let states = network.sample(&batch.images, &mut TorchNoise)?.states;
    let gradient = |network: &Network, method: &dyn Rule, kind: Kind| -> Result<Vec<Tensor>> {
        let states = states.iter().map(|s| s.f_to_kind(kind)).collect::<std::result::Result<Vec<_>, _>>()?;
        let loss = network.loss_at(&batch.images.f_to_kind(kind)?, &batch.labels, method, &states)?;
        let parameters: Vec<&Tensor> = network.params().iter().map(|(_, p)| p).collect();
        Ok(Tensor::f_run_backward(&[loss.surrogate.f_mean(kind)?], &parameters, false, false)?)
    };
    let (want, have) = (gradient(&wide, &*exact, Kind::Double)?, gradient(network, method, Kind::Float)?);
    let square = |t: Tensor| t.square().sum(Kind::Double).double_value(&[]);
    let (mut off, mut size, mut worst) = (0.0, 0.0, 0.0f64);
    for (want, have) in want.iter().zip(&have) {
        let (d, s) = (square(have - want), square(want.shallow_clone()));
        (off, size, worst) = (off + d, size + s, worst.max((d / s).sqrt()));
    }
    Ok([(off / size).sqrt(), worst])
}

/// [`Memory`] of a process of its own that does a few steps. Its allocator gives back at once what is freed, so that the
/// process's size is what is in use.
fn memory_apart(bench: &BenchArgs, contender: Contender, batch: i64) -> Result<Memory> {
    let program = std::env::current_exe().map_err(Error::io("sbn-train"))?;
    let mut child = Command::new(&program);
    child.args(["bench", "--memory-only", "--estimators", &contender.name(), "--batch-size", &batch.to_string()]);
    child.args(["--psa-tol", &bench.psa_tol.to_string(), "--channels", &bench.channels.to_string()]);
    child.args(["--threads", &bench.threads.to_string(), "--device", "cpu"]);
    child.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "65536");
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
    let _ = learner.step(&images)?;
    let idle = status("VmRSS:")?;
    let (mut peak, mut backward) = (0, 0);
    for _ in 0..2 {
        forget_peak()?;
        let loss = network.loss(&images.images, &images.labels, &*method, &mut TorchNoise)?;
        peak = peak.max(status("VmHWM:")?);
        forget_peak()?;
        let before = status("VmRSS:")?;
        loss.surrogate.f_mean(loss.surrogate.kind())?.f_backward()?;
        let most = status("VmHWM:")?;
        (peak, backward) = (peak.max(most), backward.max(most.saturating_sub(before)));
    }
    Ok(Memory { peak, above_idle: peak.saturating_sub(idle), backward })
}

/// From here on VmHWM is the peak anew: without this that of setting up, on more images than a batch, would stand.
fn forget_peak() -> Result<()> {
    let path = "/proc/self/clear_refs";
    std::fs::write(path, "5").map_err(Error::io(path))
}

/// A size from /proc/self/status, bytes.
fn status(key: &str) -> Result<u64> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let kib = text.lines().find_map(|l| l.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|k| k * 1024).ok_or_else(|| Error::Usage(format!("{path} has no {key}")))
}

/// Appendix C.2's table, seconds a batch of 64 on a GTX 1080 or a P100: method, forward, backward, and for an epoch of
/// training and of validation, both with measurements.
const PUBLISHED: [(&str, [f64; 4]); 8] = [
    ("psa", [0.013, 0.056, 105.0, 14.0]),
    ("concrete", [0.009, 0.012, 77.0, 13.0]),
    ("tanh", [0.005, 0.011, 77.0, 12.5]),
    ("reinforce", [0.014, 0.009, 77.0, 14.0]),
    ("adf", [0.012, 0.031, 91.5, 14.0]),
    ("local-reparam", [0.015, 0.029, 98.0, 14.0]),
    ("st", [0.009, 0.011, 77.0, 13.0]),
    ("hard-st", [0.009, 0.011, 77.0, 13.0]),
];

fn table(record: &Record, name: &str) -> Table {
    let Record { rows, rounds, block, .. } = record;
    let mut columns =
        vec!["batch", "estimator", "forward [ms]", "backward [ms]", "update [ms]", "step [ms]", "step / st"];
    columns.extend(["peak [MiB]", "above idle [MiB]", "/ st", "backward alone [MiB]", "/ st", "gradient error"]);
    let epoch = rows.iter().any(|r| r.measurement_s.is_some());
    if epoch {
        columns.extend(["training epoch [s]", "validation epoch [s]"]);
    }
    let print = rows.iter().any(|r| r.batch == 64);
    if print {
        columns.push("published: forward, backward [ms], training, validation epoch [s]");
    }
    let ms = |s: f64| format!("{:.2}", 1e3 * s);
    let mib = |b: u64| format!("{:.0}", b as f64 / 1048576.0);
    let row = |r: &Row| {
        let mut cells = vec![
            r.batch.to_string(),
            r.estimator.clone(),
            ms(r.forward_s),
            ms(r.backward_s),
            ms(r.update_s),
            ms(r.step_s),
            r.to_st.map(|[m, low, high]| format!("{m:.2} ({low:.2} to {high:.2})")).unwrap_or_default(),
            r.memory.map(|m| mib(m.peak)).unwrap_or_default(),
            r.memory.map(|m| mib(m.above_idle)).unwrap_or_default(),
            r.memory_to_st.map(|[step, _]| format!("{step:.2}")).unwrap_or_default(),
            r.memory.map(|m| mib(m.backward)).unwrap_or_default(),
            r.memory_to_st.map(|[_, backward]| format!("{backward:.2}")).unwrap_or_default(),
            r.gradient_error.map(|[all, worst]| format!("{all:.1e} (worst parameter {worst:.1e})")).unwrap_or_default(),
        ];
        if epoch {
            let of = |images: f64, step: f64| {
                r.measurement_s.map(|m| format!("{:.1}", images / r.batch as f64 * (m + step))).unwrap_or_default()
            };
            cells.extend([of(45_000.0, r.step_s), of(5_000.0, 0.0)]);
        }
        if print {
            let theirs = PUBLISHED.iter().find(|(name, _)| r.batch == 64 && *name == r.estimator);
            let theirs = theirs.map(|(_, [f, b, t, v])| format!("{:.0}, {:.0}, {t}, {v}", 1e3 * f, 1e3 * b));
            cells.push(theirs.unwrap_or_default());
        }
        cells
    };
    let mut notes = vec![
        format!(
            "medians over {rounds} rounds of blocks of {block} steps, methods alternating; step / st: median and range over \
             rounds; generated images; {}, load {} at the start, revision {}",
            record.cpu, record.load_at_start, record.git_revision
        ),
        "memory: highest resident size of a process of its own in a step (its second and third); above idle: beyond what it \
         holds between steps (libtorch, network, gradients, momentum, batch); backward alone: beyond what the forward pass left"
            .into(),
        "gradient error: relative L2 distance from psa's gradient with the exact product, by the same network in float64 at \
         the same states"
            .into(),
    ];
    if epoch {
        let why =
            "epochs are not run: 45,000 images' steps with a ten-sample measurement each, 5,000 images' measurements";
        notes.push(why.into());
    }
    if print {
        let why = "published: Appendix C.2, PyTorch and a CUDA kernel on a GTX 1080 or P100; the machines differ, so only \
                   ratios within a column mean something";
        notes.push(why.into());
    }
    Table {
        name: name.into(),
        title: format!(
            "training step of the CIFAR net, {} channels, {} threads, {}",
            record.channels, record.threads, record.device
        ),
        columns: columns.into_iter().map(String::from).collect(),
        rows: rows.iter().map(row).collect(),
        notes,
    }
}
