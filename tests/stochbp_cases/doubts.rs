//! Where a rule cannot be trusted: refused with [`Caution::Refuse`], said in the estimate with [`Caution::Warn`].
use super::stochbp_common::{Law, number, relative, vec1, vector};
use super::{loose, rule};
use tch::{Kind, Tensor};
use thruway::dist::beta::Beta;
use thruway::dist::dirichlet::Dirichlet;
use thruway::dist::gaussian::Gaussian;
use thruway::dist::laplace::Laplace;
use thruway::noise::HostNoise;
use thruway::stochbp::{
    Caution, Function, LOG_SIGMOID_ORDERS, LogCharacteristic, Objective, Outer, SecondOrder, StochasticBackprop, Sum,
    ThroughGammas, log_sigmoid_derivatives,
};

/// Refused with these words; with a warning of the same text where warnings are asked for.
fn doubted(sum: Sum, p: &dyn LogCharacteristic, f: &Objective, samples: i64, words: &str) {
    let estimate = |caution| StochasticBackprop { sum, caution }.estimate(p, f, samples, &mut HostNoise::new(5));
    let refused = estimate(Caution::Refuse).expect_err(words).to_string();
    assert!(refused.contains(words), "{words:?} is not in: {refused}");
    assert_eq!(estimate(Caution::Warn).unwrap().warning, Some(refused));
}

/// `|z_1| + z_2^2`: the second variable's curvature does not hide the first one's kink, whose scale would get 0 for 1.
#[test]
fn stochbp_kinks_are_looked_for_in_each_variable() {
    let p = Laplace::new(&vector(&[0.0, 0.3]), &vector(&[0.7, 0.5])).unwrap();
    let pair = |a: Tensor, b: Tensor| Ok(Tensor::cat(&[a, b], -1));
    let f = |z: &Tensor| pair(z.narrow(-1, 0, 1).abs(), z.narrow(-1, 1, 1).square());
    let f = Objective::Separable(&f);
    for sum in [Sum::Polynomial(2), Sum::Truncated(2), Sum::Truncated(4)] {
        doubted(sum, &p, &f, 50, "the slope of a term without second derivative");
    }
    let warn = StochasticBackprop { sum: Sum::Polynomial(2), caution: Caution::Warn };
    let e = warn.estimate(&p, &f, 50, &mut HostNoise::new(5)).unwrap();
    assert_eq!(number(&e.of("scale").unwrap().select(1, 0).abs().max()), 0.0);
    // no kink where a straight term stands beside the curved one
    let f = |z: &Tensor| pair(z.narrow(-1, 0, 1) * 2.0, z.narrow(-1, 1, 1).square());
    assert!(rule(Sum::Polynomial(2)).estimate(&p, &Objective::Separable(&f), 50, &mut HostNoise::new(5)).is_ok());
}

/// `|z| + z^2` of one variable has a constant second derivative: its kink shows in the expansions about the points.
#[test]
fn stochbp_kinks_in_a_curved_term_are_refused_for_polynomials() {
    let kinked = |z: &Tensor| Ok(z.abs() + z.square());
    let cubed = |z: &Tensor| Ok(z.pow_tensor_scalar(3) + (z - 0.1).relu().square());
    let laws: [(&dyn LogCharacteristic, &str); 2] = [
        (&Laplace::new(&vector(&[0.0, 0.3]), &vector(&[0.7, 0.5])).unwrap(), "laplace"),
        (&Gaussian::new(&vector(&[0.0, 0.3]), &vector(&[0.7, 0.5])).unwrap(), "gaussian"),
    ];
    for (p, name) in laws {
        for (f, degree) in [(&kinked as &Function, 2), (&cubed, 3)] {
            doubted(Sum::Polynomial(degree), p, &Objective::Separable(f), 50, "expanded as that of a polynomial");
            let of_one = Law::Laplace(0.0, 0.7).build();
            let f = |z: &Tensor| Ok(f(z)?.squeeze_dim(-1));
            doubted(Sum::Polynomial(degree), &*of_one, &Objective::Smooth(&f), 50, "expanded as that of a polynomial");
        }
        // in float32 too, a true polynomial passes
        let draws = |kind| p.sample(200, &mut HostNoise::new(6)).unwrap().to_kind(kind) * 5.0;
        for kind in [Kind::Double, Kind::Float] {
            let f = |z: &Tensor| Ok(super::polynomial(z, 5));
            let e = rule(Sum::Polynomial(5)).at(p, &Objective::Separable(&f), &draws(kind));
            assert!(e.is_ok(), "{name} {kind:?}: {:?}", e.err());
        }
    }
}

