//! Stochastic backpropagation: every rule against quadrature and closed forms, every printed formula, and what happens where
//! the series does not converge.
#[path = "stochbp_cases/doubts.rs"]
mod doubts;
#[path = "stochbp_cases/gammas.rs"]
mod gammas;
#[path = "stochbp_cases/mutants.rs"]
mod mutants;
#[path = "stochbp_cases/relu.rs"]
mod relu;
mod stochbp_common;
#[path = "stochbp_cases/theorem2.rs"]
mod theorem2;

use stochbp_common::{Law, number, relative, vec1, vector};
use tch::{Device, Kind, Tensor};
use thruway::Error;
use thruway::dist::dirac::Dirac;
use thruway::dist::dirichlet::Dirichlet;
use thruway::dist::gamma::Gamma;
use thruway::dist::gaussian::Gaussian;
use thruway::dist::laplace::{Laplace, kl_to_standard};
use thruway::dist::{Continuous, beta::Beta};
use thruway::noise::HostNoise;
use thruway::stochbp::{
    Caution, LogCharacteristic, Objective, Outer, SecondOrder, StochasticBackprop, Sum, log_sigmoid_derivatives,
};

const LAWS: [Law; 8] = [
    Law::Gaussian(0.3, 0.7),
    Law::Laplace(-0.4, 0.6),
    Law::Laplace(1.2, 2.5),
    Law::Gamma(2.3, 0.8),
    Law::Gamma(0.4, 3.0),
    Law::Gamma(1.0, 0.5),
    Law::Beta(2.0, 3.5),
    Law::Beta(0.6, 0.8),
];

fn rule(sum: Sum) -> StochasticBackprop {
    StochasticBackprop { sum, caution: Caution::Refuse }
}

fn loose(order: i64) -> StochasticBackprop {
    StochasticBackprop { sum: Sum::Truncated(order), caution: Caution::Warn }
}

/// Eq. 14 with a full covariance.
fn equation_14(mean: &Tensor, covariance: &Tensor, f: &Objective, z: &Tensor) -> Tensor {
    let rule = SecondOrder { gaussian: true, caution: Caution::Refuse };
    let (surrogate, warning) = rule.surrogate(mean, covariance, f, z).unwrap();
    assert_eq!(warning, None);
    surrogate
}

/// `1 - z + z^2 / 2 - ..`, as terms of each variable.
fn polynomial(z: &Tensor, degree: i64) -> Tensor {
    (0..=degree).fold(z.zeros_like(), |sum, n| sum + z.pow_tensor_scalar(n) * (-0.7f64).powi(n as i32) / (n + 1) as f64)
}

#[test]
fn stochbp_is_exact_on_polynomials() {
    for law in LAWS {
        let (p, q) = (law.build(), law.quadrature(2001));
        for degree in 1..=6 {
            let f = |z: &Tensor| Ok(polynomial(z, degree));
            for f in [Objective::Separable(&f), Objective::Smooth(&|z| Ok(polynomial(z, degree).squeeze_dim(-1)))] {
                let error = |sum| relative(&q.expectation(&rule(sum).at(&*p, &f, &q.z).unwrap()), &q.truth(&f));
                // float64 quadrature of numbers up to 80^6: rounding
                let exact = error(Sum::Polynomial(degree));
                assert!(exact < 1e-9, "{law:?} degree {degree}: {exact:e}");
                // a derivative less is a plain error, as far as the distribution sees that derivative
                if degree >= 2 && p.last() != Some(1) && (degree % 2 == 0 || !matches!(law, Law::Laplace(..))) {
                    let seen = if p.last() == Some(2) { 1 } else { degree - 1 };
                    let less = relative(&q.expectation(&loose(seen).at(&*p, &f, &q.z).unwrap()), &q.truth(&f));
                    assert!(less > 1e-6, "{law:?} degree {degree}: the test sees a missing term, {less:e}");
                }
            }
        }
    }
}

