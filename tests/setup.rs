//! `scripts/setup` keeps a right `.libtorch`, mends a wrong one and says what is wrong with a LIBTORCH that cannot serve.
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An empty project with the script and the manifest it reads.
fn project() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(dir.path().join("scripts")).unwrap();
    for file in ["scripts/setup", "Cargo.toml"] {
        fs::copy(root.join(file), dir.path().join(file)).unwrap();
    }
    dir
}

/// What looks like a libtorch of that version: this test's own program stands for the library.
fn libtorch(project: &Path, name: &str, version: &str) -> PathBuf {
    let dir = project.join(name);
    fs::create_dir_all(dir.join("include")).unwrap();
    fs::create_dir_all(dir.join("lib")).unwrap();
    for lib in ["libtorch_cpu.so", "libc10.so"] {
        symlink(std::env::current_exe().unwrap(), dir.join("lib").join(lib)).unwrap();
    }
    fs::write(dir.join("version.py"), format!("__version__ = '{version}'\n")).unwrap();
    dir
}

/// Runs the script; pip would fail at once, so nothing is fetched. Returns whether it succeeded, and what it printed.
fn setup(project: &Path, libtorch: Option<&Path>) -> (bool, String) {
    let mut script = Command::new(project.join("scripts/setup"));
    script.env_remove("LIBTORCH").env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", "");
    if let Some(dir) = libtorch {
        script.env("LIBTORCH", dir);
    }
    let out = script.output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

#[test]
fn a_libtorch_in_the_environment_is_linked_and_then_kept() {
    let project = project();
    let link = project.path().join(".libtorch");
    let good = libtorch(project.path(), "good", "2.11.0+cpu");
    for environment in [Some(good.as_path()), None] {
        let (ok, said) = setup(project.path(), environment);
        assert!(ok, "{said}");
        assert_eq!(fs::read_link(&link).unwrap(), good);
    }
}

#[test]
fn a_libtorch_that_cannot_serve_is_refused_with_the_reason() {
    let project = project();
    let old = libtorch(project.path(), "old", "2.10.0");
    let bare = libtorch(project.path(), "bare", "2.11.0");
    fs::remove_dir(bare.join("include")).unwrap();
    let damaged = libtorch(project.path(), "damaged", "2.11.0");
    fs::remove_file(damaged.join("lib/libtorch_cpu.so")).unwrap();
    fs::write(damaged.join("lib/libtorch_cpu.so"), "half a download").unwrap();
    for (dir, reason) in [
        (old.as_path(), "is version 2.10.0, not 2.11.0"),
        (bare.as_path(), "has no include"),
        (damaged.as_path(), "libtorch_cpu.so is damaged"),
        (Path::new("good"), "is not an absolute path"),
        (Path::new("/nowhere"), "no such directory"),
    ] {
        let (ok, said) = setup(project.path(), Some(dir));
        assert!(!ok && said.contains(reason) && said.contains("Remedy:"), "{}: {said}", dir.display());
        assert!(!project.path().join(".libtorch").is_symlink(), "{}: linked all the same", dir.display());
    }
}

#[test]
fn a_wrong_link_is_mended_and_a_folder_in_its_place_is_left_alone() {
    let project = project();
    let link = project.path().join(".libtorch");
    let good = libtorch(project.path(), "good", "2.11.0");
    for wrong in [PathBuf::from("/nowhere"), libtorch(project.path(), "old", "2.10.0")] {
        symlink(&wrong, &link).unwrap();
        let (ok, said) = setup(project.path(), Some(&good));
        assert!(ok, "{said}");
        assert_eq!(fs::read_link(&link).unwrap(), good);
        fs::remove_file(&link).unwrap();
    }
    fs::create_dir(&link).unwrap();
    let (ok, said) = setup(project.path(), Some(&good));
    assert!(!ok && said.contains(".libtorch is in the way"), "{said}");
}

#[test]
fn a_venv_of_somebody_elses_is_not_touched() {
    let project = project();
    let theirs = project.path().join(".venv/theirs");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "kept").unwrap();
    symlink(libtorch(project.path(), "old", "2.10.0"), project.path().join(".libtorch")).unwrap();
    // An active Python with a usable torch is taken instead; neither way may change the folder.
    let (ok, said) = setup(project.path(), None);
    assert!(ok || said.contains("is not of this script's making"), "{said}");
    assert!(said.contains("is version 2.10.0"), "{said}");
    assert_eq!(fs::read_dir(project.path().join(".venv")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(theirs).unwrap(), "kept");
}
