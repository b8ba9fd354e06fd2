//! `bnn`: its network, learning, resuming, the table, refusals; small networks on generated images.
#[allow(dead_code, missing_docs)]
#[path = "../experiments/bnn/args.rs"]
mod args;
mod common;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/bnn/images.rs"]
mod images;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/bnn/measure.rs"]
mod measure;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/bnn/network.rs"]
mod network;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/bnn/train.rs"]
mod train;

use args::{Args, Config};
use clap::Parser;
use common::{distance, finals, good, killed_and_resumed, metrics, normals, tensors};
use network::{Network, Statistics};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tch::{Device, Kind, Tensor};
use thruway::dist::bernoulli::Code;
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::sbn::{Mode, Proxy, Units, sign};

/// The binary in a directory of its own, on generated images and nothing of the machine's.
fn bnn(dir: &Path, out: &str, args: &str) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_bnn"));
    c.args(["--preset", "smoke", "--quiet", "--device", "cpu", "--out", out]).args(args.split_whitespace());
    c.current_dir(dir).env_remove("THRUWAY_DATA").env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.join("cache"));
    c.stderr(Stdio::piped());
    c
}

fn config(flags: &str) -> Config {
    Config::new(&Args::parse_from(["bnn"].into_iter().chain(flags.split_whitespace()))).unwrap()
}

