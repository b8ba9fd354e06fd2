//! ReinMax with the uniform baseline `1/n sum_i f(I_i)`, in the form that the derivation gives.
use super::{Built, Claims, DropIn, ExactOn, Knobs, NoiseKind, Surrogate, Takes};
use crate::dist::categorical::Point;
use crate::error::Result;
use crate::kernels::rows;
use crate::noise::Noise;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Degree(2),
    source: "Liu et al. 2023, Section 4.1, Remark 4.1 to second order",
    noise: NoiseKind::Finite,
    hard_forward: true,
    f_evals: "1",
    needs_grad_f: true,
    knobs: &[],
    tau: "1",
};

/// ReinMax with the uniform baseline.
///
/// `grad = 1/2 [ (g_D - mean g) (D - pi) + J(pi) g / (n pi_D) ]`: Heun's rule for `sum_i (f(I_i) - 1/n sum_j f(I_j))
/// d pi_i` (Liu et al. 2023, Section 4.1). The mean runs over the n classes that are not masked. No temperature: a
/// tempered `pi_D` would be another estimator.
///
/// - **Shapes**: logits, draw `[.., K]`.
/// - **Bias, cost**: Exact for quadratic f like ReinMax; the factor `1 / pi_D` costs variance. One evaluation of f.
/// - **Errors**: as [`DropIn::draw`].
/// - **Differs**: from the published code of Fig. 6, which multiplies the second term by the draw and is biased on quadratics
///   (by 0.37 to 1.59 of the gradient on random ones), and divides by a tempered softmax.
#[derive(Debug, Clone, Copy)]
pub struct ReinmaxBaseline;

impl DropIn for ReinmaxBaseline {
    fn surrogate(&self, point: &Point, _: &mut dyn Noise) -> Result<Surrogate> {
        let kind = point.probs.kind();
        let p = point.probs.shallow_clone();
        let masked = point.logits.f_isneginf()?;
        let n = masked.f_logical_not()?.f_sum_dim_intlist(-1, true, kind)?;
        Surrogate::hard(move |g, hard| {
            let g = &g.f_masked_fill(&masked, 0.0)?; // not a product: it may be infinite there
            let mean = g.f_sum_dim_intlist(-1, true, kind)? / &n;
            let chosen = (g * hard).f_sum_dim_intlist(-1, true, kind)?;
            let p_drawn = (&p * hard).f_sum_dim_intlist(-1, true, kind)?;
            let through = rows::jacobian(&p, g, 1.0)? / (&n * p_drawn);
            Ok(((chosen - mean) * (hard - &p) + through).f_mul_scalar_(0.5)?)
        })
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("reinmax-baseline", CLAIMS.knobs)?;
    Ok(Built::DropIn(Box::new(ReinmaxBaseline)))
}
