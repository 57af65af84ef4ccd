//! A desk's conversation with devices, message by message, as the protocol has it; and with those that are none.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod common;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aggregator::announce::Announcer;
use aggregator::carrier::{Carrier, Incoming, Outgoing};
use aggregator::control::{Reply, Request, execute};
use aggregator::desk::Desk;
use aggregator::engine::{Lost, RoundRequest};
use aggregator::gate::{Gate, GateError};
use aggregator::office::Office;
use aggregator::records::{Parameters, Phase, Round};
use aggregator::refusal_kinds::StrangeKind;
use aggregator::rollout_rules::Stage;
use aggregator::serve::step;
use common::{Fleet, PATIENCE, Z};
use ed25519_dalek::SigningKey;
use learn::head::Subset;
use proto::content::{Content, chunk, indexes};
use proto::model::{ModelChunk, ModelManifest, ModelWanted, REQUEST_CHUNKS};
use proto::secret::{DeviceSecret, RoundIdentity};
use proto::signing::{KeyRing, Signed};
use proto::status::{JobFault, JobNotice, JobPhase, JobState, Status};
use proto::task::RoundNotice;
use proto::update::{ChunksWanted, Receipt, Refusal, UpdateChunk, UpdateOffer, Verdict};
use proto::wire::{Blob, Message};
use proto::{DeviceId, Topic};

struct Hall {
    office: Arc<Office>,
    desk: Desk,
    round: Round,
    keys: KeyRing,
    fleet_clock: Arc<common::TestClock>,
    _folder: common::Scratch,
}

impl Hall {
    fn new(name: &str, parameters: Parameters) -> Hall {
        Hall::of(Fleet::new(name, common::rules()), parameters)
    }

    fn with_large(name: &str) -> Hall {
        let fleet = Fleet::with_shape(name, common::rules(), vec![0.5, 0.5], common::LARGE);
        Hall::of(fleet, Parameters::Full)
    }

    fn of(fleet: Fleet, parameters: Parameters) -> Hall {
        fleet.enrol(5);
        let request = RoundRequest { parameters, noise_multiplier: Z.into(), force: true };
        let round = fleet.engine.start_round(&request).unwrap();
        fleet.clock.add(10);
        fleet.engine.advance(true).unwrap();
        let (engine, clock, folder) = fleet.into_parts();
        let keys = KeyRing::single(engine.key().verifying_key());
        let office = Arc::new(Office::open(engine, 0).unwrap());
        let desk = Desk::new(Arc::clone(&office), 3);
        Hall { office, desk, round, keys, fleet_clock: clock, _folder: folder }
    }

    fn identity(&self, device: &str) -> RoundIdentity {
        let device: DeviceId = device.parse().unwrap();
        let secret: DeviceSecret = self.office.engine.secret(&device);
        secret.identity(self.office.engine.channel(), self.round.id)
    }

    fn update(&self) -> Vec<u8> {
        common::release(&self.round, 0.01, Z)
    }

    fn offer(&self, identity: &RoundIdentity, bytes: &[u8]) -> Incoming {
        let channel = self.office.engine.channel();
        let offer = UpdateOffer::new(identity, channel, self.round.id, bytes).unwrap();
        incoming(
            &Topic::Update { name: identity.pseudonym, round: self.round.id, chunk: 0 },
            &offer,
        )
    }

    fn say(&mut self, message: &Incoming) -> Vec<Outgoing> {
        self.desk.take(message).unwrap();
        self.desk.finish().unwrap();
        self.desk.outgoing()
    }

    fn verdict(&mut self, message: &Incoming) -> Verdict {
        let answers = self.say(message);
        self.read(&answers)
    }

    fn read(&self, answers: &[Outgoing]) -> Verdict {
        assert_eq!(answers.len(), 1);
        let signed = Signed::<Receipt>::decode(&answers[0].payload).unwrap();
        let receipt = signed.verify(&self.keys).unwrap();
        assert_eq!(answers[0].topic, Topic::Receipt(receipt.pseudonym));
        receipt.verdict
    }

    /// The version that the next step announces, before anything else.
    fn announced_version(&self, announcer: &mut Announcer) -> u64 {
        let (said, _) = step(&self.office, announcer);
        let manifest = Signed::<ModelManifest>::decode(&said[0].payload).unwrap();
        manifest.verify(&self.keys).unwrap().version
    }

    /// Offers an update of several chunks, and gives what the desk wants of it.
    fn begin(&mut self, identity: &RoundIdentity, bytes: &[u8]) -> ChunksWanted {
        let offer = self.offer(identity, bytes);
        ChunksWanted::decode(&self.say(&offer)[0].payload).unwrap()
    }

    /// Sends the chunks that are wanted, and gives what came of it.
    fn bring(&mut self, identity: &RoundIdentity, bytes: &[u8], wanted: &ChunksWanted) -> Verdict {
        let mut answers = Vec::new();
        for index in indexes(&wanted.chunks) {
            let part = Blob(chunk(bytes, index).unwrap().to_vec());
            let message = UpdateChunk { update: wanted.update, index, bytes: part };
            let topic = Topic::Lane {
                name: identity.pseudonym,
                lane: 3,
                round: self.round.id,
                chunk: index,
            };
            answers = self.say(&incoming(&topic, &message));
        }
        self.read(&answers)
    }
}

