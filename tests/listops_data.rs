//! ListOps: the evaluator against every official label, the reader's complaints, the generator, lengths and batches; agreement of
//! trees.
mod common;
#[allow(dead_code)]
#[path = "../experiments/listops/trees.rs"]
mod trees;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tch::Device;
use thruway::data::listops::{
    self, Batch, Batches, Example, Expression, Located, Op, Split, Units, bucket, generate, shorter_than,
};
use thruway::data::{Fetch, ListOps, Places, Source};
use trees::Agreement;

fn expression(text: &str) -> Expression {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The official valid and test file below `THRUWAY_DATA` or in `data/`.
fn official(test: &str) -> Option<Located> {
    let found = listops::locate(&Places::from_env()).unwrap();
    if found.is_none() {
        common::skip(test, "the official ListOps files are not there (THRUWAY_DATA, or `thruway data`)");
    }
    found
}

/// Reading refuses a label that is not the value of its expression, so that reading is the comparison; it is made once more.
#[test]
fn the_evaluator_agrees_with_every_official_label() {
    let Some(located) = official("the_evaluator_agrees_with_every_official_label") else { return };
    let (valid, test) = located.read().unwrap();
    assert_eq!((valid.len(), test.len()), (1_000, 10_000));
    for e in valid.iter().chain(&test) {
        assert_eq!(e.expression.value(), e.label, "{}", e.expression);
    }
    // the published counts below the limit of 100 (reinmax_gst_facts)
    let kept = [&valid, &test].map(|set| shorter_than(set, listops::LIMIT).len());
    assert_eq!(kept, [857, 8_689]);
}

/// The text of every official line is what our own writing of its tree gives, so the round brackets are understood.
#[test]
fn official_lines_are_written_back_as_they_were() {
    let Some(located) = official("official_lines_are_written_back_as_they_were") else { return };
    let text = std::fs::read_to_string(located.folder.join("valid.tsv")).unwrap();
    for line in text.lines() {
        let (label, written) = line.split_once('\t').unwrap();
        let e = expression(written);
        assert_eq!(e.official(), written);
        assert_eq!(expression(&e.to_string()), e);
        assert_eq!(expression(&written.replace('[', "[   ")), e);
        assert_eq!(e.value().to_string(), label);
    }
}

#[test]
fn operations_have_their_values() {
    for (text, value) in [
        ("7", 7),
        ("[MIN 4 2 9 ]", 2),
        ("[MAX 4 2 9 ]", 9),
        ("[MED 4 2 9 ]", 4),
        ("[MED 4 2 9 8 ]", 6),
        ("[MED 1 2 ]", 1),
        ("[SM 9 9 9 9 9 ]", 5),
        ("[SM 3 ]", 3),
        ("[MAX 2 [MIN 8 [SM 4 7 0 ] ] 0 ]", 2),
    ] {
        assert_eq!(expression(text).value(), value, "{text}");
    }
    assert_eq!(Op::ALL.map(Op::name), ["MIN", "MAX", "MED", "SM"]);
}

fn written(lines: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines.tsv");
    std::fs::write(&path, lines).unwrap();
    (dir, path)
}

#[test]
fn malformed_lines_name_file_line_and_reason() {
    for (bad, reason) in [
        (&b"3\t[AVG 1 2 ]"[..], "word 1 (\"[AVG\"): unknown operator \"AVG\", known: MIN, MAX, MED, SM"),
        (b"3\t[MAX 1 3", "unbalanced: 1 of the brackets [ are never closed"),
        (b"3\t[MAX 1 3 ] ]", "word 5 (\"]\"): something after the end"),
        (b"3\t]", "word 1 (\"]\"): closes nothing"),
        (b"3\t( ( ( [MAX 1 ) 3 ) ]", "unbalanced round brackets"),
        (b"3\t[MAX ]", "word 2 (\"]\"): the operation has no argument"),
        (b"3\t[MAX 1 12 ]", "word 3 (\"12\"): neither a digit nor a bracket"),
        (b"3\t", "no expression"),
        (b"[MAX 1 3 ]", "no label: expected `label<TAB>expression`"),
        (b"\t[MAX 1 3 ]", "no label before the tab"),
        (b"10\t[MAX 1 3 ]", "label \"10\", expected a digit"),
        (b"1\t[MAX 1 3 ]", "label 1, but the expression is 3"),
        (b"3\t[MAX 1 \xff3 ]", "not UTF-8 at byte 10"),
        (b"", "no label"),
    ] {
        let (_dir, path) = written(&[b"4\t[MIN 4 5 ]\r\n", bad, b"\n0\t0\n"].concat());
        let message = listops::read(&path).unwrap_err().to_string();
        let expected = format!("line 2: {reason}");
        assert!(message.contains(&expected) && message.contains("lines.tsv"), "{message}\nlacks {expected}");
    }
    let (_dir, path) = written(b"4\t[MIN 4 5 ]\r\n0\t0");
    assert_eq!(listops::read(&path).unwrap().len(), 2);
    let (_dir, path) = written(b"");
    assert!(listops::read(&path).unwrap_err().to_string().contains("line 1: no label"));
    assert!(listops::read(Path::new("nowhere.tsv")).unwrap_err().to_string().contains("nowhere.tsv"));
}

#[test]
fn deep_nesting_is_refused_without_a_stack_overflow() {
    let nested = |n: usize| "[MAX ".repeat(n) + "1" + &" ]".repeat(n);
    assert_eq!(expression(&nested(listops::DEEPEST)).value(), 1);
    let message = nested(1_000_000).parse::<Expression>().unwrap_err();
    assert!(message.contains("nested deeper than 1000"), "{message}");
}

#[test]
fn the_generator_keeps_its_parameters() {
    let n = 20_000;
    let a = generate(0, n, &[]);
    assert_eq!(a[..500], generate(0, 500, &[])[..], "a longer set begins like a shorter one");
    assert_ne!(a[..500], generate(1, 500, &[])[..]);
    assert_eq!(a.iter().map(|e| &e.expression).collect::<HashSet<_>>().len(), n, "distinct");
    let rest = generate(1, 2_000, &[&a]);
    let seen: HashSet<_> = a.iter().map(|e| &e.expression).collect();
    assert!(rest.iter().all(|e| !seen.contains(&e.expression)), "none of the others'");
    // of all operations, and of those within another
    let (mut operators, mut arguments, mut inner) = ([0usize; 4], [0usize; 6], [0usize; 6]);
    for e in &a {
        assert_eq!(e.label, e.expression.value());
        assert!(e.expression.depth() <= 19);
        let mut open = vec![];
        for &s in e.expression.symbols() {
            match s {
                listops::OPEN => {
                    open.iter_mut().last().into_iter().for_each(|n| *n += 1);
                    open.push(0usize);
                }
                listops::CLOSE => {
                    let n = open.pop().unwrap();
                    arguments[n] += 1;
                    inner[n] += usize::from(!open.is_empty());
                }
                s if s >= listops::FIRST_OP => operators[usize::from(s - listops::FIRST_OP)] += 1,
                _ => open.iter_mut().last().into_iter().for_each(|n| *n += 1),
            }
        }
    }
    // Operators, and numbers of arguments within another operation, are uniform: 4.5 standard errors each way, eight shares,
    // false alarm 5e-5 for a new seed. Outermost operations have more arguments than were drawn, since the few short
    // expressions are taken once each.
    let uniform = |counts: &[usize]| {
        let total = counts.iter().sum::<usize>() as f64;
        counts.iter().all(|&n| (n as f64 / total - 0.25).abs() < 4.5 * (0.25 * 0.75 / total).sqrt())
    };
    assert!(uniform(&operators), "{operators:?}");
    assert!(uniform(&inner[2..]), "{inner:?}");
    assert!(!uniform(&arguments[2..]), "20,000 operations show what distinctness does: {arguments:?}");
    assert_eq!(arguments[..2], [0, 0]);
}

/// The official test file is a tenth of 100,000 distinct draws; a smaller set of distinct ones would be shorter on average, since
/// the few short expressions come first. So 100,000 of ours are compared with it, in their mean log length.
#[test]
fn generated_expressions_are_as_long_as_official_ones() {
    let Some(located) = official("generated_expressions_are_as_long_as_official_ones") else { return };
    let (_, test) = located.read().unwrap();
    let drawn = generate(0, 100_000, &[]);
    let log_lengths = |set: &[Example]| {
        let logs: Vec<f64> = set.iter().map(|e| (e.expression.symbols().len() as f64).ln()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let variance = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / logs.len() as f64;
        (mean, variance / logs.len() as f64)
    };
    let ((a, va), (b, vb)) = (log_lengths(&test), log_lengths(&drawn));
    // two independent sets of one distribution: 4.5 standard errors, false alarm 7e-6 for a new seed
    assert!((a - b).abs() < 4.5 * (va + vb).sqrt(), "mean log length {a} and {b}");
}

#[test]
fn without_files_all_three_splits_are_drawn_and_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let places = Places { external: None, project: dir.path().into(), offline: true };
    let set = ListOps::load_from(Fetch::Allowed, &places, false, 0, 50).unwrap();
    assert_eq!(
        (set.name(), set.train.len(), set.valid.len(), set.test.len()),
        ("listops-generated", 50, 1_000, 10_000)
    );
    let held: HashSet<_> = set.valid.iter().chain(&set.test).map(|e| &e.expression).collect();
    assert!(set.train.iter().all(|e| !held.contains(&e.expression)));
    // one file without the other, and a file that is not the original
    let folder = dir.path().join("listops");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("test.tsv"), "0\t0\n").unwrap();
    let error = ListOps::load_from(Fetch::Never, &places, false, 0, 1).unwrap_err().to_string();
    assert!(error.contains("valid.tsv") && error.contains("missing, while test.tsv is there"), "{error}");
    std::fs::write(folder.join("valid.tsv"), "0\t0\n").unwrap();
    let error = ListOps::load_from(Fetch::Never, &places, false, 0, 1).unwrap_err().to_string();
    assert!(error.contains("valid.tsv") && error.contains("not the original: SHA-256"), "{error}");
}

