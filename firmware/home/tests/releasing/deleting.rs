//! Withdrawals and "delete everything", whatever comes between.

use std::sync::Arc;

use home::{Home, HomeError};
use learn::consent::{CONSENT_NAME, ContributeToFleet, ImproveMyMirror, PurposeKind};

use crate::common::{Device, add, agree, base, begin_training, own_rules, train};
use crate::release;

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
    for told in [
        "1 noised update that waited is destroyed here; what was on its way to the fleet already",
        "1 noised update had been sent and cannot be called back",
    ] {
        assert!(withdrawal.message.contains(told), "{}", withdrawal.message);
    }
    assert!(home.bytes(id, &token).is_err() && home.release(&token, &own_rules(&home)).is_err());
    assert!(device.outbox.files.lock().unwrap().is_empty() && !home.has_candidate());
    assert_eq!(home.privacy().unwrap().ledger.spent.releases(), 2, "spent stays spent");
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
    assert!(told.contains("1 noised update was given up earlier"), "{told}");
    let proof = home.delete_everything().unwrap();
    assert_eq!((proof.already_sent, proof.given_up), (Some(0), Some(1)));
}

#[test]
fn a_waiting_update_does_not_outlive_what_a_person_takes_back() {
    let acts: [(&str, fn(&Home)); 3] = [
        ("a correction was deleted", |home| home.remove_correction(0).unwrap()),
        ("a head was undone", |home| {
            home.undo_head(home.heads().last().unwrap().number).unwrap();
        }),
        ("training was withdrawn", |home| {
            let withdrawal = home.withdraw(PurposeKind::ImproveMyMirror).unwrap();
            assert_eq!(withdrawal.discarded, 2);
            let told = withdrawal.message;
            assert!(told.contains("2 noised updates that waited are destroyed here"), "{told}");
            assert!(told.starts_with("Training has stopped.") && told.contains("stays spent"));
        }),
    ];
    for (what, act) in acts {
        let device = Device::new();
        let home = device.start_with(15);
        for _ in 0..2 {
            train(&home);
            release(&home).unwrap();
        }
        let version = home.releases_version();
        act(&home);
        assert!(home.waiting().unwrap().is_empty(), "{what}");
        assert!(device.outbox.files.lock().unwrap().is_empty(), "{what}");
        assert!(home.releases_version() > version, "{what}: whoever sends hears of it");
        let ledger = home.privacy().unwrap().ledger;
        assert_eq!((ledger.spent.releases(), ledger.burnt), (2, 2), "{what}");
    }
}

#[test]
fn a_waiting_update_outlives_corrections_that_are_merely_old() {
    let device = Device::new();
    let home = device.start_with(6);
    train(&home);
    let id = release(&home).unwrap();
    device.clocks.pass(181 * 86_400);
    assert_eq!(home.tidy().unwrap(), 6);
    assert_eq!(home.waiting().unwrap(), [id]);
}

#[test]
fn a_ledger_that_notes_nothing_keeps_no_correction_and_no_head() {
    let device = Device::new();
    let home = device.start_with(15);
    train(&home);
    release(&home).unwrap();
    device.ledger.set_room(Some(0));
    let told = home.remove_correction(0).unwrap_err().to_string();
    assert!(told.starts_with("it is done") && told.contains("ledger"), "{told}");
    assert_eq!(home.corrections().len(), 14);
    assert!(device.outbox.files.lock().unwrap().is_empty());
    assert!(matches!(home.undo_head(0), Err(HomeError::Unnoted(_))));
    assert!(home.heads().is_empty());
}

#[test]
fn stopping_to_train_where_nothing_waits_says_nothing_of_updates() {
    let home = Device::new().start_with(1);
    let told = home.withdraw(PurposeKind::ImproveMyMirror).unwrap().message;
    assert!(told.starts_with("Training has stopped.") && !told.contains("update"), "{told}");
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
fn two_deletions_at_once_both_prove_that_nothing_is_left() {
    for _ in 0..300 {
        let home = Device::new().start_with(1);
        let delete = || assert!(home.delete_everything().unwrap().is_complete());
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(delete))));
    }
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
