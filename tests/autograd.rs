//! The custom autograd function, row by row of what it promises: results, failures, and the life of what it holds.
//! Numbers are float64 and exact in it, so most comparisons are by equality. Memory over many round trips: `autograd_leak`.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use tch::{Device, Kind, TchError, Tensor};
use thruway::autograd::Function;

fn leaf(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).set_requires_grad(true)
}

fn values(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.detach().view(-1)).unwrap()
}

/// y = x^2 with x saved.
fn square(x: &Tensor) -> Tensor {
    Function::new("Square")
        .inputs(&[x])
        .save(&[x])
        .apply(|| Ok(vec![x * x]), |b| Ok(vec![Some(b.grad(0)? * &b.saved()[0] * 2.)]))
        .unwrap()
        .remove(0)
}

/// Identity whose backward is the closure given.
fn identity<B>(x: &Tensor, backward: B) -> Tensor
where
    B: FnMut(&thruway::autograd::Backward) -> anyhow::Result<Vec<Option<Tensor>>> + Send + 'static,
{
    Function::new("Ident").inputs(&[x]).apply(|| Ok(vec![x.shallow_clone()]), backward).unwrap().remove(0)
}

fn message(e: TchError) -> String {
    match e {
        TchError::Torch(text) => text,
        other => panic!("not libtorch's error: {other:?}"),
    }
}

fn backward_error(y: &Tensor) -> String {
    message(y.sum(Kind::Double).f_backward().unwrap_err())
}

/// Counts its drops.
struct Token(Arc<AtomicUsize>);
impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn tracked(x: &Tensor, drops: &Arc<AtomicUsize>) -> Tensor {
    let token = Token(drops.clone());
    identity(x, move |b| {
        let _alive = &token;
        Ok(vec![Some(b.grad(0)?.shallow_clone())])
    })
}

// Life of the closure

