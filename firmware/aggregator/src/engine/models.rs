//! Model versions: where they come from, which is announced, and from which rounds start.

use learn::edges::Digest;
use learn::head::Subset;

use super::rollout::begins;
use super::rounds::end_outdated;
use super::{Engine, EngineError, Result};
use crate::arithmetic::bytes_of;
use crate::audit::Event;
use crate::records::{Model, Rollout};
use crate::store::{Decision, StoreError};

impl Engine {
    /// The model that the mirrors ship with, everywhere from the start: version 1, in a database that has no model yet.
    ///
    /// # Errors
    /// Of the database.
    pub fn ship(&self, origin: &str) -> Result<()> {
        let bytes = bytes_of(&self.layout.gather(Subset::Full, &self.shipped));
        let mut model = self.new_model(&bytes, origin, Rollout::Complete, None);
        // In one, so that no power cut leaves a model that nobody has.
        self.decide(|decision| {
            if !decision.models()?.is_empty() {
                return Ok(());
            }
            put_next(decision, &mut model, &bytes)?;
            decision.record(&self.published(&model))
        })
    }

    /// A model without a number; [`put_next`] gives it one.
    pub(super) fn new_model(
        &self,
        bytes: &[u8],
        origin: &str,
        rollout: Rollout,
        score: Option<f64>,
    ) -> Model {
        Model {
            version: 0,
            parameters: Digest::of(bytes).to_string(),
            origin: origin.to_owned(),
            created_at: self.now(),
            score,
            rollout,
            installed: 0,
            failed: 0,
        }
    }

    /// Starts the roll-out of the newest version again from its first stage, where it was stopped.
    ///
    /// # Errors
    /// [`EngineError::NoModel`], [`EngineError::Superseded`] below a version that was published, [`EngineError::UnderWay`],
    /// [`EngineError::Everywhere`], or of the database.
    pub fn publish(&self, version: u64) -> Result<Model> {
        let mut outcome = Err(EngineError::NoModel(version));
        // Looked at and changed in one: a stage may end in between.
        self.decide(|decision| {
            outcome = may_roll_out(&decision.models()?, version);
            let Ok(model) = &mut outcome else { return Ok(()) };
            model.rollout = Rollout::Running { stage: 0, since: self.now() };
            (model.installed, model.failed) = (0, 0);
            begins(decision, self.now())?;
            decision.forget_reports(version)?;
            decision.put_model(model)?;
            decision.record(&self.published(model))?;
            end_outdated(decision)
        })?;
        outcome
    }

    pub(super) fn published(&self, model: &Model) -> Event {
        Event::ModelPublished { version: model.version, permille: self.permille(model) }
    }

    /// How many of a thousand devices a version's manifest is for. 0 is that of a version which is for nobody, and that of one in a
    /// stage of groups, whose mirrors are told by name: by the manifest alone no mirror may take either, not even on a household's
    /// wish.
    pub fn permille(&self, model: &Model) -> u16 {
        match model.rollout {
            Rollout::Running { stage, .. } => self.rules.rollout.permille(stage),
            Rollout::Complete => 1000,
            Rollout::Held | Rollout::Stopped { .. } => 0,
        }
    }

    /// Whether every device is offered a version.
    pub(super) fn is_for_all(&self, model: &Model) -> bool {
        self.permille(model) == 1000
    }

    /// Puts an older version's numbers on top as a new version: devices never go down. Numbers of which a roll-out was over are
    /// everywhere at once; others, such as those of a version that was stopped for trouble, begin with the first stage. What was
    /// on top before is stopped, unless it has the same numbers and its roll-out was over; the round at hand, whose average belongs
    /// to that, ends.
    ///
    /// # Errors
    /// [`EngineError::NoModel`], or of the database.
    pub fn rollback(&self, to: u64) -> Result<Model> {
        let (mut top, bytes) = self.again(to)?;
        self.decide(|decision| {
            let Some(newest) = decision.models()?.pop() else { return Ok(()) };
            let from = newest.version;
            let from_stays = newest.parameters == top.parameters && newest.rollout.is_over();
            // Why one was stopped is what an operator looks for after the rollback.
            if is_usable(&newest) && !from_stays {
                let reason = format!("rolled back to version {to}");
                let rollout = Rollout::Stopped { reason, was_over: newest.rollout.is_over() };
                decision.put_model(&Model { rollout, ..newest })?;
            }
            put_next(decision, &mut top, &bytes)?;
            let as_version = top.version;
            decision.record(&Event::RolledBack { from, to, as_version, from_stays })?;
            decision.record(&self.published(&top))?;
            end_outdated(decision)
        })?;
        Ok(top)
    }

