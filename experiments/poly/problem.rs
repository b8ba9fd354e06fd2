//! The objective, its expectation in closed form, and where theory says that the updates come to rest.
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use thruway::error::{Error, Result};
use thruway::estimators::{Estimator, ExactOn};

/// What the variables are drawn towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// `c_l = 0.45` for every variable (Section 6.1; setting A of F.6)
    A,
    /// `c_l = (l - 0.5) / L`, l from 1 (setting B of F.6)
    B,
}

/// Minimise `E sum_l |X_l - c_l|^p / L` over the logits `[L, 2]` of independent X_l in {0, 1}; class 0 stands for
/// `X_l = 1`, as in the published code.
#[derive(Debug)]
pub struct Problem {
    power: f64,
    /// c, `[L]`, f64.
    target: Tensor,
    /// `|1 - c|^p`, `[L]`, f64.
    cost_of_one: Tensor,
    /// `|0 - c|^p`, `[L]`, f64.
    cost_of_zero: Tensor,
}

impl Problem {
    /// Of this power and number of variables L.
    ///
    /// # Errors
    /// [`Error::Range`] unless the power is finite and at least 1 and there is a variable.
    pub fn new(power: f64, target: Target, latents: i64, device: Device) -> Result<Self> {
        if !(power.is_finite() && power >= 1.0) {
            return Err(Error::range("--power", "finite and at least 1", power));
        }
        if latents < 1 {
            return Err(Error::range("--latent-dim", "at least 1", latents));
        }
        let options = (Kind::Double, device);
        let target = match target {
            Target::A => Tensor::f_full([latents], 0.45, options)?,
            Target::B => (Tensor::f_arange(latents, options)? + 0.5) / latents as f64,
        };
        let cost_of_one = target.f_rsub_scalar(1.0)?.f_pow_tensor_scalar(power)?;
        let cost_of_zero = target.f_pow_tensor_scalar(power)?;
        Ok(Problem { power, target, cost_of_one, cost_of_zero })
    }

    /// The objective of each row: samples or relaxed samples `[.., L, 2]` -> `[..]`, differentiable, in the reference's
    /// order of operations.
    pub fn losses(&self, sample: &Tensor) -> Result<Tensor> {
        self.losses_of(&sample.f_select(-1, 0)?)
    }

    /// The same of the variables themselves `[.., L]`.
    pub fn losses_of(&self, z: &Tensor) -> Result<Tensor> {
        let distance = (z - self.target.f_to_kind(z.kind())?).f_abs()?;
        let sum = distance.f_pow_tensor_scalar(self.power)?.f_sum_dim_intlist(-1, false, z.kind())?;
        Ok(sum.f_div_scalar(self.target.size()[0])?)
    }

    /// `P(X_l = 1)`: logits `[L, 2]` -> `[L]`, f64, differentiable.
    pub fn probability_of_one(logits: &Tensor) -> Result<Tensor> {
        Ok(logits.f_to_kind(Kind::Double)?.f_softmax(-1, Kind::Double)?.f_select(-1, 0)?)
    }

    /// The exact objective where each `P(X_l = 1)` is that of `[L]`: a scalar, f64, differentiable. As the variables are
    /// independent and the objective is a sum over them, two values a variable say what otherwise 2^L states would.
    pub fn expected_loss(&self, one: &Tensor) -> Result<Tensor> {
        let each = one * &self.cost_of_one + one.f_rsub_scalar(1.0)? * &self.cost_of_zero;
        Ok(each.f_mean(Kind::Double)?)
    }

    /// The smallest value of the objective: every variable at its nearer end.
    pub fn optimum(&self) -> Result<f64> {
        Ok(self.cost_of_one.f_minimum(&self.cost_of_zero)?.f_mean(Kind::Double)?.f_double_value(&[])?)
    }

    /// `P(X_l = 1)` `[L]`, f64, at which the mean straight-through gradient vanishes:
    /// `pi / (1 - pi) = (c / (1 - c))^(p - 1)`. Its mean is `J(pi_tau) g / tau` with g averaged over the draw, so for every tau
    /// it is zero where `pi f'(1) + (1 - pi) f'(0)` is.
    pub fn straight_through_rest(&self) -> Result<Tensor> {
        Ok(self.straight_through_logit()?.f_sigmoid()?)
    }

    /// `(p - 1) log(c / (1 - c))`.
    fn straight_through_logit(&self) -> Result<Tensor> {
        Ok((self.target.f_log()? - self.target.f_rsub_scalar(1.0)?.f_log()?) * (self.power - 1.0))
    }

    /// The exact objective at which the mean update of an estimator comes to rest when it starts from logits near 0, where a
    /// closed form is known:
    /// - `st`: [`straight_through_rest`](Self::straight_through_rest);
    /// - `gst`: the same, as long as no logit has to leave `(-gap, gap)`: there both draws have the same softmax;
    /// - `reinmax`, `reinmax-baseline` at tau 1 and p > 1: the optimum. Their mean is the trapezoidal rule,
    ///   `(f'(0) + f'(1)) / 2` in place of `f(1) - f(0)`, which has the right sign for every c (at p = 1 it is zero);
    /// - those exact for quadratic f, at p = 2, and FouST at p = 2, whose noise averages out of a linear derivative: the optimum;
    /// - `exact` and the unbiased ones: the optimum.
    pub fn fixed_point(&self, estimator: Estimator, tau: Option<f64>, gap: Option<f64>) -> Result<Option<f64>> {
        let rest = match estimator {
            Estimator::St => true,
            Estimator::Gst => {
                let farthest = self.straight_through_logit()?.f_abs()?.f_max()?.f_double_value(&[])?;
                gap.is_some_and(|gap| farthest < gap)
            }
            _ => false,
        };
        if rest {
            let loss = self.expected_loss(&self.straight_through_rest()?)?;
            return Ok(Some(loss.f_double_value(&[])?));
        }
        let finds_optimum = match estimator {
            Estimator::Reinmax | Estimator::ReinmaxBaseline => tau.unwrap_or(1.0) == 1.0 && self.power > 1.0,
            Estimator::Foust => self.power == 2.0,
            _ => match estimator.claims().exact_on {
                ExactOn::Everything => true,
                ExactOn::Degree(n) => n >= 2 && self.power == 2.0,
                _ => false,
            },
        };
        finds_optimum.then(|| self.optimum()).transpose()
    }
}
