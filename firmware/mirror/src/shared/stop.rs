//! The mirror's end, for whoever looks and whoever sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::shared::lock;

/// Set once.
#[derive(Default)]
pub struct Stop {
    is_set: AtomicBool,
    lock: Mutex<()>,
    signal: Condvar,
}

impl Stop {
    /// Ends every sleep.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::SeqCst);
        let _guard = lock(&self.lock);
        self.signal.notify_all();
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::SeqCst)
    }

    /// The flag alone.
    pub fn flag(&self) -> &AtomicBool {
        &self.is_set
    }

    /// Sleeps, but no longer than until it is set; whether it is.
    pub fn sleep(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut guard = lock(&self.lock);
        while !self.is_set() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            guard = match self.signal.wait_timeout(guard, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        self.is_set()
    }
}
