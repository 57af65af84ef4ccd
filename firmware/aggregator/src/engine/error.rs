//! Why the engine refused, and what to do next.

use learn::averaging::AveragingError;
use learn::edges::Digest;
use learn::privacy::sampler::SigmaError;
use learn::privacy::{AccountantError, NoiseMultiplierError};

use crate::gate::GateError;
use crate::records::Damaged;
use crate::signal::NoSignal;
use crate::store::StoreError;

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
    #[error(
        "rollout.stages was changed while version {version} is on its way: it was announced to {said} of a thousand devices, \
         beside any groups, and by this list it would go to {now} at once. Put the list back until `model list` says \"everywhere\", or \
         go back first with `model rollback`"
    )]
    StagesChanged { version: u64, said: u16, now: u16 },
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
    #[error(
        "`channel` is {found}, and this fleet began in the channel {known}, in which its mirrors listen; put {known} back, or give \
         {found} a `data` folder of its own and `aggregator init`"
    )]
    OtherChannel { known: String, found: String },
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
    #[error(
        "{0:?} is no group; use 1 to 64 of a-z, 0-9 and '-', beginning with a letter or digit, such as pilot"
    )]
    Group(String),
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
