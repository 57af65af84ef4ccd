//! The ledger and the release path under bad input and failing edges.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{Device, DryingEntropy, FixedEntropy, clipped};
use learn::consent::PurposeKind;
use learn::edges::{NoCounter, Storage, SystemEntropy};
use learn::ledger::{LEDGER_NAME, Ledger, LedgerError, RECORD_BYTES, RecordKind, verify};
use learn::outbox::{Outbox, OutboxError, OutboxLimits};
use learn::privacy::{Budget, MechanismError, NoiseMultiplier};
use learn::release::{ReleaseError, ReleasePath};
use learn::update::Update;

const Z: NoiseMultiplier = NoiseMultiplier::DEFAULT;

/// A device that has published two releases.
fn used_device() -> Device {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    for run in 1..=2 {
        let release = path.release(clipped(run), Z, &consent).unwrap();
        path.published(release).unwrap();
    }
    device
}

#[test]
fn the_default_budget_allows_exactly_three_releases() {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    for run in 1..=3_u8 {
        assert_eq!(path.summary(Z).unwrap().releases_left, u64::from(4 - run));
        path.release(clipped(run), Z, &consent).unwrap();
    }
    let error = path.release(clipped(4), Z, &consent).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ReleaseError::Ledger(LedgerError::OverBudget { .. })), "{text}");
    assert!(text.contains("8.00") && text.contains("one household's device"), "{text}");
    // More noise still fits where the default does not.
    let quieter = "4.0".parse().unwrap();
    assert!(path.summary(quieter).unwrap().releases_left >= 1);
    path.release(clipped(5), quieter, &consent).unwrap();
    assert_eq!(path.waiting().len(), 4);
}

#[test]
fn the_noise_is_drawn_after_the_record_from_a_key_of_which_every_byte_counts() {
    let update = |key: [u8; 32]| {
        let device = Device::new();
        let entropy = FixedEntropy { key, store: Some(device.store.clone()), ..Default::default() };
        let consent = device.consent();
        let mut path = device.path_with(Box::new(entropy.clone()));
        let release = path.release(clipped(1), Z, &consent).unwrap();
        let fills = entropy.fills.lock().unwrap().clone();
        assert_eq!(fills, [(16, 0), (32, RECORD_BYTES)], "the release's name, then its key");
        let bytes = path.bytes(release, &consent).unwrap();
        Update::decode(&bytes).unwrap().values().to_vec()
    };
    let key: [u8; 32] = std::array::from_fn(|at| at as u8);
    let values = update(key);
    assert_eq!(update(key), values);
    for at in 0..key.len() {
        let mut other = key;
        other[at] ^= 1;
        let changed = update(other).iter().zip(&values).filter(|(a, b)| a != b).count();
        assert!(changed > 150, "byte {at}: {changed} of 200 values changed");
    }
}

#[test]
fn a_number_of_releases_holds_whatever_noise_they_have() {
    let device = used_device();
    let consent = device.consent();
    let ledger = device.ledger().unwrap().with_most_releases(3);
    let outbox = Outbox::new(device.store.clone(), OutboxLimits::default());
    let mut path = ReleasePath::open(ledger, outbox, Box::new(SystemEntropy)).unwrap();
    let quieter = "9.0".parse().unwrap();
    assert_eq!(path.summary(quieter).unwrap().releases_left, 1);
    path.release(clipped(3), quieter, &consent).unwrap();
    assert_eq!(path.summary(quieter).unwrap().releases_left, 0);
    let before = device.store.read(LEDGER_NAME).unwrap();
    let error = path.release(clipped(4), quieter, &consent).unwrap_err();
    let ReleaseError::Ledger(LedgerError::TooMany { reserved: 3, most: 3 }) = error else {
        panic!("{error}");
    };
    assert_eq!(device.store.read(LEDGER_NAME).unwrap(), before, "nothing was reserved");
}

#[test]
fn bytes_are_the_same_on_every_retry_and_after_a_restart() {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    let release = path.release(clipped(1), Z, &consent).unwrap();
    let first = path.bytes(release, &consent).unwrap();
    assert_eq!(path.bytes(release, &consent).unwrap(), first);
    drop(path);
    let mut path = device.path();
    assert_eq!(path.waiting(), [release]);
    assert_eq!(path.bytes(release, &consent).unwrap(), first);
    let update = Update::decode(&first).unwrap();
    assert_eq!((update.header().release, update.values().len()), (release, 200));
    path.published(release).unwrap();
    path.published(release).unwrap();
    assert!(matches!(path.bytes(release, &consent), Err(ReleaseError::NotWaiting(_))));
    assert_eq!(path.summary(Z).unwrap().published, 1);
}

