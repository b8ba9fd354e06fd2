//! The product with Delta by each way there is, over the backward of the CIFAR network of the PSA paper (Appendix C.2): the
//! exact CPU path, the expansion, literal whole-tensor operations, and the transposed convolution that straight-through does
//! in its place; beside them the gradients of the parameters, which are the same under all.
//!
//! The ways take turns, layer by layer and round by round; a figure is the median over rounds, a ratio the median over rounds
//! of that round's ratio. `make bench-delta` fills the table of benches/README.md.
use anyhow::Result;
use clap::Parser;
use multiversion::multiversion;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::kernels::delta::{self, Backend, Conv, DeltaOptions, Plan};
use thruway::noise::{HostNoise, Noise};
use thruway::report::{markdown, table::Table};

/// Side of the input, channels, outputs, kernel, stride, and the largest |2w| that the whitening initialisation gives. The
/// first layer's inputs are no states: it needs no product.
const LAYERS: [(i64, i64, i64, i64, i64, f64); 8] = [
    (32, 3, 96, 3, 1, 10.2),
    (30, 96, 96, 3, 1, 0.47),
    (28, 96, 96, 3, 2, 0.34),
    (13, 96, 192, 3, 1, 0.29),
    (11, 192, 192, 3, 1, 0.18),
    (9, 192, 192, 3, 2, 0.17),
    (4, 192, 192, 3, 1, 0.17),
    (2, 192, 192, 1, 1, 0.52),
];
const WAYS: [&str; 4] = ["literal", "exact", "expansion", "straight-through"];
/// Numbers of a temporary tensor in the literal way, at most where one output unit has fewer: 2 MB.
const CHUNK: i64 = 1 << 19;

/// Times the product with Delta over the backward of the CIFAR network.
#[derive(Debug, Parser)]
struct Args {
    /// Images
    #[arg(long, default_value_t = 8)]
    batch_size: i64,
    /// Rounds: every way once for every layer
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Threads within one operation
    #[arg(long, default_value_t = 1)]
    threads: i32,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE", requires = "markdown")]
    out: Option<PathBuf>,
    /// Fill `<!-- table:NAME -->` of this page, NAME being the stem of the file of --out
    #[arg(long, value_name = "FILE", requires = "out")]
    markdown: Option<PathBuf>,
}

struct Layer {
    x: Tensor,
    w: Tensor,
    a: Tensor,
    g: Tensor,
    conv: Conv,
    /// What the gradients of the parameters come from, and the weight and bias as leaves.
    loss: Tensor,
    parameters: [Tensor; 2],
}

impl Layer {
    fn new(batch: i64, index: usize) -> Result<Layer> {
        let (side, channels, outputs, kernel, stride, twice) = LAYERS[index];
        let mut noise = HostNoise::new(index as u64);
        let kind = Kind::Float;
        let x = noise.uniform(&[batch, channels, side, side], kind, Device::Cpu)?.lt(0.5).to_kind(kind) * 2.0 - 1.0;
        let w = noise.uniform(&[outputs, channels, kernel, kernel], kind, Device::Cpu)? - 0.5;
        let w = &w * (twice / 2.0 / w.abs().max().double_value(&[]));
        let leaf = |t: &Tensor| t.copy().set_requires_grad(true);
        let parameters = [leaf(&w), leaf(&w.select(1, 0).select(1, 0).select(1, 0).zeros_like())];
        let a = x.f_conv2d(&parameters[0], Some(&parameters[1]), [stride; 2], [0, 0], [1, 1], 1)?;
        let g = noise.normal(&a.size(), kind, Device::Cpu)?;
        let loss = (&a * &g).f_sum(kind)?;
        Ok(Layer { x, w, a: a.detach(), g, conv: Conv::square(stride, 0), loss, parameters })
    }

    /// Terms of the sums: outputs times inputs that each of them sees.
    fn terms(&self) -> f64 {
        let w = self.w.size();
        self.a.numel() as f64 * (w[1] * w[2] * w[3]) as f64
    }

    fn product(&self, noise: &BinaryNoise, opts: &DeltaOptions) -> Result<Tensor> {
        Ok(delta::conv2d(noise, &self.x, &self.w, &self.a, &self.g, &self.conv, opts)?)
    }

