//! Distributions of every source of noise, the law of conditional Gumbel noise, tapes, and libtorch's stream.
//!
//! Each Kolmogorov-Smirnov or chi-square test has a false-alarm rate of 1e-4; there are about 90 on fixed seeds.
//! Shares of binary states are held to 4.5 standard errors, 7e-6 each, 144 of them. Each also runs on samples of a
//! slightly wrong law, which it must reject.
mod common;
use common::stats::{KS_LIMIT, chi_square, ks};
use common::{distance, normals};
use tch::{Device, Kind, Tensor};
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::dist::categorical::Point;
use thruway::estimators::{Estimator, Knobs};
use thruway::noise::{HostNoise, Noise, Tape, TorchNoise};

const CPU: Device = Device::Cpu;
const N: i64 = 100_000;

/// Sources under test, freshly seeded.
fn sources(seed: i64) -> Vec<(&'static str, Box<dyn Noise>)> {
    println!("seed {seed}");
    tch::manual_seed(seed);
    vec![("TorchNoise", Box::new(TorchNoise)), ("HostNoise", Box::new(HostNoise::new(seed as u64)))]
}

type Request = fn(&mut dyn Noise, &[i64], Kind) -> thruway::Result<Tensor>;

/// A distribution's name, how to ask for it, and its cumulative distribution function.
type Law = (&'static str, Request, fn(&Tensor) -> Tensor);

fn laws() -> Vec<Law> {
    vec![
        ("uniform", |n, s, k| n.uniform(s, k, CPU), |x| x.copy()),
        ("exponential", |n, s, k| n.exponential(s, k, CPU), |x| x.neg().expm1().neg()),
        ("gumbel", |n, s, k| n.gumbel(s, k, CPU), |x| x.neg().exp().neg().exp()),
        ("logistic", |n, s, k| n.logistic(s, k, CPU), |x| x.sigmoid()),
        ("normal", |n, s, k| n.normal(s, k, CPU), |x| x.special_ndtr()),
    ]
}

#[test]
fn every_source_follows_its_law() {
    for kind in [Kind::Double, Kind::Float] {
        for (source, mut noise) in sources(11) {
            for (law, request, cdf) in laws() {
                let x = request(noise.as_mut(), &[N / 100, 100], kind).unwrap();
                assert_eq!((x.size(), x.kind()), (vec![N / 100, 100], kind));
                let x = x.to_kind(Kind::Double);
                let d = ks(&cdf(&x));
                assert!(d < KS_LIMIT, "{source} {law} {kind:?}: sqrt(n) D = {d:.2}");
                let d = ks(&cdf(&(&x * 1.05)).clamp(0.0, 1.0));
                assert!(d > KS_LIMIT, "{source} {law} {kind:?}: 1.05 times the noise passes, {d:.2}");
                // neighbours in the stream are independent: the lag-one correlation of the cdf values, sd 1 / sqrt(n)
                let u = cdf(&x).view([-1]) - 0.5;
                let lag = (u.narrow(0, 0, N - 1) * u.narrow(0, 1, N - 1)).sum(Kind::Double).double_value(&[]);
                let z = lag * 12.0 / (N as f64).sqrt();
                assert!(z.abs() < 4.5, "{source} {law} {kind:?}: lag-one correlation, z {z:.2}");
            }
        }
    }
}

#[test]
fn values_lie_in_the_open_support() {
    for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16] {
        for (source, mut noise) in sources(12) {
            let u = noise.uniform(&[1_000_000], kind, CPU).unwrap().to_kind(Kind::Double);
            assert!(u.min().double_value(&[]) > 0.0 && u.max().double_value(&[]) < 1.0, "{source} {kind:?} uniform");
            let e = noise.exponential(&[1_000_000], kind, CPU).unwrap().to_kind(Kind::Double);
            assert!(e.min().double_value(&[]) > 0.0, "{source} {kind:?} exponential");
            for (law, request, _) in laws() {
                let x = request(noise.as_mut(), &[1_000_000], kind).unwrap();
                assert_eq!(x.isfinite().all().int64_value(&[]), 1, "{source} {kind:?} {law} is not finite");
            }
        }
    }
}

