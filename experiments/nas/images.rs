//! CIFAR-10 in two parts, and batches of them.
use crate::args::Dataset;
use tch::{Device, Kind, Tensor};
use thruway::data::cifar10::{Variant, standardise};
use thruway::data::{Augment, Cifar10, Fetch, unit_interval};
use thruway::error::{Error, Result};
use thruway::noise::Noise;
use thruway::run::seeding::SideStream;

/// Seed of the split: one for all runs.
const SPLIT: i64 = 1;

/// Images uint8 `[N, 3, 32, 32]` and classes int64 `[N]`.
pub struct Part {
    pub images: Tensor,
    pub labels: Tensor,
}

/// Loads what is asked for; of generated images no more than `train` and `test`.
pub fn load(dataset: Dataset, train: i64, test: i64) -> Result<Cifar10> {
    let set = match dataset {
        Dataset::Synthetic => Cifar10::synthetic(train as usize, test as usize)?,
        _ => Cifar10::load(Fetch::Allowed)?,
    };
    if dataset == Dataset::Cifar10 && set.variant == Variant::Synthetic {
        let remedy = "give --dataset auto to train on generated ones, or point THRUWAY_DATA at a folder with cifar10/";
        return Err(Error::Usage(format!("--dataset cifar10: its images cannot be had; {remedy}")));
    }
    Ok(set)
}

/// Two disjoint parts of the training images, drawn the same for all runs: the first for the weights.
pub fn halves(set: &Cifar10, sizes: [i64; 2], device: Device) -> Result<[Part; 2]> {
    let n = set.train.size()[0];
    let half = n / 2;
    if sizes.iter().any(|s| *s > half) {
        return Err(Error::range(
            "--train-size and --valid-size",
            format!("each at most {half}"),
            format!("{sizes:?}"),
        ));
    }
    let order = SideStream::new(Device::Cpu, SPLIT, "halves of the training images")
        .at(0, || Ok(Tensor::f_randperm(n, (Kind::Int64, Device::Cpu))?))?;
    let part = |from: i64, n: i64| Part::of(&set.train, &set.train_labels, &order.f_narrow(0, from, n)?, device);
    Ok([part(0, sizes[0])?, part(half, sizes[1])?])
}

impl Part {
    /// These rows of images and labels.
    pub fn of(images: &Tensor, labels: &Tensor, rows: &Tensor, device: Device) -> Result<Part> {
        Ok(Part {
            images: images.f_index_select(0, rows)?.f_to_device(device)?,
            labels: labels.f_index_select(0, rows)?.f_to_device(device)?,
        })
    }

    /// Number of images.
    pub fn len(&self) -> i64 {
        self.images.size()[0]
    }

    /// The images of these rows, flipped, shifted and standardised, and their classes.
    pub fn batch(&self, rows: &Tensor, augment: Augment, noise: &mut dyn Noise) -> Result<(Tensor, Tensor)> {
        let rows = rows.f_to_device(self.images.device())?;
        let images = augment.apply(&unit_interval(&self.images.f_index_select(0, &rows)?), noise)?;
        Ok((standardise(&images)?, self.labels.f_index_select(0, &rows)?))
    }

    /// Images from one place on, unchanged but standardised, and their classes.
    pub fn slice(&self, from: i64, n: i64) -> Result<(Tensor, Tensor)> {
        let n = n.min(self.len() - from);
        Ok((standardise(&unit_interval(&self.images.f_narrow(0, from, n)?))?, self.labels.f_narrow(0, from, n)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each training image is in one half, and the halves are the same whatever the run's seed.
    #[test]
    fn nas_halves_share_no_image_and_no_seed() {
        let set = Cifar10::synthetic(40, 4).unwrap();
        let keys = |part: &Part| -> Vec<Vec<u8>> {
            (0..part.len()).map(|i| Vec::<u8>::try_from(part.images.get(i).flatten(0, -1)).unwrap()).collect()
        };
        let parts = |seed: i64| {
            tch::manual_seed(seed);
            halves(&set, [20, 20], Device::Cpu).unwrap()
        };
        let [a, b] = parts(0);
        let mut all: Vec<_> = keys(&a).into_iter().chain(keys(&b)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 40, "an image twice");
        let [c, d] = parts(7);
        assert_eq!((keys(&a), keys(&b)), (keys(&c), keys(&d)));
        assert!(halves(&set, [21, 20], Device::Cpu).is_err());
    }
}
