//! Training at home: adopted only when better, interruptible, resumable, stopped by consent and by the gate.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use common::{
    ColourTrunk, Device, Open, Script, add, agree, base, begin_training, own_rules, train, turned,
};
use home::{
    BaseModel, Conditions, ConsentState, Contribution, Home, HomeError, NightlyWindow, Outcome,
    Pause, TrainingState, Triggers,
};
use learn::consent::{ConsentError, ContributeToFleet, PurposeKind};
use learn::edges::Digest;
use learn::head::Subset;
use learn::update::Update;

const HOUR: u64 = 3_600;

fn finished(outcome: Outcome) -> home::RunReport {
    match outcome {
        Outcome::Finished(report) => report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_better_head_is_adopted_survives_a_restart_and_can_be_undone() {
    let device = Device::new();
    let home = device.start_with(15);
    let (version, base) = (home.head_version(), home.head_values());
    let report = finished(train(&home));
    assert_eq!((report.examples, report.judged, report.epochs), (12, 3, 12));
    assert!(report.loss[1] < report.loss[0], "{report:?}");
    assert!(report.adopted && report.after > report.before, "{report:?}");
    assert!(home.head_version() > version && home.head_values() != base);
    assert_eq!(home.heads().len(), 1);
    assert_eq!(home.training().last, Some(report.clone()));
    assert_eq!(home.training().new_corrections, 0);

    let again = device.start();
    assert_eq!(again.head_values(), home.head_values());
    // The next run goes on from the household's own head.
    add(&again, 20..25);
    let second = finished(train(&again));
    assert!(second.loss[0] < report.loss[0], "{second:?} began where {report:?} did");
    let newest = again.heads().last().unwrap().number;
    assert!(matches!(again.undo_head(newest + 1), Err(HomeError::OtherHead)));
    while let Some(head) = again.heads().last() {
        again.undo_head(head.number).unwrap();
    }
    assert_eq!(again.head_values(), base);
    assert!(matches!(again.undo_head(newest), Err(HomeError::NoHead)));
    assert!(device.vault.files.lock().unwrap().keys().all(|name| !name.starts_with("head-")));
}

#[test]
fn with_another_network_what_the_household_taught_is_learnt_anew() {
    let device = Device::new();
    assert!(finished(train(&device.start_with(15))).adopted);
    let other = next_network();
    let start = || device.try_start_with_base(other.clone()).unwrap();
    let home = start();
    assert!(home.heads().is_empty() && home.head_values().to_vec() == other.parameters);
    assert_eq!(home.training().new_corrections, 15);
    assert!(finished(train(&home)).adopted);
    let again = start();
    assert_eq!((again.heads().len(), again.training().new_corrections), (1, 0));
    assert_eq!(again.head_values(), home.head_values());
    let files = || device.vault.files.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(!files().contains(&"head-0000000000".to_owned()), "{:?}", files());
    assert!(device.start().heads().is_empty());
}

#[test]
fn what_the_household_taught_is_learnt_anew_whatever_cuts_the_first_start_with_another_network_short()
 {
    for left in 0..6 {
        let device = Device::new();
        assert!(finished(train(&device.start_with(15))).adopted);
        device.set_changes(Some(left));
        // A power cut after so many changes of the disk.
        drop(device.try_start_with_base(next_network()));
        device.set_changes(None);
        let home = device.try_start_with_base(next_network()).unwrap();
        assert_eq!(home.training().new_corrections, 15, "after {left} changes");
    }
}

fn next_network() -> BaseModel {
    BaseModel { digest: Digest::of(b"the next firmware's network"), ..base() }
}

#[test]
fn heads_of_the_network_before_are_in_use_again_after_an_update_that_is_taken_back() {
    let mut device = Device::new();
    let home = device.start_with(15);
    train(&home);
    let (heads, own) = (home.heads(), home.head_values());
    assert_eq!(heads.len(), 1);
    // Nothing that is learnt is better.
    device.options.training.learning_rate = 1e-12;
    for new in [15, 0] {
        let home = device.try_start_with_base(next_network()).unwrap();
        assert_eq!(home.training().new_corrections, new);
        assert!(matches!(home.undo_head(0), Err(HomeError::NoHead)), "it is not in use");
        assert!(!finished(train(&home)).adopted);
    }
    let home = device.start();
    assert_eq!((home.heads(), home.head_values()), (heads, own));
    assert_eq!(home.training().new_corrections, 15, "the other network's run taught it nothing");
    // Nor do they stay where everything is deleted.
    let home = device.try_start_with_base(next_network()).unwrap();
    assert!(home.delete_everything().unwrap().is_complete());
    assert!(device.start().heads().is_empty());
}

#[test]
fn a_household_that_turns_its_camera_keeps_its_head_and_its_corrections() {
    let mut device = Device::new();
    let home = device.start_with(15);
    assert!(finished(train(&home)).adopted);
    let trained = home.head_trainable();
    drop(home);

    // Small steps, with which the loss of what was trained before falls whatever order is drawn.
    device.options.training.learning_rate = 1e-3;
    device.options.at_home.learning_rate = 1e-3;
    let home = device.try_start_with_base(turned(base())).unwrap();
    assert_eq!(home.head_trainable(), trained, "the head does not depend on the input's size");
    assert_eq!(home.picture(0).unwrap().height, common::HEIGHT, "shown as it was stored");
    let mut trunk = ColourTrunk { turned: true, ..ColourTrunk::default() };
    let outcome = home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap();
    let report = finished(outcome);
    assert_eq!((report.examples, report.judged), (12, 3));
    assert!(report.loss[1] < report.loss[0], "{report:?}");
    let (pixels, mask) = common::scene(40);
    let consent = home.token().unwrap();
    // Turned, the numbers of values are the same: what belongs to which place is the caller's to say.
    home.add_correction(&consent, &pixels, &mask).unwrap();
    assert_eq!(home.picture(15).unwrap().width, common::HEIGHT);
}

#[test]
fn a_painting_of_which_a_turned_camera_leaves_nothing_stops_no_other() {
    let device = Device::new();
    let home = device.start_with(13);
    let (pixels, _) = common::scene(40);
    // One pixel in a row that is left out at three quarters of the size; by number it is one to train on.
    let mut mask = vec![255; common::HEIGHT * common::WIDTH];
    mask[common::WIDTH + 1] = 3;
    let added = home.add_correction(&home.token().unwrap(), &pixels, &mask).unwrap();
    assert!(!added.held_back);
    drop(home);
    let home = device.try_start_with_base(turned(base())).unwrap();
    let mut trunk = ColourTrunk { turned: true, ..ColourTrunk::default() };
    let mut train = || home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap();
    assert_eq!(train(), Outcome::Abandoned);
    assert_eq!(finished(train()).examples, 11);
    assert!(home.corrections()[13].damaged);
}

#[test]
fn a_run_that_was_interrupted_goes_on_with_a_turned_camera() {
    let device = Device::new();
    let home = device.start_with(15);
    begin_training(&home, 50);
    drop(home);
    let home = device.try_start_with_base(turned(base())).unwrap();
    let mut trunk = ColourTrunk { turned: true, ..ColourTrunk::default() };
    let outcome = home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap();
    let whole = finished(outcome);
    // 12 passes over 12 pictures are 144 and more; a run that began anew would have looked at all of them.
    assert!(trunk.runs < 144, "{} pictures after the 50 before", trunk.runs);
    assert_eq!((whole.examples, whole.judged), (12, 3));
}

#[test]
fn without_judges_or_improvement_the_head_stays() {
    let home = Device::new().start_with(4);
    let report = finished(train(&home));
    assert_eq!((report.judged, report.adopted), (0, false));
    assert!(home.heads().is_empty());

    let mut device = Device::new();
    device.options.training.learning_rate = 1e-12;
    let home = device.start_with(6);
    let report = finished(train(&home));
    assert!(!report.adopted && home.heads().is_empty(), "{report:?}");
}

#[test]
fn nothing_happens_without_consent() {
    let device = Device::new();
    let home = device.start();
    assert_eq!(home.consent(PurposeKind::ImproveMyMirror), ConsentState::Absent);
    assert!(!home.is_due());
    let refused =
        home.train_when(&mut ColourTrunk::default(), &Open, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(refused, HomeError::Consent(ConsentError::Missing(_))));
    agree(&home);
    let token = home.token().unwrap();
    home.withdraw(PurposeKind::ImproveMyMirror).unwrap();
    let (pixels, mask) = common::scene(0);
    assert!(home.add_correction(&token, &pixels, &mask).is_err());
    assert!(device.vault.files.lock().unwrap().keys().all(|name| !name.starts_with("correction")));
}

#[test]
fn a_withdrawal_that_the_disk_refuses_is_told_and_stored_once_it_can_be() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    assert!(home.has_candidate());
    device.set_changes(Some(0));
    let refused = home.withdraw(PurposeKind::ContributeToFleet).unwrap_err();
    assert!(matches!(refused, HomeError::Consent(ConsentError::Unstored(_))), "{refused}");
    assert!(home.token::<ContributeToFleet>().is_err());
    assert_eq!(home.consent(PurposeKind::ContributeToFleet), ConsentState::Unstored);
    assert!(home.tidy().is_err());
    let told = home.all_problems();
    assert!(told[0].contains("“Contribute to the fleet” was switched off"), "{told:?}");
    assert!(told[0].contains("until the mirror's next start only"), "{told:?}");
    assert!(device.start().token::<ContributeToFleet>().is_ok(), "which is why it is told");
    device.set_changes(None);
    home.tidy().unwrap();
    assert!(home.all_problems().is_empty() && !home.has_candidate());
    let home = device.start();
    assert_eq!(home.consent(PurposeKind::ContributeToFleet), ConsentState::Absent);
    assert!(home.token::<learn::consent::ImproveMyMirror>().is_ok(), "only what was withdrawn");
}

#[test]
fn what_a_withdrawal_could_not_destroy_goes_later_though_another_store_took_the_withdrawal() {
    let mut device = Device::new();
    // Sealed files on a disk of their own.
    device.vault = Arc::default();
    let home = device.start_with(6);
    train(&home);
    begin_training(&home, 3);
    assert!(home.has_candidate());
    let consent = |left| *device.consent.changes.lock().unwrap() = left;
    consent(Some(0));
    device.set_changes(Some(0));
    for purpose in PurposeKind::ALL {
        home.withdraw(purpose).unwrap_err();
    }
    consent(None);
    for _ in 0..2 {
        home.tidy().unwrap_err();
        assert_eq!(home.unstored_withdrawal(), None);
        assert!(home.has_candidate());
    }
    device.set_changes(None);
    home.tidy().unwrap();
    assert!(!home.has_candidate());
    assert!(!device.vault.files.lock().unwrap().contains_key("checkpoint"));
}

#[test]
fn a_withdrawal_that_is_not_stored_is_no_trouble_of_training() {
    let mut device = Device::new();
    // What training writes is on another disk.
    device.vault = Arc::default();
    let home = device.start_with(6);
    *device.consent.changes.lock().unwrap() = Some(0);
    home.withdraw(PurposeKind::ContributeToFleet).unwrap_err();
    home.request_training();
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = stop.clone();
    let gate = Closed(AtomicU32::new(0), move |_| stopper.store(true, Ordering::SeqCst));
    home.serve(&mut ColourTrunk::default(), &gate, &stop);
    assert!(home.tidy().is_err());
    assert_eq!(home.training().trouble, None);
}

#[test]
fn deleting_everything_on_a_disk_that_refuses_says_that_consent_would_come_back() {
    let device = Device::new();
    let home = device.start_with(1);
    device.set_changes(Some(0));
    let refused = home.delete_everything().unwrap_err().to_string();
    assert!(refused.contains("until the mirror's next start only"), "{refused}");
    assert!(home.all_problems()[0].contains("Improve my mirror” and “Contribute"));
    device.set_changes(None);
    assert!(home.delete_everything().unwrap().is_complete());
    assert!(home.all_problems().is_empty());
    assert_eq!(device.start().consent(PurposeKind::ImproveMyMirror), ConsentState::Absent);
}

#[test]
fn numbers_of_a_run_are_kept_for_the_fleet_only_where_somebody_agreed_to_that() {
    let device = Device::new();
    let home = device.start();
    home.grant(PurposeKind::ImproveMyMirror, home.explanation().versions[0]).unwrap();
    add(&home, 0..6);
    finished(train(&home));
    assert!(!home.has_candidate());
    agree(&home);
    assert!(!home.has_candidate(), "a yes is for what comes");
    finished(train(&home));
    assert!(home.has_candidate());
}

#[test]
fn more_is_trained_where_nothing_leaves_and_none_of_that_is_ever_kept_for_the_fleet() {
    let mut device = Device::new();
    device.options.training.subset = Subset::Sparse;
    let home = device.start();
    home.grant(PurposeKind::ImproveMyMirror, home.explanation().versions[0]).unwrap();
    add(&home, 0..6);
    let moved = |home: &Home| {
        let (layout, base) = (base().layout, base().parameters);
        let weights = |values: &[f32]| layout.gather(Subset::Full, values);
        let sparse = layout.gather(Subset::Sparse, &base);
        let (now, before) = (weights(&home.head_values()), weights(&base));
        let changed = now.iter().zip(&before).filter(|(now, before)| now != before).count();
        changed > sparse.len()
    };
    finished(train(&home));
    assert!(moved(&home) && !home.has_candidate());
    home.undo_head(0).unwrap();
    // Begun before somebody agreed to contribute, and interrupted: it gives way to one that an update can carry, so that a
    // round which asked for it is answered.
    add(&home, 6..8);
    begin_training(&home, 3);
    agree(&home);
    home.request_training();
    finished(train(&home));
    assert!(!moved(&home) && home.has_candidate());
    let release = home.release(&home.token().unwrap(), &own_rules(&home)).unwrap();
    let update = Update::decode(&home.bytes(release, &home.token().unwrap()).unwrap()).unwrap();
    assert_eq!(update.values().len(), base().layout.subset_len(Subset::Sparse));
}

#[test]
fn a_changed_budget_asks_for_consent_again() {
    let mut device = Device::new();
    agree(&device.start());
    let before = device.start().explanation().versions;
    device.options.budget = learn::privacy::Budget::new(20.0, 1e-5).unwrap();
    let home = device.start();
    assert_ne!(home.explanation().versions[1], before[1]);
    assert!(matches!(home.consent(PurposeKind::ContributeToFleet), ConsentState::Outdated(_)));
    assert!(home.grant(PurposeKind::ContributeToFleet, before[1]).is_err());
    // Told until somebody answers; what has the same words as before goes on.
    assert!(matches!(home.consent(PurposeKind::ImproveMyMirror), ConsentState::Given(_)));
    let told = home.changed_words().unwrap();
    assert!(told.contains("the text of “Contribute to the fleet” has changed"), "{told}");
    assert!(told.contains("it is off until somebody agrees again"), "{told}");
    agree(&home);
    assert_eq!(home.changed_words(), None);
    device.options.limits.age /= 2;
    device.options.budget = learn::privacy::Budget::new(25.0, 1e-5).unwrap();
    let told = device.start().changed_words().unwrap();
    assert!(told.contains("“Improve my mirror” and “Contribute to the fleet”"), "{told}");
    assert!(told.contains("since somebody agreed to them; they are off"), "{told}");
    agree(&device.start());
    device.options.budget = learn::privacy::Budget::new(30.0, 1e-5).unwrap();
    device.options.member = false;
    assert_eq!(device.start().changed_words(), None, "there is no fleet to agree to");
}

#[test]
fn what_was_agreed_to_in_other_words_allows_no_run_and_can_be_taken_back() {
    let mut device = Device::new();
    let home = device.start_with(6);
    train(&home);
    begin_training(&home, 5);
    let has = |name: &str| device.vault.files.lock().unwrap().contains_key(name);
    assert!(has("candidate") && has("checkpoint"));
    device.options.budget = learn::privacy::Budget::new(20.0, 1e-5).unwrap();
    device.options.limits.age /= 2;
    let home = device.start();
    assert!(!has("candidate") && !has("checkpoint"));
    for purpose in [PurposeKind::ImproveMyMirror, PurposeKind::ContributeToFleet] {
        assert!(matches!(home.consent(purpose), ConsentState::Outdated(_)));
        home.withdraw(purpose).unwrap();
        assert_eq!(home.consent(purpose), ConsentState::Absent);
    }
}

#[test]
fn without_a_fleet_more_is_trained_and_nothing_is_kept_for_one() {
    let mut device = Device::new();
    device.options.training.subset = Subset::Sparse;
    device.start_with(6);
    // Agreed to when there was one.
    device.options.member = false;
    let home = device.start();
    assert!(home.token::<ContributeToFleet>().is_ok());
    assert_eq!(home.contribution(), Contribution::NoFleet);
    let refused = home.grant(PurposeKind::ContributeToFleet, home.explanation().versions[1]);
    assert!(matches!(refused, Err(HomeError::NoFleet)));
    begin_training(&home, 5);
    assert!(finished(train(&home)).adopted && !home.has_candidate());
    let (layout, before) = (base().layout, base().parameters);
    let mut own = home.head_values().to_vec();
    layout.scatter(Subset::Sparse, &layout.gather(Subset::Sparse, &before), &mut own);
    assert_ne!(own, before, "more than an update could carry");
    device.options.member = true;
    assert_eq!(device.start().contribution(), Contribution::On);
}

#[test]
fn a_mirror_that_is_on_for_an_hour_a_day_trains_every_night() {
    let mut device = Device::new();
    let window = NightlyWindow { start: 0, length: 1440 };
    device.options.triggers =
        Triggers { corrections: None, nightly: Some(window), inferences: None };
    // The window's last minute, at which its moment has come whatever was drawn.
    let night = |number: u64| {
        device.clocks.wall.store((20_834 + number) * 86_400 + 1_439 * 60, Ordering::SeqCst);
    };
    night(0);
    let home = device.start_with(4);
    assert!(home.is_due());
    train(&home);
    add(&home, 4..6);
    device.clocks.steady.fetch_add(1_000 * HOUR, Ordering::SeqCst);
    assert!(!home.is_due(), "the same night");
    night(1);
    assert!(home.is_due());
    train(&home);
    add(&home, 6..8);
    night(2);
    assert!(!home.is_due(), "a clock that jumps makes no night");
}

#[test]
fn a_mirror_that_is_off_at_night_trains_by_day() {
    let mut device = Device::new();
    device.options.triggers = Triggers {
        corrections: Some(10),
        nightly: Some(NightlyWindow { start: 60, length: 180 }),
        inferences: None,
    };
    let at = |day: u64, hour: u64| {
        device.clocks.wall.store((20_834 + day) * 86_400 + hour * HOUR, Ordering::SeqCst);
    };
    at(0, 20);
    device.start_with(4);
    let is_due = |day: u64| {
        at(day, 7);
        let home = device.start();
        (7..22).any(|hour| {
            at(day, hour);
            home.is_due()
        })
    };
    assert!(!is_due(1), "the next night has not been yet");
    assert!(is_due(2));

    // Where nobody sets the clock.
    device.options.triggers.nightly = Some(NightlyWindow { start: 60, length: 1 });
    device.clocks.wall.store(90, Ordering::SeqCst);
    let device = Device { vault: Arc::default(), ..device };
    let home = device.start_with(4);
    device.clocks.pass(19 * HOUR);
    assert!(!home.is_due());
    device.clocks.pass(HOUR);
    assert!(home.is_due());
}

#[test]
fn a_damaged_consent_file_means_no_consent() {
    let device = Device::new();
    agree(&device.start());
    device.consent.set("consent.json", b"{".to_vec());
    let home = device.start();
    assert_eq!(home.all_problems().len(), 1);
    assert_eq!(home.consent(PurposeKind::ImproveMyMirror), ConsentState::Absent);
}

#[test]
fn a_stopped_run_goes_on_where_it_was_after_a_restart() {
    let device = Device::new();
    let home = device.start_with(10);
    begin_training(&home, 21);
    drop(home);
    let home = device.start();
    assert!(home.is_due(), "an unfinished run asks to be finished");
    let mut trunk = ColourTrunk::default();
    let report = finished(home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap());
    // 8 corrections times 12 passes, less the 21 steps done, and the judged ones.
    assert_eq!(trunk.runs, 8 * 12 - 21 + report.judged as u64);
    assert!(report.loss[0].is_none() && report.loss[1].is_some(), "the first pass was before");
}

#[test]
fn a_killed_run_repeats_at_most_the_steps_since_its_checkpoint() {
    let mut device = Device::new();
    device.options.training.subset = Subset::Sparse;
    let home = device.start_with(10);
    // A panic in the trunk is a death without a goodbye: nothing is saved on the way out.
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut trunk = ColourTrunk::calling(|runs| assert!(runs < 21, "killed"));
        home.train_when(&mut trunk, &Open, &AtomicBool::new(false))
    }));
    assert!(died.is_err());
    let home = device.start();
    let mut trunk = ColourTrunk::default();
    let report = finished(home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap());
    assert_eq!(trunk.runs, 8 * 12 - 16 + report.judged as u64);
}

