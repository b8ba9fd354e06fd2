//! Belief networks: their bound and likelihood against enumeration, the estimators on them, twenty layers in training, and
//! what the command line of `sbn-vae` takes and refuses.
#[allow(dead_code)]
#[path = "../experiments/sbn-vae/args.rs"]
mod args;
#[allow(dead_code)]
#[path = "../experiments/sbn-vae/images.rs"]
mod images;
#[allow(dead_code)]
#[path = "../experiments/sbn-vae/measure.rs"]
mod measure;
#[path = "belief_cases/measured.rs"]
mod measured;
#[path = "belief_cases/preset_values.rs"]
mod preset_values;
#[allow(dead_code)]
#[path = "../experiments/sbn-vae/presets.rs"]
mod presets;

use args::{Args, Config};
use clap::Parser;
use std::path::Path;
use std::process::Command;
use tch::{Device, Kind, Tensor};
use thruway::dist::bernoulli::Code;
use thruway::estimators::{
    Built, Cascade, Estimator, GradEstimator, Knobs, Objective, Place, Sizes, Variables, cascade,
};
use thruway::nn::belief::{Hidden, Init, Prior, Shape};
use thruway::nn::elbo::Kl;
use thruway::nn::likelihood::{bounds, log_weights};
use thruway::nn::{BeliefNet, Elbo};
use thruway::noise::{HostNoise, TorchNoise};
use thruway::optim::{Sgd, sgd};

const PIXELS: i64 = 6;

fn shape(latents: &[i64], categories: Option<i64>, hidden: usize) -> Shape {
    Shape {
        pixels: PIXELS,
        latents: latents.to_vec(),
        categories,
        hidden: (hidden, 5),
        activation: Hidden::Tanh,
        code: Code::PlusMinus,
        scale: 1.0,
        prior: Prior::Trained,
        init: Init::Pytorch,
        doubled: false,
    }
}

/// A small network whose parameters, prior included, are far from symmetric.
fn tiny(latents: &[i64], categories: Option<i64>, hidden: usize) -> BeliefNet {
    tiny_of(shape(latents, categories, hidden))
}

fn tiny_of(shape: Shape) -> BeliefNet {
    tch::manual_seed(11);
    let mut net = BeliefNet::new(shape, Device::Cpu).unwrap();
    let _guard = tch::no_grad_guard();
    for (_, p) in net.params().iter() {
        p.shallow_clone().copy_(&(p * 1.5 + Tensor::randn(p.size(), (Kind::Float, Device::Cpu)) * 0.5));
    }
    net.centre(&Tensor::from_slice(&[0.2f32, 0.5, 0.9, 0.0, 0.4, 1.0])).unwrap();
    net
}

fn images(n: i64) -> Tensor {
    tch::manual_seed(5);
    Tensor::rand([n, PIXELS], (Kind::Float, Device::Cpu)).ge(0.5).to_kind(Kind::Float)
}

fn parameter(net: &BeliefNet, name: &str) -> Tensor {
    net.params().iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no {name}")).1.to_kind(Kind::Double)
}

