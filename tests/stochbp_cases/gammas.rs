//! Eqs. 20, 21 and 24: beta and Dirichlet variables.
use super::stochbp_common::{Law, Quadrature, number, relative, vec1, vector};
use tch::{Device, Kind, Tensor};
use thruway::dist::Continuous;
use thruway::dist::beta::Beta;
use thruway::dist::dirichlet::{Dirichlet, moments};
use thruway::noise::{HostNoise, Tape};
use thruway::stochbp::{Caution, Estimate, Function, Objective, Outer, SecondOrder, ThroughGammas, with_jacobian};

/// As in `tests/common`: 6.8e-6 false alarms.
const Z_LIMIT: f64 = 4.5;

/// Two gamma variables on a grid, as a tape for the rules that draw them, with weights.
fn gammas(a: f64, b: f64) -> (Tensor, Tensor) {
    let q = Law::Gamma(a, 1.0).quadrature(181).product(&Law::Gamma(b, 1.0).quadrature(181));
    (q.z, q.w)
}

/// Eqs. 20 and 21 are the start of an asymptotic series: in expectation the error at order N is at most the first term left
/// out, for linear f; terms have a closed form; and orders from half of alpha + beta on are refused.
#[test]
fn stochbp_beta_and_dirichlet_through_gammas() {
    let (a, b) = (4.0, 9.0);
    let (zeta, w) = gammas(a, b);
    let q = Quadrature { z: zeta.shallow_clone(), w, scores: vec![] };
    let p = Beta::new(&vec1(a), &vec1(b)).unwrap();
    let dirichlet = Dirichlet::new(&vector(&[a, b])).unwrap();
    let f = |z: &Tensor| Ok(z.select(-1, 0));
    let f = Objective::Smooth(&f);
    let s = zeta.size()[0];
    let c = a + b;
    let truth = [b / (c * c), -a / (c * c)];
    // (1/n) E d^n z / d zeta_1^n = (-1)^(n+1) (n-1)! (b / c) / ((c-1) .. (c-n))
    let term = |n: i64| {
        let product: f64 = (1..n).map(|j| j as f64).product();
        let below: f64 = (1..=n).map(|j| c - j as f64).product();
        product / below / c * if n % 2 == 1 { 1.0 } else { -1.0 }
    };
    for order in 1..=6 {
        // the grid's points are no draws, so their root mean squares tell nothing
        let rule = ThroughGammas { order, caution: Caution::Warn };
        let tape = || Tape::new([("gamma", zeta.shallow_clone())]);
        let e = rule.beta(&p, &f, s, &mut tape()).unwrap();
        let [ours_a, ours_b] = ["alpha", "beta"].map(|n| number(&q.mean(e.of(n).unwrap()).squeeze()));
        let sum: f64 = (1..=order).map(term).sum();
        assert!(a * term(order).abs() > 1e-5, "order {order}: a wrong factor in this term is seen");
        assert!((ours_a - b * sum).abs() < 1e-9 && (ours_b + a * sum).abs() < 1e-9, "order {order}: {ours_a} {ours_b}");
        let missing = (ours_a - truth[0]).abs();
        assert!(missing <= b * term(order + 1).abs() && missing > 1e-6, "order {order}: {missing:e}");
        let e = rule.dirichlet(&dirichlet, &f, s, &mut tape()).unwrap();
        let ours = q.mean(e.of("concentration").unwrap());
        assert!(number(&(ours - vector(&[b * sum, -a * sum])).abs().max()) < 1e-9, "order {order}");
    }
    let strict = ThroughGammas { order: 7, caution: Caution::Refuse };
    for error in [
        strict.beta(&p, &f, 10, &mut HostNoise::new(0)).unwrap_err(),
        strict.dirichlet(&dirichlet, &f, 10, &mut HostNoise::new(0)).unwrap_err(),
    ] {
        assert!(error.to_string().contains("below half the sum of the concentrations, 13"), "{error}");
    }
    let e = ThroughGammas { caution: Caution::Warn, ..strict }.beta(&p, &f, 10, &mut HostNoise::new(0)).unwrap();
    assert!(e.warning.unwrap().contains("variance is infinite"));
}

