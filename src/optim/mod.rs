//! Optimizers with PyTorch's arithmetic, in one pass over memory, whose state can be saved and restored; and the search for
//! a learning rate.
pub mod bounded;
mod clip;
pub mod mirror;
pub mod sgd;
pub use bounded::minimize_bounded;
pub use clip::clip_grad_norm;
pub use sgd::Sgd;

use crate::autograd::libtorch::clear_grad;
use crate::error::{Error, Result};
use crate::kernels::adam::{self, Rule, Step};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Adam (Kingma & Ba 2015), as `torch.optim.Adam`
    Adam,
    /// RAdam (Liu et al. 2020), as `torch.optim.RAdam`
    #[value(name = "radam")]
    RAdam,
}

/// Settings, with PyTorch's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Learning rate, positive.
    pub lr: f64,
    /// Decay rates of the two moments, each in [0, 1).
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }
    }
}

/// Adam or RAdam over named parameters.
///
/// On CPU (f32, f64) a step is one pass of the crate's own loop; elsewhere libtorch's ops with the same formula.
/// A parameter that got no gradient is left alone, its moments too, as in PyTorch.
#[derive(Debug)]
pub struct Adam {
    method: Method,
    settings: Settings,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    m: Tensor,
    v: Tensor,
    steps: i64,
}

impl Adam {
    /// An optimizer of `params` (leaf tensors that require gradients), moments at zero.
    ///
    /// # Errors
    /// [`Error::Range`] for settings outside their range.
    pub fn new<'a>(
        method: Method,
        settings: Settings,
        params: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<Self> {
        let Settings { lr, betas: (b1, b2), eps, weight_decay } = settings;
        if !(lr.is_finite() && lr > 0.0) {
            return Err(Error::range("--lr", "positive and finite", lr));
        }
        for b in [b1, b2] {
            if !(0.0..1.0).contains(&b) {
                return Err(Error::range("betas", "in [0, 1)", b));
            }
        }
        if !(eps >= 0.0 && weight_decay >= 0.0) {
            return Err(Error::range("eps and weight decay", "at least 0", format!("{eps}, {weight_decay}")));
        }
        let slots = params
            .into_iter()
            .map(|(name, p)| {
                Ok(Slot {
                    name: name.to_string(),
                    param: p.shallow_clone(),
                    m: p.detach().f_zeros_like()?,
                    v: p.detach().f_zeros_like()?,
                    steps: 0,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Adam { method, settings, slots })
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

    /// Forgets the gradients: a parameter that the next backward does not reach has none, as in PyTorch.
    pub fn zero_grad(&mut self) {
        for s in &self.slots {
            clear_grad(&s.param).expect("a parameter is a defined tensor");
        }
    }

    /// One step along the gradients that backward left in the parameters.
    pub fn step(&mut self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for s in &mut self.slots {
            let grad = s.param.grad();
            if !grad.defined() {
                continue;
            }
            s.steps += 1;
            let c = coefficients(self.method, &self.settings, s.steps);
            let mut param = s.param.detach();
            if param.device() == Device::Cpu {
                adam::step(&mut param, &grad.f_contiguous()?, &mut s.m, &mut s.v, &c)?;
            } else {
                by_ops(&mut param, &grad, &mut s.m, &mut s.v, &c)?;
            }
        }
        Ok(())
    }

    /// Moments and step counts, named after the parameters, for a checkpoint.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut all = vec![];
        for s in &self.slots {
            all.push((format!("{}.exp_avg", s.name), s.m.shallow_clone()));
            all.push((format!("{}.exp_avg_sq", s.name), s.v.shallow_clone()));
            all.push((format!("{}.step", s.name), Tensor::from_slice(&[s.steps])));
        }
        all
    }

    /// Takes up a state saved by [`Adam::state`]; `get` finds a tensor by name.
    ///
    /// # Errors
    /// [`Error::Shape`] where a moment is missing or of another shape.
    pub fn restore(&mut self, get: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for s in &mut self.slots {
            let find = |key: &str| {
                get(&format!("{}.{key}", s.name))
                    .ok_or_else(|| Error::shape("optimizer state", format!("{}.{key}", s.name), "nothing of that name"))
            };
            let (m, v, steps) = (find("exp_avg")?, find("exp_avg_sq")?, find("step")?);
            s.m.f_copy_(&m)?;
            s.v.f_copy_(&v)?;
            s.steps = steps.int64_value(&[0]);
        }
        Ok(())
    }
}

/// Bias corrections of step t (from 1), in the order of operations of PyTorch's single-tensor code.
fn coefficients(method: Method, s: &Settings, t: i64) -> Step {
    let (b1, b2) = s.betas;
    let t = t as f64;
    let (c1, c2) = (1.0 - b1.powf(t), 1.0 - b2.powf(t));
    let rule = match method {
        Method::Adam => Rule::Adam { size: s.lr / c1, root: c2.sqrt() },
        Method::RAdam => {
            let rho_inf = 2.0 / (1.0 - b2) - 1.0;
            let rho = rho_inf - 2.0 * t * b2.powf(t) / c2;
            if rho > 5.0 {
                let rect = ((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho)).sqrt();
                Rule::RAdam { correction: c1, lr: s.lr, root: c2.sqrt(), rect }
            } else {
                Rule::Momentum { correction: c1, lr: s.lr }
            }
        }
    };
    Step { beta1: b1, beta2: b2, weight_decay: s.weight_decay, eps: s.eps, rule }
}

fn by_ops(param: &mut Tensor, grad: &Tensor, m: &mut Tensor, v: &mut Tensor, s: &Step) -> Result<()> {
    let grad = if s.weight_decay == 0.0 { grad.shallow_clone() } else { grad + &*param * s.weight_decay };
    let _ = m.f_lerp_(&grad, 1.0 - s.beta1)?;
    let _ = v.f_mul_scalar_(s.beta2)?.f_addcmul_(&(&grad * (1.0 - s.beta2)), &grad)?;
    let update = match s.rule {
        Rule::Adam { size, root } => &*m * size / (v.f_sqrt()? / root).f_add_scalar_(s.eps)?,
        Rule::RAdam { correction, lr, root, rect } => {
            &*m * (lr * root * rect / correction) / v.f_sqrt()?.f_add_scalar_(s.eps)?
        }
        Rule::Momentum { correction, lr } => &*m * (lr / correction),
    };
    let _ = param.f_sub_(&update)?;
    Ok(())
}
