//! Mirrors and the real aggregator over a bad network: mosquitto with TLS as the sample configures it, a proxy that stalls,
//! cuts and resets, kills of the broker, of the aggregator's process and of mirrors. No update is lost or counted twice.
//!
//! The mirrors run the real protocol with really noised updates; their clocks go ten times as fast, so that a day's retries
//! fit. mosquitto's own subscriber is the witness of what travels. Needs mosquitto, its clients, and the aggregator built
//! beside this program: `cargo build --workspace --all-targets`, then `target/debug/examples/fleet-network` with
//! FLEET_DEVICES, FLEET_ROUNDS, FLEET_WINDOW (seconds of a round), and FLEET_FULL (every how many rounds all of the decoder's
//! numbers are asked for; 0: never).

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed check

use std::collections::BTreeMap;
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aggregator::commands::fleet::init;
use aggregator::commands::open::{Purpose, open};
use aggregator::config::Config;
use aggregator::contributor::Contributor;
use aggregator::control::{Reply, Request, ask};
use aggregator::engine::{RoundRequest, RoundStatus};
use aggregator::records::{Parameters, Phase};
use learn::edges::LayoutId;
use learn::privacy::{Budget, NoiseMultiplier};
use proto::secret::DeviceSecret;
use proto::signing::KeyRing;
use proto::status::JobFault;
use proto::task::{Floor, TaskManifest};
use proto::update::Refusal;
use proto::wire::MESSAGE_BYTES;
use proto::{Channel, DeviceId, Digest, Ratio, Topic};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, SanType, SerialNumber,
};
use tokio::net::{TcpListener, TcpStream};
use uplink::device::{Device, Settings};
use uplink::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, Outbox, ReleaseId};
use uplink::mqtt::{Endpoint, Mqtt};
use uplink::pace::Jitter;
use uplink::run::{Watch, run_hasty};
use uplink::tls::Identity;

/// How much faster than the world's a mirror's clock goes.
const HASTE: u32 = 10;

/// mosquitto listens within a fraction of a second, and on a busy machine within this.
const BROKER_START: Duration = Duration::from_secs(10);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A round's window, in which everybody must get through; a mirror begins within nine tenths of it by its own clock.
fn window() -> Duration {
    Duration::from_secs(number("FLEET_WINDOW", 120))
}

