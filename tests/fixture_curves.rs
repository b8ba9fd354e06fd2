//! Training curves of PyTorch, same seed, through the `vae` binary (`training-curve-1`, tests/parity/record_curve.py).
//!
//! Losses agree to 1e-4 of themselves over 100 steps; where draws are recorded (8x4), up to the first that differs. Such a
//! draw must be a near tie by the recorded scores and must not come before step 20. Needs MNIST under `THRUWAY_DATA`.
mod common;
use common::{fixture_files, read, unpack};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tch::{Kind, Tensor};

/// On the processor of the recording every parameter is PyTorch's bit for bit and the losses differ by their own rounding,
/// 2e-7. Elsewhere libtorch's vector library rounds otherwise, and the parameters drift apart.
const LOSS: f64 = 1e-4;
/// Largest margin, in nats, of a draw that may come out the other way: it turns when the two logits have drifted by as much
/// against each other, and parameters that agree to f32 rounding at first are some 1e-4 apart after 50 steps of Adam.
const NEAR_TIE: f64 = 1e-3;
const EARLIEST: usize = 20;

/// The run to compare: losses, and for each step the drawn classes and logits.
struct Ours {
    losses: Vec<f64>,
    /// `[steps, B L]`
    index: Tensor,
    /// `[steps, B L, K]`
    logits: Tensor,
}

/// What decided the recorded draws, `[steps, B L]` and `[steps, B L, 2]`.
struct Draws {
    index: Tensor,
    runner_up: Tensor,
    /// By how much the best score beat the second, in nats.
    margin: Tensor,
    logits: Tensor,
}

impl Draws {
    fn of(fixture: &Value) -> Option<Draws> {
        let draws = fixture.get("draws")?;
        let number = |key: &str| fixture[key].as_i64().unwrap();
        let shape = [number("steps"), number("batch_size") * number("latents")];
        let pair = [shape[0], shape[1], 2];
        let scores = unpack(&draws["scores"], Kind::Float, &pair).to_kind(Kind::Double);
        // stgs adds Gumbel noise to the logits, the others divide probabilities by exponentials
        let scores = if fixture["estimator"] == "stgs" { scores } else { scores.log() };
        let class = |key: &str| unpack(&draws[key], Kind::Uint8, &shape).to_kind(Kind::Int64);
        Some(Draws {
            index: class("index"),
            runner_up: class("runner_up"),
            margin: scores.select(-1, 0) - scores.select(-1, 1),
            logits: unpack(&draws["logits"], Kind::Float, &pair),
        })
    }
}

/// Holds a run to a recording; the words of an acceptance or of a refusal.
fn verdict(ours: &Ours, losses: &[f64], draws: Option<&Draws>) -> Result<String, String> {
    let mut compared = losses.len();
    let mut note = "no draws recorded".to_string();
    if let Some(d) = draws {
        let differs = ours.index.not_equal_tensor(&d.index);
        note = "no draw differs".into();
        if let Some(step) = (0..losses.len()).find(|&s| differs.get(s as i64).any().int64_value(&[]) == 1) {
            let s = step as i64;
            // the loss of that step already has the other draw in it
            compared = step;
            let which: Vec<i64> = Vec::try_from(differs.get(s).nonzero().view([-1])).unwrap();
            for &at in &which {
                let margin = d.margin.double_value(&[s, at]);
                let [a, b] = [&d.index, &d.runner_up].map(|c| c.int64_value(&[s, at]));
                let our = |class: i64| ours.logits.double_value(&[s, at, class]);
                let their = |i: i64| d.logits.double_value(&[s, at, i]);
                let drift = (our(a) - our(b)) - (their(0) - their(1));
                note = format!("step {}, draw {at}: margin {margin:.1e} nats, logits drifted by {drift:.1e}", step + 1);
                if margin > NEAR_TIE {
                    return Err(format!("a draw differs that is no near tie: {note}"));
                }
                // a drift against the winner and as large as the margin, but for the rounding of the scores themselves
                if drift > -margin + 1e-6 {
                    return Err(format!("a draw differs, and its logits do not say why: {note}"));
                }
            }
            if step < EARLIEST {
                return Err(format!("too early: {note}"));
            }
        }
    }
    let off = |s: usize| (ours.losses[s] - losses[s]).abs() / losses[s].abs();
    // `not <=` rather than `>`: NaN counts
    if let Some(s) = (0..compared).find(|&s| !matches!(off(s).partial_cmp(&LOSS), Some(o) if o.is_le())) {
        return Err(format!("loss {} not {} at step {} ({:.1e})", ours.losses[s], losses[s], s + 1, off(s)));
    }
    let worst = (0..compared).map(off).fold(0.0, f64::max);
    let bits = draws.map_or(String::new(), |d| {
        let pair = Tensor::stack(&[&d.index, &d.runner_up], -1);
        let same = ours.logits.gather(-1, &pair, false).eq_tensor(&d.logits).sum(Kind::Int64).int64_value(&[]);
        format!(", {same} of {} logits bit-equal", d.logits.numel())
    });
    Ok(format!("{compared} steps, largest difference {worst:.1e}; {note}{bits}"))
}

