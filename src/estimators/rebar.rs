//! REBAR, and what it shares with RELAX.
use super::learned::{Net, gradients, scalar};
use super::objective::{Deposit, deposit, evaluate};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Sizes, Takes, Tau, Variables};
use crate::dist::bernoulli::Code;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::Tensor;

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Boolean,
    exact_on: ExactOn::Everything,
    source: "Tucker et al. 2017, Eq. 5",
    noise: NoiseKind::Continuous,
    hard_forward: true,
    f_evals: "3",
    needs_grad_f: true,
    knobs: &["tau"],
    tau: "learned, from --tau",
};

/// Temperature at the start, as in the published code (0.5; a later code base starts at 0.1).
pub(super) const TAU: f64 = 0.5;

/// REINFORCE with f at a relaxed draw as control variate, and the pathwise derivative of that added back:
/// `grad = (f(b) - c(z')) (b - p) + dc(z) - dc(z')`, `c(z) = eta f(sigmoid(z / tau))`.
///
/// `z = theta + logit u`, `b = 1[z > 0]`, and `z' = theta + logit v'` is z drawn anew given b, from a fresh uniform w:
/// `v' = b (w p + 1 - p) + (1 - b) w (1 - p)`, **p inside v' differentiated** (with v' held constant the estimate is grossly
/// biased). eta (from 1) and tau are learned by the mean of `grad^2` over batch and variables.
///
/// - **Shapes**: logits `[B, L]`; f maps `[M, B, L]` to `[M, B]`, once with M = 1 (hard) and once with 2 (relaxed).
/// - **Units**: tau dimensionless, learned as its logarithm.
/// - **Bias, cost**: None, whatever is learned; three evaluations of f, two of them off the code and with a derivative.
///   Learning takes a second derivative of f: an f with a custom backward refuses; then hold with [`Rebar::frozen`].
/// - **State**: parameters `eta` and `log_tau`. The published runs learn them ten times as fast as the model.
/// - **Errors**: [`crate::Error::Range`] for a tau that is not positive and finite.
/// - **Differs**: from the first published code, which draws w so that v' = u, takes one eta for each parameter tensor and
///   adds an NVIL baseline: independent noise, one eta and one tau, no baseline, as in the later comparisons.
pub struct Rebar {
    inner: Relaxation,
}

impl Rebar {
    /// Starting from this temperature.
    pub fn new(code: Code, tau: f64, sizes: &Sizes) -> Result<Self> {
        Ok(Rebar { inner: Relaxation::new("rebar", code, tau, None, sizes)? })
    }

    /// With eta and tau held: no second derivative of f is taken.
    pub fn frozen(mut self) -> Self {
        self.inner.learns = false;
        self
    }
}

impl GradEstimator for Rebar {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        self.inner.surrogate_loss(logits, f, noise)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.inner.parameters()
    }
}

/// The starting temperature of a knob: a constant.
pub(super) fn start(op: &'static str, knobs: &Knobs) -> Result<f64> {
    match knobs.tau {
        None => Ok(TAU),
        Some(tau) => match tau.check(op, None)? {
            Tau::Constant(tau) => Ok(tau),
            schedule => Err(Error::range(format!("{op}: tau"), "a constant: it is learned from there", schedule)),
        },
    }
}

/// A relaxed control variate `c(z) = eta (f(sigmoid(z / tau)) + r(z))`.
pub(super) struct Relaxation {
    op: &'static str,
    code: Code,
    eta: Tensor,
    log_tau: Tensor,
    /// r, of the context (where there is one) and z.
    net: Option<Net>,
    context: bool,
    learns: bool,
}

impl Relaxation {
    pub(super) fn new(op: &'static str, code: Code, tau: f64, net: Option<Net>, sizes: &Sizes) -> Result<Self> {
        Tau::Constant(tau).check(op, None)?;
        let (eta, log_tau) = (scalar(1.0, sizes)?, scalar(tau.ln(), sizes)?);
        Ok(Relaxation { op, code, eta, log_tau, context: net.is_some() && sizes.context.is_some(), net, learns: true })
    }

