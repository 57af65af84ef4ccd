//! The release path under SIGKILL at every step.
//!
//! The parent starts this very test program as a child that releases and publishes until its budget is spent, and
//! that kills itself at a chosen step: before, in the middle of, and after every write, every draw of entropy and
//! every send. What the child did is witnessed outside its own directory. After each death the parent checks:
//!
//! 1. no noise without a durable reservation, and never more reservations than the budget allows;
//! 2. never two different noisings of one delta, in whatever place;
//! 3. no unnoised number in any file.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{MemoryStore, TEXT_VERSION, TestClock, clipped};
use learn::consent::{Consents, PurposeKind};
use learn::edges::{Digest, EdgeError, Entropy, Storage, SystemEntropy};
use learn::fs::{Directory, StoredCounter};
use learn::ledger::{LEDGER_NAME, Ledger, LedgerError, RECORD_BYTES, RecordKind, verify};
use learn::outbox::{Outbox, OutboxLimits};
use learn::privacy::{Budget, NoiseMultiplier};
use learn::release::{ReleaseError, ReleasePath};
use learn::update::Update;

const KILLS: usize = 520;
/// About as many as a life of three releases has; a child that gets past its step lives on to the end.
const STEPS_OF_A_LIFE: u64 = 110;
const ROOT: &str = "LEARN_CRASH_ROOT";
const STEP: &str = "LEARN_CRASH_STEP";
const CUT: &str = "LEARN_CRASH_CUT";

/// Counts the steps and dies at the chosen one. Lines of `witness` outlive the process.
struct Fate {
    witness: PathBuf,
    step: AtomicU64,
    last: u64,
    /// Share of a write that happens before a death in the middle of it, in 256ths.
    cut: usize,
}

impl Fate {
    fn write_line(&self, line: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.witness).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn is_due(&self) -> bool {
        self.step.fetch_add(1, Ordering::SeqCst) == self.last
    }

    fn die(&self, label: &str) -> ! {
        self.write_line(&format!("killed {label}"));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
            .unwrap();
        loop {
            std::thread::park();
        }
    }

    fn step(&self, label: &str) {
        if self.is_due() {
            self.die(label);
        }
    }

    /// A write of `bytes` to `path` with deaths before, within and after.
    fn around(
        &self,
        label: &str,
        path: &Path,
        bytes: &[u8],
        write: impl FnOnce() -> Result<(), EdgeError>,
    ) -> Result<(), EdgeError> {
        self.step(&format!("before {label}"));
        if self.is_due() {
            let torn = &bytes[..bytes.len() * self.cut / 256];
            let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
            file.write_all(torn).unwrap();
            self.die(&format!("within {label}"));
        }
        write()?;
        self.step(&format!("after {label}"));
        Ok(())
    }
}

struct FatefulStore {
    inner: Directory,
    fate: Arc<Fate>,
    role: &'static str,
}

impl FatefulStore {
    fn label(&self, name: &str, bytes: &[u8]) -> String {
        let kind =
            if name == LEDGER_NAME { format!(" record {}", bytes[4]) } else { String::new() };
        format!("{}{kind}", self.role)
    }
}

impl Storage for FatefulStore {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        self.inner.read(name)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        if bytes[4] == RecordKind::Sampled as u8 {
            // Noise exists from here on: said before the ledger learns of it.
            self.fate.write_line(&format!("sampled {} {}", bytes[40], hex(&bytes[112..144])));
        }
        let path = self.inner.path().join(name);
        let label = format!("append {}", self.label(name, bytes));
        self.fate.around(&label, &path, bytes, || self.inner.append(name, bytes))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        let path = self.inner.path().join(format!("{name}.tmp"));
        let label = format!("replace {}", self.label(name, bytes));
        self.fate.around(&label, &path, bytes, || self.inner.replace(name, bytes))
    }

    fn truncate(&self, name: &str, length: u64) -> Result<(), EdgeError> {
        self.fate.step("before truncate");
        self.inner.truncate(name, length)?;
        self.fate.step("after truncate");
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), EdgeError> {
        self.fate.step("before remove");
        self.inner.remove(name)?;
        self.fate.step("after remove");
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, EdgeError> {
        self.inner.names()
    }
}

