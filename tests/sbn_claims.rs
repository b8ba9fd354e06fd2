//! Methods for stochastic binary networks against enumeration, float64. What is random in most of them are the states alone, so
//! that the mean and variance of the estimate are sums over all joint states and have no sampling error.
//!
//! Tolerance 1e-10 relative to the largest entry: sums of a few hundred terms in float64 leave 1e-13.
mod common;
use common::psa::gradients;
use common::sbn::*;
use common::stats::Z_LIMIT;
use common::{distance, largest};
use std::sync::Arc;
use tch::{Kind, Tensor};
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::exact::sbn::Paths;
use thruway::kernels::delta::Backend;
use thruway::noise::HostNoise;
use thruway::sbn::{
    Batch, Description, Draws, HeadGradient, Knobs, Loss, Mean, Method, Network, Objective, Randomness, Rule, Spec,
};

/// The oracle itself, against brute force over joint states and central differences.
#[test]
fn the_exact_gradient_is_that_of_the_sum_over_all_joint_states() {
    for shape in SHAPES {
        let p = problem(&[2, 3, 2], noise(shape), 1);
        let exact = p.exact();
        let value = |n: &Network| -> f64 {
            let paths = n.paths(&p.x).unwrap();
            assert!(
                distance(&paths.probability.sum_dim_intlist(0, false, Kind::Double), &Tensor::ones([2], F64)) < 1e-14
            );
            let scores = n.head().scores(paths.states.last().unwrap()).unwrap();
            let f = Tensor::stack(
                &[0i64, 1]
                    .map(|b| n.objective().values(&scores.unsqueeze(1), &p.y.narrow(0, b, 1)).unwrap().squeeze_dim(1)),
                1,
            );
            (f * paths.probability).sum(Kind::Double).double_value(&[]) / 2.0
        };
        let direct = p.network.exact_loss(&p.x, &p.y).unwrap().mean(Kind::Double).double_value(&[]);
        assert!((value(&p.network) - direct).abs() < 1e-13);
        for ((name, parameter), (_, g)) in p.network.params().iter().zip(&exact) {
            let _guard = tch::no_grad_guard();
            let entry = parameter.view([-1]).get(0);
            let at = |h: f64| {
                let _ = entry.shallow_clone().g_add_scalar_(h);
                let v = value(&p.network);
                let _ = entry.shallow_clone().g_sub_scalar_(h);
                v
            };
            let h = 1e-5;
            let slope = (at(h) - at(-h)) / (2.0 * h);
            let got = g.reshape([-1]).double_value(&[0]);
            assert!((slope - got).abs() < 1e-8, "{shape:?} {name}: {slope} and {got}");
        }
    }
}

/// Algorithm 1 word for word: Delta by flipping each unit and recomputing the layer, products from right to left. States
/// `[N, units]` of linear layers, one datum; returns each layer's (weight, bias) gradient for each row. `sign`: of Delta, 1.
fn literal_psa(p: &Problem, datum: i64, states: &[Tensor], sign: f64) -> Vec<(Tensor, Tensor)> {
    let _guard = tch::no_grad_guard();
    let net = &p.network;
    let n_rows = states[0].size()[0];
    let flip = |x: &Tensor, i: i64| {
        let mut signs = vec![1.0; x.size()[1] as usize];
        signs[i as usize] = -1.0;
        x * Tensor::from_slice(&signs)
    };
    let input = p.x.narrow(0, datum, 1).expand([n_rows, -1], false);
    let f = |x: &Tensor| {
        net.objective()
            .values(&net.head().scores(x).unwrap(), &p.y.narrow(0, datum, 1).expand([n_rows], false))
            .unwrap()
    };
    let last = states.last().unwrap();
    // df, then through each Delta
    let columns: Vec<Tensor> = (0..last.size()[1]).map(|i| f(last) - f(&flip(last, i))).collect();
    let mut back = Tensor::stack(&columns, 1); // [N, n_L]
    let mut all = vec![];
    for k in (0..states.len()).rev() {
        let layer = &net.layers()[k];
        let below = if k == 0 { &input } else { &states[k - 1] };
        let a = layer.preactivation(below).unwrap();
        let d = &states[k] * net.noise().pdf(&a).unwrap() * &back;
        all.push((d.unsqueeze(2) * below.unsqueeze(1), d));
        if k > 0 {
            let columns: Vec<Tensor> = (0..below.size()[1])
                .map(|i| {
                    let moved = layer.preactivation(&flip(below, i)).unwrap();
                    let delta = &states[k] * (net.noise().cdf(&a).unwrap() - net.noise().cdf(&moved).unwrap());
                    (delta * &back * sign).sum_dim_intlist(-1, false, Kind::Double)
                })
                .collect();
            back = Tensor::stack(&columns, 1);
        }
    }
    all.reverse();
    all
}

