//! One worker's desk: messages in, messages out, no network.
//!
//! Offers and chunks become submissions, submissions become receipts; requests for a model become chunks of it. A
//! desk remembers only transfers under way, within a fixed number of bytes; whatever it forgets, the device offers
//! again. So a desk may be dropped at any time, and memory does not grow with the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use learn::averaging::AveragingError;
use proto::content::{Content, Reassembly, chunk, indexes};
use proto::model::{ModelChunk, ModelManifest, ModelWanted, REQUEST_CHUNKS};
use proto::signing::{KeyRing, Signed, Statement};
use proto::status::{JobPhase, JobState, Status};
use proto::task::RoundNotice;
use proto::update::{ChunksWanted, Receipt, Refusal, UpdateChunk, UpdateOffer, Verdict};
use proto::wire::{Blob, DecodeError, Message};
use proto::{Channel, DeviceId, Digest, Pseudonym, Topic};
use tracing::{debug, error, warn};

use crate::carrier::{Carrier, Incoming, Outgoing};
use crate::engine::{EngineError, Numbers, Report};
use crate::ingest::{BATCH_BYTES, BATCH_UPDATES, Counting, Submission, Worker, update_bytes};
use crate::office::Office;
use crate::records::{Model, Rollout, Standing};
use crate::refusal_kinds::{RefusalKind, StrangeKind};
use crate::store::{Fate, NotCounted, StoreError};

/// Bytes of unfinished transfers that one desk holds.
const TRANSFER_BYTES: usize = 64 << 20;

/// A transfer that no chunk came for in this time is forgotten.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(120);

/// Seconds after which a device may ask a full desk again.
const BUSY_SECONDS: u32 = 30;

/// Devices that one desk's log names.
const NAMED_DEVICES: usize = 20;

/// Bytes of answers at which a batch ends. Requests are a few bytes each and their answers megabytes.
const ANSWER_BYTES: usize = 8 << 20;

/// Whose transfer: a round and a name in it. The name and not the bytes, which an update that is offered anew in another
/// round shares, and which somebody else may claim to have.
type Sender = (u64, Pseudonym);

struct Transfer {
    parts: Reassembly,
    touched: Instant,
}

/// Where trouble was, as far as the log may say it: never a device and its update together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Anywhere,
    Round(u64),
    Device(DeviceId),
}

/// One worker's side of the conversation.
pub struct Desk {
    office: Arc<Office>,
    lane: u16,
    worker: Worker,
    /// One a sender, or a single device could fill the desk with offers that it never completes.
    transfers: BTreeMap<Sender, Transfer>,
    held: usize,
    waiting: Vec<Submission>,
    out: Vec<Outgoing>,
    /// Parts of models, after everything else: a part that finds no room is asked for again at once, a receipt after a while.
    parts: Vec<Outgoing>,
    /// Bytes of both.
    answer_bytes: usize,
    /// Devices whose request for a model is answered in this batch.
    served: BTreeSet<DeviceId>,
    /// Kinds of trouble that were logged already, by the rounds and devices of the database.
    told: BTreeSet<(Place, &'static str)>,
}

impl Desk {
    /// Desk number `lane`, unique among those that live.
    pub fn new(office: Arc<Office>, lane: u16) -> Desk {
        let store = Arc::clone(office.engine.shared_store());
        Desk {
            worker: Worker::new(store, u32::from(lane)),
            office,
            lane,
            transfers: BTreeMap::new(),
            held: 0,
            waiting: Vec::new(),
            out: Vec::new(),
            parts: Vec::new(),
            answer_bytes: 0,
            served: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    /// Takes what the carrier has, up to a batch of messages or of answers; counts it; answers. Says whether there was
    /// anything.
    ///
    /// # Errors
    /// When the database fails. Nothing of the batch was acknowledged then; devices offer it again.
    pub fn serve(
        &mut self,
        carrier: &mut dyn Carrier,
        patience: Duration,
    ) -> Result<bool, EngineError> {
        let Some(first) = carrier.receive(patience) else {
            self.forget_stale();
            return Ok(false);
        };
        self.take(&first)?;
        let (mut bytes, mut count) = (first.payload.len(), 1);
        while bytes < BATCH_BYTES && count < BATCH_UPDATES && self.answer_bytes < ANSWER_BYTES {
            let Some(next) = carrier.receive(Duration::ZERO) else { break };
            self.take(&next)?;
            bytes += next.payload.len();
            count += 1;
        }
        self.finish()?;
        self.outgoing().into_iter().for_each(|message| carrier.send(message));
        Ok(true)
    }

    /// Looks at one message.
    ///
    /// # Errors
    /// When the database fails.
    pub fn take(&mut self, message: &Incoming) -> Result<(), EngineError> {
        let payload = &message.payload;
        match message.topic.parse() {
            Ok(Topic::Update { name, round, chunk: 0 }) => self.offered(name, round, payload),
            Ok(Topic::Update { name, round, .. } | Topic::Lane { name, round, .. }) => {
                self.chunk((round, name), payload)
            }
            Ok(Topic::ModelWanted(device)) => self.model_wanted(&device, payload),
            Ok(Topic::JobState(device, _)) => self.job_state(&device, payload),
            Ok(Topic::Status(device)) => self.status(&device, message),
            Ok(Topic::Round(channel)) if channel == *self.office.engine.channel() => {
                let numbers = |said: &RoundNotice| Numbers::of_round(said.round());
                self.statement(message, RoundNotice::channel, numbers)
            }
            Ok(Topic::ModelManifest(channel)) if channel == *self.office.engine.channel() => {
                let numbers = |said: &ModelManifest| Numbers::of_version(said.version);
                self.statement(message, |said: &ModelManifest| &said.channel, numbers)
            }
            _ => self.strange(Place::Anywhere, StrangeKind::Topic),
        }
    }

    /// Counts what is complete and queues the receipts.
    ///
    /// # Errors
    /// When the database fails.
    pub fn finish(&mut self) -> Result<(), EngineError> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(self.worker.write_refused()?);
        }
        for counting in self.worker.count(&waiting)? {
            self.answer(&counting)?;
        }
        Ok(())
    }

