//! What the database keeps, forgets and refuses, and what a restored or damaged one does.

use std::path::Path;

use aggregator::engine::{Engine, EngineError, Rules};
use aggregator::ingest::Submission;
use aggregator::records::{Phase, Rollout, Round};
use aggregator::store::{Decision, Fate, Store};
use learn::head::{Subset, numbers};
use proto::DeviceId;

use crate::common::{
    self, Fleet, SMALL, full_round, request, rolling_out, trouble_everywhere, why_aborted,
};
use crate::settled_round;

/// As programs of every version store devices.
const DEVICES: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("devices");

#[test]
fn damaged_numbers_of_a_version_or_a_candidate_are_told_and_end_no_thread() {
    let fleet = Fleet::new("damaged-numbers", common::rules());
    fleet.enrol(5);
    let round = full_round(&fleet);
    fleet.clock.add(100);
    let (engine, store) = (&fleet.engine, fleet.engine.store());
    let phase = || {
        common::step(engine).unwrap();
        store.round(round.id).unwrap().unwrap().phase
    };
    let put_base = |bytes: &[u8]| {
        store.decide(0, engine.key(), |decision| decision.put_parameters(1, bytes)).unwrap()
    };
    let put_candidate = |bytes: &[u8]| {
        let put = |decision: &mut Decision<'_>| decision.put_candidate(round.id, bytes);
        store.decide(0, engine.key(), put).unwrap()
    };
    let told = |what: &str| {
        let told = common::step(engine).unwrap_err().to_string();
        assert!(told.contains(what) && told.contains("restore the database"), "{told}");
    };
    assert_eq!(phase(), Phase::Closed);
    let base = store.parameters(1).unwrap().unwrap();
    put_base(&base[1..]);
    told("model 1 is damaged: it has the wrong length");
    put_base(&base);
    assert_eq!(phase(), Phase::Averaged);
    let candidate = store.candidate(round.id).unwrap().unwrap();
    put_candidate(&[&f32::NAN.to_le_bytes(), &candidate[4..]].concat());
    told("candidate of round 1 is damaged: it has a value that is not a number");
    put_base(&[]);
    put_candidate(&candidate);
    told("model 1 is damaged");
    put_base(&base);
    assert_eq!(phase(), Phase::Gated);
}

#[test]
fn a_number_of_the_database_that_is_none_is_damage_and_not_0() {
    let fleet = Fleet::new("numbers", common::rules());
    let store = fleet.engine.store();
    store.decide(0, fleet.engine.key(), |decision| decision.put_meta("pruned", b"short")).unwrap();
    let told = fleet.engine.advance(true).unwrap_err().to_string();
    assert!(told.contains("number pruned is damaged"), "{told}");
}

#[test]
fn a_database_refuses_another_network() {
    let (engine, clock, folder) = Fleet::new("network", common::rules()).into_parts();
    drop(engine);
    let path = folder.0.join("fleet.redb");
    let open = |number: f32| {
        let mut parts = common::parts(Store::open(&path).unwrap(), &clock, SMALL);
        parts.shipped.fill(number);
        Engine::new(parts)
    };
    let refused = |number| open(number).err().unwrap().to_string();
    assert!(refused(0.5).contains("the folder that `model` names holds another network"));
    // A database that is older than the note goes by its first version.
    let engine = open(0.25).unwrap();
    let forget = |decision: &mut Decision<'_>| decision.put_meta("base", &[]);
    engine.store().decide(0, engine.key(), forget).unwrap();
    drop(engine);
    assert!(refused(0.5).contains("name the old folder"));
    open(0.25).unwrap();
}

