//! Omniglot at 28x28: 1,623 characters of 50 alphabets, each drawn by 20 people (Lake, Salakhutdinov & Tenenbaum 2015).
//!
//! | edition | file | training / test |
//! |---|---|---|
//! | `chardata` | `chardata.mat` of Burda, Grosse & Salakhutdinov (2016), which the published results use | 24,345 / 8,070 |
//! | `reconstruction` | four IDX files made from the original drawings by the rule below | 24,345 / 8,115 |
//!
//! The first is read where it is there. Results on the second are labelled so: it has the same drawings (persons 1 to 15 for
//! training, 16 to 20 for test), scaled by the same rule as far as can be told, in another order, and 45 more of them.
//!
//! **The rule.** Ink 1, background 0; from 105x105 by an antialiased cubic (a = -1/2, stretched by 3.75), first along rows,
//! then along columns, each result rounded to f32; clipped to [0, 1], times 255, rounded. The order of the rows is Python's
//! `random.Random(28).shuffle` of the drawings by character, then person.
use super::images::PIXELS;
use super::mat;
use std::collections::BTreeMap;
use std::io::{Read, Seek};
use tch::{Kind, Tensor};

/// The file of the first edition.
pub const CHARDATA: &str = "chardata.mat";

/// The archives of the original drawings, as they are published.
pub const ARCHIVES: [&str; 2] = ["images_background.zip", "images_evaluation.zip"];

/// Characters, and the persons who drew each.
const CHARACTERS: usize = 1623;
const PERSONS: usize = 20;
/// Persons whose drawings are for training.
const TRAINING: usize = 15;
/// Side of a drawing, and of an image.
const SIDE: usize = 105;
const SMALL: usize = 28;

type Outcome<T> = std::result::Result<T, String>;

/// Images f32 `[N, 784]` in [0, 1], row-major and upright, and alphabets i64 `[N]`; training, then test.
pub type Halves = [(Tensor, Tensor); 2];

/// The content of a `chardata.mat` with that many training and test images.
///
/// The file stores each image column by column; here they are row by row.
///
/// # Errors
/// What is wrong, in words, without a file name.
pub fn read_chardata(bytes: &[u8], counts: [usize; 2]) -> Outcome<Halves> {
    let arrays = mat::read(bytes, &["data", "target", "testdata", "testtarget"])?;
    let get = |name: &str, rows: usize, n: usize| -> Outcome<Tensor> {
        let found = arrays.iter().find(|a| a.name == name).ok_or(format!("holds no array {name:?}"))?;
        if found.dims != [rows, n] {
            return Err(format!("{name} is {:?}, expected [{rows}, {n}]", found.dims));
        }
        Tensor::f_from_slice(&found.values).and_then(|t| t.f_view([n as i64, rows as i64])).map_err(|e| e.to_string())
    };
    let half = |images: &str, target: &str, n| -> Outcome<(Tensor, Tensor)> {
        let images = get(images, PIXELS as usize, n)?;
        let target = get(target, 50, n)?;
        let inside = images.ge(0.0).logical_and(&images.le(1.0)).all().int64_value(&[]) == 1;
        if !inside || target.sum(Kind::Double).double_value(&[]) != n as f64 {
            return Err("grey levels outside [0, 1], or targets that are not one of 50 alphabets".into());
        }
        let side = SMALL as i64;
        let upright = images.view([-1, side, side]).transpose(1, 2).reshape([-1, PIXELS]);
        Ok((upright, target.argmax(1, false)))
    };
    Ok([half("data", "target", counts[0])?, half("testdata", "testtarget", counts[1])?])
}

/// The drawings of the two archives, by character and person, each with the place of its alphabet among all names.
pub struct Drawings {
    all: BTreeMap<(usize, usize), (String, Vec<u8>)>,
}

/// Bytes of the images and of the labels, as the IDX files of the reconstruction have them.
pub type Bytes = [Vec<u8>; 4];

impl Drawings {
    /// None yet.
    pub fn new() -> Self {
        Drawings { all: BTreeMap::new() }
    }

    /// Takes the PNG files of an archive, `.../<alphabet>/character<nn>/<character>_<person>.png`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn take(&mut self, archive: impl Read + Seek) -> Outcome<()> {
        let mut archive = zip::ZipArchive::new(archive).map_err(|e| format!("not a zip archive ({e})"))?;
        for i in 0..archive.len() {
            let mut file = archive.by_index(i).map_err(|e| format!("damaged zip archive ({e})"))?;
            let name = file.name().to_string();
            let Some((alphabet, character, person)) = place(&name) else { continue };
            let mut png = Vec::new();
            // a drawing has a few hundred bytes
            file.by_ref().take(1 << 20).read_to_end(&mut png).map_err(|e| format!("{name}: {e}"))?;
            let ink = ink(&png).map_err(|e| format!("{name}: {e}"))?;
            self.add(character, person, alphabet, ink);
        }
        Ok(())
    }

    /// A drawing: `ink` has a byte a pixel, 1 or 0, 105 rows of 105. Characters and persons are counted from 1.
    pub fn add(&mut self, character: usize, person: usize, alphabet: &str, ink: Vec<u8>) {
        self.all.insert((character, person), (alphabet.to_string(), ink));
    }

    /// Training images and labels, test images and labels.
    ///
    /// # Errors
    /// Unless all 32,460 drawings are there.
    pub fn reconstruct(&self) -> Outcome<Bytes> {
        let whole = CHARACTERS * PERSONS;
        if self.all.len() != whole {
            return Err(format!("{} drawings, expected {whole}", self.all.len()));
        }
        let mut alphabets: Vec<&str> = self.all.values().map(|(a, _)| a.as_str()).collect();
        alphabets.sort_unstable();
        alphabets.dedup();
        let scaling = Scaling::new();
        let half = |training: bool| {
            let mut chosen: Vec<_> = self.all.iter().filter(|((_, p), _)| (*p <= TRAINING) == training).collect();
            PythonRandom::new(28).shuffle(&mut chosen);
            let labels = chosen.iter().map(|(_, (a, _))| alphabets.partition_point(|b| *b < a.as_str()) as u8);
            (chosen.iter().flat_map(|(_, (_, ink))| scaling.apply(ink)).collect(), labels.collect())
        };
        let ((train, train_labels), (test, test_labels)) = (half(true), half(false));
        Ok([train, train_labels, test, test_labels])
    }
}

