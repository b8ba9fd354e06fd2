//! Times the product with Delta over the backward of the 8-layer CIFAR network of the PSA paper (Appendix C.2), layer by
//! layer, each way in turn: torch operations taken literally, exact, expansion, and straight-through's one transposed
//! convolution, which is what an ordinary backward costs here. One JSON object on stdout; see benches/README.md.
//!
//! `cargo run --release --example delta_bench -- [batch 8] [rounds 9] [threads 1]`
use anyhow::Result;
use multiversion::multiversion;
use serde_json::{Value, json};
use std::time::Instant;
use tch::{Device, Kind, Tensor};
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::kernels::delta::{self, Backend, Conv, DeltaOptions, Plan};
use thruway::noise::{HostNoise, Noise};

/// Layers 2 to 8 (the first needs no product): side of the input, channels, outputs, kernel, stride, and the largest
/// |2w| that the whitening initialisation gives.
const LAYERS: [(i64, i64, i64, i64, i64, f64); 7] = [
    (30, 96, 96, 3, 1, 0.47),
    (28, 96, 96, 3, 2, 0.34),
    (13, 96, 192, 3, 1, 0.29),
    (11, 192, 192, 3, 1, 0.18),
    (9, 192, 192, 3, 2, 0.17),
    (4, 192, 192, 3, 1, 0.17),
    (2, 192, 192, 1, 1, 0.52),
];

struct Layer {
    x: Tensor,
    w: Tensor,
    a: Tensor,
    g: Tensor,
    conv: Conv,
}

impl Layer {
    fn new(batch: i64, index: usize) -> Result<Layer> {
        let (side, channels, outputs, kernel, stride, twice) = LAYERS[index];
        let mut noise = HostNoise::new(index as u64);
        let kind = Kind::Float;
        let x = noise.uniform(&[batch, channels, side, side], kind, Device::Cpu)?.lt(0.5).to_kind(kind) * 2.0 - 1.0;
        let w = noise.uniform(&[outputs, channels, kernel, kernel], kind, Device::Cpu)? - 0.5;
        let w = &w * (twice / 2.0 / w.abs().max().double_value(&[]));
        let a = x.f_conv2d(&w, None::<&Tensor>, [stride; 2], [0, 0], [1, 1], 1)?;
        let g = noise.normal(&a.size(), kind, Device::Cpu)?;
        Ok(Layer { x, w, a, g, conv: Conv::square(stride, 0) })
    }

    /// Terms of the sums: outputs times inputs that each of them sees.
    fn terms(&self) -> f64 {
        let w = self.w.size();
        self.a.numel() as f64 * (w[1] * w[2] * w[3]) as f64
    }

    fn product(&self, noise: &BinaryNoise, opts: &DeltaOptions) -> Result<Tensor> {
        Ok(delta::conv2d(noise, &self.x, &self.w, &self.a, &self.g, &self.conv, opts)?)
    }

    /// Every flipped pre-activation formed and put through the cdf, by whole-tensor operations in place.
    fn literal(&self) -> Result<Tensor> {
        let (ws, size, stride) = (self.w.size(), self.a.size(), self.conv.stride);
        let f = self.a.f_sigmoid()?;
        let twice = &self.w * 2.0;
        let out = self.x.f_zeros_like()?;
        let seen = |t: &Tensor, axis: i64, k: i64, n: i64, step: i64| t.f_slice(axis, k, k + (n - 1) * step + 1, step);
        for ky in 0..ws[2] {
            for kx in 0..ws[3] {
                let part = |t: &Tensor| seen(&seen(t, 2, ky, size[2], stride[0])?, 3, kx, size[3], stride[1]);
                let (x, mut out) = (part(&self.x)?.f_contiguous()?, part(&out)?);
                let mut sum = x.f_zeros_like()?;
                for o in 0..ws[0] {
                    let w = twice.f_select(0, o)?.f_select(-1, kx)?.f_select(-1, ky)?.f_view([1, ws[1], 1, 1])?;
                    let unit = |t: &Tensor| t.f_narrow(1, o, 1);
                    let mut t = x.f_mul(&w)?.f_neg_()?.f_add_(&unit(&self.a)?)?;
                    let change = t.f_sigmoid_()?.f_neg_()?.f_add_(&unit(&f)?)?;
                    let _ = sum.f_addcmul_(&change, &unit(&self.g)?)?;
                }
                let _ = out.f_add_(&sum)?;
            }
        }
        Ok(out)
    }

    /// What straight-through does instead.
    fn straight_through(&self) -> Result<Tensor> {
        let p = self.a.f_sigmoid()?;
        let v = (&p - &p * &p) * 2.0 * &self.g;
        let (from, to, k, stride) = (self.x.size()[2], self.a.size()[2], self.w.size()[2], self.conv.stride[0]);
        let rest = from - k - (to - 1) * stride;
        Ok(v.f_conv_transpose2d(&self.w, None::<&Tensor>, [stride; 2], [0, 0], [rest; 2], 1, [1, 1])?)
    }
}

