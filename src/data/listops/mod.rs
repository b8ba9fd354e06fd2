//! ListOps: nested operations on lists of digits, labelled with their value (Nangia & Bowman 2018).
//!
//! Official files are `label<TAB>expression` lines without a header: `listops/valid.tsv` (1,000 lines) and
//! `listops/test.tsv` (10,000), verified by SHA-256, and the training split (90,000), `listops/train.tsv` or
//! `listops/train_d20s.tsv`. Where the training split is not at hand, expressions drawn by the same rule stand in for it
//! ([`generate`]); where nothing is, all three are drawn, under the name `listops-generated`. A training file of another number
//! of lines is read, but not taken for the official one.
mod batches;
mod expression;
mod generate;

use super::fetch;
use super::images::{Fetch, Places, Source};
use crate::{Error, Result};
pub use batches::{Batch, Batches, LIMIT, bucket, shorter_than};
pub use expression::{CLOSE, DEEPEST, Expression, FIRST_OP, OPEN, Op, SYMBOLS};
pub use generate::{TRAIN, generate};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Folder below `THRUWAY_DATA` or the project's data folder.
pub const FOLDER: &str = "listops";
/// An official file under its public name, with the SHA-256 of its uncompressed content.
pub const VALID: (&str, &str) = ("valid.tsv", "f9e96e70990dfd863e7652fb94c454b3ca9d08a10bf0a775a780ba485452725b");
/// Likewise.
pub const TEST: (&str, &str) = ("test.tsv", "71335416e6896e8dd8dc69281c8ed9b37316382d05d3705d660461564e843840");
/// Names of the official training split; its SHA-256 is not known here.
pub const TRAIN_NAMES: [&str; 2] = ["train.tsv", "train_d20s.tsv"];
/// Lines of the generated stand-ins for valid and test file.
const STAND_IN: (usize, usize) = (1_000, 10_000);
const REMEDY: &str =
    "put the original files there (sources: data/README.md), or point THRUWAY_DATA at a folder that has them";

/// An expression and its label, 0 to 9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What the expression evaluates to.
    pub label: u8,
    /// The expression.
    pub expression: Expression,
}

/// What a model sees as one position of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// The sixteen symbols
    Tokens,
    /// The characters of the text, blanks included: what the published code does by accident
    Chars,
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(if *self == Units::Tokens { "tokens" } else { "chars" })
    }
}

/// The characters, by number.
const CHARACTERS: &[u8] = b"0123456789[] ADEIMNSX";

impl Units {
    /// Number of different units.
    pub fn vocabulary(self) -> i64 {
        match self {
            Units::Tokens => SYMBOLS.len() as i64,
            Units::Chars => CHARACTERS.len() as i64,
        }
    }

    /// The units of an expression by number.
    ///
    /// ```
    /// use thruway::data::listops::{Expression, Units};
    /// let e: Expression = "[SM 8 3 2 ]".parse().unwrap();
    /// assert_eq!(Units::Tokens.encode(&e), [10, 15, 8, 3, 2, 11]);
    /// assert_eq!(Units::Chars.encode(&e).len(), 12);
    /// ```
    pub fn encode(self, expression: &Expression) -> Vec<i64> {
        match self {
            Units::Tokens => expression.symbols().iter().map(|&s| i64::from(s)).collect(),
            Units::Chars => {
                let number = |c| CHARACTERS.iter().position(|&k| k == c).expect("a known character") as i64;
                expression.to_string().bytes().map(number).collect()
            }
        }
    }

    /// Each unit as text, for a picture of a tree.
    pub fn spell(self, expression: &Expression) -> Vec<String> {
        match self {
            Units::Tokens => expression.symbols().iter().map(|&s| SYMBOLS[usize::from(s)].to_string()).collect(),
            Units::Chars => {
                expression.to_string().chars().map(|c| if c == ' ' { '␣' } else { c }.to_string()).collect()
            }
        }
    }

    /// From spans of symbols to spans of units.
    pub fn spans(self, expression: &Expression, symbols: &[(usize, usize)]) -> Vec<(usize, usize)> {
        if self == Units::Tokens {
            return symbols.to_vec();
        }
        let mut starts = vec![0];
        let mut ends = vec![];
        for &s in expression.symbols() {
            let start = starts[starts.len() - 1];
            ends.push(start + SYMBOLS[usize::from(s)].len());
            starts.push(start + SYMBOLS[usize::from(s)].len() + 1); // a blank
        }
        symbols.iter().map(|&(a, b)| (starts[a], ends[b - 1])).collect()
    }
}

