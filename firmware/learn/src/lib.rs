//! Learning at home: training of the head, clipping, noise, accounting, consent and the privacy ledger.
//!
//! Plain slices of numbers in, plain numbers and bytes out: no picture type, no network. Files, time and randomness
//! come through the traits in [`edges`], so that tests decide what fails and when.
//!
//! **Invariants**
//! - Training takes a consent token, and so does noising; only a current consent record makes one ([`consent`]).
//! - Values leave only as [`privacy::Noised`], which takes a ledger reservation; nothing else can be encoded.
//! - An epsilon is told by [`privacy::PrivacyStatement`], which names its unit, adjacency, delta and trust. A gauge, a table or a
//!   target that has the number alone stands beside such a statement.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a failed unwrap is a failed test

pub mod averaging;
pub mod consent;
pub mod edges;
pub mod fs;
pub mod head;
pub mod ledger;
pub mod outbox;
pub mod privacy;
pub mod release;
pub mod update;
