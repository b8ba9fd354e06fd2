//! The categorical variational auto-encoder of the ReinMax comparison (Liu et al. 2023, Section 6.3; Fan et al. 2022).
use super::linear::{Linear, Params};
use super::loss;
use crate::dist::categorical::kl_to_uniform;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Pixels of an image.
pub const PIXELS: i64 = 784;

/// Nonlinearity of the hidden layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x for x > 0, 0.01 x below (the reference's for 64x32)
    #[value(name = "leakyrelu")]
    LeakyRelu,
}

impl Activation {
    fn apply(self, x: Tensor) -> Result<Tensor> {
        let mut x = x;
        Ok(match self {
            Activation::Relu => x.f_relu_()?,
            Activation::LeakyRelu => x.f_leaky_relu_()?,
        })
    }
}

/// Encoder 784-512-256-L*K, decoder L*K-256-512-784, no activation on the encoder's output, sigmoid pixels.
///
/// Legend: `B` batch, `L` latent variables, `K` categories.
#[derive(Debug)]
pub struct CategoricalVae {
    params: Params,
    encoder: [Linear; 3],
    decoder: [Linear; 3],
    activation: Activation,
    /// L, the number of latent variables.
    pub latents: i64,
    /// K, the number of categories of each.
    pub categories: i64,
}

impl CategoricalVae {
    /// A model with fresh parameters, in the reference's order of creation: encoder fc1, fc2, fc3, decoder fc1, fc2, fc3.
    ///
    /// # Errors
    /// [`Error::Range`] for sizes below 1.
    pub fn new(latents: i64, categories: i64, activation: Activation, device: Device) -> Result<Self> {
        for (what, n) in [("--latent-dim", latents), ("--categorical-dim", categories)] {
            if n < 1 {
                return Err(Error::range(what, "at least 1", n));
            }
        }
        let mut params = Params::default();
        let mut layer = |name: &str, i, o| Linear::new(&mut params, name, i, o, device);
        let encoder = [
            layer("encoder.fc1", PIXELS, 512)?,
            layer("encoder.fc2", 512, 256)?,
            layer("encoder.fc3", 256, latents * categories)?,
        ];
        let decoder = [
            layer("decoder.fc1", latents * categories, 256)?,
            layer("decoder.fc2", 256, 512)?,
            layer("decoder.fc3", 512, PIXELS)?,
        ];
        Ok(CategoricalVae { params, encoder, decoder, activation, latents, categories })
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Images `[B, 784]` in [0, 1] -> logits `[B, L, K]`.
    pub fn encode(&self, x: &Tensor) -> Result<Tensor> {
        let logits = self.stack(&self.encoder, x)?;
        Ok(logits.f_view([-1, self.latents, self.categories])?)
    }

    /// Codes `[.., L, K]` -> pixel logits `[.., 784]`.
    pub fn decode(&self, codes: &Tensor) -> Result<Tensor> {
        let size = codes.size();
        let Some((tail, lead)) = size.split_last_chunk::<2>().map(|(lead, tail)| (tail, lead)) else {
            return Err(Error::shape("decode", "codes [.., L, K]", size));
        };
        if tail != &[self.latents, self.categories] {
            return Err(Error::shape("decode", format!("codes [.., {}, {}]", self.latents, self.categories), size));
        }
        let pixels = self.stack(&self.decoder, &codes.f_reshape([-1, self.latents * self.categories])?)?;
        Ok(pixels.f_view(&[lead, &[PIXELS]].concat()[..])?)
    }

    fn stack(&self, layers: &[Linear; 3], x: &Tensor) -> Result<Tensor> {
        let h = self.activation.apply(layers[0].forward(x)?)?;
        let h = self.activation.apply(layers[1].forward(&h)?)?;
        layers[2].forward(&h)
    }

    /// Reconstruction term, mean over the batch: codes `[B, L, K]`, images `[B, 784]` -> scalar in nats.
    pub fn bce(&self, codes: &Tensor, x: &Tensor) -> Result<Tensor> {
        loss::bce_with_logits(&self.decode(codes)?, x, x.size()[0])
    }

    /// Reconstruction term of each image and sample: codes `[M, B, L, K]`, images `[B, 784]` -> `[M, B]`.
    pub fn bce_rows(&self, codes: &Tensor, x: &Tensor) -> Result<Tensor> {
        loss::bce_rows(&self.decode(codes)?, x)
    }

    /// Reconstruction term of every code for every image, without a graph: images `[B, 784]` -> `[S, B]`, `S = K^L`.
    ///
    /// Each code is decoded once whatever the batch, since `BCE = sum_d softplus(y_d) - y . x`.
    pub fn bce_table(&self, x: &Tensor) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let states = crate::exact::states(self.latents, self.categories, x.kind(), x.device())?;
        let y = self.decode(&states)?; // [S, 784]
        let own = y.f_softplus()?.f_sum_dim_intlist(-1, true, y.kind())?; // [S, 1]
        Ok(own - y.f_matmul(&x.f_transpose(0, 1)?)?)
    }

    /// KL term, mean over the batch: probabilities `[B, L, K]` -> scalar in nats, against the uniform prior.
    pub fn kl(&self, probs: &Tensor) -> Result<Tensor> {
        kl_to_uniform(probs, probs.size()[0])
    }
}
