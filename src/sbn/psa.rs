//! Path sample-analytic gradients.
use super::draws::Draws;
use super::head::HeadGradient;
use super::layer::{Affine, Layer, State};
use super::network::{Batch, Loss, Network};
use super::registry::{Claims, Knobs, Mean, Randomness, Rule};
use crate::autograd::Function;
use crate::error::Result;
use crate::kernels::delta::DeltaOptions;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    mean: Mean::Biased,
    randomness: Randomness::States,
    passes: "1",
    source: "Shekhovtsov, Yanush & Flach 2020, Alg. 1; exact in a layer if those above have one unit each",
    knobs: &["head", "psa-backend", "psa-tol"],
};

/// PSA: one sample of all states, then sums over all paths of single flips.
///
/// The estimate for layer l is `D^l Delta^{l+1} ... Delta^L df` (Eq. 12), `D_i = x_i F'(a_i) da_i/dtheta` (Eq. 36, with the
/// derivative in theta), `Delta_ij = x_j (F(a_j) - F(a_j(x flipped at i)))` (Eq. 11: the sign of 11 and 18, not that of 10),
/// `df_i = f(x) - f(x flipped at i)`, multiplied from the right by one backward pass.
///
/// - **Bias, cost**: to pass a layer, the difference of two products of probabilities is linearised, which is no
///   approximation if the layer has one unit. So it is unbiased in the head, in the last binary layer, and in layer l if
///   layers l+1 to L have one unit each (any number below). Proposition 3 as printed allows any number of units in layer L:
///   that holds for the gradient of layer L alone, and 1-1-4 is biased in layers 1 and 2 (`tests/sbn_claims.rs`). One forward
///   pass; the backward costs that of the plain network, with the product with Delta in place of the transposed product.
/// - **Memory**: a layer keeps a, x and its input, as straight-through does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Psa {
    /// Gradient of the head's own parameters.
    pub head: HeadGradient,
    /// How the products with Delta are computed.
    pub delta: DeltaOptions,
}

/// From the knobs.
pub fn build(knobs: &Knobs) -> Result<Psa> {
    Ok(Psa { head: knobs.head.unwrap_or_default(), delta: knobs.delta()? })
}

impl Psa {
    /// One layer of Algorithm 1 (lines 3 to 8): its states, and `q = x F(a) + Delta^T q_in` less its value, which is the zero
    /// tensor with that Jacobian. Also `P(x = 1)`, without a graph.
    pub fn layer(
        &self,
        network: &Network,
        index: usize,
        state: &State,
        draws: &mut Draws,
    ) -> Result<(State, Tensor)> {
        let noise = *network.noise();
        let layer: &Layer = &network.layers()[index];
        let fold = layer.fold()?;
        let x_in = fold.shaped(&state.x)?;
        let a = fold.apply(&state.x)?;
        let up = tch::no_grad(|| noise.cdf(&a.detach()))?;
        let x = draws.states_from(index, &noise, &up)?;
        let (conv, options) = (fold.conv(), self.delta);
        let q_in = state.q.as_ref().map(|q| fold.shaped(q)).transpose()?;
        let function = Function::new("PsaLayer").save(&[&a, &x, &x_in, &fold.weight]);
        let function = match &q_in {
            Some(q) => function.inputs(&[&a, q]),
            None => function.inputs(&[&a]),
        };
        let q = function.apply(
            || Ok(vec![x.f_zeros_like()?]),
            move |node| {
                let [a, x, x_in, w] = node.saved() else { anyhow::bail!("four saved tensors expected") };
                let g = node.grad(0)?;
                // x is ±1, so the order of the factors does not matter, and the first layer, the widest, needs one tensor less
                let pdf = node.needs()[0].then(|| noise.pdf(a)).transpose()?;
                let mut grads = vec![pdf.map(|mut pdf| pdf.f_mul_(g)?.f_mul_(x)).transpose()?];
                if let Some(needed) = node.needs().get(1) {
                    let below =
                        needed.then(|| Affine::delta(&noise, conv, x_in, w, a, &(g * x), &options)).transpose()?;
                    grads.push(below);
                }
                Ok(grads)
            },
        )?;
        let [q] = <[Tensor; 1]>::try_from(q).expect("one output");
        Ok((State { x, q: Some(q) }, up))
    }
}

impl Rule for Psa {
    fn loss(&self, network: &Network, batch: &Batch, draws: &mut Draws) -> Result<Loss> {
        let mut state = State { x: batch.input.shallow_clone(), q: None };
        let mut up = None;
        for index in 0..network.layers().len() {
            let (next, p) = self.layer(network, index, &state, draws)?;
            (state, up) = (next, Some(p));
        }
        let (q, up) = (state.q.expect("a layer was run"), up.expect("a layer was run"));
        let (scores, e) = network.head().psa(&state.x, &q, &up, batch.target, network.objective(), self.head)?;
        Ok(Loss { value: e.detach(), surrogate: e, scores })
    }
}
