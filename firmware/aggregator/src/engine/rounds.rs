//! A round, from what an operator asks for to the version that comes of it.

use learn::edges::Digest;
use learn::head::Subset;
use learn::privacy::sampler::DiscreteGaussian;
use learn::privacy::{CLIP_STEPS, check_noise};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::models::{in_force, put_next};
use super::rollout::begins;
use super::{Engine, EngineError, Result};
use crate::arithmetic::{bytes_of, moved, stored, velocity_name};
use crate::audit::Event;
use crate::hex;
use crate::records::{DOES_NOT_SHIP, Damaged, Model, Parameters, Phase, Rollout, Round, Task};
use crate::round_steps::{Step, announced_now, next_step};
use crate::store::{Decision, StoreError};

/// What `round start` asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRequest {
    /// Which parameters.
    pub parameters: Parameters,
    /// Noise multiplier as a decimal number.
    pub noise_multiplier: String,
    /// Whether to start against advice.
    pub force: bool,
}

/// The highest round whose members were forgotten.
const PRUNED: &str = "pruned";

impl Engine {
    /// The round that is not over, if there is one.
    pub fn live_round(&self) -> Result<Option<Round>> {
        Ok(self.store.newest_round()?.filter(|round| !round.phase.is_final()))
    }

    /// Announces a round, unless it would carry no signal, could not have the updates that it
    /// needs, its model has not reached every mirror or a stopped one has taken its place at some,
    /// or nobody could judge its candidate. Force does it all the same.
    ///
    /// # Errors
    /// [`EngineError::Busy`], [`EngineError::Gate`], [`EngineError::NoSignal`],
    /// [`EngineError::SmallFleet`], [`EngineError::RollingOut`], [`EngineError::StoppedAbove`],
    /// [`EngineError::NoModels`], [`EngineError::ModelChanged`], noise that no mirror could draw or would take, or of the database.
    pub fn start_round(&self, request: &RoundRequest) -> Result<Round> {
        if let Some(live) = self.live_round()? {
            return Err(EngineError::Busy(live.id));
        }
        let base = self.base()?;
        let task = self.task(request, &base)?;
        let devices = self.store.enrolled()?;
        let (expected_cosine, mut objections) = self.objections(&task, &base, devices)?;
        let forced = !objections.is_empty();
        if forced && !request.force {
            return Err(objections.swap_remove(0));
        }
        let now = self.now();
        let opens_at = now + self.rules.lead_seconds;
        let round = Round {
            // The transaction gives it its number.
            id: 0,
            task,
            phase: Phase::Announced,
            announced_at: now,
            opens_at,
            closes_at: opens_at + self.rules.window_seconds,
            expected_cosine,
            forced,
            score_before: None,
            score_after: None,
            candidate: None,
        };
        self.announce(round, devices)
    }

    /// What a round on this version asks of its devices.
    fn task(&self, request: &RoundRequest, base: &Model) -> Result<Task> {
        self.check_noise(&request.noise_multiplier)?;
        let model = hex::decode::<32>(&base.parameters).ok_or_else(|| Damaged {
            what: format!("model {}", base.version),
            reason: "its digest".into(),
        })?;
        let subset = request.parameters.subset();
        Ok(Task {
            parameters: request.parameters,
            dimension: self.layout.subset_len(subset),
            layout: self.layout.id(subset, &model).to_string(),
            noise_multiplier: request.noise_multiplier.clone(),
            minimum_cohort: self.rules.minimum_cohort,
            maximum_cohort: self.rules.maximum_cohort,
            base_version: base.version,
            base: base.parameters.clone(),
        })
    }

