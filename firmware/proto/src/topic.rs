//! Every topic of the fleet, built and parsed in one place. At most seven slashes, as AWS IoT demands.

use std::fmt;
use std::str::FromStr;

use crate::ids::{Channel, DeviceId, JobId, Pseudonym};

/// Bytes of a topic at most; longer ones are refused unread.
const MAX_TOPIC_BYTES: usize = 160;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the fields are the parts of the topic
pub enum Topic {
    /// `mirror/v1/{device}/status`: birth and last will, retained.
    Status(DeviceId),
    /// `mirror/v1/{pseudonym}/fl/update/{round}/{chunk}`: chunk 0 is an offer.
    Update { name: Pseudonym, round: u64, chunk: u16 },
    /// `mirror/v1/{pseudonym}/fl/lane/{lane}/{round}/{chunk}`: chunks that one worker asked for.
    Lane { name: Pseudonym, lane: u16, round: u64, chunk: u16 },
    /// `mirror/v1/{pseudonym}/fl/wanted`: chunks that the aggregator lacks.
    Wanted(Pseudonym),
    /// `mirror/v1/{pseudonym}/fl/receipt`.
    Receipt(Pseudonym),
    /// `mirror/v1/{device}/jobs/notify`.
    JobNotify(DeviceId),
    /// `mirror/v1/{device}/jobs/{id}/state`.
    JobState(DeviceId, JobId),
    /// `mirror/v1/{device}/model/wanted`: chunks that the device lacks.
    ModelWanted(DeviceId),
    /// `mirror/v1/{device}/model/chunk/{version}/{index}`.
    ModelChunk(DeviceId, u64, u16),
    /// `mirror/v1/fleet/{channel}/round`: the newest round, retained.
    Round(Channel),
    /// `mirror/v1/fleet/{channel}/model/manifest`: the newest model, retained.
    ModelManifest(Channel),
}

/// A topic that is none of the fleet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a topic of the fleet")]
pub struct TopicError(String);

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("mirror/v1/")?;
        match self {
            Topic::Status(device) => write!(formatter, "{device}/status"),
            Topic::Update { name, round, chunk } => {
                write!(formatter, "{name}/fl/update/{round}/{chunk}")
            }
            Topic::Lane { name, lane, round, chunk } => {
                write!(formatter, "{name}/fl/lane/{lane}/{round}/{chunk}")
            }
            Topic::Wanted(name) => write!(formatter, "{name}/fl/wanted"),
            Topic::Receipt(name) => write!(formatter, "{name}/fl/receipt"),
            Topic::JobNotify(device) => write!(formatter, "{device}/jobs/notify"),
            Topic::JobState(device, job) => write!(formatter, "{device}/jobs/{job}/state"),
            Topic::ModelWanted(device) => write!(formatter, "{device}/model/wanted"),
            Topic::ModelChunk(device, version, index) => {
                write!(formatter, "{device}/model/chunk/{version}/{index}")
            }
            Topic::Round(channel) => write!(formatter, "fleet/{channel}/round"),
            Topic::ModelManifest(channel) => write!(formatter, "fleet/{channel}/model/manifest"),
        }
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Topic, TopicError> {
        let topic = if text.len() > MAX_TOPIC_BYTES { None } else { parse(text) };
        // Numbers have other spellings ("007", "+7"); only the one that we write is a topic.
        topic
            .filter(|topic| topic.to_string() == text)
            .ok_or_else(|| TopicError(text.chars().take(MAX_TOPIC_BYTES).collect()))
    }
}

fn parse(text: &str) -> Option<Topic> {
    let parts: Vec<&str> = text.strip_prefix("mirror/v1/")?.split('/').collect();
    let topic = match parts[..] {
        ["fleet", channel, "round"] => Topic::Round(channel.parse().ok()?),
        ["fleet", channel, "model", "manifest"] => Topic::ModelManifest(channel.parse().ok()?),
        [device, "status"] => Topic::Status(device.parse().ok()?),
        [device, "jobs", "notify"] => Topic::JobNotify(device.parse().ok()?),
        [device, "jobs", job, "state"] => Topic::JobState(device.parse().ok()?, job.parse().ok()?),
        [device, "model", "wanted"] => Topic::ModelWanted(device.parse().ok()?),
        [device, "model", "chunk", version, index] => {
            Topic::ModelChunk(device.parse().ok()?, version.parse().ok()?, index.parse().ok()?)
        }
        [name, "fl", "wanted"] => Topic::Wanted(name.parse().ok()?),
        [name, "fl", "receipt"] => Topic::Receipt(name.parse().ok()?),
        [name, "fl", "update", round, chunk] => Topic::Update {
            name: name.parse().ok()?,
            round: round.parse().ok()?,
            chunk: chunk.parse().ok()?,
        },
        [name, "fl", "lane", lane, round, chunk] => Topic::Lane {
            name: name.parse().ok()?,
            lane: lane.parse().ok()?,
            round: round.parse().ok()?,
            chunk: chunk.parse().ok()?,
        },
        _ => return None,
    };
    Some(topic)
}

/// Subscriptions: an aggregator's, and a device's.
pub mod filter {
    use super::Topic;
    use crate::ids::{Channel, DeviceId};

    /// Offers, and chunks without a lane, of every device.
    pub const UPDATES: &str = "mirror/v1/+/fl/update/+/+";
    /// Status of every device.
    pub const STATUS: &str = "mirror/v1/+/status";
    /// Job states of every device.
    pub const JOB_STATES: &str = "mirror/v1/+/jobs/+/state";
    /// Requests for model chunks of every device.
    pub const MODEL_WANTED: &str = "mirror/v1/+/model/wanted";

    /// What is said to all of a channel: the newest round, and the newest model.
    pub fn statements(channel: &str) -> [String; 2] {
        ["round", "model/manifest"].map(|what| format!("mirror/v1/fleet/{channel}/{what}"))
    }

    /// What a device hears at any time: what is said to all of its channel, and to it alone.
    pub fn device(device: &DeviceId, channel: &Channel) -> [String; 4] {
        let [round, manifest] = statements(channel.as_str());
        let job = Topic::JobNotify(device.clone()).to_string();
        [round, manifest, job, format!("mirror/v1/{device}/model/chunk/+/+")]
    }

    /// The chunks for one worker.
    pub fn lane(lane: u16) -> String {
        format!("mirror/v1/+/fl/lane/{lane}/+/+")
    }

    /// A subscription that the members of `group` share (MQTT 5): each message reaches one of them.
    pub fn shared(group: &str, filter: &str) -> String {
        format!("$share/{group}/{filter}")
    }
}
