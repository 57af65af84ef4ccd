//! Rounds, models and devices: decisions over the database, with clock and gate injected.
//!
//! The engine knows no network. It is told what devices sent and it says what is to be announced; whoever carries
//! messages asks it again after every restart, so nothing is lost with the carrier.

use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use learn::averaging::{AveragingError, Step};
use learn::edges::{Clock, Digest};
use learn::head::{HeadLayout, Subset};
use learn::privacy::sampler::{DiscreteGaussian, SigmaError};
use learn::privacy::{
    AccountantError, CLIP_STEPS, NoiseMultiplier, NoiseMultiplierError, PrivacyStatement,
    check_noise,
};
use proto::model::rollout_place;
use proto::secret::DeviceSecret;
use proto::status::JobFault;
use proto::{Channel, DeviceId};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::arithmetic;
use crate::audit::Event;
use crate::gate::{Gate, GateError};
use crate::hex;
use crate::records::{
    DOES_NOT_SHIP, Damaged, Device, Model, Parameters, Phase, Pseudonym, Rollout, Round, Standing,
    Tally, Task, parameter_bytes, parameters_of,
};
use crate::rollout::{Change, RolloutRules, Situation, Stage, decide, is_due};
use crate::round::{self, announced_now, next_step};
use crate::signal::{NoSignal, NoisePlace, Signal};
use crate::store::{Decision, Store, StoreError};

/// Delta at which epsilon is stated.
pub const DELTA: f64 = 1e-5;

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