#[test]
fn closure_is_dropped_by_the_backward_while_the_graph_still_stands() {
    let (x, drops) = (leaf(&[1.]), Arc::default());
    let y = tracked(&x, &drops).sum(Kind::Double);
    assert_eq!(drops.load(SeqCst), 0);
    y.backward();
    assert_eq!(drops.load(SeqCst), 1);
    drop(y);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn closure_is_dropped_with_a_graph_that_never_ran_backward() {
    let (x, drops) = (leaf(&[1.]), Arc::default());
    let y = tracked(&x, &drops) * 2.;
    assert_eq!(drops.load(SeqCst), 0);
    drop(y);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn closure_survives_keep_graph_and_runs_again() {
    let (x, drops) = (leaf(&[3.]), Arc::default());
    let y = tracked(&x, &drops).sum(Kind::Double);
    Tensor::run_backward(&[&y], &[&x], true, false);
    assert_eq!(drops.load(SeqCst), 0);
    Tensor::run_backward(&[&y], &[&x], false, false);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn closure_is_dropped_at_once_where_nothing_can_need_it() {
    let drops = Arc::default();
    let x = leaf(&[1.]);
    let y = tch::no_grad(|| tracked(&x, &drops));
    assert_eq!(drops.load(SeqCst), 1);
    assert!(!y.requires_grad());
    let z = tracked(&Tensor::from_slice(&[1f64]), &drops);
    assert_eq!(drops.load(SeqCst), 2);
    assert!(!z.requires_grad());
    assert!(x.requires_grad()); // y had been x itself
}

#[test]
fn closure_of_a_failed_backward_is_dropped_with_the_graph() {
    let (x, drops) = (leaf(&[1.]), Arc::<AtomicUsize>::default());
    let token = Token(drops.clone());
    let y = identity(&x, move |_| {
        let _alive = &token;
        anyhow::bail!("no")
    });
    backward_error(&y);
    drop(y);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_panic_in_the_drop_of_the_closure_does_no_harm() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let (x, bomb) = (leaf(&[1.]), Bomb);
    let y = identity(&x, move |b| {
        let _alive = &bomb;
        Ok(vec![Some(b.grad(0)?.shallow_clone())])
    });
    y.sum(Kind::Double).f_backward().unwrap();
    assert_eq!(values(&x.grad()), [1.]);
}

#[test]
fn a_saved_output_forms_no_cycle() {
    let (x, drops) = (leaf(&[1.]), Arc::<AtomicUsize>::default());
    let token = Token(drops.clone());
    let y = Function::new("Exp").inputs(&[&x]).save_output(0).apply(
        || Ok(vec![x.exp()]),
        move |b| {
            let _alive = &token;
            Ok(vec![Some(b.grad(0)? * &b.saved()[0])])
        },
    );
    drop(y.unwrap());
    assert_eq!(drops.load(SeqCst), 1);
}

// Failures

#[test]
fn an_error_in_the_backward_comes_back_with_the_name_and_its_chain() {
    let x = leaf(&[1.]);
    let y = identity(&x, |_| Err(anyhow::anyhow!("root").context("top")));
    assert_eq!(backward_error(&y), "Ident: top: root");
    assert!(!x.grad().defined());
}

#[test]
fn a_panic_in_the_backward_comes_back_as_an_error() {
    let x = leaf(&[1.]);
    assert_eq!(backward_error(&identity(&x, |_| panic!("plain"))), "Ident: panicked: plain");
    assert_eq!(backward_error(&identity(&x, |_| panic!("{} {}", "put", "together"))), "Ident: panicked: put together");
    assert_eq!(backward_error(&identity(&x, |_| std::panic::panic_any(7))), "Ident: panicked: no message");
}

#[test]
fn a_failed_tch_call_in_the_backward_comes_back_without_its_backtrace() {
    let x = leaf(&[1.]);
    let panicking =
        identity(&x, |b| Ok(vec![Some(b.grad(0)?.matmul(&Tensor::zeros([2, 2, 2], (Kind::Double, Device::Cpu))))]));
    let failing = identity(&x, |b| Ok(vec![Some(b.grad(0)?.f_view([7])?)]));
    for (y, start) in [(panicking, "Ident: panicked: "), (failing, "Ident: ")] {
        let text = backward_error(&y);
        assert!(text.starts_with(start) && !text.contains("Exception raised from"), "{text}");
    }
}

#[test]
fn grad_mode_is_restored_whatever_happens() {
    let x = leaf(&[1.]);
    backward_error(&identity(&x, |_| tch::no_grad(|| panic!("leaves grad mode off"))));
    assert!((&x * 2.).requires_grad());
    let inside = |t: &Tensor| (t * 2.).requires_grad();
    let y = Function::new("F").inputs(&[&x]).apply(
        || {
            assert!(!inside(&x), "the forward records a graph");
            Ok(vec![x.exp()])
        },
        move |b| {
            assert!(!inside(&leaf(&[1.])), "the backward records a graph");
            Ok(vec![Some(b.grad(0)?.shallow_clone())])
        },
    );
    Tensor::f_run_backward(&y.unwrap(), &[&x], true, true).unwrap();
    let forward = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Function::new("F").inputs(&[&x]).apply(|| panic!("forward"), |_| Ok(vec![None]))
    }));
    assert!(forward.is_err());
    assert!((&x * 2.).requires_grad());
}

#[test]
fn a_wrong_number_of_gradients_is_refused() {
    let x = leaf(&[1.]);
    assert_eq!(backward_error(&identity(&x, |_| Ok(vec![]))), "Ident: backward returned 0 gradients for 1 inputs");
    assert_eq!(
        backward_error(&identity(&x, |_| Ok(vec![None, None]))),
        "Ident: backward returned 2 gradients for 1 inputs"
    );
}

#[test]
fn a_gradient_of_the_wrong_shape_is_refused() {
    let x = leaf(&[1., 2.]);
    let y = identity(&x, |_| Ok(vec![Some(Tensor::zeros([3], (Kind::Double, Device::Cpu)))]));
    let text = backward_error(&y);
    assert!(text.contains("Ident") && text.contains("invalid gradient at index 0"), "{text}");
    assert!(!x.grad().defined());
}

