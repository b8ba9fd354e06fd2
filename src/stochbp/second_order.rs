//! Theorem 1 to second order for dependent entries: Eq. 14 in full, and Eq. 24 for any distribution whose mean and covariance
//! are known.
use super::objective::Objective;
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// A number whose gradient with respect to whatever made `mean` `[d]` and `covariance` `[d, d]` is the estimate
/// `mean over points of (d mean / d theta)^T grad f + Tr[(d covariance / d theta) hessian f] / 2`; its value is the mean of f.
///
/// `log phi = s^T mean + s^T covariance s / 2 + ..`: for the Gaussian this is all there is (Eq. 14), for other distributions it
/// is exact where f is quadratic on their support (Eq. 24, whose `a_2` is half the derivative of the covariance). `points`
/// `[S, d]` are draws of the distribution.
///
/// # Errors
/// [`Error::Shape`] where the covariance is not `[d, d]`.
///
/// # Example
/// ```
/// use tch::{Kind, Tensor};
/// use thruway::dist::{Continuous, dirichlet::{Dirichlet, moments}};
/// use thruway::noise::HostNoise;
/// use thruway::stochbp::{Objective, second_order};
/// // f(z) = z_1: the gradient of alpha_1 / sum(alpha) is (5/36, -1/36, -1/36) for alpha = (1, 2, 3)
/// let alpha = Tensor::from_slice(&[1.0f64, 2.0, 3.0]).set_requires_grad(true);
/// let z = Dirichlet::new(&alpha)?.sample(10, &mut HostNoise::new(0))?;
/// let (mean, covariance) = moments(&alpha)?;
/// second_order(&mean, &covariance, &Objective::Smooth(&|z| Ok(z.f_select(-1, 0)?)), &z)?.backward();
/// let error = alpha.grad() * 36.0 - Tensor::from_slice(&[5.0f64, -1.0, -1.0]);
/// assert!(error.abs().max().double_value(&[]) < 1e-12);
/// # Ok::<(), thruway::Error>(())
/// ```
pub fn second_order(mean: &Tensor, covariance: &Tensor, f: &Objective, points: &Tensor) -> Result<Tensor> {
    let d = mean.numel() as i64;
    if covariance.size() != [d, d] {
        return Err(Error::shape("second_order", format!("a covariance [{d}, {d}]"), covariance.size()));
    }
    let (value, gradient) = f.gradient(points)?;
    let slope = gradient.f_mean_dim(0i64, false, gradient.kind())?;
    let hessian = f.hessian(points)?;
    let curvature = hessian.f_mean_dim(0i64, false, hessian.kind())?;
    let path = (mean * slope).f_sum(Kind::Double)? + (covariance * curvature).f_sum(Kind::Double)? * 0.5;
    Ok(value.f_mean(Kind::Double)? + (&path - path.detach()))
}
