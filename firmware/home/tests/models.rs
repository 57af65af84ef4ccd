//! Models of the fleet in a household: tried, put in force, kept out of use, given back.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{
    ColourTrunk, Device, HEIGHT, Open, SHAPE, WIDTH, add, agree, base, own_rules, scene, train,
};
use home::vault::Vault;
use home::{Conditions, Gate, Home, ModelTrouble, PublicCheck, Trunk};
use learn::edges::{Entropy, SystemEntropy};
use learn::head::{Features, Network, Subset, TrunkOutput, semantic_labels};

/// Pictures of nobody's household.
fn check() -> PublicCheck {
    PublicCheck { pictures: (1_000..1_004).map(scene).collect() }
}

/// A public check in which `parameters` are right about everything.
fn favouring(parameters: &[f32]) -> PublicCheck {
    let base = base();
    let (pixels, _) = scene(0);
    let [queries, memory_a, memory_b, mask_features] = ColourTrunk::default().run(&pixels).unwrap();
    let outputs = TrunkOutput {
        queries: &queries,
        memory_a: &memory_a,
        memory_b: &memory_b,
        mask_features: &mask_features,
    };
    let features = Features::new(&base.layout, &base.parameters, outputs).unwrap();
    let prediction = Network::new(&base.layout, parameters).unwrap().predict(&features);
    let small = semantic_labels(base.layout.shape(), &prediction);
    // Scores are twice as fine as masks.
    let (rows, columns) = SHAPE.score_size();
    let scale = HEIGHT / rows;
    let place = |at: usize| (at / WIDTH / scale) * columns + at % WIDTH / scale;
    let labels = (0..HEIGHT * WIDTH).map(|at| small[place(at)]).collect();
    PublicCheck { pictures: vec![(pixels, labels)] }
}

