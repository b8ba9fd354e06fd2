//! The published numbers of the ReinMax paper (Liu et al. 2023, arXiv 2304.08612), Tables 1 to 11, and of the papers on
//! Boolean and categorical generative models that `sbn-vae` repeats (GSB, FouST).
//!
//! They are data files beside the experiment they belong to (`experiments/<family>/published/table<n>.json`),
//! embedded here, so a binary needs no path. In every file a row is an estimator under this crate's name (`gst` is
//! the paper's GST-1.0, `gumbel-rao` its GR-MCK) and a column is a setting: `8x4` is 8 classes and 4 latent
//! variables. What the paper prints wrongly is kept as printed, with a `doubt` that says so.
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// One table of the paper.
#[derive(Debug, Clone, Deserialize)]
pub struct Table {
    /// Number in the paper.
    pub table: u32,
    /// Where it was published.
    pub paper: Paper,
    /// Caption, as printed.
    pub caption: String,
    /// Name of the metric in a run's summary, where the table holds one metric.
    #[serde(default)]
    pub metric: Option<String>,
    /// Unit of the entries.
    #[serde(default)]
    pub unit: String,
    /// Which way is better.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Runs (seeds) behind each entry; `None` where the paper does not say.
    #[serde(default)]
    pub n: Option<usize>,
    /// Conditions of the runs: epochs, batch size, data set ...
    #[serde(default)]
    pub conditions: Map<String, Value>,
    /// Settings, in printed order.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Estimators, in printed order.
    #[serde(default)]
    pub rows: Vec<String>,
    /// The entries.
    #[serde(default)]
    pub cells: Vec<Cell>,
    /// Hyper-parameters (Table 8).
    #[serde(default)]
    pub hyper: Vec<Hyper>,
    /// Values searched over (Table 7).
    #[serde(default)]
    pub search_space: Option<SearchSpace>,
    /// What a reader must know: errors in print, differences between paper and published code.
    pub notes: Vec<String>,
}

/// The source of a table.
#[derive(Debug, Clone, Deserialize)]
pub struct Paper {
    /// All authors.
    pub authors: String,
    /// Title.
    pub title: String,
    /// Year of publication.
    pub year: u32,
    /// arXiv number, where there is one.
    #[serde(default)]
    pub arxiv: String,
    /// Where else it can be had.
    #[serde(default)]
    pub url: String,
    /// What it is called where it is not by its authors.
    #[serde(default)]
    pub name: Option<String>,
}

impl Paper {
    /// As in a heading: `Liu et al. 2023`, or its name.
    pub fn short(&self) -> String {
        let first = self.authors.split(',').next().unwrap_or_default();
        let surname = first.split(' ').next_back().unwrap_or_default();
        self.name.clone().unwrap_or_else(|| format!("{surname} et al. {}", self.year))
    }
}

impl Table {
    /// The entry of a column and row; where several differ in their number of samples, the one of that number.
    pub fn cell(&self, column: &str, row: &str, samples: Option<i64>) -> Option<&Cell> {
        let mut found: Vec<&Cell> = self.cells.iter().filter(|c| c.column == column && c.row == row).collect();
        if found.len() > 1 {
            found.retain(|c| c.samples.map(i64::from) == samples);
        }
        found.pop().filter(|_| found.is_empty())
    }
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Lower is better.
    Lower,
    /// Higher is better.
    Higher,
}

/// One entry: mean and standard deviation over runs.
#[derive(Debug, Clone, Deserialize)]
pub struct Cell {
    /// Estimator.
    pub row: String,
    /// Setting.
    pub column: String,
    /// Mean over runs.
    pub mean: f64,
    /// Standard deviation over runs, where printed.
    pub std: Option<f64>,
    /// Runs behind it; the table's `n` unless the entry has its own.
    #[serde(default)]
    pub n: Option<usize>,
    /// Unit; the table's unless the entry has its own.
    #[serde(default)]
    pub unit: String,
    /// Monte Carlo samples, where the table lists several (Table 3).
    #[serde(default)]
    pub samples: Option<u32>,
    /// The entry as printed, where that says more than the number.
    #[serde(default)]
    pub printed: Option<String>,
    /// Another paper that the entry is quoted from.
    #[serde(default)]
    pub source: Option<String>,
    /// Why the entry cannot be right; it then stands for nothing in a comparison.
    #[serde(default)]
    pub doubt: Option<String>,
    /// A remark that does not disqualify it.
    #[serde(default)]
    pub note: Option<String>,
}

