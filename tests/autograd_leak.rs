//! A hundred thousand round trips through a custom function leave nothing behind. A file, hence a process, of its own:
//! it measures the memory of the whole process.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tch::{Kind, Tensor};
use thruway::autograd::Function;

static DROPS: AtomicUsize = AtomicUsize::new(0);

struct Token;
impl Drop for Token {
    fn drop(&mut self) {
        DROPS.fetch_add(1, Relaxed);
    }
}

/// One graph: its backward succeeds, returns an error, panics, or never runs.
fn round_trip(i: usize, x: &Tensor) {
    let (token, held) = (Token, Arc::new([0u8; 64]));
    let y = Function::new("Trip")
        .inputs(&[x])
        .save(&[x])
        .save_output(0)
        .apply(
            || Ok(vec![x.exp()]),
            move |b| {
                let _held = (&token, &held);
                match i % 4 {
                    0 => Ok(vec![Some(b.grad(0)? * &b.saved()[1])]),
                    1 => anyhow::bail!("an error that carries {i}"),
                    _ => panic!("a panic that carries {i}"),
                }
            },
        )
        .unwrap()
        .remove(0);
    if i % 4 < 3 {
        let result = Tensor::f_run_backward(&[y.sum(Kind::Float)], &[x], false, false);
        assert_eq!(result.is_ok(), i.is_multiple_of(4));
    }
}

fn resident_bytes() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

#[test]
fn a_hundred_thousand_round_trips_leave_memory_flat() {
    std::panic::set_hook(Box::new(|_| ())); // 25,000 panics are meant here
    let x = Tensor::from_slice(&[1f32, 2.]).set_requires_grad(true);
    (0..10_000).for_each(|i| round_trip(i, &x)); // allocator and lazy tables reach their size
    let before = resident_bytes();
    (0..100_000).for_each(|i| round_trip(i, &x));
    let grown = resident_bytes() - before;
    let _ = std::panic::take_hook();
    assert_eq!(DROPS.load(Relaxed), 110_000);
    // malloc's least chunk, 32 bytes, lost in one kind of trip out of four would make 800 kB.
    println!("resident memory grew by {grown} bytes");
    assert!(grown < 400_000, "resident memory grew by {grown} bytes");
}