impl Default for Drawings {
    fn default() -> Self {
        Self::new()
    }
}

/// Alphabet, character and person of a path within an archive.
fn place(path: &str) -> Option<(&str, usize, usize)> {
    let mut parts = path.rsplit('/');
    let (file, _character, alphabet) = (parts.next()?, parts.next()?, parts.next()?);
    let (character, person) = file.strip_suffix(".png")?.split_once('_')?;
    Some((alphabet, character.parse().ok()?, person.parse().ok()?))
}

/// A byte a pixel, 1 for ink, from a two-level PNG of 105x105 whose ink is black.
fn ink(png: &[u8]) -> Outcome<Vec<u8>> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut pixels).map_err(|e| e.to_string())?;
    let side = SIDE as u32;
    if (info.width, info.height) != (side, side) || info.color_type != png::ColorType::Grayscale {
        return Err(format!("a {:?} image of {}x{}, expected grey, 105x105", info.color_type, info.width, info.height));
    }
    Ok(pixels[..SIDE * SIDE].iter().map(|&p| u8::from(p < 128)).collect())
}

/// The weights of the scaling along one axis: for each of the 28 places the first of the 105 and the weights from there.
struct Scaling {
    weights: Vec<(usize, Vec<f64>)>,
}

impl Scaling {
    fn new() -> Self {
        let scale = SIDE as f64 / SMALL as f64;
        let weights = (0..SMALL).map(|o| {
            let centre = (o as f64 + 0.5) * scale;
            let from = (centre - 2.0 * scale + 0.5).max(0.0) as usize;
            let to = ((centre + 2.0 * scale + 0.5) as usize).min(SIDE);
            let raw: Vec<f64> = (from..to).map(|i| cubic((i as f64 - centre + 0.5) / scale)).collect();
            let sum: f64 = raw.iter().sum();
            (from, raw.iter().map(|w| w / sum).collect())
        });
        Scaling { weights: weights.collect() }
    }

    /// 105x105 ink -> 784 grey levels.
    fn apply(&self, ink: &[u8]) -> Vec<u8> {
        let mut rows = [[0f32; SMALL]; SIDE];
        for (row, ink) in rows.iter_mut().zip(ink.chunks_exact(SIDE)) {
            for (out, (from, weights)) in row.iter_mut().zip(&self.weights) {
                *out = weights.iter().zip(&ink[*from..]).map(|(w, &p)| w * f64::from(p)).sum::<f64>() as f32;
            }
        }
        let columns = self.weights.iter().flat_map(|(from, weights)| {
            (0..SMALL)
                .map(|x| weights.iter().zip(&rows[*from..]).map(|(w, row)| w * f64::from(row[x])).sum::<f64>() as f32)
        });
        columns.map(|v| (f64::from(v).clamp(0.0, 1.0) * 255.0 + 0.5).floor() as u8).collect()
    }
}

/// Keys' cubic with a = -1/2.
fn cubic(x: f64) -> f64 {
    let (a, x) = (-0.5, x.abs());
    match x {
        x if x < 1.0 => (a + 2.0) * x * x * x - (a + 3.0) * x * x + 1.0,
        x if x < 2.0 => a * x * x * x - 5.0 * a * x * x + 8.0 * a * x - 4.0 * a,
        _ => 0.0,
    }
}

/// Python's `random.Random(seed)`, as far as `shuffle` needs it: the Mersenne twister seeded by an array of one word.
struct PythonRandom {
    state: [u32; 624],
    next: usize,
}

impl PythonRandom {
    fn new(seed: u32) -> Self {
        let mut s = [0u32; 624];
        s[0] = 19_650_218;
        for i in 1..624 {
            s[i] = 1_812_433_253u32.wrapping_mul(s[i - 1] ^ (s[i - 1] >> 30)).wrapping_add(i as u32);
        }
        let mut i = 1;
        let step = |s: &mut [u32; 624], i: &mut usize, factor: u32, add: &dyn Fn(u32, usize) -> u32| {
            let mixed = s[*i] ^ (s[*i - 1] ^ (s[*i - 1] >> 30)).wrapping_mul(factor);
            s[*i] = add(mixed, *i);
            *i += 1;
            if *i == 624 {
                s[0] = s[623];
                *i = 1;
            }
        };
        for _ in 0..624 {
            step(&mut s, &mut i, 1_664_525, &|v, _| v.wrapping_add(seed));
        }
        for _ in 0..623 {
            step(&mut s, &mut i, 1_566_083_941, &|v, i| v.wrapping_sub(i as u32));
        }
        s[0] = 0x8000_0000;
        PythonRandom { state: s, next: 624 }
    }

    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for k in 0..624 {
                let y = (self.state[k] & 0x8000_0000) | (self.state[(k + 1) % 624] & 0x7fff_ffff);
                self.state[k] = self.state[(k + 397) % 624] ^ (y >> 1) ^ if y & 1 == 1 { 0x9908_b0df } else { 0 };
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform below n, n at least 1.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let r = (self.word() >> (32 - bits)) as usize;
            if r < n {
                return r;
            }
        }
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
