//! Gradients of your own for tch: a pair of Rust closures as a node of libtorch's graph, and the few calls of libtorch that
//! tch has no name for.
//!
//! | item | what for |
//! |---|---|
//! | [`Function`] | forward and backward as closures, the `torch.autograd.Function` of Rust |
//! | [`libtorch`] | generator states, memory peaks, streams, versions, the loading of CUDA |
//! | [`threads`] | evaluations side by side, each on one thread |
//! | `slices` | the numbers of a contiguous CPU tensor as a Rust slice, for kernels within the crate |
//!
//! The smallest of examples reverses a gradient; whatever goes wrong in a backward arrives at the caller as an error.
//!
//! ```
//! use tch::Tensor;
//! use thruway::autograd::Function;
//!
//! let x = Tensor::from(1.5f64).set_requires_grad(true);
//! let reversal = Function::new("Reversal").inputs(&[&x]);
//! let y = reversal.apply(|| Ok(vec![x.shallow_clone()]), |b| Ok(vec![Some(b.grad(0)?.neg())]))?.remove(0);
//! (y * 2.).f_backward()?;
//! assert_eq!(x.grad().double_value(&[]), -2.);
//!
//! let broken = Function::new("Broken").inputs(&[&x]);
//! let y = broken.apply(|| Ok(vec![x.exp()]), |_| panic!("not today"))?.remove(0);
//! let e = thruway::Error::from(y.f_backward().unwrap_err());
//! assert!(e.to_string().ends_with("Broken: panicked: not today"));
//! # anyhow::Ok(())
//! ```
//!
//! To use it elsewhere, take this directory, an error type, and the lines of `build.rs` that compile `shim.cpp` and link
//! `torch_cpu` and `c10`. The shim needs libtorch's headers and nothing else. All `unsafe` of the crate lives here and in
//! `kernels`.
#![allow(unsafe_code)]

mod ffi;
mod function;
pub mod libtorch;
#[cfg_attr(not(test), allow(dead_code, reason = "the kernels that use it come one by one"))]
pub(crate) mod slices;
pub mod threads;

pub use function::{Backward, Function};
