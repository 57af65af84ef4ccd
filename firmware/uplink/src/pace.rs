//! Jitter and back-off, so that a fleet never acts in step.

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

/// Doubles from `first` to `longest`; each wait is drawn from the upper half.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait at most.
    pub first: Duration,
    /// Every wait at most.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after `attempts` failures, from 0.
    pub fn wait(&self, attempts: u32, jitter: &mut Jitter) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.min(20));
        let half = doubled.min(self.longest) / 2;
        half + jitter.within(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_differ_between_devices() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(300) };
        let mut waits = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut jitter = Jitter::new(seed);
            let first = backoff.wait(0, &mut jitter);
            assert!((Duration::from_millis(500)..=Duration::from_secs(1)).contains(&first));
            let late = backoff.wait(u32::MAX, &mut jitter);
            assert!((Duration::from_secs(150)..=Duration::from_secs(300)).contains(&late));
            waits.insert(late);
        }
        assert!(waits.len() > 90, "{}", waits.len());
    }
}
