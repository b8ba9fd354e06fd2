//! Fully connected layers and the named list of parameters a model is made of.
use crate::error::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Parameters in the order of creation, under PyTorch's names (`encoder.fc1.weight`).
#[derive(Debug, Default)]
pub struct Params {
    all: Vec<(String, Tensor)>,
}

impl Params {
    /// Names and tensors, in the order of creation.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.all.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Number of parameters in all.
    pub fn count(&self) -> usize {
        self.all.iter().map(|(_, t)| t.numel()).sum()
    }

    /// Takes values by name; shapes must agree.
    ///
    /// # Errors
    /// [`Error::Shape`] where a name is missing or a shape differs.
    pub fn load(&self, get: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, t) in self.iter() {
            let value = get(name).ok_or_else(|| Error::shape("parameters", name, "nothing of that name"))?;
            if value.size() != t.size() {
                return Err(Error::shape("parameters", format!("{name} {:?}", t.size()), value.size()));
            }
            t.shallow_clone().f_copy_(&value)?;
        }
        Ok(())
    }

    /// Adds a leaf that requires gradients.
    pub fn add(&mut self, name: String, value: Tensor, device: Device) -> Result<Tensor> {
        let leaf = value.f_to_device(device)?.f_set_requires_grad(true)?;
        self.all.push((name, leaf.shallow_clone()));
        Ok(leaf)
    }
}

/// `y = x W^T + b`; weight `[out, in]`, bias `[out]`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Clone for Linear {
    /// The same parameters, not copies of them.
    fn clone(&self) -> Self {
        Linear { weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone() }
    }
}

impl Linear {
    /// A layer with PyTorch's default initialisation (`kaiming_uniform_(a = sqrt 5)` for the weight, then the bias uniform
    /// in +-1/sqrt(in)), drawn from libtorch's CPU generator in PyTorch's order whatever the device, so that one seed
    /// gives one model.
    pub fn new(params: &mut Params, name: &str, inputs: i64, outputs: i64, device: Device) -> Result<Linear> {
        if inputs < 1 || outputs < 1 {
            return Err(Error::range(format!("{name}: sizes"), "at least 1", format!("{inputs} -> {outputs}")));
        }
        let options = (Kind::Float, Device::Cpu);
        // PyTorch's arithmetic, step by step: the bound decides the last bit of every weight
        let slope = 5f64.sqrt();
        let gain = (2.0 / (1.0 + slope * slope)).sqrt();
        let bound = 3f64.sqrt() * (gain / (inputs as f64).sqrt());
        let weight = Tensor::f_empty([outputs, inputs], options)?.f_uniform_(-bound, bound)?;
        let bound = 1.0 / (inputs as f64).sqrt();
        let bias = Tensor::f_empty([outputs], options)?.f_uniform_(-bound, bound)?;
        Ok(Linear {
            weight: params.add(format!("{name}.weight"), weight, device)?,
            bias: params.add(format!("{name}.bias"), bias, device)?,
        })
    }

    /// A layer with Keras's default initialisation (Glorot uniform for the weight, zeros for the bias), drawn from libtorch's
    /// CPU generator whatever the device.
    ///
    /// # Errors
    /// [`Error::Range`] for sizes below 1.
    pub fn glorot(params: &mut Params, name: &str, inputs: i64, outputs: i64, device: Device) -> Result<Linear> {
        if inputs < 1 || outputs < 1 {
            return Err(Error::range(format!("{name}: sizes"), "at least 1", format!("{inputs} -> {outputs}")));
        }
        let options = (Kind::Float, Device::Cpu);
        let bound = (6.0 / (inputs + outputs) as f64).sqrt();
        let weight = Tensor::f_empty([outputs, inputs], options)?.f_uniform_(-bound, bound)?;
        let bias = Tensor::f_zeros([outputs], options)?;
        Ok(Linear {
            weight: params.add(format!("{name}.weight"), weight, device)?,
            bias: params.add(format!("{name}.bias"), bias, device)?,
        })
    }

    /// The weight, `[out, in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, `[out]`.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// `[.., in] -> [.., out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}
