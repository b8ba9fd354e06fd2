//! `bnn tables`: Table 1 of the paper with our runs beside it.
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
    let table = table1(&groups)?;
    println!("{}", table.text());
    if let Some(file) = &args.markdown {
        println!("{}: {} table filled", file.display(), fill_file(file, &[table])?);
    }
    Ok(())
}

fn table1(groups: &[Group]) -> Result<Table> {
    let paper: published::Table = serde_json::from_str(include_str!("published/table1.json"))?;
    let head = ["network", "noise", "weights", "images", "epochs", "n", "det", "10-sample", "det, own normalisation"];
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
        let texts = [&network, noise, "", "cifar10", epochs, n, &shown("det"), &shown("10-sample"), ""];
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
        let images = format!("{} ({} of training)", of("dataset"), of("train_size"));
        let epochs = g.epochs().map(|e| e.to_string()).unwrap_or_default();
        let clipped = if of("clip") == "true" { ", clipped" } else { "" };
        let weights = format!("{} x {}{clipped}", of("weight_noise"), of("weight_spread"));
        let mut row = vec![format!("ours, width {}", of("width")), of("noise"), weights, images, epochs];
        row.push(g.outcomes().count().to_string());
        row.extend(COLUMNS.iter().map(|(metric, _)| scaled(metric)));
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
