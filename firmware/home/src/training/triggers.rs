//! What asks for a run: somebody, corrections, use, or the night.

use std::sync::atomic::Ordering;

use learn::consent::ImproveMyMirror;
use learn::edges::EdgeError;

use crate::corrections::Corrections;
use crate::edges::{EARLIEST_DATE, Edges};
use crate::hold::hold;
use crate::home::Home;
use crate::options::NightlyWindow;
use crate::state::State;

/// Between two nightly updates, in seconds of the time lived, or by the date where the mirror was on for [`ON_BETWEEN_NIGHTS`] of them: a clock
/// that jumps makes no two nights of one hour.
const BETWEEN_NIGHTS: u64 = 20 * 3_600;

/// On a mirror that is seldom on the date says it, after it was on for so long.
const ON_BETWEEN_NIGHTS: u64 = 3_600;

/// A correction waits for the night for so long at most, in seconds by the date: on a mirror that is off at night every hour will do.
const LONGEST_WAIT: u64 = 36 * 3_600;

/// [`LONGEST_WAIT`] where no date says it, in seconds of the time lived.
const LONGEST_WAIT_ON: u64 = 20 * 3_600;

/// This night's moment within the window, drawn anew after each update.
pub(crate) struct Night {
    jitter: f64,
}

impl Night {
    pub fn draw(edges: &Edges) -> Result<Night, EdgeError> {
        let mut bytes = [0; 4];
        (edges.entropy)().fill(&mut bytes)?;
        Ok(Night { jitter: f64::from(u32::from_le_bytes(bytes)) / 2_f64.powi(32) })
    }
}

impl Home {
    /// Asks for a run as soon as the gate allows, whatever the triggers say; also after a restart, unless the disk refuses.
    pub fn request_training(&self) {
        let mut shared = self.lock();
        if let Err(error) = self.note_request(&mut shared, true) {
            tracing::warn!(%error, "that a run was asked for is forgotten with the next start");
            shared.state.further.requested = true;
        }
    }

    /// Counts a parsed picture, for the trigger by use. Never waits.
    pub fn count_inference(&self) {
        self.inferences.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a trigger asks for an update now. A trigger asks only where something is new or unfinished.
    pub fn is_due(&self) -> bool {
        if self.token::<ImproveMyMirror>().is_err() {
            return false;
        }
        let triggers = &self.options.triggers;
        let (new, is_wanted, is_night) = {
            let shared = self.lock();
            let State { learnt_up_to, run, further, .. } = &shared.state;
            let new = shared.corrections.count_from(*learnt_up_to);
            let is_night = self.is_night(&shared.state, &shared.corrections);
            (new, run.is_some() || further.requested, is_night)
        };
        if is_wanted {
            return true;
        }
        if new == 0 {
            return false;
        }
        let used = self.inferences.load(Ordering::Relaxed);
        triggers.corrections.is_some_and(|count| new >= count)
            || triggers.inferences.is_some_and(|count| used >= count)
            || is_night
    }

    /// Whether this is the night's moment, or a night was missed, and the last nightly update was long ago.
    pub(super) fn is_night(&self, state: &State, corrections: &Corrections) -> bool {
        let now = self.edges.clock.now().0;
        let on = state.last_nightly.map(|last| self.lived().saturating_sub(last));
        let by_date = state.further.last_nightly_at.map(|last| now.saturating_sub(last));
        let rested = on.is_none_or(|on| {
            let is_another_day = by_date.is_some_and(|passed| passed >= BETWEEN_NIGHTS);
            on >= BETWEEN_NIGHTS || (on >= ON_BETWEEN_NIGHTS && is_another_day)
        });
        let jitter = hold(&self.night).jitter;
        let is_moment = |window: NightlyWindow| {
            window.is_due(now, jitter) || self.is_night_missed(state, corrections)
        };
        rested && self.options.triggers.nightly.is_some_and(is_moment)
    }

    /// Whether the oldest new correction has waited for longer than until the next night.
    fn is_night_missed(&self, state: &State, corrections: &Corrections) -> bool {
        let Some(oldest) = corrections.oldest_from(state.learnt_up_to) else { return false };
        let now = self.edges.clock.now();
        let saved_at = oldest.saved_at.filter(|at| (EARLIEST_DATE..=now).contains(at));
        let lived = self.lived().saturating_sub(oldest.lived);
        saved_at.map_or(lived >= LONGEST_WAIT_ON, |at| now.0 - at.0 >= LONGEST_WAIT)
    }
}
