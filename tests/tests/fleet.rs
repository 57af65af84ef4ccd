//! A small fleet in one process: the real server, the real devices' protocol and a real broker over TCP; households and gate
//! are cheap. Who should count does, once; who should not does not, and harms nobody.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aggregator::config::BrokerConfig;
use aggregator::contributor::{self, Contributor};
use aggregator::demo::broker;
use aggregator::engine::{DELTA, Engine, Parts, RoundRequest, RoundStatus, Rules};
use aggregator::gate::{Gate, GateError};
use aggregator::keys::Keys;
use aggregator::records::{Parameters, Phase};
use aggregator::refusal_kinds::StrangeKind;
use aggregator::rollout_rules::{RolloutRules, Stage};
use aggregator::serve::Server;
use aggregator::store::Store;
use learn::edges::{LayoutId, SystemClock};
use learn::head::{HeadLayout, HeadShape, Subset, numbers};
use learn::privacy::{Budget, NoiseMultiplier};
use proto::secret::DeviceSecret;
use proto::signing::{KeyRing, Signed};
use proto::status::JobFault;
use proto::task::{Floor, TaskManifest};
use proto::update::{Receipt, Refusal, UpdateOffer, Verdict};
use proto::{Channel, DeviceId, Digest, Message, Ratio, Topic};
use uplink::device::{Device, Settings};
use uplink::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, Outbox, ReleaseId};
use uplink::mqtt::{Endpoint, Handle, Mqtt};
use uplink::pace::Jitter;
use uplink::run::{Watch, run_hasty};
use uplink::transport::{Event, Requests, Transport};

/// How much faster than the world's the devices' clocks go.
const HASTE: u32 = 50;

/// Only to end a test that is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

const HEAD: HeadShape =
    HeadShape { queries: 5, dim: 8, hidden: 12, mask_height: 12, mask_width: 8 };

/// So little that the average of four updates says what went in.
const NOISE: &str = "0.02";

/// What every update moves every number by.
const STEP: f32 = 0.01;

/// Where every number of the head starts.
const START: f32 = 0.25;

/// Rounds that a device's budget holds.
const ROUNDS: u64 = 4;

/// Likes heads with large numbers, so that these updates are progress.
struct Cheap;

impl Gate for Cheap {
    fn scores(&self, heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        Ok(heads.iter().map(|head| mean(head)).collect())
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().copied().map(f64::from).sum::<f64>() / values.len() as f64
}

fn noise() -> NoiseMultiplier {
    NOISE.parse().unwrap()
}

fn channel() -> Channel {
    "test".parse().unwrap()
}

fn layout() -> HeadLayout {
    HeadLayout::of_shape(HEAD).unwrap()
}

/// Waits until it is so.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

// ---- devices ----

struct Disk {
    head: Vec<f32>,
    ledger: contributor::Device,
    waiting: Vec<(ReleaseId, Vec<u8>)>,
}

#[derive(Clone)]
struct Home {
    layout: HeadLayout,
    disk: Arc<Mutex<Disk>>,
    takes_part: Arc<AtomicBool>,
    prepared: Arc<AtomicU64>,
}

impl Outbox for Home {
    fn waiting(&self, _: &TaskManifest) -> Result<Vec<ReleaseId>, EdgeError> {
        Ok(self.disk.lock().unwrap().waiting.iter().map(|(id, _)| *id).collect())
    }

    fn bytes(&self, id: ReleaseId) -> Result<Vec<u8>, EdgeError> {
        let disk = self.disk.lock().unwrap();
        let found = disk.waiting.iter().find(|(known, _)| *known == id);
        found.map(|(_, bytes)| bytes.clone()).ok_or(EdgeError("gone".into()))
    }

    fn published(&mut self, id: ReleaseId) -> Result<(), EdgeError> {
        self.disk.lock().unwrap().waiting.retain(|(known, _)| *known != id);
        Ok(())
    }

    fn refused(&mut self, id: ReleaseId, reason: Refusal) -> Result<(), EdgeError> {
        panic!("{id:?} was refused for good: {reason}")
    }
}

impl Household for Home {
    fn floor(&self) -> Option<Floor> {
        let head = &self.disk.lock().unwrap().head;
        self.takes_part.load(Ordering::SeqCst).then(|| Floor {
            min_noise_multiplier: Ratio::new(noise().numerator(), noise().denominator()).unwrap(),
            max_clip: Ratio::new(1, 1).unwrap(),
            min_cohort: 2,
            max_update_bytes: 1 << 16,
            model: Digest(self.layout.digest(head).0),
        })
    }

