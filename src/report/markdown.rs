//! Tables in a README, generated between markers and never typed.
use super::table::Table;
use crate::{Error, Result};
use std::path::Path;

const OPEN: &str = "<!-- table:";
const CLOSE: &str = "<!-- /table -->";

/// `text` with everything between `<!-- table:NAME -->` and `<!-- /table -->` replaced by the table of that name. Doing
/// it twice changes nothing.
///
/// # Errors
/// [`Error::Usage`] for a marker that is not closed, [`Error::Unknown`] for a name that no table has.
pub fn fill(text: &str, tables: &[Table]) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(OPEN) {
        let (before, marker) = rest.split_at(start);
        let unclosed = || {
            let line = marker.lines().next().unwrap_or_default();
            Error::Usage(format!("the marker {line:?} has no `{CLOSE}` before the next one; add it"))
        };
        let head = marker.find("-->").map(|i| i + 3).ok_or_else(unclosed)?;
        let tail = marker.find(CLOSE).filter(|&t| marker[head..].find(OPEN).is_none_or(|next| t < head + next));
        let tail = tail.ok_or_else(unclosed)?;
        let name = marker[OPEN.len()..head - 3].trim();
        let table = tables.iter().find(|t| t.name == name).ok_or_else(|| Error::Unknown {
            what: "table",
            got: name.to_string(),
            known: tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        out += before;
        out += &marker[..head];
        out += "\n\n";
        out += &table.markdown();
        out += "\n";
        out += CLOSE;
        rest = &marker[tail + CLOSE.len()..];
    }
    Ok(out + rest)
}

/// Fills the markers of a file in place; returns how many tables it holds. The file is written only when it changes.
///
/// # Errors
/// As [`fill`]; [`Error::Usage`] when the file holds no marker; [`Error::Io`].
pub fn fill_file(path: &Path, tables: &[Table]) -> Result<usize> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let count = text.matches(OPEN).count();
    if count == 0 {
        let form = format!("{OPEN}NAME -->` and `{CLOSE}");
        return Err(Error::Usage(format!("{} holds no marker; write `{form}` where a table goes", path.display())));
    }
    let filled = fill(&text, tables)?;
    if filled != text {
        super::write_aside(path, filled.as_bytes())?;
    }
    Ok(count)
}

/// Fills the marker of one table in a page whose other tables come from elsewhere, which stay.
///
/// # Errors
/// [`Error::Usage`] when the page has no marker of this table or one that is not closed; [`Error::Io`].
pub fn fill_one(path: &Path, table: &Table) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let marker = format!("{OPEN}{} -->", table.name);
    let Some(start) = text.find(&marker) else {
        let rule = format!("{} holds no marker; write `{marker}` and `{CLOSE}` where the table goes", path.display());
        return Err(Error::Usage(rule));
    };
    let end = text[start..].find(CLOSE).map_or(text.len(), |i| start + i + CLOSE.len());
    let filled = [&text[..start], &fill(&text[start..end], std::slice::from_ref(table))?, &text[end..]].concat();
    if filled != text {
        super::write_aside(path, filled.as_bytes())?;
    }
    Ok(())
}
