//! Operations on rows `[.., K]` of categorical variables: softmax, the exponential race, products with its Jacobian.
//!
//! Every function takes contiguous or strided tensors of any leading shape and returns fresh contiguous ones without a
//! graph. With `J(p) g = p * g - p (p . g)` the Jacobian of a softmax with output p (symmetric):
use super::real::Real;
use crate::autograd::slices::{slice, slice_mut};
use crate::error::{Error, Result};
use multiversion::multiversion;
use tch::{Device, Kind, Tensor};

/// Rows are handled in blocks of about this many numbers, so that the passes over a block stay in the first-level cache.
const BLOCK: usize = 4096;

/// Whether the crate's own loops serve this tensor: CPU, f32 or f64. Anything else goes through libtorch.
pub fn own_loops(t: &Tensor) -> bool {
    t.device() == Device::Cpu && matches!(t.kind(), Kind::Float | Kind::Double)
}

/// Length of the last axis; refuses a tensor without axes, an empty last axis and non-floating kinds.
pub fn classes(op: &'static str, logits: &Tensor) -> Result<i64> {
    match logits.size().last() {
        None | Some(0) => Err(Error::shape(op, "[.., K] with K >= 1", logits.size())),
        Some(_) if !matches!(logits.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) => {
            Err(Error::shape(op, "a floating kind", logits.kind()))
        }
        Some(&k) => Ok(k),
    }
}

fn like(t: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_empty(t.size(), (t.kind(), t.device()))?)
}

fn bad_row(logits: &Tensor, row: usize, k: i64) -> Error {
    let flat = logits.reshape([-1, k]).get(row as i64);
    let values: Vec<f64> = (0..k.min(8)).map(|i| flat.double_value(&[i])).collect();
    let rest = if k > 8 { " .." } else { "" };
    Error::range(
        format!("logits, row {row},"),
        "free of NaN and +inf, with at least one class above -inf (-inf masks a class; a network that gives others has diverged: \
         lower the learning rate)",
        format!("{values:?}{rest}"),
    )
}

/// `softmax(x / tau)` over the last axis; -inf gives exactly 0.
///
/// # Errors
/// [`Error::Range`] naming the first row with NaN, +inf or nothing above -inf (on CPU only: other devices would have to
/// synchronise).
pub fn softmax(x: &Tensor, tau: f64) -> Result<Tensor> {
    let k = classes("softmax", x)?;
    if !own_loops(x) {
        let z = x.detach();
        let z = if tau == 1.0 { z } else { z.f_div_scalar(tau)? };
        let p = z.f_softmax(-1, z.kind())?;
        if p.device() == Device::Cpu {
            // half kinds: as fast as it needs to be
            let bad = Vec::<bool>::try_from(p.f_isnan()?.f_reshape([-1, k])?.f_any_dim(-1, false)?)?;
            if let Some(row) = bad.iter().position(|&b| b) {
                return Err(bad_row(x, row, k));
            }
        }
        return Ok(p);
    }
    let x = x.detach().f_contiguous()?;
    let mut out = like(&x)?;
    let bad = match x.kind() {
        Kind::Float => softmax_f32(slice(&x)?, tau as f32, k as usize, slice_mut(&mut out)?),
        _ => softmax_loop::<f64>(slice(&x)?, tau, k as usize, slice_mut(&mut out)?),
    };
    match bad {
        None => Ok(out),
        Some(row) => Err(bad_row(&x, row, k)),
    }
}

/// Numbers in a vector of libtorch's widest build; rows at least as long are reduced by lanes, in its order of addition.
const LANES: usize = 16;

