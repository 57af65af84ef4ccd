//! How long corrections are kept, and the time lived that says it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use learn::edges::Timestamp;
use serde::{Deserialize, Serialize};

use crate::corrections::CorrectionInfo;
use crate::edges::EARLIEST_DATE;
use crate::error::HomeError;
use crate::household::{Household, Shared};
use crate::state::{Further, State};

/// The wall clock alone deletes a correction only after it has called it too old for this long, so that a clock that
/// jumps and is put right deletes nothing.
pub(crate) const GRACE: Duration = Duration::from_secs(7 * 86_400);

/// Seconds that the mirror was on during [`GRACE`] before the wall clock alone deletes a correction: a clock that jumps on cannot have
/// called it too old for a week at once. A clock gives a correction a date once it has held for as long.
const SEEN_ON: u64 = 3_600;

/// How much of the time that the mirror was on may be lost by a power cut, in seconds: half of what it was on since its
/// start, within these. A mirror that is switched off by its socket after minutes keeps count, and one that stays on
/// spares its disk.
const LIVED_SAVED_EVERY: RangeInclusive<u64> = 60..=900;

/// Since when the wall clock has called corrections too old without a break, by their numbers: in seconds that the mirror
/// was on, and by that clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Overdue {
    pub lived: BTreeMap<u64, u64>,
    pub wall: BTreeMap<u64, u64>,
}

impl Overdue {
    fn forget(&mut self, number: u64) {
        self.lived.remove(&number);
        self.wall.remove(&number);
    }

    /// Whether it has been so for longer than [`GRACE`], on the mirror's own time or, on a mirror that is seldom on, by the date.
    fn is_confirmed(&self, number: u64, lived: u64, wall: u64) -> bool {
        let passed = |since: &BTreeMap<u64, u64>, now: u64| {
            since.get(&number).map_or(0, |since| now.saturating_sub(*since))
        };
        let on = passed(&self.lived, lived);
        let by_date = passed(&self.wall, wall) >= GRACE.as_secs() && on >= SEEN_ON;
        on > GRACE.as_secs() || by_date
    }

    /// Whether one of them still has to be seen on for [`SEEN_ON`].
    fn is_counted(&self, lived: u64) -> bool {
        self.lived.values().any(|since| lived.saturating_sub(*since) < SEEN_ON)
    }
}

/// When a correction was first seen under a clock that is set. Stands for the date that it was saved under where that is none, or lies ahead.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// By the earliest clock that held for [`SEEN_ON`], in seconds since 1970; the greatest number until one has.
    at: u64,
    /// The clock was behind the correction's own date for [`GRACE`]: that date is believed no more, also when the clock reaches it.
    holds: bool,
    /// A clock that is earlier, and has not held for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tried: Option<Tried>,
}

/// A clock's first look at a correction: in seconds since 1970, and in seconds that the mirror was on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tried {
    at: u64,
    lived: u64,
}

impl Seen {
    const NEVER: Seen = Seen { at: u64::MAX, holds: false, tried: None };

    /// One more look. Where the clock leapt on since the first one, that clock was wrong, or the mirror was off: then this look's date is tried.
    /// The time on goes on counting, so that a mirror that is seldom on comes to a date, too.
    fn look(&mut self, wall: u64, lived: u64) {
        let new = Tried { at: wall, lived };
        let mut tried = self.tried.filter(|tried| tried.at <= wall).unwrap_or(new);
        let on = lived.saturating_sub(tried.lived);
        if wall - tried.at >= on.saturating_add(GRACE.as_secs()) {
            tried.at = wall;
        }
        if on >= SEEN_ON {
            self.at = self.at.min(tried.at);
        }
        self.tried = (tried.at < self.at).then_some(tried);
        self.holds |= wall.saturating_sub(self.at) >= GRACE.as_secs();
    }

    fn date(&self) -> u64 {
        self.tried.map_or(self.at, |tried| tried.at)
    }
}

/// The date that says a correction's age, under a clock that is set; `None` of one that cannot be opened.
fn date_of(
    entry: &CorrectionInfo,
    seen: &mut BTreeMap<u64, Seen>,
    wall: Timestamp,
    lived: u64,
) -> Option<u64> {
    let saved_at = entry.saved_at?;
    let is_believed = !seen.get(&entry.number).is_some_and(|seen| seen.holds);
    if is_believed && (EARLIEST_DATE..=wall).contains(&saved_at) {
        // The clock had been put back, and is right again.
        seen.remove(&entry.number);
        return Some(saved_at.0);
    }
    let seen = seen.entry(entry.number).or_insert(Seen::NEVER);
    seen.look(wall.0, lived);
    Some(seen.date())
}

impl Household {
    /// Deletes corrections past their age, remembers the time lived, stores what was withdrawn in memory alone, and destroys what
    /// a withdrawal could not. Called now and then by whoever has the stores open; gives how many corrections went.
    ///
    /// # Errors
    /// Of the store.
    pub fn tidy(&self) -> Result<u64, HomeError> {
        let stored = self.store_withdrawals();
        let removed = self.remove_expired()?;
        stored.map(|()| removed)
    }

