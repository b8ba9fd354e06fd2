//! CIFAR-10: 32x32 colour images in ten classes (Krizhevsky 2009).
//!
//! Three forms are read, the first that is there, in `THRUWAY_DATA` and then in the project's data folder: the official
//! batches in `cifar10/cifar-10-batches-bin/`, the official archive of them `cifar10/cifar-10-binary.tar.gz` (which is also
//! what is fetched), and `cifar10/cifar10-jpeg.tar.gz`, the same images as JPEGs. Every file is checked by the SHA-256 of its
//! uncompressed content; one that is there but wrong is an error, never a reason to go on. Where nothing is there and
//! nothing can be fetched, generated images ([`super::shapes`]) stand in under the name `synthetic`.
use super::images::{Fetch, Places, Source};
use super::{fetch, shapes};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Side of an image in pixels.
pub const SIDE: i64 = 32;
/// Bytes of an image: three planes, row by row.
pub const BYTES: usize = 3 * 32 * 32;
/// The classes, by label; also their folders in the archive of JPEGs.
pub const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
/// Folder below `THRUWAY_DATA` or the project's data folder.
pub const FOLDER: &str = "cifar10";

/// Which images these are. It belongs beside every figure that was made with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Variant {
    /// The official pixels.
    #[serde(rename = "cifar10")]
    Official,
    /// The official images after JPEG compression: close to the official pixels, not equal.
    #[serde(rename = "cifar10-jpeg")]
    Jpeg,
    /// Generated shapes, no CIFAR-10 at all.
    #[serde(rename = "synthetic")]
    Synthetic,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Variant::Official => "cifar10",
            Variant::Jpeg => "cifar10-jpeg",
            Variant::Synthetic => "synthetic",
        })
    }
}

/// The set in memory.
#[derive(Debug)]
pub struct Cifar10 {
    /// Training images, uint8 `[50000, 3, 32, 32]`.
    pub train: Tensor,
    /// Their classes 0..=9, int64 `[50000]`.
    pub train_labels: Tensor,
    /// Test images, uint8 `[10000, 3, 32, 32]`.
    pub test: Tensor,
    /// Their classes, int64 `[10000]`.
    pub test_labels: Tensor,
    /// Which images these are.
    pub variant: Variant,
    /// Where they came from.
    pub source: Source,
}

/// One of the official files.
struct Batch {
    name: &'static str,
    sha256: &'static str,
}

/// Training batches, then the test batch.
#[rustfmt::skip]
static BATCHES: [Batch; 6] = [
    Batch { name: "data_batch_1.bin", sha256: "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5" },
    Batch { name: "data_batch_2.bin", sha256: "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed" },
    Batch { name: "data_batch_3.bin", sha256: "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67" },
    Batch { name: "data_batch_4.bin", sha256: "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48" },
    Batch { name: "data_batch_5.bin", sha256: "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add" },
    Batch { name: "test_batch.bin", sha256: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b" },
];
/// Images of an official file.
const PER_BATCH: usize = 10_000;
/// The folder of the official files, in the archive too.
const BATCHES_FOLDER: &str = "cifar-10-batches-bin";
/// The official archive.
pub const BINARY: &str = "cifar-10-binary.tar.gz";
/// The archive of JPEGs, and the SHA-256 of its uncompressed content.
const JPEG: &str = "cifar10-jpeg.tar.gz";
const JPEG_SHA256: &str = "1ad627445b8629ff82b88551943f1ac202800b46e74b28ce7626d12a2b8d051d";
/// Images of a class in the training and the test part.
const PER_CLASS: [usize; 2] = [5_000, 1_000];

/// The set in one of its forms, found but not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    path: PathBuf,
    form: Form,
    remedy: &'static str,
    source: Source,
}

