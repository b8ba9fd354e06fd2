//! The accuracies of all 15,625 cells of NATS-Bench's topology search space (Dong & Yang 2020; Dong, Liu, Musial & Gabrys 2021).
//!
//! What is read is a table `nats_bench/nats_tss.csv` or `.csv.gz`: a line of names, then a line a cell,
//!
//! | column | |
//! |---|---|
//! | `index` | the benchmark's number, 0..=15624 |
//! | `arch_str` | the cell in the benchmark's notation |
//! | `iso_class` | equal for cells that the benchmark calls isomorphic |
//! | `<set>_test_e200` | test accuracy in percent after 200 epochs, mean over the seeds there are |
//! | `<set>_valid_e12`, `<set>_test_e12` | after 12 epochs |
//!
//! with `<set>` one of `cifar10`, `cifar100`, `imagenet16` (ImageNet16-120). The benchmark's own release, a folder of 15,625
//! bzip2-compressed pickles of Python objects (`NATS-tss-v1_0-*-simple/`) or one of `.pth`, is **not** read; `data/README.md`
//! says which calls of its library give these columns.
use super::images::Places;
use crate::nas::{CELLS, Cell};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Folder below `THRUWAY_DATA` or the project's data folder.
pub const FOLDER: &str = "nats_bench";
/// Names of the table there.
const FILES: [&str; 2] = ["nats_tss.csv.gz", "nats_tss.csv"];
/// Of the uncompressed table that `data/README.md` describes.
const SHA256: &str = "d348aa7d7cedaab042caa600e1a3e2b6a0e29a8687c214e9e9e6c3db9391f64b";
/// A table is no larger; anything longer is refused before it is read whole.
const MOST_BYTES: u64 = 16 << 20;
/// What a file that names itself so is.
const PICKLES: [&str; 4] = ["pth", "pbz2", "pickle", "tar"];

/// Images that the cells were trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// CIFAR-10
    Cifar10,
    /// CIFAR-100
    Cifar100,
    /// ImageNet16-120
    Imagenet16,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Test accuracy after 200 epochs
    Test200,
    /// Validation accuracy after 12 epochs
    Valid12,
    /// Test accuracy after 12 epochs
    Test12,
}

impl Task {
    /// All, in the order of the tables.
    pub const ALL: [Task; 3] = [Task::Cifar10, Task::Cifar100, Task::Imagenet16];

    /// As in the column heads.
    pub fn name(self) -> &'static str {
        ["cifar10", "cifar100", "imagenet16"][self as usize]
    }
}

impl Measure {
    /// All.
    pub const ALL: [Measure; 3] = [Measure::Test200, Measure::Valid12, Measure::Test12];

    /// As in the column heads.
    pub fn name(self) -> &'static str {
        ["test_e200", "valid_e12", "test_e12"][self as usize]
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The table in memory.
pub struct NatsBench {
    /// Where it was read.
    pub path: PathBuf,
    /// SHA-256 of the uncompressed content.
    pub sha256: String,
    /// Whether it is the table that `data/README.md` describes, and not another of its form.
    pub verified: bool,
    /// By code.
    index: Vec<usize>,
    /// By the benchmark's index.
    cells: Vec<Cell>,
    /// By column, then code; percent.
    columns: Vec<Vec<f64>>,
}

impl fmt::Debug for NatsBench {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("NatsBench").field("path", &self.path).field("verified", &self.verified).finish_non_exhaustive()
    }
}

fn column(task: Task, measure: Measure) -> usize {
    3 * task as usize + measure as usize
}

impl NatsBench {
    /// The table in `THRUWAY_DATA` or the project's data folder; `None` if there is none. It is not fetched from anywhere.
    ///
    /// # Errors
    /// As [`NatsBench::read`], and [`Error::Data`] for a table of other content than the one described.
    pub fn load() -> Result<Option<NatsBench>> {
        NatsBench::load_from(&Places::from_env())
    }

    /// [`NatsBench::load`], with the folders given and not read from the environment.
    ///
    /// # Errors
    /// As [`NatsBench::load`].
    pub fn load_from(places: &Places) -> Result<Option<NatsBench>> {
        let roots = places.external.iter().chain([&places.project]);
        let mut files = roots.flat_map(|root| FILES.map(|f| root.join(FOLDER).join(f)));
        // a dangling link is there, and wrong: hence symlink_metadata
        let Some(path) = files.find(|p| p.symlink_metadata().is_ok()) else { return Ok(None) };
        let table = NatsBench::read(&path)?;
        if !table.verified {
            let reason = format!(
                "has the right form but not the known content: SHA-256 of the uncompressed file is {}, expected {SHA256}",
                table.sha256
            );
            return Err(wrong(&path, reason, "put the one of data/README.md there, or give this one by --table"));
        }
        Ok(Some(table))
    }

