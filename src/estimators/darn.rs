//! The estimator of deep autoregressive networks.
use super::boolean::{BooleanDropIn, Placed, bits_or_draw};
use super::{Built, Claims, ExactOn, Knobs, NoiseKind, Takes};
use crate::dist::bernoulli::Code;
use crate::error::Result;
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Boolean,
    exact_on: ExactOn::Degree(2),
    source: "Gregor et al. 2014; Pervez et al. 2020, Eq. 12",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &[],
    tau: "none",
};

/// Straight-through with each derivative weighted by `1 / (2 p(b))`:
/// `grad = p (1 - p) / (2 p(b)) df/db = 1/2 (1 - p(b)) df/db`, `p(b)` the probability of the bit drawn.
///
/// REINFORCE with the first-order Taylor baseline around the midpoint whose mean is left out; the importance step of FouST;
/// and ReinMax at tau = 1 on two classes.
///
/// - **Shapes**: logits `[.., L]`.
/// - **Bias, cost**: Exact where f is quadratic in each bit; one evaluation of f. The factor is at most 1/2, computed as
///   `(1 - p)/2` or `p/2`: dividing by p(b), as it is often written, fails where p(b) underflows.
pub struct Darn {
    code: Code,
}

impl Darn {
    /// With values in this code.
    pub fn new(code: Code) -> Self {
        Darn { code }
    }
}

/// `1/2 (1 - p(b))`: half the probability of the other value.
pub(super) fn half_of_the_other(p: &Tensor, bits: &Tensor) -> Result<Tensor> {
    // b ? 1 - p : p, exact for both
    Ok((p - bits).f_abs()? * 0.5)
}

impl BooleanDropIn for Darn {
    fn code(&self) -> Code {
        self.code
    }

    fn place(&self, logits: &Tensor, bits: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Placed> {
        let p = logits.f_sigmoid()?;
        let bits = bits_or_draw(&p, bits, noise)?;
        let factor = half_of_the_other(&p, &bits)?;
        Ok(Placed { bits, value: None, factor })
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("darn", CLAIMS.knobs)?;
    Ok(Built::Boolean(Box::new(Darn::new(knobs.code("darn")?))))
}
