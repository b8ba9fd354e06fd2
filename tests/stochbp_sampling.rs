//! Stochastic backpropagation and its baselines by sampling: distributions by Kolmogorov-Smirnov, estimators by z-tests with
//! mutants, run directories of the binary.
mod common;
mod stochbp_common;

use common::stats::{KS_LIMIT, Z_LIMIT, ks};
use stochbp_common::{Law, number, vec1, vector};
use tch::{Device, Kind, Tensor};
use thruway::dist::beta::Beta;
use thruway::dist::dirichlet::{Dirichlet, moments};
use thruway::dist::gamma::Gamma;
use thruway::dist::gaussian::Gaussian;
use thruway::dist::laplace::Laplace;
use thruway::dist::{Continuous, dirac::Dirac};
use thruway::noise::{HostNoise, Noise, TorchNoise};
use thruway::stochbp::{
    Caution, Estimate, LogCharacteristic, MeasureValued, Objective, StochasticBackprop, Sum, WeakReparameterisation,
    measure_valued, pathwise, score_function, weak,
};

/// Samples of a z-test. A bias of a fifth of the truth is seen where the spread is no more than ten times the truth.
const SAMPLES: i64 = 100_000;

/// |z| of the mean estimates against the truth, one a coordinate of a parameter; exactly right and without spread counts as 0.
fn z(e: &Estimate, truth: &[Tensor], factor: f64) -> Vec<f64> {
    assert_eq!(e.gradients.len(), truth.len());
    let mut all = vec![];
    for ((name, g), truth) in e.gradients.iter().zip(truth) {
        let g = g.to_kind(Kind::Double) * factor;
        let error = g.mean_dim(0i64, false, Kind::Double) - truth;
        let se = (g.var_dim(0i64, true, false) / g.size()[0] as f64).sqrt();
        // a constant estimate, 0 among them, is right to the rounding of the quadrature
        let floor = number(&truth.abs().max()) * 1e-11;
        let z: Vec<f64> = (error.abs() / (se + floor)).try_into().unwrap();
        assert!(z.iter().all(|z| z.is_finite()), "{name}");
        all.extend(z);
    }
    all
}

/// Every coordinate passes the z-test, and every one fails it multiplied by 1.2: 6.8e-6 false alarms a coordinate.
fn unbiased(what: &str, e: &Estimate, truth: &[Tensor]) {
    let (right, mutant) = (z(e, truth, 1.0), z(e, truth, 1.2));
    assert!(right.iter().all(|z| *z < Z_LIMIT), "{what}: z = {right:?}");
    assert!(mutant.iter().all(|z| *z > Z_LIMIT), "{what}: a mutant passes, z = {mutant:?}");
}

/// A coordinate of a wrong formula fails the z-test.
fn biased(what: &str, e: &Estimate, truth: &[Tensor]) {
    let z = z(e, truth, 1.0);
    assert!(z.iter().any(|z| *z > Z_LIMIT), "{what}: passes, z = {z:?}");
}

#[test]
fn stochbp_draws_follow_their_laws() {
    let n = 20_000;
    // false alarms: 1e-4 each
    let mut host = HostNoise::new(5);
    for shape in [0.05, 0.6, 1.0, 3.7, 40.0] {
        let p = Gamma::new(&vec1(shape), &vec1(2.5)).unwrap();
        for source in [&mut host as &mut dyn Noise, &mut TorchNoise] {
            tch::manual_seed(3);
            let draws = p.sample(n, source).unwrap();
            assert!(number(&draws.min()) > 0.0);
            let d = ks(&p.cdf(&draws).unwrap());
            assert!(d < KS_LIMIT, "gamma {shape}: {d}");
        }
    }
    // a mutant: shape off by a twentieth
    let draws = Gamma::new(&vec1(3.7), &vec1(2.5)).unwrap().sample(n, &mut host).unwrap();
    assert!(ks(&Gamma::new(&vec1(3.7 * 1.05), &vec1(2.5)).unwrap().cdf(&draws).unwrap()) > KS_LIMIT);
    let p = Laplace::new(&vec1(-0.4), &vec1(1.7)).unwrap();
    assert!(ks(&p.cdf(&p.sample(n, &mut host).unwrap()).unwrap()) < KS_LIMIT);
    let p = Gaussian::new(&vec1(0.3), &vec1(2.0)).unwrap();
    let e = (p.sample(n, &mut host).unwrap() - 0.3) / 2f64.sqrt();
    assert!(ks(&((e / 2f64.sqrt()).erf() + 1.0).multiply_scalar(0.5)) < KS_LIMIT);
    // alpha = 3, beta = 1: the cdf is z^3
    let p = Beta::new(&vec1(3.0), &vec1(1.0)).unwrap();
    assert!(ks(&p.sample(n, &mut host).unwrap().pow_tensor_scalar(3)) < KS_LIMIT);
    // an entry of a Dirichlet (1, 0.5, 0.5) is uniform
    let p = Dirichlet::new(&vector(&[1.0, 0.5, 0.5])).unwrap();
    let draws = p.sample(n, &mut host).unwrap();
    assert!(ks(&draws.select(-1, 0)) < KS_LIMIT);
    assert!(number(&(draws.sum_dim_intlist(-1, false, Kind::Double) - 1.0).abs().max()) < 1e-12);
    let p = Dirac::new(&vec1(2.0)).unwrap();
    assert_eq!(number(&p.sample(3, &mut host).unwrap().sum(Kind::Double)), 6.0);
}