/// The network of Fig. D.2 as written there: sizes of the layers, s = 1, b = 0, theta uniform; and, without noise, its scores and
/// gradients as a plain computation with units of slope 1 and pooling before normalisation has them.
#[test]
fn the_network_is_that_of_figure_d2() {
    tch::manual_seed(2);
    for shape in [Shape::Logistic, Shape::Uniform, Shape::Triangular] {
        let flags = format!("--width 4 --noise {}", format!("{shape:?}").to_lowercase());
        let network = Network::new(&config(&flags), Device::Cpu).unwrap();
        let get = |name: &str| network.params().iter().find(|(n, _)| *n == name).unwrap().1;
        let sizes: Vec<Vec<i64>> = network.weights().map(|w| w.eta().size()).collect();
        let convs = [(4, 4), (4, 8), (8, 8), (8, 16), (16, 16)].map(|(i, o)| vec![o, i, 3, 3]);
        assert_eq!(sizes[..5], convs);
        assert_eq!(sizes[5..], [vec![32, 16 * 4 * 4], vec![32, 32]]);
        assert_eq!((get("first.weight").size(), get("last.weight").size()), (vec![4, 3, 3, 3], vec![10, 32]));
        for k in 0..8 {
            let (s, b) = (get(&format!("norms.{k}.weight")), get(&format!("norms.{k}.bias")));
            assert!(s.eq(1.0).all().int64_value(&[]) == 1 && b.eq(0.0).all().int64_value(&[]) == 1);
        }
        let theta = network.weights().last().unwrap().theta().unwrap().to_kind(Kind::Double);
        assert!(common::stats::ks(&theta) < common::stats::KS_LIMIT);
        let images = normals(&[6, 3, 32, 32], Kind::Float, 5);
        let units = Units { noise: BinaryNoise::unit_slope(shape), proxy: Proxy::Matched, code: Code::PlusMinus };
        assert_eq!(units.noise.pdf_f64(0.0), 0.5, "2 F'(0) = 1");
        let plain = |pool_first: bool| {
            let unit = |a: &Tensor, k: usize| {
                let dims: Vec<i64> = (0..a.dim() as i64).filter(|d| *d != 1).collect();
                let (mean, var) = (a.mean_dim(&dims[..], true, Kind::Float), a.var_dim(&dims[..], false, true));
                let as_wide = |n: &str| {
                    let size: Vec<i64> = (0..a.dim()).map(|d| if d == 1 { -1 } else { 1 }).collect();
                    get(&format!("norms.{k}.{n}")).view(&size[..])
                };
                let a = (a - mean) / (var + 1e-5).sqrt() * as_wide("weight") + as_wide("bias");
                units.deterministic(&a).unwrap()
            };
            let conv = |x: &Tensor, w: &Tensor| x.conv2d(w, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
            let mut x = unit(&conv(&images, get("first.weight")), 0);
            for (k, w) in network.weights().enumerate() {
                let w = sign(w.eta()).unwrap();
                let pool = |t: &Tensor| t.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
                x = match k {
                    0 | 2 | 4 if pool_first => unit(&pool(&conv(&x, &w)), k + 1),
                    0 | 2 | 4 => pool(&unit(&conv(&x, &w), k + 1)),
                    1 | 3 => unit(&conv(&x, &w), k + 1),
                    _ => unit(&x.flatten(1, -1).matmul(&w.tr()), k + 1),
                };
            }
            x.linear(get("last.weight"), Some(get("last.bias")))
        };
        let ours = network.forward(&images, &mut Mode::Deterministic, Statistics::TRAINING).unwrap();
        assert_eq!(ours.size(), [6, 10]);
        let wanted = ["first.weight", "norms.0.bias", "norms.3.weight", "last.weight"].map(get);
        let gradients = |y: &Tensor| {
            let upstream = normals(&[6, 10], Kind::Float, 6);
            Tensor::run_backward(&[(y * upstream).sum(Kind::Float)], &wanted, false, false)
        };
        // float32: 1e-4 of the largest; a sign that rounding turns would show as an error of order 1, and the seed has none
        let near = |a: &Tensor, b: &Tensor| distance(a, b) < 1e-4 * (1.0 + common::largest(b));
        let theirs = plain(true);
        assert!(near(&ours.detach(), &theirs.detach()), "{shape:?}");
        for (a, b) in gradients(&ours).iter().zip(&gradients(&theirs)) {
            assert!(common::largest(b) > 1e-2 && near(a, b), "{shape:?}: {}", distance(a, b));
        }
        assert!(!near(&ours.detach(), &plain(false).detach()), "pooling after the units is another network");
    }
}

/// 0.01 for 300 epochs, a tenth of it from there, a hundredth from epoch 400 of 500 (D.2), here of 500 steps each.
#[test]
fn the_rate_falls_at_epochs_300_and_400_of_500() {
    let rate = |epoch: i64, step: i64| train::rate(0.01, 500 * epoch + step, 500 * 500);
    for (from, to, want) in [(0, 300, 1e-2), (300, 400, 1e-3), (400, 500, 1e-4)] {
        for seen in [rate(from, 0), rate(to - 1, 499)] {
            assert!((seen / want - 1.0).abs() < 1e-12, "{from}: {seen}");
        }
    }
}

/// Sixteen generated images are learnt by heart, as far as 8 channels go, under each noise of the units, from certain weights
/// within reach of the rate (on ±1); at a rate of nothing they are not.
#[test]
fn every_noise_learns() {
    let place = tempfile::tempdir().unwrap();
    let common = "--train-size 16 --batch-size 16 --test-size 8 --eval-every 0 --log-every 10 --augment none --width 8 \
                  --weight-noise uniform --clip --weight-spread 10";
    for (noise, steps) in [("logistic", 150), ("uniform", 150), ("triangular", 150), ("idle", 60)] {
        let case = if noise == "idle" { "--lr 1e-9".to_string() } else { format!("--noise {noise}") };
        good(bnn(place.path(), noise, &format!("{common} {case} --steps {steps}")).output().unwrap());
        let lines = metrics(&place.path().join(noise));
        let losses: Vec<f64> =
            lines.iter().filter(|l| l["accuracy"].is_number()).map(|l| l["loss"].as_f64().unwrap()).collect();
        let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
        let fall = mean(&losses[..3]) - mean(&losses[losses.len() - 3..]);
        println!("{noise}: the loss falls by {fall:.3} from {:.3}", mean(&losses[..3]));
        assert!(if noise == "idle" { fall.abs() < 0.3 } else { fall > 0.5 }, "{noise}: {fall}");
        let seen = finals(&place.path().join(noise));
        for name in ["det", "det_refit", "1", "10"] {
            assert!((0.0..=1.0).contains(&seen[format!("test_accuracy_{name}")].as_f64().unwrap()), "{name}");
        }
    }
}

/// Clipped latent weights stay in the support of their noise; unclipped ones leave it.
#[test]
fn clipping_keeps_latent_weights_in_their_support() {
    let place = tempfile::tempdir().unwrap();
    let args = "--weight-noise uniform --steps 30 --lr 0.1 --eval-every 0 --test-size 8";
    for (out, clip) in [("clipped", "--clip"), ("free", "")] {
        good(bnn(place.path(), out, &format!("{args} {clip}")).output().unwrap());
        let all = tensors(&place.path().join(out));
        let latent = all.iter().filter(|(n, _)| n.starts_with("model.") && n.ends_with(".eta"));
        let most = latent.map(|(_, t)| common::largest(t)).fold(0.0, f64::max);
        assert_eq!(most <= 1.0, out == "clipped", "{out}: {most}");
    }
}

/// Killed at several moments and resumed, a run ends with the numbers of the uninterrupted one, bit for bit: parameters, running
/// statistics, moments, order, generators.
#[test]
fn killed_and_resumed_is_the_same_run() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let args = "--steps 60 --train-size 60 --batch-size 8 --test-size 8 --eval-samples 2 --checkpoint-every 3 --log-every 4 \
                --refit-batches 2 --noise triangular";
    good(bnn(dir, "whole", args).output().unwrap());
    let killed = dir.join("killed");
    killed_and_resumed(&killed, Duration::from_millis(10), |resume| bnn(dir, "killed", &format!("{args}{resume}")));
    let whole = dir.join("whole");
    assert_eq!(finals(&whole), finals(&killed));
    assert_eq!(metrics(&whole), metrics(&killed));
    let (a, b) = (tensors(&whole), tensors(&killed));
    assert!(a.iter().any(|(n, _)| n == "model.norms.7.running_var") && a.len() == b.len());
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert!(a.equal(b), "{name} differs");
    }
}

