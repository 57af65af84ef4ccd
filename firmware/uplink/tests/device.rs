//! The device's protocol against a scripted fleet. The test decides what arrives, and when time passes.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use proto::content::{CHUNK_BYTES, ChunkRange, Content, Reassembly, chunk, indexes};
use proto::model::{ModelChunk, ModelManifest, ModelWanted};
use proto::secret::DeviceSecret;
use proto::signing::{KeyId, KeyRing, Signed, Statement};
use proto::status::{JobFault, JobNotice, JobPhase, JobState, Status};
use proto::task::{Floor, ReportWindow, RoundNotice, TaskManifest};
use proto::update::{ChunksWanted, Receipt, Refusal, UpdateChunk, UpdateOffer, Verdict};
use proto::wire::Blob;
use proto::{Channel, Digest, Message, Ratio, Topic};
use uplink::device::{Device, Settings, Snapshot};
use uplink::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, Outbox, ReleaseId};
use uplink::pace::Jitter;
use uplink::transport::{Event, Requests};

/// The mirror behind the protocol.
#[derive(Default)]
struct Mirror {
    takes_part: bool,
    waiting: Vec<(ReleaseId, Vec<u8>)>,
    prepared: u32,
    makes: Option<Vec<u8>>,
    published: u32,
    given_up: u32,
    memory: Memory,
    /// What the disk remembered when an update left the outbox.
    at_settling: Option<Memory>,
    disk_fails: bool,
    tried: Vec<(u64, Vec<u8>)>,
    /// Version of the fleet's model in force.
    in_force: u64,
    outcome: Option<Result<(), JobFault>>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Mirror>>);

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut Mirror) -> T) -> T {
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
enum Kept {
    No,
    Seconds(u32),
    Always,
}

/// What went out.
#[derive(Default)]
struct Out {
    sent: Vec<(String, Vec<u8>, Kept)>,
    filters: Vec<String>,
    full: bool,
}

impl Out {
    fn send(&mut self, topic: &str, payload: Vec<u8>, kept: Kept) -> bool {
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

struct Bench {
    mirror: Shared,
    device: Device,
    out: Out,
    now: Duration,
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn channel() -> Channel {
    "stable".parse().unwrap()
}

fn secret() -> DeviceSecret {
    DeviceSecret::new([5; 32])
}

fn task(round: u64) -> TaskManifest {
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
    fn new(bytes: Option<Vec<u8>>) -> Bench {
        let mirror = Shared::default();
        mirror.with(|mirror| (mirror.takes_part, mirror.makes) = (true, bytes));
        Bench::with(mirror)
    }

    /// A mirror that starts, with whatever its disk remembers.
    fn with(mirror: Shared) -> Bench {
        Bench::trying(mirror, Duration::ZERO)
    }

    /// The same, which tells of no trial before this.
    fn trying(mirror: Shared, least_trial: Duration) -> Bench {
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

    fn event(&mut self, event: Event) {
        self.device.handle(self.now, event, &mut self.out);
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.device.tick(self.now, &mut self.out);
        }
    }

    fn hear(&mut self, topic: Topic, payload: Vec<u8>) {
        self.event(Event::Message { topic: topic.to_string(), payload, retained: false });
    }

    fn state<T: Statement>(&mut self, topic: Topic, sequence: u64, statement: &T) {
        let signed = Signed::sign(&key(), sequence, statement).unwrap();
        self.hear(topic, signed.encode().unwrap());
    }

    /// The same as the broker had kept it, right after a subscription.
    fn kept<T: Statement>(&mut self, topic: Topic, sequence: u64, statement: &T) {
        let payload = Signed::sign(&key(), sequence, statement).unwrap().encode().unwrap();
        self.event(Event::Message { topic: topic.to_string(), payload, retained: true });
    }

    fn reconnect(&mut self, seconds: u64) {
        self.event(Event::Disconnected("cut".into()));
        self.wait(seconds);
        self.event(Event::Connected);
    }

    fn announce(&mut self, sequence: u64, task: TaskManifest) {
        self.state(Topic::Round(channel()), sequence, &RoundNotice::Open(task));
    }

    fn close(&mut self, sequence: u64, round: u64) {
        let closed = RoundNotice::Closed { channel: channel(), round };
        self.state(Topic::Round(channel()), sequence, &closed);
    }

    /// Everything sent so far whose topic has this word, taken out.
    fn take(&mut self, word: &str) -> Vec<(String, Vec<u8>)> {
        let (taken, left) = std::mem::take(&mut self.out.sent)
            .into_iter()
            .partition(|(topic, ..)| topic.contains(word));
        self.out.sent = left;
        let taken: Vec<(String, Vec<u8>, Kept)> = taken;
        taken.into_iter().map(|(topic, payload, _)| (topic, payload)).collect()
    }

    fn receipt(&mut self, round: u64, update: &[u8], verdict: Verdict) {
        let pseudonym = secret().pseudonym(&channel(), round);
        let receipt = Receipt { round, pseudonym, update: Digest::of(update), verdict };
        self.state(Topic::Receipt(pseudonym), round, &receipt);
    }

    fn phases(&mut self) -> Vec<JobPhase> {
        let states = self.take("/state");
        states.iter().map(|(_, payload)| JobState::decode(payload).unwrap().phase).collect()
    }
}

#[test]
fn a_birth_is_retained_and_subscriptions_are_made_at_every_connection() {
    let mut bench = Bench::new(None);
    let (topic, payload, kept) = bench.out.sent[0].clone();
    // A will dies with its broker.
    assert_eq!((topic.as_str(), kept), ("mirror/v1/mirror-17/status", Kept::Seconds(7200)));
    let birth = Status::Online { firmware: "0.1.0".into(), model_tried: 0 };
    assert_eq!(Status::decode(&payload).unwrap(), birth);
    let before = bench.out.filters.len();
    bench.event(Event::Disconnected("cut".into()));
    bench.wait(100);
    assert_eq!(bench.out.sent.len(), 1, "nothing is sent without a broker");
    bench.event(Event::Connected);
    assert_eq!(bench.out.filters.len(), 2 * before);
    bench.device.goodbye(&mut bench.out);
    let (_, payload, kept) = bench.out.sent.last().unwrap();
    assert_eq!(Status::decode(payload).unwrap(), Status::Offline { lost: false });
    assert_eq!(*kept, Kept::Always);
}

#[test]
fn a_birth_is_said_again_before_the_broker_forgets_it_for_as_long_as_the_connection_lasts() {
    let mut bench = Bench::new(None);
    let subscribed = bench.out.filters.len();
    let born = bench.take("/status");
    bench.wait(2990);
    assert!(bench.take("/status").is_empty(), "not so often");
    bench.wait(620);
    assert_eq!(bench.take("/status"), born, "the same again");
    bench.wait(10 * 3600);
    let again = bench.take("/status").len();
    assert!((10..=12).contains(&again), "{again} in ten hours");
    // A full queue puts it off.
    bench.out.full = true;
    bench.wait(3600);
    bench.out.full = false;
    bench.wait(1);
    assert_eq!(bench.take("/status").len(), 1);
    assert_eq!(bench.out.filters.len(), subscribed, "subscriptions are not made anew");
    bench.event(Event::Disconnected("cut".into()));
    bench.wait(10 * 3600);
    assert!(bench.take("/status").is_empty());
}

#[test]
fn a_connection_that_brings_nothing_of_the_fleet_is_told_of_until_it_does() {
    let mut bench = Bench::new(None);
    let manifest = model(1, b"base");
    // Of a stranger's key.
    let forged = Signed::sign(&SigningKey::from_bytes(&[4; 32]), 1, &manifest).unwrap();
    bench.hear(Topic::ModelManifest(channel()), forged.encode().unwrap());
    bench.wait(299);
    assert!(!bench.device.snapshot().unheard, "it may come yet");
    bench.wait(1);
    let Snapshot { connected, denied, unheard, note, .. } = bench.device.snapshot();
    assert_eq!((connected, denied, unheard), (true, false, true));
    let (note, ours) = (note.unwrap(), KeyId::of(&key().verifying_key()).to_string());
    assert!(
        note.contains("fleet.channel stable cannot be taken") && note.contains(&ours),
        "{note}"
    );
    bench.reconnect(10);
    let Snapshot { unheard, note, .. } = bench.device.snapshot();
    assert!(
        unheard && note.unwrap().contains("nothing of fleet.channel stable"),
        "until it is heard"
    );
    bench.state(Topic::ModelManifest(channel()), 5, &manifest);
    let heard = |bench: &Bench| {
        let Snapshot { unheard, note, .. } = bench.device.snapshot();
        !unheard && note.is_none()
    };
    assert!(heard(&bench));
    bench.wait(3600);
    assert!(heard(&bench), "a fleet that has nothing to say is silent");
    bench.reconnect(10);
    bench.wait(299);
    assert!(heard(&bench));
    bench.wait(1);
    assert!(!heard(&bench), "every connection is asked");
    // Too old to be taken, and still of the fleet.
    bench.kept(Topic::ModelManifest(channel()), 4, &manifest);
    assert!(heard(&bench));
}

#[test]
fn a_small_update_goes_in_its_window_under_a_pseudonym_until_its_receipt() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(59);
    assert!(bench.take("/fl/").is_empty(), "before the window");
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0, "no budget before the window");
    bench.wait(160);
    let first = bench.take("/fl/update/");
    let pseudonym = secret().pseudonym(&channel(), 5);
    assert_eq!(first[0].0, format!("mirror/v1/{pseudonym}/fl/update/5/0"));
    assert!(!first[0].0.contains("mirror-17"));
    bench.wait(2000);
    let again = bench.take("/fl/update/");
    assert!((2..20).contains(&again.len()), "{}", again.len());
    assert!(again.iter().all(|offer| *offer == first[0]), "identical bytes on every retry");
    let verifier = secret().verifying_key(&channel(), 5);
    let offer = UpdateOffer::decode(&first[0].1).unwrap();
    assert_eq!(offer.verify(&verifier, pseudonym, 5).unwrap().1, b"noised");

    bench.receipt(5, b"noised", Verdict::Accepted { round: 5 });
    bench.wait(2000);
    assert!(bench.take("/fl/update/").is_empty());
    let (published, prepared) = bench.mirror.with(|mirror| (mirror.published, mirror.prepared));
    assert_eq!((published, prepared), (1, 1));
    assert_eq!(bench.device.snapshot().contributions, 1);

    // A start later, the same round is announced still: nothing is spent on it twice.
    let mut bench = Bench::with(bench.mirror.clone());
    bench.mirror.with(|mirror| mirror.makes = Some(b"second".to_vec()));
    bench.announce(1, task(5));
    bench.wait(2000);
    assert!(bench.take("/fl/").is_empty());
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
}

#[test]
fn an_update_that_was_offered_and_withdrawn_is_not_made_again_after_a_restart() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    assert!(!bench.take("/fl/update/").is_empty());
    // Taking part is switched off and on again, and the power goes: nothing waits any more, and no receipt came.
    bench.mirror.with(|mirror| {
        mirror.waiting.clear();
        mirror.makes = Some(b"second".to_vec());
    });
    let mut bench = Bench::with(bench.mirror.clone());
    bench.announce(1, task(5));
    bench.wait(2000);
    assert!(bench.take("/fl/update/").is_empty());
    assert_eq!(
        bench.mirror.with(|mirror| mirror.prepared),
        1,
        "a second one would be spent for nothing"
    );
    bench.announce(2, task(6));
    bench.wait(200);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 2, "the next round is answered");
}

