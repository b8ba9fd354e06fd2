//! What the estimators claim, by enumeration in float64 and, where the noise is continuous, by z-scores.
//!
//! The paper's forms, the exact gradient and the states are written out here in loops over plain numbers: nothing of the
//! crate but the estimators themselves takes part. Each check also runs on a wrong estimator, which it must reject.
mod common;
use common::normals;
use std::cell::Cell;
use tch::{Kind, Tensor};
use thruway::Result;
use thruway::dist::categorical::Point;
use thruway::estimators::{DropIn, Estimator, ExactOn, GradEstimator, Knobs, NoiseKind, Surrogate, Tau, Vjp};
use thruway::noise::{HostNoise, Noise, Tape};

/// Enumeration sums some hundred products of numbers of order 1 to 100; 1e-10 of the largest is what the project asks.
const TOLERANCE: f64 = 1e-10;

/// A random polynomial of exactly this degree in all L K entries of a state: `sum_r c_r (w_r . x)^n` over every power up to
/// the degree, six random directions w a power. It is not multilinear, so it has curvature along every axis.
struct Polynomial {
    directions: Vec<(i64, Tensor)>,
    width: i64,
}

impl Polynomial {
    fn new(degree: i64, l: i64, k: i64, seed: u64) -> Self {
        let width = l * k;
        let direction = |n: i64| (n, normals(&[width, 6], Kind::Double, seed * 16 + n as u64) / (l as f64).sqrt());
        Polynomial { directions: (1..=degree).map(direction).collect(), width }
    }

    /// Values of states `[.., L, K]` -> `[..]`.
    fn at(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let x = x.reshape([-1, self.width]);
        let terms = self
            .directions
            .iter()
            .map(|(n, w)| x.matmul(w).pow_tensor_scalar(*n).sum_dim_intlist(-1, false, Kind::Double));
        terms.reduce(|a, b| a + b).unwrap().view(&size[..size.len() - 2])
    }

    fn objective(&self) -> impl Fn(&Tensor) -> Result<Tensor> {
        |x| Ok(self.at(x))
    }
}

/// One problem: logits and f, with everything enumerated as plain numbers.
struct Problem {
    l: usize,
    k: usize,
    f: Polynomial,
    theta: Tensor,
    /// `pi[l][k]`
    pi: Vec<Vec<f64>>,
    /// The class of each variable, of every state.
    states: Vec<Vec<usize>>,
    value: Vec<f64>,
    /// `df/dx` at every state, `[l * k + class]`.
    slope: Vec<Vec<f64>>,
}

impl Problem {
    fn new(degree: i64, l: usize, k: usize, seed: u64) -> Self {
        let (li, ki) = (l as i64, k as i64);
        let f = Polynomial::new(degree, li, ki, seed);
        let theta = normals(&[li, ki], Kind::Double, seed + 1000).clamp(-2.0, 2.0);
        let pi = (0..li)
            .map(|i| {
                let e: Vec<f64> = (0..ki).map(|j| theta.double_value(&[i, j]).exp()).collect();
                let total: f64 = e.iter().sum();
                e.into_iter().map(|e| e / total).collect()
            })
            .collect();
        let states: Vec<Vec<usize>> = (0..k.pow(l as u32))
            .map(|s| (0..l).scan(s, |rest, _| Some(std::mem::replace(rest, *rest / k) % k)).collect())
            .collect();
        let flat: Vec<i64> = states.iter().flatten().map(|&c| c as i64).collect();
        let x = Tensor::from_slice(&flat).view([-1, li]).one_hot(ki).to_kind(Kind::Double).set_requires_grad(true);
        let value = f.at(&x);
        value.sum(Kind::Double).backward();
        let slope = Vec::<Vec<f64>>::try_from(x.grad().view([-1, li * ki])).unwrap();
        Problem { l, k, f, theta, pi, states, value: Vec::try_from(value.detach()).unwrap(), slope }
    }

    fn p(&self, state: &[usize]) -> f64 {
        state.iter().zip(&self.pi).map(|(&c, pi)| pi[c]).product()
    }

