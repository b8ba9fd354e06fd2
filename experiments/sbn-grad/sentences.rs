//! What the paper says about these figures, held against what was measured, layer by layer.
use crate::measure::Row;
use crate::tables::{EPOCHS, Measured, distinct, layer_name, shape_name, short};
use thruway::report::table::Table;

/// The rows of one setting, by method and layer.
struct Setting<'a> {
    rows: Vec<&'a Row>,
    /// Binary layers.
    layers: usize,
}

impl Setting<'_> {
    fn get(&self, method: &str, layer: usize) -> Option<&Row> {
        self.rows.iter().find(|r| r.method == method && r.layer == layer).copied()
    }

    fn at(&self, layer: usize) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |r| r.layer == layer && r.method != "psa, plain head").copied()
    }
}

/// Whether it holds, and the figures.
type Verdict = Option<(bool, String)>;

/// A sentence and its test in one layer of one setting; `None` where a method it speaks of was not measured.
struct Sentence {
    text: &'static str,
    /// Only for this layer, counted from 1; 0: every binary layer, usize::MAX: the last.
    layer: usize,
    holds: fn(&Setting, usize) -> Verdict,
}

const ALL: &[Sentence] = &[
    Sentence {
        text: "PSA with 1 sample is not worse than ARM with 1000 (Section 3)",
        layer: 0,
        holds: |s, l| {
            let (psa, arm) = (s.get("psa", l)?.rmse(1)?, s.get("arm", l)?.rmse(1000)?);
            Some((psa <= arm, format!("psa {}, arm {}", short(psa), short(arm))))
        },
    },
    Sentence {
        text: "PSA is always more accurate than ST (Section 3): at every M",
        layer: 0,
        holds: |s, l| {
            let (psa, st) = (s.get("psa", l)?, s.get("st", l)?);
            // squared RMSE is linear in 1/M: the two ends decide
            let (one, many) = ((psa.rmse(1)?, st.rmse(1)?), (psa.bias(), st.bias()));
            let figures =
                format!("M = 1: {} / {}; bias {} / {}", short(one.0), short(one.1), short(many.0), short(many.1));
            Some((one.0 < one.1 && many.0 < many.1, figures))
        },
    },
    Sentence {
        text: "PSA has no bias in the last hidden layer (Section 3)",
        layer: usize::MAX,
        holds: |s, l| {
            let bias = s.get("psa", l)?.exact?.bias;
            Some((bias < 1e-10, format!("bias {}", short(bias))))
        },
    },
    Sentence {
        text: "Biased methods only improve up to a point (Fig. 2): the bias of PSA and of ST",
        layer: 0,
        holds: |s, l| {
            let (psa, st) = (s.get("psa", l)?.bias(), s.get("st", l)?.bias());
            Some((psa > 1e-10 && st > 1e-10, format!("psa {}, st {}", short(psa), short(st))))
        },
    },
    Sentence {
        text: "Biased methods may be more accurate with fewer samples (Fig. 2): samples that REINFORCE, ARM need for PSA's RMSE with one",
        layer: 0,
        holds: |s, l| {
            let one = s.get("psa", l)?.rmse(1)?;
            let need = |method: &str| Some((s.get(method, l)?.rmse(1)? / one).powi(2));
            let (reinforce, arm) = (need("reinforce")?, need("arm")?);
            Some((reinforce > 1.0, format!("reinforce {}, arm {}", short(reinforce), short(arm))))
        },
    },
    Sentence {
        text: "... and the discrepancy significantly increases with layer depth: those of REINFORCE grow towards layer 1",
        layer: 1,
        holds: |s, _| {
            let need = |l: usize| Some((s.get("reinforce", l)?.rmse(1)? / s.get("psa", l)?.rmse(1)?).powi(2));
            let all: Vec<f64> = (1..=s.layers).map(need).collect::<Option<_>>()?;
            let text = all.iter().map(|x| short(*x)).collect::<Vec<_>>().join(" > ");
            Some((all.is_sorted_by(|a, b| a > b), format!("layers 1, 2, ...: {text}").replace(" > ", ", ")))
        },
    },
    Sentence {
        text: "HardST's mismatch leads to a severe loss of accuracy (Section 2.3): RMSE at M = 1 and bias against ST's",
        layer: 0,
        holds: |s, l| {
            let (hard, st) = (s.get("hard-st", l)?, s.get("st", l)?);
            let holds = hard.rmse(1)? > st.rmse(1)? && hard.bias() > st.bias();
            let text = format!(
                "M = 1: {} / {}; bias {} / {}",
                short(hard.rmse(1)?),
                short(st.rmse(1)?),
                short(hard.bias()),
                short(st.bias())
            );
            Some((holds, text))
        },
    },
    Sentence {
        text: "PSA is the most accurate in the low-sample regime (Section 3), of the methods that the paper compares: RMSE at M = 1 and 10",
        layer: 0,
        holds: |s, l| most_accurate(s, l, |method| COMPARED.contains(&method)),
    },
    Sentence { text: "... of all methods measured here", layer: 0, holds: |s, l| most_accurate(s, l, |_| true) },
    Sentence {
        text: "Methods with high bias may systematically fail to give a descent direction (Section 3): a mean estimate with negative cosine",
        layer: 0,
        holds: |s, l| {
            let biased = s.at(l).filter(|r| !r.unbiased).map(|r| (r.exact.unwrap_or(r.sampled).cosine, &r.method));
            let worst = biased.min_by(|a, b| a.0.total_cmp(&b.0))?;
            Some((worst.0 < 0.0, format!("lowest: {} {}", worst.1, short(worst.0))))
        },
    },
    Sentence {
        text: "Methods with high variance may give wrong directions too often (Section 3): negative cosine with one sample, for REINFORCE in more than 15 %",
        layer: 0,
        holds: |s, l| {
            let share = |method: &str| Some(100.0 * s.get(method, l)?.points.first()?.negative);
            let (reinforce, arm, psa) = (share("reinforce")?, share("arm")?, share("psa")?);
            Some((reinforce > 15.0, format!("reinforce {reinforce:.0} %, arm {arm:.0} %, psa {psa:.0} %")))
        },
    },
    Sentence {
        text: "MuProp's linear baseline does not improve accuracy in deep layers (Section C.1): std with the true baseline, MuProp / REINFORCE",
        layer: 0,
        holds: |s, l| {
            let of = |method: &str| s.get(method, l)?.rmse(1); // unbiased: the standard deviation
            let (muprop, reinforce) = (of("muprop, true baseline")?, of("reinforce, true baseline")?);
            Some((muprop >= reinforce, format!("{} / {}", short(muprop), short(reinforce))))
        },
    },
];

