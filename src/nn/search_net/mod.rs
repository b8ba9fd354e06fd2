//! The macro skeleton of NAS-Bench-201 (Dong & Yang 2020) around cells that are searched for, or fixed.
//!
//! 3x3 convolution to C channels and batch norm; N cells at C channels; a residual block to 2C at half the resolution, N
//! cells; another to 4C, N cells; batch norm, ReLU, mean over the image, a linear layer. All cells share one architecture.
//!
//! In the search every edge of every cell has its own two convolutions, and what is on an edge comes as weights `w [6, 5]`
//! shared by all cells. [`Activation`] says what the five operations o_k make of them.
//!
//! Legend: `B` batch, `C` channels, `H`, `W` height and width.
mod blocks;

use crate::error::{Error, Result};
use crate::nas::{Cell, EDGES, NODES, Op};
use crate::nn::{Linear, Params};
use blocks::{Conv, ConvNorm, Norm, Reduction, Store};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;
use tch::{Device, Kind, Tensor};

/// What an edge makes of one-hot weights w with `w_c = 1`. The value is `o_c(x)` in all three; they differ in the gradient that
/// reaches w, with g the gradient at the edge's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `w_c o_c(x)`: the chosen operation alone is run, and alone gets a gradient, `sum g o_c(x)`
    Selected,
    /// `sum_k w_k o_k(x)`: all five are run, and each gets `sum g o_k(x)`: the derivative in the sample that the theory of every
    /// drop-in assumes
    Full,
    /// `w_c o_c(x) + sum_{k != c} w_k`, as the published code of GDAS has it: what was not chosen gets `sum g`, as if its output were
    /// all ones
    Published,
}

