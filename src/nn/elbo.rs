//! The negative evidence lower bound of a [`BeliefNet`], as estimators take it: an objective of one layer, a cascade of
//! several.
use super::belief::BeliefNet;
use super::loss::bce_rows;
use crate::error::{Error, Result};
use crate::estimators::{Built, Cascade, FirstLayer, GradEstimator, Objective, Rest, Score, Variables, cascade};
use crate::noise::Noise;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use tch::Tensor;

/// How the divergence from the prior enters the objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kl {
    /// As `log q(b) - log p(b)` of the draw, inside what the estimator sees
    Sampled,
    /// In closed form, with its own exact gradient; one stochastic layer
    Analytic,
}

/// `f(b) = log q(b | x) - log p(x, b)` for a batch, in nats; with the analytic divergence `f(b) = -log p(x | b)`.
///
/// The logits inside `log q` are held fixed: at a drawn b their direct derivative has mean zero, so the estimate stays what it is,
/// with less noise (as in the published codes of RODEO, DisARM and ARMS). It is left out of relaxed values too, whose mean is not p:
/// what is wanted is the gradient of the bound of drawn b. (One bit under Gumbel-softmax at tau 1, uniform prior, theta = 2: the
/// divergence's gradient is 0.210, this estimates 0.227, with the derivative 0.140.) `log q` and `log p` of a relaxed value continue
/// linearly between its ends. A bound of several draws (VIMCO) needs the derivative and keeps it.
pub struct Elbo<'a> {
    net: &'a BeliefNet,
    /// `[1, B, pixels]`, as the recognition network sees it.
    input: Tensor,
    /// `[B, pixels]`.
    target: Tensor,
    kl: Kl,
    /// Logits of q by layer, as last asked for: always those of the states that a loss is then asked at, as the states of a
    /// layer are drawn from them.
    posterior: RefCell<Vec<Tensor>>,
    /// Bias of a linear decoder, without a graph.
    bias: Tensor,
    /// Whether `log q` keeps the derivative in its own logits.
    score: Cell<bool>,
    /// Pixel logits of the state that a loss was asked at last, without a graph.
    pixels: RefCell<Option<Tensor>>,
}

impl<'a> Elbo<'a> {
    /// Of images `[B, pixels]` in [0, 1].
    ///
    /// # Errors
    /// [`Error::Shape`] for images of another size; [`Error::Usage`] for the analytic divergence of several layers.
    pub fn new(net: &'a BeliefNet, x: &Tensor, kl: Kl) -> Result<Self> {
        if x.dim() != 2 || x.size()[1] != net.shape().pixels {
            return Err(Error::shape("elbo", format!("images [B, {}]", net.shape().pixels), x.size()));
        }
        if kl == Kl::Analytic && net.depth() > 1 {
            return Err(Error::Usage("the divergence has a closed form for one stochastic layer alone".into()));
        }
        let bias = net.to_pixels_bias()?;
        let input = net.input(x)?.f_unsqueeze(0)?;
        let target = x.shallow_clone();
        Ok(Elbo {
            net,
            input,
            target,
            kl,
            posterior: RefCell::default(),
            bias,
            score: Cell::new(false),
            pixels: RefCell::default(),
        })
    }

