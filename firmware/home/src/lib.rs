//! Learning at home: the encrypted store, corrections, training runs, the household's own head, triggers and releases.
//!
//! No network and no HTTP: the page and the uplink call [`Home`], which is shared between the page's thread, the
//! trainer's thread and the uplink's thread. The vision thread touches two atomics of it per picture, and takes a short lock when the head
//! has changed.
//!
//! ```text
//! picture + corrected mask --add--> vault --train--> candidate --judge--> household's head --poll--> vision thread
//!                                                       \--release: clip, ledger, noise--> outbox --> uplink
//! ```
//!
//! A [`Household`] has the stores and may do with them what needs no network; a [`Home`] is one that learns.
//!
//! **Invariants**
//! - Consent, withdrawal, retention and deletion depend on stores and a clock alone: not on the network, nor on a budget that
//!   a release fits.
//! - Pictures, masks, checkpoints and unnoised numbers lie on the disk only through [`vault`]'s seal.
//! - Storing a correction and training take a consent token for [`learn::consent::ImproveMyMirror`], releasing takes
//!   one for [`learn::consent::ContributeToFleet`]; both die with the record they came from.
//! - The wall clock alone deletes and repeats nothing: the time that the mirror was on ([`edges::Steady`]) decides, or a date that has
//!   held while the mirror was on for a part of it.
//! - A release depends on the schedule and the budget, never on how well a training went.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a failed unwrap is a failed test

mod consents;
mod corrections;
pub mod edges;
mod erase;
mod error;
pub mod explanation;
mod heads;
mod hold;
mod home;
mod household;
mod model;
mod models;
mod opening;
mod options;
mod refit;
mod releases;
mod retention;
mod schedule;
mod state;
mod training;
pub mod vault;

pub use consents::{ConsentState, Contribution, Withdrawal};
pub use corrections::{CorrectionInfo, Mask, Picture, Usage};
pub use erase::{Beside, ErasureProof, LeftFile};
pub use error::{HomeError, for_journal};
pub use heads::{HeadInfo, KEPT_HEADS};
pub use home::Home;
pub use household::{Household, Stores};
pub use model::{BaseModel, Trunk};
pub use models::{MOST_JUDGES, ModelTrouble, PublicCheck};
pub use options::{Capability, HomeOptions, Limits, NightlyWindow, NoisePlan, Triggers};
pub use releases::{PrivacyOverview, ReleaseRules};
pub use schedule::{Conditions, Gate, Pause, WorkPlan};
pub use training::{Outcome, RunReport, TrainingState, TrainingStatus, lowest_priority};
