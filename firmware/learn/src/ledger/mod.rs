//! The privacy ledger: write-ahead, hash-chained, synchronised, append-only.
//!
//! A release is reserved and on disk before any noise is drawn for it, and what was reserved stays spent. Every
//! question about the budget is answered from the records alone.
//!
//! **Invariants**
//! - A [`Reservation`] exists only after its record is durable, and is good for one noising.
//! - A training run is reserved at most once, so one delta has at most one noising.
//! - The clock decides nothing: order is the order of records.
//! - A damaged ledger refuses every release and is never repaired by itself. Only an end that was never completely
//!   written is cut off: its writer never got an answer, so nothing was noised under it.
//!
//! **Limit**: an older copy of the whole file, put back in its place, is a valid ledger. It is detected where the
//! platform has a [`MonotonicCounter`], and cannot be detected where it has none. So no ledger is ever put back: what was spent since the copy
//! would be spent twice.

mod record;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

pub use record::{RECORD_BYTES, Record, RecordKind};

use crate::edges::{
    Clock, Digest, EdgeError, Entropy, LayoutId, MonotonicCounter, ReleaseId, RunId, Storage,
};
use crate::privacy::{AccountantError, Budget, Composition, NoiseMultiplier, PrivacyStatement};

/// The file that holds the records.
pub const LEDGER_NAME: &str = "privacy-ledger";

const NO_HASH: Digest = Digest([0; 32]);

/// Why the ledger refused.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A record is not what was written.
    #[error(
        "{LEDGER_NAME}: record {record} is damaged: {reason}. This mirror makes no update any more; all else goes on"
    )]
    Corrupt {
        /// Position of the record.
        record: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Records are missing that the platform's counter knows of.
    #[error(
        "{LEDGER_NAME} has {found} records but the platform counted {counted}: an older copy was put back. \
         This mirror makes no update any more; all else goes on"
    )]
    RolledBack {
        /// Records in the file.
        found: u64,
        /// Records counted.
        counted: u64,
    },
    /// The budget does not allow one more release.
    #[error("no release: it would bring this device to {would_be}, above the target of {target}")]
    OverBudget {
        /// What the release would cost in all.
        would_be: PrivacyStatement,
        /// The target epsilon, at the statement's delta.
        target: f64,
    },
    /// As many releases as the device may ever make were reserved.
    #[error(
        "no release: {reserved} of at most {most} were reserved over this device's life, and more noise does not allow more of \
         them"
    )]
    TooMany {
        /// Releases reserved so far, burnt ones included.
        reserved: u64,
        /// The most over the device's life.
        most: u64,
    },
    /// The delta was reserved for before.
    #[error("{0} was reserved for before; a delta is noised at most once, train a new one")]
    AlreadyReserved(RunId),
    /// Another release is under way.
    #[error("release {0} is still under way; finish or burn it first")]
    Busy(ReleaseId),
    /// The release does not exist or is not at the step before.
    #[error("release {release} cannot become {wanted:?} now")]
    Order {
        /// The release.
        release: ReleaseId,
        /// The step that was asked for.
        wanted: RecordKind,
    },
    /// The accountant could not answer.
    #[error(transparent)]
    Accountant(#[from] AccountantError),
    /// Storage, entropy or the counter failed.
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

/// What to set budget aside for.
#[derive(Clone, Copy, Debug)]
pub struct ReservationRequest {
    /// The run whose delta is to be released.
    pub run: RunId,
    /// What its values belong to.
    pub layout: LayoutId,
    /// Number of values.
    pub dimension: usize,
    /// Noise multiplier.
    pub noise_multiplier: NoiseMultiplier,
}

/// Budget set aside, durably, for one noising. Neither copied nor made by hand.
#[derive(Debug)]
pub struct Reservation {
    release: ReleaseId,
    run: RunId,
    noise_multiplier: NoiseMultiplier,
}

impl Reservation {
    /// The release.
    pub fn release(&self) -> ReleaseId {
        self.release
    }

    /// The run whose delta it is for.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The noise multiplier that was accounted.
    pub fn noise_multiplier(&self) -> NoiseMultiplier {
        self.noise_multiplier
    }
}

/// Where a release stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseState {
    /// The last step taken.
    pub kind: RecordKind,
    /// The run.
    pub run: RunId,
    /// Digest of the encoded update, zero before it was sampled.
    pub digest: Digest,
}

