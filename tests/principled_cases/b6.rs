//! B.6: bias at a random initialisation.
use crate::common::{distance, normals};
use crate::{dot, expected, true_gradient, units, values, vector};
use std::f64::consts::PI;
use tch::{Kind, Tensor};
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::sbn::Proxy;

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

/// Normal weights `[3, n]` with rows of norm 1, pre-activations `spread` times normal; for each n and seed (below 10,000) streams
/// of their own.
fn initialised(n: i64, spread: f64, seed: u64) -> (Tensor, Tensor) {
    let stream = 2 * (10_000 * n as u64 + seed);
    let w = normals(&[3, n], Kind::Double, stream);
    let norm = w.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Double).sqrt();
    (w / norm, normals(&[n], Kind::Double, stream + 1) * spread)
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
    assert!((b + 0.5).abs() < 2.59 * se && se < 0.025, "{b} {se}");
    let (b, se) = fitted(0.0);
    println!("at a = 0: slope {b:.4} +- {se:.4}");
    // -1 in the limit; over these n -0.973 (12 such fits by other means), and a fit strays by 0.005: four of these and the rest
    assert!((b + 1.0).abs() < 0.047 && (b + 0.5).abs() > 10.0 * se, "{b} {se}");
}

/// B.6's own quantity: between two independent states the gradient `g_i` changes by `O(n^(-1/2))`. Eq. 33 drops the factor
/// `|W (x - y)|`, which is of order 1 there; for a change of `x_i` alone, the Lipschitz constant of B.5, it is `2 |W_i|`, and the
/// change is `O(1/n)`: better than stated. Between the worst two states it is of order `n^(1/2)` and the change does not fall at
/// all: `l(u) = u^2 / 2` of one row w, `x = sgn(w)` and `y = -x`, where its mean tends to `4 / pi`.
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
        println!(
            "change of g_i, {}: slope {b:.4} +- {se:.4}",
            if alone { "x_i flipped" } else { "independent states" }
        );
        assert!((b - want).abs() < 2.59 * se && (b - other).abs() > 5.0 * se, "{b} {se}");
    }
    for n in [64, 2048] {
        let worst = |seed| {
            let w = initialised(n, 1.0, seed).0.get(0);
            let g = |x: &Tensor| &w * dot(&w, x);
            let x = thruway::sbn::sign(&w).unwrap();
            (g(&x) - g(&-&x)).abs().mean(Kind::Double).double_value(&[])
        };
        let mean = (0..40).map(worst).sum::<f64>() / 40.0;
        // 2 |w|_1^2 / n: one draw strays by 1.5 n^(-1/2) of it, the mean of 40 by a fortieth at n = 64
        assert!((mean * PI / 4.0 - 1.0).abs() < 0.1, "n {n}: {mean}");
    }
}
