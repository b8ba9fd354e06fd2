//! Figures 1 and D.1: training loss, and accuracy along ARM's trajectory, one column a number of bits.
use crate::measure::Row;
use crate::tables::{ORDER, Runs};
use std::fmt::Write;

const COLOURS: [&str; 9] =
    ["#6b6a65", "#2a78d6", "#4a3aa7", "#d9541e", "#b27a00", "#c2447f", "#128a5f", "#7a4b2a", "#1f9fb0"];
const PANEL: (f64, f64) = (330.0, 220.0);
/// Left, right, top and bottom of the frame in a panel.
const FRAME: (f64, f64, f64, f64) = (56.0, 320.0, 26.0, 184.0);

/// Epoch, value, band.
type Dot = (f64, f64, Option<(f64, f64)>);

struct Panel {
    title: String,
    curves: Vec<(usize, Vec<Dot>)>,
    /// A dashed line.
    best: Vec<(f64, f64)>,
    logarithmic: bool,
}

/// File name and content of each that has something to show.
pub fn all(runs: &Runs) -> Vec<(String, String)> {
    let bits = runs.bits();
    let row = |make: &dyn Fn(i64) -> Panel| bits.iter().map(|n| make(*n)).collect::<Vec<_>>();
    let best = |n: i64| {
        let arm = runs.measured(n, "arm");
        arm.iter().map(|r| (r.epoch as f64, -r.norm)).collect::<Vec<_>>()
    };
    let cosine = |r: &Row| (r.epoch as f64, r.cosine, r.cosine_band);
    let improvement = |r: &Row| (r.epoch as f64, r.improvement, r.improvement_band);
    let rmse = |r: &Row| (r.epoch as f64, r.rmse, r.rmse_band);
    let figure1 = [
        row(&|n| loss(runs, n)),
        row(&|n| Panel { best: best(n), ..measured(runs, n, "expected improvement", false, &improvement) }),
        row(&|n| measured(runs, n, "cosine similarity", false, &cosine)),
    ];
    let figure_d1 = [row(&|n| measured(runs, n, "RMSE", true, &rmse))];
    let full = |rows: &[Vec<Panel>]| rows.iter().flatten().any(|p| !p.curves.is_empty());
    let mut out = vec![];
    for (name, rows) in [("figure1", &figure1[..]), ("figure-d1", &figure_d1[..])] {
        if full(rows) {
            out.push((format!("{name}.svg"), draw(rows)));
        }
    }
    out
}

fn loss(runs: &Runs, bits: i64) -> Panel {
    let curve = |(i, name): (usize, &&str)| {
        // the loss of fresh parameters, of which nothing is known of the words, would flatten all others
        let trained = runs.curve(bits, name, "curve")?.into_iter().filter(|p| p.0 > 0.0);
        let dots: Vec<Dot> = trained.map(|(x, y)| (x, y, None)).collect();
        (dots.len() > 1).then_some((i, dots))
    };
    let curves = ORDER.iter().enumerate().filter_map(curve).collect();
    Panel { title: format!("training loss, {bits} bits"), curves, best: vec![], logarithmic: false }
}

fn measured(runs: &Runs, bits: i64, what: &str, logarithmic: bool, dot: &dyn Fn(&Row) -> Dot) -> Panel {
    let curve = |(i, name): (usize, &&str)| {
        let dots: Vec<Dot> = runs.measured(bits, name).into_iter().map(dot).collect();
        (!dots.is_empty()).then_some((i, dots))
    };
    let curves = ORDER.iter().enumerate().filter_map(curve).collect();
    Panel { title: format!("{what}, {bits} bits"), curves, best: vec![], logarithmic }
}