#[test]
fn a_withdrawal_stops_training_at_once_and_leaves_no_trace_of_the_run() {
    let device = Device::new();
    let home = Arc::new(device.start_with(10));
    let other = home.clone();
    let mut trunk = ColourTrunk::calling(move |runs| {
        if runs == 13 {
            other.withdraw(PurposeKind::ImproveMyMirror).unwrap();
        }
    });
    let outcome = home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap();
    assert_eq!((outcome, trunk.runs), (Outcome::Withdrawn, 14));
    let names = device.vault.files.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(!names.contains(&"checkpoint".to_owned()) && !names.contains(&"candidate".to_owned()));
    assert!(home.heads().is_empty() && !home.is_due());
    assert_eq!(home.corrections().len(), 10, "deleted only when asked");
}

#[test]
fn a_deleted_correction_takes_its_run_along() {
    let home = Arc::new(Device::new().start_with(10));
    let other = home.clone();
    let mut trunk = ColourTrunk::calling(move |runs| {
        if runs == 5 {
            other.remove_correction(0).unwrap();
        }
    });
    let outcome = home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, Outcome::Abandoned);
    assert_eq!(finished(train(&home)).examples, 7);
}

#[test]
fn a_run_does_not_wait_for_a_correction_that_is_gone_or_damaged() {
    const NAME: &str = "correction-0000000000";
    let gone = Device::new();
    begin_training(&gone.start_with(10), 5);
    // As a power cut leaves it: the picture is deleted, and the run not yet forgotten.
    gone.vault.files.lock().unwrap().remove(NAME);
    let home = gone.start();
    assert_eq!(train(&home), Outcome::Abandoned);
    assert_eq!(finished(train(&home)).examples, 7);

    let damaged = Device::new();
    let home = damaged.start_with(10);
    begin_training(&home, 5);
    damaged.vault.damage(NAME);
    assert_eq!(train(&home), Outcome::Abandoned);
    assert_eq!(finished(train(&home)).examples, 7, "no run is planned with it any more");
    assert!(home.corrections()[0].damaged);

    let unreadable = Device::new();
    let home = unreadable.start_with(15);
    let judge = home.corrections().into_iter().find(|entry| entry.held_back).unwrap();
    begin_training(&home, 5);
    unreadable.vault.make_unreadable(NAME);
    unreadable.vault.make_unreadable(&format!("correction-{:010}", judge.number));
    home.request_training();
    assert_eq!(train(&home), Outcome::Abandoned);
    assert!(home.is_due(), "whoever asked for a run still waits");
    let report = finished(train(&home));
    assert_eq!((report.examples, report.judged), (11, 2));
}

