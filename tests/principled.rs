//! Propositions B.1 to B.8 of Shekhovtsov & Yanush 2021 as statements about the crate's units, with the places where the print
//! slips; the list stands in `src/sbn/principled.md`. Expectations are sums over all states in float64; where losses are random,
//! a statement must hold for every one of them, so there is no false alarm beyond rounding.
mod common;
use common::{distance, normals};
use std::f64::consts::PI;
use tch::{Kind, Tensor};
use thruway::dist::bernoulli::Code;
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::noise::HostNoise;
use thruway::sbn::{Proxy, Units};

const LAWS: [Shape; 4] = [Shape::Logistic, Shape::Uniform, Shape::Triangular, Shape::Normal];

fn units(noise: BinaryNoise, proxy: Proxy) -> Units {
    Units { noise, proxy, code: Code::PlusMinus }
}

fn vector(v: &[f64]) -> Tensor {
    Tensor::from_slice(v)
}

fn values(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.detach().to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(Kind::Double).double_value(&[])
}

/// All states of n units, `[2^n, n]`.
fn states(n: i64) -> Tensor {
    let bit = |s: i64, i: i64| if s >> i & 1 == 1 { 1.0 } else { -1.0 };
    let all: Vec<f64> = (0..1 << n).flat_map(|s| (0..n).map(move |i| bit(s, i))).collect();
    Tensor::from_slice(&all).view([1 << n, n])
}

/// `P(x)` of each state, differentiable in a: the noises are symmetric.
fn probabilities(noise: &BinaryNoise, a: &Tensor, x: &Tensor) -> Tensor {
    noise.cdf(&(a * x)).unwrap().prod_dim_int(-1, false, Kind::Double)
}

type Objective<'a> = &'a dyn Fn(&Tensor) -> Tensor;

/// `d E[L] / da`.
fn true_gradient(noise: &BinaryNoise, a: &Tensor, loss: Objective) -> Tensor {
    let a = a.copy().set_requires_grad(true);
    let x = states(a.size()[0]);
    (probabilities(noise, &a, &x) * loss(&x)).sum(Kind::Double).backward();
    a.grad()
}

/// Gradient of the units at every state, `[2^n, n]`.
fn gradients(units: &Units, a: &Tensor, loss: Objective) -> Tensor {
    let x = states(a.size()[0]);
    let a = a.expand(x.size(), false).copy().set_requires_grad(true);
    loss(&units.at(&a, x).unwrap()).sum(Kind::Double).backward();
    a.grad()
}

/// Its mean over the states.
fn expected(units: &Units, a: &Tensor, loss: Objective) -> Tensor {
    let p = probabilities(&units.noise, a, &states(a.size()[0]));
    (gradients(units, a, loss) * p.unsqueeze(-1)).sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
}

/// The deterministic gradient, at the signs.
fn deterministic(units: &Units, a: &Tensor, loss: Objective) -> Tensor {
    let a = a.copy().set_requires_grad(true);
    loss(&units.deterministic(&a).unwrap().unsqueeze(0)).sum(Kind::Double).backward();
    a.grad()
}

/// `sum_S c_S prod_{i in S} x_i` with a coefficient for every subset.
fn multilinear(x: &Tensor, c: &Tensor) -> Tensor {
    let n = x.size()[1];
    let chosen = (states(n) + 1.0) / 2.0; // [2^n, n]
    let factors = x.unsqueeze(1) * &chosen + (-&chosen + 1.0); // [S, 2^n, n]
    factors.prod_dim_int(-1, false, Kind::Double).matmul(c)
}

/// A smooth random loss `l x + sum_k c_k cos(w_k x + b_k)` and the Lipschitz constants of its partial derivatives `g_i`.
struct Wave {
    linear: Tensor,
    c: Tensor,
    w: Tensor,
    b: Tensor,
}

impl Wave {
    fn new(n: i64, slope: f64, seed: u64) -> Wave {
        let draw = |size: &[i64], k: u64| normals(size, Kind::Double, 10 * seed + k);
        Wave { linear: draw(&[n], 0) * slope, c: draw(&[3], 1) * 0.4, w: draw(&[3, n], 2) * 0.7, b: draw(&[3], 3) }
    }

