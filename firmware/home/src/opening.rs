//! What a start finds in the stores, and what it makes of what is damaged or was cut short.

use learn::consent::{ConsentError, Consents};
use learn::ledger::Ledger;
use learn::outbox::Outbox;
use learn::release::{ReleaseError, ReleasePath};

use crate::corrections::Corrections;
use crate::edges::Edges;
use crate::error::HomeError;
use crate::heads;
use crate::household::{Shared, Stores};
use crate::options::HomeOptions;
use crate::state::{Further, Lost, STATE_NAME, State};
use crate::vault::Vault;

/// The consents. Where their records are damaged or cannot be read, that is a problem, and none is given.
pub(crate) fn open_consents(
    stores: &Stores,
    edges: &Edges,
    versions: [u32; 2],
    problems: &mut Vec<String>,
) -> Result<Consents, HomeError> {
    let (storage, clock) = (stores.consent.clone(), edges.clock.clone());
    match Consents::open(storage.clone(), clock.clone(), versions) {
        Ok(consents) => Ok(consents),
        Err(error) => {
            problems.push(match error {
                ConsentError::Edge(error) => format!("{error}; every consent is asked for again"),
                error => error.to_string(),
            });
            Ok(Consents::reset(storage, clock, versions)?)
        }
    }
}

/// What the vault has, and whether a deletion was cut short that is still to be finished: what it left is not shown, and gets no new key,
/// and the next start goes on.
pub(crate) fn open_vault(
    vault: &Vault,
    is_nothing_agreed: bool,
    problems: &mut Vec<String>,
) -> Result<(Shared, bool), HomeError> {
    let cut_short = if is_nothing_agreed { finish_deletion(vault) } else { None };
    let Some(cut_short) = cut_short else { return Ok((load(vault, problems)?, false)) };
    problems.push(cut_short);
    let state = started_over(vault, &Corrections::load(vault)?)?;
    Ok((Shared { state, corrections: Corrections::default() }, true))
}

/// "Delete everything" takes the consents and the key first. A power cut that came before the files leaves what nobody can open and
/// nobody agrees to, and the vault's note of it. Gives what a person should know.
fn finish_deletion(vault: &Vault) -> Option<String> {
    // Where nobody can tell, nothing is deleted.
    let is_half_deleted = vault.is_half_deleted().unwrap_or_else(|error| {
        tracing::warn!(%error, "whether a deletion was cut short");
        false
    });
    if !is_half_deleted {
        return None;
    }
    let Err(error) = vault.clear() else {
        tracing::warn!("what was left of a deletion that was cut short is deleted");
        return None;
    };
    Some(format!(
        "what is left of a deletion that was cut short cannot be removed ({error}); delete everything once more"
    ))
}

/// The release path, or why there is none, which is a problem as well.
pub(crate) fn open_releases(
    stores: &Stores,
    edges: &Edges,
    options: &HomeOptions,
    problems: &mut Vec<String>,
) -> Result<ReleasePath, String> {
    let (storage, counter) = (stores.ledger.clone(), stores.counter.clone());
    let open = || {
        let ledger = Ledger::open(storage, counter, edges.clock.clone(), options.budget)
            .map_err(ReleaseError::from)?
            .with_most_releases(options.most_releases());
        let outbox = Outbox::new(stores.outbox.clone(), options.outbox);
        Ok(ReleasePath::open(ledger, outbox, (edges.entropy)())?)
    };
    let opened: Result<ReleasePath, HomeError> = open();
    opened.map_err(|error| {
        problems.push(error.to_string());
        error.to_string()
    })
}

fn load(vault: &Vault, problems: &mut Vec<String>) -> Result<Shared, HomeError> {
    let mut corrections = Corrections::load(vault)?;
    let state = load_state(vault, &corrections, problems)?;
    for meanwhile in &state.meanwhile {
        let [first, behind] = meanwhile.numbers;
        corrections.put_later(first..behind, meanwhile.later);
    }
    Ok(Shared { state, corrections })
}

fn load_state(
    vault: &Vault,
    corrections: &Corrections,
    problems: &mut Vec<String>,
) -> Result<State, HomeError> {
    // Without it the settings of today count, as they did before there was such a file.
    let further = Further::load(vault).unwrap_or_else(|error| {
        tracing::warn!(%error, "the age at which corrections go");
        None
    });
    let (state, trouble) = match State::load(vault) {
        Ok(state) => (state, None),
        Err(error) => (started_over(vault, corrections)?, Some(error)),
    };
    let state = state.completed_by(further.unwrap_or_default());
    if state.lost.is_some()
        && let Some(before) = State::load_aside(vault)
    {
        // Where this one does not open, heads that it alone names may be left.
        let state = before.joined(state, trouble.is_some());
        // Where there is no room for it the copy stays, and the next start does the same.
        told(state.save(vault).and_then(|()| State::remove_aside(vault)).map_err(HomeError::from));
        return Ok(state);
    }
    match trouble {
        None if state.lost.is_none() => told(State::remove_aside(vault).map_err(HomeError::from)),
        None => {}
        Some(error) => {
            problems.push(format!(
                "{STATE_NAME} cannot be read ({error}); heads and counters start over"
            ));
            told(State::set_aside(vault).map_err(HomeError::from));
        }
    }
    Ok(state)
}

/// A copy that cannot be made, stored or removed keeps no home from being opened.
fn told(result: Result<(), HomeError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "{STATE_NAME} and its copy");
    }
}

/// Numbers above all that have a file, and a time lived that no correction is ahead of.
fn started_over(vault: &Vault, corrections: &Corrections) -> Result<State, HomeError> {
    let last = corrections.list().last().map(|entry| entry.number);
    let head = heads::stored(vault)?.last().copied();
    let next_head = head.map_or(0, |number| number + 1);
    let lived = corrections.newest_lived().unwrap_or(0);
    let next_correction = last.map_or(0, |number| number + 1);
    Ok(State {
        next_correction,
        next_head,
        lived,
        lost: Some(Lost {
            heads_since: Some(next_head),
            lived_since: Some(lived),
            corrections_since: Some(next_correction),
        }),
        ..State::default()
    })
}
