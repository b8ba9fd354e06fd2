//! The battery that every estimator of the registry passes: shapes, kinds, masks, extreme values, errors.
//!
//! Nothing here names an estimator where its claims can say what to expect of it.
mod common;
use common::{Recording, distance, largest, normals, plain};
use tch::{Device, Kind, Tensor};
use thruway::estimators::{Built, DropIn, Estimator, GradEstimator, Knobs, Takes, Tau};
use thruway::noise::{HostNoise, Noise, Tape};

const KINDS: [Kind; 2] = [Kind::Double, Kind::Float];

fn eps(kind: Kind) -> f64 {
    match kind {
        Kind::Double => f64::EPSILON,
        Kind::Float => f32::EPSILON as f64,
        Kind::Half => 2f64.powi(-10),
        _ => 2f64.powi(-7),
    }
}

/// Every estimator at its defaults and at two more temperatures and gaps, few samples.
fn settings() -> Vec<(String, Estimator, Knobs)> {
    let mut all = vec![];
    for &e in Estimator::ALL {
        let takes = |knob| e.claims().knobs.contains(&knob);
        let samples = takes("samples").then_some(7);
        all.push((e.name(), e, Knobs { samples: samples.filter(|_| e == Estimator::GumbelRao), ..plain(e) }));
        for tau in [0.7, 1.3].into_iter().filter(|_| takes("tau")) {
            let knobs = Knobs { tau: Some(Tau::Constant(tau)), samples, gap: takes("gap").then_some(2.5), ..plain(e) };
            if tau >= 1.0 || e.claims().tau != ">= 1" || e.build(&knobs).is_ok() {
                all.push((format!("{} tau {tau}", e.name()), e, knobs));
            }
        }
    }
    all
}

fn drop_ins() -> Vec<(String, Estimator, Box<dyn DropIn>)> {
    let built = settings().into_iter().map(|(name, e, knobs)| (name, e, e.build(&knobs).unwrap()));
    let all: Vec<_> = built
        .filter_map(|(name, e, built)| match built {
            Built::DropIn(d) => Some((name, e, d)),
            Built::Boolean(..) | Built::Wide(..) => None,
        })
        .collect();
    assert!(all.len() >= 8);
    all
}

/// What one draw gave.
struct Drawn {
    value: Tensor,
    probs: Tensor,
    index: Tensor,
    grad: Tensor,
}

/// A draw and the gradient of `sum(value * upstream)`.
fn draw(e: &dyn DropIn, logits: &Tensor, mask: Option<&Tensor>, upstream: &Tensor, noise: &mut dyn Noise) -> Drawn {
    let leaf = logits.detach().set_requires_grad(true);
    let s = e.draw(&leaf, mask, noise).unwrap();
    (&s.value * upstream).sum(upstream.kind()).backward();
    assert!(!s.index.requires_grad() && s.probs.requires_grad());
    Drawn { value: s.value.detach(), probs: s.probs.detach(), index: s.index, grad: leaf.grad() }
}

fn finite(t: &Tensor) -> bool {
    t.isfinite().all().int64_value(&[]) == 1
}

fn same(a: &Drawn, b: &Drawn) -> bool {
    a.value == b.value && a.probs == b.probs && a.index == b.index && a.grad == b.grad
}

