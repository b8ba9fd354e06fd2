//! A tree-LSTM that merges two neighbours at a time until one is left, forward and backward, on the CPU.
//!
//! The published layout computes the composition of *every* neighbouring pair again at each of the T - 1 levels: T²/2 cells of
//! 10 H² multiplications, with gradients. Two remarks make it linear.
//!
//! 1. The draw is one-hot, so after a merge only the pairs that contain the new node differ: two cells a level. What was
//!    computed stays in an arena of rows; nodes and candidates of a sentence are lists of row numbers.
//! 2. The surrogate gradient is another matter: with `d` the choice, the new node at j is `left_j x_j + d_j y_j + right_j x_{j+1}`
//!    (`left_j = 1 - sum_{i<=j} d_i`, `right_j = sum_{i<j} d_i`, y the candidates), and it asks for the derivative through every
//!    pair at every level. But a cell sees its children only through a product with the weights. So a row keeps not h but
//!    its two products, as left and as right child (`p`, 10 H numbers), which mix as h does: the gradient of the published
//!    layout, number for number, out of elementwise work. Products are made once a row forward, and backward once a node.
//!
//! Limit: 4 T products of 10 H² forward, 4 T backward, and 3 dot products and 2 sums over 10 H numbers for each pair of each
//! level, which come from the second- or third-level cache.
//!
//! Legend: `B` sentences, `T` their longest, `H` width, rows of the arena; a level is one merge in every unfinished sentence.
mod backward;
mod loops;

use crate::autograd::Function;
use crate::autograd::slices::{slice, slice_mut};
use crate::error::{Error, Result};
use loops::Loops;
use tch::{Device, Kind, Tensor};

/// The gradient of the scores `[m, K]` from the gradient of the one-hot choice `[m, K]`.
pub type Vjp = Box<dyn Fn(&Tensor) -> Result<Tensor> + Send>;

/// Chooses a pair in every row: scores `[m, K]`, mask `[m, K]` (true = there is such a pair, at least two a row) -> the pair,
/// i64 `[m]`, and the gradient where there is to be one.
pub type Choose<'a> = &'a mut dyn FnMut(&Tensor, &Tensor) -> Result<(Tensor, Option<Vjp>)>;

/// What a merge does: rows of `weight` are the gates input, left forget, right forget, update, output; its columns the left
/// child, then the right one.
#[derive(Debug)]
pub struct Weights<'a> {
    /// `[5H, 2H]`.
    pub weight: &'a Tensor,
    /// `[5H]`; the forget gates add 1 to theirs.
    pub bias: &'a Tensor,
    /// `[H]`: a pair's score is its h times this, over the root of H.
    pub query: &'a Tensor,
}

/// Sentences put together.
#[derive(Debug)]
pub struct Composed {
    /// h of the root, `[B, H]`, with gradients to the leaves and the weights.
    pub root: Tensor,
    /// Of each sentence, which pair was merged at each level: T - 1 numbers.
    pub merges: Vec<Vec<usize>>,
}

/// One merge in every unfinished sentence, as it stood before the merge.
struct Level {
    turns: Vec<Turn>,
    /// Length of the rows of scores.
    columns: usize,
    vjp: Option<Vjp>,
}

/// A sentence at a level: its nodes and candidates as rows of the arena, and which candidate was taken.
struct Turn {
    sentence: usize,
    nodes: Vec<u32>,
    candidates: Vec<u32>,
    taken: usize,
}

impl Turn {
    /// Whether there was anything to choose.
    fn chooses(&self) -> bool {
        self.candidates.len() > 1
    }
}

/// Everything computed forward. Rows: the `[T, B]` leaves, padding included, then candidates in the order of their birth.
struct Arena {
    width: usize,
    leaves: usize,
    used: usize,
    h: Tensor,
    c: Tensor,
    /// `[R, 10H]`, products of h as left and as right child.
    p: Tensor,
    /// Of the candidates: gates `[R', 5H]` and tanh c `[R', H]`.
    gates: Tensor,
    tanh_c: Tensor,
    /// `[10H, H]`: the left half of the weight over the right one.
    stacked: Tensor,
    /// The bias, forget gates + 1.
    bias: Tensor,
}

