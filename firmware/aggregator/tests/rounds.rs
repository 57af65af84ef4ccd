//! Rounds from start to published model, on a small head, with a clock that the test sets.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::path::Path;
use std::sync::{Arc, Barrier};

use aggregator::arithmetic::moved;
use aggregator::audit::Event;
use aggregator::engine::{Engine, EngineError, RoundRequest, Rules};
use aggregator::gate::{Gate, GateError, NoGate};
use aggregator::ingest::{Submission, Worker};
use aggregator::records::{Device, Model, Phase, Rollout, Round, Standing, Tally};
use aggregator::store::{Decision, Fate, NotCounted, Snapshot, Store, StoreError};
use aggregator::verify::verify;
use common::{
    Fleet, SMALL, Z, filled, full_round, request, rolling_out, second_version, trouble_everywhere,
    why_aborted,
};
use learn::averaging::Step;
use learn::head::{HeadLayout, Subset, numbers};
use learn::privacy::CLIP_STEPS;
use proto::{DeviceId, Pseudonym};

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
