//! What has to be remembered between starts: one small sealed file, replaced as a whole.

use std::collections::BTreeMap;

use learn::edges::EdgeError;
use serde::{Deserialize, Serialize};

use crate::heads::{HeadInfo, KEPT_HEADS};
use crate::training::{RunPlan, RunReport};
use crate::vault::Vault;

pub(crate) const STATE_NAME: &str = "state";

/// What could not be opened at a start, sealed as it was: without a credential that is there next time, or by an older
/// firmware that did not know all of it.
const STATE_BEFORE: &str = "state-before";

const FORMAT: u32 = 1;

/// Sealed like everything else: how often a household corrects is its own business.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct State {
    pub format: u32,
    /// Number of the next correction; never used twice.
    pub next_correction: u64,
    /// Number of the next head; never used twice.
    pub next_head: u64,
    /// Corrections from this number on are new: saved since the last finished run began.
    pub learnt_up_to: u64,
    /// Seconds that the mirror was on, since the store was made.
    pub lived: u64,
    /// `lived` when the last nightly update began.
    pub last_nightly: Option<u64>,
    /// The wall clock's time then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_nightly_at: Option<u64>,
    /// The household's heads, oldest first; the last one is in use.
    pub heads: Vec<HeadInfo>,
    /// The run under way.
    pub run: Option<RunPlan>,
    /// The last run that ended.
    pub report: Option<RunReport>,
    /// Milliseconds that one example took lately, forward, backward and trunk.
    pub example_milliseconds: Option<f64>,
    /// Set while a model of the fleet is new here: corrections from this number on, saved since, judge it once more.
    pub second_look: Option<u64>,
    /// `lived` from which on the wall clock has said, without a break, that a correction is too old.
    pub overdue: BTreeMap<u64, u64>,
    /// The wall clock's time from which on it has said so.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overdue_wall: BTreeMap<u64, u64>,
    /// What was kept before could not be read: heads that this list does not name may be the household's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub list_lost: bool,
    /// Heads from this number on were all made since then, so that the list knows them; `None` where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads_since: Option<u64>,
    /// `lived` as it began then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lived_since: Option<u64>,
    /// Corrections that were saved meanwhile, after what was kept before could be read again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meanwhile: Vec<Meanwhile>,
    /// Seconds for which somebody agreed that corrections are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreed_age: Option<u64>,
}

/// Corrections whose time lived was counted from a later moment than that of all others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meanwhile {
    /// The first number, and the one behind the last.
    pub numbers: [u64; 2],
    /// Seconds lived until that moment.
    pub later: u64,
}

impl State {
    pub fn load(vault: &Vault) -> Result<State, EdgeError> {
        let Some(plain) = vault.get(STATE_NAME)? else { return Ok(State::default()) };
        State::parse(&plain)
    }

    fn parse(plain: &[u8]) -> Result<State, EdgeError> {
        let damaged = |reason: String| EdgeError::Seal(format!("{STATE_NAME}: {reason}"));
        let state: State =
            serde_json::from_slice(plain).map_err(|error| damaged(error.to_string()))?;
        if state.format != FORMAT {
            return Err(damaged(format!("format {} is unknown", state.format)));
        }
        Ok(state)
    }

    /// Keeps what could not be opened, so that a later start may open it.
    pub fn set_aside(vault: &Vault) -> Result<(), EdgeError> {
        vault.set_aside(STATE_NAME, STATE_BEFORE)
    }

    /// What was kept so at an earlier start, where it opens now.
    pub fn load_aside(vault: &Vault) -> Option<State> {
        let plain = vault.get_aside(STATE_NAME, STATE_BEFORE).ok().flatten()?;
        State::parse(&plain).ok()
    }

    /// It is not needed any more.
    pub fn remove_aside(vault: &Vault) -> Result<(), EdgeError> {
        vault.remove(STATE_BEFORE)
    }

    /// With what came since this one could not be opened.
    pub fn joined(self, since: State) -> State {
        let mut heads = self.heads;
        heads.extend(since.heads);
        heads.sort_by_key(|head| head.number);
        heads.dedup_by_key(|head| head.number);
        heads.drain(..heads.len().saturating_sub(KEPT_HEADS));
        // Both clocks ran on, one after the other.
        let later = self.lived.saturating_sub(since.lived_since.unwrap_or(0));
        let numbers = [self.next_correction, since.next_correction];
        let mut meanwhile = self.meanwhile;
        if numbers[0] < numbers[1] {
            meanwhile.push(Meanwhile { numbers, later });
        }
        State {
            heads,
            next_correction: self.next_correction.max(since.next_correction),
            next_head: self.next_head.max(since.next_head),
            learnt_up_to: self.learnt_up_to.max(since.learnt_up_to),
            lived: since.lived.saturating_add(later).max(self.lived),
            meanwhile,
            agreed_age: self.agreed_age.into_iter().chain(since.agreed_age).min(),
            heads_since: since.heads_since,
            run: None,
            ..self
        }
    }

    pub fn save(&self, vault: &Vault) -> Result<(), EdgeError> {
        let state = State { format: FORMAT, ..self.clone() };
        let text =
            serde_json::to_vec(&state).map_err(|error| EdgeError::Seal(error.to_string()))?;
        vault.put(STATE_NAME, &text).map(|_| ())
    }
}
