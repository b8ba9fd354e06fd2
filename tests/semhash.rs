//! Semantic hashing: the reader of 20 Newsgroups, the sparse layer, retrieval, and the estimators on a small autoencoder.
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/correction.rs"]
mod correction;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/documents.rs"]
mod documents;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/measure.rs"]
mod measure;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/method.rs"]
mod method;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/model.rs"]
mod model;
#[allow(dead_code, missing_docs)]
#[path = "../experiments/semhash/retrieval.rs"]
mod retrieval;

mod common;
#[path = "semhash_cases/newsgroups.rs"]
mod newsgroups;

use common::stats::Z_LIMIT;
use common::{distance, normals};
use measure::{Trial, summarise};
use method::Method;
use model::Model;
use retrieval::{Codes, precision};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};
use thruway::estimators::{Estimator, GradEstimator, Knobs};
use thruway::nn::Params;
use thruway::nn::bow::{Bags, OutputBf16, Precision, WordLayer, multinomial_nll};
use thruway::noise::{HostNoise, Tape};

/// Four documents over seven words, the third empty.
fn bags(kind: Kind) -> Bags {
    let (words, counts) = ([0, 2, 6, 1, 2, 0, 3, 4, 5], [3.0, 1.0, 2.0, 5.0, 1.0, 1.0, 1.0, 1.0, 4.0]);
    Bags::new(7, &[0, 3, 5, 5, 9], &words, &counts, kind, Device::Cpu).unwrap()
}

fn leaf(size: &[i64], seed: u64) -> Tensor {
    normals(size, Kind::Double, seed).set_requires_grad(true)
}

#[test]
fn sparse_layer_is_the_dense_one_with_its_gradient() {
    let bags = bags(Kind::Double);
    let (w, b) = (leaf(&[7, 3], 1), leaf(&[3], 2));
    let layer = WordLayer::of(w.shallow_clone(), b.shallow_clone());
    let upstream = normals(&[4, 3], Kind::Double, 3);
    let run = |y: Tensor| {
        let grads = Tensor::run_backward(&[(&y * &upstream).sum(Kind::Double)], &[&w, &b], false, false);
        (y.detach(), grads)
    };
    let (sparse, dense) = (run(layer.forward(&bags).unwrap()), run(layer.forward_dense(&bags).unwrap()));
    // sums of at most four terms of order 1
    assert!(distance(&sparse.0, &dense.0) < 1e-14);
    assert!(sparse.1.iter().zip(&dense.1).all(|(a, b)| distance(a, b) < 1e-14));
    // by hand: document 0 has frequencies 3/6, 1/6, 2/6 of words 0, 2, 6; the empty one is the bias alone
    let by_hand = w.get(0) * 0.5 + w.get(2) / 6.0 + w.get(6) / 3.0 + &b;
    assert!(distance(&sparse.0.get(0), &by_hand.detach()) < 1e-14);
    assert!(distance(&sparse.0.get(2), &b.detach()) == 0.0);
    let e = WordLayer::of(leaf(&[8, 3], 1), leaf(&[3], 2)).forward(&bags).unwrap_err().to_string();
    assert!(e.contains("expected 8 words, got 7"), "{e}");
}

#[test]
fn bags_that_do_not_fit_are_refused() {
    let new = |starts: &[i64], words: &[i64], counts: &[f64]| {
        Bags::new(3, starts, words, counts, Kind::Double, Device::Cpu).map(drop).unwrap_err().to_string()
    };
    assert!(new(&[0, 2], &[0, 3], &[1.0, 1.0]).contains("word must be 0 to 2, got 3"));
    for (starts, words, counts) in [
        (&[1, 2][..], &[0, 1][..], &[1.0, 1.0][..]),
        (&[0, 1], &[0, 1], &[1.0, 1.0]),
        (&[0, 2], &[0, 1], &[1.0]),
        (&[0, 2, 1, 2], &[0, 1], &[1.0, 1.0]),
        (&[], &[], &[]),
    ] {
        assert!(new(starts, words, counts).contains("starts from 0"), "{starts:?}");
    }
}

