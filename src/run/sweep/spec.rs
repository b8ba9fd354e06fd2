//! The sweep file: which runs there are, and where each of them goes.
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Flags of a binary, by name without the dashes.
pub(super) type Flags = Map<String, Value>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    binary: String,
    /// A subcommand of the binary.
    command: Option<String>,
    out: Option<String>,
    #[serde(default)]
    base: Flags,
    #[serde(default)]
    grid: Map<String, Value>,
    #[serde(default)]
    cells: Vec<Flags>,
    seeds: Vec<i64>,
}

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    /// What sets it apart from the others, as in `estimator-st_tau-0.5/3`.
    pub name: String,
    pub dir: PathBuf,
    pub seed: i64,
    pub command: Option<String>,
    pub flags: Flags,
}

impl Cell {
    /// The arguments of its process.
    pub fn arguments(&self, resume: bool) -> Vec<String> {
        let mut arguments: Vec<String> = self.command.iter().cloned().collect();
        for (flag, value) in &self.flags {
            match value {
                Value::Bool(false) | Value::Null => {}
                Value::Bool(true) => arguments.push(format!("--{flag}")),
                // One word, so that a negative number is not taken for a flag.
                value => arguments.push(format!("--{flag}={}", text(value))),
            }
        }
        if !self.flags.contains_key("threads") {
            arguments.push("--threads=1".into());
        }
        arguments.push("--quiet".into());
        arguments.push(format!("--seed={}", self.seed));
        arguments.push(format!("--out={}", self.dir.display()));
        arguments.extend(resume.then(|| "--resume".into()));
        arguments
    }
}

/// Everything in the file, in the order in which the runs are started: all of the first seed, then all of the next.
#[derive(Debug)]
pub(super) struct Spec {
    pub binary: String,
    pub cells: Vec<Cell>,
}

/// Set by the sweep itself.
const RESERVED: [&str; 4] = ["seed", "out", "resume", "quiet"];

/// Reads a sweep file.
pub(super) fn read(path: &Path) -> Result<Spec> {
    let refuse = |reason: String| Error::Data {
        path: path.to_path_buf(),
        reason,
        remedy: "see `thruway sweep --help` for what a sweep file holds".into(),
    };
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let toml = path.extension().is_some_and(|e| e == "toml");
    let parsed: std::result::Result<File, String> = match toml {
        true => toml::from_str(&text).map_err(|e| e.to_string()),
        false => serde_json::from_str(&text).map_err(|e| e.to_string()),
    };
    expand(parsed.map_err(|e| refuse(format!("not a sweep file: {}", e.trim())))?).map_err(refuse)
}

fn expand(file: File) -> std::result::Result<Spec, String> {
    let mut combinations: Vec<Flags> = if file.cells.is_empty() { vec![Flags::new()] } else { file.cells };
    for (flag, values) in &file.grid {
        let values = values.as_array().filter(|v| !v.is_empty());
        let values = values.ok_or_else(|| format!("grid.{flag} must be a list of values"))?;
        if combinations.iter().any(|c| c.contains_key(flag)) {
            return Err(format!("{flag:?} stands in the grid and in a cell; name it in one of them"));
        }
        let with = |c: &Flags, v: &Value| {
            c.iter().map(|(k, v)| (k.clone(), v.clone())).chain([(flag.clone(), v.clone())]).collect()
        };
        combinations = combinations.iter().flat_map(|c| values.iter().map(move |v| with(c, v))).collect();
    }
    if file.seeds.is_empty() {
        return Err("seeds must be a list of at least one number".into());
    }
    let family =
        Path::new(&file.binary).file_name().ok_or("binary must name a program")?.to_string_lossy().into_owned();
    let out = file.out.unwrap_or_else(|| format!("runs/{family}/{{name}}/{{seed}}"));
    let mut cells = Vec::new();
    let mut taken: HashMap<PathBuf, String> = HashMap::new();
    for seed in &file.seeds {
        for own in &combinations {
            let mut flags = file.base.clone();
            flags.extend(own.clone());
            check(&flags)?;
            let name = name(own);
            let dir = PathBuf::from(out.replace("{name}", &name).replace("{seed}", &seed.to_string()));
            let name = format!("{name}/{seed}");
            if let Some(other) = taken.insert(dir.clone(), name.clone()) {
                let why = if other == name { "given twice" } else { "put {name} and {seed} into out" };
                return Err(format!("{name} and {other} have the same directory {}; {why}", dir.display()));
            }
            cells.push(Cell { name, dir, seed: *seed, command: file.command.clone(), flags });
        }
    }
    Ok(Spec { binary: file.binary, cells })
}

