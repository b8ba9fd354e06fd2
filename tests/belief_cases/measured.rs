//! What `sbn-vae` measures beside training: variances of gradients that are known.
use crate::measure::{log_variance, log_variance_by_moments};
use crate::{PIXELS, build, images, tiny};
use tch::{Kind, Tensor};
use thruway::estimators::{Built, Estimator, GradEstimator};
use thruway::nn::Elbo;
use thruway::nn::elbo::Kl;
use thruway::noise::TorchNoise;

/// Gradients of 1, 2, 4 and 8 in the encoder, a hundred times as much elsewhere: the sample variance of the former is 115/12.
#[test]
fn the_variance_of_gradients_is_that_of_the_encoder_and_unbiased() {
    let net = tiny(&[3], None, 1);
    let mut size = 0.5;
    let gradient = || {
        size *= 2.0;
        for (name, p) in net.params().iter() {
            let mut p = p.shallow_clone();
            p.zero_grad();
            let factor = if name.starts_with("encoder.") { size } else { 100.0 * size };
            (p * factor).sum(Kind::Float).backward();
        }
        Ok(())
    };
    let got = log_variance(&net, &[], 4, gradient).unwrap().unwrap();
    assert!((got - (115.0f64 / 12.0).ln()).abs() < 1e-9, "{got}");
    assert_eq!(log_variance(&net, &[], 0, || Ok(())).unwrap(), None);
}

/// The moving averages of a baseline go on through the draws, and are put back.
#[test]
fn measuring_the_variance_leaves_the_estimators_as_they_were() {
    let net = tiny(&[3], None, 0);
    let layers = build(Estimator::Nvil, &net, None);
    let x = images(1).expand([8, PIXELS], false).contiguous();
    let state = |all: &[Built]| -> Vec<Tensor> {
        all.iter().flat_map(|e| e.buffers().into_iter().chain(e.parameters())).map(|(_, t)| t.copy()).collect()
    };
    let before = state(&layers);
    let gradient = || {
        for (_, p) in net.params().iter() {
            p.shallow_clone().zero_grad();
        }
        let elbo = Elbo::new(&net, &x, Kl::Sampled)?;
        elbo.surrogate_loss(&layers, 1, &mut TorchNoise)?.mean(Kind::Float).backward();
        Ok(())
    };
    gradient().unwrap();
    let moved = state(&layers);
    assert!(before.iter().zip(&moved).any(|(a, b)| a != b), "a step moves them");
    assert!(log_variance(&net, &layers, 3, gradient).unwrap().unwrap().is_finite());
    assert!(moved.iter().zip(&state(&layers)).all(|(a, b)| a == b), "measuring does not");
}

/// Moments of Adam after two steps with the gradients g and 3 g.
#[test]
fn the_variance_by_moments_is_that_of_its_formula() {
    let (b1, b2, g) = (0.9, 0.999, 0.5);
    let m = (1.0 - b1) * (b1 * g + 3.0 * g);
    let v = (1.0 - b2) * (b2 * g * g + 9.0 * g * g);
    let steps = 2i64;
    let state: Vec<(String, Tensor)> = {
        let of = |v: f64, n: i64| Tensor::full([n], v, (Kind::Double, tch::Device::Cpu));
        vec![
            ("encoder.a.exp_avg".into(), of(m, 3)),
            ("encoder.a.exp_avg_sq".into(), of(v, 3)),
            ("encoder.a.step".into(), Tensor::from_slice(&[steps])),
            ("decoder.a.exp_avg".into(), of(0.0, 5)),
            ("decoder.a.exp_avg_sq".into(), of(7.0, 5)),
            ("decoder.a.step".into(), Tensor::from_slice(&[steps])),
        ]
    };
    // sums of (0.9, 1) and (0.999, 1) take the decay out again
    let want = (g * g * ((b2 + 9.0) / (b2 + 1.0) - ((b1 + 3.0f64) / (b1 + 1.0)).powi(2))).ln();
    let got = log_variance_by_moments(&state, (b1, b2)).unwrap().unwrap();
    assert!((got - want).abs() < 1e-9, "{got} {want}");
    // after one step, moments that rounding has set apart: the squares of 0.5 and a little more
    let once = |name: &str, v: f64| (format!("encoder.a.{name}"), Tensor::from_slice(&[v]));
    let apart = vec![
        once("exp_avg", (1.0 - b1) * 0.5),
        once("exp_avg_sq", (1.0 - b2) * 0.2501),
        ("encoder.a.step".into(), Tensor::from_slice(&[1i64])),
    ];
    assert_eq!(log_variance_by_moments(&apart, (b1, b2)).unwrap(), None, "one gradient has no spread");
    assert_eq!(log_variance_by_moments(&[], (b1, b2)).unwrap(), None);
}