fn incoming<M: Message>(topic: &Topic, message: &M) -> Incoming {
    let payload = message.encode().unwrap();
    Incoming { topic: topic.to_string(), payload, retained: false, expiry: None }
}

/// What the broker brings back of what it was given.
fn echo(said: &Outgoing) -> Incoming {
    let payload = said.payload.clone();
    Incoming { topic: said.topic.to_string(), payload, retained: false, expiry: None }
}

#[test]
fn a_small_update_is_offered_counted_and_answered_with_a_signed_receipt() {
    let mut hall = Hall::new("desk-small", Parameters::Sparse);
    let (identity, bytes) = (hall.identity("mirror-1"), hall.update());
    let offer = hall.offer(&identity, &bytes);
    assert_eq!(hall.verdict(&offer), Verdict::Accepted { round: 1 });
    assert_eq!(hall.verdict(&offer), Verdict::Accepted { round: 1 }, "a retry");
    let other = hall.update();
    let second = hall.offer(&identity, &other);
    assert_eq!(hall.verdict(&second), Verdict::Refused(Refusal::AnotherCounts));
    assert_eq!(hall.office.engine.store().tally(1).unwrap().counted, 1);

    hall.office.engine.revoke("mirror-2", "stolen").unwrap();
    let late = hall.offer(&hall.identity("mirror-2"), &other);
    assert_eq!(hall.verdict(&late), Verdict::Refused(Refusal::Revoked));
    common::pass(&hall.office.engine, &hall.fleet_clock, 100);
    let late = hall.offer(&hall.identity("mirror-3"), &other);
    assert_eq!(hall.verdict(&late), Verdict::Refused(Refusal::RoundClosed));
}

#[test]
fn a_large_update_comes_in_the_chunks_that_are_asked_for() {
    let mut hall = Hall::with_large("desk-large");
    let (identity, bytes) = (hall.identity("mirror-1"), hall.update());
    assert!(bytes.len() > 2 * proto::content::CHUNK_BYTES, "{}", bytes.len());
    let offer = hall.offer(&identity, &bytes);
    let answers = hall.say(&offer);
    let wanted = ChunksWanted::decode(&answers[0].payload).unwrap();
    assert_eq!(
        (wanted.lane, answers[0].topic.clone()),
        (Some(3), Topic::Wanted(identity.pseudonym))
    );
    let mut asked: Vec<u16> = indexes(&wanted.chunks).collect();
    asked.reverse();
    let mut answers = Vec::new();
    for index in asked {
        let part = Blob(chunk(&bytes, index).unwrap().to_vec());
        let message = UpdateChunk { update: wanted.update, index, bytes: part };
        let topic = Topic::Lane { name: identity.pseudonym, lane: 3, round: 1, chunk: index };
        assert!(answers.is_empty(), "a receipt before the last chunk");
        // One damaged on the way harms nothing.
        let mut damaged = message.clone();
        damaged.bytes.0[0] ^= 1;
        assert!(hall.say(&incoming(&topic, &damaged)).is_empty());
        answers = hall.say(&incoming(&topic, &message));
    }
    let signed = Signed::<Receipt>::decode(&answers[0].payload).unwrap();
    assert_eq!(signed.verify(&hall.keys).unwrap().verdict, Verdict::Accepted { round: 1 });
    assert_eq!(hall.office.engine.store().tally(1).unwrap().counted, 1);
}

#[test]
fn a_device_that_offers_again_and_again_leaves_room_for_the_others() {
    let mut hall = Hall::with_large("desk-flood");
    let (identity, mut bytes) = (hall.identity("mirror-1"), hall.update());
    let desk_holds = (64 << 20) / bytes.len();
    for number in 0..=desk_holds {
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let offer = hall.offer(&identity, &bytes);
        assert_eq!(hall.say(&offer)[0].topic, Topic::Wanted(identity.pseudonym));
    }
    let other = hall.identity("mirror-2");
    let offer = hall.offer(&other, &hall.update());
    assert_eq!(hall.say(&offer)[0].topic, Topic::Wanted(other.pseudonym));
}

#[test]
fn a_transfer_is_its_senders_whoever_else_claims_the_same_bytes() {
    let mut hall = Hall::with_large("desk-claimed");
    let bytes = hall.update();
    let (claimant, sender) = (hall.identity("mirror-2"), hall.identity("mirror-1"));
    hall.begin(&claimant, &bytes);
    let wanted = hall.begin(&sender, &bytes);
    assert_eq!(hall.bring(&sender, &bytes, &wanted), Verdict::Accepted { round: 1 });
    let counted = |identity: &RoundIdentity| {
        hall.office.engine.store().counted(1, identity.pseudonym).unwrap().is_some()
    };
    assert_eq!((counted(&sender), counted(&claimant)), (true, false));
}

