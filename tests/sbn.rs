//! Stochastic binary networks: what every method must do, head flips, initialisation, evaluation, the 0/1 encoding, refusals,
//! and the `sbn-grad` binary.
mod common;
#[path = "../experiments/sbn-grad/problem.rs"]
#[allow(dead_code)]
mod problem;
use common::psa::{gradients, small_network};
use common::stats::{Z_LIMIT, mean_and_variance};
use common::{distance, fixture_files, largest, normals, read, tensor};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};
use thruway::Error;
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::noise::HostNoise;
use thruway::sbn::{
    Carrier, Description, Ewa, Knobs, Loss, Mean, Method, Network, Objective, Randomness, Spec, ZeroOne,
};

fn convolutional(affine: bool, kind: Kind) -> Network {
    let description = Description {
        input: vec![3, 7, 6],
        layers: vec![Spec::conv(4, 3, 1, 1), Spec::conv(5, 3, 2, 0), Spec::conv(3, 1, 1, 0), Spec::Linear { units: 6 }],
        scores: 4,
        affine,
        ..Description::default()
    };
    tch::manual_seed(1);
    Network::new(&description, kind, Device::Cpu).unwrap()
}

fn images(kind: Kind) -> (Tensor, Tensor) {
    (normals(&[5, 3, 7, 6], kind, 1), Tensor::from_slice(&[0i64, 1, 2, 3, 0]))
}

/// Narrow linear layers under every method, in float64; wider convolutional ones in float32 under all but enumeration.
#[test]
fn every_method_trains_every_parameter() {
    for &method in Method::ALL {
        let rule = method.build(&Knobs::default()).unwrap();
        let wide = convolutional(true, Kind::Float);
        let (x, y) = images(Kind::Float);
        let small = small_network(2);
        let (points, labels) = (normals(&[5, 2], Kind::Double, 2), Tensor::from_slice(&[1.0f64, -1.0, 1.0, 1.0, -1.0]));
        let mut problems = vec![(&small, &points, &labels, Kind::Double)];
        if method != Method::Exact {
            problems.push((&wide, &x, &y, Kind::Float));
        }
        for (network, x, y, kind) in problems {
            let name = format!("{} in {kind:?}", method.name());
            let run = || network.loss(x, y, &*rule, &mut HostNoise::new(4)).unwrap();
            let loss = run();
            assert_eq!((loss.surrogate.size(), loss.value.size()), (vec![5], vec![5]), "{name}");
            assert_eq!((loss.surrogate.kind(), loss.scores.kind()), (kind, kind), "{name}");
            assert!(!loss.value.requires_grad() && !loss.scores.requires_grad(), "{name}: graph on a value");
            assert!(distance(&loss.surrogate.detach(), &loss.value) < 1e-5, "{name}: surrogate and value differ");
            let parameters: Vec<&Tensor> = network.params().iter().map(|(_, p)| p).collect();
            let total = |l: &Loss| l.surrogate.mean(kind);
            let grads = Tensor::run_backward(&[total(&loss)], &parameters, false, false);
            let again = Tensor::run_backward(&[total(&run())], &parameters, false, false);
            for (((p, _), g), h) in network.params().iter().zip(&grads).zip(&again) {
                assert!(g.isfinite().all().int64_value(&[]) == 1, "{name}: {p} is not finite");
                assert!(largest(g) > 0.0, "{name}: {p} has no gradient");
                assert_eq!(g, h, "{name}: the same noise gave another gradient of {p}");
            }
        }
    }
}

/// Weights and biases sixty times too large: everything saturates, nothing overflows, in float32.
#[test]
fn extreme_weights_stay_finite() {
    for &method in Method::ALL.iter().filter(|m| **m != Method::Exact) {
        let network = convolutional(false, Kind::Float);
        tch::no_grad(|| {
            for (_, p) in network.params().iter() {
                drop(p.shallow_clone().g_mul_scalar_(300.0));
            }
        });
        let (x, y) = images(Kind::Float);
        let rule = method.build(&Knobs::default()).unwrap();
        let loss = network.loss(&x, &y, &*rule, &mut HostNoise::new(1)).unwrap();
        loss.surrogate.mean(Kind::Float).backward();
        let widest = network.params().iter().map(|(_, p)| largest(p)).fold(0.0, f64::max);
        assert!(widest > 60.0, "{widest}");
        for (name, p) in network.params().iter().filter(|(_, p)| p.grad().defined()) {
            assert!(p.grad().isfinite().all().int64_value(&[]) == 1, "{}: {name}", method.name());
        }
    }
}

