//! Which outputs of a convolution an input unit reaches.
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Stride and zero padding of a convolution, each for height and width. The default is stride 1 without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// Step between output positions.
    pub stride: [i64; 2],
    /// Zeros on either side.
    pub padding: [i64; 2],
}

impl Default for Conv {
    fn default() -> Self {
        Conv { stride: [1, 1], padding: [0, 0] }
    }
}

impl Conv {
    /// The same stride and padding in both directions.
    pub fn square(stride: i64, padding: i64) -> Self {
        Conv { stride: [stride; 2], padding: [padding; 2] }
    }
}

/// Sizes of one product, checked against each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub batch: usize,
    pub input: usize,
    pub output: usize,
    /// Height and width: of the input, of the output, of the kernel.
    pub from: [usize; 2],
    pub to: [usize; 2],
    pub kernel: [usize; 2],
    pub conv: Conv,
}

impl Sizes {
    /// From x `[B, C, H, W]`, w `[O, C, kh, kw]`, a `[B, O, H', W']`.
    pub fn new(op: &'static str, x: &Tensor, w: &Tensor, a: &Tensor, conv: &Conv) -> Result<Sizes> {
        let (xs, ws, got) = (x.size(), w.size(), a.size());
        if xs.len() != 4 || ws.len() != 4 || xs[1] != ws[1] {
            return Err(Error::shape(op, "x_in [B, C, H, W] and w [O, C, kh, kw]", [xs, ws]));
        }
        let [s, p] = [conv.stride, conv.padding];
        if s[0] < 1 || s[1] < 1 || p[0] < 0 || p[1] < 0 || ws[2] < 1 || ws[3] < 1 {
            return Err(Error::shape(op, "stride and kernel of at least 1, padding of at least 0", (conv, ws)));
        }
        let to = |axis: usize| (xs[2 + axis] + 2 * p[axis] - ws[2 + axis]).div_euclid(s[axis]) + 1;
        let want = [xs[0], ws[0], to(0), to(1)];
        if got != want {
            return Err(Error::shape(op, format!("a {want:?} for x_in {xs:?}, w {ws:?}, {conv:?}"), got));
        }
        let at = |size: &[i64]| [size[2] as usize, size[3] as usize];
        Ok(Sizes {
            batch: xs[0] as usize,
            input: xs[1] as usize,
            output: ws[0] as usize,
            from: at(&xs),
            to: at(&got),
            kernel: at(&ws),
            conv: *conv,
        })
    }

    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub fn positions(&self) -> usize {
        self.batch * self.to[0] * self.to[1]
    }
}

/// Input positions of one axis that reach their outputs through the same kernel entries: `first, first + stride, ..`,
/// `count` of them, the m-th at output `at - m`.
struct Axis {
    first: usize,
    count: usize,
    /// Pairs of input position and `at`.
    members: Vec<(usize, usize)>,
}

fn axis(from: usize, to: usize, kernel: usize, stride: usize, padding: usize) -> Vec<Axis> {
    let mut classes: Vec<Axis> = vec![];
    for y in 0..from {
        let reaches = |k: usize| (y + padding).checked_sub(k).filter(|d| d % stride == 0 && d / stride < to);
        let entries: Vec<usize> = (0..kernel).filter(|&k| reaches(k).is_some()).collect();
        let first = entries.first().copied().unwrap_or(0);
        let at = reaches(first).map_or(0, |d| d / stride);
        match classes.iter_mut().find(|c| (c.first, c.count) == (first, entries.len())) {
            Some(class) => class.members.push((y, at)),
            None => classes.push(Axis { first, count: entries.len(), members: vec![(y, at)] }),
        }
    }
    classes
}

/// Input pixels that share their kernel entries.
pub(super) struct Class {
    /// Kernel entry, and how many output positions before the pixel's `at` its output lies.
    pub taps: Vec<(usize, usize)>,
    /// Output position for tap offset 0, counted over the batch, and index of the pixel in channel 0 of the input.
    pub pixels: Vec<(usize, usize)>,
}

/// All input pixels of a batch, by class.
pub(super) fn classes(s: &Sizes) -> Vec<Class> {
    let along = |i: usize| {
        let (stride, padding) = (s.conv.stride[i] as usize, s.conv.padding[i] as usize);
        axis(s.from[i], s.to[i], s.kernel[i], stride, padding)
    };
    let (rows, columns) = (along(0), along(1));
    let step = [s.conv.stride[0] as usize, s.conv.stride[1] as usize];
    let mut out = vec![];
    for r in &rows {
        for c in &columns {
            let taps = (0..r.count * c.count).map(|m| {
                let (y, x) = (m / c.count, m % c.count);
                ((r.first + y * step[0]) * s.kernel[1] + c.first + x * step[1], y * s.to[1] + x)
            });
            let mut pixels = Vec::with_capacity(s.batch * r.members.len() * c.members.len());
            for b in 0..s.batch {
                for &(y, at_y) in &r.members {
                    for &(x, at_x) in &c.members {
                        let at = (b * s.to[0] + at_y) * s.to[1] + at_x;
                        pixels.push((at, (b * s.input * s.from[0] + y) * s.from[1] + x));
                    }
                }
            }
            out.push(Class { taps: taps.collect(), pixels });
        }
    }
    out
}
