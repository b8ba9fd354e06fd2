//! The way back: levels from the last to the first, the gradient of every node of a sentence in a slot of its own.
use super::loops::{Cell, Loops};
use super::{Arena, Level, Turn};
use crate::autograd::slices::{slice, slice_mut};
use crate::error::Result;
use tch::{Device, Tensor};

/// Gradients of the nodes at hand: rows of products (10H) and c (H). A node's place in its sentence gives its slot.
struct Slots<T> {
    stride: usize,
    numbers: Vec<T>,
    of: Vec<Vec<usize>>,
    free: usize,
}

impl<T: Loops> Slots<T> {
    fn take(&mut self) -> usize {
        self.free += 1;
        self.free - 1
    }

    fn at(&self, slot: usize) -> &[T] {
        &self.numbers[slot * self.stride..][..self.stride]
    }

    fn at_mut(&mut self, slot: usize) -> &mut [T] {
        &mut self.numbers[slot * self.stride..][..self.stride]
    }

    fn two(&mut self, a: usize, b: usize) -> (&mut [T], &mut [T]) {
        let (low, high) = self.numbers.split_at_mut(a.max(b) * self.stride);
        let (low, high) = (&mut low[a.min(b) * self.stride..][..self.stride], &mut high[..self.stride]);
        if a < b { (low, high) } else { (high, low) }
    }
}

/// The arena's numbers.
struct Rows<'a, T> {
    width: usize,
    leaves: usize,
    p: &'a [T],
    c: &'a [T],
    gates: &'a [T],
    tanh_c: &'a [T],
}

/// Gradients of the leaves' h and c, of weight, bias and query, from that of the roots `[B, H]`.
pub(super) fn run<T: Loops>(
    arena: &Arena,
    levels: &[Level],
    lengths: &[usize],
    query: &Tensor,
    grad: &Tensor,
) -> Result<[Tensor; 5]> {
    let (w, b, leaves) = (arena.width, lengths.len(), arena.leaves);
    let wide = w as i64;
    let options = (arena.h.kind(), Device::Cpu);
    let numbers = Rows {
        width: w,
        leaves,
        p: slice::<T>(&arena.p)?,
        c: slice::<T>(&arena.c)?,
        gates: slice::<T>(&arena.gates)?,
        tanh_c: slice::<T>(&arena.tanh_c)?,
    };
    let grad = grad.f_contiguous()?;
    let scaled_query = query * (1.0 / (w as f64).sqrt());
    let mut slots = Slots::<T> {
        stride: 11 * w,
        numbers: vec![T::ZERO; lengths.iter().sum::<usize>() * 11 * w],
        of: vec![vec![]; b],
        free: 0,
    };
    // Gradients of the products of every node that was one, by row: the leaves, then the merged ones in this order.
    let merged: usize = lengths.iter().map(|n| n.saturating_sub(2)).sum();
    let mut products = Tensor::f_zeros([(leaves + merged) as i64, 10 * wide], options)?;
    let mut rows: Vec<i64> = (0..leaves as i64).collect();
    let mut weights_of_scores = vec![T::ZERO; arena.rows()];

    for level in levels.iter().rev() {
        let choosing: Vec<&Turn> = level.turns.iter().filter(|t| t.chooses()).collect();
        let scores = match &level.vjp {
            Some(vjp) if !choosing.is_empty() => {
                let mut table = vec![T::ZERO; choosing.len() * level.columns];
                for (turn, row) in choosing.iter().zip(table.chunks_mut(level.columns)) {
                    of_choice(&numbers, turn, &slots, row);
                }
                let size = [choosing.len() as i64, level.columns as i64];
                vjp(&T::tensor(&table)?.f_view(size)?)?.f_reshape(size)?.f_contiguous()?
            }
            _ => Tensor::f_zeros([choosing.len() as i64, level.columns as i64], options)?,
        };
        // what arrives at the chosen candidates, as nodes
        let from = rows.len();
        let mut through = products.f_narrow(0, from as i64, choosing.len() as i64)?;
        {
            let through = slice_mut::<T>(&mut through)?;
            for (turn, to) in choosing.iter().zip(through.chunks_exact_mut(10 * w)) {
                let slot = slots.of[turn.sentence][turn.taken];
                to.copy_from_slice(&slots.at(slot)[..10 * w]);
                rows.push(i64::from(turn.candidates[turn.taken]));
            }
        }
        let mut dh = through.f_mm(&arena.stacked)?;
        let (dh, scores) = (slice_mut::<T>(&mut dh)?, slice::<T>(&scores)?);
        let (root, q) = (slice::<T>(&grad)?, slice::<T>(&scaled_query)?);
        let mut choice = 0;
        for turn in &level.turns {
            let s = turn.sentence;
            if !turn.chooses() {
                let of = vec![slots.take(), slots.take()];
                slots.of[s] = of;
                cell_back(&numbers, turn, 0, &root[s * w..][..w], None, &mut slots);
                continue;
            }
            let (row, dh) = (&scores[choice * level.columns..][..level.columns], &mut dh[choice * w..][..w]);
            choice += 1;
            let k = turn.taken;
            let slot = slots.of[s][k];
            let dc = slots.at(slot)[10 * w..].to_vec();
            slots.at_mut(slot).fill(T::ZERO);
            let fresh = slots.take();
            slots.of[s].insert(k + 1, fresh);
            T::scaled(row[k], q, true, dh);
            let mut other = vec![T::ZERO; w];
            for (j, (&g, &candidate)) in row.iter().zip(&turn.candidates).enumerate() {
                weights_of_scores[candidate as usize] += g;
                if j == k {
                    cell_back(&numbers, turn, j, dh, Some(&dc), &mut slots);
                } else if g != T::ZERO {
                    T::scaled(g, q, false, &mut other);
                    cell_back(&numbers, turn, j, &other, None, &mut slots);
                }
            }
        }
    }

    let mut leaf_c = Tensor::f_zeros([leaves as i64, wide], options)?;
    {
        let (products, leaf_c) = (slice_mut::<T>(&mut products)?, slice_mut::<T>(&mut leaf_c)?);
        for (s, of) in slots.of.iter().enumerate() {
            for (i, &slot) in of.iter().enumerate() {
                let (row, g) = (i * b + s, slots.at(slot));
                products[row * 10 * w..][..10 * w].copy_from_slice(&g[..10 * w]);
                leaf_c[row * w..][..w].copy_from_slice(&g[10 * w..]);
            }
        }
    }
    let mut leaf_h = products.f_narrow(0, 0, leaves as i64)?.f_mm(&arena.stacked)?;
    {
        // a sentence of one word is its own root
        let (leaf_h, root) = (slice_mut::<T>(&mut leaf_h)?, slice::<T>(&grad)?);
        for s in (0..b).filter(|&s| lengths[s] == 1) {
            T::scaled(T::ONE, &root[s * w..][..w], true, &mut leaf_h[s * w..][..w]);
        }
    }
    let h = arena.h.f_index_select(0, &Tensor::f_from_slice(&rows)?)?;
    let stacked = products.f_tr()?.f_mm(&h)?; // [10H, H]
    let weight = Tensor::f_cat(&[stacked.f_narrow(0, 0, 5 * wide)?, stacked.f_narrow(0, 5 * wide, 5 * wide)?], 1)?;
    let bias = products.f_narrow(1, 0, 5 * wide)?.f_sum_dim_intlist(0, false, options.0)?;
    let used = arena.h.f_narrow(0, 0, arena.used as i64)?;
    let query = used.f_tr()?.f_mv(&T::tensor(&weights_of_scores[..arena.used])?)? * (1.0 / (w as f64).sqrt());
    let size = [leaves as i64 / b as i64, b as i64, wide];
    Ok([leaf_h.f_view(size)?, leaf_c.f_view(size)?, weight, bias, query])
}

