//! Releases, the ledger's damage, what lies on the disk, and "delete everything".

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    ColourTrunk, Device, MemoryStore, Open, QUICK, add, agree, base, begin_training, contains,
    own_rules, scene, train,
};
use home::explanation::Explanation;
use home::{Beside, Home, HomeError, HomeOptions, NoisePlan, ReleaseRules, vault};
use learn::consent::{CONSENT_NAME, ContributeToFleet, ImproveMyMirror, PurposeKind};
use learn::edges::{Digest, Entropy, LayoutId, SystemEntropy};
use learn::head::{CHECKPOINT_MAGIC, Subset};
use learn::ledger::{LEDGER_NAME, LedgerError};
use learn::privacy::{Budget, Composition};
use learn::release::ReleaseError;
use learn::update::Update;

fn release(home: &Home) -> Result<learn::edges::ReleaseId, HomeError> {
    home.release(&home.token::<ContributeToFleet>().unwrap(), &own_rules(home))
}

#[test]
fn a_finished_run_becomes_one_update_and_the_budget_shows_it() {
    let home = Device::new().start_with(6);
    assert!(matches!(release(&home), Err(HomeError::NothingToRelease)));
    train(&home);
    assert!(home.has_candidate());
    let version = home.releases_version();
    let id = release(&home).unwrap();
    assert!(home.releases_version() > version && !home.has_candidate());
    assert!(matches!(release(&home), Err(HomeError::NothingToRelease)), "once per run");

    assert_eq!(home.waiting().unwrap(), [id]);
    let token = home.token().unwrap();
    let bytes = home.bytes(id, &token).unwrap();
    let update = Update::decode(&bytes).unwrap();
    assert_eq!(update.header().layout, home.layout_id());
    assert_eq!(update.values().len(), base().layout.subset_len(Subset::Full));
    let privacy = home.privacy().unwrap();
    assert_eq!((privacy.ledger.spent.releases(), privacy.ledger.releases_left), (1, 2));
    home.published(id).unwrap();
    home.published(id).unwrap();
    assert!(home.waiting().unwrap().is_empty());
    assert_eq!(home.privacy().unwrap().ledger.published, 1);
}

#[test]
fn when_the_budget_is_spent_no_result_is_kept_for_the_fleet_and_more_is_trained() {
    let mut device = Device::new();
    device.options.training.subset = Subset::Sparse;
    let home = device.start_with(15);
    for _ in 0..3 {
        train(&home);
        release(&home).unwrap();
    }
    while let Some(head) = home.heads().last() {
        home.undo_head(head.number).unwrap();
    }
    train(&home);
    assert!(!home.has_candidate());
    assert!(matches!(release(&home), Err(HomeError::NothingToRelease)));
    assert_eq!(home.waiting().unwrap().len(), 3);
    let (values, before) = (home.head_values(), base().parameters);
    let moved = values.iter().zip(&before).filter(|(now, then)| now != then).count();
    let carried = base().layout.subset_len(Subset::Sparse);
    assert!(moved > carried, "{moved} numbers moved; an update carries {carried}");
}

#[test]
fn settings_that_allow_no_release_stop_releases_by_name_and_nothing_else() {
    let budget = |epsilon| Budget::new(epsilon, 1e-5).unwrap();
    let noise = |text: &str| NoisePlan::Multiplier(text.parse().unwrap());
    for (budget, noise, told) in [
        (
            budget(3.0),
            noise("1.2"),
            "learning.noise_multiplier: noise of 1.2 spends more than epsilon 3",
        ),
        (budget(8.0), noise("0.5"), "set learning.noise_multiplier to at least 0.6"),
        (budget(8.0), noise("40.000001"), "learning.noise_multiplier: a standard deviation"),
        (budget(8.0), NoisePlan::Unknown, "learning.noise_multiplier: it must be"),
        (budget(8.0), NoisePlan::Lifetime(1001), "learning.lifetime_releases: at most 1000"),
        (
            budget(1e-9),
            NoisePlan::Lifetime(1000),
            "learning.lifetime_releases: no noise multiplier",
        ),
    ] {
        let mut device = Device::new();
        let home = device.start_with(6);
        train(&home);
        let waiting = release(&home).unwrap();
        train(&home);
        drop(home);
        (device.options.budget, device.options.noise) = (budget, noise);
        let home = device.start();
        let problems = home.all_problems();
        assert!(problems.len() == 1 && problems[0].contains(told), "{problems:?}");
        agree(&home);
        let error = release(&home).unwrap_err();
        assert!(
            matches!(error, HomeError::NoReleases(_)) && error.to_string().contains(told),
            "{error}"
        );
        train(&home);
        assert!(!home.has_candidate(), "{told}");
        home.remove_correction(0).unwrap();
        let withdrawal = home.withdraw(PurposeKind::ContributeToFleet).unwrap();
        assert_eq!((withdrawal.discarded, withdrawal.already_sent), (1, Some(0)), "{told}");
        agree(&home);
        assert!(home.bytes(waiting, &home.token().unwrap()).is_err(), "{told}");
        device.clocks.pass(181 * 86_400);
        home.tidy().unwrap();
        assert_eq!(home.usage().corrections, 0, "{told}");
        assert!(home.delete_everything().unwrap().is_complete(), "{told}");
    }
}