    fn loss(&self, x: &Tensor) -> Tensor {
        x.matmul(&self.linear) + (x.matmul(&self.w.tr()) + &self.b).cos().matmul(&self.c)
    }

    /// `g(x)`, `[S, n]`.
    fn g(&self, x: &Tensor) -> Tensor {
        &self.linear - ((x.matmul(&self.w.tr()) + &self.b).sin() * &self.c).matmul(&self.w)
    }

    /// Of `g_i` as a function of `x_i` alone, `[n]`.
    fn lipschitz(&self) -> Tensor {
        self.c.abs().matmul(&self.w.square())
    }

    /// Of `g_i` as a function of all of x in the largest-entry norm, `[n]`.
    fn lipschitz_all(&self) -> Tensor {
        (self.c.abs() * self.w.abs().sum_dim_intlist([1i64].as_slice(), false, Kind::Double)).matmul(&self.w.abs())
    }
}

/// Fig. A.1: the proxies in use are Algorithm 1 under some noise of unit slope. ApproxSign needs the argument a / 2, as the
/// caption's "scaled version" says; its density is `(2 - |x|) / 4`, not the `|(2 - x) / 4|` printed.
#[test]
fn figure_a1_the_empirical_proxies_are_algorithm_1_under_a_noise() {
    let a = Tensor::linspace(-2.995, 2.995, 600, (Kind::Double, tch::Device::Cpu));
    let derivative = |shape: Shape, proxy: Proxy| {
        let unit = units(BinaryNoise::unit_slope(shape), proxy);
        let a = a.copy().set_requires_grad(true);
        unit.draw(&a, &mut HostNoise::new(0)).unwrap().sum(Kind::Double).backward();
        a.grad()
    };
    let pairs = [
        (Shape::Uniform, Proxy::Htanh, a.clamp(-1.0, 1.0)),
        (Shape::Logistic, Proxy::Tanh, a.tanh()),
        (Shape::Triangular, Proxy::ApproxSign { scale: 0.5 }, {
            let h = (&a / 2.0).clamp(-1.0, 1.0); // Liu et al.'s 2h + h^2 and 2h - h^2
            &h * 2.0 - h.abs() * &h
        }),
    ];
    for (i, (shape, proxy, function)) in pairs.iter().enumerate() {
        let noise = BinaryNoise::unit_slope(*shape);
        assert_eq!(noise.pdf_f64(0.0), 0.5, "2 F'(0) = 1");
        // the function drawn in the figure's upper row is the mean of the state
        assert!(distance(&(noise.cdf(&a).unwrap() * 2.0 - 1.0), function) < 1e-14);
        for (j, (other, _, _)) in pairs.iter().enumerate() {
            let far = distance(&derivative(*other, Proxy::Matched), &derivative(*other, *proxy));
            assert!(if i == j { far < 1e-14 } else { far > 0.05 }, "{proxy:?} under {other:?}: {far}");
        }
        assert_eq!(values(&derivative(*shape, Proxy::Identity)), vec![1.0; 600]);
    }
    // unscaled it fits no noise of unit slope: its slope at 0 is 2
    let own = derivative(Shape::Triangular, Proxy::ApproxSign { scale: 1.0 });
    assert!((own.max().double_value(&[]) - 2.0).abs() < 0.02);
    let noise = BinaryNoise::unit_slope(Shape::Triangular);
    for x in [-1.5, 0.5f64] {
        assert!((noise.pdf_f64(x) - (2.0 - x.abs()) / 4.0).abs() < 1e-15);
    }
    assert!((noise.pdf_f64(-1.5) - ((2.0 + 1.5) / 4.0f64).abs()).abs() > 0.5, "as printed it is no density");
}