#[test]
fn one_delta_is_noised_at_most_once() {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    path.release(clipped(1), Z, &consent).unwrap();
    let error = path.release(clipped(1), Z, &consent).unwrap_err();
    assert!(matches!(error, ReleaseError::Ledger(LedgerError::AlreadyReserved(_))), "{error}");
    assert_eq!(path.summary(Z).unwrap().releases_left, 2);
}

#[test]
fn a_release_draws_noise_afresh() {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    let mut values = |run| {
        let release = path.release(clipped(run), Z, &consent).unwrap();
        Update::decode(&path.bytes(release, &consent).unwrap()).unwrap().values().to_vec()
    };
    let (first, second) = (values(1), values(2));
    let equal = first.iter().zip(&second).filter(|(a, b)| a == b).count();
    assert!(equal < 5, "{equal} of 200 values are equal");
    let deviation = (first.iter().zip(&second).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>()
        / 200.0
        / 2.0)
        .sqrt();
    assert!((deviation / (1.2 * 2048.0) - 1.0).abs() < 0.25, "{deviation}");
}

#[test]
fn without_entropy_nothing_is_spent_or_sent() {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path_with(Box::new(DryingEntropy { fills: 0 }));
    assert!(path.release(clipped(1), Z, &consent).is_err());
    assert_eq!(path.summary(Z).unwrap().releases_left, 3);
    // Entropy that runs dry between the release id and the key burns the release.
    let mut path = device.path_with(Box::new(DryingEntropy { fills: 1 }));
    let error = path.release(clipped(1), Z, &consent).unwrap_err();
    assert!(matches!(error, ReleaseError::Mechanism(MechanismError::Edge(_))), "{error}");
    let summary = path.summary(Z).unwrap();
    assert_eq!((summary.releases_left, summary.burnt, summary.waiting), (2, 1, 0));
}

#[test]
fn withdrawal_stops_everything_that_has_not_left() {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    let release = path.release(clipped(1), Z, &consent).unwrap();
    device.consents.withdraw(PurposeKind::ContributeToFleet).unwrap();
    assert!(matches!(path.bytes(release, &consent), Err(ReleaseError::Consent(_))));
    assert!(matches!(path.release(clipped(2), Z, &consent), Err(ReleaseError::Consent(_))));
    path.discard_waiting().unwrap();
    let summary = path.summary(Z).unwrap();
    assert_eq!((summary.releases_left, summary.burnt, summary.waiting), (2, 1, 0));
    assert!(device.store.names().unwrap().iter().all(|name| !name.starts_with("update-")));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let device = used_device();
    let good = device.store.get(LEDGER_NAME);
    assert_eq!(good.len(), 8 * RECORD_BYTES);
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = verify(&bad).unwrap_err();
        let record = (bit / 8 / RECORD_BYTES) as u64;
        let named = matches!(error, LedgerError::Corrupt { record: r, .. } if r == record);
        assert!(named, "bit {bit}: {error}");
    }
    device.store.set(LEDGER_NAME, {
        let mut bad = good.clone();
        bad[100] ^= 1;
        bad
    });
    let error = device.ledger().err().unwrap();
    let told = error.to_string();
    assert!(told.contains("no update any more") && !told.contains("restore"), "{told}");
    assert_eq!(
        device.store.get(LEDGER_NAME).len(),
        good.len(),
        "a damaged ledger is left as it is"
    );
}

#[test]
fn records_cannot_be_left_out_exchanged_or_repeated() {
    let device = used_device();
    let good = device.store.get(LEDGER_NAME);
    let record = |index: usize| &good[index * RECORD_BYTES..(index + 1) * RECORD_BYTES];
    let rearranged: [&[usize]; 4] =
        [&[1, 2, 3, 4, 5, 6, 7], &[0, 2, 3], &[0, 1, 1, 2], &[0, 1, 2, 3, 0, 1, 2, 3]];
    for order in rearranged {
        let bytes: Vec<u8> = order.iter().flat_map(|&index| record(index).to_vec()).collect();
        assert!(matches!(verify(&bytes), Err(LedgerError::Corrupt { .. })), "{order:?}");
    }
}

