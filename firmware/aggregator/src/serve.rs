//! The server: workers that count, one loop that decides and announces, and one that judges.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{error, info, warn};

use crate::announce::Announcer;
use crate::carrier::{Health, Outgoing};
use crate::certificate;
use crate::config::BrokerConfig;
use crate::desk::Desk;
use crate::engine::{Engine, EngineError, RoundStatus};
use crate::keys::client_tag;
use crate::mqtt::{Mqtt, MqttError};
use crate::office::Office;
use crate::records::Phase;

/// How often decisions are looked at.
const TICK: Duration = Duration::from_millis(200);

/// Pause of a worker whose database failed.
const PAUSE: Duration = Duration::from_secs(1);

/// After the broker has refused a message for a reason that may pass, what it has not taken of what is announced is said again. Mirrors
/// that hear of an open round and not of its end would spend budget on it.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Why the server did not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ServeError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    #[error("cannot start a thread: {0}; free memory, or raise the limit of threads")]
    Thread(#[from] std::io::Error),
    #[error(
        "after an I/O error the database {0} takes nothing until it is opened again; free space or look at the disk, then \
         start the server again"
    )]
    Lost(PathBuf),
    #[error(
        "the thread {0} has ended, which it never should; the log says why. Start the server again"
    )]
    Ended(String),
}

/// A running server.
pub struct Server {
    /// What its parts share.
    pub office: Arc<Office>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Threads that nobody waits for: the connections', which end with their workers, and those of [`Server::watch`].
    others: Vec<JoinHandle<()>>,
}

impl Server {
    /// Connects the workers and starts to decide.
    pub fn start(engine: Engine, broker: &BrokerConfig) -> Result<Server, ServeError> {
        let (channel, tag) = (engine.channel().as_str().to_owned(), client_tag(engine.key()));
        let office = Arc::new(Office {
            certificate_end: certificate_end(broker)?,
            ..Office::open(engine, broker.workers)?
        });
        let stop: Arc<AtomicBool> = Arc::default();
        let (mut threads, mut others, mut announce) = (Vec::new(), Vec::new(), None);
        for (number, health) in (0..).zip(&office.health) {
            let hall = Arc::clone(&office);
            // The first one hears who is there.
            let connected = move || {
                if number == 0 {
                    hall.presence.clear();
                }
            };
            let (carrier, thread) =
                Mqtt::start(broker, (&channel, &tag), number, health, connected)?;
            others.push(thread);
            announce.get_or_insert_with(|| (carrier.sender(), Arc::clone(health)));
            let (office, stop) = (Arc::clone(&office), Arc::clone(&stop));
            let name = format!("worker-{number}");
            let work = move || keep_working(&office, number, carrier, &stop);
            threads.push(std::thread::Builder::new().name(name).spawn(work)?);
        }
        if let Some((sender, first)) = announce {
            let (office, stop) = (Arc::clone(&office), Arc::clone(&stop));
            let decide = move || decide(&office, &sender, &first, &stop);
            threads.push(std::thread::Builder::new().name("decisions".into()).spawn(decide)?);
        }
        let (hall, halt) = (Arc::clone(&office), Arc::clone(&stop));
        let judge = move || judge(&hall, &halt);
        threads.push(std::thread::Builder::new().name("judgements".into()).spawn(judge)?);
        Ok(Server { office, stop, threads, others })
    }

    /// Ends the server with an error when this thread ends, too.
    pub fn watch(&mut self, thread: JoinHandle<()>) {
        self.others.push(thread);
    }

