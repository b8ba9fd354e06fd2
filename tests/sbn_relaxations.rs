//! Methods for stochastic binary networks that relax or propagate moments: each differentiates its own objective, and the
//! objective is its closed form. Float64, 1e-10 relative to the largest entry unless stated.
mod common;
use common::normals;
use common::psa::gradients;
use common::sbn::*;
use tch::{Device, Kind, Tensor};
use thruway::dist::binary::Shape;
use thruway::noise::{HostNoise, Tape};
use thruway::sbn::{Description, HeadGradient, Knobs, Loss, Method, Network, Spec};

/// Central differences of a value that depends smoothly on the parameters, for some entries of every parameter.
fn check_slopes(network: &Network, found: &[(String, Tensor)], value: &dyn Fn() -> f64, tolerance: f64, what: &str) {
    for ((name, parameter), (_, g)) in network.params().iter().zip(found) {
        let _guard = tch::no_grad_guard();
        for i in [0, parameter.numel() as i64 - 1] {
            let entry = parameter.view([-1]).get(i);
            let at = |h: f64| {
                let _ = entry.shallow_clone().g_add_scalar_(h);
                let v = value();
                let _ = entry.shallow_clone().g_sub_scalar_(h);
                v
            };
            let h = 1e-5;
            let slope = (at(h) - at(-h)) / (2.0 * h);
            let got = g.reshape([-1]).double_value(&[i]);
            assert!((slope - got).abs() < tolerance, "{what}: {name}[{i}] is {got}, slope {slope}");
        }
    }
}

/// Relaxations: the gradient is the derivative of their own objective under the same noise.
#[test]
fn relaxations_differentiate_their_own_objective() {
    for (method, knobs) in [
        (Method::Tanh, Knobs::default()),
        (Method::Tanh, Knobs { tanh_scale: Some(2.0), ..Knobs::default() }),
        (Method::Concrete, Knobs { tau: Some(0.4), ..Knobs::default() }),
        (Method::Adf, Knobs { published_head: true, ..Knobs::default() }),
        (Method::LocalReparam, Knobs { published_head: true, ..Knobs::default() }),
    ] {
        let p = problem(&[2, 3, 2], noise(Shape::Logistic), 41);
        let rule = method.build(&knobs).unwrap();
        let run = || p.network.loss(&p.x, &p.y, &*rule, &mut HostNoise::new(3)).unwrap();
        let found = gradients(&p.network, &run());
        let value = || run().value.mean(Kind::Double).double_value(&[]);
        check_slopes(&p.network, &found, &value, 1e-8, &format!("{} {knobs:?}", method.name()));
    }
}

/// The Concrete relaxation of one unit, by quadrature over its noise: mean value and mean gradient against the integral.
#[test]
fn the_mean_of_concrete_is_its_integral() {
    let description =
        Description { input: vec![3], layers: vec![Spec::Linear { units: 1 }], scores: 3, ..Description::default() };
    let p = with_data(&description, 51);
    let n = 2000;
    let u = (Tensor::arange(n, F64) + 0.5) / n as f64;
    let z = (&u / (&u * -1.0 + 1.0)).log();
    let (x, y) = (p.x.narrow(0, 0, 1).expand([n, 3], false), p.y.narrow(0, 0, 1).expand([n], false));
    for tau in [0.3, 1.0] {
        let rule = Method::Concrete.build(&Knobs { tau: Some(tau), ..Knobs::default() }).unwrap();
        let loss = p.network.loss(&x, &y, &*rule, &mut Tape::new([("logistic", z.shallow_clone())])).unwrap();
        let found = gradients(&p.network, &loss);
        let value = || {
            let a = p.network.layers()[0].preactivation(&p.x.narrow(0, 0, 1)).unwrap();
            let relaxed = ((a - z.unsqueeze(1)) / (2.0 * tau)).tanh(); // 2 sigmoid(t) - 1
            let scores = p.network.head().scores(&relaxed).unwrap();
            p.network.objective().values(&scores, &y).unwrap().mean(Kind::Double).double_value(&[])
        };
        check_slopes(&p.network, &found, &value, 1e-8, &format!("concrete at tau {tau}"));
        assert!((loss.value.mean(Kind::Double).double_value(&[]) - value()).abs() < 1e-12);
    }
}

