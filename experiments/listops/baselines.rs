//! What no parser is needed for: the majority class, a bag of symbols, and trees that branch one way or as the expression does.
use crate::args::{Args, BaselinesArgs};
use crate::trees::{self, Agreement};
use clap::Parser;
use serde::Serialize;
use serde_json::{Map, json};
use tch::{Device, Kind, Reduction, Tensor};
use thruway::data::listops::{Example, Units};
use thruway::error::Result;
use thruway::nn::{Linear, Params};
use thruway::optim::{Adam, Method, Settings};
use thruway::report::table::Table;
use thruway::run::{Run, RunArgs, seeding};

const EPOCHS: i64 = 20;
const BATCH: i64 = 64;
const WIDTH: i64 = 300;
const LR: f64 = 1e-3;

/// Of one baseline, in percent: what it has of the measures of a run.
#[derive(Debug, Serialize)]
struct Line {
    baseline: String,
    units: Option<Units>,
    valid_accuracy: Option<f64>,
    test_accuracy: Option<f64>,
    valid_f1: Option<f64>,
    valid_operations: Option<f64>,
}

/// Prints them, and writes them to `--out`.
pub fn run(args: &BaselinesArgs) -> Result<()> {
    let flags = RunArgs {
        out: args.out.clone(),
        seed: args.seed,
        device: args.device.clone(),
        threads: args.threads,
        ..Args::parse_from(["listops"]).run
    };
    let device = flags.prepare()?;
    let (data, [train, valid, test]) = args.data.load()?;
    let config = json!({
        "dataset": data.name(),
        "train_split": data.train_split,
        "train_sha256": data.train_file.as_ref().map(|file| &file.sha256),
        "train_size": data.train.len(),
        "train_seed": args.data.train_seed,
        "max_length": args.data.max_length,
        "data": { "train": train.len(), "valid": valid.len(), "test": test.len() },
        "bag": { "hidden_dim": WIDTH, "epochs": EPOCHS, "batch_size": BATCH, "optimizer": Method::Adam, "lr": LR },
        "trees": args.data.units,
    });
    let run = match &args.out {
        Some(out) => Some(Run::open("listops-baselines", &flags, out.clone(), config)?.0),
        None => None,
    };

    let mut lines = Vec::new();
    let mut guess = |baseline: String, valid: f64, test: f64| {
        let (valid_accuracy, test_accuracy) = (Some(valid), Some(test));
        let (units, valid_f1, valid_operations) = (None, None, None);
        lines.push(Line { baseline, units, valid_accuracy, test_accuracy, valid_f1, valid_operations });
    };
    let mut counts = [0usize; 10];
    train.iter().for_each(|e| counts[usize::from(e.label)] += 1);
    let major = (0..10).max_by_key(|&i| counts[i]).unwrap_or(0) as u8;
    let share = |set: &[Example]| 100.0 * set.iter().filter(|e| e.label == major).count() as f64 / set.len() as f64;
    guess(format!("majority class ({major})"), share(&valid), share(&test));
    let bag = Bag::trained(&train, device)?;
    guess("bag of symbols".into(), bag.accuracy(&valid)?, bag.accuracy(&test)?);
    let both = [Units::Tokens, Units::Chars];
    let units = args.data.units.as_ref().map_or(&both[..], std::slice::from_ref);
    let mut lengths = Vec::new();
    for &units in units {
        for (name, tree) in TREES {
            let mut agreement = Agreement::default();
            valid.iter().for_each(|e| agreement.add(e, units, &tree(e, units)));
            let (valid_accuracy, test_accuracy) = (None, None);
            let (valid_f1, valid_operations) = (agreement.f1(), agreement.operations());
            let (baseline, units) = (name.into(), Some(units));
            lines.push(Line { baseline, units, valid_accuracy, test_accuracy, valid_f1, valid_operations });
        }
        let all: Vec<usize> = valid.iter().map(|e| units.encode(&e.expression).len()).collect();
        let mean = all.iter().sum::<usize>() as f64 / all.len() as f64;
        lengths.push(json!({ "units": units, "mean": mean, "longest": all.iter().max() }));
    }

    let percent = |v: Option<f64>| v.map(|v| format!("{v:.2}")).unwrap_or_default();
    let heads = ["baseline", "units", "valid accuracy", "test accuracy", "valid F1", "valid operations"];
    let row = |l: &Line| {
        let units = l.units.map(|u| u.to_string()).unwrap_or_default();
        let measures = [l.valid_accuracy, l.test_accuracy, l.valid_f1, l.valid_operations].map(percent);
        [vec![l.baseline.clone(), units], measures.to_vec()].concat()
    };
    let mut notes = vec![
        format!(
            "{} training expressions ({} split, seed {}), {} valid, {} test, below {} symbols",
            train.len(),
            data.train_split,
            args.data.train_seed,
            valid.len(),
            test.len(),
            args.data.max_length
        ),
        format!("bag of symbols: their counts, {WIDTH} ReLU, {EPOCHS} epochs of Adam {LR} in batches of {BATCH}"),
    ];
    notes.extend(lengths.iter().map(|l| format!("length of a valid expression: {l}")));
    let table = Table {
        name: "listops-baselines".into(),
        title: format!("{} {} split: baselines [%]", data.name(), data.train_split),
        columns: heads.map(String::from).to_vec(),
        rows: lines.iter().map(row).collect(),
        notes,
    };
    if let Some(run) = run {
        let finals = [("baselines", serde_json::to_value(&lines)?), ("lengths", json!(lengths))];
        run.finish(0, 0, finals.map(|(k, v)| (k.to_string(), v)).into_iter().collect::<Map<_, _>>())?;
    }
    print!("{}", table.text());
    Ok(())
}

