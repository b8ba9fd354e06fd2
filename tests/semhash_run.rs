//! The `semhash` binary and its run directories, on generated documents.
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/args.rs"]
mod args;
mod common;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/measure.rs"]
mod measure;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/method.rs"]
mod method;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/model.rs"]
mod model;

use args::{Args, Config};
use clap::Parser;
use common::{finals, good, killed_and_resumed, metrics, read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The binary in a directory of its own, with nothing of the machine's.
fn semhash(dir: &Path, arguments: &str) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_semhash"));
    c.args(arguments.split_whitespace()).current_dir(dir).env_remove("THRUWAY_DATA");
    c.env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.join("cache")).stderr(Stdio::piped());
    c
}

fn smoke(dir: &Path, arguments: &str) -> Command {
    semhash(dir, &format!("--preset smoke --device cpu --quiet {arguments}"))
}

#[test]
fn semhash_every_estimator_learns_and_leaves_a_complete_run() {
    let place = tempfile::tempdir().unwrap();
    let all = "arm gumbel-softmax st det-st identity-st psa reinmax disarm";
    for e in all.split_whitespace() {
        let arguments =
            format!("--estimator {e} --bits 8 --epochs 6 --lr 0.01 --batch-size 20 --measure-every 0 --out {e}");
        let arguments = if e == "arm" { arguments } else { arguments.replace("--measure-every 0 ", "") };
        let output = smoke(place.path(), &arguments).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("GENERATED ONLY"), "a stand-in is named");
        good(output);
        let run = place.path().join(e);
        let config = read(&run.join("config.json"))["config"].clone();
        assert_eq!(
            (config["dataset"].as_str(), config["data"]["train"].as_i64()),
            (Some("newsgroups20-generated"), Some(2000))
        );
        let last = finals(&run);
        let curve: Vec<(i64, f64)> = serde_json::from_value(last["curve"].clone()).unwrap();
        assert_eq!(curve.iter().map(|p| p.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(last["train_loss_before_correction"].as_f64(), Some(curve[6].1));
        assert_eq!(last["train_loss"].as_f64(), Some(curve[7].1));
        let likely: Vec<(i64, f64)> = serde_json::from_value(last["curve_det"].clone()).unwrap();
        assert!(likely.len() == 8 && likely[7].1 == last["train_loss_det"].as_f64().unwrap() && likely[7] != curve[7]);
        // fresh parameters know less than the frequencies of the words, trained ones more
        let unigram = last["unigram_loss"].as_f64().unwrap();
        assert!(curve[0].1 > unigram && curve[7].1 < unigram, "{e}: {unigram} and {curve:?}");
        // seeds are fixed; an encoder that learns nothing stays within 2 nats of the frequencies of the words, about 357
        let (first, end) = (curve[1].1, curve[7].1);
        println!("{e}: {first:.1} -> {end:.1}, precision {}", last["precision_at_100"]);
        assert!(end < first - 20.0, "{e}: {first} to {end}");
        for name in ["test_loss", "precision_at_100", "distinct_codes", "precision_at_100_before_correction"] {
            assert!(last[name].as_f64().is_some_and(|v| v > 0.0), "{e}: {name} in {last}");
        }
        // chance is 0.05
        assert!(last["precision_at_100"].as_f64().unwrap() > 0.15, "{e}: {last}");
    }
}

/// Killed at several moments of both phases and resumed, a run ends with the numbers of the uninterrupted one, bit for bit.
#[test]
fn semhash_killed_and_resumed_is_the_same_run() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let sizes = "--estimator arm --bits 8 --batch-size 32 --correction-samples 3 --checkpoint-every 3 --log-every 10";
    let sizes = format!("{sizes} --measure-every 1 --measure-batch-size 20 --trials 12 --reference 20");
    good(smoke(dir, &format!("{sizes} --out whole")).output().unwrap());
    let start = |resume: &str| smoke(dir, &format!("{sizes} --out killed{resume}"));
    killed_and_resumed(&dir.join("killed"), Duration::from_millis(150), start);
    let (a, b) = (finals(&dir.join("whole")), finals(&dir.join("killed")));
    assert_eq!(a, b);
    // the start, one epoch and two: nine estimators each
    assert_eq!(a["accuracy"].as_array().unwrap().len(), 27);
    assert_eq!(metrics(&dir.join("whole")), metrics(&dir.join("killed")));
    // and measuring has changed no number of the training
    let plain = sizes.replace("--measure-every 1", "--measure-every 0");
    good(smoke(dir, &format!("{plain} --out plain")).output().unwrap());
    let c = finals(&dir.join("plain"));
    for name in ["train_loss", "test_loss", "precision_at_100", "curve"] {
        assert_eq!(a[name], c[name], "{name}");
    }
}

