//! Parse trees: from merges to spans, F1 against the expression's own structure, bracketing and pictures.
use std::collections::HashSet;
use std::fmt::Write;
use thruway::data::listops::{Example, Units};

/// Where a node is drawn: along the words, and levels above them.
type Place = (f64, usize);
/// First unit, and one past the last.
pub type Span = (usize, usize);

/// The spans of all inner nodes, in the order of their merging: `merges[i]` joins the neighbours at that place and the next.
pub fn spans(units: usize, merges: &[usize]) -> Vec<Span> {
    let mut nodes: Vec<Span> = (0..units).map(|i| (i, i + 1)).collect();
    let mut spans = Vec::with_capacity(merges.len());
    for &k in merges {
        let right = nodes.remove(k + 1);
        nodes[k].1 = right.1;
        spans.push(nodes[k]);
    }
    spans
}

/// Merges of a tree that has all of these spans, nested in one another: inner ones first, left-branching within.
pub fn along(units: usize, spans: &[Span]) -> Vec<usize> {
    let mut inner_first = spans.to_vec();
    inner_first.push((0, units));
    inner_first.sort_by_key(|&(from, to)| to - from);
    let mut nodes: Vec<Span> = (0..units).map(|i| (i, i + 1)).collect();
    let mut merges = Vec::with_capacity(units);
    for (from, to) in inner_first {
        let k = nodes.partition_point(|node| node.0 < from);
        while nodes[k].1 < to {
            nodes[k].1 = nodes.remove(k + 1).1;
            merges.push(k);
        }
    }
    merges
}

/// Sums over sentences, for means. The span of the whole sentence, which every tree has, is not counted.
#[derive(Debug, Default, Clone, Copy)]
pub struct Agreement {
    f1: f64,
    trees: f64,
    found: f64,
    operations: f64,
}

impl Agreement {
    /// Adds a sentence; one without an inner span of its own structure is left out.
    pub fn add(&mut self, example: &Example, units: Units, merges: &[usize]) {
        let length = merges.len() + 1;
        let inner = |spans: &[Span]| -> HashSet<Span> {
            let of_units = units.spans(&example.expression, spans);
            of_units.into_iter().filter(|&(a, b)| b - a > 1 && b - a < length).collect()
        };
        let gold = inner(&example.expression.binary_spans());
        if gold.is_empty() {
            return;
        }
        let ours: HashSet<Span> = spans(length, merges).into_iter().filter(|&(a, b)| b - a < length).collect();
        let common = gold.intersection(&ours).count() as f64;
        self.f1 += 2.0 * common / (gold.len() + ours.len()) as f64;
        self.trees += 1.0;
        let operations = inner(&example.expression.spans());
        self.found += operations.intersection(&ours).count() as f64;
        self.operations += operations.len() as f64;
    }

    /// Mean F1 of the trees against the binary trees of the official files, in percent; `None` where no sentence has an inner
    /// node.
    pub fn f1(&self) -> Option<f64> {
        (self.trees > 0.0).then(|| 100.0 * self.f1 / self.trees)
    }

    /// Share of the inner operations, from bracket to bracket, that are a node of the tree, in percent; `None` where there are
    /// none.
    pub fn operations(&self) -> Option<f64> {
        (self.operations > 0.0).then(|| 100.0 * self.found / self.operations)
    }
}

/// The tree as text: brackets around every node of two.
pub fn bracketing(words: &[String], merges: &[usize]) -> String {
    let mut nodes: Vec<String> = words.to_vec();
    for &k in merges {
        let right = nodes.remove(k + 1);
        nodes[k] = format!("({} {right})", nodes[k]);
    }
    nodes.swap_remove(0)
}

/// The tree as an SVG: words in a row, each node above the middle of its children; nodes that are an operation of the
/// expression's own in green.
pub fn svg(example: &Example, units: Units, merges: &[usize], predicted: i64) -> String {
    let words = units.spell(&example.expression);
    let own: HashSet<Span> = units.spans(&example.expression, &example.expression.spans()).into_iter().collect();
    // x, height above the words, span
    let mut nodes: Vec<(f64, usize, Span)> = (0..words.len()).map(|i| (i as f64, 0, (i, i + 1))).collect();
    let mut inner: Vec<(Place, Span, [Place; 2])> = Vec::new();
    for &k in merges {
        let (right, left) = (nodes.remove(k + 1), nodes[k]);
        let node = ((left.0 + right.0) / 2.0, left.1.max(right.1) + 1, (left.2.0, right.2.1));
        inner.push(((node.0, node.1), node.2, [(left.0, left.1), (right.0, right.1)]));
        nodes[k] = node;
    }
    let top = nodes[0].1 as f64;
    let (dx, dy) = (34.0, 16.0);
    let at = |x: f64, level: usize| (20.0 + x * dx, 40.0 + (top - level as f64) * dy);
    let (width, height) = (40.0 + (words.len() as f64 - 1.0) * dx, 70.0 + top * dy);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"monospace\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n<text x=\"10\" y=\"18\">value {}, predicted {predicted}</text>\n",
        example.label
    );
    for &((x, level), span, children) in &inner {
        let colour = if own.contains(&span) { "#1a7f37" } else { "#8c959f" };
        let (x, y) = at(x, level);
        for (cx, cl) in children {
            let (cx, cy) = at(cx, cl);
            let _ = writeln!(out, "<path d=\"M{x:.1} {y:.1}L{cx:.1} {cy:.1}\" stroke=\"{colour}\" fill=\"none\"/>");
        }
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
    }
    for (i, word) in words.iter().enumerate() {
        let (x, y) = at(i as f64, 0);
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{word}</text>", y + 16.0);
    }
    out + "</svg>\n"
}
