//! Download of a model: the signed manifest, the device's requests, the chunks.
//!
//! Versions only rise. To return the fleet to an older model, its content is published anew under the next version;
//! so no device ever has to accept an older manifest.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::content::{CHUNK_BYTES, ChunkRange, Content, MAX_CHUNKS, check_ranges};
use crate::ids::{Channel, DeviceId, Digest};
use crate::signing::{Purpose, Statement};
use crate::wire::{Blob, Kind, Message};

/// A model, as it is announced: retained, signed, and small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelManifest {
    /// The channel.
    pub channel: Channel,
    /// Version, which only rises.
    pub version: u64,
    /// SHA-256 of the base model that these parameters belong to; a device with another one leaves them alone.
    pub base: Digest,
    /// The parameters' bytes.
    pub content: Content,
    /// How many of a thousand devices it is for; see [`rollout_place`]. Raised, and signed anew, as the roll-out goes.
    pub rollout_permille: u16,
}

impl Message for ModelManifest {
    const KIND: Kind = Kind::ModelManifest;
    const MAX_BYTES: usize = 256 + 32 * MAX_CHUNKS;

    fn check(&self) -> Result<(), &'static str> {
        if self.rollout_permille > 1000 {
            return Err("share of the roll-out");
        }
        self.content.check()
    }
}

impl Statement for ModelManifest {
    const PURPOSE: Purpose = Purpose::Model;
}

impl ModelManifest {
    /// Whether the roll-out has come to this device.
    pub fn is_for(&self, device: &DeviceId) -> bool {
        rollout_place(device, self.version) < self.rollout_permille
    }
}

/// A device's place in the roll-out of a version, `0..1000`. Another one for every version, so that nobody is always
/// the first to try.
pub fn rollout_place(device: &DeviceId, version: u64) -> u16 {
    let hash = sha2::Sha256::new()
        .chain_update(b"mirror roll-out v1\0")
        .chain_update(version.to_le_bytes())
        .chain_update(device.as_str().as_bytes())
        .finalize();
    let number = u64::from_le_bytes(std::array::from_fn(|index| hash[index]));
    (number % 1000) as u16
}

/// Chunks of a model that a device asks for at a time, and is sent at a time: half a megabyte.
pub const REQUEST_CHUNKS: usize = 8;

/// A device asks for chunks of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelWanted {
    /// The version.
    pub version: u64,
    /// SHA-256 of its content.
    pub model: Digest,
    /// Which chunks.
    pub chunks: Vec<ChunkRange>,
}

impl Message for ModelWanted {
    const KIND: Kind = Kind::ModelWanted;
    const MAX_BYTES: usize = 512;

    fn check(&self) -> Result<(), &'static str> {
        check_ranges(&self.chunks)
    }
}

/// One chunk of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelChunk {
    /// SHA-256 of the model's content.
    pub model: Digest,
    /// Which chunk, from 0.
    pub index: u16,
    /// Its bytes.
    pub bytes: Blob,
}

impl Message for ModelChunk {
    const KIND: Kind = Kind::ModelChunk;
    const MAX_BYTES: usize = CHUNK_BYTES + 64;
}
