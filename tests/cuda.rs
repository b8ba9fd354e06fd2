//! The drop-ins on a GPU against the CPU, on the same noise; and training there. Without a GPU each test is skipped by name.
mod common;
use common::{distance, largest, normals, skip};
use tch::{Device, Kind, Tensor};
use thruway::estimators::{Built, DropIn, Estimator, Knobs};
use thruway::noise::{HostNoise, TorchNoise};

fn gpu(test: &str) -> Option<Device> {
    let there = thruway::autograd::libtorch::cuda_available();
    if !there {
        skip(test, "no CUDA device here");
    }
    there.then_some(Device::Cuda(0))
}

fn drop_ins() -> Vec<(String, Box<dyn DropIn>)> {
    let built = Estimator::ALL.iter().map(|e| {
        let samples = e.claims().knobs.contains(&"samples").then_some(7);
        (e.name(), e.build(&Knobs { samples, ..Knobs::default() }).unwrap())
    });
    let drop_ins = built.filter_map(|(name, b)| match b {
        Built::DropIn(d) => Some((name, d)),
        _ => None,
    });
    drop_ins.collect()
}

/// Value, probabilities, class and gradient of one draw on that device, brought to the CPU.
fn draw(e: &dyn DropIn, logits: &Tensor, mask: Option<&Tensor>, device: Device) -> [Tensor; 4] {
    let leaf = logits.to_device(device).detach().set_requires_grad(true);
    let mask = mask.map(|m| m.to_device(device));
    let s = e.draw(&leaf, mask.as_ref(), &mut HostNoise::new(3)).unwrap();
    assert_eq!((s.value.device(), s.index.device(), s.probs.device()), (device, device, device));
    let upstream = normals(&logits.size(), logits.kind(), 5).to_device(device);
    ((&s.value * &upstream).sum(logits.kind()) + s.probs.square().sum(logits.kind())).backward();
    [s.value.detach(), s.probs.detach(), s.index, leaf.grad()].map(|t| t.to_device(Device::Cpu))
}

/// The same noise draws the same classes; values and gradients differ by rounding only.
#[test]
fn drop_ins_on_a_gpu_are_those_on_the_cpu() {
    let Some(device) = gpu("drop_ins_on_a_gpu_are_those_on_the_cpu") else { return };
    for (name, e) in drop_ins() {
        for (kind, tolerance) in [(Kind::Double, 1e-10), (Kind::Float, 2e-5)] {
            for size in [&[6i64, 4][..], &[100, 30, 10], &[2, 3, 64]] {
                let logits = normals(size, kind, 1) * 2.0;
                let mask = normals(size, kind, 2).gt(-1.0).logical_or(&logits.eq_tensor(&logits.amax([-1], true)));
                for mask in [None, Some(&mask)] {
                    let there = draw(&*e, &logits, mask, device);
                    let here = draw(&*e, &logits, mask, Device::Cpu);
                    assert_eq!(there[2], here[2], "{name} {kind:?} {size:?}: classes");
                    for i in [0, 1, 3] {
                        let scale = largest(&here[i]).max(1.0);
                        let off = distance(&there[i], &here[i]) / scale;
                        assert!(off <= tolerance, "{name} {kind:?} {size:?}: tensor {i} off by {off:e}");
                    }
                }
            }
        }
    }
}

/// libtorch's generator on the device: frequencies of 200,000 draws from four classes within 4.9 standard errors, for each
/// drop-in (false alarms: below 1e-4 in all).
#[test]
fn draws_on_a_gpu_have_the_right_frequencies() {
    let Some(device) = gpu("draws_on_a_gpu_have_the_right_frequencies") else { return };
    thruway::autograd::libtorch::seed_generator(device, 7).unwrap();
    let n = 200_000i64;
    for (name, e) in drop_ins() {
        let probs = Tensor::from_slice(&[0.1f32, 0.2, 0.3, 0.4]).to_device(device);
        let s = e.draw(&probs.log().expand([n, 4], false).contiguous(), None, &mut TorchNoise).unwrap();
        let counts = s.index.bincount::<Tensor>(None, 4).to_kind(Kind::Float) / n as f64;
        let variance: Tensor = &probs * (1.0 - &probs) / n as f64;
        let z: Tensor = (counts - &probs) / variance.sqrt();
        assert!(largest(&z.to_device(Device::Cpu)) < 4.9, "{name}: {z:?}");
    }
}

#[test]
fn vae_trains_on_a_gpu() {
    if gpu("vae_trains_on_a_gpu").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for estimator in ["st", "stgs", "gumbel-rao", "gst", "gst-p", "reinmax"] {
        let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_vae"));
        c.args(["--preset", "8x4", "--device", "cuda", "--steps", "60", "--log-every", "20", "--quiet"]);
        c.args(["--estimator", estimator, "--out", estimator]).current_dir(dir.path()).env_remove("THRUWAY_DATA");
        let o = c.env("THRUWAY_OFFLINE", "1").env("THRUWAY_CACHE", dir.path().join("cache")).output().unwrap();
        assert!(o.status.success(), "{estimator}: {}", String::from_utf8_lossy(&o.stderr));
        let out = dir.path().join(estimator);
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["device"], "cuda:0", "{estimator}");
        let summary = std::fs::read_to_string(out.join("summary.json")).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        let loss = summary["final"]["train_neg_elbo"].as_f64().unwrap();
        // An untrained decoder costs 784 log 2 = 543 nats.
        assert!(loss < 400.0, "{estimator}: {loss}");
    }
}