/// Quotients a second of one core, f32, the widest vectors there are.
fn divisions() -> f64 {
    #[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
    fn many(x: &mut [[f32; 16]; 12], rounds: usize, by: f32) {
        let mut y = *x;
        for _ in 0..rounds {
            for v in y.as_flattened_mut() {
                *v /= by;
            }
        }
        *x = y;
    }
    let (mut best, rounds) = (f64::MAX, 200_000);
    let mut x = [[1f32; 16]; 12];
    for _ in 0..7 {
        let start = Instant::now();
        many(std::hint::black_box(&mut x), rounds, std::hint::black_box(1.000_000_1));
        best = best.min(start.elapsed().as_secs_f64());
    }
    (rounds * 12 * 16) as f64 / best
}

/// Seconds: of the processor on this thread where one thread computes (others may share the core), else of the wall.
fn seconds(threads: i64) -> Result<f64> {
    use nix::time::{ClockId, clock_gettime};
    let clock = if threads == 1 { ClockId::CLOCK_THREAD_CPUTIME_ID } else { ClockId::CLOCK_MONOTONIC };
    let now = clock_gettime(clock)?;
    Ok(now.tv_sec() as f64 + now.tv_nsec() as f64 * 1e-9)
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    ((&a - &b).norm() / b.norm()).double_value(&[])
}

fn main() -> Result<()> {
    let argument = |i: usize, default: i64| std::env::args().nth(i).map_or(Ok(default), |v| v.parse());
    let (batch, rounds, threads) = (argument(1, 8)?, argument(2, 9)?, argument(3, 1)?);
    tch::set_num_threads(threads as i32);
    let _guard = tch::no_grad_guard();
    let noise = BinaryNoise::new(Shape::Logistic);
    let exact = DeltaOptions { backend: Backend::Exact, ..DeltaOptions::default() };
    let series = DeltaOptions { backend: Backend::Expansion, ..DeltaOptions::default() };
    let quotients = divisions();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut layers: Vec<Value> = vec![];
    let mut sums = [0.0; 4];
    let mut all_terms = 0.0;
    for (index, &(.., twice)) in LAYERS.iter().enumerate() {
        let layer = Layer::new(batch, index)?;
        let ways: [&dyn Fn() -> Result<Tensor>; 4] =
            [&|| layer.literal(), &|| layer.product(&noise, &exact), &|| layer.product(&noise, &series), &|| {
                layer.straight_through()
            }];
        let mut ms: [Vec<f64>; 4] = Default::default();
        for round in 0..=rounds {
            for (way, ms) in ways.iter().zip(&mut ms) {
                // once for warming up; the literal way is slow and steady: every third round
                if std::ptr::eq(*way, ways[0]) && round % 3 != 1 {
                    continue;
                }
                let start = seconds(threads)?;
                let _ = std::hint::black_box(way()?);
                if round > 0 {
                    ms.push((seconds(threads)? - start) * 1e3);
                }
            }
        }
        let ms = ms.map(median);
        let truth = Layer {
            x: layer.x.to_kind(Kind::Double),
            w: layer.w.to_kind(Kind::Double),
            a: layer.a.to_kind(Kind::Double),
            g: layer.g.to_kind(Kind::Double),
            conv: layer.conv,
        };
        let truth = truth.product(&noise, &exact)?;
        let order = match delta::plan(&noise, twice / 2.0, Device::Cpu, &series)? {
            Plan::Expansion { order, .. } => order,
            Plan::Exact => 0,
        };
        for (sum, ms) in sums.iter_mut().zip(ms) {
            *sum += ms;
        }
        all_terms += layer.terms();
        layers.push(json!({
            "layer": index + 2, "largest_2w": twice, "terms": layer.terms(), "order": order,
            "literal_ms": ms[0], "exact_ms": ms[1], "expansion_ms": ms[2], "straight_through_ms": ms[3],
            "exact_terms_per_s": layer.terms() / ms[1] * 1e3,
            "relative_error": {
                "literal": relative(&ways[0]()?, &truth), "exact": relative(&ways[1]()?, &truth),
                "expansion": relative(&ways[2]()?, &truth),
            },
        }));
    }
    let [literal, exact, expansion, st] = sums;
    let answer = json!({
        "what": "product with Delta, backward of the CIFAR network, layers 2 to 8", "batch": batch, "rounds": rounds,
        "threads": threads, "clock": if threads == 1 { "thread's processor time" } else { "wall" }, "load_at_start": load.trim(), "divisions_per_s_and_core": quotients,
        "literal_ms": literal, "exact_ms": exact, "expansion_ms": expansion, "straight_through_ms": st,
        "exact_terms_per_s": all_terms / exact * 1e3,
        "ratios": {
            "literal_to_exact": literal / exact, "exact_to_straight_through": exact / st,
            "expansion_to_straight_through": expansion / st,
            "exact_terms_to_divisions": all_terms / exact * 1e3 / quotients / threads as f64,
        },
        "layers": layers,
    });
    println!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}