#[test]
fn a_large_update_sends_exactly_the_chunks_that_are_asked_for() {
    let bytes: Vec<u8> = (0..5 * CHUNK_BYTES).map(|index| (index / 100) as u8).collect();
    let mut bench = Bench::new(Some(bytes.clone()));
    bench.announce(1, task(5));
    bench.wait(200);
    let pseudonym = secret().pseudonym(&channel(), 5);
    let offers = bench.take("/fl/");
    assert!(offers.iter().all(|(topic, _)| topic.ends_with("/5/0")), "nothing unasked");
    let offer = UpdateOffer::decode(&offers[0].1).unwrap();
    let key = secret().verifying_key(&channel(), 5);
    let (manifest, first) = offer.verify(&key, pseudonym, 5).unwrap();
    let mut whole = Reassembly::new(manifest.content.clone());
    whole.take(manifest.content.sha256, 0, first).unwrap();
    let ask = |chunks| {
        ChunksWanted { round: 5, update: Digest::of(&bytes), lane: Some(2), chunks }
            .encode()
            .unwrap()
    };
    let mut lost = true;
    while whole.missing() > 0 {
        bench.hear(Topic::Wanted(pseudonym), ask(whole.missing_ranges(8)));
        bench.wait(1);
        for (topic, payload) in bench.take("/fl/lane/2/5/") {
            let chunk = UpdateChunk::decode(&payload).unwrap();
            assert!(topic.ends_with(&format!("/{}", chunk.index)));
            if std::mem::take(&mut lost) {
                continue; // the network swallows one
            }
            whole.take(chunk.update, chunk.index, chunk.bytes.0).unwrap();
        }
    }
    assert_eq!(whole.finish().unwrap().unwrap(), bytes);
    let beyond = vec![ChunkRange { first: 5, last: 500 }];
    bench.hear(Topic::Wanted(pseudonym), ask(beyond));
    bench.wait(1);
    assert!(bench.take("/fl/lane").is_empty(), "chunks that do not exist");
}

