//! The encoding of every message: `[version] [kind] [postcard]`.
//!
//! Strict: another version, another kind, more bytes than the kind allows, bytes left over, or a longer form of a
//! number than needed are all refused. So a message has exactly one encoding, and what was read can be written again
//! to the same bytes.

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version that is written. Versions read: this one.
pub const VERSION: u8 = 1;

/// Bytes of any message at most. AWS IoT takes 128 KB, others 64 KB; this fits all of them.
pub const MESSAGE_BYTES: usize = 64 * 1024;

/// Bytes of an MQTT packet at most: a message, its topic and its properties.
pub const PACKET_BYTES: u32 = MESSAGE_BYTES as u32 + 2048;

/// The second byte of a message. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names are those of the messages
pub enum Kind {
    RoundNotice = 1,
    UpdateOffer = 2,
    UpdateManifest = 3,
    UpdateChunk = 4,
    ChunksWanted = 5,
    Receipt = 6,
    ModelManifest = 7,
    ModelWanted = 8,
    ModelChunk = 9,
    Status = 10,
    JobNotice = 11,
    JobState = 12,
    Signed = 13,
}

/// Why bytes are no such message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer than two bytes.
    #[error("the message is empty")]
    Empty,
    /// Written by a newer, or a much older, sender.
    #[error(
        "the message has version {found}, this program reads version {VERSION}; update the older side"
    )]
    Version {
        /// First byte.
        found: u8,
    },
    /// Another kind of message.
    #[error("the message is of kind {found}, expected {expected:?}")]
    Kind {
        /// Second byte.
        found: u8,
        /// What the topic carries.
        expected: Kind,
    },
    /// Too long.
    #[error("the message has {actual} bytes, a {kind:?} has at most {limit}")]
    TooLarge {
        /// Its kind.
        kind: Kind,
        /// Bytes found.
        actual: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not an encoding of this kind.
    #[error("the {0:?} is damaged")]
    Damaged(Kind),
    /// Not the one encoding of what it says, or bytes behind it.
    #[error("the {0:?} is not in its only form")]
    NotCanonical(Kind),
    /// A field outside its range.
    #[error("the {kind:?}'s {field} is not allowed")]
    Field {
        /// The message.
        kind: Kind,
        /// The field.
        field: &'static str,
    },
}

/// A message of the fleet.
pub trait Message: Serialize + DeserializeOwned {
    /// Its second byte.
    const KIND: Kind;
    /// Bytes of its encoding at most.
    const MAX_BYTES: usize;

    /// Names the first field outside its range.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }

    /// The bytes.
    ///
    /// # Errors
    /// Where a field is outside its range or the message too long: what could not be read is not written.
    fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        self.check().map_err(|field| DecodeError::Field { kind: Self::KIND, field })?;
        let bytes = written(self)?;
        within_limit::<Self>(bytes.len())?;
        Ok(bytes)
    }

    /// Reads a message. What is allocated on the word of a length that is claimed is at most 32 times the bytes that are there.
    ///
    /// # Errors
    /// See [`DecodeError`].
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let [version, kind, body @ ..] = bytes else { return Err(DecodeError::Empty) };
        if *version != VERSION {
            return Err(DecodeError::Version { found: *version });
        }
        if *kind != Self::KIND as u8 {
            return Err(DecodeError::Kind { found: *kind, expected: Self::KIND });
        }
        within_limit::<Self>(bytes.len())?;
        let (message, _) = postcard::take_from_bytes::<Self>(body)
            .map_err(|_| DecodeError::Damaged(Self::KIND))?;
        message.check().map_err(|field| DecodeError::Field { kind: Self::KIND, field })?;
        if written(&message)? != bytes {
            return Err(DecodeError::NotCanonical(Self::KIND));
        }
        Ok(message)
    }
}

fn within_limit<M: Message>(actual: usize) -> Result<(), DecodeError> {
    let limit = M::MAX_BYTES.min(MESSAGE_BYTES);
    if actual > limit {
        return Err(DecodeError::TooLarge { kind: M::KIND, actual, limit });
    }
    Ok(())
}

fn written<M: Message>(message: &M) -> Result<Vec<u8>, DecodeError> {
    postcard::to_extend(message, vec![VERSION, M::KIND as u8])
        .map_err(|_| DecodeError::Damaged(M::KIND))
}

/// Bytes as they are. Written and read in one piece, where a `Vec<u8>` goes byte by byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