#[test]
fn a_second_backward_is_refused_also_where_nothing_was_saved() {
    let x = leaf(&[1.]);
    let y = identity(&x, |b| Ok(vec![Some(b.grad(0)?.shallow_clone())])) * 1.;
    y.f_backward().unwrap();
    let text = message(y.f_backward().unwrap_err());
    assert!(text.contains("Ident: Trying to backward through the graph a second time"), "{text}");
}

#[test]
fn a_change_in_place_of_a_saved_tensor_is_caught() {
    // An input, through another handle and through a view; an output; a tensor that is neither.
    for case in 0..4 {
        let x = leaf(&[1., 2.]) * 1.;
        let extra = Tensor::from_slice(&[1f64, 1.]);
        let y = Function::new("Prod")
            .inputs(&[&x])
            .save(&[&x, &extra])
            .save_output(0)
            .apply(|| Ok(vec![&x * &extra]), |b| Ok(vec![Some(b.grad(0)? * &b.saved()[1])]))
            .unwrap()
            .remove(0);
        let loss = (&y * 1.).sum(Kind::Double);
        tch::no_grad(|| match case {
            0 => drop(x.shallow_clone().fill_(5.)),
            1 => drop(x.select(0, 0).fill_(5.)),
            2 => drop(y.shallow_clone().fill_(5.)),
            _ => drop(extra.shallow_clone().fill_(5.)),
        });
        let text = message(loss.f_backward().unwrap_err());
        assert!(text.starts_with("Prod: ") && text.contains("modified by an inplace operation"), "{case}: {text}");
    }
}

#[test]
fn forward_errors_keep_their_type() {
    let x = leaf(&[1.]);
    let run = |e: fn() -> anyhow::Error| Function::new("F").inputs(&[&x]).apply(|| Err(e()), |_| Ok(vec![None]));
    assert!(matches!(run(|| thruway::Error::range("tau", "positive", 0).into()), Err(thruway::Error::Range { .. })));
    assert!(matches!(run(|| TchError::Shape("s".into()).into()), Err(thruway::Error::Torch(TchError::Shape(_)))));
    assert_eq!(run(|| anyhow::anyhow!("root").context("top")).unwrap_err().to_string(), "F: top: root");
}

#[test]
fn an_output_that_is_not_there_is_refused() {
    let x = leaf(&[1.]);
    for f in [Function::new("F").save_output(1), Function::new("F").non_differentiable(&[1])] {
        let e = f.inputs(&[&x]).apply(|| Ok(vec![x.exp()]), |_| Ok(vec![None])).unwrap_err();
        assert_eq!(e.to_string(), "F: there is no output 1: forward returned 1");
    }
}

// Inputs and outputs

#[test]
fn several_inputs_and_outputs() {
    // (a, b) -> (a b, a + b); loss = 10 sum(a b) + sum(a + b)
    let (a, b) = (leaf(&[1., 2.]), leaf(&[3., 4.]));
    let out = Function::new("Pair")
        .inputs(&[&a, &b])
        .save(&[&a, &b])
        .apply(
            || Ok(vec![&a * &b, &a + &b]),
            |c| {
                let (g, h, a, b) = (c.grad(0)?, c.grad(1)?, &c.saved()[0], &c.saved()[1]);
                assert_eq!(c.needs(), [true, true]);
                Ok(vec![Some(g * b + h), Some(g * a + h)])
            },
        )
        .unwrap();
    (&out[0] * 10. + &out[1]).sum(Kind::Double).backward();
    assert_eq!(values(&a.grad()), [31., 41.]);
    assert_eq!(values(&b.grad()), [11., 21.]);
}

