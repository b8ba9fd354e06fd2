//! Command line of `sbn-vae`: every option with its default and the source of the default.
use crate::presets::{Defaults, Preset, defaults};
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thruway::data::{Binarisation, ImageSet};
use thruway::dist::bernoulli::Code;
use thruway::error::{Error, Result};
use thruway::estimators::{Built, Estimator, GradEstimator, Knobs, Sizes, Tau};
use thruway::exact;
use thruway::nn::belief::{Hidden, Init, Prior, Shape};
use thruway::nn::elbo::Kl;
use thruway::nn::vae::PIXELS;
use thruway::run::RunArgs;

/// Trains VAEs and sigmoid belief networks with Boolean or categorical latents through any estimator, drop-in or score
/// function, and reports -ELBO and log-likelihood in nats.
///
/// A preset sets the model, the data's treatment and the training of a published comparison; every option given beside it
/// wins. Without one the settings are those of rodeo-2x200.
#[derive(Debug, Parser)]
#[command(name = "sbn-vae", version)]
pub struct Args {
    /// A published comparison [default: rodeo-2x200]
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Data set [default: mnist]
    #[arg(long, value_enum)]
    pub dataset: Option<ImageSet>,
    /// How pixels become black and white [default: the preset's; dynamic (Shi et al. 2022)]
    #[arg(long, value_enum)]
    pub binarisation: Option<Binarisation>,
    /// Training images taken, the first ones; the rest is for validation [default: 50000; omniglot: 23000 (all published)]
    #[arg(long, allow_hyphen_values = true)]
    pub train_images: Option<i64>,
    /// Gradient estimator [default: the preset's; rodeo]
    #[arg(long)]
    pub estimator: Option<String>,
    /// Draws K of a step: the estimator's own number, or for a drop-in independent draws whose losses are averaged; for
    /// gumbel-rao its Monte Carlo samples. Refused where the estimator has no choice [default: the preset's; 2]
    #[arg(long, allow_hyphen_values = true)]
    pub samples: Option<i64>,
    /// Temperature of the surrogate: a number, linear:FROM:TO:STEPS or exponential:FROM:TO:STEPS; rebar, relax: where it starts
    /// [default: the preset's, else the estimator's]
    #[arg(long)]
    pub tau: Option<String>,
    /// Gap of gst, nats [default: 1.0]
    #[arg(long, allow_hyphen_values = true)]
    pub gap: Option<f64>,
    /// Decay of the moving-average baseline of reinforce and nvil [default: no baseline; nvil 0.9]
    #[arg(long, allow_hyphen_values = true)]
    pub decay: Option<f64>,
    /// Interval of foust's uniform noise, relative to the scale; 0 is off [default: 0.1 (Appendix E)]
    #[arg(long, allow_hyphen_values = true)]
    pub interval: Option<f64>,
    /// Scale of foust's representation; 1 is off [default: 1, not stated for these networks]
    #[arg(long, allow_hyphen_values = true)]
    pub scale: Option<f64>,
    /// Stochastic layers [default: the preset's; 1]
    #[arg(long, allow_hyphen_values = true)]
    pub layers: Option<i64>,
    /// Latent variables of each stochastic layer [default: the preset's; 200]
    #[arg(long, allow_hyphen_values = true)]
    pub latent_dim: Option<i64>,
    /// Classes of each latent variable; 2 stands for Boolean ones [default: the preset's; 2]
    #[arg(long, allow_hyphen_values = true)]
    pub categorical_dim: Option<i64>,
    /// Hidden layers of each conditional distribution; 0 is linear [default: the preset's; 2]
    #[arg(long, allow_hyphen_values = true)]
    pub hidden_layers: Option<i64>,
    /// Units of a hidden layer [default: the preset's; 200]
    #[arg(long, allow_hyphen_values = true)]
    pub hidden_dim: Option<i64>,
    /// Nonlinearity of the hidden layers [default: the preset's; leakyrelu]
    #[arg(long, value_enum)]
    pub activation: Option<Hidden>,
    /// Values of Boolean latents as the layers see them [default: the preset's; zero-one]
    #[arg(long, value_enum)]
    pub code: Option<Code>,
    /// Prior of the topmost latents [default: the preset's; uniform]
    #[arg(long, value_enum)]
    pub prior: Option<Prior>,
    /// How fresh weights are drawn [default: the preset's; glorot]
    #[arg(long, value_enum)]
    pub init: Option<Init>,
    /// Divergence from the prior: of the draw, or in closed form [default: the preset's; sampled]
    #[arg(long, value_enum)]
    pub kl: Option<Kl>,
    /// Optimizer: sgd has momentum 0.9 [default: the preset's; adam]
    #[arg(long, value_enum)]
    pub optimizer: Option<Optimizer>,
    /// Learning rate [default: the preset's; 0.001, fashion-mnist 0.0003]
    #[arg(long, allow_hyphen_values = true)]
    pub lr: Option<f64>,
    /// Learning rate of what the estimator learns, by Adam [default: 0.001 for rodeo and double-cv, --lr for relax, ten times
    /// --lr for nvil and rebar, as published]
    #[arg(long, allow_hyphen_values = true)]
    pub cv_lr: Option<f64>,
    /// Images a step [default: the preset's; 100]
    #[arg(long, allow_hyphen_values = true)]
    pub batch_size: Option<i64>,
    /// Epochs to train [default: the preset's]
    #[arg(long, allow_hyphen_values = true)]
    pub epochs: Option<i64>,
    /// Steps to train; with --epochs the first reached ends the run [default: the preset's; 1,000,000]
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    /// Draws for the test log-likelihood at the end of the run (GSB: 200); 0: none
    #[arg(long, default_value_t = 200, allow_hyphen_values = true)]
    pub ll_samples: i64,
    /// Gradients of one batch at each evaluation, for their variance, at least 2; 0: none
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    pub grad_draws: i64,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What moves the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam (Kingma & Ba 2015)
    Adam,
    /// RAdam (Liu et al. 2020)
    #[value(name = "radam")]
    RAdam,
    /// Gradient descent with momentum 0.9
    Sgd,
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub dataset: ImageSet,
    pub preset: Option<String>,
    pub binarisation: Binarisation,
    pub train_images: i64,
    pub estimator: Estimator,
    pub samples: Option<i64>,
    pub tau: Option<String>,
    pub gap: Option<f64>,
    pub decay: Option<f64>,
    pub interval: Option<f64>,
    pub scale: Option<f64>,
    pub layers: i64,
    pub latent_dim: i64,
    pub categorical_dim: i64,
    pub hidden_layers: i64,
    pub hidden_dim: i64,
    pub activation: Hidden,
    pub code: Option<Code>,
    pub prior: Prior,
    pub init: Init,
    pub centred: bool,
    pub doubled: bool,
    pub kl: Kl,
    pub optimizer: Optimizer,
    pub lr: f64,
    pub cv_lr: f64,
    pub batch_size: i64,
    pub epochs: Option<i64>,
    pub steps: Option<i64>,
    pub ll_samples: i64,
    pub grad_draws: i64,
}

