//! Deciding: what one transaction changes, with the entries that record it.

use ed25519_dalek::SigningKey;
use learn::edges::Digest;
use proto::Pseudonym;
use redb::{ReadableTable, WriteTransaction};

use super::read::{newest, number, parse, record, records};
use super::{
    AUDIT, CANDIDATES, CERTIFICATES, COUNTED, DEVICES, META, MODELS, NAMES, PARAMETERS, REPORTS,
    ROUNDS, ROUNDS_ABOVE, Result, VERSIONS_ABOVE, reports_of,
};
use crate::audit::{Entry, Event, Head};
use crate::hex;
use crate::records::{Damaged, Device, Model, Round, Standing, json};

/// The next sequence number that nobody has.
const SEQUENCE: &str = "sequence";

/// Seconds since 1970 from which on a clock is taken to be wrong: the year 2100. Sequence numbers that follow the time end
/// in 2106.
const CLOCK_END: u64 = 4_102_444_800;

/// Changes of one transaction.
pub struct Decision<'a> {
    write: &'a WriteTransaction,
    at: u64,
    key: &'a SigningKey,
}

impl<'a> Decision<'a> {
    pub(super) fn new(write: &'a WriteTransaction, at: u64, key: &'a SigningKey) -> Decision<'a> {
        Decision { write, at, key }
    }
}

