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
    /// Notes a request; `None`, and nothing noted, if one of its keys was noted before and is being answered, or has become a correction that
    /// `is_stored`: one that went by its age may be handed in again.
    pub fn note(&self, keys: Vec<Key>, is_stored: impl Fn(u64) -> bool) -> Option<Noted> {
        let mut answered = lock(&self.0);
        let known: Vec<Option<u64>> =
            keys.iter().filter_map(|key| answered.known.get(key).copied()).collect();
        if known.iter().any(|correction| correction.is_none_or(&is_stored)) {
            return None;
        }
        answered.retain(|_, correction| correction.is_none() || !known.contains(&correction));
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
        lock(&self.0).retain(|_, correction| correction != Some(number));
    }

    /// Forgets everything.
    pub fn forget(&self) {
        *lock(&self.0) = Keys::default();
    }
}

impl Keys {
    fn retain(&mut self, wanted: impl Fn(&Key, Option<u64>) -> bool) {
        let Keys { order, known } = self;
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
            lock(&self.answered.0).retain(|key, _| !self.keys.contains(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where every correction is still there.
    fn note(answered: &Answered, keys: Vec<Key>) -> Option<Noted> {
        answered.note(keys, |_| true)
    }

    #[test]
    fn a_request_is_used_once_by_each_of_its_keys() {
        let answered = Answered::default();
        note(&answered, vec![[1; 32], [2; 32]]).expect("new").stored_as(0);
        assert!(note(&answered, vec![[1; 32], [3; 32]]).is_none());
        assert!(note(&answered, vec![[2; 32]]).is_none());
        assert!(note(&answered, vec![[3; 32]]).is_some(), "a refusal notes nothing");
    }

    #[test]
    fn what_was_not_stored_may_be_asked_for_again() {
        let answered = Answered::default();
        let answering = note(&answered, vec![[1; 32]]).expect("new");
        assert!(note(&answered, vec![[1; 32]]).is_none(), "it is being answered");
        drop(answering);
        note(&answered, vec![[1; 32]]).expect("cut off").stored_as(7);
        assert!(note(&answered, vec![[1; 32]]).is_none(), "stored");
        answered.forget_correction(6);
        assert!(note(&answered, vec![[1; 32]]).is_none(), "another correction was removed");
        answered.forget_correction(7);
        assert!(note(&answered, vec![[1; 32]]).is_some());
    }

    #[test]
    fn what_is_stored_no_more_may_be_handed_in_again() {
        let answered = Answered::default();
        note(&answered, vec![[1; 32], [2; 32]]).expect("new").stored_as(7);
        note(&answered, vec![[3; 32]]).expect("new").stored_as(8);
        let is_stored = |number| number == 8;
        assert!(answered.note(vec![[1; 32], [3; 32]], is_stored).is_none(), "one is there");
        let answering =
            answered.note(vec![[1; 32], [2; 32]], is_stored).expect("it went by its age");
        assert!(answered.note(vec![[2; 32]], |_| false).is_none(), "it is being answered");
        answering.stored_as(9);
        assert!(answered.note(vec![[1; 32]], |number| number == 9).is_none());
        let keys = lock(&answered.0);
        assert_eq!((keys.order.len(), keys.known.len()), (3, 3));
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
            note(&answered, vec![key(number)]).expect("new").stored_as(number as u64);
        }
        assert!(note(&answered, vec![key(0)]).is_some(), "the first one was forgotten");
        assert!(note(&answered, vec![key(REMEMBERED)]).is_none());
        let keys = lock(&answered.0);
        assert_eq!(keys.order.len(), keys.known.len());
    }
}
