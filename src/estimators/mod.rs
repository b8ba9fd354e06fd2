//! Estimators of `d E[f(D)] / d logits`, one file each; the listing reads like the related-work section.
//!
//! Two contracts. A [`DropIn`] replaces the sample in place: hard forward, surrogate backward, one evaluation of f
//! ([`BooleanDropIn`] on Boolean variables). A [`GradEstimator`] is given f itself. Every drop-in is a `GradEstimator`;
//! probes and comparisons are written against the latter. Adding an estimator touches its own file and one line of the
//! registry below.
//!
//! Categorical variables have logits `[B, L, K]`. Boolean variables have logits `[B, L]` of the probability of 1 and values
//! in a [`Code`](crate::dist::bernoulli::Code), 0/1 or -1/+1: an estimator built with [`Knobs::code`] is for them.
//!
//! Legend: `B` batch, `L` latent variables, `K` categories, `M` Monte Carlo draws.
use crate::autograd::Function;
use crate::dist::categorical::Point;
use crate::error::{Error, Result};
use crate::kernels::rows;
use crate::noise::Noise;
use tch::Tensor;

mod boolean;
pub mod cascade;
mod claims;
mod learned;
mod objective;
mod registry;
mod score;
mod tau;
mod variables;
pub use boolean::{BooleanDropIn, BooleanSample, Placed, TwoClasses};
pub use cascade::Cascade;
pub use claims::{Claims, ExactOn, NoiseKind, Takes};
pub use objective::{FirstLayer, Objective, Rest};
pub use registry::{Built, Knobs, Place, Sizes};
pub use score::{Score, Weights};
pub use tau::Tau;
pub use variables::Variables;

registry::registry! {
    /// Straight-through (Bengio, Leonard & Courville 2013)
    St = st,
    /// Straight-through Gumbel-softmax (Jang, Gu & Poole 2017)
    Stgs = stgs,
    /// Gumbel-softmax, relaxed forward value (Jang et al. 2017; Maddison, Mnih & Teh 2017)
    GumbelSoftmax = gumbel_softmax,
    /// Rao-Blackwellised ST Gumbel-softmax, GR-MCK (Paulus, Maddison & Krause 2021)
    GumbelRao = gumbel_rao,
    /// Gapped straight-through with a constant gap, GST-1.0 (Fan et al. 2022)
    Gst = gst,
    /// Gapped straight-through with the probability-dependent gap, GST-p (Fan et al. 2022)
    GstP = gst_p,
    /// ReinMax, second-order accurate (Liu et al. 2023)
    Reinmax = reinmax,
    /// ReinMax with the uniform baseline, in the derived form (Liu et al. 2023, Section 4.1)
    ReinmaxBaseline = reinmax_baseline,
    /// The exact gradient by enumeration of all K^L codes (Liu et al. 2023, Eq. 2)
    Exact = exact,
    /// REINFORCE, with --decay a moving-average baseline (Williams 1992)
    Reinforce = reinforce,
    /// REINFORCE leave-one-out, each draw's baseline the mean of the others (Kool, van Hoof & Welling 2019)
    Rloo = rloo,
    /// Augment-REINFORCE-merge, an antithetic pair (Yin & Zhou 2019)
    Arm = arm,
    /// DisARM or U2G, ARM with its uniform averaged out (Dong, Mnih & Tucker 2020; Yin et al. 2020)
    Disarm = disarm,
    /// MuProp, first-order Taylor control variate around the mean (Gu et al. 2016)
    Muprop = muprop,
    /// DARN, straight-through weighted by 1/(2 p(b)) (Gregor et al. 2014)
    Darn = darn,
    /// FouST: importance re-weighting, Bernoulli splitting uniform, representation scaling (Pervez, Cohen & Gavves 2020)
    Foust = foust,
    /// Local expectation by all flips: BSB, CSB (Titsias & Lazaro-Gredilla 2015; GSB, Eqs. 16, 17)
    LocalExpectation = local_expectation,
    /// NVIL, REINFORCE with a learned baseline of the input (Mnih & Gregor 2014)
    Nvil = nvil,
    /// VIMCO, a bound of several samples with leave-one-out signals (Mnih & Rezende 2016)
    Vimco = vimco,
    /// ARMS, RLOO on mutually antithetic draws by the Dirichlet copula (Dimitriev & Zhou 2021)
    Arms = arms,
    /// Double control variates (Titsias & Shi 2022)
    DoubleCv = double_cv,
    /// RODEO, control variates by discrete Stein operators (Shi et al. 2022)
    Rodeo = rodeo,
    /// REBAR, a relaxed control variate with learned temperature (Tucker et al. 2017)
    Rebar = rebar,
    /// RELAX, a learned network added to it (Grathwohl et al. 2018)
    Relax = relax,
}

