//! What counting updates costs, against what mosquitto spends on delivering them, in the same run.
//!
//! `throughput [UPDATES]`: for updates of 16 KiB and 256 KiB, CPU seconds of mosquitto for taking each from a
//! publisher and giving it to a subscriber (QoS 1, its own clients), once in the clear and once as a fleet runs it: with
//! TLS and client certificates, in chunks of 60 KiB; and of a desk for all that it does, from the signed offer of an enrolled device
//! and the chunks that it asks for to the update's check, commit and signed receipt. Updates are copies of a few noised ones under
//! release ids of their own. Then resident memory with 1,000 and 100,000 devices in one round. Needs mosquitto, its clients and openssl;
//! says so where they are missing.

use std::error::Error;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::carrier::{Incoming, Outgoing};
use aggregator::contributor::Contributor;
use aggregator::desk::Desk;
use aggregator::engine::{Engine, Parts, Rules};
use aggregator::gate::NoGate;
use aggregator::office::Office;
use aggregator::records::{Device, Parameters, Phase, Round, Standing, Task};
use aggregator::store::Store;
use ed25519_dalek::SigningKey;
use learn::edges::{Digest, LayoutId, SystemClock};
use learn::head::{HeadLayout, HeadShape};
use learn::privacy::{Budget, NoiseMultiplier};
use proto::content::{CHUNK_BYTES, chunk, indexes};
use proto::secret::RoundIdentity;
use proto::signing::{KeyRing, Signed};
use proto::update::{ChunksWanted, Receipt, UpdateChunk, UpdateOffer, Verdict};
use proto::wire::{Blob, Message};
use proto::{DeviceId, Topic};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HEADER_AND_DIGEST: usize = 112;
const BATCH: usize = 64;
const ROUND: u64 = 1;

/// Of a head that nothing here trains.
const SHAPE: HeadShape =
    HeadShape { queries: 5, dim: 8, hidden: 12, mask_height: 12, mask_width: 8 };