/// `sin z + z^2 / 2`, of one variable.
fn smooth(z: &Tensor) -> thruway::Result<Tensor> {
    Ok(z.sin() + z.square() * 0.5)
}

#[test]
fn stochbp_baselines_are_unbiased() {
    let f = Objective::Separable(&smooth);
    let mut noise = HostNoise::new(11);
    for law in [
        Law::Gaussian(0.3, 0.7),
        Law::Laplace(-0.4, 0.6),
        Law::Gamma(2.3, 0.8),
        Law::Gamma(0.6, 1.1),
        Law::Beta(2.0, 3.5),
    ] {
        let (p, truth) = (law.build(), law.quadrature(2001).truth(&f));
        unbiased(&format!("score {law:?}"), &score_function(&*p, &f, SAMPLES, &mut noise).unwrap(), &truth);
        unbiased(&format!("pathwise {law:?}"), &pathwise(&*p, &f, SAMPLES, &mut noise).unwrap(), &truth);
    }
    let weak_laws: [(Law, Box<dyn WeakReparameterisation>); 3] = [
        (Law::Gamma(2.3, 0.8), Box::new(Gamma::new(&vec1(2.3), &vec1(0.8)).unwrap())),
        (Law::Gamma(0.6, 1.1), Box::new(Gamma::new(&vec1(0.6), &vec1(1.1)).unwrap())),
        (Law::Beta(2.0, 3.5), Box::new(Beta::new(&vec1(2.0), &vec1(3.5)).unwrap())),
    ];
    for (law, p) in weak_laws {
        let truth = law.quadrature(2001).truth(&f);
        unbiased(&format!("weak {law:?}"), &weak(&*p, &f, SAMPLES, &mut noise).unwrap(), &truth);
        // the correction left out, or with its sign turned
        let z = p.sample(SAMPLES, &mut noise).unwrap();
        let (value, slope) = f.gradient(&z).unwrap();
        for sign in [0.0, -1.0] {
            let wrong = |(h, correction): (Tensor, Tensor)| &slope * h + value.unsqueeze(-1) * correction * sign;
            let names = p.parameters().into_iter().map(|(name, _)| name.to_string());
            let gradients = names.zip(p.weak(&z).unwrap().into_iter().map(wrong)).collect();
            let e = Estimate { value: value.shallow_clone(), gradients, warning: None, growth: None };
            biased(&format!("weak {law:?}, correction times {sign}"), &e, &truth);
        }
    }
    let measures: [(Law, Box<dyn MeasureValued>, &[&str]); 3] = [
        (Law::Gaussian(0.3, 0.7), Box::new(Gaussian::new(&vec1(0.3), &vec1(0.7)).unwrap()), &["mean", "variance"]),
        (Law::Laplace(-0.4, 0.6), Box::new(Laplace::new(&vec1(-0.4), &vec1(0.6)).unwrap()), &["mean", "scale"]),
        (Law::Gamma(2.3, 0.8), Box::new(Gamma::new(&vec1(2.3), &vec1(0.8)).unwrap()), &["scale"]),
    ];
    for (law, p, names) in measures {
        let truth = law.quadrature(2001).truth(&f);
        let truth = &truth[truth.len() - names.len()..];
        unbiased(&format!("measure {law:?}"), &measure_valued(&*p, names, &f, SAMPLES, &mut noise).unwrap(), truth);
        let error = measure_valued(&*p, &["shape"], &f, 10, &mut noise).unwrap_err().to_string();
        assert!(error.contains("weak derivative by") && error.contains("shape"), "{error}");
    }
}

