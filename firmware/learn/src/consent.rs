//! Consent: off by default, per purpose, recorded with the text that was shown, and revocable at once.
//!
//! Training and noising take a [`ConsentToken`]. Only [`Consents::token`] makes one, only from a current record, and
//! it dies the moment the record is withdrawn, on whatever thread it is.
//!
//! A token cannot be made by hand:
//! ```compile_fail,E0451
//! use learn::consent::{ConsentToken, ContributeToFleet};
//! let token = ConsentToken::<ContributeToFleet> { epoch: 0, current: Default::default(), purpose: Default::default() };
//! ```
//! nor turned from one purpose into another:
//! ```compile_fail,E0308
//! use learn::consent::{ConsentToken, ContributeToFleet, ImproveMyMirror};
//! fn widen(token: ConsentToken<ImproveMyMirror>) -> ConsentToken<ContributeToFleet> { token }
//! ```

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::edges::{Clock, EdgeError, Storage, Timestamp};

/// What a person can agree to. Each is asked and withdrawn on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurposeKind {
    /// Train this mirror's own head on this household's corrections. Nothing leaves the device.
    ImproveMyMirror,
    /// Send noised updates to the fleet, within the privacy budget.
    ContributeToFleet,
}

impl PurposeKind {
    /// Every one.
    pub const ALL: [PurposeKind; 2] =
        [PurposeKind::ImproveMyMirror, PurposeKind::ContributeToFleet];

    /// What people read on its switch.
    pub const fn title(self) -> &'static str {
        match self {
            PurposeKind::ImproveMyMirror => "Improve my mirror",
            PurposeKind::ContributeToFleet => "Contribute to the fleet",
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A purpose as a type, so that a token for one cannot serve another.
pub trait Purpose: sealed::Sealed {
    /// The purpose as a value.
    const KIND: PurposeKind;
}

/// See [`PurposeKind::ImproveMyMirror`].
#[derive(Clone, Copy, Debug)]
pub struct ImproveMyMirror;

/// See [`PurposeKind::ContributeToFleet`].
#[derive(Clone, Copy, Debug)]
pub struct ContributeToFleet;

impl sealed::Sealed for ImproveMyMirror {}
impl sealed::Sealed for ContributeToFleet {}
impl Purpose for ImproveMyMirror {
    const KIND: PurposeKind = PurposeKind::ImproveMyMirror;
}
impl Purpose for ContributeToFleet {
    const KIND: PurposeKind = PurposeKind::ContributeToFleet;
}

/// That somebody agreed: to what, having read which version of the text, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentRecord {
    /// What was agreed to.
    pub purpose: PurposeKind,
    /// Version of the explanation that was shown.
    pub text_version: u32,
    /// When, by the device's clock.
    pub granted_at: Timestamp,
}

/// Why there is no consent.
#[derive(Debug, thiserror::Error)]
pub enum ConsentError {
    /// Nobody agreed to this purpose, or they took it back.
    #[error("\"{}\" is off; it is switched on on the mirror's own page", .0.title())]
    Missing(PurposeKind),
    /// The explanation has changed since.
    #[error(
        "\"{}\" was agreed to in version {given:x} of the text, which is now {current:x}; ask again", .purpose.title()
    )]
    Outdated {
        /// The purpose.
        purpose: PurposeKind,
        /// The version agreed to.
        given: u32,
        /// The version in force.
        current: u32,
    },
    /// The consent file is not what this version writes.
    #[error(
        "{CONSENT_NAME} is damaged ({0}); every consent counts as not given until it is asked for again"
    )]
    Damaged(String),
    /// Consent is taken back in memory, and the medium still says that it is given.
    #[error(
        "the consent is taken back, and this holds until the mirror's next start only; the disk cannot be written ({0}): make the \
         data folder writable, or free some room, and take it back again"
    )]
    Unstored(#[source] EdgeError),
    /// The records could not be read, or a new one not be stored.
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

/// The file that holds the records.
pub const CONSENT_NAME: &str = "consent.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentFile {
    format: u32,
    records: Vec<ConsentRecord>,
}

