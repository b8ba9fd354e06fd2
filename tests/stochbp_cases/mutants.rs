//! Power of the tests by quadrature: a wrong factor in any coefficient of any rule is seen.
use super::stochbp_common::{Law, relative, vector};
use super::{LAWS, equation_14, polynomial, rule};
use tch::Tensor;
use thruway::Result;
use thruway::dist::Continuous;
use thruway::noise::Noise;
use thruway::stochbp::{LogCharacteristic, Objective, Sum};

/// A law with the coefficient of order n of one parameter multiplied by 1.1; at n = 0, the sum of its series.
struct Mutant<'a> {
    law: &'a dyn LogCharacteristic,
    parameter: usize,
    n: i64,
}

impl Mutant<'_> {
    fn changed(&self, n: i64, mut all: Vec<Tensor>) -> Vec<Tensor> {
        if n == self.n {
            all[self.parameter] = &all[self.parameter] * 1.1;
        }
        all
    }
}

impl Continuous for Mutant<'_> {
    fn name(&self) -> &'static str {
        self.law.name()
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        self.law.parameters()
    }

    fn sample(&self, samples: i64, noise: &mut dyn Noise) -> Result<Tensor> {
        self.law.sample(samples, noise)
    }

    fn log_prob(&self, z: &Tensor) -> Result<Tensor> {
        self.law.log_prob(z)
    }

    fn score(&self, z: &Tensor) -> Result<Vec<Tensor>> {
        self.law.score(z)
    }

    fn pathwise(&self, z: &Tensor, slope: &Tensor) -> Result<Vec<Tensor>> {
        self.law.pathwise(z, slope)
    }
}

impl LogCharacteristic for Mutant<'_> {
    fn coefficients(&self, n: i64) -> Result<Vec<Tensor>> {
        Ok(self.changed(n, self.law.coefficients(n)?))
    }

    fn last(&self) -> Option<i64> {
        self.law.last()
    }

    fn radius(&self) -> Result<Option<Tensor>> {
        self.law.radius()
    }

    fn sum_at(&self, s: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.changed(0, self.law.sum_at(s)?))
    }
}

#[test]
fn stochbp_a_wrong_factor_in_any_coefficient_is_seen() {
    for law in LAWS {
        let (p, q) = (law.build(), law.quadrature(2001));
        let cubic = |z: &Tensor| Ok(polynomial(z, 4));
        let exponential = |z: &Tensor| Ok((z * -0.3).exp());
        let mut mutants = 0;
        for n in 0..=4 {
            for parameter in 0..2 {
                if n > 0 && super::number(&p.coefficients(n).unwrap()[parameter].abs().max()) == 0.0 {
                    continue;
                }
                let mutant = Mutant { law: &*p, parameter, n };
                let (f, sum) = match n {
                    0 => (Objective::Separable(&exponential), Sum::Exponential),
                    _ => (Objective::Separable(&cubic), Sum::Polynomial(4)),
                };
                let error = |p: &dyn LogCharacteristic| {
                    let ours = q.expectation(&rule(sum).at(p, &f, &q.z).unwrap());
                    relative(&ours[parameter..=parameter], &q.truth(&f)[parameter..=parameter])
                };
                let (right, wrong) = (error(&*p), error(&mutant));
                assert!(right < 1e-9 && wrong > 1e-6, "{law:?} parameter {parameter} order {n}: {right:e} {wrong:e}");
                mutants += 1;
            }
        }
        assert!(mutants >= 4, "{law:?}: {mutants}");
    }
}

/// Eq. 14 with a full covariance: each of the two coefficients.
#[test]
fn stochbp_a_wrong_factor_in_equation_14_is_seen() {
    let unit = Law::Gaussian(0.0, 1.0).quadrature(201);
    let q = unit.product(&unit);
    let factor = vector(&[0.8, 0.0, -0.3, 0.5]).view([2, 2]);
    let z = q.z.matmul(&factor.tr()) + vector(&[0.4, -0.2]);
    let c = vector(&[0.7, -1.1]);
    let f = |z: &Tensor| Ok(z.matmul(&c).exp() * &q.w * q.w.size()[0] as f64);
    let gradients = |by_mean: f64, by_covariance: f64| {
        let mean = vector(&[0.4, -0.2]).set_requires_grad(true);
        let covariance = factor.matmul(&factor.tr()).set_requires_grad(true);
        let (m, v) = (&mean * by_mean, &covariance * by_covariance);
        equation_14(&m, &v, &Objective::Smooth(&f), &z).backward();
        [mean.grad(), covariance.grad()]
    };
    let value = (c.dot(&vector(&[0.4, -0.2])) + c.dot(&factor.matmul(&factor.tr()).matmul(&c)) * 0.5).exp();
    let truth = [&c * &value, c.unsqueeze(-1) * c.unsqueeze(0) * &value * 0.5];
    assert!(relative(&gradients(1.0, 1.0), &truth) < 1e-10);
    assert!(relative(&gradients(1.1, 1.0), &truth) > 0.05);
    assert!(relative(&gradients(1.0, 1.1)[1..], &truth[1..]) > 0.05);
}
