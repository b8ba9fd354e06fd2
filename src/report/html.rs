//! One self-contained HTML page: tables, curves, images, runs and commands, with no resource from anywhere else.
use super::compare::{Family, unfinished_table};
use super::curves;
use super::runs::Run;
use super::table::{escape, number};
use crate::{Error, Result};
use base64::Engine;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

/// Larger images are named and not embedded, so that the page stays one a browser opens at once.
const IMAGE_LIMIT: u64 = 4 << 20;

const STYLE: &str = include_str!("page.css");

/// `target` as seen from the folder `base`; both must exist.
fn relative(target: &Path, base: &Path) -> Result<PathBuf> {
    let full = |p: &Path| p.canonicalize().map_err(Error::io(p));
    let (target, base) = (full(target)?, full(base)?);
    let (target, base): (Vec<Component>, Vec<Component>) = (target.components().collect(), base.components().collect());
    let common = target.iter().zip(&base).take_while(|(a, b)| a == b).count();
    let up = base[common..].iter().map(|_| Component::ParentDir);
    Ok(up.chain(target[common..].iter().copied()).collect())
}

/// The page, for a file in the folder `base`: links to runs are relative to it.
///
/// # Errors
/// A damaged `metrics.jsonl`, an unreadable image.
pub fn page(families: &[Family], base: &Path) -> Result<String> {
    let names: Vec<&str> = families.iter().map(|f| f.name.as_str()).collect();
    let mut body = String::new();
    for family in families {
        let _ = writeln!(body, "<section>\n<h2>{}</h2>", escape(&family.name));
        for problem in &family.problems {
            let _ = writeln!(body, "<h3>{}</h3>", escape(&problem.title));
            problem.tables().iter().for_each(|t| body += &t.html());
            body += &curves::charts(problem)?;
            for (group, label) in problem.groups.iter().zip(problem.labels()) {
                body += &images(group.first(), &label)?;
            }
        }
        let place = |dir: &Path| relative(dir, base).unwrap_or_else(|_| dir.to_path_buf()).display().to_string();
        if let Some(table) = unfinished_table(family, &place)? {
            body += &table.html();
        }
        body += &run_list(family, base)?;
        body += "</section>\n";
    }
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>thruway: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>thruway report</h1>\n<p>Runs are averaged over seeds and over nothing else; std is the sample standard deviation. z is Welch's, \
         (ours − published) / √(s₁²/n₁ + s₂²/n₂), given only where ours has the published length and settings. Made by thruway {} ({}).</p>\n{body}</body>\n</html>\n",
        escape(&names.join(", ")),
        env!("CARGO_PKG_VERSION"),
        escape(env!("THRUWAY_GIT_REVISION"))
    ))
}

/// The PNG files of a run, embedded.
fn images(run: &Run, label: &str) -> Result<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(&run.dir)
        .map_err(Error::io(&run.dir))?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "png"))
        .collect();
    files.sort();
    let mut out = String::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().replace('_', " ");
        let caption = escape(&format!("{name}: {label}, seed {}", run.seed));
        let bytes = std::fs::metadata(&file).map_err(Error::io(&file))?.len();
        if bytes > IMAGE_LIMIT {
            let _ = writeln!(out, "<p class=\"notes\">{caption}: {bytes} bytes, not embedded</p>");
            continue;
        }
        let data = base64::engine::general_purpose::STANDARD.encode(std::fs::read(&file).map_err(Error::io(&file))?);
        let _ = writeln!(
            out,
            "<figure class=\"image\"><img alt=\"{caption}\" src=\"data:image/png;base64,{data}\"><figcaption>{caption}</figcaption></figure>"
        );
    }
    Ok(if out.is_empty() { out } else { format!("<div class=\"images\">\n{out}</div>\n") })
}

/// Every finished run: a link, its seed, length, time and versions; then the commands.
fn run_list(family: &Family, base: &Path) -> Result<String> {
    let (mut rows, mut commands) = (String::new(), String::new());
    for problem in &family.problems {
        for (group, label) in problem.groups.iter().zip(problem.labels()) {
            for (run, outcome) in group.runs.iter().zip(group.outcomes()) {
                let path = escape(&relative(&run.dir, base)?.display().to_string());
                let versions = run.versions.iter().map(|(k, v)| format!("{} {v}", k.replace('_', " ")));
                let versions = escape(&versions.collect::<Vec<_>>().join(", "));
                let _ = writeln!(
                    rows,
                    "<tr><td><a href=\"{path}\">{path}</a></td><td>{} {}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td>{}</td><td>{versions}</td></tr>",
                    escape(&problem.title),
                    escape(&label),
                    run.seed,
                    outcome.steps,
                    number(outcome.epochs, None),
                    number(outcome.wall_s, None),
                    escape(&run.device),
                );
                let _ = writeln!(commands, "{}", escape(&run.command));
            }
        }
    }
    for run in &family.unfinished {
        let _ = writeln!(commands, "{}", escape(&run.command));
    }
    if rows.is_empty() && commands.is_empty() {
        return Ok(String::new());
    }
    let heads = ["run", "what", "seed", "steps", "epochs", "wall time [s]", "device", "versions"];
    let heads: String = heads.iter().map(|h| format!("<th>{h}</th>")).collect();
    Ok(format!(
        "<details open><summary>Runs of {0}</summary>\n<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n</details>\n<details open><summary>Commands of {0}</summary>\n<pre>{commands}</pre>\n</details>\n",
        escape(&family.name)
    ))
}