/// The settings the paper's search chose (Table 8).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Hyper {
    /// Estimator.
    pub row: String,
    /// Preset: `8x4` ... `10x30`, `listops`.
    pub column: String,
    /// `adam` or `radam`.
    pub optimizer: String,
    /// Learning rate.
    pub lr: f64,
    /// Temperature.
    pub tau: f64,
}

/// The grid of Table 7.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SearchSpace {
    /// Optimizers.
    pub optimizer: Vec<String>,
    /// Learning rates.
    pub lr: Vec<f64>,
    /// Temperatures.
    pub tau: Vec<f64>,
}

static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
    [
        include_str!("../../experiments/listops/published/table1.json"),
        include_str!("../../experiments/vae/published/table2.json"),
        include_str!("../../experiments/vae/published/table3.json"),
        include_str!("../../experiments/nas/published/table4.json"),
        include_str!("../../experiments/vae/published/table5.json"),
        include_str!("../../experiments/vae/published/table6.json"),
        include_str!("../../experiments/vae/published/table7.json"),
        include_str!("../../experiments/vae/published/table8.json"),
        include_str!("../../experiments/vae/published/table9.json"),
        include_str!("../../experiments/vae/published/table10.json"),
        include_str!("../../experiments/vae/published/table11.json"),
    ]
    .into_iter()
    .map(parse)
    .collect()
});

static GENERATIVE: LazyLock<Vec<Table>> = LazyLock::new(|| {
    [
        include_str!("../../experiments/sbn-vae/published/gsb-table1.json"),
        include_str!("../../experiments/sbn-vae/published/gsb-table2.json"),
        include_str!("../../experiments/sbn-vae/published/gsb-table3.json"),
        include_str!("../../experiments/sbn-vae/published/foust-table1.json"),
        include_str!("../../experiments/sbn-vae/published/foust-table2.json"),
    ]
    .into_iter()
    .map(parse)
    .collect()
});

fn parse(text: &str) -> Table {
    let mut table: Table = serde_json::from_str(text).expect("an embedded table parses (tests/report.rs)");
    for cell in &mut table.cells {
        cell.n = cell.n.or(table.n);
        if cell.unit.is_empty() {
            cell.unit.clone_from(&table.unit);
        }
    }
    table
}

/// Tables of the papers on Boolean and categorical generative models.
pub fn generative() -> &'static [Table] {
    &GENERATIVE
}

/// All tables of the ReinMax paper, by number.
pub fn tables() -> &'static [Table] {
    &TABLES
}

/// Table `number` of the paper, 1 to 11.
pub fn table(number: u32) -> Option<&'static Table> {
    TABLES.iter().find(|t| t.table == number)
}

/// The entry of a table. `None` when there is no such entry, or several: Table 3 lists `gumbel-rao` at three sample
/// counts, so there filter [`Table::cells`].
///
/// ```
/// let cell = thruway::report::published::cell(2, "8x4", "reinmax").unwrap();
/// assert_eq!((cell.mean, cell.std, cell.n), (124.66, Some(0.88), Some(10)));
/// ```
pub fn cell(number: u32, column: &str, row: &str) -> Option<&'static Cell> {
    table(number)?.cell(column, row, None)
}

/// The settings of Table 8 for a preset (`8x4`, `4x24`, `8x16`, `16x12`, `64x8`, `10x30`, `listops`).
///
/// ```
/// let hyper = thruway::report::published::hyper("8x4", "st").unwrap();
/// assert_eq!((hyper.optimizer.as_str(), hyper.lr, hyper.tau), ("adam", 0.001, 1.3));
/// ```
pub fn hyper(preset: &str, estimator: &str) -> Option<&'static Hyper> {
    table(8)?.hyper.iter().find(|h| h.column == preset && h.row == estimator)
}
