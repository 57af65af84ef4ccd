//! Mirrors and an aggregator over a bad network: mosquitto with TLS as the sample configures it, a proxy that stalls,
//! cuts and resets, restarts of the broker, deaths of the aggregator, duplicates. No update is lost or counted twice.
//!
//! The mirrors run the real protocol; the aggregator is the smallest honest one, with a durable set of what it counted
//! and a memory that dies with it. Needs mosquitto:
//! `cargo run -p system-tests --example fleet-network`, with FLEET_DEVICES and FLEET_ROUNDS.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed check

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use proto::content::{CHUNK_BYTES, Reassembly};
use proto::secret::DeviceSecret;
use proto::signing::{KeyRing, Signed};
use proto::status::JobFault;
use proto::task::{Floor, ReportWindow, RoundNotice, TaskManifest};
use proto::topic::filter;
use proto::update::{ChunksWanted, Receipt, Refusal, UpdateChunk, UpdateOffer, Verdict};
use proto::{Channel, DeviceId, Digest, Message, Pseudonym, Ratio, Topic};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio::net::{TcpListener, TcpStream};
use uplink::device::{Device, Settings};
use uplink::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, Outbox, ReleaseId};
use uplink::mqtt::{Endpoint, Mqtt};
use uplink::pace::Jitter;
use uplink::run::{Watch, run};
use uplink::tls::Identity;
use uplink::transport::{Event, Transport};