/// Its mean over all joint states and the data, weight and bias of layer k in one vector.
fn expected_literal_psa(p: &Problem, paths: &Paths, k: usize, sign: f64) -> Tensor {
    let mut mean = Tensor::zeros([1], F64);
    for datum in 0..2 {
        let (weight, bias) = &literal_psa(p, datum, &paths.states, sign)[k];
        let rows = Tensor::cat(&[weight.flatten(1, -1), bias.shallow_clone()], 1);
        let probability = paths.probability.select(1, datum).unsqueeze(1);
        mean = &mean + (rows * probability).sum_dim_intlist(0, false, Kind::Double) / 2.0;
    }
    mean
}

#[test]
fn expected_psa_is_the_expectation_of_the_literal_algorithm() {
    for (shape, seed) in SHAPES.into_iter().zip(1..) {
        let p = problem(&[2, 3, 2], noise(shape), seed);
        let paths = p.network.paths(&p.x).unwrap();
        let (mean, _) = p.mean(&*build(Method::Psa), None);
        for k in 0..3 {
            let want = expected_literal_psa(&p, &paths, k, 1.0);
            let error = off(&flat(&mean, &format!("layers.{k}")), &want);
            assert!(error < TOLERANCE, "{shape:?} layer {k}: off by {error:e}");
        }
    }
}

/// Eq. 10 as printed is p at the flipped state less p at the state, the opposite of what Eq. 11 linearises. With its sign in
/// Delta, layers an odd number of Deltas below the top get the gradient's negative; here, where PSA is exact, that shows.
#[test]
fn the_sign_of_delta_is_that_of_eq_11_not_that_of_eq_10() {
    for shape in SHAPES {
        let p = problem(&[4, 1, 1], noise(shape), 4);
        let paths = p.network.paths(&p.x).unwrap();
        let (exact, ours) = (p.exact(), p.mean(&*build(Method::Psa), None).0);
        for k in 0..3 {
            let own = |all: &[(String, Tensor)]| flat(all, &format!("layers.{k}"));
            let truth = own(&exact);
            let [right, printed] = [1.0, -1.0].map(|sign| expected_literal_psa(&p, &paths, k, sign));
            assert!(off(&own(&ours), &truth) < TOLERANCE && off(&right, &truth) < TOLERANCE, "{shape:?} layer {k}");
            let printed = off(&printed, &truth);
            assert!(
                if k == 1 { (printed - 2.0).abs() < 1e-9 } else { printed < TOLERANCE },
                "{shape:?} layer {k}: {printed}"
            );
        }
    }
}

/// Where PSA is exact: in the last layer and the head, and below as long as every layer above has one unit, since it is the
/// product of the probabilities of the next layer that is linearised. Proposition 3 as printed has one unit in layers 1 to
/// L - 1 and any number in layer L: that one is linearised on the way to the layers below it, and 1-1-4 is biased there.
#[test]
fn psa_is_unbiased_where_it_says_and_nowhere_else() {
    for shape in SHAPES {
        let error = |p: &Problem, head: HeadGradient, k: &str| {
            let rule = Method::Psa.build(&Knobs { head: Some(head), ..Knobs::default() }).unwrap();
            off(&flat(&p.mean(&*rule, None).0, k), &flat(&p.exact(), k))
        };
        for head in [HeadGradient::Plain, HeadGradient::Enhanced] {
            for (units, exact, biased) in [
                (vec![1, 1, 1], vec!["layers.0", "layers.1", "layers.2", "head"], vec![]),
                (vec![4, 1, 1], vec!["layers.0", "layers.1", "layers.2", "head"], vec![]),
                (vec![1, 1, 4], vec!["layers.2", "head"], vec!["layers.0", "layers.1"]),
                (vec![2, 3, 2], vec!["layers.2", "head"], vec!["layers.0", "layers.1"]),
            ] {
                let p = problem(&units, noise(shape), 4);
                for k in exact {
                    let error = error(&p, head, k);
                    assert!(error < TOLERANCE, "{shape:?} {head:?}, {units:?}: {k} off by {error:e}");
                }
                for k in biased {
                    let error = error(&p, head, k);
                    println!("{shape:?} {head:?}, {units:?}: PSA's bias in {k} is {error:.1e} of the largest entry");
                    assert!(error > 1e-5, "{shape:?} {units:?}: {k} seems exact ({error:e})");
                }
            }
        }
    }
}

