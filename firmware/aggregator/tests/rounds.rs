//! Rounds from start to published model, on a small head, with a clock that the test sets.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::Arc;

use aggregator::engine::{EngineError, Report, Rules};
use aggregator::ingest::Worker;
use aggregator::records::{Phase, Pseudonym, Rollout};
use aggregator::store::{Fate, Refusal};
use common::{Fleet, Z, request};
use learn::head::Subset;

#[test]
fn a_round_averages_what_devices_sent_and_publishes_it() {
    let fleet = Fleet::new("whole", Rules { minimum_cohort: 20, ..common::rules() });
    fleet.enrol(30);
    let round = fleet.engine.start_round(&request(false)).unwrap();
    assert_eq!(round.phase, Phase::Announced);
    fleet.clock.add(10);
    fleet.engine.advance().unwrap();
    let mut worker = fleet.worker(0);
    let batch: Vec<_> = (0..30).map(|name| fleet.submission(&round, name, 0.01)).collect();
    let receipts = worker.count(&batch).unwrap();
    assert!(receipts.iter().all(|receipt| receipt.fate == Fate::Counted), "{receipts:?}");
    fleet.clock.add(1_000);
    fleet.engine.advance().unwrap();

    let round = fleet.engine.store().round(round.id).unwrap().unwrap();
    assert_eq!(round.phase, Phase::Published { version: 2 });
    let before = fleet.engine.store().parameters(1).unwrap().unwrap();
    let after = fleet.engine.store().parameters(2).unwrap().unwrap();
    assert_ne!(before, after);
    let verified = fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
    assert_eq!((verified.rounds, verified.updates, verified.models), (1, 30, 2));
    let statement = fleet.engine.privacy_by_round().unwrap().pop().flatten().unwrap();
    assert_eq!((statement.releases(), statement.noise_multiplier()), (1, Some(Z.parse().unwrap())));
    // A second round, in which nothing comes in, costs nobody anything.
    fleet.engine.start_round(&request(false)).unwrap();
    let status = fleet.engine.status().unwrap();
    assert_eq!(status.epsilon_by_round, [statement.shown_epsilon(); 2]);
    assert_eq!(status.epsilon, Some(statement.shown_epsilon()));
}

#[test]
fn what_does_not_belong_is_refused_and_counted_and_everyone_else_unharmed() {
    let fleet = Fleet::new("refusals", common::rules());
    fleet.enrol(3);
    let round = fleet.engine.start_round(&request(false)).unwrap();
    let mut worker = fleet.worker(0);
    let early = worker.count(&[fleet.submission(&round, 1, 0.0)]).unwrap();
    assert_eq!(early[0].fate, Fate::Refused(Refusal::NotCollecting));
    fleet.clock.add(10);
    fleet.engine.advance().unwrap();

    let good = fleet.submission(&round, 1, 0.0);
    let second = fleet.submission(&round, 1, 0.0);
    let copy = aggregator::ingest::Submission { pseudonym: Pseudonym([9; 16]), ..good.clone() };
    let mut unknown = fleet.submission(&round, 2, 0.0);
    unknown.round = 77;
    let mut cut = fleet.submission(&round, 3, 0.0);
    cut.bytes.pop();
    let mut long = fleet.submission(&round, 4, 0.0);
    long.bytes.resize(1 << 20, 0);
    let huge = common::forged(&fleet.submission(&round, 5, 0.0), i16::MAX);
    let quiet = fleet.submission_with(&round, 6, 0.0, "0.7");
    let other = fleet.submission(&round, 7, 0.0);
    let batch = [good.clone(), good.clone(), second, copy, unknown, cut, long, huge, quiet, other];
    let fates: Vec<Fate> = worker.count(&batch).unwrap().into_iter().map(|r| r.fate).collect();
    let name = |fate: &Fate| match fate {
        Fate::Counted => "counted",
        Fate::CountedBefore { .. } => "counted before",
        Fate::Refused(refusal) => refusal.name(),
    };
    let names: Vec<&str> = fates.iter().map(name).collect();
    assert_eq!(
        names,
        [
            "counted",
            "counted before",
            "second-update",
            "counted before",
            "unknown-round",
            "malformed",
            "too-large",
            "norm",
            "noise",
            "counted"
        ]
    );
    let tally = fleet.engine.store().tally(round.id).unwrap();
    assert_eq!(tally.counted, 2);
    assert_eq!(tally.refused.values().sum::<u64>(), 5, "{tally:?}");
    assert_eq!(fleet.merged(&round).count(), 2);

    // Late, after the close: a retry is still answered, a new one is not taken.
    fleet.clock.add(10_000);
    fleet.engine.advance().unwrap();
    let late = worker.count(&[good, fleet.submission(&round, 8, 0.0)]).unwrap();
    assert_eq!(late[0].fate, Fate::CountedBefore { round: 1 });
    assert_eq!(late[1].fate, Fate::Refused(Refusal::NotCollecting));
}

