//! What learned control variates are made of: small networks and scalars, with gradients handed over explicitly.
use super::{Place, Sizes};
use crate::error::Result;
use tch::{Device, Kind, Tensor};

/// Nonlinearity of a hidden layer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hidden {
    Tanh,
    /// Slope 0.3 below 0, as Keras has it.
    LeakyRelu,
}

/// One hidden layer: `W2 h(W1 x + b1) + b2`. Glorot-uniform weights, zero biases (Keras's default), drawn from libtorch's
/// CPU generator whatever the device.
#[derive(Debug)]
pub(super) struct Net {
    hidden: Hidden,
    all: [Tensor; 4],
}

const NAMES: [&str; 4] = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];

impl Net {
    pub(super) fn new(inputs: i64, width: i64, outputs: i64, hidden: Hidden, place: Place) -> Result<Self> {
        let leaf = |size: &[i64]| -> Result<Tensor> {
            let mut t = Tensor::f_zeros(size, (Kind::Float, Device::Cpu))?;
            if let [o, i] = *size {
                let bound = (6.0 / (i + o) as f64).sqrt();
                let _ = t.f_uniform_(-bound, bound)?;
            }
            Ok(t.f_to_kind(place.kind)?.f_to_device(place.device)?.f_set_requires_grad(true)?)
        };
        Ok(Net { hidden, all: [leaf(&[width, inputs])?, leaf(&[width])?, leaf(&[outputs, width])?, leaf(&[outputs])?] })
    }

    /// `[.., inputs] -> [.., outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [w1, b1, w2, b2] = &self.all;
        let h = x.f_linear(w1, Some(b1))?;
        let h = match self.hidden {
            Hidden::Tanh => h.f_tanh()?,
            // libtorch's leaky_relu of tch has its slope fixed at 0.01
            Hidden::LeakyRelu => h.f_maximum(&(&h * 0.3))?,
        };
        Ok(h.f_linear(w2, Some(b2))?)
    }

    pub(super) fn parameters(&self) -> Vec<(String, Tensor)> {
        NAMES.iter().zip(&self.all).map(|(n, t)| (n.to_string(), t.shallow_clone())).collect()
    }
}

/// A learned scalar.
pub(super) fn scalar(value: f64, sizes: &Sizes) -> Result<Tensor> {
    let Place { kind, device } = sizes.place();
    Ok(Tensor::f_scalar_tensor(value, (kind, device))?.f_set_requires_grad(true)?)
}

/// Derivatives of `loss` in the parameters, each with its parameter; a parameter the loss does not see gets zeros.
pub(super) fn gradients(loss: &Tensor, parameters: Vec<(String, Tensor)>) -> Result<Vec<(Tensor, Tensor)>> {
    let all: Vec<Tensor> = parameters.into_iter().map(|(_, t)| t).collect();
    if all.is_empty() || !loss.requires_grad() {
        return Ok(vec![]);
    }
    let grads = Tensor::f_run_backward(&[loss], &all, false, false)?;
    all.into_iter()
        .zip(grads)
        .map(|(p, g)| {
            let g = if g.defined() { g } else { p.detach().f_zeros_like()? };
            Ok((p, g))
        })
        .collect()
}
