//! Rao-Blackwellised straight-through Gumbel-softmax (GR-MCK). The K of GR-MCK is our `M`, `--samples`.
use super::{Built, Claims, DropIn, ExactOn, Knobs, NoiseKind, Surrogate, Takes, Tau};
use crate::dist::categorical::Point;
use crate::error::{Error, Result};
use crate::kernels::gumbel_rao as kernel;
use crate::noise::Noise;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Nothing,
    source: "Paulus et al. 2021, Proposition 1: the mean of stgs, no more variance",
    noise: NoiseKind::Continuous,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &["tau", "samples"],
    tau: "<= 1",
};

/// Default of `--samples`: the published code's.
pub const SAMPLES: i64 = 100;

/// Rao-Blackwellised straight-through Gumbel-softmax.
///
/// Given the drawn class D, averages the relaxed gradient over `samples` Gumbel vectors conditioned on D:
/// `grad = E_G[ J(softmax((logits + G) / tau)) | D ] g / tau`    (Paulus et al. 2021, Eq. 9; the shift by which G depends on
/// the logits is not differentiated, as in every public implementation).
///
/// - **Shapes**: logits, draw `[.., K]`; noise `[.., K, M]`, drawn a few rows at a time in the reference's order.
/// - **Units**: logits in nats; `tau` dimensionless, > 0.
/// - **Bias, cost**: Bias of ST Gumbel-softmax, variance no larger; one evaluation of f, M softmaxes. Memory: K^2 numbers a
///   row for the backward and a few MB of noise in flight, whatever M is up to 2^20 / K; beyond that one row's K M numbers.
/// - **Errors**: [`crate::Error::Range`] if `tau` is not positive and finite or `samples` < 1.
/// - **Differs**: from the published code in working with ratios of probabilities: no `exp(logits)`, no `+ 1e-20` inside a
///   logarithm, so logits of 60 and more are right (the published gradient is wrong from about 40).
#[derive(Debug, Clone)]
pub struct GumbelRao {
    schedule: Tau,
    tau: f64,
    samples: i64,
}

impl GumbelRao {
    /// With this temperature and number of conditional samples.
    pub fn new(tau: Tau, samples: i64) -> Result<Self> {
        let schedule = tau.check("gumbel-rao", None)?;
        if samples < 1 {
            return Err(Error::range("gumbel-rao: samples", "at least 1", samples));
        }
        Ok(GumbelRao { schedule, tau: schedule.at(0), samples })
    }
}

impl DropIn for GumbelRao {
    fn at_step(&mut self, step: i64) {
        self.tau = self.schedule.at(step);
    }

    fn tau(&self) -> Option<f64> {
        Some(self.tau)
    }

    fn surrogate(&self, point: &Point, noise: &mut dyn Noise) -> Result<Surrogate> {
        let inv_tau = 1.0 / self.tau;
        let (kind, device) = (point.probs.kind(), point.probs.device());
        let (mean, second) = kernel::moments(&point.probs, &point.index, self.samples, inv_tau, |size| {
            noise.exponential(size, kind, device)
        })?;
        Surrogate::hard(move |g, _| kernel::backward(&mean, &second, g, inv_tau))
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("gumbel-rao", CLAIMS.knobs)?;
    let tau = knobs.tau.unwrap_or(Tau::Constant(1.0));
    Ok(Built::DropIn(Box::new(GumbelRao::new(tau, knobs.samples.unwrap_or(SAMPLES))?)))
}
