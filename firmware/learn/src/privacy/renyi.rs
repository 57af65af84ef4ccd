//! Rényi accounting of the Poisson sub-sampled Gaussian mechanism, for researchers' settings.
//!
//! Source: Mironov, Talwar, Zhang, "Rényi differential privacy of the sampled Gaussian mechanism", 2019, sections 3.2
//! (integer orders) and 3.3 (fractional orders); conversion to `(epsilon, delta)`: Canonne, Kamath, Steinke, "The
//! discrete Gaussian for differential privacy", 2020, proposition 12. Add-or-remove adjacency.
//!
//! No device of ours claims sub-sampling: devices choose themselves. The mirror's own releases are accounted exactly.

use super::gaussian::log_upper_tail;

/// Terms of the fractional series below this share of the sum are left out, and bounded.
const NEGLIGIBLE: f64 = 1e-12;

/// Orders whose series is longer than this are left out.
const MAX_TERMS: usize = 20_000;

/// An upper bound for `epsilon` at `delta` after `releases` of the sampled Gaussian mechanism.
///
/// `noise_multiplier > 0`, `0 < sampling_rate <= 1`, `0 < delta < 1`.
pub fn epsilon_upper_bound(
    noise_multiplier: f64,
    sampling_rate: f64,
    releases: u64,
    delta: f64,
) -> f64 {
    if releases == 0 {
        return 0.0;
    }
    let best = orders()
        .map(|order| {
            let divergence = releases as f64 * divergence(order, noise_multiplier, sampling_rate);
            to_epsilon(order, divergence, delta)
        })
        .fold(f64::INFINITY, f64::min);
    // One part in 10^9 covers the rounding of large logarithms; that of small ones is in `log_sum`.
    best.max(0.0) * (1.0 + 1e-9)
}

/// The orders searched: fine where the optimum of common settings lies, then wider.
fn orders() -> impl Iterator<Item = f64> {
    let fractional = (1..100).map(|tenth| 1.0 + f64::from(tenth) / 10.0);
    let integer = (11..64).map(f64::from);
    fractional.chain(integer).chain([128.0, 256.0, 512.0, 1024.0])
}

fn to_epsilon(order: f64, divergence: f64, delta: f64) -> f64 {
    divergence + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
}

/// The Rényi divergence of one release at `order > 1`.
fn divergence(order: f64, z: f64, q: f64) -> f64 {
    if q >= 1.0 {
        return order / (2.0 * z * z);
    }
    let log_moment = if order.fract() == 0.0 {
        log_moment_integer(order as u32, z, q)
    } else {
        log_moment_fractional(order, z, q)
    };
    log_moment.max(0.0) / (order - 1.0)
}

fn log_moment_integer(order: u32, z: f64, q: f64) -> f64 {
    let mut log_binomial = 0.0;
    let terms: Vec<f64> = (0..=order)
        .map(|k| {
            let kf = f64::from(k);
            let term = log_binomial + log_weight(f64::from(order) - kf, kf, z, q);
            log_binomial += (f64::from(order) - kf).max(1.0).ln() - (kf + 1.0).ln();
            term
        })
        .collect();
    log_sum(&terms)
}

/// `ln((1-q)^rest q^count exp((count² - count) / (2 z²)))`.
fn log_weight(rest: f64, count: f64, z: f64, q: f64) -> f64 {
    rest * (-q).ln_1p() + count * q.ln() + (count * count - count) / (2.0 * z * z)
}

/// Past the order the terms' signs alternate. Each is counted with its magnitude: that is an upper bound, free of
/// cancellation, and what dp-accounting computes.
fn log_moment_fractional(order: f64, z: f64, q: f64) -> f64 {
    let split = 0.5 + z * z * (1.0 / q - 1.0).ln();
    let mut log_binomial = 0.0;
    let mut largest = f64::NEG_INFINITY;
    let mut terms = Vec::new();
    for k in 0..MAX_TERMS {
        let k = k as f64;
        let left = log_binomial + log_weight(order - k, k, z, q) + log_upper_tail((k - split) / z);
        let mirrored = order - k;
        let right =
            log_binomial + log_weight(k, mirrored, z, q) + log_upper_tail((split - mirrored) / z);
        largest = largest.max(left).max(right);
        terms.extend([left, right]);
        if k > order && left.max(right) < largest + NEGLIGIBLE.ln() {
            // The terms fall faster than k^-2, so k times the last one bounds everything left out.
            terms.extend([left + k.ln(), right + k.ln()]);
            return log_sum(&terms);
        }
        // binomial(order, k + 1) = binomial(order, k) (order - k) / (k + 1)
        log_binomial += ((order - k) / (k + 1.0)).abs().ln();
    }
    // No bound for this order: it is left out of the minimum.
    f64::INFINITY
}

/// An upper bound for `ln` of a sum of terms given by their logarithms. Each addition rounds: where the sum is hardly more than one its logarithm
/// is as small as what they lose, and many releases multiply both.
fn log_sum(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.iter().map(|log| (log - largest).exp()).sum();
    largest + sum.ln() + terms.len() as f64 * f64::EPSILON
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logarithm of a moment that is hardly more than one, to the last digits: the binomial's weights add up to one, so only what is beyond
    /// that is summed.
    fn precise_log_moment(order: u32, z: f64, q: f64) -> f64 {
        let mut log_binomial = 0.0;
        let mut beyond = 0.0;
        for k in 0..=order {
            let (kf, rest) = (f64::from(k), f64::from(order - k));
            let weight = (log_binomial + rest * (-q).ln_1p() + kf * q.ln()).exp();
            beyond += weight * ((kf * kf - kf) / (2.0 * z * z)).exp_m1();
            log_binomial += rest.max(1.0).ln() - (kf + 1.0).ln();
        }
        beyond.ln_1p()
    }

    #[test]
    fn much_noise_and_little_sampling_round_upwards() {
        for (z, q) in [(100.0, 0.001), (50.0, 0.01), (100.0, 0.0001)] {
            for order in 2..64 {
                let (ours, precise) =
                    (log_moment_integer(order, z, q), precise_log_moment(order, z, q));
                assert!(ours >= precise, "z {z} q {q} {order}: {ours} {precise}");
                assert!(ours - precise < 1e-13, "z {z} q {q} {order}: {ours} {precise}");
            }
        }
    }

    #[test]
    fn fractional_orders_join_the_integer_ones() {
        for (z, q) in [(1.2, 0.01), (0.8, 0.02), (1.2, 0.1), (2.0, 0.5), (0.5, 0.9)] {
            for order in [2_u32, 3, 7] {
                let exact = log_moment_integer(order, z, q);
                let near = log_moment_fractional(f64::from(order) + 1e-7, z, q);
                let scale = exact.abs().max(1e-6);
                assert!((near - exact).abs() / scale < 1e-4, "z {z} q {q} {order}: {near} {exact}");
            }
        }
    }
}
