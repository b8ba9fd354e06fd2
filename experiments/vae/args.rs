//! Command line of `vae`: every option with its default and the source of the default.
use clap::Parser;
use serde::{Deserialize, Serialize};
use thruway::data::ImageSet;
use thruway::error::{Error, Result};
use thruway::estimators::{Estimator, Knobs, Tau};
use thruway::exact;
use thruway::nn::vae::Activation;
use thruway::optim::Method;
use thruway::report::published;
use thruway::run::RunArgs;

/// Trains a categorical VAE through a gradient estimator and reports -ELBO in nats.
///
/// A preset sets sizes, batch, length and, from Table 8 of Liu et al. 2023, optimizer, learning rate and temperature of the
/// estimator; every option given beside it wins.
#[derive(Debug, Parser)]
#[command(name = "vae", version)]
pub struct Args {
    /// A column of the paper's Tables 2 and 5, categories x latents
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Data set [default: mnist]
    #[arg(long, value_enum)]
    pub dataset: Option<ImageSet>,
    /// Gradient estimator [default: reinmax]
    #[arg(long)]
    pub estimator: Option<String>,
    /// Temperature of the surrogate: a number, linear:FROM:TO:STEPS or exponential:FROM:TO:STEPS [default: the preset's,
    /// else 1]
    #[arg(long)]
    pub tau: Option<String>,
    /// Monte Carlo samples of gumbel-rao [default: 100, the published code's; the paper's tables have 1000]
    #[arg(long, allow_hyphen_values = true)]
    pub samples: Option<i64>,
    /// Gap of gst, nats [default: 1.0]
    #[arg(long, allow_hyphen_values = true)]
    pub gap: Option<f64>,
    /// Categories of each latent variable, K [default: the preset's, else 8]
    #[arg(long, allow_hyphen_values = true)]
    pub categorical_dim: Option<i64>,
    /// Latent variables, L [default: the preset's, else 4]
    #[arg(long, allow_hyphen_values = true)]
    pub latent_dim: Option<i64>,
    /// Nonlinearity of the hidden layers [default: relu; leakyrelu for 64x32]
    #[arg(long, value_enum)]
    pub activation: Option<Activation>,
    /// Optimizer [default: the preset's from Table 8, else adam]
    #[arg(long, value_enum)]
    pub optimizer: Option<Method>,
    /// Learning rate [default: the preset's from Table 8, else 0.001]
    #[arg(long, allow_hyphen_values = true)]
    pub lr: Option<f64>,
    /// Images a step [default: 100; 200 for 64x32 (Appendix F.2)]
    #[arg(long, allow_hyphen_values = true)]
    pub batch_size: Option<i64>,
    /// Epochs to train [default: 160 (Appendix F.2); 64x32: 500,000 steps]
    #[arg(long, allow_hyphen_values = true)]
    pub epochs: Option<i64>,
    /// Steps to train; with --epochs the first reached ends the run [default: no limit]
    #[arg(long, allow_hyphen_values = true)]
    pub steps: Option<i64>,
    /// Measure bias, standard deviation and cosine of every estimator against the exact gradient at each epoch (Fig. 4)
    #[arg(long)]
    pub probe: bool,
    /// Draws for the probe of an estimator whose mean cannot be enumerated (the published code's 1024)
    #[arg(long, default_value_t = 1024, allow_hyphen_values = true)]
    pub probe_draws: i64,
    /// Record drawn classes and logits of every step into draws.safetensors, to find a first differing draw
    #[arg(long)]
    pub record_draws: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Columns of Tables 2 and 5: categories x latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// Table 2
    #[value(name = "8x4")]
    P8x4,
    /// Table 2
    #[value(name = "4x24")]
    P4x24,
    /// Table 2
    #[value(name = "8x16")]
    P8x16,
    /// Table 2
    #[value(name = "16x12")]
    P16x12,
    /// Table 2
    #[value(name = "64x8")]
    P64x8,
    /// Table 2
    #[value(name = "10x30")]
    P10x30,
    /// Table 5: 64 categories, 32 latents, batch 200, 500,000 steps, LeakyReLU
    #[value(name = "64x32")]
    P64x32,
}

impl Preset {
    fn sizes(self) -> (i64, i64) {
        match self {
            Preset::P8x4 => (8, 4),
            Preset::P4x24 => (4, 24),
            Preset::P8x16 => (8, 16),
            Preset::P16x12 => (16, 12),
            Preset::P64x8 => (64, 8),
            Preset::P10x30 => (10, 30),
            Preset::P64x32 => (64, 32),
        }
    }