fn main() -> Result<()> {
    let updates = std::env::args().nth(1).map_or(Ok(2_000), |text| text.parse::<u64>())?;
    let folder = std::env::temp_dir().join(format!("aggregator-throughput-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    println!(
        "| update | mosquitto in the clear, CPU ms | with TLS, in chunks | aggregator | share of clear, of TLS | updates a second |"
    );
    println!("|---|---|---|---|---|---|");
    certificates(&folder)?;
    for kib in [16, 256] {
        let count = if kib == 16 { updates } else { updates / 4 };
        let clear = deliver(&folder, kib * 1024, count, false)?;
        let chunks = (kib * 1024).div_ceil(CHUNK_BYTES);
        let sealed = deliver(&folder, kib * 1024 / chunks, count * chunks as u64, true)?;
        let fleet = Fleet::new(&folder.join(format!("{kib}.redb")), kib * 1024, count)?;
        let Spent { cpu, wall } = fleet.count(count)?;
        let each = |seconds: f64| 1e3 * seconds / count as f64;
        println!(
            "| {kib} KiB | {:.3} | {:.3} | {:.3} | {:.2}, {:.2} | {:.0} |",
            each(clear),
            each(sealed),
            each(cpu),
            cpu / clear,
            cpu / sealed,
            count as f64 / wall
        );
    }
    for devices in [1_000, 100_000] {
        let fleet = Fleet::new(&folder.join(format!("memory-{devices}.redb")), 16 * 1024, devices)?;
        fleet.count(devices)?;
        println!("resident after {devices} devices of one round: {:.1} MiB", resident()?);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A round that takes updates of some size, from devices that are all enrolled.
struct Fleet {
    office: Arc<Office>,
    samples: Vec<Vec<u8>>,
}

/// An update on its way.
struct Sending {
    identity: RoundIdentity,
    bytes: Vec<u8>,
}

/// What the desk has taken, in seconds.
#[derive(Default)]
struct Spent {
    cpu: f64,
    wall: f64,
}

impl Fleet {
    fn new(path: &Path, bytes: usize, devices: u64) -> Result<Fleet> {
        let dimension = (bytes - HEADER_AND_DIGEST) / 2;
        let updates = LayoutId([4; 32]);
        let layout = HeadLayout::of_shape(SHAPE)?;
        let engine = Engine::new(Parts {
            store: Arc::new(Store::create(path)?),
            key: SigningKey::from_bytes(&[1; 32]),
            secrets: [2; 32],
            clock: Arc::new(SystemClock),
            gate: Box::new(NoGate),
            shipped: vec![0.0; layout.len()],
            layout,
            channel: "throughput".parse()?,
            rules: Rules::default(),
        })?;
        let round = round(dimension, &updates);
        engine.store().decide(0, engine.key(), |decision| {
            decision.put_round(&round)?;
            (0..devices).try_for_each(|number| {
                let device = device(number);
                let name = engine.secret(&id(number)).pseudonym(engine.channel(), ROUND);
                decision.put_device(&device)?;
                decision.put_name(ROUND, name, &device.name)
            })
        })?;
        let contributor = Contributor::new(Budget::DEFAULT)?;
        let sample = || -> Result<Vec<u8>> {
            let mut device = contributor.device()?;
            Ok(device.release(updates, vec![0.001; dimension], NoiseMultiplier::DEFAULT)?)
        };
        let samples = (0..8).map(|_| sample()).collect::<Result<_>>()?;
        Ok(Fleet { office: Arc::new(Office::open(engine, 0)?), samples })
    }

    /// What a desk spends on that many updates, from their offers to their signed receipts.
    fn count(&self, updates: u64) -> Result<Spent> {
        let mut desk = Desk::new(Arc::clone(&self.office), 0);
        let mut spent = Spent::default();
        for first in (0..updates).step_by(BATCH) {
            let numbers = first..updates.min(first + BATCH as u64);
            let sendings: Vec<Sending> = numbers.map(|number| self.sending(number)).collect();
            let offers = sendings.iter().map(|sending| self.offer(sending));
            let answers = spent.on(&mut desk, &offers.collect::<Result<Vec<_>>>()?)?;
            let wanted = answers.iter().filter(|answer| matches!(answer.topic, Topic::Wanted(_)));
            let wanted = wanted.map(|answer| Ok(ChunksWanted::decode(&answer.payload)?));
            let wanted = wanted.collect::<Result<Vec<_>>>()?;
            let receipts = if wanted.is_empty() {
                answers
            } else {
                let mut chunks = Vec::new();
                for (wanted, sending) in wanted.iter().zip(&sendings) {
                    chunks.extend(chunks_of(wanted, sending)?);
                }
                spent.on(&mut desk, &chunks)?
            };
            self.check(&receipts, sendings.len())?;
        }
        Ok(spent)
    }

    /// A sample under a release id of its own.
    fn sending(&self, number: u64) -> Sending {
        let sample = &self.samples[(number % self.samples.len() as u64) as usize];
        let mut bytes = sample[..sample.len() - 32].to_vec();
        bytes[16..24].copy_from_slice(&number.to_le_bytes());
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest.0);
        let engine = &self.office.engine;
        let identity = engine.secret(&id(number)).identity(engine.channel(), ROUND);
        Sending { identity, bytes }
    }

    fn offer(&self, Sending { identity, bytes }: &Sending) -> Result<Incoming> {
        let offer = UpdateOffer::new(identity, self.office.engine.channel(), ROUND, bytes)?;
        incoming(&Topic::Update { name: identity.pseudonym, round: ROUND, chunk: 0 }, &offer)
    }

    fn check(&self, receipts: &[Outgoing], count: usize) -> Result<()> {
        let keys = KeyRing::single(self.office.engine.key().verifying_key());
        let mut accepted = 0;
        for receipt in receipts {
            let receipt = Signed::<Receipt>::decode(&receipt.payload)?.verify(&keys)?;
            accepted += usize::from(receipt.verdict == Verdict::Accepted { round: ROUND });
        }
        if accepted == count { Ok(()) } else { Err("an update was not counted".into()) }
    }
}

impl Spent {
    /// What the desk answers to these messages, as one batch.
    fn on(&mut self, desk: &mut Desk, messages: &[Incoming]) -> Result<Vec<Outgoing>> {
        let (began, before) = (Instant::now(), thread_seconds()?);
        messages.iter().try_for_each(|message| desk.take(message))?;
        desk.finish()?;
        let answers = desk.outgoing();
        self.wall += began.elapsed().as_secs_f64();
        self.cpu += thread_seconds()? - before;
        Ok(answers)
    }
}

/// The chunks that a desk asks for of an update.
fn chunks_of(wanted: &ChunksWanted, sending: &Sending) -> Result<Vec<Incoming>> {
    let lane = wanted.lane.ok_or("a desk without a lane")?;
    let chunk_of = |index| {
        let part = chunk(&sending.bytes, index).ok_or("a chunk that the update has not")?;
        let message = UpdateChunk { update: wanted.update, index, bytes: Blob(part.to_vec()) };
        let name = sending.identity.pseudonym;
        incoming(&Topic::Lane { name, lane, round: ROUND, chunk: index }, &message)
    };
    indexes(&wanted.chunks).map(chunk_of).collect()
}

fn incoming<M: Message>(topic: &Topic, message: &M) -> Result<Incoming> {
    let (topic, payload) = (topic.to_string(), message.encode()?);
    Ok(Incoming { topic, payload, retained: false, expiry: None })
}

fn round(dimension: usize, updates: &LayoutId) -> Round {
    let task = Task {
        parameters: Parameters::Sparse,
        dimension,
        layout: updates.to_string(),
        noise_multiplier: NoiseMultiplier::DEFAULT.to_string(),
        minimum_cohort: 2,
        maximum_cohort: u64::MAX,
        base_version: 1,
        base: "00".repeat(32),
    };
    Round {
        id: ROUND,
        task,
        phase: Phase::Collecting,
        announced_at: 0,
        opens_at: 0,
        closes_at: u64::MAX,
        expected_cosine: 0.5,
        forced: false,
        score_before: None,
        score_after: None,
        candidate: None,
    }
}

fn id(number: u64) -> DeviceId {
    format!("mirror-{number}").parse().expect("a device name")
}

fn device(number: u64) -> Device {
    Device {
        name: id(number).to_string(),
        fingerprint: format!("{number:064x}"),
        standing: Standing::Enrolled,
        enrolled_at: 0,
        group: None,
    }
}

/// CPU seconds of this thread so far; the first number of `schedstat` is nanoseconds.
fn thread_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("schedstat")?.parse::<u64>()? as f64 / 1e9)
}

