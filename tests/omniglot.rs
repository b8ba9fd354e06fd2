//! Omniglot in both editions, the MATLAB file of one and the drawings of the other; drawn pixels.
mod common;
use std::io::{Cursor, Read, Write};
use std::path::PathBuf;
use tch::{Kind, Tensor};
use thruway::data::images::PIXELS;
use thruway::data::{Fetch, ImageSet, Places, binarise_once, idx, load_from, mat, omniglot, unit_interval};

fn labels(tensor: &Tensor) -> Vec<i64> {
    tensor.try_into().unwrap()
}

fn idx_file(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let sizes = dims.iter().flat_map(|d| d.to_be_bytes());
    [0, 0, 8, dims.len() as u8].into_iter().chain(sizes).chain(bytes.iter().copied()).collect()
}

/// The folder of real data, or a loud skip.
fn real_data(test: &str) -> Option<PathBuf> {
    let root = std::env::var_os("THRUWAY_DATA").map(PathBuf::from).filter(|root| root.join("omniglot").is_dir());
    if root.is_none() {
        common::skip(test, "THRUWAY_DATA does not name a folder with omniglot/");
    }
    root
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    words.iter().for_each(|w| assert!(text.contains(w), "{text:?} does not contain {w:?}"));
}

#[test]
fn real_omniglot_is_what_its_readme_says() {
    let Some(root) = real_data("real_omniglot_is_what_its_readme_says") else {
        return;
    };
    if root.join("omniglot").join(omniglot::CHARDATA).exists() {
        common::skip("real_omniglot_is_what_its_readme_says", "chardata.mat goes first there");
        return;
    }
    let nowhere = tempfile::tempdir().unwrap();
    let places = Places { external: Some(root), project: nowhere.path().into(), offline: true };
    let set = load_from(ImageSet::Omniglot, Fetch::Never, &places).unwrap();
    assert_eq!(set.edition, Some("reconstruction"));
    assert_eq!((set.train.size(), set.test.size()), (vec![24_345, PIXELS], vec![8_115, PIXELS]));
    // fifteen drawings of each character for training and five for test, in each of 50 alphabets
    let counts = |t: &Tensor| labels(&t.bincount::<Tensor>(None, 50));
    let (train, test) = (counts(&set.train_labels), counts(&set.test_labels));
    assert_eq!(train[..4], [300, 300, 435, 390]);
    assert!(train.iter().zip(&test).all(|(a, b)| *a == 3 * b));
    let mean = |t: &Tensor| unit_interval(t).mean(Kind::Double).double_value(&[]);
    assert!((mean(&set.train) - 0.0830).abs() < 5e-5 && (mean(&set.test) - 0.0820).abs() < 5e-5);
}

/// From the original drawings, one bit a pixel, to the files, bit for bit.
#[test]
fn the_rule_gives_the_omniglot_files() {
    let Some(folder) = real_data("the_rule_gives_the_omniglot_files").map(|r| r.join("omniglot")) else { return };
    if !folder.join("omniglot105-bits-idx3-ubyte.gz").is_file() {
        common::skip("the_rule_gives_the_omniglot_files", "no drawings there");
        return;
    }
    let open = |name: &str| std::fs::File::open(folder.join(name)).unwrap();
    let bits = idx::decode(open("omniglot105-bits-idx3-ubyte.gz"), Some(&[32_460, 105, 14])).unwrap().bytes;
    let mut index = String::new();
    let csv = open("omniglot-index.csv.gz");
    flate2::read::MultiGzDecoder::new(csv).read_to_string(&mut index).unwrap();
    let mut drawings = omniglot::Drawings::new();
    for (row, line) in index.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let ink = bits[row * 105 * 14..][..105 * 14]
            .chunks(14)
            .flat_map(|row| (0..105).map(|x| row[x / 8] >> (7 - x % 8) & 1));
        drawings.add(fields[5].parse().unwrap(), fields[6].parse().unwrap(), fields[2], ink.collect());
    }
    let parts = drawings.reconstruct().unwrap();
    for (file, bytes) in ImageSet::Omniglot.files().iter().zip(&parts) {
        let sizes: Vec<u32> = file.dims.iter().map(|&d| d as u32).collect();
        let found = idx::decode(Cursor::new(idx_file(&sizes, bytes)), None).unwrap().sha256;
        assert_eq!(found, file.sha256, "{}", file.name);
    }
}

