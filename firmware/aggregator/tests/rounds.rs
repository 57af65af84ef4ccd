//! Rounds from start to published model, on a small head, with a clock that the test sets.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::path::Path;
use std::sync::{Arc, Barrier};

use aggregator::arithmetic::moved;
use aggregator::audit::Event;
use aggregator::engine::{Engine, EngineError, Report, RoundRequest, Rules};
use aggregator::gate::{Gate, GateError, NoGate};
use aggregator::ingest::{Submission, Worker};
use aggregator::records::{Device, Model, Phase, Rollout, Round, Standing, Tally};
use aggregator::rollout::Stage;
use aggregator::store::{Decision, Fate, NotCounted, Snapshot, Store, StoreError};
use aggregator::verify::verify;
use common::{Fleet, SMALL, Scratch, TestClock, Z, add_version, request};
use learn::averaging::Step;
use learn::head::{Subset, numbers};
use proto::status::JobFault;
use proto::{DeviceId, Pseudonym};

/// A round that has what it needs to become a version.
fn full_round(fleet: &Fleet) -> Round {
    filled(fleet, fleet.open_round())
}

fn filled(fleet: &Fleet, round: Round) -> Round {
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    round
}

/// Version 2, held.
fn second_version(engine: &Engine) {
    assert_eq!(add_version(engine, 0.5), 2);
}

fn trouble_everywhere(engine: &Engine, version: u64) {
    (0..5).for_each(|n| {
        engine.report(&format!("mirror-{n}"), version, Report::Failed(JobFault::Unusable)).unwrap()
    });
    let rollout = engine.store().model(version).unwrap().unwrap().rollout;
    assert!(matches!(rollout, Rollout::Stopped { .. }));
}

fn why_aborted(engine: &Engine, round: u64) -> String {
    let round = engine.store().round(round).unwrap().unwrap();
    let Phase::Aborted { reason } = round.phase else { panic!("{round:?}") };
    reason
}

#[test]
fn a_round_averages_what_devices_sent_and_publishes_it() {
    let fleet = Fleet::new("whole", Rules { minimum_cohort: 20, ..common::rules() });
    fleet.enrol(30);
    let round = fleet.engine.start_round(&request(false)).unwrap();
    assert_eq!(round.phase, Phase::Announced);
    fleet.clock.add(10);
    fleet.engine.advance(true).unwrap();
    let mut worker = fleet.worker(0);
    let batch: Vec<_> = (0..30).map(|name| fleet.submission(&round, name, 0.01)).collect();
    let receipts = worker.count(&batch).unwrap();
    assert!(receipts.iter().all(|receipt| receipt.fate == Fate::Counted), "{receipts:?}");
    fleet.pass(100);

    let round = fleet.engine.store().round(round.id).unwrap().unwrap();
    assert_eq!(round.phase, Phase::Published { version: 2 });
    let before = fleet.engine.store().parameters(1).unwrap().unwrap();
    let after = fleet.engine.store().parameters(2).unwrap().unwrap();
    assert_ne!(before, after);
    let verified = fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
    assert_eq!((verified.rounds, verified.updates, verified.models), (1, 30, 2));
    let status = fleet.engine.status().unwrap();
    let counted = status.rounds[0].counted_cosine.unwrap();
    assert!((counted - round.expected_cosine).abs() < 1e-12, "all devices answered");
    let statement = fleet.engine.privacy_by_round().unwrap().pop().flatten().unwrap();
    assert_eq!((statement.releases(), statement.noise_multiplier()), (1, Some(Z.parse().unwrap())));
    // A second round, in which nothing comes in, is counted for nobody.
    fleet.reach_everybody();
    fleet.engine.start_round(&request(false)).unwrap();
    let status = fleet.engine.status().unwrap();
    assert_eq!(status.rounds[1].counted_cosine, None);
    assert_eq!(status.epsilon_by_round, [statement.shown_epsilon(); 2]);
    assert_eq!(status.epsilon, Some(statement.shown_epsilon()));
}

#[test]
fn what_does_not_belong_is_refused_and_counted_and_everyone_else_unharmed() {
    let fleet = Fleet::new("refusals", common::rules());
    fleet.enrol(9);
    let round = fleet.engine.start_round(&request(false)).unwrap();
    let mut worker = fleet.worker(0);
    let early = worker.count(&[fleet.submission(&round, 1, 0.0)]).unwrap();
    assert_eq!(early[0].fate, Fate::Refused(NotCounted::NotCollecting));
    fleet.clock.add(10);
    fleet.engine.advance(true).unwrap();

    let good = fleet.submission(&round, 1, 0.0);
    let second = fleet.submission(&round, 1, 0.0);
    let copy =
        aggregator::ingest::Submission { pseudonym: fleet.pseudonym(&round, 0), ..good.clone() };
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
        Fate::Refused(refusal) => refusal.kind().name(),
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
    fleet.pass(100);
    let late = worker.count(&[good, fleet.submission(&round, 8, 0.0)]).unwrap();
    assert_eq!(late[0].fate, Fate::CountedBefore { round: 1 });
    assert_eq!(late[1].fate, Fate::Refused(NotCounted::NotCollecting));
}

