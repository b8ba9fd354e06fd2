//! Accuracy of every estimator at given parameters: expected cosine similarity (Eq. 61), expected improvement (Eq. 66) and RMSE
//! (Eq. 67) of the encoder's gradient against the mean of many pairs of ARM.
use crate::method::Method;
use crate::model::Model;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use thruway::error::Result;
use thruway::estimators::{Built, GradEstimator};
use thruway::nn::bow::{Bags, Precision};
use thruway::noise::Noise;
use thruway::report::stats::central_interval;

/// Share of the trials inside an interval (Fig. 1).
const BAND: f64 = 0.70;

/// What is measured: the estimator with its temperature. All of Table D.1, then the three that it does not have.
pub const CANDIDATES: [(Method, Option<f64>); 9] = [
    (Method::Arm, None),
    (Method::GumbelSoftmax, Some(1.0)),
    (Method::GumbelSoftmax, Some(0.1)),
    (Method::St, None),
    (Method::DetSt, None),
    (Method::IdentitySt, None),
    (Method::Psa, None),
    (Method::Reinmax, None),
    (Method::Disarm, None),
];

/// One estimator at one point of the trajectory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Epochs of training before.
    pub epoch: i64,
    /// As tables name it.
    pub method: String,
    /// Documents of the batches, and their number.
    pub documents: i64,
    pub batches: i64,
    /// Estimates of each batch; 1 where nothing is random.
    pub trials: i64,
    /// Pairs of ARM behind the reference gradient.
    pub reference: i64,
    /// Kind of the output layer's products here.
    pub precision: Precision,
    /// Cosine of the true gradient with the reference, estimated from the two halves of the reference. Every metric here is freed
    /// from the reference's own error.
    pub ceiling: f64,
    /// `sqrt(mean |g|^2)` over the batches, nats a document: minus the best expected improvement there can be.
    pub norm: f64,
    /// `E <g, g^> / (|g| |g^|)`.
    pub cosine: f64,
    pub cosine_band: Option<(f64, f64)>,
    /// `-E <g, g^> / sqrt(E |g^|^2)`: lower is better, above 0 the loss is expected to rise.
    pub improvement: f64,
    pub improvement_band: Option<(f64, f64)>,
    /// `sqrt(E |g^ - g|^2)`.
    pub rmse: f64,
    /// Of `|g^ - g|`.
    pub rmse_band: Option<(f64, f64)>,
    /// Share of the estimates with a negative cosine.
    pub negative: f64,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Estimates of each batch.
    pub trials: i64,
    /// Estimates of PSA, which costs n + 1 evaluations each.
    pub psa_trials: i64,
    /// Pairs of ARM in the reference, an even number.
    pub reference: i64,
    /// Kind of the output layer's products: differences of losses are small beside the losses, and rounding is not.
    pub precision: Precision,
}

/// An estimate in the logits `[B, n]`, of the mean loss of the documents.
pub fn estimate(
    estimator: &Built,
    model: &Model,
    bags: &Bags,
    logits: &Tensor,
    precision: Precision,
    noise: &mut dyn Noise,
) -> Result<Tensor> {
    let leaf = logits.detach().f_set_requires_grad(true)?;
    let f = model.reconstruction(bags).frozen().in_precision(precision);
    let loss = estimator.surrogate_loss(&leaf, &f, noise)?;
    let loss = loss.f_mean(loss.kind())?;
    Ok(Tensor::f_run_backward(&[loss], &[&leaf], false, false)?.remove(0))
}

/// The same in the encoder's parameters, as one vector.
pub fn in_parameters(model: &Model, logits: &Tensor, at_logits: &Tensor) -> Result<Tensor> {
    let total = (logits * at_logits).f_sum(logits.kind())?;
    let all = Tensor::f_run_backward(&[total], &model.encoder(), true, false)?;
    let flat = all.iter().map(|t| t.f_reshape([-1])).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Tensor::f_cat(&flat, 0)?)
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.f_dot(b)?.f_double_value(&[])?)
}

/// The reference gradient of one batch.
pub struct Reference {
    /// Mean of all pairs, in the encoder's parameters: unbiased, so its products with independent estimates are too.
    pub gradient: Tensor,
    /// `|g|^2` of the true gradient, unbiased: the product of the means of two halves. That of the mean with itself has the
    /// reference's variance on top.
    pub square: f64,
}

/// Means of `pairs` estimates of ARM.
pub fn reference(
    model: &Model,
    bags: &Bags,
    logits: &Tensor,
    pairs: i64,
    precision: Precision,
    noise: &mut dyn Noise,
) -> Result<Reference> {
    let arm = Method::Arm.build(None)?;
    let half = pairs / 2;
    let mut halves = vec![];
    for _ in 0..2 {
        let mut sum = logits.detach().f_zeros_like()?.f_to_kind(Kind::Double)?;
        for _ in 0..half {
            sum += estimate(&arm, model, bags, logits, precision, noise)?;
        }
        halves.push(in_parameters(model, logits, &(sum / half as f64).f_to_kind(logits.kind())?)?);
    }
    Ok(Reference { gradient: (&halves[0] + &halves[1]) * 0.5, square: dot(&halves[0], &halves[1])? })
}