impl Located {
    /// The same, just fetched.
    pub(super) fn fetched_from(self, mirror: &str) -> Self {
        Located { source: Source::Fetched { from: mirror.into() }, ..self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Batches,
    Binary,
    Jpeg,
}

/// Images and labels of the training and the test part.
type Parts = [(Tensor, Tensor); 2];
/// What is wrong, in words, without the name of the file.
type Outcome<T> = std::result::Result<T, String>;

impl Cifar10 {
    /// Loads the set from `THRUWAY_DATA`, the project's data folder or the network; at last generated images, which one line
    /// on stderr announces.
    ///
    /// # Errors
    /// [`Error::Data`] for a file that is there but wrong; it names the file, what was expected and the remedy.
    pub fn load(fetch: Fetch) -> Result<Cifar10> {
        Cifar10::load_from(fetch, &Places::from_env())
    }

    /// [`Cifar10::load`], with the folders given and not read from the environment.
    ///
    /// # Errors
    /// As [`Cifar10::load`].
    pub fn load_from(fetch: Fetch, places: &Places) -> Result<Cifar10> {
        if let Some(located) = locate(places)? {
            return Cifar10::read(located);
        }
        let why = if places.offline {
            "THRUWAY_OFFLINE is set".to_string()
        } else if fetch == Fetch::Never {
            "fetching was not allowed".to_string()
        } else {
            match fetch::fetch_cifar10(&places.project) {
                Ok(located) => return Cifar10::read(located),
                Err(_) => "nothing could be fetched, as said above".into(),
            }
        };
        let images = Cifar10::synthetic(50_000, 10_000)?;
        eprintln!(
            "cifar10: SYNTHETIC: generated shapes stand in for its images; numbers do not compare with published ones \
             (not in {}, and {why})",
            places.project.join(FOLDER).display()
        );
        Ok(images)
    }

    /// Reads and verifies what was located.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file, what was expected and found, and the remedy.
    pub fn read(located: Located) -> Result<Cifar10> {
        let Located { path, form, remedy, source } = located;
        let wrong = |path: &Path, reason: String| Error::Data { path: path.into(), reason, remedy: remedy.into() };
        let open = |path: &Path| File::open(path).map_err(|e| wrong(path, format!("cannot be read ({e})")));
        let (parts, variant) = match form {
            Form::Batches => {
                let mut batches = Batches::new()?;
                for (i, batch) in BATCHES.iter().enumerate() {
                    let path = path.join(batch.name);
                    batches.take(i, open(&path)?).map_err(|reason| wrong(&path, reason))?;
                }
                (batches.parts, Variant::Official)
            }
            Form::Binary => {
                (read_binary(gunzip(open(&path)?)).map_err(|reason| wrong(&path, reason))?, Variant::Official)
            }
            Form::Jpeg => {
                let (parts, sha256) =
                    read_jpegs(gunzip(open(&path)?), PER_CLASS).map_err(|reason| wrong(&path, reason))?;
                check_sha256(&sha256, JPEG_SHA256).map_err(|reason| wrong(&path, reason))?;
                (parts, Variant::Jpeg)
            }
        };
        Ok(Cifar10::assemble(parts, variant, source))
    }

    /// Generated images, `train` and `test` of them: a smaller set is the beginning of a larger one.
    ///
    /// # Errors
    /// [`Error::Torch`] if libtorch cannot hold them.
    pub fn synthetic(train: usize, test: usize) -> Result<Cifar10> {
        let part = |n: usize, stream: u64| -> Result<_> {
            let (pixels, labels) = shapes::generate(n, stream);
            Ok((images(&pixels, n)?, Tensor::f_from_slice(&labels)?))
        };
        Ok(Cifar10::assemble([part(train, 0)?, part(test, 1)?], Variant::Synthetic, Source::Generated))
    }

    fn assemble(parts: Parts, variant: Variant, source: Source) -> Cifar10 {
        let [(train, train_labels), (test, test_labels)] = parts;
        Cifar10 { train, train_labels, test, test_labels, variant, source }
    }
}

/// Planes in [0, 1] brought to mean 0 and standard deviation 1 a channel, by the official training set's statistics:
/// float32 `[N, 3, H, W]` in and out.
///
/// # Example
/// ```
/// use tch::{Device, Kind, Tensor};
/// let grey = Tensor::full([1, 3, 2, 2], 0.5, (Kind::Float, Device::Cpu));
/// let x = thruway::data::cifar10::standardise(&grey)?;
/// assert!((x.double_value(&[0, 2, 1, 1]) - (0.5 - 0.4465) / 0.2616).abs() < 1e-6);
/// # thruway::Result::Ok(())
/// ```
///
/// # Errors
/// [`Error::Torch`] unless there are three channels.
pub fn standardise(images: &Tensor) -> Result<Tensor> {
    let channel = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]).to_device(images.device());
    Ok(images.f_sub(&channel([0.4914, 0.4822, 0.4465]))?.f_div(&channel([0.2470, 0.2435, 0.2616]))?)
}

