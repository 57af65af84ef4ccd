//! Roll-outs from stage to stage, back, and to a stop, with a clock that the test sets.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::Arc;

use aggregator::audit::Event;
use aggregator::engine::{Engine, EngineError, Report};
use aggregator::records::{Model, Phase, Rollout};
use aggregator::rollout_rules::Stage;
use aggregator::store::Store;
use common::{
    Fleet, SMALL, Scratch, TestClock, add_version, filled, full_round, request, rolling_out,
    second_version, trouble_everywhere, why_aborted,
};
use proto::status::JobFault;

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
    assert_eq!([add_version(engine, 0.5), add_version(engine, 0.5)], [4, 5]);
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
    let fleet = rolling_out("again", common::rules(), 0);
    let engine = &fleet.engine;
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
    let fleet = rolling_out("again-running", common::rules(), 0);
    let engine = &fleet.engine;
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
    let fleet = rolling_out("stages", common::rules(), 0);
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
    let fleet = rolling_out("stages-superseded", common::rules(), 0);
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
    let fleet = rolling_out("unheard", rules, 0);
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
fn a_round_waits_until_its_model_has_reached_every_device_unless_forced() {
    let fleet = rolling_out("rolling", common::rules(), 5);
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
    let fleet = rolling_out("rollback-round", common::rules(), 5);
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
    let fleet = rolling_out("stop-round", common::rules(), 5);
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
