//! Counting: a batch of updates into a worker's sum, the names they are counted under and the tally, in one transaction.

use learn::averaging::{AveragingError, PartialSum};
use learn::edges::Digest;
use learn::update::Update;
use proto::Pseudonym;
use redb::{ReadableTable, WriteTransaction};

use super::read::record;
use super::{COUNTED, DEVICES, NAMES, ROUNDS, Result, SUMS, Store, TALLIES, UPDATES};
use crate::records::{Device, Phase, Round, Standing, Tally, json};
use crate::refusal_kinds::RefusalKind;

/// An update that passed every check that needs no database.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Under which name.
    pub pseudonym: Pseudonym,
    /// SHA-256 of the encoded update.
    pub digest: Digest,
    /// Bytes of the encoded update.
    pub bytes: u64,
    /// The update.
    pub update: Update,
}

/// What became of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the sum, durably.
    Counted,
    /// It was there already, in this round or an earlier one; the first receipt got lost.
    CountedBefore {
        /// The round that it counts in.
        round: u64,
    },
    /// It will never be.
    Refused(NotCounted),
}

/// Why an update is not counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum NotCounted {
    #[error("the round takes no updates now")]
    NotCollecting,
    #[error("there is no such round")]
    UnknownRound,
    #[error("the round has an update of this device already, another one")]
    SecondUpdate,
    #[error("the device is not enrolled")]
    UnknownDevice,
    #[error("the device was revoked")]
    Revoked,
    #[error("not an update: {0}")]
    Malformed(String),
    #[error(transparent)]
    Content(AveragingError),
    #[error("larger than the round's updates can be")]
    TooLarge,
}

impl NotCounted {
    /// Its kind, for counters.
    pub fn kind(&self) -> RefusalKind {
        match self {
            NotCounted::NotCollecting => RefusalKind::NotCollecting,
            NotCounted::UnknownRound => RefusalKind::UnknownRound,
            NotCounted::SecondUpdate => RefusalKind::SecondUpdate,
            NotCounted::UnknownDevice => RefusalKind::UnknownDevice,
            NotCounted::Revoked => RefusalKind::Revoked,
            NotCounted::Malformed(_) => RefusalKind::Malformed,
            NotCounted::Content(AveragingError::Norm) => RefusalKind::Norm,
            NotCounted::Content(AveragingError::NoiseMultiplier { .. }) => RefusalKind::Noise,
            NotCounted::Content(_) => RefusalKind::Shape,
            NotCounted::TooLarge => RefusalKind::TooLarge,
        }
    }
}

impl Store {
    /// Counts a batch of updates into one worker's sum.
    ///
    /// `sum` is the worker's sum as it stands in the database; it moves on only when the transaction has committed.
    /// `refused` are refusals since the last batch, to be added to the tally. The fates are in the order of `batch`.
    pub fn count(
        &self,
        round: u64,
        worker: u32,
        sum: &mut PartialSum,
        batch: &[Arrival],
        refused: &[(&'static str, u64)],
    ) -> Result<Vec<Fate>> {
        let write = self.database.begin_write()?;
        let mut next = sum.clone();
        let fates = count_within(&write, round, &mut next, batch)?;
        let counted = |fate: &&Fate| **fate == Fate::Counted;
        let new = fates.iter().filter(counted).count() as u64;
        if new > 0 {
            write.open_table(SUMS)?.insert((round, worker), next.encode().as_slice())?;
        }
        change_tally(&write, round, |tally| {
            tally.counted += new;
            let bytes = batch.iter().zip(&fates).filter(|(_, fate)| **fate == Fate::Counted);
            tally.bytes += bytes.map(|(arrival, _)| arrival.bytes).sum::<u64>();
            let late = fates.iter().filter_map(|fate| match fate {
                Fate::Refused(refusal) => Some((refusal.kind().name(), 1)),
                _ => None,
            });
            refused.iter().copied().chain(late).for_each(|(kind, count)| tally.refuse(kind, count));
        })?;
        write.commit()?;
        *sum = next;
        Ok(fates)
    }

    /// Adds refusals to a round's tally.
    pub fn refuse(&self, round: u64, refused: &[(&'static str, u64)]) -> Result<()> {
        let write = self.database.begin_write()?;
        change_tally(&write, round, |tally| {
            refused.iter().for_each(|(kind, count)| tally.refuse(kind, *count));
        })?;
        Ok(write.commit()?)
    }
}

fn change_tally(
    write: &WriteTransaction,
    round: u64,
    change: impl FnOnce(&mut Tally),
) -> Result<()> {
    let mut tallies = write.open_table(TALLIES)?;
    let mut tally: Tally = record(&tallies, round, "tally")?.unwrap_or_default();
    change(&mut tally);
    tallies.insert(round, json(&tally).as_slice())?;
    Ok(())
}

/// Why an update under this name is not taken, whatever is in it. Looked up in the transaction that would count it: a device
/// may be revoked while its update is on the way.
fn admission(
    name: (u64, [u8; 16]),
    names: &impl ReadableTable<(u64, [u8; 16]), &'static str>,
    devices: &impl ReadableTable<&'static str, &'static [u8]>,
    counted: &impl ReadableTable<(u64, [u8; 16]), [u8; 32]>,
) -> Result<Option<NotCounted>> {
    let Some(device) = names.get(name)? else { return Ok(Some(NotCounted::UnknownDevice)) };
    let Some(device) = record::<_, Device>(devices, device.value(), "device")? else {
        return Ok(Some(NotCounted::UnknownDevice));
    };
    if device.standing != Standing::Enrolled {
        return Ok(Some(NotCounted::Revoked));
    }
    Ok(counted.get(name)?.map(|_| NotCounted::SecondUpdate))
}

fn count_within(
    write: &WriteTransaction,
    round: u64,
    sum: &mut PartialSum,
    batch: &[Arrival],
) -> Result<Vec<Fate>> {
    let refuse_all = |refusal: NotCounted| vec![Fate::Refused(refusal); batch.len()];
    let rounds = write.open_table(ROUNDS)?;
    let Some(found) = record::<_, Round>(&rounds, round, "round")? else {
        return Ok(refuse_all(NotCounted::UnknownRound));
    };
    let open = found.phase == Phase::Collecting;
    let (names, devices) = (write.open_table(NAMES)?, write.open_table(DEVICES)?);
    let mut counted = write.open_table(COUNTED)?;
    let mut updates = write.open_table(UPDATES)?;
    let mut fates = Vec::with_capacity(batch.len());
    for arrival in batch {
        let name = (round, arrival.pseudonym.0);
        let before = updates.get(arrival.digest.0)?.map(|round| round.value());
        let fate = match before {
            // A retry is answered even after the round has closed: its update is in the sum.
            Some(round) => Fate::CountedBefore { round },
            None if !open => Fate::Refused(NotCounted::NotCollecting),
            None => match admission(name, &names, &devices, &counted)? {
                Some(refusal) => Fate::Refused(refusal),
                None => match sum.add(&arrival.update) {
                    Ok(()) => Fate::Counted,
                    Err(error) => Fate::Refused(NotCounted::Content(error)),
                },
            },
        };
        if fate == Fate::Counted {
            counted.insert(name, arrival.digest.0)?;
            updates.insert(arrival.digest.0, round)?;
        }
        fates.push(fate);
    }
    Ok(fates)
}
