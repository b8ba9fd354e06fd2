//! The function f under the expectation, and its higher derivatives by nested autograd.
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// A function of tensors.
pub type Function<'a> = dyn Fn(&Tensor) -> Result<Tensor> + 'a;
/// The inner function of Lemma 3, with its Jacobian.
pub type Inner<'a> = dyn Fn(&Tensor) -> Result<(Tensor, Tensor)> + 'a;

/// The outer function of Lemma 3, entry by entry: `[.., m] -> [.., m]`.
pub enum Outer<'a> {
    /// Differentiated by nested autograd, whose graph about doubles with each order where h is a product of things.
    Nested(&'a Function<'a>),
    /// h, and its derivatives of order 1 to n by formula, as those of [`log_sigmoid_derivatives`].
    Known(&'a Function<'a>, &'a Formula<'a>),
}

/// Derivatives of order 1 to n of a function that acts entry by entry.
pub type Formula<'a> = dyn Fn(&Tensor, i64) -> Result<Vec<Tensor>> + 'a;

impl Outer<'_> {
    fn value(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Outer::Nested(h) | Outer::Known(h, _) => h(x),
        }
    }

    pub(super) fn derivatives(&self, x: &Tensor, order: i64) -> Result<(Tensor, Vec<Tensor>)> {
        match self {
            Outer::Nested(h) => nested(h, x, order),
            Outer::Known(h, formula) => {
                let all = formula(x, order)?;
                match all.len() as i64 == order {
                    true => Ok((h(x)?, all)),
                    false => Err(Error::shape("stochbp objective", format!("{order} derivatives"), all.len())),
                }
            }
        }
    }
}

/// The highest order of [`log_sigmoid_derivatives`]. There cancellation leaves a relative error of some 1e-5.
pub const LOG_SIGMOID_ORDERS: i64 = 24;

/// Derivatives of order 1 to `order` of `log sigmoid(x)`, entry by entry: polynomials in `s = sigmoid(-x)`, as
/// `d log sigmoid(x) / dx = s` and `ds / dx = -s (1 - s)`.
///
/// Their coefficients grow as factorials with alternating signs, so they are summed in float64 whatever the kind of x, and at
/// `|x|`, where `s <= 1/2`; from order 2 on derivatives of even order are even and the others odd. Rounding is then about
/// `(pi / log 3)^n 1e-16` of the largest derivative of order n.
///
/// # Errors
/// [`Error::Range`] unless `order` is 1 to [`LOG_SIGMOID_ORDERS`].
///
/// ```
/// use tch::Tensor;
/// // at 0: 1/2, -1/4, 0, 1/8
/// let all = thruway::stochbp::log_sigmoid_derivatives(&Tensor::from_slice(&[0.0f64]), 4)?;
/// let at_0: Vec<f64> = all.iter().map(|t| t.double_value(&[0])).collect();
/// assert_eq!(at_0, [0.5, -0.25, 0.0, 0.125]);
/// # Ok::<(), thruway::Error>(())
/// ```
pub fn log_sigmoid_derivatives(x: &Tensor, order: i64) -> Result<Vec<Tensor>> {
    if !(1..=LOG_SIGMOID_ORDERS).contains(&order) {
        let rule = format!("1 to {LOG_SIGMOID_ORDERS}: beyond, rounding is as large as the derivative");
        return Err(Error::range("the order of a derivative of log sigmoid", rule, order));
    }
    let wide = x.detach().f_to_kind(Kind::Double)?;
    let s = wide.f_abs()?.f_neg()?.f_sigmoid()?;
    let sign = wide.f_sign()?;
    // coefficients of s, s^2, ..
    let mut p = vec![1.0];
    let mut all = vec![wide.f_neg()?.f_sigmoid()?.f_to_kind(x.kind())?];
    for n in 2..=order {
        // p' times (s^2 - s)
        let mut next = vec![0.0; p.len() + 1];
        for (i, c) in p.iter().enumerate() {
            let slope = c * (i + 1) as f64;
            next[i] -= slope;
            next[i + 1] += slope;
        }
        p = next;
        let highest = s.f_full_like(p[p.len() - 1])?;
        let sum = p.iter().rev().skip(1).try_fold(highest, |sum, c| (sum * &s).f_add_scalar(*c))? * &s;
        let odd = if n % 2 == 0 { sum } else { sum * &sign };
        all.push(odd.f_to_kind(x.kind())?);
    }
    Ok(all)
}

