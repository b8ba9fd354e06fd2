//! The `nas` binary on generated images and a made-up table: killed and resumed is the same run bit for bit (CPU); settings of
//! the presets; refusals; tables.
mod common;
use common::{finals, good, metrics, read};
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use thruway::nas::Cell;

fn nas(dir: &Path, arguments: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_nas"));
    c.args(arguments).current_dir(dir);
    c.env_remove("THRUWAY_DATA").env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.join("cache"));
    c
}

/// A made-up table: accuracy falls with every `none`, and rises with every 3x3 convolution.
fn table(dir: &Path) {
    let mut text = "index,arch_str,iso_class".to_string();
    for set in ["cifar10", "cifar100", "imagenet16"] {
        text += &format!(",{set}_test_e200,{set}_valid_e12,{set}_test_e12");
    }
    let mut classes = HashMap::new();
    for c in Cell::all() {
        let next = classes.len();
        let class = *classes.entry(c.isomorphism()).or_insert(next);
        let accuracy = 50.0 + c.0.iter().map(|op| [-5.0, 0.0, 2.0, 5.0, 1.0][*op as usize]).sum::<f64>();
        text += &format!("\n{},{c},{class}{}", c.code(), format!(",{accuracy}").repeat(9));
    }
    std::fs::write(dir.join("table.csv"), text + "\n").unwrap();
}

const IMAGES: [&str; 18] = [
    "--dataset",
    "synthetic",
    "--train-size",
    "20",
    "--valid-size",
    "14",
    "--eval-size",
    "8",
    "--channels",
    "2",
    "--cells",
    "1",
    "--batch-size",
    "6",
    "--log-every",
    "2",
    "--quiet",
    "--table",
];

/// Runs it whole and, by another process killed at several places, in pieces: both must end alike.
fn killed_is_whole(dir: &Path, arguments: &[&str], kills_wanted: usize, files: &[&str]) {
    let run = |out: &str, resume: bool| {
        let mut c = nas(dir, arguments);
        c.args(["--checkpoint-every", "3", "--out", out]).stderr(Stdio::null());
        if resume {
            c.arg("--resume");
        }
        c
    };
    assert!(run("whole", false).status().unwrap().success());
    let (state, summary) = (dir.join("killed/checkpoint/state.json"), dir.join("killed/summary.json"));
    let mut kills = 0;
    for _ in 0..60 {
        if !state.exists() {
            let _ = std::fs::remove_dir_all(dir.join("killed"));
        }
        let mut child = run("killed", state.exists()).spawn().unwrap();
        let before = std::fs::read(&state).unwrap_or_default();
        while kills < kills_wanted && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
            let now = std::fs::read(&state).unwrap_or_default();
            if now != before && !now.is_empty() {
                child.kill().unwrap();
                kills += 1;
                break;
            }
        }
        child.wait().unwrap();
        if summary.exists() {
            break;
        }
    }
    assert_eq!(kills, kills_wanted, "the run ended before it could be killed: make it longer");
    assert_eq!(finals(&dir.join("whole")), finals(&dir.join("killed")));
    assert_eq!(metrics(&dir.join("whole")), metrics(&dir.join("killed")));
    for name in files {
        let [a, b] = ["whole", "killed"].map(|run| std::fs::read(dir.join(run).join(name)).unwrap());
        assert!(a == b && !a.is_empty(), "{name}");
    }
}

