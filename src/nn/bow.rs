//! Bags of words: a sparse first layer and the multinomial likelihood of word counts.
//!
//! The first layer reads the words that occur; what a step costs is the last one, `6 M B H V` flops forward and backward, and
//! `2 M B H V` for a value alone: the softmax is over all V words, however few a document has.
//!
//! Legend: `B` documents, `V` words of the vocabulary, `E` entries (document and word with a count of 1 or more), `M` draws.
use super::linear::{Linear, Params};
use crate::autograd::Function;
use crate::error::{Error, Result};
use crate::kernels::log_sum::log_sums;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Kind in which the products of the output layer are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the parameters are: float32
    #[default]
    F32,
    /// bfloat16, accumulated in float32; parameters, optimizer and all else stay float32
    Bf16,
}

/// Word counts of some documents.
#[derive(Debug)]
pub struct Bags {
    vocabulary: i64,
    /// Word of each entry, i64 `[E]`, document after document.
    words: Tensor,
    /// Where each document begins, i64 `[B]`.
    starts: Tensor,
    /// Document of each entry, i64 `[E]`.
    rows: Tensor,
    /// Count of each entry, `[E]`.
    counts: Tensor,
    /// Words of each document, `[B]`.
    lengths: Tensor,
}

impl Clone for Bags {
    /// The same tensors, not copies of them.
    fn clone(&self) -> Self {
        let Bags { vocabulary, words, starts, rows, counts, lengths } = self;
        let [words, starts, rows, counts, lengths] = [words, starts, rows, counts, lengths].map(Tensor::shallow_clone);
        Bags { vocabulary: *vocabulary, words, starts, rows, counts, lengths }
    }
}

impl Bags {
    /// From the words and counts of each document, `words[i]` and `counts[i]` those of entry i, document b having the
    /// entries `starts[b]..starts[b + 1]`; counts become numbers of `kind`.
    ///
    /// # Errors
    /// [`Error::Shape`] where the lists do not fit together, [`Error::Range`] for a word outside the vocabulary.
    pub fn new(
        vocabulary: i64,
        starts: &[i64],
        words: &[i64],
        counts: &[f64],
        kind: Kind,
        device: Device,
    ) -> Result<Bags> {
        let fits = starts.first() == Some(&0)
            && starts.last() == Some(&(words.len() as i64))
            && starts.is_sorted()
            && words.len() == counts.len();
        if !fits {
            let got = format!("{} starts, {} words, {} counts", starts.len(), words.len(), counts.len());
            return Err(Error::shape("bags of words", "starts from 0 to the number of words and counts", got));
        }
        if let Some(word) = words.iter().find(|w| !(0..vocabulary).contains(*w)) {
            return Err(Error::range("word", format!("0 to {}", vocabulary - 1), word));
        }
        let place = |t: Tensor| t.f_to_device(device);
        let n = starts.len() - 1;
        let mut rows = Vec::with_capacity(words.len());
        let mut lengths = Vec::with_capacity(n);
        for b in 0..n {
            let (from, to) = (starts[b] as usize, starts[b + 1] as usize);
            rows.resize(to, b as i64);
            lengths.push(counts[from..to].iter().sum::<f64>());
        }
        Ok(Bags {
            vocabulary,
            words: place(Tensor::f_from_slice(words)?)?,
            starts: place(Tensor::f_from_slice(&starts[..n])?)?,
            rows: place(Tensor::f_from_slice(&rows)?)?,
            counts: place(Tensor::f_from_slice(counts)?.f_to_kind(kind)?)?,
            lengths: place(Tensor::f_from_slice(&lengths)?.f_to_kind(kind)?)?,
        })
    }