#[test]
fn multinomial_likelihood_and_its_gradient() {
    let bags = bags(Kind::Double);
    let scores = leaf(&[2, 4, 7], 4);
    let y = bags.dense_frequencies().unwrap() * bags.lengths().unsqueeze(1);
    let upstream = normals(&[2, 4], Kind::Double, 5);
    let run = |value: Tensor| {
        let g = Tensor::run_backward(&[(&value * &upstream).sum(Kind::Double)], &[&scores], false, false).remove(0);
        (value.detach(), g)
    };
    let ours = run(multinomial_nll(&scores, &bags).unwrap());
    let theirs = run(-(scores.log_softmax(-1, Kind::Double) * y).sum_dim_intlist(-1, false, Kind::Double));
    assert!(distance(&ours.0, &theirs.0) < 1e-12 && distance(&ours.1, &theirs.1) < 1e-12);
    assert!(ours.0.select(1, 2).abs().max().double_value(&[]) == 0.0, "a document without words costs nothing");
    let e = multinomial_nll(&scores.narrow(2, 0, 6), &bags).unwrap_err().to_string();
    assert!(e.contains("[M, 4, 7]"), "{e}");
}

/// Rounded to 8 bits: values and gradients within a few of 2^-9 of their scale, and the document's own words not rounded at all.
#[test]
fn output_layer_in_bfloat16_is_near_the_exact_one() {
    let bags = bags(Kind::Float);
    let f32 = |t: Tensor| t.to_kind(Kind::Float).detach().set_requires_grad(true);
    let (h, w, b) = (f32(leaf(&[3, 4, 16], 6)), f32(leaf(&[7, 16], 7) * 0.3), f32(leaf(&[7], 8)));
    let run = |value: Tensor| {
        let mut all = Tensor::run_backward(&[value.sum(Kind::Float)], &[&h, &w, &b], false, false);
        all.insert(0, value.detach());
        all
    };
    let exact = run(multinomial_nll(&h.linear(&w, Some(&b)), &bags).unwrap());
    let rounded = run(OutputBf16::new(&w, &b, &bags).unwrap().nll(&h).unwrap());
    for (what, (exact, rounded)) in ["value", "h", "weight", "bias"].iter().zip(exact.iter().zip(&rounded)) {
        let scale = exact.abs().max().double_value(&[]);
        let error = distance(exact, rounded) / scale;
        // eight roundings of 2^-9 in one direction; a wrong formula is off by order 1
        assert!(error < 8.0 / 512.0, "{what}: {error}");
        assert!(*what == "bias" || error > 0.0, "{what}: nothing was rounded");
    }
    let e = OutputBf16::new(&w, &b.narrow(0, 0, 6), &bags).unwrap_err().to_string();
    assert!(e.contains("bias [7]"), "{e}");
    let e = OutputBf16::new(&w, &b, &bags).unwrap().nll(&h.narrow(2, 0, 2)).unwrap_err().to_string();
    assert!(e.contains("hidden [M, 4, 16]"), "{e}");
}

