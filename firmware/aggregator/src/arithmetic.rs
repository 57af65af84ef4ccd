//! From a round's average to its candidate: the same few lines for whoever makes it and whoever checks it later.

use learn::averaging::{ServerOptimiser, Step};
use learn::head::{HeadLayout, Subset, numbers};

use crate::engine::EngineError;
use crate::records::{Damaged, Phase, Round};
use crate::store::{Snapshot, StoreError};

/// The base moved by an average: the candidate's bytes, and the velocity after it.
pub fn moved(
    store: &Snapshot,
    layout: &HeadLayout,
    round: &Round,
    average: &[f32],
    step: Step,
) -> Result<(Vec<u8>, Vec<f32>), EngineError> {
    let version = round.task.base_version;
    let base = store.parameters(version)?.ok_or(EngineError::NoModel(version))?;
    let base = stored(&base, layout.subset_len(Subset::Full), || format!("model {version}"))?;
    let subset = round.task.parameters.subset();
    let velocity = velocity_before(store, round)?;
    let mut optimiser = ServerOptimiser::new(step, velocity);
    // Constants are neither read nor kept.
    let mut flat = vec![0.0; layout.len()];
    layout.scatter(Subset::Full, &base, &mut flat);
    let mut values = layout.gather(subset, &flat);
    optimiser.apply(average, &mut values);
    layout.scatter(subset, &values, &mut flat);
    Ok((bytes_of(&layout.gather(Subset::Full, &flat)), optimiser.velocity().to_vec()))
}

/// The velocity of the published round whose candidate this round starts from; zeros where it starts from anything else. A
/// version that was rolled back would come back with its own.
fn velocity_before(store: &Snapshot, round: &Round) -> Result<Vec<f32>, StoreError> {
    let same = |earlier: &Round| {
        earlier.id < round.id
            && earlier.candidate.as_ref() == Some(&round.task.base)
            && earlier.task.dimension == round.task.dimension
            && matches!(earlier.phase, Phase::Published { .. })
    };
    let zeros = || vec![0.0; round.task.dimension];
    let Some(last) = store.rounds()?.into_iter().rev().find(same) else { return Ok(zeros()) };
    let Some(bytes) = store.meta(&velocity_name(last.id))? else { return Ok(zeros()) };
    let velocity =
        stored(&bytes, round.task.dimension, || format!("velocity of round {}", last.id));
    Ok(velocity?)
}

/// Numbers as they are stored.
pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * values.len());
    numbers::encode_into(&mut bytes, values);
    bytes
}

/// `count` numbers from what is stored under the name `what`.
///
/// # Errors
/// [`Damaged`] where there are more or fewer, or one is not finite.
pub fn stored(
    bytes: &[u8],
    count: usize,
    what: impl FnOnce() -> String,
) -> Result<Vec<f32>, Damaged> {
    numbers::decode(bytes, count)
        .map_err(|error| Damaged { what: what(), reason: format!("it {error}") })
}

/// The name under which a round's velocity is kept.
pub fn velocity_name(round: u64) -> String {
    format!("velocity-{round}")
}
