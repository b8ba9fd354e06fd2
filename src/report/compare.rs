//! From groups of runs to tables: ours beside the published, with its conditions, and a z only where it means something.
use super::generative;
use super::published;
use super::runs::{Group, Run, show};
use super::stats::Spread;
use super::table::{Table, mean_std, number};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Settings that say how a problem was solved; all others say which problem it was.
const METHOD: &[&str] = &[
    "estimator",
    "tau",
    "samples",
    "gap",
    "decay",
    "interval",
    "scale",
    "kl",
    "order",
    "optimizer",
    "lr",
    "cv_lr",
    "batch_size",
    "batches",
    "epochs",
    "steps",
    "preset",
    // of stochastic binary networks
    "tanh_scale",
    "head",
    "published_head",
    "constant",
    "baseline",
    "psa_backend",
    "psa_tol",
    "grad_clamp",
    "lr_trials",
    "lr_epochs",
    "lr_steps",
    "lr_objective",
];

/// All runs of one experiment.
#[derive(Debug)]
pub struct Family {
    /// `vae`, `poly` ...
    pub name: String,
    /// What was solved, one entry a problem.
    pub problems: Vec<Problem>,
    /// The runs that did not finish.
    pub unfinished: Vec<Run>,
}

/// Runs whose results may stand in one table.
#[derive(Debug)]
pub struct Problem {
    /// Stem of the names of its tables: `vae-mnist-8x4`.
    pub name: String,
    /// Heading: `vae mnist 8x4`.
    pub title: String,
    /// Groups, in the order of the paper's rows.
    pub groups: Vec<Group>,
}

/// Sorts groups and unfinished runs by family and problem.
pub fn families(groups: Vec<Group>, unfinished: Vec<Run>) -> Vec<Family> {
    let mut by_family: BTreeMap<String, (Vec<Group>, Vec<Run>)> = BTreeMap::new();
    for group in groups {
        by_family.entry(group.first().family.clone()).or_default().0.push(group);
    }
    for run in unfinished {
        by_family.entry(run.family.clone()).or_default().1.push(run);
    }
    let family = |(name, (groups, unfinished)): (String, (Vec<Group>, Vec<Run>))| {
        let mut cohorts: BTreeMap<Option<(String, String)>, Vec<Group>> = BTreeMap::new();
        for group in groups {
            cohorts.entry(cohort(group.first())).or_default().push(group);
        }
        let mut problems: BTreeMap<String, Vec<Group>> = BTreeMap::new();
        for groups in cohorts.into_values() {
            let vary = varying(&groups);
            for group in groups {
                problems.entry(problem_title(group.first(), &vary)).or_default().push(group);
            }
        }
        let problems = problems.into_iter().map(|(title, mut groups)| {
            groups.sort_by_key(|g| rank(g.first()));
            let title = format!("{name} {title}").trim_end().to_string();
            Problem { name: slug(&title), title, groups }
        });
        Family { problems: problems.collect(), name, unfinished }
    };
    by_family.into_iter().map(family).collect()
}

/// Data set and preset, in the family whose presets are so unlike each other that the settings which tell them apart would
/// fill a heading.
fn cohort(run: &Run) -> Option<(String, String)> {
    let of = |key| run.setting(key).unwrap_or_default();
    (run.family == "sbn-vae").then(|| (of("dataset"), of("preset")))
}

/// Keys of the settings that take several values among the groups, `device` included.
fn varying(groups: &[Group]) -> BTreeSet<String> {
    let keys: BTreeSet<&String> = groups.iter().flat_map(|g| g.first().config.keys()).collect();
    let several = |key: &str| {
        let values: BTreeSet<Option<String>> = groups.iter().map(|g| g.first().setting(key)).collect();
        values.len() > 1
    };
    let mut vary: BTreeSet<String> = keys.into_iter().filter(|k| several(k)).cloned().collect();
    if groups.iter().map(|g| g.first().device_kind()).collect::<BTreeSet<_>>().len() > 1 {
        vary.insert("device".into());
    }
    vary
}

