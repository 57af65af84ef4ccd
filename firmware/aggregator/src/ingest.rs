//! From arriving bytes to counted updates: workers that check in parallel and commit in batches.
//!
//! Each worker keeps one partial sum of the round at hand. What it has acknowledged is in the database; what it has
//! not is lost with it, and comes again, because devices keep an update until its receipt. So a worker may die at any
//! point: its sum is read from the database by whoever takes its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use learn::averaging::{PartialSum, RoundRules};
use learn::edges::Digest;
use learn::update::{Header, Update};

use crate::kinds::RefusalKind;
use crate::records::{Phase, Pseudonym};
use crate::store::{Arrival, Fate, Refusal, Store, StoreError};

/// Updates that one transaction takes. More would delay the receipts without sparing much of a disk's flush.
pub const BATCH_UPDATES: usize = 256;

/// Bytes of updates that one transaction takes.
pub const BATCH_BYTES: usize = 16 << 20;

/// Bytes as they arrived.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The round that the sender means.
    pub round: u64,
    /// Its name in that round.
    pub pseudonym: Pseudonym,
    /// The encoded update.
    pub bytes: Vec<u8>,
}

/// What to tell the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The round that the sender meant.
    pub round: u64,
    /// Its name there.
    pub pseudonym: Pseudonym,
    /// SHA-256 of the update's bytes.
    pub digest: Digest,
    /// What became of it.
    pub fate: Fate,
}

struct Current {
    round: u64,
    rules: RoundRules,
    sum: PartialSum,
}

/// One worker's side of the work.
pub struct Worker {
    store: Arc<Store>,
    number: u32,
    current: Option<Current>,
    refused: BTreeMap<(u64, RefusalKind), u64>,
}

impl Worker {
    /// Worker `number`, unique among those that live.
    pub fn new(store: Arc<Store>, number: u32) -> Worker {
        Worker { store, number, current: None, refused: BTreeMap::new() }
    }

    /// Checks and counts a batch. The receipts are in the order of `submissions`, and true when this returns.
    ///
    /// # Errors
    /// When the database fails nothing of the batch was counted and nothing may be acknowledged.
    pub fn count(&mut self, submissions: &[Submission]) -> Result<Vec<Receipt>, StoreError> {
        let mut fates: Vec<Option<Fate>> = vec![None; submissions.len()];
        let mut digests: Vec<Option<Digest>> = vec![None; submissions.len()];
        let mut rounds: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, submission) in submissions.iter().enumerate() {
            rounds.entry(submission.round).or_default().push(index);
        }
        for (round, members) in rounds {
            self.count_round(round, &members, submissions, &mut digests, &mut fates)?;
        }
        let receipt =
            |((submission, digest), fate): ((&Submission, Option<Digest>), Option<Fate>)| Receipt {
                round: submission.round,
                pseudonym: submission.pseudonym,
                digest: digest.unwrap_or_else(|| Digest::of(&submission.bytes)),
                fate: fate.unwrap_or(Fate::Refused(Refusal::UnknownRound)),
            };
        Ok(submissions.iter().zip(digests).zip(fates).map(receipt).collect())
    }

    /// Remembers a refusal from before any counting; the next commit adds it to the round's tally. The round exists.
    pub fn note_refused(&mut self, round: u64, kind: RefusalKind) {
        *self.refused.entry((round, kind)).or_default() += 1;
    }

    /// Adds what [`Worker::note_refused`] was told to the tallies, where no batch does.
    ///
    /// # Errors
    /// When the database fails; it is tried again then.
    pub fn write_refused(&mut self) -> Result<(), StoreError> {
        while let Some(&(round, _)) = self.refused.keys().next() {
            let kinds = refused_in(&self.refused, round);
            self.store.refuse(round, &kinds)?;
            self.refused.retain(|(of, _), _| *of != round);
        }
        Ok(())
    }

    fn count_round(
        &mut self,
        round: u64,
        members: &[usize],
        submissions: &[Submission],
        digests: &mut [Option<Digest>],
        fates: &mut [Option<Fate>],
    ) -> Result<(), StoreError> {
        if let Err(refusal) = self.turn_to(round)? {
            // A round that does not exist has no tally; anybody could make them up.
            members.iter().for_each(|&index| fates[index] = Some(Fate::Refused(refusal.clone())));
            return Ok(());
        }
        let Some(current) = self.current.as_mut() else { return Ok(()) };
        let mut arrivals = Vec::with_capacity(members.len());
        let mut places = Vec::with_capacity(members.len());
        for &index in members {
            match decode(&current.rules, &submissions[index]) {
                Ok(arrival) => {
                    digests[index] = Some(arrival.digest);
                    arrivals.push(arrival);
                    places.push(index);
                }
                Err(refusal) => {
                    *self.refused.entry((round, refusal.kind())).or_default() += 1;
                    fates[index] = Some(Fate::Refused(refusal));
                }
            }
        }
        let refused = refused_in(&self.refused, round);
        if arrivals.is_empty() && refused.is_empty() {
            return Ok(());
        }
        let found = self.store.count(round, self.number, &mut current.sum, &arrivals, &refused)?;
        self.refused.retain(|(of, _), _| *of != round);
        places.into_iter().zip(found).for_each(|(index, fate)| fates[index] = Some(fate));
        Ok(())
    }

    /// Makes `round` the current one, reading this worker's sum of it.
    fn turn_to(&mut self, round: u64) -> Result<Result<(), Refusal>, StoreError> {
        if self.current.as_ref().is_some_and(|current| current.round == round) {
            return Ok(Ok(()));
        }
        let Some(record) = self.store.round(round)? else { return Ok(Err(Refusal::UnknownRound)) };
        if record.phase == Phase::Announced {
            return Ok(Err(Refusal::NotCollecting));
        }
        let rules = record.task.rules()?;
        let sum = self.store.sum(round, self.number, rules)?;
        self.current = Some(Current { round, rules, sum });
        Ok(Ok(()))
    }
}

fn refused_in(refused: &BTreeMap<(u64, RefusalKind), u64>, round: u64) -> Vec<(&'static str, u64)> {
    let all = refused.iter().filter(|((of, _), _)| *of == round);
    all.map(|((_, kind), count)| (kind.name(), *count)).collect()
}

/// Bytes of the updates that a round takes.
pub fn update_bytes(rules: &RoundRules) -> usize {
    Header {
        release: learn::edges::ReleaseId([0; 16]),
        layout: rules.layout,
        noise_multiplier: rules.noise_multiplier,
        dimension: rules.dimension,
    }
    .encoded_bytes()
}

fn decode(rules: &RoundRules, submission: &Submission) -> Result<Arrival, Refusal> {
    if submission.bytes.len() > update_bytes(rules) {
        return Err(Refusal::TooLarge);
    }
    let (update, digest) = Update::decode_with_digest(&submission.bytes)
        .map_err(|error| Refusal::Malformed(error.to_string()))?;
    Ok(Arrival {
        pseudonym: submission.pseudonym,
        digest,
        bytes: submission.bytes.len() as u64,
        update,
    })
}
