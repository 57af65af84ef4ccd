//! The protocol as a state machine. Time and messages come in, requests go out; tests decide about all three.

mod models;
mod rounds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proto::model::ModelManifest;
use proto::secret::DeviceSecret;
use proto::signing::{Freshness, KeyRing, Signed, Statement, Watermark, freshness};
use proto::status::{JobState, Status};
use proto::{Channel, DeviceId, Digest, JobId, Message, Topic};

use crate::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, Trying};
use crate::pace::{Backoff, Jitter};
use crate::transport::{Event, Requests, Retained};
use models::{AskedBy, Download, recall};
use rounds::Round;

/// Chunks that are sent at a time: half a megabyte in flight.
const BATCH: usize = 8;

/// Between two offers, or two requests for the same chunks.
const RETRY: Backoff =
    Backoff { first: Duration::from_secs(20), longest: Duration::from_secs(900) };

/// Within this time of a reconnection an offer goes out again: the broker may have been away for
/// everybody. Not in its first half: what the broker kept for this device comes first, and the
/// newest of it may say that the round is over.
const AFTER_RECONNECT: Duration = Duration::from_secs(5);

/// Who the device is, and whom it believes.
pub struct Settings {
    /// Name, as in the certificate.
    pub device: DeviceId,
    /// Channel.
    pub channel: Channel,
    /// Firmware version, at most 64 bytes.
    pub firmware: String,
    /// Makes its names in rounds.
    pub secret: DeviceSecret,
    /// The fleet's keys.
    pub keys: KeyRing,
    /// How long a model is tried at least, as far as the fleet can see.
    pub least_trial: Duration,
}

/// What a person may see of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether the broker is there, and lets this mirror hear and say what it is to.
    pub connected: bool,
    /// Whether it is there and does not; `note` says what it refuses.
    pub denied: bool,
    /// Whether the mirror takes part.
    pub takes_part: bool,
    /// The open round, if there is one.
    pub round: Option<u64>,
    /// What holds it back, or last went wrong.
    pub note: Option<String>,
    /// Updates that counted.
    pub contributions: u64,
    /// The newest model version whose trial ended.
    pub model_tried: u64,
    /// A model is being fetched or tried.
    pub model_under_way: Option<u64>,
    /// A newer model of this device's base than any tried here, not under way: the roll-out has not come to this device yet, or
    /// the model found no room, or nobody sent it.
    pub model_on_offer: Option<u64>,
    /// What was refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

/// One device's side of the protocol.
pub struct Device {
    settings: Settings,
    household: Box<dyn Household>,
    trial: Box<dyn ModelTrial>,
    keeper: Box<dyn Keeper>,
    memory: Memory,
    jitter: Jitter,
    connected: bool,
    greeted: bool,
    /// Whether a round notice came on this connection. Until then the round at hand may be over.
    heard: bool,
    /// Nothing is done for a round before: what the broker kept for this device comes first.
    quiet_until: Duration,
    round: Option<Round>,
    /// Topics of rounds that are over here, still subscribed to.
    unneeded: BTreeSet<String>,
    download: Option<Download>,
    next_model: Option<(ModelManifest, JobId, AskedBy)>,
    /// The version that failed for want of room, and when it may be fetched again.
    no_room: Option<(u64, Duration)>,
    on_offer: Option<(ModelManifest, JobId)>,
    states: VecDeque<JobState>,
    /// When to say again how the newest job ended.
    again_at: Option<Duration>,
    /// What the broker has refused on this connection.
    denied: Option<String>,
    note: Option<String>,
    refused: BTreeMap<&'static str, u64>,
}

impl Device {
    /// A device that is not connected yet. `memory` is what `keeper` kept last.
    pub fn new(
        settings: Settings,
        mut memory: Memory,
        jitter: Jitter,
        household: Box<dyn Household>,
        trial: Box<dyn ModelTrial>,
        keeper: Box<dyn Keeper>,
    ) -> Device {
        recall(&mut memory, trial.version());
        Device {
            settings,
            household,
            trial,
            keeper,
            memory,
            jitter,
            connected: false,
            greeted: false,
            heard: false,
            quiet_until: Duration::ZERO,
            round: None,
            unneeded: BTreeSet::new(),
            download: None,
            next_model: None,
            no_room: None,
            on_offer: None,
            states: VecDeque::new(),
            again_at: None,
            denied: None,
            note: None,
            refused: BTreeMap::new(),
        }
    }

    /// What the broker says of a device whose connection breaks.
    pub fn will(device: &DeviceId) -> Retained {
        let payload = Status::Offline { lost: true }.encode().unwrap_or_default();
        Retained { topic: Topic::Status(device.clone()).to_string(), payload }
    }

    /// Takes one event at time `now` of a clock that never goes back.
    pub fn handle(&mut self, now: Duration, event: Event, out: &mut dyn Requests) {
        match event {
            Event::Connected => self.connect(now),
            Event::Disconnected(reason) => {
                self.connected = false;
                self.note = Some(reason);
            }
            // What else the broker does goes on.
            Event::Refused(reason) => {
                self.refuse("message to the broker", &reason);
                self.denied.get_or_insert(reason);
            }
            Event::Message { topic, payload, retained } => {
                self.message(now, &topic, &payload, retained);
            }
            Event::Wake | Event::Stop => {}
        }
        self.tick(now, out);
    }

    /// Looks at the timers.
    pub fn tick(&mut self, now: Duration, out: &mut dyn Requests) {
        self.advance_trial(now);
        if !self.connected || !self.greet(out) {
            return;
        }
        self.unneeded.retain(|topic| !out.unsubscribe(topic));
        if self.heard {
            self.advance_round(now, out);
        }
        self.advance_download(now, out);
        if self.again_at.is_some_and(|at| now >= at) {
            self.queue_ended();
        }
        self.send_states(out);
    }