    fn prepare(&mut self, task: &TaskManifest) -> Result<(), EdgeError> {
        let numbers = vec![STEP; task.dimension as usize];
        let mut disk = self.disk.lock().unwrap();
        let bytes = disk.ledger.release(LayoutId(task.layout.0), numbers, noise()).unwrap();
        let id = self.prepared.fetch_add(1, Ordering::SeqCst);
        disk.waiting.push((ReleaseId([id as u8; 16]), bytes));
        Ok(())
    }
}

impl ModelTrial for Home {
    fn base(&self) -> Digest {
        Digest(self.layout.digest(&vec![START; self.layout.len()]).0)
    }

    fn begin(&mut self, _: u64, parameters: Vec<u8>) -> Result<(), JobFault> {
        let values = numbers::decode(&parameters, self.layout.subset_len(Subset::Full)).unwrap();
        self.layout.scatter(Subset::Full, &values, &mut self.disk.lock().unwrap().head);
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), JobFault>> {
        Some(Ok(()))
    }
}

impl Keeper for Home {
    fn keep(&mut self, _: &Memory) -> Result<(), EdgeError> {
        Ok(())
    }
}

struct Mirror {
    home: Home,
    watch: Watch,
    handle: Handle,
}

impl Mirror {
    fn has_tried(&self, version: u64) -> bool {
        let snapshot = self.watch.read();
        snapshot.connected && snapshot.model_tried == version
    }

    fn prepared(&self) -> u64 {
        self.home.prepared.load(Ordering::SeqCst)
    }

    fn head(&self) -> Vec<f32> {
        let disk = self.home.disk.lock().unwrap();
        self.home.layout.gather(Subset::Full, &disk.head)
    }
}

fn endpoint(broker: SocketAddr, name: &DeviceId) -> Endpoint {
    Endpoint {
        host: broker.ip().to_string(),
        port: broker.port(),
        client_id: name.to_string(),
        tls: None,
        certificate_end: None,
        login: None,
        will: Device::will(name),
        persistent: true,
    }
}

// ---- the fleet ----

/// A folder that goes with its test, however that ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Fleet {
    server: Server,
    broker: SocketAddr,
    keys: KeyRing,
    owner: Contributor,
    runtime: tokio::runtime::Runtime,
    folder: Folder,
}