#[test]
fn the_model_that_mirrors_ship_with_is_everywhere_in_one_step_and_once() {
    let (_, clock, folder) = Fleet::new("ship", common::rules()).into_parts();
    let store = Store::create(&folder.0.join("other.redb")).unwrap();
    let engine = Engine::new(common::parts(store, &clock, SMALL)).unwrap();
    let shipped = vec![0.25; engine.layout().subset_len(Subset::Full)];
    let before = engine.store().entries().unwrap();
    for _ in 0..2 {
        engine.ship("a test").unwrap();
        let models = engine.store().models().unwrap();
        assert_eq!(models.len(), 1);
        assert_eq!((models[0].version, &models[0].rollout), (1, &Rollout::Complete));
        let stored = engine.store().parameters(1).unwrap().unwrap();
        assert_eq!(numbers::decode(&stored, shipped.len()).unwrap(), shipped);
    }
    assert_eq!(engine.store().entries().unwrap(), before + 2, "added and published");
    engine.verify(&engine.key().verifying_key()).unwrap();
}

#[test]
fn a_database_refuses_other_keys() {
    let (engine, clock, folder) = Fleet::new("keys", common::rules()).into_parts();
    drop(engine);
    let path = folder.0.join("fleet.redb");
    let open = |signing: u8, secrets: u8| {
        let mut parts = common::parts(Store::open(&path).unwrap(), &clock, SMALL);
        parts.key = ed25519_dalek::SigningKey::from_bytes(&[signing; 32]);
        parts.secrets = [secrets; 32];
        Engine::new(parts)
    };
    let refused = |signing, secrets| open(signing, secrets).err().unwrap().to_string();
    assert!(refused(9, 6).contains("signing.key") && refused(5, 9).contains("devices.key"));
    assert!(refused(9, 6).contains("restore it from a backup"));
    // A database that is older than the note takes the secret that it is opened with, from then on.
    let engine = open(5, 6).unwrap();
    let forget = |decision: &mut Decision<'_>| decision.put_meta("secrets", &[]);
    engine.store().decide(0, engine.key(), forget).unwrap();
    drop(engine);
    open(5, 6).unwrap();
    assert!(refused(5, 9).contains("devices.key"));
}

#[test]
fn a_restored_database_goes_on_above_what_mirrors_have_seen() {
    let fleet = Fleet::new("restore", common::rules());
    fleet.enrol(3);
    let live = fleet.open_round();
    let (engine, clock, folder) = fleet.into_parts();
    drop(engine);
    let (path, copy) = (folder.0.join("fleet.redb"), folder.0.join("copy.redb"));
    std::fs::copy(&path, &copy).unwrap();
    let open = |path: &Path| {
        Engine::new(common::parts(Store::open(path).unwrap(), &clock, SMALL)).unwrap()
    };
    let block = 1 << 32;
    let lost = open(&path).take_sequence(block, 0).unwrap();
    clock.add(1);
    let engine = open(&copy);
    assert!(engine.take_sequence(block, 0).unwrap() >= lost + block, "a number comes twice");

    let top = engine.restore(7, 9).unwrap();
    assert_eq!((top.version, top.rollout.clone()), (10, Rollout::Complete));
    assert_eq!(engine.announced().unwrap().unwrap(), top);
    assert_eq!(engine.store().parameters(10).unwrap(), engine.store().parameters(1).unwrap());
    assert!(why_aborted(&engine, live.id).contains("no longer in force"));
    let round = engine.start_round(&request(false)).unwrap();
    assert_eq!((round.id, round.task.base_version), (8, 10));
    assert_eq!(engine.status().unwrap().unknown_rounds, 6, "2 to 7 may have been");
    assert_eq!(engine.restore(0, 0).unwrap().version, 11, "numbers never go down");
    engine.verify(&engine.key().verifying_key()).unwrap();
}

#[test]
fn a_restored_database_brings_no_version_everywhere_that_was_half_tried() {
    let fleet = rolling_out("restore-rolling", common::rules(), 3);
    let (engine, clock, folder) = fleet.into_parts();
    drop(engine);
    let copy = folder.0.join("copy.redb");
    std::fs::copy(folder.0.join("fleet.redb"), &copy).unwrap();
    let parts = common::parts(Store::open(&copy).unwrap(), &clock, SMALL);
    let engine = Engine::new(parts).unwrap();
    let top = engine.restore(7, 9).unwrap();
    assert_eq!((top.version, top.origin.as_str()), (10, "version 1 again"));
    assert_eq!(engine.store().parameters(10).unwrap(), engine.store().parameters(1).unwrap());
    let reason = "the database was restored".to_owned();
    let half_tried = engine.store().model(2).unwrap().unwrap().rollout;
    assert_eq!(half_tried, Rollout::Stopped { reason, was_over: false });
    engine.verify(&engine.key().verifying_key()).unwrap();
}

