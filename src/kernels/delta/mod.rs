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
//!
//! With logistic noise on the CPU a weight below 1e-9 in size, 0 included, counts as ±1e-9 in float32 (1e-70 in float64), so that its `coth`
//! stays finite in a product of four: off by at most 5e-10 on a bracket. A connection that is absent has no weight.
use crate::dist::binary::{BinaryNoise, Shape};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

pub mod cuda;
mod exact;
pub mod expansion;
mod geometry;
mod tile;

pub use geometry::Conv;

/// Which way to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// What is fastest within the tolerance: exact on the CPU, where it was measured to beat a series of any length; on
    /// CUDA the expansion where its bound holds, else exact.
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
    /// What the expansion may err on a bracket `F(a) - F(a - 2 w x)`, absolute. The default, 5e-6, keeps the relative error
    /// of the product below 1e-4 in every layer of the CIFAR network (at 1e-5 one layer has 1.05e-4).
    pub tol: f64,
}

impl Default for DeltaOptions {
    fn default() -> Self {
        DeltaOptions { backend: Backend::Auto, tol: 5e-6 }
    }
}

/// What [`Backend`] comes to for given weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Plan {
    /// Every term as it stands.
    Exact,
    /// A series.
    Expansion {
        /// Its length R.
        order: usize,
        /// What it errs at most on a bracket.
        bound: f64,
    },
}

/// How a product with weights up to `w_max` in absolute value is computed on a device.
///
/// # Errors
/// [`Error::Range`] if the expansion is asked for by name and cannot meet the tolerance, or the noise is not logistic.
pub fn plan(noise: &BinaryNoise, w_max: f64, device: Device, opts: &DeltaOptions) -> Result<Plan> {
    if opts.backend == Backend::Exact || (opts.backend == Backend::Auto && device == Device::Cpu) {
        return Ok(Plan::Exact);
    }
    let w_max = w_max / noise.scale();
    let order = if noise.shape() == Shape::Logistic { expansion::order(w_max, opts.tol) } else { None };
    match order {
        Some(order) => Ok(Plan::Expansion { order, bound: expansion::bound(order, w_max) }),
        None if opts.backend == Backend::Auto => Ok(Plan::Exact),
        None if noise.shape() != Shape::Logistic => {
            let rule = "logistic for --psa-backend expansion (use auto or exact)";
            Err(Error::range("noise", rule, format!("{:?}", noise.shape())))
        }
        None => {
            let what = format!("--psa-tol for --psa-backend expansion and |w| up to {w_max:.3}");
            let least = expansion::bound(expansion::LONGEST, w_max);
            Err(Error::range(what, format!("at least {least:.1e} (or use auto or exact)"), opts.tol))
        }
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
    opts: &DeltaOptions,
) -> Result<Tensor> {
    if a.size() != g.size() {
        return Err(Error::shape(op, format!("g of a's shape {:?}", a.size()), g.size()));
    }
    let (kind, device) = (x.kind(), x.device());
    for t in [w, a, g] {
        if t.kind() != kind || t.device() != device {
            let got = (t.kind(), t.device());
            return Err(Error::shape(op, format!("all of one kind and device, {kind:?} on {device:?}"), got));
        }
    }
    let _guard = tch::no_grad_guard();
    let [x, w, a, g] = match kind {
        Kind::Float | Kind::Double => [x, w, a, g].map(Tensor::shallow_clone),
        Kind::Half | Kind::BFloat16 => [x, w, a, g].map(|t| t.to_kind(Kind::Float)),
        other => return Err(Error::shape(op, "a floating kind", other)),
    };
    let w_max = largest(&w)?;
    let out = match plan(noise, w_max, device, opts)? {
        Plan::Expansion { order, .. } => {
            expansion::conv2d(op, noise.scale(), &x, &w, &a, &g, conv, order, w_max / noise.scale())?
        }
        Plan::Exact if device == Device::Cpu => exact::conv2d(op, noise, &x, &w, &a, &g, conv, w_max / noise.scale())?,
        Plan::Exact if x.kind() == Kind::Float => cuda::conv2d(op, noise, &x, &w, &a, &g, conv, w_max / noise.scale())?,
        Plan::Exact => {
            // oracles in f64 are small: no kernel of their own
            let [x, w, a, g] = [x, w, a, g].map(|t| t.to_device(Device::Cpu));
            exact::conv2d(op, noise, &x, &w, &a, &g, conv, w_max / noise.scale())?
        }
    };
    Ok(out.f_to_device(device)?.f_to_kind(kind)?)
}

/// The largest absolute value; NaN if there is one, 0 of nothing. One synchronisation.
fn largest(t: &Tensor) -> Result<f64> {
    if t.numel() == 0 {
        return Ok(0.0);
    }
    // two fast reductions: libtorch's aminmax over a dimension is not vectorised, abs is a pass and a copy
    let ends = Tensor::f_stack(&[t.f_max()?, t.f_min()?.f_neg()?], 0)?;
    Ok(ends.f_max()?.f_double_value(&[])?)
}