#[test]
fn a_full_queue_delays_and_loses_nothing() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.out.full = true;
    bench.wait(300);
    assert!(bench.take("/fl/").is_empty());
    bench.out.full = false;
    bench.wait(1);
    assert_eq!(bench.take("/fl/update/").len(), 1);
}

#[test]
fn withdrawn_consent_stops_an_upload_at_once() {
    let mut bench = Bench::new(Some(vec![1; 3 * CHUNK_BYTES]));
    bench.announce(1, task(5));
    bench.wait(200);
    assert!(!bench.take("/fl/update/").is_empty());
    bench.mirror.with(|mirror| mirror.takes_part = false);
    let chunks = vec![ChunkRange { first: 1, last: 2 }];
    let update = Digest::of(&[1; 3 * CHUNK_BYTES]);
    let wanted = ChunksWanted { round: 5, update, lane: None, chunks };
    bench.hear(Topic::Wanted(secret().pseudonym(&channel(), 5)), wanted.encode().unwrap());
    bench.wait(2000);
    assert!(bench.take("/fl/").is_empty());
    assert!(!bench.device.snapshot().takes_part);
}

#[test]
fn rounds_below_the_floor_unsigned_old_or_closed_cost_nothing() {
    type Change = fn(&mut TaskManifest);
    let below: [Change; 4] = [
        |task| task.noise_multiplier = Ratio::new(1, 2).unwrap(),
        |task| task.clip = Ratio::new(2, 1).unwrap(),
        |task| task.min_cohort = 1,
        |task| task.model = Digest([0; 32]),
    ];
    for change in below {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        let mut asked = task(5);
        change(&mut asked);
        bench.announce(1, asked);
        bench.wait(500);
        assert!(bench.take("/fl/").is_empty());
        assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0);
        assert!(bench.device.snapshot().note.is_some(), "it says why");
    }
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    let stranger = SigningKey::from_bytes(&[4; 32]);
    let forged = Signed::sign(&stranger, 1, &RoundNotice::Open(task(5))).unwrap();
    bench.hear(Topic::Round(channel()), forged.encode().unwrap());
    bench.announce(10, task(6));
    bench.close(11, 6);
    bench.announce(9, task(5));
    bench.wait(500);
    assert!(bench.take("/fl/").is_empty());
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0);
    assert_eq!(bench.device.snapshot().refused["round notice"], 2);
}

#[test]
fn a_round_announced_again_with_other_terms_asks_for_no_second_update() {
    let mut bench = Bench::new(None);
    bench.announce(1, task(5));
    bench.wait(200);
    let mut changed = task(5);
    changed.min_cohort = 11;
    bench.announce(2, changed);
    bench.wait(500);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
}

