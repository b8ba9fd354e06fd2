//! The published settings, as far as they are known; what is not stated and had to be chosen is listed in the README.
use thruway::data::{Binarisation, ImageSet};
use thruway::dist::bernoulli::Code;
use thruway::nn::belief::{Hidden, Init, Prior};
use thruway::nn::elbo::Kl;

/// A published model with its training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// The 2x200 VAE as the authors of RODEO run it (Table 6 of Liu et al. 2023, all rows but ReinMax's)
    #[value(name = "rodeo-2x200")]
    Rodeo2x200,
    /// The same network as the authors of ReinMax run it (Table 6, ReinMax's row)
    #[value(name = "reinmax-2x200")]
    Reinmax2x200,
    /// GSB Table 1: one-layer sigmoid belief network, linear
    GsbSbn1,
    /// GSB Table 1: two-layer sigmoid belief network, linear
    GsbSbn2,
    /// GSB Table 1: Bernoulli VAE
    GsbVae,
    /// GSB Tables 2 and 3: one-layer belief network of 20 variables of 10 classes, linear
    GsbCat1,
    /// GSB Tables 2 and 3: categorical VAE of 20 variables of 10 classes
    GsbCatVae,
    /// FouST Fig. 5: one stochastic layer of 200
    #[value(name = "foust-1")]
    Foust1,
    /// FouST Tables 1 and 2: two of 200
    #[value(name = "foust-2")]
    Foust2,
    /// FouST Table 2: three of 200
    #[value(name = "foust-3")]
    Foust3,
    /// FouST Table 1: five of 200
    #[value(name = "foust-5")]
    Foust5,
    /// FouST Table 2: eight of 500
    #[value(name = "foust-8")]
    Foust8,
    /// FouST Table 2: twenty of 500
    #[value(name = "foust-20")]
    Foust20,
}

/// Everything a preset decides.
pub struct Defaults {
    pub layers: i64,
    pub latents: i64,
    pub categories: Option<i64>,
    pub hidden_layers: i64,
    pub hidden: i64,
    pub activation: Hidden,
    pub code: Code,
    pub prior: Prior,
    pub init: Init,
    pub centred: bool,
    pub doubled: bool,
    pub binarisation: Binarisation,
    pub kl: Kl,
    pub estimator: &'static str,
    pub tau: Option<&'static str>,
    /// Draws of a step, where the estimator takes a number of them.
    pub samples: Option<i64>,
    pub optimizer: &'static str,
    pub lr: f64,
    pub batch_size: i64,
    pub epochs: Option<i64>,
    pub steps: Option<i64>,
}

/// Of the preset, else of `rodeo-2x200`, for a data set and number of draws.
pub fn defaults(preset: Option<Preset>, dataset: ImageSet, samples: Option<i64>) -> Defaults {
    let rodeo = Defaults {
        layers: 1,
        latents: 200,
        categories: None,
        hidden_layers: 2,
        hidden: 200,
        activation: Hidden::LeakyRelu,
        code: Code::ZeroOne,
        prior: Prior::Uniform,
        init: Init::Glorot,
        centred: false,
        doubled: false,
        binarisation: Binarisation::Dynamic,
        kl: Kl::Sampled,
        estimator: "rodeo",
        tau: None,
        samples: Some(2),
        optimizer: "adam",
        lr: if dataset == ImageSet::FashionMnist { 3e-4 } else { 1e-3 },
        batch_size: 100,
        epochs: None,
        steps: Some(1_000_000),
    };
    match preset.unwrap_or(Preset::Rodeo2x200) {
        Preset::Rodeo2x200 => rodeo,
        Preset::Reinmax2x200 => {
            let wide = dataset == ImageSet::Omniglot && samples == Some(3);
            Defaults {
                prior: Prior::Trained,
                init: Init::Pytorch,
                doubled: true,
                binarisation: Binarisation::Static,
                kl: Kl::Analytic,
                estimator: "reinmax",
                tau: Some(if wide { "1.2" } else { "1.1" }),
                optimizer: "radam",
                lr: if wide { 5e-4 } else { 3e-4 },
                ..rodeo
            }
        }
        Preset::GsbSbn1 => Defaults { hidden_layers: 0, ..gsb(rodeo, dataset) },
        Preset::GsbSbn2 => Defaults { hidden_layers: 0, layers: 2, ..gsb(rodeo, dataset) },
        Preset::GsbVae => gsb(rodeo, dataset),
        Preset::GsbCat1 => Defaults { hidden_layers: 0, latents: 20, categories: Some(10), ..gsb(rodeo, dataset) },
        Preset::GsbCatVae => Defaults { latents: 20, categories: Some(10), ..gsb(rodeo, dataset) },
        Preset::Foust1 => foust(rodeo, 1, 200),
        Preset::Foust2 => foust(rodeo, 2, 200),
        Preset::Foust3 => foust(rodeo, 3, 200),
        Preset::Foust5 => foust(rodeo, 5, 200),
        Preset::Foust8 => foust(rodeo, 8, 500),
        Preset::Foust20 => foust(rodeo, 20, 500),
    }
}

/// The architectures of TF-REBAR and RELAX, which GSB and FouST follow.
fn relax(base: Defaults) -> Defaults {
    Defaults {
        activation: Hidden::Tanh,
        code: Code::PlusMinus,
        prior: Prior::Trained,
        centred: true,
        binarisation: Binarisation::Static,
        ..base
    }
}

fn gsb(base: Defaults, dataset: ImageSet) -> Defaults {
    Defaults {
        estimator: "local-expectation",
        samples: Some(1),
        lr: 1e-4,
        epochs: Some(if dataset == ImageSet::Omniglot { 100 } else { 500 }),
        steps: None,
        ..relax(base)
    }
}

fn foust(base: Defaults, layers: i64, units: i64) -> Defaults {
    Defaults {
        layers,
        latents: units,
        hidden: units,
        estimator: "foust",
        samples: None,
        optimizer: "sgd",
        lr: 4e-4,
        batch_size: 128,
        epochs: Some(100),
        steps: None,
        ..relax(base)
    }
}