/// All states of n bits, `[2^n, n]`, as -1 and 1.
fn codes(n: i64) -> Tensor {
    let rows = Tensor::arange(1 << n, (Kind::Int64, Device::Cpu)).unsqueeze(1);
    let bit = Tensor::arange(n, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    (rows.bitwise_right_shift(&bit).remainder(2) * 2 - 1).to_kind(Kind::Double)
}

/// `log p(v)` of independent signs v under logits, summed over the last axis.
fn log_signs(logits: &Tensor, v: &Tensor) -> Tensor {
    (logits * v).log_sigmoid().sum_dim_intlist(-1, false, Kind::Double)
}

/// `log p(x)` `[B]` and the ELBO `[B]` of a linear network of two layers, in double and from its parameters alone.
fn by_hand(net: &BeliefNet, x: &Tensor) -> (Tensor, Tensor) {
    let linear = |name: &str, h: &Tensor| {
        h.matmul(&parameter(net, &format!("{name}.fc1.weight")).tr()) + parameter(net, &format!("{name}.fc1.bias"))
    };
    let mean = Tensor::from_slice(&[0.2f64, 0.5, 0.9, 0.0, 0.4, 1.0]).to_kind(Kind::Float).to_kind(Kind::Double);
    let clipped = mean.clamp(0.001, 0.999);
    let output = clipped.log() - (-clipped).log1p();
    let x = x.to_kind(Kind::Double);
    let (c1, c2) = (codes(3), codes(2));
    let (mut likelihood, mut elbo) = (vec![], vec![]);
    for row in 0..x.size()[0] {
        let x = x.get(row);
        let q1 = log_signs(&linear("encoder.0", &(&x - &mean).unsqueeze(0)), &c1); // [8]
        let q2 = log_signs(&linear("encoder.1", &c1).unsqueeze(1), &c2.unsqueeze(0)); // [8, 4]
        let pixels = linear("decoder.0", &c1) + &output;
        let px = log_signs(&pixels, &(&x * 2.0 - 1.0)); // [8]
        let p1 = log_signs(&linear("decoder.1", &c2).unsqueeze(0), &c1.unsqueeze(1)); // [8, 4]
        let p2 = log_signs(&parameter(net, "prior"), &c2); // [4]
        let joint = px.unsqueeze(1) + p1 + p2.unsqueeze(0);
        let q = q1.unsqueeze(1) + q2;
        likelihood.push(joint.logsumexp([0i64, 1].as_slice(), false));
        elbo.push((q.exp() * (&joint - &q)).sum(Kind::Double));
    }
    (Tensor::stack(&likelihood, 0), Tensor::stack(&elbo, 0))
}

/// Mean and standard error of the columns of `[S, ..]`.
fn spread(t: &Tensor) -> (Tensor, Tensor) {
    let n = t.size()[0] as f64;
    (t.mean_dim(0i64, false, Kind::Double), t.std_dim(0i64, true, false) / n.sqrt())
}

fn largest(t: &Tensor) -> f64 {
    t.abs().max().double_value(&[])
}

#[test]
fn the_bound_and_the_likelihood_agree_with_enumeration() {
    let net = tiny(&[3, 2], None, 0);
    let x = images(4);
    let (likelihood, elbo) = by_hand(&net, &x);
    let w = log_weights(&net, &x, 40_000, &mut HostNoise::new(3)).unwrap().to_kind(Kind::Double);
    // E log w is the ELBO and E w the likelihood: 4 + 4 coordinates at 4.5 standard errors, false alarm below 1e-4; the
    // weights are f32, whose error of some 1e-5 is far below the standard errors of about 5e-3
    let (mean, se) = spread(&w);
    assert!(largest(&((mean - &elbo) / se)) < 4.5);
    let (mean, se) = spread(&(&w - likelihood.unsqueeze(0)).exp());
    assert!(largest(&((mean - 1.0) / se)) < 4.5);
    assert!((&elbo - &likelihood).max().double_value(&[]) < 0.0, "the bound is a bound");

    // What is reported: bounds of growing numbers of draws close in on the likelihood from the right side.
    let exact = -likelihood.mean(Kind::Double).double_value(&[]);
    let seen = |samples| {
        let mut read = |from: i64, n: i64| Ok(x.narrow(0, from, n));
        bounds(&net, 4, &mut read, samples, &mut HostNoise::new(7)).unwrap()
    };
    let many = seen(20_000);
    assert!((many.neg_log_likelihood - exact).abs() < 0.05, "{} {exact}", many.neg_log_likelihood);
    assert!((many.neg_elbo + elbo.mean(Kind::Double).double_value(&[])).abs() < 0.1);
    let one = seen(1);
    assert!((one.neg_elbo - one.neg_log_likelihood).abs() < 1e-6, "one draw: the two are the same");
}

fn build(estimator: Estimator, net: &BeliefNet, samples: Option<i64>) -> Vec<Built> {
    let code = match net.variables() {
        Variables::Boolean(code) => Some(code),
        Variables::Categorical => None,
    };
    let place = Some(Place { kind: Kind::Float, device: Device::Cpu });
    let one = || {
        let sizes = Sizes { latents: Some(net.shape().latents[0]), context: Some(PIXELS), place };
        estimator.build(&Knobs { code, samples, sizes, ..Knobs::default() }).unwrap()
    };
    (0..net.depth()).map(|_| one()).collect()
}

/// The exact gradient of the negative ELBO of one image in all parameters, by enumeration of the states of a linear or
/// hidden network of one or two layers, through autograd.
fn exact_gradient(net: &BeliefNet, x: &Tensor) -> Tensor {
    exact_gradient_of(net, x, |log_q, joint| (log_q.exp() * (log_q - joint)).sum(Kind::Float))
}

/// The same of another loss of `log q(b | x)` and `log p(x, b)` of all states, `[states]` each.
fn exact_gradient_of(net: &BeliefNet, x: &Tensor, loss: impl Fn(&Tensor, &Tensor) -> Tensor) -> Tensor {
    let input = net.input(x).unwrap().unsqueeze(0);
    let bits = |n| (codes(n).to_kind(Kind::Float) + 1.0) / 2.0;
    let b1 = bits(net.shape().latents[0]).unsqueeze(1); // [S, 1, L]
    let logits = net.recognise(0, &input).unwrap();
    let (s1, log_q1) = (net.encode(&b1).unwrap(), net.log_prob(&logits, &b1).unwrap()); // log_q1 [S, 1]
    let y = net.generate(0, &s1).unwrap();
    let px = ((&y * x).sum_dim_intlist(-1, false, Kind::Float) - y.softplus().sum_dim_intlist(-1, false, Kind::Float))
        .squeeze_dim(1);
    let log_q1 = log_q1.squeeze_dim(1);
    let (q, joint) = if net.depth() == 1 {
        (log_q1, px + net.log_prob(&net.prior().unwrap(), &b1).unwrap().squeeze_dim(1))
    } else {
        let b2 = bits(net.shape().latents[1]).unsqueeze(0); // [1, T, L]
        let q2 = net.log_prob(&net.recognise(1, &s1).unwrap(), &b2).unwrap(); // [S, T]
        let p1 = net.log_prob(&net.generate(1, &net.encode(&b2).unwrap()).unwrap(), &b1).unwrap(); // [S, T]
        let p2 = net.log_prob(&net.prior().unwrap(), &b2).unwrap(); // [1, T]
        (log_q1.unsqueeze(1) + q2, px.unsqueeze(1) + p1 + p2)
    };
    let f = loss(&q.reshape([-1]), &joint.reshape([-1]));
    let all: Vec<&Tensor> = net.params().iter().map(|(_, t)| t).collect();
    let grads = Tensor::run_backward(&[f], &all, false, false);
    Tensor::cat(&grads.iter().map(|g| g.reshape([-1])).collect::<Vec<_>>(), 0).to_kind(Kind::Double)
}

/// Mean estimates of independent batches `[batches, parameters]`, each of `rows` copies of the image.
fn estimates(net: &BeliefNet, x: &Tensor, layers: &[Built], kl: Kl, batches: i64, rows: i64) -> Tensor {
    let x = x.expand([rows, PIXELS], false).contiguous();
    let mut noise = HostNoise::new(23);
    let one = |_| {
        let elbo = Elbo::new(net, &x, kl).unwrap();
        let loss = elbo.surrogate_loss(layers, 1, &mut noise).unwrap().mean(Kind::Float);
        for (_, p) in net.params().iter() {
            let mut p = p.shallow_clone();
            p.zero_grad();
        }
        loss.backward();
        let all: Vec<Tensor> = net.params().iter().map(|(_, p)| p.grad().reshape([-1])).collect();
        Tensor::cat(&all, 0).to_kind(Kind::Double)
    };
    Tensor::stack(&(0..batches).map(one).collect::<Vec<_>>(), 0)
}

/// Largest |z| of the mean estimate against the truth over the parameters with any spread.
fn z(estimates: &Tensor, truth: &Tensor) -> f64 {
    let (mean, se) = spread(estimates);
    // f32 sums over 500 rows round at some 1e-6 of the terms
    largest(&((mean - truth) / (se + 2e-5)))
}

#[test]
fn unbiased_estimators_give_the_gradient_of_the_bound() {
    // Some 100 parameters and 60 batches of 500: at 5 standard errors of a t with 59 degrees of freedom each of the 14 checks
    // has a false alarm below 1e-3.
    let x = images(1);
    let zero_one = Shape { code: Code::ZeroOne, doubled: true, ..shape(&[4], None, 0) };
    let cases: [(Shape, Kl, &[Estimator]); 4] = [
        (
            shape(&[4], None, 1),
            Kl::Sampled,
            &[Estimator::Rloo, Estimator::Disarm, Estimator::LocalExpectation, Estimator::Rodeo, Estimator::Rebar],
        ),
        (shape(&[4], None, 0), Kl::Analytic, &[Estimator::Rloo, Estimator::LocalExpectation, Estimator::DoubleCv]),
        (zero_one, Kl::Sampled, &[Estimator::Rloo, Estimator::LocalExpectation]),
        (
            shape(&[3, 2], None, 0),
            Kl::Sampled,
            &[Estimator::Rloo, Estimator::Disarm, Estimator::LocalExpectation, Estimator::Rodeo],
        ),
    ];
    for (shape, kl, estimators) in cases {
        let what = format!("{:?} {:?}", shape.latents, shape.code);
        let net = tiny_of(shape);
        let truth = exact_gradient(&net, &x);
        for &e in estimators {
            let seen = estimates(&net, &x, &build(e, &net, None), kl, 60, 500);
            let worst = z(&seen, &truth);
            assert!(worst < 5.0, "{} on {what}, {kl:?}: z = {worst}", e.name());
        }
        // the same test sees a biased one
        let st = estimates(&net, &x, &build(Estimator::St, &net, None), kl, 60, 500);
        assert!(z(&st, &truth) > 10.0, "st on {what}");
    }
}

/// VIMCO's bound of two draws, over all pairs of states, `log q` with its derivative; in one layer and two.
#[test]
fn vimco_gives_the_gradient_of_its_bound() {
    let x = images(1);
    for latents in [&[4i64][..], &[3, 2]] {
        let net = tiny(latents, None, 0);
        let truth = exact_gradient_of(&net, &x, |log_q, joint| {
            let log_w = joint - log_q;
            let pairs = log_w.unsqueeze(0).logaddexp(&log_w.unsqueeze(1)) - 2f64.ln();
            -((log_q.unsqueeze(0) + log_q.unsqueeze(1)).exp() * pairs).sum(Kind::Float)
        });
        let seen = estimates(&net, &x, &build(Estimator::Vimco, &net, Some(2)), Kl::Sampled, 60, 500);
        // as above
        assert!(z(&seen, &truth) < 5.0, "{latents:?}: z = {}", z(&seen, &truth));
        // and not that of one draw
        assert!(z(&seen, &exact_gradient(&net, &x)) > 10.0, "{latents:?}");
    }
}

/// `KL(q || p)` of categorical variables by the sum over all their states.
#[test]
fn the_closed_divergence_of_classes_is_that_of_enumeration() {
    let net = tiny(&[2], Some(3), 0);
    let elbo = Elbo::new(&net, &images(4), Kl::Analytic).unwrap();
    let q = Cascade::logits(&elbo, 0, &[]).unwrap().squeeze_dim(0).to_kind(Kind::Double).softmax(-1, Kind::Double); // [4, 2, 3]
    let p = net.prior().unwrap().to_kind(Kind::Double).softmax(-1, Kind::Double); // [2, 3]
    let joint = |t: &Tensor| t.select(-2, 0).unsqueeze(-1) * t.select(-2, 1).unsqueeze(-2); // [.., 3, 3]
    let (q, p) = (joint(&q), joint(&p));
    let want = (&q * (q.log() - p.log())).sum_dim_intlist([-2i64, -1].as_slice(), false, Kind::Double);
    let got = elbo.divergence().unwrap();
    assert!(largest(&(&got - &want)) < 1e-5, "{got} {want}");
    assert!(want.min().double_value(&[]) > 0.1, "the two distributions differ");
}

#[test]
fn categorical_flips_by_the_first_layer_are_unbiased_too() {
    let x = images(1);
    for hidden in [0, 1] {
        let net = tiny(&[3], Some(3), hidden);
        let layers = [Estimator::LocalExpectation, Estimator::Rloo].map(|e| build(e, &net, None));
        let [a, b] = [0, 1].map(|i| estimates(&net, &x, &layers[i], Kl::Sampled, 60, 500));
        let ((a, sa), (b, sb)) = (spread(&a), spread(&b));
        // two independent means; as above
        let worst = largest(&((a - b) / ((sa.square() + sb.square()).sqrt() + 2e-5)));
        assert!(worst < 5.0, "hidden {hidden}: z = {worst}");
    }
}

/// In one layer too, where f keeps the pre-activations of the draw.
#[test]
fn flips_of_one_layer_by_columns_are_the_naive_ones() {
    let x = images(1).expand([7, PIXELS], false).contiguous();
    let zero_one = || Shape { code: Code::ZeroOne, doubled: true, ..shape(&[5], None, 0) };
    for (of, samples, kl) in [
        (shape(&[5], None, 0), 1, Kl::Sampled),
        (shape(&[5], None, 0), 3, Kl::Analytic),
        (zero_one(), 1, Kl::Sampled),
        (zero_one(), 3, Kl::Analytic),
        (shape(&[5], Some(10), 0), 1, Kl::Sampled),
        (shape(&[5], Some(4), 0), 3, Kl::Analytic),
        (shape(&[5], Some(7), 1), 1, Kl::Sampled),
    ] {
        let what = format!("{:?} {:?} {:?}, {samples} samples", of.code, of.categories, of.hidden);
        let net = tiny_of(of);
        let estimator = &build(Estimator::LocalExpectation, &net, Some(samples))[0];
        let elbo = Elbo::new(&net, &x, kl).unwrap();
        let grad = |f: &dyn Objective| {
            let logits = Cascade::logits(&elbo, 0, &[]).unwrap().squeeze_dim(0).detach().set_requires_grad(true);
            let loss = estimator.surrogate_loss(&logits, f, &mut HostNoise::new(3)).unwrap();
            loss.sum(Kind::Float).backward();
            logits.grad()
        };
        let (fast, slow) = (grad(&elbo), grad(&|b: &Tensor| elbo.at(b)));
        let off = largest(&(&fast - &slow)) / largest(&slow);
        assert!(off < 1e-5, "{what}: off by {off:e}");
        assert!(largest(&slow) > 1e-2);
    }
}

/// In a cascade the flips by columns are those by evaluation: of the last layer in any network, of the first where the bits
/// after it have no choice (weights so large that noise does not matter).
#[test]
fn flips_of_a_cascade_by_columns_are_the_naive_ones() {
    struct Naive<'a>(Elbo<'a>);
    impl Cascade for Naive<'_> {
        fn depth(&self) -> usize {
            self.0.depth()
        }
        fn logits(&self, layer: usize, before: &[Tensor]) -> thruway::Result<Tensor> {
            self.0.logits(layer, before)
        }
        fn loss(&self, states: &[Tensor]) -> thruway::Result<Tensor> {
            self.0.loss(states)
        }
    }
    let x = images(1).expand([7, PIXELS], false).contiguous();
    for (hidden, first) in [0, 1].into_iter().flat_map(|h| [(h, Estimator::St), (h, Estimator::LocalExpectation)]) {
        let net = tiny(&[4, 3], None, hidden);
        if first == Estimator::LocalExpectation {
            let _guard = tch::no_grad_guard();
            for (_, p) in net.params().iter().filter(|(n, _)| n.starts_with("encoder.1")) {
                let _ = p.shallow_clone().g_mul_scalar_(1e5);
            }
        }
        let mut layers = build(Estimator::LocalExpectation, &net, None);
        layers[0] = build(first, &net, None).remove(0);
        let grads = |loss: &dyn Fn(&mut HostNoise) -> Tensor| {
            let total = loss(&mut HostNoise::new(3)).sum(Kind::Float);
            let all: Vec<&Tensor> =
                net.params().iter().filter(|(n, _)| n.starts_with("encoder")).map(|(_, t)| t).collect();
            let g = Tensor::run_backward(&[total], &all, false, false);
            Tensor::cat(&g.iter().map(|g| g.reshape([-1])).collect::<Vec<_>>(), 0)
        };
        let elbo = || Elbo::new(&net, &x, Kl::Sampled).unwrap();
        let fast = grads(&|noise| elbo().surrogate_loss(&layers, 1, noise).unwrap());
        let slow = grads(&|noise| cascade::surrogate_loss(&Naive(elbo()), net.variables(), &layers, noise).unwrap());
        // f32 sums of a few dozen terms
        let off = largest(&(&fast - &slow)) / largest(&slow);
        assert!(off < 1e-5, "{} first, {hidden} hidden: off by {off:e}", first.name());
        assert!(largest(&slow) > 1e-2);
    }
}

