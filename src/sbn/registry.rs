//! The list of methods: from one line each follow the module, the name on the command line, the help text, the table in
//! the README and the battery of tests.
use super::draws::Draws;
use super::head::HeadGradient;
use super::network::{Batch, Loss, Network};
use crate::error::{Error, Result};
use crate::kernels::delta::{Backend, DeltaOptions};

/// A method of the family: from a network and a batch to a loss whose gradient is the estimate.
pub trait Rule: Send {
    /// See [`Network::run`].
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss>;
}

/// What the gradient of a method is, in the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mean {
    /// The gradient of the expected loss: unbiased.
    Exact,
    /// An approximation of it.
    Biased,
    /// The gradient of another, relaxed objective.
    Relaxed,
}

/// What decides an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Randomness {
    /// Nothing: the estimate is a number.
    None,
    /// The states of all layers: its mean and variance can be enumerated.
    States,
    /// The states of the last layer.
    LastStates,
    /// Continuous noise.
    Continuous,
}

/// What a method promises; the tests hold it to that.
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// In the mean.
    pub mean: Mean,
    /// What is random in it.
    pub randomness: Randomness,
    /// Forward passes for one estimate (L layers).
    pub passes: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// Flags it takes.
    pub knobs: &'static [&'static str],
}

/// Parameters of a method; what is not given takes the method's default, what it does not take is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Knobs {
    /// `--tau`, temperature of the Concrete relaxation.
    pub tau: Option<f64>,
    /// `--tanh-scale`, the factor s on a in `2 F(s a) - 1`.
    pub tanh_scale: Option<f64>,
    /// `--head`, gradient of the head's parameters.
    pub head: Option<HeadGradient>,
    /// `--published-head`, the head of the released ADF and LocalReparam.
    pub published_head: bool,
    /// `--psa-backend`.
    pub psa_backend: Option<Backend>,
    /// `--psa-tol`.
    pub psa_tol: Option<f64>,
    /// `--constant`, a baseline subtracted from every loss.
    pub constant: Option<f64>,
}

impl Knobs {
    /// Refuses knobs that are given and not in `takes`.
    pub(super) fn only(&self, method: &'static str, takes: &[&'static str]) -> Result<()> {
        let given = [
            ("tau", self.tau.is_some()),
            ("tanh-scale", self.tanh_scale.is_some()),
            ("head", self.head.is_some()),
            ("published-head", self.published_head),
            ("psa-backend", self.psa_backend.is_some()),
            ("psa-tol", self.psa_tol.is_some()),
            ("constant", self.constant.is_some()),
        ];
        match given.into_iter().find(|(knob, there)| *there && !takes.contains(knob)) {
            None => Ok(()),
            Some((knob, _)) => {
                let takes = if takes.is_empty() { "none".into() } else { format!("--{}", takes.join(", --")) };
                Err(Error::Knob { estimator: method, knob, takes })
            }
        }
    }

    pub(super) fn delta(&self) -> Result<DeltaOptions> {
        let default = DeltaOptions::default();
        let tol = self.psa_tol.unwrap_or(default.tol);
        if !(tol > 0.0 && tol.is_finite()) {
            return Err(Error::range("--psa-tol", "positive and finite", tol));
        }
        let backend = self.psa_backend.unwrap_or(default.backend);
        if backend == Backend::Exact && self.psa_tol.is_some() {
            return Err(Error::Usage(
                "--psa-backend exact errs by nothing: leave out --psa-tol, or give expansion".into(),
            ));
        }
        Ok(DeltaOptions { backend, tol })
    }

    /// `--constant`, default 0.
    pub(super) fn baseline(&self) -> Result<f64> {
        let constant = self.constant.unwrap_or(0.0);
        if constant.is_finite() { Ok(constant) } else { Err(Error::range("--constant", "finite", constant)) }
    }

    /// Whether the head is the released one, which has no choice of its gradient.
    pub(super) fn released_head(&self) -> Result<bool> {
        if self.published_head && self.head.is_some() {
            return Err(Error::Usage(
                "--published-head has its own gradient and takes no --head: give one of them".into(),
            ));
        }
        Ok(self.published_head)
    }

    /// A positive number with its default.
    pub(super) fn positive(flag: &'static str, value: Option<f64>, default: f64) -> Result<f64> {
        match value.unwrap_or(default) {
            v if v > 0.0 && v.is_finite() => Ok(v),
            v => Err(Error::range(flag, "positive and finite", v)),
        }
    }
}

macro_rules! registry {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $module:ident, )+) => {
        $( pub mod $module; )+

        /// Every method there is; the kebab-case name serves command line, JSON and tables.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Method { $( $(#[doc = $doc])+ $variant, )+ }

        impl Method {
            /// All, in the order of the registry.
            pub const ALL: &'static [Method] = &[$( Method::$variant, )+];

            /// Builds it with these knobs.
            ///
            /// # Errors
            /// [`Knob`](crate::Error::Knob) for a knob it does not take, [`Range`](crate::Error::Range) for a value outside its range.
            pub fn build(self, knobs: &Knobs) -> $crate::error::Result<Box<dyn Rule>> {
                let claims = self.claims();
                match self {
                    $( Method::$variant => {
                        knobs.only(stringify!($module), claims.knobs)?;
                        Ok(Box::new($module::build(knobs)?))
                    } )+
                }
            }

            /// What it promises.
            pub fn claims(self) -> &'static Claims {
                match self { $( Method::$variant => &$module::CLAIMS, )+ }
            }

            /// Name in the field, with the source.
            pub fn title(self) -> &'static str {
                match self { $( Method::$variant => concat!($($doc),+).trim_ascii(), )+ }
            }
        }
    };
}
pub(super) use registry;

impl super::Method {
    /// The name on the command line.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().expect("no method is hidden").get_name().to_string()
    }

    /// The table of methods, as Markdown.
    pub fn table() -> String {
        let mut t = String::from(
            "| `--estimator` | method | its gradient, in the mean | what is random | forward passes | flags |\n\
             |---|---|---|---|---|---|\n",
        );
        for m in Self::ALL {
            let c = m.claims();
            let mean = match c.mean {
                Mean::Exact => "exact",
                Mean::Biased => "biased",
                Mean::Relaxed => "of a relaxed loss",
            };
            let random = match c.randomness {
                Randomness::None => "nothing",
                Randomness::States => "states",
                Randomness::LastStates => "last states",
                Randomness::Continuous => "continuous noise",
            };
            let knobs: Vec<String> = c.knobs.iter().map(|k| format!("`--{k}`")).collect();
            let knobs = if knobs.is_empty() { "none".into() } else { knobs.join(", ") };
            t += &format!(
                "| `{}` | {} ({}) | {mean} | {random} | {} | {knobs} |\n",
                m.name(),
                m.title(),
                c.source,
                c.passes
            );
        }
        t
    }
}