#[test]
fn shapes_kinds_one_hot_and_rows_that_sum_to_zero() {
    let shapes: [&[i64]; 6] = [&[5], &[7, 5], &[4, 3, 5], &[2, 3, 4, 5], &[0, 5], &[3, 64]];
    for (name, e, d) in drop_ins() {
        for kind in KINDS {
            for (i, shape) in shapes.iter().enumerate() {
                let at = format!("{name} {kind:?} {shape:?}");
                let k = *shape.last().unwrap();
                let logits = normals(shape, kind, i as u64);
                let upstream = normals(shape, kind, 100 + i as u64);
                let r = draw(d.as_ref(), &logits, None, &upstream, &mut HostNoise::new(i as u64));
                for t in [&r.value, &r.probs, &r.grad] {
                    assert_eq!((t.size(), t.kind()), (shape.to_vec(), kind), "{at}");
                }
                assert_eq!(r.index.size(), &shape[..shape.len() - 1], "{at}: index");
                assert_eq!(r.index.kind(), Kind::Int64, "{at}: index");
                assert!(finite(&r.grad) && finite(&r.value), "{at}: not finite");
                assert!(distance(&r.probs, &logits.softmax(-1, kind)) <= 4.0 * eps(kind), "{at}: probs");
                if e.claims().hard_forward {
                    assert_eq!(r.value, r.index.one_hot(k).to_kind(kind), "{at}: not exactly one-hot");
                } else {
                    assert_eq!(r.value.argmax(-1, false), r.index, "{at}: index");
                    let sums = r.value.sum_dim_intlist(-1, false, kind);
                    assert!(distance(&sums, &sums.ones_like()) < 8.0 * eps(kind), "{at}: not on the simplex");
                    assert!(shape[0] == 0 || r.value != r.index.one_hot(k).to_kind(kind), "{at}: claims to be relaxed");
                }
                // Each term of a row is rounded once or twice at the size of the row's upstream values.
                let sums = r.grad.sum_dim_intlist(-1, false, kind);
                let scale = if r.grad.numel() == 0 { 1.0 } else { largest(&r.grad).max(1.0) };
                assert!(distance(&sums, &sums.zeros_like()) <= 32.0 * eps(kind) * scale, "{at}: rows must sum to 0");
                assert!(shape[0] == 0 || largest(&r.grad) > 1e-3, "{at}: no gradient at all");
            }
        }
    }
}

#[test]
fn one_class_has_no_gradient() {
    for (name, _, d) in drop_ins() {
        for kind in KINDS {
            for shape in [&[1i64][..], &[4, 1], &[2, 3, 1]] {
                let r =
                    draw(d.as_ref(), &normals(shape, kind, 1), None, &normals(shape, kind, 2), &mut HostNoise::new(3));
                assert_eq!(r.value, r.value.ones_like(), "{name} {shape:?}");
                assert_eq!(r.grad, r.grad.zeros_like(), "{name} {shape:?}");
            }
        }
    }
}

#[test]
fn the_same_tape_gives_the_same_result() {
    for (name, _, d) in drop_ins() {
        let (logits, upstream) = (normals(&[4, 3, 5], Kind::Float, 1), normals(&[4, 3, 5], Kind::Float, 2));
        let mut noise = Recording::new(5);
        let first = draw(d.as_ref(), &logits, None, &upstream, &mut noise);
        let mut tape = noise.tape(Tensor::shallow_clone);
        assert!(same(&first, &draw(d.as_ref(), &logits, None, &upstream, &mut tape)), "{name}");
        tape.finish().unwrap();
        let other = draw(d.as_ref(), &logits, None, &upstream, &mut HostNoise::new(6));
        assert!(!same(&first, &other), "{name}: does not depend on the noise");
    }
}

#[test]
fn a_batch_of_two_is_two_singles() {
    for (name, _, d) in drop_ins() {
        for kind in KINDS {
            let (logits, upstream) = (normals(&[2, 3, 5], kind, 1), normals(&[2, 3, 5], kind, 2));
            let mut noise = Recording::new(7);
            let both = draw(d.as_ref(), &logits, None, &upstream, &mut noise);
            for i in 0..2 {
                let mut tape = noise.tape(|t| t.view([2, -1]).get(i));
                let one = draw(d.as_ref(), &logits.get(i), None, &upstream.get(i), &mut tape);
                tape.finish().unwrap();
                assert_eq!(both.value.get(i), one.value, "{name}");
                assert_eq!(both.index.get(i), one.index, "{name}");
                assert_eq!(both.grad.get(i), one.grad, "{name}");
            }
        }
    }
}

