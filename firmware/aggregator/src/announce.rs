//! The two retained statements of a channel: the newest round and the newest model.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use proto::content::Content;
use proto::model::ModelManifest;
use proto::signing::Signed;
use proto::status::JobNotice;
use proto::task::{ReportWindow, RoundNotice, TaskManifest};
use proto::wire::Message;
use proto::{DeviceId, Digest, Ratio, Topic};

use crate::carrier::Outgoing;
use crate::engine::{Engine, EngineError};
use crate::hex;
use crate::ingest::update_bytes;
use crate::office::Office;
use crate::presence::Presence;
use crate::records::{Damaged, Model, Rollout, Round, Standing};

/// In so many steps a round's lead and its window go by in its announcement, each of which is a
/// message to every mirror.
const STEPS: u64 = 10;

/// Seconds of such a step at least.
const SHORTEST_STEP: u64 = 60;

/// Remembers what was announced, and announces what has changed since.
#[derive(Default)]
pub struct Announcer {
    round: Option<RoundNotice>,
    model: Option<ModelManifest>,
    signed: Vec<Outgoing>,
    /// Version, stage and entries of the audit log when groups were looked at last: whoever is enrolled makes an entry.
    looked: Option<(u64, usize, u64)>,
    /// The devices of groups that were told of that version in that stage.
    told: BTreeSet<String>,
}

impl Announcer {
    /// Statements that are new since the last call. While the fleet does not hear (`heard`) there are none of rounds: what is left
    /// of a window is known once it is put off by the silence.
    pub fn changes(&mut self, office: &Office, heard: bool) -> Result<Vec<Outgoing>, EngineError> {
        let engine = &office.engine;
        if office.is_outdated.swap(false, Ordering::SeqCst) {
            (self.round, self.model, self.looked) = (None, None, None);
        }
        let mut changes = Vec::new();
        let round = if heard { newest_round(engine)? } else { self.round.clone() };
        if round != self.round
            && let Some(notice) = &round
        {
            let signed = Signed::sign(engine.key(), office.sequence.next(), notice)?;
            changes.push(retained(Topic::Round(engine.channel().clone()), signed.encode()?));
        }
        let model = self.manifest(engine)?;
        if model != self.model
            && let Some(manifest) = &model
        {
            let signed = Signed::sign(engine.key(), office.sequence.next(), manifest)?;
            let topic = Topic::ModelManifest(engine.channel().clone());
            changes.push(retained(topic, signed.encode()?));
        }
        let groups = self.groups(office, heard, model.as_ref())?;
        // Not before everything has succeeded: what fails above is tried again, and none of it is lost.
        (self.round, self.model) = (round, model);
        for change in &changes {
            self.signed.retain(|old| old.topic != change.topic);
            self.signed.push(change.clone());
        }
        changes.extend(groups);
        Ok(changes)
    }

    /// The newest version's manifest. A version's bytes never change, and are read once.
    fn manifest(&self, engine: &Engine) -> Result<Option<ModelManifest>, EngineError> {
        let Some(model) = engine.announced()? else { return Ok(None) };
        let known = self.model.clone().filter(|known| known.version == model.version);
        let known = known.map_or_else(|| manifest(engine, &model), Ok)?;
        Ok(Some(ModelManifest { rollout_permille: engine.permille(&model), ..known }))
    }

    /// Jobs for the devices of the groups that a roll-out has come to, one each; not retained, and of no effect on a
    /// device that has tried the version. Devices that are enrolled into a group later are told then, and those that connect
    /// without having tried it are told again, and each hour that they are connected so.
    fn groups(
        &mut self,
        office: &Office,
        heard: bool,
        manifest: Option<&ModelManifest>,
    ) -> Result<Vec<Outgoing>, EngineError> {
        let engine = &office.engine;
        let (Some(model), Some(manifest)) = (engine.announced()?, manifest) else {
            return Ok(Vec::new());
        };
        let Rollout::Running { stage, .. } = model.rollout else {
            self.looked = None;
            return Ok(Vec::new());
        };
        let groups = engine.rules().rollout.groups(stage);
        let looked = (model.version, stage, engine.store().entries()?);
        // A version that came since is the next look's; and a job reaches nobody while the broker is away.
        let is_new = manifest.version != model.version;
        if groups.is_empty() || is_new || !heard {
            return Ok(Vec::new());
        }
        let is_missed = self.forget_missed(&office.presence, model.version);
        if self.looked == Some(looked) && !is_missed {
            return Ok(Vec::new());
        }
        if self.looked.is_none_or(|(version, at, _)| (version, at) != (model.version, stage)) {
            self.told.clear();
        }
        let mut devices = Vec::new();
        engine.store().each_device(|device| {
            let is_in = device.group.as_deref().is_some_and(|group| groups.contains(&group));
            let knows = self.told.contains(&device.name);
            if is_in && !knows && device.standing == Standing::Enrolled {
                devices.push(device.name);
            }
        })?;
        let mut jobs = Vec::with_capacity(devices.len());
        for name in &devices {
            let device: DeviceId = name.parse()?;
            let topic = Topic::JobNotify(device.clone());
            let notice = JobNotice::Install { device, manifest: manifest.clone() };
            let signed = Signed::sign(engine.key(), office.sequence.next(), &notice)?;
            jobs.push(Outgoing { topic, payload: signed.encode()?, retain: false });
        }
        self.told.extend(devices);
        self.looked = Some(looked);
        Ok(jobs)
    }

