//! Random changes of training images that keep their class.
//!
//! All draws come from the caller's [`Noise`], one request a batch and kind of change, so that a run draws them from its own
//! stream and a resumed run draws the same.
use crate::noise::Noise;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What is done to each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// Nothing
    None,
    /// Rotation by up to 10 degrees either way and shifts of up to 5 % of the side, bilinear, black beyond the edge
    Affine,
    /// Mirrored with probability 1/2, then shifted by up to 4 pixels each way, black beyond the edge
    FlipCrop,
}

/// Largest rotation of [`Augment::Affine`], degrees.
const DEGREES: f64 = 10.0;
/// Largest shift of [`Augment::Affine`], share of the side.
const SHIFT: f64 = 0.05;
/// Largest shift of [`Augment::FlipCrop`], pixels.
const PAD: i64 = 4;

impl Augment {
    /// Images `[B, C, H, W]` of a floating kind, 0 being black -> the same, changed. Draws nothing for [`Augment::None`].
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of axes.
    pub fn apply(self, images: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        if images.dim() != 4 {
            return Err(Error::shape("augment", "images [B, C, H, W]", images.size()));
        }
        let mut uniform = |parts| noise.uniform(&[parts, images.size()[0]], images.kind(), images.device());
        match self {
            Augment::None => Ok(images.shallow_clone()),
            Augment::Affine => {
                let u = uniform(3)?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?; // [3, B] in (-1, 1)
                let angle = u.f_get(0)?.f_mul_scalar(DEGREES.to_radians())?;
                affine(images, &angle, &u.f_narrow(0, 1, 2)?.f_mul_scalar(SHIFT)?)
            }
            Augment::FlipCrop => {
                let u = uniform(3)?;
                let steps = (2 * PAD + 1) as f64;
                let offset = u.f_narrow(0, 1, 2)?.f_mul_scalar(steps)?.f_floor()?.f_clamp_max(2.0 * PAD as f64)?;
                flip_crop(images, &u.f_get(0)?.f_lt(0.5)?, &offset.f_to_kind(Kind::Int64)?)
            }
        }
    }
}

/// Rotates each image about its centre, counter-clockwise as seen, then shifts it: `angle` `[B]` in radians, `shift` `[2, B]`
/// to the right and down, in shares of width and height. Bilinear; what comes from outside is 0.
///
/// # Errors
/// [`Error::Torch`] for other shapes.
pub fn affine(images: &Tensor, angle: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let size = images.size();
    let (h, w) = (size[2] as f64, size[3] as f64);
    let (cos, sin) = (angle.f_cos()?, angle.f_sin()?);
    // The grid runs from -1 to 1 along each axis: a shift by a share s is 2 s there, and a pixel is 2/w wide and 2/h high.
    // It says for each place of the result where it comes from, hence the inverse: shift back, then rotate back.
    let (tx, ty) = (shift.f_get(0)?.f_mul_scalar(-2.0)?, shift.f_get(1)?.f_mul_scalar(-2.0)?);
    let row = |x: &Tensor, y: &Tensor| -> Result<Tensor> {
        let t = x.f_mul(&tx)?.f_add(&y.f_mul(&ty)?)?;
        Ok(Tensor::f_stack(&[x, y, &t], -1)?)
    };
    let to_x = row(&cos, &sin.f_mul_scalar(-h / w)?)?;
    let to_y = row(&sin.f_mul_scalar(w / h)?, &cos)?;
    let map = Tensor::f_stack(&[to_x, to_y], 1)?; // [B, 2, 3]
    let grid = Tensor::f_affine_grid_generator(&map, &size, false)?;
    Ok(images.f_grid_sampler(&grid, 0, 0, false)?)
}

/// Mirrors the images where `flip` `[B]` is true, pads all by 4 zeros and cuts the original size out at `offset` `[2, B]`,
/// int64 in 0..=8: rows, columns.
///
/// # Errors
/// [`Error::Torch`] for other shapes or offsets.
pub fn flip_crop(images: &Tensor, flip: &Tensor, offset: &Tensor) -> Result<Tensor> {
    let size = images.size();
    let (channels, h, w) = (size[1], size[2], size[3]);
    let count = |n: i64| Tensor::f_arange(n, (Kind::Int64, images.device()));
    let rows = offset.f_get(0)?.f_unsqueeze(1)?.f_add(&count(h)?)?; // [B, H]
    let columns = offset.f_get(1)?.f_unsqueeze(1)?.f_add(&count(w)?)?; // [B, W]
    let mirrored = columns.f_neg()?.f_add_scalar(w + 2 * PAD - 1)?;
    let columns = mirrored.f_where_self(&flip.f_unsqueeze(1)?, &columns)?;
    let padded = images.f_constant_pad_nd([PAD, PAD, PAD, PAD])?;
    let index = [
        Some(count(size[0])?.f_view([-1, 1, 1, 1])?),
        Some(count(channels)?.f_view([1, -1, 1, 1])?),
        Some(rows.f_view([-1, 1, h, 1])?),
        Some(columns.f_view([-1, 1, 1, w])?),
    ];
    Ok(padded.f_index(&index)?)
}
