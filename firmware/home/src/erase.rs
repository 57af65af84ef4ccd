//! "Delete everything", and the proof that it did.

use std::path::PathBuf;
use std::sync::Arc;

use learn::consent::{CONSENT_NAME, PurposeKind};
use learn::edges::{EdgeError, Storage};
use learn::fs;
use learn::ledger::LEDGER_NAME;
use serde::Serialize;

use crate::error::HomeError;
use crate::hold::hold;
use crate::household::Household;

/// A file that stays, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftFile {
    /// Store and name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Why it stays.
    pub why: &'static str,
}

/// A folder of the mirror's with nothing learnt in it, which is no store: left as it is, and listed, so that every file that
/// stays of learning is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// What stands before its files' names.
    pub name: &'static str,
    /// Where it lies; it may not exist.
    pub folder: PathBuf,
    /// Why its files stay.
    pub why: &'static str,
}

impl Beside {
    fn files(&self) -> Result<Vec<LeftFile>, EdgeError> {
        let left = |(file, bytes)| LeftFile {
            name: format!("{}/{file}", self.name),
            bytes,
            why: self.why,
        };
        Ok(fs::list(&self.folder)?.into_iter().map(left).collect())
    }
}

/// What was there and what is left, read anew from the stores after deleting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErasureProof {
    /// Files that were removed.
    pub removed: Vec<String>,
    /// Files that are left, with the reason of each.
    pub left: Vec<LeftFile>,
    /// Files that should be gone and are not; empty in a proof.
    pub remaining: Vec<String>,
    /// The vault's key is gone, so that copies of sealed files are unreadable too.
    pub key_erased: bool,
    /// Updates that had been sent before and cannot be called back; `None` where the ledger is damaged and cannot tell.
    pub already_sent: Option<u64>,
    /// Updates that were given up, now or before; whether one of them had reached the fleet nobody here knows.
    pub given_up: Option<u64>,
}

impl ErasureProof {
    /// Whether everything is gone that should be.
    pub fn is_complete(&self) -> bool {
        self.remaining.is_empty() && self.key_erased
    }
}

const LEDGER_STAYS: &str =
    "the record of privacy already spent: without it the budget could be spent again";
pub(crate) const COUNTER_STAYS: &str =
    "the number of the ledger's records: without it an older ledger could be put back unnoticed";
const CONSENT_STAYS: &str = "the record that no consent is in force";
const MODELS_STAY: &str = "the fleet's models, the same in every house";

impl Household {
    /// Withdraws every consent and removes corrections, heads, checkpoints, waiting updates and the key. The privacy
    /// ledger stays, because what was sent cannot be unsent; the proof names every other file that stays, too. One deletion waits for
    /// another.
    ///
    /// # Errors
    /// The first one of the stores. All the rest is deleted even then; calling again goes on.
    pub fn delete_everything(&self) -> Result<ErasureProof, HomeError> {
        let _deleting = hold(&self.deleting);
        let before = self.files();
        // Consent first, so that no thread writes any more; then the key, so that a power cut leaves nothing readable.
        let stopped = self.consents.withdraw_all();
        if let Err(error) = self.vault.begin_deletion() {
            tracing::warn!(%error, "after a power cut in this deletion it has to be asked for once more");
        }
        let key = self.erase_key();
        let withdrawal = self.withdraw(PurposeKind::ContributeToFleet);
        let forgotten = self.forget_all();
        // Only now: a full disk or one bad block keeps nothing from being deleted.
        stopped?;
        key?;
        let (before, withdrawal) = (before?, withdrawal?);
        forgotten?;
        let (mut left, mut remaining) = (Vec::new(), Vec::new());
        for (store, name, bytes) in self.files()? {
            match why_it_stays(store, &name) {
                Some(why) => left.push(LeftFile { name: format!("{store}/{name}"), bytes, why }),
                None => remaining.push(format!("{store}/{name}")),
            }
        }
        for beside in &self.stores.beside {
            left.extend(beside.files()?);
        }
        let still = |path: &String| left.iter().any(|file| file.name == *path);
        let removed = before.iter().map(|(store, name, _)| format!("{store}/{name}"));
        let proof = ErasureProof {
            removed: removed.filter(|path| !still(path) && !remaining.contains(path)).collect(),
            key_erased: self.stores.keys.everything()?.is_empty(),
            left,
            remaining,
            already_sent: withdrawal.already_sent,
            given_up: withdrawal.given_up.map(|before| before + withdrawal.discarded),
        };
        if proof.is_complete() {
            self.forget_problems();
        }
        Ok(proof)
    }

    /// Every file of every store, also under names that are none of a store's: store, name, bytes.
    fn files(&self) -> Result<Vec<(&'static str, String, u64)>, EdgeError> {
        let mut files = Vec::new();
        for (label, store) in self.labelled_stores() {
            for name in store.everything()? {
                // A file that cannot be measured is there all the same.
                let bytes = store.size(&name).unwrap_or(0);
                files.push((label, name, bytes));
            }
        }
        Ok(files)
    }

    fn labelled_stores(&self) -> [(&'static str, &Arc<dyn Storage>); 6] {
        let stores = &self.stores;
        [
            ("vault", &stores.vault),
            ("keys", &stores.keys),
            ("outbox", &stores.outbox),
            ("privacy", &stores.ledger),
            ("consent", &stores.consent),
            ("models", &stores.models),
        ]
    }
}

fn why_it_stays(store: &str, name: &str) -> Option<&'static str> {
    match (store, name) {
        ("privacy", LEDGER_NAME) => Some(LEDGER_STAYS),
        ("consent", CONSENT_NAME) => Some(CONSENT_STAYS),
        ("models", _) => Some(MODELS_STAY),
        _ => None,
    }
}
