//! What has to be remembered between starts: a small sealed file, replaced as a whole, and a second one beside it for what
//! programs before this one do not know.

use std::collections::BTreeMap;

use learn::edges::EdgeError;
use serde::{Deserialize, Serialize};

use crate::heads::{HeadInfo, KEPT_HEADS};
use crate::retention::{Overdue, Seen};
use crate::training::{RunPlan, RunReport};
use crate::vault::Vault;

pub(crate) const STATE_NAME: &str = "state";

/// What could not be opened at a start, sealed as it was: without a credential that is there next time, or by an older
/// firmware that did not know all of it.
const STATE_BEFORE: &str = "state-before";

/// See [`Further`].
const FURTHER_NAME: &str = "state-further";

/// What of [`FURTHER_NAME`] could not be opened at a start, sealed as it was.
const FURTHER_BEFORE: &str = "state-further-before";

const FORMAT: u32 = 1;

/// Sealed like everything else: how often a household corrects is its own business. The names and dates of the sealed files tell
/// that all the same to whoever holds the disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
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
    /// The household's heads, oldest first; the last one is in use.
    pub heads: Vec<HeadInfo>,
    /// Heads of another network than the one in use, oldest first, which fit nothing here: those of before an update that may be taken
    /// back. On the disk they lie in one list with the others; [`crate::Home`] tells them apart.
    pub others: Vec<HeadInfo>,
    /// The run under way.
    pub run: Option<RunPlan>,
    /// The last run that ended.
    pub report: Option<RunReport>,
    /// Milliseconds that one example took lately, forward, backward and trunk.
    pub example_milliseconds: Option<f64>,
    /// Set while a model of the fleet is new here: corrections from this number on, saved since, judge it once more.
    pub second_look: Option<u64>,
    /// Since when the wall clock calls which corrections too old.
    pub overdue: Overdue,
    /// Set where what was kept before could not be read: heads that this list does not name may be the household's.
    pub lost: Option<Lost>,
    /// Corrections that were saved meanwhile, after what was kept before could be read again.
    pub meanwhile: Vec<Meanwhile>,
    /// Lies in a file of its own.
    pub further: Further,
}

/// Since when a state knows everything. Each is `None` where nobody knows: programs before this one did not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Lost {
    /// Heads from this number on were all made since then, so that the list knows them.
    pub heads_since: Option<u64>,
    /// `lived` as it began then.
    pub lived_since: Option<u64>,
    /// Number of the first correction that was saved since then.
    pub corrections_since: Option<u64>,
}

/// A [`State`] as it lies on the disk. What a program before this one does not know is written only where it says something: one word of it
/// keeps that program from reading all the rest.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StateFile {
    format: u32,
    next_correction: u64,
    next_head: u64,
    learnt_up_to: u64,
    lived: u64,
    last_nightly: Option<u64>,
    /// Of programs without [`Further`].
    #[serde(skip_serializing)]
    last_nightly_at: Option<u64>,
    heads: Vec<HeadInfo>,
    run: Option<RunPlan>,
    report: Option<RunReport>,
    example_milliseconds: Option<f64>,
    second_look: Option<u64>,
    overdue: BTreeMap<u64, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    overdue_wall: BTreeMap<u64, u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    list_lost: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    heads_since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lived_since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corrections_since: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    meanwhile: Vec<Meanwhile>,
    /// Of programs without [`Further`].
    #[serde(skip_serializing)]
    agreed_age: Option<u64>,
}

impl From<State> for StateFile {
    fn from(state: State) -> StateFile {
        let Lost { heads_since, lived_since, corrections_since } = state.lost.unwrap_or_default();
        StateFile {
            format: FORMAT,
            next_correction: state.next_correction,
            next_head: state.next_head,
            learnt_up_to: state.learnt_up_to,
            lived: state.lived,
            last_nightly: state.last_nightly,
            heads: [state.others, state.heads].concat(),
            run: state.run,
            report: state.report,
            example_milliseconds: state.example_milliseconds,
            second_look: state.second_look,
            overdue: state.overdue.lived,
            overdue_wall: state.overdue.wall,
            list_lost: state.lost.is_some(),
            heads_since,
            lived_since,
            corrections_since,
            meanwhile: state.meanwhile,
            last_nightly_at: None,
            agreed_age: None,
        }
    }
}

impl From<StateFile> for State {
    fn from(file: StateFile) -> State {
        let StateFile { heads_since, lived_since, corrections_since, .. } = file;
        let StateFile { last_nightly_at, agreed_age, .. } = file;
        State {
            next_correction: file.next_correction,
            next_head: file.next_head,
            learnt_up_to: file.learnt_up_to,
            lived: file.lived,
            last_nightly: file.last_nightly,
            heads: file.heads,
            others: Vec::new(),
            run: file.run,
            report: file.report,
            example_milliseconds: file.example_milliseconds,
            second_look: file.second_look,
            overdue: Overdue { lived: file.overdue, wall: file.overdue_wall },
            lost: file.list_lost.then_some(Lost { heads_since, lived_since, corrections_since }),
            meanwhile: file.meanwhile,
            further: Further { last_nightly_at, agreed_age, ..Further::default() },
        }
    }
}

