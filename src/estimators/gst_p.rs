//! Gapped straight-through with the probability-dependent gap: [`super::gst::Gapped`] with [`super::gst::Gap::Probability`].
use super::gst::{Gap, Gapped};
use super::{Built, Claims, Knobs, Tau};
use crate::error::Result;

/// What it promises.
pub const CLAIMS: Claims = Claims { knobs: &["tau"], ..super::gst::CLAIMS };

/// From the registry.
pub fn build(knobs: &Knobs) -> Result<Built> {
    knobs.only("gst-p", CLAIMS.knobs)?;
    Ok(Built::DropIn(Box::new(Gapped::new(knobs.tau.unwrap_or(Tau::Constant(1.0)), Gap::Probability)?)))
}
