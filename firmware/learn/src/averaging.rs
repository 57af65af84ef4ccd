//! Federated averaging of integer, noised updates, with a constant weight for every device.
//!
//! Sums are exact integers, so partial sums of any grouping, in any order and on any number of workers, merge to the
//! same bits. Weights are constant because a weight that depended on the data would cost privacy budget too.

use crate::edges::LayoutId;
use crate::privacy::{CLIP_STEPS, FRACTION_BITS, NoiseMultiplier};
use crate::update::{Header, Update};

/// How far above its expectation an update's norm may lie, in deviations of a single value. An honest update exceeds
/// this with a probability below `exp(-8²/2)`, about one in 10^14 (Laurent, Massart 2000, lemma 1).
const NORM_SLACK: f64 = 8.0;

/// Updates that one sum may hold: `2^31` values of at most `2^31` stay within an `i64`.
const MAX_UPDATES: u64 = 1 << 31;

/// What a round accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundRules {
    /// What the values must belong to.
    pub layout: LayoutId,
    /// Number of values.
    pub dimension: usize,
    /// The noise multiplier that every update must carry.
    pub noise_multiplier: NoiseMultiplier,
}

/// Why an update or a partial sum was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AveragingError {
    /// For another model or subset.
    #[error("the update or partial sum is for layout {actual}, the round is for {expected}")]
    Layout {
        /// The round's.
        expected: LayoutId,
        /// The update's, or the partial sum's.
        actual: LayoutId,
    },
    /// Another number of values.
    #[error("the update or partial sum has {actual} values, the round takes {expected}")]
    Dimension {
        /// The round's.
        expected: usize,
        /// The update's, or the partial sum's.
        actual: usize,
    },
    /// Another amount of noise.
    #[error("the update or partial sum has noise multiplier {actual}, the round takes {expected}")]
    NoiseMultiplier {
        /// The round's.
        expected: NoiseMultiplier,
        /// The update's, or the partial sum's.
        actual: NoiseMultiplier,
    },
    /// Longer than clip and noise can explain.
    #[error(
        "the update's norm is beyond what clipping and noise can explain; its device is at fault or hostile"
    )]
    Norm,
    /// More updates than a sum can hold.
    #[error("the sum already holds as many updates as it can")]
    Full,
    /// The round has fewer updates than it needs.
    #[error("the round has {actual} updates and needs {needed}")]
    TooFew {
        /// Minimum cohort.
        needed: u64,
        /// Updates present.
        actual: u64,
    },
    /// A stored sum is damaged.
    #[error("these bytes are no partial sum of this round")]
    Encoding,
}

impl RoundRules {
    /// The largest squared norm of an honest update, in steps.
    ///
    /// `|x + n| <= clip + sigma (sqrt(d) + 8)`: the norm of Gaussian noise concentrates around `sigma sqrt(d)`.
    fn largest_squared_norm(&self) -> u128 {
        let clip = f64::from(CLIP_STEPS);
        let sigma = self.noise_multiplier.as_f64() * clip;
        let norm = clip + sigma * ((self.dimension as f64).sqrt() + NORM_SLACK);
        (norm * norm).ceil() as u128
    }

    fn check(&self, update: &Update) -> Result<(), AveragingError> {
        let Header { layout, dimension, noise_multiplier, .. } = *update.header();
        self.agree(&RoundRules { layout, dimension, noise_multiplier })?;
        let norm = squared_norm(update.values());
        if norm > self.largest_squared_norm() { Err(AveragingError::Norm) } else { Ok(()) }
    }

    /// Whether what has these rules may be added, or what of them is not this round's.
    fn agree(&self, other: &RoundRules) -> Result<(), AveragingError> {
        if other.layout != self.layout {
            let (expected, actual) = (self.layout, other.layout);
            return Err(AveragingError::Layout { expected, actual });
        }
        if other.dimension != self.dimension {
            let (expected, actual) = (self.dimension, other.dimension);
            return Err(AveragingError::Dimension { expected, actual });
        }
        if other.noise_multiplier != self.noise_multiplier {
            let (expected, actual) = (self.noise_multiplier, other.noise_multiplier);
            return Err(AveragingError::NoiseMultiplier { expected, actual });
        }
        Ok(())
    }
}

/// Exact. Blocks of 2^16 squares below 2^48 fit 64 bits, which processors add many at a time; larger values are rare and
/// take the long way.
fn squared_norm(values: &[i32]) -> u128 {
    const BLOCK: usize = 1 << 16;
    const SMALL: u32 = 1 << 24;
    let block = |values: &[i32]| {
        let largest = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        if largest < SMALL {
            let square = |&value: &i32| (i64::from(value) * i64::from(value)) as u64;
            return u128::from(values.iter().map(square).sum::<u64>());
        }
        values.iter().map(|value| u128::from(value.unsigned_abs()).pow(2)).sum()
    };
    values.chunks(BLOCK).map(block).sum()
}

/// The sum of some of a round's updates. Its size does not depend on how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialSum {
    rules: RoundRules,
    count: u64,
    sums: Vec<i64>,
}

const SUM_MAGIC: &[u8; 4] = b"MLS1";

impl PartialSum {
    /// No updates yet.
    pub fn new(rules: RoundRules) -> PartialSum {
        PartialSum { rules, count: 0, sums: vec![0; rules.dimension] }
    }

    /// Updates in the sum.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Checks an update and adds it. A refused update leaves the sum as it was.
    ///
    /// # Errors
    /// [`AveragingError::Layout`], [`AveragingError::Dimension`] or [`AveragingError::NoiseMultiplier`] for one of another round,
    /// [`AveragingError::Norm`] for one that is too long, [`AveragingError::Full`] where the sum holds no more.
    pub fn add(&mut self, update: &Update) -> Result<(), AveragingError> {
        self.rules.check(update)?;
        self.admit(1)?;
        self.sums
            .iter_mut()
            .zip(update.values())
            .for_each(|(sum, &value)| *sum += i64::from(value));
        Ok(())
    }

