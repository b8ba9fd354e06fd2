//! `semhash bench`: time of a training step with sparse and with dense input, of its parts, and the limit that the output layer
//! sets.
use crate::args::{Args, BenchArgs, Config};
use crate::documents::Data;
use crate::method::Method;
use crate::train::Trained;
use clap::Parser;
use serde_json::json;
use std::time::Instant;
use tch::{Kind, Tensor};
use thruway::error::{Error, Result};
use thruway::estimators::Objective;
use thruway::kernels::heap;
use thruway::nn::bow::{Bags, Precision};
use thruway::report::markdown::fill_file;
use thruway::report::table::Table;
use thruway::run::RunArgs;

/// What is timed.
struct Part<'a> {
    name: &'static str,
    /// Floating-point operations, where products are what it does.
    flops: Option<f64>,
    run: Box<dyn FnMut() -> Result<()> + 'a>,
    /// Wall time and processor time of each round.
    wall: Vec<f64>,
    busy: Vec<f64>,
}

/// Times of one part, in seconds: on a machine with other work the processor time is the one to go by.
struct Times {
    name: &'static str,
    flops: Option<f64>,
    median: f64,
    busy: f64,
    least: f64,
}

/// Processor time of this process so far, in seconds.
fn processor() -> f64 {
    let clock = nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID;
    clock.now().map_or(f64::NAN, |t| t.tv_sec() as f64 + 1e-9 * t.tv_nsec() as f64)
}

