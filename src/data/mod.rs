//! Data sets: parsers and fetching, one file a data set, every byte verified.
//!
//! ```no_run
//! use thruway::data::{Fetch, ImageSet, load, unit_interval};
//! let mnist = load(ImageSet::Mnist, Fetch::Allowed)?;          // u8 [60000, 784]
//! let batch = unit_interval(&mnist.train.narrow(0, 0, 100));   // f32 [100, 784], in [0, 1]
//! # thruway::Result::Ok(())
//! ```
//! Sources, checksums, licences and the environment variables: `data/README.md`.
pub mod augment;
pub mod binarise;
pub mod breast_cancer;
pub mod cifar10;
pub mod fetch;
pub mod idx;
pub mod images;
pub mod listops;
pub mod mat;
pub mod nats_bench;
pub mod newsgroups;
pub mod omniglot;
mod packages;
pub mod pickle;
pub mod shapes;
mod survey;

pub use augment::Augment;
pub use binarise::{Binarisation, binarise, binarise_once};
pub use cifar10::Cifar10;
pub use images::{Fetch, ImageSet, Images, Places, Source, load, load_from, unit_interval};
pub use listops::ListOps;
pub use nats_bench::NatsBench;
pub use newsgroups::Newsgroups;
pub use survey::{Found, Set, fetch_all, report, report_at};
