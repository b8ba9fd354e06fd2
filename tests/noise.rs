//! Distributions of every source of noise, the law of conditional Gumbel noise, tapes, and libtorch's stream.
//!
//! Each Kolmogorov-Smirnov or chi-square test has a false-alarm rate of 1e-4; there are about 40 on fixed seeds. Each also
//! runs on samples of a slightly wrong law, which it must reject.
mod common;
use common::stats::{KS_LIMIT, chi_square, ks};
use common::{distance, normals};
use tch::{Device, Kind, Tensor};
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

/// Name, request, cdf.
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
