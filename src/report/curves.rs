//! Learning curves: mean over seeds with the central 70 % of them, as inline SVG in the page's own colours.
use super::compare::{Problem, metric_title};
use super::stats::{Spread, central_interval};
use super::table::escape;
use crate::Result;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Points a curve is thinned to: each then is the mean over a span of steps.
const POINTS: f64 = 200.0;
/// Share of the seeds inside the shaded band.
const BAND: f64 = 0.70;
/// Colours defined by the page (`--c0` ...); further series repeat them dashed.
const COLOURS: usize = 8;

/// One curve: a group's metric against the step.
#[derive(Debug)]
struct Series {
    label: String,
    seeds: usize,
    points: Vec<Dot>,
}

/// Of each seed its (step, value) pairs.
type Seeds = Vec<Vec<(f64, f64)>>;

#[derive(Debug)]
struct Dot {
    step: f64,
    mean: f64,
    band: Option<(f64, f64)>,
}

/// One chart for each logged metric of the problem, as HTML figures; empty when nothing was logged twice.
pub fn charts(problem: &Problem) -> Result<String> {
    let mut logged: BTreeMap<String, BTreeMap<usize, Seeds>> = BTreeMap::new();
    for (index, group) in problem.groups.iter().enumerate() {
        for (seed, run) in group.runs.iter().enumerate() {
            for point in run.points()? {
                for (name, value) in point.values {
                    let seeds = logged.entry(name).or_default().entry(index).or_default();
                    seeds.resize_with(seeds.len().max(seed + 1), Vec::new);
                    seeds[seed].push((point.step, value));
                }
            }
        }
    }
    let labels = problem.labels();
    let family = problem.groups.first().map(|g| g.first().family.as_str()).unwrap_or_default();
    let mut out = String::new();
    for (metric, groups) in logged {
        let last = groups.values().flatten().flatten().map(|p| p.0).fold(0.0, f64::max);
        let most = groups.values().flatten().map(Vec::len).max().unwrap_or(0) as f64;
        let span = if most > POINTS { (last / POINTS).ceil() } else { 1.0 };
        let series: Vec<(usize, Series)> = groups
            .into_iter()
            .map(|(i, seeds)| (i, Series { label: labels[i].clone(), seeds: seeds.len(), points: thin(&seeds, span) }))
            .filter(|(_, s)| s.points.len() > 1)
            .collect();
        if !series.is_empty() {
            out += &figure(&problem.title, &metric_title(family, &metric), span, &series);
        }
    }
    Ok(out)
}

/// Means over spans of steps, then mean and band over the seeds; a span that some seed did not log is left out.
fn thin(seeds: &[Vec<(f64, f64)>], span: f64) -> Vec<Dot> {
    let mut spans: BTreeMap<i64, Vec<(f64, Vec<f64>)>> = BTreeMap::new();
    for seed in seeds {
        let mut own: BTreeMap<i64, (f64, Vec<f64>)> = BTreeMap::new();
        for (step, value) in seed {
            let entry = own.entry(((step - 1.0) / span).floor() as i64).or_default();
            entry.0 = *step;
            entry.1.push(*value);
        }
        own.into_iter().for_each(|(index, value)| spans.entry(index).or_default().push(value));
    }
    let dot = |values: Vec<(f64, Vec<f64>)>| {
        let means: Vec<f64> = values.iter().filter_map(|(_, v)| Some(Spread::of(v)?.mean)).collect();
        Some(Dot { step: values[0].0, mean: Spread::of(&means)?.mean, band: central_interval(&means, BAND) })
    };
    spans.into_values().filter(|v| v.len() == seeds.len()).filter_map(dot).collect()
}

/// A step of 1, 2 or 5 times a power of ten that cuts `range` into about `count` parts.
fn nice_step(range: f64, count: f64) -> f64 {
    let raw = range / count;
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(power)
}

fn tick(value: f64, step: f64) -> String {
    // A sum of steps may miss zero by a rounding, and then prints as -0.
    let value = if value.abs() < 1e-9 * step { 0.0 } else { value };
    if step >= 1000.0 && value != 0.0 {
        return format!("{}k", value / 1000.0);
    }
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}

/// Range of the values, and whether the steep start of a curve, which would flatten all the rest, leaves the frame. A
/// curve's start is the first twentieth of the axis, and at most half of the curve.
fn frame(series: &[(usize, Series)], first: f64, last: f64) -> (f64, f64, bool) {
    let range = |whole: bool| {
        let late = series.iter().flat_map(|(_, s)| {
            let end = s.points.last().map_or(first, |d| d.step);
            let from = first + (0.05 * (last - first)).min(0.5 * (end - first));
            s.points.iter().filter(move |d| whole || d.step >= from)
        });
        let ends = late.flat_map(|d| [d.mean, d.band.map_or(d.mean, |b| b.0), d.band.map_or(d.mean, |b| b.1)]);
        ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)))
    };
    let ((low, high), (late_low, late_high)) = (range(true), range(false));
    let steep = late_high > late_low && high - low > 3.0 * (late_high - late_low);
    let (low, high) = if steep { (late_low, late_high) } else { (low, high) };
    let margin = if high > low { 0.05 * (high - low) } else { 0.5 * high.abs().max(1e-3) };
    (low - margin, high + margin, steep)
}

