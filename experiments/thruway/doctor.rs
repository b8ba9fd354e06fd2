//! `thruway doctor`: what is here, what is missing, and what to do about it.
use std::fmt::Write;
use std::process::Command;
use thruway::autograd::libtorch;
use thruway::data::{self, Set};

/// The libtorch release that tch 0.24 is made for.
const LIBTORCH: &str = "2.11";

/// One line: what was looked at, what was found, and the remedy where that is not enough.
struct Check {
    what: &'static str,
    found: String,
    remedy: Option<String>,
    /// Whether the main job needs it.
    needed: bool,
}

impl Check {
    fn fine(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, found: found.into(), remedy: None, needed: false }
    }
}

/// The report, and whether all that the main job needs is there.
pub fn doctor() -> (String, bool) {
    let mut checks = vec![
        Check::fine("thruway", format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("THRUWAY_GIT_REVISION"))),
        torch(),
        threads(),
        memory(),
        cuda(),
        python(),
    ];
    checks.extend(data::report().into_iter().map(|found| Check {
        what: "data",
        remedy: found.remedy.clone(),
        needed: found.set == Set::Mnist && !found.verified,
        found: data::Found { remedy: None, ..found }.to_string(),
    }));
    let mut text = String::new();
    for check in &checks {
        let mark = match (&check.remedy, check.needed) {
            (None, false) => "ok     ",
            (_, false) => "note   ",
            (_, true) => "MISSING",
        };
        let _ = writeln!(text, "{mark} {:<9} {}", check.what, check.found);
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(text, "                  -> {remedy}");
        }
    }
    let missing = checks.iter().filter(|c| c.needed).count();
    let _ = match missing {
        0 => writeln!(text, "all that `make run` needs is here"),
        n => writeln!(text, "{n} missing: see the arrows above"),
    };
    (text, missing == 0)
}

/// First line of a file under /proc that starts with `key`, after it; nothing on systems without.
fn proc_line(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(key)).map(|l| l.trim().to_string())
}

fn torch() -> Check {
    let version = libtorch::version();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let place = maps.lines().find(|l| l.contains("libtorch_cpu")).and_then(|l| l.find('/').map(|i| l[i..].to_string()));
    let right = version.starts_with(LIBTORCH);
    let remedy = format!("build against libtorch {LIBTORCH}: `make setup` installs it; LIBTORCH names one you have");
    Check {
        what: "libtorch",
        found: format!("{version}{}", place.map(|p| format!(", {p}")).unwrap_or_default()),
        remedy: (!right).then_some(remedy),
        needed: !right,
    }
}

fn threads() -> Check {
    let cores = std::thread::available_parallelism().map_or("unknown".into(), |n| n.to_string());
    let asked = std::env::var("OMP_NUM_THREADS").unwrap_or("unset".into());
    let threads = tch::get_num_threads();
    Check::fine(
        "threads",
        format!("{threads} of libtorch's on {cores} cores (OMP_NUM_THREADS {asked}; --threads sets them)"),
    )
}

fn memory() -> Check {
    let gib = |key: &str| {
        let kib: f64 = proc_line("/proc/meminfo", key)?.split(' ').next()?.parse().ok()?;
        Some(kib / 1048576.0)
    };
    match (gib("MemTotal:"), gib("MemAvailable:")) {
        (Some(total), Some(free)) => {
            let remedy = (free < 1.0).then(|| "a training run takes about half a GiB: close something first".into());
            Check { what: "memory", found: format!("{free:.1} of {total:.1} GiB free"), remedy, needed: false }
        }
        _ => Check::fine("memory", "unknown: no /proc/meminfo here"),
    }
}

fn cuda() -> Check {
    let driver = proc_line("/proc/driver/nvidia/version", "NVRM version:");
    let loaded = libtorch::load_cuda();
    let devices = if loaded { tch::Cuda::device_count() } else { 0 };
    let driver_text = driver.as_deref().unwrap_or("none");
    let found = match (loaded, devices) {
        (false, _) => format!("not in this libtorch; driver: {driver_text}"),
        (true, 0) => format!("loaded, no device; driver: {driver_text}"),
        (true, n) => format!("loaded, {n} device{}; driver: {driver_text}", if n == 1 { "" } else { "s" }),
    };
    let remedy = match (driver, loaded, devices) {
        (None, ..) => None,
        (Some(_), false, _) => Some("a GPU is here: `make setup` installs the full libtorch; then build again".into()),
        (Some(_), true, 0) => Some("libtorch sees no GPU: look at `nvidia-smi` and CUDA_VISIBLE_DEVICES".into()),
        _ => None,
    };
    Check { what: "CUDA", found, remedy, needed: false }
}

/// The torch of the active Python: parity with PyTorch is live only where the two have the same release.
fn python() -> Check {
    let local = std::path::Path::new(".venv/bin/python");
    let python = match std::env::var("VIRTUAL_ENV") {
        Ok(env) => format!("{env}/bin/python"),
        Err(_) if local.exists() => local.display().to_string(),
        Err(_) => "python3".into(),
    };
    let script = "import importlib.metadata as m; print(m.version('torch'))";
    let remedy = Some("only the comparisons with PyTorch (`make parity`, `make bench`) need it".into());
    let none = |found: String| Check { what: "PyTorch", found, remedy: remedy.clone(), needed: false };
    match Command::new(&python).args(["-c", script]).output() {
        Ok(out) if out.status.success() => {
            let version = String::from_utf8_lossy(&out.stdout).trim().to_string();
            let release = |v: &str| v.split('+').next().unwrap_or_default().to_string();
            if release(&version) == release(&libtorch::version()) {
                Check::fine("PyTorch", format!("{version} in {python}: the same release as libtorch"))
            } else {
                none(format!("{version} in {python}: another release than libtorch"))
            }
        }
        Ok(_) => none(format!("not in {python}")),
        Err(e) => none(format!("{python} does not start: {e}")),
    }
}