/// Leaves h and c `[T, B, H]`, lengths of the B sentences -> the roots. Float or double on the CPU. `estimated` says whether
/// `choose` gives gradients: if not, the products of candidates that are not chosen are never made.
///
/// # Errors
/// [`Error::Shape`] where the tensors do not fit, or a gradient comes that was not announced; those of `choose`.
pub fn compose(
    h: &Tensor,
    c: &Tensor,
    lengths: &[usize],
    weights: &Weights,
    estimated: bool,
    choose: Choose,
) -> Result<Composed> {
    match h.kind() {
        _ if h.device() != Device::Cpu => Err(Error::shape("compose", "tensors on the CPU", h.device())),
        Kind::Float => run::<f32>(h, c, lengths, weights, estimated, choose),
        Kind::Double => run::<f64>(h, c, lengths, weights, estimated, choose),
        other => Err(Error::shape("compose", "float or double", other)),
    }
}

fn run<T: Loops>(
    h: &Tensor,
    c: &Tensor,
    lengths: &[usize],
    weights: &Weights,
    estimated: bool,
    choose: Choose,
) -> Result<Composed> {
    let size = h.size();
    let &[t, b, width] = &size[..] else { return Err(Error::shape("compose", "leaves [T, B, H]", size)) };
    let fits = c.size() == size
        && weights.weight.size() == [5 * width, 2 * width]
        && weights.bias.size() == [5 * width]
        && weights.query.size() == [width]
        && lengths.len() == b as usize
        && lengths.iter().all(|n| (1..=t as usize).contains(n));
    if !fits {
        let got = format!("c {:?}, weight {:?}, lengths {lengths:?}", c.size(), weights.weight.size());
        return Err(Error::shape("compose", format!("c [{t}, {b}, {width}], weight [5H, 2H], lengths 1 to {t}"), got));
    }
    let (arena, levels, root, merges) = {
        let _guard = tch::no_grad_guard();
        forward::<T>(h, c, lengths, weights, estimated, choose)?
    };
    let (query, lengths) = (weights.query.detach(), lengths.to_vec());
    let mut out = Function::new("TreeLstm").inputs(&[h, c, weights.weight, weights.bias, weights.query]).apply(
        || Ok(vec![root]),
        move |node| Ok(backward::run::<T>(&arena, &levels, &lengths, &query, node.grad(0)?)?.map(Some).into()),
    )?;
    Ok(Composed { root: out.remove(0), merges })
}

type Forward = (Arena, Vec<Level>, Tensor, Vec<Vec<usize>>);

