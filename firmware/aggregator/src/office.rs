//! What all desks share: decisions, who is there, what came, and the numbers of what is said.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{error, warn};

use crate::carrier::{Health, Incoming, Outgoing};
use crate::engine::{Engine, EngineError, Status as EngineStatus};
use crate::presence::Presence;
use crate::refusal_kinds::StrangeKind;

/// Numbers of a block.
const BLOCK: u64 = 1 << 32;

/// Numbers for signed statements. Blocks of them are taken from the database, so that no restart and no clock can
/// make one come twice; they follow the time, so that no restore from a backup does either.
pub struct Sequence(AtomicU64);

impl Sequence {
    /// A block that outlasts any run of the program.
    pub fn take(engine: &Engine) -> Result<Sequence, EngineError> {
        Ok(Sequence(AtomicU64::new(engine.take_sequence(BLOCK, 0)?)))
    }

    /// Goes on in a block above this number.
    fn go_on_above(&self, engine: &Engine, number: u64) -> Result<(), EngineError> {
        self.0.fetch_max(engine.take_sequence(BLOCK, number)?, Ordering::SeqCst);
        Ok(())
    }

    /// Whether a number is one that was not given here, nor before.
    pub(crate) fn is_beyond(&self, number: u64) -> bool {
        number >= self.0.load(Ordering::SeqCst)
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What all desks share.
pub struct Office {
    /// Decisions and database.
    pub engine: Engine,
    /// Numbers for statements.
    pub sequence: Sequence,
    /// Messages that were not understood, or not from whom they claimed.
    pub strange: Strange,
    /// Who is connected.
    pub presence: Presence,
    /// Receipts that were sent.
    pub receipts: AtomicU64,
    /// Statements of another server that has this one's key.
    pub rival_statements: AtomicU64,
    /// Whether what is announced has to be signed anew, with higher numbers.
    pub is_outdated: AtomicBool,
    /// What the broker has brought back of what is announced.
    pub echoes: Echoes,
    /// Why the last look at what is due failed, if it did.
    pub decisions_failing: Mutex<Option<String>>,
    /// Why the last judgement failed, if it did.
    pub judgement_failing: Mutex<Option<String>>,
    /// When this server's certificate ends, seconds since 1970; `None` without one.
    pub certificate_end: Option<u64>,
    /// How the workers' connections do; the first one hears who is there and says what is announced. None in memory.
    pub health: Vec<Arc<Health>>,
}

impl Office {
    /// Nothing has come in yet, and none of `workers` connections is up.
    ///
    /// # Errors
    /// Of the database.
    pub fn open(engine: Engine, workers: u16) -> Result<Office, EngineError> {
        Ok(Office {
            sequence: Sequence::take(&engine)?,
            engine,
            strange: Strange::default(),
            presence: Presence::default(),
            receipts: AtomicU64::default(),
            rival_statements: AtomicU64::default(),
            is_outdated: AtomicBool::default(),
            echoes: Echoes::default(),
            decisions_failing: Mutex::default(),
            judgement_failing: Mutex::default(),
            certificate_end: None,
            health: (0..workers).map(|_| Arc::default()).collect(),
        })
    }

    /// Whether devices can be heard and can hear what is announced.
    pub fn is_connected(&self) -> bool {
        self.health.first().is_none_or(|health| health.connected.load(Ordering::SeqCst))
    }

    /// Notes a statement that was signed with this server's key under a number that it has not given yet. Mirrors take nothing
    /// older than what they have heard, so it must not be the newest.
    ///
    /// One that the broker had kept when this server began is from before a restore, by a clock that was ahead: numbers go on
    /// above it. Any other is of a server that runs at the same time, and going above it would only be answered in kind.
    pub(crate) fn overtaken(&self, number: u64, retained: bool) -> Result<(), EngineError> {
        let connections = |health: &Arc<Health>| health.connections.load(Ordering::SeqCst);
        if retained && self.health.first().is_none_or(|first| connections(first) <= 1) {
            warn!(
                "the broker has a newer statement of this fleet's than this server; numbers go on above it"
            );
            self.sequence.go_on_above(&self.engine, number)?;
            self.is_outdated.store(true, Ordering::SeqCst);
        } else if self.rival_statements.fetch_add(1, Ordering::SeqCst) == 0 {
            error!(
                "another server announces with this fleet's key; stop one of them, and start the other one anew"
            );
        }
        Ok(())
    }

    /// Who is connected, where that is known.
    pub fn known_presence(&self) -> Option<&Presence> {
        self.is_connected().then_some(&self.presence)
    }

    /// Where everything stands, with what only a running server knows.
    ///
    /// # Errors
    /// Of the database.
    pub fn status(&self) -> Result<EngineStatus, EngineError> {
        let up = |health: &&Arc<Health>| health.connected.load(Ordering::SeqCst);
        let refused = |health: &Arc<Health>| health.refused.load(Ordering::SeqCst);
        let refused_now = |health: &Arc<Health>| health.refused_now.load(Ordering::SeqCst);
        Ok(EngineStatus {
            workers: self.health.len() as u64,
            workers_connected: self.health.iter().filter(up).count() as u64,
            broker_refused: self.health.iter().map(refused).sum(),
            broker_refused_now: self.health.iter().map(refused_now).sum(),
            rival_statements: self.rival_statements.load(Ordering::SeqCst),
            decisions_failing: self.failure(),
            certificate_end: self.certificate_end,
            ..self.engine.status_with(self.known_presence())?
        })
    }

    /// Why decisions fail, or judgements, or both.
    fn failure(&self) -> Option<String> {
        let read = |failing: &Mutex<Option<String>>| {
            failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        let judgement = read(&self.judgement_failing)
            .map(|why| format!("the gate cannot judge the candidate: {why}"));
        let failures: Vec<_> =
            [read(&self.decisions_failing), judgement].into_iter().flatten().collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }
}

/// The newest statement of this server's that came back on each topic: the broker has taken it.
#[derive(Default)]
pub struct Echoes(Mutex<BTreeMap<String, Vec<u8>>>);

impl Echoes {
    fn newest(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, statement: &Incoming) {
        self.newest().insert(statement.topic.clone(), statement.payload.clone());
    }

    /// Whether the newest on its topic is this one.
    pub(crate) fn has(&self, statement: &Outgoing) -> bool {
        self.newest().get(&statement.topic.to_string()) == Some(&statement.payload)
    }
}

/// Messages by what was wrong with them.
#[derive(Default)]
pub struct Strange(Mutex<BTreeMap<StrangeKind, u64>>);

impl Strange {
    /// One more of a kind.
    pub fn add(&self, kind: StrangeKind) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// How many of each kind.
    pub fn counts(&self) -> BTreeMap<StrangeKind, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many of all kinds.
    pub fn total(&self) -> u64 {
        self.counts().values().sum()
    }
}