/// `300 exp(z_1 / 2) + cos 3 z_2`: the large terms of the first variable shrink, those of the second grow by 5.76 an order.
#[test]
fn stochbp_growth_is_looked_for_in_each_variable() {
    let p = Laplace::new(&vector(&[0.0, 0.0]), &vector(&[0.8, 0.8])).unwrap();
    let f =
        |z: &Tensor| Ok(Tensor::cat(&[(z.narrow(-1, 0, 1) * 0.5).exp() * 300.0, (z.narrow(-1, 1, 1) * 3.0).cos()], -1));
    let f = Objective::Separable(&f);
    doubted(
        Sum::Truncated(4),
        &p,
        &f,
        2_000,
        "the last term of the series at order 4, variable 1, over the one before",
    );
    let e = loose(4).estimate(&p, &f, 2_000, &mut HostNoise::new(5)).unwrap();
    // (3 * 0.8)^2, exactly: the fourth derivative of the cosine is -9 times the second
    assert!((e.growth.unwrap() - 5.76).abs() < 1e-9, "{:?}", e.growth);
    // a variable that f does not have hides nothing and raises no alarm
    let f = |z: &Tensor| Ok((z * vector(&[0.5, 0.0])).exp());
    let e = rule(Sum::Truncated(4)).estimate(&p, &Objective::Separable(&f), 2_000, &mut HostNoise::new(5)).unwrap();
    assert!((e.growth.unwrap() - 0.16).abs() < 1e-9, "{:?}", e.growth);
    // what is no number is not passed over for a number
    let f = |z: &Tensor| Ok(Tensor::cat(&[(z.narrow(-1, 0, 1) - 99.0).sqrt(), z.narrow(-1, 1, 1).sin()], -1));
    let e = loose(4).estimate(&p, &Objective::Separable(&f), 50, &mut HostNoise::new(5)).unwrap();
    assert!(e.growth.unwrap().is_nan() && e.warning.unwrap().contains("variable 0"));
}

/// `|z|` of one variable, whose scale would get 0 for 1, in each form that it can be given in.
#[test]
fn stochbp_kinks_of_one_variable_are_refused_in_every_form() {
    let p = Laplace::new(&vec1(0.0), &vec1(0.7)).unwrap();
    let absolute = |z: &Tensor| Ok(z.squeeze_dim(-1).abs());
    for sum in [2, 4, 8].map(Sum::Truncated) {
        doubted(sum, &p, &Objective::Smooth(&absolute), 50, "the slope of a term without second derivative");
    }
    // the inner function affine, the outer one kinked; of two units the second
    let p = Laplace::new(&vector(&[0.0, 0.3]), &vector(&[0.7, 0.5])).unwrap();
    let w = vector(&[1.0, 0.4, -0.5, 2.0]).view([2, 2]);
    let one = |z: &Tensor| Ok((z.matmul(&w.tr()), w.shallow_clone()));
    let each = |z: &Tensor| thruway::stochbp::with_jacobian(&|z| Ok(z.matmul(&w.tr())), z);
    let both = |x: &Tensor| Ok((x - 0.2).abs());
    let second = |x: &Tensor| Ok(Tensor::cat(&[x.narrow(-1, 0, 1).square(), x.narrow(-1, 1, 1).abs()], -1));
    let inners: [&thruway::stochbp::Inner; 2] = [&one, &each];
    for inner in inners {
        for outer in [&both as &Function, &second] {
            let f = Objective::Composite { inner, outer: Outer::Nested(outer) };
            for sum in [Sum::Polynomial(2), Sum::Truncated(2), Sum::Truncated(4)] {
                doubted(sum, &p, &f, 50, "the slope of the outer function of Lemma 3, without second derivative");
            }
        }
        // what is straight, curved or kinked elsewhere passes
        let smooth =
            |x: &Tensor| Ok(Tensor::cat(&[x.narrow(-1, 0, 1).square(), (x.narrow(-1, 1, 1) + 99.0).abs()], -1));
        let f = Objective::Composite { inner, outer: Outer::Nested(&smooth) };
        assert!(rule(Sum::Polynomial(2)).estimate(&p, &f, 50, &mut HostNoise::new(5)).is_ok());
    }
}

