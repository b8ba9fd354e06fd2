//! What tch has no name for: states of the default generators, memory peaks, streams, versions, and the loading of CUDA.
//!
//! CUDA comes as a library of its own, `libtorch_cuda.so`, which is opened when first asked for: one binary serves machines
//! with and without it. Everything here that concerns CUDA sees to that by itself, **and so must whoever asks tch**:
//! libtorch decides once, at the first question about CUDA, whether there is any, so [`load_cuda`] has to come
//! before `tch::Cuda::is_available` and its like, or use [`cuda_available`].
use super::ffi;
use crate::{Error, Result};
use std::ffi::{CStr, c_int};
use std::sync::OnceLock;
use tch::{Device, Tensor};

/// Opens libtorch's CUDA part, once; `false` if this libtorch has none, or its libraries are not installed. It says
/// nothing yet about a GPU: see [`cuda_available`].
pub fn load_cuda() -> bool {
    static LOADED: OnceLock<bool> = OnceLock::new();
    *LOADED.get_or_init(|| {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: libtorch's own library of the same build; its initialisers register the CUDA kernels.
        let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
        library.map(std::mem::forget).is_ok() // open for good: libtorch now points into it
    })
}

/// Whether there is a CUDA device to compute on. Loads CUDA first.
pub fn cuda_available() -> bool {
    load_cuda() && tch::Cuda::is_available()
}

/// Version of the libtorch in use, as in `2.11.0`.
pub fn version() -> String {
    // SAFETY: a static string of the shim.
    let config = unsafe { CStr::from_ptr(ffi::thruway_show_config()) }.to_string_lossy();
    let version = config.split("TORCH_VERSION=").nth(1).and_then(|rest| rest.split(',').next());
    version.unwrap_or("unknown").trim().to_string()
}

/// Forgets the gradient of a leaf: `grad()` is undefined afterwards, and the next backward hands its own tensor over, where
/// tch's `zero_grad` fills the old one with zeros and has the new one added to them.
///
/// ```
/// use tch::Tensor;
/// let x = Tensor::from(3f64).set_requires_grad(true);
/// x.square().backward();
/// thruway::autograd::libtorch::clear_grad(&x)?;
/// assert!(!x.grad().defined());
/// # thruway::Result::Ok(())
/// ```
///
/// # Errors
/// [`Error::Torch`] for an undefined tensor.
pub fn clear_grad(leaf: &Tensor) -> Result<()> {
    // SAFETY: a tensor that lives through the call.
    ffi::check(unsafe { ffi::thruway_clear_grad(leaf.as_ptr()) })
}

/// State of the default generator of a device: all that its next draws depend on.
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use thruway::autograd::libtorch::{generator_state, set_generator_state};
///
/// let state = generator_state(Device::Cpu)?;
/// let first = Tensor::rand([4], (Kind::Float, Device::Cpu));
/// set_generator_state(Device::Cpu, &state)?;
/// assert_eq!(first, Tensor::rand([4], (Kind::Float, Device::Cpu)));
/// # thruway::Result::Ok(())
/// ```
///
/// # Errors
/// [`Error::Device`] if the device is not there.
pub fn generator_state(device: Device) -> Result<Tensor> {
    let index = index_of(device)?;
    let mut out = std::ptr::null_mut();
    // SAFETY: on success `out` is a new tensor for us to own.
    unsafe {
        ffi::check(ffi::thruway_generator_state(index, &mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// Puts the default generator of a device into a state that [`generator_state`] gave for a device of that type.
///
/// # Errors
/// [`Error::Device`] if the device is not there, [`Error::Torch`] if it is no such state.
pub fn set_generator_state(device: Device, state: &Tensor) -> Result<()> {
    let index = index_of(device)?;
    // SAFETY: a tensor that lives through the call; libtorch checks kind and size.
    ffi::check(unsafe { ffi::thruway_set_generator_state(index, state.as_ptr()) })
}

/// Seeds the default generator of one device and leaves the others alone; `tch::manual_seed` seeds all of them.
///
/// # Errors
/// [`Error::Device`] if the device is not there.
pub fn seed_generator(device: Device, seed: i64) -> Result<()> {
    let index = index_of(device)?;
    // SAFETY: two numbers.
    ffi::check(unsafe { ffi::thruway_seed_generator(index, seed) })
}

/// Makes libtorch take deterministic algorithms only, and refuse operations that have none. Unlike Python's switch it does
/// not fill fresh memory with NaN, which costs a pass over every new tensor.
pub fn set_deterministic(on: bool) -> Result<()> {
    // SAFETY: no arguments to get wrong.
    ffi::check(unsafe { ffi::thruway_set_deterministic(on) })
}

/// The most memory, in bytes, that tensors on CUDA device `index` have occupied at once since the start or
/// [`reset_cuda_memory_peak`].
///
/// # Errors
/// [`Error::Device`] if the device is not there.
pub fn cuda_memory_peak(index: usize) -> Result<u64> {
    let (index, mut bytes) = (index_of(Device::Cuda(index))?, 0);
    // SAFETY: writes one number.
    ffi::check(unsafe { ffi::thruway_memory_peak(index, &mut bytes) })?;
    Ok(bytes)
}

/// Starts the measurement of [`cuda_memory_peak`] afresh.
///
/// # Errors
/// [`Error::Device`] if the device is not there.
pub fn reset_cuda_memory_peak(index: usize) -> Result<()> {
    let index = index_of(Device::Cuda(index))?;
    // SAFETY: no arguments to get wrong.
    ffi::check(unsafe { ffi::thruway_reset_memory_peak(index) })
}

/// The `cudaStream_t` on which libtorch at present launches the work of CUDA device `index`; 0 is the default stream.
///
/// # Errors
/// [`Error::Device`] if the device is not there.
pub fn current_cuda_stream(index: usize) -> Result<u64> {
    let (index, mut handle) = (index_of(Device::Cuda(index))?, 0);
    // SAFETY: writes one number.
    ffi::check(unsafe { ffi::thruway_current_stream(index, &mut handle) })?;
    Ok(handle)
}

/// The shim's name of a device, -1 for the CPU; checks that a CUDA device is there, so that libtorch's own message about
/// a missing driver is never the one seen.
fn index_of(device: Device) -> Result<c_int> {
    let refuse = |name: String, reason: String| Err(Error::Device { device: name, reason });
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(i) if !load_cuda() => refuse(
            format!("cuda:{i}"),
            "this libtorch has no CUDA part; install the full torch 2.11, or use --device cpu".into(),
        ),
        Device::Cuda(i) => match tch::Cuda::device_count() {
            0.. if !tch::Cuda::is_available() => {
                refuse(format!("cuda:{i}"), "no NVIDIA GPU or driver found; use --device cpu".into())
            }
            n if i as i64 >= n => refuse(format!("cuda:{i}"), format!("there are {n} CUDA devices, counted from 0")),
            _ => Ok(i as c_int),
        },
        other => refuse(format!("{other:?}"), "only the CPU and CUDA devices are supported".into()),
    }
}
