//! The product with Delta: every back end against flips made one by one, against each other and at the ends of the range.
mod common;
use common::{distance, largest, normals};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::kernels::delta::{self, Backend, Conv, DeltaOptions};
use thruway::noise::{HostNoise, Noise};

const CPU: Device = Device::Cpu;
const SHAPES: [Shape; 4] = [Shape::Logistic, Shape::Uniform, Shape::Triangular, Shape::Normal];
const EXACT: DeltaOptions = DeltaOptions { backend: Backend::Exact, tol: 1e-5 };

/// States ±1.
fn states(size: &[i64], kind: Kind, seed: u64) -> Tensor {
    HostNoise::new(seed).uniform(size, kind, CPU).unwrap().lt(0.5).to_kind(kind) * 2.0 - 1.0
}

/// A layer with everything its backward takes: x, w, a, g.
struct Layer {
    x: Tensor,
    w: Tensor,
    a: Tensor,
    g: Tensor,
    conv: Conv,
}

impl Layer {
    /// Weights spread evenly up to `w_max`, biases of up to 2.
    fn new(x: &[i64], outputs: i64, kernel: [i64; 2], conv: Conv, w_max: f64, kind: Kind, seed: u64) -> Layer {
        let mut noise = HostNoise::new(seed);
        let mut even = |size: &[i64], top: f64| (noise.uniform(size, kind, CPU).unwrap() * 2.0 - 1.0) * top;
        let w = even(&[outputs, x[1], kernel[0], kernel[1]], w_max);
        let _ = w.view([-1]).get(0).fill_(w_max); // attained
        let b = even(&[outputs], 2.0);
        let x = states(x, kind, seed + 1);
        let a = x.conv2d(&w, Some(b), conv.stride, conv.padding, [1, 1], 1);
        let g = normals(&a.size(), kind, seed + 2);
        Layer { x, w, a, g, conv }
    }

    fn product(&self, noise: &BinaryNoise, opts: &DeltaOptions) -> Tensor {
        delta::conv2d(noise, &self.x, &self.w, &self.a, &self.g, &self.conv, opts).unwrap()
    }

    /// Sum of the |g| that each input unit meets: the size of what its sum is made of.
    fn met(&self) -> Tensor {
        let (Conv { stride, padding }, kernel) = (self.conv, &self.w.size()[2..]);
        let rest: Vec<i64> = (0..2)
            .map(|i| {
                let (from, to) = (self.x.size()[2 + i], self.a.size()[2 + i]);
                from + 2 * padding[i] - kernel[i] - (to - 1) * stride[i]
            })
            .collect();
        let (ones, none) = (Tensor::ones_like(&self.w), None::<&Tensor>);
        self.g.abs().conv_transpose2d(&ones, none, stride, padding, rest, 1, [1, 1])
    }