fn forward<T: Loops>(
    h: &Tensor,
    c: &Tensor,
    lengths: &[usize],
    w: &Weights,
    estimated: bool,
    choose: Choose,
) -> Result<Forward> {
    let b = lengths.len();
    let mut arena = Arena::new(h, c, lengths, w)?;
    let scale = 1.0 / (arena.width as f64).sqrt();
    let query = w.query.detach() * scale;
    let mut nodes: Vec<Vec<u32>> = (0..b).map(|s| (0..lengths[s]).map(|i| (i * b + s) as u32).collect()).collect();
    // pairs of the leaves
    let pairs: Vec<(u32, u32)> = nodes.iter().flat_map(|n| n.windows(2).map(|w| (w[0], w[1]))).collect();
    let mut next = arena.leaves as u32;
    let mut candidates: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&n| {
            next += n as u32 - 1;
            (next - (n as u32 - 1)..next).collect()
        })
        .collect();
    let mut scores = Vec::with_capacity(arena.rows());
    arena.grow::<T>(&pairs, &query, estimated, &mut scores)?;

    let mut merges = vec![vec![]; b];
    let mut levels = Vec::new();
    loop {
        let mut turns: Vec<Turn> = (0..b)
            .filter(|&s| nodes[s].len() > 1)
            .map(|s| Turn { sentence: s, nodes: nodes[s].clone(), candidates: candidates[s].clone(), taken: 0 })
            .collect();
        if turns.is_empty() {
            break;
        }
        let mut choosing: Vec<&mut Turn> = turns.iter_mut().filter(|t| t.chooses()).collect();
        let columns = choosing.iter().map(|t| t.candidates.len()).max().unwrap_or(0);
        let mut vjp = None;
        if !choosing.is_empty() {
            let mut table = vec![T::ZERO; choosing.len() * columns];
            let mut mask = vec![false; table.len()];
            for ((turn, table), mask) in choosing.iter().zip(table.chunks_mut(columns)).zip(mask.chunks_mut(columns)) {
                for ((&row, to), there) in turn.candidates.iter().zip(table).zip(mask) {
                    *to = scores[row as usize - arena.leaves];
                    *there = true;
                }
            }
            let size = [choosing.len() as i64, columns as i64];
            let mask = T::tensor_of_bools(&mask)?.f_view(size)?;
            let (index, gradient) = choose(&T::tensor(&table)?.f_view(size)?, &mask)?;
            if gradient.is_some() && !estimated {
                return Err(Error::shape("compose", "no gradient of the choice, as announced", "one"));
            }
            vjp = gradient;
            for (turn, taken) in choosing.iter_mut().zip(slice::<i64>(&index.f_contiguous()?)?) {
                let n = turn.candidates.len();
                turn.taken = usize::try_from(*taken).ok().filter(|k| *k < n).ok_or_else(|| {
                    Error::shape("compose", format!("a choice among {n} pairs"), format!("number {taken}"))
                })?;
            }
        }
        // the merge: one node for two, and new candidates beside it
        let mut pairs = Vec::new();
        let first = arena.used as u32;
        for turn in &turns {
            let (s, k) = (turn.sentence, turn.taken);
            merges[s].push(k);
            let (x, y) = (&mut nodes[s], &mut candidates[s]);
            x[k] = y[k];
            x.remove(k + 1);
            y.remove(k);
            for j in [k.wrapping_sub(1), k] {
                if j < y.len() {
                    y[j] = first + pairs.len() as u32;
                    pairs.push((x[j], x[j + 1]));
                }
            }
        }
        if !estimated {
            let taken: Vec<i64> = turns.iter().map(|t| i64::from(t.candidates[t.taken])).collect();
            arena.project_these(&taken)?;
        }
        arena.grow::<T>(&pairs, &query, estimated, &mut scores)?;
        levels.push(Level { turns, columns, vjp });
    }
    let roots: Vec<i64> = nodes.iter().map(|n| i64::from(n[0])).collect();
    let root = arena.h.f_index_select(0, &Tensor::f_from_slice(&roots)?)?;
    Ok((arena, levels, root, merges))
}

impl Arena {
    fn new(h: &Tensor, c: &Tensor, lengths: &[usize], w: &Weights) -> Result<Self> {
        let (t, b, width) = h.size3()?;
        let leaves = t * b;
        // each sentence: T - 1 pairs of leaves, then at most two for each merge but the last
        let candidates = lengths.iter().map(|&n| (n - 1 + 2 * n.saturating_sub(2)) as i64).sum::<i64>();
        let rows = leaves + candidates;
        let options = (h.kind(), Device::Cpu);
        let weight = w.weight.detach();
        let stacked = Tensor::f_cat(&[weight.f_narrow(1, 0, width)?, weight.f_narrow(1, width, width)?], 0)?;
        let bias = w.bias.detach().f_add_scalar(0.0)?;
        let _ = bias.f_narrow(0, width, 2 * width)?.f_add_scalar_(1.0)?;
        let arena = Arena {
            width: width as usize,
            leaves: leaves as usize,
            used: leaves as usize,
            h: Tensor::f_empty([rows, width], options)?,
            c: Tensor::f_empty([rows, width], options)?,
            p: Tensor::f_empty([rows, 10 * width], options)?,
            gates: Tensor::f_empty([candidates, 5 * width], options)?,
            tanh_c: Tensor::f_empty([candidates, width], options)?,
            stacked,
            bias,
        };
        arena.h.f_narrow(0, 0, leaves)?.f_copy_(&h.f_reshape([leaves, width])?)?;
        arena.c.f_narrow(0, 0, leaves)?.f_copy_(&c.f_reshape([leaves, width])?)?;
        arena.project(0, arena.leaves)?;
        Ok(arena)
    }