/// Methods that are a function of the states treat the data of a batch one by one.
#[test]
fn a_batch_is_the_sum_of_its_data() {
    let network = convolutional(false, Kind::Double);
    let (x, y) = images(Kind::Double);
    let states = network.sample(&x, &mut HostNoise::new(9)).unwrap().states;
    let mut checked = 0;
    for &method in Method::ALL {
        if !matches!(method.claims().randomness, Randomness::States | Randomness::LastStates) {
            continue;
        }
        checked += 1;
        let rule = method.build(&Knobs::default()).unwrap();
        let whole = gradients(&network, &network.loss_at(&x, &y, &*rule, &states).unwrap());
        let mut parts: Vec<Tensor> = whole.iter().map(|(_, g)| g.zeros_like()).collect();
        for b in 0..5 {
            let own: Vec<Tensor> = states.iter().map(|s| s.narrow(0, b, 1)).collect();
            let loss = network.loss_at(&x.narrow(0, b, 1), &y.narrow(0, b, 1), &*rule, &own).unwrap();
            for (sum, (_, g)) in parts.iter_mut().zip(gradients(&network, &loss)) {
                *sum = &*sum + g / 5.0;
            }
        }
        for ((name, g), sum) in whole.iter().zip(&parts) {
            assert!(distance(g, sum) < 1e-12, "{}: {name}", method.name());
        }
    }
    assert!(checked >= 6, "{checked}");
}

/// All flips at once against one flip after another, for a loss of one's own.
#[test]
fn head_flips_are_the_losses_of_flipped_states() {
    let own = |s: &Tensor, y: &Tensor| -> thruway::Result<Tensor> {
        Ok((s.square().sum_dim_intlist(-1, false, Kind::Double) + y).sin())
    };
    let description = Description {
        input: vec![4],
        layers: vec![Spec::Linear { units: 7 }],
        scores: 3,
        objective: Objective::Custom(Arc::new(own)),
        ..Description::default()
    };
    let network = Network::new(&description, Kind::Double, Device::Cpu).unwrap();
    let (x, y) = (normals(&[6, 4], Kind::Double, 1), normals(&[6], Kind::Double, 2));
    let states = network.sample(&x, &mut HostNoise::new(1)).unwrap().states.remove(0);
    let df = network.head().differences(&states, &y, network.objective()).unwrap();
    let f = |x: &Tensor| network.objective().values(&network.head().scores(x).unwrap(), &y).unwrap();
    for i in 0..7 {
        let flipped = states.copy();
        let _ = flipped.select(1, i).g_mul_scalar_(-1.0);
        let want = f(&states) - f(&flipped);
        assert!(distance(&df.select(1, i), &want) < 1e-14, "unit {i}");
    }
    let constant: Objective = Objective::Custom(Arc::new(|_: &Tensor, y: &Tensor| Ok(y * 1.0)));
    assert_eq!(largest(&network.head().differences(&states, &y, &constant).unwrap()), 0.0);
}

/// After whitening every channel has mean 0 and standard deviation 1 in the pass that carries `2F(2a) - 1` (or `2F(a) - 1`).
#[test]
fn whitening_whitens() {
    for (affine, carrier) in [(false, Carrier::Published), (true, Carrier::Published), (false, Carrier::Mean)] {
        let network = convolutional(affine, Kind::Float);
        let head: Vec<Tensor> =
            network.params().iter().filter(|(n, _)| n.starts_with("head")).map(|(_, p)| p.copy()).collect();
        let x = normals(&[40, 3, 7, 6], Kind::Float, 5);
        network.whiten(&x, carrier).unwrap();
        let mut below = x;
        for (k, layer) in network.layers().iter().enumerate() {
            let a = layer.preactivation(&below).unwrap();
            let channels = a.transpose(0, 1).flatten(1, -1).to_kind(Kind::Double);
            let (mean, std) = (channels.mean_dim(1, false, Kind::Double), channels.std_dim(1, true, false));
            assert!(largest(&mean) < 1e-5 && largest(&(std - 1.0)) < 1e-4, "layer {k}, affine {affine}");
            below = match carrier {
                Carrier::Published => a.tanh(),
                Carrier::Mean => (a * 0.5).tanh(),
            };
        }
        let after = network.params().iter().filter(|(n, _)| n.starts_with("head")).map(|(_, p)| p.copy());
        assert!(head.into_iter().zip(after).all(|(a, b)| a == b), "the head changed");
    }
}