#[test]
fn without_a_network_corrections_grow_old_and_can_be_withdrawn_and_deleted() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    drop(home);
    let household = device.household();
    assert!(household.has_candidate() && household.usage().corrections == 6);
    household.remove_correction(5).unwrap();
    household.withdraw(PurposeKind::ImproveMyMirror).unwrap();
    assert!(!household.has_candidate());
    device.clocks.pass(181 * 86_400);
    assert_eq!(household.tidy().unwrap(), 5);
    let proof = household.delete_everything().unwrap();
    assert!(proof.is_complete() && household.heads().is_empty(), "{proof:?}");
}

#[test]
fn a_network_that_comes_later_finds_what_is_left() {
    let device = Device::new();
    let home = device.start_with(15);
    train(&home);
    assert_eq!(home.heads().len(), 1);
    drop(home);
    let household = Arc::new(device.household());
    let home = Home::new(household.clone(), base()).unwrap();
    assert_ne!(home.head_values().to_vec(), base().parameters);
    // By whoever has only this of it.
    let version = home.head_version();
    household.delete_everything().unwrap();
    assert!(home.head_version() > version);
    assert_eq!(home.head_values().to_vec(), base().parameters);
}

#[test]
fn a_withdrawal_that_a_power_cut_came_into_is_finished_at_the_next_start() {
    // What the withdrawal writes first, and nothing after it.
    let withdrawn = |purpose| {
        let device = Device::new();
        let home = device.start_with(0);
        home.withdraw(purpose).unwrap();
        device.consent.get(CONSENT_NAME)
    };
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    let sent_later = release(&home).unwrap();
    train(&home);
    drop(home);
    device.consent.set(CONSENT_NAME, withdrawn(PurposeKind::ContributeToFleet));
    let home = device.start();
    assert!(home.all_problems().is_empty(), "{:?}", home.all_problems());
    assert!(!home.has_candidate() && device.outbox.files.lock().unwrap().is_empty());
    agree(&home);
    assert!(home.bytes(sent_later, &home.token().unwrap()).is_err());
    assert!(matches!(release(&home), Err(HomeError::NothingToRelease)));

    begin_training(&home, 5);
    drop(home);
    assert!(device.vault.files.lock().unwrap().contains_key("checkpoint"));
    device.consent.set(CONSENT_NAME, withdrawn(PurposeKind::ImproveMyMirror));
    device.start();
    assert!(!device.vault.files.lock().unwrap().contains_key("checkpoint"));
}

#[test]
fn more_noise_does_not_buy_more_releases_than_people_were_told_of() {
    let device = Device::new();
    let home = device.start_with(6);
    let told = &home.explanation().purpose(PurposeKind::ContributeToFleet).budget;
    assert!(told.contains("at most 3 updates leave"), "{told}");
    let quiet = ReleaseRules {
        layout: home.layout_id(),
        noise_multiplier: "4".parse().unwrap(),
        clip: 1.0,
        max_update_bytes: 1 << 20,
    };
    let release = |home: &Home| {
        train(home);
        home.release(&home.token().unwrap(), &quiet)
    };
    train(&home);
    let older = device.vault.get("candidate");
    for left in [2, 1, 0] {
        release(&home).unwrap();
        assert_eq!(home.privacy().unwrap().ledger.releases_left, left);
    }
    // Also after a restart, and for a run of before: the ledger holds to it, not the process.
    drop(home);
    let home = device.start();
    assert!(matches!(release(&home), Err(HomeError::NothingToRelease)));
    device.vault.set("candidate", older);
    let error = home.release(&home.token().unwrap(), &quiet).unwrap_err();
    let HomeError::Release(ReleaseError::Ledger(LedgerError::TooMany { reserved: 3, most: 3 })) =
        error
    else {
        panic!("{error}");
    };
    assert!(!home.has_candidate(), "it can never be released");
    let ledger = home.privacy().unwrap().ledger;
    assert_eq!((ledger.spent.releases(), ledger.releases_left), (3, 0));
    assert!(ledger.spent.epsilon() < 3.0, "epsilon alone would allow more");
}