#[test]
fn semhash_tables_hold_the_sentences_against_the_runs() {
    let place = tempfile::tempdir().unwrap();
    // to below the loss of the frequencies of the words
    let learns = "--epochs 3 --lr 0.01 --batch-size 20";
    for bits in [4, 8] {
        for (e, more) in
            [("arm", "--measure-every 1 --trials 12 --reference 20"), ("st", ""), ("det-st", ""), ("identity-st", "")]
        {
            let arguments = format!("--estimator {e} --bits {bits} {learns} {more} --out runs/{bits}/{e}/0");
            good(smoke(place.path(), &arguments).output().unwrap());
        }
        let arguments = format!("--estimator st --control --bits {bits} {learns} --out runs/{bits}/st-control/0");
        good(smoke(place.path(), &arguments).output().unwrap());
    }
    let readme = place.path().join("README.md");
    let marks = "training retrieval cosine-4 improvement-4 rmse-4 cosine-8 improvement-8 rmse-8 claims";
    let marks = marks.split_whitespace();
    let marks: String = marks.map(|m| format!("<!-- table:{m} -->\n<!-- /table -->\n")).collect();
    std::fs::write(&readme, marks).unwrap();
    good(semhash(place.path(), "tables runs --markdown README.md --figures figures").output().unwrap());
    let text = std::fs::read_to_string(&readme).unwrap();
    for sentence in ["no visible progress", "rapid improvement", "extra bias", "less correction", "wrong direction"] {
        assert!(text.contains(sentence), "{sentence}: {text}");
    }
    for words in [
        "% of the span",
        "likely codes",
        "| 8 | st, control | 1 |",
        "by the reference's two halves",
        "measurement: f32",
        "| estimator | epoch 0 | epoch 1 | epoch 2 | epoch 3 |",
        "| at best | -",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(text.matches("with the estimator itself not measured").count(), 2, "det-st has no control: {text}");
    let (own, control) = ["st", "st-control"].map(|e| finals(&place.path().join(format!("runs/8/{e}/0")))).into();
    assert_eq!(own["train_loss_before_correction"], control["train_loss_before_correction"]);
    assert_ne!(own["train_loss"], control["train_loss"]);
    assert_eq!(text.matches("| 8 | det-st | 1 | 3 + 1 |").count(), 1, "{text}");
    let value = finals(&place.path().join("runs/8/st/0"))["precision_at_100"].as_f64().unwrap();
    assert!(text.contains(&format!("| {value:.3} |")), "{value}: {text}");
    // one verdict again, from the summaries: the cosine of ST by bits
    let cosines = |bits: i64| -> Vec<f64> {
        let all = finals(&place.path().join(format!("runs/{bits}/arm/0")))["accuracy"].take();
        let of_st = |r: &&serde_json::Value| r["method"] == "st" && r["epoch"] != 0;
        all.as_array().unwrap().iter().filter(of_st).map(|r| r["cosine"].as_f64().unwrap()).collect()
    };
    let (four, eight) = (cosines(4), cosines(8));
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let grows = eight[2] - four[2] > 0.05 && mean(&eight) - mean(&four) > 0.05;
    let row = format!(
        "| 4, 8 bits, st | {} | last {:.2}, {:.2}; mean of all after the start {:.2}, {:.2} |",
        if grows { "yes" } else { "no" },
        four[2],
        eight[2],
        mean(&four),
        mean(&eight)
    );
    assert!(text.contains(&row), "{row}: {text}");
    for figure in ["figure1.svg", "figure-d1.svg"] {
        let svg = std::fs::read_to_string(place.path().join("figures").join(figure)).unwrap();
        assert!(svg.contains("8 bits") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
    // a reader that leaves early ends it quietly
    let mut child = semhash(place.path(), "tables runs").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let o = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&o.stderr).contains("panicked") && o.status.code() == Some(141), "{o:?}");
    // other settings are not to be mixed
    for (flags, words) in [
        ("--bits 8 --estimator psa --epochs 1 --lr 0.01", &["has epochs ", "1", "3", "as those of one sweep"][..]),
        ("--bits 8 --estimator psa --epochs 3 --lr 0.02", &["has lr ", "0.01", "0.02", "as those of one sweep"]),
        (
            "--bits 2 --estimator arm --epochs 3 --lr 0.01 --measure-every 1 --trials 12 --reference 10",
            &["runs/", "was measured under other settings", "measured alike"],
        ),
    ] {
        let _ = std::fs::remove_dir_all(place.path().join("runs/other"));
        good(smoke(place.path(), &format!("{flags} --batch-size 20 --out runs/other")).output().unwrap());
        let o = semhash(place.path(), "tables runs").output().unwrap();
        let text = String::from_utf8_lossy(&o.stderr).into_owned();
        assert!(o.status.code() == Some(1) && words.iter().all(|w| text.contains(w)), "{words:?}: {text}");
    }
    std::fs::remove_dir_all(place.path().join("runs/other")).unwrap();
    // runs from before the span was recorded are valid, and nothing is concluded from their losses
    for (bits, e) in
        [4, 8].into_iter().flat_map(|b| ["arm", "st", "st-control", "det-st", "identity-st"].map(|e| (b, e)))
    {
        let file = place.path().join(format!("runs/{bits}/{e}/0/summary.json"));
        let mut summary = read(&file);
        let last = summary["final"].as_object_mut().unwrap();
        assert!(["unigram_loss", "curve_det"].into_iter().all(|key| last.remove(key).is_some()));
        std::fs::write(&file, summary.to_string()).unwrap();
    }
    let o = semhash(place.path(), "tables runs").output().unwrap();
    let text = String::from_utf8_lossy(&o.stdout).into_owned();
    good(o);
    assert!(text.contains("no span") && text.contains("likely codes: not measured"), "{text}");
}

#[test]
fn semhash_measures_all_batches_where_asked() {
    let place = tempfile::tempdir().unwrap();
    let sizes =
        "--bits 4 --epochs 1 --measure-every 1 --measure-batches all --measure-batch-size 700 --trials 1 --reference 2";
    good(smoke(place.path(), &format!("{sizes} --out run")).output().unwrap());
    let rows = finals(&place.path().join("run"))["accuracy"].as_array().unwrap().clone();
    assert!(rows.len() == 18 && rows.iter().all(|r| r["documents"] == 2000 && r["batches"] == 3), "{rows:?}");
}

#[test]
fn semhash_refuses_what_makes_no_sense() {
    let place = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        ("--bits 0", "--bits must be at least 1, got 0"),
        ("--epochs 0 --correction-epochs 0", "together must be at least 1"),
        ("--epochs -1", "--epochs must be at least 0, got -1"),
        ("--batch-size 0", "--batch-size must be at least 1"),
        ("--correction-samples 0", "--correction-samples must be at least 1"),
        ("--lr nan", "--lr must be positive and finite"),
        ("--estimator arm --tau 1", "arm takes no --tau"),
        ("--estimator det-st --tau 1", "det-st takes no --tau"),
        ("--estimator gumbel-softmax --tau 0", "tau must be"),
        ("--estimator st --measure-every 5", "--measure-every is for --estimator arm"),
        ("--estimator st --trials 5", "--trials is for --estimator arm"),
        ("--estimator psa --psa-trials 5", "--psa-trials is for --estimator arm"),
        ("--estimator st --reference 10", "--reference is for --estimator arm"),
        ("--estimator st --measure-batches all", "--measure-batches is for --estimator arm"),
        (
            "--measure-batches 21",
            "--measure-batches must be at most the 20 batches of 100 in 2000 documents, or `all`, got 21",
        ),
        ("--measure-batches some", "a number or `all` is expected"),
        ("--reference 3", "--reference must be even"),
        ("--correction-epochs 0 --correction-samples 5", "--correction-samples is for the correction by ARM"),
        ("--control --correction-samples 5", "--control has none"),
        ("--control --correction-epochs 0", "--control is for a correction phase"),
        ("--trials 0", "--trials must be at least 1"),
        ("--reference 1", "--reference must be at least 2"),
        ("--words 0", "--words must be at least 1"),
    ] {
        let o = smoke(place.path(), arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&o.stderr);
        assert_eq!(o.status.code(), Some(2), "{arguments}: {stderr}");
        assert!(stderr.contains(words), "{arguments}: {words:?} is not in: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    assert!(std::fs::read_dir(place.path()).unwrap().next().is_none(), "a refused run leaves nothing behind");
    // damaged data ends a run, with the file and the line
    let data = place.path().join("data/newsgroups20");
    std::fs::create_dir_all(&data).unwrap();
    for (name, text) in
        [("vocabulary.txt", "a\n"), ("train.label", "1\n"), ("test.label", "1\n"), ("test.data", "1 1 1\n")]
    {
        std::fs::write(data.join(name), text).unwrap();
    }
    std::fs::write(data.join("train.data"), "1 2 1\n").unwrap();
    let o = smoke(place.path(), "").env("THRUWAY_DATA", place.path().join("data")).output().unwrap();
    let stderr = String::from_utf8_lossy(&o.stderr);
    assert!(o.status.code() == Some(1) && stderr.contains("train.data: line 1: word 2, expected 1 to 1"), "{stderr}");
}

#[test]
fn semhash_bench_times_sparse_beside_dense() {
    let place = tempfile::tempdir().unwrap();
    let flags = "bench --batch-size 32 --words 500 --hidden-dim 32 --bits 8 --rounds 3 --device cpu --out bench.json";
    let o = semhash(place.path(), flags).output().unwrap();
    let text = String::from_utf8_lossy(&o.stdout).to_string();
    good(o);
    assert!(
        text.contains("step, sparse input") && text.contains("step, dense input") && text.contains("Limit:"),
        "{text}"
    );
    let parts = read(&place.path().join("bench.json"))["parts"].as_array().unwrap().clone();
    assert!(parts.len() == 8 && parts.iter().all(|p| p["median_s"].as_f64().is_some_and(|s| s > 0.0)));
}

#[test]
fn semhash_sweep_files_hold_runs_that_the_binary_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, count) in [("bits8", 11), ("bits64", 11), ("bits256", 11), ("words2000", 24), ("short64", 6)] {
        let file = root.join(format!("experiments/semhash/sweeps/{name}.toml"));
        let mut c = Command::new(env!("CARGO_BIN_EXE_thruway"));
        let o = c.args(["sweep", "--dry-run"]).arg(&file).current_dir(std::env::temp_dir()).output().unwrap();
        let lines = String::from_utf8(o.stdout.clone()).unwrap();
        good(o);
        let runs: Vec<&str> = lines.lines().filter(|l| l.contains("/semhash ")).collect();
        assert_eq!(runs.len(), count, "{lines}");
        for line in runs {
            let words = line.split_whitespace().skip_while(|w| !w.ends_with("/semhash"));
            let args = Args::try_parse_from(words).unwrap_or_else(|e| panic!("{name}: {line}: {e}"));
            Config::new(&args).unwrap_or_else(|e| panic!("{name}: {line}: {e}"));
        }
    }
}
