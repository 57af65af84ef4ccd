//! When to try a display again, and what the journal has of it.

use std::time::Instant;

use crate::backoff::Backoff;
use crate::run::seldom::SeldomEach;
use crate::run::supervisor::STEADY;

/// The attempts to open a display. One that comes and goes waits longer and longer.
pub struct Attempts {
    backoff: Backoff,
    /// When the next one is made.
    pub due: Instant,
    /// When the display that is open was opened.
    opened: Option<Instant>,
    /// See [`Told`].
    pub told: Told,
}

/// What the journal has of displays: a contact that is loose must not fill it.
#[derive(Default)]
pub struct Told {
    /// Displays that were opened, by name.
    pub open: SeldomEach,
    /// Why there was none.
    pub missing: SeldomEach,
}

impl Attempts {
    /// The first one is made at once.
    pub fn new(now: Instant) -> Attempts {
        Attempts { backoff: Backoff::new(), due: now, opened: None, told: Told::default() }
    }

    /// Notes an attempt.
    pub fn made(&mut self, is_open: bool, now: Instant) {
        self.due = now + self.backoff.next_delay();
        self.opened = is_open.then_some(now);
    }

    /// Notes that the display that was open cannot be kept.
    pub fn lost(&mut self, now: Instant) {
        let opened = self.opened.take();
        if opened.is_some_and(|opened| now.saturating_duration_since(opened) >= STEADY) {
            self.backoff.reset();
            self.due = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_display_that_comes_and_goes_is_opened_less_and_less_often() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        assert!(start >= attempts.due, "the first one at once");
        let mut now = start;
        let mut opened = 0;
        while now < start + Duration::from_secs(600) {
            if now >= attempts.due {
                attempts.made(true, now);
                attempts.lost(now + Duration::from_millis(100));
                opened += 1;
            }
            now += Duration::from_millis(100);
        }
        assert!(opened < 70, "{opened} times in ten minutes");
        now = attempts.due;
        attempts.made(true, now);
        now += STEADY;
        attempts.lost(now);
        assert_eq!(attempts.due, now, "one that had lasted is opened again at once");
        attempts.made(true, now);
        assert_eq!(attempts.due, now + Backoff::new().next_delay());
    }
}
