//! The inner loops: 4 input pixels times 16 input channels at a time, summed over outputs and kernel entries.
//!
//! Channels lie along the vector, so that short image rows cost nothing: an output unit enters as a scalar broadcast to
//! all lanes, a weight as a vector loaded once for 4 pixels. Output units come in groups of four whose fractions share
//! one division,
//!
//! `h0/d0 + h1/d1 + h2/d2 + h3/d3 = [(h0 d1 + h1 d0) d2 d3 + (h2 d3 + h3 d2) d0 d1] / (d0 d1 d2 d3)`,
//!
//! nine multiplications for four terms. Limits on an AMD EPYC of 2025 (Zen 5, one core, measured): 24.8e9 divisions,
//! 125e9 fused multiply-adds of f32 a second. A division a term could thus not exceed 24.8e9 terms a second, nine
//! multiply-adds for four not 55e9; a tile alone was measured at 33e9, a plain C
//! loop over NCHW rows at 2e9. Whole layers, on a machine busy with other work: 4e9 to 18e9
//! (`benches/results/delta_cpu.json`).
use super::exact::Work;
use crate::autograd::slices::Element;
use crate::kernels::real::Real;
use multiversion::multiversion;
use std::ops::Range;

/// Channels in a vector.
pub(super) const LANES: usize = 16;
/// Pixels in a tile.
pub(super) const PIXELS: usize = 4;
/// Output units that share a division.
pub(super) const GROUP: usize = 4;

/// f32 or f64, with what the loops need beyond [`Real`].
pub(super) trait Number: Real + Element {
    /// The largest `coth(w)` in use: the product of four, and of that with an output unit's number, stays finite. Smaller
    /// weights, down to 0, count as the inverse of it, 1e-9 in f32.
    const LARGEST: Self;
    /// 0 with the sign of self.
    fn sign(self) -> Self;
    /// Self, negated where `sign` is -0.
    fn flip(self, sign: Self) -> Self;
    /// `self * b + c`, fused or in two roundings: without the instruction a fused one is a slow call.
    fn mad(self, b: Self, c: Self, fused: bool) -> Self;
    /// `|x|`.
    fn magnitude(self) -> Self;
    /// The hyperbolic tangent. f32: within 2 ulp below 0.625, 1e-7 above.
    fn tangent(self) -> Self;
    /// The standard normal cdf. f32: within 1e-6.
    fn normal_cdf(self) -> Self;
}

macro_rules! number {
    ($t:ty, $largest:literal, $tangent:expr, $normal_cdf:expr) => {
        impl Number for $t {
            const LARGEST: Self = $largest;
            #[inline(always)]
            fn sign(self) -> Self {
                Self::from_bits(self.to_bits() & (-0.0 as $t).to_bits())
            }
            #[inline(always)]
            fn flip(self, sign: Self) -> Self {
                Self::from_bits(self.to_bits() ^ sign.to_bits())
            }
            #[inline(always)]
            fn mad(self, b: Self, c: Self, fused: bool) -> Self {
                if fused { self.mul_add(b, c) } else { self * b + c }
            }
            #[inline(always)]
            fn magnitude(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn tangent(self) -> Self {
                $tangent(self)
            }
            #[inline(always)]
            fn normal_cdf(self) -> Self {
                $normal_cdf(self)
            }
        }
    };
}
number!(f32, 1e9, tangent_f32, normal_cdf_f32);
number!(f64, 1e70, f64::tanh, |x: f64| libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) / 2.0);

/// Cephes: an odd polynomial below 0.625, `1 - 2 / (e^2x + 1)` above, without branches.
#[inline(always)]
fn tangent_f32(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3f32;
    for c in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = p * z + c;
    }
    let small = p * z * x + x;
    let large = (1.0 - 2.0 / ((2.0 * x.abs()).vexp() + 1.0)).copysign(x);
    if x.abs() < 0.625 { small } else { large }
}

