//! The curves of Figures 1 to 3 as SVG: mean over the seeds and one standard deviation on each side.
use crate::tables::{ORDER, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use thruway::error::Result;
use thruway::report::stats::Spread;

/// In the order of [`ORDER`].
const COLOURS: [&str; 9] =
    ["#2a78d6", "#2a78d6", "#0b2a52", "#128a5f", "#d9541e", "#b27a00", "#4a3aa7", "#c2447f", "#6b6a65"];
/// Not in the curves, whose axis it would stretch until the others are one line.
const LEFT_OUT: &str = "stochbp N=16";
const PANEL: (f64, f64) = (330.0, 232.0);
/// Left, right, top and bottom of the frame in a panel.
const FRAME: (f64, f64, f64, f64) = (56.0, 308.0, 38.0, 196.0);

/// (Step, mean, standard deviation) along a run, for one estimator.
type Curve<'a> = (&'a str, Vec<(f64, f64, f64)>);

struct Panel<'a> {
    title: String,
    /// The problem's settings.
    place: &'a str,
    curves: Vec<Curve<'a>>,
}

/// File name and content of each: Figures 1 and 2 with one column a dimension, Figure 3 with one row a setting.
pub fn figures(problems: &[Problem]) -> Result<Vec<(String, String)>> {
    let mut out = vec![];
    for (file, family) in [("figure1", "quadratic"), ("figure2", "exponential"), ("figure3", "logistic")] {
        let own: Vec<&Problem> = problems.iter().filter(|p| p.family == family).collect();
        let metrics: &[(&str, &str)] = match family {
            "logistic" => &[("elbo", "ELBO"), ("log_variance", "log variance"), ("accuracy", "accuracy")],
            _ => &[("expected_loss", "expected loss"), ("log_variance", "log variance")],
        };
        let mut rows: Vec<Vec<Panel>> = vec![];
        if family == "logistic" {
            for p in &own {
                rows.push(metrics.iter().map(|m| panel(p, m)).collect::<Result<_>>()?);
            }
        } else {
            for m in metrics {
                rows.push(own.iter().copied().map(|p| panel(p, m)).collect::<Result<_>>()?);
            }
        }
        if rows.iter().flatten().any(|p| !p.curves.is_empty()) {
            out.push((format!("{file}.svg"), draw(&rows)));
        }
    }
    Ok(out)
}

fn panel<'a>(p: &'a Problem, (metric, name): &(&str, &str)) -> Result<Panel<'a>> {
    Ok(Panel { title: name.to_string(), place: &p.title, curves: curves(p, metric)? })
}

/// Over the seeds, at the steps that all of them logged.
fn curves<'a>(p: &'a Problem, metric: &str) -> Result<Vec<Curve<'a>>> {
    let mut all = vec![];
    for (name, group) in p.groups.iter().filter(|(name, _)| name != LEFT_OUT) {
        let mut at: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for run in &group.runs {
            for point in run.points()? {
                let value = point.values.iter().find(|(n, _)| n == metric).map(|(_, v)| *v);
                at.entry(point.step as i64).or_default().extend(value.filter(|v| v.is_finite()));
            }
        }
        let whole = at.into_iter().filter(|(_, v)| v.len() == group.runs.len());
        let dots = whole.filter_map(|(step, v)| {
            let s = Spread::of(&v)?;
            Some((step as f64, s.mean, s.std.unwrap_or(0.0)))
        });
        let dots: Vec<_> = dots.collect();
        if dots.len() > 1 {
            all.push((name.as_str(), dots));
        }
    }
    Ok(all)
}

