//! The fixtures of stochastic binary networks: `psa-fixture-1` and `psa-555-1`.
#![allow(dead_code, missing_docs)]
use super::{distance, largest, tensor};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use thruway::kernels::delta::Backend;
use thruway::noise::{HostNoise, Tape};
use thruway::sbn::{Batch, Description, Draws, HeadGradient, Knobs, Loss, Method, Network, Objective, Rule, Spec};

/// Worst error and number of comparisons made.
#[derive(Default)]
pub struct Tally {
    pub cases: usize,
    pub worst: f64,
}

impl Tally {
    /// Relative to the largest entry or 1, the tolerance of the fixtures.
    fn compare(&mut self, what: &str, got: &Tensor, want: &Value) {
        let want = tensor(want);
        let error = distance(&got.detach().reshape_as(&want), &want) / largest(&want).max(1.0);
        assert!(error <= 1e-10, "{what}: off by {error:e}");
        self.cases += 1;
        self.worst = self.worst.max(error);
    }
}

/// Parameters by name, from `get("weight" | "bias", layer)`, the head counted as the layer after the last.
fn fill(network: &Network, get: impl Fn(&str, usize) -> Tensor) {
    let layers = network.layers().len();
    network
        .params()
        .load(|name| {
            let (place, what) = name.rsplit_once('.').unwrap();
            let k = place.strip_prefix("layers.").map_or(layers, |k| k.parse().unwrap());
            let shape = network.params().iter().find(|(n, _)| *n == name).unwrap().1.size();
            Some(get(what, k).reshape(shape))
        })
        .unwrap();
}

pub fn gradients(network: &Network, loss: &Loss) -> Vec<(String, Tensor)> {
    let all: Vec<_> = network.params().iter().collect();
    let tensors: Vec<&Tensor> = all.iter().map(|(_, t)| *t).collect();
    let total = loss.surrogate.mean(Kind::Double);
    let grads = Tensor::run_backward(&[total], &tensors, false, false);
    all.iter().map(|(n, _)| n.to_string()).zip(grads).collect()
}

pub fn network_of(v: &Value) -> Network {
    let shape = |v: &Value| -> Vec<i64> { v.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect() };
    let layers = v["layers"].as_array().unwrap();
    let specs = layers.iter().map(|l| {
        let w = shape(&l["weight_shape"]);
        match l["type"].as_str().unwrap() {
            "linear" => Spec::Linear { units: w[0] },
            _ => Spec::conv(w[0], w[2], l["stride"].as_i64().unwrap(), l["padding"].as_i64().unwrap()),
        }
    });
    let description = Description {
        input: tensor(&v["input"]).size()[1..].to_vec(),
        layers: specs.collect(),
        scores: v["classes"].as_i64().unwrap(),
        ..Description::default()
    };
    let network = Network::new(&description, Kind::Double, Device::Cpu).unwrap();
    fill(&network, |what, k| tensor(&layers.get(k).unwrap_or(&v["head"])[what]));
    network
}

fn check_network(v: &Value, tally: &mut Tally) {
    let name = v["name"].as_str().unwrap();
    let network = network_of(v);
    let (input, target) = (tensor(&v["input"]), tensor(&v["target"]).to_kind(Kind::Int64));
    let list = |v: &Value| -> Vec<Tensor> { v.as_array().unwrap().iter().map(tensor).collect() };
    let (states, noise) = (list(&v["states"]), list(&v["noise"]));
    let expected = &v["expected"];
    // the pass itself: pre-activations, and states from the noise
    let mut x = input.shallow_clone();
    for (k, layer) in network.layers().iter().enumerate() {
        let a = layer.preactivation(&x).unwrap();
        tally.compare(&format!("{name} preactivation {k}"), &a, &expected["preactivation"][k]);
        assert_eq!((a - &noise[k]).sign(), states[k], "{name}: states {k}");
        x = states[k].shallow_clone();
    }
    let mut gradient = |what: &str, loss: &Loss, want: &Value, head: &str| {
        for (name, g) in gradients(&network, loss) {
            let (place, kind) = name.rsplit_once('.').unwrap();
            let want = match place.strip_prefix("layers.") {
                Some(k) => &want[kind][k.parse::<usize>().unwrap()],
                None => &want[format!("head_{kind}{head}")],
            };
            tally.compare(&format!("{what}: {name}"), &g, want);
        }
    };
    let build = |m: Method, knobs: &Knobs| m.build(knobs).unwrap();
    let at = |rule: &dyn Rule| network.loss_at(&input, &target, rule, &states).unwrap();
    let (mut values, mut means) = (vec![], vec![]);
    for (m, key) in [(Method::St, "st"), (Method::HardSt, "hardst"), (Method::Reinforce, "reinforce")] {
        let loss = at(&*build(m, &Knobs::default()));
        gradient(&format!("{name} {key}"), &loss, &expected[key], "");
        values.push(loss.value);
    }
    for (head, suffix) in [(HeadGradient::Plain, ""), (HeadGradient::Enhanced, "_lemma_b2")] {
        for backend in [Backend::Auto, Backend::Exact] {
            let knobs = Knobs { head: Some(head), psa_backend: Some(backend), ..Knobs::default() };
            let loss = at(&*build(Method::Psa, &knobs));
            gradient(&format!("{name} psa {head:?} {backend:?}"), &loss, &expected["psa"], suffix);
            if head == HeadGradient::Plain {
                values.push(loss.value);
            }
        }
    }
    let tanh = network.loss_at(&input, &target, &*build(Method::Tanh, &Knobs::default()), &[]).unwrap();
    gradient(&format!("{name} tanh"), &tanh, &expected["tanh"], "");
    for (key, tau) in [("concrete_tau_1", 1.0), ("concrete_tau_0.5", 0.5)] {
        let mut tape = Tape::new(noise.iter().map(|z| ("logistic", z.shallow_clone())));
        let rule = build(Method::Concrete, &Knobs { tau: Some(tau), ..Knobs::default() });
        let loss = network.loss(&input, &target, &*rule, &mut tape).unwrap();
        tape.finish().unwrap();
        gradient(&format!("{name} {key}"), &loss, &expected[key], "");
        means.push((key, loss.value));
    }
    means.push(("tanh", tanh.value));
    for (key, value) in means {
        tally.compare(key, &value.mean(Kind::Double), &expected[key]["mean_loss"]);
    }
    for value in values {
        tally.compare(&format!("{name} loss"), &value, &expected["loss_per_sample"]);
        tally.compare(&format!("{name} mean"), &value.mean(Kind::Double), &expected["mean_loss"]);
    }
    let differences = network.head().differences(states.last().unwrap(), &target, network.objective()).unwrap();
    tally.compare(&format!("{name} df"), &differences, &expected["psa"]["grad_q"][states.len() - 1]);
    inner_gradients(name, &network, &input, &target, &states, expected, tally);
}