type Tree = fn(&Example, Units) -> Vec<usize>;

/// From an expression to merges. The last gives the agreement that no tree exceeds.
const TREES: [(&str, Tree); 3] = [
    ("left-branching trees", |e, units| vec![0; units.encode(&e.expression).len() - 1]),
    ("right-branching trees", |e, units| (0..units.encode(&e.expression).len() - 1).rev().collect()),
    ("trees along the official ones", |e, units| {
        let own = units.spans(&e.expression, &e.expression.binary_spans());
        trees::along(units.encode(&e.expression).len(), &own)
    }),
];

/// Counts of the sixteen symbols -> ReLU -> 10, as wide as the model's own classifier.
struct Bag {
    layers: [Linear; 2],
    device: Device,
}

impl Bag {
    fn trained(train: &[Example], device: Device) -> Result<Bag> {
        let mut params = Params::default();
        let layers = [
            Linear::new(&mut params, "hidden", Units::Tokens.vocabulary(), WIDTH, device)?,
            Linear::new(&mut params, "output", WIDTH, 10, device)?,
        ];
        let bag = Bag { layers, device };
        let mut optimizer = Adam::new(Method::Adam, Settings { lr: LR, ..Settings::default() }, params.iter())?;
        let (x, y) = bag.counts(train)?;
        let n = train.len() as i64;
        for _ in 0..EPOCHS {
            let order = seeding::shuffle(n)?.f_to_device(device)?;
            for from in (0..n).step_by(BATCH as usize) {
                let rows = order.f_narrow(0, from, BATCH.min(n - from))?;
                let (x, y) = (x.f_index_select(0, &rows)?, y.f_index_select(0, &rows)?);
                let loss = bag.forward(&x)?.f_cross_entropy_loss(&y, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
                optimizer.zero_grad();
                loss.f_backward()?;
                optimizer.step()?;
            }
        }
        Ok(bag)
    }

    fn forward(&self, counts: &Tensor) -> Result<Tensor> {
        self.layers[1].forward(&self.layers[0].forward(counts)?.f_relu()?)
    }

    /// In percent.
    fn accuracy(&self, set: &[Example]) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let (x, y) = self.counts(set)?;
        let right = self.forward(&x)?.f_argmax(-1, false)?.f_eq_tensor(&y)?.f_sum(Kind::Int64)?;
        Ok(100.0 * right.f_int64_value(&[])? as f64 / set.len() as f64)
    }

    /// How often each symbol occurs `[n, 16]`, and the labels `[n]`, both on the device of the layers.
    fn counts(&self, set: &[Example]) -> Result<(Tensor, Tensor)> {
        let width = Units::Tokens.vocabulary() as usize;
        let mut counts = vec![0f32; set.len() * width];
        for (row, e) in counts.chunks_exact_mut(width).zip(set) {
            e.expression.symbols().iter().for_each(|&s| row[usize::from(s)] += 1.0);
        }
        let labels: Vec<i64> = set.iter().map(|e| i64::from(e.label)).collect();
        let x = Tensor::f_from_slice(&counts)?.f_view([set.len() as i64, width as i64])?;
        Ok((x.f_to_device(self.device)?, Tensor::f_from_slice(&labels)?.f_to_device(self.device)?))
    }
}
