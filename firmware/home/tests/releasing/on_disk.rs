//! What lies on a real disk, and what a deletion leaves there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use home::{Beside, Home, HomeOptions, vault};
use learn::edges::{Entropy, SystemEntropy};
use learn::head::{CHECKPOINT_MAGIC, Subset};
use learn::ledger::LEDGER_NAME;

use crate::common::{
    ColourTrunk, MemoryStore, Open, QUICK, add, agree, base, begin_training, contains, scene, train,
};
use crate::release;

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
fn an_older_ledger_put_back_on_the_disk_is_noticed_by_the_counter_beside_it() {
    let (folder, home) = sent("rolled-back");
    let ledger = folder.join("privacy").join(LEDGER_NAME);
    let older = fs::read(&ledger).unwrap();
    train(&home);
    release(&home).unwrap();
    drop(home);
    let newer = fs::read(&ledger).unwrap();
    let reason = || {
        let home = Home::open(&folder, base(), on_disk_options()).unwrap();
        home.privacy().err().map(|error| error.to_string()).unwrap_or_default()
    };
    fs::write(&ledger, &older).unwrap();
    assert!(reason().contains("an older copy was put back"), "{}", reason());
    fs::write(&ledger, &newer).unwrap();
    assert_eq!(reason(), "");
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
