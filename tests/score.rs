//! Score-function, antithetic and control-variate estimators: no bias whatever they have learned, learned by the right
//! gradients, flips by rank-one updates.
//!
//! By chance a z-test here fails once in 150,000 a coordinate (|z| < 4.5 two-sided), 3 to 6 coordinates a test, about 110
//! tests: once in 300 choices of the seeds. All noise and every learned weight come from seeds of their own, so either never
//! or always. Those tests see errors of several percent; what the control variates of RODEO, Double CV and RLOO may hide
//! below that, the enumeration of all their draws sees.
#[path = "score_cases/all_draws.rs"]
mod all_draws;
mod common;
use common::stats::{Z_LIMIT, mean_and_variance, z_scores};
use common::{Recording, distance, largest, normals, perturb, sizes};
use tch::{Kind, Tensor};
use thruway::Result;
use thruway::dist::bernoulli::Code;
use thruway::estimators::{
    Built, Estimator, ExactOn, FirstLayer, GradEstimator, Knobs, Objective, Rest, Takes, Variables,
};
use thruway::exact;
use thruway::noise::{HostNoise, Noise, Tape};

/// An objective with a context, and derivatives off the code.
struct Problem {
    variables: Variables,
    /// `[L]` or `[L, K]`.
    theta: Tensor,
    which: usize,
    weights: Tensor,
}

impl Problem {
    fn new(code: Option<Code>, which: usize) -> Self {
        let size: &[i64] = if code.is_some() { &[3] } else { &[2, 3] };
        let seed = 40 + 10 * which as u64;
        let weights = normals(&[size.iter().product(), 3], Kind::Double, seed + 1);
        Problem {
            variables: Variables::of(code),
            theta: normals(size, Kind::Double, seed).clamp(-2.0, 2.0),
            which,
            weights,
        }
    }

    fn value(&self, indicators: &Tensor) -> Tensor {
        let lead = indicators.size()[..indicators.dim() - self.variables.axes()].to_vec();
        let a = indicators.reshape([-1, self.weights.size()[0]]).matmul(&self.weights);
        let [x, y, z] = [0, 1, 2].map(|i| a.select(-1, i));
        let f = match self.which {
            0 => &x * 2.0 + y.square() + z.pow_tensor_scalar(3) * 0.3,
            1 => (x * 3.0 + y.square()).softplus() * 2.0 - z,
            _ => (x * 1.5).sin() * 2.0 + (y * 0.5).exp() - &z * z.tanh(),
        };
        f.view(&lead[..])
    }

    fn exact(&self) -> Tensor {
        let g = |theta: &Tensor, pick: &dyn Fn(&Tensor) -> Tensor| {
            exact::gradient(&theta.unsqueeze(0), &|d: &Tensor| Ok(self.value(&pick(d)))).unwrap().squeeze_dim(0)
        };
        match self.variables {
            Variables::Categorical => g(&self.theta, &Tensor::shallow_clone).view([-1]),
            Variables::Boolean(_) => {
                let two = Tensor::stack(&[&self.theta, &self.theta.zeros_like()], -1);
                g(&two, &|d| d.select(-1, 0)).select(-1, 0)
            }
        }
    }

    fn leaf(&self, n: i64) -> Tensor {
        let size = [&[n], &self.theta.size()[..]].concat();
        self.theta.expand(size, false).contiguous().set_requires_grad(true)
    }
}

impl Objective for Problem {
    fn at(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self.variables {
            Variables::Categorical => self.value(x),
            Variables::Boolean(code) => self.value(&code.decode(x)?),
        })
    }

    /// Two numbers a row; as many rows as there are now.
    fn context(&self) -> Option<Tensor> {
        ROWS.with(|n| Some(normals(&[n.get(), 2], Kind::Double, 7)))
    }
}

thread_local! { static ROWS: std::cell::Cell<i64> = const { std::cell::Cell::new(0) }; }

/// `n` estimates of one gradient, `[n, coordinates]`, in batches.
fn estimates(e: &dyn GradEstimator, problem: &Problem, n: i64, seed: u64) -> Tensor {
    let batch = 4000.min(n);
    ROWS.with(|r| r.set(batch));
    let mut noise = HostNoise::new(seed);
    let all: Vec<Tensor> = (0..n / batch)
        .map(|_| {
            let leaf = problem.leaf(batch);
            let loss = e.surrogate_loss(&leaf, problem, &mut noise).unwrap();
            let total = loss.sum(Kind::Double);
            Tensor::run_backward(&[total], &[&leaf], false, false).remove(0).view([batch, -1])
        })
        .collect();
    Tensor::cat(&all, 0)
}

