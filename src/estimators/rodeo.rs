//! RODEO: control variates by discrete Stein operators.
use super::double_cv::mean_of_others;
use super::learned::{Hidden, Net, gradients, scalar};
use super::objective::{Deposit, deposit, evaluate};
use super::{Built, Claims, ExactOn, GradEstimator, Knobs, NoiseKind, Objective, Sizes, Takes, Variables};
use crate::dist::bernoulli::Code;
use crate::error::Result;
use crate::noise::Noise;
use tch::{Kind, Tensor};

/// What it promises.
pub const CLAIMS: Claims = Claims {
    variables: Takes::Boolean,
    exact_on: ExactOn::Everything,
    source: "Shi et al. 2022, Eq. 15 as published in code",
    noise: NoiseKind::Draws,
    hard_forward: true,
    f_evals: "M",
    needs_grad_f: true,
    knobs: &["samples"],
    tau: "none",
};

/// Hidden units of the surrogate.
const WIDTH: i64 = 100;

/// RLOO with two control variates of mean zero, made by the discrete Stein operator of the random-scan Gibbs sampler,
/// `(A h)(b) = 1/L sum_i w_i (h(b with i flipped) - h(b))`, `w_i` the probability of the flipped value:
/// `grad = 1/M sum_m { (f_m - mean_(j != m) (f_j + alpha D_j)) (b_m - p) + beta V_m }`,
/// `D_m = (A H0_m)(b_m)`, `V_m = (A [H1_m(.) (. - p)])(b_m)`.
///
/// H is one network of two numbers, `(s, t) -> (H0, H1)`, 100 hidden LeakyReLU(0.3) units, for all bits and data. With two
/// draws its input is `s(y) = df(b_j) . (y - b_j)`, `t = f_j` at the other draw; with more the outputs for all other
/// draws are averaged. alpha, beta (from 0) and H are learned by the mean of `grad^2` over batch and variables.
///
/// - **Shapes**: logits `[B, L]`; f maps `[M, B, L]` to `[M, B]`.
/// - **Bias, cost**: None, whatever is learned; M evaluations of f (default 2) and their derivatives at the draws, and
///   `M (M - 1) (L + 1)` of H a row. No `L x L` tensor: `df . y` of a flip is that of the draw plus `(1 - 2 b_i) df_i` (the
///   published code builds `[M, B, L, L]`), and on the CPU no hidden values of H in memory ([`crate::kernels::leaky_net`]).
/// - **State**: parameters `alpha`, `beta` and those of H. The published runs give them Adam with rate 1e-3.
/// - **Errors**: [`crate::Error::Range`] for `samples` < 2.
/// - **Differs**: from the published code in that the first layer has one bias where that has one an input, which their sum
///   makes the same function. Its mode `avg` for M > 2, which is not centred for lack of a `1/(M - 1)`, and its unused
///   `gamma` are not here.
pub struct Rodeo {
    code: Code,
    samples: i64,
    alpha: Tensor,
    beta: Tensor,
    surrogate: Net,
}

impl Rodeo {
    /// With this many draws.
    pub fn new(code: Code, samples: i64, sizes: &Sizes) -> Result<Self> {
        Ok(Rodeo {
            code,
            samples: super::at_least(2, "rodeo", samples)?,
            alpha: scalar(0.0, sizes)?,
            beta: scalar(0.0, sizes)?,
            surrogate: Net::new(2, WIDTH, 2, Hidden::LeakyRelu, sizes.place())?,
        })
    }

    /// Outputs of H for every draw at itself (entry 0) and at its L flips: `[M, B, 1 + L]` each of H0 and H1.
    ///
    /// `bits`, `slope` `[M, B, L]`, `values` `[M, B]`, free of a graph.
    fn outputs(&self, bits: &Tensor, slope: &Tensor, values: &Tensor) -> Result<[Tensor; 2]> {
        let m = bits.size()[0];
        let options = (Kind::Int64, bits.device());
        // the other draws of each, [M, M - 1]
        let others = (Tensor::f_arange_start(1, m, options)?.f_unsqueeze(0)? + Tensor::f_arange(m, options)?.f_unsqueeze(1)?)
            .f_remainder(m)?
            .f_view([-1])?;
        let pick = |t: &Tensor| -> Result<Tensor> {
            let size = [&[m, m - 1], &t.size()[1..]].concat();
            Ok(t.f_index_select(0, &others)?.f_view(&size[..])?)
        };
        let (df, f, at) = (pick(slope)?, pick(values)?, pick(bits)?); // [M, M - 1, B, ..]
        let own = bits.f_unsqueeze(1)?;
        let s = (&df * (&own - at)).f_sum_dim_intlist(-1, true, df.kind())?; // [M, M - 1, B, 1]
        let flipped = &s + (own * -2.0 + 1.0) * df; // [M, M - 1, B, L]
        let s = Tensor::f_cat(&[s, flipped], -1)?;
        let h = self.surrogate.forward_at(&s, &f)?.f_mean_dim(2i64, false, bits.kind())?; // over the other draws
        Ok([h.f_select(0, 0)?, h.f_select(0, 1)?])
    }
}

impl GradEstimator for Rodeo {
    fn surrogate_loss(&self, logits: &Tensor, f: &dyn Objective, noise: &mut dyn Noise) -> Result<Tensor> {
        let v = Variables::Boolean(self.code);
        let probs = v.probs("rodeo", logits)?;
        let bits = v.indicators(logits, &probs, self.samples, noise)?;
        let e = evaluate("rodeo", f, &v.encode(&bits)?, true)?;
        let slope = e.slope.expect("asked for") * v.slope();
        let l = logits.size()[1];
        let (grad, learned) = tch::with_grad(|| -> Result<_> {
            let score = &bits - &probs;
            let w = score.f_abs()?; // the probability of the other value
            let [h0, h1] = self.outputs(&bits, &slope, &e.values)?;
            let here = |h: &Tensor| h.f_narrow(-1, 0, 1); // [M, B, 1]
            let there = |h: &Tensor| h.f_narrow(-1, 1, l); // [M, B, L]
            let stein = |h: &Tensor| -> Result<Tensor> {
                Ok((&w * (there(h)? - here(h)?)).f_mean_dim(-1i64, true, h.kind())?) // 1/L of the sum, [M, B, 1]
            };
            // flipping i also moves entry i of the score by 1 - 2 b_i
            let vector = stein(&h1)? * &score + &w * there(&h1)? * (&bits * -2.0 + 1.0) / l as f64;
            let signal = e.values.f_unsqueeze(-1)?;
            let baseline = mean_of_others(&(&signal + stein(&h0)? * &self.alpha))?;
            let each = (signal - baseline) * &score + vector * &self.beta;
            let grad = each.f_mean_dim(0i64, false, probs.kind())?;
            let learned = gradients(&grad.f_square()?.f_mean(grad.kind())?, self.parameters())?;
            Ok((grad.detach(), learned))
        })?;
        let mut all = vec![Deposit::logits(logits, grad)];
        all.extend(learned.iter().map(|(p, g)| Deposit::parameter(p, g.shallow_clone())));
        deposit(&e.loss, all)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let mut all = vec![("alpha".into(), self.alpha.shallow_clone()), ("beta".into(), self.beta.shallow_clone())];
        all.extend(self.surrogate.parameters());
        all
    }
}

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("rodeo", CLAIMS.knobs)?;
    let built = Rodeo::new(knobs.code("rodeo")?, knobs.samples.unwrap_or(2), &knobs.sizes)?;
    Ok(Built::Wide(Box::new(built), "rodeo"))
}