#[test]
fn a_correction_is_deleted_on_a_full_disk_and_its_run_is_given_up() {
    let device = Device::new();
    let home = device.start_with(10);
    begin_training(&home, 5);
    device.vault.set_room(Some(0));
    assert!(home.remove_correction(0).is_err(), "that its run is over cannot be stored");
    assert_eq!(home.corrections().len(), 9);
    assert!(!device.vault.files.lock().unwrap().contains_key("correction-0000000000"));
    device.vault.set_room(None);
    assert_eq!(finished(train(&home)).examples, 7);
}

#[test]
fn a_damaged_correction_does_not_judge() {
    let device = Device::new();
    let home = device.start_with(15);
    begin_training(&home, 5);
    let judge = home.corrections().into_iter().find(|entry| entry.held_back).unwrap();
    device.vault.damage(&format!("correction-{:010}", judge.number));
    assert_eq!(finished(train(&home)).judged, 2);
}

#[test]
fn a_panic_while_training_is_not_the_end_of_training() {
    let home = Device::new().start_with(6);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut trunk = ColourTrunk::calling(|runs| assert!(runs < 3, "killed"));
        home.train_when(&mut trunk, &Open, &AtomicBool::new(false))
    }));
    assert!(died.is_err());
    finished(train(&home));
}

