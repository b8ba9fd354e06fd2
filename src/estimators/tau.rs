//! Temperature of the surrogate: a constant or a schedule over training steps.
use crate::error::{Error, Result};

/// A temperature, dimensionless, positive and finite.
///
/// # Example
/// ```
/// use thruway::estimators::Tau;
/// let tau: Tau = "linear:10:0.1:100".parse()?;
/// assert_eq!(tau.at(0), 10.0);
/// assert_eq!(tau.at(1000), 0.1);
/// # Ok::<(), thruway::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tau {
    /// The same at every step.
    Constant(f64),
    /// From `from` to `to` in `steps` equal steps, then `to`.
    Linear {
        /// First value.
        from: f64,
        /// Last value.
        to: f64,
        /// Steps between them.
        steps: i64,
    },
    /// From `from` to `to` in `steps` equal factors, then `to`.
    Exponential {
        /// First value.
        from: f64,
        /// Last value.
        to: f64,
        /// Steps between them.
        steps: i64,
    },
}

impl Tau {
    /// Value at a training step, from 0.
    pub fn at(&self, step: i64) -> f64 {
        let share = |steps: i64| (step.max(0) as f64 / steps as f64).min(1.0);
        match *self {
            Tau::Constant(t) => t,
            Tau::Linear { from, to, steps } if step < steps => from + (to - from) * share(steps),
            Tau::Exponential { from, to, steps } if step < steps => from * (to / from).powf(share(steps)),
            Tau::Linear { to, .. } | Tau::Exponential { to, .. } => to,
        }
    }

    /// Refuses temperatures that are not positive and finite, or that go below `least` (ReinMax: 1).
    pub fn check(&self, estimator: &'static str, least: Option<f64>) -> Result<Self> {
        let ends = match *self {
            Tau::Constant(t) => [t, t],
            Tau::Linear { from, to, steps } | Tau::Exponential { from, to, steps } => {
                if steps < 1 {
                    return Err(Error::range("the steps of a tau schedule", "at least 1", steps));
                }
                [from, to]
            }
        };
        for t in ends {
            if !(t.is_finite() && t > 0.0) {
                return Err(Error::range(format!("{estimator}: tau"), "positive and finite", t));
            }
            // float32 would round it, or 1 / tau, to 0 or infinity
            if !(1e-30..=1e30).contains(&t) {
                return Err(Error::range(format!("{estimator}: tau"), "between 1e-30 and 1e30", t));
            }
            if let Some(least) = least.filter(|l| t < *l) {
                return Err(Error::range(format!("{estimator}: tau"), format!("at least {least}"), t));
            }
        }
        Ok(*self)
    }
}

impl std::str::FromStr for Tau {
    type Err = Error;

    /// `0.5`, or `linear:FROM:TO:STEPS`, or `exponential:FROM:TO:STEPS`.
    fn from_str(s: &str) -> Result<Tau> {
        let bad = || Error::range("tau", "a number, linear:FROM:TO:STEPS or exponential:FROM:TO:STEPS", s);
        let number = |t: &str| t.parse::<f64>().map_err(|_| bad());
        let parts: Vec<&str> = s.split(':').collect();
        match parts[..] {
            [t] => Ok(Tau::Constant(number(t)?)),
            [shape @ ("linear" | "exponential"), from, to, steps] => {
                let (from, to) = (number(from)?, number(to)?);
                let steps = steps.parse().map_err(|_| bad())?;
                Ok(match shape {
                    "linear" => Tau::Linear { from, to, steps },
                    _ => Tau::Exponential { from, to, steps },
                })
            }
            _ => Err(bad()),
        }
    }
}

impl std::fmt::Display for Tau {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Tau::Constant(t) => write!(f, "{t}"),
            Tau::Linear { from, to, steps } => write!(f, "linear:{from}:{to}:{steps}"),
            Tau::Exponential { from, to, steps } => write!(f, "exponential:{from}:{to}:{steps}"),
        }
    }
}