    /// Writes a round down, under the next number and with the names of all `devices` that may take part, unless something came
    /// between.
    fn announce(&self, mut round: Round, devices: u64) -> Result<Round> {
        let base_version = round.task.base_version;
        let mut outdated = None;
        self.decide(|decision| {
            // A report may have stopped the version since it was looked at, and another command may have been faster.
            let now_in_force = in_force(decision)?;
            outdated = match decision.live_round()? {
                Some(live) => Some(EngineError::Busy(live.id)),
                None if now_in_force.is_none_or(|model| model.version != base_version) => {
                    Some(EngineError::ModelChanged)
                }
                None => None,
            };
            if outdated.is_some() {
                return Ok(());
            }
            round.id = decision.next_round()?;
            begins(decision, round.announced_at)?;
            decision.put_round(&round)?;
            decision.each_enrolled(|decision, device| {
                // A name that is no device name cannot have been enrolled.
                let Ok(id) = device.name.parse() else { return Ok(()) };
                decision.put_name(round.id, self.pseudonym(&id, round.id), &device.name)
            })?;
            decision.record(&Event::RoundAnnounced {
                round: round.id,
                task: round.task.digest().to_string(),
                base_version,
                devices,
                expected_cosine: round.expected_cosine,
                forced: round.forced,
            })
        })?;
        outdated.map_or(Ok(round), Err)
    }

    /// Refuses a noise multiplier that no mirror could draw or would take.
    fn check_noise(&self, text: &str) -> Result<()> {
        let noise = text.parse()?;
        DiscreteGaussian::for_clip(noise, CLIP_STEPS)?;
        if self.rules.any_noise {
            return Ok(());
        }
        check_noise(noise).map_err(EngineError::NoiseTooSmall)
    }

    /// The cosine that is expected of a round of all `devices`, and what speaks against it: nobody could judge its candidate, it
    /// would carry no signal, could not have the updates that it needs, or would reach some mirrors only.
    fn objections(
        &self,
        task: &Task,
        base: &Model,
        devices: u64,
    ) -> Result<(f64, Vec<EngineError>)> {
        let mut objections: Vec<EngineError> = Vec::new();
        objections.extend(self.gate.ready().err().map(EngineError::from));
        let cosine = match self.rules.signal(task)?.check(devices, self.rules.wanted_cosine) {
            Ok(cosine) => cosine,
            Err(refusal) => {
                let cosine = refusal.expected_cosine;
                objections.push(EngineError::NoSignal(Box::new(refusal)));
                cosine
            }
        };
        let minimum = self.rules.minimum_cohort;
        if devices < minimum {
            objections.push(EngineError::SmallFleet { devices, minimum });
        }
        objections.extend(self.unreached(base)?);
        Ok((cosine, objections))
    }

    /// Why a round on this version would reach some mirrors only, if it would.
    fn unreached(&self, model: &Model) -> Result<Option<EngineError>> {
        let announced = self.announced()?.map_or(0, |newest| newest.version);
        if announced > model.version {
            let base = self.proven()?.version;
            return Ok(Some(EngineError::StoppedAbove { stopped: announced, base }));
        }
        let Rollout::Running { stage, .. } = model.rollout else { return Ok(None) };
        let (version, of) = (model.version, self.rules.rollout.stages.len());
        let refusal = EngineError::RollingOut { version, stage: stage + 1, of };
        Ok((!self.is_for_all(model)).then_some(refusal))
    }

    /// Ends a round without a result.
    ///
    /// # Errors
    /// [`EngineError::NoRound`], [`EngineError::Over`], or of the database.
    pub fn abort_round(&self, id: u64, reason: &str) -> Result<Round> {
        let mut known = false;
        let mut aborted = None;
        self.decide(|decision| {
            let Some(round) = decision.round(id)? else { return Ok(()) };
            known = true;
            if !round.phase.is_final() {
                aborted = Some(abort(decision, &round, reason)?);
            }
            Ok(())
        })?;
        let missing = if known { EngineError::Over(id) } else { EngineError::NoRound(id) };
        aborted.ok_or(missing)
    }

    /// Forgets who took part in rounds that are long over.
    pub(super) fn prune(&self) -> Result<()> {
        let rounds = self.store.rounds_after(self.store.number(PRUNED)?.unwrap_or(0))?;
        let old = rounds.len().saturating_sub(self.rules.keep_rounds as usize);
        for round in rounds[..old].iter().filter(|round| round.phase.is_final()) {
            self.decide(|decision| {
                // The digests of its updates stay: a rollback may bring back any model, and with it an update that waits.
                decision.forget_members(round.id)?;
                decision.put_number(PRUNED, round.id)?;
                decision.record(&Event::RoundPruned { round: round.id })
            })?;
        }
        Ok(())
    }

