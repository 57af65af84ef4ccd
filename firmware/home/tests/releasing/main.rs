//! Releases: what becomes an update, what it costs of the budget, and what the ledger does when it is damaged.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "../common/mod.rs"]
mod common;
mod deleting;
mod on_disk;

use std::path::Path;
use std::sync::atomic::Ordering;

use common::{Device, add, agree, base, own_rules, train};
use home::explanation::Explanation;
use home::{Home, HomeError, HomeOptions, NoisePlan, ReleaseRules};
use learn::consent::{ContributeToFleet, PurposeKind};
use learn::edges::{Digest, LayoutId};
use learn::head::Subset;
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
        let withdrawal = home.withdraw(PurposeKind::ContributeToFleet).unwrap();
        assert_eq!((withdrawal.discarded, withdrawal.already_sent), (1, Some(0)), "{told}");
        home.remove_correction(0).unwrap();
        agree(&home);
        assert!(home.bytes(waiting, &home.token().unwrap()).is_err(), "{told}");
        device.clocks.pass(181 * 86_400);
        home.tidy().unwrap();
        assert_eq!(home.usage().corrections, 0, "{told}");
        assert!(home.delete_everything().unwrap().is_complete(), "{told}");
    }
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
        assert!(words.contains("1 and epsilon") && words.contains("no more updates"), "{words}");
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
    // The consent's record, the finished run, and the first of two updates with the ledger's word of it.
    device.set_changes(Some(4));
    assert!(home.withdraw(PurposeKind::ContributeToFleet).is_err());
    device.set_changes(None);
    assert_eq!(home.waiting().unwrap().len(), 1);
    assert!(home.releases_version() > version, "an update is given up");
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