    /// Reads a table, gzipped or plain, and checks it: the names of the columns, one line a cell, each cell and each index once,
    /// accuracies from 0 to 100, isomorphism classes as [`Cell::isomorphism`] has them.
    ///
    /// # Errors
    /// [`Error::Data`] with file, line and reason.
    pub fn read(path: &Path) -> Result<NatsBench> {
        let fail = |reason: String| wrong(path, reason, "give a table of the form in data/README.md");
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if path.is_dir() || PICKLES.contains(&extension) {
            return Err(wrong(
                path,
                "the benchmark's own release, pickles of Python objects, is not read".into(),
                "export it to the table of data/README.md with its library, which that page shows",
            ));
        }
        let bytes = std::fs::read(path).map_err(|e| fail(format!("cannot be read ({e})")))?;
        let mut text = Vec::new();
        let damaged = |e: std::io::Error| fail(format!("is damaged ({e})"));
        if bytes.starts_with(&[0x1f, 0x8b]) {
            flate2::read::MultiGzDecoder::new(&bytes[..])
                .take(MOST_BYTES + 1)
                .read_to_end(&mut text)
                .map_err(damaged)?;
        } else {
            text = bytes;
        }
        if text.len() as u64 > MOST_BYTES {
            return Err(fail(format!("is longer than any such table: over {MOST_BYTES} bytes")));
        }
        let sha256: String = Sha256::digest(&text).iter().map(|b| format!("{b:02x}")).collect();
        let text = String::from_utf8(text).map_err(|e| fail(format!("is not text ({})", e.utf8_error())))?;
        let (index, cells, columns) = parse(&text).map_err(fail)?;
        Ok(NatsBench { path: path.into(), verified: sha256 == SHA256, sha256, index, cells, columns })
    }

    /// Accuracy of a cell, percent.
    pub fn query(&self, cell: &Cell, task: Task, measure: Measure) -> f64 {
        self.column(task, measure)[cell.code()]
    }

    /// One accuracy a cell, percent, by [`Cell::code`].
    pub fn column(&self, task: Task, measure: Measure) -> &[f64] {
        &self.columns[column(task, measure)]
    }

    /// The benchmark's index of a cell.
    pub fn index(&self, cell: &Cell) -> usize {
        self.index[cell.code()]
    }

    /// The cell of a benchmark's index; `None` from 15,625 on.
    pub fn cell(&self, index: usize) -> Option<Cell> {
        self.cells.get(index).copied()
    }

    /// The best cell, of those with equal accuracy the one with the lowest index, and its accuracy.
    pub fn best(&self, task: Task, measure: Measure) -> (Cell, f64) {
        let of = |c: &Cell| self.query(c, task, measure);
        let best = self.cells.iter().fold(self.cells[0], |best, c| if of(c) > of(&best) { *c } else { best });
        (best, of(&best))
    }

    /// Rank of a cell: one more than there are better ones, 1..=15625.
    pub fn rank(&self, cell: &Cell, task: Task, measure: Measure) -> usize {
        let own = self.query(cell, task, measure);
        1 + self.column(task, measure).iter().filter(|a| **a > own).count()
    }

    /// How far a cell's accuracy stays behind the best one's, percentage points.
    pub fn regret(&self, cell: &Cell, task: Task, measure: Measure) -> f64 {
        self.best(task, measure).1 - self.query(cell, task, measure)
    }
}

fn wrong(path: &Path, reason: String, remedy: &str) -> Error {
    Error::Data { path: path.into(), reason, remedy: remedy.into() }
}

/// Index by code, cell by index, columns by code.
type Parsed = (Vec<usize>, Vec<Cell>, Vec<Vec<f64>>);

fn parse(text: &str) -> std::result::Result<Parsed, String> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().ok_or("is empty")?.split(',').collect();
    let place = |name: &str| {
        names
            .iter()
            .position(|n| *n == name)
            .ok_or_else(|| format!("line 1: no column {name}; it has {}", names.join(", ")))
    };
    let (at_index, at_cell, at_class) = (place("index")?, place("arch_str")?, place("iso_class")?);
    let measured = Task::ALL.iter().flat_map(|t| Measure::ALL.map(|m| (*t, m)));
    let measured: Vec<(usize, usize)> = measured
        .map(|(t, m)| Ok((column(t, m), place(&format!("{t}_{}", m.name()))?)))
        .collect::<std::result::Result<_, String>>()?;

    let mut index = vec![None; CELLS];
    let mut cells = vec![None; CELLS];
    let mut columns = vec![vec![0.0; CELLS]; measured.len()];
    let (mut class_of, mut string_of) = (HashMap::new(), HashMap::new());
    let mut rows = 0;
    for (number, line) in (2..).zip(lines) {
        let at = |reason: String| format!("line {number}: {reason}");
        let fields: Vec<&str> = line.split(',').collect();
        if fields.len() != names.len() {
            return Err(at(format!("{} fields, expected {}", fields.len(), names.len())));
        }
        let i: usize = fields[at_index]
            .parse()
            .ok()
            .filter(|i| *i < CELLS)
            .ok_or_else(|| at(format!("index {:?}, expected 0 to {}", fields[at_index], CELLS - 1)))?;
        let cell: Cell = fields[at_cell].parse().map_err(|e: Error| at(e.to_string()))?;
        if let Some(other) = index[cell.code()].replace(i) {
            return Err(at(format!("{cell} was index {other} before")));
        }
        if cells[i].replace(cell).is_some() {
            return Err(at(format!("index {i} is there twice")));
        }
        let (class, string) = (fields[at_class], cell.isomorphism());
        let same = class_of.entry(string.clone()).or_insert(class) == &class;
        if !same || *string_of.entry(class).or_insert(string.clone()) != string {
            return Err(at(format!("iso_class {class} is not the class of {string}")));
        }
        for (column, place) in &measured {
            let value: f64 = fields[*place].parse().ok().filter(|v| (0.0..=100.0).contains(v)).ok_or_else(|| {
                at(format!("{} is {:?}, expected an accuracy from 0 to 100", names[*place], fields[*place]))
            })?;
            columns[*column][cell.code()] = value;
        }
        rows += 1;
    }
    if rows != CELLS {
        return Err(format!("holds {rows} cells, expected {CELLS}"));
    }
    // as many rows as cells and none twice: every place is filled
    Ok((index.into_iter().flatten().collect(), cells.into_iter().flatten().collect(), columns))
}