#[test]
fn drawings_are_read_from_their_archive() {
    // two-level PNGs of one bit a pixel, as the originals are; 1 is white
    let png = |black: &[(usize, usize)], side: u32| {
        let mut rows = vec![0xffu8; 14 * side as usize];
        for &(y, x) in black {
            rows[y * 14 + x / 8] &= !(0x80 >> (x % 8));
        }
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, 105, side);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        encoder.write_header().unwrap().write_image_data(&rows).unwrap();
        out
    };
    let archive = |png: &[u8]| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for name in ["images_background/", "images_background/Greek/character02/0395_07.png", "readme.txt"] {
            zip.start_file(name, zip::write::FileOptions::default()).unwrap();
            zip.write_all(if name.ends_with("png") { png } else { b"" }).unwrap();
        }
        Cursor::new(zip.finish().unwrap().into_inner())
    };
    let mut drawings = omniglot::Drawings::new();
    drawings.take(archive(&png(&[(0, 0), (104, 104), (50, 7)], 105))).unwrap();
    says(&drawings.reconstruct().unwrap_err(), &["1 drawings", "32460"]);
    says(&drawings.take(archive(&png(&[], 104))).unwrap_err(), &["0395_07.png", "105x104", "105x105"]);
    says(&drawings.take(Cursor::new(b"no zip".to_vec())).unwrap_err(), &["not a zip"]);
}

/// Written by scipy.io.savemat: three training and two test images, stored column by column, deflated.
#[test]
fn chardata_is_read_upright() {
    let bytes = include_bytes!("fixtures/chardata_small.mat");
    let [(train, train_labels), (test, test_labels)] = omniglot::read_chardata(bytes, [3, 2]).unwrap();
    assert_eq!((labels(&train_labels), labels(&test_labels)), (vec![7, 0, 49], vec![3, 3]));
    let ramp = Tensor::arange(784, (Kind::Float, tch::Device::Cpu)) / 783.0;
    let near = |a: Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-6;
    assert!(near(train.get(0), &ramp) && near(train.get(1), &(1.0 - &ramp)) && near(test.get(0), &ramp.square()));
    says(&omniglot::read_chardata(bytes, [4, 2]).unwrap_err(), &["data is [784, 3]", "[784, 4]"]);
    for cut in [0, 100, 127, 130, 400, 5000] {
        assert!(omniglot::read_chardata(&bytes[..cut], [3, 2]).is_err(), "cut at {cut}");
    }
}

#[test]
fn numbers_of_every_kind_in_a_matlab_file() {
    let bytes = include_bytes!("fixtures/kinds.mat");
    let found = mat::read(bytes, &["a", "b", "c", "d", "e", "f", "g"]).unwrap();
    let get = |name: &str| found.iter().find(|a| a.name == name).map(|a| (a.dims.clone(), a.values.clone()));
    assert_eq!(get("a"), Some((vec![2, 3], vec![1., 4., 2., 5., 3., 6.])));
    assert_eq!(get("b"), Some((vec![2, 1], vec![1.5, 2.5])));
    assert_eq!(get("c"), Some((vec![2, 2, 2], vec![0., 4., 2., 6., 1., 5., 3., 7.])));
    assert_eq!(get("d"), Some((vec![1, 2], vec![-1., 300.])));
    assert_eq!(get("f"), None, "text is passed over");
    says(&mat::read(&[0; 200], &["a"]).unwrap_err(), &["byte order mark"]);
}

#[test]
fn pixels_are_drawn_with_their_grey_level() {
    let grey = Tensor::from_slice(&[0u8, 255, 51]).view([1, 3]).expand([40_000, 3], false).contiguous();
    let drawn = binarise_once(&grey, 3, 0).unwrap();
    let mean = |t: &Tensor, i: i64| t.select(1, i).mean(Kind::Double).double_value(&[]);
    assert_eq!((mean(&drawn, 0), mean(&drawn, 1)), (0.0, 1.0));
    // 40,000 draws of probability 0.2: a standard error of 0.002, and five of them
    assert!((mean(&drawn, 2) - 0.2).abs() < 0.01);
    assert_eq!(drawn, binarise_once(&grey, 3, 0).unwrap());
    assert_ne!(drawn, binarise_once(&grey, 4, 0).unwrap());
    assert_ne!(drawn, binarise_once(&grey, 3, 1).unwrap());
}
