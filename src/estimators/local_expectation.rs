//! Local expectation: every variable summed out in turn, the others as drawn.
use super::objective::{Deposit, FirstLayer, Rest, deposit, evaluate, values};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Takes, Variables};
use crate::error::{Error, Result};
use crate::kernels::flips as kernel;
use crate::noise::Noise;
use tch::{Device, Kind, Tensor};

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Both,
    exact_on: ExactOn::Everything,
    source: "Titsias & Lazaro-Gredilla 2015; GSB, Eqs. 16 and 17",
    noise: NoiseKind::Draws,
    hard_forward: true,
    f_evals: "M (1 + L (K - 1))",
    needs_grad_f: false,
    knobs: &["samples"],
    tau: "none",
};

/// One draw z, and for each variable j the exact expectation over it with the others held:
/// `grad_jk = pi_jk (f(z_-j, k) - sum_m pi_jm f(z_-j, m))`; for bits `p_j (1 - p_j) (f(z_-j, 1) - f(z_-j, 0))`. The mean over M
/// draws.
///
/// This is Bernoulli and categorical stochastic backpropagation (BSB, CSB: GSB Eqs. 16, 17), and GO with the bit summed out.
///
/// All flips are evaluated together, in pieces that fit a cache (CPU) or 256 MB (GPU). Where f says that its first layer is
/// linear ([`Objective::first_layer`]) the pre-activations of a flip are those of the draw plus one column of the weights,
/// and with Bernoulli outputs right after it ([`Rest::Pixels`]) a flip costs one multiply-add and one multiplication an
/// output. In a cascade each flip draws the later layers anew, which is evaluated flip by flip
/// ([`FirstLayer::besides`](super::FirstLayer)); only what the layer's own generation network makes of it goes by columns.
///
/// - **Shapes**: logits `[B, L, K]`, or `[B, L]` for Boolean variables; f maps `[N, B, ..]` to `[N, B]`, N as large as a
///   piece.
/// - **Bias, cost**: None, and variance only from the other variables; `M (1 + L (K - 1))` evaluations of f (default M = 1),
///   of which M with a graph. f's own parameters get the mean over the M draws.
/// - **Errors**: [`crate::Error::Range`] for `samples` < 1; [`crate::Error::Shape`] for a first layer of another size.
pub struct LocalExpectation {
    variables: Variables,
    samples: i64,
}

impl LocalExpectation {
    /// With this many draws.
    pub fn new(variables: Variables, samples: i64) -> Result<Self> {
        Ok(LocalExpectation { variables, samples: super::at_least(1, "local-expectation", samples)? })
    }
}

impl GradEstimator for LocalExpectation {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let v = self.variables;
        let probs = v.probs("local-expectation", logits)?;
        let draws = v.indicators(logits, &probs, self.samples, noise)?; // [M, B, ..]
        let e = evaluate("local-expectation", f, &v.encode(&draws)?, false)?;
        let _guard = tch::no_grad_guard();
        let flips = Flips::new(v, &draws)?;
        let change = match f.first_layer() {
            Some(layer) => flips.by_layer(&layer)?,
            None => flips.by_f(&|x: &Tensor| values("local-expectation", f, x), &e.values)?,
        }; // [M, B, L, K - 1]
        let grad = match v {
            Variables::Boolean(_) => {
                // f(1) - f(0): the change, or its opposite where the bit was 1
                let sign = draws * -2.0 + 1.0;
                let difference = (change.f_squeeze_dim(-1)? * sign).f_mean_dim(0i64, false, probs.kind())?;
                difference * &probs * (probs.f_neg()? + 1.0)
            }
            Variables::Categorical => {
                // relative to the class drawn, whose own change is 0
                let table = draws.f_zeros_like()?.f_scatter(-1, &flips.targets, &change)?;
                v.pull_back(&probs, &table)?.f_mean_dim(0i64, false, probs.kind())?
            }
        };
        drop(_guard);
        deposit(&e.loss, vec![Deposit::logits(logits, grad)])
    }
}

/// The neighbours of draws: each variable in each of its other classes.
struct Flips<'a> {
    variables: Variables,
    /// Indicators `[M, B, ..]`.
    draws: &'a Tensor,
    m: i64,
    b: i64,
    l: i64,
    /// Other classes, K - 1.
    others: i64,
    /// Class drawn, i64, `[M, B, L, 1]`, and that of each flip, `[M, B, L, K - 1]` (categorical).
    drawn: Tensor,
    targets: Tensor,
}