    /// Adds another worker's sum of the same round. A refused one leaves the sum as it was.
    ///
    /// # Errors
    /// As [`PartialSum::add`], without the norm.
    pub fn merge(&mut self, other: &PartialSum) -> Result<(), AveragingError> {
        self.rules.agree(&other.rules)?;
        self.admit(other.count)?;
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, &value)| *sum += value);
        Ok(())
    }

    fn admit(&mut self, more: u64) -> Result<(), AveragingError> {
        let count = self.count.checked_add(more).filter(|&count| count <= MAX_UPDATES);
        self.count = count.ok_or(AveragingError::Full)?;
        Ok(())
    }

    /// The average update, if at least `needed` devices took part.
    ///
    /// # Errors
    /// [`AveragingError::TooFew`] where fewer did, or none.
    pub fn average(&self, needed: u64) -> Result<Vec<f32>, AveragingError> {
        if self.count < needed.max(1) {
            return Err(AveragingError::TooFew { needed: needed.max(1), actual: self.count });
        }
        let unit = 1.0 / (self.count as f64 * f64::from(1_u32 << FRACTION_BITS));
        Ok(self.sums.iter().map(|&sum| (sum as f64 * unit) as f32).collect())
    }

    /// Bytes for durable storage: magic, layout, count, sums. The other rules are the round's and not repeated.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = SUM_MAGIC.to_vec();
        bytes.extend_from_slice(&self.rules.layout.0);
        bytes.extend_from_slice(&self.count.to_le_bytes());
        self.sums.iter().for_each(|sum| bytes.extend_from_slice(&sum.to_le_bytes()));
        bytes
    }

    /// Reads a stored sum of a round with these rules.
    ///
    /// # Errors
    /// [`AveragingError::Encoding`] for bytes of another layout or length, or sums that no updates add up to.
    pub fn decode(rules: RoundRules, bytes: &[u8]) -> Result<PartialSum, AveragingError> {
        let body =
            bytes.strip_prefix(SUM_MAGIC).and_then(|rest| rest.strip_prefix(&rules.layout.0));
        let (words, rest) = body.ok_or(AveragingError::Encoding)?.as_chunks::<8>();
        if words.len() != rules.dimension + 1 || !rest.is_empty() {
            return Err(AveragingError::Encoding);
        }
        let count = u64::from_le_bytes(words[0]);
        let sums: Vec<i64> = words[1..].iter().map(|word| i64::from_le_bytes(*word)).collect();
        let within = |sum: &i64| sum.unsigned_abs() <= count.saturating_mul(1 << 31);
        if count > MAX_UPDATES || !sums.iter().all(within) {
            return Err(AveragingError::Encoding);
        }
        Ok(PartialSum { rules, count, sums })
    }
}

/// How a server moves its parameters by a round's average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    momentum: f32,
    rate: f32,
}

impl Step {
    /// Plain federated averaging: momentum 0, rate 1.
    pub const PLAIN: Step = Step { momentum: 0.0, rate: 1.0 };

    /// With this momentum, in `[0, 1)`; `None` outside.
    pub fn with_momentum(self, momentum: f32) -> Option<Step> {
        (0.0..1.0).contains(&momentum).then_some(Step { momentum, ..self })
    }

    /// With this rate, finite and above 0; `None` outside.
    pub fn with_rate(self, rate: f32) -> Option<Step> {
        (rate.is_finite() && rate > 0.0).then_some(Step { rate, ..self })
    }

    /// How much of the last velocity goes on.
    pub fn momentum(self) -> f32 {
        self.momentum
    }

    /// What the velocity is multiplied by.
    pub fn rate(self) -> f32 {
        self.rate
    }
}

/// Server-side momentum over rounds (Hsu, Qi, Brown 2019): `v = momentum v + average; parameters += rate v`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptimiser {
    step: Step,
    velocity: Vec<f32>,
}

impl ServerOptimiser {
    /// Goes on with the velocity of the round before; zeros where there was none.
    pub fn new(step: Step, velocity: Vec<f32>) -> ServerOptimiser {
        ServerOptimiser { step, velocity }
    }

    /// What has to be kept between rounds.
    pub fn velocity(&self) -> &[f32] {
        &self.velocity
    }

    /// Moves the subset's parameters by one round's average. All three have the same length.
    pub fn apply(&mut self, average: &[f32], parameters: &mut [f32]) {
        assert_eq!(average.len(), self.velocity.len(), "an average of another subset");
        assert_eq!(parameters.len(), self.velocity.len(), "parameters of another subset");
        for ((velocity, &average), parameter) in
            self.velocity.iter_mut().zip(average).zip(parameters)
        {
            *velocity = self.step.momentum * *velocity + average;
            *parameter += self.step.rate * *velocity;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_exact_for_every_size_of_value() {
        let plain = |values: &[i32]| -> u128 {
            values.iter().map(|value| u128::from(value.unsigned_abs()).pow(2)).sum()
        };
        let edges = [0, 1, -1, i32::MAX, i32::MIN, (1 << 24) - 1, 1 << 24, -(1 << 24)];
        let mixed: Vec<i32> = (0..200_000).map(|at| edges[at % 8] >> (at % 5)).collect();
        let largest_small = vec![(1 << 24) - 1; 1 << 17];
        for values in [&mixed[..], &largest_small, &edges, &[]] {
            assert_eq!(squared_norm(values), plain(values));
        }
    }
}
