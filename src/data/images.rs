//! MNIST, Fashion-MNIST and Omniglot: 28x28 grey-level images in classes.
//!
//! [`load`] looks in `THRUWAY_DATA`, then in the project's data folder, then fetches into it (see [`super::fetch`]), and
//! for MNIST falls back on a small bundled sample of real digits. Every file is checked by the SHA-256 of its
//! uncompressed content. A file that is there but wrong is an error, never a reason to go on to the next source.
use super::{fetch, idx, omniglot};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Pixels of an image.
pub const PIXELS: i64 = 784;

/// A data set of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSet {
    /// Handwritten digits (LeCun, Cortes & Burges)
    Mnist,
    /// Articles of clothing (Xiao, Rasul & Vollgraf 2017)
    #[value(alias = "fashion_mnist")]
    #[serde(alias = "fashion_mnist")]
    FashionMnist,
    /// Handwritten characters of 50 alphabets (Lake, Salakhutdinov & Tenenbaum 2015)
    Omniglot,
}

/// One file of a set, under its public name, without `.gz`.
#[derive(Debug)]
pub struct ImageFile {
    /// Public name, as in `train-images-idx3-ubyte`.
    pub name: &'static str,
    /// Sizes in the header.
    pub dims: &'static [usize],
    /// SHA-256 of the uncompressed file.
    pub sha256: &'static str,
}

const fn file(name: &'static str, dims: &'static [usize], sha256: &'static str) -> ImageFile {
    ImageFile { name, dims, sha256 }
}

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

#[rustfmt::skip]
static MNIST: [ImageFile; 4] = [
    file(TRAIN_IMAGES, &[60_000, 28, 28], "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    file(TRAIN_LABELS, &[60_000], "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    file(TEST_IMAGES, &[10_000, 28, 28], "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    file(TEST_LABELS, &[10_000], "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
];

#[rustfmt::skip]
static FASHION_MNIST: [ImageFile; 4] = [
    file(TRAIN_IMAGES, &[60_000, 28, 28], "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    file(TRAIN_LABELS, &[60_000], "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    file(TEST_IMAGES, &[10_000, 28, 28], "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    file(TEST_LABELS, &[10_000], "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
];

// Made from the original drawings by the rule of [`omniglot`]; labels are alphabets.
#[rustfmt::skip]
static OMNIGLOT: [ImageFile; 4] = [
    file("omniglot28-train-images-idx3-ubyte", &[24_345, 28, 28], "7e70b49b2b559ef8c78803ed7b007f5f7e7617685a736c3e5f2b7e6f2e25676e"),
    file("omniglot28-train-labels-idx1-ubyte", &[24_345], "355856840d1371d3542b2f462ebee2e8790d37fe4b184acf8f13b5236346af7b"),
    file("omniglot28-test-images-idx3-ubyte", &[8_115, 28, 28], "c7ac6ed26c7a54ed18b52ca150839f4a76fb69bc30127fdd5772a07c6dd52233"),
    file("omniglot28-test-labels-idx1-ubyte", &[8_115], "2cb2db64c860d3adfd6ba5cae4ad9e1e8bfaed5d51d48b9198f3a4d4a1f8b5db"),
];

/// The bundled sample, the first images of each MNIST file, is part of the binary, so that it is there in any directory.
#[rustfmt::skip]
static SAMPLE: [(ImageFile, &[u8]); 4] = [
    (file(TRAIN_IMAGES, &[2_000, 28, 28], "729d340c0177402770b27c04f817dfb40ed8844459b35a9f11ae21067b05cf19"),
     include_bytes!("../../data/sample/mnist/train-images-idx3-ubyte.gz")),
    (file(TRAIN_LABELS, &[2_000], "90795ea2219655a7281c0d6756d0ae8a33bebac7ec84bac89bbdcc5e3baa9f8c"),
     include_bytes!("../../data/sample/mnist/train-labels-idx1-ubyte.gz")),
    (file(TEST_IMAGES, &[500, 28, 28], "de0a55d8eb2a23fce4f596c5234b08b9c8ee685583a2b0e52f3a78eca48f9d89"),
     include_bytes!("../../data/sample/mnist/t10k-images-idx3-ubyte.gz")),
    (file(TEST_LABELS, &[500], "60e902e82445d902e245e1b039469f36936d63cb28e81527a7bbba247c240af3"),
     include_bytes!("../../data/sample/mnist/t10k-labels-idx1-ubyte.gz")),
];

impl ImageSet {
    /// Every set.
    pub const ALL: [ImageSet; 3] = [ImageSet::Mnist, ImageSet::FashionMnist, ImageSet::Omniglot];

    /// Folder below `THRUWAY_DATA` or the project's data folder.
    pub fn folder(self) -> &'static str {
        match self {
            ImageSet::Mnist => "mnist",
            ImageSet::FashionMnist => "fashion_mnist",
            ImageSet::Omniglot => "omniglot",
        }
    }

    /// The four files: training images and labels, test images and labels.
    pub fn files(self) -> &'static [ImageFile; 4] {
        match self {
            ImageSet::Mnist => &MNIST,
            ImageSet::FashionMnist => &FASHION_MNIST,
            ImageSet::Omniglot => &OMNIGLOT,
        }
    }

    /// Where the four files lie in `folder`, gzipped or plain; `None` if none of them is there. Omniglot's `chardata.mat`
    /// goes first.
    ///
    /// # Errors
    /// [`Error::Data`] if `folder` is no folder, or if it has some of the files and not others.
    pub fn locate(self, folder: &Path, remedy: &str) -> Result<Option<Files>> {
        let wrong = |path: &Path, reason: String| Error::Data { path: path.into(), reason, remedy: remedy.into() };
        match std::fs::metadata(folder) {
            Ok(meta) if meta.is_dir() => (),
            Ok(_) => return Err(wrong(folder, format!("is not a folder, expected the one of {self}"))),
            Err(_) if folder.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) => {
                return Ok(None);
            }
            Err(e) => return Err(wrong(folder, format!("cannot be read ({e})"))),
        }
        let chardata = folder.join(omniglot::CHARDATA);
        if self == ImageSet::Omniglot && chardata.symlink_metadata().is_ok() {
            return Ok(Some(Files::Chardata(chardata)));
        }
        // A dangling link is there, and wrong: hence symlink_metadata.
        let found = self.files().each_ref().map(|file| {
            let candidates = [folder.join(format!("{}.gz", file.name)), folder.join(file.name)];
            candidates.into_iter().find(|path| path.symlink_metadata().is_ok())
        });
        let present = found.iter().flatten().count();
        if present == 0 {
            return Ok(None);
        }
        for (file, path) in self.files().iter().zip(&found) {
            if path.is_none() {
                let path = folder.join(format!("{}.gz", file.name));
                return Err(wrong(&path, format!("missing, while {present} of the four files of {self} are there")));
            }
        }
        Ok(Some(Files::Idx(found.map(|path| path.expect("none is missing")))))
    }
}

impl fmt::Display for ImageSet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            ImageSet::Mnist => "mnist",
            ImageSet::FashionMnist => "fashion-mnist",
            ImageSet::Omniglot => "omniglot",
        })
    }
}

