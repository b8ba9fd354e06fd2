//! What Section 5 and Appendix D.1 say about this experiment, held against the runs.
use crate::tables::Runs;
use thruway::report::table::Table;

/// The estimators of Table D.1 that are biased.
const BIASED: [&str; 5] = ["gumbel-softmax-1", "gumbel-softmax-0.1", "st", "det-st", "identity-st"];
/// A loss moves when it changes by more than this share.
const MOVES: f64 = 0.01;

/// Whether it holds, and the figures; `None` where the runs do not say.
type Verdict = Option<(bool, String)>;

/// All sentences that the runs can be held against.
pub fn table(runs: &Runs) -> Table {
    let bits = runs.bits();
    let mut rows = vec![];
    let mut add = |text: &str, place: String, verdict: Verdict| {
        if let Some((holds, figures)) = verdict {
            rows.push(vec![text.to_string(), place, if holds { "yes" } else { "no" }.into(), figures]);
        }
    };
    for n in &bits {
        for name in ["st", "det-st"] {
            let text = "ST and det_ST make no visible progress, or the loss rises, before the switch to ARM";
            add(text, format!("{n} bits, {name}"), stalls(runs, *n, name));
        }
        for name in ["st", "det-st"] {
            add("switching to ARM makes a rapid improvement", format!("{n} bits, {name}"), corrected(runs, *n, name));
        }
    }
    for n in bits.iter().filter(|n| **n <= 8) {
        let text = "with few bits biased estimators come to point in the wrong direction";
        add(text, format!("{n} bits"), wrong_way(runs, *n));
    }
    for n in &bits {
        let text = "identity ST and deterministic ST have an extra bias over ST: lower cosine at every measurement";
        add(text, format!("{n} bits"), extra_bias(runs, *n));
    }
    let all = bits.iter().map(i64::to_string).collect::<Vec<_>>().join(", ") + " bits";
    for name in BIASED {
        add(
            "with more bits every biased estimator becomes more accurate: cosine",
            format!("{all}, {name}"),
            by_bits(runs, name),
        );
    }
    if let Some(n) = bits.iter().rev().find(|n| **n >= 256) {
        let text = "with many bits deterministic ST improves as the network becomes more deterministic: cosine, first and last";
        add(text, format!("{n} bits"), ripens(runs, *n));
    }
    for n in &bits {
        let text =
            "a biased estimator may do significantly better than the unbiased one: training loss before the correction";
        add(text, format!("{n} bits"), better(runs, *n));
    }
    add("with more bits ST needs less correction: share of the loss that it takes off", all.clone(), less(runs));
    add(
        "RMSE of ARM is rather high, the more so with more bits: RMSE over the length of the gradient",
        all,
        high(runs),
    );
    add("each omitted word occurs in at most 10 documents", "data".into(), omitted(runs));
    let columns = ["the paper says", "where", "holds", "figures"].map(String::from).to_vec();
    let notes = vec![format!(
        "A loss moves when it changes by more than {:.0} %; accuracy from the last measurement along ARM's run",
        100.0 * MOVES
    )];
    Table { name: "claims".into(), title: "Sentences of Section 5 and Appendix D.1".into(), columns, rows, notes }
}

/// From the first evaluation (of three at least) to the end of the first phase.
fn stalls(runs: &Runs, n: i64, name: &str) -> Verdict {
    let epochs: f64 = runs.get(n, name)?.first().setting("epochs")?.parse().ok()?;
    let phase: Vec<f64> = runs.curve(n, name)?.iter().filter(|p| p.0 <= epochs).map(|p| p.1).collect();
    let [first, .., last] = phase[..] else { return None };
    if phase.len() < 3 {
        return None;
    }
    let lowest = phase.iter().copied().fold(f64::INFINITY, f64::min);
    let holds = last > (1.0 - MOVES) * first || last > (1.0 + MOVES) * lowest;
    Some((holds, format!("first {first:.1}, lowest {lowest:.1}, last {last:.1}")))
}

