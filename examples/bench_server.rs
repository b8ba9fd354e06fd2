//! The crate's side of `make bench`: answers JSON lines on stdin with timings, so that a driver can alternate blocks with
//! PyTorch's in one run. See `benches/compare.py`.
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::time::Instant;
use tch::{Device, Kind, Reduction, Tensor};
use thruway::data::listops::{Batch, Example, LIMIT, Units, bucket, generate, shorter_than};
use thruway::estimators::{Built, DropIn, Estimator, Knobs, Tau};
use thruway::nas::{CELLS, Cell};
use thruway::nn::loss::number;
use thruway::nn::search_net::{self, Activation, SearchNet};
use thruway::nn::tree_lstm::{Choice, Sizes, TreeLstm};
use thruway::nn::vae::{self, CategoricalVae, PIXELS};
use thruway::noise::TorchNoise;
use thruway::optim::{Adam, Method, Settings, Sgd, clip_grad_norm, sgd};

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
        let model = CategoricalVae::new(l.parse()?, k.parse()?, vae::Activation::Relu, Device::Cpu)?;
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

/// The tree-LSTM in training on a few batches of generated expressions.
struct Parsing {
    model: TreeLstm,
    optimizer: Adam,
    estimator: Box<dyn DropIn>,
    batches: Vec<Batch>,
    next: usize,
}

impl Parsing {
    /// Writes the fresh parameters to the file that the request names, and answers with batches and greedy scores.
    fn new(request: &Value) -> Result<(Parsing, Value)> {
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_string();
        let units = if text("units") == "chars" { Units::Chars } else { Units::Tokens };
        let n = request["batches"].as_u64().unwrap_or(30) as usize;
        let set = shorter_than(&generate(0, 20_000, &[]), LIMIT);
        let lengths: Vec<usize> = set.iter().map(|e| units.encode(&e.expression).len()).collect();
        let items: Vec<i64> = (0..set.len() as i64).collect();
        // spread over the lengths as an epoch's batches are
        let whole = set.len() / 16;
        let shuffled: Vec<i64> = (0..whole as i64).map(|b| b * 389 % whole as i64).collect();
        let order = bucket(&items, &lengths, 16, &shuffled);
        let batches = order.chunks(16).take(n).map(|rows| {
            let examples: Vec<&Example> = rows.iter().map(|&i| &set[i as usize]).collect();
            Batch::new(&examples, units, Device::Cpu)
        });
        let batches = batches.collect::<thruway::Result<Vec<_>>>()?;
        let model = TreeLstm::new(Sizes::published(units.vocabulary()), Device::Cpu)?;
        let named: Vec<(&str, Tensor)> = model.params().iter().map(|(n, t)| (n, t.detach())).collect();
        Tensor::write_safetensors(&named, text("model"))?;
        let settings = Settings { lr: request["lr"].as_f64().unwrap_or(7e-4), ..Settings::default() };
        let optimizer = Adam::new(Method::RAdam, settings, model.params().iter())?;
        let estimator = build(&text("estimator"), request["tau"].as_f64(), None)?.drop_in()?;
        let logits = model.forward(&batches[0].ids, &batches[0].lengths, &mut Choice::Greedy, false)?.logits;
        let plain = |b: &Batch| -> Result<Value> {
            let width = b.ids.size()[1] as usize;
            let ids = Vec::<i64>::try_from(b.ids.view([-1]))?;
            let rows: Vec<&[i64]> = ids.chunks(width).collect();
            Ok(json!({ "ids": rows, "lengths": b.lengths, "labels": Vec::<i64>::try_from(&b.labels)? }))
        };
        let scores = Vec::<f32>::try_from(logits.view([-1]))?;
        let scores: Vec<&[f32]> = scores.chunks(10).collect();
        let answer = json!({
            "batches": batches.iter().map(plain).collect::<Result<Vec<_>>>()?,
            "logits": scores,
        });
        Ok((Parsing { model, optimizer, estimator, batches, next: 0 }, answer))
    }