/// The analytic form: with inputs that are normal with these moments, pre-activations of the first layer are standard; those of
/// the second have the moments that independent units of these means and variances give.
#[test]
fn whitening_by_moments_is_its_formula() {
    let network = small_network(2);
    let (mean, variance) = (Tensor::from_slice(&[0.3f64, -1.0]), Tensor::from_slice(&[0.5f64, 2.0]));
    network.whiten_moments(&mean, &variance).unwrap();
    let get = |name: &str| network.params().iter().find(|(n, _)| *n == name).unwrap().1.detach();
    let (w1, b1) = (get("layers.0.weight"), get("layers.0.bias"));
    assert!(largest(&(w1.matmul(&mean) + b1)) < 1e-14);
    assert!(largest(&(w1.square().matmul(&variance) - 1.0)) < 1e-14);
    // every unit of layer 1 then has mean 0 and variance 1
    assert!(largest(&get("layers.1.bias")) < 1e-14);
    assert!(largest(&(get("layers.1.weight").square().sum_dim_intlist(1, false, Kind::Double) - 1.0)) < 1e-14);
}

/// Mean loss, accuracy and class probability over 20,000 draws within 4.5 standard errors of enumeration (three comparisons of
/// two data, false alarms 4e-5); 1.05 times the truth is refused.
#[test]
fn evaluation_agrees_with_enumeration() {
    let description = Description {
        input: vec![3],
        layers: vec![Spec::Linear { units: 3 }, Spec::Linear { units: 4 }],
        scores: 3,
        ..Description::default()
    };
    tch::manual_seed(3);
    let network = Network::new(&description, Kind::Double, Device::Cpu).unwrap();
    tch::no_grad(|| network.params().iter().for_each(|(_, p)| drop(p.shallow_clone().g_mul_scalar_(3.0))));
    for (seed, class) in [(1, 0i64), (2, 2)] {
        let x = normals(&[1, 3], Kind::Double, seed);
        let n = 20_000;
        let rows = (x.expand([n, 3], false), Tensor::full([n], class, (Kind::Int64, Device::Cpu)));
        let found = network.evaluate(&rows.0, &rows.1, 1, &mut HostNoise::new(seed)).unwrap();
        let target = Tensor::from_slice(&[class]);
        let loss = network.exact_loss(&x, &target).unwrap();
        let likelihood = network.exact_likelihood(&x, &target).unwrap();
        let paths = network.paths(&x).unwrap();
        let right = network.head().scores(&paths.states[1]).unwrap().argmax(-1, false).eq(class).to_kind(Kind::Double);
        let accuracy = (right * paths.probability.select(1, 0)).sum(Kind::Double);
        for (what, rows, truth) in [
            ("loss", &found.loss, loss),
            ("likelihood", &found.ensemble_loss.neg().exp(), likelihood),
            ("accuracy", &found.accuracy, accuracy),
        ] {
            let (mean, variance) = mean_and_variance(&rows.unsqueeze(1));
            let truth = truth.sum(Kind::Double).double_value(&[]);
            let z = |truth: f64| ((&mean - truth) / variance.sqrt()).abs().double_value(&[0]);
            assert!(z(truth) < Z_LIMIT, "{what} of class {class}: z {}", z(truth));
            assert!(
                z(1.2 * truth) > Z_LIMIT,
                "{what} of class {class}: 1.2 times the truth passes, z {}",
                z(1.2 * truth)
            );
        }
        // many draws: the ensemble's loss is below the expected one (Jensen) and near enumeration
        let ensemble = network.evaluate(&x, &target, 2000, &mut HostNoise::new(seed)).unwrap();
        let want = -network.exact_likelihood(&x, &target).unwrap().log().double_value(&[0]);
        assert!((ensemble.ensemble_loss.double_value(&[0]) - want).abs() < 0.05, "{}", ensemble.ensemble_loss);
        assert!(want < network.exact_loss(&x, &target).unwrap().double_value(&[0]));
        assert!(ensemble.entropy > 0.0 && ensemble.entropy < 1.0);
    }
}