/// The subcommand.
pub fn run(args: &BenchArgs) -> Result<()> {
    let flags = RunArgs { threads: args.threads, device: args.device.clone(), ..Args::parse_from(["semhash"]).run };
    let device = flags.prepare()?;
    heap::keep_freed(); // as runs do
    let data = Data::load(args.words as usize)?;
    let (b, v, h, n) = (args.batch_size, data.vocabulary, args.hidden_dim, args.bits);
    for (what, value, most) in [("--batch-size", b, data.train.len() as i64), ("--rounds", args.rounds, i64::MAX)] {
        if !(1..=most).contains(&value) {
            return Err(Error::range(what, format!("1 to {most}"), value));
        }
    }
    let defaults = Config::new(&Args::parse_from(["semhash"]))?;
    let config = Config { bits: n, words: v, hidden_dim: h, batch_size: b, ..defaults };
    let order: Vec<i64> = Vec::try_from(Tensor::f_randperm(data.train.len() as i64, (Kind::Int64, tch::Device::Cpu))?)?;
    let bags = data.bags(&data.train, &order[..b as usize], device)?;
    let half = Config { precision: Precision::Bf16, ..config.clone() };
    let fresh = |config: &Config| Trained::new(config, &data, device);
    let (mut sparse, mut dense, mut rounded) = (fresh(&config)?, fresh(&config)?, fresh(&half)?);
    let [st, st_dense, st_half] = [Method::St.build(None)?, Method::St.build(None)?, Method::St.build(None)?];
    let (model, other) = (fresh(&config)?.model, fresh(&config)?.model);
    let (valued, codes) = (fresh(&half)?.model, Tensor::f_rand([2, b, n], (Kind::Float, device))?.f_round()?);
    let mut idle = fresh(&config)?;
    let total = |t: Tensor| -> Result<Tensor> { Ok(t.f_sum(t.kind())?) };
    // gradients for the optimizer alone
    total(idle.model.logits(&bags, false)?)?.f_backward()?;
    total(idle.model.decode(&Tensor::f_zeros([1, n], (Kind::Float, device))?)?)?.f_backward()?;
    let first = |model: &crate::model::Model, bags: &Bags, dense: bool| -> Result<()> {
        let a = model.first(bags, dense)?;
        let _grads = Tensor::f_run_backward(&[total(a)?], &model.encoder()[..2], false, false)?;
        Ok(())
    };
    let (bv, e) = ((b * v) as f64, bags.entries() as f64);
    let (hidden, out) =
        (Tensor::f_rand([b, h], (Kind::Float, device))?, Tensor::f_rand([v, h], (Kind::Float, device))?);
    let output = 6.0 * bv * h as f64;
    let others = 6.0 * (b * 2 * h * n) as f64;
    let sparse_step = output + others + 4.0 * e * h as f64;
    let part = |name, flops, run| Part { name, flops, run, wall: vec![], busy: vec![] };
    let mut parts = vec![
        part(
            "step, sparse input",
            Some(sparse_step),
            Box::new(|| sparse.step(&st, 1, &bags).map(drop)) as Box<dyn FnMut() -> _>,
        ),
        part(
            "step, dense input",
            Some(output + others + 4.0 * bv * h as f64),
            Box::new(|| dense.step_on(&st_dense, 1, &bags, true).map(drop)),
        ),
        part(
            "step, sparse input, bf16 output layer",
            Some(sparse_step),
            Box::new(|| rounded.step(&st_half, 1, &bags).map(drop)),
        ),
        part(
            "values of two codes a document, bf16 output layer",
            Some(4.0 * bv * h as f64),
            Box::new(|| valued.reconstruction(&bags).branch(&codes).map(drop)),
        ),
        part("first layer, sparse", Some(4.0 * e * h as f64), Box::new(|| first(&model, &bags, false))),
        part("first layer, dense", Some(4.0 * bv * h as f64), Box::new(|| first(&other, &bags, true))),
        part("Adam, all parameters", None, Box::new(|| idle.adam.step())),
        part(
            "one product of the output layer",
            Some(2.0 * bv * h as f64),
            Box::new(|| {
                let _scores = hidden.f_linear(&out, None::<&Tensor>)?;
                Ok(())
            }),
        ),
    ];
    for round in 0..args.rounds + 1 {
        for p in &mut parts {
            let (begun, before) = (Instant::now(), processor());
            (p.run)()?;
            if let tch::Device::Cuda(i) = device {
                tch::Cuda::synchronize(i as i64);
            }
            // the first round warms up
            if round > 0 {
                p.wall.push(begun.elapsed().as_secs_f64());
                p.busy.push(processor() - before);
            }
        }
    }
    let on_cpu = device == tch::Device::Cpu;
    let timed: Vec<Times> = parts
        .into_iter()
        .map(|mut p| {
            p.wall.sort_by(f64::total_cmp);
            p.busy.sort_by(f64::total_cmp);
            let least = if on_cpu { p.busy[0] / f64::from(args.threads) } else { p.wall[0] };
            let middle = p.wall.len() / 2;
            Times { name: p.name, flops: p.flops, median: p.wall[middle], busy: p.busy[middle], least }
        })
        .collect();
    // at the rate of its own products
    let limit = 3.0 * timed[timed.len() - 1].least;
    let rows = timed.iter().map(|t| {
        let rate = |f: f64| format!("{:.0}", f / t.least / 1e9);
        vec![
            t.name.to_string(),
            t.flops.map_or(String::new(), |f| format!("{:.2}", f / 1e9)),
            format!("{:.1}", 1e3 * t.median),
            if on_cpu { format!("{:.1}", 1e3 * t.busy) } else { String::new() },
            format!("{:.1}", 1e3 * t.least),
            t.flops.map_or(String::new(), rate),
        ]
    });
    let columns = ["part", "Gflop", "median wall ms", "median processor ms", "least ms", "Gflop/s at its least"]
        .map(String::from);
    let columns = columns.to_vec();
    let title = format!("A step of ST, {b} documents, {v} words, {h} hidden units, {n} bits");
    let notes = vec![
        format!(
            "{:.0} words a document, {:.0} different ones: {:.2} % of the dense input is not zero",
            bags.lengths().mean(Kind::Double).double_value(&[]),
            e / b as f64,
            100.0 * e / bv
        ),
        format!(
            "Limit: the three products of the output layer, {:.2} Gflop, take {:.1} ms at the rate of one of them alone; a sparse \
             step at its least takes {:.2} times that",
            output / 1e9,
            1e3 * limit,
            timed[0].least / limit
        ),
        format!(
            "{device:?}, {} thread; {} rounds, parts in turn; least: of the {} time",
            args.threads,
            args.rounds,
            if on_cpu { "processor" } else { "wall" }
        ),
    ];
    let table = Table { name: "bench".into(), title, columns, rows: rows.collect(), notes };
    println!("{}", table.text());
    if let Some(path) = &args.out {
        let all: Vec<_> = timed
            .iter()
            .map(|t| json!({"part": t.name, "flops": t.flops, "median_s": t.median, "processor_s": t.busy, "least_s": t.least}))
            .collect();
        let text = serde_json::to_string_pretty(&json!({
            "dataset": data.name, "batch_size": b, "words": v, "hidden_dim": h, "bits": n, "device": format!("{device:?}"),
            "threads": args.threads, "rounds": args.rounds, "entries": bags.entries(), "parts": all,
        }))?;
        std::fs::write(path, text + "\n").map_err(Error::io(path))?;
    }
    if let Some(file) = &args.markdown {
        println!("{}: {} tables filled", file.display(), fill_file(file, std::slice::from_ref(&table))?);
    }
    Ok(())
}
