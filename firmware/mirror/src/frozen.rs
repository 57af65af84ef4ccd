//! The one picture that somebody corrects: in memory, for a while, and gone with "Discard", with "camera off" and with the
//! consent.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use home::CorrectionInfo;

use crate::parsed::Parsed;
use crate::shared::lock;

/// A picture that nobody saved is forgotten this long after it was last worked on.
const KEPT: Duration = Duration::from_secs(20 * 60);
/// Whoever worked on it so lately is not to lose it to somebody else.
const IN_HANDS: Duration = Duration::from_secs(60);

/// The frozen picture, while there is one.
pub struct Frozen {
    slot: Mutex<Slot>,
    /// Held while one is saved.
    saving: Mutex<()>,
}

/// Number of the newest frozen picture, the picture with the moment of the last work on it while it is kept, and what was
/// saved last.
struct Slot {
    number: u64,
    picture: Option<(Instant, Arc<Parsed>)>,
    saved: Option<(u64, CorrectionInfo)>,
}

impl Default for Frozen {
    /// Numbers begin anywhere: a page that was open when the mirror started anew must not meet its own number on another
    /// picture. 32 bits, so that they are exact in JavaScript.
    fn default() -> Frozen {
        let anywhere = RandomState::new().build_hasher().finish() >> 32;
        let slot = Mutex::new(Slot { number: anywhere, picture: None, saved: None });
        Frozen { slot, saving: Mutex::default() }
    }
}

impl Frozen {
    /// Keeps a picture in place of the one before; the number by which it is asked for.
    pub fn put(&self, parsed: Parsed) -> u64 {
        let mut slot = lock(&self.slot);
        slot.number += 1;
        slot.picture = Some((Instant::now(), Arc::new(parsed)));
        slot.number
    }

    /// The number of the picture that is kept.
    pub fn kept(&self) -> Option<u64> {
        let slot = lock(&self.slot);
        slot.picture.as_ref().map(|_| slot.number)
    }

    /// Somebody works on the picture of this number.
    pub fn touch(&self, id: u64, now: Instant) {
        let mut slot = lock(&self.slot);
        let is_it = slot.number == id;
        if let Some((at, _)) = slot.picture.as_mut().filter(|_| is_it) {
            *at = now;
        }
    }

    /// Whether somebody works on the picture.
    pub fn is_in_hands(&self, now: Instant) -> bool {
        lock(&self.slot).picture.as_ref().is_some_and(|(at, _)| now < *at + IN_HANDS)
    }

    /// Saves the picture of this number with `store`, once: whoever asks again, be it while the first is still written, is
    /// told what came of it. Afterwards the picture is forgotten.
    ///
    /// # Errors
    /// Those of `store`; it may be tried again.
    pub fn save<E>(
        &self,
        id: u64,
        store: impl FnOnce() -> Result<CorrectionInfo, E>,
    ) -> Result<CorrectionInfo, E> {
        let _turn = lock(&self.saving);
        if let Some(info) = self.saved(id) {
            return Ok(info);
        }
        let info = store()?;
        self.forget(id);
        lock(&self.slot).saved = Some((id, info.clone()));
        Ok(info)
    }

    /// What came of the picture of this number, if it is the last one that was saved.
    fn saved(&self, id: u64) -> Option<CorrectionInfo> {
        let slot = lock(&self.slot);
        slot.saved.as_ref().filter(|(saved, _)| *saved == id).map(|(_, info)| info.clone())
    }

    /// The picture of this number, if it is the one that is kept.
    pub fn get(&self, id: u64) -> Option<Arc<Parsed>> {
        let slot = lock(&self.slot);
        let (_, parsed) = slot.picture.as_ref().filter(|_| slot.number == id)?;
        Some(Arc::clone(parsed))
    }

    /// Forgets the picture of this number; another one, which somebody froze meanwhile, stays.
    pub fn forget(&self, id: u64) {
        let mut slot = lock(&self.slot);
        if slot.number == id {
            slot.picture = None;
        }
    }

    /// Forgets the picture, whosever it is, and what was saved last.
    pub fn forget_any(&self) {
        let mut slot = lock(&self.slot);
        (slot.picture, slot.saved) = (None, None);
    }

    /// Forgets a picture that nobody worked on for too long.
    pub fn forget_old(&self, now: Instant) {
        let is_old = |(at, _): &mut (Instant, Arc<Parsed>)| *at + KEPT < now;
        lock(&self.slot).picture.take_if(is_old);
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
    fn numbers_of_another_run_are_others() {
        let first = |_| Frozen::default().put(Parsed::blank((6, 8)));
        let numbers: std::collections::BTreeSet<u64> = (0..32).map(first).collect();
        assert!(numbers.len() > 30 && numbers.iter().all(|number| *number <= 1 << 32));
    }

    #[test]
    fn work_on_a_picture_keeps_it() {
        let frozen = Frozen::default();
        let id = frozen.put(Parsed::blank((6, 8)));
        let later = Instant::now() + KEPT - Duration::from_secs(1);
        assert!(frozen.is_in_hands(Instant::now()) && !frozen.is_in_hands(later));
        frozen.touch(id + 1, later);
        assert!(!frozen.is_in_hands(later), "another's work");
        frozen.touch(id, later);
        assert!(frozen.is_in_hands(later));
        frozen.forget_old(later + KEPT - Duration::from_secs(1));
        assert_eq!(frozen.kept(), Some(id));
        frozen.forget_old(later + KEPT + Duration::from_secs(1));
        assert_eq!(frozen.kept(), None);
    }

    #[test]
    fn an_old_picture_goes_without_being_asked_for() {
        let frozen = Frozen::default();
        frozen.put(Parsed::blank((6, 8)));
        let picture = lock(&frozen.slot).picture.as_ref().map(|(_, parsed)| Arc::downgrade(parsed));
        let picture = picture.expect("just put");
        frozen.forget_old(Instant::now() + KEPT - Duration::from_secs(1));
        assert!(picture.upgrade().is_some());
        frozen.forget_old(Instant::now() + KEPT + Duration::from_secs(1));
        assert!(picture.upgrade().is_none(), "its memory is free");
    }
}
