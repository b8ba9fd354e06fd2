//! Which published entry a run of `sbn-vae` stands beside, and what keeps the two from being compared.
//!
//! A preset is the published model and its training, so an entry is compared with runs of its preset alone, by its own
//! evaluation, with nothing changed beside the preset, after the published length.
use super::published::{self, Table};
use super::runs::{Group, Run};
use super::table::number;
use serde_json::Value;

/// The published table of a metric, and the column there. Table 6 of Liu et al. 2023 has two halves of different settings:
/// ReinMax's row is of its authors' preset and their moving mean, the others of the preset and the frozen evaluation of
/// RODEO's.
pub(super) fn reference(run: &Run, metric: &str) -> Option<(&'static Table, String)> {
    let (preset, dataset) = (run.setting("preset")?, run.setting("dataset")?);
    let estimator = run.setting("estimator")?;
    let of = |prefix: &str, number: u32| {
        published::generative().iter().find(|t| t.table == number && t.paper.short().starts_with(prefix))
    };
    let both = format!("{preset}_{dataset}");
    let reinmax = estimator == "reinmax";
    let (table, column) = match (preset.as_str(), metric) {
        ("reinmax-2x200", "train_neg_elbo") if reinmax => (published::table(6), table6_column(run, &dataset)?),
        ("rodeo-2x200", "frozen_neg_elbo") if !reinmax => (published::table(6), table6_column(run, &dataset)?),
        ("gsb-sbn1" | "gsb-sbn2" | "gsb-vae", "test_neg_log_likelihood") => (of("GSB", 1), both),
        ("gsb-cat1" | "gsb-cat-vae", "test_neg_log_likelihood") => (of("GSB", 2), both),
        ("gsb-cat1" | "gsb-cat-vae", "epoch_s") => (of("GSB", 3), preset),
        ("foust-2" | "foust-5", "epoch_s") => (of("FouST", 1), preset),
        ("foust-2" | "foust-3" | "foust-8" | "foust-20", "test_neg_elbo") => (of("FouST", 2), preset),
        _ => return None,
    };
    let theirs = |t: &&Table| t.conditions.get("dataset").and_then(Value::as_str).is_none_or(|d| d == dataset);
    table.filter(|t| t.columns.contains(&column)).filter(theirs).map(|t| (t, column))
}

/// Data set and evaluations of f a step: the number of draws, or three for RELAX, which has no choice.
fn table6_column(run: &Run, dataset: &str) -> Option<String> {
    let three = || (run.setting("estimator").as_deref() == Some("relax")).then(|| "3".to_string());
    Some(format!("{}_k{}", dataset.replace('-', "_"), run.setting("samples").or_else(three)?))
}

/// Epochs of the published runs, where they depend on the data set.
pub(super) fn epochs(run: &Run, table: &Table) -> Option<f64> {
    table.conditions.get("epochs")?.get(run.setting("dataset")?)?.as_f64()
}

/// What is not as published.
pub(super) fn objections(group: &Group, table: &Table) -> Vec<String> {
    let run = group.first();
    let mut all = vec![];
    if table.unit == "s" {
        let machine = table.conditions.get("machine").and_then(Value::as_str).unwrap_or("not stated which");
        all.push(format!("seconds of another machine ({machine}); ratios are in the table of the cost"));
    } else {
        all.extend(length(group, table));
    }
    match group.runs.iter().map(|r| r.beside_preset.as_deref()).collect::<Option<Vec<_>>>() {
        Some(lists) => all.extend(lists.first().into_iter().flat_map(|l| l.iter().cloned())),
        None => all.push("a run does not say what it changed of the preset".into()),
    }
    let integer = |key: &str| run.config.get(key).and_then(Value::as_i64);
    if let (Some(theirs), Some(ours)) =
        (table.conditions.get("ll_samples").and_then(Value::as_i64), integer("ll_samples"))
        && ours != theirs
    {
        all.push(format!("likelihood by {ours} samples, paper {theirs}"));
    }
    if table.paper.short().starts_with("GSB") && table.unit != "s" {
        all.push("the paper does not state binarisation and scaling of the pixels".into());
    }
    if table.paper.short().starts_with("FouST")
        && let Some(draws) = integer("samples").filter(|n| *n != 1)
    {
        all.push(format!("{draws} draws a step, paper 1"));
    }
    if table.table == 6 && run.setting("estimator").as_deref() == Some("relax") {
        all.push("RELAX's control variate learns by other settings than in the published runs (README)".into());
    }
    all
}

/// Why the length is not the published one.
fn length(group: &Group, table: &Table) -> Option<String> {
    if let Some(theirs) = epochs(group.first(), table) {
        return match group.epochs() {
            None => Some("epochs differ between seeds".into()),
            Some(ours) if ours == theirs => None,
            Some(ours) => Some(format!("{} epochs, paper {}", number(ours, None), number(theirs, None))),
        };
    }
    match table.conditions.get("steps").and_then(Value::as_i64) {
        None => Some("the paper does not say for how many epochs".into()),
        Some(theirs) => {
            let other = group.outcomes().map(|o| o.steps).find(|&s| s != theirs)?;
            Some(format!("{other} of {theirs} steps"))
        }
    }
}
