//! How much of the fleet's common direction survives the noise of one round, and what to do when it is too little.
//!
//! Every update has norm 1 (the clip) and cosine `c` with the common direction; what is left of it points elsewhere,
//! independently from device to device. Averaging `n` of them keeps `c` along the common direction, leaves
//! `sqrt((1 - c²) / n)` of disagreement beside it and `z sqrt(d / n)` of noise, when each device adds its own. So
//!
//! ```text
//! cosine = c / sqrt(c² + (1 - c²) / n + d z² / n)
//! ```
//!
//! With noise added once to the sum, by somebody all devices trust, the last term is `d z² / n²`. This firmware never
//! does that; the figure is there to say what local noise costs.
//!
//! The same average without noise does not point along the common direction either: where the devices are those of `N` households, as many of
//! each, its squared length is `S = c² + (l² - c²) / N`, however many devices there are. Here `l²` is the updates' mean squared length, 1 where
//! all reach the clip, and a shorter update counts for less in `c`, as [`measured_cosine`] finds it. The cosine of the average to that
//! one, which a simulation can measure, is
//!
//! ```text
//! cosine = sqrt(S / (S + d z² / n))
//! ```

use std::fmt;

use learn::privacy::NoiseMultiplier;
use serde::Serialize;

/// Who adds the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoisePlace {
    /// Every device, before its update leaves.
    EveryDevice,
    /// Once, on the sum.
    Sum,
}

/// What decides how much signal a round carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// Numbers in an update.
    pub dimension: usize,
    /// Standard deviation of a device's noise over the clipping norm.
    pub noise_multiplier: NoiseMultiplier,
    /// Cosine of one clipped update, before noise, to the fleet's common direction; in (0, 1].
    pub update_cosine: f64,
}

impl Signal {
    /// The expected cosine, 0 to 1, of the averaged update of `devices` to the common direction.
    pub fn expected_cosine(&self, devices: u64, place: NoisePlace) -> f64 {
        if devices == 0 {
            return 0.0;
        }
        let (count, cosine) = (devices as f64, self.update_cosine);
        let noise = self.squared_noise() / count;
        let noise = if place == NoisePlace::Sum { noise / count } else { noise };
        let square = cosine * cosine;
        cosine / (square + (1.0 - square) / count + noise).sqrt()
    }

    /// The expected cosine, 0 to 1, of the averaged update of `devices`, each with noise of its own, to the same average without noise. The
    /// devices are those of `households`, as many of each; `square_length` is the [`mean_square_length`] of their updates, of which
    /// `update_cosine` was measured.
    pub fn expected_under_noise(&self, devices: u64, households: u64, square_length: f64) -> f64 {
        if devices == 0 || households == 0 {
            return 0.0;
        }
        let square = self.update_cosine * self.update_cosine;
        let clean = square + (square_length - square) / households as f64;
        (clean / (clean + self.squared_noise() / devices as f64)).sqrt()
    }

    /// The smallest number of devices whose expected cosine, with noise at every device, is at least `wanted`.
    ///
    /// `wanted` lies in (0, 1); the result saturates where no fleet is large enough.
    pub fn devices_for(&self, wanted: f64) -> u64 {
        let square = self.update_cosine * self.update_cosine;
        let needed = ((1.0 - square) + self.squared_noise())
            / (square * (1.0 / (wanted * wanted) - 1.0).max(f64::MIN_POSITIVE));
        (needed.ceil() as u64).max(1)
    }

    /// The largest number of values with which `devices` still reach `wanted`; 0 where not even one value does.
    pub fn dimension_for(&self, devices: u64, wanted: f64) -> usize {
        let square = self.update_cosine * self.update_cosine;
        let room = devices as f64 * square * (1.0 / (wanted * wanted) - 1.0) - (1.0 - square);
        (room / self.noise_multiplier.as_f64().powi(2)).floor().max(0.0) as usize
    }

    /// The squared norm of one device's noise in units of the clip.
    fn squared_noise(&self) -> f64 {
        self.dimension as f64 * self.noise_multiplier.as_f64().powi(2)
    }

