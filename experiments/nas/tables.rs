//! `nas tables`: means over seeds of finished runs, Table 4 beside them, and the curves.
use crate::curves;
use serde_json::{Map, Value, json};
use thruway::data::nats_bench::Task;
use thruway::error::{Error, Result};
use thruway::estimators::{Estimator, GradEstimator, Knobs};
use thruway::report::TablesArgs;
use thruway::report::markdown::fill_file;
use thruway::report::published;
use thruway::report::runs::{Group, Run, find, group};
use thruway::report::stats::Spread;
use thruway::report::table::Table;

/// The subcommand.
pub fn run(args: &TablesArgs) -> Result<()> {
    // a probe changes no number of the search, so that its runs would be taken for repetitions of the others
    let (probing, plain): (Vec<Run>, Vec<Run>) = find(&args.page.runs)?.into_iter().partition(probes_too);
    let (mut groups, unfinished) = group(plain)?;
    groups.extend(group(probing)?.0);
    for run in &unfinished {
        eprintln!("{}: not finished, left out", run.dir.display());
    }
    if let Some(other) =
        groups.iter().map(Group::first).find(|r| !["nas", "nas-surrogate"].contains(&r.family.as_str()))
    {
        let reason = format!("is a run of {}, not a search", other.family);
        return Err(Error::Run { dir: other.dir.clone(), reason, remedy: "give searches of nas alone".into() });
    }
    let tables = [
        surrogate(&groups, "accuracy"),
        surrogate(&groups, "log-error"),
        probes(&groups),
        searches(&groups),
        table4(&groups),
    ];
    for table in tables.iter().filter(|t| !t.rows.is_empty()) {
        println!("{}", table.text());
    }
    if let Some(file) = &args.page.markdown {
        println!("{}: {} tables filled", file.display(), fill_file(file, &tables)?);
    }
    if let Some(dir) = &args.figures {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        for (name, svg) in curves::figures(&groups)? {
            let path = dir.join(name);
            std::fs::write(&path, svg).map_err(Error::io(&path))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// Whether a run also measured every estimator.
fn probes_too(run: &Run) -> bool {
    run.metric("mean_gradient").is_some()
}

/// The searches of the table with one objective, probes apart, each with its label, in the order of the registry.
pub fn surrogates<'a>(groups: &'a [Group], objective: &str) -> Vec<(String, &'a Group)> {
    let own = groups.iter().filter(|g| {
        let run = g.first();
        let has = |key: &str, value: &str| run.setting(key).as_deref() == Some(value);
        run.family == "nas-surrogate" && has("objective", objective) && !probes_too(run)
    });
    let mut all: Vec<(usize, String, &Group)> = own
        .map(|g| {
            let run = g.first();
            let estimator = run.setting("estimator");
            let order = |name: &String| Estimator::ALL.iter().position(|e| e.name() == *name);
            let place = match &estimator {
                // the yardstick first, searches without a gradient last
                Some(name) if name == "exact" => 0,
                Some(name) => 1 + order(name).unwrap_or(100),
                None => 1000,
            };
            let mut label = estimator.unwrap_or_else(|| run.setting("search").unwrap_or_default());
            for key in ["tau", "samples", "gap", "decay"] {
                label += &run.setting(key).map(|v| format!(", {key} {v}")).unwrap_or_default();
            }
            (place, label, g)
        })
        .collect();
    all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    all.into_iter().map(|(_, label, g)| (label, g)).collect()
}

fn spread(g: &Group, metric: &str, digits: usize) -> String {
    match g.values(metric).and_then(|v| Spread::of(&v)) {
        Some(Spread { mean, std: Some(std), .. }) => format!("{mean:.digits$} ± {std:.digits$}"),
        Some(Spread { mean, .. }) => format!("{mean:.digits$}"),
        None => String::new(),
    }
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| n.to_string()).collect()
}

fn surrogate(groups: &[Group], objective: &str) -> Table {
    let row = |(label, g): (String, &Group)| {
        let estimator = g.first().setting("estimator");
        let evaluations = estimator.and_then(|e| Estimator::by_name(&e).ok()).map_or("1", |e| e.claims().f_evals);
        let found = g.values("found_best").map(|v| format!("{}", v.iter().sum::<f64>()));
        let mut row = vec![label, evaluations.into(), g.runs.len().to_string(), spread(g, "regret", 2)];
        row.push(found.unwrap_or_default());
        row.extend(["mean_regret", "test_regret", "expected", "entropy"].map(|m| spread(g, m, 2)));
        row
    };
    Table {
        name: if objective == "accuracy" { "surrogate".into() } else { format!("surrogate-{objective}") },
        title: format!("search on the table, objective {objective}"),
        columns: columns(&[
            "search",
            "evaluations a step",
            "seeds",
            "regret at the end, points",
            "seeds that met the best cell",
            "mean regret over the run",
            "test regret at the end",
            "expected accuracy, %",
            "entropy, nats",
        ]),
        rows: surrogates(groups, objective).into_iter().map(row).collect(),
        notes: vec![],
    }
}

/// Whether an estimator adapts something of its own while it is used; a probe builds it anew.
fn learns(e: Estimator) -> bool {
    e.build(&Knobs::default()).is_ok_and(|built| !built.parameters().is_empty() || !built.buffers().is_empty())
}

/// Of every estimator, along the exact searches that probe.
fn probes(groups: &[Group]) -> Table {
    let mut rows = vec![];
    for g in groups.iter().filter(|g| probes_too(g.first())) {
        for e in Estimator::ALL {
            let metric = |what: &str| format!("mean_{what}_{}", e.name().replace('-', "_"));
            if g.values(&metric("bias")).is_none() {
                continue;
            }
            let name = e.name() + if learns(*e) { ", untrained" } else { "" };
            let mut row = vec![g.first().setting("objective").unwrap_or_default(), name, g.runs.len().to_string()];
            row.extend(["bias", "std", "rmse", "cosine"].map(|what| {
                let s = g.values(&metric(what)).and_then(|v| Spread::of(&v));
                s.map(|s| if s.mean.abs() < 1e-9 { "0".into() } else { format!("{:.3}", s.mean) }).unwrap_or_default()
            }));
            rows.push(row);
        }
    }
    let note = "untrained: a probe builds each estimator anew, so that what these adapt while they are used (nvil its baseline, \
                double-cv the weight of its second control variate) stands at its start, where nvil is reinforce and double-cv is \
                rloo; the searches above show them at work";
    let notes = rows.iter().any(|r| r[1].ends_with("untrained")).then(|| note.to_string()).into_iter().collect();
    Table {
        name: "probe".into(),
        title: "estimates against the exact gradient, along exact searches".into(),
        columns: columns(&[
            "objective",
            "estimator",
            "seeds",
            "bias",
            "standard deviation",
            "RMSE",
            "cosine of the mean",
        ]),
        rows,
        notes,
    }
}

fn images(groups: &[Group]) -> impl Iterator<Item = &Group> {
    groups.iter().filter(|g| g.first().family == "nas")
}

fn label(g: &Group) -> String {
    let run = g.first();
    run.setting("estimator").unwrap_or("soft (DARTS)".into())
}

/// A line a run: no mean, since a cell has none.
fn searches(groups: &[Group]) -> Table {
    let mut rows = vec![];
    for g in images(groups) {
        for run in &g.runs {
            let of = |key: &str| run.setting(key).unwrap_or_default();
            let metric = |name: &str| run.metric(name).map(|v| format!("{v:.2}")).unwrap_or_default();
            let rank = run.metric("cifar10_rank").map(|v| format!("{v}")).unwrap_or_default();
            let outcome = run.outcome.as_ref();
            let cell = outcome.and_then(|o| o.metrics.get("cell")).and_then(|c| c.as_str()).unwrap_or_default();
            rows.push(vec![
                label(g),
                of("activation"),
                of("dataset"),
                format!("{} + {}", of("train_size"), of("valid_size")),
                format!("{} x {}", of("channels"), of("cells")),
                outcome.map(|o| o.epochs.to_string()).unwrap_or_default(),
                run.seed.to_string(),
                format!("`{cell}`"),
                metric("cifar10_test"),
                metric("cifar10_regret"),
                rank,
                metric("cifar100_test"),
                metric("imagenet16_test"),
                metric("entropy"),
            ]);
        }
    }
    Table {
        name: "search".into(),
        title: "searches on images".into(),
        columns: columns(&[
            "estimator",
            "activation",
            "images",
            "halves",
            "channels x cells",
            "epochs",
            "seed",
            "cell",
            "CIFAR-10, %",
            "regret",
            "rank",
            "CIFAR-100, %",
            "ImageNet16-120, %",
            "entropy, nats",
        ]),
        rows,
        notes: vec![],
    }
}

/// Whether a run with this configuration is the published search: every setting as published (Section 6.4; `--preset`), and no fewer epochs.
fn as_published(config: &Map<String, Value>, name: &str) -> bool {
    let (tau, decay) = if name == "stgs" { ("linear:10:0.1:", 1e-3) } else { ("1", 0.09) };
    let tau_holds = |t: &str| if name == "stgs" { t.starts_with(tau) } else { t == tau };
    let same = json!({
        "estimator": name, "soft": false, "activation": "published", "augment": "flip-crop", "steps": null,
        "train_size": 25_000, "valid_size": 25_000, "channels": 16, "cells": 5, "batch_size": 64,
        "lr": 0.025, "lr_min": 0.001, "weight_decay": 5e-4, "arch_lr": 3e-4, "arch_weight_decay": decay,
    });
    let value = |key: &str| config.get(key).unwrap_or(&Value::Null);
    same.as_object().expect("an object").iter().all(|(key, want)| value(key) == want)
        && value("tau").as_str().is_some_and(tau_holds)
        && value("epochs").as_i64().is_some_and(|n| n >= 100)
        && value("dataset").as_str().is_some_and(|d| d.starts_with("cifar10"))
}

/// The published test accuracies, and ours from searches with the published settings: a row for each length and edition of
/// the images.
fn table4(groups: &[Group]) -> Table {
    let mut rows = vec![];
    for name in ["stgs", "reinmax"] {
        let mut own: Vec<_> = images(groups).filter(|g| as_published(&g.first().config, name)).map(Some).collect();
        if own.is_empty() {
            own.push(None);
        }
        for (own, (task, column)) in own
            .into_iter()
            .flat_map(|g| Task::ALL.iter().zip(["cifar10", "cifar100", "imagenet16_120"]).map(move |t| (g, t)))
        {
            let cell = |split: &str| {
                let cell = published::cell(4, &format!("{column}_{split}"), name);
                cell.map(|c| format!("{:.2} ± {:.2}", c.mean, c.std.unwrap_or(0.0))).unwrap_or_default()
            };
            let said = |key: &str| own.and_then(|g| g.first().setting(key)).unwrap_or_default();
            rows.push(vec![
                name.into(),
                task.to_string(),
                cell("valid"),
                cell("test"),
                own.map(|g| spread(g, &format!("{task}_test"), 2)).unwrap_or_default(),
                own.map(|g| g.runs.len().to_string()).unwrap_or_default(),
                said("epochs"),
                said("dataset"),
            ]);
        }
    }
    Table {
        name: "table4".into(),
        title: "Table 4 of Liu et al. 2023, accuracy in percent".into(),
        columns: columns(&[
            "estimator",
            "images",
            "published, validation",
            "published, test",
            "ours, test",
            "our seeds",
            "our epochs",
            "our search's images",
        ]),
        rows,
        notes: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration that `--preset gdas-published` and `--preset reinmax` write; any other value of any setting is refused.
    #[test]
    fn nas_table_4_takes_published_settings_only() {
        let whole = |name: &str| {
            let (tau, decay) = if name == "stgs" { ("linear:10:0.1:99", 1e-3) } else { ("1", 0.09) };
            let config = json!({
                "preset": null, "soft": false, "estimator": name, "tau": tau, "samples": null, "gap": null,
                "activation": "published", "augment": "flip-crop", "train_size": 25000, "valid_size": 25000, "eval_size": 1000,
                "channels": 16, "cells": 5, "batch_size": 64, "epochs": 100, "steps": null, "lr": 0.025, "lr_min": 0.001,
                "weight_decay": 0.0005, "arch_lr": 0.0003, "arch_weight_decay": decay, "dataset": "cifar10-jpeg",
            });
            config.as_object().unwrap().clone()
        };
        for name in ["stgs", "reinmax"] {
            let right = whole(name);
            assert!(as_published(&right, name));
            let wrong = json!({
                "soft": true, "estimator": "st", "tau": "0.5", "activation": "full", "augment": "none", "train_size": 24999,
                "valid_size": 25001, "channels": 17, "cells": 6, "batch_size": 128, "epochs": 99, "steps": 10, "lr": 0.05,
                "lr_min": 0.0, "weight_decay": 0.0, "arch_lr": 5.0, "arch_weight_decay": 0.0, "dataset": "synthetic",
            });
            for (key, value) in wrong.as_object().unwrap() {
                let mut config = right.clone();
                config[key] = value.clone();
                assert!(!as_published(&config, name), "{name} with {key} {value}");
            }
        }
    }
}