#[test]
fn retrieval_is_that_of_brute_force() {
    // 70 bits: two words a code; few different distances, so many ties
    let bits = |n: i64, seed: u64| normals(&[n, 70], Kind::Double, seed).gt(0.8).to_kind(Kind::Double);
    let (queries, database) = (bits(9, 1), bits(40, 2));
    let labels = |n: usize, step: usize| (0..n).map(|i| (i * step % 3) as u8).collect::<Vec<_>>();
    let (ql, dl) = (labels(9, 1), labels(40, 2));
    let (q, d) = (Codes::pack(&queries).unwrap(), Codes::pack(&database).unwrap());
    assert_eq!((q.len(), q.get(0).len(), d.len()), (9, 2, 40));
    for k in [1, 7, 40] {
        let mut sum = 0.0;
        for (i, group) in ql.iter().enumerate() {
            let away: Vec<i64> = Vec::try_from(
                (database.shallow_clone() - queries.get(i as i64)).abs().sum_dim_intlist(1, false, Kind::Int64),
            )
            .unwrap();
            assert_eq!(i64::from(retrieval::distance(q.get(i), d.get(5))), away[5]);
            // the mean over all orders of the ties: every document counts by its chance to be among the k
            let mut sorted = away.clone();
            sorted.sort();
            let edge = sorted[k - 1];
            let (nearer, tied) =
                (away.iter().filter(|a| **a < edge).count(), away.iter().filter(|a| **a == edge).count());
            for (_, a) in away.iter().enumerate().filter(|(j, _)| dl[*j] == *group) {
                sum += match a.cmp(&edge) {
                    std::cmp::Ordering::Less => 1.0,
                    std::cmp::Ordering::Equal => (k - nearer) as f64 / tied as f64,
                    std::cmp::Ordering::Greater => 0.0,
                };
            }
        }
        let found = precision((&q, &ql), (&d, &dl), k).unwrap();
        assert!((found - sum / (9 * k) as f64).abs() < 1e-12, "{k}: {found}");
    }
    // all codes equal: nothing but the share of the group, whatever the order of the documents
    let same = Codes::pack(&Tensor::ones([4, 8], (Kind::Float, Device::Cpu))).unwrap();
    assert_eq!(precision((&same, &[0, 0, 0, 0]), (&same, &[0, 1, 1, 1]), 1).unwrap(), 0.25);
    assert_eq!(same.distinct(), 1);
    assert!(precision((&q, &ql), (&d, &dl), 41).unwrap_err().to_string().contains("1 to the 40"));
    assert!(precision((&q, &ql[1..]), (&d, &dl), 1).is_err() && precision((&same, &[0; 4]), (&d, &dl), 1).is_err());
}

#[test]
fn metrics_of_trials_by_hand() {
    // g = (3, 4); estimates (3, 0), (0, -4): inner products 9, -16, squared lengths 9, 16
    let t = |inner, square| Trial { inner, square, truth: 25.0 };
    let row = summarise(&[t(9.0, 9.0), t(-16.0, 16.0)]).unwrap();
    assert!((row.cosine - (0.6 - 0.8) / 2.0).abs() < 1e-15);
    assert!((row.improvement - 3.5 / 12.5f64.sqrt()).abs() < 1e-15, "{}", row.improvement);
    // |(0, 4)|^2 = 16, |(3, 8)|^2 = 73
    assert!((row.rmse - 44.5f64.sqrt()).abs() < 1e-14);
    assert_eq!((row.norm, row.negative, row.cosine_band), (5.0, 0.5, None));
    // the gradient itself: as good as can be; an estimate of 0 has no direction
    let best = summarise(&[t(25.0, 25.0)]).unwrap();
    assert_eq!((best.cosine, best.improvement, best.rmse), (1.0, -5.0, 0.0));
    assert_eq!(summarise(&[t(0.0, 0.0)]).unwrap().cosine, 0.0);
    let many: Vec<Trial> = (0..=20).map(|i| t(f64::from(i), 25.0)).collect();
    let (low, high) = summarise(&many).unwrap().cosine_band.unwrap();
    assert!((low - 3.0 / 25.0).abs() < 1e-12 && (high - 17.0 / 25.0).abs() < 1e-12);
    assert!(summarise(&[]).is_none());
}

/// A model of three bits on the four documents, with weights large enough that f is no near-linear function of the bits.
fn small() -> Model {
    tch::manual_seed(3);
    let model = Model::new(7, 5, 3, Precision::F32, Device::Cpu).unwrap();
    tch::no_grad(|| model.params().iter().for_each(|(_, p)| drop(p.shallow_clone().f_mul_scalar_(3.0).unwrap())));
    model
}

