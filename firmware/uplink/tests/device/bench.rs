//! A device with a scripted mirror and broker. The test decides what arrives, and when time passes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use proto::content::Content;
use proto::model::ModelManifest;
use proto::secret::DeviceSecret;
use proto::signing::{KeyRing, Signed, Statement};
use proto::status::{JobFault, JobPhase, JobState};
use proto::task::{Floor, ReportWindow, RoundNotice, TaskManifest};
use proto::update::{Receipt, Refusal, Verdict};
use proto::{Channel, Digest, Message, Ratio, Topic};
use uplink::device::{Device, Settings};
use uplink::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, Outbox, ReleaseId};
use uplink::pace::Jitter;
use uplink::transport::{Event, Requests};

/// The mirror behind the protocol.
#[derive(Default)]
pub struct Mirror {
    pub takes_part: bool,
    pub waiting: Vec<(ReleaseId, Vec<u8>)>,
    pub prepared: u32,
    pub makes: Option<Vec<u8>>,
    pub published: u32,
    pub given_up: u32,
    pub memory: Memory,
    /// What the disk remembered when an update left the outbox.
    pub at_settling: Option<Memory>,
    pub disk_fails: bool,
    pub tried: Vec<(u64, Vec<u8>)>,
    /// Version of the fleet's model in force.
    pub in_force: u64,
    pub outcome: Option<Result<(), JobFault>>,
}

#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Mirror>>);

impl Shared {
    pub fn with<T>(&self, act: impl FnOnce(&mut Mirror) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
}

impl Outbox for Shared {
    fn waiting(&self, _: &TaskManifest) -> Result<Vec<ReleaseId>, EdgeError> {
        Ok(self.with(|mirror| mirror.waiting.iter().map(|(id, _)| *id).collect()))
    }

    fn bytes(&self, id: ReleaseId) -> Result<Vec<u8>, EdgeError> {
        self.with(|mirror| mirror.waiting.iter().find(|(other, _)| *other == id).cloned())
            .map(|(_, bytes)| bytes)
            .ok_or(EdgeError("gone".into()))
    }

    fn published(&mut self, id: ReleaseId) -> Result<(), EdgeError> {
        self.with(|mirror| {
            mirror.published += 1;
            mirror.at_settling = Some(mirror.memory.clone());
            mirror.waiting.retain(|(other, _)| *other != id);
        });
        Ok(())
    }

    fn refused(&mut self, id: ReleaseId, _: Refusal) -> Result<(), EdgeError> {
        self.with(|mirror| {
            mirror.given_up += 1;
            mirror.at_settling = Some(mirror.memory.clone());
            mirror.waiting.retain(|(other, _)| *other != id);
        });
        Ok(())
    }
}

impl Household for Shared {
    fn floor(&self) -> Option<Floor> {
        self.with(|mirror| mirror.takes_part).then(|| Floor {
            min_noise_multiplier: Ratio::new(6, 5).unwrap(),
            max_clip: Ratio::new(1, 1).unwrap(),
            min_cohort: 10,
            max_update_bytes: 1 << 20,
            model: Digest::of(b"model"),
        })
    }

    fn prepare(&mut self, _: &TaskManifest) -> Result<(), EdgeError> {
        self.with(|mirror| {
            mirror.prepared += 1;
            let made = mirror.makes.take().map(|bytes| (ReleaseId([7; 16]), bytes));
            mirror.waiting.extend(made);
        });
        Ok(())
    }
}

impl ModelTrial for Shared {
    fn base(&self) -> Digest {
        Digest::of(b"base")
    }

    fn version(&self) -> u64 {
        self.with(|mirror| mirror.in_force)
    }

    fn begin(&mut self, version: u64, parameters: Vec<u8>) -> Result<(), JobFault> {
        self.with(|mirror| mirror.tried.push((version, parameters)));
        Ok(())
    }

    fn poll(&mut self) -> Option<Result<(), JobFault>> {
        self.with(|mirror| mirror.outcome.take())
    }
}

impl Keeper for Shared {
    fn keep(&mut self, memory: &Memory) -> Result<(), EdgeError> {
        self.with(|mirror| {
            if mirror.disk_fails {
                return Err(EdgeError("the disk is full".into()));
            }
            mirror.memory = memory.clone();
            Ok(())
        })
    }
}

/// Whether the broker keeps a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept {
    No,
    Seconds(u32),
    Always,
}

/// What went out.
#[derive(Default)]
pub struct Out {
    pub sent: Vec<(String, Vec<u8>, Kept)>,
    pub filters: Vec<String>,
    pub full: bool,
}

impl Out {
    pub fn send(&mut self, topic: &str, payload: Vec<u8>, kept: Kept) -> bool {
        if !self.full {
            self.sent.push((topic.into(), payload, kept));
        }
        !self.full
    }
}

impl Requests for Out {
    fn publish(&mut self, topic: &str, payload: Vec<u8>, retain: bool) -> bool {
        self.send(topic, payload, if retain { Kept::Always } else { Kept::No })
    }

    fn retain_for(&mut self, topic: &str, payload: Vec<u8>, seconds: u32) -> bool {
        self.send(topic, payload, Kept::Seconds(seconds))
    }

