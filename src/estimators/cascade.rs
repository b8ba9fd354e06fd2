//! Several stochastic layers, `b_1 -> b_2 -> .. -> b_D`, and a loss of all of them.
//!
//! | estimators | how the layers are trained |
//! |---|---|
//! | drop-ins | one draw of the chain, ordinary backpropagation through all of it |
//! | score functions (REINFORCE, NVIL, RLOO, VIMCO) | M joint draws of the chain, one signal a draw times the scores of all layers |
//! | the others | layer by layer: the layers before keep their drawn states, the layer's own branches are drawn, and every branch draws the later layers anew |
//!
//! The last is how the published codes of DisARM, ARMS, Double CV and RODEO treat hierarchies. It costs the estimator's
//! evaluations for every layer: `M D` for M branches. A layer's first branch is the state that the layers after it are
//! trained on, and the last layer's branches train the loss itself (the published codes draw one more chain for that).
//!
//! Layers may have estimators of different kinds, except that score functions act jointly only if all are.
use super::objective::{Deposit, FirstLayer, deposit};
use super::{Built, GradEstimator, Objective, Variables};
use crate::error::{Error, Result};
use crate::noise::{Noise, Race};
use std::cell::RefCell;
use tch::{Device, Kind, Tensor};

/// Temperature of the layers after the one whose control variate is relaxed (REBAR, RELAX, MuProp).
const RELAXED_TAU: f64 = 0.5;

/// A model with several stochastic layers. States are `[M, B, L]` or `[M, B, L, K]`, in the code of the variables, M draws
/// of each of B rows.
///
/// # Example
/// Two layers of two bits each, and RLOO with three joint draws.
/// ```
/// use thruway::dist::bernoulli::Code;
/// use thruway::estimators::{Cascade, Estimator, Knobs, Variables, cascade};
/// use thruway::noise::HostNoise;
/// use tch::{Kind, Tensor};
///
/// struct Tiny { theta: Tensor, w: Tensor }
/// impl Cascade for Tiny {
///     fn depth(&self) -> usize { 2 }
///     fn logits(&self, _: usize, before: &[Tensor]) -> thruway::Result<Tensor> {
///         Ok(match before {
///             [] => self.theta.expand([1, 5, 2], false), // five rows
///             [b1, ..] => b1.f_matmul(&self.w)?,
///         })
///     }
///     fn loss(&self, states: &[Tensor]) -> thruway::Result<Tensor> {
///         Ok((&states[0] - &states[1]).f_square()?.f_sum_dim_intlist(-1, false, Kind::Double)?)
///     }
/// }
/// let leaf = |size: &[i64]| Tensor::zeros(size, (Kind::Double, tch::Device::Cpu)).set_requires_grad(true);
/// let model = Tiny { theta: leaf(&[2]), w: leaf(&[2, 2]) };
/// let knobs = Knobs { samples: Some(3), code: Some(Code::ZeroOne), ..Knobs::default() };
/// let layers = [Estimator::Rloo.build(&knobs)?, Estimator::Rloo.build(&knobs)?];
/// let loss = cascade::surrogate_loss(&model, Variables::of(knobs.code), &layers, &mut HostNoise::new(1))?; // [5]
/// loss.mean(Kind::Double).backward();
/// assert_eq!(model.w.grad().size(), [2, 2]);
/// # thruway::Result::Ok(())
/// ```
pub trait Cascade {
    /// D, the number of stochastic layers.
    fn depth(&self) -> usize;

    /// Logits of a layer (from 0) given the states of those before it: `[1, B, ..]` for layer 0, else `[M, B, ..]`.
    fn logits(&self, layer: usize, before: &[Tensor]) -> Result<Tensor>;

    /// Loss `[M, B]` at the states of all layers, with the graph of its own parameters.
    fn loss(&self, states: &[Tensor]) -> Result<Tensor>;

    /// As [`Objective::context`].
    fn context(&self) -> Option<Tensor> {
        None
    }