#[inline(always)]
fn reduce<T: Real>(x: &[T], combine: impl Fn(T, T) -> T) -> T {
    if x.len() < LANES {
        return x[1..].iter().fold(x[0], |a, &b| combine(a, b));
    }
    let (first, rest) = x.split_at(LANES);
    let mut lanes: [T; LANES] = first.try_into().expect("as many as lanes");
    let chunks = rest.chunks_exact(LANES);
    let tail = chunks.remainder();
    for c in chunks {
        for i in 0..LANES {
            lanes[i] = combine(lanes[i], c[i]);
        }
    }
    for (l, &t) in lanes.iter_mut().zip(tail) {
        *l = combine(*l, t);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

#[inline(always)]
fn largest<T: Real>(x: &[T]) -> T {
    reduce(x, |a, b| if b > a { b } else { a })
}

#[inline(always)]
fn total<T: Real>(x: &[T]) -> T {
    reduce(x, |a, b| a + b)
}

/// Row by row; returns the first row that has no softmax.
#[inline(always)]
fn softmax_loop<T: Real>(x: &[T], tau: T, k: usize, out: &mut [T]) -> Option<usize> {
    let rows = (BLOCK / k).max(1);
    let mut bad = None;
    for (b, (x, out)) in x.chunks(rows * k).zip(out.chunks_mut(rows * k)).enumerate() {
        // divided first, as `(x / tau).softmax()` does
        for (o, &v) in out.iter_mut().zip(x) {
            *o = if tau == T::ONE { v } else { v / tau };
        }
        for out in out.chunks_exact_mut(k) {
            let top = largest(out);
            for o in out.iter_mut() {
                *o = *o - top;
            }
        }
        out.iter_mut().for_each(|o| *o = o.softmax_exp());
        for (i, out) in out.chunks_exact_mut(k).enumerate() {
            let sum = total(out);
            if !sum.finite() && bad.is_none() {
                bad = Some(b * rows + i);
            }
            let scale = T::ONE / sum;
            for o in out.iter_mut() {
                *o = *o * scale;
            }
        }
    }
    bad
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn softmax_f32(x: &[f32], tau: f32, k: usize, out: &mut [f32]) -> Option<usize> {
    softmax_loop(x, tau, k, out)
}

/// Winner of the race: index `[rows]` (i64) and one-hot `[rows, K]` of `argmax_k p_k / e_k`, the first of equals.
/// `p`, `e`: `[rows, K]`. With rate-1 exponentials e this draws from p, as `torch.multinomial` does.
pub fn race(p: &Tensor, e: &Tensor) -> Result<(Tensor, Tensor)> {
    let k = classes("race", p)?;
    let rows = p.numel() as i64 / k;
    if !own_loops(p) {
        let index = (p / e).f_argmax(-1, true)?;
        let hard = p.f_zeros_like()?.f_scatter_value(-1, &index, 1.0)?;
        return Ok((index.f_reshape([rows])?, hard));
    }
    let (p, e) = (p.f_contiguous()?, e.f_contiguous()?);
    let mut hard = p.f_zeros_like()?;
    let mut index = Tensor::f_empty([rows], (Kind::Int64, Device::Cpu))?;
    match p.kind() {
        Kind::Float => race_f32(slice(&p)?, slice(&e)?, k as usize, slice_mut(&mut index)?, slice_mut(&mut hard)?),
        _ => race_loop::<f64>(slice(&p)?, slice(&e)?, k as usize, slice_mut(&mut index)?, slice_mut(&mut hard)?),
    }
    Ok((index, hard))
}

#[inline(always)]
fn race_loop<T: Real>(p: &[T], e: &[T], k: usize, index: &mut [i64], hard: &mut [T]) {
    // The scores pass through `hard`, so the division runs over long rows whatever K is.
    for ((h, &p), &e) in hard.iter_mut().zip(p).zip(e) {
        *h = p / e;
    }
    pick(k, index, hard);
}

/// Replaces each row of scores by the one-hot of its largest entry, the first of equals.
#[inline(always)]
fn pick<T: Real>(k: usize, index: &mut [i64], scores: &mut [T]) {
    for (h, i) in scores.chunks_exact_mut(k).zip(index) {
        let (mut best, mut top) = (0, h[0]);
        for (j, &v) in h.iter().enumerate().skip(1) {
            let better = v > top;
            best = if better { j } else { best };
            top = if better { v } else { top };
        }
        h.fill(T::ZERO);
        h[best] = T::ONE;
        *i = best as i64;
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn race_f32(p: &[f32], e: &[f32], k: usize, index: &mut [i64], hard: &mut [f32]) {
    race_loop(p, e, k, index, hard)
}

/// Index of the largest entry of each row `[rows]` (i64) and its one-hot `[rows, K]`, the first of equals.
pub fn argmax(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let k = classes("argmax", x)?;
    let x = x.f_reshape([-1, k])?;
    if !own_loops(&x) {
        let index = x.f_argmax(-1, false)?;
        let hard = one_hot(&index, k, x.kind())?;
        return Ok((index, hard));
    }
    let mut hard = x.f_contiguous()?.copy();
    let mut index = Tensor::f_empty([x.size()[0]], (Kind::Int64, Device::Cpu))?;
    match x.kind() {
        Kind::Float => pick_f32(k as usize, slice_mut(&mut index)?, slice_mut(&mut hard)?),
        _ => pick::<f64>(k as usize, slice_mut(&mut index)?, slice_mut(&mut hard)?),
    }
    Ok((index, hard))
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn pick_f32(k: usize, index: &mut [i64], scores: &mut [f32]) {
    pick(k, index, scores)
}

/// One-hot rows `[rows, K]` of the classes `index` `[rows]`.
pub fn one_hot(index: &Tensor, k: i64, kind: Kind) -> Result<Tensor> {
    let hard = Tensor::f_zeros([index.numel() as i64, k], (kind, index.device()))?;
    Ok(hard.f_scatter_value(-1, &index.f_reshape([-1, 1])?, 1.0)?)
}

/// `J(p) g / tau`, shape of p: the backward of `softmax(x / tau)`, with the roundings of libtorch's.
pub fn jacobian(p: &Tensor, g: &Tensor, tau: f64) -> Result<Tensor> {
    let k = classes("jacobian", p)? as usize;
    if g.numel() != p.numel() {
        return Err(Error::shape("jacobian", format!("{:?}", p.size()), g.size()));
    }
    if !own_loops(p) {
        let pg = live(p, g)?.f_mul(p)?;
        let dot = pg.f_sum_dim_intlist(-1, true, pg.kind())?;
        return Ok((pg - p * dot).f_div_scalar_(tau)?);
    }
    let (p, g) = (p.f_contiguous()?, g.f_to_kind(p.kind())?.f_contiguous()?);
    let mut out = like(&p)?;
    match p.kind() {
        Kind::Float => jacobian_f32(slice(&p)?, slice(&g)?, tau as f32, k, slice_mut(&mut out)?),
        _ => jacobian_loop::<f64>(slice(&p)?, slice(&g)?, tau, k, slice_mut(&mut out)?),
    }
    Ok(out)
}

/// g with zeros where p is 0: a masked class's upstream value, whatever it is, must not reach the others.
fn live(p: &Tensor, g: &Tensor) -> Result<Tensor> {
    Ok(g.f_masked_fill(&p.f_eq(0.0)?, 0.0)?)
}

#[inline(always)]
fn jacobian_loop<T: Real>(p: &[T], g: &[T], tau: T, k: usize, out: &mut [T]) {
    for ((p, g), out) in p.chunks_exact(k).zip(g.chunks_exact(k)).zip(out.chunks_exact_mut(k)) {
        let mut dot = T::ZERO;
        for (&p, &g) in p.iter().zip(g) {
            // as in `live`
            dot += if p == T::ZERO { T::ZERO } else { p * g };
        }
        for ((o, &p), &g) in out.iter_mut().zip(p).zip(g) {
            let v = if p == T::ZERO { T::ZERO } else { (g - dot) * p };
            *o = if tau == T::ONE { v } else { v / tau };
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn jacobian_f32(p: &[f32], g: &[f32], tau: f32, k: usize, out: &mut [f32]) {
    jacobian_loop(p, g, tau, k, out)
}

/// ReinMax's backward of sample and probabilities at once, `2 J(s) g + J(p) (g_p - g / 2)`, shape of p: `s` halfway to the
/// draw, `p` the probabilities, `g` and `g_p` what arrives at sample and probabilities. Rounded where the published package
/// rounds, its (mathematically idle) centring of the rows included.
pub fn reinmax(s: &Tensor, p: &Tensor, g: &Tensor, g_p: Option<&Tensor>) -> Result<Tensor> {
    let k = classes("reinmax", p)? as usize;
    let kind = p.kind();
    if !own_loops(p) {
        let sum = |t: &Tensor| t.f_sum_dim_intlist(-1, true, kind);
        let a = live(s, g)? * s * 2.0;
        let b = match g_p {
            Some(g_p) => live(p, &(g_p - g * 0.5))? * p,
            None => live(p, g)? * p * -0.5,
        };
        return Ok(&a - s * sum(&a)? + &b - p * sum(&b)?);
    }
    let whole = |t: &Tensor| -> Result<Tensor> { Ok(t.f_to_kind(kind)?.f_contiguous()?) };
    let (s, p, g, g_p) = (whole(s)?, whole(p)?, whole(g)?, g_p.map(whole).transpose()?);
    let mut out = like(&p)?;
    match kind {
        Kind::Float => {
            let g_p = g_p.as_ref().map(slice).transpose()?;
            reinmax_f32(slice(&s)?, slice(&p)?, slice(&g)?, g_p, k, slice_mut(&mut out)?)
        }
        _ => {
            let g_p = g_p.as_ref().map(slice).transpose()?;
            reinmax_loop::<f64>(slice(&s)?, slice(&p)?, slice(&g)?, g_p, k, slice_mut(&mut out)?)
        }
    }
    Ok(out)
}

#[inline(always)]
fn reinmax_loop<T: Real>(s: &[T], p: &[T], g: &[T], g_p: Option<&[T]>, k: usize, out: &mut [T]) {
    let (two, half) = (T::of(2.0), T::of(-0.5));
    let rows = (BLOCK / k).max(1);
    // Pass by pass over a block of rows: long loops for the vectors, and sums of many rows in flight at once.
    let mut scratch = vec![T::ZERO; 2 * rows * k];
    let (a, b) = scratch.split_at_mut(rows * k);
    for (n, out) in out.chunks_mut(rows * k).enumerate() {
        let at = n * rows * k..n * rows * k + out.len();
        let (s, p, g) = (&s[at.clone()], &p[at.clone()], &g[at.clone()]);
        let (a, b) = (&mut a[..out.len()], &mut b[..out.len()]);
        // as in `live`: nothing of a masked class enters
        for ((a, &s), &g) in a.iter_mut().zip(s).zip(g) {
            *a = if s == T::ZERO { T::ZERO } else { two * g * s };
        }
        match g_p {
            Some(g_p) => {
                for (((b, &p), &g), &g_p) in b.iter_mut().zip(p).zip(g).zip(&g_p[at]) {
                    *b = if p == T::ZERO { T::ZERO } else { (half * g + g_p) * p };
                }
            }
            None => {
                for ((b, &p), &g) in b.iter_mut().zip(p).zip(g) {
                    *b = if p == T::ZERO { T::ZERO } else { half * g * p };
                }
            }
        }
        for (i, out) in out.chunks_exact_mut(k).enumerate() {
            let row = i * k..(i + 1) * k;
            let (a, b, s, p) = (&a[row.clone()], &b[row.clone()], &s[row.clone()], &p[row]);
            let (sum_a, sum_b) = (sum_in_torchs_order(a), sum_in_torchs_order(b));
            for ((((o, &a), &b), &s), &p) in out.iter_mut().zip(a).zip(b).zip(s).zip(p) {
                *o = (b - p * sum_b) + (a - s * sum_a);
            }
        }
        for (out, s) in out.chunks_exact_mut(k).zip(s.chunks_exact(k)) {
            let mean = sum_in_torchs_order(out) / T::of(k as f64);
            for (o, &s) in out.iter_mut().zip(s) {
                *o = if s == T::ZERO { T::ZERO } else { *o - mean };
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn reinmax_f32(s: &[f32], p: &[f32], g: &[f32], g_p: Option<&[f32]>, k: usize, out: &mut [f32]) {
    reinmax_loop(s, p, g, g_p, k, out)
}

/// The sum of a short row in the order of libtorch's `sum(-1)` (vectors of eight f32): four running sums of vectors, the rest
/// one by one, then the lanes.
#[inline(always)]
fn sum_in_torchs_order<T: Real>(x: &[T]) -> T {
    const V: usize = 8;
    const RUNNING: usize = 4;
    if x.len() < V {
        let mut sums = [T::ZERO; RUNNING];
        let fours = x.chunks_exact(RUNNING);
        let rest = fours.remainder();
        for four in fours {
            for i in 0..RUNNING {
                sums[i] += four[i];
            }
        }
        for &v in rest {
            sums[0] += v;
        }
        return sums[0] + sums[1] + sums[2] + sums[3];
    }
    let mut sum = T::ZERO;
    for &v in &x[x.len() / V * V..] {
        sum += v;
    }
    let mut lanes: [T; V] = x[..V].try_into().expect("a vector");
    if x.len() >= 2 * V {
        let mut sums = [[T::ZERO; V]; RUNNING];
        let whole = x.len() / V / RUNNING * RUNNING;
        for (n, vector) in x.chunks_exact(V).enumerate() {
            let to = &mut sums[if n < whole { n % RUNNING } else { 0 }];
            for i in 0..V {
                to[i] += vector[i];
            }
        }
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = sums[0][i] + sums[1][i] + sums[2][i] + sums[3][i];
        }
    }
    for lane in lanes {
        sum += lane;
    }
    sum
}

/// `(p + onehot(index)) / 2` rows, and `p` itself untouched: the point halfway to the draw at which ReinMax evaluates.
pub fn halfway(p: &Tensor, hard: &Tensor) -> Result<Tensor> {
    let mut s = like(&p.f_contiguous()?)?;
    if !own_loops(p) {
        return Ok((p + hard).f_mul_scalar_(0.5)?);
    }
    let (p, h) = (p.f_contiguous()?, hard.f_contiguous()?);
    match p.kind() {
        Kind::Float => halfway_f32(slice(&p)?, slice(&h)?, slice_mut(&mut s)?),
        _ => halfway_loop::<f64>(slice(&p)?, slice(&h)?, slice_mut(&mut s)?),
    }
    Ok(s)
}

#[inline(always)]
fn halfway_loop<T: Real>(p: &[T], h: &[T], out: &mut [T]) {
    for ((o, &p), &h) in out.iter_mut().zip(p).zip(h) {
        *o = (p + h) * T::of(0.5);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn halfway_f32(p: &[f32], h: &[f32], out: &mut [f32]) {
    halfway_loop(p, h, out)
}

/// Logits perturbed by Gumbel noise, `x - ln e` with rate-1 exponentials e: `[.., K]` each. -inf stays -inf.
pub fn perturb(x: &Tensor, e: &Tensor) -> Result<Tensor> {
    if !own_loops(x) {
        return Ok(x.detach().f_sub(&e.f_log()?)?);
    }
    let (x, e) = (x.detach().f_contiguous()?, e.f_contiguous()?);
    let mut out = like(&x)?;
    match x.kind() {
        Kind::Float => perturb_f32(slice(&x)?, slice(&e)?, slice_mut(&mut out)?),
        _ => perturb_loop::<f64>(slice(&x)?, slice(&e)?, slice_mut(&mut out)?),
    }
    Ok(out)
}

#[inline(always)]
fn perturb_loop<T: Real>(x: &[T], e: &[T], out: &mut [T]) {
    for ((o, &x), &e) in out.iter_mut().zip(x).zip(e) {
        *o = x - e.vln();
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma", "x86_64+avx2+fma"))]
fn perturb_f32(x: &[f32], e: &[f32], out: &mut [f32]) {
    perturb_loop(x, e, out)
}

/// Logits with the drawn class lifted to the row's maximum and the others held at least `gap` below it, `[.., K]`.
///
/// `index`: drawn class `[..]`; `gap` in nats, or none for GST-p's `-log1p(-q) / q` with `q = (1 - 1e-5) p_c`
/// (Fan et al. 2022; the 1e-5, the reference's, keeps the gap below 11.52).
pub fn gapped(logits: &Tensor, probs: &Tensor, index: &Tensor, gap: Option<f64>) -> Result<Tensor> {
    let k = classes("gst", logits)?;
    if !own_loops(logits) {
        let c = index.f_unsqueeze(-1)?;
        let top = logits.f_amax(-1, true)?;
        let limit = match gap {
            Some(gap) => &top - gap,
            None => {
                let q = probs.f_gather(-1, &c, false)? * (1.0 - 1e-5);
                // -log1p(-q) / q -> 1 as q -> 0
                let gap = (-(-&q).f_log1p()? / &q).f_where_self(&q.f_gt(0.0)?, &q.f_ones_like()?)?;
                &top - gap
            }
        };
        return Ok(logits.f_minimum(&limit)?.f_scatter(-1, &c, &top)?);
    }
    let (x, p, index) = (logits.detach().f_contiguous()?, probs.f_contiguous()?, index.f_contiguous()?);
    let mut out = like(&x)?;
    match x.kind() {
        Kind::Float => {
            gapped_loop::<f32>(slice(&x)?, slice(&p)?, slice(&index)?, gap, k as usize, slice_mut(&mut out)?)
        }
        _ => gapped_loop::<f64>(slice(&x)?, slice(&p)?, slice(&index)?, gap, k as usize, slice_mut(&mut out)?),
    }
    Ok(out)
}

fn gapped_loop<T: Real>(x: &[T], p: &[T], index: &[i64], gap: Option<f64>, k: usize, out: &mut [T]) {
    for (((x, p), &c), out) in x.chunks_exact(k).zip(p.chunks_exact(k)).zip(index).zip(out.chunks_exact_mut(k)) {
        let c = c as usize;
        let top = largest(x);
        let gap = gap.unwrap_or_else(|| {
            let q = p[c].f64() * (1.0 - 1e-5);
            if q > 0.0 { -(-q).ln_1p() / q } else { 1.0 }
        });
        let limit = top - T::of(gap);
        for (o, &v) in out.iter_mut().zip(x) {
            *o = if v < limit { v } else { limit };
        }
        out[c] = top;
    }
}
