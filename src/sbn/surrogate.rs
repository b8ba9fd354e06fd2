//! Pieces that several methods share.
use super::draws::Draws;
use super::network::{Batch, Loss, Network};
use super::units::{Proxy, straight_through};
use crate::dist::binary::{BinaryNoise, Shape};
use crate::error::Result;
use tch::Tensor;

/// From the layer's number and pre-activations to its states, without a graph.
pub(super) type States<'a> = &'a mut dyn FnMut(usize, &Tensor) -> Result<Tensor>;

/// A network whose units are straight-through: the ordinary backward of the loss at the states.
pub(super) fn straight_through_loss(network: &Network, batch: &Batch, proxy: Proxy, states: States) -> Result<Loss> {
    deterministic_loss(network, batch, &mut |k, a| {
        let x = states(k, a)?;
        straight_through(network.noise(), proxy, 1.0, a, x)
    })
}

/// A network whose units are a differentiable function of their pre-activations.
pub(super) fn deterministic_loss(network: &Network, batch: &Batch, unit: States) -> Result<Loss> {
    let mut x = batch.input.shallow_clone();
    for (k, layer) in network.layers().iter().enumerate() {
        x = unit(k, &layer.preactivation(&x)?)?;
    }
    let scores = network.head().scores(&x)?;
    let surrogate = network.objective().values(&scores, batch.target)?;
    Ok(Loss { value: surrogate.detach(), surrogate, scores: scores.detach() })
}

/// The states of layers `from` on and the loss at them, given the states x of layer `from - 1`; no graph.
pub(super) fn continue_from(
    network: &Network,
    batch: &Batch,
    from: usize,
    x: &Tensor,
    draws: &mut Draws,
) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let mut x = x.shallow_clone();
    for (k, layer) in network.layers().iter().enumerate().skip(from) {
        x = draws.states(k, network.noise(), &layer.preactivation(&x)?)?;
    }
    network.objective().values(&network.head().scores(&x)?, batch.target)
}

/// `log p(x) = log F(x a)` of each unit, differentiable in a.
pub(super) fn log_probability(noise: &BinaryNoise, a: &Tensor, x: &Tensor) -> Result<Tensor> {
    let xa = a * x;
    Ok(match noise.shape() {
        Shape::Logistic => (xa / noise.scale()).f_log_sigmoid()?,
        Shape::Normal => (xa / noise.scale()).f_special_log_ndtr()?,
        // drawn, so p > 0, but for rounding
        Shape::Uniform | Shape::Triangular => noise.cdf(&xa)?.f_clamp_min(crate::noise::tiny(xa.kind()))?.f_log()?,
    })
}

/// The mean of a state, `2 F(a) - 1`.
pub(super) fn mean(noise: &BinaryNoise, a: &Tensor) -> Result<Tensor> {
    Ok(noise.cdf(a)? * 2.0 - 1.0)
}

/// `t` less its own value: zero, with t's gradient.
pub(super) fn gradient_only(t: &Tensor) -> Tensor {
    t - t.detach()
}
