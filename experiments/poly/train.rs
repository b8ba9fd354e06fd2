//! The run.
use crate::args::{Args, Config, EPOCH};
use crate::problem::Problem;
use serde_json::Map;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};
use thruway::dist::categorical::Point;
use thruway::error::{Error, Result};
use thruway::estimators::{Built, Estimator, GradEstimator, Takes, Tau};
use thruway::nn::loss::number;
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Settings};
use thruway::run::{Checkpoint, Run, seeding};

/// Where a run stands between two steps; with the tensors, all that a resumed run needs.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    step: i64,
    /// Of the sampled losses of the epoch so far.
    sum: f64,
    /// Mean sampled loss over the last finished epoch, or over the steps of one cut short by the end of the run.
    train_loss: Option<f64>,
}

/// What the logits mean, exactly.
struct Exactly {
    expected_loss: f64,
    mean_p_one: f64,
}

/// The whole run.
pub fn run(args: Args) -> Result<()> {
    let (config, knobs) = Config::new(&args)?;
    let mut estimator = config.estimator.build(&knobs)?;
    let device = args.run.prepare()?;
    let problem = Problem::new(config.power, config.target, config.latent_dim, device)?;
    let mut theta = start(config.latent_dim, device)?;
    let settings = Settings { lr: config.lr, ..Settings::default() };
    let mut optimizer = Adam::new(config.optimizer, settings, [("theta", &theta)])?;
    let default_out: PathBuf =
        ["runs", "poly", &place(&config), &config.estimator.name(), &args.run.seed.to_string()].iter().collect();
    let (mut run, checkpoint) = Run::open("poly", &args.run, default_out, serde_json::to_value(&config)?)?;
    run.expect_steps(config.steps);
    let mut at = Progress::default();
    if let Some(c) = checkpoint {
        tch::no_grad(|| theta.f_copy_(c.tensor("theta")?).map(drop).map_err(Error::from))?;
        optimizer.restore(|n| c.tensor(&format!("optimizer.{n}")).ok().map(Tensor::shallow_clone))?;
        seeding::restore(device, &c)?;
        at = run.state(&c)?;
    }
    let optimum = problem.optimum()?;

    while at.step < config.steps {
        estimator.at_step(at.step);
        let loss = sampled_loss(&problem, &estimator, &config, &theta)?;
        optimizer.zero_grad();
        loss.f_backward()?;
        optimizer.step()?;
        at.step += 1;
        let loss = number(&loss);
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: at.step, value: loss });
        }
        at.sum += loss;
        run.step_done(at.step, loss);
        let in_epoch = (at.step - 1) % EPOCH + 1;
        let end_of_epoch = in_epoch == EPOCH || at.step == config.steps;
        if end_of_epoch || at.step % args.run.log_every == 0 {
            run.pause();
            let e = exactly(&problem, &theta)?;
            let mut metrics = vec![
                ("loss", loss),
                ("expected_loss", e.expected_loss),
                ("distance", e.expected_loss - optimum),
                ("mean_p_one", e.mean_p_one),
            ];
            if end_of_epoch {
                let mean = at.sum / in_epoch as f64;
                (at.train_loss, at.sum) = (Some(mean), 0.0);
                metrics.push(("train_loss", mean));
            }
            run.log(at.step, (at.step - 1) / EPOCH + 1, &metrics)?;
            run.resume_clock();
        }
        if at.step < config.steps && (run.checkpoint_due(at.step) || run.interrupted()) {
            run.save(at.step, at.step / EPOCH, &at.checkpoint(&theta, &optimizer, device)?)?;
            if run.interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    let epochs = at.step / EPOCH;
    run.save(at.step, epochs, &at.checkpoint(&theta, &optimizer, device)?)?;
    let e = exactly(&problem, &theta)?;
    let constant = match knobs.tau {
        Some(Tau::Constant(tau)) => Some(Some(tau)),
        None => Some(None),
        Some(_) => None,
    };
    let predicted = match constant {
        Some(tau) => problem.fixed_point(config.estimator, tau, knobs.gap)?,
        None => None,
    };
    let metrics = [
        ("expected_loss", Some(e.expected_loss)),
        ("optimum", Some(optimum)),
        ("distance", Some(e.expected_loss - optimum)),
        ("fixed_point", predicted),
        ("mean_p_one", Some(e.mean_p_one)),
        ("train_loss", at.train_loss),
    ];
    let metrics: Map<_, _> = metrics.into_iter().filter_map(|(n, v)| Some((n.to_string(), v?.into()))).collect();
    run.finish(at.step, epochs, metrics)?;
    Ok(())
}

