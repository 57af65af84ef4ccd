//! Where everything stands, for commands, page and metrics.

use ed25519_dalek::VerifyingKey;
use learn::privacy::PrivacyStatement;
use serde::{Deserialize, Serialize};

use super::{Engine, Lost, Result};
use crate::presence::Presence;
use crate::records::{Model, Rollout, Round, Standing, Tally};
use crate::signal::NoisePlace;

/// Delta at which epsilon is stated.
pub const DELTA: f64 = 1e-5;

/// Where everything stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Seconds since 1970.
    pub now: u64,
    /// Devices that may take part.
    pub enrolled: u64,
    /// Enrolled devices that are connected, where a running server knows.
    pub online: Option<u64>,
    /// Connections to the broker that a running server wants; 0 without one.
    #[serde(default)]
    pub workers: u64,
    /// Connections to the broker that are up.
    #[serde(default)]
    pub workers_connected: u64,
    /// Subscriptions and messages that the broker has refused since the server's start.
    #[serde(default)]
    pub broker_refused: u64,
    /// Subscriptions and messages on the connections at hand that stay refused for as long as these last.
    #[serde(default)]
    pub broker_refused_now: u64,
    /// Statements that another server has signed with this one's key and announced, since a running server's start.
    #[serde(default)]
    pub rival_statements: u64,
    /// Why a running server's decisions about rounds and roll-outs fail, or its judgement of a candidate, where one does.
    #[serde(default)]
    pub decisions_failing: Option<String>,
    /// When a running server's certificate ends, seconds since 1970, where its broker asks for one.
    #[serde(default)]
    pub certificate_end: Option<u64>,
    /// Devices that were revoked.
    pub revoked: u64,
    /// Bytes of the database's file.
    #[serde(default)]
    pub database_bytes: u64,
    /// Rounds, newest last.
    pub rounds: Vec<RoundStatus>,
    /// Model versions, newest last.
    pub models: Vec<ModelStatus>,
    /// The version whose stage is over by its time, and waits for a first mirror to say that it works.
    #[serde(default)]
    pub silent: Option<u64>,
    /// The highest numbers that were announced, where the database is older than they are.
    #[serde(default)]
    pub lost: Option<Lost>,
    /// Public key for the devices' settings.
    pub public_key: String,
    /// What a device has spent that was counted in every round. One whose updates got lost on their
    /// way may have spent more.
    pub privacy: Option<String>,
    /// Rounds that an earlier database may have had, as far as [`Engine::restore`] was told; what
    /// they cost is not in `privacy`.
    #[serde(default)]
    pub unknown_rounds: u64,
    /// The epsilon of `privacy` as a number, for graphs beside the sentence.
    pub epsilon: Option<f64>,
    /// The epsilon that a device which was counted in every round had spent after each of `rounds`.
    pub epsilon_by_round: Vec<f64>,
}

/// One round with what came in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundStatus {
    /// Its record.
    #[serde(flatten)]
    pub round: Round,
    /// What came in.
    pub tally: Tally,
    /// Expected cosine to the common direction of what was counted, where the round's own is of all devices that were
    /// enrolled. `None` where nothing was counted.
    #[serde(default)]
    pub counted_cosine: Option<f64>,
}

/// One model version and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Its record.
    #[serde(flatten)]
    pub model: Model,
    /// How its roll-out stands, in words for operators.
    #[serde(default)]
    pub standing: String,
}

impl Engine {
    /// What a device has spent that was counted in every round, after each of them, oldest first.
    /// What was spent on updates that never arrived is known to their mirrors' ledgers alone.
    pub fn privacy_by_round(&self) -> Result<Vec<Option<PrivacyStatement>>> {
        let mut composition = learn::privacy::Composition::new();
        let mut spent = None;
        let mut after = |round: Round| {
            if self.store.tally(round.id)?.counted > 0 {
                composition.add(round.task.noise()?, 1);
                spent = Some(composition.statement(DELTA)?);
            }
            Ok(spent.clone())
        };
        self.store.rounds()?.into_iter().map(&mut after).collect()
    }

    /// A round with what came in.
    pub fn round_status(&self, round: Round) -> Result<RoundStatus> {
        let tally = self.store.tally(round.id)?;
        let signal = self.rules.signal(&round.task)?;
        let cosine = |count| signal.expected_cosine(count, NoisePlace::EveryDevice);
        let counted_cosine = Some(tally.counted).filter(|count| *count > 0).map(cosine);
        Ok(RoundStatus { round, tally, counted_cosine })
    }

    /// A version and how it stands, as commands and the page say it.
    ///
    /// # Errors
    /// Of the database.
    pub fn model_status(&self, model: Model) -> Result<ModelStatus> {
        let standing = match &model.rollout {
            Rollout::Held => "held".to_owned(),
            Rollout::Running { stage, .. } => self.running_words(&model, stage + 1)?,
            Rollout::Complete => "everywhere".to_owned(),
            Rollout::Stopped { reason, .. } => format!("stopped: {reason}"),
        };
        Ok(ModelStatus { model, standing })
    }

    /// How a version in its stage `stage`, from 1, stands.
    fn running_words(&self, model: &Model, stage: usize) -> Result<String> {
        Ok(if self.is_superseded(model)? {
            format!("superseded at stage {stage}")
        } else if self.is_silent(model)? {
            format!(
                "waits at stage {stage}: of the mirrors that it has reached none has reported that it works"
            )
        } else {
            format!("rolling out, stage {stage}")
        })
    }

    /// Where everything stands.
    ///
    /// # Errors
    /// Of the database.
    pub fn status(&self) -> Result<Status> {
        self.status_with(None)
    }

    /// The same, with how many devices are connected, as far as that is known.
    ///
    /// # Errors
    /// Of the database.
    pub fn status_with(&self, presence: Option<&Presence>) -> Result<Status> {
        let (mut enrolled, mut revoked) = (0, 0);
        let mut online = presence.map(|_| 0);
        self.store.each_device(|device| match device.standing {
            Standing::Enrolled => {
                enrolled += 1;
                let is_online = presence.is_some_and(|presence| presence.is_online(&device.name));
                online = online.map(|count| count + u64::from(is_online));
            }
            Standing::Revoked { .. } => revoked += 1,
        })?;
        let by_round = self.privacy_by_round()?;
        let epsilon = |spent: &Option<PrivacyStatement>| {
            spent.as_ref().map_or(0.0, PrivacyStatement::shown_epsilon)
        };
        let epsilon_by_round = by_round.iter().map(epsilon).collect();
        let privacy = by_round.into_iter().next_back().flatten();
        Ok(Status {
            now: self.now(),
            enrolled,
            online,
            revoked,
            database_bytes: self.store.bytes()?,
            rounds: self
                .store
                .rounds()?
                .into_iter()
                .map(|round| self.round_status(round))
                .collect::<Result<_>>()?,
            models: self
                .store
                .models()?
                .into_iter()
                .map(|model| self.model_status(model))
                .collect::<Result<_>>()?,
            silent: self.silent()?,
            lost: self.lost()?,
            public_key: self.public_key(),
            epsilon: privacy.as_ref().map(PrivacyStatement::shown_epsilon),
            privacy: privacy.map(|statement| statement.to_string()),
            unknown_rounds: self.store.unknown_rounds()?,
            epsilon_by_round,
            // The rest is what a running server alone knows.
            ..Status::default()
        })
    }

    /// Checks the audit log and the arithmetic of every round against it.
    pub fn verify(&self, key: &VerifyingKey) -> Result<crate::verify::Verified> {
        crate::verify::verify(&self.store.snapshot()?, &self.layout, key)
    }
}
