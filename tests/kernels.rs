//! The hot loops against libtorch's ops and against literal formulas: f64 to its rounding, f32 to a few units in the last
//! place, ragged sizes included.
mod common;
use common::{distance, largest, normals};
use proptest::prelude::*;
use tch::{Device, Kind, Reduction, Tensor};
use thruway::kernels::{elbo, gumbel_rao, rows};
use thruway::noise::{HostNoise, Noise};

const CPU: Device = Device::Cpu;
const KINDS: [Kind; 2] = [Kind::Double, Kind::Float];

fn eps(kind: Kind) -> f64 {
    if kind == Kind::Double { f64::EPSILON } else { f32::EPSILON as f64 }
}

/// Largest distance of two tensors in units of the last place of the second.
fn ulps(a: &Tensor, b: &Tensor) -> f64 {
    let unit = b.abs().clamp_min(1e-30) * eps(b.kind());
    ((a - b).abs() / unit).max().double_value(&[])
}

/// Logits whose exponentials matter: normal, a few far below, a few -inf.
fn logits(rows: i64, k: i64, kind: Kind, seed: u64) -> Tensor {
    let x = normals(&[rows, k], kind, seed) * 3.0;
    let u = HostNoise::new(seed + 1).uniform(&[rows, k], kind, CPU).unwrap();
    let far = &x - u.lt(0.05).to_kind(kind) * 40.0;
    let top = Tensor::zeros([k], (Kind::Bool, CPU));
    let _ = top.get(0).fill_(1); // the first class is always there
    far.masked_fill(&u.gt(0.95).logical_and(&top.logical_not()), f64::NEG_INFINITY)
}

fn probabilities(rows: i64, k: i64, kind: Kind, seed: u64) -> Tensor {
    logits(rows, k, kind, seed).softmax(-1, kind)
}

#[test]
fn softmax_is_libtorchs() {
    let (mut total, mut equal) = (0, 0);
    for kind in KINDS {
        for k in 1..=70 {
            let x = logits(101, k, kind, k as u64);
            for tau in [1.0, 0.5, 1.3] {
                let (ours, theirs) = (rows::softmax(&x, tau).unwrap(), (&x / tau).softmax(-1, kind));
                // f64: another exponential and order of addition. Division by tau costs one more rounding of x, up to 120.
                let limit = if tau == 1.0 { if kind == Kind::Float { 2.0 } else { 8.0 } } else { 64.0 };
                let off = ulps(&ours, &theirs);
                assert!(off <= limit, "K {k}, tau {tau}, {kind:?}: {off} ulp");
                // ours stops at the smallest normal number, where libtorch's small rows go on to subnormal ones
                let gone = x.isneginf().logical_or(&theirs.eq(0.0));
                assert_eq!(largest(&(&ours * gone.to_kind(kind))), 0.0, "K {k}: a masked class");
                if kind == Kind::Float && tau == 1.0 {
                    total += ours.numel();
                    equal += ours.eq_tensor(&theirs).sum(Kind::Int64).int64_value(&[]) as usize;
                }
            }
        }
    }
    println!("{equal} of {total} f32 probabilities bit-equal to libtorch's");
    // The order of additions is that of libtorch's AVX-512 build; elsewhere the last bit may differ.
    if std::arch::is_x86_feature_detected!("avx512f") {
        assert_eq!(equal, total);
    }
}

#[test]
fn the_first_of_equals_wins() {
    for kind in KINDS {
        let ties = Tensor::from_slice(&[0.5f64, 0.25, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0, 0.2, 0.2]).view([3, 4]);
        let (ties, ones) = (ties.to_kind(kind), Tensor::ones([3, 4], (kind, CPU)));
        let want = Tensor::from_slice(&[0i64, 0, 2]);
        for (index, hard) in [rows::argmax(&ties).unwrap(), rows::race(&ties, &ones).unwrap()] {
            assert_eq!(index, want);
            assert_eq!(hard, want.one_hot(4).to_kind(kind));
            assert_eq!(rows::one_hot(&want, 4, kind).unwrap(), hard);
        }
        // -inf everywhere but the last
        let x = Tensor::full([1, 5], f64::NEG_INFINITY, (kind, CPU));
        let _ = x.get(0).get(4).fill_(-3.0);
        assert_eq!(rows::argmax(&x).unwrap().0.int64_value(&[0]), 4);
    }
}