/// Eqs. 14 and 24 say where they are no more than a beginning.
#[test]
fn stochbp_second_order_doubts_what_is_not_quadratic() {
    let law = vector(&[2.0, 3.0, 2.5]);
    let z = Dirichlet::new(&law).unwrap();
    let z = thruway::dist::Continuous::sample(&z, 60, &mut HostNoise::new(4)).unwrap();
    let (mean, covariance) = thruway::dist::dirichlet::moments(&law).unwrap();
    let first = |z: &Tensor| z.select(-1, 0);
    let cubic = |z: &Tensor| Ok(first(z).pow_tensor_scalar(3));
    let kinked = |z: &Tensor| Ok((first(z) - 0.25).abs());
    let hidden = |z: &Tensor| Ok((first(z) - 0.25).abs() + z.square().sum_dim_intlist(-1, false, Kind::Double));
    let quadratic = |z: &Tensor| Ok(first(z) * z.select(-1, 1) - z.select(-1, 2) * 3.0);
    let inner = |z: &Tensor| thruway::stochbp::with_jacobian(&|z| Ok((z - 0.25).relu()), z);
    let network = Objective::Composite { inner: &inner, outer: Outer::Nested(&|g| Ok(g.square())) };
    let ask = |gaussian, caution, f: &Objective, z: &Tensor| {
        SecondOrder { gaussian, caution }.surrogate(&mean, &covariance, f, z).map(|(_, warning)| warning)
    };
    for (f, general, gaussian) in [
        (Objective::Smooth(&cubic), Some("the Hessian of a quadratic f"), None),
        (Objective::Smooth(&kinked), Some("without second derivatives"), Some("without second derivatives")),
        (Objective::Smooth(&hidden), Some("expanded as that of a quadratic f"), None),
        (network, Some("the inner function of Lemma 3"), Some("the inner function of Lemma 3")),
        (Objective::Smooth(&quadratic), None, None),
    ] {
        for (is, words) in [(false, general), (true, gaussian)] {
            let warned = ask(is, Caution::Warn, &f, &z).unwrap();
            match (words, ask(is, Caution::Refuse, &f, &z)) {
                (Some(words), Err(refused)) => {
                    assert!(refused.to_string().contains(words), "{words}: {refused}");
                    assert_eq!(warned, Some(refused.to_string()));
                }
                (None, Ok(None)) => assert_eq!(warned, None),
                (words, answer) => panic!("gaussian {is}: {words:?} {answer:?}"),
            }
        }
    }
    let one = ask(false, Caution::Refuse, &Objective::Smooth(&cubic), &z.narrow(0, 0, 1)).unwrap_err().to_string();
    assert!(one.contains("2 points at least"), "{one}");
}

/// An exponential that underflows is named, not answered with what is no number.
#[test]
fn stochbp_an_exponential_of_zero_is_named() {
    let f = |z: &Tensor| Ok((z * -2_000.0).exp());
    for caution in [Caution::Refuse, Caution::Warn] {
        let rule = StochasticBackprop { sum: Sum::Exponential, caution };
        let law = Law::Gamma(9.0, 1.0).build();
        let error =
            rule.estimate(&*law, &Objective::Separable(&f), 20, &mut HostNoise::new(1)).unwrap_err().to_string();
        assert!(error.contains("the value of an exponential f must be other than 0"), "{error}");
    }
}