#[test]
fn strided_logits_and_upstream_are_as_good_as_contiguous_ones() {
    for (name, _, d) in drop_ins() {
        let logits = normals(&[5, 4, 3], Kind::Float, 1).permute([1, 2, 0]); // [4, 3, 5]
        let upstream = normals(&[4, 5, 3], Kind::Float, 2).transpose(1, 2);
        let mut noise = Recording::new(8);
        let plain = draw(d.as_ref(), &logits.contiguous(), None, &upstream.contiguous(), &mut noise);
        let strided = draw(d.as_ref(), &logits, None, &upstream, &mut noise.tape(Tensor::shallow_clone));
        assert!(!logits.is_contiguous() && same(&plain, &strided), "{name}");
        // one row seen four times: its gradient is the sum over the four
        let row = normals(&[1, 5], Kind::Double, 3).set_requires_grad(true);
        let s = d.draw(&row.expand([4, 5], false), None, &mut HostNoise::new(9)).unwrap();
        (s.value * normals(&[4, 5], Kind::Double, 4)).sum(Kind::Double).backward();
        assert!(row.grad().size() == [1, 5] && finite(&row.grad()), "{name}: expanded");
    }
}

#[test]
fn extreme_logits_stay_finite() {
    for (name, _, d) in drop_ins() {
        for kind in KINDS {
            for size in [20.0, 40.0, 50.0, 200.0, 1e30] {
                let logits = (normals(&[60, 6], kind, 1).sign() * size).set_requires_grad(false);
                let upstream = normals(&[60, 6], kind, 2);
                let r = draw(d.as_ref(), &logits, None, &upstream, &mut HostNoise::new(1));
                assert!(finite(&r.value) && finite(&r.grad), "{name} {kind:?}: not finite at +-{size}");
                let drawn = logits.gather(-1, &r.index.unsqueeze(-1), false).squeeze_dim(-1);
                assert_eq!(drawn, logits.amax([-1], false), "{name}: drew a class of probability e^-{size}");
                // Any class whose probability has not underflowed may be handed in.
                let leaf = logits.detach().set_requires_grad(true);
                let any = normals(&[60, 6], kind, 5).masked_fill(&r.probs.eq(0.0), f64::NEG_INFINITY);
                let hard = any.argmax(-1, false).one_hot(6).to_kind(kind);
                let v = d.attach(&leaf, &hard, &mut HostNoise::new(2)).unwrap();
                (&v * &upstream).sum(kind).backward();
                assert!(finite(&leaf.grad()), "{name} {kind:?}: attach not finite at +-{size}");
            }
        }
    }
}

#[test]
fn masked_classes_are_never_drawn_and_the_others_do_not_notice_them() {
    let keep = Tensor::from_slice(&[0i64, 2, 3, 5]);
    let mask = Tensor::from_slice(&[true, false, true, true, false, true]);
    for (name, _, d) in drop_ins() {
        for kind in KINDS {
            let all = normals(&[10_000, 6], kind, 1);
            let logits = all.masked_fill(&mask.logical_not(), f64::NEG_INFINITY);
            let upstream = normals(&[10_000, 6], kind, 2);
            let mut noise = Recording::new(3);
            let r = draw(d.as_ref(), &logits, None, &upstream, &mut noise);
            let drawn = r.index.bincount::<Tensor>(None, 6);
            assert_eq!(
                drawn.masked_select(&mask.logical_not()).sum(Kind::Int64).int64_value(&[]),
                0,
                "{name}: {drawn}"
            );
            assert!(drawn.masked_select(&mask).min().int64_value(&[]) > 100, "{name}: {drawn}");
            for (what, t) in [("gradient", &r.grad), ("probability", &r.probs), ("value", &r.value)] {
                let gone = t.masked_select(&mask.logical_not());
                assert_eq!(gone, gone.zeros_like(), "{name} {kind:?}: {what} of a masked class");
            }
            // The problem without these classes, on the same noise; sums of other lengths round differently.
            let mut tape = noise.tape(|t| t.index_select(1, &keep));
            let sub =
                draw(d.as_ref(), &logits.index_select(1, &keep), None, &upstream.index_select(1, &keep), &mut tape);
            tape.finish().unwrap();
            assert_eq!(r.value.index_select(1, &keep).argmax(-1, false), sub.index, "{name}: other draws");
            let off = distance(&r.grad.index_select(1, &keep), &sub.grad) / largest(&sub.grad).max(1.0);
            assert!(off < 32.0 * eps(kind), "{name} {kind:?}: gradient off by {off:e} from the problem without them");
            // The boolean mask says the same as -inf.
            let masked = draw(d.as_ref(), &all, Some(&mask), &upstream, &mut noise.tape(Tensor::shallow_clone));
            assert!(same(&r, &masked), "{name} {kind:?}: boolean mask");
        }
    }
}