/// Independent gamma variables of scale 1 on a grid in their logarithms, weights, and the scores of their shapes `[S, K]`. The
/// grid ends where the density is below 1e-10 of its largest; in 33 points a variable the trapezoidal rule's error is less.
fn grid(shapes: &[f64]) -> (Tensor, Tensor, Tensor) {
    let one = |a: &f64| {
        let (low, high) = (a.ln() - 25.0 / a - 1.2, a.ln() + (3.0 + 28.0 / a).ln());
        let u = Tensor::linspace(low, high, 33, (Kind::Double, Device::Cpu));
        let w = (&u * *a - u.exp()).exp();
        let w = &w / w.sum(Kind::Double);
        (u.exp(), w, &u - vec1(*a).digamma())
    };
    let each: Vec<(Tensor, Tensor, Tensor)> = shapes.iter().map(one).collect();
    let all = |pick: fn(&(Tensor, Tensor, Tensor)) -> &Tensor| {
        Tensor::cartesian_prod(&each.iter().map(pick).collect::<Vec<_>>())
    };
    (all(|t| &t.0), all(|t| &t.1).prod_dim_int(-1, false, Kind::Double), all(|t| &t.2))
}

/// Four units with ReLU over d inputs in [0, 1], one of which is always off: a kink, but none inside the support.
fn network(z: &Tensor) -> Tensor {
    let w = vector(&[0.5, 0.3, 0.9, 0.2, 0.9, 0.1, -0.4, -0.6, -0.2, 1.0, 2.0, 0.4]).view([4, 3]);
    let w = w.narrow(-1, 0, *z.size().last().unwrap());
    let hidden = (z.matmul(&w.tr()) + vector(&[0.1, 0.4, -0.2, 0.0])).relu();
    hidden.matmul(&vector(&[-0.4, 0.2, 5.0, 0.3]).view([4, 1]))
}

/// A rule's estimates at points on a grid, its gradients side by side.
fn at(rule: ThroughGammas, law: &[f64], f: &Objective, zeta: &Tensor) -> Tensor {
    let (s, mut tape) = (zeta.size()[0], Tape::new([("gamma", zeta.shallow_clone())]));
    let e = match law {
        [a, b] => rule.beta(&Beta::new(&vec1(*a), &vec1(*b)).unwrap(), f, s, &mut tape),
        all => rule.dirichlet(&Dirichlet::new(&vector(all)).unwrap(), f, s, &mut tape),
    };
    side_by_side(&e.unwrap())
}

fn side_by_side(e: &Estimate) -> Tensor {
    Tensor::cat(&e.gradients.iter().map(|(_, g)| g).collect::<Vec<_>>(), -1)
}

/// The objectives, of d variables: polynomial, exponential, networks with ReLU.
fn with_objectives(mut check: impl FnMut(&str, &Objective)) {
    let square = |z: &Tensor| Ok(z.square() * vector(&[1.0, 0.5, -0.3]).narrow(0, 0, *z.size().last().unwrap()));
    let c = |z: &Tensor| vector(&[-0.8, 0.6, 0.3]).narrow(0, 0, *z.size().last().unwrap());
    let exponential = |z: &Tensor| Ok(z.matmul(&c(z)).exp());
    let g = |z: &Tensor| Ok(network(z));
    let inner = |z: &Tensor| with_jacobian(&g, z);
    let squared = |x: &Tensor| Ok((x - 0.3).square());
    let decayed = |x: &Tensor| Ok((x * -1.5).exp());
    let composite = |h| Objective::Composite { inner: &inner, outer: Outer::Nested(h) };
    check("z^2", &Objective::Separable(&square));
    check("exp", &Objective::Smooth(&exponential));
    check("square of a network", &composite(&squared as &Function));
    check("exp of a network", &composite(&decayed));
}