/// The methods of Figs. 2 and 3, by their names without knobs.
const COMPARED: [&str; 7] = ["psa", "st", "hard-st", "arm", "reinforce", "tanh", "concrete"];

/// Whether PSA has the least RMSE at M = 1 and at 10 of the methods that count, the least ones if not.
fn most_accurate(s: &Setting, l: usize, counts: fn(&str) -> bool) -> Verdict {
    let best = |m: i64| {
        let counted = s.at(l).filter(|r| counts(r.method.split(',').next().unwrap_or_default()));
        counted.filter_map(|r| Some((r.rmse(m)?, r.method.as_str()))).min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let (one, ten) = (best(1)?, best(10)?);
    let psa = s.get("psa", l)?;
    let own = format!("{}, {}", short(psa.rmse(1)?), short(psa.rmse(10)?));
    let holds = one.1 == "psa" && ten.1 == "psa";
    let least = format!("psa {own}; best {} {}, {} {}", one.1, short(one.0), ten.1, short(ten.0));
    Some((holds, if holds { own } else { least }))
}

/// A sentence on the course of a training and its test in one layer, at the epochs of that training in their order.
struct Course {
    text: &'static str,
    holds: fn(&[Setting], usize) -> Verdict,
}

/// A figure of each epoch, and whether every one is on the wanted side of the one before.
fn course(s: &[Setting], of: impl Fn(&Setting) -> Option<f64>, follows: fn(&f64, &f64) -> bool) -> Verdict {
    let all: Vec<f64> = s.iter().map(of).collect::<Option<_>>()?;
    Some((all.is_sorted_by(follows), all.iter().map(|x| short(*x)).collect::<Vec<_>>().join(", ")))
}

const COURSES: &[Course] = &[
    Course {
        text: "In more deterministic points, where training converges to, the bias of PSA may become more significant (Section 3): it grows from epoch to epoch",
        holds: |s, l| course(s, |s| Some(s.get("psa", l)?.bias()), |a, b| a < b && *b > 1e-9),
    },
    Course {
        text: "... while unbiased methods become more accurate: the relative standard deviation of REINFORCE falls from epoch to epoch",
        holds: |s, l| course(s, |s| s.get("reinforce", l)?.rmse(1), |a, b| a > b),
    },
    Course {
        text: "... but the gradient signal diminishes: the length of the exact gradient falls from epoch to epoch",
        holds: |s, l| course(s, |s| Some(s.get("psa", l)?.norm), |a, b| a > b),
    },
    Course {
        text: "MuProp's linear baseline degrades at 2000 epochs (Section C.1, Fig. C.4): std with the true baseline, MuProp / REINFORCE, is largest there",
        holds: |s, l| {
            let ratio = |s: &Setting| {
                Some(s.get("muprop, true baseline", l)?.rmse(1)? / s.get("reinforce, true baseline", l)?.rmse(1)?)
            };
            let all: Vec<f64> = s.iter().map(ratio).collect::<Option<_>>()?;
            let (last, before) = all.split_last()?;
            let there = s.last()?.rows.first()?.setting == "epoch 2000";
            let text = all.iter().map(|x| short(*x)).collect::<Vec<_>>().join(", ");
            there.then(|| (before.iter().all(|r| r < last), text))
        },
    },
];

fn cell((holds, text): (bool, String)) -> String {
    format!("{}: {text}", if holds { "confirmed" } else { "refuted" })
}

/// Sentences on other widths and depths, in layer 1 (Section C.1, Figs. C.5 and C.6): from the means over seeds of the RMSE
/// of one sample.
pub fn architectures(runs: &[Measured]) -> Table {
    let rmse = |units: &[i64], method: &str| -> Option<f64> {
        let rows = runs.iter().filter(|r| r.units == units).flat_map(|r| &r.rows);
        let own: Vec<f64> = rows.filter(|r| r.layer == 1 && r.method == method).filter_map(|r| r.rmse(1)).collect();
        (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
    };
    let mut shapes = crate::tables::shapes(runs);
    let deep: Vec<&[i64]> = shapes.iter().copied().filter(|units| units.iter().all(|n| *n == 5)).collect();
    shapes.retain(|units| units.len() == 3);
    let wide = shapes;
    let course = |shapes: &[&[i64]], of: &dyn Fn(&[i64]) -> Option<f64>, follows: fn(&f64, &f64) -> bool| -> Verdict {
        let all: Vec<f64> = shapes.iter().map(|units| of(units)).collect::<Option<_>>()?;
        let figures = shapes.iter().zip(&all).map(|(units, x)| format!("{} {}", shape_name(units), short(*x)));
        Some((all.is_sorted_by(follows), figures.collect::<Vec<_>>().join(", ")))
    };
    // samples that ARM needs for the RMSE that the method has with one
    let needs = |method: &'static str| move |units: &[i64]| Some((rmse(units, "arm")? / rmse(units, method)?).powi(2));
    let rising: fn(&f64, &f64) -> bool = |a, b| a < b;
    let falling: fn(&f64, &f64) -> bool = |a, b| a > b;
    let lines = [
        (
            "With fewer units ARM gets more accurate (Section C.1): its RMSE rises with the width",
            course(&wide, &|u| rmse(u, "arm"), rising),
        ),
        ("... and ST less accurate: its RMSE falls with the width", course(&wide, &|u| rmse(u, "st"), falling)),
        (
            "PSA is in advantage when increasing width (Section 3): samples that ARM needs for its RMSE rise",
            course(&wide, &needs("psa"), rising),
        ),
        (
            "ST is in advantage when increasing width (Section 3): samples that ARM needs for its RMSE rise",
            course(&wide, &needs("st"), rising),
        ),
        (
            "PSA is in advantage when increasing depth (Section 3): samples that ARM needs for its RMSE rise",
            course(&deep, &needs("psa"), rising),
        ),
        (
            "ST is in advantage when increasing depth (Section 3): samples that ARM needs for its RMSE rise",
            course(&deep, &needs("st"), rising),
        ),
    ];
    listed("Sentences of the paper on width and depth, layer 1, one sample", lines)
}

/// Sentences on training (Fig. C.2), by the expected losses of the table.
pub fn training(runs: &[Measured]) -> Table {
    let losses = |method: &str| -> Option<Vec<f64>> {
        let run = runs.iter().find(|r| r.estimator == method)?;
        let at = |e: &f64| run.history.iter().find(|h| h.epoch == *e).map(|h| h.expected_loss);
        EPOCHS.iter().map(at).collect()
    };
    let all = || Some((losses("arm")?, losses("psa")?, losses("st")?, losses("reinforce")?));
    let off = |a: f64, b: f64| (a / b - 1.0).abs();
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let verdicts = all().map(|(arm, psa, st, reinforce)| {
        let apart = arm.iter().zip(&psa).map(|(a, p)| off(*a, *p)).fold(0.0, f64::max);
        let above =
            |v: &[f64]| v.iter().zip(arm.iter().zip(&psa)).map(|(v, (a, p))| v / a.max(*p) - 1.0).collect::<Vec<_>>();
        let list = |v: &[f64]| v.iter().map(|x| percent(*x)).collect::<Vec<_>>().join(", ");
        let (slow, start) = (above(&st), above(&reinforce));
        let end =
            off(*reinforce.last().expect("epochs"), arm.last().expect("epochs").min(*psa.last().expect("epochs")));
        [
            (apart < 0.05, format!("at most {} apart", percent(apart))),
            (slow.iter().all(|x| *x > 0.0), format!("above the higher of the two by {}", list(&slow))),
            (
                start[0] > 0.0 && start[1] > 0.0 && end < 0.05,
                format!("{}, ...; at the end {} from the lower of the two", list(&start[..2]), percent(end)),
            ),
        ]
    });
    let [similar, slower, reinforce] = verdicts.map_or([None, None, None], |v| v.map(Some));
    let lines = [
        ("ARM and PSA perform similar (Fig. C.2): less than 5 % apart at every epoch of the table", similar),
        ("... and ST is somewhat slower: above both at every epoch of the table", slower),
        (
            "REINFORCE does not do very well in the beginning, but eventually does (Fig. C.2): above ARM and PSA at the first two epochs, less than 5 % from the lower at the last",
            reinforce,
        ),
    ];
    listed("Sentences of the paper on training", lines)
}

fn listed<const N: usize>(title: &str, lines: [(&str, Verdict); N]) -> Table {
    let columns = ["the paper says".to_string(), "here".to_string()].to_vec();
    let rows = lines.into_iter().filter_map(|(text, verdict)| Some(vec![text.to_string(), cell(verdict?)])).collect();
    Table { name: "sentences".into(), title: title.into(), columns, rows, notes: vec![] }
}

/// The settings of these rows.
fn settings(rows: &[Row]) -> Vec<Setting<'_>> {
    let of = |name: &str| -> Setting<'_> {
        let own: Vec<&Row> = rows.iter().filter(|r| r.setting == name).collect();
        let layers = own.iter().map(|r| r.layer).max().unwrap_or(1) - 1;
        Setting { rows: own, layers }
    };
    distinct(rows, |r| &r.setting).into_iter().map(of).collect()
}

