//! A mirror in memory: stores that run full, clocks that jump, a small head, and a trunk that sees colours.

#![allow(dead_code)] // every test file uses its own part

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use home::edges::{Edges, Space, Steady};
use home::{
    BaseModel, Conditions, Gate, Home, HomeError, HomeOptions, Household, Outcome, ReleaseRules,
    Stores, Trunk,
};
use learn::consent::PurposeKind;
use learn::edges::{Clock, EdgeError, Entropy, MonotonicCounter, Storage, Timestamp};
use learn::head::{HeadLayout, HeadShape, Subset, TrainingSettings};
use learn::privacy::NoiseMultiplier;
use vision::{GridSize, VisionError};
use zeroize::Zeroizing;

pub const SHAPE: HeadShape =
    HeadShape { queries: 6, dim: 16, hidden: 24, mask_height: 16, mask_width: 12 };
pub const HEIGHT: usize = 64;
pub const WIDTH: usize = 48;

/// Files in memory. `room` bytes may still be written; then the disk is full in mid-write.
#[derive(Default)]
pub struct MemoryStore {
    pub files: Mutex<BTreeMap<String, Vec<u8>>>,
    pub room: Mutex<Option<usize>>,
    /// Names that lie on a bad block, until they are removed or written anew.
    pub unreadable: Mutex<BTreeSet<String>>,
    /// Names that cannot be removed.
    pub stuck: Mutex<BTreeSet<String>>,
    /// So many changes are still taken, of all stores that share it; then each is refused, a removal too.
    pub changes: Arc<Mutex<Option<usize>>>,
}

impl MemoryStore {
    pub fn get(&self, name: &str) -> Vec<u8> {
        self.files.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    pub fn set(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(name.to_owned(), bytes);
    }

    pub fn set_room(&self, room: Option<usize>) {
        *self.room.lock().unwrap() = room;
    }

    pub fn make_unreadable(&self, name: &str) {
        self.unreadable.lock().unwrap().insert(name.to_owned());
    }

    /// Flips a bit in the middle.
    pub fn damage(&self, name: &str) {
        let mut bytes = self.get(name);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        self.set(name, bytes);
    }

    /// One of the same disk.
    pub fn beside(&self) -> Arc<MemoryStore> {
        Arc::new(MemoryStore { changes: self.changes.clone(), ..MemoryStore::default() })
    }

    fn change(&self, operation: &'static str, name: &str) -> Result<(), EdgeError> {
        let mut changes = self.changes.lock().unwrap();
        match changes.as_mut() {
            Some(0) => {
                let source = Error::from(ErrorKind::ReadOnlyFilesystem);
                Err(EdgeError::Storage { operation, name: name.to_owned(), source })
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn fits(&self, name: &str, wanted: usize) -> Result<(), EdgeError> {
        self.change("write", name)?;
        let mut room = self.room.lock().unwrap();
        let Some(left) = room.as_mut() else { return Ok(()) };
        if wanted > *left {
            let source = Error::from(ErrorKind::StorageFull);
            return Err(EdgeError::Storage { operation: "write", name: name.to_owned(), source });
        }
        *left -= wanted;
        Ok(())
    }
}

impl Storage for MemoryStore {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        if self.unreadable.lock().unwrap().contains(name) {
            let source = Error::from_raw_os_error(5); // EIO
            return Err(EdgeError::Storage { operation: "read", name: name.to_owned(), source });
        }
        Ok(self.files.lock().unwrap().get(name).cloned())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        self.fits(name, bytes.len())?;
        self.files.lock().unwrap().entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        self.fits(name, bytes.len())?;
        self.unreadable.lock().unwrap().remove(name);
        self.set(name, bytes.to_vec());
        Ok(())
    }

    fn truncate(&self, name: &str, length: u64) -> Result<(), EdgeError> {
        self.files.lock().unwrap().entry(name.to_owned()).or_default().truncate(length as usize);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), EdgeError> {
        self.change("remove", name)?;
        if self.stuck.lock().unwrap().contains(name) {
            let source = Error::from_raw_os_error(5); // EIO
            return Err(EdgeError::Storage { operation: "remove", name: name.to_owned(), source });
        }
        self.unreadable.lock().unwrap().remove(name);
        self.files.lock().unwrap().remove(name);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, EdgeError> {
        Ok(self.files.lock().unwrap().keys().cloned().collect())
    }
}

#[derive(Default)]
pub struct TestCounter(AtomicU64);

impl MonotonicCounter for TestCounter {
    fn value(&self) -> Result<Option<u64>, EdgeError> {
        Ok(Some(self.0.load(Ordering::SeqCst)))
    }

    fn raise(&self, value: u64) -> Result<(), EdgeError> {
        self.0.fetch_max(value, Ordering::SeqCst);
        Ok(())
    }
}

/// Both clocks, moved by tests alone; sleeping moves the steady one.
#[derive(Default)]
pub struct Clocks {
    pub wall: AtomicU64,
    pub steady: AtomicU64,
    /// Milliseconds of the longest sleep.
    pub longest: AtomicU64,
}

impl Clocks {
    /// Time passes on both clocks.
    pub fn pass(&self, seconds: u64) {
        self.wall.fetch_add(seconds, Ordering::SeqCst);
        self.steady.fetch_add(1_000 * seconds, Ordering::SeqCst);
    }
}

impl Clock for Clocks {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }
}

impl Steady for Clocks {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.steady.load(Ordering::SeqCst))
    }

    fn sleep(&self, time: Duration) {
        let milliseconds = time.as_millis() as u64;
        self.steady.fetch_add(milliseconds, Ordering::SeqCst);
        self.longest.fetch_max(milliseconds, Ordering::SeqCst);
    }
}

pub struct TestSpace(pub AtomicU64);

impl Space for TestSpace {
    fn free(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst))
    }
}