#[test]
fn a_network_of_another_kind_is_refused() {
    let refuses = |shape: Shape, word: &str| {
        let e = BeliefNet::new(shape, Device::Cpu).unwrap_err().to_string();
        assert!(e.contains(word), "{e}");
    };
    refuses(shape(&[], None, 0), "stochastic layers");
    refuses(shape(&[3, 0], None, 0), "latent variables");
    refuses(Shape { scale: f64::NAN, ..shape(&[3], None, 0) }, "scale");
    let net = tiny(&[3, 2], None, 0);
    let complains = |r: thruway::Result<Elbo>, word: &str| {
        let e = r.err().unwrap().to_string();
        assert!(e.contains(word), "{e}");
    };
    complains(Elbo::new(&net, &images(2), Kl::Analytic), "one stochastic layer alone");
    complains(Elbo::new(&net, &images(2).narrow(1, 0, 4), Kl::Sampled), "[B, 6]");
    let elbo = Elbo::new(&net, &images(2), Kl::Sampled).unwrap();
    let few = elbo.surrogate_loss(&build(Estimator::St, &net, None)[..1], 1, &mut TorchNoise);
    assert!(few.unwrap_err().to_string().contains("number of estimators"));
    let one = tiny(&[3], None, 0);
    let elbo = Elbo::new(&one, &images(2), Kl::Analytic).unwrap();
    let bound = elbo.surrogate_loss(&build(Estimator::Vimco, &one, None), 1, &mut TorchNoise);
    assert!(bound.unwrap_err().to_string().contains("take the sampled one"));
}