fn check(flags: &Flags) -> std::result::Result<(), String> {
    for (flag, value) in flags {
        if flag.is_empty() || flag.starts_with('-') || flag.contains(|c: char| c == '=' || c.is_whitespace()) {
            return Err(format!("{flag:?} is no name of a flag; write it without dashes in front"));
        }
        if RESERVED.contains(&flag.as_str()) {
            return Err(format!("{flag:?} is set by the sweep itself: seeds and out are fields of the file"));
        }
        if value.is_array() || value.is_object() {
            return Err(format!("{flag} must be a text, a number, true or false, got {value}"));
        }
    }
    Ok(())
}

/// A directory's name for the flags that set a run apart, in the order of the file; `all` where nothing does.
fn name(own: &Flags) -> String {
    let plain = |s: &str| s.replace(|c: char| !(c.is_ascii_alphanumeric() || ".+-".contains(c)), "-");
    let parts: Vec<String> = own.iter().map(|(k, v)| plain(&format!("{k}-{}", text(v)))).collect();
    if parts.is_empty() { "all".into() } else { parts.join("_") }
}

/// A value as it stands on a command line.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> std::result::Result<Spec, String> {
        expand(toml::from_str(text).map_err(|e| e.to_string())?)
    }

    #[test]
    fn cells_times_grid_times_seeds() {
        let spec = parse(
            r#"
            binary = "vae"
            seeds = [7, 8]
            cells = [{ estimator = "st" }, { estimator = "gumbel-rao", samples = 100 }]
            [base]
            epochs = 2
            probe = true
            record-draws = false
            [grid]
            tau = [1.0, 0.5]
            "#,
        )
        .unwrap();
        let names: Vec<&str> = spec.cells.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "estimator-st_tau-1.0/7",
                "estimator-st_tau-0.5/7",
                "estimator-gumbel-rao_samples-100_tau-1.0/7",
                "estimator-gumbel-rao_samples-100_tau-0.5/7",
                "estimator-st_tau-1.0/8",
                "estimator-st_tau-0.5/8",
                "estimator-gumbel-rao_samples-100_tau-1.0/8",
                "estimator-gumbel-rao_samples-100_tau-0.5/8",
            ]
        );
        let dir = "runs/vae/estimator-gumbel-rao_samples-100_tau-0.5/8";
        assert_eq!(spec.cells[7].dir, PathBuf::from(dir));
        let expected = ["--epochs=2", "--probe", "--estimator=gumbel-rao", "--samples=100", "--tau=0.5", "--threads=1"];
        let end = ["--quiet", "--seed=8", &format!("--out={dir}"), "--resume"].map(String::from);
        assert_eq!(spec.cells[7].arguments(true), [expected.map(String::from).to_vec(), end.to_vec()].concat());
    }

    #[test]
    fn one_plain_cell() {
        let spec =
            parse("binary = \"./bin/tiny\"\nseeds = [0]\nout = \"x y/{seed}\"\nbase = { lr = -1e-3, threads = 2 }");
        let cell = &spec.unwrap().cells[0];
        assert_eq!((cell.name.as_str(), &cell.dir), ("all/0", &PathBuf::from("x y/0")));
        assert_eq!(cell.arguments(false), ["--lr=-0.001", "--threads=2", "--quiet", "--seed=0", "--out=x y/0"]);
        let spec = parse("binary = 'tiny'\ncommand = 'part'\nseeds = [0]\nbase = { lr = 1 }").unwrap();
        assert_eq!(spec.cells[0].arguments(false)[..2], ["part", "--lr=1"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, words) in [
            ("binary = 'a'\nseeds = []", "seeds must be"),
            ("binary = 'a'", "seeds"),
            ("binary = 'a'\nseeds = [0]\nepochs = 3", "epochs"),
            ("binary = 'a'\nseeds = [0]\ngrid = { tau = 1 }", "grid.tau must be a list"),
            ("binary = 'a'\nseeds = [0]\ngrid = { tau = [] }", "grid.tau must be a list"),
            ("binary = 'a'\nseeds = [0]\ngrid = { t = [1] }\ncells = [{ t = 2 }]", "in the grid and in a cell"),
            ("binary = 'a'\nseeds = [0]\nbase = { seed = 3 }", "\"seed\" is set by the sweep"),
            ("binary = 'a'\nseeds = [0]\nbase = { --lr = 3 }", "without dashes"),
            ("binary = 'a'\nseeds = [0]\nbase = { lr = [3] }", "lr must be a text, a number"),
            ("binary = 'a'\nseeds = [1, 1]", "given twice"),
            ("binary = 'a'\nseeds = [1, 2]\nout = 'runs/{name}'", "put {name} and {seed} into out"),
            ("binary = '..'\nseeds = [1]", "must name a program"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
    }
}
