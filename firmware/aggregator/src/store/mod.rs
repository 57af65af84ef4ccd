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

mod count;
mod decision;
mod read;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use learn::averaging::{AveragingError, PartialSum, RoundRules};
use learn::edges::Digest;
use proto::Pseudonym;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::audit::{AuditError, Entry, Event};
use crate::files;
use crate::records::{Damaged, Device, Model, Round, Tally};
pub use count::{Arrival, Fate, NotCounted};
pub use decision::Decision;
pub use read::Snapshot;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const DEVICES: TableDefinition<&str, &[u8]> = TableDefinition::new("devices");
/// By fingerprint and name: a row for every device, whatever its standing.
const CERTIFICATES: TableDefinition<(&str, &str), ()> = TableDefinition::new("certificates");
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

/// The highest number that a round or a version may have had in a database that was lost.
const ROUNDS_ABOVE: &str = "rounds-above";
const VERSIONS_ABOVE: &str = "versions-above";

/// Pages of the file that are kept in memory, in bytes. The default of a gibibyte would grow with the fleet.
const CACHE_BYTES: usize = 32 << 20;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum StoreError {
    #[error(
        "another process holds the database {0}: a server, which has to be stopped first, or another command, which will be done \
         soon; try again, or find it with `fuser {0}`"
    )]
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
        if self.snapshot()?.first_candidate()?.is_none_or(is_live) {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        write.open_table(CANDIDATES)?.retain(|id, _| is_live(id))?;
        Ok(write.commit()?)
    }

    /// Notes the certificates of all devices, unless they are: programs from before 2026-11-30 noted none.
    pub fn note_certificates(&self) -> Result<()> {
        if self.snapshot()?.are_certificates_noted()? {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        {
            let (devices, mut noted) =
                (write.open_table(DEVICES)?, write.open_table(CERTIFICATES)?);
            for entry in devices.iter()? {
                let device: Device = read::parse("device", entry?.1.value())?;
                noted.insert((device.fingerprint.as_str(), device.name.as_str()), ())?;
            }
        }
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
        change(&mut Decision::new(&write, at, key))?;
        Ok(write.commit()?)
    }

    /// Everything as it stands now, for readers of which nothing may change between two readings.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot::new(self.database.begin_read()?))
    }

    /// [`Snapshot::newest_event`] of this instant.
    pub fn newest_event<T>(&self, pick: impl Fn(Event) -> Option<T>) -> Result<Option<T>> {
        self.snapshot()?.newest_event(pick)
    }
}

/// What a snapshot of this instant says.
macro_rules! reads {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        impl Store {
            $(
                #[doc = concat!("[`Snapshot::", stringify!($name), "`] of this instant.")]
                pub fn $name(&self, $($argument: $type),*) -> Result<$result> {
                    self.snapshot()?.$name($($argument),*)
                }
            )+
        }
    };
}

reads! {
    meta(name: &str) -> Option<Vec<u8>>;
    number(name: &str) -> Option<u64>;
    device(name: &str) -> Option<Device>;
    holder(fingerprint: &str) -> Option<Device>;
    each_device(each: impl FnMut(Device)) -> ();
    any_device(is_such: impl FnMut(&Device) -> bool) -> bool;
    enrolled() -> u64;
    round(id: u64) -> Option<Round>;
    rounds() -> Vec<Round>;
    rounds_after(id: u64) -> Vec<Round>;
    newest_round() -> Option<Round>;
    rounds_above() -> u64;
    versions_above() -> u64;
    unknown_rounds() -> u64;
    tally(round: u64) -> Tally;
    model(version: u64) -> Option<Model>;
    models() -> Vec<Model>;
    newest_model(is_such: impl Fn(&Model) -> bool) -> Option<Model>;
    parameters(version: u64) -> Option<Vec<u8>>;
    candidate(round: u64) -> Option<Vec<u8>>;
    reported(version: u64, device: &str) -> Option<u8>;
    reports(version: u64) -> Vec<(String, u8)>;
    sum(round: u64, worker: u32, rules: RoundRules) -> PartialSum;
    merged(round: u64, rules: RoundRules) -> PartialSum;
    members(round: u64) -> (u64, Digest);
    named(round: u64, name: Pseudonym) -> Option<Device>;
    counted_in(update: Digest) -> Option<u64>;
    counted(round: u64, name: Pseudonym) -> Option<Digest>;
    entries() -> u64;
    first_entry() -> Option<Entry>;
}

/// The places of what devices said of a version.
fn reports_of(version: u64) -> std::ops::Range<(u64, &'static str)> {
    // No name of a device sorts before the empty one.
    (version, "")..(version + 1, "")
}