/// What is written in ordinary use, and would keep a program that does not know it from reading the rest: after an update
/// that is taken back the household's heads are still in use. That program leaves this file as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Further {
    /// The wall clock's time when the last nightly update began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_nightly_at: Option<u64>,
    /// Seconds for which somebody agreed that corrections are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreed_age: Option<u64>,
    /// Somebody, or a round, asked for a run, and none has begun since.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub requested: bool,
    /// The network that [`State::learnt_up_to`] counts for, by the first eight bytes of its digest; `None` where there was only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<u64>,
    /// Dates in the place of those that no clock, or one that was ahead, gave to corrections, by their numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub seen: BTreeMap<u64, Seen>,
}

impl Further {
    /// `None` where it cannot be opened: it is set aside then, and counts again at a start at which it can.
    pub fn load(vault: &Vault) -> Result<Option<Further>, EdgeError> {
        let further = Further::read(vault).ok();
        let before = vault.get_aside(FURTHER_NAME, FURTHER_BEFORE).ok().flatten();
        let Some(before) = before.and_then(|plain| serde_json::from_slice(&plain).ok()) else {
            if further.is_none() {
                vault.set_aside(FURTHER_NAME, FURTHER_BEFORE)?;
            }
            return Ok(further);
        };
        let further = further.unwrap_or_default().joined(before);
        further.save(vault)?;
        vault.remove(FURTHER_BEFORE)?;
        Ok(Some(further))
    }

    fn read(vault: &Vault) -> Result<Further, EdgeError> {
        let Some(plain) = vault.get(FURTHER_NAME)? else { return Ok(Further::default()) };
        serde_json::from_slice(&plain)
            .map_err(|error| EdgeError::Seal(format!("{FURTHER_NAME}: {error}")))
    }

    /// Of two that were kept one after the other.
    fn joined(self, before: Further) -> Further {
        Further {
            last_nightly_at: self.last_nightly_at.max(before.last_nightly_at),
            agreed_age: self.agreed_age.into_iter().chain(before.agreed_age).min(),
            requested: self.requested || before.requested,
            network: self.network.or(before.network),
            seen: before.seen.into_iter().chain(self.seen).collect(),
        }
    }

    /// Writes it where it is not what the disk has.
    pub fn save(&self, vault: &Vault) -> Result<(), EdgeError> {
        if Further::read(vault).is_ok_and(|stored| stored == *self) {
            return Ok(());
        }
        let text = serde_json::to_vec(self).map_err(|error| EdgeError::Seal(error.to_string()))?;
        vault.put(FURTHER_NAME, &text)
    }
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
        let file: StateFile =
            serde_json::from_slice(plain).map_err(|error| damaged(error.to_string()))?;
        if file.format != FORMAT {
            return Err(damaged(format!("format {} is unknown", file.format)));
        }
        Ok(file.into())
    }

    /// Keeps what could not be opened, so that a later start may open it.
    pub fn set_aside(vault: &Vault) -> Result<(), EdgeError> {
        vault.set_aside(STATE_NAME, STATE_BEFORE)
    }

    /// What [`State::set_aside`] kept at an earlier start, where it opens now.
    pub fn load_aside(vault: &Vault) -> Option<State> {
        let plain = vault.get_aside(STATE_NAME, STATE_BEFORE).ok().flatten()?;
        State::parse(&plain).ok()
    }

    /// Removes what was kept so at an earlier start, once it is not needed any more.
    pub fn remove_aside(vault: &Vault) -> Result<(), EdgeError> {
        vault.remove(STATE_BEFORE)
    }

    /// With what its own file says, and the rest as a program without such a file has left it.
    pub fn completed_by(self, further: Further) -> State {
        let last_nightly_at = further.last_nightly_at.or(self.further.last_nightly_at);
        let agreed_age = further.agreed_age.or(self.further.agreed_age);
        State { further: Further { last_nightly_at, agreed_age, ..further }, ..self }
    }

    /// With what came since this one could not be opened. Where the copy of this one stays and `is_lost` says that it may be
    /// joined once more, that changes nothing.
    pub fn joined(self, since: State, is_lost: bool) -> State {
        let mut heads = self.heads;
        heads.extend(since.heads);
        heads.sort_by_key(|head| head.number);
        heads.dedup_by_key(|head| head.number);
        // Those of another network are among them.
        heads.drain(..heads.len().saturating_sub(2 * KEPT_HEADS));
        // Both clocks ran on, one after the other.
        let Lost { heads_since, lived_since, corrections_since } = since.lost.unwrap_or_default();
        let later = self.lived.saturating_sub(lived_since.unwrap_or(0));
        let first = corrections_since.unwrap_or(self.next_correction);
        let numbers = [first, since.next_correction];
        let mut meanwhile = self.meanwhile;
        meanwhile.extend(since.meanwhile);
        meanwhile.sort_by_key(|part| part.numbers);
        meanwhile.dedup();
        if later > 0 && numbers[0] < numbers[1] {
            meanwhile.push(Meanwhile { numbers, later });
        }
        State {
            heads,
            next_correction: self.next_correction.max(since.next_correction),
            next_head: self.next_head.max(since.next_head),
            learnt_up_to: self.learnt_up_to.max(since.learnt_up_to),
            lived: since.lived.saturating_add(later).max(self.lived),
            meanwhile,
            lost: is_lost.then(|| Lost {
                heads_since,
                lived_since: Some(self.lived),
                corrections_since: self.lost.and_then(|lost| lost.corrections_since),
            }),
            further: since.further.joined(self.further),
            run: None,
            ..self
        }
    }

    pub fn save(&self, vault: &Vault) -> Result<(), EdgeError> {
        self.further.save(vault)?;
        let text = serde_json::to_vec(&StateFile::from(self.clone()))
            .map_err(|error| EdgeError::Seal(error.to_string()))?;
        vault.put(STATE_NAME, &text)
    }
}

