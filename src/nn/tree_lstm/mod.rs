//! A tree-LSTM that parses a sentence as it reads it (Choi, Yoo & Lee 2018): at each step it scores every pair of neighbours,
//! an estimator draws one, and the pair becomes one node. The sizes and the initialisation are those of the ListOps
//! experiments of Fan et al. 2022 and Liu et al. 2023, but for the classifier's output layer, which starts as wide as in the code
//! of Choi et al. (±0.005; in theirs ±0.002).
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the model |
//! | `leaves.rs` | the LSTM over the words |
//! | `by_ops.rs` | the recursion in libtorch's operations, in the published layout: GPUs, and an oracle for the tests |
//! | [`crate::kernels::tree`] | the recursion on the CPU: what changes at a merge, and no more |
pub mod by_ops;
pub mod leaves;

use super::linear::Params;
use crate::error::{Error, Result};
use crate::estimators::{DropIn, Vjp};
use crate::kernels::tree::{self, Composed, Weights};
use crate::noise::Noise;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// How a word becomes a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leaf {
    /// An LSTM over the words from left to right (the published ListOps setting)
    Lstm,
    /// A linear map of each word to h and c
    Linear,
}

/// Sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sizes {
    /// Different words.
    pub vocabulary: i64,
    /// Length of an embedding.
    pub embedding: i64,
    /// Width H of h and c.
    pub hidden: i64,
    /// Width of the classifier's hidden layer.
    pub classifier: i64,
    /// Classes.
    pub classes: i64,
    /// Leaves.
    pub leaf: Leaf,
    /// Share of embeddings, and of the classifier's two inputs, set to 0 in training.
    pub dropout: f64,
}

impl Sizes {
    /// The published ones for this vocabulary: 300 throughout, leaf LSTM, dropout 1/2, ten classes (the published code has an
    /// eleventh that is no label).
    pub fn published(vocabulary: i64) -> Self {
        Sizes { vocabulary, embedding: 300, hidden: 300, classifier: 300, classes: 10, leaf: Leaf::Lstm, dropout: 0.5 }
    }
}

/// How pairs are chosen.
pub enum Choice<'a> {
    /// Drawn, with the estimator's gradient. The estimator must be hard: a relaxed value is no choice.
    Drawn(&'a dyn DropIn, &'a mut dyn Noise),
    /// The best score, the first of equals; no gradient to the scores.
    Greedy,
}

impl Choice<'_> {
    /// A pair in every row of scores `[m, K]` within `mask` `[m, K]` (true = allowed), i64 `[m]`, and the gradient of the scores.
    ///
    /// # Errors
    /// [`Error::Usage`] for a relaxed estimator; those of the estimator.
    pub fn pick(&mut self, scores: &Tensor, mask: &Tensor) -> Result<(Tensor, Option<tree::Vjp>)> {
        match self {
            Choice::Greedy => {
                let scores = scores.f_masked_fill(&mask.f_logical_not()?, f64::NEG_INFINITY)?;
                Ok((scores.f_argmax(-1, false)?, None))
            }
            Choice::Drawn(estimator, noise) => {
                let _guard = tch::no_grad_guard();
                let point = estimator.point(scores, Some(mask), &mut **noise)?;
                let surrogate = estimator.surrogate(&point, &mut **noise)?;
                if surrogate.relaxed.is_some() {
                    return Err(relaxed());
                }
                let (index, hard) = (point.index, point.hard);
                let vjp: tree::Vjp = match surrogate.vjp {
                    Vjp::Sample(vjp) => Box::new(move |g| vjp(g, &hard)),
                    Vjp::Both(vjp) => Box::new(move |g| vjp(g, None)),
                };
                Ok((index, Some(vjp)))
            }
        }
    }
}

fn relaxed() -> Error {
    Error::Usage(
        "a merge of two neighbours needs a hard choice, and this estimator relaxes its samples; choose a hard estimator, such as \
         stgs or reinmax"
            .into(),
    )
}

/// Scores of the classes, and the trees that led to them.
#[derive(Debug)]
pub struct Parsed {
    /// `[B, classes]`.
    pub logits: Tensor,
    /// Of each sentence, which pair of neighbours was merged at each of its T - 1 steps, counted from the left.
    pub merges: Vec<Vec<usize>>,
}

/// The model. Parameters have the names of the published modules.
#[derive(Debug)]
pub struct TreeLstm {
    params: Params,
    /// Its sizes.
    pub sizes: Sizes,
    embedding: Tensor,
    leaf: LeafParams,
    weight: Tensor,
    bias: Tensor,
    query: Tensor,
    hidden: (Tensor, Tensor),
    output: (Tensor, Tensor),
}

#[derive(Debug)]
enum LeafParams {
    Lstm { input: Tensor, recurrent: Tensor, bias: (Tensor, Tensor) },
    Linear { weight: Tensor, bias: Tensor },
}

