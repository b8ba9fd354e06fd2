//! Expressions by the rule of the original generator (Nangia & Bowman 2018; nyu-mll/spinn, `make_data.py`).
use super::Example;
use super::expression::{CLOSE, Expression, FIRST_OP, OPEN, Op};
use crate::data::shapes::Random;
use std::collections::HashSet;

/// Probability that a node above the greatest depth is an operation.
const OPERATION: f64 = 0.25;
/// Depth of the nodes that are always digits; the root has depth 1.
const DEEPEST: usize = 20;
/// Fewest and most arguments of an operation.
const ARGUMENTS: (u64, u64) = (2, 5);
/// The official split has this many training expressions.
pub const TRAIN: usize = 90_000;

/// `n` distinct expressions with their values, none of which occurs in `others`, in the order of their draw.
///
/// A node above depth 20 is an operation with probability 1/4, else a digit; operator, digit and number of arguments (2 to 5)
/// are uniform. No length is filtered. The original draws 100,000 distinct expressions and splits them 90,000 to 10,000, so
/// `generate(seed, TRAIN, &test)` stands in the same relation to the test file as the original training file. Plain integer
/// arithmetic: the same expressions on every machine.
///
/// ```
/// let three = thruway::data::listops::generate(0, 3, &[]);
/// assert_eq!(three, thruway::data::listops::generate(0, 3, &[]));
/// assert!(three.iter().all(|e| e.label == e.expression.value()));
/// ```
pub fn generate(seed: u64, n: usize, others: &[&[Example]]) -> Vec<Example> {
    let mut random = Random::new(seed);
    let mut seen: HashSet<Expression> = HashSet::new();
    seen.extend(others.iter().flat_map(|set| set.iter().map(|e| e.expression.clone())));
    let mut examples = Vec::with_capacity(n);
    while examples.len() < n {
        let mut symbols = Vec::new();
        node(1, &mut random, &mut symbols);
        let expression = Expression::of(symbols);
        if seen.insert(expression.clone()) {
            examples.push(Example { label: expression.value(), expression });
        }
    }
    examples
}

fn node(depth: usize, random: &mut Random, symbols: &mut Vec<u8>) {
    if depth == DEEPEST || random.unit() >= OPERATION {
        symbols.push(random.below(10) as u8);
        return;
    }
    symbols.push(OPEN);
    symbols.push(FIRST_OP + random.below(Op::ALL.len() as u64) as u8);
    for _ in 0..ARGUMENTS.0 + random.below(ARGUMENTS.1 - ARGUMENTS.0 + 1) {
        node(depth + 1, random, symbols);
    }
    symbols.push(CLOSE);
}
