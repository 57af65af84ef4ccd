//! Where the newest of something waits for another thread.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::shared::lock;

/// The newest value, and whether it was fetched already. Both sides swap theirs in: memory is used again and again.
#[derive(Default)]
pub struct Slot<T> {
    held: Mutex<Held<T>>,
    ready: Condvar,
}

#[derive(Default)]
struct Held<T> {
    value: T,
    fresh: bool,
}

impl<T> Slot<T> {
    /// Hands a value on if that is `allowed`, which is asked under the lock that [`Slot::replace`] takes; `back` receives a used
    /// one. Whether it was handed on.
    pub fn publish(&self, back: &mut T, allowed: impl FnOnce(&T) -> bool) -> bool {
        let mut held = lock(&self.held);
        if !allowed(back) {
            return false;
        }
        std::mem::swap(&mut held.value, back);
        held.fresh = true;
        self.ready.notify_one();
        true
    }

    /// Swaps a value that was not fetched yet into `front`, waiting for one at most `timeout`, or for nothing if `stopping`;
    /// false when there is none.
    pub fn receive(
        &self,
        front: &mut T,
        timeout: Duration,
        stopping: impl FnOnce() -> bool,
    ) -> bool {
        let mut held = lock(&self.held);
        if !held.fresh && !stopping() {
            held = match self.ready.wait_timeout(held, timeout) {
                Ok((held, _)) => held,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        let fresh = std::mem::replace(&mut held.fresh, false);
        if fresh {
            std::mem::swap(&mut held.value, front);
        }
        fresh
    }

    /// Changes what waits. Whoever waits for it gets the change if it is `fresh`, and else nothing.
    pub fn replace(&self, fresh: bool, change: impl FnOnce(&mut T)) {
        let mut held = lock(&self.held);
        change(&mut held.value);
        held.fresh = fresh;
        if fresh {
            self.ready.notify_one();
        }
    }

    /// Lets whoever waits look around now.
    pub fn wake(&self) {
        let _held = lock(&self.held);
        self.ready.notify_all();
    }
}