#[test]
fn the_bound_between_two_households_counts_what_was_sent_with_other_noise() {
    let mut device = Device::new();
    let home = device.start_with(6);
    for _ in 0..2 {
        train(&home);
        release(&home).unwrap();
    }
    let told =
        |home: &Home| home.explanation().purpose(PurposeKind::ContributeToFleet).budget.clone();
    let planned = |options: &HomeOptions| {
        let explanation = Explanation::new(options).unwrap();
        explanation.purpose(PurposeKind::ContributeToFleet).budget.clone()
    };
    assert_eq!(
        told(&device.start()),
        planned(&device.options),
        "the same words after each release"
    );
    device.options.noise = NoisePlan::Multiplier("1.5".parse().unwrap());
    // Two with noise of 1.2 and the three that still fit, at half the noise.
    let mut whole = Composition::new();
    whole.add("0.6".parse().unwrap(), 2);
    whole.add("0.75".parse().unwrap(), 3);
    let bound = (10.0 * whole.statement(1e-5).unwrap().epsilon()).ceil() / 10.0;
    let words = told(&device.start());
    assert!(words.contains(&format!("the bound is {bound}")), "{bound}: {words}");
    assert_ne!(words, planned(&device.options));
}

#[test]
fn the_words_count_what_was_made_under_other_settings() {
    let told =
        |home: &Home| home.explanation().purpose(PurposeKind::ContributeToFleet).budget.clone();
    let mut device = Device::new();
    let home = device.start_with(6);
    for _ in 0..3 {
        train(&home);
        release(&home).unwrap();
    }
    let spent = home.privacy().unwrap().ledger.spent.shown_epsilon();
    for (noise, budget) in [(NoisePlan::Lifetime(1), 8.0), (device.options.noise, 4.0)] {
        (device.options.noise, device.options.budget) = (noise, Budget::new(budget, 1e-5).unwrap());
        let home = device.start();
        let words = told(&home);
        let made = format!("Budget for 3 updates was spent under other settings: epsilon {spent}");
        assert!(words.contains(&made), "{words}");
        assert!(words.contains("1 and epsilon") && words.contains("no more are made"), "{words}");
        assert_eq!(home.privacy().unwrap().ledger.releases_left, 0);
    }
    // Where some still fit, the plan's number stays the most, though one that cost more leaves room for fewer.
    let mut device = Device::new();
    device.options.noise = NoisePlan::Multiplier("0.8".parse().unwrap());
    let home = device.start_with(6);
    train(&home);
    release(&home).unwrap();
    device.options.noise = NoisePlan::Multiplier("1.2".parse().unwrap());
    let home = device.start();
    assert!(home.privacy().unwrap().ledger.releases_left < 2);
    assert!(told(&home).contains("at most 3 updates leave"), "{}", told(&home));
}

#[test]
fn a_lifetime_plan_sets_the_noise() {
    let mut device = Device::new();
    device.options.noise = NoisePlan::Lifetime(12);
    let home = device.start_with(6);
    assert!((home.privacy().unwrap().next_noise_multiplier - 2.0793).abs() < 4e-4);
    assert_eq!(home.privacy().unwrap().ledger.releases_left, 12);
    assert!(
        home.explanation()
            .purpose(PurposeKind::ContributeToFleet)
            .budget
            .contains("at most 12 updates")
    );
}

#[test]
fn a_lifetime_plan_is_the_most_also_where_the_budget_lets_more_fit() {
    let mut device = Device::new();
    (device.options.noise, device.options.budget) =
        (NoisePlan::Lifetime(1), Budget::new(50.0, 1e-5).unwrap());
    let home = device.start_with(6);
    let told = &home.explanation().purpose(PurposeKind::ContributeToFleet).budget;
    assert!(told.contains("at most 1 update leaves"), "{told}");
    assert_eq!(home.privacy().unwrap().ledger.releases_left, 1);
    train(&home);
    release(&home).unwrap();
    assert_eq!(home.privacy().unwrap().ledger.releases_left, 0);
    train(&home);
    assert!(!home.has_candidate());
}

#[test]
fn a_fleets_rules_are_followed_where_they_are_not_weaker_than_the_devices_own() {
    let home = Device::new().start_with(6);
    train(&home);
    let token = home.token().unwrap();
    let rules = |z: &str, clip, layout| ReleaseRules {
        layout,
        noise_multiplier: z.parse().unwrap(),
        clip,
        max_update_bytes: 1 << 20,
    };
    let own = home.layout_id();
    for bad in [rules("0.8", 1.0, own), rules("1.2", 2.0, own)] {
        assert!(matches!(home.release(&token, &bad), Err(HomeError::Rules { .. })));
    }
    let foreign = rules("1.2", 1.0, LayoutId([1; 32]));
    assert!(matches!(home.release(&token, &foreign), Err(HomeError::OtherLayout(_))));
    let id = home.release(&token, &rules("2", 1.0, own)).unwrap();
    let update = Update::decode(&home.bytes(id, &token).unwrap()).unwrap();
    assert_eq!(update.header().noise_multiplier, "2".parse().unwrap());
}

