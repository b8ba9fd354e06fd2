//! Shared by the tests: fixture files and JSON as tensors.
#![allow(dead_code, missing_docs)]
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The fixtures of the project and, where `THRUWAY_FIXTURES` names a directory, those in it.
pub fn fixture_files() -> Vec<PathBuf> {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")];
    dirs.extend(std::env::var_os("THRUWAY_FIXTURES").map(PathBuf::from));
    let mut files: Vec<PathBuf> = dirs
        .iter()
        .flat_map(|d| std::fs::read_dir(d).unwrap_or_else(|e| panic!("{}: {e}", d.display())))
        .map(|f| f.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

pub fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Nested lists of numbers as a float64 tensor.
pub fn tensor(v: &Value) -> Tensor {
    let (mut shape, mut data) = (vec![], vec![]);
    let mut level = v;
    while let Value::Array(a) = level {
        shape.push(a.len() as i64);
        level = &a[0];
    }
    fn flatten(v: &Value, out: &mut Vec<f64>) {
        match v {
            Value::Array(a) => a.iter().for_each(|v| flatten(v, out)),
            v => out.push(v.as_f64().expect("a number")),
        }
    }
    flatten(v, &mut data);
    Tensor::from_slice(&data).view(&shape[..])
}

/// Largest absolute difference.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    if a.numel() == 0 { 0.0 } else { (a - b).abs().max().double_value(&[]) }
}
