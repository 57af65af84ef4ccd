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
use proto::Pseudonym;

use crate::records::Phase;
use crate::refusal_kinds::RefusalKind;
use crate::store::{Arrival, Fate, NotCounted, Store, StoreError};

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

impl Submission {
    fn counting(&self, digest: Digest, fate: Fate) -> Counting {
        Counting { round: self.round, pseudonym: self.pseudonym, digest, fate }
    }
}

/// What to tell the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counting {
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

    /// Checks and counts a batch. What it gives is in the order of `submissions`, and true when this returns.
    ///
    /// # Errors
    /// When the database fails nothing of the batch was counted and nothing may be acknowledged.
    pub fn count(&mut self, submissions: &[Submission]) -> Result<Vec<Counting>, StoreError> {
        let mut rounds: BTreeMap<u64, Vec<(usize, &Submission)>> = BTreeMap::new();
        for (index, submission) in submissions.iter().enumerate() {
            rounds.entry(submission.round).or_default().push((index, submission));
        }
        let mut countings = Vec::with_capacity(submissions.len());
        for (round, members) in rounds {
            countings.append(&mut self.count_round(round, &members)?);
        }
        countings.sort_unstable_by_key(|(index, _)| *index);
        Ok(countings.into_iter().map(|(_, counting)| counting).collect())
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

    /// [`Worker::count`] for the submissions to one round, each with its place in the batch.
    fn count_round(
        &mut self,
        round: u64,
        members: &[(usize, &Submission)],
    ) -> Result<Vec<(usize, Counting)>, StoreError> {
        let refuse = |&(index, submission): &(usize, &Submission), reason: NotCounted| {
            let digest = Digest::of(&submission.bytes);
            (index, submission.counting(digest, Fate::Refused(reason)))
        };
        let mut current = match self.turn_to(round)? {
            Ok(current) => current,
            // A round that does not exist has no tally; anybody could make them up.
            Err(reason) => {
                return Ok(members.iter().map(|member| refuse(member, reason.clone())).collect());
            }
        };
        let (mut countings, mut arrivals, mut arrived) = (Vec::new(), Vec::new(), Vec::new());
        for member in members {
            match decode(&current.rules, member.1) {
                Ok(arrival) => {
                    arrivals.push(arrival);
                    arrived.push(*member);
                }
                Err(reason) => {
                    self.note_refused(round, reason.kind());
                    countings.push(refuse(member, reason));
                }
            }
        }
        let refused = refused_in(&self.refused, round);
        let fates = self.store.count(round, self.number, &mut current.sum, &arrivals, &refused)?;
        self.current = Some(current);
        self.refused.retain(|(of, _), _| *of != round);
        let counted = arrived.into_iter().zip(arrivals).zip(fates);
        countings.extend(counted.map(|(((index, submission), arrival), fate)| {
            (index, submission.counting(arrival.digest, fate))
        }));
        Ok(countings)
    }

    /// What is known of `round`, with this worker's sum of it; why it takes no updates, if it takes none yet.
    fn turn_to(&mut self, round: u64) -> Result<Result<Current, NotCounted>, StoreError> {
        if let Some(current) = self.current.take_if(|current| current.round == round) {
            return Ok(Ok(current));
        }
        let Some(record) = self.store.round(round)? else {
            return Ok(Err(NotCounted::UnknownRound));
        };
        if record.phase == Phase::Announced {
            return Ok(Err(NotCounted::NotCollecting));
        }
        let rules = record.task.rules()?;
        let sum = self.store.sum(round, self.number, rules)?;
        Ok(Ok(Current { round, rules, sum }))
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

fn decode(rules: &RoundRules, submission: &Submission) -> Result<Arrival, NotCounted> {
    if submission.bytes.len() > update_bytes(rules) {
        return Err(NotCounted::TooLarge);
    }
    let (update, digest) = Update::decode_with_digest(&submission.bytes)
        .map_err(|error| NotCounted::Malformed(error.to_string()))?;
    Ok(Arrival {
        pseudonym: submission.pseudonym,
        digest,
        bytes: submission.bytes.len() as u64,
        update,
    })
}
