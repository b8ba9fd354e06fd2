//! Files that are whole or not there: written aside, flushed to disk, renamed.
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Replaces the file at `path` by these bytes.
///
/// # Errors
/// [`Error::Run`], and what was there before is untouched.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = Path::new(&aside);
    let write = || {
        let mut file = File::create(aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(aside, path)?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    };
    write().map_err(|e| {
        let _ = fs::remove_file(aside); // on a full disk it would stay in the way
        unwritten(path, e)
    })
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.sync_all()
}

/// Writes a JSON file, indented, atomically.
pub(super) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    replace(path, text.as_bytes())
}

/// The error of a file that could not be written.
pub(super) fn unwritten(path: &Path, source: std::io::Error) -> Error {
    use std::io::ErrorKind::*;
    let remedy = match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            "free some space; the last checkpoint is intact, continue from it with --resume"
        }
        _ => "choose an --out that can be written",
    };
    Error::Run {
        dir: path.parent().unwrap_or(Path::new(".")).to_path_buf(),
        reason: format!("cannot write {}: {source}", path.file_name().unwrap_or_default().to_string_lossy()),
        remedy: remedy.into(),
    }
}

/// The JSON in a file; `None` when there is no such file.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(Error::io(path)(e)),
    };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::Run {
        dir: path.parent().unwrap_or(Path::new(".")).to_path_buf(),
        reason: format!("{} is damaged or not a run's: {e}", path.file_name().unwrap_or_default().to_string_lossy()),
        remedy: "move the directory away and start the run again".into(),
    })
}
