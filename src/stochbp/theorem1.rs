//! Theorem 1: `d E f(z) / d theta = sum_n a_n(theta) E d^n f / dz^n`, where `d log phi / d theta = sum_n a_n (i w)^n`.
//!
//! phi is the characteristic function. As each distribution here has independent entries, `log phi` is a sum over them and
//! only derivatives in one direction at a time occur. `a_0` is the derivative of `log phi(0) = 0`, so it is 0 for every
//! distribution and the terms `a_0 E f` of Eqs. 22 to 24 are not there.
use super::Estimate;
use super::objective::Objective;
use crate::dist::Continuous;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::{Kind, Tensor};

/// The logarithm of a characteristic function as Theorem 1 needs it: per parameter, expanded in powers of `s = i w`.
pub trait LogCharacteristic: Continuous {
    /// `a_n` of each parameter, `[d]` each, n >= 1: the coefficient of `(i w)^n` in `d log phi / d parameter`. It is the
    /// derivative of the n-th cumulant, over n!.
    fn coefficients(&self, n: i64) -> Result<Vec<Tensor>>;

    /// From which n on all coefficients are 0, less one; `None` where the series is infinite.
    fn last(&self) -> Option<i64> {
        None
    }

    /// Radius of convergence of the series in `|i w|`, `[d]`; `None` where it has no closed form.
    fn radius(&self) -> Result<Option<Tensor>>;

    /// The sum of the whole series at real `s = i w`: `d log phi(s / i) / d parameter`, `[.., d]` each. Beyond the radius of
    /// convergence, where it exists, it is still right (Eq. 25).
    ///
    /// # Errors
    /// [`Error::Range`] where `E exp(s z)` is infinite.
    fn sum_at(&self, s: &Tensor) -> Result<Vec<Tensor>>;
}

/// How the infinite sum is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// f is a polynomial of this degree, so the sum ends there: exact (Corollary 3.1, Eqs. 23 and 24).
    Polynomial(i64),
    /// f is the exponential of an affine function in each direction: exact (Corollary 3.1, Eq. 25).
    Exponential,
    /// Derivatives up to this order N (Eq. 26).
    Truncated(i64),
}

/// What to do where the numbers show that the sum cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caution {
    /// An error.
    Refuse,
    /// The estimate, with a warning in it.
    Warn,
}

/// The rule of Theorem 1 for a distribution of independent entries.
///
/// # Shapes
/// Points `[S, d]`; each gradient `[S, d]`, one estimate a sample.
///
/// # Bias
/// None for [`Sum::Polynomial`] and [`Sum::Exponential`]. For [`Sum::Truncated`] the terms left out, which are 0 beyond `last`;
/// outside the radius of convergence more terms make it worse.
///
/// # Errors
/// With [`Caution::Refuse`], [`Error::Range`] where the terms of a variable grow with their order, where a parameter has no term up
/// to the order though it has later ones, where f is no polynomial of the degree (no exponential) over the samples, where the
/// piecewise affine function of Lemma 3 changes its slope among them, or where a function of one variable (a term, f itself, the
/// outer function of Lemma 3) changes its own without a second derivative: there derivatives beyond the first have mass at the
/// kinks, which autograd calls 0. What takes two points to compare is refused at one. With either caution, where an exponential
/// f is 0 at a sample, as its slope over itself is not known there.
///
/// Not seen: under [`Sum::Truncated`] a kink inside a curved term (`|z| + z^2` of one variable), and under every sum one inside
/// an [`Objective::Smooth`] of several variables or inside the outer function of Lemma 3 where that is curved.
#[derive(Debug, Clone, Copy)]
pub struct StochasticBackprop {
    /// How the sum is dealt with.
    pub sum: Sum,
    /// What to do where it cannot be trusted.
    pub caution: Caution,
}

impl StochasticBackprop {
    /// Estimates from `samples` draws.
    pub fn estimate(
        &self,
        p: &dyn LogCharacteristic,
        f: &Objective,
        samples: i64,
        noise: &mut dyn Noise,
    ) -> Result<Estimate> {
        self.at(p, f, &p.sample(samples, noise)?)
    }

