//! The database: one file, transactions that survive a kill at any instant.
//!
//! **Invariants**
//! - A batch of updates, the sum that it changes and the names it is counted under are written in one transaction.
//!   Whoever is told "counted" is told so after the commit. A kill therefore loses no acknowledged update and counts
//!   none twice.
//! - A round's phase is read in that same transaction: no update enters a sum that has been closed.
//! - A decision and its audit entry are written in one transaction.
//! - Memory does not grow with the number of devices: names are looked up on disk.
//!
//! The database belongs to one process at a time. Commands reach a running server through its socket and open the
//! file themselves only when nobody holds it; the file's own lock decides which.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ed25519_dalek::{SigningKey, VerifyingKey};
use learn::averaging::{AveragingError, PartialSum, RoundRules};
use learn::edges::Digest;
use learn::update::Update;
use proto::Pseudonym;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use serde::de::DeserializeOwned;

use crate::audit::{AuditError, Entry, Event, Head};
use crate::files;
use crate::kinds::RefusalKind;
use crate::records::{Damaged, Device, Model, Phase, Round, Standing, Tally, json};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const DEVICES: TableDefinition<&str, &[u8]> = TableDefinition::new("devices");
const ROUNDS: TableDefinition<u64, &[u8]> = TableDefinition::new("rounds");
const TALLIES: TableDefinition<u64, &[u8]> = TableDefinition::new("tallies");
/// By round and worker.
const SUMS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("sums");
/// By round and pseudonym: the digest of the one update that counts.
const COUNTED: TableDefinition<(u64, [u8; 16]), [u8; 32]> = TableDefinition::new("counted");
/// By digest: the round in which an update was counted, of all rounds. The same bytes never count twice.
const UPDATES: TableDefinition<[u8; 32], u64> = TableDefinition::new("updates");
/// By round and pseudonym: the device behind it. Filled when a round is announced and when a device is enrolled.
const NAMES: TableDefinition<(u64, [u8; 16]), &str> = TableDefinition::new("names");
const MODELS: TableDefinition<u64, &[u8]> = TableDefinition::new("models");
const PARAMETERS: TableDefinition<u64, &[u8]> = TableDefinition::new("parameters");
const CANDIDATES: TableDefinition<u64, &[u8]> = TableDefinition::new("candidates");
/// By version and device: the last thing that the device said of it, 1 tried without a fault, any other number trouble.
const REPORTS: TableDefinition<(u64, &str), u8> = TableDefinition::new("reports");
const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");

/// Format of the whole file. A file of another format is refused, never guessed at.
const FORMAT: u64 = 1;

/// The next sequence number that nobody has.
const SEQUENCE: &str = "sequence";

/// The highest number that a round or a version may have had in a database that was lost.
const ROUNDS_ABOVE: &str = "rounds-above";
const VERSIONS_ABOVE: &str = "versions-above";

/// Seconds since 1970 from which on a clock is taken to be wrong: the year 2100. Sequence numbers that follow the time end
/// in 2106.
const CLOCK_END: u64 = 4_102_444_800;

/// Pages of the file that are kept in memory, in bytes. The default of a gibibyte would grow with the fleet.
const CACHE_BYTES: usize = 32 << 20;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum StoreError {
    #[error("another process holds the database {0}; talk to that server, or stop it first")]
    Held(PathBuf),
    #[error("there is no database at {0}; `aggregator init` makes one")]
    Absent(PathBuf),
    #[error(
        "there is no database at {0}, and the signing key beside it says that there was one; put a backup there and run \
         `aggregator restore`"
    )]
    Gone(PathBuf),
    #[error(
        "{0} is no database; put a backup there and run `aggregator restore`, or, if there never was a fleet, remove it and run \
         `aggregator init`"
    )]
    NoDatabase(PathBuf),
    #[error(
        "cannot reach the database {path}: {source}; run this as the user that owns the data folder"
    )]
    Unreachable { path: PathBuf, source: std::io::Error },
    #[error(
        "the database {path} has format {found}, this program knows {FORMAT}; use the program that wrote it"
    )]
    Format { path: PathBuf, found: u64 },
    #[error("the database failed: {0}; check the disk's space and health")]
    Redb(Box<redb::Error>),
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Averaging(#[from] AveragingError),
}