/// What a drop-in returns.
#[derive(Debug)]
pub struct Sample {
    /// The value handed on, `[.., K]`: exactly one-hot where the estimator's claims say so, with the surrogate gradient.
    pub value: Tensor,
    /// `softmax(logits)` (the reference's `y_soft`), `[.., K]`, differentiable in the ordinary way.
    pub probs: Tensor,
    /// Drawn class, i64, `[..]`; no gradient.
    pub index: Tensor,
}

/// From the upstream gradient of the sample and the forward value.
pub type SampleVjp = dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send;
/// From the upstream gradients of the sample and, where they have one, of the probabilities.
pub type BothVjp = dyn Fn(&Tensor, Option<&Tensor>) -> Result<Tensor> + Send;

/// The backward of a drop-in, to the gradient of the logits, `[.., K]` throughout.
pub enum Vjp {
    /// From the upstream gradient of the sample and the forward value (the one-hot draw of a hard estimator). What arrives at
    /// the probabilities goes through an ordinary softmax and is added.
    Sample(Box<SampleVjp>),
    /// From the upstream gradients of the sample and, where they have one, of the probabilities, through both at once.
    Both(Box<BothVjp>),
}

/// What an estimator decides about a draw.
pub struct Surrogate {
    /// Forward value, where it is not the one-hot draw.
    pub relaxed: Option<Tensor>,
    /// The gradient.
    pub vjp: Vjp,
}

impl Surrogate {
    /// Hard forward value and this backward.
    pub fn hard(vjp: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + 'static) -> Result<Self> {
        Ok(Surrogate { relaxed: None, vjp: Vjp::Sample(Box::new(vjp)) })
    }
}

/// A sample that replaces another in place: hard forward, surrogate backward.
///
/// # Example
/// ```
/// use tch::{Kind, Tensor};
/// use thruway::estimators::{DropIn, Estimator, Knobs};
/// use thruway::noise::Tape;
/// let st = Estimator::St.build(&Knobs::default())?.drop_in()?;
/// let logits = Tensor::from_slice(&[0.0f64, 2f64.ln(), 0.0]).view([1, 3]).set_requires_grad(true);
/// let s = st.draw(&logits, None, &mut Tape::new([("index", Tensor::from_slice(&[1i64]))]))?;
/// assert_eq!(Vec::<f64>::try_from(s.value.view([3])).unwrap(), [0.0, 1.0, 0.0]);
/// // upstream (1, 0, 0): J(p) g with p = (1/4, 1/2, 1/4)
/// (s.value * Tensor::from_slice(&[1.0f64, 0.0, 0.0])).sum(Kind::Double).backward();
/// let g = Vec::<f64>::try_from(logits.grad().view([3])).unwrap();
/// assert!((g[0] - 3.0 / 16.0).abs() < 1e-15 && (g[1] + 1.0 / 8.0).abs() < 1e-15);
/// # Ok::<(), thruway::Error>(())
/// ```
pub trait DropIn: Send {
    /// Takes the value that a temperature schedule has at this training step (from 0).
    fn at_step(&mut self, _step: i64) {}

    /// The temperature of its gradient, as [`DropIn::at_step`] left it, dimensionless; `None` for an estimator without one.
    fn tau(&self) -> Option<f64> {
        None
    }

