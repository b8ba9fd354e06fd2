//! Every term as it stands, on the CPU: layouts, threads, and the choice of loops.
use super::geometry::{Class, Conv, Sizes, classes};
use super::tile::{self, GROUP, LANES, Loops, Number, PIXELS};
use crate::autograd::slices::{slice, slice_mut};
use crate::autograd::threads::each;
use crate::dist::binary::{BinaryNoise, Shape};
use crate::error::Result;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// A tile: so many pixels of a class from `start` on.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub class: usize,
    pub start: usize,
}

/// Where the tiles of all threads are written.
pub(super) struct Out<T>(*mut T, usize);

// SAFETY: threads write to places of their own, as `Out::write` demands.
unsafe impl<T: Send> Sync for Out<T> {}

impl<T> Out<T> {
    /// # Safety
    /// No other thread reads or writes this place meanwhile, and it lies within the tensor.
    #[inline(always)]
    pub unsafe fn write(&self, at: usize, value: T) {
        debug_assert!(at < self.1);
        // SAFETY: the caller's promise.
        unsafe { self.0.add(at).write(value) }
    }
}

/// What the threads share. Tasks are counted block by block of channels, so that a block's weights stay in the cache.
pub(super) struct Work<'a, T> {
    /// `[blocks, taps, groups * GROUP]` vectors.
    pub weights: &'a [[T; LANES]],
    /// `[positions, groups, kept, GROUP]`.
    pub units: &'a [T],
    pub x: &'a [T],
    pub out: Out<T>,
    pub classes: &'a [Class],
    pub tiles: &'a [Tile],
    pub groups: usize,
    pub taps: usize,
    pub channels: usize,
    /// Pixels of an input channel.
    pub plane: usize,
}

/// The largest `|w|` at scale 1 for which the ratio form is used. Its rounding error grows like `exp(2 |w|) eps / 8` (the
/// denominator `coth(w) - tau` comes near 0 where both are near 1): 2e-6 and 1e-11 at these weights.
pub(super) fn ratio_limit(kind: Kind) -> f64 {
    if kind == Kind::Double { 6.5 } else { 2.75 }
}

/// Bytes kept of output units at a time, for each thread: those of some images, at least one. They stay in the cache, and the
/// product needs little memory beyond its result.
const CACHED: usize = 1 << 20;

/// The product on the CPU, f32 or f64. `w_max`: the largest `|w|` at scale 1.
pub(super) fn conv2d(
    op: &'static str,
    noise: &BinaryNoise,
    x: &Tensor,
    w: &Tensor,
    a: &Tensor,
    g: &Tensor,
    conv: &Conv,
    w_max: f64,
) -> Result<Tensor> {
    let sizes = Sizes::new(op, x, w, a, conv)?;
    let kind = x.kind();
    if x.numel() == 0 || a.numel() == 0 {
        return Ok(x.f_zeros_like()?);
    }
    let ratio = noise.shape() == Shape::Logistic && w_max <= ratio_limit(kind);
    let [x, w, a, g] = [x.f_contiguous()?, w.f_contiguous()?, a.f_contiguous()?, g.f_contiguous()?];
    match kind {
        Kind::Float => {
            let loops = match noise.shape() {
                Shape::Logistic if ratio => tile::ratio_f32(),
                Shape::Logistic => tile::logistic_f32(),
                Shape::Uniform => tile::uniform_f32(),
                Shape::Triangular => tile::triangular_f32(),
                Shape::Normal => tile::normal_f32(),
            };
            run(&sizes, &loops, noise.scale(), &x, &w, &a, &g)
        }
        _ => {
            let loops = match noise.shape() {
                Shape::Logistic if ratio => tile::ratio_f64(),
                Shape::Logistic => tile::logistic_f64(),
                Shape::Uniform => tile::uniform_f64(),
                Shape::Triangular => tile::triangular_f64(),
                Shape::Normal => tile::normal_f64(),
            };
            run(&sizes, &loops, noise.scale(), &x, &w, &a, &g)
        }
    }
}