/// Where images came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A folder below `THRUWAY_DATA`.
    Directory(PathBuf),
    /// The project's data folder.
    Project,
    /// Just fetched into the project's data folder.
    Fetched {
        /// The mirror or package.
        from: String,
    },
    /// The sample that is part of the binary: 2,000 training and 500 test digits.
    BundledSample,
    /// No file: images drawn by a rule.
    Generated,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Source::Directory(path) => write!(f, "{}", path.display()),
            Source::Project => f.write_str("the project's data folder"),
            Source::Fetched { from } => write!(f, "fetched from {from}"),
            Source::BundledSample => f.write_str("the bundled sample"),
            Source::Generated => f.write_str("generated"),
        }
    }
}

/// Whether [`load`] may fetch what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// Fetch, unless `THRUWAY_OFFLINE=1`.
    Allowed,
    /// Never touch the network.
    Never,
}

/// The folders looked into.
#[derive(Debug, Clone)]
pub struct Places {
    /// `THRUWAY_DATA`, read-only to us.
    pub external: Option<PathBuf>,
    /// `THRUWAY_CACHE`, else `data` below the current directory: looked into, and fetched into.
    pub project: PathBuf,
    /// `THRUWAY_OFFLINE` is set, to anything but `0` or nothing: no fetching.
    pub offline: bool,
}

impl Places {
    /// As the environment says; a variable set to nothing counts as unset.
    pub fn from_env() -> Self {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Places {
            external: var("THRUWAY_DATA").map(PathBuf::from),
            project: var("THRUWAY_CACHE").map_or_else(|| "data".into(), PathBuf::from),
            offline: var("THRUWAY_OFFLINE").is_some_and(|value| value != "0"),
        }
    }

