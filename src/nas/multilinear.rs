//! A function of cells, extended to everything between them.
use super::{CELLS, Cell};
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

/// `f(x) = sum_c A[c] prod_e x[e, c_e]` for one value `A[c]` a cell: the one extension of a table that is linear in each edge's
/// weights `x[e, .]`.
///
/// At a cell it is the cell's value, and its derivative in `x[e, k]` there is the value of the cell with edge e changed to k,
/// so a drop-in's gradient is made of exact differences between neighbours. As edges are drawn independently, `E f(D) = f(pi)`:
/// the exact expectation over all 15,625 cells, and by autograd its gradient, is one evaluation at the probabilities.
#[derive(Debug)]
pub struct Multilinear {
    /// `[125, 125]`: the first three edges by the last three.
    table: Tensor,
}

impl Multilinear {
    /// From a value a cell, by [`Cell::code`], in f64.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of values.
    pub fn new(values: &[f64], device: Device) -> Result<Self> {
        if values.len() != CELLS {
            return Err(Error::shape("Multilinear", format!("{CELLS} values, one a cell"), values.len()));
        }
        Ok(Multilinear { table: Tensor::f_from_slice(values)?.f_view([125, 125])?.f_to_device(device)? })
    }

    /// Weights `[.., 6, 5]` -> `[..]`, differentiable in them.
    ///
    /// # Errors
    /// [`Error::Shape`] for other trailing axes.
    pub fn at(&self, x: &Tensor) -> Result<Tensor> {
        let size = x.size();
        let Some((lead, [6, 5])) = size.split_last_chunk() else {
            return Err(Error::shape("Multilinear", "weights [.., 6, 5]", size));
        };
        let x = x.f_reshape([-1, 6, 5])?;
        let three = |from: i64| -> Result<Tensor> {
            let edge = |i: i64, shape: [i64; 4]| x.f_select(1, from + i)?.f_reshape(shape);
            let product = edge(0, [-1, 5, 1, 1])? * edge(1, [-1, 1, 5, 1])? * edge(2, [-1, 1, 1, 5])?;
            Ok(product.f_reshape([-1, 125])?)
        };
        let table = self.table.f_to_kind(x.kind())?;
        let value = (three(0)?.f_matmul(&table)? * three(3)?).f_sum_dim_intlist(-1, false, x.kind())?;
        Ok(value.f_reshape(lead)?)
    }

    /// The value of a cell.
    pub fn of(&self, cell: &Cell) -> f64 {
        let code = cell.code() as i64;
        self.table.double_value(&[code / 125, code % 125])
    }

    /// All values, by [`Cell::code`]: `[15625]`.
    pub fn values(&self) -> Result<Tensor> {
        Ok(self.table.f_view([CELLS as i64])?)
    }

    /// The same with each value changed, as by a logarithm.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map(&self, change: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Multilinear { table: change(&self.table)?.f_to_kind(Kind::Double)? })
    }
}
