//! `mirror privacy`: the numbers of an independent accountant, always rounded up, and what is refused.

mod common;

use common::{Folder, mirror, output, stderr, stdout};

fn json(folder: &Folder, arguments: &[&str]) -> serde_json::Value {
    let result = output(mirror(folder).arg("privacy").args(arguments).arg("--json"));
    assert!(result.status.success(), "{}", stderr(&result));
    serde_json::from_str(&stdout(&result)).expect("JSON")
}

/// Noise multiplier, sampling rate, releases, and epsilon at delta 1e-5 by dp-accounting 0.6.0: PLD at rate 1, RDP below.
const REFERENCE: [(&str, &str, &str, f64); 9] = [
    ("1.2", "1", "1", 3.5487),
    ("1.2", "1", "2", 5.3000),
    ("1.2", "1", "3", 6.7347),
    ("1.2", "1", "4", 8.0037),
    ("1.2", "1", "64", 49.8837),
    ("4.0", "1", "100", 13.2067),
    ("1.2", "0.01", "1000", 1.4528),
    ("0.8", "0.02", "500", 5.3719),
    ("2.0", "0.05", "2000", 5.9242),
];

#[test]
fn epsilon_is_that_of_an_independent_accountant() {
    let folder = Folder::new("epsilon");
    for (z, rate, releases, expected) in REFERENCE {
        let arguments = [
            "epsilon",
            "--noise-multiplier",
            z,
            "--sampling-rate",
            rate,
            "--releases",
            releases,
            "--delta",
            "1e-5",
        ];
        let told = json(&folder, &arguments);
        let epsilon = told["epsilon"].as_f64().expect("a number");
        assert!((epsilon - expected).abs() <= 1e-3, "{arguments:?}: {epsilon}");
        // The reference's own last decimal is rounded to the nearest.
        assert!(
            rate != "1" || epsilon >= expected - 5e-5,
            "{arguments:?}: {epsilon}, rounded down"
        );
        for key in ["delta", "noise_multiplier", "releases", "adjacency", "unit", "trust"] {
            assert!(!told[key].is_null(), "{key}");
        }
    }
}

#[test]
fn a_plan_needs_the_noise_of_the_reference() {
    let folder = Folder::new("plan");
    for (releases, z) in [("1", 0.6002), ("12", 2.0793), ("52", 4.3283), ("365", 11.467)] {
        let arguments = ["plan", "--epsilon", "8", "--delta", "1e-5", "--releases", releases];
        let told = json(&folder, &arguments);
        let planned = told["noise_multiplier"].as_f64().expect("a number");
        assert!((planned - z).abs() <= 6e-4, "{releases}: {planned}");
        assert!(told["epsilon"].as_f64() <= Some(8.0));
    }
}

#[test]
fn numbers_that_no_budget_has_are_wrong_usage() {
    let folder = Folder::new("wrong");
    for arguments in [
        ["plan", "--epsilon", "0", "--delta", "1e-5", "--releases", "3"],
        ["plan", "--epsilon", "8", "--delta", "2", "--releases", "3"],
        ["plan", "--epsilon", "8", "--delta", "1e-5", "--releases", "0"],
        ["epsilon", "--noise-multiplier", "1e3", "--delta", "1e-5", "--releases", "3"],
        ["epsilon", "--noise-multiplier", "0.4999", "--delta", "1e-5", "--releases", "3"],
    ] {
        let result = output(mirror(&folder).arg("privacy").args(arguments));
        assert_eq!(result.status.code(), Some(2), "{arguments:?}: {}", stderr(&result));
    }
}

#[test]
fn a_mirror_that_never_released_has_an_empty_ledger_and_a_foreign_one_is_refused() {
    let folder = Folder::new("ledger");
    let told = json(&folder, &["ledger", "--verify"]);
    assert_eq!((told["epsilon"].as_f64(), told["releases"].as_u64()), (Some(0.0), Some(0)));
    assert_eq!(told["target_epsilon"].as_f64(), Some(8.0));
    assert_eq!(told["found"], false);
    let words = output(mirror(&folder).args(["privacy", "ledger"]));
    assert!(stdout(&words).contains("there is no ledger at"), "{}", stdout(&words));
    assert!(stdout(&words).contains("releases: 0 of at most 3"), "{}", stdout(&words));
    let place = folder.path().join("mirror/learning/privacy");
    std::fs::create_dir_all(&place).expect("writable");
    std::fs::write(place.join("privacy-ledger"), [7; 4096]).expect("writable");
    let result = output(mirror(&folder).args(["privacy", "ledger", "--verify"]));
    assert_eq!(result.status.code(), Some(1));
    assert!(stderr(&result).contains("damaged"), "{}", stderr(&result));
}

#[test]
fn a_ledger_with_fewer_records_than_were_counted_is_refused() {
    let folder = Folder::new("rolled-back");
    let place = folder.path().join("mirror/learning/counter");
    std::fs::create_dir_all(&place).expect("writable");
    std::fs::write(place.join("ledger-counter"), 4_u64.to_le_bytes()).expect("writable");
    let result = output(mirror(&folder).args(["privacy", "ledger", "--verify"]));
    assert_eq!(result.status.code(), Some(1));
    assert!(stderr(&result).contains("an older copy was put back"), "{}", stderr(&result));
}