#[test]
fn race_and_argmax_are_libtorchs_on_random_rows() {
    for kind in KINDS {
        for k in [1, 2, 5, 16, 17, 64, 300] {
            let (p, e) = (probabilities(97, k, kind, 5), HostNoise::new(6).exponential(&[97, k], kind, CPU).unwrap());
            assert_eq!(rows::race(&p, &e).unwrap().0, (&p / &e).argmax(-1, false), "{kind:?} K {k}");
            assert_eq!(rows::argmax(&p).unwrap().0, p.argmax(-1, false), "{kind:?} K {k}");
            let perturbed = rows::perturb(&logits(97, k, kind, 5), &e).unwrap();
            let want = logits(97, k, kind, 5) - e.log();
            let live = want.isfinite();
            assert_eq!(perturbed.isfinite(), live);
            let off = distance(&perturbed.masked_select(&live), &want.masked_select(&live));
            assert!(off <= 64.0 * eps(kind), "{kind:?} K {k}: perturb off by {off:e}"); // values up to 50
        }
    }
}

/// `J(p) g` in f64 by libtorch.
fn jacobian(p: &Tensor, g: &Tensor) -> Tensor {
    let (p, g) = (p.to_kind(Kind::Double), g.to_kind(Kind::Double));
    let dot = (&p * &g).sum_dim_intlist(-1, true, Kind::Double);
    &p * (g - dot)
}

#[test]
fn jacobians_halfway_points_and_gaps() {
    for kind in KINDS {
        for k in [1, 2, 3, 10, 16, 33, 64] {
            let at = format!("{kind:?} K {k}");
            let (p, q) = (probabilities(53, k, kind, 1), probabilities(53, k, kind, 2));
            let (g, h) = (normals(&[53, k], kind, 3), normals(&[53, k], kind, 4));
            // sums of k products: f32 gets k roundings, f64 is asked for 1e-14
            let limit = if kind == Kind::Double { 1e-14 } else { 4.0 * (k as f64 + 4.0) * eps(kind) };
            let wide = |t: Tensor| t.to_kind(Kind::Double);
            let off = distance(&wide(rows::jacobian(&p, &g, 0.7).unwrap()), &(jacobian(&p, &g) / 0.7));
            assert!(off <= limit, "{at}: jacobian off by {off:e}");
            let wide_h = h.to_kind(Kind::Double);
            for (upstream, want) in [(None, jacobian(&q, &g) * -0.5), (Some(&h), jacobian(&q, &(wide_h - &g * 0.5)))] {
                // a masked class of p is one of q in ReinMax
                let s = (&p + &q) * 0.5;
                let both = wide(rows::reinmax(&s, &q, &g, upstream).unwrap());
                let off = distance(&both, &(jacobian(&s, &g) * 2.0 + want));
                assert!(off <= 4.0 * limit, "{at}: reinmax off by {off:e}");
            }
            let hard = p.argmax(-1, false).one_hot(k).to_kind(kind);
            assert_eq!(rows::halfway(&p, &hard).unwrap(), (&p + &hard) * 0.5, "{at}: halfway");

            let x = logits(53, k, kind, 1);
            let index = Tensor::randint(k, [53], (Kind::Int64, CPU));
            let column = index.unsqueeze(-1);
            let top = x.amax([-1], true);
            let literal = |gap: &Tensor| x.minimum(&(&top - gap)).scatter(-1, &column, &top);
            let constant = rows::gapped(&x, &p, &index, Some(1.5)).unwrap();
            assert_eq!(constant, literal(&Tensor::full([1, 1], 1.5, (kind, CPU))), "{at}: gap 1.5");
            // -log1p(-q) / q in f64, 1 where q has vanished
            let q = p.gather(-1, &column, false).to_kind(Kind::Double) * (1.0 - 1e-5);
            let gap = (q.neg().log1p().neg() / &q).where_self(&q.gt(0.0), &q.ones_like()).to_kind(kind);
            let (ours, want) = (rows::gapped(&x, &p, &index, None).unwrap(), literal(&gap));
            let live = want.isfinite();
            let off = distance(&ours.masked_select(&live), &want.masked_select(&live));
            assert!(off <= 32.0 * eps(kind), "{at}: gap by probability off by {off:e}"); // values up to 20
        }
    }
}

