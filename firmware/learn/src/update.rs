//! The bytes of a noised update. Encoding is reserved to [`crate::privacy::Noised`]; decoding is open to aggregators.
//!
//! Little-endian, fixed size for a given header:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | `MLU1` |
//! | 4 | 1 | bytes per value: 2, 3 or 4, a function of the noise multiplier |
//! | 5 | 1 | binary places of a value, 11 |
//! | 6 | 2 | zero |
//! | 8 | 4 | number of values |
//! | 12 | 4 | zero |
//! | 16 | 16 | release id |
//! | 32 | 32 | layout id |
//! | 64 | 8 + 8 | noise multiplier, numerator and denominator |
//! | 80 | width x count | values, two's complement |
//! | end | 32 | SHA-256 of everything before |

use sha2::{Digest as _, Sha256};

use crate::edges::{Digest, LayoutId, ReleaseId};
use crate::privacy::{CLIP_STEPS, FRACTION_BITS, MAX_DIMENSION, NoiseMultiplier};

const MAGIC: [u8; 4] = *b"MLU1";
const HEADER_BYTES: usize = 80;
const DIGEST_BYTES: usize = 32;

/// A value beyond the clip plus this many deviations does not occur in the lifetime of a fleet.
const WIDTH_DEVIATIONS: f64 = 8.0;

/// Why bytes are no update.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Not an update of a version known here.
    #[error("these bytes are no update of format MLU1")]
    Format,
    /// Cut short or with something behind.
    #[error("the update has {actual} bytes where its header asks for {expected}")]
    Length {
        /// By the header.
        expected: usize,
        /// Found.
        actual: usize,
    },
    /// A field outside its range.
    #[error("the update's {0} is not allowed")]
    Field(&'static str),
    /// The digest does not match.
    #[error("the update's digest does not match its bytes; ask for it again")]
    Digest,
}

/// What an update says about itself. All of it is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The release.
    pub release: ReleaseId,
    /// What the values belong to.
    pub layout: LayoutId,
    /// Noise multiplier.
    pub noise_multiplier: NoiseMultiplier,
    /// Number of values.
    pub dimension: usize,
}

impl Header {
    /// Bytes per value: the smallest of 2, 3, 4 that holds the clip and eight deviations.
    pub fn width(&self) -> usize {
        let deviation = self.noise_multiplier.as_f64() * f64::from(CLIP_STEPS);
        let needed = f64::from(CLIP_STEPS) + WIDTH_DEVIATIONS * deviation;
        (2..4).find(|&width| needed < largest(width) as f64).unwrap_or(4)
    }

    /// The largest magnitude of a value.
    pub(crate) fn largest_value(&self) -> i64 {
        largest(self.width())
    }

    /// Bytes of the whole encoded update.
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + self.width() * self.dimension + DIGEST_BYTES
    }
}

fn largest(width: usize) -> i64 {
    (1 << (8 * width - 1)) - 1
}

/// Encoded, noised, final: these bytes and no others are ever sent for their release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedUpdate {
    release: ReleaseId,
    bytes: Vec<u8>,
}

