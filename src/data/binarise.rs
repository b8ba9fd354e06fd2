//! From grey levels to black and white: the three ways in which published results use these images.
use super::images::unit_interval;
use crate::error::Result;
use crate::noise::{HostNoise, Noise};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How pixels become targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binarisation {
    /// Every pixel is drawn anew each time an image is read, black with the grey level as probability
    Dynamic,
    /// Every pixel is drawn once at the start of the run, from the run's seed
    Static,
    /// Grey levels are taken as they are
    None,
}

/// Pixels drawn: 1 with the grey level as probability, else 0. Grey levels of any shape in [0, 1], the same kind out.
///
/// # Errors
/// Those of the source of noise.
pub fn binarise(grey: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
    let u = noise.uniform(&grey.size(), grey.kind(), grey.device())?;
    Ok(u.f_lt_tensor(grey)?.f_to_kind(grey.kind())?)
}

/// A fixed draw of a whole set `[N, D]`: it depends on `seed` and `part` (which keeps training and test apart) and on nothing
/// else, so that every estimator of a comparison, and a resumed run, sees the same images. uint8 or floating grey levels in,
/// float32 out.
///
/// # Errors
/// As [`binarise`].
pub fn binarise_once(images: &Tensor, seed: i64, part: u64) -> Result<Tensor> {
    let mut noise = HostNoise::new((seed as u64).wrapping_mul(0x1_0001).wrapping_add(part) ^ 0xB1_4A21);
    let n = images.size()[0];
    let piece = |from: i64| binarise(&unit_interval(&images.f_narrow(0, from, 1000.min(n - from))?), &mut noise);
    Ok(Tensor::f_cat(&(0..n).step_by(1000).map(piece).collect::<Result<Vec<_>>>()?, 0)?)
}
