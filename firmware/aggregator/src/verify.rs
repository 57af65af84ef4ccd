//! The audit, offline: chain, signatures, and every number that can be computed again.
//!
//! For each averaged round it merges the stored sums, compares their digest, the number of updates and the list of
//! names with what was signed when the round closed, averages again, moves the base again, and compares the
//! candidate. For each model version it compares the stored numbers with the signed digest. A round's task must be the
//! one that was announced, its base the version that the log knows, and a version that came from a round that round's
//! candidate, which must have passed the gate by the scores that were signed.
//!
//! Then the way back: every device, model and round of the database must be in the log, and stand as the log left it.
//! All of it is read as it stood at one instant, so a server may go on meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use learn::averaging::Step;
use learn::edges::Digest;
use learn::head::HeadLayout;
use serde::{Deserialize, Serialize};

use crate::arithmetic::{bytes_of, moved};
use crate::audit::{AuditError, Event};
use crate::engine::EngineError;
use crate::records::{Device, Model, Phase, Rollout, Round, Standing};
use crate::store::Snapshot;

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Entries of the chain.
    pub entries: u64,
    /// Hash of the last one. Compare it with the one you kept.
    pub head: String,
    /// Rounds whose arithmetic was done again.
    pub rounds: u64,
    /// Updates in them.
    pub updates: u64,
    /// Model versions whose numbers have the signed digest.
    pub models: u64,
    /// Rounds whose lists of names were forgotten, so that only their sums could be compared.
    pub pruned: u64,
}

/// Checks everything, or names the first entry or record that does not hold.
pub fn verify(
    store: &Snapshot,
    layout: &HeadLayout,
    key: &VerifyingKey,
) -> Result<Verified, EngineError> {
    let mut events = Vec::new();
    let head = store.verify_chain(key, |number, event| events.push((number, event)))?;
    let pruned: BTreeSet<u64> = events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::RoundPruned { round } => Some(*round),
            _ => None,
        })
        .collect();
    let verified = Verified {
        entries: head.next,
        head: head.hash.to_string(),
        pruned: pruned.len() as u64,
        ..Verified::default()
    };
    let mut auditor = Auditor { store, layout, pruned, verified, seen: Seen::default() };
    events.into_iter().try_for_each(|(number, event)| auditor.follow(number, event))?;
    auditor.devices()?;
    auditor.models()?;
    auditor.rounds()?;
    Ok(auditor.verified)
}

/// A device as the log left it.
struct Known {
    fingerprint: String,
    group: Option<String>,
    is_enrolled: bool,
}

/// How far a version has spread by the log. An entry of a thousand is that of the last stage or that of its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    Held,
    Part,
    Whole,
    Stopped,
}

/// How far a round has come by the log, which says nothing between its announcement and its average.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Announced,
    Averaged,
    Gated,
    Published(u64),
    Aborted,
}

impl Way {
    fn of(phase: &Phase) -> Way {
        match phase {
            Phase::Announced | Phase::Collecting | Phase::Closed => Way::Announced,
            Phase::Averaged => Way::Averaged,
            Phase::Gated => Way::Gated,
            Phase::Published { version } => Way::Published(*version),
            Phase::Aborted { .. } => Way::Aborted,
        }
    }
}

impl Spread {
    fn fits(self, rollout: &Rollout) -> bool {
        match rollout {
            Rollout::Held => self == Spread::Held,
            Rollout::Running { .. } => matches!(self, Spread::Part | Spread::Whole),
            Rollout::Complete => self == Spread::Whole,
            Rollout::Stopped { .. } => self == Spread::Stopped,
        }
    }
}

/// What the log has said so far.
#[derive(Default)]
struct Seen {
    /// Updates by closed round.
    closed: BTreeMap<u64, u64>,
    /// Digests of candidates by averaged round.
    candidates: BTreeMap<u64, String>,
    /// Rounds that passed the gate.
    passed: BTreeSet<u64>,
    /// Digests of parameters by version.
    parameters: BTreeMap<u64, String>,
    /// Devices by name.
    devices: BTreeMap<String, Known>,
    /// By version.
    spread: BTreeMap<u64, Spread>,
    /// By round.
    way: BTreeMap<u64, Way>,
}

struct Auditor<'a> {
    store: &'a Snapshot,
    layout: &'a HeadLayout,
    pruned: BTreeSet<u64>,
    verified: Verified,
    seen: Seen,
}

