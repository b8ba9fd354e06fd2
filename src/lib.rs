//! Training through discrete random variables, on libtorch.
//!
//! A model that draws a one-hot sample D from `softmax(logits)` has no derivative there. This crate puts an estimator of
//! `d E[f(D)] / d logits` in its place: nine drop-in and exact ones behind one registry, each held to its claims by
//! enumeration, by the published code's numbers, and by the same seed in PyTorch.
//!
//! | room | what is in it |
//! |---|---|
//! | [`estimators`] | one file each, the contracts [`DropIn`](estimators::DropIn) and [`GradEstimator`](estimators::GradEstimator), the registry |
//! | [`autograd`] | forward and backward of your own as Rust closures; stands on its own |
//! | [`noise`], [`dist`] | where randomness enters; distributions |
//! | [`sbn`] | stochastic binary networks: layers, head, and every method of training them |
//! | [`exact`], [`probe`] | the enumeration oracle; bias, standard deviation and cosine against it |
//! | [`nn`], [`optim`] | the networks of the experiments; Adam and RAdam with PyTorch's arithmetic |
//! | [`data`], [`run`], [`report`] | data sets, run directories and resume, tables beside the published ones |
//! | [`stochbp`] | stochastic backpropagation through continuous variables, and what it is compared with |
//! | [`nas`] | the topology search space of NATS-Bench |
//! | [`kernels`] | the hot loops |
//!
//! # Example
//! Twenty binary variables X are pulled towards `c = 0.45` in the mean square. All at 0 is best, since 0 is the nearer
//! end; ReinMax finds it by plain gradient descent on the logits.
//! ```
//! use tch::{Device, Kind, Tensor};
//! use thruway::estimators::{Estimator, Knobs};
//! use thruway::noise::TorchNoise;
//!
//! tch::manual_seed(0);
//! let reinmax = Estimator::Reinmax.build(&Knobs::default())?.drop_in()?;
//! let mut logits = Tensor::zeros([20, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
//! for _ in 0..300 {
//!     let batch = logits.unsqueeze(0).expand([64, 20, 2], false);
//!     let x = reinmax.draw(&batch, None, &mut TorchNoise)?.value.select(-1, 0);
//!     let loss = (x - 0.45).square().mean(Kind::Float);
//!     logits.zero_grad();
//!     loss.backward();
//!     let _guard = tch::no_grad_guard();
//!     logits -= logits.grad() * 200.0;
//! }
//! let p = logits.softmax(-1, Kind::Float).select(-1, 0).mean(Kind::Float);
//! assert!(p.double_value(&[]) < 0.02);
//! # Ok::<(), thruway::Error>(())
//! ```
pub mod autograd;
pub mod data;
pub mod dist;
pub mod error;
pub mod estimators;
pub mod exact;
pub mod kernels;
pub mod nas;
pub mod nn;
pub mod noise;
pub mod optim;
pub mod probe;
pub mod report;
pub mod run;
pub mod sbn;
pub mod stochbp;
pub use error::{Error, Result};
