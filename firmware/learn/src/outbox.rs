//! Encoded, noised updates that wait for the network. Their bytes are fixed: every retry sends the same.

use std::sync::Arc;

use crate::edges::{Digest, EdgeError, ReleaseId, Storage};
use crate::update::EncodedUpdate;

const PREFIX: &str = "update-";

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Updates at most.
    pub updates: usize,
    /// Bytes of one update at most.
    pub bytes_each: usize,
}

impl Default for OutboxLimits {
    /// Eight updates of four mebibytes: several times the full two layers.
    fn default() -> OutboxLimits {
        OutboxLimits { updates: 8, bytes_each: 4 << 20 }
    }
}

/// Why the outbox refused.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Too many updates wait already.
    #[error("{0} updates already wait for the network; no new one is made until some are sent")]
    Full(usize),
    /// The update is larger than allowed.
    #[error(
        "an update of {actual} bytes is larger than the outbox's limit of {limit}; train fewer parameters"
    )]
    TooLarge {
        /// Bytes of the update.
        actual: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Other bytes are stored for this release.
    #[error(
        "release {0} already has other bytes in the outbox; a release is never sent in two forms"
    )]
    Different(ReleaseId),
    /// The stored bytes are missing or not the ones that the ledger knows.
    #[error(
        "the stored update of release {0} is missing or damaged; the release is given up, its budget stays spent"
    )]
    Damaged(ReleaseId),
    /// Storage failed.
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

/// The updates that wait, one file each.
pub struct Outbox {
    storage: Arc<dyn Storage>,
    limits: OutboxLimits,
}

impl Outbox {
    /// An outbox in `storage`, which may hold other things too.
    pub fn new(storage: Arc<dyn Storage>, limits: OutboxLimits) -> Outbox {
        Outbox { storage, limits }
    }

    /// The releases that have a file, in the order of their ids.
    ///
    /// # Errors
    /// Of the storage.
    pub fn releases(&self) -> Result<Vec<ReleaseId>, OutboxError> {
        let names = self.storage.names()?;
        let release = |name: &String| ReleaseId::from_hex(name.strip_prefix(PREFIX)?);
        Ok(names.iter().filter_map(release).collect())
    }

    /// Whether one more update of `bytes` would be taken. Asked before budget is reserved.
    ///
    /// # Errors
    /// [`OutboxError::TooLarge`], [`OutboxError::Full`], or of the storage.
    pub fn check_room(&self, bytes: usize) -> Result<(), OutboxError> {
        if bytes > self.limits.bytes_each {
            return Err(OutboxError::TooLarge { actual: bytes, limit: self.limits.bytes_each });
        }
        let waiting = self.releases()?.len();
        if waiting >= self.limits.updates { Err(OutboxError::Full(waiting)) } else { Ok(()) }
    }

    /// Stores an update. Storing the same one again is no error; other bytes for its release are.
    ///
    /// # Errors
    /// [`OutboxError::Different`], those of [`Outbox::check_room`], or of the storage.
    pub fn put(&self, update: &EncodedUpdate) -> Result<(), OutboxError> {
        let name = name(update.release());
        match self.storage.read(&name)? {
            Some(stored) if stored == update.as_bytes() => return Ok(()),
            Some(_) => return Err(OutboxError::Different(update.release())),
            None => self.check_room(update.as_bytes().len())?,
        }
        Ok(self.storage.replace(&name, update.as_bytes())?)
    }

    /// The bytes of a release, if they are exactly those with this digest.
    ///
    /// # Errors
    /// [`OutboxError::Damaged`] where they are missing or others, or of the storage.
    pub fn read(&self, release: ReleaseId, digest: &Digest) -> Result<Vec<u8>, OutboxError> {
        let bytes = self.storage.read(&name(release))?;
        bytes.filter(|bytes| Digest::of(bytes) == *digest).ok_or(OutboxError::Damaged(release))
    }

    /// Removes a release's bytes, if there are any.
    ///
    /// # Errors
    /// Of the storage.
    pub fn remove(&self, release: ReleaseId) -> Result<(), OutboxError> {
        Ok(self.storage.remove(&name(release))?)
    }
}

fn name(release: ReleaseId) -> String {
    format!("{PREFIX}{release}")
}