    pub(super) fn step_round(&self, round: &Round, heard: bool) -> Result<bool> {
        // A clock that is behind looks the same as one that was ahead: while nobody hears it may still be put right.
        if heard && let Some(moved) = announced_now(round, self.now()) {
            warn!(
                "the clock was ahead when round {} was announced; its time begins anew",
                round.id
            );
            self.decide_in_phase(round, |decision| decision.put_round(&moved))?;
            return Ok(true);
        }
        let tally = self.store.tally(round.id)?;
        match next_step(round, &tally, self.now(), heard) {
            // A candidate waits for [`Engine::judge`].
            Step::Wait(_) | Step::Gate | Step::Nothing => return Ok(false),
            Step::Open => self.turn(round, Phase::Collecting)?,
            // First the phase, so that nothing enters any more; then what was in it is read and recorded.
            Step::Close => self.turn(round, Phase::Closed)?,
            Step::Average => self.average(round)?,
            Step::Publish => self.publish_candidate(round)?,
            Step::Abort(reason) => self.give_up(round, &reason)?,
        }
        Ok(true)
    }

    fn turn(&self, round: &Round, phase: Phase) -> Result<()> {
        let turned = Round { phase, ..round.clone() };
        self.decide_in_phase(round, |decision| decision.put_round(&turned))
    }

    fn give_up(&self, round: &Round, reason: &str) -> Result<()> {
        self.decide_in_phase(round, |decision| abort(decision, round, reason).map(drop))
    }

    fn average(&self, round: &Round) -> Result<()> {
        let rules = round.task.rules()?;
        let merged = self.store.merged(round.id, rules)?;
        let (updates, members) = self.store.members(round.id)?;
        if updates != merged.count() {
            let reason = format!(
                "the sums hold {} updates and {updates} names were counted; the database was changed from outside",
                merged.count()
            );
            return self.give_up(round, &reason);
        }
        let average = merged.average(round.task.minimum_cohort)?;
        let step = self.rules.step;
        let (candidate, velocity) =
            moved(&self.store.snapshot()?, &self.layout, round, &average, step)?;
        let closed = Event::RoundClosed {
            round: round.id,
            updates,
            members: members.to_string(),
            sum: Digest::of(&merged.encode()).to_string(),
        };
        let digest = Digest::of(&candidate).to_string();
        let averaged = Event::RoundAveraged {
            round: round.id,
            average: Digest::of(&bytes_of(&average)).to_string(),
            base: round.task.base.clone(),
            candidate: digest.clone(),
            momentum: step.momentum(),
            rate: step.rate(),
        };
        let turned = Round { phase: Phase::Averaged, candidate: Some(digest), ..round.clone() };
        self.decide_in_phase(round, |decision| {
            decision.put_round(&turned)?;
            decision.put_candidate(round.id, &candidate)?;
            decision.put_meta(&velocity_name(round.id), &bytes_of(&velocity))?;
            decision.record(&closed)?;
            decision.record(&averaged)
        })
    }

    /// Judges the candidate of the round at hand, where one waits for that, and says whether the round moved. It may take minutes, and
    /// holds nothing up: of a round that is ended meanwhile nothing comes.
    ///
    /// # Errors
    /// Of the gate or the database.
    pub fn judge(&self) -> Result<bool> {
        let live = self.live_round()?.filter(|round| round.phase == Phase::Averaged);
        live.map_or(Ok(false), |round| self.judge_candidate(&round))
    }

