//! REINFORCE with an input-dependent baseline.
use super::learned::{Hidden, Net, gradients};
use super::reinforce::MovingAverage;
use super::score::{self, Score, Weights};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Sizes, Takes, Variables};
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Everything,
    source: "Mnih & Gregor 2014",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: false,
    knobs: &["decay"],
    tau: "none",
};

/// Hidden units of the baseline.
const WIDTH: i64 = 100;

/// REINFORCE with a learned baseline: `grad = (f(b) - c - C(x)) (b - p)`, `c` a moving average of f over earlier batches,
/// `C` a network of one hidden layer of 100 tanh on the objective's context x, learned by `(f - c - C(x))^2`.
///
/// The context should be centred, `x - mean x`, and in the published runs the network learns ten times as fast as the model.
/// Without [`Sizes::context`] there is no network and the moving average is left.
///
/// - **Shapes**: logits `[B, L, K]`, or `[B, L]` for Boolean variables; context `[B, D]`.
/// - **Bias, cost**: None; one evaluation of f, no derivative.
/// - **State**: parameters of C, buffer `average`.
/// - **Errors**: [`Error::Shape`] where the objective has no context of the size announced; [`Error::Range`] for a decay
///   outside [0, 1).
/// - **Differs**: from the paper, which also divides the signal by `max(1, running standard deviation)`: that changes the
///   size of the gradient, and the later published code (TF-REBAR) does without. In a cascade all layers get one signal,
///   where the paper gives each layer the terms of f that it can influence.
pub struct Nvil {
    variables: Variables,
    average: MovingAverage,
    net: Option<Net>,
}

impl Nvil {
    /// With a baseline for contexts of `sizes.context` numbers.
    pub fn new(variables: Variables, decay: f64, sizes: &Sizes) -> Result<Self> {
        let net = |d| Net::new(d, WIDTH, 1, Hidden::Tanh, sizes.place());
        Ok(Nvil {
            variables,
            average: MovingAverage::new("nvil", decay)?,
            net: sizes.context.map(net).transpose()?,
        })
    }
}

impl Score for Nvil {
    fn samples(&self) -> i64 {
        1
    }

    fn weights(&self, values: &Tensor, context: Option<&Tensor>) -> Result<Weights> {
        let centred = values - self.average.mean(values)?;
        let mut weights = Weights::from(centred);
        if let Some(net) = &self.net {
            let x = context.ok_or_else(|| Error::shape("nvil", "an objective with a context [B, D]", "none"))?;
            tch::with_grad(|| -> Result<()> {
                let error = &weights.of_draws - net.forward(&x.detach())?.f_squeeze_dim(-1)?;
                weights.learned = gradients(&error.f_square()?.f_mean(error.kind())?, net.parameters())?;
                weights.of_draws = error.detach();
                Ok(())
            })?;
        }
        self.average.include(values)?;
        Ok(weights)
    }
}

impl GradEstimator for Nvil {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        score::surrogate_loss("nvil", self, self.variables, logits, f, noise)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.net.as_ref().map(Net::parameters).unwrap_or_default()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.average.buffers()
    }

    fn score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

/// From the registry; the decay defaults to 0.9 (ours).
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("nvil", CLAIMS.knobs)?;
    let nvil = Nvil::new(Variables::of(knobs.code), knobs.decay.unwrap_or(0.9), &knobs.sizes)?;
    Ok(Built::Wide(Box::new(nvil), "nvil"))
}