    /// What is to be sent, parts of models last.
    pub fn outgoing(&mut self) -> Vec<Outgoing> {
        self.answer_bytes = 0;
        self.served.clear();
        let mut all = std::mem::take(&mut self.out);
        all.append(&mut self.parts);
        all
    }

    fn offered(&mut self, name: Pseudonym, round: u64, payload: &[u8]) -> Result<(), EngineError> {
        let offer = match UpdateOffer::decode(payload) {
            Ok(offer) => offer,
            Err(error) => return self.unread(Place::Round(round), StrangeKind::Offer, &error),
        };
        let Some(device) = self.office.engine.store().named(round, name)? else {
            // Nobody to answer: the name is no device's, and its topic may be a stranger's invention.
            return self.strange(Place::Round(round), StrangeKind::Name);
        };
        let Ok(id) = device.name.parse::<DeviceId>() else { return Ok(()) };
        let engine = &self.office.engine;
        let key = engine.secret(&id).verifying_key(engine.channel(), round);
        let Ok((manifest, first)) = offer.verify(&key, name, round) else {
            return self.early(round, RefusalKind::Signature);
        };
        let update = manifest.content.sha256;
        if manifest.channel != *engine.channel() {
            return self.early(round, RefusalKind::Channel);
        }
        if let Some(counted) = engine.store().counted_in(learn::edges::Digest(update.0))? {
            return self.say(name, round, update, Verdict::Accepted { round: counted });
        }
        if device.standing != Standing::Enrolled {
            self.early(round, RefusalKind::Revoked)?;
            return self.refuse(name, round, update, Refusal::Revoked);
        }
        if manifest.content.total() == 1 {
            self.waiting.push(Submission { round, pseudonym: name, bytes: first });
            return Ok(());
        }
        self.begin(name, round, manifest.content, first)
    }

    /// A transfer of several chunks: asks for what is missing, if there is room and the round could take it.
    fn begin(
        &mut self,
        name: Pseudonym,
        round: u64,
        content: Content,
        first: Vec<u8>,
    ) -> Result<(), EngineError> {
        let update = content.sha256;
        let Some(record) = self.office.engine.store().round(round)? else {
            return self.refuse(name, round, update, Refusal::UnknownRound);
        };
        if !record.is_open() {
            self.early(round, RefusalKind::NotCollecting)?;
            return self.refuse(name, round, update, Refusal::RoundClosed);
        }
        if content.bytes != update_bytes(&record.task.rules()?) as u64 {
            self.early(round, RefusalKind::Shape)?;
            return self.refuse(name, round, update, Refusal::Mismatch);
        }
        let sender = (round, name);
        if !self.make_room(sender, content) {
            self.early(round, RefusalKind::Busy)?;
            let busy = Refusal::Busy { retry_seconds: BUSY_SECONDS };
            return self.refuse(name, round, update, busy);
        }
        self.part(sender, update, 0, first)?;
        let Some(transfer) = self.transfers.get(&sender) else { return Ok(()) };
        let wanted = ChunksWanted {
            round,
            update,
            lane: Some(self.lane),
            chunks: transfer.parts.missing_ranges(usize::MAX),
        };
        self.queue(Topic::Wanted(name), &wanted)
    }

