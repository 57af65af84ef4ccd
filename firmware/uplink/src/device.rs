//! The protocol as a state machine. Time and messages come in, requests go out; tests decide about all three.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proto::content::{CHUNK_BYTES, Reassembly, chunk, indexes};
use proto::model::{ModelChunk, ModelManifest, ModelWanted, REQUEST_CHUNKS};
use proto::secret::DeviceSecret;
use proto::signing::{Freshness, KeyRing, Signed, Statement, Watermark, freshness};
use proto::status::{JobFault, JobNotice, JobPhase, JobState, Status};
use proto::task::{RoundNotice, TaskManifest};
use proto::update::{ChunksWanted, Receipt, Refusal, UpdateChunk, UpdateOffer, Verdict};
use proto::wire::Blob;
use proto::{Channel, DeviceId, Digest, JobId, Message, Pseudonym, Topic};

use crate::edges::{EdgeError, Household, Keeper, Memory, ModelTrial, ReleaseId, Trying};
use crate::pace::{Backoff, Jitter};
use crate::transport::{Event, Requests, Retained};

/// Chunks that are sent at a time: half a megabyte in flight.
const BATCH: usize = 8;

/// Between two offers, or two requests for the same chunks.
const RETRY: Backoff =
    Backoff { first: Duration::from_secs(20), longest: Duration::from_secs(900) };

/// Between two looks at an outbox that has nothing yet.
const LOOK: Duration = Duration::from_secs(5);

/// Within this time of a reconnection an offer goes out again: the broker may have been away for
/// everybody. Not in its first half: what the broker kept for this device comes first, and the
/// newest of it may say that the round is over.
const AFTER_RECONNECT: Duration = Duration::from_secs(5);

/// Within this time of an announcement a device says again how its newest job ended: its fleet was
/// perhaps away.
const SAY_AGAIN: Duration = Duration::from_secs(300);

/// Requests for chunks that stay without any answer, until a download is given up: more than three hours. Whoever announces the
/// version again begins it anew.
const UNANSWERED: u32 = 24;

/// A model that failed for want of room is not fetched again within this time.
const NO_ROOM: Duration = Duration::from_secs(3600);

/// Trials of a model that end with the whole program, until it counts as one that cannot be run: for want of memory, or by a
/// watchdog. The first may have been a power cut.
const TRIALS: u32 = 2;

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

struct Offer {
    release: ReleaseId,
    pseudonym: Pseudonym,
    update: Digest,
    message: Vec<u8>,
    bytes: Vec<u8>,
    subscribed: bool,
    wanted: VecDeque<(Option<u16>, u16)>,
}

struct Round {
    task: TaskManifest,
    report_at: Duration,
    prepared: bool,
    offer: Option<Offer>,
    next_at: Duration,
    attempts: u32,
}

/// Who wanted a model here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AskedBy {
    /// The roll-out, or somebody at home ahead of it: over when the roll-out is.
    RollOut,
    /// A job for this device alone.
    Job,
}

struct Download {
    manifest: ModelManifest,
    job: JobId,
    asked_by: AskedBy,
    parts: Reassembly,
    expected: usize,
    next_at: Duration,
    attempts: u32,
    trying: bool,
    /// When the fleet may be told how the trial ended, and how it did, as far as that is known.
    say_at: Duration,
    outcome: Option<Result<(), JobFault>>,
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

    // ---- rounds ----

    fn notice(&mut self, now: Duration, payload: &[u8]) {
        let (notice, _, fresh) =
            match self.statement::<RoundNotice>(self.memory.round.as_ref(), payload) {
                Ok(read) => read,
                Err(error) => return self.refuse("round notice", &error),
            };
        if *notice.channel() != self.settings.channel {
            return self.refuse("round notice", &"it is for another channel");
        }
        if !self.remember(fresh, |memory| &mut memory.round) || !self.catch_up(&notice) {
            return;
        }
        self.heard = true;
        match notice {
            RoundNotice::Closed { .. } => {
                self.end_round();
                self.note = None;
            }
            RoundNotice::Open(task) => self.open(now, task),
        }
    }

