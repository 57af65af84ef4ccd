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
pub struct Answered(Arc<Mutex<Keys>>);

/// The requests' keys: in their order, and to look them up.
#[derive(Default)]
struct Keys {
    order: VecDeque<Key>,
    /// With the correction that a request has become.
    known: HashMap<Key, Option<u64>>,
}

impl Answered {
    /// Notes a request; `None`, and nothing noted, if one of its keys was noted before.
    pub fn note(&self, keys: Vec<Key>) -> Option<Noted> {
        let mut answered = lock(&self.0);
        if keys.iter().any(|key| answered.known.contains_key(key)) {
            return None;
        }
        answered.order.extend(&keys);
        answered.known.extend(keys.iter().map(|key| (*key, None)));
        while answered.order.len() > REMEMBERED {
            if let Some(oldest) = answered.order.pop_front() {
                answered.known.remove(&oldest);
            }
        }
        Some(Noted { answered: self.clone(), keys })
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
    answered: Answered,
    keys: Vec<Key>,
}

impl Noted {
    /// Keeps the note, for as long as this correction is there.
    pub fn stored_as(mut self, correction: u64) {
        let mut answered = lock(&self.answered.0);
        for key in self.keys.drain(..) {
            if let Some(known) = answered.known.get_mut(&key) {
                *known = Some(correction);
            }
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.answered.retain(|key, _| !self.keys.contains(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_used_once_by_each_of_its_keys() {
        let answered = Answered::default();
        answered.note(vec![[1; 32], [2; 32]]).expect("new").stored_as(0);
        assert!(answered.note(vec![[1; 32], [3; 32]]).is_none());
        assert!(answered.note(vec![[2; 32]]).is_none());
        assert!(answered.note(vec![[3; 32]]).is_some(), "a refusal notes nothing");
    }

    #[test]
    fn what_was_not_stored_may_be_asked_for_again() {
        let answered = Answered::default();
        let answering = answered.note(vec![[1; 32]]).expect("new");
        assert!(answered.note(vec![[1; 32]]).is_none(), "it is being answered");
        drop(answering);
        answered.note(vec![[1; 32]]).expect("cut off").stored_as(7);
        assert!(answered.note(vec![[1; 32]]).is_none(), "stored");
        answered.forget_correction(6);
        assert!(answered.note(vec![[1; 32]]).is_none(), "another correction was removed");
        answered.forget_correction(7);
        assert!(answered.note(vec![[1; 32]]).is_some());
    }

    #[test]
    fn only_the_newest_requests_are_remembered() {
        let answered = Answered::default();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        for number in 0..=REMEMBERED {
            answered.note(vec![key(number)]).expect("new").stored_as(number as u64);
        }
        assert!(answered.note(vec![key(0)]).is_some(), "the first one was forgotten");
        assert!(answered.note(vec![key(REMEMBERED)]).is_none());
        let keys = lock(&answered.0);
        assert_eq!(keys.order.len(), keys.known.len());
    }
}
