//! Distributions: how to draw, what a draw costs in nats.

pub mod categorical;
