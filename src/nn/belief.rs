//! Belief networks with discrete latents and their recognition networks: one architecture for the VAEs and sigmoid belief
//! networks of the score-function, FouST and GSB comparisons.
//!
//! `x <- b_1 <- b_2 <- .. <- b_D`, each conditional a perceptron, `b_D` from a factorised prior; the recognition network goes
//! the other way, `x -> b_1 -> .. -> b_D`. With D = 1 it is a variational auto-encoder.
use super::linear::{Linear, Params};
use crate::dist::bernoulli::{self, Code};
use crate::error::{Error, Result};
use crate::estimators::Variables;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Nonlinearity of hidden layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hidden {
    /// tanh (RELAX, FouST)
    Tanh,
    /// x for x > 0, 0.3 x below (DisARM, RODEO)
    #[value(name = "leakyrelu")]
    LeakyRelu,
}

impl Hidden {
    fn apply(self, h: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Hidden::Tanh => h.f_tanh()?,
            // libtorch's leaky_relu of tch has its slope fixed at 0.01
            Hidden::LeakyRelu => h.f_maximum(&(h * 0.3))?,
        })
    }
}

/// The distribution of the topmost latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prior {
    /// Every value equally likely
    Uniform,
    /// Logits trained with the rest, 0 at the start
    Trained,
}

/// How fresh weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// PyTorch's default for linear layers
    Pytorch,
    /// Keras's: Glorot uniform, zero biases
    Glorot,
}

/// What a network is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Pixels of an image.
    pub pixels: i64,
    /// Latent variables of each stochastic layer, from the pixels up: `[L_1, .., L_D]`.
    pub latents: Vec<i64>,
    /// K classes a variable; Boolean variables without.
    pub categories: Option<i64>,
    /// Hidden layers of each conditional distribution, and their width.
    pub hidden: (usize, i64),
    /// Their nonlinearity.
    pub activation: Hidden,
    /// How the layers that follow see Boolean variables.
    pub code: Code,
    /// A factor on that (FouST).
    pub scale: f64,
    /// Of the topmost layer.
    pub prior: Prior,
    /// Of the weights.
    pub init: Init,
    /// Logits are `2 o - 1`, o the recognition network's output: what the published code of the ReinMax comparison computes
    /// from the two classes `(o, 1 - o)`.
    pub doubled: bool,
}

/// A stack of linear layers with a nonlinearity between them.
#[derive(Debug)]
pub(super) struct Mlp {
    layers: Vec<Linear>,
    activation: Hidden,
}

impl Mlp {
    fn new(params: &mut Params, name: &str, ends: (i64, i64), shape: &Shape, device: Device) -> Result<Self> {
        let (count, width) = shape.hidden;
        let mut sizes = vec![ends.0];
        sizes.extend(std::iter::repeat_n(width, count));
        sizes.push(ends.1);
        let layers = sizes.windows(2).enumerate().map(|(i, pair)| {
            let name = format!("{name}.fc{}", i + 1);
            match shape.init {
                Init::Pytorch => Linear::new(params, &name, pair[0], pair[1], device),
                Init::Glorot => Linear::glorot(params, &name, pair[0], pair[1], device),
            }
        });
        Ok(Mlp { layers: layers.collect::<Result<_>>()?, activation: shape.activation })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.after_first(&self.first().forward(x)?)
    }

    pub(super) fn first(&self) -> &Linear {
        &self.layers[0]
    }

    pub(super) fn is_linear(&self) -> bool {
        self.layers.len() == 1
    }

    /// What follows the pre-activations of the first layer.
    pub(super) fn after_first(&self, pre: &Tensor) -> Result<Tensor> {
        let mut h = pre.shallow_clone();
        for layer in &self.layers[1..] {
            h = layer.forward(&self.activation.apply(&h)?)?;
        }
        Ok(h)
    }
}