#[cfg(test)]
mod tests {
    use learn::edges::Timestamp;

    use super::*;

    #[test]
    fn what_came_since_is_joined_once_however_often_it_is_tried() {
        let before = State { lived: 300, next_correction: 5, ..State::default() };
        let since = State {
            lived: 50,
            next_correction: 3,
            lost: Some(Lost {
                heads_since: None,
                lived_since: Some(20),
                // The newest ones had been deleted.
                corrections_since: Some(2),
            }),
            ..State::default()
        };
        let once = before.clone().joined(since, true);
        assert_eq!((once.lived, once.next_correction), (330, 5));
        assert_eq!(once.meanwhile, [Meanwhile { numbers: [2, 3], later: 280 }]);
        // The copy of the one before could not be removed.
        let twice = before.joined(once.clone(), true);
        assert_eq!(twice, once);
    }

    fn head(number: u64) -> HeadInfo {
        HeadInfo {
            number,
            adopted_at: Timestamp(0),
            base: String::new(),
            examples: 1,
            before: 0.0,
            after: 1.0,
            fleet: None,
        }
    }

    #[test]
    fn the_heads_of_two_networks_are_there_when_their_list_is() {
        let kept = KEPT_HEADS as u64;
        let before = State { heads: (0..kept).map(head).collect(), ..State::default() };
        let since = State { heads: (kept..2 * kept).map(head).collect(), ..State::default() };
        let both = before.joined(since, true);
        assert_eq!(both.heads, (0..2 * kept).map(head).collect::<Vec<_>>());
        let since = State { heads: vec![head(2 * kept)], ..State::default() };
        assert_eq!(both.joined(since, true).heads[0], head(1));
    }

    #[test]
    fn the_file_has_the_words_that_programs_before_know() {
        let text = |state: &State| serde_json::to_string(&StateFile::from(state.clone())).unwrap();
        let plain = State { next_correction: 5, lived: 300, ..State::default() };
        let known = r#"{"format":1,"next_correction":5,"next_head":0,"learnt_up_to":0,"lived":300,"last_nightly":null,"heads":[],"#;
        let known = known.to_owned()
            + r#""run":null,"report":null,"example_milliseconds":null,"second_look":null,"overdue":{}"#;
        assert_eq!(text(&plain), format!("{known}}}"));
        let lost = Lost { heads_since: Some(1), lived_since: Some(2), corrections_since: Some(3) };
        let lost = State { lost: Some(lost), ..plain.clone() };
        let words = r#""list_lost":true,"heads_since":1,"lived_since":2,"corrections_since":3"#;
        assert_eq!(text(&lost), format!("{known},{words}}}"));
        // Of a program that knew neither the numbers nor a second file.
        let older = r#","list_lost":true,"last_nightly_at":7,"agreed_age":8}"#;
        let further =
            Further { last_nightly_at: Some(7), agreed_age: Some(8), ..Further::default() };
        let read = State::parse(format!("{known}{older}").as_bytes()).unwrap();
        assert_eq!(read, State { lost: Some(Lost::default()), further, ..plain });
        assert_eq!(State::parse(text(&lost).as_bytes()).unwrap(), lost);
        // Heads of another network are in the one list that programs know.
        let [others, heads] = [3, 4].map(|number| vec![head(number)]);
        let both = State { others: others.clone(), heads: heads.clone(), ..State::default() };
        let read = State::parse(text(&both).as_bytes()).unwrap();
        assert_eq!(read.heads, [others, heads].concat());
    }
}