/// Two dependent directions through one f: the general form of each estimator.
#[test]
fn stochbp_estimators_agree_where_f_mixes_the_variables() {
    let laws = [Law::Laplace(0.2, 0.5), Law::Laplace(-0.3, 0.8)];
    let q = laws[0].quadrature(301).product(&laws[1].quadrature(301));
    let p = Laplace::new(&vector(&[0.2, -0.3]), &vector(&[0.5, 0.8])).unwrap();
    // the square and the last term, so that no parameter's gradient is 0 or small
    let f = |z: &Tensor| {
        let (a, b) = (z.select(-1, 0), z.select(-1, 1));
        Ok((&a + 0.5) * b.square() + &a * &b + a.square() + b * 2.0)
    };
    let f = Objective::Smooth(&f);
    let truth = q.truth(&f);
    let mut noise = HostNoise::new(17);
    let names = ["mean", "scale"];
    unbiased("measure", &measure_valued(&p, &names, &f, SAMPLES, &mut noise).unwrap(), &truth);
    unbiased("score", &score_function(&p, &f, SAMPLES, &mut noise).unwrap(), &truth);
    unbiased("pathwise", &pathwise(&p, &f, SAMPLES, &mut noise).unwrap(), &truth);
    let rule = StochasticBackprop { sum: Sum::Polynomial(3), caution: Caution::Refuse };
    let e = rule.estimate(&p, &f, SAMPLES, &mut noise).unwrap();
    unbiased("stochbp", &e, &truth);
    // the surrogate carries the mean estimate to whatever made the parameters
    let (mean, log_scale) = (p.mean.copy().set_requires_grad(true), p.scale.log().set_requires_grad(true));
    let loss = e.surrogate(&[&mean, &log_scale.exp()]).unwrap();
    loss.backward();
    assert_eq!(number(&loss), number(&e.value.mean(Kind::Double)));
    let expected = e.of("scale").unwrap().mean_dim(0i64, false, Kind::Double) * &p.scale;
    assert!(number(&(log_scale.grad() - expected).abs().max()) < 1e-14);
    // the variance of the mean estimate: a sample variance over S, over all entries
    let all = Tensor::cat(&[e.of("mean").unwrap(), e.of("scale").unwrap()], 1);
    let by_hand = number(&all.var_dim(0i64, true, false).mean(Kind::Double)) / SAMPLES as f64;
    assert!((e.variance().unwrap() / by_hand - 1.0).abs() < 1e-12);
    assert!(e.of("shape").unwrap_err().to_string().contains("known: mean, scale"));
}

#[test]
fn stochbp_rules_are_unbiased_in_sampling() {
    let mut noise = HostNoise::new(23);
    let square = |z: &Tensor| Ok((z - 0.49).square());
    let exponential = |z: &Tensor| Ok((z * -0.49).exp());
    for law in [Law::Gaussian(0.3, 0.7), Law::Laplace(-0.4, 0.6), Law::Gamma(2.3, 0.8), Law::Beta(2.0, 3.5)] {
        let (p, q) = (law.build(), law.quadrature(2001));
        for (f, sum) in [(&square as &thruway::stochbp::Function, Sum::Polynomial(2)), (&exponential, Sum::Exponential)]
        {
            let f = Objective::Separable(f);
            let rule = StochasticBackprop { sum, caution: Caution::Refuse };
            let e = rule.estimate(&*p, &f, SAMPLES, &mut noise).unwrap();
            unbiased(&format!("{law:?} {sum:?}"), &e, &q.truth(&f));
        }
    }
    // a truncated series is biased by what it leaves out, and the z-test sees it: e^2 of the exponential is in, e^3 is not
    let p = Gamma::new(&vec1(2.3), &vec1(0.8)).unwrap();
    let f = Objective::Separable(&exponential);
    let rule = StochasticBackprop { sum: Sum::Truncated(2), caution: Caution::Refuse };
    let e = rule.estimate(&p, &f, SAMPLES, &mut noise).unwrap();
    biased("order 2", &e, &Law::Gamma(2.3, 0.8).quadrature(2001).truth(&f));
}