/// The two codes: the same draws, half the derivative on 0 and 1, and 1 for the identity on either.
#[test]
fn algorithm_1_on_zero_and_one() {
    for shape in LAWS {
        let a = vector(&[-0.7, 0.1, 0.4]);
        let with = |proxy, code| {
            let a = a.copy().set_requires_grad(true);
            let x =
                Units { noise: BinaryNoise::unit_slope(shape), proxy, code }.draw(&a, &mut HostNoise::new(3)).unwrap();
            x.dot(&vector(&[1.0, 2.0, 3.0])).backward();
            (x.detach(), a.grad())
        };
        let ((x, g), (bits, half)) = (with(Proxy::Matched, Code::PlusMinus), with(Proxy::Matched, Code::ZeroOne));
        assert_eq!(Code::PlusMinus.encode(&bits).unwrap(), x);
        assert_eq!(&half * 2.0, g);
        assert_eq!(values(&with(Proxy::Identity, Code::ZeroOne).1), [1.0, 2.0, 3.0]);
    }
}

/// B.1: a monotone change of pre-activation and noise together changes neither states nor gradients; a fixed proxy is not
/// invariant. `T = G^-1 F` takes any law F to any law G.
#[test]
fn b1_invariance() {
    let a = vector(&[-0.6, -0.2, 0.05, 0.3, 0.5]);
    let loss = |x: &Tensor| (x * vector(&[0.3, -1.0, 0.5, 2.0, 1.0])).sum(Kind::Double).exp();
    for f in LAWS {
        for g in LAWS {
            let (f, g) = (BinaryNoise::new(f), BinaryNoise::with_scale(g, 1.7).unwrap());
            let run = |law: BinaryNoise, proxy: Proxy, t: &dyn Fn(&Tensor) -> Tensor| {
                let a = a.copy().set_requires_grad(true);
                let x = units(law, proxy).draw(&t(&a), &mut HostNoise::new(7)).unwrap();
                loss(&x).backward();
                (x.detach(), a.grad())
            };
            let t = |a: &Tensor| g.quantile(&f.cdf(a).unwrap()).unwrap();
            let plain = run(f, Proxy::Matched, &|a| a.shallow_clone());
            let changed = run(g, Proxy::Matched, &t);
            assert_eq!(plain.0, changed.0, "{f:?} {g:?}");
            assert!(distance(&plain.1, &changed.1) < 1e-12 * plain.1.abs().max().double_value(&[]), "{f:?} {g:?}");
            if f != g {
                let [x, y] = [run(f, Proxy::Tanh, &|a| a.shallow_clone()), run(g, Proxy::Tanh, &t)];
                assert!(distance(&x.1, &y.1) > 1e-2, "{f:?} {g:?}: a hand-made proxy should not be invariant");
            }
        }
    }
}

/// Corollary B.1: after T = F the rule is the identity, in the pre-activation `F(a)` and on states 0 and 1; on ±1 after
/// `2 F - 1`. As a rule in a itself it is another estimator.
#[test]
fn b1_corollary_identity_is_right_for_probabilities_alone() {
    let law = BinaryNoise::new(Shape::Logistic);
    let uniform = BinaryNoise::with_scale(Shape::Uniform, 0.5).unwrap(); // on [0, 1] after the shift by 1/2
    let a = vector(&[-1.0, 0.2, 2.0]).set_requires_grad(true);
    let p = law.cdf(&a).unwrap();
    let bits = Units { noise: uniform, proxy: Proxy::Matched, code: Code::ZeroOne };
    let x = bits.draw(&(&p - 0.5), &mut HostNoise::new(0)).unwrap();
    let by_identity = &x.detach() + (&p - p.detach()); // gradient of x in p replaced by 1
    let gradient = |y: &Tensor| Tensor::run_backward(&[y.square().sum(Kind::Double)], &[&a], true, false).remove(0);
    let [g, identity] = [gradient(&x), gradient(&by_identity)];
    assert!(distance(&g, &identity) < 1e-15);
    let alg1 = Units { noise: law, proxy: Proxy::Matched, code: Code::ZeroOne };
    assert!(distance(&g, &gradient(&alg1.at(&a, Code::PlusMinus.encode(&x.detach()).unwrap()).unwrap())) < 1e-15);
    let in_a = Units { proxy: Proxy::Identity, ..alg1 };
    let at = in_a.at(&a, Code::PlusMinus.encode(&x.detach()).unwrap()).unwrap();
    assert!(distance(&g, &gradient(&at)) > 0.5);
}