struct FatefulEntropy(Arc<Fate>);

impl Entropy for FatefulEntropy {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), EdgeError> {
        self.0.step("before entropy");
        SystemEntropy.fill(buffer)?;
        self.0.step("after entropy");
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Not a test of its own: the life of one child process. Does nothing unless the parent asks.
#[test]
fn child() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let root = PathBuf::from(root);
    let fate = Arc::new(Fate {
        witness: root.join("witness"),
        step: AtomicU64::new(0),
        last: number(STEP),
        cut: number(CUT) as usize,
    });
    let open = |name: &str, role| FatefulStore {
        inner: Directory::open(&root.join(name)).unwrap(),
        fate: fate.clone(),
        role,
    };
    let storage = Arc::new(open("device", "device"));
    let counter = Arc::new(StoredCounter::new(open("counter", "counter")));
    let clock = Arc::new(TestClock::default());
    let consents = Consents::open(MemoryStore::new(), clock.clone(), [TEXT_VERSION; 2]).unwrap();
    consents.grant(PurposeKind::ContributeToFleet, TEXT_VERSION).unwrap();
    let consent = consents.token().unwrap();

    let ledger = Ledger::open(storage.clone(), counter, clock, Budget::DEFAULT).unwrap();
    let outbox = Outbox::new(storage, OutboxLimits::default());
    let mut path =
        ReleasePath::open(ledger, outbox, Box::new(FatefulEntropy(fate.clone()))).unwrap();
    for run in 1.. {
        for release in path.waiting() {
            let bytes = path.bytes(release, &consent).unwrap();
            fate.step("before send");
            let update = Update::decode(&bytes).unwrap();
            fate.write_line(&format!("sent {} {}", update.header().release, Digest::of(&bytes)));
            fate.step("after send");
            path.published(release).unwrap();
        }
        match path.release(clipped(run), NoiseMultiplier::DEFAULT, &consent) {
            Ok(_) | Err(ReleaseError::Ledger(LedgerError::AlreadyReserved(_))) => {}
            Err(ReleaseError::Ledger(LedgerError::OverBudget { .. })) => break,
            Err(error) => panic!("{error}"),
        }
    }
    fate.write_line("finished");
}

/// What no file may contain: windows of the raw and of the clipped delta, in every width they could have.
fn forbidden() -> Vec<Vec<u8>> {
    let raw: Vec<f32> = (0..200).map(|index| (index as f32 - 100.0) / 1000.0).collect();
    let steps: Vec<i64> = raw.iter().map(|value| (value * 2048.0).round() as i64).collect();
    let window = |at: usize| {
        let (raw, steps) = (&raw[at..at + 4], &steps[at..at + 8]);
        [
            raw.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(),
            steps.iter().flat_map(|v| (*v as i16).to_le_bytes()).collect(),
            steps.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect(),
            steps.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ]
    };
    (0..190).step_by(10).flat_map(window).collect()
}

struct Witness {
    killed: Vec<String>,
    sampled: BTreeMap<u8, BTreeSet<String>>,
    sent: BTreeMap<String, BTreeSet<String>>,
    finished: bool,
}

fn read_witness(root: &Path) -> Witness {
    let text = fs::read_to_string(root.join("witness")).unwrap_or_default();
    let mut witness = Witness {
        killed: vec![],
        sampled: BTreeMap::new(),
        sent: BTreeMap::new(),
        finished: false,
    };
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words.as_slice() {
            ["killed", rest @ ..] => witness.killed.push(rest.join(" ")),
            ["sampled", run, digest] => {
                witness
                    .sampled
                    .entry(run.parse().unwrap())
                    .or_default()
                    .insert((*digest).to_owned());
            }
            ["sent", release, digest] => {
                witness.sent.entry((*release).to_owned()).or_default().insert((*digest).to_owned());
            }
            ["finished"] => witness.finished = true,
            _ => panic!("{line}"),
        }
    }
    witness
}

