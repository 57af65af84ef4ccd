//! Training runs: they learn, stop, resume, and take no step without consent.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::sync::Arc;

use common::head::{Case, STUDENT};
use common::{MemoryStore, TEXT_VERSION, TestClock};
use learn::consent::{ConsentToken, Consents, ImproveMyMirror, PurposeKind};
use learn::edges::{EdgeError, LayoutId, RunId, Sealer};
use learn::head::{
    Confusion, Features, HeadShape, Network, Subset, Target, TrainError, Trainer, TrainingSettings,
    semantic_labels, should_adopt,
};
use learn::privacy::Delta;
use zeroize::Zeroizing;

const MEDIUM: HeadShape =
    HeadShape { queries: 12, dim: 32, hidden: 64, mask_height: 32, mask_width: 24 };

/// Reverses the bytes and adds a byte: enough to see that nothing else is written.
struct Backwards;

impl Sealer for Backwards {
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, EdgeError> {
        Ok(plain.iter().rev().copied().chain([7]).collect())
    }

    fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EdgeError> {
        match sealed.split_last() {
            Some((7, plain)) => Ok(Zeroizing::new(plain.iter().rev().copied().collect())),
            _ => Err(EdgeError::Seal("changed".to_owned())),
        }
    }
}

fn consents() -> Consents {
    let clock = Arc::new(TestClock::default());
    let consents = Consents::open(MemoryStore::new(), clock, [TEXT_VERSION; 2]).unwrap();
    consents.grant(PurposeKind::ImproveMyMirror, TEXT_VERSION).unwrap();
    consents
}

type Picture = (Features<f32>, Target<f32>);