/// The same draws in every run, so that a training ends alike; shared, so that no restart repeats one.
#[derive(Clone)]
pub struct Draws(Arc<Mutex<Random>>);

impl Entropy for Draws {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EdgeError> {
        let mut random = self.0.lock().unwrap();
        buffer.fill_with(|| (random.next() >> 56) as u8);
        Ok(())
    }
}

/// A device whose stores outlive its restarts.
pub struct Device {
    pub vault: Arc<MemoryStore>,
    pub keys: Arc<MemoryStore>,
    pub ledger: Arc<MemoryStore>,
    pub outbox: Arc<MemoryStore>,
    pub consent: Arc<MemoryStore>,
    pub models: Arc<MemoryStore>,
    pub counter: Arc<TestCounter>,
    pub clocks: Arc<Clocks>,
    pub space: Arc<TestSpace>,
    pub draws: Draws,
    pub credential: Option<Vec<u8>>,
    pub options: HomeOptions,
}

impl Device {
    pub fn new() -> Device {
        let clocks = Clocks::default();
        clocks.wall.store(1_800_000_000, Ordering::SeqCst);
        let vault: Arc<MemoryStore> = Arc::default();
        Device {
            keys: vault.beside(),
            ledger: vault.beside(),
            outbox: vault.beside(),
            consent: vault.beside(),
            models: vault.beside(),
            vault,
            counter: Arc::default(),
            clocks: Arc::new(clocks),
            space: Arc::new(TestSpace(AtomicU64::new(1 << 40))),
            draws: Draws(Arc::new(Mutex::new(Random::new(7)))),
            credential: None,
            options: HomeOptions { training: QUICK, at_home: QUICK, ..HomeOptions::default() },
        }
    }

    /// After so many more changes the disk takes none, until this says otherwise.
    pub fn set_changes(&self, left: Option<usize>) {
        *self.vault.changes.lock().unwrap() = left;
    }

    pub fn try_start(&self) -> Result<Home, HomeError> {
        self.try_start_with_base(base())
    }

    pub fn try_start_with_base(&self, base: BaseModel) -> Result<Home, HomeError> {
        Home::new(Arc::new(self.try_open()?), base)
    }

