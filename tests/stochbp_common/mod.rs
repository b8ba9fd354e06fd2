//! Shared by the tests of stochastic backpropagation: quadratures with densities and scores of their own, so that the truth
//! shares no code with the rules.
#![allow(dead_code, missing_docs)]
use tch::{Device, Kind, Tensor};
use thruway::dist::{Continuous, beta::Beta, gamma::Gamma, gaussian::Gaussian, laplace::Laplace};
use thruway::stochbp::{Estimate, LogCharacteristic, Objective};

pub fn vec1(x: f64) -> Tensor {
    Tensor::from_slice(&[x])
}

pub fn vector(x: &[f64]) -> Tensor {
    Tensor::from_slice(x)
}

pub fn number(t: &Tensor) -> f64 {
    t.to_kind(Kind::Double).double_value(&[])
}

/// Points `[S, d]` with weights `[S]` that sum to 1, and the scores of each parameter at the points, `[S, d]` each.
pub struct Quadrature {
    pub z: Tensor,
    pub w: Tensor,
    pub scores: Vec<Tensor>,
}

fn grid(low: f64, high: f64, n: i64) -> Tensor {
    Tensor::linspace(low, high, n, (Kind::Double, Device::Cpu))
}

/// A law of one variable by its parameters.
#[derive(Debug, Clone, Copy)]
pub enum Law {
    Gaussian(f64, f64),
    Laplace(f64, f64),
    Gamma(f64, f64),
    Beta(f64, f64),
}

impl Law {
    pub fn build(self) -> Box<dyn LogCharacteristic> {
        match self {
            Law::Gaussian(m, v) => Box::new(Gaussian::new(&vec1(m), &vec1(v)).unwrap()),
            Law::Laplace(m, b) => Box::new(Laplace::new(&vec1(m), &vec1(b)).unwrap()),
            Law::Gamma(k, s) => Box::new(Gamma::new(&vec1(k), &vec1(s)).unwrap()),
            Law::Beta(a, b) => Box::new(Beta::new(&vec1(a), &vec1(b)).unwrap()),
        }
    }

    /// The trapezoidal rule after a change of variable that makes the integrand analytic in a strip and let it fall to nothing
    /// at both ends: its error is far below 1e-12.
    pub fn quadrature(self, n: i64) -> Quadrature {
        match self {
            Law::Gaussian(m, v) => {
                let e = grid(-11.0, 11.0, n);
                let w = (e.square() * -0.5).exp();
                let scores = vec![&e / v.sqrt(), (e.square() - 1.0) / (2.0 * v)];
                one(e * v.sqrt() + m, w, scores)
            }
            Law::Laplace(m, b) => {
                // t = exp(u) on each side
                let t = grid(-40.0, 5.3, n).exp();
                let w = (-&t).exp() * &t;
                let both = |a: Tensor, b: Tensor| Tensor::cat(&[a, b], 0);
                let one_side = (&t - 1.0) / b;
                let scores =
                    vec![both(t.ones_like() / b, t.ones_like() / -b), both(one_side.shallow_clone(), one_side)];
                one(both(&t * b + m, &t * -b + m), both(w.shallow_clone(), w), scores)
            }
            Law::Gamma(k, s) => {
                let u = grid(-40.0 / k.min(1.0), 4.4, n);
                let t = u.exp();
                let w = (-&t + &u * k).exp();
                let scores = vec![u - number(&vec1(k).digamma().squeeze()), (&t - k) / s];
                one(t * s, w, scores)
            }
            Law::Beta(a, b) => {
                let u = grid(-45.0 / a.min(1.0), 45.0 / b.min(1.0), n);
                let (low, high) = (u.log_sigmoid(), (-&u).log_sigmoid());
                let w = (&low * a + &high * b).exp();
                let psi = |x: f64| number(&vec1(x).digamma().squeeze());
                let scores = vec![&low - (psi(a) - psi(a + b)), &high - (psi(b) - psi(a + b))];
                one(u.sigmoid(), w, scores)
            }
        }
    }
}

fn one(z: Tensor, w: Tensor, scores: Vec<Tensor>) -> Quadrature {
    let w = &w / w.sum(Kind::Double);
    Quadrature { z: z.unsqueeze(-1), w, scores: scores.into_iter().map(|s| s.unsqueeze(-1)).collect() }
}

impl Quadrature {
    /// Of two independent variables whose laws have the same parameters' names.
    pub fn product(&self, other: &Quadrature) -> Quadrature {
        let (n, m) = (self.w.size()[0], other.w.size()[0]);
        let pair = |a: &Tensor, b: &Tensor| {
            let a = a.unsqueeze(1).expand([n, m, 1], false).reshape([-1, 1]);
            let b = b.unsqueeze(0).expand([n, m, 1], false).reshape([-1, 1]);
            Tensor::cat(&[a, b], 1)
        };
        let scores = self.scores.iter().zip(&other.scores).map(|(a, b)| pair(a, b)).collect();
        let w = self.w.unsqueeze(1) * other.w.unsqueeze(0);
        Quadrature { z: pair(&self.z, &other.z), w: w.reshape([-1]), scores }
    }

    pub fn mean(&self, values: &Tensor) -> Tensor {
        (values * self.w.unsqueeze(-1)).sum_dim_intlist(0i64, false, Kind::Double)
    }

    /// `d E f / d parameter` as `E f score`, `[d]` each.
    pub fn truth(&self, f: &Objective) -> Vec<Tensor> {
        let value = f.value(&self.z).unwrap().detach().unsqueeze(-1);
        self.scores.iter().map(|s| self.mean(&(s * &value))).collect()
    }

    /// The expectation of a rule's estimates at the points.
    pub fn expectation(&self, estimate: &Estimate) -> Vec<Tensor> {
        estimate.gradients.iter().map(|(_, g)| self.mean(g)).collect()
    }
}

/// Largest difference relative to the largest truth.
pub fn relative(ours: &[Tensor], truth: &[Tensor]) -> f64 {
    assert_eq!(ours.len(), truth.len());
    let largest = |t: Tensor| number(&t.abs().max());
    let scale = truth.iter().map(|t| largest(t.shallow_clone())).fold(0.0, f64::max);
    ours.iter().zip(truth).map(|(a, b)| largest(a - b)).fold(0.0, f64::max) / scale
}

pub fn names(p: &dyn Continuous) -> Vec<String> {
    p.parameters().iter().map(|(n, _)| n.to_string()).collect()
}
