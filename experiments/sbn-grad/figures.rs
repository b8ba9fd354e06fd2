//! RMSE and cosine against the number of samples, with 70 % intervals, and losses of training, as SVG (Figs. 2, 3 and C.2).
use crate::measure::{Row, counts};
use crate::tables::{Measured, distinct, layer_name, shape_name, shapes, slug};
use std::fmt::Write;

const COLOURS: [&str; 8] = ["#2a78d6", "#d9541e", "#128a5f", "#b27a00", "#c2447f", "#4a3aa7", "#6b6a65", "#c22b2a"];
const PANEL: (f64, f64) = (330.0, 280.0);
/// Most samples M of a figure.
const MOST: i64 = 10_000;
/// Panels beside each other.
const ABREAST: usize = 3;
/// Right of the last panel: half of the last label of its axis.
const MARGIN: f64 = 14.0;
/// Of an entry of the legend.
const ENTRY: f64 = 195.0;
/// Left, right, top and bottom of the frame in a panel.
const FRAME: (f64, f64, f64, f64) = (52.0, 322.0, 26.0, 244.0);
/// Not drawn: they coincide with another curve in all layers but the head.
const LEFT_OUT: [&str; 1] = ["psa, plain head"];

/// One curve: (M, value, interval).
type Curve<'a> = (&'a str, Vec<(f64, f64, Option<(f64, f64)>)>);

struct Panel<'a> {
    title: String,
    curves: Vec<Curve<'a>>,
    /// Limits, in log10 if `log`.
    range: (f64, f64),
    log: bool,
}

/// File name and content of each figure: RMSE by layer and cosine by layer for every setting.
pub fn all(rows: &[Row]) -> Vec<(String, String)> {
    let mut out = vec![];
    let methods: Vec<&str> = distinct(rows, |r| &r.method).into_iter().filter(|m| !LEFT_OUT.contains(m)).collect();
    for setting in distinct(rows, |r| &r.setting) {
        let own: Vec<&Row> = rows.iter().filter(|r| r.setting == setting).collect();
        let last = own.iter().map(|r| r.layer).max().unwrap_or(0);
        for rmse in [true, false] {
            let titled = |l: usize| {
                let what = if rmse { "relative RMSE" } else { "cosine" };
                panel(&own, &methods, l, format!("{}: {what}", layer_name(l, last)), rmse)
            };
            let panels: Vec<Panel> = (1..last).map(titled).collect();
            let what = if rmse { "rmse" } else { "cosine" };
            out.push((format!("{what}-{}.svg", slug(setting)), draw(setting, &panels, &methods)));
        }
    }
    out
}

/// RMSE in layer 1 of networks of several widths and depths, each of the first seed (Figs. C.5 and C.6).
pub fn architectures(runs: &[Measured]) -> Vec<(String, String)> {
    let methods = runs.first().map(|r| distinct(&r.rows, |r| &r.method)).unwrap_or_default();
    let methods: Vec<&str> = methods.into_iter().filter(|m| !LEFT_OUT.contains(m)).collect();
    let of = |units: &[i64]| {
        let own: Vec<&Row> = runs.iter().find(|r| r.units == units).iter().flat_map(|r| &r.rows).collect();
        panel(&own, &methods, 1, format!("{}, layer 1: relative RMSE", shape_name(units)), true)
    };
    let panels: Vec<Panel> = shapes(runs).into_iter().map(of).collect();
    vec![("rmse-architectures.svg".into(), draw("architectures", &panels, &methods))]
}

