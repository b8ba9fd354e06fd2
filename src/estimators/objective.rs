//! f, as estimators see it, and how they evaluate it.
use crate::autograd::Function;
use crate::error::{Error, Result};
use tch::Tensor;

/// An objective: a function of samples whose every row is evaluated on its own.
///
/// Samples are `[M, B, L, K]` (categorical) or `[M, B, L]` (Boolean): M samples of each of the B rows of the batch, so that
/// a decoder sees one batch of `M B` and its targets `[B, D]` broadcast. Any closure `|x: &Tensor| -> Result<Tensor>` is
/// one; models that know more of themselves implement the other methods.
pub trait Objective {
    /// Values `[M, B]`, with the graph of whatever f closes over.
    fn at(&self, x: &Tensor) -> Result<Tensor>;

    /// The value alone, for the estimate of the logits. It differs from [`Objective::at`] where f draws further variables
    /// itself (a deeper network): here they are drawn plainly, there each layer's estimator does its work.
    fn branch(&self, x: &Tensor) -> Result<Tensor> {
        self.at(x)
    }

    /// At relaxed samples, differentiable in x; variables that f draws itself are relaxed too.
    fn relaxed(&self, x: &Tensor) -> Result<Tensor> {
        self.branch(x)
    }

    /// Whether [`Objective::branch`] differs from [`Objective::at`].
    fn draws(&self) -> bool {
        false
    }

    /// What the losses depend on beside the sample, `[B, D]`, without a graph: the input of learned baselines.
    fn context(&self) -> Option<Tensor> {
        None
    }

    /// A linear first layer, if f has one: then flips of a sample cost no product with its weights.
    fn first_layer(&self) -> Option<FirstLayer<'_>> {
        None
    }
}

impl<F: Fn(&Tensor) -> Result<Tensor>> Objective for F {
    fn at(&self, x: &Tensor) -> Result<Tensor> {
        self(x)
    }
}

/// `f(x) = rest(W x + c) + sum_i s_i x_i + besides(x) + constant`: f with a linear first layer.
pub struct FirstLayer<'a> {
    /// W, `[H, L]` or, for categorical variables, `[H, L K]` (class fastest), in terms of the encoded sample.
    pub weight: &'a Tensor,
    /// c, `[H]`.
    pub bias: Option<&'a Tensor>,
    /// `W x + c` at the sample that f was evaluated at last, `[M, B, H]`, where f has kept it: a product saved.
    pub pre: Option<Tensor>,
    /// s, `[B, L]` or `[B, L, K]` or broadcast to it: terms of f linear in the sample, as `log q` and `log prior` are.
    pub linear: Option<Tensor>,
    /// What follows.
    pub rest: Rest<'a>,
    /// Terms of f that see x in another way (what later layers, drawn anew, make of it): encoded samples `[N, B, ..] -> [N, B]`,
    /// evaluated at every flip. Called without grad mode.
    pub besides: Option<Hidden<'a>>,
}

/// A function of the pre-activations of a first layer, or of samples.
pub type Hidden<'a> = Box<dyn Fn(&Tensor) -> Result<Tensor> + 'a>;

/// What follows a linear first layer.
pub enum Rest<'a> {
    /// Any function of the pre-activations: `[M, B, H] -> [M, B]`. Called without grad mode.
    Network(Hidden<'a>),
    /// Bernoulli outputs right away, `sum_h softplus(a_h) - y_h a_h`, targets y `[B, H]`.
    Pixels(Tensor),
}

/// Values of f at M samples for an estimate, and a loss of its own parameters.
pub(super) struct Evaluated {
    /// `[M, B]`, no graph.
    pub values: Tensor,
    /// df/dx at the samples `[M, B, ..]`, where asked for.
    pub slope: Option<Tensor>,
    /// `[B]`, the mean over the samples, with f's graph; at the first sample alone where f draws variables itself.
    pub loss: Tensor,
}

fn checked(op: &'static str, values: Tensor, x: &Tensor) -> Result<Tensor> {
    if values.size() != x.size()[..2] {
        return Err(Error::shape(op, format!("values {:?} of f, one a sample and row", &x.size()[..2]), values.size()));
    }
    Ok(values)
}

