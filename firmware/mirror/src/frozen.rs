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
/// Whoever looked at it so lately is not to lose it to somebody else,
const LOOKED_AT: Duration = Duration::from_secs(60);
/// nor whoever painted on it: it takes a while to find the next stroke, or to come back to a telephone.
const PAINTED_ON: Duration = Duration::from_secs(10 * 60);

/// The frozen picture, while there is one.
pub struct Frozen {
    slot: Mutex<Slot>,
    /// Held while one is saved.
    saving: Mutex<()>,
}

/// Number of the newest frozen picture, the picture while it is kept, and what was saved last.
struct Slot {
    number: u64,
    picture: Option<Kept>,
    saved: Option<(u64, CorrectionInfo)>,
}

impl Slot {
    /// See [`Frozen::in_hands`].
    fn in_hands(&self, now: Instant) -> Option<Duration> {
        let held = self.picture.as_ref()?.held?;
        Some(held.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

struct Kept {
    parsed: Arc<Parsed>,
    /// When somebody worked on it last, or froze it.
    worked: Instant,
    /// Until when nobody else may freeze another. A picture that never came to a page is in nobody's hands.
    held: Option<Instant>,
}

/// How somebody works on a picture.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A page has fetched it.
    Looking,
    /// Its parts were painted.
    Painting,
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
    /// Puts a picture in place of the one before. It stays only once somebody says so.
    ///
    /// # Errors
    /// As [`Frozen::in_hands`]: the one before stays.
    pub fn put(&self, parsed: Parsed) -> Result<Put<'_>, Duration> {
        let mut slot = lock(&self.slot);
        let now = Instant::now();
        if let Some(left) = slot.in_hands(now) {
            return Err(left);
        }
        slot.number += 1;
        slot.picture = Some(Kept { parsed: Arc::new(parsed), worked: now, held: None });
        Ok(Put { frozen: self, id: slot.number, is_kept: false })
    }

    /// The number of the picture that is kept.
    pub fn kept(&self) -> Option<u64> {
        let slot = lock(&self.slot);
        slot.picture.as_ref().map(|_| slot.number)
    }

    /// Somebody works on the picture of this number.
    pub fn touch(&self, id: u64, work: Work, now: Instant) {
        let mut slot = lock(&self.slot);
        let is_it = slot.number == id;
        if let Some(kept) = slot.picture.as_mut().filter(|_| is_it) {
            let time = match work {
                Work::Looking => LOOKED_AT,
                Work::Painting => PAINTED_ON,
            };
            kept.worked = now;
            kept.held = kept.held.max(Some(now + time));
        }
    }

    /// For how long the picture is in somebody's hands, if nobody works on it any more.
    pub fn in_hands(&self, now: Instant) -> Option<Duration> {
        lock(&self.slot).in_hands(now)
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
        let kept = slot.picture.as_ref().filter(|_| slot.number == id)?;
        Some(Arc::clone(&kept.parsed))
    }

    /// Forgets the picture of this number; another one, which somebody froze meanwhile, stays.
    pub fn forget(&self, id: u64) {
        let mut slot = lock(&self.slot);
        if slot.number == id {
            slot.picture = None;
        }
    }

    /// Forgets the picture, whosever it is. What was saved is saved all the same, and whoever asks again is told.
    pub fn forget_picture(&self) {
        lock(&self.slot).picture = None;
    }

    /// Forgets the picture, whosever it is, and what was saved last: it was deleted.
    pub fn forget_any(&self) {
        let mut slot = lock(&self.slot);
        (slot.picture, slot.saved) = (None, None);
    }

    /// Forgets a picture that nobody worked on for too long.
    pub fn forget_old(&self, now: Instant) {
        let is_old = |kept: &mut Kept| kept.worked + KEPT < now;
        lock(&self.slot).picture.take_if(is_old);
    }
}

/// A picture that was put before it was asked again whether it may be. It goes where it may not, and with a browser that does not
/// wait for the answer.
pub struct Put<'a> {
    frozen: &'a Frozen,
    id: u64,
    is_kept: bool,
}

