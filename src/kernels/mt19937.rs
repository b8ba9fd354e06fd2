//! Exponential noise from libtorch's own CPU generator, several times as fast as `exponential_`.
//!
//! libtorch draws each exponential from two 32-bit outputs of a Mersenne twister (Matsumoto & Nishimura 1998) joined to a
//! 53-bit uniform u, `E = -log1p(-u)`, one by one. Here the generator's state is read, the same outputs are made in
//! blocks, the logarithm is taken over whole rows, and the advanced state is written back. The stream is the same word for
//! word; a value differs from libtorch's by at most one rounding of f32.
use crate::autograd::libtorch::{generator_state, set_generator_state};
use crate::autograd::slices::slice_mut;
use crate::error::{Error, Result};
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

const N: usize = 624;
const M: usize = 397;

/// Byte offsets of libtorch's serialised CPU generator (its legacy layout, 5056 bytes): words left before the next
/// twist (i32), index of the next word (u64), and the words, each stored as a u64.
const LEFT: usize = 8;
const NEXT: usize = 16;
const WORDS: usize = 24;
const BYTES: usize = 5056;

/// The Mersenne twister as libtorch holds it.
struct Twister {
    words: [u32; N],
    /// Words used of the present block.
    next: usize,
}

impl Twister {
    fn read(state: &[u8]) -> Twister {
        let word = |i: usize| u64::from_ne_bytes(state[WORDS + 8 * i..][..8].try_into().expect("eight bytes")) as u32;
        let left = i32::from_ne_bytes(state[LEFT..][..4].try_into().expect("four bytes"));
        let next = u64::from_ne_bytes(state[NEXT..][..8].try_into().expect("eight bytes")) as usize;
        // left counts down to 1, at which the next call twists; a fresh seed has left = 1, next = 0
        Twister { words: std::array::from_fn(word), next: if left <= 1 { N } else { next } }
    }

    fn write(&self, state: &mut [u8]) {
        for (i, w) in self.words.iter().enumerate() {
            state[WORDS + 8 * i..][..8].copy_from_slice(&(*w as u64).to_ne_bytes());
        }
        let left = (N - self.next) as i32 + 1;
        state[LEFT..][..4].copy_from_slice(&left.to_ne_bytes());
        state[NEXT..][..8].copy_from_slice(&(self.next as u64).to_ne_bytes());
    }

    fn twist(&mut self) {
        twist(&mut self.words);
        self.next = 0;
    }
}

#[inline(always)]
fn mix(a: u32, b: u32) -> u32 {
    let y = (a & 0x8000_0000) | (b & 0x7fff_ffff);
    (y >> 1) ^ ((b & 1).wrapping_neg() & 0x9908_b0df)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn twist(words: &mut [u32; N]) {
    // New words depend on old ones up to 227 places back, so each stretch below reads only finished words.
    let old = *words;
    for i in 0..N - M {
        words[i] = old[i + M] ^ mix(old[i], old[i + 1]);
    }
    let (done, rest) = words.split_at_mut(N - M);
    for i in 0..N - M {
        rest[i] = done[i] ^ mix(old[i + N - M], old[i + N - M + 1]);
    }
    let (done, rest) = words.split_at_mut(2 * (N - M));
    let done = &done[N - M..];
    for i in 0..N - 1 - 2 * (N - M) {
        rest[i] = done[i] ^ mix(old[i + 2 * (N - M)], old[i + 2 * (N - M) + 1]);
    }
    words[N - 1] = words[M - 1] ^ mix(old[N - 1], words[0]);
}

#[inline(always)]
fn temper(mut y: u32) -> u32 {
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c_5680;
    y ^= (y << 15) & 0xefc6_0000;
    y ^ (y >> 18)
}

/// `-ln(w)` of normal positive doubles, to about 1e-11 relative: enough to round to f32 as the exact value does but for one
/// case in a thousand.
#[inline(always)]
fn minus_ln(w: f64) -> f64 {
    let bits = w.to_bits();
    let shifted = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd); // bits of sqrt(1/2)
    // The exponent as a double without an integer conversion: it lands in the low bits of 1.5 * 2^52.
    let e =
        f64::from_bits(((shifted >> 52) ^ 0x800).wrapping_add(0x4338_0000_0000_0000 - 0x800)) - 6_755_399_441_055_744.0;
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd));
    // ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 0.2;
    p = p * z + 1.0 / 3.0;
    let ln_m = 2.0 * s + 2.0 * s * z * p;
    -(e * std::f64::consts::LN_2 + ln_m)
}

/// Fills `out` from pairs of outputs; `high`, `low`: the halves of the 64-bit word.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn convert(high: &[u32], low: &[u32], out: &mut [f32]) {
    for ((o, &h), &l) in out.iter_mut().zip(high).zip(low) {
        let (h, l) = (temper(h), temper(l));
        let u = (((h & 0x001f_ffff) as u64) << 32) | l as u64; // 53 bits
        // exactly 1 - u / 2^53, never 0; the bits of 2^52 + x make doubles without an integer conversion
        let left = (1u64 << 53) - u;
        let (top, bottom) = (left >> 32, left & 0xffff_ffff);
        let top = f64::from_bits(top | 0x4330_0000_0000_0000) - 4_503_599_627_370_496.0;
        let bottom = f64::from_bits(bottom | 0x4330_0000_0000_0000) - 4_503_599_627_370_496.0;
        let w = top * (1.0 / (1u64 << 21) as f64) + bottom * (1.0 / (1u64 << 53) as f64);
        let e = minus_ln(w) as f32;
        *o = if e < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { e };
    }
}

