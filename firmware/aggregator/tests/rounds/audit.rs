//! The audit finds what was changed behind its back.

use std::sync::Arc;

use aggregator::audit::Event;
use aggregator::engine::{Engine, Rules};
use aggregator::records::{Device, Model, Phase, Rollout, Round, Standing, Tally};
use aggregator::store::{Decision, Snapshot, Store, StoreError};
use aggregator::verify::verify;

use crate::common::{self, Fleet, SMALL, full_round};
use crate::settled_round;

#[test]
fn the_audit_finds_changed_sums_and_a_foreign_key() {
    let fleet = Fleet::new("audit", common::rules());
    fleet.enrol(5);
    let round = fleet.open_round();
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.pass(100);
    let key = fleet.engine.key().verifying_key();
    fleet.engine.verify(&key).unwrap();
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[3; 32]).verifying_key();
    assert!(fleet.engine.verify(&stranger).unwrap_err().to_string().contains("forged"));

    let store = Arc::clone(fleet.engine.shared_store());
    store.decide(0, fleet.engine.key(), |decision| decision.put_parameters(2, b"0000")).unwrap();
    let error = fleet.engine.verify(&key).unwrap_err().to_string();
    assert!(error.contains("not the ones that were added"), "{error}");
    store
        .decide(0, fleet.engine.key(), |decision| decision.forget_members(round.id).map(|_| ()))
        .unwrap();
    let error = fleet.engine.verify(&key).unwrap_err().to_string();
    assert!(error.contains("names"), "{error}");
}