impl Put<'_> {
    /// Lets it stay; the number by which it is asked for.
    pub fn keep(mut self) -> u64 {
        self.is_kept = true;
        self.id
    }
}

impl Drop for Put<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.frozen.forget(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(frozen: &Frozen) -> Put<'_> {
        frozen.put(Parsed::blank((6, 8))).expect("in nobody's hands")
    }

    #[test]
    fn only_the_newest_picture_is_kept_and_only_its_own_number_forgets_it() {
        let frozen = Frozen::default();
        let first = put(&frozen).keep();
        let second = put(&frozen).keep();
        assert!(frozen.get(first).is_none() && frozen.get(second).is_some());
        frozen.forget(first);
        assert!(frozen.get(second).is_some(), "another's picture");
        frozen.forget(second);
        assert!(frozen.get(second).is_none());
    }

    #[test]
    fn a_picture_that_nobody_let_stay_goes() {
        let frozen = Frozen::default();
        drop(put(&frozen));
        assert_eq!(frozen.kept(), None, "its browser did not wait");
        let first = put(&frozen);
        let second = put(&frozen).keep();
        drop(first);
        assert_eq!(frozen.kept(), Some(second), "another's picture");
    }

    #[test]
    fn numbers_of_another_run_are_others() {
        let first = |_| put(&Frozen::default()).keep();
        let numbers: std::collections::BTreeSet<u64> = (0..32).map(first).collect();
        assert!(numbers.len() > 30 && numbers.iter().all(|number| *number <= 1 << 32));
    }

    #[test]
    fn work_on_a_picture_keeps_it() {
        let frozen = Frozen::default();
        let id = put(&frozen).keep();
        let later = Instant::now() + KEPT - Duration::from_secs(1);
        let in_hands = |now| frozen.in_hands(now);
        assert_eq!(in_hands(Instant::now()), None, "no page has it yet");
        frozen.touch(id + 1, Work::Painting, later);
        assert_eq!(in_hands(later), None, "another's work");
        frozen.touch(id, Work::Looking, later);
        assert_eq!(in_hands(later), Some(LOOKED_AT));
        frozen.touch(id, Work::Painting, later);
        frozen.touch(id, Work::Looking, later);
        assert_eq!(in_hands(later + LOOKED_AT), Some(PAINTED_ON - LOOKED_AT));
        assert_eq!(in_hands(later + PAINTED_ON), None);
        frozen.forget_old(later + KEPT - Duration::from_secs(1));
        assert_eq!(frozen.kept(), Some(id));
        frozen.forget_old(later + KEPT + Duration::from_secs(1));
        assert_eq!(frozen.kept(), None);
    }

    #[test]
    fn a_picture_in_somebody_s_hands_is_not_replaced() {
        let frozen = Frozen::default();
        let id = put(&frozen).keep();
        frozen.touch(id, Work::Painting, Instant::now());
        let left = frozen.put(Parsed::blank((6, 8))).map(Put::keep).expect_err("it is held");
        assert!(left > Duration::ZERO && left <= PAINTED_ON, "{left:?}");
        assert_eq!(frozen.kept(), Some(id));
        frozen.forget(id);
        assert_ne!(put(&frozen).keep(), id);
    }

    #[test]
    fn an_old_picture_goes_without_being_asked_for() {
        let frozen = Frozen::default();
        put(&frozen).keep();
        let picture = lock(&frozen.slot).picture.as_ref().map(|kept| Arc::downgrade(&kept.parsed));
        let picture = picture.expect("just put");
        frozen.forget_old(Instant::now() + KEPT - Duration::from_secs(1));
        assert!(picture.upgrade().is_some());
        frozen.forget_old(Instant::now() + KEPT + Duration::from_secs(1));
        assert!(picture.upgrade().is_none(), "its memory is free");
    }
}