/// A training file beside the official two is taken, unless drawn ones are asked for.
#[test]
fn a_training_file_is_taken_where_there_is_one() {
    let Some(located) = official("a_training_file_is_taken_where_there_is_one") else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("listops");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["valid.tsv", "test.tsv"] {
        std::fs::copy(located.folder.join(name), folder.join(name)).unwrap();
    }
    let places = Places { external: Some(dir.path().into()), project: dir.path().join("none"), offline: true };
    let load = |drawn| ListOps::load_from(Fetch::Never, &places, drawn, 0, 7).unwrap();
    assert_eq!((load(false).train.len(), load(false).train_split), (7, Split::Generated));
    std::fs::write(folder.join("train_d20s.tsv"), "4\t[MIN 4 5 ]\n").unwrap();
    let set = load(false);
    assert_eq!((set.train.len(), set.train_split, set.name()), (1, Split::File, "listops"));
    let file = set.train_file.unwrap();
    assert_eq!(file.path, folder.join("train_d20s.tsv"));
    // of `printf '4\t[MIN 4 5 ]\n' | sha256sum`
    assert_eq!(file.sha256, "e2dd6ff7fba7be976bf3e88a47b9989912944bf7e28130875b291cbc4352da89");
    assert!(matches!(set.source, Some(Source::Directory(_))));
    assert_eq!((load(true).train_split, load(true).train_file), (Split::Generated, None));
    // the official number of lines, and no other, makes the official split
    let lines = |n: usize| "4\t[MIN 4 5 ]\n".repeat(n);
    for (n, split) in [(listops::TRAIN - 1, Split::File), (listops::TRAIN, Split::Official)] {
        std::fs::write(folder.join("train_d20s.tsv"), lines(n)).unwrap();
        assert_eq!((load(false).train.len(), load(false).train_split), (n, split));
    }
}