impl TreeLstm {
    /// A model with fresh parameters, from libtorch's CPU generator whatever the device: embeddings and query N(0, 0.01²),
    /// input weights of the leaf LSTM and the classifier's hidden layer He-normal, recurrent and composition weights
    /// orthogonal, output uniform in ±0.005, biases 0 but the leaf LSTM's forget gates at 1.
    ///
    /// # Errors
    /// [`Error::Range`] for sizes below 1 or a dropout outside [0, 1).
    pub fn new(sizes: Sizes, device: Device) -> Result<Self> {
        let Sizes { vocabulary, embedding: e, hidden: h, classifier, classes, leaf, dropout } = sizes;
        for (what, n) in [
            ("vocabulary", vocabulary),
            ("--embedding-dim", e),
            ("--hidden-dim", h),
            ("classifier", classifier),
            ("classes", classes),
        ] {
            if n < 1 {
                return Err(Error::range(what, "at least 1", n));
            }
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::range("--dropout", "in [0, 1)", dropout));
        }
        let cpu = (Kind::Float, Device::Cpu);
        let normal = |rows: i64, columns: i64, std: f64| -> Result<Tensor> {
            Ok(Tensor::f_randn([rows, columns], cpu)?.f_mul_scalar(std)?)
        };
        let he = |rows: i64, columns: i64| normal(rows, columns, (2.0 / columns as f64).sqrt());
        let zeros = |n: i64| Tensor::f_zeros([n], cpu);
        let mut params = Params::default();
        let mut add = |name: &str, value: Tensor| params.add(name.into(), value, device);
        let embedding = add("word_embedding.weight", normal(vocabulary, e, 0.01)?)?;
        let leaf = match leaf {
            Leaf::Lstm => {
                let forget = zeros(4 * h)?;
                let _ = forget.f_narrow(0, h, h)?.f_fill_(1.0)?;
                LeafParams::Lstm {
                    input: add("encoder.leaf_rnn_cell.weight_ih", he(4 * h, e)?)?,
                    recurrent: add("encoder.leaf_rnn_cell.weight_hh", leaves::orthogonal(4 * h, h)?)?,
                    bias: (
                        add("encoder.leaf_rnn_cell.bias_ih", forget)?,
                        add("encoder.leaf_rnn_cell.bias_hh", zeros(4 * h)?)?,
                    ),
                }
            }
            Leaf::Linear => LeafParams::Linear {
                weight: add("encoder.word_linear.weight", he(2 * h, e)?)?,
                bias: add("encoder.word_linear.bias", zeros(2 * h)?)?,
            },
        };
        let weight = add("encoder.treelstm_layer.comp_linear.weight", leaves::orthogonal(5 * h, 2 * h)?)?;
        let bias = add("encoder.treelstm_layer.comp_linear.bias", zeros(5 * h)?)?;
        let query = add("encoder.comp_query", normal(1, h, 0.01)?.f_view([h])?)?;
        let hidden = (
            add("classifier.mlp.0.0.weight", he(classifier, h)?)?,
            add("classifier.mlp.0.0.bias", zeros(classifier)?)?,
        );
        let last = Tensor::f_empty([classes, classifier], cpu)?.f_uniform_(-0.005, 0.005)?;
        let output = (add("classifier.clf_linear.weight", last)?, add("classifier.clf_linear.bias", zeros(classes)?)?);
        Ok(TreeLstm { params, sizes, embedding, leaf, weight, bias, query, hidden, output })
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Words by number `[B, T]` and the length of each sentence, 1 to T, whatever stands beyond it -> scores of the classes.
    ///
    /// `train` switches dropout on (from libtorch's generator).
    ///
    /// # Errors
    /// [`Error::Shape`] where ids and lengths do not fit; [`Error::Usage`] for a relaxed estimator; those of the estimator.
    pub fn forward(&self, ids: &Tensor, lengths: &[usize], choice: &mut Choice, train: bool) -> Result<Parsed> {
        let Composed { root, merges } = {
            let (h, c) = self.leaves(ids, train)?;
            self.compose(&h, &c, lengths, choice)?
        };
        let drop = |x: Tensor| x.f_dropout(self.sizes.dropout, train);
        let x = drop(root)?.f_linear(&self.hidden.0, Some(&self.hidden.1))?.f_relu()?;
        Ok(Parsed { logits: drop(x)?.f_linear(&self.output.0, Some(&self.output.1))?, merges })
    }

    /// h and c of the leaves, `[T, B, H]`.
    pub fn leaves(&self, ids: &Tensor, train: bool) -> Result<(Tensor, Tensor)> {
        if ids.size().len() != 2 || ids.numel() == 0 {
            return Err(Error::shape("tree-LSTM", "words [B, T], both at least 1", ids.size()));
        }
        let words = Tensor::f_embedding(&self.embedding, &ids.f_tr()?, -1, false, false)?;
        let words = words.f_dropout(self.sizes.dropout, train)?;
        match &self.leaf {
            LeafParams::Lstm { input, recurrent, bias } => {
                leaves::lstm(&words.f_linear(input, Some(&(&bias.0 + &bias.1)))?, recurrent)
            }
            LeafParams::Linear { weight, bias } => {
                let both = words.f_linear(weight, Some(bias))?;
                let h = self.sizes.hidden;
                Ok((both.f_narrow(2, 0, h)?.f_contiguous()?, both.f_narrow(2, h, h)?.f_contiguous()?))
            }
        }
    }

    /// From leaves `[T, B, H]` to roots `[B, H]`.
    ///
    /// # Errors
    /// As [`TreeLstm::forward`].
    pub fn compose(&self, h: &Tensor, c: &Tensor, lengths: &[usize], choice: &mut Choice) -> Result<Composed> {
        let weights = Weights { weight: &self.weight, bias: &self.bias, query: &self.query };
        match h.device() {
            Device::Cpu => {
                let estimated = matches!(choice, Choice::Drawn(..));
                tree::compose(h, c, lengths, &weights, estimated, &mut |scores, mask| choice.pick(scores, mask))
            }
            _ => by_ops::compose(h, c, lengths, &weights, choice),
        }
    }
}
