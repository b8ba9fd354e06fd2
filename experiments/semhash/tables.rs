//! `semhash tables`: training, correction, retrieval and accuracy of finished runs, and the paper's sentences held against them.
use crate::measure::Row;
use crate::{claims, figures};
use std::collections::BTreeMap;
use thruway::error::{Error, Result};
use thruway::report::TablesArgs;
use thruway::report::markdown::fill_file;
use thruway::report::runs::{Group, find, group};
use thruway::report::stats::Spread;
use thruway::report::table::Table;

/// Estimators in the order of Table D.1, then those that it does not have.
pub const ORDER: [&str; 9] =
    ["arm", "gumbel-softmax-1", "gumbel-softmax-0.1", "st", "det-st", "identity-st", "psa", "reinmax", "disarm"];

/// Place of a name in [`ORDER`], last if it is not there.
pub fn rank(name: &str) -> usize {
    ORDER.iter().position(|o| *o == name).unwrap_or(ORDER.len())
}

/// Settings that all runs of a table share: everything but estimator, its temperature, bits and seed.
const SHARED: [&str; 10] = [
    "dataset",
    "words",
    "hidden_dim",
    "precision",
    "lr",
    "batch_size",
    "epochs",
    "correction_epochs",
    "correction_samples",
    "steps",
];

/// Finished runs that differ in bits and estimator alone, and what was measured along those of ARM.
pub struct Runs {
    /// By bits and the estimator's rank and name.
    pub groups: BTreeMap<(i64, usize, String), Group>,
    /// By bits.
    pub accuracy: BTreeMap<i64, Vec<Row>>,
}

