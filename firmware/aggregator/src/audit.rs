//! The audit log: every decision of the aggregator, chained by hashes and signed with its key.
//!
//! An entry's hash covers its number, time, event and the hash before it; the signature covers the hash. So an entry
//! cannot be changed, moved or left out without breaking every later one, and nobody without the key can go on with
//! a chain of their own. What the chain cannot show is that its newest entries were cut off together: keep the last
//! hash elsewhere, as the operators' guide says.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use learn::edges::Digest;
use serde::{Deserialize, Serialize};

use crate::hex;

/// What happened. Digests are hexadecimal SHA-256.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[allow(missing_docs)] // the names say it
pub enum Event {
    Created {
        public_key: String,
    },
    DeviceEnrolled {
        device: String,
        fingerprint: String,
        /// The group for roll-outs; older entries name none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    DeviceRevoked {
        device: String,
        reason: String,
    },
    RoundAnnounced {
        round: u64,
        task: String,
        base_version: u64,
        devices: u64,
        expected_cosine: f64,
        forced: bool,
    },
    RoundClosed {
        round: u64,
        updates: u64,
        members: String,
        sum: String,
    },
    RoundAveraged {
        round: u64,
        average: String,
        base: String,
        candidate: String,
        momentum: f32,
        rate: f32,
    },
    RoundGated {
        round: u64,
        score_before: f64,
        score_after: f64,
        tolerance: f64,
        passed: bool,
    },
    RoundPublished {
        round: u64,
        version: u64,
    },
    /// Who took part in it was forgotten.
    RoundPruned {
        round: u64,
    },
    RoundAborted {
        round: u64,
        reason: String,
    },
    ModelAdded {
        version: u64,
        parameters: String,
        origin: String,
    },
    ModelPublished {
        version: u64,
        permille: u16,
    },
    RolloutStopped {
        version: u64,
        reason: String,
    },
    RolledBack {
        from: u64,
        to: u64,
        as_version: u64,
        /// Whether `from` was not stopped, since its numbers are those of `to` and its roll-out was over; in older entries it was.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        from_stays: bool,
    },
    /// The database came from a backup; what it had decided since is lost.
    Restored {
        rounds_above: u32,
        versions_above: u32,
    },
}

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Position, from 0.
    pub number: u64,
    /// Seconds since 1970 by the aggregator's clock.
    pub at: u64,
    /// The event as JSON, byte for byte what was hashed.
    pub event: String,
    /// Hash of the entry before; zeros for the first.
    pub previous: String,
    /// Hash of this entry.
    pub hash: String,
    /// Ed25519 signature of the hash's 32 bytes.
    pub signature: String,
}

/// Why a chain is not what it claims to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum AuditError {
    #[error("audit entry {number} cannot be read: {reason}")]
    Unreadable { number: u64, reason: String },
    #[error("audit entry {expected} is missing; number {actual} stands in its place")]
    Missing { expected: u64, actual: u64 },
    #[error("audit entry {0} does not follow from the one before; the log was changed")]
    Chain(u64),
    #[error("audit entry {0} is not signed with the aggregator's key; the log was forged")]
    Signature(u64),
    #[error("audit entry {number}: {problem}")]
    Arithmetic { number: u64, problem: String },
    #[error("{record}: {problem}; the database was changed from outside")]
    Record { record: String, problem: &'static str },
}

/// The end of a chain, to which the next entry is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the next entry.
    pub next: u64,
    /// Hash of the last.
    pub hash: Digest,
}

impl Head {
    /// Of an empty chain.
    pub const EMPTY: Head = Head { next: 0, hash: Digest([0; 32]) };

    /// The next entry, signed.
    pub fn entry(&self, at: u64, event: &Event, key: &SigningKey) -> Result<Entry, AuditError> {
        let event = serde_json::to_string(event).map_err(|error| AuditError::Unreadable {
            number: self.next,
            reason: error.to_string(),
        })?;
        let hash = link(self.next, at, &self.hash, &event);
        Ok(Entry {
            number: self.next,
            at,
            event,
            previous: self.hash.to_string(),
            hash: hash.to_string(),
            signature: hex::encode(&key.sign(&hash.0).to_bytes()),
        })
    }

    /// Checks that `entry` is the next one, and moves on to it.
    pub fn follow(&mut self, entry: &Entry, key: &VerifyingKey) -> Result<Event, AuditError> {
        if entry.number != self.next {
            return Err(AuditError::Missing { expected: self.next, actual: entry.number });
        }
        let hash = link(entry.number, entry.at, &self.hash, &entry.event);
        if entry.previous != self.hash.to_string() || entry.hash != hash.to_string() {
            return Err(AuditError::Chain(entry.number));
        }
        let signature =
            hex::decode::<64>(&entry.signature).map(|bytes| Signature::from_bytes(&bytes));
        let signed =
            signature.is_some_and(|signature| key.verify_strict(&hash.0, &signature).is_ok());
        if !signed {
            return Err(AuditError::Signature(entry.number));
        }
        *self = Head { next: entry.number + 1, hash };
        serde_json::from_str(&entry.event).map_err(|error| AuditError::Unreadable {
            number: entry.number,
            reason: error.to_string(),
        })
    }
}

fn link(number: u64, at: u64, previous: &Digest, event: &str) -> Digest {
    let mut bytes = b"mirror audit 1\n".to_vec();
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&at.to_le_bytes());
    bytes.extend_from_slice(&previous.0);
    bytes.extend_from_slice(event.as_bytes());
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn chain(count: u64) -> Vec<Entry> {
        let mut head = Head::EMPTY;
        let next = |number| {
            let event = Event::RoundPublished { round: number, version: number };
            let entry = head.entry(100 + number, &event, &key()).unwrap();
            head.follow(&entry, &key().verifying_key()).unwrap();
            entry
        };
        (0..count).map(next).collect()
    }

    fn check(entries: &[Entry]) -> Result<(), AuditError> {
        let mut head = Head::EMPTY;
        entries.iter().try_for_each(|entry| head.follow(entry, &key().verifying_key()).map(|_| ()))
    }

    #[test]
    fn an_untouched_chain_holds() {
        assert_eq!(check(&chain(5)), Ok(()));
    }

    #[test]
    fn every_change_is_found() {
        let mut changed = chain(5);
        changed[2].event = changed[2].event.replace("\"version\":2", "\"version\":9");
        assert_eq!(check(&changed), Err(AuditError::Chain(2)));

        let mut later = chain(5);
        later[2].at += 1;
        assert_eq!(check(&later), Err(AuditError::Chain(2)));

        let mut missing = chain(5);
        missing.remove(2);
        assert_eq!(check(&missing), Err(AuditError::Missing { expected: 2, actual: 3 }));

        let mut swapped = chain(5);
        swapped.swap(1, 2);
        assert!(check(&swapped).is_err());
    }

    #[test]
    fn a_chain_without_the_key_is_a_forgery() {
        let mut head = Head::EMPTY;
        let stranger = SigningKey::from_bytes(&[8; 32]);
        let event = Event::RoundPublished { round: 0, version: 0 };
        let entry = head.entry(1, &event, &stranger).unwrap();
        assert_eq!(head.follow(&entry, &key().verifying_key()), Err(AuditError::Signature(0)));
    }
}