fn panel<'a>(own: &[&'a Row], methods: &[&str], layer: usize, title: String, rmse: bool) -> Panel<'a> {
    let here = own.iter().filter(|r| r.layer == layer && methods.contains(&r.method.as_str()));
    let curves: Vec<Curve> = here
        .map(|r| {
            // the 1, 2, 5 series to 10,000, whatever T was: beyond it a cosine has no value, and a band none for few groups
            let dots = counts(MOST).filter_map(|m| {
                let point = r.points.iter().find(|p| p.m == if r.samples == 1 { 1 } else { m });
                let value = if rmse { r.rmse(m) } else { point.map(|p| p.cosine) };
                let band = point.and_then(|p| if rmse { p.rmse_band } else { p.cosine_band });
                Some((m as f64, value?, band))
            });
            (r.method.as_str(), dots.collect())
        })
        .collect();
    let range = match rmse {
        false => (-1.0, 1.0),
        true => {
            let values = || curves.iter().flat_map(|c| c.1.iter().map(|d| d.1)).filter(|v| *v > 0.0);
            let (low, high) = values().fold((f64::MAX, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
            ((low.log10() - 0.1).max(-4.0), high.log10() + 0.1)
        }
    };
    Panel { title, curves, range, log: rmse }
}

fn draw(setting: &str, panels: &[Panel], methods: &[&str]) -> String {
    let width = PANEL.0 * panels.len().min(ABREAST) as f64 + MARGIN;
    let columns = (width / ENTRY) as usize;
    let below = PANEL.1 * panels.len().div_ceil(ABREAST) as f64;
    let height = below + 38.0 + 18.0 * methods.len().div_ceil(columns) as f64;
    let mut svg = open(width, height);
    for (i, panel) in panels.iter().enumerate() {
        let (x, y) = (PANEL.0 * (i % ABREAST) as f64, PANEL.1 * (i / ABREAST) as f64);
        let _ = writeln!(svg, "<g transform=\"translate({x:.0} {y:.0})\">");
        draw_panel(&mut svg, panel, methods, &format!("{}-{i}", slug(setting)));
        svg += "</g>\n";
    }
    legend(&mut svg, methods, columns, below);
    let notes = [
        &format!("{setting}; band: the central 70 % of the groups of M samples"),
        "RMSE by enumeration where the states are all that is random; else, and cosine, over groups of M from the same samples",
    ];
    for (line, note) in notes.iter().enumerate() {
        let y = height - 20.0 + 14.0 * line as f64;
        let _ = writeln!(svg, "<text x=\"12\" y=\"{y:.0}\" fill=\"#555\">{note}</text>");
    }
    svg + "</svg>\n"
}

fn open(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    )
}

/// Names beside their strokes.
fn legend(svg: &mut String, names: &[&str], columns: usize, top: f64) {
    for (i, name) in names.iter().enumerate() {
        let (x, y) = (12.0 + (i % columns) as f64 * ENTRY, top + 14.0 + 18.0 * (i / columns) as f64);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.0} {y:.0}h22\" {}/><text x=\"{:.0}\" y=\"{:.0}\">{name}</text>",
            stroke(i),
            x + 27.0,
            y + 4.0
        );
    }
}

/// The exact losses along training under several methods (Fig. C.2): expected loss, and that of the ensemble.
pub fn training(runs: &[Measured]) -> String {
    let width = 2.0 * PANEL.0 + MARGIN;
    let columns = (width / ENTRY) as usize;
    let mut svg = open(width, PANEL.1 + 24.0 + 18.0 * runs.len().div_ceil(columns) as f64);
    let (left, right, top, bottom) = FRAME;
    let all = || runs.iter().flat_map(|r| &r.history);
    let most = all().map(|h| h.epoch).fold(1.0, f64::max);
    let losses = || all().flat_map(|h| [h.expected_loss, h.ensemble_loss]);
    let range = (losses().fold(f64::MAX, f64::min), losses().fold(0.0, f64::max));
    let margin = 0.05 * (range.1 - range.0).max(1e-3);
    let range = (range.0 - margin, range.1 + margin);
    let x = |epoch: f64| left + (right - left) * epoch / most;
    let y = |loss: f64| bottom - (bottom - top) * (loss - range.0) / (range.1 - range.0);
    let step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].into_iter().find(|s| (range.1 - range.0) / s <= 8.0).unwrap_or(1.0);
    for (panel, title) in ["expected loss (Eq. 15), nats", "ensemble loss (Eq. 16), nats"].into_iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate({:.0} 0)\">", PANEL.0 * panel as f64);
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"16\" font-weight=\"bold\">{title}</text>");
        for quarter in 0..=4 {
            let epoch = most * quarter as f64 / 4.0;
            let _ = writeln!(
                svg,
                "<path d=\"M{0:.1} {top}V{bottom}\" stroke=\"#e4e4e0\"/><text x=\"{0:.1}\" y=\"{1:.0}\" text-anchor=\"middle\">{epoch:.0}</text>",
                x(epoch),
                bottom + 15.0
            );
        }
        for k in (range.0 / step).ceil() as i64..=(range.1 / step).floor() as i64 {
            let loss = k as f64 * step;
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {0:.1}H{right}\" stroke=\"#e4e4e0\"/><text x=\"{1:.0}\" y=\"{2:.1}\" text-anchor=\"end\">{loss:.2}</text>",
                y(loss),
                left - 5.0,
                y(loss) + 4.0
            );
        }
        let middle = (left + right) / 2.0;
        let _ = writeln!(svg, "<text x=\"{middle:.0}\" y=\"{:.0}\" text-anchor=\"middle\">epoch</text>", bottom + 29.0);
        for (i, run) in runs.iter().enumerate() {
            let loss = |h: &crate::tables::Loss| if panel == 0 { h.expected_loss } else { h.ensemble_loss };
            let line: String = run.history.iter().map(|h| format!("{:.1},{:.1} ", x(h.epoch), y(loss(h)))).collect();
            let _ = writeln!(svg, "<polyline points=\"{}\" {}/>", line.trim_end(), stroke(i));
        }
        svg += "</g>\n";
    }
    legend(&mut svg, &runs.iter().map(|r| r.estimator.as_str()).collect::<Vec<_>>(), columns, PANEL.1);
    svg + "</svg>\n"
}