/// Finds the set: in `external`, else in `project`.
///
/// # Errors
/// [`Error::Data`] if a folder is no folder, or the folder of batches lacks some of them.
pub fn locate(places: &Places) -> Result<Option<Located>> {
    if let Some(root) = &places.external {
        let remedy =
            "put the original files there (sources: data/README.md), or unset THRUWAY_DATA to have them fetched";
        if !root.is_dir() {
            let reason = "THRUWAY_DATA names it, but it is not a folder".into();
            return Err(Error::Data { path: root.clone(), reason, remedy: remedy.into() });
        }
        let folder = root.join(FOLDER);
        if let Some((path, form)) = locate_in(&folder, remedy)? {
            return Ok(Some(Located { path, form, remedy, source: Source::Directory(folder) }));
        }
    }
    let remedy = "delete it, then run again, or `thruway data cifar10`, to fetch it anew";
    let found = locate_in(&places.project.join(FOLDER), remedy)?;
    Ok(found.map(|(path, form)| Located { path, form, remedy, source: Source::Project }))
}

fn locate_in(folder: &Path, remedy: &str) -> Result<Option<(PathBuf, Form)>> {
    // A dangling link is there, and wrong: hence symlink_metadata.
    let there = |path: &Path| path.symlink_metadata().is_ok();
    let wrong =
        |path: &Path, reason: &str| Error::Data { path: path.into(), reason: reason.into(), remedy: remedy.into() };
    if there(folder) && !folder.is_dir() {
        return Err(wrong(folder, "is not a folder, expected the one of cifar10"));
    }
    let batches = folder.join(BATCHES_FOLDER);
    if there(&batches) {
        let missing = BATCHES.iter().map(|b| batches.join(b.name)).find(|path| !there(path));
        return match missing {
            None => Ok(Some((batches, Form::Batches))),
            Some(path) => Err(wrong(&path, "missing, while its folder is there")),
        };
    }
    let archives = [(BINARY, Form::Binary), (JPEG, Form::Jpeg)];
    Ok(archives.map(|(name, form)| (folder.join(name), form)).into_iter().find(|(path, _)| there(path)))
}

/// uint8 `[n, 3, 32, 32]` of `n * BYTES` bytes.
fn images(bytes: &[u8], n: usize) -> Result<Tensor> {
    Ok(Tensor::f_from_data_size(bytes, &[n as i64, 3, SIDE, SIDE], Kind::Uint8)?)
}

/// The official files as they come in.
struct Batches {
    parts: Parts,
}

impl Batches {
    fn new() -> Result<Self> {
        let part = |n: usize| -> Result<(Tensor, Tensor)> {
            let on_cpu = |kind| (kind, Device::Cpu);
            let n = n as i64;
            Ok((Tensor::f_empty([n, 3, SIDE, SIDE], on_cpu(Kind::Uint8))?, Tensor::f_empty([n], on_cpu(Kind::Int64))?))
        };
        Ok(Batches { parts: [part(5 * PER_BATCH)?, part(PER_BATCH)?] })
    }