/// B.2: unbiased on every multilinear loss, exact (the same at every state) on a linear one; not on a square, nor with another
/// derivative.
#[test]
fn b2_unbiased_on_multilinear_losses() {
    for (k, shape) in LAWS.into_iter().enumerate() {
        let noise = BinaryNoise::unit_slope(shape);
        let (a, c) = (vector(&[0.8, -0.3, 0.1, -0.9]), normals(&[16], Kind::Double, k as u64));
        let unit = units(noise, Proxy::Matched);
        let loss = |x: &Tensor| multilinear(x, &c);
        let truth = true_gradient(&noise, &a, &loss);
        assert!(distance(&expected(&unit, &a, &loss), &truth) < 1e-13, "{shape:?}");
        let square = |x: &Tensor| multilinear(x, &c) + x.select(-1, 0).square();
        assert!(distance(&expected(&unit, &a, &square), &true_gradient(&noise, &a, &square)) > 0.05, "{shape:?}");
        let other = units(noise, Proxy::ApproxSign { scale: 1.0 });
        assert!(distance(&expected(&other, &a, &loss), &truth) > 0.01, "{shape:?}");
        let linear = |x: &Tensor| x.matmul(&vector(&[1.0, -2.0, 0.5, 3.0]));
        let each = gradients(&unit, &a, &linear);
        assert!(distance(&each, &true_gradient(&noise, &a, &linear).expand(each.size(), false)) < 1e-14, "{shape:?}");
    }
}

/// Examples 1 and 2 to B.2. The appendix prints `4 F'(a)(2 L(a) - 1)` where the main text has `2 F(a) - 1`, and for
/// `x - sin(2 pi x)` the derivative -1, which is that of `x - sin(2 pi x) / pi`.
#[test]
fn b2_examples_of_bias() {
    let noise = BinaryNoise::new(Shape::Logistic);
    for a in [-1.2, 0.0, 0.7] {
        let t = vector(&[a]);
        let square = |x: &Tensor| x.square().select(-1, 0);
        assert!(true_gradient(&noise, &t, &square).double_value(&[0]).abs() < 1e-15);
        let st = expected(&units(noise, Proxy::Matched), &t, &square).double_value(&[0]);
        assert!((st - 4.0 * noise.pdf_f64(a) * (2.0 * noise.cdf_f64(a) - 1.0)).abs() < 1e-14);
        if a != 0.0 {
            let printed = 4.0 * noise.pdf_f64(a) * (2.0 * 1.0 - 1.0); // L(a) = 1, the loss
            assert!((st - printed).abs() > 0.1);
        }
        for (factor, slope) in [(1.0, 1.0 - 2.0 * PI), (1.0 / PI, -1.0)] {
            let wave = |x: &Tensor| (x - (x * (2.0 * PI)).sin() * factor).select(-1, 0);
            let truth = true_gradient(&noise, &t, &wave).double_value(&[0]);
            let st = expected(&units(noise, Proxy::Matched), &t, &wave).double_value(&[0]);
            assert!((st / truth - slope).abs() < 1e-12, "{st} {truth}");
        }
    }
}

/// B.3: `|W x - y|^2` without its squares is the same on states and makes straight-through unbiased.
#[test]
fn b3_equivalent_quadratic() {
    let noise = BinaryNoise::unit_slope(Shape::Triangular);
    let (w, y, a) = (normals(&[3, 4], Kind::Double, 1), normals(&[3], Kind::Double, 2), vector(&[0.5, -0.8, 1.1, 0.2]));
    let plain = |x: &Tensor| (x.matmul(&w.tr()) - &y).square().sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    let columns = w.square().sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
    let equivalent = |x: &Tensor| plain(x) - x.square().matmul(&columns) + columns.sum(Kind::Double);
    assert!(distance(&plain(&states(4)), &equivalent(&states(4))) < 1e-13);
    let unit = units(noise, Proxy::Matched);
    let truth = true_gradient(&noise, &a, &plain);
    assert!(distance(&expected(&unit, &a, &equivalent), &truth) < 1e-13);
    assert!(distance(&expected(&unit, &a, &plain), &truth) > 0.1);
}