/// The published sampling formula taken literally, in f64: with `w = exp(theta)`, `Z = sum w`, the perturbed logits are
/// `-log(E_c / Z)` and `-log(E_j / w_j + E_c / Z)`; softmax at tau; `mean p` and `mean p p^T` over the samples.
fn literal_moments(theta: &Tensor, index: &Tensor, e: &Tensor, tau: f64) -> (Tensor, Tensor) {
    let (_, _, s) = e.size3().unwrap();
    let w = theta.exp().unsqueeze(-1); // [n, K, 1]
    let z = w.sum_dim_intlist(1, true, Kind::Double);
    let c = index.view([-1, 1, 1]).expand([-1, 1, s], false);
    let base = e.gather(1, &c, false) / z; // [n, 1, S]
    let others = (e / w + &base).scatter(1, &c, &base);
    let p = (others.log().neg() / tau).softmax(1, Kind::Double);
    (p.mean_dim(-1, false, Kind::Double), p.matmul(&p.transpose(1, 2)) / s as f64)
}

#[test]
fn gumbel_rao_moments_are_the_sampling_formulas() {
    let n = 23;
    for k in [1, 2, 3, 8, 17] {
        for samples in [1, 5, 128, 300, 1000] {
            let theta = normals(&[n, k], Kind::Double, 1) * 2.0;
            let p = theta.softmax(-1, Kind::Double);
            let index = p.argmax(-1, false).remainder(k);
            let index = (index + Tensor::arange(n, (Kind::Int64, CPU))).remainder(k);
            let e = HostNoise::new(2).exponential(&[n, k, samples], Kind::Double, CPU).unwrap();
            for tau in [0.3, 0.5, 1.0, 2.0] {
                let (mean, second) = literal_moments(&theta, &index, &e, tau);
                let mut taken = 0;
                let ours = |kind| {
                    taken = 0;
                    gumbel_rao::moments(&p.to_kind(kind), &index, samples, 1.0 / tau, |size| {
                        let rows = e.narrow(0, taken, size[0]).to_kind(kind);
                        taken += size[0];
                        Ok(rows.view(size))
                    })
                    .unwrap()
                };
                let at = format!("K {k}, {samples} samples, tau {tau}");
                let mut ours = ours;
                let (a, b) = ours(Kind::Double);
                let off = distance(&a, &mean).max(distance(&b, &second));
                assert!(off < 1e-12, "{at}: f64 off by {off:e}");
                // f32: noise and probabilities rounded, 1/tau raises their relative error, sums of many terms
                let (a, b) = ours(Kind::Float);
                let off = distance(&a.to_kind(Kind::Double), &mean).max(distance(&b.to_kind(Kind::Double), &second));
                assert!(off < 4e-6, "{at}: f32 off by {off:e}");
                // symmetric, rows of p p^T sum to p, and the backward is the mean of J(p) g / tau
                let (a, b) = ours(Kind::Double);
                assert_eq!(b, b.transpose(1, 2), "{at}: not symmetric");
                let g = normals(&[n, k], Kind::Double, 3);
                let grad = gumbel_rao::backward(&a, &b, &g, 1.0 / tau).unwrap();
                let want = (&mean * &g - second.matmul(&g.unsqueeze(-1)).squeeze_dim(-1)) / tau;
                assert!(distance(&grad, &want) < 1e-11, "{at}: backward");
                assert!(largest(&grad.sum_dim_intlist(-1, false, Kind::Double)) < 1e-12 / tau, "{at}: rows");
            }
        }
    }
}

