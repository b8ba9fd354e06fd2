//! Adam, RAdam and SGD against PyTorch's over 200 steps (`optim-trajectories-1`, recorded by tests/parity/record_optim.py),
//! and the bounded search against SciPy's (`bounded-search-1`, by tests/parity/record_bounded.py).
mod common;
use common::{fixture_files, read, unpack};
use serde_json::Value;
use std::collections::HashMap;
use tch::{Kind, Tensor};
use thruway::Error;
use thruway::optim::{Adam, Method, Settings, Sgd, minimize_bounded, sgd};

/// A recording, taken apart.
struct Recording {
    fixture: Value,
    steps: i64,
    width: i64,
    saved: Vec<i64>,
}

impl Recording {
    fn all() -> Vec<Recording> {
        let files = fixture_files().into_iter().map(|p| read(&p)).filter(|f| f["format"] == "optim-trajectories-1");
        let all: Vec<_> = files
            .map(|fixture| Recording {
                steps: fixture["steps"].as_i64().unwrap(),
                saved: fixture["saved_steps"].as_array().unwrap().iter().map(|s| s.as_i64().unwrap()).collect(),
                width: shapes(&fixture).iter().map(|(_, s, _)| s.iter().product::<i64>()).sum(),
                fixture,
            })
            .collect();
        assert!(!all.is_empty(), "no recording was read");
        all
    }

    fn initial(&self) -> Tensor {
        unpack(&self.fixture["initial"], Kind::Float, &[self.width])
    }

    fn gradients(&self) -> Tensor {
        unpack(&self.fixture["gradients"], Kind::Float, &[self.steps, self.width])
    }
}

fn shapes(fixture: &Value) -> Vec<(String, Vec<i64>, i64)> {
    let one = |t: &Value| {
        let shape = t["shape"].as_array().unwrap().iter().map(|d| d.as_i64().unwrap()).collect();
        (t["name"].as_str().unwrap().to_string(), shape, t["first_step"].as_i64().unwrap())
    };
    fixture["tensors"].as_array().unwrap().iter().map(one).collect()
}

fn settings(t: &Value) -> (Method, Settings) {
    let method = match t["optimizer"].as_str().unwrap() {
        "adam" => Method::Adam,
        "radam" => Method::RAdam,
        other => panic!("optimizer {other} is not known here"),
    };
    let number = |key: &str| t[key].as_f64().unwrap();
    let betas = (t["betas"][0].as_f64().unwrap(), t["betas"][1].as_f64().unwrap());
    (method, Settings { lr: number("lr"), betas, eps: number("eps"), weight_decay: number("weight_decay") })
}

/// The recording's parameters, driven by its gradients.
struct Drive {
    params: Vec<Tensor>,
    first: Vec<i64>,
    names: Vec<String>,
    gradients: Vec<Tensor>,
}

impl Drive {
    fn new(r: &Recording, kind: Kind) -> Drive {
        let shapes = shapes(&r.fixture);
        let sizes: Vec<i64> = shapes.iter().map(|(_, s, _)| s.iter().product()).collect();
        let split = |row: &Tensor| -> Vec<Tensor> {
            let parts = row.to_kind(kind).split_with_sizes(&sizes[..], -1);
            parts.iter().zip(&shapes).map(|(p, (_, s, _))| p.reshape(&s[..]).copy()).collect()
        };
        Drive {
            params: split(&r.initial()).into_iter().map(|p| p.set_requires_grad(true)).collect(),
            first: shapes.iter().map(|s| s.2).collect(),
            names: shapes.iter().map(|s| s.0.clone()).collect(),
            gradients: (0..r.steps).flat_map(|i| split(&r.gradients().get(i))).collect(),
        }
    }

    fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.names.iter().map(String::as_str).zip(&self.params)
    }

    /// Puts the gradients of a step (from 1) in place; before its first step a tensor has none.
    fn set_gradients(&mut self, step: i64) {
        let n = self.params.len();
        for (i, p) in self.params.iter_mut().enumerate() {
            if step >= self.first[i] {
                let g = &self.gradients[(step - 1) as usize * n + i];
                // the gradient of sum(p * g) is g itself
                p.zero_grad();
                (&*p * g).sum(p.kind()).backward();
            }
        }
    }

    fn flat(&self) -> Tensor {
        Tensor::cat(&self.params.iter().map(|p| p.detach().reshape([-1])).collect::<Vec<_>>(), 0)
    }
}