/// B.4: in the pre-activations every rescaled estimator has a non-negative product with the original, coordinate by coordinate,
/// and for every loss; a derivative of the wrong sign has not.
#[test]
fn b4_rescaled_estimators_keep_the_product() {
    let noise = BinaryNoise::new(Shape::Logistic);
    let mut negative = 0;
    for seed in 0..60 {
        let (wave, a) = (Wave::new(4, 0.3, seed), normals(&[4], Kind::Double, 1000 + seed));
        let loss = |x: &Tensor| wave.loss(x);
        let original = expected(&units(noise, Proxy::Matched), &a, &loss);
        for proxy in [Proxy::Identity, Proxy::Htanh, Proxy::Tanh, Proxy::ApproxSign { scale: 0.5 }] {
            let rescaled = expected(&units(noise, proxy), &a, &loss);
            assert!((&original * &rescaled).min().double_value(&[]) >= 0.0, "{proxy:?}, seed {seed}");
        }
        // Λ = diag(a), negative in places: the mutant
        let wrong = expected(&units(noise, Proxy::Identity), &a, &loss) * &a;
        negative += i64::from(dot(&original, &wrong) < 0.0);
    }
    assert!(negative > 5, "{negative}");
}

/// B.4 as printed is for any parameters of a, by "R is positive semidefinite", which a product of semidefinite matrices need not
/// be. Two units that share a parameter, a linear loss (on which Algorithm 1 is exact): identity ST points the wrong way.
#[test]
fn b4_fails_where_pre_activations_share_parameters() {
    let noise = BinaryNoise::new(Shape::Logistic);
    let loss = |x: &Tensor| x.matmul(&vector(&[1.0, -2.0]));
    let of = |g: Tensor| g.sum(Kind::Double).double_value(&[]); // a = (phi, 3 + phi)
    let a = vector(&[0.0, 3.0]);
    let truth = of(true_gradient(&noise, &a, &loss));
    assert!((of(expected(&units(noise, Proxy::Matched), &a, &loss)) - truth).abs() < 1e-15 && truth > 0.1);
    assert!((of(expected(&units(noise, Proxy::Identity), &a, &loss)) + 1.0).abs() < 1e-14);
}

/// B.5: where `|E g_i| >= L`, the expected estimate has the sign of the true gradient in that pre-activation. (Printed without the
/// absolute value.) Below it there are losses with the other sign.
#[test]
fn b5_ascent_condition() {
    let noise = BinaryNoise::new(Shape::Logistic);
    let (mut met, mut wrong_below) = (0, 0);
    for seed in 0..400 {
        let (wave, a) = (Wave::new(4, 0.2, seed), normals(&[4], Kind::Double, 5000 + seed));
        let loss = |x: &Tensor| wave.loss(x);
        let st = expected(&units(noise, Proxy::Matched), &a, &loss);
        let truth = true_gradient(&noise, &a, &loss);
        let p = probabilities(&noise, &a, &states(4)).unsqueeze(-1);
        let mean_g = (wave.g(&states(4)) * p).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        assert!(distance(&st, &(&mean_g * noise.pdf(&a).unwrap() * 2.0)) < 1e-13, "the units' own g");
        let (product, condition) = (values(&(st * truth)), values(&mean_g.abs().ge_tensor(&wave.lipschitz())));
        for (product, condition) in product.into_iter().zip(condition) {
            assert!(condition == 0.0 || product >= 0.0, "seed {seed}");
            met += i64::from(condition != 0.0);
            wrong_below += i64::from(condition == 0.0 && product < -1e-6);
        }
    }
    println!("condition met {met} of 1600 times, wrong sign below it {wrong_below} times");
    assert!(met > 200 && wrong_below > 20);
}

