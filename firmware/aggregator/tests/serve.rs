//! The server as a whole, without a broker: what ends it.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aggregator::config::BrokerConfig;
use aggregator::gate::{Gate, GateError};
use aggregator::serve::{ServeError, Server};
use common::{Fleet, SMALL};

/// Only to end a test that is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that is not there; nothing has to be carried.
fn nowhere() -> BrokerConfig {
    let (host, client) = ("127.0.0.1".to_owned(), "aggregator".to_owned());
    BrokerConfig { host, port: 1, client, workers: 1, tls: None }
}

/// What the server ends with, or nothing in all that time.
fn outcome(server: &Server, patience: Duration) -> Result<(), ServeError> {
    let stop: Arc<AtomicBool> = Arc::default();
    let later = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        later.store(true, Ordering::SeqCst);
    });
    server.wait(&stop)
}

/// A fleet whose round waits for this gate.
fn judged_by(name: &str, gate: Box<dyn Gate>) -> (Server, common::Scratch) {
    let fleet = Fleet::with_gate(name, common::rules(), gate, SMALL);
    fleet.enrol(5);
    let round = fleet.open_round();
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.clock.add(10_000);
    let (engine, _clock, folder) = fleet.into_parts();
    (Server::start(engine, &nowhere()).unwrap(), folder)
}

struct Panics;

impl Gate for Panics {
    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        panic!("a picture that no decoder expects")
    }
}

#[test]
fn a_thread_that_panics_ends_the_server_so_that_its_supervisor_hears_of_it() {
    let (server, _folder) = judged_by("panic", Box::new(Panics));
    let ended = outcome(&server, PATIENCE).unwrap_err();
    assert!(matches!(&ended, ServeError::Ended(name) if name == "decisions"), "{ended}");
    server.stop();
}

struct Fails;

impl Gate for Fails {
    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        Err(GateError::NoHoldout)
    }
}

#[test]
fn a_decision_that_fails_is_shown_and_ends_nothing() {
    let (server, _folder) = judged_by("failing", Box::new(Fails));
    outcome(&server, Duration::from_secs(3)).unwrap();
    assert!(server.office.decisions_failing.load(Ordering::SeqCst));
    server.office.engine.abort_round(1, "a test").unwrap();
    outcome(&server, Duration::from_secs(3)).unwrap();
    assert!(!server.office.decisions_failing.load(Ordering::SeqCst));
    server.stop();
}
