//! Binary weights: ±1 Bernoulli variables with latent parameters, Algorithm 2 and Section 3 of Shekhovtsov & Yanush 2021.
use super::units::sign;
use crate::autograd::Function;
use crate::dist::binary::BinaryNoise;
use crate::error::{Error, Result};
use crate::kernels::delta::Conv;
use crate::nn::Params;
use crate::noise::Noise;
use tch::{Device, Kind, Tensor};

/// What a pass takes for its states and weights.
pub enum Mode<'a> {
    /// A draw.
    Sampled(&'a mut dyn Noise),
    /// The sign, all noises 0: at the test time a deterministic binary network ("det" in Table 1).
    Deterministic,
}

/// Weights `w = sgn(eta - Z)`, `P(w = 1) = theta = F(eta)`; eta is the latent weight, a leaf.
///
/// The gradient of eta is that of theta, as if F were the identity (Algorithm 2): `d eta := 2 dL/dw`. Steps of gradient descent
/// on eta are then mirror descent on theta under the divergence that belongs to F (Proposition 1; [`crate::optim::mirror`]), so
/// F here chooses the way of optimisation and not the model; standard logistic noise gives the KL divergence.
///
/// # Example
/// ```
/// use tch::{Device, Kind, Tensor};
/// use thruway::dist::binary::{BinaryNoise, Shape};
/// use thruway::nn::Params;
/// use thruway::noise::HostNoise;
/// use thruway::sbn::{BinaryWeight, Mode};
/// let eta = Tensor::from_slice(&[50.0f64, -50.0, 0.0]);
/// let w = BinaryWeight::new(&mut Params::default(), "w", eta, BinaryNoise::new(Shape::Logistic), Device::Cpu)?;
/// let drawn = w.get(&mut Mode::Sampled(&mut HostNoise::new(0)))?;
/// assert_eq!(Vec::<f64>::try_from(drawn.detach().narrow(0, 0, 2)).unwrap(), [1.0, -1.0]);
/// (drawn * Tensor::from_slice(&[3.0f64, 4.0, 5.0])).sum(Kind::Double).backward();
/// assert_eq!(Vec::<f64>::try_from(w.eta().grad()).unwrap(), [6.0, 8.0, 10.0]); // exact in theta: the loss is linear
/// # thruway::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct BinaryWeight {
    eta: Tensor,
    noise: BinaryNoise,
}

impl BinaryWeight {
    /// With latent weights of one's own, any shape and floating kind; the leaf is `params`' parameter `name`.
    ///
    /// # Errors
    /// [`Error::Torch`] where the device refuses.
    pub fn new(params: &mut Params, name: &str, eta: Tensor, noise: BinaryNoise, device: Device) -> Result<Self> {
        Ok(BinaryWeight { eta: params.add(name.into(), eta, device)?, noise })
    }

    /// With theta uniform on (0, 1), `eta = F^-1(theta)` (Section 4), drawn from libtorch's CPU generator in float32 whatever
    /// the device.
    ///
    /// # Errors
    /// [`Error::Range`] for sizes below 1.
    pub fn uniform(params: &mut Params, name: &str, size: &[i64], noise: BinaryNoise, device: Device) -> Result<Self> {
        if size.iter().any(|n| *n < 1) {
            return Err(Error::range(format!("{name}: sizes"), "at least 1", format!("{size:?}")));
        }
        // the open interval, so that eta is finite
        let theta = crate::noise::TorchNoise.uniform(size, Kind::Float, Device::Cpu)?;
        let eta = noise.quantile(&theta.f_clamp_max(1.0 - f64::from(f32::EPSILON))?)?;
        BinaryWeight::new(params, name, eta, noise, device)
    }

    /// The latent weights.
    pub fn eta(&self) -> &Tensor {
        &self.eta
    }

    /// Their law.
    pub fn noise(&self) -> &BinaryNoise {
        &self.noise
    }

    /// `theta = F(eta)`, the probabilities of +1, without a graph.
    ///
    /// # Errors
    /// As [`BinaryNoise::cdf`].
    pub fn theta(&self) -> Result<Tensor> {
        self.noise.cdf(&self.eta.detach())
    }

