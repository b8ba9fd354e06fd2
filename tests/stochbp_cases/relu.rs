//! Networks with ReLU: Lemma 3 where no kink lies inside the support, on both sides of one that does, and where one biases.
use super::stochbp_common::{Law, Quadrature, number, relative, vec1, vector};
use super::{loose, polynomial, rule};
use tch::{Kind, Tensor};
use thruway::dist::{beta::Beta, gamma::Gamma, gaussian::Gaussian, laplace::Laplace};
use thruway::noise::HostNoise;
use thruway::stochbp::{
    Caution, Function, LogCharacteristic, Objective, Outer, StochasticBackprop, Sum, with_jacobian,
};

/// Two inputs, four units with ReLU, one output; on z > 0 the first two units are always on, the third always off, and the
/// last one turns at `z_1 = 2 z_2` where `kink`, else is always on.
fn network(z: &Tensor, kink: bool) -> Tensor {
    let last = if kink { [1.0, -2.0] } else { [1.0, 2.0] };
    let w = vector(&[0.5, 0.3, 0.2, 0.9, -0.4, -0.6, last[0], last[1]]).view([4, 2]);
    let hidden = (z.matmul(&w.tr()) + vector(&[0.1, 0.4, -0.2, 0.0])).relu();
    hidden.matmul(&vector(&[-0.4, 0.2, 5.0, 0.3]).view([4, 1]))
}

/// Two variables of each law; the last number moves the kinks of [`network`] off: beyond every point of the quadrature for laws
/// on the whole line, whose density there is below 1e-80.
fn pairs() -> Vec<(Box<dyn LogCharacteristic>, Quadrature, f64)> {
    let two = |a: f64, b: f64| vector(&[a, b]);
    let grid = |a: Law, b: Law| a.quadrature(201).product(&b.quadrature(201));
    vec![
        (
            Box::new(Gamma::new(&two(2.3, 1.4), &two(0.4, 0.7)).unwrap()),
            grid(Law::Gamma(2.3, 0.4), Law::Gamma(1.4, 0.7)),
            0.0,
        ),
        (
            Box::new(Beta::new(&two(2.0, 1.3), &two(3.5, 0.8)).unwrap()),
            grid(Law::Beta(2.0, 3.5), Law::Beta(1.3, 0.8)),
            0.0,
        ),
        (
            Box::new(Gaussian::new(&two(0.3, -0.2), &two(0.7, 0.4)).unwrap()),
            grid(Law::Gaussian(0.3, 0.7), Law::Gaussian(-0.2, 0.4)),
            300.0,
        ),
        (
            Box::new(Laplace::new(&two(0.2, -0.4), &two(0.5, 0.6)).unwrap()),
            grid(Law::Laplace(0.2, 0.5), Law::Laplace(-0.4, 0.6)),
            300.0,
        ),
    ]
}