    /// After a loss of memory the first notice may be of a round that an update was made for already: only later rounds
    /// are answered. False where that could not be kept.
    fn catch_up(&mut self, notice: &RoundNotice) -> bool {
        if !self.memory.lost {
            return true;
        }
        let round = match notice {
            RoundNotice::Closed { round, .. } => *round,
            RoundNotice::Open(task) => task.round,
        };
        let kept = self.keep(|memory| (memory.lost, memory.round_done) = (false, round));
        kept.inspect_err(|error| self.refuse("memory", error)).is_ok()
    }

    fn open(&mut self, now: Duration, task: TaskManifest) {
        // What is left of its window is announced anew as it goes by; the moment that was drawn
        // stays.
        let is_same =
            |round: &Round| TaskManifest { report: task.report, ..round.task.clone() } == task;
        if self.round.as_ref().is_some_and(is_same) || task.round <= self.memory.round_done {
            return;
        }
        let after = Duration::from_secs(task.report.after_seconds.into());
        let spread = Duration::from_secs(task.report.spread_seconds.into());
        let report_at = (now + after + self.jitter.within(spread)).max(self.quiet_until);
        // A round that is announced anew, with other terms, is still the one that an update was asked for.
        let asked = |round: &Round| round.task.round == task.round && round.prepared;
        let prepared = self.round.as_ref().is_some_and(asked);
        let (offer, attempts) = (None, 0);
        self.end_round();
        self.note = None;
        self.round = Some(Round { task, report_at, prepared, offer, next_at: report_at, attempts });
    }

    fn end_round(&mut self) {
        if let Some(offer) = self.round.take().and_then(|round| round.offer) {
            self.unneeded.extend(offer.topics());
        }
    }

    /// The update of the round at hand is not offered any more.
    fn end_offer(&mut self, round: &mut Round) {
        self.unneeded.extend(round.offer.take().iter().flat_map(Offer::topics));
    }

    fn advance_round(&mut self, now: Duration, out: &mut dyn Requests) {
        let Some(mut round) = self.round.take() else { return };
        let result = self.step_round(now, &mut round, out);
        match result {
            Ok(()) => {}
            Err(error) => {
                self.note = Some(error.to_string());
                round.next_at = now + RETRY.wait(round.attempts, &mut self.jitter);
                round.attempts += 1;
            }
        }
        self.round = Some(round);
    }

    fn step_round(
        &mut self,
        now: Duration,
        round: &mut Round,
        out: &mut dyn Requests,
    ) -> Result<(), EdgeError> {
        let Some(floor) = self.household.floor() else {
            // Withdrawn: nothing of the update is left in memory, and nothing more is sent.
            self.end_offer(round);
            return Ok(());
        };
        if now < round.report_at {
            return Ok(());
        }
        if let Err(refusal) = floor.check(&round.task) {
            self.note = Some(refusal.to_string());
            self.end_offer(round);
            return Ok(());
        }
        if round.offer.is_none() && now >= round.next_at {
            round.offer = self.make_offer(now, round)?;
        }
        let Some(offer) = &mut round.offer else { return Ok(()) };
        if !offer.subscribed {
            let topics = offer.topics();
            // A round that is announced anew has the same ones.
            self.unneeded.retain(|topic| !topics.contains(topic));
            offer.subscribed = topics.iter().all(|topic| out.subscribe(topic));
        }
        send_wanted(round.task.round, offer, out);
        if !offer.subscribed || now < round.next_at {
            return Ok(());
        }
        let topic = Topic::Update(offer.pseudonym, round.task.round, 0).to_string();
        if out.publish(&topic, offer.message.clone(), false) {
            // What held it back before does not any more.
            self.note = None;
            round.next_at = now + RETRY.wait(round.attempts, &mut self.jitter);
            round.attempts += 1;
        }
        Ok(())
    }