/// CPU seconds of a process so far.
fn process_seconds(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    Ok(text.split(' ').next().ok_or("schedstat")?.parse::<u64>()? as f64 / 1e9)
}

fn resident() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).ok_or("VmRSS")?;
    let kib = line.split_whitespace().nth(1).ok_or("VmRSS")?.parse::<f64>()?;
    Ok(kib / 1024.0)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[&str]) -> Result<Running> {
    let command =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Running(command.map_err(|error| format!("{program} cannot be started: {error}"))?))
}

/// One self-signed certificate that serves as authority, broker and client.
fn certificates(folder: &Path) -> Result<()> {
    let words =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost";
    let done = Command::new("openssl")
        .args(words.split(' '))
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args([Path::new("-keyout"), &folder.join("key.pem")])
        .args([Path::new("-out"), &folder.join("certificate.pem")])
        .stderr(Stdio::null())
        .status()?;
    if done.success() { Ok(()) } else { Err("openssl made no certificate".into()) }
}

/// CPU seconds that mosquitto, one thread, spends on taking and giving `count` messages at QoS 1.
fn deliver(folder: &Path, bytes: usize, count: u64, sealed: bool) -> Result<f64> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = folder.join("mosquitto.conf");
    let certificate = folder.join("certificate.pem").display().to_string();
    let key = folder.join("key.pem").display().to_string();
    let mut text = format!(
        "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
    );
    let mut own: Vec<&str> = Vec::new();
    if sealed {
        text += &format!(
            "cafile {certificate}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
        );
        own = vec!["--cafile", &certificate, "--cert", &certificate, "--key", &key];
    }
    std::fs::File::create(&config)?.write_all(text.as_bytes())?;
    let payload = folder.join("payload");
    std::fs::write(&payload, vec![7; bytes])?;
    let broker = start("mosquitto", &["-c", &config.display().to_string()])?;
    std::thread::sleep(Duration::from_millis(500));
    let (port, many) = (port.to_string(), count.to_string());
    let listen = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "t", "-C", &many, "-N"];
    let mut subscriber = start("mosquitto_sub", &[&listen[..], &own].concat())?;
    std::thread::sleep(Duration::from_millis(300));
    let before = process_seconds(broker.0.id())?;
    let file = payload.display().to_string();
    let sent = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "t", "-f", &file])
        .args(["--repeat", &many])
        .args(&own)
        .args(["--repeat-delay", "0"])
        .status()?;
    if !sent.success() || !subscriber.0.wait()?.success() {
        return Err("mosquitto did not deliver".into());
    }
    Ok(process_seconds(broker.0.id())? - before)
}