/// `8x4` for 8 classes and 4 latent variables.
fn size(run: &Run) -> Option<String> {
    Some(format!("{}x{}", run.setting("categorical_dim")?, run.setting("latent_dim")?))
}

/// Whether the run trained on the few bundled digits, where the set itself could not be had.
fn on_sample(run: &Run) -> bool {
    run.config.get("data").and_then(|d| d.get("sample")) == Some(&Value::Bool(true))
}

/// Of ListOps, units and training split, which a heading names even where all runs agree: a number on symbols, or after
/// training on drawn expressions, is none on characters or the official split.
fn units_and_split(run: &Run) -> Vec<String> {
    let split = run.setting("train_split").map(|split| format!("{split}-split"));
    split.map_or(Vec::new(), |split| run.setting("units").into_iter().chain([split]).collect())
}

fn problem_title(run: &Run, vary: &BTreeSet<String>) -> String {
    let edition = run.setting("edition");
    let model = if cohort(run).is_some() { run.setting("preset").or_else(|| size(run)) } else { size(run) };
    let sample = on_sample(run).then(|| "(bundled sample)".to_string());
    let mut parts: Vec<String> = run.setting("dataset").into_iter().chain(sample).chain(edition).chain(model).collect();
    let data = units_and_split(run);
    let said = |key: &str| !data.is_empty() && ["units", "train_split"].contains(&key);
    parts.extend_from_slice(&data);
    parts.extend(run.config.get("power").and_then(Value::as_f64).map(|p| format!("p={p}")));
    let named = ["dataset", "edition", "categorical_dim", "latent_dim", "power"];
    for (key, value) in run.config.iter().filter(|(k, v)| vary.contains(*k) && !v.is_null()) {
        if !named.contains(&key.as_str()) && !said(key) && !METHOD.contains(&key.as_str()) {
            parts.push(format!("{key}={}", show(value)));
        }
    }
    parts.join(" ")
}

fn slug(text: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || "._".contains(c) { c.to_ascii_lowercase() } else { '-' };
    text.trim().chars().map(keep).collect()
}

/// Rows in the order in which the paper prints them, then the others by name, samples and length.
fn rank(run: &Run) -> (usize, String, i64, i64, String) {
    let name = run.setting("estimator").unwrap_or_default();
    let printed = published::table(2).map(|t| t.rows.as_slice()).unwrap_or_default();
    let place = printed.iter().position(|r| *r == name).unwrap_or(printed.len());
    let integer = |key| run.config.get(key).and_then(Value::as_i64).unwrap_or_default();
    let settings = run.config.iter().map(|(k, v)| format!("{k}{v}")).collect();
    (place, name, integer("samples"), integer("epochs"), settings)
}

/// The estimator, with the number of samples where it takes one.
fn estimator(run: &Run) -> String {
    let name = run.setting("estimator").unwrap_or_else(|| run.family.clone());
    match run.setting("samples") {
        Some(samples) => format!("{name}, {samples} samples"),
        None => name,
    }
}

/// The settings that make a row: temperature, gap, optimizer, and whatever else differs between the rows.
fn settings(run: &Run, vary: &BTreeSet<String>) -> String {
    let named = |key: &str| run.setting(key).map(|v| format!("{} {v}", key.replace('_', " ")));
    let optimizer = match (run.setting("optimizer"), run.setting("lr")) {
        (Some(o), Some(lr)) => Some(format!("{o} {lr}")),
        (Some(x), None) | (None, Some(x)) => Some(x),
        (None, None) => None,
    };
    let shown = ["estimator", "samples", "tau", "gap", "optimizer", "lr", "epochs"];
    let others = vary.iter().filter(|k| !shown.contains(&k.as_str()) && METHOD.contains(&k.as_str()));
    let device = vary.contains("device").then(|| run.device_kind().to_string());
    let parts = [named("tau"), named("gap"), optimizer].into_iter().chain(others.map(|k| named(k))).flatten();
    parts.chain(device).collect::<Vec<_>>().join(", ")
}