    /// A loss `[B]` whose backward gives every parameter its estimate; its value is f at the draws (their mean, or a bound).
    ///
    /// `layers`: an estimator a stochastic layer, built for the network's variables (and scale). `draws` independent draws of a
    /// chain of drop-ins are averaged; the others know their own number.
    ///
    /// # Errors
    /// [`Error::Range`] for another number of estimators than of layers, or no draws; [`Error::Usage`] for a bound of several draws
    /// with the divergence in closed form, and for an estimator of another scale than the network's; else as the estimators.
    pub fn surrogate_loss(&self, layers: &[Built], draws: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        let depth = self.net.depth();
        let bounds = layers.iter().any(|e| e.score().is_some_and(Score::bounds));
        self.score.set(bounds);
        if bounds && self.kl == Kl::Analytic {
            return Err(Error::Usage(
                "a bound of several draws has the divergence inside: take the sampled one".into(),
            ));
        }
        for e in layers {
            let scale = if let Built::Boolean(e) = e { e.scale() } else { 1.0 };
            if scale != self.net.shape().scale {
                let ours = self.net.shape().scale;
                return Err(Error::Usage(format!(
                    "an estimator of scale {scale} in a network of scale {ours}: build both alike"
                )));
            }
        }
        if layers.len() != depth {
            return Err(Error::range("the number of estimators", format!("that of the layers, {depth}"), layers.len()));
        }
        if draws < 1 {
            return Err(Error::range("draws", "at least 1", draws));
        }
        let loss = if layers.iter().all(|e| !matches!(e, Built::Wide(..))) {
            let mut states: Vec<Tensor> = vec![];
            for (layer, estimator) in layers.iter().enumerate() {
                let mut logits = self.logits(layer, &states)?;
                if layer == 0 && draws > 1 {
                    let mut size = logits.size();
                    size[0] = draws;
                    logits = logits.f_expand(size, false)?.f_contiguous()?;
                }
                states.push(match estimator {
                    Built::Boolean(e) => e.draw(&logits, noise)?.value,
                    Built::DropIn(e) => e.draw(&logits, None, noise)?.value,
                    Built::Wide(..) => unreachable!("asked above"),
                });
            }
            let values = self.loss(&states)?;
            values.f_mean_dim(0i64, false, values.kind())?
        } else if depth == 1 {
            let logits = self.logits(0, &[])?.f_squeeze_dim(0)?;
            layers[0].surrogate_loss(&logits, self, noise)?
        } else {
            cascade::surrogate_loss(self, self.net.variables(), layers, noise)?
        };
        match self.kl {
            Kl::Sampled => Ok(loss),
            Kl::Analytic => Ok(loss + self.divergence()?),
        }
    }

    /// `KL(q || p)` of one stochastic layer in closed form, `[B]`, at the logits last asked for; differentiable in them and
    /// the prior.
    pub fn divergence(&self) -> Result<Tensor> {
        let logits = self.posterior(0)?.f_squeeze_dim(0)?;
        let prior = self.net.prior()?;
        match self.net.variables() {
            Variables::Boolean(_) => {
                // p (theta - a) - softplus(theta) + softplus(a)
                let each = logits.f_sigmoid()? * (&logits - &prior) - logits.f_softplus()? + prior.f_softplus()?;
                Ok(each.f_sum_dim_intlist(-1, false, each.kind())?)
            }
            Variables::Categorical => {
                let log_q = logits.f_log_softmax(-1, logits.kind())?;
                let each = log_q.f_exp()? * (&log_q - prior.f_log_softmax(-1, prior.kind())?);
                Ok(each.f_sum_dim_intlist([-2i64, -1].as_slice(), false, each.kind())?)
            }
        }
    }

    /// `log q(b_layer | ..)` at a state drawn from the logits last asked for.
    fn log_recognised(&self, layer: usize, state: &Tensor) -> Result<Tensor> {
        let logits = self.posterior(layer)?;
        let logits = if self.score.get() { logits } else { logits.detach() };
        self.net.log_prob(&logits, &self.net.indicators(state)?)
    }

    /// `log p(b_layer | b_(layer + 1))`, or of the prior.
    fn log_generated(&self, layer: usize, states: &[Tensor]) -> Result<Tensor> {
        let above = match states.get(layer + 1) {
            Some(above) => self.net.generate(layer + 1, above)?,
            None => self.net.prior()?,
        };
        self.net.log_prob(&above, &self.net.indicators(&states[layer])?)
    }