#[test]
fn workers_merge_and_one_of_them_may_die() {
    let fleet = Fleet::new("workers", common::rules());
    fleet.enrol(3);
    let round = fleet.open_round();
    let mut workers: Vec<Worker> = (0..3).map(|number| fleet.worker(number)).collect();
    for name in 0..12_u8 {
        let submission = fleet.submission(&round, name, 0.0);
        workers[usize::from(name % 3)].count(std::slice::from_ref(&submission)).unwrap();
        if name == 5 {
            // Its memory is gone; another one takes its number and goes on from the database.
            workers[2] = fleet.worker(2);
        }
        // Redelivery to another worker counts once.
        let again = workers[usize::from((name + 1) % 3)].count(&[submission]).unwrap();
        assert_eq!(again[0].fate, Fate::CountedBefore { round: 1 });
    }
    assert_eq!(fleet.merged(&round).count(), 12);
    assert_eq!(fleet.engine.store().tally(round.id).unwrap().counted, 12);
}

#[test]
fn a_worse_candidate_does_not_ship() {
    let fleet = Fleet::with_scores("gate", common::rules(), vec![0.5, 0.499]);
    fleet.enrol(3);
    let round = fleet.open_round();
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.clock.add(10_000);
    fleet.engine.advance().unwrap();
    let round = fleet.engine.store().round(round.id).unwrap().unwrap();
    let Phase::Aborted { reason } = round.phase else { panic!("{round:?}") };
    assert!(reason.contains("0.4990") && reason.contains("does not ship"), "{reason}");
    assert_eq!(fleet.engine.store().models().unwrap().len(), 1);
    fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
}

#[test]
fn too_small_a_cohort_averages_nothing() {
    let fleet = Fleet::new("cohort", Rules { minimum_cohort: 4, ..common::rules() });
    fleet.enrol(3);
    let round = fleet.open_round();
    let batch: Vec<_> = (0..3).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.clock.add(10_000);
    fleet.engine.advance().unwrap();
    let round = fleet.engine.store().round(round.id).unwrap().unwrap();
    assert!(matches!(&round.phase, Phase::Aborted { reason } if reason.contains("needs 4")));
}

#[test]
fn a_round_without_signal_is_refused_unless_forced() {
    let fleet = Fleet::new("signal", Rules { wanted_cosine: 0.5, ..common::rules() });
    fleet.enrol(3);
    let error = fleet.engine.start_round(&request(false)).unwrap_err();
    assert!(matches!(error, EngineError::NoSignal(_)), "{error}");
    assert!(error.to_string().contains("let the mirrors learn at home"), "{error}");
    let round = fleet.engine.start_round(&request(true)).unwrap();
    assert!(round.forced && round.expected_cosine < 0.5);
    assert!(matches!(fleet.engine.start_round(&request(true)), Err(EngineError::Busy(1))));
    fleet.engine.abort_round(round.id, "a test").unwrap();
    assert!(matches!(fleet.engine.abort_round(round.id, "again"), Err(EngineError::Over(1))));
    assert_eq!(fleet.engine.start_round(&request(true)).unwrap().id, 2);
}