    fn judge_candidate(&self, round: &Round) -> Result<bool> {
        let version = round.task.base_version;
        let base = self.store.parameters(version)?.ok_or(EngineError::NoModel(version))?;
        let Some(candidate) = self.candidate(round)? else { return Ok(false) };
        let base = self.whole(&base, || format!("model {version}"))?;
        let candidate = self.whole(&candidate, || candidate_name(round))?;
        let scores = self.gate.scores(&[&base, &candidate])?;
        let (before, after) = (scores[0], scores[1]);
        let tolerance = self.rules.tolerance;
        // Written so that a score that is no number fails.
        let passed = after >= before - tolerance;
        let event = Event::RoundGated {
            round: round.id,
            score_before: before,
            score_after: after,
            tolerance,
            passed,
        };
        let reason = format!(
            "the candidate scores {after:.4} on the holdout where its predecessor has {before:.4}; {DOES_NOT_SHIP}"
        );
        let phase = if passed { Phase::Gated } else { Phase::Aborted { reason: reason.clone() } };
        let (score_before, score_after) = (Some(before), Some(after));
        let turned = Round { phase, score_before, score_after, ..round.clone() };
        let mut has_moved = false;
        self.decide_in_phase(round, |decision| {
            has_moved = true;
            decision.put_round(&turned)?;
            decision.record(&event)?;
            if !passed {
                decision.record(&Event::RoundAborted { round: round.id, reason })?;
            }
            Ok(())
        })?;
        Ok(has_moved)
    }

    /// The bytes of what a round was averaged to; none where the round has ended since it was looked at, and its candidate with it.
    fn candidate(&self, round: &Round) -> Result<Option<Vec<u8>>> {
        let candidate = self.store.candidate(round.id)?;
        let is_over = |round: Round| round.phase.is_final();
        if candidate.is_none() && !self.store.round(round.id)?.is_some_and(is_over) {
            return Err(Damaged { what: candidate_name(round), reason: "gone".into() }.into());
        }
        Ok(candidate)
    }

    /// A whole head from the trainable numbers that are stored under the name `what`.
    fn whole(&self, bytes: &[u8], what: impl FnOnce() -> String) -> Result<Vec<f32>, Damaged> {
        let trainable = stored(bytes, self.layout.subset_len(Subset::Full), what)?;
        let mut flat = self.shipped.clone();
        self.layout.scatter(Subset::Full, &trainable, &mut flat);
        Ok(flat)
    }

    fn publish_candidate(&self, round: &Round) -> Result<()> {
        let Some(bytes) = self.candidate(round)? else { return Ok(()) };
        let origin = format!("round {}", round.id);
        let rollout = Rollout::Running { stage: 0, since: self.now() };
        let mut model = self.new_model(&bytes, &origin, rollout, round.score_after);
        self.decide_in_phase(round, |decision| {
            // This very round may end here: whatever changed models meanwhile, none goes out on a base that is not in force.
            end_outdated(decision)?;
            if decision.live_round()?.is_none() {
                return Ok(());
            }
            put_next(decision, &mut model, &bytes)?;
            let version = model.version;
            decision.put_round(&Round { phase: Phase::Published { version }, ..round.clone() })?;
            decision.record(&Event::RoundPublished { round: round.id, version })?;
            decision.record(&self.published(&model))
        })
    }
}

/// What errors call a round's candidate.
fn candidate_name(round: &Round) -> String {
    format!("candidate of round {}", round.id)
}

/// Ends a round without a result.
fn abort(decision: &mut Decision<'_>, round: &Round, reason: &str) -> Result<Round, StoreError> {
    let aborted = Round { phase: Phase::Aborted { reason: reason.to_owned() }, ..round.clone() };
    decision.put_round(&aborted)?;
    decision.record(&Event::RoundAborted { round: round.id, reason: reason.to_owned() })?;
    Ok(aborted)
}

/// Ends the round at hand where rounds start from another version by now: what its devices send moves a model that is not
/// in force, and publishing it would bring that model back.
pub(super) fn end_outdated(decision: &mut Decision<'_>) -> Result<(), StoreError> {
    let Some(round) = decision.live_round()? else { return Ok(()) };
    let base = in_force(decision)?;
    let started_from = round.task.base_version;
    if base.is_some_and(|base| base.version == started_from) {
        return Ok(());
    }
    let reason = format!("version {started_from}, from which it started, is no longer in force");
    abort(decision, &round, &reason).map(drop)
}