fn bytes_of(parameters: &[f32]) -> Vec<u8> {
    let values = base().layout.gather(Subset::Full, parameters);
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// What another household's training would make of the base: much better on these scenes.
fn better() -> Vec<f32> {
    let device = Device::new();
    let home = device.start_with(10);
    train(&home);
    home.head_values().to_vec()
}

/// A small step from the base towards `better`: hardly better than the one, and worse than the other.
fn towards(better: &[f32]) -> Vec<f32> {
    base().parameters.iter().zip(better).map(|(from, to)| from + 0.02 * (to - from)).collect()
}

fn try_model(home: &Home, version: u64, parameters: &[f32]) -> Result<(), ModelTrouble> {
    home.try_model(version, &bytes_of(parameters), &check(), &mut ColourTrunk::default())
}

fn in_use(home: &Home) -> Vec<f32> {
    home.head_values().to_vec()
}

#[test]
fn a_better_model_is_put_in_force_at_once_and_survives_a_restart() {
    let device = Device::new();
    let (home, better) = (device.start(), better());
    let seen = home.head_version();
    try_model(&home, 3, &better).unwrap();
    assert!(in_use(&home) == better && home.head_version() > seen);
    assert_eq!((home.fleet_version(), home.base().digest), (3, base().layout.digest(&better)));
    assert_ne!(home.layout_id(), device_layout(&Device::new().start()));
    drop(home);
    let home = device.start();
    assert!(in_use(&home) == better && home.fleet_version() == 3);
    assert_eq!(home.shipped().digest, base().digest);
}

fn device_layout(home: &Home) -> learn::edges::LayoutId {
    home.layout_id()
}

#[test]
fn a_model_that_fails_the_public_check_changes_nothing() {
    let (device, better) = (Device::new(), better());
    let home = device.start();
    try_model(&home, 1, &better).unwrap();
    let error = try_model(&home, 2, &base().parameters).unwrap_err();
    assert!(matches!(error, ModelTrouble::PublicCheck { version: 2, .. }), "{error}");
    assert!(in_use(&home) == better && home.fleet_version() == 1);
    // An older one, or the same again, is nothing new.
    try_model(&home, 1, &base().parameters).unwrap();
    assert!(in_use(&home) == better);
}

#[test]
fn small_losses_one_after_the_other_do_not_lead_below_the_model_that_the_mirror_came_with() {
    let (home, better) = (Device::new().start(), better());
    try_model(&home, 1, &better).unwrap();
    // No worse than its predecessor, on a check that the shipped model passes best.
    let alike: Vec<f32> = better.iter().map(|value| 1.0001 * value).collect();
    let (bytes, check) = (bytes_of(&alike), favouring(&base().parameters));
    let error = home.try_model(2, &bytes, &check, &mut ColourTrunk::default()).unwrap_err();
    let ModelTrouble::PublicCheck { before, after, .. } = error else { panic!("{error}") };
    assert!(before == 1.0 && after < 0.98, "{before} {after}");
    assert_eq!(home.fleet_version(), 1);
}

#[test]
fn broken_bytes_are_no_model() {
    let home = Device::new().start();
    let mut bytes = bytes_of(&base().parameters);
    bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    for broken in [&bytes[..], &bytes[4..], &bytes[..7], &[]] {
        let error = home.try_model(1, broken, &check(), &mut ColourTrunk::default()).unwrap_err();
        assert!(matches!(error, ModelTrouble::Unusable { version: 1, .. }), "{error}");
    }
    let whole = bytes_of(&better());
    let nothing = PublicCheck::default();
    assert!(home.try_model(1, &whole, &nothing, &mut ColourTrunk::default()).is_err());
    assert_eq!((home.fleet_version(), in_use(&home)), (0, base().parameters));
}

#[test]
fn the_households_own_better_head_stays_in_use_while_the_base_moves() {
    let device = Device::new();
    let home = device.start_with(10);
    train(&home);
    let own = in_use(&home);
    assert!(home.has_candidate());
    let middling = towards(&own);
    let passed =
        home.try_model(1, &bytes_of(&middling), &favouring(&middling), &mut ColourTrunk::default());
    passed.unwrap();
    assert!(in_use(&home) == own, "its own head is better on its own corrections");
    assert_eq!(home.base().digest, base().layout.digest(&middling));
    assert!(!home.has_candidate(), "it belonged to the old base");
    // The next run starts from its own head and belongs to the new base.
    train(&home);
    home.release(&home.token().unwrap(), &own_rules(&home)).unwrap();
}

/// The sealed numbers of the finished run, behind its header.
fn candidate(device: &Device) -> Vec<f32> {
    let entropy = Arc::new(|| Box::new(SystemEntropy) as Box<dyn Entropy>);
    let vault = Vault::new(device.vault.clone(), device.keys.clone(), entropy, None);
    let plain = vault.get("candidate").unwrap().unwrap();
    plain[53..].as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

#[test]
fn what_is_released_is_what_the_run_changed_wherever_it_started() {
    let mut device = Device::new();
    let home = device.start_with(10);
    train(&home);
    let own = in_use(&home);
    let moved: Vec<f32> = own.iter().zip(&base().parameters).map(|(to, from)| to - from).collect();
    assert!(moved.iter().any(|&step| step != 0.0), "a head was adopted");
    assert!(candidate(&device) == base().layout.gather(Subset::Full, &moved));
    // Now the base moves and the household's own head stays in use.
    let middling = towards(&own);
    home.try_model(1, &bytes_of(&middling), &favouring(&middling), &mut ColourTrunk::default())
        .unwrap();
    assert!(in_use(&home) == own);
    device.options.training.learning_rate = 1e-12;
    let home = device.start();
    train(&home);
    let length = candidate(&device).iter().map(|step| step * step).sum::<f32>().sqrt();
    assert!(length < 1e-6, "a run that moves nothing changes nothing: {length}");
    home.release(&home.token().unwrap(), &own_rules(&home)).unwrap();
}

#[test]
fn a_model_that_beats_the_households_head_is_used_and_can_be_undone() {
    let mut device = Device::new();
    (device.options.training.epochs, device.options.training.learning_rate) = (1, 1e-3);
    let (home, better) = (device.start_with(10), better());
    train(&home);
    let own = in_use(&home);
    assert_ne!(own, base().parameters);
    try_model(&home, 7, &better).unwrap();
    assert_eq!(home.heads().last().and_then(|head| head.fleet), Some(7));
    assert!(in_use(&home) == better);
    home.undo_head(home.heads().last().unwrap().number).unwrap();
    assert!(in_use(&home) == own);
}

#[test]
fn a_model_that_is_worse_here_is_not_used_here_and_nobody_learns_of_it() {
    let (device, better) = (Device::new(), better());
    let home = device.start();
    try_model(&home, 1, &better).unwrap();
    agree(&home);
    add(&home, 0..10);
    let worse = base().parameters;
    // Outside it passes: the public check is another matter than this house.
    let passed =
        home.try_model(2, &bytes_of(&worse), &favouring(&worse), &mut ColourTrunk::default());
    passed.unwrap();
    assert_eq!(home.base().digest, base().layout.digest(&worse), "the base moves all the same");
    let kept = home.heads().last().cloned();
    assert_eq!(kept.and_then(|head| head.fleet), Some(1));
    assert!(in_use(&home) == better);
}

#[test]
fn no_more_than_forty_corrections_judge_a_model() {
    let mut device = Device::new();
    device.options.limits.corrections = 300;
    let (home, middling) = (device.start_with(215), towards(&better()));
    let held_back = home.corrections().iter().filter(|entry| entry.held_back).count();
    assert!(held_back > 40, "{held_back}");
    let mut trunk = ColourTrunk::default();
    home.try_model(1, &bytes_of(&middling), &favouring(&middling), &mut trunk).unwrap();
    assert_eq!(trunk.runs, 1 + 40);
}

#[test]
fn later_corrections_send_a_worse_model_back() {
    let (device, better) = (Device::new(), better());
    let home = device.start();
    try_model(&home, 1, &better).unwrap();
    let worse = base().parameters;
    home.try_model(2, &bytes_of(&worse), &favouring(&worse), &mut ColourTrunk::default()).unwrap();
    assert!(in_use(&home) == worse, "nothing was there to judge by");
    agree(&home);
    let look = |home: &Home| home.look_again(&mut ColourTrunk::default(), &Open).unwrap();
    add(&home, 0..2);
    assert_eq!(look(&home), None, "two corrections are not enough");
    add(&home, 2..4);
    assert_eq!(look(&home), Some(1));
    assert!(in_use(&home) == better && home.fleet_version() == 2);
    assert_eq!(look(&home), None, "once");
    drop(home);
    assert!(in_use(&device.start()) == better);
}

/// With a model of the fleet in force that is worse here than its predecessor of version 1, and four corrections that say so.
fn regretting(device: &Device) -> (Home, Vec<f32>) {
    let (home, better, worse) = (device.start(), better(), base().parameters);
    try_model(&home, 1, &better).unwrap();
    home.try_model(2, &bytes_of(&worse), &favouring(&worse), &mut ColourTrunk::default()).unwrap();
    // Before anybody corrected anything there is no key, and nothing on the disk of a look to come.
    drop(home);
    let home = device.start();
    agree(&home);
    add(&home, 0..4);
    (home, better)
}

/// Lets anybody compute, and stops whoever asks.
struct Stopping(Arc<AtomicBool>);

impl Gate for Stopping {
    fn conditions(&self) -> Conditions {
        self.0.store(true, Ordering::SeqCst);
        Conditions::IDLE
    }
}

#[test]
fn the_trainers_thread_takes_the_second_look() {
    let (home, better) = regretting(&Device::new());
    let stop = Arc::new(AtomicBool::new(false));
    home.serve(&mut ColourTrunk::default(), &Stopping(Arc::clone(&stop)), &stop);
    assert!(in_use(&home) == better);
    assert_eq!(home.heads().last().and_then(|head| head.fleet), Some(1));
}

#[test]
fn a_second_look_that_everything_was_deleted_under_says_nothing_and_makes_no_key() {
    let device = Device::new();
    let home = Arc::new(regretting(&device).0);
    let deleting = Arc::clone(&home);
    let mut trunk = ColourTrunk::calling(move |runs| {
        if runs == 1 {
            assert!(deleting.delete_everything().unwrap().is_complete());
        }
    });
    assert_eq!(home.look_again(&mut trunk, &Open).unwrap(), None);
    assert!(trunk.runs > 1, "it looked");
    assert!(device.keys.files.lock().unwrap().is_empty());
    assert!(device.vault.files.lock().unwrap().is_empty());
}

#[test]
fn a_head_of_the_households_own_is_not_judged_by_a_second_look() {
    let home = Device::new().start_with(10);
    train(&home);
    let own = in_use(&home);
    let middling = towards(&own);
    home.try_model(1, &bytes_of(&middling), &favouring(&middling), &mut ColourTrunk::default())
        .unwrap();
    assert!(in_use(&home) == own);
    // Corrections by which the model before it is right about everything.
    let shipped = favouring(&base().parameters);
    let (pixels, mask) = &shipped.pictures[0];
    for _ in 0..4 {
        home.add_correction(&home.token().unwrap(), pixels, mask).unwrap();
    }
    assert_eq!(home.look_again(&mut ColourTrunk::default(), &Open).unwrap(), None);
    assert!(in_use(&home) == own);
}

#[test]
fn a_trial_that_everything_was_deleted_under_makes_no_key() {
    let (device, better) = (Device::new(), better());
    let home = Arc::new(device.start_with(4));
    let deleting = Arc::clone(&home);
    let mut trunk = ColourTrunk::calling(move |runs| {
        if runs == 1 {
            assert!(deleting.delete_everything().unwrap().is_complete());
        }
    });
    home.try_model(1, &bytes_of(&better), &check(), &mut trunk).unwrap();
    assert_eq!(home.fleet_version(), 1);
    assert!(device.keys.files.lock().unwrap().is_empty());
    assert!(device.vault.files.lock().unwrap().is_empty());
    home.leave_fleet().unwrap();
    assert!(device.keys.files.lock().unwrap().is_empty());
}

#[test]
fn a_trial_that_ends_after_a_newer_one_changes_nothing() {
    let better = better();
    for (inner, outer) in [(3, 2), (1, 1)] {
        let device = Device::new();
        let home = Arc::new(device.start());
        let (other, parameters) = (Arc::clone(&home), better.clone());
        let mut trunk = ColourTrunk::calling(move |runs| {
            if runs == 1 {
                try_model(&other, inner, &parameters).unwrap();
            }
        });
        let middling = towards(&better);
        home.try_model(outer, &bytes_of(&middling), &check(), &mut trunk).unwrap();
        assert!(home.fleet_version() == inner && in_use(&home) == better);
        assert_eq!(device.models.get("models")[36], 1, "the shipped one is its predecessor");
    }
}

#[test]
fn a_full_disk_leaves_the_old_model_in_force() {
    let (device, better) = (Device::new(), better());
    let home = device.start();
    device.models.set_room(Some(10));
    assert!(matches!(try_model(&home, 1, &better), Err(ModelTrouble::Home(_))));
    assert!(in_use(&home) == base().parameters && home.fleet_version() == 0);
    device.models.set_room(None);
    try_model(&home, 1, &better).unwrap();
    assert!(in_use(&home) == better);
}

#[test]
fn a_full_disk_behind_a_chosen_model_leaves_the_list_and_the_glass_alike() {
    let mut device = Device::new();
    (device.options.training.epochs, device.options.training.learning_rate) = (1, 1e-3);
    let (home, better) = (device.start_with(10), better());
    train(&home);
    device.models.set_room(Some(10));
    for _ in 0..3 {
        assert!(matches!(try_model(&home, 7, &better), Err(ModelTrouble::Home(_))));
        let fleets: Vec<Option<u64>> = home.heads().iter().map(|head| head.fleet).collect();
        assert_eq!(fleets, [None, Some(7)], "what is tried again is chosen once");
        assert!(in_use(&home) == better);
    }
    device.models.set_room(None);
    try_model(&home, 7, &better).unwrap();
    assert!(in_use(&home) == better && home.heads().len() == 2);
}

#[test]
fn what_was_said_of_a_head_that_was_undone_meanwhile_counts_for_nothing() {
    let device = Device::new();
    let home = Arc::new(device.start_with(10));
    train(&home);
    let middling = towards(&in_use(&home));
    let undoer = Arc::clone(&home);
    // The first picture is the public check's.
    let mut trunk = ColourTrunk::calling(move |runs| {
        if runs == 2 {
            undoer.undo_head(0).unwrap();
        }
    });
    home.try_model(1, &bytes_of(&middling), &favouring(&middling), &mut trunk).unwrap();
    assert!(home.heads().is_empty(), "nobody compared the old base");
    assert!(in_use(&home) == middling);
}

#[test]
fn a_damaged_file_means_the_model_that_the_mirror_came_with() {
    let (device, better) = (Device::new(), better());
    try_model(&device.start(), 1, &better).unwrap();
    let mut bytes = device.models.get("models");
    for at in [0, 4, 36, 60, bytes.len() - 1] {
        bytes[at] ^= 1;
        device.models.set("models", bytes.clone());
        let home = device.start();
        assert!(in_use(&home) == base().parameters && home.all_problems()[0].contains("model"));
        bytes[at] ^= 1;
    }
    device.models.set("models", bytes);
    assert!(in_use(&device.start()) == better);
}

#[test]
fn deleting_everything_keeps_the_fleets_model() {
    let (device, better) = (Device::new(), better());
    let home = device.start_with(4);
    try_model(&home, 1, &better).unwrap();
    let proof = home.delete_everything().unwrap();
    assert!(proof.is_complete());
    assert!(proof.left.iter().any(|file| file.name == "models/models"));
    assert!(in_use(&home) == better);
}

#[test]
fn a_mirror_that_leaves_its_fleet_runs_what_it_came_with_and_takes_the_next_ones_first_version() {
    let (device, better) = (Device::new(), better());
    let home = device.start();
    try_model(&home, 12, &better).unwrap();
    agree(&home);
    add(&home, 0..10);
    let worse = base().parameters;
    home.try_model(13, &bytes_of(&worse), &favouring(&worse), &mut ColourTrunk::default()).unwrap();
    assert_eq!(home.heads().last().and_then(|head| head.fleet), Some(12), "it is in use");
    device.vault.set_room(Some(0));
    home.leave_fleet().unwrap_err();
    assert_eq!((home.fleet_version(), home.heads().len()), (13, 1), "nothing is done by halves");
    device.vault.set_room(None);
    let seen = home.head_version();
    home.leave_fleet().unwrap();
    assert!(home.heads().is_empty() && home.head_version() > seen);
    assert_eq!((home.fleet_version(), home.base().digest), (0, base().digest));
    assert!(in_use(&home) == base().parameters);
    home.leave_fleet().unwrap();
    drop(home);
    let home = device.start();
    assert!(home.all_problems().is_empty() && home.fleet_version() == 0);
    try_model(&home, 1, &better).unwrap();
    assert!(home.fleet_version() == 1 && in_use(&home) == better);
}

#[test]
fn a_head_of_the_households_own_outlives_the_fleet() {
    let device = Device::new();
    let home = device.start_with(10);
    train(&home);
    let own = in_use(&home);
    let middling = towards(&own);
    home.try_model(4, &bytes_of(&middling), &favouring(&middling), &mut ColourTrunk::default())
        .unwrap();
    train(&home);
    let own = in_use(&home);
    home.leave_fleet().unwrap();
    assert!(in_use(&home) == own && !home.has_candidate());
    assert_eq!((home.fleet_version(), home.base().digest), (0, base().digest));
}

#[test]
fn a_model_that_cannot_be_stored_leaves_the_finished_run_to_the_round() {
    let (device, better) = (Device::new(), better());
    let home = device.start_with(6);
    train(&home);
    device.models.set_room(Some(0));
    assert!(matches!(try_model(&home, 3, &better), Err(ModelTrouble::Home(_))));
    assert!(home.fleet_version() == 0 && home.has_candidate());
    device.models.set_room(None);
    try_model(&home, 3, &better).unwrap();
    assert!(home.fleet_version() == 3 && !home.has_candidate(), "it is of the model before");
}
