//! Every gradient of the head against central differences in f64.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use common::head::{Case, SMALL, STUDENT};
use learn::head::{Gradients, Network, Subset, accumulate};

const TOLERANCE: f64 = 1e-4;

/// Gradients this small are lost in the rounding of the differences.
const FLOOR: f64 = 1e-7;

fn loss(case: &Case, parameters: &[f64]) -> f64 {
    let network = Network::new(&case.layout, parameters).unwrap();
    accumulate(
        &network,
        &case.features,
        &case.target,
        &mut Gradients::new(&case.layout, Subset::Sparse),
    )
}

fn gradients(case: &Case, subset: Subset) -> Vec<f64> {
    let network = Network::new(&case.layout, &case.parameters).unwrap();
    let mut gradients = Gradients::new(&case.layout, subset);
    accumulate(&network, &case.features, &case.target, &mut gradients);
    gradients.values
}

#[test]
fn every_parameter_against_finite_differences() {
    for seed in 1..=4 {
        let case = Case::new(SMALL, seed);
        let analytic = gradients(&case, Subset::Full);
        let mut parameters = case.parameters.clone();
        let mut worst = 0.0_f64;
        for range in case.layout.ranges(Subset::Full) {
            for index in range {
                let value = parameters[index];
                let step = 1e-4;
                let mut at = |offset: f64| {
                    parameters[index] = value + offset;
                    loss(&case, &parameters)
                };
                // Fourth order: the error of the difference stays far below the tolerance.
                let numeric = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step)))
                    / (12.0 * step);
                parameters[index] = value;
                let scale = numeric.abs().max(analytic[index].abs()).max(FLOOR);
                let error = (numeric - analytic[index]).abs() / scale;
                worst = worst.max(error);
                assert!(error < TOLERANCE, "seed {seed}, {index}: {} {numeric}", analytic[index]);
            }
        }
        println!("seed {seed}: worst relative error {worst:.2e}");
    }
}

#[test]
fn constants_have_no_gradient_and_the_sparse_subset_has_the_same_numbers() {
    let case = Case::new(SMALL, 5);
    let (full, sparse) = (gradients(&case, Subset::Full), gradients(&case, Subset::Sparse));
    let mut seen = 0;
    for range in case.layout.ranges(Subset::Sparse) {
        for index in range {
            let close = (full[index] - sparse[index]).abs() <= 1e-12 + 1e-9 * full[index].abs();
            assert!(close, "{index}: {} {}", full[index], sparse[index]);
            seen += usize::from(full[index] != 0.0);
        }
    }
    let trained = case.layout.subset_len(Subset::Sparse);
    assert!(seen > trained / 2, "only {seen} of {trained} gradients are not zero");
    let constants = case.layout.specs().iter().filter(|spec| spec.group.is_none());
    let numbers: usize = constants.map(|spec| spec.shape.iter().product::<usize>()).sum();
    assert!(full[full.len() - numbers..].iter().all(|&value| value == 0.0));
}

#[test]
fn the_full_size_along_random_directions() {
    let case = Case::new(STUDENT, 6);
    let analytic = gradients(&case, Subset::Full);
    for seed in 0..4 {
        let mut random = common::head::Random::new(100 + seed);
        let mut direction = vec![0.0; analytic.len()];
        for range in case.layout.ranges(Subset::Full) {
            direction[range].iter_mut().for_each(|value| *value = random.normal());
        }
        let step = 1e-7;
        let moved = |scale: f64| -> Vec<f64> {
            case.parameters.iter().zip(&direction).map(|(p, d)| p + scale * d).collect()
        };
        let numeric = (loss(&case, &moved(step)) - loss(&case, &moved(-step))) / (2.0 * step);
        let expected: f64 = analytic.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let error = (numeric - expected).abs() / expected.abs();
        assert!(error < TOLERANCE, "direction {seed}: {expected} {numeric}");
    }
}

#[test]
fn single_precision_follows_double() {
    let case = Case::new(STUDENT, 7);
    let double = gradients(&case, Subset::Full);
    let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let parameters = narrow(&case.parameters);
    let single = case.single();
    let network = Network::new(&case.layout, &parameters).unwrap();
    let mut gradients = Gradients::new(&case.layout, Subset::Full);
    accumulate(&network, &single.0, &single.1, &mut gradients);
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference =
        norm(&mut gradients.values.iter().zip(&double).map(|(&s, &d)| f64::from(s) - d));
    let length = norm(&mut double.iter().copied());
    assert!(difference / length < 1e-4, "{}", difference / length);
}
