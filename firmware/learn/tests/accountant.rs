//! The accountant against an independent implementation.
//!
//! Reference values: dp-accounting 0.6.0 (PyPI), `PLDAccountant(value_discretization_interval=1e-4)` and
//! `RdpAccountant()` with their defaults, over self-composed `GaussianDpEvent` and `PoissonSampledDpEvent`.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use learn::privacy::sampler::DiscreteGaussian;
use learn::privacy::{
    Budget, CLIP_STEPS, Composition, NoiseMultiplier, epsilon, plan, sampled_epsilon,
};

const TOLERANCE: f64 = 1e-3;

/// z, q, T, RDP at 1e-5, PLD at 1e-5, RDP at 1e-6, PLD at 1e-6.
const TABLE: [(&str, f64, u64, [f64; 4]); 12] = [
    ("1.2", 1.0, 1, [3.8396, 3.5487, 4.2535, 3.9757]),
    ("1.2", 1.0, 2, [5.7166, 5.3000, 6.2944, 5.8973]),
    ("1.2", 1.0, 3, [7.2499, 6.7347, 7.9531, 7.4621]),
    ("1.2", 1.0, 4, [8.6033, 8.0037, 9.4110, 8.8405]),
    ("1.2", 1.0, 8, [13.1318, 12.2623, 14.2617, 13.4366]),
    ("1.2", 1.0, 16, [20.3925, 19.1308, 21.9775, 20.7812]),
    ("1.2", 1.0, 64, [52.5795, 49.8837, 55.7237, 53.1585]),
    ("1.2", 0.01, 1000, [1.4528, 1.2986, 1.6664, 1.4995]),
    ("1.2", 0.1, 100, [5.6651, 5.0751, 6.3959, 5.8053]),
    ("0.8", 0.02, 500, [5.3719, 4.6680, 6.1646, 5.4403]),
    ("2.0", 0.05, 2000, [5.9242, 5.4718, 6.5403, 6.1066]),
    ("4.0", 1.0, 100, [14.1322, 13.2067, 15.3280, 14.4508]),
];

/// z, T, delta, PLD at q = 1.
const MORE_WHOLE: [(&str, u64, f64, f64); 9] = [
    ("0.6002", 1, 1e-5, 8.000468),
    ("2.0793", 12, 1e-5, 7.999788),
    ("4.3283", 52, 1e-5, 8.000030),
    ("6.1212", 104, 1e-5, 7.999936),
    ("11.467", 365, 1e-5, 8.000304),
    ("0.5", 2, 1e-6, 16.860440),
    ("3.0", 20, 1e-8, 9.063536),
    ("10.0", 1, 1e-5, 0.340669),
    ("1.0", 1, 1e-3, 3.138671),
];

/// z, q, T, delta, RDP. dp-accounting skips the lowest orders of three of these rows; the optimum is elsewhere.
const MORE_SAMPLED: [(&str, f64, u64, f64, f64); 5] = [
    ("1.0", 0.001, 10_000, 1e-6, 0.979542),
    ("1.5", 0.3, 50, 1e-5, 8.903130),
    ("0.5", 0.01, 100, 1e-5, 8.034120),
    ("5.0", 0.2, 1000, 1e-7, 7.561754),
    ("1.1", 0.004, 4000, 1e-5, 1.273981),
];

fn multiplier(text: &str) -> NoiseMultiplier {
    text.parse().unwrap()
}

#[test]
fn every_reference_value_of_the_table() {
    for (z, q, releases, [rdp5, pld5, rdp6, pld6]) in TABLE {
        for (delta, rdp, pld) in [(1e-5, rdp5, pld5), (1e-6, rdp6, pld6)] {
            let statement = sampled_epsilon(multiplier(z), q, releases, delta).unwrap();
            let expected = if q == 1.0 { pld } else { rdp };
            let ours = statement.epsilon();
            assert!(
                (ours - expected).abs() < TOLERANCE,
                "{z} {q} {releases} {delta}: {ours} {expected}"
            );
            // Never below the truth; the reference itself is rounded to four decimals.
            assert!(
                statement.shown_epsilon() >= pld - 1e-4,
                "{z} {q} {releases} {delta}: {ours} {pld}"
            );
        }
    }
}

#[test]
fn further_values_at_sampling_rate_one() {
    for (z, releases, delta, pld) in MORE_WHOLE {
        let ours = epsilon(multiplier(z), releases, delta).unwrap().epsilon();
        assert!((ours - pld).abs() < TOLERANCE, "{z} {releases} {delta}: {ours} {pld}");
    }
}

#[test]
fn further_values_below_sampling_rate_one() {
    for (z, q, releases, delta, rdp) in MORE_SAMPLED {
        let ours = sampled_epsilon(multiplier(z), q, releases, delta).unwrap().epsilon();
        assert!((ours - rdp).abs() < TOLERANCE, "{z} {q} {releases} {delta}: {ours} {rdp}");
    }
}