/// Fills a contiguous f32 CPU tensor with rate-1 exponentials, at least the smallest normal number, from libtorch's
/// default CPU generator: the stream of `exponential_`, which it advances by as much.
///
/// No other thread may draw from that generator meanwhile (libtorch's own ops hold its lock only within one call).
pub fn exponential_(out: &mut Tensor) -> Result<()> {
    let mut state = generator_state(Device::Cpu)?;
    if state.numel() != BYTES {
        return Err(Error::shape("exponential_", format!("a generator state of {BYTES} bytes"), state.numel()));
    }
    let bytes: &mut [u8] = slice_mut(&mut state)?;
    let mut twister = Twister::read(bytes);
    fill(&mut twister, slice_mut(out)?);
    twister.write(bytes);
    set_generator_state(Device::Cpu, &state)
}

fn fill(twister: &mut Twister, out: &mut [f32]) {
    let (mut high, mut low) = ([0u32; N], [0u32; N]);
    let mut done = 0;
    let mut carried: Option<u32> = None;
    while done < out.len() {
        if twister.next == N {
            twister.twist();
        }
        // Take words in pairs; an odd word left at the end of a block is carried into the next one.
        let mut n = 0;
        if let Some(h) = carried.take() {
            (high[0], low[0]) = (h, twister.words[twister.next]);
            twister.next += 1;
            n = 1;
        }
        let pairs = ((N - twister.next) / 2).min(out.len() - done - n);
        for (i, pair) in twister.words[twister.next..twister.next + 2 * pairs].chunks_exact(2).enumerate() {
            (high[n + i], low[n + i]) = (pair[0], pair[1]);
        }
        twister.next += 2 * pairs;
        n += pairs;
        if done + n < out.len() && twister.next == N - 1 {
            carried = Some(twister.words[N - 1]);
            twister.next = N;
        }
        convert(&high[..n], &low[..n], &mut out[done..done + n]);
        done += n;
    }
}

/// Rate-1 exponentials of any size, kind and device: the fast path where there is one, `exponential_` elsewhere.
pub fn exponential(size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
    let mut t = Tensor::f_empty(size, (kind, device))?;
    // Reading and writing the state costs about as much as a hundred draws.
    if kind == Kind::Float && device == Device::Cpu && t.numel() >= 128 {
        exponential_(&mut t)?;
        return Ok(t);
    }
    let mut t = t.f_exponential_(1.0)?;
    Ok(t.f_clamp_min_(crate::noise::tiny(kind))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::slices::slice;

    /// libtorch's op and ours from the same seed: values within one rounding, and the generator left at the same place.
    #[test]
    fn the_stream_is_that_of_exponential() {
        for (seed, before, sizes) in
            [(0i64, 0i64, vec![1000i64]), (7, 5, vec![311, 312, 313, 1]), (3, 1, vec![130, 50_001])]
        {
            tch::manual_seed(seed);
            let _ = Tensor::rand([before], (Kind::Float, Device::Cpu));
            let theirs: Vec<Tensor> =
                sizes.iter().map(|n| Tensor::empty([*n], (Kind::Float, Device::Cpu)).exponential_(1.0)).collect();
            let after = Tensor::rand([9], (Kind::Double, Device::Cpu));
            tch::manual_seed(seed);
            let _ = Tensor::rand([before], (Kind::Float, Device::Cpu));
            for (n, theirs) in sizes.iter().zip(&theirs) {
                let mut ours = Tensor::empty([*n], (Kind::Float, Device::Cpu));
                exponential_(&mut ours).unwrap();
                let (ours, theirs): (&[f32], &[f32]) = (slice(&ours).unwrap(), slice(theirs).unwrap());
                for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
                    assert!(a.to_bits().abs_diff(b.to_bits()) <= 1, "seed {seed}, draw {i}: {a} not {b}");
                }
                let same = ours.iter().zip(theirs).filter(|(a, b)| a == b).count();
                assert!(same as f64 >= 0.99 * ours.len() as f64, "{same} of {} bit-equal", ours.len());
            }
            assert_eq!(after, Tensor::rand([9], (Kind::Double, Device::Cpu)), "generator left elsewhere");
        }
    }

    #[test]
    fn the_logarithm_holds_at_both_ends() {
        for w in [1.0, 1.0 - 2f64.powi(-53), 1.0 - 1e-9, 0.75, 0.5f64.sqrt(), 0.5, 1e-3, 2f64.powi(-53)] {
            let truth = -w.ln();
            assert!((minus_ln(w) - truth).abs() <= 2e-10 * truth.max(1e-300), "-ln {w}: {} not {truth}", minus_ln(w));
        }
        assert_eq!(minus_ln(1.0), 0.0);
    }
}