/// The contents of a ledger, verified.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Every record, in order.
    pub records: Vec<Record>,
    /// Bytes at the end that were never completely written.
    pub torn_bytes: usize,
    head: Option<Digest>,
    releases: BTreeMap<ReleaseId, ReleaseState>,
    runs: HashSet<RunId>,
    composition: Composition,
}

impl Verified {
    /// What was reserved, burnt releases included.
    pub fn composition(&self) -> &Composition {
        &self.composition
    }

    /// Hash of the last record, zero for an empty ledger.
    pub fn head(&self) -> Digest {
        self.head.unwrap_or(NO_HASH)
    }

    /// Every release and where it stands.
    pub fn releases(&self) -> &BTreeMap<ReleaseId, ReleaseState> {
        &self.releases
    }

    fn admit(&mut self, record: Record, hash: Digest) -> Result<(), &'static str> {
        if record.sequence != self.records.len() as u64 {
            return Err("its sequence number is wrong");
        }
        let before = self.releases.get(&record.release);
        if !record.kind.may_follow(before.map(|state| state.kind)) {
            return Err("its release was not at the step before");
        }
        if before.is_some_and(|state| state.run != record.run) {
            return Err("its run is not the one reserved");
        }
        if record.kind == RecordKind::Reserved {
            if !self.runs.insert(record.run) {
                return Err("its run was reserved twice");
            }
            self.composition.add(record.noise_multiplier, 1);
        }
        let state = ReleaseState { kind: record.kind, run: record.run, digest: record.digest };
        self.releases.insert(record.release, state);
        self.head = Some(hash);
        self.records.push(record);
        Ok(())
    }
}

/// Checks the bytes of a ledger: every hash, the chain, and that every release took its steps in order.
///
/// An end that was never completely written is reported, not refused: a partial record, or records of zeros only (the
/// file had grown but the sectors were not written). Pure, so that an auditor can run it on a copy.
///
/// # Errors
/// [`LedgerError::Corrupt`] naming the first record that is not what was written.
pub fn verify(bytes: &[u8]) -> Result<Verified, LedgerError> {
    let mut verified = Verified::default();
    let (chunks, rest) = bytes.as_chunks::<RECORD_BYTES>();
    let written = chunks.iter().rposition(|chunk| chunk.iter().any(|&byte| byte != 0));
    let written = written.map_or(0, |last| last + 1);
    verified.torn_bytes = (chunks.len() - written) * RECORD_BYTES + rest.len();
    for (index, chunk) in chunks[..written].iter().enumerate() {
        let corrupt = |reason| LedgerError::Corrupt { record: index as u64, reason };
        let (record, hash) = Record::decode(chunk, &verified.head()).map_err(corrupt)?;
        verified.admit(record, hash).map_err(corrupt)?;
    }
    Ok(verified)
}

/// What has been spent and what is left, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LedgerSummary {
    /// Privacy spent so far.
    pub spent: PrivacyStatement,
    /// The target epsilon at the same delta, unit, adjacency and trust.
    pub target_epsilon: f64,
    /// Releases that still fit at the noise multiplier asked about.
    pub releases_left: u64,
    /// Releases that were given up after their reservation; their budget is spent.
    pub burnt: u64,
    /// Updates waiting in the outbox.
    pub waiting: u64,
    /// Updates that the aggregator has.
    pub published: u64,
}

/// The ledger of this device.
pub struct Ledger {
    storage: Arc<dyn Storage>,
    counter: Arc<dyn MonotonicCounter>,
    clock: Arc<dyn Clock>,
    budget: Budget,
    /// Releases over the device's life, whatever epsilon they cost.
    most_releases: u64,
    verified: Verified,
    /// Set by a failed write: what is on the medium has to be read again before anything is decided.
    uncertain: bool,
}

