//! Consent: off by default, per purpose, bound to the text, revoked at once.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{MemoryStore, TEXT_VERSION, TestClock};
use learn::consent::{
    CONSENT_NAME, ConsentError, ConsentToken, Consents, ContributeToFleet, ImproveMyMirror,
    PurposeKind,
};
use learn::edges::Timestamp;

fn open(store: &Arc<MemoryStore>, version: u32) -> Consents {
    let clock = Arc::new(TestClock::default());
    clock.0.store(1_800_000_000, Ordering::SeqCst);
    Consents::open(store.clone(), clock, [version; 2]).unwrap()
}

#[test]
fn off_by_default_and_separate_by_purpose() {
    let consents = open(&MemoryStore::new(), TEXT_VERSION);
    assert!(matches!(consents.token::<ImproveMyMirror>(), Err(ConsentError::Missing(_))));
    consents.grant(PurposeKind::ImproveMyMirror, TEXT_VERSION).unwrap();
    assert!(consents.token::<ImproveMyMirror>().is_ok());
    assert!(matches!(consents.token::<ContributeToFleet>(), Err(ConsentError::Missing(_))));
}

#[test]
fn a_record_has_its_text_and_time_and_survives_a_restart() {
    let store = MemoryStore::new();
    let record =
        open(&store, TEXT_VERSION).grant(PurposeKind::ContributeToFleet, TEXT_VERSION).unwrap();
    assert_eq!((record.text_version, record.granted_at), (TEXT_VERSION, Timestamp(1_800_000_000)));
    let consents = open(&store, TEXT_VERSION);
    assert_eq!(consents.record(PurposeKind::ContributeToFleet), Some(record));
    assert!(consents.token::<ContributeToFleet>().is_ok());
}

#[test]
fn a_new_text_needs_a_new_consent() {
    let store = MemoryStore::new();
    open(&store, 3).grant(PurposeKind::ContributeToFleet, 3).unwrap();
    let consents = open(&store, 4);
    let error = consents.token::<ContributeToFleet>().unwrap_err();
    assert!(matches!(error, ConsentError::Outdated { given: 3, current: 4, .. }), "{error}");
    // Agreeing to a text that is not the one in force counts for nothing.
    assert!(consents.grant(PurposeKind::ContributeToFleet, 3).is_err());
}

#[test]
fn a_new_text_of_one_purpose_leaves_the_other_as_it_is() {
    let store = MemoryStore::new();
    let open = |versions| Consents::open(store.clone(), Arc::new(TestClock::default()), versions);
    let consents = open([3, 5]).unwrap();
    assert!(consents.grant(PurposeKind::ContributeToFleet, 3).is_err(), "the other's");
    consents.grant(PurposeKind::ImproveMyMirror, 3).unwrap();
    consents.grant(PurposeKind::ContributeToFleet, 5).unwrap();
    let consents = open([3, 6]).unwrap();
    assert!(consents.token::<ImproveMyMirror>().is_ok());
    assert!(consents.token::<ContributeToFleet>().is_err());
}

#[test]
fn a_withdrawn_token_is_dead_at_once_and_for_good() {
    let consents = open(&MemoryStore::new(), TEXT_VERSION);
    consents.grant(PurposeKind::ContributeToFleet, TEXT_VERSION).unwrap();
    let token: ConsentToken<ContributeToFleet> = consents.token().unwrap();
    assert!(token.check().is_ok());
    consents.withdraw(PurposeKind::ContributeToFleet).unwrap();
    assert!(token.check().is_err() && token.clone().check().is_err());
    consents.grant(PurposeKind::ContributeToFleet, TEXT_VERSION).unwrap();
    assert!(token.check().is_err(), "a new consent does not revive an old token");
    assert!(consents.token::<ContributeToFleet>().unwrap().check().is_ok());
}

