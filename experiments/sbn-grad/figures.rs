//! RMSE and cosine against the number of samples, with 70 % intervals, as SVG (Figs. 2 and 3).
use crate::measure::{Row, counts};
use crate::tables::{distinct, layer_name, slug};
use std::fmt::Write;

const COLOURS: [&str; 8] = ["#2a78d6", "#d9541e", "#128a5f", "#b27a00", "#c2447f", "#4a3aa7", "#6b6a65", "#c22b2a"];
const PANEL: (f64, f64) = (330.0, 280.0);
/// Most samples M of a figure.
const MOST: i64 = 10_000;
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
            let panels: Vec<Panel> = (1..last).map(|l| panel(&own, &methods, l, last, rmse)).collect();
            let what = if rmse { "rmse" } else { "cosine" };
            out.push((format!("{what}-{}.svg", slug(setting)), draw(setting, &panels, &methods)));
        }
    }
    out
}

fn panel<'a>(own: &[&'a Row], methods: &[&str], layer: usize, last: usize, rmse: bool) -> Panel<'a> {
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
    let what = if rmse { "relative RMSE" } else { "cosine" };
    let range = match rmse {
        false => (-1.0, 1.0),
        true => {
            let values = || curves.iter().flat_map(|c| c.1.iter().map(|d| d.1)).filter(|v| *v > 0.0);
            let (low, high) = values().fold((f64::MAX, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
            ((low.log10() - 0.1).max(-3.0), high.log10() + 0.1)
        }
    };
    Panel { title: format!("{}: {what}", layer_name(layer, last)), curves, range, log: rmse }
}

fn draw(setting: &str, panels: &[Panel], methods: &[&str]) -> String {
    let legend_rows = methods.len().div_ceil(5) as f64;
    let (width, height) = (PANEL.0 * panels.len() as f64, PANEL.1 + 24.0 + 18.0 * legend_rows);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (i, panel) in panels.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate({:.0} 0)\">", PANEL.0 * i as f64);
        draw_panel(&mut svg, panel, methods, &format!("{}-{i}", slug(setting)));
        svg += "</g>\n";
    }
    for (i, method) in methods.iter().enumerate() {
        let (x, y) = (12.0 + (i % 5) as f64 * width / 5.0, PANEL.1 + 14.0 + 18.0 * (i / 5) as f64);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.0} {y:.0}h22\" {}/><text x=\"{:.0}\" y=\"{:.0}\">{method}</text>",
            stroke(i),
            x + 27.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{:.0}\" fill=\"#555\">{setting}; RMSE by enumeration where the states are all that is random, else and cosine over groups of M from the same samples; band: the central 70 % of the groups</text>\n</svg>",
        height - 6.0
    );
    svg
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
