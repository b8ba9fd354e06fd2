//! Searches that see nothing but accuracies: uniform draws, and regularised evolution (Real, Aggarwal, Huang & Le 2019) with the
//! rules of NATS-Bench's public code (Dong et al. 2021; AutoDL-Projects, `exps/NATS-algos/regularized_ea.py`).
//!
//! In that code, as here: a first population of uniform cells; the parent is the best of a tournament drawn with repetition,
//! of equals the one drawn first; the child takes the place of the oldest member; the result is the best cell ever met. A mutation
//! draws a *node* and then one of its edges, so that edge `1<-0` changes in a third of all mutations and each of the three
//! into node 3 in a ninth; the new operation is uniform among the other four. Real et al. search another space, where a mutation
//! may also give an edge another origin; here the edges are fixed. What differs: that code stops at a budget of simulated
//! training time, ours at a number of cells, and random numbers are drawn otherwise.
use std::collections::VecDeque;
use tch::{Device, Kind};
use thruway::error::Result;
use thruway::nas::{CELLS, Cell, EDGES, NODES, Op};
use thruway::noise::Noise;

/// What a search without gradients keeps, as codes of cells.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Sampled {
    /// Evolution's members, the oldest first.
    pub members: VecDeque<usize>,
    /// The best cell so far.
    pub best: Option<usize>,
}

/// A number from 0 to n - 1.
fn below(n: usize, noise: &mut dyn Noise) -> Result<usize> {
    let u = noise.uniform(&[1], Kind::Double, Device::Cpu)?.double_value(&[0]);
    Ok(((u * n as f64) as usize).min(n - 1))
}

impl Sampled {
    /// Asks for one more cell's accuracy: a uniform draw while there are fewer members than `population` (0: always), then a
    /// mutant of the best of `tournament` members drawn with repetition, which takes the oldest one's place.
    pub fn step(
        &mut self,
        population: usize,
        tournament: usize,
        accuracy: &dyn Fn(usize) -> f64,
        noise: &mut dyn Noise,
    ) -> Result<()> {
        let cell = if population == 0 || self.members.len() < population {
            below(CELLS, noise)?
        } else {
            let mut parent = self.members[below(population, noise)?];
            for _ in 1..tournament {
                let other = self.members[below(population, noise)?];
                parent = if accuracy(other) > accuracy(parent) { other } else { parent };
            }
            self.members.pop_front();
            mutant(parent, noise)?
        };
        if population > 0 {
            self.members.push_back(cell);
        }
        if self.best.is_none_or(|best| accuracy(cell) > accuracy(best)) {
            self.best = Some(cell);
        }
        Ok(())
    }
}

/// The cell with one edge changed to another operation, uniformly: a node is drawn, then one of the edges into it.
fn mutant(code: usize, noise: &mut dyn Noise) -> Result<usize> {
    let mut cell = Cell::from_code(code).expect("codes come from cells");
    let node = 1 + below(NODES - 1, noise)?;
    let from = below(node, noise)?;
    let edge = EDGES.iter().position(|e| *e == (node, from)).expect("every node has an edge from each before it");
    let shift = 1 + below(4, noise)?;
    cell.0[edge] = Op::ALL[(cell.0[edge] as usize + shift) % 5];
    Ok(cell.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use thruway::noise::HostNoise;

    /// 9,000 mutants of one cell: a third change edge 1<-0, a sixth each edge into node 2, a ninth each into node 3, each to any of
    /// the four other operations alike. Counts are held to 5 standard deviations of a binomial: a false alarm once in 60,000
    /// seeds (30 counts); edges drawn alike (1/6 each) would be off by 34 standard deviations at the first.
    #[test]
    fn nas_mutants_change_one_edge_as_the_benchmarks_code_draws_it() {
        let parent = Cell::from_code(9_342).unwrap();
        let (draws, mut noise) = (9_000, HostNoise::new(3));
        let mut counts = [[0; 5]; 6];
        for _ in 0..draws {
            let child = Cell::from_code(mutant(parent.code(), &mut noise).unwrap()).unwrap();
            let changed: Vec<usize> = (0..6).filter(|e| child.0[*e] != parent.0[*e]).collect();
            assert_eq!(changed.len(), 1);
            counts[changed[0]][child.0[changed[0]] as usize] += 1;
        }
        for (edge, row) in counts.iter().enumerate() {
            let edge_share = 1.0 / (3.0 * EDGES[edge].0 as f64);
            let near = |n: i32, p: f64| {
                let n_of = f64::from(draws);
                (f64::from(n) - n_of * p).abs() < 5.0 * (n_of * p * (1.0 - p)).sqrt()
            };
            assert!(near(row.iter().sum(), edge_share), "{:?}: {row:?}", EDGES[edge]);
            for (op, n) in row.iter().enumerate() {
                let share = if op == parent.0[edge] as usize { 0.0 } else { edge_share / 4.0 };
                assert!(*n == 0 && share == 0.0 || near(*n, share), "{:?}: {row:?}", EDGES[edge]);
            }
        }
    }
}
