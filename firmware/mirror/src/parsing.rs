//! `/parse` behind the page: a thread with a network of its own, so that single pictures leave the camera's alone.
//!
//! The network is loaded by the first picture and dropped after a while without any: it takes memory.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use frame::{Frame, FrameBuffer, Orientation};
use tokio::sync::oneshot;
use vision::{Parser, StageTimings};

use crate::learning::Learning;
use crate::model::{self, ModelSource};
use crate::parsed::Parsed;
use crate::pictures;
use crate::report;
use crate::shared::{Shared, lock};

/// Pictures that may wait; more are refused at once.
const WAITING: usize = 2;
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
    /// Others are being parsed.
    Busy,
    /// The network cannot be used.
    Network(String),
}

/// A parsed picture and how long it took.
pub type Answer = Result<(Parsed, StageTimings), Refused>;

struct Job {
    file: Vec<u8>,
    reply: oneshot::Sender<Answer>,
}

/// Where pictures are handed in.
#[derive(Clone)]
pub struct Desk(SyncSender<Job>);

impl Desk {
    /// Parses a JPEG or PNG file.
    ///
    /// # Errors
    /// A picture that cannot be used, a busy mirror, a network that cannot be used.
    pub async fn parse(&self, file: Vec<u8>) -> Answer {
        let (reply, answer) = oneshot::channel();
        match self.0.try_send(Job { file, reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(Refused::Network("it stopped".into()))),
            Err(TrySendError::Full(_)) => Err(Refused::Busy),
            Err(TrySendError::Disconnected(_)) => Err(Refused::Network("it has ended".into())),
        }
    }
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
    let (sender, receiver) = sync_channel(WAITING);
    let (model, jobs) = (model.without_smoothing(), Mutex::new(receiver));
    (Desk(sender), Worker { shared, learning, model, jobs })
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