fn check(root: &Path, witness: &Witness, records_before: usize, forbidden: &[Vec<u8>]) -> usize {
    let device = root.join("device");
    let ledger = fs::read(device.join(LEDGER_NAME)).unwrap_or_default();
    let verified = verify(&ledger).unwrap();
    assert!(verified.records.len() >= records_before, "records were lost");
    assert!(verified.torn_bytes < RECORD_BYTES);

    let reserved: BTreeSet<u8> = verified.releases().values().map(|state| state.run.0[0]).collect();
    assert!(verified.composition().fits(&Budget::DEFAULT), "the budget is overspent");
    assert!(
        witness.sampled.keys().all(|run| reserved.contains(run)),
        "noise without a reservation"
    );

    assert!(witness.sampled.values().all(|digests| digests.len() == 1), "a delta was noised twice");
    assert!(
        witness.sent.values().all(|digests| digests.len() == 1),
        "a release was sent in two forms"
    );
    let all: BTreeSet<&String> = witness.sampled.values().flatten().collect();
    assert!(witness.sent.values().flatten().all(|digest| all.contains(digest)));

    for entry in fs::read_dir(&device).unwrap().chain(fs::read_dir(root.join("counter")).unwrap()) {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let leaks = |needle: &Vec<u8>| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!forbidden.iter().any(leaks), "{} holds unnoised numbers", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("update-") && !name.ends_with(".tmp") {
            assert!(
                all.contains(&hex(&Digest::of(&bytes).0)),
                "{name} is not the update that was sampled"
            );
        }
    }
    verified.records.len()
}

/// xorshift64: the same deaths in every run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Children that die one after the other in `root`, the first at this step, until one comes to the end: how many died, and where.
fn one_life(
    root: &Path,
    first: u64,
    draws: &mut Draws,
    forbidden: &[Vec<u8>],
) -> (usize, Vec<String>) {
    fs::create_dir_all(root).unwrap();
    let (mut records, mut kills, mut step) = (0, 0, first);
    loop {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROOT, root)
            .env(STEP, step.to_string())
            .env(CUT, draws.below(256).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let witness = read_witness(root);
        records = check(root, &witness, records, forbidden);
        if witness.finished {
            assert!(child.status.success());
            fs::remove_dir_all(root).unwrap();
            return (kills, witness.killed);
        }
        let died = std::os::unix::process::ExitStatusExt::signal(&child.status) == Some(9);
        assert!(died, "{}", String::from_utf8_lossy(&child.stderr));
        kills += 1;
        // Half of the later deaths come early, where the next process mends what this one left.
        step = if draws.below(2) == 0 { draws.below(4) } else { draws.below(30) };
    }
}

/// Five kinds of records and two kinds of files, each before, within and after; entropy, send, remove, truncate.
fn expected_labels() -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for when in ["before", "within", "after"] {
        expected.extend((0..5).map(|kind| format!("{when} append device record {kind}")));
        expected.extend([format!("{when} replace device"), format!("{when} replace counter")]);
    }
    for what in ["entropy", "send", "remove", "truncate"] {
        expected.extend([format!("before {what}"), format!("after {what}")]);
    }
    expected
}

#[test]
fn killed_at_every_step() {
    // A killed process loses nothing that the kernel already has, so memory is as good as a disk here, and faster.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    let base = place.join(format!("learn-crash-{}", std::process::id()));
    let forbidden = forbidden();
    let mut draws = Draws(0x9e37_79b9_7f4a_7c15);
    let mut labels = BTreeSet::new();
    let (mut kills, mut lives) = (0, 0);
    while kills < KILLS || lives < STEPS_OF_A_LIFE {
        assert!(lives < 10 * KILLS as u64, "children are not being killed");
        // The first death of each life walks through every step in turn; later ones are anywhere.
        let first = lives % STEPS_OF_A_LIFE;
        let (killed, at) = one_life(&base.join(lives.to_string()), first, &mut draws, &forbidden);
        kills += killed;
        labels.extend(at);
        lives += 1;
    }
    fs::remove_dir_all(&base).unwrap();
    assert!(lives >= STEPS_OF_A_LIFE, "not every first step had its turn");
    println!("{kills} kills in {lives} lives at {} kinds of steps", labels.len());
    let expected = expected_labels();
    let missed: Vec<&String> = expected.difference(&labels).collect();
    assert!(missed.is_empty(), "never killed at {missed:?}");
}