/// Scores so large that the class has no probability in the kind: the ensemble's loss is that of the most probable draw.
#[test]
fn losses_of_impossible_classes_are_finite() {
    for (kind, factor) in [(Kind::Float, 1e3), (Kind::Float, 1e30), (Kind::Double, 1e6)] {
        let network = convolutional(false, kind);
        tch::no_grad(|| {
            network.params().iter().for_each(|(n, p)| {
                if n.starts_with("head") {
                    drop(p.shallow_clone().g_mul_scalar_(factor));
                }
            })
        });
        let (x, y) = images(kind);
        let found = network.evaluate(&x, &y, 4, &mut HostNoise::new(3)).unwrap();
        assert_eq!(found.ensemble_loss.isfinite().all(), Tensor::from(true), "{kind:?}, {factor:e}");
        assert!(found.ensemble_loss.max().double_value(&[]) > 100.0, "{}", found.ensemble_loss);
        let over = (&found.ensemble_loss - &found.loss * (1.0 + 1e-5)).max().double_value(&[]);
        assert!(over <= 1e-5, "above the expected loss by {over}");
    }
}

#[test]
fn the_baseline_remembers_each_datum() {
    let mut ewa = Ewa::new(4, 0.9, Kind::Double, Device::Cpu).unwrap();
    let index = Tensor::from_slice(&[2i64, 0]);
    assert_eq!(Vec::<f64>::try_from(ewa.get(&index).unwrap()).unwrap(), [0.0, 0.0]);
    ewa.update(&index, &Tensor::from_slice(&[1.0f64, 3.0])).unwrap();
    ewa.update(&index.narrow(0, 0, 1), &Tensor::from_slice(&[2.0f64])).unwrap();
    let all = Tensor::arange(4, (Kind::Int64, Device::Cpu));
    let values = Vec::<f64>::try_from(ewa.get(&all).unwrap()).unwrap();
    // 0.9 * 1 + 0.1 * 2; those never seen have the mean of those seen
    let want = [3.0, (3.0 + 1.1) / 2.0, 1.1, (3.0 + 1.1) / 2.0];
    assert!(values.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-14), "{values:?}");
    let mut other = Ewa::new(4, 0.9, Kind::Double, Device::Cpu).unwrap();
    other.restore(ewa.state()).unwrap();
    assert_eq!(other.get(&all).unwrap(), ewa.get(&all).unwrap());
    assert!(Ewa::new(4, 1.0, Kind::Double, Device::Cpu).is_err());
}

/// Same function, and gradients by the chain rule as autograd takes it through the change of encoding.
#[test]
fn the_zero_one_encoding_is_the_same_network() {
    let network = small_network(3);
    let (x, y) = (normals(&[4, 2], Kind::Double, 3), Tensor::from_slice(&[1.0f64, -1.0, -1.0, 1.0]));
    let leaves = ZeroOne::of(&network).unwrap();
    let other = leaves.apply(&network).unwrap();
    let (a, b) = (network.exact_loss(&x, &y).unwrap(), other.exact_loss(&x, &y).unwrap());
    assert!(distance(&a.detach(), &b.detach()) < 1e-14);
    let own = gradients(&network, &Loss { value: x.copy(), scores: x.copy(), surrogate: a });
    b.mean(Kind::Double).backward();
    for ((name, g), (_, leaf)) in ZeroOne::gradients(&own).unwrap().iter().zip(leaves.params().iter()) {
        assert!(distance(g, &leaf.grad()) < 1e-14, "{name}");
    }
    // by hand: states s = (x + 1)/2 under the 0/1 weights give the same pre-activation
    let get = |p: &thruway::nn::Params, name: &str| p.iter().find(|(n, _)| *n == name).unwrap().1.detach();
    let x1 = network.sample(&x, &mut HostNoise::new(1)).unwrap().states.remove(0);
    let pm = x1.linear(&get(network.params(), "layers.1.weight"), Some(get(network.params(), "layers.1.bias")));
    let s = (x1 + 1.0) / 2.0;
    let zo = s.linear(&get(leaves.params(), "layers.1.weight"), Some(get(leaves.params(), "layers.1.bias")));
    assert!(distance(&pm, &zo) < 1e-14);
    let before: Vec<Tensor> = network.params().iter().map(|(_, p)| p.copy()).collect();
    leaves.write(&network).unwrap();
    assert!(network.params().iter().zip(before).all(|((_, p), q)| distance(&p.detach(), &q.detach()) < 1e-14));
    assert!(ZeroOne::of(&convolutional(false, Kind::Float)).is_err());
}