/// The share of the loss that the correction takes off.
fn gain(runs: &Runs, n: i64, name: &str) -> Option<f64> {
    let of = |metric: &str| Some(runs.spread(n, name, metric)?.mean);
    let corrected = runs.get(n, name)?.first().setting("correction_epochs")? != "0";
    let (before, after) = (of("train_loss_before_correction")?, of("train_loss")?);
    corrected.then_some((before - after) / before)
}

fn corrected(runs: &Runs, n: i64, name: &str) -> Verdict {
    let gain = gain(runs, n, name)?;
    Some((gain > MOVES, format!("{:+.1} % of the loss", -100.0 * gain)))
}

fn wrong_way(runs: &Runs, n: i64) -> Verdict {
    let last: Vec<(&str, f64)> =
        BIASED.iter().filter_map(|name| Some((*name, runs.measured(n, name).last()?.cosine))).collect();
    let text: Vec<String> = last.iter().map(|(name, c)| format!("{name} {c:.2}")).collect();
    (!last.is_empty()).then(|| (last.iter().all(|(_, c)| *c < 0.0), text.join(", ")))
}

fn extra_bias(runs: &Runs, n: i64) -> Verdict {
    let [st, det, identity] = ["st", "det-st", "identity-st"].map(|name| runs.measured(n, name));
    if st.is_empty() {
        return None;
    }
    let mut holds = true;
    let mut text = vec![];
    for ((s, d), i) in st.iter().zip(&det).zip(&identity) {
        holds &= s.cosine > d.cosine && s.cosine > i.cosine;
        text.push(format!("{}: {:.2} / {:.2} / {:.2}", s.epoch, s.cosine, d.cosine, i.cosine));
    }
    Some((holds, format!("epoch: st / det / identity; {}", text.join("; "))))
}

fn by_bits(runs: &Runs, name: &str) -> Verdict {
    let last: Vec<f64> = runs.bits().iter().filter_map(|n| Some(runs.measured(*n, name).last()?.cosine)).collect();
    let text: Vec<String> = last.iter().map(|c| format!("{c:.2}")).collect();
    (last.len() > 1).then(|| (last.is_sorted_by(|a, b| a < b), text.join(", ")))
}

fn ripens(runs: &Runs, n: i64) -> Verdict {
    let all = runs.measured(n, "det-st");
    let (first, last) = (all.first()?.cosine, all.last()?.cosine);
    (all.len() > 1).then(|| (last > first, format!("{first:.2}, {last:.2}")))
}

fn better(runs: &Runs, n: i64) -> Verdict {
    let before = |name: &str| Some(runs.spread(n, name, "train_loss_before_correction")?.mean);
    let arm = before("arm")?;
    let (name, best) =
        BIASED.iter().filter_map(|name| Some((*name, before(name)?))).min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some((best < (1.0 - MOVES) * arm, format!("arm {arm:.1}, best biased: {name} {best:.1}")))
}

fn less(runs: &Runs) -> Verdict {
    let all: Vec<f64> = runs.bits().iter().filter_map(|n| gain(runs, *n, "st")).collect();
    let text: Vec<String> = all.iter().map(|g| format!("{:.1} %", 100.0 * g)).collect();
    (all.len() > 1).then(|| (all.is_sorted_by(|a, b| a > b), text.join(", ")))
}

fn high(runs: &Runs) -> Verdict {
    let ratio = |n: &i64| runs.measured(*n, "arm").last().map(|r| r.rmse / r.norm);
    let all: Vec<f64> = runs.bits().iter().filter_map(ratio).collect();
    let text: Vec<String> = all.iter().map(|r| format!("{r:.1}")).collect();
    (all.len() > 1).then(|| (all[0] > 1.0 && all.is_sorted_by(|a, b| a < b), text.join(", ")))
}

fn omitted(runs: &Runs) -> Verdict {
    let run = runs.groups.values().next()?.first();
    if run.setting("dataset")? != "newsgroups20" || run.config.get("data")?.get("words")?.as_i64()? != 10_000 {
        return None;
    }
    let most = run.config.get("data")?.get("omitted")?.get("documents")?.as_u64()?;
    Some((most <= 10, format!("at most {most}, words kept by how often they occur")))
}