/// A belief network with its recognition network.
///
/// Legend: `B` images, `M` draws of each, `D` stochastic layers, `L` variables of a layer, `K` classes. States are
/// `[M, B, L]` in the code (times the scale), or one-hot `[M, B, L, K]`.
#[derive(Debug)]
pub struct BeliefNet {
    shape: Shape,
    params: Params,
    encoder: Vec<Mlp>,
    pub(super) decoder: Vec<Mlp>,
    prior: Option<Tensor>,
    mean: Option<Tensor>,
    pub(super) output_bias: Option<Tensor>,
}

impl BeliefNet {
    /// A network with fresh parameters, created in this order: recognition `encoder.0`, `encoder.1`, .., generation
    /// `decoder.0` (to the pixels), `decoder.1`, .., then `prior`.
    ///
    /// # Errors
    /// [`Error::Range`] for a size below 1, no layer, or a scale that is not positive and finite.
    pub fn new(shape: Shape, device: Device) -> Result<Self> {
        if shape.latents.is_empty() {
            return Err(Error::range("stochastic layers", "at least 1", 0));
        }
        let least = [("latent variables", shape.latents.iter().min().copied()), ("hidden units", Some(shape.hidden.1))];
        for (what, n) in least.into_iter().filter_map(|(what, n)| Some((what, n?))) {
            if n < 1 {
                return Err(Error::range(what, "at least 1", n));
            }
        }
        if let Some(k) = shape.categories.filter(|&k| k < 1) {
            return Err(Error::range("classes", "at least 1", k));
        }
        if !(shape.scale.is_finite() && shape.scale > 0.0) {
            return Err(Error::range("scale", "positive and finite", shape.scale));
        }
        let mut params = Params::default();
        let width = |l: usize| if l == 0 { shape.pixels } else { shape.latents[l - 1] * shape.categories.unwrap_or(1) };
        let depth = shape.latents.len();
        let mut stack = |side: &str, l: usize, from: i64, to: i64| {
            Mlp::new(&mut params, &format!("{side}.{l}"), (from, to), &shape, device)
        };
        let encoder = (0..depth).map(|l| stack("encoder", l, width(l), width(l + 1))).collect::<Result<_>>()?;
        let decoder = (0..depth).map(|l| stack("decoder", l, width(l + 1), width(l))).collect::<Result<_>>()?;
        let prior = match shape.prior {
            Prior::Uniform => None,
            Prior::Trained => {
                let mut size = vec![shape.latents[depth - 1]];
                size.extend(shape.categories);
                Some(params.add("prior".into(), Tensor::f_zeros(size, (Kind::Float, Device::Cpu))?, device)?)
            }
        };
        Ok(BeliefNet { shape, params, encoder, decoder, prior, mean: None, output_bias: None })
    }

    /// Lets the recognition network see `x - mean`, and adds the logit of the mean, clipped to [0.001, 0.999], to the pixel
    /// logits: mean `[pixels]` of the training images. Not part of the parameters.
    pub fn centre(&mut self, mean: &Tensor) -> Result<()> {
        if mean.size() != [self.shape.pixels] {
            return Err(Error::shape("centre", format!("a mean [{}]", self.shape.pixels), mean.size()));
        }
        self.mean = Some(mean.detach());
        let m = mean.f_clamp(0.001, 0.999)?;
        self.output_bias = Some(m.f_log()? - m.f_neg()?.f_log1p()?);
        Ok(())
    }

    /// What it is made of.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// D, the number of stochastic layers.
    pub fn depth(&self) -> usize {
        self.shape.latents.len()
    }

    /// The kind of its latents.
    pub fn variables(&self) -> Variables {
        match self.shape.categories {
            Some(_) => Variables::Categorical,
            None => Variables::Boolean(self.shape.code),
        }
    }

