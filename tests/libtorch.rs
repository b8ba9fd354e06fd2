//! What the crate adds to tch's view of libtorch. Written to pass with and without a GPU.
use tch::{Device, Kind, Tensor};
use thruway::autograd::libtorch::*;

#[test]
fn version_is_three_numbers() {
    let version = version();
    let numbers: Vec<u32> = version.split('+').next().unwrap().split('.').map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers.len(), 3, "{version}");
    assert!(numbers[0] >= 2, "{version}");
}

#[test]
fn generator_states_replay_draws() {
    // The only test of this process that draws.
    let draw = || Vec::<f32>::try_from(Tensor::randn([5], (Kind::Float, Device::Cpu))).unwrap();
    let state = generator_state(Device::Cpu).unwrap();
    let (first, second) = (draw(), draw());
    assert_ne!(first, second);
    set_generator_state(Device::Cpu, &state).unwrap();
    assert_eq!(draw(), first);
    let e = set_generator_state(Device::Cpu, &Tensor::zeros([3], (Kind::Uint8, Device::Cpu))).unwrap_err().to_string();
    assert!(e.starts_with("libtorch: ") && !e.contains('\n'), "{e}");
    assert_eq!(draw(), second, "a refused state has changed the generator");
    tch::manual_seed(-3);
    let seeded = draw();
    seed_generator(Device::Cpu, -3).unwrap();
    assert_eq!(draw(), seeded);
}

#[test]
fn deterministic_mode_refuses_what_it_must_and_fills_nothing() {
    let (t, index) = (Tensor::zeros([4], (Kind::Float, Device::Cpu)), Tensor::from_slice(&[0i64]));
    let put = || t.f_put(&index, &Tensor::from_slice(&[1f32]), false);
    set_deterministic(true).unwrap();
    let refused = put();
    let empty = Tensor::empty([1000], (Kind::Float, Device::Cpu));
    set_deterministic(false).unwrap();
    assert!(refused.unwrap_err().to_string().contains("deterministic"));
    assert!(put().is_ok());
    assert!(empty.isnan().sum(Kind::Int64).int64_value(&[]) < 1000);
}

#[test]
fn cuda_is_there_or_refused_in_words() {
    if cuda_available() {
        let device = Device::Cuda(0);
        let state = generator_state(device).unwrap();
        let draw = || Vec::<f32>::try_from(Tensor::randn([5], (Kind::Float, device)).to_device(Device::Cpu)).unwrap();
        let first = draw();
        set_generator_state(device, &state).unwrap();
        assert_eq!(draw(), first);
        reset_cuda_memory_peak(0).unwrap();
        let before = cuda_memory_peak(0).unwrap();
        drop(Tensor::zeros([1 << 20], (Kind::Float, device)));
        assert!(cuda_memory_peak(0).unwrap() >= before + (4 << 20));
        current_cuda_stream(0).unwrap();
    } else {
        println!("no CUDA device: only the refusals are tested");
    }
    let far = 99;
    let errors = [
        generator_state(Device::Cuda(far)).unwrap_err(),
        set_generator_state(Device::Cuda(far), &Tensor::new()).unwrap_err(),
        cuda_memory_peak(far).unwrap_err(),
        reset_cuda_memory_peak(far).unwrap_err(),
        current_cuda_stream(far).unwrap_err(),
        seed_generator(Device::Cuda(far), 1).unwrap_err(),
        generator_state(Device::Mps).unwrap_err(),
    ];
    for e in errors {
        assert!(matches!(e, thruway::Error::Device { .. }), "{e}");
        println!("{e}");
    }
}
