//! 20 Newsgroups as counts of words, the "bydate" split in the "Matlab" form (collected by Ken Lang, prepared by Jason Rennie).
//!
//! `newsgroups20/` holds, gzipped (`<file>.gz`) or plain: `train.data` and `test.data`, lines `document word count`, all from
//! 1, in ascending order; `train.label` and `test.label`, one group a line, 1 to 20, in the order of the documents;
//! `vocabulary.txt`, one word a line; and, if there, `groups.txt`, lines `number name`. A document is known by its group and its
//! counts, so that a set whose documents stand in another order within a group is recognised as the same set
//! ([`Newsgroups::is_original`]).
use super::fetch;
use super::images::{Fetch, Places, Source};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Folder below `THRUWAY_DATA` or the project's data folder.
pub const FOLDER: &str = "newsgroups20";
/// The archive of the "Matlab" form on the set's page.
pub const ARCHIVE: &str = "20news-bydate-matlab.tgz";
/// The files of the set.
pub const FILES: [&str; 5] = ["train.data", "train.label", "test.data", "test.label", "vocabulary.txt"];
/// Of the documents of both parts, whatever their order ([`Newsgroups::fingerprint`]).
pub const FINGERPRINT: &str = "f119fb33a47fe263e4d164c2b30d32883ee6582ed3bf45b0744b7f6c7867842c";
/// Documents of the training and the test part.
pub const DOCUMENTS: (usize, usize) = (11_269, 7_505);
/// Words of the vocabulary.
pub const WORDS: usize = 61_188;
/// Groups.
pub const GROUPS: usize = 20;
const REMEDY: &str = "put the original there (sources: data/README.md), or point THRUWAY_DATA at a folder that has it";

/// The names of the groups, in the order of their numbers from 1.
pub const GROUP_NAMES: [&str; GROUPS] = [
    "alt.atheism",
    "comp.graphics",
    "comp.os.ms-windows.misc",
    "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware",
    "comp.windows.x",
    "misc.forsale",
    "rec.autos",
    "rec.motorcycles",
    "rec.sport.baseball",
    "rec.sport.hockey",
    "sci.crypt",
    "sci.electronics",
    "sci.med",
    "sci.space",
    "soc.religion.christian",
    "talk.politics.guns",
    "talk.politics.mideast",
    "talk.politics.misc",
    "talk.religion.misc",
];

/// Word counts of documents, row by row, and their groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Documents {
    /// Entries of document i are `starts[i]..starts[i + 1]`; one longer than there are documents.
    pub starts: Vec<usize>,
    /// Word of each entry, from 0, ascending within a document.
    pub words: Vec<u32>,
    /// How often it occurs there, at least 1.
    pub counts: Vec<u32>,
    /// Group of each document, 0 to 19.
    pub groups: Vec<u8>,
}

impl Documents {
    /// Number of documents.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Where the entries of document i are.
    pub fn row(&self, i: usize) -> Range<usize> {
        self.starts[i]..self.starts[i + 1]
    }

    /// Words in all, each as often as it occurs.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|&c| u64::from(c)).sum()
    }

    /// The words that `number` gives a new number (from 0), the others left out; documents that lose all stay, empty.
    fn renumbered(&self, number: &[Option<u32>]) -> Documents {
        let mut out = Documents { starts: vec![0], groups: self.groups.clone(), ..Documents::default() };
        for i in 0..self.len() {
            let mut row: Vec<(u32, u32)> =
                self.row(i).filter_map(|e| Some((number[self.words[e] as usize]?, self.counts[e]))).collect();
            row.sort_unstable();
            out.words.extend(row.iter().map(|(w, _)| w));
            out.counts.extend(row.iter().map(|(_, c)| c));
            out.starts.push(out.words.len());
        }
        out
    }
}

