//! Bytes in chunks: what a manifest says of them, cutting them up, and putting them together again.
//!
//! A manifest names the SHA-256 of the whole and of every chunk. A chunk is therefore judged when it arrives: one of
//! another transfer, or a damaged one, is refused without harm to those that are there.

use serde::{Deserialize, Serialize};

use crate::ids::Digest;

/// Bytes of a chunk; the last may have fewer. With its headers a message stays within 64 KiB.
pub const CHUNK_BYTES: usize = 60 * 1024;

/// Chunks of one transfer at most: 30 MiB.
pub const MAX_CHUNKS: usize = 512;

/// Runs of chunks that one request names at most.
pub const MAX_RANGES: usize = 64;

/// What a manifest says of the bytes it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Number of bytes.
    pub bytes: u64,
    /// SHA-256 of them all; it identifies the transfer.
    pub sha256: Digest,
    /// SHA-256 of every chunk, in order.
    pub chunks: Vec<Digest>,
}

/// Why a chunk was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Of another transfer.
    #[error("the chunk belongs to {found}, this transfer is {expected}")]
    Foreign {
        /// The transfer under way.
        expected: Digest,
        /// The chunk's.
        found: Digest,
    },
    /// Beyond the last.
    #[error("there is no chunk {index}; the transfer has {total}")]
    Index {
        /// The chunk's index.
        index: u16,
        /// Number of chunks.
        total: usize,
    },
    /// Not the chunk that the manifest names.
    #[error("chunk {0} is not the one that the manifest names; it is asked for again")]
    Chunk(u16),
    /// The whole does not match, though every chunk does: the manifest contradicts itself.
    #[error("the whole is not what the manifest names; the transfer is given up")]
    Whole,
    /// Nothing, or too much.
    #[error("{0} bytes are outside what a transfer carries, 1 to 31457280")]
    Size(u64),
}

impl Content {
    /// Describes `bytes`.
    ///
    /// # Errors
    /// [`ContentError::Size`] for none, or for more than [`MAX_CHUNKS`] chunks.
    pub fn of(bytes: &[u8]) -> Result<Content, ContentError> {
        let content = Content {
            bytes: bytes.len() as u64,
            sha256: Digest::of(bytes),
            chunks: bytes.chunks(CHUNK_BYTES).map(Digest::of).collect(),
        };
        content.check().map_err(|_| ContentError::Size(content.bytes))?;
        Ok(content)
    }

    /// Names what contradicts itself.
    pub fn check(&self) -> Result<(), &'static str> {
        let needed = self.bytes.div_ceil(CHUNK_BYTES as u64);
        if needed == 0 || needed > MAX_CHUNKS as u64 {
            return Err("number of bytes");
        }
        if needed != self.chunks.len() as u64 {
            return Err("number of chunks");
        }
        Ok(())
    }

    /// Number of chunks.
    pub fn total(&self) -> usize {
        self.chunks.len()
    }

    /// Whether these bytes are chunk `index`.
    pub fn check_chunk(&self, index: u16, bytes: &[u8]) -> Result<(), ContentError> {
        let total = self.total();
        let expected =
            self.chunks.get(usize::from(index)).ok_or(ContentError::Index { index, total })?;
        if bytes.len() > CHUNK_BYTES || Digest::of(bytes) != *expected {
            return Err(ContentError::Chunk(index));
        }
        Ok(())
    }
}

/// Chunk `index` of `bytes`, or `None` beyond the last.
pub fn chunk(bytes: &[u8], index: u16) -> Option<&[u8]> {
    bytes.chunks(CHUNK_BYTES).nth(usize::from(index))
}

/// Chunks `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRange {
    /// First index.
    pub first: u16,
    /// Last index, included.
    pub last: u16,
}

/// Names what is wrong with a list of ranges: too many, unordered, or overlapping.
pub(crate) fn check_ranges(ranges: &[ChunkRange]) -> Result<(), &'static str> {
    let ordered = ranges.iter().all(|range| range.first <= range.last);
    let apart = ranges.windows(2).all(|pair| pair[0].last < pair[1].first);
    let inside = ranges.last().is_none_or(|range| usize::from(range.last) < MAX_CHUNKS);
    let few = (1..=MAX_RANGES).contains(&ranges.len());
    if ordered && apart && inside && few { Ok(()) } else { Err("list of chunks") }
}

/// The indexes that a list of ranges names.
pub fn indexes(ranges: &[ChunkRange]) -> impl Iterator<Item = u16> + '_ {
    ranges.iter().flat_map(|range| range.first..=range.last)
}

/// What a chunk did to a reassembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was missing.
    New,
    /// It was there already; nothing changed.
    Again,
}

/// A transfer being put together. Holds the chunks that came, in at most the manifest's number of bytes.
///
/// To resume after a restart, hand the stored chunks to [`Reassembly::take`] again.
#[derive(Clone, Debug)]
pub struct Reassembly {
    content: Content,
    chunks: Vec<Option<Vec<u8>>>,
    missing: usize,
}

impl Reassembly {
    /// Nothing there yet. `content` is taken as checked ([`Content::check`]; decoding does it).
    pub fn new(content: Content) -> Reassembly {
        let total = content.total();
        Reassembly { content, chunks: vec![None; total], missing: total }
    }

    /// What is being put together.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Takes one chunk of `transfer`.
    ///
    /// # Errors
    /// Of another transfer, beyond the last, or not the one that the manifest names; nothing changes then.
    pub fn take(
        &mut self,
        transfer: Digest,
        index: u16,
        bytes: Vec<u8>,
    ) -> Result<Taken, ContentError> {
        if transfer != self.content.sha256 {
            return Err(ContentError::Foreign { expected: self.content.sha256, found: transfer });
        }
        self.content.check_chunk(index, &bytes)?;
        let place = &mut self.chunks[usize::from(index)];
        if place.is_some() {
            return Ok(Taken::Again);
        }
        *place = Some(bytes);
        self.missing -= 1;
        Ok(Taken::New)
    }

    /// Number of chunks that are missing.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// The first missing chunks, at most `limit` of them, as a request names them.
    pub fn missing_ranges(&self, limit: usize) -> Vec<ChunkRange> {
        let absent = self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.is_none());
        let mut ranges: Vec<ChunkRange> = Vec::new();
        for (index, _) in absent.take(limit) {
            let index = index as u16; // below MAX_CHUNKS
            let full = ranges.len() == MAX_RANGES;
            match ranges.last_mut() {
                Some(range) if range.last + 1 == index => range.last = index,
                _ if full => break,
                _ => ranges.push(ChunkRange { first: index, last: index }),
            }
        }
        ranges
    }

    /// The whole, or `None` while chunks are missing.
    ///
    /// # Errors
    /// [`ContentError::Whole`] where the manifest's digests contradict each other.
    pub fn finish(&self) -> Result<Option<Vec<u8>>, ContentError> {
        if self.missing > 0 {
            return Ok(None);
        }
        let whole: Vec<u8> = self.chunks.iter().flatten().flatten().copied().collect();
        if whole.len() as u64 != self.content.bytes || Digest::of(&whole) != self.content.sha256 {
            return Err(ContentError::Whole);
        }
        Ok(Some(whole))
    }
}