#[test]
fn stochbp_dirac_is_backpropagation() {
    let p = Dirac::new(&vector(&[0.3, -1.2])).unwrap();
    let f = |z: &Tensor| Ok((z.select(-1, 0) * z.select(-1, 1).square()).sin());
    let e = rule(Sum::Truncated(5)).estimate(&p, &Objective::Smooth(&f), 1, &mut HostNoise::new(0)).unwrap();
    let (a, b) = (0.3f64, -1.2f64);
    let outer = (a * b * b).cos();
    let truth = vector(&[outer * b * b, outer * 2.0 * a * b]);
    assert!(number(&(e.of("point").unwrap().squeeze() - truth).abs().max()) < 1e-15);
    assert!(p.score(&vec1(0.0)).unwrap_err().to_string().contains("no density"));
}

#[test]
fn stochbp_special_gammas() {
    let f = |z: &Tensor| Ok(z.pow_tensor_scalar(3));
    let f = Objective::Separable(&f);
    let mean = |p: &Gamma| {
        let (k, s) = (number(&p.shape), number(&p.scale));
        let q = Law::Gamma(k, s).quadrature(2001);
        let e = q.expectation(&rule(Sum::Polynomial(3)).at(p, &f, &q.z).unwrap());
        (number(&e[0]), number(&e[1]))
    };
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-10, "{a} {b}");
    // E z^3 = k (k + 1) (k + 2) mu^3
    let s = 0.7f64;
    close(mean(&Gamma::exponential(&vec1(s)).unwrap()).1, 18.0 * s * s);
    close(mean(&Gamma::erlang(4, &vec1(s)).unwrap()).1, 3.0 * 120.0 * s * s);
    // in degrees of freedom: nu (nu + 2) (nu + 4); by nu: half of the shape's
    let nu = 5.0f64;
    let by_nu = mean(&Gamma::chi_squared(&vec1(nu)).unwrap()).0 * 0.5;
    close(by_nu, 3.0 * nu * nu + 12.0 * nu + 8.0);
    assert!(Gamma::erlang(0, &vec1(s)).unwrap_err().to_string().contains("stages must be at least 1, got 0"));
}

#[test]
fn stochbp_exponentials_in_closed_form_and_truncated() {
    for law in LAWS {
        let (p, q) = (law.build(), law.quadrature(1001));
        for e in [-0.3, 0.2, -2.0] {
            let f = |z: &Tensor| Ok((z * e).exp());
            let f = Objective::Separable(&f);
            let outside = matches!(law, Law::Laplace(_, b) if b * f64::abs(e) >= 1.0);
            if outside {
                let error = rule(Sum::Exponential).estimate(&*p, &f, 9, &mut HostNoise::new(0)).unwrap_err();
                assert!(error.to_string().contains("infinite"), "{error}");
                continue;
            }
            let truth = q.truth(&f);
            // Quadrature to t = 81: exp(-81 (1 - 0.5)) at worst.
            let closed = relative(&q.expectation(&rule(Sum::Exponential).at(&*p, &f, &q.z).unwrap()), &truth);
            assert!(closed < 1e-9, "{law:?} {e}: {closed:e}");
            // The truncated rule lacks the coefficients beyond its order times e^n E f, no more and no less.
            let mean = number(&q.mean(&f.value(&q.z).unwrap().unsqueeze(-1)).squeeze());
            let whole = p.sum_at(&vec1(e)).unwrap();
            for order in [2, 5, 8] {
                let ours = q.expectation(&loose(order).at(&*p, &f, &q.z).unwrap());
                let mut rest: Vec<f64> = whole.iter().map(|t| number(&t.squeeze())).collect();
                for n in 1..=order {
                    let a = p.coefficients(n).unwrap();
                    rest.iter_mut().zip(a).for_each(|(r, a)| *r -= number(&a.squeeze()) * e.powi(n as i32));
                }
                for ((ours, truth), rest) in ours.iter().zip(&truth).zip(&rest) {
                    let missing = number(&(truth - ours).squeeze());
                    let scale = number(&truth.abs().squeeze()).max(rest.abs() * mean);
                    assert!((missing - rest * mean).abs() < 1e-8 * scale, "{law:?} {e} {order}: {missing} {rest}");
                }
            }
        }
    }
}

