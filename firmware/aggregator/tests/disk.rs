//! A disk that is full: the server ends with an error, and another start goes on with what was there.
//!
//! The parent starts this test program as a child that may write files of a few MiB only, which to the database is a full disk.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aggregator::config::BrokerConfig;
use aggregator::engine::Engine;
use aggregator::serve::{ServeError, Server};
use aggregator::store::Store;
use common::{Fleet, SMALL, TestClock};

const ROOT: &str = "AGGREGATOR_DISK_ROOT";

/// Only to end a test that is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// A limit in blocks of 512 or 1024 bytes, by the shell. The signal for going over it would end the child; ignored, it is an
/// error of the write.
const LIMITED: &str = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\"";

fn engine(root: &Path) -> Engine {
    let clock: Arc<TestClock> = Arc::default();
    let store = Store::open(&root.join("fleet.redb")).unwrap();
    Engine::new(common::parts(store, &clock, SMALL)).unwrap()
}

/// A broker that is not there; nothing has to be carried.
fn nowhere() -> BrokerConfig {
    let (host, client) = ("127.0.0.1".to_owned(), "aggregator".to_owned());
    BrokerConfig { host, port: 1, client, workers: 1, tls: None }
}

/// Not a test of its own: the server on the full disk. Does nothing unless the parent asks.
#[test]
fn child() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let server = Server::start(engine(&PathBuf::from(root)), &nowhere()).unwrap();
    let engine = &server.office.engine;
    assert!(!engine.store().is_lost());
    let large = vec![7; 1 << 20];
    let fill = |number| {
        engine.store().decide(0, engine.key(), |decision| decision.put_candidate(number, &large))
    };
    assert!((1..100).any(|number| fill(number).is_err()), "there is no limit");
    let stop: Arc<AtomicBool> = Arc::default();
    let patience = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        patience.store(true, Ordering::SeqCst);
    });
    let lost = server.wait(&stop).unwrap_err();
    assert!(matches!(lost, ServeError::Lost(_)), "{lost}");
    server.stop();
}

#[test]
fn a_full_disk_ends_the_server_and_the_next_one_goes_on() {
    let (before, _clock, folder) = Fleet::new("disk", common::rules()).into_parts();
    before.enrol("mirror-1", &"11".repeat(32)).unwrap();
    drop(before);
    let child = Command::new("sh")
        .args(["-c", LIMITED])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROOT, &folder.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("1 passed"), "{said}");
    let after = engine(&folder.0);
    assert!(!after.store().is_lost());
    assert_eq!(after.status().unwrap().enrolled, 1);
    after.enrol("mirror-2", &"22".repeat(32)).unwrap();
}
