//! Birth, last will, and the state of jobs.
//!
//! Nothing here depends on pictures or on training: a report that did would cost privacy budget. In particular a
//! device never says whether it kept a model that it tried on its own corrections, only that the trial ended.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, JobId};
use crate::model::ModelManifest;
use crate::signing::{Purpose, Statement};
use crate::wire::{Kind, Message};

/// Seconds for which the broker keeps that a device is connected. A last will dies with its broker, so this must end by itself; the
/// device says it again in half the time.
pub const ONLINE_SECONDS: u32 = 2 * 3600;

/// Retained on a device's status topic: sent at every connection and, while that lasts, every [`ONLINE_SECONDS`] / 2; and as the last
/// will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Connected. Kept for [`ONLINE_SECONDS`]; from a device from before 2026-11-30 without end.
    Online {
        /// The firmware's version, at most 64 bytes.
        firmware: String,
        /// The newest model version whose trial ended, whatever came of it; 0 for none.
        model_tried: u64,
    },
    /// Not connected.
    Offline {
        /// Whether the connection broke, as opposed to a clean stop.
        lost: bool,
    },
}

impl Message for Status {
    const KIND: Kind = Kind::Status;
    const MAX_BYTES: usize = 128;

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Status::Online { firmware, .. } if firmware.len() > 64 => Err("firmware version"),
            _ => Ok(()),
        }
    }
}

/// A job for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobNotice {
    /// As fleets wrote it before 2026-11-30, without a name. Refused: whoever runs the broker could bring it to any device.
    ForAnybody(ModelManifest),
    /// Install this model now, whatever the roll-out's share.
    Install {
        /// The device that it is for. The topic says so too, but is not signed.
        device: DeviceId,
        /// The model.
        manifest: ModelManifest,
    },
}

impl JobNotice {
    /// The model that it is about.
    pub fn manifest(&self) -> &ModelManifest {
        match self {
            JobNotice::ForAnybody(manifest) | JobNotice::Install { manifest, .. } => manifest,
        }
    }
}

impl Message for JobNotice {
    const KIND: Kind = Kind::JobNotice;
    const MAX_BYTES: usize = ModelManifest::MAX_BYTES + 80;

    fn check(&self) -> Result<(), &'static str> {
        self.manifest().check()
    }
}

impl Statement for JobNotice {
    const PURPOSE: Purpose = Purpose::Model;
}

/// How far a device is with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// The job.
    pub job: JobId,
    /// The model version it is about.
    pub version: u64,
    /// How far.
    pub phase: JobPhase,
}

/// A job's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobPhase {
    /// Chunks are coming.
    Downloading,
    /// All there and as signed; being tried.
    Trying,
    /// The trial ended without a fault. Whether the model was kept stays in the house.
    Done,
    /// It ended with a fault that does not depend on anybody's pictures.
    Failed(JobFault),
}

/// Why a model was put away. None of these depends on pictures of the household.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobFault {
    /// The bytes contradict the manifest.
    Content,
    /// Not for the base model of this device.
    Base,
    /// It cannot be loaded or run.
    Unusable,
    /// Worse than its predecessor on the public check that every mirror ships with.
    PublicCheck,
    /// No room, a disk that fails, or another trouble of the mirror's own: tried again.
    Storage,
}

impl Message for JobState {
    const KIND: Kind = Kind::JobState;
    const MAX_BYTES: usize = 64;
}
