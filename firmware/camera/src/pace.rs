//! Files at the speed of life.

use std::time::{Duration, Instant};

/// Delays pictures so that they come `rate` a second.
#[derive(Debug)]
pub struct Pace {
    interval: Option<Duration>,
    due: Option<Instant>,
}

impl Pace {
    /// `rate` pictures a second; 0 never waits.
    pub fn new(rate: f64) -> Pace {
        let interval = (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate));
        Pace { interval, due: None }
    }

    /// Waits until the next picture is due, but no longer than `timeout`: false when it is due later. After a pause the clock starts
    /// anew; nothing is hurried.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let Some(interval) = self.interval else { return true };
        let now = Instant::now();
        let due = self.due.unwrap_or(now);
        let left = due.saturating_duration_since(now);
        std::thread::sleep(left.min(timeout));
        if left > timeout {
            return false;
        }
        let late = now.saturating_duration_since(due) > interval;
        self.due = Some(if late { now } else { due } + interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_and_zero_never_waits() {
        let began = Instant::now();
        let mut pace = Pace::new(100.0);
        assert!((0..6).all(|_| pace.wait(Duration::from_secs(1))));
        assert!(began.elapsed() >= Duration::from_millis(50));
        let mut pace = Pace::new(0.0);
        assert!((0..3).all(|_| pace.wait(Duration::from_secs(60))));
        assert_eq!(pace.due, None, "nothing is ever waited for");
    }

    #[test]
    fn nobody_waits_longer_than_they_want_to() {
        let began = Instant::now();
        let mut pace = Pace::new(1.0 / 3600.0);
        assert!(pace.wait(Duration::ZERO), "the first picture is due at once");
        let due = pace.due;
        assert!(!pace.wait(Duration::from_millis(1)) && !pace.wait(Duration::ZERO));
        assert_eq!(pace.due, due, "and is due when it was");
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