    fn make_offer(&mut self, now: Duration, round: &mut Round) -> Result<Option<Offer>, EdgeError> {
        let Some(&release) = self.household.waiting(&round.task)?.first() else {
            round.next_at = now + LOOK;
            // Asked once, whatever comes of it: asking twice could spend twice, also across a restart.
            if !round.prepared && self.memory.round_offered < round.task.round {
                round.prepared = true;
                self.household.prepare(&round.task)?;
            }
            return Ok(None);
        };
        let bytes = self.household.bytes(release)?;
        if bytes.len() as u64 > u64::from(round.task.max_update_bytes) {
            return Err(EdgeError(format!(
                "the update has {} bytes, the round takes fewer",
                bytes.len()
            )));
        }
        let (channel, number) = (&self.settings.channel, round.task.round);
        let identity = self.settings.secret.identity(channel, number);
        let message = UpdateOffer::new(&identity, channel, number, &bytes)
            .map_err(|error| EdgeError(error.to_string()))
            .and_then(|offer| offer.encode().map_err(|error| EdgeError(error.to_string())))?;
        if self.memory.round_offered < number {
            self.keep(|memory| memory.round_offered = number)?;
        }
        Ok(Some(Offer {
            release,
            pseudonym: identity.pseudonym,
            update: Digest::of(&bytes),
            message,
            bytes,
            subscribed: false,
            wanted: VecDeque::new(),
        }))
    }

    /// The offer under way, if this is its name.
    fn offer_of(&mut self, pseudonym: Pseudonym) -> Option<(u64, &mut Offer)> {
        let round = self.round.as_mut()?;
        let offer = round.offer.as_mut().filter(|offer| offer.pseudonym == pseudonym)?;
        Some((round.task.round, offer))
    }

    fn wanted(&mut self, pseudonym: Pseudonym, payload: &[u8]) {
        let wanted = match ChunksWanted::decode(payload) {
            Ok(wanted) => wanted,
            Err(error) => return self.refuse("request for chunks", &error),
        };
        // Late answers to an offer that is over are no fault.
        let Some((round, offer)) = self.offer_of(pseudonym) else { return };
        if wanted.update != offer.update || wanted.round != round {
            return;
        }
        let total = offer.bytes.len().div_ceil(CHUNK_BYTES);
        let known = |index: &u16| (1..total).contains(&usize::from(*index));
        // The newest request says all that is missing; what an older one asked for is forgotten.
        offer.wanted =
            indexes(&wanted.chunks).filter(known).map(|index| (wanted.lane, index)).collect();
    }

    fn receipt(&mut self, now: Duration, pseudonym: Pseudonym, payload: &[u8]) {
        let read = Signed::<Receipt>::decode(payload)
            .map_err(Into::into)
            .and_then(|signed| signed.verify(&self.settings.keys));
        let receipt = match read {
            Ok(receipt) => receipt,
            Err(error) => return self.refuse("receipt", &error),
        };
        let Some((round, offer)) = self.offer_of(pseudonym) else { return };
        let (release, ours) = (offer.release, (round, pseudonym, offer.update));
        if (receipt.round, receipt.pseudonym, receipt.update) != ours {
            return;
        }
        let settled = match receipt.verdict {
            Verdict::Accepted { round: counted } => self.accepted(release, round, counted),
            Verdict::Refused(refusal) => self.turned_down(now, release, round, refusal),
        };
        if let Err(error) = settled {
            // The offer stays, so the receipt comes again.
            self.note = Some(error.to_string());
        }
    }

    fn accepted(&mut self, release: ReleaseId, round: u64, counted: u64) -> Result<(), EdgeError> {
        if counted == round {
            // First of all: a power cut after the outbox has forgotten the update must not make a second one.
            self.keep(|memory| memory.round_done = round)?;
        }
        self.household.published(release)?;
        self.keep(|memory| memory.contributions += 1)?;
        if counted == round {
            self.end_round();
        } else {
            // It had counted before, and its receipt was lost; this round is still to come, with an update of its own.
            self.keep(|memory| memory.round_offered = memory.round_offered.min(round - 1))?;
            self.round.iter_mut().for_each(|current| (current.offer, current.attempts) = (None, 0));
        }
        self.note = None;
        Ok(())
    }

