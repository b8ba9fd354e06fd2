//! Mean, spread and the distance between two means.

/// Mean and sample standard deviation of `n` values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Number of values, at least 1.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divisor `n - 1`); `None` for one value or where a source gives none.
    pub std: Option<f64>,
}

impl Spread {
    /// Of the values given; `None` when there is none.
    ///
    /// ```
    /// use thruway::report::stats::Spread;
    /// let s = Spread::of(&[1.0, 2.0, 3.0]).unwrap();
    /// assert_eq!((s.n, s.mean, s.std), (3, 2.0, Some(1.0)));
    /// ```
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = (n > 0).then(|| values.iter().sum::<f64>() / n as f64)?;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        Some(Self { n, mean, std: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()) })
    }

    /// Welch's statistic `(self - other) / sqrt(s1^2/n1 + s2^2/n2)`. `None` unless both sides have at least two values,
    /// a standard deviation each, and one of these is positive.
    pub fn z(&self, other: &Spread) -> Option<f64> {
        if self.n < 2 || other.n < 2 {
            return None;
        }
        let variance = self.std?.powi(2) / self.n as f64 + other.std?.powi(2) / other.n as f64;
        (variance > 0.0).then(|| (self.mean - other.mean) / variance.sqrt())
    }
}

/// The `q` quantile (0 to 1) of values in ascending order, by linear interpolation between order statistics.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// The interval that holds the central `share` (0 to 1) of the values; `None` for fewer than two.
pub fn central_interval(values: &[f64], share: f64) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some((quantile(&sorted, (1.0 - share) / 2.0), quantile(&sorted, (1.0 + share) / 2.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn welch_by_hand() {
        let (a, b) = (Spread { n: 3, mean: 10.0, std: Some(0.3) }, Spread { n: 10, mean: 9.0, std: Some(0.8) });
        // 1 / sqrt(0.03 + 0.064)
        assert!((a.z(&b).unwrap() - 1.0 / 0.094f64.sqrt()).abs() < 1e-12);
        assert_eq!(a.z(&b), b.z(&a).map(|z| -z));
        assert_eq!(Spread::of(&[1.0]).unwrap().z(&b), None);
        assert_eq!(a.z(&Spread { std: None, ..b }), None);
    }

    #[test]
    fn central_interval_drops_the_tails() {
        let values: Vec<f64> = (0..=20).rev().map(f64::from).collect();
        let (low, high) = central_interval(&values, 0.70).unwrap();
        assert!(
            (low - 3.0).abs() < 1e-12 && (high - 17.0).abs() < 1e-12,
            "0.15 is not a binary fraction: {low}, {high}"
        );
        assert_eq!(central_interval(&[1.0], 0.70), None);
        assert_eq!(Spread::of(&[]), None);
    }
}
