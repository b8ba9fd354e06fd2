//! What Section 5 and Appendix D.1 say about this experiment, held against the runs.
use crate::tables::Runs;
use thruway::report::table::Table;

/// The estimators of Table D.1 that are biased.
const BIASED: [&str; 5] = ["gumbel-softmax-1", "gumbel-softmax-0.1", "st", "det-st", "identity-st"];
/// A loss moves when it changes by more than this share of what there is to gain ([`Runs::span`]).
const MOVES: f64 = 0.05;
/// A loss falls rapidly when it falls at this many times its former rate.
const RAPID: f64 = 3.0;
/// A cosine grows when it does by more than this: less than it varies from one trajectory to the next is not counted.
const GROWS: f64 = 0.05;

/// Whether it holds, `None` where the runs lack what it takes; and the figures. `None` for no runs.
type Verdict = Option<(Option<bool>, String)>;

/// All sentences that the runs can be held against.
pub fn table(runs: &Runs) -> Table {
    let bits = runs.bits();
    let mut rows = vec![];
    let mut add = |text: &str, place: String, verdict: Verdict| {
        if let Some((holds, figures)) = verdict {
            let holds = holds.map_or("not measured", |h| if h { "yes" } else { "no" });
            rows.push(vec![text.to_string(), place, holds.into(), figures]);
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
    add("with more bits ST needs less correction: share of the span that it takes off", all.clone(), less(runs));
    add(
        "RMSE of ARM is rather high, the more so with more bits: RMSE over the length of the gradient",
        all,
        high(runs),
    );
    add("each omitted word occurs in at most 10 documents", "data".into(), omitted(runs));
    let columns = ["the paper says", "where", "holds", "figures"].map(String::from).to_vec();
    let notes = vec![
        format!(
            "Losses in nats, of drawn codes where nothing else is said. The span is what there is to gain with so many bits, from the \
             loss of the frequencies of the words alone to the lowest loss of drawn codes of all runs; a loss moves when it changes by more \
             than {:.0} % of it, and rapidly at {RAPID:.0} times its rate before the switch; without a span nothing is concluded",
            100.0 * MOVES
        ),
        "det-st trains the loss of likely codes, each bit its more probable value: what ARM takes off the loss of drawn ones is in part a \
         change of what is trained"
            .into(),
        format!("Accuracy as measured along ARM's run, the last time where no epoch is named; a cosine grows when it does by more than {GROWS}"),
    ];
    Table { name: "claims".into(), title: "Sentences of Section 5 and Appendix D.1".into(), columns, rows, notes }
}

/// A share of the span, or that there is none.
fn share(change: f64, span: Option<f64>) -> String {
    span.map_or("no span".into(), |s| format!("{:+.1} % of the span", 100.0 * change / s))
}

/// Points of a curve up to an epoch, and from there.
type Phases = (Vec<(f64, f64)>, Vec<(f64, f64)>);

/// Evaluations before and after the switch, each with that at the switch itself; the start, fresh parameters, is left out.
fn phases(runs: &Runs, n: i64, name: &str, which: &str) -> Option<Phases> {
    let switch: f64 = runs.get(n, name)?.first().setting("epochs")?.parse().ok()?;
    let curve: Vec<(f64, f64)> = runs.curve(n, name, which)?.into_iter().filter(|p| p.0 > 0.0).collect();
    let part = |keep: &dyn Fn(f64) -> bool| curve.iter().copied().filter(|p| keep(p.0)).collect();
    Some((part(&|e| e <= switch), part(&|e| e >= switch)))
}

/// From the first evaluation after the start (of three at least) to the end of the first phase.
fn stalls(runs: &Runs, n: i64, name: &str) -> Verdict {
    let span = runs.span(n);
    let of = |which: &str| {
        let (phase, _) = phases(runs, n, name, which)?;
        let ([first, .., last], true) = (&phase[..], phase.len() >= 3) else { return None };
        let lowest = phase.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let text = format!("epoch {} {:.1}, lowest {lowest:.1}, epoch {} {:.1}", first.0, first.1, last.0, last.1);
        let holds = span.map(|s| first.1 - last.1 < MOVES * s || last.1 - lowest > MOVES * s);
        Some((holds, format!("{text}: {}", share(last.1 - first.1, span))))
    };
    let (holds, text) = of("curve")?;
    let likely = of("curve_det").map_or("not measured".into(), |(_, text)| text);
    Some((holds, format!("{text}; likely codes: {likely}")))
}

/// Loss at the switch and at the end, of one curve.
fn ends(runs: &Runs, n: i64, name: &str, which: &str) -> Option<(f64, f64)> {
    let (_, after) = phases(runs, n, name, which)?;
    let ([first, .., last], true) = (&after[..], after.len() >= 2) else { return None };
    Some((first.1, last.1))
}

/// The share of the span that the correction takes off, over the seeds.
fn gain(runs: &Runs, n: i64, name: &str) -> Option<f64> {
    let of = |metric: &str| Some(runs.spread(n, name, metric)?.mean);
    let corrected = runs.get(n, name)?.first().setting("correction_epochs")? != "0";
    let gain = of("train_loss_before_correction")? - of("train_loss")?;
    if corrected { Some(gain / runs.span(n)?) } else { None }
}

/// What the loss falls by in an epoch, in the last interval before the switch and in the first after it; what the correction takes off;
/// the same without ARM, where there is such a run; and the loss of likely codes.
fn corrected(runs: &Runs, n: i64, name: &str) -> Verdict {
    let (before, after) = phases(runs, n, name, "curve")?;
    let slope = |points: &[(f64, f64)]| match points {
        [a, b] => Some((a.1 - b.1) / (b.0 - a.0)),
        _ => None,
    };
    let (was, is) = (slope(before.last_chunk::<2>()?)?, slope(after.first_chunk::<2>()?)?);
    let ((at, end), span) = (ends(runs, n, name, "curve")?, runs.span(n));
    let control = ends(runs, n, &format!("{name}, control"), "curve");
    let likely = ends(runs, n, name, "curve_det");
    let moves = |at: f64, end: f64| format!("{at:.1} to {end:.1}");
    let holds = span.map(|s| {
        let own = control.map_or(0.0, |(at, end)| at - end);
        at - end > MOVES * s && at - end > own && is > RAPID * was.max(0.0)
    });
    let text = format!(
        "{}: {}; nats an epoch before {was:.2}, after {is:.2}; with the estimator itself {}; likely codes {}",
        moves(at, end),
        share(end - at, span),
        control.map_or("not measured".into(), |(at, end)| moves(at, end)),
        likely.map_or("not measured".into(), |(at, end)| moves(at, end)),
    );
    Some((holds, text))
}

fn wrong_way(runs: &Runs, n: i64) -> Verdict {
    let last: Vec<(&str, f64)> =
        BIASED.iter().filter_map(|name| Some((*name, runs.measured(n, name).last()?.cosine))).collect();
    let text: Vec<String> = last.iter().map(|(name, c)| format!("{name} {c:.2}")).collect();
    (!last.is_empty()).then(|| (Some(last.iter().all(|(_, c)| *c < 0.0)), text.join(", ")))
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
    Some((Some(holds), format!("epoch: st / det / identity; {}", text.join("; "))))
}

/// At the last measurement, and in the mean of all after the start: one alone varies from one time to the next.
fn by_bits(runs: &Runs, name: &str) -> Verdict {
    let each: Vec<Vec<f64>> = runs
        .bits()
        .iter()
        .map(|n| runs.measured(*n, name).iter().filter(|r| r.epoch > 0).map(|r| r.cosine).collect())
        .filter(|of: &Vec<f64>| !of.is_empty())
        .collect();
    let last: Vec<f64> = each.iter().map(|of| of[of.len() - 1]).collect();
    let mean: Vec<f64> = each.iter().map(|of| of.iter().sum::<f64>() / of.len() as f64).collect();
    let grows = |of: &[f64]| of.is_sorted_by(|a, b| b - a > GROWS);
    let show = |of: &[f64]| of.iter().map(|c| format!("{c:.2}")).collect::<Vec<_>>().join(", ");
    let text = format!("last {}; mean of all after the start {}", show(&last), show(&mean));
    (each.len() > 1).then(|| (Some(grows(&last) && grows(&mean)), text))
}

fn ripens(runs: &Runs, n: i64) -> Verdict {
    let all = runs.measured(n, "det-st");
    let (first, last) = (all.first()?.cosine, all.last()?.cosine);
    (all.len() > 1).then(|| (Some(last - first > GROWS), format!("{first:.2}, {last:.2}")))
}

fn better(runs: &Runs, n: i64) -> Verdict {
    let before = |name: &str| Some(runs.spread(n, name, "train_loss_before_correction")?.mean);
    let arm = before("arm")?;
    let (name, best) =
        BIASED.iter().filter_map(|name| Some((*name, before(name)?))).min_by(|a, b| a.1.total_cmp(&b.1))?;
    let span = runs.span(n);
    let holds = span.map(|s| best < arm - MOVES * s);
    Some((holds, format!("arm {arm:.1}, best biased: {name} {best:.1}: {}", share(best - arm, span))))
}

fn less(runs: &Runs) -> Verdict {
    let all: Vec<f64> = runs.bits().iter().filter_map(|n| gain(runs, *n, "st")).collect();
    let text: Vec<String> = all.iter().map(|g| format!("{:.1} %", 100.0 * g)).collect();
    (all.len() > 1).then(|| (Some(all.is_sorted_by(|a, b| a > b)), text.join(", ")))
}

fn high(runs: &Runs) -> Verdict {
    let ratio = |n: &i64| runs.measured(*n, "arm").last().map(|r| r.rmse / r.norm);
    let all: Vec<f64> = runs.bits().iter().filter_map(ratio).collect();
    let text: Vec<String> = all.iter().map(|r| format!("{r:.1}")).collect();
    (all.len() > 1).then(|| (Some(all[0] > 1.0 && all.is_sorted_by(|a, b| a < b)), text.join(", ")))
}

fn omitted(runs: &Runs) -> Verdict {
    let run = runs.groups.values().next()?.first();
    if run.setting("dataset")? != "newsgroups20" || run.config.get("data")?.get("words")?.as_i64()? != 10_000 {
        return None;
    }
    let most = run.config.get("data")?.get("omitted")?.get("documents")?.as_u64()?;
    Some((Some(most <= 10), format!("at most {most}, words kept by how often they occur")))
}