    /// Draws a point, without gradients. The default draws at temperature 1 from `softmax(logits)`.
    fn point(&self, logits: &Tensor, mask: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Point> {
        Point::draw(logits, mask, noise)
    }

    /// The gradient to put on a draw; may take further noise.
    fn surrogate(&self, point: &Point, noise: &mut dyn Noise) -> Result<Surrogate>;

    /// Draws a sample and attaches the gradient: logits `[.., K]`, any leading shape, floating kind and device;
    /// `mask` boolean, true = allowed, broadcast to the logits. Classes masked out, or at -inf, are never drawn and get
    /// gradient exactly 0.
    ///
    /// # Errors
    /// As [`Point::draw`].
    fn draw(&self, logits: &Tensor, mask: Option<&Tensor>, noise: &mut dyn Noise) -> Result<Sample> {
        let (point, surrogate) = {
            let _guard = tch::no_grad_guard();
            let point = self.point(logits, mask, noise)?;
            let surrogate = self.surrogate(&point, noise)?;
            (point, surrogate)
        };
        hang(logits, point, surrogate)
    }

    /// Attaches the gradient to a sample already drawn: logits, hard `[.., K]` -> `[.., K]`.
    ///
    /// # Errors
    /// As [`Point::given`].
    fn attach(&self, logits: &Tensor, hard: &Tensor, noise: &mut dyn Noise) -> Result<Tensor> {
        let (point, surrogate) = {
            let _guard = tch::no_grad_guard();
            let point = Point::given(logits, hard)?;
            let surrogate = self.surrogate(&point, noise)?;
            (point, surrogate)
        };
        Ok(hang(logits, point, surrogate)?.value)
    }
}

/// One autograd node with the sample and the probabilities as outputs, so that a KL term and the surrogate share it.
fn hang(logits: &Tensor, point: Point, surrogate: Surrogate) -> Result<Sample> {
    let Surrogate { relaxed, vjp } = surrogate;
    let Point { probs, index, hard, .. } = point;
    // A relaxed estimator's backward gets its own value in place of the draw.
    let value = relaxed.unwrap_or(hard);
    let size = logits.size();
    let mut out = Function::new("DropIn").inputs(&[logits]).save_output(0).save_output(1).apply(
        || Ok(vec![value, probs]),
        move |node| {
            let [value, probs] = node.saved() else { anyhow::bail!("two saved outputs expected") };
            let (g, g_p) = (&node.grads()[0], &node.grads()[1]);
            let ordinary = || g_p.as_ref().map(|g_p| rows::jacobian(probs, g_p, 1.0)).transpose();
            let grad = match (g, &vjp) {
                (None, _) => ordinary()?,
                (Some(g), Vjp::Both(vjp)) => Some(vjp(g, g_p.as_ref())?),
                (Some(g), Vjp::Sample(vjp)) => Some(match (vjp(g, value)?, ordinary()?) {
                    (through, Some(ordinary)) => through + ordinary,
                    (through, None) => through,
                }),
            };
            Ok(vec![grad.map(|g| g.f_view(&size[..])).transpose()?])
        },
    )?;
    let probs = out.remove(1);
    let value = out.remove(0);
    Ok(Sample { value, probs, index })
}

/// The general contract: a loss `[B]` whose gradient in the logits is the estimate, and whose gradient in whatever f
/// closes over (a decoder) is f's own at the draws.
///
/// Logits are `[B, L, K]` for categorical and `[B, L]` for Boolean variables; the estimator knows which it was built for.
/// One backward deposits everything: the estimate in the logits, f's own gradient in f's parameters, and in
/// [`GradEstimator::parameters`] the gradient of what the estimator learns by, for the mean of the loss over the batch.
///
/// If f itself contains the logits (an ELBO has `log q(b)` in it), their direct gradient is f's own too and adds to the
/// estimate. For `+ log q` in a negative ELBO it has mean zero, so f may detach the logits there or not; for a bound of
/// several samples ([`vimco`]) it must not.
pub trait GradEstimator {
    /// The loss; its value is the mean of f over the draws (a bound, where the estimator's claims say so).
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor>;

    /// What it learns, for an optimizer and a checkpoint.
    fn parameters(&self) -> Vec<(String, Tensor)> {
        vec![]
    }

    /// Running means and the like, for a checkpoint.
    fn buffers(&self) -> Vec<(String, Tensor)> {
        vec![]
    }

    /// Takes parameters and buffers from a checkpoint; `get` finds a tensor by name.
    ///
    /// # Errors
    /// [`Error::Shape`] where one is missing or of another shape.
    fn load(&self, get: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, t) in self.parameters().into_iter().chain(self.buffers()) {
            let value = get(&name).ok_or_else(|| Error::shape("estimator", &name, "nothing of that name"))?;
            if value.size() != t.size() {
                return Err(Error::shape("estimator", format!("{name} {:?}", t.size()), value.size()));
            }
            t.shallow_clone().f_copy_(&value)?;
        }
        Ok(())
    }

    /// The score-function family, whose members also serve several layers drawn jointly.
    fn score(&self) -> Option<&dyn Score> {
        None
    }
}

impl<E: DropIn + ?Sized> GradEstimator for E {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let sample = self.draw(logits, None, noise)?;
        Ok(f.at(&sample.value.f_unsqueeze(0)?)?.f_squeeze_dim(0)?)
    }
}

/// A number of draws, refused below `least`.
fn at_least(least: i64, estimator: &'static str, samples: i64) -> Result<i64> {
    if samples < least {
        return Err(Error::range(format!("{estimator}: samples"), format!("at least {least}"), samples));
    }
    Ok(samples)
}