impl Auditor<'_> {
    fn follow(&mut self, number: u64, event: Event) -> Result<(), EngineError> {
        let holds = |truth: bool, problem: &str| check(number, truth, problem);
        self.seen.note(&event);
        match event {
            Event::RoundAnnounced { round, task, base_version, .. } => {
                self.announced(number, round, &task, base_version)?;
            }
            Event::RoundClosed { round, updates, members, sum } => {
                self.closed(number, round, updates, (&members, &sum))?;
            }
            Event::RoundAveraged { round, average, base, candidate, momentum, rate } => {
                let digests = (average.as_str(), base.as_str(), candidate.as_str());
                let step = Step::PLAIN.with_momentum(momentum);
                let Some(step) = step.and_then(|step| step.with_rate(rate)) else {
                    return check(
                        number,
                        false,
                        "no server moves a base by such a momentum or rate",
                    );
                };
                self.averaged(number, round, digests, step)?;
            }
            Event::RoundGated { round, score_before, score_after, tolerance, passed: claimed } => {
                let truth = score_after >= score_before - tolerance;
                holds(truth == claimed, "the verdict does not follow from the scores")?;
                if truth {
                    self.seen.passed.insert(round);
                }
            }
            Event::RoundPublished { round, version } => {
                let good = self.seen.passed.contains(&round);
                holds(good, "a round was published that did not pass the gate")?;
                let (published, candidate) =
                    (self.seen.parameters.get(&version), self.seen.candidates.get(&round));
                let same = candidate.is_some() && published == candidate;
                holds(same, "the version that was published is not the round's candidate")?;
            }
            Event::ModelAdded { version, parameters, .. } => {
                let stored = self.store.parameters(version)?;
                let stored = stored.map(|bytes| Digest::of(&bytes).to_string());
                let same = stored.as_deref() == Some(parameters.as_str());
                holds(same, "the stored numbers of the model are not the ones that were added")?;
                self.seen.parameters.insert(version, parameters);
                self.verified.models += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Every stored device against the log, and the other way round: one that is gone could come again under another certificate.
    fn devices(&mut self) -> Result<(), EngineError> {
        let (mut known, mut problem) = (std::mem::take(&mut self.seen.devices), None);
        self.store.each_device(|device| {
            let found = device_problem(&device, known.remove(&device.name));
            problem = problem.take().or(found.map(|found| (device.name, found)));
        })?;
        let gone =
            known.into_keys().next().map(|name| (name, "the log has it, and the database not"));
        match problem.or(gone) {
            Some((name, problem)) => Err(outside(format!("device {name}"), problem)),
            None => Ok(()),
        }
    }

    fn models(&mut self) -> Result<(), EngineError> {
        for model in self.store.models()? {
            let spread = self.seen.spread.remove(&model.version);
            let problem = model_problem(&model, spread, self.seen.parameters.get(&model.version));
            if let Some(problem) = problem {
                return Err(outside(format!("model {}", model.version), problem));
            }
        }
        match self.seen.spread.keys().next() {
            Some(version) => Err(outside(format!("model {version}"), "its record is gone")),
            None => Ok(()),
        }
    }

    fn rounds(&self) -> Result<(), EngineError> {
        for round in self.store.rounds()? {
            let closed = self.seen.closed.get(&round.id);
            let counted = self.store.tally(round.id)?.counted;
            let problem = match self.seen.way.get(&round.id) {
                None => "the log does not announce it",
                Some(way) if *way != Way::of(&round.phase) => {
                    "it stands where the log did not leave it"
                }
                _ if closed.is_some_and(|updates| *updates != counted) => {
                    "its tally is not the number of updates that was signed"
                }
                _ => continue,
            };
            return Err(outside(format!("round {}", round.id), problem));
        }
        Ok(())
    }

    fn round(&self, round: u64) -> Result<Round, EngineError> {
        self.store.round(round)?.ok_or(EngineError::NoRound(round))
    }

    fn announced(
        &self,
        number: u64,
        round: u64,
        task: &str,
        base_version: u64,
    ) -> Result<(), EngineError> {
        let record = self.round(round)?;
        let same = record.task.digest().to_string() == task;
        check(number, same, "the round's task is not the one that was announced")?;
        let base = self.seen.parameters.get(&base_version);
        let same = record.task.base_version == base_version && base == Some(&record.task.base);
        check(number, same, "the round's base is not the version that was added")
    }

    fn closed(
        &mut self,
        number: u64,
        round: u64,
        updates: u64,
        (members, sum): (&str, &str),
    ) -> Result<(), EngineError> {
        let merged = self.store.merged(round, self.round(round)?.task.rules()?)?;
        check(number, merged.count() == updates, "the sums hold another number of updates")?;
        let same = Digest::of(&merged.encode()).to_string() == sum;
        check(number, same, "the sums were changed")?;
        if !self.pruned.contains(&round) {
            self.named(number, round, updates, members)?;
        }
        self.seen.closed.insert(round, updates);
        Ok(())
    }

    fn named(
        &self,
        number: u64,
        round: u64,
        updates: u64,
        members: &str,
    ) -> Result<(), EngineError> {
        let (names, list) = self.store.members(round)?;
        check(number, names == updates, "another number of names was counted")?;
        check(number, list.to_string() == members, "the list of names was changed")
    }

    fn averaged(
        &mut self,
        number: u64,
        round: u64,
        (average, base, candidate): (&str, &str, &str),
        step: Step,
    ) -> Result<(), EngineError> {
        let closed = self.seen.closed.get(&round).copied();
        check(number, closed.is_some(), "a round was averaged that was never closed")?;
        let record = self.round(round)?;
        check(number, record.task.base == base, "the average was put on another base")?;
        let merged = self.store.merged(round, record.task.rules()?)?;
        let again = merged.average(record.task.minimum_cohort)?;
        let same = Digest::of(&bytes_of(&again)).to_string() == average;
        check(number, same, "the average is another one")?;
        let (moved, _) = moved(self.store, self.layout, &record, &again, step)?;
        let same = Digest::of(&moved).to_string() == candidate;
        check(number, same, "the candidate does not follow from base and average")?;
        self.seen.candidates.insert(round, candidate.to_owned());
        self.verified.rounds += 1;
        self.verified.updates += closed.unwrap_or_default();
        Ok(())
    }
}

impl Seen {
    /// What an entry says of where a device, a version or a round stands. Later entries replace earlier ones.
    fn note(&mut self, event: &Event) {
        match event {
            Event::DeviceEnrolled { device, fingerprint, group } => {
                let (fingerprint, group) = (fingerprint.clone(), group.clone());
                let known = Known { fingerprint, group, is_enrolled: true };
                self.devices.insert(device.clone(), known);
            }
            Event::DeviceRevoked { device, .. } => {
                if let Some(known) = self.devices.get_mut(device) {
                    known.is_enrolled = false;
                }
            }
            Event::ModelAdded { version, .. } => {
                self.spread.insert(*version, Spread::Held);
            }
            Event::ModelPublished { version, permille } => {
                let spread = if *permille < 1000 { Spread::Part } else { Spread::Whole };
                self.spread.insert(*version, spread);
            }
            Event::RolloutStopped { version, .. }
            | Event::RolledBack { from: version, from_stays: false, .. } => {
                self.spread.insert(*version, Spread::Stopped);
            }
            Event::RoundAnnounced { round, .. } => {
                self.way.insert(*round, Way::Announced);
            }
            Event::RoundAveraged { round, .. } => {
                self.way.insert(*round, Way::Averaged);
            }
            Event::RoundGated { round, passed: true, .. } => {
                self.way.insert(*round, Way::Gated);
            }
            Event::RoundPublished { round, version } => {
                self.way.insert(*round, Way::Published(*version));
            }
            Event::RoundAborted { round, .. } => {
                self.way.insert(*round, Way::Aborted);
            }
            Event::RolledBack { .. }
            | Event::RoundGated { .. }
            | Event::RoundClosed { .. }
            | Event::RoundPruned { .. }
            | Event::Created { .. }
            | Event::Restored { .. } => {}
        }
    }
}

fn device_problem(device: &Device, known: Option<Known>) -> Option<&'static str> {
    let Some(known) = known else { return Some("the log does not enrol it") };
    // Entries from before groups were logged say nothing of them.
    let same_group = known.group.is_none() || known.group == device.group;
    if known.is_enrolled != (device.standing == Standing::Enrolled) {
        Some("it is not enrolled or revoked as the log says")
    } else if known.fingerprint != device.fingerprint {
        Some("its certificate is not the one that was enrolled")
    } else if !same_group {
        Some("its group is not the one that was enrolled")
    } else {
        None
    }
}

fn model_problem(
    model: &Model,
    spread: Option<Spread>,
    parameters: Option<&String>,
) -> Option<&'static str> {
    let Some(spread) = spread else { return Some("the log does not add it") };
    if parameters != Some(&model.parameters) {
        Some("its digest is not the one that was added")
    } else if !spread.fits(&model.rollout) {
        Some("its roll-out is not where the log left it")
    } else {
        None
    }
}

fn outside(record: String, problem: &'static str) -> EngineError {
    EngineError::Store(AuditError::Record { record, problem }.into())
}

fn check(number: u64, truth: bool, problem: &str) -> Result<(), EngineError> {
    if truth {
        return Ok(());
    }
    let problem = problem.to_owned();
    Err(EngineError::Store(AuditError::Arithmetic { number, problem }.into()))
}