#[test]
fn an_unfinished_transfer_does_not_stand_in_the_way_of_the_same_bytes_in_another_round() {
    let mut hall = Hall::with_large("desk-next-round");
    let bytes = hall.update();
    let first = hall.identity("mirror-1");
    hall.begin(&first, &bytes);
    let engine = &hall.office.engine;
    engine.abort_round(1, "a test").unwrap();
    let (parameters, noise_multiplier) = (Parameters::Full, Z.into());
    let request = RoundRequest { parameters, noise_multiplier, force: true };
    hall.round = engine.start_round(&request).unwrap();
    hall.fleet_clock.add(10);
    engine.advance(true).unwrap();
    let second = hall.identity("mirror-1");
    let wanted = hall.begin(&second, &bytes);
    assert_eq!(hall.bring(&second, &bytes, &wanted), Verdict::Accepted { round: 2 });
}

#[test]
fn a_large_update_for_a_round_that_is_over_is_refused_before_its_chunks() {
    let mut hall = Hall::with_large("desk-over");
    let offer = hall.offer(&hall.identity("mirror-1"), &hall.update());
    hall.office.engine.abort_round(1, "a test").unwrap();
    assert_eq!(hall.verdict(&offer), Verdict::Refused(Refusal::RoundClosed));
}

#[test]
fn strangers_get_no_answer_and_are_counted() {
    let mut hall = Hall::new("desk-strange", Parameters::Sparse);
    let bytes = hall.update();
    let stranger = DeviceSecret::new([9; 32]).identity(hall.office.engine.channel(), 1);
    let unknown = hall.offer(&stranger, &bytes);
    // Somebody else's name under one's own key.
    let forged =
        RoundIdentity { pseudonym: hall.identity("mirror-1").pseudonym, key: stranger.key };
    let forged = hall.offer(&forged, &bytes);
    // An honest offer under another topic.
    let mut moved = hall.offer(&hall.identity("mirror-1"), &bytes);
    moved.topic =
        Topic::Update { name: hall.identity("mirror-2").pseudonym, round: 1, chunk: 0 }.to_string();
    let noise = Incoming { payload: vec![255; 64], ..moved.clone() };
    let topic = Incoming { topic: "mirror/v1/a/b/c".into(), payload: vec![], ..moved.clone() };
    for message in [&unknown, &forged, &moved, &noise, &topic] {
        assert!(hall.say(message).is_empty());
    }
    // The first, the fourth and the fifth name nobody; two came under the names of devices of the round.
    assert_eq!(hall.office.strange.total(), 3);
    let tally = hall.office.engine.store().tally(1).unwrap();
    assert_eq!((tally.counted, tally.refused.get("signature")), (0, Some(&2)));
}

/// Bytes that a log is written to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines that are logged meanwhile.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn rounds_that_senders_make_up_fill_no_log() {
    let mut hall = Hall::new("desk-log", Parameters::Sparse);
    let name = hall.identity("mirror-1").pseudonym;
    let lines = logged(|| {
        for round in (1_001..=1_300).chain([1, 1]) {
            for chunk in [0, 1] {
                let topic = Topic::Update { name, round, chunk };
                let (topic, payload) = (topic.to_string(), vec![1]);
                assert!(
                    hall.say(&Incoming { topic, payload, retained: false, expiry: None })
                        .is_empty()
                );
            }
        }
    });
    assert_eq!(hall.office.strange.total(), 604);
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[2..].iter().all(|line| line.contains("round 1: ")), "{lines:?}");
}

#[test]
fn devices_of_another_version_of_the_protocol_are_told_by_name_as_far_as_the_log_has_room() {
    let mut hall = Hall::new("desk-version", Parameters::Sparse);
    for reader in 0..30 {
        let fingerprint = format!("{:02x}", 100 + reader).repeat(32);
        hall.office.engine.enrol(&format!("reader-{reader}"), &fingerprint).unwrap();
    }
    let lines = logged(|| {
        for reader in (0..30).chain(0..40) {
            let topic = Topic::Status(format!("reader-{reader}").parse().unwrap()).to_string();
            let payload = vec![2, 10, 0];
            assert!(
                hall.say(&Incoming { topic, payload, retained: false, expiry: None }).is_empty()
            );
        }
    });
    assert_eq!(hall.office.strange.counts().get(&StrangeKind::Version), Some(&70));
    assert_eq!(lines.len(), 21, "{lines:?}");
    let told =
        "reader-0: the message has version 2, this program reads version 1; update the older side";
    assert!(lines[0].contains(told), "{}", lines[0]);
}

#[test]
fn a_revoked_device_is_refused_and_in_the_tally() {
    let mut hall = Hall::new("desk-revoked", Parameters::Sparse);
    hall.office.engine.revoke("mirror-1", "a test").unwrap();
    let offer = hall.offer(&hall.identity("mirror-1"), &hall.update());
    let answers = hall.say(&offer);
    let signed = Signed::<Receipt>::decode(&answers[0].payload).unwrap();
    let verdict = signed.verify(&hall.keys).unwrap().verdict;
    assert_eq!(verdict, Verdict::Refused(Refusal::Revoked));
    assert_eq!(hall.office.engine.store().tally(1).unwrap().refused.get("revoked"), Some(&1));
}

#[test]
fn a_device_that_is_revoked_during_its_transfer_is_refused_when_it_is_complete() {
    let mut hall = Hall::with_large("desk-revoked-late");
    let (identity, bytes) = (hall.identity("mirror-1"), hall.update());
    let wanted = hall.begin(&identity, &bytes);
    hall.office.engine.revoke("mirror-1", "stolen").unwrap();
    let verdict = hall.bring(&identity, &bytes, &wanted);
    assert_eq!(verdict, Verdict::Refused(Refusal::Revoked));
    let tally = hall.office.engine.store().tally(1).unwrap();
    assert_eq!((tally.counted, tally.refused.get("revoked")), (0, Some(&1)));
}