/// "If and only if E g > L": with `E g = -2 L` the estimate ascends as well; L cannot be lowered for all a, and is not needed at
/// a = 0, where L / 2 would do. The print's example `x^2` has a true gradient of 0; `L x^2 / 2 - c x` shows what it should.
#[test]
fn b5_what_is_necessary() {
    let noise = BinaryNoise::new(Shape::Logistic);
    // E g and half the true difference E Δ; all losses have Lipschitz constant 1
    let parts = |a: f64, loss: Objective| {
        let (t, slope) = (vector(&[a]), 2.0 * noise.pdf_f64(a));
        let st = expected(&units(noise, Proxy::Matched), &t, loss).double_value(&[0]);
        (st / slope, true_gradient(&noise, &t, loss).double_value(&[0]) / slope)
    };
    let bowl = |c: f64| move |x: &Tensor| (x.square() / 2.0 - x * c).select(-1, 0);
    let (g, truth) = parts(0.5, &bowl(2.3));
    assert!(g < -2.0 && truth < 0.0, "an ascent direction although E g < L");
    let (g, truth) = parts(8.0, &bowl(1e-3));
    assert!(g > 0.998 && truth < 0.0, "no constant below L will do: {g} {truth}");
    assert!(parts(0.5, &bowl(0.0)).1.abs() < 1e-15, "the print's example proves nothing");
    // g(t) = c - (1 - |t|), the extreme at a = 0
    let tent = |c: f64| move |x: &Tensor| (x * (c - 1.0) + x * x.abs() / 2.0).select(-1, 0);
    for (c, ascends) in [(0.51, true), (0.49, false)] {
        let (g, truth) = parts(0.0, &tent(c));
        assert!((g - c).abs() < 1e-14 && (truth - (c - 0.5)).abs() < 1e-14);
        assert_eq!(g * truth > 0.0, ascends);
    }
}

/// B.5 is printed "for any a(phi)", from "g Δ^T is positive semidefinite iff g_i Δ_i >= 0", which holds for diagonals alone. Two
/// units that share a parameter meet the condition, and the expected estimate descends.
#[test]
fn b5_fails_where_pre_activations_share_parameters() {
    let noise = BinaryNoise::new(Shape::Logistic);
    // Lipschitz constant 1 in each coordinate
    let loss = |x: &Tensor| {
        let (x, y) = (x.select(-1, 0), x.select(-1, 1));
        &x * 2.1 - x.square() / 2.0 + &y * 0.1 + y.square() / 2.0
    };
    let (a, direction) = (vector(&[4.0, 4.0]), vector(&[1.0, -1.5]));
    let st = expected(&units(noise, Proxy::Matched), &a, &loss);
    let truth = true_gradient(&noise, &a, &loss);
    let g = &st / (noise.pdf(&a).unwrap() * 2.0);
    assert!(g.min().double_value(&[]) > 1.0, "the condition: {:?}", values(&g));
    assert!((&st * &truth).min().double_value(&[]) > 0.0);
    assert!(dot(&st, &direction) * dot(&truth, &direction) < 0.0);
}

