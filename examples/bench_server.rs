//! The crate's side of `make bench`: answers JSON lines on stdin with timings, so that a driver can alternate blocks with
//! PyTorch's in one run. See `benches/compare.py`.
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use thruway::estimators::{Built, Estimator, Knobs, Tau};
use thruway::nn::loss::number;
use thruway::nn::vae::{Activation, CategoricalVae, PIXELS};
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Method, Settings};

/// A model in training, kept between blocks.
struct Training {
    model: CategoricalVae,
    optimizer: Adam,
    estimator: Built,
    images: Tensor,
    next: i64,
}

impl Training {
    fn new(preset: &str, estimator: &str, optimizer: &str, tau: Option<f64>) -> Result<Training> {
        let Some((k, l)) = preset.split_once('x') else { bail!("preset {preset:?}: expected KxL") };
        let model = CategoricalVae::new(l.parse()?, k.parse()?, Activation::Relu, Device::Cpu)?;
        let method = if optimizer == "radam" { Method::RAdam } else { Method::Adam };
        let optimizer = Adam::new(method, Settings { lr: 5e-4, ..Settings::default() }, model.params().iter())?;
        let images = Tensor::rand([1000, PIXELS], (Kind::Float, Device::Cpu));
        Ok(Training { model, optimizer, estimator: build(estimator, tau, None)?, images, next: 0 })
    }

    fn step(&mut self) -> Result<f64> {
        let x = self.images.narrow(0, self.next * 100, 100);
        self.next = (self.next + 1) % 10;
        let logits = self.model.encode(&x)?;
        let Built::DropIn(e) = &self.estimator else { bail!("a drop-in is timed here") };
        let s = e.draw(&logits, None, &mut TorchNoise)?;
        let (bce, kl) = (self.model.bce(&s.value, &x)?, self.model.kl(&s.probs)?);
        self.optimizer.zero_grad();
        (&bce + &kl).f_backward()?;
        self.optimizer.step()?;
        Ok(number(&bce) + number(&kl))
    }
}

fn build(name: &str, tau: Option<f64>, samples: Option<i64>) -> Result<Built> {
    let estimator = Estimator::by_name(name)?;
    let takes = |knob| estimator.claims().knobs.contains(&knob);
    let tau = tau.filter(|_| takes("tau")).map(Tau::Constant);
    let samples = samples.filter(|_| takes("samples"));
    Ok(estimator.build(&Knobs { tau, samples, ..Knobs::default() })?)
}

fn estimator_block(request: &Value) -> Result<Value> {
    let text = |key: &str| request[key].as_str().unwrap_or_default().to_string();
    let shape: Vec<i64> = serde_json::from_value(request["shape"].clone())?;
    let built = build(&text("estimator"), request["tau"].as_f64(), request["samples"].as_i64())?;
    let logits = Tensor::randn(&shape[..], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let upstream = Tensor::randn(&shape[..], (Kind::Float, Device::Cpu));
    let mut us = vec![];
    let before = resident();
    let mut peak = before;
    for _ in 0..request["iters"].as_i64().unwrap_or(10) {
        let start = Instant::now();
        match &built {
            // the gradient handed in, as y.backward(upstream) does
            Built::DropIn(e) => {
                let s = e.draw(&logits, None, &mut TorchNoise)?;
                let g = Tensor::f_run_backward(&[(&s.value * &upstream).sum(Kind::Float)], &[&logits], false, false)?;
                std::hint::black_box(g);
            }
            _ => bail!("a drop-in is timed here"),
        }
        us.push(start.elapsed().as_secs_f64() * 1e6);
        peak = peak.max(high_water());
    }
    Ok(json!({ "us": us, "extra_bytes": peak.saturating_sub(before) }))
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn resident() -> u64 {
    // writing 5 resets the high-water mark
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    status("VmRSS:")
}

fn high_water() -> u64 {
    status("VmHWM:")
}

fn main() -> Result<()> {
    let threads = std::env::var("OMP_NUM_THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(1);
    tch::set_num_threads(threads);
    tch::manual_seed(0);
    let mut kept: HashMap<String, Training> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_string();
        let answer = match text("cmd").as_str() {
            "vae_block" => {
                let (preset, estimator, optimizer) = (text("preset"), text("estimator"), text("optimizer"));
                let key = format!("{preset} {estimator} {optimizer}");
                if !kept.contains_key(&key) {
                    kept.insert(key.clone(), Training::new(&preset, &estimator, &optimizer, request["tau"].as_f64())?);
                }
                let training = kept.get_mut(&key).expect("just made");
                let mut ms = vec![];
                for _ in 0..request["steps"].as_i64().unwrap_or(100) {
                    let start = Instant::now();
                    training.step()?;
                    ms.push(start.elapsed().as_secs_f64() * 1e3);
                }
                json!({ "ms_per_step": ms })
            }
            "estimator_block" => estimator_block(&request)?,
            "quit" => break,
            other => bail!("unknown command {other:?}"),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
