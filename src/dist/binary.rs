//! Binary units `x = sign(a - Z)`: the noise Z of a stochastic binary network, by its cdf F, so that `P(x = 1) = F(a)`.
//!
//! All four laws are symmetric, `F(-z) = 1 - F(z)`. At scale 1 they have the standard form of the table; `unit_slope`
//! gives the one with `2 F'(0) = 1`, under which straight-through passes gradients on unchanged at a = 0
//! (Shekhovtsov & Yanush 2021, Fig. A.1 and Section 4).
//!
//! | shape | at scale s | variance | unit slope |
//! |---|---|---|---|
//! | logistic | `F = sigmoid(z / s)` (PSA's, s = 1) | `s^2 pi^2 / 3` | s = 1/2: `F = sigmoid(2 z)`, the tanh proxy |
//! | uniform | on `[-s, s]` | `s^2 / 3` | s = 1: the hard tanh proxy |
//! | triangular | density `(1 - \|z\| / s) / s` on `[-s, s]` | `s^2 / 6` | s = 2: ApproxSign |
//! | normal | standard deviation s | `s^2` | `s = sqrt(2 / pi)` |
use crate::error::{Error, Result};
use crate::noise::Noise;
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use tch::{Device, Kind, Tensor};

/// The law of the noise, up to its scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Logistic, `F` the sigmoid.
    Logistic,
    /// Uniform on an interval.
    Uniform,
    /// The sum of two uniform variables.
    Triangular,
    /// Normal.
    Normal,
}

/// Noise of a binary unit: a law and a scale.
///
/// # Example
/// ```
/// use tch::Tensor;
/// use thruway::dist::binary::{BinaryNoise, Shape};
/// use thruway::noise::HostNoise;
///
/// let noise = BinaryNoise::new(Shape::Logistic);
/// assert_eq!(noise.cdf_f64(0.0), 0.5);
/// assert_eq!(BinaryNoise::unit_slope(Shape::Logistic).pdf_f64(0.0), 0.5);
/// let a = Tensor::from_slice(&[f64::INFINITY, 0.3, f64::NEG_INFINITY]);
/// let x = noise.draw(&a, &mut HostNoise::new(0))?;
/// assert_eq!((x.double_value(&[0]), x.double_value(&[2])), (1.0, -1.0));
/// # Ok::<(), thruway::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BinaryNoise {
    shape: Shape,
    scale: f64,
}

impl BinaryNoise {
    /// The standard form of the module's table, scale 1.
    pub fn new(shape: Shape) -> Self {
        BinaryNoise { shape, scale: 1.0 }
    }

    /// The scale at which `2 F'(0) = 1`.
    pub fn unit_slope(shape: Shape) -> Self {
        BinaryNoise { shape, scale: 2.0 * BinaryNoise::new(shape).pdf_f64(0.0) }
    }

    /// The law `Z = scale * Z_1`.
    ///
    /// # Errors
    /// [`Error::Range`] unless the scale is positive and finite.
    pub fn with_scale(shape: Shape, scale: f64) -> Result<Self> {
        if scale > 0.0 && scale.is_finite() {
            Ok(BinaryNoise { shape, scale })
        } else {
            Err(Error::range("scale of the noise", "positive and finite", scale))
        }
    }

    /// The law.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The factor on the standard form.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Variance of Z.
    pub fn variance(&self) -> f64 {
        let standard = match self.shape {
            Shape::Logistic => PI * PI / 3.0,
            Shape::Uniform => 1.0 / 3.0,
            Shape::Triangular => 1.0 / 6.0,
            Shape::Normal => 1.0,
        };
        standard * self.scale * self.scale
    }

    /// `P(x = 1) = F(a)`, any shape and floating kind, differentiable as libtorch's operations are.
    ///
    /// # Errors
    /// [`Error::Torch`] for a kind that is not floating.
    pub fn cdf(&self, a: &Tensor) -> Result<Tensor> {
        let z = self.standard(a)?;
        Ok(match self.shape {
            Shape::Logistic => z.f_sigmoid()?,
            Shape::Uniform => z.f_add_scalar(1.0)?.f_mul_scalar(0.5)?.f_clamp(0.0, 1.0)?,
            Shape::Triangular => {
                let tail = z.f_abs()?.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(0.0)?.f_square()?.f_mul_scalar(0.5)?;
                let rest = tail.f_neg()?.f_add_scalar(1.0)?;
                tail.f_where_self(&z.f_lt(0.0)?, &rest)?
            }
            // libtorch's ndtr loses the left tail
            Shape::Normal => z.f_mul_scalar(-FRAC_1_SQRT_2)?.f_erfc()?.f_mul_scalar(0.5)?,
        })
    }

    /// The density `F'(a)`; at the ends of an interval its value inside.
    ///
    /// # Errors
    /// [`Error::Torch`] for a kind that is not floating.
    pub fn pdf(&self, a: &Tensor) -> Result<Tensor> {
        let z = self.standard(a)?;
        let density = match self.shape {
            Shape::Logistic => {
                // the smaller of F and 1 - F, so that neither tail cancels
                let p = z.f_abs()?.f_neg_()?.f_sigmoid_()?;
                p.f_square()?.f_neg_()?.f_add_(&p)?
            }
            Shape::Uniform => z.f_abs()?.f_le(1.0)?.f_to_kind(z.kind())?.f_mul_scalar(0.5)?,
            Shape::Triangular => z.f_abs()?.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(0.0)?,
            Shape::Normal => z.f_square()?.f_mul_scalar(-0.5)?.f_exp()?.f_mul_scalar((2.0 * PI).sqrt().recip())?,
        };
        if self.scale == 1.0 { Ok(density) } else { Ok(density.f_div_scalar(self.scale)?) }
    }