/// The function f, in one of three forms; `[.., d]` is any number of points. Functions must be made of differentiable ops
/// and treat every point apart.
pub enum Objective<'a> {
    /// Any smooth function, `[.., d] -> [..]`. Derivatives of order n in each of the d directions cost d evaluations of f.
    Smooth(&'a Function<'a>),
    /// `f(z) = sum_j f_j(z_j)` given as its terms, `[.., d] -> [.., d]`.
    Separable(&'a Function<'a>),
    /// Lemma 3: `f(z) = sum_m h(g_m(z))` with g piecewise affine, as a network with ReLU is. Derivatives of order n cost n
    /// derivatives of h, whatever d is.
    Composite {
        /// g with its Jacobian, `[.., d] -> ([.., m], [.., m, d])`; the Jacobian may be one for all points, `[m, d]`.
        inner: &'a Inner<'a>,
        /// h, entry by entry, `[.., m] -> [.., m]`.
        outer: Outer<'a>,
    },
}

fn wrong(what: &str, expected: &[i64], got: &Tensor) -> Error {
    Error::shape("stochbp objective", format!("{what} {expected:?}"), got.size())
}

fn checked(what: &str, t: Tensor, expected: &[i64]) -> Result<Tensor> {
    if t.size() == expected { Ok(t) } else { Err(wrong(what, expected, &t)) }
}

/// The same numbers as a leaf to differentiate by.
fn leaf(t: &Tensor) -> Result<Tensor> {
    Ok(t.detach().f_set_requires_grad(true)?)
}

/// `d sum(y) / d x`; zero where y does not depend on x.
fn slope(y: &Tensor, x: &Tensor, keep: bool) -> Result<Tensor> {
    if !y.requires_grad() {
        return Ok(x.f_zeros_like()?.detach());
    }
    let g = Tensor::f_run_backward(&[y.f_sum(y.kind())?], &[x], keep, keep)?.remove(0);
    if g.defined() { Ok(g) } else { Ok(x.f_zeros_like()?.detach()) }
}

/// Value and derivatives 1 to `order` of `h`, which acts entry by entry: the same shape each, without a graph.
fn nested(h: &Function, x: &Tensor, order: i64) -> Result<(Tensor, Vec<Tensor>)> {
    tch::with_grad(|| {
        let x = leaf(x)?;
        let value = h(&x)?;
        if value.size() != x.size() {
            return Err(wrong("values", &x.size(), &value));
        }
        let mut last = value.shallow_clone();
        let mut all = Vec::new();
        for n in 1..=order {
            last = slope(&last, &x, n < order)?;
            all.push(last.detach());
        }
        Ok((value.detach(), all))
    })
}

/// Derivatives of f at some points.
#[derive(Debug)]
pub struct Derivatives {
    /// f itself, `[..]`.
    pub value: Tensor,
    /// Entry n - 1 is `d^n f / d z_j^n`, `[.., d]`.
    pub pure: Vec<Tensor>,
}

