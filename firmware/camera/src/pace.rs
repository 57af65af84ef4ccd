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

    /// Waits until the next picture is due. After a pause the clock starts anew; nothing is hurried.
    pub fn wait(&mut self) {
        let Some(interval) = self.interval else { return };
        let now = Instant::now();
        let due = self.due.unwrap_or(now);
        if let Some(left) = due.checked_duration_since(now) {
            std::thread::sleep(left);
        }
        let late = now.saturating_duration_since(due) > interval;
        self.due = Some(if late { now } else { due } + interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_and_zero_never_waits() {
        let began = Instant::now();
        let mut pace = Pace::new(100.0);
        (0..6).for_each(|_| pace.wait());
        assert!(began.elapsed() >= Duration::from_millis(50));
        let began = Instant::now();
        let mut pace = Pace::new(0.0);
        (0..10_000).for_each(|_| pace.wait());
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
