//! Optimisation over the probabilities theta of ±1 weights: projected gradient, mirror descent and its composite form (Section
//! 3 and Appendix C of Shekhovtsov & Yanush 2021, *Reintroducing Straight-Through Estimators as Principled Methods for
//! Stochastic Binary Networks*).
//!
//! | on theta, here | on the latent weights `eta = F^-1(theta)`, with the gradient g of theta | by |
//! |---|---|---|
//! | [`projected_step`] (Eq. 10) | `clip(eta - 2 eps g, -1, 1)`, uniform noise on ±1 (Eq. 11) | [`Sgd`](super::Sgd), then [`clip_latent`] |
//! | [`Divergence::step`] (Eqs. 12-14) | `eta - eps g` (Proposition 1) | [`Sgd`](super::Sgd) at rate eps |
//! | [`Divergence::composite_step`] (Eqs. 54-57) | `eta - eps / (1 + eps lambda) (lambda eta + g)` (Proposition 2) | [`Sgd`](super::Sgd) at rate `eps / (1 + eps lambda)`, weight decay lambda |
//!
//! So an optimizer on eta with the gradients that [`BinaryWeight`](crate::sbn) deposits needs nothing of this room but, for
//! noise on an interval, [`clip_latent`]; momentum and Adam take the same gradients. The steps on theta are for the one who has
//! probabilities and gradients in them, and to hold the identities against (`tests/principled_optim.rs`).
//!
//! Where the print needs a grain of salt:
//!
//! - Proposition 1 wants F strictly monotone on the whole line. With uniform or triangular noise eta leaves the support
//!   after finitely many steps; unclipped it is then dual averaging ("lazy" mirror descent), which returns later than Eq. 12
//!   would. [`clip_latent`] makes it Eq. 12 again.
//! - Eq. 58 is Eq. 57 with the rate `eps / (1 + eps lambda)` called eps, which is exact, not an approximation.
//! - `KL(Ber(theta) || Ber(1/2))` is the negative entropy plus log 2.
use crate::dist::binary::{BinaryNoise, Shape};
use crate::error::{Error, Result};
use tch::Tensor;

/// The Bregman divergence of a noise law: that of the potential `Phi(theta) = int_{1/2}^theta F^-1(p) dp`, summed over
/// coordinates by whoever needs the sum. Probabilities are tensors of any shape in `[0, 1]`, double for identities.
///
/// # Example
/// A step of the KL divergence moves the logit by `-eps g`:
/// ```
/// use tch::Tensor;
/// use thruway::optim::mirror::Divergence;
/// let theta = Tensor::from_slice(&[0.5f64]);
/// let next = Divergence::kl().step(&theta, &Tensor::from_slice(&[-2.0f64]), 0.5)?;
/// assert!((next.double_value(&[0]) - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-15);
/// # thruway::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Divergence(BinaryNoise);

impl Divergence {
    /// `KL(Ber(theta) || Ber(theta'))`, which belongs to standard logistic noise.
    pub fn kl() -> Self {
        Divergence(BinaryNoise::new(Shape::Logistic))
    }

    /// The divergence of this law.
    pub fn of(noise: BinaryNoise) -> Self {
        Divergence(noise)
    }

    /// `Phi(theta)`, elementwise, 0 at 1/2.
    ///
    /// # Errors
    /// [`Error::Torch`] for a kind that is not floating.
    pub fn potential(&self, theta: &Tensor) -> Result<Tensor> {
        let q = theta.f_neg()?.f_add_scalar(1.0)?;
        let standard = match self.0.shape() {
            Shape::Logistic => theta.f_xlogy(theta)? + q.f_xlogy(&q)? + std::f64::consts::LN_2,
            Shape::Uniform => (theta - 0.5).f_square()?,
            Shape::Triangular => {
                // on the smaller side t: F^-1 = sqrt(2 t) - 1
                let t = theta.f_minimum(&q)?;
                (&t * 2.0).f_pow_tensor_scalar(1.5)? / 3.0 - t + 1.0 / 6.0
            }
            // d/dp of the density at the p-quantile z is -z
            Shape::Normal => {
                let z = theta.f_special_ndtri()?;
                (2.0 * std::f64::consts::PI).sqrt().recip() * (1.0 - (z.f_square()? * -0.5).f_exp()?)
            }
        };
        Ok(standard * self.0.scale())
    }