/// Evaluations draw from a stream of their own: none, some or many of them change no training number.
#[test]
fn evaluations_leave_the_training_alone() {
    let place = tempfile::tempdir().unwrap();
    let args = "--steps 12 --train-size 32 --batch-size 8 --test-size 8 --log-every 1";
    let losses = |out: &str, more: &str| {
        good(bnn(place.path(), out, &format!("{args} {more}")).output().unwrap());
        let lines = metrics(&place.path().join(out));
        lines.iter().filter_map(|l| l["loss"].as_f64()).collect::<Vec<_>>()
    };
    assert_eq!(losses("many", "--eval-samples 7 --refit-batches 3"), losses("few", "--eval-every 0 --eval-samples 1"));
}

#[test]
fn the_table_sets_runs_beside_the_published_figures() {
    let place = tempfile::tempdir().unwrap();
    good(bnn(place.path(), "runs/bnn/a/0", "--steps 2 --eval-every 0").output().unwrap());
    let page = place.path().join("page.md");
    std::fs::write(&page, "<!-- table:bnn-table1 -->\n<!-- /table -->\n").unwrap();
    let mut c = Command::new(env!("CARGO_BIN_EXE_bnn"));
    good(c.args(["tables", "runs", "--markdown", "page.md"]).current_dir(place.path()).output().unwrap());
    let text = std::fs::read_to_string(&page).unwrap();
    for words in [
        "| published, width 128 | logistic |  | cifar10 | 10000 | 500 | 4 | 89.6 ± 0.1 | 90.6 ± 0.2 |",
        "91.2 (16-sample)",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.contains("| ours, width 4 | logistic | logistic x 1.0 | synthetic: 96 | 32 |"), "{text}");
    assert!(!text.contains("(10-sample)"), "that is the column's heading: {text}");
}

