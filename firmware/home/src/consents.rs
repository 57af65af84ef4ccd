//! Consent as the page shows it, and what a withdrawal does.

use std::sync::MutexGuard;

use learn::consent::{
    ConsentError, ConsentRecord, ConsentToken, ContributeToFleet, Purpose, PurposeKind,
};
use learn::ledger::RecordKind;
use serde::Serialize;

use crate::error::HomeError;
use crate::explanation::Explanation;
use crate::hold::hold;
use crate::household::Household;

const TRAINING_STOPPED: &str = "Training has stopped. Your corrections and your mirror's head stay on this device until \
                                you delete them.";

const STAYS_SPENT: &str = " What was spent of the privacy budget stays spent.";

/// Where a consent stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "record")]
pub enum ConsentState {
    /// Never given, or taken back.
    Absent,
    /// Taken back, which the storage refused to note: the mirror's next start would find it given.
    Unstored,
    /// Given to other words or another budget than those in force; it counts as not given until asked again.
    Outdated(ConsentRecord),
    /// In force.
    Given(ConsentRecord),
}

/// Whether updates of a household may leave its mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contribution {
    /// The mirror belongs to no fleet, whatever was agreed to.
    NoFleet,
    /// Nobody agreed, or to other words.
    Off,
    /// Somebody agreed, and there is budget for an update.
    On,
    /// Somebody agreed, and no update can be made any more: the budget is spent, or releases are stopped.
    Spent,
}

/// What a withdrawal did, and what it could not undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Withdrawal {
    /// The purpose.
    pub purpose: PurposeKind,
    /// Updates that were waiting for the network and are destroyed.
    pub discarded: u64,
    /// Updates that had been sent before and cannot be called back; `None` where the ledger is damaged and cannot tell.
    pub already_sent: Option<u64>,
    /// Updates that had been given up before; whether one of them had reached the fleet nobody here knows.
    pub given_up: Option<u64>,
    /// What the withdrawal did and could not undo, for people.
    pub message: String,
}

impl Household {
    /// The words that are agreed to, with the figures in force.
    pub fn explanation(&self) -> &Explanation {
        &self.explanation
    }

    /// Where the consent to a purpose stands.
    pub fn consent(&self, purpose: PurposeKind) -> ConsentState {
        match self.consents.record(purpose) {
            None if self.consents.is_unstored(purpose) => ConsentState::Unstored,
            None => ConsentState::Absent,
            Some(record) if record.text_version == self.explanation.version(purpose) => {
                ConsentState::Given(record)
            }
            Some(record) => ConsentState::Outdated(record),
        }
    }

    /// Records that somebody agreed after reading the explanation of this version. What an earlier withdrawal could not
    /// destroy is destroyed first.
    ///
    /// # Errors
    /// [`ConsentError::Outdated`] where the words have changed since they were shown, [`HomeError::NoFleet`] where there is
    /// none to contribute to, or of the stores.
    pub fn grant(&self, purpose: PurposeKind, version: u32) -> Result<ConsentRecord, HomeError> {
        if self.consents.record(purpose).is_none() {
            self.destroy(purpose)?;
        }
        if purpose == PurposeKind::ContributeToFleet && !self.options.member {
            return Err(HomeError::NoFleet);
        }
        let record = self.consents.grant(purpose, version)?;
        if purpose == PurposeKind::ImproveMyMirror
            && let Err(error) = self.agree_to_age()
        {
            // They go at the age that was agreed to before.
            tracing::warn!(%error, "the age of corrections");
        }
        Ok(record)
    }

    /// Whether updates of this household may leave, and why not.
    pub fn contribution(&self) -> Contribution {
        if !self.options.member {
            return Contribution::NoFleet;
        }
        if self.token::<ContributeToFleet>().is_err() {
            return Contribution::Off;
        }
        let fits = || self.privacy().is_ok_and(|privacy| privacy.ledger.releases_left > 0);
        if self.stopped.is_none() && fits() { Contribution::On } else { Contribution::Spent }
    }

    /// A token for a purpose, for as long as its record is current.
    ///
    /// # Errors
    /// [`ConsentError::Missing`] or [`ConsentError::Outdated`].
    pub fn token<P: Purpose>(&self) -> Result<ConsentToken<P>, ConsentError> {
        self.consents.token()
    }

    /// Takes consent back. When this returns, nothing waits to be sent, no number of an unreleased run is stored, and, where training is
    /// withdrawn, no step of it is taken any more.
    ///
    /// # Errors
    /// Of the stores, [`ConsentError::Unstored`] first. Every token is dead even then; calling again finishes the rest, and
    /// [`Household::tidy`] tries again to store what holds in memory alone.
    pub fn withdraw(&self, purpose: PurposeKind) -> Result<Withdrawal, HomeError> {
        let recorded = self.consents.withdraw(purpose);
        let already_sent = self.count_releases(RecordKind::Published);
        let given_up = self.count_releases(RecordKind::Burnt);
        let discarded = self.destroy(purpose);
        // Only now: what one store refuses does not keep the others from forgetting.
        recorded?;
        let discarded = discarded?;
        let message = match purpose {
            PurposeKind::ImproveMyMirror => training_stopped(discarded),
            PurposeKind::ContributeToFleet => {
                contributing_stopped(discarded, already_sent, given_up)
            }
        };
        Ok(Withdrawal { purpose, discarded, already_sent, given_up, message })
    }