#[test]
fn training_waits_for_whoever_is_in_front_of_the_mirror() {
    let home = Arc::new(Device::new().start_with(6));
    let watcher = home.clone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let states = seen.clone();
    struct Watched<F: Fn() + Send + Sync>(Script, F);
    impl<F: Fn() + Send + Sync> home::Gate for Watched<F> {
        fn conditions(&self) -> Conditions {
            self.1();
            self.0.conditions()
        }
    }
    let idle = Conditions::IDLE;
    let script = vec![
        Conditions { person_present: true, ..idle },
        Conditions { celsius: Some(99.0), ..idle },
        Conditions { on_power: false, ..idle },
        Conditions { busy: 1.0, ..idle },
        idle,
        idle,
    ];
    let gate = Watched(Script(Mutex::new(script)), move || {
        states.lock().unwrap().push(watcher.training().state);
    });
    home.train_when(&mut ColourTrunk::default(), &gate, &AtomicBool::new(false)).unwrap();
    let seen = seen.lock().unwrap();
    for pause in [Pause::PersonPresent, Pause::Hot, Pause::OnBattery, Pause::Busy] {
        assert!(seen.contains(&TrainingState::Waiting(pause)), "{pause:?}");
    }
}

/// Somebody is there at the looks that it names; counts how often the run was put on the disk.
struct Counting<F: Fn(u32) -> bool + Send + Sync> {
    vault: Arc<common::MemoryStore>,
    is_closed: F,
    looks: AtomicU32,
    stored: Mutex<Vec<Vec<u8>>>,
}

