//! The Wisconsin diagnostic breast-cancer data (Wolberg, Street & Mangasarian; UCI machine learning repository): 569 tumours,
//! 30 features of cell nuclei each, benign or malignant. The file is part of every binary.
use super::images::Places;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::Path;
use tch::Tensor;

const BUNDLED: &str = include_str!("../../data/uci_breast_cancer/wdbc.csv");
/// Of the file.
const SHA256: &str = "432ff316e7bfb60b70a275064b4401315cc39f09c9099d031013a23647e98687";
/// Features of a row, before its target.
const FEATURES: usize = 30;

/// The set, in the order of the file.
#[derive(Debug)]
pub struct BreastCancer {
    /// `[569, 30]`, f64, as measured.
    pub features: Tensor,
    /// `[569]`, f64: 1 benign (357), -1 malignant (212).
    pub labels: Tensor,
}

/// The set: `uci_breast_cancer/wdbc.csv` in `THRUWAY_DATA` where it is there, else the bundled copy.
///
/// # Errors
/// [`Error::Data`] for a file that is not the original.
///
/// ```
/// use tch::Kind;
/// let set = thruway::data::breast_cancer::load()?;
/// assert_eq!(set.features.size(), [569, 30]);
/// assert_eq!(set.labels.gt(0.0).sum(Kind::Int64).int64_value(&[]), 357);
/// # thruway::Result::Ok(())
/// ```
pub fn load() -> Result<BreastCancer> {
    let file = Places::from_env().external.map(|root| root.join("uci_breast_cancer/wdbc.csv"));
    match file.filter(|f| f.exists()) {
        Some(path) => read(&path),
        None => parse(BUNDLED, Path::new("bundled wdbc.csv")),
    }
}

/// Reads and verifies a file.
///
/// # Errors
/// As [`load`].
pub fn read(path: &Path) -> Result<BreastCancer> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let found: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    if found != SHA256 {
        return Err(damaged(path, format!("SHA-256 {found}, expected {SHA256}")));
    }
    parse(&String::from_utf8_lossy(&bytes), path)
}

fn damaged(path: &Path, reason: String) -> Error {
    let remedy = "put the original there (data/README.md), or unset THRUWAY_DATA to use the bundled copy".into();
    Error::Data { path: path.to_path_buf(), reason, remedy }
}

fn parse(text: &str, path: &Path) -> Result<BreastCancer> {
    let (mut features, mut labels) = (vec![], vec![]);
    for (index, line) in text.lines().enumerate().skip(1) {
        let numbers: std::result::Result<Vec<f64>, _> = line.split(',').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([row @ .., target]) if row.len() == FEATURES && (*target == 0.0 || *target == 1.0) => {
                features.extend_from_slice(row);
                labels.push(2.0 * target - 1.0);
            }
            _ => return Err(damaged(path, format!("line {}: expected {FEATURES} numbers and 0 or 1", index + 1))),
        }
    }
    let rows = labels.len() as i64;
    Ok(BreastCancer {
        features: Tensor::f_from_slice(&features)?.f_view([rows, FEATURES as i64])?,
        labels: Tensor::f_from_slice(&labels)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stochbp_data_is_the_original_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wdbc.csv");
        std::fs::write(&path, BUNDLED).unwrap();
        let set = read(&path).unwrap();
        // the first row of the file
        assert_eq!(set.features.double_value(&[0, 0]), 17.99);
        assert_eq!((set.labels.double_value(&[0]), set.features.size()), (-1.0, vec![569, 30]));
        std::fs::write(&path, BUNDLED.replace("17.99", "17.98")).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("wdbc.csv") && error.contains("SHA-256") && error.contains("unset THRUWAY_DATA"));
        let error = parse("head\n1,2,3\n", &path).unwrap_err().to_string();
        assert!(error.contains("line 2: expected 30 numbers"), "{error}");
    }
}