/// Logits `[L, 2]`, uniform on (-0.01, 0.01), drawn on the CPU for every device, as the first draw after the seed.
fn start(latents: i64, device: Device) -> Result<Tensor> {
    let theta = Tensor::f_empty([latents, 2], (Kind::Float, Device::Cpu))?.f_uniform_(-0.01, 0.01)?;
    Ok(theta.f_to_device(device)?.f_set_requires_grad(true)?)
}

/// The objective at a batch of samples: a scalar with the estimator's gradient. The estimator sees
/// `[B, L, 2]`, or `[B, L]` if it is made for Boolean variables.
fn sampled_loss(problem: &Problem, estimator: &Built, config: &Config, theta: &Tensor) -> Result<Tensor> {
    let size = [config.batch_size, config.latent_dim, 2];
    let batch = theta.f_unsqueeze(0)?.f_expand(size, false)?;
    let mean = |losses: Tensor| losses.f_sum(losses.kind())?.f_div_scalar(config.batch_size);
    if config.estimator == Estimator::Exact {
        // What enumerating 2^L codes would give; the value is that of a draw, as for the others.
        let point = Point::draw(&batch, None, &mut TorchNoise)?;
        let expected = problem.expected_loss(&Problem::probability_of_one(theta)?)?;
        return Ok(mean(problem.losses(&point.hard)?)? + (&expected - expected.detach()));
    }
    if config.estimator.claims().variables == Takes::Boolean {
        let difference = batch.f_select(-1, 0)? - batch.f_select(-1, 1)?; // the logit of X_l = 1
        let losses = |z: &Tensor| match config.scale {
            Some(scale) => problem.losses_of(&(z / scale)),
            None => problem.losses_of(z),
        };
        return Ok(mean(estimator.surrogate_loss(&difference, &losses, &mut TorchNoise)?)?);
    }
    Ok(mean(estimator.surrogate_loss(&batch, &|d: &Tensor| problem.losses(d), &mut TorchNoise)?)?)
}

fn exactly(problem: &Problem, theta: &Tensor) -> Result<Exactly> {
    let _guard = tch::no_grad_guard();
    let one = Problem::probability_of_one(theta)?;
    Ok(Exactly { expected_loss: number(&problem.expected_loss(&one)?), mean_p_one: number(&one.f_mean(Kind::Double)?) })
}

/// Folder of the runs of one problem, as in `p2-a-128`.
fn place(config: &Config) -> String {
    let target = format!("{:?}", config.target).to_lowercase();
    format!("p{}-{target}-{}", config.power, config.latent_dim)
}

impl Progress {
    /// All that a resumed run needs: logits, moments, generators.
    fn checkpoint(&self, theta: &Tensor, optimizer: &Adam, device: Device) -> Result<Checkpoint> {
        let mut tensors = vec![("theta".to_string(), theta.detach())];
        tensors.extend(optimizer.state().into_iter().map(|(n, t)| (format!("optimizer.{n}"), t)));
        let mut checkpoint = Checkpoint { tensors, state: serde_json::to_value(self)? };
        seeding::capture(device, &mut checkpoint)?;
        Ok(checkpoint)
    }
}
