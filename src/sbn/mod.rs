//! Stochastic binary networks: layers of binary units `x = sgn(a - Z)`, a head, and every method of training them, after
//! Shekhovtsov, Yanush & Flach, *Path Sample-Analytic Gradient Estimators for Stochastic Binary Networks* (NeurIPS 2020).
//!
//! A [`Network`] is described once and run under any [`Method`] by changing one value. States are ±1 everywhere. A layer takes
//! and returns a [`State`], x and q of the paper's Algorithm 1: with PSA the backward of a layer is a custom function, the
//! product with Delta comes from [`crate::kernels::delta`], and no graph of q is ever built.
//!
//! Slips of the paper that a re-implementation meets, and where they are put right: Eq. 33a in [`Head`], Eq. 10 (the sign of
//! Eq. 11 holds) in [`psa`], Eqs. 44, 46, 47, 50 and 51 in [`crate::kernels::delta`], Eqs. 36-37 (derivatives in theta, a sum
//! over units) in [`psa`]. After Algorithm 1 the product is `D^l Delta^{l+1} ... Delta^L df`. Where the released code departs
//! from the paper, the paper is followed and the released variant has a name:
//!
//! | released code | paper, and here | its name |
//! |---|---|---|
//! | scores of ADF and LocalReparam go through a binary unit | states of the last layer are sampled | [`Knobs::published_head`] |
//! | tanh(a) in the CIFAR network | the mean of the state, tanh(a/2) | [`Knobs::tanh_scale`] 2 |
//! | Concrete as tanh((a - Z)/T), T = 1 | temperature tau = T/2 | [`Knobs::tau`] 0.5 |
//! | `Affine` augmentation is overwritten by none | [`Augment::Affine`](crate::data::augment::Augment) | `--augment none` |
//! | gradient entries clamped to ±1000 | not clamped | `sbn-train --grad-clamp 1000` |
//! | learning-rate search on the mean of last losses | on an exponential average | `sbn-train --lr-objective last` |
//!
//! Legend: `B` batch, `K` class scores, `L` layers, `n` units of a layer, `R` replicas of a network.
#![doc = include_str!("principled.md")]
mod baseline;
mod draws;
mod evaluate;
mod head;
mod init;
mod layer;
mod network;
mod objective;
mod registry;
mod surrogate;
mod units;
mod weights;
mod zero_one;

pub use baseline::Ewa;
pub use draws::Draws;
pub use evaluate::Evaluation;
pub use head::{Flips, Head, HeadGradient};
pub use init::Carrier;
pub use layer::{Affine, Layer, Spec, State};
pub use network::{Batch, Description, Loss, Network, Sample};
pub use objective::{Objective, ScoreLoss};
pub use registry::{Claims, Knobs, Mean, Randomness, Rule};
pub use units::{Proxy, Units, sign};
pub use weights::{BinaryConv2d, BinaryLinear, BinaryWeight, Mode, ensemble};
pub use zero_one::ZeroOne;

registry::registry! {
    /// Path sample-analytic
    Psa = psa,
    /// Straight-through matched to the noise, derivative 2F'
    St = st,
    /// Straight-through with the derivative of the hard tanh
    HardSt = hard_st,
    /// Deterministic straight-through, noise set to 0
    DetSt = det_st,
    /// Straight-through with derivative 1
    IdentitySt = identity_st,
    /// Deterministic relaxation: states replaced by their means
    Tanh = tanh,
    /// Concrete relaxation (Gumbel-softmax of two classes)
    Concrete = concrete,
    /// Assumed density filtering: means and variances propagated
    Adf = adf,
    /// Local reparametrisation: normal pre-activations of matched moments
    LocalReparam = local_reparam,
    /// Score function
    Reinforce = reinforce,
    /// Score function with a linear baseline around the mean-field pass
    Muprop = muprop,
    /// Augment-REINFORCE-merge, layer by layer
    Arm = arm,
    /// Enumeration of all states, layer by layer
    Exact = exact,
}
