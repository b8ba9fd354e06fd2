//! Where randomness enters: every draw of the crate goes through [`Noise`].
//!
//! | source | for | stream |
//! |---|---|---|
//! | [`TorchNoise`] | training | libtorch's default generator, in the order and with the ops of the PyTorch reference, so the same seed gives the same draw on CPU |
//! | [`HostNoise`] | probes on any device | its own seeded generator on the host: the same numbers on CPU and CUDA |
//! | [`Tape`] | fixtures and tests | tensors given beforehand |
//!
//! The tables of the field draw from the half-open interval and patch the logarithm with `+ 1e-20`. Here noise lies in the
//! open interval: exponentials are at least the smallest normal number of their kind, so no logarithm needs a patch.
use crate::error::{Error, Result};
use tch::{Device, Kind, Tensor};

/// What decides a categorical draw.
#[derive(Debug)]
pub enum Race {
    /// Rate-1 exponentials `E`, `[rows, K]`: class `argmax_k p_k / E_k` wins, which is how `torch.multinomial` draws one.
    Exponential(Tensor),
    /// The class itself, i64, `[rows]`: given, not drawn.
    Index(Tensor),
}

/// A source of random tensors. Sizes are given by the caller; values lie in the open support.
pub trait Noise {
    /// Uniform on the open interval (0, 1).
    fn uniform(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor>;

    /// Exponential with rate 1, at least the kind's smallest positive normal number.
    fn exponential(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        positive(self.uniform(size, kind, device)?.f_log()?.f_neg()?)
    }

    /// Standard Gumbel, `-log E`.
    fn gumbel(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        Ok(self.exponential(size, kind, device)?.f_log_()?.f_neg_()?)
    }

    /// Standard logistic, `log u - log(1 - u)`.
    fn logistic(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let u = self.uniform(size, kind, device)?;
        Ok(u.f_log()? - u.f_neg()?.f_log1p()?)
    }

    /// Standard normal.
    fn normal(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor>;

    /// Standard gamma (scale 1), one draw for each entry of `shape`, all positive; at least the kind's smallest positive
    /// normal number.
    ///
    /// By rejection from normals and uniforms (Marsaglia & Tsang 2000): rejected entries are drawn again until none is left. A
    /// shape below 1 draws at `shape + 1` and multiplies by `u^(1 / shape)`.
    fn gamma(&mut self, shape: &Tensor) -> Result<Tensor> {
        let (kind, device) = (shape.kind(), shape.device());
        let shape64 = shape.f_to_kind(Kind::Double)?.f_reshape([-1])?;
        let small = shape64.f_lt(1.0)?;
        let d = &shape64 + small.f_to_kind(Kind::Double)? - 1.0 / 3.0;
        let mut draws = d.f_zeros_like()?;
        let mut left = Tensor::f_arange(d.numel() as i64, (Kind::Int64, device))?;
        while left.numel() > 0 {
            let size = [left.numel() as i64];
            let x = self.normal(&size, Kind::Double, device)?;
            let u = self.uniform(&size, Kind::Double, device)?;
            let d = d.f_index_select(0, &left)?;
            let v = (&x / (&d * 9.0).f_sqrt()? + 1.0).f_pow_tensor_scalar(3)?;
            // where v <= 0 the logarithm is no number and the comparison false
            let bound = x.f_square()? * 0.5 + &d * (v.f_log()? - &v + 1.0);
            let good = u.f_log()?.f_lt_tensor(&bound)?;
            let _ = draws.f_index_copy_(0, &left.f_masked_select(&good)?, &(d * v).f_masked_select(&good)?)?;
            left = left.f_masked_select(&good.f_logical_not()?)?;
        }
        if small.f_any()?.f_int64_value(&[])? != 0 {
            let power = self.uniform(&shape64.size(), Kind::Double, device)?.f_log()? / &shape64;
            draws = (&draws * power.f_exp()?).f_where_self(&small, &draws)?;
        }
        positive(draws.f_reshape(shape.size())?.f_to_kind(kind)?)
    }

    /// What decides `rows` draws among `classes` classes.
    fn race(&mut self, rows: i64, classes: i64, kind: Kind, device: Device) -> Result<Race> {
        Ok(Race::Exponential(self.exponential(&[rows, classes], kind, device)?))
    }
}

/// Smallest positive normal number of a floating kind; the same in bfloat16 and float32.
pub(crate) fn tiny(kind: Kind) -> f64 {
    match kind {
        Kind::Double => f64::MIN_POSITIVE,
        Kind::Half => 6.103_515_625e-5,
        _ => f32::MIN_POSITIVE as f64,
    }
}

fn positive(mut t: Tensor) -> Result<Tensor> {
    let low = tiny(t.kind());
    Ok(t.f_clamp_min_(low)?)
}

/// libtorch's default generator of the tensor's device.
///
/// Consumes the generator exactly as the PyTorch reference does: `exponential_` for a categorical draw (the op inside
/// `torch.multinomial` with one sample) and for Gumbel noise (`torch.nn.functional.gumbel_softmax`).
#[derive(Debug, Default, Clone, Copy)]
pub struct TorchNoise;

impl Noise for TorchNoise {
    fn uniform(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let u = Tensor::f_rand(size, (kind, device))?;
        // torch draws from [0, 1)
        positive(u)
    }

    fn exponential(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        crate::kernels::mt19937::exponential(size, kind, device)
    }

    fn normal(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        Ok(Tensor::f_randn(size, (kind, device))?)
    }

    fn gamma(&mut self, shape: &Tensor) -> Result<Tensor> {
        Ok(shape.f_internal_standard_gamma()?)
    }
}

/// A generator of the crate's own on the host (SplitMix64), independent of libtorch's: the same numbers on every device,
/// and drawing from it changes no training run.
#[derive(Debug, Clone)]
pub struct HostNoise {
    state: u64,
}

/// Advance of SplitMix64 (Steele, Lea & Flood 2014), and its output function.
const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;

fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A double in the open interval: 52 random bits, centred in their cells (with 53 the half would round, at the end to 1).
fn unit(bits: u64) -> f64 {
    ((bits >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64)
}

impl HostNoise {
    /// A stream that depends on `seed` alone. Seeds are scrambled: the state advances by a constant, so that plain
    /// neighbouring seeds would give one stream shifted by a draw.
    pub fn new(seed: u64) -> Self {
        HostNoise { state: scramble(seed.wrapping_add(STRIDE)) }
    }

    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(STRIDE);
        unit(scramble(self.state))
    }

    fn fill(&mut self, size: &[i64], kind: Kind, device: Device, f: impl Fn(&mut Self) -> f64) -> Result<Tensor> {
        let n = size.iter().product::<i64>();
        let values: Vec<f64> = (0..n).map(|_| f(self)).collect();
        let t = Tensor::f_from_slice(&values)?.f_reshape(size)?.f_to_kind(kind)?;
        Ok(t.f_to_device(device)?)
    }
}

impl Noise for HostNoise {
    fn uniform(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        // Rounding to a narrower kind must not reach 1.
        let top = match kind {
            Kind::Double => 1.0,
            Kind::Half | Kind::BFloat16 => 1.0 - 1.0 / 256.0,
            _ => 1.0 - f32::EPSILON as f64 / 2.0,
        };
        positive(self.fill(size, kind, device, |s| s.unit().min(top))?)
    }

    fn exponential(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        positive(self.fill(size, kind, device, |s| -s.unit().ln())?)
    }

    fn normal(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        // Box and Muller, one of the pair: plain, and fast enough for a probe.
        self.fill(size, kind, device, |s| (-2.0 * s.unit().ln()).sqrt() * (std::f64::consts::TAU * s.unit()).cos())
    }
}

/// Replays given tensors in order, an entry whole or in consecutive pieces. Each has the name of the request it answers: `uniform`, `exponential`, `gumbel`,
/// `logistic`, `normal`, `gamma`, or `index` (a categorical draw, i64).
///
/// # Errors
/// [`Error::Tape`] on a request of another name or of more numbers than the entry has left, and from [`Tape::finish`] when draws are left over.
///
/// # Example
/// ```
/// use tch::{Device, Kind, Tensor};
/// use thruway::noise::{Noise, Tape};
/// let mut tape = Tape::new([("gumbel", Tensor::from_slice(&[0.1f64, -0.3]))]);
/// let g = tape.gumbel(&[2], Kind::Double, Device::Cpu)?;
/// assert_eq!(g.double_value(&[1]), -0.3);
/// tape.finish()?;
/// # Ok::<(), thruway::Error>(())
/// ```
#[derive(Debug)]
pub struct Tape {
    left: std::collections::VecDeque<(String, Tensor)>,
}

impl Tape {
    /// A tape of named tensors, replayed in this order.
    pub fn new<S: Into<String>>(entries: impl IntoIterator<Item = (S, Tensor)>) -> Self {
        Tape { left: entries.into_iter().map(|(n, t)| (n.into(), t)).collect() }
    }

    /// Checks that every entry was used.
    pub fn finish(&self) -> Result<()> {
        match self.left.front() {
            None => Ok(()),
            Some((name, _)) => {
                Err(Error::Tape(format!("{} entries left over, the first is {name:?}", self.left.len())))
            }
        }
    }

    fn next(&mut self, name: &str, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        let (have, t) = self
            .left
            .pop_front()
            .ok_or_else(|| Error::Tape(format!("{name} asked for, but the tape is at its end")))?;
        if have != name {
            return Err(Error::Tape(format!("{name} asked for, but the next entry is {have:?}")));
        }
        let wanted = size.iter().product::<i64>();
        let t = t.f_reshape([-1])?;
        let rest = t.numel() as i64 - wanted;
        if rest < 0 {
            return Err(Error::Tape(format!(
                "{name}: {size:?} asked for, but the entry has only {} numbers",
                t.numel()
            )));
        }
        if rest > 0 {
            self.left.push_front((have, t.f_narrow(0, wanted, rest)?));
        }
        let t = t.f_narrow(0, 0, wanted)?;
        Ok(t.f_reshape(size)?.f_to_kind(kind)?.f_to_device(device)?)
    }
}

impl Noise for Tape {
    fn uniform(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.next("uniform", size, kind, device)
    }
    fn exponential(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.next("exponential", size, kind, device)
    }
    fn gumbel(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.next("gumbel", size, kind, device)
    }
    fn logistic(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.next("logistic", size, kind, device)
    }
    fn normal(&mut self, size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
        self.next("normal", size, kind, device)
    }
    fn gamma(&mut self, shape: &Tensor) -> Result<Tensor> {
        self.next("gamma", &shape.size(), shape.kind(), shape.device())
    }
    fn race(&mut self, rows: i64, classes: i64, kind: Kind, device: Device) -> Result<Race> {
        match self.left.front() {
            Some((name, _)) if name == "index" => Ok(Race::Index(self.next("index", &[rows], Kind::Int64, device)?)),
            _ => Ok(Race::Exponential(self.exponential(&[rows, classes], kind, device)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_interval_is_open_at_both_ends() {
        assert!(unit(0) > 0.0 && unit(u64::MAX) < 1.0);
        assert_eq!(unit(0), 1.0 - unit(u64::MAX));
    }

    /// The stream of one seed must not be a shift of its neighbour's.
    #[test]
    fn neighbouring_seeds_have_streams_of_their_own() {
        let stream = |seed| {
            let mut h = HostNoise::new(seed);
            std::iter::repeat_with(move || h.unit()).take(1000).map(f64::to_bits).collect::<Vec<_>>()
        };
        for seed in [0, 1, 301, u64::MAX - 1] {
            let (a, b) = (stream(seed), stream(seed.wrapping_add(1)));
            assert!(a.iter().all(|x| !b.contains(x)), "seeds {seed} and {}", seed.wrapping_add(1));
        }
    }
}
