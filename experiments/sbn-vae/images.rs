//! The images of a run: split, and black and white as it asks.
use crate::args::Config;
use tch::{Device, Kind, Tensor};
use thruway::data::{Binarisation, Images, binarise, binarise_once, unit_interval};
use thruway::error::Result;
use thruway::noise::{Noise, TorchNoise};

/// One part of the data, on the run's device.
pub struct Part {
    /// Grey levels (uint8 or floating), or, binarised once, zeros and ones of kind uint8: `[N, 784]`.
    images: Tensor,
    /// 0/1 already.
    fixed: bool,
    /// Pixels are drawn at every reading.
    dynamic: bool,
}

impl Part {
    fn new(images: &Tensor, how: Binarisation, seed: i64, part: u64, device: Device) -> Result<Self> {
        let fixed = how == Binarisation::Static;
        let images =
            if fixed { binarise_once(images, seed, part)?.f_to_kind(Kind::Uint8)? } else { images.shallow_clone() };
        Ok(Part { images: images.f_to_device(device)?, fixed, dynamic: how == Binarisation::Dynamic })
    }

    /// N.
    pub fn len(&self) -> i64 {
        self.images.size()[0]
    }

    /// Rows as float32 in [0, 1], `[n, 784]`; drawn pixels take from `noise`.
    pub fn read(&self, rows: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        let some = self.images.f_index_select(0, &rows.f_to_device(self.images.device())?)?;
        self.values(&some, noise)
    }

    /// Consecutive rows.
    pub fn range(&self, from: i64, n: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        self.values(&self.images.f_narrow(0, from, n)?, noise)
    }

    fn values(&self, some: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        if self.fixed {
            return Ok(some.f_to_kind(Kind::Float)?);
        }
        let grey = unit_interval(some);
        if self.dynamic { binarise(&grey, noise) } else { Ok(grey) }
    }

    /// Mean of the images, `[784]`: of grey levels, or of the fixed draw.
    pub fn mean(&self) -> Result<Tensor> {
        let n = self.len();
        let mut sum = Tensor::f_zeros([self.images.size()[1]], (Kind::Double, self.images.device()))?;
        for from in (0..n).step_by(1000) {
            let some = self.images.f_narrow(0, from, 1000.min(n - from))?;
            let some = if self.fixed { some.f_to_kind(Kind::Float)? } else { unit_interval(&some) };
            sum += some.f_sum_dim_intlist(0i64, false, Kind::Double)?;
        }
        Ok((sum / n as f64).f_to_kind(Kind::Float)?)
    }
}

/// Training, validation (what is left of the training images, if any) and test.
pub struct Split {
    pub train: Part,
    pub valid: Option<Part>,
    pub test: Part,
}

/// The parts of a run. Where pixels are drawn anew at each reading, validation and test are drawn once, so that one
/// evaluation compares with the next.
pub fn split(images: &Images, config: &Config, seed: i64, device: Device) -> Result<Split> {
    let whole = images.train.size()[0];
    let n = config.train_images.min(whole);
    let how = config.binarisation;
    let held = if how == Binarisation::Dynamic { Binarisation::Static } else { how };
    let rest = (n < whole).then(|| Part::new(&images.train.f_narrow(0, n, whole - n)?, held, seed, 1, device));
    Ok(Split {
        train: Part::new(&images.train.f_narrow(0, 0, n)?, how, seed, 0, device)?,
        valid: rest.transpose()?,
        test: Part::new(&images.test, held, seed, 2, device)?,
    })
}

/// A training batch, drawn from libtorch's generator.
pub fn batch(part: &Part, order: &Tensor, index: i64, size: i64) -> Result<Tensor> {
    let from = index * size;
    let n = size.min(order.size()[0] - from);
    part.read(&order.f_narrow(0, from, n)?, &mut TorchNoise)
}
