//! Generalised stochastic backpropagation (Echraibi, Flocon-Cholet, Gosselin & Vaton 2020, hal-02968975) and the estimators it
//! is compared with.
//!
//! The gradient of `E f(z)` by a parameter of the law of z becomes a sum of expectations of derivatives of f by z, with
//! coefficients read off the characteristic function ([Theorem 1](LogCharacteristic)).
//!
//! | file | rule | coefficient of `E d^n f / dz^n` |
//! |---|---|---|
//! | `gaussian` | Eq. 14 | mean: 1 at n = 1; variance: 1/2 at n = 2 |
//! | `dirac` | Eq. 15 | 1 at n = 1: ordinary backpropagation |
//! | `laplace` | Eq. 18 | mean: 1 at n = 1; scale b: `2 b^(n-1)` at even n |
//! | `gamma` | Eq. 19, with exponential, Erlang, chi-squared | shape k: `mu^n / n`; scale mu: `k mu^(n-1)` |
//! | `beta` | Theorem 1 by cumulants (not in the paper) | derivative of the n-th cumulant, over n! |
//! | `normalised` | Eqs. 20 and 21, beta and Dirichlet through gammas | `1 / n`, derivatives by the gamma variables |
//! | `second_order` | Eq. 14 with a full covariance; Eq. 24 for dependent entries | mean, half the covariance |
//! | `score`, `pathwise`, `weak`, `measure_valued` | baselines | |
//!
//! Eqs. 16 and 17 (Theorem 2, discrete variables) are the local expectation gradient, an estimator of discrete variables and
//! so not in this room; `tests/stochbp_cases/theorem2.rs` checks the formulas.
//!
//! # Exactness and its limits
//! - f a polynomial: the sum ends, the rule is exact ([`Sum::Polynomial`]).
//! - f the exponential of an affine function: the sum has a closed form ([`Sum::Exponential`]), exact wherever the
//!   expectation exists, also where the series diverges.
//! - Other f: truncated ([`Sum::Truncated`]). The series converges where the Fourier transform of f vanishes beyond the
//!   [radius](LogCharacteristic::radius) (`1 / b` for Laplace, `1 / mu` for gamma). A function with a pole, as `log sigmoid`,
//!   has no such bound: the series is asymptotic, terms shrink up to some order and grow from there. The rule compares its
//!   last two terms in each variable (at an order with fewer, the first two there are) and [refuses or warns](Caution) when they grow. It also
//!   does at an order that a parameter's first term lies above: the scale of a Laplace law or the variance of a Gaussian at 1.
//!
//! # Printed formulas, checked by derivation and by tests
//! Each item ends with its test, in `tests/stochbp.rs` or `tests/stochbp_cases/` beside it, unless another file is named.
//! 1. Theorem 1: holomorphic near 0 is not enough. With a finite radius R the exchange of sum and integral needs
//!    `f^(w) = 0` beyond R; `E cos(c z)` under a Laplace law exists for every c, its series only for `c b < 1`. Nor are the
//!    polynomials and exponentials of Corollary 3.1 square-integrable, as Section 2 asks; they have the identity directly.
//!    `stochbp_is_refused_where_the_terms_grow`.
//! 2. Eq. 18's `log phi` is `i mu w - log(1 + b^2 w^2)`: the printed one lacks mu. The rule itself has the right factor:
//!    `(1 / b^2) (d b^2 / d theta) b^(2n)`; with b as the parameter that is `2 b^(2n - 1)`.
//!    `stochbp_printed_characteristic_functions`, `stochbp_is_exact_on_polynomials`.
//! 3. Eq. 19 is right, mu being the scale (not the mean, as mu is elsewhere in the paper).
//!    `stochbp_printed_characteristic_functions`, `stochbp_is_exact_on_polynomials`.
//! 4. Eqs. 20 and 21: from `n = alpha + beta` (the sum of the concentrations) on the expectations are infinite, already for
//!    linear f. See [`ThroughGammas`]. `stochbp_beta_and_dirichlet_through_gammas`.
//! 5. Eqs. 22 to 24: `a_0 = 0` always, as `log phi(0) = 0`. In Eq. 24 `a_2` is a matrix whose off-diagonal entries are half
//!    of the coefficients of Theorem 1, which counts each pair once.
//!    `stochbp_coefficients_sum_to_the_closed_form_within_the_radius` (`a_0`),
//!    `stochbp_dirichlet_is_exact_on_quadratics_to_second_order`.
//! 6. Lemma 3 holds almost everywhere, and that is too little: the second derivative of a kinked g has point masses that an
//!    expectation sees and autograd does not. Eq. 23 gives 0 for `d E|z| / d b` under Laplace(0, b), where the truth is 1. The
//!    rules are exact where no kink lies inside the support.
//!    `stochbp_kinks_are_refused_and_bias_the_rule`, `stochbp_relu_network_by_lemma_3`.
//! 7. Toy problem 2: f is `exp(-epsilon z)`, so Eq. 25 has `log phi` at `w = i epsilon`; the printed `epsilon / i` is that of
//!    `exp(+epsilon z)`. And for d > 1 each parameter goes with its own term of f, not with the whole sum.
//!    `stochbp_toy_problem_2_sign_and_beyond_the_radius`, `stochbp_toy_problem_2_in_two_dimensions`.
//! 8. Eq. 28, per sample, has the whole KL divergence; summed over n data points it is counted n times.
//!    `stochbp_kl_of_equation_28_counted_once_or_for_each_point` (`tests/stochbp_run.rs`).
//! 9. Eq. 12 lacks the sum over the cliques c, which Eq. 13 has. `stochbp_equations_11_and_12_characteristic_function_of_cliques`.
//! 10. Eqs. 9, 11, 13, 14 to 17, 25, 26 and 29 are right as printed. `stochbp_equation_13_integral_and_expectation`,
//!     `stochbp_gaussian_with_full_covariance` (14), `stochbp_dirac_is_backpropagation` (15),
//!     `stochbp_discrete_formulas_16_and_17` (9, 16, 17), `stochbp_exponentials_in_closed_form_and_truncated` (25, 26),
//!     `stochbp_laplace_kl_is_equation_29`.
//!
//! Legend: `S` samples, `d` variables.
use crate::dist::Continuous;
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