    fn turned_down(
        &mut self,
        now: Duration,
        release: ReleaseId,
        round: u64,
        refusal: Refusal,
    ) -> Result<(), EdgeError> {
        self.refuse("update", &refusal);
        self.note = Some(refusal.to_string());
        match refusal {
            Refusal::Busy { retry_seconds } => {
                let wait = Duration::from_secs(retry_seconds.min(86_400).into());
                let at = now + wait + self.jitter.within(wait / 2);
                self.round.iter_mut().for_each(|round| round.next_at = at);
                return Ok(());
            }
            // It may open yet; the next offer comes with the usual back-off.
            Refusal::UnknownRound => return Ok(()),
            _ => {}
        }
        // Before the outbox forgets the update, as with one that counted.
        self.keep(|memory| memory.round_done = round)?;
        if refusal.is_final() {
            self.household.refused(release, refusal)?;
        }
        self.end_round();
        Ok(())
    }

    // ---- models ----

    fn manifest(&mut self, now: Duration, payload: &[u8], retained: bool) {
        let read = self.statement::<ModelManifest>(self.memory.model.as_ref(), payload);
        let (manifest, digest, fresh) = match read {
            Ok(read) => read,
            Err(error) => return self.refuse("model manifest", &error),
        };
        if manifest.channel != self.settings.channel {
            return self.refuse("model manifest", &"it is for another channel");
        }
        if !self.remember(fresh, |memory| &mut memory.model) {
            return;
        }
        // With one that the broker had kept comes a new connection, at which it was said.
        if !retained {
            self.say_again(now, manifest.version);
        }
        // Kept whoever it is for: where one finds no room, somebody at home may make some and ask for it.
        self.on_offer = Some((manifest.clone(), digest.job()));
        if manifest.is_for(&self.settings.device) {
            return self.consider(now, manifest, digest.job(), AskedBy::RollOut);
        }
        if manifest.rollout_permille == 0 {
            self.stopped(manifest.version);
        }
    }

    /// The roll-out of a version is stopped: nobody sends its chunks any more. A trial that has begun ends by itself.
    fn stopped(&mut self, version: u64) {
        let is_over = |asked_by, other| asked_by == AskedBy::RollOut && other == version;
        self.next_model.take_if(|(manifest, _, by)| is_over(*by, manifest.version));
        self.download.take_if(|download| {
            !download.trying && is_over(download.asked_by, download.manifest.version)
        });
    }

    fn newer_on_offer(&self) -> Option<&(ModelManifest, JobId)> {
        let under_way = self.download.as_ref().map_or(0, |download| download.manifest.version);
        let known = self.memory.model_tried.max(under_way);
        let fits = |manifest: &ModelManifest| {
            let is_stopped = manifest.rollout_permille == 0;
            !is_stopped && manifest.version > known && manifest.base == self.trial.base()
        };
        self.on_offer.as_ref().filter(|(manifest, _)| fits(manifest))
    }

    /// Somebody at home wants the newest model now, before the roll-out comes to this device, or has made room for it.
    pub fn install_newest(&mut self, now: Duration) {
        if let Some((manifest, job)) = self.newer_on_offer().cloned() {
            self.no_room = None;
            self.consider(now, manifest, job, AskedBy::RollOut);
        }
    }

    fn job(&mut self, now: Duration, payload: &[u8]) {
        let (notice, digest, fresh) =
            match self.statement::<JobNotice>(self.memory.job.as_ref(), payload) {
                Ok(read) => read,
                Err(error) => return self.refuse("job", &error),
            };
        let manifest = match notice {
            JobNotice::Install { device, manifest } if device == self.settings.device => manifest,
            JobNotice::Install { .. } => return self.refuse("job", &"it is for another device"),
            JobNotice::ForAnybody(_) => return self.refuse("job", &"it names no device"),
        };
        if manifest.channel != self.settings.channel {
            return self.refuse("job", &"it is for another channel");
        }
        if self.remember(fresh, |memory| &mut memory.job) {
            self.say_again(now, manifest.version);
            self.consider(now, manifest, digest.job(), AskedBy::Job);
        }
    }