    /// Begins a transfer in the place of any other of this sender's, or goes on with the same one. Says whether there is room.
    fn make_room(&mut self, sender: Sender, content: Content) -> bool {
        self.forget_stale();
        let under_way = self.transfers.get(&sender).map(|transfer| transfer.parts.content());
        if under_way == Some(&content) {
            return true;
        }
        self.forget(sender);
        let bytes = content.bytes as usize;
        if self.held + bytes > TRANSFER_BYTES {
            return false;
        }
        self.held += bytes;
        let parts = Reassembly::new(content);
        self.transfers.insert(sender, Transfer { parts, touched: Instant::now() });
        true
    }

    fn chunk(&mut self, sender: Sender, payload: &[u8]) -> Result<(), EngineError> {
        match UpdateChunk::decode(payload) {
            Ok(chunk) => self.part(sender, chunk.update, chunk.index, chunk.bytes.0),
            Err(error) => self.unread(Place::Round(sender.0), StrangeKind::Chunk, &error),
        }
    }

    fn part(
        &mut self,
        sender: Sender,
        update: Digest,
        index: u16,
        bytes: Vec<u8>,
    ) -> Result<(), EngineError> {
        let (round, pseudonym) = sender;
        // Others are late chunks of transfers that are over, or meant for a desk that is gone.
        let transfer = self.transfers.get_mut(&sender);
        let Some(transfer) = transfer.filter(|known| known.parts.content().sha256 == update) else {
            return Ok(());
        };
        if transfer.parts.take(update, index, bytes).is_err() {
            return self.early(round, RefusalKind::Chunk);
        }
        transfer.touched = Instant::now();
        if transfer.parts.missing() > 0 {
            return Ok(());
        }
        let Some(transfer) = self.forget(sender) else { return Ok(()) };
        match transfer.parts.finish() {
            Ok(Some(bytes)) => {
                self.waiting.push(Submission { round, pseudonym, bytes });
                Ok(())
            }
            _ => {
                self.early(round, RefusalKind::Malformed)?;
                self.refuse(pseudonym, round, update, Refusal::Malformed)
            }
        }
    }

    fn forget_stale(&mut self) {
        let is_stale = |transfer: &Transfer| transfer.touched.elapsed() >= TRANSFER_PATIENCE;
        let stale = self.transfers.iter().filter(|(_, transfer)| is_stale(transfer));
        let stale: Vec<Sender> = stale.map(|(sender, _)| *sender).collect();
        stale.into_iter().for_each(|sender| drop(self.forget(sender)));
    }

    fn forget(&mut self, sender: Sender) -> Option<Transfer> {
        let transfer = self.transfers.remove(&sender)?;
        self.held = self.held.saturating_sub(transfer.parts.content().bytes as usize);
        Some(transfer)
    }

    fn answer(&mut self, counting: &Counting) -> Result<(), EngineError> {
        let &Counting { round, pseudonym, digest, .. } = counting;
        let update = Digest(digest.0);
        match &counting.fate {
            Fate::Counted => self.say(pseudonym, round, update, Verdict::Accepted { round }),
            Fate::CountedBefore { round: before } => {
                self.say(pseudonym, round, update, Verdict::Accepted { round: *before })
            }
            Fate::Refused(reason) => {
                self.log(Place::Round(round), reason.kind().name(), &reason.to_string())?;
                let record = self.office.engine.store().round(round)?;
                let is_over = record.is_some_and(|record| !record.is_open());
                self.refuse(pseudonym, round, update, refusal(reason, is_over))
            }
        }
    }

    fn refuse(
        &mut self,
        name: Pseudonym,
        round: u64,
        update: Digest,
        wrong: Refusal,
    ) -> Result<(), EngineError> {
        self.say(name, round, update, Verdict::Refused(wrong))
    }

