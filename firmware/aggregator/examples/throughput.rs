//! What counting updates costs, against what mosquitto spends on delivering them, in the same run.
//!
//! `throughput [UPDATES]`: for updates of 16 KiB and 256 KiB, CPU seconds of mosquitto for taking each from a
//! publisher and giving it to a subscriber (QoS 1, its own clients), once in the clear and once as a fleet runs it: with
//! TLS and client certificates, in chunks of 64 KiB; and of this thread for decoding, checking and committing it. Updates are copies of a few noised ones under release ids of their own. Then resident memory with
//! 1,000 and 100,000 devices in one round. Needs mosquitto, its clients and openssl; says so where they are missing.

use std::error::Error;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aggregator::contributor::Contributor;
use aggregator::ingest::{Submission, Worker};
use aggregator::records::{Device, Parameters, Phase, Round, Standing, Task};
use aggregator::store::{Fate, Store};
use ed25519_dalek::SigningKey;
use learn::edges::{Digest, LayoutId};
use learn::privacy::{Budget, NoiseMultiplier};
use proto::Pseudonym;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HEADER_AND_DIGEST: usize = 112;
const BATCH: usize = 64;

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
        let chunks = (kib as u64).div_ceil(64);
        let sealed = deliver(&folder, kib * 1024 / chunks as usize, count * chunks, true)?;
        let fleet = Fleet::new(&folder.join(format!("{kib}.redb")), kib * 1024, count)?;
        let (cpu, wall) = fleet.count(count)?;
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

/// A round that takes updates of some size, under names that all belong to one device.
struct Fleet {
    store: Arc<Store>,
    samples: Vec<Vec<u8>>,
}

impl Fleet {
    fn new(path: &Path, bytes: usize, devices: u64) -> Result<Fleet> {
        let dimension = (bytes - HEADER_AND_DIGEST) / 2;
        let layout = LayoutId([4; 32]);
        let store = Arc::new(Store::create(path)?);
        let task = Task {
            parameters: Parameters::Sparse,
            dimension,
            layout: layout.to_string(),
            noise_multiplier: "1.2".into(),
            minimum_cohort: 2,
            maximum_cohort: u64::MAX,
            base_version: 1,
            base: "00".repeat(32),
        };
        let round = Round {
            id: 1,
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
        };
        let device = Device {
            name: "mirror-0".into(),
            fingerprint: "00".repeat(32),
            standing: Standing::Enrolled,
            enrolled_at: 0,
            group: None,
        };
        store.decide(0, &SigningKey::from_bytes(&[1; 32]), |decision| {
            decision.put_round(&round)?;
            decision.put_device(&device)?;
            (0..devices).try_for_each(|number| decision.put_name(1, name(number), &device.name))
        })?;
        let contributor = Contributor::new(Budget::DEFAULT)?;
        let sample = || -> Result<Vec<u8>> {
            let mut device = contributor.device()?;
            Ok(device.release(layout, vec![0.001; dimension], NoiseMultiplier::DEFAULT)?)
        };
        Ok(Fleet { store, samples: (0..8).map(|_| sample()).collect::<Result<_>>()? })
    }

    /// CPU and wall seconds of counting that many.
    fn count(&self, updates: u64) -> Result<(f64, f64)> {
        let mut worker = Worker::new(Arc::clone(&self.store), 0);
        let (mut cpu, mut wall, mut next) = (0.0, 0.0, 0);
        while next < updates {
            let end = (next + BATCH as u64).min(updates);
            let batch: Vec<Submission> =
                (next..end).map(|number| self.submission(number)).collect();
            let (began, spent) = (Instant::now(), thread_seconds()?);
            let receipts = worker.count(&batch)?;
            wall += began.elapsed().as_secs_f64();
            cpu += thread_seconds()? - spent;
            if receipts.iter().any(|receipt| receipt.fate != Fate::Counted) {
                return Err("an update was not counted".into());
            }
            next = end;
        }
        Ok((cpu, wall))
    }

    fn submission(&self, number: u64) -> Submission {
        let sample = &self.samples[(number % self.samples.len() as u64) as usize];
        let mut bytes = sample[..sample.len() - 32].to_vec();
        bytes[16..24].copy_from_slice(&number.to_le_bytes());
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest.0);
        Submission { round: 1, pseudonym: name(number), bytes }
    }
}

fn name(number: u64) -> Pseudonym {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&number.to_le_bytes());
    Pseudonym(name)
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