fn run<T: Number>(
    s: &Sizes,
    loops: &Loops<T>,
    scale: f64,
    x: &Tensor,
    w: &Tensor,
    a: &Tensor,
    g: &Tensor,
) -> Result<Tensor> {
    let (threads, size) = (tch::get_num_threads().max(1) as usize, x.size());
    let empty = |n: usize| Tensor::f_empty([n as i64], (x.kind(), Device::Cpu));
    let (groups, blocks) = (s.output.div_ceil(GROUP), s.input.div_ceil(LANES));

    let inverse = T::of(1.0 / scale);

    let mut packed = empty(blocks * s.taps() * groups * GROUP * LANES)?;
    let weights = slice_mut::<T>(&mut packed)?.as_chunks_mut::<LANES>().0;
    {
        let mut prepared = empty(w.numel())?;
        let prepared = slice_mut::<T>(&mut prepared)?;
        (loops.weights)(slice(w)?, inverse, prepared);
        let prepared = &*prepared;
        each(threads, weights, s.taps() * groups * GROUP, |block, out| pack(prepared, s, block, out));
    }
    let weights = &*weights;

    let (x, a, g) = (slice::<T>(x)?, slice::<T>(a)?, slice::<T>(g)?);
    let [above, below] = [s.output * s.to[0] * s.to[1], s.input * s.from[0] * s.from[1]];
    let wide = s.to[0] * s.to[1] * groups * GROUP * loops.kept;
    let at_once = (threads * (CACHED / (wide * size_of::<T>())).max(1)).min(s.batch);
    let mut kept = empty(at_once * wide)?;
    let kept = slice_mut::<T>(&mut kept)?;
    let mut result = empty(x.len())?;
    let out = slice_mut::<T>(&mut result)?;
    for first in (0..s.batch).step_by(at_once) {
        let n = at_once.min(s.batch - first);
        let units = &mut kept[..n * wide];
        each(threads, units, wide, |b, out| {
            let range = (first + b) * above..(first + b + 1) * above;
            (loops.units)(&a[range.clone()], &g[range], inverse, s.output, out)
        });
        let classes = classes(&Sizes { batch: n, ..*s });
        let tiles: Vec<Tile> = classes
            .iter()
            .enumerate()
            .flat_map(|(class, c)| (0..c.pixels.len()).step_by(PIXELS).map(move |start| Tile { class, start }))
            .collect();
        let range = first * below..(first + n) * below;
        let out = &mut out[range.clone()];
        let work = Work {
            weights,
            units,
            x: &x[range],
            out: Out(out.as_mut_ptr(), out.len()),
            classes: &classes,
            tiles: &tiles,
            groups,
            taps: s.taps(),
            channels: s.input,
            plane: s.from[0] * s.from[1],
        };
        share(threads, blocks * tiles.len(), |tasks| (loops.tiles)(&work, tasks));
    }
    Ok(result.f_view(size.as_slice())?)
}

/// The weights of one block of channels: `[O, C, taps]` -> `[taps, O up to whole groups, LANES]`; what is beyond the last
/// channel or unit is 2, which no tau comes near.
fn pack<T: Number>(w: &[T], s: &Sizes, block: usize, out: &mut [[T; LANES]]) {
    let (taps, per_tap) = (s.taps(), out.len() / s.taps());
    let lanes = LANES.min(s.input - block * LANES);
    out.fill([T::of(2.0); LANES]);
    for (o, w) in w.chunks_exact(s.input * taps).enumerate() {
        for (l, w) in w[block * LANES * taps..][..lanes * taps].chunks_exact(taps).enumerate() {
            for (tap, &w) in w.iter().enumerate() {
                out[tap * per_tap + o][l] = w;
            }
        }
    }
}

/// `f(range)` over parts of `0..n`, one a thread.
fn share(threads: usize, n: usize, f: impl Fn(Range<usize>) + Sync) {
    if threads == 1 {
        return f(0..n);
    }
    let per_thread = n.div_ceil(threads);
    std::thread::scope(|scope| {
        for start in (0..n).step_by(per_thread.max(1)) {
            let f = &f;
            scope.spawn(move || f(start..n.min(start + per_thread)));
        }
    });
}
