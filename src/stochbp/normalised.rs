//! Eqs. 20 and 21: beta and Dirichlet variables as gamma variables over their sum, and the rule of the gamma distribution.
//!
//! The series has no limit. Already for `f(z) = z_k` the n-th derivative by `zeta_k` is of the size of `1 / total^(n + 1)`, total
//! being the sum of the gamma variables, and `E total^-n` is infinite from `n = c` on, where c is the sum of the
//! concentrations. What is there is the beginning of an asymptotic series: its terms shrink up to about `n = c / 2` and its
//! error is then at most the first term left out (`f(z) = z_k`). `n = c / 2` is also where the variance of an estimate becomes
//! infinite, so an order is taken below that and refused from there on. The root mean squares of sampled terms, which
//! [`StochasticBackprop`](super::StochasticBackprop) compares too, grow earlier, from an order between `c / 3` and `c / 2` that
//! the smallest total among the draws decides.
use super::Estimate;
use super::objective::{Function, Objective};
use super::theorem1::{Caution, kinks, lines, series};
use crate::dist::Continuous;
use crate::dist::beta::Beta;
use crate::dist::dirichlet::Dirichlet;
use crate::dist::gamma::Gamma;
use crate::dist::over_last;
use crate::error::{Error, Result};
use crate::noise::Noise;
use tch::{Kind, Tensor};

/// Eqs. 20 and 21 up to derivatives of order `order`.
#[derive(Debug, Clone, Copy)]
pub struct ThroughGammas {
    /// N of Eq. 26: below half the sum of the concentrations.
    pub order: i64,
    /// What to do where it is not, where the terms grow, or where f has a kink.
    pub caution: Caution,
}

impl ThroughGammas {
    /// Eq. 20: gradients by `alpha` and `beta`, `[S, d]`, from `samples` draws of 2 d gamma variables. f takes `[.., d]`.
    pub fn beta(&self, p: &Beta, f: &Objective, samples: i64, noise: &mut dyn Noise) -> Result<Estimate> {
        let d = p.alpha.size()[0];
        let fewest = (&p.alpha + &p.beta).f_min()?.f_double_value(&[])?;
        let ratio = |zeta: &Tensor| {
            let (g, h) = (zeta.f_narrow(-1, 0, d)?, zeta.f_narrow(-1, d, d)?);
            Ok(&g / (&g + h))
        };
        let shapes = Tensor::f_cat(&[&p.alpha, &p.beta], 0)?;
        let mut e = self.gammas(&shapes, fewest, f, &ratio, samples, noise)?;
        let (_, both) = e.gradients.remove(0);
        e.gradients = vec![("alpha".into(), both.f_narrow(-1, 0, d)?), ("beta".into(), both.f_narrow(-1, d, d)?)];
        Ok(e)
    }

    /// Eq. 21: gradients by `concentration`, `[S, d]`, from `samples` draws of d gamma variables.
    pub fn dirichlet(&self, p: &Dirichlet, f: &Objective, samples: i64, noise: &mut dyn Noise) -> Result<Estimate> {
        let total = p.concentration.f_sum(Kind::Double)?.f_double_value(&[])?;
        let ratio = |zeta: &Tensor| Ok(zeta / over_last(zeta)?.f_unsqueeze(-1)?);
        let mut e = self.gammas(&p.concentration, total, f, &ratio, samples, noise)?;
        e.gradients[0].0 = "concentration".into();
        Ok(e)
    }

    /// By the shapes of gamma variables of scale 1, f being a function of their `ratio`.
    fn gammas(
        &self,
        shapes: &Tensor,
        total: f64,
        f: &Objective,
        ratio: &Function,
        samples: i64,
        noise: &mut dyn Noise,
    ) -> Result<Estimate> {
        let mut doubts = vec![];
        if (2 * self.order) as f64 >= total {
            doubts.push(Error::range(
                "the order N of Eqs. 20 and 21",
                format!(
                    "below half the sum of the concentrations, {total}: beyond it the variance is infinite and the terms \
                     grow (use pathwise, or for a beta Theorem 1 itself)"
                ),
                self.order,
            ));
        }
        // before anything is drawn
        if self.caution == Caution::Refuse
            && let Some(order) = doubts.pop()
        {
            return Err(order);
        }
        let p = Gamma::new(shapes, &shapes.f_ones_like()?)?;
        let zeta = p.sample(samples, noise)?;
        // as a function of zeta f is smooth to the rule, which does not see its kinks
        let z = ratio(&zeta)?;
        let mut kink = None;
        if self.order >= 2 {
            let pure = if lines(f, &z) { f.derivatives(&z, 2)?.pure } else { vec![] };
            kink = kinks(f, &z, &pure)?;
        }
        let value = |zeta: &Tensor| f.value(&ratio(zeta)?);
        let (mut e, growth) = series(&p, &["shape"], &Objective::Smooth(&value), &zeta, self.order, false)?;
        doubts.extend(kink.into_iter().chain(growth));
        if doubts.is_empty() {
            return Ok(e);
        }
        match self.caution {
            Caution::Refuse => Err(doubts.remove(0)),
            Caution::Warn => {
                e.warning = Some(doubts.iter().map(Error::to_string).collect::<Vec<_>>().join("; "));
                Ok(e)
            }
        }
    }
}
