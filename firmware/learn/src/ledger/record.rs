//! One record of the ledger: 256 bytes, so that it never straddles a sector and is written whole or not at all.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | `MLR1` |
//! | 4 | 1 | kind |
//! | 5 | 3 | zero |
//! | 8 | 8 | sequence number, from 0 |
//! | 16 | 8 | seconds since 1970 by the device's clock, only shown |
//! | 24 | 16 | release id |
//! | 40 | 16 | run id |
//! | 56 | 8 + 8 | noise multiplier, numerator and denominator |
//! | 72 | 8 | number of values |
//! | 80 | 32 | layout id |
//! | 112 | 32 | SHA-256 of the encoded update, zero before it exists |
//! | 144 | 48 | zero |
//! | 192 | 32 | hash of the record before, zero for the first |
//! | 224 | 32 | SHA-256 of the 224 bytes before |

use crate::edges::{Digest, LayoutId, ReleaseId, RunId, Timestamp};
use crate::privacy::NoiseMultiplier;

/// Bytes of a record.
pub const RECORD_BYTES: usize = 256;

const MAGIC: [u8; 4] = *b"MLR1";
const HASHED_BYTES: usize = RECORD_BYTES - 32;

/// What a record says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// Budget was set aside. From here on it is spent, whatever happens.
    Reserved,
    /// Noise was drawn; the digest of the only encoded update that will ever exist is known.
    Sampled,
    /// That update is in the outbox.
    Persisted,
    /// The aggregator has it.
    Published,
    /// The release was given up. Its budget stays spent.
    Burnt,
}

impl RecordKind {
    const ALL: [RecordKind; 5] = [
        RecordKind::Reserved,
        RecordKind::Sampled,
        RecordKind::Persisted,
        RecordKind::Published,
        RecordKind::Burnt,
    ];

    /// Whether a record of this kind may follow one of kind `before` of the same release.
    pub(super) fn may_follow(self, before: Option<RecordKind>) -> bool {
        use RecordKind::{Burnt, Persisted, Published, Reserved, Sampled};
        matches!(
            (before, self),
            (None, Reserved)
                | (Some(Reserved), Sampled | Burnt)
                | (Some(Sampled), Persisted | Burnt)
                | (Some(Persisted), Published | Burnt)
        )
    }
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What happened.
    pub kind: RecordKind,
    /// Position in the ledger.
    pub sequence: u64,
    /// When, by a clock that may be wrong.
    pub time: Timestamp,
    /// The release.
    pub release: ReleaseId,
    /// The training run whose delta it is.
    pub run: RunId,
    /// Noise multiplier.
    pub noise_multiplier: NoiseMultiplier,
    /// Number of values.
    pub dimension: u64,
    /// What the values belong to.
    pub layout: LayoutId,
    /// Digest of the encoded update, zero until it was sampled.
    pub digest: Digest,
}

impl Record {
    /// The bytes, chained to the record before.
    pub fn encode(&self, previous: &Digest) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        put(0, &MAGIC);
        put(4, &[self.kind as u8]);
        put(8, &self.sequence.to_le_bytes());
        put(16, &self.time.0.to_le_bytes());
        put(24, &self.release.0);
        put(40, &self.run.0);
        put(56, &self.noise_multiplier.numerator().to_le_bytes());
        put(64, &self.noise_multiplier.denominator().to_le_bytes());
        put(72, &self.dimension.to_le_bytes());
        put(80, &self.layout.0);
        put(112, &self.digest.0);
        put(192, &previous.0);
        let hash = Digest::of(&bytes[..HASHED_BYTES]);
        bytes[HASHED_BYTES..].copy_from_slice(&hash.0);
        bytes
    }

    /// Reads a record that must follow `previous`; gives it with its own hash, or what is wrong with it.
    pub fn decode(
        bytes: &[u8; RECORD_BYTES],
        previous: &Digest,
    ) -> Result<(Record, Digest), &'static str> {
        let hash = Digest::of(&bytes[..HASHED_BYTES]);
        if bytes[HASHED_BYTES..] != hash.0 {
            return Err("its hash does not match its bytes");
        }
        if bytes[192..224] != previous.0 {
            return Err("it does not follow the record before it");
        }
        let number = |offset| u64::from_le_bytes(field(bytes, offset));
        let record = Record {
            kind: *RecordKind::ALL.get(usize::from(bytes[4])).ok_or("its kind is unknown")?,
            sequence: number(8),
            time: Timestamp(number(16)),
            release: ReleaseId(field(bytes, 24)),
            run: RunId(field(bytes, 40)),
            noise_multiplier: NoiseMultiplier::from_fraction(number(56), number(64))
                .map_err(|_| "its noise multiplier is not allowed")?,
            dimension: number(72),
            layout: LayoutId(field(bytes, 80)),
            digest: Digest(field(bytes, 112)),
        };
        // Encoding again catches every bit that has no meaning.
        if record.encode(previous) != *bytes {
            return Err("it has bytes that mean nothing");
        }
        Ok((record, hash))
    }
}

fn field<const N: usize>(bytes: &[u8; RECORD_BYTES], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[offset + index])
}