/// Both parts.
#[derive(Debug)]
pub struct Newsgroups {
    /// To train on.
    pub train: Documents,
    /// To test on.
    pub test: Documents,
    /// Word n stands at place n.
    pub vocabulary: Vec<String>,
    /// Where they came from.
    pub source: Source,
}

/// What [`Newsgroups::most_frequent`] left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Omitted {
    /// Words left out.
    pub words: usize,
    /// Occurrences in the training part of the last word kept and of the first left out.
    pub counts: (u64, u64),
    /// The most training documents that a word left out occurs in.
    pub documents: u64,
}

impl Newsgroups {
    /// The set below `THRUWAY_DATA`, else in the project's data folder, else fetched; where it cannot be had, generated documents
    /// with one line on stderr that says so.
    ///
    /// # Errors
    /// [`Error::Data`] for a file that is there but wrong: it names file, line, reason and remedy.
    pub fn load(fetch: Fetch) -> Result<Newsgroups> {
        Newsgroups::load_from(fetch, &Places::from_env())
    }

    /// [`Newsgroups::load`], with the folders given and not read from the environment.
    ///
    /// # Errors
    /// As [`Newsgroups::load`].
    pub fn load_from(fetch: Fetch, places: &Places) -> Result<Newsgroups> {
        let found = match locate(places)? {
            Some(found) => Ok(found),
            None if places.offline => Err("THRUWAY_OFFLINE is set".to_string()),
            None if fetch == Fetch::Never => Err("fetching was not allowed".into()),
            None => fetch::fetch_newsgroups(&places.project),
        };
        match found {
            Ok((folder, source)) => Newsgroups::read(&folder, source),
            Err(why) => {
                eprintln!(
                    "newsgroups20: GENERATED ONLY: the files are not there ({why}); documents drawn from 20 made-up topics \
                     stand in for them, and numbers do not compare with published ones"
                );
                Ok(Newsgroups::synthetic(2_000, 500))
            }
        }
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// As [`Newsgroups::load`].
    pub fn read(folder: &Path, source: Source) -> Result<Newsgroups> {
        let (path, bytes) = open(folder, "vocabulary.txt")?;
        let text = String::from_utf8(bytes).map_err(|e| {
            wrong(
                &path,
                1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count(),
                "not UTF-8",
            )
        })?;
        let vocabulary: Vec<String> = text.lines().map(str::to_string).collect();
        if let Some(i) = vocabulary.iter().position(String::is_empty) {
            return Err(wrong(&path, i + 1, "an empty word"));
        }
        if vocabulary.is_empty() {
            return Err(wrong(&path, 1, "no word"));
        }
        let part = |name: &str| -> Result<Documents> {
            let (path, bytes) = open(folder, &format!("{name}.label"))?;
            let groups = labels(&path, &bytes)?;
            let (path, bytes) = open(folder, &format!("{name}.data"))?;
            triplets(&path, &bytes, groups, vocabulary.len())
        };
        Ok(Newsgroups { train: part("train")?, test: part("test")?, vocabulary, source })
    }

    /// Documents of 20 made-up topics over 2,000 made-up words: the same on every machine. Half of a document's words are
    /// common to all topics, with Zipf's frequencies; half are the topic's own.
    pub fn synthetic(train: usize, test: usize) -> Newsgroups {
        const WORDS: u64 = 2_000;
        let mut state = 20u64;
        let mut next = move |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut part = |n: usize| {
            let mut out = Documents { starts: vec![0], ..Documents::default() };
            for i in 0..n {
                let group = i % GROUPS;
                let mut row: BTreeMap<u32, u32> = BTreeMap::new();
                for _ in 0..40 + next(120) {
                    // 1000^u of a uniform u has density 1 / x
                    let zipf = 1000f64.powf(next(1 << 20) as f64 / f64::from(1 << 20)) as u64 - 1;
                    let own = 1000 + group as u64 * 50 + zipf % 50;
                    *row.entry(if next(2) == 0 { zipf.min(999) } else { own.min(WORDS - 1) } as u32).or_default() += 1;
                }
                out.words.extend(row.keys());
                out.counts.extend(row.values());
                out.starts.push(out.words.len());
                out.groups.push(group as u8);
            }
            out
        };
        let (train, test) = (part(train), part(test));
        let vocabulary = (0..WORDS).map(|w| format!("word{w}")).collect();
        Newsgroups { train, test, vocabulary, source: Source::Generated }
    }

    /// `newsgroups20`, or `newsgroups20-generated`; `newsgroups20-other` where files were read that are not the known set.
    pub fn name(&self) -> &'static str {
        match self.source {
            Source::Generated => "newsgroups20-generated",
            _ if self.is_original() => "newsgroups20",
            _ => "newsgroups20-other",
        }
    }

