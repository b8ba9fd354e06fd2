//! Theorem 2 for discrete variables: Eqs. 9, 11 to 13, 16 and 17, each against enumeration of all states.

/// Real and imaginary part.
type Complex = (f64, f64);

fn plus(a: Complex, b: Complex) -> Complex {
    (a.0 + b.0, a.1 + b.1)
}

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

fn scaled(a: Complex, x: f64) -> Complex {
    (a.0 * x, a.1 * x)
}

fn over(a: Complex, b: Complex) -> Complex {
    scaled(times(a, (b.0, -b.1)), 1.0 / (b.0 * b.0 + b.1 * b.1))
}

fn far(a: Complex, b: Complex) -> f64 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

/// Variables from `first` on, their joint values, and each value's probability and its derivative by theta. The last value is
/// the normalising one, `z*`.
struct Clique {
    first: usize,
    values: Vec<Vec<i32>>,
    p: Vec<f64>,
    slope: Vec<f64>,
}

impl Clique {
    /// `exp(i w . z)` at the value numbered k.
    fn wave(&self, w: &[f64; 3], k: usize) -> Complex {
        let angle: f64 = self.values[k].iter().zip(&w[self.first..]).map(|(z, w)| *z as f64 * w).sum();
        (angle.cos(), angle.sin())
    }

    fn star(&self) -> usize {
        self.values.len() - 1
    }

    /// Eq. 11, right: the characteristic function of one clique.
    fn phi(&self, w: &[f64; 3]) -> Complex {
        let free: f64 = self.p[..self.star()].iter().sum();
        let rest = scaled(self.wave(w, self.star()), 1.0 - free);
        (0..self.star()).fold(rest, |sum, k| plus(sum, scaled(self.wave(w, k), self.p[k])))
    }

    /// The inner sum of Eq. 12.
    fn slope_of_log_phi(&self, w: &[f64; 3]) -> Complex {
        let difference = |k| plus(self.wave(w, k), scaled(self.wave(w, self.star()), -1.0));
        (0..self.star()).fold((0.0, 0.0), |sum, k| plus(sum, scaled(over(difference(k), self.phi(w)), self.slope[k])))
    }
}

/// Two dependent variables and a single one.
fn cliques() -> [Clique; 2] {
    [
        Clique {
            first: 0,
            values: vec![vec![0, 0], vec![0, 2], vec![1, 1], vec![1, 0]],
            p: vec![0.2, 0.3, 0.1, 0.4],
            slope: vec![0.5, -0.2, 0.7, -1.0],
        },
        Clique {
            first: 2,
            values: vec![vec![-1], vec![0], vec![2]],
            p: vec![0.5, 0.2, 0.3],
            slope: vec![-0.4, 0.9, -0.5],
        },
    ]
}

fn f(j: usize, k: usize) -> f64 {
    ((j * 3 + k) as f64 * 1.37).sin() + (j * k) as f64
}

/// `sum_z of(j, k) exp(sign i w . z)` over all states of the two cliques.
fn transform(c: &[Clique; 2], w: &[f64; 3], sign: f64, of: impl Fn(usize, usize) -> f64) -> Complex {
    let w = w.map(|w| sign * w);
    let mut sum = (0.0, 0.0);
    for j in 0..c[0].values.len() {
        for k in 0..c[1].values.len() {
            sum = plus(sum, scaled(times(c[0].wave(&w, j), c[1].wave(&w, k)), of(j, k)));
        }
    }
    sum
}

