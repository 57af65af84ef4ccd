//! The audit, offline: chain, signatures, and every number that can be computed again.
//!
//! For each averaged round it merges the stored sums, compares their digest, the number of updates and the list of
//! names with what was signed when the round closed, averages again, moves the base again, and compares the
//! candidate. For each model version it compares the stored numbers with the signed digest. A version that came from
//! a round must have passed the gate by the scores that were signed.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use learn::edges::Digest;
use learn::head::HeadLayout;
use serde::{Deserialize, Serialize};

use crate::arithmetic::moved;
use crate::audit::{AuditError, Event};
use crate::engine::EngineError;
use crate::records::parameter_bytes;
use crate::store::Store;

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

/// Checks everything, or names the first entry that does not hold.
pub fn verify(
    store: &Store,
    layout: &HeadLayout,
    key: &VerifyingKey,
) -> Result<Verified, EngineError> {
    let mut events = Vec::new();
    let head = store.verify_chain(key, |number, event| events.push((number, event)))?;
    let mut verified =
        Verified { entries: head.next, head: head.hash.to_string(), ..Verified::default() };
    let pruned: BTreeSet<u64> = events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::RoundPruned { round } => Some(*round),
            _ => None,
        })
        .collect();
    verified.pruned = pruned.len() as u64;
    let mut closed = BTreeMap::new();
    let mut passed = BTreeMap::new();
    for (number, event) in events {
        let holds = |truth: bool, problem: &str| check(number, truth, problem);
        match event {
            Event::RoundClosed { round, updates, members, sum } => {
                check_sums(store, number, round, updates, &sum)?;
                if !pruned.contains(&round) {
                    check_names(store, number, round, updates, &members)?;
                }
                closed.insert(round, updates);
            }
            Event::RoundAveraged { round, average, candidate, momentum, rate, .. } => {
                holds(closed.contains_key(&round), "a round was averaged that was never closed")?;
                let digests = (average.as_str(), candidate.as_str());
                check_average(store, layout, number, round, digests, (momentum, rate))?;
                verified.rounds += 1;
                verified.updates += closed[&round];
            }
            Event::RoundGated { round, score_before, score_after, tolerance, passed: claimed } => {
                let truth = score_after >= score_before - tolerance;
                holds(truth == claimed, "the verdict does not follow from the scores")?;
                passed.insert(round, truth);
            }
            Event::RoundPublished { round, .. } => {
                let good = passed.get(&round) == Some(&true);
                holds(good, "a round was published that did not pass the gate")?;
            }
            Event::ModelAdded { version, parameters, .. } => {
                let stored = store.parameters(version)?.map(|bytes| Digest::of(&bytes).to_string());
                let same = stored.as_deref() == Some(parameters.as_str());
                holds(same, "the stored numbers of the model are not the ones that were added")?;
                verified.models += 1;
            }
            _ => {}
        }
    }
    Ok(verified)
}

fn check(number: u64, truth: bool, problem: &str) -> Result<(), EngineError> {
    if truth {
        return Ok(());
    }
    let problem = problem.to_owned();
    Err(EngineError::Store(AuditError::Arithmetic { number, problem }.into()))
}

fn check_sums(
    store: &Store,
    number: u64,
    round: u64,
    updates: u64,
    sum: &str,
) -> Result<(), EngineError> {
    let record = store.round(round)?.ok_or(EngineError::NoRound(round))?;
    let merged = store.merged(round, record.task.rules()?)?;
    check(number, merged.count() == updates, "the sums hold another number of updates")?;
    check(number, Digest::of(&merged.encode()).to_string() == sum, "the sums were changed")
}

fn check_names(
    store: &Store,
    number: u64,
    round: u64,
    updates: u64,
    members: &str,
) -> Result<(), EngineError> {
    let (names, list) = store.members(round)?;
    check(number, names == updates, "another number of names was counted")?;
    check(number, list.to_string() == members, "the list of names was changed")
}

fn check_average(
    store: &Store,
    layout: &HeadLayout,
    number: u64,
    round: u64,
    digests: (&str, &str),
    optimiser: (f32, f32),
) -> Result<(), EngineError> {
    let record = store.round(round)?.ok_or(EngineError::NoRound(round))?;
    let merged = store.merged(round, record.task.rules()?)?;
    let average = merged.average(record.task.minimum_cohort)?;
    let same = Digest::of(&parameter_bytes(&average)).to_string() == digests.0;
    check(number, same, "the average is another one")?;
    let (candidate, _) = moved(store, layout, &record, &average, optimiser)?;
    let same = Digest::of(&candidate).to_string() == digests.1;
    check(number, same, "the candidate does not follow from base and average")
}
