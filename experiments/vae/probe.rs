//! Accuracy of every estimator along one training trajectory (Liu et al. 2023, Fig. 4): the gradient of the
//! reconstruction term in the logits of one image, against enumeration.
use crate::args::Config;
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use thruway::error::Result;
use thruway::estimators::{Built, Estimator, Knobs, Takes, Tau};
use thruway::exact;
use thruway::nn::CategoricalVae;
use thruway::probe::{Accuracy, accuracy, stream};

/// One estimator at one point of the trajectory.
pub struct Row {
    estimator: Estimator,
    tau: Option<f64>,
    accuracy: Accuracy,
}

impl Row {
    /// For metrics.jsonl.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let id = Estimator::ALL.iter().position(|e| *e == self.estimator).expect("it is registered");
        let a = &self.accuracy;
        vec![("probe_estimator", id as f64), ("probe_bias", a.bias), ("probe_std", a.std), ("probe_cosine", a.cosine)]
    }

    /// For the summary.
    pub fn json(&self, epoch: i64, step: i64) -> Value {
        let a = &self.accuracy;
        json!({
            "estimator": self.estimator, "tau": self.tau, "epoch": epoch, "step": step, "bias": a.bias, "std": a.std,
            "cosine": a.cosine, "rmse": a.rmse, "draws": a.draws,
        })
    }
}

/// All estimators at tau = 1, and the run's own at its temperature; the first image of the batch `x` `[B, 784]`.
pub fn measure(model: &CategoricalVae, x: &Tensor, config: &Config, seed: i64, step: i64) -> Result<Vec<Row>> {
    let x = x.f_narrow(0, 0, 1)?;
    let logits = {
        let _guard = tch::no_grad_guard();
        model.encode(&x)?
    };
    let leaf = logits.copy().set_requires_grad(true);
    let expected = exact::expectation_of_table(&leaf, &model.bce_table(&x)?)?.f_sum(Kind::Float)?;
    let truth = Tensor::f_run_backward(&[expected], &[&leaf], false, false)?.remove(0).f_squeeze_dim(0)?;
    let f = |d: &Tensor| model.bce_rows(d, &x);
    let mut rows = vec![];
    for &estimator in Estimator::ALL {
        // the drop-ins of the figure, and the run's own
        let drop_in = estimator.claims().variables == Takes::Both
            && matches!(estimator.build(&Knobs::default())?, Built::DropIn(_));
        if estimator == Estimator::Exact || !(drop_in || estimator == config.estimator) {
            continue;
        }
        let takes_tau = estimator.claims().knobs.contains(&"tau");
        let own = config.tau.as_deref().and_then(|t| t.parse::<f64>().ok());
        let mut taus = vec![takes_tau.then_some(1.0)];
        if estimator == config.estimator && takes_tau && own.is_some_and(|t| t != 1.0) {
            taus.push(own);
        }
        for tau in taus {
            let knobs = Knobs { tau: tau.map(Tau::Constant), ..Knobs::default() };
            let mut noise = stream(seed, step);
            let accuracy = accuracy(estimator, &knobs, &logits, &f, &truth, config.probe_draws, &mut noise)?;
            rows.push(Row { estimator, tau, accuracy });
        }
    }
    Ok(rows)
}