/// A step of 1, 2 or 5 times a power of ten that cuts `span` into two to five parts.
fn tick(span: f64) -> f64 {
    let power = 10f64.powf((span / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| span / s <= 5.0).unwrap_or(power)
}

fn draw(rows: &[Vec<Panel>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(1);
    let drawn = |i: &usize| rows.iter().flatten().flat_map(|p| &p.curves).any(|(c, _)| c == i);
    let shown: Vec<usize> = (0..ORDER.len()).filter(drawn).collect();
    let each = 2 * columns;
    let legend = 16.0 * shown.len().div_ceil(each) as f64;
    let (width, height) = (PANEL.0 * columns as f64, PANEL.1 * rows.len() as f64 + legend + 30.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (i, row) in rows.iter().enumerate() {
        for (j, panel) in row.iter().enumerate() {
            let _ = writeln!(svg, "<g transform=\"translate({:.0} {:.0})\">", PANEL.0 * j as f64, PANEL.1 * i as f64);
            draw_panel(&mut svg, panel);
            svg += "</g>\n";
        }
    }
    for (place, i) in shown.into_iter().enumerate() {
        let x = 12.0 + (place % each) as f64 * PANEL.0 / 2.0;
        let y = height - legend - 14.0 + 16.0 * (place / each) as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.0} {y:.0}h18\" stroke=\"{}\" stroke-width=\"1.6\"/><text x=\"{:.0}\" y=\"{:.0}\" font-size=\"10\">{}</text>",
            COLOURS[i],
            x + 22.0,
            y + 4.0,
            ORDER[i]
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{:.0}\" fill=\"#555\">by epoch; bars: central 70 % of the trials; dashed: the best possible</text>\n</svg>",
        height - 6.0
    );
    svg
}

fn draw_panel(svg: &mut String, panel: &Panel) {
    let (left, right, top, bottom) = FRAME;
    let scale = |v: f64| if panel.logarithmic { v.max(1e-9).log10() } else { v };
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"16\" font-weight=\"bold\">{}</text>", panel.title);
    let dots = || panel.curves.iter().flat_map(|(_, c)| c);
    let ends = dots().flat_map(|d| [d.1, d.2.map_or(d.1, |b| b.0), d.2.map_or(d.1, |b| b.1)]);
    let values = ends.chain(panel.best.iter().map(|b| b.1)).map(scale);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let last = dots().map(|d| d.0).fold(0.0, f64::max);
    if !(low.is_finite() && last > 0.0) {
        return;
    }
    let margin = (0.05 * (high - low)).max(1e-6 * high.abs()).max(1e-9);
    let (low, high) = (low - margin, high + margin);
    let x = |e: f64| left + (right - left) * e / last;
    let y = |v: f64| bottom - (bottom - top) * (scale(v) - low) / (high - low);
    let step = tick(last);
    for k in 0..=(last / step) as i64 {
        let at = step * k as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{0:.1} {top}V{bottom}\" stroke=\"#e4e4e0\"/><text x=\"{0:.1}\" y=\"{1:.0}\" text-anchor=\"middle\">{at}</text>",
            x(at),
            bottom + 15.0
        );
    }
    let marks: Vec<f64> = if panel.logarithmic {
        (low.ceil() as i64..=high.floor() as i64).map(|e| 10f64.powi(e as i32)).collect()
    } else {
        let step = tick(high - low);
        ((low / step).ceil() as i64..=(high / step).floor() as i64).map(|k| step * k as f64).collect()
    };
    for v in marks {
        let text = format!("{v:.6}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {0:.1}H{right}\" stroke=\"#e4e4e0\"/><text x=\"{1:.0}\" y=\"{2:.1}\" text-anchor=\"end\">{text}</text>",
            y(v),
            left - 5.0,
            y(v) + 4.0
        );
    }
    let line = |points: &mut dyn Iterator<Item = (f64, f64)>| -> String {
        points.map(|(a, b)| format!("{:.1},{:.1} ", x(a), y(b))).collect()
    };
    for (i, curve) in &panel.curves {
        for (at, _, band) in curve {
            if let Some((from, to)) = band {
                let _ = writeln!(
                    svg,
                    "<path d=\"M{:.1} {:.1}V{:.1}\" stroke=\"{}\" opacity=\".45\"/>",
                    x(*at) + 1.5 * (*i as f64 - 4.0),
                    y(*from),
                    y(*to),
                    COLOURS[*i]
                );
            }
        }
        let points = line(&mut curve.iter().map(|d| (d.0, d.1)));
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" stroke=\"{}\" stroke-width=\"1.6\" fill=\"none\"/>",
            points.trim_end(),
            COLOURS[*i]
        );
    }
    if !panel.best.is_empty() {
        let points = line(&mut panel.best.iter().copied());
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" stroke=\"#222\" stroke-dasharray=\"4 3\" fill=\"none\"/>",
            points.trim_end()
        );
    }
}