fn figure(problem: &str, metric: &str, span: f64, series: &[(usize, Series)]) -> String {
    const W: f64 = 820.0;
    const H: f64 = 360.0;
    let (left, right, top, bottom) = (70.0, W - 15.0, 12.0, H - 46.0);
    let steps = || series.iter().flat_map(|(_, s)| &s.points).map(|d| d.step);
    let (first, last) = (steps().fold(f64::INFINITY, f64::min), steps().fold(f64::NEG_INFINITY, f64::max));
    let (low, high, cut) = frame(series, first, last);
    let x = |step: f64| left + (right - left) * (step - first) / (last - first).max(1e-12);
    let y = |value: f64| bottom - (bottom - top) * (value - low) / (high - low);
    let title = format!("{problem} {metric}").trim().to_string();
    let clip: String = title.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let mut svg = format!(
        "<svg viewBox=\"0 0 {W} {H}\" role=\"img\" aria-label=\"{0} against training step\"><clipPath id=\"{clip}\"><rect x=\"{left}\" y=\"{top}\" width=\"{1}\" height=\"{2}\"/></clipPath>\n",
        escape(&title),
        right - left,
        bottom - top
    );
    let mut ticks = |low: f64, high: f64, count: f64, horizontal: bool| {
        let step = nice_step(high - low, count);
        let mut value = (low / step).ceil() * step;
        while value <= high + 1e-9 * step {
            let text = tick(value, step);
            let _ = if horizontal {
                let at = x(value);
                writeln!(
                    svg,
                    "<path class=\"axis\" d=\"M{at:.1} {bottom}v5\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                    bottom + 19.0
                )
            } else {
                let at = y(value);
                writeln!(
                    svg,
                    "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                    left - 7.0,
                    at + 4.0
                )
            };
            value += step;
        }
    };
    ticks(low, high, 6.0, false);
    ticks(first, last, 8.0, true);
    let _ = writeln!(
        svg,
        "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">training step</text><text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (left + right) / 2.0,
        H - 8.0,
        (top + bottom) / 2.0,
        escape(metric)
    );
    let _ = writeln!(svg, "<g clip-path=\"url(#{clip})\">");
    for (index, s) in series {
        let upper = s.points.iter().filter_map(|d| d.band.map(|b| (d.step, b.1)));
        let lower = s.points.iter().rev().filter_map(|d| d.band.map(|b| (d.step, b.0)));
        let band: String = upper.chain(lower).map(|(a, b)| format!("{:.1},{:.1} ", x(a), y(b))).collect();
        if !band.is_empty() {
            let _ = writeln!(svg, "<polygon class=\"b{}\" points=\"{}\"/>", index % COLOURS, band.trim_end());
        }
    }
    for (index, s) in series {
        let line: String = s.points.iter().map(|d| format!("{:.1},{:.1} ", x(d.step), y(d.mean))).collect();
        let _ = writeln!(svg, "<polyline class=\"{}\" points=\"{}\"/>", stroke(*index), line.trim_end());
    }
    svg += "</g></svg>\n";
    let mut legend = String::new();
    for (index, s) in series {
        let seeds = if s.seeds == 1 { "1 seed".into() } else { format!("{} seeds", s.seeds) };
        let _ = write!(
            legend,
            "<li><svg viewBox=\"0 0 26 10\" width=\"26\" height=\"10\" aria-hidden=\"true\"><path class=\"{}\" d=\"M1 5H25\"/></svg>{} <small>({seeds})</small></li>",
            stroke(*index),
            escape(&s.label)
        );
    }
    let mut notes = Vec::new();
    if series.iter().any(|(_, s)| s.seeds > 1) {
        notes.push("line: mean over seeds; band: the central 70 % of the seeds".to_string());
    }
    if span > 1.0 {
        notes.push(format!("each point is the mean over {span} steps"));
    }
    if cut {
        notes.push("the axis leaves out the steep start of the curves".to_string());
    }
    let notes: String = notes.iter().map(|n| format!("<li>{n}</li>")).collect();
    format!(
        "<figure class=\"chart\">\n<figcaption>{} against training step</figcaption>\n{svg}<ul class=\"legend\">{legend}</ul>\n<ul class=\"notes\">{notes}</ul>\n</figure>\n",
        escape(&title)
    )
}

fn stroke(index: usize) -> String {
    format!("l{}{}", index % COLOURS, if index >= COLOURS { " dash" } else { "" })
}