/// The gradient of a turn's one-hot choice: with g the gradient of the nodes after the merge,
/// `g_i . y_i - sum_{j >= i} g_j . x_j + sum_{j > i} g_j . x_{j+1}`.
fn of_choice<T: Loops>(from: &Rows<T>, turn: &Turn, slots: &Slots<T>, out: &mut [T]) {
    let w = from.width;
    let (mut of_left, mut of_right) = (T::ZERO, T::ZERO);
    for (j, &slot) in slots.of[turn.sentence].iter().enumerate().rev() {
        let rows = [turn.nodes[j], turn.nodes[j + 1], turn.candidates[j]].map(|r| r as usize);
        let (gp, gc) = slots.at(slot).split_at(10 * w);
        let [a, b, y] = rows.map(|r| &from.p[r * 10 * w..][..10 * w]);
        let wide = T::dots(gp, a, b, y);
        let [a, b, y] = rows.map(|r| &from.c[r * w..][..w]);
        let narrow = T::dots(gc, a, b, y);
        of_left += wide[0] + narrow[0];
        out[j] = wide[2] + narrow[2] - of_left + of_right;
        of_right += wide[1] + narrow[1];
    }
}

/// Candidate j's gradient into the slots of the two nodes it joins.
fn cell_back<T: Loops>(from: &Rows<T>, turn: &Turn, j: usize, dh: &[T], dc: Option<&[T]>, slots: &mut Slots<T>) {
    let w = from.width;
    let born = turn.candidates[j] as usize - from.leaves;
    let cell = Cell {
        gates: &from.gates[born * 5 * w..][..5 * w],
        tanh_c: &from.tanh_c[born * w..][..w],
        left: &from.c[turn.nodes[j] as usize * w..][..w],
        right: &from.c[turn.nodes[j + 1] as usize * w..][..w],
    };
    let of = &slots.of[turn.sentence];
    let (a, b) = (of[j], of[j + 1]);
    let (left, right) = slots.two(a, b);
    T::cell_back(&cell, dh, dc, left, right);
}