    /// Weights ±1 with the gradient of Algorithm 2.
    ///
    /// # Errors
    /// As [`BinaryNoise::draw`].
    pub fn get(&self, mode: &mut Mode) -> Result<Tensor> {
        let w = match mode {
            Mode::Sampled(noise) => self.noise.draw(&self.eta, &mut **noise)?,
            Mode::Deterministic => sign(&self.eta)?,
        };
        self.at(w)
    }

    /// Weights that were drawn already, ±1, with the gradient of Algorithm 2.
    ///
    /// # Errors
    /// [`Error::Shape`] where they have another shape.
    pub fn at(&self, w: Tensor) -> Result<Tensor> {
        if w.size() != self.eta.size() {
            return Err(Error::shape("binary weights", format!("{:?}", self.eta.size()), w.size()));
        }
        let out = Function::new("BinaryWeight")
            .inputs(&[&self.eta])
            .apply(|| Ok(vec![w]), |node| Ok(vec![Some(node.grad(0)?.f_mul_scalar(2.0)?)]))?;
        Ok(out.into_iter().next().expect("one output"))
    }
}

/// `y = x W^T` with binary `[out, in]` weights and no bias; a shift is the business of the normalisation that follows.
#[derive(Debug)]
pub struct BinaryLinear {
    weight: BinaryWeight,
}

impl BinaryLinear {
    /// With theta uniform; the parameter is `name.eta`.
    ///
    /// # Errors
    /// As [`BinaryWeight::uniform`].
    pub fn new(
        params: &mut Params,
        name: &str,
        inputs: i64,
        outputs: i64,
        noise: BinaryNoise,
        device: Device,
    ) -> Result<Self> {
        let weight = BinaryWeight::uniform(params, &format!("{name}.eta"), &[outputs, inputs], noise, device)?;
        Ok(BinaryLinear { weight })
    }

    /// The weights.
    pub fn weight(&self) -> &BinaryWeight {
        &self.weight
    }

    /// `[.., in] -> [.., out]`.
    ///
    /// # Errors
    /// [`Error::Torch`] for other shapes.
    pub fn forward(&self, x: &Tensor, mode: &mut Mode) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight.get(mode)?, None::<&Tensor>)?)
    }
}

/// A convolution with binary `[out, in, kh, kw]` weights, zero padding and no bias. One draw of the weights serves the whole
/// batch.
#[derive(Debug)]
pub struct BinaryConv2d {
    weight: BinaryWeight,
    conv: Conv,
}

impl BinaryConv2d {
    /// With theta uniform and a square kernel; the parameter is `name.eta`.
    ///
    /// # Errors
    /// As [`BinaryWeight::uniform`].
    pub fn new(
        params: &mut Params,
        name: &str,
        channels: [i64; 2],
        kernel: i64,
        conv: Conv,
        noise: BinaryNoise,
        device: Device,
    ) -> Result<Self> {
        let [inputs, outputs] = channels;
        let size = [outputs, inputs, kernel, kernel];
        let weight = BinaryWeight::uniform(params, &format!("{name}.eta"), &size, noise, device)?;
        Ok(BinaryConv2d { weight, conv })
    }

    /// The weights.
    pub fn weight(&self) -> &BinaryWeight {
        &self.weight
    }

    /// `[B, in, H, W] -> [B, out, H', W']`.
    ///
    /// # Errors
    /// [`Error::Torch`] for other shapes.
    pub fn forward(&self, x: &Tensor, mode: &mut Mode) -> Result<Tensor> {
        let w = self.weight.get(mode)?;
        Ok(x.f_conv2d(&w, None::<&Tensor>, self.conv.stride, self.conv.padding, [1, 1], 1)?)
    }
}

/// The ensemble of n draws (Eq. 69): the mean of what `probabilities` gives for each, without a graph.
///
/// # Errors
/// [`Error::Range`] for no draws; those of the closure.
pub fn ensemble(
    n: i64,
    noise: &mut dyn Noise,
    mut probabilities: impl FnMut(&mut Mode) -> Result<Tensor>,
) -> Result<Tensor> {
    if n < 1 {
        return Err(Error::range("draws of an ensemble", "at least 1", n));
    }
    let _guard = tch::no_grad_guard();
    let mut sum = probabilities(&mut Mode::Sampled(noise))?;
    for _ in 1..n {
        sum += probabilities(&mut Mode::Sampled(noise))?;
    }
    Ok(sum / n as f64)
}
