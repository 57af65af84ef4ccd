//! Models: announced, fetched in chunks, tried and reported.

use std::time::Duration;

use link::Backoff;
use proto::content::{Reassembly, Taken, indexes};
use proto::model::{ModelChunk, ModelManifest, ModelWanted, REQUEST_CHUNKS};
use proto::status::{JobFault, JobNotice, JobPhase, JobState};
use proto::{JobId, Message, Topic};

use super::{AFTER_RECONNECT, BATCH, Device, RETRY};
use crate::edges::{Memory, Trying};
use crate::transport::Requests;

/// Within this time of an announcement a device says again how its newest job ended: its fleet was
/// perhaps away.
const SAY_AGAIN: Duration = Duration::from_secs(300);

/// Requests for chunks that stay without any answer, until a download is given up: more than three hours. Whoever announces the
/// version again begins it anew.
const UNANSWERED: u32 = 24;

/// Between two attempts with a model that failed for want of room.
const NO_ROOM: Backoff =
    Backoff { first: Duration::from_secs(3600), longest: Duration::from_secs(24 * 3600) };

/// Trials of a model that end with the whole program, until it counts as one that cannot be run: for want of memory, or by a
/// watchdog. The first may have been a power cut.
const TRIALS: u32 = 2;

/// Who wanted a model here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AskedBy {
    /// The roll-out, or somebody at home ahead of it: over when the roll-out is.
    RollOut,
    /// A job for this device alone.
    Job,
}

/// A model that is to be tried here.
pub(super) struct Wanted {
    manifest: ModelManifest,
    job: JobId,
    asked_by: AskedBy,
    /// How often it was tried and found no room.
    attempts: u32,
}

/// One that failed for want of room, or by another trouble of the mirror's own.
pub(super) struct NoRoom {
    wanted: Wanted,
    /// When it is fetched again.
    again_at: Duration,
}

/// One that is on its way.
pub(super) struct Download {
    wanted: Wanted,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    Fetching {
        parts: Reassembly,
        /// Chunks of the newest request that have not come.
        expected: usize,
        next_at: Duration,
        attempts: u32,
    },
    Trying {
        /// When the fleet may be told how it ended.
        say_at: Duration,
        /// How it did, as far as that is known.
        outcome: Option<Result<(), JobFault>>,
    },
}

impl Download {
    pub(super) fn version(&self) -> u64 {
        self.wanted.manifest.version
    }
}

impl Wanted {
    fn new(manifest: ModelManifest, job: JobId, asked_by: AskedBy) -> Wanted {
        Wanted { manifest, job, asked_by, attempts: 0 }
    }
}

impl NoRoom {
    fn version(&self) -> u64 {
        self.wanted.manifest.version
    }

    /// Whether the roll-out that wanted it goes on with another version.
    fn is_overtaken(&self, manifest: &ModelManifest) -> bool {
        self.wanted.asked_by == AskedBy::RollOut && self.version() != manifest.version
    }
}

impl Device {
    pub(super) fn manifest(&mut self, now: Duration, payload: &[u8], retained: bool) {
        let read = self.statement(
            self.memory.model,
            |manifest: &ModelManifest| &manifest.channel,
            payload,
        );
        let (manifest, digest, fresh) = match read {
            Ok(read) => read,
            Err(error) => return self.refuse("model manifest", &error),
        };
        if !self.remember(now, fresh, |memory| &mut memory.model) {
            return;
        }
        self.no_room.take_if(|other| other.is_overtaken(&manifest));
        // With one that the broker had kept comes a new connection, at which it was said.
        if !retained {
            self.say_again(now, manifest.version);
        }
        // Kept whoever it is for: where one finds no room, somebody at home may make some and ask for it.
        self.on_offer = Some((manifest.clone(), digest.job()));
        if manifest.is_for(&self.settings.device) {
            return self.consider(now, Wanted::new(manifest, digest.job(), AskedBy::RollOut));
        }
        if manifest.rollout_permille == 0 {
            self.stopped(manifest.version);
        }
    }

    /// The roll-out of a version is stopped: nobody sends its chunks any more. A trial that has begun ends by itself.
    fn stopped(&mut self, version: u64) {
        let is_over = |wanted: &Wanted| {
            wanted.asked_by == AskedBy::RollOut && wanted.manifest.version == version
        };
        self.next_model.take_if(|wanted| is_over(wanted));
        self.no_room.take_if(|other| is_over(&other.wanted));
        self.download.take_if(|download| {
            matches!(download.stage, Stage::Fetching { .. }) && is_over(&download.wanted)
        });
    }