#[test]
fn stochbp_equations_11_and_12_characteristic_function_of_cliques() {
    let c = cliques();
    for w in [[0.3, -1.1, 2.0], [-2.9, 0.7, 0.4], [1.0, 2.5, -0.8]] {
        let whole = transform(&c, &w, 1.0, |j, k| c[0].p[j] * c[1].p[k]);
        assert!(far(whole, times(c[0].phi(&w), c[1].phi(&w))) < 1e-14, "Eq. 11 at {w:?}");
        let slope = transform(&c, &w, 1.0, |j, k| c[0].slope[j] * c[1].p[k] + c[0].p[j] * c[1].slope[k]);
        let truth = over(slope, whole);
        let each = [c[0].slope_of_log_phi(&w), c[1].slope_of_log_phi(&w)];
        assert!(far(truth, plus(each[0], each[1])) < 1e-13, "Eq. 12 with the sum over cliques at {w:?}");
        assert!(each.iter().all(|e| far(truth, *e) > 0.05), "Eq. 12 as printed, of one clique, at {w:?}: {each:?}");
    }
}

/// The integral over the frequencies: values are integers less than 4 apart, so seven points a variable make it exact.
#[test]
fn stochbp_equation_13_integral_and_expectation() {
    let c = cliques();
    let points: Vec<f64> = (0..7).map(|m| std::f64::consts::TAU * (m as f64 / 7.0) - std::f64::consts::PI).collect();
    let (mut by_integral, mut by_expectation) = (0.0, 0.0);
    for own in 0..2 {
        let (clique, other) = (&c[own], &c[1 - own]);
        for k in 0..clique.star() {
            let mut integral = (0.0, 0.0);
            for a in &points {
                for b in &points {
                    for d in &points {
                        let w = [*a, *b, *d];
                        let difference = plus(clique.wave(&w, k), scaled(clique.wave(&w, clique.star()), -1.0));
                        let term = times(times(other.phi(&w), difference), transform(&c, &w, -1.0, f));
                        integral = plus(integral, scaled(term, 1.0 / 343.0));
                    }
                }
            }
            let at = |own_k: usize, o: usize| if own == 0 { f(own_k, o) } else { f(o, own_k) };
            let expectation: f64 =
                (0..other.values.len()).map(|o| other.p[o] * (at(k, o) - at(clique.star(), o))).sum();
            assert!(far(integral, (expectation, 0.0)) < 1e-12, "clique {own} value {k}: {integral:?} {expectation}");
            assert!(expectation.abs() > 1e-3, "a wrong factor is seen: {expectation}");
            by_integral += clique.slope[k] * integral.0;
            by_expectation += clique.slope[k] * expectation;
        }
    }
    let mut truth = 0.0;
    for j in 0..4 {
        for k in 0..3 {
            truth += (c[0].slope[j] * c[1].p[k] + c[0].p[j] * c[1].slope[k]) * f(j, k);
        }
    }
    assert!((by_integral - truth).abs() < 1e-12 && (by_expectation - truth).abs() < 1e-12, "{by_integral} {truth}");
}

/// Theorem 2: Eqs. 16 and 17 by enumeration.
#[test]
fn stochbp_discrete_formulas_16_and_17() {
    let f = |z: &[usize]| ((z[0] * 3 + z[1]) as f64 * 0.37).sin() + (z[0] * z[1]) as f64;
    for classes in [2usize, 3] {
        let p = [[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]];
        let p: Vec<Vec<f64>> =
            p.iter().map(|r| r[..classes].iter().map(|x| x / r[..classes].iter().sum::<f64>()).collect()).collect();
        let other = |j: usize, own: usize| -> f64 {
            (0..classes).map(|o| p[1 - j][o] * f(&if j == 0 { [own, o] } else { [o, own] })).sum()
        };
        for (j, own) in p.iter().enumerate() {
            let last = if classes == 2 { 0 } else { classes - 1 };
            for k in (0..classes).filter(|k| *k != last) {
                // move mass from the normalising class to class k
                let expectation = |h: f64| -> f64 {
                    let shift = |c: usize| {
                        if c == k {
                            h
                        } else if c == last {
                            -h
                        } else {
                            0.0
                        }
                    };
                    (0..classes).map(|c| (own[c] + shift(c)) * other(j, c)).sum()
                };
                // linear in h: the quotient is exact up to rounding
                let slope = (expectation(0.1) - expectation(-0.1)) / 0.2;
                assert!((slope - (other(j, k) - other(j, last))).abs() < 1e-12);
            }
        }
    }
}
