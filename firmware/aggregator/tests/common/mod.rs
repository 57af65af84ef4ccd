//! A fleet in memory and on a scratch disk: a small head, a clock that the test sets, real noised updates.

#![allow(dead_code, clippy::unwrap_used)] // every test file uses its own part

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aggregator::audit::Event;
use aggregator::contributor::Contributor;
use aggregator::engine::{Engine, EngineError, Parts, Report, RoundRequest, Rules};
use aggregator::gate::{Gate, GateError};
use aggregator::ingest::{Submission, Worker};
use aggregator::records::{Model, Parameters, Phase, Rollout, Round};
use aggregator::rollout_rules::{RolloutRules, Stage};
use aggregator::store::{Decision, Store};
use ed25519_dalek::SigningKey;
use learn::averaging::PartialSum;
use learn::edges::{Clock, Digest, Timestamp};
use learn::head::{HeadLayout, HeadShape, Subset, numbers};
use learn::privacy::Budget;
use proto::status::JobFault;
use proto::{DeviceId, Pseudonym};

/// Only to end a test that is stuck.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const Z: &str = "1.2";

pub const SMALL: HeadShape =
    HeadShape { queries: 5, dim: 8, hidden: 12, mask_height: 12, mask_width: 8 };

/// Every number of the shipped head.
const SHIPPED: f32 = 0.25;

/// What an engine is made of, on a database that there may have been before.
pub fn parts(store: Store, clock: &Arc<TestClock>, shape: HeadShape) -> Parts {
    let layout = HeadLayout::of_shape(shape).unwrap();
    Parts {
        store: Arc::new(store),
        key: SigningKey::from_bytes(&[5; 32]),
        secrets: [6; 32],
        clock: Arc::<TestClock>::clone(clock),
        gate: Box::new(Scores(vec![0.5, 0.5])),
        shipped: vec![SHIPPED; layout.len()],
        layout,
        channel: "test".parse().unwrap(),
        rules: rules(),
    }
}

#[derive(Default)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub fn add(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn back(&self, seconds: u64) {
        self.0.fetch_sub(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Gives the scores it was made with.
struct Scores(Vec<f64>);

impl Gate for Scores {
    fn scores(&self, heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        assert_eq!(heads.len(), 2);
        Ok(self.0.clone())
    }
}

struct Slow {
    begun: Sender<()>,
    goes_on: Mutex<Receiver<()>>,
}

impl Gate for Slow {
    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        self.begun.send(()).unwrap();
        self.goes_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Ok(vec![0.5, 0.5])
    }
}

/// A gate that says when it begins to judge, and waits until it is told to go on.
pub fn slow_gate() -> (Box<dyn Gate>, Receiver<()>, Sender<()>) {
    let ((begun, begins), (go_on, goes_on)) = (channel(), channel());
    (Box::new(Slow { begun, goes_on: Mutex::new(goes_on) }), begins, go_on)
}

pub fn rules() -> Rules {
    Rules {
        minimum_cohort: 2,
        maximum_cohort: 1_000,
        lead_seconds: 10,
        window_seconds: 100,
        wanted_cosine: 0.001,
        rollout: RolloutRules {
            stages: [100, 1000].map(Stage::Permille).to_vec(),
            stage_seconds: 60,
            minimum_reports: 4,
            minimum_failures: 2,
            error_threshold: 0.2,
        },
        ..Rules::default()
    }
}

pub fn request(force: bool) -> RoundRequest {
    RoundRequest { parameters: Parameters::Sparse, noise_multiplier: Z.into(), force }
}

pub struct Fleet {
    pub engine: Engine,
    pub clock: Arc<TestClock>,
    pub folder: Scratch,
}

/// A folder that goes with the test.
pub struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Large enough for updates of several chunks.
pub const LARGE: HeadShape =
    HeadShape { queries: 5, dim: 64, hidden: 128, mask_height: 12, mask_width: 8 };

