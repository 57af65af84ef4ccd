//! Edges for tests: a memory store that fails on command, a clock that jumps, entropy that runs dry.

#![allow(dead_code)] // every test file uses its own part

pub mod head;

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use learn::consent::{ConsentToken, Consents, ContributeToFleet, PurposeKind};
use learn::edges::{
    Clock, EdgeError, Entropy, LayoutId, MonotonicCounter, RunId, Storage, SystemEntropy, Timestamp,
};
use learn::ledger::{LEDGER_NAME, Ledger, LedgerError};
use learn::outbox::{Outbox, OutboxLimits};
use learn::privacy::{Budget, Clipped, Delta};
use learn::release::ReleasePath;

pub const TEXT_VERSION: u32 = 3;
pub const LAYOUT: LayoutId = LayoutId([9; 32]);

/// Files in memory. `room` bytes may still be written; then the disk is full in mid-write.
#[derive(Default)]
pub struct MemoryStore {
    pub files: Mutex<BTreeMap<String, Vec<u8>>>,
    pub room: Mutex<Option<usize>>,
    /// Nothing can be removed.
    pub stuck: Mutex<bool>,
}

impl MemoryStore {
    pub fn new() -> Arc<MemoryStore> {
        Arc::new(MemoryStore::default())
    }

    pub fn get(&self, name: &str) -> Vec<u8> {
        self.files.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    pub fn set(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(name.to_owned(), bytes);
    }

    pub fn set_room(&self, room: Option<usize>) {
        *self.room.lock().unwrap() = room;
    }

    /// How many of `wanted` bytes fit.
    fn take(&self, wanted: usize) -> usize {
        let mut room = self.room.lock().unwrap();
        let Some(left) = room.as_mut() else { return wanted };
        let taken = wanted.min(*left);
        *left -= taken;
        taken
    }
}

fn full(name: &str) -> EdgeError {
    let source = Error::from(ErrorKind::StorageFull);
    EdgeError::Storage { operation: "write", name: name.to_owned(), source }
}

impl Storage for MemoryStore {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        Ok(self.files.lock().unwrap().get(name).cloned())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        let taken = self.take(bytes.len());
        let mut files = self.files.lock().unwrap();
        files.entry(name.to_owned()).or_default().extend_from_slice(&bytes[..taken]);
        if taken < bytes.len() { Err(full(name)) } else { Ok(()) }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        if self.take(bytes.len()) < bytes.len() {
            return Err(full(name));
        }
        self.set(name, bytes.to_vec());
        Ok(())
    }

    fn truncate(&self, name: &str, length: u64) -> Result<(), EdgeError> {
        self.files.lock().unwrap().entry(name.to_owned()).or_default().truncate(length as usize);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), EdgeError> {
        if *self.stuck.lock().unwrap() {
            let source = Error::from(ErrorKind::ReadOnlyFilesystem);
            return Err(EdgeError::Storage { operation: "remove", name: name.to_owned(), source });
        }
        self.files.lock().unwrap().remove(name);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, EdgeError> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }
}

#[derive(Default)]
pub struct TestClock(pub AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// The value, and whether it can be raised no more.
#[derive(Default)]
pub struct TestCounter(pub AtomicU64, pub AtomicBool);

impl MonotonicCounter for TestCounter {
    fn value(&self) -> Result<Option<u64>, EdgeError> {
        Ok(Some(self.0.load(Ordering::SeqCst)))
    }

    fn raise(&self, value: u64) -> Result<(), EdgeError> {
        if self.1.load(Ordering::SeqCst) && value > self.0.load(Ordering::SeqCst) {
            return Err(EdgeError::Counter("no space left".to_owned()));
        }
        self.0.fetch_max(value, Ordering::SeqCst);
        Ok(())
    }
}

/// Gives real entropy `fills` times, then none.
pub struct DryingEntropy {
    pub fills: u32,
}

impl Entropy for DryingEntropy {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EdgeError> {
        if self.fills == 0 {
            return Err(EdgeError::Entropy("dry".to_owned()));
        }
        self.fills -= 1;
        SystemEntropy.fill(buffer)
    }
}

/// Gives the same bytes for every fill of this length, and notes what was asked for.
#[derive(Clone, Default)]
pub struct FixedEntropy {
    pub key: [u8; 32],
    /// Bytes of each fill, and of the ledger at that moment.
    pub fills: Arc<Mutex<Vec<(usize, usize)>>>,
    pub store: Option<Arc<MemoryStore>>,
}

impl Entropy for FixedEntropy {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EdgeError> {
        let ledger = self.store.as_ref().map(|store| store.read(LEDGER_NAME));
        let written = ledger.transpose()?.flatten().map_or(0, |bytes| bytes.len());
        self.fills.lock().unwrap().push((buffer.len(), written));
        let length = buffer.len().min(self.key.len());
        buffer[..length].copy_from_slice(&self.key[..length]);
        Ok(())
    }
}

/// A device in memory.
pub struct Device {
    pub store: Arc<MemoryStore>,
    pub counter: Arc<TestCounter>,
    pub clock: Arc<TestClock>,
    pub consents: Consents,
}

impl Device {
    pub fn new() -> Device {
        let clock = Arc::new(TestClock::default());
        let consents =
            Consents::open(MemoryStore::new(), clock.clone(), [TEXT_VERSION; 2]).unwrap();
        Device { store: MemoryStore::new(), counter: Arc::default(), clock, consents }
    }

    pub fn ledger(&self) -> Result<Ledger, LedgerError> {
        Ledger::open(self.store.clone(), self.counter.clone(), self.clock.clone(), Budget::DEFAULT)
    }

    pub fn path(&self) -> ReleasePath {
        self.path_with(Box::new(SystemEntropy))
    }

    pub fn path_with(&self, entropy: Box<dyn Entropy>) -> ReleasePath {
        let outbox = Outbox::new(self.store.clone(), OutboxLimits::default());
        ReleasePath::open(self.ledger().unwrap(), outbox, entropy).unwrap()
    }

    pub fn consent(&self) -> ConsentToken<ContributeToFleet> {
        self.consents.grant(PurposeKind::ContributeToFleet, TEXT_VERSION).unwrap();
        self.consents.token().unwrap()
    }
}

/// The delta of run number `run`.
pub fn clipped(run: u8) -> Clipped {
    let values = (0..200).map(|index| (index as f32 - 100.0) / 1000.0).collect();
    Delta::new(RunId([run; 16]), LAYOUT, values).unwrap().clip()
}