#[test]
fn a_group_that_could_not_be_a_name_is_refused_and_moves_no_mirror() {
    let fleet = Fleet::new("groups", common::rules());
    let (engine, own) = (&fleet.engine, "11".repeat(32));
    engine.enrol_in("mirror-1", &own, Some("pilot")).unwrap();
    for group in ["", "Pilot", "pi\u{1b}[31mlot\nmirror-2 revoked", &"g".repeat(65)] {
        let told = engine.enrol_in("mirror-1", &own, Some(group)).unwrap_err().to_string();
        assert!(told.contains("is no group") && !told.contains(['\n', '\u{1b}']), "{told:?}");
    }
    let known = engine.store().device("mirror-1").unwrap().unwrap();
    assert_eq!(known.group.as_deref(), Some("pilot"));
    engine.enrol_in("mirror-1", &own, Some(&"g".repeat(64))).unwrap();
}

#[test]
fn a_device_is_known_by_its_certificate_and_revoked_for_good() {
    let fleet = Fleet::new("devices", common::rules());
    let engine = &fleet.engine;
    let (one, other) = ("11".repeat(32), "22".repeat(32));
    engine.enrol("mirror-1", &one).unwrap();
    engine.enrol("mirror-1", &one).unwrap();
    let refused = |result: Result<_, EngineError>| result.unwrap_err().to_string();
    let told = refused(engine.enrol("mirror-1", &other));
    assert!(told.contains("under another name") && !told.contains("revoke it"), "{told}");
    assert!(refused(engine.enrol("mirror 1", &one)).contains("no device name"));
    assert!(refused(engine.enrol("mirror-2", "12")).contains("fingerprint"));
    assert!(refused(engine.enrol("aggregator", &one)).contains("own programs"));
    let told = refused(engine.enrol("mirror-3", &one));
    assert!(told.contains("enrolled as mirror-1") && told.contains("revoke mirror-1"), "{told}");
    engine.revoke("mirror-1", "stolen").unwrap();
    assert!(refused(engine.enrol("mirror-1", &one)).contains("stays so"));
    let status = engine.status().unwrap();
    assert_eq!((status.enrolled, status.revoked), (0, 1));
    engine.enrol("mirror-3", &one).unwrap();
}

