//! Accuracy of every method at given parameters, by layer, in the 0/1 encoding.
//!
//! One sample is one draw for each point; the estimate is the mean over points. A layer's gradient is its weight and bias in
//! one vector. Relative: `RMSE(M) = sqrt(mean |g_M - g|^2) / |g|`, g_M the mean of M samples.
use crate::problem::Data;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use thruway::error::Result;
use thruway::noise::{HostNoise, Noise};
use thruway::report::stats::central_interval;
use thruway::sbn::{Batch, Draws, Knobs, Mean, Method, Network, Randomness, Rule, ZeroOne};

/// Share of the trials inside an interval (Fig. 3).
const BAND: f64 = 0.70;
/// Most joint states that are enumerated, for each of the points: 2^15.
const MAX_UNITS: i64 = 15;
/// Joint states of an enumerating pass.
const PATHS: i64 = 2048;
/// Rows of a batched pass.
const ROWS: i64 = 10_000;

/// One line of `accuracy.jsonl`: one method in one layer at one setting of the parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Where the parameters come from: "epoch 100", "published, epoch 1".
    pub setting: String,
    /// Exact expected loss there, nats.
    pub expected_loss: f64,
    /// The method with its knobs: "psa", "concrete, tau 0.1".
    pub method: String,
    /// What it claims to estimate.
    pub unbiased: bool,
    /// Layer from 1; the head is the one after the last.
    pub layer: usize,
    /// `|g|`, the length of the exact gradient of this layer.
    pub norm: f64,
    /// By enumeration, where the states are all that is random.
    pub exact: Option<Moments>,
    /// From samples.
    pub sampled: Moments,
    /// Samples T; 1 where nothing is random.
    pub samples: i64,
    /// For M = 1, 2, 5, 10, ...
    pub points: Vec<Point>,
}

/// First two moments of one sample's estimate, relative to `|g|`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Moments {
    /// `|E - g| / |g|`; from samples it contains `std / sqrt(T)` of noise.
    pub bias: f64,
    /// `sqrt(sum of variances) / |g|`.
    pub std: f64,
    /// Cosine of E and g.
    pub cosine: f64,
}

impl Moments {
    /// `RMSE(M)`.
    pub fn rmse(&self, m: f64) -> f64 {
        (self.bias.powi(2) + self.std.powi(2) / m).sqrt()
    }
}

/// M-sample estimates: groups of M from the same T samples.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    pub m: i64,
    pub groups: i64,
    pub rmse: f64,
    /// The central 70 % of `|g_M - g| / |g|`; none for fewer than ten groups.
    pub rmse_band: Option<(f64, f64)>,
    /// Mean cosine with g.
    pub cosine: f64,
    pub cosine_band: Option<(f64, f64)>,
    /// Share of the groups with a negative cosine: no descent direction.
    pub negative: f64,
}

/// A method as it is measured.
pub struct Candidate {
    pub name: String,
    rule: Box<dyn Rule>,
    true_baseline: bool,
    /// Whether its moments are enumerated, if they can be.
    enumerate: bool,
}

/// The candidates of a method: with the temperatures of the small problem, with the true baseline of Section C.3, with and
/// without the enhanced head.
pub fn candidates(method: Method) -> Result<Vec<Candidate>> {
    use thruway::sbn::HeadGradient;
    let one = |suffix: &str, knobs: Knobs, true_baseline: bool| -> Result<Candidate> {
        let name = format!("{}{suffix}", method.name());
        // the variants of PSA's head agree below it; the ones of MuProp and the identity are no claim of the figures
        let enumerate = !(suffix.ends_with("head") || matches!(method, Method::Muprop | Method::IdentitySt));
        Ok(Candidate { name, rule: method.build(&knobs)?, true_baseline, enumerate })
    };
    let plain = Knobs::default();
    Ok(match method {
        Method::Concrete => vec![
            one(", tau 0.1", Knobs { tau: Some(0.1), ..plain }, false)?,
            one(", tau 1", Knobs { tau: Some(1.0), ..plain }, false)?,
        ],
        Method::Psa => vec![
            one("", plain, false)?,
            one(", plain head", Knobs { head: Some(HeadGradient::Plain), ..plain }, false)?,
        ],
        Method::Reinforce | Method::Muprop => {
            vec![one("", plain, false)?, one(", true baseline", plain, true)?]
        }
        _ => vec![one("", plain, false)?],
    })
}