/// What is on the edges of a forward pass.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'a> {
    /// One cell, without a gradient to the choice.
    Cell(&'a Cell),
    /// One-hot weights `[6, 5]`, as a drop-in draws them.
    Drawn(&'a Tensor, Activation),
    /// Any weights `[6, 5]`: all operations are run (DARTS).
    Mixed(&'a Tensor),
}

/// Sizes of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Channels of the first stage, C.
    pub channels: i64,
    /// Cells of each of the three stages, N.
    pub cells: i64,
    /// Classes.
    pub classes: i64,
}

impl Default for Sizes {
    /// Those of the benchmark on CIFAR-10.
    fn default() -> Self {
        Sizes { channels: 16, cells: 5, classes: 10 }
    }
}

/// The two convolutions of each edge; those that a fixed cell does not have are missing.
#[derive(Debug)]
struct Edges(Vec<[Option<ConvNorm>; 2]>);

#[derive(Debug)]
enum Layer {
    Cell(Edges),
    Reduction(Reduction),
}

/// The network, for a search or with one fixed cell.
#[derive(Debug)]
pub struct SearchNet {
    store: Store,
    fixed: Option<Cell>,
    stem: (Conv, Norm),
    layers: Vec<Layer>,
    last: Norm,
    classifier: Linear,
}

impl SearchNet {
    /// The shared network of a search. Batch norm in the cells and before the classifier has neither scale, shift nor running
    /// statistics; in the stem and the residual blocks it has all of them.
    ///
    /// # Errors
    /// [`Error::Range`] for sizes below 1.
    pub fn search(sizes: Sizes, device: Device) -> Result<SearchNet> {
        SearchNet::new(sizes, None, device)
    }

    /// The network of one cell, as the benchmark trains it from scratch: batch norm everywhere in full.
    ///
    /// # Errors
    /// As [`SearchNet::search`].
    pub fn fixed(sizes: Sizes, cell: Cell, device: Device) -> Result<SearchNet> {
        SearchNet::new(sizes, Some(cell), device)
    }

    fn new(sizes: Sizes, fixed: Option<Cell>, device: Device) -> Result<SearchNet> {
        let Sizes { channels, cells, classes } = sizes;
        if channels < 1 || cells < 1 || classes < 1 {
            return Err(Error::range(
                "channels, cells and classes",
                "at least 1",
                format!("{channels}, {cells}, {classes}"),
            ));
        }
        let mut store = Store::default();
        let stem = (
            Conv::new(&mut store, "stem.conv", [3, channels, 3], 1, false, device)?,
            Norm::new(&mut store, "stem.norm", channels, true, device)?,
        );
        let mut layers = Vec::new();
        for stage in 0..3 {
            let width = channels << stage;
            if stage > 0 {
                let name = format!("cells.{}", layers.len());
                layers.push(Layer::Reduction(Reduction::new(&mut store, &name, width / 2, device)?));
            }
            for _ in 0..cells {
                let name = format!("cells.{}", layers.len());
                layers.push(Layer::Cell(Edges::new(&mut store, &name, width, fixed.as_ref(), device)?));
            }
        }
        let last = Norm::new(&mut store, "last", 4 * channels, fixed.is_some(), device)?;
        let classifier = Linear::new(&mut store.params, "classifier", 4 * channels, classes, device)?;
        Ok(SearchNet { store, fixed, stem, layers, last, classifier })
    }

    /// Trained parameters.
    pub fn params(&self) -> &Params {
        &self.store.params
    }

    /// Running statistics, for a checkpoint.
    pub fn buffers(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.store.buffers.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Takes parameters and running statistics by name.
    ///
    /// # Errors
    /// [`Error::Shape`] where a name is missing or a shape differs.
    pub fn load(&self, get: impl Fn(&str) -> Option<Tensor>) -> Result<()> {
        self.params().load(&get)?;
        let _guard = tch::no_grad_guard();
        for (name, t) in self.buffers() {
            let value = get(name).filter(|v| v.size() == t.size());
            let value =
                value.ok_or_else(|| Error::shape("running statistics", name, "nothing of that name and size"))?;
            t.shallow_clone().f_copy_(&value)?;
        }
        Ok(())
    }

    /// Images `[B, 3, H, W]` -> logits of the classes `[B, classes]`. `train`: batch statistics where running ones are kept,
    /// which it updates.
    ///
    /// # Errors
    /// [`Error::Shape`] for weights of another shape; [`Error::Usage`] where a network of one cell is asked for another.
    pub fn forward(&self, images: &Tensor, choice: Choice, train: bool) -> Result<Tensor> {
        let plan = Plan { zeros: self.fixed.is_some(), ..Plan::new(choice)? };
        if let Some(cell) = self.fixed
            && (plan.mixed || plan.chosen != cell)
        {
            return Err(Error::Usage(format!("this network has the one cell {cell}")));
        }
        let mut x = self.stem.1.forward(&self.stem.0.forward(images)?, train)?;
        for layer in &self.layers {
            x = match layer {
                Layer::Cell(edges) => edges.forward(&x, &plan, train)?,
                Layer::Reduction(block) => block.forward(&x, train)?,
            };
        }
        let x = self.last.forward(&x, train)?.f_relu()?;
        self.classifier.forward(&x.f_mean_dim([2i64, 3].as_slice(), false, Kind::Float)?)
    }
}

/// Leaves in `logits` the gradient of a loss, and in nothing else: that of the network's weights is not even computed. False
/// where the loss does not depend on them, as when every way through the cell is blocked.
///
/// # Errors
/// [`Error::Torch`] for a loss without a graph.
pub fn backward(loss: &Tensor, logits: &Tensor) -> Result<bool> {
    let gradient = Tensor::f_run_backward(&[loss], &[logits], false, false)?.remove(0);
    if gradient.defined() {
        (logits * gradient).f_sum(logits.kind())?.f_backward()?;
        return Ok(true);
    }
    Ok(false)
}

/// What a forward pass does in every cell.
struct Plan {
    /// The chosen operations; not looked at where all are mixed.
    chosen: Cell,
    mixed: bool,
    /// Whether nodes that are zero count.
    zeros: bool,
    /// Of each edge the weights of the operations and, as published, the sum of those not chosen.
    weights: Option<Vec<EdgeWeights>>,
    /// Whether a node's value can reach the output.
    reaches: [bool; NODES],
}

struct EdgeWeights {
    each: Vec<Tensor>,
    others: Option<Tensor>,
}

impl Plan {
    fn new(choice: Choice) -> Result<Plan> {
        let (w, activation) = match choice {
            Choice::Cell(cell) => {
                return Ok(Plan { chosen: *cell, mixed: false, zeros: false, weights: None, reaches: reaches(cell) });
            }
            Choice::Drawn(w, activation) => (w, Some(activation)),
            Choice::Mixed(w) => (w, None),
        };
        if w.size() != [6, 5] {
            return Err(Error::shape("SearchNet", "weights [6, 5] of the edges' operations", w.size()));
        }
        let chosen = Cell::from_classes(&Vec::<i64>::try_from(w.f_argmax(-1, false)?.f_to_device(Device::Cpu)?)?)?;
        let weights = (0..6).map(|e| {
            let row = w.f_get(e)?;
            let others = (activation == Some(Activation::Published)).then(|| -> Result<Tensor> {
                let rest: Vec<i64> = (0..5).filter(|k| *k != chosen.0[e as usize] as i64).collect();
                let rest = Tensor::f_from_slice(&rest)?.f_to_device(w.device())?;
                Ok(row.f_index_select(0, &rest)?.f_sum(w.kind())?)
            });
            let each = (0..5).map(|k| row.f_get(k)).collect::<std::result::Result<_, _>>()?;
            Ok(EdgeWeights { each, others: others.transpose()? })
        });
        let mixed = matches!(activation, None | Some(Activation::Full));
        let reaches = if activation == Some(Activation::Selected) { reaches(&chosen) } else { [true; NODES] };
        Ok(Plan { chosen, mixed, zeros: false, weights: Some(weights.collect::<Result<_>>()?), reaches })
    }
}

/// Nodes with a way to the output on which nothing is `none`.
fn reaches(cell: &Cell) -> [bool; NODES] {
    let mut reaches = [false, false, false, true];
    for ((to, from), op) in EDGES.iter().zip(cell.0).rev() {
        reaches[*from] |= reaches[*to] && op != Op::None;
    }
    reaches
}

/// A node, with what several of its edges need.
struct Node {
    value: Tensor,
    relu: OnceCell<Tensor>,
    pooled: OnceCell<Tensor>,
}

impl Node {
    fn new(value: Tensor) -> Node {
        Node { value, relu: OnceCell::new(), pooled: OnceCell::new() }
    }

    fn relu(&self) -> Result<&Tensor> {
        if self.relu.get().is_none() {
            let _ = self.relu.set(self.value.f_relu()?);
        }
        Ok(self.relu.get().expect("just set"))
    }

    fn pooled(&self) -> Result<&Tensor> {
        if self.pooled.get().is_none() {
            let _ = self.pooled.set(self.value.f_avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None::<i64>)?);
        }
        Ok(self.pooled.get().expect("just set"))
    }
}

impl Edges {
    fn new(store: &mut Store, name: &str, channels: i64, fixed: Option<&Cell>, device: Device) -> Result<Edges> {
        let search = fixed.is_none();
        let mut edges = Vec::new();
        for (e, (to, from)) in EDGES.iter().enumerate() {
            let mut conv = |op: Op, side: i64| -> Result<Option<ConvNorm>> {
                if fixed.is_some_and(|cell| cell.0[e] != op) {
                    return Ok(None);
                }
                let name = format!("{name}.{to}<-{from}.{}", op.name());
                ConvNorm::new(store, &name, [channels, channels, side], 1, !search, search, device).map(Some)
            };
            edges.push([conv(Op::Conv1, 1)?, conv(Op::Conv3, 3)?]);
        }
        Ok(Edges(edges))
    }

    /// An operation on a node; `None` is the zero of the operation `none`.
    fn apply(&self, edge: usize, op: Op, node: &Node, train: bool) -> Result<Option<Tensor>> {
        let conv = |i: usize| -> Result<Option<Tensor>> {
            let missing = || Error::Usage("an operation that this network has not".into());
            Ok(Some(self.0[edge][i].as_ref().ok_or_else(missing)?.forward(node.relu()?, train)?))
        };
        match op {
            Op::None => Ok(None),
            Op::Skip => Ok(Some(node.value.shallow_clone())),
            Op::Conv1 => conv(0),
            Op::Conv3 => conv(1),
            Op::Pool => Ok(Some(node.pooled()?.shallow_clone())),
        }
    }

    /// `[B, C, H, W]` to the same.
    fn forward(&self, x: &Tensor, plan: &Plan, train: bool) -> Result<Tensor> {
        let mut nodes = vec![Some(Node::new(x.shallow_clone()))];
        for node in 1..NODES {
            let mut sum: Option<Tensor> = None;
            for (e, (to, from)) in EDGES.iter().enumerate() {
                let Some(source) =
                    nodes.get(*from).and_then(Option::as_ref).filter(|_| *to == node && plan.reaches[node])
                else {
                    continue;
                };
                let mut add = |term: Tensor| {
                    sum = Some(match sum.take() {
                        Some(sum) => sum + term,
                        None => term,
                    });
                };
                let ops = if plan.mixed { &Op::ALL[..] } else { std::slice::from_ref(&plan.chosen.0[e]) };
                for op in ops {
                    let Some(y) = self.apply(e, *op, source, train)? else { continue };
                    add(match &plan.weights {
                        Some(weights) => y * &weights[e].each[*op as usize],
                        None => y,
                    });
                }
                if let Some(others) = plan.weights.as_ref().and_then(|w| w[e].others.as_ref()) {
                    add(others.f_expand_as(x)?);
                }
            }
            // Batch norm without a shift takes a zero node to zero. A fixed cell's has a shift: its zeros must be there.
            let value = match sum {
                None if plan.zeros => Some(x.f_zeros_like()?),
                sum => sum,
            };
            nodes.push(value.map(Node::new));
        }
        Ok(match nodes.swap_remove(NODES - 1) {
            Some(output) => output.value,
            None => x.f_zeros_like()?,
        })
    }
}
