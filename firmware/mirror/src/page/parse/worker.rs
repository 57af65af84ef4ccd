//! What `/parse` waits for: a thread with a network of its own, so that single pictures leave the camera's alone.
//!
//! The network is loaded by the first picture and dropped after a while without any: it takes memory, as does the one that training has
//! for itself, and the two are never there together (what a trial of a fleet's model loads for a minute, a few times a year, is beside them). So do pictures that are handed in: there is room for few files, and for one picture.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::body::Bytes;
use frame::{FrameBuffer, Orientation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use vision::{Parser, StageTimings};

use crate::learning::{Held, Learning};
use crate::model::{self, ModelSource};
use crate::parsed::Parsed;
use crate::pictures;
use crate::report;
use crate::shared::{Shared, lock};

/// Large requests at once; more are refused. Each takes as much as its route allows or, while it comes, twice as much.
const MOST: usize = 2;
/// The network is kept this long after the last picture.
const KEPT: Duration = Duration::from_secs(60);
/// Longest wait before looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(200);
/// Larger pictures are refused before they are decoded: 2048 x 1536 pixels take 9 MiB, twice that while they are turned, and three times where
/// they are stored progressively. The network sees 192 x 256 of them.
pub const MOST_PIXELS: u64 = 2048 * 1536;

/// Why a picture was not parsed.
#[derive(Debug)]
pub enum Refused {
    /// The picture cannot be used.
    Picture(String),
    /// Others are under way.
    Busy,
    /// Training has the memory for a second network.
    Learning,
    /// The network cannot be used.
    Network(String),
}

/// A parsed picture and how long it took.
pub type Answer = Result<(Parsed, StageTimings), Refused>;

/// Memory for one picture with what is computed from it: the next one is decoded when it is dropped.
pub struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// Memory for one large request, until the last copy is dropped.
#[derive(Clone)]
pub struct Room {
    _permit: Arc<OwnedSemaphorePermit>,
}

struct Job {
    file: Bytes,
    reply: oneshot::Sender<(Answer, Turn)>,
    turn: Turn,
    /// Kept also where whoever asked has gone away.
    _room: Room,
}

/// Where pictures are handed in.
#[derive(Clone)]
pub struct Queue {
    jobs: SyncSender<Job>,
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Queue {
    /// Room for a large request, to be taken before its body is read.
    ///
    /// # Errors
    /// A busy mirror.
    pub fn room(&self) -> Result<Room, Refused> {
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| Refused::Busy)?;
        Ok(Room { _permit: Arc::new(permit) })
    }

    /// Parses a JPEG or PNG file, after the ones before it. What is computed from the picture is to be dropped before the turn is.
    ///
    /// # Errors
    /// A picture that cannot be used, a busy mirror, training that has the memory, a network that cannot be used.
    pub async fn parse(
        &self,
        file: Bytes,
        room: Room,
    ) -> Result<(Parsed, StageTimings, Turn), Refused> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        let job = Job { file, reply, turn: Turn { _permit: permit }, _room: room };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Refused::Busy),
            Err(TrySendError::Disconnected(_)) => return Err(stopped()),
        }
        let (answer, turn) = answer.await.map_err(|_| stopped())?;
        answer.map(|(parsed, timings)| (parsed, timings, turn))
    }
}

fn stopped() -> Refused {
    Refused::Network(
        "the part that parses single pictures has stopped; try again in a moment".into(),
    )
}

/// The part that parses them.
pub struct Worker {
    shared: Arc<Shared>,
    learning: Arc<Learning>,
    model: ModelSource,
    jobs: Mutex<Receiver<Job>>,
}

struct Loaded {
    parser: Parser,
    head: u64,
    used: Instant,
    // After the network: until then its memory is taken.
    _held: Held,
}

/// A queue and the worker behind it.
pub fn open(shared: Arc<Shared>, learning: Arc<Learning>, model: ModelSource) -> (Queue, Worker) {
    let (sender, receiver) = sync_channel(MOST);
    let (model, jobs) = (model.without_smoothing(), Mutex::new(receiver));
    let (room, turns) = (Arc::new(Semaphore::new(MOST)), Arc::new(Semaphore::new(1)));
    let queue = Queue { jobs: sender, room, turns };
    (queue, Worker { shared, learning, model, jobs })
}