/// A training file without the other two is named, not passed over; drawn expressions can be asked for in its place.
#[test]
fn a_lone_training_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("listops");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("train.tsv"), "4\t[MIN 4 5 ]\n").unwrap();
    let places = Places { external: Some(dir.path().into()), project: dir.path().join("none"), offline: true };
    let load = |drawn| ListOps::load_from(Fetch::Never, &places, drawn, 0, 7);
    let error = load(false).unwrap_err().to_string();
    assert!(
        error.contains("train.tsv: valid.tsv and test.tsv are not beside it") && error.contains("--generated"),
        "{error}"
    );
    assert_eq!(load(true).unwrap().train_split, Split::Generated);
}

#[test]
fn units_spell_the_expression() {
    let e = expression("[MAX 2 [SM 4 7 ] ]");
    assert_eq!(Units::Tokens.spell(&e).join(" "), "[ MAX 2 [ SM 4 7 ] ]");
    assert_eq!(Units::Chars.spell(&e).concat(), "[␣MAX␣2␣[␣SM␣4␣7␣]␣]");
    for units in [Units::Tokens, Units::Chars] {
        let ids = units.encode(&e);
        assert_eq!(ids.len(), units.spell(&e).len());
        assert!(ids.iter().all(|&i| (0..units.vocabulary()).contains(&i)));
        // the span of the inner operation spells it
        let (from, to) = units.spans(&e, &e.spans())[0];
        assert_eq!(units.spell(&e)[from..to].concat().replace('␣', ""), "[SM47]");
    }
    assert_eq!(e.spans(), [(3, 8), (0, 9)]);
    assert_eq!(e.binary_spans(), [(0, 2), (0, 3), (3, 5), (3, 6), (3, 7), (3, 8), (0, 8), (0, 9)]);
}

#[test]
fn buckets_hold_every_item_once_and_lengths_together() {
    let n = 5_003;
    let items: Vec<i64> = (0..n as i64).map(|i| i * 1_231 % n as i64).collect();
    let lengths: Vec<usize> = (0..n).map(|i| 1 + i * 37 % 97).collect();
    let whole = n / 16;
    let batches: Vec<i64> = (0..whole as i64).map(|b| (b * 5 + 3) % whole as i64).collect();
    let order = bucket(&items, &lengths, 16, &batches);
    assert_eq!(order.iter().collect::<HashSet<_>>().len(), n);
    let spread = |order: &[i64]| -> usize {
        let length = |i: &i64| lengths[*i as usize];
        order.chunks(16).map(|b| b.iter().map(length).max().unwrap() - b.iter().map(length).min().unwrap()).sum()
    };
    assert!(spread(&order) * 20 < spread(&items), "{} {}", spread(&order), spread(&items));
}