/// The published table that a metric compares with, and the column there.
fn reference(run: &Run, metric: &str) -> Option<(&'static published::Table, String)> {
    let column = size(run);
    match (run.family.as_str(), metric) {
        ("vae", "train_neg_elbo") if column.as_deref() == Some("64x32") => Some((published::table(5)?, column?)),
        ("vae", "train_neg_elbo") => Some((published::table(2)?, column?)),
        ("vae", "test_neg_elbo") => Some((published::table(9)?, column?)),
        ("sbn-vae", _) => return generative::reference(run, metric),
        ("listops", "valid_accuracy" | "test_accuracy") => Some((published::table(1)?, metric.to_string())),
        _ => None,
    }
    .filter(|(table, column)| {
        let dataset = table.conditions.get("dataset").and_then(Value::as_str);
        table.columns.contains(column) && (dataset == run.setting("dataset").as_deref() || dataset.is_none())
    })
}

/// Why runs and published entry must not be compared, or `None`. Other data come first, whatever else differs.
fn objection(group: &Group, table: &published::Table, column: &str) -> Option<String> {
    if group.first().family == "sbn-vae" {
        let all = no_such_data(group.first()).map_or_else(|| generative::objections(group, table), |data| vec![data]);
        return (!all.is_empty()).then(|| all.join("; "));
    }
    let data = ["units", "train_split"].iter().filter_map(|k| differs(group.first(), k, table.conditions.get(*k)?));
    let all: Vec<String> = data.chain(other_settings(group, table, column)).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// A setting of the run that is not the paper's.
fn differs(run: &Run, key: &str, theirs: &Value) -> Option<String> {
    let ours = run.config.get(key).filter(|v| !v.is_null())?;
    // a temperature is text in a configuration, since it may be a schedule
    let plain = |v: &Value| v.as_f64().or_else(|| v.as_str()?.parse().ok());
    let equal = match (plain(ours), plain(theirs)) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs(),
        _ => ours == theirs,
    };
    (!equal).then(|| format!("{} {}, paper {}", key.replace('_', " "), show(ours), show(theirs)))
}

/// Settings that must be those of the published table, where it has them.
const CONDITIONS: &[&str] = &[
    "batch_size",
    "activation",
    // of ListOps
    "batches",
    "max_length",
    "embedding_dim",
    "hidden_dim",
    "leaf",
    "dropout",
    "clip",
    "lr_factor",
    "validations",
    "validate_every",
];

/// Data that no published figure is of.
fn no_such_data(run: &Run) -> Option<String> {
    if on_sample(run) {
        return Some("bundled sample, not the data set".into());
    }
    (run.setting("edition").as_deref() == Some("reconstruction")).then(|| "another edition of the data".into())
}

fn other_settings(group: &Group, table: &published::Table, column: &str) -> Option<String> {
    let run = group.first();
    if let Some(data) = no_such_data(run) {
        return Some(data);
    }
    let paper = |key: &str| table.conditions.get(key);
    if let Some(theirs) = paper("epochs").and_then(Value::as_f64) {
        match group.epochs() {
            None => return Some("epochs differ between seeds".into()),
            Some(ours) if ours < theirs => {
                return Some(format!("{} of {} epochs", number(ours, None), number(theirs, None)));
            }
            Some(ours) if ours > theirs => {
                return Some(format!("{} epochs, paper {}", number(ours, None), number(theirs, None)));
            }
            _ => {}
        }
    } else if let Some(theirs) = paper("steps").and_then(Value::as_i64)
        && let Some(ours) = group.outcomes().map(|o| o.steps).find(|&s| s != theirs)
    {
        return Some(format!("{ours} of {theirs} steps"));
    }
    let name = run.setting("estimator").unwrap_or_default();
    if name == "gst" && run.config.get("gap").and_then(Value::as_f64).is_some_and(|g| g != 1.0) {
        return Some("paper: gap 1".into());
    }
    let chosen = published::hyper(if table.table == 1 { "listops" } else { column }, &name);
    let conditions = CONDITIONS.iter().filter_map(|k| Some((*k, paper(k)?.clone())));
    let chosen = chosen
        .into_iter()
        .flat_map(|h| [("optimizer", h.optimizer.clone().into()), ("lr", h.lr.into()), ("tau", h.tau.into())]);
    let list: Vec<String> = conditions.chain(chosen).filter_map(|(key, theirs)| differs(run, key, &theirs)).collect();
    (!list.is_empty()).then(|| list.join("; "))
}