#[test]
fn refusals_name_the_culprit() {
    let small = small_network(2);
    let (x, y) = (normals(&[3, 2], Kind::Double, 1), Tensor::from_slice(&[1.0f64, -1.0, 1.0]));
    let says = |e: Error, parts: &[&str]| {
        let text = e.to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    };
    let refused = |knobs: Knobs, m: Method| m.build(&knobs).err().expect("refused");
    says(refused(Knobs { tau: Some(0.5), ..Knobs::default() }, Method::St), &["st takes no --tau", "none"]);
    says(refused(Knobs { tau: Some(-1.0), ..Knobs::default() }, Method::Concrete), &["--tau", "positive", "-1"]);
    says(refused(Knobs { psa_tol: Some(0.0), ..Knobs::default() }, Method::Psa), &["--psa-tol", "positive"]);
    says(refused(Knobs { published_head: true, ..Knobs::default() }, Method::Psa), &["--published-head"]);
    let st = Method::St.build(&Knobs::default()).unwrap();
    let run = |x: &Tensor, y: &Tensor| small.loss(x, y, &*st, &mut HostNoise::new(0)).unwrap_err();
    says(run(&normals(&[3, 4], Kind::Double, 1), &y), &["[2]", "[3, 4]"]);
    says(run(&x, &Tensor::from_slice(&[1.0f64, 1.0])), &["targets", "[2]"]);
    says(run(&(&x * f64::NAN), &y), &["NaN"]);
    let concrete = Method::Concrete.build(&Knobs::default()).unwrap();
    says(small.loss_at(&x, &y, &*concrete, &[]).unwrap_err(), &["concrete", "noise"]);
    says(small.loss_at(&x, &y, &*st, &[]).unwrap_err(), &["given states", "layer 1"]);
    let wide = convolutional(false, Kind::Float);
    let (images, classes) = images(Kind::Float);
    says(wide.exact_loss(&images, &classes).unwrap_err(), &["enumerated", "12"]);
    says(wide.replicate(2).unwrap_err(), &["linear"]);
    let copies = |from: f64, to: f64| {
        let two = |t: &Tensor| Tensor::stack(&[t.detach() * from, t.detach() * to], 0);
        small.with_parameters(&mut |name, t| {
            Ok(if name == "head.bias" { two(t) } else { two(&(t * 0.0 + 1.0)) / from / to })
        })
    };
    assert!(copies(2.0, 2.0).is_ok());
    says(copies(2.0, 3.0).unwrap_err(), &["replicas of layers.0.weight differ"]);
    let other = small.with_parameters(&mut |_, t| Ok(t.detach().reshape([-1]).narrow(0, 0, 1)));
    says(other.unwrap_err(), &["layers.0.weight"]);
    says(wide.evaluate(&images, &classes, 0, &mut HostNoise::new(0)).unwrap_err(), &["draws", "at least 1"]);
    says(wide.loss(&images, &classes.to_kind(Kind::Float), &*st, &mut HostNoise::new(0)).unwrap_err(), &["Int64"]);
    let normal = Description {
        noise: BinaryNoise::new(Shape::Normal),
        input: vec![2],
        layers: vec![Spec::Linear { units: 2 }],
        ..Description::default()
    };
    let normal = Network::new(&normal, Kind::Double, Device::Cpu).unwrap();
    let arm = Method::Arm.build(&Knobs::default()).unwrap();
    let y = Tensor::from_slice(&[0i64, 1, 2]);
    says(normal.loss(&x, &y, &*arm, &mut HostNoise::new(0)).unwrap_err(), &["arm", "logistic", "Normal"]);
    let none = Network::new(&Description { input: vec![2], ..Description::default() }, Kind::Float, Device::Cpu);
    says(none.unwrap_err(), &["layers", "at least 1"]);
    let above = Description { input: vec![2], layers: vec![Spec::conv(1, 1, 1, 0)], ..Description::default() };
    says(Network::new(&above, Kind::Float, Device::Cpu).unwrap_err(), &["Conv2d", "channels"]);
}