/// Gradient of the expected losses in the logits `[4, 3]`, by all eight codes.
fn enumerated(model: &Model, bags: &Bags, logits: &Tensor) -> Tensor {
    let codes =
        Tensor::from_slice(&(0..24).map(|i| f64::from((i / 3) >> (i % 3) & 1)).collect::<Vec<_>>()).view([8, 1, 3]);
    let x = codes.to_kind(Kind::Float).expand([8, 4, 3], false).contiguous();
    let f = thruway::estimators::Objective::branch(&model.reconstruction(bags), &x).unwrap().to_kind(Kind::Double);
    let leaf = logits.detach().to_kind(Kind::Double).set_requires_grad(true);
    let p = leaf.sigmoid();
    let one: Tensor = &codes * &p + (1.0 - &codes) * (1.0 - &p);
    let probability = one.select(2, 0) * one.select(2, 1) * one.select(2, 2);
    Tensor::run_backward(&[(probability * f).sum(Kind::Double)], &[&leaf], false, false).remove(0)
}

/// Codes of several hundred rows go to the threads in parts; any number of threads gives the losses of one, to the last bit.
#[test]
fn threads_that_decode_change_nothing() {
    let bags = bags(Kind::Float);
    let codes = normals(&[700, 4, 3], Kind::Float, 5).gt(0.0).to_kind(Kind::Float);
    for precision in [Precision::F32, Precision::Bf16] {
        let f = small().reconstruction(&bags).in_precision(precision);
        let of = |threads: i32| {
            tch::set_num_threads(threads);
            let value = thruway::estimators::Objective::branch(&f, &codes).unwrap();
            tch::set_num_threads(1);
            value
        };
        let one = of(1);
        let whole = thruway::estimators::Objective::at(&f, &codes).unwrap();
        let rounding = if precision == Precision::F32 { 1e-5 } else { 1e-2 }; // of scores, in another order of sums
        assert!(distance(&one, &whole.detach()) < rounding * whole.abs().max().double_value(&[]));
        for threads in [2, 3, 5] {
            assert!(of(threads) == one, "{precision:?}, {threads} threads");
        }
    }
}

/// Largest |z| of the mean of estimates `[N, 4, 3]` against the truth, where they vary.
fn largest_z(estimates: &Tensor, truth: &Tensor) -> f64 {
    let n = estimates.size()[0] as f64;
    let error = estimates.std_dim(0, true, false) / n.sqrt();
    let away = estimates.mean_dim(0, false, Kind::Double) - truth;
    // rounding of float32 beside losses of order 10
    (away.abs() / (error + 1e-5)).max().double_value(&[])
}

/// ARM, DisARM and PSA are unbiased, each at 4.5 standard errors in 12 coordinates, three tests: a chance of 2e-4 of a false
/// alarm, with fixed seeds; their estimates 5 % too large and the biased estimators are rejected by the same test.
#[test]
fn unbiased_estimators_have_the_enumerated_mean() {
    let (model, bags) = (small(), bags(Kind::Float));
    let logits = model.logits(&bags, false).unwrap().detach();
    let truth = enumerated(&model, &bags, &logits);
    let estimates = |method: Method, tau: Option<f64>, n: i64| {
        let built = method.build(tau).unwrap();
        let mut noise = HostNoise::new(7);
        let leaf = logits.detach().set_requires_grad(true);
        // one long batch: the four documents n times
        let all: Vec<Tensor> = (0..n)
            .map(|_| {
                let f = model.reconstruction(&bags).frozen();
                let loss = built.surrogate_loss(&leaf, &f, &mut noise).unwrap().sum(Kind::Float);
                Tensor::run_backward(&[loss], &[&leaf], false, false).remove(0)
            })
            .collect();
        Tensor::stack(&all, 0).to_kind(Kind::Double)
    };
    for (method, n) in [(Method::Arm, 20_000), (Method::Disarm, 10_000), (Method::Psa, 4_000)] {
        let found = estimates(method, None, n);
        let (z, mutant) = (largest_z(&found, &truth), largest_z(&(&found * 1.05), &truth));
        println!("{}: z {z:.2}, of the mutant {mutant:.1}", method.name());
        assert!(z < Z_LIMIT, "{}: {z}", method.name());
        assert!(mutant > Z_LIMIT, "{}: 5 % too large passes with {mutant}", method.name());
    }
    for (method, tau) in [(Method::St, None), (Method::IdentitySt, None), (Method::GumbelSoftmax, Some(1.0))] {
        let z = largest_z(&estimates(method, tau, 4_000), &truth);
        assert!(z > Z_LIMIT, "{} passes as unbiased: {z}", method.name());
    }
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.dot(b).double_value(&[])
}