/// A step of the optimizer under test.
type Stepper<'a> = Box<dyn FnMut(i64, &[Tensor]) + 'a>;

/// Largest error over the saved steps, in units of the tolerance at that step; 0 is bit-equal.
fn worst(r: &Recording, t: &Value, make: &dyn Fn(&Drive, Method, Settings) -> Stepper<'static>) -> f64 {
    let kind = if t["dtype"] == "float32" { Kind::Float } else { Kind::Double };
    let (method, settings) = settings(t);
    let want = unpack(&t["params"], kind, &[r.saved.len() as i64, r.width]);
    let mut drive = Drive::new(r, kind);
    let start = drive.flat();
    let mut step_of = make(&drive, method, settings);
    let mut worst = 0.0f64;
    for step in 1..=r.steps {
        drive.set_gradients(step);
        step_of(step, &drive.params);
        let Some(at) = r.saved.iter().position(|&s| s == step) else { continue };
        let want = want.get(at as i64);
        let off = ((drive.flat() - &want).abs() / want.abs().maximum(&start.abs())).max().double_value(&[]);
        worst = worst.max(off / tolerance(kind, step));
    }
    worst
}

/// Relative to each parameter (its size at that step, at least the size it started from). f32: a step rounds the parameter
/// once on either side, so two correct programs drift apart by about eps times the root of the steps taken, 14 of 200; twice
/// that. f64: 1e-12, far above rounding (200 eps are 4e-14) and far below any slip in the formula.
fn tolerance(kind: Kind, steps: i64) -> f64 {
    match kind {
        Kind::Float => f32::EPSILON as f64 * (2.0 + 2.0 * (steps as f64).sqrt()),
        _ => 1e-12,
    }
}

fn ours(drive: &Drive, method: Method, settings: Settings) -> Stepper<'static> {
    let mut adam = Adam::new(method, settings, drive.named()).unwrap();
    Box::new(move |_, _| adam.step().unwrap())
}

#[test]
fn fixture_trajectories_of_adam_and_radam() {
    let (mut cases, mut equal) = (0, 0);
    for r in Recording::all() {
        for t in r.fixture["trajectories"].as_array().unwrap() {
            let off = worst(&r, t, &ours);
            println!("{} {} lr {}: {off:.3} of the tolerance", t["optimizer"], t["dtype"], t["lr"]);
            assert!(off < 1.0, "{} {} {}: {off:.2} of the tolerance", t["optimizer"], t["dtype"], t["lr"]);
            cases += 1;
            equal += usize::from(off == 0.0);
        }
        println!("fixture optim-trajectories: {cases} cases, {equal} bit-equal to PyTorch's");
    }
    assert!(cases >= 24);
}

/// Adam written plainly, with one thing wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    /// Nothing is: the harness itself passes.
    Nothing,
    /// `sqrt(v + eps)` for `sqrt(v) + eps`.
    EpsInsideTheRoot,
    /// First moment's bias correction left out.
    NoBiasCorrection,
    /// Decay of the parameter itself (AdamW), not of the gradient.
    DecoupledDecay,
    /// A tensor without gradient counts the step all the same.
    CountsEmptySteps,
}