/// B.7 and B.8: where the deterministic gradient is large enough, it has the sign of the expected straight-through gradient and
/// of the true one. L bounds the change of `g_i` with all of x by its largest entry, which is what the proofs use.
#[test]
fn b7_b8_deterministic_ascent_conditions() {
    let noise = BinaryNoise::new(Shape::Logistic);
    let (mut met, mut wrong) = ([0, 0], [0, 0]);
    for seed in 0..400 {
        let (wave, a) = (Wave::new(3, 0.6, seed), normals(&[3], Kind::Double, 9000 + seed) * 3.0);
        let loss = |x: &Tensor| wave.loss(x);
        let unit = units(noise, Proxy::Matched);
        let det = deterministic(&unit, &a, &loss);
        let x = thruway::sbn::sign(&a).unwrap().unsqueeze(0);
        let p_star = probabilities(&noise, &a, &x).double_value(&[0]);
        let g_star = wave.g(&x).squeeze().abs();
        let l = wave.lipschitz_all();
        let b7 = g_star.ge_tensor(&(&l * (2.0 * (1.0 - p_star))));
        let b8 = g_star.ge_tensor(&(&l * (2.0 * (1.0 - p_star)) + &l));
        let against = [expected(&unit, &a, &loss), true_gradient(&noise, &a, &loss)];
        for (k, (condition, other)) in [b7, b8].iter().zip(&against).enumerate() {
            for (condition, product) in values(condition).into_iter().zip(values(&(&det * other))) {
                assert!(condition == 0.0 || product >= 0.0, "B.{}, seed {seed}", 7 + k);
                met[k] += i64::from(condition != 0.0);
                wrong[k] += i64::from(condition == 0.0 && product < -1e-6);
            }
        }
    }
    println!("conditions met {met:?} of 1200 times, wrong sign below {wrong:?} times");
    assert!(met.iter().all(|m| *m > 100) && wrong.iter().all(|w| *w > 10), "{met:?} {wrong:?}");
}

/// B.7's proof bounds `|g_i(x) - g_i(x*)|` by `L |x_i - x*_i|`, so a constant for `x_i` alone will not do, and the conclusion of
/// Section 2.2 (V), that deterministic ST goes with the true gradient on multilinear losses (L = 0), fails with three units.
#[test]
fn b7_fails_with_a_constant_of_one_coordinate() {
    let noise = BinaryNoise::new(Shape::Logistic);
    // x1 h(x2, x3), h = 1 where both are 1 and -0.9 elsewhere
    let loss = |x: &Tensor| {
        let [x1, x2, x3] = [0, 1, 2].map(|i| x.select(-1, i));
        x1 * ((&x2 + &x3 + &x2 * &x3) * 0.475 - 0.425)
    };
    let a = vector(&[0.01; 3]);
    let unit = units(noise, Proxy::Matched);
    let truth = true_gradient(&noise, &a, &loss);
    assert!(distance(&expected(&unit, &a, &loss), &truth) < 1e-14, "multilinear");
    assert!(dot(&deterministic(&unit, &a, &loss), &truth) < -0.01);
}

/// Least-squares slope of y on x, and its standard error.
fn slope(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
    let (mx, my) = (mean(&|p| p.0), mean(&|p| p.1));
    let sxx: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    let b = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>() / sxx;
    let rss: f64 = points.iter().map(|p| (p.1 - my - b * (p.0 - mx)).powi(2)).sum();
    (b, (rss / (n - 2.0) / sxx).sqrt())
}

/// Normal weights `[3, n]` with rows of norm 1, pre-activations `spread` times normal, seeded.
fn initialised(n: i64, spread: f64, seed: u64) -> (Tensor, Tensor) {
    let w = normals(&[3, n], Kind::Double, 7 * seed + n as u64);
    let norm = w.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Double).sqrt();
    (w / norm, normals(&[n], Kind::Double, 31 * seed + n as u64) * spread)
}

/// For `L(x) = sum_k sin(w_k x + 1)` and logistic noise: the expected straight-through gradient and the true one, in closed form
/// from the characteristic function `prod_i (cos w_i + i m_i sin w_i)`, m the means of the states.
fn sine_gradients(w: &Tensor, a: &Tensor) -> (Vec<f64>, Vec<f64>) {
    let noise = BinaryNoise::new(Shape::Logistic);
    let (a, n) = (values(a), a.size()[0] as usize);
    let (mut st, mut truth) = (vec![0.0; n], vec![0.0; n]);
    let times = |x: (f64, f64), y: (f64, f64)| (x.0 * y.0 - x.1 * y.1, x.0 * y.1 + x.1 * y.0);
    for k in 0..w.size()[0] {
        let w = values(&w.get(k));
        let factor: Vec<_> =
            w.iter().zip(&a).map(|(w, a)| (w.cos(), (2.0 * noise.cdf_f64(*a) - 1.0) * w.sin())).collect();
        let all = factor.iter().fold((1f64.cos(), 1f64.sin()), |p, f| times(p, *f));
        for i in 0..n {
            let (c, s) = factor[i];
            let others = times(all, (c / (c * c + s * s), -s / (c * c + s * s)));
            let slope = 2.0 * noise.pdf_f64(a[i]);
            st[i] += slope * w[i] * all.0;
            truth[i] += slope * w[i].sin() * others.0;
        }
    }
    (st, truth)
}