/// f at samples `[M, B, ..]`. `slope`: with the derivative in them.
pub(super) fn evaluate(op: &'static str, f: &dyn Objective, x: &Tensor, slope: bool) -> Result<Evaluated> {
    let leaf = if slope { x.detach().f_set_requires_grad(true)? } else { x.shallow_clone() };
    let along = |values: &Tensor| -> Result<Option<Tensor>> {
        if !slope {
            return Ok(None);
        }
        // where f has no derivative in x at all there is nothing to run
        if !values.requires_grad() {
            return Ok(Some(leaf.detach().f_zeros_like()?));
        }
        let total = values.f_sum(values.kind())?;
        let g = Tensor::f_run_backward(&[total], &[&leaf], true, false)?.remove(0);
        Ok(Some(if g.defined() { g } else { leaf.detach().f_zeros_like()? }))
    };
    if f.draws() {
        let (values, slope) = if slope {
            let values = checked(op, f.branch(&leaf)?, x)?;
            let slope = along(&values)?;
            (values.detach(), slope)
        } else {
            let _guard = tch::no_grad_guard();
            (checked(op, f.branch(x)?, x)?, None)
        };
        let main = x.f_narrow(0, 0, 1)?;
        let loss = checked(op, f.at(&main)?, &main)?.f_squeeze_dim(0)?;
        return Ok(Evaluated { values, slope, loss });
    }
    let values = checked(op, f.at(&leaf)?, x)?;
    let slope = along(&values)?;
    let loss =
        if x.size()[0] == 1 { values.f_squeeze_dim(0)? } else { values.f_mean_dim(0i64, false, values.kind())? };
    Ok(Evaluated { values: values.detach(), slope, loss })
}

/// f at samples without a graph of any kind: `[M, B]`.
pub(super) fn values(op: &'static str, f: &dyn Objective, x: &Tensor) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    checked(op, f.branch(x)?, x)
}

/// An estimate to be deposited by the backward of a loss.
pub(super) struct Deposit<'a> {
    /// Where: logits, or a learned parameter.
    pub at: &'a Tensor,
    /// What: the gradient of each row's loss (logits), or of their mean (a parameter).
    pub grad: Tensor,
    /// Axis of the batch; none for a parameter.
    pub batch: Option<usize>,
}

impl<'a> Deposit<'a> {
    /// At logits `[B, ..]`.
    pub fn logits(at: &'a Tensor, grad: Tensor) -> Self {
        Deposit { at, grad, batch: Some(0) }
    }

    /// At a learned parameter.
    pub fn parameter(at: &'a Tensor, grad: Tensor) -> Self {
        Deposit { at, grad, batch: None }
    }
}

/// The loss `[B]`, whose backward also deposits these gradients. Its value and its own graph stay as they are.
pub(super) fn deposit(loss: &Tensor, estimates: Vec<Deposit>) -> Result<Tensor> {
    let mut inputs = vec![loss];
    inputs.extend(estimates.iter().map(|e| e.at));
    for e in &estimates {
        if e.at.size() != e.grad.size() {
            return Err(Error::shape("estimate", format!("{:?}, as the logits", e.at.size()), e.grad.size()));
        }
    }
    let grads: Vec<(Tensor, Option<usize>)> = estimates.iter().map(|e| (e.grad.detach(), e.batch)).collect();
    let mut out = Function::new("Estimate").inputs(&inputs).apply(
        || Ok(vec![loss.shallow_clone()]),
        move |node| {
            let Some(g) = &node.grads()[0] else { anyhow::bail!("the loss has no gradient") };
            let mut all = vec![Some(g.shallow_clone())];
            for (grad, batch) in &grads {
                all.push(Some(match batch {
                    None => grad * g.f_sum(g.kind())?,
                    Some(axis) => {
                        let mut size = vec![1; grad.dim()];
                        size[*axis] = g.size()[0];
                        grad * g.f_view(&size[..])?
                    }
                }));
            }
            Ok(all)
        },
    )?;
    Ok(out.remove(0))
}
