//! The database of an earlier program opens with everything in it, goes on where it was, and its log still verifies.
//!
//! `tests/fixtures` has databases made by `examples/fleet_life.rs` with the program of a commit: 0.1 is of c42b505. They are never made
//! anew: where a format changes, another one is added.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::path::Path;
use std::sync::Arc;

use aggregator::engine::{Engine, EngineError};
use aggregator::records::{Device, Phase, Rollout, Standing};
use aggregator::store::Store;
use common::{Fleet, SMALL, Scratch, TestClock};
use learn::head::Subset;

/// The second in which the life ended.
const THEN: u64 = 450;

/// An engine of today on a copy of the database of 0.1, which goes with the test of that name.
fn fleet_of_before(test: &str) -> Fleet {
    let folder = std::env::temp_dir().join(format!("aggregator-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let folder = Scratch(folder);
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/0.1.redb");
    let copy = folder.0.join("fleet.redb");
    std::fs::copy(old, &copy).unwrap();
    let clock: Arc<TestClock> = Arc::default();
    clock.add(THEN);
    let store = Store::open(&copy).unwrap();
    let engine = Engine::new(common::parts(store, &clock, SMALL)).unwrap();
    Fleet { engine, clock, folder }
}

#[test]
fn devices_rounds_and_versions_of_before_are_there() {
    let fleet = fleet_of_before("upgrade-there");
    let mut devices = Vec::new();
    fleet.engine.store().each_device(|device| devices.push(device)).unwrap();
    let standing = |name: &str| devices.iter().find(|d| d.name == name).unwrap().standing.clone();
    assert_eq!(devices.len(), 6);
    assert_eq!(standing("mirror-0"), Standing::Enrolled);
    assert_ne!(standing("mirror-5"), Standing::Enrolled);

    let status = fleet.engine.status().unwrap();
    let phases: Vec<_> = status.rounds.iter().map(|r| r.round.phase.clone()).collect();
    let reason = "a life's".to_owned();
    let expected = [Phase::Published { version: 2 }, Phase::Aborted { reason }, Phase::Collecting];
    assert_eq!(phases, expected);
    assert_eq!(status.epsilon_by_round, [3.5487, 3.5487, 5.3]);

    let model = |version| fleet.engine.store().model(version).unwrap().unwrap();
    assert_eq!(model(1).rollout, Rollout::Complete);
    assert!(matches!(model(2).rollout, Rollout::Stopped { .. }));
    assert_eq!(model(3).parameters, model(1).parameters);
    assert_eq!((fleet.engine.announced().unwrap().unwrap().version, model(4).installed), (4, 2));
    let parameters = fleet.engine.store().parameters(4).unwrap().unwrap();
    assert_eq!(parameters.len(), 4 * fleet.engine.layout().subset_len(Subset::Full));
}

#[test]
fn certificates_of_before_are_known_by_whoever_has_them() {
    let fleet = fleet_of_before("upgrade-certificates");
    let taken = |engine: &Engine, name: &str, number: u8| {
        let fingerprint = format!("{number:02x}").repeat(32);
        engine.enrol(name, &fingerprint).err().map(|error| error.to_string())
    };
    let told = taken(&fleet.engine, "mirror-10", 0).unwrap();
    assert!(told.contains("enrolled as mirror-0"), "{told}");
    assert_eq!(taken(&fleet.engine, "mirror-11", 5), None, "mirror-5 was revoked");

    // A program of before enrols once more, which notes no certificate.
    let Fleet { engine, clock, folder } = fleet;
    let like = engine.store().device("mirror-0").unwrap().unwrap();
    drop(engine);
    let path = folder.0.join("fleet.redb");
    let device = Device { name: "mirror-12".into(), fingerprint: "0c".repeat(32), ..like };
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let devices = redb::TableDefinition::<&str, &[u8]>::new("devices");
    let record = serde_json::to_vec(&device).unwrap();
    write.open_table(devices).unwrap().insert("mirror-12", record.as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    let store = Store::open(&path).unwrap();
    let engine = Engine::new(common::parts(store, &clock, SMALL)).unwrap();
    let told = taken(&engine, "mirror-13", 12).unwrap();
    assert!(told.contains("enrolled as mirror-12"), "{told}");
}

#[test]
fn a_round_of_before_takes_updates_and_becomes_a_version() {
    let fleet = fleet_of_before("upgrade-goes-on");
    let round = fleet.engine.live_round().unwrap().unwrap();
    let update = fleet.submission(&round, 3, 0.01);
    let again = fleet.submission(&round, 0, 0.01);
    let receipts = fleet.worker(1).count(&[update, again]).unwrap();
    let counted: Vec<bool> =
        receipts.iter().map(|r| r.fate == aggregator::store::Fate::Counted).collect();
    assert_eq!(counted, [true, false], "what counted before counts once: {receipts:?}");
    fleet.clock.add(100);
    fleet.settle();
    let round = fleet.engine.store().round(round.id).unwrap().unwrap();
    assert_eq!(round.phase, Phase::Published { version: 5 });
    let key = fleet.engine.key().verifying_key();
    let verified = fleet.engine.verify(&key).unwrap();
    assert_eq!((verified.rounds, verified.updates, verified.models), (2, 9, 5));
}

#[test]
fn a_database_of_before_takes_the_channel_of_its_settings_and_then_no_other() {
    let fleet = fleet_of_before("upgrade-channel");
    let (engine, clock, folder) = fleet.into_parts();
    drop(engine);
    let open = |channel: &str| {
        let store = Store::open(&folder.0.join("fleet.redb")).unwrap();
        let mut parts = common::parts(store, &clock, SMALL);
        parts.channel = channel.parse().unwrap();
        Engine::new(parts)
    };
    let refused = open("another").err().unwrap();
    let told = refused.to_string();
    assert!(matches!(refused, EngineError::OtherChannel { .. }), "{told}");
    assert!(
        told.contains("`channel` is another") && told.contains("in the channel test"),
        "{told}"
    );
    drop(open("test").unwrap());
}

#[test]
fn a_log_of_before_verifies_and_a_rollback_goes_back_to_what_was_proven() {
    let fleet = fleet_of_before("upgrade-back");
    fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
    let back = fleet.engine.rollback(3).unwrap();
    assert_eq!((back.version, back.rollout), (5, Rollout::Complete));
    assert!(fleet.engine.live_round().unwrap().is_none(), "the round on version 4 ends with it");
    fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
}