fn at_least(least: i64, what: &str, v: i64) -> Result<i64> {
    if v < least { Err(Error::range(what, format!("at least {least}"), v)) } else { Ok(v) }
}

fn rate(what: &str, v: f64) -> Result<f64> {
    if v.is_finite() && v > 0.0 { Ok(v) } else { Err(Error::range(what, "positive and finite", v)) }
}

/// Whether the number of draws is the estimator's own business.
fn takes_samples(estimator: Estimator) -> bool {
    estimator.claims().knobs.contains(&"samples")
}

impl Config {
    /// Fills in the preset and the defaults, and refuses what makes no sense.
    pub fn new(args: &Args) -> Result<Config> {
        let dataset = args.dataset.unwrap_or(ImageSet::Mnist);
        let d: Defaults = defaults(args.preset, dataset, args.samples);
        let estimator = Estimator::by_name(args.estimator.as_deref().unwrap_or(d.estimator))?;
        let categorical_dim = at_least(2, "--categorical-dim", args.categorical_dim.or(d.categories).unwrap_or(2))?;
        let own = estimator.name() == d.estimator;
        let given = args.samples.map(|n| at_least(1, "--samples", n)).transpose()?;
        let steps = args.steps.map(|n| at_least(1, "--steps", n)).transpose()?;
        let epochs = args.epochs.map(|n| at_least(1, "--epochs", n)).transpose()?;
        // a length given replaces the preset's, whichever unit it is in
        let (epochs, steps) = if epochs.or(steps).is_some() { (epochs, steps) } else { (d.epochs, d.steps) };
        let lr = rate("--lr", args.lr.unwrap_or(d.lr))?;
        let default_cv = match estimator {
            Estimator::Nvil | Estimator::Rebar => 10.0 * lr,
            Estimator::Relax => lr,
            _ => 1e-3,
        };
        let preset = args.preset.and_then(|p| Some(p.to_possible_value()?.get_name().to_string()));
        let optimizer = args.optimizer.map_or_else(|| Optimizer::from_str(d.optimizer, false), Ok);
        let whole = if dataset == ImageSet::Omniglot { 23_000 } else { 50_000 };
        // one draw is for the preset's estimator and for drop-ins; another that chooses its number compares at least two
        let default = d.samples.map(|n| if own || !takes_samples(estimator) { n } else { n.max(2) });
        let samples = given.or(default.filter(|_| estimator != Estimator::GumbelRao));
        // where RODEO's authors start RELAX's temperature
        let theirs = args.preset.unwrap_or(Preset::Rodeo2x200) == Preset::Rodeo2x200 && estimator == Estimator::Relax;
        let relax = theirs.then_some("0.1");
        let mut config = Config {
            dataset,
            preset,
            binarisation: args.binarisation.unwrap_or(d.binarisation),
            train_images: at_least(1, "--train-images", args.train_images.unwrap_or(whole))?,
            estimator,
            samples,
            tau: args.tau.clone().or(d.tau.filter(|_| own).or(relax).map(String::from)),
            gap: args.gap,
            decay: args.decay,
            interval: args.interval,
            scale: args.scale,
            layers: at_least(1, "--layers", args.layers.unwrap_or(d.layers))?,
            latent_dim: at_least(1, "--latent-dim", args.latent_dim.unwrap_or(d.latents))?,
            categorical_dim,
            hidden_layers: at_least(0, "--hidden-layers", args.hidden_layers.unwrap_or(d.hidden_layers))?,
            hidden_dim: at_least(1, "--hidden-dim", args.hidden_dim.unwrap_or(d.hidden))?,
            activation: args.activation.unwrap_or(d.activation),
            code: (categorical_dim == 2).then(|| args.code.unwrap_or(d.code)),
            prior: args.prior.unwrap_or(d.prior),
            init: args.init.unwrap_or(d.init),
            centred: d.centred,
            doubled: d.doubled,
            kl: args.kl.unwrap_or(d.kl),
            optimizer: optimizer.map_err(Error::Usage)?,
            lr,
            cv_lr: rate("--cv-lr", args.cv_lr.unwrap_or(default_cv))?,
            batch_size: at_least(1, "--batch-size", args.batch_size.unwrap_or(d.batch_size))?,
            epochs,
            steps,
            ll_samples: at_least(0, "--ll-samples", args.ll_samples)?,
            grad_draws: at_least(0, "--grad-draws", args.grad_draws)?,
        };
        config.refuse_what_goes_unused(args)?;
        config.refuse_what_cannot_be()?;
        // built once with the smallest sizes: what it refuses it refuses here, and what it takes and learns shows
        let built =
            estimator.build(&config.knobs(Sizes { latents: Some(1), context: Some(1), ..Sizes::default() })?)?;
        if matches!(built, Built::Wide(..)) && !takes_samples(estimator) {
            config.samples = None;
            if given.is_some() {
                estimator.build(&Knobs { samples: given, ..config.knobs(Sizes::default())? })?;
            }
        }
        if args.cv_lr.is_some() && built.parameters().is_empty() {
            return Err(Error::Usage(format!(
                "--cv-lr is for estimators that learn, and {} does not",
                estimator.name()
            )));
        }
        Ok(config)
    }