/// Pictures of one household: their own contents, one head.
fn pictures(shape: HeadShape, count: u64) -> (Case, Vec<Picture>) {
    let first = Case::new(shape, 40);
    let pictures = (0..count).map(|index| Case::new(shape, 40 + index).single()).collect();
    (first, pictures)
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn start(
    case: &Case,
    settings: TrainingSettings,
    examples: usize,
    token: &ConsentToken<ImproveMyMirror>,
) -> Trainer {
    let parameters = narrow(&case.parameters);
    Trainer::new(case.layout.clone(), parameters, examples, settings, RunId([5; 16]), token)
        .unwrap()
}

fn run(
    trainer: &mut Trainer,
    pictures: &[Picture],
    token: &ConsentToken<ImproveMyMirror>,
) -> Vec<f32> {
    let mut losses = Vec::new();
    while let Some(index) = trainer.next_example() {
        losses.extend(trainer.train(token, &pictures[index].0, &pictures[index].1).unwrap());
    }
    losses
}

#[test]
fn both_subsets_learn() {
    let consents = consents();
    let token = consents.token().unwrap();
    let (case, pictures) = pictures(MEDIUM, 6);
    for settings in [TrainingSettings::SPARSE, TrainingSettings::FULL] {
        let settings = TrainingSettings { epochs: 20, ..settings };
        let mut trainer = start(&case, settings, pictures.len(), &token);
        let losses = run(&mut trainer, &pictures, &token);
        let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
        let (first, last) = (mean(&losses[..6]), mean(&losses[losses.len() - 6..]));
        assert!(last < 0.98 * first, "{:?}: {first} to {last}", settings.subset);

        let confusion = |parameters: &[f32]| {
            let network = Network::new(&case.layout, parameters).unwrap();
            let mut confusion = Confusion::new();
            for (features, target) in &pictures {
                confusion
                    .add(&target.dominant(), &semantic_labels(&MEDIUM, &network.predict(features)));
            }
            confusion
        };
        let (before, after) =
            (confusion(&narrow(&case.parameters)), confusion(trainer.parameters()));
        assert!(should_adopt(&before, &after));
    }
}

#[test]
fn only_the_subset_moves_and_the_delta_is_its_own() {
    let consents = consents();
    let token = consents.token().unwrap();
    let (case, pictures) = pictures(MEDIUM, 2);
    let mut trainer = start(&case, TrainingSettings::SPARSE, 2, &token);
    let unfinished = trainer.change().unwrap_err();
    assert!(matches!(unfinished, TrainError::Unfinished { done: 0, total: 6 }));
    run(&mut trainer, &pictures, &token);
    assert!(matches!(
        trainer.train(&token, &pictures[0].0, &pictures[0].1),
        Err(TrainError::NoExample)
    ));
    let before = narrow(&case.parameters);
    let mut moved = vec![false; before.len()];
    for range in case.layout.ranges(Subset::Sparse) {
        moved[range].fill(true);
    }
    for (index, (before, after)) in before.iter().zip(trainer.parameters()).enumerate() {
        assert!(before == after || moved[index], "parameter {index} moved");
    }
    let change = trainer.change().unwrap();
    let ends = [&before[..], trainer.parameters()];
    let [start, end] = ends.map(|values| case.layout.gather(Subset::Sparse, values));
    assert!(change.iter().zip(start.iter().zip(&end)).all(|(moved, (a, b))| *moved == b - a));
    assert_eq!(change.len(), case.layout.subset_len(Subset::Sparse));
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let consents = consents();
    let token = consents.token().unwrap();
    let (case, pictures) = pictures(MEDIUM, 4);
    let mut whole = start(&case, TrainingSettings::FULL, 4, &token);
    run(&mut whole, &pictures, &token);

    let mut trainer = start(&case, TrainingSettings::FULL, 4, &token);
    while let Some(index) = trainer.next_example() {
        trainer.train(&token, &pictures[index].0, &pictures[index].1).unwrap();
        let sealed = trainer.seal(&Backwards).unwrap();
        let (layout, parameters) = (case.layout.clone(), narrow(&case.parameters));
        trainer = Trainer::resume(
            layout,
            parameters,
            4,
            TrainingSettings::FULL,
            &sealed,
            &Backwards,
            &token,
        )
        .unwrap();
    }
    assert_eq!(trainer.parameters(), whole.parameters());
    assert_eq!(trainer.run(), whole.run());
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let consents = consents();
    let token = consents.token().unwrap();
    let (case, _) = pictures(MEDIUM, 1);
    let sealed = start(&case, TrainingSettings::FULL, 4, &token).seal(&Backwards).unwrap();
    let resume = |parameters: Vec<f32>, examples, settings, sealed: &[u8]| {
        Trainer::resume(
            case.layout.clone(),
            parameters,
            examples,
            settings,
            sealed,
            &Backwards,
            &token,
        )
        .err()
    };
    let parameters = narrow(&case.parameters);
    assert!(resume(parameters.clone(), 4, TrainingSettings::FULL, &sealed).is_none());
    let mut other = parameters.clone();
    other[0] += 1.0;
    // The last byte but one is the first of the checkpoint.
    let mut changed = sealed.clone();
    let first = changed.len() - 2;
    changed[first] ^= 1;
    let refused = [
        resume(other, 4, TrainingSettings::FULL, &sealed),
        resume(parameters.clone(), 5, TrainingSettings::FULL, &sealed),
        resume(parameters.clone(), 4, TrainingSettings::SPARSE, &sealed),
        resume(parameters.clone(), 4, TrainingSettings::FULL, &changed),
    ];
    assert!(refused.iter().all(|error| error.is_some()), "{refused:?}");
    assert!(resume(parameters, 4, TrainingSettings::FULL, &sealed[..9]).is_some());
}

#[test]
fn no_step_after_a_withdrawal() {
    let consents = consents();
    let token = consents.token().unwrap();
    let (case, pictures) = pictures(MEDIUM, 1);
    let mut trainer = start(&case, TrainingSettings::SPARSE, 1, &token);
    trainer.train(&token, &pictures[0].0, &pictures[0].1).unwrap();
    consents.withdraw(PurposeKind::ImproveMyMirror).unwrap();
    let error = trainer.train(&token, &pictures[0].0, &pictures[0].1).unwrap_err();
    assert!(matches!(error, TrainError::Consent(_)));
}

#[test]
fn a_step_that_is_no_number_is_done_and_moves_nothing() {
    let consents = consents();
    let token = consents.token().unwrap();
    let (case, pictures) = pictures(MEDIUM, 1);
    let start = |parameters: Vec<f32>, learning_rate| {
        let settings = TrainingSettings { learning_rate, ..TrainingSettings::SPARSE };
        let layout = case.layout.clone();
        Trainer::new(layout, parameters, 1, settings, RunId([0; 16]), &token).unwrap()
    };
    let mut parameters = narrow(&case.parameters);
    parameters[10] = f32::NAN;
    let mut broken = start(parameters, 2e-3);
    assert!(run(&mut broken, &pictures, &token).is_empty());
    assert_eq!(broken.progress(), (3, 3));
    assert!(broken.change().unwrap().iter().all(|moved| *moved == 0.0));

    let mut thrown = start(narrow(&case.parameters), f32::MAX);
    assert!(!run(&mut thrown, &pictures, &token).is_empty());
    assert!(thrown.has_diverged());
    let change = thrown.change().unwrap().to_vec();
    assert!(Delta::new(RunId([0; 16]), LayoutId([1; 32]), change).is_ok());
}

#[test]
fn every_epoch_sees_every_picture_once_in_an_order_of_its_own() {
    let consents = consents();
    let token = consents.token().unwrap();
    let (case, pictures) = pictures(common::head::SMALL, 1);
    let mut trainer = start(&case, TrainingSettings::SPARSE, 9, &token);
    let mut seen = Vec::new();
    while let Some(index) = trainer.next_example() {
        seen.push(index);
        trainer.train(&token, &pictures[0].0, &pictures[0].1).unwrap();
    }
    let epochs: Vec<&[usize]> = seen.chunks(9).collect();
    assert_eq!(epochs.len(), 3);
    for epoch in &epochs {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..9).collect::<Vec<_>>());
    }
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
}

#[test]
fn the_students_updates_are_small() {
    let case = Case::new(STUDENT, 1);
    let bytes = |subset| 112 + 2 * case.layout.subset_len(subset);
    assert_eq!((bytes(Subset::Sparse), bytes(Subset::Full)), (11_092, 656_212));
}