    /// What the recognition network sees of images `[.., pixels]`.
    pub fn input(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.mean.as_ref().map_or(Ok(x.shallow_clone()), |m| x.f_sub(m))?)
    }

    /// Logits of `q(b_(layer + 1) | ..)`: [`input`](Self::input) `[1, B, pixels]` for layer 0, else the state before.
    pub fn recognise(&self, layer: usize, before: &Tensor) -> Result<Tensor> {
        let before = if layer == 0 { before.shallow_clone() } else { self.flat(before)? };
        let logits = self.encoder[layer].forward(&before)?;
        let logits = if self.shape.doubled { logits * 2.0 - 1.0 } else { logits };
        self.shaped(logits)
    }

    /// Logits of the layer below a state, `p(b_layer | b_(layer + 1))`; of the pixels for layer 0.
    pub fn generate(&self, layer: usize, state: &Tensor) -> Result<Tensor> {
        let logits = self.decoder[layer].forward(&self.flat(state)?)?;
        match layer {
            0 => self.to_pixels(logits),
            _ => self.shaped(logits),
        }
    }

    /// Pixel logits from the last layer's output.
    pub(super) fn to_pixels(&self, logits: Tensor) -> Result<Tensor> {
        Ok(self.output_bias.as_ref().map_or(Ok(logits.shallow_clone()), |b| logits.f_add(b))?)
    }

    /// Bias of the pixel logits where the decoder is linear, without a graph; that of its first layer otherwise.
    pub(super) fn to_pixels_bias(&self) -> Result<Tensor> {
        let decoder = &self.decoder[0];
        let bias = decoder.first().bias().detach();
        if decoder.is_linear() { self.to_pixels(bias) } else { Ok(bias) }
    }

    /// Logits of the topmost layer's prior, `[L]` or `[L, K]`.
    pub fn prior(&self) -> Result<Tensor> {
        match &self.prior {
            Some(prior) => Ok(prior.shallow_clone()),
            None => {
                let mut size = self.shape.latents.last().copied().into_iter().collect::<Vec<_>>();
                size.extend(self.shape.categories);
                let like = self.encoder[0].first().weight();
                Ok(Tensor::f_zeros(size, (like.kind(), like.device()))?)
            }
        }
    }

    /// Indicators (bits, one-hot rows) as the following layers see them.
    pub fn encode(&self, indicators: &Tensor) -> Result<Tensor> {
        let state = self.variables().encode(indicators)?;
        Ok(if self.shape.scale == 1.0 { state } else { state * self.shape.scale })
    }

    /// The inverse of [`encode`](Self::encode), also at values between the two of the code.
    pub fn indicators(&self, state: &Tensor) -> Result<Tensor> {
        let state = if self.shape.scale == 1.0 { state.shallow_clone() } else { state / self.shape.scale };
        match self.variables() {
            Variables::Categorical => Ok(state),
            Variables::Boolean(code) => code.decode(&state),
        }
    }

    /// Log-probability of the indicators of a layer under logits, summed over its variables: `[M, B]`. Linear in the
    /// indicators, and so continued to values between.
    pub fn log_prob(&self, logits: &Tensor, indicators: &Tensor) -> Result<Tensor> {
        match self.variables() {
            Variables::Boolean(_) => {
                let each = bernoulli::log_prob(logits, indicators)?;
                Ok(each.f_sum_dim_intlist(-1, false, each.kind())?)
            }
            Variables::Categorical => {
                let each = indicators * logits.f_log_softmax(-1, logits.kind())?;
                Ok(each.f_sum_dim_intlist([-2i64, -1].as_slice(), false, each.kind())?)
            }
        }
    }

    fn flat(&self, state: &Tensor) -> Result<Tensor> {
        match self.shape.categories {
            Some(_) => Ok(state.f_flatten(-2, -1)?),
            None => Ok(state.shallow_clone()),
        }
    }

    fn shaped(&self, logits: Tensor) -> Result<Tensor> {
        match self.shape.categories {
            None => Ok(logits),
            Some(k) => {
                let mut size = logits.size();
                let last = size.pop().unwrap_or(0);
                size.extend([last / k, k]);
                Ok(logits.f_view(&size[..])?)
            }
        }
    }
}