impl Ledger {
    /// Opens, verifies and, where a crash left a torn end, mends the ledger.
    ///
    /// Releases that were under way are left as they are; [`crate::release::ReleasePath::open`] finishes or burns them.
    ///
    /// # Errors
    /// [`LedgerError::Corrupt`], [`LedgerError::RolledBack`] where the counter knows of more records, or of the storage or the counter.
    pub fn open(
        storage: Arc<dyn Storage>,
        counter: Arc<dyn MonotonicCounter>,
        clock: Arc<dyn Clock>,
        budget: Budget,
    ) -> Result<Ledger, LedgerError> {
        let mut ledger = Ledger {
            storage,
            counter,
            clock,
            budget,
            most_releases: u64::MAX,
            verified: Verified::default(),
            uncertain: true,
        };
        ledger.settle()?;
        Ok(ledger)
    }

    /// Refuses more than `most` releases in all as well: epsilon alone would allow more of them under more noise, and people
    /// were promised a number.
    pub fn with_most_releases(mut self, most: u64) -> Ledger {
        self.most_releases = most;
        self
    }

    /// The verified contents.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Spent and left. `z` is the noise multiplier of the releases to come.
    ///
    /// # Errors
    /// [`LedgerError::Accountant`], which the delta of no [`Budget`] brings about.
    pub fn summary(&self, z: NoiseMultiplier) -> Result<LedgerSummary, LedgerError> {
        let states = || self.verified.releases.values();
        let count = |kind| states().filter(|state| state.kind == kind).count() as u64;
        Ok(LedgerSummary {
            spent: self.verified.composition.statement(self.budget.delta())?,
            target_epsilon: self.budget.epsilon(),
            releases_left: self.releases_left(z),
            burnt: count(RecordKind::Burnt),
            waiting: count(RecordKind::Persisted),
            published: count(RecordKind::Published),
        })
    }

    /// How many more releases at `z` fit the budget and the number of releases.
    pub fn releases_left(&self, z: NoiseMultiplier) -> u64 {
        let fits = |count: u64| {
            let mut composition = self.verified.composition.clone();
            composition.add(z, count);
            composition.fits(&self.budget)
        };
        let mut high = 1_u64;
        while high < 1 << 40 && fits(high) {
            high *= 2;
        }
        let mut low = high / 2;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        low.min(self.most_releases.saturating_sub(self.verified.composition.release_count()))
    }

    /// Sets budget aside for one release, durably, or refuses.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] while another release is under way, [`LedgerError::AlreadyReserved`] for a run of before,
    /// [`LedgerError::OverBudget`] and [`LedgerError::TooMany`] where no budget or number is left, those of [`Ledger::open`] where an earlier
    /// write failed, or of the storage, the entropy or the counter. Where the record's write fails the budget may be spent all the same.
    pub fn reserve(
        &mut self,
        request: &ReservationRequest,
        entropy: &mut dyn Entropy,
    ) -> Result<Reservation, LedgerError> {
        self.settle()?;
        if let Some(release) = self.under_way() {
            return Err(LedgerError::Busy(release));
        }
        if self.verified.runs.contains(&request.run) {
            return Err(LedgerError::AlreadyReserved(request.run));
        }
        let next = self.verified.composition.with(request.noise_multiplier);
        if !next.fits(&self.budget) {
            let would_be = next.statement(self.budget.delta())?;
            return Err(LedgerError::OverBudget { would_be, target: self.budget.epsilon() });
        }
        let (reserved, most) = (self.verified.composition.release_count(), self.most_releases);
        if reserved >= most {
            return Err(LedgerError::TooMany { reserved, most });
        }
        // Before the write: without entropy, or a counter that can be raised, nothing is reserved, and so nothing is lost.
        self.counter.raise(self.verified.records.len() as u64)?;
        let release = ReleaseId::random(entropy)?;
        self.write(Record {
            kind: RecordKind::Reserved,
            sequence: self.verified.records.len() as u64,
            time: self.clock.now(),
            release,
            run: request.run,
            noise_multiplier: request.noise_multiplier,
            dimension: request.dimension as u64,
            layout: request.layout,
            digest: NO_HASH,
        })?;
        let ReservationRequest { run, noise_multiplier, .. } = *request;
        Ok(Reservation { release, run, noise_multiplier })
    }