#[test]
fn stochbp_coefficients_sum_to_the_closed_form_within_the_radius() {
    for law in LAWS {
        let p = law.build();
        let radius = p.radius().unwrap().map_or(2.0, |r| number(&r.squeeze()));
        // log phi(0) = 0 whatever the parameters: a_0 of Eqs. 22 to 24 is 0
        assert!(p.sum_at(&vec1(0.0)).unwrap().iter().all(|t| number(&t.squeeze()) == 0.0), "{law:?}");
        for share in [0.5, -0.4] {
            let s = share * radius.min(2.0);
            let closed = p.sum_at(&vec1(s)).unwrap();
            let mut sums = vec![0.0; closed.len()];
            for n in 1..=40 {
                for (sum, a) in sums.iter_mut().zip(p.coefficients(n).unwrap()) {
                    *sum += number(&a.squeeze()) * s.powi(n as i32);
                }
            }
            for (sum, closed) in sums.iter().zip(&closed) {
                let closed = number(&closed.squeeze());
                // 0.5^40 remains; the beta's coefficients lose digits to cancellation in the recursion
                assert!((sum - closed).abs() < 1e-8 * closed.abs().max(1e-2), "{law:?} at {s}: {sum} {closed}");
            }
        }
    }
}

/// `log E exp(i w z)` by quadrature, as (real, imaginary).
fn log_phi(law: Law, w: f64) -> (f64, f64) {
    let q = law.quadrature(4001);
    let mean = |t: Tensor| number(&q.mean(&t).squeeze());
    let (c, s) = (mean((&q.z * w).cos()), mean((&q.z * w).sin()));
    (0.5 * (c * c + s * s).ln(), s.atan2(c))
}

#[test]
fn stochbp_printed_characteristic_functions() {
    let close = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() < 1e-10 && (a.1 - b.1).abs() < 1e-10;
    for w in [0.3f64, 0.9] {
        let (m, b) = (1.2, 2.5);
        let ours = log_phi(Law::Laplace(m, b), w);
        assert!(close(ours, (-(1.0 + b * b * w * w).ln(), m * w)));
        assert!(!close(ours, (-(1.0 + b * b * w * w).ln(), w)), "Eq. 18 as printed lacks mu");
        let (k, mu) = (2.3, 0.8f64);
        // -k log(1 - i mu w)
        let one_minus = (0.5 * (1.0 + (mu * w).powi(2)).ln(), (-mu * w).atan());
        assert!(close(log_phi(Law::Gamma(k, mu), w), (-k * one_minus.0, -k * one_minus.1)));
        assert!(close(log_phi(Law::Gaussian(0.3, 0.7), w), (-0.35 * w * w, 0.3 * w)));
    }
}

/// Toy problem 2: `f = exp(-epsilon z)` takes the closed form at `i w = -epsilon`; the printed `epsilon / i` is the other sign.
#[test]
fn stochbp_toy_problem_2_sign_and_beyond_the_radius() {
    let (k, mu, e) = (1.7, 5.0, 0.49);
    let (p, q) = (Law::Gamma(k, mu).build(), Law::Gamma(k, mu).quadrature(4001));
    let f = |z: &Tensor| Ok((z * -e).exp());
    let f = Objective::Separable(&f);
    // E f = (1 + e mu)^-k
    let mean = (1.0f64 + e * mu).powf(-k);
    let truth = vec![vec1(-(1.0 + e * mu).ln() * mean), vec1(-k * e / (1.0 + e * mu) * mean)];
    assert!(relative(&q.truth(&f), &truth) < 1e-10);
    // epsilon mu = 2.45: the series diverges, the closed form is exact
    let ours = q.expectation(&rule(Sum::Exponential).at(&*p, &f, &q.z).unwrap());
    assert!(relative(&ours, &truth) < 1e-10);
    let printed = p.sum_at(&vec1(e)).unwrap_err().to_string();
    assert!(printed.contains("gamma") && printed.contains("infinite"), "{printed}");
    let small = Law::Gamma(k, 0.5).build();
    let (right, wrong) = (small.sum_at(&vec1(-e)).unwrap(), small.sum_at(&vec1(e)).unwrap());
    assert!(relative(&wrong, &right) > 0.5);
    let refused = rule(Sum::Truncated(8)).estimate(&*p, &f, 100, &mut HostNoise::new(1)).unwrap_err().to_string();
    assert!(refused.contains("beyond the radius of convergence") && refused.contains("pathwise"), "{refused}");
    let warned = loose(8).estimate(&*p, &f, 100, &mut HostNoise::new(1)).unwrap();
    assert_eq!(warned.warning.as_deref(), Some(refused.as_str()));
    // the ratio of the last two terms of the scale is epsilon mu, of the shape 7/8 of it
    assert!((warned.growth.unwrap() - e * mu).abs() < 1e-9);
    // an order with a single term is no blind spot
    for law in [Law::Gamma(k, mu), Law::Laplace(0.0, mu)] {
        for order in [1, 2, 3] {
            let refused = rule(Sum::Truncated(order)).estimate(&*law.build(), &f, 100, &mut HostNoise::new(1));
            assert!(refused.unwrap_err().to_string().contains("beyond the radius"), "{law:?} order {order}");
        }
    }
}