/// Devices that ask for a model at once: more than one batch answers.
const READERS: u8 = 60;

/// Messages that wait, and those that were sent.
#[derive(Default)]
struct Memory {
    waiting: VecDeque<Incoming>,
    sent: Vec<Outgoing>,
}

impl Carrier for Memory {
    fn receive(&mut self, _patience: Duration) -> Option<Incoming> {
        self.waiting.pop_front()
    }

    fn send(&mut self, message: Outgoing) {
        self.sent.push(message);
    }
}

#[test]
fn a_batch_ends_at_its_answers_bytes_and_receipts_go_before_models() {
    let mut hall = Hall::with_large("desk-models");
    let bytes = hall.office.engine.store().parameters(1).unwrap().unwrap();
    let last = u16::try_from(bytes.len().div_ceil(proto::content::CHUNK_BYTES) - 1).unwrap();
    let chunks = vec![proto::content::ChunkRange { first: 0, last }];
    let wanted = ModelWanted { version: 1, model: proto::Digest::of(&bytes), chunks };
    let ask = |reader: u8| {
        let device = format!("reader-{reader}").parse().unwrap();
        incoming(&Topic::ModelWanted(device), &wanted)
    };
    for reader in 0..READERS {
        let fingerprint = format!("{:02x}", 100 + reader).repeat(32);
        hall.office.engine.enrol(&format!("reader-{reader}"), &fingerprint).unwrap();
    }
    hall.office.engine.revoke("mirror-2", "a test").unwrap();
    let offer = hall.offer(&hall.identity("mirror-2"), &hall.update());
    let mut carrier = Memory::default();
    // The second request of a batch is answered with the first.
    carrier.waiting.extend([ask(0), ask(0), offer]);
    carrier.waiting.extend((1..READERS).map(ask));
    assert!(hall.desk.serve(&mut carrier, Duration::ZERO).unwrap());
    assert!(matches!(carrier.sent[0].topic, Topic::Receipt(_)), "{:?}", carrier.sent[0].topic);
    let sent: usize = carrier.sent.iter().map(|message| message.payload.len()).sum();
    let bound = 8 << 20;
    assert!((bound..bound + 2 * bytes.len()).contains(&sent), "{sent}");
    while hall.desk.serve(&mut carrier, Duration::ZERO).unwrap() {}
    let parts = carrier.sent.iter().filter(|sent| matches!(sent.topic, Topic::ModelChunk(..)));
    let at_once = REQUEST_CHUNKS.min(usize::from(last) + 1);
    assert_eq!(parts.count(), usize::from(READERS) * at_once, "later batches answer the others");
}

#[test]
fn a_device_reports_a_model_once_and_strangers_report_nothing() {
    let mut hall = Hall::new("desk-reports", Parameters::Sparse);
    let job = proto::JobId([1; 16]);
    let mut say = |device: &str, phase: JobPhase| {
        let topic = Topic::JobState(device.parse().unwrap(), job);
        assert!(hall.say(&incoming(&topic, &JobState { job, version: 1, phase })).is_empty());
    };
    for _ in 0..3 {
        say("mirror-1", JobPhase::Done);
        say("mirror-2", JobPhase::Failed(JobFault::Storage));
        say("nobody", JobPhase::Done);
    }
    let model = hall.office.engine.store().model(1).unwrap().unwrap();
    assert_eq!((model.installed, model.failed), (1, 1));
    assert_eq!(hall.office.strange.counts().get(&StrangeKind::Job), Some(&3));
    let topic = Topic::JobState("mirror-2".parse().unwrap(), job);
    let done = JobState { job, version: 1, phase: JobPhase::Done };
    hall.say(&incoming(&topic, &done));
    let model = hall.office.engine.store().model(1).unwrap().unwrap();
    assert_eq!((model.installed, model.failed), (2, 0), "the last word counts");
}

#[test]
fn who_is_connected_is_known_of_enrolled_devices_alone() {
    let mut hall = Hall::new("desk-presence", Parameters::Sparse);
    let mut say = |device: &str, status: &Status| {
        hall.say(&incoming(&Topic::Status(device.parse().unwrap()), status));
    };
    for device in ["mirror-1", "mirror-2", "mirror-2", "nobody"] {
        // A terminal's escape is not passed on.
        let firmware = "0.1.0+fbd49e3\u{1b}".into();
        say(device, &Status::Online { firmware, model_tried: 0 });
    }
    say("mirror-1", &Status::Offline { lost: true });
    assert_eq!(hall.office.presence.count(), 1);
    assert_eq!(hall.office.presence.firmware("mirror-2").as_deref(), Some("0.1.0+fbd49e3"));
    assert_eq!(hall.office.presence.firmware("mirror-1"), None);
    assert_eq!(hall.office.strange.counts().get(&StrangeKind::Status), Some(&1));
    let online = || hall.office.status().unwrap().online;
    assert_eq!(online(), Some(1));
    hall.office.engine.revoke("mirror-2", "a test").unwrap();
    assert_eq!(online(), Some(0), "of those that may take part");
    let born = Status::Online { firmware: "0.1.0".into(), model_tried: 0 };
    let topic = Topic::Status("mirror-1".parse().unwrap());
    hall.say(&incoming(&topic, &born));
    assert_eq!(hall.office.presence.count(), 2);
    hall.say(&Incoming { payload: Vec::new(), ..incoming(&topic, &born) });
    assert_eq!(hall.office.presence.count(), 1, "its status was cleared at the broker");
    assert_eq!(hall.office.strange.counts().get(&StrangeKind::Status), Some(&1));
    hall.office.presence.clear();
    assert_eq!(hall.office.presence.count(), 0);
}

