//! `stochbp tables`: means over seeds of finished runs, the paper's claims beside them, and the curves.
use crate::{claims, curves};
use std::collections::{BTreeMap, BTreeSet};
use thruway::error::{Error, Result};
use thruway::report::TablesArgs;
use thruway::report::markdown::fill_file;
use thruway::report::runs::{Group, find, group};
use thruway::report::stats::Spread;
use thruway::report::table::Table;

/// The runs that solve one problem, by estimator.
pub struct Problem {
    /// `quadratic-10`, `logistic-standard-once-0.1`: the file names and markers.
    pub name: String,
    /// `d = 10`, or the settings of the logistic problem.
    pub title: String,
    /// Problem 1 and 2, or the logistic one.
    pub family: String,
    /// The settings in which it differs from other runs of the same problem, as `steps 1000, lr 0.01`; empty without such runs.
    pub apart: String,
    /// In the order of [`ORDER`]; no label twice.
    pub groups: Vec<(String, Group)>,
}

/// Labels of estimators as they stand in tables and legends.
pub const ORDER: [&str; 9] =
    ["stochbp", "stochbp N=4", "stochbp N=8", "stochbp N=16", "score", "pathwise", "weak", "measure-valued", "exact"];

impl Problem {
    /// The runs of one estimator.
    pub fn get(&self, estimator: &str) -> Option<&Group> {
        self.groups.iter().find(|(name, _)| name == estimator).map(|(_, g)| g)
    }

    /// A final metric over the seeds of one estimator.
    pub fn spread(&self, estimator: &str, metric: &str) -> Option<Spread> {
        spread(self.get(estimator)?, metric)
    }

    /// By seed, the mean over the run of an estimator's log variance at the parameters of the run that probes them all.
    pub fn probed(&self, estimator: &str) -> Option<Vec<f64>> {
        let metric = format!("mean_log_variance_{}", estimator.replace(" N=", "_").replace('-', "_"));
        ["exact", "pathwise"].iter().find_map(|prober| self.get(prober)?.values(&metric))
    }

    /// Its mean and spread over the seeds.
    fn at_the_probers(&self, estimator: &str) -> Option<Spread> {
        Spread::of(&self.probed(estimator)?)
    }

    /// What is minimised, at the end or as a mean over the run's log points: the loss, or minus the evidence lower bound.
    pub fn goal(&self) -> &'static str {
        if self.family == "logistic" { "elbo" } else { "expected_loss" }
    }

    /// All estimators there are.
    pub fn estimators(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(name, _)| name.as_str())
    }
}

/// A final metric over the seeds of a group.
fn spread(g: &Group, metric: &str) -> Option<Spread> {
    Spread::of(&g.values(metric)?)
}