/// The published columns of a row: entry, its n, its epochs, z or why there is none; and what goes into the notes.
fn published_cells(group: &Group, metric: &str, ours: &Spread, notes: &mut Vec<String>) -> [String; 4] {
    let run = group.first();
    let none = |why: &str| [String::new(), String::new(), String::new(), why.to_string()];
    let Some((table, column)) = reference(run, metric) else { return none("nothing published") };
    let name = run.setting("estimator").unwrap_or_default();
    let samples = run.config.get("samples").and_then(Value::as_i64);
    let Some(cell) = table.cell(&column, &name, samples) else { return none("nothing published") };
    for remark in cell.doubt.iter().chain(&cell.note) {
        notes.push(format!("published {name} {column} (Table {}): {remark}", table.table));
    }
    let theirs = Spread { n: cell.n.unwrap_or(0), mean: cell.mean, std: cell.std };
    let z = if let Some(why) = objection(group, table, &column) {
        why
    } else if cell.doubt.is_some() {
        "published entry is wrong, see note".into()
    } else {
        let caveat = match (samples, table.conditions.get("samples").and_then(Value::as_i64)) {
            (Some(mine), Some(paper)) if mine != paper => format!(" at {mine} samples, paper {paper}"),
            _ => String::new(),
        };
        match ours.z(&theirs) {
            Some(z) => format!("{z:+.2}{caveat}"),
            None if ours.n < 2 => format!("n = {}", ours.n),
            None if cell.n.is_none() => "its n is not stated".into(),
            None => "no spread to divide by".into(),
        }
    };
    let epochs = generative::epochs(run, table).or(table.conditions.get("epochs").and_then(Value::as_f64));
    let n = cell.n.map_or("not stated".into(), |n| n.to_string());
    [mean_std(theirs.mean, theirs.std), n, epochs.map(|e| number(e, None)).unwrap_or_default(), z]
}

/// How a metric reads in a heading.
pub(crate) fn metric_title(family: &str, metric: &str) -> String {
    let nats = ["elbo", "loss", "bce", "kl"].iter().any(|m| metric.contains(m));
    let nats = nats || metric.contains("likelihood");
    let unit = if ["vae", "sbn-vae", "sbn-train"].contains(&family) && nats { " [nats]" } else { "" };
    format!("{}{unit}", metric.replace("neg_elbo", "−ELBO").replace('_', " "))
}