#[test]
fn a_mirror_that_comes_back_spends_nothing_before_it_hears_that_its_round_is_open() {
    let returned = || {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        bench.announce(1, task(5));
        bench.reconnect(1000);
        bench.wait(100);
        assert!(bench.take("/fl/").is_empty(), "nobody has said that the round is open");
        bench
    };
    let prepared = |bench: &Bench| bench.mirror.with(|mirror| mirror.prepared);
    let mut over = returned();
    over.kept(Topic::Round(channel()), 2, &RoundNotice::Closed { channel: channel(), round: 5 });
    over.wait(500);
    assert_eq!((prepared(&over), over.device.snapshot().round), (0, None));

    let mut open = returned();
    open.kept(Topic::Round(channel()), 1, &RoundNotice::Open(task(5)));
    open.wait(10);
    assert_eq!((prepared(&open), open.take("/fl/update/").len()), (1, 1));
    // An older one says nothing about now.
    open.close(2, 5);
    open.announce(3, task(6));
    open.reconnect(1000);
    open.kept(Topic::Round(channel()), 1, &RoundNotice::Open(task(5)));
    open.wait(500);
    assert!(open.take("/fl/").is_empty());
}

#[test]
fn what_the_broker_kept_is_read_to_its_end_before_anything_is_spent() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.reconnect(1000);
    bench.announce(2, task(5));
    bench.wait(1);
    bench.close(3, 5);
    bench.wait(500);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0);
}

#[test]
fn a_window_that_is_announced_anew_moves_only_who_has_not_drawn_a_moment() {
    let left = |seconds| {
        let report = ReportWindow { after_seconds: 0, spread_seconds: seconds };
        TaskManifest { report, ..task(5) }
    };
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.announce(2, left(0));
    bench.wait(59);
    assert!(bench.take("/fl/").is_empty(), "its moment lies between 60 and 180 seconds");
    bench.wait(122);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
    let mut late = Bench::new(Some(b"noised".to_vec()));
    late.announce(2, left(30));
    late.wait(40);
    assert!(!late.take("/fl/update/").is_empty());
}

#[test]
fn a_power_cut_while_an_update_is_settled_asks_for_no_second_one() {
    for verdict in [Verdict::Accepted { round: 5 }, Verdict::Refused(Refusal::Norm)] {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        bench.announce(1, task(5));
        bench.wait(200);
        bench.receipt(5, b"noised", verdict);
        // The power goes when the outbox has forgotten the update, and nothing later reaches the disk.
        let mirror = bench.mirror.clone();
        mirror.with(|mirror| mirror.memory = mirror.at_settling.take().unwrap());
        let mut bench = Bench::with(mirror);
        bench.announce(1, task(5));
        bench.wait(2000);
        assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
        bench.announce(2, task(6));
        bench.wait(200);
        assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 2, "the next round is answered");
    }
}

#[test]
fn after_a_loss_of_memory_only_a_newer_round_is_answered() {
    let mirror = Shared::default();
    mirror.with(|mirror| (mirror.takes_part, mirror.memory.lost) = (true, true));
    let mut bench = Bench::with(mirror.clone());
    bench.announce(4, task(5));
    bench.wait(500);
    // Neither after another start, nor with other terms.
    let mut bench = Bench::with(mirror);
    bench.announce(4, task(5));
    bench.announce(5, TaskManifest { min_cohort: 11, ..task(5) });
    bench.wait(500);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 0);
    bench.announce(6, task(6));
    bench.wait(500);
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
}

#[test]
fn a_notice_that_cannot_be_remembered_is_not_acted_on() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.mirror.with(|mirror| mirror.disk_fails = true);
    bench.announce(1, task(5));
    bench.wait(500);
    assert!(bench.take("/fl/").is_empty());
}

#[test]
fn refusals_keep_give_up_or_wait_as_they_say() {
    let refused = |refusal, wait| {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        bench.announce(1, task(5));
        bench.wait(200);
        bench.take("/fl/");
        bench.receipt(5, b"noised", Verdict::Refused(refusal));
        bench.wait(wait);
        let waiting = bench.mirror.with(|mirror| mirror.waiting.len());
        (waiting, bench.mirror.with(|mirror| mirror.given_up), bench.take("/fl/update/").len())
    };
    assert_eq!(refused(Refusal::RoundClosed, 2000), (1, 0, 0));
    assert_eq!(refused(Refusal::Norm, 2000), (0, 1, 0));
    assert_eq!(refused(Refusal::Revoked, 2000), (1, 0, 0));
    assert_eq!(refused(Refusal::Busy { retry_seconds: 600 }, 599), (1, 0, 0));
    assert!(refused(Refusal::Busy { retry_seconds: 600 }, 1000).2 > 0);
}

#[test]
fn an_update_of_a_closed_round_goes_in_the_next_without_new_noise() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    bench.close(2, 5);
    bench.take("/fl/");
    bench.announce(3, task(6));
    bench.wait(200);
    let offers = bench.take("/fl/update/6/0");
    assert!(!offers.is_empty());
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 1);
    // It had counted in round 5 after all: it leaves the outbox, and round 6 is still open.
    bench.receipt(6, b"noised", Verdict::Accepted { round: 5 });
    assert_eq!(bench.mirror.with(|mirror| mirror.published), 1);
    assert_eq!(bench.device.snapshot().round, Some(6));
    // With an update of its own.
    bench.mirror.with(|mirror| mirror.makes = Some(b"second".to_vec()));
    bench.wait(200);
    assert!(!bench.take("/fl/update/6/0").is_empty());
    assert_eq!(bench.mirror.with(|mirror| mirror.prepared), 2);
}

#[test]
fn what_held_a_round_back_is_not_told_of_when_it_is_over() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, TaskManifest { min_cohort: 2, ..task(5) });
    bench.wait(200);
    assert!(bench.device.snapshot().note.is_some(), "below the mirror's own floor");
    bench.close(2, 5);
    bench.wait(10);
    assert_eq!(bench.device.snapshot().note, None);
    // A disk that fails for a while.
    bench.mirror.with(|mirror| mirror.disk_fails = true);
    bench.announce(3, task(6));
    bench.mirror.with(|mirror| mirror.disk_fails = false);
    bench.announce(3, task(6));
    bench.mirror.with(|mirror| mirror.disk_fails = true);
    bench.wait(200);
    assert!(bench.device.snapshot().note.is_some_and(|note| note.contains("disk is full")));
    bench.mirror.with(|mirror| mirror.disk_fails = false);
    bench.wait(2000);
    assert_eq!(bench.device.snapshot().note, None);
}