/// What compares points is refused at one, not passed.
#[test]
fn stochbp_one_point_is_no_check() {
    let p = Laplace::new(&vec1(0.2), &vec1(0.5)).unwrap();
    let square = |z: &Tensor| Ok(z.square());
    let absolute = |z: &Tensor| Ok(z.abs());
    let exponential = |z: &Tensor| Ok((z * 0.4).exp());
    let inner = |z: &Tensor| thruway::stochbp::with_jacobian(&|z| Ok(z.relu()), z);
    let network = Objective::Composite { inner: &inner, outer: Outer::Nested(&square) };
    for (f, sum) in [
        (Objective::Separable(&square), Sum::Polynomial(2)),
        (Objective::Separable(&absolute), Sum::Truncated(4)),
        (Objective::Separable(&exponential), Sum::Exponential),
        (network, Sum::Truncated(2)),
    ] {
        doubted(sum, &p, &f, 1, "must be compared at 2 points at least: draw more, or use Caution::Warn, got 1");
    }
    // a smooth term's own size is known at one point
    assert!(
        rule(Sum::Truncated(4)).estimate(&p, &Objective::Separable(&exponential), 1, &mut HostNoise::new(0)).is_ok()
    );
    let single = loose(4).estimate(&p, &Objective::Separable(&exponential), 1, &mut HostNoise::new(0)).unwrap();
    assert!(single.variance().unwrap_err().to_string().contains("at least 2 for a variance, got 1"));
}

#[test]
fn stochbp_an_order_without_a_term_is_refused() {
    let f = |z: &Tensor| Ok((z * 0.4).exp());
    let f = Objective::Separable(&f);
    for (law, name) in [(Law::Laplace(0.2, 0.5), "scale"), (Law::Gaussian(0.2, 0.5), "variance")] {
        doubted(
            Sum::Truncated(1),
            &*law.build(),
            &f,
            20,
            &format!("the order of the series by {name} must be at least 2"),
        );
        assert!(rule(Sum::Truncated(2)).estimate(&*law.build(), &f, 20, &mut HostNoise::new(0)).is_ok());
    }
    // both parameters of a gamma have a term at 1, and a linear f has no more than that
    assert!(rule(Sum::Truncated(1)).estimate(&*Law::Gamma(2.0, 0.5).build(), &f, 20, &mut HostNoise::new(0)).is_ok());
    let linear = |z: &Tensor| Ok(z * 0.4);
    let p = Law::Laplace(0.2, 0.5).build();
    assert!(rule(Sum::Polynomial(1)).estimate(&*p, &Objective::Separable(&linear), 20, &mut HostNoise::new(0)).is_ok());
}

/// Eqs. 20 and 21 say what the gamma rule inside them says, and see the kinks of f that it cannot.
#[test]
fn stochbp_through_gammas_hands_on_every_warning() {
    let p = Beta::new(&vec1(2.0), &vec1(5.0)).unwrap();
    let dirichlet = Dirichlet::new(&vector(&[2.0, 3.0, 2.0])).unwrap();
    let smooth = |z: &Tensor| Ok(z.select(-1, 0));
    let smooth = Objective::Smooth(&smooth);
    // some 20 / total from one derivative to the next
    let wavy = |z: &Tensor| Ok((z.select(-1, 0) * 40.0).sin());
    let wavy = Objective::Smooth(&wavy);
    let kinked = |z: &Tensor| Ok((z - 0.3).abs());
    let kinked = Objective::Separable(&kinked);
    let inner = |z: &Tensor| thruway::stochbp::with_jacobian(&|z| Ok((z - 0.3).relu()), z);
    let network = Objective::Composite { inner: &inner, outer: Outer::Nested(&|g| Ok(g.square())) };
    let affine = |z: &Tensor| thruway::stochbp::with_jacobian(&|z| Ok(z * 2.0), z);
    let bent = Objective::Composite { inner: &affine, outer: Outer::Nested(&|g| Ok((g - 0.6).abs())) };
    let run = |order, caution, f: &Objective| {
        let rule = ThroughGammas { order, caution };
        let a = rule.beta(&p, f, 2_000, &mut HostNoise::new(8)).map(|e| (e.warning, e.growth));
        let b = rule.dirichlet(&dirichlet, f, 2_000, &mut HostNoise::new(8)).map(|e| (e.warning, e.growth));
        [a, b]
    };
    for (order, f, words) in [
        (3, &wavy, &["last term of the series"][..]),
        (4, &wavy, &["below half the sum", "last term of the series"]),
        (2, &kinked, &["without second derivative"]),
        (4, &kinked, &["below half the sum", "without second derivative"]),
        (2, &network, &["the inner function of Lemma 3"]),
        (2, &bent, &["the outer function of Lemma 3"]),
    ] {
        for e in run(order, Caution::Warn, f) {
            let (warning, growth) = e.unwrap();
            let warning = warning.unwrap();
            assert!(words.iter().all(|w| warning.contains(w)), "order {order}: {words:?} are not in: {warning}");
            assert!(growth.unwrap() > 0.0);
        }
        for e in run(order, Caution::Refuse, f) {
            let refused = e.expect_err(words[0]).to_string();
            assert!(refused.contains(words[0]), "order {order}: {refused}");
        }
    }
    // of one variable: a beta's
    let absolute = |z: &Tensor| Ok((z.squeeze_dim(-1) - 0.3).abs());
    let strict = ThroughGammas { order: 2, caution: Caution::Refuse };
    let refused = strict.beta(&p, &Objective::Smooth(&absolute), 200, &mut HostNoise::new(8)).unwrap_err().to_string();
    assert!(refused.contains("without second derivative"), "{refused}");
    // mean squares of the two terms as 1 to 4 * 3
    for e in run(2, Caution::Refuse, &smooth) {
        assert_eq!(e.unwrap().0, None);
    }
}