/// `dE/dq` of every layer under PSA and `dE/dx` under straight-through, from the gradients in the biases: at batch 1 that is
/// `x F'(a) dE/dq` and `2 F'(a) dE/dx`, summed over space.
fn inner_gradients(
    name: &str,
    network: &Network,
    input: &Tensor,
    target: &Tensor,
    states: &[Tensor],
    expected: &Value,
    tally: &mut Tally,
) {
    for (method, key) in [(Method::Psa, "psa"), (Method::St, "st")] {
        let rule = method.build(&Knobs::default()).unwrap();
        for b in 0..input.size()[0] {
            let one = |t: &Tensor| t.narrow(0, b, 1);
            let own: Vec<Tensor> = states.iter().map(one).collect();
            let loss = network.loss_at(&one(input), &one(target), &*rule, &own).unwrap();
            let found = gradients(network, &loss);
            for (k, layer) in network.layers().iter().enumerate() {
                let a = one(&tensor(&expected["preactivation"][k]));
                let pdf = network.noise().pdf(&a).unwrap();
                let (factor, inner) = match method {
                    Method::Psa => (pdf * &own[k], "grad_q"),
                    _ => (pdf * 2.0, "grad_x"),
                };
                let want = one(&tensor(&expected[key][inner][k])) * factor;
                let channels = layer.units()[0];
                let want = want.view([channels, -1]).sum_dim_intlist(-1, false, Kind::Double);
                let error = distance(&found[2 * k + 1].1, &want);
                assert!(error < 1e-10, "{name} {key} {inner} of layer {k}: off by {error:e}");
                tally.cases += 1;
            }
        }
    }
}

fn check_555(fixture: &Value, tally: &mut Tally) {
    let (x, y) = (tensor(&fixture["data"]["points"]), tensor(&fixture["data"]["label"]));
    for (name, checkpoint) in fixture["checkpoints"].as_object().unwrap() {
        let network = small_network(3);
        load_555(&network, &checkpoint["params_pm1"]);
        let per_point = network.exact_loss(&x, &y).unwrap();
        tally.compare(&format!("{name} per point"), &per_point, &checkpoint["expected_loss_per_point"]);
        tally.compare(name, &per_point.mean(Kind::Double), &checkpoint["expected_loss"]);
        let loss = Loss { value: per_point.detach(), scores: x.shallow_clone(), surrogate: per_point };
        let found = gradients(&network, &loss);
        for (i, (n, g)) in found.iter().enumerate() {
            let key = format!("{}{}", ["weight", "bias"][i % 2], i / 2 + 1);
            tally.compare(&format!("{name} {n}"), g, &checkpoint["gradient_pm1"][&key]);
            // 0/1 encoding: from the second layer on, dW_01 = (dW + db 1^T) / 2
            let zero_one = if i % 2 == 0 && i > 0 { (g + found[i + 1].1.unsqueeze(-1)) / 2.0 } else { g.copy() };
            tally.compare(&format!("{name} {n}, 0/1"), &zero_one, &checkpoint["gradient_01"][&key]);
        }
        let exact = Method::Exact.build(&Knobs::default()).unwrap();
        let batch = Batch { input: &x, target: &y, baseline: None };
        let mut noise = HostNoise::new(0);
        let loss = network.run(&batch, &*exact, &mut Draws::random(&mut noise)).unwrap();
        tally.compare(name, &loss.value, &checkpoint["expected_loss_per_point"]);
    }
}

/// The 5-unit network of the small problem with this many layers.
pub fn small_network(layers: usize) -> Network {
    let description = Description {
        input: vec![2],
        layers: vec![Spec::Linear { units: 5 }; layers],
        scores: 1,
        objective: Objective::Logistic,
        ..Description::default()
    };
    Network::new(&description, Kind::Double, Device::Cpu).unwrap()
}

pub fn load_555(network: &Network, params: &Value) {
    fill(network, |what, k| tensor(&params[format!("{what}{}", k + 1)]));
}

/// Checks a fixture of either format; None if it is of another.
pub fn check(fixture: &Value) -> Option<Tally> {
    let mut tally = Tally::default();
    match fixture["format"].as_str() {
        Some("psa-fixture-1") => {
            fixture["networks"].as_array().unwrap().iter().for_each(|v| check_network(v, &mut tally))
        }
        Some("psa-555-1") => check_555(fixture, &mut tally),
        _ => return None,
    }
    Some(tally)
}