/// Every rule on every law: truth by quadrature, which shares no code with the rules. Exact to rounding; Eq. 26 to its
/// truncation error, which is below rounding at order 14 (the ratio of terms is at most 0.4 * 0.8 * 0.7).
#[test]
fn stochbp_relu_network_by_lemma_3() {
    let square = |x: &Tensor| Ok((x - 0.7).square());
    let power = |x: &Tensor| Ok(polynomial(x, 4));
    let exponential = |x: &Tensor| Ok((x * -0.4).exp());
    let away = |x: &Tensor| Ok((x + 900.0).abs());
    let cases: [(&str, &Function, Sum); 5] = [
        ("Eq. 23, the kink of |.| never met", &away, Sum::Polynomial(1)),
        ("Eq. 24", &square, Sum::Polynomial(2)),
        ("degree 4", &power, Sum::Polynomial(4)),
        ("Eq. 25", &exponential, Sum::Exponential),
        ("Eq. 26", &exponential, Sum::Truncated(14)),
    ];
    for (p, q, shift) in pairs() {
        // about 0 at z = 0
        let g = |z: &Tensor| Ok(network(&(z + shift), false) - network(&(z.zeros_like() + shift), false));
        let inner = |z: &Tensor| with_jacobian(&g, z);
        for (name, outer, sum) in cases {
            let f = Objective::Composite { inner: &inner, outer: Outer::Nested(outer) };
            let ours = q.expectation(&rule(sum).at(&*p, &f, &q.z).unwrap());
            let error = relative(&ours, &q.truth(&f));
            // rounding, of values 900 times the gradient for |.|
            assert!(error < 1e-8, "{} {name}: {error:e}", p.name());
            // a derivative less, or a truncation at 2, is a plain error where the law sees the difference
            let few = match sum {
                Sum::Polynomial(1) => None,
                Sum::Polynomial(2) => Some(1),
                Sum::Polynomial(_) | Sum::Truncated(_) if p.last().is_none() => Some(2),
                _ => None,
            };
            if let Some(few) = few {
                let less = relative(&q.expectation(&loose(few).at(&*p, &f, &q.z).unwrap()), &q.truth(&f));
                assert!(less > 1e-6, "{} {name}: order {few} has {less:e}", p.name());
            }
        }
    }
}

/// Three outputs whose units turn among the points: the derivatives by Lemma 3 are those by nested autograd of the whole, point
/// by point, and so are the estimates.
#[test]
fn stochbp_relu_network_by_lemma_3_on_both_sides_of_a_kink() {
    let w = vector(&[1.0, -2.0, 0.5, 0.3, -1.0, 1.0, 0.7, 0.9]).view([4, 2]);
    let v = vector(&[0.6, -0.4, 0.2, 0.3, -0.5, 0.8, 0.1, 0.9, 0.7, -0.3, 0.4, -0.2]).view([4, 3]);
    let g = |z: &Tensor| Ok((z.matmul(&w.tr()) + vector(&[0.0, 0.1, -0.2, -0.5])).relu().matmul(&v));
    let inner = |z: &Tensor| with_jacobian(&g, z);
    let outer = |x: &Tensor| Ok((x * -0.7).exp() + x.pow_tensor_scalar(3));
    let lemma = Objective::Composite { inner: &inner, outer: Outer::Nested(&outer) };
    let whole = |z: &Tensor| Ok(outer(&g(z)?)?.sum_dim_intlist(-1, false, Kind::Double));
    let whole = Objective::Smooth(&whole);
    // pairs on the two sides of z_1 = 2 z_2, of z_2 = z_1 + 0.2, and of 0.7 z_1 + 0.9 z_2 = 0.5
    let z = vector(&[1.001, 0.5, 0.999, 0.5, 0.4, 0.601, 0.4, 0.599, 0.2, 0.401, 0.2, 0.399]).view([6, 2]);
    let jacobian = with_jacobian(&g, &z).unwrap().1;
    for pair in 0..3 {
        let jump = number(&(jacobian.get(2 * pair) - jacobian.get(2 * pair + 1)).abs().max());
        assert!(jump > 0.05, "pair {pair} lies on one side: {jump}");
    }
    let (a, b) = (lemma.derivatives(&z, 5).unwrap(), whole.derivatives(&z, 5).unwrap());
    assert!(relative(&[a.value], &[b.value]) < 1e-14);
    for (n, (a, b)) in (1..).zip(a.pure.iter().zip(&b.pure)) {
        assert!(relative(&[a.shallow_clone()], &[b.shallow_clone()]) < 1e-12, "order {n}");
        let jump = number(&(a.get(0) - a.get(1)).abs().max());
        assert!(jump > 1e-3, "order {n} does not see the kink: {jump:e}");
    }
    let p = Laplace::new(&vector(&[0.5, 0.5]), &vector(&[0.4, 0.3])).unwrap();
    let [a, b] = [&lemma, &whole].map(|f| loose(4).at(&p, f, &z).unwrap());
    for name in ["mean", "scale"] {
        let of = |e: &thruway::stochbp::Estimate| [e.of(name).unwrap().shallow_clone()];
        assert!(relative(&of(&a), &of(&b)) < 1e-12, "{name}");
    }
    assert!(a.warning.unwrap().contains("Lemma 3"));
}