    /// Without a network.
    pub fn household(&self) -> Household {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Household, HomeError> {
        let stores = Stores {
            vault: self.vault.clone(),
            keys: self.keys.clone(),
            ledger: self.ledger.clone(),
            outbox: self.outbox.clone(),
            consent: self.consent.clone(),
            models: self.models.clone(),
            counter: self.counter.clone(),
            credential: self.credential.clone().map(Zeroizing::new),
            beside: vec![],
        };
        let draws = self.draws.clone();
        let edges = Edges {
            clock: self.clocks.clone(),
            steady: self.clocks.clone(),
            entropy: Arc::new(move || Box::new(draws.clone())),
            space: self.space.clone(),
        };
        Household::over_stores(stores, self.options, edges)
    }

    pub fn start(&self) -> Home {
        self.try_start().unwrap()
    }

    /// With both consents and `count` corrections.
    pub fn start_with(&self, count: u64) -> Home {
        let home = self.start();
        agree(&home);
        add(&home, 0..count);
        home
    }

    pub fn stores(&self) -> [&Arc<MemoryStore>; 5] {
        [&self.vault, &self.keys, &self.ledger, &self.outbox, &self.consent]
    }
}

/// Every store of a device, by the name of its folder.
pub fn stores_by_name(device: &Device) -> [(&'static str, &Arc<MemoryStore>); 6] {
    [
        ("vault", &device.vault),
        ("keys", &device.keys),
        ("ledger", &device.ledger),
        ("outbox", &device.outbox),
        ("consent", &device.consent),
        ("models", &device.models),
    ]
}

/// Enough steps that the small head really learns.
pub const QUICK: TrainingSettings =
    TrainingSettings { subset: Subset::Full, epochs: 12, learning_rate: 1e-2, weight_decay: 0.0 };

/// What the device itself would ask of an update.
pub fn own_rules(home: &Home) -> ReleaseRules {
    ReleaseRules {
        layout: home.layout_id(),
        noise_multiplier: home.options().noise_multiplier().unwrap_or(NoiseMultiplier::DEFAULT),
        clip: 1.0,
        max_update_bytes: u32::MAX,
    }
}

pub fn agree(home: &Home) {
    for purpose in [PurposeKind::ImproveMyMirror, PurposeKind::ContributeToFleet] {
        home.grant(purpose, home.explanation().version(purpose)).unwrap();
    }
}

pub fn add(home: &Home, scenes: std::ops::Range<u64>) {
    let consent = home.token().unwrap();
    for index in scenes {
        let (pixels, mask) = scene(index);
        home.add_correction(&consent, &pixels, &mask).unwrap();
    }
}

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// In (-1, 1).
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

/// A picture of this household: a red torso and a yellow face before a blue wall, somewhere.
pub fn scene(index: u64) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random::new(index + 1);
    let (top, left) = (random.next() as usize % 24, random.next() as usize % 20);
    let class = |y: usize, x: usize| {
        let inside = |from: usize, to: usize| (top + from..top + to).contains(&y);
        match (left..left + 20).contains(&x) {
            true if inside(0, 12) => 2,
            true if inside(12, 36) => 3,
            _ => 0,
        }
    };
    let mask: Vec<u8> = (0..HEIGHT * WIDTH).map(|at| class(at / WIDTH, at % WIDTH)).collect();
    let colour = |class: u8| match class {
        2 => [220, 200, 40],
        3 => [200, 30, 30],
        _ => [30, 40, 190],
    };
    let noisy = |value: u8, random: &mut Random| value.saturating_add((random.next() % 30) as u8);
    let mut pixels = Vec::with_capacity(3 * mask.len());
    for plane in 0..3 {
        pixels.extend(mask.iter().map(|&class| noisy(colour(class)[plane], &mut random)));
    }
    (pixels, mask)
}

pub fn base() -> BaseModel {
    let layout = HeadLayout::of_shape(SHAPE).unwrap();
    let mut random = Random::new(99);
    let mut parameters = Vec::new();
    for spec in layout.specs() {
        let count: usize = spec.shape.iter().product();
        let is_scale = spec.name.contains("norm") && spec.name.ends_with("weight");
        let centre = if is_scale { 1.0 } else { 0.0 };
        let scale = if spec.shape.len() == 2 { (spec.shape[0] as f32).powf(-0.5) } else { 0.1 };
        parameters.extend((0..count).map(|_| centre + 1.7 * scale * random.signed()));
    }
    let digest = layout.digest(&parameters);
    BaseModel {
        layout,
        parameters,
        digest,
        grid: GridSize { height: HEIGHT, width: WIDTH },
        padding: 114,
    }
}

/// The same network at the input size of a camera that lies on its side.
pub fn turned(base: BaseModel) -> BaseModel {
    let shape = HeadShape { mask_height: SHAPE.mask_width, mask_width: SHAPE.mask_height, ..SHAPE };
    let layout = HeadLayout::of_shape(shape).unwrap();
    BaseModel { layout, grid: GridSize { height: WIDTH, width: HEIGHT }, ..base }
}

/// Features that are fixed random functions of the colours.
#[derive(Default)]
pub struct ColourTrunk {
    /// Its pictures are [`turned`].
    pub turned: bool,
    /// Nothing that it says is a number.
    pub is_blind: bool,
    /// Called before each picture.
    pub before: Option<Box<dyn FnMut(u64)>>,
    pub runs: u64,
}

impl ColourTrunk {
    pub fn calling(before: impl FnMut(u64) + 'static) -> ColourTrunk {
        ColourTrunk { before: Some(Box::new(before)), ..ColourTrunk::default() }
    }
}

impl Trunk for ColourTrunk {
    fn run(&mut self, pixels: &[u8]) -> Result<[Vec<f32>; 4], VisionError> {
        if let Some(before) = self.before.as_mut() {
            before(self.runs);
        }
        self.runs += 1;
        let width = if self.turned { HEIGHT } else { WIDTH };
        let mut queries = values(1, SHAPE.queries * SHAPE.dim);
        if self.is_blind {
            queries.fill(f32::NAN);
        }
        let memory = |pooling: usize| {
            let grid = cells(pixels, width, 4 * pooling);
            grid.iter().flat_map(|cell| (0..SHAPE.dim).map(|c| channel(cell, c))).collect()
        };
        let grid = cells(pixels, width, 4);
        let mask_features =
            (0..SHAPE.dim).flat_map(|c| grid.iter().map(move |cell| channel(cell, c))).collect();
        Ok([queries, memory(4), memory(2), mask_features])
    }
}

fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.signed()).collect()
}