/// Every method that says its mean is exact and whose randomness are the states, with and without baselines. A gradient
/// 1.01 times as large must not pass.
#[test]
fn unbiased_methods_by_enumeration() {
    for (shape, seed) in SHAPES.into_iter().zip(11..) {
        let p = problem(&[2, 3, 2], noise(shape), seed);
        let (exact, value) = (flat(&p.exact(), ""), p.network.exact_loss(&p.x, &p.y).unwrap().detach());
        let of_datum = Tensor::from_slice(&[0.7f64, -3.0]);
        let mut checked = 0;
        for &method in Method::ALL {
            let claims = method.claims();
            if claims.mean != Mean::Exact || claims.randomness != Randomness::States {
                continue;
            }
            checked += 1;
            for constant in [None, Some(1.3)] {
                for baseline in [None, Some(&of_datum), Some(&value)] {
                    let rule = method.build(&Knobs { constant, ..Knobs::default() }).unwrap();
                    let (mean, mean_value) = p.mean(&*rule, baseline);
                    let at = format!("{} {shape:?} constant {constant:?} baseline {baseline:?}", method.name());
                    let error = off(&flat(&mean, ""), &exact);
                    assert!(error < TOLERANCE, "{at}: off by {error:e}");
                    assert!(off(&(flat(&mean, "") * 1.01), &exact) > 1e-3, "{at}: a factor of 1.01 passes");
                    assert!(distance(&mean_value, &value) < 1e-12, "{at}: value");
                }
            }
        }
        assert_eq!(checked, 2, "reinforce and muprop");
    }
}

/// True baseline and MuProp's linear one lower the variance here; a baseline that sees its own draw is biased.
#[test]
fn baselines_lower_the_variance_and_must_not_see_the_draw() {
    let p = problem(&[3, 3], noise(Shape::Logistic), 5);
    let truth = p.network.exact_loss(&p.x, &p.y).unwrap().detach();
    let plain = total_variance(&p, &*build(Method::Reinforce), None, "layers");
    let with_truth = total_variance(&p, &*build(Method::Reinforce), Some(&truth), "layers");
    let muprop = total_variance(&p, &*build(Method::Muprop), Some(&truth), "layers");
    println!("variance of REINFORCE {plain:.3}, with the true baseline {with_truth:.3}, MuProp with it {muprop:.3}");
    assert!(with_truth < 0.8 * plain && muprop < 0.8 * plain);
    // the draw's own loss as baseline leaves nothing of the score function
    let paths = p.network.paths(&p.x).unwrap();
    let states = broadcast(&paths.states, &p.network);
    let rule = build(Method::Reinforce);
    let input = rows_of(&p.x, &paths.probability);
    let seen = p.network.loss_at(&input, &p.y, &*rule, &states).unwrap().value;
    let (mean, _) = p.mean(&*rule, Some(&seen));
    assert!(off(&flat(&mean, "layers"), &flat(&p.exact(), "layers")) > 0.9, "a baseline that sees the draw passes");
}

/// Sum over parameters of the variance of the estimate for the first datum, by enumeration.
fn total_variance(p: &Problem, rule: &dyn Rule, baseline: Option<&Tensor>, of: &str) -> f64 {
    variances(p, rule, baseline, of).sum(Kind::Double).double_value(&[])
}

