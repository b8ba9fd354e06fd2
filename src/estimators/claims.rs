//! What an estimator promises, as data that the tests hold it to.

/// The functions f on which the expected estimate is the exact gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExactOn {
    /// Every f: unbiased.
    Everything,
    /// Polynomials of at most this degree in the one-hot sample, and not one degree more.
    Degree(u32),
    /// No class of functions is promised beyond constants.
    Nothing,
}

/// Whether the estimate given the draw is a function of the draw, so that its mean can be enumerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseKind {
    /// A function of the draw alone: finitely many values.
    Finite,
    /// Takes continuous noise beyond the draw.
    Continuous,
}

/// Claims of one estimator at its default knobs (tau = 1).
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// On which f the expectation is exact, and where that is proved.
    pub exact_on: ExactOn,
    /// Source of the claim.
    pub source: &'static str,
    /// Noise beyond the draw.
    pub noise: NoiseKind,
    /// The forward value is exactly one-hot.
    pub hard_forward: bool,
    /// Evaluations of f for one estimate.
    pub f_evals: &'static str,
    /// Needs the derivative of f.
    pub needs_grad_f: bool,
    /// Flags it takes, of `tau`, `samples`, `gap`.
    pub knobs: &'static [&'static str],
    /// Temperatures that make sense, for the table.
    pub tau: &'static str,
}
