//! A disk that is full: the server ends with an error, and another start goes on with what was there; a fleet that cannot begin
//! leaves nothing behind.
//!
//! The parent starts this test program as a child that may write small files only, which to the database is a full disk.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aggregator::config::BrokerConfig;
use aggregator::engine::Engine;
use aggregator::keys::Keys;
use aggregator::serve::{ServeError, Server};
use aggregator::store::Store;
use common::{Fleet, SMALL, Scratch, TestClock};

const ROOT: &str = "AGGREGATOR_DISK_ROOT";

/// Only to end a test that is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// A limit in blocks of 512 or 1024 bytes, by the shell. The signal for going over it would end the child; ignored, it is an
/// error of the write.
const LIMITED: &str = "trap '' XFSZ; ulimit -f BLOCKS; exec \"$0\" \"$@\"";

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

/// Not a test of its own: a fleet that begins on a disk without any room. Does nothing unless the parent asks.
#[test]
fn child_without_room() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let root = PathBuf::from(root);
    assert!(Store::create(&root.join("fleet.redb")).is_err(), "there is no limit");
    assert!(Keys::create(&root).is_err(), "there is no limit");
}

/// Runs one of the tests above as a child of which no file may be larger than so many blocks.
fn limited(blocks: u32, child: &str, root: &Path) {
    let ended = Command::new("sh")
        .args(["-c", &LIMITED.replace("BLOCKS", &blocks.to_string())])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", child, "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

/// An empty folder.
fn scratch(name: &str) -> Scratch {
    let folder = std::env::temp_dir().join(format!("aggregator-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    Scratch(folder)
}

#[test]
fn a_fleet_that_could_not_begin_for_want_of_room_begins_once_there_is_some() {
    let folder = scratch("no-room");
    let (folder, database) = (&folder.0, folder.0.join("fleet.redb"));
    limited(0, "child_without_room", folder);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "something is left");
    // What a power cut may leave.
    for left in ["fleet.new", "signing.new", "devices.new"] {
        std::fs::write(folder.join(left), [0; 30]).unwrap();
    }
    let store = Store::create(&database).unwrap();
    let keys = Keys::of(&store, folder, true).unwrap();
    assert_eq!(Keys::of(&store, folder, true).unwrap().devices, keys.devices);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 4, "a database and three keys");
}

#[test]
fn a_file_that_is_no_database_is_kept_and_told() {
    let folder = scratch("no-database");
    let database = folder.0.join("fleet.redb");
    for bytes in [&b""[..], &[0; 4096]] {
        std::fs::write(&database, bytes).unwrap();
        for opened in [Store::create(&database), Store::open(&database)] {
            let told = opened.err().unwrap().to_string();
            assert!(told.contains("no database") && told.contains("put a backup there"), "{told}");
        }
        assert_eq!(std::fs::read(&database).unwrap(), bytes);
    }
}

#[test]
fn a_full_disk_ends_the_server_and_the_next_one_goes_on() {
    let (before, _clock, folder) = Fleet::new("disk", common::rules()).into_parts();
    before.enrol("mirror-1", &"11".repeat(32)).unwrap();
    drop(before);
    limited(8192, "child", &folder.0);
    let after = engine(&folder.0);
    assert!(!after.store().is_lost());
    assert_eq!(after.status().unwrap().enrolled, 1);
    after.enrol("mirror-2", &"22".repeat(32)).unwrap();
}
