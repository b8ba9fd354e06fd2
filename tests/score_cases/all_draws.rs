//! RLOO, Double CV and RODEO by their definitions, with and without likely mistakes, over all tuples of draws.
use super::common::{distance, largest, perturb, sizes};
use super::{Problem, Tuples};
use tch::{Kind, Tensor};
use thruway::dist::bernoulli::Code;
use thruway::estimators::{Estimator, GradEstimator, Knobs, Variables};

pub fn probabilities(problem: &Problem) -> Tensor {
    match problem.variables {
        Variables::Boolean(_) => problem.theta.sigmoid(),
        Variables::Categorical => problem.theta.softmax(-1, Kind::Double),
    }
}

fn mean<'a>(all: impl Iterator<Item = &'a Tensor>) -> Tensor {
    Tensor::stack(&all.collect::<Vec<_>>(), 0).mean_dim(0, false, Kind::Double)
}

/// RODEO by its definition, flip by flip, with one part of it replaced by a likely mistake (or none): `[rows, 3]`.
fn rodeo(problem: &Problem, tuples: &Tuples, learned: &[(String, Tensor)], wrong: &str) -> Tensor {
    let of = |name: &str| learned.iter().find(|(n, _)| n == name).unwrap().1.detach();
    let [alpha, beta, w1, b1, w2, b2] = ["alpha", "beta", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"].map(of);
    let p = problem.theta.sigmoid();
    let (b, f, df) = tuples.of_draws(problem);
    let m = b.len();
    let others = |k: usize| (0..m).filter(move |j| *j != k);
    let h = |k: usize, y: &Tensor| {
        let outputs = others(k).map(|j| {
            let s = (&df[j] * (y - &b[j])).sum_dim_intlist(-1, false, Kind::Double);
            let t = if wrong == "own value" { &f[k] } else { &f[j] };
            let a = Tensor::stack(&[&s, t], -1).linear(&w1, Some(&b1));
            a.maximum(&(&a * 0.3)).linear(&w2, Some(&b2))
        });
        let outputs = mean(outputs.collect::<Vec<_>>().iter());
        [outputs.select(-1, 0), outputs.select(-1, 1)]
    };
    let stein = |k: usize| {
        let stays = &b[k] * &p + (1f64 - &b[k]) * (1f64 - &p);
        let w = if wrong == "own probability" { stays } else { 1f64 - stays };
        let [h0, h1] = h(k, &b[k]);
        let (mut dk, mut vk) = (h0.zeros_like(), b[k].zeros_like());
        for i in 0..3 {
            let step = (1f64 - &b[k] * 2.0) * Tensor::eye(3, (Kind::Double, tch::Device::Cpu)).get(i);
            let [y0, y1] = h(k, &(&b[k] + &step));
            let w = w.select(-1, i) / 3.0;
            dk += &w * (y0 - &h0);
            let moved = match wrong {
                "sign of the flip" => &b[k] - &step,
                "no flip" => b[k].copy(),
                _ => &b[k] + &step,
            };
            vk += w.unsqueeze(-1) * (y1.unsqueeze(-1) * (moved - &p) - h1.unsqueeze(-1) * (&b[k] - &p));
        }
        (dk, vk)
    };
    let (d, v): (Vec<Tensor>, Vec<Tensor>) = (0..m).map(stein).unzip();
    let each = (0..m).map(|k| {
        let from = |j: usize| if wrong == "own D" { &d[k] } else { &d[j] };
        let baseline = mean(others(k).map(|j| &f[j] + &alpha * from(j)).collect::<Vec<_>>().iter());
        (&f[k] - baseline).unsqueeze(-1) * (&b[k] - &p) + &beta * &v[k]
    });
    mean(each.collect::<Vec<_>>().iter())
}

/// Double CV by its definition, RLOO with alpha 0, likewise: `[rows, coordinates]`.
fn double_cv(problem: &Problem, tuples: &Tuples, alpha: f64, wrong: &str) -> Tensor {
    let p = probabilities(problem);
    let (b, f, df) = tuples.of_draws(problem);
    let m = b.len();
    let others = |k: usize| (0..m).filter(move |j| *j != k);
    let flat = |t: Tensor| t.view([tuples.rows(), -1]);
    let value = |k: usize| {
        let slope = if wrong == "own slope" { df[k].copy() } else { mean(others(k).map(|j| &df[j])) };
        &f[k] + flat(slope * (&b[k] - &p)).sum_dim_intlist(-1, false, Kind::Double) * alpha
    };
    let values: Vec<Tensor> = (0..m).map(value).collect();
    let each = (0..m).map(|k| {
        let baseline = if wrong == "own mean" { mean(values.iter()) } else { mean(others(k).map(|j| &values[j])) };
        (&values[k] - baseline).unsqueeze(-1) * flat(&b[k] - &p)
    });
    let g = mean(df.iter());
    let through = match problem.variables {
        Variables::Boolean(_) => g * &p * (1f64 - &p),
        Variables::Categorical => (&g - (&g * &p).sum_dim_intlist(-1, true, Kind::Double)) * &p,
    };
    let through = if wrong == "nothing back" { through.zeros_like() } else { through };
    mean(each.collect::<Vec<_>>().iter()) - flat(through) * alpha
}

/// Over all tuples of two and three draws: every estimate is the definition's, and their mean the exact gradient, with
/// control variates as large as the estimate itself. A z-test of thousands of draws sees errors of several percent; here
/// each mistake shifts the mean by more than 10% of the gradient (30% and more, as printed), and rounding is 1e-10.
#[test]
fn control_variates_have_mean_zero_over_all_draws() {
    let codes = [None, Some(Code::ZeroOne), Some(Code::PlusMinus)];
    for (which, m) in [(0, 2), (1, 2), (2, 2), (1, 3)] {
        for code in codes {
            let problem = Problem::new(code, which);
            let (tuples, exact) = (Tuples::new(&problem, m), problem.exact());
            let weights = tuples.weights(&problem);
            assert!((weights.sum(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-12);
            let off = |g: &Tensor| distance(&(g * &weights).sum_dim_intlist(0, false, Kind::Double), &exact);
            let check = |name: &str, wrong: &[&str], got: &Tensor, by: &dyn Fn(&str) -> Tensor| {
                let at = format!("{name} {code:?}, problem {which}, {m} draws");
                let apart = distance(got, &by(""));
                assert!(apart < 1e-10, "{at}: {apart:e} from its definition");
                assert!(off(got) < 1e-10, "{at}: the mean is off by {:e}", off(got));
                for w in wrong {
                    let missed = off(&by(w)) / largest(&exact);
                    println!("{at}, {w}: off by {missed:.3}");
                    assert!(missed > 0.1, "{at}: {w} passes, off by {missed:e}");
                }
            };
            let build = |e: Estimator| {
                let built = e.build(&Knobs { code, samples: Some(m), sizes: sizes(3), ..Knobs::default() }).unwrap();
                perturb(&built, 11);
                let large = |n: &str| ["alpha", "beta"].iter().position(|l| *l == n).map(|i| [5.0, -4.0][i]);
                let kept = built.parameters();
                let old = |n: &str| kept.iter().find(|(k, _)| k == n).map(|(_, t)| t.copy());
                built.load(&|n| large(n).map(Tensor::from).or(old(n))).unwrap();
                built
            };
            let rloo = build(Estimator::Rloo);
            check("rloo", &["own mean"], &tuples.estimates(&rloo, &problem), &|w| double_cv(&problem, &tuples, 0.0, w));
            let wrong = ["own slope", "nothing back", "own mean"];
            let double = build(Estimator::DoubleCv);
            check("double-cv", &wrong, &tuples.estimates(&double, &problem), &|w| double_cv(&problem, &tuples, 5.0, w));
            if code.is_some() {
                let built = build(Estimator::Rodeo);
                let learned = built.parameters();
                let wrong = ["own value", "sign of the flip", "no flip", "own D", "own probability"];
                check("rodeo", &wrong, &tuples.estimates(&built, &problem), &|w| rodeo(&problem, &tuples, &learned, w));
            }
        }
    }
}
