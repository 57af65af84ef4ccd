//! Upload of an update: the offer with its first chunk, the chunks that the aggregator asks for, the receipt.

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::content::{CHUNK_BYTES, ChunkRange, Content, ContentError, check_ranges, chunk};
use crate::ids::{Channel, Digest, Pseudonym};
use crate::secret::RoundIdentity;
use crate::signing::{Purpose, Statement, halves, whole};
use crate::wire::{Blob, DecodeError, Kind, MESSAGE_BYTES, Message};

const DOMAIN: &[u8] = b"mirror update v1\0";

/// Bytes of an update at most: what a device's outbox holds, and what keeps an offer within one message.
pub const MAX_UPDATE_BYTES: u64 = 4 << 20;

/// What a device says of its update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateManifest {
    /// The channel.
    pub channel: Channel,
    /// The round.
    pub round: u64,
    /// The device's name in that round.
    pub pseudonym: Pseudonym,
    /// The update's bytes. Their SHA-256 identifies the update, in this and in every other round.
    pub content: Content,
}

impl Message for UpdateManifest {
    const KIND: Kind = Kind::UpdateManifest;
    const MAX_BYTES: usize = 3072;

    fn check(&self) -> Result<(), &'static str> {
        if self.content.bytes > MAX_UPDATE_BYTES {
            return Err("number of bytes");
        }
        self.content.check()
    }
}

/// A signed manifest and chunk 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateOffer {
    manifest: Blob,
    signature: [[u8; 32]; 2],
    first: Blob,
}

impl Message for UpdateOffer {
    const KIND: Kind = Kind::UpdateOffer;
    const MAX_BYTES: usize = MESSAGE_BYTES;
}

/// Why an offer was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The manifest cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The signature is not the sender's.
    #[error("the offer is not signed with the key of {0} in this round")]
    Signature(Pseudonym),
    /// Sent under another name, or for another round, than it was signed for.
    #[error("the offer's topic and its manifest disagree")]
    Topic,
    /// The first chunk, or the update, is not what the manifest names.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl UpdateOffer {
    /// The offer of `bytes` in a round. The same arguments give the same bytes.
    ///
    /// # Errors
    /// Where the update is empty or too large.
    pub fn new(
        identity: &RoundIdentity,
        channel: &Channel,
        round: u64,
        bytes: &[u8],
    ) -> Result<UpdateOffer, OfferError> {
        let manifest = UpdateManifest {
            channel: channel.clone(),
            round,
            pseudonym: identity.pseudonym,
            content: Content::of(bytes)?,
        };
        let first = chunk(bytes, 0).unwrap_or_default().to_vec();
        UpdateOffer::sign(&identity.key, &manifest, first)
    }

    fn sign(
        key: &SigningKey,
        manifest: &UpdateManifest,
        first: Vec<u8>,
    ) -> Result<UpdateOffer, OfferError> {
        let manifest = manifest.encode()?;
        let signature = halves(&key.sign(&[DOMAIN, &manifest].concat()));
        Ok(UpdateOffer { manifest: Blob(manifest), signature, first: Blob(first) })
    }

    /// What the offer says of itself, before anything is verified: to look the sender's key up.
    pub fn claimed(&self) -> Result<UpdateManifest, OfferError> {
        Ok(UpdateManifest::decode(&self.manifest.0)?)
    }

    /// The manifest and the first chunk, if `key` signed them for this topic's name and round.
    ///
    /// # Errors
    /// See [`OfferError`].
    pub fn verify(
        self,
        key: &VerifyingKey,
        pseudonym: Pseudonym,
        round: u64,
    ) -> Result<(UpdateManifest, Vec<u8>), OfferError> {
        let manifest = self.claimed()?;
        if manifest.pseudonym != pseudonym || manifest.round != round {
            return Err(OfferError::Topic);
        }
        let signed = [DOMAIN, &self.manifest.0].concat();
        key.verify_strict(&signed, &whole(&self.signature))
            .map_err(|_| OfferError::Signature(pseudonym))?;
        manifest.content.check_chunk(0, &self.first.0)?;
        Ok((manifest, self.first.0))
    }
}

/// One chunk after the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateChunk {
    /// The update.
    pub update: Digest,
    /// Which chunk, from 1.
    pub index: u16,
    /// Its bytes.
    pub bytes: Blob,
}

impl Message for UpdateChunk {
    const KIND: Kind = Kind::UpdateChunk;
    const MAX_BYTES: usize = CHUNK_BYTES + 64;
}

/// The aggregator asks for chunks of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunksWanted {
    /// The round.
    pub round: u64,
    /// The update.
    pub update: Digest,
    /// The worker that collects this update, where there are several.
    pub lane: Option<u16>,
    /// Which chunks.
    pub chunks: Vec<ChunkRange>,
}

impl Message for ChunksWanted {
    const KIND: Kind = Kind::ChunksWanted;
    const MAX_BYTES: usize = 512;

    fn check(&self) -> Result<(), &'static str> {
        check_ranges(&self.chunks)
    }
}

/// What became of an update. Signed, so that a device marks nothing as counted on anybody else's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The round that the sender meant.
    pub round: u64,
    /// Its name there.
    pub pseudonym: Pseudonym,
    /// SHA-256 of the update's bytes.
    pub update: Digest,
    /// What became of it.
    pub verdict: Verdict,
}

/// Whether an update counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It does, in this round; which is an earlier one where it had been counted before.
    Accepted {
        /// The round.
        round: u64,
    },
    /// It does not.
    Refused(Refusal),
}

/// Why an update does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The round is over. The update keeps for a later one.
    #[error("the round is over")]
    RoundClosed,
    /// The round does not exist, or has not begun.
    #[error("there is no such round")]
    UnknownRound,
    /// The aggregator is full.
    #[error("the aggregator is busy; try again in {retry_seconds} seconds")]
    Busy {
        /// When to try again.
        retry_seconds: u32,
    },
    /// The device has another update in this round.
    #[error(
        "another update of this device has counted; if another mirror has this one's device.secret, each needs its own"
    )]
    AnotherCounts,
    /// The bytes are no update.
    #[error("the bytes are no update")]
    Malformed,
    /// Layout, number of values or noise are not the round's.
    #[error("layout, number of values or noise are not what the round asks for")]
    Mismatch,
    /// Longer than clip and noise can explain.
    #[error("the update's norm is beyond what clipping and noise can explain")]
    Norm,
    /// The device may not take part any more.
    #[error(
        "this device is revoked, for good; its operator can enrol it under a new certificate and name"
    )]
    Revoked,
}

impl Refusal {
    /// Whether the update can never count. Others are kept and offered again, in this round or a later one.
    pub fn is_final(self) -> bool {
        matches!(self, Refusal::Malformed | Refusal::Norm)
    }
}

impl Message for Receipt {
    const KIND: Kind = Kind::Receipt;
    const MAX_BYTES: usize = 256;
}

impl Statement for Receipt {
    const PURPOSE: Purpose = Purpose::Receipt;
}
