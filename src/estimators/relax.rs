//! RELAX: a learned control variate.
use super::learned::{Hidden, Net};
use super::rebar::{Relaxation, start};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Sizes, Takes};
use crate::dist::bernoulli::Code;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Boolean,
    exact_on: ExactOn::Everything,
    source: "Grathwohl et al. 2018, Eq. 7",
    noise: NoiseKind::Continuous,
    hard_forward: true,
    f_evals: "3",
    needs_grad_f: true,
    knobs: &["tau"],
    tau: "learned, from --tau",
};

/// Hidden units of r, as in the later comparisons' code.
const WIDTH: i64 = 137;

/// [REBAR](super::rebar::Rebar) with a network added to its control variate: `c(z) = eta (f(sigmoid(z / tau)) + r(x, z))`,
/// r of one hidden layer of 137 LeakyReLU(0.3), x the objective's context where [`Sizes::context`] says there is one.
///
/// - **Shapes, units, bias, cost**: as REBAR, and one evaluation of r for each relaxed one of f.
/// - **State**: parameters `eta`, `log_tau` and those of r.
/// - **Errors**: as REBAR; [`Error::Usage`] without [`Sizes::latents`].
/// - **Differs**: from the first published code, whose r has 2 or 4 ReLU layers of 200, sees the earlier layers too and is one
///   a layer of a cascade with weight decay. From the later comparisons' code (RODEO, DisARM), which starts tau at 0.1, learns
///   by the squares of the encoder parameters' gradients summed over the batch, and has its own Adam with beta1 0.999 for
///   what is learned: here tau starts at 0.5 unless given, and the objective is that of the logits, as for all estimators here.
pub struct Relax {
    inner: Relaxation,
}

impl Relax {
    /// Starting from this temperature, for `sizes.latents` bits.
    pub fn new(code: Code, tau: f64, sizes: &Sizes) -> Result<Self> {
        let latents = sizes
            .latents
            .ok_or_else(|| Error::Usage("relax learns a network of the latents: give their number in Sizes::latents".into()))?;
        let inputs = latents + sizes.context.unwrap_or(0);
        let net = Net::new(inputs, WIDTH, 1, Hidden::LeakyRelu, sizes.place())?;
        Ok(Relax { inner: Relaxation::new("relax", code, tau, Some(net), sizes)? })
    }
}

impl GradEstimator for Relax {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        self.inner.surrogate_loss(logits, f, noise)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.inner.parameters()
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("relax", CLAIMS.knobs)?;
    let built = Relax::new(knobs.code("relax")?, start("relax", knobs)?, &knobs.sizes)?;
    Ok(Built::Wide(Box::new(built), "relax"))
}