impl Problem {
    /// Names of the numeric final metrics, in order of first appearance.
    fn metrics(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in self.groups.iter().flat_map(|g| g.outcomes()).flat_map(|o| &o.metrics) {
            if value.is_number() && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    fn table(&self, what: &str, title: String, columns: &[&str]) -> Table {
        let columns = ["estimator", "settings", "n"].iter().chain(columns).map(|c| c.to_string()).collect();
        let name = format!("{}-{what}", self.name);
        Table { name, title: format!("{} {title}", self.title), columns, ..Table::default() }
    }

    fn row(&self, group: &Group, vary: &BTreeSet<String>) -> Vec<String> {
        vec![estimator(group.first()), settings(group.first(), vary), group.runs.len().to_string()]
    }

    /// All tables of the problem: a comparison for each metric that was published, the other final metrics, the cost,
    /// and every array of flat objects among the final metrics (a probe's table, say).
    pub fn tables(&self) -> Vec<Table> {
        let vary = varying(&self.groups);
        let (compared, others): (Vec<&str>, Vec<&str>) =
            self.metrics().into_iter().partition(|m| self.groups.iter().any(|g| reference(g.first(), m).is_some()));
        let mut tables: Vec<Table> = compared.iter().map(|m| self.comparison(m, &vary)).collect();
        tables.extend((!others.is_empty()).then(|| self.finals(&others, &vary)));
        tables.extend((!self.groups.is_empty()).then(|| self.cost(&vary)));
        for (group, label) in self.groups.iter().zip(self.labels()) {
            for run in &group.runs {
                let finals = run.outcome.iter().flat_map(|o| &o.metrics);
                tables.extend(finals.filter_map(|(key, value)| self.nested(&label, run.seed, key, value)));
            }
        }
        tables
    }

    /// Ours beside the published.
    fn comparison(&self, metric: &str, vary: &BTreeSet<String>) -> Table {
        let family = &self.groups[0].first().family;
        let source = self.groups.iter().find_map(|g| reference(g.first(), metric));
        let published = source.map(|(t, _)| format!("Table {} of {}", t.table, t.paper.short())).unwrap_or_default();
        let title = format!("{}, ours and {published}", metric_title(family, metric));
        let columns = ["ours, mean ± std", "epochs", "published", "its n", "its epochs", "z"];
        let mut table = self.table(metric, title, &columns);
        for group in &self.groups {
            let Some(ours) = group.values(metric).and_then(|v| Spread::of(&v)) else { continue };
            let mut row = self.row(group, vary);
            row.push(mean_std(ours.mean, ours.std));
            row.push(group.epochs().map_or("differ".into(), |e| number(e, None)));
            row.extend(published_cells(group, metric, &ours, &mut table.notes));
            table.rows.push(row);
            table.notes.extend(group.notes.iter().map(|n| format!("{}: {n}", estimator(group.first()))));
        }
        if !table.rows.iter().any(|r| r.last().is_some_and(|z| z.starts_with(['+', '-']) || z.starts_with("n = "))) {
            let why = "no run here has the published length and settings, so the two columns do not compare; \
                       a shorter run does not show the published ranking";
            table.notes.push(why.into());
        }
        table
    }

    /// Final metrics that nobody published.
    fn finals(&self, metrics: &[&str], vary: &BTreeSet<String>) -> Table {
        let family = &self.groups[0].first().family;
        let heads: Vec<String> = metrics.iter().map(|m| metric_title(family, m)).collect();
        let columns: Vec<&str> = ["epochs", "steps"].into_iter().chain(heads.iter().map(String::as_str)).collect();
        let mut table = self.table("final", "final metrics, mean ± std over seeds".into(), &columns);
        for group in &self.groups {
            let mut row = self.row(group, vary);
            row.push(group.epochs().map_or("differ".into(), |e| number(e, None)));
            let steps: BTreeSet<i64> = group.outcomes().map(|o| o.steps).collect();
            row.push(steps.iter().map(i64::to_string).collect::<Vec<_>>().join(", "));
            for metric in metrics {
                let spread = group.values(metric).and_then(|v| Spread::of(&v));
                row.push(spread.map(|s| mean_std(s.mean, s.std)).unwrap_or_default());
            }
            table.rows.push(row);
            table.notes.extend(group.notes.iter().map(|n| format!("{}: {n}", estimator(group.first()))));
        }
        table
    }

    /// Speed, time and memory; where one group is of straight-through or, failing that, of Gumbel-softmax, the time of a step
    /// over that group's too.
    fn cost(&self, vary: &BTreeSet<String>) -> Table {
        let named = |name: &str| {
            let mut groups = self.groups.iter().filter(|g| g.first().setting("estimator").as_deref() == Some(name));
            groups.next().filter(|_| groups.next().is_none()).map(|g| (name.to_string(), g))
        };
        let unit = if self.groups.len() > 1 { named("st").or_else(|| named("gumbel-softmax")) } else { None };
        let over = unit.as_ref().map(|(name, _)| format!("step time / {name}"));
        let columns = ["steps per second", "wall time [s]", "peak memory [MiB]"];
        let columns: Vec<&str> = columns.into_iter().chain(over.as_deref()).collect();
        let mut table = self.table("cost", "cost, mean ± std over seeds".into(), &columns);
        let rates = |g: &Group| g.outcomes().map(|o| o.steps_per_second).collect::<Option<Vec<f64>>>();
        for group in &self.groups {
            let mut row = self.row(group, vary);
            let mut push = |values: Option<Vec<f64>>, decimals: usize| {
                let spread = values.and_then(|v| Spread::of(&v));
                let text = |s: Spread| match s.std {
                    Some(std) => format!("{:.decimals$} ± {std:.decimals$}", s.mean),
                    None => format!("{:.decimals$}", s.mean),
                };
                row.push(spread.map(text).unwrap_or_default());
            };
            push(rates(group), 1);
            push(group.outcomes().map(|o| Some(o.wall_s)).collect(), 1);
            push(group.outcomes().map(|o| Some(o.peak_rss_bytes? as f64 / 1048576.0)).collect(), 1);
            if let Some((_, unit)) = &unit {
                let mean = rates(unit).and_then(|v| Spread::of(&v)).map(|s| s.mean);
                push(rates(group).zip(mean).map(|(v, m)| v.iter().map(|r| m / r).collect()), 2);
            }
            table.rows.push(row);
        }
        table
    }

    /// An array of flat objects as a table; `None` for anything else.
    fn nested(&self, label: &str, seed: i64, key: &str, value: &Value) -> Option<Table> {
        let objects: Vec<_> = value.as_array()?.iter().map(Value::as_object).collect::<Option<_>>()?;
        let flat = objects.iter().all(|o| o.values().all(|v| !v.is_array() && !v.is_object()));
        let mut columns: Vec<String> = Vec::new();
        for name in objects.iter().flat_map(|o| o.keys()) {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        let text = |v: &Value| match v {
            Value::Null => String::new(),
            Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or(f64::NAN), None),
            other => show(other),
        };
        let row = |o: &&serde_json::Map<String, Value>| {
            columns.iter().map(|c| o.get(c).map(text).unwrap_or_default()).collect()
        };
        let rows: Vec<Vec<String>> = objects.iter().map(row).collect();
        (flat && !rows.is_empty()).then(|| Table {
            name: slug(&format!("{} {label} {key} {seed}", self.name)).replace("--", "-"),
            title: format!("{} {key}: {label}, seed {seed}", self.title),
            columns: columns.iter().map(|c| c.replace('_', " ")).collect(),
            rows,
            notes: Vec::new(),
        })
    }

    /// One short name a group for curves and lists: the estimator, with the settings only where two groups share it.
    pub fn labels(&self) -> Vec<String> {
        let name = |g: &Group| estimator(g.first());
        let label = |group: &Group| {
            let same: Vec<Group> = self.groups.iter().filter(|g| name(g) == name(group)).cloned().collect();
            if same.len() == 1 {
                return name(group);
            }
            let vary = varying(&same);
            let of = |k: &String| {
                let value = if k == "device" { Some(group.first().device.clone()) } else { group.first().setting(k) };
                value.map(|v| format!("{} {v}", k.replace('_', " ")))
            };
            std::iter::once(name(group)).chain(vary.iter().filter_map(of)).collect::<Vec<_>>().join(", ")
        };
        self.groups.iter().map(label).collect()
    }
}

/// The runs that did not finish, with how far they came; `place` says how a path is written.
pub fn unfinished_table(family: &Family, place: &dyn Fn(&Path) -> String) -> crate::Result<Option<Table>> {
    let mut rows = Vec::new();
    for run in &family.unfinished {
        let step = run.points()?.last().map(|p| number(p.step, None)).unwrap_or("none logged".into());
        let problem = problem_title(run, &BTreeSet::new());
        let what = format!("{problem} {}", estimator(run));
        rows.push(vec![
            what.trim().into(),
            settings(run, &BTreeSet::new()),
            run.seed.to_string(),
            step,
            place(&run.dir),
        ]);
    }
    Ok((!rows.is_empty()).then(|| Table {
        name: format!("{}-unfinished", family.name),
        title: format!("{}: unfinished runs, in no average above", family.name),
        columns: ["run", "settings", "seed", "last logged step", "directory"].map(String::from).to_vec(),
        rows,
        notes: vec!["continue one with its command and --resume".into()],
    }))
}