fn variances(p: &Problem, rule: &dyn Rule, baseline: Option<&Tensor>, of: &str) -> Tensor {
    let (x, y) = (p.x.narrow(0, 0, 1), p.y.narrow(0, 0, 1));
    let paths = p.network.paths(&x).unwrap();
    let copies = p.network.replicate(paths.probability.size()[0]).unwrap();
    let states = broadcast(&paths.states, &p.network);
    let baseline = baseline.map(|b| b.narrow(0, 0, 1));
    let batch = Batch { input: &x, target: &y, baseline: baseline.as_ref() };
    let loss = copies.run(&batch, rule, &mut Draws::given(&states)).unwrap();
    loss.surrogate.sum(Kind::Double).backward();
    let rows: Vec<Tensor> =
        copies.params().iter().filter(|(n, _)| n.starts_with(of)).map(|(_, t)| t.grad().flatten(1, -1)).collect();
    let rows = Tensor::cat(&rows, 1); // [P, D]
    let mean = (&rows * &paths.probability).sum_dim_intlist(0, false, Kind::Double);
    ((rows - mean).square() * paths.probability).sum_dim_intlist(0, false, Kind::Double)
}

/// Lemma B.2 with gamma = 1/n: the mean stays (checked above), no variance grows, and how much it falls. The printed Eq. 33a
/// in its place has another mean.
#[test]
fn the_enhanced_head_has_no_more_variance() {
    for (units, seed) in [(vec![3, 2], 1), (vec![2, 5], 2), (vec![3, 7], 3)] {
        let p = problem(&units, noise(Shape::Logistic), seed);
        let of = |head| {
            let rule = Method::Psa.build(&Knobs { head: Some(head), ..Knobs::default() }).unwrap();
            variances(&p, &*rule, None, "head")
        };
        let (plain, enhanced) = (of(HeadGradient::Plain), of(HeadGradient::Enhanced));
        let ratio = enhanced.sum(Kind::Double).double_value(&[]) / plain.sum(Kind::Double).double_value(&[]);
        println!("{units:?}: variance of the head's gradient, enhanced over plain: {ratio:.3}");
        assert!((&enhanced - &plain).max().double_value(&[]) < 1e-12, "{units:?}: a variance grew");
        assert!(ratio < 0.95, "{units:?}: ratio {ratio}");
        // E sum_i (f(flip i) - f) pi_i = 0 for the right pi alone
        let paths = p.network.paths(&p.x).unwrap();
        let last = paths.states.last().unwrap();
        let a = p.network.layers()[1].preactivation(&paths.states[0]).unwrap().detach();
        let up = p.network.noise().cdf(&a).unwrap();
        let df = p.network.head().differences(last, &p.y.narrow(0, 0, 1), p.network.objective());
        let df = df.unwrap_or_else(|e| panic!("{e}"));
        let mean = |pi: Tensor| {
            let each = (&df * pi).sum_dim_intlist(-1, false, Kind::Double);
            (each * paths.probability.select(1, 0)).sum(Kind::Double).double_value(&[]).abs()
        };
        let (right, printed) = (1.0 - ((1.0 - last) / 2.0 + last * &up), 1.0 - ((1.0 + last) / 2.0 + last * &up));
        let (right, printed) = (mean(right), mean(printed));
        assert!(right < 1e-13 && printed > 1e-3, "{units:?}: {right:e} and, as printed, {printed:e}");
    }
}