    /// `Phi(theta) - Phi(from) - Phi'(from) (theta - from)`, elementwise (Eq. 46).
    ///
    /// # Errors
    /// [`Error::Torch`] for a kind that is not floating.
    pub fn between(&self, theta: &Tensor, from: &Tensor) -> Result<Tensor> {
        let slope = self.0.quantile(from)?;
        Ok(self.potential(theta)? - self.potential(from)? - slope * (theta - from))
    }

    /// `argmin <g, theta'> + D(theta', theta) / eps` over `[0, 1]`, elementwise (Eq. 12); g the gradient in theta.
    ///
    /// For the KL divergence the closed form `theta / (theta + (1 - theta) exp(eps g))`, which never sees a latent weight;
    /// otherwise `F(F^-1(theta) - eps g)` (Eq. 48), whose F also projects.
    ///
    /// # Errors
    /// [`Error::Range`] for a rate that is not positive.
    pub fn step(&self, theta: &Tensor, g: &Tensor, eps: f64) -> Result<Tensor> {
        self.composite_step(theta, g, eps, 0.0)
    }

    /// The same with `lambda D(theta', 1/2)` added (Eq. 54): for the KL divergence the prior of variational Bayes, minus
    /// `lambda` times the entropy. For the KL divergence the closed form
    /// `theta^r / (theta^r + (1 - theta)^r exp(r eps g))`, `r = 1 / (1 + eps lambda)` (Eq. 56d).
    ///
    /// # Errors
    /// [`Error::Range`] for a rate that is not positive or a negative lambda.
    pub fn composite_step(&self, theta: &Tensor, g: &Tensor, eps: f64, lambda: f64) -> Result<Tensor> {
        positive(eps)?;
        if !(lambda >= 0.0 && lambda.is_finite()) {
            return Err(Error::range("strength of the prior", "at least 0 and finite", lambda));
        }
        let r = 1.0 / (1.0 + eps * lambda);
        if self.0.shape() == Shape::Logistic {
            let q = theta.f_neg()?.f_add_scalar(1.0)?;
            let up = theta.f_pow_tensor_scalar(r)?;
            let down = q.f_pow_tensor_scalar(r)? * (g * (r * eps / self.0.scale())).f_exp()?;
            return Ok(&up / (&up + down));
        }
        self.0.cdf(&((self.0.quantile(theta)? - g * eps) * r))
    }
}

/// `clip(theta - eps g, 0, 1)` (Eq. 10).
///
/// # Errors
/// [`Error::Range`] for a rate that is not positive.
pub fn projected_step(theta: &Tensor, g: &Tensor, eps: f64) -> Result<Tensor> {
    positive(eps)?;
    Ok((theta - g * eps).f_clamp(0.0, 1.0)?)
}

/// Clips latent weights in place to the support of their noise, after an optimizer's step (Eq. 11; Hubara et al. 2016, Alg. 1).
/// Nothing happens under logistic and normal noise.
///
/// # Errors
/// [`Error::Torch`] where libtorch refuses.
pub fn clip_latent(eta: &Tensor, noise: &BinaryNoise) -> Result<()> {
    let most = noise.support();
    if most.is_finite() {
        let _guard = tch::no_grad_guard();
        let _ = eta.detach().f_clamp_(-most, most)?;
    }
    Ok(())
}

fn positive(eps: f64) -> Result<()> {
    if eps > 0.0 && eps.is_finite() { Ok(()) } else { Err(Error::range("step size", "positive and finite", eps)) }
}
