//! What the paper says about these figures, held against what was measured, layer by layer.
use crate::measure::Row;
use crate::tables::{distinct, layer_name, short};
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
        text: "PSA is the most accurate in the low-sample regime (Section 3): RMSE at M = 1 and 10",
        layer: 0,
        holds: |s, l| {
            let best = |m: i64| {
                let measured = s.at(l).filter_map(|r| Some((r.rmse(m)?, r.method.as_str())));
                measured.min_by(|a, b| a.0.total_cmp(&b.0))
            };
            let (one, ten) = (best(1)?, best(10)?);
            let psa = s.get("psa", l)?;
            let (holds, own) = (one.1 == "psa" && ten.1 == "psa", (psa.rmse(1)?, psa.rmse(10)?));
            let text = format!(
                "psa {}, {}; best {} {}, {} {}",
                short(own.0),
                short(own.1),
                one.1,
                short(one.0),
                ten.1,
                short(ten.0)
            );
            Some((holds, if holds { format!("{}, {}", short(own.0), short(own.1)) } else { text }))
        },
    },
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
        text: "Methods with high variance may give wrong directions too often (Section 3): negative cosine with one sample",
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

/// One line a sentence and setting, one column a binary layer; empty when nothing was measured.
pub fn table(rows: &[Row]) -> Option<Table> {
    let last = rows.iter().map(|r| r.layer).max()?;
    let mut lines = vec![];
    for sentence in ALL {
        for name in distinct(rows, |r| &r.setting) {
            let own: Vec<&Row> = rows.iter().filter(|r| r.setting == name).collect();
            let layers = own.iter().map(|r| r.layer).max().unwrap_or(1) - 1;
            let setting = Setting { rows: own, layers };
            let cells: Vec<String> = (1..last)
                .map(|l| {
                    let wanted = match sentence.layer {
                        0 => l <= layers,
                        usize::MAX => l == layers,
                        only => l == only,
                    };
                    let verdict = if wanted { (sentence.holds)(&setting, l) } else { None };
                    verdict.map_or(String::new(), |(holds, text)| {
                        format!("{}: {text}", if holds { "confirmed" } else { "refuted" })
                    })
                })
                .collect();
            if cells.iter().any(|c| !c.is_empty()) {
                lines.push([vec![sentence.text.to_string(), name.to_string()], cells].concat());
            }
        }
    }
    let columns = (1..last).map(|l| layer_name(l, last));
    let columns = ["the paper says".to_string(), "parameters".to_string()].into_iter().chain(columns).collect();
    let title = "Sentences of the paper, layer by layer".into();
    (!lines.is_empty()).then_some(Table { name: "sentences".into(), title, columns, rows: lines, notes: vec![] })
}