#[test]
fn a_status_ends_to_hold_when_it_says_so_and_an_older_mirrors_does_not() {
    let mut hall = Hall::new("desk-expiry", Parameters::Sparse);
    let born = Status::Online { firmware: "0.1.0".into(), model_tried: 0 };
    let mut say = |device: &str, expiry| {
        let topic = Topic::Status(device.parse().unwrap());
        hall.say(&Incoming { expiry, ..incoming(&topic, &born) });
    };
    say("mirror-1", Some(Duration::from_secs(7200)));
    say("mirror-2", Some(Duration::ZERO));
    say("mirror-3", None);
    assert_eq!(hall.office.status().unwrap().online, Some(2));
    let Reply::Devices(listed) =
        execute(&hall.office.engine, Some(&hall.office), Request::DeviceList)
    else {
        panic!("no list")
    };
    let there = listed.iter().filter(|known| known.online == Some(true));
    let names: Vec<&str> = there.map(|known| known.device.name.as_str()).collect();
    assert_eq!(names, ["mirror-1", "mirror-3"]);
}

#[test]
fn of_what_is_announced_only_what_did_not_come_back_is_said_again() {
    let mut hall = Hall::new("desk-unheard-of", Parameters::Sparse);
    let mut announcer = Announcer::default();
    let first = announcer.changes(&hall.office, true).unwrap();
    assert_eq!(announcer.unheard(&hall.office), first, "nothing came back yet");
    first.iter().for_each(|said| drop(hall.say(&echo(said))));
    assert!(announcer.unheard(&hall.office).is_empty());
    hall.office.engine.abort_round(1, "a test").unwrap();
    let closed = announcer.changes(&hall.office, true).unwrap();
    assert_eq!(announcer.unheard(&hall.office), closed, "the open round came back, not its end");
    hall.say(&echo(&closed[0]));
    assert!(announcer.unheard(&hall.office).is_empty());
}

/// A fleet whose version 2 is at a stage that is the group of `mirror-9`.
fn piloted(name: &str) -> Hall {
    let mut rules = common::rules();
    rules.rollout.stages = vec![Stage::Group("pilot".into()), Stage::Permille(1000)];
    let hall = Hall::of(Fleet::new(name, rules), Parameters::Sparse);
    let engine = &hall.office.engine;
    engine.enrol_in("mirror-9", &"99".repeat(32), Some("pilot")).unwrap();
    common::add_version(engine, 0.5);
    engine.publish(2).unwrap();
    hall
}

#[test]
fn a_device_of_a_group_that_connects_without_having_tried_the_model_is_told_again() {
    let mut hall = piloted("desk-group-again");
    let mut announcer = Announcer::default();
    let mut said = |hall: &Hall| -> Vec<Topic> {
        let said = announcer.changes(&hall.office, true).unwrap();
        said.into_iter()
            .map(|said| said.topic)
            .filter(|to| matches!(to, Topic::JobNotify(_)))
            .collect()
    };
    let job = || [Topic::JobNotify("mirror-9".parse().unwrap())];
    assert_eq!(said(&hall), job(), "the broker may have no session for it yet");
    let born = |hall: &mut Hall, device: &str, model_tried| {
        let status = Status::Online { firmware: "0.1.0".into(), model_tried };
        hall.say(&incoming(&Topic::Status(device.parse().unwrap()), &status));
    };
    born(&mut hall, "mirror-9", 1);
    assert_eq!(said(&hall), job());
    assert!(said(&hall).is_empty(), "once a connection");
    born(&mut hall, "mirror-1", 0);
    assert!(said(&hall).is_empty(), "it is in no group");
    born(&mut hall, "mirror-9", 2);
    assert!(said(&hall).is_empty(), "it has tried it");
}

#[test]
fn a_group_is_told_of_a_model_before_the_fleet_is() {
    let hall = piloted("desk-group");
    let engine = &hall.office.engine;
    let mut announcer = Announcer::default();
    let said = announcer.changes(&hall.office, true).unwrap();
    let jobs: Vec<_> =
        said.iter().filter(|said| matches!(said.topic, Topic::JobNotify(_))).collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].topic, Topic::JobNotify("mirror-9".parse().unwrap()));
    let notice = Signed::<JobNotice>::decode(&jobs[0].payload).unwrap();
    let JobNotice::Install { device, manifest } = notice.verify(&hall.keys).unwrap() else {
        panic!("for anybody")
    };
    assert_eq!(device.as_str(), "mirror-9");
    assert_eq!((manifest.version, manifest.rollout_permille), (2, 0), "nobody else has it");
    assert!(announcer.changes(&hall.office, true).unwrap().is_empty(), "once");
    engine.enrol_in("mirror-8", &"88".repeat(32), Some("pilot")).unwrap();
    let said = announcer.changes(&hall.office, true).unwrap();
    let topics: Vec<_> = said.into_iter().map(|said| said.topic).collect();
    assert_eq!(topics, [Topic::JobNotify("mirror-8".parse().unwrap())], "whoever comes later");
}