    /// Of the terms of the loss that see, of the states from `layer` on, that of `layer` alone: their linear first layer, as
    /// [`Objective::first_layer`], the states before given, each `[1, B, ..]`. Without [`FirstLayer::besides`].
    fn first_layer(&self, _layer: usize, _before: &[Tensor]) -> Option<FirstLayer<'_>> {
        None
    }

    /// The other terms of the loss that see states from `layer` on, `[M, B]`; asked for where there is a first layer.
    fn beyond(&self, _layer: usize, states: &[Tensor]) -> Result<Tensor> {
        self.loss(states)
    }
}

/// A loss `[B]` whose backward deposits the estimate of every layer's logits and the gradient of the loss's own parameters.
///
/// `layers`: an estimator for each layer, built for `variables`. For score functions the first decides for all.
///
/// # Errors
/// [`Error::Range`] where the number of estimators is not the depth; else as the estimators.
pub fn surrogate_loss(
    model: &dyn Cascade,
    variables: Variables,
    layers: &[Built],
    noise: &mut dyn Noise,
) -> Result<Tensor> {
    if layers.len() != model.depth() || layers.is_empty() {
        let what = "the number of estimators of a cascade";
        return Err(Error::range(what, format!("its depth {}, at least 1", model.depth()), layers.len()));
    }
    if layers.iter().all(|e| e.score().is_some()) {
        return joint(model, variables, &layers[0], noise);
    }
    let noise = Shared(RefCell::new(noise));
    let chain = Chain { model, variables, layers, noise: &noise };
    chain.run(vec![])
}

/// M joint draws, one signal each.
fn joint(model: &dyn Cascade, variables: Variables, first: &Built, noise: &mut dyn Noise) -> Result<Tensor> {
    let score = first.score().expect("asked before");
    let m = score.samples();
    let (mut states, mut all) = (vec![], vec![]);
    for layer in 0..model.depth() {
        let logits = model.logits(layer, &states)?;
        let mut size = logits.size();
        size[0] = m;
        let logits = logits.f_expand(&size[..], false)?;
        let (bits, probs) = plain(variables, &logits, noise)?;
        states.push(variables.encode(&bits)?);
        all.push((logits, bits - probs));
    }
    let values = model.loss(&states)?;
    let loss = score.loss(&values)?;
    let (weights, grads) = {
        let _guard = tch::no_grad_guard();
        let weights = score.weights(&values.detach(), model.context().as_ref())?;
        let each = variables.per_row(&weights.of_draws)?;
        (weights, all.iter().map(|(_, s)| &each * s).collect::<Vec<_>>())
    };
    let mut deposits = vec![];
    for ((logits, _), grad) in all.iter().zip(grads) {
        deposits.push(Deposit { at: logits, grad, batch: Some(1) });
    }
    deposits.extend(weights.learned.iter().map(|(p, g)| Deposit::parameter(p, g.shallow_clone())));
    deposit(&loss, deposits)
}

/// A draw of logits `[M, B, ..]` and the probabilities, without a graph.
fn plain(variables: Variables, logits: &Tensor, noise: &mut dyn Noise) -> Result<(Tensor, Tensor)> {
    let _guard = tch::no_grad_guard();
    let rows = logits.detach().f_flatten(0, 1)?; // [M B, ..]
    let probs = variables.probs("cascade", &rows)?;
    let bits = variables.indicators(&rows, &probs, 1, noise)?;
    Ok((bits.f_view_as(logits)?, probs.f_view_as(logits)?))
}

struct Chain<'a, 'n> {
    model: &'a dyn Cascade,
    variables: Variables,
    layers: &'a [Built],
    noise: &'a Shared<'n>,
}

impl Chain<'_, '_> {
    /// The loss `[B]` of everything after these states, each `[1, B, ..]`.
    fn run(&self, mut states: Vec<Tensor>) -> Result<Tensor> {
        while states.len() < self.layers.len() {
            let layer = states.len();
            let logits = self.model.logits(layer, &states)?;
            match &self.layers[layer] {
                Built::Boolean(e) => states.push(e.draw(&logits, &mut &*self.noise)?.value),
                Built::DropIn(e) => states.push(e.draw(&logits, None, &mut &*self.noise)?.value),
                Built::Wide(e, _) => {
                    let rest = Rest { chain: self, states };
                    return e.surrogate_loss(&logits.f_squeeze_dim(0)?, &rest, &mut &*self.noise);
                }
            }
        }
        Ok(self.model.loss(&states)?.f_squeeze_dim(0)?)
    }

