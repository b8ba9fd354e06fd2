//! One table, three renderings: terminal, HTML, Markdown.
use comfy_table::{CellAlignment, presets};

/// A table of text cells.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Name that a README marker uses: `vae-mnist-8x4-train_neg_elbo`.
    pub name: String,
    /// Heading.
    pub title: String,
    /// Column heads.
    pub columns: Vec<String>,
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<String>>,
    /// Footnotes.
    pub notes: Vec<String>,
}

impl Table {
    /// A column is set right when all its filled cells open like a number.
    fn right(&self, column: usize) -> bool {
        let number = |s: &String| s.starts_with(|c: char| c.is_ascii_digit() || "+-−".contains(c)) || s.is_empty();
        self.rows.iter().all(|r| number(&r[column])) && self.rows.iter().any(|r| !r[column].is_empty())
    }

    /// For a terminal: title, box-drawn table, notes; ends with a newline.
    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(&self.columns);
        for row in &self.rows {
            table.add_row(row);
        }
        for index in 0..self.columns.len() {
            if let (true, Some(column)) = (self.right(index), table.column_mut(index)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let notes: String = self.notes.iter().map(|n| format!("  note: {n}\n")).collect();
        format!("{}\n{table}\n{notes}", self.title)
    }

    /// As an HTML `figure`; every text is escaped.
    pub fn html(&self) -> String {
        let class = |i: usize| if self.right(i) { " class=\"num\"" } else { "" };
        let cells = |tag: &str, row: &[String]| -> String {
            row.iter().enumerate().map(|(i, c)| format!("<{tag}{}>{}</{tag}>", class(i), escape(c))).collect()
        };
        let rows: String = self.rows.iter().map(|r| format!("<tr>{}</tr>\n", cells("td", r))).collect();
        let notes: String = self.notes.iter().map(|n| format!("<li>{}</li>", escape(n))).collect();
        let notes = if notes.is_empty() { notes } else { format!("<ul class=\"notes\">{notes}</ul>\n") };
        format!(
            "<figure>\n<figcaption>{}</figcaption>\n<div class=\"scroll\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n{notes}</figure>\n",
            escape(&self.title),
            cells("th", &self.columns)
        )
    }

    /// As a Markdown table with its notes below; the title is left to the page.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            format!("| {} |\n", cells.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
        };
        let rule = (0..self.columns.len()).map(|i| if self.right(i) { "---:" } else { "---" }).collect::<Vec<_>>();
        let rows: String = self.rows.iter().map(|r| line(r)).collect();
        let notes: String = self.notes.iter().map(|n| format!("\n{n}.\n")).collect();
        format!("{}| {} |\n{rows}{notes}", line(&self.columns), rule.join(" | "))
    }
}

/// Text made safe for HTML, attributes included.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Decimals that show two digits of a spread, at least two and at most six.
fn decimals(spread: f64) -> usize {
    if spread > 0.0 { (1.0 - spread.log10().floor()).clamp(2.0, 6.0) as usize } else { 2 }
}

/// A figure for a table: whole numbers as such, two decimals from 1 on, four digits below, powers of ten when tiny.
pub(crate) fn number(x: f64, spread: Option<f64>) -> String {
    let small = x != 0.0 && x.abs() < 1e-4;
    match spread {
        _ if !x.is_finite() => x.to_string(),
        Some(s) if !small || s >= 1e-4 => format!("{x:.*}", decimals(s)),
        None if x.fract() == 0.0 => format!("{x}"),
        None if x.abs() >= 1.0 => format!("{x:.2}"),
        None if !small => format!("{x:.*}", decimals(x.abs() / 100.0)),
        _ => format!("{x:.2e}"),
    }
}

/// `mean ± std`, or the mean alone.
pub(crate) fn mean_std(mean: f64, std: Option<f64>) -> String {
    match std {
        Some(s) if mean != 0.0 && mean.abs() < 1e-4 && s < 1e-4 => format!("{mean:.2e} ± {s:.1e}"),
        // every run has the same value: the spread asks for no digits, the value for its own
        Some(0.0) => format!("{} ± 0", number(mean, None)),
        Some(s) => format!("{} ± {s:.*}", number(mean, Some(s)), decimals(s)),
        None => number(mean, None),
    }
}