/// A network whose values are scaled takes estimators of that scale, and undoes it.
#[test]
fn a_scale_is_that_of_network_and_estimator() {
    let net = tiny_of(Shape { scale: 0.8, ..shape(&[3], None, 0) });
    let bits = images(4).narrow(1, 0, 3).unsqueeze(0);
    let encoded = net.encode(&bits).unwrap();
    assert!(largest(&(&encoded - (&bits * 2.0 - 1.0) * 0.8)) < 1e-6);
    assert!(largest(&(net.indicators(&encoded).unwrap() - &bits)) < 1e-6);
    let x = images(2);
    let elbo = Elbo::new(&net, &x, Kl::Sampled).unwrap();
    for e in [Estimator::St, Estimator::LocalExpectation] {
        let error = elbo.surrogate_loss(&build(e, &net, None), 1, &mut TorchNoise).unwrap_err().to_string();
        assert!(error.contains("scale 1") && error.contains("scale 0.8"), "{error}");
    }
    let knobs = Knobs { code: Some(Code::PlusMinus), scale: Some(0.8), ..Knobs::default() };
    let foust = vec![Estimator::Foust.build(&knobs).unwrap()];
    assert!(elbo.surrogate_loss(&foust, 1, &mut TorchNoise).unwrap().size() == [2]);
    let plain = tiny(&[3], None, 0);
    let error = Elbo::new(&plain, &x, Kl::Sampled).unwrap().surrogate_loss(&foust, 1, &mut TorchNoise).unwrap_err();
    assert!(error.to_string().contains("build both alike"), "{error}");
}