    fn consider(&mut self, now: Duration, manifest: ModelManifest, job: JobId, asked_by: AskedBy) {
        let current = self.download.as_ref().map_or(0, |download| download.manifest.version);
        let waits = |(version, until)| version == manifest.version && now < until;
        if manifest.version == self.trial.version() && self.is_untold(manifest.version) {
            // The power went between its trial and what the fleet was to be told.
            return self.model_ended(now, job, manifest.version, Ok(()));
        }
        if manifest.version <= self.memory.model_tried.max(current)
            || self.no_room.is_some_and(waits)
        {
            return;
        }
        if manifest.base != self.trial.base() {
            return self.other_base(job, manifest.version);
        }
        if self.memory.model_tried == 0 && manifest.content.sha256 == manifest.base {
            // The model that this mirror came with, which need not travel. Later the same numbers are a roll-back.
            return self.model_ended(now, job, manifest.version, Ok(()));
        }
        if self.download.as_ref().is_some_and(|download| download.trying) {
            self.next_model = Some((manifest, job, asked_by));
            return;
        }
        let parts = Reassembly::new(manifest.content.clone());
        let next_at = now + self.jitter.within(AFTER_RECONNECT);
        self.report(job, manifest.version, JobPhase::Downloading);
        self.download = Some(Download {
            manifest,
            job,
            asked_by,
            parts,
            expected: 0,
            next_at,
            attempts: 0,
            trying: false,
            say_at: now,
            outcome: None,
        });
    }

    /// Whether a version's end was never noted, neither of its own trial nor of a later one's.
    fn is_untold(&self, version: u64) -> bool {
        let is_under_way =
            self.download.as_ref().is_some_and(|other| other.manifest.version >= version);
        !is_under_way && self.memory.ended.is_none_or(|ended| ended.version < version)
    }

    /// Not remembered as tried: after an update of the firmware the same model may fit. A manifest that comes again with every
    /// connection is told of once.
    fn other_base(&mut self, job: JobId, version: u64) {
        self.refuse("model manifest", &"it belongs to another base model");
        let state = JobState { job, version, phase: JobPhase::Failed(JobFault::Base) };
        if self.memory.ended != Some(state) {
            self.settle(state, |_| {});
        }
    }

    fn report(&mut self, job: JobId, version: u64, phase: JobPhase) {
        self.queue_state(JobState { job, version, phase });
    }

    /// A version that is announced anew, by a fleet that is back or to more devices: whether its
    /// job has ended here may not have been heard, or not been counted.
    fn say_again(&mut self, now: Duration, version: u64) {
        if self.memory.ended.is_some_and(|ended| ended.version == version) {
            let at = now + self.jitter.within(SAY_AGAIN);
            self.again_at.get_or_insert(at);
        }
    }

    fn queue_ended(&mut self) {
        self.again_at = None;
        if let Some(state) = self.memory.ended
            && !self.states.contains(&state)
        {
            self.queue_state(state);
        }
    }

    fn queue_state(&mut self, state: JobState) {
        // Only the newest states matter; a mirror that is away for long does not pile them up.
        if self.states.len() == BATCH {
            self.states.pop_front();
        }
        self.states.push_back(state);
    }

    fn send_states(&mut self, out: &mut dyn Requests) {
        while let Some(state) = self.states.front() {
            let topic = Topic::JobState(self.settings.device.clone(), state.job).to_string();
            let Ok(payload) = state.encode() else { return };
            if !out.publish(&topic, payload, false) {
                return;
            }
            let ended = !matches!(state.phase, JobPhase::Downloading | JobPhase::Trying);
            self.states.pop_front();
            if ended {
                self.publish_birth(out);
            }
        }
    }