/// Mean colour of squares of `side` pixels, 0 to 1.
fn cells(pixels: &[u8], width: usize, side: usize) -> Vec<[f32; 3]> {
    let area = pixels.len() / 3;
    let (rows, columns) = (area / width / side, width / side);
    let mut cells = vec![[0.0; 3]; rows * columns];
    for (at, value) in pixels.iter().enumerate() {
        let (plane, at) = (at / area, at % area);
        let cell = at / width / side * columns + at % width / side;
        cells[cell][plane] += f32::from(*value) / 255.0 / (side * side) as f32;
    }
    cells
}

fn channel(cell: &[f32; 3], index: usize) -> f32 {
    let weights = values(1_000 + index as u64, 4);
    let sum: f32 = cell.iter().zip(&weights).map(|(colour, weight)| 4.0 * colour * weight).sum();
    (sum + weights[3]).sin()
}

/// Always open.
pub struct Open;

impl Gate for Open {
    fn conditions(&self) -> Conditions {
        Conditions::IDLE
    }
}

/// Gives the answers in turn, then stays idle.
pub struct Script(pub Mutex<Vec<Conditions>>);

impl Gate for Script {
    fn conditions(&self) -> Conditions {
        self.0.lock().unwrap().pop().unwrap_or(Conditions::IDLE)
    }
}

/// Begins a run, and stops it after some pictures.
pub fn begin_training(home: &Home, pictures: u64) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopper = stop.clone();
    let mut trunk = ColourTrunk::calling(move |runs| {
        stopper.fetch_or(runs + 1 == pictures, Ordering::SeqCst);
    });
    assert_eq!(home.train_when(&mut trunk, &Open, &stop).unwrap(), Outcome::Stopped);
}

pub fn train(home: &Home) -> Outcome {
    home.train_when(&mut ColourTrunk::default(), &Open, &AtomicBool::new(false)).unwrap()
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