/// Gradients in the 0/1 encoding, one row a replica: for each layer `[R, D]`, the head last.
fn rows(copies: &Network, surrogate: &Tensor) -> Result<Vec<Tensor>> {
    let (names, tensors): (Vec<&str>, Vec<&Tensor>) = copies.params().iter().unzip();
    let total = surrogate.f_sum(Kind::Double)?;
    let found = Tensor::f_run_backward(&[total], &tensors, false, false)?;
    let found: Vec<(String, Tensor)> = names.into_iter().map(str::to_string).zip(found).collect();
    let found = ZeroOne::gradients(&found)?;
    let layer = |pair: &[(String, Tensor)]| -> Result<Tensor> {
        Ok(Tensor::f_cat(&[pair[0].1.f_flatten(1, -1)?, pair[1].1.shallow_clone()], 1)?)
    };
    found.chunks(2).map(layer).collect()
}

/// `samples` estimates of the gradient of the mean loss.
fn sampled(
    network: &Network,
    data: &Data,
    candidate: &Candidate,
    baseline: &Tensor,
    samples: i64,
    noise: &mut dyn Noise,
) -> Result<Vec<Tensor>> {
    let n = data.x.size()[0];
    let at_once = (ROWS / n).clamp(1, samples);
    let mut chunks: Vec<Vec<Tensor>> = vec![];
    let mut copies = network.replicate(at_once)?;
    let mut left = samples;
    while left > 0 {
        let r = at_once.min(left);
        if r < at_once {
            copies = network.replicate(r)?;
        }
        let baseline = candidate.true_baseline.then_some(baseline);
        let x = data.x.f_expand([r, n, 2], false)?;
        let batch = Batch { input: &x, target: &data.y, baseline };
        let loss = copies.run(&batch, &*candidate.rule, &mut Draws::random(noise))?;
        chunks.push(rows(&copies, &(loss.surrogate / n as f64))?);
        left -= r;
    }
    (0..chunks[0].len()).map(|l| Ok(Tensor::f_cat(&chunks.iter().map(|c| &c[l]).collect::<Vec<_>>(), 0)?)).collect()
}

/// Mean over the points of the mean estimate, `[D]`, and the variance of the mean over points, summed over coordinates; by
/// enumeration of all joint states of each point, a few thousand at once to stay in the cache.
fn enumerated(network: &Network, data: &Data, candidate: &Candidate, baseline: &Tensor) -> Result<Vec<(Tensor, f64)>> {
    let n = data.x.size()[0];
    let paths = network.paths(&data.x)?;
    let all = paths.probability.size()[0];
    let piece = PATHS.min(all); // a power of two, as `all` is
    let copies = network.replicate(piece)?;
    // [n, D] of each layer: means and second moments of the points
    let mut sums: Vec<(Vec<Tensor>, f64)> = vec![];
    for from in (0..all).step_by(piece as usize) {
        let states = paths.states.iter().map(|s| Ok(s.f_narrow(0, from, piece)?.f_unsqueeze(1)?));
        let states: Vec<Tensor> = states.collect::<Result<_>>()?;
        for i in 0..n {
            let one = |t: &Tensor| t.f_narrow(0, i, 1);
            let (x, y, b) = (one(&data.x)?.f_expand([piece, 1, 2], false)?, one(&data.y)?, one(baseline)?);
            let batch = Batch { input: &x, target: &y, baseline: candidate.true_baseline.then_some(&b) };
            let loss = copies.run(&batch, &*candidate.rule, &mut Draws::given(&states))?;
            let weight = paths.probability.f_narrow(1, i, 1)?.f_narrow(0, from, piece)?.f_transpose(0, 1)?; // [1, P]
            for (l, rows) in rows(&copies, &loss.surrogate)?.into_iter().enumerate() {
                let mean = weight.f_matmul(&rows)?.f_squeeze_dim(0)?;
                if sums.len() == l {
                    sums.push((vec![], 0.0));
                }
                let (means, second) = &mut sums[l];
                *second += weight.f_matmul(&rows.f_square()?)?.f_sum(Kind::Double)?.f_double_value(&[])?;
                match means.get_mut(i as usize) {
                    Some(sum) => *sum = &*sum + mean,
                    None => means.push(mean),
                }
            }
        }
    }
    sums.into_iter()
        .map(|(means, second)| {
            let means = Tensor::f_stack(&means, 0)?;
            let square = means.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
            Ok((means.f_mean_dim([0i64].as_slice(), false, Kind::Double)?, (second - square) / (n * n) as f64))
        })
        .collect()
}

fn norm(t: &Tensor) -> Result<f64> {
    Ok(t.f_square()?.f_sum(Kind::Double)?.f_sqrt()?.f_double_value(&[])?)
}

/// An estimate of exactly 0 has no direction: cosine 0.
fn cosine(a: &Tensor, b: &Tensor) -> Result<f64> {
    let lengths = norm(a)? * norm(b)?;
    Ok(if lengths > 0.0 { (a * b).f_sum(Kind::Double)?.f_double_value(&[])? / lengths } else { 0.0 })
}