/// Where the training expressions came from. It belongs beside every figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// A training file with the official number of lines, [`TRAIN`].
    Official,
    /// Drawn by the original's rule: **not the official split**.
    Generated,
    /// A training file of another number of lines: **not the official split**.
    File,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Split::Official => "official",
            Split::Generated => "generated",
            Split::File => "file",
        })
    }
}

/// The file that training expressions were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainFile {
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// Three splits in memory.
#[derive(Debug)]
pub struct ListOps {
    /// Training expressions.
    pub train: Vec<Example>,
    /// Validation expressions.
    pub valid: Vec<Example>,
    /// Test expressions.
    pub test: Vec<Example>,
    /// Where the training expressions came from.
    pub train_split: Split,
    /// The training file; `None` where the expressions were drawn.
    pub train_file: Option<TrainFile>,
    /// Where the validation and test files came from; `None` where they are generated too.
    pub source: Option<Source>,
}

impl ListOps {
    /// `listops`, or `listops-generated` where no official file is in it.
    pub fn name(&self) -> &'static str {
        if self.source.is_some() { "listops" } else { "listops-generated" }
    }

    /// Loads validation and test file from `THRUWAY_DATA`, the project's data folder or the network, and the training file from
    /// beside them; draws `n` training expressions with `seed` where that is not there or `drawn` asks for it.
    ///
    /// # Errors
    /// [`Error::Data`] for a file that is there but wrong; it names file, line, reason and remedy. A training file that does
    /// not lie beside the other two is refused and not passed over, unless `drawn`.
    pub fn load(fetch: Fetch, drawn: bool, seed: u64, n: usize) -> Result<ListOps> {
        ListOps::load_from(fetch, &Places::from_env(), drawn, seed, n)
    }

    /// [`ListOps::load`], with the folders given and not read from the environment.
    ///
    /// # Errors
    /// As [`ListOps::load`].
    pub fn load_from(fetch: Fetch, places: &Places, drawn: bool, seed: u64, n: usize) -> Result<ListOps> {
        let found = match locate(places)? {
            Some(found) => Ok(found),
            None if places.offline => Err("THRUWAY_OFFLINE is set".to_string()),
            None if fetch == Fetch::Never => Err("fetching was not allowed".into()),
            None => fetch::fetch_listops(&places.project),
        };
        let train_file = |folder: &Path| TRAIN_NAMES.iter().map(|name| folder.join(name)).find(|p| p.exists());
        let beside = found.as_ref().ok().and_then(|found| train_file(&found.folder));
        let mut folders = places.external.iter().chain([&places.project]).map(|root| root.join(FOLDER));
        if let (false, None, Some(path)) = (drawn, &beside, folders.find_map(|folder| train_file(&folder))) {
            let reason = format!("{} and {} are not beside it", VALID.0, TEST.0);
            let remedy = "put all three into one folder, or have the training expressions drawn (--generated)".into();
            return Err(Error::Data { path, reason, remedy });
        }
        let found = match found {
            Ok(found) => found,
            Err(why) => {
                eprintln!(
                    "listops: GENERATED ONLY: valid and test files are not there ({why}); expressions drawn by the same \
                     rule stand in for them, and numbers do not compare with published ones"
                );
                // a stream of their own, so that a larger training split changes neither
                let rest = generate(seed ^ 0x7E57, STAND_IN.0 + STAND_IN.1, &[]);
                let (valid, test) = rest.split_at(STAND_IN.0);
                let train = generate(seed, n, &[&rest]);
                let (valid, test) = (valid.to_vec(), test.to_vec());
                let train_split = Split::Generated;
                return Ok(ListOps { train, valid, test, train_split, train_file: None, source: None });
            }
        };
        let (valid, test) = found.read()?;
        let Some(path) = beside.filter(|_| !drawn) else {
            let train = generate(seed, n, &[&valid, &test]);
            let (train_split, train_file, source) = (Split::Generated, None, Some(found.source));
            return Ok(ListOps { train, valid, test, train_split, train_file, source });
        };
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let train = parse(&path, &bytes)?;
        let held: HashSet<&Expression> = valid.iter().chain(&test).map(|e| &e.expression).collect();
        let shared = train.iter().filter(|e| held.contains(&e.expression)).count();
        if shared > 0 {
            let (all, file) = (train.len(), path.display());
            eprintln!(
                "listops: {shared} of the {all} training expressions of {file} are validation or test expressions too"
            );
        }
        let train_split = if train.len() == TRAIN { Split::Official } else { Split::File };
        let train_file = Some(TrainFile { path, sha256: hex(&Sha256::digest(&bytes)) });
        Ok(ListOps { train, valid, test, train_split, train_file, source: Some(found.source) })
    }
}

