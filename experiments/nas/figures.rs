//! What a search writes of its distribution over cells: a file of numbers and a picture.
use crate::search::Entry;
use std::fmt::Write;
use std::path::Path;
use thruway::error::{Error, Result};
use thruway::nas::{EDGES, Op};

const COLOURS: [&str; 5] = ["#d9d8d3", "#b27a00", "#7fb2e5", "#2a78d6", "#128a5f"];

/// `architecture.json`, an entry an epoch, and `architecture.svg`: of each edge the probabilities of the operations over the
/// epochs.
pub fn write_history(dir: &Path, history: &[Entry]) -> Result<()> {
    let write = |name: &str, text: &str| {
        let (path, aside) = (dir.join(name), dir.join(format!("{name}.tmp")));
        std::fs::write(&aside, text).map_err(Error::io(&aside))?;
        std::fs::rename(&aside, &path).map_err(Error::io(&path))
    };
    let lines: Vec<String> = history.iter().map(serde_json::to_string).collect::<serde_json::Result<_>>()?;
    write("architecture.json", &format!("[\n{}\n]\n", lines.join(",\n")))?;
    write("architecture.svg", &picture(history))
}

fn picture(history: &[Entry]) -> String {
    let (width, height) = (240.0, 150.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        3.0 * width,
        2.0 * height + 30.0
    );
    let n = history.len().max(1) as f64;
    for (e, (to, from)) in EDGES.iter().enumerate() {
        let (left, top) = ((e % 3) as f64 * width + 12.0, (e / 3) as f64 * height + 24.0);
        let (w, h) = (width - 24.0, height - 36.0);
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"{:.0}\">edge {to} from {from}</text>", top - 6.0);
        let mut below = vec![0.0; history.len()];
        for (k, colour) in COLOURS.iter().enumerate() {
            let above: Vec<f64> = below.iter().zip(history).map(|(b, entry)| b + entry.probabilities[e][k]).collect();
            // an epoch is a step as wide as all others
            let at = |i: usize, side: usize| left + w * (i + side) as f64 / n;
            let y = |p: f64| top + h * (1.0 - p);
            let mut points = Vec::new();
            for (i, p) in above.iter().enumerate() {
                points.extend([0, 1].map(|side| format!("{:.1},{:.1}", at(i, side), y(*p))));
            }
            for (i, p) in below.iter().enumerate().rev() {
                points.extend([1, 0].map(|side| format!("{:.1},{:.1}", at(i, side), y(*p))));
            }
            let _ = writeln!(svg, "<polygon points=\"{}\" fill=\"{colour}\"/>", points.join(" "));
            below = above;
        }
    }
    for (k, op) in Op::ALL.iter().enumerate() {
        let (x, y) = (12.0 + k as f64 * 120.0, 2.0 * height + 12.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            COLOURS[k],
            x + 17.0,
            y + 10.0,
            op.name()
        );
    }
    svg + "</svg>\n"
}