    fn model_chunk(&mut self, now: Duration, version: u64, index: u16, payload: &[u8]) {
        let chunk = match ModelChunk::decode(payload) {
            Ok(chunk) => chunk,
            Err(error) => return self.refuse("model chunk", &error),
        };
        let Some(download) = self.download.as_mut().filter(|download| !download.trying) else {
            return;
        };
        if version != download.manifest.version || index != chunk.index {
            return self.refuse("model chunk", &"its topic and its content disagree");
        }
        match download.parts.take(chunk.model, chunk.index, chunk.bytes.0) {
            Ok(proto::content::Taken::Again) => {}
            Ok(proto::content::Taken::New) => {
                download.attempts = 0;
                download.expected = download.expected.saturating_sub(1);
                if download.expected == 0 {
                    download.next_at = now;
                }
            }
            Err(error) => self.refuse("model chunk", &error),
        }
        self.complete(now);
    }

    /// Hands a model over to its trial once it is whole.
    fn complete(&mut self, now: Duration) {
        let Some(download) = &mut self.download else { return };
        let (job, version) = (download.job, download.manifest.version);
        let begun = match download.parts.finish() {
            Ok(None) => return,
            Ok(Some(bytes)) => {
                download.trying = true;
                download.say_at = now + self.settings.least_trial;
                // The parts are not needed any more.
                download.parts = Reassembly::new(download.manifest.content.clone());
                self.begin_trial(job, version, bytes)
            }
            Err(_) => Err(JobFault::Content),
        };
        match begun {
            Ok(()) => self.report(job, version, JobPhase::Trying),
            Err(fault) => self.end_model(now, Err(fault)),
        }
    }

    /// Notes the trial before it begins: one that ends the whole program leaves nothing else behind.
    fn begin_trial(&mut self, job: JobId, version: u64, bytes: Vec<u8>) -> Result<(), JobFault> {
        let before = self.memory.trying.filter(|trying| trying.version == version);
        let begun = before.map_or(0, |trying| trying.begun) + 1;
        let noted = self.keep(|memory| memory.trying = Some(Trying { job, version, begun }));
        if let Err(error) = noted {
            self.refuse("memory", &error);
            return Err(JobFault::Storage);
        }
        self.trial.begin(version, bytes)
    }

    /// How a trial ended is kept at once, so that a mirror which is switched off does not try the same model at every start, and
    /// told later: how long a trial takes stays in the house.
    fn advance_trial(&mut self, now: Duration) {
        let Some(download) = self.download.as_mut().filter(|download| download.trying) else {
            return;
        };
        if download.outcome.is_none() {
            download.outcome = self.trial.poll();
            let Some(outcome) = download.outcome else { return };
            let state = ended(download.job, download.manifest.version, outcome);
            if now < download.say_at
                && let Err(error) =
                    self.keep(|memory| (memory.unsaid, memory.trying) = (Some(state), None))
            {
                self.refuse("memory", &error);
            }
        }
        let told = |download: &Download| download.outcome.filter(|_| now >= download.say_at);
        if let Some(outcome) = self.download.as_ref().and_then(told) {
            self.end_model(now, outcome);
        }
    }

    fn end_model(&mut self, now: Duration, outcome: Result<(), JobFault>) {
        let Some(download) = self.download.take() else { return };
        self.model_ended(now, download.job, download.manifest.version, outcome);
        if let Some((manifest, job, asked_by)) = self.next_model.take() {
            self.consider(now, manifest, job, asked_by);
        }
    }

    /// Remembers and reports how it went with a version.
    fn model_ended(
        &mut self,
        now: Duration,
        job: JobId,
        version: u64,
        outcome: Result<(), JobFault>,
    ) {
        let state = ended(job, version, outcome);
        if outcome == Err(JobFault::Storage) {
            // Not remembered as tried: there may be room when the manifest comes again.
            self.no_room = Some((version, now + NO_ROOM));
            return self.settle(state, |_| {});
        }
        // Tried also where it failed: the same bytes would fail again.
        self.settle(state, |memory| memory.model_tried = memory.model_tried.max(version));
    }

