//! Random streams: the generators in a checkpoint, streams of their own for what must not disturb training, and the order of
//! the data.
use super::Checkpoint;
use crate::Result;
use crate::autograd::libtorch::{generator_state, seed_generator, set_generator_state};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

const CPU: &str = "generator.cpu";
const CUDA: &str = "generator.cuda";

/// The default generators that training on `device` draws from: the CPU's always (it gives the order of the data), the
/// device's where that is another.
fn generators(device: Device) -> impl Iterator<Item = (&'static str, Device)> {
    let other = matches!(device, Device::Cuda(_)).then_some((CUDA, device));
    [(CPU, Device::Cpu)].into_iter().chain(other)
}

/// Adds the states of libtorch's default generators to a checkpoint, as `generator.cpu` and `generator.cuda`.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device) if the device is not there.
pub fn capture(device: Device, checkpoint: &mut Checkpoint) -> Result<()> {
    for (name, device) in generators(device) {
        checkpoint.tensors.push((name.into(), generator_state(device)?));
    }
    Ok(())
}

/// Puts the generators back to where [`capture`] found them. To be done last: making a model draws from them.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) if the checkpoint has no such state.
pub fn restore(device: Device, checkpoint: &Checkpoint) -> Result<()> {
    generators(device).try_for_each(|(name, device)| set_generator_state(device, checkpoint.tensor(name)?))
}

/// Runs `work` with its own place in libtorch's generators of `device` and the CPU, seeded by `seed`, and puts them back
/// afterwards, also if it fails or panics.
fn apart<T>(device: Device, seed: i64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Back(Vec<(Device, Tensor)>);
    impl Drop for Back {
        fn drop(&mut self) {
            for (device, state) in &self.0 {
                // A state that libtorch itself gave a moment ago.
                let _ = set_generator_state(*device, state);
            }
        }
    }
    let states = generators(device).map(|(_, d)| Ok((d, generator_state(d)?)));
    let back = Back(states.collect::<Result<_>>()?);
    for (device, _) in &back.0 {
        seed_generator(*device, seed)?;
    }
    work()
}

/// A random stream beside training: for probes, evaluation, pictures. What is drawn in it changes no number of the training,
/// and depends on seed, purpose and step alone, so that it needs no place in a checkpoint.
#[derive(Debug, Clone)]
pub struct SideStream {
    device: Device,
    name: String,
}

impl SideStream {
    /// The stream of a run's `seed` for one `purpose`, as in "evaluation".
    pub fn new(device: Device, seed: i64, purpose: &str) -> Self {
        SideStream { device, name: format!("{purpose}/{seed}") }
    }

    /// Runs `work` in the stream at a training step: libtorch's default generators are its own until it ends.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Device`](crate::Error::Device) if the device is not there.
    pub fn at<T>(&self, step: i64, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let digest = Sha256::digest(format!("{}/{step}", self.name));
        let mut seed = [0; 8];
        seed.copy_from_slice(&digest[..8]);
        apart(self.device, i64::from_le_bytes(seed), work)
    }
}

/// The order in which PyTorch's `DataLoader(data, shuffle=True)` (no workers) would visit `n` items in the coming epoch:
/// `[n]`, i64, on the CPU. It takes from the default CPU generator the two numbers that the loader takes: one for its
/// workers' seeds and one for its sampler, whose own generator then permutes.
///
/// # Errors
/// [`Error::Torch`](crate::Error::Torch) for a negative `n`.
pub fn shuffle(n: i64) -> Result<Tensor> {
    let number =
        || -> Result<i64> { Ok(Tensor::f_empty([1], (Kind::Int64, Device::Cpu))?.f_random_()?.f_int64_value(&[0])?) };
    let _workers = number()?;
    let sampler = number()?;
    apart(Device::Cpu, sampler, || Ok(Tensor::f_randperm(n, (Kind::Int64, Device::Cpu))?))
}