    /// B.
    pub fn len(&self) -> i64 {
        self.lengths.size()[0]
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// E.
    pub fn entries(&self) -> i64 {
        self.words.size()[0]
    }

    /// Words of each document, `[B]`.
    pub fn lengths(&self) -> &Tensor {
        &self.lengths
    }

    /// Word frequencies `f = y / sum y` of each entry, `[E]`; a document without words has no entry.
    fn frequencies(&self) -> Result<Tensor> {
        Ok(&self.counts / self.lengths.f_index_select(0, &self.rows)?)
    }

    /// The same as a dense matrix `[B, V]`.
    pub fn dense_frequencies(&self) -> Result<Tensor> {
        let flat = Tensor::f_zeros([self.len() * self.vocabulary], (self.counts.kind(), self.counts.device()))?;
        Ok(flat.f_scatter_add(0, &self.flat()?, &self.frequencies()?)?.f_view([self.len(), self.vocabulary])?)
    }

    /// Places of the entries in a `[B, V]` matrix, `[E]`.
    fn flat(&self) -> Result<Tensor> {
        Ok(&self.rows * self.vocabulary + &self.words)
    }
}

/// The affine map of word frequencies `[B, V]` to `[B, H]`, computed from the entries alone.
///
/// The weight is kept word by word, `[V, H]`, so that a document reads the rows of its words and no others. The forward pass
/// costs `2 E H` flops in place of `2 B V H`; the backward pass adds into as many rows of a gradient that is dense, `[V, H]`: it
/// is set to zero and read by the optimizer as a whole, since Adam moves a parameter also where its gradient is 0.
#[derive(Debug)]
pub struct WordLayer {
    weight: Tensor,
    bias: Tensor,
}

impl WordLayer {
    /// With PyTorch's initialisation of a linear layer of V inputs (uniform in ±1/sqrt(V)), the numbers drawn in its order.
    ///
    /// # Errors
    /// [`Error::Range`] for sizes below 1.
    pub fn new(params: &mut Params, name: &str, words: i64, outputs: i64, device: Device) -> Result<WordLayer> {
        let dense = Linear::new(&mut Params::default(), name, words, outputs, Device::Cpu)?;
        let weight = dense.weight().detach().f_transpose(0, 1)?.f_contiguous()?;
        Ok(WordLayer {
            weight: params.add(format!("{name}.weight"), weight, device)?,
            bias: params.add(format!("{name}.bias"), dense.bias().detach(), device)?,
        })
    }

    /// Of a weight `[V, H]` and a bias `[H]`.
    pub fn of(weight: Tensor, bias: Tensor) -> WordLayer {
        WordLayer { weight, bias }
    }

    /// `[B, H]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another vocabulary.
    pub fn forward(&self, bags: &Bags) -> Result<Tensor> {
        if self.weight.size()[0] != bags.vocabulary {
            return Err(Error::shape("word layer", format!("{} words", self.weight.size()[0]), bags.vocabulary));
        }
        let weights = bags.frequencies()?;
        // mode 0 is the sum
        let (sum, ..) =
            Tensor::f_embedding_bag(&self.weight, &bags.words, &bags.starts, false, 0, false, Some(&weights), false)?;
        Ok(sum + &self.bias)
    }