/// For d > 1 the printed estimator of toy problem 2 has each coefficient times the whole sum, the true one times its own term.
#[test]
fn stochbp_toy_problem_2_in_two_dimensions() {
    let laws = [Law::Gamma(1.7, 0.5), Law::Gamma(0.9, 1.3)];
    let q = laws[0].quadrature(201).product(&laws[1].quadrature(201));
    let p = Gamma::new(&vector(&[1.7, 0.9]), &vector(&[0.5, 1.3])).unwrap();
    let e = -0.49;
    let f = |z: &Tensor| Ok((z * e).exp());
    let f = Objective::Separable(&f);
    let truth = q.truth(&f);
    assert!(relative(&q.expectation(&rule(Sum::Exponential).at(&p, &f, &q.z).unwrap()), &truth) < 1e-9);
    let whole = q.mean(&f.value(&q.z).unwrap().unsqueeze(-1));
    let printed: Vec<Tensor> = p.sum_at(&vector(&[e, e])).unwrap().into_iter().map(|a| a * &whole).collect();
    assert!(relative(&printed, &truth) > 0.5);
}

#[test]
fn stochbp_is_refused_where_the_terms_grow() {
    // E cos(c z) = 1 / (1 + b^2 c^2) exists for every c; the series needs c b < 1.
    let b = 0.8;
    let p = Laplace::new(&vec1(0.2), &vec1(b)).unwrap();
    let q = Law::Laplace(0.2, b).quadrature(4001);
    for (c, good) in [(0.6, true), (1.2, true), (1.3, false), (3.0, false)] {
        let f = |z: &Tensor| Ok((z * c).cos());
        let f = Objective::Separable(&f);
        let answer = rule(Sum::Truncated(8)).estimate(&p, &f, 50, &mut HostNoise::new(2));
        assert_eq!(answer.is_ok(), good, "c b = {}: {:?}", c * b, answer.err());
        let error = |order| relative(&q.expectation(&loose(order).at(&p, &f, &q.z).unwrap()), &q.truth(&f));
        let (few, many) = (error(4), error(16));
        assert_eq!(many < few, good, "c = {c}: {few:e} at order 4, {many:e} at 16");
        if !good {
            assert!(matches!(answer.unwrap_err(), Error::Range { .. }));
        }
    }
    // log sigmoid has poles: asymptotic, the better the smaller b, and noticed where it grows
    let f = |z: &Tensor| Ok(z.log_sigmoid());
    let f = Objective::Separable(&f);
    for (b, good) in [(0.3, true), (3.0, false)] {
        let p = Laplace::new(&vec1(0.5), &vec1(b)).unwrap();
        let q = Law::Laplace(0.5, b).quadrature(4001);
        let error = relative(&q.expectation(&loose(8).at(&p, &f, &q.z).unwrap()), &q.truth(&f));
        assert_eq!(error < 1e-3, good, "b = {b}: {error:e}");
        assert_eq!(rule(Sum::Truncated(8)).estimate(&p, &f, 200, &mut HostNoise::new(3)).is_ok(), good, "b = {b}");
    }
}

