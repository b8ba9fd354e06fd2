//! What the estimators claim, by enumeration in float64 and, where the noise is continuous, by z-scores.
//!
//! The paper's forms, the exact gradient and the states are written out here in loops over plain numbers: nothing of the
//! crate but the estimators themselves takes part. Each check also runs on a wrong estimator, which it must reject.
mod common;
use common::{normals, perturb, sizes};
use std::cell::Cell;
use tch::{Device, Kind, Tensor};
use thruway::Result;
use thruway::dist::bernoulli::Code;
use thruway::dist::categorical::Point;
use thruway::estimators::{
    BooleanDropIn, DropIn, Estimator, ExactOn, GradEstimator, Knobs, NoiseKind, Surrogate, Takes, Tau, TwoClasses, Vjp,
};
use thruway::noise::{HostNoise, Noise, Race, Tape};

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
    let finite_ones = |e: &&Estimator| e.claims().noise == NoiseKind::Finite && e.claims().variables == Takes::Both;
    for &e in Estimator::ALL.iter().filter(finite_ones) {
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
                    ExactOn::Bound => false,
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
    // one draw multiplies its score by what the baseline leaves of the constant: only the mean is zero
    let categorical =
        |e: &&Estimator| e.claims().variables == Takes::Both && !matches!(e, Estimator::Reinforce | Estimator::Nvil);
    for &e in Estimator::ALL.iter().filter(categorical) {
        let leaf = normals(&[50, 2, 5], Kind::Double, 1).set_requires_grad(true);
        let f = |x: &Tensor| Ok(x.sum_dim_intlist([-2i64, -1].as_slice(), false, Kind::Double) * 3.0);
        let loss = build(e, None).surrogate_loss(&leaf, &f, &mut HostNoise::new(1)).unwrap();
        loss.sum(Kind::Double).backward();
        // rounding alone: the baseline variant divides it by p_D
        assert!(common::largest(&leaf.grad()) < 1e-12, "{}: {}", e.name(), leaf.grad());
    }
}

/// The number of evaluations of f is part of the claim, on either kind of variables.
#[test]
fn evaluations_of_f_are_as_claimed() {
    let l = 3i64;
    for (e, code) in both_kinds() {
        let claims = e.claims();
        let k = if code.is_some() { 2 } else { 4 };
        let all_samples: &[Option<i64>] = if claims.knobs.contains(&"samples") { &[Some(2), Some(4)] } else { &[None] };
        for &samples in all_samples.iter().filter(|_| e != Estimator::GumbelRao) {
            let count = Cell::new(0);
            let f = |x: &Tensor| {
                let want: &[i64] = if code.is_some() { &[2, l] } else { &[2, l, k] };
                assert_eq!(&x.size()[1..], want);
                count.set(count.get() + x.size()[0]);
                Ok(sum_of(x, code.is_some()))
            };
            let size: &[i64] = if code.is_some() { &[2, l] } else { &[2, l, k] };
            let leaf = normals(size, Kind::Double, 1).set_requires_grad(true);
            let built = e.build(&Knobs { samples, code, sizes: sizes(l), ..Knobs::default() }).unwrap();
            let _ = built.surrogate_loss(&leaf, &f, &mut HostNoise::new(1)).unwrap();
            let m = samples.unwrap_or(1);
            let claimed = match claims.f_evals {
                "M" => m,
                "K^L + 1" => k.pow(l as u32) + 1,
                "M (1 + L (K - 1))" => m * (1 + l * (k - 1)),
                number => number.parse().unwrap_or_else(|_| panic!("{}: an unknown claim: {number}", e.name())),
            };
            assert_eq!(count.get(), claimed, "{} {code:?} {samples:?}", e.name());
        }
    }
}

/// Every estimator with every kind of variables it takes.
fn both_kinds() -> Vec<(Estimator, Option<Code>)> {
    let all = [None, Some(Code::ZeroOne), Some(Code::PlusMinus)];
    let takes = |e: Estimator| move |code: &Option<Code>| code.is_some() || e.claims().variables == Takes::Both;
    Estimator::ALL.iter().flat_map(|&e| all.into_iter().filter(takes(e)).map(move |c| (e, c))).collect()
}

fn sum_of(x: &Tensor, boolean: bool) -> Tensor {
    let dims: &[i64] = if boolean { &[-1] } else { &[-2, -1] };
    x.sum_dim_intlist(dims, false, Kind::Double)
}

/// An estimator that needs no derivative of f must not use one: it gives the same where f has none.
#[test]
fn the_derivative_of_f_is_used_where_claimed() {
    for (e, code) in both_kinds() {
        let size: &[i64] = if code.is_some() { &[2, 4] } else { &[2, 2, 3] };
        let weights = normals(&size[1..], Kind::Double, 2) * 10.0;
        let grad = |with: bool| {
            let leaf = normals(size, Kind::Double, 1).set_requires_grad(true);
            let f = |x: &Tensor| {
                let x = if with { x.shallow_clone() } else { x.detach() };
                Ok(sum_of(&(x * &weights), code.is_some()).square())
            };
            let built = e.build(&Knobs { code, sizes: sizes(4), ..Knobs::default() }).unwrap();
            perturb(&built, 1); // control variates that start at 0 have no derivative to show
            let loss = built.surrogate_loss(&leaf, &f, &mut HostNoise::new(1)).unwrap();
            if !loss.requires_grad() {
                return leaf.zeros_like();
            }
            loss.sum(Kind::Double).backward();
            leaf.grad()
        };
        assert_eq!(grad(true) == grad(false), !e.claims().needs_grad_f, "{} {code:?}", e.name());
    }
}

