//! The reader of 20 Newsgroups.
use crate::common::skip;
use crate::documents;
use std::path::Path;
use thruway::Error;
use thruway::data::newsgroups::{self, Newsgroups};
use thruway::data::{Places, Source};

/// A set of five words: two training documents and one for testing, which has an empty one beside it.
const FILES: [(&str, &str); 5] = [
    ("vocabulary.txt", "the\nof\ncat\ndog\nrare\n"),
    ("train.label", "1\n20\n"),
    ("train.data", "1 1 4\n1 3 2\n2 1 1\n2 2 5\n2 4 2\n2 5 1\n"),
    ("test.label", "2\n2\n"),
    ("test.data", "2 3 7\n"),
];

fn write(folder: &Path, changed: Option<(&str, &str)>) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, text) in FILES {
        let text = changed.filter(|(n, _)| *n == name).map_or(text, |(_, t)| t);
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn read(folder: &Path) -> thruway::Result<Newsgroups> {
    Newsgroups::read(folder, Source::Project)
}

#[test]
fn newsgroups_reader_gives_rows_and_keeps_frequent_words() {
    let place = tempfile::tempdir().unwrap();
    write(place.path(), None);
    // one file gzipped
    let packed = std::fs::File::create(place.path().join("train.data.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::default());
    std::io::Write::write_all(&mut packed, FILES[2].1.as_bytes()).unwrap();
    packed.finish().unwrap();
    std::fs::remove_file(place.path().join("train.data")).unwrap();
    let set = read(place.path()).unwrap();
    assert_eq!(set.train.starts, [0, 2, 6]);
    assert_eq!(set.train.words, [0, 2, 0, 1, 3, 4]);
    assert_eq!(set.train.counts, [4, 2, 1, 5, 2, 1]);
    assert_eq!((set.train.groups.as_slice(), set.test.groups.as_slice()), (&[0u8, 19][..], &[1u8, 1][..]));
    assert_eq!((set.test.starts.as_slice(), set.test.total()), (&[0, 0, 1][..], 7));
    assert_eq!(set.name(), "newsgroups20-other");
    // totals 5 5 2 2 1: of equals the earlier word first
    let (kept, omitted) = set.most_frequent(3).unwrap();
    assert_eq!(kept.vocabulary, ["the", "of", "cat"]);
    assert_eq!((kept.train.words.as_slice(), kept.train.starts.as_slice()), (&[0, 2, 0, 1][..], &[0, 2, 4][..]));
    assert_eq!((omitted.words, omitted.counts, omitted.documents), (2, (2, 2), 1));
    // all that is known of a document is how often words occur: 5, 5, 2, 2, 1 of 15
    let data = documents::Data { train: set.train.clone(), test: set.test.clone(), vocabulary: 5, name: "", omitted };
    let by_hand = (10.0 * 3f64.ln() + 4.0 * 7.5f64.ln() + 15f64.ln()) / 2.0;
    assert!((data.unigram_loss() - by_hand).abs() < 1e-12);
    let (kept, _) = set.most_frequent(2).unwrap();
    assert_eq!((kept.test.starts.as_slice(), kept.test.len()), (&[0, 0, 0][..], 2));
    for n in [0, 6] {
        let e = set.most_frequent(n).unwrap_err().to_string();
        assert!(e.contains("words kept must be 1 to the 5") && e.contains(&format!("got {n}")), "{e}");
    }
}

#[test]
fn newsgroups_fingerprint_knows_documents_in_any_order() {
    let place = tempfile::tempdir().unwrap();
    let print = |train: &str, labels: &str| {
        write(place.path(), Some(("train.data", train)));
        std::fs::write(place.path().join("train.label"), labels).unwrap();
        read(place.path()).unwrap().fingerprint()
    };
    let first = print("1 1 4\n2 2 5\n", "1\n20\n");
    assert_eq!(first, print("1 2 5\n2 1 4\n", "20\n1\n"));
    assert_ne!(first, print("1 2 5\n2 1 4\n", "1\n20\n"));
    assert_ne!(first, print("1 2 5\n2 1 3\n", "20\n1\n"));
}

#[test]
fn newsgroups_damage_is_named_by_file_and_line() {
    let place = tempfile::tempdir().unwrap();
    for (file, text, words) in [
        ("train.data", "1 1 4\n1 3\n", "train.data: line 2: expected `document word count`, got \"1 3\""),
        ("train.data", "1 1 4\n1 3 x\n", "line 2: expected `document word count`"),
        ("train.data", "1 1 4 4\n", "line 1: expected `document word count`"),
        ("train.data", "3 1 4\n", "line 1: document 3, expected 1 to 2"),
        ("train.data", "1 6 4\n", "line 1: word 6, expected 1 to 5"),
        ("train.data", "1 0 4\n", "line 1: word 0, expected 1 to 5"),
        ("train.data", "1 1 0\n", "line 1: a count of 0"),
        ("train.data", "2 1 4\n1 3 1\n", "line 2: document 1, word 3 after 2, 1: not in ascending order"),
        ("train.data", "1 1 4\n1 1 1\n", "not in ascending order"),
        ("test.data", "", "test.data: line 1: expected"),
        ("test.label", "1\n21\n", "test.label: line 2: expected a group from 1 to 20, got \"21\""),
        ("vocabulary.txt", "the\n\nof\n", "vocabulary.txt: line 2: an empty word"),
    ] {
        write(place.path(), Some((file, text)));
        let e = read(place.path()).unwrap_err();
        assert!(matches!(e, Error::Data { .. }) && e.to_string().contains(words), "{words:?} is not in: {e}");
    }
    write(place.path(), None);
    std::fs::write(place.path().join("train.data.gz"), [0x1f, 0x8b, 8, 0, 1, 2]).unwrap();
    let e = read(place.path()).unwrap_err().to_string();
    assert!(e.contains("train.data.gz: is damaged"), "{e}");
    // a part of the set is no set, and not passed over
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(newsgroups::FOLDER);
    write(&folder, None);
    std::fs::remove_file(folder.join("test.label")).unwrap();
    let places = Places { external: Some(root.path().into()), project: "nowhere".into(), offline: true };
    let e = newsgroups::locate(&places).unwrap_err().to_string();
    assert!(e.contains("test.label: missing, while train.data is there"), "{e}");
}

/// From a server of this machine that has the archive and the vocabulary, and from one whose archive lacks a file.
#[test]
fn newsgroups_fetched_and_unpacked() {
    use std::io::{BufRead, BufReader, Write};
    let archive = |files: &[(&str, &str)]| {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(vec![], flate2::Compression::fast()));
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("20news-bydate/matlab/{name}"), text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    };
    let serve = |archive: Vec<u8>| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let body = if request.contains(newsgroups::ARCHIVE) { &archive[..] } else { FILES[0].1.as_bytes() };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), body].concat());
            }
        });
        base
    };
    let (bad, good) = (serve(archive(&FILES[1..4])), serve(archive(&FILES[1..])));
    let place = tempfile::tempdir().unwrap();
    let get = |mirrors: &[&str]| thruway::data::fetch::fetch_newsgroups_from(place.path(), mirrors);
    let reason = get(&[&bad]).unwrap_err();
    assert!(reason.contains("20news-bydate-matlab.tgz holds no test.data"), "{reason}");
    assert!(!place.path().join(newsgroups::FOLDER).exists());
    let (folder, source) = get(&[&bad, &good]).unwrap();
    assert_eq!(source, Source::Fetched { from: good.clone() });
    assert_eq!(read(&folder).unwrap().train.words, [0, 2, 0, 1, 3, 4]);
    assert_eq!(get(&[]).unwrap().1, Source::Project, "the second time it is there");
}

