//! Rounds from start to published model, on a small head, with a clock that the test sets.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod audit;
#[path = "../common/mod.rs"]
mod common;
mod database;

use std::sync::{Arc, Mutex};

use aggregator::arithmetic::moved;
use aggregator::engine::{Engine, EngineError, Parts, RoundRequest, Rules};
use aggregator::gate::{Gate, GateError, NoGate};
use aggregator::ingest::{Submission, Worker};
use aggregator::records::{Phase, Rollout, Round};
use aggregator::store::{Fate, NotCounted, Store};
use common::{
    Fleet, PATIENCE, SMALL, TestClock, Z, filled, full_round, request, second_version, why_aborted,
};
use learn::averaging::Step;
use learn::edges::{Clock, Timestamp};
use learn::head::{HeadLayout, Subset};
use learn::privacy::CLIP_STEPS;
use proto::Pseudonym;

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

/// Scores a head by how near the mean of its sparse numbers is to those that the mirrors ship with.
struct Near;

impl Gate for Near {
    fn scores(&self, heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        let layout = HeadLayout::of_shape(SMALL).unwrap();
        let mean = |head: &&[f32]| {
            let values = layout.gather(Subset::Sparse, head);
            f64::from(values.iter().sum::<f32>()) / values.len() as f64
        };
        Ok(heads.iter().map(|head| 1.0 - (mean(head) - 0.25).abs()).collect())
    }
}

#[test]
fn an_update_just_within_the_norm_counts_and_the_gate_refuses_what_it_spoils() {
    let outcome = |name: &str, is_hostile: bool| {
        let rules = Rules { tolerance: 0.15, ..common::rules() };
        let fleet = Fleet::with_gate(name, rules, Box::new(Near), SMALL);
        fleet.enrol(5);
        let round = fleet.open_round();
        let mut batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
        if is_hostile {
            // In clips: what a delta may have, and the length that noise of 1.2 may have at most.
            let root = (round.task.dimension as f64).sqrt();
            let most = f64::from(CLIP_STEPS) * (1.0 + 1.2 * (root + 8.0)) / root;
            let beyond = common::forged(&batch[0], most as i16 + 1);
            let refused = fleet.worker(0).count(&[beyond]).unwrap().remove(0).fate;
            let Fate::Refused(reason) = refused else { panic!("{refused:?}") };
            assert_eq!(reason.kind().name(), "norm");
            batch[0] = common::forged(&batch[0], most as i16);
        }
        let countings = fleet.worker(0).count(&batch).unwrap();
        assert!(countings.iter().all(|counting| counting.fate == Fate::Counted), "{countings:?}");
        fleet.pass(100);
        fleet.engine.store().round(round.id).unwrap().unwrap()
    };
    assert_eq!(outcome("norm-honest", false).phase, Phase::Published { version: 2 });
    let spoiled = outcome("norm-hostile", true);
    assert!(spoiled.is_refused(), "{spoiled:?}");
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

/// A clock that does something the next time it is asked.
struct Interrupted {
    clock: Arc<TestClock>,
    by: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Clock for Interrupted {
    fn now(&self) -> Timestamp {
        let by = self.by.lock().unwrap().take();
        by.into_iter().for_each(|by| by());
        self.clock.now()
    }
}

#[test]
fn an_abort_between_the_look_at_a_round_and_that_at_its_candidate_is_no_damage() {
    let fleet = Fleet::new("between", common::rules());
    fleet.enrol(5);
    let round = full_round(&fleet);
    fleet.clock.add(100);
    assert!((0..3).all(|_| common::step(&fleet.engine).unwrap()));
    let (engine, clock, folder) = fleet.into_parts();
    drop(engine);
    let store = Store::open(&folder.0.join("fleet.redb")).unwrap();
    let clock = Arc::new(Interrupted { clock, by: Mutex::default() });
    let parts = common::parts(store, &clock.clock, SMALL);
    let engine =
        Arc::new(Engine::new(Parts { clock: Arc::<Interrupted>::clone(&clock), ..parts }).unwrap());
    assert_eq!(engine.live_round().unwrap().unwrap().phase, Phase::Gated);
    let (aborts, id) = (Arc::clone(&engine), round.id);
    let abort = move || drop(aborts.abort_round(id, "by the operator").unwrap());
    *clock.by.lock().unwrap() = Some(Box::new(abort));
    // Without a broker nothing asks for the time before the round is looked at.
    engine.advance(false).unwrap();
    assert!(clock.by.lock().unwrap().is_none());
    assert_eq!(why_aborted(&engine, round.id), "by the operator");
    assert_eq!(engine.store().models().unwrap().len(), 1);
    engine.verify(&engine.key().verifying_key()).unwrap();
}

#[test]
fn an_abort_while_the_candidate_is_judged_stands() {
    let (gate, begins, go_on) = common::slow_gate();
    let fleet = Fleet::with_gate("judging", common::rules(), gate, SMALL);
    fleet.enrol(5);
    let round = full_round(&fleet);
    fleet.clock.add(100);
    let engine = &fleet.engine;
    std::thread::scope(|scope| {
        let judging = scope.spawn(|| common::settle(engine));
        begins.recv_timeout(PATIENCE).unwrap();
        let aborted = engine.abort_round(round.id, "by the operator");
        let next = engine.start_round(&request(false));
        go_on.send(()).unwrap();
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
