//! The images of a run: training and validation, and batches of them.
use crate::args::{Config, Dataset};
use tch::{Device, Kind, Tensor};
use thruway::data::cifar10::Variant;
use thruway::data::{Cifar10, Fetch, unit_interval};
use thruway::error::{Error, Result};
use thruway::noise::Noise;
use thruway::run::seeding::SideStream;

/// Seed of the split: one for all runs, so that they are judged by the same images.
const SPLIT: i64 = 1;

/// Training and validation images on the device; the test images are not used (as in the paper).
pub struct Images {
    /// Which images these are.
    pub variant: Variant,
    pub train: Part,
    pub valid: Part,
}

/// Images uint8 `[N, 3, 32, 32]` and classes int64 `[N]`.
pub struct Part {
    pub images: Tensor,
    pub labels: Tensor,
}

impl Images {
    /// Loads what is asked for and splits its training part at random, the same for all runs: validation first, then
    /// training.
    pub fn load(dataset: Dataset, config: &Config, device: Device) -> Result<Images> {
        let set = match dataset {
            Dataset::Synthetic => Cifar10::synthetic(50_000, 0)?,
            _ => Cifar10::load(Fetch::Allowed)?,
        };
        if dataset == Dataset::Cifar10 && set.variant == Variant::Synthetic {
            let remedy =
                "give --dataset auto to train on generated ones, or point THRUWAY_DATA at a folder with cifar10/";
            return Err(Error::Usage(format!("--dataset cifar10: its images cannot be had; {remedy}")));
        }
        let n = set.train.size()[0];
        let most = n - config.valid_size;
        let size = config.train_size.unwrap_or(most);
        if most < 1 || size > most {
            let got = format!("{} and {} of {n}", config.valid_size, config.train_size.unwrap_or_default());
            return Err(Error::range("--valid-size and --train-size", "together at most the training images", got));
        }
        let order = SideStream::new(Device::Cpu, SPLIT, "validation split")
            .at(0, || Ok(Tensor::f_randperm(n, (Kind::Int64, Device::Cpu))?))?;
        let part = |from: i64, n: i64| -> Result<Part> {
            let rows = order.f_narrow(0, from, n)?;
            Ok(Part {
                images: set.train.f_index_select(0, &rows)?.f_to_device(device)?,
                labels: set.train_labels.f_index_select(0, &rows)?.f_to_device(device)?,
            })
        };
        Ok(Images { variant: set.variant, valid: part(0, config.valid_size)?, train: part(config.valid_size, size)? })
    }
}

impl Part {
    /// Number of images.
    pub fn len(&self) -> i64 {
        self.images.size()[0]
    }

    /// Images in [0, 1], unchanged, and classes from one place on.
    pub fn slice(&self, from: i64, n: i64) -> Result<(Tensor, Tensor)> {
        let n = n.min(self.len() - from);
        Ok((unit_interval(&self.images.f_narrow(0, from, n)?), self.labels.f_narrow(0, from, n)?))
    }

    /// The batch of place `index` in `order`, the last one possibly shorter: rows int64 `[B]`, images in [0, 1] as the
    /// configuration changes them, classes.
    pub fn batch(&self, order: &Tensor, index: i64, config: &Config, noise: &mut dyn Noise) -> Result<Batch> {
        let from = index * config.batch_size;
        let n = config.batch_size.min(order.size()[0] - from);
        let rows = order.f_narrow(0, from, n)?.f_to_device(self.images.device())?;
        let images = config.augment.apply(&unit_interval(&self.images.f_index_select(0, &rows)?), noise)?;
        Ok(Batch { images, labels: self.labels.f_index_select(0, &rows)?, rows })
    }
}

/// What a training step works on.
pub struct Batch {
    pub rows: Tensor,
    pub images: Tensor,
    pub labels: Tensor,
}
