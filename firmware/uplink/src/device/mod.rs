//! The protocol as a state machine. Time and messages come in, requests go out; tests decide about all three.

mod models;
mod rounds;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use link::Backoff;
use proto::model::ModelManifest;
use proto::secret::DeviceSecret;
use proto::signing::{Freshness, KeyRing, Signed, SigningError, Statement, Watermark, freshness};
use proto::status::{JobState, ONLINE_SECONDS, Status};
use proto::topic::filter;
use proto::{Channel, DeviceId, Digest, JobId, Message, Topic};

use crate::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, Trying};
use crate::pace::Jitter;
use crate::transport::{Event, Requests, Retained};
use models::{Download, NoRoom, Stage, Wanted, recall};
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

/// The birth is said again after this, or up to a sixth before: the broker keeps it for twice as long.
const BIRTH_AGAIN: Duration = Duration::from_secs(ONLINE_SECONDS as u64 / 2);

/// On a connection without a statement of the fleet for this long there is none to come: a fleet always has a model that is
/// announced, and the broker hands that out at once.
const SILENCE: Duration = Duration::from_secs(300);

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
    /// How long a model is tried at least, as far as the fleet can see. A start in that time ends the wait.
    pub least_trial: Duration,
}

/// What a person may see of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether the broker is there, and lets this mirror hear and say what it is to.
    pub connected: bool,
    /// Whether it does not, or cannot be trusted; `note` says what it refuses, or why, with the next step.
    pub denied: bool,
    /// Whether it is there, and has brought nothing that the fleet signed for this channel; `note` says what to compare.
    pub unheard: bool,
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
    connection: Option<Connection>,
    /// Why there is none, where a certificate's time is the reason.
    untrusted: Option<String>,
    /// Whether a connection has lasted without a statement of the fleet's, and none has come since.
    is_silent: bool,
    round: Option<Round>,
    /// Topics of rounds that are over here, still subscribed to.
    unneeded: BTreeSet<String>,
    download: Option<Download>,
    next_model: Option<Wanted>,
    /// The model that failed for want of room.
    no_room: Option<NoRoom>,
    on_offer: Option<(ModelManifest, JobId)>,
    states: VecDeque<JobState>,
    /// When to say again how the newest job ended.
    again_at: Option<Duration>,
    /// When to say the birth and subscribe anew, for a statement that could not be remembered.
    listen_at: Option<Duration>,
    /// Statements in a row that could not be remembered, and why the last one could not.
    unremembered: Option<(u32, String)>,
    note: Option<String>,
    refused: BTreeMap<&'static str, u64>,
}

/// A connection to the broker.
struct Connection {
    since: Duration,
    /// When the birth is to be said again. `None` until it was said, with the subscriptions, for the first time.
    birth_at: Option<Duration>,
    /// Whether a statement came that the fleet signed for this channel.
    hears_fleet: bool,
    /// Why a statement that came is none of the fleet for this channel.
    unfit: Option<String>,
    /// Whether a round notice came. Until then the round at hand may be over.
    hears_round: bool,
    /// Nothing is done for a round before: what the broker kept for this device comes first.
    quiet_until: Duration,
    /// What the broker has refused.
    denied: Option<String>,
}