/// What the audit says once `change` was made from outside, without an entry in the log.
fn problem_after(
    engine: &Engine,
    change: impl FnOnce(&mut Decision<'_>) -> Result<(), StoreError>,
) -> String {
    let key = engine.key().verifying_key();
    engine.verify(&key).unwrap();
    engine.store().decide(0, engine.key(), change).unwrap();
    engine.verify(&key).unwrap_err().to_string()
}

#[test]
fn the_audit_finds_devices_that_do_not_stand_as_the_log_says() {
    let fleet = Fleet::new("audit-devices", common::rules());
    fleet.enrol(3);
    let engine = &fleet.engine;
    engine.enrol_in("mirror-3", &"33".repeat(32), Some("pilot")).unwrap();
    let (revoked, store) = (engine.revoke("mirror-0", "stolen").unwrap(), engine.store());
    let back = Device { standing: Standing::Enrolled, ..revoked.clone() };
    let problem = problem_after(engine, |decision| decision.put_device(&back));
    assert!(problem.contains("device mirror-0: it is not enrolled or revoked"), "{problem}");
    store.decide(0, engine.key(), |decision| decision.put_device(&revoked)).unwrap();

    let honest = store.device("mirror-3").unwrap().unwrap();
    let moved = Device { group: Some("staff".into()), ..honest.clone() };
    let problem = problem_after(engine, |decision| decision.put_device(&moved));
    assert!(problem.contains("device mirror-3: its group"), "{problem}");
    store.decide(0, engine.key(), |decision| decision.put_device(&honest)).unwrap();

    let other = Device { name: "mirror-9".into(), ..honest };
    let problem = problem_after(engine, |decision| decision.put_device(&other));
    assert!(problem.contains("device mirror-9: the log does not enrol it"), "{problem}");
}

#[test]
fn the_audit_finds_versions_and_rounds_that_the_log_does_not_have() {
    let fleet = Fleet::new("audit-extra", common::rules());
    fleet.enrol(5);
    let (round, _) = settled_round(&fleet);
    let (engine, store) = (&fleet.engine, fleet.engine.store());
    let first = store.model(1).unwrap().unwrap();
    let spread = Model { rollout: Rollout::Held, ..first.clone() };
    let problem = problem_after(engine, |decision| decision.put_model(&spread));
    assert!(problem.contains("model 1: its roll-out"), "{problem}");
    store.decide(0, engine.key(), |decision| decision.put_model(&first)).unwrap();

    let ended = store.round(round.id).unwrap().unwrap();
    let given_up = Phase::Aborted { reason: "by nobody".into() };
    let other = Round { phase: given_up, ..ended.clone() };
    let problem = problem_after(engine, |decision| decision.put_round(&other));
    assert!(problem.contains("round 1: it stands where"), "{problem}");
    store.decide(0, engine.key(), |decision| decision.put_round(&ended)).unwrap();

    let unannounced = Round { id: 7, ..ended.clone() };
    let problem = problem_after(engine, |decision| decision.put_round(&unannounced));
    assert!(problem.contains("round 7: the log does not announce it"), "{problem}");

    let extra = Model { version: 9, ..first };
    store.decide(0, engine.key(), |decision| decision.put_model(&extra)).unwrap();
    let problem = engine.verify(&engine.key().verifying_key()).unwrap_err().to_string();
    assert!(problem.contains("model 9: the log does not add it"), "{problem}");
}

#[test]
fn the_audit_finds_a_tally_that_was_changed() {
    let fleet = Fleet::new("audit-tally", common::rules());
    fleet.enrol(5);
    settled_round(&fleet);
    let (engine, clock, folder) = fleet.into_parts();
    drop(engine);
    let path = folder.0.join("fleet.redb");
    let tallies = redb::TableDefinition::<u64, &[u8]>::new("tallies");
    let write = redb::Database::open(&path).unwrap().begin_write().unwrap();
    let tally = Tally { counted: 6, ..Tally::default() };
    let bytes = serde_json::to_vec(&tally).unwrap();
    write.open_table(tallies).unwrap().insert(1, bytes.as_slice()).unwrap();
    write.commit().unwrap();
    let engine = Engine::new(common::parts(Store::open(&path).unwrap(), &clock, SMALL)).unwrap();
    let problem = engine.verify(&engine.key().verifying_key()).unwrap_err().to_string();
    assert!(problem.contains("round 1: its tally"), "{problem}");
}

#[test]
fn the_audit_sees_one_instant_whatever_happens_meanwhile() {
    let fleet = Fleet::new("audit-instant", Rules { keep_rounds: 1, ..common::rules() });
    fleet.enrol(5);
    settled_round(&fleet);
    let engine = &fleet.engine;
    let before = engine.store().snapshot().unwrap();
    settled_round(&fleet);
    engine.enrol("mirror-9", &"99".repeat(32)).unwrap();
    assert_eq!(engine.store().members(1).unwrap().0, 0, "it is forgotten");
    let verify = |snapshot| verify(snapshot, engine.layout(), &engine.key().verifying_key());
    assert_eq!(verify(&before).unwrap().pruned, 0);
    assert_eq!(verify(&engine.store().snapshot().unwrap()).unwrap().pruned, 1);
}

#[test]
fn a_copy_is_audited_without_a_change_of_one_bit() {
    let fleet = Fleet::new("audit-copy", common::rules());
    fleet.enrol(3);
    let key = fleet.engine.key().verifying_key();
    let layout = fleet.engine.layout().clone();
    let (engine, _clock, folder) = fleet.into_parts();
    let torn = folder.0.join("torn.redb");
    std::fs::copy(engine.store().path(), &torn).unwrap();
    drop(engine);
    let whole = folder.0.join("fleet.redb");
    let before = std::fs::read(&whole).unwrap();
    for path in [&whole, &torn] {
        let verified = Snapshot::of_file(path, |snapshot| verify(snapshot, &layout, &key));
        assert_eq!(verified.unwrap().unwrap().models, 1);
    }
    assert_eq!(std::fs::read(&whole).unwrap(), before);
}

#[test]
fn the_audit_binds_what_was_announced_and_published_to_what_was_computed() {
    let fleet = Fleet::new("audit-binds", common::rules());
    fleet.enrol(5);
    let first = full_round(&fleet);
    fleet.pass(100);
    let (engine, store) = (&fleet.engine, fleet.engine.store());
    let problem = || engine.verify(&engine.key().verifying_key()).unwrap_err().to_string();
    let good = store.round(first.id).unwrap().unwrap();
    let put = |round: &Round| store.decide(0, engine.key(), |decision| decision.put_round(round));
    let mut other = good.clone();
    other.task.minimum_cohort += 1;
    put(&other).unwrap();
    assert!(problem().contains("not the one that was announced"), "{}", problem());
    put(&good).unwrap();

    // Signed with the fleet's own key, and still no candidate of that round.
    let published = Event::RoundPublished { round: first.id, version: 1 };
    store.decide(0, engine.key(), |decision| decision.record(&published)).unwrap();
    assert!(problem().contains("not the round's candidate"), "{}", problem());
}

#[test]
fn the_audit_finds_a_round_on_another_base() {
    let fleet = Fleet::new("audit-base", common::rules());
    fleet.enrol(5);
    let round = full_round(&fleet);
    let (engine, store) = (&fleet.engine, fleet.engine.store());
    let mut other = round.clone();
    (other.id, other.task.base) = (9, "00".repeat(32));
    let announced = Event::RoundAnnounced {
        round: other.id,
        task: other.task.digest().to_string(),
        base_version: 1,
        devices: 5,
        expected_cosine: 1.0,
        forced: false,
    };
    let forge = |decision: &mut Decision<'_>| {
        decision.put_round(&other)?;
        decision.record(&announced)
    };
    store.decide(0, engine.key(), forge).unwrap();
    let problem = engine.verify(&engine.key().verifying_key()).unwrap_err().to_string();
    assert!(problem.contains("base is not the version that was added"), "{problem}");
}