/// Noise is asked for in the reference's order, a bounded amount at a time whatever the number of samples.
#[test]
fn gumbel_rao_streams_its_noise() {
    for samples in [10, 1000, 3000] {
        let (n, k) = (400, 10);
        let p = probabilities(n, k, Kind::Float, 1);
        let index = p.argmax(-1, false);
        let (mut rows, mut most) = (0, 0);
        let _ = gumbel_rao::moments(&p, &index, samples, 1.0, |size| {
            assert_eq!(&size[1..], [k, samples]);
            rows += size[0];
            most = most.max(size.iter().product::<i64>());
            Ok(Tensor::ones(size, (Kind::Float, CPU)))
        })
        .unwrap();
        assert_eq!(rows, n);
        assert!(most <= 1 << 20, "{most} numbers in flight");
    }
}

/// Pixel logits small, large and beyond 100, where the reference's logarithm stops, with grey targets.
fn pixels(n: i64, kind: Kind, seed: u64) -> (Tensor, Tensor) {
    let x = normals(&[n], kind, seed) * 4.0;
    let edges = Tensor::from_slice(&[0.0f64, -0.0, 88.0, -88.0, 101.0, -101.0, 500.0, -500.0, 1e-8, 3e4]).to_kind(kind);
    let x = Tensor::cat(&[&x, &edges], 0);
    let t = HostNoise::new(seed + 7).uniform(&[n + 10], kind, CPU).unwrap();
    let zero = t.zeros_like();
    (x, t.where_self(&t.gt(0.3), &zero)) // most pixels are black
}

#[test]
fn binary_cross_entropy_sums_and_slopes() {
    for n in [0, 1, 31, 32, 33, 1013, 1014, 1015, 7840] {
        for kind in KINDS {
            let (x, t) = pixels(n, kind, 1);
            let (sum, y) = elbo::bce_with_logits(&x, &t).unwrap();
            let slope = elbo::bce_gradient(&y, &t, 1.0).unwrap();
            let (wide_x, wide_t) = (x.to_kind(Kind::Double), t.to_kind(Kind::Double));
            let each =
                wide_x.binary_cross_entropy_with_logits(&wide_t, None::<Tensor>, None::<Tensor>, Reduction::None);
            let want = each.sum(Kind::Double).double_value(&[]);
            // blocks of 1024 summed in 32 lanes: each lane rounds 32 times, the rest in double
            let limit = if kind == Kind::Double { 1e-14 } else { 8.0 * eps(kind) };
            assert!((sum - want).abs() <= limit * want, "{kind:?} n {n}: {sum} not {want}");
            let off = distance(&slope.to_kind(Kind::Double), &(wide_x.sigmoid() - &wide_t));
            assert!(off <= 4.0 * eps(kind), "{kind:?} n {n}: slope off by {off:e}");
        }
    }
    // finite differences, f64, at and beyond 100: central, error h^2 and eps |f| / h
    let x = Tensor::from_slice(&[-140.0f64, -100.5, -3.0, -1e-3, 0.0, 0.4, 7.0, 99.9, 100.1, 250.0]);
    let t = Tensor::from_slice(&[0.0f64, 0.3, 0.9, 1.0, 0.5, 0.0, 1.0, 0.2, 1.0, 0.7]);
    let y = elbo::bce_with_logits(&x, &t).unwrap().1;
    let slope = Vec::<f64>::try_from(elbo::bce_gradient(&y, &t, 1.0).unwrap()).unwrap();
    for (i, s) in slope.iter().enumerate() {
        let moved = |h: f64| {
            let y = x.copy();
            let _ = y.get(i as i64).g_add_scalar_(h);
            elbo::bce_with_logits(&y.narrow(0, i as i64, 1), &t.narrow(0, i as i64, 1)).unwrap().0
        };
        let h = 1e-5;
        let difference = (moved(h) - moved(-h)) / (2.0 * h);
        assert!(
            (difference - s).abs() < 2e-8,
            "x {}: slope {s}, differences {difference}",
            x.double_value(&[i as i64])
        );
    }
    assert!(elbo::bce_with_logits(&x, &t.narrow(0, 0, 3)).unwrap_err().to_string().contains("[10]"));
}

