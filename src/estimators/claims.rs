//! What an estimator promises, as data that the tests hold it to.

/// The functions f on which the expected estimate is the exact gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExactOn {
    /// Every f: unbiased.
    Everything,
    /// Every f, of a bound of several samples in place of the mean of f.
    Bound,
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
    /// A function of several draws, or of a pair of antithetic ones: finitely many values, of more than one state.
    Draws,
    /// Takes continuous noise beyond the draw.
    Continuous,
}

/// The kinds of latent variables an estimator is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Boolean ones alone.
    Boolean,
    /// Categorical ones, and Boolean ones with a code ([`Knobs::code`](super::Knobs)).
    Both,
}

/// Claims of one estimator at its default knobs (tau = 1).
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// What variables it is made for.
    pub variables: Takes,
    /// On which f the expectation is exact, and where that is proved.
    pub exact_on: ExactOn,
    /// Source of the claim.
    pub source: &'static str,
    /// Noise beyond the draw.
    pub noise: NoiseKind,
    /// The forward value is exactly one-hot.
    pub hard_forward: bool,
    /// Evaluations of f for one estimate of a row: `K` classes, `L` variables, `M` samples.
    pub f_evals: &'static str,
    /// Needs the derivative of f.
    pub needs_grad_f: bool,
    /// Flags it takes, of `tau`, `samples`, `gap`, `decay`, `interval`, `scale`.
    pub knobs: &'static [&'static str],
    /// Temperatures that make sense, for the table.
    pub tau: &'static str,
}
