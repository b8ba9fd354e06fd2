//! Command line of `poly`: every option with its default and the source of the default.
use crate::problem::Target;
use clap::Parser;
use serde::{Deserialize, Serialize};
use thruway::dist::bernoulli::Code;
use thruway::error::{Error, Result};
use thruway::estimators::{Estimator, GradEstimator, Knobs, Sizes, Takes, Tau};
use thruway::optim::Method;
use thruway::run::RunArgs;

/// Steps that the published code calls an epoch.
pub const EPOCH: i64 = 200;

/// Minimises E sum_l |X_l - c_l|^p / L over the logits of L independent binary variables, through a gradient estimator.
///
/// Reports the objective as sampled and, in closed form, as it is. Defaults are those of Liu et al. 2023, Section 6.1 and
/// Appendix F.2; lengths are those of the published code.
#[derive(Debug, Parser)]
#[command(name = "poly", version)]
pub struct Args {
    /// The exponent p, at least 1 (Fig. 1: 1.5, 2 and 3)
    #[arg(long, default_value_t = 2.0, allow_hyphen_values = true)]
    pub power: f64,
    /// Binary variables, L (Section 6.1)
    #[arg(long, default_value_t = 128, allow_hyphen_values = true)]
    pub latent_dim: i64,
    /// What the variables are drawn towards
    #[arg(long, value_enum, default_value_t = Target::A)]
    pub target: Target,
    /// Gradient estimator
    #[arg(long, default_value = "reinmax")]
    pub estimator: String,
    /// Temperature of the surrogate: a number, linear:FROM:TO:STEPS or exponential:FROM:TO:STEPS [default: 1, the published
    /// script's; the paper tuned it and does not give it]
    #[arg(long)]
    pub tau: Option<String>,
    /// Monte Carlo samples of gumbel-rao [default: 100, the published code's; the paper has 1000]; draws of the score functions
    /// [default: the estimator's]
    #[arg(long, allow_hyphen_values = true)]
    pub samples: Option<i64>,
    /// Gap of gst, nats [default: 1.0]
    #[arg(long, allow_hyphen_values = true)]
    pub gap: Option<f64>,
    /// Interval of foust's uniform noise, relative to the scale; 0 is off [default: 0.1 (FouST, Appendix E)]
    #[arg(long, allow_hyphen_values = true)]
    pub interval: Option<f64>,
    /// Scale of foust's representation; 1 is off, and here others change no more than rounding, as the objective undoes them
    /// [default: 1]
    #[arg(long, allow_hyphen_values = true)]
    pub scale: Option<f64>,
    /// Optimizer (Appendix F.2)
    #[arg(long, value_enum, default_value_t = Method::Adam)]
    pub optimizer: Method,
    /// Learning rate (Appendix F.2)
    #[arg(long, default_value_t = 1e-3, allow_hyphen_values = true)]
    pub lr: f64,
    /// Samples a step (Section 6.1; the published code's default is 64)
    #[arg(long, default_value_t = 256, allow_hyphen_values = true)]
    pub batch_size: i64,
    /// Epochs to train, of 200 steps [default: 40, the published code's]
    #[arg(long, allow_hyphen_values = true)]
    pub epochs: Option<i64>,
    /// Steps to train; with --epochs the first reached ends the run [default: 8000, or no limit with --epochs]
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub power: f64,
    pub target: Target,
    /// 2, so that tables can say categories x latents as for a VAE.
    pub categorical_dim: i64,
    pub latent_dim: i64,
    pub estimator: Estimator,
    pub tau: Option<String>,
    pub samples: Option<i64>,
    pub gap: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    pub optimizer: Method,
    pub lr: f64,
    pub batch_size: i64,
    pub steps: i64,
}

/// Largest number of variables drawn a step: 4 GB of logits.
const MAX_STATES: i64 = 500_000_000;

impl Config {
    /// Fills in the defaults and refuses what makes no sense; the problem and the optimizer check their own values.
    pub fn new(args: &Args) -> Result<(Config, Knobs)> {
        let estimator = Estimator::by_name(&args.estimator)?;
        let takes = |knob| estimator.claims().knobs.contains(&knob);
        let tau = if takes("tau") { Some(args.tau.clone().unwrap_or("1".into())) } else { args.tau.clone() };
        let samples = args.samples.or((estimator == Estimator::GumbelRao).then_some(100));
        let gap = if takes("gap") { Some(args.gap.unwrap_or(1.0)) } else { args.gap };
        let code = (estimator.claims().variables == Takes::Boolean).then_some(Code::ZeroOne);
        if args.latent_dim.checked_mul(args.batch_size).is_none_or(|n| n > MAX_STATES) {
            let (what, given) =
                ("--latent-dim times --batch-size", format!("{} x {}", args.latent_dim, args.batch_size));
            return Err(Error::range(what, format!("at most {MAX_STATES}"), given));
        }
        let sizes = Sizes { latents: Some(args.latent_dim.max(1)), ..Sizes::default() };
        let tau_knob = tau.as_deref().map(str::parse::<Tau>).transpose()?;
        let (interval, scale) = (args.interval, args.scale);
        let knobs = Knobs { tau: tau_knob, samples, gap, interval, scale, code, sizes, ..Knobs::default() };
        if estimator == Estimator::Vimco {
            return Err(Error::Usage(
                "vimco optimises a bound of several draws, which is not poly's objective; try sbn-vae".into(),
            ));
        }
        if !estimator.build(&knobs)?.parameters().is_empty() {
            let name = estimator.name();
            return Err(Error::Usage(format!(
                "{name} learns as it goes and poly trains nothing but the logits; try sbn-vae"
            )));
        }
        let positive = |what: &str, v: i64| if v < 1 { Err(Error::range(what, "at least 1", v)) } else { Ok(v) };
        let steps = args.steps.map(|n| positive("--steps", n)).transpose()?;
        let epochs = args.epochs.map(|n| positive("--epochs", n)).transpose()?;
        let steps = match (steps, epochs.map(|n| n.saturating_mul(EPOCH))) {
            (Some(a), Some(b)) => a.min(b),
            (Some(n), None) | (None, Some(n)) => n,
            (None, None) => 40 * EPOCH,
        };
        let config = Config {
            power: args.power,
            target: args.target,
            categorical_dim: 2,
            latent_dim: args.latent_dim,
            estimator,
            tau,
            samples,
            gap,
            interval,
            scale,
            optimizer: args.optimizer,
            lr: args.lr,
            batch_size: positive("--batch-size", args.batch_size)?,
            steps,
        };
        Ok((config, knobs))
    }
}
