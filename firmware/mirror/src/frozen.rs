//! The one picture that somebody corrects: in memory, for a while, and gone with "Discard", with "camera off" and with the
//! consent.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::parsed::Parsed;
use crate::shared::lock;

/// A picture that nobody saved is forgotten after this long.
const KEPT: Duration = Duration::from_secs(20 * 60);

/// The frozen picture, while there is one.
#[derive(Default)]
pub struct Frozen(Mutex<Slot>);

/// Number of the newest frozen picture, and the picture with its moment while it is kept.
#[derive(Default)]
struct Slot {
    number: u64,
    picture: Option<(Instant, Arc<Parsed>)>,
}

impl Frozen {
    /// Keeps a picture in place of the one before; the number by which it is asked for.
    pub fn put(&self, parsed: Parsed) -> u64 {
        let mut slot = lock(&self.0);
        slot.number += 1;
        slot.picture = Some((Instant::now(), Arc::new(parsed)));
        slot.number
    }

    /// The picture of this number, if it is the one that is kept.
    pub fn get(&self, id: u64) -> Option<Arc<Parsed>> {
        let slot = lock(&self.0);
        let (_, parsed) = slot.picture.as_ref().filter(|_| slot.number == id)?;
        Some(Arc::clone(parsed))
    }

    /// Forgets the picture of this number; another one, which somebody froze meanwhile, stays.
    pub fn forget(&self, id: u64) {
        let mut slot = lock(&self.0);
        if slot.number == id {
            slot.picture = None;
        }
    }

    /// Forgets the picture, whosever it is.
    pub fn forget_any(&self) {
        lock(&self.0).picture = None;
    }

    /// Forgets a picture that nobody saved for too long.
    pub fn forget_old(&self, now: Instant) {
        let is_old = |(at, _): &mut (Instant, Arc<Parsed>)| *at + KEPT < now;
        lock(&self.0).picture.take_if(is_old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_picture_is_kept_and_only_its_own_number_forgets_it() {
        let frozen = Frozen::default();
        let first = frozen.put(Parsed::blank((6, 8)));
        let second = frozen.put(Parsed::blank((6, 8)));
        assert!(frozen.get(first).is_none() && frozen.get(second).is_some());
        frozen.forget(first);
        assert!(frozen.get(second).is_some(), "another's picture");
        frozen.forget(second);
        assert!(frozen.get(second).is_none());
    }

    #[test]
    fn an_old_picture_goes_without_being_asked_for() {
        let frozen = Frozen::default();
        frozen.put(Parsed::blank((6, 8)));
        let picture = lock(&frozen.0).picture.as_ref().map(|(_, parsed)| Arc::downgrade(parsed));
        let picture = picture.expect("just put");
        frozen.forget_old(Instant::now() + KEPT - Duration::from_secs(1));
        assert!(picture.upgrade().is_some());
        frozen.forget_old(Instant::now() + KEPT + Duration::from_secs(1));
        assert!(picture.upgrade().is_none(), "its memory is free");
    }
}