#[test]
fn a_torn_end_is_cut_off_at_every_byte() {
    let device = used_device();
    let good = device.store.get(LEDGER_NAME);
    let records = good.len() / RECORD_BYTES;
    for length in 0..good.len() {
        let whole = length / RECORD_BYTES;
        let verified = verify(&good[..length]).unwrap();
        assert_eq!(verified.records.len(), whole);
        assert_eq!(verified.torn_bytes, length % RECORD_BYTES);
        // The file had grown, the sector was not written.
        let mut grown = good[..whole * RECORD_BYTES].to_vec();
        grown.resize(length.max(grown.len()), 0);
        assert_eq!(verify(&grown).unwrap().records.len(), whole);
    }
    device.store.set(LEDGER_NAME, [good.as_slice(), &good[..77]].concat());
    let ledger = device.ledger().unwrap();
    assert_eq!(ledger.verified().records.len(), records);
    assert_eq!(device.store.get(LEDGER_NAME), good, "the torn end is gone from the medium too");
}

#[test]
fn an_older_copy_is_noticed_where_the_platform_counts() {
    let device = used_device();
    let good = device.store.get(LEDGER_NAME);
    for records in 0..good.len() / RECORD_BYTES {
        device.store.set(LEDGER_NAME, good[..records * RECORD_BYTES].to_vec());
        let error = device.ledger().err().unwrap();
        let expected = matches!(error, LedgerError::RolledBack { found, counted: 8 } if found == records as u64);
        assert!(expected, "{error}");
    }
    // Without a counter it is not: the named limit.
    let clock = device.clock.clone();
    let ledger =
        Ledger::open(device.store.clone(), Arc::new(NoCounter), clock, Budget::DEFAULT).unwrap();
    assert_eq!(ledger.verified().records.len(), 7);
    // A crash between the record and the counter is none.
    device.store.set(LEDGER_NAME, good);
    device.counter.0.store(7, Ordering::SeqCst);
    assert!(device.ledger().is_ok());
    assert_eq!(device.counter.0.load(Ordering::SeqCst), 8);
}

#[test]
fn a_ledger_that_is_exchanged_under_a_running_device_is_noticed_without_a_counter() {
    let device = Device::new();
    let consent = device.consent();
    let (counter, clock) = (Arc::new(NoCounter), device.clock.clone());
    let ledger = Ledger::open(device.store.clone(), counter, clock, Budget::DEFAULT).unwrap();
    let outbox = Outbox::new(device.store.clone(), OutboxLimits::default());
    let mut path = ReleasePath::open(ledger, outbox, Box::new(SystemEntropy)).unwrap();
    path.release(clipped(1), Z, &consent).unwrap();
    let older = device.store.get(LEDGER_NAME);
    path.release(clipped(2), Z, &consent).unwrap();
    device.store.set(LEDGER_NAME, older);
    // Nobody looks at the medium again before a write has failed.
    device.store.set_room(Some(0));
    path.release(clipped(3), Z, &consent).unwrap_err();
    device.store.set_room(None);
    let error = path.release(clipped(3), Z, &consent).unwrap_err();
    let ReleaseError::Ledger(LedgerError::RolledBack { found: 3, counted: 6 }) = error else {
        panic!("{error}");
    };
}

#[test]
fn a_disk_that_fills_in_mid_write_never_costs_more_than_the_release() {
    for room in 0..1_500 {
        let device = Device::new();
        let consent = device.consent();
        let mut path = device.path();
        device.store.set_room(Some(room));
        let result = path.release(clipped(1), Z, &consent);
        device.store.set_room(None);
        // The same process goes on once there is room again.
        let second = path.release(clipped(2), Z, &consent).unwrap();
        drop(path);
        let path = device.path();
        let summary = path.summary(Z).unwrap();
        let verified = verify(&device.store.get(LEDGER_NAME)).unwrap();
        assert_eq!(verified.torn_bytes, 0, "room {room}");
        assert_eq!(
            summary.waiting + summary.burnt + summary.releases_left,
            3,
            "room {room}: {summary:?}"
        );
        match result {
            Ok(first) => assert_eq!(path.waiting(), [first, second]),
            // Full after the update was persisted: recovery finds it and goes on with it.
            Err(_) => assert_eq!(path.waiting().last(), Some(&second)),
        }
    }
}