#[test]
fn outputs_without_a_gradient() {
    // Output 0 unused by the loss, 1 used, 2 marked, 3 of an integer kind, 4 marked and an alias of the input.
    let x = leaf(&[1., 2.]);
    let out = Function::new("Many")
        .inputs(&[&x])
        .non_differentiable(&[2, 4])
        .save_output(3)
        .apply(
            || Ok(vec![x.exp(), &x * 2., &x * 3., x.argmax(0, true), x.shallow_clone()]),
            |b| {
                let defined: Vec<bool> = b.grads().iter().map(Option::is_some).collect();
                assert_eq!(defined, [false, true, false, false, false]);
                assert_eq!(b.grad(0).unwrap_err().to_string(), "output 0 has no gradient");
                assert_eq!(b.grad(5).unwrap_err().to_string(), "there is no output 5");
                assert_eq!(b.saved()[0].int64_value(&[0]), 1);
                Ok(vec![Some(b.grad(1)? * 2.)])
            },
        )
        .unwrap();
    let requires: Vec<bool> = out.iter().map(Tensor::requires_grad).collect();
    assert_eq!(requires, [true, true, false, false, false]);
    (&out[1] + &out[2] + &out[4]).sum(Kind::Double).f_backward().unwrap();
    assert_eq!(values(&x.grad()), [2., 2.]);
}

#[test]
fn none_means_no_gradient() {
    let (a, b) = (leaf(&[1.]), leaf(&[2.]));
    let y = Function::new("Half")
        .inputs(&[&a, &b])
        .apply(|| Ok(vec![&a + &b]), |c| Ok(vec![Some(c.grad(0)?.shallow_clone()), None]))
        .unwrap();
    y[0].backward();
    assert_eq!(values(&a.grad()), [1.]);
    assert!(!b.grad().defined());
}

#[test]
fn without_any_incoming_gradient_the_closure_is_not_called() {
    let x = leaf(&[1.]);
    let inner = identity(&x, |_| panic!("called"));
    let outer = identity(&inner, |_| Ok(vec![None]));
    outer.f_backward().unwrap();
    assert!(!x.grad().defined());
}

#[test]
fn needs_follows_the_inputs_and_the_pass() {
    let (a, b, c) = (leaf(&[1.]), Tensor::from_slice(&[2f64]), leaf(&[3.]));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = seen.clone();
    let y = Function::new("Sum3")
        .inputs(&[&a, &b, &c])
        .apply(
            || Ok(vec![&a + &b + &c]),
            move |x| {
                record.lock().unwrap().push(x.needs().to_vec());
                // A gradient for an input that needs none is ignored, even one of a wrong shape.
                let wrong = Tensor::zeros([9], (Kind::Double, Device::Cpu));
                Ok(vec![Some(x.grad(0)?.shallow_clone()), Some(wrong), Some(x.grad(0)?.shallow_clone())])
            },
        )
        .unwrap()
        .remove(0);
    let grads = Tensor::f_run_backward(&[&y], &[&c], true, false).unwrap();
    assert_eq!(values(&grads[0]), [1.]);
    y.f_backward().unwrap();
    assert_eq!(*seen.lock().unwrap(), [[false, false, true], [true, false, true]]);
    assert!(!b.grad().defined());
}

#[test]
fn saved_tensors_come_in_the_order_of_the_calls_inputs_before_outputs_and_without_graph() {
    let (a, b) = (leaf(&[1.]), leaf(&[2.]));
    let y = Function::new("Order")
        .inputs(&[&a, &b])
        .save_output(1)
        .save(&[&b])
        .save_output(0)
        .save(&[&a])
        .apply(
            || Ok(vec![&a + 10., &b + 20.]),
            |c| {
                let saved: Vec<f64> = c.saved().iter().map(|t| t.double_value(&[0])).collect();
                assert_eq!(saved, [2., 1., 22., 11.]);
                assert!(c.saved().iter().all(|t| !t.requires_grad()));
                Ok(vec![c.grads()[0].as_ref().map(Tensor::shallow_clone), None])
            },
        )
        .unwrap();
    y[0].f_backward().unwrap();
    assert_eq!(values(&a.grad()), [1.]);
}

