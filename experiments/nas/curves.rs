//! Regret along the searches of the table, as SVG: mean over the seeds and the central 70 % of them.
use crate::tables::surrogates;
use std::collections::BTreeMap;
use std::fmt::Write;
use thruway::error::Result;
use thruway::report::runs::Group;
use thruway::report::stats::{Spread, central_interval};

const COLOURS: [&str; 8] = ["#2a78d6", "#d9541e", "#128a5f", "#b27a00", "#4a3aa7", "#c2447f", "#3aa7a0", "#6b6a65"];
/// Left, right, top and bottom of a panel's frame, and its size with the legend.
const FRAME: (f64, f64, f64, f64) = (48.0, 400.0, 28.0, 268.0);
const PANEL: (f64, f64) = (580.0, 310.0);
/// Regrets are drawn on a logarithmic axis between these; smaller ones at its foot.
const RANGE: (f64, f64) = (0.03, 60.0);
/// Estimators that ask for the accuracy of drawn cells and nothing else, and searches without a gradient.
const BY_VALUES: [&str; 6] = ["reinforce", "rloo", "nvil", "double-cv", "random", "evolution"];

/// (Step, mean, low, high) along a search.
struct Curve {
    label: String,
    dots: Vec<[f64; 4]>,
}

/// File name and content of each figure.
pub fn figures(groups: &[Group]) -> Result<Vec<(String, String)>> {
    let mut out = vec![];
    for (file, objective) in [("regret", "accuracy"), ("regret-log-error", "log-error")] {
        let mut panels: [(&str, Vec<Curve>); 2] =
            [("estimators that use the derivative", vec![]), ("searches that see accuracies alone", vec![])];
        for (label, g) in surrogates(groups, objective) {
            let by_values = BY_VALUES.iter().any(|n| label.starts_with(n));
            let dots = dots(g)?;
            if dots.len() < 2 {
                continue;
            }
            if label == "exact" {
                panels[1].1.push(Curve { label: label.clone(), dots: dots.clone() });
            }
            panels[usize::from(by_values)].1.push(Curve { label, dots });
        }
        if panels.iter().any(|p| !p.1.is_empty()) {
            out.push((format!("{file}.svg"), draw(&panels)));
        }
    }
    Ok(out)
}

/// At the steps that all seeds logged.
fn dots(g: &Group) -> Result<Vec<[f64; 4]>> {
    let mut at: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for run in &g.runs {
        for point in run.points()? {
            let value = point.values.iter().find(|(n, _)| n == "regret").map(|(_, v)| *v);
            at.entry(point.step as i64).or_default().extend(value);
        }
    }
    let dot = |(step, v): (i64, Vec<f64>)| {
        let mean = Spread::of(&v)?.mean;
        let (low, high) = central_interval(&v, 0.7).unwrap_or((mean, mean));
        (v.len() == g.runs.len()).then_some([step as f64, mean, low, high])
    };
    Ok(at.into_iter().filter_map(dot).collect())
}

fn draw(panels: &[(&str, Vec<Curve>)]) -> String {
    let panels: Vec<_> = panels.iter().filter(|p| !p.1.is_empty()).collect();
    let (width, height) = (PANEL.0, PANEL.1 * panels.len() as f64 + 18.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (i, (title, curves)) in panels.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0 {:.0})\">", PANEL.1 * i as f64);
        panel(&mut svg, title, curves);
        svg += "</g>\n";
    }
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{:.0}\" fill=\"#555\">regret of the likeliest cell, percentage points, by step; line: mean over the seeds; band: their central 70 %</text>\n</svg>",
        height - 6.0
    );
    svg
}

fn panel(svg: &mut String, title: &str, curves: &[Curve]) {
    let (left, right, top, bottom) = FRAME;
    let last = curves.iter().filter_map(|c| c.dots.last()).map(|d| d[0]).fold(1.0, f64::max);
    let x = |step: f64| left + (right - left) * step / last;
    let y = |v: f64| {
        let share = (v.clamp(RANGE.0, RANGE.1) / RANGE.0).ln() / (RANGE.1 / RANGE.0).ln();
        bottom - (bottom - top) * share
    };
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"18\" font-weight=\"bold\">{title}</text>");
    for v in [0.1, 1.0, 10.0] {
        let at = y(v);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#e4e4e0\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{v}</text>",
            left - 5.0,
            at + 4.0
        );
    }
    for k in 0..=4 {
        let (at, step) = (x(last * k as f64 / 4.0), last * k as f64 / 4.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#e4e4e0\"/><text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{step:.0}</text>",
            bottom + 15.0
        );
    }
    let join = |points: Vec<(f64, f64)>| {
        points.iter().map(|(s, v)| format!("{:.1},{:.1}", x(*s), y(*v))).collect::<Vec<_>>().join(" ")
    };
    for (i, c) in curves.iter().enumerate() {
        let (colour, dash) = match c.label.as_str() {
            "exact" => ("#111", " stroke-dasharray=\"5 3\""),
            _ => (COLOURS[i % COLOURS.len()], if i > COLOURS.len() { " stroke-dasharray=\"2 2\"" } else { "" }),
        };
        let low = c.dots.iter().rev().map(|d| (d[0], d[2]));
        let band = join(c.dots.iter().map(|d| (d[0], d[3])).chain(low).collect());
        let line = join(c.dots.iter().map(|d| (d[0], d[1])).collect());
        let _ = writeln!(svg, "<polygon points=\"{band}\" fill=\"{colour}\" opacity=\"0.08\"/>");
        let _ =
            writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\"{dash}/>");
        let (lx, ly) = (right + 12.0, top + 10.0 + 18.0 * i as f64);
        let _ = writeln!(
            svg,
            "<path d=\"M{lx:.0} {ly:.0}h22\" stroke=\"{colour}\" stroke-width=\"1.4\"{dash}/><text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            lx + 27.0,
            ly + 4.0,
            c.label
        );
    }
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#999\"/>",
        right - left,
        bottom - top
    );
}
