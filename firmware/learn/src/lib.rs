//! Training of the head, clipping, noise, accounting, the privacy ledger; plain slices.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a failed unwrap is a failed test

pub mod privacy;
