//! Rounds: what the fleet asks of its devices, and the floor below which a device refuses.

use serde::{Deserialize, Serialize};

use crate::ids::{Channel, Digest, Ratio};
use crate::signing::{Purpose, Statement};
use crate::wire::{Kind, Message};

/// Seconds that a report window may lie ahead or last, at most: a week.
const MAX_SECONDS: u32 = 7 * 24 * 3600;

/// Whether a round takes updates. Announced and closed in one retained message, so that a device that was away learns
/// at once that a round is over, before it spends privacy budget on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoundNotice {
    /// It does.
    Open(TaskManifest),
    /// It does no more, and neither does any round before it.
    Closed {
        /// The channel.
        channel: Channel,
        /// The round.
        round: u64,
    },
}

/// What a round asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskManifest {
    /// The channel.
    pub channel: Channel,
    /// The round's number, which only rises within a channel.
    pub round: u64,
    /// Version of the model that is trained.
    pub model_version: u64,
    /// SHA-256 of that model's trainable parameters.
    pub model: Digest,
    /// Layout that the update must have; `learn` makes it from the model and the names and shapes of what is trained.
    pub layout: Digest,
    /// Numbers in an update.
    pub dimension: u32,
    /// Noise in every update, in multiples of the clipping norm.
    pub noise_multiplier: Ratio,
    /// Clipping norm.
    pub clip: Ratio,
    /// Updates without which nothing is averaged.
    pub min_cohort: u32,
    /// Bytes of an update at most.
    pub max_update_bytes: u32,
    /// When to report.
    pub report: ReportWindow,
}

/// When a device reports, counted on its own steady clock from the moment it hears of the round:
/// `after_seconds`, and then a moment of the next `spread_seconds` that it draws at random. The
/// fleet announces the same round anew with what is left of them, so that whoever hears of it late
/// still reports before it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportWindow {
    /// Not before this.
    pub after_seconds: u32,
    /// Somewhere within this many seconds after that.
    pub spread_seconds: u32,
}

impl RoundNotice {
    /// The channel.
    pub fn channel(&self) -> &Channel {
        match self {
            RoundNotice::Open(task) => &task.channel,
            RoundNotice::Closed { channel, .. } => channel,
        }
    }

    /// The round.
    pub fn round(&self) -> u64 {
        match self {
            RoundNotice::Open(task) => task.round,
            RoundNotice::Closed { round, .. } => *round,
        }
    }
}

impl Message for RoundNotice {
    const KIND: Kind = Kind::RoundNotice;
    const MAX_BYTES: usize = 1024;

    fn check(&self) -> Result<(), &'static str> {
        let RoundNotice::Open(task) = self else { return Ok(()) };
        if task.dimension == 0 {
            return Err("dimension");
        }
        if task.max_update_bytes == 0 {
            return Err("size of an update");
        }
        if task.report.after_seconds > MAX_SECONDS || task.report.spread_seconds > MAX_SECONDS {
            return Err("report window");
        }
        Ok(())
    }
}

impl Statement for RoundNotice {
    const PURPOSE: Purpose = Purpose::Task;
}

/// What a device insists on, whatever the fleet asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Least noise.
    pub min_noise_multiplier: Ratio,
    /// Largest clipping norm.
    pub max_clip: Ratio,
    /// Least number of updates that are averaged.
    pub min_cohort: u32,
    /// Most bytes of an update.
    pub max_update_bytes: u32,
    /// SHA-256 of the trainable parameters of the model that the device runs.
    pub model: Digest,
}

/// Why a device does not take part. One at a time, the weightiest first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FloorRefusal {
    /// Too little noise.
    #[error("the round asks for a noise multiplier of {asked}, this mirror's least is {own}")]
    Noise {
        /// The round's.
        asked: Ratio,
        /// The device's.
        own: Ratio,
    },
    /// Too large a clipping norm.
    #[error("the round asks for a clipping norm of {asked}, this mirror's largest is {own}")]
    Clip {
        /// The round's.
        asked: Ratio,
        /// The device's.
        own: Ratio,
    },
    /// Too few devices.
    #[error("the round averages {asked} updates, this mirror wants at least {own}")]
    Cohort {
        /// The round's.
        asked: u32,
        /// The device's.
        own: u32,
    },
    /// Too many bytes.
    #[error("the round takes updates of {asked} bytes, this mirror sends at most {own}")]
    Bytes {
        /// The round's.
        asked: u32,
        /// The device's.
        own: u32,
    },
    /// Another model.
    #[error("the round trains model {asked}, this mirror runs {own}; it waits for that model")]
    Model {
        /// The round's.
        asked: Digest,
        /// The device's.
        own: Digest,
    },
}

impl Floor {
    /// Whether the device may take part.
    ///
    /// # Errors
    /// The first thing that is below the floor.
    pub fn check(&self, task: &TaskManifest) -> Result<(), FloorRefusal> {
        if task.noise_multiplier < self.min_noise_multiplier {
            let (asked, own) = (task.noise_multiplier, self.min_noise_multiplier);
            return Err(FloorRefusal::Noise { asked, own });
        }
        if task.clip > self.max_clip {
            return Err(FloorRefusal::Clip { asked: task.clip, own: self.max_clip });
        }
        if task.min_cohort < self.min_cohort {
            return Err(FloorRefusal::Cohort { asked: task.min_cohort, own: self.min_cohort });
        }
        if task.max_update_bytes > self.max_update_bytes {
            let (asked, own) = (task.max_update_bytes, self.max_update_bytes);
            return Err(FloorRefusal::Bytes { asked, own });
        }
        if task.model != self.model {
            return Err(FloorRefusal::Model { asked: task.model, own: self.model });
        }
        Ok(())
    }
}