/// What is in force, and what the medium does not know of it.
#[derive(Default)]
struct Held {
    records: Vec<ConsentRecord>,
    /// Taken back, and still given on the medium.
    unstored: Vec<PurposeKind>,
}

/// The consents in force on this device.
pub struct Consents {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    text_versions: [u32; 2],
    held: Mutex<Held>,
    /// Grows with every change, per purpose; a token is good for one value only.
    epochs: [Arc<AtomicU64>; 2],
}

impl Consents {
    /// Reads the records. `text_versions` are those of the explanations that this firmware shows, one of each purpose, in the order of
    /// [`PurposeKind::ALL`].
    ///
    /// # Errors
    /// [`ConsentError::Damaged`] where the file is not what this version writes, or of the storage.
    pub fn open(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        text_versions: [u32; 2],
    ) -> Result<Consents, ConsentError> {
        let records = match storage.read(CONSENT_NAME)? {
            None => Vec::new(),
            Some(bytes) => parse(&bytes)?,
        };
        Ok(Consents {
            storage,
            clock,
            text_versions,
            held: Mutex::new(Held { records, unstored: Vec::new() }),
            epochs: Default::default(),
        })
    }

    /// Starts over without any consent, for when [`Consents::open`] found the file damaged.
    ///
    /// # Errors
    /// Of the storage.
    pub fn reset(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        text_versions: [u32; 2],
    ) -> Result<Consents, ConsentError> {
        storage.remove(CONSENT_NAME)?;
        Consents::open(storage, clock, text_versions)
    }

    /// Records that somebody agreed to `purpose` after reading `text_version`.
    ///
    /// # Errors
    /// [`ConsentError::Outdated`] where that is not the version in force, or of the storage; nothing is agreed to then.
    pub fn grant(
        &self,
        purpose: PurposeKind,
        text_version: u32,
    ) -> Result<ConsentRecord, ConsentError> {
        let current = self.text_version(purpose);
        if text_version != current {
            return Err(ConsentError::Outdated { purpose, given: text_version, current });
        }
        let record = ConsentRecord { purpose, text_version, granted_at: self.clock.now() };
        let mut held = self.lock();
        let mut next: Vec<ConsentRecord> =
            held.records.iter().filter(|record| record.purpose != purpose).cloned().collect();
        next.push(record.clone());
        self.store(&next)?;
        self.epoch(purpose).fetch_add(1, Ordering::SeqCst);
        *held = Held { records: next, unstored: Vec::new() };
        Ok(record)
    }

    /// Takes consent back, also on a full disk: where the records cannot be stored, their file is removed, and after a
    /// restart every purpose has to be asked for again. What was taken back before, and is so on the medium, writes nothing.
    ///
    /// # Errors
    /// [`ConsentError::Unstored`] where the file can be neither replaced nor removed. Every token of the purpose is dead even
    /// then; [`Consents::store_withdrawals`] tries again.
    pub fn withdraw(&self, purpose: PurposeKind) -> Result<(), ConsentError> {
        self.take_back(&[purpose])
    }

    /// [`Consents::withdraw`] for every purpose, in one step.
    ///
    /// # Errors
    /// As [`Consents::withdraw`].
    pub fn withdraw_all(&self) -> Result<(), ConsentError> {
        self.take_back(&PurposeKind::ALL)
    }