fn plain(wrong: Wrong) -> impl Fn(&Drive, Method, Settings) -> Stepper<'static> {
    move |drive, _, s| {
        let zeros = || drive.params.iter().map(|p| p.detach().zeros_like()).collect::<Vec<_>>();
        let (mut m, mut v, mut steps) = (zeros(), zeros(), vec![0; drive.params.len()]);
        Box::new(move |_, params| {
            let _guard = tch::no_grad_guard();
            for (i, p) in params.iter().enumerate() {
                let grad = p.grad();
                steps[i] += i32::from(grad.defined() || wrong == Wrong::CountsEmptySteps);
                if !grad.defined() {
                    continue;
                }
                let mut p = p.detach();
                let grad = match wrong {
                    Wrong::DecoupledDecay => {
                        p *= 1.0 - s.lr * s.weight_decay;
                        grad
                    }
                    _ => grad + &p * s.weight_decay,
                };
                m[i] = &m[i] * s.betas.0 + &grad * (1.0 - s.betas.0);
                v[i] = &v[i] * s.betas.1 + grad.square() * (1.0 - s.betas.1);
                let c1 = 1.0 - s.betas.0.powi(steps[i]);
                let c2 = 1.0 - s.betas.1.powi(steps[i]);
                let c1 = if wrong == Wrong::NoBiasCorrection { 1.0 } else { c1 };
                let root = match wrong {
                    Wrong::EpsInsideTheRoot => (&v[i] / c2 + s.eps).sqrt(),
                    _ => (&v[i] / c2).sqrt() + s.eps,
                };
                p -= &m[i] / root * (s.lr / c1);
            }
        })
    }
}

#[test]
fn fixture_trajectories_reject_wrong_adams() {
    for r in Recording::all() {
        let adams = r.fixture["trajectories"].as_array().unwrap().iter().filter(|t| t["optimizer"] == "adam");
        let mut rejected: HashMap<String, usize> = HashMap::new();
        for t in adams {
            let harness = worst(&r, t, &plain(Wrong::Nothing));
            assert!(harness < 1.0, "the plain formula, {} lr {}: {harness:.2}", t["dtype"], t["lr"]);
            let decays = t["weight_decay"].as_f64().unwrap() > 0.0;
            for wrong in
                [Wrong::EpsInsideTheRoot, Wrong::NoBiasCorrection, Wrong::DecoupledDecay, Wrong::CountsEmptySteps]
            {
                if wrong == Wrong::DecoupledDecay && !decays {
                    continue;
                }
                let off = worst(&r, t, &plain(wrong));
                assert!(off > 10.0, "{wrong:?} passes on {} lr {}: {off:.2}", t["dtype"], t["lr"]);
                *rejected.entry(format!("{wrong:?}")).or_default() += 1;
            }
        }
        println!("rejected: {rejected:?}");
        assert_eq!(rejected.len(), 4);
    }
}

/// State saved after step 73 and taken up by a fresh optimizer on copied parameters: the rest is bit for bit the same.
#[test]
fn fixture_trajectories_continue_from_a_saved_state() {
    for r in Recording::all() {
        for t in r.fixture["trajectories"].as_array().unwrap() {
            let kind = if t["dtype"] == "float32" { Kind::Float } else { Kind::Double };
            let (method, settings) = settings(t);
            let mut drive = Drive::new(&r, kind);
            let mut adam = Adam::new(method, settings, drive.named()).unwrap();
            let (mut other, mut resumed) = (Drive::new(&r, kind), None);
            for step in 1..=r.steps {
                drive.set_gradients(step);
                adam.step().unwrap();
                if step == 73 {
                    tch::no_grad(|| other.params.iter_mut().zip(&drive.params).for_each(|(a, b)| a.copy_(b)));
                    let state: HashMap<String, Tensor> = adam.state().into_iter().map(|(n, t)| (n, t.copy())).collect();
                    let mut fresh = Adam::new(method, settings, other.named()).unwrap();
                    fresh.restore(|name| state.get(name).map(Tensor::shallow_clone)).unwrap();
                    // a state with something missing is refused by name
                    let e = fresh.restore(|n| state.get(n).filter(|_| !n.ends_with("sq")).map(Tensor::shallow_clone));
                    assert!(e.unwrap_err().to_string().contains("exp_avg_sq"));
                    fresh.restore(|name| state.get(name).map(Tensor::shallow_clone)).unwrap();
                    resumed = Some(fresh);
                } else if let Some(resumed) = &mut resumed {
                    other.set_gradients(step);
                    resumed.step().unwrap();
                }
            }
            assert_eq!(drive.flat(), other.flat(), "{} {}", t["optimizer"], t["dtype"]);
        }
    }
}