/// The product of the reference's halves is unbiased for the squared length of the true gradient, by enumeration: within 4.5 standard
/// errors of the mean of 600, a chance of 7e-6 at a fixed seed. The squared length of the reference itself is not.
#[test]
fn the_reference_knows_its_own_error() {
    let (model, bags) = (small(), bags(Kind::Float));
    let logits = model.logits(&bags, false).unwrap();
    let at_logits = (enumerated(&model, &bags, &logits) / 4.0).to_kind(Kind::Float);
    let truth = measure::in_parameters(&model, &logits, &at_logits).unwrap();
    let want = dot(&truth, &truth);
    let mut noise = HostNoise::new(8);
    let (mut halves, mut whole) = (vec![], vec![]);
    for _ in 0..600 {
        let r = measure::reference(&model, &bags, &logits, 4, Precision::F32, &mut noise).unwrap();
        halves.push(r.square);
        whole.push(dot(&r.gradient, &r.gradient));
    }
    let z = |values: &[f64]| {
        let t = Tensor::from_slice(values);
        (t.mean(Kind::Double) - want).double_value(&[]) / (t.std(true).double_value(&[]) / 600f64.sqrt())
    };
    println!("squared length {want:.4}: z {:.2}, of the reference's own {:.1}", z(&halves), z(&whole));
    assert!(z(&halves).abs() < Z_LIMIT && z(&whole) > Z_LIMIT);
}

/// A model trained in bfloat16 is measured in float32 like any other.
#[test]
fn estimates_are_in_the_precision_asked_for() {
    let bags = bags(Kind::Float);
    let model = |precision| {
        tch::manual_seed(3);
        Model::new(7, 5, 3, precision, Device::Cpu).unwrap()
    };
    let estimate = |own: Precision, asked: Precision| {
        let model = model(own);
        let logits = model.logits(&bags, false).unwrap();
        let arm = Method::Arm.build(None).unwrap();
        measure::estimate(&arm, &model, &bags, &logits, asked, &mut HostNoise::new(2)).unwrap()
    };
    let exact = estimate(Precision::F32, Precision::F32);
    assert_eq!(estimate(Precision::Bf16, Precision::F32), exact);
    assert!(distance(&estimate(Precision::Bf16, Precision::Bf16), &exact) > 0.0);
}