#[test]
fn an_output_may_be_an_input_a_view_of_one_or_the_same_tensor_twice() {
    let x = leaf(&[1., 2.]);
    let elsewhere = Tensor::from_slice(&[5f64, 6.]);
    let out = Function::new("Alias")
        .inputs(&[&x])
        .apply(
            || Ok(vec![x.shallow_clone(), x.view([2, 1]), elsewhere.shallow_clone(), elsewhere.shallow_clone()]),
            |b| {
                let g = |i: usize| b.grads()[i].as_ref().map_or(Tensor::from(0.), |g| g.view(2));
                Ok(vec![Some(g(0) + g(1) * 10. + g(2) * 100. + g(3) * 1000.)])
            },
        )
        .unwrap();
    assert!(x.is_leaf() && x.requires_grad());
    assert!(!elsewhere.requires_grad(), "a foreign handle has joined the graph");
    assert!(out.iter().all(|t| t.requires_grad() && !t.is_leaf()));
    assert_eq!(out[0].data_ptr(), x.data_ptr());
    for (i, weight) in [1., 10., 100., 1000.].into_iter().enumerate() {
        let g = Tensor::run_backward(&[out[i].sum(Kind::Double)], &[&x], true, false);
        assert_eq!(values(&g[0]), [weight, weight]);
    }
}

#[test]
fn a_change_in_place_of_an_output_that_is_a_saved_input_is_caught() {
    let x = leaf(&[1., 2.]);
    let y = Function::new("Alias")
        .inputs(&[&x])
        .save(&[&x])
        .apply(|| Ok(vec![x.shallow_clone()]), |b| Ok(vec![Some(b.grad(0)? * &b.saved()[0])]))
        .unwrap()
        .remove(0);
    let loss = (&y * 1.).sum(Kind::Double);
    let _ = tch::no_grad(|| y.shallow_clone().fill_(5.));
    assert!(message(loss.f_backward().unwrap_err()).contains("modified by an inplace operation"));
}

#[test]
fn a_saved_tensor_returned_as_gradient_is_not_shared_with_the_leaf() {
    let (x, w) = (leaf(&[1., 1.]), Tensor::from_slice(&[3f64, 4.]));
    let y = Function::new("Dot")
        .inputs(&[&x])
        .save(&[&w])
        .apply(|| Ok(vec![x.dot(&w)]), |b| Ok(vec![Some(b.saved()[0].shallow_clone())]))
        .unwrap();
    y[0].backward();
    let mut grad = x.grad();
    assert_eq!(values(&grad), [3., 4.]);
    let _ = grad.zero_();
    assert_eq!(values(&w), [3., 4.], "zeroing x.grad has changed w");
}

// Second derivatives

#[test]
fn double_backward_is_refused_in_words() {
    let refused = |e: TchError| {
        let text = message(e);
        assert!(text.contains("Square: double backward is not supported"), "{text}");
    };
    // With respect to the function's input ...
    let x = leaf(&[3.]);
    let first = Tensor::run_backward(&[square(&x)], &[&x], true, true);
    assert_eq!(values(&first[0]), [6.]);
    refused(Tensor::f_run_backward(&[&first[0]], &[&x], false, false).unwrap_err());
    // ... to what came before it, and to what the incoming gradient depends on.
    let (x, w) = (leaf(&[3.]), leaf(&[5.]));
    let loss = square(&(&x * 2.)) * &w;
    let first = Tensor::run_backward(&[loss], &[&x], true, true);
    assert_eq!(values(&first[0]), [120.]);
    refused(Tensor::f_run_backward(&[&first[0]], &[&x], true, false).unwrap_err());
    refused(Tensor::f_run_backward(&[&first[0]], &[&w], true, false).unwrap_err());
}

#[test]
fn double_backward_elsewhere_in_the_graph_is_left_alone() {
    // loss = x^2 (custom) + z^3 (built in): the second derivative by z exists.
    let (x, z) = (leaf(&[3.]), leaf(&[2.]));
    let loss = square(&x) + z.pow_tensor_scalar(3);
    let first = Tensor::run_backward(&[loss], &[&x, &z], true, true);
    let second = Tensor::f_run_backward(&[&first[1]], &[&z], false, false).unwrap();
    assert_eq!(values(&second[0]), [12.]);
}