#[test]
fn a_withdrawal_destroys_what_waits_and_counts_what_was_sent() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    home.published(release(&home).unwrap()).unwrap();
    train(&home);
    let id = release(&home).unwrap();
    train(&home);
    let token = home.token().unwrap();
    let withdrawal = home.withdraw(PurposeKind::ContributeToFleet).unwrap();
    assert_eq!((withdrawal.discarded, withdrawal.already_sent), (1, Some(1)));
    let one_may_be_underway =
        "1 noised updates that waited are destroyed here; one that was on its way";
    assert!(withdrawal.message.contains(one_may_be_underway), "{}", withdrawal.message);
    assert!(
        withdrawal.message.contains("1 noised updates had been sent and cannot be called back")
    );
    assert!(home.bytes(id, &token).is_err() && home.release(&token, &own_rules(&home)).is_err());
    assert!(device.outbox.files.lock().unwrap().is_empty() && !home.has_candidate());
    assert_eq!(home.privacy().unwrap().ledger.spent.releases(), 2, "spent stays spent");
}

#[test]
fn whoever_polls_hears_of_what_changed_before_the_disk_refused() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    let version = home.releases_version();
    // Reserved, sampled, put, persisted: there the disk takes no more, and the finished run stays.
    device.set_changes(Some(4));
    assert!(release(&home).is_err() && home.has_candidate());
    device.set_changes(None);
    assert_eq!(home.waiting().unwrap().len(), 1);
    assert!(home.releases_version() > version, "an update waits");
    train(&home);
    release(&home).unwrap();
    let version = home.releases_version();
    // The consent's record, and the first of two updates with the ledger's word of it.
    device.set_changes(Some(3));
    assert!(home.withdraw(PurposeKind::ContributeToFleet).is_err());
    device.set_changes(None);
    assert_eq!(home.waiting().unwrap().len(), 1);
    assert!(home.releases_version() > version, "an update is given up");
}

#[test]
fn stopping_says_that_nothing_was_sent_only_where_nothing_can_have_been() {
    let home = Device::new().start_with(6);
    let stop = |home: &Home| home.withdraw(PurposeKind::ContributeToFleet).unwrap().message;
    assert!(stop(&home).contains("Nothing had been sent"));
    agree(&home);
    train(&home);
    release(&home).unwrap();
    assert!(!stop(&home).contains("Nothing had been sent"), "it may have been offered already");
    // Offered, given up for another model, then withdrawn: nobody here knows.
    agree(&home);
    let told = stop(&home);
    assert!(told.contains("1 noised updates were given up earlier"), "{told}");
    let proof = home.delete_everything().unwrap();
    assert_eq!((proof.already_sent, proof.given_up), (Some(0), Some(1)));
}

#[test]
fn what_the_round_or_the_disk_would_not_take_costs_no_budget() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    let token = home.token().unwrap();
    let rules = |max_update_bytes, z: &str| ReleaseRules {
        layout: home.layout_id(),
        noise_multiplier: z.parse().unwrap(),
        clip: 1.0,
        max_update_bytes,
    };
    let error = home.release(&token, &rules(1_000, "1.2")).unwrap_err();
    assert!(matches!(error, HomeError::UpdateTooLarge { limit: 1_000, .. }), "{error}");
    // More decimals than the sampler's integers hold.
    let error = home.release(&token, &rules(1 << 20, "35.123457")).unwrap_err();
    assert!(matches!(error, HomeError::Release(ReleaseError::Mechanism(_))), "{error}");
    device.space.0.store(1 << 20, Ordering::SeqCst);
    let error = home.release(&token, &own_rules(&home)).unwrap_err();
    assert!(matches!(error, HomeError::DiskFull { .. }), "{error}");
    let privacy = home.privacy().unwrap().ledger;
    assert_eq!((privacy.spent.releases(), privacy.burnt), (0, 0));
    device.space.0.store(1 << 40, Ordering::SeqCst);
    home.release(&token, &own_rules(&home)).unwrap();
}

