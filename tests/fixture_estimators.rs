//! Outputs and gradients of the published PyTorch code, draw for draw (`estimator-fixtures-1`).
mod common;
use common::{distance, fixture_files, read, tensor};
use serde_json::Value;
use tch::{Kind, Tensor};
use thruway::estimators::{Estimator, GradEstimator, Knobs, Tau};
use thruway::noise::Tape;

fn knobs(case: &Value) -> (Estimator, Knobs) {
    let tau = Some(Tau::Constant(case["tau"].as_f64().unwrap()));
    let knobs = Knobs { tau, ..Knobs::default() };
    match case["estimator"].as_str().unwrap() {
        "gr_mck" => (Estimator::GumbelRao, Knobs { samples: case["mc_samples"].as_i64(), ..knobs }),
        "gst_1.0" => (Estimator::Gst, Knobs { gap: Some(1.0), ..knobs }),
        "gst_p" => (Estimator::GstP, knobs),
        name => (Estimator::by_name(name).unwrap(), knobs),
    }
}

/// The reference ST takes tau < 1 and so do we; the recorded draw stands for the first one.
fn check(case: &Value) -> f64 {
    let name = case["name"].as_str().unwrap();
    let (estimator, knobs) = knobs(case);
    let estimator = estimator.build(&knobs).unwrap().drop_in().unwrap();
    let logits = tensor(&case["logits"]).set_requires_grad(true);
    let index = tensor(&case["sample_index"]).to_kind(Kind::Int64);
    let mut entries = vec![];
    match case["estimator"].as_str().unwrap() {
        "stgs" => entries.push(("gumbel", tensor(&case["gumbel"]))),
        e => {
            entries.push(("index", index.shallow_clone()));
            if e == "gr_mck" {
                entries.push(("exponential", tensor(&case["exponential"])));
            }
        }
    }
    let mut tape = Tape::new(entries);
    let s = estimator.draw(&logits, None, &mut tape).unwrap();
    tape.finish().unwrap();
    assert_eq!(s.index, index, "{name}: draw");
    assert_eq!(s.value, tensor(&case["output"]), "{name}: output must be exactly one-hot");
    assert_eq!(s.value.kind(), Kind::Double, "{name}: kind");
    let mut total = (&s.value * tensor(&case["upstream"])).sum(Kind::Double);
    if case["y_soft"].is_array() {
        assert!(distance(&s.probs.detach(), &tensor(&case["y_soft"])) < 1e-12, "{name}: y_soft");
    }
    if case["upstream_y_soft"].is_array() {
        total += (&s.probs * tensor(&case["upstream_y_soft"])).sum(Kind::Double);
    }
    total.backward();
    // Where the public code loses digits the fixture has a second answer, and that is the one we owe.
    let (key, tolerance) = match () {
        _ if case["grad_logits_log1p"].is_array() => ("grad_logits_log1p", 1e-9),
        _ if case["grad_logits_without_eps"].is_array() => ("grad_logits_without_eps", 1e-9),
        _ => ("grad_logits", case["tolerance"].as_f64().unwrap()),
    };
    let want = tensor(&case[key]);
    let error = distance(&logits.grad(), &want) / want.abs().max().double_value(&[]).max(1.0);
    assert!(error <= tolerance, "{name}: gradient off by {error:e}, tolerance {tolerance:e}");
    error
}

#[test]
fn every_estimator_fixture_within_its_tolerance() {
    let (mut files, mut all) = (0, 0);
    for path in fixture_files() {
        let fixture = read(&path);
        if fixture["format"] != "estimator-fixtures-1" {
            continue;
        }
        let cases = fixture["cases"].as_array().unwrap();
        let worst = cases.iter().map(check).fold(0.0, f64::max);
        println!("fixture {}: {} cases, largest error {worst:e}", path.display(), cases.len());
        files += 1;
        all += cases.len();
    }
    assert!(files > 0 && all > 0, "no estimator fixture was read");
}

