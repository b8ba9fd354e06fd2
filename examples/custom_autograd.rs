//! Two operations with gradients of their own: `cargo run --release --example custom_autograd`.
//!
//! 1. A straight-through sign: the forward is a step, whose true derivative is zero almost everywhere; the backward passes
//!    the gradient on where |x| <= 1 (Hubara et al. 2016, "hard tanh"). Checked against the same thing from plain tch ops.
//! 2. A fused Gaussian log-density, `-(x - mu)^2 / (2 s^2) - ln s` with `s = exp(log_s)`, three inputs, one of which often
//!    needs no gradient; it saves one intermediate instead of the five that plain operations would keep. Checked against
//!    plain operations and against central differences.
use tch::{Device, Kind, Tensor};
use thruway::autograd::Function;

/// sign(x) in {-1, +1}, with the gradient of clamp(x, -1, 1).
fn sign_straight_through(x: &Tensor) -> thruway::Result<Tensor> {
    let mut out = Function::new("SignStraightThrough").inputs(&[x]).save(&[x]).apply(
        || Ok(vec![x.f_ge(0.)?.f_to_kind(x.kind())? * 2. - 1.]),
        |b| {
            let pass = b.saved()[0].f_abs()?.f_le(1.)?;
            Ok(vec![Some(b.grad(0)? * pass)])
        },
    )?;
    Ok(out.remove(0))
}

/// Elementwise `-(x - mu)^2 / (2 s^2) - ln s`; all three of one shape.
fn gaussian_log_density(x: &Tensor, mu: &Tensor, log_s: &Tensor) -> thruway::Result<Tensor> {
    // An intermediate that the backward wants: made beforehand, without a graph, and saved.
    let inverse_s = tch::no_grad(|| (-log_s).exp());
    let z = tch::no_grad(|| (x - mu) * &inverse_s);
    let mut out = Function::new("GaussianLogDensity").inputs(&[x, mu, log_s]).save(&[&z, &inverse_s]).apply(
        || Ok(vec![z.f_square()? * -0.5 - log_s]),
        |b| {
            let (g, z, inverse_s) = (b.grad(0)?, &b.saved()[0], &b.saved()[1]);
            let by_mu = g * z * inverse_s;
            Ok(vec![
                b.needs()[0].then(|| -&by_mu),
                b.needs()[1].then(|| by_mu.shallow_clone()),
                b.needs()[2].then(|| g * (z.square() - 1.)),
            ])
        },
    )?;
    Ok(out.remove(0))
}

fn gradients(loss: &Tensor, of: &[&Tensor]) -> anyhow::Result<Vec<Vec<f64>>> {
    let grads = Tensor::f_run_backward(&[loss.f_sum(Kind::Double)?], of, false, false)?;
    grads.iter().map(|g| Ok(Vec::try_from(g)?)).collect()
}

/// Largest difference between two lists of numbers.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0., f64::max)
}

fn main() -> anyhow::Result<()> {
    tch::manual_seed(1);
    let leaf = || Tensor::randn([4], (Kind::Double, Device::Cpu)).set_requires_grad(true);

    let x = Tensor::from_slice(&[-1.5f64, -0.3, 0.4, 2.]).set_requires_grad(true);
    let weight = Tensor::from_slice(&[1f64, 2., 3., 4.]);
    let signs = sign_straight_through(&x)?;
    let ours = &gradients(&(&signs * &weight), &[&x])?[0];
    let soft = x.clamp(-1., 1.);
    let plain = &gradients(&((signs.detach() + (&soft - soft.detach())) * &weight), &[&x])?[0];
    println!("x                     {:.4?}", Vec::<f64>::try_from(&x)?);
    println!("straight-through sign {:.4?}", Vec::<f64>::try_from(&signs)?);
    println!("its gradient          {ours:.4?}");
    println!("... by plain ops      {plain:.4?}");
    anyhow::ensure!(ours == plain, "the two gradients differ");

    let (mu, log_s) = (leaf(), leaf());
    let value = |x: &Tensor, mu: &Tensor, log_s: &Tensor| {
        ((x - mu).square() * (log_s * -2.).exp() * -0.5 - log_s).sum(Kind::Double)
    };
    let ours = gradients(&gaussian_log_density(&x, &mu, &log_s)?, &[&x, &mu, &log_s])?;
    let plain = gradients(&value(&x, &mu, &log_s), &[&x, &mu, &log_s])?;
    println!("\nGaussian log-density");
    for (k, name) in ["x", "mu", "log_s"].iter().enumerate() {
        let mut numeric = Vec::new();
        for i in 0..4 {
            let h = 1e-5; // error of a central difference: h^2 from the formula, 1e-16 / h from rounding
            let at = |step: f64| {
                let moved: Vec<Tensor> = [&x, &mu, &log_s].iter().map(|t| t.detach().copy()).collect();
                let _ = moved[k].get(i).g_add_scalar_(step);
                value(&moved[0], &moved[1], &moved[2]).double_value(&[])
            };
            numeric.push((at(h) - at(-h)) / (2. * h));
        }
        let (to_plain, to_numeric) = (distance(&ours[k], &plain[k]), distance(&ours[k], &numeric));
        println!("d/d{name:5} {:.4?}", ours[k]);
        println!("         off plain ops by {to_plain:.1e}, off central differences by {to_numeric:.1e}");
        // 1e-12: rounding of float64 in values up to some hundreds; 1e-6: the difference quotient's own error.
        anyhow::ensure!(to_plain < 1e-12 && to_numeric < 1e-6, "d/d{name} is wrong");
    }

    // A mistake in a backward is an error on the caller's side, with the function's name.
    let broken = Function::new("Broken").inputs(&[&x]).apply(|| Ok(vec![x.exp()]), |_| Ok(vec![]))?.remove(0);
    if let Err(e) = broken.sum(Kind::Double).f_backward() {
        println!("\na backward that forgets its gradient: {e}");
    }
    Ok(())
}