/// Largest |z| of the mean against the truth, and a line that says where.
fn z_of(g: &Tensor, truth: &Tensor) -> (f64, String) {
    let (mean, variance) = mean_and_variance(g);
    let z = z_scores(&(&mean - truth), &variance.sqrt()).abs();
    let at = z.argmax(0, false).int64_value(&[]);
    let [m, t, se] = [&mean, truth, &variance.sqrt()].map(|t| t.double_value(&[at]));
    let z = z.double_value(&[at]);
    (z, format!("coordinate {at}: {m} for {t}, se {se:e}, z {z:.2}, N {}", g.size()[0]))
}

fn variants() -> Vec<(String, Estimator, Knobs)> {
    let mut all = vec![];
    // the enumeration itself has no noise to test
    let unbiased = |e: &&Estimator| e.claims().exact_on == ExactOn::Everything && **e != Estimator::Exact;
    for &e in Estimator::ALL.iter().filter(unbiased) {
        let codes: &[Option<Code>] = match e.claims().variables {
            Takes::Both => &[None, Some(Code::PlusMinus)],
            Takes::Boolean => &[Some(Code::ZeroOne), Some(Code::PlusMinus)],
        };
        let takes = |k| e.claims().knobs.contains(&k);
        let samples: &[Option<i64>] = if takes("samples") { &[None, Some(4)] } else { &[None] };
        for &code in codes {
            for &samples in samples {
                let decay = takes("decay").then_some(0.7);
                let sizes = thruway::estimators::Sizes { context: Some(2), ..sizes(3) };
                all.push((
                    format!("{} {code:?} {samples:?}", e.name()),
                    e,
                    Knobs { code, samples, decay, sizes, ..Knobs::default() },
                ));
            }
        }
    }
    all
}

#[test]
fn unbiased_estimators_are_unbiased_whatever_they_have_learned() {
    let mut seen = 0;
    for (i, (name, e, knobs)) in variants().into_iter().enumerate() {
        for which in 0..3 {
            let problem = Problem::new(knobs.code, which);
            let built = e.build(&knobs).unwrap();
            perturb(&built, 3);
            let seed = 1000 * i as u64 + which as u64;
            let _ = estimates(&built, &problem, 8, seed + 500); // a moving average has something to remember
            let n = if e == Estimator::Rodeo { 8_000 } else { 20_000 };
            let (g, truth) = (estimates(&built, &problem, n, seed), problem.exact());
            let (z, at) = z_of(&g, &truth);
            assert!(z < Z_LIMIT, "{name}, problem {which}, seed {seed}: {at}");
            let (z, at) = z_of(&(g * 1.5), &truth);
            assert!(z > Z_LIMIT, "{name}, problem {which}: 1.5 times the gradient passes, {at}");
            seen += 1;
        }
    }
    assert!(seen >= 100, "{seen} cases");
}

/// RLOO whose baseline is the mean of all draws, and REBAR whose conditional draw is held constant in p.
#[test]
fn the_usual_mistakes_are_rejected() {
    struct OwnMean;
    impl GradEstimator for OwnMean {
        fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
            let p = logits.sigmoid();
            let u = noise.uniform(&[&[2], &logits.size()[..]].concat(), Kind::Double, tch::Device::Cpu)?;
            let b = u.lt_tensor(&p).to_kind(Kind::Double);
            let v = f.at(&b)?;
            let w = &v - v.mean_dim(0, true, Kind::Double);
            let log_q = (&b * logits - logits.softplus()).sum_dim_intlist(-1, false, Kind::Double);
            Ok((w.detach() * log_q).mean_dim(0, false, Kind::Double))
        }
    }
    struct HeldConstant(bool);
    impl GradEstimator for HeldConstant {
        fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
            let [u, w] = [(); 2].map(|_| noise.uniform(&logits.size(), Kind::Double, tch::Device::Cpu).unwrap());
            let p = logits.sigmoid();
            let z = logits + (&u / (1f64 - &u)).log();
            let b = z.gt(0.0).to_kind(Kind::Double);
            let v: Tensor = &b * (&w * &p + 1f64 - &p) + (1f64 - &b) * &w * (1f64 - &p);
            let v = if self.0 { v.detach() } else { v };
            let given = logits + (&v / (1f64 - &v)).log();
            let c = |z: &Tensor| f.at(&(z / 0.5).sigmoid().unsqueeze(0)).map(|t| t.squeeze_dim(0));
            let log_q = (&b * logits - logits.softplus()).sum_dim_intlist(-1, false, Kind::Double);
            let signal = f.at(&b.unsqueeze(0))?.squeeze_dim(0) - c(&given)?;
            Ok(signal.detach() * log_q + c(&z)? - c(&given)?)
        }
    }
    for which in 0..3 {
        let problem = Problem::new(Some(Code::ZeroOne), which);
        let truth = problem.exact();
        let z = |e: &dyn GradEstimator| z_of(&estimates(e, &problem, 40_000, 77), &truth);
        assert!(z(&OwnMean).0 > Z_LIMIT, "own mean: {}", z(&OwnMean).1);
        assert!(z(&HeldConstant(true)).0 > Z_LIMIT, "held constant: {}", z(&HeldConstant(true)).1);
        // and the rest of that sketch is right
        assert!(z(&HeldConstant(false)).0 < Z_LIMIT, "{}", z(&HeldConstant(false)).1);
    }
}