impl Fleet {
    pub fn new(name: &str, rules: Rules) -> Fleet {
        Fleet::with_scores(name, rules, vec![0.5, 0.5])
    }

    pub fn with_scores(name: &str, rules: Rules, scores: Vec<f64>) -> Fleet {
        Fleet::with_shape(name, rules, scores, SMALL)
    }

    pub fn with_shape(name: &str, rules: Rules, scores: Vec<f64>, shape: HeadShape) -> Fleet {
        Fleet::with_gate(name, rules, Box::new(Scores(scores)), shape)
    }

    pub fn with_gate(name: &str, rules: Rules, gate: Box<dyn Gate>, shape: HeadShape) -> Fleet {
        let folder = std::env::temp_dir().join(format!("aggregator-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let clock: Arc<TestClock> = Arc::default();
        let store = Store::create(&folder.join("fleet.redb")).unwrap();
        let mut parts = parts(store, &clock, shape);
        (parts.gate, parts.rules) = (gate, rules);
        let engine = Engine::new(parts).unwrap();
        add_version(&engine, SHIPPED);
        engine.publish(1).unwrap();
        clock.add(100);
        engine.advance(true).unwrap();
        clock.add(100);
        engine.advance(true).unwrap();
        Fleet { engine, clock, folder: Scratch(folder) }
    }

    pub fn into_parts(self) -> (Engine, Arc<TestClock>, Scratch) {
        (self.engine, self.clock, self.folder)
    }

    pub fn enrol(&self, count: u8) {
        for number in 0..count {
            let fingerprint = format!("{number:02x}").repeat(32);
            self.engine.enrol(&format!("mirror-{number}"), &fingerprint).unwrap();
        }
    }

    /// A round that takes updates.
    pub fn open_round(&self) -> Round {
        self.open_round_with(false)
    }

    /// The same, started against advice or not.
    pub fn open_round_with(&self, force: bool) -> Round {
        let round = self.engine.start_round(&request(force)).unwrap();
        self.clock.add(10);
        self.engine.advance(true).unwrap();
        round
    }

    /// The newest version's roll-out goes on to its last stage, which is every device: it works wherever it came first.
    pub fn reach_everybody(&self) {
        let version = self.engine.announced().unwrap().unwrap().version;
        let mut names = Vec::new();
        self.engine.store().each_device(|device| names.push(device.name)).unwrap();
        // One that was revoked is not heard.
        names.iter().for_each(|n| drop(self.engine.report(n, version, Report::Installed)));
        self.clock.add(60);
        self.engine.advance(true).unwrap();
        let newest = self.engine.announced().unwrap().unwrap();
        assert_eq!(self.engine.permille(&newest), 1000);
    }

    pub fn worker(&self, number: u32) -> Worker {
        Worker::new(Arc::clone(self.engine.shared_store()), number)
    }

    pub fn submission(&self, round: &Round, name: u8, value: f32) -> Submission {
        self.submission_with(round, name, value, Z)
    }

    pub fn submission_with(&self, round: &Round, name: u8, value: f32, z: &str) -> Submission {
        let bytes = release(round, value, z);
        Submission { round: round.id, pseudonym: self.pseudonym(round, name), bytes }
    }

    /// The name of device `mirror-NAME` in a round.
    pub fn pseudonym(&self, round: &Round, name: u8) -> Pseudonym {
        let device: DeviceId = format!("mirror-{name}").parse().unwrap();
        self.engine.secret(&device).pseudonym(self.engine.channel(), round.id)
    }

    /// So many seconds in which the fleet is heard at all times, with every step that is due in them.
    pub fn pass(&self, seconds: u64) {
        pass(&self.engine, &self.clock, seconds);
    }

    /// Everything that is due now, step by step.
    pub fn settle(&self) {
        settle(&self.engine).unwrap();
    }

    pub fn merged(&self, round: &Round) -> PartialSum {
        self.engine.store().merged(round.id, round.task.rules().unwrap()).unwrap()
    }
}

/// Adds a version all of whose trainable numbers are `value`, for [`Engine::publish`] to roll out: as an `init` left it that was
/// interrupted before 2026-11-30.
pub fn add_version(engine: &Engine, value: f32) -> u64 {
    let mut bytes = Vec::new();
    numbers::encode_into(&mut bytes, &vec![value; engine.layout().subset_len(Subset::Full)]);
    let mut model = Model {
        version: 0,
        parameters: Digest::of(&bytes).to_string(),
        origin: "a test".into(),
        created_at: engine.now(),
        score: None,
        rollout: Rollout::Held,
        installed: 0,
        failed: 0,
    };
    let add = |decision: &mut Decision<'_>| {
        model.version = decision.next_version()?;
        decision.put_model(&model)?;
        decision.put_parameters(model.version, &bytes)?;
        let (version, parameters) = (model.version, model.parameters.clone());
        decision.record(&Event::ModelAdded { version, parameters, origin: model.origin.clone() })
    };
    engine.store().decide(engine.now(), engine.key(), add).unwrap();
    model.version
}

/// As [`Fleet::pass`].
pub fn pass(engine: &Engine, clock: &TestClock, seconds: u64) {
    for from in (0..seconds).step_by(60) {
        clock.add((seconds - from).min(60));
        settle(engine).unwrap();
    }
}

/// A round that has what it needs to become a version.
pub fn full_round(fleet: &Fleet) -> Round {
    filled(fleet, fleet.open_round())
}

pub fn filled(fleet: &Fleet, round: Round) -> Round {
    let batch: Vec<_> = (0..5).map(|name| fleet.submission(&round, name, 0.0)).collect();
    fleet.worker(0).count(&batch).unwrap();
    round
}

/// Version 2, held.
pub fn second_version(engine: &Engine) {
    assert_eq!(add_version(engine, 0.5), 2);
}

pub fn trouble_everywhere(engine: &Engine, version: u64) {
    (0..5).for_each(|n| {
        engine.report(&format!("mirror-{n}"), version, Report::Failed(JobFault::Unusable)).unwrap()
    });
    let rollout = engine.store().model(version).unwrap().unwrap().rollout;
    assert!(matches!(rollout, Rollout::Stopped { .. }));
}

pub fn why_aborted(engine: &Engine, round: u64) -> String {
    let round = engine.store().round(round).unwrap().unwrap();
    let Phase::Aborted { reason } = round.phase else { panic!("{round:?}") };
    reason
}

/// A fleet of so many devices, with version 2 in the first stage of its roll-out.
pub fn rolling_out(name: &str, rules: Rules, devices: u8) -> Fleet {
    let fleet = Fleet::new(name, rules);
    fleet.enrol(devices);
    second_version(&fleet.engine);
    fleet.engine.publish(2).unwrap();
    fleet
}

/// The next step that is due, a judgement as well; says whether a round moved.
pub fn step(engine: &Engine) -> Result<bool, EngineError> {
    Ok(engine.advance(true)? || engine.judge()?)
}

/// Steps until nothing is due any more.
pub fn settle(engine: &Engine) -> Result<(), EngineError> {
    while step(engine)? {}
    Ok(())
}

/// A real update for a round, out of a real ledger.
pub fn release(round: &Round, value: f32, z: &str) -> Vec<u8> {
    let rules = round.task.rules().unwrap();
    let contributor = Contributor::new(Budget::new(20.0, 1e-5).unwrap()).unwrap();
    let mut device = contributor.device().unwrap();
    device.release(rules.layout, vec![value; rules.dimension], z.parse().unwrap()).unwrap()
}

/// The same update with every value replaced: what a hostile device with a valid certificate could send.
pub fn forged(honest: &Submission, value: i16) -> Submission {
    let mut bytes = honest.bytes[..honest.bytes.len() - 32].to_vec();
    bytes[80..].as_chunks_mut::<2>().0.fill(value.to_le_bytes());
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(&digest.0);
    Submission { bytes, ..honest.clone() }
}