/// Of Z = logits + G with the largest at c, `exp(Z_j - Z_c)` has the cdf `1 / (1 + pi_j (1/x - 1))` on (0, 1).
///
/// For `exp(-Z_k)` is exponential with rate `pi_k` (up to a constant): the smallest of them, at c, is exponential with rate
/// 1, and without memory the others exceed it by exponentials of their own rates: `P(E_c / (E_c + E_j / pi_j) < x)`.
#[test]
fn conditional_gumbels_follow_their_law() {
    let logits = Tensor::from_slice(&[0.4f64, -1.0, 1.1, 0.0]);
    let pi = Vec::<f64>::try_from(logits.softmax(-1, Kind::Double)).unwrap();
    let rows = logits.expand([N, 4], false).contiguous();
    let soft = Estimator::GumbelSoftmax.build(&Knobs::default()).unwrap().drop_in().unwrap();
    for (source, mut noise) in sources(13) {
        let drawn = soft.draw(&rows, None, noise.as_mut()).unwrap();
        for c in 0..4i64 {
            let hard = Tensor::full([N], c, (Kind::Int64, CPU)).one_hot(4);
            let attached = soft.attach(&rows, &hard, noise.as_mut()).unwrap();
            let won = drawn.value.index_select(0, &drawn.index.eq(c).nonzero().view([-1]));
            for (how, y) in [("attach", attached), ("draw", won)] {
                for j in (0..4i64).filter(|&j| j != c) {
                    let ratio = y.select(1, j) / y.select(1, c); // at tau = 1 the softmax keeps the ratios
                    let law = |pi: f64| 1.0 / (1.0 + (ratio.reciprocal() - 1.0) * pi);
                    let d = ks(&law(pi[j as usize]));
                    assert!(d < KS_LIMIT, "{source} {how}, class {c}, other {j}: sqrt(n) D = {d:.2}");
                    // of the order of the smallest group of winners, some 10,000
                    let d = ks(&law(1.25 * pi[j as usize]));
                    assert!(d > KS_LIMIT, "{source} {how}, class {c}, other {j}: a wrong rate passes, {d:.2}");
                }
            }
        }
    }
}

#[test]
fn categorical_frequencies() {
    let limit = 29.878; // chi-square, 7 degrees of freedom, 1e-4
    for kind in [Kind::Double, Kind::Float] {
        let logits = normals(&[8], kind, 9);
        let p = logits.softmax(-1, kind);
        let tilted = (&logits * 1.05).softmax(-1, kind);
        let rows = logits.expand([N, 8], false);
        for (source, mut noise) in sources(14) {
            for (how, point) in [
                ("race", Point::draw(&rows, None, noise.as_mut()).unwrap()),
                ("gumbel", Point::draw_gumbel(&rows, None, noise.as_mut()).unwrap()),
            ] {
                let counts = point.index.bincount::<Tensor>(None, 8);
                let x = chi_square(&counts, &p);
                assert!(x < limit, "{source} {how} {kind:?}: chi-square {x:.1}");
                let x = chi_square(&counts, &tilted);
                assert!(x > limit, "{source} {how} {kind:?}: logits 5% too large pass, {x:.1}");
                assert_eq!(point.hard, point.index.one_hot(8).to_kind(kind));
            }
        }
    }
}

#[test]
fn probes_disturb_no_training_run() {
    tch::manual_seed(3);
    let want = Tensor::rand([4], (Kind::Float, CPU));
    tch::manual_seed(3);
    let mut host = HostNoise::new(3);
    for (_, request, _) in laws() {
        let _ = request(&mut host, &[100], Kind::Float).unwrap();
    }
    assert_eq!(Tensor::rand([4], (Kind::Float, CPU)), want);
}