#[test]
fn workers_merge_and_one_of_them_may_die() {
    let fleet = Fleet::new("workers", common::rules());
    fleet.enrol(12);
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
    fleet.enrol(5);
    let round = fleet.open_round();
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.pass(100);
    let round = fleet.engine.store().round(round.id).unwrap().unwrap();
    assert!(round.is_refused());
    let Phase::Aborted { reason } = round.phase else { panic!("{round:?}") };
    assert!(reason.contains("0.4990") && reason.contains("does not ship"), "{reason}");
    assert_eq!(fleet.engine.store().models().unwrap().len(), 1);
    fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
}

#[test]
fn too_small_a_cohort_is_refused_unless_forced_and_averages_nothing() {
    let fleet = Fleet::new("cohort", Rules { minimum_cohort: 4, ..common::rules() });
    fleet.enrol(3);
    let refused = fleet.engine.start_round(&request(false)).unwrap_err();
    let EngineError::SmallFleet { devices: 3, minimum: 4 } = refused else { panic!("{refused}") };
    assert!(refused.to_string().contains("Enrol more of them"), "{refused}");
    let round = fleet.engine.start_round(&request(true)).unwrap();
    assert!(round.forced);
    fleet.clock.add(10);
    fleet.engine.advance(true).unwrap();
    let batch: Vec<_> = (0..3).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.pass(100);
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
fn a_round_whose_noise_no_mirror_takes_or_can_draw_is_refused_though_it_is_forced() {
    let start = |fleet: &Fleet, z: &str| {
        let noise_multiplier = z.to_owned();
        fleet.engine.start_round(&RoundRequest { noise_multiplier, ..request(true) })
    };
    let fleet = Fleet::new("noise", common::rules());
    fleet.enrol(5);
    let refused = start(&fleet, "0.499999").unwrap_err().to_string();
    assert!(refused.contains("0.499999") && refused.contains("below 0.5"), "{refused}");
    let refused = start(&fleet, "9999.999999").unwrap_err().to_string();
    assert!(refused.contains("fewer decimals"), "{refused}");
    assert!(fleet.engine.store().rounds().unwrap().is_empty());
    assert_eq!(start(&fleet, "0.5").unwrap().task.noise_multiplier, "0.5");
    let shown = Fleet::new("any-noise", Rules { any_noise: true, ..common::rules() });
    shown.enrol(5);
    assert!(start(&shown, "9999.999999").is_err(), "nobody can draw it");
    start(&shown, "0.02").unwrap();
}

#[test]
fn a_roll_out_reaches_more_and_more_devices_and_trouble_stops_it() {
    let fleet = Fleet::new("rollout", common::rules());
    fleet.enrol(5);
    let engine = &fleet.engine;
    second_version(engine);
    let announced = || {
        let model = engine.announced().unwrap().unwrap();
        (model.version, engine.permille(&model))
    };
    assert_eq!(announced(), (1, 1000), "an added version is held");
    engine.publish(2).unwrap();
    assert_eq!(announced(), (2, 100));
    fleet.clock.add(100);
    engine.advance(true).unwrap();
    assert_eq!(announced(), (2, 1000));
    let refused = engine.publish(2).unwrap_err().to_string();
    assert!(refused.contains("version 2 is being rolled out already"), "{refused}");
    assert_eq!(announced(), (2, 1000), "it is not taken back from anybody");
    (0..5).for_each(|_| engine.report("mirror-0", 2, Report::Failed(JobFault::Unusable)).unwrap());
    assert_eq!(announced(), (2, 1000), "one device counts once");
    (1..5).for_each(|n| {
        engine.report(&format!("mirror-{n}"), 2, Report::Failed(JobFault::Unusable)).unwrap()
    });
    assert!(matches!(engine.store().model(2).unwrap().unwrap().rollout, Rollout::Stopped { .. }));
    assert_eq!(announced(), (2, 0));
    let stopped = engine.store().model(2).unwrap().unwrap().rollout;
    let back = engine.rollback(1).unwrap();
    assert_eq!(back.version, 3, "devices only go up");
    let after = engine.store().model(2).unwrap().unwrap().rollout;
    assert_eq!(after, stopped, "why it was stopped can still be read");
    assert_eq!(engine.store().parameters(3).unwrap(), engine.store().parameters(1).unwrap());
    assert_eq!(announced(), (3, 1000));
    let refused = engine.publish(2).unwrap_err().to_string();
    assert!(refused.contains("version 3 is newer") && refused.contains("model rollback 2"));
    let refused = engine.publish(3).unwrap_err().to_string();
    assert!(refused.contains("version 3 is everywhere already"), "{refused}");
    assert_eq!(announced(), (3, 1000), "it is not taken back from anybody");
    (0..2).for_each(|_| drop(add_version(engine, 0.5)));
    engine.publish(4).unwrap();
    assert_eq!(announced(), (4, 100), "a version that is only held is in nobody's way");
    assert_eq!(engine.rollback(2).unwrap().version, 6);
    assert_eq!(
        announced(),
        (6, 100),
        "numbers that were stopped for trouble begin with the first stage"
    );
    assert_eq!(engine.rollback(3).unwrap().version, 7);
    assert_eq!(announced(), (7, 1000));
}

#[test]
fn numbers_of_which_a_roll_out_was_over_come_everywhere_at_once_however_often_they_come_again() {
    let fleet = Fleet::new("again", common::rules());
    let engine = &fleet.engine;
    second_version(engine);
    engine.publish(2).unwrap();
    fleet.clock.add(60);
    engine.advance(true).unwrap();
    fleet.clock.add(60);
    engine.advance(true).unwrap();
    assert_eq!(standings(engine), ["everywhere", "everywhere"]);
    for version in [2, 2, 1, 1, 2] {
        assert_eq!(engine.rollback(version).unwrap().rollout, Rollout::Complete);
    }
    let [four, six] = [4, 6].map(|version| engine.store().model(version).unwrap().unwrap().rollout);
    assert!(matches!(four, Rollout::Stopped { was_over: true, .. }), "{four:?}");
    assert!(matches!(six, Rollout::Stopped { was_over: true, .. }), "{six:?}");
    assert_eq!(standings(engine)[4], "everywhere", "its numbers are those of version 1");
    assert_eq!(engine.restore(0, 0).unwrap().rollout, Rollout::Complete);
    engine.verify(&engine.key().verifying_key()).unwrap();
}

#[test]
fn a_version_on_its_way_is_stopped_though_its_own_numbers_come_again() {
    let fleet = Fleet::new("again-running", common::rules());
    let engine = &fleet.engine;
    second_version(engine);
    engine.publish(2).unwrap();
    engine.rollback(2).unwrap();
    let stopped = "stopped: rolled back to version 2";
    assert_eq!(standings(engine), ["everywhere", stopped, "rolling out, stage 1"]);
    engine.verify(&engine.key().verifying_key()).unwrap();
}

#[test]
fn a_database_that_was_rolled_back_to_the_same_numbers_before_opens_and_verifies() {
    let fleet = Fleet::new("again-old", common::rules());
    let engine = &fleet.engine;
    let first = engine.store().model(1).unwrap().unwrap();
    engine.rollback(1).unwrap();
    // The first version stood stopped then, and nothing said that its roll-out had been over.
    let old = r#"{"rollout":"stopped","reason":"rolled back to version 1"}"#;
    let rollout: Rollout = serde_json::from_str(old).unwrap();
    let entry = r#"{"event":"rolled-back","from":1,"to":1,"as_version":2}"#;
    let event: Event = serde_json::from_str(entry).unwrap();
    assert_eq!(serde_json::to_string(&event).unwrap(), entry);
    let stopped = Model { rollout, ..first };
    let store = engine.store();
    store.decide(0, engine.key(), |decision| decision.put_model(&stopped)).unwrap();
    let told = engine.verify(&engine.key().verifying_key()).unwrap_err().to_string();
    assert!(told.contains("its roll-out is not where the log left it"), "{told}");
    store.decide(0, engine.key(), |decision| decision.record(&event)).unwrap();
    engine.verify(&engine.key().verifying_key()).unwrap();
    assert_eq!(engine.rollback(1).unwrap().rollout, Rollout::Complete, "version 2 has its numbers");
    engine.verify(&engine.key().verifying_key()).unwrap();
}

/// The fleet of a folder, by another list of stages.
fn with_stages(folder: &Scratch, clock: &Arc<TestClock>, stages: &[u16]) -> Engine {
    let store = Store::open(&folder.0.join("fleet.redb")).unwrap();
    let mut parts = common::parts(store, clock, SMALL);
    parts.rules.rollout.stages = stages.iter().copied().map(Stage::Permille).collect();
    Engine::new(parts).unwrap()
}

#[test]
fn another_list_of_stages_sends_no_version_to_more_devices_than_it_was_announced_to() {
    let fleet = Fleet::new("stages", common::rules());
    second_version(&fleet.engine);
    fleet.engine.publish(2).unwrap();
    let (engine, clock, folder) = fleet.into_parts();
    engine.check_stages().unwrap();
    drop(engine);
    let check = |stages: &[u16]| {
        let engine = with_stages(&folder, &clock, stages);
        engine.check_stages().map_err(|error| error.to_string())
    };
    let told = check(&[1000]).unwrap_err();
    let words = ["rollout.stages", "version 2", "100 of a thousand", "1000 at once", "rollback"];
    assert!(words.iter().all(|word| told.contains(word)), "{told}");
    assert!(check(&[200, 1000]).is_err());
    for stages in [&[100, 1000][..], &[50, 100, 1000], &[100, 200, 500, 1000]] {
        check(stages).unwrap();
    }
}

#[test]
fn a_superseded_version_that_another_list_of_stages_would_complete_is_stopped() {
    let fleet = Fleet::new("stages-superseded", common::rules());
    second_version(&fleet.engine);
    fleet.engine.publish(2).unwrap();
    add_version(&fleet.engine, 0.5);
    fleet.engine.publish(3).unwrap();
    fleet.reach_everybody();
    let (engine, clock, folder) = fleet.into_parts();
    drop(engine);
    let standings_by = |stages: &[u16]| {
        let engine = with_stages(&folder, &clock, stages);
        engine.check_stages().unwrap();
        engine.verify(&engine.key().verifying_key()).unwrap();
        standings(&engine)
    };
    let words = ["everywhere", "superseded at stage 1", "rolling out, stage 2"];
    assert_eq!(standings_by(&[100, 1000]), words);
    let stopped = "stopped: the list of stages was changed";
    assert_eq!(standings_by(&[1000]), ["everywhere", stopped, "rolling out, stage 2"]);
}

#[test]
fn a_version_that_was_superseded_goes_no_further() {
    let fleet = Fleet::new("superseded", common::rules());
    let engine = &fleet.engine;
    for version in [2, 3] {
        add_version(engine, 0.5);
        engine.publish(version).unwrap();
    }
    for _ in 0..3 {
        fleet.clock.add(100);
        engine.advance(true).unwrap();
    }
    let rollout = |version| engine.store().model(version).unwrap().unwrap().rollout;
    assert!(matches!(rollout(2), Rollout::Running { stage: 0, .. }));
    assert_eq!(rollout(3), Rollout::Complete);
    assert_eq!(standings(engine), ["everywhere", "superseded at stage 1", "everywhere"]);
}

/// What commands and the page say of each version.
fn standings(engine: &Engine) -> Vec<String> {
    engine.status().unwrap().models.into_iter().map(|known| known.standing).collect()
}

#[test]
fn a_version_that_every_device_is_offered_goes_on_though_a_newer_one_is_announced() {
    let fleet = Fleet::new("last-stage", common::rules());
    let engine = &fleet.engine;
    second_version(engine);
    assert_eq!(standings(engine), ["everywhere", "held"]);
    engine.publish(2).unwrap();
    fleet.reach_everybody();
    add_version(engine, 0.5);
    engine.publish(3).unwrap();
    let under_way = ["everywhere", "rolling out, stage 2", "rolling out, stage 1"];
    assert_eq!(standings(engine), under_way);
    fleet.clock.add(60);
    engine.advance(true).unwrap();
    assert_eq!(standings(engine), ["everywhere", "everywhere", "rolling out, stage 2"]);
}

#[test]
fn a_stage_does_not_end_while_nobody_can_hear_of_it() {
    let mut rules = common::rules();
    rules.rollout.stage_seconds = 1_000;
    let fleet = Fleet::new("unheard", rules);
    second_version(&fleet.engine);
    fleet.engine.publish(2).unwrap();
    let reached = |seconds, heard| {
        fleet.clock.add(seconds);
        fleet.engine.advance(heard).unwrap();
        fleet.engine.permille(&fleet.engine.announced().unwrap().unwrap())
    };
    assert_eq!((reached(0, true), reached(400, false)), (100, 100));
    assert_eq!(reached(9_600, false), 100, "the broker is away");
    assert_eq!(reached(10, true), 100, "and its absence does not count");
    let heard_again: Vec<u16> = (0..10).map(|_| reached(99, true)).collect();
    assert_eq!(heard_again, [100; 10], "990 of 1,000 seconds");
    assert_eq!(reached(60, true), 1000);
    assert_eq!(reached(50_000, true), 1000, "nor does the time in which no server ran");
    let rollout = fleet.engine.store().model(2).unwrap().unwrap().rollout;
    assert!(matches!(rollout, Rollout::Running { stage: 1, .. }), "{rollout:?}");
    fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
}

#[test]
fn a_clock_that_was_ahead_and_is_put_right_holds_no_roll_out_up_and_shortens_no_stage() {
    const YEAR: u64 = 365 * 86_400;
    let mut rules = common::rules();
    rules.rollout.stage_seconds = 1_000;
    let fleet = Fleet::new("ahead", rules);
    let (engine, clock) = (&fleet.engine, &fleet.clock);
    clock.add(YEAR);
    second_version(engine);
    engine.publish(2).unwrap();
    let stage = &|| {
        engine.advance(true).unwrap();
        match engine.announced().unwrap().unwrap().rollout {
            Rollout::Running { stage, .. } => Some(stage),
            _ => None,
        }
    };
    let seconds = |count: usize| {
        (0..count).step_by(60).map(move |_| {
            clock.add(60);
            stage()
        })
    };
    assert!(seconds(480).all(|stage| stage == Some(0)));
    clock.add(YEAR);
    assert_eq!(stage(), Some(0), "a year in which nobody heard does not count");
    assert!(seconds(120).all(|stage| stage == Some(0)));
    clock.back(YEAR);
    assert!(seconds(960).all(|stage| stage == Some(0)), "it begins anew");
    assert_eq!(seconds(120).last(), Some(Some(1)));
    // A stage that began while the clock was ahead.
    clock.back(YEAR / 12);
    assert!(seconds(1_020).all(|stage| stage == Some(1)));
    assert_eq!(seconds(60).last(), Some(None));
    // And a roll-out that begins after the last one was heard of by a clock that was ahead.
    clock.back(YEAR / 12);
    add_version(engine, 0.5);
    engine.publish(3).unwrap();
    assert!(seconds(960).all(|stage| stage == Some(0)));
    assert_eq!(seconds(60).last(), Some(Some(1)));
}

#[test]
fn a_rounds_window_does_not_end_while_nobody_can_hear_of_it() {
    let fleet = Fleet::new("unheard-round", Rules { window_seconds: 1_000, ..common::rules() });
    fleet.enrol(5);
    let live = fleet.engine.start_round(&request(false)).unwrap();
    let phase = |seconds, heard| {
        fleet.clock.add(seconds);
        fleet.engine.advance(heard).unwrap();
        fleet.engine.store().round(live.id).unwrap().unwrap().phase
    };
    assert_eq!((phase(0, true), phase(10, true)), (Phase::Announced, Phase::Collecting));
    assert_eq!(phase(400, false), Phase::Collecting);
    assert_eq!(phase(9_600, false), Phase::Collecting, "the broker is away");
    assert_eq!(phase(10, true), Phase::Collecting, "and its absence does not count");
    assert!((0..16).all(|_| phase(59, true) == Phase::Collecting), "944 of 1,000 seconds");
    let round = fleet.engine.store().round(live.id).unwrap().unwrap();
    assert_eq!(round.closes_at - round.opens_at, 1_000, "mirrors hear of what is left");
    filled(&fleet, round);
    assert_eq!(phase(50_000, false), Phase::Collecting, "nor does the time without a server");
    assert_eq!((phase(0, true), phase(60, true)), (Phase::Collecting, Phase::Collecting));
    assert_eq!(phase(6, true), Phase::Closed);
    fleet.settle();
    fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
}

#[test]
fn a_round_that_was_announced_without_a_server_has_its_whole_window() {
    let fleet = Fleet::new("no-server", common::rules());
    fleet.enrol(5);
    let live = fleet.engine.start_round(&request(false)).unwrap();
    fleet.clock.add(86_400);
    fleet.engine.advance(false).unwrap();
    fleet.engine.advance(true).unwrap();
    let round = fleet.engine.store().round(live.id).unwrap().unwrap();
    assert!(round.is_open() && round.closes_at >= fleet.engine.now() + 100, "{round:?}");
}

#[test]
fn a_round_that_was_announced_by_a_clock_that_was_ahead_takes_updates_once_it_is_put_right() {
    let fleet = Fleet::new("ahead-round", common::rules());
    fleet.enrol(5);
    fleet.clock.add(1_000_000);
    let round = fleet.engine.start_round(&request(false)).unwrap();
    fleet.clock.back(1_000_000);
    fleet.settle();
    fleet.clock.add(10);
    fleet.settle();
    let round = fleet.engine.store().round(round.id).unwrap().unwrap();
    assert_eq!(round.phase, Phase::Collecting);
    filled(&fleet, round.clone());
    fleet.clock.add(100);
    fleet.settle();
    let round = fleet.engine.store().round(round.id).unwrap().unwrap();
    assert_eq!(round.phase, Phase::Published { version: 2 });
    fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
}

#[test]
fn a_small_step_of_the_clock_back_leaves_a_rounds_window_as_it_is() {
    let fleet = Fleet::new("step-back", Rules { window_seconds: 1_000, ..common::rules() });
    fleet.enrol(5);
    let live = fleet.open_round();
    let closes_at = || {
        fleet.engine.advance(true).unwrap();
        fleet.engine.store().round(live.id).unwrap().unwrap().closes_at
    };
    let ten_minutes = || {
        (0..10).all(|_| {
            fleet.clock.add(60);
            closes_at() == live.closes_at
        })
    };
    assert!(ten_minutes());
    fleet.clock.back(1);
    assert_eq!(closes_at(), live.closes_at);
    fleet.clock.add(59);
    assert_eq!(closes_at(), live.closes_at, "nor does what follows count as silence");
}

#[test]
fn a_round_stays_open_where_the_clock_leaps_ahead_and_is_put_right() {
    const YEAR: u64 = 365 * 86_400;
    let fleet = Fleet::new("leap-round", common::rules());
    fleet.enrol(5);
    let live = fleet.open_round();
    let round = || {
        fleet.engine.advance(true).unwrap();
        fleet.engine.store().round(live.id).unwrap().unwrap()
    };
    assert_eq!(round().phase, Phase::Collecting);
    fleet.clock.add(YEAR);
    assert_eq!(round().phase, Phase::Collecting, "a year in which nobody heard does not count");
    fleet.clock.back(YEAR);
    let round = round();
    let left = round.closes_at - fleet.engine.now();
    assert_eq!((round.phase, left), (Phase::Collecting, 110), "its time begins anew");
}

#[test]
fn damaged_numbers_of_a_version_or_a_candidate_are_told_and_end_no_thread() {
    let fleet = Fleet::new("damaged-numbers", common::rules());
    fleet.enrol(5);
    let round = full_round(&fleet);
    fleet.clock.add(100);
    let (engine, store) = (&fleet.engine, fleet.engine.store());
    let phase = || {
        engine.advance(true).unwrap();
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
        let told = engine.advance(true).unwrap_err().to_string();
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

/// Seconds by which a clock is behind that has lost its battery.
const BEHIND: u64 = 1_000_000;

#[test]
fn a_clock_that_is_behind_before_the_fleet_is_heard_changes_nothing_of_a_round() {
    let fleet = Fleet::new("behind", Rules { window_seconds: 1_000, ..common::rules() });
    fleet.enrol(5);
    fleet.clock.add(BEHIND);
    let live = fleet.open_round();
    let round = |heard| {
        fleet.engine.advance(heard).unwrap();
        fleet.engine.store().round(live.id).unwrap().unwrap()
    };
    let before = round(true);
    fleet.clock.back(BEHIND);
    assert_eq!(round(false), before, "the broker is not there yet");
    fleet.clock.add(BEHIND + 600);
    let after = round(true);
    assert_eq!((after.phase, after.closes_at), (Phase::Collecting, before.closes_at + 600));
}

#[test]
fn a_rounds_time_begins_anew_where_the_fleet_is_heard_before_a_clock_that_is_behind_is_put_right() {
    let fleet = Fleet::new("behind-heard", Rules { window_seconds: 1_000, ..common::rules() });
    fleet.enrol(5);
    fleet.clock.add(BEHIND);
    let live = fleet.open_round();
    let left = || {
        fleet.engine.advance(true).unwrap();
        let round = fleet.engine.store().round(live.id).unwrap().unwrap();
        assert_eq!(round.phase, Phase::Collecting);
        round.closes_at - fleet.engine.now()
    };
    fleet.clock.back(BEHIND);
    assert_eq!(left(), 1_010);
    fleet.clock.add(BEHIND + 600);
    assert_eq!(left(), 1_010);
}

#[test]
fn what_begins_by_a_clock_that_is_behind_has_its_whole_time_once_it_is_put_right() {
    let fleet = Fleet::new("behind-begins", common::rules());
    let (engine, clock) = (&fleet.engine, &fleet.clock);
    fleet.enrol(5);
    clock.add(BEHIND);
    second_version(engine);
    engine.publish(2).unwrap();
    engine.advance(true).unwrap();
    clock.back(BEHIND);
    engine.rollback(2).unwrap();
    let live = engine.start_round(&request(true)).unwrap();
    engine.advance(false).unwrap();
    clock.add(BEHIND + 600);
    engine.advance(true).unwrap();
    let stage = engine.store().model(3).unwrap().unwrap().rollout;
    assert_eq!(stage, Rollout::Running { stage: 0, since: engine.now() });
    let round = engine.store().round(live.id).unwrap().unwrap();
    assert_eq!((round.announced_at, round.is_open()), (engine.now(), true));
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
fn a_round_waits_until_its_model_has_reached_every_device_unless_forced() {
    let fleet = Fleet::new("rolling", common::rules());
    fleet.enrol(5);
    second_version(&fleet.engine);
    fleet.engine.publish(2).unwrap();
    let refused = fleet.engine.start_round(&request(false)).unwrap_err();
    let EngineError::RollingOut { version: 2, stage: 1, of: 2 } = refused else {
        panic!("{refused}")
    };
    assert!(refused.to_string().contains("Wait until `model list`"), "{refused}");
    let forced = fleet.engine.start_round(&request(true)).unwrap();
    assert!(forced.forced && forced.task.base_version == 2);
    fleet.engine.abort_round(forced.id, "a test").unwrap();
    fleet.reach_everybody();
    let rollout = fleet.engine.store().model(2).unwrap().unwrap().rollout;
    assert!(matches!(rollout, Rollout::Running { stage: 1, .. }), "its last stage is not over");
    assert!(!fleet.engine.start_round(&request(false)).unwrap().forced);
}

#[test]
fn a_report_counts_once_and_only_from_a_device_that_the_roll_out_has_reached() {
    let mut rules = common::rules();
    rules.rollout.stages = vec![Stage::Group("pilot".into()), Stage::Permille(1000)];
    let fleet = Fleet::new("reports", rules);
    fleet.enrol(5);
    let engine = &fleet.engine;
    engine.enrol_in("mirror-9", &"99".repeat(32), Some("pilot")).unwrap();
    second_version(engine);
    engine.publish(2).unwrap();
    let counts = || {
        let model = engine.store().model(2).unwrap().unwrap();
        (model.installed, model.failed)
    };
    engine.report("mirror-0", 2, Report::Failed(JobFault::Unusable)).unwrap();
    assert_eq!(counts(), (0, 0), "whoever fetches it early speaks for nobody");
    for _ in 0..3 {
        engine.report("mirror-9", 2, Report::Installed).unwrap();
    }
    assert_eq!(counts(), (1, 0));
    fleet.reach_everybody();
    engine.report("mirror-0", 2, Report::Failed(JobFault::Unusable)).unwrap();
    engine.report("mirror-9", 2, Report::Failed(JobFault::Unusable)).unwrap();
    assert_eq!(counts(), (0, 2));
    assert!(matches!(
        engine.report("nobody", 2, Report::Failed(JobFault::Unusable)),
        Err(EngineError::NoDevice(_))
    ));
    assert!(matches!(
        engine.report("mirror-0", 7, Report::Failed(JobFault::Unusable)),
        Err(EngineError::NoModel(7))
    ));
}

#[test]
fn a_stage_that_has_reached_devices_waits_for_one_that_says_that_the_version_works() {
    let mut rules = common::rules();
    rules.rollout.stages = vec![Stage::Group("pilot".into()), Stage::Permille(1000)];
    let fleet = Fleet::new("silent", rules);
    fleet.enrol(5);
    let engine = &fleet.engine;
    engine.enrol_in("mirror-8", &"88".repeat(32), Some("pilot")).unwrap();
    engine.enrol_in("mirror-9", &"99".repeat(32), Some("pilot")).unwrap();
    second_version(engine);
    engine.publish(2).unwrap();
    let stands = || {
        engine.advance(true).unwrap();
        let model = engine.store().model(2).unwrap().unwrap();
        (engine.permille(&model), engine.status().unwrap().silent)
    };
    assert_eq!(stands(), (0, None), "its time is not over");
    assert_eq!(standings(engine)[1], "rolling out, stage 1");
    fleet.clock.add(60);
    assert_eq!(stands(), (0, Some(2)), "all of them are away, or it ends them");
    assert!(standings(engine)[1].starts_with("waits at stage 1: of the mirrors"));
    engine.report("mirror-8", 2, Report::Failed(JobFault::Storage)).unwrap();
    assert_eq!(stands(), (0, Some(2)), "a failure is no success either");
    engine.report("mirror-9", 2, Report::Installed).unwrap();
    assert_eq!(stands(), (1000, None));
    // A stage in which nobody is left has nobody to wait for.
    fleet.engine.rollback(1).unwrap();
    add_version(engine, 0.5);
    engine.publish(4).unwrap();
    for name in ["mirror-8", "mirror-9"] {
        engine.revoke(name, "a test").unwrap();
    }
    fleet.clock.add(60);
    engine.advance(true).unwrap();
    assert_eq!(engine.permille(&engine.store().model(4).unwrap().unwrap()), 1000);
}

#[test]
fn who_failed_and_how_can_be_asked_also_of_reports_from_before_faults_were_noted() {
    let fleet = Fleet::new("failures", common::rules());
    fleet.enrol(3);
    let engine = &fleet.engine;
    let failures = || {
        let failures = engine.failures(1).unwrap();
        failures.into_iter().map(|failure| (failure.device, failure.fault)).collect::<Vec<_>>()
    };
    assert_eq!(failures(), []);
    // As it was written before.
    let store = engine.store();
    let old = Model { failed: 1, ..store.model(1).unwrap().unwrap() };
    store
        .decide(0, engine.key(), |decision| {
            decision.put_report(1, "mirror-0", 2)?;
            decision.put_model(&old)
        })
        .unwrap();
    engine.report("mirror-1", 1, Report::Installed).unwrap();
    engine.report("mirror-2", 1, Report::Failed(JobFault::PublicCheck)).unwrap();
    let later = ("mirror-2".to_owned(), Some(JobFault::PublicCheck));
    assert_eq!(failures(), [("mirror-0".to_owned(), None), later.clone()]);
    engine.report("mirror-0", 1, Report::Failed(JobFault::Storage)).unwrap();
    assert_eq!(failures(), [("mirror-0".to_owned(), Some(JobFault::Storage)), later]);
    let model = engine.store().model(1).unwrap().unwrap();
    assert_eq!((model.installed, model.failed), (1, 2), "it counts once");
    assert!(matches!(engine.failures(9), Err(EngineError::NoModel(9))));
}

#[test]
fn a_rollback_ends_the_round_that_would_bring_the_model_back() {
    let fleet = Fleet::new("rollback-round", common::rules());
    fleet.enrol(5);
    second_version(&fleet.engine);
    fleet.engine.publish(2).unwrap();
    fleet.reach_everybody();
    let round = full_round(&fleet);
    assert_eq!(round.task.base_version, 2);
    fleet.engine.rollback(1).unwrap();
    fleet.pass(100);
    let reason = why_aborted(&fleet.engine, round.id);
    assert!(reason.contains("version 2, from which it started"), "{reason}");
    assert_eq!(fleet.engine.announced().unwrap().unwrap().version, 3);
}

#[test]
fn a_roll_out_that_stops_ends_the_round_on_it_and_no_other() {
    let fleet = Fleet::new("stop-round", common::rules());
    fleet.enrol(5);
    second_version(&fleet.engine);
    fleet.engine.publish(2).unwrap();
    fleet.reach_everybody();
    let on_second = full_round(&fleet);
    trouble_everywhere(&fleet.engine, 2);
    let reason = why_aborted(&fleet.engine, on_second.id);
    assert!(reason.contains("version 2, from which it started"), "{reason}");
    let refused = fleet.engine.start_round(&request(false)).unwrap_err();
    let EngineError::StoppedAbove { stopped: 2, base: 1 } = refused else { panic!("{refused}") };
    assert!(refused.to_string().contains("`model rollback 1` first"), "{refused}");
    let on_first = filled(&fleet, fleet.open_round_with(true));
    assert_eq!((on_first.task.base_version, on_first.forced), (1, true));
    fleet.engine.report("mirror-0", 2, Report::Installed).unwrap();
    fleet.pass(100);
    let round = fleet.engine.store().round(on_first.id).unwrap().unwrap();
    assert_eq!(round.phase, Phase::Published { version: 3 });
}

#[test]
fn a_candidate_of_a_model_that_is_not_in_force_is_not_published() {
    let fleet = Fleet::new("outdated", common::rules());
    fleet.enrol(5);
    let round = full_round(&fleet);
    let store = fleet.engine.store();
    let rollout = Rollout::Stopped { reason: "a test".into(), was_over: false };
    let stopped = aggregator::records::Model { rollout, ..store.model(1).unwrap().unwrap() };
    store.decide(0, fleet.engine.key(), |decision| decision.put_model(&stopped)).unwrap();
    fleet.pass(100);
    let reason = why_aborted(&fleet.engine, round.id);
    assert!(reason.contains("no longer in force"), "{reason}");
    assert_eq!(store.models().unwrap().len(), 1);
}

#[test]
fn a_device_that_is_revoked_before_its_update_is_counted_is_refused() {
    let fleet = Fleet::new("revoked", common::rules());
    fleet.enrol(3);
    let round = fleet.open_round();
    let mut worker = fleet.worker(0);
    let batch: Vec<_> = (0..3).map(|name| fleet.submission(&round, name, 0.0)).collect();
    assert_eq!(worker.count(&batch[..1]).unwrap()[0].fate, Fate::Counted);
    fleet.engine.revoke("mirror-0", "stolen").unwrap();
    fleet.engine.revoke("mirror-1", "stolen").unwrap();
    let stranger = Submission { pseudonym: Pseudonym([7; 16]), ..batch[2].clone() };
    let all = [batch[0].clone(), batch[1].clone(), stranger, batch[2].clone()];
    let fates: Vec<Fate> = worker.count(&all).unwrap().into_iter().map(|r| r.fate).collect();
    let expected = [
        Fate::CountedBefore { round: round.id },
        Fate::Refused(NotCounted::Revoked),
        Fate::Refused(NotCounted::UnknownDevice),
        Fate::Counted,
    ];
    assert_eq!(fates, expected);
    let tally = fleet.engine.store().tally(round.id).unwrap();
    assert_eq!((tally.counted, tally.refused.get("revoked")), (2, Some(&1)));
}

/// Publishes a round after another and says whether the last one's candidate is more than its base and its average.
fn momentum_reaches(name: &str, between: impl FnOnce(&Engine)) -> bool {
    let fleet = Fleet::new(
        name,
        Rules { step: Step::PLAIN.with_momentum(0.9).unwrap(), ..common::rules() },
    );
    fleet.enrol(5);
    full_round(&fleet);
    fleet.pass(100);
    between(&fleet.engine);
    fleet.reach_everybody();
    let round = full_round(&fleet);
    fleet.pass(100);
    let store = fleet.engine.store();
    let average = fleet.merged(&round).average(round.task.minimum_cohort).unwrap();
    let layout = fleet.engine.layout();
    let (plain, _) =
        moved(&store.snapshot().unwrap(), layout, &round, &average, Step::PLAIN).unwrap();
    fleet.engine.verify(&fleet.engine.key().verifying_key()).unwrap();
    let Phase::Published { version } = store.round(round.id).unwrap().unwrap().phase else {
        panic!("it was not published")
    };
    store.parameters(version).unwrap().unwrap() != plain
}

#[test]
fn momentum_goes_on_from_round_to_round_and_not_from_a_version_that_was_rolled_back() {
    assert!(momentum_reaches("momentum", |_| {}));
    assert!(!momentum_reaches("momentum-back", |engine| drop(engine.rollback(1).unwrap())));
}

/// Is met twice: when it begins to judge, and when it may go on.
struct Slow(Arc<Barrier>);

impl Gate for Slow {
    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        self.0.wait();
        self.0.wait();
        Ok(vec![0.5, 0.5])
    }
}

#[test]
fn an_abort_while_the_candidate_is_judged_stands() {
    let barrier = Arc::new(Barrier::new(2));
    let gate = Box::new(Slow(Arc::clone(&barrier)));
    let fleet = Fleet::with_gate("judging", common::rules(), gate, SMALL);
    fleet.enrol(5);
    let round = full_round(&fleet);
    fleet.clock.add(100);
    let engine = &fleet.engine;
    std::thread::scope(|scope| {
        let judging = scope.spawn(|| common::settle(engine));
        barrier.wait();
        let aborted = engine.abort_round(round.id, "by the operator");
        let next = engine.start_round(&request(false));
        barrier.wait();
        judging.join().unwrap().unwrap();
        assert!(aborted.is_ok());
        assert_eq!(next.unwrap().id, 2);
    });
    assert_eq!(why_aborted(engine, round.id), "by the operator");
    assert_eq!(engine.live_round().unwrap().unwrap().id, 2);
    assert_eq!(engine.store().models().unwrap().len(), 1);
    engine.verify(&engine.key().verifying_key()).unwrap();
}

#[test]
fn a_round_without_a_holdout_is_refused_unless_forced() {
    let fleet = Fleet::with_gate("no-holdout", common::rules(), Box::new(NoGate), SMALL);
    fleet.enrol(3);
    let refused = fleet.engine.start_round(&request(false)).unwrap_err().to_string();
    assert!(refused.contains("set gate.holdout"), "{refused}");
    assert!(fleet.engine.store().rounds().unwrap().is_empty());
    assert!(fleet.engine.start_round(&request(true)).unwrap().forced);
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
    let fleet = Fleet::new("restore-rolling", common::rules());
    fleet.enrol(3);
    second_version(&fleet.engine);
    fleet.engine.publish(2).unwrap();
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

/// A round in which five devices counted, until every device has what came of it; and what they
/// sent.
fn settled_round(fleet: &Fleet) -> (Round, Vec<Submission>) {
    let round = fleet.open_round();
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    fleet.pass(100);
    fleet.reach_everybody();
    (round, batch)
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
    (0..2).for_each(|_| drop(fleet.engine.advance(true).unwrap()));
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
