//! The only road from a trained delta to bytes: `Delta -> Clipped -> Noised`, then [`Noised::encode`].
//!
//! Clipping is done in integers after quantisation, so the sensitivity that the accountant assumes holds for the very
//! numbers that are noised. Noise is the exact discrete Gaussian under a ChaCha20 key that the operating system gives
//! for this release alone. Deltas, keys and noise are wiped when dropped.
//!
//! Neither a delta nor a clipped delta can be encoded:
//! ```compile_fail,E0599
//! fn leak(delta: learn::privacy::Delta) -> Vec<u8> { delta.encode().into_bytes() }
//! ```
//! ```compile_fail,E0599
//! fn leak(clipped: learn::privacy::Clipped) -> Vec<u8> { clipped.encode().into_bytes() }
//! ```
//! or written by a serialiser:
//! ```compile_fail,E0277
//! fn leak(delta: &learn::privacy::Delta) -> String { serde_json::to_string(delta).unwrap() }
//! ```
//! A noised update cannot be made without the reservation and the consent, in that type:
//! ```compile_fail,E0061
//! fn skip(clipped: learn::privacy::Clipped, entropy: &mut dyn learn::edges::Entropy) {
//!     let _ = clipped.noise(entropy);
//! }
//! ```
//! ```compile_fail,E0308
//! use learn::consent::{ConsentToken, ImproveMyMirror};
//! fn wrong_purpose(
//!     clipped: learn::privacy::Clipped,
//!     reservation: learn::ledger::Reservation,
//!     token: &ConsentToken<ImproveMyMirror>,
//!     entropy: &mut dyn learn::edges::Entropy,
//! ) {
//!     let _ = clipped.noise(reservation, token, entropy);
//! }
//! ```
//! and a reservation is good for one noising:
//! ```compile_fail,E0382
//! use learn::consent::{ConsentToken, ContributeToFleet};
//! fn twice(
//!     first: learn::privacy::Clipped,
//!     second: learn::privacy::Clipped,
//!     reservation: learn::ledger::Reservation,
//!     token: &ConsentToken<ContributeToFleet>,
//!     entropy: &mut dyn learn::edges::Entropy,
//! ) {
//!     let _ = first.noise(reservation, token, entropy);
//!     let _ = second.noise(reservation, token, entropy);
//! }
//! ```

use std::fmt;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use zeroize::{Zeroize, Zeroizing};

use super::NoiseMultiplier;
use super::sampler::{DiscreteGaussian, SigmaError};
use crate::consent::{ConsentError, ConsentToken, ContributeToFleet};
use crate::edges::{EdgeError, Entropy, LayoutId, ReleaseId, RunId};
use crate::ledger::Reservation;
use crate::update::{EncodedUpdate, Header};

/// Binary places of a quantised update: one step is `2^-11`.
pub const FRACTION_BITS: u32 = 11;

/// The clipping norm 1.0, in steps.
pub const CLIP_STEPS: u32 = 1 << FRACTION_BITS;

/// Values of an update at most: four times the two decoder layers.
pub const MAX_DIMENSION: usize = 1 << 21;

/// Places of the fixed-point numbers that are clipped.
const FINE_BITS: u32 = 24;

/// Values beyond this are a training that has diverged; refusing them keeps the sums below within 128 bits.
pub const LARGEST_VALUE: f32 = 65_536.0;

/// Attempts at rounding to nearest before the update is rounded towards zero.
const ROUNDING_ATTEMPTS: u32 = 4;