#[test]
fn a_round_that_is_over_here_is_not_listened_to_any_more() {
    let accepted = |bench: &mut Bench| {
        bench.receipt(5, b"noised", Verdict::Accepted { round: 5 });
    };
    let refused = |bench: &mut Bench| {
        bench.receipt(5, b"noised", Verdict::Refused(Refusal::RoundClosed));
    };
    let closed = |bench: &mut Bench| bench.close(2, 5);
    let followed = |bench: &mut Bench| bench.announce(2, task(6));
    let withdrawn = |bench: &mut Bench| bench.mirror.with(|mirror| mirror.takes_part = false);
    let ends: [&dyn Fn(&mut Bench); 5] = [&accepted, &refused, &closed, &followed, &withdrawn];
    for end in ends {
        let mut bench = Bench::new(Some(b"noised".to_vec()));
        let before = bench.out.filters.clone();
        bench.announce(1, task(5));
        bench.wait(200);
        assert_eq!(bench.out.filters.len(), before.len() + 2);
        bench.out.full = true;
        end(&mut bench);
        bench.wait(2);
        bench.out.full = false;
        bench.wait(2);
        assert_eq!(bench.out.filters, before, "also where the queue was full");
    }
    // Announced anew with other terms, the same round has the same topics.
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    let during = bench.out.filters.len();
    bench.announce(2, TaskManifest { min_cohort: 11, ..task(5) });
    bench.wait(200);
    assert_eq!(bench.out.filters.len(), during);
}

#[test]
fn receipts_for_others_or_signed_by_others_change_nothing() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    bench.announce(1, task(5));
    bench.wait(200);
    bench.receipt(5, b"other bytes", Verdict::Accepted { round: 5 });
    bench.receipt(4, b"noised", Verdict::Accepted { round: 4 });
    let pseudonym = secret().pseudonym(&channel(), 5);
    let (update, verdict) = (Digest::of(b"noised"), Verdict::Accepted { round: 5 });
    let receipt = Receipt { round: 5, pseudonym, update, verdict };
    let forged = Signed::sign(&SigningKey::from_bytes(&[4; 32]), 5, &receipt).unwrap();
    bench.hear(Topic::Receipt(pseudonym), forged.encode().unwrap());
    bench.hear(Topic::Receipt(pseudonym), vec![0; 300]);
    assert_eq!(bench.mirror.with(|mirror| mirror.published), 0);
    assert_eq!(bench.device.snapshot().refused["receipt"], 2);
}

fn model(version: u64, bytes: &[u8]) -> ModelManifest {
    ModelManifest {
        channel: channel(),
        version,
        base: Digest::of(b"base"),
        content: Content::of(bytes).unwrap(),
        rollout_permille: 1000,
    }
}

fn install(device: &str, manifest: ModelManifest) -> JobNotice {
    JobNotice::Install { device: device.parse().unwrap(), manifest }
}

/// Answers requests for chunks; drops every `lossy`-th.
fn serve(bench: &mut Bench, bytes: &[u8], lossy: usize, count: &mut usize) {
    for (_, payload) in bench.take("/model/wanted") {
        let wanted = ModelWanted::decode(&payload).unwrap();
        for index in indexes(&wanted.chunks) {
            *count += 1;
            if (*count).is_multiple_of(lossy) {
                continue;
            }
            let device = "mirror-17".parse().unwrap();
            let piece = Blob(chunk(bytes, index).unwrap().to_vec());
            let message = ModelChunk { model: wanted.model, index, bytes: piece };
            let topic = Topic::ModelChunk(device, wanted.version, index);
            bench.hear(topic, message.encode().unwrap());
        }
    }
}

#[test]
fn a_model_arrives_over_a_lossy_network_is_tried_once_and_reported() {
    let bytes: Vec<u8> = (0..20 * CHUNK_BYTES + 5).map(|index| (index / 50) as u8).collect();
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, &bytes));
    let mut count = 0;
    for _ in 0..600 {
        bench.wait(1);
        serve(&mut bench, &bytes, 3, &mut count);
        if bench.mirror.with(|mirror| !mirror.tried.is_empty()) {
            break;
        }
    }
    assert_eq!(bench.mirror.with(|mirror| mirror.tried.clone()), [(4, bytes.clone())]);
    bench.wait(1);
    assert_eq!(bench.phases(), [JobPhase::Downloading, JobPhase::Trying]);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    bench.wait(1);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    // Neither the same manifest again, nor an older version under a newer number, starts anything.
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, &bytes));
    bench.state(Topic::ModelManifest(channel()), 2, &model(3, b"older"));
    bench.wait(60);
    assert!(bench.take("/model/").is_empty());
    assert_eq!(bench.device.snapshot().model_tried, 4);
    // The broker may have lost the report: it is said again at every connection, also after a restart.
    bench.event(Event::Disconnected("cut".into()));
    bench.event(Event::Connected);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    let mut restarted = Bench::with(bench.mirror);
    restarted.wait(60);
    assert_eq!(restarted.phases(), [JobPhase::Done]);
}

/// Everything that is sent of the model arrives.
fn fetch(bench: &mut Bench, bytes: &[u8]) {
    for _ in 0..60 {
        bench.wait(1);
        serve(bench, bytes, usize::MAX, &mut 0);
    }
}