#[test]
fn what_was_not_announced_for_a_failure_is_announced_after_it() {
    let hall = Hall::new("desk-announce-fails", Parameters::Sparse);
    let (engine, mut announcer) = (&hall.office.engine, Announcer::default());
    let numbers = engine.store().parameters(1).unwrap().unwrap();
    let put = |bytes: &[u8]| {
        let store = engine.store();
        store.decide(0, engine.key(), |decision| decision.put_parameters(1, bytes)).unwrap();
    };
    put(&[]);
    assert!(announcer.changes(&hall.office, true).is_err());
    put(&numbers);
    assert_eq!(announcer.changes(&hall.office, true).unwrap().len(), 2, "the round and the model");
}

#[test]
fn rounds_and_models_are_announced_once_and_signed() {
    let hall = Hall::new("desk-announce", Parameters::Sparse);
    let mut announcer = Announcer::default();
    let first = announcer.changes(&hall.office, true).unwrap();
    assert_eq!(first.len(), 2);
    assert!(first.iter().all(|message| message.retain && message.payload.len() < 4096));
    let notice = Signed::<RoundNotice>::decode(&first[0].payload).unwrap();
    let RoundNotice::Open(task) = notice.verify(&hall.keys).unwrap() else { panic!("closed") };
    assert_eq!((task.round, task.model_version), (1, 1));
    assert_eq!(task.layout.to_string(), hall.round.task.layout);
    assert!(announcer.changes(&hall.office, true).unwrap().is_empty());
    assert_eq!(announcer.again(), first);

    hall.office.engine.abort_round(1, "a test").unwrap();
    let next = announcer.changes(&hall.office, true).unwrap();
    let closed = Signed::<RoundNotice>::decode(&next[0].payload).unwrap();
    assert!(closed.sequence() > notice.sequence());
    assert!(matches!(closed.verify(&hall.keys).unwrap(), RoundNotice::Closed { round: 1, .. }));
}

#[test]
fn a_round_is_announced_with_what_is_left_of_it_once_the_fleet_hears() {
    let fleet = Fleet::new("desk-unheard", common::rules());
    fleet.enrol(5);
    fleet.engine.start_round(&common::request(false)).unwrap();
    let (engine, clock, _folder) = fleet.into_parts();
    let keys = KeyRing::single(engine.key().verifying_key());
    let office = Office::open(engine, 1).unwrap();
    let mut announcer = Announcer::default();
    let mut windows = |heard| -> Vec<(u32, u32)> {
        office.health[0].connected.store(heard, Ordering::SeqCst);
        let (said, done) = step(&office, &mut announcer);
        done.unwrap();
        let rounds = said.iter().filter(|said| matches!(said.topic, Topic::Round(_)));
        let window = |said: &Outgoing| {
            let notice = Signed::<RoundNotice>::decode(&said.payload).unwrap();
            let RoundNotice::Open(task) = notice.verify(&keys).unwrap() else { panic!("closed") };
            (task.report.after_seconds, task.report.spread_seconds)
        };
        rounds.map(window).collect()
    };
    clock.add(86_400);
    assert!(windows(false).is_empty(), "the broker is away");
    assert_eq!(windows(true), [(10, 90)]);
    clock.add(86_400);
    assert!(windows(false).is_empty(), "it is away once more");
    assert!(windows(true).is_empty(), "as much is left as was announced");
}

#[test]
fn numbers_go_on_above_what_the_broker_had_kept_and_another_server_is_told_of() {
    let mut hall = Hall::new("desk-rival", Parameters::Sparse);
    let (key, channel) = (hall.office.engine.key().clone(), hall.office.engine.channel().clone());
    let mut announcer = Announcer::default();
    let number =
        |said: &[Outgoing]| Signed::<RoundNotice>::decode(&said[0].payload).unwrap().sequence();
    let first = announcer.changes(&hall.office, true).unwrap();
    let topic = Topic::Round(channel.clone());
    let closed = RoundNotice::Closed { channel, round: 9 };
    let signed = |key: &SigningKey, number, retained| {
        let signed = Signed::sign(key, number, &closed).unwrap();
        Incoming { retained, ..incoming(&topic, &signed) }
    };
    let rivals = |hall: &Hall| hall.office.status().unwrap().rival_statements;
    // Its own, which comes back, and a stranger's.
    let own = echo(&first[0]);
    let later = number(&first) + (1 << 40);
    hall.say(&own);
    hall.say(&signed(&SigningKey::from_bytes(&[9; 32]), later, true));
    assert!(announcer.changes(&hall.office, true).unwrap().is_empty());
    assert_eq!(hall.office.strange.counts().get(&StrangeKind::Topic), Some(&1));

    hall.say(&signed(&key, later, true));
    let again = announcer.changes(&hall.office, true).unwrap();
    assert_eq!((again.len(), rivals(&hall)), (2, 0), "the round and the model");
    assert!(number(&again) > later);
    assert!(hall.office.engine.take_sequence(1, 0).unwrap() > later, "also after another start");

    hall.say(&signed(&key, later + (1 << 40), false));
    assert!(
        announcer.changes(&hall.office, true).unwrap().is_empty(),
        "it is not answered in kind"
    );
    assert_eq!(rivals(&hall), 1);
}