#[test]
fn a_tape_says_what_is_wrong() {
    let entry = |n: i64| Tensor::arange(n, (Kind::Double, CPU)) + 0.5;
    let mut tape = Tape::new([("uniform", entry(3))]);
    let text = tape.gumbel(&[3], Kind::Double, CPU).unwrap_err().to_string();
    assert!(text.contains("gumbel asked for") && text.contains("\"uniform\""), "{text}");
    let mut tape = Tape::new([("normal", entry(3))]);
    let text = tape.normal(&[2, 2], Kind::Double, CPU).unwrap_err().to_string();
    assert!(text.contains("[2, 2]") && text.contains("only 3 numbers"), "{text}");
    let tape = Tape::new([("logistic", entry(3)), ("index", entry(1))]);
    let text = tape.finish().unwrap_err().to_string();
    assert!(text.contains("2 entries left over") && text.contains("\"logistic\""), "{text}");
    let mut tape = Tape::new([("exponential", entry(6))]);
    let _ = tape.exponential(&[2, 2], Kind::Double, CPU).unwrap();
    let text = tape.finish().unwrap_err().to_string();
    assert!(text.contains("1 entries left over"), "half an entry is left: {text}");
    let rest = tape.exponential(&[2], Kind::Float, CPU).unwrap();
    assert_eq!((Vec::<f32>::try_from(&rest).unwrap(), rest.kind()), (vec![4.5, 5.5], Kind::Float));
    tape.finish().unwrap();
    let text = tape.exponential(&[1], Kind::Double, CPU).unwrap_err().to_string();
    assert!(text.contains("at its end"), "{text}");
    // drawing through an estimator: too few numbers, and an index where Gumbel noise is due
    let logits = normals(&[2, 3], Kind::Double, 1);
    let error = |e: Estimator, name: &str, t: Tensor| {
        let d = e.build(&Knobs::default()).unwrap().drop_in().unwrap();
        d.draw(&logits, None, &mut Tape::new([(name, t)])).unwrap_err().to_string()
    };
    assert!(error(Estimator::St, "index", Tensor::from_slice(&[1i64])).contains("only 1 numbers"));
    assert!(error(Estimator::Stgs, "index", Tensor::from_slice(&[1i64, 2])).contains("gumbel asked for"));
}

/// f32 numbers between a and b, elementwise.
fn ulps(a: &Tensor, b: &Tensor) -> Vec<i64> {
    let bits = |t: &Tensor| Vec::<f32>::try_from(t.reshape([-1])).unwrap().into_iter().map(|x| x.to_bits() as i64);
    bits(a).zip(bits(b)).map(|(a, b)| (a - b).abs()).collect()
}

/// The twister is read and written by hand for requests of 128 numbers and more: what torch draws before, between and after
/// must not notice, the cached normal of `randn` included.
#[test]
fn torch_noise_consumes_the_generator_as_exponential_does() {
    let exponential = |n: i64, kind| Tensor::empty([n], (kind, CPU)).exponential_(1.0);
    let sizes = [1i64, 127, 128, 129, 130, 255, 311, 312, 313, 623, 624, 625, 1248, 5000];
    let (mut total, mut differ) = (0, 0);
    for seed in [0, 1, 12345, -7] {
        let run = |ours: bool| {
            let mut noise = TorchNoise;
            tch::manual_seed(seed);
            let mut out = vec![];
            for (i, &n) in sizes.iter().enumerate() {
                let draw = |noise: &mut TorchNoise, kind| match ours {
                    true => noise.exponential(&[n], kind, CPU).unwrap(),
                    false => exponential(n, kind),
                };
                out.push(draw(&mut noise, Kind::Float));
                // draws of one word, of two, and of a pair of which one half is kept for later
                match i % 4 {
                    0 => out.push(Tensor::rand([3], (Kind::Float, CPU))),
                    1 => out.push(Tensor::randn([5], (Kind::Double, CPU))),
                    2 => out.push(draw(&mut noise, Kind::Double)),
                    _ => out.push(Tensor::randint(1000, [2], (Kind::Int64, CPU))),
                }
                out.push(draw(&mut noise, Kind::Float));
            }
            out.push(Tensor::rand([9], (Kind::Double, CPU)));
            out
        };
        for (i, (ours, theirs)) in run(true).iter().zip(&run(false)).enumerate() {
            if ours.kind() == Kind::Float {
                let off = ulps(ours, theirs);
                total += off.len();
                differ += off.iter().filter(|&&d| d > 0).count();
                assert!(off.iter().all(|&d| d <= 1), "seed {seed}, request {i}: {} ulp", off.iter().max().unwrap());
            } else {
                assert_eq!(ours, theirs, "seed {seed}, request {i}");
            }
        }
    }
    println!("{differ} of {total} f32 exponentials differ from libtorch's, by one rounding");
    assert!((differ as f64) < 2e-3 * total as f64);
}