    /// Every input unit flipped in turn and the layer evaluated anew.
    fn flips(&self, noise: &BinaryNoise) -> Tensor {
        let size = self.x.size();
        let units: i64 = size[1..].iter().product();
        let mut rows = vec![];
        for b in 0..size[0] {
            let x = self.x.get(b).view([1, units]);
            let flipped: Tensor = &x * (1.0 - Tensor::eye(units, (x.kind(), CPU)) * 2.0);
            let flipped = flipped.view([units, size[1], size[2], size[3]]);
            let zero: Option<Tensor> = None;
            let conv = |x: &Tensor| x.conv2d(&self.w, zero.as_ref(), self.conv.stride, self.conv.padding, [1, 1], 1);
            let a = self.a.get(b);
            let a_flipped = &a + conv(&flipped) - conv(&self.x.get(b).unsqueeze(0));
            let change = noise.cdf(&a).unwrap() - noise.cdf(&a_flipped).unwrap();
            rows.push((change * self.g.get(b)).sum_dim_intlist([1i64, 2, 3].as_slice(), false, x.kind()));
        }
        Tensor::stack(&rows, 0).view(&size[..])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exact_products_are_flips_one_by_one(
        batch in 1i64..4, channels in 1i64..20, outputs in 1i64..10, shape in 0usize..4, scale in 0.3f64..2.0,
        kernel in prop::array::uniform2(1i64..6), stride in prop::array::uniform2(1i64..4),
        padding in prop::array::uniform2(0i64..4), beyond in prop::array::uniform2(0i64..6), w_max in 0.01f64..4.0,
        seed in 0u64..1_000_000,
    ) {
        // at least one output, whatever the padding
        let size = |i: usize| (kernel[i] - 2 * padding[i]).max(1) + beyond[i];
        let conv = Conv { stride, padding };
        let layer = Layer::new(&[batch, channels, size(0), size(1)], outputs, kernel, conv, w_max, Kind::Double, seed);
        let noise = BinaryNoise::with_scale(SHAPES[shape], scale).unwrap();
        let off = distance(&layer.product(&noise, &EXACT), &layer.flips(&noise));
        prop_assert!(off < 1e-10, "off by {off:e}");
    }
}

#[test]
fn a_linear_layer_is_a_convolution_of_one_pixel() {
    for noise in SHAPES.map(BinaryNoise::unit_slope) {
        for (batch, inputs, outputs) in [(1, 1, 1), (7, 19, 5), (64, 33, 40)] {
            let layer = Layer::new(&[batch, inputs, 1, 1], outputs, [1, 1], Conv::default(), 0.7, Kind::Double, 3);
            let flat = |t: &Tensor| t.squeeze_dim(-1).squeeze_dim(-1);
            let out = delta::linear(&noise, &flat(&layer.x), &flat(&layer.w), &flat(&layer.a), &flat(&layer.g), &EXACT);
            let off = distance(&out.unwrap(), &flat(&layer.flips(&noise)));
            assert!(off < 1e-12, "{noise:?}: {off:e}");
        }
    }
}

/// Worst case over a, w and x, not a sum in which errors cancel: a mesh of units with one weight each.
#[test]
fn the_expansion_keeps_its_bound() {
    let noise = BinaryNoise::with_scale(Shape::Logistic, 0.8).unwrap();
    let mesh = |top: f64, n: i64| Tensor::linspace(-top, top, n, (Kind::Double, CPU));
    for w_max in [0.01, 0.05, 0.1, 0.2, 0.26, 0.4, 0.7, 1.0, 2.0, 4.0] {
        let mut checked = 0;
        for r in 1..=delta::expansion::LONGEST {
            let bound = delta::expansion::bound(r, w_max / noise.scale());
            let opts = DeltaOptions { backend: Backend::Expansion, tol: bound };
            let plan = delta::plan(&noise, w_max, CPU, &opts).unwrap();
            if plan != (delta::Plan::Expansion { order: r, bound }) {
                continue; // a shorter series does as well
            }
            let (a, w) = (mesh(8.0, 2001).view([-1, 1]), mesh(w_max, 41).view([1, -1]));
            let _ = w.get(0).get(20).zero_();
            let g = Tensor::ones_like(&a);
            let mut worst = 0f64;
            for x in [1.0, -1.0] {
                let x = Tensor::full([2001, 41], x, (Kind::Double, CPU));
                let series = delta::linear(&noise, &x, &w, &a, &g, &opts).unwrap();
                worst = worst.max(distance(&series, &delta::linear(&noise, &x, &w, &a, &g, &EXACT).unwrap()));
                assert_eq!(largest(&series.select(1, 20)), 0.0, "no exact zero at w = 0");
            }
            println!("|w| up to {w_max}: R = {r}, bound {bound:.1e}, attained {worst:.1e}");
            assert!(worst <= bound + 1e-15, "|w| up to {w_max}, R = {r}: {worst:e} above {bound:e}");
            assert!(worst > 0.9 * bound, "|w| up to {w_max}, R = {r}: {bound:e} is loose, {worst:e}");
            checked += 1;
        }
        assert!(checked > 0, "no series at |w| up to {w_max}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn expansions_of_any_layer_are_within_their_bound(
        batch in 1i64..3, channels in 1i64..8, outputs in 1i64..10, kernel in prop::array::uniform2(1i64..6),
        stride in prop::array::uniform2(1i64..4), padding in prop::array::uniform2(0i64..4),
        beyond in prop::array::uniform2(0i64..6), w_max in prop_oneof![0.01f64..0.6, 0.6f64..4.0], double in any::<bool>(),
        seed in 0u64..1_000_000,
    ) {
        // what the longest series can do, where that is more than 1e-4; a little more, as w_max is rounded to the kind
        let tol = (1.001 * delta::expansion::bound(delta::expansion::LONGEST, w_max)).max(1e-4);
        let size = |i: usize| (kernel[i] - 2 * padding[i]).max(1) + beyond[i];
        let kind = if double { Kind::Double } else { Kind::Float };
        let conv = Conv { stride, padding };
        let layer = Layer::new(&[batch, channels, size(0), size(1)], outputs, kernel, conv, w_max, kind, seed);
        let noise = BinaryNoise::new(Shape::Logistic);
        let series = layer.product(&noise, &DeltaOptions { backend: Backend::Expansion, tol });
        let room = if double { 1e-13 } else { 1e-6 };
        let off = (series - layer.product(&noise, &EXACT)).abs();
        let over = (off - layer.met() * (tol + room)).max().double_value(&[]);
        prop_assert!(over <= room, "beyond the bound by {over:e}");
    }
}

/// Images are taken a few at a time, here 2, 2 and 1, and one by one where a single one is already large.
#[test]
fn an_expansion_in_parts_is_that_of_each_image() {
    let noise = BinaryNoise::new(Shape::Logistic);
    let opts = DeltaOptions { backend: Backend::Expansion, tol: 1e-5 };
    for (batch, outputs, side) in [(5, 64, 32), (3, 160, 32)] {
        let layer = Layer::new(&[batch, 2, side, side], outputs, [3, 3], Conv::square(1, 1), 0.2, Kind::Double, 4);
        let whole = layer.product(&noise, &opts);
        for b in 0..batch {
            let of = |t: &Tensor| t.narrow(0, b, 1);
            let (x, a, g) = (of(&layer.x), of(&layer.a), of(&layer.g));
            let one = delta::conv2d(&noise, &x, &layer.w, &a, &g, &layer.conv, &opts).unwrap();
            assert!(distance(&of(&whole), &one) < 1e-12, "image {b}");
        }
    }
}

#[test]
fn a_plan_names_what_stands_in_its_way() {
    let opts = DeltaOptions { backend: Backend::Expansion, tol: 1e-5 };
    let message = |shape, w_max| delta::plan(&BinaryNoise::new(shape), w_max, CPU, &opts).unwrap_err().to_string();
    assert!(message(Shape::Uniform, 0.1).contains("logistic"));
    assert!(message(Shape::Logistic, 3.0).contains("--psa-tol"));
    let auto = DeltaOptions { backend: Backend::Auto, ..opts };
    for (w_max, order) in [(0.125, Some(3)), (0.26, Some(4)), (3.0, None)] {
        let got = match delta::plan(&BinaryNoise::new(Shape::Logistic), w_max, Device::Cuda(0), &auto).unwrap() {
            delta::Plan::Exact => None,
            delta::Plan::Expansion { order, .. } => Some(order),
        };
        assert_eq!(got, order);
    }
}

/// Weights of a network that has blown up, and worse: no series is within any tolerance that means something.
#[test]
fn no_plan_is_a_series_for_weights_too_large() {
    let noise = BinaryNoise::with_scale(Shape::Logistic, 0.8).unwrap();
    for w_max in [3.7e3, 5e3, 4e7, 1e30, f64::INFINITY, f64::NAN] {
        for tol in [5e-6, 1e-3, 0.5] {
            let opts = |backend| DeltaOptions { backend, tol };
            let auto = delta::plan(&noise, w_max, Device::Cuda(0), &opts(Backend::Auto)).unwrap();
            assert_eq!(auto, delta::Plan::Exact, "|w| up to {w_max}, tol {tol}");
            let refused = delta::plan(&noise, w_max, CPU, &opts(Backend::Expansion)).unwrap_err().to_string();
            assert!(refused.contains("--psa-tol") && refused.contains("or use auto or exact"), "{refused}");
        }
    }
}

/// f32 against the same numbers in f64, in units of the sum of |g| that an input unit meets.
#[test]
fn single_precision_is_exact_to_its_rounding() {
    for (w_max, limit) in [(0.02, 1e-7), (0.3, 1e-7), (1.0, 1e-7), (2.7, 8e-7), (4.0, 1e-7), (60.0, 1e-7)] {
        for noise in SHAPES.map(BinaryNoise::new) {
            let layer = Layer::new(&[5, 21, 9, 7], 22, [3, 3], Conv::square(2, 1), w_max, Kind::Float, 5);
            let wide = Layer {
                x: layer.x.to_kind(Kind::Double),
                w: layer.w.to_kind(Kind::Double),
                a: layer.a.to_kind(Kind::Double),
                g: layer.g.to_kind(Kind::Double),
                conv: layer.conv,
            };
            let off = largest(&((layer.product(&noise, &EXACT) - wide.product(&noise, &EXACT)) / wide.met()));
            println!("{noise:?}, |w| up to {w_max}: {off:.1e}");
            assert!(off < limit, "{noise:?}, |w| up to {w_max}: {off:e}");
        }
    }
}

/// Weights and pre-activations from 1e-30 to 1e30, against the formula term by term.
#[test]
fn the_ends_of_the_range_are_finite_and_right() {
    let ends =
        [0.0f64, 1e-30, 1e-9, 1e-3, 0.5, 2.0, 2.7, 3.0, 6.4, 17.0, 43.0, 44.0, 60.0, 88.0, 90.0, 360.0, 1e4, 1e30];
    let both = |ends: &[f64]| [ends.to_vec(), ends.iter().map(|v| -v).collect()].concat();
    for kind in [Kind::Double, Kind::Float] {
        for noise in SHAPES.map(BinaryNoise::new) {
            // the largest weight decides on the form: once for each
            for top in ends {
                let w = both(&ends.iter().copied().filter(|&w| w <= top).collect::<Vec<_>>());
                let a = both(&ends);
                let (rows, n) = (a.len() as i64, w.len() as i64);
                for x in [1.0, -1.0] {
                    // one output a row of w: the input unit i meets the weight w_i alone
                    let x = Tensor::full([rows, n], x, (kind, CPU));
                    let w = Tensor::from_slice(&w).to_kind(kind);
                    let a = Tensor::from_slice(&a).to_kind(kind).view([-1, 1]);
                    let g = Tensor::full_like(&a, -1.5);
                    let got = delta::linear(&noise, &x, &w.view([1, -1]), &a, &g, &EXACT).unwrap();
                    assert_eq!(got.isfinite().all(), Tensor::from(true), "{kind:?}, {noise:?}");
                    let (a, w) = (a.to_kind(Kind::Double), w.to_kind(Kind::Double));
                    let want = (noise.cdf(&a).unwrap()
                        - noise.cdf(&(&a - &w * x.to_kind(Kind::Double) * 2.0)).unwrap())
                        * -1.5;
                    // at |w| = 2.7 a rounding of the ratio form counts 14 times; f64 there is used up to 6.5
                    let limit = if kind == Kind::Double { 1e-12 } else { 2e-6 };
                    let off = distance(&got.to_kind(Kind::Double), &want);
                    assert!(off < limit, "{kind:?}, {noise:?}, |w| up to {top}: {off:e}");
                }
            }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let layer = Layer::new(&[3, 40, 7, 6], 18, [3, 2], Conv::square(1, 1), 0.4, Kind::Float, 9);
    let noise = BinaryNoise::new(Shape::Logistic);
    let one = layer.product(&noise, &EXACT);
    for threads in [2, 3, 8] {
        tch::set_num_threads(threads);
        assert_eq!(layer.product(&noise, &EXACT), one, "{threads} threads");
    }
    tch::set_num_threads(1);
}

#[test]
fn what_does_not_fit_is_refused() {
    let noise = BinaryNoise::new(Shape::Logistic);
    let t = |size: &[i64]| Tensor::ones(size, (Kind::Float, CPU));
    let refusal = |x: &Tensor, w: &Tensor, a: &Tensor, g: &Tensor, conv: Conv| {
        delta::conv2d(&noise, x, w, a, g, &conv, &EXACT).unwrap_err().to_string()
    };
    let (x, w, a) = (t(&[2, 3, 5, 5]), t(&[4, 3, 3, 3]), t(&[2, 4, 3, 3]));
    let plain = Conv::default();
    for (message, word) in [
        (refusal(&x, &w, &a, &t(&[2, 4, 3, 2]), plain), "g of a's shape"),
        (refusal(&x, &w, &t(&[2, 4, 5, 5]), &t(&[2, 4, 5, 5]), plain), "a [2, 4, 3, 3]"),
        (refusal(&x, &t(&[4, 2, 3, 3]), &a, &a, plain), "x_in [B, C, H, W]"),
        (refusal(&x, &w, &a, &a, Conv::square(0, 0)), "stride"),
        (refusal(&x.to_kind(Kind::Double), &w, &a, &a, plain), "one kind"),
        (
            delta::linear(&noise, &t(&[2, 3]), &t(&[4, 5]), &t(&[2, 4]), &t(&[2, 4]), &EXACT).unwrap_err().to_string(),
            "w [out, in]",
        ),
    ] {
        assert!(message.contains(word), "{message}");
    }
    let none = delta::linear(&noise, &t(&[0, 3]), &t(&[4, 3]), &t(&[0, 4]), &t(&[0, 4]), &EXACT).unwrap();
    assert_eq!(none.size(), [0, 3]);
    // a kernel that misses some pixels for its stride: nothing reaches them
    let out = delta::conv2d(
        &noise,
        &t(&[1, 1, 4, 4]),
        &t(&[1, 1, 1, 1]),
        &t(&[1, 1, 2, 2]),
        &t(&[1, 1, 2, 2]),
        &Conv::square(2, 0),
        &EXACT,
    );
    let reached = out.unwrap().ne(0.0).to_kind(Kind::Int64).view([4, 4]);
    assert_eq!(reached.sum(Kind::Int64).int64_value(&[]), 4);
}

/// Layers for the CUDA kernels: ragged in every size, more than a block of pixels, channels and depth among them.
fn ragged() -> Vec<Layer> {
    let layer = |x: &[i64], outputs, kernel, stride, padding, w_max, seed| {
        Layer::new(x, outputs, kernel, Conv { stride, padding }, w_max, Kind::Float, seed)
    };
    vec![
        layer(&[1, 1, 1, 1], 1, [1, 1], [1, 1], [0, 0], 0.5, 1),
        layer(&[70, 37, 1, 1], 21, [1, 1], [1, 1], [0, 0], 0.3, 2), // a linear layer, two blocks each way
        layer(&[2, 3, 7, 6], 19, [3, 2], [1, 1], [1, 0], 1.0, 3),
        layer(&[1, 5, 9, 11], 4, [4, 5], [2, 3], [3, 2], 0.2, 4),
        layer(&[3, 2, 5, 4], 7, [1, 1], [2, 2], [0, 0], 0.4, 5), // pixels that nothing reaches
        layer(&[1, 33, 8, 9], 17, [3, 3], [3, 1], [1, 1], 2.7, 6),
        layer(&[2, 4, 3, 3], 6, [5, 5], [1, 2], [2, 3], 0.1, 7), // a kernel wider than the image
    ]
}

#[test]
fn the_cuda_source_computes_what_the_cpu_does() {
    for (index, layer) in ragged().iter().enumerate() {
        for noise in SHAPES.map(BinaryNoise::unit_slope) {
            for plain in [false, true] {
                if plain && noise.shape() != Shape::Logistic {
                    continue; // there is no other way
                }
                let four = [&layer.x, &layer.w, &layer.a, &layer.g];
                let twin = delta::cuda::twin::conv2d(&noise, four, &layer.conv, plain).unwrap();
                let off = (twin - layer.product(&noise, &EXACT)).abs();
                let over = (off - layer.met() * 5e-7).max().double_value(&[]);
                assert!(over <= 0.0, "layer {index}, {noise:?}, plain {plain}: {over:e} too much");
            }
        }
    }
}

/// Registers and spills of every kernel, for every architecture that NVRTC compiles for. Needs no GPU.
#[test]
fn the_cuda_kernels_compile_for_every_architecture_without_spills() {
    use delta::cuda::nvrtc;
    if !nvrtc::available() {
        common::skip("the_cuda_kernels_compile_for_every_architecture_without_spills", "no libnvrtc.so.13 here");
        return;
    }
    let architectures = nvrtc::architectures().unwrap();
    for wanted in [75, 80, 86, 89, 90] {
        assert!(architectures.contains(&wanted), "NVRTC compiles for {architectures:?}, not for {wanted}");
    }
    // 87 and 88 are embedded variants of 86
    for architecture in architectures.into_iter().filter(|a| ![87, 88].contains(a)) {
        let compiled = nvrtc::compile(architecture).unwrap();
        assert!(compiled.cubin.starts_with(b"\x7fELF"));
        let text: Vec<String> =
            compiled.usage.iter().map(|u| format!("{} {} registers", u.kernel, u.registers)).collect();
        println!("sm_{architecture}: {}, nothing spilled", text.join(", "));
        assert_eq!(compiled.usage.len(), 4);
        for kernel in compiled.usage {
            assert_eq!(kernel.spilled, 0, "sm_{architecture}: {kernel:?}");
            // four blocks of 128 threads on a multiprocessor of 65536 registers
            assert!((1..=128).contains(&kernel.registers), "sm_{architecture}: {kernel:?}");
        }
    }
    let message = nvrtc::compile(1).unwrap_err().to_string();
    assert!(message.contains("NVRTC: sm_1"), "{message}");
}

#[test]
fn a_gpu_computes_what_the_cpu_does() {
    if !thruway::autograd::libtorch::cuda_available() {
        common::skip("a_gpu_computes_what_the_cpu_does", "no CUDA device here");
        return;
    }
    let device = Device::Cuda(0);
    for layer in ragged() {
        let there = Layer {
            x: layer.x.to_device(device),
            w: layer.w.to_device(device),
            a: layer.a.to_device(device),
            g: layer.g.to_device(device),
            conv: layer.conv,
        };
        for noise in SHAPES.map(BinaryNoise::unit_slope) {
            let out = there.product(&noise, &EXACT);
            assert_eq!(out.device(), device);
            let off = (out.to_device(CPU) - layer.product(&noise, &EXACT)).abs();
            let over = (off - layer.met() * 2e-6).max().double_value(&[]);
            assert!(over <= 0.0, "{noise:?}: {over:e} too much");
        }
    }
}

/// The paper's Eqs. 44 to 51 for a convolution, word for word in plain loops, as printed and put right: what is printed is not
/// what flips one by one give, what is right is, and so is the library.
#[test]
fn formulas_as_printed_are_refused_by_the_flips() {
    let (channels, outputs, height, width) = (2, 3, 4, 5);
    let layer = Layer::new(&[1, channels, height, width], outputs, [3, 3], Conv::square(1, 1), 0.8, Kind::Double, 12);
    let numbers = |t: &Tensor| Vec::<f64>::try_from(t.flatten(0, -1)).unwrap();
    let [x, w, a, g] = [&layer.x, &layer.w, &layer.a, &layer.g].map(numbers);
    let place = |channel: i64, at: [i64; 2]| ((channel * height + at[0]) * width + at[1]) as usize;
    let (x, a) = (|c, i| x[place(c, i)], |o, j| a[place(o, j)]);
    // h = 3: entries -1, 0, 1 each way, 43's w_{o,c,i-j}
    let w = |o: i64, c: i64, d: [i64; 2]| w[(((o * channels + c) * 3 + d[0] + 1) * 3 + d[1] + 1) as usize];
    let minus = |i: [i64; 2], j: [i64; 2]| [i[0] - j[0], i[1] - j[1]];
    let positions = || (0..height).flat_map(move |y| (0..width).map(move |x| [y, x]));
    // the sum of 45 over o and the j around i, of what stands before the gradient g
    let sum = |term: &dyn Fn(i64, i64, [i64; 2], [i64; 2]) -> f64| {
        let around = |i, j| minus(i, j).iter().all(|d| d.abs() <= 1);
        let all = (0..channels).flat_map(|c| positions().map(move |i| (c, i))).map(|(c, i)| {
            let own = (0..outputs).flat_map(|o| positions().filter(move |&j| around(i, j)).map(move |j| (o, j)));
            own.map(|(o, j)| g[place(o, j)] * term(o, c, j, i)).sum::<f64>()
        });
        Tensor::from_slice(&all.collect::<Vec<_>>()).view([1, channels, height, width])
    };
    let f = |z: f64| 1.0 / (1.0 + (-z).exp());
    let check = |what: &str, oracle: &Tensor, ours: &Tensor, right: Tensor, printed: Tensor| {
        let (right, printed) = (distance(&right, oracle), distance(&printed, oracle));
        println!("{what}: off by {right:.1e}, as printed {printed:.1e}");
        assert!(distance(ours, oracle) < 1e-10 && right < 1e-10, "{what}: {right:e}");
        assert!(printed > 1e-2, "{what} as printed passes: {printed:e}");
    };

    // Eq. 44, the plain transposed convolution, is the product where F is linear: noise uniform on [-100, 100]
    let wide = BinaryNoise::with_scale(Shape::Uniform, 100.0).unwrap();
    let slope = |t: &Tensor| t * &layer.x * 100.0;
    let (oracle, ours) = (slope(&layer.flips(&wide)), slope(&layer.product(&wide, &EXACT)));
    let right = sum(&|o, c, j, i| w(o, c, minus(i, j)));
    check("Eq. 44", &oracle, &ours, right, sum(&|o, c, j, i| w(o, c, minus(j, i))));

    let noise = BinaryNoise::new(Shape::Logistic);
    let (oracle, ours) = (layer.flips(&noise), layer.product(&noise, &EXACT));
    let flipped = |o, c, j, i| a(o, j) - 2.0 * w(o, c, minus(i, j)) * x(c, i);
    let right = || sum(&|o, c, j, i| f(a(o, j)) - f(flipped(o, c, j, i)));
    // 46 flips the unit (c, j) that lies at the output's place
    let printed = sum(&|o, c, j, _| f(a(o, j)) - f(flipped(o, c, j, j)));
    check("Eq. 46", &oracle, &ours, right(), printed);
    // 47 has the condition on i: units beyond h / 2 from the corner change nothing
    let printed = sum(&|o, c, j, i| if i.iter().all(|&i| i <= 1) { f(a(o, j)) - f(flipped(o, c, j, i)) } else { 0.0 });
    check("Eq. 47", &oracle, &ours, right(), printed);
    // 50, and 51 with A = exp(a) and W+ or W- at x = 1: the exponents are those of 1 - F
    let form = |sign: f64, of_w: f64| {
        sum(&|o, c, j, i| {
            let (big_a, big_w) = ((sign * a(o, j)).exp(), (of_w * 2.0 * w(o, c, minus(i, j)) * x(c, i)).exp());
            f(a(o, j)) - 1.0 / (1.0 + big_a * big_w)
        })
    };
    check("Eqs. 50 and 51", &oracle, &ours, form(-1.0, 1.0), form(1.0, -1.0));
    check("Eq. 51, W the other way", &oracle, &ours, form(-1.0, 1.0), form(1.0, 1.0));
}