    /// The same through the dense matrix of frequencies: for comparison.
    ///
    /// # Errors
    /// As [`WordLayer::forward`].
    pub fn forward_dense(&self, bags: &Bags) -> Result<Tensor> {
        Ok(bags.dense_frequencies()?.f_matmul(&self.weight)? + &self.bias)
    }
}

/// `-sum_i y_i log f_i`, `f = softmax(scores)`: scores `[M, B, V]` -> `[M, B]`, nats, differentiable in the scores. The
/// multinomial coefficient, which depends on no parameter, is left out.
///
/// One node: the backward is `g (N softmax - y)`, N the words of the document, y added at its entries alone.
///
/// # Errors
/// [`Error::Shape`] where the scores are not `[M, B, V]`.
pub fn multinomial_nll(scores: &Tensor, bags: &Bags) -> Result<Tensor> {
    let (b, v) = (bags.len(), bags.vocabulary);
    let size = scores.size();
    if size.len() != 3 || size[1..] != [b, v] {
        return Err(Error::shape("multinomial_nll", format!("scores [M, {b}, {v}]"), size));
    }
    let m = size[0];
    let e = bags.entries();
    let flat = bags.flat()?.f_unsqueeze(0)?.f_expand([m, e], false)?;
    let (value, log_p) = {
        let _guard = tch::no_grad_guard();
        let log_p = scores.detach().f_log_softmax(-1, scores.kind())?;
        let each = log_p.f_view([m, b * v])?.f_gather(1, &flat, false)? * &bags.counts;
        let rows = bags.rows.f_unsqueeze(0)?.f_expand([m, e], false)?;
        let zero = Tensor::f_zeros([m, b], (scores.kind(), scores.device()))?;
        (zero.f_scatter_add(1, &rows, &each)?.f_neg()?, log_p)
    };
    let (rows, counts) = (bags.rows.shallow_clone(), bags.counts.shallow_clone());
    let lengths = bags.lengths.shallow_clone();
    let mut out = Function::new("MultinomialNll").inputs(&[scores]).apply(
        || Ok(vec![value]),
        move |node| {
            let Some(g) = &node.grads()[0] else { return Ok(vec![None]) };
            let each = g.f_index_select(1, &rows)? * &counts;
            let mut grad = log_p.f_exp()?.f_mul(&(g * &lengths).f_unsqueeze(-1)?)?.f_view([m, b * v])?;
            let grad = grad.f_scatter_add_(1, &flat, &each.f_neg()?)?;
            Ok(vec![Some(grad.f_view([m, b, v])?)])
        },
    )?;
    Ok(out.remove(0))
}

/// The output layer and [`multinomial_nll`] in one node, its three products in bfloat16, for one batch of documents.
///
/// `-sum_i y_i s_i + N log sum_j exp s_j`: the first sum, over the document's own words, is computed from the parameters as they
/// are; the second from factors and scores rounded to 8 bits, the bias added after. Few words carry that sum, so their errors do not
/// average out over the vocabulary, and they grow with the scores. Measured on autoencoders of 10,000 words after 120 epochs
/// (`experiments/semhash`: ARM with 8 bits, ARM, ST and deterministic ST with 64; 100 documents of 228 words): the value is off by at
/// most 0.05 nats in the mean and strays by 0.06 to 0.26 between codes of a document, where the loss itself varies by 5 to 30; what
/// one flipped bit changes, 2 to 27 nats in the median, is off by 0.4 to 0.5. On a processor with bfloat16 products a training step
/// over 10,000 words takes 0.6 of the time (`experiments/semhash/BENCH.md`), on others more than without.
///
/// What does not depend on the codes is computed once: the rounded parameters, and of each document `sum_i y_i w_i`, so that its
/// own words cost one product of length H a code. Parameters that are changed after that leave those values behind.
#[derive(Debug)]
pub struct OutputBf16 {
    weight: Tensor,
    bias: Tensor,
    bags: Bags,
    rounded: Tensor,
    /// `sum_i y_i w_i`, `[B, H]`, and `sum_i y_i b_i`, `[B]`.
    own: (Tensor, Tensor),
}

impl Clone for OutputBf16 {
    /// The same tensors, not copies of them.
    fn clone(&self) -> Self {
        let [weight, bias, rounded] = [&self.weight, &self.bias, &self.rounded].map(Tensor::shallow_clone);
        let own = (self.own.0.shallow_clone(), self.own.1.shallow_clone());
        OutputBf16 { weight, bias, bags: self.bags.clone(), rounded, own }
    }
}

impl OutputBf16 {
    /// Weight `[V, H]` and bias `[V]` as they are now.
    ///
    /// # Errors
    /// [`Error::Shape`] where the sizes do not fit.
    pub fn new(weight: &Tensor, bias: &Tensor, bags: &Bags) -> Result<OutputBf16> {
        let (v, size) = (bags.vocabulary, weight.size());
        if size.len() != 2 || size[0] != v || bias.size() != [v] {
            return Err(Error::shape("OutputBf16", format!("weight [{v}, H], bias [{v}]"), (size, bias.size())));
        }
        let _guard = tch::no_grad_guard();
        let (w, b) = (weight.detach(), bias.detach());
        let bag = |t: &Tensor| -> Result<Tensor> {
            let (sum, ..) =
                Tensor::f_embedding_bag(t, &bags.words, &bags.starts, false, 0, false, Some(&bags.counts), false)?;
            Ok(sum)
        };
        let own = (bag(&w)?, bag(&b.f_unsqueeze(1)?)?.f_squeeze_dim(1)?);
        let (rounded, bags) = (w.f_to_kind(Kind::BFloat16)?, bags.clone());
        Ok(OutputBf16 { weight: weight.shallow_clone(), bias: bias.shallow_clone(), bags, rounded, own })
    }