/// One line a sentence and setting, one column a binary layer; empty when nothing was measured.
pub fn table(rows: &[Row]) -> Option<Table> {
    let last = rows.iter().map(|r| r.layer).max()?;
    let mut lines = vec![];
    let mut line = |text: &str, name: &str, verdict: &dyn Fn(usize) -> Verdict| {
        let cells: Vec<String> = (1..last).map(|l| verdict(l).map_or(String::new(), cell)).collect();
        if cells.iter().any(|c| !c.is_empty()) {
            lines.push([vec![text.to_string(), name.to_string()], cells].concat());
        }
    };
    let all = settings(rows);
    for sentence in ALL {
        for setting in &all {
            let name = &setting.rows[0].setting;
            line(sentence.text, name, &|l| {
                let wanted = match sentence.layer {
                    0 => l <= setting.layers,
                    usize::MAX => l == setting.layers,
                    only => l == only,
                };
                if wanted { (sentence.holds)(setting, l) } else { None }
            });
        }
    }
    let (published, own): (Vec<Setting>, Vec<Setting>) =
        all.into_iter().partition(|s| s.rows[0].setting.starts_with("published"));
    for sentence in COURSES {
        for training in [&published, &own].into_iter().filter(|t| t.len() > 1) {
            let [first, to] = [&training[0], &training[training.len() - 1]].map(|s| &s.rows[0].setting[..]);
            let name = format!("{first} to {}", to.trim_start_matches("published, "));
            line(sentence.text, &name, &|l| (sentence.holds)(training, l));
        }
    }
    let columns = (1..last).map(|l| layer_name(l, last));
    let columns = ["the paper says".to_string(), "parameters".to_string()].into_iter().chain(columns).collect();
    let title = "Sentences of the paper, layer by layer".into();
    (!lines.is_empty()).then_some(Table { name: "sentences".into(), title, columns, rows: lines, notes: vec![] })
}