impl Worker {
    /// Runs until the mirror stops.
    ///
    /// # Errors
    /// None at present; a picture or a network that fails is answered so.
    pub fn run(&self) -> Result<()> {
        let jobs = lock(&self.jobs);
        let mut loaded = None;
        while !self.shared.is_stopping() {
            match jobs.recv_timeout(PATIENCE) {
                Ok(job) => {
                    let answer = self.answer(&mut loaded, &job.file);
                    // Whoever asked may have gone away.
                    let _ = job.reply.send((answer, job.turn));
                }
                Err(RecvTimeoutError::Timeout) => {
                    let is_kept = |loaded: &Loaded| loaded.used.elapsed() < KEPT;
                    loaded = loaded.filter(|loaded| {
                        is_kept(loaded) && !self.learning.second_network.is_wanted()
                    });
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn answer(&self, slot: &mut Option<Loaded>, file: &[u8]) -> Answer {
        if self.learning.second_network.is_wanted() {
            *slot = None;
            return Err(Refused::Learning);
        }
        // Before the picture, which takes memory as well.
        let held = match slot {
            Some(_) => None,
            None => Some(self.learning.second_network.for_pictures().ok_or(Refused::Learning)?),
        };
        let refused = |error: anyhow::Error| Refused::Picture(report::describe(&error));
        let mut picture = FrameBuffer::new();
        // The picture first: nonsense does not load a network.
        pictures::decode_upright(file, MOST_PIXELS, &mut picture).map_err(refused)?;
        let broken = |error: anyhow::Error| Refused::Network(report::describe(&error));
        let size = (picture.frame().layout().width(), picture.frame().layout().height());
        // One network at a time: pictures of another shape replace it.
        let fitting = slot.take().filter(|loaded| model::fits(&loaded.parser, size));
        let loaded = match fitting {
            Some(loaded) => slot.insert(loaded),
            None => {
                let held = held.or_else(|| self.learning.second_network.for_pictures());
                let held = held.ok_or(Refused::Learning)?;
                let model = self.model.clone().for_pictures(Some(size));
                let parser = model.parser(Orientation::default()).map_err(broken)?;
                slot.insert(Loaded { parser, head: 0, used: Instant::now(), _held: held })
            }
        };
        self.follow_head(loaded).map_err(broken)?;
        loaded.used = Instant::now();
        let answer = parse(&mut loaded.parser, picture, size);
        // Nothing of it stays in the parser, whatever became of it.
        loaded.parser.forget();
        answer
    }

    /// Uses the household's head, as the camera's pictures do.
    fn follow_head(&self, loaded: &mut Loaded) -> Result<()> {
        let Some(home) = self.learning.home() else { return Ok(()) };
        let version = home.head_version();
        if version == loaded.head {
            return Ok(());
        }
        loaded.parser.use_trainable(&home.head_trainable())?;
        loaded.head = version;
        Ok(())
    }
}

fn parse(parser: &mut Parser, picture: FrameBuffer, size: (u32, u32)) -> Answer {
    let parsing = parser.parse(&picture.frame());
    let timings = parsing.map_err(|error| Refused::Network(error.to_string()))?.timings;
    Ok((Parsed::of_rgb(parser, size, picture.into_bytes()), timings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::settings;

    #[test]
    fn nothing_of_an_answered_picture_stays_with_the_network() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let model = ModelSource::new(&settings().vision);
        let (_queue, worker) = open(shared, Arc::new(Learning::new()), model);
        let demo = crate::sources::DEMO;
        let first = camera::mjpeg::next_picture(demo).expect("a clip");
        let mut loaded = None;
        let (parsed, _) = worker.answer(&mut loaded, &demo[first]).expect("a picture");
        assert!(parsed.pixels.iter().any(|&byte| byte != 0) && !parsed.persons.is_empty());
        let parser = loaded.expect("kept for the next picture").parser;
        assert!(parser.pixels().iter().all(|&byte| byte == 0));
        assert!(parser.parsing().persons.is_empty());
        assert!(parser.parsing().parts.iter().all(|&part| part == 0));
    }

    #[test]
    fn while_training_has_a_network_there_is_no_second_one() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let (model, learning) = (ModelSource::new(&settings().vision), Arc::new(Learning::new()));
        let (_queue, worker) = open(shared, Arc::clone(&learning), model);
        let demo = crate::sources::DEMO;
        let picture = &demo[camera::mjpeg::next_picture(demo).expect("a clip")];
        let mut loaded = None;
        assert!(worker.answer(&mut loaded, picture).is_ok() && loaded.is_some());
        let second = Arc::clone(&learning.second_network);
        let training = std::thread::spawn(move || second.for_training());
        while !learning.second_network.is_wanted() {
            std::thread::yield_now();
        }
        let refused = |answer: Answer| matches!(answer, Err(Refused::Learning));
        assert!(refused(worker.answer(&mut loaded, picture)), "training waits");
        let training = training.join().expect("it has what the picture's network gave back");
        assert!(loaded.is_none() && refused(worker.answer(&mut loaded, picture)));
        assert!(refused(worker.answer(&mut loaded, b"nonsense")), "before it is decoded");
        drop(training);
        assert!(worker.answer(&mut loaded, picture).is_ok());
    }
}
