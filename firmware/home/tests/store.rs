//! The encrypted store and the corrections in it: limits, damage, full disks, clocks.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{
    ColourTrunk, Device, HEIGHT, MemoryStore, Open, WIDTH, add, agree, base, begin_training,
    contains, scene, train,
};
use home::vault::{Vault, machine_credential};
use home::{ConsentState, HomeError, Limits, NightlyWindow, Triggers};
use learn::consent::PurposeKind;
use learn::edges::{EdgeError, SystemEntropy};
use learn::head::TargetError;
use learn::ledger::LEDGER_NAME;
use zeroize::Zeroizing;

const DAY: u64 = 86_400;

fn vault(files: &Arc<MemoryStore>, keys: &Arc<MemoryStore>, credential: Option<&[u8]>) -> Vault {
    let credential = credential.map(|secret| Zeroizing::new(secret.to_vec()));
    let entropy = Arc::new(|| Box::new(SystemEntropy) as Box<dyn learn::edges::Entropy>);
    Vault::new(files.clone(), keys.clone(), entropy, credential)
}

#[test]
fn sealed_bytes_open_under_their_own_name_and_key_only() {
    let (files, keys) = (Arc::default(), Arc::default());
    let sealed = vault(&files, &keys, None);
    sealed.put("a", b"the household's own").unwrap();
    assert_eq!(sealed.get("a").unwrap().unwrap().as_slice(), b"the household's own");
    assert!(sealed.get("b").unwrap().is_none());
    assert!(!contains(&files.get("a"), b"household"));
    assert_eq!(files.get("a").len() as u64, Vault::sealed_size(19));

    files.set("b", files.get("a"));
    assert!(matches!(sealed.get("b"), Err(EdgeError::Seal(_))), "moved to another name");
    let whole = files.get("a");
    for bit in 0..8 * whole.len() {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        files.set("a", flipped);
        assert!(matches!(sealed.get("a"), Err(EdgeError::Seal(_))), "bit {bit}");
    }
    for length in 0..whole.len() {
        files.set("a", whole[..length].to_vec());
        assert!(sealed.get("a").is_err(), "cut to {length}");
    }
    files.set("a", whole);
    assert!(vault(&files, &Arc::default(), None).get("a").is_err(), "another device's key");
    assert!(vault(&files, &keys, Some(b"a credential of a TPM")).get("a").is_err());
    sealed.erase_key().unwrap();
    assert!(matches!(sealed.get("a"), Err(EdgeError::Seal(_))), "the key is gone");
    assert!(keys.files.lock().unwrap().is_empty());
}

#[test]
fn the_credential_is_part_of_the_key() {
    let (files, keys) = (Arc::default(), Arc::default());
    let secret: &[u8] = b"sealed to this machine's TPM";
    vault(&files, &keys, Some(secret)).put("a", b"x").unwrap();
    assert!(vault(&files, &keys, Some(secret)).get("a").unwrap().is_some());
    assert!(vault(&files, &keys, None).get("a").is_err());
}