/// Where F is linear on all pre-activations and f on the scores, Proposition 4's linearisations are none: PSA, ST, HardST and
/// identity ST (2F' = 1) agree at every state, and with the mean-field relaxation and ADF they are exact.
#[test]
fn methods_agree_with_the_truth_where_everything_is_linear() {
    let linear = |s: &Tensor, _: &Tensor| -> thruway::Result<Tensor> { Ok(s.select(-1, 0) * 2.0 - s.select(-1, 1)) };
    let description = Description {
        input: vec![3],
        layers: vec![Spec::Linear { units: 3 }; 3],
        scores: 2,
        objective: Objective::Custom(Arc::new(linear)),
        noise: BinaryNoise::new(Shape::Uniform),
        ..Description::default()
    };
    let p = with_data(&description, 21);
    // |a| < 1 throughout: uniform noise on [-1, 1]
    tch::no_grad(|| p.network.params().iter().for_each(|(_, t)| drop(t.shallow_clone().g_mul_scalar_(0.12))));
    let exact = flat(&p.exact(), "");
    let paths = p.network.paths(&p.x).unwrap();
    let states = broadcast(&paths.states, &p.network);
    for a in states.iter().zip(&p.network.layers()[1..]).map(|(x, l)| l.preactivation(x).unwrap()) {
        assert!(largest(&a) < 1.0);
    }
    let psa = build(Method::Psa);
    let plain = Method::Psa.build(&Knobs { head: Some(HeadGradient::Plain), ..Knobs::default() }).unwrap();
    let at = |rule: &dyn Rule, k: i64| {
        let one: Vec<Tensor> = states.iter().map(|s| s.get(k)).collect();
        let loss = p.network.loss_at(&p.x, &p.y, rule, &one).unwrap();
        flat(&gradients(&p.network, &loss), "")
    };
    for method in [Method::St, Method::HardSt, Method::IdentitySt] {
        for k in [0, 17, 100, 511] {
            let error = off(&at(&*build(method), k), &at(&*plain, k));
            assert!(error < TOLERANCE, "{} at joint state {k}: off PSA by {error:e}", method.name());
        }
        let error = off(&flat(&p.mean(&*build(method), None).0, ""), &exact);
        assert!(error < TOLERANCE, "{}: off by {error:e}", method.name());
    }
    let error = off(&flat(&p.mean(&*psa, None).0, ""), &exact);
    assert!(error < TOLERANCE, "psa: off by {error:e}");
    let tanh = p.network.loss_at(&p.x, &p.y, &*build(Method::Tanh), &[]).unwrap();
    assert!(off(&flat(&gradients(&p.network, &tanh), ""), &exact) < TOLERANCE, "tanh");
    // away from linearity they do not
    let p = problem(&[3, 3], BinaryNoise::new(Shape::Uniform), 22);
    for method in [Method::St, Method::HardSt, Method::IdentitySt] {
        let error = off(&flat(&p.mean(&*build(method), None).0, ""), &flat(&p.exact(), ""));
        assert!(error > 1e-2, "{}: exact on a network that is not linear", method.name());
    }
}

/// The mean of straight-through in closed form, `sum_x p(x) 2F'(a) df/dx da/dtheta` chained over layers, and the variants by
/// their own derivative; deterministic ST is ST at the states sgn(a).
#[test]
fn expected_straight_through_is_its_closed_form() {
    for shape in [Shape::Logistic, Shape::Normal] {
        let p = problem(&[2, 3], noise(shape), 31);
        let net = &p.network;
        let paths = net.paths(&p.x).unwrap();
        let derivative = |method: Method, a: &Tensor| match method {
            Method::HardSt => a.abs().lt(1.0).to_kind(Kind::Double),
            Method::IdentitySt => a.ones_like(),
            _ => net.noise().pdf(a).unwrap() * 2.0,
        };
        // gradient in the bias of layer 1 by hand: s1 * (W2^T (s2 * (W3^T df/dscores)))
        let value = |name: &str| net.params().iter().find(|(n, _)| *n == name).unwrap().1.detach();
        let closed = |method: Method, datum: i64, states: &[Tensor]| {
            let a1 = net.layers()[0].preactivation(&p.x.narrow(0, datum, 1)).unwrap().detach();
            let a2 = net.layers()[1].preactivation(&states[0]).unwrap().detach();
            let scores = net.head().scores(&states[1]).unwrap().detach();
            let onehot = p.y.narrow(0, datum, 1).one_hot(3).to_kind(Kind::Double);
            let df = (scores.softmax(-1, Kind::Double) - onehot).matmul(&value("head.weight"));
            (derivative(method, &a2) * df).matmul(&value("layers.1.weight")) * derivative(method, &a1)
        };
        for method in [Method::St, Method::HardSt, Method::IdentitySt] {
            let want = (0..2i64)
                .map(|b| {
                    (closed(method, b, &paths.states) * paths.probability.narrow(1, b, 1)).sum_dim_intlist(
                        0,
                        false,
                        Kind::Double,
                    ) / 2.0
                })
                .fold(Tensor::zeros([2], F64), |sum, t| sum + t);
            let error = off(&flat(&p.mean(&*build(method), None).0, "layers.0.bias"), &want);
            assert!(error < TOLERANCE, "{} {shape:?}: off by {error:e}", method.name());
        }
        let sign = |a: Tensor| a.ge(0.0).to_kind(Kind::Double) * 2.0 - 1.0;
        let loss = net.loss_at(&p.x, &p.y, &*build(Method::DetSt), &[]).unwrap();
        let x1 = sign(net.layers()[0].preactivation(&p.x).unwrap());
        let x2 = sign(net.layers()[1].preactivation(&x1).unwrap());
        let at = net.loss_at(&p.x, &p.y, &*build(Method::St), &[x1, x2]).unwrap();
        assert_eq!(flat(&gradients(net, &loss), ""), flat(&gradients(net, &at), ""), "det-st {shape:?}");
    }
}

