//! Hot loops of the crate on raw numbers: rows of a softmax, the exponential race, noise, optimizer steps, losses.
//!
//! libtorch's softmax over rows of ten costs more than the two matrix products around it, so what an estimator does to a
//! row is written out here for CPU tensors (f32 vectorised for AVX2 and AVX-512, f64 plain); other devices and kinds take
//! the same formula through libtorch. Nothing here records a graph: callers put these behind [`crate::autograd`].
#![allow(unsafe_code)]

pub mod adam;
pub mod delta;
pub mod elbo;
pub mod flips;
pub mod gumbel_rao;
pub mod heap;
pub mod leaky_net;
pub mod log_sum;
pub mod mt19937;
pub mod real;
pub mod rows;
pub mod sgd;
pub mod tree;
