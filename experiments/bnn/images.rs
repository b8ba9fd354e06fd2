//! The images of a run: training and test, and batches of them.
use crate::args::{Config, Dataset};
use tch::{Device, Tensor};
use thruway::data::cifar10::{Variant, standardise};
use thruway::data::{Cifar10, Fetch, unit_interval};
use thruway::error::{Error, Result};
use thruway::noise::Noise;

/// Training and test images on the device.
pub struct Images {
    /// Which images these are.
    pub variant: Variant,
    pub train: Part,
    pub test: Part,
}

/// Images uint8 `[N, 3, 32, 32]` and classes int64 `[N]`.
pub struct Part {
    images: Tensor,
    labels: Tensor,
}

impl Images {
    /// Loads what is asked for, the first so many images of each part.
    pub fn load(dataset: Dataset, config: &Config, device: Device) -> Result<Images> {
        let set = match dataset {
            Dataset::Synthetic => Cifar10::synthetic(2_000, 500)?,
            _ => Cifar10::load(Fetch::Allowed)?,
        };
        if dataset == Dataset::Cifar10 && set.variant == Variant::Synthetic {
            let remedy =
                "give --dataset auto to train on generated ones, or point THRUWAY_DATA at a folder with cifar10/";
            return Err(Error::Usage(format!("--dataset cifar10: its images cannot be had; {remedy}")));
        }
        let part = |what: &str, images: &Tensor, labels: &Tensor, size: Option<i64>| -> Result<Part> {
            let most = images.size()[0];
            let n = size.unwrap_or(most);
            if n > most {
                return Err(Error::range(what, format!("at most the {most} images there are"), n));
            }
            let take = |t: &Tensor| -> Result<Tensor> { Ok(t.f_narrow(0, 0, n)?.f_to_device(device)?) };
            Ok(Part { images: take(images)?, labels: take(labels)? })
        };
        Ok(Images {
            variant: set.variant,
            train: part("--train-size", &set.train, &set.train_labels, config.train_size)?,
            test: part("--test-size", &set.test, &set.test_labels, config.test_size)?,
        })
    }
}

impl Part {
    /// Number of images.
    pub fn len(&self) -> i64 {
        self.images.size()[0]
    }

    /// Standardised images, otherwise unchanged, and classes from one place on.
    pub fn slice(&self, from: i64, n: i64) -> Result<(Tensor, Tensor)> {
        let n = n.min(self.len() - from);
        let images = standardise(&unit_interval(&self.images.f_narrow(0, from, n)?))?;
        Ok((images, self.labels.f_narrow(0, from, n)?))
    }

    /// The batch of place `index` in `order`, the last one possibly shorter: images, augmented and then standardised, and
    /// classes.
    pub fn batch(
        &self,
        order: &Tensor,
        index: i64,
        config: &Config,
        noise: &mut dyn Noise,
    ) -> Result<(Tensor, Tensor)> {
        let from = index * config.batch_size;
        let n = config.batch_size.min(order.size()[0] - from);
        let rows = order.f_narrow(0, from, n)?.f_to_device(self.images.device())?;
        let images = config.augment.apply(&unit_interval(&self.images.f_index_select(0, &rows)?), noise)?;
        Ok((standardise(&images)?, self.labels.f_index_select(0, &rows)?))
    }
}
