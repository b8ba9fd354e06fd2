//! Minimisation of a function of one number within bounds, by Brent's method: golden sections, and parabolas through the
//! three best points where these are to be trusted (Brent 1973, Chapter 5, with the bounds of Forsythe, Malcolm and Moler
//! 1977). It asks for the same points as SciPy's `minimize_scalar(method="bounded")`.
use crate::error::{Error, Result};

/// Where the search ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimum {
    /// The best point.
    pub x: f64,
    /// The function there.
    pub value: f64,
    /// Whether `x` is known to the tolerance; otherwise the evaluations were used up.
    pub converged: bool,
}

/// A point and the function there.
#[derive(Debug, Clone, Copy)]
struct At {
    x: f64,
    f: f64,
}

/// Smaller part of a golden section.
fn golden() -> f64 {
    0.5 * (3.0 - 5f64.sqrt())
}

/// Looks for a minimum of `f` between `bounds`, in at most `evaluations` calls, until it is known to about `tolerance`
/// (SciPy's `xatol`, 1e-5 there). `f` may be infinite or NaN, which counts as worse than anything.
///
/// Deterministic: with the same answers it asks the same points in the same order, so a search can be taken up again by
/// answering from a list first.
///
/// # Example
/// ```
/// let minimum = thruway::optim::minimize_bounded((-6.0, 0.0), 30, 1e-5, |x| Ok((x + 2.0) * (x + 2.0)))?;
/// assert!((minimum.x + 2.0).abs() < 1e-5 && minimum.converged);
/// # thruway::Result::Ok(())
/// ```
///
/// # Errors
/// [`Error::Range`] for bounds that enclose nothing, no evaluations or a tolerance that is not positive; and those of `f`.
pub fn minimize_bounded(
    bounds: (f64, f64),
    evaluations: usize,
    tolerance: f64,
    mut f: impl FnMut(f64) -> Result<f64>,
) -> Result<Minimum> {
    let (mut low, mut high) = bounds;
    if !(low.is_finite() && high.is_finite() && low < high) {
        return Err(Error::range("bounds", "finite, the lower below the upper", format!("{low}, {high}")));
    }
    if evaluations < 1 {
        return Err(Error::range("evaluations", "at least 1", evaluations));
    }
    if tolerance.is_nan() || tolerance <= 0.0 {
        return Err(Error::range("tolerance", "positive", tolerance));
    }
    let mut ask = |x: f64| -> Result<At> {
        let value = f(x)?;
        Ok(At { x, f: if value.is_nan() { f64::INFINITY } else { value } })
    };
    let mut best = ask(low + golden() * (high - low))?;
    let (mut second, mut third) = (best, best);
    // the step to be made and the one before it
    let (mut step, mut before): (f64, f64) = (0.0, 0.0);
    let mut used = 1;
    loop {
        let middle = 0.5 * (low + high);
        let near = 2.2e-16f64.sqrt() * best.x.abs() + tolerance / 3.0;
        if (best.x - middle).abs() <= 2.0 * near - 0.5 * (high - low) {
            return Ok(Minimum { x: best.x, value: best.f, converged: true });
        }
        if used == evaluations {
            return Ok(Minimum { x: best.x, value: best.f, converged: false });
        }
        let parabolic = if before.abs() > near { parabola(best, second, third) } else { None };
        let trusted = parabolic.filter(|s| s.abs() < 0.5 * before.abs() && best.x + s > low && best.x + s < high);
        (before, step) = match trusted {
            Some(s) => {
                let x = best.x + s;
                let at_edge = x - low < 2.0 * near || high - x < 2.0 * near;
                (step, if at_edge { sign(middle - best.x) * near } else { s })
            }
            None => {
                let side = if best.x >= middle { low - best.x } else { high - best.x };
                (side, golden() * side)
            }
        };
        let new = ask(best.x + sign(step) * step.abs().max(near))?;
        used += 1;
        if new.f <= best.f {
            *(if new.x >= best.x { &mut low } else { &mut high }) = best.x;
            (best, second, third) = (new, best, second);
        } else {
            *(if new.x < best.x { &mut low } else { &mut high }) = new.x;
            if new.f <= second.f || second.x == best.x {
                (second, third) = (new, second);
            } else if new.f <= third.f || third.x == best.x || third.x == second.x {
                third = new;
            }
        }
    }
}

/// The step from the best of three points to the vertex of the parabola through them; `None` where there is no vertex.
fn parabola(best: At, second: At, third: At) -> Option<f64> {
    let r = (best.x - second.x) * (best.f - third.f);
    let q = (best.x - third.x) * (best.f - second.f);
    let p = (best.x - third.x) * q - (best.x - second.x) * r;
    let step = -p / (2.0 * (q - r));
    step.is_finite().then_some(step)
}

fn sign(x: f64) -> f64 {
    if x < 0.0 { -1.0 } else { 1.0 }
}
