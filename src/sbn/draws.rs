//! Where the states of a pass come from: drawn, or given.
use crate::dist::binary::BinaryNoise;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// The source of a pass's randomness.
pub struct Draws<'a>(Source<'a>);

enum Source<'a> {
    Noise(&'a mut dyn Noise),
    Given(&'a [Tensor]),
}

impl<'a> Draws<'a> {
    /// States are drawn, as is all noise beyond them.
    pub fn random(noise: &'a mut dyn Noise) -> Self {
        Draws(Source::Noise(noise))
    }

    /// The states ±1 of each layer are given, `[.., B, units]` or with axes of 1 to broadcast.
    pub fn given(states: &'a [Tensor]) -> Self {
        Draws(Source::Given(states))
    }

    /// States of layer `layer` (from 0) with pre-activations a, without a graph, of a's shape.
    ///
    /// # Errors
    /// [`Error::Shape`] where no fitting states were given; those of [`BinaryNoise::draw`].
    pub fn states(&mut self, layer: usize, law: &BinaryNoise, a: &Tensor) -> Result<Tensor> {
        match &mut self.0 {
            Source::Noise(noise) => law.draw(a, *noise),
            Source::Given(_) => self.given_states(layer, a),
        }
    }

    /// As [`Draws::states`], from probabilities `P(x = 1)`.
    pub(super) fn states_from(&mut self, layer: usize, law: &BinaryNoise, p: &Tensor) -> Result<Tensor> {
        match &mut self.0 {
            Source::Noise(noise) => law.draw_from(p, *noise),
            Source::Given(_) => self.given_states(layer, p),
        }
    }

    fn given_states(&self, layer: usize, like: &Tensor) -> Result<Tensor> {
        let Source::Given(states) = &self.0 else { unreachable!("only called with given states") };
        let found = states.get(layer).ok_or_else(|| {
            Error::shape("given states", format!("states of layer {}", layer + 1), format!("{} layers", states.len()))
        })?;
        match found.f_expand(like.size(), false) {
            Ok(x) => Ok(x.f_contiguous()?),
            Err(_) => {
                Err(Error::shape("given states", format!("{:?} for layer {}", like.size(), layer + 1), found.size()))
            }
        }
    }

    /// The noise itself, for methods that take more than states.
    ///
    /// # Errors
    /// [`Error::Usage`] where states were given.
    pub fn noise(&mut self, method: &str) -> Result<&mut dyn Noise> {
        match &mut self.0 {
            Source::Noise(noise) => Ok(*noise),
            Source::Given(_) => {
                Err(Error::Usage(format!("{method} takes noise beyond the states; give it a noise source")))
            }
        }
    }
}