/// Why the engine refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    NoSignal(Box<NoSignal>),
    #[error("round {0} is still under way; wait for it, or end it with `round abort {0}`")]
    Busy(u64),
    #[error("there is no round {0}; `status` lists them")]
    NoRound(u64),
    #[error("round {0} is over already")]
    Over(u64),
    #[error(
        "version {newer} is newer and mirrors never go down; put version {version}'s numbers on top with `model rollback \
         {version}`"
    )]
    Superseded { version: u64, newer: u64 },
    #[error("version {0} is being rolled out already; `model show {0}` says how far")]
    UnderWay(u64),
    #[error("version {0} is everywhere already, so there is nothing to roll out")]
    Everywhere(u64),
    #[error(
        "the model that rounds start from has changed just now; look at `model list`, and try again"
    )]
    ModelChanged,
    #[error("there is no model version {0}; `model list` lists them")]
    NoModel(u64),
    #[error("there is no model yet; `aggregator init` adds the one that the mirrors ship with")]
    NoModels,
    #[error("the model has {actual} numbers where this head has {expected}; it is another head")]
    ForeignModel { expected: usize, actual: usize },
    #[error(
        "the data folder's {file} is not the one that this fleet began with; restore it from a backup (a new fleet needs a `data` \
         folder of its own)"
    )]
    OtherKey { file: &'static str },
    #[error(
        "{devices} devices are enrolled and a round needs {minimum} updates, so it would end without a result and its mirrors would \
         have spent budget for nothing. Enrol more of them, or lower `rounds.minimum_cohort`, but not below what the mirrors ask \
         for. --force starts it all the same"
    )]
    SmallFleet { devices: u64, minimum: u64 },
    #[error(
        "version {version} is at stage {stage} of {of} of its roll-out: only the mirrors that it has \
         reached could answer, and would spend budget on a round that lacks all the others. Wait \
         until `model list` says \"everywhere\". --force starts it all the same"
    )]
    RollingOut { version: u64, stage: usize, of: usize },
    #[error(
        "version {stopped} was stopped after it had reached mirrors. They never go down, could not answer a round on version \
         {base}, and all others would spend budget on a round that lacks them; `model rollback {base}` first puts its \
         numbers on top for everybody. --force starts it all the same"
    )]
    StoppedAbove { stopped: u64, base: u64 },
    #[error(
        "the folder that `model` names holds another network ({found}) than the one that this fleet began with ({known}); \
         name the old folder, or give the new network a `channel` and a `data` folder of its own and `aggregator init`"
    )]
    OtherNetwork { known: Digest, found: Digest },
    #[error("there is no device {0}; `device list` lists them")]
    NoDevice(String),
    #[error(
        "the name {0} is for one certificate, and another certificate has it; enrol this one under another name (a revoked name \
         never comes back)"
    )]
    OtherCertificate(String),
    #[error(
        "the certificate is enrolled as {0} already, and one mirror must not count twice; give this mirror a certificate of its \
         own, or end the other name first with `device revoke {0}`"
    )]
    KnownCertificate(String),
    #[error("the name {0} belongs to the fleet's own programs; enrol the mirror under another one")]
    Reserved(String),
    #[error("device {0} was revoked and stays so; give the mirror a new certificate and name")]
    Revoked(String),
    #[error(transparent)]
    Name(#[from] proto::ids::IdError),
    #[error("\"{0}\" is no SHA-256 fingerprint; `openssl x509 -fingerprint -sha256` prints one")]
    Fingerprint(String),
    #[error("noise multiplier: {0}")]
    Noise(#[from] NoiseMultiplierError),
    #[error("no mirror would answer the round: {0}")]
    NoiseTooSmall(AccountantError),
    #[error("no mirror could answer the round: {0}")]
    NoiseUndrawable(#[from] SigmaError),
    #[error("a round needs a minimum cohort of at least 2, and a maximum that is no smaller")]
    Cohort,
    #[error("a message could not be made: {0}")]
    Message(proto::DecodeError),
    #[error("epsilon cannot be stated: {0}")]
    Accountant(#[from] AccountantError),
}

impl From<Damaged> for EngineError {
    fn from(error: Damaged) -> EngineError {
        EngineError::Store(error.into())
    }
}

impl From<AveragingError> for EngineError {
    fn from(error: AveragingError) -> EngineError {
        EngineError::Store(error.into())
    }
}

type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What `round start` asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRequest {
    /// Which parameters.
    pub parameters: Parameters,
    /// Noise multiplier as a decimal number.
    pub noise_multiplier: String,
    /// Whether to start against advice.
    pub force: bool,
}

/// A device's word about a model version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its trial ended without a fault; whether the household keeps it in use stays in the house.
    Installed,
    /// It was refused or taken back.
    Failed(JobFault),
}

/// A device that a version failed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its name.
    pub device: String,
    /// How; `None` in what was reported before 2026-11-30.
    pub fault: Option<JobFault>,
}

/// Names that the sample broker's access list gives to others.
const RESERVED: [&str; 2] = ["aggregator", "broker"];

/// Digest of the secret that the devices' are made of.
const SECRETS: &str = "secrets";
const SECRETS_CONTEXT: &[u8] = b"mirror devices key 1\n";

/// The highest round whose members were forgotten.
const PRUNED: &str = "pruned";

/// Until when the fleet could hear, seconds since 1970, as far as [`Engine::advance_if`] has noted it.
const HEARD: &str = "heard";

/// Seconds between two such notes.
const HEARD_SECONDS: u64 = 60;

/// Seconds without one from which on they are a silence.
const SILENCE_SECONDS: u64 = 2 * HEARD_SECONDS;

/// [`Engine::base_digest`] of the network that the database began with.
const BASE: &str = "base";

const INSTALLED: u8 = 1;

impl Report {
    /// As the database has it. 2 is a failure whose fault was not noted, as before 2026-11-30.
    fn code(self) -> u8 {
        match self {
            Report::Installed => INSTALLED,
            Report::Failed(JobFault::Content) => 3,
            Report::Failed(JobFault::Base) => 4,
            Report::Failed(JobFault::Unusable) => 5,
            Report::Failed(JobFault::PublicCheck) => 6,
            Report::Failed(JobFault::Storage) => 7,
        }
    }
}

/// The fault that such a code stands for, where it was noted.
fn fault_of(code: u8) -> Option<JobFault> {
    match code {
        3 => Some(JobFault::Content),
        4 => Some(JobFault::Base),
        5 => Some(JobFault::Unusable),
        6 => Some(JobFault::PublicCheck),
        7 => Some(JobFault::Storage),
        _ => None,
    }
}

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
    /// Of these, the ones that are up.
    #[serde(default)]
    pub workers_connected: u64,
    /// Subscriptions and messages that the broker has refused since the server's start.
    #[serde(default)]
    pub broker_refused: u64,
    /// Of these, the subscriptions on the connections at hand.
    #[serde(default)]
    pub broker_refused_now: u64,
    /// Statements that another server has signed with this one's key and announced, since a running server's start.
    #[serde(default)]
    pub rival_statements: u64,
    /// Why a running server's rounds and roll-outs do not go on, where they do not.
    #[serde(default)]
    pub decisions_failing: Option<String>,
    /// Devices that were revoked.
    pub revoked: u64,
    /// Rounds, newest last.
    pub rounds: Vec<RoundStatus>,
    /// Model versions, newest last.
    pub models: Vec<ModelStatus>,
    /// The version whose stage is over by its time, and waits for a first mirror to say that it works.
    #[serde(default)]
    pub silent: Option<u64>,
    /// Public key for the devices' settings.
    pub public_key: String,
    /// What a device has spent that was counted in every round. One whose updates got lost on their
    /// way may have spent more.
    pub privacy: Option<String>,
    /// Rounds that an earlier database may have had, as far as [`Engine::restore`] was told; what
    /// they cost is not in `privacy`.
    #[serde(default)]
    pub unknown_rounds: u64,
    /// The same epsilon as a number, for graphs beside the sentence.
    pub epsilon: Option<f64>,
    /// The epsilon that such a device had spent after each of `rounds`.
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
    pub standing: String,
}

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
    /// Rules that mean nothing, a key or a head that is not the one that the database began with, or of the database.
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

    /// The same for the secret that the devices' are made of: with another one no mirror is known by its names any more.
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

    /// SHA-256 of version 1's parameters: the shipped head, in databases that are older than its note.
    fn first_digest(&self) -> Result<Option<[u8; 32]>> {
        Ok(self.store.model(1)?.and_then(|model| hex::decode(&model.parameters)))
    }

    /// The database, for reading and for counting updates.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The same database, for workers.
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
        Digest::of(&parameter_bytes(&self.layout.gather(Subset::Full, &self.shipped))).0
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

    /// Its public half, hexadecimal.
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

    /// Enrols a device, and names it in the round at hand. Enrolling it again with the same certificate is no error.
    pub fn enrol(&self, name: &str, fingerprint: &str) -> Result<Device> {
        self.enrol_in(name, fingerprint, None)
    }

    /// The same into a group for roll-outs, or into another one.
    pub fn enrol_in(&self, name: &str, fingerprint: &str, group: Option<&str>) -> Result<Device> {
        let id: DeviceId = name.parse()?;
        if RESERVED.contains(&name) {
            return Err(EngineError::Reserved(name.to_owned()));
        }
        // openssl prints "sha256 Fingerprint=AB:CD:..", and people paste all of it.
        let digits = fingerprint.rsplit_once('=').map_or(fingerprint, |(_, digits)| digits);
        let digest: [u8; 32] =
            hex::decode(digits).ok_or_else(|| EngineError::Fingerprint(fingerprint.to_owned()))?;
        let device = Device {
            name: name.to_owned(),
            fingerprint: hex::encode(&digest),
            standing: Standing::Enrolled,
            enrolled_at: self.now(),
            group: group.map(str::to_owned),
        };
        let known = self.store.device(name)?;
        let is_new = known.is_none();
        match known {
            Some(known) if known.standing != Standing::Enrolled => {
                return Err(EngineError::Revoked(name.to_owned()));
            }
            Some(known) if known.fingerprint != device.fingerprint => {
                return Err(EngineError::OtherCertificate(name.to_owned()));
            }
            Some(known) if group.is_none() || known.group == device.group => return Ok(known),
            Some(_) => {}
            None => self.refuse_known(&device.fingerprint)?,
        }
        let event = Event::DeviceEnrolled {
            device: device.name.clone(),
            fingerprint: device.fingerprint.clone(),
            group: device.group.clone(),
        };
        let live = self.live_round()?.filter(|_| is_new);
        self.decide(|decision| {
            decision.put_device(&device)?;
            if let Some(round) = &live {
                decision.put_name(round.id, self.pseudonym(&id, round.id), name)?;
            }
            decision.record(&event)
        })?;
        Ok(device)
    }

    /// Refuses a certificate that another name has which was not revoked.
    fn refuse_known(&self, fingerprint: &str) -> Result<()> {
        let mut other = None;
        self.store.each_device(|device| {
            if device.fingerprint == fingerprint && device.standing == Standing::Enrolled {
                other = Some(device.name);
            }
        })?;
        other.map_or(Ok(()), |name| Err(EngineError::KnownCertificate(name)))
    }

    /// The secret of a device, for its settings.
    pub fn secret(&self, device: &DeviceId) -> DeviceSecret {
        DeviceSecret::derive(&self.secrets, device)
    }

    fn pseudonym(&self, device: &DeviceId, round: u64) -> Pseudonym {
        Pseudonym(self.secret(device).pseudonym(&self.channel, round).0)
    }

    /// Revokes a device, for good.
    pub fn revoke(&self, name: &str, reason: &str) -> Result<Device> {
        let known = self.store.device(name)?;
        let mut device = known.ok_or_else(|| EngineError::NoDevice(name.to_owned()))?;
        device.standing = Standing::Revoked { reason: reason.to_owned() };
        let event = Event::DeviceRevoked { device: name.to_owned(), reason: reason.to_owned() };
        self.decide(|decision| {
            decision.put_device(&device)?;
            decision.record(&event)
        })?;
        Ok(device)
    }

    /// Adds a model version from outside, such as the first one, as all its trainable numbers in the layout's order. It
    /// is held until published.
    pub fn add_model(&self, parameters: &[f32], origin: &str) -> Result<Model> {
        let (expected, actual) = (self.layout.subset_len(Subset::Full), parameters.len());
        if actual != expected {
            return Err(EngineError::ForeignModel { expected, actual });
        }
        let bytes = parameter_bytes(parameters);
        let mut model = self.new_model(&bytes, origin, Rollout::Held, None);
        self.decide(|decision| put_next(decision, &mut model, &bytes))?;
        Ok(model)
    }

    /// The model that the mirrors ship with, everywhere from the start: version 1, in a database that has no model yet.
    ///
    /// # Errors
    /// Of the database.
    pub fn ship(&self, origin: &str) -> Result<()> {
        let bytes = parameter_bytes(&self.layout.gather(Subset::Full, &self.shipped));
        let mut model = self.new_model(&bytes, origin, Rollout::Complete, None);
        // In one, so that no power cut leaves a model that nobody has.
        self.decide(|decision| {
            if !decision.models()?.is_empty() {
                return Ok(());
            }
            put_next(decision, &mut model, &bytes)?;
            decision.record(&self.published(&model))
        })
    }

    /// A model without a number; [`put_next`] gives it one.
    fn new_model(&self, bytes: &[u8], origin: &str, rollout: Rollout, score: Option<f64>) -> Model {
        Model {
            version: 0,
            parameters: Digest::of(bytes).to_string(),
            origin: origin.to_owned(),
            created_at: self.now(),
            score,
            rollout,
            installed: 0,
            failed: 0,
        }
    }

    /// Starts to roll a version out, or starts again after a stop.
    ///
    /// # Errors
    /// [`EngineError::NoModel`], [`EngineError::Superseded`] below a version that was published, [`EngineError::UnderWay`],
    /// [`EngineError::Everywhere`], or of the database.
    pub fn publish(&self, version: u64) -> Result<Model> {
        let mut outcome = Err(EngineError::NoModel(version));
        // Looked at and changed in one: a stage may end in between.
        self.decide(|decision| {
            outcome = may_roll_out(&decision.models()?, version);
            let Ok(model) = &mut outcome else { return Ok(()) };
            model.rollout = Rollout::Running { stage: 0, since: self.now() };
            (model.installed, model.failed) = (0, 0);
            decision.forget_reports(version)?;
            decision.put_model(model)?;
            decision.record(&self.published(model))?;
            end_outdated(decision)
        })?;
        outcome
    }

    fn published(&self, model: &Model) -> Event {
        Event::ModelPublished { version: model.version, permille: self.permille(model) }
    }

    /// How many of a thousand devices a version's manifest is for. 0 is that of a version which is for nobody, and that of one in a
    /// stage of groups, whose mirrors are told by name: by the manifest alone no mirror may take either, not even on a household's
    /// wish.
    pub fn permille(&self, model: &Model) -> u16 {
        match model.rollout {
            Rollout::Running { stage, .. } => self.rules.rollout.permille(stage),
            Rollout::Complete => 1000,
            Rollout::Held | Rollout::Stopped { .. } => 0,
        }
    }

    /// Whether every device is offered a version.
    fn is_for_all(&self, model: &Model) -> bool {
        self.permille(model) == 1000
    }

    /// Puts an older version's numbers on top as a new version: devices never go down. Numbers whose own roll-out was over are
    /// everywhere at once; others, such as those of a version that was stopped for trouble, begin with the first stage. The
    /// round at hand ends, since its average belongs to what was on top before.
    ///
    /// # Errors
    /// [`EngineError::NoModel`], or of the database.
    pub fn rollback(&self, to: u64) -> Result<Model> {
        let (mut top, bytes) = self.again(to)?;
        self.decide(|decision| {
            let Some(newest) = decision.models()?.pop() else { return Ok(()) };
            let from = newest.version;
            // Why one was stopped is what an operator looks for after the rollback.
            if is_usable(&newest) {
                let reason = format!("rolled back to version {to}");
                decision.put_model(&Model { rollout: Rollout::Stopped { reason }, ..newest })?;
            }
            put_next(decision, &mut top, &bytes)?;
            decision.record(&Event::RolledBack { from, to, as_version: top.version })?;
            decision.record(&self.published(&top))?;
            end_outdated(decision)
        })?;
        Ok(top)
    }

    /// Goes on above the numbers that a lost database may have given: for one that was restored from a backup.
    ///
    /// Mirrors ignore rounds and versions that they know already. So the next ones get numbers above these, and the newest
    /// version whose roll-out was over comes on top again, everywhere at once, so that mirrors and database share a base. A
    /// version that was half tried when the backup was made may have been found wanting since, and stops. The round at hand
    /// ends; its mirrors have gone on.
    ///
    /// # Errors
    /// [`EngineError::NoModels`], or of the database.
    pub fn restore(&self, rounds_above: u32, versions_above: u32) -> Result<Model> {
        let (mut top, bytes) = self.again(self.proven()?.version)?;
        self.decide(|decision| {
            decision.go_on_above(rounds_above, versions_above)?;
            decision.record(&Event::Restored { rounds_above, versions_above })?;
            stop_running(decision, "the database was restored")?;
            put_next(decision, &mut top, &bytes)?;
            decision.record(&self.published(&top))?;
            end_outdated(decision)
        })?;
        Ok(top)
    }

    /// A version's numbers as a new model, which [`put_next`] is to give a number; and their bytes.
    fn again(&self, version: u64) -> Result<(Model, Vec<u8>)> {
        let known = self.store.model(version)?.ok_or(EngineError::NoModel(version))?;
        let bytes = self.store.parameters(version)?.ok_or(EngineError::NoModel(version))?;
        let origin = format!("version {version} again");
        let rollout = match known.rollout {
            Rollout::Complete => Rollout::Complete,
            _ => Rollout::Running { stage: 0, since: self.now() },
        };
        Ok((self.new_model(&bytes, &origin, rollout, known.score), bytes))
    }

    /// Notes what a device says about a version, and stops its roll-out if that follows.
    ///
    /// A device counts once for each version, by the last thing it said. Only an enrolled one is
    /// heard, and only once the roll-out has reached it.
    ///
    /// # Errors
    /// [`EngineError::NoModel`], [`EngineError::NoDevice`], or of the database.
    pub fn report(&self, device: &str, version: u64, report: Report) -> Result<()> {
        let known = self.store.device(device)?.filter(|known| known.standing == Standing::Enrolled);
        let known = known.ok_or_else(|| EngineError::NoDevice(device.to_owned()))?;
        let model = self.store.model(version)?.ok_or(EngineError::NoModel(version))?;
        // Devices say the same at every connection and with every stage; only what is new is worth
        // a commit.
        let is_known = self.store.reported(version, device)? == Some(report.code());
        if is_known || !self.has_reached(&model, &known)? {
            return Ok(());
        }
        let mut changed = None;
        self.decide(|decision| {
            let Some(mut model) = decision.model(version)? else { return Ok(()) };
            let before = decision.put_report(version, device, report.code())?;
            let mut count = |code: u8, change: fn(u64) -> u64| match code {
                INSTALLED => model.installed = change(model.installed),
                _ => model.failed = change(model.failed),
            };
            before.into_iter().for_each(|code| count(code, |number| number.saturating_sub(1)));
            count(report.code(), |number| number + 1);
            decision.put_model(&model)?;
            changed = Some(model);
            Ok(())
        })?;
        // It may stop it; whether it goes on is for [`Engine::advance_if`], which knows who can hear.
        self.step_rollout(&changed.ok_or(EngineError::NoModel(version))?, false)
    }

    /// Whether a device has a version by its roll-out, and not because somebody at home wanted it
    /// early.
    fn has_reached(&self, model: &Model, device: &Device) -> Result<bool> {
        let Rollout::Running { stage, .. } = model.rollout else { return Ok(true) };
        let rules = &self.rules.rollout;
        let groups = rules.groups(stage);
        let is_in = device.group.as_deref().is_some_and(|group| groups.contains(&group));
        let place = rollout_place(&device.name.parse()?, model.version);
        Ok(is_in || place < rules.permille(stage))
    }

    /// Stops or widens a roll-out, if that is due. A stop also ends the round that started from the version. Nothing widens
    /// while nobody can hear of it, nor that of a version in whose place a newer one is announced.
    fn step_rollout(&self, model: &Model, heard: bool) -> Result<()> {
        if !matches!(model.rollout, Rollout::Running { .. }) {
            return Ok(());
        }
        let (rules, situation) = (&self.rules.rollout, self.situation(model, heard)?);
        if matches!(decide(model, rules, situation), Change::None | Change::Hold) {
            return Ok(());
        }
        self.decide(|decision| {
            // As it stands now: reports and operators change it at any time.
            let Some(mut model) = decision.model(model.version)? else { return Ok(()) };
            let change = decide(&model, rules, situation);
            let event = self.turn_rollout(&mut model, change, situation.now);
            let Some(event) = event else { return Ok(()) };
            decision.put_model(&model)?;
            decision.record(&event)?;
            end_outdated(decision)
        })
    }

    fn situation(&self, model: &Model, heard: bool) -> Result<Situation> {
        let (now, goes_on) = (self.now(), heard && !self.is_superseded(model)?);
        // Devices are looked at only where it matters whether there are any.
        let matters = goes_on && model.installed == 0 && is_due(model, &self.rules.rollout, now);
        let has_reached_any = matters && self.has_reached_any(model)?;
        Ok(Situation { now, goes_on, has_reached_any })
    }

    /// Whether any enrolled device has a version by its roll-out.
    fn has_reached_any(&self, model: &Model) -> Result<bool> {
        let has_it = |device: &Device| {
            // A name that is no device name cannot have been enrolled.
            device.standing == Standing::Enrolled
                && self.has_reached(model, device).unwrap_or(false)
        };
        Ok(self.store.any_device(has_it)?)
    }

    /// The announced version, if its stage is over by its time and waits for a first device to say that it works.
    fn silent(&self) -> Result<Option<u64>> {
        let Some(model) = self.announced()? else { return Ok(None) };
        Ok(self.is_silent(&model)?.then_some(model.version))
    }

    fn is_silent(&self, model: &Model) -> Result<bool> {
        let situation = self.situation(model, true)?;
        Ok(decide(model, &self.rules.rollout, situation) == Change::Hold)
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
            Rollout::Stopped { reason } => format!("stopped: {reason}"),
        };
        Ok(ModelStatus { model, standing })
    }

    /// The same of a version in its stage `stage`, from 1.
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

    /// The devices that a version failed on, in the order of their names.
    ///
    /// # Errors
    /// [`EngineError::NoModel`], or of the database.
    pub fn failures(&self, version: u64) -> Result<Vec<Failure>> {
        self.store.model(version)?.ok_or(EngineError::NoModel(version))?;
        let mut failures = self.store.reports(version)?;
        failures.retain(|(_, code)| *code != INSTALLED);
        let failure = |(device, code)| Failure { device, fault: fault_of(code) };
        Ok(failures.into_iter().map(failure).collect())
    }

    /// Whether a version can reach no more devices since a newer one is announced in its place.
    fn is_superseded(&self, model: &Model) -> Result<bool> {
        let announced = self.announced()?.map_or(0, |newest| newest.version);
        Ok(announced > model.version && !self.is_for_all(model))
    }

    fn turn_rollout(&self, model: &mut Model, change: Change, now: u64) -> Option<Event> {
        let Rollout::Running { stage, .. } = model.rollout else { return None };
        model.rollout = match change {
            Change::None | Change::Hold => return None,
            Change::Advance => Rollout::Running { stage: stage + 1, since: now },
            Change::Complete => Rollout::Complete,
            Change::Stop(reason) => {
                model.rollout = Rollout::Stopped { reason: reason.clone() };
                return Some(Event::RolloutStopped { version: model.version, reason });
            }
        };
        Some(self.published(model))
    }

    /// The version that is announced: the newest that was ever published. A stopped one stays announced, for nobody,
    /// so that its manifest replaces the one that spread it.
    pub fn announced(&self) -> Result<Option<Model>> {
        Ok(self.store.models()?.into_iter().rev().find(is_published))
    }

    /// The version that rounds start from: the newest that was not stopped.
    fn base(&self) -> Result<Model> {
        self.store.models()?.into_iter().rev().find(is_usable).ok_or(EngineError::NoModels)
    }

    /// The newest version that went through its whole roll-out; the one that rounds start from, where none did.
    fn proven(&self) -> Result<Model> {
        let complete = |model: &Model| model.rollout == Rollout::Complete;
        self.store.models()?.into_iter().rev().find(complete).map_or_else(|| self.base(), Ok)
    }

    /// The round that is not over, if there is one.
    pub fn live_round(&self) -> Result<Option<Round>> {
        Ok(self.store.rounds()?.into_iter().rev().find(|round| !round.phase.is_final()))
    }

    /// Announces a round, unless it would carry no signal, could not have the updates that it
    /// needs, its model has not reached every mirror or a stopped one has taken its place at some,
    /// or nobody could judge its candidate. Force does it all the same.
    ///
    /// # Errors
    /// [`EngineError::Busy`], [`EngineError::Gate`], [`EngineError::NoSignal`],
    /// [`EngineError::SmallFleet`], [`EngineError::RollingOut`], [`EngineError::StoppedAbove`],
    /// [`EngineError::NoModels`], [`EngineError::ModelChanged`], noise that no mirror could draw or would take, or of the database.
    pub fn start_round(&self, request: &RoundRequest) -> Result<Round> {
        if let Some(live) = self.live_round()? {
            return Err(EngineError::Busy(live.id));
        }
        let noise = self.noise(&request.noise_multiplier)?;
        let base = self.base()?;
        let subset = request.parameters.subset();
        let dimension = self.layout.subset_len(subset);
        let signal =
            Signal { dimension, noise_multiplier: noise, update_cosine: self.rules.update_cosine };
        let devices = self.store.enrolled()?;
        let (expected_cosine, mut objections) = self.objections(&signal, &base, devices)?;
        let forced = !objections.is_empty();
        if forced && !request.force {
            return Err(objections.swap_remove(0));
        }
        let model = hex::decode::<32>(&base.parameters).ok_or_else(|| Damaged {
            what: format!("model {}", base.version),
            reason: "its digest".into(),
        })?;
        let task = Task {
            parameters: request.parameters,
            dimension,
            layout: self.layout.id(subset, &model).to_string(),
            noise_multiplier: request.noise_multiplier.clone(),
            minimum_cohort: self.rules.minimum_cohort,
            maximum_cohort: self.rules.maximum_cohort,
            base_version: base.version,
            base: base.parameters,
        };
        let now = self.now();
        let opens_at = now + self.rules.lead_seconds;
        let mut round = Round {
            // The transaction below gives it its number.
            id: 0,
            task,
            phase: Phase::Announced,
            announced_at: now,
            opens_at,
            closes_at: opens_at + self.rules.window_seconds,
            expected_cosine,
            forced,
            score_before: None,
            score_after: None,
            candidate: None,
        };
        let mut outdated = None;
        self.decide(|decision| {
            // A report may have stopped the version since it was looked at, and another command may have been faster.
            let now_in_force = decision.models()?.into_iter().rev().find(is_usable);
            outdated = match decision.live_round()? {
                Some(live) => Some(EngineError::Busy(live.id)),
                None if now_in_force.is_none_or(|model| model.version != base.version) => {
                    Some(EngineError::ModelChanged)
                }
                None => None,
            };
            if outdated.is_some() {
                return Ok(());
            }
            round.id = decision.next_round()?;
            decision.put_round(&round)?;
            decision.each_enrolled(|decision, device| {
                // A name that is no device name cannot have been enrolled.
                let Ok(id) = device.name.parse() else { return Ok(()) };
                decision.put_name(round.id, self.pseudonym(&id, round.id), &device.name)
            })?;
            decision.record(&Event::RoundAnnounced {
                round: round.id,
                task: round.task.digest().to_string(),
                base_version: base.version,
                devices,
                expected_cosine,
                forced,
            })
        })?;
        outdated.map_or(Ok(round), Err)
    }

    /// The noise multiplier that a round asks for, if mirrors can draw it and take it.
    fn noise(&self, text: &str) -> Result<NoiseMultiplier> {
        let noise = text.parse()?;
        DiscreteGaussian::for_clip(noise, CLIP_STEPS)?;
        if !self.rules.any_noise {
            check_noise(noise).map_err(EngineError::NoiseTooSmall)?;
        }
        Ok(noise)
    }

    /// The cosine that is expected of a round of all `devices`, and what speaks against it: nobody could judge its candidate, it
    /// would carry no signal, could not have the updates that it needs, or would reach some mirrors only.
    fn objections(
        &self,
        signal: &Signal,
        base: &Model,
        devices: u64,
    ) -> Result<(f64, Vec<EngineError>)> {
        let mut objections: Vec<EngineError> = Vec::new();
        objections.extend(self.gate.ready().err().map(EngineError::from));
        let cosine = match signal.check(devices, self.rules.wanted_cosine) {
            Ok(cosine) => cosine,
            Err(refusal) => {
                let cosine = refusal.expected_cosine;
                objections.push(EngineError::NoSignal(Box::new(refusal)));
                cosine
            }
        };
        let minimum = self.rules.minimum_cohort;
        if devices < minimum {
            objections.push(EngineError::SmallFleet { devices, minimum });
        }
        objections.extend(self.unreached(base)?);
        Ok((cosine, objections))
    }

    /// Why a round on this version would reach some mirrors only, if it would.
    fn unreached(&self, model: &Model) -> Result<Option<EngineError>> {
        let announced = self.announced()?.map_or(0, |newest| newest.version);
        if announced > model.version {
            let base = self.proven()?.version;
            return Ok(Some(EngineError::StoppedAbove { stopped: announced, base }));
        }
        let Rollout::Running { stage, .. } = model.rollout else { return Ok(None) };
        let (version, of) = (model.version, self.rules.rollout.stages.len());
        let refusal = EngineError::RollingOut { version, stage: stage + 1, of };
        Ok((!self.is_for_all(model)).then_some(refusal))
    }

    /// Ends a round without a result.
    ///
    /// # Errors
    /// [`EngineError::NoRound`], [`EngineError::Over`], or of the database.
    pub fn abort_round(&self, id: u64, reason: &str) -> Result<Round> {
        let mut known = false;
        let mut aborted = None;
        self.decide(|decision| {
            let Some(round) = decision.round(id)? else { return Ok(()) };
            known = true;
            if !round.phase.is_final() {
                aborted = Some(abort(decision, &round, reason)?);
            }
            Ok(())
        })?;
        let missing = if known { EngineError::Over(id) } else { EngineError::NoRound(id) };
        aborted.ok_or(missing)
    }

    /// Takes the next step of everything that is due, and says whether a round moved: then more may be due. One step at a time,
    /// so that it can be announced that a round takes no more before the gate has judged for minutes.
    ///
    /// # Errors
    /// Of the gate or the database. A round that fails holds up nothing else.
    pub fn advance(&self) -> Result<bool> {
        self.advance_while(true)
    }

    /// The same for a server that looks at all times whether it is `heard`. While it is not no roll-out goes on, and the
    /// stage at hand ends as much later as nobody heard, or the server did not run.
    ///
    /// # Errors
    /// As [`Engine::advance`].
    pub fn advance_if(&self, heard: bool) -> Result<bool> {
        if heard {
            self.note_heard()?;
        }
        self.advance_while(heard)
    }

    /// Notes from time to time, while a roll-out is under way, that the fleet can hear of it, and puts its stage off by the
    /// silence since the note before. A stage that began by a clock that was ahead begins anew.
    fn note_heard(&self) -> Result<()> {
        let Some(model) = self.announced()? else { return Ok(()) };
        let Rollout::Running { stage, since } = model.rollout else { return Ok(()) };
        let now = self.now();
        // Where nothing was ever noted, all that is past counts; and so it does where the clock was ahead at the note.
        let noted = self.store.number(HEARD)?.filter(|noted| *noted <= now);
        let silence = now.saturating_sub(noted.unwrap_or(now).max(since));
        let from = match silence {
            _ if since > now => now,
            0..HEARD_SECONDS if noted.is_some() => return Ok(()),
            0..SILENCE_SECONDS => since,
            _ => since + silence,
        };
        if since > now {
            warn!("the clock was ahead; the stage of version {} begins anew", model.version);
        }
        self.decide(|decision| {
            decision.put_number(HEARD, now)?;
            let Some(model) = decision.model(model.version)? else { return Ok(()) };
            let same = model.rollout == Rollout::Running { stage, since };
            if from == since || !same {
                return Ok(());
            }
            let rollout = Rollout::Running { stage, since: from };
            decision.put_model(&Model { rollout, ..model })
        })
    }

    fn advance_while(&self, heard: bool) -> Result<bool> {
        let moved = self.live_round().and_then(|live| match live {
            Some(round) => self.step_round(&round),
            None => Ok(false),
        });
        for model in self.store.models()? {
            self.step_rollout(&model, heard)?;
        }
        self.prune()?;
        moved
    }

    /// Forgets who took part in rounds that are long over.
    fn prune(&self) -> Result<()> {
        let rounds = self.store.rounds()?;
        let before = self.store.number(PRUNED)?.unwrap_or(0);
        let old = rounds.len().saturating_sub(self.rules.keep_rounds as usize);
        let due = |round: &&Round| round.id > before && round.phase.is_final();
        for round in rounds[..old].iter().filter(due) {
            self.decide(|decision| {
                // The digests of its updates stay: a rollback may bring back any model, and with it an update that waits.
                decision.forget_members(round.id)?;
                decision.put_number(PRUNED, round.id)?;
                decision.record(&Event::RoundPruned { round: round.id })
            })?;
        }
        Ok(())
    }

    fn step_round(&self, round: &Round) -> Result<bool> {
        if let Some(moved) = announced_now(round, self.now()) {
            warn!(
                "the clock was ahead when round {} was announced; its time begins anew",
                round.id
            );
            self.decide_in_phase(round, |decision| decision.put_round(&moved))?;
            return Ok(true);
        }
        let tally = self.store.tally(round.id)?;
        match next_step(round, &tally, self.now()) {
            round::Step::Wait(_) | round::Step::Nothing => return Ok(false),
            round::Step::Open => self.turn(round, Phase::Collecting)?,
            // First the phase, so that nothing enters any more; then what was in it is read and recorded.
            round::Step::Close => self.turn(round, Phase::Closed)?,
            round::Step::Average => self.average(round)?,
            round::Step::Gate => self.judge(round)?,
            round::Step::Publish => self.publish_candidate(round)?,
            round::Step::Abort(reason) => self.give_up(round, &reason)?,
        }
        Ok(true)
    }

    fn turn(&self, round: &Round, phase: Phase) -> Result<()> {
        let turned = Round { phase, ..round.clone() };
        self.decide_in_phase(round, |decision| decision.put_round(&turned))
    }

    fn give_up(&self, round: &Round, reason: &str) -> Result<()> {
        self.decide_in_phase(round, |decision| abort(decision, round, reason).map(drop))
    }

    fn average(&self, round: &Round) -> Result<()> {
        let rules = round.task.rules()?;
        let merged = self.store.merged(round.id, rules)?;
        let (updates, members) = self.store.members(round.id)?;
        if updates != merged.count() {
            let reason = format!(
                "the sums hold {} updates and {updates} names were counted; the database was changed from outside",
                merged.count()
            );
            return self.give_up(round, &reason);
        }
        let average = merged.average(round.task.minimum_cohort)?;
        let step = self.rules.step;
        let (candidate, velocity) =
            arithmetic::moved(&self.store.snapshot()?, &self.layout, round, &average, step)?;
        let closed = Event::RoundClosed {
            round: round.id,
            updates,
            members: members.to_string(),
            sum: Digest::of(&merged.encode()).to_string(),
        };
        let digest = Digest::of(&candidate).to_string();
        let averaged = Event::RoundAveraged {
            round: round.id,
            average: Digest::of(&parameter_bytes(&average)).to_string(),
            base: round.task.base.clone(),
            candidate: digest.clone(),
            momentum: step.momentum(),
            rate: step.rate(),
        };
        let turned = Round { phase: Phase::Averaged, candidate: Some(digest), ..round.clone() };
        self.decide_in_phase(round, |decision| {
            decision.put_round(&turned)?;
            decision.put_candidate(round.id, &candidate)?;
            decision.put_meta(&arithmetic::velocity_name(round.id), &parameter_bytes(&velocity))?;
            decision.record(&closed)?;
            decision.record(&averaged)
        })
    }

    fn judge(&self, round: &Round) -> Result<()> {
        let version = round.task.base_version;
        let base = self.store.parameters(version)?.ok_or(EngineError::NoModel(version))?;
        let candidate = self.candidate(round)?;
        let (base, candidate) = (self.whole(&base), self.whole(&candidate));
        let scores = self.gate.scores(&[&base, &candidate])?;
        let (before, after) = (scores[0], scores[1]);
        let tolerance = self.rules.tolerance;
        // Written so that a score that is no number fails.
        let passed = after >= before - tolerance;
        let event = Event::RoundGated {
            round: round.id,
            score_before: before,
            score_after: after,
            tolerance,
            passed,
        };
        let reason = format!(
            "the candidate scores {after:.4} on the holdout where its predecessor has {before:.4}; {DOES_NOT_SHIP}"
        );
        let phase = if passed { Phase::Gated } else { Phase::Aborted { reason: reason.clone() } };
        let (score_before, score_after) = (Some(before), Some(after));
        let turned = Round { phase, score_before, score_after, ..round.clone() };
        self.decide_in_phase(round, |decision| {
            decision.put_round(&turned)?;
            decision.record(&event)?;
            if !passed {
                decision.record(&Event::RoundAborted { round: round.id, reason })?;
            }
            Ok(())
        })
    }

    /// The bytes of what a round was averaged to.
    fn candidate(&self, round: &Round) -> Result<Vec<u8>> {
        let damaged =
            || Damaged { what: format!("candidate of round {}", round.id), reason: "gone".into() };
        Ok(self.store.candidate(round.id)?.ok_or_else(damaged)?)
    }

    /// A whole head from the bytes of its trainable numbers.
    fn whole(&self, bytes: &[u8]) -> Vec<f32> {
        let mut flat = self.shipped.clone();
        self.layout.scatter(Subset::Full, &parameters_of(bytes), &mut flat);
        flat
    }

    fn publish_candidate(&self, round: &Round) -> Result<()> {
        let bytes = self.candidate(round)?;
        let origin = format!("round {}", round.id);
        let rollout = Rollout::Running { stage: 0, since: self.now() };
        let mut model = self.new_model(&bytes, &origin, rollout, round.score_after);
        self.decide_in_phase(round, |decision| {
            // This very round may end here: whatever changed models meanwhile, none goes out on a base that is not in force.
            end_outdated(decision)?;
            if decision.live_round()?.is_none() {
                return Ok(());
            }
            put_next(decision, &mut model, &bytes)?;
            let version = model.version;
            decision.put_round(&Round { phase: Phase::Published { version }, ..round.clone() })?;
            decision.record(&Event::RoundPublished { round: round.id, version })?;
            decision.record(&self.published(&model))
        })
    }

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

    /// Where everything stands.
    pub fn status(&self) -> Result<Status> {
        let (mut enrolled, mut revoked) = (0, 0);
        self.store.each_device(|device| match device.standing {
            Standing::Enrolled => enrolled += 1,
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
            revoked,
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

fn is_published(model: &Model) -> bool {
    model.rollout != Rollout::Held
}

fn is_usable(model: &Model) -> bool {
    !matches!(model.rollout, Rollout::Stopped { .. })
}

/// Adds a model under the next number.
fn put_next(
    decision: &mut Decision<'_>,
    model: &mut Model,
    bytes: &[u8],
) -> Result<(), StoreError> {
    model.version = decision.next_version()?;
    decision.put_model(model)?;
    decision.put_parameters(model.version, bytes)?;
    decision.record(&added(model))
}

/// Ends every roll-out that is under way.
fn stop_running(decision: &mut Decision<'_>, reason: &str) -> Result<(), StoreError> {
    let running = |model: &Model| matches!(model.rollout, Rollout::Running { .. });
    for model in decision.models()?.into_iter().filter(running) {
        let (version, reason) = (model.version, reason.to_owned());
        let rollout = Rollout::Stopped { reason: reason.clone() };
        decision.put_model(&Model { rollout, ..model })?;
        decision.record(&Event::RolloutStopped { version, reason })?;
    }
    Ok(())
}

/// Ends a round without a result.
fn abort(decision: &mut Decision<'_>, round: &Round, reason: &str) -> Result<Round, StoreError> {
    let aborted = Round { phase: Phase::Aborted { reason: reason.to_owned() }, ..round.clone() };
    decision.put_round(&aborted)?;
    decision.record(&Event::RoundAborted { round: round.id, reason: reason.to_owned() })?;
    Ok(aborted)
}

/// Ends the round at hand where rounds start from another version by now: what its devices send moves a model that is not
/// in force, and publishing it would bring that model back.
fn end_outdated(decision: &mut Decision<'_>) -> Result<(), StoreError> {
    let Some(round) = decision.live_round()? else { return Ok(()) };
    let base = decision.models()?.into_iter().rev().find(is_usable);
    let started_from = round.task.base_version;
    if base.is_some_and(|base| base.version == started_from) {
        return Ok(());
    }
    let reason = format!("version {started_from}, from which it started, is no longer in force");
    abort(decision, &round, &reason).map(drop)
}

/// The model of this version, if its roll-out may begin. One that has begun would be taken back from all mirrors that the first
/// stage does not reach.
fn may_roll_out(models: &[Model], version: u64) -> Result<Model> {
    let known = models.iter().find(|model| model.version == version);
    let model = known.cloned().ok_or(EngineError::NoModel(version))?;
    let announced = models.iter().rfind(|model| is_published(model));
    match announced.filter(|newest| newest.version > version) {
        Some(newest) => Err(EngineError::Superseded { version, newer: newest.version }),
        None => match model.rollout {
            Rollout::Held | Rollout::Stopped { .. } => Ok(model),
            Rollout::Running { .. } => Err(EngineError::UnderWay(version)),
            Rollout::Complete => Err(EngineError::Everywhere(version)),
        },
    }
}

fn added(model: &Model) -> Event {
    Event::ModelAdded {
        version: model.version,
        parameters: model.parameters.clone(),
        origin: model.origin.clone(),
    }
}
