//! The estimators under comparison, by name.
use serde::{Deserialize, Serialize};
use thruway::error::{Error, Result};
use thruway::noise::Noise;
use thruway::stochbp::{
    Caution, Estimate, LogCharacteristic, MeasureValued, Objective, StochasticBackprop, Sum, WeakReparameterisation,
    measure_valued, pathwise, score_function, weak,
};

/// A gradient estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Stochastic backpropagation (Echraibi et al. 2020)
    Stochbp,
    /// Score function, without a baseline (Williams 1992)
    Score,
    /// Pathwise, implicit for gamma variables (Figurnov et al. 2018)
    Pathwise,
    /// Weak, or generalised, reparameterisation (Ruiz et al. 2016); gamma variables
    Weak,
    /// Measure-valued derivatives (Pflug 1996); Laplace variables
    MeasureValued,
    /// The gradient of the expectation in closed form; toy problems
    Exact,
}

impl Method {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Method::Stochbp => "stochbp",
            Method::Score => "score",
            Method::Pathwise => "pathwise",
            Method::Weak => "weak",
            Method::MeasureValued => "measure-valued",
            Method::Exact => "exact",
        }
    }
}

/// A distribution as far as every method needs it.
pub struct Law<'a> {
    pub series: &'a dyn LogCharacteristic,
    pub weak: Option<&'a dyn WeakReparameterisation>,
    pub measures: Option<&'a dyn MeasureValued>,
}

/// One estimate.
pub fn estimate(
    method: Method,
    sum: Sum,
    caution: Caution,
    law: &Law,
    f: &Objective,
    samples: i64,
    noise: &mut dyn Noise,
) -> Result<Estimate> {
    let p = law.series;
    let names: Vec<&str> = p.parameters().into_iter().map(|(name, _)| name).collect();
    let missing = |why: &str| Err(Error::Usage(format!("--estimator {}: {why}", method.name())));
    match method {
        Method::Stochbp => StochasticBackprop { sum, caution }.estimate(p, f, samples, noise),
        Method::Score => score_function(p, f, samples, noise),
        Method::Pathwise => pathwise(p, f, samples, noise),
        Method::Weak => match law.weak {
            Some(p) => weak(p, f, samples, noise),
            None => missing("the draw is reparameterised outright, so this is pathwise"),
        },
        Method::MeasureValued => match law.measures {
            Some(p) => measure_valued(p, &names, f, samples, noise),
            None => missing("a gamma's shape has no weak derivative; use another estimator"),
        },
        Method::Exact => missing("there is no closed form here"),
    }
}
