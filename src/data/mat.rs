//! Numeric arrays of a MATLAB file, version 5 (`.mat` as `save -v6` and `-v7` write it, and `scipy.io.savemat`).
//!
//! A 128-byte header, then elements of a type, a size and that many bytes, padded to 8; an element may hold a whole deflated
//! one. A matrix is an element of elements: class, sizes, name, numbers. The numbers may be stored in a narrower type than
//! the class says (doubles that are whole numbers as bytes). Both byte orders are read. Cells, structures, text and complex
//! arrays are passed over. The reader is total: any bytes give a value or an error in words.
use std::io::Read;

/// A real array, `f32` whatever it was stored as, in MATLAB's order: the first index is the fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Name of the variable.
    pub name: String,
    /// Sizes, at least two.
    pub dims: Vec<usize>,
    /// The numbers, as many as the product of `dims`.
    pub values: Vec<f32>,
}

type Outcome<T> = std::result::Result<T, String>;

const HEADER: usize = 128;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
/// No element of a file that we read is longer than this when inflated.
const LONGEST: u64 = 1 << 30;

/// The real arrays of a file whose names are in `wanted`, in the order of the file.
///
/// # Errors
/// What is wrong, in words, without a file name.
pub fn read(bytes: &[u8], wanted: &[&str]) -> Outcome<Vec<Array>> {
    if bytes.len() < HEADER {
        return Err(format!("truncated within its header: {} of {HEADER} bytes", bytes.len()));
    }
    let little = match &bytes[126..128] {
        b"IM" => true,
        b"MI" => false,
        other => return Err(format!("not a MATLAB 5 file: its byte order mark is {other:02x?}, expected IM or MI")),
    };
    let mut rest = Elements { bytes: &bytes[HEADER..], little };
    let mut found = Vec::new();
    while let Some((kind, content)) = rest.next_element()? {
        match kind {
            MATRIX => found.extend(matrix(content, little, wanted)?),
            COMPRESSED => {
                let mut inflated = Vec::new();
                flate2::read::ZlibDecoder::new(content)
                    .take(LONGEST)
                    .read_to_end(&mut inflated)
                    .map_err(|e| format!("damaged: a compressed array does not inflate ({e})"))?;
                let inner = Elements { bytes: &inflated, little }.next_element()?;
                if let Some((MATRIX, content)) = inner {
                    found.extend(matrix(content, little, wanted)?);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// A sequence of elements.
struct Elements<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl<'a> Elements<'a> {
    fn word(&self, at: usize) -> Outcome<u32> {
        let four = self.bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        let four = four.ok_or("truncated within the tag of an element")?;
        Ok(if self.little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    }

    /// Type and content of the next element, or `None` at the end.
    fn next_element(&mut self) -> Outcome<Option<(u32, &'a [u8])>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let first = self.word(0)?;
        // a small element has its size in the upper half of the first word and up to four bytes in the second
        let (kind, from, size) = match first >> 16 {
            0 => (first, 8, self.word(4)? as usize),
            size => (first & 0xffff, 4, size as usize),
        };
        let bytes = self.bytes;
        let content = bytes.get(from..).and_then(|b| b.get(..size)).ok_or_else(|| {
            format!("truncated: an element of {size} bytes, and {} are left", bytes.len().saturating_sub(from))
        })?;
        // deflated elements are not padded, whatever the standard says of all others
        let end = if kind == COMPRESSED { from + size } else { (from + size).next_multiple_of(8) };
        self.bytes = &bytes[end.min(bytes.len())..];
        Ok(Some((kind, content)))
    }

    fn expect(&mut self, what: &str) -> Outcome<(u32, &'a [u8])> {
        self.next_element()?.ok_or_else(|| format!("damaged: an array without its {what}"))
    }
}

/// A matrix that is wanted, real and numeric.
fn matrix(content: &[u8], little: bool, wanted: &[&str]) -> Outcome<Option<Array>> {
    let mut parts = Elements { bytes: content, little };
    let (_, flags) = parts.expect("flags")?;
    let flags = Elements { bytes: flags, little }.word(0)?;
    let (class, complex) = (flags & 0xff, flags & 0x0800 != 0);
    let (kind, dims) = parts.expect("sizes")?;
    let (_, name) = parts.expect("name")?;
    let name = String::from_utf8_lossy(name).into_owned();
    // 6 to 15: double, single and the integers
    if !(6..=15).contains(&class) || complex || !wanted.contains(&name.as_str()) {
        return Ok(None);
    }
    let dims: Vec<usize> = numbers(kind, dims, little)?.iter().map(|&d| d as usize).collect();
    let count = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d)).ok_or("claims impossible sizes")?;
    let (kind, stored) = parts.expect("numbers")?;
    let values = numbers(kind, stored, little)?;
    if values.len() != count {
        return Err(format!("damaged: {name} has {} numbers, its sizes {dims:?} ask for {count}", values.len()));
    }
    Ok(Some(Array { name, dims, values }))
}

/// Numbers of a storage type.
fn numbers(kind: u32, bytes: &[u8], little: bool) -> Outcome<Vec<f32>> {
    macro_rules! read {
        ($t:ty) => {{
            let parts = bytes.chunks_exact(size_of::<$t>());
            if !parts.remainder().is_empty() {
                return Err("damaged: an array ends within a number".into());
            }
            parts
                .map(|b| {
                    let b = b.try_into().expect("chunks of that size");
                    (if little { <$t>::from_le_bytes(b) } else { <$t>::from_be_bytes(b) }) as f32
                })
                .collect()
        }};
    }
    Ok(match kind {
        1 => read!(i8),
        2 => read!(u8),
        3 => read!(i16),
        4 => read!(u16),
        5 => read!(i32),
        6 => read!(u32),
        7 => read!(f32),
        9 => read!(f64),
        12 => read!(i64),
        13 => read!(u64),
        other => return Err(format!("an array is stored as type {other}, which holds no numbers")),
    })
}