#[test]
fn upstream_values_of_masked_classes_do_not_leak() {
    let mask = Tensor::from_slice(&[true, false, true, true]);
    for (name, _, d) in drop_ins() {
        for kind in [Kind::Double, Kind::Float, Kind::BFloat16] {
            let logits = normals(&[5, 4], kind, 1);
            let clean = normals(&[5, 4], kind, 2).masked_fill(&mask.logical_not(), 0.0);
            let want = draw(d.as_ref(), &logits, Some(&mask), &clean, &mut HostNoise::new(4)).grad;
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let upstream = clean.masked_fill(&mask.logical_not(), bad);
                let leaf = logits.detach().set_requires_grad(true);
                let s = d.draw(&leaf, Some(&mask), &mut HostNoise::new(4)).unwrap();
                (&s.value * &upstream).sum(kind).backward();
                assert_eq!(leaf.grad(), want, "{name} {kind:?}: {bad} leaked through the sample");
                let leaf = logits.detach().set_requires_grad(true);
                let s = d.draw(&leaf, Some(&mask), &mut HostNoise::new(4)).unwrap();
                (&s.probs * &upstream).sum(kind).backward();
                assert!(finite(&leaf.grad()), "{name} {kind:?}: {bad} leaked through the probabilities");
            }
        }
    }
}

#[test]
fn probabilities_are_differentiated_as_an_ordinary_softmax() {
    for (name, _, d) in drop_ins() {
        let (g, u) = (normals(&[4, 5], Kind::Double, 2), normals(&[4, 5], Kind::Double, 3));
        let logits = normals(&[4, 5], Kind::Double, 1);
        let through_value = draw(d.as_ref(), &logits, None, &g, &mut HostNoise::new(1)).grad;
        let plain = logits.copy().set_requires_grad(true);
        (plain.softmax(-1, Kind::Double) * &u).sum(Kind::Double).backward();
        for with_value in [false, true] {
            let leaf = logits.copy().set_requires_grad(true);
            let s = d.draw(&leaf, None, &mut HostNoise::new(1)).unwrap();
            let mut loss = (&s.probs * &u).sum(Kind::Double);
            let mut want = plain.grad();
            if with_value {
                loss += (&s.value * &g).sum(Kind::Double);
                want += &through_value;
            }
            loss.backward();
            // two sums of six terms each, in other orders
            assert!(distance(&leaf.grad(), &want) < 1e-14, "{name}");
        }
    }
}

#[test]
fn without_gradients_there_is_no_graph() {
    for (name, _, d) in drop_ins() {
        let leaf = normals(&[4, 5], Kind::Float, 1).set_requires_grad(true);
        let s = tch::no_grad(|| d.draw(&leaf, None, &mut HostNoise::new(1)).unwrap());
        assert!(!s.value.requires_grad() && !s.probs.requires_grad(), "{name}: no_grad");
        let s = d.draw(&leaf.detach(), None, &mut HostNoise::new(1)).unwrap();
        assert!(!s.value.requires_grad() && !s.probs.requires_grad(), "{name}: logits without gradient");
        let s = d.draw(&leaf, None, &mut HostNoise::new(1)).unwrap();
        assert!(s.value.requires_grad() && s.probs.requires_grad() && !s.index.requires_grad(), "{name}");
    }
}

