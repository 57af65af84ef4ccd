//! `mirror privacy`: what a plan costs, how much noise a plan needs, and what this mirror has spent.

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use learn::fs::{COUNTER_NAME, decode_counter};
use learn::ledger::{self, LedgerError, RecordKind, Verified};
use learn::privacy::{self, AccountantError, Budget, NoiseMultiplier, PrivacyStatement};
use serde::Serialize;
use serde_json::Value;

use crate::cli::{PrivacyAction, PrivacyArgs, SettingsArgs};
use crate::config;
use crate::learning;
use crate::report::{self, Usage};

/// Answers a question about the privacy budget.
///
/// # Errors
/// A number that no budget can have (exit code 2), a plan beyond reach, a damaged ledger.
pub fn privacy(args: &PrivacyArgs) -> Result<()> {
    match &args.action {
        PrivacyAction::Plan { epsilon, delta, releases, json } => {
            plan(*epsilon, *delta, *releases, *json)
        }
        PrivacyAction::Epsilon { noise_multiplier, releases, sampling_rate, delta, json } => {
            let z = noise_multiplier.parse().map_err(wrong)?;
            cost(z, *sampling_rate, *releases, *delta, *json)
        }
        PrivacyAction::Ledger { verify, json, settings } => show_ledger(*verify, *json, settings),
    }
}

/// Numbers that cannot be used are wrong usage; a plan that does not exist is an answer.
fn wrong(error: impl Into<AccountantError>) -> anyhow::Error {
    match error.into() {
        error @ AccountantError::NoPlan { .. } => error.into(),
        error => Usage(error.to_string()).into(),
    }
}

fn plan(epsilon: f64, delta: f64, releases: u64, json: bool) -> Result<()> {
    let budget = Budget::new(epsilon, delta).map_err(wrong)?;
    let z = privacy::plan(&budget, releases).map_err(wrong)?;
    let statement = privacy::epsilon(z, releases, delta).map_err(wrong)?;
    let text = match json {
        true => as_json(&statement, &[("target_epsilon", epsilon.into())])?,
        false => format!("noise multiplier {z}\n{statement}\n"),
    };
    Ok(report::print(&text)?)
}

fn cost(z: NoiseMultiplier, rate: f64, releases: u64, delta: f64, json: bool) -> Result<()> {
    privacy::check_noise(z).map_err(wrong)?;
    let statement = privacy::sampled_epsilon(z, rate, releases, delta).map_err(wrong)?;
    let text = if json { as_json(&statement, &[])? } else { format!("{statement}\n") };
    Ok(report::print(&text)?)
}

/// The statement's fields, and `more`.
fn as_json(statement: &PrivacyStatement, more: &[(&str, Value)]) -> Result<String> {
    let mut value = serde_json::to_value(statement)?;
    for (key, what) in more {
        value[*key] = what.clone();
    }
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}

/// Where a mirror with these settings keeps its ledger, and beside it the number of the ledger's records.
fn ledger_paths(settings: &settings::Settings) -> (PathBuf, PathBuf) {
    let learning = config::learning_dir(&config::data_dir(settings.data_dir.as_deref()));
    let ledger = learning.join("privacy").join(ledger::LEDGER_NAME);
    (ledger, learning.join("counter").join(COUNTER_NAME))
}

/// A file's bytes, or `None` where it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(format!("cannot read {}", path.display())),
    }
}

/// One record of the ledger, for programs.
#[derive(Serialize)]
struct Entry {
    sequence: u64,
    /// Seconds since 1970 by the mirror's clock, right or wrong.
    time: u64,
    step: &'static str,
    release: String,
    noise_multiplier: f64,
    dimension: u64,
}

/// Reads a copy of the bytes, without the lock: a running mirror keeps it, and appends whole records.
fn show_ledger(verify: bool, json: bool, args: &SettingsArgs) -> Result<()> {
    let effective = config::load(args, &[])?;
    let (path, counter) = ledger_paths(&effective.settings);
    // The counter first: a running mirror raises it after the record.
    let counted = read(&counter)?.map_or(Ok(0), |bytes| decode_counter(&bytes))?;
    let found = read(&path)?;
    let (there, bytes) = (found.is_some(), found.unwrap_or_default());
    let verified = ledger::verify(&bytes).with_context(|| path.display().to_string())?;
    let records = verified.records.len() as u64;
    if counted > records {
        let rolled_back = LedgerError::RolledBack { found: records, counted };
        return Err(rolled_back).with_context(|| path.display().to_string());
    }
    let learning = &effective.settings.learning;
    let statement = verified.composition().statement(learning.delta).map_err(wrong)?;
    let most = learning::options(learning)?.most_releases();
    let text = match json {
        true => {
            let more = [
                ("target_epsilon", learning.epsilon.into()),
                ("most_releases", most.into()),
                ("ledger", path.display().to_string().into()),
                ("found", there.into()),
                ("head", verified.head().to_string().into()),
                ("verified", true.into()),
                ("records", serde_json::to_value(entries(&verified))?),
            ];
            as_json(&statement, &more)?
        }
        false => {
            let place = where_it_is(&path, there);
            let spent = spent(&verified, &statement, learning.epsilon, most);
            place + &spent + &in_words(&path, &verified, verify)
        }
    };
    Ok(report::print(&text)?)
}

/// Another user's mirror keeps its ledger elsewhere, and an absent one reads as nothing spent.
fn where_it_is(path: &Path, there: bool) -> String {
    let path = path.display();
    if there {
        return format!("ledger: {path}\n");
    }
    format!(
        "there is no ledger at {path}: this mirror has not reserved anything, or keeps its data elsewhere; ask as its user, or \
         name the folder with MIRROR_DATA_DIR\n"
    )
}

fn entries(verified: &Verified) -> Vec<Entry> {
    let entry = |record: &ledger::Record| Entry {
        sequence: record.sequence,
        time: record.time.0,
        step: step(record.kind),
        release: record.release.to_string(),
        noise_multiplier: record.noise_multiplier.as_f64(),
        dimension: record.dimension,
    };
    verified.records.iter().map(entry).collect()
}

fn step(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Reserved => "reserved",
        RecordKind::Sampled => "sampled",
        RecordKind::Persisted => "persisted",
        RecordKind::Published => "published",
        RecordKind::Burnt => "burnt",
    }
}

fn spent(verified: &Verified, statement: &PrivacyStatement, target: f64, most: u64) -> String {
    let releases = verified.composition().release_count();
    format!(
        "spent: {statement}\ntarget: epsilon {target} at the same delta\nreleases: {releases} of at most {most}\n"
    )
}

fn in_words(path: &Path, verified: &Verified, verify: bool) -> String {
    // Writing to a String cannot fail.
    let mut text = String::new();
    for entry in entries(verified) {
        let Entry { sequence, step, release, noise_multiplier, dimension, .. } = entry;
        let _ = writeln!(
            text,
            "{sequence:>4}  {step:9}  release {release}  noise multiplier {noise_multiplier}  {dimension} values"
        );
    }
    if verify {
        let (count, head) = (verified.records.len(), verified.head());
        let _ = writeln!(text, "{}: {count} records, chain intact, head {head}", path.display());
    }
    if verified.torn_bytes > 0 {
        let torn = verified.torn_bytes;
        let _ = writeln!(text, "{torn} bytes at the end were never completely written");
    }
    text
}
