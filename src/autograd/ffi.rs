//! The C++ side, `shim.cpp`, as Rust sees it: declarations and nothing else.
use std::ffi::{c_char, c_int, c_void};
use torch_sys::C_tensor;

/// `BackwardFn` of the shim.
pub(super) type BackwardFn = unsafe extern "C" fn(
    closure: *mut c_void,
    grads: *mut *mut C_tensor,
    n_grads: usize,
    saved: *mut *mut C_tensor,
    n_saved: usize,
    needs: *const bool,
    out: *mut *mut C_tensor,
    n_inputs: usize,
    error: *mut c_void,
) -> c_int;

/// `DropFn` of the shim.
pub(super) type DropFn = unsafe extern "C" fn(closure: *mut c_void);

unsafe extern "C" {
    pub(super) fn thruway_last_error() -> *const c_char;
    pub(super) fn thruway_set_string(string: *mut c_void, bytes: *const c_char, n: usize);
    pub(super) fn thruway_make_node(
        name: *const c_char,
        name_len: usize,
        closure: *mut c_void,
        backward: BackwardFn,
        drop: DropFn,
        inputs: *const *const C_tensor,
        n_inputs: usize,
        outputs: *const *mut C_tensor,
        n_outputs: usize,
        non_differentiable: *const i64,
        n_non_differentiable: usize,
        saved: *const *const C_tensor,
        n_saved: usize,
        saved_outputs: *const i64,
        n_saved_outputs: usize,
    ) -> c_int;
    pub(super) fn thruway_bump_version(tensor: *const C_tensor);
    pub(super) fn thruway_clear_grad(tensor: *const C_tensor) -> c_int;
    pub(super) fn thruway_generator_state(device: c_int, out: *mut *mut C_tensor) -> c_int;
    pub(super) fn thruway_set_generator_state(device: c_int, state: *const C_tensor) -> c_int;
    pub(super) fn thruway_seed_generator(device: c_int, seed: i64) -> c_int;
    pub(super) fn thruway_set_deterministic(on: bool) -> c_int;
    pub(super) fn thruway_show_config() -> *const c_char;
    pub(super) fn thruway_memory_peak(device: c_int, bytes: *mut u64) -> c_int;
    pub(super) fn thruway_reset_memory_peak(device: c_int) -> c_int;
    pub(super) fn thruway_current_stream(device: c_int, handle: *mut u64) -> c_int;
}

/// Turns a status of the shim into a `Result`, with the message of the exception it caught on this thread.
pub(super) fn check(status: c_int) -> crate::Result<()> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: a NUL-terminated string of this thread, unchanged until its next failing call.
    let message = unsafe { std::ffi::CStr::from_ptr(thruway_last_error()) };
    Err(tch::TchError::Torch(message.to_string_lossy().into_owned()).into())
}
