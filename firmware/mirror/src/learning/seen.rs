//! Training requests that were answered, so that a repeated one is noticed. In memory: what is stored is limited and
//! listed anyway.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::shared::lock;

/// A hash of what a request is known by.
pub type Key = [u8; 32];

/// Keys that are remembered.
const REMEMBERED: usize = 512;

/// The requests, shared by all copies.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Keys>>);

/// The requests' keys: in their order, and to look them up.
#[derive(Default)]
struct Keys {
    order: VecDeque<Key>,
    /// With the correction that a request has become.
    known: HashMap<Key, Option<u64>>,
}

impl Seen {
    /// Notes a request; `None`, and nothing noted, if one of its keys was noted before.
    pub fn note(&self, keys: Vec<Key>) -> Option<Noted> {
        let mut seen = lock(&self.0);
        if keys.iter().any(|key| seen.known.contains_key(key)) {
            return None;
        }
        seen.order.extend(&keys);
        seen.known.extend(keys.iter().map(|key| (*key, None)));
        while seen.order.len() > REMEMBERED {
            if let Some(oldest) = seen.order.pop_front() {
                seen.known.remove(&oldest);
            }
        }
        Some(Noted { seen: self.clone(), keys })
    }

    /// Forgets the request that became this correction: it may be made again.
    pub fn forget_correction(&self, number: u64) {
        self.retain(|_, correction| correction != Some(number));
    }

    /// Forgets everything.
    pub fn forget(&self) {
        *lock(&self.0) = Keys::default();
    }

    fn retain(&self, wanted: impl Fn(&Key, Option<u64>) -> bool) {
        let Keys { order, known } = &mut *lock(&self.0);
        known.retain(|key, correction| wanted(key, *correction));
        order.retain(|key| known.contains_key(key));
    }
}

/// A request that is being answered. Its note goes with it unless it is stored: what failed or was cut off may be asked
/// for again.
pub struct Noted {
    seen: Seen,
    keys: Vec<Key>,
}

impl Noted {
    /// Keeps the note, for as long as this correction is there.
    pub fn stored_as(mut self, correction: u64) {
        let mut seen = lock(&self.seen.0);
        for key in self.keys.drain(..) {
            if let Some(known) = seen.known.get_mut(&key) {
                *known = Some(correction);
            }
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.seen.retain(|key, _| !self.keys.contains(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_used_once_by_each_of_its_keys() {
        let seen = Seen::default();
        seen.note(vec![[1; 32], [2; 32]]).expect("new").stored_as(0);
        assert!(seen.note(vec![[1; 32], [3; 32]]).is_none());
        assert!(seen.note(vec![[2; 32]]).is_none());
        assert!(seen.note(vec![[3; 32]]).is_some(), "a refusal notes nothing");
    }

    #[test]
    fn what_was_not_stored_may_be_asked_for_again() {
        let seen = Seen::default();
        let answering = seen.note(vec![[1; 32]]).expect("new");
        assert!(seen.note(vec![[1; 32]]).is_none(), "it is being answered");
        drop(answering);
        seen.note(vec![[1; 32]]).expect("cut off").stored_as(7);
        assert!(seen.note(vec![[1; 32]]).is_none(), "stored");
        seen.forget_correction(6);
        assert!(seen.note(vec![[1; 32]]).is_none(), "another correction was removed");
        seen.forget_correction(7);
        assert!(seen.note(vec![[1; 32]]).is_some());
    }

    #[test]
    fn only_the_newest_requests_are_remembered() {
        let seen = Seen::default();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        for number in 0..=REMEMBERED {
            seen.note(vec![key(number)]).expect("new").stored_as(number as u64);
        }
        assert!(seen.note(vec![key(0)]).is_some(), "the first one was forgotten");
        assert!(seen.note(vec![key(REMEMBERED)]).is_none());
        let keys = lock(&seen.0);
        assert_eq!(keys.order.len(), keys.known.len());
    }
}
