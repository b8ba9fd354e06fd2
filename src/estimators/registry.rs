//! The list of estimators: from one line each follow the module, the name on the command line, the help text, the table in
//! the README and the battery of tests.
use super::{DropIn, GradEstimator, Tau};
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// Parameters of an estimator; what is not given takes the estimator's default, what it does not take is refused.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Knobs {
    /// `--tau`, temperature of the surrogate.
    pub tau: Option<Tau>,
    /// `--samples`, Monte Carlo draws M.
    pub samples: Option<i64>,
    /// `--gap`, in nats.
    pub gap: Option<f64>,
}

impl Knobs {
    /// Refuses knobs that are given and not in `takes` (subset of `["tau", "samples", "gap"]`).
    pub fn only(&self, estimator: &'static str, takes: &[&'static str]) -> Result<()> {
        let given = [("tau", self.tau.is_some()), ("samples", self.samples.is_some()), ("gap", self.gap.is_some())];
        match given.into_iter().find(|(knob, there)| *there && !takes.contains(knob)) {
            None => Ok(()),
            Some((knob, _)) => {
                let takes = if takes.is_empty() { "none".into() } else { format!("--{}", takes.join(", --")) };
                Err(Error::Knob { estimator, knob, takes })
            }
        }
    }
}

/// An estimator ready for use, of either kind.
pub enum Built {
    /// Replaces a sample in place.
    DropIn(Box<dyn DropIn>),
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
            Built::Wide(_, name) => Err(Error::Usage(format!(
                "{name} needs the objective itself and cannot replace a sample in place; choose a drop-in estimator here"
            ))),
        }
    }

    /// Takes the value that a schedule has at this training step (from 0).
    pub fn at_step(&mut self, step: i64) {
        if let Built::DropIn(e) = self {
            e.at_step(step);
        }
    }
}

impl GradEstimator for Built {
    fn surrogate_loss(&self, logits: &Tensor, f: super::Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        match self {
            Built::DropIn(e) => e.surrogate_loss(logits, f, noise),
            Built::Wide(e, _) => e.surrogate_loss(logits, f, noise),
        }
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
                match self { $( Estimator::$variant => $module::build(knobs), )+ }
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
        use super::{ExactOn, NoiseKind};
        let mut t = String::from(
            "| `--estimator` | method | expected gradient exact for | noise beyond the draw | forward | evaluations of f | tau |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for e in Self::ALL {
            let c = e.claims();
            let exact = match c.exact_on {
                ExactOn::Everything => "every f".to_string(),
                ExactOn::Degree(1) => "linear f".to_string(),
                ExactOn::Degree(2) => "quadratic f".to_string(),
                ExactOn::Degree(n) => format!("degree {n}"),
                ExactOn::Nothing => "none promised".to_string(),
            };
            let noise = if c.noise == NoiseKind::Finite { "none" } else { "continuous" };
            let forward = if c.hard_forward { "one-hot" } else { "relaxed" };
            t += &format!(
                "| `{}` | {} | {exact} ({}) | {noise} | {forward} | {} | {} |\n",
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
