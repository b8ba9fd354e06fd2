//! The list of estimators: from one line each follow the module, the name on the command line, the help text, the table in
//! the README and the battery of tests.
use super::{BooleanDropIn, DropIn, GradEstimator, Tau, TwoClasses};
use crate::dist::bernoulli::Code;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::{Device, Kind, Tensor};

/// Parameters of an estimator; what is not given takes the estimator's default, what it does not take is refused.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Knobs {
    /// `--tau`, temperature of the surrogate.
    pub tau: Option<Tau>,
    /// `--samples`, Monte Carlo draws M.
    pub samples: Option<i64>,
    /// `--gap`, in nats.
    pub gap: Option<f64>,
    /// `--decay` of a moving-average baseline.
    pub decay: Option<f64>,
    /// `--interval` of the uniform noise of FouST, relative to the scale.
    pub interval: Option<f64>,
    /// `--scale` of the representation (FouST).
    pub scale: Option<f64>,
    /// Boolean variables, with values in this code; categorical ones without.
    pub code: Option<Code>,
    /// For estimators that learn.
    pub sizes: Sizes,
}

/// Sizes and place of what an estimator learns.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sizes {
    /// L, the number of latent variables.
    pub latents: Option<i64>,
    /// D, the length of the objective's [context](super::Objective::context); without it learned parts do without.
    pub context: Option<i64>,
    /// Kind and device of the parameters; f32 on the CPU without.
    pub place: Option<Place>,
}

/// Where tensors are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Floating kind.
    pub kind: Kind,
    /// Device.
    pub device: Device,
}

impl Sizes {
    /// The place, with its default.
    pub fn place(&self) -> Place {
        self.place.unwrap_or(Place { kind: Kind::Float, device: Device::Cpu })
    }
}

impl Knobs {
    /// Refuses knobs that are given and not in `takes` (subset of those of [`Claims::knobs`](super::Claims)).
    pub fn only(&self, estimator: &'static str, takes: &[&'static str]) -> Result<()> {
        let given = [
            ("tau", self.tau.is_some()),
            ("samples", self.samples.is_some()),
            ("gap", self.gap.is_some()),
            ("decay", self.decay.is_some()),
            ("interval", self.interval.is_some()),
            ("scale", self.scale.is_some()),
        ];
        match given.into_iter().find(|(knob, there)| *there && !takes.contains(knob)) {
            None => Ok(()),
            Some((knob, _)) => {
                let takes = if takes.is_empty() { "none".into() } else { format!("--{}", takes.join(", --")) };
                Err(Error::Knob { estimator, knob, takes })
            }
        }
    }

    /// The code of Boolean variables, for an estimator that serves no others.
    ///
    /// # Errors
    /// [`Error::Usage`] without one.
    pub fn code(&self, estimator: &'static str) -> Result<Code> {
        self.code.ok_or_else(|| {
            Error::Usage(format!("{estimator} is made for Boolean variables; choose another for categorical ones"))
        })
    }
}

/// An estimator ready for use, of either kind.
pub enum Built {
    /// Replaces a categorical sample in place.
    DropIn(Box<dyn DropIn>),
    /// Replaces a Boolean sample in place.
    Boolean(Box<dyn BooleanDropIn>),
    /// Needs f itself.
    Wide(Box<dyn GradEstimator + Send>, &'static str),
}

impl Built {
    /// The drop-in.
    ///
    /// # Errors
    /// [`Error::Usage`] for an estimator that needs f itself.
    pub fn drop_in(self) -> Result<Box<dyn DropIn>> {
        match self {
            Built::DropIn(e) => Ok(e),
            Built::Boolean(_) => Err(Error::Usage("built for Boolean variables: build it without a code".into())),
            Built::Wide(_, name) => Err(Error::Usage(format!(
                "{name} needs the objective itself and cannot replace a sample in place; choose a drop-in estimator here"
            ))),
        }
    }

    /// The drop-in for Boolean variables.
    ///
    /// # Errors
    /// [`Error::Usage`] for an estimator that needs f itself, and for one built without a code.
    pub fn boolean(self) -> Result<Box<dyn BooleanDropIn>> {
        match self {
            Built::Boolean(e) => Ok(e),
            Built::DropIn(_) => Err(Error::Usage("built for categorical variables: build it with a code".into())),
            wide => wide.drop_in().map(|_| unreachable!("a wide estimator is no drop-in")),
        }
    }

