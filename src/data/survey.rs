//! What is there: the report for `thruway doctor`, and fetching of everything that is not.
use super::cifar10::{self, Cifar10, Variant};
use super::fetch;
use super::images::{ImageSet, Images, Places, Source};
use super::listops;
use super::nats_bench::{self, NatsBench};
use super::newsgroups::{self, Newsgroups};
use crate::nas::CELLS;
use crate::{Error, Result};
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// No public copy of this table is known that can be checked against it.
const NOT_FETCHED: &str = "not fetched: put nats_tss.csv.gz there, or give a table by --table (data/README.md)";

/// Every data set that can be looked for and fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// Handwritten digits
    Mnist,
    /// Articles of clothing
    #[value(alias = "fashion_mnist")]
    FashionMnist,
    /// Handwritten characters of 50 alphabets
    Omniglot,
    /// Colour images of animals and vehicles
    Cifar10,
    /// Nested operations on lists of digits: validation and test file
    Listops,
    /// Accuracies of the 15,625 cells of NATS-Bench's topology search space; not fetched
    #[value(alias = "nats_bench")]
    NatsBench,
    /// Word counts of messages from 20 newsgroups
    Newsgroups20,
}

impl Set {
    /// Every set.
    pub const ALL: [Set; 7] =
        [Set::Mnist, Set::FashionMnist, Set::Omniglot, Set::Cifar10, Set::Listops, Set::NatsBench, Set::Newsgroups20];
    /// Those that can be fetched.
    pub const FETCHED: [Set; 6] =
        [Set::Mnist, Set::FashionMnist, Set::Omniglot, Set::Cifar10, Set::Listops, Set::Newsgroups20];

    fn images(self) -> Option<ImageSet> {
        match self {
            Set::Mnist => Some(ImageSet::Mnist),
            Set::FashionMnist => Some(ImageSet::FashionMnist),
            Set::Omniglot => Some(ImageSet::Omniglot),
            Set::Cifar10 | Set::Listops | Set::NatsBench | Set::Newsgroups20 => None,
        }
    }

    /// Folder of a set that is none of images in IDX files.
    fn other_folder(self) -> &'static str {
        match self {
            Set::Listops => listops::FOLDER,
            Set::NatsBench => nats_bench::FOLDER,
            Set::Newsgroups20 => newsgroups::FOLDER,
            _ => cifar10::FOLDER,
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.images() {
            Some(set) => set.fmt(f),
            None if *self == Set::NatsBench => f.write_str("nats-bench"),
            None => f.write_str(self.other_folder()),
        }
    }
}

/// One data set, as found.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The set.
    pub set: Set,
    /// Where its files are; `None` if nowhere, or if they are wrong.
    pub source: Option<Source>,
    /// Training and test images that loading it would give without fetching: 0 if none. For ListOps, lines of the
    /// validation and the test file; for 20 Newsgroups, documents; for NATS-Bench, cells.
    pub images: (i64, i64),
    /// Whether the whole set is there and every file has the SHA-256 of the original.
    pub verified: bool,
    /// What is wrong or missing.
    pub problem: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (train, test) = self.images;
        match (&self.source, &self.problem) {
            (Some(source), None) => {
                let what = match self.set {
                    Set::NatsBench => return write!(f, "{}: {train} cells, SHA-256 verified, {source}", self.set),
                    Set::Listops => "expressions",
                    Set::Newsgroups20 => "documents",
                    _ => "images",
                };
                write!(f, "{}: {train} + {test} {what}, SHA-256 verified, {source}", self.set)
            }
            (_, problem) => {
                write!(f, "{}: {}", self.set, problem.as_deref().unwrap_or("not found"))?;
                self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
        }
    }
}

/// Looks for every set and verifies what it finds, without fetching anything.
pub fn report() -> Vec<Found> {
    report_at(&Places::from_env())
}

/// [`report`], with the folders given and not read from the environment.
pub fn report_at(places: &Places) -> Vec<Found> {
    Set::ALL.map(|set| found(set, places)).into()
}

/// What reading a set gives, if it is there.
struct Seen {
    source: Source,
    images: (i64, i64),
    /// The official content, not a stand-in for it.
    official: bool,
}