    /// A clean stop: the status says so, and a trial that it cuts short is not held against the model.
    pub fn goodbye(&mut self, out: &mut dyn Requests) {
        self.cut_trial_short();
        if self.connected {
            self.publish_status(&Status::Offline { lost: false }, out);
        }
        self.connected = false;
    }

    fn cut_trial_short(&mut self) {
        let runs = |download: &Download| download.trying && download.outcome.is_none();
        let Some(trying) = self.memory.trying.filter(|_| self.download.as_ref().is_some_and(runs))
        else {
            return;
        };
        let begun = trying.begun.saturating_sub(1);
        // Nothing to note is not noted: an earlier version, which may be the next to start, could not read it.
        let trying = (begun > 0).then_some(Trying { begun, ..trying });
        let kept = self.keep(|memory| memory.trying = trying);
        if let Err(error) = kept {
            self.refuse("memory", &error);
        }
    }

    /// What a person may see.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            connected: self.connected && self.denied.is_none(),
            denied: self.connected && self.denied.is_some(),
            takes_part: self.household.floor().is_some(),
            round: self.round.as_ref().map(|round| round.task.round),
            note: self.denied.clone().filter(|_| self.connected).or_else(|| self.note.clone()),
            contributions: self.memory.contributions,
            model_tried: self.memory.model_tried,
            model_under_way: self.download.as_ref().map(|download| download.manifest.version),
            model_on_offer: self.newer_on_offer().map(|(manifest, _)| manifest.version),
            refused: self.refused.clone(),
        }
    }

    fn connect(&mut self, now: Duration) {
        (self.connected, self.greeted, self.heard) = (true, false, false);
        (self.note, self.denied) = (None, None);
        self.queue_ended();
        let half = AFTER_RECONNECT / 2;
        self.quiet_until = now + half + self.jitter.within(half);
        if let Some(round) = &mut self.round {
            round.next_at = self.quiet_until;
            round.offer.iter_mut().for_each(|offer| offer.subscribed = false);
        }
    }

    /// Birth and subscriptions; everything anew where the queue was full half-way.
    fn greet(&mut self, out: &mut dyn Requests) -> bool {
        if self.greeted {
            return true;
        }
        let (device, channel) = (&self.settings.device, &self.settings.channel);
        let filters = [
            Topic::Round(channel.clone()).to_string(),
            Topic::ModelManifest(channel.clone()).to_string(),
            Topic::JobNotify(device.clone()).to_string(),
            format!("mirror/v1/{device}/model/chunk/+/+"),
        ];
        let subscribed = filters.iter().all(|filter| out.subscribe(filter));
        self.greeted = subscribed && self.publish_birth(out);
        self.greeted
    }

    fn publish_birth(&self, out: &mut dyn Requests) -> bool {
        let (firmware, model_tried) = (self.settings.firmware.clone(), self.memory.model_tried);
        self.publish_status(&Status::Online { firmware, model_tried }, out)
    }

    fn publish_status(&self, status: &Status, out: &mut dyn Requests) -> bool {
        let topic = Topic::Status(self.settings.device.clone()).to_string();
        status.encode().is_ok_and(|payload| out.publish(&topic, payload, true))
    }

    /// Counts a refusal; tells the first of its kind.
    fn refuse(&mut self, kind: &'static str, reason: &dyn std::fmt::Display) {
        let count = self.refused.entry(kind).or_default();
        *count += 1;
        if *count == 1 {
            tracing::warn!(%reason, "{kind} refused; later ones are only counted");
        }
    }

    fn message(&mut self, now: Duration, topic: &str, payload: &[u8], retained: bool) {
        let Ok(topic) = topic.parse::<Topic>() else { return self.refuse("topic", &topic) };
        match topic {
            Topic::Round(channel) if channel == self.settings.channel => self.notice(now, payload),
            Topic::ModelManifest(channel) if channel == self.settings.channel => {
                self.manifest(now, payload, retained);
            }
            Topic::JobNotify(device) if device == self.settings.device => self.job(now, payload),
            Topic::ModelChunk(device, version, index) if device == self.settings.device => {
                self.model_chunk(now, version, index, payload);
            }
            Topic::Wanted(pseudonym) => self.wanted(pseudonym, payload),
            Topic::Receipt(pseudonym) => self.receipt(now, pseudonym, payload),
            other => self.refuse("topic", &other),
        }
    }

    /// Reads and verifies a statement, and applies the not-older rule.
    fn statement<T: Statement>(
        &self,
        known: Option<&Watermark>,
        payload: &[u8],
    ) -> Result<(T, Digest, Freshness), proto::signing::SigningError> {
        let signed = Signed::<T>::decode(payload)?;
        let statement = signed.verify(&self.settings.keys)?;
        Ok((statement, signed.digest(), freshness(known, &signed)?))
    }

    fn keep(&mut self, change: impl FnOnce(&mut Memory)) -> Result<(), EdgeError> {
        let mut memory = self.memory.clone();
        change(&mut memory);
        self.keeper.keep(&memory)?;
        self.memory = memory;
        Ok(())
    }

    /// Remembers a fresh statement before anything is done about it.
    fn remember(
        &mut self,
        fresh: Freshness,
        place: fn(&mut Memory) -> &mut Option<Watermark>,
    ) -> bool {
        let Freshness::New(mark) = fresh else { return true };
        match self.keep(|memory| *place(memory) = Some(mark)) {
            Ok(()) => true,
            Err(error) => {
                self.refuse("memory", &error);
                false
            }
        }
    }
}