/// Half precision on the CPU: the same draw and the gradient to its own rounding.
#[test]
fn half_and_bfloat16_work() {
    for (name, e, d) in drop_ins() {
        for kind in [Kind::Half, Kind::BFloat16] {
            // values that both kinds hold exactly, and one tape
            let logits = (normals(&[6, 5], Kind::Float, 1) * 8.0).round() / 8.0;
            let upstream = (normals(&[6, 5], Kind::Float, 2) * 8.0).round() / 8.0;
            let mut noise = Recording::new(4);
            let low = draw(d.as_ref(), &logits.to_kind(kind), None, &upstream.to_kind(kind), &mut noise);
            let mut tape = noise.tape(Tensor::shallow_clone);
            let full = draw(d.as_ref(), &logits, None, &upstream, &mut tape);
            assert_eq!((low.value.kind(), low.grad.kind()), (kind, kind), "{name}");
            assert_eq!(low.index, full.index, "{name} {kind:?}");
            if e.claims().hard_forward {
                assert_eq!(low.value.to_kind(Kind::Float), full.value, "{name} {kind:?}");
            }
            // about ten operations, each rounded at the size of the largest gradient
            let off = distance(&low.grad.to_kind(Kind::Float), &full.grad) / largest(&full.grad).max(1.0);
            assert!(off < 10.0 * eps(kind), "{name} {kind:?}: gradient off by {off}");
        }
    }
}

#[test]
fn temperatures_follow_their_schedule() {
    let schedules = [(Tau::Linear { from: 2.0, to: 1.0, steps: 10 }, 1.5), {
        (Tau::Exponential { from: 4.0, to: 1.0, steps: 10 }, 2.0)
    }];
    // REBAR and RELAX learn theirs, and take where it starts
    let scheduled = |e: &&Estimator| e.claims().knobs.contains(&"tau") && e.claims().variables == Takes::Both;
    for &e in Estimator::ALL.iter().filter(scheduled) {
        let (logits, upstream) = (normals(&[4, 5], Kind::Double, 1), normals(&[4, 5], Kind::Double, 2));
        let samples = e.claims().knobs.contains(&"samples").then_some(7);
        let build = |tau| e.build(&Knobs { tau: Some(tau), samples, ..Knobs::default() }).unwrap().drop_in().unwrap();
        let grad = |d: &dyn DropIn| draw(d, &logits, None, &upstream, &mut HostNoise::new(1)).grad;
        for (schedule, middle) in schedules {
            let mut d = build(schedule);
            let first = schedule.at(0);
            assert_eq!(grad(d.as_ref()), grad(build(Tau::Constant(first)).as_ref()), "{}: start", e.name());
            for (step, tau) in [(0, first), (5, middle), (10, 1.0), (1_000_000, 1.0), (5, middle)] {
                d.at_step(step);
                assert_eq!(d.tau(), Some(schedule.at(step)), "{} at step {step}", e.name());
                let want = grad(build(Tau::Constant(tau)).as_ref());
                assert!(distance(&grad(d.as_ref()), &want) < 1e-14, "{} at step {step}", e.name());
            }
            assert!(
                distance(&grad(build(Tau::Constant(2.0)).as_ref()), &grad(build(Tau::Constant(1.0)).as_ref())) > 1e-3
            );
        }
    }
}

fn refused<T>(r: thruway::Result<T>, words: &[&str]) {
    let text = match r {
        Ok(_) => panic!("accepted; the refusal should have said {words:?}"),
        Err(e) => e.to_string(),
    };
    for w in words {
        assert!(text.contains(w), "{text:?} does not say {w:?}");
    }
    assert!(text.lines().count() == 1 && text.len() < 400, "too long: {text}");
}

