//! Training through discrete random variables, on libtorch.
pub mod error;
pub use error::{Error, Result};
pub mod autograd;
pub mod data;
pub mod report;
pub mod run;