    /// The state with variable `l` in class `c`, by number.
    fn with(&self, state: &[usize], l: usize, c: usize) -> usize {
        (0..self.l).rev().fold(0, |n, i| n * self.k + if i == l { c } else { state[i] })
    }

    /// `dE f / d theta = sum_s p(s) f(s) (s - pi)`.
    fn exact(&self) -> Vec<f64> {
        let mut g = vec![0.0; self.l * self.k];
        for (s, state) in self.states.iter().enumerate() {
            for l in 0..self.l {
                for j in 0..self.k {
                    let hit = f64::from(state[l] == j);
                    g[l * self.k + j] += self.p(state) * self.value[s] * (hit - self.pi[l][j]);
                }
            }
        }
        g
    }

    /// Definitions 3.1 and 3.2 for each variable, the others averaged over: `sum_i sum_j pi_j a_ij (I_i - I_j) d pi_i /
    /// d theta` with `a_ij` = df/dx at `I_j` (Euler) or the mean of df/dx at `I_i` and `I_j` (Heun).
    fn form(&self, heun: bool) -> Vec<f64> {
        let mut g = vec![0.0; self.l * self.k];
        for l in 0..self.l {
            let pi = &self.pi[l];
            for state in self.states.iter().filter(|s| s[l] == 0) {
                let others = self.p(state) / pi[0];
                for i in 0..self.k {
                    for j in 0..self.k {
                        let (at_i, at_j) = (&self.slope[self.with(state, l, i)], &self.slope[self.with(state, l, j)]);
                        // along I_i - I_j: entry i less entry j of this variable's slope
                        let along = |slope: &[f64]| slope[l * self.k + i] - slope[l * self.k + j];
                        let step = if heun { 0.5 * (along(at_i) + along(at_j)) } else { along(at_j) };
                        for m in 0..self.k {
                            let d_pi = pi[i] * (f64::from(i == m) - pi[m]);
                            g[l * self.k + m] += others * pi[j] * step * d_pi;
                        }
                    }
                }
            }
        }
        g
    }

    /// Mean of an estimator whose noise is the draw alone: every state once, as a batch.
    fn mean(&self, e: &dyn GradEstimator) -> Vec<f64> {
        let (s, l, k) = (self.states.len() as i64, self.l as i64, self.k as i64);
        let index: Vec<i64> = self.states.iter().flatten().map(|&c| c as i64).collect();
        let leaf = self.theta.expand([s, l, k], false).contiguous().set_requires_grad(true);
        let mut tape = Tape::new([("index", Tensor::from_slice(&index))]);
        let loss = e.surrogate_loss(&leaf, &self.f.objective(), &mut tape).unwrap();
        tape.finish().unwrap();
        loss.sum(Kind::Double).backward();
        let p: Vec<f64> = self.states.iter().map(|s| self.p(s)).collect();
        let weighted = leaf.grad().view([s, l * k]) * Tensor::from_slice(&p).unsqueeze(-1);
        Vec::try_from(weighted.sum_dim_intlist(0, false, Kind::Double)).unwrap()
    }
}

/// Largest difference of two gradients, over the largest entry of the second.
fn off(got: &[f64], want: &[f64]) -> f64 {
    let scale = want.iter().fold(0.0f64, |m, w| m.max(w.abs()));
    got.iter().zip(want).fold(0.0f64, |m, (g, w)| m.max((g - w).abs())) / scale
}

/// Degrees 1 to 4 on several sizes.
fn problems() -> Vec<(String, Problem)> {
    let mut all = vec![];
    for (i, (l, k)) in [(1, 2), (1, 5), (2, 3), (3, 2), (3, 4), (2, 6)].into_iter().enumerate() {
        for degree in 1..=4 {
            all.push((format!("degree {degree}, L {l}, K {k}"), Problem::new(degree, l, k, 10 * i as u64 + 1)));
        }
    }
    all
}