/// After `zero_grad` a parameter that no backward reaches is left alone, moments and step count too, as in PyTorch.
#[test]
fn forgotten_gradients_are_no_gradients() {
    let leaf = |x: f64| Tensor::from_slice(&[x, -x]).set_requires_grad(true);
    let (p, q) = (leaf(1.0), leaf(2.0));
    let mut adam = Adam::new(Method::Adam, Settings::default(), [("p", &p), ("q", &q)]).unwrap();
    (&p * &q).sum(Kind::Double).backward();
    adam.step().unwrap();
    adam.zero_grad();
    assert!(!p.grad().defined() && !q.grad().defined());
    let (before, state) = (p.detach().copy(), adam.state().iter().map(|(_, t)| t.copy()).collect::<Vec<_>>());
    q.square().sum(Kind::Double).backward();
    adam.step().unwrap();
    assert_eq!(p.detach(), before);
    let after = adam.state();
    assert!(after[..3].iter().zip(&state).all(|((_, a), b)| a == b), "p's moments moved");
    assert!(after[3..].iter().zip(&state[3..]).all(|((_, a), b)| a != b), "q's did not");
}

/// Second moments that are 0, too small to be normal, or normal, beside each other: the root is libtorch's at each of them, to the
/// last bit. A gradient of 1e-24 leaves a first moment and, squared, nothing.
#[test]
fn roots_of_all_second_moments_are_libtorchs() {
    let n = 70_000; // more than one block
    let kinds = [0.0f32, 1e-24, 3e-20, 1e-3, 0.7];
    let grad: Vec<f32> = (0..n).map(|i| kinds[i % 5] * (1.0 + i as f32 / n as f32)).collect();
    let grad = Tensor::from_slice(&grad);
    for eps in [1e-8, 1e-30] {
        let p = grad.ones_like().set_requires_grad(true);
        let settings = Settings { eps, ..Settings::default() };
        let mut adam = Adam::new(Method::Adam, settings, [("p", &p)]).unwrap();
        for t in 1..=3 {
            let before = p.detach().copy();
            adam.zero_grad();
            (&p * &grad).sum(Kind::Float).backward();
            adam.step().unwrap();
            let state: HashMap<String, Tensor> = adam.state().into_iter().collect();
            let (m, v) = (&state["p.exp_avg"], &state["p.exp_avg_sq"]);
            let share = |b: Tensor| b.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
            assert!(share(v.eq(0.0)) > 0.3 && share(v.eq(0.0).logical_and(&m.ne(0.0))) > 0.1);
            assert!(share(v.gt(0.0).logical_and(&v.lt(1.2e-38))) > 0.1);
            let (c1, c2) = (1.0 - 0.9f64.powi(t), 1.0 - 0.999f64.powi(t));
            let want = before + (m * (-1e-3 / c1)) / (v.sqrt() / c2.sqrt() + eps);
            assert_eq!(p.detach(), want, "eps {eps}, step {t}");
        }
    }
}