    fn take_back(&self, purposes: &[PurposeKind]) -> Result<(), ConsentError> {
        let kill_tokens = || {
            for purpose in purposes {
                self.epoch(*purpose).fetch_add(1, Ordering::SeqCst);
            }
        };
        kill_tokens();
        let mut held = self.lock();
        let records = std::mem::take(&mut held.records);
        let (gone, kept): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| purposes.contains(&record.purpose));
        held.records = kept;
        held.unstored.extend(gone.iter().map(|record| record.purpose));
        // Again, for a token that was made between the first step and the removal of the record.
        kill_tokens();
        self.settle(&mut held)
    }

    /// Whether consent to `purpose` was taken back, and the medium still says that it is given.
    pub fn is_unstored(&self, purpose: PurposeKind) -> bool {
        self.lock().unstored.contains(&purpose)
    }

    /// Tries once more to store what was taken back in memory alone; gives the purposes that are off for good by it.
    ///
    /// # Errors
    /// [`ConsentError::Unstored`] where the medium still refuses.
    pub fn store_withdrawals(&self) -> Result<Vec<PurposeKind>, ConsentError> {
        let mut held = self.lock();
        let unstored = held.unstored.clone();
        self.settle(&mut held).map(|()| unstored)
    }

    /// Brings the medium to what is in force, where it says more.
    fn settle(&self, held: &mut Held) -> Result<(), ConsentError> {
        if held.unstored.is_empty() {
            return Ok(());
        }
        let stored = self.store(&held.records);
        // An unlink needs no space, and no file is no consent.
        stored
            .or_else(|error| self.storage.remove(CONSENT_NAME).map_err(|_| error))
            .map_err(ConsentError::Unstored)?;
        held.unstored.clear();
        Ok(())
    }

    /// The record of a purpose, current or not.
    pub fn record(&self, purpose: PurposeKind) -> Option<ConsentRecord> {
        self.lock().records.iter().find(|record| record.purpose == purpose).cloned()
    }

    /// Whether nothing is agreed to, in any version of the words.
    pub fn is_empty(&self) -> bool {
        self.lock().records.is_empty()
    }

    /// A token, if there is a current record.
    ///
    /// # Errors
    /// [`ConsentError::Missing`] without a record, [`ConsentError::Outdated`] with one of other words.
    pub fn token<P: Purpose>(&self) -> Result<ConsentToken<P>, ConsentError> {
        let current = self.epoch(P::KIND).clone();
        // Before the record is looked at: a withdrawal in between makes the token stale rather than good.
        let epoch = current.load(Ordering::SeqCst);
        let record = self.record(P::KIND).ok_or(ConsentError::Missing(P::KIND))?;
        let (given, current_text) = (record.text_version, self.text_version(P::KIND));
        if given != current_text {
            return Err(ConsentError::Outdated { purpose: P::KIND, given, current: current_text });
        }
        Ok(ConsentToken { epoch, current, purpose: PhantomData })
    }

    fn text_version(&self, purpose: PurposeKind) -> u32 {
        self.text_versions[purpose as usize]
    }

    fn epoch(&self, purpose: PurposeKind) -> &Arc<AtomicU64> {
        &self.epochs[purpose as usize]
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // No code panics while it holds the lock half-changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, records: &[ConsentRecord]) -> Result<(), EdgeError> {
        let file = ConsentFile { format: 1, records: records.to_vec() };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| EdgeError::Storage {
            operation: "encode",
            name: CONSENT_NAME.to_owned(),
            source: error.into(),
        })?;
        self.storage.replace(CONSENT_NAME, &text)
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<ConsentRecord>, ConsentError> {
    let file: ConsentFile =
        serde_json::from_slice(bytes).map_err(|error| ConsentError::Damaged(error.to_string()))?;
    if file.format != 1 {
        return Err(ConsentError::Damaged(format!("format {} is unknown", file.format)));
    }
    Ok(file.records)
}

/// Proof of a current consent to one purpose. Good until the consent changes.
#[derive(Clone, Debug)]
pub struct ConsentToken<P> {
    epoch: u64,
    current: Arc<AtomicU64>,
    purpose: PhantomData<P>,
}

impl<P: Purpose> ConsentToken<P> {
    /// Whether the consent still stands.
    ///
    /// # Errors
    /// [`ConsentError::Missing`] where it was withdrawn or given anew since.
    pub fn check(&self) -> Result<(), ConsentError> {
        if self.current.load(Ordering::SeqCst) == self.epoch {
            Ok(())
        } else {
            Err(ConsentError::Missing(P::KIND))
        }
    }
}