#[test]
fn how_a_trial_ended_is_told_late_and_not_lost_with_the_power() {
    let least = Duration::from_secs(600);
    for outcome in [Ok(()), Err(JobFault::PublicCheck)] {
        let mut bench = Bench::trying(Shared::default(), least);
        bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
        bench.mirror.with(|mirror| mirror.outcome = Some(outcome));
        fetch(&mut bench, b"parameters");
        bench.mirror.with(|mirror| mirror.in_force = if outcome.is_ok() { 4 } else { 0 });
        bench.reconnect(10);
        bench.wait(300);
        assert_eq!(
            bench.phases(),
            [JobPhase::Downloading, JobPhase::Trying],
            "not before the time"
        );
        assert_eq!(bench.device.snapshot().model_tried, 0);
        let later = outcome.map_or_else(JobPhase::Failed, |()| JobPhase::Done);
        // The power goes, and the next start tells.
        let mut next = Bench::trying(bench.mirror.clone(), least);
        assert_eq!(next.phases(), [later]);
        next.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
        next.wait(60);
        assert!(next.take("/model/wanted").is_empty(), "it is not fetched again");
        bench.wait(300);
        assert_eq!(bench.phases(), [later], "where the power stays on");
        assert_eq!(bench.mirror.with(|mirror| mirror.memory.unsaid), None);
    }
}

/// A mirror that fetches the model, begins its trial, and is gone before that ends. `stop` ends it.
fn cut_short(mirror: &Shared, stop: fn(&mut Bench)) {
    let mut bench = Bench::with(mirror.clone());
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    let before = bench.mirror.with(|mirror| mirror.tried.len());
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.mirror.with(|mirror| mirror.tried.len()), before + 1);
    stop(&mut bench);
}

#[test]
fn a_model_whose_trial_ends_the_program_twice_is_reported_and_not_tried_again() {
    let mirror = Shared::default();
    for _ in 0..2 {
        cut_short(&mirror, |_| {});
    }
    let mut third = Bench::with(mirror.clone());
    third.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    third.wait(60);
    assert_eq!(third.phases(), [JobPhase::Failed(JobFault::Unusable)]);
    assert!(third.take("/model/wanted").is_empty());
    assert_eq!(third.device.snapshot().model_tried, 4);
    // Another version begins with nothing against it.
    third.state(Topic::ModelManifest(channel()), 2, &model(5, b"better"));
    mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    fetch(&mut third, b"better");
    assert_eq!(third.phases().last(), Some(&JobPhase::Done));
    assert_eq!(mirror.with(|mirror| mirror.memory.trying), None);
}

#[test]
fn a_trial_that_a_clean_stop_cuts_short_is_not_held_against_the_model() {
    let mirror = Shared::default();
    for _ in 0..3 {
        cut_short(&mirror, |bench| bench.device.goodbye(&mut bench.out));
        assert_eq!(mirror.with(|mirror| mirror.memory.trying), None);
    }
    cut_short(&mirror, |_| {});
    // A stop before the next trial does not take that back.
    let mut bench = Bench::with(mirror.clone());
    bench.device.goodbye(&mut bench.out);
    cut_short(&mirror, |_| {});
    assert_eq!(Bench::with(mirror).phases(), [JobPhase::Failed(JobFault::Unusable)]);
}

#[test]
fn a_start_tells_of_a_model_that_is_in_force_and_fetches_one_that_is_gone() {
    // The power went between the model's own file and the protocol's.
    let mirror = Shared::default();
    mirror.with(|mirror| mirror.in_force = 4);
    let mut bench = Bench::with(mirror);
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(60);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    assert!(bench.take("/model/wanted").is_empty());
    // Its file was damaged.
    bench.mirror.with(|mirror| mirror.in_force = 0);
    let mut bench = Bench::with(bench.mirror.clone());
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(60);
    assert!(!bench.take("/model/wanted").is_empty());
}

#[test]
fn a_model_that_found_no_room_is_tried_again_with_a_later_connection() {
    let mut bench = Bench::new(None);
    let manifest = model(4, b"parameters");
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    bench.mirror.with(|mirror| mirror.outcome = Some(Err(JobFault::Storage)));
    fetch(&mut bench, b"parameters");
    let failed = JobPhase::Failed(JobFault::Storage);
    assert_eq!(bench.phases(), [JobPhase::Downloading, JobPhase::Trying, failed]);
    assert_eq!(bench.device.snapshot().model_tried, 0);
    bench.reconnect(10);
    bench.kept(Topic::ModelManifest(channel()), 1, &manifest);
    bench.wait(60);
    assert!(bench.take("/model/wanted").is_empty(), "not with every connection");
    bench.reconnect(3600);
    bench.kept(Topic::ModelManifest(channel()), 1, &manifest);
    bench.phases();
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.phases().last(), Some(&JobPhase::Done));
    assert_eq!(bench.device.snapshot().model_tried, 4);
    // Or once somebody has made room and asks for it.
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    assert_eq!(bench.device.snapshot().model_on_offer, None, "it is under way");
    bench.mirror.with(|mirror| mirror.outcome = Some(Err(JobFault::Storage)));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.device.snapshot().model_on_offer, Some(4));
    bench.device.install_newest(bench.now);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.device.snapshot().model_tried, 4);
    // Any other fault would come again with the same bytes.
    bench.state(Topic::ModelManifest(channel()), 2, &model(5, b"worse"));
    bench.mirror.with(|mirror| mirror.outcome = Some(Err(JobFault::PublicCheck)));
    fetch(&mut bench, b"worse");
    assert_eq!(bench.device.snapshot().model_tried, 5);
}

