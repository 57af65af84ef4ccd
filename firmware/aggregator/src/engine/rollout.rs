//! How a version goes from stage to stage, by what devices say of it and by the time in which they can hear of it.

use proto::model::rollout_place;
use proto::status::JobFault;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::rounds::end_outdated;
use super::{Engine, EngineError, Result};
use crate::audit::Event;
use crate::records::{Device, Model, Rollout, Round, Standing};
use crate::rollout_rules::{Change, Situation, decide, is_due};
use crate::round_steps::put_off;
use crate::store::{Decision, StoreError};

/// A device's word about a model version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its trial ended without a fault; whether the household keeps it in use stays in the house.
    Installed,
    /// It was refused or taken back.
    Failed(JobFault),
}

/// A device that a version failed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its name.
    pub device: String,
    /// How; `None` in what was reported before 2026-11-30.
    pub fault: Option<JobFault>,
}

/// Until when the fleet could hear, seconds since 1970, as far as [`Engine::advance`] has noted it.
const HEARD: &str = "heard";

/// Seconds between two such notes.
const HEARD_SECONDS: u64 = 60;

/// Seconds without one from which on they are a silence.
const SILENCE_SECONDS: u64 = 2 * HEARD_SECONDS;

const INSTALLED: u8 = 1;

impl Report {
    /// As the database has it. 2 is a failure whose fault was not noted, as before 2026-11-30.
    fn code(self) -> u8 {
        match self {
            Report::Installed => INSTALLED,
            Report::Failed(JobFault::Content) => 3,
            Report::Failed(JobFault::Base) => 4,
            Report::Failed(JobFault::Unusable) => 5,
            Report::Failed(JobFault::PublicCheck) => 6,
            Report::Failed(JobFault::Storage) => 7,
        }
    }
}

/// The fault that such a code stands for, where it was noted.
fn fault_of(code: u8) -> Option<JobFault> {
    match code {
        3 => Some(JobFault::Content),
        4 => Some(JobFault::Base),
        5 => Some(JobFault::Unusable),
        6 => Some(JobFault::PublicCheck),
        7 => Some(JobFault::Storage),
        _ => None,
    }
}

impl Engine {
    /// Notes what a device says about a version, and stops its roll-out if that follows.
    ///
    /// A device counts once for each version, by the last thing it said. Only an enrolled one is
    /// heard, and only once the roll-out has reached it.
    ///
    /// # Errors
    /// [`EngineError::NoModel`], [`EngineError::NoDevice`], or of the database.
    pub fn report(&self, device: &str, version: u64, report: Report) -> Result<()> {
        let known = self.store.device(device)?.filter(|known| known.standing == Standing::Enrolled);
        let known = known.ok_or_else(|| EngineError::NoDevice(device.to_owned()))?;
        let model = self.store.model(version)?.ok_or(EngineError::NoModel(version))?;
        // Devices say the same at every connection and with every stage; only what is new is worth
        // a commit.
        let is_known = self.store.reported(version, device)? == Some(report.code());
        if is_known || !self.has_reached(&model, &known)? {
            return Ok(());
        }
        let mut changed = None;
        self.decide(|decision| {
            let Some(mut model) = decision.model(version)? else { return Ok(()) };
            let before = decision.put_report(version, device, report.code())?;
            let mut count = |code: u8, change: fn(u64) -> u64| match code {
                INSTALLED => model.installed = change(model.installed),
                _ => model.failed = change(model.failed),
            };
            before.into_iter().for_each(|code| count(code, |number| number.saturating_sub(1)));
            count(report.code(), |number| number + 1);
            decision.put_model(&model)?;
            changed = Some(model);
            Ok(())
        })?;
        // It may stop it; whether it goes on is for [`Engine::advance`], which knows who can hear.
        self.step_rollout(&changed.ok_or(EngineError::NoModel(version))?, false)
    }

    /// Whether a device has a version by its roll-out, and not because somebody at home wanted it
    /// early.
    fn has_reached(&self, model: &Model, device: &Device) -> Result<bool> {
        let Rollout::Running { stage, .. } = model.rollout else { return Ok(true) };
        let rules = &self.rules.rollout;
        let groups = rules.groups(stage);
        let is_in = device.group.as_deref().is_some_and(|group| groups.contains(&group));
        let place = rollout_place(&device.name.parse()?, model.version);
        Ok(is_in || place < rules.permille(stage))
    }