#[test]
fn negative_entropy_sums_and_slopes() {
    for (n, k) in [(1, 1), (3, 5), (10, 8), (128, 8), (300, 10), (77, 64)] {
        for kind in KINDS {
            let q = probabilities(n, k, kind, 3); // exact zeros included
            let (sum, log) = elbo::negative_entropy(&q).unwrap();
            let slope = elbo::entropy_gradient(&q, &log, 1.0).unwrap();
            let wide = q.to_kind(Kind::Double).set_requires_grad(true);
            let want = (&wide * (&wide + 1e-10).log()).sum(Kind::Double);
            want.backward();
            let value = want.double_value(&[]);
            let limit = if kind == Kind::Double { 1e-13 } else { 1e-6 };
            assert!((sum - value).abs() <= limit * value.abs().max(1.0), "{kind:?} {n}x{k}: {sum} not {value}");
            // log of 1e-10 is 23, rounded in f32
            let off = distance(&slope.to_kind(Kind::Double), &wide.grad());
            assert!(off <= 32.0 * eps(kind) + 2e-7 * f64::from(kind == Kind::Float), "{kind:?} {n}x{k}: {off:e}");
        }
    }
}

/// The differentiable losses built on them: gradients of libtorch's autograd through the reference's formulas.
#[test]
fn losses_are_the_references() {
    let (x, t) = pixels(990, Kind::Double, 5);
    let (x, t) = (x.view([10, 100]).clamp(-12.0, 12.0), t.view([10, 100]));
    let (ours, theirs) = (x.copy().set_requires_grad(true), x.copy().set_requires_grad(true));
    let a = thruway::nn::loss::bce_with_logits(&ours, &t, 10).unwrap();
    let b = theirs.sigmoid().clamp(0.0, 1.0).binary_cross_entropy::<Tensor>(&t, None, Reduction::Sum) / 10.0;
    // the reference loses the digits of 1 - sigmoid(x) for large x; softplus keeps them
    assert!((a.double_value(&[]) / b.double_value(&[]) - 1.0).abs() < 1e-6);
    (a * 3.0).backward();
    let wide = (theirs.softplus() - &theirs * &t).sum(Kind::Double) / 10.0;
    (wide * 3.0).backward();
    assert!(distance(&ours.grad(), &theirs.grad()) < 1e-14);

    let logits = normals(&[10, 4, 8], Kind::Double, 6);
    let (ours, theirs) = (logits.copy().set_requires_grad(true), logits.copy().set_requires_grad(true));
    let kl = |l: &Tensor| l.softmax(-1, Kind::Double);
    let a = thruway::dist::categorical::kl_to_uniform(&kl(&ours), 10).unwrap();
    let q = kl(&theirs).view([10, 32]);
    let b = (&q * (&q + 1e-10).log()).sum_dim_intlist(-1, false, Kind::Double).mean(Kind::Double) + 4.0 * 8f64.ln();
    assert!((a.double_value(&[]) - b.double_value(&[])).abs() < 1e-12);
    a.backward();
    b.backward();
    assert!(distance(&ours.grad(), &theirs.grad()) < 1e-14);
}

