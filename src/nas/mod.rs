//! The topology search space of NAS-Bench-201 and NATS-Bench (Dong & Yang 2020; Dong et al. 2021): a cell of four nodes whose
//! six edges each carry one of five operations.
//!
//! Node 0 is the input; node i is the sum over j < i of the operation on edge `i<-j` applied to node j; node 3 is the output.
//! A cell is written `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|`: nodes 1, 2 and 3, each with its
//! operations and where they come from.
//!
//! ```
//! use thruway::nas::Cell;
//! let cell: Cell = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|".parse()?;
//! assert_eq!(Cell::from_code(cell.code()), Some(cell));
//! // node 2 is node 1, so the pool might as well take that
//! let other: Cell = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|avg_pool_3x3~1|none~2|".parse()?;
//! assert_eq!(cell.function(), other.function());
//! # thruway::Result::Ok(())
//! ```
mod multilinear;
pub use multilinear::Multilinear;

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Nodes of a cell.
pub const NODES: usize = 4;
/// The edges as (node, where from), in the order of every table, tensor and string here.
pub const EDGES: [(usize, usize); 6] = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)];
/// Number of cells, `5^6`.
pub const CELLS: usize = 15_625;

/// What an edge carries. The order is the benchmark's: it numbers the classes of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// Nothing passes.
    None,
    /// The identity.
    Skip,
    /// ReLU, 1x1 convolution, batch norm.
    Conv1,
    /// ReLU, 3x3 convolution, batch norm.
    Conv3,
    /// Average over 3x3 pixels, those outside the image not counted.
    Pool,
}

impl Op {
    /// All, in the benchmark's order.
    pub const ALL: [Op; 5] = [Op::None, Op::Skip, Op::Conv1, Op::Conv3, Op::Pool];

    /// The benchmark's name.
    pub fn name(self) -> &'static str {
        ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"][self as usize]
    }

    /// By the benchmark's name.
    pub fn by_name(name: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// A cell: one operation an edge, in the order of [`EDGES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell(pub [Op; 6]);

impl Cell {
    /// Every cell, by [`Cell::code`].
    pub fn all() -> impl Iterator<Item = Cell> {
        (0..CELLS).filter_map(Cell::from_code)
    }

    /// Its number in base 5, the last edge running fastest: the order in which [`crate::exact::states`] lists them. It is not
    /// the benchmark's index, which is arbitrary and known only to its table
    /// ([`NatsBench::index`](crate::data::NatsBench::index)).
    pub fn code(&self) -> usize {
        self.0.iter().fold(0, |code, op| 5 * code + *op as usize)
    }

    /// The cell of a code; `None` from [`CELLS`] on.
    pub fn from_code(code: usize) -> Option<Cell> {
        let digit = |edge: u32| Op::ALL[code / 5usize.pow(5 - edge) % 5];
        (code < CELLS).then(|| Cell([0, 1, 2, 3, 4, 5].map(digit)))
    }

    /// The cell of a class an edge, as an argmax gives them.
    ///
    /// # Errors
    /// [`Error::Range`] unless there are six classes, each from 0 to 4.
    pub fn from_classes(classes: &[i64]) -> Result<Cell> {
        let op = |i: &i64| usize::try_from(*i).ok().and_then(|i| Op::ALL.get(i)).copied();
        let ops: Option<Vec<Op>> = classes.iter().map(op).collect();
        let ops: Option<[Op; 6]> = ops.and_then(|ops| ops.try_into().ok());
        ops.map(Cell)
            .ok_or_else(|| Error::range("the classes of a cell", "six numbers from 0 to 4", format!("{classes:?}")))
    }

    /// The operations that enter a node, with where they come from.
    pub fn into_node(&self, node: usize) -> impl Iterator<Item = (usize, Op)> + '_ {
        EDGES.iter().zip(self.0).filter(move |((to, _), _)| *to == node).map(|((_, from), op)| (*from, op))
    }

    /// The benchmark's test of isomorphism: cells with equal strings count as one, 6,466 in all.
    ///
    /// A skip connection hands on the expression of its source, sums are sorted, and an edge is zero (`#`) if it carries `none` or
    /// comes from a zero node. As in the benchmark, a node all of whose *two or three* edges are zero is not seen to be zero,
    /// and a sum within a sum is not dissolved: [`Cell::function`] does both.
    pub fn isomorphism(&self) -> String {
        self.expression(|node, edges| {
            let mut terms: Vec<String> = edges
                .map(|(source, op)| match op {
                    Op::None => "#".into(),
                    _ if node[source] == "#" => "#".into(),
                    Op::Skip => node[source].clone(),
                    op => format!("({})@{}", node[source], op.name()),
                })
                .collect();
            terms.sort();
            terms.join("+")
        })
    }

    /// The function of its input that the cell is, whatever its weights: zeros are dropped and sums dissolved. 4,930 differ.
    pub fn function(&self) -> String {
        self.expression(|node, edges| {
            let mut terms: Vec<String> = Vec::new();
            for (source, op) in edges.filter(|(source, op)| *op != Op::None && node[*source] != "#") {
                match op {
                    Op::Skip => terms.extend(split(&node[source])),
                    op => terms.push(format!("({})@{}", node[source], op.name())),
                }
            }
            terms.sort();
            if terms.is_empty() { "#".into() } else { terms.join("+") }
        })
    }

    /// The expression of the last node, each node's from those before it.
    fn expression(&self, rule: impl Fn(&[String], &mut dyn Iterator<Item = (usize, Op)>) -> String) -> String {
        let mut nodes = vec!["0".to_string()];
        for node in 1..NODES {
            let next = rule(&nodes, &mut self.into_node(node));
            nodes.push(next);
        }
        nodes.swap_remove(NODES - 1)
    }
}