/// What the backward leaves in learned parameters is the gradient of the mean of the squared estimate over batch and
/// variables (NVIL: of the squared error of its baseline), by central differences on the same noise.
#[test]
fn learned_parameters_get_the_gradient_of_their_objective() {
    let mut seen = 0;
    for (name, e, knobs) in variants() {
        let problem = Problem::new(knobs.code, 1);
        let built = e.build(&knobs).unwrap();
        perturb(&built, 5);
        let parameters = built.parameters();
        if parameters.is_empty() {
            continue;
        }
        ROWS.with(|r| r.set(6));
        let mut noise = Recording::new(9);
        let run = |noise: &mut dyn Noise| {
            let fresh = e.build(&knobs).unwrap(); // the moving average of NVIL as it was
            let all = built.parameters();
            fresh.load(&|n| all.iter().find(|(m, _)| m == n).map(|(_, t)| t.detach()).or(find(&fresh, n))).unwrap();
            let leaf = problem.leaf(6);
            let loss = fresh.surrogate_loss(&leaf, &problem, noise).unwrap();
            loss.mean(Kind::Double).backward();
            let objective = match e {
                Estimator::Nvil => nvil_error(&fresh, &problem, &loss),
                _ => (leaf.grad() * 6.0).square().mean(Kind::Double).double_value(&[]),
            };
            (objective, fresh)
        };
        let (_, at) = run(&mut noise);
        let got: Vec<Tensor> = at.parameters().into_iter().map(|(_, t)| t.grad()).collect();
        for ((parameter, value), got) in parameters.iter().zip(got) {
            assert!(got.defined(), "{name}: {parameter} got no gradient");
            let (flat, got) = (value.detach().view([-1]), got.view([-1]));
            let scale = largest(&got).max(1e-3);
            for i in 0..flat.size()[0].min(3) {
                let eps = 1e-5;
                let shifted = |by: f64| {
                    let _ = tch::no_grad(|| flat.get(i).g_add_scalar_(by));
                    let (objective, _) = run(&mut noise.tape(Tensor::shallow_clone));
                    let _ = tch::no_grad(|| flat.get(i).g_add_scalar_(-by));
                    objective
                };
                let slope = (shifted(eps) - shifted(-eps)) / (2.0 * eps);
                // central differences of a smooth function at 1e-5: 1e-8 or so of its third derivative
                let off = (slope - got.double_value(&[i])).abs() / scale;
                assert!(off < 1e-5, "{name}: {parameter}[{i}] {} for {slope}", got.double_value(&[i]));
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} parameters");
}

fn find(built: &Built, name: &str) -> Option<Tensor> {
    built.buffers().into_iter().find(|(n, _)| n == name).map(|(_, t)| t.copy())
}

/// `mean (f - C(x))^2` of a fresh NVIL, whose moving average is still 0, by its definition.
fn nvil_error(built: &Built, problem: &Problem, f: &Tensor) -> f64 {
    let p: Vec<Tensor> = built.parameters().into_iter().map(|(_, t)| t.detach()).collect();
    let h = (problem.context().unwrap().matmul(&p[0].tr()) + &p[1]).tanh();
    let c = (h.matmul(&p[2].tr()) + &p[3]).squeeze_dim(-1);
    (f.detach() - c).square().mean(Kind::Double).double_value(&[])
}

/// All tuples of M draws, a row each.
struct Tuples {
    m: i64,
    /// Which states, `[M rows]`.
    at: Tensor,
    /// Indicators `[S, ..]`.
    states: Tensor,
}

impl Tuples {
    fn new(problem: &Problem, m: i64) -> Self {
        let states = |l, k| exact::states(l, k, Kind::Double, tch::Device::Cpu).unwrap();
        let states = match problem.variables {
            Variables::Boolean(_) => states(3, 2).select(-1, 0),
            Variables::Categorical => states(2, 3),
        };
        let s = states.size()[0];
        let all = Tensor::arange(s.pow(m as u32), (Kind::Int64, tch::Device::Cpu));
        let digit = |i: i64| all.divide_scalar_mode(s.pow(i as u32), "floor").remainder(s);
        Tuples { m, at: Tensor::cat(&(0..m).map(digit).collect::<Vec<_>>(), 0), states }
    }

    fn rows(&self) -> i64 {
        self.at.size()[0] / self.m
    }

    /// What belongs to the states, `[S, ..]`, laid out by tuple: `[M, rows, ..]`.
    fn pick(&self, t: &Tensor) -> Tensor {
        t.index_select(0, &self.at).view(&[&[self.m, self.rows()], &t.size()[1..]].concat()[..])
    }

    /// Noise that draws them.
    fn noise(&self, problem: &Problem) -> Tape {
        let x = self.pick(&self.states);
        Tape::new([match problem.variables {
            Variables::Boolean(_) => ("uniform", (1f64 - x + problem.theta.sigmoid()) * 0.5),
            Variables::Categorical => ("index", x.argmax(-1, false).view([-1])),
        }])
    }

    /// Probabilities of the tuples, `[rows, 1]`.
    fn weights(&self, problem: &Problem) -> Tensor {
        let p = all_draws::probabilities(problem);
        let each = match problem.variables {
            Variables::Boolean(_) => &self.states * &p + (1f64 - &self.states) * (1f64 - &p),
            Variables::Categorical => (&self.states * &p).sum_dim_intlist(-1, false, Kind::Double),
        };
        let each = each.prod_dim_int(-1, false, Kind::Double);
        self.pick(&each).prod_dim_int(0, false, Kind::Double).unsqueeze(-1)
    }

    /// The estimate of every tuple, `[rows, coordinates]`.
    fn estimates(&self, e: &dyn GradEstimator, problem: &Problem) -> Tensor {
        let mut noise = self.noise(problem);
        let leaf = problem.leaf(self.rows());
        e.surrogate_loss(&leaf, problem, &mut noise).unwrap().sum(Kind::Double).backward();
        noise.finish().unwrap();
        leaf.grad().view([self.rows(), -1])
    }

    /// Values and derivatives in the indicators, by draw.
    fn of_draws(&self, problem: &Problem) -> (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>) {
        let x = self.pick(&self.states).set_requires_grad(true);
        let f = problem.value(&x);
        f.sum(Kind::Double).backward();
        (x.detach().unbind(0), f.detach().unbind(0), x.grad().unbind(0))
    }
}

/// alpha = -1 takes all variance from a linear f; learning gets there.
#[test]
fn double_cv_is_exact_on_linear_f_at_minus_one() {
    let weights = normals(&[3], Kind::Double, 1);
    let theta = normals(&[20_000, 3], Kind::Double, 2);
    let built =
        Estimator::DoubleCv.build(&Knobs { code: Some(Code::PlusMinus), sizes: sizes(3), ..Knobs::default() }).unwrap();
    let grad = || {
        let leaf = theta.copy().set_requires_grad(true);
        let f = |x: &Tensor| Ok((x * &weights).sum_dim_intlist(-1, false, Kind::Double));
        built.surrogate_loss(&leaf, &f, &mut HostNoise::new(3)).unwrap().mean(Kind::Double).backward();
        leaf.grad() * 20_000.0
    };
    let p = theta.sigmoid();
    let exact = &p * (1.0 - &p) * &weights * 2.0;
    let alpha = built.parameters().remove(0).1;
    for _ in 0..100 {
        let _ = grad();
        let _ = tch::no_grad(|| alpha.shallow_clone().g_add_(&(alpha.grad() * -0.5)));
        alpha.shallow_clone().zero_grad();
    }
    // the best for these draws: their second moments scatter by 1 / sqrt(20,000)
    assert!((alpha.double_value(&[]) + 1.0).abs() < 0.05, "learned alpha {alpha}");
    let _ = tch::no_grad(|| alpha.shallow_clone().fill_(-1.0));
    assert!(distance(&grad(), &exact) < 1e-13);
}

/// VIMCO is exact for the bound, the direct dependence of `log q` included, by enumeration of all tuples of states.
#[test]
fn vimco_is_the_gradient_of_the_bound() {
    let problem = Problem::new(Some(Code::ZeroOne), 1);
    let f = |theta: &Tensor, x: &Tensor| {
        let log_q = (x * theta - theta.softplus()).sum_dim_intlist(-1, false, Kind::Double);
        problem.value(x) + log_q
    };
    for m in [2i64, 3] {
        let tuples = Tuples::new(&problem, m);
        // the truth, differentiated through probabilities and bound
        let theta = problem.theta.copy().set_requires_grad(true);
        let log_p = (&tuples.states * &theta - theta.softplus()).sum_dim_intlist(-1, false, Kind::Double);
        let values = f(&theta, &tuples.states);
        let pick = |t: &Tensor| tuples.pick(t);
        let weight = pick(&log_p).sum_dim_intlist(0, false, Kind::Double).exp();
        let bound = (m as f64).ln() - pick(&values).neg().logsumexp(0, false);
        (&weight * bound).sum(Kind::Double).backward();
        // ours: every tuple as a row
        let mut tape = tuples.noise(&problem);
        let leaf = problem.leaf(8i64.pow(m as u32));
        let vimco =
            Estimator::Vimco.build(&Knobs { code: Some(Code::ZeroOne), samples: Some(m), ..Knobs::default() }).unwrap();
        let loss = vimco.surrogate_loss(&leaf, &|x: &Tensor| Ok(f(&leaf, x)), &mut tape).unwrap();
        (loss * weight.detach()).sum(Kind::Double).backward();
        let got = leaf.grad().sum_dim_intlist(0, false, Kind::Double);
        assert!(distance(&got, &theta.grad()) < 1e-10, "M {m}: {got} for {}", theta.grad());
        // without the direct term it is another number
        let mut tape = tuples.noise(&problem);
        let leaf = problem.leaf(8i64.pow(m as u32));
        let detached = |x: &Tensor| Ok(f(&problem.theta, x));
        let loss = vimco.surrogate_loss(&leaf, &detached, &mut tape).unwrap();
        (loss * weight.detach()).sum(Kind::Double).backward();
        let wrong = leaf.grad().sum_dim_intlist(0, false, Kind::Double);
        assert!(distance(&wrong, &theta.grad()) > 1e-3, "M {m}: without the direct term it passes");
    }
}

/// The moving average is that of earlier batches, corrected for its start, and comes back from a checkpoint.
#[test]
fn state_is_saved_and_the_average_looks_back_only() {
    let build = || {
        Estimator::Reinforce.build(&Knobs { code: Some(Code::ZeroOne), decay: Some(0.8), ..Knobs::default() }).unwrap()
    };
    let step = |e: &Built, value: f64| {
        let leaf = Tensor::from_slice(&[0.4f64]).view([1, 1]).set_requires_grad(true);
        let mut noise = Tape::new([("uniform", Tensor::from_slice(&[0.1f64]))]); // the bit 1
        let f = |x: &Tensor| Ok(x.select(-1, 0) * value);
        e.surrogate_loss(&leaf, &f, &mut noise).unwrap().sum(Kind::Double).backward();
        leaf.grad().double_value(&[0, 0]) / (1.0 - 0.4f64.neg().exp().add(1.0).recip())
    };
    use std::ops::{Add, Neg};
    let e = build();
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} for {b}");
    close(step(&e, 3.0), 3.0); // nothing seen
    close(step(&e, 5.0), 5.0 - 3.0);
    close(step(&e, 1.0), 1.0 - (0.8 * 3.0 + 5.0) / 1.8);
    let saved = e.buffers();
    assert_eq!(saved.len(), 1);
    let saved: Vec<(String, Tensor)> = saved.into_iter().map(|(n, t)| (n, t.copy())).collect();
    let again = build();
    again.load(&|n| saved.iter().find(|(m, _)| m == n).map(|(_, t)| t.shallow_clone())).unwrap();
    assert_eq!(step(&e, 2.0), step(&again, 2.0));
    assert!(build().load(&|_| None).unwrap_err().to_string().contains("average"));
}

/// A one-layer or two-layer decoder that can say that its first layer is linear.
struct Decoder {
    weight: Tensor,
    bias: Tensor,
    second: Option<Tensor>,
    target: Tensor,
    linear: Tensor,
    tells: bool,
}

impl Decoder {
    fn rest(&self, a: &Tensor) -> Result<Tensor> {
        let a = match &self.second {
            Some(w) => a.f_tanh()?.f_matmul(w)?,
            None => a.shallow_clone(),
        };
        Ok((a.f_softplus()? - a * &self.target).f_sum_dim_intlist(-1, false, self.target.kind())?)
    }
}

impl Objective for Decoder {
    fn at(&self, x: &Tensor) -> Result<Tensor> {
        let linear = (x * &self.linear).flatten(2, -1).sum_dim_intlist(-1, false, self.target.kind());
        Ok(self.rest(&x.flatten(2, -1).f_linear(&self.weight, Some(&self.bias))?)? + linear)
    }
    fn first_layer(&self) -> Option<FirstLayer<'_>> {
        let rest = match self.second {
            Some(_) => Rest::Network(Box::new(|a: &Tensor| self.rest(a))),
            None => Rest::Pixels(self.target.shallow_clone()),
        };
        let linear = Some(self.linear.shallow_clone());
        self.tells.then_some(FirstLayer {
            weight: &self.weight,
            bias: Some(&self.bias),
            pre: None,
            linear,
            rest,
            besides: None,
        })
    }
}