    /// Records the digest of the only encoded update of a release.
    ///
    /// # Errors
    /// [`LedgerError::Order`] where it is not reserved alone; those of [`Ledger::open`] where an earlier write failed, or of the storage or
    /// the counter.
    pub(crate) fn mark_sampled(
        &mut self,
        release: ReleaseId,
        digest: Digest,
    ) -> Result<(), LedgerError> {
        self.advance(release, RecordKind::Sampled, Some(digest))
    }

    /// Records that the update is in the outbox.
    ///
    /// # Errors
    /// [`LedgerError::Order`] where it is not sampled; otherwise as [`Ledger::mark_sampled`].
    pub(crate) fn mark_persisted(&mut self, release: ReleaseId) -> Result<(), LedgerError> {
        self.advance(release, RecordKind::Persisted, None)
    }

    /// Records that the aggregator has the update.
    ///
    /// # Errors
    /// [`LedgerError::Order`] where it is not persisted; otherwise as [`Ledger::mark_sampled`].
    pub(crate) fn mark_published(&mut self, release: ReleaseId) -> Result<(), LedgerError> {
        self.advance(release, RecordKind::Published, None)
    }

    /// Gives a release up. Its budget stays spent.
    ///
    /// # Errors
    /// [`LedgerError::Order`] where it is unknown, published or burnt; otherwise as [`Ledger::mark_sampled`].
    pub(crate) fn burn(&mut self, release: ReleaseId) -> Result<(), LedgerError> {
        self.advance(release, RecordKind::Burnt, None)
    }

    /// The release between reservation and outbox, if there is one.
    fn under_way(&self) -> Option<ReleaseId> {
        let open =
            |state: &ReleaseState| matches!(state.kind, RecordKind::Reserved | RecordKind::Sampled);
        self.verified.releases.iter().find(|(_, state)| open(state)).map(|(release, _)| *release)
    }

    fn advance(
        &mut self,
        release: ReleaseId,
        wanted: RecordKind,
        digest: Option<Digest>,
    ) -> Result<(), LedgerError> {
        self.settle()?;
        let order = LedgerError::Order { release, wanted };
        let Some(last) =
            self.verified.records.iter().rev().find(|record| record.release == release)
        else {
            return Err(order);
        };
        if !wanted.may_follow(Some(last.kind)) {
            return Err(order);
        }
        self.write(Record {
            kind: wanted,
            sequence: self.verified.records.len() as u64,
            time: self.clock.now(),
            digest: digest.unwrap_or(last.digest),
            ..last.clone()
        })
    }

    fn write(&mut self, record: Record) -> Result<(), LedgerError> {
        let bytes = record.encode(&self.verified.head());
        self.uncertain = true;
        self.storage.append(LEDGER_NAME, &bytes)?;
        let index = record.sequence;
        let (record, hash) = Record::decode(&bytes, &self.verified.head())
            .map_err(|reason| LedgerError::Corrupt { record: index, reason })?;
        self.verified
            .admit(record, hash)
            .map_err(|reason| LedgerError::Corrupt { record: index, reason })?;
        self.uncertain = false;
        Ok(self.counter.raise(self.verified.records.len() as u64)?)
    }

    /// Whether a failed write or an unfinished release has to be dealt with first.
    pub(crate) fn needs_recovery(&self) -> bool {
        self.uncertain || self.under_way().is_some()
    }

    /// Brings memory and medium together after opening or after a failed write.
    pub(crate) fn settle(&mut self) -> Result<(), LedgerError> {
        if !self.uncertain {
            return Ok(());
        }
        let bytes = self.storage.read(LEDGER_NAME)?.unwrap_or_default();
        let verified = verify(&bytes)?;
        let found = verified.records.len() as u64;
        // What this process has seen counts as well: a file exchanged under a running mirror is noticed.
        let counted = self.counter.value()?.unwrap_or(0).max(self.verified.records.len() as u64);
        if counted > found {
            return Err(LedgerError::RolledBack { found, counted });
        }
        if verified.torn_bytes > 0 {
            self.storage.truncate(LEDGER_NAME, (bytes.len() - verified.torn_bytes) as u64)?;
        }
        self.counter.raise(found)?;
        self.verified = verified;
        self.uncertain = false;
        Ok(())
    }
}