/// ADF with sampled last states, written out by enumeration: the pre-activations of layer 2 have the mean and variance that
/// the sum over the states of layer 1 gives, the last states are independent with probability P, and the mean estimate is the
/// derivative of the mean loss. Local reparametrisation: the same at a given normal draw.
#[test]
fn moment_methods_are_their_closed_form() {
    for shape in [Shape::Logistic, Shape::Normal] {
        let p = problem(&[3, 2], noise(shape), 61);
        let net = &p.network;
        let big_v = net.noise().variance();
        let last = thruway::exact::sbn::states(2, Kind::Double, Device::Cpu).unwrap(); // [S, 2]
        let draws = normals(&[2, 2], Kind::Double, 5);
        for (method, normal) in [(Method::Adf, None), (Method::LocalReparam, Some(&draws))] {
            // the relaxed objective, from enumerated moments
            let probabilities = || {
                let states = thruway::exact::sbn::states(3, Kind::Double, Device::Cpu).unwrap(); // [S1, 3]
                let a1 = net.layers()[0].preactivation(&p.x).unwrap().unsqueeze(1); // [B, 1, 3]
                let p1 = net.noise().cdf(&(a1 * &states)).unwrap().prod_dim_int(-1, true, Kind::Double); // [B, S1, 1]
                let a2 = net.layers()[1].preactivation(&states).unwrap(); // [S1, 2]
                let mean = (&p1 * &a2).sum_dim_intlist(1, false, Kind::Double); // [B, 2]
                let variance = (p1 * (a2 - mean.unsqueeze(1)).square()).sum_dim_intlist(1, false, Kind::Double);
                match normal {
                    None => net.noise().cdf(&(mean * (big_v / (variance + big_v)).sqrt())).unwrap(),
                    Some(normal) => net.noise().cdf(&(mean + variance.sqrt() * normal)).unwrap(),
                }
            };
            let weights = || {
                let p = probabilities().unsqueeze(0); // [1, B, 2]
                let x = last.unsqueeze(1); // [S, 1, 2]
                ((&x * -1.0 + 1.0) / 2.0 + &x * p).prod_dim_int(-1, false, Kind::Double) // [S, B]
            };
            let value = || {
                let scores = net.head().scores(&last.unsqueeze(1).expand([-1, 2, -1], false)).unwrap();
                let f = net.objective().values(&scores, &p.y).unwrap();
                (f * weights()).sum(Kind::Double).double_value(&[]) / 2.0
            };
            for head in [HeadGradient::Plain, HeadGradient::Enhanced] {
                let rule = method.build(&Knobs { head: Some(head), ..Knobs::default() }).unwrap();
                // uniforms that make the last states what we want: u < P gives +1
                let mut total = Tensor::zeros([], F64);
                let mut mean_value = 0.0;
                for s in 0..4 {
                    let u = last.get(s).neg().unsqueeze(0).expand([2, 2], false) * 0.5 + 0.5;
                    let mut entries = normal.map(|n| ("normal", n.shallow_clone())).into_iter().collect::<Vec<_>>();
                    entries.push(("uniform", u));
                    let mut tape = Tape::new(entries);
                    let loss = net.loss(&p.x, &p.y, &*rule, &mut tape).unwrap();
                    tape.finish().unwrap();
                    let w = weights().get(s).detach();
                    total += (loss.surrogate * &w).sum(Kind::Double) / 2.0;
                    mean_value += (loss.value * w).sum(Kind::Double).double_value(&[]) / 2.0;
                }
                let what = format!("{} {shape:?} {head:?}", method.name());
                assert!((mean_value - value()).abs() < 1e-12, "{what}: value");
                let whole = Loss { value: total.detach(), scores: total.detach(), surrogate: total };
                check_slopes(net, &gradients(net, &whole), &value, 1e-8, &what);
            }
        }
    }
}