/// An ensemble of another size than the column's is named, and a run with several evaluations has its curve beside the published
/// end point.
#[test]
fn the_table_names_other_ensembles_and_shows_curves() {
    let place = tempfile::tempdir().unwrap();
    let common = "--train-size 32 --epochs 3 --test-size 8 --noise uniform";
    good(bnn(place.path(), "runs/a/0", &format!("{common} --eval-samples 2")).output().unwrap());
    good(bnn(place.path(), "runs/b/0", common).output().unwrap());
    let mut c = Command::new(env!("CARGO_BIN_EXE_bnn"));
    let text =
        String::from_utf8(c.args(["tables", "runs"]).current_dir(place.path()).output().unwrap().stdout).unwrap();
    let value = |run: &str| {
        100.0 * finals(&place.path().join("runs").join(run).join("0"))["test_accuracy_10"].as_f64().unwrap()
    };
    assert_eq!(text.matches("(2-sample)").count(), 1, "{text}");
    assert!(text.contains(&format!("{:.1} (2-sample)", value("a"))), "{text}");
    let last = text.lines().find(|l| l.contains("published, 500")).unwrap_or_else(|| panic!("{text}"));
    let mut ends: Vec<&str> = last.split_whitespace().filter(|w| w.contains('.')).collect();
    ends.sort_unstable();
    // det of both runs, the 10-sample figure of the one that has such an ensemble
    assert_eq!(ends, ["89.7", "89.7", "90.5"], "{text}");
    assert!(text.lines().any(|l| l.split_whitespace().nth(1) == Some("3")), "epoch 3: {text}");
}

#[test]
fn sweep_files_hold_runs_that_the_binary_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, count) in [("narrow", 3), ("start", 3), ("table1", 12), ("gpu30", 3)] {
        let file = root.join(format!("experiments/bnn/sweeps/{name}.toml"));
        let mut c = Command::new(env!("CARGO_BIN_EXE_thruway"));
        let o = c.args(["sweep", "--dry-run"]).arg(&file).current_dir(std::env::temp_dir()).output().unwrap();
        let lines = String::from_utf8(o.stdout.clone()).unwrap();
        good(o);
        let runs: Vec<&str> = lines.lines().filter(|l| l.contains("/bnn ")).collect();
        assert_eq!(runs.len(), count, "{lines}");
        for line in runs {
            let words = line.split_whitespace().skip_while(|w| !w.ends_with("/bnn"));
            let args = Args::try_parse_from(words).unwrap_or_else(|e| panic!("{name}: {line}: {e}"));
            Config::new(&args).unwrap_or_else(|e| panic!("{name}: {line}: {e}"));
        }
    }
}

/// The narrow preset clips latent weights whenever their noise has an end, given or not.
#[test]
fn the_narrow_preset_clips_under_noise_of_an_interval() {
    for (flags, clips) in [
        ("", true),
        ("--weight-noise uniform", true),
        ("--weight-noise triangular", true),
        ("--weight-noise logistic", false),
    ] {
        assert_eq!(config(&format!("--preset narrow {flags}")).clip, clips, "{flags}");
    }
}

#[test]
fn options_that_make_no_sense_are_named() {
    let place = tempfile::tempdir().unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("--noise cauchy", &["cauchy", "triangular"]),
        ("--clip", &["--clip is for --weight-noise uniform or triangular"]),
        ("--lr 0", &["--lr must be positive and finite, got 0"]),
        ("--width 0", &["--width must be at least 1"]),
        ("--batch-size 1", &["--batch-size must be", "a single image", "got 1 for 96", "give at least 2"]),
        (
            "--train-size 65",
            &["--batch-size must be", "got 16 for 65", "give --train-size 64, or another --batch-size"],
        ),
        ("--train-size 1", &["got 16 for 1", "give --train-size 2 or more"]),
        ("--steps 0", &["--steps must be at least 1"]),
        ("--dataset synthetic --train-size 100000", &["--train-size must be at most the 2000 images"]),
        ("--dataset cifar10", &["--dataset cifar10", "cannot be had", "THRUWAY_DATA"]),
    ];
    for (args, words) in cases {
        let output = bnn(place.path(), "run", args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(words.iter().all(|w| text.contains(w)) && !text.contains("panicked"), "{args}: {text}");
    }
    assert!(!place.path().join("run").exists(), "no directory for a refused run");
}
