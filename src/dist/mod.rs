//! Distributions: how to draw, what a draw costs in nats.

pub mod bernoulli;
pub mod binary;
pub mod categorical;
