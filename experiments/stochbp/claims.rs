//! What Section 6 of the paper says about Figures 1 to 3, held against the runs, problem by problem.
use crate::tables::{Problem, cell};
use thruway::report::stats::Spread;
use thruway::report::table::Table;

/// Standard errors (Welch) from which two means over seeds count as different.
const APART: f64 = 3.0;
/// Nats per data point, and share of the data, within which two truncations count as alike.
const ALIKE: (f64, f64) = (0.01, 0.01);

/// Whether it holds, and the figures.
type Verdict = Option<(bool, String)>;

/// All claims about all problems.
pub fn table(problems: &[Problem]) -> Table {
    let mut rows = vec![];
    let mut add = |problem: &Problem, claim: String, verdict: Verdict| {
        if let Some((holds, figures)) = verdict {
            let place = format!("{}: {}", problem.family, problem.title);
            rows.push(vec![claim, place, if holds { "yes" } else { "no" }.into(), figures]);
        }
    };
    for p in problems {
        let rules: Vec<&str> = p.estimators().filter(|e| e.starts_with("stochbp")).collect();
        for rule in &rules {
            add(p, format!("{rule} converges at least as fast as score"), faster(p, rule, "score", false));
            for other in ["pathwise", "weak"] {
                add(p, format!("{rule} converges faster than {other}"), faster(p, rule, other, true));
            }
            for other in ["score", "pathwise"] {
                add(p, format!("{rule} has no more variance than {other}"), steadier(p, rule, other));
            }
        }
        add(p, "the truncation, N = 4 or 8, has little effect".into(), alike(p));
    }
    let columns = ["claim", "problem", "holds", "figures"].map(String::from).to_vec();
    let title = "Claims of Section 6".into();
    let notes = vec![
        format!(
            "Convergence: means over the log points of the run of the loss or of minus the ELBO, over seeds; apart from \
             {APART} standard errors on. Variance: mean log variance at the same parameters, those of the run that probes"
        ),
        format!("Little effect: ELBO within {} nats and accuracy within {} at the end", ALIKE.0, ALIKE.1),
    ];
    Table { name: "claims".into(), title, columns, rows, notes }
}

/// The mean of the loss over the run: strictly lower, or not higher.
fn faster(p: &Problem, rule: &str, other: &str, strictly: bool) -> Verdict {
    let metric = format!("mean_{}", p.goal());
    // a bound is to be high
    let sign = if p.goal() == "elbo" { -1.0 } else { 1.0 };
    let (ours, theirs) = (p.spread(rule, &metric)?, p.spread(other, &metric)?);
    let z = sign * ours.z(&theirs)?;
    let figures = format!("{} / {}, z = {z:+.1}", cell(Some(ours)), cell(Some(theirs)));
    Some((if strictly { z < -APART } else { z < APART }, figures))
}

/// The log variance at the same parameters: not higher.
fn steadier(p: &Problem, rule: &str, other: &str) -> Verdict {
    let (Spread { mean: ours, .. }, Spread { mean: theirs, .. }) = (p.probed(rule)?, p.probed(other)?);
    Some((ours <= theirs, format!("{ours:.2} / {theirs:.2}: variance times {}", factor(ours - theirs))))
}

/// `exp(x)` to two digits.
fn factor(x: f64) -> String {
    let f = x.exp();
    if (0.01..100.0).contains(&f) { format!("{f:.2}") } else { format!("{f:.1e}") }
}

fn alike(p: &Problem) -> Verdict {
    let both = |metric: &str| Some((p.spread("stochbp N=4", metric)?, p.spread("stochbp N=8", metric)?));
    let (elbo, accuracy) = (both("elbo")?, both("accuracy")?);
    let apart = |(a, b): &(Spread, Spread)| (a.mean - b.mean).abs();
    let figures = format!(
        "ELBO {:.4} / {:.4}, accuracy {:.4} / {:.4}",
        elbo.0.mean, elbo.1.mean, accuracy.0.mean, accuracy.1.mean
    );
    Some((apart(&elbo) <= ALIKE.0 && apart(&accuracy) <= ALIKE.1, figures))
}
