//! Boolean variables given by logits `theta`, `p = sigmoid(theta)` the probability of 1: codes, draws, probabilities.
use crate::error::{Error, Result};
use crate::noise::Noise;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// How the two values of a Boolean variable are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// 0 and 1
    ZeroOne,
    /// -1 and +1
    PlusMinus,
}

impl Code {
    /// From bits (or anything between 0 and 1) to this code; affine, so it may be differentiated.
    ///
    /// ```
    /// use thruway::dist::bernoulli::Code;
    /// use tch::Tensor;
    /// let bits = Tensor::from_slice(&[0f64, 1.0, 0.25]);
    /// assert_eq!(Vec::<f64>::try_from(Code::PlusMinus.encode(&bits)?).unwrap(), [-1.0, 1.0, -0.5]);
    /// assert_eq!(Code::PlusMinus.decode(&Code::PlusMinus.encode(&bits)?)?, bits);
    /// # thruway::Result::Ok(())
    /// ```
    pub fn encode(self, bits: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Code::ZeroOne => bits.shallow_clone(),
            Code::PlusMinus => bits.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?,
        })
    }

    /// Back to bits.
    pub fn decode(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Code::ZeroOne => x.shallow_clone(),
            Code::PlusMinus => x.f_add_scalar(1.0)?.f_mul_scalar(0.5)?,
        })
    }

    /// Distance of the two values: the derivative of the code in the bit.
    pub fn slope(self) -> f64 {
        match self {
            Code::ZeroOne => 1.0,
            Code::PlusMinus => 2.0,
        }
    }
}

/// Refuses logits of another kind or shape than floating `[.., L]` and, on the CPU, values that are not finite.
///
/// # Errors
/// [`Error::Shape`], [`Error::Range`].
pub fn check(op: &'static str, logits: &Tensor) -> Result<()> {
    if logits.dim() == 0 {
        return Err(Error::shape(op, "logits [.., L]", logits.size()));
    }
    if !matches!(logits.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
        return Err(Error::shape(op, "a floating kind", logits.kind()));
    }
    if logits.device() == Device::Cpu && logits.numel() > 0 {
        // infinities and NaN survive a sum of absolute values; a finite one may overflow, so look again
        let sum = logits.detach().f_abs()?.f_sum(Kind::Double)?.double_value(&[]);
        if !sum.is_finite() {
            let bad = logits.f_isfinite()?.f_logical_not()?.f_nonzero()?;
            if bad.size()[0] > 0 {
                let at = Vec::<i64>::try_from(bad.get(0))?;
                let got = logits.double_value(&at);
                return Err(Error::range(format!("{op}: logits of Boolean variables, entry {at:?},"), "finite", got));
            }
        }
    }
    Ok(())
}

/// Bits drawn as `1[u < p]`, `u` uniform: probabilities `[..]` -> `[M, ..]`, zeros and ones of the kind of p, and u itself.
pub fn draw(p: &Tensor, m: i64, noise: &mut dyn Noise) -> Result<(Tensor, Tensor)> {
    let size = [&[m], &p.size()[..]].concat();
    let u = noise.uniform(&size, p.kind(), p.device())?;
    Ok((u.f_lt_tensor(p)?.f_to_kind(p.kind())?, u))
}

/// `log q(b)` of each bit, `[..]`, differentiable in the logits: `b theta - softplus(theta)`.
pub fn log_prob(logits: &Tensor, bits: &Tensor) -> Result<Tensor> {
    Ok(bits * logits - logits.f_softplus()?)
}