#[test]
fn a_roll_out_that_is_stopped_ends_its_downloads_and_is_offered_to_nobody() {
    let stopped = ModelManifest { rollout_permille: 0, ..model(4, b"parameters") };
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(10);
    assert_eq!(bench.device.snapshot().model_under_way, Some(4));
    bench.state(Topic::ModelManifest(channel()), 2, &stopped);
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.model_on_offer), (None, None));
    bench.device.install_newest(bench.now);
    bench.take("/model/wanted");
    bench.wait(100);
    assert!(bench.take("/model/wanted").is_empty());

    // A job for this mirror is no part of the roll-out, and a trial that has begun ends by itself.
    let mut bench = Bench::new(None);
    let install = install("mirror-17", model(4, b"parameters"));
    bench.state(Topic::JobNotify("mirror-17".parse().unwrap()), 1, &install);
    bench.state(Topic::ModelManifest(channel()), 1, &stopped);
    assert_eq!(bench.device.snapshot().model_under_way, Some(4));
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    fetch(&mut bench, b"parameters");
    bench.state(Topic::ModelManifest(channel()), 2, &stopped);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    bench.wait(1);
    assert_eq!(bench.phases().last(), Some(&JobPhase::Done));
}

#[test]
fn a_model_of_another_base_is_not_on_offer() {
    let other = ModelManifest { base: Digest::of(b"another network"), ..model(4, b"parameters") };
    for permille in [10, 1000] {
        let mut bench = Bench::new(None);
        let manifest = ModelManifest { rollout_permille: permille, ..other.clone() };
        bench.state(Topic::ModelManifest(channel()), 1, &manifest);
        let snapshot = bench.device.snapshot();
        assert_eq!((snapshot.model_under_way, snapshot.model_on_offer), (None, None));
    }
}

#[test]
fn a_download_that_nobody_answers_ends_and_begins_anew_when_it_is_announced() {
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(8 * 3600);
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.model_tried), (None, 0));
    assert!(snapshot.note.is_some_and(|note| note.contains("model 4")));
    assert_eq!(bench.phases(), [JobPhase::Downloading], "it is no fault of the model's");
    bench.state(Topic::ModelManifest(channel()), 2, &model(4, b"parameters"));
    fetch(&mut bench, b"parameters");
    assert_eq!(bench.mirror.with(|mirror| mirror.tried.len()), 1);
}

#[test]
fn a_job_of_another_channel_is_refused() {
    let mut bench = Bench::new(None);
    let manifest = ModelManifest { channel: "beta".parse().unwrap(), ..model(4, b"parameters") };
    let topic = Topic::JobNotify("mirror-17".parse().unwrap());
    bench.state(topic.clone(), 1, &install("mirror-17", manifest));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.refused["job"]), (None, 1));
    bench.state(topic, 1, &install("mirror-17", model(4, b"parameters")));
    assert_eq!(bench.device.snapshot().model_under_way, Some(4));
}

#[test]
fn a_job_of_another_mirror_or_of_none_is_refused_whoever_brings_it() {
    let mut bench = Bench::new(None);
    let topic = Topic::JobNotify("mirror-17".parse().unwrap());
    bench.state(topic.clone(), 1, &install("mirror-18", model(4, b"parameters")));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.refused["job"]), (None, 1));
    bench.state(topic, 2, &JobNotice::ForAnybody(model(4, b"parameters")));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.model_under_way, snapshot.refused["job"]), (None, 2));
    bench.wait(60);
    assert!(bench.take("/model/wanted").is_empty());
}

#[test]
fn an_older_manifest_or_job_that_the_broker_brings_again_is_refused() {
    let stopped = ModelManifest { rollout_permille: 0, ..model(4, b"parameters") };
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.state(Topic::ModelManifest(channel()), 2, &stopped);
    // Also after a restart.
    let mut bench = Bench::with(bench.mirror.clone());
    bench.kept(Topic::ModelManifest(channel()), 1, &model(4, b"parameters"));
    bench.wait(60);
    assert_eq!(bench.device.snapshot().refused["model manifest"], 1);
    assert!(bench.take("/model/wanted").is_empty());

    let topic = Topic::JobNotify("mirror-17".parse().unwrap());
    let mut bench = Bench::new(None);
    bench.mirror.with(|mirror| mirror.outcome = Some(Ok(())));
    bench.state(topic.clone(), 2, &install("mirror-17", model(4, b"parameters")));
    fetch(&mut bench, b"parameters");
    let mut bench = Bench::with(bench.mirror.clone());
    bench.state(topic, 1, &install("mirror-17", model(5, b"withdrawn")));
    bench.wait(60);
    assert_eq!(bench.device.snapshot().refused["job"], 1);
    assert!(bench.take("/model/wanted").is_empty());
}

#[test]
fn a_broker_that_refuses_something_counts_as_none_until_the_next_connection() {
    let mut bench = Bench::new(Some(b"noised".to_vec()));
    let reason = "a subscription (NotAuthorized)".into();
    bench.event(Event::Refused { reason, is_access: true });
    bench.announce(1, task(5));
    bench.wait(200);
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.connected, snapshot.denied), (false, true));
    assert_eq!(snapshot.note.as_deref(), Some("a subscription (NotAuthorized)"));
    assert!(!bench.take("/fl/update/").is_empty(), "what it lets through goes on");
    bench.event(Event::Disconnected("cut".into()));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.denied, snapshot.note.as_deref()), (false, Some("cut")));
    bench.event(Event::Untrusted("ended; give a new one".into()));
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.connected, snapshot.denied), (false, true));
    assert_eq!(snapshot.note.as_deref(), Some("ended; give a new one"));
    bench.event(Event::Connected);
    let snapshot = bench.device.snapshot();
    assert_eq!((snapshot.connected, snapshot.denied, snapshot.note), (true, false, None));
}

