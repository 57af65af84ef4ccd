//! Averaging of real, noised updates.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use common::{Device, LAYOUT, clipped};
use learn::averaging::{AveragingError, PartialSum, RoundRules, ServerOptimiser, Step};
use learn::edges::{Digest, LayoutId};
use learn::privacy::NoiseMultiplier;
use learn::update::Update;

const Z: NoiseMultiplier = NoiseMultiplier::DEFAULT;

fn rules() -> RoundRules {
    RoundRules { layout: LAYOUT, dimension: 200, noise_multiplier: Z }
}

/// Real bytes from a real release path.
fn update_bytes(z: NoiseMultiplier) -> Vec<u8> {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    let release = path.release(clipped(1), z, &consent).unwrap();
    path.bytes(release, &consent).unwrap()
}

fn updates(count: usize) -> Vec<Update> {
    (0..count).map(|_| Update::decode(&update_bytes(Z)).unwrap()).collect()
}

#[test]
fn the_average_approaches_the_true_update() {
    let mut sum = PartialSum::new(rules());
    updates(400).iter().for_each(|update| sum.add(update).unwrap());
    let average = sum.average(400).unwrap();
    // 1.2 / sqrt(400) of noise per value, over 200 values.
    let truth = |index: usize| (index as f32 - 100.0) / 1000.0;
    let square = average.iter().enumerate().map(|(index, value)| (value - truth(index)).powi(2));
    let error = (square.sum::<f32>() / 200.0).sqrt();
    assert!((error / 0.06 - 1.0).abs() < 0.2, "{error}");
}

#[test]
fn partial_sums_merge_to_the_same_bits_in_any_grouping() {
    let updates = updates(12);
    let mut whole = PartialSum::new(rules());
    updates.iter().for_each(|update| whole.add(update).unwrap());
    for workers in 1..=5 {
        let mut sums = vec![PartialSum::new(rules()); workers];
        for (index, update) in updates.iter().enumerate().rev() {
            sums[index % workers].add(update).unwrap();
        }
        let mut merged = PartialSum::new(rules());
        for sum in &sums {
            let stored = PartialSum::decode(rules(), &sum.encode()).unwrap();
            merged.merge(&stored).unwrap();
        }
        assert_eq!(merged, whole);
    }
    assert_eq!(whole.count(), 12);
}

/// The same update with every value replaced: what a hostile device with valid keys could send.
fn forged(bytes: &[u8], value: i16) -> Update {
    let mut forged = bytes[..bytes.len() - 32].to_vec();
    forged[80..].as_chunks_mut::<2>().0.fill(value.to_le_bytes());
    forged.extend_from_slice(&Digest::of(&forged).0);
    Update::decode(&forged).unwrap()
}

#[test]
fn what_does_not_belong_is_refused_and_leaves_the_sum_alone() {
    let mut sum = PartialSum::new(rules());
    let update = updates(1).remove(0);
    sum.add(&update).unwrap();
    let before = sum.clone();

    let other = RoundRules { layout: LayoutId([1; 32]), ..rules() };
    let error = PartialSum::new(other).add(&update).unwrap_err();
    assert!(matches!(error, AveragingError::Layout { .. }));
    let other = RoundRules { dimension: 199, ..rules() };
    let error = PartialSum::new(other).add(&update).unwrap_err();
    assert!(matches!(error, AveragingError::Dimension { expected: 199, actual: 200 }));
    let less = Update::decode(&update_bytes("0.7".parse().unwrap())).unwrap();
    let error = sum.add(&less).unwrap_err();
    assert!(matches!(error, AveragingError::NoiseMultiplier { .. }));

    let of = |rules: RoundRules| sum.clone().merge(&PartialSum::new(rules)).unwrap_err();
    let layout = of(RoundRules { layout: LayoutId([1; 32]), ..rules() });
    assert!(matches!(layout, AveragingError::Layout { .. }), "{layout}");
    let dimension = of(RoundRules { dimension: 199, ..rules() });
    assert_eq!(dimension, AveragingError::Dimension { expected: 200, actual: 199 });
    let noise = of(RoundRules { noise_multiplier: "0.7".parse().unwrap(), ..rules() });
    assert!(matches!(noise, AveragingError::NoiseMultiplier { .. }), "{noise}");

    let bytes = update_bytes(Z);
    assert_eq!(sum.add(&forged(&bytes, i16::MAX)), Err(AveragingError::Norm));
    assert_eq!(sum.add(&forged(&bytes, 5_000)), Err(AveragingError::Norm));
    assert_eq!(sum, before);
    assert_eq!(sum.average(2), Err(AveragingError::TooFew { needed: 2, actual: 1 }));
    let empty = PartialSum::new(rules());
    assert_eq!(empty.average(0), Err(AveragingError::TooFew { needed: 1, actual: 0 }));
}

#[test]
fn damaged_sums_are_refused() {
    let sum = PartialSum::new(rules());
    let bytes = sum.encode();
    assert!(PartialSum::decode(rules(), &bytes[..bytes.len() - 1]).is_err());
    let mut impossible = bytes.clone();
    *impossible.last_mut().unwrap() = 1;
    assert_eq!(PartialSum::decode(rules(), &impossible), Err(AveragingError::Encoding));
    let other = RoundRules { layout: LayoutId([1; 32]), ..rules() };
    assert_eq!(PartialSum::decode(other, &bytes), Err(AveragingError::Encoding));
}

#[test]
fn server_momentum() {
    let mut plain = ServerOptimiser::new(Step::PLAIN, vec![0.0; 2]);
    let mut parameters = [1.0, 2.0];
    plain.apply(&[0.5, -0.5], &mut parameters);
    assert_eq!(parameters, [1.5, 1.5]);
    let step = Step::PLAIN.with_momentum(0.5).unwrap().with_rate(2.0).unwrap();
    let mut heavy = ServerOptimiser::new(step, vec![0.0; 2]);
    let mut parameters = [0.0, 0.0];
    heavy.apply(&[1.0, 0.0], &mut parameters);
    heavy.apply(&[1.0, 0.0], &mut parameters);
    assert_eq!((parameters, heavy.velocity()), ([5.0, 0.0], [1.5, 0.0].as_slice()));
    assert!([1.0, -0.1, f32::NAN].iter().all(|&wrong| step.with_momentum(wrong).is_none()));
    let wrong_rates = [0.0, -1.0, f32::NAN, f32::INFINITY];
    assert!(wrong_rates.iter().all(|&wrong| step.with_rate(wrong).is_none()));
}