    /// Finds the files of `set`: in `external`, else in `project`.
    ///
    /// # Errors
    /// [`Error::Data`] if a folder is no folder or holds a part of the set; see [`ImageSet::locate`].
    pub fn locate(&self, set: ImageSet) -> Result<Option<Located>> {
        if let Some(root) = &self.external {
            let remedy =
                "put the original files there (sources: data/README.md), or unset THRUWAY_DATA to have them fetched";
            if !root.is_dir() {
                let reason = "THRUWAY_DATA names it, but it is not a folder".into();
                return Err(Error::Data { path: root.clone(), reason, remedy: remedy.into() });
            }
            let folder = root.join(set.folder());
            if let Some(files) = set.locate(&folder, remedy)? {
                return Ok(Some(Located { files, remedy, source: Source::Directory(folder) }));
            }
        }
        let remedy = "delete its folder, then run again, or `thruway data`, to fetch it anew";
        let folder = self.project.join(set.folder());
        Ok(set.locate(&folder, remedy)?.map(|files| Located { files, remedy, source: Source::Project }))
    }
}

/// The files of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// In the order of [`ImageSet::files`].
    Idx([PathBuf; 4]),
    /// Omniglot as one MATLAB file.
    Chardata(PathBuf),
}

/// The files of a set, found but not yet read.
#[derive(Debug, Clone)]
pub struct Located {
    /// The files.
    pub files: Files,
    /// What to do if one of them turns out to be wrong.
    pub remedy: &'static str,
    /// The folder they lie in.
    pub source: Source,
}

/// A data set in memory.
#[derive(Debug)]
pub struct Images {
    /// The set.
    pub set: ImageSet,
    /// Training images `[N, 784]`, row-major: uint8 from 0 (background) to 255, or, where the source holds real numbers
    /// (`chardata.mat`), float32 in [0, 1]. [`unit_interval`] takes both.
    pub train: Tensor,
    /// Their classes from 0, int64 `[N]`: digits, articles, alphabets.
    pub train_labels: Tensor,
    /// Test images `[M, 784]`, of the kind of the training images.
    pub test: Tensor,
    /// Their classes, int64 `[M]`.
    pub test_labels: Tensor,
    /// Which of several editions of the set this is: a table of results must say so.
    pub edition: Option<&'static str>,
    /// Where they came from.
    pub source: Source,
}

impl Images {
    /// The sample that is part of the binary: the first 2,000 training and 500 test digits of MNIST.
    ///
    /// # Errors
    /// [`Error::Data`] if the binary was damaged.
    ///
    /// # Example
    /// ```
    /// let digits = thruway::data::Images::bundled_sample().unwrap();
    /// assert_eq!(digits.train.size(), [2000, 784]);
    /// let first: Vec<i64> = digits.train_labels.narrow(0, 0, 5).try_into().unwrap();
    /// assert_eq!(first, [5, 0, 4, 1, 9]);
    /// ```
    pub fn bundled_sample() -> Result<Images> {
        let parts = SAMPLE.each_ref().map(|(file, bytes)| {
            let path = Path::new("data/sample/mnist").join(file.name);
            let wrong = |reason| Error::Data { path: path.clone(), reason, remedy: "build thruway again".into() };
            idx::decode(*bytes, Some(file.dims))
                .map_err(wrong)
                .and_then(|idx| verified(idx, file, &path, "build thruway again"))
        });
        Images::assemble(ImageSet::Mnist, parts, Source::BundledSample)
    }

    /// Reads and verifies the four files.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file, what was expected and found, and the remedy.
    pub fn read(set: ImageSet, located: Located) -> Result<Images> {
        let Located { files, remedy, source } = located;
        let paths = match files {
            Files::Idx(paths) => paths,
            Files::Chardata(path) => return Images::chardata(set, &path, remedy, source),
        };
        let mut parts = set.files().iter().zip(&paths).map(|(file, path)| read_file(file, path, remedy));
        let parts = std::array::from_fn(|_| parts.next().expect("four files"));
        Images::assemble(set, parts, source)
    }

    fn chardata(set: ImageSet, path: &Path, remedy: &str, source: Source) -> Result<Images> {
        let wrong = |reason| Error::Data { path: path.into(), reason, remedy: remedy.into() };
        let bytes = std::fs::read(path).map_err(|e| wrong(format!("cannot be read ({e})")))?;
        let halves = omniglot::read_chardata(&bytes, [24_345, 8_070]).map_err(wrong)?;
        let [(train, train_labels), (test, test_labels)] = halves;
        Ok(Images { set, train, train_labels, test, test_labels, edition: Some("chardata"), source })
    }