#[test]
fn a_finished_run_does_not_outlive_what_it_came_from() {
    let device = Device::new();
    let home = device.start_with(15);
    train(&home);
    assert!(home.has_candidate());
    home.remove_correction(0).unwrap();
    assert!(!home.has_candidate(), "a correction was deleted");
    train(&home);
    home.undo_head(home.heads().last().unwrap().number).unwrap();
    assert!(!home.has_candidate(), "the head was undone");
    train(&home);
    device.clocks.pass(179 * 86_400);
    home.tidy().unwrap();
    assert!(home.has_candidate());
    device.clocks.pass(2 * 86_400);
    assert_eq!(home.tidy().unwrap(), 14);
    assert!(!home.has_candidate(), "the corrections were too old");
}

#[test]
fn a_finished_run_that_can_never_be_released_makes_room_for_another() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    device.vault.damage("candidate");
    assert!(release(&home).is_err() && !home.has_candidate());
    train(&home);
    release(&home).unwrap();
}

#[test]
fn a_damaged_ledger_stops_releases_and_nothing_else() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    release(&home).unwrap();
    let good = device.ledger.get(LEDGER_NAME);
    train(&home);
    let mut bad = good.clone();
    bad[300] ^= 1;
    device.ledger.set(LEDGER_NAME, bad);
    let home = device.start();
    assert_eq!(home.all_problems().len(), 1);
    assert!(matches!(home.privacy(), Err(HomeError::NoReleases(_))));
    assert!(matches!(home.waiting(), Err(HomeError::NoReleases(_))));
    assert!(matches!(release(&home), Err(HomeError::NoReleases(_))));
    add(&home, 6..8);
    train(&home);
    assert!(!home.has_candidate(), "nothing is kept that cannot leave");
    // Consent can still be taken back, and then nothing is left that could be sent.
    let withdrawal = home.withdraw(PurposeKind::ContributeToFleet).unwrap();
    assert!(device.outbox.files.lock().unwrap().is_empty());
    // What was sent is not known, and nobody is told that it was nothing.
    assert_eq!((withdrawal.discarded, withdrawal.already_sent), (1, None));
    let told = &withdrawal.message;
    assert!(told.contains("cannot be told: the ledger is damaged"), "{told}");
    assert!(told.contains("stays spent") && !told.contains("Nothing had been sent"), "{told}");
    assert_eq!(home.delete_everything().unwrap().already_sent, None);
}

#[test]
fn an_older_copy_of_the_ledger_is_noticed() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    release(&home).unwrap();
    let older = device.ledger.get(LEDGER_NAME);
    train(&home);
    release(&home).unwrap();
    device.ledger.set(LEDGER_NAME, older);
    let home = device.start();
    let reason = home.privacy().unwrap_err().to_string();
    assert!(reason.contains("an older copy was put back"), "{reason}");
    let withdrawal = home.withdraw(PurposeKind::ContributeToFleet).unwrap();
    assert_eq!((withdrawal.discarded, withdrawal.already_sent), (2, None));
}

#[test]
fn a_full_disk_during_a_release_overspends_nothing() {
    for room in [0, 100, 300, 600, 5_000] {
        let device = Device::new();
        let home = device.start_with(6);
        train(&home);
        device.ledger.set_room(Some(room));
        device.outbox.set_room(Some(room));
        let released = release(&home);
        device.ledger.set_room(None);
        device.outbox.set_room(None);
        let home = device.start();
        let summary = home.privacy().unwrap().ledger;
        assert_eq!(summary.waiting == 1, released.is_ok(), "{room}");
        // Whatever the full disk cut short has its share of the budget, and the next release has another.
        let spent = summary.spent.releases();
        train(&home);
        release(&home).unwrap();
        let summary = home.privacy().unwrap().ledger;
        assert_eq!(
            (summary.spent.releases(), summary.releases_left),
            (spent + 1, 2 - spent),
            "{room}"
        );
    }
}

#[test]
fn a_full_disk_keeps_nothing_from_being_deleted() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    release(&home).unwrap();
    train(&home);
    begin_training(&home, 3);
    device.stores().iter().for_each(|store| store.set_room(Some(0)));
    // The ledger cannot note that the update which waited is given up.
    assert!(home.delete_everything().is_err());
    for store in [&device.vault, &device.keys, &device.outbox] {
        assert!(store.files.lock().unwrap().is_empty());
    }
    assert!(home.corrections().is_empty() && home.head_values().to_vec() == base().parameters);
    let again = device.start();
    assert!(again.token::<ImproveMyMirror>().is_err());
    assert!(again.token::<ContributeToFleet>().is_err());
    drop(again);
    device.stores().iter().for_each(|store| store.set_room(None));
    let proof = home.delete_everything().unwrap();
    assert!(proof.is_complete(), "{proof:?}");
    assert_eq!(home.privacy().unwrap().ledger.burnt, 1);
}