#[test]
fn a_database_older_than_what_was_announced_says_so_until_it_is_restored_above_that() {
    let mut hall = Hall::new("desk-old", Parameters::Sparse);
    let (key, channel) = (hall.office.engine.key().clone(), hall.office.engine.channel().clone());
    let mut announcer = Announcer::default();
    // Its own, which comes back, says nothing of the kind.
    for said in announcer.changes(&hall.office, true).unwrap() {
        hall.say(&echo(&said));
    }
    assert_eq!(hall.office.status().unwrap().lost, None);
    let round = RoundNotice::Closed { channel: channel.clone(), round: 7 };
    let signed = Signed::sign(&key, 1, &round).unwrap();
    let kept = Incoming { retained: true, ..incoming(&Topic::Round(channel.clone()), &signed) };
    let strangers = Signed::sign(&SigningKey::from_bytes(&[9; 32]), 1, &round).unwrap();
    hall.say(&incoming(&Topic::Round(channel.clone()), &strangers));
    let of_another = RoundNotice::Closed { channel: "beta".parse().unwrap(), round: 7 };
    let of_another = Signed::sign(&key, 1, &of_another).unwrap();
    hall.say(&incoming(&Topic::Round(channel.clone()), &of_another));
    assert_eq!(hall.office.status().unwrap().lost, None, "anybody could say so");
    assert_eq!(hall.office.strange.counts().get(&StrangeKind::Topic), Some(&2));
    let lines = logged(|| {
        hall.say(&kept);
        hall.say(&kept);
    });
    assert!(
        lines.len() == 1 && lines[0].contains("--rounds-above 7 --versions-above 1"),
        "{lines:?}"
    );
    let content = Content::of(&[1; 40]).unwrap();
    let base = proto::Digest([0; 32]);
    let (version, rollout_permille) = (9, 1000);
    let manifest =
        ModelManifest { channel: channel.clone(), version, base, content, rollout_permille };
    let signed = Signed::sign(&key, 2, &manifest).unwrap();
    hall.say(&Incoming { retained: true, ..incoming(&Topic::ModelManifest(channel), &signed) });
    let job = proto::JobId([1; 16]);
    let installed = |hall: &mut Hall, version| {
        let topic = Topic::JobState("mirror-1".parse().unwrap(), job);
        hall.say(&incoming(&topic, &JobState { job, version, phase: JobPhase::Done }));
        hall.office.engine.store().model(version).unwrap().unwrap().installed
    };
    assert_eq!(installed(&mut hall, 1), 0, "its number may be that of another one");
    // Of the database, so that another start and a command without a server know it, too.
    let engine = &hall.office.engine;
    let lost =
        || engine.status().unwrap().lost.map(|Lost(numbers)| (numbers.round, numbers.version));
    assert_eq!(lost(), Some((7, 9)));
    engine.restore(7, 8).unwrap();
    assert_eq!(lost(), None, "the version on top is above 8");
    let round = RoundNotice::Closed { channel: engine.channel().clone(), round: 8 };
    let signed = Signed::sign(&key, 3, &round).unwrap();
    let topic = Topic::Round(engine.channel().clone());
    hall.say(&incoming(&topic, &signed));
    let engine = &hall.office.engine;
    let told = engine.status().unwrap().lost.unwrap().to_string();
    assert!(told.contains("--rounds-above 8 --versions-above 9"), "restored too low: {told}");
    let top = engine.restore(8, 9).unwrap();
    assert_eq!(engine.status().unwrap().lost, None);
    assert_eq!(installed(&mut hall, top.version), 1);
}

#[test]
fn a_restored_fleet_without_a_round_ends_the_one_that_the_broker_has_kept() {
    let (engine, _clock, _folder) = Fleet::new("desk-restored", common::rules()).into_parts();
    let keys = KeyRing::single(engine.key().verifying_key());
    let office = Office::open(engine, 0).unwrap();
    let mut announcer = Announcer::default();
    let rounds = |said: Vec<Outgoing>| -> Vec<Outgoing> {
        said.into_iter().filter(|said| matches!(said.topic, Topic::Round(_))).collect()
    };
    assert!(rounds(announcer.changes(&office, true).unwrap()).is_empty(), "there never was one");
    office.engine.restore(7, 9).unwrap();
    let said = rounds(announcer.changes(&office, true).unwrap());
    assert!(said[0].retain);
    let notice = Signed::<RoundNotice>::decode(&said[0].payload).unwrap();
    assert!(matches!(notice.verify(&keys).unwrap(), RoundNotice::Closed { round: 7, .. }));
    assert!(rounds(announcer.changes(&office, true).unwrap()).is_empty(), "once");
}

/// Judges nothing.
struct Broken;

impl Gate for Broken {
    fn scores(&self, _heads: &[&[f32]]) -> Result<Vec<f64>, GateError> {
        Err(GateError::NoHoldout)
    }
}