/// The correction phase: in the logits the mean of single estimates, in the decoder its gradient at the first pair. Mutants: their
/// sum, the first alone, and the decoder's gradient at another pair or a share of it.
#[test]
fn correction_is_the_mean_of_pairs_and_the_decoders_gradient_at_the_first() {
    let (model, bags) = (small(), bags(Kind::Float));
    let arm = Method::Arm.build(None).unwrap();
    let logits = model.logits(&bags, false).unwrap().detach();
    let mut noise = HostNoise::new(5);
    let single = |noise: &mut HostNoise| {
        let leaf = logits.detach().set_requires_grad(true);
        let loss = arm.surrogate_loss(&leaf, &model.reconstruction(&bags), noise).unwrap().mean(Kind::Float);
        let mut inputs = vec![&leaf];
        inputs.extend(model.params().iter().filter(|(n, _)| n.starts_with("decoder.")).map(|(_, t)| t));
        let mut all = Tensor::run_backward(&[&loss], &inputs, false, false);
        (loss.double_value(&[]), all.remove(0), all)
    };
    let (value, first, decoder) = single(&mut noise);
    let (_, second, other) = single(&mut noise);
    let mean = (&first + &second + single(&mut noise).1) / 3.0;
    let leaf = logits.detach().set_requires_grad(true);
    let got = correction::repeated(&arm, &model, &bags, &leaf, 3, &mut HostNoise::new(5)).unwrap();
    // float32, numbers of order 10
    let near = |a: &Tensor, b: &Tensor| distance(a, b) < 1e-5 * (1.0 + b.abs().max().double_value(&[]));
    assert!((got - value).abs() < 1e-5 * value.abs(), "{got} {value}");
    assert!(near(&leaf.grad(), &mean));
    assert!(!near(&leaf.grad(), &(&mean * 3.0)) && !near(&leaf.grad(), &first), "the three differ");
    for (k, (name, p)) in model.params().iter().filter(|(n, _)| n.starts_with("decoder.")).enumerate() {
        assert!(near(&p.grad(), &decoder[k]), "{name}");
        assert!(!near(&p.grad(), &other[k]) && !near(&p.grad(), &(&decoder[k] / 3.0)), "{name}");
    }
}

/// With the draw given, a straight-through gradient is its factor times df/dx at the draw.
#[test]
fn straight_through_forms_by_formula() {
    let (model, bags) = (small(), bags(Kind::Float));
    let logits = model.logits(&bags, false).unwrap().detach();
    let u = HostNoise::new(1);
    let mut u = u.clone();
    let u = thruway::noise::Noise::uniform(&mut u, &[1, 4, 3], Kind::Float, Device::Cpu).unwrap();
    let p = logits.sigmoid();
    let slope = |x: &Tensor| {
        let x = x.detach().set_requires_grad(true);
        let f = thruway::estimators::Objective::at(&model.reconstruction(&bags), &x.unsqueeze(0)).unwrap();
        Tensor::run_backward(&[f.sum(Kind::Float)], &[&x], false, false).remove(0)
    };
    let (drawn, certain) = (u.get(0).lt_tensor(&p).to_kind(Kind::Float), logits.ge(0.0).to_kind(Kind::Float));
    assert!(distance(&drawn, &certain) > 0.0, "the two forward values differ");
    let f_prime = &p * (1.0 - &p);
    for (method, want) in [
        (Method::St, &f_prime * slope(&drawn)),
        (Method::IdentitySt, slope(&drawn)),
        (Method::DetSt, &f_prime * slope(&certain)),
    ] {
        let mut tape = Tape::new([("uniform", u.shallow_clone())]);
        let leaf = logits.detach().set_requires_grad(true);
        let f = model.reconstruction(&bags);
        let loss = method.build(None).unwrap().surrogate_loss(&leaf, &f, &mut tape).unwrap().sum(Kind::Float);
        let got = Tensor::run_backward(&[loss], &[&leaf], false, false).remove(0);
        // float32, gradients of order 10
        assert!(distance(&got, &want) < 1e-5 * (1.0 + want.abs().max().double_value(&[])), "{}", method.name());
    }
    // relaxed: y = sigmoid((a + g1 - g0) / tau), derivative y (1 - y) / tau
    for tau in [1.0, 0.1] {
        let g = thruway::noise::Noise::gumbel(&mut HostNoise::new(4), &[4, 3, 2], Kind::Float, Device::Cpu).unwrap();
        let mut tape = Tape::new([("gumbel", g.shallow_clone())]);
        let y = ((&logits + g.select(2, 0) - g.select(2, 1)) / tau).sigmoid();
        let want = &y * (1.0 - &y) / tau * slope(&y);
        let leaf = logits.detach().set_requires_grad(true);
        let f = model.reconstruction(&bags);
        let built = Method::GumbelSoftmax.build(Some(tau)).unwrap();
        let loss = built.surrogate_loss(&leaf, &f, &mut tape).unwrap().sum(Kind::Float);
        let got = Tensor::run_backward(&[loss], &[&leaf], false, false).remove(0);
        assert!(distance(&got, &want) < 2e-5 * (1.0 + want.abs().max().double_value(&[])), "tau {tau}");
    }
}