    fn say(
        &mut self,
        name: Pseudonym,
        round: u64,
        update: Digest,
        verdict: Verdict,
    ) -> Result<(), EngineError> {
        let answer = Receipt { round, pseudonym: name, update, verdict };
        let (key, number) = (self.office.engine.key(), self.office.sequence.next());
        let signed = Signed::sign(key, number, &answer)?;
        self.office.receipts.fetch_add(1, Ordering::Relaxed);
        self.queue(Topic::Receipt(name), &signed)
    }

    fn queue<M: Message>(&mut self, topic: Topic, message: &M) -> Result<(), EngineError> {
        let payload = message.encode()?;
        self.answer_bytes += payload.len();
        let is_part = matches!(topic, Topic::ModelChunk(..));
        let queue = if is_part { &mut self.parts } else { &mut self.out };
        queue.push(Outgoing { topic, payload, retain: false });
        Ok(())
    }

    fn model_wanted(&mut self, device: &DeviceId, payload: &[u8]) -> Result<(), EngineError> {
        let wanted = match ModelWanted::decode(payload) {
            Ok(wanted) => wanted,
            Err(error) => {
                return self.unread(Place::Device(device.clone()), StrangeKind::Request, &error);
            }
        };
        // Whoever asks again so soon has its answer on the way; reading a model costs more than
        // asking for it.
        if !self.served.insert(device.clone()) {
            return Ok(());
        }
        let engine = &self.office.engine;
        let known = engine.store().device(device.as_str())?;
        let enrolled = known.is_some_and(|device| device.standing == Standing::Enrolled);
        let bytes = engine.store().parameters(wanted.version)?;
        let Some(bytes) = bytes.filter(|bytes| enrolled && Digest::of(bytes) == wanted.model)
        else {
            return self.strange(Place::Anywhere, StrangeKind::Request);
        };
        let model = engine.store().model(wanted.version)?;
        let offered =
            |model: Model| matches!(model.rollout, Rollout::Running { .. } | Rollout::Complete);
        if !model.is_some_and(offered) {
            return self.strange(Place::Anywhere, StrangeKind::Stopped);
        }
        for index in indexes(&wanted.chunks).take(REQUEST_CHUNKS) {
            let Some(part) = chunk(&bytes, index) else { continue };
            let message = ModelChunk { model: wanted.model, index, bytes: Blob(part.to_vec()) };
            self.queue(Topic::ModelChunk(device.clone(), wanted.version, index), &message)?;
        }
        Ok(())
    }

    fn job_state(&mut self, device: &DeviceId, payload: &[u8]) -> Result<(), EngineError> {
        let state = match JobState::decode(payload) {
            Ok(state) => state,
            Err(error) => {
                return self.unread(Place::Device(device.clone()), StrangeKind::Job, &error);
            }
        };
        let report = match state.phase {
            JobPhase::Done => Report::Installed,
            JobPhase::Failed(fault) => {
                debug!("a device reports {fault:?} with model {}", state.version);
                Report::Failed(fault)
            }
            JobPhase::Downloading | JobPhase::Trying => return Ok(()),
        };
        let engine = &self.office.engine;
        // Perhaps of a version that this database does not have, under a number that it will give again.
        if engine.lost()?.is_some() {
            return Ok(());
        }
        match engine.report(device.as_str(), state.version, report) {
            Err(EngineError::NoModel(_) | EngineError::NoDevice(_)) => {
                self.strange(Place::Anywhere, StrangeKind::Job)
            }
            other => other,
        }
    }

    /// What was announced in this server's channel, by itself or by another one; `channel` is what it was signed for, `numbers` are those of
    /// its round or version.
    fn statement<T: Statement>(
        &mut self,
        message: &Incoming,
        channel: fn(&T) -> &Channel,
        numbers: fn(&T) -> Numbers,
    ) -> Result<(), EngineError> {
        let office = Arc::clone(&self.office);
        let ours = KeyRing::single(office.engine.key().verifying_key());
        let signed = match Signed::<T>::decode(&message.payload) {
            Ok(signed) => signed,
            Err(error) => return self.unread(Place::Anywhere, StrangeKind::Topic, &error),
        };
        // No mirror takes one that was signed for another channel either.
        let said = signed.verify(&ours).ok();
        let Some(said) = said.filter(|said| channel(said) == office.engine.channel()) else {
            return self.strange(Place::Anywhere, StrangeKind::Topic);
        };
        if let Some(lost) = office.engine.note_announced(numbers(&said))? {
            error!("{lost}");
        }
        if office.sequence.is_beyond(signed.sequence()) {
            return office.overtaken(signed.sequence(), message.retained);
        }
        office.echoes.note(message);
        Ok(())
    }

