//! `/parse` behind the page: a thread with a network of its own, so that single pictures leave the camera's alone.
//!
//! The network is loaded by the first picture and dropped after a while without any: it takes memory. So do pictures that are handed
//! in, and there is room for few of them.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::body::Bytes;
use frame::{Frame, FrameBuffer, Orientation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use vision::{Parser, StageTimings};

use crate::learning::Learning;
use crate::model::{self, ModelSource};
use crate::parsed::Parsed;
use crate::pictures;
use crate::report;
use crate::shared::{Shared, lock};

/// Large requests at once; more are refused. Each takes up to 24 MiB or, while it comes, twice as much.
const MOST: usize = 2;
/// The network is kept this long after the last picture.
const KEPT: Duration = Duration::from_secs(60);
/// Longest wait before looking whether to stop.
const PATIENCE: Duration = Duration::from_millis(200);
/// Larger pictures are refused before they are decoded: 24 megapixels are 72 MB.
pub const MOST_PIXELS: u64 = 24_000_000;

/// Why a picture was not parsed.
#[derive(Debug)]
pub enum Refused {
    /// The picture cannot be used.
    Picture(String),
    /// Others are under way.
    Busy,
    /// The network cannot be used.
    Network(String),
}

/// A parsed picture and how long it took.
pub type Answer = Result<(Parsed, StageTimings), Refused>;

/// Memory for one large request, until the last copy is dropped.
#[derive(Clone)]
pub struct Room {
    _permit: Arc<OwnedSemaphorePermit>,
}

struct Job {
    file: Bytes,
    reply: oneshot::Sender<Answer>,
    /// Kept also where whoever asked has gone away.
    _room: Room,
}

/// Where pictures are handed in.
#[derive(Clone)]
pub struct Desk {
    jobs: SyncSender<Job>,
    room: Arc<Semaphore>,
}

impl Desk {
    /// Room for a large request, to be taken before its body is read.
    ///
    /// # Errors
    /// A busy mirror.
    pub fn room(&self) -> Result<Room, Refused> {
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| Refused::Busy)?;
        Ok(Room { _permit: Arc::new(permit) })
    }

    /// Parses a JPEG or PNG file.
    ///
    /// # Errors
    /// A picture that cannot be used, a busy mirror, a network that cannot be used.
    pub async fn parse(&self, file: Bytes, room: Room) -> Answer {
        let (reply, answer) = oneshot::channel();
        match self.jobs.try_send(Job { file, reply, _room: room }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(stopped())),
            Err(TrySendError::Full(_)) => Err(Refused::Busy),
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
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
}

/// A desk and the worker behind it.
pub fn open(shared: Arc<Shared>, learning: Arc<Learning>, model: ModelSource) -> (Desk, Worker) {
    let (sender, receiver) = sync_channel(MOST);
    let (model, jobs) = (model.without_smoothing(), Mutex::new(receiver));
    let desk = Desk { jobs: sender, room: Arc::new(Semaphore::new(MOST)) };
    (desk, Worker { shared, learning, model, jobs })
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
                    let _ = job.reply.send(answer);
                }
                Err(RecvTimeoutError::Timeout) => {
                    loaded = loaded.filter(|loaded: &Loaded| loaded.used.elapsed() < KEPT);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn answer(&self, slot: &mut Option<Loaded>, file: &[u8]) -> Answer {
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
                let model = self.model.clone().for_pictures(Some(size));
                let parser = model.parser(Orientation::default()).map_err(broken)?;
                slot.insert(Loaded { parser, head: 0, used: Instant::now() })
            }
        };
        self.follow_head(loaded).map_err(broken)?;
        loaded.used = Instant::now();
        let answer = parse(&mut loaded.parser, &picture.frame());
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
        let student = loaded.parser.student();
        let parameters = student.head_parameters().with_trainable(&home.head_trainable())?;
        let head = student.head_builder().build(&parameters)?;
        loaded.parser.swap_head(head)?;
        loaded.head = version;
        Ok(())
    }
}

fn parse(parser: &mut Parser, frame: &Frame<'_>) -> Answer {
    let parsing = parser.parse(frame).map_err(|error| Refused::Network(error.to_string()))?;
    let timings = parsing.timings;
    let parsed = Parsed::of(parser, frame, Orientation::default());
    Ok((parsed.map_err(|error| Refused::Picture(error.to_string()))?, timings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::Layers;

    #[test]
    fn nothing_of_an_answered_picture_stays_with_the_network() {
        let settings = Layers::defaults().and_then(Layers::finish).expect("valid").settings;
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let model = ModelSource::new(&settings.vision);
        let (_desk, worker) = open(shared, Arc::new(Learning::new()), model);
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
}