    /// Stops or widens a roll-out, if that is due. A stop also ends the round that started from the version. Nothing widens
    /// while nobody can hear of it, nor that of a version in whose place a newer one is announced.
    pub(super) fn step_rollout(&self, model: &Model, heard: bool) -> Result<()> {
        if !matches!(model.rollout, Rollout::Running { .. }) {
            return Ok(());
        }
        let (rules, situation) = (&self.rules.rollout, self.situation(model, heard)?);
        if matches!(decide(model, rules, situation), Change::None | Change::Hold) {
            return Ok(());
        }
        self.change_rollout(model.version, |model| decide(model, rules, situation))
    }

    /// Does with a version what is decided of it as it stands now: reports and operators change it at any time.
    fn change_rollout(&self, version: u64, decided: impl Fn(&Model) -> Change) -> Result<()> {
        self.decide(|decision| {
            let Some(mut model) = decision.model(version)? else { return Ok(()) };
            let change = decided(&model);
            let Some(event) = self.turn_rollout(&mut model, change) else { return Ok(()) };
            decision.put_model(&model)?;
            decision.record(&event)?;
            end_outdated(decision)
        })
    }

    fn turn_rollout(&self, model: &mut Model, change: Change) -> Option<Event> {
        let Rollout::Running { stage, .. } = model.rollout else { return None };
        model.rollout = match change {
            Change::None | Change::Hold => return None,
            Change::Advance => Rollout::Running { stage: stage + 1, since: self.now() },
            Change::Complete => Rollout::Complete,
            Change::Stop(reason) => {
                model.rollout = Rollout::Stopped { reason: reason.clone(), was_over: false };
                return Some(Event::RolloutStopped { version: model.version, reason });
            }
        };
        Some(self.published(model))
    }

    /// Refuses stages by which the version on its way would reach more devices at once than it was announced to: the database
    /// knows a stage by its place in the list alone. A superseded version that they would bring to everybody is stopped. Groups are
    /// not compared.
    ///
    /// # Errors
    /// [`EngineError::StagesChanged`], or of the database.
    pub fn check_stages(&self) -> Result<()> {
        let announced = self.announced()?.map_or(0, |newest| newest.version);
        let goes_on = |model: &Model| model.version == announced || self.is_for_all(model);
        let is_running = |model: &Model| matches!(model.rollout, Rollout::Running { .. });
        // The announced one first: where it is refused, nothing is changed.
        for model in self.store.models()?.into_iter().rev().filter(is_running).filter(goes_on) {
            let (version, now) = (model.version, self.permille(&model));
            let Some(said) = self.said(version)?.filter(|said| *said < now) else { continue };
            if version == announced {
                return Err(EngineError::StagesChanged { version, said, now });
            }
            let reason = "the list of stages was changed";
            warn!("version {version}, which was superseded, is stopped: {reason}");
            self.change_rollout(version, |_| Change::Stop(reason.to_owned()))?;
        }
        Ok(())
    }

    /// To how many of a thousand devices a version was announced last, by the log.
    fn said(&self, version: u64) -> Result<Option<u16>> {
        Ok(self.store.newest_event(|event| match event {
            Event::ModelPublished { version: of, permille } if of == version => Some(permille),
            _ => None,
        })?)
    }

    fn situation(&self, model: &Model, heard: bool) -> Result<Situation> {
        let (now, goes_on) = (self.now(), heard && !self.is_superseded(model)?);
        // Devices are looked at only where it matters whether there are any.
        let matters = goes_on && model.installed == 0 && is_due(model, &self.rules.rollout, now);
        let has_reached_any = matters && self.has_reached_any(model)?;
        Ok(Situation { now, goes_on, has_reached_any })
    }

    /// Whether any enrolled device has a version by its roll-out.
    fn has_reached_any(&self, model: &Model) -> Result<bool> {
        let has_it = |device: &Device| {
            // A name that is no device name cannot have been enrolled.
            device.standing == Standing::Enrolled
                && self.has_reached(model, device).unwrap_or(false)
        };
        Ok(self.store.any_device(has_it)?)
    }

    /// The announced version, if its stage is over by its time and waits for a first device to say that it works.
    pub(super) fn silent(&self) -> Result<Option<u64>> {
        let Some(model) = self.announced()? else { return Ok(None) };
        Ok(self.is_silent(&model)?.then_some(model.version))
    }