fn train(fixture: &Value, out: &Path) -> Ours {
    let word = |key: &str| fixture[key].as_str().unwrap().to_string();
    let number = |key: &str| fixture[key].to_string();
    let flags = [
        ("--dataset", "mnist".into()),
        ("--categorical-dim", number("classes")),
        ("--latent-dim", number("latents")),
        ("--estimator", word("estimator")),
        ("--tau", number("tau")),
        ("--optimizer", word("optimizer")),
        ("--lr", number("lr")),
        ("--batch-size", number("batch_size")),
        ("--seed", number("seed")),
        ("--steps", number("steps")),
        ("--log-every", "1".into()),
        ("--threads", "1".into()),
        ("--device", "cpu".into()),
        ("--out", out.display().to_string()),
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_vae"));
    command.args(flags.iter().flat_map(|(k, v)| [*k, v.as_str()])).args(["--quiet", "--record-draws"]);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    let steps = fixture["steps"].as_u64().unwrap() as usize;
    let mut losses = vec![f64::NAN; steps];
    for line in std::fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines() {
        let point: Value = serde_json::from_str(line).unwrap();
        if let Some(loss) = point["loss"].as_f64() {
            losses[point["step"].as_u64().unwrap() as usize - 1] = loss;
        }
    }
    let recorded = Tensor::read_safetensors(out.join("draws.safetensors")).unwrap();
    let find = |name: &str| recorded.iter().find(|(n, _)| n == name).unwrap().1.shallow_clone();
    let (s, k) = (steps as i64, fixture["classes"].as_i64().unwrap());
    Ours { losses, index: find("index").view([s, -1]), logits: find("logits").view([s, -1, k]) }
}

/// Whether MNIST itself is there; the bundled sample is another data set.
fn mnist() -> bool {
    let Some(dir) = std::env::var_os("THRUWAY_DATA") else { return false };
    let file = Path::new(&dir).join("mnist/train-images-idx3-ubyte");
    file.exists() || file.with_extension("gz").exists()
}

#[test]
fn fixture_training_curves_of_pytorch() {
    let curves: Vec<Value> =
        fixture_files().iter().map(|p| read(p)).filter(|f| f["format"] == "training-curve-1").collect();
    assert!(curves.len() >= 6, "{} recorded curves", curves.len());
    if !mnist() {
        common::skip("fixture_training_curves_of_pytorch", "no mnist/ under THRUWAY_DATA");
        return;
    }
    let mut failures = vec![];
    for fixture in &curves {
        let name = format!("{} {}", fixture["preset"].as_str().unwrap(), fixture["estimator"].as_str().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let ours = train(fixture, &dir.path().join("run"));
        let losses: Vec<f64> = fixture["losses"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
        let draws = Draws::of(fixture);
        match verdict(&ours, &losses, draws.as_ref()) {
            Ok(words) => println!("{name}: {words}"),
            Err(words) => failures.push(format!("{name}: {words}")),
        }
        mutants_are_rejected(&name, ours, &losses, draws.as_ref());
    }
    println!("fixture training curves: {} cases", curves.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The same check refuses a loss that is 2e-4 off, a NaN, and draws that differ early, widely or for no reason.
fn mutants_are_rejected(name: &str, mut ours: Ours, losses: &[f64], draws: Option<&Draws>) {
    for wrong in [losses[10] * (1.0 + 2e-4), f64::NAN] {
        let right = std::mem::replace(&mut ours.losses[10], wrong);
        assert!(verdict(&ours, losses, draws).is_err(), "{name}: loss {wrong} passes");
        ours.losses[10] = right;
    }
    let Some(d) = draws else { return };
    // step 6 and step 26: the runner-up drawn, in a close race and in a clear one
    for (step, close) in [(5i64, true), (25, true), (25, false)] {
        let margins = d.margin.get(step);
        let at = if close { margins.argmin(-1, false) } else { margins.argmax(-1, false) }.int64_value(&[]);
        let index = ours.index.copy();
        let _ = ours.index.get(step).get(at).fill_(d.runner_up.int64_value(&[step, at]));
        assert!(verdict(&ours, losses, draws).is_err(), "{name}: another draw at step {} passes", step + 1);
        ours.index = index;
    }
}