/// B.6 and Corollary B.2: at a random initialisation the relative bias falls as `n^(-1/2)`. The slope is fitted to 40
/// initialisations for each of n = 16 ... 2048; its 99 % confidence interval holds -1/2 (the seed is fixed). At a = 0 the second
/// derivative cancels and the bias falls about as 1/n: the fit sees the difference.
#[test]
fn b6_bias_at_initialisation_falls_as_the_root_of_n() {
    // the closed form is that of the units
    let (w, a) = initialised(7, 1.5, 99);
    let noise = BinaryNoise::new(Shape::Logistic);
    let loss = |x: &Tensor| (x.matmul(&w.tr()) + 1.0).sin().sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    let (st, truth) = sine_gradients(&w, &a);
    assert!(distance(&vector(&st), &expected(&units(noise, Proxy::Matched), &a, &loss)) < 1e-13);
    assert!(distance(&vector(&truth), &true_gradient(&noise, &a, &loss)) < 1e-13);
    let fitted = |spread: f64| {
        let mut points = vec![];
        for n in (4..12).map(|k| 1i64 << k) {
            for seed in 0..40 {
                let (w, a) = initialised(n, spread, seed);
                let (st, truth) = sine_gradients(&w, &a);
                let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
                let bias = norm(&mut st.iter().zip(&truth).map(|(s, t)| s - t)) / norm(&mut truth.iter().copied());
                points.push(((n as f64).ln(), bias.ln()));
            }
        }
        slope(&points)
    };
    let (b, se) = fitted(1.5);
    println!("relative bias: slope {b:.4} +- {se:.4}");
    assert!((b + 0.5).abs() < 2.59 * se && se < 0.02, "{b} {se}");
    let (b, se) = fitted(0.0);
    println!("at a = 0: slope {b:.4} +- {se:.4}");
    assert!((b + 1.0).abs() < 0.06 && (b + 0.5).abs() > 10.0 * se, "{b} {se}");
}

/// B.6's own quantity: between two independent states the gradient `g_i` changes by `O(n^(-1/2))`. Eq. 33 drops the factor
/// `|W (x - y)|`, which is of order 1 there; for a change of `x_i` alone, the Lipschitz constant of B.5, it is `2 |W_i|`, and the
/// change is `O(1/n)`: better than stated.
#[test]
fn b6_lipschitz_constants_at_initialisation() {
    let fitted = |alone: bool| {
        let mut points = vec![];
        for n in (4..12).map(|k| 1i64 << k) {
            for seed in 0..40 {
                let (w, x) = initialised(n, 1.0, seed);
                let x = thruway::sbn::sign(&x).unwrap();
                let second = w.matmul(&x).unsqueeze(1) + 1.0; // [3, 1]
                let other = match alone {
                    true => &second - &w * &x * 2.0, // W x with x_i flipped, for each i: [3, n]
                    false => {
                        let y = thruway::sbn::sign(&initialised(n, 1.0, seed + 1000).1).unwrap();
                        w.matmul(&y).unsqueeze(1) + 1.0
                    }
                };
                let change =
                    (&w * (second.cos() - other.cos())).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
                points.push(((n as f64).ln(), change.abs().mean(Kind::Double).double_value(&[]).ln()));
            }
        }
        slope(&points)
    };
    for (alone, want, other) in [(false, -0.5, -1.0f64), (true, -1.0, -0.5)] {
        let (b, se) = fitted(alone);
        println!("change of g_i, {}: slope {b:.4} +- {se:.4}", if alone { "x_i flipped" } else { "any two states" });
        assert!((b - want).abs() < 2.59 * se && (b - other).abs() > 5.0 * se, "{b} {se}");
    }
}