/// The terms of a sum: split at each `+` outside brackets.
fn split(sum: &str) -> Vec<String> {
    let (mut depth, mut terms) = (0, vec![String::new()]);
    for c in sum.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '+' if depth == 0 => {
                terms.push(String::new());
                continue;
            }
            _ => {}
        }
        terms.last_mut().expect("one at least").push(c);
    }
    terms
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for node in 1..NODES {
            f.write_str(if node == 1 { "|" } else { "+|" })?;
            for (from, op) in self.into_node(node) {
                write!(f, "{}~{from}|", op.name())?;
            }
        }
        Ok(())
    }
}

impl FromStr for Cell {
    type Err = Error;

    /// In the benchmark's notation. Within a node the operations may come in any order.
    fn from_str(text: &str) -> Result<Cell> {
        let bad = |why: String| {
            let like = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|";
            Error::range(format!("an architecture ({why})"), format!("of the form {like}"), format!("{text:?}"))
        };
        let nodes: Vec<&str> = text.trim().split('+').collect();
        if nodes.len() != NODES - 1 {
            return Err(bad(format!("{} nodes after the input", nodes.len())));
        }
        let mut ops = [None; 6];
        for (node, part) in (1..).zip(nodes) {
            let inner = part.strip_prefix('|').and_then(|p| p.strip_suffix('|'));
            for word in inner.ok_or_else(|| bad(format!("node {node} is not between bars")))?.split('|') {
                let (name, from) = word.split_once('~').ok_or_else(|| bad(format!("{word:?} has no ~")))?;
                let op = Op::by_name(name)
                    .ok_or_else(|| bad(format!("{name:?} is none of {}", Op::ALL.map(Op::name).join(", "))))?;
                let edge = EDGES.iter().position(|(to, j)| *to == node && j.to_string() == from);
                let edge = edge.ok_or_else(|| bad(format!("node {node} cannot come from {from:?}")))?;
                if ops[edge].replace(op).is_some() {
                    return Err(bad(format!("edge {node}<-{from} twice")));
                }
            }
        }
        let missing = ops.iter().position(Option::is_none).map(|e| EDGES[e]);
        if let Some((to, from)) = missing {
            return Err(bad(format!("edge {to}<-{from} is missing")));
        }
        Ok(Cell(ops.map(|op| op.unwrap_or(Op::None))))
    }
}

impl Serialize for Cell {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
