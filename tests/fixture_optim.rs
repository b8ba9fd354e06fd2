//! Adam and RAdam against PyTorch's over 200 steps (`optim-trajectories-1`, recorded by tests/parity/record_optim.py).
mod common;
use common::{fixture_files, read, unpack};
use serde_json::Value;
use std::collections::HashMap;
use tch::{Kind, Tensor};
use thruway::optim::{Adam, Method, Settings};

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
