//! Tests of distributions, each at a stated rate of false alarms.
#![allow(dead_code, missing_docs)]
use tch::{Kind, Tensor};

/// Chance of a false alarm of one Kolmogorov-Smirnov or chi-square test here.
pub const LEVEL: f64 = 1e-4;
/// `2 sum (-1)^(k-1) exp(-2 k^2 x^2) = LEVEL`: the limit of `sqrt(n) D` at that level.
pub const KS_LIMIT: f64 = 2.2253;
/// Largest |z| allowed: 6.8e-6 a coordinate by chance, two-sided.
pub const Z_LIMIT: f64 = 4.5;

/// Kolmogorov-Smirnov statistic `sqrt(n) D` of numbers whose cdf values are given.
pub fn ks(cdf_values: &Tensor) -> f64 {
    let n = cdf_values.numel() as i64;
    let (u, _) = cdf_values.to_kind(Kind::Double).view([-1]).sort(0, false);
    let i = Tensor::arange(n, (Kind::Double, u.device()));
    let above = ((&i + 1.0) / n as f64 - &u).max().double_value(&[]);
    let below = (&u - &i / n as f64).max().double_value(&[]);
    (n as f64).sqrt() * above.max(below)
}

/// The same between two samples: `sqrt(n m / (n + m)) D`.
pub fn ks_two(a: &Tensor, b: &Tensor) -> f64 {
    let (n, m) = (a.numel() as f64, b.numel() as f64);
    let sorted = |t: &Tensor| t.to_kind(Kind::Double).reshape([-1]).sort(0, false).0;
    let (a, b) = (sorted(a), sorted(b));
    let all = Tensor::cat(&[&a, &b], 0);
    let share =
        |t: &Tensor, n: f64| all.searchsorted(t, false, true, "right", None::<&Tensor>).to_kind(Kind::Double) / n;
    (n * m / (n + m)).sqrt() * (share(&a, n) - share(&b, m)).abs().max().double_value(&[])
}

/// Pearson's chi-square of counts `[K]` against probabilities `[K]`.
pub fn chi_square(counts: &Tensor, p: &Tensor) -> f64 {
    let counts = counts.to_kind(Kind::Double);
    let want = p.to_kind(Kind::Double) * counts.sum(Kind::Double);
    ((&counts - &want).square() / want).sum(Kind::Double).double_value(&[])
}

/// Mean and variance of the mean of rows `[N, C]` -> `[C]` each.
pub fn mean_and_variance(x: &Tensor) -> (Tensor, Tensor) {
    let n = x.size()[0] as f64;
    let mean = x.mean_dim(0, false, Kind::Double);
    let variance = (x - &mean).square().mean_dim(0, false, Kind::Double) / n;
    (mean, variance)
}

/// `d / se`, where a coordinate that is exactly right scores 0 whatever its error; NaN stays NaN, which no limit passes.
pub fn z_scores(d: &Tensor, se: &Tensor) -> Tensor {
    (d / se).where_self(&d.ne(0.0), &d.zeros_like())
}

/// Largest |z| of the difference of two means of rows `[N, C]`, and a line that says where.
pub fn z_of_means(a: &Tensor, b: &Tensor) -> (f64, String) {
    let ((ma, va), (mb, vb)) = (mean_and_variance(a), mean_and_variance(b));
    let se = (va + vb).sqrt();
    let z = z_scores(&(&ma - &mb), &se);
    let at = z.abs().argmax(0, false).int64_value(&[]);
    let [ma, mb, se] = [ma, mb, se].map(|t| t.double_value(&[at]));
    let z = z.double_value(&[at]);
    (z.abs(), format!("coordinate {at}: {ma} and {mb}, se {se:e}, z {z:.2}, N {} and {}", a.size()[0], b.size()[0]))
}