/// ARM takes continuous noise: the mean of 40,000 draws within 4.5 standard errors in each of 23 coordinates and two runs
/// (false alarms: 3e-4), and a gradient 1.1 times as large is refused. (U in place of U - 1/2 would not be: both states have
/// the same law, so that any constant is a baseline.)
#[test]
fn arm_is_unbiased() {
    let p = problem(&[2, 2], noise(Shape::Logistic), 71);
    let n = 40_000;
    let z = |factor: f64, seed: u64| {
        let copies = p.network.replicate(n).unwrap();
        let x = p.x.narrow(0, 0, 1);
        let y = p.y.narrow(0, 0, 1);
        let rule = build(Method::Arm);
        let loss = copies.loss(&x.expand([n, 1, 3], false), &y, &*rule, &mut HostNoise::new(seed)).unwrap();
        loss.surrogate.sum(Kind::Double).backward();
        let rows: Vec<Tensor> = copies.params().iter().map(|(_, t)| t.grad().flatten(1, -1)).collect();
        let rows = Tensor::cat(&rows, 1) * factor;
        let single = p.network.exact_loss(&x, &y).unwrap();
        let exact = flat(&gradients(&p.network, &Loss { value: x.copy(), scores: x.copy(), surrogate: single }), "");
        let (mean, variance) = common::stats::mean_and_variance(&rows);
        let z = (mean - exact) / variance.sqrt();
        largest(&z.nan_to_num(0.0, None, None))
    };
    for seed in [1, 2] {
        let found = z(1.0, seed);
        assert!(found < Z_LIMIT, "seed {seed}: z {found}");
    }
    let mutant = z(1.1, 1);
    assert!(mutant > Z_LIMIT, "a gradient 1.1 times too large passes: z {mutant}");
}

/// A convolutional network with padding, stride and scale and shift: the last layer and the head of PSA are exact, and so is
/// REINFORCE throughout; scale and shift included.
#[test]
fn convolutions_by_enumeration() {
    let description = Description {
        input: vec![2, 3, 3],
        layers: vec![Spec::conv(1, 3, 2, 1), Spec::conv(2, 2, 2, 1), Spec::Linear { units: 2 }], // 4 + 8 + 2 units
        scores: 3,
        affine: true,
        ..Description::default()
    };
    let p = with_data(&description, 81);
    let exact = p.exact();
    let paths = p.network.paths(&p.x.narrow(0, 0, 1)).unwrap();
    let rows = paths.probability.size()[0];
    let (x, y) = (p.x.narrow(0, 0, 1), p.y.narrow(0, 0, 1));
    let single = p.network.exact_loss(&x, &y).unwrap();
    let truth = gradients(&p.network, &Loss { value: x.copy(), scores: x.copy(), surrogate: single });
    let mean = |rule: &dyn Rule| {
        let loss = p
            .network
            .loss_at(&x.expand([rows, -1, -1, -1], false), &y.expand([rows], false), rule, &paths.states)
            .unwrap();
        let surrogate = loss.surrogate * paths.probability.select(1, 0) * rows as f64;
        gradients(&p.network, &Loss { surrogate, value: loss.value, scores: loss.scores })
    };
    let reinforce = mean(&*build(Method::Reinforce));
    assert!(off(&flat(&reinforce, ""), &flat(&truth, "")) < TOLERANCE, "reinforce");
    let knobs = Knobs { psa_backend: Some(Backend::Exact), ..Knobs::default() };
    let psa = mean(&*Method::Psa.build(&knobs).unwrap());
    for k in ["layers.2", "head"] {
        let error = off(&flat(&psa, k), &flat(&truth, k));
        assert!(error < TOLERANCE, "psa {k}: off by {error:e}");
    }
    let bias = off(&flat(&psa, "layers.0"), &flat(&truth, "layers.0"));
    println!("PSA's bias in layer 1 of the convolutional network: {bias:.2e} of the largest entry");
    assert!(bias > 1e-4 && bias < 1.0);
    assert!(exact.iter().any(|(n, g)| n == "layers.0.scale" && largest(g) > 0.0));
}
