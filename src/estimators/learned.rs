//! What learned control variates are made of: small networks and scalars, with gradients handed over explicitly.
use super::{Place, Sizes};
use crate::autograd::Function;
use crate::error::Result;
use crate::kernels::leaky_net;
use tch::{Device, Kind, Tensor};

/// Nonlinearity of a hidden layer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hidden {
    Tanh,
    /// Slope 0.3 below 0, as Keras has it.
    LeakyRelu,
}

/// Of LeakyReLU.
const SLOPE: f64 = 0.3;

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
            Hidden::LeakyRelu => h.f_maximum(&(&h * SLOPE))?,
        };
        Ok(h.f_linear(w2, Some(b2))?)
    }

    /// Of two inputs and two outputs, at points s `[.., P]` for each t `[..]`, both free of a graph: `[2, .., P]`.
    pub(super) fn forward_at(&self, s: &Tensor, t: &Tensor) -> Result<Tensor> {
        if !(matches!(self.hidden, Hidden::LeakyRelu) && leaky_net::own_loops(s)) {
            let t = t.f_unsqueeze(-1)?.f_expand_as(s)?;
            return Ok(self.forward(&Tensor::f_stack(&[s, &t], -1)?)?.f_movedim_int(-1, 0)?);
        }
        let [w1, b1, w2, b2] = &self.all;
        let mut out = Function::new("LeakyNet").inputs(&[w1, b1, w2, b2]).save(&[s, t, w1, b1, w2, b2]).apply(
            || Ok(vec![leaky_net::forward(s, t, [w1, b1, w2, b2], SLOPE)?]),
            |node| {
                let [s, t, w1, b1, w2, b2] = node.saved() else { anyhow::bail!("six saved tensors expected") };
                Ok(leaky_net::backward(node.grad(0)?, s, t, [w1, b1, w2, b2], SLOPE)?.map(Some).into())
            },
        )?;
        Ok(out.remove(0))
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