#[test]
fn a_deletion_that_a_power_cut_came_into_is_finished_at_the_next_start_once_the_key_is_gone() {
    // Numbers drawn once, so that every cut comes into the same deletion.
    let prepared = || {
        let device = Device::new();
        let home = device.start_with(3);
        train(&home);
        release(&home).unwrap();
        train(&home);
        (device, home)
    };
    let mut kinds = [0; 3];
    for left in 0.. {
        let (device, home) = prepared();
        device.set_changes(Some(left));
        let deleted = home.delete_everything().is_ok();
        let key_is_gone = device.keys.files.lock().unwrap().is_empty();
        drop(home);
        device.set_changes(None);
        let home = device.start();
        assert_eq!(home.all_problems(), [""; 0], "after {left} changes");
        if key_is_gone {
            for store in [&device.vault, &device.keys, &device.outbox] {
                assert!(store.files.lock().unwrap().is_empty(), "after {left} changes");
            }
            assert!(home.corrections().is_empty() && !home.has_candidate());
        } else {
            assert_eq!(home.corrections().len(), 3, "it had not begun");
        }
        assert!(home.delete_everything().unwrap().is_complete(), "after {left} changes");
        agree(&home);
        add(&home, 0..1);
        kinds[usize::from(key_is_gone) + usize::from(deleted)] += 1;
        if deleted {
            break;
        }
    }
    assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
}

#[test]
fn what_a_cut_deletion_left_and_the_disk_does_not_give_up_is_told_until_it_is_gone() {
    let device = Device::new();
    let home = device.start_with(2);
    // The consents, the note of it, the key: there the power goes.
    device.set_changes(Some(3));
    assert!(home.delete_everything().is_err());
    drop(home);
    device.set_changes(Some(0));
    let home = device.start();
    let told = home.all_problems();
    assert!(told[0].contains("a deletion that was cut short"), "{told:?}");
    device.set_changes(None);
    assert!(home.corrections().is_empty());
    for _ in 0..2 {
        device.clocks.pass(3_600);
        home.tidy().unwrap();
        home.request_training();
        home.remember_lived().unwrap();
    }
    assert!(device.keys.files.lock().unwrap().is_empty(), "no key is made for what is to go");
    let vault = || device.vault.files.lock().unwrap().len();
    assert!(vault() > 0);
    assert_eq!((device.start().all_problems(), vault()), (vec![], 0), "the next start goes on");
    assert!(home.delete_everything().unwrap().is_complete());
    assert_eq!(home.all_problems(), [""; 0]);
}

#[test]
fn a_key_that_is_lost_is_no_deletion_where_nothing_is_agreed_to_either() {
    let device = Device::new();
    let home = device.start_with(2);
    home.withdraw(PurposeKind::ImproveMyMirror).unwrap();
    home.withdraw(PurposeKind::ContributeToFleet).unwrap();
    drop(home);
    let key = device.keys.get("vault-key");
    device.keys.files.lock().unwrap().clear();
    let shown = device.start().corrections();
    assert_eq!(shown.iter().filter(|correction| correction.damaged).count(), 2);
    device.keys.set("vault-key", key);
    assert_eq!(device.start().corrections().iter().filter(|entry| !entry.damaged).count(), 2);
}

