//! The two retained statements of a channel: the newest round and the newest model.

use proto::content::Content;
use proto::model::ModelManifest;
use proto::signing::Signed;
use proto::status::JobNotice;
use proto::task::{ReportWindow, RoundNotice, TaskManifest};
use proto::wire::Message;
use proto::{Digest, Ratio, Topic};

use crate::desk::{Office, Outgoing};
use crate::engine::{Engine, EngineError};
use crate::hex;
use crate::ingest::update_bytes;
use crate::records::{Damaged, Phase, Rollout, Round, Standing};

/// Remembers what was announced, and announces what has changed since.
#[derive(Default)]
pub struct Announcer {
    round: Option<RoundNotice>,
    model: Option<ModelManifest>,
    signed: Vec<Outgoing>,
    /// Version and stage whose groups were told.
    told: Option<(u64, usize)>,
}

impl Announcer {
    /// Statements that are new since the last call.
    pub fn changes(&mut self, office: &Office) -> Result<Vec<Outgoing>, EngineError> {
        let engine = &office.engine;
        let mut changes = Vec::new();
        let round =
            engine.store().rounds()?.pop().map(|round| notice(engine, &round)).transpose()?;
        if round != self.round {
            if let Some(notice) = &round {
                let signed = Signed::sign(engine.key(), office.sequence.next(), notice)?;
                changes.push(retained(Topic::Round(engine.channel().clone()), signed.encode()?));
            }
            self.round = round;
        }
        let model = manifest(engine)?;
        if model != self.model {
            if let Some(manifest) = &model {
                let signed = Signed::sign(engine.key(), office.sequence.next(), manifest)?;
                let topic = Topic::ModelManifest(engine.channel().clone());
                changes.push(retained(topic, signed.encode()?));
            }
            self.model = model;
        }
        let groups = self.groups(office)?;
        for change in &changes {
            self.signed.retain(|old| old.topic != change.topic);
            self.signed.push(change.clone());
        }
        changes.extend(groups);
        Ok(changes)
    }

    /// Jobs for the devices of the groups that a roll-out has come to, one each; not retained, and of no effect on a
    /// device that has tried the version.
    fn groups(&mut self, office: &Office) -> Result<Vec<Outgoing>, EngineError> {
        let engine = &office.engine;
        let Some(model) = engine.announced()? else { return Ok(Vec::new()) };
        let Rollout::Running { stage, .. } = model.rollout else { return Ok(Vec::new()) };
        let groups = engine.rules().rollout.groups(stage);
        if groups.is_empty() || self.told == Some((model.version, stage)) {
            return Ok(Vec::new());
        }
        let Some(manifest) = manifest(engine)? else { return Ok(Vec::new()) };
        let notice = JobNotice::Install(manifest);
        let mut devices = Vec::new();
        engine.store().each_device(|device| {
            let is_in = device.group.as_deref().is_some_and(|group| groups.contains(&group));
            if is_in && device.standing == Standing::Enrolled {
                devices.push(device.name);
            }
        })?;
        let mut jobs = Vec::with_capacity(devices.len());
        for name in devices {
            let signed = Signed::sign(engine.key(), office.sequence.next(), &notice)?;
            let topic = Topic::JobNotify(name.parse()?);
            jobs.push(Outgoing { topic, payload: signed.encode()?, retain: false });
        }
        self.told = Some((model.version, stage));
        Ok(jobs)
    }

    /// What was announced, byte for byte, for a broker that may have forgotten it.
    pub fn again(&mut self) -> Vec<Outgoing> {
        self.told = None;
        self.signed.clone()
    }
}

fn retained(topic: Topic, payload: Vec<u8>) -> Outgoing {
    Outgoing { topic, payload, retain: true }
}

fn notice(engine: &Engine, round: &Round) -> Result<RoundNotice, EngineError> {
    let channel = engine.channel().clone();
    if !matches!(round.phase, Phase::Announced | Phase::Collecting) {
        return Ok(RoundNotice::Closed { channel, round: round.id });
    }
    let task = &round.task;
    let rules = task.rules()?;
    let noise = rules.noise_multiplier;
    let digest = |text: &str| {
        let damaged = || Damaged { what: "task".into(), reason: "a digest".into() };
        hex::decode(text).map(Digest).ok_or_else(damaged)
    };
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
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
        report: ReportWindow {
            after_seconds: narrow(round.opens_at - round.announced_at),
            // The last tenth of the window is for retries.
            spread_seconds: narrow((round.closes_at - round.opens_at) * 9 / 10),
        },
    }))
}

fn manifest(engine: &Engine) -> Result<Option<ModelManifest>, EngineError> {
    let Some(model) = engine.announced()? else { return Ok(None) };
    let bytes = engine.store().parameters(model.version)?;
    let bytes = bytes.ok_or(EngineError::NoModel(model.version))?;
    let content = Content::of(&bytes).map_err(|error| Damaged {
        what: format!("model {}", model.version),
        reason: error.to_string(),
    })?;
    Ok(Some(ModelManifest {
        channel: engine.channel().clone(),
        version: model.version,
        base: Digest(engine.base_digest()),
        content,
        rollout_permille: engine.permille(&model),
    }))
}
