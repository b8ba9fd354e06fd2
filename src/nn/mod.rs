//! Networks of the experiments, with PyTorch's layout, names and initialisation.

pub mod belief;
pub mod bow;
pub mod elbo;
pub mod likelihood;
pub mod linear;
pub mod loss;
pub mod search_net;
pub mod tree_lstm;
pub mod vae;
pub use belief::BeliefNet;
pub use elbo::Elbo;
pub use linear::{Linear, Params};
pub use search_net::SearchNet;
pub use tree_lstm::TreeLstm;
pub use vae::CategoricalVae;