    /// Estimates at given points `[S, d]`: with weights of a quadrature in place of draws, the expectation of the rule.
    pub fn at(&self, p: &dyn LogCharacteristic, f: &Objective, z: &Tensor) -> Result<Estimate> {
        let names = p.parameters().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let (mut estimate, doubt) = match self.sum {
            Sum::Exponential => exponential(p, f, z)?,
            Sum::Polynomial(n) => series(p, &names, f, z, n, true)?,
            Sum::Truncated(n) => series(p, &names, f, z, n, false)?,
        };
        match (doubt, self.caution) {
            (Some(doubt), Caution::Refuse) => Err(doubt),
            (doubt, _) => {
                estimate.warning = doubt.map(|d| d.to_string());
                Ok(estimate)
            }
        }
    }
}

/// Derivatives among which every infinite series has two terms.
const SEEN: i64 = 4;

/// `sum_n a_n d^n f / dz^n`, n = 1 to `degree`, for the first parameters of p, whose names are given.
pub(super) fn series(
    p: &dyn LogCharacteristic,
    names: &[&str],
    f: &Objective,
    z: &Tensor,
    degree: i64,
    polynomial: bool,
) -> Result<(Estimate, Option<Error>)> {
    let order = p.last().map_or(degree, |last| last.min(degree));
    let lines = lines(f, z);
    let reach = match (polynomial, p.last()) {
        (true, Some(2..)) if lines => degree,
        // two terms of each infinite series, so that its growth is seen at any order; Laplace's scale has those of n = 2 and 4
        (false, None) if order >= 1 => order.max(SEEN),
        _ => order,
    };
    let derivatives = f.derivatives(z, reach)?;
    let mut sums: Vec<Tensor> = names.iter().map(|_| z.f_zeros_like()).collect::<std::result::Result<_, _>>()?;
    // of each parameter and variable, the size of its terms whose coefficient is not 0
    let mut sizes: Vec<Vec<Vec<f64>>> = vec![vec![vec![]; z.size()[1] as usize]; names.len()];
    for (n, derivative) in (1..).zip(&derivatives.pure) {
        for (k, a) in p.coefficients(n)?.into_iter().take(names.len()).enumerate() {
            let seen = n > order && (polynomial || sizes[k].iter().all(|s| s.len() >= 2));
            if !seen && any(&a)? {
                let term = &a * derivative;
                if !polynomial {
                    let there = entries(&a.f_ne(0.0)?)?;
                    for ((s, size), _) in sizes[k].iter_mut().zip(size(&term)?).zip(there).filter(|(_, a)| *a != 0.0) {
                        // beyond the order only where there are not two yet
                        if n <= order || s.len() < 2 {
                            s.push(size);
                        }
                    }
                }
                if n <= order {
                    sums[k] += term;
                }
            }
        }
    }
    let gradients = names.iter().map(|name| name.to_string()).zip(sums).collect();
    let largest = largest(&sizes);
    let growth = largest.map(|(g, _)| g);
    let mut doubt = None;
    if order >= 2 {
        doubt = kinks(f, z, &derivatives.pure)?;
    }
    if polynomial && doubt.is_none() && p.last() != Some(1) {
        let top = &derivatives.pure[order as usize - 1];
        let what = format!("the derivative of order {order} of a polynomial of degree {order}");
        doubt = match p.last() {
            _ if lines => expansion(z, &derivatives.pure)?,
            Some(last) if last == order => None,
            _ => varying(&what, top)?,
        };
    }
    if !polynomial && doubt.is_none() && p.last() != Some(order) {
        doubt = largest.filter(|(g, _)| g.is_nan() || *g >= 1.0).map(|(g, j)| {
            Error::range(
                format!("{}: the last term of the series at order {order}, variable {j}, over the one before", p.name()),
                "below 1 (beyond the radius of convergence more terms make it worse: lower the order or the scale, or use \
                 pathwise)",
                format!("{g:.3}"),
            )
        });
        if doubt.is_none() && order == 1 {
            doubt = unreached(p, names)?;
        }
    }
    Ok((Estimate { value: derivatives.value, gradients, warning: None, growth }, doubt))
}

