//! Propositions B.1 to B.8 of Shekhovtsov & Yanush 2021 as statements about the crate's units, with the places where the print
//! slips; the list stands in `src/sbn/principled.md`. Expectations are sums over all states in float64; where losses are random,
//! a statement must hold for every one of them, so there is no false alarm beyond rounding.
#[path = "principled_cases/b6.rs"]
mod b6;
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
/// of the true one. L bounds the change of `g_i` with all of x by its largest entry, which is what the proofs use. B.8 is held
/// with `(2 - p*) L`, which is less than the print's constant. That nothing less will do is `b7_b8_what_is_necessary`.
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
        let b8 = g_star.ge_tensor(&(&l * (2.0 - p_star))); // less than the print's 2 (1 - p*) + 1
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

/// The least constants: losses whose `g_1` is c at `x*` and falls from there as fast as L allows. With a sure first unit and two
/// fair ones (`p* = 1/4`), or two nearly sure ones, the sign turns where the statement says, and every mutant of the condition is
/// met by a loss of the wrong sign. L = 1 throughout.
#[test]
fn b7_b8_what_is_necessary() {
    let noise = BinaryNoise::new(Shape::Logistic);
    let unit = units(noise, Proxy::Matched);
    // largest entry of x - x* over the others, x* = 1
    let far = |x: &Tensor| {
        let away: Tensor = 1.0 - x.narrow(-1, 1, 2);
        away.abs().amax([-1i64].as_slice(), false)
    };
    // g_1 = c - far: it does not depend on x_1 at all, so its constant in x_1 alone is 0
    let flat = |c: f64| move |x: &Tensor| x.select(-1, 0) * (c - far(x));
    // g_1 = c - max(1 - x_1, far), integrated in x_1
    let steep = |c: f64| {
        move |x: &Tensor| {
            let (x1, d) = (x.select(-1, 0), far(x));
            let u: Tensor = 1.0 - &x1;
            x1 * c + (&u * &d).where_self(&u.le_tensor(&d), &((u.square() + d.square()) / 2.0))
        }
    };
    // g_1 at x*, its mean, and half the true difference
    let parts = |a: &Tensor, loss: Objective| {
        let slope = 2.0 * noise.pdf_f64(a.double_value(&[0]));
        let of = |t: Tensor| t.double_value(&[0]) / slope;
        let det = of(deterministic(&unit, a, loss));
        (det, of(expected(&unit, a, loss)), of(true_gradient(&noise, a, loss)))
    };
    let (mut rejected7, mut rejected8) = ([false; 4], [false; 5]);
    for others in [0.0, 2.5] {
        let a = vector(&[6.0, others, others]);
        let p = noise.cdf_f64(6.0) * noise.cdf_f64(others).powi(2);
        let (b7, b8, printed8) = (2.0 * (1.0 - p), 2.0 - p, 2.0 * (1.0 - p) + 1.0);
        for (c, holds) in [(b7, true), (0.98 * b7, false)] {
            let (det, st, _) = parts(&a, &flat(c));
            assert!((det - c).abs() < 1e-12 && (st > 0.0) == holds, "B.7, p* {p}, c {c}: {st}");
        }
        for (c, holds) in [(printed8, true), (b8, true), (0.99 * b8, false)] {
            let (det, _, truth) = parts(&a, &steep(c));
            assert!((det - c).abs() < 1e-12 && (truth > 0.0) == holds, "B.8, p* {p}, c {c}: {truth}");
        }
        // what a mutant asks for, with the constant in x_1 alone where it asks for that: 2 p* L, half of it, L, one coordinate
        let turned = |c: f64, mutant: f64| c > mutant && parts(&a, &flat(c)).1 < 0.0;
        let mutants = [2.0 * p, b7 / 2.0, 1.0, 0.0];
        rejected7.iter_mut().zip(mutants).for_each(|(r, m)| *r |= turned(0.98 * b7, m));
        let turned = |c: f64, mutant: f64| c > mutant && parts(&a, &steep(c)).2 < 0.0;
        let mutants = [2.0 * p + 1.0, printed8 / 2.0, 1.0, b7];
        rejected8.iter_mut().zip(mutants).for_each(|(r, m)| *r |= turned(0.99 * b8, m));
        let c = 0.9 * b7; // the constant in x_1 alone is 0 here, and g_1 does not ascend
        rejected8[4] |= c > 0.0 && parts(&a, &flat(c)).2 < 0.0;
    }
    assert_eq!((rejected7, rejected8), ([true; 4], [true; 5]));
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