    /// Hidden states `[M, B, H]` -> `[M, B]`, nats, differentiable in the states, the weight and the bias.
    ///
    /// # Errors
    /// [`Error::Shape`] where the sizes do not fit.
    pub fn nll(&self, h: &Tensor) -> Result<Tensor> {
        let bags = &self.bags;
        let (b, v, width) = (bags.len(), bags.vocabulary, self.weight.size()[1]);
        let size = h.size();
        if size.len() != 3 || size[1..] != [b, width] {
            return Err(Error::shape("OutputBf16", format!("hidden [M, {b}, {width}]"), size));
        }
        let (m, kind) = (size[0], h.kind());
        let (value, log_sum, scores, h16) = {
            let _guard = tch::no_grad_guard();
            let h16 = h.detach().f_to_kind(Kind::BFloat16)?.f_reshape([m * b, width])?;
            let scores = h16.f_matmul(&self.rounded.f_transpose(0, 1)?)?;
            let log_sum = log_sums(&scores, &self.bias)?;
            let own = (h.detach() * &self.own.0).f_sum_dim_intlist(-1, false, kind)? + &self.own.1;
            (log_sum.f_view([m, b])? * &bags.lengths - own, log_sum, scores, h16)
        };
        let flat = bags.flat()?.f_unsqueeze(0)?.f_expand([m, bags.entries()], false)?;
        let (rows, counts) = (bags.rows.shallow_clone(), bags.counts.shallow_clone());
        let (lengths, w16) = (bags.lengths.shallow_clone(), self.rounded.shallow_clone());
        let bias = self.bias.detach();
        let mut out = Function::new("OutputNllBf16").inputs(&[h, &self.weight, &self.bias]).apply(
            || Ok(vec![value]),
            move |node| {
                let Some(g) = &node.grads()[0] else { return Ok(vec![None, None, None]) };
                let each = g.f_index_select(1, &rows)? * &counts;
                let n = (g * &lengths).f_view([m * b, 1])?;
                let mut ds = scores.f_to_kind(kind)?;
                let _ = ds.f_add_(&bias)?.f_sub_(&log_sum.f_unsqueeze(1)?)?.f_exp_()?.f_mul_(&n)?;
                let ds = ds.f_view([m, b * v])?.f_scatter_add_(1, &flat, &each.f_neg()?)?.f_view([m * b, v])?;
                let ds16 = ds.f_to_kind(Kind::BFloat16)?;
                let needs = node.needs();
                let of = |i: usize, f: &dyn Fn() -> Result<Tensor>| if needs[i] { f().map(Some) } else { Ok(None) };
                Ok(vec![
                    of(0, &|| Ok(ds16.f_matmul(&w16)?.f_to_kind(kind)?.f_view([m, b, width])?))?,
                    of(1, &|| Ok(ds16.f_transpose(0, 1)?.f_matmul(&h16)?.f_to_kind(kind)?))?,
                    of(2, &|| Ok(ds.f_sum_dim_intlist(0i64, false, kind)?))?,
                ])
            },
        )?;
        Ok(out.remove(0))
    }
}
