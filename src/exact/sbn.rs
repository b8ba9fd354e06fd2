//! Stochastic binary networks by enumeration, layer by layer (Shekhovtsov, Yanush & Flach 2020, Eqs. 5-6): a Markov chain
//! over the 2^n states of each layer, whose transition matrices are multiplied from the last to the first.
//!
//! Knows a layer as a map from states to pre-activations and nothing of estimators, kernels or networks.
//!
//! Legend: `B` batch, `n` units of a layer, `S = 2^n` its states, `P` joint states of all layers.
use crate::dist::binary::BinaryNoise;
use crate::error::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Most units of a layer that are enumerated: a transition matrix between two such layers has 2^24 entries.
pub const MAX_UNITS: i64 = 12;
/// Most joint states that [`paths`] lists.
pub const MAX_PATHS: i64 = 1 << 20;

/// From states ±1 `[N, units below]` to pre-activations `[N, units]`, differentiable.
pub type Preactivation<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// A layer, seen from outside.
pub struct Layer<'a> {
    /// Shape of its states, without the batch.
    pub units: Vec<i64>,
    /// Its map from the states below.
    pub preactivation: Preactivation<'a>,
}

/// A network without its head.
pub struct Chain<'a> {
    /// The noise of every unit.
    pub noise: &'a BinaryNoise,
    /// Real inputs `[B, ..]`, what the first layer's map takes.
    pub input: &'a Tensor,
    /// From the input on.
    pub layers: Vec<Layer<'a>>,
}

/// Joint states of all layers.
#[derive(Debug)]
pub struct Paths {
    /// For each layer its states `[P, units]`.
    pub states: Vec<Tensor>,
    /// `p(x^1..x^L | x^0)`, `[P, B]`.
    pub probability: Tensor,
}

/// All states ±1 of n units, `[2^n, n]`, the last unit running fastest, -1 before +1.
///
/// # Errors
/// [`Error::Range`] unless n is 1 to [`MAX_UNITS`].
pub fn states(n: i64, kind: Kind, device: Device) -> Result<Tensor> {
    if !(1..=MAX_UNITS).contains(&n) {
        return Err(Error::range("units of an enumerated layer", format!("1 to {MAX_UNITS}"), n));
    }
    let index = Tensor::f_arange(1 << n, (Kind::Int64, device))?;
    let bits: Vec<Tensor> = (0..n)
        .map(|i| Ok(index.f_bitwise_right_shift_tensor_scalar(n - 1 - i)?.f_bitwise_and(1)?))
        .collect::<Result<_>>()?;
    Ok(Tensor::f_stack(&bits, -1)?.f_to_kind(kind)? * 2.0 - 1.0)
}

impl Layer<'_> {
    fn states(&self, like: &Tensor) -> Result<Tensor> {
        states(self.units.iter().product(), like.kind(), like.device())
    }

    /// `p(x | below)` for all states x: rows below `[N, ..]` -> `[N, S]`.
    fn transition(&self, noise: &BinaryNoise, below: &Tensor) -> Result<Tensor> {
        let states = self.states(below)?;
        let n = states.size()[1];
        let a = (self.preactivation)(below)?;
        let (up, down) = (noise.cdf(&a)?, noise.cdf(&a.f_neg()?)?); // the noise is symmetric
        let (up, down) = (up.f_reshape([-1, n])?, down.f_reshape([-1, n])?);
        let mut p = up.f_ones_like()?.f_narrow(1, 0, 1)?;
        for i in 0..n {
            let is_up = states.f_select(1, i)?.f_gt(0.0)?; // [S]
            p = &p * up.f_narrow(1, i, 1)?.f_where_self(&is_up, &down.f_narrow(1, i, 1)?)?;
        }
        Ok(p)
    }

    fn shaped(&self, states: &Tensor) -> Result<Tensor> {
        Ok(states.f_reshape([&[-1], &self.units[..]].concat())?)
    }
}

/// `E f(x^L)` of each datum, `[B]`, differentiable in what the maps and f close over. f takes the last layer's states
/// `[S, units]` and returns values `[B, S]`.
///
/// # Errors
/// [`Error::Range`] for a layer of more than [`MAX_UNITS`] units.
pub fn expectation(chain: &Chain, f: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let last = chain.layers.last().ok_or_else(|| Error::range("layers of a chain", "at least 1", 0))?;
    let mut values = f(&last.shaped(&last.states(chain.input)?)?)?; // [B, S]
    for pair in chain.layers.windows(2).rev() {
        let below = pair[0].shaped(&pair[0].states(chain.input)?)?;
        let transition = pair[1].transition(chain.noise, &below)?; // [S below, S]
        values = values.f_matmul(&transition.f_transpose(0, 1)?)?;
    }
    let first = chain.layers[0].transition(chain.noise, chain.input)?; // [B, S]
    Ok((first * values).f_sum_dim_intlist(-1, false, chain.input.kind())?)
}

/// Lists all joint states.
///
/// # Errors
/// [`Error::Range`] for more than [`MAX_PATHS`].
pub fn paths(chain: &Chain) -> Result<Paths> {
    let units: i64 = chain.layers.iter().map(|l| l.units.iter().product::<i64>()).sum();
    if units > 62 || 1 << units > MAX_PATHS {
        return Err(Error::range(
            "binary units in all layers together",
            "at most 20 to list their joint states",
            units,
        ));
    }
    let b = chain.input.size()[0];
    let mut probability = Tensor::f_ones([1, b], (chain.input.kind(), chain.input.device()))?;
    let mut states: Vec<Tensor> = vec![];
    for layer in &chain.layers {
        let own = layer.states(chain.input)?;
        let (s, p) = (own.size()[0], probability.size()[0]);
        let transition = match states.last() {
            None => layer.transition(chain.noise, chain.input)?.f_transpose(0, 1)?.f_unsqueeze(0)?, // [1, S, B]
            Some(below) => layer.transition(chain.noise, below)?.f_unsqueeze(-1)?,                  // [P, S, 1]
        };
        probability = (probability.f_unsqueeze(1)? * transition).f_reshape([p * s, b])?;
        for x in &mut states {
            *x = x.f_repeat_interleave_self_int(s, 0, None)?;
        }
        states.push(layer.shaped(&own.f_repeat([p, 1])?)?);
    }
    Ok(Paths { states, probability })
}
