//! The recursion as published: at every level the composition of all pairs, shifts by masks of cumulative sums, finished
//! sentences kept by a mask. Slow; runs on any device, with autograd's own gradients.
use super::{Choice, Composed, relaxed};
use crate::error::Result;
use crate::kernels::tree::Weights;
use tch::Tensor;

/// As [`crate::kernels::tree::compose`]: leaves `[T, B, H]` -> roots `[B, H]`.
///
/// Draws for all sentences at every level but the last, finished ones included (their only choice is the first pair), so
/// that the stream of noise is not the kernel's.
///
/// # Errors
/// Those of the estimator; [`crate::Error::Usage`] for a relaxed one.
pub fn compose(h: &Tensor, c: &Tensor, lengths: &[usize], weights: &Weights, choice: &mut Choice) -> Result<Composed> {
    let (kind, device) = (h.kind(), h.device());
    let longest = lengths.iter().copied().max().unwrap_or(1);
    let b = lengths.len() as i64;
    let width = h.size3()?.2;
    let scale = (width as f64).sqrt();
    let mut h = h.f_transpose(0, 1)?.f_narrow(1, 0, longest as i64)?; // [B, n, H]
    let mut c = c.f_transpose(0, 1)?.f_narrow(1, 0, longest as i64)?;
    let mut merges = vec![vec![]; lengths.len()];
    for n in (2..=longest).rev() {
        let level = longest - n;
        let (pairs, left) = (n as i64 - 1, |x: &Tensor| x.f_narrow(1, 0, n as i64 - 1));
        let right = |x: &Tensor| x.f_narrow(1, 1, pairs);
        let both = Tensor::f_cat(&[left(&h)?, right(&h)?], 2)?;
        let gates = both.f_linear(weights.weight, Some(weights.bias))?.f_chunk(5, 2)?;
        let forget = |i: usize| (&gates[i] + 1.0).f_sigmoid();
        let new_c = gates[0].f_sigmoid()? * gates[3].f_tanh()? + forget(1)? * left(&c)? + forget(2)? * right(&c)?;
        let new_h = gates[4].f_sigmoid()? * new_c.f_tanh()?;
        let (new_h, new_c) = if pairs == 1 {
            lengths.iter().zip(&mut merges).filter(|(l, _)| **l > level + 1).for_each(|(_, m)| m.push(0));
            (new_h, new_c)
        } else {
            // pairs within the sentence; a finished one keeps its first pair, for a choice that changes nothing
            let allowed: Vec<bool> =
                lengths.iter().flat_map(|&l| (0..n - 1).map(move |j| j == 0 || j + level + 2 <= l)).collect();
            let mask = Tensor::f_from_slice(&allowed)?.f_view([b, pairs])?.f_to_device(device)?;
            let scores = new_h.f_matmul(weights.query)? / scale;
            let chosen = match choice {
                Choice::Drawn(estimator, noise) => {
                    let sample = estimator.draw(&scores, Some(&mask), &mut **noise)?;
                    let hard = sample.value.f_detach()?;
                    if !(hard.f_eq(0.0)? + hard.f_eq(1.0)?).f_all()?.f_int64_value(&[])?.eq(&1) {
                        return Err(relaxed());
                    }
                    sample.value
                }
                Choice::Greedy => {
                    let (index, _) = Choice::Greedy.pick(&scores.f_detach()?, &mask)?;
                    index.f_one_hot(pairs)?.f_to_kind(kind)?
                }
            };
            let index: Vec<i64> = Vec::try_from(chosen.f_argmax(-1, false)?.f_to_device(tch::Device::Cpu)?)?;
            for ((merges, &l), k) in merges.iter_mut().zip(lengths).zip(index) {
                if l > level + 1 {
                    merges.push(k as usize);
                }
            }
            let sums = chosen.f_cumsum(1, kind)?;
            let stay = sums.f_neg()?.f_add_scalar(1.0)?.f_unsqueeze(2)?;
            let shift = Tensor::f_cat(&[sums.f_narrow(1, 0, 1)?.f_zeros_like()?, sums.f_narrow(1, 0, pairs - 1)?], 1)?;
            let (shift, take) = (shift.f_unsqueeze(2)?, chosen.f_unsqueeze(2)?);
            let mix = |old: &Tensor, new: &Tensor| -> Result<Tensor> {
                Ok(&take * new + &stay * left(old)? + &shift * right(old)?)
            };
            (mix(&h, &new_h)?, mix(&c, &new_c)?)
        };
        let under_way: Vec<bool> = lengths.iter().map(|&l| l > level + 1).collect();
        let under_way = Tensor::f_from_slice(&under_way)?.f_view([b, 1, 1])?.f_to_device(device)?;
        h = new_h.f_where_self(&under_way, &left(&h)?)?;
        c = new_c.f_where_self(&under_way, &left(&c)?)?;
    }
    let root = h.f_select(1, 0)?;
    Ok(Composed { root, merges })
}
