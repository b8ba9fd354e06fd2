//! Random streams: the order of the data is PyTorch's, and what runs beside training leaves training's stream alone.
//! These tests share libtorch's generators, hence one at a time (`RUST_TEST_THREADS=1` in `.cargo/config.toml`).
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};
use thruway::Error;
use thruway::run::Checkpoint;
use thruway::run::seeding::{self, SideStream};

const CPU: Device = Device::Cpu;

fn draw() -> Vec<f32> {
    Vec::try_from(Tensor::rand([2], (Kind::Float, CPU))).unwrap()
}

#[test]
fn fixture_data_order() {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/data_order.json")).unwrap();
    assert_eq!(fixture["format"], "data-order-1");
    let cases = fixture["cases"].as_array().unwrap();
    for case in cases {
        let (seed, n) = (case["seed"].as_i64().unwrap(), case["n"].as_i64().unwrap());
        tch::manual_seed(seed);
        for (number, epoch) in case["epochs"].as_array().unwrap().iter().enumerate() {
            let order = seeding::shuffle(n).unwrap();
            assert_eq!((order.size(), order.kind()), (vec![n], Kind::Int64));
            let order = Vec::<i64>::try_from(order).unwrap();
            let first: Vec<i64> = serde_json::from_value(epoch["first"].clone()).unwrap();
            assert_eq!(order[..first.len()], first, "seed {seed}, n {n}, epoch {number}");
            let bytes: Vec<u8> = order.iter().flat_map(|i| i.to_le_bytes()).collect();
            let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, epoch["sha256"].as_str().unwrap(), "seed {seed}, n {n}, epoch {number}");
            // The loader took no more and no less from the default generator.
            let rand: Vec<f32> = serde_json::from_value(epoch["rand"].clone()).unwrap();
            assert_eq!(draw(), rand, "seed {seed}, n {n}, after epoch {number}");
        }
    }
    println!("fixture data_order.json: {} cases", cases.len());
}

#[test]
fn generators_come_back_from_a_checkpoint() {
    tch::manual_seed(5);
    // An odd number of normals leaves one of a pair behind, which is part of the state.
    let _ = Tensor::randn([1], (Kind::Double, CPU));
    let mut checkpoint = Checkpoint { tensors: vec![], state: Value::Null };
    seeding::capture(CPU, &mut checkpoint).unwrap();
    let draws = || (Vec::<f64>::try_from(Tensor::randn([3], (Kind::Double, CPU))).unwrap(), draw());
    let first = draws();
    assert_ne!(first, draws());
    seeding::restore(CPU, &checkpoint).unwrap();
    assert_eq!(first, draws());
    let empty = Checkpoint { tensors: vec![], state: Value::Null };
    let error = seeding::restore(CPU, &empty).unwrap_err().to_string();
    assert!(error.contains("no tensor \"generator.cpu\""), "{error}");
}

#[test]
fn a_side_stream_leaves_training_alone() {
    let side = SideStream::new(CPU, 7, "evaluation");
    let at = |step| side.at(step, || Ok(draw())).unwrap();
    tch::manual_seed(7);
    let undisturbed = (draw(), draw());
    tch::manual_seed(7);
    let first = draw();
    let aside = at(1);
    assert_eq!((first, draw()), undisturbed);
    // It depends on step, purpose and seed, and on nothing else.
    assert_eq!(at(1), aside);
    let others = [
        at(2),
        SideStream::new(CPU, 8, "evaluation").at(1, || Ok(draw())).unwrap(),
        SideStream::new(CPU, 7, "probe").at(1, || Ok(draw())).unwrap(),
    ];
    assert!(others.iter().all(|o| *o != aside));
    // Also when what runs in it fails or panics.
    tch::manual_seed(7);
    let first = draw();
    let failed = side.at(3, || -> thruway::Result<()> {
        draw();
        Err(Error::Interrupted)
    });
    assert!(matches!(failed, Err(Error::Interrupted)));
    let panicked = std::panic::catch_unwind(|| {
        side.at(3, || -> thruway::Result<()> {
            draw();
            panic!("on purpose")
        })
    });
    assert!(panicked.is_err());
    assert_eq!((first, draw()), undisturbed);
}
