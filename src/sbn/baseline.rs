//! Baselines that remember.
use crate::error::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Exponentially weighted average of the loss of each datum (Section C.3 of the paper, momentum 0.9).
///
/// The caller owns it and saves it with the run: [`Ewa::state`] is the whole of it. A datum that was never seen has the
/// mean over those seen, or 0 at first.
#[derive(Debug)]
pub struct Ewa {
    momentum: f64,
    values: Tensor,
}

impl Ewa {
    /// For `n` data; the paper's momentum is 0.9.
    ///
    /// # Errors
    /// [`Error::Range`] unless the momentum is in [0, 1).
    pub fn new(n: i64, momentum: f64, kind: Kind, device: Device) -> Result<Self> {
        if !(0.0..1.0).contains(&momentum) {
            return Err(Error::range("momentum of the baseline", "in [0, 1)", momentum));
        }
        Ok(Ewa { momentum, values: Tensor::f_full([n], f64::NAN, (kind, device))? })
    }

    /// The averages of these data: indices i64 `[B]` -> `[B]`.
    pub fn get(&self, index: &Tensor) -> Result<Tensor> {
        let values = self.values.f_index_select(0, index)?;
        let unseen = values.f_isnan()?;
        let mean =
            self.values.f_nanmean([0i64].as_slice(), false, self.values.kind())?.f_nan_to_num(0.0, None, None)?;
        Ok(mean.f_expand_as(&values)?.f_where_self(&unseen, &values)?)
    }

    /// Takes in the losses `[B]` of these data; a first value is taken as it is.
    pub fn update(&mut self, index: &Tensor, losses: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let old = self.values.f_index_select(0, index)?;
        let losses = losses.detach().f_to_kind(self.values.kind())?;
        let new = (&old * self.momentum + &losses * (1.0 - self.momentum))
            .f_where_self(&old.f_isnan()?.f_logical_not()?, &losses)?;
        self.values = self.values.f_index_copy(0, index, &new)?;
        Ok(())
    }

    /// The averages of all data, NaN for those not seen, for a checkpoint.
    pub fn state(&self) -> &Tensor {
        &self.values
    }

    /// Takes up a saved state.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of data.
    pub fn restore(&mut self, state: &Tensor) -> Result<()> {
        if state.size() != self.values.size() {
            return Err(Error::shape("baseline", format!("{:?}", self.values.size()), state.size()));
        }
        self.values = state.f_to_kind(self.values.kind())?.f_to_device(self.values.device())?;
        Ok(())
    }
}