#[test]
fn bad_settings_are_refused() {
    let p = Tensor::zeros([2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    let refused = |s: Settings, word: &str| {
        let text = Adam::new(Method::Adam, s, [("p", &p)]).unwrap_err().to_string();
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    };
    for lr in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(Settings { lr, ..Settings::default() }, "--lr must be positive and finite");
    }
    for b in [-0.1, 1.0, f64::NAN] {
        refused(Settings { betas: (b, 0.999), ..Settings::default() }, "betas must be in [0, 1)");
        refused(Settings { betas: (0.9, b), ..Settings::default() }, "betas must be in [0, 1)");
    }
    refused(Settings { eps: -1.0, ..Settings::default() }, "eps");
    refused(Settings { weight_decay: f64::NAN, ..Settings::default() }, "weight decay");
}

// ---- SGD.

fn sgd_settings(t: &Value) -> sgd::Settings {
    let number = |key: &str| t[key].as_f64().unwrap();
    let nesterov = t["nesterov"].as_bool().unwrap();
    sgd::Settings { lr: number("lr"), momentum: number("momentum"), nesterov, weight_decay: number("weight_decay") }
}

/// Largest difference from the recording over the saved steps, in units of the last place of what is larger there.
fn worst_sgd(r: &Recording, t: &Value, settings: sgd::Settings) -> f64 {
    let (kind, eps) = match t["dtype"].as_str().unwrap() {
        "float32" => (Kind::Float, f32::EPSILON as f64),
        _ => (Kind::Double, f64::EPSILON),
    };
    let want = unpack(&t["params"], kind, &[r.saved.len() as i64, r.width]);
    let mut drive = Drive::new(r, kind);
    let mut sgd = Sgd::new(settings, drive.named()).unwrap();
    let mut worst = 0.0f64;
    for step in 1..=r.steps {
        drive.set_gradients(step);
        sgd.step().unwrap();
        let Some(at) = r.saved.iter().position(|&s| s == step) else { continue };
        let (want, have) = (want.get(at as i64).to_kind(Kind::Double), drive.flat().to_kind(Kind::Double));
        let off = (have - &want).abs() / (want.abs() * eps).clamp_min(f64::MIN_POSITIVE);
        worst = worst.max(off.max().double_value(&[]));
    }
    worst
}

/// Whether our loop and PyTorch's both fuse multiplication and addition; elsewhere the last bit is the compiler's.
fn fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[test]
fn fixture_trajectories_of_sgd() {
    let mut cases = 0;
    for r in Recording::all() {
        for t in r.fixture["sgd"].as_array().into_iter().flatten() {
            let settings = sgd_settings(t);
            let off = worst_sgd(&r, t, settings);
            if fused() {
                assert_eq!(off, 0.0, "{settings:?} {}: not PyTorch's last bit", t["dtype"]);
            } else {
                // 200 roundings to either side
                assert!(off < 400.0, "{settings:?} {}: {off}", t["dtype"]);
            }
            // one setting changed at a time is seen at once
            let wrongs = [
                sgd::Settings { momentum: settings.momentum * 0.99 + 1e-3, ..settings },
                sgd::Settings {
                    nesterov: !settings.nesterov && settings.momentum > 0.0,
                    momentum: settings.momentum.max(0.1),
                    ..settings
                },
                sgd::Settings { weight_decay: settings.weight_decay + 1e-3, ..settings },
                sgd::Settings { lr: settings.lr * 1.001, ..settings },
            ];
            for wrong in wrongs {
                assert!(worst_sgd(&r, t, wrong) > 1000.0, "{wrong:?} passes for {settings:?}");
            }
            cases += 1;
        }
    }
    println!("fixture optim-trajectories: {cases} cases of SGD");
    assert!(cases >= 8);
}

/// State saved after step 73 and taken up by a fresh optimizer on copied parameters: the rest is bit for bit the same.
#[test]
fn sgd_continues_from_a_saved_state() {
    for r in Recording::all() {
        let settings = sgd::Settings::nesterov(1e-2);
        let (mut drive, mut other) = (Drive::new(&r, Kind::Float), Drive::new(&r, Kind::Float));
        let mut sgd = Sgd::new(settings, drive.named()).unwrap();
        let mut resumed = Sgd::new(settings, other.named()).unwrap();
        for step in 1..=r.steps {
            drive.set_gradients(step);
            sgd.step().unwrap();
            if step == 73 {
                tch::no_grad(|| other.params.iter_mut().zip(&drive.params).for_each(|(a, b)| a.copy_(b)));
                let state: HashMap<String, Tensor> = sgd.state().into_iter().map(|(n, t)| (n, t.copy())).collect();
                let e = resumed.restore(|n| state.get(n).filter(|_| n != "jumps.momentum_buffer").map(Tensor::copy));
                assert!(e.unwrap_err().to_string().contains("jumps.momentum_buffer"));
                resumed.restore(|n| state.get(n).map(Tensor::shallow_clone)).unwrap();
            } else if step > 73 {
                other.set_gradients(step);
                resumed.step().unwrap();
            }
        }
        assert_eq!(drive.flat(), other.flat());
    }
}

#[test]
fn bad_settings_of_sgd_are_refused() {
    let p = Tensor::zeros([2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    let good = sgd::Settings::nesterov(0.1);
    for (bad, words) in [
        (sgd::Settings { lr: 0.0, ..good }, "--lr must be positive and finite, got 0"),
        (sgd::Settings { lr: f64::NAN, ..good }, "--lr must be positive"),
        (sgd::Settings { momentum: 1.0, ..good }, "momentum must be in [0, 1), got 1"),
        (sgd::Settings { momentum: 0.0, ..good }, "Nesterov"),
        (sgd::Settings { weight_decay: -1.0, ..good }, "weight decay must be at least 0"),
    ] {
        let text = Sgd::new(bad, [("p", &p)]).unwrap_err().to_string();
        assert!(text.contains(words), "{text:?} does not say {words:?}");
    }
}

// ---- The search for a learning rate.

fn function(name: &str) -> fn(f64) -> f64 {
    match name {
        "parabola" => |x| (x + 2.0).powi(2),
        "kink" => |x| (x + 1.3).abs(),
        "edge" => |x| x,
        "double" => |x| (x + 1.0).powi(2) * (x + 5.0).powi(2) + x,
        "rate" => |x| if x < -0.9 { 2.3 - 1.5 * (-(x + 1.6).powi(2)).exp() } else { f64::INFINITY },
        "flat" => |_| 1.0,
        other => panic!("function {other} is not known here"),
    }
}

/// The points asked for, and the result.
fn search(f: fn(f64) -> f64, evaluations: usize) -> (Vec<f64>, thruway::optim::bounded::Minimum) {
    let mut points = vec![];
    let found = minimize_bounded((-6.0, 0.0), evaluations, 1e-5, |x| {
        points.push(x);
        Ok(f(x))
    });
    (points, found.unwrap())
}

#[test]
fn fixture_bounded_search_asks_the_points_of_scipy() {
    let files = fixture_files().into_iter().map(|p| read(&p)).filter(|f| f["format"] == "bounded-search-1");
    let mut cases = 0;
    for s in files.flat_map(|f| f["searches"].as_array().unwrap().clone()) {
        let (points, found) =
            search(function(s["function"].as_str().unwrap()), s["maxiter"].as_u64().unwrap() as usize);
        let want: Vec<f64> = s["points"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(points.len(), want.len(), "{}", s["function"]);
        // rounding differs, and a parabola through points 1e-5 apart magnifies it: eps * f / (1e-5)^2 * 1e-5 is 2e-11
        for (i, (have, want)) in points.iter().zip(&want).enumerate() {
            assert!((have - want).abs() < 1e-9, "{} point {i}: {have}, SciPy {want}", s["function"]);
        }
        assert!((found.x - s["x"].as_f64().unwrap()).abs() < 1e-9);
        assert_eq!(found.converged, (want.len() as u64) < s["maxiter"].as_u64().unwrap());
        cases += 1;
    }
    println!("fixture bounded-search: {cases} cases");
    assert!(cases >= 12);
}

#[test]
fn bounded_search_survives_what_is_no_number_and_refuses_nonsense() {
    let (points, found) = search(|x| if x > -3.0 { f64::NAN } else { x.powi(2) }, 40);
    assert!(points.iter().all(|x| (-6.0..0.0).contains(x)));
    assert!((found.x + 3.0).abs() < 1e-3 && found.value < 9.01, "{found:?}");
    let (points, found) = search(|_| f64::INFINITY, 10);
    assert!(points.len() == 10 && found.value == f64::INFINITY && points.iter().all(|x| (-6.0..0.0).contains(x)));
    // one evaluation is the golden section of the bounds
    assert_eq!(search(|x| x, 1).0, [-6.0 + 6.0 * 0.5 * (3.0 - 5f64.sqrt())]);
    let refused = |bounds, n, tol| minimize_bounded(bounds, n, tol, Ok).unwrap_err().to_string();
    assert!(refused((0.0, 0.0), 10, 1e-5).contains("bounds must be finite"));
    assert!(refused((0.0, f64::INFINITY), 10, 1e-5).contains("bounds must be finite"));
    assert!(refused((0.0, 1.0), 0, 1e-5).contains("evaluations must be at least 1"));
    assert!(refused((0.0, 1.0), 10, 0.0).contains("tolerance must be positive"));
    let stopped = minimize_bounded((0.0, 1.0), 10, 1e-5, |_| Err(Error::Interrupted)).unwrap_err();
    assert!(matches!(stopped, Error::Interrupted), "an error of the function ends the search");
}
