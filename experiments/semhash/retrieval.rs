//! Retrieval by Hamming distance from packed codes.
use tch::{Kind, Tensor};
use thruway::error::{Error, Result};

/// Binary codes of documents, 64 bits a word.
#[derive(Debug)]
pub struct Codes {
    /// Words of a code.
    width: usize,
    packed: Vec<u64>,
}

impl Codes {
    /// From bits `[N, n]`: entries above 1/2 are ones; bit j of a code is bit `j % 64` of its word `j / 64`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of axes.
    pub fn pack(bits: &Tensor) -> Result<Codes> {
        let [_, n] = bits.size()[..] else { return Err(Error::shape("codes", "bits [N, n]", bits.size())) };
        let ones = Vec::<bool>::try_from(bits.f_gt(0.5)?.f_to_kind(Kind::Bool)?.f_reshape([-1])?)?;
        let pack = |word: &[bool]| word.iter().rev().fold(0, |w, &bit| w << 1 | u64::from(bit));
        let width = (n as usize).div_ceil(64);
        let packed = ones.chunks(n.max(1) as usize).flat_map(|row| row.chunks(64).map(pack)).collect();
        Ok(Codes { width, packed })
    }

    /// Number of codes.
    pub fn len(&self) -> usize {
        self.packed.len() / self.width.max(1)
    }

    /// Code i.
    pub fn get(&self, i: usize) -> &[u64] {
        &self.packed[i * self.width..][..self.width]
    }

    /// Different codes among them.
    pub fn distinct(&self) -> usize {
        let mut all: Vec<&[u64]> = (0..self.len()).map(|i| self.get(i)).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }
}

/// Bits in which two codes differ.
pub fn distance(a: &[u64], b: &[u64]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// Mean over the queries of the share of documents of the query's group among its k nearest in the database. Of the documents
/// at the distance where the k-th lies, the share that still fits counts, as if drawn at random: with few bits most are tied,
/// and the order of the files goes by group.
///
/// # Errors
/// [`Error::Range`] for k = 0 or above the size of the database, [`Error::Shape`] for codes of other lengths or without labels.
pub fn precision(queries: (&Codes, &[u8]), database: (&Codes, &[u8]), k: usize) -> Result<f64> {
    let n = database.0.len();
    if !(1..=n).contains(&k) {
        return Err(Error::range("documents retrieved", format!("1 to the {n} there are"), k));
    }
    for (codes, labels) in [queries, database] {
        if codes.width != database.0.width || codes.len() != labels.len() || codes.len() == 0 {
            let got = format!("{} codes of {} words, {} labels", codes.len(), codes.width, labels.len());
            return Err(Error::shape("retrieval", format!("labelled codes of {} words", database.0.width), got));
        }
    }
    let mut sum = 0.0;
    // documents, and those of the group, at each distance
    let mut at = vec![(0u32, 0u32); 64 * database.0.width + 1];
    for (i, group) in queries.1.iter().enumerate() {
        at.fill((0, 0));
        let query = queries.0.get(i);
        for (j, other) in database.1.iter().enumerate() {
            let (all, same) = &mut at[distance(query, database.0.get(j)) as usize];
            *all += 1;
            *same += u32::from(other == group);
        }
        let mut left = k as f64;
        for (all, same) in at.iter().filter(|(all, _)| *all > 0) {
            let all = f64::from(*all);
            let taken = left.min(all);
            sum += taken / all * f64::from(*same);
            left -= taken;
            if left <= 0.0 {
                break;
            }
        }
    }
    Ok(sum / (k * queries.1.len()) as f64)
}
