//! Gradients of your own for tch: a pair of Rust closures as a node of libtorch's graph, and the few calls of libtorch that
//! tch has no name for.
//!
//! | item | what for |
//! |---|---|
//! | [`Function`] | forward and backward as closures, the `torch.autograd.Function` of Rust |
//! | [`libtorch`] | generator states, memory peaks, streams, versions, the loading of CUDA |
//! | `slices` | the numbers of a contiguous CPU tensor as a Rust slice, for kernels within the crate |
//!
//! All `unsafe` of the crate lives here and in `kernels`. The C++ side is one file, `shim.cpp`, which needs nothing but
//! libtorch's headers.
#![allow(unsafe_code)]

mod ffi;
mod function;
pub mod libtorch;
#[cfg_attr(not(test), allow(dead_code, reason = "the kernels that use it come one by one"))]
pub(crate) mod slices;

pub use function::{Backward, Function};