/// In expectation the largest error at order N is at most the largest of the first terms left out, and the terms shrink.
#[test]
fn stochbp_equations_20_and_21_err_by_no_more_than_the_next_term() {
    for law in [&[4.0, 9.0][..], &[4.0, 5.0, 6.0]] {
        let (zeta, w, scores) = grid(law);
        let mean = |t: &Tensor| (t * w.unsqueeze(-1)).sum_dim_intlist(0i64, false, Kind::Double);
        let k = if law.len() == 2 { 1 } else { law.len() as i64 };
        let z = (&zeta / zeta.sum_dim_intlist(-1, true, Kind::Double)).narrow(-1, 0, k);
        with_objectives(|name, f| {
            let truth = mean(&(scores.shallow_clone() * f.value(&z).unwrap().detach().unsqueeze(-1)));
            let sums: Vec<Tensor> = (1..=4)
                .map(|order| mean(&at(ThroughGammas { order, caution: Caution::Warn }, law, f, &zeta)))
                .collect();
            let far = |a: &Tensor, b: &Tensor| number(&(a - b).abs().max());
            for n in 1..=3 {
                let (error, next) = (far(&sums[n - 1], &truth), far(&sums[n], &sums[n - 1]));
                assert!(error <= next, "{law:?} {name} order {n}: {error:e}, next term {next:e}");
                // which is far beyond the grid's error
                assert!(error > 1e-6, "{law:?} {name} order {n}: {error:e}");
            }
            // wrong factors of the first or second term break the bound
            let next = far(&sums[3], &sums[2]);
            for wrong in [&sums[2] + &sums[0] * 0.1, &sums[2] + (&sums[1] - &sums[0]) * 0.5] {
                assert!(far(&wrong, &truth) > next, "{law:?} {name}: a mutant passes");
            }
            assert!(far(&sums[2], &truth) < 0.1 * number(&truth.abs().max()), "{law:?} {name}");
        });
    }
}

/// By sampling, at concentrations where what order 4 leaves out is less than a tenth of a standard error.
#[test]
fn stochbp_equations_20_and_21_pass_a_z_test() {
    let rule = ThroughGammas { order: 4, caution: Caution::Refuse };
    let mut noise = HostNoise::new(41);
    let samples = 20_000;
    for law in [&[16.0, 24.0][..], &[9.0, 14.0, 17.0]] {
        let (zeta, w, scores) = grid(law);
        let k = if law.len() == 2 { 1 } else { law.len() as i64 };
        let z = (&zeta / zeta.sum_dim_intlist(-1, true, Kind::Double)).narrow(-1, 0, k);
        with_objectives(|name, f| {
            let value = f.value(&z).unwrap().detach();
            let truth = (&scores * (value * &w).unsqueeze(-1)).sum_dim_intlist(0i64, false, Kind::Double);
            let e = match law {
                [a, b] => rule.beta(&Beta::new(&vec1(*a), &vec1(*b)).unwrap(), f, samples, &mut noise),
                all => rule.dirichlet(&Dirichlet::new(&vector(all)).unwrap(), f, samples, &mut noise),
            };
            let g = side_by_side(&e.unwrap());
            let se = (g.var_dim(0i64, true, false) / samples as f64).sqrt();
            let z = |factor: f64| (g.mean_dim(0i64, false, Kind::Double) * factor - &truth).abs() / &se;
            // eight laws and objectives, 2 or 3 coordinates: 6.8e-6 false alarms each
            assert!(number(&z(1.0).max()) < Z_LIMIT, "{law:?} {name}: {}", number(&z(1.0).max()));
            assert!(number(&z(1.2).max()) > Z_LIMIT, "{law:?} {name}: a mutant passes, {}", number(&z(1.2).max()));
        });
    }
}