    /// All states where `x` `[M, B, ..]` comes after these, the later layers drawn by `draw` from their logits.
    fn branch(&self, states: &[Tensor], x: &Tensor, draw: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Tensor>> {
        let m = x.size()[0];
        let mut all = vec![];
        for s in states {
            let mut size = s.size();
            size[0] = m;
            all.push(s.f_expand(&size[..], false)?);
        }
        all.push(x.shallow_clone());
        while all.len() < self.layers.len() {
            let logits = self.model.logits(all.len(), &all)?;
            all.push(self.variables.encode(&draw(&logits)?)?);
        }
        Ok(all)
    }

    /// The same by plain draws.
    fn drawn(&self, states: &[Tensor], x: &Tensor) -> Result<Vec<Tensor>> {
        self.branch(states, x, |logits| Ok(plain(self.variables, logits, &mut &*self.noise)?.0))
    }
}

/// f of one layer: everything after it, given the states before it.
struct Rest<'a, 'n> {
    chain: &'a Chain<'a, 'n>,
    states: Vec<Tensor>,
}

impl Objective for Rest<'_, '_> {
    fn at(&self, x: &Tensor) -> Result<Tensor> {
        if !self.draws() {
            return self.branch(x);
        }
        let each = (0..x.size()[0]).map(|i| {
            let mut states: Vec<Tensor> = self.states.iter().map(Tensor::shallow_clone).collect();
            states.push(x.f_narrow(0, i, 1)?);
            self.chain.run(states)
        });
        Ok(Tensor::f_stack(&each.collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn branch(&self, x: &Tensor) -> Result<Tensor> {
        self.chain.model.loss(&self.chain.drawn(&self.states, x)?)
    }

    fn relaxed(&self, x: &Tensor) -> Result<Tensor> {
        let chain = self.chain;
        let (kind, device) = (x.kind(), x.device());
        let all = chain.branch(&self.states, x, |logits| match chain.variables {
            Variables::Boolean(_) => {
                let noise = (&mut &*chain.noise).logistic(&logits.size(), kind, device)?;
                Ok(((logits + noise) / RELAXED_TAU).f_sigmoid()?)
            }
            Variables::Categorical => {
                let noise = (&mut &*chain.noise).gumbel(&logits.size(), kind, device)?;
                Ok(((logits + noise) / RELAXED_TAU).f_softmax(-1, kind)?)
            }
        })?;
        chain.model.loss(&all)
    }

    fn draws(&self) -> bool {
        self.states.len() + 1 < self.chain.layers.len()
    }

    fn context(&self) -> Option<Tensor> {
        self.chain.model.context()
    }

    fn first_layer(&self) -> Option<FirstLayer<'_>> {
        let (chain, layer) = (self.chain, self.states.len());
        let mut first = chain.model.first_layer(layer, &self.states)?;
        if self.draws() {
            let besides = move |x: &Tensor| chain.model.beyond(layer, &chain.drawn(&self.states, x)?);
            first.besides = Some(Box::new(besides));
        }
        Some(first)
    }
}

/// One source for the estimator and for the f it calls.
struct Shared<'n>(RefCell<&'n mut dyn Noise>);

impl Noise for &Shared<'_> {
    fn uniform(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.0.borrow_mut().uniform(size, kind, device)
    }
    fn exponential(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.0.borrow_mut().exponential(size, kind, device)
    }
    fn gumbel(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.0.borrow_mut().gumbel(size, kind, device)
    }
    fn logistic(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.0.borrow_mut().logistic(size, kind, device)
    }
    fn normal(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.0.borrow_mut().normal(size, kind, device)
    }
    fn race(&mut self, rows: i64, classes: i64, kind: Kind, device: Device) -> Result<Race> {
        self.0.borrow_mut().race(rows, classes, kind, device)
    }
}
