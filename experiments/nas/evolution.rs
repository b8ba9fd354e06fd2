//! Searches that see nothing but accuracies: uniform draws, and regularised evolution (Real, Aggarwal, Huang & Le 2019).
use std::collections::VecDeque;
use tch::{Device, Kind};
use thruway::error::Result;
use thruway::nas::{CELLS, Cell, Op};
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

/// The cell with one edge, drawn uniformly, changed to another operation.
fn mutant(code: usize, noise: &mut dyn Noise) -> Result<usize> {
    let mut cell = Cell::from_code(code).expect("codes come from cells");
    let edge = below(6, noise)?;
    let shift = 1 + below(4, noise)?;
    cell.0[edge] = Op::ALL[(cell.0[edge] as usize + shift) % 5];
    Ok(cell.code())
}