#[test]
fn stochbp_log_sigmoid_by_formula_is_nested_autograd() {
    let x = vector(&[-3.0, -0.4, 0.0, 1.7, 6.0]).view([5, 1]);
    let h = |x: &Tensor| Ok(x.log_sigmoid());
    let nested = Objective::Separable(&h).derivatives(&x, 8).unwrap();
    let known = log_sigmoid_derivatives(&x, 8).unwrap();
    // polynomials with coefficients up to 8!: sums of numbers 1e4 times the result
    assert!(relative(&known, &nested.pure) < 1e-11);
    let inner = |z: &Tensor| Ok((z * 2.0, vec1(2.0).view([1, 1])));
    let f = Objective::Composite { inner: &inner, outer: Outer::Known(&h, &|x, n| log_sigmoid_derivatives(x, n)) };
    let scaled = Objective::Separable(&|x| Ok((x * 2.0).log_sigmoid())).derivatives(&x, 4).unwrap();
    assert!(relative(&f.derivatives(&x, 4).unwrap().pure, &scaled.pure) < 1e-11);
}

/// Eq. 14 in full: `E exp(c . z) = exp(c . mean + c . covariance c / 2)`, and a polynomial with a mixed term.
#[test]
fn stochbp_gaussian_with_full_covariance() {
    let unit = Law::Gaussian(0.0, 1.0).quadrature(401);
    let q = unit.product(&unit);
    let factor = vector(&[0.8, 0.0, -0.3, 0.5]).view([2, 2]);
    let z = q.z.matmul(&factor.tr()) + vector(&[0.4, -0.2]);
    // every point counts by its weight: the mean over points of S w f
    let weighted = |t: Tensor| t * &q.w * q.w.size()[0] as f64;
    let mean = vector(&[0.4, -0.2]).set_requires_grad(true);
    let covariance = factor.matmul(&factor.tr()).set_requires_grad(true);
    let c = vector(&[0.7, -1.1]);
    let f = |z: &Tensor| Ok(weighted(z.matmul(&c).exp()));
    let loss = equation_14(&mean, &covariance, &Objective::Smooth(&f), &z);
    loss.backward();
    let ours = [mean.grad(), covariance.grad()];
    let closed = |m: &Tensor, v: &Tensor| (m.dot(&c) + c.dot(&v.matmul(&c)) * 0.5).exp();
    let value = closed(&mean, &covariance);
    assert!((number(&loss) / number(&value) - 1.0).abs() < 1e-10);
    let truth = Tensor::run_backward(&[value], &[&mean, &covariance], false, false);
    assert!(relative(&ours[..1], &truth[..1]) < 1e-10);
    assert!(relative(&ours[1..], &truth[1..]) < 1e-10);
    // independent entries agree with the rule for them
    let p = Gaussian::new(&vec1(0.3), &vec1(0.7)).unwrap();
    let f = |z: &Tensor| Ok(z.squeeze_dim(-1).sin());
    let z = vector(&[0.2, 1.4, -0.8]).view([3, 1]);
    let e = rule(Sum::Truncated(4)).at(&p, &Objective::Smooth(&f), &z).unwrap();
    let (m, v) = (vec1(0.3).set_requires_grad(true), vec1(0.7).view([1, 1]).set_requires_grad(true));
    equation_14(&m, &v, &Objective::Smooth(&f), &z).backward();
    let mean = |n: &str| number(&e.of(n).unwrap().mean(Kind::Double));
    assert!((number(&m.grad().squeeze()) - mean("mean")).abs() < 1e-14);
    assert!((number(&v.grad().squeeze()) - mean("variance")).abs() < 1e-14);
}

#[test]
fn stochbp_laplace_kl_is_equation_29() {
    for (m, b) in [(0.4, 0.6), (-1.5, 2.0), (0.0, 1.0)] {
        let p = Laplace::new(&vec1(m), &vec1(b)).unwrap();
        let prior = Laplace::new(&vec1(0.0), &vec1(1.0)).unwrap();
        // log p - log prior has kinks at m and at 0; enough points that the trapezoidal rule does not mind
        let q = Law::Laplace(m, b).quadrature(100_001);
        let difference = p.log_prob(&q.z).unwrap() - prior.log_prob(&q.z).unwrap();
        let by_quadrature = number(&q.mean(&difference.unsqueeze(-1)).squeeze());
        let closed = number(&kl_to_standard(&p.mean, &p.scale).unwrap());
        assert!((by_quadrature - closed).abs() < 1e-7, "{m} {b}: {by_quadrature} {closed}");
    }
}