mod beta;
mod dirac;
mod gamma;
mod gaussian;
mod laplace;
mod measure_valued;
mod normalised;
mod objective;
mod pathwise;
mod score;
mod second_order;
mod theorem1;
mod weak;

pub use measure_valued::{MeasureValued, Triplet, measure_valued};
pub use normalised::ThroughGammas;
pub use objective::{
    Derivatives, Formula, Function, Inner, LOG_SIGMOID_ORDERS, Objective, Outer, log_sigmoid_derivatives, with_jacobian,
};
pub use pathwise::pathwise;
pub use score::score_function;
pub use second_order::SecondOrder;
pub use theorem1::{Caution, LogCharacteristic, StochasticBackprop, Sum};
pub use weak::{WeakReparameterisation, weak};

/// Estimates of one gradient, one a sample; no graph.
#[derive(Debug)]
pub struct Estimate {
    /// f at the samples, `[S]`.
    pub value: Tensor,
    /// By parameter, `[S, d]`.
    pub gradients: Vec<(String, Tensor)>,
    /// Why it is not to be trusted, if so.
    pub warning: Option<String>,
    /// Of a truncated series: its last term over the one before (root mean squares over the samples; the largest of all
    /// parameters and variables). From 1 on the series diverges at its order.
    pub growth: Option<f64>,
}

impl Estimate {
    fn new(p: &dyn Continuous, value: Tensor, gradients: Vec<Tensor>) -> Self {
        let names = p.parameters().into_iter().map(|(name, _)| name.to_string());
        Estimate { value, gradients: names.zip(gradients).collect(), warning: None, growth: None }
    }

    /// The estimates by the parameter of this name, `[S, d]`.
    ///
    /// # Errors
    /// [`Error::Unknown`] if there is none.
    pub fn of(&self, parameter: &str) -> Result<&Tensor> {
        self.gradients.iter().find(|(name, _)| name == parameter).map(|(_, g)| g).ok_or_else(|| Error::Unknown {
            what: "parameter",
            got: parameter.into(),
            known: self.gradients.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// A number whose gradient with respect to `parameters` (tensors `[d]` with a graph, in the order of the gradients) is the
    /// mean estimate; its value is the mean of f.
    pub fn surrogate(&self, parameters: &[&Tensor]) -> Result<Tensor> {
        if parameters.len() != self.gradients.len() {
            return Err(Error::shape("surrogate", format!("{} parameters", self.gradients.len()), parameters.len()));
        }
        let mut loss = self.value.f_mean(self.value.kind())?.detach();
        for (parameter, (_, gradient)) in parameters.iter().zip(&self.gradients) {
            let path = (*parameter * gradient.f_mean_dim(0i64, false, gradient.kind())?).f_sum(gradient.kind())?;
            loss = &loss + (&path - path.detach());
        }
        Ok(loss)
    }

    /// Variance of the mean estimate, averaged over all entries of all parameters: a sample variance over S, so S > 1.
    pub fn variance(&self) -> Result<f64> {
        let samples = self.value.size()[0];
        if samples < 2 {
            return Err(Error::range("samples", "at least 2 for a variance", samples));
        }
        let all: Vec<&Tensor> = self.gradients.iter().map(|(_, g)| g).collect();
        let all = Tensor::f_cat(&all, -1)?.f_to_kind(Kind::Double)?;
        let each = all.f_var_dim(0i64, true, false)?;
        Ok(each.f_mean(Kind::Double)?.f_double_value(&[])? / samples as f64)
    }
}