#[test]
fn nas_search_killed_and_resumed_is_the_same_run() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    table(dir);
    let more = ["table.csv", "--estimator", "stgs", "--epochs", "6", "--arch-lr", "0.05", "--seed", "4"];
    killed_is_whole(dir, &[&IMAGES[..], &more].concat(), 2, &["architecture.json", "architecture.svg"]);
    let last = finals(&dir.join("whole"));
    let cell: Cell = last["cell"].as_str().unwrap().parse().unwrap();
    assert_eq!(last["index"], cell.code());
    let logged = metrics(&dir.join("whole"));
    let epochs: Vec<_> = logged.iter().filter(|l| !l["entropy"].is_null()).collect();
    assert_eq!(epochs.len(), 6);
    assert_eq!(epochs[5]["cifar10_test"], last["cifar10_test"]);
    // GDAS's schedules: tau from 10 to 0.1, linear, its ends in the first and the last epoch; the rate of the weights from 0.025
    // along half a cosine that would end at 0.001 one epoch later. The killed run has the same lines, through its resumes.
    for (k, line) in epochs.iter().enumerate() {
        let tau = 10.0 - 9.9 * k as f64 / 5.0;
        let lr = 0.001 + 0.012 * (1.0 + (std::f64::consts::PI * k as f64 / 6.0).cos());
        for (name, want) in [("tau", tau), ("lr", lr)] {
            let used = line[name].as_f64().unwrap();
            assert!((used - want).abs() < 1e-12, "{name} in epoch {}: {used}, not {want}", k + 1);
        }
    }
    let history = read(&dir.join("whole/architecture.json"));
    assert_eq!((history.as_array().unwrap().len(), &history[5]["cell"]), (6, &last["cell"]));
    let row: f64 = history[5]["probabilities"][2].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
    assert!((row - 1.0).abs() < 1e-12);
    // the distribution has moved from the uniform one, of entropy 6 ln 5
    assert!(epochs[5]["entropy"].as_f64().unwrap() < 6.0 * 5f64.ln() - 1e-3);
}

#[test]
fn nas_surrogate_killed_and_resumed_is_the_same_run() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    table(dir);
    let long = ["surrogate", "--table", "table.csv", "--quiet", "--steps", "900", "--log-every", "100"];
    killed_is_whole(dir, &[&long[..], &["--estimator", "reinforce", "--decay", "0.9"]].concat(), 2, &[]);
    let whole = finals(&dir.join("whole"));
    assert!(whole["mean_regret"].as_f64().unwrap() > whole["regret"].as_f64().unwrap());
    // six 3x3 convolutions are best: the exact gradient finds them, evolution comes near
    let run = |name: &str, more: &[&str]| {
        good(nas(dir, &[&long[..], more, &["--out", name]].concat()).output().unwrap());
        finals(&dir.join(name))
    };
    let exact = run("exact", &["--estimator", "exact", "--lr", "0.03"]);
    assert_eq!(
        (exact["regret"].as_f64(), exact["rank"].as_i64(), exact["found_best"].as_i64()),
        (Some(0.0), Some(1), Some(1))
    );
    assert_eq!(exact["cifar10_test"], 80.0);
    let random = run("random", &["--search", "random"])["regret"].as_f64().unwrap();
    let evolved = run("evolution", &["--search", "evolution"])["regret"].as_f64().unwrap();
    assert!(evolved < random && random < 30.0, "{evolved} {random}");
    let short = ["surrogate", "--table", "table.csv", "--quiet", "--steps", "1", "--estimator", "exact", "--probe"];
    good(nas(dir, &[&short[..], &["--probe-draws", "8", "--out", "probe"]].concat()).output().unwrap());
    let probed = finals(&dir.join("probe"));
    let shown = nas(dir, &["tables", "probe"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout);
    for name in ["nvil", "double-cv", "reinforce", "rloo", "st"] {
        let row =
            shown.lines().find(|l| l.contains(&format!(" {name} ")) || l.contains(&format!(" {name}, "))).unwrap();
        assert_eq!(row.contains("untrained"), ["nvil", "double-cv"].contains(&name), "{row}");
    }
    assert!(shown.contains("note: untrained"), "{shown}");
    for e in ["st", "reinmax", "local_expectation"] {
        assert!(probed[format!("mean_bias_{e}")].is_number() && probed[format!("mean_cosine_{e}")].is_number());
    }
    good(nas(dir, &["tables", ".", "--figures", "figures"]).output().unwrap());
    for word in ["reinforce, decay 0.9", "evolution", "random"] {
        assert!(std::fs::read_to_string(dir.join("figures/regret.svg")).unwrap().contains(word));
    }
}