#[test]
fn bad_logits_and_masks_are_refused_in_words() {
    let bad_value = |at: i64, v: f64, kind| {
        let t = normals(&[2, 3, 5], kind, 1);
        let _ = t.view([6, 5]).get(at).get(at % 5).fill_(v);
        t
    };
    for (name, _, d) in drop_ins() {
        println!("{name}");
        let draw = |logits: &Tensor, mask: Option<&Tensor>| d.draw(logits, mask, &mut HostNoise::new(1));
        let float = |size: &[i64]| normals(size, Kind::Float, 1);
        refused(draw(&float(&[3, 0]), None), &["K >= 1", "[3, 0]"]);
        refused(draw(&float(&[]), None), &["K >= 1", "[]"]);
        refused(draw(&Tensor::zeros([2, 3], (Kind::Int64, Device::Cpu)), None), &["floating", "Int64"]);
        refused(draw(&Tensor::zeros([2, 3], (Kind::Bool, Device::Cpu)), None), &["floating", "Bool"]);
        for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16] {
            for at in 0..6 {
                let row = format!("row {at},");
                refused(draw(&bad_value(at, f64::NAN, kind), None), &["NaN", &row]);
                refused(draw(&bad_value(at, f64::INFINITY, kind), None), &["+inf", &row]);
            }
            let none_left = bad_value(0, 0.0, kind);
            let _ = none_left.view([6, 5]).get(4).fill_(f64::NEG_INFINITY);
            refused(draw(&none_left, None), &["row 4,", "at least one class", "-inf"]);
            let hard = Tensor::zeros([2, 3, 5], (kind, Device::Cpu));
            refused(d.attach(&bad_value(3, f64::NAN, kind), &hard, &mut HostNoise::new(1)), &["NaN", "row 3,"]);
        }
        let logits = float(&[2, 5]);
        let mask = Tensor::ones([2, 5], (Kind::Bool, Device::Cpu));
        let _ = mask.get(1).fill_(0.0);
        refused(draw(&logits, Some(&mask)), &["row 1,", "at least one class"]);
        for kind in [Kind::Float, Kind::Int64, Kind::Uint8] {
            refused(draw(&logits, Some(&mask.to_kind(kind))), &["mask", "boolean", &format!("{kind:?}")]);
        }
        let ones = |size: &[i64]| Tensor::ones(size, (Kind::Bool, Device::Cpu));
        for wrong in [&[4][..], &[3, 5], &[3, 2, 5]] {
            refused(draw(&logits, Some(&ones(wrong))), &["mask", "[2, 5]", &format!("{wrong:?}")]);
        }
        refused(d.attach(&logits, &float(&[2, 4]), &mut HostNoise::new(1)), &["attach", "[2, 5]", "[2, 4]"]);
    }
}