impl EncodedUpdate {
    pub(crate) fn new(header: &Header, values: &[i32]) -> EncodedUpdate {
        let width = header.width();
        let mut bytes = Vec::with_capacity(header.encoded_bytes());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[width as u8, FRACTION_BITS as u8, 0, 0]);
        bytes.extend_from_slice(&(header.dimension as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&header.release.0);
        bytes.extend_from_slice(&header.layout.0);
        bytes.extend_from_slice(&header.noise_multiplier.numerator().to_le_bytes());
        bytes.extend_from_slice(&header.noise_multiplier.denominator().to_le_bytes());
        for value in values {
            bytes.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        bytes.extend_from_slice(&Digest::of(&bytes).0);
        EncodedUpdate { release: header.release, bytes }
    }

    /// The release.
    pub fn release(&self) -> ReleaseId {
        self.release
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// SHA-256 of the bytes, as the ledger records it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// A received update: checked in form, not yet in content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    header: Header,
    values: Vec<i32>,
}

impl Update {
    /// Reads an update. Every length is checked before anything is allocated.
    pub fn decode(bytes: &[u8]) -> Result<Update, UpdateError> {
        Ok(Update::decode_with_digest(bytes)?.0)
    }

    /// [`Update::decode`] with the SHA-256 of all the bytes, by which fleet and ledger know an update: the bytes are hashed
    /// once for both this and the digest at their end.
    ///
    /// # Errors
    /// As [`Update::decode`].
    pub fn decode_with_digest(bytes: &[u8]) -> Result<(Update, Digest), UpdateError> {
        let header = read_header(bytes)?;
        let expected = header.encoded_bytes();
        if bytes.len() != expected {
            return Err(UpdateError::Length { expected, actual: bytes.len() });
        }
        let (content, digest) = bytes.split_at(expected - DIGEST_BYTES);
        let mut hash = Sha256::new_with_prefix(content);
        if hash.clone().finalize()[..] != *digest {
            return Err(UpdateError::Digest);
        }
        hash.update(digest);
        let limit = header.largest_value();
        let values = read_values(&content[HEADER_BYTES..], header.width());
        // Two's complement has one more negative value than the mechanism ever writes.
        if values.iter().any(|&value| i64::from(value).abs() > limit) {
            return Err(UpdateError::Field("value"));
        }
        Ok((Update { header, values }, Digest(hash.finalize().into())))
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The noised values in steps of `2^-11`.
    pub fn values(&self) -> &[i32] {
        &self.values
    }
}

fn read_header(bytes: &[u8]) -> Result<Header, UpdateError> {
    if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC {
        return Err(UpdateError::Format);
    }
    if u32::from(bytes[5]) != FRACTION_BITS || bytes[6..8] != [0; 2] || bytes[12..16] != [0; 4] {
        return Err(UpdateError::Field("fixed part"));
    }
    let dimension = u32::from_le_bytes(field(bytes, 8)) as usize;
    if dimension == 0 || dimension > MAX_DIMENSION {
        return Err(UpdateError::Field("number of values"));
    }
    let (numerator, denominator) =
        (u64::from_le_bytes(field(bytes, 64)), u64::from_le_bytes(field(bytes, 72)));
    let noise_multiplier = NoiseMultiplier::from_fraction(numerator, denominator)
        .ok()
        .filter(|z| (z.numerator(), z.denominator()) == (numerator, denominator))
        .ok_or(UpdateError::Field("noise multiplier"))?;
    let header = Header {
        release: ReleaseId(field(bytes, 16)),
        layout: LayoutId(field(bytes, 32)),
        noise_multiplier,
        dimension,
    };
    if usize::from(bytes[4]) != header.width() {
        return Err(UpdateError::Field("width"));
    }
    Ok(header)
}

/// `N` bytes at `offset` of a header whose length was checked.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[offset + index])
}

/// Little-endian values of 2, 3 or 4 bytes; one loop for each width, so that the compiler can unroll it.
fn read_values(bytes: &[u8], width: usize) -> Vec<i32> {
    match width {
        2 => bytes.as_chunks().0.iter().map(|&pair| i32::from(i16::from_le_bytes(pair))).collect(),
        // The value sits in the upper bytes: shifting down extends its sign.
        3 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&[a, b, c]| i32::from_le_bytes([0, a, b, c]) >> 8)
            .collect(),
        _ => bytes.as_chunks().0.iter().map(|&word| i32::from_le_bytes(word)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(z: &str, dimension: usize) -> Header {
        Header {
            release: ReleaseId([3; 16]),
            layout: LayoutId([4; 32]),
            noise_multiplier: z.parse().unwrap(),
            dimension,
        }
    }

    #[test]
    fn values_survive_at_every_width() {
        for (z, width) in [("1.2", 2), ("2.0793", 3), ("600", 4)] {
            let header = header(z, 5);
            assert_eq!(header.width(), width);
            let limit = header.largest_value() as i32;
            let values = [0, 1, -1, limit, -limit];
            let encoded = EncodedUpdate::new(&header, &values);
            assert_eq!(encoded.as_bytes().len(), header.encoded_bytes());
            let update = Update::decode(encoded.as_bytes()).unwrap();
            assert_eq!(update.values(), values);
            assert_eq!(update.header(), &header);
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let encoded = EncodedUpdate::new(&header("1.2", 3), &[100, -100, 7]).into_bytes();
        for length in 0..encoded.len() {
            assert!(Update::decode(&encoded[..length]).is_err(), "{length}");
        }
        for bit in 0..8 * encoded.len() {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Update::decode(&flipped).is_err(), "bit {bit}");
        }
        let mut longer = encoded.clone();
        longer.push(0);
        assert!(matches!(Update::decode(&longer), Err(UpdateError::Length { .. })));
    }

    #[test]
    fn a_header_that_asks_for_gigabytes_allocates_nothing() {
        let mut encoded = EncodedUpdate::new(&header("1.2", 3), &[1, 2, 3]).into_bytes();
        encoded[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Update::decode(&encoded), Err(UpdateError::Field("number of values")));
    }
}
