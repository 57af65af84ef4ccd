//! The two retained statements of a channel: the newest round and the newest model.

use proto::content::Content;
use proto::model::ModelManifest;
use proto::signing::Signed;
use proto::task::{ReportWindow, RoundNotice, TaskManifest};
use proto::wire::Message;
use proto::{Digest, Ratio, Topic};

use crate::desk::{Office, Outgoing};
use crate::engine::{Engine, EngineError};
use crate::hex;
use crate::ingest::update_bytes;
use crate::records::{Damaged, Phase, Round};

/// Remembers what was announced, and announces what has changed since.
#[derive(Default)]
pub struct Announcer {
    round: Option<RoundNotice>,
    model: Option<ModelManifest>,
    signed: Vec<Outgoing>,
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
        for change in &changes {
            self.signed.retain(|old| old.topic != change.topic);
            self.signed.push(change.clone());
        }
        Ok(changes)
    }

    /// What was announced, byte for byte, for a broker that may have forgotten it.
    pub fn again(&self) -> Vec<Outgoing> {
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