fn any(a: &Tensor) -> Result<bool> {
    Ok(a.f_any()?.f_int64_value(&[])? != 0)
}

/// A doubt where a parameter's series begins at n = 2, where all begin that do not at 1: cut at order 1 it is 0.
fn unreached(p: &dyn LogCharacteristic, names: &[&str]) -> Result<Option<Error>> {
    let (first, second) = (p.coefficients(1)?, p.coefficients(2)?);
    for (name, (first, second)) in names.iter().zip(first.iter().zip(&second)) {
        if !any(first)? && any(second)? {
            let what = format!("{}: the order of the series by {name}", p.name());
            return Ok(Some(Error::range(what, "at least 2, where its first term is: below, this gradient is 0", 1)));
        }
    }
    Ok(None)
}

/// A doubt where f, a sum of terms of one variable with these derivatives `[S, d]` each, is no polynomial of the last one's
/// degree: expanded about each of the points, its slope at their mean is not one number. A kink between two points shows,
/// also in a curved term.
fn expansion(z: &Tensor, pure: &[Tensor]) -> Result<Option<Error>> {
    let z = z.f_to_kind(Kind::Double)?;
    let away = z.f_mean_dim(0i64, true, Kind::Double)? - &z;
    let mut power = z.f_ones_like()?;
    let (mut sum, mut size) = (z.f_zeros_like()?, z.f_zeros_like()?);
    for (k, derivative) in (1..).zip(pure) {
        let term = derivative * &power;
        size = &size + term.f_abs()?;
        sum = &sum + term;
        power = &power * &away / k as f64;
    }
    let what = format!("the slope at the mean point, expanded as that of a polynomial of degree {}", pure.len());
    agree(&what, &sum, &size)
}

/// A doubt where sums `[S, d]`, whose terms have these absolute sums, are not one number for all points.
pub(super) fn agree(what: &str, sum: &Tensor, size: &Tensor) -> Result<Option<Error>> {
    // the point that loses the fewest digits
    let best = size.f_argmin(0, true)?;
    let (at_best, lost) = (sum.f_gather(0, &best, false)?, size.f_gather(0, &best, false)?);
    alike(what, sum.size()[0], (sum - at_best).f_abs()?, size + lost)
}

/// Of each variable, the root mean square over the points, which an accidental zero of the mean cannot hide; nor does another
/// variable, whose terms may be larger and shrink.
fn size(term: &Tensor) -> Result<Vec<f64>> {
    entries(&term.f_to_kind(Kind::Double)?.f_square()?.f_mean_dim(0i64, false, Kind::Double)?.f_sqrt()?)
}

/// A tensor `[d]` as numbers.
fn entries(t: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f64>::try_from(t.f_to_kind(Kind::Double)?)?)
}

/// Whether f is a function, or a sum of functions, of one variable each: derivatives at two points can be held against each other.
pub(super) fn lines(f: &Objective, z: &Tensor) -> bool {
    matches!(f, Objective::Separable(_)) || z.size()[1] == 1 && matches!(f, Objective::Smooth(_))
}

/// The largest growth of all, by parameter and variable, and its variable; what is no number is the largest.
fn largest(sizes: &[Vec<Vec<f64>>]) -> Option<(f64, usize)> {
    let each = sizes.iter().flat_map(|of| of.iter().enumerate()).filter_map(|(j, s)| Some((growth(s)?, j)));
    each.max_by(|(a, _), (b, _)| if a.is_nan() != b.is_nan() { a.is_nan().cmp(&b.is_nan()) } else { a.total_cmp(b) })
}

/// The last size over the one before, 0 where the last is 0.
fn growth(sizes: &[f64]) -> Option<f64> {
    match sizes {
        [.., before, last] => Some(if *last == 0.0 { 0.0 } else { last / before }),
        _ => None,
    }
}

