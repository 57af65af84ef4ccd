//! Rounds: what the fleet asks for, and the offer that answers it.

use std::collections::VecDeque;
use std::time::Duration;

use proto::content::{CHUNK_BYTES, chunk, indexes};
use proto::signing::Signed;
use proto::task::{Floor, RoundNotice, TaskManifest};
use proto::update::{ChunksWanted, Receipt, Refusal, UpdateChunk, UpdateOffer, Verdict};
use proto::wire::Blob;
use proto::{Digest, Message, Pseudonym, Topic};

use super::{BATCH, Device, RETRY};
use crate::edges::{EdgeError, ReleaseId};
use crate::transport::Requests;

/// Between two looks at an outbox that has nothing yet, at least: a run that had ended before is released at once.
const LOOK: Duration = Duration::from_secs(5);

/// Looks for a run that ends later, in the time in which mirrors report, at least. They come at drawn moments: an answer right after the run
/// would say until when somebody was in front of the mirror. The last tenth of a round's window is kept for late answers and is longer than
/// any wait between them; who hears of a round in it waits [`LOOK`] alone.
const LOOKS: u32 = 12;

pub(super) struct Offer {
    pub(super) release: ReleaseId,
    pub(super) pseudonym: Pseudonym,
    pub(super) update: Digest,
    pub(super) message: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    pub(super) subscribed: bool,
    pub(super) wanted: VecDeque<(Option<u16>, u16)>,
}

pub(super) struct Round {
    pub(super) task: TaskManifest,
    pub(super) report_at: Duration,
    pub(super) prepared: bool,
    pub(super) offer: Option<Offer>,
    pub(super) next_at: Duration,
    pub(super) attempts: u32,
}

impl Device {
    pub(super) fn notice(&mut self, now: Duration, payload: &[u8]) {
        let read = self.statement(self.memory.round, RoundNotice::channel, payload);
        let (notice, _, fresh) = match read {
            Ok(read) => read,
            Err(error) => return self.refuse("round notice", &error),
        };
        if !self.remember(now, fresh, |memory| &mut memory.round) || !self.catch_up(now, &notice) {
            return;
        }
        self.connection.iter_mut().for_each(|connection| connection.hears_round = true);
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
    fn catch_up(&mut self, now: Duration, notice: &RoundNotice) -> bool {
        if !self.memory.lost {
            return true;
        }
        let kept = self.keep(|memory| (memory.lost, memory.round_done) = (false, notice.round()));
        kept.inspect_err(|error| self.not_remembered(now, error)).is_ok()
    }

    fn open(&mut self, now: Duration, task: TaskManifest) {
        // What is left of its window is announced anew as it goes by; the moment that was drawn
        // stays.
        let is_same =
            |round: &Round| TaskManifest { report: task.report, ..round.task.clone() } == task;
        if self.round.as_ref().is_some_and(is_same) || task.round <= self.memory.round_done {
            return;
        }
        let quiet_until = self.connection.as_ref().map_or(now, |connection| connection.quiet_until);
        let after = Duration::from_secs(task.report.after_seconds.into());
        let spread = Duration::from_secs(task.report.spread_seconds.into());
        let report_at = (now + after + self.jitter.within(spread)).max(quiet_until);
        // A round that is announced anew, with other terms, is still the one that an update was asked for.
        let asked = |round: &Round| round.task.round == task.round && round.prepared;
        let prepared = self.round.as_ref().is_some_and(asked);
        let (offer, attempts) = (None, 0);
        self.end_round();
        self.note = None;
        self.round = Some(Round { task, report_at, prepared, offer, next_at: report_at, attempts });
    }

    fn end_round(&mut self) {
        self.unneeded.extend(self.round.take().iter_mut().flat_map(Round::end_offer));
    }

    /// What the household insists on, once the round at hand is due; not before, for the privacy accountant has to work for it. Where the
    /// household takes part no more, nothing of the round's update is left in memory, with a broker or without.
    pub(super) fn floor_of_round(&mut self, now: Duration) -> Option<Floor> {
        let round = self.round.as_mut().filter(|round| now >= round.report_at)?;
        let floor = self.household.floor();
        if floor.is_none() {
            self.unneeded.extend(round.end_offer());
        }
        floor
    }

    /// Answers the round at hand; `floor` is [`Device::floor_of_round`].
    pub(super) fn advance_round(
        &mut self,
        now: Duration,
        floor: Option<Floor>,
        out: &mut dyn Requests,
    ) {
        let Some(floor) = floor else { return };
        let Some(mut round) = self.round.take() else { return };
        let result = self.step_round(now, &floor, &mut round, out);
        match result {
            Ok(()) => {}
            Err(error) => {
                self.note = Some(error.to_string());
                round.next_at = now + RETRY.wait(round.attempts, |span| self.jitter.within(span));
                round.attempts += 1;
            }
        }
        self.round = Some(round);
    }

    fn step_round(
        &mut self,
        now: Duration,
        floor: &Floor,
        round: &mut Round,
        out: &mut dyn Requests,
    ) -> Result<(), EdgeError> {
        if let Err(refusal) = floor.check(&round.task) {
            self.note = Some(refusal.to_string());
            self.unneeded.extend(round.end_offer());
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
        let is_due = offer.subscribed && now >= round.next_at;
        if !is_due && offer.wanted.is_empty() {
            return Ok(());
        }
        // It may have been destroyed since it was copied here, also where somebody has agreed again meanwhile.
        if self.household.bytes(offer.release).is_err() {
            self.unneeded.extend(round.end_offer());
            return Ok(());
        }
        send_wanted(round.task.round, offer, out);
        if !is_due {
            return Ok(());
        }
        let topic =
            Topic::Update { name: offer.pseudonym, round: round.task.round, chunk: 0 }.to_string();
        if out.publish(&topic, offer.message.clone(), false) {
            // What held it back before does not any more.
            self.note = None;
            round.next_at = now + RETRY.wait(round.attempts, |span| self.jitter.within(span));
            round.attempts += 1;
        }
        Ok(())
    }

    fn make_offer(&mut self, now: Duration, round: &mut Round) -> Result<Option<Offer>, EdgeError> {
        let Some(&release) = self.household.waiting(&round.task)?.first() else {
            // Asked once, whatever comes of it: asking twice could spend twice, also across a restart.
            if !round.prepared && self.memory.round_offered < round.task.round {
                (round.prepared, round.next_at) = (true, now + LOOK);
                self.household.prepare(&round.task)?;
            } else {
                let spread = Duration::from_secs(round.task.report.spread_seconds.into());
                round.next_at = now + LOOK.max(self.jitter.within(spread / LOOKS));
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

    pub(super) fn wanted(&mut self, pseudonym: Pseudonym, payload: &[u8]) {
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

    pub(super) fn receipt(&mut self, now: Duration, pseudonym: Pseudonym, payload: &[u8]) {
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
}

impl Round {
    /// Its update is not offered any more. Gives the topics that nothing is expected on then.
    fn end_offer(&mut self) -> Vec<String> {
        self.offer.take().iter().flat_map(Offer::topics).collect()
    }
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
        let name = offer.pseudonym;
        let topic = match lane {
            Some(lane) => Topic::Lane { name, lane, round, chunk: index },
            None => Topic::Update { name, round, chunk: index },
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
