//! What the protocol asks of the mirror. Tests put their own in the place of each.

use proto::signing::{KeyId, Watermark};
use proto::status::{JobFault, JobState};
use proto::task::{Floor, TaskManifest};
use proto::update::Refusal;
use proto::{Channel, JobId};
use serde::{Deserialize, Serialize};

/// One release that waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReleaseId(pub [u8; 16]);

/// Something that the mirror could not do now; tried again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EdgeError(pub String);

/// The encoded, noised updates that wait.
pub trait Outbox: Send {
    /// Those whose layout and noise are what `task` asks for, oldest first.
    fn waiting(&self, task: &TaskManifest) -> Result<Vec<ReleaseId>, EdgeError>;
    /// The bytes of one, the same on every call.
    fn bytes(&self, id: ReleaseId) -> Result<Vec<u8>, EdgeError>;
    /// The fleet's signed receipt is here. A second call is no error.
    fn published(&mut self, id: ReleaseId) -> Result<(), EdgeError>;
    /// The fleet will never take it: it is given up, and its budget stays spent.
    fn refused(&mut self, id: ReleaseId, reason: Refusal) -> Result<(), EdgeError>;
}

/// The outbox together with the household's will.
pub trait Household: Outbox {
    /// What the mirror insists on, or `None` while it does not take part. Asked before every message that could say
    /// otherwise, so that a withdrawal takes effect at once.
    fn floor(&self) -> Option<Floor>;
    /// Asks for an update for `task`, to appear in [`Outbox::waiting`] when it is made. Called once a round.
    fn prepare(&mut self, task: &TaskManifest) -> Result<(), EdgeError>;
}

/// Tries a model that has arrived whole, as signed, and newer than any before.
pub trait ModelTrial: Send {
    /// SHA-256 of the base model that parameters must belong to.
    fn base(&self) -> proto::Digest;
    /// Version of the fleet's model in force, which outlives what the protocol remembers; 0 for the one that the mirror came with.
    fn version(&self) -> u64 {
        0
    }
    /// Begins a trial in the background.
    fn begin(&mut self, version: u64, parameters: Vec<u8>) -> Result<(), JobFault>;
    /// `None` while it runs. `Ok` whether the model was kept or not: that stays in the house.
    fn poll(&mut self) -> Option<Result<(), JobFault>>;
}

/// The fleet and channel that numbers belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The channel.
    pub channel: Channel,
    /// The keys that its statements may be signed with.
    pub keys: Vec<KeyId>,
}

impl Origin {
    /// Whether it is the same fleet's same channel.
    fn is(&self, other: &Origin) -> bool {
        self.channel == other.channel && self.shares_a_key(other)
    }

    /// Whether it is the same fleet; one that changes its keys has an old and a new one for a while.
    fn shares_a_key(&self, other: &Origin) -> bool {
        self.keys.iter().any(|key| other.keys.contains(key))
    }
}

/// A trial that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trying {
    /// Its job.
    pub job: JobId,
    /// The model's version.
    pub version: u64,
    /// How often it has begun, without those that a clean stop has cut short.
    pub begun: u32,
}

/// What must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Whose numbers these are; unknown in what was written before 2026-11-28.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The newest round notice taken.
    pub round: Option<Watermark>,
    /// The newest model manifest taken.
    pub model: Option<Watermark>,
    /// The newest job taken.
    pub job: Option<Watermark>,
    /// The last round that an update of this device counted in, or that was given up.
    pub round_done: u64,
    /// The last round in which an update of this device was offered.
    #[serde(default)]
    pub round_offered: u64,
    /// Updates that counted.
    pub contributions: u64,
    /// The newest model version whose trial ended.
    pub model_tried: u64,
    /// What was kept before is gone, and no round notice was heard since: which rounds were answered is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// How the newest job ended. Said at every connection: a broker that loses its memory would leave the fleet in the dark.
    #[serde(default)]
    pub ended: Option<JobState>,
    /// The trial that has begun and has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trying: Option<Trying>,
    /// How a trial ended that the fleet is not told of yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaid: Option<JobState>,
}

impl Memory {
    /// What is remembered of this fleet and channel: all, or nothing where it was another's, whose rounds and versions are counted anew. The
    /// privacy ledger goes on.
    pub fn for_origin(self, origin: Origin) -> Memory {
        match self.is_of_another(&origin) {
            true => Memory { origin: Some(origin), ..Memory::default() },
            false => Memory { origin: Some(origin), ..self },
        }
    }

    /// Whether it is of another fleet or channel, whose models mean nothing in this one.
    pub fn is_of_another(&self, origin: &Origin) -> bool {
        self.origin.as_ref().is_some_and(|before| !before.is(origin))
    }

    /// Whether it is certainly of the same fleet, in this channel or another: what a household agreed to for one fleet holds
    /// for no other, and what it agreed to before there was a fleet holds for none.
    pub fn is_of_fleet(&self, origin: &Origin) -> bool {
        match &self.origin {
            Some(before) => before.shares_a_key(origin),
            // Written before origins were noted.
            None => !self.lost && *self != Memory::default(),
        }
    }
}

/// Keeps the memory on disk.
pub trait Keeper: Send {
    /// Durable when it returns `Ok`.
    fn keep(&mut self, memory: &Memory) -> Result<(), EdgeError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_versions_kept_is_read() {
        let job = [7; 16];
        let ended = format!(r#"{{"job":{job:?},"version":4,"phase":"Done"}}"#);
        let kept = format!(
            r#"{{"round":null,"model":null,"job":null,"round_done":2,"contributions":1,"model_tried":4,"ended":{ended}}}"#
        );
        let memory: Memory = serde_json::from_str(&kept).expect("as before trials were noted");
        assert_eq!((memory.round_done, memory.model_tried, memory.trying), (2, 4, None));
        // And nothing that they could not read, as long as no trial runs.
        assert!(!serde_json::to_string(&memory).expect("numbers").contains("trying"));
    }

    #[test]
    fn another_fleet_or_channel_begins_with_an_empty_memory() {
        let origin = |channel: &str, keys: &[u8]| Origin {
            channel: channel.parse().expect("valid"),
            keys: keys.iter().map(|&key| KeyId([key; 8])).collect(),
        };
        let known = Memory { round_done: 40, model_tried: 12, ..Memory::default() };
        assert!(!known.is_of_another(&origin("stable", &[1])), "whose it is was not noted");
        let adopted = known.clone().for_origin(origin("stable", &[1]));
        assert_eq!(adopted, Memory { origin: Some(origin("stable", &[1])), ..known.clone() });
        let rotated = adopted
            .clone()
            .for_origin(origin("stable", &[1, 2]))
            .for_origin(origin("stable", &[2]));
        assert_eq!((rotated.round_done, rotated.model_tried), (40, 12), "one key after the other");
        assert!(known.is_of_fleet(&origin("stable", &[1])), "before origins were noted");
        let lost = Memory { lost: true, ..Memory::default() };
        for unknown in [Memory::default(), lost] {
            assert!(!unknown.is_of_fleet(&origin("stable", &[1])));
        }
        for other in [origin("beta", &[1]), origin("stable", &[3])] {
            assert!(adopted.is_of_another(&other));
            assert_eq!(adopted.is_of_fleet(&other), other.channel.to_string() == "beta");
            let fresh = adopted.clone().for_origin(other.clone());
            assert_eq!(fresh, Memory { origin: Some(other), ..Memory::default() });
        }
    }
}