/// `(d log phi / d theta)(s / i) f(z)` with `s = grad f / f`, which is epsilon times the gradient of g.
fn exponential(p: &dyn LogCharacteristic, f: &Objective, z: &Tensor) -> Result<(Estimate, Option<Error>)> {
    let (value, terms, slope) = match f {
        // each term is an exponential of its own entry
        Objective::Separable(terms) => {
            let derivatives = f.derivatives(z, 1)?;
            (derivatives.value, terms(z)?.detach(), derivatives.pure[0].shallow_clone())
        }
        _ => {
            let (value, slope) = f.gradient(z)?;
            let terms = value.f_unsqueeze(-1)?;
            (value, terms, slope)
        }
    };
    if any(&terms.f_eq(0.0)?)? {
        let rule = "other than 0 at every point (where it underflows, lower the scale or the rate, or use pathwise)";
        return Err(Error::range("the value of an exponential f", rule, 0));
    }
    let s = slope / &terms;
    let what = "the slope of log f of an exponential f";
    let doubt = if p.last() == Some(1) { None } else { varying(what, &s)? };
    let (sums, doubt) = match (p.sum_at(&s), doubt) {
        // what is no exponential is not answered with the range of one
        (Err(_), Some(doubt)) => return Err(doubt),
        (sums, doubt) => (sums?, doubt),
    };
    let names = p.parameters().into_iter().map(|(name, _)| name.to_string());
    let gradients = names.zip(sums.into_iter().map(|a| a * &terms)).collect();
    Ok((Estimate { value, gradients, warning: None, growth: None }, doubt))
}

/// A doubt where what should be one number (per direction) for all points `[S, ..]` is not.
fn varying(what: &str, t: &Tensor) -> Result<Option<Error>> {
    let t = t.f_to_kind(Kind::Double)?;
    let (low, high) = (t.f_amin(0i64, false)?, t.f_amax(0i64, false)?);
    alike(what, t.size()[0], &high - &low, low.f_abs()?.f_maximum(&high.f_abs()?)?)
}

/// A doubt where the spread among some points is more than rounding of numbers of this size, or where there is one point only.
pub(super) fn alike(what: &str, points: i64, spread: Tensor, size: Tensor) -> Result<Option<Error>> {
    if points < 2 {
        return Ok(Some(Error::range(what, "compared at 2 points at least: draw more, or use Caution::Warn", points)));
    }
    // rounding of nested derivatives; a kink changes the value by a share of it
    let over = (spread - size * 1e-4).f_max()?.f_double_value(&[])?;
    let doubt = || {
        Error::range(
            what,
            "the same at all points (a kink or another f: use Truncated, or pathwise)",
            format!("a spread of {over:.3e} beyond rounding"),
        )
    };
    Ok((over > 0.0 || over.is_nan()).then(doubt))
}

/// A doubt where the inner function of Lemma 3 has several slopes among the points, or where a function of one variable without
/// second derivative has: f itself, a term of it or the outer function of Lemma 3. `derivatives` of f are read for the former two.
pub(super) fn kinks(f: &Objective, z: &Tensor, derivatives: &[Tensor]) -> Result<Option<Error>> {
    if lines(f, z) {
        return straight("the slope of a term without second derivative", &derivatives[0], &derivatives[1]);
    }
    let Objective::Composite { inner, outer } = f else { return Ok(None) };
    let (g, jacobian) = inner(z)?;
    // one Jacobian for all points: affine
    if jacobian.dim() > z.dim() {
        let doubt = varying("the slope of the inner function of Lemma 3", &jacobian)?;
        if doubt.is_some() {
            return Ok(doubt);
        }
    }
    let (_, h) = outer.derivatives(&g.detach(), 2)?;
    straight("the slope of the outer function of Lemma 3, without second derivative", &h[0], &h[1])
}

/// A doubt where the slope `[S, m]` varies in a column whose second derivative is 0 throughout.
pub(super) fn straight(what: &str, slope: &Tensor, second: &Tensor) -> Result<Option<Error>> {
    let straight = second.f_eq(0.0)?.f_all_dim(0, false)?.f_nonzero()?.f_squeeze_dim(-1)?;
    if straight.numel() == 0 {
        return Ok(None);
    }
    varying(what, &slope.f_index_select(-1, &straight)?)
}