#[test]
fn the_registry_is_well_formed() {
    let names: Vec<String> = Method::ALL.iter().map(|m| m.name()).collect();
    let known = "psa st hard-st det-st identity-st tanh concrete adf local-reparam reinforce muprop arm exact";
    assert_eq!(names.join(" "), known);
    for (m, name) in Method::ALL.iter().zip(&names) {
        assert!(Method::table().contains(&format!("| `{name}` | {}", m.title())), "{name}");
        assert!(!m.claims().source.is_empty() && !m.title().is_empty());
        // what draws nothing cannot be unbiased for a random loss, enumeration apart
        let c = m.claims();
        assert!(c.randomness != Randomness::None || c.mean == Mean::Relaxed || *m == Method::Exact, "{name}");
    }
}

/// The generated points are the published ones, to the last bit.
#[test]
fn the_points_of_the_fixture_are_generated() {
    let data = problem::data().unwrap();
    assert_eq!((data.x.size(), data.y.sum(Kind::Double).double_value(&[])), (vec![200, 2], 0.0));
    let mut compared = 0;
    for path in fixture_files() {
        let fixture = read(&path);
        if fixture["format"] == "psa-555-1" {
            assert_eq!(data.x, tensor(&fixture["data"]["points"]), "{}", path.display());
            assert_eq!(data.y, tensor(&fixture["data"]["label"]), "{}", path.display());
            compared += 1;
        }
    }
    if compared == 0 {
        common::skip(
            "the_points_of_the_fixture_are_generated",
            "THRUWAY_FIXTURES names no directory with psa_555.json",
        );
    }
}

fn sbn_grad(dir: &Path, arguments: &str) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_sbn-grad"));
    c.args(arguments.split_whitespace()).args(["--device", "cpu"]).current_dir(dir).env_remove("THRUWAY_FIXTURES");
    c
}

