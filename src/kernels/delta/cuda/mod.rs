//! Every term as it stands, on a CUDA device: `cuda/ratio_conv.cu`, compiled at first use and launched on libtorch's
//! stream, on its tensors in place.
//!
//! CUDA is opened when it is needed, so the crate builds and runs without it. Not yet run on a GPU: what is tested is that
//! the source compiles for every architecture that NVRTC knows, and that it computes what the CPU's loops do (`twin`).
use super::geometry::{Conv, Sizes};
use crate::autograd::libtorch::current_cuda_stream;
use crate::dist::binary::{BinaryNoise, Shape};
use crate::error::{Error, Result};
use cudarc::driver::{CudaContext, CudaFunction, DeviceRepr, LaunchConfig, PushKernelArg, sys};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tch::{Device, Kind, Tensor};

pub mod nvrtc;
#[doc(hidden)]
pub mod twin;

/// As in the source.
const PIXELS: usize = 64;
const CHANNELS: usize = 32;
const GROUP: usize = 4;
const THREADS: u32 = 128;
const RATIO: i32 = 0;

/// Sizes of a product as the kernels take them (`struct Geometry` of the source).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Geometry {
    batch: i32,
    input: i32,
    padded: i32,
    groups: i32,
    from: [i32; 2],
    to: [i32; 2],
    kernel: [i32; 2],
    stride: [i32; 2],
    padding: [i32; 2],
}

// SAFETY: plain integers in C's layout, passed by value.
unsafe impl DeviceRepr for Geometry {}

/// The sizes, and how many numbers the weights and the output units take when prepared.
fn geometry(s: &Sizes, law: i32) -> Result<(Geometry, usize, usize)> {
    let (groups, padded) = (s.output.div_ceil(GROUP), s.input.div_ceil(CHANNELS) * CHANNELS);
    let weights = s.taps() * groups * GROUP * padded;
    let units = s.positions() * groups * GROUP * if law == RATIO { 2 } else { 3 };
    let pixels = s.batch * s.input * s.from[0] * s.from[1];
    let most = weights.max(units).max(pixels).max(s.batch * s.output * s.to[0] * s.to[1]);
    if i32::try_from(most).is_err() {
        return Err(Error::range("numbers of one layer on a GPU", "below 2^31 (lower the batch size)", most));
    }
    let pair = |v: [usize; 2]| v.map(|v| v as i32);
    let geometry = Geometry {
        batch: s.batch as i32,
        input: s.input as i32,
        padded: padded as i32,
        groups: groups as i32,
        from: pair(s.from),
        to: pair(s.to),
        kernel: pair(s.kernel),
        stride: s.conv.stride.map(|v| v as i32),
        padding: s.conv.padding.map(|v| v as i32),
    };
    Ok((geometry, weights, units))
}

/// The source's number for the form: `w_max` at scale 1.
fn law(noise: &BinaryNoise, w_max: f64) -> i32 {
    match noise.shape() {
        Shape::Logistic if w_max <= super::exact::ratio_limit(Kind::Float) => RATIO,
        Shape::Logistic => 1,
        Shape::Uniform => 2,
        Shape::Triangular => 3,
        Shape::Normal => 4,
    }
}

/// A device's context with the compiled kernels.
struct Loaded {
    context: Arc<CudaContext>,
    units: CudaFunction,
    weights: CudaFunction,
    ratio: CudaFunction,
    plain: CudaFunction,
}

fn refused(index: usize, what: &str) -> impl Fn(cudarc::driver::DriverError) -> Error + '_ {
    move |e| Error::Device {
        device: format!("cuda:{index}"),
        reason: format!("{what}: {e}; --device cpu needs none of it"),
    }
}