fn channel() -> Channel {
    "stable".parse().unwrap()
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

    /// The list of revoked certificates, with nothing on it, as PEM.
    fn revoked(&self) -> String {
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        pem("X509 CRL", list.signed_by(&self.issuer).unwrap().der())
    }

    fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.issue(name);
        Identity::from_pem(self.pem.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

struct Broker {
    folder: PathBuf,
    port: u16,
    /// The aggregator's port.
    servers: u16,
    process: Child,
}

impl Broker {
    fn start(authority: &Authority) -> Broker {
        let folder = std::env::temp_dir().join(format!("mirror-fleet-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("store")).unwrap();
        let free = || StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, servers) = (free(), free());
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../board/broker");
        let text = std::fs::read_to_string(sample.join("mosquitto.conf")).unwrap();
        let folder_text = folder.to_str().unwrap();
        let text = text
            .replace("/etc/mosquitto/fleet", folder_text)
            .replace("listener 8883", &format!("listener {port} 127.0.0.1"))
            .replace("listener 8884", &format!("listener {servers}"))
            + &format!("persistence_location {folder_text}/store/\nuser root\n");
        std::fs::write(folder.join("mosquitto.conf"), text).unwrap();
        std::fs::copy(sample.join("acl"), folder.join("acl")).unwrap();
        let (certificate, key) = authority.issue("broker");
        std::fs::write(folder.join("ca.pem"), &authority.pem).unwrap();
        std::fs::write(folder.join("revoked.pem"), authority.revoked()).unwrap();
        std::fs::write(folder.join("broker.pem"), certificate).unwrap();
        std::fs::write(folder.join("broker.key"), key).unwrap();
        let process = Broker::launch(&folder);
        let mut broker = Broker { folder, port, servers, process };
        broker.wait_until_it_listens();
        broker
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + BROKER_START;
        while StdStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.process.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap();
                panic!("mosquitto does not listen ({ended:?}):\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
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
        self.wait_until_it_listens();
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
    model: Digest,
    owner: Arc<Contributor>,
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
        Some(Floor {
            min_noise_multiplier: Ratio::new(6, 5).unwrap(),
            max_clip: Ratio::new(1, 1).unwrap(),
            min_cohort: 2,
            max_update_bytes: 1 << 20,
            model: self.model,
        })
    }

    fn prepare(&mut self, task: &TaskManifest) -> Result<(), EdgeError> {
        let numbers = vec![0.001; task.dimension as usize];
        let layout = LayoutId(task.layout.0);
        let mut device = self.owner.device().unwrap();
        let bytes = device.release(layout, numbers, NoiseMultiplier::DEFAULT).unwrap();
        let mut disk = self.disk.lock().unwrap();
        disk.made += 1;
        let name = Digest::of(&bytes).0;
        disk.waiting.insert(ReleaseId(std::array::from_fn(|index| name[index])), bytes);
        Ok(())
    }
}

impl ModelTrial for Mirror {
    fn base(&self) -> Digest {
        self.model
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

/// Who believes whom.
struct Trust {
    secret: DeviceSecret,
    keys: KeyRing,
}

/// Starts a mirror from its disk. Aborting the task is a power cut.
fn start_mirror(
    mirror: &Mirror,
    trust: &Trust,
    endpoint: &Endpoint,
    device: &DeviceId,
) -> tokio::task::JoinHandle<()> {
    let settings = Settings {
        device: device.clone(),
        channel: channel(),
        firmware: "0.1.0".into(),
        secret: trust.secret.clone(),
        keys: trust.keys.clone(),
        least_trial: Duration::ZERO,
    };
    let memory = mirror.disk.lock().unwrap().memory.clone();
    let edge = || Box::new(mirror.clone());
    let device = Device::new(settings, memory, Jitter::new(mirror.number), edge(), edge(), edge());
    let (transport, _) = Mqtt::start(endpoint.clone(), Jitter::new(mirror.number));
    tokio::spawn(run_hasty(device, transport, Watch::default(), HASTE))
}

// ---- the aggregator ----

struct Aggregator {
    settings: PathBuf,
    config: Config,
    process: Child,
}

impl Aggregator {
    /// Database, keys and devices are made before the server starts; gives the mirrors' trust too.
    fn start(broker: &Broker, authority: &Authority, names: &[String]) -> (Aggregator, Vec<Trust>) {
        let folder = &broker.folder;
        let (certificate, key) = authority.issue("aggregator");
        std::fs::write(folder.join("aggregator.pem"), certificate).unwrap();
        std::fs::write(folder.join("aggregator.key"), key).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (at, port, cohort) = (folder.display(), broker.servers, names.len());
        let window = window().as_secs();
        let text = format!(
            "channel = \"stable\"\ndata = \"{at}/fleet\"\nmodel = \"{}/models/student\"\n[broker]\nhost = \"127.0.0.1\"\n\
             port = {port}\nworkers = 3\n[broker.tls]\nauthority = \"{at}/ca.pem\"\ncertificate = \"{at}/aggregator.pem\"\n\
             key = \"{at}/aggregator.key\"\n[page]\nlisten = \"127.0.0.1:0\"\n[rounds]\nminimum_cohort = 2\n\
             maximum_cohort = {cohort}\nlead_seconds = 0\nwindow_seconds = {window}\nkeep = 100\n",
            root.display()
        );
        let settings = folder.join("aggregator.toml");
        std::fs::write(&settings, text).unwrap();
        let config = Config::read(&settings).unwrap();
        init(&config).unwrap();
        let engine = open(&config, Purpose::Look).unwrap();
        let trust = |(number, name): (usize, &String)| {
            engine.enrol(name, &format!("{number:064x}")).unwrap();
            let keys = KeyRing::from_text(&engine.public_key()).unwrap();
            Trust { secret: engine.secret(&name.parse().unwrap()), keys }
        };
        let trust = names.iter().enumerate().map(trust).collect();
        drop(engine);
        let process = Aggregator::launch(&settings);
        (Aggregator { settings, config, process }, trust)
    }

    fn launch(settings: &Path) -> Child {
        // Examples lie one folder below the workspace's programs.
        let here = std::env::current_exe().unwrap();
        let program = here.parent().and_then(Path::parent).unwrap().join("aggregator");
        let mut command = Command::new(&program);
        command.args(["serve", "--config"]).arg(settings).env("RUST_LOG", "error");
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
    }

    /// SIGKILL: what its workers had in memory is gone, what they acknowledged is not.
    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Aggregator::launch(&self.settings);
    }

    async fn ask(&self, request: Request) -> Reply {
        let socket = self.config.socket();
        for _ in 0..600 {
            if UnixStream::connect(&socket).is_ok()
                && let Ok(Some(reply)) = ask(&socket, &request)
            {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the aggregator does not answer")
    }

    async fn round(&self, number: u64) -> RoundStatus {
        let Reply::Status(status) = self.ask(Request::Status).await else { panic!("no status") };
        status.rounds.into_iter().find(|round| round.round.id == number).unwrap()
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// ---- the witness ----

/// mosquitto's own subscriber, which writes topic and length of every message into a file; another file after every restart.
struct Witness {
    process: Child,
    files: Vec<PathBuf>,
}

impl Witness {
    fn start(broker: &Broker) -> Witness {
        let file = broker.folder.join("heard-0");
        Witness { process: Witness::launch(broker, &file), files: vec![file] }
    }

    /// The subscriber ends with its broker.
    fn restart(&mut self, broker: &Broker) {
        self.stop();
        let file = broker.folder.join(format!("heard-{}", self.files.len()));
        self.process = Witness::launch(broker, &file);
        self.files.push(file);
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn launch(broker: &Broker, heard: &Path) -> Child {
        let file = |name: &str| broker.folder.join(name).display().to_string();
        let mut command = Command::new("mosquitto_sub");
        command
            .args(["-V", "mqttv5", "-h", "127.0.0.1", "-q", "1", "-t", "mirror/v1/#"])
            .args(["-p", &broker.servers.to_string(), "-F", "%t %l"])
            .args(["--cafile", &file("ca.pem"), "--cert", &file("aggregator.pem")])
            .args(["--key", &file("aggregator.key")])
            .stdout(std::fs::File::create(heard).unwrap())
            .stderr(Stdio::null());
        command.spawn().expect("mosquitto's clients are installed")
    }

    /// Every topic is one of the protocol, and nothing is longer than a message of it. Gives messages and bytes.
    fn check(&mut self) -> (usize, usize) {
        self.stop();
        let (mut messages, mut bytes) = (0, 0);
        for file in &self.files {
            let text = std::fs::read_to_string(file).unwrap();
            // The last line may be half.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                bytes += checked_length(line.trim_end());
                messages += 1;
            }
        }
        assert!(messages > 0, "the witness heard nothing");
        (messages, bytes)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop();
    }
}

fn checked_length(line: &str) -> usize {
    let (topic, length) = line.rsplit_once(' ').unwrap();
    topic.parse::<Topic>().unwrap_or_else(|error| panic!("{topic}: {error}"));
    let length: usize = length.parse().unwrap();
    assert!(length <= MESSAGE_BYTES, "{topic}: {length} bytes");
    length
}

fn endpoint(identity: &Identity, port: u16) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".into(),
        port,
        client_id: identity.client_id.clone(),
        tls: Some(identity.config.clone()),
        certificate_end: Some(identity.end),
        login: None,
        will: Device::will(&identity.device),
        persistent: true,
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (devices, rounds) = (number("FLEET_DEVICES", 20), number("FLEET_ROUNDS", 5));
    runtime.block_on(fleet(devices, rounds, number("FLEET_FULL", 3)));
}

struct Fleet {
    broker: Broker,
    aggregator: Aggregator,
    mirrors: Vec<(Mirror, Endpoint, DeviceId, tokio::task::JoinHandle<()>)>,
    trust: Vec<Trust>,
    witness: Witness,
    kills: [u64; 3],
}

impl Fleet {
    /// One fault of each kind in turn, in the middle of a round.
    fn hurt(&mut self, round: u64) {
        self.kills[(round % 3) as usize] += 1;
        match round % 3 {
            0 => {
                self.broker.restart();
                self.witness.restart(&self.broker);
            }
            1 => self.aggregator.restart(),
            _ => {
                let place = (round % self.mirrors.len() as u64) as usize;
                let (mirror, endpoint, device, task) = &mut self.mirrors[place];
                task.abort();
                *task = start_mirror(mirror, &self.trust[place], endpoint, device);
            }
        }
    }

    fn published(&self) -> u64 {
        self.mirrors.iter().map(|(mirror, ..)| mirror.disk.lock().unwrap().published).sum()
    }

    /// Opens a round, hurts somebody when half has come in, and waits until every mirror has its receipt.
    async fn round(&mut self, round: u64, parameters: Parameters) {
        let devices = self.mirrors.len() as u64;
        let request = RoundRequest { parameters, noise_multiplier: "1.2".into(), force: true };
        let reply = self.aggregator.ask(Request::RoundStart(request)).await;
        assert!(matches!(&reply, Reply::Round(open) if open.round.id == round), "{reply:?}");
        let (opened, mut hurt) = (Instant::now(), false);
        while self.published() < round * devices {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !hurt && self.published() >= (round - 1) * devices + devices / 2 {
                hurt = true;
                self.hurt(round);
            }
            assert!(opened.elapsed() < window(), "round {round} does not end");
        }
        // Everybody is there, so it closes and is averaged at once.
        let mut known = self.aggregator.round(round).await;
        while known.round.phase != Phase::Averaged {
            assert!(opened.elapsed() < window(), "{:?}", known.round.phase);
            tokio::time::sleep(Duration::from_millis(100)).await;
            known = self.aggregator.round(round).await;
        }
        assert_eq!(known.tally.counted, devices, "round {round}");
        // Nobody judges here, so nothing would be published: the next round starts from the same model.
        let reason = "the network is what is tried here".to_owned();
        self.aggregator.ask(Request::RoundAbort { round, reason }).await;
        println!("round {round}: {devices} updates, {:.0} s", opened.elapsed().as_secs_f64());
    }
}

async fn fleet(devices: u64, rounds: u64, full_every: u64) {
    let authority = Authority::new();
    let broker = Broker::start(&authority);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad_port = listener.local_addr().unwrap().port();
    tokio::spawn(proxy(listener, broker.port));
    let names: Vec<String> = (0..devices).map(|number| format!("mirror-{number}")).collect();
    let (aggregator, trust) = Aggregator::start(&broker, &authority, &names);
    let witness = Witness::start(&broker);
    let Reply::Status(status) = aggregator.ask(Request::Status).await else { panic!("no status") };
    let model: Digest = status.models[0].model.parameters.parse().unwrap();
    let owner = Arc::new(Contributor::new(Budget::DEFAULT).unwrap());
    let mut mirrors = Vec::new();
    for (number, (name, trust)) in names.iter().zip(&trust).enumerate() {
        let identity = authority.identity(name);
        let (number, owner) = (number as u64, Arc::clone(&owner));
        let mirror = Mirror { number, model, owner, disk: Arc::default() };
        let endpoint = endpoint(&identity, bad_port);
        let task = start_mirror(&mirror, trust, &endpoint, &identity.device);
        mirrors.push((mirror, endpoint, identity.device, task));
    }
    let began = Instant::now();
    let mut fleet = Fleet { broker, aggregator, mirrors, trust, witness, kills: [0; 3] };
    for round in 1..=rounds {
        let full = full_every > 0 && round % full_every == 0;
        fleet.round(round, if full { Parameters::Full } else { Parameters::Sparse }).await;
    }
    for (mirror, ..) in &fleet.mirrors {
        let disk = mirror.disk.lock().unwrap();
        assert_eq!((disk.published, disk.made, disk.waiting.len()), (rounds, rounds, 0));
    }
    let verified = fleet.aggregator.ask(Request::AuditVerify).await;
    let Reply::Verified(verified) = verified else { panic!("{verified:?}") };
    assert_eq!((verified.rounds, verified.updates), (rounds, rounds * devices));
    let (messages, bytes) = fleet.witness.check();
    // The updates of a round come in over seconds, so there is always a middle of it.
    assert_eq!(fleet.kills.iter().sum::<u64>(), rounds, "a round went by without a kill");
    let [broker, aggregator, mirrors] = fleet.kills;
    println!(
        "{} updates of {devices} mirrors counted once each, 0 lost, 0 doubled, in {:.0} s; the audit holds; kills: {broker} of \
         the broker, {aggregator} of the aggregator, {mirrors} of mirrors; the witness heard {messages} messages, {bytes} bytes",
        verified.updates,
        began.elapsed().as_secs_f64(),
    );
}