/// Inner product with the true gradient, squared lengths of the estimate and of the true gradient.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    pub inner: f64,
    pub square: f64,
    pub truth: f64,
}

/// The metrics of some trials, what they are of left open; `None` for no trial.
pub fn summarise(trials: &[Trial]) -> Option<Row> {
    if trials.is_empty() {
        return None;
    }
    let n = trials.len() as f64;
    let mean = |f: &dyn Fn(&Trial) -> f64| trials.iter().map(f).sum::<f64>() / n;
    // an estimate of exactly 0 has no direction: cosine 0
    let cosine = |t: &Trial| if t.square * t.truth > 0.0 { t.inner / (t.square * t.truth).sqrt() } else { 0.0 };
    let square_error = |t: &Trial| t.square - 2.0 * t.inner + t.truth;
    let error = |t: &Trial| square_error(t).max(0.0).sqrt();
    let scale = mean(&|t| t.square).sqrt().max(f64::MIN_POSITIVE);
    let band = |f: &dyn Fn(&Trial) -> f64| {
        let values: Vec<f64> = trials.iter().map(f).collect();
        (values.len() >= 10).then(|| central_interval(&values, BAND)).flatten()
    };
    Some(Row {
        epoch: 0,
        method: String::new(),
        documents: 0,
        batches: 0,
        trials: 0,
        reference: 0,
        precision: Precision::default(),
        ceiling: f64::NAN,
        norm: mean(&|t| t.truth).max(0.0).sqrt(),
        cosine: mean(&cosine),
        cosine_band: band(&cosine),
        improvement: -mean(&|t| t.inner) / scale,
        improvement_band: band(&|t| -t.inner / scale),
        rmse: mean(&square_error).max(0.0).sqrt(),
        rmse_band: band(&error),
        negative: mean(&|t| f64::from(u8::from(cosine(t) < 0.0))),
    })
}

/// Measures all candidates on these batches at the model's parameters.
pub fn measure(
    model: &Model,
    batches: &[Bags],
    epoch: i64,
    effort: &Effort,
    noise: &mut dyn Noise,
    say: &dyn Fn(&str),
) -> Result<Vec<Row>> {
    let mut all: Vec<Vec<Trial>> = vec![vec![]; CANDIDATES.len()];
    let (mut true_square, mut its_square) = (0.0, 0.0);
    for bags in batches {
        let logits = model.logits(bags, false)?;
        let Reference { gradient, square } =
            reference(model, bags, &logits, effort.reference, effort.precision, noise)?;
        true_square += square;
        its_square += dot(&gradient, &gradient)?;
        for ((method, tau), trials) in CANDIDATES.iter().zip(&mut all) {
            let estimator = method.build(*tau)?;
            for _ in 0..effort.of(*method) {
                let at_logits = estimate(&estimator, model, bags, &logits, effort.precision, noise)?;
                let g = in_parameters(model, &logits, &at_logits)?;
                trials.push(Trial { inner: dot(&gradient, &g)?, square: dot(&g, &g)?, truth: square });
            }
        }
    }
    let documents = batches.iter().map(Bags::len).sum();
    let rows = CANDIDATES.iter().zip(all).filter_map(|((method, tau), trials)| {
        Some(Row {
            epoch,
            method: label(*method, *tau),
            documents,
            batches: batches.len() as i64,
            trials: effort.of(*method),
            reference: effort.reference,
            precision: effort.precision,
            ceiling: (true_square / its_square.max(f64::MIN_POSITIVE)).max(0.0).sqrt(),
            ..summarise(&trials)?
        })
    });
    let rows: Vec<Row> = rows.collect();
    for r in &rows {
        say(&format!(
            "epoch {epoch}, {}: cosine {:.3}, expected improvement {:.3} of {:.3}, RMSE {:.3}",
            r.method, r.cosine, r.improvement, -r.norm, r.rmse
        ));
    }
    Ok(rows)
}

/// An estimator as tables and paths name it: with its temperature, if it was given one.
pub fn label(method: Method, tau: Option<f64>) -> String {
    match tau {
        Some(tau) => format!("{}-{tau}", method.name()),
        None => method.name(),
    }
}

impl Effort {
    fn of(&self, method: Method) -> i64 {
        match method {
            Method::DetSt => self.trials.min(1),
            Method::Psa => self.psa_trials,
            _ => self.trials,
        }
    }
}