    fn posterior(&self, layer: usize) -> Result<Tensor> {
        let all = self.posterior.borrow();
        let logits = all.get(layer).ok_or_else(|| Error::Usage("an objective asked for before its logits".into()))?;
        Ok(logits.shallow_clone())
    }
}

impl Cascade for Elbo<'_> {
    fn depth(&self) -> usize {
        self.net.depth()
    }

    fn logits(&self, layer: usize, before: &[Tensor]) -> Result<Tensor> {
        let logits = self.net.recognise(layer, before.last().unwrap_or(&self.input))?;
        let mut all = self.posterior.borrow_mut();
        all.truncate(layer);
        all.push(logits.shallow_clone());
        Ok(logits)
    }

    fn loss(&self, states: &[Tensor]) -> Result<Tensor> {
        let net = self.net;
        let pixels = net.generate(0, &states[0])?;
        let mut f = bce_rows(&pixels, &self.target)?;
        *self.pixels.borrow_mut() = Some(pixels.detach());
        if self.kl == Kl::Analytic {
            return Ok(f);
        }
        for (layer, state) in states.iter().enumerate() {
            f = f + self.log_recognised(layer, state)? - self.log_generated(layer, states)?;
        }
        Ok(f)
    }

    fn context(&self) -> Option<Tensor> {
        Some(self.input.squeeze_dim(0))
    }

    fn first_layer(&self, layer: usize, before: &[Tensor]) -> Option<FirstLayer<'_>> {
        let (net, variables) = (self.net, self.net.variables());
        let _guard = tch::no_grad_guard();
        // what the layer generates: pixels, or the bits below it
        let target = match (layer, variables) {
            (0, _) => self.target.shallow_clone(),
            (_, Variables::Boolean(_)) => net.indicators(before.last()?).ok()?.squeeze_dim(0),
            (_, Variables::Categorical) => return None,
        };
        let linear = match self.kl {
            Kl::Analytic => None,
            Kl::Sampled => {
                let q = self.posterior(layer).ok()?.squeeze_dim(0);
                let top = layer + 1 == self.net.depth();
                let p = if top { Some(net.prior().ok()?) } else { None };
                // logits in place of log-probabilities: a variable's normaliser is a constant
                let s = if let Some(p) = p { q - p } else { q };
                Some(match variables {
                    Variables::Boolean(code) => s / code.slope(),
                    Variables::Categorical => s,
                })
            }
        };
        let decoder = &net.decoder[layer];
        let bias = if layer == 0 && decoder.is_linear() { &self.bias } else { decoder.first().bias() };
        let rest = if decoder.is_linear() {
            Rest::Pixels(target)
        } else {
            Rest::Network(Box::new(move |pre: &Tensor| {
                let logits = decoder.after_first(pre)?;
                bce_rows(&if layer == 0 { net.to_pixels(logits)? } else { logits }, &target)
            }))
        };
        Some(FirstLayer { weight: decoder.first().weight(), bias: Some(bias), pre: None, linear, rest, besides: None })
    }

    fn beyond(&self, layer: usize, states: &[Tensor]) -> Result<Tensor> {
        let mut f = self.log_generated(layer, states)?.f_neg()?;
        for later in layer + 1..states.len() {
            f = f + self.log_recognised(later, &states[later])? - self.log_generated(later, states)?;
        }
        Ok(f)
    }
}

/// f of one stochastic layer.
impl Objective for Elbo<'_> {
    fn at(&self, x: &Tensor) -> Result<Tensor> {
        self.loss(&[x.shallow_clone()])
    }

    fn context(&self) -> Option<Tensor> {
        Cascade::context(self)
    }

    fn first_layer(&self) -> Option<FirstLayer<'_>> {
        let mut layer = Cascade::first_layer(self, 0, &[])?;
        if matches!(layer.rest, Rest::Pixels(_)) {
            layer.pre = self.pixels.borrow().as_ref().map(Tensor::shallow_clone);
        }
        Some(layer)
    }
}