    /// Waits until `stop` is set.
    ///
    /// # Errors
    /// [`ServeError::Lost`] once the database takes nothing any more: only another start opens it
    /// again. [`ServeError::Ended`] once a thread is gone: without it the server would go on and do
    /// only part of its work.
    pub fn wait(&self, stop: &AtomicBool) -> Result<(), ServeError> {
        let store = self.office.engine.store();
        while !stop.load(Ordering::SeqCst) {
            if store.is_lost() {
                return Err(ServeError::Lost(store.path().to_owned()));
            }
            if let Some(name) = self.ended() {
                return Err(ServeError::Ended(name));
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// The name of a thread that is gone, although nobody has stopped it.
    fn ended(&self) -> Option<String> {
        let mut all = self.threads.iter().chain(&self.others);
        let ended = all.find(|thread| thread.is_finished())?;
        Some(ended.thread().name().unwrap_or_default().to_owned())
    }

    /// Stops after the batches and the judgement at hand.
    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            if thread.join().is_err() {
                error!("a thread had panicked");
            }
        }
    }
}

/// When this server's own certificate ends, where the broker asks for one.
fn certificate_end(broker: &BrokerConfig) -> Result<Option<u64>, MqttError> {
    let Some(tls) = &broker.tls else { return Ok(None) };
    let path = &tls.certificate;
    let end = certificate::end(path);
    end.map(Some).map_err(|reason| MqttError::Tls { path: path.clone(), reason })
}

/// A worker's desk, and a new one whenever it fails: what it had acknowledged is in the database.
fn keep_working(office: &Arc<Office>, number: u16, mut carrier: Mqtt, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let mut desk = Desk::new(Arc::clone(office), number);
        let work = std::panic::AssertUnwindSafe(|| -> Result<(), EngineError> {
            while !stop.load(Ordering::SeqCst) {
                desk.serve(&mut carrier, TICK)?;
            }
            Ok(())
        });
        match std::panic::catch_unwind(work) {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => error!("worker {number}: {failure}; it starts again"),
            Err(_) => error!("worker {number} panicked; it starts again"),
        }
        std::thread::sleep(PAUSE);
    }
}

fn decide(office: &Office, sender: &Sender<Outgoing>, health: &Health, stop: &AtomicBool) {
    let mut announcer = Announcer::default();
    let mut waiting = Waiting::default();
    let mut repeats = Repeats::default();
    while !stop.load(Ordering::SeqCst) {
        let (changes, done) = step(office, &mut announcer);
        waiting.add(changes);
        match repeats.due(health, Instant::now()) {
            Some(Repeat::All) => waiting.add(announcer.again()),
            Some(Repeat::Unheard) => waiting.add(announcer.unheard(office)),
            None => {}
        }
        waiting.send(sender);
        pause_after(done, &office.decisions_failing);
    }
}

/// Judges whatever waits for it. Decisions and announcements go on meanwhile: a rollback must not wait for the gate.
fn judge(office: &Office, stop: &AtomicBool) {
    let engine = &office.engine;
    while !stop.load(Ordering::SeqCst) {
        let done = engine.judge().and_then(|has_moved| say_moved(engine, has_moved));
        pause_after(done, &office.judgement_failing);
    }
}

/// Waits for the next look, longer after a failure; says how it failed, once for each way in which it does, and keeps that in `failing`.
fn pause_after(done: Result<(), EngineError>, failing: &Mutex<Option<String>>) {
    let failure = done.err().map(|failure| failure.to_string());
    let pause = if failure.is_some() { PAUSE } else { TICK };
    let before = std::mem::replace(
        &mut *failing.lock().unwrap_or_else(PoisonError::into_inner),
        failure.clone(),
    );
    if let Some(text) = failure.filter(|text| before.as_ref() != Some(text)) {
        error!("{text}; trying again every second");
    }
    std::thread::sleep(pause);
}

/// Takes one step of what is due, and gives what is to be announced. Announcements do not wait for a decision that fails: mirrors must
/// hear that a round is over, and of a rollback, whatever becomes of a round.
pub fn step(
    office: &Office,
    announcer: &mut Announcer,
) -> (Vec<Outgoing>, Result<(), EngineError>) {
    // One look for both: a round's window is put off by the silence before it is announced.
    let heard = office.is_connected();
    let done = advance(office, heard);
    match announcer.changes(office, heard) {
        Ok(changes) => (changes, done),
        Err(failure) => (Vec::new(), done.and(Err(failure))),
    }
}

fn advance(office: &Office, heard: bool) -> Result<(), EngineError> {
    let engine = &office.engine;
    engine.advance(heard).and_then(|has_moved| say_moved(engine, has_moved))
}

/// Where a round moved, says where to.
fn say_moved(engine: &Engine, has_moved: bool) -> Result<(), EngineError> {
    if has_moved && let Some(round) = engine.store().newest_round()? {
        say_phase(&engine.round_status(round)?);
    }
    Ok(())
}