    /// Whether the documents are those of the original, in whatever order.
    pub fn is_original(&self) -> bool {
        (self.train.len(), self.test.len()) == DOCUMENTS && self.fingerprint() == FINGERPRINT
    }

    /// SHA-256, in hexadecimal, of the sorted SHA-256 of all documents: part, group, words and counts. The order of the
    /// documents does not change it.
    pub fn fingerprint(&self) -> String {
        let mut all: Vec<[u8; 32]> = vec![];
        for (name, part) in [("train", &self.train), ("test", &self.test)] {
            for i in 0..part.len() {
                let mut hash = Sha256::new();
                hash.update(format!("{name} {}", part.groups[i]));
                for e in part.row(i) {
                    hash.update(part.words[e].to_le_bytes());
                    hash.update(part.counts[e].to_le_bytes());
                }
                all.push(hash.finalize().into());
            }
        }
        all.sort_unstable();
        Sha256::digest(all.concat()).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The set with only the `n` words that occur most often in the training part, numbered from the most frequent on; of
    /// words that occur equally often the one earlier in the vocabulary comes first.
    ///
    /// # Errors
    /// [`Error::Range`] for 0 or more than the vocabulary has.
    pub fn most_frequent(&self, n: usize) -> Result<(Newsgroups, Omitted)> {
        let size = self.vocabulary.len();
        if !(1..=size).contains(&n) {
            return Err(Error::range("words kept", format!("1 to the {size} of the vocabulary"), n));
        }
        let (mut total, mut documents) = (vec![0u64; size], vec![0u64; size]);
        for (&word, &count) in self.train.words.iter().zip(&self.train.counts) {
            total[word as usize] += u64::from(count);
            documents[word as usize] += 1;
        }
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by_key(|&w| (std::cmp::Reverse(total[w]), w));
        let mut number = vec![None; size];
        order[..n].iter().enumerate().for_each(|(i, &w)| number[w] = Some(i as u32));
        let omitted = Omitted {
            words: size - n,
            counts: (total[order[n - 1]], order.get(n).map_or(0, |&w| total[w])),
            documents: order[n..].iter().map(|&w| documents[w]).max().unwrap_or(0),
        };
        let kept = Newsgroups {
            train: self.train.renumbered(&number),
            test: self.test.renumbered(&number),
            vocabulary: order[..n].iter().map(|&w| self.vocabulary[w].clone()).collect(),
            source: self.source.clone(),
        };
        Ok((kept, omitted))
    }
}

/// The folder of the set, below `THRUWAY_DATA`, else in the project's data folder.
///
/// # Errors
/// [`Error::Data`] where a folder has some of its files and not the others, or `THRUWAY_DATA` is no folder.
pub fn locate(places: &Places) -> Result<Option<(PathBuf, Source)>> {
    if let Some(root) = places.external.as_ref().filter(|root| !root.is_dir()) {
        let reason = "THRUWAY_DATA names it, but it is not a folder".into();
        return Err(Error::Data { path: root.clone(), reason, remedy: REMEDY.into() });
    }
    let external = places.external.as_ref().map(|root| (root.join(FOLDER), Source::Directory(root.join(FOLDER))));
    for (folder, source) in external.into_iter().chain([(places.project.join(FOLDER), Source::Project)]) {
        let there = |name: &&str| folder.join(name).exists() || folder.join(format!("{name}.gz")).exists();
        match (FILES.iter().find(|n| there(n)), FILES.iter().find(|n| !there(n))) {
            (Some(_), None) => return Ok(Some((folder, source))),
            (None, _) => continue,
            (Some(one), Some(missing)) => {
                let reason = format!("missing, while {one} is there");
                return Err(Error::Data { path: folder.join(missing), reason, remedy: REMEDY.into() });
            }
        }
    }
    Ok(None)
}

/// The content of a file, gzipped or plain: its first bytes decide.
fn open(folder: &Path, name: &str) -> Result<(PathBuf, Vec<u8>)> {
    let packed = folder.join(format!("{name}.gz"));
    let path = if packed.exists() { packed } else { folder.join(name) };
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok((path, bytes));
    }
    let mut out = Vec::new();
    let unpacked = flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut out);
    match unpacked {
        Ok(_) => Ok((path, out)),
        Err(e) => {
            Err(Error::Data { path, reason: format!("is damaged: it cannot be unpacked ({e})"), remedy: REMEDY.into() })
        }
    }
}