    /// Options that would change nothing.
    fn refuse_what_goes_unused(&self, args: &Args) -> Result<()> {
        let unused = |flag: &str, why: &str| Err(Error::Usage(format!("{flag} changes nothing {why}; leave it out")));
        if args.code.is_some() && self.categorical_dim > 2 {
            return unused("--code", &format!("for variables of {} classes", self.categorical_dim));
        }
        if self.hidden_layers == 0 && (args.hidden_dim.is_some() || args.activation.is_some()) {
            let flag = if args.hidden_dim.is_some() { "--hidden-dim" } else { "--activation" };
            return unused(flag, "without hidden layers");
        }
        if self.grad_draws == 1 {
            return Err(Error::range("--grad-draws", "0, or at least 2 for a variance", 1));
        }
        Ok(())
    }

    /// Settings that do not go together.
    fn refuse_what_cannot_be(&self) -> Result<()> {
        let sampled = |why: &str| Err(Error::Usage(format!("--kl analytic {why}; give --kl sampled")));
        if self.kl == Kl::Analytic && self.layers > 1 {
            return sampled("is for one stochastic layer: the divergence of several has no closed form");
        }
        if self.kl == Kl::Analytic && self.estimator == Estimator::Vimco {
            return sampled("would take the divergence out of the bound that vimco optimises, and leave no bound");
        }
        if self.doubled && self.categorical_dim > 2 {
            let why = "has logits 2 o - 1, which is for bits; leave the preset or --categorical-dim out";
            return Err(Error::Usage(format!("--preset reinmax-2x200 {why}")));
        }
        let states = (self.categorical_dim as f64).powi(self.latent_dim.min(10_000) as i32);
        if self.estimator == Estimator::Exact && states > exact::MAX_STATES as f64 {
            return Err(Error::range(
                "--latent-dim with --estimator exact",
                format!("few enough variables of {} classes for {} states", self.categorical_dim, exact::MAX_STATES),
                self.latent_dim,
            ));
        }
        Ok(())
    }