/// Bucketed epochs take two permutations, as ever; random ones take the first as it is.
#[test]
fn an_epoch_is_bucketed_or_random() {
    let lengths = [5, 1, 5, 1, 3];
    let order = |batches: Batches| {
        let mut asked = vec![];
        let shuffle = |n: usize| {
            asked.push(n);
            Ok((0..n as i64).rev().collect())
        };
        let order = batches.order(&lengths, 2, shuffle).unwrap();
        (order, asked)
    };
    assert_eq!(order(Batches::Bucketed), (bucket(&[4, 3, 2, 1, 0], &lengths, 2, &[1, 0]), vec![5, 2]));
    assert_eq!(order(Batches::Random), (vec![4, 3, 2, 1, 0], vec![5]));
}

/// F1 and operations by hand. `[ MAX 2 [ SM 4 7 ] ]` has the inner spans 0-2, 0-3, 0-8 and, of its argument, 3-5, 3-6, 3-7,
/// 3-8, the last of them an operation; `[ MIN 4 5 ]` has 0-2, 0-3, 0-4; a digit has none and does not count.
#[test]
fn agreement_is_what_it_is_by_hand() {
    let example = |text| Example { label: expression(text).value(), expression: expression(text) };
    let [long, short, digit] = ["[MAX 2 [SM 4 7 ] ]", "[MIN 4 5 ]", "7"].map(example);
    let of = |units: Units, trees: &[(&Example, Vec<usize>)]| {
        let mut agreement = Agreement::default();
        trees.iter().for_each(|(e, merges)| agreement.add(e, units, merges));
        let percent = |v: Option<f64>| v.map(|v| (v * 100.0).round() / 100.0);
        (percent(agreement.f1()), percent(agreement.operations()))
    };
    let (left, right) = (|n: usize| vec![0; n - 1], |n: usize| (0..n - 1).rev().collect::<Vec<_>>());
    let tokens = |e, merges| of(Units::Tokens, &[(e, merges)]);
    assert_eq!(tokens(&digit, vec![]), (None, None));
    // 3 of 7
    assert_eq!(tokens(&long, left(9)), (Some(42.86), Some(0.0)));
    assert_eq!(tokens(&long, right(9)), (Some(0.0), Some(0.0)));
    assert_eq!(tokens(&short, left(5)), (Some(100.0), None));
    // 4 7, SM with them, both brackets: 4-6 and so on are not official but for 3-8; then from the left
    assert_eq!(trees::spans(9, &[5, 4, 4, 3, 0, 0, 0, 0])[..4], [(5, 7), (4, 7), (4, 8), (3, 8)]);
    assert_eq!(tokens(&long, vec![5, 4, 4, 3, 0, 0, 0, 0]), (Some(57.14), Some(100.0)));
    // means over sentences, a share over operations
    let both = [(&long, left(9)), (&short, left(5)), (&digit, vec![])];
    assert_eq!(of(Units::Tokens, &both), (Some(71.43), Some(0.0)));
    // no tree exceeds the official one; its leaves are symbols, so in characters it leaves 6 of 9 inner spans free
    let along = |e: &Example, units: Units| {
        let own = units.spans(&e.expression, &e.expression.binary_spans());
        let merges = trees::along(units.encode(&e.expression).len(), &own);
        let spans: HashSet<_> = trees::spans(merges.len() + 1, &merges).into_iter().collect();
        assert!(own.iter().all(|span| spans.contains(span)));
        of(units, &[(e, merges)])
    };
    assert_eq!(along(&long, Units::Tokens), (Some(100.0), Some(100.0)));
    assert_eq!(along(&short, Units::Chars), (Some(50.0), None));
}

#[test]
fn batches_are_padded_to_their_longest() {
    let set: Vec<Example> =
        ["[MAX 2 9 ]", "3"].map(expression).into_iter().map(|e| Example { label: e.value(), expression: e }).collect();
    let batch = Batch::new(&set.iter().collect::<Vec<_>>(), Units::Tokens, Device::Cpu).unwrap();
    assert_eq!((batch.ids.size(), batch.lengths), (vec![2, 5], vec![5, 1]));
    assert_eq!(Vec::<i64>::try_from(batch.ids.view([10])).unwrap(), [10, 13, 2, 9, 11, 3, 0, 0, 0, 0]);
    assert_eq!(Vec::<i64>::try_from(batch.labels).unwrap(), [9, 3]);
}