#[test]
fn requests_in_chunks_equal_one_request() {
    let whole_and_parts = |kind, parts: &[i64]| {
        let n = parts.iter().sum::<i64>();
        tch::manual_seed(5);
        let whole = TorchNoise.exponential(&[n], kind, CPU).unwrap();
        let after = Tensor::rand([4], (Kind::Float, CPU));
        tch::manual_seed(5);
        let pieces: Vec<_> = parts.iter().map(|&n| TorchNoise.exponential(&[n], kind, CPU).unwrap()).collect();
        assert_eq!(Tensor::rand([4], (Kind::Float, CPU)), after, "{parts:?}: generator elsewhere");
        (whole, Tensor::cat(&pieces, 0))
    };
    for parts in [&[700i64, 300][..], &[128, 129, 500, 1001], &[624, 624, 311, 313]] {
        for kind in [Kind::Float, Kind::Double] {
            let (whole, pieces) = whole_and_parts(kind, parts);
            assert_eq!(whole, pieces, "{kind:?} {parts:?}");
        }
    }
    // Pieces below 128 numbers go through libtorch's own op, whose logarithm may round the other way.
    let (whole, pieces) = whole_and_parts(Kind::Float, &[7; 300]);
    assert!(ulps(&whole, &pieces).iter().all(|&d| d <= 1));
    let (whole, pieces) = whole_and_parts(Kind::Double, &[7; 300]);
    assert_eq!(distance(&whole, &pieces), 0.0);
}

const SHAPES: [Shape; 4] = [Shape::Logistic, Shape::Uniform, Shape::Triangular, Shape::Normal];

/// Every law at scale 1, at unit slope, and at a scale of no meaning.
fn binary_laws() -> Vec<BinaryNoise> {
    let of = |s| [BinaryNoise::new(s), BinaryNoise::unit_slope(s), BinaryNoise::with_scale(s, 1.7).unwrap()];
    SHAPES.into_iter().flat_map(of).collect()
}

#[test]
fn binary_noise_is_the_integral_of_its_density() {
    for law in binary_laws() {
        // Simpson's rule over a range beyond which less than 1e-15 lies; the kinks at -s, 0, s fall on nodes
        let (n, top) = (80_000, 40.0 * law.scale());
        let h = 2.0 * top / n as f64;
        let (mut mass, mut variance, mut before) = (0.0, 0.0, law.cdf_f64(-top));
        for i in (0..n).step_by(2) {
            let z = |j: i32| -top + (i + j) as f64 * h;
            // the densities of intervals jump at the ends: from inside, hence a hair towards 0
            let p = |j: i32, from: f64| law.pdf_f64(z(j) + from * 1e-9 * h);
            let part = h / 3.0 * (p(0, 1.0) + 4.0 * p(1, 0.0) + p(2, -1.0));
            variance +=
                h / 3.0 * (z(0).powi(2) * p(0, 1.0) + 4.0 * z(1).powi(2) * p(1, 0.0) + z(2).powi(2) * p(2, -1.0));
            mass += part;
            let after = law.cdf_f64(z(2));
            assert!((after - before - part).abs() < 1e-11, "{law:?} at {}: {} not {part}", z(2), after - before);
            before = after;
        }
        assert!((mass - 1.0).abs() < 1e-9, "{law:?}: mass {mass}");
        assert!((variance / law.variance() - 1.0).abs() < 1e-6, "{law:?}: {variance} not {}", law.variance());
    }
}