impl Objective<'_> {
    /// f at each point: `[.., d] -> [..]`, with the graph of f.
    pub fn value(&self, z: &Tensor) -> Result<Tensor> {
        let (rows, _) = rows(z)?;
        match self {
            Objective::Smooth(f) => checked("values", f(z)?, &rows),
            Objective::Separable(f) => crate::dist::over_last(&checked("terms", f(z)?, &z.size())?),
            Objective::Composite { inner, outer } => {
                let (g, _) = inner(z)?;
                checked("values", crate::dist::over_last(&outer.value(&g)?)?, &rows)
            }
        }
    }

    /// Value and gradient: `[.., d] -> ([..], [.., d])`, without a graph. One evaluation of f.
    pub fn gradient(&self, z: &Tensor) -> Result<(Tensor, Tensor)> {
        tch::with_grad(|| {
            let z = leaf(z)?;
            let value = self.value(&z)?;
            Ok((value.detach(), slope(&value, &z, false)?))
        })
    }

    /// The derivatives `d^n f / d z_j^n`, n = 1 to `order`, at points `[.., d]`.
    ///
    /// # Errors
    /// [`Error::Range`] unless `order` is at least 1; [`Error::Shape`] where f returns another shape than its form promises.
    pub fn derivatives(&self, z: &Tensor, order: i64) -> Result<Derivatives> {
        if order < 1 {
            return Err(Error::range("the order of a derivative", "at least 1", order));
        }
        let (rows, d) = rows(z)?;
        match self {
            Objective::Separable(f) => {
                let (terms, pure) = nested(f, z, order)?;
                Ok(Derivatives { value: crate::dist::over_last(&terms)?, pure })
            }
            // f(z + t_j e_j), [.., d] for the d directions j, differentiated by t
            Objective::Smooth(f) => {
                let eye = Tensor::f_eye(d, (z.kind(), z.device()))?;
                let z = z.detach();
                let along = |t: &Tensor| f(&(z.f_unsqueeze(-2)? + t.f_unsqueeze(-1)? * &eye));
                let (values, pure) = nested(&along, &z.f_zeros_like()?, order)?;
                Ok(Derivatives { value: values.f_select(-1, 0)?, pure })
            }
            // Lemma 3: d^n f / d z_j^n = sum_m h^(n)(g_m) (d g_m / d z_j)^n
            Objective::Composite { inner, outer } => {
                let (g, jacobian) = inner(z)?;
                let (g, jacobian) = (g.detach(), jacobian.detach());
                let (values, outer) = outer.derivatives(&g, order)?;
                let value = checked("values", crate::dist::over_last(&values)?, &rows)?;
                let through = |(n, h): (usize, &Tensor)| {
                    let power = jacobian.f_pow_tensor_scalar(n as i64 + 1)?;
                    checked("derivatives", h.f_unsqueeze(-2)?.f_matmul(&power)?.f_squeeze_dim(-2)?, &z.size())
                };
                let pure = outer.iter().enumerate().map(through).collect::<Result<_>>()?;
                Ok(Derivatives { value, pure })
            }
        }
    }

    /// The Hessian at points `[.., d] -> [.., d, d]`, without a graph, by d backward passes.
    pub fn hessian(&self, z: &Tensor) -> Result<Tensor> {
        tch::with_grad(|| {
            let z = leaf(z)?;
            let gradient = slope(&self.value(&z)?, &z, true)?;
            let row = |j| Ok(slope_of_column(&gradient, j, &z)?.detach());
            let rows = (0..rows(&z)?.1).map(row).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::f_stack(&rows, -2)?)
        })
    }
}

fn slope_of_column(gradient: &Tensor, j: i64, z: &Tensor) -> Result<Tensor> {
    slope(&gradient.f_select(-1, j)?, z, true)
}

/// The leading axes and d of points `[.., d]`.
fn rows(z: &Tensor) -> Result<(Vec<i64>, i64)> {
    let mut size = z.size();
    let d = size.pop().ok_or_else(|| Error::shape("stochbp objective", "points [.., d]", z.size()))?;
    Ok((size, d))
}

/// For [`Objective::Composite`]: g and its Jacobian by autograd, m backward passes: `[.., d] -> ([.., m], [.., m, d])`.
///
/// # Example
/// ```
/// use tch::Tensor;
/// use thruway::stochbp::{Objective, Outer, with_jacobian};
/// // f(z) = exp(relu(2 z_1 - z_2)); at (1, 1) the third derivatives are 8 e and -e
/// let g = |z: &Tensor| Ok(z.f_matmul(&Tensor::from_slice(&[2.0f64, -1.0]).view([2, 1]))?.f_relu()?);
/// let f = Objective::Composite { inner: &|z| with_jacobian(&g, z), outer: Outer::Nested(&|g| Ok(g.f_exp()?)) };
/// let third = f.derivatives(&Tensor::from_slice(&[1.0f64, 1.0]), 3)?.pure.remove(2);
/// assert!((third.double_value(&[0]) - 8.0 * 1f64.exp()).abs() < 1e-12);
/// assert!((third.double_value(&[1]) + 1f64.exp()).abs() < 1e-12);
/// # Ok::<(), thruway::Error>(())
/// ```
pub fn with_jacobian(g: &Function, z: &Tensor) -> Result<(Tensor, Tensor)> {
    let outside = z;
    tch::with_grad(|| {
        let z = leaf(outside)?;
        let values = g(&z)?;
        let m = rows(&values)?.1;
        let row = |j| {
            let y = values.f_select(-1, j)?;
            if !y.requires_grad() {
                return Ok(z.f_zeros_like()?.detach());
            }
            let row = Tensor::f_run_backward(&[y.f_sum(y.kind())?], &[&z], true, false)?.remove(0);
            if row.defined() { Ok(row) } else { Ok(z.f_zeros_like()?.detach()) }
        };
        let jacobian = Tensor::f_stack(&(0..m).map(row).collect::<Result<Vec<_>>>()?, -2)?;
        // Where the caller differentiates through g itself, its own graph is wanted.
        let values = if outside.requires_grad() { g(outside)? } else { values.detach() };
        Ok((values, jacobian))
    })
}