    /// Keeps how a job ended together with what else that changes, and says it.
    fn settle(&mut self, state: JobState, change: impl FnOnce(&mut Memory)) {
        let kept = self.keep(|memory| {
            change(memory);
            memory.ended = Some(state);
            memory.unsaid.take_if(|unsaid| unsaid.version == state.version);
            memory.trying.take_if(|trying| trying.version == state.version);
        });
        if let Err(error) = kept {
            self.refuse("memory", &error);
        }
        self.again_at = None;
        self.queue_state(state);
    }

    fn advance_download(&mut self, now: Duration, out: &mut dyn Requests) {
        let Some(download) = self.download.as_mut().filter(|download| !download.trying) else {
            return;
        };
        if now < download.next_at {
            return;
        }
        if download.attempts == UNANSWERED {
            // Nothing is reported: it is no fault of the model's, and a fleet that is back announces it again.
            let version = download.manifest.version;
            self.note = Some(format!("the fleet sends nothing of model {version}"));
            self.download = None;
            return;
        }
        let chunks = download.parts.missing_ranges(REQUEST_CHUNKS);
        let expected = indexes(&chunks).count();
        let (version, model) = (download.manifest.version, download.manifest.content.sha256);
        let topic = Topic::ModelWanted(self.settings.device.clone()).to_string();
        let Ok(payload) = (ModelWanted { version, model, chunks }).encode() else { return };
        if out.publish(&topic, payload, false) {
            download.expected = expected;
            download.next_at = now + RETRY.wait(download.attempts, &mut self.jitter);
            download.attempts += 1;
        }
    }
}

fn ended(job: JobId, version: u64, outcome: Result<(), JobFault>) -> JobState {
    let phase = outcome.map_or_else(JobPhase::Failed, |()| JobPhase::Done);
    JobState { job, version, phase }
}

/// Brings what was kept into line with the model in force, `version`.
fn recall(memory: &mut Memory, version: u64) {
    // The power went before the fleet was told; one that failed for want of room is tried again, and then told of.
    if let Some(state) = memory.unsaid.take()
        && state.phase != JobPhase::Failed(JobFault::Storage)
    {
        memory.model_tried = memory.model_tried.max(state.version);
        memory.ended = Some(state);
    }
    let trying =
        memory.trying.take_if(|trying| trying.version <= version || trying.begun >= TRIALS);
    if let Some(Trying { job, version, .. }) = trying.filter(|trying| trying.version > version) {
        memory.model_tried = memory.model_tried.max(version);
        memory.ended = Some(ended(job, version, Err(JobFault::Unusable)));
    }
    // A model that was put in force and is gone from the disk is fetched again.
    let is_gone = |state: JobState| {
        state.phase == JobPhase::Done
            && state.version == memory.model_tried
            && state.version > version
    };
    if memory.ended.is_some_and(is_gone) {
        memory.model_tried = version;
    }
    // Also after a loss of memory: a roll-back to the model that the mirror came with is then no model that it has.
    memory.model_tried = memory.model_tried.max(version);
}

impl Offer {
    /// What the fleet answers it on.
    fn topics(&self) -> [String; 2] {
        [Topic::Receipt(self.pseudonym), Topic::Wanted(self.pseudonym)]
            .map(|topic| topic.to_string())
    }
}

/// Sends the next chunks that were asked for, as far as the queue takes them.
fn send_wanted(round: u64, offer: &mut Offer, out: &mut dyn Requests) {
    for _ in 0..BATCH {
        let Some(&(lane, index)) = offer.wanted.front() else { return };
        let topic = match lane {
            Some(lane) => Topic::Lane(offer.pseudonym, lane, round, index),
            None => Topic::Update(offer.pseudonym, round, index),
        };
        let bytes = Blob(chunk(&offer.bytes, index).unwrap_or_default().to_vec());
        let message = UpdateChunk { update: offer.update, index, bytes };
        let Ok(payload) = message.encode() else { return };
        if !out.publish(&topic.to_string(), payload, false) {
            return;
        }
        offer.wanted.pop_front();
    }
}
