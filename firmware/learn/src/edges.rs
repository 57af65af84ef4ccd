//! The edges through which this crate meets the world: storage, clock, entropy, a monotonic counter, a sealer.
//!
//! Everything else here is arithmetic on plain slices. Tests inject their own edges and so decide what fails, and when.

use std::fmt;

/// What went wrong at an edge, with the operation and the thing it concerned.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A file operation failed.
    #[error("cannot {operation} {name}: {source}; {}", crate::fs::advice(.source))]
    Storage {
        /// What was tried, such as `append to`.
        operation: &'static str,
        /// The file or folder, or the name within a store that is none.
        name: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another process has the folder open.
    #[error("another mirror uses {0}; stop it, or name another folder with data_dir")]
    InUse(String),
    /// A name that is no plain file name.
    #[error("\"{0}\" is not a storage name; use lower-case letters, digits, '-', '_' and '.'")]
    Name(String),
    /// The operating system gave no entropy.
    #[error("the operating system gave no entropy ({0}); no release is possible until it does")]
    Entropy(String),
    /// The monotonic counter could not be read or advanced.
    #[error("the monotonic counter failed: {0}")]
    Counter(String),
    /// The encrypted store refused.
    #[error("the encrypted store failed: {0}")]
    Seal(String),
}

/// A small set of named byte strings that survives power loss.
///
/// When a method returns `Ok`, its effect is durable: the file and the directory entry have reached the medium. When
/// it returns an error, or never returns, `append` may have left any prefix of its bytes; `replace` has either
/// happened or not.
pub trait Storage: Send + Sync {
    /// The whole content, or `None` where the name does not exist.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EdgeError>;
    /// Adds bytes at the end, creating the name where needed.
    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError>;
    /// Puts new content in the place of the old, atomically.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError>;
    /// Shortens the content to `length` bytes.
    fn truncate(&self, name: &str, length: u64) -> Result<(), EdgeError>;
    /// Removes the name; a name that does not exist is no error.
    fn remove(&self, name: &str) -> Result<(), EdgeError>;
    /// Every name, sorted.
    fn names(&self) -> Result<Vec<String>, EdgeError>;
    /// Every name, sorted, with whatever else lies there under names that are none of the store's: for a proof that nothing does.
    fn everything(&self) -> Result<Vec<String>, EdgeError> {
        self.names()
    }
    /// Bytes under the name, 0 where it does not exist. Asked of content that may be unreadable: a store that knows the
    /// size without reading says so.
    fn size(&self, name: &str) -> Result<u64, EdgeError> {
        Ok(self.read(name)?.map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Seconds since 1970 as the device's clock says, right or wrong. Nothing of this crate is decided by it; whoever decides by it expects
/// that it is not set, or jumps.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Fills buffers with unpredictable bytes.
pub trait Entropy: Send {
    /// Fills the whole buffer, or fails.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EdgeError>;
}

/// A number that can only grow, kept where restoring a backup does not reach (a TPM, an RPMB partition, a fuse bank).
pub trait MonotonicCounter: Send + Sync {
    /// The counter's value, or `None` where the platform has no such counter.
    fn value(&self) -> Result<Option<u64>, EdgeError>;
    /// Raises the counter to at least `value`.
    fn raise(&self, value: u64) -> Result<(), EdgeError>;
}

/// A platform without a monotonic counter.
///
/// **Limit**: here an older copy of the ledger, put back in its place, cannot be told from the current one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCounter;

impl MonotonicCounter for NoCounter {
    fn value(&self) -> Result<Option<u64>, EdgeError> {
        Ok(None)
    }

    fn raise(&self, _value: u64) -> Result<(), EdgeError> {
        Ok(())
    }
}

/// Encrypts what must not lie on a disk in the clear. Implemented by the device's encrypted store.
pub trait Sealer {
    /// Authenticated encryption of `plain`.
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, EdgeError>;
    /// The plain bytes, or an error where they were changed or belong to another device.
    fn open(&self, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, EdgeError>;
}

/// The operating system's entropy.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EdgeError> {
        getrandom::fill(buffer).map_err(|error| EdgeError::Entropy(error.to_string()))
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // A clock before 1970 is as wrong as one that says 1970.
        Timestamp(since.map_or(0, |duration| duration.as_secs()))
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $length]);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

identifier!(
    /// One release of one update, random.
    ReleaseId, 16
);
identifier!(
    /// One training run and the delta it makes, random. A run is released at most once.
    RunId, 16
);
identifier!(
    /// Digest of the base model, the names and the shapes of the parameters that an update carries, in order.
    LayoutId, 32
);
identifier!(
    /// SHA-256.
    Digest, 32
);

impl RunId {
    /// A fresh run.
    pub fn random(entropy: &mut dyn Entropy) -> Result<RunId, EdgeError> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        Ok(RunId(bytes))
    }
}

impl ReleaseId {
    pub(crate) fn random(entropy: &mut dyn Entropy) -> Result<ReleaseId, EdgeError> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        Ok(ReleaseId(bytes))
    }

    /// Reads the 32 hexadecimal digits that `Display` writes.
    pub(crate) fn from_hex(text: &str) -> Option<ReleaseId> {
        let digits = text.as_bytes();
        let plain =
            digits.iter().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit));
        if digits.len() != 32 || !plain {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(ReleaseId(bytes))
    }
}

impl Digest {
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        use sha2::Digest as _;
        Digest(sha2::Sha256::digest(bytes).into())
    }
}
