//! Jitter, so that a fleet never acts in step.

use std::time::Duration;

/// Random enough to spread devices out; never used where a guess would matter.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A stream of its own for every seed.
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// A moment in `0..=span`, in milliseconds' steps.
    pub fn within(&mut self, span: Duration) -> Duration {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let steps = u64::try_from(span.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(mixed % (steps + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_stay_within_their_span_and_differ_between_devices() {
        let span = Duration::from_secs(150);
        let moments: std::collections::BTreeSet<_> =
            (0..100).map(|seed| Jitter::new(seed).within(span)).collect();
        assert!(moments.iter().all(|moment| *moment <= span));
        assert!(moments.len() > 90, "{}", moments.len());
    }
}