#[test]
fn enrolling_reads_no_record_of_the_rest_of_the_fleet() {
    let fleet = Fleet::new("rest", common::rules());
    fleet.enrol(3);
    let (engine, clock, folder) = fleet.into_parts();
    drop(engine);
    let path = folder.0.join("fleet.redb");
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(DEVICES).unwrap().insert("mirror-1", b"damaged".as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    let parts = common::parts(Store::open(&path).unwrap(), &clock, SMALL);
    let engine = Engine::new(parts).unwrap();
    engine.enrol("mirror-3", &"03".repeat(32)).unwrap();
    let told = engine.enrol("mirror-4", &"02".repeat(32)).unwrap_err().to_string();
    assert!(told.contains("enrolled as mirror-2"), "{told}");
}

#[test]
fn old_rounds_are_forgotten_and_the_audit_still_holds() {
    let mut rules = common::rules();
    rules.keep_rounds = 1;
    let fleet = Fleet::new("prune", rules);
    fleet.enrol(5);
    for _ in 0..3 {
        settled_round(&fleet);
    }
    let store = fleet.engine.store();
    let counted = |round| store.members(round).unwrap().0;
    assert_eq!((counted(1), counted(2), counted(3)), (0, 0, 5));
    let verified = fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
    assert_eq!((verified.rounds, verified.pruned), (3, 2));
    assert!(store.rounds().unwrap().iter().all(|round| round.phase.is_final()));
}

#[test]
fn a_candidate_goes_with_the_end_of_its_round_and_those_of_before_when_the_database_opens() {
    let fleet = Fleet::with_scores("candidates", common::rules(), vec![0.5, 0.4]);
    fleet.enrol(5);
    let refused = full_round(&fleet);
    fleet.pass(100);
    let aborted = full_round(&fleet);
    fleet.clock.add(100);
    assert!((0..2).all(|_| fleet.engine.advance(true).unwrap()));
    let candidate = |engine: &Engine, round: &Round| engine.store().candidate(round.id).unwrap();
    assert_eq!(candidate(&fleet.engine, &refused), None);
    assert!(candidate(&fleet.engine, &aborted).is_some(), "it waits for the gate");
    let (engine, clock, folder) = fleet.into_parts();
    let kept = |decision: &mut Decision<'_>| decision.put_candidate(refused.id, b"as before");
    engine.store().decide(0, engine.key(), kept).unwrap();
    drop(engine);
    let store = Store::open(&folder.0.join("fleet.redb")).unwrap();
    let engine = Engine::new(common::parts(store, &clock, SMALL)).unwrap();
    assert_eq!(candidate(&engine, &refused), None);
    assert!(candidate(&engine, &aborted).is_some());
    engine.abort_round(aborted.id, "a test").unwrap();
    assert_eq!(candidate(&engine, &aborted), None);
    let bytes = std::fs::metadata(engine.store().path()).unwrap().len();
    assert_eq!(engine.status().unwrap().database_bytes, bytes);
    engine.verify(&engine.key().verifying_key()).unwrap();
}

#[test]
fn a_round_at_hand_keeps_its_names() {
    let fleet = Fleet::new("prune-live", Rules { keep_rounds: 0, ..common::rules() });
    fleet.enrol(5);
    let round = full_round(&fleet);
    fleet.engine.advance(true).unwrap();
    let (engine, device) = (&fleet.engine, "mirror-1".parse::<DeviceId>().unwrap());
    let name = engine.secret(&device).pseudonym(engine.channel(), round.id);
    assert!(engine.store().named(round.id, name).unwrap().is_some());
    assert_eq!(engine.store().members(round.id).unwrap().0, 5);
}

#[test]
fn an_update_counts_once_though_its_round_is_forgotten_and_its_model_comes_back() {
    let fleet = Fleet::new("prune-stopped", Rules { keep_rounds: 1, ..common::rules() });
    fleet.enrol(5);
    let first = fleet.open_round();
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&first, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.pass(100);
    fleet.reach_everybody();
    trouble_everywhere(&fleet.engine, 2);
    let second = fleet.open_round_with(true);
    assert_eq!((second.id, second.task.base_version), (2, 1));
    assert_eq!(fleet.engine.store().members(first.id).unwrap().0, 0, "it is forgotten");
    let again = Submission { round: second.id, ..batch[0].clone() };
    let receipts = fleet.worker(0).count(&[again]).unwrap();
    assert_eq!(receipts[0].fate, Fate::CountedBefore { round: first.id });
}

#[test]
fn an_update_counts_once_though_a_rollback_far_back_brings_its_model_again() {
    let fleet = Fleet::new("prune-rollback", Rules { keep_rounds: 1, ..common::rules() });
    fleet.enrol(5);
    let mut first = None;
    for _ in 0..3 {
        let round = settled_round(&fleet);
        first.get_or_insert(round);
    }
    let (round, batch) = first.unwrap();
    assert_eq!(fleet.engine.store().members(round.id).unwrap().0, 0, "it is forgotten");
    fleet.engine.rollback(1).unwrap();
    let again = fleet.open_round();
    assert_eq!(again.task.layout, round.task.layout, "what waits since then would fit");
    let receipts =
        fleet.worker(0).count(&[Submission { round: again.id, ..batch[0].clone() }]).unwrap();
    assert_eq!(receipts[0].fate, Fate::CountedBefore { round: round.id });
}