    /// Goes on above the numbers that a lost database may have given: for one that was restored from a backup.
    ///
    /// Mirrors ignore rounds and versions that they know already. So the next ones get numbers above these, and the newest
    /// version whose roll-out was over comes on top again, everywhere at once, so that mirrors and database share a base. A
    /// version that was half tried when the backup was made may have been found wanting since, and stops. The round at hand
    /// ends; its mirrors have gone on.
    ///
    /// # Errors
    /// [`EngineError::NoModels`], or of the database.
    pub fn restore(&self, rounds_above: u32, versions_above: u32) -> Result<Model> {
        let (mut top, bytes) = self.again(self.proven()?.version)?;
        self.decide(|decision| {
            decision.go_on_above(rounds_above, versions_above)?;
            decision.record(&Event::Restored { rounds_above, versions_above })?;
            stop_running(decision, "the database was restored")?;
            put_next(decision, &mut top, &bytes)?;
            decision.record(&self.published(&top))?;
            end_outdated(decision)
        })?;
        Ok(top)
    }

    /// A version's numbers as a new model, which [`put_next`] is to give a number; and their bytes.
    fn again(&self, version: u64) -> Result<(Model, Vec<u8>)> {
        let models = self.store.models()?;
        let known = models.iter().find(|model| model.version == version);
        let known = known.ok_or(EngineError::NoModel(version))?;
        let bytes = self.store.parameters(version)?.ok_or(EngineError::NoModel(version))?;
        let origin = format!("version {version} again");
        // Under whichever version: what mirrors try are the numbers.
        let same = |model: &Model| model.parameters == known.parameters;
        let rollout = match models.iter().any(|model| same(model) && model.rollout.is_over()) {
            true => Rollout::Complete,
            false => Rollout::Running { stage: 0, since: self.now() },
        };
        Ok((self.new_model(&bytes, &origin, rollout, known.score), bytes))
    }

    /// The version that is announced: the newest that was ever published. A stopped one stays announced, for nobody,
    /// so that its manifest replaces the one that spread it.
    pub fn announced(&self) -> Result<Option<Model>> {
        Ok(self.store.newest_model(is_published)?)
    }

    /// The version that rounds start from: the newest that was not stopped.
    pub(super) fn base(&self) -> Result<Model> {
        self.store.newest_model(is_usable)?.ok_or(EngineError::NoModels)
    }

    /// The newest version that went through its whole roll-out; the one that rounds start from, where none did.
    pub(super) fn proven(&self) -> Result<Model> {
        let complete = |model: &Model| model.rollout == Rollout::Complete;
        self.store.newest_model(complete)?.map_or_else(|| self.base(), Ok)
    }
}

fn is_published(model: &Model) -> bool {
    model.rollout != Rollout::Held
}

fn is_usable(model: &Model) -> bool {
    !matches!(model.rollout, Rollout::Stopped { .. })
}

/// The version that rounds start from, as it stands now.
pub(super) fn in_force(decision: &Decision<'_>) -> Result<Option<Model>, StoreError> {
    decision.newest_model(is_usable)
}

/// Adds a model under the next number.
pub(super) fn put_next(
    decision: &mut Decision<'_>,
    model: &mut Model,
    bytes: &[u8],
) -> Result<(), StoreError> {
    model.version = decision.next_version()?;
    begins(decision, model.created_at)?;
    decision.put_model(model)?;
    decision.put_parameters(model.version, bytes)?;
    decision.record(&added(model))
}

/// Ends every roll-out that is under way.
fn stop_running(decision: &mut Decision<'_>, reason: &str) -> Result<(), StoreError> {
    let running = |model: &Model| matches!(model.rollout, Rollout::Running { .. });
    for model in decision.models()?.into_iter().filter(running) {
        let (version, reason) = (model.version, reason.to_owned());
        let rollout = Rollout::Stopped { reason: reason.clone(), was_over: false };
        decision.put_model(&Model { rollout, ..model })?;
        decision.record(&Event::RolloutStopped { version, reason })?;
    }
    Ok(())
}

/// The model of this version, if its roll-out may begin. One that has begun would be taken back from all mirrors that the first
/// stage does not reach.
fn may_roll_out(models: &[Model], version: u64) -> Result<Model> {
    let known = models.iter().find(|model| model.version == version);
    let model = known.cloned().ok_or(EngineError::NoModel(version))?;
    let announced = models.iter().rfind(|model| is_published(model));
    match announced.filter(|newest| newest.version > version) {
        Some(newest) => Err(EngineError::Superseded { version, newer: newest.version }),
        None => match model.rollout {
            Rollout::Held | Rollout::Stopped { .. } => Ok(model),
            Rollout::Running { .. } => Err(EngineError::UnderWay(version)),
            Rollout::Complete => Err(EngineError::Everywhere(version)),
        },
    }
}

fn added(model: &Model) -> Event {
    Event::ModelAdded {
        version: model.version,
        parameters: model.parameters.clone(),
        origin: model.origin.clone(),
    }
}
