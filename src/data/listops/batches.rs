//! From expressions to tensors: the length limit, the order of an epoch, padding.
use super::{Example, Units};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// The published filter keeps expressions of fewer symbols than this.
pub const LIMIT: usize = 100;

/// The examples of fewer than `limit` symbols (counted in [`Units::Tokens`] whatever the model sees), in their order.
///
/// 857 of the 1,000 official validation expressions and 8,689 of the 10,000 test expressions have fewer than [`LIMIT`].
pub fn shorter_than(examples: &[Example], limit: usize) -> Vec<Example> {
    examples.iter().filter(|e| e.expression.symbols().len() < limit).cloned().collect()
}

/// Examples of one step as tensors.
#[derive(Debug)]
pub struct Batch {
    /// Units by number, i64 `[B, T]`, T the longest of the batch; padded with 0, a unit like any other: `lengths` rules.
    pub ids: Tensor,
    /// Units of each example, at least 1.
    pub lengths: Vec<usize>,
    /// Labels, i64 `[B]`.
    pub labels: Tensor,
}

impl Batch {
    /// These examples in these units. At least one.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) where the device refuses.
    pub fn new(examples: &[&Example], units: Units, device: Device) -> Result<Batch> {
        let rows: Vec<Vec<i64>> = examples.iter().map(|e| units.encode(&e.expression)).collect();
        let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let ids: Vec<i64> = rows
            .iter()
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0, longest - row.len())))
            .collect();
        let labels: Vec<i64> = examples.iter().map(|e| i64::from(e.label)).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_view([rows.len() as i64, longest as i64])?;
        Ok(Batch {
            ids: ids.f_to_device(device)?,
            lengths,
            labels: Tensor::f_from_slice(&labels)?.f_to_device(device)?,
        })
    }
}

/// Which examples share a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Batches {
    /// Those of similar length, so that there is little padding
    Bucketed,
    /// Any: what the published code does by accident
    Random,
}

impl Batches {
    /// The order of one epoch, `batch` items a step, from permutations that `shuffle` draws.
    ///
    /// The published code asks torchtext 0.6 for buckets, whose `pool` sorts only with `sort_within_batch`; that defaults to
    /// false for a training set, so that its batches are random ones: here the items as they were shuffled.
    ///
    /// # Errors
    /// Those of `shuffle`.
    pub fn order(
        self,
        lengths: &[usize],
        batch: usize,
        mut shuffle: impl FnMut(usize) -> Result<Vec<i64>>,
    ) -> Result<Vec<i64>> {
        let items = shuffle(lengths.len())?;
        Ok(match self {
            Batches::Random => items,
            Batches::Bucketed => bucket(&items, lengths, batch, &shuffle(items.len() / batch)?),
        })
    }
}

/// The order of one epoch, `batch` items a step: examples of similar length together, batches in random order.
///
/// `items` is a permutation of all examples, `lengths` says how long each is. Pools of 100 batches are sorted by length (ties
/// in the order of `items`) and cut into batches, as torchtext would with `sort_within_batch`. `batches` permutes the whole
/// batches of the epoch; the last one, where it is short, stays last.
///
/// # Panics
/// Where `batches` is no permutation of the whole batches.
///
/// ```
/// use thruway::data::listops::bucket;
/// let lengths = [5, 1, 5, 1, 3];
/// assert_eq!(bucket(&[4, 3, 2, 1, 0], &lengths, 2, &[1, 0]), [4, 2, 3, 1, 0]);
/// ```
pub fn bucket(items: &[i64], lengths: &[usize], batch: usize, batches: &[i64]) -> Vec<i64> {
    let mut sorted = items.to_vec();
    for pool in sorted.chunks_mut(100 * batch) {
        pool.sort_by_key(|&i| lengths[i as usize]);
    }
    let whole = items.len() / batch;
    assert_eq!(batches.len(), whole, "one number for each whole batch");
    let mut order = Vec::with_capacity(items.len());
    for &b in batches {
        order.extend_from_slice(&sorted[b as usize * batch..][..batch]);
    }
    order.extend_from_slice(&sorted[whole * batch..]);
    order
}