    fn subscribe(&mut self, filter: &str) -> bool {
        if !self.full {
            self.filters.push(filter.into());
        }
        !self.full
    }

    fn unsubscribe(&mut self, filter: &str) -> bool {
        if !self.full {
            self.filters.retain(|other| other != filter);
        }
        !self.full
    }
}

pub struct Bench {
    pub mirror: Shared,
    pub device: Device,
    pub out: Out,
    pub now: Duration,
}

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

pub fn channel() -> Channel {
    "stable".parse().unwrap()
}

pub fn secret() -> DeviceSecret {
    DeviceSecret::new([5; 32])
}

pub fn task(round: u64) -> TaskManifest {
    TaskManifest {
        channel: channel(),
        round,
        model_version: 1,
        model: Digest::of(b"model"),
        layout: Digest::of(b"layout"),
        dimension: 100,
        noise_multiplier: Ratio::new(6, 5).unwrap(),
        clip: Ratio::new(1, 1).unwrap(),
        min_cohort: 10,
        max_update_bytes: 1 << 20,
        report: ReportWindow { after_seconds: 60, spread_seconds: 120 },
    }
}

impl Bench {
    pub fn new(bytes: Option<Vec<u8>>) -> Bench {
        let mirror = Shared::default();
        mirror.with(|mirror| (mirror.takes_part, mirror.makes) = (true, bytes));
        Bench::with(mirror)
    }

    /// A mirror that starts, with whatever its disk remembers.
    pub fn with(mirror: Shared) -> Bench {
        Bench::trying(mirror, Duration::ZERO)
    }

    /// [`Bench::with`], telling of no trial before `least_trial`.
    pub fn trying(mirror: Shared, least_trial: Duration) -> Bench {
        let settings = Settings {
            device: "mirror-17".parse().unwrap(),
            channel: channel(),
            firmware: "0.1.0".into(),
            secret: secret(),
            keys: KeyRing::single(key().verifying_key()),
            least_trial,
        };
        let memory = mirror.with(|mirror| mirror.memory.clone());
        let edges = || Box::new(mirror.clone());
        let device = Device::new(settings, memory, Jitter::new(1), edges(), edges(), edges());
        let mut bench = Bench { mirror, device, out: Out::default(), now: Duration::ZERO };
        bench.event(Event::Connected);
        bench
    }

    pub fn event(&mut self, event: Event) {
        self.device.handle(self.now, event, &mut self.out);
    }

    pub fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.device.tick(self.now, &mut self.out);
        }
    }

    pub fn hear(&mut self, topic: Topic, payload: Vec<u8>) {
        self.event(Event::Message { topic: topic.to_string(), payload, retained: false });
    }

    pub fn state<T: Statement>(&mut self, topic: Topic, sequence: u64, statement: &T) {
        let signed = Signed::sign(&key(), sequence, statement).unwrap();
        self.hear(topic, signed.encode().unwrap());
    }

    /// [`Bench::state`] as the broker had kept it, right after a subscription.
    pub fn kept<T: Statement>(&mut self, topic: Topic, sequence: u64, statement: &T) {
        let payload = Signed::sign(&key(), sequence, statement).unwrap().encode().unwrap();
        self.event(Event::Message { topic: topic.to_string(), payload, retained: true });
    }

    pub fn reconnect(&mut self, seconds: u64) {
        self.event(Event::Disconnected("cut".into()));
        self.wait(seconds);
        self.event(Event::Connected);
    }

    pub fn announce(&mut self, sequence: u64, task: TaskManifest) {
        self.state(Topic::Round(channel()), sequence, &RoundNotice::Open(task));
    }

    pub fn close(&mut self, sequence: u64, round: u64) {
        let closed = RoundNotice::Closed { channel: channel(), round };
        self.state(Topic::Round(channel()), sequence, &closed);
    }

    /// Everything sent so far whose topic has this word, taken out.
    pub fn take(&mut self, word: &str) -> Vec<(String, Vec<u8>)> {
        let (taken, left) = std::mem::take(&mut self.out.sent)
            .into_iter()
            .partition(|(topic, ..)| topic.contains(word));
        self.out.sent = left;
        let taken: Vec<(String, Vec<u8>, Kept)> = taken;
        taken.into_iter().map(|(topic, payload, _)| (topic, payload)).collect()
    }

    pub fn receipt(&mut self, round: u64, update: &[u8], verdict: Verdict) {
        let pseudonym = secret().pseudonym(&channel(), round);
        let receipt = Receipt { round, pseudonym, update: Digest::of(update), verdict };
        self.state(Topic::Receipt(pseudonym), round, &receipt);
    }

    pub fn phases(&mut self) -> Vec<JobPhase> {
        let states = self.take("/state");
        states.iter().map(|(_, payload)| JobState::decode(payload).unwrap().phase).collect()
    }
}

pub fn model(version: u64, bytes: &[u8]) -> ModelManifest {
    ModelManifest {
        channel: channel(),
        version,
        base: Digest::of(b"base"),
        content: Content::of(bytes).unwrap(),
        rollout_permille: 1000,
    }
}
