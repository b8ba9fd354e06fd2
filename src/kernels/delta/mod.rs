//! The product with Delta, the discrete Jacobian of a layer of binary units: the backward of PSA (Shekhovtsov, Yanush &
//! Flach 2020, Eqs. 45-51).
//!
//! For a layer with pre-activations a (affine in the states x = ±1 below), weights w, noise cdf F and g = state times
//! upstream gradient of each output unit, both functions return for each input unit i
//!
//! `sum_j g_j [F(a_j) - F(a_j - 2 w_ji x_i)]`.
//!
//! Written so that the slips of the paper's formulas do not enter: its Eqs. 50-51 have the exponents of 1 - F, Eq. 44
//! means `w_{o,c,i-j}`, Eq. 46 `x^{k-1}_{c, i flipped}`, Eq. 47 a condition on i - j.
//!
//! | back end | what | noise | error |
//! |---|---|---|---|
//! | exact, CPU | vectorised and threaded loops | any | rounding |
//! | exact, CUDA | `cuda/ratio_conv.cu` | any | rounding |
//! | expansion | R ordinary transposed convolutions or matrix products | logistic | at most `tol` on each bracket |
//!
//! # The identity behind all three
//! For logistic noise of scale 1, with `tau = tanh(a / 2)` and `t = tanh(w)`,
//!
//! `F(a) - F(a - 2 w x) = 2 F'(a) x t / (1 - x t tau)`,
//!
//! which follows from `F = (1 + tau) / 2` and the addition theorem. Everything in it is bounded, nothing is subtracted
//! that could cancel, w = 0 gives 0; written as `2 F'(a) / (x coth(w) - tau)` it is a subtraction and a division a
//! term (the paper's Eq. 51 has a product and a sum), and its geometric series in `t tau`, economised, is the expansion.
//! Another scale s replaces a and w by a / s and w / s.
use crate::dist::binary::BinaryNoise;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

mod exact;
mod geometry;
mod tile;

pub use geometry::Conv;

/// Which way to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// What is fastest within the tolerance.
    #[default]
    Auto,
    /// Every term as it stands.
    Exact,
    /// A series of R ordinary products.
    Expansion,
}

/// How the product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeltaOptions {
    /// The way.
    pub backend: Backend,
    /// What the expansion may err on a bracket `F(a) - F(a - 2 w x)`, absolute.
    pub tol: f64,
}

impl Default for DeltaOptions {
    fn default() -> Self {
        DeltaOptions { backend: Backend::Auto, tol: 1e-5 }
    }
}

/// The product for a linear layer: x_in `[B, in]` (its signs are read), w `[out, in]`, a and g `[B, out]` -> `[B, in]`.
/// No graph is recorded.
///
/// # Errors
/// [`Error::Shape`] for shapes or kinds that do not fit.
pub fn linear(
    noise: &BinaryNoise,
    x_in: &Tensor,
    w: &Tensor,
    a: &Tensor,
    g: &Tensor,
    opts: &DeltaOptions,
) -> Result<Tensor> {
    let [x, w, a, g] = [x_in, w, a, g].map(Tensor::detach);
    match (&x.size()[..], &w.size()[..], &a.size()[..]) {
        (&[b, i], &[o, i2], &[b2, o2]) if b == b2 && i == i2 && o == o2 => {
            let wide = |t: &Tensor| -> Result<Tensor> { Ok(t.f_unsqueeze(-1)?.f_unsqueeze(-1)?) };
            let out = product(
                "delta::linear",
                noise,
                &wide(&x)?,
                &wide(&w)?,
                &wide(&a)?,
                &wide(&g)?,
                &Conv::default(),
                opts,
            )?;
            Ok(out.f_view([b, i])?)
        }
        _ => {
            Err(Error::shape("delta::linear", "x_in [B, in], w [out, in], a [B, out]", [x.size(), w.size(), a.size()]))
        }
    }
}

/// The product for a convolution: x_in `[B, C, H, W]` (its signs are read), w `[O, C, kh, kw]`, a and g `[B, O, H', W']`
/// -> `[B, C, H, W]`. Padding is with zeros, which no flip changes. No graph is recorded.
///
/// # Errors
/// [`Error::Shape`] for shapes or kinds that do not fit.
pub fn conv2d(
    noise: &BinaryNoise,
    x_in: &Tensor,
    w: &Tensor,
    a: &Tensor,
    g: &Tensor,
    conv: &Conv,
    opts: &DeltaOptions,
) -> Result<Tensor> {
    let [x, w, a, g] = [x_in, w, a, g].map(Tensor::detach);
    product("delta::conv2d", noise, &x, &w, &a, &g, conv, opts)
}

fn product(
    op: &'static str,
    noise: &BinaryNoise,
    x: &Tensor,
    w: &Tensor,
    a: &Tensor,
    g: &Tensor,
    conv: &Conv,
    _opts: &DeltaOptions,
) -> Result<Tensor> {
    if a.size() != g.size() {
        return Err(Error::shape(op, format!("g of a's shape {:?}", a.size()), g.size()));
    }
    let kind = x.kind();
    for t in [w, a, g] {
        if t.kind() != kind || t.device() != x.device() {
            let got = (t.kind(), t.device());
            return Err(Error::shape(op, format!("all of one kind and device, {kind:?} on {:?}", x.device()), got));
        }
    }
    let _guard = tch::no_grad_guard();
    match kind {
        Kind::Float | Kind::Double => exact::conv2d(op, noise, x, w, a, g, conv),
        Kind::Half | Kind::BFloat16 => {
            let wide = |t: &Tensor| t.f_to_kind(Kind::Float);
            Ok(exact::conv2d(op, noise, &wide(x)?, &wide(w)?, &wide(a)?, &wide(g)?, conv)?.f_to_kind(kind)?)
        }
        other => Err(Error::shape(op, "a floating kind", other)),
    }
}