    /// What was switched off and would be on again after the next start, for the page and the glass; `None` where nothing is.
    pub fn unstored_withdrawal(&self) -> Option<String> {
        let is_unstored = |purpose: &PurposeKind| self.consents.is_unstored(*purpose);
        let titles: Vec<&str> =
            PurposeKind::ALL.into_iter().filter(is_unstored).map(PurposeKind::title).collect();
        (!titles.is_empty()).then(|| {
            format!(
                "“{}” was switched off, and this holds until the mirror's next start only; the disk cannot be written: \
                 make the data folder writable, or free some room",
                titles.join("” and “")
            )
        })
    }

    /// What was agreed to in other words than those in force, and is off until somebody agrees again, for the glass and the journal; `None` where
    /// nothing is.
    pub fn changed_words(&self) -> Option<String> {
        let is_asked = |purpose: &PurposeKind| {
            let can_be_given = *purpose != PurposeKind::ContributeToFleet || self.options.member;
            can_be_given && matches!(self.consent(*purpose), ConsentState::Outdated(_))
        };
        let titles: Vec<&str> =
            PurposeKind::ALL.into_iter().filter(is_asked).map(PurposeKind::title).collect();
        (!titles.is_empty()).then(|| {
            let (text, them, they) = match titles.len() {
                1 => ("text", "has changed since somebody agreed to it", "it is"),
                _ => ("texts", "have changed since somebody agreed to them", "they are"),
            };
            format!(
                "the {text} of “{}” {them}; {they} off until somebody agrees again on the mirror's page",
                titles.join("” and “")
            )
        })
    }

    /// Tries again to store a withdrawal that the storage refused, and destroys what it could not destroy then.
    pub(crate) fn store_withdrawals(&self) -> Result<(), HomeError> {
        let stored = self.consents.store_withdrawals();
        for purpose in stored.iter().flatten() {
            tracing::info!(
                "\"{}\" stays off from now on: the disk can be written again",
                purpose.title()
            );
            self.undestroyed().push(*purpose);
        }
        let rest = self.undestroyed().clone();
        // Unless somebody has agreed anew meanwhile. One that cannot be destroyed keeps no other.
        let withdrawn = rest.into_iter().filter(|purpose| self.consents.record(*purpose).is_none());
        let destroyed: Vec<_> = withdrawn.map(|purpose| self.destroy(purpose)).collect();
        stored?;
        destroyed.into_iter().try_for_each(|destroyed| destroyed.map(drop))
    }

    /// What must not be there without consent, to train or to contribute: the numbers of a run, and the updates that wait, whose number
    /// is given. What fails is tried again by [`Household::tidy`].
    fn destroy(&self, purpose: PurposeKind) -> Result<u64, HomeError> {
        // The run first: whoever still may contribute could release it.
        let forgotten = self.forget_run(purpose);
        let destroyed = self.discard_waiting();
        let destroyed = forgotten.and(destroyed);
        let mut rest = self.undestroyed();
        rest.retain(|other| *other != purpose);
        if destroyed.is_err() {
            rest.push(purpose);
        }
        destroyed
    }

    fn undestroyed(&self) -> MutexGuard<'_, Vec<PurposeKind>> {
        hold(&self.undestroyed)
    }

    /// A power cut or a bad disk may have come between the record of a withdrawal and what it destroys, and what was agreed to
    /// in other words allows no run any more. Gives what a person should know.
    pub(crate) fn finish_withdrawals(&self) -> Option<String> {
        let finish = |purpose| match self.consent(purpose) {
            ConsentState::Absent | ConsentState::Unstored => self.destroy(purpose).map(drop),
            ConsentState::Outdated(_) => self.forget_run(purpose),
            ConsentState::Given(_) => Ok(()),
        };
        let results = PurposeKind::ALL.map(finish);
        let error = results.into_iter().find_map(Result::err)?;
        Some(format!(
            "something of a run that nobody agrees to any more is still stored ({error}); the next start tries again"
        ))
    }
}

/// What stopping did to training, and to what was learnt by it.
fn training_stopped(discarded: u64) -> String {
    let mut message = TRAINING_STOPPED.to_owned();
    if discarded > 0 {
        message += &destroyed(discarded);
        message += STAYS_SPENT;
    }
    message
}

/// What stopping did to the updates. Whether one that waited had reached the fleet, only the fleet's receipt would say.
fn contributing_stopped(discarded: u64, sent: Option<u64>, given_up: Option<u64>) -> String {
    let mut message = "Contributing has stopped.".to_owned();
    if (discarded, sent, given_up) == (0, Some(0), Some(0)) {
        message += " Nothing had been sent from this device.";
    }
    if discarded > 0 {
        message += &destroyed(discarded);
    }
    match sent {
        None => message += " What was sent before cannot be told: the ledger is damaged.",
        Some(0) => {}
        Some(sent) => {
            message += &format!(" {} had been sent and cannot be called back.", updates(sent));
        }
    }
    if let Some(given_up @ 1..) = given_up {
        let were = if given_up == 1 { "was" } else { "were" };
        message += &format!(
            " {} {were} given up earlier; whether the fleet had any of that by then cannot be told.",
            updates(given_up)
        );
    }
    if discarded > 0 || sent != Some(0) || given_up != Some(0) {
        message += STAYS_SPENT;
    }
    message
}

fn destroyed(discarded: u64) -> String {
    let are = if discarded == 1 { "is" } else { "are" };
    format!(
        " {} that waited {are} destroyed here; what was on its way to the fleet already cannot be called back.",
        updates(discarded)
    )
}

fn updates(count: u64) -> String {
    if count == 1 { "1 noised update".to_owned() } else { format!("{count} noised updates") }
}
