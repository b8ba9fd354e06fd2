//! Tables from measured rows, and the `tables` subcommand.
use crate::figures;
use crate::measure::Row;
use crate::sentences;
use std::path::{Path, PathBuf};
use thruway::error::{Error, Result};
use thruway::report::TablesArgs;
use thruway::report::markdown::fill_file;
use thruway::report::table::Table;

/// `sbn-grad tables`: prints, fills a README, draws.
pub fn run(args: &TablesArgs) -> Result<()> {
    let runs: Vec<Measured> = find(&args.page.runs)?.iter().map(|dir| read(dir)).collect::<Result<_>>()?;
    let (tables, figures) = match &runs[..] {
        [one] => (all(&one.rows), figures::all(&one.rows)),
        // one network trained by several methods, or several networks
        [first, others @ ..] if others.iter().all(|r| r.units == first.units && r.estimator != first.estimator) => (
            vec![training(&runs), sentences::training(&runs)],
            vec![("training.svg".to_string(), figures::training(&runs))],
        ),
        several => (vec![architectures(several), sentences::architectures(several)], figures::architectures(several)),
    };
    for table in &tables {
        println!("{}", table.text());
    }
    if let Some(file) = &args.page.markdown {
        println!("{}: {} tables filled", file.display(), fill_file(file, &tables)?);
    }
    if let Some(dir) = &args.figures {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        for (name, svg) in figures {
            let path = dir.join(name);
            std::fs::write(&path, svg).map_err(Error::io(&path))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// A finished run.
pub struct Measured {
    pub units: Vec<i64>,
    /// Method of training.
    pub estimator: String,
    pub rows: Vec<Row>,
    pub history: Vec<Loss>,
}

/// Exact losses after some epochs of training, as in summary.json.
#[derive(Debug, serde::Deserialize)]
pub struct Loss {
    pub epoch: f64,
    pub expected_loss: f64,
    pub ensemble_loss: f64,
}

/// The run directories in these folders, or below them.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for path in paths {
        if path.join("accuracy.jsonl").is_file() {
            found.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(Error::io(path))?;
        let mut below: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        below.sort();
        found.extend(find(&below)?);
    }
    Ok(found)
}

fn read(dir: &Path) -> Result<Measured> {
    let text = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(Error::io(&path))
    };
    let config: serde_json::Value = serde_json::from_str(&text("config.json")?)?;
    let summary: serde_json::Value = serde_json::from_str(&text("summary.json")?)?;
    let history = summary["final"].get("history").cloned().map(serde_json::from_value).transpose()?;
    Ok(Measured {
        units: serde_json::from_value(config["config"]["units"].clone())?,
        estimator: serde_json::from_value(config["config"]["estimator"].clone())?,
        history: history.unwrap_or_default(),
        rows: text("accuracy.jsonl")?.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?,
    })
}

/// The networks of these runs, by depth and width.
pub fn shapes(runs: &[Measured]) -> Vec<&[i64]> {
    let mut shapes: Vec<&[i64]> = runs.iter().map(|r| &r.units[..]).collect();
    shapes.sort_by_key(|units| (units.len(), *units));
    shapes.dedup();
    shapes
}

/// "5-5-5".
pub fn shape_name(units: &[i64]) -> String {
    units.iter().map(i64::to_string).collect::<Vec<_>>().join("-")
}

/// Bias and standard deviation of one sample in layer 1, for runs with other widths and depths: means over seeds (Figs. C.5
/// and C.6).
fn architectures(runs: &[Measured]) -> Table {
    let shapes = shapes(runs);
    let heads = shapes.iter().flat_map(|units| [format!("{}, bias", shape_name(units)), "std".into()]);
    let columns = ["method".to_string()].into_iter().chain(heads).collect();
    let methods = runs.first().map(|r| distinct(&r.rows, |r| &r.method)).unwrap_or_default();
    let mean = |v: &[f64]| if v.is_empty() { "–".into() } else { short(v.iter().sum::<f64>() / v.len() as f64) };
    let line = |method: &str| {
        let cells = shapes.iter().flat_map(|units| {
            let own = runs.iter().filter(|r| r.units == **units).flat_map(|r| &r.rows);
            let own: Vec<&Row> = own.filter(|r| r.method == method && r.layer == 1).collect();
            let of = |f: &dyn Fn(&Row) -> f64| mean(&own.iter().map(|r| f(r)).collect::<Vec<_>>());
            [of(&|r| r.bias()), of(&|r| r.exact.unwrap_or(r.sampled).std)]
        });
        [method.to_string()].into_iter().chain(cells).collect()
    };
    Table {
        name: "architectures".into(),
        title: "Layer 1 after one epoch, relative, means over seeds".into(),
        columns,
        rows: methods.into_iter().map(line).collect(),
        notes: vec![],
    }
}

/// Epochs of the table of training.
pub const EPOCHS: [f64; 5] = [50.0, 100.0, 500.0, 1000.0, 2000.0];

/// Exact losses along training under several methods (Fig. C.2).
fn training(runs: &[Measured]) -> Table {
    let columns = EPOCHS.iter().map(|e| format!("expected loss, {e}")).chain(["ensemble loss, last".into()]);
    let line = |run: &Measured| {
        let at = |e: &f64| run.history.iter().find(|h| h.epoch == *e).map_or("–".into(), |h| short(h.expected_loss));
        let last = run.history.last().map_or("–".into(), |h| short(h.ensemble_loss));
        [run.estimator.clone()].into_iter().chain(EPOCHS.iter().map(at)).chain([last]).collect()
    };
    Table {
        name: "training".into(),
        title: "Exact losses after some epochs of training, nats".into(),
        columns: ["method".to_string()].into_iter().chain(columns).collect(),
        rows: runs.iter().map(line).collect(),
        notes: vec![],
    }
}

/// Everything for a terminal.
pub fn text(rows: &[Row]) -> String {
    all(rows).iter().map(|t| t.text() + "\n").collect()
}

/// Values in the order of their first appearance.
pub fn distinct<'a>(rows: &'a [Row], of: impl Fn(&'a Row) -> &'a str) -> Vec<&'a str> {
    let mut seen: Vec<&str> = vec![];
    for row in rows {
        if !seen.contains(&of(row)) {
            seen.push(of(row));
        }
    }
    seen
}