fn wrong(path: &Path, line: usize, reason: impl Into<String>) -> Error {
    let reason = format!("line {line}: {}", reason.into());
    Error::Data { path: path.into(), reason, remedy: REMEDY.into() }
}

/// Lines with their number from 1, without line ends; a last empty one does not count.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let all = body.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(all)
}

/// Decimal digits and nothing else, at most nine of them.
fn number(word: &[u8]) -> Option<u32> {
    let fits = (1..=9).contains(&word.len()) && word.iter().all(u8::is_ascii_digit);
    fits.then(|| word.iter().fold(0, |n, d| 10 * n + u32::from(d - b'0')))
}

fn labels(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let label = |(i, line): (usize, &[u8])| match number(line.trim_ascii()) {
        Some(n) if (1..=GROUPS as u32).contains(&n) => Ok((n - 1) as u8),
        _ => {
            let got = String::from_utf8_lossy(line);
            Err(wrong(path, i, format!("expected a group from 1 to {GROUPS}, got {got:?}")))
        }
    };
    lines(bytes).map(label).collect()
}

fn triplets(path: &Path, bytes: &[u8], groups: Vec<u8>, vocabulary: usize) -> Result<Documents> {
    let mut out = Documents { starts: vec![0], ..Documents::default() };
    let mut before = (1, 0);
    for (i, line) in lines(bytes) {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).map(number);
        let (Some(Some(document)), Some(Some(word)), Some(Some(count)), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            let got = String::from_utf8_lossy(line);
            return Err(wrong(path, i, format!("expected `document word count`, got {got:?}")));
        };
        let refuse =
            |what: &str, limit: usize, got: u32| Err(wrong(path, i, format!("{what} {got}, expected 1 to {limit}")));
        if document == 0 || document as usize > groups.len() {
            return refuse("document", groups.len(), document);
        }
        if word == 0 || word as usize > vocabulary {
            return refuse("word", vocabulary, word);
        }
        if count == 0 {
            return Err(wrong(path, i, "a count of 0"));
        }
        if (document, word) <= before {
            let reason =
                format!("document {document}, word {word} after {}, {}: not in ascending order", before.0, before.1);
            return Err(wrong(path, i, reason));
        }
        for _ in before.0..document {
            out.starts.push(out.words.len());
        }
        before = (document, word);
        out.words.push(word - 1);
        out.counts.push(count);
    }
    for _ in before.0..=groups.len() as u32 {
        out.starts.push(out.words.len());
    }
    out.groups = groups;
    Ok(out)
}