    /// Reads the file of place `i` in [`BATCHES`].
    fn take(&mut self, i: usize, source: impl Read) -> Outcome<()> {
        let bytes = read_exactly(source, PER_BATCH * (BYTES + 1))?;
        check_sha256(&hex(&Sha256::digest(&bytes)), BATCHES[i].sha256)?;
        let (pixels, labels) = records(&bytes)?;
        let (part, at) = if i < 5 { (0, i * PER_BATCH) } else { (1, 0) };
        let place = |t: &Tensor| t.f_narrow(0, at as i64, PER_BATCH as i64);
        let put = || -> std::result::Result<(), tch::TchError> {
            place(&self.parts[part].0)?.f_copy_(&pixels)?;
            place(&self.parts[part].1)?.f_copy_(&labels)
        };
        put().map_err(|e| e.to_string())
    }
}

/// Records of a label byte and an image each, as uint8 `[n, 3, 32, 32]` and int64 `[n]`.
///
/// # Errors
/// In words: a file that ends within a record, or a label above 9.
pub fn records(bytes: &[u8]) -> Outcome<(Tensor, Tensor)> {
    let size = BYTES + 1;
    if bytes.len() % size != 0 {
        return Err(format!("has {} bytes, which is no whole number of records of {size}", bytes.len()));
    }
    if let Some(i) = bytes.chunks_exact(size).position(|r| r[0] > 9) {
        return Err(format!("record {i} has the label {}, expected 0 to 9", bytes[i * size]));
    }
    let split = || -> std::result::Result<_, tch::TchError> {
        let n = (bytes.len() / size) as i64;
        let all = Tensor::f_from_data_size(bytes, &[n, size as i64], Kind::Uint8)?;
        let pixels = all.f_narrow(1, 1, BYTES as i64)?.f_reshape([n, 3, SIDE, SIDE])?;
        Ok((pixels, all.f_select(1, 0)?.f_to_kind(Kind::Int64)?))
    };
    split().map_err(|e| e.to_string())
}

/// The official archive, uncompressed.
fn read_binary(source: impl Read) -> Outcome<Parts> {
    let mut batches = Batches::new().map_err(|e| e.to_string())?;
    let mut seen = [false; BATCHES.len()];
    let mut archive = tar::Archive::new(source);
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let name = path.strip_prefix(BATCHES_FOLDER).unwrap_or(&path);
        if let Some(i) = BATCHES.iter().position(|b| name == Path::new(b.name)) {
            batches.take(i, entry).map_err(|reason| format!("its {} {reason}", BATCHES[i].name))?;
            seen[i] = true;
        }
    }
    match seen.iter().position(|s| !s) {
        None => Ok(batches.parts),
        Some(i) => Err(format!("holds no {BATCHES_FOLDER}/{}", BATCHES[i].name)),
    }
}

