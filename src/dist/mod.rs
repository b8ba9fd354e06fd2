//! Distributions: how to draw, what a draw costs in nats.
//!
//! Continuous ones share the contract [`Continuous`]. They hold copies of their parameters that are free of a graph: a rule
//! gives the derivative with respect to a parameter as a tensor, and whoever made the parameter carries it further back
//! (`(parameter * derivative).sum()`).
//!
//! Legend: `S` samples, `d` independent variables (for a Dirichlet: entries of the one variable).
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::{Kind, Tensor};

pub mod bernoulli;
pub mod beta;
pub mod binary;
pub mod categorical;
pub mod dirac;
pub mod dirichlet;
pub mod gamma;
pub mod gaussian;
pub mod laplace;

/// A continuous distribution of `d` variables with named parameters, each `[d]`.
pub trait Continuous {
    /// As in "gamma".
    fn name(&self) -> &'static str;

    /// Name and value of each parameter, in the order of every list of derivatives.
    fn parameters(&self) -> Vec<(&'static str, &Tensor)>;

    /// `[S, d]`, without a graph.
    fn sample(&self, samples: i64, noise: &mut dyn Noise) -> Result<Tensor>;

    /// `log p(z)`: `[.., d] -> [..]`, in nats; differentiable in z.
    ///
    /// # Errors
    /// [`Error::Function`] where there is no density.
    fn log_prob(&self, z: &Tensor) -> Result<Tensor>;

    /// `d log p(z) / d parameter`, each `[.., d]`.
    ///
    /// # Errors
    /// [`Error::Function`] where there is no density.
    fn score(&self, z: &Tensor) -> Result<Vec<Tensor>>;

    /// The gradient `df/dz` at a draw carried to the parameters along the (implicitly) reparameterised draw: z, slope
    /// `[.., d]`, returns each `[.., d]`.
    fn pathwise(&self, z: &Tensor, slope: &Tensor) -> Result<Vec<Tensor>>;
}

/// A copy of a parameter without its graph, checked: a floating vector `[d]`, finite and, if so asked, positive.
pub(crate) fn parameter(name: &str, value: &Tensor, positive: bool) -> Result<Tensor> {
    let value = value.detach();
    if value.dim() != 1 || value.numel() == 0 || !value.is_floating_point() {
        let got = (value.size(), value.kind());
        return Err(Error::shape("a distribution's parameter", format!("{name}: a floating vector [d], d >= 1"), got));
    }
    let good = if positive { value.f_gt(0.0)?.f_logical_and(&value.f_isfinite()?)? } else { value.f_isfinite()? };
    if good.f_all()?.f_int64_value(&[])? == 0 {
        let rule = if positive { "positive and finite" } else { "finite" };
        let at = good.f_to_kind(Kind::Int64)?.f_argmin(0, false)?.f_int64_value(&[])?;
        return Err(Error::range(format!("{name}[{at}]"), rule, value.f_double_value(&[at])?));
    }
    Ok(value)
}

/// Refuses parameters of different lengths.
pub(crate) fn same_length(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    match a.size() == b.size() && a.kind() == b.kind() {
        true => Ok(()),
        false => {
            Err(Error::shape(op, format!("parameters alike, {:?} {:?}", a.size(), a.kind()), (b.size(), b.kind())))
        }
    }
}

/// Sum over the last axis.
pub(crate) fn over_last(t: &Tensor) -> Result<Tensor> {
    Ok(t.f_sum_dim_intlist(-1, false, t.kind())?)
}