#[test]
fn newsgroups_of_the_original() {
    let places = Places::from_env();
    let Some((folder, source)) = newsgroups::locate(&places).unwrap() else {
        skip("newsgroups_of_the_original", "no newsgroups20 in THRUWAY_DATA");
        return;
    };
    let set = Newsgroups::read(&folder, source).unwrap();
    assert_eq!((set.train.len(), set.test.len()), newsgroups::DOCUMENTS);
    assert_eq!((set.train.words.len(), set.test.words.len()), (1_467_345, 967_874));
    assert_eq!((set.train.total(), set.test.total()), (2_765_300, 1_796_919));
    assert_eq!(set.vocabulary.len(), newsgroups::WORDS);
    assert_eq!(set.fingerprint(), newsgroups::FINGERPRINT);
    assert_eq!(set.name(), "newsgroups20");
    let distinct: std::collections::BTreeSet<u32> = set.train.words.iter().copied().collect();
    assert_eq!(distinct.len(), 53_975);
    let (kept, omitted) = set.most_frequent(10_000).unwrap();
    // 92.5 % of its words; the paper has every omitted word in at most 10 documents
    assert_eq!(format!("{:.3}", kept.train.total() as f64 / set.train.total() as f64), "0.925");
    assert_eq!((omitted.words, omitted.counts, omitted.documents), (51_188, (20, 20), 20));
    assert!(kept.train.starts.windows(2).all(|w| w[0] < w[1]), "every training document keeps a word");
}

#[test]
fn newsgroups_generated_documents_are_the_same_everywhere_and_have_topics() {
    let (a, b) = (Newsgroups::synthetic(200, 40), Newsgroups::synthetic(200, 40));
    assert_eq!(a.fingerprint(), b.fingerprint());
    assert_eq!((a.name(), a.train.len(), a.test.len()), ("newsgroups20-generated", 200, 40));
    let own = |i: usize| {
        let topic = 1000 + 50 * u32::from(a.train.groups[i]);
        let inside = a.train.row(i).filter(|e| (topic..topic + 50).contains(&a.train.words[*e]));
        inside.map(|e| a.train.counts[e]).sum::<u32>() as f64
            / a.train.row(i).map(|e| a.train.counts[e]).sum::<u32>() as f64
    };
    let mean = (0..200).map(own).sum::<f64>() / 200.0;
    assert!((mean - 0.5).abs() < 0.05, "half of the words are the topic's own: {mean}");
}
