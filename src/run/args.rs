//! The flags that every experiment shares.
use crate::autograd::libtorch::{cuda_available, load_cuda};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::Device;

/// Flags shared by every experiment: where, on what, how often. Flatten it into the binary's own arguments.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[command(next_help_heading = "Run")]
pub struct RunArgs {
    /// Run directory [default: runs/FAMILY/NAME/SEED]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the run in --out from its last checkpoint; the same settings must be given
    #[arg(long)]
    pub resume: bool,
    /// Seed of every random number of the run
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: i64,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is one
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads within one operation
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pub threads: i32,
    /// Steps between two lines of metrics.jsonl
    #[arg(long, value_name = "STEPS", default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub log_every: i64,
    /// Epochs between two evaluations; 0: only at the end
    #[arg(long, value_name = "EPOCHS", default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..))]
    pub eval_every: i64,
    /// Steps between two checkpoints [default: as many as take 20 seconds]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(i64).range(1..))]
    pub checkpoint_every: Option<i64>,
    /// No progress bar and no progress lines
    #[arg(long)]
    pub quiet: bool,
    /// Write TensorBoard event files too
    #[arg(long)]
    pub tensorboard: bool,
}

impl RunArgs {
    /// Threads, device and seed of the process, in this order, before the first tensor is made.
    ///
    /// # Errors
    /// [`Error::Device`] if the device asked for is not there.
    pub fn prepare(&self) -> Result<Device> {
        tch::set_num_threads(self.threads);
        let device = self.device()?; // before the seed: libtorch seeds the devices that it knows of
        tch::manual_seed(self.seed);
        Ok(device)
    }

    /// The device that `--device` means on this machine.
    ///
    /// # Errors
    /// [`Error::Device`] if it is not there, or no device's name.
    pub fn device(&self) -> Result<Device> {
        let refuse = |reason: String| Err(Error::Device { device: self.device.clone(), reason });
        let index = match self.device.as_str() {
            "cpu" => return Ok(Device::Cpu),
            "auto" if !cuda_available() => return Ok(Device::Cpu),
            "auto" | "cuda" => 0,
            name => match name.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok()) {
                Some(index) => index,
                None => return refuse("no such device; use auto, cpu, cuda or cuda:N".into()),
            },
        };
        if !load_cuda() {
            return refuse("this libtorch has no CUDA part; install the full torch 2.11, or use --device cpu".into());
        }
        if !cuda_available() {
            return refuse("no NVIDIA GPU or driver found; use --device cpu".into());
        }
        match tch::Cuda::device_count() {
            n if (index as i64) < n => Ok(Device::Cuda(index)),
            n => refuse(format!("there are {n} CUDA devices, counted from 0; use --device cuda")),
        }
    }
}

/// `cpu` or `cuda:N`.
pub(super) fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}