#[test]
fn a_credential_is_taken_where_the_service_has_one_and_a_short_one_is_refused() {
    assert!(machine_credential(None).unwrap().is_none());
    let folder = std::env::temp_dir().join(format!("mirror-credential-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    assert!(machine_credential(Some(&folder)).unwrap().is_none(), "another service's folder");
    let file = folder.join("mirror-vault");
    std::fs::write(&file, "0123456789abcdef").unwrap();
    let secret = machine_credential(Some(&folder)).unwrap().unwrap();
    assert_eq!(secret.as_slice(), b"0123456789abcdef");
    std::fs::write(&file, "short").unwrap();
    let refusal = machine_credential(Some(&folder)).unwrap_err().to_string();
    assert!(refusal.contains("mirror-vault has 5 bytes"), "{refusal}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn two_seals_of_one_thing_differ() {
    let (files, keys) = (Arc::default(), Arc::default());
    let vault = vault(&files, &keys, None);
    vault.put("a", &[0; 64]).unwrap();
    let first = files.get("a");
    vault.put("a", &[0; 64]).unwrap();
    assert_ne!(first, files.get("a"));
}

#[test]
fn a_correction_comes_back_as_it_was_after_a_restart() {
    let device = Device::new();
    device.start_with(6);
    let home = device.start();
    assert_eq!(home.all_problems(), [""; 0]);
    let list = home.corrections();
    assert_eq!(list.len(), 6);
    assert_eq!(list.iter().filter(|entry| entry.held_back).count(), 1);
    let (pixels, mask) = scene(3);
    let picture = home.picture(list[3].number).unwrap();
    assert_eq!(picture.planes, pixels);
    assert_eq!(home.mask(list[3].number).unwrap().labels, mask);
    assert_eq!(
        picture.interleaved()[..3],
        [pixels[0], pixels[HEIGHT * WIDTH], pixels[2 * HEIGHT * WIDTH]]
    );
    let stored: usize = device
        .vault
        .files
        .lock()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.starts_with("correction"))
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert_eq!(home.usage().bytes, stored as u64);
    // No row of a picture lies on the disk in the clear.
    for bytes in device.vault.files.lock().unwrap().values() {
        assert!(!contains(bytes, &pixels[..WIDTH]) && !contains(bytes, &mask[..WIDTH]));
    }
}

#[test]
fn bad_masks_and_pictures_are_refused_by_name() {
    let home = Device::new().start_with(0);
    let consent = home.token().unwrap();
    let (pixels, mask) = scene(0);
    let add = |pixels: &[u8], mask: &[u8]| home.add_correction(&consent, pixels, mask).unwrap_err();
    assert!(matches!(add(&pixels, &mask[1..]), HomeError::MaskSize { .. }));
    assert!(matches!(add(&pixels[1..], &mask), HomeError::PictureSize { .. }));
    let mut unknown = mask.clone();
    unknown[77] = 16;
    let error = add(&pixels, &unknown);
    assert!(
        matches!(error, HomeError::Mask(TargetError::Class { index: 77, value: 16 })),
        "{error}"
    );
    let silent = vec![255; mask.len()];
    assert!(matches!(add(&pixels, &silent), HomeError::Mask(TargetError::Empty)));
    assert!(home.corrections().is_empty());
}

#[test]
fn limits_and_headroom_hold() {
    let mut device = Device::new();
    device.options.limits = Limits { corrections: 3, ..Limits::default() };
    let home = device.start_with(3);
    let consent = home.token().unwrap();
    let (pixels, mask) = scene(9);
    let error = home.add_correction(&consent, &pixels, &mask).unwrap_err();
    assert!(matches!(error, HomeError::TooMany { stored: 3 }));
    assert!(error.to_string().contains("learning.corrections"), "{error}");
    home.remove_correction(0).unwrap();
    let added = home.add_correction(&consent, &pixels, &mask).unwrap();
    assert_eq!(added.number, 3, "a number is never used twice");
    assert!(matches!(home.picture(0), Err(HomeError::NoCorrection(0))));
    home.remove_correction(1).unwrap();
    device.space.0.store(64 << 20, Ordering::SeqCst);
    let error = home.add_correction(&consent, &pixels, &mask).unwrap_err();
    assert!(matches!(error, HomeError::DiskFull { .. }), "{error}");

    let mut device = Device::new();
    device.options.limits = Limits { bytes: 1 << 20, ..Limits::default() };
    let home = device.start_with(84);
    let error = home.add_correction(&home.token().unwrap(), &pixels, &mask).unwrap_err();
    let told =
        "another correction of 13 KiB does not fit learning.megabytes = 1 beside the 1.0 MiB";
    assert!(error.to_string().starts_with(told), "{error}");
}

#[test]
fn a_disk_that_runs_full_anywhere_leaves_nothing_half_written() {
    let device = Device::new();
    let home = device.start_with(2);
    let consent = home.token().unwrap();
    let (pixels, mask) = scene(9);
    for room in (0..13_000).step_by(500) {
        device.vault.set_room(Some(room));
        let added = home.add_correction(&consent, &pixels, &mask);
        device.vault.set_room(None);
        if added.is_ok() {
            continue;
        }
        let again = device.start();
        assert_eq!(again.all_problems(), [""; 0], "{room}");
        assert!(again.corrections().iter().all(|entry| !entry.damaged));
        assert_eq!(again.corrections().len(), home.corrections().len(), "{room}");
    }
    add(&home, 5..6);
}

#[test]
fn a_flipped_bit_costs_one_correction_and_is_told() {
    let device = Device::new();
    device.start_with(3);
    let name = "correction-0000000001";
    let mut bytes = device.vault.get(name);
    bytes[5_000] ^= 4;
    device.vault.set(name, bytes);
    let home = device.start();
    let damaged: Vec<bool> = home.corrections().iter().map(|entry| entry.damaged).collect();
    assert_eq!(damaged, [false, true, false]);
    assert!(matches!(home.picture(1), Err(HomeError::Damaged(1))));
    home.remove_correction(1).unwrap();
    assert_eq!(home.corrections().len(), 2);
}

#[test]
fn a_file_that_cannot_be_read_stops_what_depends_on_it_and_can_be_deleted() {
    let device = Device::new();
    device.start_with(3);
    device.models.set("models", b"the fleet's".to_vec());
    device.vault.make_unreadable("correction-0000000001");
    device.vault.make_unreadable("state");
    device.consent.make_unreadable("consent.json");
    device.models.make_unreadable("models");
    let home = device.start();
    assert_eq!(home.all_problems().len(), 3, "{:?}", home.all_problems());
    let damaged: Vec<bool> = home.corrections().iter().map(|entry| entry.damaged).collect();
    assert_eq!(damaged, [false, true, false]);
    assert_eq!(home.consent(PurposeKind::ImproveMyMirror), ConsentState::Absent);
    let proof = home.delete_everything().unwrap();
    assert!(proof.is_complete(), "{proof:?}");
    assert!(proof.removed.contains(&"vault/correction-0000000001".to_owned()), "{proof:?}");
    assert!(device.vault.files.lock().unwrap().is_empty());
}

#[test]
fn a_damaged_state_file_loses_no_correction() {
    let device = Device::new();
    device.start_with(3);
    device.vault.set("state", b"scribble".to_vec());
    let home = device.start();
    assert_eq!(home.all_problems().len(), 1);
    assert_eq!(home.corrections().len(), 3);
    agree(&home);
    add(&home, 7..8);
    assert_eq!(home.corrections().last().unwrap().number, 3);
}

#[test]
fn heads_outlive_starts_at_which_their_list_could_not_be_read() {
    let device = Device::new();
    device.start_with(2);
    device.vault.set("head-0000000007", b"sealed with a credential that is missing today".to_vec());
    device.vault.set("state", b"unreadable today".to_vec());
    let home = device.start();
    agree(&home);
    add(&home, 7..8);
    for _ in 0..2 {
        assert!(device.start().all_problems().is_empty());
        assert!(device.vault.files.lock().unwrap().contains_key("head-0000000007"));
    }
    assert!(device.vault.get("state-before") == b"unreadable today");
    assert!(device.start().delete_everything().unwrap().is_complete());
    assert!(device.vault.files.lock().unwrap().is_empty());
}

#[test]
fn a_head_is_in_use_again_after_a_start_with_the_right_credential() {
    let mut device = Device::new();
    let secret = Some(b"sealed to this machine's TPM".to_vec());
    device.credential = secret.clone();
    let home = device.start_with(10);
    train(&home);
    let own = home.head_values();
    // Run by hand, without what the service gives: the list is not what it was, and is written anew.
    device.credential = None;
    for index in [20, 21] {
        let home = device.start();
        assert!(home.heads().is_empty() && home.head_values() != own);
        add(&home, index..index + 1);
    }
    device.credential = secret;
    for _ in 0..2 {
        let home = device.start();
        assert_eq!((home.all_problems(), home.heads().len()), (Vec::new(), 1));
        assert_eq!(home.head_values(), own);
        assert!(!device.vault.files.lock().unwrap().contains_key("state-before"));
    }
    let home = device.start();
    add(&home, 30..31);
    assert_eq!(home.corrections().last().unwrap().number, 12, "no number is used twice");
}

#[test]
fn a_head_that_does_not_open_any_more_is_not_shown_as_in_use() {
    let device = Device::new();
    let home = device.start_with(10);
    train(&home);
    assert_eq!(home.heads().len(), 1);
    device.vault.damage("head-0000000000");
    let home = device.start();
    assert!(home.heads().is_empty() && *home.head_values() == *base().parameters);
    assert!(home.all_problems()[0].contains("cannot be opened"), "{:?}", home.all_problems());
    assert!(device.start().all_problems().is_empty(), "told once");
    assert!(!device.vault.files.lock().unwrap().contains_key("head-0000000000"));
    // What a disk does not give back today it may give back tomorrow.
    train(&home);
    let (name, own) = ("head-0000000001", home.head_values());
    assert_eq!(home.heads().len(), 1);
    device.vault.make_unreadable(name);
    let home = device.start();
    assert_eq!(home.heads().len(), 1);
    assert!(home.all_problems()[0].contains("head cannot be read"), "{:?}", home.all_problems());
    // What would be learnt from the base's numbers could take the place of something better.
    add(&home, 20..24);
    let stop = AtomicBool::new(false);
    let outcome = home.train_when(&mut ColourTrunk::default(), &Open, &stop);
    assert!(matches!(outcome, Err(HomeError::HeadUnread(_))), "{outcome:?}");
    device.vault.unreadable.lock().unwrap().clear();
    assert_eq!(device.start().head_values(), own);
    // Also without a start in between.
    begin_training(&home, 1);
    assert_eq!(home.head_values(), own);
    assert!(home.all_problems().is_empty(), "told for as long as it is so");
}

#[test]
fn heads_that_no_list_knows_go_whatever_else_is_damaged() {
    let device = Device::new();
    let home = device.start_with(10);
    train(&home);
    device.vault.set("head-0000000099", device.vault.get("head-0000000000"));
    device.ledger.set(LEDGER_NAME, vec![7; 300]);
    let home = device.start();
    assert_eq!(home.all_problems().len(), 1, "{:?}", home.all_problems());
    assert_eq!(home.heads().len(), 1);
    assert!(!device.vault.files.lock().unwrap().contains_key("head-0000000099"));
}

#[test]
fn heads_from_before_and_since_their_list_could_not_be_read_are_all_there() {
    let device = Device::new();
    let home = device.start_with(10);
    train(&home);
    let (before, known) = (home.heads(), device.vault.get("state"));
    // As an older firmware leaves it that does not know all of the list.
    device.vault.set("state", b"of a newer firmware".to_vec());
    let home = device.start();
    train(&home);
    let since = home.heads();
    assert_eq!((before.len(), since.len()), (1, 1));
    device.vault.set("state-before", known);
    let home = device.start();
    assert_eq!(home.heads(), [before, since].concat());
    home.undo_head(home.heads()[1].number).unwrap();
    assert_eq!(device.start().heads().len(), 1);
}

#[test]
fn a_correction_that_cannot_be_read_is_not_taken_for_an_old_one() {
    let device = Device::new();
    let home = device.start_with(2);
    device.clocks.pass(100 * DAY);
    add(&home, 2..3);
    device.vault.make_unreadable("correction-0000000002");
    let home = device.start();
    device.clocks.pass(81 * DAY);
    assert_eq!(home.tidy().unwrap(), 2, "those that are old");
    assert_eq!(home.corrections().len(), 1);
}

#[test]
fn a_clock_that_jumps_a_year_deletes_nothing() {
    let device = Device::new();
    let home = device.start_with(2);
    for jump in [366 * DAY, 20 * 366 * DAY] {
        let now = device.clocks.wall.load(Ordering::SeqCst);
        device.clocks.wall.store(now + jump, Ordering::SeqCst);
        assert_eq!(home.tidy().unwrap(), 0);
        device.clocks.pass(3 * DAY);
        assert_eq!(home.tidy().unwrap(), 0);
        device.clocks.wall.store(now + 3 * DAY, Ordering::SeqCst);
        assert_eq!(home.tidy().unwrap(), 0);
    }
    device.clocks.wall.store(0, Ordering::SeqCst);
    assert_eq!(home.tidy().unwrap(), 0);
    assert_eq!(home.corrections().len(), 2);
}

#[test]
fn corrections_go_at_their_age_across_restarts() {
    let device = Device::new();
    let home = device.start_with(1);
    for _ in 0..89 {
        device.clocks.pass(DAY);
        home.tidy().unwrap();
    }
    add(&home, 1..2);
    let home = device.start();
    device.clocks.pass(92 * DAY);
    assert_eq!(home.tidy().unwrap(), 1);
    assert_eq!(home.corrections()[0].number, 1);
}

/// The state, which cannot be read from now on.
fn lose_state(device: &Device) -> Vec<u8> {
    let known = device.vault.get("state");
    device.vault.set("state", b"of a newer firmware".to_vec());
    known
}

#[test]
fn a_state_that_cannot_be_read_makes_no_correction_older_or_younger() {
    let device = Device::new();
    // Nobody sets the clock: the time lived alone counts.
    device.clocks.wall.store(90, Ordering::SeqCst);
    let home = device.start_with(0);
    device.clocks.pass(200 * DAY);
    add(&home, 0..2);
    device.clocks.pass(100 * DAY);
    home.tidy().unwrap();
    let known = lose_state(&device);
    let home = device.start();
    assert_eq!(home.tidy().unwrap(), 0);
    device.clocks.pass(DAY);
    add(&home, 2..3);
    home.tidy().unwrap();
    device.vault.set("state-before", known);
    device.start();
    let home = device.start();
    assert_eq!(home.tidy().unwrap(), 0, "they are 101 days old, and new");
    device.clocks.pass(80 * DAY);
    assert_eq!(home.tidy().unwrap(), 2);
    device.clocks.pass(99 * DAY);
    assert_eq!(home.tidy().unwrap(), 0);
    device.clocks.pass(2 * DAY);
    assert_eq!(home.tidy().unwrap(), 1);
}

#[test]
fn a_correction_under_the_number_of_a_deleted_one_keeps_its_own_age() {
    let device = Device::new();
    device.clocks.wall.store(90, Ordering::SeqCst);
    let home = device.start_with(0);
    device.clocks.pass(200 * DAY);
    add(&home, 0..2);
    device.clocks.pass(100 * DAY);
    home.tidy().unwrap();
    home.remove_correction(1).unwrap();
    let known = lose_state(&device);
    add(&device.start(), 2..3);
    device.vault.set("state-before", known);
    let home = device.start();
    device.clocks.pass(81 * DAY);
    assert_eq!(home.tidy().unwrap(), 1);
    assert_eq!(home.corrections()[0].number, 1, "it is 81 days old");
}

#[test]
fn the_program_before_reads_the_state_after_an_update_that_is_taken_back() {
    // All that it knows; a state with anything else it takes for damaged.
    const KNOWN: [&str; 14] = [
        "format",
        "next_correction",
        "next_head",
        "learnt_up_to",
        "lived",
        "last_nightly",
        "heads",
        "run",
        "report",
        "example_milliseconds",
        "second_look",
        "overdue",
        "overdue_wall",
        "list_lost",
    ];
    let mut device = Device::new();
    let window = NightlyWindow { start: 0, length: 1440 };
    device.options.triggers =
        Triggers { corrections: None, nightly: Some(window), inferences: None };
    device.clocks.wall.store(20_834 * DAY + 1_439 * 60, Ordering::SeqCst);
    device.start_with(3);
    // As it left it: a state, and no more.
    device.vault.files.lock().unwrap().remove("state-further");
    let left = device.vault.get("state");
    drop(device.household());
    assert!(device.vault.get("state") == left, "a start changes nothing");
    let home = device.start();
    add(&home, 3..10);
    train(&home);
    home.tidy().unwrap();
    let read = |name: &str| -> serde_json::Value {
        let plain = vault(&device.vault, &device.keys, None).get(name).unwrap().unwrap();
        serde_json::from_slice(&plain).unwrap()
    };
    let (state, further) = (read("state"), read("state-further"));
    for field in state.as_object().unwrap().keys() {
        assert!(KNOWN.contains(&field.as_str()), "{field}");
    }
    assert_eq!(state["heads"].as_array().unwrap().len(), 1);
    assert_eq!(further["agreed_age"], 180 * DAY);
    assert_eq!(further["last_nightly_at"], 20_834 * DAY + 1_439 * 60);
}

#[test]
fn what_was_agreed_to_counts_again_after_a_start_with_the_right_credential() {
    let mut device = Device::new();
    let secret = Some(b"sealed to this machine's TPM".to_vec());
    device.credential = secret.clone();
    device.start_with(1);
    device.options.limits.age = Duration::from_secs(3650 * DAY);
    device.credential = None;
    let home = device.start();
    assert_eq!(home.usage().limits.age.as_secs(), 3650 * DAY, "nobody can tell");
    device.credential = secret;
    for _ in 0..2 {
        assert_eq!(device.start().usage().limits.age.as_secs(), 180 * DAY);
        assert!(!device.vault.files.lock().unwrap().contains_key("state-further-before"));
    }
}

#[test]
fn a_lost_state_keeps_no_correction_for_much_longer() {
    let device = Device::new();
    device.clocks.wall.store(90, Ordering::SeqCst);
    let home = device.start_with(1);
    device.clocks.pass(170 * DAY);
    add(&home, 1..2);
    device.vault.set("state", b"scribble".to_vec());
    let home = device.start();
    device.clocks.pass(11 * DAY);
    assert_eq!(home.tidy().unwrap(), 1, "what the newest one knows of the time before counts");
}

#[test]
fn pictures_are_kept_for_as_long_as_was_agreed_to_whatever_is_set_later() {
    let mut device = Device::new();
    let days = |home: &home::Home| home.usage().limits.age.as_secs() / DAY;
    device.start_with(1);
    device.options.limits.age = Duration::from_secs(3650 * DAY);
    let home = device.start();
    assert_eq!(days(&home), 180);
    device.clocks.pass(181 * DAY);
    assert_eq!(home.tidy().unwrap(), 1);
    assert_eq!(days(&home), 3650, "nothing is left for which less was agreed to");
    // Agreed to anew.
    agree(&home);
    add(&home, 1..2);
    assert_eq!(days(&device.start()), 3650);
    device.options.limits.age = Duration::from_secs(7 * DAY);
    assert_eq!(days(&device.start()), 7);
    device.options.limits.age = Duration::from_secs(3650 * DAY);
    let home = device.start();
    assert_eq!(days(&home), 7, "it was said to be less");
    agree(&home);
    assert_eq!(days(&device.start()), 3650);
}

#[test]
fn a_mirror_that_was_off_for_a_year_deletes_after_a_week_on() {
    let device = Device::new();
    device.start_with(1);
    device.clocks.wall.fetch_add(400 * DAY, Ordering::SeqCst);
    let home = device.start();
    assert_eq!(home.tidy().unwrap(), 0);
    device.clocks.pass(4 * DAY);
    home.tidy().unwrap();
    let home = device.start();
    device.clocks.pass(4 * DAY);
    assert_eq!(home.tidy().unwrap(), 1);
}

/// The day on which a mirror that is on for so many looks of so many seconds a day, and then loses its power, deletes its picture.
fn day_of_deletion(looks: u64, seconds: u64) -> u64 {
    let device = Device::new();
    device.start_with(1);
    day_of_deletion_on(&device, looks, seconds)
}

fn day_of_deletion_on(device: &Device, looks: u64, seconds: u64) -> u64 {
    for day in 0..=180 {
        let home = device.start();
        let look = |_| {
            device.clocks.pass(seconds);
            home.tidy().unwrap()
        };
        if (0..looks).map(look).sum::<u64>() == 1 {
            return day;
        }
        device.clocks.wall.fetch_add(DAY - looks * seconds, Ordering::SeqCst);
    }
    panic!("it is there still");
}

#[test]
fn a_mirror_that_is_on_for_half_an_hour_a_day_keeps_no_picture_beyond_its_age() {
    let day = day_of_deletion(1, 1_800);
    assert!((174..=180).contains(&day), "deleted on day {day}");
}

#[test]
fn a_mirror_that_its_socket_switches_off_after_ten_minutes_keeps_no_picture_beyond_its_age() {
    let day = day_of_deletion(10, 60);
    assert!((174..=180).contains(&day), "deleted on day {day}");
}

#[test]
fn a_mirror_that_is_seldom_on_keeps_no_picture_beyond_its_age_whatever_its_clock_said_when_it_was_saved()
 {
    for ahead in [None, Some(90), Some(3_650)] {
        let device = Device::new();
        let today = device.clocks.wall.load(Ordering::SeqCst);
        let saved_at = ahead.map_or(90, |days| today + days * DAY);
        device.clocks.wall.store(saved_at, Ordering::SeqCst);
        device.start_with(1);
        device.clocks.wall.store(today, Ordering::SeqCst);
        let day = day_of_deletion_on(&device, 1, 1_800);
        assert!((174..=180).contains(&day), "{ahead:?}: deleted on day {day}");
    }
}

#[test]
fn a_clock_that_is_put_back_for_some_days_deletes_nothing() {
    let device = Device::new();
    let home = device.start_with(1);
    let today = device.clocks.wall.load(Ordering::SeqCst);
    device.clocks.wall.store(today - 300 * DAY, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(home.tidy().unwrap(), 0);
        device.clocks.pass(DAY);
    }
    device.clocks.wall.store(today + 3 * DAY, Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(home.tidy().unwrap(), 0);
        device.clocks.pass(DAY);
    }
}

#[test]
fn a_clock_that_is_wrong_for_some_looks_dates_no_picture() {
    for ahead in [None, Some(0), Some(30)] {
        let device = Device::new();
        let wall = &device.clocks.wall;
        let today = wall.load(Ordering::SeqCst);
        wall.store(ahead.map_or(90, |days| today + days * DAY), Ordering::SeqCst);
        device.start_with(1);
        wall.store(today, Ordering::SeqCst);
        for _ in 0..2 {
            let right = wall.load(Ordering::SeqCst);
            let home = device.start();
            for days in [300, 200] {
                wall.store(right - days * DAY, Ordering::SeqCst);
                assert_eq!(home.tidy().unwrap(), 0);
            }
            wall.store(right, Ordering::SeqCst);
            for _ in 0..3 {
                assert_eq!(home.tidy().unwrap(), 0);
                device.clocks.pass(3_600);
            }
        }
        let day = day_of_deletion_on(&device, 1, 1_800);
        assert!((173..=180).contains(&day), "{ahead:?}: deleted on day {day}");
    }
}

#[test]
fn most_of_a_short_time_on_is_kept_over_a_power_cut_and_a_long_one_spares_the_disk() {
    let device = Device::new();
    let home = device.start_with(1);
    let writes = |home: &home::Home, minutes: u64| {
        let saved = |_| {
            let before = device.vault.get("state");
            device.clocks.pass(60);
            home.tidy().unwrap();
            u64::from(device.vault.get("state") != before)
        };
        (0..minutes).map(saved).sum::<u64>()
    };
    assert_eq!(writes(&home, 10), 4, "after 1, 2, 4 and 8 minutes");
    assert!((95..=100).contains(&writes(&home, 24 * 60)));
}

#[test]
fn a_clock_that_is_not_set_at_every_start_delays_no_deletion() {
    let device = Device::new();
    device.start_with(1);
    device.clocks.wall.fetch_add(200 * DAY, Ordering::SeqCst);
    let mut deleted = 0;
    for _ in 0..9 {
        let today = device.clocks.wall.swap(90, Ordering::SeqCst);
        let home = device.start();
        assert_eq!(home.tidy().unwrap(), 0, "no clock, no date");
        device.clocks.wall.store(today, Ordering::SeqCst);
        device.clocks.pass(1_800);
        deleted += home.tidy().unwrap();
        device.clocks.wall.fetch_add(DAY, Ordering::SeqCst);
    }
    assert_eq!(deleted, 1);
}

#[test]
fn a_correction_from_before_the_clock_was_set_lives_as_long_as_any_other() {
    let device = Device::new();
    // No battery: it is 1970 until a time server answers.
    device.clocks.wall.store(90, Ordering::SeqCst);
    let home = device.start_with(1);
    device.clocks.wall.store(1_800_000_000, Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(home.tidy().unwrap(), 0);
        device.clocks.pass(8 * DAY);
    }
    device.clocks.pass(21 * DAY);
    assert_eq!(home.tidy().unwrap(), 1);
}