/// Why a delta was refused, or a release given up.
#[derive(Debug, thiserror::Error)]
pub enum MechanismError {
    /// No values, or too many.
    #[error("an update of {0} values is outside 1..=2097152")]
    Dimension(usize),
    /// NaN, infinity, or absurdly large.
    #[error(
        "value {index} of the delta is {value}; the training has diverged and the delta is discarded"
    )]
    NotFinite {
        /// Position of the value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The reservation was made for another delta.
    #[error("the reservation is for run {reserved}, the delta is of run {actual}")]
    ForeignReservation {
        /// The run in the ledger.
        reserved: RunId,
        /// The run of the delta.
        actual: RunId,
    },
    /// The noise does not fit the sampler.
    #[error(transparent)]
    Sigma(#[from] SigmaError),
    /// Consent was withdrawn.
    #[error(transparent)]
    Consent(#[from] ConsentError),
    /// No entropy.
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

/// How much trained parameters moved, in the order of a layout. Never written anywhere; wiped when dropped.
pub struct Delta {
    run: RunId,
    layout: LayoutId,
    values: Zeroizing<Vec<f32>>,
}

impl Delta {
    /// Takes the values of one run.
    ///
    /// # Errors
    /// [`MechanismError::Dimension`] for none or more than [`MAX_DIMENSION`], [`MechanismError::NotFinite`] for NaN, infinities and values
    /// beyond 65536.
    pub fn new(run: RunId, layout: LayoutId, values: Vec<f32>) -> Result<Delta, MechanismError> {
        let values = Zeroizing::new(values);
        if values.is_empty() || values.len() > MAX_DIMENSION {
            return Err(MechanismError::Dimension(values.len()));
        }
        let finite = |value: f32| value.is_finite() && value.abs() <= LARGEST_VALUE;
        match values.iter().position(|&value| !finite(value)) {
            Some(index) => Err(MechanismError::NotFinite { index, value: values[index] }),
            None => Ok(Delta { run, layout, values }),
        }
    }

    /// Scales the delta to norm 1.0 where it is longer, and rounds it to steps of `2^-11`.
    ///
    /// The integer norm of the result is at most [`CLIP_STEPS`], checked after all rounding.
    pub fn clip(self) -> Clipped {
        let fine: Zeroizing<Vec<i64>> =
            Zeroizing::new(self.values.iter().map(|&value| to_fine(value)).collect());
        let norm = ceiling_root(squared_norm(&fine)).max(1 << FINE_BITS);
        let mut divisor = norm;
        let mut steps = scaled(&fine, divisor, Rounding::Nearest);
        for _ in 0..ROUNDING_ATTEMPTS {
            let length = ceiling_root(squared_norm(&steps));
            if squared_norm(&steps) <= squared_clip() {
                break;
            }
            // Longer by at most the rounding of the values: shrink by the excess and round again.
            divisor = (divisor * length).div_ceil(u128::from(CLIP_STEPS));
            steps = scaled(&fine, divisor, Rounding::Nearest);
        }
        if squared_norm(&steps) > squared_clip() {
            // |trunc(v c / n)| <= |v| c / n with n >= |v| in norm, so this one cannot be too long.
            steps = scaled(&fine, norm, Rounding::TowardsZero);
        }
        assert!(squared_norm(&steps) <= squared_clip(), "truncation cannot lengthen a vector");
        Clipped { run: self.run, layout: self.layout, steps }
    }
}

/// A delta of integer norm at most [`CLIP_STEPS`]. Still private; wiped when dropped.
pub struct Clipped {
    run: RunId,
    layout: LayoutId,
    steps: Zeroizing<Vec<i64>>,
}

impl Clipped {
    /// The run that made the delta.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// What the values belong to.
    pub fn layout(&self) -> LayoutId {
        self.layout
    }

    /// Number of values.
    pub fn dimension(&self) -> usize {
        self.steps.len()
    }

    /// Bytes of the encoded update that this becomes under noise `z`.
    pub fn encoded_bytes(&self, z: NoiseMultiplier) -> usize {
        let header = Header {
            release: ReleaseId([0; 16]),
            layout: self.layout,
            noise_multiplier: z,
            dimension: self.steps.len(),
        };
        header.encoded_bytes()
    }

    /// Adds the reserved noise under a fresh key.
    ///
    /// The reservation is consumed whatever happens: when this fails, the ledger burns it.
    ///
    /// # Errors
    /// [`MechanismError::ForeignReservation`] where it was made for another run, [`MechanismError::Sigma`] where the sampler cannot carry its
    /// noise, without entropy, and where consent is withdrawn, also meanwhile.
    pub fn noise(
        self,
        reservation: Reservation,
        consent: &ConsentToken<ContributeToFleet>,
        entropy: &mut dyn Entropy,
    ) -> Result<Noised, MechanismError> {
        consent.check()?;
        if reservation.run() != self.run {
            let (reserved, actual) = (reservation.run(), self.run);
            return Err(MechanismError::ForeignReservation { reserved, actual });
        }
        let z = reservation.noise_multiplier();
        let distribution = DiscreteGaussian::for_clip(z, CLIP_STEPS)?;
        let mut key = Zeroizing::new([0_u8; 32]);
        entropy.fill(&mut key[..])?;
        // The generator wipes its own state when dropped.
        let mut rng = ChaCha20Rng::from_seed(*key);
        let header = Header {
            release: reservation.release(),
            layout: self.layout,
            noise_multiplier: z,
            dimension: self.steps.len(),
        };
        let limit = header.largest_value();
        // Clamping comes after the noise and so costs no privacy; at this width it practically never acts.
        let noised =
            |&step: &i64| (step + distribution.sample(&mut rng)).clamp(-limit, limit) as i32;
        let values = self.steps.iter().map(noised).collect();
        // Sampling takes a while: a withdrawal meanwhile still stops the release.
        consent.check()?;
        Ok(Noised { header, values })
    }
}

/// A clipped and noised update: the only values that may leave the device.
pub struct Noised {
    header: Header,
    values: Vec<i32>,
}

impl Noised {
    /// The bytes that leave. The same update always gives the same bytes.
    pub fn encode(&self) -> EncodedUpdate {
        EncodedUpdate::new(&self.header, &self.values)
    }
}

impl Drop for Noised {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

macro_rules! redacted {
    ($name:ident, $count:expr) => {
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let count: fn(&$name) -> usize = $count;
                write!(formatter, concat!(stringify!($name), "({} values, not shown)"), count(self))
            }
        }
    };
}

redacted!(Delta, |delta| delta.values.len());
redacted!(Clipped, |clipped| clipped.steps.len());
redacted!(Noised, |noised| noised.values.len());

fn to_fine(value: f32) -> i64 {
    // Exact: f32 has 24 significant bits, so the product is a dyadic number that f64 holds.
    (f64::from(value) * f64::from(1_u32 << FINE_BITS)).round() as i64
}

#[derive(Clone, Copy)]
enum Rounding {
    Nearest,
    TowardsZero,
}

/// `value * CLIP_STEPS / divisor`, rounded.
fn scaled(fine: &[i64], divisor: u128, rounding: Rounding) -> Zeroizing<Vec<i64>> {
    let addend = match rounding {
        Rounding::Nearest => divisor / 2,
        Rounding::TowardsZero => 0,
    };
    let scale = |&value: &i64| {
        let product = u128::from(value.unsigned_abs()) * u128::from(CLIP_STEPS);
        // The quotient is at most CLIP_STEPS, because the divisor is at least the norm.
        let magnitude = ((product + addend) / divisor) as i64;
        if value < 0 { -magnitude } else { magnitude }
    };
    Zeroizing::new(fine.iter().map(scale).collect())
}

fn squared_norm(values: &[i64]) -> u128 {
    // Values are below 2^41 and there are at most 2^21 of them.
    values.iter().map(|&value| u128::from(value.unsigned_abs()).pow(2)).sum()
}

fn squared_clip() -> u128 {
    u128::from(CLIP_STEPS).pow(2)
}

/// The smallest integer whose square is at least `value`.
fn ceiling_root(value: u128) -> u128 {
    let root = value.isqrt();
    if root * root == value { root } else { root + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId([1; 16]);
    const LAYOUT: LayoutId = LayoutId([2; 32]);

    fn clip(values: Vec<f32>) -> Vec<i64> {
        Delta::new(RUN, LAYOUT, values).unwrap().clip().steps.to_vec()
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            let error = Delta::new(RUN, LAYOUT, vec![0.0, bad]).unwrap_err();
            assert!(matches!(error, MechanismError::NotFinite { index: 1, .. }), "{bad}: {error}");
        }
        assert!(matches!(Delta::new(RUN, LAYOUT, vec![]), Err(MechanismError::Dimension(0))));
    }

    #[test]
    fn short_deltas_are_only_rounded() {
        assert_eq!(clip(vec![0.5, -0.25, 0.0, f32::MIN_POSITIVE]), [1024, -512, 0, 0]);
        assert_eq!(clip(vec![1.0]), [2048]);
        assert_eq!(clip(vec![-0.75 / 2048.0, 0.25 / 2048.0]), [-1, 0]);
    }

    #[test]
    fn long_deltas_keep_their_direction_at_norm_one() {
        assert_eq!(clip(vec![30.0, -40.0]), [1229, -1638]);
        assert_eq!(clip(vec![65_536.0]), [2048]);
    }

    #[test]
    fn the_integer_norm_never_exceeds_the_clip() {
        let mut state = 7_u64;
        let mut unit = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1_u32 << 24) as f32 - 0.5
        };
        for dimension in [1, 2, 3, 10, 100, 5_778, 330_000] {
            for scale in [1e-4_f32, 0.01, 1.0, 1000.0] {
                let values: Vec<f32> = (0..dimension).map(|_| scale * unit()).collect();
                let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                let steps = clip(values);
                let integer = squared_norm(&steps);
                assert!(integer <= squared_clip(), "{dimension} {scale}: {integer}");
                // And it is not needlessly short, where values are large against a step.
                if norm > 1.0 && dimension <= 5_778 {
                    assert!(
                        integer as f64 > 0.97 * squared_clip() as f64,
                        "{dimension} {scale}: {integer}"
                    );
                }
            }
        }
        // The worst case of rounding to nearest: every value just above one step and a half, of norm 1 before and far more after.
        let values = vec![1.500_1 / 2048.0; 1_860_000];
        assert!(4 * values.len() as u128 > squared_clip());
        assert!(squared_norm(&clip(values)) <= squared_clip());
    }

    /// Canonne, Kamath, Steinke 2020, theorem 7: the exact curve of the discrete Gaussian, here by summation.
    #[test]
    fn the_discrete_curve_is_the_continuous_one_but_for_a_hundred_thousandth_of_delta() {
        for (z, delta) in [(0.5, 1e-3), (0.5, 1e-5), (0.5, 1e-8), (1.2, 1e-5), (1.2, 1e-8)] {
            compare_curves(z, delta);
        }
    }

    fn compare_curves(z: f64, delta: f64) {
        let (sigma, clip) = (z * f64::from(CLIP_STEPS), f64::from(CLIP_STEPS));
        let mu_squared = 1.0 / (z * z);
        let epsilon = super::super::gaussian::epsilon_upper_bound(mu_squared, delta);
        let weight = |x: f64| (-x * x / (2.0 * sigma * sigma)).exp();
        let bound = (12.0 * sigma) as i64;
        let total: f64 = (-bound..=bound).map(|x| weight(x as f64)).sum();
        let above = |threshold: f64| -> f64 {
            (-bound..=bound).map(|x| x as f64).filter(|&x| x > threshold).map(weight).sum::<f64>()
                / total
        };
        let centre = epsilon * sigma * sigma / clip;
        let discrete = above(centre - clip / 2.0) - epsilon.exp() * above(centre + clip / 2.0);
        assert!((discrete / delta - 1.0).abs() < 1e-5, "{z} {delta}: {discrete}");
    }
}