const FLEET_SECRET: [u8; 32] = [9; 32];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn channel() -> Channel {
    "stable".parse().unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

// ---- certificates and the broker ----

/// PEM (RFC 7468) of DER.
fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, group) in der.chunks(3).enumerate() {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", text.trim_end())
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "a fleet");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = pem("CERTIFICATE", parameters.self_signed(&key).unwrap().der());
        Authority { pem, issuer: Issuer::new(parameters, key) }
    }

    /// Certificate and key, as PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
    }

    fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.issue(name);
        Identity::from_pem(self.pem.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

struct Broker {
    folder: PathBuf,
    port: u16,
    process: Child,
}

impl Broker {
    fn start(authority: &Authority) -> Broker {
        let folder = std::env::temp_dir().join(format!("mirror-fleet-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("store")).unwrap();
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../board/broker");
        let text = std::fs::read_to_string(sample.join("mosquitto.conf")).unwrap();
        let folder_text = folder.to_str().unwrap();
        let text = text
            .replace("/etc/mosquitto/fleet", folder_text)
            .replace("/var/lib/mosquitto/", &format!("{folder_text}/store/"))
            .replace("listener 8883", &format!("listener {port} 127.0.0.1"));
        std::fs::write(folder.join("mosquitto.conf"), text + "user root\n").unwrap();
        std::fs::copy(sample.join("acl"), folder.join("acl")).unwrap();
        let (certificate, key) = authority.issue("broker");
        std::fs::write(folder.join("ca.pem"), &authority.pem).unwrap();
        std::fs::write(folder.join("broker.pem"), certificate).unwrap();
        std::fs::write(folder.join("broker.key"), key).unwrap();
        let process = Broker::launch(&folder);
        Broker { folder, port, process }
    }

    fn launch(folder: &Path) -> Child {
        let log =
            std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(folder.join("mosquitto.conf"));
        command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("mosquitto is installed")
    }

    /// SIGKILL, as a power cut would: what mosquitto had not saved is gone.
    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Broker::launch(&self.folder);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

// ---- the bad network ----

async fn proxy(listener: TcpListener, port: u16) {
    let mut jitter = Jitter::new(11);
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let life = Duration::from_millis(500) + jitter.within(Duration::from_secs(12));
        let fate = jitter.within(Duration::from_millis(2)).as_millis();
        tokio::spawn(pass(client, port, life, fate));
    }
}

/// Passes bytes for a while, then cuts (0), resets (1), or stalls for three seconds and cuts later (2).
async fn pass(mut client: TcpStream, port: u16, life: Duration, fate: u128) {
    let Ok(mut broker) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let copy = tokio::io::copy_bidirectional(&mut client, &mut broker);
    if tokio::time::timeout(life, copy).await.is_ok() {
        return;
    }
    match fate {
        0 => {}
        1 => {
            let _ = (client.set_zero_linger(), broker.set_zero_linger());
        }
        _ => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let copy = tokio::io::copy_bidirectional(&mut client, &mut broker);
            let _ = tokio::time::timeout(life, copy).await;
        }
    }
}

// ---- mirrors ----

#[derive(Default)]
struct Disk {
    waiting: BTreeMap<ReleaseId, Vec<u8>>,
    published: u64,
    made: u64,
    memory: Memory,
}

#[derive(Clone)]
struct Mirror {
    number: u64,
    disk: Arc<Mutex<Disk>>,
}

impl Outbox for Mirror {
    fn waiting(&self, _: &TaskManifest) -> Result<Vec<ReleaseId>, EdgeError> {
        Ok(self.disk.lock().unwrap().waiting.keys().copied().collect())
    }

    fn bytes(&self, id: ReleaseId) -> Result<Vec<u8>, EdgeError> {
        self.disk.lock().unwrap().waiting.get(&id).cloned().ok_or(EdgeError("gone".into()))
    }

    fn published(&mut self, id: ReleaseId) -> Result<(), EdgeError> {
        let mut disk = self.disk.lock().unwrap();
        disk.published += u64::from(disk.waiting.remove(&id).is_some());
        Ok(())
    }

    fn refused(&mut self, id: ReleaseId, reason: Refusal) -> Result<(), EdgeError> {
        panic!("{id:?} of mirror {} was refused: {reason}", self.number)
    }
}

impl Household for Mirror {
    fn floor(&self) -> Option<Floor> {
        let one = Ratio::new(1, 1).unwrap();
        let (min_noise_multiplier, max_clip) = (one, one);
        let (min_cohort, max_update_bytes, model) = (1, 1 << 20, Digest([0; 32]));
        Some(Floor { min_noise_multiplier, max_clip, min_cohort, max_update_bytes, model })
    }

    fn prepare(&mut self, task: &TaskManifest) -> Result<(), EdgeError> {
        let mut disk = self.disk.lock().unwrap();
        disk.made += 1;
        // Every third update takes three chunks.
        let length = if (self.number + task.round) % 3 == 0 { 2 * CHUNK_BYTES + 9 } else { 2000 };
        let mut bytes = vec![7; length];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&task.round.to_le_bytes());
        disk.waiting.insert(ReleaseId(std::array::from_fn(|index| bytes[index])), bytes);
        Ok(())
    }
}

impl ModelTrial for Mirror {
    fn base(&self) -> Digest {
        Digest([0; 32])
    }

    fn begin(&mut self, _: u64, _: Vec<u8>) -> Result<(), JobFault> {
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), JobFault>> {
        Some(Ok(()))
    }
}

impl Keeper for Mirror {
    fn keep(&mut self, memory: &Memory) -> Result<(), EdgeError> {
        self.disk.lock().unwrap().memory = memory.clone();
        Ok(())
    }
}

/// Starts a mirror from its disk. Aborting the task is a power cut.
fn start_mirror(
    mirror: &Mirror,
    endpoint: &Endpoint,
    device: &DeviceId,
) -> tokio::task::JoinHandle<()> {
    let settings = Settings {
        device: device.clone(),
        channel: channel(),
        firmware: "0.1.0".into(),
        secret: DeviceSecret::derive(&FLEET_SECRET, device),
        keys: KeyRing::single(key().verifying_key()),
    };
    let memory = mirror.disk.lock().unwrap().memory.clone();
    let edge = || Box::new(mirror.clone());
    let device = Device::new(settings, memory, Jitter::new(mirror.number), edge(), edge(), edge());
    let (transport, _) = Mqtt::start(endpoint.clone(), Jitter::new(mirror.number));
    tokio::spawn(run(device, transport, Watch::default()))
}

// ---- the aggregator ----

/// What survives the aggregator's death.
#[derive(Default)]
struct Counted {
    round_of: BTreeMap<Digest, u64>,
    slots: BTreeSet<(u64, Pseudonym)>,
    offers: u64,
}

struct Aggregator<T> {
    transport: T,
    connected: bool,
    parts: BTreeMap<Pseudonym, (u64, Reassembly)>,
}

impl<T: Transport> Aggregator<T> {
    fn new(transport: T) -> Aggregator<T> {
        Aggregator { transport, connected: false, parts: BTreeMap::new() }
    }

    async fn step(
        &mut self,
        round: u64,
        counted: &mut Counted,
        names: &BTreeMap<Pseudonym, DeviceId>,
    ) {
        match tokio::time::timeout(Duration::from_millis(200), self.transport.next()).await {
            Ok(Event::Connected) => {
                self.transport.subscribe(filter::UPDATES);
                self.transport.subscribe(&filter::lane(1));
                self.announce(round);
                self.connected = true;
            }
            Ok(Event::Disconnected(_)) => self.connected = false,
            Ok(Event::Message { topic, payload }) => {
                self.message(&topic, &payload, counted, names);
                if counted.offers % 7 == 0 {
                    self.message(&topic, &payload, counted, names); // delivered twice
                }
            }
            _ => {}
        }
    }

    fn announce(&mut self, round: u64) {
        let one = Ratio::new(1, 1).unwrap();
        let task = TaskManifest {
            channel: channel(),
            round,
            model_version: 1,
            model: Digest([0; 32]),
            layout: Digest([0; 32]),
            dimension: 1,
            noise_multiplier: one,
            clip: one,
            min_cohort: 1,
            max_update_bytes: 1 << 20,
            report: ReportWindow { after_seconds: 0, spread_seconds: 2 },
        };
        let notice = Signed::sign(&key(), round, &RoundNotice::Open(task)).unwrap();
        self.transport.publish(
            &Topic::Round(channel()).to_string(),
            notice.encode().unwrap(),
            true,
        );
    }

    fn message(
        &mut self,
        topic: &str,
        payload: &[u8],
        counted: &mut Counted,
        names: &BTreeMap<Pseudonym, DeviceId>,
    ) {
        match topic.parse::<Topic>().unwrap() {
            Topic::Update(name, round, 0) => {
                counted.offers += 1;
                let device = &names[&name];
                let key =
                    DeviceSecret::derive(&FLEET_SECRET, device).verifying_key(&channel(), round);
                let offer = UpdateOffer::decode(payload).unwrap();
                let (manifest, first) = offer.verify(&key, name, round).unwrap();
                let update = manifest.content.sha256;
                if let Some(&earlier) = counted.round_of.get(&update) {
                    return self.receipt(round, name, update, earlier);
                }
                let place = self
                    .parts
                    .entry(name)
                    .or_insert_with(|| (round, Reassembly::new(manifest.content)));
                place.1.take(update, 0, first).unwrap();
                self.advance(name, counted);
            }
            Topic::Lane(name, 1, _, index) => {
                let chunk = UpdateChunk::decode(payload).unwrap();
                // A worker that died has forgotten the offer; it comes again.
                let Some((_, parts)) = self.parts.get_mut(&name) else { return };
                assert_eq!(chunk.index, index);
                parts.take(chunk.update, index, chunk.bytes.0).unwrap();
                if parts.missing() == 0 {
                    self.advance(name, counted);
                }
            }
            other => panic!("{other} was not subscribed to"),
        }
    }

    fn advance(&mut self, name: Pseudonym, counted: &mut Counted) {
        let Some((round, parts)) = self.parts.get(&name) else { return };
        let (round, update) = (*round, parts.content().sha256);
        if parts.finish().unwrap().is_none() {
            let (lane, chunks) = (Some(1), parts.missing_ranges(8));
            let wanted = ChunksWanted { round, update, lane, chunks }.encode().unwrap();
            self.transport.publish(&Topic::Wanted(name).to_string(), wanted, false);
            return;
        }
        self.parts.remove(&name);
        assert!(counted.slots.insert((round, name)), "two updates of one device in round {round}");
        assert_eq!(counted.round_of.insert(update, round), None, "counted twice");
        self.receipt(round, name, update, round);
    }

    fn receipt(&mut self, round: u64, pseudonym: Pseudonym, update: Digest, counted: u64) {
        let receipt =
            Receipt { round, pseudonym, update, verdict: Verdict::Accepted { round: counted } };
        let signed = Signed::sign(&key(), round, &receipt).unwrap().encode().unwrap();
        self.transport.publish(&Topic::Receipt(pseudonym).to_string(), signed, false);
    }
}

fn endpoint(identity: &Identity, port: u16) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".into(),
        port,
        client_id: identity.client_id.clone(),
        tls: Some(identity.config.clone()),
        login: None,
        will: Device::will(&identity.device),
        persistent: true,
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fleet(number("FLEET_DEVICES", 20), number("FLEET_ROUNDS", 5)));
}