    fn rows(&self) -> usize {
        self.h.size()[0] as usize
    }

    /// The products of these rows of h.
    fn project(&self, from: usize, rows: usize) -> Result<()> {
        let (from, rows) = (from as i64, rows as i64);
        let out = self.p.f_narrow(0, from, rows)?;
        let _ = self.h.f_narrow(0, from, rows)?.f_mm_out(&out, &self.stacked.f_tr()?)?;
        Ok(())
    }

    /// The products of the rows of h with these numbers.
    fn project_these(&self, rows: &[i64]) -> Result<()> {
        let rows = Tensor::f_from_slice(rows)?;
        let products = self.h.f_index_select(0, &rows)?.f_mm(&self.stacked.f_tr()?)?;
        let _ = self.p.shallow_clone().f_index_copy_(0, &rows, &products)?;
        Ok(())
    }

    /// The cells of these pairs of rows, as the next rows, and their scores.
    fn grow<T: Loops>(
        &mut self,
        pairs: &[(u32, u32)],
        query: &Tensor,
        products: bool,
        scores: &mut Vec<T>,
    ) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let (w, from, n) = (self.width, self.used, pairs.len());
        let born = (from - self.leaves) as i64;
        let (wide, rows) = (w as i64, n as i64);
        let mut gates = self.gates.f_narrow(0, born, rows)?;
        {
            let (p, bias, gates) = (slice::<T>(&self.p)?, slice::<T>(&self.bias)?, slice_mut::<T>(&mut gates)?);
            for (&(a, b), to) in pairs.iter().zip(gates.chunks_exact_mut(5 * w)) {
                let (a, b) = (&p[a as usize * 10 * w..][..5 * w], &p[b as usize * 10 * w + 5 * w..][..5 * w]);
                T::add3(a, b, bias, to);
            }
        }
        let _ = gates.f_narrow(1, 0, 3 * wide)?.f_sigmoid_()?;
        let _ = gates.f_narrow(1, 3 * wide, wide)?.f_tanh_()?;
        let _ = gates.f_narrow(1, 4 * wide, wide)?.f_sigmoid_()?;
        {
            let (gates, c) = (slice::<T>(&gates)?, slice_mut::<T>(&mut self.c)?);
            let (old, new) = c.split_at_mut(from * w);
            for ((&(a, b), g), to) in pairs.iter().zip(gates.chunks_exact(5 * w)).zip(new.chunks_exact_mut(w)) {
                T::cell(g, &old[a as usize * w..][..w], &old[b as usize * w..][..w], to);
            }
        }
        let tanh_c = self.tanh_c.f_narrow(0, born, rows)?;
        let _ = self.c.f_narrow(0, from as i64, rows)?.f_tanh_out(&tanh_c)?;
        let h = self.h.f_narrow(0, from as i64, rows)?;
        let _ = tanh_c.f_mul_out(&h, &gates.f_narrow(1, 4 * wide, wide)?)?;
        scores.extend_from_slice(slice::<T>(&h.f_mv(query)?)?);
        if products {
            self.project(from, n)?;
        }
        self.used += n;
        Ok(())
    }
}