impl Decision<'_> {
    /// Adds an entry to the audit log.
    pub fn record(&mut self, event: &Event) -> Result<()> {
        let mut table = self.write.open_table(AUDIT)?;
        let head = match newest(&table, "audit entry", |_: &Entry| true)? {
            None => Head::EMPTY,
            Some(entry) => Head {
                next: entry.number + 1,
                hash: Digest(hex::decode(&entry.hash).ok_or_else(|| Damaged {
                    what: format!("audit entry {}", entry.number),
                    reason: "its hash".into(),
                })?),
            },
        };
        let entry = head.entry(self.at, event, self.key)?;
        table.insert(entry.number, json(&entry).as_slice())?;
        Ok(())
    }

    /// Stores a device.
    pub fn put_device(&mut self, device: &Device) -> Result<()> {
        let (name, fingerprint) = (device.name.as_str(), device.fingerprint.as_str());
        self.write.open_table(DEVICES)?.insert(name, json(device).as_slice())?;
        self.write.open_table(CERTIFICATES)?.insert((fingerprint, name), ())?;
        Ok(())
    }

    /// The round as it stands now, within the transaction.
    pub fn round(&self, id: u64) -> Result<Option<Round>> {
        record(&self.write.open_table(ROUNDS)?, id, "round")
    }

    /// The round that is not over, if there is one. None begins beside another, so it is the newest.
    pub fn live_round(&self) -> Result<Option<Round>> {
        let newest = newest(&self.write.open_table(ROUNDS)?, "round", |_| true)?;
        Ok(newest.filter(|round: &Round| !round.phase.is_final()))
    }

    /// The number of the next round.
    pub fn next_round(&self) -> Result<u64> {
        let last = self.write.open_table(ROUNDS)?.last()?.map_or(0, |(id, _)| id.value());
        Ok(last.max(self.number(ROUNDS_ABOVE)?.unwrap_or(0)) + 1)
    }

    /// The number of the next model version.
    pub fn next_version(&self) -> Result<u64> {
        let last = self.write.open_table(MODELS)?.last()?.map_or(0, |(version, _)| version.value());
        Ok(last.max(self.number(VERSIONS_ABOVE)?.unwrap_or(0)) + 1)
    }

    /// From now on rounds and versions get numbers above these.
    pub fn go_on_above(&mut self, rounds: u32, versions: u32) -> Result<()> {
        for (name, floor) in [(ROUNDS_ABOVE, rounds), (VERSIONS_ABOVE, versions)] {
            let floor = u64::from(floor).max(self.number(name)?.unwrap_or(0));
            self.put_number(name, floor)?;
        }
        Ok(())
    }

    /// A named number, as it stands now.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        number(&self.write.open_table(META)?, name)
    }

    /// Says which device is behind a name.
    pub fn put_name(&mut self, round: u64, name: Pseudonym, device: &str) -> Result<()> {
        self.write.open_table(NAMES)?.insert((round, name.0), device)?;
        Ok(())
    }

    /// Calls `each` with every device that may take part, without holding them all.
    pub fn each_enrolled(
        &mut self,
        mut each: impl FnMut(&mut Self, &Device) -> Result<()>,
    ) -> Result<()> {
        let table = self.write.open_table(DEVICES)?;
        for entry in table.iter()? {
            let device: Device = parse("device", entry?.1.value())?;
            if device.standing == Standing::Enrolled {
                each(self, &device)?;
            }
        }
        Ok(())
    }

    /// Takes the next block of `count` sequence numbers, which nobody else will get, all of them above `above`.
    ///
    /// The numbers follow the time in seconds, times 2^32: after a restore from a backup, which does not know what was given
    /// since, they are still the highest.
    pub fn take_sequence(&mut self, count: u64, above: u64) -> Result<u64> {
        let by_time = if self.at < CLOCK_END { self.at << 32 } else { 0 };
        let next = self.number(SEQUENCE)?.unwrap_or(1).max(by_time).max(above.saturating_add(1));
        self.put_number(SEQUENCE, next.saturating_add(count))?;
        Ok(next)
    }

    /// Stores a round. The candidate of one that is over goes: what was published has its numbers as a version.
    pub fn put_round(&mut self, round: &Round) -> Result<()> {
        self.write.open_table(ROUNDS)?.insert(round.id, json(round).as_slice())?;
        if round.phase.is_final() {
            self.write.open_table(CANDIDATES)?.remove(round.id)?;
        }
        Ok(())
    }

    /// Stores a model's record.
    pub fn put_model(&mut self, model: &Model) -> Result<()> {
        self.write.open_table(MODELS)?.insert(model.version, json(model).as_slice())?;
        Ok(())
    }

    /// The model as it stands now, within the transaction.
    pub fn model(&self, version: u64) -> Result<Option<Model>> {
        record(&self.write.open_table(MODELS)?, version, "model")
    }

    /// Every model version as it stands now, oldest first.
    pub fn models(&self) -> Result<Vec<Model>> {
        records(&self.write.open_table(MODELS)?, "model")
    }

    /// The newest version that is such, as it stands now.
    pub fn newest_model(&self, is_such: impl Fn(&Model) -> bool) -> Result<Option<Model>> {
        newest(&self.write.open_table(MODELS)?, "model", is_such)
    }

    /// Stores a version's parameters.
    pub fn put_parameters(&mut self, version: u64, bytes: &[u8]) -> Result<()> {
        self.write.open_table(PARAMETERS)?.insert(version, bytes)?;
        Ok(())
    }

    /// Stores a round's candidate.
    pub fn put_candidate(&mut self, round: u64, bytes: &[u8]) -> Result<()> {
        self.write.open_table(CANDIDATES)?.insert(round, bytes)?;
        Ok(())
    }

    /// Stores a named value.
    pub fn put_meta(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write.open_table(META)?.insert(name, bytes)?;
        Ok(())
    }

    /// Stores a named number.
    pub fn put_number(&mut self, name: &str, number: u64) -> Result<()> {
        self.put_meta(name, &number.to_le_bytes())
    }

    /// What a device says of a version; gives what it said before. Saying the same again changes nothing.
    pub fn put_report(&mut self, version: u64, device: &str, said: u8) -> Result<Option<u8>> {
        let mut table = self.write.open_table(REPORTS)?;
        let before = table.insert((version, device), said)?.map(|said| said.value());
        Ok(before)
    }

    /// Forgets what devices said of a version.
    pub fn forget_reports(&mut self, version: u64) -> Result<()> {
        self.write.open_table(REPORTS)?.retain_in(reports_of(version), |_, _| false)?;
        Ok(())
    }

    /// Forgets who took part in a round that is over. Its sums stay, so that its arithmetic can be done again.
    pub fn forget_members(&mut self, round: u64) -> Result<u64> {
        let mut gone = 0;
        let all = (round, [0; 16])..=(round, [255; 16]);
        let mut counted = self.write.open_table(COUNTED)?;
        counted.retain_in(all.clone(), |_, _| {
            gone += 1;
            false
        })?;
        self.write.open_table(NAMES)?.retain_in(all, |_, _| false)?;
        Ok(gone)
    }
}