/// The kernels for a device, compiled and loaded once.
fn load(index: usize) -> Result<Arc<Loaded>> {
    static LOADED: Mutex<Option<HashMap<usize, Arc<Loaded>>>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(|e| e.into_inner());
    let loaded = loaded.get_or_insert_default();
    if let Some(kernels) = loaded.get(&index) {
        return Ok(kernels.clone());
    }
    // the primary context, which is libtorch's too
    let context = CudaContext::new(index).map_err(refused(index, "no context"))?;
    let (major, minor) = context.compute_capability().map_err(refused(index, "no compute capability"))?;
    let cubin = nvrtc::cached((major * 10 + minor) as u32)?;
    let module = context.load_module(cudarc::nvrtc::Ptx::from_binary(cubin));
    let module = module.map_err(refused(index, "the compiled kernels do not load"))?;
    let function = |name: &str| module.load_function(name).map_err(refused(index, "a kernel is missing"));
    let kernels = Arc::new(Loaded {
        units: function("delta_units")?,
        weights: function("delta_weights")?,
        ratio: function("delta_ratio")?,
        plain: function("delta_plain")?,
        context,
    });
    loaded.insert(index, kernels.clone());
    Ok(kernels)
}

/// The product on a CUDA device, f32. `w_max`: the largest `|w|` at scale 1.
pub(super) fn conv2d(
    op: &'static str,
    noise: &BinaryNoise,
    x: &Tensor,
    w: &Tensor,
    a: &Tensor,
    g: &Tensor,
    conv: &Conv,
    w_max: f64,
) -> Result<Tensor> {
    let Device::Cuda(index) = x.device() else { return Err(Error::shape(op, "CUDA tensors", x.device())) };
    let sizes = Sizes::new(op, x, w, a, conv)?;
    if x.numel() == 0 || a.numel() == 0 {
        return Ok(x.f_zeros_like()?);
    }
    let law = law(noise, w_max);
    let (s, weights, units) = geometry(&sizes, law)?;
    let kernels = load(index)?;
    let stream = current_cuda_stream(index)? as sys::CUstream;
    // SAFETY: libtorch's stream of this device's primary context, alive for the process; everything below is ordered on it.
    let stream = unsafe { kernels.context.wrap_borrowed_stream(stream) };

    let [x, w, a, g] = [x.f_contiguous()?, w.f_contiguous()?, a.f_contiguous()?, g.f_contiguous()?];
    let empty = |n: usize| Tensor::f_empty([n as i64], (Kind::Float, x.device()));
    let (prepared, kept, out) = (empty(weights)?, empty(units)?, x.f_empty_like()?);
    let [px, pw, pa, pg, p_weights, p_units, p_out] =
        [&x, &w, &a, &g, &prepared, &kept, &out].map(|t| t.data_ptr() as u64);
    let inverse = (1.0 / noise.scale()) as f32;
    let (output, positions, taps) = (sizes.output as i32, (sizes.to[0] * sizes.to[1]) as i32, sizes.taps() as i32);
    let flat = |n: usize| LaunchConfig {
        grid_dim: (n.div_ceil(256) as u32, 1, 1),
        block_dim: (256, 1, 1),
        shared_mem_bytes: 0,
    };
    let failed = refused(index, "a launch failed");

    let mut launch = stream.launch_builder(&kernels.units);
    launch.arg(&pa).arg(&pg).arg(&p_units).arg(&s.batch).arg(&output).arg(&positions).arg(&inverse).arg(&law);
    // SAFETY: the arguments are those of the kernel; the tensors have the sizes it counts with and live on this stream.
    unsafe { launch.launch(flat(sizes.positions() * s.groups as usize)) }.map_err(&failed)?;

    let mut launch = stream.launch_builder(&kernels.weights);
    launch.arg(&pw).arg(&p_weights).arg(&output).arg(&s.input).arg(&s.padded).arg(&taps).arg(&inverse).arg(&law);
    // SAFETY: as above.
    unsafe { launch.launch(flat(weights)) }.map_err(&failed)?;

    let phase = |axis: usize| sizes.from[axis].div_ceil(conv.stride[axis] as usize);
    let config = LaunchConfig {
        grid_dim: (
            (sizes.batch * phase(0) * phase(1)).div_ceil(PIXELS) as u32,
            s.padded as u32 / CHANNELS as u32,
            (conv.stride[0] * conv.stride[1]) as u32,
        ),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: 0,
    };
    let mut launch = stream.launch_builder(if law == RATIO { &kernels.ratio } else { &kernels.plain });
    launch.arg(&px).arg(&p_weights).arg(&p_units).arg(&p_out).arg(&s);
    if law != RATIO {
        launch.arg(&law);
    }
    // SAFETY: as above.
    unsafe { launch.launch(config) }.map_err(&failed)?;
    Ok(out)
}
