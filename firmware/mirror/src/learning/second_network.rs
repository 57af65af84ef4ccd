//! Memory for one network beside the camera's: training's own, or that of single pictures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often training looks whether it has been given back.
const TICK: Duration = Duration::from_millis(20);

/// Who has it, and who waits for it.
#[derive(Debug, Default)]
pub struct SecondNetwork {
    taken: AtomicBool,
    wanted: AtomicBool,
}

/// The memory, until it is dropped.
#[derive(Debug)]
pub struct Held(Arc<SecondNetwork>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::SeqCst);
    }
}

impl SecondNetwork {
    /// For training, which waits until single pictures have given it back: they do so when it is wanted.
    pub fn for_training(self: &Arc<Self>) -> Held {
        self.wanted.store(true, Ordering::SeqCst);
        let held = loop {
            match self.take() {
                Some(held) => break held,
                None => std::thread::sleep(TICK),
            }
        };
        self.wanted.store(false, Ordering::SeqCst);
        held
    }

    /// For single pictures; none where training has it, or waits for it.
    pub fn for_pictures(self: &Arc<Self>) -> Option<Held> {
        if self.is_wanted() { None } else { self.take() }
    }

    /// Whether training waits for it.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    fn take(self: &Arc<Self>) -> Option<Held> {
        let is_free = !self.taken.swap(true, Ordering::SeqCst);
        is_free.then(|| Held(Arc::clone(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_is_waited_for_and_gets_what_pictures_give_back() {
        let second = Arc::new(SecondNetwork::default());
        let pictures = second.for_pictures().expect("nobody has it");
        assert!(second.for_pictures().is_none(), "there is one");
        let training = {
            let second = Arc::clone(&second);
            std::thread::spawn(move || second.for_training())
        };
        while !second.is_wanted() {
            std::thread::yield_now();
        }
        drop(pictures);
        assert!(second.for_pictures().is_none(), "training has it, or will in a moment");
        let training = training.join().expect("no panic");
        assert!(!second.is_wanted() && second.for_pictures().is_none());
        drop(training);
        assert!(second.for_pictures().is_some());
    }
}
