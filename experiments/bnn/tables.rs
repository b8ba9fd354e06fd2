//! `bnn tables`: Table 1 of the paper with our runs beside it, and how they came there.
use std::collections::BTreeMap;
use thruway::error::{Error, Result};
use thruway::report::PageArgs;
use thruway::report::markdown::fill_file;
use thruway::report::published;
use thruway::report::runs::{Group, find, group};
use thruway::report::stats::Spread;
use thruway::report::table::Table;

/// The metrics of a run that Table 1 has, and one that it has not.
const COLUMNS: [(&str, &str); 3] = [
    ("test_accuracy_det", "det"),
    ("test_accuracy_10", "10-sample"),
    ("test_accuracy_det_refit", "det, own normalisation"),
];

/// The subcommand.
pub fn run(args: &PageArgs) -> Result<()> {
    let (groups, unfinished) = group(find(&args.runs)?)?;
    for run in &unfinished {
        eprintln!("{}: not finished, left out", run.dir.display());
    }
    let paper: published::Table = serde_json::from_str(include_str!("published/table1.json"))?;
    let tables: Vec<Table> = [Some(table1(&paper, &groups)?), curves(&paper, &groups)].into_iter().flatten().collect();
    for table in &tables {
        println!("{}", table.text());
    }
    if let Some(file) = &args.markdown {
        println!("{}: {} tables filled", file.display(), fill_file(file, &tables)?);
    }
    Ok(())
}

/// Draws of the published ensemble.
const DRAWS: &str = "10";

fn table1(paper: &published::Table, groups: &[Group]) -> Result<Table> {
    let head = [
        "network",
        "noise",
        "weights",
        "training images",
        "test images",
        "epochs",
        "n",
        "det",
        "10-sample",
        "det, own normalisation",
    ];
    let percent = |s: Option<Spread>| match s {
        Some(Spread { mean, std: Some(std), .. }) => format!("{mean:.1} ± {std:.1}"),
        Some(Spread { mean, .. }) => format!("{mean:.1}"),
        None => String::new(),
    };
    let mut rows = vec![];
    for row in &paper.rows {
        let cell = |column: &str| paper.cells.iter().find(|c| c.row == *row && c.column == column);
        let shown = |column: &str| {
            let value = match cell(column) {
                Some(c) if c.std.is_none() => c.mean.to_string(),
                found => percent(found.map(|c| Spread { n: 4, mean: c.mean, std: c.std })),
            };
            match cell(column).and_then(|c| c.printed.as_ref()) {
                Some(printed) => format!("{value} ({printed})"),
                None => value,
            }
        };
        let own = ["logistic", "uniform", "triangular"].contains(&row.as_str());
        let network = if own { "published, width 128".to_string() } else { format!("published: {row}") };
        let [noise, epochs, n] = if own { [row.as_str(), "500", "4"] } else { [""; 3] };
        let test = if own { "10000" } else { "" };
        let texts = [&network, noise, "", "cifar10", test, epochs, n, &shown("det"), &shown("10-sample"), ""];
        rows.push(texts.map(str::to_string).to_vec());
    }
    for g in groups {
        let run = g.first();
        if run.family != "bnn" {
            let reason = format!("is a run of {}, not of bnn", run.family);
            return Err(Error::Run { dir: run.dir.clone(), reason, remedy: "give runs of bnn alone".into() });
        }
        let of = |key: &str| run.setting(key).unwrap_or_default();
        let scaled = |metric: &str| {
            let values: Option<Vec<f64>> = g.values(metric).map(|v| v.into_iter().map(|x| 100.0 * x).collect());
            percent(values.and_then(|v| Spread::of(&v)))
        };
        let images = format!("{}: {}", of("dataset"), of("train_size"));
        let epochs = g.epochs().map(|e| e.to_string()).unwrap_or_default();
        let clipped = if of("clip") == "true" { ", clipped" } else { "" };
        let weights = format!("{} x {}{clipped}", of("weight_noise"), of("weight_spread"));
        let mut row =
            vec![format!("ours, width {}", of("width")), of("noise"), weights, images, of("test_size"), epochs];
        row.push(g.outcomes().count().to_string());
        row.extend(COLUMNS.iter().map(|(metric, _)| match of("eval_samples") {
            draws if *metric == "test_accuracy_10" && draws != DRAWS => format!("{} ({draws}-sample)", scaled(metric)),
            _ => scaled(metric),
        }));
        rows.push(row);
    }
    Ok(Table {
        name: "bnn-table1".into(),
        title: "Table 1: test accuracy on CIFAR-10, %".into(),
        columns: head.map(str::to_string).to_vec(),
        rows,
        notes: [
            paper.notes.as_slice(),
            &["weights: their noise, the factor on latent weights at the start, and whether these are clipped".into()],
        ]
        .concat(),
    })
}

/// Test accuracy by epoch of the first seed of every group that was evaluated more than once, and where the published network of
/// that noise ends; `None` where no run was.
fn curves(paper: &published::Table, groups: &[Group]) -> Option<Table> {
    let mut columns = vec!["epoch".to_string()];
    let mut by_epoch: BTreeMap<i64, BTreeMap<usize, String>> = BTreeMap::new();
    let mut ends = vec!["published, 500".to_string()];
    for g in groups {
        let run = g.first();
        let history = run.outcome.as_ref().and_then(|o| o.metrics.get("history")?.as_array());
        let Some(history) = history.filter(|h| h.len() > 1) else { continue };
        let of = |key: &str| run.setting(key).unwrap_or_default();
        let sample = format!("{}-sample", of("eval_samples"));
        for (metric, column) in [("test_accuracy_det", "det"), ("test_accuracy_10", sample.as_str())] {
            let place = columns.len();
            columns.push(format!(
                "{}, width {}, {} x {}: {column}",
                of("noise"),
                of("width"),
                of("weight_noise"),
                of("weight_spread")
            ));
            for row in history {
                let (Some(epoch), Some(value)) = (row["epoch"].as_i64(), row[metric].as_f64()) else { continue };
                by_epoch.entry(epoch).or_default().insert(place, format!("{:.1}", 100.0 * value));
            }
            let end = paper.cells.iter().find(|c| c.row == of("noise") && c.column == column);
            ends.push(end.map(|c| format!("{:.1}", c.mean)).unwrap_or_default());
        }
    }
    let line = |(epoch, cells): (&i64, &BTreeMap<usize, String>)| -> Vec<String> {
        let cell = |i: usize| cells.get(&i).cloned().unwrap_or_default();
        std::iter::once(epoch.to_string()).chain((1..columns.len()).map(cell)).collect()
    };
    let mut rows: Vec<Vec<String>> = by_epoch.iter().map(line).collect();
    rows.push(ends);
    (columns.len() > 1).then(|| Table {
        name: "bnn-curves".into(),
        title: "Test accuracy by epoch, %".into(),
        columns: columns.clone(),
        rows,
        notes: vec!["The first seed; evaluations before the last may be on fewer test images (eval-size)".into()],
    })
}
