//! Stochastic gradient descent with momentum, as `torch.optim.SGD` without dampening.
use crate::autograd::libtorch::clear_grad;
use crate::error::{Error, Result};
use crate::kernels::sgd::{self, Step};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Settings, with PyTorch's names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Learning rate, positive.
    pub lr: f64,
    /// Decay of the momentum, in [0, 1); 0 is plain gradient descent.
    pub momentum: f64,
    /// Whether the step looks ahead along the momentum (Nesterov).
    pub nesterov: bool,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
}

impl Settings {
    /// Nesterov momentum 0.9 without decay, the setting of the PSA paper's deep networks.
    pub fn nesterov(lr: f64) -> Self {
        Settings { lr, momentum: 0.9, nesterov: true, weight_decay: 0.0 }
    }
}

/// Gradient descent over named parameters: `b <- momentum b + g`, then `p <- p - lr b`, or with Nesterov
/// `p <- p - lr (g + momentum b)`.
///
/// On CPU (f32, f64) a step is one pass of the crate's own loop; elsewhere libtorch's ops with the same formula. A parameter
/// that got no gradient is left alone, its momentum too, as in PyTorch.
///
/// # Example
/// ```
/// use tch::Tensor;
/// use thruway::optim::{Sgd, sgd::Settings};
/// let p = Tensor::from(1.0f64).set_requires_grad(true);
/// let mut sgd = Sgd::new(Settings::nesterov(0.1), [("p", &p)])?;
/// p.square().backward();
/// sgd.step()?; // 1 - 0.1 (2 + 0.9 * 2)
/// assert!((p.double_value(&[]) - 0.62).abs() < 1e-12);
/// # thruway::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Sgd {
    settings: Settings,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    buffer: Tensor,
}

impl Sgd {
    /// An optimizer of `params` (leaf tensors that require gradients), at rest.
    ///
    /// # Errors
    /// [`Error::Range`] for settings outside their range, [`Error::Usage`] for Nesterov without momentum.
    pub fn new<'a>(settings: Settings, params: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Self> {
        let Settings { lr, momentum, nesterov, weight_decay } = settings;
        if !(lr.is_finite() && lr > 0.0) {
            return Err(Error::range("--lr", "positive and finite", lr));
        }
        if !(0.0..1.0).contains(&momentum) {
            return Err(Error::range("momentum", "in [0, 1)", momentum));
        }
        if !(weight_decay >= 0.0 && weight_decay.is_finite()) {
            return Err(Error::range("weight decay", "at least 0", weight_decay));
        }
        if nesterov && momentum == 0.0 {
            return Err(Error::Usage("Nesterov's step needs a momentum above 0".into()));
        }
        let slot = |(name, p): (&str, &Tensor)| {
            // PyTorch's buffer begins as a copy of the first gradient; from -0 the first step gives just that, sign of zero
            // included
            let buffer = p.detach().f_full_like(-0.0)?;
            Ok(Slot { name: name.into(), param: p.shallow_clone(), buffer })
        };
        Ok(Sgd { settings, slots: params.into_iter().map(slot).collect::<Result<_>>()? })
    }

    /// Sets the learning rate of the steps to come, positive and finite.
    ///
    /// # Errors
    /// [`Error::Range`] for anything else.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        if !(lr.is_finite() && lr > 0.0) {
            return Err(Error::range("learning rate", "positive and finite", lr));
        }
        self.settings.lr = lr;
        Ok(())
    }

    /// The learning rate of the next step.
    pub fn lr(&self) -> f64 {
        self.settings.lr
    }

    /// Forgets the gradients: a parameter that the next backward does not reach has none, as in PyTorch.
    pub fn zero_grad(&mut self) {
        for s in &self.slots {
            clear_grad(&s.param).expect("a parameter is a defined tensor");
        }
    }

    /// One step along the gradients that backward left in the parameters.
    ///
    /// # Errors
    /// [`Error::Torch`] if libtorch refuses, as for a sparse gradient.
    pub fn step(&mut self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let Settings { lr, momentum, nesterov, weight_decay } = self.settings;
        let step = Step { lr, momentum, nesterov, weight_decay };
        for s in &mut self.slots {
            let grad = s.param.grad();
            if !grad.defined() {
                continue;
            }
            let mut param = s.param.detach();
            if param.device() == Device::Cpu {
                sgd::step(&mut param, &grad.f_contiguous()?, &mut s.buffer, &step)?;
            } else {
                by_ops(&mut param, &grad, &mut s.buffer, &step)?;
            }
        }
        Ok(())
    }

    /// Momentum buffers, named after the parameters, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.slots.iter().map(|s| (format!("{}.momentum_buffer", s.name), s.buffer.shallow_clone())).collect()
    }

    /// Takes up a state saved by [`Sgd::state`]; `get` finds a tensor by name.
    ///
    /// # Errors
    /// [`Error::Shape`] where a buffer is missing, [`Error::Torch`] where it has another shape.
    pub fn restore(&mut self, get: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for s in &mut self.slots {
            let key = format!("{}.momentum_buffer", s.name);
            let saved = get(&key).ok_or_else(|| Error::shape("optimizer state", key, "nothing of that name"))?;
            s.buffer.f_copy_(&saved)?;
        }
        Ok(())
    }
}

fn by_ops(param: &mut Tensor, grad: &Tensor, buffer: &mut Tensor, s: &Step) -> Result<()> {
    let grad = if s.weight_decay == 0.0 { grad.shallow_clone() } else { grad + &*param * s.weight_decay };
    let _ = buffer.f_mul_scalar_(s.momentum)?.f_add_(&grad)?;
    let direction = if s.nesterov { grad + &*buffer * s.momentum } else { buffer.shallow_clone() };
    let _ = param.f_sub_(&(direction * s.lr))?;
    Ok(())
}