macro_rules! from_redb {
    ($($kind:ident),*) => {
        $(impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> StoreError {
                StoreError::Redb(Box::new(error.into()))
            }
        })*
    };
}

from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

type Result<T, E = StoreError> = std::result::Result<T, E>;

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

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|source| StoreError::Unreachable { path: path.to_owned(), source })
}

/// Fills an empty file.
fn make(path: &Path) -> Result<()> {
    let database = builder().create(path)?;
    let write = database.begin_write()?;
    write.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
    write.open_table(DEVICES)?;
    write.open_table(ROUNDS)?;
    write.open_table(TALLIES)?;
    write.open_table(SUMS)?;
    write.open_table(COUNTED)?;
    write.open_table(UPDATES)?;
    write.open_table(NAMES)?;
    write.open_table(MODELS)?;
    write.open_table(PARAMETERS)?;
    write.open_table(CANDIDATES)?;
    write.open_table(AUDIT)?;
    write.commit()?;
    Ok(database.close()?)
}

/// Why a file could not be opened, or made.
fn unopened(path: &Path, error: redb::DatabaseError) -> StoreError {
    use redb::{DatabaseError, StorageError};
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Held(path),
        DatabaseError::Storage(StorageError::Io(source)) => match source.kind() {
            ErrorKind::PermissionDenied => StoreError::Unreachable { path, source },
            ErrorKind::InvalidData => StoreError::NoDatabase(path),
            _ => DatabaseError::Storage(StorageError::Io(source)).into(),
        },
        error => error.into(),
    }
}

/// The open database.
pub struct Store {
    database: Database,
    path: PathBuf,
}

impl Store {
    /// Opens the file, or makes it, for this user alone. A new one gets its name only with all of its tables in it.
    pub fn create(path: &Path) -> Result<Store> {
        if !is_there(path)? {
            let failed = |source: std::io::Error| unopened(path, source.into());
            files::whole(path, failed, make)?;
        }
        Store::open(path)
    }

    /// Opens a file that exists.
    pub fn open(path: &Path) -> Result<Store> {
        if !is_there(path)? {
            return Err(StoreError::Absent(path.to_owned()));
        }
        let database = builder().open(path).map_err(|error| unopened(path, error))?;
        Store { database, path: path.to_owned() }.check_format()
    }

    fn check_format(self) -> Result<Store> {
        self.snapshot()?.check_format(&self.path)?;
        Ok(self)
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file. What was removed is filled again before it grows.
    pub fn bytes(&self) -> Result<u64> {
        let unreachable = |source| StoreError::Unreachable { path: self.path.clone(), source };
        Ok(self.path.metadata().map_err(unreachable)?.len())
    }

    /// Removes the candidates of rounds that are over, which programs from before 2026-11-30 kept.
    pub fn forget_candidates(&self) -> Result<()> {
        let live = self.newest_round()?.filter(|round| !round.phase.is_final());
        let is_live = |id| live.as_ref().is_some_and(|round| round.id == id);
        let first = self.database.begin_read()?.open_table(CANDIDATES)?.first()?;
        if first.is_none_or(|(id, _)| is_live(id.value())) {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        write.open_table(CANDIDATES)?.retain(|id, _| is_live(id))?;
        Ok(write.commit()?)
    }

    /// Whether the database refuses everything until it is opened again, as it does after the first I/O error: a full
    /// disk, or one that fails. Does not wait for anybody's transaction.
    pub fn is_lost(&self) -> bool {
        use redb::{StorageError, TransactionError};
        let tried = self.database.try_begin_write();
        matches!(tried, Err(TransactionError::Storage(StorageError::PreviousIo)))
    }

    /// Decisions, with the entries that record them, in one transaction.
    pub fn decide(
        &self,
        at: u64,
        key: &SigningKey,
        change: impl FnOnce(&mut Decision<'_>) -> Result<()>,
    ) -> Result<()> {
        let write = self.database.begin_write()?;
        let mut decision = Decision { write: &write, at, key };
        change(&mut decision)?;
        Ok(write.commit()?)
    }

    /// Everything as it stands now, for readers of which nothing may change between two readings.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot { read: self.database.begin_read()? })
    }

    /// A named value.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.snapshot()?.meta(name)
    }

    /// A named number.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        self.snapshot()?.number(name)
    }

