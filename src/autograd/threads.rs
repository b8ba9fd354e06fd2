//! Work shared out over threads: evaluations, each on one thread where libtorch would give each of them all, and chunks of numbers.
use crate::error::Result;
use tch::{Device, Tensor};

/// `f(state, part)` for each part, in order, without a graph. libtorch's threads are shared out over the parts, each of which
/// is computed on one thread: no product waits for other threads, and the numbers are those of one thread whatever there are.
/// With fewer parts than threads the rest are idle. A single part is left to all of libtorch's threads, as are parts on a GPU,
/// one after the other.
///
/// A thread owns a `state` of its own, since a tensor may go to another thread but not be borrowed there: shallow clones do.
/// `f` neither draws from libtorch's generator nor writes into what the states share: the order of the threads is open.
///
/// # Errors
/// The first of `f`.
///
/// # Panics
/// Where `f` does.
pub fn map<S: Send>(
    parts: &[Tensor],
    state: impl Fn() -> S,
    f: impl Fn(&S, &Tensor) -> Result<Tensor> + Sync,
) -> Result<Vec<Tensor>> {
    let threads = tch::get_num_threads().max(1) as usize;
    let all = |state: S, parts: Vec<Tensor>| {
        let _guard = tch::no_grad_guard();
        parts.iter().map(|part| f(&state, part)).collect::<Result<Vec<_>>>()
    };
    let share = |parts: &[Tensor]| (state(), parts.iter().map(Tensor::shallow_clone).collect());
    let sharing = parts.first().is_some_and(|p| p.device() == Device::Cpu) && parts.len() > 1;
    if threads == 1 || !sharing {
        let (state, parts) = share(parts);
        return all(state, parts);
    }
    let _own = Threads(threads);
    let shares: Vec<(S, Vec<Tensor>)> = parts.chunks(parts.len().div_ceil(threads)).map(share).collect();
    let done: Vec<Result<Vec<Tensor>>> = std::thread::scope(|scope| {
        let all = &all;
        let start = |(state, parts)| {
            scope.spawn(move || {
                tch::get_num_threads(); // a new thread takes the process's number at its first question, and its own after
                tch::set_num_threads(1);
                all(state, parts)
            })
        };
        let running: Vec<_> = shares.into_iter().map(start).collect();
        running.into_iter().map(|r| r.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))).collect()
    });
    Ok(done.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// `f(i, chunk i)` over consecutive chunks, shared among threads.
pub(crate) fn each<T: Send>(threads: usize, data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let chunks = data.len() / chunk;
    let per_thread = chunks.div_ceil(threads);
    let part = |first: usize, data: &mut [T]| {
        for (i, chunk) in data.chunks_exact_mut(chunk).enumerate() {
            f(first + i, chunk);
        }
    };
    if per_thread >= chunks {
        return part(0, data);
    }
    std::thread::scope(|scope| {
        for (n, data) in data.chunks_mut(per_thread * chunk).enumerate() {
            let part = &part;
            scope.spawn(move || part(n * per_thread, data));
        }
    });
}

/// The caller's number of threads, set for the process again at the end: what a thread sets for itself is also what new ones take.
struct Threads(usize);

impl Drop for Threads {
    fn drop(&mut self) {
        tch::set_num_threads(self.0 as i32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::collections::HashSet;
    use std::sync::Mutex;
    use tch::Kind;

    fn parts() -> Vec<Tensor> {
        (1..8).map(|i| Tensor::arange(i * 9000, (Kind::Float, Device::Cpu)).sin()).collect()
    }

    #[test]
    fn any_number_of_threads_gives_the_numbers_of_one() {
        let parts = parts();
        let w = Tensor::from(1.5f32).set_requires_grad(true);
        let of = |threads| {
            tch::set_num_threads(threads);
            let all = map(&parts, || w.shallow_clone(), |w, x| Ok((x * w).sum(Kind::Float))).unwrap();
            // what a new thread takes is the process's own
            assert_eq!(std::thread::spawn(tch::get_num_threads).join().unwrap(), threads);
            all
        };
        let one = of(1);
        for threads in [2, 3, 7, 16] {
            let all = of(threads);
            assert_eq!(all.len(), parts.len());
            assert!(all.iter().zip(&one).all(|(a, b)| a == b), "{threads} threads");
            assert!(all.iter().all(|a| !a.requires_grad()));
        }
        tch::set_num_threads(1);
    }

    #[test]
    fn each_thread_computes_alone() {
        tch::set_num_threads(3);
        let own = Mutex::new(HashSet::new());
        let seen = map(
            &parts(),
            || (),
            |(), _| {
                own.lock().unwrap().insert(std::thread::current().id());
                Ok(Tensor::from(i64::from(tch::get_num_threads())))
            },
        );
        tch::set_num_threads(1);
        assert!(seen.unwrap().iter().all(|n| n.int64_value(&[]) == 1));
        let own = own.into_inner().unwrap();
        assert!(own.len() == 3 && !own.contains(&std::thread::current().id()), "{own:?}");
    }

    #[test]
    fn the_first_error_arrives_and_so_does_a_panic() {
        let of = |f: fn(&(), &Tensor) -> Result<Tensor>| {
            tch::set_num_threads(2);
            let result = std::panic::catch_unwind(|| map(&parts(), || (), f));
            assert_eq!(std::thread::spawn(tch::get_num_threads).join().unwrap(), 2);
            tch::set_num_threads(1);
            result
        };
        let e = of(|(), x| Err(Error::range("part", "none", x.numel()))).unwrap().unwrap_err();
        assert!(e.to_string().contains("9000"), "{e}");
        assert!(of(|(), _| panic!("not today")).is_err());
    }
}