    pub(super) fn is_silent(&self, model: &Model) -> Result<bool> {
        let situation = self.situation(model, true)?;
        Ok(decide(model, &self.rules.rollout, situation) == Change::Hold)
    }

    /// Whether a version can reach no more devices since a newer one is announced in its place.
    pub(super) fn is_superseded(&self, model: &Model) -> Result<bool> {
        let announced = self.announced()?.map_or(0, |newest| newest.version);
        Ok(announced > model.version && !self.is_for_all(model))
    }

    /// The devices that a version failed on, in the order of their names.
    ///
    /// # Errors
    /// [`EngineError::NoModel`], or of the database.
    pub fn failures(&self, version: u64) -> Result<Vec<Failure>> {
        self.store.model(version)?.ok_or(EngineError::NoModel(version))?;
        let mut failures = self.store.reports(version)?;
        failures.retain(|(_, code)| *code != INSTALLED);
        let failure = |(device, code)| Failure { device, fault: fault_of(code) };
        Ok(failures.into_iter().map(failure).collect())
    }

    /// Notes from time to time, while a roll-out is under way or a round is open, that the fleet can hear of it, and puts a stage and a
    /// window off by the silence since the note before. A stage that began by a clock that was ahead begins anew.
    pub(super) fn note_heard(&self) -> Result<()> {
        let now = self.now();
        let since = |model: &Model| match model.rollout {
            Rollout::Running { since, .. } => Some(since),
            _ => None,
        };
        let model = self.announced()?.filter(|model| since(model).is_some());
        let round = self.live_round()?.filter(Round::is_open);
        // Where the clock was ahead at the note it is as if there were none, but for a small step back, as of a time server.
        let noted = self.store.number(HEARD)?.filter(|noted| *noted < now + SILENCE_SECONDS);
        let noted = noted.map(|noted| noted.min(now));
        let is_ahead = model.as_ref().and_then(since).is_some_and(|since| since > now);
        let is_noted = noted.is_some_and(|noted| now - noted < HEARD_SECONDS) && !is_ahead;
        if is_noted || (model.is_none() && round.is_none()) {
            return Ok(());
        }
        self.decide(|decision| {
            decision.put_number(HEARD, now)?;
            if let Some(seen) = &model {
                put_off_stage(decision, seen, noted, now)?;
            }
            round.iter().try_for_each(|seen| put_off_window(decision, seen, noted, now))
        })
    }
}

/// To be said where a stage or a window begins at `now`: a note by a clock that is ahead of this one would hide the silence that follows.
pub(super) fn begins(decision: &mut Decision<'_>, now: u64) -> Result<(), StoreError> {
    match decision.number(HEARD)? {
        Some(noted) if noted > now => decision.put_number(HEARD, now),
        _ => Ok(()),
    }
}

/// Puts the stage of a version off by the silence since `noted`. Where nothing was ever noted, all that is past counts.
fn put_off_stage(
    decision: &mut Decision<'_>,
    seen: &Model,
    noted: Option<u64>,
    now: u64,
) -> Result<(), StoreError> {
    let Rollout::Running { stage, since } = seen.rollout else { return Ok(()) };
    let silence = silence(noted.unwrap_or(now).max(since), now);
    let from = if since > now { now } else { since + silence };
    let Some(model) = decision.model(seen.version)? else { return Ok(()) };
    if from == since || model.rollout != seen.rollout {
        return Ok(());
    }
    if since > now {
        warn!("the clock was ahead; the stage of version {} begins anew", seen.version);
    }
    decision.put_model(&Model { rollout: Rollout::Running { stage, since: from }, ..model })
}

/// Puts a round off by the silence since `noted`, or since it was announced.
fn put_off_window(
    decision: &mut Decision<'_>,
    seen: &Round,
    noted: Option<u64>,
    now: u64,
) -> Result<(), StoreError> {
    let silence = silence(noted.unwrap_or(0).max(seen.announced_at), now);
    match decision.round(seen.id)?.filter(Round::is_open) {
        Some(round) if silence > 0 => decision.put_round(&put_off(round, silence)),
        _ => Ok(()),
    }
}

/// Seconds without a note since `last`, as far as they are a silence.
fn silence(last: u64, now: u64) -> u64 {
    Some(now.saturating_sub(last)).filter(|silence| *silence >= SILENCE_SECONDS).unwrap_or(0)
}
