//! The device's side of the fleet over MQTT 5, and of Home Assistant.
//!
//! | Module | Holds |
//! |---|---|
//! | [`device`] | the protocol as a state machine: no socket, no clock, no file |
//! | [`edges`] | what the machine asks of the mirror: outbox, consent and floor, trial of a model, memory |
//! | [`transport`] | the trait of a connection |
//! | [`mqtt`] | its implementation with rumqttc |
//! | [`tls`] | rustls on ring with the device's certificate; the device's name from it |
//! | [`pace`] | jitter |
//! | [`run`](mod@run) | the loop that joins machine, connection and clock |
//! | [`home_assistant`] | discovery, states and commands on the home's own broker |
//!
//! **Invariants**
//! - An update's bytes come from the outbox alone, and only while [`edges::Household::floor`] says that the mirror
//!   takes part. A retry sends the same bytes.
//! - An update leaves the outbox on a receipt that the fleet signed, never on the broker's acknowledgement.
//! - Nothing here blocks the mirror: every queue is bounded, and without a broker they stay empty.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a failed unwrap is a failed test

pub mod device;
pub mod edges;
pub mod home_assistant;
pub mod mqtt;
pub mod pace;
pub mod run;
pub mod tls;
pub mod transport;