/// The binary: a run killed and resumed is the same run, its rows add up, and `tables` reads them.
#[test]
fn sbn_grad_measures_and_resumes() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let common = "--units 2,3 --epochs 3 --measure-at 1,3 --samples 400 --seed 2 --quiet --checkpoint-every 7";
    let run = |extra: &str| {
        let out = sbn_grad(dir, &format!("{common} {extra}")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    run("--out whole");
    // killed once it has a checkpoint, then resumed
    let mut child =
        sbn_grad(dir, &format!("{common} --out killed")).stdout(std::process::Stdio::null()).spawn().unwrap();
    let state = dir.join("killed/checkpoint/state.json");
    while !state.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if !dir.join("killed/summary.json").exists() {
        run("--out killed --resume");
    }
    let text = |d: &str| std::fs::read_to_string(dir.join(d).join("accuracy.jsonl")).unwrap();
    assert_eq!(text("whole"), text("killed"));
    let (a, b) = (read(&dir.join("whole/summary.json")), read(&dir.join("killed/summary.json")));
    assert_eq!(a["final"], b["final"]);
    let rows: Vec<serde_json::Value> = std::fs::read_to_string(dir.join("whole/accuracy.jsonl"))
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    // 16 candidates, two settings, two layers and the head
    assert_eq!(rows.len(), 16 * 2 * 3);
    for row in &rows {
        let at = format!("{} {} layer {}", row["setting"], row["method"], row["layer"]);
        let sampled = |k: &str| row["sampled"][k].as_f64().unwrap();
        let noise = sampled("std") / (row["samples"].as_f64().unwrap()).sqrt();
        if let Some(bias) = row["exact"]["bias"].as_f64() {
            // 4.5 standard errors in one direction, and the root of the other coordinates' sum
            assert!(sampled("bias") < bias + 5.5 * noise, "{at}: sampled bias {} against {bias}", sampled("bias"));
            let ratio = sampled("std") / row["exact"]["std"].as_f64().unwrap();
            assert!((0.6..1.6).contains(&ratio), "{at}: std ratio {ratio}");
            if row["unbiased"] == true {
                assert!(bias < 1e-10, "{at}: {bias}");
            }
        } else if row["unbiased"] == true {
            assert!(sampled("bias") < 5.5 * noise, "{at}: bias {} of {noise}", sampled("bias"));
        }
    }
    let text = "<!-- table:rmse-epoch-1 -->\n<!-- /table -->\n<!-- table:sentences -->\n<!-- /table -->\n";
    std::fs::write(dir.join("page.md"), text).unwrap();
    let mut c = Command::new(env!("CARGO_BIN_EXE_sbn-grad"));
    let out =
        c.args(["tables", "whole", "--markdown", "page.md", "--figures", "figures"]).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let page = std::fs::read_to_string(dir.join("page.md")).unwrap();
    assert!(page.contains("| psa *") && page.contains("PSA is always more accurate than ST"), "{page}");
    let svg = std::fs::read_to_string(dir.join("figures/rmse-epoch-1.svg")).unwrap();
    assert!(svg.contains("<polygon") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"));
}

/// The page of results is what the binary writes from them, and its verdict on PSA and ST follows from the moments in
/// summary.json, recomputed here.
#[test]
fn sbn_grad_page_follows_from_its_results() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/sbn-grad");
    let text = std::fs::read_to_string(place.join("README.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("README.md");
    // every table emptied, so that nothing typed between the markers survives
    let mut inside = false;
    let empty = text.lines().filter(|l| {
        let end = *l == "<!-- /table -->";
        inside = (inside || l.starts_with("<!-- table:")) && !end;
        !inside || l.starts_with("<!--") || end
    });
    std::fs::write(&page, empty.map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    let mut c = Command::new(env!("CARGO_BIN_EXE_sbn-grad"));
    let out = c.args(["tables", "results/5-5-5", "--markdown"]).arg(&page).current_dir(&place).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(
        std::fs::read_to_string(&page).unwrap(),
        text,
        "the page is not that of its results: make sbn-grad-tables"
    );

    let rows = read(&place.join("results/5-5-5/summary.json"))["final"]["accuracy"].as_array().unwrap().clone();
    let mut compared = 0;
    for line in text.lines().filter(|l| l.starts_with("| PSA is always more accurate than ST")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for (layer, cell) in (1..).zip(&cells[3..cells.len() - 1]) {
            let moments = |method: &str| {
                let row =
                    rows.iter().find(|r| r["setting"] == cells[2] && r["method"] == method && r["layer"] == layer);
                let row = row.unwrap_or_else(|| panic!("{} has no {method} in layer {layer}", cells[2]));
                assert_eq!(row["enumerated"], true, "{row}");
                let (bias, std) = (row["bias"].as_f64().unwrap(), row["std"].as_f64().unwrap());
                (bias.hypot(std), bias)
            };
            let (psa, st) = (moments("psa"), moments("st"));
            let verdict = if psa.0 < st.0 && psa.1 < st.1 { "confirmed" } else { "refuted" };
            assert!(cell.starts_with(verdict), "{}, layer {layer}: {psa:?} and {st:?}, but {cell}", cells[2]);
            compared += 1;
        }
    }
    assert_eq!(compared, 5 * 3, "five parameter sets, three layers");
}

#[test]
fn sbn_grad_refuses_bad_usage() {
    let place = tempfile::tempdir().unwrap();
    for (arguments, what) in [
        ("--units 5,20", "--units"),
        ("--epochs 2 --measure-at 7", "--measure-at"),
        ("--estimator nonsense", "psa"),
        ("--published nowhere.json", "nowhere.json"),
        ("--batch-size 0", "--batch-size"),
        ("--methods psa,exact", "--methods exact"),
        ("--device cuda --epochs 1 --measure-at 1", "--device"),
    ] {
        let mut c = Command::new(env!("CARGO_BIN_EXE_sbn-grad"));
        let out = c
            .args(arguments.split_whitespace())
            .current_dir(place.path())
            .env_remove("THRUWAY_FIXTURES")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr).to_string();
        assert!(!out.status.success() && text.contains(what), "{arguments}: {text}");
        // a file that is not there is no bad usage
        let status = if arguments.contains("nowhere") { 1 } else { 2 };
        assert_eq!(out.status.code(), Some(status), "{arguments}: {text}");
    }
}
