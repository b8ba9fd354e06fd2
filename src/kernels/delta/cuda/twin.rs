//! `cuda/ratio_conv.cu` compiled as C++ (`cuda/twin.cpp`): the same indices, barriers and order of sums on the CPU, slowly. It
//! stands in for a GPU in the tests, and is no part of the interface.
use super::{Geometry, RATIO, geometry, law};
use crate::autograd::slices::{slice, slice_mut};
use crate::dist::binary::BinaryNoise;
use crate::error::{Error, Result};
use crate::kernels::delta::geometry::{Conv, Sizes};
use std::ffi::c_int;
use tch::{Device, Kind, Tensor};

unsafe extern "C" {
    fn thruway_twin_product(
        x: *const f32,
        w: *const f32,
        a: *const f32,
        g: *const f32,
        out: *mut f32,
        weights: *mut f32,
        units: *mut f32,
        s: *const Geometry,
        output: c_int,
        inverse: f32,
        law: c_int,
    ) -> c_int;
}

/// As [`conv2d`](crate::kernels::delta::conv2d) on a GPU, for f32 CPU tensors. One call at a time. `plain`: by differences of cdf
/// values even where the ratio form would serve.
///
/// # Errors
/// [`Error::Shape`] for what does not fit, [`Error::Function`] if threads of a block part before a barrier.
pub fn conv2d(noise: &BinaryNoise, [x, w, a, g]: [&Tensor; 4], conv: &Conv, plain: bool) -> Result<Tensor> {
    let sizes = Sizes::new("twin", x, w, a, conv)?;
    let w_max = super::super::largest(w)? / noise.scale();
    let law = if plain { law(noise, f64::INFINITY) } else { law(noise, w_max) };
    let (s, weights, units) = geometry(&sizes, law)?;
    let [x, w, a, g] = [x.f_contiguous()?, w.f_contiguous()?, a.f_contiguous()?, g.f_contiguous()?];
    let empty = |size: &[i64]| Tensor::f_full(size, f64::NAN, (Kind::Float, Device::Cpu));
    let (mut prepared, mut kept, mut out) = (empty(&[weights as i64])?, empty(&[units as i64])?, empty(&x.size())?);
    debug_assert_eq!(RATIO, 0);
    // SAFETY: the slices have the sizes that the source counts with, and live through the call.
    let status = unsafe {
        thruway_twin_product(
            slice(&x)?.as_ptr(),
            slice(&w)?.as_ptr(),
            slice(&a)?.as_ptr(),
            slice(&g)?.as_ptr(),
            slice_mut(&mut out)?.as_mut_ptr(),
            slice_mut(&mut prepared)?.as_mut_ptr(),
            slice_mut(&mut kept)?.as_mut_ptr(),
            &s,
            sizes.output as c_int,
            (1.0 / noise.scale()) as f32,
            law,
        )
    };
    if status == 0 {
        Ok(out)
    } else {
        Err(Error::Function { name: "ratio_conv.cu".into(), reason: "threads of a block part before a barrier".into() })
    }
}