    /// `F(a)` of one double.
    pub fn cdf_f64(&self, a: f64) -> f64 {
        let z = a / self.scale;
        match self.shape {
            Shape::Logistic => 1.0 / (1.0 + (-z).exp()),
            Shape::Uniform => ((z + 1.0) / 2.0).clamp(0.0, 1.0),
            Shape::Triangular => {
                let tail = (1.0 - z.abs()).max(0.0).powi(2) / 2.0;
                if z < 0.0 { tail } else { 1.0 - tail }
            }
            Shape::Normal => libm::erfc(-z * FRAC_1_SQRT_2) / 2.0,
        }
    }

    /// `F'(a)` of one double; at the ends of an interval its value inside.
    pub fn pdf_f64(&self, a: f64) -> f64 {
        let z = a / self.scale;
        let density = match self.shape {
            Shape::Logistic => {
                let e = (-z.abs()).exp();
                e / (1.0 + e).powi(2)
            }
            Shape::Uniform => 0.5 * f64::from(u8::from(z.abs() <= 1.0)),
            Shape::Triangular => (1.0 - z.abs()).max(0.0),
            Shape::Normal => (-z * z / 2.0).exp() / (2.0 * PI).sqrt(),
        };
        density / self.scale
    }

    /// `F^-1(p)`, any shape and floating kind: the parameter of a unit that is 1 with probability p. At 0 and 1 the ends of
    /// the support, infinite for logistic and normal noise.
    ///
    /// # Errors
    /// [`Error::Torch`] for a kind that is not floating.
    pub fn quantile(&self, p: &Tensor) -> Result<Tensor> {
        let z = match self.shape {
            Shape::Logistic => p.f_logit(None)?,
            Shape::Uniform => p.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?,
            Shape::Triangular => {
                // the inverse of the cdf on either side of 0
                let half = |p: &Tensor| -> Result<Tensor> { Ok(p.f_mul_scalar(2.0)?.f_sqrt()?) };
                let below = half(p)?.f_sub_scalar(1.0)?;
                let above = half(&p.f_neg()?.f_add_scalar(1.0)?)?.f_neg()?.f_add_scalar(1.0)?;
                below.f_where_self(&p.f_lt(0.5)?, &above)?
            }
            Shape::Normal => p.f_special_ndtri()?,
        };
        if self.scale == 1.0 { Ok(z) } else { Ok(z.f_mul_scalar(self.scale)?) }
    }

    /// Where F reaches 1: the support is `[-s, s]`. Infinite for logistic and normal noise.
    pub fn support(&self) -> f64 {
        match self.shape {
            Shape::Logistic | Shape::Normal => f64::INFINITY,
            Shape::Uniform | Shape::Triangular => self.scale,
        }
    }

    /// Draws of Z itself.
    ///
    /// # Errors
    /// Those of the source.
    pub fn sample(&self, size: &[i64], kind: Kind, device: Device, noise: &mut dyn Noise) -> Result<Tensor> {
        let z = match self.shape {
            Shape::Logistic => noise.logistic(size, kind, device)?,
            Shape::Uniform | Shape::Triangular => return self.quantile(&noise.uniform(size, kind, device)?),
            Shape::Normal => noise.normal(size, kind, device)?,
        };
        if self.scale == 1.0 { Ok(z) } else { Ok(z.f_mul_scalar(self.scale)?) }
    }

    /// States ±1 with `P(x = 1) = F(a)`, of a's shape and kind, without a graph: one uniform a unit, +1 where `u < F(a)`. A
    /// tie gives -1, never 0.
    ///
    /// # Errors
    /// [`Error::Range`] for NaN among the pre-activations, on the CPU (another device would have to synchronise).
    pub fn draw(&self, a: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        let p = tch::no_grad(|| self.cdf(&a.detach()))?;
        self.draw_from(&p, noise)
    }

    /// As [`BinaryNoise::draw`], from probabilities `p = F(a)` that the caller has already.
    ///
    /// # Errors
    /// As [`BinaryNoise::draw`].
    pub fn draw_from(&self, p: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        let p = p.detach();
        if p.device() == Device::Cpu && p.f_sum(Kind::Double)?.double_value(&[]).is_nan() {
            return Err(Error::range("pre-activations of a binary layer", "free of NaN", "NaN"));
        }
        let u = noise.uniform(&p.size(), p.kind(), p.device())?;
        let mut up = u.f_lt_tensor(&p)?.f_to_kind(p.kind())?;
        Ok(up.f_mul_scalar_(2.0)?.f_sub_scalar_(1.0)?)
    }

    fn standard(&self, a: &Tensor) -> Result<Tensor> {
        if self.scale == 1.0 { Ok(a.shallow_clone()) } else { Ok(a.f_div_scalar(self.scale)?) }
    }
}