impl Fleet {
    /// A server that closes a round after `cohort` updates, and enrolled devices.
    fn start(name: &str, cohort: u64, devices: &[&str]) -> Fleet {
        let folder =
            Folder(std::env::temp_dir().join(format!("fleet-{name}-{}", std::process::id())));
        std::fs::create_dir_all(&folder.0).unwrap();
        let keys = Keys::create(&folder.0).unwrap();
        let ring = KeyRing::single(keys.signing.verifying_key());
        let layout = layout();
        let engine = Engine::new(Parts {
            store: Arc::new(Store::create(&folder.0.join("fleet.redb")).unwrap()),
            key: keys.signing,
            secrets: keys.devices,
            clock: Arc::new(SystemClock),
            gate: Box::new(Cheap),
            shipped: vec![START; layout.len()],
            layout,
            channel: channel(),
            rules: rules(cohort),
        })
        .unwrap();
        engine.ship("as shipped").unwrap();
        for (number, device) in devices.iter().enumerate() {
            engine.enrol(device, &format!("{number:064x}")).unwrap();
        }
        let broker = broker::start().unwrap();
        let (host, port, client) = (broker.ip().to_string(), broker.port(), "aggregator".into());
        let config = BrokerConfig { host, port, client, workers: 2, tls: None };
        let server = Server::start(engine, &config).unwrap();
        let once = learn::privacy::epsilon(noise(), ROUNDS, DELTA).unwrap().epsilon();
        let owner = Contributor::new(Budget::new(once * 1.01, DELTA).unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Fleet { server, broker, keys: ring, owner, runtime, folder }
    }

    fn engine(&self) -> &Engine {
        &self.server.office.engine
    }

    fn secret(&self, name: &str) -> DeviceSecret {
        self.engine().secret(&name.parse().unwrap())
    }

    /// A device that believes `keys`.
    fn device(&self, name: &str, takes_part: bool, keys: &KeyRing) -> Mirror {
        let layout = layout();
        let disk = Disk {
            head: vec![START; layout.len()],
            ledger: self.owner.device().unwrap(),
            waiting: Vec::new(),
        };
        let home = Home {
            layout,
            disk: Arc::new(Mutex::new(disk)),
            takes_part: Arc::new(takes_part.into()),
            prepared: Arc::default(),
        };
        let settings = Settings {
            device: name.parse().unwrap(),
            channel: channel(),
            firmware: "0.1.0".into(),
            secret: self.secret(name),
            keys: keys.clone(),
            least_trial: Duration::ZERO,
        };
        let (at, watch) = (endpoint(self.broker, &settings.device), Watch::default());
        let edge = || Box::new(home.clone());
        let jitter = || Jitter::new(name.len() as u64);
        let device = Device::new(settings, Memory::default(), jitter(), edge(), edge(), edge());
        let _guard = self.runtime.enter();
        let (transport, handle) = Mqtt::start(at, jitter());
        self.runtime.spawn(run_hasty(device, transport, watch.clone(), HASTE));
        Mirror { home, watch, handle }
    }

    fn believer(&self, name: &str) -> Mirror {
        self.device(name, true, &self.keys)
    }

    fn wait_for_online(&self, count: u64) {
        wait("devices", || self.server.office.presence.count() == count);
    }

    fn start_round(&self) -> u64 {
        let (parameters, noise_multiplier) = (Parameters::Sparse, NOISE.to_owned());
        let request = RoundRequest { parameters, noise_multiplier, force: true };
        self.engine().start_round(&request).unwrap().id
    }

    fn round(&self, number: u64) -> RoundStatus {
        let rounds = self.engine().status().unwrap().rounds;
        rounds.into_iter().find(|round| round.round.id == number).unwrap()
    }

    fn wait_for_count(&self, round: u64, count: u64) {
        wait(&format!("{count} updates in round {round}"), || {
            self.round(round).tally.counted == count
        });
    }

    /// Waits until a round has become model `version`, and every one of `mirrors` has it, number by number.
    fn wait_for_model(&self, round: u64, version: u64, mirrors: &[&Mirror]) {
        wait("the end of a round", || self.round(round).round.phase.is_final());
        assert_eq!(self.round(round).round.phase, Phase::Published { version });
        let published = self.engine().store().parameters(version).unwrap().unwrap();
        for mirror in mirrors {
            wait("a model at a device", || mirror.has_tried(version));
            let head = mirror.head();
            assert_eq!(head, numbers::decode(&published, head.len()).unwrap());
        }
    }

    fn stop(self, mirrors: Vec<Mirror>) {
        for mirror in &mirrors {
            self.runtime.block_on(mirror.handle.stop());
            wait("a goodbye", || !mirror.watch.read().connected);
        }
        let key = self.engine().key().verifying_key();
        self.engine().verify(&key).unwrap();
        self.server.stop();
    }
}

fn rules(cohort: u64) -> Rules {
    Rules {
        minimum_cohort: 2,
        maximum_cohort: cohort,
        lead_seconds: 0,
        // Longer than `PATIENCE`: on a slow machine a wait ends first, and says what for.
        window_seconds: 600,
        any_noise: true,
        rollout: RolloutRules { stages: vec![Stage::Permille(1000)], ..Rules::default().rollout },
        ..Rules::default()
    }
}

#[test]
fn rounds_collect_average_and_publish_and_the_devices_go_on_from_the_new_model() {
    let fleet = Fleet::start("rounds", 4, &["a", "b", "c", "d"]);
    let mirrors = ["a", "b", "c", "d"].map(|name| fleet.believer(name));
    let all: Vec<&Mirror> = mirrors.iter().collect();
    fleet.wait_for_online(4);
    for number in 1..=2 {
        assert_eq!(fleet.start_round(), number);
        fleet.wait_for_model(number, number + 1, &all);
        let RoundStatus { round, tally, .. } = fleet.round(number);
        assert_eq!((tally.counted, tally.refused.len()), (4, 0));
        assert!(round.score_after > round.score_before);
        let sparse = |mirror: &Mirror| {
            let disk = mirror.home.disk.lock().unwrap();
            mirror.home.layout.gather(Subset::Sparse, &disk.head)
        };
        let moved = mean(&sparse(all[0])) - f64::from(START);
        let expected = number as f64 * f64::from(STEP);
        // Hundreds of numbers and four updates share the noise: a standard deviation below 0.001 a round.
        assert!((moved - expected).abs() < 0.005, "moved by {moved}, not by {expected}");
    }
    for mirror in &mirrors {
        wait("receipts", || mirror.watch.read().contributions == 2);
        assert_eq!(mirror.prepared(), 2);
        assert!(mirror.home.disk.lock().unwrap().waiting.is_empty());
    }
    let everywhere = |version: u64| {
        let model = fleet.engine().store().model(version).unwrap().unwrap();
        (model.installed, model.failed) == (4, 0)
    };
    wait("reports of both models", || everywhere(2) && everywhere(3));
    fleet.stop(mirrors.into());
}

#[test]
fn who_withdrew_who_believes_another_key_and_who_is_no_member_send_nothing_that_counts() {
    let enrolled = ["a", "b", "withdrawn", "other-key", "revoked"];
    let fleet = Fleet::start("members", 3, &enrolled);
    let (a, b) = (fleet.believer("a"), fleet.believer("b"));
    let withdrawn = fleet.device("withdrawn", false, &fleet.keys);
    let abroad = fleet.folder.0.join("another-fleet");
    std::fs::create_dir(&abroad).unwrap();
    let foreign = KeyRing::single(Keys::create(&abroad).unwrap().signing.verifying_key());
    let other = fleet.device("other-key", true, &foreign);
    let revoked = fleet.device("revoked", false, &fleet.keys);
    fleet.wait_for_online(5);
    let unknown = fleet.believer("unknown");
    wait("the unknown device", || unknown.watch.read().connected);

    assert_eq!(fleet.start_round(), 1);
    fleet.engine().revoke("revoked", "stolen").unwrap();
    revoked.home.takes_part.store(true, Ordering::SeqCst);
    fleet.wait_for_count(1, 2);
    wait("the revoked device's refusal", || {
        revoked.watch.read().note == Some(Refusal::Revoked.to_string())
    });
    wait("the unknown device's offer", || {
        fleet.server.office.strange.counts().get(&StrangeKind::Name).is_some_and(|&count| count > 0)
    });
    wait("the refusal of a foreign key", || {
        other.watch.read().refused.contains_key("round notice")
    });
    wait("the withdrawn device's round", || withdrawn.watch.read().round == Some(1));
    assert_eq!((withdrawn.prepared(), other.prepared()), (0, 0));
    assert_eq!(fleet.round(1).tally.counted, 2);

    // The round waits for a third: it comes once its owner agrees again.
    withdrawn.home.takes_part.store(true, Ordering::SeqCst);
    fleet.wait_for_model(1, 2, &[&a, &b, &withdrawn]);
    let tally = fleet.round(1).tally;
    assert_eq!(tally.counted, 3);
    assert!(tally.refused.get("revoked").is_some_and(|&count| count > 0), "{tally:?}");
    assert_eq!(
        (withdrawn.prepared(), other.prepared(), unknown.watch.read().contributions),
        (1, 0, 0)
    );
    assert_eq!(other.head(), vec![START; other.head().len()], "a model under another key");
    fleet.stop(vec![a, b, withdrawn, other, revoked, unknown]);
}

#[test]
fn an_update_that_is_offered_twice_counts_once() {
    let fleet = Fleet::start("twice", 3, &["a", "b", "twice"]);
    let (a, b) = (fleet.believer("a"), fleet.believer("b"));
    fleet.wait_for_online(2);
    let round = fleet.start_round();
    fleet.wait_for_count(round, 2);

    let rules = fleet.round(round).round.task.rules().unwrap();
    let mut ledger = fleet.owner.device().unwrap();
    let update = ledger.release(rules.layout, vec![STEP; rules.dimension], noise()).unwrap();
    // The round is full with three, so the second offer comes to one that is over or about to be.
    let verdicts = fleet.runtime.block_on(offer_twice(&fleet, "twice", round, &update));
    assert_eq!(verdicts, [Verdict::Accepted { round }; 2]);
    fleet.wait_for_model(round, 2, &[&a, &b]);
    assert_eq!(fleet.round(round).tally.counted, 3);

    // In the next round it is known, and does not count again.
    let next = fleet.start_round();
    fleet.wait_for_count(next, 2);
    let verdicts = fleet.runtime.block_on(offer_twice(&fleet, "twice", next, &update));
    assert_eq!(verdicts, [Verdict::Accepted { round }; 2]);
    assert_eq!(fleet.round(next).tally.counted, 2);
    fleet.stop(vec![a, b]);
}

/// Says the same offer twice, as a device whose receipt was lost, and gives both answers.
async fn offer_twice(fleet: &Fleet, name: &str, round: u64, update: &[u8]) -> Vec<Verdict> {
    let id: DeviceId = name.parse().unwrap();
    let identity = fleet.secret(name).identity(&channel(), round);
    let offer = UpdateOffer::new(&identity, &channel(), round, update).unwrap();
    let (mut transport, _) = Mqtt::start(endpoint(fleet.broker, &id), Jitter::new(9));
    let mut verdicts = Vec::new();
    while verdicts.len() < 2 {
        let event = tokio::time::timeout(PATIENCE, transport.next()).await.unwrap();
        match event {
            Event::Connected => {
                assert!(transport.subscribe(&Topic::Receipt(identity.pseudonym).to_string()));
                let topic = Topic::Update { name: identity.pseudonym, round, chunk: 0 }.to_string();
                for _ in 0..2 {
                    assert!(transport.publish(&topic, offer.encode().unwrap(), false));
                }
            }
            Event::Message { payload, .. } => {
                let receipt = Signed::<Receipt>::decode(&payload).unwrap();
                verdicts.push(receipt.verify(&fleet.keys).unwrap().verdict);
            }
            other => panic!("{other:?}"),
        }
    }
    transport.close().await;
    verdicts
}