/// f32, bit for bit what autograd gives for the reference's chains of ops: what same-seed training curves rest on.
#[test]
fn gradients_have_pytorchs_last_bit() {
    if !std::arch::is_x86_feature_detected!("avx512f") {
        common::skip("gradients_have_pytorchs_last_bit", "libtorch adds in another order without AVX-512");
        return;
    }
    let f32s = |size: &[i64], seed| normals(size, Kind::Float, seed);
    let leaf = |t: &Tensor| t.copy().set_requires_grad(true);
    for k in 1..=70i64 {
        let (g, h) = (f32s(&[300, k], 1), f32s(&[300, k], 2));
        let x = f32s(&[300, k], 3) * 2.0;
        for tau in [1.0, 0.5, 1.3] {
            let theirs = leaf(&x);
            let soft = (&theirs / tau).softmax(-1, Kind::Float);
            (&soft * &g).sum(Kind::Float).backward();
            let p = rows::softmax(&x, tau).unwrap();
            assert_eq!(p, soft.detach(), "K {k} tau {tau}: softmax");
            // at K of 16 and more libtorch sums in another order
            if k < 16 {
                assert_eq!(rows::jacobian(&p, &g, tau).unwrap(), theirs.grad(), "K {k} tau {tau}: softmax backward");
            }
            // the published package's backward, op for op
            let soft = x.softmax(-1, Kind::Float);
            let hard = x.argmax(-1, false).one_hot(k).to_kind(Kind::Float);
            let s = (&p + &hard) * 0.5;
            let centre = |t: Tensor, p: &Tensor| &t - p * t.sum_dim_intlist(-1, true, Kind::Float);
            let both = centre((&g * -0.5 + &h) * &soft, &soft) + centre((&g * 2.0) * &s, &s);
            let want = &both - both.mean_dim(-1, true, Kind::Float);
            let ours = rows::reinmax(&rows::halfway(&p, &hard).unwrap(), &soft, &g, Some(&h)).unwrap();
            assert_eq!(ours, want, "K {k} tau {tau}: reinmax");
        }
    }
    let (x, t) = (f32s(&[100, 784], 4) * 5.0, HostNoise::new(5).uniform(&[100, 784], Kind::Float, CPU).unwrap());
    let (ours, theirs) = (leaf(&x), leaf(&x));
    (theirs.sigmoid().binary_cross_entropy::<Tensor>(&t, None, Reduction::None).sum(Kind::Float) / 100.0).backward();
    thruway::nn::loss::bce_with_logits(&ours, &t, 100).unwrap().backward();
    // beyond 16 the reference's 1 - y has no digits left, and ours goes on
    let sound = x.lt(16.0).logical_and(&x.gt(-27.0));
    assert_eq!(ours.grad().masked_select(&sound), theirs.grad().masked_select(&sound), "cross-entropy");
    let q = probabilities(400, 8, Kind::Float, 6);
    let (ours, theirs) = (leaf(&q), leaf(&q));
    let rows = theirs.view([100, 32]);
    (&rows * (&rows + 1e-10).log()).sum_dim_intlist(-1, false, Kind::Float).mean(Kind::Float).backward();
    thruway::dist::categorical::kl_to_uniform(&ours, 100).unwrap().backward();
    assert_eq!(ours.grad(), theirs.grad(), "KL");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any shape, contiguous or not: rows on the simplex, a one-hot race, gradient rows that sum to 0, nothing panics.
    #[test]
    fn any_shape_goes_through(lead in proptest::collection::vec(0i64..5, 0..4), k in 1i64..80, seed in 0u64..1000, turn: bool) {
        let shape = [&lead[..], &[k]].concat();
        for kind in KINDS {
            let mut x = normals(&shape, kind, seed);
            if turn && shape.len() > 1 {
                // strided memory under the same shape
                let last = shape.len() as i64 - 1;
                x = x.transpose(0, last).contiguous().transpose(0, last);
            }
            let p = rows::softmax(&x, 1.0).unwrap();
            prop_assert_eq!(p.size(), shape.clone());
            prop_assert_eq!(x.size(), shape.clone());
            let g = normals(&shape, kind, seed + 1);
            let grad = rows::jacobian(&p, &g, 1.0).unwrap();
            prop_assert_eq!(grad.size(), shape.clone());
            let e = HostNoise::new(seed).exponential(&shape, kind, CPU).unwrap();
            let (index, hard) = rows::race(&p, &e).unwrap();
            let n = p.numel() as i64 / k;
            prop_assert_eq!(index.size(), vec![n]);
            if n > 0 {
                prop_assert!(distance(&p, &x.softmax(-1, kind)) <= 4.0 * eps(kind));
                prop_assert!(distance(&p.sum_dim_intlist(-1, false, kind), &Tensor::ones(&lead[..], (kind, CPU))) <= 16.0 * eps(kind));
                prop_assert!(largest(&grad.sum_dim_intlist(-1, false, kind)) <= 32.0 * eps(kind));
                prop_assert_eq!(hard.view([n, k]), index.one_hot(k).to_kind(kind));
            }
        }
    }
}
