//! What devices and the fleet agree on, without any I/O.
//!
//! The class list ([`taxonomy`]) is shared by every message and file: a model manifest, a parsing and a colour all
//! speak of the same sixteen parts in the same order. The rest is the fleet's protocol, version 1:
//!
//! | Module | Holds |
//! |---|---|
//! | [`ids`] | digests, device names, channels, pseudonyms, exact ratios |
//! | [`wire`] | the encoding: version byte, kind byte, postcard; limits and strictness |
//! | [`topic`] | every topic, built and parsed |
//! | [`content`] | chunks of at most 60 KiB, their digests, reassembly |
//! | [`signing`] | signed statements of the fleet, trusted keys, the not-older rule |
//! | [`secret`] | a device's secret: its name and signature for one round |
//! | [`task`] | rounds: what the fleet asks, and the floor below which a device refuses |
//! | [`update`] | upload: offer, wanted chunks, receipts |
//! | [`model`] | download: manifests, requests, chunks |
//! | [`status`] | birth, last will, jobs |
//!
//! ## An update's way
//! 1. The fleet announces a round ([`task::RoundNotice`], signed, retained). The device checks it against its own
//!    floor, waits for its moment in the report window, and has an update made.
//! 2. It sends an [`update::UpdateOffer`]: the manifest, signed with a key of this round alone, and the first chunk.
//!    A small update is complete with that.
//! 3. For a larger one the aggregator asks ([`update::ChunksWanted`]) for the chunks it lacks, when it has room, and
//!    may name a lane, so that all of them reach the same worker. Chunks that nobody asked for are never sent.
//! 4. The aggregator answers with a signed [`update::Receipt`]. Until it has come the device offers again, with the
//!    same bytes. An update that was counted in *any* round before is answered with that round's receipt and not
//!    counted again; the SHA-256 of the update's bytes identifies it.
//!
//! ## Who can link what
//! Topics of an update carry a name that is HMAC(device secret, channel and round): without the secret, names of two
//! rounds, and the keys that sign in them, cannot be linked to each other or to a device. The aggregator that
//! enrolled the device holds its secret and can link them all; it must, to count one update a round and to refuse
//! the revoked. The broker sees which TLS connection, and so which certificate, sends to which topic. An update that
//! is offered again in a later round is the same bytes under two names, which links these two for whoever reads both.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a failed unwrap is a failed test

pub mod content;
pub mod ids;
pub mod model;
pub mod secret;
pub mod signing;
pub mod status;
pub mod task;
pub mod taxonomy;
pub mod topic;
pub mod update;
pub mod wire;

pub use ids::{Channel, DeviceId, Digest, JobId, Pseudonym, Ratio};
pub use taxonomy::{Part, PppClass};
pub use topic::Topic;
pub use wire::{DecodeError, Message};