    /// Takes the value that a schedule has at this training step (from 0).
    pub fn at_step(&mut self, step: i64) {
        match self {
            Built::DropIn(e) => e.at_step(step),
            Built::Boolean(e) => e.at_step(step),
            Built::Wide(..) => {}
        }
    }

    fn wide(&self) -> Option<&dyn GradEstimator> {
        match self {
            Built::Wide(e, _) => Some(e.as_ref()),
            _ => None,
        }
    }

    /// A categorical drop-in asked to serve Boolean variables does so as two classes.
    pub(super) fn with_code(self, code: Option<Code>) -> Built {
        match (self, code) {
            (Built::DropIn(e), Some(code)) => Built::Boolean(Box::new(TwoClasses::new(e, code))),
            (built, _) => built,
        }
    }
}

impl GradEstimator for Built {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn super::Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        match self {
            Built::DropIn(e) => e.surrogate_loss(logits, f, noise),
            Built::Boolean(e) => e.surrogate_loss(logits, f, noise),
            Built::Wide(e, _) => e.surrogate_loss(logits, f, noise),
        }
    }
    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.wide().map(GradEstimator::parameters).unwrap_or_default()
    }
    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.wide().map(GradEstimator::buffers).unwrap_or_default()
    }
    fn score(&self) -> Option<&dyn super::Score> {
        self.wide().and_then(GradEstimator::score)
    }
}

macro_rules! registry {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $module:ident, )+) => {
        $( pub mod $module; )+

        /// Every estimator there is; the kebab-case name serves command line, JSON and tables.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Estimator { $( $(#[doc = $doc])+ $variant, )+ }

        impl Estimator {
            /// All, in the order of the registry.
            pub const ALL: &'static [Estimator] = &[$( Estimator::$variant, )+];

            /// Builds it with these knobs.
            ///
            /// # Errors
            /// [`Knob`](crate::Error::Knob) for a knob it does not take, [`Range`](crate::Error::Range) for a value outside its range.
            pub fn build(self, knobs: &Knobs) -> $crate::error::Result<Built> {
                let built = match self { $( Estimator::$variant => $module::build(knobs), )+ };
                Ok(built?.with_code(knobs.code))
            }

            /// What it promises.
            pub fn claims(self) -> &'static Claims {
                match self { $( Estimator::$variant => &$module::CLAIMS, )+ }
            }

            /// Name in the field, with the source.
            pub fn title(self) -> &'static str {
                match self { $( Estimator::$variant => concat!($($doc),+).trim_ascii(), )+ }
            }
        }
    };
}
pub(super) use registry;

impl super::Estimator {
    /// The name on the command line.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().expect("no estimator is hidden").get_name().to_string()
    }

    /// By name.
    ///
    /// # Errors
    /// [`Error::Unknown`] with the list of names.
    pub fn by_name(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|e| e.name() == name).ok_or_else(|| Error::Unknown {
            what: "estimator",
            got: name.to_string(),
            known: Self::ALL.iter().map(|e| e.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The table of the README, as Markdown.
    pub fn table() -> String {
        use super::{ExactOn, NoiseKind, Takes};
        let mut t = String::from(
            "| `--estimator` | method | variables | expected gradient exact for | noise beyond the draw | forward | evaluations of f | tau |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        for e in Self::ALL {
            let c = e.claims();
            let exact = match c.exact_on {
                ExactOn::Everything => "every f".to_string(),
                ExactOn::Bound => "the bound of any f".to_string(),
                ExactOn::Degree(1) => "linear f".to_string(),
                ExactOn::Degree(2) => "quadratic f".to_string(),
                ExactOn::Degree(n) => format!("degree {n}"),
                ExactOn::Nothing => "none promised".to_string(),
            };
            // a tau above 1 smooths the estimate and leaves what the theorem speaks of
            let exact = if c.tau == ">= 1" && exact.ends_with(" f") { format!("{exact} at tau 1") } else { exact };
            let noise = match c.noise {
                NoiseKind::Finite => "none",
                NoiseKind::Draws => "further draws",
                NoiseKind::Continuous => "continuous",
            };
            let variables = if c.variables == Takes::Both { "both" } else { "Boolean" };
            let forward = if c.hard_forward { "one-hot" } else { "relaxed" };
            t += &format!(
                "| `{}` | {} | {variables} | {exact} ({}) | {noise} | {forward} | {} | {} |\n",
                e.name(),
                e.title(),
                c.source,
                c.f_evals,
                c.tau
            );
        }
        t
    }
}