/// For one binary layer PSA of `sbn` (Alg. 1 with its plain head) and local expectation are one estimator.
#[test]
fn psa_of_one_layer_is_local_expectation() {
    use thruway::sbn::{self, Description, HeadGradient, Network, Spec};
    tch::manual_seed(1);
    fn decode(scores: &Tensor) -> Tensor {
        let out = normals(&[6, 5], Kind::Double, 9);
        scores.relu().linear(&out, None::<&Tensor>).log_softmax(-1, Kind::Double).select(-1, 2)
    }
    let description = Description {
        input: vec![4],
        layers: vec![Spec::Linear { units: 3 }],
        scores: 5,
        objective: sbn::Objective::Custom(Arc::new(|s: &Tensor, _: &Tensor| Ok(decode(s)))),
        ..Description::default()
    };
    let network = Network::new(&description, Kind::Double, Device::Cpu).unwrap();
    let input = normals(&[1, 4], Kind::Double, 2);
    let psa = sbn::Method::Psa.build(&sbn::Knobs { head: Some(HeadGradient::Plain), ..sbn::Knobs::default() }).unwrap();
    let parameter = |name: &str| network.params().iter().find(|(n, _)| *n == name).unwrap().1.shallow_clone();
    let (bias, w, b) = (parameter("layers.0.bias"), parameter("head.weight"), parameter("head.bias"));
    let logits = network.sample(&input, &mut HostNoise::new(1)).unwrap().preactivations.remove(0).detach();
    for code in 0..8 {
        let bits = Tensor::from_slice(&[code & 1, code >> 1 & 1, code >> 2]).to_kind(Kind::Double).view([1, 3]);
        let target = Tensor::zeros([1], (Kind::Double, Device::Cpu));
        let loss = network.loss_at(&input, &target, &*psa, &[&bits * 2.0 - 1.0]).unwrap();
        let theirs = Tensor::run_backward(&[loss.surrogate.sum(Kind::Double)], &[&bias], false, false).remove(0);
        let knobs = Knobs { code: Some(thruway::dist::bernoulli::Code::ZeroOne), ..Knobs::default() };
        let ours = Estimator::LocalExpectation.build(&knobs).unwrap();
        let leaf = logits.detach().set_requires_grad(true);
        let objective = |x: &Tensor| -> thruway::Result<Tensor> { Ok(decode(&(x * 2.0 - 1.0).linear(&w, Some(&b)))) };
        let p = logits.sigmoid();
        // below p where the bit is 1, above it where it is 0
        let u: Tensor = &bits * &p * 0.5 + (1.0 - &bits) * (&p + 1.0) * 0.5;
        let mut tape = Tape::new([("uniform", u.unsqueeze(0))]);
        let loss = ours.surrogate_loss(&leaf, &objective, &mut tape).unwrap().sum(Kind::Double);
        let got = Tensor::run_backward(&[loss], &[&leaf], false, false).remove(0);
        assert!(distance(&got.view([3]), &theirs) < 1e-12, "{got} {theirs}");
        assert!(got.abs().max().double_value(&[]) > 1e-3);
    }
}

/// A model's parameters in the order and with the bounds of PyTorch's layers; the first weight word by word.
#[test]
fn fresh_weights_are_those_of_linear_layers() {
    tch::manual_seed(5);
    let layer = WordLayer::new(&mut Params::default(), "a", 7, 3, Device::Cpu).unwrap();
    tch::manual_seed(5);
    let dense = thruway::nn::Linear::new(&mut Params::default(), "a", 7, 3, Device::Cpu).unwrap();
    let bags = bags(Kind::Float);
    let want = dense.forward(&bags.dense_frequencies().unwrap()).unwrap();
    assert!(distance(&layer.forward(&bags).unwrap().detach(), &want.detach()) < 1e-6);
}