    /// What options given beside the preset have changed, as in `lr 0.01, preset 0.001`; length and measurements aside. `None`
    /// without a preset.
    pub fn beside_preset(&self, args: &Args) -> Result<Option<Vec<String>>> {
        if args.preset.is_none() {
            return Ok(None);
        }
        let bare = Args {
            preset: args.preset,
            dataset: args.dataset,
            estimator: args.estimator.clone(),
            samples: args.samples,
            ..Args::parse_from(["sbn-vae"])
        };
        let (ours, theirs) = (serde_json::to_value(self)?, serde_json::to_value(Config::new(&bare)?)?);
        let aside = ["epochs", "steps", "ll_samples", "grad_draws"];
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), String::from);
        let all =
            ours.as_object().into_iter().flatten().filter(|(k, v)| !aside.contains(&k.as_str()) && theirs[*k] != **v);
        let line =
            |(k, v): (&String, &Value)| format!("{} {}, preset {}", k.replace('_', " "), text(v), text(&theirs[k]));
        Ok(Some(all.map(line).collect()))
    }

    /// Independent draws of a drop-in.
    pub fn draws(&self) -> i64 {
        if takes_samples(self.estimator) { 1 } else { self.samples.unwrap_or(1) }
    }

    /// The estimator's parameters, with the sizes of what it may learn.
    pub fn knobs(&self, sizes: Sizes) -> Result<Knobs> {
        Ok(Knobs {
            tau: self.tau.as_deref().map(str::parse::<Tau>).transpose()?,
            samples: self.samples.filter(|_| takes_samples(self.estimator)),
            gap: self.gap,
            decay: self.decay,
            interval: self.interval,
            scale: self.scale,
            code: self.code,
            sizes,
        })
    }

    /// The network.
    pub fn shape(&self) -> Shape {
        Shape {
            pixels: PIXELS,
            latents: vec![self.latent_dim; self.layers as usize],
            categories: self.code.is_none().then_some(self.categorical_dim),
            hidden: (self.hidden_layers as usize, self.hidden_dim),
            activation: self.activation,
            code: self.code.unwrap_or(Code::ZeroOne),
            scale: self.scale.unwrap_or(1.0),
            prior: self.prior,
            init: self.init,
            doubled: self.doubled,
        }
    }
}
