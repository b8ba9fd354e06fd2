//! The points, the network and its initialisation, as released.
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use thruway::error::{Error, Result};
use thruway::sbn::{Description, Network, Objective, Spec, ZeroOne};

/// Points a class.
pub const POINTS: i64 = 100;

/// Points `[200, 2]` and labels ±1 `[200]`, float64.
#[derive(Debug)]
pub struct Data {
    pub x: Tensor,
    pub y: Tensor,
}

/// The released data: drawn in float32 from libtorch's CPU generator seeded with 1, whatever the run's seed, which is put
/// back. Class +1 is uniform on `[-pi/2, pi/2] x [0, 1]`; class -1 on `[-pi/2, pi/2] x [-1, 1]` below `y = cos x`, point by
/// point by rejection.
pub fn data() -> Result<Data> {
    let options = (Kind::Float, Device::Cpu);
    let (width, low) = (std::f64::consts::PI, -std::f64::consts::FRAC_PI_2);
    let state = thruway::autograd::libtorch::generator_state(Device::Cpu)?;
    tch::manual_seed(1);
    let first = [Tensor::f_rand([POINTS], options)? * width + low, Tensor::f_rand([POINTS], options)?];
    let mut points: Vec<Tensor> = vec![];
    while (points.len() as i64) < POINTS {
        let x = Tensor::f_rand([1], options)? * width + low;
        let y = Tensor::f_rand([1], options)? * 2.0 - 1.0;
        if y.f_lt_tensor(&x.f_cos()?)?.f_all()?.f_int64_value(&[])? == 1 {
            points.push(Tensor::f_stack(&[x, y], -1)?);
        }
    }
    thruway::autograd::libtorch::set_generator_state(Device::Cpu, &state)?;
    let second = Tensor::f_cat(&points, 0)?;
    let x = Tensor::f_cat(&[Tensor::f_stack(&first, -1)?, second], 0)?.f_to_kind(Kind::Double)?;
    let one = Tensor::f_ones([POINTS], (Kind::Double, Device::Cpu))?;
    let y = Tensor::f_cat(&[one.shallow_clone(), -one], 0)?;
    Ok(Data { x, y })
}

/// A network of these widths with one score.
pub fn network(units: &[i64]) -> Result<Network> {
    let description = Description {
        input: vec![2],
        layers: units.iter().map(|&units| Spec::Linear { units }).collect(),
        scores: 1,
        objective: Objective::Logistic,
        ..Description::default()
    };
    Network::new(&description, Kind::Double, Device::Cpu)
}

/// Weights and biases uniform in (-1, 1) in the 0/1 encoding, then every pre-activation brought to mean 0 and variance 1 by
/// propagating the data's moments; the head stays ("AP2-init" of the released code).
pub fn initialise(network: &Network, data: &Data) -> Result<()> {
    let leaves = ZeroOne::of(network)?;
    {
        let _guard = tch::no_grad_guard();
        for (_, t) in leaves.params().iter() {
            let _ = t.shallow_clone().f_uniform_(-1.0, 1.0)?;
        }
    }
    leaves.write(network)?;
    let mean = data.x.f_mean_dim([0i64].as_slice(), false, Kind::Double)?;
    let variance = data.x.f_var_dim([0i64].as_slice(), true, false)?;
    network.whiten_moments(&mean, &variance)
}

/// The published parameter sets in a file like `psa_555.json`: label and network, with the file's points.
pub fn published(text: &[u8], path: &std::path::Path) -> Result<(Data, Vec<(String, Network)>)> {
    let wrong = |reason: &str| Error::Data {
        path: path.to_path_buf(),
        reason: reason.into(),
        remedy: "give a file of the format psa-555-1, or leave --published out".into(),
    };
    let file: Value = serde_json::from_slice(text)?;
    if file["format"] != "psa-555-1" {
        return Err(wrong("is not of the format psa-555-1"));
    }
    let numbers = |v: &Value| -> Result<Tensor> {
        fn flat(v: &Value, out: &mut Vec<f64>) -> bool {
            match v {
                Value::Array(a) => a.iter().all(|v| flat(v, out)),
                v => v.as_f64().map(|x| out.push(x)).is_some(),
            }
        }
        let mut out = vec![];
        if flat(v, &mut out) { Ok(Tensor::from_slice(&out)) } else { Err(wrong("holds something that is no number")) }
    };
    let data = Data { x: numbers(&file["data"]["points"])?.f_view([-1, 2])?, y: numbers(&file["data"]["label"])? };
    let mut sets = vec![];
    for (name, checkpoint) in file["checkpoints"].as_object().ok_or_else(|| wrong("has no checkpoints"))? {
        let params = &checkpoint["params_pm1"];
        let units: Vec<i64> = (1..).map_while(|k| Some(params[format!("bias{k}")].as_array()?.len() as i64)).collect();
        let network = network(&units[..units.len().saturating_sub(1)])?;
        let found: Vec<(String, Tensor)> = network
            .params()
            .iter()
            .map(|(n, t)| {
                let (place, what) = n.rsplit_once('.').expect("layers.K.weight");
                let k = place.strip_prefix("layers.").map_or(units.len(), |k| k.parse::<usize>().expect("K") + 1);
                Ok((n.to_string(), numbers(&params[format!("{what}{k}")])?.f_view(&t.size()[..])?))
            })
            .collect::<Result<_>>()?;
        network.params().load(|n| found.iter().find(|(name, _)| name == n).map(|(_, t)| t.shallow_clone()))?;
        sets.push((format!("published, {}", name.replace('_', " ")), network));
    }
    Ok((data, sets))
}