#[test]
fn binary_noise_as_a_tensor_is_the_scalar_one() {
    for law in binary_laws() {
        let a: Vec<f64> = (-400..=400).map(|i| i as f64 * 0.09 * law.scale()).collect();
        for (kind, limit) in [(Kind::Double, 4e-15), (Kind::Float, 4e-6)] {
            let t = Tensor::from_slice(&a).to_kind(kind);
            let (p, d) = (law.cdf(&t).unwrap(), law.pdf(&t).unwrap());
            assert_eq!((p.kind(), d.kind()), (kind, kind));
            for (i, _) in a.iter().enumerate() {
                let at = [i as i64];
                // the argument's own rounding in f32: relative to a density of z up to 36, hence the absolute part
                let z = t.double_value(&at);
                for (got, want) in [(p.double_value(&at), law.cdf_f64(z)), (d.double_value(&at), law.pdf_f64(z))] {
                    assert!((got - want).abs() <= limit * (want + 1e-3), "{law:?} at {z}, {kind:?}: {got} not {want}");
                }
            }
        }
        assert!((law.cdf_f64(0.0) - 0.5).abs() < 1e-16 && law.cdf_f64(-90.0) < 1e-20 && law.cdf_f64(1e9) == 1.0);
        let slope = 2.0 * BinaryNoise::unit_slope(law.shape()).pdf_f64(0.0);
        assert!((slope - 1.0).abs() < 1e-15, "{law:?}: {slope}");
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(BinaryNoise::with_scale(Shape::Normal, bad).unwrap_err().to_string().contains("positive"));
    }
}

#[test]
fn binary_noise_follows_its_cdf_and_so_do_the_states() {
    for kind in [Kind::Double, Kind::Float] {
        for (source, mut noise) in sources(7) {
            for law in binary_laws() {
                let z = law.sample(&[N], kind, CPU, noise.as_mut()).unwrap().to_kind(Kind::Double);
                let d = ks(&law.cdf(&z).unwrap());
                assert!(d < KS_LIMIT, "{source} {law:?} {kind:?}: sqrt(n) D = {d:.2}");
                let d = ks(&law.cdf(&(&z * 1.05)).unwrap());
                assert!(d > KS_LIMIT, "{source} {law:?} {kind:?}: 1.05 times the noise passes, {d:.2}");
                for a in [-0.8, 0.0, 0.4] {
                    let a = a * law.scale();
                    let x = law.draw(&Tensor::full([N], a, (kind, CPU)), noise.as_mut()).unwrap();
                    assert_eq!((x.kind(), x.abs().min().double_value(&[])), (kind, 1.0));
                    let share = x.eq(1.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
                    let z = |p: f64| (share - p) / (p * (1.0 - p) / N as f64).sqrt();
                    assert!(z(law.cdf_f64(a)).abs() < 4.5, "{source} {law:?} {kind:?}: z {}", z(law.cdf_f64(a)));
                    // three hundredths of probability aside must show: 19 standard errors or more
                    let aside = if law.cdf_f64(a) < 0.5 { 0.03 } else { -0.03 };
                    assert!(z(law.cdf_f64(a) + aside).abs() > 4.5, "{law:?}: a wrong probability passes");
                }
            }
        }
    }
}

#[test]
fn a_tie_of_a_binary_unit_is_a_state_and_nan_is_refused() {
    let law = BinaryNoise::new(Shape::Logistic);
    let a = Tensor::from_slice(&[0f32, 0., 1e9, -1e9]);
    let u = Tensor::from_slice(&[0.5f32, 0.4999, 1.0 - f32::EPSILON / 2.0, f32::MIN_POSITIVE]);
    let x = law.draw(&a, &mut Tape::new([("uniform", u)])).unwrap();
    assert_eq!(Vec::<f32>::try_from(x).unwrap(), [-1., 1., 1., -1.]);
    let nan = Tensor::from_slice(&[0f32, f32::NAN]);
    let message = law.draw(&nan, &mut TorchNoise).unwrap_err().to_string();
    assert!(message.contains("free of NaN"), "{message}");
}
