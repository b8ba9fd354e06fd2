//! Drop-ins for Boolean variables: logits `[.., L]` of the probability of 1 in, values in a [`Code`] out.
//!
//! A Boolean variable is a categorical one of two classes with logits `(theta, 0)`, so every categorical drop-in serves
//! through [`TwoClasses`]. As the derivative with respect to the bit is one number, an estimator comes down to a factor: the
//! gradient of the logit is the factor times what arrives at the bit.
use super::{DropIn, GradEstimator, Objective, Surrogate, Vjp};
use crate::autograd::Function;
use crate::dist::bernoulli::{self, Code};
use crate::dist::categorical::Point;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// What a Boolean drop-in returns.
#[derive(Debug)]
pub struct BooleanSample {
    /// The value handed on, `[.., L]`, in the estimator's code, with the surrogate gradient. Exactly one of the two values
    /// where the estimator's claims say so.
    pub value: Tensor,
    /// The drawn bits, zeros and ones, `[.., L]`; no gradient.
    pub bits: Tensor,
}

/// A draw and what it does to gradients, without a graph; `[.., L]` throughout.
#[derive(Debug)]
pub struct Placed {
    /// The bits.
    pub bits: Tensor,
    /// Forward value in 0/1 coordinates, where it is not the bits.
    pub value: Option<Tensor>,
    /// Gradient of the logits for each unit of gradient in 0/1 coordinates.
    pub factor: Tensor,
}

/// A Boolean sample that replaces another in place: hard forward, surrogate backward.
///
/// # Example
/// ```
/// use thruway::dist::bernoulli::Code;
/// use thruway::estimators::{BooleanDropIn, Estimator, Knobs};
/// use thruway::noise::Tape;
/// use tch::{Kind, Tensor};
/// let knobs = Knobs { code: Some(Code::PlusMinus), ..Knobs::default() };
/// let st = Estimator::St.build(&knobs)?.boolean()?;
/// let logits = Tensor::from_slice(&[3f64.ln(), 0.0]).set_requires_grad(true); // p = 3/4, 1/2
/// let s = st.draw(&logits, &mut Tape::new([("uniform", Tensor::from_slice(&[0.7f64, 0.6]))]))?;
/// assert_eq!(Vec::<f64>::try_from(s.value.detach()).unwrap(), [1.0, -1.0]);
/// s.value.sum(Kind::Double).backward();
/// // 2 p (1 - p): the code has slope 2
/// let g = Vec::<f64>::try_from(logits.grad()).unwrap();
/// assert!((g[0] - 3.0 / 8.0).abs() < 1e-15 && (g[1] - 0.5).abs() < 1e-15);
/// # thruway::Result::Ok(())
/// ```
pub trait BooleanDropIn: Send {
    /// Takes the value that a temperature schedule has at this training step (from 0).
    fn at_step(&mut self, _step: i64) {}

    /// The code of its values.
    fn code(&self) -> Code;

    /// A factor on the values of the code.
    fn scale(&self) -> f64 {
        1.0
    }