/// Eq. 24 for a Dirichlet: exact for quadratic f, on any points of the right mean (its a_2 meets a constant Hessian).
#[test]
fn stochbp_dirichlet_is_exact_on_quadratics_to_second_order() {
    let a = vector(&[0.7, 2.0, 1.4]).set_requires_grad(true);
    let (mean, covariance) = moments(&a).unwrap();
    let h = vector(&[1.0, -0.5, 0.3, -0.5, 2.0, 0.1, 0.3, 0.1, -0.7]).view([3, 3]);
    let c = vector(&[0.2, -1.0, 0.4]);
    let f = |z: &Tensor| Ok((z.matmul(&h) * z).sum_dim_intlist(-1, false, Kind::Double) + z.matmul(&c));
    let (m, away) = (mean.detach(), vector(&[0.05, -0.02, 0.07]));
    let points = Tensor::stack(&[&m + &away, &m - &away], 0);
    let rule = SecondOrder { gaussian: false, caution: Caution::Refuse };
    rule.surrogate(&mean, &covariance, &Objective::Smooth(&f), &points).unwrap().0.backward();
    // E z_i z_j = a_i (a_j + [i = j]) / (c (c + 1))
    let leaf = a.detach().set_requires_grad(true);
    let total = leaf.sum(Kind::Double);
    let second = (leaf.unsqueeze(-1) * leaf.unsqueeze(0) + leaf.diag(0)) / (&total * (&total + 1.0));
    let value = (second * &h).sum(Kind::Double) + (&leaf / total).dot(&c);
    value.backward();
    assert!(relative(&[a.grad()], &[leaf.grad()]) < 1e-13);
}

/// Eq. 24 on an exponential, and on one of a network, leaves out the third order: an error of the size of e^3, which is said.
#[test]
fn stochbp_dirichlet_to_second_order_on_exponentials() {
    let law = [4.0, 5.0, 6.0];
    let (zeta, w, scores) = grid(&law);
    let z = &zeta / zeta.sum_dim_intlist(-1, true, Kind::Double);
    let c = vector(&[-0.8, 0.6, 0.3]).view([3, 1]);
    let linear = |z: &Tensor| z.matmul(&c);
    for (name, g) in [("exp", &linear as &dyn Fn(&Tensor) -> Tensor), ("exp of a network", &network)] {
        let error = |e: f64| {
            let f = |z: &Tensor| Ok((g(z) * e).squeeze_dim(-1).exp());
            let value = f(&z).unwrap();
            let truth = (&scores * (value * &w).unsqueeze(-1)).sum_dim_intlist(0i64, false, Kind::Double);
            let a = vector(&law).set_requires_grad(true);
            let (mean, covariance) = moments(&a).unwrap();
            // every point counts by its weight
            let many = w.size()[0] as f64;
            let weighted = |z: &Tensor| Ok(f(z)? * &w * many);
            let rule = SecondOrder { gaussian: false, caution: Caution::Warn };
            let (loss, _) = rule.surrogate(&mean, &covariance, &Objective::Smooth(&weighted), &z).unwrap();
            loss.backward();
            // at draws, where it is refused
            let p = Dirichlet::new(&vector(&law)).unwrap();
            let draws = p.sample(50, &mut HostNoise::new(3)).unwrap();
            let warned = rule.surrogate(&mean, &covariance, &Objective::Smooth(&f), &draws).unwrap().1.unwrap();
            let strict = SecondOrder { caution: Caution::Refuse, ..rule };
            let refused = strict.surrogate(&mean, &covariance, &Objective::Smooth(&f), &draws).unwrap_err().to_string();
            assert!(refused.contains("the Hessian of a quadratic f") && warned == refused, "{name}: {refused}");
            relative(&[a.grad()], &[truth])
        };
        let (large, small) = (error(1.0), error(0.5));
        // relative to a gradient of the size of e: e^2, so 4 times
        assert!(large < 2e-2 && (3.0..5.5).contains(&(large / small)), "{name}: {large:e} {small:e}");
    }
}
