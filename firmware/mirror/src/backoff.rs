//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// Delays of 0.25 s, 0.5 s, 1 s ... up to 10 s.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// Starting with the shortest delay.
    pub fn new() -> Backoff {
        Backoff { next: FIRST }
    }

    /// The delay before the next attempt; the one after it will be twice as long.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST);
        delay
    }

    /// After a success: short delays again.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_ten_seconds_and_starts_again() {
        let mut backoff = Backoff::new();
        let delays: Vec<f32> = (0..8).map(|_| backoff.next_delay().as_secs_f32()).collect();
        assert_eq!(delays, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
        backoff.reset();
        assert_eq!(backoff.next_delay(), FIRST);
    }
}
