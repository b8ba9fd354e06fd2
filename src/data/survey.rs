//! What is there: the report for `thruway doctor`, and fetching of everything that is not.
use super::fetch;
use super::images::{ImageSet, Images, Places, Source};
use crate::{Error, Result};
use serde::Serialize;
use std::fmt;

/// One data set, as found.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// The set.
    pub set: ImageSet,
    /// Where its files are; `None` if nowhere, or if they are wrong.
    pub source: Option<Source>,
    /// Training and test images that [`super::load`] would give without fetching: 0 if none.
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
            (Some(source), None) => write!(f, "{}: {train} + {test} images, SHA-256 verified, {source}", self.set),
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
    ImageSet::ALL.map(|set| found(set, places)).into()
}

fn found(set: ImageSet, places: &Places) -> Found {
    let blank = Found { set, source: None, images: (0, 0), verified: false, problem: None, remedy: None };
    let read = places.locate(set).and_then(|located| located.map(|l| Images::read(set, l)).transpose());
    match read {
        Ok(Some(images)) => {
            let counts = (images.train.size()[0], images.test.size()[0]);
            Found { source: Some(images.source), images: counts, verified: true, ..blank }
        }
        Ok(None) => {
            let remedy = Some("run `thruway data` to fetch it, or point THRUWAY_DATA at a folder that has it".into());
            match Images::bundled_sample() {
                Ok(sample) if set == ImageSet::Mnist => {
                    let counts = (sample.train.size()[0], sample.test.size()[0]);
                    let problem = format!("only the bundled sample, {} + {} digits", counts.0, counts.1);
                    let source = Some(sample.source);
                    Found { source, images: counts, problem: Some(problem), remedy, ..blank }
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
pub fn fetch_all(sets: &[ImageSet]) -> Vec<(ImageSet, Result<Source>)> {
    let places = Places::from_env();
    let fetch_one = |set: ImageSet| {
        let path = places.project.join(set.folder());
        let remedy = "put the four original files there (sources: data/README.md), or point THRUWAY_DATA at a folder that has them";
        let not_had = |reason| Error::Data { path, reason, remedy: remedy.into() };
        let located = match places.locate(set)? {
            Some(located) => located,
            None if places.offline => return Err(not_had("not there, and THRUWAY_OFFLINE is set".into())),
            None => fetch::fetch(set, &places.project).map_err(not_had)?,
        };
        Ok(Images::read(set, located)?.source)
    };
    sets.iter().map(|&set| (set, fetch_one(set))).collect()
}