    /// Whether a round of `devices` carries at least `wanted` of the common direction.
    pub fn check(&self, devices: u64, wanted: f64) -> Result<f64, NoSignal> {
        let expected = self.expected_cosine(devices, NoisePlace::EveryDevice);
        if expected >= wanted {
            return Ok(expected);
        }
        Err(NoSignal {
            devices,
            dimension: self.dimension,
            noise_multiplier: self.noise_multiplier.as_f64(),
            expected_cosine: expected,
            wanted_cosine: wanted,
            devices_needed: self.devices_for(wanted),
            dimension_possible: self.dimension_for(devices, wanted),
        })
    }
}

/// The cosine `c` of one update to the common direction, 0 to 1, found from the clipped updates of households before noise, all of one
/// dimension: what two households' updates have in common is `c²`. The mean of the others would not do for the common direction, since
/// a few households disagree with it as well. An update shorter than the clip counts for less, as it does in a round. 0 of fewer than two
/// households, and where nothing is in common.
pub fn measured_cosine(updates: &[Vec<f32>]) -> f64 {
    let count = updates.len() as f64;
    if count < 2.0 {
        return 0.0;
    }
    let square = |value: f64| value * value;
    let total = |at| updates.iter().map(|update| f64::from(update[at])).sum::<f64>();
    let of_all: f64 = (0..updates[0].len()).map(|at| square(total(at))).sum();
    let of_each = count * mean_square_length(updates);
    ((of_all - of_each) / (count * (count - 1.0))).clamp(0.0, 1.0).sqrt()
}

/// The mean squared length of updates over the clip's, 0 to 1 of clipped ones; 0 of none.
pub fn mean_square_length(updates: &[Vec<f32>]) -> f64 {
    let squares = updates.iter().flatten().map(|&value| f64::from(value).powi(2));
    squares.sum::<f64>() / updates.len().max(1) as f64
}

/// A cosine in three decimals. Rounded up, one that is less than what is wanted could read as that.
pub fn rounded_down(cosine: f64) -> String {
    format!("{:.3}", (1e3 * cosine).floor() / 1e3)
}

/// A round that would spend privacy budget on noise. `Display` says so, and what to do instead.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct NoSignal {
    /// Devices that could take part.
    pub devices: u64,
    /// Numbers in an update.
    pub dimension: usize,
    /// The round's noise multiplier.
    pub noise_multiplier: f64,
    /// Cosine of the averaged update to the fleet's common direction, 0 to 1.
    pub expected_cosine: f64,
    /// The least that is worth a release.
    pub wanted_cosine: f64,
    /// Devices with which the round would carry that much.
    pub devices_needed: u64,
    /// Numbers with which these devices would reach it.
    pub dimension_possible: usize,
}

impl std::error::Error for NoSignal {}