#[test]
fn the_end_of_a_round_is_announced_before_the_gate_and_one_that_fails_keeps_nothing_back() {
    let gate = Box::new(Broken);
    let fleet = Fleet::with_gate("desk-gate", common::rules(), gate, common::SMALL);
    let mut hall = Hall::of(fleet, Parameters::Sparse);
    let mut announcer = Announcer::default();
    assert_eq!(step(&hall.office, &mut announcer).0.len(), 2);
    for device in ["mirror-1", "mirror-2"] {
        let offer = hall.offer(&hall.identity(device), &hall.update());
        assert_eq!(hall.verdict(&offer), Verdict::Accepted { round: 1 });
    }
    hall.fleet_clock.add(100);
    let (said, done) = step(&hall.office, &mut announcer);
    done.unwrap();
    assert_eq!(hall.office.engine.live_round().unwrap().unwrap().phase, Phase::Closed);
    let notice = Signed::<RoundNotice>::decode(&said[0].payload).unwrap();
    assert!(matches!(notice.verify(&hall.keys).unwrap(), RoundNotice::Closed { round: 1, .. }));

    step(&hall.office, &mut announcer).1.unwrap();
    let judged = hall.office.engine.judge();
    assert!(judged.unwrap_err().to_string().contains("holdout"));
    common::add_version(&hall.office.engine, 0.5);
    hall.office.engine.publish(2).unwrap();
    assert_eq!(hall.announced_version(&mut announcer), 2);
}

#[test]
fn a_rollback_is_announced_while_the_gate_judges_and_of_the_judgement_nothing_comes() {
    let (gate, begins, go_on) = common::slow_gate();
    let fleet = Fleet::with_gate("desk-slow-gate", common::rules(), gate, common::SMALL);
    let mut hall = Hall::of(fleet, Parameters::Sparse);
    for device in ["mirror-1", "mirror-2"] {
        let offer = hall.offer(&hall.identity(device), &hall.update());
        assert_eq!(hall.verdict(&offer), Verdict::Accepted { round: 1 });
    }
    hall.fleet_clock.add(100);
    let (mut announcer, engine) = (Announcer::default(), &hall.office.engine);
    for phase in [Phase::Closed, Phase::Averaged, Phase::Averaged] {
        step(&hall.office, &mut announcer).1.unwrap();
        assert_eq!(engine.live_round().unwrap().unwrap().phase, phase);
    }
    std::thread::scope(|scope| {
        let judging = scope.spawn(|| engine.judge());
        begins.recv_timeout(PATIENCE).unwrap();
        engine.rollback(1).unwrap();
        assert_eq!(hall.announced_version(&mut announcer), 2);
        go_on.send(()).unwrap();
        assert!(!judging.join().unwrap().unwrap(), "its round is over");
    });
    assert!(common::why_aborted(engine, 1).contains("no longer in force"));
    assert_eq!(engine.store().models().unwrap().len(), 2);
}

#[test]
fn a_stopped_model_is_sent_to_nobody() {
    let mut hall = Hall::new("desk-stopped", Parameters::Sparse);
    let engine = &hall.office.engine;
    common::add_version(engine, 0.5);
    engine.publish(2).unwrap();
    let top = engine.rollback(1).unwrap();
    let device: DeviceId = "mirror-1".parse().unwrap();
    let mut ask = |version| {
        let bytes = hall.office.engine.store().parameters(version).unwrap().unwrap();
        let chunks = vec![proto::content::ChunkRange { first: 0, last: 0 }];
        let wanted = ModelWanted { version, model: proto::Digest::of(&bytes), chunks };
        hall.say(&incoming(&Topic::ModelWanted(device.clone()), &wanted)).len()
    };
    assert_eq!((ask(2), ask(top.version)), (0, 1));
    assert_eq!(hall.office.strange.counts().get(&StrangeKind::Stopped), Some(&1));
}

#[test]
fn a_model_is_sent_to_enrolled_devices_in_the_chunks_they_lack() {
    let mut hall = Hall::new("desk-model", Parameters::Sparse);
    let mut announcer = Announcer::default();
    let messages = announcer.changes(&hall.office, true).unwrap();
    let manifest = Signed::<ModelManifest>::decode(&messages[1].payload).unwrap();
    let manifest = manifest.verify(&hall.keys).unwrap();
    assert_eq!(manifest.rollout_permille, 1000);
    let wanted = ModelWanted {
        version: 1,
        model: manifest.content.sha256,
        chunks: vec![proto::content::ChunkRange { first: 0, last: 0 }],
    };
    let device: DeviceId = "mirror-1".parse().unwrap();
    let answers = hall.say(&incoming(&Topic::ModelWanted(device), &wanted));
    let part = ModelChunk::decode(&answers[0].payload).unwrap();
    manifest.content.check_chunk(0, &part.bytes.0).unwrap();
    let stranger: DeviceId = "nobody".parse().unwrap();
    assert!(hall.say(&incoming(&Topic::ModelWanted(stranger), &wanted)).is_empty());
    let numbers = hall.office.engine.layout().subset_len(Subset::Full);
    assert_eq!(manifest.content.bytes as usize, 4 * numbers);
}