#[test]
fn a_withdrawal_on_a_full_disk_holds_after_a_restart() {
    let store = MemoryStore::new();
    let consents = open(&store, TEXT_VERSION);
    consents.grant(PurposeKind::ContributeToFleet, TEXT_VERSION).unwrap();
    let token: ConsentToken<ContributeToFleet> = consents.token().unwrap();
    store.set_room(Some(0));
    consents.withdraw(PurposeKind::ContributeToFleet).unwrap();
    assert!(token.check().is_err());
    assert!(consents.token::<ContributeToFleet>().is_err());
    assert!(open(&store, TEXT_VERSION).token::<ContributeToFleet>().is_err());
}

#[test]
fn a_withdrawal_that_the_disk_refuses_holds_and_is_known_until_it_is_stored() {
    const FLEET: PurposeKind = PurposeKind::ContributeToFleet;
    let store = MemoryStore::new();
    let consents = open(&store, TEXT_VERSION);
    consents.grant(PurposeKind::ImproveMyMirror, TEXT_VERSION).unwrap();
    consents.grant(FLEET, TEXT_VERSION).unwrap();
    let token: ConsentToken<ContributeToFleet> = consents.token().unwrap();
    store.set_room(Some(0));
    *store.stuck.lock().unwrap() = true;
    for _ in 0..2 {
        let error = consents.withdraw(FLEET).unwrap_err();
        assert!(matches!(error, ConsentError::Unstored(_)), "{error}");
        assert!(token.check().is_err() && consents.token::<ContributeToFleet>().is_err());
        assert!(consents.is_unstored(FLEET), "a second time does not hide it");
        assert!(consents.store_withdrawals().is_err());
    }
    assert!(!consents.is_unstored(PurposeKind::ImproveMyMirror));
    assert!(open(&store, TEXT_VERSION).record(FLEET).is_some(), "which is why it has to be told");
    store.set_room(None);
    assert_eq!(consents.store_withdrawals().unwrap(), [FLEET]);
    assert!(!consents.is_unstored(FLEET));
    let again = open(&store, TEXT_VERSION);
    assert!(again.record(FLEET).is_none());
    assert!(again.record(PurposeKind::ImproveMyMirror).is_some());
}

#[test]
fn what_is_off_on_the_disk_is_switched_off_without_a_write() {
    let store = MemoryStore::new();
    let consents = open(&store, TEXT_VERSION);
    consents.grant(PurposeKind::ContributeToFleet, TEXT_VERSION).unwrap();
    consents.withdraw_all().unwrap();
    let written = store.get(CONSENT_NAME);
    store.set_room(Some(0));
    *store.stuck.lock().unwrap() = true;
    consents.withdraw_all().unwrap();
    consents.withdraw(PurposeKind::ContributeToFleet).unwrap();
    assert_eq!(store.get(CONSENT_NAME), written);
}

#[test]
fn a_token_dies_on_other_threads_too() {
    let consents = open(&MemoryStore::new(), TEXT_VERSION);
    consents.grant(PurposeKind::ImproveMyMirror, TEXT_VERSION).unwrap();
    let token: ConsentToken<ImproveMyMirror> = consents.token().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while token.check().is_ok() {
                assert!(Instant::now() < deadline, "the token outlives the withdrawal");
                std::thread::yield_now();
            }
        });
        consents.withdraw(PurposeKind::ImproveMyMirror).unwrap();
    });
}

#[test]
fn a_damaged_file_is_no_consent() {
    for text in
        ["", "{", "{\"format\":2,\"records\":[]}", "{\"format\":1,\"records\":[],\"all\":true}"]
    {
        let store = MemoryStore::new();
        store.set(CONSENT_NAME, text.as_bytes().to_vec());
        let clock = Arc::new(TestClock::default());
        let error = Consents::open(store.clone(), clock.clone(), [TEXT_VERSION; 2]).err().unwrap();
        assert!(matches!(error, ConsentError::Damaged(_)), "{error}");
        let consents = Consents::reset(store, clock, [TEXT_VERSION; 2]).unwrap();
        assert!(consents.token::<ContributeToFleet>().is_err());
    }
}