/// Dirichlet: score function and pathwise against the closed form of a quadratic.
#[test]
fn stochbp_dirichlet_baselines_are_unbiased() {
    let a = vector(&[0.7, 2.0, 1.4]).set_requires_grad(true);
    let (mean, covariance) = moments(&a).unwrap();
    let h = vector(&[1.0, -0.5, 0.3, -0.5, 2.0, 0.1, 0.3, 0.1, -0.7]).view([3, 3]);
    let f = |z: &Tensor| Ok((z.matmul(&h) * z).sum_dim_intlist(-1, false, Kind::Double));
    let value = ((covariance + mean.unsqueeze(-1) * mean.unsqueeze(0)) * &h).sum(Kind::Double);
    value.backward();
    let truth = [a.grad()];
    let p = Dirichlet::new(&a).unwrap();
    let f = Objective::Smooth(&f);
    let mut noise = HostNoise::new(29);
    unbiased("score", &score_function(&p, &f, SAMPLES, &mut noise).unwrap(), &truth);
    unbiased("pathwise", &pathwise(&p, &f, SAMPLES, &mut noise).unwrap(), &truth);
    // the score is the slope of the log density
    let z = p.sample(4, &mut noise).unwrap();
    let leaf = a.detach().set_requires_grad(true);
    let norm = leaf.lgamma().sum(Kind::Double) - leaf.sum(Kind::Double).lgamma();
    ((&leaf - 1.0) * z.log()).sum(Kind::Double).g_sub(&(norm * 4.0)).backward();
    let sum = p.score(&z).unwrap().remove(0).sum_dim_intlist(0i64, false, Kind::Double);
    assert!(number(&(sum - leaf.grad()).abs().max()) < 1e-12);
    let log_prob = p.log_prob(&z).unwrap();
    let by_hand = ((a.detach() - 1.0) * z.log()).sum_dim_intlist(-1, false, Kind::Double)
        - (a.detach().lgamma().sum(Kind::Double) - a.detach().sum(Kind::Double).lgamma());
    assert!(number(&(log_prob - by_hand).abs().max()) < 1e-12);
}

/// What libtorch's implicit derivatives are worth: `dz / dk = -(dF / dk) / p(z)` with the cdf's slope by differences.
#[test]
fn stochbp_implicit_gamma_derivative_is_accurate() {
    let z = Tensor::linspace(0.05, 8.0, 60, (Kind::Double, Device::Cpu)).view([60, 1]);
    let mut worst = 0f64;
    for k in [0.3, 0.9, 2.5, 7.0, 30.0] {
        let p = Gamma::new(&vec1(k), &vec1(1.0)).unwrap();
        let ours = p.pathwise(&z, &z.ones_like()).unwrap().remove(0);
        let cdf = |h: f64| Gamma::new(&vec1(k + h), &vec1(1.0)).unwrap().cdf(&z).unwrap();
        let slope = (cdf(1e-5) - cdf(-1e-5)) / 2e-5;
        let density = p.log_prob(&z).unwrap().exp().unsqueeze(-1);
        // where the density is not lost to rounding of the cdf
        let seen = density.gt(1e-4).logical_and(&cdf(0.0).gt(1e-3)).logical_and(&cdf(0.0).lt(1.0 - 1e-4));
        let truth = -slope / density;
        let error = ((ours - &truth) / truth).abs().masked_select(&seen);
        worst = worst.max(if error.numel() > 0 { number(&error.max()) } else { 0.0 });
    }
    println!("relative error of _standard_gamma_grad: {worst:e}");
    // libtorch's approximation is made for 1e-3 or so
    assert!(worst < 5e-3 && worst > 0.0, "{worst:e}");
}

fn series(p: &dyn LogCharacteristic) -> &dyn LogCharacteristic {
    p
}

#[test]
fn stochbp_variance_orders_as_in_figure_1() {
    // E (z - 0.49)^2 at shape and scale 1: the rule's derivatives 2 (z - 0.49) and 2 have less spread than the path's
    let p = Gamma::new(&vec1(1.0), &vec1(1.0)).unwrap();
    let square = |z: &Tensor| Ok((z - 0.49).square());
    let f = Objective::Separable(&square);
    let mut noise = HostNoise::new(31);
    let n = 20_000;
    let rule = StochasticBackprop { sum: Sum::Polynomial(2), caution: Caution::Refuse };
    let ours = rule.estimate(series(&p), &f, n, &mut noise).unwrap().variance().unwrap();
    let path = pathwise(&p, &f, n, &mut noise).unwrap().variance().unwrap();
    let generalised = weak(&p, &f, n, &mut noise).unwrap().variance().unwrap();
    let score = score_function(&p, &f, n, &mut noise).unwrap().variance().unwrap();
    // the rule's is 4 / n, as z has variance 1; the others apart by more than the error of a variance from 20,000 draws
    assert!((ours * n as f64 / 4.0 - 1.0).abs() < 0.1, "{ours}");
    assert!(
        5.0 * ours < path && 1.1 * path < generalised && 2.0 * generalised < score,
        "{ours} {path} {generalised} {score}"
    );
}