#[test]
fn bad_knobs_are_refused_in_words() {
    for &e in Estimator::ALL {
        let name = e.name();
        let takes = e.claims().knobs;
        let list = if takes.is_empty() { "none".to_string() } else { format!("--{}", takes.join(", --")) };
        let tau = |t| Knobs { tau: Some(t), ..plain(e) };
        let samples = |s| Knobs { samples: Some(s), ..plain(e) };
        let gap = |g| Knobs { gap: Some(g), ..plain(e) };
        let decay = |d| Knobs { decay: Some(d), ..plain(e) };
        let interval = |i| Knobs { interval: Some(i), ..plain(e) };
        let scale = |s| Knobs { scale: Some(s), ..plain(e) };
        for (knob, knobs) in [
            ("tau", tau(Tau::Constant(1.0))),
            ("samples", samples(10)),
            ("gap", gap(1.0)),
            ("decay", decay(0.9)),
            ("interval", interval(0.2)),
            ("scale", scale(0.5)),
        ] {
            match takes.contains(&knob) {
                true => assert!(e.build(&knobs).is_ok(), "{name} --{knob}"),
                false => refused(e.build(&knobs), &[&format!("{name} takes no --{knob}"), &list]),
            }
        }
        if takes.contains(&"tau") {
            for t in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                refused(e.build(&tau(Tau::Constant(t))), &[&name, "tau", "positive and finite", &t.to_string()]);
                refused(e.build(&tau(Tau::Linear { from: 2.0, to: t, steps: 10 })), &[&name, "positive and finite"]);
                refused(e.build(&tau(Tau::Exponential { from: t, to: 2.0, steps: 10 })), &["positive and finite"]);
            }
            refused(e.build(&tau(Tau::Linear { from: 2.0, to: 1.0, steps: 0 })), &["steps", "at least 1", "0"]);
        }
        if takes.contains(&"samples") {
            for s in [0, -3] {
                refused(e.build(&samples(s)), &[&name, "samples", "at least", &s.to_string()]);
            }
        }
        if takes.contains(&"gap") {
            for g in [-0.5, f64::NAN, f64::INFINITY] {
                refused(e.build(&gap(g)), &[&name, "gap", "finite and at least 0", &g.to_string()]);
            }
        }
        for (bad, knobs) in [(1.0, decay(1.0)), (-0.1, decay(-0.1)), (f64::NAN, decay(f64::NAN))] {
            if takes.contains(&"decay") {
                refused(e.build(&knobs), &[&name, "decay", "in [0, 1)", &bad.to_string()]);
            }
        }
        if takes.contains(&"interval") {
            refused(e.build(&interval(1.5)), &[&name, "interval", "in [0, 1]", "1.5"]);
            refused(e.build(&scale(0.0)), &[&name, "scale", "positive and finite", "0"]);
        }
        if e.claims().variables == Takes::Boolean {
            refused(e.build(&Knobs::default()), &[&name, "Boolean"]);
        }
    }
    for schedule in [Tau::Constant(0.99), Tau::Linear { from: 2.0, to: 0.5, steps: 10 }] {
        let knobs = Knobs { tau: Some(schedule), ..Knobs::default() };
        refused(Estimator::Reinmax.build(&knobs), &["reinmax: tau", "at least 1"]);
    }
}

#[test]
fn names_are_unique_kebab_case_and_the_table_has_them_all() {
    let names: Vec<String> = Estimator::ALL.iter().map(|e| e.name()).collect();
    for (i, (e, name)) in Estimator::ALL.iter().zip(&names).enumerate() {
        assert!(!names[..i].contains(name), "{name} twice");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
        assert!(!name.starts_with('-') && !name.ends_with('-') && !name.contains("--"), "{name}");
        assert_eq!(Estimator::by_name(name).unwrap(), *e);
        assert_eq!(serde_json::to_value(e).unwrap(), name.as_str());
        assert!(!e.title().is_empty() && !e.claims().source.is_empty());
        let row =
            Estimator::table().lines().filter(|l| l.starts_with(&format!("| `{name}` | {} |", e.title()))).count();
        assert_eq!(row, 1, "{name} in the table");
    }
    assert_eq!(Estimator::table().lines().count(), 2 + names.len());
    let mut words = vec!["unknown estimator", "\"gumbel\""];
    words.extend(names.iter().map(String::as_str));
    refused(Estimator::by_name("gumbel"), &words);
    assert!(Estimator::by_name("ST").is_err() && Estimator::by_name("").is_err());
}

