//! Reading: what the database says at one instant.

use std::borrow::Borrow;
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use learn::averaging::{PartialSum, RoundRules};
use learn::edges::Digest;
use proto::Pseudonym;
use redb::{
    Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableError,
};
use serde::de::DeserializeOwned;

use super::{
    AUDIT, CANDIDATES, CERTIFICATES, COUNTED, DEVICES, FORMAT, META, MODELS, NAMES, PARAMETERS,
    REPORTS, ROUNDS, ROUNDS_ABOVE, Result, SUMS, Store, StoreError, TALLIES, UPDATES,
    VERSIONS_ABOVE, builder, reports_of,
};
use crate::audit::{Entry, Event, Head};
use crate::records::{Damaged, Device, Model, Round, Standing, Tally};

/// The database as it stood at one instant, whatever is committed meanwhile.
pub struct Snapshot {
    read: ReadTransaction,
}

impl Snapshot {
    pub(super) fn new(read: ReadTransaction) -> Snapshot {
        Snapshot { read }
    }

    /// Reads a file of which nobody is to change a bit, such as a backup. Only a copy that was made while a server ran is
    /// opened as a server opens it, which mends what copying has torn.
    pub fn of_file<T>(path: &Path, read: impl FnOnce(&Snapshot) -> T) -> Result<T> {
        let Ok(database) = builder().open_read_only(path) else {
            let store = Store::open(path)?;
            return Ok(read(&store.snapshot()?));
        };
        let snapshot = Snapshot { read: database.begin_read()? };
        snapshot.check_format(path)?;
        Ok(read(&snapshot))
    }

    pub(super) fn check_format(&self, path: &Path) -> Result<()> {
        let found = self.number("format")?.unwrap_or(0);
        if found == FORMAT {
            Ok(())
        } else {
            Err(StoreError::Format { path: path.to_owned(), found })
        }
    }