/// `erfc(z) = t exp(-z^2 + polynomial in t)`, `t = 1 / (1 + z / 2)`, z >= 0, to 1.2e-7 relative (Press et al.,
/// Numerical Recipes, 6.2), which a compiler can vectorise.
#[inline(always)]
fn normal_cdf_f32(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77f32;
    for c in [-0.822_152_26, 1.488_515_9, -1.135_204, 0.278_868_07, -0.186_288_06, 0.096_784_18, 0.374_091_96] {
        p = p * t + c;
    }
    p = p * t + 1.000_023_7;
    p = p * t - 1.265_512_2;
    let tail = 0.5 * t * (p - z * z).vexp();
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// A sum over output units, as numbers kept for each of them and what they add for a vector of weights.
pub(super) trait Terms<T: Number> {
    /// Numbers kept for an output unit.
    const KEPT: usize;
    /// What is kept for `GROUP` units: their first numbers, then their second ..
    type Kept: Copy;
    /// As many of them as there are in a slice of numbers.
    fn groups(numbers: &[T]) -> &[Self::Kept];
    /// From a and g, both at scale 1, what is kept.
    fn keep(a: T, g: T) -> [T; 3];
    /// What stands for a weight at scale 1.
    fn weight(w: T) -> T;
    /// Adds `GROUP` units with as many vectors of weights.
    fn add(acc: &mut [T; LANES], weights: &[[T; LANES]; GROUP], signs: &[T; LANES], kept: &Self::Kept, fused: bool);
}

/// Logistic noise and weights that are not extreme: `h / (x coth(w) - tau)` with `h = 2 F'(a) g`, `tau = tanh(a / 2)`.
pub(super) struct Ratio;

/// Any cdf as it stands: `g (F(a) - F(a - 2 w x))`.
pub(super) struct Plain<F>(F);

/// A cdf at scale 1, branch-free.
pub(super) trait Cdf {
    fn cdf<T: Number>(z: T) -> T;
}

pub(super) struct Logistic;
pub(super) struct Uniform;
pub(super) struct Triangular;
pub(super) struct Normal;

impl Cdf for Logistic {
    #[inline(always)]
    fn cdf<T: Number>(z: T) -> T {
        T::ONE / (T::ONE + (-z).vexp())
    }
}

impl Cdf for Uniform {
    #[inline(always)]
    fn cdf<T: Number>(z: T) -> T {
        let y = z * T::of(0.5) + T::of(0.5);
        let y = if y < T::ZERO { T::ZERO } else { y };
        if y > T::ONE { T::ONE } else { y }
    }
}

impl Cdf for Triangular {
    #[inline(always)]
    fn cdf<T: Number>(z: T) -> T {
        let y = T::ONE - z.magnitude();
        let y = if y < T::ZERO { T::ZERO } else { y };
        let tail = y * y * T::of(0.5);
        if z < T::ZERO { tail } else { T::ONE - tail }
    }
}

impl Cdf for Normal {
    #[inline(always)]
    fn cdf<T: Number>(z: T) -> T {
        z.normal_cdf()
    }
}

impl<T: Number> Terms<T> for Ratio {
    const KEPT: usize = 2;
    type Kept = [T; 2 * GROUP];

    #[inline(always)]
    fn groups(numbers: &[T]) -> &[Self::Kept] {
        numbers.as_chunks().0
    }

    #[inline(always)]
    fn keep(a: T, g: T) -> [T; 3] {
        // one exponential that cannot overflow
        let e = (-a.magnitude()).vexp();
        let r = T::ONE / (T::ONE + e);
        [((T::ONE - e) * r).flip(a.sign()), T::of(2.0) * e * r * r * g, T::ZERO]
    }

    #[inline(always)]
    fn weight(w: T) -> T {
        let t = w.tangent();
        let c = T::ONE / t.magnitude();
        let c = if c < T::LARGEST { c } else { T::LARGEST };
        c.flip(t.sign())
    }

    #[inline(always)]
    fn add(acc: &mut [T; LANES], weights: &[[T; LANES]; GROUP], signs: &[T; LANES], kept: &Self::Kept, fused: bool) {
        let (tau, h) = (&kept[..GROUP], &kept[GROUP..2 * GROUP]);
        for l in 0..LANES {
            let d = |i: usize| weights[i][l].flip(signs[l]) - tau[i];
            let (d0, d1, d2, d3) = (d(0), d(1), d(2), d(3));
            let n01 = h[0].mad(d1, h[1] * d0, fused);
            let n23 = h[2].mad(d3, h[3] * d2, fused);
            let (d01, d23) = (d0 * d1, d2 * d3);
            acc[l] += n01.mad(d23, n23 * d01, fused) / (d01 * d23);
        }
    }
}

impl<T: Number, F: Cdf> Terms<T> for Plain<F> {
    const KEPT: usize = 3;
    type Kept = [T; 3 * GROUP];

    #[inline(always)]
    fn groups(numbers: &[T]) -> &[Self::Kept] {
        numbers.as_chunks().0
    }

    #[inline(always)]
    fn keep(a: T, g: T) -> [T; 3] {
        [a, g, F::cdf(a)]
    }

    #[inline(always)]
    fn weight(w: T) -> T {
        w + w
    }

    #[inline(always)]
    fn add(acc: &mut [T; LANES], weights: &[[T; LANES]; GROUP], signs: &[T; LANES], kept: &Self::Kept, fused: bool) {
        for i in 0..GROUP {
            let (a, g, f) = (kept[i], kept[GROUP + i], kept[2 * GROUP + i]);
            for l in 0..LANES {
                let flipped = F::cdf(a - weights[i][l].flip(signs[l]));
                acc[l] = g.mad(f - flipped, acc[l], fused);
            }
        }
    }
}

/// The tiles of `tasks`, written through `work.out`.
#[inline(always)]
fn tiles<T: Number, K: Terms<T>>(work: &Work<T>, tasks: Range<usize>, fused: bool) {
    let groups = work.groups;
    let (units, weights) = (K::groups(work.units), work.weights.as_chunks::<GROUP>().0);
    for task in tasks {
        let (block, tile) = (task / work.tiles.len(), work.tiles[task % work.tiles.len()]);
        let class = &work.classes[tile.class];
        // a tile at the end of a class repeats its last pixel
        let pixels: [_; PIXELS] = std::array::from_fn(|p| class.pixels[(tile.start + p).min(class.pixels.len() - 1)]);
        let (lanes, plane) = (LANES.min(work.channels - block * LANES), work.plane);
        let corners = pixels.map(|(_, corner)| corner + block * LANES * plane);
        let mut signs = [[T::ZERO; LANES]; PIXELS];
        for (signs, corner) in signs.iter_mut().zip(corners) {
            for (sign, x) in signs[..lanes].iter_mut().zip(work.x[corner..].iter().step_by(plane)) {
                *sign = x.sign();
            }
        }
        let mut acc = [[T::ZERO; LANES]; PIXELS];
        for &(entry, back) in &class.taps {
            let weights = &weights[(block * work.taps + entry) * groups..][..groups];
            let kept: [&[K::Kept]; PIXELS] = std::array::from_fn(|p| &units[(pixels[p].0 - back) * groups..][..groups]);
            for (i, weights) in weights.iter().enumerate() {
                let weights = *weights;
                for p in 0..PIXELS {
                    K::add(&mut acc[p], &weights, &signs[p], &kept[p][i], fused);
                }
            }
        }
        for (sums, corner) in acc.iter().zip(corners).take(class.pixels.len() - tile.start) {
            for (l, &sum) in sums[..lanes].iter().enumerate() {
                // SAFETY: an index of the output, which has the shape of x; no other task writes this pixel's channels.
                unsafe { work.out.write(corner + l * plane, sum) };
            }
        }
    }
}

/// What is kept for the output units of one image: `[O, positions]` -> `[positions, groups, KEPT, GROUP]`, the units
/// beyond the last with g = 0. `inverse`: 1 / scale.
#[inline(always)]
fn units<T: Number, K: Terms<T>>(a: &[T], g: &[T], inverse: T, output: usize, out: &mut [T]) {
    /// Positions turned at a time: their outputs of 16 units are as many cache lines.
    const SPAN: usize = 64;
    let positions = a.len() / output;
    let (groups, wide) = (output.div_ceil(GROUP), K::KEPT * GROUP);
    let mut kept = [[T::ZERO; 3]; SPAN];
    for start in (0..positions).step_by(SPAN) {
        let span = SPAN.min(positions - start);
        for o in 0..groups * GROUP {
            if o < output {
                let row = o * positions + start..o * positions + start + span;
                for ((kept, &a), &g) in kept.iter_mut().zip(&a[row.clone()]).zip(&g[row]) {
                    *kept = K::keep(a * inverse, g);
                }
            } else {
                kept = [K::keep(T::ZERO, T::ZERO); SPAN];
            }
            for (j, kept) in kept[..span].iter().enumerate() {
                let at = ((start + j) * groups + o / GROUP) * wide + o % GROUP;
                for (k, &value) in kept[..K::KEPT].iter().enumerate() {
                    out[at + k * GROUP] = value;
                }
            }
        }
    }
}

/// What stands for each weight.
#[inline(always)]
fn weights<T: Number, K: Terms<T>>(w: &[T], inverse: T, out: &mut [T]) {
    for (out, &w) in out.iter_mut().zip(w) {
        *out = K::weight(w * inverse);
    }
}

/// The three loops of one kind of terms, compiled for each kind of processor.
#[allow(clippy::type_complexity, reason = "the signatures are those of the functions above")]
pub(super) struct Loops<T> {
    pub kept: usize,
    pub units: fn(&[T], &[T], T, usize, &mut [T]),
    pub weights: fn(&[T], T, &mut [T]),
    pub tiles: fn(&Work<T>, Range<usize>),
}

macro_rules! loops {
    ($name:ident, $t:ty, $terms:ty) => {
        pub(super) fn $name() -> Loops<$t> {
            #[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
            fn many(work: &Work<$t>, tasks: Range<usize>) {
                tiles::<$t, $terms>(work, tasks, multiversion::target::target_cfg_f!(target_feature = "fma"))
            }
            #[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
            fn keep(a: &[$t], g: &[$t], inverse: $t, output: usize, out: &mut [$t]) {
                units::<$t, $terms>(a, g, inverse, output, out)
            }
            #[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
            fn prepare(w: &[$t], inverse: $t, out: &mut [$t]) {
                weights::<$t, $terms>(w, inverse, out)
            }
            Loops { kept: <$terms as Terms<$t>>::KEPT, units: keep, weights: prepare, tiles: many }
        }
    };
}
loops!(ratio_f32, f32, Ratio);
loops!(ratio_f64, f64, Ratio);
loops!(logistic_f32, f32, Plain<Logistic>);
loops!(logistic_f64, f64, Plain<Logistic>);
loops!(uniform_f32, f32, Plain<Uniform>);
loops!(uniform_f64, f64, Plain<Uniform>);
loops!(triangular_f32, f32, Plain<Triangular>);
loops!(triangular_f64, f64, Plain<Triangular>);
loops!(normal_f32, f32, Plain<Normal>);
loops!(normal_f64, f64, Plain<Normal>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_single_precision_are_as_good_as_they_say() {
        let (mut tangent, mut normal) = (0f64, 0f64);
        for i in -60_000..60_000 {
            let x = i as f32 * 1.7e-4;
            let truth = (x as f64).tanh();
            tangent = tangent.max((x.tangent() as f64 - truth).abs() / truth.abs().max(1e-30));
            normal = normal.max((x.normal_cdf() as f64 - (x as f64).normal_cdf()).abs());
        }
        assert!(tangent < 2.4e-7 && normal < 1e-6, "{tangent:e}, {normal:e}");
        assert_eq!((0f32.tangent(), 90f32.tangent(), (-1e30f32).tangent()), (0.0, 1.0, -1.0));
        assert_eq!(((-1e30f32).normal_cdf(), 1e30f32.normal_cdf()), (0.0, 1.0));
        assert!(f32::NAN.tangent().is_nan() && f32::NAN.normal_cdf().is_nan());
    }
}