fn draw(rows: &[Vec<Panel>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(1);
    let drawn: BTreeSet<&str> = rows.iter().flatten().flat_map(|p| &p.curves).map(|(name, _)| *name).collect();
    let others = drawn.iter().copied().filter(|name| !ORDER.contains(name));
    let names: Vec<&str> = ORDER.into_iter().filter(|o| drawn.contains(o)).chain(others).collect();
    let (width, height) = (PANEL.0 * columns as f64, PANEL.1 * rows.len() as f64 + 40.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (i, row) in rows.iter().enumerate() {
        for (j, panel) in row.iter().enumerate() {
            let (x, y) = (PANEL.0 * j as f64, PANEL.1 * i as f64);
            let _ = writeln!(svg, "<g transform=\"translate({x:.0} {y:.0})\">");
            draw_panel(&mut svg, panel);
            svg += "</g>\n";
        }
    }
    for (i, name) in names.iter().enumerate() {
        let (x, y) = (12.0 + i as f64 * 120.0, height - 24.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.0} {y:.0}h22\" {}/><text x=\"{:.0}\" y=\"{:.0}\">{name}</text>",
            stroke(name),
            x + 27.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{:.0}\" fill=\"#555\">by step; line: mean over the seeds; band: one standard deviation on each side</text>\n</svg>",
        height - 6.0
    );
    svg
}

fn stroke(name: &str) -> String {
    let index = ORDER.iter().position(|o| *o == name).unwrap_or(COLOURS.len() - 1);
    // those that may lie on another curve let it through, and what lies under one is wider
    let (width, dash) = match name {
        "exact" | "stochbp N=8" => ("1.4", " stroke-dasharray=\"4 3\""),
        "stochbp" | "stochbp N=4" => ("2.4", ""),
        _ => ("1.4", ""),
    };
    format!("stroke=\"{}\" stroke-width=\"{width}\" fill=\"none\"{dash}", COLOURS[index])
}

/// A step of 1, 2 or 5 times a power of ten that cuts `span` into two to five parts.
fn tick(span: f64) -> f64 {
    let power = 10f64.powf((span / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|k| k * power).find(|t| span / t <= 5.0).unwrap_or(span)
}

fn draw_panel(svg: &mut String, panel: &Panel) {
    let (left, right, top, bottom) = FRAME;
    let dots = || panel.curves.iter().flat_map(|c| &c.1);
    let last = dots().map(|d| d.0).fold(1.0, f64::max);
    let (low, high) = dots().fold((f64::MAX, f64::MIN), |(a, b), d| (a.min(d.1), b.max(d.1)));
    let span = (high - low).max(1e-9);
    let (low, high) = (low - 0.03 * span, high + 0.03 * span);
    let x = |s: f64| left + (right - left) * s / last;
    let y = |v: f64| bottom - (bottom - top) * (v.clamp(low, high) - low) / (high - low);
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"16\" font-weight=\"bold\">{}</text><text x=\"{left}\" y=\"31\" font-size=\"10\" fill=\"#555\">{}</text>",
        panel.title, panel.place
    );
    let ticks = |low: f64, high: f64| {
        let t = tick(high - low);
        ((low / t).ceil() as i64..=(high / t).floor() as i64).map(move |k| (k as f64 * t, t))
    };
    for (s, _) in ticks(0.0, last) {
        let (at, under) = (x(s), bottom + 15.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#e4e4e0\"/><text x=\"{at:.1}\" y=\"{under:.0}\" text-anchor=\"middle\">{s}</text>"
        );
    }
    for (v, t) in ticks(low, high) {
        let (at, edge, digits) = (y(v), left - 5.0, (-t.log10().floor()).max(0.0) as usize);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#e4e4e0\"/><text x=\"{edge:.0}\" y=\"{:.1}\" text-anchor=\"end\">{v:.digits$}</text>",
            at + 4.0
        );
    }
    let join = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        points.map(|(s, v)| format!("{:.1},{:.1}", x(s), y(v))).collect::<Vec<_>>().join(" ")
    };
    for (name, dots) in &panel.curves {
        let above = dots.iter().map(|d| (d.0, d.1 + d.2));
        let edge = join(&mut above.chain(dots.iter().rev().map(|d| (d.0, d.1 - d.2))));
        let fill = stroke(name).split('"').nth(1).unwrap_or_default().to_string();
        let _ = writeln!(svg, "<polygon points=\"{edge}\" fill=\"{fill}\" opacity=\".12\"/>");
    }
    for (name, dots) in &panel.curves {
        let line = join(&mut dots.iter().map(|d| (d.0, d.1)));
        let _ = writeln!(svg, "<polyline points=\"{line}\" {}/>", stroke(name));
    }
}