    /// Every flipped pre-activation formed and put through the cdf, by whole-tensor operations in place; several output
    /// units at a time where the tensors of one would be small.
    fn literal(&self) -> Result<Tensor> {
        let (ws, size, stride) = (self.w.size(), self.a.size(), self.conv.stride);
        let f = self.a.f_sigmoid()?;
        let twice = &self.w * 2.0;
        let out = self.x.f_zeros_like()?;
        let seen = |t: &Tensor, axis: i64, k: i64, n: i64, step: i64| t.f_slice(axis, k, k + (n - 1) * step + 1, step);
        let at_once = (CHUNK / (size[0] * ws[1] * size[2] * size[3])).clamp(1, ws[0]);
        for ky in 0..ws[2] {
            for kx in 0..ws[3] {
                let part = |t: &Tensor| seen(&seen(t, 2, ky, size[2], stride[0])?, 3, kx, size[3], stride[1]);
                let (x, mut out) = (part(&self.x)?.f_contiguous()?.f_unsqueeze(1)?, part(&out)?.f_unsqueeze(1)?);
                let mut sum = x.f_zeros_like()?;
                for o in (0..ws[0]).step_by(at_once as usize) {
                    let n = at_once.min(ws[0] - o);
                    let w = twice.f_narrow(0, o, n)?.f_select(-1, kx)?.f_select(-1, ky)?.f_view([1, n, ws[1], 1, 1])?;
                    // [B, n, C, H', W'] from [B, 1, C, H', W'], [1, n, C, 1, 1] and [B, n, 1, H', W']
                    let units = |t: &Tensor| t.f_narrow(1, o, n)?.f_unsqueeze(2);
                    let mut t = x.f_mul(&w)?.f_neg_()?.f_add_(&units(&self.a)?)?;
                    let mut change = t.f_sigmoid_()?.f_neg_()?.f_add_(&units(&f)?)?;
                    let _ = match n {
                        1 => sum.f_addcmul_(&change, &units(&self.g)?)?,
                        _ => sum.f_add_(&change.f_mul_(&units(&self.g)?)?.f_sum_dim_intlist(1, true, x.kind())?)?,
                    };
                }
                let _ = out.f_add_(&sum)?;
            }
        }
        Ok(out)
    }

    /// What straight-through does instead.
    fn straight_through(&self) -> Result<Tensor> {
        let p = self.a.f_sigmoid()?;
        let v = (&p - &p * &p) * 2.0 * &self.g;
        let (from, to, k, stride) = (self.x.size()[2], self.a.size()[2], self.w.size()[2], self.conv.stride[0]);
        let rest = from - k - (to - 1) * stride;
        Ok(v.f_conv_transpose2d(&self.w, None::<&Tensor>, [stride; 2], [0, 0], [rest; 2], 1, [1, 1])?)
    }

    /// Gradients of weight and bias.
    fn parameters(&self) -> Result<Vec<Tensor>> {
        let [w, b] = &self.parameters;
        Ok(Tensor::f_run_backward(&[&self.loss], &[w, b], true, false)?)
    }

    /// In float64 by the exact product.
    fn truth(&self, noise: &BinaryNoise, exact: &DeltaOptions) -> Result<Tensor> {
        let [x, w, a, g] = [&self.x, &self.w, &self.a, &self.g].map(|t| t.to_kind(Kind::Double));
        Ok(delta::conv2d(noise, &x, &w, &a, &g, &self.conv, exact)?)
    }
}

/// Quotients a second of one core, f32, the widest vectors there are.
fn divisions() -> f64 {
    #[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
    fn many(x: &mut [[f32; 16]; 12], rounds: usize, by: f32) {
        let mut y = *x;
        for _ in 0..rounds {
            for v in y.as_flattened_mut() {
                *v /= by;
            }
        }
        *x = y;
    }
    let (mut best, rounds) = (f64::MAX, 200_000);
    let mut x = [[1f32; 16]; 12];
    for _ in 0..7 {
        let start = Instant::now();
        many(std::hint::black_box(&mut x), rounds, std::hint::black_box(1.000_000_1));
        best = best.min(start.elapsed().as_secs_f64());
    }
    (rounds * 12 * 16) as f64 / best
}

/// Seconds: of the processor on this thread where one thread computes (others may share the core), else of the wall.
fn seconds(threads: i32) -> Result<f64> {
    use nix::time::{ClockId, clock_gettime};
    let clock = if threads == 1 { ClockId::CLOCK_THREAD_CPUTIME_ID } else { ClockId::CLOCK_MONOTONIC };
    let now = clock_gettime(clock)?;
    Ok(now.tv_sec() as f64 + now.tv_nsec() as f64 * 1e-9)
}

