//! The documents of a run.
use tch::{Device, Kind, Tensor};
use thruway::data::newsgroups::{Documents, Omitted};
use thruway::data::{Fetch, Newsgroups};
use thruway::error::{Error, Result};
use thruway::nn::bow::Bags;

/// Training and test documents over the words kept.
pub struct Data {
    pub train: Documents,
    pub test: Documents,
    pub vocabulary: i64,
    /// Which set it is.
    pub name: &'static str,
    pub omitted: Omitted,
}

impl Data {
    /// The set with its `words` most frequent words, and the first documents of a shuffled order where fewer are asked for.
    /// Generated documents have fewer words, of which at most all are kept.
    pub fn load(words: usize) -> Result<Data> {
        let all = Newsgroups::load(Fetch::Allowed)?;
        let name = all.name();
        let words = if name == "newsgroups20" { words } else { words.min(all.vocabulary.len()) };
        let (kept, omitted) = all.most_frequent(words)?;
        if kept.train.is_empty() || kept.test.is_empty() {
            return Err(Error::Usage("newsgroups20: no document in one of the parts".into()));
        }
        Ok(Data { vocabulary: words as i64, train: kept.train, test: kept.test, name, omitted })
    }

    /// Mean loss of a training document, nats, where nothing but the frequencies of the words in the training part is known: what a
    /// code that says nothing comes to.
    pub fn unigram_loss(&self) -> f64 {
        let mut counts = vec![0.0f64; self.vocabulary as usize];
        self.train.words.iter().zip(&self.train.counts).for_each(|(w, c)| counts[*w as usize] += f64::from(*c));
        let total: f64 = counts.iter().sum();
        let sum: f64 = counts.iter().filter(|c| **c > 0.0).map(|c| c * (total / c).ln()).sum();
        sum / self.train.len() as f64
    }

    /// These documents of a part, as tensors.
    pub fn bags(&self, part: &Documents, rows: &[i64], device: Device) -> Result<Bags> {
        let (mut starts, mut words, mut counts) = (vec![0], vec![], vec![]);
        for &i in rows {
            let row = part.row(i as usize);
            words.extend(part.words[row.clone()].iter().map(|&w| i64::from(w)));
            counts.extend(part.counts[row].iter().map(|&c| f64::from(c)));
            starts.push(words.len() as i64);
        }
        Bags::new(self.vocabulary, &starts, &words, &counts, Kind::Float, device)
    }
}

/// Rows `from..from + n` of an order, or to its end.
pub fn rows(order: &Tensor, from: i64, n: i64) -> Result<Vec<i64>> {
    Ok(Vec::try_from(order.f_narrow(0, from, n.min(order.size()[0] - from))?)?)
}