    /// A named value.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let table = self.read.open_table(META)?;
        Ok(table.get(name)?.map(|value| value.value().to_vec()))
    }

    /// A named number.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        number(&self.read.open_table(META)?, name)
    }

    /// A device.
    pub fn device(&self, name: &str) -> Result<Option<Device>> {
        record(&self.read.open_table(DEVICES)?, name, "device")
    }

    /// The device that is enrolled with this certificate; `None` also where all of its names were revoked.
    pub fn holder(&self, fingerprint: &str) -> Result<Option<Device>> {
        let Some(certificates) = self.certificates()? else { return Ok(None) };
        let devices = self.read.open_table(DEVICES)?;
        // No name of a device sorts before the empty one, or after the tilde.
        for row in certificates.range((fingerprint, "")..(fingerprint, "~"))? {
            let row = row?.0;
            let device: Option<Device> = record(&devices, row.value().1, "device")?;
            let enrolled = device.filter(|device| device.standing == Standing::Enrolled);
            if enrolled.is_some() {
                return Ok(enrolled);
            }
        }
        Ok(None)
    }

    /// Whether every device has its row among the certificates.
    pub(super) fn are_certificates_noted(&self) -> Result<bool> {
        let noted = self.certificates()?.map_or(Ok(0), |table| table.len())?;
        Ok(noted == self.read.open_table(DEVICES)?.len()?)
    }

    /// The table is made with the first device.
    fn certificates(&self) -> Result<Option<ReadOnlyTable<(&'static str, &'static str), ()>>> {
        match self.read.open_table(CERTIFICATES) {
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            table => Ok(Some(table?)),
        }
    }

    /// Calls `each` for every device, in the order of names, without holding them all.
    pub fn each_device(&self, mut each: impl FnMut(Device)) -> Result<()> {
        let table = self.read.open_table(DEVICES)?;
        for entry in table.iter()? {
            each(parse("device", entry?.1.value())?);
        }
        Ok(())
    }

    /// Whether there is such a device; looks no further than to the first.
    pub fn any_device(&self, mut is_such: impl FnMut(&Device) -> bool) -> Result<bool> {
        let table = self.read.open_table(DEVICES)?;
        for entry in table.iter()? {
            if is_such(&parse("device", entry?.1.value())?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many devices may take part.
    pub fn enrolled(&self) -> Result<u64> {
        let mut count = 0;
        self.each_device(|device| count += u64::from(device.standing == Standing::Enrolled))?;
        Ok(count)
    }

    /// A round.
    pub fn round(&self, id: u64) -> Result<Option<Round>> {
        record(&self.read.open_table(ROUNDS)?, id, "round")
    }

    /// Every round, oldest first.
    pub fn rounds(&self) -> Result<Vec<Round>> {
        self.rounds_after(0)
    }

    /// The rounds after this one, oldest first.
    pub fn rounds_after(&self, id: u64) -> Result<Vec<Round>> {
        let table = self.read.open_table(ROUNDS)?;
        table.range(id + 1..)?.map(|entry| parse("round", entry?.1.value())).collect()
    }

    /// The newest round.
    pub fn newest_round(&self) -> Result<Option<Round>> {
        newest(&self.read.open_table(ROUNDS)?, "round", |_| true)
    }

    /// The last round that there may have been before this database, as far as [`super::Decision::go_on_above`] was told; 0 for none.
    pub fn rounds_above(&self) -> Result<u64> {
        Ok(self.number(ROUNDS_ABOVE)?.unwrap_or(0))
    }

    /// The last version that there may have been before this database, likewise; 0 for none.
    pub fn versions_above(&self) -> Result<u64> {
        Ok(self.number(VERSIONS_ABOVE)?.unwrap_or(0))
    }

    /// Rounds up to [`Snapshot::rounds_above`] which this database does not have.
    pub fn unknown_rounds(&self) -> Result<u64> {
        let above = self.rounds_above()?;
        let table = self.read.open_table(ROUNDS)?;
        let known = table.range(..=above)?.count() as u64;
        Ok(above.saturating_sub(known))
    }

    /// What has come in for a round.
    pub fn tally(&self, round: u64) -> Result<Tally> {
        Ok(record(&self.read.open_table(TALLIES)?, round, "tally")?.unwrap_or_default())
    }

    /// A model version.
    pub fn model(&self, version: u64) -> Result<Option<Model>> {
        record(&self.read.open_table(MODELS)?, version, "model")
    }

    /// Every model version, oldest first.
    pub fn models(&self) -> Result<Vec<Model>> {
        records(&self.read.open_table(MODELS)?, "model")
    }

    /// The newest version that is such.
    pub fn newest_model(&self, is_such: impl Fn(&Model) -> bool) -> Result<Option<Model>> {
        newest(&self.read.open_table(MODELS)?, "model", is_such)
    }

    /// The bytes of a version's parameters.
    pub fn parameters(&self, version: u64) -> Result<Option<Vec<u8>>> {
        let table = self.read.open_table(PARAMETERS)?;
        Ok(table.get(version)?.map(|value| value.value().to_vec()))
    }

    /// The bytes of a round's candidate.
    pub fn candidate(&self, round: u64) -> Result<Option<Vec<u8>>> {
        let table = self.read.open_table(CANDIDATES)?;
        Ok(table.get(round)?.map(|value| value.value().to_vec()))
    }

    /// The first round that has a candidate.
    pub(super) fn first_candidate(&self) -> Result<Option<u64>> {
        let table = self.read.open_table(CANDIDATES)?;
        Ok(table.first()?.map(|(id, _)| id.value()))
    }

    /// The last thing that a device said of a version: what [`super::Decision::put_report`] was given.
    pub fn reported(&self, version: u64, device: &str) -> Result<Option<u8>> {
        let Some(table) = self.all_reports()? else { return Ok(None) };
        Ok(table.get((version, device))?.map(|said| said.value()))
    }

    /// The last thing that each device said of a version, in the order of their names.
    pub fn reports(&self, version: u64) -> Result<Vec<(String, u8)>> {
        let Some(table) = self.all_reports()? else { return Ok(Vec::new()) };
        let all = table.range(reports_of(version))?;
        all.map(|entry| {
            let (name, said) = entry?;
            Ok::<_, StoreError>((name.value().1.to_owned(), said.value()))
        })
        .collect()
    }

    /// The table is made with the first report.
    fn all_reports(&self) -> Result<Option<ReadOnlyTable<(u64, &'static str), u8>>> {
        match self.read.open_table(REPORTS) {
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            table => Ok(Some(table?)),
        }
    }

    /// One worker's sum.
    pub fn sum(&self, round: u64, worker: u32, rules: RoundRules) -> Result<PartialSum> {
        let table = self.read.open_table(SUMS)?;
        match table.get((round, worker))? {
            Some(bytes) => Ok(PartialSum::decode(rules, bytes.value())?),
            None => Ok(PartialSum::new(rules)),
        }
    }

    /// All workers' sums of a round, merged.
    pub fn merged(&self, round: u64, rules: RoundRules) -> Result<PartialSum> {
        let table = self.read.open_table(SUMS)?;
        let mut merged = PartialSum::new(rules);
        for entry in table.range((round, 0)..=(round, u32::MAX))? {
            merged.merge(&PartialSum::decode(rules, entry?.1.value())?)?;
        }
        Ok(merged)
    }

    /// How many names a round counted, and the SHA-256 of the ordered list of names and digests.
    pub fn members(&self, round: u64) -> Result<(u64, Digest)> {
        let table = self.read.open_table(COUNTED)?;
        let mut list = Digest::of(b"mirror members 1\n");
        let mut count = 0;
        for entry in table.range((round, [0; 16])..=(round, [255; 16]))? {
            let (name, digest) = entry?;
            let link = [list.0.as_slice(), &name.value().1, &digest.value()].concat();
            list = Digest::of(&link);
            count += 1;
        }
        Ok((count, list))
    }

    /// The device behind a name.
    pub fn named(&self, round: u64, name: Pseudonym) -> Result<Option<Device>> {
        let names = self.read.open_table(NAMES)?;
        let Some(device) = names.get((round, name.0))? else { return Ok(None) };
        let devices = self.read.open_table(DEVICES)?;
        record(&devices, device.value(), "device")
    }

    /// The round in which an update was counted.
    pub fn counted_in(&self, update: Digest) -> Result<Option<u64>> {
        let table = self.read.open_table(UPDATES)?;
        Ok(table.get(update.0)?.map(|round| round.value()))
    }

    /// Whether a name was counted in a round, and with which update.
    pub fn counted(&self, round: u64, name: Pseudonym) -> Result<Option<Digest>> {
        let table = self.read.open_table(COUNTED)?;
        Ok(table.get((round, name.0))?.map(|digest| Digest(digest.value())))
    }

    /// How many audit entries there are: another number whenever something was decided.
    pub fn entries(&self) -> Result<u64> {
        let table = self.read.open_table(AUDIT)?;
        Ok(table.last()?.map_or(0, |(number, _)| number.value() + 1))
    }

    /// The first audit entry, which says whose fleet it is; `None` where nothing was ever decided.
    pub fn first_entry(&self) -> Result<Option<Entry>> {
        let table = self.read.open_table(AUDIT)?;
        let first = table.first()?;
        first.map(|(_, value)| parse("audit entry", value.value())).transpose()
    }

    /// What `pick` takes of the newest audit entry of which it takes anything.
    pub fn newest_event<T>(&self, pick: impl Fn(Event) -> Option<T>) -> Result<Option<T>> {
        let table = self.read.open_table(AUDIT)?;
        for row in table.iter()?.rev() {
            let entry: Entry = parse("audit entry", row?.1.value())?;
            if let Some(taken) = pick(parse("event", entry.event.as_bytes())?) {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// Checks chain and signatures and gives the chain's end.
    pub fn verify_chain(
        &self,
        key: &VerifyingKey,
        mut each: impl FnMut(u64, Event),
    ) -> Result<Head> {
        let mut head = Head::EMPTY;
        self.each_entry(|entry| {
            let event = head.follow(&entry, key)?;
            each(entry.number, event);
            Ok(())
        })?;
        Ok(head)
    }

    /// Calls `each` for every audit entry, oldest first.
    fn each_entry(&self, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let table = self.read.open_table(AUDIT)?;
        for entry in table.iter()? {
            each(parse("audit entry", entry?.1.value())?)?;
        }
        Ok(())
    }
}

/// The record of this key.
pub(super) fn record<'a, K: Key + 'static, T: DeserializeOwned>(
    table: &impl ReadableTable<K, &'static [u8]>,
    key: impl Borrow<K::SelfType<'a>>,
    what: &str,
) -> Result<Option<T>> {
    table.get(key)?.map(|value| parse(what, value.value())).transpose()
}

/// Every record of a table, in the order of keys.
pub(super) fn records<T: DeserializeOwned>(
    table: &impl ReadableTable<u64, &'static [u8]>,
    what: &str,
) -> Result<Vec<T>> {
    table.iter()?.map(|entry| parse(what, entry?.1.value())).collect()
}

/// The record with the highest number of those that are such.
pub(super) fn newest<T: DeserializeOwned>(
    table: &impl ReadableTable<u64, &'static [u8]>,
    what: &str,
    is_such: impl Fn(&T) -> bool,
) -> Result<Option<T>> {
    for entry in table.iter()?.rev() {
        let found = parse(what, entry?.1.value())?;
        if is_such(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A named number.
pub(super) fn number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<u64>> {
    let damaged = |_| Damaged { what: format!("number {name}"), reason: "its length".into() };
    let Some(value) = meta.get(name)? else { return Ok(None) };
    Ok(Some(value.value().try_into().map(u64::from_le_bytes).map_err(damaged)?))
}

pub(super) fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    let damaged =
        |error: serde_json::Error| Damaged { what: what.into(), reason: error.to_string() };
    Ok(serde_json::from_slice(bytes).map_err(damaged)?)
}