#[test]
fn stochbp_densities_integrate_to_one_and_scores_are_their_slopes() {
    let z = vector(&[0.13, 0.4, 0.77]).view([3, 1]);
    for law in LAWS {
        let p = law.build();
        let total = {
            let (low, high) = if matches!(law, Law::Beta(..)) { (0.0, 1.0) } else { (-60.0, 60.0) };
            let low = if matches!(law, Law::Gamma(..)) { 0.0 } else { low };
            // substitution z = low + (high - low) (3 s^2 - 2 s^3), whose slope tames the ends, squared twice
            let s = (Tensor::arange(200_000, (Kind::Double, Device::Cpu)) + 0.5) / 2e5;
            let t = s.square() * (s.rsub_scalar(1.5)) * 2.0;
            let slope = &s * s.rsub_scalar(1.0) * 6.0;
            let z = t * (high - low) + low;
            let density = p.log_prob(&z.unsqueeze(-1)).unwrap().exp();
            number(&((density * slope).mean(Kind::Double) * (high - low)))
        };
        assert!((total - 1.0).abs() < 2e-3, "{law:?}: {total}");
        // The score against a central difference of the density.
        for (k, (name, value)) in p.parameters().into_iter().enumerate() {
            let at = |h: f64| {
                let mut values: Vec<f64> = p.parameters().iter().map(|(_, v)| number(&v.squeeze())).collect();
                values[k] += h;
                let (a, b) = (values[0], values[1]);
                let moved = match law {
                    Law::Gaussian(..) => Law::Gaussian(a, b),
                    Law::Laplace(..) => Law::Laplace(a, b),
                    Law::Gamma(..) => Law::Gamma(a, b),
                    Law::Beta(..) => Law::Beta(a, b),
                };
                moved.build().log_prob(&z).unwrap()
            };
            let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
            let score = p.score(&z).unwrap().remove(k).squeeze_dim(-1);
            assert!(relative(&[score], &[difference]) < 1e-8, "{law:?} {name} {value:?}");
        }
    }
}

#[test]
fn stochbp_bad_parameters_are_named() {
    let good = vec1(1.0);
    let words = |e: Error| e.to_string();
    assert!(
        words(Gamma::new(&vec1(-1.0), &good).unwrap_err()).contains("shape[0] must be positive and finite, got -1")
    );
    assert!(words(Laplace::new(&vec1(f64::NAN), &good).unwrap_err()).contains("mean[0] must be finite, got NaN"));
    assert!(words(Beta::new(&good, &vector(&[1.0, 2.0])).unwrap_err()).contains("alike"));
    assert!(words(Gaussian::new(&good, &vec1(0.0)).unwrap_err()).contains("variance[0]"));
    assert!(words(Dirichlet::new(&good).unwrap_err()).contains("at least two entries"));
    let p = Gamma::new(&good, &good).unwrap();
    let bad_shape = Objective::Smooth(&|z| Ok(z.square()));
    let error = rule(Sum::Truncated(2)).estimate(&p, &bad_shape, 5, &mut HostNoise::new(0)).unwrap_err();
    assert!(words(error).contains("stochbp objective"));
    let f = |z: &Tensor| Ok(z.square());
    let error = rule(Sum::Truncated(0)).estimate(&p, &Objective::Separable(&f), 5, &mut HostNoise::new(0)).unwrap_err();
    assert!(words(error).contains("order of a derivative must be at least 1, got 0"));
    // A cubic taken for a quadratic, and a square taken for an exponential
    let cubic = |z: &Tensor| Ok(z.pow_tensor_scalar(3));
    for (f, sum) in [(&cubic as &thruway::stochbp::Function, Sum::Polynomial(2)), (&f, Sum::Exponential)] {
        let error = rule(sum).estimate(&p, &Objective::Separable(f), 5, &mut HostNoise::new(0)).unwrap_err();
        assert!(words(error).contains("the same at all points"));
    }
}