    fn assemble(set: ImageSet, parts: [Result<Vec<u8>>; 4], source: Source) -> Result<Images> {
        let [train, train_labels, test, test_labels] = parts;
        let images = |bytes: Vec<u8>| Tensor::from_slice(&bytes).view([-1, PIXELS]);
        let labels = |bytes: Vec<u8>| Tensor::from_slice(&bytes).to_kind(Kind::Int64);
        Ok(Images {
            set,
            train: images(train?),
            train_labels: labels(train_labels?),
            test: images(test?),
            test_labels: labels(test_labels?),
            edition: (set == ImageSet::Omniglot).then_some("reconstruction"),
            source,
        })
    }

    /// Whether these are the bundled sample and not the whole set.
    pub fn is_sample(&self) -> bool {
        self.source == Source::BundledSample
    }
}

/// Reads one file of a set and verifies its sizes and SHA-256; its values without the header.
///
/// # Errors
/// [`Error::Data`], see [`idx::read`]; also for another SHA-256.
pub fn read_file(file: &ImageFile, path: &Path, remedy: &str) -> Result<Vec<u8>> {
    verified(idx::read(path, file.dims, remedy)?, file, path, remedy)
}

fn verified(idx: idx::Idx, file: &ImageFile, path: &Path, remedy: &str) -> Result<Vec<u8>> {
    if idx.sha256 == file.sha256 {
        return Ok(idx.bytes);
    }
    let reason = format!(
        "has the right size but not the original content: SHA-256 of the uncompressed file is {}, expected {}",
        idx.sha256, file.sha256
    );
    Err(Error::Data { path: path.into(), reason, remedy: remedy.into() })
}

/// Grey levels in [0, 1], float32: `byte / 255`, as torchvision's `ToTensor` computes it; any shape and device. Images that
/// are floating already stay as they are.
///
/// # Example
/// ```
/// let bytes = tch::Tensor::from_slice(&[0u8, 51, 255]);
/// let grey: Vec<f32> = thruway::data::unit_interval(&bytes).try_into().unwrap();
/// assert_eq!(grey, [0.0, 51.0 / 255.0, 1.0]);
/// ```
pub fn unit_interval(bytes: &Tensor) -> Tensor {
    if bytes.is_floating_point() {
        return bytes.to_kind(Kind::Float);
    }
    bytes.to_kind(Kind::Float).g_div_scalar(255)
}

/// Loads a set from `THRUWAY_DATA`, the project's data folder, or the network; MNIST at last from the bundled sample,
/// which one line on stderr announces.
///
/// # Errors
/// [`Error::Data`] for a file that is there but wrong, a set with files missing, or a set that has no sample and cannot be
/// had; it names the file, what was expected and the remedy.
pub fn load(set: ImageSet, fetch: Fetch) -> Result<Images> {
    load_from(set, fetch, &Places::from_env())
}

/// [`load`], with the folders given and not read from the environment.
///
/// # Errors
/// As [`load`].
pub fn load_from(set: ImageSet, fetch: Fetch, places: &Places) -> Result<Images> {
    let located = places.locate(set)?;
    if let Some(root) =
        places.external.as_deref().filter(|_| !matches!(&located, Some(l) if l.source != Source::Project))
    {
        eprintln!("{set}: not in THRUWAY_DATA ({}), looking further", root.join(set.folder()).display());
    }
    if let Some(located) = located {
        return Images::read(set, located);
    }
    let why = if places.offline || fetch == Fetch::Never {
        let asked = if places.offline { "THRUWAY_OFFLINE is set" } else { "fetching was not allowed" };
        format!("not in {}, and {asked}", places.project.join(set.folder()).display())
    } else {
        match fetch::fetch(set, &places.project) {
            Ok(located) => return Images::read(set, located),
            // The reasons have been printed one by one.
            Err(_) if set == ImageSet::Mnist => "nothing could be fetched, as said above".into(),
            Err(why) => why,
        }
    };
    if set != ImageSet::Mnist {
        return Err(Error::Data {
            path: places.project.join(set.folder()),
            reason: why,
            remedy: "put the original files there (sources: data/README.md), or point THRUWAY_DATA at a folder that has them".into(),
        });
    }
    let images = Images::bundled_sample()?;
    eprintln!(
        "{set}: SAMPLE ONLY: {} training and {} test images bundled with thruway stand in for the 60000 and 10000 of MNIST; numbers do not compare with published ones ({why})",
        images.train.size()[0],
        images.test.size()[0],
    );
    Ok(images)
}