async fn fleet(devices: u64, rounds: u64) {
    let authority = Authority::new();
    let mut broker = Broker::start(&authority);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad_port = listener.local_addr().unwrap().port();
    tokio::spawn(proxy(listener, broker.port));

    let mut mirrors = Vec::new();
    for number in 0..devices {
        let identity = authority.identity(&format!("mirror-{number}"));
        let mirror = Mirror { number, disk: Arc::default() };
        let endpoint = endpoint(&identity, bad_port);
        let task = start_mirror(&mirror, &endpoint, &identity.device);
        mirrors.push((mirror, endpoint, identity.device, task));
    }
    let aggregator_at = endpoint(&authority.identity("aggregator"), broker.port);
    let connect = || Aggregator::new(Mqtt::start(aggregator_at.clone(), Jitter::new(1)).0);
    let mut aggregator = connect();
    let mut counted = Counted::default();
    let began = Instant::now();
    let (mut deaths, mut restarts, mut power_cuts) = (0, 0, 0);
    for round in 1..=rounds {
        let secret = |device: &DeviceId| DeviceSecret::derive(&FLEET_SECRET, device);
        let of_round = |round: u64| {
            mirrors.iter().map(move |(_, _, device, _)| {
                (secret(device).pseudonym(&channel(), round), device.clone())
            })
        };
        let names: BTreeMap<_, _> = (1..=round).flat_map(of_round).collect();
        if aggregator.connected {
            aggregator.announce(round);
        }
        let (opened, mut hurt) = (Instant::now(), false);
        loop {
            aggregator.step(round, &mut counted, &names).await;
            let half = counted.slots.len() as u64 > (round - 1) * devices + devices / 2;
            if half && !hurt {
                hurt = true;
                match round % 3 {
                    0 => {
                        broker.restart();
                        restarts += 1;
                    }
                    1 => {
                        aggregator = connect(); // what it had in memory is gone
                        deaths += 1;
                    }
                    _ => {
                        let (mirror, endpoint, device, task) =
                            &mut mirrors[(round % devices) as usize];
                        task.abort();
                        *task = start_mirror(mirror, endpoint, device);
                        power_cuts += 1;
                    }
                }
            }
            let done = |mirror: &Mirror| mirror.disk.lock().unwrap().published == round;
            if mirrors.iter().all(|(mirror, ..)| done(mirror)) {
                break;
            }
            assert!(opened.elapsed() < Duration::from_secs(300), "round {round} does not end");
        }
        println!("round {round}: {:.0} s", opened.elapsed().as_secs_f64());
    }
    assert_eq!(counted.slots.len() as u64, devices * rounds);
    for (mirror, ..) in &mirrors {
        let disk = mirror.disk.lock().unwrap();
        assert_eq!((disk.published, disk.made, disk.waiting.len()), (rounds, rounds, 0));
    }
    println!(
        "{} updates of {devices} mirrors counted once each, 0 lost, 0 doubled, in {:.0} s; {} offers arrived; \
         {restarts} kills of the broker, {deaths} deaths of the aggregator, {power_cuts} of mirrors",
        counted.slots.len(),
        began.elapsed().as_secs_f64(),
        counted.offers
    );
}