/// Those that need the objective itself: refused as drop-ins, and the parts of the battery that make sense for them.
#[test]
fn wide_estimators_keep_the_contract() {
    let mut seen = 0;
    for &e in Estimator::ALL.iter().filter(|e| e.claims().variables == Takes::Both) {
        let name = e.name();
        let Built::Wide(..) = e.build(&Knobs::default()).unwrap() else { continue };
        seen += 1;
        refused(e.build(&Knobs::default()).unwrap().drop_in(), &[&name, "objective", "drop-in"]);
        for kind in KINDS {
            let weights = normals(&[3, 4], kind, 2);
            // bad where the masked class is drawn
            let f = |d: &Tensor| {
                let bad = d.select(-1, 3).sum_dim_intlist(-1, false, kind) * f64::INFINITY;
                let clean = (d * &weights).sum_dim_intlist([-2i64, -1].as_slice(), false, kind).square();
                Ok(clean.where_self(&bad.isnan(), &bad))
            };
            let grad = |logits: &Tensor, noise: &mut dyn Noise| {
                let built = e.build(&Knobs::default()).unwrap(); // nothing remembered
                let leaf = logits.detach().set_requires_grad(true);
                let loss = built.surrogate_loss(&leaf, &f, noise).unwrap();
                assert_eq!((loss.size(), loss.kind()), (vec![logits.size()[0]], kind), "{name}");
                loss.sum(kind).backward();
                (loss.detach(), leaf.grad())
            };
            let logits = normals(&[2, 3, 4], kind, 1);
            let _ = logits.select(-1, 3).fill_(f64::NEG_INFINITY);
            let mut noise = Recording::new(1);
            let (loss, g) = grad(&logits, &mut noise);
            assert!(finite(&loss) && finite(&g) && largest(&g) > 1e-3, "{name} {kind:?}: {g}");
            assert_eq!(g.select(-1, 3), g.select(-1, 3).zeros_like(), "{name}: masked class");
            assert!(largest(&g.sum_dim_intlist(-1, false, kind)) < 32.0 * eps(kind) * largest(&g), "{name}: rows");
            let again = grad(&logits, &mut noise.tape(Tensor::shallow_clone));
            assert_eq!((&loss, &g), (&again.0, &again.1), "{name}: same tape");
            for i in 0..2 {
                // [M, B = 2, ..], M draws of what is asked for
                let mut tape = noise.tape(|t| t.view([t.numel() as i64 / 24, 2, -1]).select(1, i).contiguous());
                let one = grad(&logits.narrow(0, i, 1), &mut tape);
                tape.finish().unwrap();
                assert_eq!(one.0, loss.narrow(0, i, 1), "{name}: value of a single");
                assert!(distance(&one.1, &g.narrow(0, i, 1)) < 32.0 * eps(kind) * largest(&g), "{name}: a single");
            }
            for size in [50.0, 200.0] {
                let sharp = logits.sign() * size;
                let _ = sharp.select(-1, 3).fill_(f64::NEG_INFINITY);
                assert!(finite(&grad(&sharp, &mut HostNoise::new(3)).1), "{name}: +-{size}");
            }
            let built = e.build(&Knobs::default()).unwrap();
            let one = |bad: f64| normals(&[2, 3, 4], kind, 1).select(-1, 0).fill_(bad).unsqueeze(-1);
            for (bad, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "+inf"), (f64::NEG_INFINITY, "at least one class")] {
                refused(built.surrogate_loss(&one(bad), &f, &mut HostNoise::new(1)), &[word, "row 0,"]);
            }
            refused(built.surrogate_loss(&normals(&[3, 4], kind, 1), &f, &mut HostNoise::new(1)), &["[B, L, K]"]);
        }
    }
    assert!(seen > 0);
}

/// A given index is what is drawn.
#[test]
fn an_index_tape_decides_the_draw() {
    let index = Tensor::from_slice(&[3i64, 0, 1, 2, 2, 3]).view([2, 3]);
    for (name, e, d) in drop_ins() {
        let logits = normals(&[2, 3, 4], Kind::Double, 1);
        // what perturbs its logits has no index to be given
        let mut tape = Tape::new([("index", index.shallow_clone())]);
        match d.point(&logits, None, &mut tape) {
            Ok(p) => assert!(p.index == index && e.claims().hard_forward, "{name}"),
            Err(err) => assert!(err.to_string().contains("gumbel"), "{name}: {err}"),
        }
    }
}