impl<F: Fn(u32) -> bool + Send + Sync> home::Gate for Counting<F> {
    fn conditions(&self) -> Conditions {
        let (checkpoint, mut stored) = (self.vault.get("checkpoint"), self.stored.lock().unwrap());
        if !checkpoint.is_empty() && stored.last() != Some(&checkpoint) {
            stored.push(checkpoint);
        }
        let person_present = (self.is_closed)(self.looks.fetch_add(1, Ordering::SeqCst));
        Conditions { person_present, ..Conditions::IDLE }
    }
}

#[test]
fn a_gate_that_flutters_wears_no_disk_out_and_a_long_pause_finds_the_run_on_it() {
    let stored = |is_closed: fn(u32) -> bool| {
        let device = Device::new();
        let home = device.start_with(10);
        let (looks, stored) = (AtomicU32::new(0), Mutex::default());
        let gate = Counting { vault: device.vault.clone(), is_closed, looks, stored };
        let stop = AtomicBool::new(false);
        finished(home.train_when(&mut ColourTrunk::default(), &gate, &stop).unwrap());
        gate.stored.into_inner().unwrap().len()
    };
    // Twice a second, before each of 96 steps; the run is stored when it begins.
    assert_eq!(stored(|look| look % 2 == 1), 1);
    assert_eq!(stored(|look| (20..70).contains(&look)), 1, "25 seconds");
    assert_eq!(stored(|look| (20..100).contains(&look)), 2, "40 seconds");
}