/// What needs the first derivative alone is exact with kinks inside the support: the means of Gaussian and Laplace variables.
/// The trapezoidal rule has an error of the square of its step at a kink.
#[test]
fn stochbp_relu_network_with_kinks_is_exact_by_location() {
    let square = |x: &Tensor| Ok((x - 0.7).square());
    let exponential = |x: &Tensor| Ok((x * -0.4).exp());
    let g = |z: &Tensor| Ok(network(z, true));
    let inner = |z: &Tensor| with_jacobian(&g, z);
    for (p, q, _) in pairs().into_iter().skip(2) {
        for outer in [&square as &Function, &exponential] {
            let f = Objective::Composite { inner: &inner, outer: Outer::Nested(outer) };
            let ours = q.expectation(&loose(1).at(&*p, &f, &q.z).unwrap());
            let error = relative(&ours[..1], &q.truth(&f)[..1]);
            assert!(error < 1e-2, "{}: {error:e}", p.name());
            assert!(relative(&[&ours[0] * 1.05], &q.truth(&f)[..1]) > 2e-2, "a factor of 1.05 is seen");
        }
    }
}

/// Lemma 3 where a kink lies within the support: the derivatives beyond the first have mass there that autograd calls 0.
#[test]
fn stochbp_kinks_are_refused_and_bias_the_rule() {
    let laws = [Law::Gamma(2.3, 0.4), Law::Gamma(1.4, 0.7)];
    let q = laws[0].quadrature(301).product(&laws[1].quadrature(301));
    let p = Gamma::new(&vector(&[2.3, 1.4]), &vector(&[0.4, 0.7])).unwrap();
    let g = |z: &Tensor| Ok(network(z, true));
    let inner = |z: &Tensor| with_jacobian(&g, z);
    let f = Objective::Composite { inner: &inner, outer: Outer::Nested(&|x| Ok((x - 0.7).square())) };
    for sum in [Sum::Polynomial(2), Sum::Truncated(2)] {
        let refused = rule(sum).estimate(&p, &f, 50, &mut HostNoise::new(0)).unwrap_err().to_string();
        assert!(refused.contains("Lemma 3") && refused.contains("kink"), "{refused}");
    }
    let warn = StochasticBackprop { sum: Sum::Polynomial(2), caution: Caution::Warn };
    let e = warn.at(&p, &f, &q.z).unwrap();
    assert!(e.warning.is_some());
    let error = relative(&q.expectation(&e), &q.truth(&f));
    assert!(error > 0.01, "the bias is plain: {error:e}");
    // Eq. 23 for E |z| = b under Laplace(0, b): 0 in place of 1
    let p = Laplace::new(&vec1(0.0), &vec1(0.7)).unwrap();
    let q = Law::Laplace(0.0, 0.7).quadrature(2001);
    let f = |z: &Tensor| Ok(z.abs());
    let f = Objective::Separable(&f);
    let e = StochasticBackprop { sum: Sum::Polynomial(1), caution: Caution::Warn }.at(&p, &f, &q.z).unwrap();
    assert_eq!(number(&q.expectation(&e)[1].squeeze()), 0.0);
    assert!((number(&q.truth(&f)[1].squeeze()) - 1.0).abs() < 1e-10);
    assert!(e.warning.unwrap().contains("kink"));
    let refused = rule(Sum::Truncated(8)).at(&p, &f, &q.z).unwrap_err().to_string();
    assert!(refused.contains("without second derivative") && refused.contains("kink"), "{refused}");
}
