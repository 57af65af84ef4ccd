//! What can go wrong, named so that a person knows the next step.

use std::fmt::Display;

use learn::consent::ConsentError;
use learn::edges::{EdgeError, RunId};
use learn::head::{LayoutError, SizeError, TargetError, TrainError};
use learn::privacy::{AccountantError, MechanismError};
use learn::release::ReleaseError;
use vision::VisionError;

use crate::{corrections, heads};

/// Why learning at home refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum HomeError {
    #[error("setting {key}: {reason}")]
    Options { key: &'static str, reason: String },
    #[error(transparent)]
    Consent(#[from] ConsentError),
    #[error("a picture of {actual} bytes is not the network's input of 3 x {height} x {width}")]
    PictureSize { actual: usize, height: usize, width: usize },
    #[error(
        "a mask of {actual} values is not {height} x {width}; send one value per pixel of the network's input"
    )]
    MaskSize { actual: usize, height: usize, width: usize },
    #[error(transparent)]
    Mask(#[from] TargetError),
    #[error(
        "{stored} corrections are stored, as many as learning.corrections allows; delete some or raise it"
    )]
    TooMany { stored: usize },
    #[error(
        "another correction of {} KiB does not fit learning.megabytes = {} beside the {:.1} MiB that are stored; delete some or raise it",
        .bytes.div_ceil(1024), .limit >> 20, mebibytes(.stored)
    )]
    TooLarge { bytes: u64, stored: u64, limit: u64 },
    #[error(
        "the disk has {} MiB left, and learning.free_megabytes keeps {} free; nothing was stored: free some room",
        .free >> 20, .kept >> 20
    )]
    DiskFull { free: u64, kept: u64 },
    // As the page counts them, from one.
    #[error("there is no correction {}", .0.saturating_add(1))]
    NoCorrection(u64),
    #[error(
        "correction {} is damaged, cannot be read, or is of another device; delete it",
        .0.saturating_add(1)
    )]
    Damaged(u64),
    #[error(
        "{0} is not what this program writes there; it is removed, and the next run makes another"
    )]
    Unsealed(String),
    #[error(
        "there is no earlier head to go back to; the mirror runs the head that it came with, or the fleet's"
    )]
    NoHead,
    #[error("the head in use has changed since you looked; see which one it is, then press again")]
    OtherHead,
    #[error(
        "the household's head cannot be read ({0}) and the network's own is in use; start the mirror again, or go back to the \
         earlier head: nothing is learnt until then"
    )]
    HeadUnread(String),
    #[error("a training run is under way already")]
    Training,
    #[error("there is no finished training run to release")]
    NothingToRelease,
    #[error(
        "the finished run {0} is for another model or other parameters than the fleet asks for; train again"
    )]
    OtherLayout(RunId),
    #[error(
        "the update would have {bytes} bytes and the round takes at most {limit}; nothing was spent, and a later \
         round may take it"
    )]
    UpdateTooLarge { bytes: usize, limit: u32 },
    #[error("the fleet asks for {what} {asked}; this mirror's own setting is {own}")]
    Rules { what: &'static str, asked: String, own: String },
    #[error("this mirror belongs to no fleet, so there is nothing to contribute to")]
    NoFleet,
    #[error("releases are stopped: {0}")]
    NoReleases(String),
    #[error(
        "it is done, and what waited to be sent is destroyed; the privacy ledger could not note that ({0})"
    )]
    Unnoted(String),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Vision(#[from] VisionError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Accountant(#[from] AccountantError),
    #[error(transparent)]
    Mechanism(#[from] MechanismError),
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

impl HomeError {
    /// What the ledger said where everything else is done.
    pub(crate) fn unnoted(ledger: HomeError) -> HomeError {
        HomeError::Unnoted(ledger.to_string())
    }
}

fn mebibytes(bytes: &u64) -> f64 {
    *bytes as f64 / f64::from(1 << 20)
}

/// What an error or a problem says, for the journal, which nothing seals and nobody deletes: without the numbers of corrections and
/// heads, which say how often a household corrected and learnt. The mirror's page shows them.
pub fn for_journal(said: impl Display) -> String {
    let names = [corrections::PREFIX, heads::PREFIX, "correction "];
    names.into_iter().fold(said.to_string(), |text, name| without_numbers(&text, name))
}

/// `text` with an ellipsis in the place of every number behind `name`.
fn without_numbers(text: &str, name: &str) -> String {
    let mut parts = text.split(name);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let behind = part.trim_start_matches(|character: char| character.is_ascii_digit());
        kept += name;
        kept += if behind.len() < part.len() { "…" } else { "" };
        kept += behind;
    }
    kept
}