#[test]
fn double_backward_by_a_gradient_passed_on_spares_the_gradient_that_came_in() {
    // The identity hands back the very tensor it was given: the refusal must not be written into that one.
    let (x, w) = (leaf(&[3.]), leaf(&[2.]));
    let mid = &x * 1.;
    let y = identity(&mid, |b| Ok(vec![Some(b.grad(0)?.shallow_clone())]));
    let first = Tensor::run_backward(&[&y * &w * &w], &[&y], true, true);
    let second = Tensor::f_run_backward(&[&first[0]], &[&w], true, false).unwrap();
    assert_eq!(values(&second[0]), [4.]);
}

// Threads and re-entrance

#[test]
fn graphs_cross_threads() {
    let xs: Vec<Tensor> = (0..4).map(|i| leaf(&[i as f64])).collect();
    let losses: Vec<Tensor> = xs.iter().map(square).collect();
    let threads: Vec<_> = losses.into_iter().map(|y| std::thread::spawn(move || y.f_backward())).collect();
    for t in threads {
        t.join().unwrap().unwrap();
    }
    for (i, x) in xs.iter().enumerate() {
        assert_eq!(values(&x.grad()), [2. * i as f64]);
    }
}

#[test]
fn one_node_reached_from_many_threads_runs_one_call_at_a_time() {
    let x = leaf(&[1.]);
    let (busy, mut calls) = (AtomicBool::new(false), 0usize);
    let total = Arc::new(AtomicUsize::new(0));
    let report = total.clone();
    let y = identity(&x, move |b| {
        assert!(!busy.swap(true, SeqCst), "two calls at once");
        std::thread::sleep(std::time::Duration::from_millis(1));
        calls += 1;
        report.store(calls, SeqCst);
        busy.store(false, SeqCst);
        Ok(vec![Some(b.grad(0)?.shallow_clone())])
    });
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (loss, x) = (&y * 2., x.shallow_clone());
            std::thread::spawn(move || {
                for _ in 0..10 {
                    let g = Tensor::f_run_backward(&[&loss], &[&x], true, false).unwrap();
                    assert_eq!(values(&g[0]), [2.]);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(total.load(SeqCst), 40);
}

/// A backward that runs a backward, `depth` deep, and fails at the bottom if asked to.
fn nested(depth: usize, fail: bool) -> anyhow::Result<f64> {
    let x = leaf(&[1.]);
    let y = tch::with_grad(|| {
        identity(&x, move |b| {
            let below = if depth > 0 {
                nested(depth - 1, fail)?
            } else {
                assert!(!fail, "the bottom");
                0.
            };
            Ok(vec![Some(b.grad(0)? + below)])
        })
    });
    y.f_backward()?;
    Ok(x.grad().double_value(&[0]))
}

#[test]
fn a_backward_within_a_backward() {
    // libtorch continues on threads of its own beyond a depth of some sixty.
    assert_eq!(nested(150, false).unwrap(), 151.);
    let text = format!("{:#}", nested(150, true).unwrap_err());
    assert!(text.contains("panicked: the bottom"), "{}", &text[text.len().saturating_sub(200)..]);
}

#[test]
fn a_chain_of_a_hundred_thousand_nodes_is_dropped_without_exhausting_the_stack() {
    let x = leaf(&[1.]);
    let mut y = x.shallow_clone();
    for _ in 0..100_000 {
        let saved = y.shallow_clone(); // saved, and not an input: its graph must not hang on the saving
        y = Function::new("Link")
            .inputs(&[&x])
            .save(&[&saved])
            .apply(|| Ok(vec![y.copy()]), |b| Ok(vec![Some(b.grad(0)?.shallow_clone())]))
            .unwrap()
            .remove(0);
    }
    drop(y);
}
