//! Training through discrete random variables, on libtorch.
pub mod autograd;
pub mod data;
pub mod dist;
pub mod error;
pub mod estimators;
pub mod exact;
pub mod kernels;
pub mod nn;
pub mod noise;
pub mod optim;
pub mod probe;
pub mod report;
pub mod run;
pub use error::{Error, Result};