impl Runs {
    /// The numbers of bits there are.
    pub fn bits(&self) -> Vec<i64> {
        let mut all: Vec<i64> = self.groups.keys().map(|k| k.0).chain(self.accuracy.keys().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The runs of one estimator.
    pub fn get(&self, bits: i64, name: &str) -> Option<&Group> {
        self.groups.get(&(bits, rank(name), name.to_string()))
    }

    /// A final metric over the seeds.
    pub fn spread(&self, bits: i64, name: &str, metric: &str) -> Option<Spread> {
        Spread::of(&self.get(bits, name)?.values(metric)?)
    }

    /// Evaluations along a run of the first seed: (epoch, training loss), with drawn codes (`curve`) or the more probable ones
    /// (`curve_det`).
    pub fn curve(&self, bits: i64, name: &str, which: &str) -> Option<Vec<(f64, f64)>> {
        let value = self.get(bits, name)?.first().outcome.as_ref()?.metrics.get(which)?;
        serde_json::from_value(value.clone()).ok()
    }

    /// What there is to gain with so many bits, nats: from the loss of the frequencies of the words alone to the lowest training loss
    /// of all runs. `None` where no run has the former.
    pub fn span(&self, bits: i64) -> Option<f64> {
        let groups = || self.groups.iter().filter(|(k, _)| k.0 == bits).map(|(k, g)| (&k.2, g));
        let unigram = groups().find_map(|(_, g)| g.first().metric("unigram_loss"))?;
        let finals = groups().flat_map(|(_, g)| g.runs.iter().filter_map(|r| r.metric("train_loss")));
        let along = groups().filter_map(|(name, _)| self.curve(bits, name, "curve")).flatten().map(|p| p.1);
        let best = finals.chain(along).fold(f64::INFINITY, f64::min);
        (best < unigram).then_some(unigram - best)
    }

    /// What was measured of one estimator, in the order of the epochs.
    pub fn measured(&self, bits: i64, name: &str) -> Vec<&Row> {
        self.accuracy.get(&bits).into_iter().flatten().filter(|r| r.method == name).collect()
    }
}

/// The subcommand.
pub fn run(args: &TablesArgs) -> Result<()> {
    let (groups, unfinished) = group(find(&args.page.runs)?)?;
    for run in &unfinished {
        eprintln!("{}: not finished, left out", run.dir.display());
    }
    let runs = sort(groups)?;
    let mut tables = vec![training(&runs), retrieval(&runs)];
    tables.extend(accuracy(&runs));
    tables.push(claims::table(&runs));
    for table in &tables {
        println!("{}", table.text());
    }
    if let Some(file) = &args.page.markdown {
        println!("{}: {} tables filled", file.display(), fill_file(file, &tables)?);
    }
    if let Some(dir) = &args.figures {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        for (name, svg) in figures::all(&runs) {
            let path = dir.join(name);
            std::fs::write(&path, svg).map_err(Error::io(&path))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

fn sort(found: Vec<Group>) -> Result<Runs> {
    let (mut groups, mut accuracy) = (BTreeMap::new(), BTreeMap::new());
    let mut shared: Option<Vec<Option<String>>> = None;
    let mut measured = None;
    for g in found {
        let run = g.first();
        let refuse =
            |reason: String, remedy: &str| Err(Error::Run { dir: run.dir.clone(), reason, remedy: remedy.into() });
        if run.family != "semhash" {
            return refuse(format!("is a run of {}, not of semhash", run.family), "give runs of semhash alone");
        }
        let of = |key: &str| run.setting(key).unwrap_or_default();
        let Ok(bits) = of("bits").parse::<i64>() else {
            return refuse("has no bits".into(), "give runs of semhash alone");
        };
        // under --control ARM's samples are not used
        let settings = || SHARED.iter().map(|key| run.setting(key)).collect::<Vec<_>>();
        let first = shared.get_or_insert_with(settings);
        if let Some((key, (a, b))) = SHARED.iter().zip(first.iter().zip(&settings())).find(|(_, (a, b))| a != b) {
            let show = |v: &Option<String>| v.clone().unwrap_or("none".into());
            let reason = format!("has {key} {}, another run {}", show(b), show(a));
            return refuse(reason, "give runs that differ in estimator, bits and seed alone, as those of one sweep");
        }
        let mut name = of("estimator");
        name += &run.setting("tau").map(|t| format!("-{}", t.trim_end_matches(".0"))).unwrap_or_default();
        let control = of("control") == "true";
        name += if control { ", control" } else { "" };
        if let Some(rows) = run.outcome.as_ref().filter(|_| !control).and_then(|o| o.metrics.get("accuracy")) {
            let rows: Vec<Row> = serde_json::from_value(rows.clone())?;
            if !rows.is_empty() {
                let how =
                    |r: &Row| (r.epoch, r.method.clone(), r.documents, r.batches, r.trials, r.reference, r.precision);
                let settings: Vec<_> = rows.iter().map(how).collect();
                if *measured.get_or_insert_with(|| settings.clone()) != settings {
                    let reason = "was measured under other settings than another run (`measure` of config.json)".into();
                    return refuse(reason, "give runs that were measured alike");
                }
                accuracy.insert(bits, rows);
            }
        }
        if groups.contains_key(&(bits, rank(&name), name.clone())) {
            let reason = format!("is a second setting of {name} with {bits} bits");
            return refuse(reason, "give runs that differ in estimator, bits and seed alone");
        }
        groups.insert((bits, rank(&name), name), g);
    }
    Ok(Runs { groups, accuracy })
}

/// `mean ± std`, with so many digits after the point.
pub fn cell(s: Option<Spread>, digits: usize) -> String {
    match s {
        Some(Spread { mean, std: Some(std), .. }) => format!("{mean:.digits$} ± {std:.digits$}"),
        Some(Spread { mean, .. }) => format!("{mean:.digits$}"),
        None => String::new(),
    }
}

/// The data set and its words, for a note.
fn data_note(runs: &Runs) -> Vec<String> {
    let of = |g: &Group| {
        let run = g.first();
        let words = run.config.get("data").and_then(|d| d.get("words")?.as_i64()).unwrap_or_default();
        Some(format!("{}, {words} words", run.setting("dataset")?))
    };
    let mut sets: Vec<String> = runs.groups.values().filter_map(of).collect();
    sets.sort();
    sets.dedup();
    vec![format!("Data: {}; nats a document", sets.join("; "))]
}

fn training(runs: &Runs) -> Table {
    let columns = [
        "bits",
        "estimator",
        "seeds",
        "epochs + correction",
        "batch",
        "output layer",
        "train, before",
        "train, after",
        "test, before",
        "test, after",
        "train, likely codes, before",
        "train, likely codes, after",
        "steps/s",
    ];
    let rows = runs.groups.iter().map(|((bits, _, name), g)| {
        let of = |key: &str| g.first().setting(key).unwrap_or_default();
        let mut row = vec![bits.to_string(), name.clone(), g.runs.len().to_string()];
        row.push(format!("{} + {}", of("epochs"), of("correction_epochs")));
        row.extend([of("batch_size"), of("precision")]);
        for metric in [
            "train_loss_before_correction",
            "train_loss",
            "test_loss_before_correction",
            "test_loss",
            "train_loss_det_before_correction",
            "train_loss_det",
        ] {
            row.push(cell(runs.spread(*bits, name, metric), 1));
        }
        let rates: Vec<f64> = g.outcomes().filter_map(|o| o.steps_per_second).collect();
        row.push(cell(Spread::of(&rates), 2));
        row
    });
    let mut notes = data_note(runs);
    notes.push(
        "One draw of the code for each document, or, likely codes, the more probable value of each bit, which is what det-st trains; \
         the rate is the median over all steps of a run, of both phases"
            .into(),
    );
    if let Some(loss) = runs.groups.values().find_map(|g| g.first().metric("unigram_loss")) {
        notes.push(format!(
            "A code that says nothing comes to {loss:.1} in training: the frequencies of the words alone"
        ));
    }
    if runs.groups.keys().any(|k| k.2.ends_with("control")) {
        notes
            .push("control: the second phase goes on with the estimator itself, Adam started afresh as for ARM".into());
    }
    Table {
        name: "training".into(),
        title: "Reconstruction loss before and after the correction by ARM".into(),
        columns: columns.map(String::from).to_vec(),
        rows: rows.collect(),
        notes,
    }
}

/// One row an estimator, for each number of bits the precision before and after the correction.
fn retrieval(runs: &Runs) -> Table {
    let bits = runs.bits();
    let mut names: Vec<(usize, String)> = runs.groups.keys().map(|k| (k.1, k.2.clone())).collect();
    names.sort();
    names.dedup();
    let mut columns = vec!["estimator".to_string()];
    for n in &bits {
        columns.extend([format!("{n} bits, before"), format!("{n} bits, after"), format!("{n} bits, codes")]);
    }
    let row = |name: &String| {
        let mut row = vec![name.clone()];
        for n in &bits {
            row.push(cell(runs.spread(*n, name, "precision_at_100_before_correction"), 3));
            row.push(cell(runs.spread(*n, name, "precision_at_100"), 3));
            row.push(cell(runs.spread(*n, name, "distinct_codes"), 0));
        }
        row
    };
    let rows = names.iter().map(|(_, name)| row(name)).collect();
    let notes = vec![
        "Share of the query's group among the 100 training documents whose codes are nearest in Hamming distance to a test \
         document's; each bit its more probable value; ties as if drawn at random. Chance is 0.05"
            .to_string(),
        "Codes: different ones among the training documents, after the correction".to_string(),
    ];
    Table { name: "retrieval".into(), title: "Precision at 100 by group".into(), columns, rows, notes }
}

/// How far the reference itself is from the gradient, and what is done about it.
fn own_error(rows: &[&Row]) -> String {
    let each = rows.iter().filter(|r| r.method == "arm");
    let each = each.map(|r| format!("cosine {:.3} at epoch {}", r.ceiling, r.epoch)).collect::<Vec<_>>().join("; ");
    format!(
        "The true gradient and the reference, by the reference's two halves: {each}. All figures are freed from that error: the cosine \
         can be 1, and exceed it by chance"
    )
}

/// A metric of a row: its value and the interval of the trials.
type Metric = fn(&Row) -> (f64, Option<(f64, f64)>);

/// Three tables for each number of bits, one a metric: estimators down, epochs of ARM's run across.
fn accuracy(runs: &Runs) -> Vec<Table> {
    let metrics: [(&str, &str, usize, Metric); 3] = [
        ("cosine", "Cosine with the gradient (Eq. 61)", 2, |r| (r.cosine, r.cosine_band)),
        ("improvement", "Expected improvement, lower is better (Eq. 66)", 2, |r| (r.improvement, r.improvement_band)),
        ("rmse", "RMSE (Eq. 67)", 1, |r| (r.rmse, r.rmse_band)),
    ];
    let mut tables = vec![];
    for (bits, all) in &runs.accuracy {
        let mut rows: Vec<&Row> = all.iter().collect();
        rows.sort_by_key(|r| (r.epoch, rank(&r.method)));
        let mut epochs: Vec<i64> = rows.iter().map(|r| r.epoch).collect();
        epochs.dedup();
        let per_epoch = |name: &str, cell: &dyn Fn(&Row) -> String| {
            let of =
                |e: &i64| rows.iter().find(|r| r.epoch == *e && r.method == name).map(|r| cell(r)).unwrap_or_default();
            epochs.iter().map(of).collect::<Vec<_>>()
        };
        let line = |head: &str, cells: Vec<String>| std::iter::once(head.to_string()).chain(cells).collect::<Vec<_>>();
        for (name, title, digits, metric) in &metrics {
            let cell = |r: &Row| match metric(r) {
                (x, Some((low, high))) => format!("{x:.digits$} [{low:.digits$}, {high:.digits$}]"),
                (x, None) => format!("{x:.digits$}"),
            };
            let mut lines: Vec<Vec<String>> = ORDER
                .iter()
                .map(|m| line(m, per_epoch(m, &cell)))
                .filter(|l| l[1..].iter().any(|c| !c.is_empty()))
                .collect();
            if *name == "improvement" {
                lines.push(line("at best", per_epoch("arm", &|r| format!("{:.digits$}", -r.norm))));
            }
            let heads = epochs.iter().map(|e| format!("epoch {e}")).collect();
            let mut notes = vec![own_error(&rows)];
            notes.extend(measured_how(&rows));
            tables.push(Table {
                name: format!("{name}-{bits}"),
                title: format!("{title} along ARM's run, {bits} bits"),
                columns: line("estimator", heads),
                rows: lines,
                // the same for all three
                notes: if *name == "cosine" { notes } else { vec![] },
            });
        }
    }
    tables
}

/// Of what, how often and in which arithmetic.
fn measured_how(rows: &[&Row]) -> Option<String> {
    let (first, last) = (rows.first()?, rows.last()?);
    let trials = |r: &Row| format!("{} {}", r.method, r.trials);
    let trials: Vec<String> = rows.iter().filter(|r| r.epoch == last.epoch).map(|r| trials(r)).collect();
    Some(format!(
        "Encoder's gradient of the mean loss of {} documents in {} batch(es), one draw or pair an estimate, against ARM-{}; [the central \
         70 % of the trials], their number: {}; output layer of the measurement: {}",
        first.documents,
        first.batches,
        first.reference,
        trials.join(", "),
        format!("{:?}", first.precision).to_lowercase()
    ))
}