    /// The name on the command line.
    pub fn name(self) -> String {
        let (k, l) = self.sizes();
        format!("{k}x{l}")
    }
}

/// Everything that decides the numbers of a run, defaults filled in; the `config` of config.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub dataset: ImageSet,
    pub preset: Option<String>,
    pub estimator: Estimator,
    pub tau: Option<String>,
    pub samples: Option<i64>,
    pub gap: Option<f64>,
    pub categorical_dim: i64,
    pub latent_dim: i64,
    pub activation: Activation,
    pub optimizer: Method,
    pub lr: f64,
    pub batch_size: i64,
    pub epochs: Option<i64>,
    pub steps: Option<i64>,
    pub probe: bool,
    pub probe_draws: i64,
}

/// Largest K L: a layer of 512 times as many weights still fits in memory.
const MAX_CODE: i64 = 1_000_000;

impl Config {
    /// Fills in the preset and the defaults, and refuses what makes no sense.
    pub fn new(args: &Args) -> Result<(Config, Knobs)> {
        let estimator = Estimator::by_name(args.estimator.as_deref().unwrap_or("reinmax"))?;
        let (k, l) = args.preset.map_or((8, 4), Preset::sizes);
        let wide = args.preset == Some(Preset::P64x32);
        let hyper = args.preset.and_then(|p| published::hyper(&p.name(), &estimator.name()));
        let takes = |knob| estimator.claims().knobs.contains(&knob);
        let given = args.tau.clone().or_else(|| hyper.as_ref().map(|h| h.tau.to_string()));
        let tau = if takes("tau") { Some(given.unwrap_or("1".into())) } else { args.tau.clone() };
        let samples = args.samples.or((estimator == Estimator::GumbelRao).then_some(100));
        let gap = if takes("gap") { Some(args.gap.unwrap_or(1.0)) } else { args.gap };
        let knobs = Knobs { tau: tau.as_deref().map(str::parse::<Tau>).transpose()?, samples, gap, ..Knobs::default() };
        estimator.build(&knobs)?;
        let positive = |what: &str, v: Option<i64>| match v {
            Some(n) if n < 1 => Err(Error::range(what, "at least 1", n)),
            v => Ok(v),
        };
        let steps = positive("--steps", args.steps)?.or((wide && args.epochs.is_none()).then_some(500_000));
        let epochs = positive("--epochs", args.epochs)?.or(steps.is_none().then_some(160));
        let optimizer = match (args.optimizer, &hyper) {
            (Some(o), _) => o,
            (None, Some(h)) if h.optimizer.eq_ignore_ascii_case("radam") => Method::RAdam,
            _ => Method::Adam,
        };
        let lr = args.lr.or(hyper.as_ref().map(|h| h.lr)).unwrap_or(1e-3);
        if !(lr.is_finite() && lr > 0.0) {
            return Err(Error::range("--lr", "positive and finite", lr));
        }
        let config = Config {
            dataset: args.dataset.unwrap_or(ImageSet::Mnist),
            preset: args.preset.map(Preset::name),
            estimator,
            tau,
            samples,
            gap,
            categorical_dim: positive("--categorical-dim", args.categorical_dim)?.unwrap_or(k),
            latent_dim: positive("--latent-dim", args.latent_dim)?.unwrap_or(l),
            activation: args.activation.unwrap_or(if wide { Activation::LeakyRelu } else { Activation::Relu }),
            optimizer,
            lr,
            batch_size: positive("--batch-size", args.batch_size)?.unwrap_or(if wide { 200 } else { 100 }),
            epochs,
            steps,
            probe: args.probe,
            probe_draws: positive("--probe-draws", Some(args.probe_draws))?.unwrap_or(1024),
        };
        let (k, l) = (config.categorical_dim, config.latent_dim);
        if k.checked_mul(l).is_none_or(|n| n > MAX_CODE) {
            let what = "--categorical-dim times --latent-dim";
            return Err(Error::range(what, format!("at most {MAX_CODE}"), format!("{k} x {l}")));
        }
        if config.probe || estimator == Estimator::Exact {
            exact::count(l, k)?; // refused before a directory is made
        }
        Ok((config, knobs))
    }
}
