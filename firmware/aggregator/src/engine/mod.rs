//! Rounds, models and devices: decisions over the database, with clock and gate injected.
//!
//! The engine knows no network. It is told what devices sent and it says what is to be announced; whoever carries
//! messages asks it again after every restart, so nothing is lost with the carrier.

mod devices;
mod error;
mod lost;
mod models;
mod rollout;
mod rounds;
mod status;

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use learn::averaging::Step;
use learn::edges::{Clock, Digest};
use learn::head::HeadLayout;
use learn::privacy::NoiseMultiplierError;
use proto::Channel;

use crate::audit::Event;
use crate::gate::Gate;
use crate::hex;
use crate::records::{Damaged, Round, Task};
use crate::rollout_rules::{RolloutRules, Stage};
use crate::signal::Signal;
use crate::store::{Decision, Store, StoreError};
pub use error::EngineError;
pub use lost::{Lost, Numbers};
pub use rollout::{Failure, Report};
pub use rounds::RoundRequest;
pub use status::{DELTA, ModelStatus, RoundStatus, Status};

type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What the operator has set, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Updates a round needs.
    pub minimum_cohort: u64,
    /// Updates at which it closes early.
    pub maximum_cohort: u64,
    /// Seconds between announcement and the first update.
    pub lead_seconds: u64,
    /// Seconds in which updates are taken.
    pub window_seconds: u64,
    /// Whether a round may ask for less noise than any household's mirror takes: only where all mirrors are made for it, as
    /// those of a demonstration.
    pub any_noise: bool,
    /// Cosine of one update to the common direction, as measured for the model in use.
    pub update_cosine: f64,
    /// Expected cosine below which a round is refused.
    pub wanted_cosine: f64,
    /// How a round's average moves its base.
    pub step: Step,
    /// How much worse than its predecessor a candidate may be on the holdout, 0 to 1.
    pub tolerance: f64,
    /// Rounds whose members are remembered. Of older ones the sums stay, and what the audit log says.
    pub keep_rounds: u64,
    /// How versions spread.
    pub rollout: RolloutRules,
}

impl Rules {
    /// How much signal a round of this task carries, by these rules.
    ///
    /// # Errors
    /// A task whose noise multiplier is none.
    pub fn signal(&self, task: &Task) -> Result<Signal, NoiseMultiplierError> {
        let (dimension, noise_multiplier) = (task.dimension, task.noise()?);
        Ok(Signal { dimension, noise_multiplier, update_cosine: self.update_cosine })
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            minimum_cohort: 100,
            maximum_cohort: 1_000_000,
            lead_seconds: 60,
            window_seconds: 86_400,
            any_noise: false,
            update_cosine: 0.3,
            wanted_cosine: 0.1,
            step: Step::PLAIN,
            tolerance: 0.0,
            keep_rounds: 20,
            rollout: RolloutRules {
                stages: [20, 200, 1000].map(Stage::Permille).to_vec(),
                stage_seconds: 86_400,
                minimum_reports: 5,
                minimum_failures: 2,
                error_threshold: 0.1,
            },
        }
    }
}

/// Digest of the secret that the devices' are made of.
const SECRETS: &str = "secrets";
const SECRETS_CONTEXT: &[u8] = b"mirror devices key 1\n";

/// The channel that the database began with, or was first opened for by a program that notes it.
const CHANNEL: &str = "channel";

/// [`Engine::base_digest`] of the network that the database began with.
const BASE: &str = "base";

/// Database, key, clock, gate and rules together.
pub struct Engine {
    store: Arc<Store>,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    gate: Box<dyn Gate>,
    /// The shipped head; its constants complete the trainable numbers to a whole head.
    shipped: Vec<f32>,
    layout: HeadLayout,
    channel: Channel,
    secrets: [u8; 32],
    rules: Rules,
}

/// What an engine is made of.
pub struct Parts {
    /// The database.
    pub store: Arc<Store>,
    /// Signs statements and the audit log.
    pub key: SigningKey,
    /// The fleet's secret, of which every device's is made.
    pub secrets: [u8; 32],
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Judges candidates.
    pub gate: Box<dyn Gate>,
    /// The head that is trained.
    pub layout: HeadLayout,
    /// Its numbers as shipped, constants included.
    pub shipped: Vec<f32>,
    /// The part of the fleet.
    pub channel: Channel,
    /// What the operator has set.
    pub rules: Rules,
}

impl Engine {
    /// Takes the parts. Writes the first audit entry into an empty database.
    ///
    /// # Errors
    /// Rules that mean nothing, a key, a head or a channel that is not the one that the database began with, or of the database.
    pub fn new(parts: Parts) -> Result<Engine> {
        let Parts { store, key, secrets, clock, gate, layout, shipped, channel, rules } = parts;
        if shipped.len() != layout.len() {
            let (expected, actual) = (layout.len(), shipped.len());
            return Err(EngineError::ForeignModel { expected, actual });
        }
        if rules.minimum_cohort < 2 || rules.maximum_cohort < rules.minimum_cohort {
            return Err(EngineError::Cohort);
        }
        let engine = Engine { store, key, clock, gate, shipped, layout, channel, secrets, rules };
        engine.keep_key()?;
        engine.keep_secrets()?;
        engine.keep_base()?;
        engine.keep_channel()?;
        engine.store.forget_candidates()?;
        engine.store.note_certificates()?;
        Ok(engine)
    }

