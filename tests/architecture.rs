//! The arrows between the rooms (who may use whom), where unsafe code may live, and what the README names.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, out: &mut Vec<(PathBuf, String)>) {
        for f in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = f.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                out.push((path, text));
            }
        }
    }
    let mut out = vec![];
    walk(&root().join(dir), &mut out);
    out.sort();
    out
}

/// Rooms that a text names by `crate::room` or in a list `crate::{..}`, outside comments and tests.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: Vec<&str> = code.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
    code.join(" ").split("crate::").skip(1).flat_map(heads).collect()
}

/// The first name of a path, or of every path in a list: `a::{b, c}` gives a, `{a::{b, c}, d}` gives a and d.
fn heads(path: &str) -> BTreeSet<String> {
    let name = |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(list) = path.strip_prefix('{') else { return BTreeSet::from([name(path)]) };
    let (mut depth, mut found) = (0, BTreeSet::from([name(list)]));
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => drop(found.insert(name(&list[i + 1..]))),
            _ => {}
        }
    }
    found
}

/// The rooms each room may use; `error` and its names are open to all.
const ARROWS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("autograd", &[]),
    ("kernels", &["autograd", "noise", "dist"]),
    ("noise", &["kernels"]),
    ("dist", &["noise", "kernels", "autograd"]),
    ("exact", &["dist"]),
    ("estimators", &["dist", "noise", "kernels", "autograd", "exact"]),
    ("probe", &["estimators", "exact", "noise", "dist"]),
    ("stochbp", &["dist", "noise"]),
    // mirror descent steps in the parameter of a noise law
    ("optim", &["kernels", "autograd", "dist"]),
    ("nas", &[]),
    // a tree-LSTM draws within its recursion, so it takes a drop-in
    ("nn", &["dist", "exact", "kernels", "autograd", "noise", "estimators", "nas"]),
    ("sbn", &["dist", "exact", "kernels", "autograd", "noise", "nn"]),
    ("data", &["noise", "nas"]),
    // a run sets the heap up for the loops in it
    ("run", &["autograd", "kernels"]),
    ("report", &[]),
];

#[test]
fn the_arrows_between_rooms_hold() {
    let rooms: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).collect();
    for (path, text) in sources("src") {
        let inside = path.strip_prefix(root().join("src")).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let (_, allowed) =
            ARROWS.iter().find(|(r, _)| *r == room).unwrap_or_else(|| panic!("room {room} has no line in ARROWS"));
        for used in rooms_used(&text) {
            let free = used == room || !rooms.contains(used.as_str()) || used == "error";
            assert!(free || allowed.contains(&used.as_str()), "{}: {room} must not use {used}", inside.display());
        }
        assert!(!text.contains("experiments::"), "{}: nothing uses experiments", inside.display());
    }
}

#[test]
fn rooms_are_found_in_every_form_of_use() {
    let text = "use crate::noise::Noise;\nuse crate::{\n    Error,\n    dist::{a, b},\n    run::Run,\n};\n\
        let x = crate::data::load();\n// crate::probe\n#[cfg(test)]\nuse crate::nn;\n";
    let found: Vec<String> = rooms_used(text).into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(found, ["Error", "data", "dist", "noise", "run"]);
}

#[test]
fn unsafe_code_lives_in_two_rooms_and_gives_its_reason() {
    let mut blocks = 0;
    for (path, text) in sources("src").into_iter().chain(sources("experiments")) {
        let inside = path.strip_prefix(root()).unwrap();
        let allowed = inside.starts_with("src/autograd") || inside.starts_with("src/kernels");
        assert!(allowed || !text.contains("allow(unsafe_code)"), "{}: allows unsafe code", inside.display());
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !code.contains("unsafe {") && !code.contains("unsafe impl") {
                continue;
            }
            let here = format!("{}:{}", inside.display(), i + 1);
            assert!(allowed, "{here}: unsafe code");
            let reason = lines[i.saturating_sub(6)..=i].iter().any(|l| l.contains("SAFETY:"));
            assert!(reason, "{here}: no SAFETY reason above it");
            blocks += 1;
        }
    }
    assert!(blocks > 0, "no unsafe block found at all: the search is broken");
}

#[test]
fn no_source_file_has_outgrown_one_concept() {
    for (path, text) in ["src", "experiments", "tests", "examples"].into_iter().flat_map(sources) {
        let n = text.lines().count();
        assert!(n <= 600, "{}: {n} lines", path.display());
    }
}

#[test]
fn the_readme_names_what_exists() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut targets = 0;
    for part in readme.split("make ").skip(1) {
        let target: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        if part.starts_with(|c: char| c.is_ascii_lowercase()) && readme.contains(&format!("`make {target}")) {
            assert!(makefile.contains(&format!("\n{target}:")), "README: make {target} is no target");
            targets += 1;
        }
    }
    assert!(targets >= 4, "{targets} targets found in the README");
    let table = readme.split("<!-- estimators -->\n").nth(1).and_then(|t| t.split("<!-- /estimators -->").next());
    let now = thruway::estimators::Estimator::table();
    assert_eq!(table, Some(now.as_str()), "the README's table is not the registry's: make estimators");
    let table = readme.split("<!-- sbn-methods -->\n").nth(1).and_then(|t| t.split("<!-- /sbn-methods -->").next());
    assert_eq!(table, Some(thruway::sbn::Method::table().as_str()), "the README's table of methods: make estimators");
    for file in readme.split('`').filter(|w| w.starts_with("tests/") || w.starts_with("src/")) {
        let path = file.replace("<name>", "st");
        assert!(root().join(&path).exists(), "README: {file} does not exist");
    }
}
