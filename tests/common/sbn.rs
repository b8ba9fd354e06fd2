//! Small stochastic binary networks whose joint states can be listed.
use super::psa::gradients;
use super::{distance, largest, normals};
use tch::{Device, Kind, Tensor};
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::sbn::{Batch, Description, Draws, Knobs, Loss, Method, Network, Rule, Spec};

pub const TOLERANCE: f64 = 1e-10;
pub const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
/// Every law of the noise.
pub const SHAPES: [Shape; 4] = [Shape::Logistic, Shape::Uniform, Shape::Triangular, Shape::Normal];

pub struct Problem {
    pub network: Network,
    pub x: Tensor,
    pub y: Tensor,
}

/// A network of linear layers with standard normal parameters, three inputs, three classes, two data.
pub fn problem(units: &[i64], noise: BinaryNoise, seed: u64) -> Problem {
    let description = Description {
        input: vec![3],
        layers: units.iter().map(|&units| Spec::Linear { units }).collect(),
        scores: 3,
        noise,
        ..Description::default()
    };
    with_data(&description, seed)
}

pub fn with_data(description: &Description, seed: u64) -> Problem {
    let network = Network::new(description, Kind::Double, Device::Cpu).unwrap();
    let i = std::cell::Cell::new(seed * 100);
    network
        .params()
        .load(|name| {
            i.set(i.get() + 1);
            let (_, t) = network.params().iter().find(|(n, _)| *n == name)?;
            let scale = if name.ends_with("scale") { 1.0 } else { 0.0 };
            Some(normals(&t.size(), Kind::Double, i.get()) * 0.7 + scale)
        })
        .unwrap();
    let x = normals(&[&[2], &description.input[..]].concat(), Kind::Double, seed + 7);
    Problem { network, x, y: Tensor::from_slice(&[2i64, 0]) }
}

/// Noise wide enough that the units are not near 0 or 1.
pub fn noise(shape: Shape) -> BinaryNoise {
    BinaryNoise::with_scale(shape, if shape == Shape::Logistic { 1.0 } else { 2.0 }).unwrap()
}

pub fn build(method: Method) -> Box<dyn Rule> {
    method.build(&Knobs::default()).unwrap()
}

pub fn flat(all: &[(String, Tensor)], of: &str) -> Tensor {
    let parts: Vec<Tensor> = all.iter().filter(|(n, _)| n.starts_with(of)).map(|(_, t)| t.reshape([-1])).collect();
    assert!(!parts.is_empty(), "no parameter starts with {of}");
    Tensor::cat(&parts, 0)
}

/// Largest difference over the largest entry of the second.
pub fn off(got: &Tensor, want: &Tensor) -> f64 {
    distance(got, want) / largest(want)
}

impl Problem {
    pub fn exact(&self) -> Vec<(String, Tensor)> {
        let loss = self.network.loss_at(&self.x, &self.y, &*build(Method::Exact), &[]).unwrap();
        gradients(&self.network, &loss)
    }

    /// Mean estimate by enumeration of all joint states, and the mean value.
    pub fn mean(&self, rule: &dyn Rule, baseline: Option<&Tensor>) -> (Vec<(String, Tensor)>, Tensor) {
        let paths = self.network.paths(&self.x).unwrap();
        let states = broadcast(&paths.states, &self.network);
        let input = rows_of(&self.x, &paths.probability);
        let batch = Batch { input: &input, target: &self.y, baseline };
        let loss = self.network.run(&batch, rule, &mut Draws::given(&states)).unwrap();
        // one row of states a joint state: [P, B]; gradients() takes the mean over rows and data
        let weight = &paths.probability * (paths.probability.numel() as f64 / self.x.size()[0] as f64);
        let value = (loss.value * &paths.probability).sum_dim_intlist(0, false, Kind::Double);
        let surrogate = loss.surrogate * weight;
        let weighted = Loss { surrogate, value: value.copy(), scores: loss.scores };
        (gradients(&self.network, &weighted), value)
    }
}

/// A batch of inputs once for each joint state, `[P, B, ..]`.
pub fn rows_of(x: &Tensor, probability: &Tensor) -> Tensor {
    x.unsqueeze(0).expand([&[probability.size()[0]], &x.size()[..]].concat(), false)
}

/// States `[P, units]` as `[P, 1, units]`, to go with a batch.
pub fn broadcast(states: &[Tensor], network: &Network) -> Vec<Tensor> {
    states.iter().zip(network.layers()).map(|(s, l)| s.view([&[-1, 1], l.units()].concat().as_slice())).collect()
}
