//! What Section 6 of the paper says about Figures 1 to 3, held against the runs, problem by problem.
use crate::tables::{Problem, cell};
use thruway::report::stats::Spread;
use thruway::report::table::Table;

/// Standard errors (Welch) from which two means over seeds count as different.
const APART: f64 = 3.0;
/// Nats per data point, and share of the data, within which two truncations count as alike.
const ALIKE: (f64, f64) = (0.01, 0.01);

/// What the runs say to a claim.
enum Answer {
    Yes,
    No,
    Open,
}

impl Answer {
    /// To "lower", from the standard errors by which it is lower (below 0) or higher.
    fn lower(z: f64) -> Answer {
        match z {
            z if z <= -APART => Answer::Yes,
            z if z >= APART => Answer::No,
            _ => Answer::Open,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Answer::Yes => "yes",
            Answer::No => "no",
            Answer::Open => "not told apart",
        }
    }
}

/// The answer and its figures.
type Verdict = Option<(Answer, String)>;

/// All claims about all problems.
pub fn table(problems: &[Problem]) -> Table {
    let mut rows = vec![];
    let mut add = |problem: &Problem, claim: String, verdict: Verdict| {
        if let Some((answer, figures)) = verdict {
            let place = format!("{}: {}", problem.family, problem.title);
            rows.push(vec![claim, place, answer.text().into(), figures]);
        }
    };
    for p in problems {
        let rules: Vec<&str> = p.estimators().filter(|e| e.starts_with("stochbp")).collect();
        for rule in &rules {
            add(p, format!("{rule} converges at least as fast as score"), faster(p, rule, "score"));
            for other in ["pathwise", "weak"] {
                add(p, format!("{rule} converges faster than {other}"), faster(p, rule, other));
            }
            for other in ["score", "pathwise"] {
                add(p, format!("{rule} has no more variance than {other}"), steadier(p, rule, other));
            }
        }
        add(p, "the truncation, N = 4 or 8, has little effect".into(), alike(p, "stochbp N=4", "stochbp N=8"));
        let terms = "the truncation, 4 or 8 terms (N = 8 or 16), has little effect".to_string();
        add(p, terms, alike(p, "stochbp N=8", "stochbp N=16"));
    }
    let columns = ["claim", "problem", "holds", "figures"].map(String::from).to_vec();
    let title = "Claims of Section 6".into();
    let notes = vec![
        format!(
            "Convergence: means over the log points of the run of the loss or of minus the ELBO, over seeds. Variance: mean log \
             variance at the same parameters, those of the run that probes; the ratio is the mean over seeds of the paired \
             difference, in brackets {APART} of its standard errors on each side"
        ),
        format!(
            "Yes or no from {APART} standard errors on, in between not told apart. With five seeds that is a level of 2 to \
             4 % (convergence, Welch: 8 to 4 degrees of freedom) or 4 % (variance, paired: 4) a row, so a row near {APART} says little in a table of this length"
        ),
        format!(
            "Little effect: ELBO within {} nats and accuracy within {} at the end, {APART} standard errors included",
            ALIKE.0, ALIKE.1
        ),
    ];
    Table { name: "claims".into(), title, columns, rows, notes }
}

/// The mean of the loss over the run: lower.
fn faster(p: &Problem, rule: &str, other: &str) -> Verdict {
    let metric = format!("mean_{}", p.goal());
    // a bound is to be high
    let sign = if p.goal() == "elbo" { -1.0 } else { 1.0 };
    let (ours, theirs) = (p.spread(rule, &metric)?, p.spread(other, &metric)?);
    let z = sign * ours.z(&theirs)?;
    Some((Answer::lower(z), format!("{} / {}, z = {z:+.1}", cell(Some(ours)), cell(Some(theirs)))))
}

/// The log variance at the same parameters: lower, by pairs of one seed.
fn steadier(p: &Problem, rule: &str, other: &str) -> Verdict {
    let (ours, theirs) = (p.probed(rule)?, p.probed(other)?);
    let pairs: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a - b).collect();
    let difference = Spread::of(&pairs)?;
    let (mean, error) = (difference.mean, difference.std? / (pairs.len() as f64).sqrt());
    let figures = format!(
        "{:.2} / {:.2}: variance times {} ({} to {})",
        Spread::of(&ours)?.mean,
        Spread::of(&theirs)?.mean,
        factor(mean),
        factor(mean - APART * error),
        factor(mean + APART * error)
    );
    Some((Answer::lower(mean / error), figures))
}

/// `exp(x)` to two digits.
fn factor(x: f64) -> String {
    let f = x.exp();
    if (0.01..100.0).contains(&f) { format!("{f:.2}") } else { format!("{f:.1e}") }
}

/// Two truncations at the end of their runs.
fn alike(p: &Problem, few: &str, many: &str) -> Verdict {
    let (mut answer, mut figures) = (Answer::Yes, vec![]);
    for (name, metric, limit) in [("ELBO", "elbo", ALIKE.0), ("accuracy", "accuracy", ALIKE.1)] {
        let (a, b) = (p.spread(few, metric)?, p.spread(many, metric)?);
        let square = |s: &Spread| Some(s.std?.powi(2) / s.n as f64);
        let (apart, error) = ((a.mean - b.mean).abs(), APART * (square(&a)? + square(&b)?).sqrt());
        if apart - error > limit {
            answer = Answer::No;
        } else if apart + error > limit && !matches!(answer, Answer::No) {
            answer = Answer::Open;
        }
        figures.push(format!("{name} {:.4} / {:.4}", a.mean, b.mean));
    }
    Some((answer, figures.join(", ")))
}