    /// A device.
    pub fn device(&self, name: &str) -> Result<Option<Device>> {
        let table = self.database.begin_read()?.open_table(DEVICES)?;
        table.get(name)?.map(|value| parse("device", value.value())).transpose()
    }

    /// Calls `each` for every device, in the order of names, without holding them all.
    pub fn each_device(&self, each: impl FnMut(Device)) -> Result<()> {
        self.snapshot()?.each_device(each)
    }

    /// Whether there is such a device; looks no further than to the first.
    pub fn any_device(&self, mut is_such: impl FnMut(&Device) -> bool) -> Result<bool> {
        let table = self.database.begin_read()?.open_table(DEVICES)?;
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
        self.snapshot()?.round(id)
    }

    /// Every round, oldest first.
    pub fn rounds(&self) -> Result<Vec<Round>> {
        self.snapshot()?.rounds()
    }

    /// The rounds after this one, oldest first.
    pub fn rounds_after(&self, id: u64) -> Result<Vec<Round>> {
        let table = self.database.begin_read()?.open_table(ROUNDS)?;
        table.range(id + 1..)?.map(|entry| parse("round", entry?.1.value())).collect()
    }

    /// The newest round.
    pub fn newest_round(&self) -> Result<Option<Round>> {
        let table = self.database.begin_read()?.open_table(ROUNDS)?;
        table.last()?.map(|(_, value)| parse("round", value.value())).transpose()
    }

    /// What has come in for a round.
    pub fn tally(&self, round: u64) -> Result<Tally> {
        self.snapshot()?.tally(round)
    }

    /// A model version.
    pub fn model(&self, version: u64) -> Result<Option<Model>> {
        let table = self.database.begin_read()?.open_table(MODELS)?;
        table.get(version)?.map(|value| parse("model", value.value())).transpose()
    }

    /// Every model version, oldest first.
    pub fn models(&self) -> Result<Vec<Model>> {
        self.snapshot()?.models()
    }

    /// The newest version that is such.
    pub fn newest_model(&self, is_such: impl Fn(&Model) -> bool) -> Result<Option<Model>> {
        newest_model(&self.database.begin_read()?.open_table(MODELS)?, is_such)
    }

    /// The last thing that a device said of a version: what [`Decision::put_report`] was given.
    pub fn reported(&self, version: u64, device: &str) -> Result<Option<u8>> {
        let table = match self.database.begin_read()?.open_table(REPORTS) {
            // Made with the first report.
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table?,
        };
        Ok(table.get((version, device))?.map(|said| said.value()))
    }

