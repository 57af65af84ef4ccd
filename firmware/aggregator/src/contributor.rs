//! A mirror's side of a round, in memory: training with consent, clipping, a reserved release, exact noise.
//!
//! Used by `simulate`, `demo`, benchmarks and tests, so that their updates are made by the very code that mirrors
//! run. Nothing here is part of a server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use learn::consent::{
    ConsentError, ConsentToken, Consents, ContributeToFleet, ImproveMyMirror, PurposeKind,
};
use learn::edges::{EdgeError, LayoutId, NoCounter, RunId, Storage, SystemClock, SystemEntropy};
use learn::head::{HeadLayout, Subset, TrainError, Trainer, TrainingSettings};
use learn::ledger::{Ledger, LedgerError};
use learn::outbox::{Outbox, OutboxLimits};
use learn::privacy::{AccountantError, Budget, Delta, MechanismError, NoiseMultiplier};
use learn::release::{ReleaseError, ReleasePath};

use crate::engine::DELTA;
use crate::student::Example;

/// Version of the consent text; simulated owners have read any.
const TEXT_VERSION: u32 = 1;

/// Why a simulated mirror made no update.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ContributorError {
    #[error(transparent)]
    Consent(#[from] ConsentError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Mechanism(#[from] MechanismError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error(transparent)]
    Accountant(#[from] AccountantError),
    #[error(transparent)]
    Edge(#[from] EdgeError),
}

/// Files in memory.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl Memory {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for Memory {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        Ok(self.with(|files| files.get(name).cloned()))
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        self.with(|files| files.entry(name.to_owned()).or_default().extend_from_slice(bytes));
        Ok(())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        self.with(|files| files.insert(name.to_owned(), bytes.to_vec()));
        Ok(())
    }

    fn truncate(&self, name: &str, length: u64) -> Result<(), EdgeError> {
        self.with(|files| files.entry(name.to_owned()).or_default().truncate(length as usize));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), EdgeError> {
        self.with(|files| files.remove(name));
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, EdgeError> {
        Ok(self.with(|files| files.keys().cloned().collect()))
    }
}

/// A budget into which so many releases of this noise fit, whatever they cost.
///
/// # Errors
/// Where that cannot be stated as an epsilon.
pub fn budget_of(noise: NoiseMultiplier, releases: u64) -> Result<Budget, AccountantError> {
    let cost = learn::privacy::epsilon(noise, releases, DELTA)?;
    Budget::new(cost.epsilon() * 1.01 + 0.01, DELTA)
}

/// How a mirror trains these numbers.
pub fn settings_of(subset: Subset) -> TrainingSettings {
    match subset {
        Subset::Sparse => TrainingSettings::SPARSE,
        Subset::Full => TrainingSettings::FULL,
    }
}

/// A simulated owner, who has agreed to everything.
pub struct Contributor {
    train: ConsentToken<ImproveMyMirror>,
    contribute: ConsentToken<ContributeToFleet>,
    budget: Budget,
}

impl Contributor {
    /// An owner whose ledgers hold `budget`.
    pub fn new(budget: Budget) -> Result<Contributor, ContributorError> {
        let consents =
            Consents::open(Arc::new(Memory::default()), Arc::new(SystemClock), [TEXT_VERSION; 2])?;
        consents.grant(PurposeKind::ImproveMyMirror, TEXT_VERSION)?;
        consents.grant(PurposeKind::ContributeToFleet, TEXT_VERSION)?;
        Ok(Contributor { train: consents.token()?, contribute: consents.token()?, budget })
    }

    /// Trains a head on some corrections and gives its numbers.
    pub fn train(
        &self,
        layout: &HeadLayout,
        parameters: &[f32],
        examples: &[Example],
        settings: TrainingSettings,
    ) -> Result<Vec<f32>, ContributorError> {
        self.train_on(layout, parameters, &examples.iter().collect::<Vec<_>>(), settings)
    }

    /// [`Contributor::train`] on examples that lie apart.
    pub fn train_on(
        &self,
        layout: &HeadLayout,
        parameters: &[f32],
        examples: &[&Example],
        settings: TrainingSettings,
    ) -> Result<Vec<f32>, ContributorError> {
        let run = RunId::random(&mut SystemEntropy)?;
        let mut trainer = Trainer::new(
            layout.clone(),
            parameters.to_vec(),
            examples.len(),
            settings,
            run,
            &self.train,
        )?;
        while let Some(index) = trainer.next_example() {
            trainer.train(&self.train, &examples[index].features, &examples[index].target)?;
        }
        Ok(trainer.parameters().to_vec())
    }

    /// A device that has released nothing yet.
    pub fn device(&self) -> Result<Device, ContributorError> {
        let storage: Arc<Memory> = Arc::default();
        let counter = Arc::new(NoCounter);
        let ledger = Ledger::open(storage.clone(), counter, Arc::new(SystemClock), self.budget)?;
        let outbox = Outbox::new(storage, OutboxLimits::default());
        let path = ReleasePath::open(ledger, outbox, Box::new(SystemEntropy))?;
        Ok(Device { path, contribute: self.contribute.clone() })
    }
}

/// One device's ledger and outbox.
pub struct Device {
    path: ReleasePath,
    contribute: ConsentToken<ContributeToFleet>,
}

impl Device {
    /// Clips, reserves and noises a delta, and gives the bytes that would be sent; they count as published.
    pub fn release(
        &mut self,
        layout: LayoutId,
        delta: Vec<f32>,
        noise: NoiseMultiplier,
    ) -> Result<Vec<u8>, ContributorError> {
        let run = RunId::random(&mut SystemEntropy)?;
        let clipped = Delta::new(run, layout, delta)?.clip();
        let release = self.path.release(clipped, noise, &self.contribute)?;
        let bytes = self.path.bytes(release, &self.contribute)?;
        self.path.published(release)?;
        Ok(bytes)
    }
}