fn moments(mean: &Tensor, variance: f64, truth: &Tensor) -> Result<Moments> {
    let scale = norm(truth)?;
    Ok(Moments {
        bias: norm(&(mean - truth))? / scale,
        std: variance.max(0.0).sqrt() / scale,
        cosine: cosine(mean, truth)?,
    })
}

/// 1, 2, 5, 10, ... up to `most`.
pub fn counts(most: i64) -> impl Iterator<Item = i64> {
    (0..).flat_map(|e| [1, 2, 5].map(|d| d * 10i64.pow(e))).take_while(move |m| *m <= most)
}

/// Estimates from groups of M of the T samples: rows `[T, D]`.
fn points(rows: &Tensor, truth: &Tensor) -> Result<Vec<Point>> {
    let (t, d) = rows.size2()?;
    let scale = norm(truth)?;
    counts((t / 2).max(1))
        .map(|m| {
            let groups = t / m;
            let means = rows.f_narrow(0, 0, groups * m)?.f_view([groups, m, d])?.f_mean_dim(
                [1i64].as_slice(),
                false,
                Kind::Double,
            )?;
            let errors = (&means - truth).f_square()?.f_sum_dim_intlist(-1, false, Kind::Double)?.f_sqrt()? / scale;
            let lengths = means.f_square()?.f_sum_dim_intlist(-1, false, Kind::Double)?.f_sqrt()?;
            let cosines = (means.f_matmul(truth)? / (lengths * scale)).f_nan_to_num(0.0, None, None)?;
            let list = |t: &Tensor| -> Result<Vec<f64>> { Ok(Vec::try_from(t)?) };
            let (errors, cosines) = (list(&errors)?, list(&cosines)?);
            let n = groups as f64;
            let band = |v: &[f64]| (groups >= 10).then(|| central_interval(v, BAND)).flatten();
            Ok(Point {
                m,
                groups,
                rmse: (errors.iter().map(|e| e * e).sum::<f64>() / n).sqrt(),
                rmse_band: band(&errors),
                cosine: cosines.iter().sum::<f64>() / n,
                cosine_band: band(&cosines),
                negative: cosines.iter().filter(|c| **c < 0.0).count() as f64 / n,
            })
        })
        .collect()
}

/// Measures `methods` at the parameters of `network`; `seed` decides the draws.
pub fn measure(
    setting: &str,
    network: &Network,
    data: &Data,
    methods: &[Method],
    samples: i64,
    seed: u64,
    say: &dyn Fn(&str),
) -> Result<Vec<Row>> {
    let per_point = network.exact_loss(&data.x, &data.y)?;
    let (baseline, expected_loss) = (per_point.detach(), per_point.f_mean(Kind::Double)?);
    let truth: Vec<Tensor> = {
        let (names, own): (Vec<&str>, Vec<&Tensor>) = network.params().iter().unzip();
        let found = Tensor::f_run_backward(&[&expected_loss], &own, false, false)?;
        let found: Vec<_> = names.into_iter().map(str::to_string).zip(found).collect();
        let found = ZeroOne::gradients(&found)?;
        let flat = |pair: &[(String, Tensor)]| -> Result<Tensor> {
            Ok(Tensor::f_cat(&[pair[0].1.f_flatten(0, -1)?, pair[1].1.shallow_clone()], 0)?)
        };
        found.chunks(2).map(flat).collect::<Result<_>>()?
    };
    let expected_loss = expected_loss.f_double_value(&[])?;
    let units: i64 = network.layers().iter().map(|l| l.count()).sum();
    let mut out = vec![];
    for method in methods {
        let claims = method.claims();
        for candidate in candidates(*method)? {
            say(&format!("{setting}: {}", candidate.name));
            let t = if claims.randomness == Randomness::None { 1 } else { samples };
            let mut noise = HostNoise::new(seed);
            let rows = sampled(network, data, &candidate, &baseline, t, &mut noise)?;
            let by_states = candidate.enumerate && claims.randomness == Randomness::States && units <= MAX_UNITS;
            let exact = by_states.then(|| enumerated(network, data, &candidate, &baseline)).transpose()?;
            for (l, (rows, truth)) in rows.iter().zip(&truth).enumerate() {
                let mean = rows.f_mean_dim([0i64].as_slice(), false, Kind::Double)?;
                let variance =
                    (rows - &mean).f_square()?.f_sum(Kind::Double)?.f_double_value(&[])? / (t - 1).max(1) as f64;
                out.push(Row {
                    setting: setting.to_string(),
                    expected_loss,
                    method: candidate.name.clone(),
                    unbiased: claims.mean == Mean::Exact,
                    layer: l + 1,
                    norm: norm(truth)?,
                    exact: exact.as_ref().map(|e| moments(&e[l].0, e[l].1, truth)).transpose()?,
                    sampled: moments(&mean, variance, truth)?,
                    samples: t,
                    points: points(rows, truth)?,
                });
            }
        }
    }
    Ok(out)
}