    /// The last thing that each device said of a version, in the order of their names.
    pub fn reports(&self, version: u64) -> Result<Vec<(String, u8)>> {
        let table = match self.database.begin_read()?.open_table(REPORTS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let all = table.range(reports_of(version))?;
        all.map(|entry| {
            let (name, said) = entry?;
            Ok::<_, StoreError>((name.value().1.to_owned(), said.value()))
        })
        .collect()
    }

    /// The last round that there may have been before this database, as far as [`Decision::go_on_above`] was told; 0 for none.
    pub fn rounds_above(&self) -> Result<u64> {
        Ok(self.number(ROUNDS_ABOVE)?.unwrap_or(0))
    }

    /// Rounds up to [`Store::rounds_above`] which this database does not have.
    pub fn unknown_rounds(&self) -> Result<u64> {
        let above = self.rounds_above()?;
        let table = self.database.begin_read()?.open_table(ROUNDS)?;
        let known = table.range(..=above)?.count() as u64;
        Ok(above.saturating_sub(known))
    }

    /// The bytes of a version's parameters.
    pub fn parameters(&self, version: u64) -> Result<Option<Vec<u8>>> {
        self.snapshot()?.parameters(version)
    }

    /// The bytes of a round's candidate.
    pub fn candidate(&self, round: u64) -> Result<Option<Vec<u8>>> {
        let table = self.database.begin_read()?.open_table(CANDIDATES)?;
        Ok(table.get(round)?.map(|value| value.value().to_vec()))
    }

    /// One worker's sum.
    pub fn sum(&self, round: u64, worker: u32, rules: RoundRules) -> Result<PartialSum> {
        let table = self.database.begin_read()?.open_table(SUMS)?;
        match table.get((round, worker))? {
            Some(bytes) => Ok(PartialSum::decode(rules, bytes.value())?),
            None => Ok(PartialSum::new(rules)),
        }
    }

    /// All workers' sums of a round, merged.
    pub fn merged(&self, round: u64, rules: RoundRules) -> Result<PartialSum> {
        self.snapshot()?.merged(round, rules)
    }

    /// How many names a round counted, and the SHA-256 of the ordered list of names and digests.
    pub fn members(&self, round: u64) -> Result<(u64, Digest)> {
        self.snapshot()?.members(round)
    }

    /// The device behind a name.
    pub fn named(&self, round: u64, name: Pseudonym) -> Result<Option<Device>> {
        let read = self.database.begin_read()?;
        let names = read.open_table(NAMES)?;
        let Some(device) = names.get((round, name.0))? else { return Ok(None) };
        let devices = read.open_table(DEVICES)?;
        devices.get(device.value())?.map(|value| parse("device", value.value())).transpose()
    }

    /// The round in which an update was counted.
    pub fn counted_in(&self, update: Digest) -> Result<Option<u64>> {
        let table = self.database.begin_read()?.open_table(UPDATES)?;
        Ok(table.get(update.0)?.map(|round| round.value()))
    }

    /// Whether a name was counted in a round, and with which update.
    pub fn counted(&self, round: u64, name: Pseudonym) -> Result<Option<Digest>> {
        let table = self.database.begin_read()?.open_table(COUNTED)?;
        Ok(table.get((round, name.0))?.map(|digest| Digest(digest.value())))
    }

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

    /// How many audit entries there are: another number whenever something was decided.
    pub fn entries(&self) -> Result<u64> {
        let table = self.database.begin_read()?.open_table(AUDIT)?;
        Ok(table.last()?.map_or(0, |(number, _)| number.value() + 1))
    }

    /// The first audit entry, which says whose fleet it is; `None` where nothing was ever decided.
    pub fn first_entry(&self) -> Result<Option<Entry>> {
        let table = self.database.begin_read()?.open_table(AUDIT)?;
        let first = table.first()?;
        first.map(|(_, value)| parse("audit entry", value.value())).transpose()
    }

    /// What `pick` takes of the newest audit entry of which it takes anything.
    pub fn newest_event<T>(&self, pick: impl Fn(Event) -> Option<T>) -> Result<Option<T>> {
        let table = self.database.begin_read()?.open_table(AUDIT)?;
        for row in table.iter()?.rev() {
            let entry: Entry = parse("audit entry", row?.1.value())?;
            if let Some(taken) = pick(parse("event", entry.event.as_bytes())?) {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }
}

/// The database as it stood at one instant, whatever is committed meanwhile.
pub struct Snapshot {
    read: ReadTransaction,
}

impl Snapshot {
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

    fn check_format(&self, path: &Path) -> Result<()> {
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
        let table = self.read.open_table(META)?;
        table.get(name)?.map(|value| number_of(name, value.value())).transpose()
    }

    /// Calls `each` for every device, in the order of names, without holding them all.
    pub fn each_device(&self, mut each: impl FnMut(Device)) -> Result<()> {
        let table = self.read.open_table(DEVICES)?;
        for entry in table.iter()? {
            each(parse("device", entry?.1.value())?);
        }
        Ok(())
    }

    /// A round.
    pub fn round(&self, id: u64) -> Result<Option<Round>> {
        let table = self.read.open_table(ROUNDS)?;
        table.get(id)?.map(|value| parse("round", value.value())).transpose()
    }

    /// Every round, oldest first.
    pub fn rounds(&self) -> Result<Vec<Round>> {
        let table = self.read.open_table(ROUNDS)?;
        table.iter()?.map(|entry| parse("round", entry?.1.value())).collect()
    }

    /// What has come in for a round.
    pub fn tally(&self, round: u64) -> Result<Tally> {
        let table = self.read.open_table(TALLIES)?;
        let tally = table.get(round)?.map(|value| parse("tally", value.value())).transpose()?;
        Ok(tally.unwrap_or_default())
    }

    /// Every model version, oldest first.
    pub fn models(&self) -> Result<Vec<Model>> {
        let table = self.read.open_table(MODELS)?;
        table.iter()?.map(|entry| parse("model", entry?.1.value())).collect()
    }

    /// The bytes of a version's parameters.
    pub fn parameters(&self, version: u64) -> Result<Option<Vec<u8>>> {
        let table = self.read.open_table(PARAMETERS)?;
        Ok(table.get(version)?.map(|value| value.value().to_vec()))
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

fn change_tally(
    write: &WriteTransaction,
    round: u64,
    change: impl FnOnce(&mut Tally),
) -> Result<()> {
    let mut tallies = write.open_table(TALLIES)?;
    let stored = tallies.get(round)?.map(|value| parse("tally", value.value())).transpose()?;
    let mut tally: Tally = stored.unwrap_or_default();
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
    let Some(record) = devices.get(device.value())? else {
        return Ok(Some(NotCounted::UnknownDevice));
    };
    let device: Device = parse("device", record.value())?;
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
    let Some(record) = rounds.get(round)? else { return Ok(refuse_all(NotCounted::UnknownRound)) };
    let record: Round = parse("round", record.value())?;
    let open = record.phase == Phase::Collecting;
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

/// Changes of one transaction.
pub struct Decision<'a> {
    write: &'a WriteTransaction,
    at: u64,
    key: &'a SigningKey,
}

impl Decision<'_> {
    /// Adds an entry to the audit log.
    pub fn record(&mut self, event: &Event) -> Result<()> {
        let mut table = self.write.open_table(AUDIT)?;
        let last = table.last()?.map(|(_, value)| parse::<Entry>("audit entry", value.value()));
        let head = match last.transpose()? {
            None => Head::EMPTY,
            Some(entry) => Head {
                next: entry.number + 1,
                hash: Digest(crate::hex::decode(&entry.hash).ok_or_else(|| Damaged {
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
        self.write.open_table(DEVICES)?.insert(device.name.as_str(), json(device).as_slice())?;
        Ok(())
    }

    /// The round as it stands now, within the transaction.
    pub fn round(&self, id: u64) -> Result<Option<Round>> {
        let table = self.write.open_table(ROUNDS)?;

        table.get(id)?.map(|value| parse("round", value.value())).transpose()
    }

    /// The round that is not over, if there is one. None begins beside another, so it is the newest.
    pub fn live_round(&self) -> Result<Option<Round>> {
        let table = self.write.open_table(ROUNDS)?;
        let newest = table.last()?.map(|(_, value)| parse("round", value.value())).transpose()?;
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
        let table = self.write.open_table(META)?;
        table.get(name)?.map(|value| number_of(name, value.value())).transpose()
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
        let table = self.write.open_table(MODELS)?;

        table.get(version)?.map(|value| parse("model", value.value())).transpose()
    }

    /// Every model version as it stands now, oldest first.
    pub fn models(&self) -> Result<Vec<Model>> {
        let table = self.write.open_table(MODELS)?;
        table.iter()?.map(|entry| parse("model", entry?.1.value())).collect()
    }

    /// The newest version that is such, as it stands now.
    pub fn newest_model(&self, is_such: impl Fn(&Model) -> bool) -> Result<Option<Model>> {
        newest_model(&self.write.open_table(MODELS)?, is_such)
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

/// The newest version that is such.
fn newest_model(
    models: &impl ReadableTable<u64, &'static [u8]>,
    is_such: impl Fn(&Model) -> bool,
) -> Result<Option<Model>> {
    for entry in models.iter()?.rev() {
        let model: Model = parse("model", entry?.1.value())?;
        if is_such(&model) {
            return Ok(Some(model));
        }
    }
    Ok(None)
}

/// The places of what devices said of a version.
fn reports_of(version: u64) -> std::ops::Range<(u64, &'static str)> {
    // No name of a device sorts before the empty one.
    (version, "")..(version + 1, "")
}

fn number_of(name: &str, bytes: &[u8]) -> Result<u64> {
    let damaged = |_| Damaged { what: format!("number {name}"), reason: "its length".into() };
    Ok(bytes.try_into().map(u64::from_le_bytes).map_err(damaged)?)
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    let damaged =
        |error: serde_json::Error| Damaged { what: what.into(), reason: error.to_string() };
    Ok(serde_json::from_slice(bytes).map_err(damaged)?)
}
