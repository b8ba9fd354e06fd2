//! Distributions: how to draw, what a draw costs in nats.

pub mod binary;
pub mod categorical;
