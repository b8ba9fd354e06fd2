//! Networks of the experiments, with PyTorch's layout, names and initialisation.

pub mod linear;
pub mod loss;
pub mod tree_lstm;
pub mod vae;
pub use linear::{Linear, Params};
pub use tree_lstm::TreeLstm;
pub use vae::CategoricalVae;