/// Why a statement is not taken.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("it is for another channel")]
    Channel,
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
            connection: None,
            untrusted: None,
            is_silent: false,
            round: None,
            unneeded: BTreeSet::new(),
            download: None,
            next_model: None,
            no_room: None,
            on_offer: None,
            states: VecDeque::new(),
            again_at: None,
            listen_at: None,
            unremembered: None,
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
                self.connection = None;
                (self.note, self.untrusted) = (Some(reason), None);
            }
            Event::Untrusted(reason) => {
                self.connection = None;
                self.untrusted = Some(reason);
            }
            // What else the broker does goes on.
            Event::Refused { reason, .. } => {
                self.refuse("message to the broker", &reason);
                if let Some(connection) = &mut self.connection {
                    connection.denied.get_or_insert(reason);
                }
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
        self.listen_again(now);
        let floor = self.floor_of_round(now);
        if !self.greet(now, out) {
            return;
        }
        self.unneeded.retain(|topic| !out.unsubscribe(topic));
        let Some(connection) = &mut self.connection else { return };
        self.is_silent |= !connection.hears_fleet && now >= connection.since + SILENCE;
        if connection.hears_round {
            self.advance_round(now, floor, out);
        }
        self.find_room(now);
        self.advance_download(now, out);
        if self.again_at.is_some_and(|at| now >= at) {
            self.queue_ended();
        }
        self.send_states(out);
    }

    /// A clean stop: the status says so, and a trial that it cuts short is not held against the model.
    pub fn goodbye(&mut self, out: &mut dyn Requests) {
        self.cut_trial_short();
        if self.connection.take().is_some()
            && let Some((topic, payload)) = self.status(&Status::Offline { lost: false })
        {
            out.publish(&topic, payload, true);
        }
    }

    fn cut_trial_short(&mut self) {
        let runs =
            |download: &Download| matches!(download.stage, Stage::Trying { outcome: None, .. });
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
        let connection = self.connection.as_ref();
        let denied = connection.and_then(|connection| connection.denied.as_ref());
        let denied = denied.or(self.untrusted.as_ref());
        let unheard = connection.is_some() && self.is_silent;
        Snapshot {
            connected: connection.is_some() && denied.is_none(),
            denied: denied.is_some(),
            unheard,
            round: self.round.as_ref().map(|round| round.task.round),
            note: denied.cloned().or_else(|| unheard.then(|| self.silence())).or(self.note.clone()),
            contributions: self.memory.contributions,
            model_tried: self.memory.model_tried,
            model_under_way: self.download.as_ref().map(Download::version),
            model_on_offer: self.newer_on_offer().map(|(manifest, _)| manifest.version),
            refused: self.refused.clone(),
        }
    }

    fn silence(&self) -> String {
        let Settings { channel, keys, .. } = &self.settings;
        let unfit = self.connection.as_ref().and_then(|connection| connection.unfit.as_ref());
        if let Some(reason) = unfit {
            return format!(
                "connected, but what is announced for fleet.channel {channel} cannot be taken: {reason}"
            );
        }
        format!(
            "connected, but nothing of fleet.channel {channel} signed with a key of fleet.pub ({keys}) was heard; compare both with the \
             operator"
        )
    }

    fn connect(&mut self, now: Duration) {
        (self.note, self.untrusted, self.listen_at) = (None, None, None);
        self.queue_ended();
        let half = AFTER_RECONNECT / 2;
        let quiet_until = now + half + self.jitter.within(half);
        self.connection = Some(Connection {
            since: now,
            birth_at: None,
            hears_fleet: false,
            unfit: None,
            hears_round: false,
            quiet_until,
            denied: None,
        });
        if let Some(round) = &mut self.round {
            round.next_at = quiet_until;
            round.offer.iter_mut().for_each(|offer| offer.subscribed = false);
        }
    }

    /// Has birth and subscriptions made anew on the connection at hand, once that is due: the broker then repeats what it keeps, and
    /// the fleet a job.
    fn listen_again(&mut self, now: Duration) {
        let Some(connection) = &mut self.connection else { return };
        if self.listen_at.take_if(|at| now >= *at).is_some() {
            connection.birth_at = None;
        }
    }

    /// Birth and subscriptions; everything anew where the queue was full half-way. Later the birth alone, before the broker forgets it.
    /// Says whether the connection is ready for more.
    fn greet(&mut self, now: Duration, out: &mut dyn Requests) -> bool {
        let Some(Connection { birth_at, .. }) = self.connection else { return false };
        let (is_known, is_due) = (birth_at.is_some(), birth_at.is_none_or(|at| now >= at));
        if !is_due {
            return true;
        }
        let filters = filter::device(&self.settings.device, &self.settings.channel);
        let is_subscribed = is_known || filters.iter().all(|filter| out.subscribe(filter));
        if !is_subscribed || !self.publish_birth(out) {
            return is_known;
        }
        let again_at = now + BIRTH_AGAIN - self.jitter.within(BIRTH_AGAIN / 6);
        self.connection.iter_mut().for_each(|connection| connection.birth_at = Some(again_at));
        true
    }

    fn publish_birth(&self, out: &mut dyn Requests) -> bool {
        let (firmware, model_tried) = (self.settings.firmware.clone(), self.memory.model_tried);
        let birth = self.status(&Status::Online { firmware, model_tried });
        birth.is_some_and(|(topic, payload)| out.retain_for(&topic, payload, ONLINE_SECONDS))
    }

    /// Topic and bytes of a status; `None` where it cannot be written.
    fn status(&self, status: &Status) -> Option<(String, Vec<u8>)> {
        let topic = Topic::Status(self.settings.device.clone()).to_string();
        status.encode().ok().map(|payload| (topic, payload))
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
        let topic = match topic.parse::<Topic>() {
            Ok(topic) => topic,
            Err(error) => return self.refuse("topic", &error),
        };
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

    /// Reads and verifies a statement for this channel, and applies the not-older rule.
    fn statement<T: Statement>(
        &mut self,
        known: Option<Watermark>,
        channel: fn(&T) -> &Channel,
        payload: &[u8],
    ) -> Result<(T, Digest, Freshness), Unfit> {
        let read = self.verified(channel, payload);
        if let Some(connection) = &mut self.connection {
            match &read {
                Ok(_) => (connection.hears_fleet, self.is_silent) = (true, false),
                Err(unfit) => connection.unfit = Some(unfit.to_string()),
            }
        }
        let (signed, statement) = read?;
        Ok((statement, signed.digest(), freshness(known.as_ref(), &signed)?))
    }

    fn verified<T: Statement>(
        &self,
        channel: fn(&T) -> &Channel,
        payload: &[u8],
    ) -> Result<(Signed<T>, T), Unfit> {
        let signed = Signed::<T>::decode(payload).map_err(SigningError::from)?;
        let statement = signed.verify(&self.settings.keys)?;
        if *channel(&statement) != self.settings.channel {
            return Err(Unfit::Channel);
        }
        Ok((signed, statement))
    }

    fn keep(&mut self, change: impl FnOnce(&mut Memory)) -> Result<(), EdgeError> {
        let mut memory = self.memory.clone();
        change(&mut memory);
        self.keeper.keep(&memory)?;
        self.memory = memory;
        if let Some((_, reason)) = self.unremembered.take() {
            // Whatever else was noted since then still holds.
            self.note.take_if(|note| *note == reason);
        }
        Ok(())
    }

    /// Remembers a fresh statement before anything is done about it.
    fn remember(
        &mut self,
        now: Duration,
        fresh: Freshness,
        place: fn(&mut Memory) -> &mut Option<Watermark>,
    ) -> bool {
        let Freshness::New(mark) = fresh else { return true };
        match self.keep(|memory| *place(memory) = Some(mark)) {
            Ok(()) => true,
            Err(error) => {
                self.not_remembered(now, &error);
                false
            }
        }
    }

    /// What a statement changes could not be kept: nothing is done about it before the broker has repeated it.
    fn not_remembered(&mut self, now: Duration, error: &EdgeError) {
        self.refuse("memory", error);
        self.note = Some(error.to_string());
        let count = self.unremembered.as_ref().map_or(0, |(count, _)| *count);
        let wait = RETRY.wait(count, |span| self.jitter.within(span));
        self.unremembered = Some((count.saturating_add(1), error.to_string()));
        self.listen_at.get_or_insert(now + wait);
    }
}
