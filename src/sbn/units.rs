//! Straight-through units and weights on their own, for networks that are built by hand: Algorithms 1 and 2 of Shekhovtsov &
//! Yanush 2021, *Reintroducing Straight-Through Estimators as Principled Methods for Stochastic Binary Networks*.
//!
//! | proxy | its function | unit for which it is Algorithm 1 |
//! |---|---|---|
//! | [`Proxy::Matched`] | `2 F - 1` | any |
//! | [`Proxy::Htanh`] | `min(max(a, -1), 1)` | uniform noise of unit slope |
//! | [`Proxy::Tanh`] | `tanh a` | logistic noise of unit slope |
//! | [`Proxy::ApproxSign`] | `2a + a^2` below 0, `2a - a^2` above, within ±1 | triangular noise of unit slope, at `a / 2` |
//! | [`Proxy::Identity`] | `a` | none; uniform noise on `[0, 1]` if a is itself a probability (Corollary B.1) |
//!
//! "Unit slope" is [`BinaryNoise::unit_slope`], `2 F'(0) = 1`. Each line is a test (`tests/principled.rs`);
//! where the paper slips stands at the end of [the room](super).
use super::weights::Mode;
use crate::autograd::Function;
use crate::dist::bernoulli::Code;
use crate::dist::binary::BinaryNoise;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// The derivative that a unit pretends to have in its pre-activation, for states ±1 (Fig. A.1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Proxy {
    /// `2 F'(a)`, F the noise's own cdf: Algorithm 1.
    Matched,
    /// 1 everywhere (Bengio, Leonard & Courville 2013).
    Identity,
    /// 1 where `|a| < 1` (Hubara et al. 2016).
    Htanh,
    /// `1 - tanh(a)^2` (Raiko et al. 2015).
    Tanh,
    /// `2 - 2 |a|` where `|a| < 1` (Liu et al. 2018), at `scale * a` and times `scale`. At scale 1/2 its slope at 0 is 1.
    ApproxSign {
        /// Factor on the pre-activation.
        scale: f64,
    },
}

impl Proxy {
    /// The derivative at a, of a's shape and kind.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) for a kind that is not floating.
    pub fn derivative(self, noise: &BinaryNoise, a: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Proxy::Matched => noise.pdf(a)?.f_mul_scalar(2.0)?,
            Proxy::Identity => a.f_ones_like()?,
            Proxy::Htanh => a.f_abs()?.f_lt(1.0)?.f_to_kind(a.kind())?,
            Proxy::Tanh => a.f_tanh()?.f_square()?.f_neg()?.f_add_scalar(1.0)?,
            Proxy::ApproxSign { scale } => a
                .f_mul_scalar(-scale)?
                .f_abs()?
                .f_neg()?
                .f_add_scalar(1.0)?
                .f_clamp_min(0.0)?
                .f_mul_scalar(2.0 * scale)?,
        })
    }
}

/// `sgn(a)`, `sgn(0) = 1`, without a graph: the state with the noise set to 0.
pub fn sign(a: &Tensor) -> Result<Tensor> {
    let a = a.detach();
    Ok(a.f_ge(0.0)?.f_to_kind(a.kind())?.f_mul_scalar_(2.0)?.f_sub_scalar_(1.0)?)
}

/// States x as a function of a with a derivative of one's choice: forward x, backward `g * factor * proxy'(a)`. x has a's shape
/// and no graph.
pub(super) fn straight_through(
    noise: &BinaryNoise,
    proxy: Proxy,
    factor: f64,
    a: &Tensor,
    x: Tensor,
) -> Result<Tensor> {
    let noise = *noise;
    let mut out = Function::new("StraightThrough").inputs(&[a]).save(&[a]).apply(
        || Ok(vec![x]),
        move |node| {
            let derivative = proxy.derivative(&noise, &node.saved()[0])?;
            let g = node.grad(0)? * derivative;
            Ok(vec![Some(if factor == 1.0 { g } else { g * factor })])
        },
    )?;
    Ok(out.remove(0))
}

/// A layer of binary units `x = sgn(a - Z)` that takes pre-activations (Algorithm 1).
///
/// # Example
/// ```
/// use tch::{Kind, Tensor};
/// use thruway::dist::{bernoulli::Code, binary::{BinaryNoise, Shape}};
/// use thruway::noise::HostNoise;
/// use thruway::sbn::{Proxy, Units};
/// let units = Units { noise: BinaryNoise::unit_slope(Shape::Uniform), proxy: Proxy::Matched, code: Code::PlusMinus };
/// let a = Tensor::from_slice(&[0.5f64, -2.0, 3.0]).set_requires_grad(true);
/// let x = units.draw(&a, &mut HostNoise::new(0))?;
/// assert_eq!(Vec::<f64>::try_from(x.detach().narrow(0, 1, 2)).unwrap(), [-1.0, 1.0]); // certain
/// x.sum(Kind::Double).backward();
/// assert_eq!(Vec::<f64>::try_from(a.grad()).unwrap(), [1.0, 0.0, 0.0]); // 2 F' is 1 within ±1
/// # thruway::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Units {
    /// The law of Z.
    pub noise: BinaryNoise,
    /// The derivative; [`Proxy::Matched`] is the one derived.
    pub proxy: Proxy,
    /// How states are written. On 0 and 1 the derivative is half that on ±1, as the difference of the two values is; that of
    /// the identity is 1 on either.
    pub code: Code,
}

impl Units {
    /// Drawn states of a's shape, floating kind and device.
    ///
    /// # Errors
    /// As [`BinaryNoise::draw`].
    pub fn draw(&self, a: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        self.at(a, self.noise.draw(a, noise)?)
    }

    /// Deterministic states, the noise set to 0 (det-ST; the network's deterministic mode).
    ///
    /// # Errors
    /// As [`Units::at`].
    pub fn deterministic(&self, a: &Tensor) -> Result<Tensor> {
        self.at(a, sign(a)?)
    }

    /// The derivative that a state, in its own code, pretends to have in a, of a's shape and kind.
    ///
    /// # Errors
    /// As [`Proxy::derivative`].
    pub fn slope(&self, a: &Tensor) -> Result<Tensor> {
        Ok(self.proxy.derivative(&self.noise, a)? * self.factor())
    }

    /// What the code makes of a proxy for states ±1.
    fn factor(&self) -> f64 {
        if self.proxy == Proxy::Identity { 1.0 } else { self.code.slope() / 2.0 }
    }

    /// As [`Units::draw`] or as [`Units::deterministic`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, a: &Tensor, mode: &mut Mode) -> Result<Tensor> {
        match mode {
            Mode::Sampled(noise) => self.draw(a, &mut **noise),
            Mode::Deterministic => self.deterministic(a),
        }
    }

    /// States that were drawn already, given as ±1.
    ///
    /// # Errors
    /// [`Error::Shape`] where they have another shape than a.
    pub fn at(&self, a: &Tensor, x: Tensor) -> Result<Tensor> {
        if x.size() != a.size() {
            return Err(Error::shape("binary units", format!("states {:?}", a.size()), x.size()));
        }
        let x = match self.code {
            Code::PlusMinus => x,
            Code::ZeroOne => Code::PlusMinus.decode(&x)?,
        };
        straight_through(&self.noise, self.proxy, self.factor(), a, x)
    }
}