/// Median, least and most.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut v: Vec<f64> = values.collect();
    v.sort_by(f64::total_cmp);
    [(v[(v.len() - 1) / 2] + v[v.len() / 2]) / 2.0, v[0], v[v.len() - 1]]
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((&a - &b).norm() / b.norm()).double_value(&[])
}

/// A layer's figures: milliseconds and errors in the order of [`WAYS`].
#[derive(Debug, Serialize)]
struct Line {
    layer: usize,
    largest_2w: f64,
    terms: f64,
    /// Length of the expansion.
    order: usize,
    product_ms: [f64; 4],
    parameters_ms: f64,
    /// Relative L2 distance from the exact product in float64; the last way computes something else.
    error: [f64; 3],
}

/// All of it; a ratio is median, least and most over rounds.
#[derive(Debug, Serialize)]
struct Record {
    batch: i64,
    rounds: usize,
    threads: i32,
    clock: &'static str,
    cpu: String,
    load_at_start: f64,
    torch_threads: i32,
    divisions_per_s_and_core: f64,
    exact_terms_per_s: f64,
    /// Terms a second of the exact way over quotients a second of as many cores.
    exact_terms_to_divisions: f64,
    /// Products of all layers.
    product_ms: [f64; 4],
    /// Products and gradients of the parameters.
    backward_ms: [f64; 4],
    literal_to_exact_product: [f64; 3],
    literal_to_exact_backward: [f64; 3],
    exact_to_straight_through_backward: [f64; 3],
    layers: Vec<Line>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    tch::set_num_threads(args.threads);
    let noise = BinaryNoise::new(Shape::Logistic);
    let exact = DeltaOptions { backend: Backend::Exact, ..DeltaOptions::default() };
    let series = DeltaOptions { backend: Backend::Expansion, ..DeltaOptions::default() };
    let proc = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let load = proc("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or_default();
    let cpu = proc("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split(':').nth(1)).unwrap_or("unknown");
    let quotients = divisions();
    let layers: Vec<Layer> = (0..LAYERS.len()).map(|k| Layer::new(args.batch_size, k)).collect::<Result<_>>()?;
    let by = |layer: &Layer, way: usize| match WAYS[way] {
        "literal" => tch::no_grad(|| layer.literal()),
        "exact" => layer.product(&noise, &exact),
        "expansion" => layer.product(&noise, &series),
        _ => tch::no_grad(|| layer.straight_through()),
    };
    // milliseconds by round, layer and way; the parameters' after the ways
    let mut ms = vec![vec![[0.0; 5]; layers.len()]; args.rounds];
    for round in 0..=args.rounds {
        for (k, layer) in layers.iter().enumerate() {
            let mut took = [0.0; 5];
            for (way, took) in took.iter_mut().enumerate() {
                let start = seconds(args.threads)?;
                if way == WAYS.len() {
                    std::hint::black_box(layer.parameters()?);
                } else if k > 0 {
                    let _ = std::hint::black_box(by(layer, way)?);
                }
                *took = (seconds(args.threads)? - start) * 1e3;
            }
            // the first round warms up
            if round > 0 {
                ms[round - 1][k] = took;
            }
        }
    }
    let total = |round: &[[f64; 5]], way: usize| round.iter().map(|l| l[way]).sum::<f64>();
    let whole = |round: &[[f64; 5]], way: usize| total(round, way) + total(round, WAYS.len());
    let products = [0, 1, 2, 3].map(|way| spread(ms.iter().map(|r| total(r, way)))[0]);
    let ratio = |of: &dyn Fn(&[[f64; 5]], usize) -> f64, a, b| spread(ms.iter().map(|r| of(r, a) / of(r, b)));
    let mut lines = vec![];
    for (k, layer) in layers.iter().enumerate().skip(1) {
        let median = |way: usize| spread(ms.iter().map(|r| r[k][way]))[0];
        let truth = layer.truth(&noise, &exact)?;
        let order = match delta::plan(&noise, LAYERS[k].5 / 2.0, Device::Cpu, &series)? {
            Plan::Expansion { order, .. } => order,
            Plan::Exact => 0,
        };
        lines.push(Line {
            layer: k + 1,
            largest_2w: LAYERS[k].5,
            terms: layer.terms(),
            order,
            product_ms: [0, 1, 2, 3].map(median),
            parameters_ms: median(WAYS.len()),
            error: [
                relative(&by(layer, 0)?, &truth),
                relative(&by(layer, 1)?, &truth),
                relative(&by(layer, 2)?, &truth),
            ],
        });
    }
    let speed = lines.iter().map(|l| l.terms).sum::<f64>() / products[1] * 1e3;
    let record = Record {
        batch: args.batch_size,
        rounds: args.rounds,
        threads: args.threads,
        clock: if args.threads == 1 { "the thread's processor time" } else { "wall" },
        cpu: cpu.trim().into(),
        load_at_start: load,
        torch_threads: tch::get_num_threads(),
        divisions_per_s_and_core: quotients,
        exact_terms_per_s: speed,
        exact_terms_to_divisions: speed / quotients / f64::from(args.threads),
        product_ms: products,
        backward_ms: [0, 1, 2, 3].map(|way| spread(ms.iter().map(|r| whole(r, way)))[0]),
        literal_to_exact_product: ratio(&total, 0, 1),
        literal_to_exact_backward: ratio(&whole, 0, 1),
        exact_to_straight_through_backward: ratio(&whole, 1, 3),
        layers: lines,
    };
    let name = args.out.as_deref().and_then(|p| p.file_stem()).map_or("delta".into(), |s| s.to_string_lossy());
    let table = table(&record, &name);
    print!("{}", table.text());
    if let (Some(out), Some(page)) = (&args.out, &args.markdown) {
        std::fs::write(out, serde_json::to_string_pretty(&record)? + "\n")?;
        markdown::fill_one(page, &table)?;
    }
    Ok(())
}

fn table(r: &Record, name: &str) -> Table {
    let mut columns: Vec<String> = ["layer", "largest 2w", "terms [M]"].map(String::from).into();
    columns.extend(WAYS.map(|way| format!("{way} [ms]")));
    columns
        .extend(["literal / exact", "exact [terms/ns]", "R", "error: literal", "exact", "expansion"].map(String::from));
    let row = |l: &Line| {
        let [literal, exact, ..] = l.product_ms;
        let mut cells = vec![l.layer.to_string(), l.largest_2w.to_string(), format!("{:.1}", l.terms / 1e6)];
        cells.extend(l.product_ms.map(|ms| format!("{ms:.2}")));
        cells.extend([format!("{:.1}", literal / exact), format!("{:.1}", l.terms / exact / 1e6), l.order.to_string()]);
        cells.extend(l.error.map(|e| format!("{e:.1e}")));
        cells
    };
    let sum = |what: &str, ms: [f64; 4], [ratio, low, high]: [f64; 3], speed: String| {
        let mut cells = vec![what.into(), String::new(), String::new()];
        cells.extend(ms.map(|ms| format!("{ms:.1}")));
        cells.extend([format!("{ratio:.1} ({low:.1} to {high:.1})"), speed]);
        cells.extend([const { String::new() }; 4]);
        cells
    };
    let mut rows: Vec<Vec<String>> = r.layers.iter().map(row).collect();
    let speed = format!("{:.1}", r.exact_terms_per_s / 1e9);
    rows.push(sum("all products", r.product_ms, r.literal_to_exact_product, speed));
    rows.push(sum("whole backward", r.backward_ms, r.literal_to_exact_backward, String::new()));
    let [st, ..] = r.exact_to_straight_through_backward;
    Table {
        name: name.into(),
        title: format!("Product with Delta, CIFAR network, batch {}, {} threads", r.batch, r.threads),
        columns,
        rows,
        notes: vec![
            format!(
                "medians over {} rounds, the ways in turns; {}; {}, {} thread(s), load {} at the start",
                r.rounds, r.clock, r.cpu, r.threads, r.load_at_start
            ),
            "whole backward: with the gradients of weights and biases of all eight layers, the same under every way; without \
             the head"
                .into(),
            format!(
                "divisions of f32 that a core makes in a nanosecond, measured: {:.1}. The exact way has {:.0} % as many terms \
                 a nanosecond, by one division for four terms: {:.0} % of the division throughput, the rest being \
                 multiply-adds. Its whole backward takes {st:.2} times straight-through's",
                r.divisions_per_s_and_core / 1e9,
                100.0 * r.exact_terms_to_divisions,
                25.0 * r.exact_terms_to_divisions
            ),
            "error: relative L2 distance from the exact product in float64; R: length of the expansion".into(),
        ],
    }
}
