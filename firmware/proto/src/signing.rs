//! Statements of the fleet, signed with Ed25519; the keys that a device trusts; and the rule against older ones.
//!
//! No clock decides anything here. Statements carry a sequence number that the signer raises with each, and whoever reads
//! statements keeps a [`Watermark`] and refuses what lies below.

use std::fmt;
use std::marker::PhantomData;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::ids::Digest;
pub use crate::ids::KeyId;
use crate::wire::{Blob, DecodeError, Kind, MESSAGE_BYTES, Message};

const DOMAIN: &[u8] = b"mirror signed v1\0";

impl KeyId {
    /// The id of a public key.
    pub fn of(key: &VerifyingKey) -> KeyId {
        let digest = Digest::of(key.as_bytes()).0;
        KeyId(std::array::from_fn(|index| digest[index]))
    }
}

/// What a statement is for; part of the signed bytes. A message type has exactly one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Rounds.
    Task,
    /// Models and jobs.
    Model,
    /// Receipts.
    Receipt,
}

/// A message that counts only when signed.
pub trait Statement: Message {
    /// What it is for.
    const PURPOSE: Purpose;
}

/// Why a signed statement, or a file of keys, was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// No such key.
    #[error(
        "it is signed with key {key}, and fleet.pub has {trusted}; ask the operator which is right: `aggregator status` names the key"
    )]
    Untrusted {
        /// The statement's.
        key: KeyId,
        /// Those that are trusted.
        trusted: KeyRing,
    },
    /// A file of public keys without one.
    #[error("it has no public key; each is a line of 64 hexadecimal digits")]
    NoKey,
    /// A file of public keys that cannot be read.
    #[error("line {0} is no public key of 64 hexadecimal digits")]
    Text(usize),
    /// The signature does not match.
    #[error("the signature of key {0} does not match")]
    Signature(KeyId),
    /// The statement itself cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Older than one that is known.
    #[error("statement {found} is older than {known}, which is known already")]
    Older {
        /// Highest number known.
        known: u64,
        /// This one's.
        found: u64,
    },
    /// Two different statements with one number.
    #[error(
        "two different statements carry number {0}; the signer is at fault or its key is stolen"
    )]
    Contradiction(u64),
}

/// A statement that was signed and not yet verified. What it says cannot be read before that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    key: KeyId,
    sequence: u64,
    body: Blob,
    signature: [[u8; 32]; 2],
    #[serde(skip)]
    what: PhantomData<fn() -> T>,
}

impl<T: Statement> Message for Signed<T> {
    const KIND: Kind = Kind::Signed;
    const MAX_BYTES: usize = MESSAGE_BYTES;
}

impl<T: Statement> Signed<T> {
    /// Signs a statement with its number. The number is higher than that of every other of the same purpose.
    ///
    /// # Errors
    /// Where the statement itself is not allowed.
    pub fn sign(key: &SigningKey, sequence: u64, statement: &T) -> Result<Signed<T>, DecodeError> {
        let (id, body) = (KeyId::of(&key.verifying_key()), statement.encode()?);
        let signature = key.sign(&signed_bytes(T::PURPOSE, id, sequence, &body));
        Ok(Signed {
            key: id,
            sequence,
            body: Blob(body),
            signature: halves(&signature),
            what: PhantomData,
        })
    }

    /// The statement, if a trusted key signed it.
    ///
    /// # Errors
    /// See [`SigningError`].
    pub fn verify(&self, keys: &KeyRing) -> Result<T, SigningError> {
        let key = keys.find(self.key)?;
        let bytes = signed_bytes(T::PURPOSE, self.key, self.sequence, &self.body.0);
        key.verify_strict(&bytes, &whole(&self.signature))
            .map_err(|_| SigningError::Signature(self.key))?;
        Ok(T::decode(&self.body.0)?)
    }

    /// Its number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// SHA-256 of what was signed.
    pub fn digest(&self) -> Digest {
        Digest::of(&signed_bytes(T::PURPOSE, self.key, self.sequence, &self.body.0))
    }
}

fn signed_bytes(purpose: Purpose, key: KeyId, sequence: u64, body: &[u8]) -> Vec<u8> {
    [DOMAIN, &[purpose as u8], &key.0, &sequence.to_le_bytes(), body].concat()
}

pub(crate) fn halves(signature: &Signature) -> [[u8; 32]; 2] {
    [*signature.r_bytes(), *signature.s_bytes()]
}

pub(crate) fn whole(halves: &[[u8; 32]; 2]) -> Signature {
    Signature::from_components(halves[0], halves[1])
}

/// The public keys that are trusted, each for everything. Shown by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: Vec<VerifyingKey>,
}

impl KeyRing {
    /// One key.
    pub fn single(key: VerifyingKey) -> KeyRing {
        KeyRing { keys: vec![key] }
    }

    /// Public keys as text, one of 64 hexadecimal digits a line. Empty lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    /// [`SigningError::Text`] naming the line; [`SigningError::NoKey`] where there is none.
    pub fn from_text(text: &str) -> Result<KeyRing, SigningError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes: Option<Digest> = line.parse().ok();
            let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes.0).ok());
            keys.push(key.ok_or(SigningError::Text(number + 1))?);
        }
        if keys.is_empty() { Err(SigningError::NoKey) } else { Ok(KeyRing { keys }) }
    }

    /// The keys' names.
    pub fn ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(KeyId::of).collect()
    }

    fn find(&self, id: KeyId) -> Result<&VerifyingKey, SigningError> {
        self.keys
            .iter()
            .find(|key| KeyId::of(key) == id)
            .ok_or_else(|| SigningError::Untrusted { key: id, trusted: self.clone() })
    }
}

impl fmt::Display for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.ids().iter().map(KeyId::to_string).collect();
        formatter.write_str(&names.join(", "))
    }
}

/// The newest statement that was taken, to be kept on disk. One for each purpose, of one fleet and channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Its number.
    pub sequence: u64,
    /// Its digest.
    pub digest: Digest,
}

/// How a statement stands to the newest known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Newer; the watermark to keep from now on.
    New(Watermark),
    /// The very same.
    Known,
}

/// The not-older rule. Call it with a *verified* statement.
///
/// # Errors
/// [`SigningError::Older`] and [`SigningError::Contradiction`].
pub fn freshness<T: Statement>(
    known: Option<&Watermark>,
    statement: &Signed<T>,
) -> Result<Freshness, SigningError> {
    let this = Watermark { sequence: statement.sequence(), digest: statement.digest() };
    match known {
        Some(known) if this == *known => Ok(Freshness::Known),
        Some(known) if this.sequence == known.sequence => {
            Err(SigningError::Contradiction(this.sequence))
        }
        Some(known) if this.sequence < known.sequence => {
            Err(SigningError::Older { known: known.sequence, found: this.sequence })
        }
        _ => Ok(Freshness::New(this)),
    }
}
