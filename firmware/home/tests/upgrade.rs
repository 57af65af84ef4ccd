//! What an earlier version of the program left on the disk opens with everything in it.
//!
//! `tests/fixtures/NAME` are the stores of a mirror that lived with the program of a commit, made by `examples/life.rs`; [`LIVES`] has what
//! was in them. They are never made anew: where a format changes, another folder is added.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Device, agree, base, own_rules, scene, stores_by_name, train};
use home::{ConsentState, Home, HomeError};
use learn::consent::{ContributeToFleet, PurposeKind};
use learn::edges::MonotonicCounter;
use learn::head::Subset;
use learn::update::Update;

/// A mirror's life, as the program that lived it reported at its end.
struct Life {
    /// Folder of its stores below `tests/fixtures`.
    name: &'static str,
    /// SHA-256 over the numbers of the head in use, and of the fleet's model that it came from.
    head: &'static str,
    base: &'static str,
}

/// Of commit c42b505.
const LIVES: &[Life] = &[Life {
    name: "0.1",
    head: "f51cc9668ccd3235c7525d81d19f3a53256957dd6fa477b5d819d7e0c6dcc372",
    base: "389896b4514b1ea26ebac7269b4bddcd452879dee0c46bd259043cbef26f6789",
}];

/// Eleven corrections of [`scene`], of which this one was deleted; the fleet's version 3, and two heads of the household's own upon it; two
/// releases, of which the second still waits.
const DELETED: u64 = 7;

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A device with a life's stores, at the second in which it ended.
fn device_of(life: &Life) -> Device {
    let device = Device::new();
    for (name, store) in stores_by_name(&device) {
        for entry in fs::read_dir(fixtures(life.name).join(name)).unwrap() {
            let entry = entry.unwrap();
            store.set(entry.file_name().to_str().unwrap(), fs::read(entry.path()).unwrap());
        }
    }
    let counter = fs::read_to_string(fixtures(life.name).join("counter")).unwrap();
    device.counter.raise(counter.trim().parse().unwrap()).unwrap();
    device
}

fn release(home: &Home) -> Result<learn::edges::ReleaseId, HomeError> {
    home.release(&home.token::<ContributeToFleet>().unwrap(), &own_rules(home))
}

fn digest(parameters: &[f32]) -> String {
    let digest = base().layout.digest(parameters);
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn corrections_heads_and_models_of_before_are_there() {
    for life in LIVES {
        let device = device_of(life);
        let home = device.start();
        assert_eq!(home.all_problems(), Vec::<String>::new(), "{}", life.name);
        let numbers: Vec<u64> = home.corrections().iter().map(|c| c.number).collect();
        assert_eq!(numbers, (0..11).filter(|&n| n != DELETED).collect::<Vec<_>>());
        for number in numbers {
            let (pixels, labels) = scene(number);
            assert_eq!(home.picture(number).unwrap().planes, pixels, "{number}");
            assert_eq!(home.mask(number).unwrap().labels, labels, "{number}");
        }
        assert_eq!(digest(&home.head_values()), life.head);
        assert_eq!((home.fleet_version(), digest(&home.base().parameters)), (3, life.base.into()));
        assert_eq!(home.heads().len(), 2);
        while let Some(head) = home.heads().last() {
            home.undo_head(head.number).unwrap();
        }
        assert_eq!(home.head_values(), home.base().parameters.as_slice().into());
    }
}

#[test]
fn budget_consents_and_updates_of_before_are_there() {
    for life in LIVES {
        let device = device_of(life);
        let home = device.start();
        let ledger = home.privacy().unwrap().ledger;
        assert_eq!((ledger.spent.releases(), ledger.published, ledger.releases_left), (2, 1, 1));
        for purpose in [PurposeKind::ImproveMyMirror, PurposeKind::ContributeToFleet] {
            assert_ne!(home.consent(purpose), ConsentState::Absent, "{purpose:?} of {}", life.name);
        }
        let [waiting] = home.waiting().unwrap()[..] else { panic!("one update waits") };
        // What is explained may have changed since; then it is agreed to anew.
        agree(&home);
        let bytes = home.bytes(waiting, &home.token().unwrap()).unwrap();
        assert_eq!(
            Update::decode(&bytes).unwrap().values().len(),
            base().layout.subset_len(Subset::Full)
        );
        train(&home);
        release(&home).unwrap();
        train(&home);
        assert!(release(&home).is_err(), "{}: a fourth release", life.name);
    }
}