#[test]
fn nas_presets_are_the_published_settings() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    table(dir);
    let config = |name: &str, more: &[&str]| {
        let arguments = [&IMAGES[..], &["table.csv", "--steps", "1", "--out", name], more].concat();
        good(nas(dir, &arguments).output().unwrap());
        read(&dir.join(name).join("config.json"))["config"].clone()
    };
    let gdas = config("gdas", &["--preset", "gdas-published"]);
    assert_eq!(
        (&gdas["estimator"], &gdas["tau"], &gdas["activation"]),
        (&"stgs".into(), &"linear:10:0.1:99".into(), &"published".into())
    );
    assert_eq!((gdas["arch_weight_decay"].as_f64(), gdas["epochs"].as_i64()), (Some(0.001), Some(100)));
    assert_eq!(
        (gdas["lr"].as_f64(), gdas["lr_min"].as_f64(), gdas["arch_lr"].as_f64()),
        (Some(0.025), Some(0.001), Some(3e-4))
    );
    let reinmax = config("reinmax", &["--preset", "reinmax"]);
    assert_eq!(
        (&reinmax["estimator"], &reinmax["tau"], &reinmax["activation"]),
        (&"reinmax".into(), &"1".into(), &"published".into())
    );
    assert_eq!(reinmax["arch_weight_decay"].as_f64(), Some(0.09));
    let full = config("full", &["--preset", "reinmax", "--activation", "full", "--arch-weight-decay", "0"]);
    assert_eq!((&full["activation"], full["arch_weight_decay"].as_f64()), (&"full".into(), Some(0.0)));
    let soft = config("soft", &["--soft"]);
    assert!(soft["estimator"].is_null() && soft["activation"].is_null() && soft["soft"] == true);
    assert_eq!(config("plain", &["--estimator", "st"])["activation"], "selected");
    assert!(config("relaxed", &["--estimator", "gumbel-softmax"])["activation"].is_null());
    assert_eq!(config("several", &["--estimator", "gumbel-rao", "--samples", "3"])["tau"], "1");
    // nothing drawn, nothing tempered
    assert!(metrics(&dir.join("soft")).iter().all(|l| l["tau"].is_null()));
    assert!(metrics(&dir.join("relaxed")).iter().any(|l| l["tau"] == 1.0));
}