fn look(set: Set, places: &Places) -> Result<Option<Seen>> {
    let counts = |train: &tch::Tensor, test: &tch::Tensor| (train.size()[0], test.size()[0]);
    match set.images() {
        Some(set) => {
            let read = places.locate(set)?.map(|located| Images::read(set, located)).transpose()?;
            Ok(read.map(|i| Seen { images: counts(&i.train, &i.test), source: i.source, official: true }))
        }
        None if set == Set::Listops => {
            let Some(located) = listops::locate(places)? else { return Ok(None) };
            let (valid, test) = located.read()?;
            let images = (valid.len() as i64, test.len() as i64);
            Ok(Some(Seen { images, source: located.source, official: true }))
        }
        None if set == Set::NatsBench => {
            let Some(table) = NatsBench::load_from(places)? else { return Ok(None) };
            let external = places.external.as_ref().filter(|root| table.path.starts_with(root));
            let folder = || table.path.parent().unwrap_or(Path::new("")).to_path_buf();
            let source = if external.is_some() { Source::Directory(folder()) } else { Source::Project };
            Ok(Some(Seen { images: (CELLS as i64, 0), source, official: true }))
        }
        None if set == Set::Newsgroups20 => {
            let read =
                newsgroups::locate(places)?.map(|(folder, source)| Newsgroups::read(&folder, source)).transpose()?;
            let images = |s: &Newsgroups| (s.train.len() as i64, s.test.len() as i64);
            Ok(read.map(|s| Seen { images: images(&s), official: s.is_original(), source: s.source }))
        }
        None => {
            let read = cifar10::locate(places)?.map(Cifar10::read).transpose()?;
            let official = |i: &Cifar10| i.variant == Variant::Official;
            Ok(read.map(|i| Seen { images: counts(&i.train, &i.test), official: official(&i), source: i.source }))
        }
    }
}

fn found(set: Set, places: &Places) -> Found {
    let blank = Found { set, source: None, images: (0, 0), verified: false, problem: None, remedy: None };
    match look(set, places) {
        Ok(Some(Seen { source, images, official: true })) => {
            Found { source: Some(source), images, verified: true, ..blank }
        }
        Ok(Some(Seen { source, images, .. })) => {
            let what = match set {
                Set::Newsgroups20 => "documents, not the known ones",
                _ => "images decoded from JPEGs, not the official pixels",
            };
            let problem = format!("{} + {} {what}, {source}", images.0, images.1);
            Found { source: Some(source), images, verified: true, problem: Some(problem), ..blank }
        }
        Ok(None) => {
            let remedy = match set {
                Set::NatsBench => NOT_FETCHED.into(),
                _ => format!("run `thruway data {set}` to fetch it, or point THRUWAY_DATA at a folder that has it"),
            };
            let remedy = Some(remedy);
            match (set, Images::bundled_sample()) {
                (Set::Mnist, Ok(sample)) => {
                    let images = (sample.train.size()[0], sample.test.size()[0]);
                    let problem = Some(format!("only the bundled sample, {} + {} digits", images.0, images.1));
                    Found { source: Some(sample.source), images, problem, remedy, ..blank }
                }
                _ => Found { problem: Some("not found".into()), remedy, ..blank },
            }
        }
        Err(Error::Data { path, reason, remedy }) => {
            Found { problem: Some(format!("{}: {reason}", path.display())), remedy: Some(remedy), ..blank }
        }
        Err(other) => Found { problem: Some(other.to_string()), ..blank },
    }
}

/// Makes each set available: verifies it where it is, else fetches it into the project's data folder. The failure of one
/// stops no other.
///
/// # Errors
/// Per set, [`Error::Data`]: a file that is there but wrong, or nothing could be fetched.
pub fn fetch_all(sets: &[Set]) -> Vec<(Set, Result<Source>)> {
    let places = Places::from_env();
    sets.iter().map(|&set| (set, fetch_one(set, &places))).collect()
}

fn fetch_one(set: Set, places: &Places) -> Result<Source> {
    if let Some(seen) = look(set, places)? {
        return Ok(seen.source);
    }
    let folder = set.images().map_or(set.other_folder(), ImageSet::folder);
    let remedy =
        "put the original files there (sources: data/README.md), or point THRUWAY_DATA at a folder that has them";
    let not_had = |reason| Error::Data { path: Path::new(&places.project).join(folder), reason, remedy: remedy.into() };
    if set == Set::NatsBench {
        return Err(not_had(NOT_FETCHED.into()));
    }
    if places.offline {
        return Err(not_had("not there, and THRUWAY_OFFLINE is set".into()));
    }
    match set.images() {
        Some(set) => Ok(Images::read(set, fetch::fetch(set, &places.project).map_err(not_had)?)?.source),
        None if set == Set::Listops => {
            let located = fetch::fetch_listops(&places.project).map_err(not_had)?;
            located.read()?;
            Ok(located.source)
        }
        None if set == Set::Newsgroups20 => Ok(fetch::fetch_newsgroups(&places.project).map_err(not_had)?.1),
        None => Ok(Cifar10::read(fetch::fetch_cifar10(&places.project).map_err(not_had)?)?.source),
    }
}