#[test]
fn at_a_high_rate_sampling_costs_no_more_than_using_everything() {
    let sampled = sampled_epsilon(multiplier("1.2"), 0.9, 3, 1e-5).unwrap().epsilon();
    // dp-accounting's Rényi accountant alone gives 6.883816; the whole costs 6.7347.
    assert!((sampled - 6.7347).abs() < TOLERANCE, "{sampled}");
}

#[test]
fn every_plan_can_be_sampled_and_is_within_its_budget() {
    for (target, releases) in [(0.01, 12), (0.05, 365), (8.0, 3), (900.0, 1)] {
        let planned = plan(&Budget::new(target, 1e-5).unwrap(), releases).unwrap();
        assert!(DiscreteGaussian::for_clip(planned, CLIP_STEPS).is_ok(), "{planned}");
        assert!(planned.as_f64() >= 0.5, "{planned}");
        assert!(epsilon(planned, releases, 1e-5).unwrap().epsilon() <= target, "{planned}");
    }
}

#[test]
fn plans_of_the_default_budget() {
    let expected = [(1, 0.6002), (12, 2.0793), (52, 4.3283), (104, 6.1212), (365, 11.467)];
    for (releases, z) in expected {
        let planned = plan(&Budget::DEFAULT, releases).unwrap();
        assert!((planned.as_f64() - z).abs() < 4e-4, "{releases}: {planned} {z}");
        let cost = epsilon(planned, releases, 1e-5).unwrap().epsilon();
        assert!(cost <= 8.0, "{releases}: {cost}");
        let coarser =
            NoiseMultiplier::from_fraction((planned.as_f64() * 1e4).round() as u64 - 1, 10_000)
                .unwrap();
        assert!(
            epsilon(coarser, releases, 1e-5).unwrap().epsilon() > 8.0,
            "{releases}: not minimal"
        );
    }
}

/// A small linear congruential stream: the cases only have to be varied and the same on every run.
struct Cases(u64);

impl Cases {
    fn unit(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + (self.unit() * (high - low) as f64) as u64
    }
}

#[test]
fn monotone_in_noise_releases_and_delta_at_rate_one() {
    let mut cases = Cases(1);
    for _ in 0..400 {
        let steps = cases.between(3_000, 200_000);
        let z = NoiseMultiplier::from_fraction(steps, 10_000).unwrap();
        let noisier =
            NoiseMultiplier::from_fraction(steps + cases.between(1, 20_000), 10_000).unwrap();
        let releases = cases.between(1, 200);
        let delta = 10_f64.powf(-3.0 - 9.0 * cases.unit());
        let cost = |z, releases, delta| epsilon(z, releases, delta).unwrap().epsilon();
        let base = cost(z, releases, delta);
        assert!(cost(noisier, releases, delta) <= base, "z {z} {releases} {delta}");
        assert!(
            cost(z, releases + cases.between(1, 20), delta) >= base,
            "T {z} {releases} {delta}"
        );
        assert!(cost(z, releases, delta * (1.0 + cases.unit())) <= base, "delta {z} {releases}");
    }
}

#[test]
fn monotone_in_everything_below_rate_one() {
    let mut cases = Cases(2);
    for _ in 0..12 {
        let steps = cases.between(6_000, 40_000);
        let z = NoiseMultiplier::from_fraction(steps, 10_000).unwrap();
        let noisier =
            NoiseMultiplier::from_fraction(steps + cases.between(50, 9_000), 10_000).unwrap();
        let q = 0.001 + 0.4 * cases.unit();
        let releases = cases.between(1, 3_000);
        let delta = 10_f64.powf(-4.0 - 6.0 * cases.unit());
        let cost = |z, q, t, d| sampled_epsilon(z, q, t, d).unwrap().epsilon();
        let base = cost(z, q, releases, delta);
        // A slack of one part in 10^7 for the rounding of a long series.
        let (least, most) = (base * (1.0 - 1e-7), base * (1.0 + 1e-7));
        assert!(cost(noisier, q, releases, delta) <= most, "z {z} {q} {releases} {delta}");
        assert!(cost(z, q * 1.2, releases, delta) >= least, "q {z} {q} {releases} {delta}");
        assert!(cost(z, q, releases + 10, delta) >= least, "T {z} {q} {releases} {delta}");
        assert!(cost(z, q, releases, delta * 1.5) <= most, "delta {z} {q} {releases} {delta}");
        assert!(cost(z, 1.0, releases, delta) >= least, "q = 1 {z} {q} {releases} {delta}");
    }
}

#[test]
fn composition_is_independent_of_order() {
    let (a, b) = (multiplier("1.2"), multiplier("2.0793"));
    let forward = Composition::new().with(a).with(b).with(a);
    let backward = Composition::new().with(b).with(a).with(a);
    assert_eq!(forward, backward);
    assert_eq!(forward.statement(1e-5).unwrap(), backward.statement(1e-5).unwrap());
    assert_eq!(forward.statement(1e-5).unwrap().noise_multiplier(), None);
}