#[test]
fn without_a_key_what_somebody_agreed_to_is_kept() {
    let device = Device::new();
    device.start_with(2);
    let key = device.keys.get("vault-key");
    device.keys.files.lock().unwrap().clear();
    let home = device.start();
    assert!(home.corrections().iter().all(|correction| correction.damaged));
    drop(home);
    device.keys.set("vault-key", key);
    assert_eq!(device.start().corrections().iter().filter(|entry| !entry.damaged).count(), 2);
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Windows of numbers in every width and form that they could be written in: as they are, and clipped to norm 1 in steps of 1/2048 as an
/// update has them.
fn forms(values: &[f32]) -> Vec<Vec<u8>> {
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let scale = 2048.0 / norm.max(1.0);
    let steps: Vec<i64> = values.iter().map(|value| (value * scale).round() as i64).collect();
    let window = |at: usize| {
        let (raw, steps) = (&values[at..at + 4], &steps[at..at + 8]);
        let is_telling = steps.iter().any(|&step| step != steps[0]);
        let mut forms: Vec<Vec<u8>> = Vec::new();
        // Parameters that did not move are zeros, which every file has.
        if raw.iter().any(|value| *value != raw[0]) {
            forms.push(raw.iter().flat_map(|v| v.to_le_bytes()).collect());
        }
        if is_telling {
            forms.push(steps.iter().flat_map(|v| (*v as i16).to_le_bytes()).collect());
            forms.push(steps.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect());
            forms.push(steps.iter().flat_map(|v| v.to_le_bytes()).collect());
        }
        forms
    };
    (0..values.len() - 8).step_by(97).flat_map(window).collect()
}

/// What a mirror's own key finds under a seal in its folder, whoever has the folder open.
fn opened(folder: &Path, name: &str) -> Vec<u8> {
    let copy = |store: &str, name: &str| {
        let files = MemoryStore::default();
        files.set(name, fs::read(folder.join(store).join(name)).unwrap());
        Arc::new(files)
    };
    let entropy = Arc::new(|| Box::new(SystemEntropy) as Box<dyn Entropy>);
    let vault = vault::Vault::new(copy("vault", name), copy("keys", "vault-key"), entropy, None);
    vault.get(name).unwrap().unwrap().to_vec()
}

fn on_disk_options() -> HomeOptions {
    HomeOptions { training: QUICK, ..HomeOptions::default() }
}

/// A home in a folder of its own, with both consents and ten corrections.
fn on_disk(name: &str) -> (PathBuf, Home) {
    let name = format!("{name}-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let home = Home::open(&folder, base(), on_disk_options()).unwrap();
    agree(&home);
    add(&home, 0..10);
    (folder, home)
}

/// Such a home whose first update the fleet has.
fn sent(name: &str) -> (PathBuf, Home) {
    let (folder, home) = on_disk(name);
    train(&home);
    home.published(release(&home).unwrap()).unwrap();
    (folder, home)
}

/// How a checkpoint of such a home begins, under its seal.
fn checkpoint_begins() -> Vec<u8> {
    [CHECKPOINT_MAGIC.as_slice(), &[1], &QUICK.epochs.to_le_bytes()].concat()
}

/// Looks for these numbers, for a picture and for what is not sealed, in every file below a folder.
fn assert_nothing_lies_open(folder: &Path, values: &[f32]) {
    let (needles, pixels) = (forms(values), scene(0).0);
    for path in files(folder) {
        let (bytes, name) = (fs::read(&path).unwrap(), path.display());
        assert!(!contains(&bytes, &pixels[..64]), "{name}");
        // A checkpoint holds the numbers of its own step, which nobody here knows; how it begins is known.
        assert!(!contains(&bytes, &checkpoint_begins()), "{name} is not sealed");
        let is_ours = path.starts_with(folder.join("vault")) && !path.ends_with("lock");
        assert!(!is_ours || bytes.starts_with(vault::MAGIC), "{name} is not sealed");
        let leaks = needles.iter().any(|needle| contains(&bytes, needle));
        assert!(!leaks, "{name} holds unnoised numbers");
    }
}

#[test]
fn no_unnoised_number_and_no_picture_lies_in_the_clear() {
    let (folder, home) = on_disk("clear");
    // Scanned in the middle of training too, when a checkpoint is on the disk.
    let stores = folder.clone();
    let mut trunk = ColourTrunk::calling(move |runs| {
        if runs == 30 {
            // What is looked for would be found: it is there, under the seal.
            let plain = opened(&stores, "checkpoint");
            assert!(plain.starts_with(&checkpoint_begins()), "not how a checkpoint begins");
            let initial = base();
            let values = initial.layout.gather(Subset::Full, &initial.parameters);
            assert_nothing_lies_open(&stores, &values);
        }
    });
    home.train_when(&mut trunk, &Open, &AtomicBool::new(false)).unwrap();
    let (trained, before) = (home.head_values(), base().parameters);
    let delta: Vec<f32> = trained.iter().zip(&before).map(|(now, then)| now - then).collect();
    assert!(delta.iter().any(|&value| value != 0.0), "a head was adopted");
    let moved = base().layout.gather(Subset::Full, &delta);
    assert_nothing_lies_open(&folder, &moved);
    release(&home).unwrap();
    assert_nothing_lies_open(&folder, &moved);
    assert_nothing_lies_open(&folder, &base().layout.gather(Subset::Full, &trained));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_lies_on_the_disk_is_for_the_mirrors_user_alone() {
    use std::os::unix::fs::PermissionsExt;

    let (folder, home) = sent("modes");
    begin_training(&home, 3);
    for path in files(&folder) {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_second_process_is_kept_out_for_as_long_as_the_first_has_the_stores() {
    let (folder, home) = on_disk("second");
    assert!(Home::open(&folder, base(), on_disk_options()).is_err());
    drop(home);
    Home::open(&folder, base(), on_disk_options()).unwrap();
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_proof_of_a_deletion_is_what_the_disk_says() {
    let (folder, home) = sent("proof");
    let key = fs::read(folder.join("keys/vault-key")).unwrap();
    let proof = home.delete_everything().unwrap();
    assert!(proof.is_complete(), "{proof:?}");
    assert_eq!(proof.already_sent, Some(1));
    assert!(proof.removed.len() >= 12, "{proof:?}");
    let left: Vec<&str> = proof.left.iter().map(|file| file.name.as_str()).collect();
    let ledger = format!("privacy/{LEDGER_NAME}");
    assert_eq!(left, [ledger.as_str(), "consent/consent.json", "counter/ledger-counter"]);
    assert!(proof.left.iter().all(|file| file.bytes > 0 && !file.why.is_empty()));
    let on_disk = files(&folder);
    let named = on_disk.iter().filter(|path| !path.ends_with("lock"));
    let named = named.map(|path| path.strip_prefix(&folder).unwrap().display().to_string());
    let (mut names, mut left): (Vec<String>, Vec<&str>) = (named.collect(), left);
    names.sort();
    left.sort();
    assert_eq!(names, left);
    assert!(on_disk.iter().all(|path| !contains(&fs::read(path).unwrap(), &key)));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn after_a_deletion_the_mirror_goes_on_with_its_budget_still_spent() {
    let (folder, home) = sent("anew");
    home.delete_everything().unwrap();
    assert_eq!(home.head_values().to_vec(), base().parameters);
    assert!(home.corrections().is_empty() && !home.is_due());
    agree(&home);
    add(&home, 0..1);
    assert_eq!(home.corrections()[0].number, 10, "numbers go on");
    assert_eq!(home.privacy().unwrap().ledger.spent.releases(), 1);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_that_is_none_of_the_mirrors_is_named_as_remaining() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("strange-{}", std::process::id()));
    let home = Home::open(&folder, base(), HomeOptions::default()).unwrap();
    agree(&home);
    add(&home, 0..1);
    fs::copy(folder.join("keys/vault-key"), folder.join("keys/vault-key~")).unwrap();
    fs::write(folder.join("vault/A copy"), b"of a picture").unwrap();
    fs::create_dir(folder.join("outbox/Old")).unwrap();
    let proof = home.delete_everything().unwrap();
    assert_eq!(proof.remaining, ["vault/A copy", "keys/vault-key~", "outbox/Old"]);
    assert!(!proof.key_erased && !proof.is_complete());
    fs::remove_file(folder.join("keys/vault-key~")).unwrap();
    fs::remove_file(folder.join("vault/A copy")).unwrap();
    fs::remove_dir(folder.join("outbox/Old")).unwrap();
    assert!(home.delete_everything().unwrap().is_complete());
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_lies_beside_the_stores_is_listed_with_its_reason() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("beside-{}", std::process::id()));
    let fleet = folder.join("fleet");
    fs::create_dir_all(&fleet).unwrap();
    fs::write(fleet.join("memory"), b"{}").unwrap();
    fs::write(fleet.join("lock"), b"").unwrap();
    let stores = folder.join("learning");
    let beside = [("fleet", fleet), ("gone", folder.join("gone"))].map(|(name, folder)| Beside {
        name,
        folder,
        why: "a test",
    });
    let stores =
        home::Stores { beside: beside.into(), ..home::Stores::in_folder(&stores).unwrap() };
    let edges = home::edges::Edges::system(&folder);
    let home = Home::over_stores(stores, base(), HomeOptions::default(), edges).unwrap();
    let proof = home.delete_everything().unwrap();
    assert!(proof.is_complete(), "{proof:?}");
    let listed: Vec<_> = proof.left.iter().filter(|file| file.why == "a test").collect();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].bytes), ("fleet/memory", 2));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_update_for_another_base_model_is_not_released() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    let mut other = base();
    other.digest = Digest::of(b"the fleet's next head");
    let stores = home::Stores {
        vault: device.vault.clone(),
        keys: device.keys.clone(),
        ledger: device.ledger.clone(),
        outbox: device.outbox.clone(),
        consent: device.consent.clone(),
        models: device.models.clone(),
        counter: device.counter.clone(),
        credential: None,
        beside: vec![],
    };
    let edges = home::edges::Edges {
        clock: device.clocks.clone(),
        steady: device.clocks.clone(),
        ..home::edges::Edges::system(Path::new("."))
    };
    let home = Home::over_stores(stores, other.clone(), device.options, edges).unwrap();
    assert!(matches!(release(&home), Err(HomeError::OtherLayout(_))));
    assert!(!home.has_candidate(), "it will never fit");
    assert_eq!(home.head_values().to_vec(), other.parameters, "a head of another base is not used");
}