impl<'a> Flips<'a> {
    fn new(variables: Variables, draws: &'a Tensor) -> Result<Self> {
        let size = draws.size();
        let (m, b, l) = (size[0], size[1], size[2]);
        let (others, drawn, targets) = match variables {
            Variables::Boolean(_) => (1, Tensor::new(), Tensor::new()),
            Variables::Categorical => {
                let k = size[3];
                let step = Tensor::f_arange_start(1, k, (Kind::Int64, draws.device()))?;
                let drawn = draws.f_argmax(-1, true)?;
                let targets = (&drawn + step).f_remainder(k)?;
                (k - 1, drawn, targets)
            }
        };
        Ok(Flips { variables, draws, m, b, l, others, drawn, targets })
    }

    /// Variables in one piece, for this many numbers a flip and draw.
    fn piece(&self, width: i64) -> i64 {
        let budget = if self.draws.device() == Device::Cpu { 1 << 19 } else { 1 << 26 };
        (budget / (self.m * self.b * self.others * width).max(1)).clamp(1, self.l)
    }

    /// `run(first variable, number)` -> `[M, n, K - 1, B]`, put together as `[M, B, L, K - 1]`.
    fn in_pieces(&self, width: i64, run: impl Fn(i64, i64) -> Result<Tensor>) -> Result<Tensor> {
        let size = self.piece(width);
        let pieces = (0..self.l).step_by(size as usize).map(|j| run(j, size.min(self.l - j)));
        let pieces = pieces.collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_cat(&pieces, 1)?.f_permute([0, 3, 1, 2])?)
    }

    /// By evaluating f, encoded samples `[N, B, ..] -> [N, B]`, at every flip: the change from `base` `[M, B]`.
    fn by_f(&self, f: &dyn Fn(&Tensor) -> Result<Tensor>, base: &Tensor) -> Result<Tensor> {
        let (m, b, l, others) = (self.m, self.b, self.l, self.others);
        let kind = self.draws.kind();
        let tail = &self.draws.size()[2..]; // L, or L and K
        let width = tail.iter().product();
        let base = base.f_view([m, 1, 1, b])?;
        let from = self.draws.f_view(&[&[m, 1, 1, b], tail].concat()[..])?;
        // what would be added if every variable moved: [M, 1, K - 1, B, ..]
        let all_moved = match self.variables {
            Variables::Boolean(_) => &from * -2.0 + 1.0,
            Variables::Categorical => {
                let rolled = (0..others).map(|o| Ok(self.draws.f_roll([o + 1], [-1])?)).collect::<Result<Vec<_>>>()?;
                Tensor::f_stack(&rolled, 1)?.f_unsqueeze(1)? - &from
            }
        };
        let one_each = Tensor::f_eye(l, (kind, self.draws.device()))?;
        self.in_pieces(width, |first, n| {
            let mut size = vec![1; 4 + tail.len()];
            (size[1], size[4]) = (n, l);
            let x = &from + &all_moved * one_each.f_narrow(0, first, n)?.f_view(&size[..])?;
            let x = x.f_reshape([&[m * n * others, b], tail].concat())?;
            Ok(f(&self.variables.encode(&x)?)?.f_view([m, n, others, b])? - &base)
        })
    }

    /// By the first layer: pre-activations of all flips from the columns of its weights.
    fn by_layer(&self, layer: &FirstLayer) -> Result<Tensor> {
        let (m, b, l, others) = (self.m, self.b, self.l, self.others);
        let h = layer.weight.size().first().copied().unwrap_or(0);
        let k = if self.variables == Variables::Categorical { others + 1 } else { 1 };
        if layer.weight.size() != [h, l * k] {
            let want = format!("weights [H, {}]", l * k);
            return Err(Error::shape("first layer", want, layer.weight.size()));
        }
        let pre = match &layer.pre {
            Some(kept) if kept.size() == [m, b, h] => kept.shallow_clone(),
            Some(kept) => return Err(Error::shape("first layer", format!("pre-activations {:?}", [m, b, h]), kept.size())),
            None => self.variables.encode(self.draws)?.f_reshape([m, b, l * k])?.f_linear(layer.weight, layer.bias)?,
        }; // [M, B, H]
        let columns = layer.weight.f_transpose(0, 1)?; // [L K, H]
        let change = match &layer.rest {
            Rest::Network(rest) => self.by_columns(&pre, &columns, rest)?,
            Rest::Pixels(target) => match self.of_pixels(&pre, &columns, target)? {
                Some(change) => change,
                None => {
                    let softplus = |a: &Tensor| -> Result<Tensor> {
                        Ok((a.f_softplus()? - a * target).f_sum_dim_intlist(-1, false, a.kind())?)
                    };
                    self.by_columns(&pre, &columns, &softplus)?
                }
            },
        };
        let change = match &layer.linear {
            None => change,
            Some(s) => change + self.linear(s)?,
        };
        match &layer.besides {
            None => Ok(change),
            Some(f) => Ok(change + self.by_f(f, &f(&self.variables.encode(self.draws)?)?)?),
        }
    }

    /// Bernoulli outputs right after the layer, on the CPU; none where the kernel does not serve them.
    fn of_pixels(&self, pre: &Tensor, columns: &Tensor, target: &Tensor) -> Result<Option<Tensor>> {
        if !kernel::own_loops(columns) {
            return Ok(None);
        }
        let (m, b, l, others) = (self.m, self.b, self.l, self.others);
        let h = pre.size()[2];
        let rows = pre.f_reshape([m * b, h])?;
        let change = match self.variables {
            Variables::Boolean(code) => {
                let bits = self.draws.f_reshape([m * b, l])?;
                kernel::boolean(&rows, columns, &bits, code.slope())?
            }
            Variables::Categorical => {
                let classes = self.drawn.f_reshape([m * b, l])?;
                kernel::categorical(&rows, &columns.f_reshape([l, others + 1, h])?, &classes)?
            }
        };
        let Some(change) = change else { return Ok(None) };
        // y . W of every column, [B, L] or [B, L, K]: the part of the loss linear in the pre-activations
        let linear = target.f_matmul(&columns.f_transpose(0, 1)?)?.f_neg()?;
        let size = if self.variables == Variables::Categorical { vec![b, l, others + 1] } else { vec![b, l] };
        Ok(Some(change.f_view([m, b, l, others])? + self.linear(&linear.f_view(&size[..])?)?))
    }

    /// Change of the encoded value of each bit by its flip, `[M, B, L]`.
    fn step(&self) -> Result<Tensor> {
        Ok((self.draws * -2.0 + 1.0) * self.variables.slope())
    }

    fn by_columns(&self, pre: &Tensor, columns: &Tensor, rest: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (m, b, l, others) = (self.m, self.b, self.l, self.others);
        let h = pre.size()[2];
        let base = rest(pre)?.f_view([m, 1, 1, b])?;
        let at = pre.f_view([m, 1, 1, b, h])?;
        self.in_pieces(h, |from, n| {
            let moved = match self.variables {
                Variables::Boolean(_) => {
                    let step = self.step()?.f_narrow(2, from, n)?.f_permute([0, 2, 1])?.f_contiguous()?; // [M, n, B]
                    let columns = columns.f_narrow(0, from, n)?.f_view([1, n, 1, 1, h])?;
                    step.f_view([m, n, 1, b, 1])? * columns
                }
                Variables::Categorical => {
                    let k = others + 1;
                    let columns = columns.f_view([l, k, h])?.f_narrow(0, from, n)?;
                    let rows = |class: &Tensor| -> Result<Tensor> {
                        // class [M, B, n, c] -> columns [M, n, c, B, H]
                        let c = class.size()[3];
                        let first = Tensor::f_arange(n, (Kind::Int64, class.device()))? * k;
                        let at = (class + first.f_view([1, 1, n, 1])?).f_permute([0, 2, 3, 1])?.f_reshape([-1])?;
                        Ok(columns.f_reshape([n * k, h])?.f_index_select(0, &at)?.f_view([m, n, c, b, h])?)
                    };
                    rows(&self.targets.f_narrow(2, from, n)?)? - rows(&self.drawn.f_narrow(2, from, n)?)?
                }
            };
            let all = (moved + &at).f_reshape([m * n * others, b, h])?;
            Ok(rest(&all)?.f_view([m, n, others, b])? - &base)
        })
    }

    /// Change of the terms linear in the sample, `[M, B, L, K - 1]`.
    fn linear(&self, s: &Tensor) -> Result<Tensor> {
        match self.variables {
            Variables::Boolean(_) => Ok((self.step()? * s).f_unsqueeze(-1)?),
            Variables::Categorical => {
                let s = s.f_expand_as(self.draws)?;
                Ok(s.f_gather(-1, &self.targets, false)? - s.f_gather(-1, &self.drawn, false)?)
            }
        }
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("local-expectation", CLAIMS.knobs)?;
    let built = LocalExpectation::new(Variables::of(knobs.code), knobs.samples.unwrap_or(1))?;
    Ok(Built::Wide(Box::new(built), "local-expectation"))
}
