//! A device's secret, and what follows from it for one round: a name, and a key that signs.
//!
//! The secret is handed over at enrolment and known to the device and the aggregator alone. An aggregator need not
//! store one for each device: [`DeviceSecret::derive`] makes them from a secret of the fleet. The crate's description
//! says what can be linked by whom.

use ed25519_dalek::{SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{Channel, DeviceId, Pseudonym};

/// 32 unpredictable bytes. Wiped when dropped. `Debug` does not show them; an enrolment writes them out, to a file or to the
/// technician's terminal.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DeviceSecret([u8; 32]);

/// What a device is in one round of one channel.
pub struct RoundIdentity {
    /// Its name in topics.
    pub pseudonym: Pseudonym,
    /// Signs its offer. Wiped when dropped.
    pub key: SigningKey,
}

impl DeviceSecret {
    /// Takes the bytes over.
    pub fn new(bytes: [u8; 32]) -> DeviceSecret {
        DeviceSecret(bytes)
    }

    /// The secret of one device, from one of the whole fleet.
    pub fn derive(fleet: &[u8; 32], device: &DeviceId) -> DeviceSecret {
        DeviceSecret(tag(fleet, &[b"mirror device secret v1\0", device.as_str().as_bytes()]))
    }

    /// For the enrolment alone.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The device's name in a round; much cheaper than the whole identity.
    pub fn pseudonym(&self, channel: &Channel, round: u64) -> Pseudonym {
        let tag = self.round_tag(b"mirror pseudonym v1\0", channel, round);
        Pseudonym(std::array::from_fn(|index| tag[index]))
    }

    /// The device's name and signing key in a round.
    pub fn identity(&self, channel: &Channel, round: u64) -> RoundIdentity {
        let mut seed = self.round_tag(b"mirror round key v1\0", channel, round);
        let key = SigningKey::from_bytes(&seed);
        seed.zeroize();
        RoundIdentity { pseudonym: self.pseudonym(channel, round), key }
    }

    /// What an aggregator verifies the offers of a device with.
    pub fn verifying_key(&self, channel: &Channel, round: u64) -> VerifyingKey {
        self.identity(channel, round).key.verifying_key()
    }

    fn round_tag(&self, label: &[u8], channel: &Channel, round: u64) -> [u8; 32] {
        // A channel's name has no zero byte, so the parts cannot run into each other.
        tag(&self.0, &[label, channel.as_str().as_bytes(), &[0], &round.to_le_bytes()])
    }
}

impl std::fmt::Debug for DeviceSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DeviceSecret(..)")
    }
}

fn tag(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key of 32 bytes fits one block, so it needs no hashing first; every length is allowed anyway.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block);
    block[..].zeroize();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