#[test]
fn a_counter_that_cannot_be_raised_costs_one_release_and_no_more() {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    device.counter.1.store(true, Ordering::SeqCst);
    assert!((1..6).all(|run| path.release(clipped(run), Z, &consent).is_err()));
    device.counter.1.store(false, Ordering::SeqCst);
    let release = path.release(clipped(9), Z, &consent).unwrap();
    let summary = path.summary(Z).unwrap();
    assert_eq!((summary.burnt, summary.waiting, summary.releases_left), (1, 1, 1), "{summary:?}");
    assert_eq!(path.waiting(), [release]);
}

#[test]
fn a_clock_that_jumps_a_year_changes_nothing() {
    let device = Device::new();
    let consent = device.consent();
    let mut path = device.path();
    let mut order = Vec::new();
    for (run, now) in [(1, 1_800_000_000), (2, 1_831_536_000), (3, 5)] {
        device.clock.0.store(now, Ordering::SeqCst);
        order.push(path.release(clipped(run), Z, &consent).unwrap());
    }
    device.clock.0.store(u64::MAX, Ordering::SeqCst);
    drop(path);
    let mut path = device.path();
    assert_eq!(path.waiting(), order);
    assert!(path.release(clipped(4), Z, &consent).is_err(), "time does not refill the budget");
}

#[test]
fn a_damaged_or_missing_update_is_burnt_and_never_made_again() {
    for damage in [None, Some(vec![1, 2, 3])] {
        let device = Device::new();
        let consent = device.consent();
        let mut path = device.path();
        let release = path.release(clipped(1), Z, &consent).unwrap();
        let name = format!("update-{release}");
        match damage {
            None => device.store.remove(&name).unwrap(),
            Some(bytes) => device.store.set(&name, bytes),
        }
        assert!(path.bytes(release, &consent).is_err());
        assert!(path.waiting().is_empty(), "it keeps no round from being answered");
        drop(path);
        let path = device.path();
        let state = &path.ledger().verified().releases()[&release];
        assert_eq!(state.kind, RecordKind::Burnt);
        assert!(device.store.get(&name).is_empty());
    }
}

#[test]
fn the_outbox_has_limits_that_cost_no_budget() {
    let device = Device::new();
    let consent = device.consent();
    let limits = OutboxLimits { updates: 1, bytes_each: 600 };
    let outbox = Outbox::new(device.store.clone(), limits);
    let mut path =
        ReleasePath::open(device.ledger().unwrap(), outbox, Box::new(SystemEntropy)).unwrap();
    path.release(clipped(1), Z, &consent).unwrap();
    let error = path.release(clipped(2), Z, &consent).unwrap_err();
    assert!(matches!(error, ReleaseError::Outbox(OutboxError::Full(1))), "{error}");
    let noisy = "20".parse().unwrap();
    let error = path.release(clipped(3), noisy, &consent).unwrap_err();
    assert!(matches!(error, ReleaseError::Outbox(OutboxError::TooLarge { .. })), "{error}");
    assert_eq!(path.summary(Z).unwrap().releases_left, 2);
}

#[test]
fn noise_beyond_the_sampler_costs_no_budget() {
    let device = Device::new();
    let (consent, mut path) = (device.consent(), device.path());
    // 35123457 * 2048 steps over 10^6, reduced, has a numerator above 2^30.
    let beyond = "35.123457".parse().unwrap();
    let error = path.release(clipped(1), beyond, &consent).unwrap_err();
    assert!(matches!(error, ReleaseError::Mechanism(MechanismError::Sigma(_))), "{error}");
    let summary = path.summary(Z).unwrap();
    assert_eq!((summary.releases_left, summary.burnt), (3, 0));
}

#[test]
fn the_summary_is_complete_json() {
    let device = used_device();
    let json = serde_json::to_value(device.path().summary(Z).unwrap()).unwrap();
    for key in ["epsilon", "delta", "noise_multiplier", "releases", "adjacency", "unit", "trust"] {
        assert!(!json["spent"][key].is_null(), "{key}: {json}");
    }
    assert_eq!(json["releases_left"], 1);
    assert_eq!(json["published"], 2);
}
