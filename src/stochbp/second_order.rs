//! Theorem 1 to second order for dependent entries: Eq. 14 in full, and Eq. 24 for any distribution whose mean and covariance
//! are known.
use super::objective::Objective;
use super::theorem1::{Caution, agree, alike, kinks, straight};
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// The rule cut at second order.
///
/// # Errors
/// With [`Caution::Refuse`], [`Error::Range`] where f shows a kink among the points (as [`StochasticBackprop`](super::StochasticBackprop)
/// looks for it, or by the gradient, where a row of the Hessian is 0), and for a law other than the Gaussian where f is not
/// quadratic over them: its Hessian varies, or the gradients at two points belong to different quadratics. What takes two points
/// to compare is refused at one. Not seen: for the Gaussian a kink in a curved direction of an [`Objective::Smooth`].
///
/// # Example
/// ```
/// use tch::{Kind, Tensor};
/// use thruway::dist::{Continuous, dirichlet::{Dirichlet, moments}};
/// use thruway::noise::HostNoise;
/// use thruway::stochbp::{Caution, Objective, SecondOrder};
/// // f(z) = z_1: the gradient of alpha_1 / sum(alpha) is (5/36, -1/36, -1/36) for alpha = (1, 2, 3)
/// let alpha = Tensor::from_slice(&[1.0f64, 2.0, 3.0]).set_requires_grad(true);
/// let z = Dirichlet::new(&alpha)?.sample(10, &mut HostNoise::new(0))?;
/// let (mean, covariance) = moments(&alpha)?;
/// let rule = SecondOrder { gaussian: false, caution: Caution::Refuse };
/// let (loss, warning) = rule.surrogate(&mean, &covariance, &Objective::Smooth(&|z| Ok(z.f_select(-1, 0)?)), &z)?;
/// assert!(warning.is_none());
/// loss.backward();
/// let error = alpha.grad() * 36.0 - Tensor::from_slice(&[5.0f64, -1.0, -1.0]);
/// assert!(error.abs().max().double_value(&[]) < 1e-12);
/// # Ok::<(), thruway::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SecondOrder {
    /// Whether the law is a Gaussian, for which the rule is exact whatever a smooth f is.
    pub gaussian: bool,
    /// What to do where it cannot be trusted.
    pub caution: Caution,
}

impl SecondOrder {
    /// A number whose gradient with respect to whatever made `mean` `[d]` and `covariance` `[d, d]` is the estimate
    /// `mean over points of (d mean / d theta)^T grad f + Tr[(d covariance / d theta) hessian f] / 2`; its value is the mean of
    /// f. With it the warning, if there is one.
    ///
    /// `log phi = s^T mean + s^T covariance s / 2 + ..`: for the Gaussian this is all there is (Eq. 14), for other distributions
    /// it is exact where f is quadratic on their support (Eq. 24, whose `a_2` is half the derivative of the covariance). `points`
    /// `[S, d]` are draws of the distribution.
    ///
    /// # Errors
    /// [`Error::Shape`] where the covariance is not `[d, d]`; those of [`SecondOrder`].
    pub fn surrogate(
        &self,
        mean: &Tensor,
        covariance: &Tensor,
        f: &Objective,
        points: &Tensor,
    ) -> Result<(Tensor, Option<String>)> {
        let d = mean.numel() as i64;
        if covariance.size() != [d, d] {
            return Err(Error::shape("second_order", format!("a covariance [{d}, {d}]"), covariance.size()));
        }
        let (value, gradient) = f.gradient(points)?;
        let hessian = f.hessian(points)?;
        let doubt = self.doubt(f, points, &gradient, &hessian)?;
        let warning = match (doubt, self.caution) {
            (Some(doubt), Caution::Refuse) => return Err(doubt),
            (doubt, Caution::Warn) => doubt.map(|d| d.to_string()),
            (None, _) => None,
        };
        let slope = gradient.f_mean_dim(0i64, false, gradient.kind())?;
        let curvature = hessian.f_mean_dim(0i64, false, hessian.kind())?;
        let path = (mean * slope).f_sum(Kind::Double)? + (covariance * curvature).f_sum(Kind::Double)? * 0.5;
        Ok((value.f_mean(Kind::Double)? + (&path - path.detach()), warning))
    }

    fn doubt(&self, f: &Objective, z: &Tensor, gradient: &Tensor, hessian: &Tensor) -> Result<Option<Error>> {
        let kink = match f {
            Objective::Composite { .. } => kinks(f, z, &[])?,
            // a direction in which the gradient does not move has one slope
            _ => straight(
                "the slope in a direction without second derivatives",
                gradient,
                &hessian.f_abs()?.f_amax(-1, false)?,
            )?,
        };
        if kink.is_some() || self.gaussian {
            return Ok(kink);
        }
        let [z, gradient, hessian] = [z, gradient, hessian].map(|t| t.f_to_kind(Kind::Double));
        let (z, gradient, hessian) = (z?, gradient?, hessian?);
        let spread = hessian.f_amax(0i64, false)? - hessian.f_amin(0i64, false)?;
        let varies = alike("the Hessian of a quadratic f", z.size()[0], spread, hessian.f_abs()?.f_max()?)?;
        if varies.is_some() {
            return Ok(varies);
        }
        // the gradient at the mean point, as each point's quadratic has it
        let away = (z.f_mean_dim(0i64, true, Kind::Double)? - &z).f_unsqueeze(-1)?;
        let there = &gradient + hessian.f_matmul(&away)?.f_squeeze_dim(-1)?;
        let size = gradient.f_abs()? + hessian.f_abs()?.f_matmul(&away.f_abs()?)?.f_squeeze_dim(-1)?;
        agree("the gradient at the mean point, expanded as that of a quadratic f", &there, &size)
    }
}