/// Does something before each answer, and never lets anybody train.
struct Closed<F: Fn(u32) + Send + Sync>(AtomicU32, F);

impl<F: Fn(u32) + Send + Sync> home::Gate for Closed<F> {
    fn conditions(&self) -> Conditions {
        (self.1)(self.0.fetch_add(1, Ordering::SeqCst));
        Conditions { person_present: true, ..Conditions::IDLE }
    }
}

#[test]
fn corrections_grow_too_old_while_training_waits() {
    let device = Device::new();
    let home = Arc::new(device.start_with(6));
    let stop = Arc::new(AtomicBool::new(false));
    let (clocks, watched, stopper) = (device.clocks.clone(), home.clone(), stop.clone());
    let gate = Closed(AtomicU32::new(0), move |day| {
        clocks.pass(86_400);
        if day < 179 {
            assert_eq!(watched.corrections().len(), 6, "day {day}");
        }
        stopper.fetch_or(day == 185, Ordering::SeqCst);
    });
    let outcome = home.train_when(&mut ColourTrunk::default(), &gate, &stop).unwrap();
    assert_eq!((outcome, home.corrections().len()), (Outcome::Stopped, 0));
}

#[test]
fn the_trainers_thread_deletes_what_is_too_old() {
    let device = Device::new();
    let home = device.start_with(2);
    device.clocks.pass(181 * 86_400);
    home.request_training();
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = stop.clone();
    let gate = Closed(AtomicU32::new(0), move |_| stopper.store(true, Ordering::SeqCst));
    home.serve(&mut ColourTrunk::default(), &gate, &stop);
    assert!(home.corrections().is_empty());
}

#[test]
fn short_times_on_add_up_to_the_age_where_no_clock_is_set() {
    let mut device = Device::new();
    device.options.limits.age = std::time::Duration::from_secs(7 * 86_400);
    device.clocks.wall.store(90, Ordering::SeqCst);
    device.start_with(2);
    for _ in 0..8 {
        let home = device.start();
        device.clocks.pass(86_400);
        home.serve(&mut ColourTrunk::default(), &Open, &AtomicBool::new(true));
    }
    let home = device.start();
    assert_eq!(home.corrections().len(), 2, "nobody looked");
    assert_eq!(home.tidy().unwrap(), 2);
}

#[test]
fn a_run_is_judged_by_fifty_corrections_at_most_from_the_oldest_to_the_newest() {
    let mut device = Device::new();
    device.options.limits.corrections = 300;
    (device.options.training.epochs, device.options.training.learning_rate) = (1, 1e-3);
    let home = device.start_with(270);
    let judges: Vec<_> = home.corrections().into_iter().filter(|entry| entry.held_back).collect();
    assert!(judges.len() > 50, "{}", judges.len());
    let judged = Arc::new(Mutex::new(Vec::new()));
    let pictures = judged.clone();
    let mut trunk = Watched(ColourTrunk::default(), move |pixels| {
        pictures.lock().unwrap().push(Digest::of(pixels));
    });
    let report = finished(home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap());
    assert_eq!((report.examples, report.judged), (270 - judges.len(), 50));
    let judged = judged.lock().unwrap().split_off(report.examples);
    let picture = |number: u64| Digest::of(&home.picture(number).unwrap().planes);
    assert_eq!(judged.len(), 50);
    assert_eq!(judged[0], picture(judges[0].number));
    assert_eq!(judged[49], picture(judges[judges.len() - 1].number));
    assert!((1..50).all(|at| !judged[..at].contains(&judged[at])), "each once");
}

/// Tells of each picture before the network sees it.
struct Watched<F: FnMut(&[u8])>(ColourTrunk, F);

impl<F: FnMut(&[u8])> home::Trunk for Watched<F> {
    fn run(&mut self, pixels: &[u8]) -> Result<[Vec<f32>; 4], vision::VisionError> {
        (self.1)(pixels);
        self.0.run(pixels)
    }
}

#[test]
fn no_key_is_made_for_a_run_that_everything_was_deleted_under() {
    /// Everything is deleted while the gate is looked at; then somebody stands there, or nobody.
    struct Deleting {
        home: Arc<home::Home>,
        looks: AtomicU32,
        at: u32,
        closes: bool,
    }
    impl home::Gate for Deleting {
        fn conditions(&self) -> Conditions {
            let deletes = self.looks.fetch_add(1, Ordering::SeqCst) == self.at;
            if deletes {
                assert!(self.home.delete_everything().unwrap().is_complete());
            }
            Conditions { person_present: deletes && self.closes, ..Conditions::IDLE }
        }
    }
    for (at, closes) in [(5, true), (0, false)] {
        let device = Device::new();
        let home = Arc::new(device.start_with(6));
        let gate = Deleting { home: home.clone(), looks: AtomicU32::new(0), at, closes };
        let stop = AtomicBool::new(false);
        let outcome = home.train_when(&mut ColourTrunk::default(), &gate, &stop).unwrap();
        assert_eq!(outcome, Outcome::Withdrawn);
        assert!(device.keys.files.lock().unwrap().is_empty(), "a key was made after the erasure");
        assert!(device.vault.files.lock().unwrap().is_empty());
    }
}