impl fmt::Display for NoSignal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.devices == 1 { "device" } else { "devices" };
        write!(
            out,
            "a round of {} {plural} with {} numbers each and noise multiplier {} would carry no signal: the average \
             would point along the fleet's common direction with a cosine of {}, below {}, and every device \
             would have spent budget on it. Instead: let the mirrors learn at home, which needs no round; or wait for \
             {} devices",
            self.devices,
            self.dimension,
            self.noise_multiplier,
            rounded_down(self.expected_cosine),
            self.wanted_cosine,
            self.devices_needed,
        )?;
        match self.dimension_possible {
            0 => write!(out, "; no choice of parameters is small enough for this fleet")?,
            count => write!(out, "; or train at most {count} numbers")?,
        }
        write!(out, ". --force starts it all the same")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEETS: [u64; 5] = [10, 100, 1_000, 10_000, 1_000_000];

    /// The table of reference values: local noise and noise on the sum, cosine 0.3, z 1.2, two decimals.
    const TABLE: [(usize, [(f64, f64); 5]); 5] = [
        (64, [(0.10, 0.29), (0.30, 0.91), (0.70, 0.99), (0.95, 1.0), (1.0, 1.0)]),
        (1_024, [(0.03, 0.08), (0.08, 0.60), (0.24, 0.99), (0.62, 1.0), (0.99, 1.0)]),
        (4_096, [(0.01, 0.04), (0.04, 0.36), (0.12, 0.96), (0.36, 1.0), (0.97, 1.0)]),
        (65_536, [(0.0, 0.01), (0.01, 0.10), (0.03, 0.70), (0.10, 0.99), (0.70, 1.0)]),
        (1_048_576, [(0.0, 0.0), (0.0, 0.02), (0.01, 0.24), (0.02, 0.93), (0.24, 1.0)]),
    ];

    fn signal(dimension: usize) -> Signal {
        Signal { dimension, noise_multiplier: NoiseMultiplier::DEFAULT, update_cosine: 0.3 }
    }

    #[test]
    fn the_formula_gives_the_reference_table() {
        for (dimension, row) in TABLE {
            for (devices, (local, once)) in FLEETS.into_iter().zip(row) {
                let signal = signal(dimension);
                for (place, wanted) in [(NoisePlace::EveryDevice, local), (NoisePlace::Sum, once)] {
                    let found = signal.expected_cosine(devices, place);
                    // One unit of the second decimal: the table's values were rounded, one of them downwards.
                    assert!(
                        (found - wanted).abs() < 0.0101,
                        "{dimension} {devices} {place:?}: {found}"
                    );
                }
            }
        }
    }

    /// A generator of normal numbers, the same ones every time: sums of twelve uniform ones.
    fn normals() -> impl FnMut() -> f64 {
        let mut state = 9_u64;
        move || {
            let mut sum = -6.0;
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                sum += (state >> 11) as f64 / (1_u64 << 53) as f64;
            }
            sum
        }
    }

    /// The cosine of one round's noised average to the first axis, along which the updates' common part lies; the rest of each lies
    /// anywhere.
    fn drawn_cosine(dimension: usize, devices: u64, normal: &mut impl FnMut() -> f64) -> f64 {
        let mut total = vec![0.0; dimension];
        for _ in 0..devices {
            let mut rest: Vec<f64> = (1..dimension).map(|_| normal()).collect();
            let norm = rest.iter().map(|v| v * v).sum::<f64>().sqrt();
            rest.iter_mut().for_each(|value| *value *= (1.0_f64 - 0.09).sqrt() / norm);
            total[0] += 0.3 + 1.2 * normal();
            total[1..]
                .iter_mut()
                .zip(&rest)
                .for_each(|(sum, value)| *sum += value + 1.2 * normal());
        }
        total[0] / total.iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    #[test]
    fn noise_of_that_size_drawn_at_random_leaves_that_cosine() {
        // A round's cosine scatters by a tenth; the mean of so many by a two-hundredth.
        let (dimension, devices, rounds) = (100, 40, 400);
        let mut normal = normals();
        let sum: f64 = (0..rounds).map(|_| drawn_cosine(dimension, devices, &mut normal)).sum();
        let (mean, signal) = (sum / f64::from(rounds), signal(dimension));
        let expected = signal.expected_cosine(devices, NoisePlace::EveryDevice);
        assert!((mean - expected).abs() < 0.02, "{mean} {expected}");
    }

    /// The updates of `households`, all of the clip's length, with a cosine of 0.3 to the first axis.
    fn drawn_updates(
        households: usize,
        dimension: usize,
        normal: &mut impl FnMut() -> f64,
    ) -> Vec<Vec<f32>> {
        let mut one = || {
            let rest: Vec<f64> = (1..dimension).map(|_| normal()).collect();
            let norm = rest.iter().map(|v| v * v).sum::<f64>().sqrt() / (1.0_f64 - 0.09).sqrt();
            let rest = rest.iter().map(|value| (value / norm) as f32);
            std::iter::once(0.3).chain(rest).collect()
        };
        (0..households).map(|_| one()).collect()
    }

    #[test]
    fn the_cosine_of_updates_is_found_from_a_few_households() {
        let mut normal = normals();
        for households in [4, 24] {
            let updates =
                || measured_cosine(&drawn_updates(households, 1_000, &mut normal)).powi(2);
            let square = std::iter::repeat_with(updates).take(20).sum::<f64>() / 20.0;
            assert!((square.sqrt() - 0.3).abs() < 0.01, "{households}: {}", square.sqrt());
        }
        assert_eq!(measured_cosine(&[vec![1.0, 0.0], vec![0.0, 1.0]]), 0.0);
        assert_eq!(measured_cosine(&[vec![1.0, 0.0], vec![-1.0, 0.0]]), 0.0);
        assert_eq!(measured_cosine(&[vec![0.0, 1.0], vec![0.0, 1.0]]), 1.0);
        assert_eq!((measured_cosine(&[vec![1.0]]), measured_cosine(&[])), (0.0, 0.0));
    }

    /// The cosine of the average of `devices`, as many of each household, under noise to the same without.
    fn drawn_under_noise(
        updates: &[Vec<f32>],
        devices: u64,
        normal: &mut impl FnMut() -> f64,
    ) -> f64 {
        let (mut dot, mut clean, mut noised) = (0.0, 0.0, 0.0);
        for at in 0..updates[0].len() {
            let mean = updates.iter().map(|update| f64::from(update[at])).sum::<f64>()
                / updates.len() as f64;
            // As much as the noise of so many devices leaves in their average.
            let average = mean + 1.2 * normal() / (devices as f64).sqrt();
            dot += mean * average;
            clean += mean * mean;
            noised += average * average;
        }
        dot / (clean * noised).sqrt()
    }

    #[test]
    fn households_that_send_more_than_once_still_disagree_in_their_average_without_noise() {
        let (dimension, rounds, mut normal) = (1_000, 60, normals());
        // With more devices the noise gets less, the disagreement does not: the formula for as many households would say 0.12, 0.36 and 0.87.
        for (devices, length) in [(240, 1.0), (2_400, 1.0), (48_000, 1.0), (2_400, 0.5)] {
            let mut one = || {
                let mut updates = drawn_updates(24, dimension, &mut normal);
                updates.iter_mut().flatten().for_each(|value| *value *= length);
                assert!((mean_square_length(&updates) - f64::from(length).powi(2)).abs() < 1e-6);
                drawn_under_noise(&updates, devices, &mut normal)
            };
            let mean = (0..rounds).map(|_| one()).sum::<f64>() / f64::from(rounds);
            let length = f64::from(length);
            let shorter = Signal { update_cosine: 0.3 * length, ..signal(dimension) };
            let expected = shorter.expected_under_noise(devices, 24, length * length);
            assert!((mean - expected).abs() < 0.01, "{devices} {length}: {mean} {expected}");
        }
        let of = |(n, m)| signal(dimension).expected_under_noise(n, m, 1.0);
        let none = [(0, 24), (240, 0)].map(of);
        assert_eq!(none, [0.0, 0.0]);
    }

    #[test]
    fn a_refusal_never_reads_as_if_the_cosine_were_enough() {
        let refusal = signal(5_490).check(10, 0.1).unwrap_err();
        for (expected_cosine, wanted_cosine, words) in [
            (0.3019, 0.304, "0.301, below 0.304,"),
            (0.299_96, 0.3, "0.299, below 0.3,"),
            (0.0123, 0.012_35, "0.012, below 0.01235,"),
        ] {
            let told = NoSignal { expected_cosine, wanted_cosine, ..refusal.clone() }.to_string();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn the_advice_is_consistent_with_the_formula() {
        let signal = signal(5_490);
        let needed = signal.devices_for(0.1);
        assert!(signal.check(needed, 0.1).is_ok() && signal.check(needed - 1, 0.1).is_err());
        let dimension = signal.dimension_for(100, 0.1);
        let smaller = |dimension| Signal { dimension, ..signal };
        assert!(smaller(dimension).check(100, 0.1).is_ok());
        assert!(smaller(dimension + 1).check(100, 0.1).is_err());
    }

    #[test]
    fn ten_devices_are_told_what_to_do_instead() {
        let refusal = signal(5_490).check(10, 0.1).unwrap_err().to_string();
        for part in ["10 devices", "no signal", "learn at home", "wait for 888 devices"] {
            assert!(refusal.contains(part), "{refusal}");
        }
        assert_eq!(signal(5_490).expected_cosine(0, NoisePlace::Sum), 0.0);
    }
}