    /// Records whose fleet it is in a database without a past, and refuses any other key: no mirror would believe it.
    fn keep_key(&self) -> Result<()> {
        let created = Event::Created { public_key: self.public_key() };
        let Some(first) = self.store.first_entry()? else {
            return self.decide(|decision| decision.record(&created));
        };
        let known: Event = serde_json::from_str(&first.event)
            .map_err(|error| Damaged { what: "audit entry 0".into(), reason: error.to_string() })?;
        if known == created { Ok(()) } else { Err(EngineError::OtherKey { file: "signing.key" }) }
    }

    /// Notes the secret that the devices' are made of, and refuses any other: with another one no mirror is known by its names any more.
    fn keep_secrets(&self) -> Result<()> {
        let found = Digest::of(&[SECRETS_CONTEXT, self.secrets.as_slice()].concat()).0;
        let noted: Option<[u8; 32]> =
            self.store.meta(SECRETS)?.and_then(|bytes| bytes.try_into().ok());
        match noted {
            Some(known) if known == found => Ok(()),
            Some(_) => Err(EngineError::OtherKey { file: "devices.key" }),
            // A database that is older than the note.
            None => self.decide(|decision| decision.put_meta(SECRETS, &found)),
        }
    }

    /// Notes the shipped head in a database that knows none, and refuses any other: versions are announced as belonging to
    /// this one, and mirrors of another network would install them.
    fn keep_base(&self) -> Result<()> {
        let found = self.base_digest();
        let noted = self.store.meta(BASE)?.and_then(|bytes| bytes.try_into().ok());
        let known = match noted {
            Some(digest) => digest,
            None => self.first_digest()?.unwrap_or(found),
        };
        if known != found {
            let (known, found) = (Digest(known), Digest(found));
            return Err(EngineError::OtherNetwork { known, found });
        }
        if noted.is_none() {
            self.decide(|decision| decision.put_meta(BASE, &found))?;
        }
        Ok(())
    }

    /// Notes the channel, and refuses any other: an open round would stay announced in the old one, and its mirrors would spend budget on it.
    fn keep_channel(&self) -> Result<()> {
        let found = self.channel.as_str();
        match self.store.meta(CHANNEL)? {
            Some(known) if known == found.as_bytes() => Ok(()),
            Some(known) => {
                let known = String::from_utf8_lossy(&known).into_owned();
                Err(EngineError::OtherChannel { known, found: found.to_owned() })
            }
            // A database that is older than the note.
            None => self.decide(|decision| decision.put_meta(CHANNEL, found.as_bytes())),
        }
    }

    /// SHA-256 of version 1's parameters: the shipped head, in databases that are older than its note.
    fn first_digest(&self) -> Result<Option<[u8; 32]>> {
        Ok(self.store.model(1)?.and_then(|model| hex::decode(&model.parameters)))
    }

    /// The database, for reading and for counting updates.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The database, for workers to share.
    pub fn shared_store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The head's layout.
    pub fn layout(&self) -> &HeadLayout {
        &self.layout
    }

    /// SHA-256 of the shipped head's trainable numbers, to which every version of this head belongs.
    pub fn base_digest(&self) -> [u8; 32] {
        self.layout.digest(&self.shipped).0
    }

    /// The first of `count` sequence numbers that nobody else will get, all of them above `above`.
    pub fn take_sequence(&self, count: u64, above: u64) -> Result<u64> {
        let mut first = 0;
        self.decide(|decision| {
            first = decision.take_sequence(count, above)?;
            Ok(())
        })?;
        Ok(first)
    }

    /// The part of the fleet that this aggregator serves.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The key that signs manifests.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The public half of [`Engine::key`], hexadecimal.
    pub fn public_key(&self) -> String {
        hex::encode(self.key.verifying_key().as_bytes())
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        self.clock.now().0
    }

    fn decide(
        &self,
        change: impl FnOnce(&mut Decision<'_>) -> Result<(), StoreError>,
    ) -> Result<()> {
        Ok(self.store.decide(self.now(), &self.key, change)?)
    }

    /// Changes a round that is still in the phase of `seen`, and does nothing to one that has left it: an operator's command
    /// may come between any reading and its decision.
    fn decide_in_phase(
        &self,
        seen: &Round,
        change: impl FnOnce(&mut Decision<'_>) -> Result<(), StoreError>,
    ) -> Result<()> {
        self.decide(|decision| match decision.round(seen.id)? {
            Some(round) if round.phase == seen.phase => change(decision),
            _ => Ok(()),
        })
    }

    /// Takes the next step of everything that is due but for [`Engine::judge`], and says whether a round moved: then more may be due. One
    /// step at a time, so that each can be announced before the next.
    ///
    /// While the server is not `heard` no roll-out goes on and no round's window ends. The stage and the window at hand end as much
    /// later as nobody heard, or the server did not run.
    ///
    /// # Errors
    /// Of the database. A round that fails holds up nothing else.
    pub fn advance(&self, heard: bool) -> Result<bool> {
        if heard {
            self.note_heard()?;
        }
        let moved = self.live_round().and_then(|live| match live {
            Some(round) => self.step_round(&round, heard),
            None => Ok(false),
        });
        for model in self.store.models()? {
            self.step_rollout(&model, heard)?;
        }
        self.prune()?;
        moved
    }
}
