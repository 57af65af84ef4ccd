//! Every gradient of the student-sized head against candle's automatic differentiation, in f64.

#[allow(dead_code)] // its other users need all of it
#[path = "../../tests/common/head.rs"]
mod head;
mod picture;

use candle_core::DType;
use head::{Case, SMALL, STUDENT};
use learn::head::{Gradients, Network, Subset, accumulate};
use learn_oracle::Oracle;

#[test]
fn every_gradient_is_candles() {
    for (shape, seed) in [(SMALL, 1), (SMALL, 2), (STUDENT, 3), (STUDENT, 4)] {
        let case = Case::new(shape, seed);
        let oracle = Oracle::new(&case.layout, &case.parameters, DType::F64).unwrap();
        let (loss, expected) = oracle.gradient(&picture::of(&case, DType::F64)).unwrap();
        let network = Network::new(&case.layout, &case.parameters).unwrap();
        let mut gradients = Gradients::new(&case.layout, Subset::Full);
        let ours = accumulate(&network, &case.features, &case.target, &mut gradients);
        assert!((ours - loss).abs() < 1e-9 * loss, "{ours} {loss}");
        let ours = case.layout.gather(Subset::Full, &gradients.values);
        assert_eq!(ours.len(), expected.len());
        let mut worst = 0.0_f64;
        for (index, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
            // Below 1e-12 both are rounding of sums of thousands of terms.
            let error = (ours - expected).abs() / expected.abs().max(1e-12);
            worst = worst.max(error);
            assert!(error < 1e-4, "parameter {index}: {ours} instead of {expected}");
        }
        println!("{} parameters: worst relative error {worst:.2e}", ours.len());
    }
}