#[test]
fn foreign_and_damaged_model_chunks_are_refused_and_asked_for_again() {
    let bytes = vec![6; 2 * CHUNK_BYTES];
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(4, &bytes));
    bench.wait(10);
    bench.take("/model/wanted");
    let device: proto::DeviceId = "mirror-17".parse().unwrap();
    let wrong = [
        (Digest::of(&bytes), 0, vec![7; CHUNK_BYTES]),
        (Digest::of(b"other"), 0, bytes[..CHUNK_BYTES].to_vec()),
        (Digest::of(&bytes), 9, bytes[..CHUNK_BYTES].to_vec()),
    ];
    for (model, index, piece) in wrong {
        let message = ModelChunk { model, index, bytes: Blob(piece) };
        bench.hear(Topic::ModelChunk(device.clone(), 4, index), message.encode().unwrap());
    }
    assert_eq!(bench.device.snapshot().refused["model chunk"], 3);
    // Of this version, under another number than its own.
    let message = ModelChunk { model: Digest::of(&bytes), index: 0, bytes: Blob(vec![6; 9]) };
    bench.hear(Topic::ModelChunk(device.clone(), 4, 1), message.encode().unwrap());
    assert_eq!(bench.device.snapshot().refused["model chunk"], 4);
    // Late, of a version that this one has replaced.
    bench.hear(Topic::ModelChunk(device.clone(), 3, 0), message.encode().unwrap());
    assert_eq!(bench.device.snapshot().refused["model chunk"], 4);
    let mut count = 0;
    for _ in 0..60 {
        bench.wait(1);
        serve(&mut bench, &bytes, usize::MAX, &mut count);
    }
    assert_eq!(bench.mirror.with(|mirror| mirror.tried.len()), 1);
}

#[test]
fn a_model_for_another_base_is_reported_and_left_alone() {
    let mut bench = Bench::new(None);
    let manifest = ModelManifest { base: Digest::of(b"else"), ..model(4, b"parameters") };
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    bench.wait(60);
    assert_eq!(bench.phases(), [JobPhase::Failed(JobFault::Base)]);
    bench.kept(Topic::ModelManifest(channel()), 1, &manifest);
    bench.wait(600);
    assert!(bench.phases().is_empty(), "once, although the broker hands the manifest out again");
    assert!(bench.take("/model/wanted").is_empty());
}

#[test]
fn how_a_job_ended_is_said_again_when_the_fleet_announces_its_version_again() {
    let mut bench = Bench::new(None);
    let manifest = model(1, b"base");
    bench.state(Topic::ModelManifest(channel()), 1, &manifest);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    // A fleet that was away, and one whose roll-out goes on.
    for sequence in [1, 2] {
        bench.state(Topic::ModelManifest(channel()), sequence, &manifest);
        bench.state(Topic::ModelManifest(channel()), sequence, &manifest);
        assert!(bench.phases().is_empty(), "not with all the others at once");
        bench.wait(300);
        assert_eq!(bench.phases(), [JobPhase::Done], "once");
    }
    let install = install("mirror-17", manifest);
    bench.state(Topic::JobNotify("mirror-17".parse().unwrap()), 3, &install);
    bench.wait(300);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    let newer = ModelManifest { rollout_permille: 0, ..model(5, b"parameters") };
    bench.state(Topic::ModelManifest(channel()), 4, &newer);
    bench.wait(600);
    assert!(bench.phases().is_empty(), "of another version there is nothing to say");
}

#[test]
fn the_model_that_the_mirror_came_with_does_not_travel_but_a_roll_back_to_it_does() {
    let mut bench = Bench::new(None);
    bench.state(Topic::ModelManifest(channel()), 1, &model(1, b"base"));
    bench.wait(60);
    assert_eq!(bench.phases(), [JobPhase::Done]);
    assert!(bench.take("/model/wanted").is_empty());
    assert_eq!(bench.device.snapshot().model_tried, 1);
    bench.state(Topic::ModelManifest(channel()), 2, &model(3, b"base"));
    bench.wait(60);
    assert!(!bench.take("/model/wanted").is_empty());
    // After a loss of memory too: what is in force is another one.
    let mirror = Shared::default();
    mirror.with(|mirror| (mirror.in_force, mirror.memory.lost) = (5, true));
    let mut bench = Bench::with(mirror);
    bench.state(Topic::ModelManifest(channel()), 3, &model(6, b"base"));
    bench.wait(60);
    assert!(!bench.take("/model/wanted").is_empty());
}

#[test]
fn nonsense_on_any_topic_is_counted_and_harmless() {
    let mut bench = Bench::new(None);
    let device: proto::DeviceId = "mirror-17".parse().unwrap();
    let pseudonym = secret().pseudonym(&channel(), 1);
    let topics = [
        Topic::Round(channel()),
        Topic::ModelManifest(channel()),
        Topic::JobNotify(device.clone()),
        Topic::ModelChunk(device, 1, 1),
        Topic::Wanted(pseudonym),
        Topic::Receipt(pseudonym),
    ];
    for topic in topics {
        for payload in [vec![], vec![0xff; 70_000], vec![1, 13, 0, 0]] {
            bench.hear(topic.clone(), payload);
        }
    }
    bench.event(Event::Message { topic: "x/y".into(), payload: vec![], retained: false });
    assert!(bench.device.snapshot().refused.values().sum::<u64>() >= 16);
}