/// Keeps what is logged on this thread, and stops whoever logs that a training ended or failed.
struct Journal(Arc<Mutex<Vec<String>>>, Arc<AtomicBool>);

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

impl tracing::Subscriber for Journal {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let ends = ["training:", "training diverged", "learning at home"];
        self.1.fetch_or(ends.iter().any(|end| line.0.contains(end)), Ordering::SeqCst);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// What the journal tells of a training that is asked for.
fn journal_of_a_run(home: &home::Home) -> Vec<String> {
    home.request_training();
    let (lines, stop) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)));
    let journal = Journal(lines.clone(), stop.clone());
    tracing::subscriber::with_default(journal, || {
        home.serve(&mut ColourTrunk::default(), &Open, &stop);
    });
    let lines = lines.lock().unwrap();
    lines.clone()
}

#[test]
fn the_journal_says_that_a_run_ended_and_no_number_of_it() {
    let device = Device::new();
    let home = device.start_with(15);
    let lines = journal_of_a_run(&home);
    assert!(home.training().last.is_some(), "it trained");
    let told: Vec<&String> = lines.iter().filter(|line| line.contains("training:")).collect();
    assert_eq!(told, ["message=training: finished "]);
    assert!(lines.iter().all(|line| !line.contains(|c: char| c.is_ascii_digit())), "{lines:?}");
}

#[test]
fn the_journal_says_what_failed_and_not_of_which_correction_or_head() {
    let device = Device::new();
    let home = device.start_with(15);
    assert!(finished(train(&home)).adopted);
    device.clocks.pass(181 * 86_400);
    device.vault.stuck.lock().unwrap().insert("correction-0000000014".to_owned());
    let lines = journal_of_a_run(&home);
    let trouble = home.training().trouble.unwrap();
    assert!(trouble.contains("cannot remove correction-0000000014"), "{trouble}");
    assert!(lines.iter().any(|line| line.contains("cannot remove correction-…: ")), "{lines:?}");
    drop(home);

    device.vault.make_unreadable("head-0000000000");
    let (unread, kept) = (Arc::<Mutex<Vec<String>>>::default(), lines);
    let journal = Journal(unread.clone(), Arc::default());
    let home = tracing::subscriber::with_default(journal, || device.start());
    let told = home.all_problems().concat();
    assert!(told.contains("cannot read head-0000000000"), "{told}");
    assert!(!home::for_journal(&told).contains("000000"), "{told}");
    let unread = unread.lock().unwrap();
    assert!(unread.iter().any(|line| line.contains("cannot read head-…: ")), "{unread:?}");
    assert!(unread.iter().chain(&kept).all(|line| !line.contains("000000")), "{unread:?} {kept:?}");
}

#[test]
fn what_the_page_says_of_a_correction_is_for_the_journal_of_none() {
    let said = home::for_journal(HomeError::Damaged(41));
    assert_eq!(said, "correction … is damaged, cannot be read, or is of another device; delete it");
    assert_eq!(home::for_journal("correction-lists of 3"), "correction-lists of 3");
}

#[test]
fn the_journal_says_once_that_corrections_are_damaged_and_not_which_or_how_many() {
    let device = Device::new();
    device.start_with(6);
    for number in [1, 3, 4] {
        device.vault.damage(&format!("correction-{number:010}"));
    }
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let journal = Journal(lines.clone(), Arc::default());
    tracing::subscriber::with_default(journal, || {
        let home = device.start();
        assert!(home.picture(3).is_err());
    });
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("cannot be read"), "{lines:?}");
    assert!(!lines[0].contains(|c: char| c.is_ascii_digit()), "{lines:?}");
}

#[test]
fn what_cannot_be_trained_on_is_not_looked_at_again_and_again() {
    let mut device = Device::new();
    device.options.triggers = Triggers { corrections: Some(1), nightly: None, inferences: None };
    let home = device.start_with(5);
    let trained = home.corrections().into_iter().filter(|entry| !entry.held_back);
    trained.for_each(|entry| home.remove_correction(entry.number).unwrap());
    assert!(home.is_due(), "a correction is new, and it only judges");
    assert_eq!(train(&home), Outcome::Nothing);
    assert!(!home.is_due());
    add(&home, 5..6);
    assert!(home.is_due());
    finished(train(&home));

    add(&home, 6..7);
    device.vault.damage("correction-0000000006");
    let home = device.start();
    assert!(!home.is_due() && home.training().new_corrections == 0, "it is damaged");
}

#[test]
fn only_one_thread_trains() {
    let home = Arc::new(Device::new().start_with(4));
    let other = home.clone();
    let refused = Arc::new(AtomicBool::new(false));
    let noted = refused.clone();
    let mut trunk = ColourTrunk::calling(move |runs| {
        if runs == 0 {
            let stop = AtomicBool::new(false);
            let second = other.train_when(&mut ColourTrunk::default(), &Open, &stop);
            noted.store(matches!(second, Err(HomeError::Training)), Ordering::SeqCst);
        }
    });
    home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap();
    assert!(refused.load(Ordering::SeqCst));
}