    /// Draws bits, or takes those given, and says what becomes of gradients. Called without grad mode.
    fn place(&self, logits: &Tensor, bits: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Placed>;

    /// Draws a sample and attaches the gradient: logits `[.., L]`, any leading shape, floating kind and device.
    ///
    /// # Errors
    /// [`Error::Shape`] for logits that are no floating `[.., L]`; [`Error::Range`] on the CPU for logits that are not
    /// finite.
    fn draw(&self, logits: &Tensor, noise: &mut dyn Noise) -> Result<BooleanSample> {
        bernoulli::check("draw", logits)?;
        let placed = {
            let _guard = tch::no_grad_guard();
            self.place(&logits.detach(), None, noise)?
        };
        hang(logits, placed, self.code(), self.scale())
    }

    /// Attaches the gradient to bits already drawn: logits, bits `[.., L]` -> `[.., L]`, in the code.
    ///
    /// # Errors
    /// As [`BooleanDropIn::draw`], and [`Error::Shape`] where the bits have another shape.
    fn attach(&self, logits: &Tensor, bits: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        bernoulli::check("attach", logits)?;
        if bits.size() != logits.size() {
            return Err(Error::shape("attach", format!("bits {:?}", logits.size()), bits.size()));
        }
        let placed = {
            let _guard = tch::no_grad_guard();
            self.place(&logits.detach(), Some(&bits.detach().f_to_kind(logits.kind())?), noise)?
        };
        Ok(hang(logits, placed, self.code(), self.scale())?.value)
    }
}

fn hang(logits: &Tensor, placed: Placed, code: Code, scale: f64) -> Result<BooleanSample> {
    let Placed { bits, value, factor } = placed;
    let encoded = {
        let _guard = tch::no_grad_guard();
        let encoded = code.encode(value.as_ref().unwrap_or(&bits))?;
        if scale == 1.0 { encoded } else { encoded * scale }
    };
    let slope = code.slope() * scale;
    let mut out = Function::new("BooleanDropIn").inputs(&[logits]).apply(
        || Ok(vec![encoded]),
        move |node| {
            let through = |g: &Tensor| -> Result<Tensor> {
                let g = g.f_mul(&factor)?;
                Ok(if slope == 1.0 { g } else { g.f_mul_scalar(slope)? })
            };
            Ok(vec![node.grads()[0].as_ref().map(through).transpose()?])
        },
    )?;
    Ok(BooleanSample { value: out.remove(0), bits })
}

/// Bits as given, or drawn as `1[u < p]`.
pub(super) fn bits_or_draw(p: &Tensor, bits: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Tensor> {
    match bits {
        Some(bits) => Ok(bits.shallow_clone()),
        None => Ok(bernoulli::draw(p, 1, noise)?.0.f_squeeze_dim(0)?),
    }
}

/// A categorical drop-in on Boolean variables: two classes with logits `(theta, 0)`, the first of which is the bit 1.
pub struct TwoClasses {
    inner: Box<dyn DropIn>,
    code: Code,
}

impl TwoClasses {
    /// With values in this code.
    pub fn new(inner: Box<dyn DropIn>, code: Code) -> Self {
        TwoClasses { inner, code }
    }
}

impl BooleanDropIn for TwoClasses {
    fn at_step(&mut self, step: i64) {
        self.inner.at_step(step);
    }

    fn code(&self) -> Code {
        self.code
    }

    fn place(&self, logits: &Tensor, bits: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Placed> {
        let both = Tensor::f_stack(&[logits, &logits.f_zeros_like()?], -1)?; // [.., L] -> [.., L, 2]
        let point = match bits {
            Some(bits) => Point::given(&both, &Tensor::f_stack(&[bits, &(bits.f_neg()? + 1.0)], -1)?)?,
            None => self.inner.point(&both, None, noise)?,
        };
        let Surrogate { relaxed, vjp } = self.inner.surrogate(&point, noise)?;
        let value = relaxed.as_ref().unwrap_or(&point.hard);
        // linear in what arrives, so one unit at the first class says all
        let unit = both.f_zeros_like()?;
        let _ = unit.f_select(-1, 0)?.f_fill_(1.0)?;
        let grad = match vjp {
            Vjp::Sample(vjp) => vjp(&unit, value)?,
            Vjp::Both(vjp) => vjp(&unit, None)?,
        };
        Ok(Placed {
            bits: point.hard.f_select(-1, 0)?.f_contiguous()?,
            value: relaxed.map(|r| r.f_select(-1, 0)).transpose()?,
            factor: grad.f_view_as(&both)?.f_select(-1, 0)?.f_contiguous()?,
        })
    }
}

impl GradEstimator for Box<dyn BooleanDropIn> {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let sample = self.draw(logits, noise)?;
        Ok(f.at(&sample.value.f_unsqueeze(0)?)?.f_squeeze_dim(0)?)
    }
}