#[test]
fn nas_trains_one_cell_and_tells_what_the_table_has() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    table(dir);
    let arguments =
        ["train", "15624", "--table", "table.csv", "--dataset", "synthetic", "--train-size", "18", "--test-size", "9"];
    let more = ["--channels", "2", "--cells", "1", "--batch-size", "4", "--epochs", "4", "--quiet", "--lr", "0.05"];
    killed_is_whole(dir, &[&arguments[..], &more].concat(), 2, &[]);
    let last = finals(&dir.join("whole"));
    assert_eq!(last["published_test_e200"], 56.0);
    // half a cosine from 0.05 towards 0 over four epochs
    let rates: Vec<f64> = metrics(&dir.join("whole")).iter().filter_map(|l| l["lr"].as_f64()).collect();
    let want = [0.05, 0.04267766952966369, 0.025, 0.007322330470336314];
    assert!(rates.len() == 4 && rates.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{rates:?}");
    assert!((0.0..=100.0).contains(&last["test_accuracy"].as_f64().unwrap()));
    let out = nas(dir, &["query", "15624", "--table", "table.csv"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("index 15624") && text.contains("56.00") && text.contains("80.00"), "{text}");
}

/// Options of another kind of search than the one asked for; the word is that of the remedy.
#[test]
fn nas_options_of_another_search_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    table(dir);
    let refused = |arguments: &[&str], option: &str, remedy: &str| {
        let out =
            nas(dir, &[&["surrogate", "--table", "table.csv", "--steps", "1"], arguments].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        let right = said.contains(&format!("{option}: ")) && said.contains(remedy);
        assert!(out.status.code() == Some(2) && right, "{arguments:?}: {said}");
        assert!(!dir.join("runs").exists(), "{arguments:?} made a directory");
    };
    let of_the_gradient = [
        &["--estimator", "st"][..],
        &["--tau", "1"],
        &["--samples", "2"],
        &["--gap", "1"],
        &["--decay", "0.9"],
        &["--lr", "0.01"],
        &["--weight-decay", "0"],
        &["--batch-size", "1"],
        &["--probe"],
        &["--objective", "log-error"],
    ];
    // the two searches share the rule: each takes half of the options, which saves a second a process
    for (option, search) in of_the_gradient.iter().zip(["random", "evolution"].iter().cycle()) {
        refused(&[&["--search", search], *option].concat(), &option.join(" "), "is for --search gradient");
    }
    for option in [["--population", "10"], ["--tournament", "3"]] {
        refused(&[&["--search", "random"], &option[..]].concat(), &option.join(" "), "is for --search evolution");
        refused(&[&["--estimator", "st"], &option[..]].concat(), &option.join(" "), "is for --search evolution");
    }
    refused(&["--probe-draws", "8"], "--probe-draws 8", "is for --probe");
    refused(&["--search", "random", "--probe-draws", "8"], "--probe-draws 8", "is for --probe");
    refused(&["--estimator", "exact", "--batch-size", "1"], "--batch-size 1", "choose another estimator");
    refused(&["--eval-every", "2"], "--eval-every 2", "no epochs");
    let out = nas(dir, &["surrogate", "--table", "table.csv", "--search", "evolution", "--tournament", "11"]).output();
    let said = String::from_utf8_lossy(&out.unwrap().stderr).into_owned();
    assert!(said.contains("--tournament must be at most --population (10), got 11"), "{said}");
}

#[test]
fn nas_what_makes_no_sense_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    table(dir);
    for (arguments, words) in [
        (&["surrogate"][..], "give the benchmark's table by --table"),
        (&["surrogate", "--table", "table.csv", "--estimator", "arm"], "arm does not apply"),
        (&["surrogate", "--table", "table.csv", "--estimator", "vimco"], "vimco does not apply"),
        (&["surrogate", "--table", "."], "is not read"),
        (&["surrogate", "--table", "table.csv", "--device", "cuda:99"], "cuda:99"),
        (&["surrogate", "--table", "table.csv", "--lr", "0"], "--lr must be positive and finite, got 0"),
        (
            &["surrogate", "--table", "table.csv", "--weight-decay=-1"],
            "--weight-decay must be at least 0 and finite, got -1",
        ),
        (&["query", "12"], "--table"),
        (
            &["query", "15625", "--table", "table.csv"],
            "a cell must be an index from 0 to 15624 or a string like |op~0|+",
        ),
        (&["query", "-1", "--table", "table.csv"], "a cell must be an index from 0 to 15624 or a string like |op~0|+"),
        (&["query", "--table", "table.csv", "--", "-1"], "(quoted), got \"-1\""),
        (&["query", "conv", "--table", "table.csv"], "(quoted), got \"conv\""),
        (&["train", "-1"], "a cell must be an index from 0 to 15624"),
        (&["train", "|none~0|"], "an architecture"),
        (&["train", "7"], "an index needs the benchmark's table"),
        (&["--estimator", "rloo"], "choose a drop-in"),
        (&["--estimator", "reinmax", "--tau", "0.5"], "at least 1"),
        (&["--estimator", "st", "--samples", "3"], "st takes no --samples"),
        (&["--soft", "--tau", "1"], "--tau 1: is for an estimator, and --soft draws nothing"),
        (&["--soft", "--samples", "2"], "--samples 2: is for an estimator"),
        (&["--soft", "--gap", "2"], "--gap 2: is for an estimator"),
        (&["--soft", "--decay", "0.5"], "--decay 0.5: is for an estimator"),
        (&["--estimator", "st", "--decay", "0.5"], "st takes no --decay"),
        (&["--weight-decay=-1"], "--weight-decay must be at least 0"),
        (&["--arch-weight-decay=-1"], "--arch-weight-decay must be at least 0"),
        (&["--eval-size", "9"], "--eval-size must be at most --valid-size (8), got 9"),
        (&["--soft", "--estimator", "st"], "cannot be used with"),
        (&["--estimator", "gumbel-softmax", "--activation", "full"], "relaxes its samples"),
        (&["--lr", "0"], "--lr"),
        (&["--lr-min", "1"], "--lr-min"),
        (&["--arch-lr=-1"], "--arch-lr"),
        (&["--train-size", "25001"], "--train-size"),
        (&["--dataset", "cifar10"], "its images cannot be had"),
    ] {
        let mut c = nas(dir, arguments);
        if !["surrogate", "query", "train"].contains(&arguments[0]) && !arguments.contains(&"--dataset") {
            c.args(["--dataset", "synthetic", "--train-size", "8", "--valid-size", "8"].iter().take(
                match arguments[0] {
                    "--train-size" => 2,
                    _ => 6,
                },
            ));
        }
        let out = c.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
}