/// The official validation and test file, found but not yet read.
#[derive(Debug, Clone)]
pub struct Located {
    /// The folder they lie in.
    pub folder: PathBuf,
    /// How it was found.
    pub source: Source,
}

impl Located {
    /// Validation and test expressions, their files verified.
    ///
    /// # Errors
    /// [`Error::Data`] for another content than the official one.
    pub fn read(&self) -> Result<(Vec<Example>, Vec<Example>)> {
        let file = |(name, sha256): (&str, &str)| {
            let path = self.folder.join(name);
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            let found = hex(&Sha256::digest(&bytes));
            if found != sha256 {
                let reason = format!("is not the original: SHA-256 is {found}, expected {sha256}");
                return Err(Error::Data { path, reason, remedy: REMEDY.into() });
            }
            parse(&path, &bytes)
        };
        Ok((file(VALID)?, file(TEST)?))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Finds validation and test file: below `THRUWAY_DATA`, else in the project's data folder.
///
/// # Errors
/// [`Error::Data`] where one of the two is there without the other, or `THRUWAY_DATA` is no folder.
pub fn locate(places: &Places) -> Result<Option<Located>> {
    if let Some(root) = places.external.as_ref().filter(|root| !root.is_dir()) {
        let reason = "THRUWAY_DATA names it, but it is not a folder".into();
        return Err(Error::Data { path: root.clone(), reason, remedy: REMEDY.into() });
    }
    let roots = [
        (places.external.clone(), places.external.as_ref().map(|root| Source::Directory(root.join(FOLDER)))),
        (Some(places.project.clone()), Some(Source::Project)),
    ];
    for (root, source) in roots {
        let (Some(root), Some(source)) = (root, source) else { continue };
        let folder = root.join(FOLDER);
        match [VALID, TEST].map(|(name, _)| folder.join(name).exists()) {
            [true, true] => return Ok(Some(Located { folder, source })),
            [false, false] => continue,
            [valid, _] => {
                let (there, missing) = if valid { (VALID.0, TEST.0) } else { (TEST.0, VALID.0) };
                let reason = format!("missing, while {there} is there");
                return Err(Error::Data { path: folder.join(missing), reason, remedy: REMEDY.into() });
            }
        }
    }
    Ok(None)
}

/// Reads a file in the official format, of any origin: `label<TAB>expression` lines.
///
/// # Errors
/// [`Error::Data`] with file, line and reason: not UTF-8, no label, an unknown operator, unbalanced brackets, a label that
/// is not the value of its expression, an empty file. [`Error::Io`] where it cannot be read.
pub fn read(path: &Path) -> Result<Vec<Example>> {
    parse(path, &std::fs::read(path).map_err(Error::io(path))?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Example>> {
    let wrong = |line: usize, reason: String| Error::Data {
        path: path.into(),
        reason: format!("line {line}: {reason}"),
        remedy: "correct the line, or take the original file (sources: data/README.md)".into(),
    };
    let mut examples = Vec::new();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|&b| b == b'\n');
    for (i, line) in lines.enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        examples.push(example(line).map_err(|reason| wrong(i + 1, reason))?);
    }
    Ok(examples)
}

fn example(line: &[u8]) -> std::result::Result<Example, String> {
    let text = std::str::from_utf8(line).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to() + 1))?;
    let Some((label, text)) = text.split_once('\t') else {
        return Err("no label: expected `label<TAB>expression`".into());
    };
    let label = match label.as_bytes() {
        [d @ b'0'..=b'9'] => d - b'0',
        [] => return Err("no label before the tab".into()),
        _ => return Err(format!("label {label:?}, expected a digit")),
    };
    let expression: Expression = text.parse()?;
    match expression.value() {
        value if value == label => Ok(Example { label, expression }),
        value => Err(format!("label {label}, but the expression is {value}")),
    }
}