    /// Birth, goodbye and last will: who is there. Only devices that were enrolled once are remembered.
    fn status(&mut self, device: &DeviceId, message: &Incoming) -> Result<(), EngineError> {
        if message.payload.is_empty() {
            // Cleared at the broker.
            self.office.presence.set(device, &Status::Offline { lost: true }, None);
            return Ok(());
        }
        let status = match Status::decode(&message.payload) {
            Ok(status) => status,
            Err(error) => {
                return self.unread(Place::Device(device.clone()), StrangeKind::Status, &error);
            }
        };
        if self.office.engine.store().device(device.as_str())?.is_none() {
            return self.strange(Place::Anywhere, StrangeKind::Status);
        }
        let until = message.expiry.map(|expiry| Instant::now() + expiry);
        self.office.presence.set(device, &status, until);
        Ok(())
    }

    /// A refusal of an update that came from a device of the round: part of the round's tally, at the next commit.
    fn early(&mut self, round: u64, kind: RefusalKind) -> Result<(), EngineError> {
        self.worker.note_refused(round, kind);
        self.log(Place::Round(round), kind.name(), "an update was refused")
    }

    /// A message that is none. One of another version of the protocol is a kind of its own: its sender works otherwise.
    fn unread(
        &mut self,
        place: Place,
        kind: StrangeKind,
        error: &DecodeError,
    ) -> Result<(), EngineError> {
        let is_version = matches!(error, DecodeError::Version { .. });
        let kind = if is_version { StrangeKind::Version } else { kind };
        self.office.strange.add(kind);
        self.log(place, kind.name(), &error.to_string())
    }

    /// A message that is not from whom it claims to be, or asks for what there is not.
    fn strange(&mut self, place: Place, kind: StrangeKind) -> Result<(), EngineError> {
        self.office.strange.add(kind);
        self.log(
            place,
            kind.name(),
            "a message was not understood or not from whom it claimed to be",
        )
    }

    /// Says each kind of trouble once for each place; the counts say how often.
    fn log(&mut self, place: Place, kind: &'static str, words: &str) -> Result<(), EngineError> {
        if self.told.contains(&(place.clone(), kind)) {
            return Ok(());
        }
        let place = self.known(place)?;
        let words = match &place {
            Place::Anywhere => words.to_owned(),
            Place::Round(round) => format!("round {round}: {words}"),
            Place::Device(device) => format!("{device}: {words}"),
        };
        if self.told.insert((place, kind)) {
            warn!("{words} ({kind}; further ones are only counted)");
        }
        Ok(())
    }

    /// A place that the database has, and anywhere for what senders may make up: nothing grows with that.
    fn known(&self, place: Place) -> Result<Place, StoreError> {
        let store = self.office.engine.store();
        let is_device = |told: &&(Place, &str)| matches!(told.0, Place::Device(_));
        let is_known = match &place {
            Place::Anywhere => true,
            Place::Round(round) => store.round(*round)?.is_some(),
            Place::Device(device) => {
                let is_room = self.told.iter().filter(is_device).count() < NAMED_DEVICES;
                is_room && store.device(device.as_str())?.is_some()
            }
        };
        Ok(if is_known { place } else { Place::Anywhere })
    }
}

/// What its sender is told of an update that is not counted, in a round that may be over.
fn refusal(reason: &NotCounted, is_over: bool) -> Refusal {
    match reason {
        NotCounted::NotCollecting if is_over => Refusal::RoundClosed,
        NotCounted::NotCollecting | NotCounted::UnknownRound | NotCounted::UnknownDevice => {
            Refusal::UnknownRound
        }
        NotCounted::SecondUpdate => Refusal::AnotherCounts,
        NotCounted::Revoked => Refusal::Revoked,
        NotCounted::Malformed(_) => Refusal::Malformed,
        NotCounted::Content(AveragingError::Norm) => Refusal::Norm,
        NotCounted::Content(_) | NotCounted::TooLarge => Refusal::Mismatch,
    }
}

impl From<DecodeError> for EngineError {
    fn from(error: DecodeError) -> EngineError {
        EngineError::Message(error)
    }
}
