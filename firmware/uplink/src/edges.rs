//! What the protocol asks of the mirror. Tests put their own in the place of each.

use proto::signing::Watermark;
use proto::status::{JobFault, JobState};
use proto::task::{Floor, TaskManifest};
use proto::update::Refusal;
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
    /// Begins a trial in the background.
    fn begin(&mut self, version: u64, parameters: Vec<u8>) -> Result<(), JobFault>;
    /// `None` while it runs. `Ok` whether the model was kept or not: that stays in the house.
    fn poll(&mut self) -> Option<Result<(), JobFault>>;
}

/// What must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
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
}

/// Keeps the memory on disk.
pub trait Keeper: Send {
    /// Durable when it returns `Ok`.
    fn keep(&mut self, memory: &Memory) -> Result<(), EdgeError>;
}