/// `THRUWAY_FIXTURES` as a whole: says what each file is, fails when nothing in it was known.
#[test]
fn fixture_directory_is_read() {
    let Some(dir) = std::env::var_os("THRUWAY_FIXTURES") else {
        common::skip("fixture_directory_is_read", "THRUWAY_FIXTURES is not set");
        return;
    };
    let mut read_cases = 0;
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let fixture = read(path);
        match fixture["format"].as_str() {
            Some("estimator-fixtures-1") => {
                let n = fixture["cases"].as_array().unwrap().iter().map(check).count();
                println!("fixture {}: {n} cases", path.display());
                read_cases += n;
            }
            Some("psa-fixture-1" | "psa-555-1") => {
                let n = common::psa::check(&fixture).expect("a known format").cases;
                println!("fixture {}: {n} cases", path.display());
                read_cases += n;
            }
            f => println!("fixture {}: format {} not known", path.display(), f.unwrap_or("(none)")),
        }
    }
    assert!(read_cases > 0, "no case read in {}", dir.display());
}

/// Expected estimates by enumeration, on the quadratics and cubics of the fixture.
#[test]
fn expectations_of_the_estimator_fixture() {
    let mut checked = 0;
    for path in fixture_files() {
        let fixture = read(&path);
        if fixture["format"] != "estimator-fixtures-1" {
            continue;
        }
        for problem in fixture["expectation_properties"].as_array().unwrap() {
            checked += expectation(problem);
        }
    }
    assert!(checked > 0);
}

fn expectation(problem: &Value) -> usize {
    let theta = tensor(&problem["theta"]);
    let (l, k) = theta.size2().unwrap();
    let (c0, b, a) = (problem["c0"].as_f64().unwrap(), tensor(&problem["b"]), tensor(&problem["A"]));
    let t = problem["T"].is_array().then(|| tensor(&problem["T"]));
    let f = |d: &Tensor| -> thruway::Result<Tensor> {
        let size = d.size();
        let x = d.reshape([-1, l * k]);
        let mut y = c0 + x.matmul(&b) + (x.matmul(&a) * &x).sum_dim_intlist(-1, false, Kind::Double);
        if let Some(t) = &t {
            y += Tensor::einsum("ijk,ni,nj,nk->n", &[t, &x, &x, &x], None::<i64>);
        }
        Ok(y.view(&size[..size.len() - 2]))
    };
    let exact = thruway::exact::gradient(&theta.unsqueeze(0), &f).unwrap().squeeze_dim(0);
    assert!(distance(&exact, &tensor(&problem["exact_gradient"])) < 1e-10, "{}: exact", problem["name"]);
    let states = thruway::exact::states(l, k, Kind::Double, tch::Device::Cpu).unwrap();
    let s = states.size()[0];
    let p = thruway::exact::probabilities(&theta.unsqueeze(0), &states).unwrap(); // [S, 1]
    let mut checked = 0;
    for e in problem["estimators"].as_array().unwrap() {
        let name = e["estimator"].as_str().unwrap();
        let tau = e["tau"].as_f64().map(Tau::Constant);
        let (estimator, knobs) = match name {
            "st" => (Estimator::St, Knobs { tau, ..Knobs::default() }),
            "reinmax" => (Estimator::Reinmax, Knobs { tau, ..Knobs::default() }),
            "gst_1.0" => (Estimator::Gst, Knobs { tau, ..Knobs::default() }),
            "gst_p" => (Estimator::GstP, Knobs { tau, ..Knobs::default() }),
            "reinmax_uniform_baseline_as_derived" => (Estimator::ReinmaxBaseline, Knobs::default()),
            "reinforce" | "reinmax_uniform_baseline_as_coded" => continue,
            other => panic!("estimator {other} of the fixture is not known here"),
        };
        // all states as a batch of S rows
        let logits = theta.unsqueeze(0).expand([s, l, k], false).contiguous().set_requires_grad(true);
        let index = states.argmax(-1, false);
        let built = estimator.build(&knobs).unwrap();
        let mut tape = Tape::new([("index", index)]);
        built.surrogate_loss(&logits, &f, &mut tape).unwrap().sum(Kind::Double).backward();
        let g = logits.grad();
        let mean = (&g * p.unsqueeze(-1)).sum_dim_intlist(0, false, Kind::Double);
        let variance = ((&g - &mean).square() * p.unsqueeze(-1)).sum_dim_intlist(0, false, Kind::Double);
        let label = format!("{} {name} tau {}", problem["name"], e["tau"]);
        assert!(distance(&mean, &tensor(&e["expected_gradient"])) < 1e-10, "{label}: mean");
        assert!(distance(&variance, &tensor(&e["elementwise_variance"])) < 1e-10, "{label}: variance");
        checked += 1;
    }
    checked
}
