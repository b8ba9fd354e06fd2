//! The beta distribution: Theorem 1 itself, which the paper calls not trivial, by way of the cumulants.
//!
//! `log phi = log 1F1(alpha; alpha + beta; s)` has the n-th cumulant over n! as its coefficient of `s^n`. Cumulants follow
//! from the moments `E z^n = prod_{r < n} (alpha + r) / (alpha + beta + r)` by a recursion, and autograd differentiates it.
//! The recursion cancels, as the n-th cumulant is some `(alpha + beta)^(1 - n)` of the moments it is a difference of: of float64's
//! 16 digits two are left at n = 6 where alpha + beta is 1,000 and none at 8; where it is a million, none at 4. The terms are then
//! as small themselves. The series converges up to the nearest zero of 1F1, which is never 0. The paper's own way, Eq. 20, is
//! [`ThroughGammas`](super::ThroughGammas); it converges for no f.
use super::theorem1::LogCharacteristic;
use crate::dist::beta::Beta;
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// Terms of the power series of 1F1 at most; for `|s| <= LARGEST` the last is far below rounding.
const TERMS: i64 = 300;
const LARGEST: f64 = 50.0;

impl Beta {
    /// The derivatives by alpha and beta of `what`, which acts entry by entry in float64.
    fn by_parameters(&self, what: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Vec<Tensor>> {
        tch::with_grad(|| {
            let leaf = |t: &Tensor| t.f_to_kind(Kind::Double)?.detach().f_set_requires_grad(true);
            let (alpha, beta) = (leaf(&self.alpha)?, leaf(&self.beta)?);
            let value = what(&alpha, &beta)?.f_sum(Kind::Double)?;
            let slopes = Tensor::f_run_backward(&[value], &[&alpha, &beta], false, false)?;
            Ok(slopes.iter().map(|t| t.f_to_kind(self.alpha.kind())).collect::<std::result::Result<_, _>>()?)
        })
    }
}

/// The n-th cumulant over n!: `c_n = m_n - sum_{0 < j < n} (j / n) c_j m_(n-j)`, with `m_n = E z^n / n!`.
fn cumulant(alpha: &Tensor, beta: &Tensor, n: i64) -> Result<Tensor> {
    let total = alpha + beta;
    let mut moments = vec![alpha.f_ones_like()?];
    let mut cumulants: Vec<Tensor> = vec![];
    for k in 1..=n {
        let r = (k - 1) as f64;
        let moment = moments.last().expect("the first is given") * (alpha + r) / (&total + r) / k as f64;
        moments.push(moment.shallow_clone());
        let known = (1..k).map(|j| &cumulants[j as usize - 1] * &moments[(k - j) as usize] * (j as f64 / k as f64));
        cumulants.push(known.fold(moment, |sum, term| sum - term));
    }
    Ok(cumulants.remove(n as usize - 1))
}

impl LogCharacteristic for Beta {
    fn coefficients(&self, n: i64) -> Result<Vec<Tensor>> {
        self.by_parameters(|alpha, beta| cumulant(alpha, beta, n))
    }

    fn radius(&self) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The derivative of `log sum_n s^n E z^n / n!`, which converges for every s; given for `|s| <= 50`. Where s is negative,
    /// by Kummer's `1F1(a; c; s) = e^s 1F1(c - a; c; -s)`, so that no terms cancel.
    fn sum_at(&self, s: &Tensor) -> Result<Vec<Tensor>> {
        let largest = s.f_abs()?.f_max()?.f_double_value(&[])?;
        if largest.is_nan() || largest > LARGEST {
            return Err(Error::range("beta: |s| of exp(s z)", "at most 50 (use pathwise beyond)", largest));
        }
        // Derivatives for each point: parameters spread over them.
        let wide = |t: &Tensor| t.f_expand_as(s)?.f_reshape([-1]);
        let spread = Beta::new(&wide(&self.alpha)?, &wide(&self.beta)?)?;
        let flat = s.f_to_kind(Kind::Double)?.f_reshape([-1])?;
        let negative = flat.f_lt(0.0)?;
        let x = flat.f_abs()?;
        let slopes = spread.by_parameters(|alpha, beta| {
            let (total, first) = (alpha + beta, beta.f_where_self(&negative, alpha)?);
            let mut term = x.f_ones_like()?;
            let mut sum = term.shallow_clone();
            for n in 0..TERMS {
                let n = n as f64;
                term = term * (&first + n) / (&total + n) * &x / (n + 1.0);
                sum = &sum + &term;
            }
            Ok(sum.f_log()?)
        })?;
        Ok(slopes.into_iter().map(|t| t.f_reshape(s.size())).collect::<std::result::Result<_, _>>()?)
    }
}