#[test]
fn flips_by_rank_one_updates_are_the_naive_ones() {
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::Double, 1e-12)] {
        for code in [None, Some(Code::ZeroOne), Some(Code::PlusMinus)] {
            for (deep, scale) in [(false, 0.3), (true, 0.3), (false, 60.0)] {
                let (b, l, h) = (7, 12, 50);
                let tail: &[i64] = if code.is_some() { &[l] } else { &[l, 4] };
                let width: i64 = tail.iter().product();
                let decoder = |tells| Decoder {
                    weight: normals(&[h, width], kind, 1) * scale,
                    bias: normals(&[h], kind, 2),
                    second: deep.then(|| normals(&[h, 40], kind, 3) * 0.3),
                    target: normals(&[b, if deep { 40 } else { h }], kind, 4).sigmoid(),
                    linear: normals(&[&[b], tail].concat(), kind, 5),
                    tells,
                };
                let knobs = Knobs { code, samples: Some(3), ..Knobs::default() };
                let built = Estimator::LocalExpectation.build(&knobs).unwrap();
                let grad = |tells| {
                    let leaf = normals(&[&[b], tail].concat(), kind, 6).set_requires_grad(true);
                    let loss = built.surrogate_loss(&leaf, &decoder(tells), &mut HostNoise::new(7)).unwrap();
                    loss.sum(kind).backward();
                    leaf.grad()
                };
                let (naive, fast) = (grad(false), grad(true));
                let off = distance(&naive, &fast) / largest(&naive);
                println!("{kind:?} {code:?} deep {deep} scale {scale}: off by {off:e}");
                assert!(off < tolerance, "{kind:?} {code:?}, deep {deep}, scale {scale}: off by {off:e}");
                // and the update matters: another column would not do
                assert!(largest(&naive) > 1e-2);
            }
        }
    }
    let wrong = Decoder {
        weight: normals(&[5, 3], Kind::Double, 1),
        bias: normals(&[5], Kind::Double, 1),
        second: None,
        target: normals(&[2, 5], Kind::Double, 1),
        linear: normals(&[2, 4], Kind::Double, 1),
        tells: true,
    };
    struct Lies(Decoder);
    impl Objective for Lies {
        fn at(&self, x: &Tensor) -> Result<Tensor> {
            Ok(x.sum_dim_intlist(-1, false, Kind::Double))
        }
        fn first_layer(&self) -> Option<FirstLayer<'_>> {
            self.0.first_layer()
        }
    }
    let built = Estimator::LocalExpectation.build(&Knobs { code: Some(Code::ZeroOne), ..Knobs::default() }).unwrap();
    let leaf = normals(&[2, 4], Kind::Double, 1).set_requires_grad(true);
    let error = built.surrogate_loss(&leaf, &Lies(wrong), &mut HostNoise::new(1)).unwrap_err().to_string();
    assert!(error.contains("[H, 4]") && error.contains("[5, 3]"), "{error}");
}