    pub(super) fn parameters(&self) -> Vec<(String, Tensor)> {
        let mut all = vec![("eta".into(), self.eta.shallow_clone()), ("log_tau".into(), self.log_tau.shallow_clone())];
        all.extend(self.net.iter().flat_map(Net::parameters));
        all
    }

    /// The control variate at `z` `[M, B, L] -> [M, B]`.
    fn control(&self, z: &Tensor, f: &dyn Objective) -> Result<Tensor> {
        let soft = (z / self.log_tau.f_exp()?).f_sigmoid()?;
        let mut c = f.relaxed(&self.code.encode(&soft)?)?;
        if let Some(net) = &self.net {
            let input = match self.context {
                false => z.shallow_clone(),
                true => {
                    let x = f.context();
                    let x = x.ok_or_else(|| Error::shape(self.op, "an objective with a context [B, D]", "none"))?;
                    let size = [&[z.size()[0]], &x.size()[..]].concat();
                    Tensor::f_cat(&[&x.detach().f_expand(size, false)?, z], -1)?
                }
            };
            c += net.forward(&input)?.f_squeeze_dim(-1)?;
        }
        Ok(c * &self.eta)
    }

    pub(super) fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let p = Variables::Boolean(self.code).probs(self.op, logits)?;
        let (size, kind, device) = (p.size(), p.kind(), p.device());
        let u = noise.uniform(&size, kind, device)?;
        let w = noise.uniform(&size, kind, device)?;
        let bits = (u.f_neg()? + 1.0).f_lt_tensor(&p)?; // u > 1 - p
        let hard = bits.f_to_kind(kind)?;
        let e = evaluate(self.op, f, &self.code.encode(&hard.f_unsqueeze(0)?)?, false)?;
        let (grad, learned) = tch::with_grad(|| -> Result<_> {
            let theta = logits.detach().f_set_requires_grad(true)?;
            let z = &theta + u.f_log()? - u.f_neg()?.f_log1p()?;
            // theta + logit v', written so that neither v' nor 1 - v' is rounded to 0
            let (p, plus) = (theta.f_sigmoid()?, theta.f_softplus()?);
            let w1 = w.f_neg()? + 1.0;
            let if_one = &plus + (&p * &w1).f_neg()?.f_log1p()? - w1.f_log()?;
            let if_zero = &theta - &plus + w.f_log()? - (&w * (p.f_neg()? + 1.0)).f_neg()?.f_log1p()?;
            let z_given = if_one.f_where_self(&bits, &if_zero)?;
            let c = self.control(&Tensor::f_stack(&[z, z_given], 0)?, f)?; // [2, B]
            let (c, c_given) = (c.f_get(0)?, c.f_get(1)?);
            let path = (&c - &c_given).f_sum(kind)?;
            let path = Tensor::f_run_backward(&[path], &[&theta], true, self.learns)?.remove(0);
            let path = if path.defined() { path } else { theta.detach().f_zeros_like()? };
            let signal = e.values.f_get(0)? - c_given;
            let grad = signal.f_unsqueeze(-1)? * (&hard - p.detach()) + path;
            let learned = match self.learns {
                true => gradients(&grad.f_square()?.f_mean(kind)?, self.parameters())?,
                false => vec![],
            };
            Ok((grad.detach(), learned))
        })?;
        let mut all = vec![Deposit::logits(logits, grad)];
        all.extend(learned.iter().map(|(p, g)| Deposit::parameter(p, g.shallow_clone())));
        deposit(&e.loss, all)
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("rebar", CLAIMS.knobs)?;
    let built = Rebar::new(knobs.code("rebar")?, start("rebar", knobs)?, &knobs.sizes)?;
    Ok(Built::Wide(Box::new(built), "rebar"))
}
