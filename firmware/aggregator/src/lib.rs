//! The operators' side of the fleet: rounds, averaging, the gate, models, and the operators' page.
//!
//! **Invariants**
//! - An acknowledged update is in the database; a counted one is counted once ([`store`]).
//! - Decisions are a pure function of records, arrivals and a clock that tests set ([`round`], [`rollout`]).
//! - A round that would carry no signal is refused, with what to do instead ([`signal`]).
//! - No candidate becomes a version without a verdict of the holdout ([`gate`]).
//! - Every decision is signed and chained, and its arithmetic can be done again ([`audit`], [`verify`]).

#![cfg_attr(test, allow(clippy::unwrap_used))] // a failed unwrap is a failed test

pub mod arithmetic;
pub mod audit;
pub mod engine;
pub mod gate;
pub mod hex;
pub mod holdout;
pub mod ingest;
pub mod records;
pub mod rollout;
pub mod round;
pub mod signal;
pub mod store;
pub mod verify;
