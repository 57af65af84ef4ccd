//! What the database holds, as plain values. Digests and keys are hexadecimal, so that a record can be read by eye.

use std::collections::BTreeMap;

use learn::averaging::RoundRules;
use learn::edges::{Digest, LayoutId};
use learn::privacy::{NoiseMultiplier, NoiseMultiplierError};
use serde::{Deserialize, Serialize};

use crate::hex;

/// A record as it is stored.
pub(crate) fn json<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record)
        .expect("structs of numbers, strings and maps with string keys always serialise")
}

/// Whether a device may take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Standing {
    /// Yes.
    Enrolled,
    /// Never again, and why.
    Revoked {
        /// The operator's words.
        reason: String,
    },
}

/// A device that the operator knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Name, as in its certificate.
    pub name: String,
    /// SHA-256 of its certificate.
    pub fingerprint: String,
    /// Whether it may take part.
    pub standing: Standing,
    /// Seconds since 1970.
    pub enrolled_at: u64,
    /// Group for roll-outs, such as `pilot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Which parameters a round trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Parameters {
    /// Biases, norms and the class head: a few thousand numbers
    Sparse,
    /// The two decoder layers whole
    Full,
}

impl Parameters {
    /// The training's own word for it.
    pub fn subset(self) -> learn::head::Subset {
        match self {
            Parameters::Sparse => learn::head::Subset::Sparse,
            Parameters::Full => learn::head::Subset::Full,
        }
    }
}

/// What a round asks of its devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Which parameters move.
    pub parameters: Parameters,
    /// Numbers in an update.
    pub dimension: usize,
    /// Layout id of the updates.
    pub layout: String,
    /// Noise multiplier as a decimal number.
    pub noise_multiplier: String,
    /// Updates that the round needs before anything is averaged.
    pub minimum_cohort: u64,
    /// Updates at which the round closes early.
    pub maximum_cohort: u64,
    /// Model version that the devices start from.
    pub base_version: u64,
    /// SHA-256 of that version's parameters.
    pub base: String,
}

/// A stored record that does not mean anything.
#[derive(Debug, thiserror::Error)]
#[error(
    "the stored {what} is damaged: {reason}; restore the database from a backup and run `aggregator restore` on it"
)]
pub struct Damaged {
    /// Which record.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Task {
    /// The noise multiplier, exactly.
    pub fn noise(&self) -> Result<NoiseMultiplier, NoiseMultiplierError> {
        self.noise_multiplier.parse()
    }

    /// What the averaging checks.
    pub fn rules(&self) -> Result<RoundRules, Damaged> {
        let damaged = |reason: String| Damaged { what: "task".into(), reason };
        let layout =
            hex::decode::<32>(&self.layout).ok_or_else(|| damaged("its layout id".into()))?;
        Ok(RoundRules {
            layout: LayoutId(layout),
            dimension: self.dimension,
            noise_multiplier: self.noise().map_err(|error| damaged(error.to_string()))?,
        })
    }

    /// SHA-256 of the task as it is stored.
    pub fn digest(&self) -> Digest {
        Digest::of(&json(self))
    }
}

/// Where a round stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Devices may learn of it; updates are not taken yet.
    Announced,
    /// Updates are taken.
    Collecting,
    /// No more updates; nothing is averaged yet.
    Closed,
    /// The candidate exists.
    Averaged,
    /// The candidate is no worse than its predecessor.
    Gated,
    /// The candidate became a model version.
    Published {
        /// That version.
        version: u64,
    },
    /// Nothing came of it.
    Aborted {
        /// Why.
        reason: String,
    },
}

impl Phase {
    /// Whether nothing more will happen.
    pub fn is_final(&self) -> bool {
        matches!(self, Phase::Published { .. } | Phase::Aborted { .. })
    }

    /// One word, for tables and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Announced => "announced",
            Phase::Collecting => "collecting",
            Phase::Closed => "closed",
            Phase::Averaged => "averaged",
            Phase::Gated => "gated",
            Phase::Published { .. } => "published",
            Phase::Aborted { .. } => "aborted",
        }
    }
}

/// A round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Number, from 1.
    pub id: u64,
    /// What it asks for.
    pub task: Task,
    /// Where it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// Seconds since 1970.
    pub announced_at: u64,
    /// From when updates are taken.
    pub opens_at: u64,
    /// Until when.
    pub closes_at: u64,
    /// Cosine to the common direction that was expected of it.
    pub expected_cosine: f64,
    /// Whether it was started against advice.
    pub forced: bool,
    /// Holdout score of the base, 0 to 1, once gated.
    pub score_before: Option<f64>,
    /// Holdout score of the candidate, once gated.
    pub score_after: Option<f64>,
    /// SHA-256 of the candidate's parameters, once averaged.
    pub candidate: Option<String>,
}

/// How the reason of a round ends that the gate refused.
pub const DOES_NOT_SHIP: &str = "it does not ship";

impl Round {
    /// Whether the gate refused its candidate. One that passed may still end by a rollback.
    pub fn is_refused(&self) -> bool {
        let Phase::Aborted { reason } = &self.phase else { return false };
        self.score_after.is_some() && reason.ends_with(DOES_NOT_SHIP)
    }

    /// Whether mirrors may still answer it.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Announced | Phase::Collecting)
    }
}

#[cfg(test)]
impl Round {
    /// Announced at 1,000, open from 1,100 to 1,200.
    pub fn example() -> Round {
        Round {
            id: 1,
            task: Task {
                parameters: Parameters::Sparse,
                dimension: 3,
                layout: "00".repeat(32),
                noise_multiplier: "1.2".into(),
                minimum_cohort: 10,
                maximum_cohort: 100,
                base_version: 1,
                base: "00".repeat(32),
            },
            phase: Phase::Announced,
            announced_at: 1_000,
            opens_at: 1_100,
            closes_at: 1_200,
            expected_cosine: 0.5,
            forced: false,
            score_before: None,
            score_after: None,
            candidate: None,
        }
    }
}

/// What has come in for a round. Kept in the same transaction as the sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Updates in the sums.
    pub counted: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Refusals by reason.
    pub refused: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds `count` refusals of one kind, by its word.
    pub fn refuse(&mut self, kind: &str, count: u64) {
        *self.refused.entry(kind.to_owned()).or_default() += count;
    }
}

/// How a model version reaches the devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rollout", rename_all = "kebab-case")]
pub enum Rollout {
    /// It does not: version 1 of a database whose `init` was interrupted before 2026-11-30.
    Held,
    /// Stage after stage.
    Running {
        /// Which stage, from 0.
        stage: usize,
        /// Since when.
        since: u64,
    },
    /// Everywhere.
    Complete,
    /// Too many devices reported trouble, or an operator went back, restored the database or changed the list of stages.
    Stopped {
        /// Why.
        reason: String,
        /// Whether its roll-out had been over before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        was_over: bool,
    },
}

impl Rollout {
    /// Whether every device has had the version and time to complain, whatever an operator did then.
    pub fn is_over(&self) -> bool {
        matches!(self, Rollout::Complete | Rollout::Stopped { was_over: true, .. })
    }
}

/// One version of the global model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Number; devices only ever go up.
    pub version: u64,
    /// SHA-256 of the bytes of all trainable parameters.
    pub parameters: String,
    /// Where it comes from, in words.
    pub origin: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Holdout score, 0 to 1, where it was judged.
    pub score: Option<f64>,
    /// How it reaches the devices.
    #[serde(flatten)]
    pub rollout: Rollout,
    /// Devices whose trial of it ended without a fault.
    pub installed: u64,
    /// Devices that reported trouble with it.
    pub failed: u64,
}