/// Mean -ELBO, in the order of training, of a network of twenty layers.
fn train_deep(estimator: Estimator, steps: i64, encoders: bool) -> Vec<f64> {
    tch::manual_seed(1);
    let digits = thruway::data::Images::bundled_sample().unwrap();
    let x = thruway::data::unit_interval(&digits.train).ge(0.5).to_kind(Kind::Float);
    let shape =
        Shape { pixels: 784, latents: vec![30; 20], hidden: (2, 30), init: Init::Glorot, ..shape(&[1], None, 0) };
    let mut net = BeliefNet::new(shape, Device::Cpu).unwrap();
    net.centre(&x.mean_dim(0i64, false, Kind::Float)).unwrap();
    let layers = build(estimator, &net, None);
    let settings = sgd::Settings { lr: 4e-4, momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    let mut sgd = Sgd::new(settings, net.params().iter()).unwrap();
    let step = |i: i64| {
        let x = x.narrow(0, (i * 50) % 2000, 50);
        let elbo = Elbo::new(&net, &x, Kl::Sampled).unwrap();
        let loss = elbo.surrogate_loss(&layers, 1, &mut TorchNoise).unwrap().mean(Kind::Float);
        sgd.zero_grad();
        loss.backward();
        for (_, p) in net.params().iter().filter(|(n, _)| !encoders && n.starts_with("encoder.")) {
            p.shallow_clone().zero_grad();
        }
        sgd.step().unwrap();
        loss.double_value(&[])
    };
    (0..steps).map(step).collect()
}

#[test]
fn twenty_stochastic_layers_train() {
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let control = mean(&train_deep(Estimator::St, 300, false)[250..]);
    for e in [Estimator::Foust, Estimator::St] {
        let losses = train_deep(e, 300, true);
        assert!(losses.iter().all(|l| l.is_finite()), "{}", e.name());
        let (first, last) = (mean(&losses[..10]), mean(&losses[250..]));
        // a step's loss has a spread of 5 nats, the difference of two means of fifty 1.0: 4 is beyond chance
        println!("{}: {first} to {last}, {control} with encoders at rest", e.name());
        assert!(last < control - 4.0, "{}: {last}, with encoders at rest {control}", e.name());
        assert!(losses.iter().all(|l| *l < first + 100.0), "{} left its course", e.name());
    }
}

fn parsed(flags: &str) -> (Args, thruway::Result<Config>) {
    let args = Args::parse_from(std::iter::once("sbn-vae").chain(flags.split_whitespace()));
    let config = Config::new(&args);
    (args, config)
}

/// Before there is a run directory, and by the name of the flag.
#[test]
fn options_without_effect_or_sense_are_refused() {
    for (flags, words) in [
        // a number of draws that the estimator does not have
        ("--estimator reinforce --samples 4", "reinforce takes no --samples"),
        ("--estimator nvil --samples 2", "nvil takes no --samples"),
        ("--estimator muprop --samples 2", "muprop takes no --samples"),
        ("--estimator arm --samples 2", "arm takes no --samples"),
        ("--estimator rebar --samples 2", "rebar takes no --samples"),
        ("--estimator relax --samples 3", "relax takes no --samples"),
        ("--estimator exact --samples 3 --latent-dim 4", "exact takes no --samples"),
        ("--estimator st --samples 0", "--samples must be at least 1, got 0"),
        ("--estimator disarm --samples 3", "disarm: samples must be"),
        ("--estimator st --interval 0.1", "st takes no --interval"),
        // no bound, or no closed form
        ("--estimator vimco --kl analytic", "no bound; give --kl sampled"),
        ("--preset reinmax-2x200 --estimator vimco", "no bound; give --kl sampled"),
        ("--estimator st --layers 2 --kl analytic", "--kl analytic is for one stochastic layer"),
        ("--estimator exact", "--latent-dim with --estimator exact must be"),
        ("--estimator exact --categorical-dim 10 --latent-dim 5", "got 5"),
        // swallowed
        ("--estimator st --categorical-dim 3 --code plus-minus", "--code changes nothing"),
        ("--estimator st --cv-lr 0.01", "--cv-lr is for estimators that learn, and st does not"),
        ("--hidden-layers 0 --hidden-dim 30", "--hidden-dim changes nothing without hidden layers"),
        ("--preset gsb-sbn1 --activation tanh", "--activation changes nothing without hidden layers"),
        ("--grad-draws 1", "--grad-draws must be 0, or at least 2"),
        ("--preset reinmax-2x200 --categorical-dim 10", "2 o - 1, which is for bits"),
    ] {
        let error = parsed(flags).1.expect_err(flags).to_string();
        assert!(error.contains(words), "{flags}: {words:?} is not in: {error}");
    }
}

#[test]
fn a_configuration_holds_what_is_used_and_what_was_changed() {
    let of = |flags: &str| parsed(flags).1.unwrap_or_else(|e| panic!("{flags}: {e}"));
    for estimator in ["reinforce", "nvil", "muprop", "arm", "rebar", "relax"] {
        assert_eq!(of(&format!("--estimator {estimator}")).samples, None, "{estimator}");
    }
    assert_eq!(of("--estimator rodeo").samples, Some(2));
    assert_eq!((of("--estimator st").samples, of("--estimator st").draws()), (Some(2), 2));
    assert_eq!((of("--estimator disarm --samples 4").samples, of("--estimator disarm").draws()), (Some(4), 1));
    assert_eq!(of("--estimator exact --latent-dim 8").samples, None);
    for (flags, want) in [
        ("--preset rodeo-2x200", vec![]),
        ("--preset rodeo-2x200 --estimator relax --epochs 3 --grad-draws 5 --ll-samples 7", vec![]),
        ("--preset reinmax-2x200 --samples 3 --dataset omniglot", vec![]),
        ("--preset gsb-vae --samples 5", vec![]),
        ("--preset rodeo-2x200 --lr 0.01 --estimator disarm", vec!["lr 0.01, preset 0.001"]),
        ("--preset rodeo-2x200 --estimator relax --tau 0.1", vec![]),
        ("--preset rodeo-2x200 --estimator relax --tau 0.5", vec!["tau 0.5, preset 0.1"]),
        (
            "--preset rodeo-2x200 --kl analytic --train-images 100",
            vec!["train images 100, preset 50000", "kl analytic, preset sampled"],
        ),
    ] {
        let (args, config) = parsed(flags);
        assert_eq!(config.unwrap().beside_preset(&args).unwrap().unwrap(), want, "{flags}");
    }
    let (args, config) = parsed("--lr 0.01");
    assert_eq!(config.unwrap().beside_preset(&args).unwrap(), None, "no preset, nothing beside it");
}

#[test]
fn sweep_files_hold_runs_that_sbn_vae_takes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/sbn-vae/sweeps");
    let mut runs = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let mut c = Command::new(env!("CARGO_BIN_EXE_thruway"));
        let o = c.args(["sweep", "--dry-run"]).arg(&file).current_dir(std::env::temp_dir()).output().unwrap();
        assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
        for line in String::from_utf8(o.stdout).unwrap().lines() {
            let words = line.split_whitespace().skip_while(|w| !w.ends_with("/sbn-vae"));
            let args = Args::try_parse_from(words).unwrap_or_else(|e| panic!("{}: {line}: {e}", file.display()));
            Config::new(&args).unwrap_or_else(|e| panic!("{}: {line}: {e}", file.display()));
            runs += 1;
        }
    }
    assert!(runs > 200, "{runs} runs");
}
