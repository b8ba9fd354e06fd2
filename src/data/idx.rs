//! IDX, the format of MNIST and its kin: `00 00 08 D`, then D big-endian 32-bit sizes, then bytes in row-major order.
//!
//! The file may be gzipped or plain: its first two bytes decide, not its name. The reader is total: any bytes give a
//! value or an error in words, and no more memory is taken than the file has bytes to fill.
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

/// The content of an IDX file of unsigned bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// Sizes, outermost first: `[N]` for labels, `[N, rows, columns]` for images.
    pub dims: Vec<usize>,
    /// The values, row-major; as many as the product of `dims`.
    pub bytes: Vec<u8>,
    /// SHA-256 of the uncompressed file, header included, in lower-case hex.
    pub sha256: String,
}

/// Reads an IDX file that must have the sizes `dims`.
///
/// # Errors
/// [`Error::Data`] naming the file, what was expected and what was found, and `remedy`: not a regular file, unreadable,
/// damaged or truncated gzip, wrong magic, other sizes (labels where images belong), too few bytes or too many.
pub fn read(path: &Path, dims: &[usize], remedy: &str) -> Result<Idx> {
    let wrong = |reason: String| Error::Data { path: path.into(), reason, remedy: remedy.into() };
    let meta = std::fs::metadata(path).map_err(|e| wrong(format!("cannot be read ({e})")))?;
    if !meta.is_file() {
        let kind = if meta.is_dir() { "a directory" } else { "not a regular file" };
        return Err(wrong(format!("is {kind}, expected an IDX file")));
    }
    let file = File::open(path).map_err(|e| wrong(format!("cannot be read ({e})")))?;
    decode(file, Some(dims)).map_err(wrong)
}

/// Decodes an IDX stream, gzipped or plain; with `expected`, the sizes must be those.
///
/// # Errors
/// What is wrong, in words, without a file name (see [`read`]).
pub fn decode(mut source: impl Read, expected: Option<&[usize]>) -> std::result::Result<Idx, String> {
    let mut start = Vec::new();
    source.by_ref().take(2).read_to_end(&mut start).map_err(|e| describe(&e))?;
    let gzipped = start == [0x1f, 0x8b];
    let source = BufReader::with_capacity(1 << 16, Cursor::new(start).chain(source));
    if gzipped {
        decode_plain(flate2::bufread::MultiGzDecoder::new(source), expected)
    } else {
        decode_plain(source, expected)
    }
}

fn decode_plain(mut source: impl Read, expected: Option<&[usize]>) -> std::result::Result<Idx, String> {
    let mut header = Vec::new();
    take(&mut source, 4, &mut header)?;
    let rank = match header[..] {
        [] => return Err("empty".into()),
        [0, 0, 8, rank] if rank > 0 => rank as usize,
        _ => return Err(format!("not an IDX file of bytes: begins with {}, expected 00 00 08", hex_spaced(&header))),
    };
    take(&mut source, 4 * rank as u64, &mut header)?;
    if header.len() < 4 + 4 * rank {
        return Err(format!("truncated within its header: {} of {} bytes", header.len(), 4 + 4 * rank));
    }
    let dims: Vec<usize> =
        header[4..].chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]) as usize).collect();
    if let Some(expected) = expected.filter(|&e| e != dims) {
        let swapped = if dims.len() == expected.len() { "" } else { "; were images and labels swapped?" };
        return Err(format!("holds {} {dims:?}, expected {} {expected:?}{swapped}", noun(&dims), noun(expected)));
    }
    let total = dims
        .iter()
        .try_fold(1u64, |a, &d| a.checked_mul(d as u64))
        .filter(|&t| t < isize::MAX as u64)
        .ok_or_else(|| format!("claims the impossible sizes {dims:?}"))?;
    // One byte more than there should be: it shows trailing bytes, and makes gzip reach and check its checksum. The
    // vector grows with what arrives, whatever the header claims.
    let mut bytes = Vec::new();
    take(&mut source, total + 1, &mut bytes)?;
    match bytes.len() as u64 {
        n if n < total => return Err(format!("truncated: {n} of {total} bytes after the header")),
        n if n > total => return Err(format!("has trailing bytes: more than the {total} that its header announces")),
        _ => (),
    }
    let sha256 = hex(&Sha256::new().chain_update(&header).chain_update(&bytes).finalize());
    Ok(Idx { dims, bytes, sha256 })
}

/// Appends up to `n` bytes; fewer at the end of the stream.
fn take(source: &mut impl Read, n: u64, into: &mut Vec<u8>) -> std::result::Result<(), String> {
    source.take(n).read_to_end(into).map(drop).map_err(|e| describe(&e))
}

fn describe(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "truncated: its gzip stream ends early".into(),
        _ if e.raw_os_error().is_some() => format!("cannot be read ({e})"),
        _ => format!("damaged gzip stream ({e})"),
    }
}

fn noun(dims: &[usize]) -> &'static str {
    match dims.len() {
        1 => "labels",
        3 => "images",
        _ => "an array",
    }
}

fn hex_spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
