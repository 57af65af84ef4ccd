//! Moments of a mirror that runs, such as when somebody was in front of it last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A moment, in microseconds since the mirror's start; 0: never.
#[derive(Default)]
pub struct Moment(AtomicU64);

impl Moment {
    /// Sets it to now.
    pub fn note(&self, started: Instant) {
        self.0.store(since(started), Ordering::Relaxed);
    }

    /// Sets it to now, unless it was set before.
    pub fn note_first(&self, started: Instant) {
        // Of two at once either is right.
        if self.0.load(Ordering::Relaxed) == 0 {
            self.note(started);
        }
    }

    /// From the mirror's start to it.
    pub fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// Whether it is no longer ago than this.
    pub fn is_within(&self, time: Duration, started: Instant) -> bool {
        self.get().is_some_and(|moment| started.elapsed() <= moment + time)
    }
}

/// In microseconds, and never 0.
fn since(started: Instant) -> u64 {
    started.elapsed().as_micros().max(1) as u64
}

/// Who was seen by a camera, and when somebody saw that elsewhere.
#[derive(Default)]
pub struct Presence {
    /// Anybody.
    pub seen: Moment,
    /// Somebody who may not be a thing that is taken for a person.
    pub moved: Moment,
    /// A picture was given to somebody elsewhere, or is kept for them.
    pub shown_elsewhere: Moment,
}
