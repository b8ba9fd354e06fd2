//! The same network for states 0 and 1.
use super::network::Network;
use crate::error::{Error, Result};
use crate::nn::Params;
use tch::{Device, Tensor};

/// Parameters of a network of linear layers for states `s = (x + 1)/2` in place of x = ±1: from the second layer on, and in
/// the head, `W = W_01 / 2` and `b = b_01 + sum_i W_01[:, i] / 2`; the first layer, whose input is real, is the same.
///
/// Gradients in these layers depend on the encoding, and so do gradient descent and the relative error of a gradient. The
/// figures of the PSA paper are in the 0/1 encoding, as is the training that leads to them.
#[derive(Debug)]
pub struct ZeroOne {
    params: Params,
}

/// Whether a parameter's layer has binary states below it.
fn above_states(name: &str) -> bool {
    !name.starts_with("layers.0.")
}

/// The bias that belongs to a weight.
fn bias_of(weight: &str) -> Option<String> {
    Some(format!("{}.bias", weight.strip_suffix(".weight")?))
}

impl ZeroOne {
    /// The parameters that a network has in the other encoding, as leaves under the same names.
    ///
    /// # Errors
    /// [`Error::Usage`] for convolutions and for layers with scale and shift.
    pub fn of(network: &Network) -> Result<Self> {
        if network.layers().iter().any(|l| l.is_conv()) || network.params().iter().any(|(n, _)| n.ends_with(".scale")) {
            return Err(Error::Usage("the 0/1 encoding is for linear layers without scale and shift".into()));
        }
        let _guard = tch::no_grad_guard();
        let mut params = Params::default();
        let all: Vec<(&str, &Tensor)> = network.params().iter().collect();
        for (name, own) in &all {
            let value = match bias_of(name) {
                _ if !above_states(name) => own.detach().copy(),
                Some(_) => *own * 2.0,
                None => {
                    let weight = format!("{}.weight", name.trim_end_matches(".bias"));
                    let (_, weight) = all.iter().find(|(n, _)| *n == weight).expect("a bias has a weight");
                    *own - weight.f_sum_dim_intlist(-1, false, weight.kind())?
                }
            };
            let _leaf = params.add(name.to_string(), value, own.device())?;
        }
        Ok(ZeroOne { params })
    }

    /// The leaves.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// `network` on these parameters: its ±1 weights and biases are computed from the leaves, which get the gradients.
    pub fn apply(&self, network: &Network) -> Result<Network> {
        let leaf = |name: &str| self.params.iter().find(|(n, _)| *n == name).map(|(_, t)| t).expect("the same names");
        network.with_parameters(&mut |name, _| {
            let own = leaf(name);
            Ok(match name.strip_suffix(".bias") {
                _ if !above_states(name) => own.shallow_clone(),
                Some(layer) => {
                    let weight = leaf(&format!("{layer}.weight"));
                    own + weight.f_sum_dim_intlist(-1, false, weight.kind())? * 0.5
                }
                None => own * 0.5,
            })
        })
    }

    /// Gradients in the ±1 parameters as gradients in the 0/1 parameters, by name; leading axes are kept:
    /// `dW_01 = (dW + db 1^T) / 2` from the second layer on.
    ///
    /// # Errors
    /// [`Error::Shape`] where a weight has no bias beside it.
    pub fn gradients(found: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
        found
            .iter()
            .map(|(name, g)| {
                let g = match bias_of(name).filter(|_| above_states(name)) {
                    None => g.shallow_clone(),
                    Some(bias) => {
                        let (_, db) = found
                            .iter()
                            .find(|(n, _)| *n == bias)
                            .ok_or_else(|| Error::shape("0/1 encoding", bias, "no gradient of that name"))?;
                        (g + db.f_unsqueeze(-1)?) * 0.5
                    }
                };
                Ok((name.clone(), g))
            })
            .collect()
    }

    /// Takes the values of the leaves over into a network's own parameters.
    pub fn write(&self, network: &Network) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let values = self.apply(network)?;
        network.params().load(|name| {
            let (_, t) = values.params().iter().find(|(n, _)| *n == name)?;
            t.f_to_device(Device::Cpu).ok()
        })
    }
}