fn build(e: Estimator, tau: Option<f64>) -> thruway::estimators::Built {
    e.build(&Knobs { tau: tau.map(Tau::Constant), ..Knobs::default() }).unwrap()
}

/// An estimator whose gradient is another's times a factor.
struct Scaled(Box<dyn DropIn>, f64);

impl DropIn for Scaled {
    fn point(&self, logits: &Tensor, mask: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Point> {
        self.0.point(logits, mask, noise)
    }
    fn surrogate(&self, point: &Point, noise: &mut dyn Noise) -> Result<Surrogate> {
        let Surrogate { relaxed, vjp } = self.0.surrogate(point, noise)?;
        let factor = self.1;
        let vjp = Vjp::Sample(Box::new(move |g, v| match &vjp {
            Vjp::Sample(vjp) => Ok(vjp(g, v)? * factor),
            Vjp::Both(vjp) => Ok(vjp(g, None)? * factor),
        }));
        Ok(Surrogate { relaxed, vjp })
    }
}

/// The uniform-baseline ReinMax as published: `1/2 [(g_D - mean g)(D - p) + p * g * D - p (p . g)]`, where the derivation
/// has `J(p) g / (K p_D)` for the second term.
struct PublishedBaseline;

impl DropIn for PublishedBaseline {
    fn surrogate(&self, point: &Point, _: &mut dyn Noise) -> Result<Surrogate> {
        let p = point.probs.shallow_clone();
        Surrogate::hard(move |g, d| {
            let sum = |t: Tensor| t.sum_dim_intlist(-1, true, Kind::Double);
            let first = (sum(g * d) - g.mean_dim(-1, true, Kind::Double)) * (d - &p);
            Ok((first + g * &p * d - &p * sum(g * &p)) * 0.5)
        })
    }
}

#[test]
fn straight_through_is_the_first_order_form() {
    for (name, p) in problems() {
        let error = off(&p.mean(&build(Estimator::St, None)), &p.form(false));
        assert!(error < TOLERANCE, "{name}: off by {error:e}");
        let wrong = off(&p.mean(&build(Estimator::St, Some(2.0))), &p.form(false));
        assert!(wrong > 1e-3, "{name}: tau 2 passes for first order ({wrong:e})");
    }
}

#[test]
fn reinmax_is_the_second_order_form() {
    for (name, p) in problems() {
        let (form, mean) = (p.form(true), |e: &dyn GradEstimator| p.mean(e));
        let error = off(&mean(&build(Estimator::Reinmax, None)), &form);
        assert!(error < TOLERANCE, "{name}: off by {error:e}");
        let scaled = Scaled(build(Estimator::Reinmax, None).drop_in().unwrap(), 1.01);
        let wrong = off(&mean(&scaled), &form);
        assert!(wrong > 1e-3, "{name}: 1.01 times the gradient passes ({wrong:e})");
        let wrong = off(&mean(&build(Estimator::Reinmax, Some(1.5))), &form);
        assert!(wrong > 1e-4, "{name}: tau 1.5 passes ({wrong:e})");
    }
}

/// The baseline of Section 4.1 in the derived form: exact on quadratics as ReinMax is, the published code is not.
#[test]
fn the_uniform_baseline_is_exact_on_quadratics_and_the_published_code_is_not() {
    for (name, p) in problems().into_iter().filter(|(n, _)| n.starts_with("degree 2")) {
        let exact = p.exact();
        for e in [Estimator::Reinmax, Estimator::ReinmaxBaseline] {
            let error = off(&p.mean(&build(e, None)), &exact);
            assert!(error < TOLERANCE, "{} on {name}: off by {error:e}", e.name());
        }
        let published = off(&p.mean(&PublishedBaseline), &exact);
        println!("published baseline on {name}: off by {published:.2}");
        assert!(published > 0.1, "{name}: the published baseline passes ({published:e})");
    }
}

/// Every claim of the registry holds up to its degree and fails one degree higher, or the test would have no teeth.
#[test]
fn claims_of_exactness_hold_and_end_where_they_say() {
    let mut finite = 0;
    for &e in Estimator::ALL.iter().filter(|e| e.claims().noise == NoiseKind::Finite) {
        finite += 1;
        for (l, k) in [(1, 5), (2, 3), (3, 2), (3, 4)] {
            for degree in 1..=4u32 {
                let p = Problem::new(degree as i64, l, k, 7 * degree as u64 + l as u64);
                // the oracle first: in the crate and in this file
                let ours = Vec::<f64>::try_from(
                    thruway::exact::gradient(&p.theta.unsqueeze(0), &p.f.objective()).unwrap().view([-1]),
                );
                assert!(off(&ours.unwrap(), &p.exact()) < TOLERANCE, "the oracles disagree");
                let error = off(&p.mean(&build(e, None)), &p.exact());
                let claimed = match e.claims().exact_on {
                    ExactOn::Everything => true,
                    ExactOn::Degree(n) => degree <= n,
                    ExactOn::Nothing => false,
                };
                let at = format!("{} on degree {degree}, L {l}, K {k}: off by {error:e}", e.name());
                match claimed {
                    true => assert!(error < TOLERANCE, "{at}, claimed exact"),
                    // nothing is said two degrees above, but random polynomials are not exact by luck
                    false => assert!(error > 1e-3, "{at}, and that is not claimed"),
                }
            }
        }
    }
    assert!(finite >= 6, "{finite} estimators with finite noise");
}

/// On the simplex `sum_k x_k = 1`: constant, with a constant upstream gradient. Everyone must give nothing.
#[test]
fn constants_have_no_gradient() {
    for &e in Estimator::ALL {
        let leaf = normals(&[50, 2, 5], Kind::Double, 1).set_requires_grad(true);
        let f = |x: &Tensor| Ok(x.sum_dim_intlist([-2i64, -1].as_slice(), false, Kind::Double) * 3.0);
        let loss = build(e, None).surrogate_loss(&leaf, &f, &mut HostNoise::new(1)).unwrap();
        loss.sum(Kind::Double).backward();
        // rounding alone: the baseline variant divides it by p_D
        assert!(common::largest(&leaf.grad()) < 1e-12, "{}: {}", e.name(), leaf.grad());
    }
}

/// The number of evaluations of f is part of the claim.
#[test]
fn evaluations_of_f_are_as_claimed() {
    let (l, k) = (3i64, 4i64);
    for &e in Estimator::ALL {
        let count = Cell::new(0);
        let f = |x: &Tensor| {
            assert_eq!(&x.size()[1..], [1, l, k]);
            count.set(count.get() + x.size()[0]);
            Ok(x.sum_dim_intlist([-2i64, -1].as_slice(), false, Kind::Double))
        };
        let leaf = normals(&[1, l, k], Kind::Double, 1).set_requires_grad(true);
        let _ = build(e, None).surrogate_loss(&leaf, &f, &mut HostNoise::new(1)).unwrap();
        let claimed = match e.claims().f_evals {
            "1" => 1,
            "K^L + 1" => k.pow(l as u32) + 1,
            other => panic!("{}: a claim this test does not know: {other}", e.name()),
        };
        assert_eq!(count.get(), claimed, "{}", e.name());
    }
}

/// An estimator that needs no derivative of f must not use one.
#[test]
fn the_derivative_of_f_is_used_where_claimed() {
    for &e in Estimator::ALL {
        let leaf = normals(&[2, 2, 3], Kind::Double, 1).set_requires_grad(true);
        // rounding has no derivative, so only differences of f can give a gradient
        let weights = normals(&[2, 3], Kind::Double, 2) * 10.0;
        let f = |x: &Tensor| Ok((x.detach() * &weights).sum_dim_intlist([-2i64, -1].as_slice(), false, Kind::Double));
        let loss = build(e, None).surrogate_loss(&leaf, &f, &mut HostNoise::new(1)).unwrap();
        assert_eq!(loss.requires_grad(), !e.claims().needs_grad_f, "{}", e.name());
    }
}
