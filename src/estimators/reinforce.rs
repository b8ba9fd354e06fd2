//! REINFORCE, plain or with a moving average.
use super::score::{self, Score, Weights};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Variables, Takes};
use crate::error::{Error, Result};
use crate::noise::Noise;
use std::cell::RefCell;
use tch::{Device, Kind, Tensor};

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Everything,
    source: "Williams 1992",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: false,
    knobs: &["decay"],
    tau: "none",
};

/// The score-function estimator: `grad = (f(b) - c) (b - p)`, one draw (Williams 1992), `c = 0` or a moving average of f.
///
/// The average is that of **earlier** batches, `c <- decay c + (1 - decay) mean f` after use, and is free of the bias of
/// its start at 0 (divided by `1 - decay^t`, as Adam does). One published library includes the batch in hand, which is
/// biased, and starts at 0 without a correction.
///
/// - **Shapes**: logits `[B, L, K]`, or `[B, L]` for Boolean variables; f maps `[1, B, ..]` to `[1, B]`.
/// - **Bias, cost**: None; one evaluation of f, no derivative.
/// - **State**: with a decay the buffer `average`, saved with the run.
/// - **Errors**: [`crate::Error::Range`] for a decay outside [0, 1).
pub struct Reinforce {
    variables: Variables,
    average: Option<MovingAverage>,
}

impl Reinforce {
    /// With a moving average of this decay, or without a baseline.
    pub fn new(variables: Variables, decay: Option<f64>) -> Result<Self> {
        Ok(Reinforce { variables, average: decay.map(|d| MovingAverage::new("reinforce", d)).transpose()? })
    }
}

impl Score for Reinforce {
    fn samples(&self) -> i64 {
        1
    }

    fn weights(&self, values: &Tensor, _: Option<&Tensor>) -> Result<Weights> {
        let Some(average) = &self.average else { return Ok(values.shallow_clone().into()) };
        let weights = values - average.mean(values)?;
        average.include(values)?;
        Ok(weights.into())
    }
}

impl GradEstimator for Reinforce {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        score::surrogate_loss("reinforce", self, self.variables, logits, f, noise)
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.average.iter().flat_map(MovingAverage::buffers).collect()
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// Exponential moving average of batch means, corrected for its start; updated in place, on the device of the values.
pub struct MovingAverage {
    decay: f64,
    /// Sum of past means with their weights, and the sum of the weights, in double.
    sums: RefCell<Tensor>,
}

impl MovingAverage {
    /// Empty.
    pub fn new(estimator: &'static str, decay: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::range(format!("{estimator}: decay"), "in [0, 1)", decay));
        }
        Ok(MovingAverage { decay, sums: RefCell::new(Tensor::f_zeros([2], (Kind::Double, Device::Cpu))?) })
    }

    /// The average so far, a scalar of the kind and device of `like`; 0 at the start.
    pub fn mean(&self, like: &Tensor) -> Result<Tensor> {
        let sums = self.on(like.device())?;
        let mean = sums.f_get(0)? / sums.f_get(1)?.f_clamp_min(f64::MIN_POSITIVE)?;
        Ok(mean.f_to_kind(like.kind())?)
    }

    /// Takes a batch in.
    pub fn include(&self, values: &Tensor) -> Result<()> {
        let mean = values.f_mean(Kind::Double)?;
        let new = Tensor::f_stack(&[&mean, &mean.f_ones_like()?], 0)?;
        let _ = self.on(values.device())?.f_mul_scalar_(self.decay)?.f_add_(&(new * (1.0 - self.decay)))?;
        Ok(())
    }

    fn on(&self, device: Device) -> Result<Tensor> {
        let mut sums = self.sums.borrow_mut();
        if sums.device() != device {
            *sums = sums.f_to_device(device)?;
        }
        Ok(sums.shallow_clone())
    }

    /// For a checkpoint.
    pub fn buffers(&self) -> Vec<(String, Tensor)> {
        vec![("average".into(), self.sums.borrow().shallow_clone())]
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("reinforce", CLAIMS.knobs)?;
    Ok(Built::Wide(Box::new(Reinforce::new(Variables::of(knobs.code), knobs.decay)?), "reinforce"))
}
