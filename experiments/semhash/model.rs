//! The autoencoder: V - 512 - n bits - 512 - V (Appendix D.1, "Networks Specs").
use std::cell::OnceCell;
use tch::{Device, Tensor};
use thruway::autograd::threads;
use thruway::error::Result;
use thruway::estimators::Objective;
use thruway::nn::bow::{Bags, OutputBf16, Precision, WordLayer, multinomial_nll};
use thruway::nn::{Linear, Params};

/// Rows that are decoded at once where no gradient is wanted: their scores stay in a cache.
const TOGETHER: i64 = 256;

/// Encoder and decoder.
#[derive(Debug)]
pub struct Model {
    params: Params,
    precision: Precision,
    words: WordLayer,
    code: Linear,
    hidden: Linear,
    output: Linear,
}

impl Model {
    /// With fresh weights, uniform in ±1/sqrt(inputs).
    pub fn new(vocabulary: i64, hidden: i64, bits: i64, precision: Precision, device: Device) -> Result<Model> {
        let mut params = Params::default();
        Ok(Model {
            words: WordLayer::new(&mut params, "encoder.0", vocabulary, hidden, device)?,
            code: Linear::new(&mut params, "encoder.2", hidden, bits, device)?,
            hidden: Linear::new(&mut params, "decoder.0", bits, hidden, device)?,
            output: Linear::new(&mut params, "decoder.2", hidden, vocabulary, device)?,
            params,
            precision,
        })
    }

    /// All parameters; those of the encoder first.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The encoder's alone.
    pub fn encoder(&self) -> Vec<&Tensor> {
        self.params.iter().filter(|(n, _)| n.starts_with("encoder.")).map(|(_, t)| t).collect()
    }

    /// Pre-activations of the first layer, `[B, H]`; `dense`: through the dense matrix of frequencies.
    pub fn first(&self, bags: &Bags, dense: bool) -> Result<Tensor> {
        if dense { self.words.forward_dense(bags) } else { self.words.forward(bags) }
    }

    /// Logits of the bits, `[B, n]`.
    pub fn logits(&self, bags: &Bags, dense: bool) -> Result<Tensor> {
        self.code.forward(&self.first(bags, dense)?.f_relu()?)
    }

    /// Scores of the words, `[.., n] -> [.., V]`.
    pub fn decode(&self, x: &Tensor) -> Result<Tensor> {
        self.output.forward(&self.hidden.forward(x)?.f_relu()?)
    }

    /// The reconstruction loss of these documents as a function of their codes.
    pub fn reconstruction(&self, bags: &Bags) -> Reconstruction {
        let (hidden, output) = (self.hidden.clone(), self.output.clone());
        let precision = self.precision;
        Reconstruction { hidden, output, bags: bags.clone(), frozen: false, precision, rounded: OnceCell::new() }
    }
}

/// `f(x) = -sum_i y_i log f_i(x)` (Eq. 59); the parameters must not change while it lives.
#[derive(Clone)]
pub struct Reconstruction {
    hidden: Linear,
    output: Linear,
    bags: Bags,
    frozen: bool,
    precision: Precision,
    /// What all codes share, made at the first of them.
    rounded: OnceCell<OutputBf16>,
}

impl Reconstruction {
    /// Without a graph for the decoder's own parameters, where only the logits' estimate is wanted.
    pub fn frozen(self) -> Self {
        Reconstruction { frozen: true, ..self }
    }

    /// With the products of the output layer in another kind than the model's.
    pub fn in_precision(self, precision: Precision) -> Self {
        Reconstruction { precision, ..self }
    }

    fn rounded(&self) -> Result<&OutputBf16> {
        if let Some(rounded) = self.rounded.get() {
            return Ok(rounded);
        }
        let made = OutputBf16::new(self.output.weight(), self.output.bias(), &self.bags)?;
        Ok(self.rounded.get_or_init(|| made))
    }

    /// Codes `[M, B, n]` -> `[M, B]`.
    fn values(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.hidden.forward(x)?.f_relu()?;
        match self.precision {
            Precision::F32 => multinomial_nll(&self.output.forward(&h)?, &self.bags),
            Precision::Bf16 => self.rounded()?.nll(&h),
        }
    }
}

impl Objective for Reconstruction {
    fn at(&self, x: &Tensor) -> Result<Tensor> {
        if self.frozen && !x.requires_grad() { self.branch(x) } else { self.values(x) }
    }

    fn branch(&self, x: &Tensor) -> Result<Tensor> {
        if self.precision == Precision::Bf16 {
            self.rounded()?; // before the threads each make their own
        }
        let draws = (TOGETHER / self.bags.len().max(1)).max(1);
        let parts = x.detach().f_split(draws, 0)?;
        Ok(Tensor::f_cat(&threads::map(&parts, || self.clone(), Reconstruction::values)?, 0)?)
    }

    fn relaxed(&self, x: &Tensor) -> Result<Tensor> {
        self.values(x)
    }
}
