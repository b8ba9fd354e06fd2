//! Stochastic binary networks against recorded values: estimators at given states (`psa-fixture-1`, bundled) and the exact
//! gradient at the published parameters of the 5-5-5 network (`psa-555-1`, read through `THRUWAY_FIXTURES`).
mod common;
use common::{fixture_files, psa, read};

fn check(format: &str) -> usize {
    let mut files = 0;
    for path in fixture_files() {
        let fixture = read(&path);
        if fixture["format"] == format {
            let tally = psa::check(&fixture).expect("a format it knows");
            println!("fixture {}: {} cases, largest error {:e}", path.display(), tally.cases, tally.worst);
            assert!(tally.cases > 0, "{}: no case", path.display());
            files += 1;
        }
    }
    files
}

#[test]
fn psa_fixture_at_given_states() {
    assert!(check("psa-fixture-1") > 0, "the bundled fixture was not read");
}

#[test]
fn psa_555_fixture_has_the_exact_gradient() {
    if check("psa-555-1") == 0 {
        common::skip("psa_555_fixture_has_the_exact_gradient", "THRUWAY_FIXTURES names no directory with psa_555.json");
    }
}