    pub(super) fn newer_on_offer(&self) -> Option<&(ModelManifest, JobId)> {
        let under_way = self.download.as_ref().map_or(0, Download::version);
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
            self.consider(now, Wanted::new(manifest, job, AskedBy::RollOut));
        }
    }

    pub(super) fn job(&mut self, now: Duration, payload: &[u8]) {
        let read = self.statement(
            self.memory.job,
            |notice: &JobNotice| &notice.manifest().channel,
            payload,
        );
        let (notice, digest, fresh) = match read {
            Ok(read) => read,
            Err(error) => return self.refuse("job", &error),
        };
        let manifest = match notice {
            JobNotice::Install { device, manifest } if device == self.settings.device => manifest,
            JobNotice::Install { .. } => return self.refuse("job", &"it is for another device"),
            JobNotice::ForAnybody(_) => return self.refuse("job", &"it names no device"),
        };
        if self.remember(now, fresh, |memory| &mut memory.job) {
            self.say_again(now, manifest.version);
            self.consider(now, Wanted::new(manifest, digest.job(), AskedBy::Job));
        }
    }

    fn consider(&mut self, now: Duration, wanted: Wanted) {
        let Wanted { manifest, job, .. } = &wanted;
        let (job, version) = (*job, manifest.version);
        let current = self.download.as_ref().map_or(0, Download::version);
        let waits = |other: &NoRoom| other.version() == version && now < other.again_at;
        if version == self.trial.version() && self.is_untold(version) {
            // The power went between its trial and what the fleet was to be told.
            return self.model_ended(job, version, Ok(()));
        }
        if version <= self.memory.model_tried.max(current)
            || self.no_room.as_ref().is_some_and(waits)
        {
            return;
        }
        if manifest.base != self.trial.base() {
            return self.other_base(job, version);
        }
        if self.memory.model_tried == 0 && manifest.content.sha256 == manifest.base {
            // The model that this mirror came with, which need not travel. Later the same numbers are a roll-back.
            return self.model_ended(job, version, Ok(()));
        }
        if matches!(self.download, Some(Download { stage: Stage::Trying { .. }, .. })) {
            self.next_model = Some(wanted);
            return;
        }
        let parts = Reassembly::new(manifest.content.clone());
        let next_at = now + self.jitter.within(AFTER_RECONNECT);
        let stage = Stage::Fetching { parts, expected: 0, next_at, attempts: 0 };
        self.report(job, version, JobPhase::Downloading);
        self.download = Some(Download { wanted, stage });
    }

    /// Whether a version's end was never noted, neither of its own trial nor of a later one's.
    fn is_untold(&self, version: u64) -> bool {
        let is_under_way = self.download.as_ref().is_some_and(|other| other.version() >= version);
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

    pub(super) fn queue_ended(&mut self) {
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

    pub(super) fn send_states(&mut self, out: &mut dyn Requests) {
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

    pub(super) fn model_chunk(&mut self, now: Duration, version: u64, index: u16, payload: &[u8]) {
        let chunk = match ModelChunk::decode(payload) {
            Ok(chunk) => chunk,
            Err(error) => return self.refuse("model chunk", &error),
        };
        if index != chunk.index {
            return self.refuse("model chunk", &"its topic and its content disagree");
        }
        // Late answers for a version that is replaced, or whole, are no fault.
        let Some(Download { wanted, stage }) = &mut self.download else { return };
        let Stage::Fetching { parts, expected, next_at, attempts } = stage else { return };
        if version != wanted.manifest.version {
            return;
        }
        match parts.take(chunk.model, chunk.index, chunk.bytes.0) {
            Ok(Taken::Again) => {}
            Ok(Taken::New) => {
                *attempts = 0;
                *expected = expected.saturating_sub(1);
                if *expected == 0 {
                    *next_at = now;
                }
            }
            Err(error) => self.refuse("model chunk", &error),
        }
        self.complete(now);
    }

    /// Hands a model over to its trial once it is whole.
    fn complete(&mut self, now: Duration) {
        let Some(Download { wanted, stage }) = &mut self.download else { return };
        let Stage::Fetching { parts, .. } = stage else { return };
        let (job, version) = (wanted.job, wanted.manifest.version);
        let begun = match parts.finish() {
            Ok(None) => return,
            Ok(Some(bytes)) => {
                let say_at = now + self.settings.least_trial;
                *stage = Stage::Trying { say_at, outcome: None };
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
    pub(super) fn advance_trial(&mut self, now: Duration) {
        let Some(Download { wanted, stage }) = &mut self.download else { return };
        let Stage::Trying { say_at, outcome } = stage else { return };
        let is_kept = outcome.is_some();
        if !is_kept {
            *outcome = self.trial.poll();
        }
        let Some(outcome) = *outcome else { return };
        if now >= *say_at {
            return self.end_model(now, outcome);
        }
        let state = ended(wanted.job, wanted.manifest.version, outcome);
        if !is_kept
            && let Err(error) =
                self.keep(|memory| (memory.unsaid, memory.trying) = (Some(state), None))
        {
            self.refuse("memory", &error);
        }
    }

    fn end_model(&mut self, now: Duration, outcome: Result<(), JobFault>) {
        let Some(Download { wanted, .. }) = self.download.take() else { return };
        match outcome {
            Err(JobFault::Storage) => self.found_no_room(now, wanted),
            _ => self.model_ended(wanted.job, wanted.manifest.version, outcome),
        }
        if let Some(next) = self.next_model.take() {
            self.consider(now, next);
        }
    }

    /// Remembers and reports how it went with a version. Tried also where it failed: the same bytes would fail again.
    fn model_ended(&mut self, job: JobId, version: u64, outcome: Result<(), JobFault>) {
        let state = ended(job, version, outcome);
        self.settle(state, |memory| memory.model_tried = memory.model_tried.max(version));
    }

    /// Reports it, and does not remember it as tried: there may be room later.
    fn found_no_room(&mut self, now: Duration, mut wanted: Wanted) {
        let state = ended(wanted.job, wanted.manifest.version, Err(JobFault::Storage));
        let again_at = now + NO_ROOM.wait(wanted.attempts, |span| self.jitter.within(span));
        wanted.attempts = wanted.attempts.saturating_add(1);
        self.no_room = Some(NoRoom { wanted, again_at });
        self.settle(state, |_| {});
    }

    /// Fetches again what found no room, once that is due and nothing else is on its way.
    pub(super) fn find_room(&mut self, now: Duration) {
        let is_due = |other: &mut NoRoom| self.download.is_none() && now >= other.again_at;
        if let Some(NoRoom { wanted, .. }) = self.no_room.take_if(is_due) {
            self.consider(now, wanted);
        }
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

    pub(super) fn advance_download(&mut self, now: Duration, out: &mut dyn Requests) {
        let Some(Download { wanted, stage }) = &mut self.download else { return };
        let Stage::Fetching { parts, expected, next_at, attempts } = stage else { return };
        if now < *next_at {
            return;
        }
        let ModelManifest { version, content, .. } = &wanted.manifest;
        let (version, model) = (*version, content.sha256);
        if *attempts == UNANSWERED {
            // Nothing is reported: it is no fault of the model's, and a fleet that is back announces it again.
            self.note = Some(format!("the fleet sends nothing of model {version}"));
            self.download = None;
            return;
        }
        let chunks = parts.missing_ranges(REQUEST_CHUNKS);
        let asked = indexes(&chunks).count();
        let topic = Topic::ModelWanted(self.settings.device.clone()).to_string();
        let Ok(payload) = (ModelWanted { version, model, chunks }).encode() else { return };
        if out.publish(&topic, payload, false) {
            *expected = asked;
            *next_at = now + RETRY.wait(*attempts, |span| self.jitter.within(span));
            *attempts += 1;
        }
    }
}

fn ended(job: JobId, version: u64, outcome: Result<(), JobFault>) -> JobState {
    let phase = outcome.map_or_else(JobPhase::Failed, |()| JobPhase::Done);
    JobState { job, version, phase }
}

/// Brings what was kept into line with the model in force, `version`.
pub(super) fn recall(memory: &mut Memory, version: u64) {
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
    // For another network it was refused, which did not stay: it runs.
    if let Some(state) = &mut memory.ended
        && (state.version, state.phase) == (version, JobPhase::Failed(JobFault::Base))
    {
        state.phase = JobPhase::Done;
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