#[test]
fn a_roll_out_reaches_more_and_more_devices_and_trouble_stops_it() {
    let fleet = Fleet::new("rollout", common::rules());
    fleet.enrol(5);
    let engine = &fleet.engine;
    let parameters = vec![0.5; engine.layout().subset_len(Subset::Full)];
    engine.add_model(&parameters, "a test").unwrap();
    let announced = || {
        let model = engine.announced().unwrap().unwrap();
        (model.version, engine.permille(&model))
    };
    assert_eq!(announced(), (1, 1000), "an added version is held");
    engine.publish(2).unwrap();
    assert_eq!(announced(), (2, 100));
    fleet.clock.add(100);
    engine.advance().unwrap();
    assert_eq!(announced(), (2, 1000));
    (0..5).for_each(|_| engine.report("mirror-0", 2, Report::Failed).unwrap());
    assert_eq!(announced(), (2, 1000), "one device counts once");
    (1..5).for_each(|n| engine.report(&format!("mirror-{n}"), 2, Report::Failed).unwrap());
    assert!(matches!(engine.store().model(2).unwrap().unwrap().rollout, Rollout::Stopped { .. }));
    assert_eq!(announced(), (2, 0));
    let back = engine.rollback(1).unwrap();
    assert_eq!(back.version, 3, "devices only go up");
    assert_eq!(engine.store().parameters(3).unwrap(), engine.store().parameters(1).unwrap());
    assert_eq!(announced(), (3, 1000));
}

#[test]
fn a_device_is_known_by_its_certificate_and_revoked_for_good() {
    let fleet = Fleet::new("devices", common::rules());
    let engine = &fleet.engine;
    let (one, other) = ("11".repeat(32), "22".repeat(32));
    engine.enrol("mirror-1", &one).unwrap();
    engine.enrol("mirror-1", &one).unwrap();
    let refused = |result: Result<_, EngineError>| result.unwrap_err().to_string();
    assert!(refused(engine.enrol("mirror-1", &other)).contains("another certificate"));
    assert!(refused(engine.enrol("mirror 1", &one)).contains("no device name"));
    assert!(refused(engine.enrol("mirror-2", "12")).contains("fingerprint"));
    assert!(refused(engine.enrol("aggregator", &one)).contains("own programs"));
    engine.revoke("mirror-1", "stolen").unwrap();
    assert!(refused(engine.enrol("mirror-1", &one)).contains("stays so"));
    let status = engine.status().unwrap();
    assert_eq!((status.enrolled, status.revoked), (0, 1));
}

#[test]
fn old_rounds_are_forgotten_and_the_audit_still_holds() {
    let mut rules = common::rules();
    rules.keep_rounds = 1;
    let fleet = Fleet::new("prune", rules);
    fleet.enrol(3);
    for _ in 0..3 {
        let round = fleet.open_round();
        let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
        fleet.worker(0).count(&batch).unwrap();
        fleet.clock.add(10_000);
        fleet.engine.advance().unwrap();
    }
    let store = fleet.engine.store();
    let counted = |round| store.members(round).unwrap().0;
    assert_eq!((counted(1), counted(2), counted(3)), (0, 0, 5));
    let verified = fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
    assert_eq!((verified.rounds, verified.pruned), (3, 2));
    // Rounds on a model that is still in force: their updates must not count a second time.
    assert!(store.rounds().unwrap().iter().all(|round| round.phase.is_final()));
}

#[test]
fn the_audit_finds_changed_sums_and_a_foreign_key() {
    let fleet = Fleet::new("audit", common::rules());
    fleet.enrol(3);
    let round = fleet.open_round();
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.clock.add(10_000);
    fleet.engine.advance().unwrap();
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
