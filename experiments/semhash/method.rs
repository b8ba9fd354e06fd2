//! The estimators of Table D.1 and three more, on codes 0/1.
use serde::{Deserialize, Serialize};
use tch::Tensor;
use thruway::dist::bernoulli::{self, Code};
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::error::{Error, Result};
use thruway::estimators::{BooleanDropIn, Built, Estimator, Knobs, Placed, Tau};
use thruway::noise::Noise;
use thruway::sbn::{Proxy, Units, sign};

/// What gives the encoder its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Augment-REINFORCE-merge, one pair (Yin & Zhou 2019)
    Arm,
    /// Gumbel-softmax with --tau 1 or 0.1 (Jang et al. 2016)
    GumbelSoftmax,
    /// Straight-through, Alg. 1 for 0/1: the bit counts as F(a) on the way back
    St,
    /// The same with the noise set to 0: the bit is 1 where the logit is not negative
    DetSt,
    /// Straight-through with derivative 1
    IdentitySt,
    /// Path sample-analytic: for one binary layer every bit summed out in turn, local expectation
    Psa,
    /// ReinMax (Liu et al. 2023)
    Reinmax,
    /// DisARM or U2G (Dong et al. 2020)
    Disarm,
}

impl Method {
    /// The name on the command line.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().expect("none is hidden").get_name().to_string()
    }

    /// Builds it for bits 0/1.
    ///
    /// # Errors
    /// [`Error::Usage`] for a temperature where there is none; [`Error::Range`] for one outside the range.
    pub fn build(self, tau: Option<f64>) -> Result<Built> {
        let registered = |e: Estimator| {
            let tau = tau.map(Tau::Constant);
            e.build(&Knobs { tau, code: Some(Code::ZeroOne), ..Knobs::default() })
        };
        match self {
            Method::Arm => registered(Estimator::Arm),
            Method::GumbelSoftmax => registered(Estimator::GumbelSoftmax),
            Method::St => registered(Estimator::St),
            Method::Psa => registered(Estimator::LocalExpectation),
            Method::Reinmax => registered(Estimator::Reinmax),
            Method::Disarm => registered(Estimator::Disarm),
            Method::DetSt | Method::IdentitySt if tau.is_some() => {
                Err(Error::Usage(format!("{} takes no --tau", self.name())))
            }
            Method::DetSt => Ok(Built::Boolean(Box::new(Variant::new(Proxy::Matched, true)))),
            Method::IdentitySt => Ok(Built::Boolean(Box::new(Variant::new(Proxy::Identity, false)))),
        }
    }
}

/// A variant of Algorithm 1 on a layer of units: without noise, or with another derivative than its own.
struct Variant {
    units: Units,
    deterministic: bool,
}

impl Variant {
    fn new(proxy: Proxy, deterministic: bool) -> Variant {
        let units = Units { noise: BinaryNoise::new(Shape::Logistic), proxy, code: Code::ZeroOne };
        Variant { units, deterministic }
    }
}

impl BooleanDropIn for Variant {
    fn code(&self) -> Code {
        self.units.code
    }

    fn place(&self, logits: &Tensor, bits: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Placed> {
        let bits = match bits {
            Some(bits) => bits.shallow_clone(),
            None if self.deterministic => Code::PlusMinus.decode(&sign(logits)?)?,
            None => bernoulli::draw(&logits.f_sigmoid()?, 1, noise)?.0.f_squeeze_dim(0)?,
        };
        Ok(Placed { bits, value: None, factor: self.units.slope(logits)? })
    }
}