#[test]
fn whether_an_update_leaves_depends_on_no_picture() {
    // Numbers that are thrown far away, and pictures of which the network says nothing that is a number.
    for (rate, is_blind) in [(1e30, false), (1e-2, true)] {
        let mut device = Device::new();
        device.options.training.learning_rate = rate;
        let home = device.start_with(6);
        let before = home.head_values();
        let mut trunk = ColourTrunk { is_blind, ..ColourTrunk::default() };
        let stop = AtomicBool::new(false);
        let report = finished(home.train_when(&mut trunk, &Open, &stop).unwrap());
        assert!(!report.adopted && report.loss[1].is_none(), "{report:?}");
        assert_eq!(home.head_values(), before);
        assert!(home.has_candidate() && !home.is_due());
        assert_eq!(home.training().new_corrections, 0);
        let release = home.release(&home.token().unwrap(), &own_rules(&home)).unwrap();
        assert_eq!(home.waiting().unwrap(), [release]);
    }
}

#[test]
fn triggers_ask_by_number_by_use_and_by_night_and_only_for_something_new() {
    let mut device = Device::new();
    let never = Triggers { corrections: None, nightly: None, inferences: None };
    device.options.triggers = Triggers { corrections: Some(3), ..never };
    let home = device.start_with(2);
    assert!(!home.is_due());
    add(&home, 2..3);
    assert!(home.is_due());
    train(&home);
    assert!(!home.is_due());
    home.request_training();
    assert!(home.is_due());
    train(&home);

    device.options.triggers = Triggers { inferences: Some(10), ..never };
    let home = device.start();
    (0..10).for_each(|_| home.count_inference());
    assert!(!home.is_due(), "nothing is new");
    add(&home, 3..4);
    assert!(home.is_due());
    train(&home);
    add(&home, 4..5);
    assert!(!home.is_due(), "the count starts over");

    // The whole day is the window, so the moment drawn is the only question.
    device.options.triggers =
        Triggers { nightly: Some(NightlyWindow { start: 0, length: 1440 }), ..never };
    device.clocks.wall.store(86_400 * 20_000 + 86_399, Ordering::SeqCst);
    let home = device.start();
    device.clocks.pass(21 * HOUR);
    device.clocks.wall.store(86_400 * 20_001 + 86_399, Ordering::SeqCst);
    assert!(home.is_due());
    train(&home);
    add(&home, 5..6);
    assert!(!home.is_due());
    // A clock that jumps from night to night makes no second night.
    for night in 0..400 {
        device.clocks.wall.store(86_400 * (20_002 + night) + 86_399, Ordering::SeqCst);
        assert!(!home.is_due());
    }
    device.clocks.pass(21 * HOUR);
    device.clocks.wall.store(86_400 * 20_900 + 86_399, Ordering::SeqCst);
    assert!(home.is_due());
}

#[test]
fn a_run_that_was_asked_for_is_not_forgotten_by_a_restart_nor_done_twice() {
    let mut device = Device::new();
    device.options.triggers = Triggers { corrections: None, nightly: None, inferences: None };
    let home = device.start_with(6);
    assert!(!home.is_due());
    home.request_training();
    let home = device.start();
    assert!(home.is_due());
    // Begun, and cut short: it goes on, and is over then.
    begin_training(&home, 5);
    assert!(device.start().is_due());
    train(&home);
    assert!(!device.start().is_due());
    // Whoever takes consent back does not want it any more, also after a start.
    home.request_training();
    home.withdraw(PurposeKind::ImproveMyMirror).unwrap();
    for home in [home, device.start()] {
        agree(&home);
        assert!(!home.is_due());
    }
    let home = device.start();
    // Nor does asking make a key where everything was deleted.
    home.delete_everything().unwrap();
    home.request_training();
    assert!(device.keys.files.lock().unwrap().is_empty());
}

#[test]
fn a_stop_is_heard_soon_whatever_the_trainer_waits_for() {
    let device = Device::new();
    let home = device.start_with(6);
    home.request_training();
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = stop.clone();
    let gate = Closed(AtomicU32::new(0), move |look| {
        stopper.fetch_or(look == 3, Ordering::SeqCst);
    });
    home.serve(&mut ColourTrunk::default(), &gate, &stop);
    let longest = device.clocks.longest.load(Ordering::SeqCst);
    assert!((1..=100).contains(&longest), "{longest} ms");
}

#[test]
fn a_run_that_was_asked_for_in_the_evening_takes_no_nights_place() {
    let mut device = Device::new();
    device.options.triggers = Triggers {
        corrections: None,
        nightly: Some(NightlyWindow { start: 60, length: 1 }),
        inferences: None,
    };
    device.clocks.wall.store(86_400 * 20_000 + 18 * HOUR, Ordering::SeqCst);
    let home = device.start_with(6);
    home.request_training();
    finished(train(&home));
    add(&home, 6..9);
    assert!(!home.is_due());
    device.clocks.pass(7 * HOUR + 59);
    assert!(home.is_due());
}

#[test]
fn a_slow_device_takes_the_newest_corrections_and_fewer_passes() {
    let device = Device::new();
    let home = device.start_with(12);
    let clocks = device.clocks.clone();
    // Every picture takes a minute here; 15 minutes are allowed.
    let slow = move |_| {
        clocks.steady.fetch_add(60_000, Ordering::SeqCst);
    };
    let stop = AtomicBool::new(false);
    let first = finished(home.train_when(&mut ColourTrunk::calling(slow), &Open, &stop).unwrap());
    assert_eq!((first.examples, first.epochs), (10, 12), "nothing was measured yet");
    assert!(home.training().example_milliseconds.unwrap() >= 60_000.0);
    add(&home, 30..40);
    let second = finished(train(&home));
    assert_eq!((second.examples, second.epochs), (15, 1));
}