/// An uncompressed archive of JPEGs `train/<class>/<name>.jpg` and `test/<class>/<name>.jpg`, `per_class` of a class in
/// each part, and the SHA-256 of the archive.
///
/// Classes alternate: the i-th image of class c in the archive has row `10 i + c`, so that the beginning of the set is
/// balanced.
///
/// # Errors
/// In words: a damaged archive, a member elsewhere, an image that is no 32x32 JPEG in colour, another number of images.
pub fn read_jpegs(source: impl Read, per_class: [usize; 2]) -> Outcome<(Parts, String)> {
    let mut pixels = per_class.map(|n| vec![0; 10 * n * BYTES]);
    let mut counts = [[0; 10]; 2];
    let mut archive = tar::Archive::new(Hashing { inner: source, digest: Sha256::new() });
    let mut jpeg = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let place = place_of(&name);
        let (part, class) = place.ok_or_else(|| format!("holds {name}, expected train/ or test/<class>/<name>.jpg"))?;
        let i = counts[part][class];
        if i == per_class[part] {
            return Err(format!("holds more than {i} images like {name}"));
        }
        counts[part][class] += 1;
        jpeg.clear();
        entry.read_to_end(&mut jpeg).map_err(damaged)?;
        let at = (10 * i + class) * BYTES;
        decode_jpeg(&jpeg, &mut pixels[part][at..at + BYTES]).map_err(|reason| format!("its {name} {reason}"))?;
    }
    for (part, counts) in counts.iter().enumerate() {
        if let Some(class) = counts.iter().position(|&n| n != per_class[part]) {
            let (name, expected) = (["train", "test"][part], per_class[part]);
            return Err(format!("holds {} images of {name}/{}, expected {expected}", counts[class], CLASSES[class]));
        }
    }
    let mut rest = archive.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(damaged)?;
    let [train, test] = pixels;
    let part = |bytes: Vec<u8>, n: usize| -> Result<_> {
        let labels = Tensor::f_arange(10, (Kind::Int64, Device::Cpu))?.f_repeat([n as i64])?;
        Ok((images(&bytes, 10 * n)?, labels))
    };
    let parts = [part(train, per_class[0]), part(test, per_class[1])];
    let [train, test] = parts.map(|p| p.map_err(|e| e.to_string()));
    Ok(([train?, test?], hex(&rest.digest.finalize())))
}

/// Part and class of a member such as `train/cat/0001.jpg`.
fn place_of(name: &str) -> Option<(usize, usize)> {
    let words: Vec<&str> = name.strip_suffix(".jpg")?.split('/').collect();
    let [part, class, _] = words[..] else { return None };
    Some((["train", "test"].iter().position(|p| *p == part)?, CLASSES.iter().position(|c| *c == class)?))
}

/// Decodes a 32x32 colour JPEG into its red, green and blue plane.
fn decode_jpeg(jpeg: &[u8], planes: &mut [u8]) -> Outcome<()> {
    let mut decoder = jpeg_decoder::Decoder::new(jpeg);
    decoder.read_info().map_err(|e| format!("is no JPEG ({e})"))?;
    let info = decoder.info().ok_or("is no JPEG")?;
    if (info.width, info.height, info.pixel_format) != (32, 32, jpeg_decoder::PixelFormat::RGB24) {
        let (w, h, format) = (info.width, info.height, info.pixel_format);
        return Err(format!("has {w}x{h} pixels of {format:?}, expected 32x32 of RGB24"));
    }
    let rgb = decoder.decode().map_err(|e| format!("is a damaged JPEG ({e})"))?;
    for (i, pixel) in rgb.chunks_exact(3).enumerate() {
        for (channel, value) in pixel.iter().enumerate() {
            planes[channel * 1024 + i] = *value;
        }
    }
    Ok(())
}

fn gunzip(file: File) -> impl Read {
    flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file))
}

/// Exactly `n` bytes, whatever the source claims.
fn read_exactly(source: impl Read, n: usize) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(n as u64 + 1).read_to_end(&mut bytes).map_err(damaged)?;
    match bytes.len() {
        len if len < n => Err(format!("is truncated: {len} of {n} bytes")),
        len if len > n => Err(format!("has trailing bytes: more than {n}")),
        _ => Ok(bytes),
    }
}

fn check_sha256(found: &str, expected: &str) -> Outcome<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "has the right form but not the known content: SHA-256 of the uncompressed file is {found}, expected {expected}"
    ))
}

fn damaged(e: std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::UnexpectedEof => "is truncated".into(),
        _ if e.raw_os_error().is_some() => format!("cannot be read ({e})"),
        _ => format!("is damaged ({e})"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A reader that digests what passes.
struct Hashing<R> {
    inner: R,
    digest: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(into)?;
        self.digest.update(&into[..n]);
        Ok(n)
    }
}