    fn remove_expired(&self) -> Result<u64, HomeError> {
        let lived = self.lived();
        let mut shared = self.lock();
        let (expired, mut overdue, mut further) = self.expired(&shared, lived);
        let forgotten = self.forget_work_on(&mut shared, &expired);
        // One that cannot be removed keeps no other.
        let mut removed = Ok(());
        for number in &expired {
            match shared.corrections.remove(&self.vault, *number) {
                Ok(()) => {
                    overdue.forget(*number);
                    further.seen.remove(number);
                }
                Err(error) => removed = Err(error),
            }
        }
        forgotten?;
        let is_dated = further != shared.state.further;
        let changed = is_dated || overdue != shared.state.overdue || !expired.is_empty();
        let is_counted =
            overdue.is_counted(lived) || further.seen.values().any(|seen| seen.tried.is_some());
        let late = lived.saturating_sub(shared.state.lived) >= self.may_be_lost(lived, is_counted);
        if changed || (late && shared.corrections.len() > 0) {
            let next = State { overdue, further, ..shared.state.clone() };
            self.save(&mut shared, next)?;
        }
        removed.map(|()| expired.len() as u64)
    }

    /// How much of the time lived a power cut may take, in seconds.
    fn may_be_lost(&self, lived: u64, is_counted: bool) -> u64 {
        let (least, most) = LIVED_SAVED_EVERY.into_inner();
        let most = if is_counted { least } else { most };
        (lived.saturating_sub(self.began.0) / 2).clamp(least, most)
    }

    /// Remembers the time lived, however short it was: a mirror may be on for minutes a day.
    ///
    /// # Errors
    /// Of the store.
    pub fn remember_lived(&self) -> Result<(), HomeError> {
        let mut shared = self.lock();
        if shared.corrections.len() == 0 {
            return Ok(());
        }
        let next = shared.state.clone();
        self.save(&mut shared, next)
    }

    /// Seconds for which a correction is kept: as many as somebody agreed to, or fewer where the settings say fewer now. What
    /// was agreed to for corrections that are gone does not count for the next one.
    pub(crate) fn agreed_age(&self, shared: &Shared) -> u64 {
        let set = self.options.limits.age.as_secs();
        let agreed = shared.state.further.agreed_age.filter(|_| shared.corrections.len() > 0);
        agreed.map_or(set, |agreed| agreed.min(set))
    }

    /// The state with the next correction, and with the age that holds for it and for those before it.
    pub(crate) fn with_next_correction(&self, shared: &Shared) -> State {
        let mut next = shared.state.clone();
        next.next_correction += 1;
        next.further.agreed_age = Some(self.agreed_age(shared));
        next
    }

    /// Remembers the shorter age: settings that say more later do not keep for longer what was saved under these.
    pub(crate) fn note_age(&self) -> Result<(), HomeError> {
        let mut shared = self.lock();
        let age = self.agreed_age(&shared);
        self.keep_age(&mut shared, age)
    }

    /// Somebody agreed to the age that is set now.
    pub(crate) fn agree_to_age(&self) -> Result<(), HomeError> {
        self.keep_age(&mut self.lock(), self.options.limits.age.as_secs())
    }

    fn keep_age(&self, shared: &mut Shared, age: u64) -> Result<(), HomeError> {
        if shared.corrections.len() == 0 || shared.state.further.agreed_age == Some(age) {
            return Ok(());
        }
        // The rest stays as it is on the disk: it may be what a program before this one wrote.
        let further = Further { agreed_age: Some(age), ..shared.state.further.clone() };
        further.save(&self.vault)?;
        shared.state.further = further;
        Ok(())
    }

    /// Corrections past their age, since when the wall clock has called which of them too old, and the dates that stand for theirs. The week
    /// that it takes to believe the clock lies within the age.
    fn expired(&self, shared: &Shared, lived: u64) -> (Vec<u64>, Overdue, Further) {
        let wall = self.edges.clock.now();
        let age = self.agreed_age(shared);
        let date_age = age.saturating_sub(GRACE.as_secs());
        let (mut overdue, mut further) =
            (shared.state.overdue.clone(), shared.state.further.clone());
        further.seen.retain(|number, _| shared.corrections.contains(*number));
        let mut expired = Vec::new();
        for entry in shared.corrections.list() {
            // A clock that is not set yet says nothing either way: the time lived alone counts.
            let is_set = wall >= EARLIEST_DATE;
            let date = if is_set { date_of(&entry, &mut further.seen, wall, lived) } else { None };
            if date.is_some_and(|date| wall.0.saturating_sub(date) >= date_age) {
                overdue.lived.entry(entry.number).or_insert(lived);
                overdue.wall.entry(entry.number).or_insert(wall.0);
            } else if is_set {
                overdue.forget(entry.number);
            }
            let confirmed = overdue.is_confirmed(entry.number, lived, wall.0);
            if confirmed || lived.saturating_sub(entry.lived) > age {
                expired.push(entry.number);
            }
        }
        (expired, overdue, further)
    }
}