/// Answers every request so that given bits are drawn.
struct Given {
    /// Class 0 is the bit 1.
    class: Tensor,
    u: Tensor,
}

impl Noise for Given {
    fn uniform(&mut self, size: &[i64], _: Kind, _: Device) -> Result<Tensor> {
        Ok(self.u.reshape(size))
    }
    fn normal(&mut self, _: &[i64], _: Kind, _: Device) -> Result<Tensor> {
        panic!("no finite noise")
    }
    fn race(&mut self, rows: i64, _: i64, _: Kind, _: Device) -> Result<Race> {
        Ok(Race::Index(self.class.reshape([rows])))
    }
}

/// The same claims on Boolean variables, in both codes: two classes `(theta, 0)`, the gradient of the first.
#[test]
fn claims_of_exactness_hold_on_boolean_variables() {
    let mut seen = 0;
    for (e, code) in both_kinds() {
        let Some(code) = code.filter(|_| e.claims().noise == NoiseKind::Finite) else { continue };
        seen += 1;
        let built = e.build(&Knobs { code: Some(code), ..Knobs::default() }).unwrap();
        for (l, degree) in [(1, 1), (3, 1), (1, 2), (3, 2), (1, 3), (3, 3), (2, 4)] {
            let p = Problem::new(degree, l, 2, 7 * degree as u64 + l as u64);
            let (s, li) = (p.states.len() as i64, l as i64);
            let theta = p.theta.select(-1, 0) - p.theta.select(-1, 1);
            let class: Vec<i64> = p.states.iter().flatten().map(|&c| c as i64).collect();
            let class = Tensor::from_slice(&class).view([s, li]);
            let prob = theta.sigmoid();
            let u = (class.to_kind(Kind::Double) + &prob) * 0.5; // p / 2 for the bit 1, (1 + p) / 2 for 0
            let f = |x: &Tensor| {
                let bits = code.decode(x)?;
                Ok(p.f.at(&Tensor::stack(&[&bits, &(1.0 - &bits)], -1)))
            };
            let leaf = theta.expand([s, li], false).contiguous().set_requires_grad(true);
            let loss = built.surrogate_loss(&leaf, &f, &mut Given { class, u }).unwrap();
            loss.sum(Kind::Double).backward();
            let weights: Vec<f64> = p.states.iter().map(|s| p.p(s)).collect();
            let mean =
                (leaf.grad() * Tensor::from_slice(&weights).unsqueeze(-1)).sum_dim_intlist(0, false, Kind::Double);
            let exact: Vec<f64> = p.exact().into_iter().step_by(2).collect();
            let error = off(&Vec::try_from(mean).unwrap(), &exact);
            let at = format!("{} {code:?} on degree {degree}, L {l}: off by {error:e}", e.name());
            let claimed = match e.claims().exact_on {
                ExactOn::Everything => true,
                ExactOn::Degree(n) => degree <= n as i64,
                ExactOn::Bound => false,
                ExactOn::Nothing => false,
            };
            match claimed {
                true => assert!(error < TOLERANCE, "{at}, claimed exact"),
                false => assert!(error > 1e-3, "{at}, and that is not claimed"),
            }
        }
    }
    assert!(seen >= 16, "{seen} estimators with finite noise");
}

/// On Boolean variables at tau = 1 ReinMax is DARN, and native straight-through is that on two classes.
#[test]
fn reinmax_on_two_classes_is_darn() {
    let logits = normals(&[40, 6], Kind::Double, 1) * 2.0;
    let bits = normals(&[40, 6], Kind::Double, 2).gt(0.0).to_kind(Kind::Double);
    let weights = normals(&[6], Kind::Double, 3);
    let grad = |e: &dyn BooleanDropIn| {
        let leaf = logits.copy().set_requires_grad(true);
        let x = e.attach(&leaf, &bits, &mut HostNoise::new(1)).unwrap();
        assert_eq!(x.detach(), &bits * 2.0 - 1.0);
        (x * &weights).sum(Kind::Double).backward();
        leaf.grad()
    };
    let build = |e: Estimator, tau| {
        let tau = (e != Estimator::Darn).then_some(Tau::Constant(tau));
        let knobs = Knobs { code: Some(Code::PlusMinus), tau, ..Knobs::default() };
        grad(e.build(&knobs).unwrap().boolean().unwrap().as_ref())
    };
    let off = common::distance(&build(Estimator::Reinmax, 1.0), &build(Estimator::Darn, 1.0));
    assert!(off < 1e-15, "off by {off:e}"); // a handful of roundings of numbers below 1
    assert!(common::distance(&build(Estimator::Reinmax, 1.1), &build(Estimator::Darn, 1.0)) > 1e-2);
    for tau in [1.0, 2.0] {
        let st = Estimator::St.build(&Knobs { tau: Some(Tau::Constant(tau)), ..Knobs::default() }).unwrap();
        let two = TwoClasses::new(st.drop_in().unwrap(), Code::PlusMinus);
        let off = common::distance(&build(Estimator::St, tau), &grad(&two));
        assert!(off < 1e-15, "tau {tau}: off by {off:e}");
    }
}
