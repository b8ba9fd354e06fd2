//! Data-dependent initialisation: pre-activations brought to mean 0 and variance 1, layer after layer.
use super::network::Network;
use super::surrogate::mean;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// What the whitening pass hands from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// `2 F(2a) - 1`, for logistic noise tanh(a): the released code's.
    #[default]
    Published,
    /// The mean of the state, `2 F(a) - 1`.
    Mean,
}

impl Network {
    /// One pass over a batch (Section C.2): for each output channel, over batch and space, `b := (b - mean)/std` and
    /// `W := W/std` with the unbiased std of its pre-activation, each layer after the one below was whitened. With
    /// [`Description::affine`](super::Description) scale and shift take it up. The head is left as it is, as in the released
    /// code. The pass is deterministic; the paper does not say what it carries.
    ///
    /// # Errors
    /// [`Error::Range`] where a channel has the same pre-activation throughout.
    pub fn whiten(&self, input: &Tensor, carrier: Carrier) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut x = input.shallow_clone();
        for (k, layer) in self.layers().iter().enumerate() {
            let a = layer.preactivation(&x)?;
            let axes: Vec<i64> = (0..a.dim() as i64).filter(|i| *i != 1).collect();
            let mu = a.f_mean_dim(&axes[..], false, a.kind())?;
            let std = a.f_std_dim(&axes[..], true, false)?;
            // a channel that never varies, or a batch of one (not a number)
            let least = std.f_min()?.f_double_value(&[])?;
            if least.is_nan() || least <= 0.0 {
                return Err(Error::range(
                    format!("pre-activations of layer {} in whitening", k + 1),
                    "of positive spread",
                    least,
                ));
            }
            layer.renormalise(&mu, &std)?;
            let a = layer.preactivation(&x)?;
            x = match carrier {
                Carrier::Published => mean(self.noise(), &(a * 2.0))?,
                Carrier::Mean => mean(self.noise(), &a)?,
            };
        }
        Ok(())
    }

    /// The analytic form for a network of linear layers, without data ("AP2-init" of the small problem): from the mean and
    /// variance of each input coordinate `[in]`, propagated as [`adf`](super::adf) does, every pre-activation gets mean 0 and
    /// variance 1. The head is left as it is.
    ///
    /// # Errors
    /// [`Error::Usage`] for convolutions.
    pub fn whiten_moments(&self, input_mean: &Tensor, input_variance: &Tensor) -> Result<()> {
        if self.layers().iter().any(|l| l.is_conv()) {
            return Err(Error::Usage(
                "initialisation by moments is for linear layers; whiten on a batch instead".into(),
            ));
        }
        let _guard = tch::no_grad_guard();
        let big_v = self.noise().variance();
        let (mut m, mut v) = (input_mean.f_unsqueeze(0)?, input_variance.f_unsqueeze(0)?);
        for layer in self.layers() {
            let fold = layer.fold()?;
            let std = fold.apply_squared(&v)?.f_sqrt()?.f_squeeze_dim(0)?;
            layer.renormalise(&fold.apply(&m)?.f_squeeze_dim(0)?, &std)?;
            // now every pre-activation has mean 0 and variance 1 under the approximation; the unit's moments follow
            let fold = layer.fold()?;
            let a = fold.apply(&m)? * (big_v / (big_v + 1.0)).sqrt();
            m = mean(self.noise(), &a)?;
            v = m.f_square()?.f_neg()? + 1.0;
        }
        Ok(())
    }
}