/// At 0 the derivatives of even order are `-(2^n - 1) B_n / n` with the Bernoulli numbers; in the tails and in float32
/// no digits are lost, up to the last order.
#[test]
fn stochbp_log_sigmoid_derivatives_keep_their_digits() {
    let bernoulli: [(i64, f64); 6] = [
        (2, 1.0 / 6.0),
        (4, -1.0 / 30.0),
        (8, -1.0 / 30.0),
        (16, -3617.0 / 510.0),
        (20, -174_611.0 / 330.0),
        (24, -236_364_091.0 / 2730.0),
    ];
    let x = vector(&[0.0, 12.0, -12.0, 1.3, -1.3]);
    let all = log_sigmoid_derivatives(&x, LOG_SIGMOID_ORDERS).unwrap();
    let narrow = log_sigmoid_derivatives(&x.to_kind(Kind::Float), LOG_SIGMOID_ORDERS).unwrap();
    for (n, b) in bernoulli {
        let truth = -(2f64.powi(n as i32) - 1.0) * b / n as f64;
        let (ours, single) = (&all[n as usize - 1], &narrow[n as usize - 1]);
        let error = number(&ours.get(0)) / truth - 1.0;
        // (pi / log 3)^n 1e-16, three times
        assert!(error.abs() < 3.0 * 2.86f64.powi(n as i32) * 1e-16 + 1e-15, "order {n}: {error:e}");
        // what is left is the rounding of x: a few 1e-8 times the next derivative
        let lost = (ours - single.to_kind(Kind::Double)).abs() / ours.abs();
        assert!(number(&lost.max()) < 1e-3, "order {n}: float32 loses {lost}");
        // far out, log sigmoid x = -exp(-x) + exp(-2 x) / 2 - ..
        let tail: f64 =
            (1..=12).map(|k| (-1f64).powi(k) * (-12.0 * k as f64).exp() * (k as f64).powi(n as i32 - 1)).sum();
        assert!((number(&ours.get(1)) / tail - 1.0).abs() < 1e-9, "order {n}: {tail:e}");
    }
    // even orders are even, odd ones odd, but for the first
    for (n, d) in (1..).zip(&all).skip(1) {
        let sign = if n % 2 == 0 { 1.0 } else { -1.0 };
        assert_eq!((number(&d.get(1)), number(&d.get(3))), (sign * number(&d.get(2)), sign * number(&d.get(4))));
    }
    // each is the slope of the one before
    let h = 1e-3;
    for (n, next) in (1..).zip(&all[1..]) {
        let at = |h: f64| log_sigmoid_derivatives(&(&x + h), n).unwrap().remove(n as usize - 1);
        let slope = (at(h) - at(-h)) / (2.0 * h);
        assert!(relative(&[slope], &[next.shallow_clone()]) < 1e-4, "order {}", n + 1);
    }
    for order in [0, LOG_SIGMOID_ORDERS + 1] {
        let error = log_sigmoid_derivatives(&x, order).unwrap_err().to_string();
        assert!(error.contains("must be 1 to 24") && error.contains(&format!("got {order}")), "{error}");
    }
}