/// Part of a table's or file's name.
pub fn slug(text: &str) -> String {
    text.replace(", ", "-").replace(' ', "-")
}

/// "layer 2", or "head" for the one after the last binary layer.
pub fn layer_name(layer: usize, last: usize) -> String {
    if layer == last { "head".into() } else { format!("layer {layer}") }
}

impl Row {
    /// RMSE of M samples: by enumeration; for unbiased methods from the variance, as `std / sqrt(M)`; else as sampled, and
    /// for more samples than that from their moments.
    pub fn rmse(&self, m: i64) -> Option<f64> {
        match self.exact {
            Some(e) => Some(e.rmse(m as f64)),
            None if self.unbiased => Some(self.sampled.std / (m as f64).sqrt()),
            // no randomness: one sample is as good as any number
            None if self.samples == 1 => Some(self.sampled.bias),
            None => Some(match self.points.iter().find(|p| p.m == m) {
                Some(p) if p.groups >= 10 => p.rmse,
                _ => self.bias().hypot(self.sampled.std / (m as f64).sqrt()),
            }),
        }
    }

    /// What remains of the RMSE for many samples; where it is not enumerated, less the noise that T samples leave in it.
    pub fn bias(&self) -> f64 {
        match self.exact {
            Some(e) => e.bias,
            None if self.unbiased => 0.0,
            None => {
                let noise = self.sampled.std.powi(2) / self.samples as f64;
                (self.sampled.bias.powi(2) - noise).max(0.0).sqrt()
            }
        }
    }

    /// Mean cosine of an M-sample estimate.
    pub fn cosine(&self, m: i64) -> Option<f64> {
        let m = if self.samples == 1 { 1 } else { m };
        self.points.iter().find(|p| p.m == m).map(|p| p.cosine)
    }
}

/// Three significant digits; 0 for what enumeration leaves of an exact zero.
pub fn short(x: f64) -> String {
    match x.abs() {
        a if a < 1e-9 => "0".into(),
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        a if a >= 1.0 => format!("{x:.2}"),
        a if a >= 0.001 => format!("{x:.3}"),
        _ => format!("{x:.1e}"),
    }
}

fn table(
    rows: &[Row],
    setting: &str,
    name: &str,
    title: String,
    columns: &[&str],
    cells: impl Fn(&Row) -> Vec<String>,
) -> Table {
    let own: Vec<&Row> = rows.iter().filter(|r| r.setting == setting).collect();
    let last = own.iter().map(|r| r.layer).max().unwrap_or(0);
    let mut heads = vec!["method".to_string()];
    for layer in 1..=last {
        heads.extend(columns.iter().map(|c| format!("{}, {c}", layer_name(layer, last))));
    }
    let lines = distinct(rows, |r| &r.method).into_iter().filter_map(|method| {
        let cells: Vec<String> = own.iter().filter(|r| r.method == method).flat_map(|r| cells(r)).collect();
        let mark = if own.iter().any(|r| r.method == method && r.exact.is_some()) { " *" } else { "" };
        (!cells.is_empty()).then(|| [vec![format!("{method}{mark}")], cells].concat())
    });
    Table { name: format!("{name}-{}", slug(setting)), title, columns: heads, rows: lines.collect(), notes: vec![] }
}

/// RMSE and cosine for each setting, then the paper's sentences.
pub fn all(rows: &[Row]) -> Vec<Table> {
    let dash = |x: Option<f64>| x.map_or("–".into(), short);
    let mut tables = vec![];
    for setting in distinct(rows, |r| &r.setting) {
        let loss = rows.iter().find(|r| r.setting == setting).map_or(f64::NAN, |r| r.expected_loss);
        let title = format!("Relative RMSE, {setting} (expected loss {loss:.4}), 0/1 encoding");
        let mut rmse = table(rows, setting, "rmse", title, &["M = 1", "100", "all"], |r| {
            vec![dash(r.rmse(1)), dash(r.rmse(100)), short(r.bias())]
        });
        rmse.notes.push("* mean and variance by enumeration: no sampling error at any M. `all`: the bias, RMSE for M to infinity; for biased methods that are not enumerated from T samples, less their noise".into());
        tables.push(rmse);
        let title = format!("Cosine with the exact gradient, {setting}");
        let mut cosine = table(rows, setting, "cosine", title, &["M = 1", "all", "negative"], |r| {
            let mean = r.exact.unwrap_or(r.sampled).cosine;
            let mean = if r.unbiased { 1.0 } else { mean };
            let negative = r.points.first().map_or("–".into(), |p| format!("{:.0} %", 100.0 * p.negative));
            vec![dash(r.cosine(1)), short(mean), negative]
        });
        cosine.notes.push("M = 1: mean cosine of one sample; `all`: of the mean estimate; negative: share of one-sample estimates that are no descent direction".into());
        tables.push(cosine);
    }
    tables.extend(sentences::table(rows));
    tables
}