/// What of the signal was expected of all devices, and what is left of that in the updates that came.
fn say_phase(RoundStatus { round, tally, counted_cosine }: &RoundStatus) {
    let (id, phase) = (round.id, round.phase.name());
    match counted_cosine {
        Some(cosine) if round.phase == Phase::Closed => info!(
            "round {id} is {phase} with {} updates, expected cosine {cosine:.3}; of all devices it was {:.3}",
            tally.counted, round.expected_cosine
        ),
        _ => info!("round {id} is {phase}"),
    }
}

/// What is said once more of what is announced.
#[derive(Debug, PartialEq, Eq)]
enum Repeat {
    /// All: the broker may have restarted without its memory.
    All,
    /// What has not come back.
    Unheard,
}

/// What was looked at last on the first connection.
#[derive(Default)]
struct Repeats {
    connections: u64,
    put_off: u64,
    again_at: Option<Instant>,
}

impl Repeats {
    fn due(&mut self, health: &Health, now: Instant) -> Option<Repeat> {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let is_new = read(&health.connections) != self.connections;
        if read(&health.put_off) != self.put_off {
            self.again_at.get_or_insert(now + SAY_AGAIN);
        }
        (self.connections, self.put_off) = (read(&health.connections), read(&health.put_off));
        if is_new {
            return Some(Repeat::All);
        }
        self.again_at.take_if(|at| now >= *at).map(|_| Repeat::Unheard)
    }
}

/// Announcements that found no room to be sent in yet. Nothing waits for them: decisions go on while the broker is away.
#[derive(Default)]
struct Waiting(VecDeque<Outgoing>);

impl Waiting {
    /// A statement that the broker keeps takes the place of the one before it, so that few wait however long the broker is away.
    fn add(&mut self, messages: Vec<Outgoing>) {
        for message in messages {
            if message.retain {
                self.0.retain(|older| older.topic != message.topic);
            }
            self.0.push_back(message);
        }
    }

    fn send(&mut self, sender: &Sender<Outgoing>) {
        while let Some(message) = self.0.pop_front() {
            match sender.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => return self.0.push_front(message),
                Err(TrySendError::Closed(_)) => {
                    warn!(
                        "the first connection's thread is gone; announcements wait for a restart"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Topic;

    #[test]
    fn a_new_connection_is_told_all_and_after_a_refusal_that_may_pass_what_did_not_come_back() {
        let (health, mut repeats, start) = (Health::default(), Repeats::default(), Instant::now());
        let mut after = |seconds| repeats.due(&health, start + Duration::from_secs(seconds));
        assert_eq!(after(0), None);
        health.connections.fetch_add(1, Ordering::SeqCst);
        assert_eq!((after(1), after(2)), (Some(Repeat::All), None));
        health.put_off.fetch_add(3, Ordering::SeqCst);
        assert_eq!((after(10), after(19)), (None, None), "not at once");
        assert_eq!((after(20), after(100)), (Some(Repeat::Unheard), None), "once");
        health.put_off.fetch_add(1, Ordering::SeqCst);
        assert_eq!((after(101), after(111)), (None, Some(Repeat::Unheard)), "refused once more");
    }

    #[test]
    fn what_finds_no_room_waits_and_of_statements_only_the_newest() {
        let message = |topic: &Topic, byte, retain| Outgoing {
            topic: topic.clone(),
            payload: vec![byte],
            retain,
        };
        let round = Topic::Round("stable".parse().unwrap());
        let job = Topic::JobNotify("mirror-17".parse().unwrap());
        let mut waiting = Waiting::default();
        let (sender, mut queued) = tokio::sync::mpsc::channel(1);
        waiting.add(vec![message(&job, 1, false), message(&round, 2, true)]);
        waiting.send(&sender);
        waiting.add(vec![message(&job, 3, false), message(&round, 4, true)]);
        let mut sent = Vec::new();
        for _ in 0..4 {
            sent.extend(queued.try_recv().map(|message| message.payload[0]));
            waiting.send(&sender);
        }
        assert_eq!(sent, [1, 3, 4]);
    }
}
