//! Bayesian logistic regression with Laplace prior and posterior on the Wisconsin breast-cancer data (Section 6.2).
use crate::args::{Features, Kl};
use crate::method::{Law, Method, estimate};
use tch::{Device, Kind, Tensor};
use thruway::data::breast_cancer;
use thruway::dist::Continuous;
use thruway::dist::laplace::{Laplace, kl_to_standard};
use thruway::error::{Error, Result};
use thruway::noise::Noise;
use thruway::stochbp::{Caution, Estimate, Objective, Outer, Sum, log_sigmoid_derivatives};

/// Minimise `E -log sigmoid(y x . w) + weight KL(q || p)`, mean over the data, over means and scales of Laplace posteriors q of
/// the weights w; the prior p is Laplace(0, 1).
#[derive(Debug)]
pub struct Logistic {
    /// `y x`, `[n, 30]`.
    rows: Tensor,
    /// Of the KL divergence in the objective per data point.
    pub weight: f64,
    pub batch_size: i64,
    pub samples: i64,
    pub order: i64,
    pub caution: Caution,
}

impl Logistic {
    /// The data, scaled.
    pub fn new(
        (features, kl): (Features, Kl),
        batch_size: i64,
        samples: i64,
        order: i64,
        caution: Caution,
        device: Device,
    ) -> Result<Self> {
        let set = breast_cancer::load()?;
        let x = set.features;
        let scaled = match features {
            Features::Standard => (&x - x.f_mean_dim(0i64, true, Kind::Double)?) / x.f_std_dim(0i64, false, true)?,
            Features::MinMax => {
                let (low, high) = (x.f_amin(0i64, true)?, x.f_amax(0i64, true)?);
                (x - &low) / (high - low)
            }
        };
        let rows = (scaled * set.labels.f_unsqueeze(-1)?).f_to_kind(Kind::Float)?.f_to_device(device)?;
        let n = rows.size()[0];
        if batch_size > n {
            return Err(Error::range("--batch-size", format!("at most {n}, the size of the data set"), batch_size));
        }
        let weight = match kl {
            Kl::Once => 1.0 / n as f64,
            Kl::Each => 1.0,
        };
        Ok(Logistic { rows, weight, batch_size, samples, order, caution })
    }

    /// Features.
    pub fn dimensions(&self) -> i64 {
        self.rows.size()[1]
    }

    /// A batch of distinct rows, `[B, 30]`, from libtorch's default generator.
    pub fn batch(&self) -> Result<Tensor> {
        let order = Tensor::f_randperm(self.rows.size()[0], (Kind::Int64, Device::Cpu))?;
        let index = order.f_narrow(0, 0, self.batch_size)?.f_to_device(self.rows.device())?;
        Ok(self.rows.f_index_select(0, &index)?)
    }

    /// Estimates of the gradient of the mean negative log-likelihood of a batch by mean and scale `[30]`.
    pub fn estimate(
        &self,
        method: Method,
        order: i64,
        batch: &Tensor,
        (mean, scale): (&Tensor, &Tensor),
        noise: &mut dyn Noise,
    ) -> Result<Estimate> {
        let p = Laplace::new(mean, scale)?;
        let law = Law { series: &p, weak: None, measures: Some(&p) };
        let n = batch.size()[0] as f64;
        let columns = batch.f_tr()?;
        // Lemma 3 with an affine g: no kinks
        let inner = |w: &Tensor| Ok((w.f_matmul(&columns)?, batch.shallow_clone()));
        let outer = |g: &Tensor| Ok(g.f_log_sigmoid()? / -n);
        let formula = |g: &Tensor, order| {
            let all = log_sigmoid_derivatives(g, order)?;
            Ok(all.into_iter().map(|t| t / -n).collect())
        };
        let f = Objective::Composite { inner: &inner, outer: Outer::Known(&outer, &formula) };
        estimate(method, Sum::Truncated(order), self.caution, &law, &f, self.samples, noise)
    }

    /// The regulariser of the objective: a scalar, differentiable.
    pub fn divergence(&self, mean: &Tensor, scale: &Tensor) -> Result<Tensor> {
        Ok(kl_to_standard(mean, scale)? * self.weight)
    }

    /// Evidence lower bound per data point over the whole set, from `samples` draws; and the share of the rows that the mean
    /// weights classify right.
    pub fn evaluate(&self, mean: &Tensor, scale: &Tensor, samples: i64, noise: &mut dyn Noise) -> Result<(f64, f64)> {
        let _guard = tch::no_grad_guard();
        let w = Laplace::new(mean, scale)?.sample(samples, noise)?;
        let likelihood = w.f_matmul(&self.rows.f_tr()?)?.f_log_sigmoid()?.f_mean(Kind::Double)?;
        let elbo = likelihood.f_double_value(&[])? - self.divergence(mean, scale)?.f_double_value(&[])?;
        let right = self.rows.f_mv(&mean.detach())?.f_gt(0.0)?.f_to_kind(Kind::Double)?.f_mean(Kind::Double)?;
        Ok((elbo, right.f_double_value(&[])?))
    }
}