    /// Forgets that the devices were told that have connected since the last call and have not tried the version: a job
    /// reaches only a session that the broker has, and a device may restart before its trial ends. Says whether there are any.
    fn forget_missed(&mut self, presence: &Presence, version: u64) -> bool {
        let mut is_missed = false;
        for (device, model_tried) in presence.births() {
            is_missed |= model_tried < version && self.told.remove(device.as_str());
        }
        is_missed
    }

    /// What was announced and has not come back: the broker may not have taken it.
    pub fn unheard(&self, office: &Office) -> Vec<Outgoing> {
        self.signed.iter().filter(|said| !office.echoes.has(said)).cloned().collect()
    }

    /// What was announced, byte for byte, for a broker that may have forgotten it.
    pub fn again(&mut self) -> Vec<Outgoing> {
        self.looked = None;
        self.signed.clone()
    }
}

fn retained(topic: Topic, payload: Vec<u8>) -> Outgoing {
    Outgoing { topic, payload, retain: true }
}

/// The newest round. In a database that was restored from before its first one, the last that there may have been is over: the
/// broker has kept its announcement.
fn newest_round(engine: &Engine) -> Result<Option<RoundNotice>, EngineError> {
    if let Some(round) = engine.store().newest_round()? {
        return notice(engine, &round).map(Some);
    }
    let (channel, round) = (engine.channel().clone(), engine.store().rounds_above()?);
    Ok((round > 0).then_some(RoundNotice::Closed { channel, round }))
}

fn notice(engine: &Engine, round: &Round) -> Result<RoundNotice, EngineError> {
    let channel = engine.channel().clone();
    if !round.is_open() {
        return Ok(RoundNotice::Closed { channel, round: round.id });
    }
    let task = &round.task;
    let rules = task.rules()?;
    let noise = rules.noise_multiplier;
    let digest = |text: &str| {
        let damaged = || Damaged { what: "task".into(), reason: "a digest".into() };
        hex::decode(text).map(Digest).ok_or_else(damaged)
    };
    Ok(RoundNotice::Open(TaskManifest {
        channel,
        round: round.id,
        model_version: task.base_version,
        model: digest(&task.base)?,
        layout: digest(&task.layout)?,
        dimension: narrow(task.dimension as u64),
        noise_multiplier: Ratio::new(noise.numerator(), noise.denominator())?,
        clip: Ratio::new(1, 1)?,
        min_cohort: narrow(task.minimum_cohort),
        max_update_bytes: narrow(update_bytes(&rules) as u64),
        report: window_left(round, engine.now()),
    }))
}

/// What is left of a round for mirrors that hear of it now, who count from then on.
fn window_left(round: &Round, now: u64) -> ReportWindow {
    let lead = round.opens_at.saturating_sub(round.announced_at);
    let window = round.closes_at.saturating_sub(round.opens_at);
    let ahead = lead - gone_by(lead, now.saturating_sub(round.announced_at));
    // The last tenth is for retries, and for those who hear of it just before the next step.
    let gone = gone_by(window, now.saturating_sub(round.opens_at));
    let left = (window * 9 / 10).saturating_sub(gone);
    ReportWindow { after_seconds: narrow(ahead), spread_seconds: narrow(left) }
}

/// How much of a stretch of time is over, in whole steps, or all of it.
fn gone_by(stretch: u64, passed: u64) -> u64 {
    let step = (stretch / STEPS).max(SHORTEST_STEP);
    if passed < stretch { passed / step * step } else { stretch }
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn manifest(engine: &Engine, model: &Model) -> Result<ModelManifest, EngineError> {
    let bytes = engine.store().parameters(model.version)?;
    let bytes = bytes.ok_or(EngineError::NoModel(model.version))?;
    let content = Content::of(&bytes).map_err(|error| Damaged {
        what: format!("model {}", model.version),
        reason: error.to_string(),
    })?;
    Ok(ModelManifest {
        channel: engine.channel().clone(),
        version: model.version,
        base: Digest(engine.base_digest()),
        content,
        rollout_permille: engine.permille(model),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Announced at 1,000, open from `opens_at` on for `window` seconds.
    fn round(opens_at: u64, window: u64) -> Round {
        Round { opens_at, closes_at: opens_at + window, ..Round::example() }
    }

    #[test]
    fn whoever_hears_of_a_round_late_has_what_is_left_of_it() {
        let round = round(1_600, 10_000);
        let left = |now| {
            let left = window_left(&round, now);
            (left.after_seconds, left.spread_seconds)
        };
        assert_eq!((left(0), left(1_000), left(1_059)), ((600, 9_000), (600, 9_000), (600, 9_000)));
        assert_eq!((left(1_060), left(1_599)), ((540, 9_000), (60, 9_000)));
        assert_eq!((left(1_600), left(2_599), left(2_600)), ((0, 9_000), (0, 9_000), (0, 8_000)));
        assert_eq!((left(10_599), left(10_600), left(99_999)), ((0, 1_000), (0, 0), (0, 0)));
    }

    #[test]
    fn nobody_is_sent_beyond_the_close_and_few_announcements_are_made() {
        for (opens_at, window) in [(1_000, 60), (1_060, 86_400), (1_003, 1_000), (90_000, 120)] {
            let round = round(opens_at, window);
            let lead_step = ((opens_at - round.announced_at) / STEPS).max(SHORTEST_STEP);
            let mut announced = Vec::new();
            for now in round.announced_at..round.closes_at {
                let left = window_left(&round, now);
                let last = now + u64::from(left.after_seconds) + u64::from(left.spread_seconds);
                assert!(last <= round.closes_at + lead_step, "{now}: at most a step late");
                announced.push((left.after_seconds, left.spread_seconds));
            }
            announced.dedup();
            assert!(announced.len() as u64 <= 2 * STEPS + 1, "{announced:?}");
        }
    }
}