    fn step(&mut self) -> Result<f64> {
        let batch = &self.batches[self.next % self.batches.len()];
        self.next += 1;
        let mut choice = Choice::Drawn(&*self.estimator, &mut TorchNoise);
        let logits = self.model.forward(&batch.ids, &batch.lengths, &mut choice, true)?.logits;
        let loss = logits.f_cross_entropy_loss(&batch.labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
        self.optimizer.zero_grad();
        loss.f_backward()?;
        clip_grad_norm(self.model.params().iter().map(|(_, t)| t), 5.0)?;
        self.optimizer.step()?;
        Ok(number(&loss))
    }
}

/// An architecture search on one batch.
struct Searching {
    net: SearchNet,
    alphas: Tensor,
    optimizers: (Sgd, Adam),
    estimator: Box<dyn DropIn>,
    activation: Activation,
    images: Tensor,
    labels: Tensor,
    /// Cells drawn so far.
    count: usize,
}

impl Searching {
    /// Writes the fresh parameters and the batch to the file that the request names, and answers with the scores of one cell
    /// and their gradient in its weights.
    fn new(request: &Value) -> Result<(Searching, Value)> {
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_string();
        let number_of = |key: &str| request[key].as_i64().unwrap_or(1);
        let sizes = search_net::Sizes { channels: number_of("channels"), cells: number_of("cells"), classes: 10 };
        let activation: Activation = serde_json::from_value(request["activation"].clone())?;
        let net = SearchNet::search(sizes, Device::Cpu)?;
        let b = number_of("batch");
        let images = Tensor::randn([b, 3, 32, 32], (Kind::Float, Device::Cpu));
        let labels = Tensor::randint(10, [b], (Kind::Int64, Device::Cpu));
        let alphas = (Tensor::randn([6, 5], (Kind::Float, Device::Cpu)) * 1e-3).set_requires_grad(true);
        let mut named: Vec<(&str, Tensor)> =
            net.params().iter().chain(net.buffers()).map(|(n, t)| (n, t.detach())).collect();
        named.extend([
            ("alphas", alphas.detach()),
            ("images", images.shallow_clone()),
            ("labels", labels.shallow_clone()),
        ]);
        Tensor::write_safetensors(&named, text("model"))?;
        let cell = Cell::from_code(9342).expect("a code");
        let w = Tensor::from_slice(&cell.0.map(|op| op as i64)).one_hot(5).to_kind(Kind::Float).set_requires_grad(true);
        let logits = net.forward(&images, search_net::Choice::Drawn(&w, activation), true)?;
        let loss = logits.f_cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?;
        let gradient = Tensor::f_run_backward(&[&loss], &[&w], false, false)?.remove(0);
        let rows = |t: &Tensor, n: usize| -> Result<Value> {
            let all = Vec::<f32>::try_from(t.detach().contiguous().view([-1]))?;
            Ok(json!(all.chunks(n).collect::<Vec<_>>()))
        };
        let answer = json!({ "logits": rows(&logits, 10)?, "gradient": rows(&gradient, 5)? });
        let weights = sgd::Settings { weight_decay: 5e-4, ..sgd::Settings::nesterov(0.025) };
        let architecture = Settings { lr: 3e-4, betas: (0.5, 0.999), weight_decay: 1e-3, ..Settings::default() };
        let optimizers =
            (Sgd::new(weights, net.params().iter())?, Adam::new(Method::Adam, architecture, [("alphas", &alphas)])?);
        let estimator = build(&text("estimator"), request["tau"].as_f64(), None)?.drop_in()?;
        Ok((Searching { net, alphas, optimizers, estimator, activation, images, labels, count: 0 }, answer))
    }

    /// Logits so far apart that the cell drawn next is the one that the other side draws.
    fn next_cell(&mut self) -> Result<()> {
        let cell = Cell::from_code((7919 * self.count + 4321) % CELLS).expect("a code");
        self.count += 1;
        let _guard = tch::no_grad_guard();
        let logits = Tensor::from_slice(&cell.0.map(|op| op as i64)).f_one_hot(5)?.f_to_kind(Kind::Float)? * 50.0;
        self.alphas.f_copy_(&logits)?;
        Ok(())
    }

    /// As `nas` steps.
    fn step(&mut self) -> Result<f64> {
        self.next_cell()?;
        let (net, images, labels) = (&self.net, self.images.shallow_clone(), self.labels.shallow_clone());
        let loss = |net: &SearchNet, choice: search_net::Choice| -> Result<Tensor> {
            let scores = net.forward(&images, choice, true)?;
            Ok(scores.f_cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
        };
        let index = tch::no_grad(|| self.estimator.draw(&self.alphas, None, &mut TorchNoise))?.index;
        let of_weights = loss(net, search_net::Choice::Cell(&Cell::from_classes(&Vec::<i64>::try_from(index)?)?))?;
        self.optimizers.0.zero_grad();
        of_weights.f_backward()?;
        self.optimizers.0.step()?;
        self.next_cell()?;
        let drawn = self.estimator.draw(&self.alphas, None, &mut TorchNoise)?.value;
        let of_choice = loss(&self.net, search_net::Choice::Drawn(&drawn, self.activation))?;
        self.optimizers.1.zero_grad();
        if search_net::backward(&of_choice, &self.alphas)? {
            self.optimizers.1.step()?;
        }
        Ok(number(&of_weights) + number(&of_choice))
    }
}

fn timed(steps: Option<i64>, mut step: impl FnMut() -> Result<f64>) -> Result<Value> {
    let mut ms = vec![];
    for _ in 0..steps.unwrap_or(100) {
        let start = Instant::now();
        step()?;
        ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(json!({ "ms_per_step": ms }))
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
    let mut parsing: Option<Parsing> = None;
    let mut searching: Option<Searching> = None;
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
                timed(request["steps"].as_i64(), || training.step())?
            }
            "listops_data" => {
                let (made, answer) = Parsing::new(&request)?;
                parsing = Some(made);
                answer
            }
            "listops_block" => {
                let Some(parsing) = &mut parsing else { bail!("listops_data comes first") };
                timed(request["steps"].as_i64(), || parsing.step())?
            }
            "nas_data" => {
                let (made, answer) = Searching::new(&request)?;
                searching = Some(made);
                answer
            }
            "nas_block" => {
                let Some(searching) = &mut searching else { bail!("nas_data comes first") };
                timed(request["steps"].as_i64(), || searching.step())?
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
