//! The same seed as PyTorch's: every estimator's draws, gradients and share of the generator's stream
//! (`same-seed-draws-1`, recorded by tests/parity/record_draws.py).
mod common;
use common::{distance, fixture_files, largest, read, tensor};
use serde_json::Value;
use std::cell::RefCell;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use thruway::estimators::{Built, Estimator, Knobs, Tau};
use thruway::noise::TorchNoise;

/// A draw whose two best scores are at most this many f32 numbers apart may come out the other way: the exponentials behind
/// them agree to one rounding, and a logarithm, a quotient or a sum adds one each.
const NEAR_TIE: i64 = 4;

/// What a file's cases came to.
#[derive(Default)]
struct Seen {
    draws: usize,
    differ: usize,
    off: f64,
}

fn floats(v: &Value) -> Tensor {
    tensor(v).to_kind(Kind::Float)
}

/// One recorded call: the draw and, where there is one, the gradient of `sum(value * upstream)`.
fn call(built: &Built, logits: &Tensor, upstream: &Tensor) -> (Tensor, Tensor, Option<Tensor>) {
    let leaf = logits.copy().set_requires_grad(true);
    match built {
        Built::Boolean(_) => unreachable!("built without a code"),
        Built::DropIn(d) => {
            let s = d.draw(&leaf, None, &mut TorchNoise).unwrap();
            (&s.value * upstream).sum(Kind::Float).backward();
            (s.index, s.value.detach(), Some(leaf.grad()))
        }
        // its draw is what f sees first; its gradient needs no draw
        Built::Wide(e, _) => {
            let first = RefCell::new(None);
            let f = |x: &Tensor| {
                first.borrow_mut().get_or_insert_with(|| x.squeeze_dim(0));
                Ok(x.sum_dim_intlist([-2i64, -1].as_slice(), false, Kind::Float))
            };
            let _ = e.surrogate_loss(&leaf, &f, &mut TorchNoise).unwrap();
            let value = first.into_inner().unwrap();
            (value.argmax(-1, false), value, None)
        }
    }
}

fn check(case: &Value, arrays: &Value, seen: &mut Seen) {
    let name = case["name"].as_str().unwrap();
    let estimator = Estimator::by_name(case["estimator"].as_str().unwrap()).unwrap();
    // the recording names a temperature for all; the baseline variant takes none, its formula is that of tau 1
    let tau = case["tau"].as_f64().filter(|_| estimator.claims().knobs.contains(&"tau")).map(Tau::Constant);
    let knobs = Knobs { tau, samples: case["samples"].as_i64(), gap: case["gap"].as_f64(), ..Knobs::default() };
    let built = estimator.build(&knobs).unwrap();
    let array = |key: &str| floats(&arrays[case[key].as_str().unwrap()]);
    let (logits, upstream) = (array("logits"), array("upstream"));
    tch::manual_seed(case["seed"].as_i64().unwrap());
    for (i, call_) in case["calls"].as_array().unwrap().iter().enumerate() {
        let (index, value, grad) = call(&built, &logits, &upstream);
        let want = tensor(&call_["index"]).to_kind(Kind::Int64);
        let differs = index.not_equal_tensor(&want);
        let near = tensor(&call_["gap_ulp"]).le(NEAR_TIE as f64);
        seen.draws += want.numel();
        seen.differ += differs.sum(Kind::Int64).int64_value(&[]) as usize;
        let wrong = differs.logical_and(&near.logical_not()).any().int64_value(&[]) == 1;
        assert!(!wrong, "{name}, call {i}: a draw differs that is no near tie: {index} not {want}");
        // what was drawn otherwise has another gradient
        let agree = differs.logical_not().unsqueeze(-1).to_kind(Kind::Float);
        let mut compare = |what: &str, ours: &Tensor, theirs: &Value| {
            let theirs = floats(theirs);
            let off = distance(&(ours * &agree), &(&theirs * &agree)) / largest(&theirs).max(1.0);
            assert!(off <= 1e-6, "{name}, call {i}: {what} off by {off:e}");
            seen.off = seen.off.max(off);
        };
        match &call_["value"] {
            Value::Null => assert_eq!(value, index.one_hot(logits.size()[2]).to_kind(Kind::Float), "{name}"),
            relaxed => compare("value", &value, relaxed),
        }
        assert_eq!(call_["grad"].is_null(), grad.is_none(), "{name}: a gradient on one side alone");
        if let Some(grad) = grad {
            compare("gradient", &grad, &call_["grad"]);
        }
    }
    let after = Tensor::rand([4], (Kind::Float, Device::Cpu));
    assert_eq!(after, floats(&case["after"]), "{name}: the generator is left at another place");
}

fn run(path: &Path) -> usize {
    let fixture = read(path);
    if fixture["format"] != "same-seed-draws-1" {
        return 0;
    }
    let cases = fixture["cases"].as_array().unwrap();
    let mut seen = Seen::default();
    for case in cases {
        check(case, &fixture["arrays"], &mut seen);
    }
    println!(
        "fixture {}: {} cases, {} draws, {} differ (near ties), largest error {:e}",
        path.display(),
        cases.len(),
        seen.draws,
        seen.differ,
        seen.off
    );
    // those that have PyTorch code to agree with
    for e in Estimator::ALL.iter().filter(|e| matches!(e.build(&Knobs::default()), Ok(Built::DropIn(_)))) {
        assert!(cases.iter().any(|c| c["estimator"] == e.name().as_str()), "no case of {}", e.name());
    }
    cases.len()
}

#[test]
fn fixture_draws_are_pytorchs_for_the_same_seed() {
    let cases: usize = fixture_files().iter().map(|p| run(p)).sum();
    assert!(cases > 0, "no recording was read");
}