fn stroke(index: usize) -> String {
    let dash = if index >= COLOURS.len() { " stroke-dasharray=\"5 3\"" } else { "" };
    format!("stroke=\"{}\" stroke-width=\"1.6\" fill=\"none\"{dash}", COLOURS[index % COLOURS.len()])
}

fn draw_panel(svg: &mut String, panel: &Panel, methods: &[&str], clip: &str) {
    let (left, right, top, bottom) = FRAME;
    let x = |m: f64| left + (right - left) * m.log10() / (MOST as f64).log10();
    let y = |v: f64| {
        let v = if panel.log { v.max(1e-6).log10() } else { v };
        bottom - (bottom - top) * (v - panel.range.0) / (panel.range.1 - panel.range.0)
    };
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"16\" font-weight=\"bold\">{}</text>", panel.title);
    for e in 0..=4 {
        let at = x(10f64.powi(e));
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#e4e4e0\"/><text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            bottom + 15.0,
            10i64.pow(e as u32)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">samples M</text>",
        (left + right) / 2.0,
        bottom + 29.0
    );
    let ticks: Vec<f64> = if panel.log {
        (panel.range.0.ceil() as i32..=panel.range.1.floor() as i32).map(|e| 10f64.powi(e)).collect()
    } else {
        vec![-1.0, -0.5, 0.0, 0.5, 1.0]
    };
    for v in ticks {
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {0:.1}H{right}\" stroke=\"#e4e4e0\"/><text x=\"{1:.0}\" y=\"{2:.1}\" text-anchor=\"end\">{v}</text>",
            y(v),
            left - 5.0,
            y(v) + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<clipPath id=\"{0}{clip}\"><rect x=\"{left}\" y=\"{top}\" width=\"{1}\" height=\"{2}\"/></clipPath><g clip-path=\"url(#{0}{clip})\">",
        if panel.log { "r" } else { "c" },
        right - left,
        bottom - top
    );
    for (name, dots) in &panel.curves {
        let index = methods.iter().position(|m| m == name).expect("it is drawn");
        let banded: Vec<_> = dots.iter().filter_map(|d| Some((d.0, d.2?))).collect();
        let edge = banded.iter().map(|(m, b)| (m, b.1)).chain(banded.iter().rev().map(|(m, b)| (m, b.0)));
        let edge: String = edge.map(|(m, v)| format!("{:.1},{:.1} ", x(*m), y(v))).collect();
        if !edge.is_empty() {
            let _ = writeln!(
                svg,
                "<polygon points=\"{}\" fill=\"{}\" opacity=\".12\"/>",
                edge.trim_end(),
                COLOURS[index % COLOURS.len()]
            );
        }
    }
    for (name, dots) in &panel.curves {
        let index = methods.iter().position(|m| m == name).expect("it is drawn");
        let line: String = dots.iter().map(|d| format!("{:.1},{:.1} ", x(d.0), y(d.1))).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" {}/>", line.trim_end(), stroke(index));
    }
    *svg += "</g>\n";
}