/// The subcommand.
pub fn run(args: &TablesArgs) -> Result<()> {
    let (groups, unfinished) = group(find(&args.page.runs)?)?;
    for run in &unfinished {
        eprintln!("{}: not finished, left out", run.dir.display());
    }
    let problems = problems(groups)?;
    let mut tables = all(&problems);
    tables.push(claims::table(&problems));
    for table in &tables {
        println!("{}", table.text());
    }
    if let Some(file) = &args.page.markdown {
        println!("{}: {} tables filled", file.display(), fill_file(file, &tables)?);
    }
    if let Some(dir) = &args.figures {
        let figures = curves::figures(&problems)?;
        if figures.is_empty() {
            eprintln!("--figures: no run given has a metrics.jsonl with two log points, so nothing is drawn");
            return Ok(());
        }
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        for (name, svg) in figures {
            let path = dir.join(name);
            std::fs::write(&path, svg).map_err(Error::io(&path))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// Settings that a problem's title or a row's label has, and the data set, which goes with the problem.
const NAMED: [&str; 9] =
    ["problem", "dataset", "dim", "features", "kl", "initial_scale", "estimator", "order", "divergence"];

/// Sorted by family, then dimension or settings. Runs of one problem that differ in anything else (length, rate, draws ...) are
/// problems of their own, so that what stands side by side differs in its estimator alone.
fn problems(groups: Vec<Group>) -> Result<Vec<Problem>> {
    let mut found: BTreeMap<(String, i64, String), Problem> = BTreeMap::new();
    for g in groups {
        let run = g.first();
        let of = |key: &str| run.setting(key).unwrap_or_default();
        let family = of("problem");
        if run.family != "stochbp" || family.is_empty() {
            let reason = format!("is a run of {}, not of stochbp", run.family);
            return Err(Error::Run { dir: run.dir.clone(), reason, remedy: "give runs of stochbp alone".into() });
        }
        let (title, dim, name) = match family.as_str() {
            "logistic" => {
                let (features, kl, scale) = (of("features"), of("kl"), of("initial_scale"));
                let scale = scale.trim_end_matches(".0").to_string();
                let title = format!("features {features}, KL counted {kl}, scales from {scale}");
                (title, 0, format!("logistic-{features}-{kl}-{scale}"))
            }
            toy => (format!("d = {}", of("dim")), of("dim").parse().unwrap_or(0), format!("{toy}-{}", of("dim"))),
        };
        let mut label = of("estimator");
        label += &run.setting("order").map(|n| format!(" N={n}")).unwrap_or_default();
        // exponential after quadratic: problem 2 after problem 1
        let place = if family == "exponential" { "problem 2".to_string() } else { format!("problem {family}") };
        let place = if family == "quadratic" { "problem 1".to_string() } else { place };
        let apart = String::new();
        let problem =
            found.entry((place, dim, name.clone())).or_insert(Problem { name, title, family, apart, groups: vec![] });
        problem.groups.push((label, g));
    }
    let rank = |label: &str| ORDER.iter().position(|o| *o == label).unwrap_or(ORDER.len());
    let mut all: Vec<Problem> = found.into_values().flat_map(split).collect();
    for p in &mut all {
        p.groups.sort_by_key(|(label, _)| rank(label));
        tell_apart(&mut p.groups);
    }
    Ok(all)
}

/// Every setting of a group that a title does not have, and the kind of device.
fn others(g: &Group) -> BTreeMap<String, String> {
    let run = g.first();
    let keys = run.config.keys().filter(|key| !NAMED.contains(&key.as_str()));
    let mut all: BTreeMap<String, String> =
        keys.map(|key| (key.clone(), run.setting(key).unwrap_or_default())).collect();
    all.insert("device".into(), run.device_kind().into());
    all
}

/// One problem for each of the values that its groups' other settings have.
fn split(problem: Problem) -> Vec<Problem> {
    let settings: Vec<_> = problem.groups.iter().map(|(_, g)| others(g)).collect();
    let keys: BTreeSet<&String> = settings.iter().flat_map(|s| s.keys()).collect();
    let differ: Vec<&String> =
        keys.into_iter().filter(|k| settings.iter().any(|s| s.get(*k) != settings[0].get(*k))).collect();
    let value =
        |s: &BTreeMap<String, String>, k: &str| s.get(k).filter(|v| !v.is_empty()).cloned().unwrap_or("unset".into());
    let mut parts: Vec<(Vec<String>, Problem)> = vec![];
    for (group, s) in problem.groups.into_iter().zip(&settings) {
        let values: Vec<String> = differ.iter().map(|k| value(s, k)).collect();
        if let Some((_, part)) = parts.iter_mut().find(|(v, _)| *v == values) {
            part.groups.push(group);
            continue;
        }
        let words: Vec<String> =
            differ.iter().zip(&values).map(|(k, v)| format!("{} {v}", k.replace('_', " "))).collect();
        let (name, title, family) = (problem.name.clone(), problem.title.clone(), problem.family.clone());
        let mut part = Problem { name, title, family, apart: words.join(", "), groups: vec![group] };
        for word in &words {
            part.title += &format!(", {word}");
            part.name += &format!("-{}", word.replace(' ', "-"));
        }
        parts.push((values, part));
    }
    // 500 before 1000
    let order =
        |v: &[String]| v.iter().map(|v| (v.parse::<f64>().unwrap_or(f64::INFINITY), v.clone())).collect::<Vec<_>>();
    parts.sort_by(|(a, _), (b, _)| order(a).partial_cmp(&order(b)).unwrap_or(std::cmp::Ordering::Equal));
    parts.into_iter().map(|(_, part)| part).collect()
}

/// What can still be alike is a label with another `--divergence`, which changes no number of a run that finished.
fn tell_apart(groups: &mut [(String, Group)]) {
    let labels: Vec<String> = groups.iter().map(|(label, _)| label.clone()).collect();
    for (label, g) in groups {
        if labels.iter().filter(|l| *l == label).count() > 1 {
            *label += &format!(", {}", g.first().setting("divergence").unwrap_or_default());
        }
    }
}

/// `mean ± std` to four digits after the point, or a power where that shows nothing; what is rounding is 0.
pub fn cell(s: Option<Spread>) -> String {
    let number = |x: f64| if (1e-12..5e-4).contains(&x.abs()) { format!("{x:.2e}") } else { format!("{x:.4}") };
    match s {
        Some(Spread { mean, std: Some(std), .. }) => format!("{} ± {}", number(mean), number(std)),
        Some(Spread { mean, .. }) => number(mean),
        None => String::new(),
    }
}

/// Logarithms and growths: two digits after the point.
fn short(s: Option<Spread>) -> String {
    match s {
        Some(Spread { mean, std: Some(std), .. }) => format!("{mean:.2} ± {std:.2}"),
        Some(Spread { mean, .. }) => format!("{mean:.2}"),
        None => String::new(),
    }
}

/// One table for each toy problem with all d, one for each setting of the logistic problem.
fn all(problems: &[Problem]) -> Vec<Table> {
    let variance = ["log variance, first step", "mean over its run", "at the prober's parameters"];
    let text = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
    let mut tables = vec![];
    for family in ["quadratic", "exponential"] {
        let own: Vec<&Problem> = problems.iter().filter(|p| p.family == family).collect();
        let head = ["d", "estimator", "seeds", "steps", "expected loss at the end", "mean over the run"];
        let mut rows = vec![];
        for p in &own {
            for (name, g) in &p.groups {
                let run = g.first();
                let d = run.setting("dim").unwrap_or_default();
                let d = if p.apart.is_empty() { d } else { format!("{d}, {}", p.apart) };
                let mut row = vec![d, name.clone(), g.runs.len().to_string()];
                row.push(run.setting("steps").unwrap_or_default());
                row.extend(["expected_loss", "mean_expected_loss"].map(|m| cell(spread(g, m))));
                row.extend(["start_log_variance", "mean_log_variance"].map(|m| short(spread(g, m))));
                row.push(short(p.at_the_probers(name)));
                rows.push(row);
            }
        }
        let columns = text(&[&head[..], &variance].concat());
        if !rows.is_empty() {
            tables.push(Table {
                name: family.into(),
                title: format!("{family} problem"),
                columns,
                rows,
                notes: vec![],
            });
        }
    }
    for p in problems.iter().filter(|p| p.family == "logistic") {
        let head = ["estimator", "seeds", "steps", "ELBO at the end", "mean over the run", "accuracy at the end"];
        let trained = p.groups.iter().map(|(name, g)| {
            let mut row = vec![name.clone(), g.runs.len().to_string(), g.first().setting("steps").unwrap_or_default()];
            row.extend(["elbo", "mean_elbo", "accuracy"].map(|m| cell(spread(g, m))));
            row.extend(["start_log_variance", "mean_log_variance"].map(|m| short(spread(g, m))));
            row.push(short(p.at_the_probers(name)));
            row.push(short(spread(g, "mean_growth")));
            row
        });
        // what is only probed
        let rest = ORDER.into_iter().filter(|name| p.get(name).is_none()).filter_map(|name| {
            let mut row = vec![String::new(); head.len() + variance.len() + 1];
            row[0] = name.into();
            row[head.len() + variance.len() - 1] = short(Some(p.at_the_probers(name)?));
            Some(row)
        });
        let columns = text(&[&head[..], &variance, &["growth of the series"]].concat());
        tables.push(Table {
            name: p.name.clone(),
            title: p.title.clone(),
            columns,
            rows: trained.chain(rest).collect(),
            notes: vec![],
        });
    }
    tables
}
