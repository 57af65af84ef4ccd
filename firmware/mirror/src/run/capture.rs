//! The capture part: from the source to the mailbox, through every trouble a camera can have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use camera::mailbox::Mailbox;
use camera::{Delivery, Source, SourceError};
use tracing::info;

use crate::backoff::Backoff;
use crate::run::seldom::{Seldom, SeldomEach};
use crate::run::supervisor::STEADY;
use crate::run::taken::Taken;
use crate::shared::{CameraState, Shared, Topic, count};
use crate::sources::{Chosen, Decoder, Sources};
use crate::timings::Stage;

/// How often a broken picture may repeat before the source is opened anew.
const BROKEN_IN_A_ROW: u32 = 30;

/// How often to look for a camera while the demo scene stands in for it.
const CAMERA_CHECK: Duration = Duration::from_secs(2);

/// Longest wait for the next picture of a file, and until the network takes it, before looking whether to stop: some come seconds apart.
const FILE_PATIENCE: Duration = Duration::from_millis(100);

/// What the capture part needs to know.
pub struct Capture {
    /// The mirror's common state.
    pub shared: Arc<Shared>,
    /// Where pictures go.
    pub mailbox: Arc<Mailbox>,
    /// What to open, and how.
    pub sources: Sources,
}

/// Why a session with an open source ended.
enum End {
    /// The mirror is stopping, or the file has ended.
    Done,
    /// The camera was switched off, or one was plugged in that replaces the demo scene.
    Again,
    /// The source failed.
    Failed(SourceError),
}

/// Takes what is shown away when the part ends otherwise than by the mirror's end or the file's, also by a panic: nobody would renew it.
struct Leaves<'a>(&'a Shared);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        if self.0.is_stopping() || self.0.with_health(|health| health.camera != CameraState::On) {
            return;
        }
        self.0.update_health(|health| health.camera = CameraState::Starting);
        self.0.forget_pictures();
    }
}

/// Marks the sensor as open for as long as it lives.
struct SensorOpen<'a>(&'a Shared);

impl<'a> SensorOpen<'a> {
    fn new(shared: &'a Shared, is_live: bool) -> SensorOpen<'a> {
        shared.update_health(|health| health.sensor_open = is_live);
        // The badge is lit at once, not with the first picture.
        shared.wake_display();
        SensorOpen(shared)
    }
}

impl Drop for SensorOpen<'_> {
    fn drop(&mut self) {
        self.0.update_health(|health| health.sensor_open = false);
    }
}

/// What outlives a session: how long to wait before the next one, and what was told.
#[derive(Default)]
struct Attempts {
    backoff: Backoff,
    opened: SeldomEach,
    lost: SeldomEach,
    dropped: Seldom,
}

impl Attempts {
    /// What fails after this is new: it is told, and tried again at once.
    fn forgive(&mut self) {
        self.backoff.reset();
        self.opened = SeldomEach::default();
        self.lost = SeldomEach::default();
    }
}

impl Capture {
    /// Runs until the mirror stops or a file source ends.
    ///
    /// # Errors
    /// None at present; a source that fails is opened again.
    pub fn run(&self) -> Result<()> {
        self.run_with(|chosen| self.sources.open(chosen));
        Ok(())
    }

    fn run_with(&self, open: impl Fn(&Chosen) -> Result<Box<dyn Source>, SourceError>) {
        let _leaves = Leaves(&self.shared);
        let mut attempts = Attempts::default();
        let mut chosen = self.sources.choose(None);
        while !self.shared.is_stopping() {
            if !self.shared.camera_wanted() {
                self.wait_while_off();
                continue;
            }
            let next = self.sources.choose(Some(&chosen));
            if next != chosen {
                self.leave(&next);
            }
            chosen = next;
            let end = match open(&chosen) {
                Ok(source) => Session::new(self, source, &chosen, &mut attempts).run(),
                Err(error) => End::Failed(error),
            };
            match end {
                End::Done => return,
                End::Again => attempts.forgive(),
                End::Failed(error) => self.wait(self.lost(&chosen, &error, &mut attempts)),
            }
        }
    }

    /// Nothing of the source before stays on the screen while another one is opened.
    fn leave(&self, next: &Chosen) {
        self.shared.update_health(|health| {
            health.source.clear();
            health.stands_in = next.stands_in();
            health.notices.set(Topic::Source, next.notice());
            if health.camera == CameraState::On {
                health.camera = CameraState::Starting;
            }
        });
        self.shared.leave_source();
    }

    /// The camera is closed here: its own light is off, too.
    fn wait_while_off(&self) {
        if let Some(by) = self.shared.camera_switched_by() {
            info!("the camera is off (switched off {by})");
        }
        self.mailbox.forget();
        while !self.shared.camera_wanted() && !self.shared.sleep(Duration::from_millis(50)) {}
    }

    fn publish(&self, is_live: bool, buffer: Taken<'_>) {
        // A file has no picture to lose: wait until the network has taken the last one.
        while !is_live
            && !self.mailbox.wait_until_taken(FILE_PATIENCE)
            && !self.shared.is_stopping()
            && self.shared.camera_wanted()
        {}
        if self.shared.with_health(|health| health.camera != CameraState::On) {
            self.shared.update_health(|health| {
                if self.shared.camera_wanted() {
                    health.camera = CameraState::On;
                }
            });
        }
        count(&self.shared.counters.captured);
        buffer.publish();
        self.shared.counters.overtaken.store(self.mailbox.dropped(), Ordering::Relaxed);
    }

    /// A file was played: the network works its last picture off, then the display shows it.
    fn ended(&self) {
        let counters = &self.shared.counters;
        let behind = || {
            counters.taken.load(Ordering::Acquire) + self.mailbox.dropped()
                < counters.captured.load(Ordering::Relaxed)
        };
        while behind() && !self.shared.sleep(Duration::from_millis(5)) {}
        self.shared.update_health(|health| health.camera = CameraState::Ended);
    }

    /// Shows that the source is lost, and tells of it; gives when it is to be tried again.
    fn lost(&self, chosen: &Chosen, error: &SourceError, attempts: &mut Attempts) -> Instant {
        let delay = attempts.backoff.next_delay();
        attempts.lost.tell_lost(error, Some(delay));
        let (device, absent) = (chosen.name(), error.is_absence());
        let reason = without_name(&error.to_string(), &device).to_owned();
        let retry_at = Instant::now() + delay;
        self.shared.update_health(|health| {
            if self.shared.camera_wanted() {
                health.camera = CameraState::Lost { device, reason, absent, retry_at };
            }
        });
        self.shared.forget_pictures();
        retry_at
    }

    fn wait(&self, until: Instant) {
        while Instant::now() < until && self.shared.camera_wanted() {
            if self.shared.sleep(Duration::from_millis(50)) {
                return;
            }
        }
    }
}

/// One source from its opening to its closing.
struct Session<'a> {
    capture: &'a Capture,
    chosen: &'a Chosen,
    attempts: &'a mut Attempts,
    description: String,
    decoder: Decoder,
    /// Longest wait for a picture.
    patience: Duration,
    /// When the first picture came.
    began: Option<Instant>,
    /// Broken pictures in a row.
    broken: u32,
    /// When a camera was last looked for.
    looked: Instant,
    // Declared in this order: the source is closed first, then the badge goes.
    source: Box<dyn Source>,
    _sensor: SensorOpen<'a>,
}

impl<'a> Session<'a> {
    fn new(
        capture: &'a Capture,
        source: Box<dyn Source>,
        chosen: &'a Chosen,
        attempts: &'a mut Attempts,
    ) -> Session<'a> {
        let is_live = source.is_live();
        Session {
            _sensor: SensorOpen::new(&capture.shared, is_live),
            description: source.describe(),
            decoder: capture.sources.decoder(chosen),
            patience: if is_live { capture.sources.timeout } else { FILE_PATIENCE },
            began: None,
            broken: 0,
            looked: Instant::now(),
            capture,
            chosen,
            attempts,
            source,
        }
    }

    /// Takes pictures until there are no more, or no more are wanted.
    fn run(mut self) -> End {
        self.announce();
        loop {
            if let Some(end) = self.end_wanted() {
                return end;
            }
            let Some(buffer) = Taken::free(&self.capture.mailbox) else {
                // Not with one reader, which has one at most; with more, the next picture is soon enough.
                self.capture.shared.sleep(Duration::from_millis(1));
                continue;
            };
            if let Some(end) = self.take(buffer) {
                return end;
            }
        }
    }

    fn announce(&mut self) {
        self.attempts.opened.tell_opened("source", &self.description);
        self.capture.shared.update_health(|health| {
            health.source.clone_from(&self.description);
            (health.demo, health.stands_in) = (self.chosen.is_demo(), self.chosen.stands_in());
            health.notices.set(Topic::Source, self.chosen.notice());
        });
    }

    /// Why no further picture of this source is wanted, if none is.
    fn end_wanted(&mut self) -> Option<End> {
        if self.capture.shared.is_stopping() {
            return Some(End::Done);
        }
        if !self.capture.shared.camera_wanted() {
            return Some(End::Again);
        }
        if self.looked.elapsed() <= CAMERA_CHECK {
            return None;
        }
        self.looked = Instant::now();
        let chosen = self.capture.sources.choose(Some(self.chosen));
        (chosen != *self.chosen).then_some(End::Again)
    }

    /// The next picture, whole or broken, or why there will be no other.
    fn take(&mut self, mut buffer: Taken<'_>) -> Option<End> {
        let started = Instant::now();
        match self.decoder.next(self.source.as_mut(), &mut buffer, self.patience) {
            Ok(Delivery::Frame) => {
                self.capture.shared.timings.record(Stage::Capture, started.elapsed());
                self.capture.publish(self.source.is_live(), buffer);
                self.note_whole(Instant::now());
                None
            }
            Ok(Delivery::Later) => None,
            Ok(Delivery::End) => {
                drop(buffer);
                self.capture.ended();
                Some(End::Done)
            }
            Err(error) if error.is_frame_only() => self.note_broken(&error),
            Err(error) => Some(End::Failed(error)),
        }
    }

    fn note_whole(&mut self, now: Instant) {
        self.broken = 0;
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) > STEADY {
            self.attempts.forgive();
        }
    }

    fn note_broken(&mut self, error: &SourceError) -> Option<End> {
        // Opened anew, a file would begin once more; it has an end, whatever is in it.
        if self.broken >= BROKEN_IN_A_ROW && self.source.is_live() {
            return Some(End::Failed(hopeless(self.chosen.name(), error)));
        }
        self.broken += 1;
        count(&self.capture.shared.counters.broken);
        self.attempts.dropped.tell_dropped(&self.description, error);
        None
    }
}

/// A camera whose every picture is broken gives the same ones when it is opened anew.
fn hopeless(name: String, error: &SourceError) -> SourceError {
    let reason = format!(
        "every picture is broken ({error}); put another format first in camera.formats, or try another cable or port"
    );
    SourceError::Failed { name, reason }
}

/// The message without the source's name at its beginning, which is shown beside it anyway.
fn without_name<'t>(message: &'t str, name: &str) -> &'t str {
    let message = message.strip_prefix("cannot open ").unwrap_or(message);
    let rest = message.strip_prefix(name).unwrap_or(message);
    rest.strip_prefix(':').unwrap_or(rest).trim_start()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};
    use std::sync::Mutex;

    use frame::{FrameBuffer, Layout, PixelFormat};

    use super::*;
    use crate::run::{MAILBOX, counting};
    use crate::shared::{SwitchedBy, lock};
    use crate::testing::{Folder, settings};

    fn capture(source: &str) -> Capture {
        let mut settings = settings();
        settings.camera.source = source.into();
        settings.camera.device = "/dev/gone".into();
        let sources = Sources::new(&settings.camera).expect("a source");
        let shared = Arc::new(Shared::new(Instant::now(), None));
        Capture { shared, mailbox: Arc::new(Mailbox::new(MAILBOX)), sources }
    }

    /// Of the sensor below; the first of them find no memory of their size.
    const PICTURES: u32 = 40;

    /// A sensor that looks what the mirror says of it, and switches itself off after some pictures.
    struct Sensor {
        shared: Arc<Shared>,
        left: u32,
        /// Allocations of this thread at every picture.
        allocated: Arc<Mutex<Vec<u64>>>,
        /// Whether the badge was lit when it was closed.
        closed: Arc<Mutex<Option<bool>>>,
    }

    impl Sensor {
        fn new(shared: &Arc<Shared>) -> Sensor {
            let allocated = Arc::new(Mutex::new(Vec::with_capacity(PICTURES as usize)));
            Sensor { shared: Arc::clone(shared), left: PICTURES, allocated, closed: Arc::default() }
        }
    }

    impl Source for Sensor {
        fn next(&mut self, into: &mut FrameBuffer, _: Duration) -> Result<Delivery, SourceError> {
            lock(&self.allocated).push(counting::so_far());
            let open = self.shared.with_health(|health| health.sensor_open);
            assert!(open, "the badge is lit before the first picture");
            self.left -= 1;
            if self.left == 0 {
                self.shared.switch_camera(false, SwitchedBy::Page);
            }
            let layout = Layout::new(PixelFormat::Yuyv, 64, 48, 0).expect("small");
            into.fill_with(layout, |bytes| {
                bytes.fill(90);
                Ok::<(), SourceError>(())
            })?;
            Ok(Delivery::Frame)
        }

        fn describe(&self) -> String {
            "a sensor".into()
        }

        fn is_live(&self) -> bool {
            true
        }
    }

    impl Drop for Sensor {
        fn drop(&mut self) {
            let open = self.shared.with_health(|health| health.sensor_open);
            *lock(&self.closed) = Some(open);
        }
    }

    #[test]
    fn a_sensor_is_told_of_from_its_opening_to_its_closing() {
        let capture = capture("camera");
        let sensor = Sensor::new(&capture.shared);
        let (allocated, closed) = (Arc::clone(&sensor.allocated), Arc::clone(&sensor.closed));
        let chosen = capture.sources.choose(None);
        let mut attempts = Attempts::default();
        let end = Session::new(&capture, Box::new(sensor), &chosen, &mut attempts).run();
        assert!(matches!(end, End::Again), "switched off, it may be wanted again");
        assert_eq!(*lock(&closed), Some(true), "closed while the badge was lit");
        let health = capture.shared.health();
        assert!(!health.sensor_open && health.camera == CameraState::Off { by: SwitchedBy::Page });
        let counts = lock(&allocated);
        assert_eq!(counts.len(), PICTURES as usize);
        assert!(counts[0] < counts[8], "the counter counts");
        assert_eq!(counts[8], counts[39], "once every buffer has its size nothing is allocated");
    }

    /// Gives what was written down for it, in this order, and then a time-out.
    struct Scripted(VecDeque<Result<Delivery, SourceError>>);

    impl Scripted {
        fn boxed(script: impl IntoIterator<Item = Result<Delivery, SourceError>>) -> Box<Scripted> {
            Box::new(Scripted(script.into_iter().collect()))
        }
    }

    impl Source for Scripted {
        fn next(&mut self, into: &mut FrameBuffer, _: Duration) -> Result<Delivery, SourceError> {
            let layout = Layout::new(PixelFormat::Yuyv, 64, 48, 0).expect("small");
            into.fill_with(layout, |_| Ok::<(), SourceError>(()))?;
            self.0.pop_front().unwrap_or_else(|| Err(timed_out()))
        }

        fn describe(&self) -> String {
            "/dev/gone (scripted)".into()
        }

        fn is_live(&self) -> bool {
            true
        }
    }

    fn timed_out() -> SourceError {
        SourceError::TimedOut { name: "/dev/gone".into(), waited: Duration::from_secs(5) }
    }

    fn failed(reason: &str) -> SourceError {
        SourceError::Failed { name: "/dev/gone".into(), reason: reason.into() }
    }

    /// Counts what the journal is told, by level.
    #[derive(Clone, Default)]
    struct Journal(Arc<Mutex<HashMap<tracing::Level, usize>>>);

    impl tracing::Subscriber for Journal {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            *lock(&self.0).entry(*event.metadata().level()).or_default() += 1;
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_camera_that_fails_after_every_first_picture_is_opened_ever_later_and_told_of_seldom() {
        let (capture, journal) = (capture("camera"), Journal::default());
        let chosen = capture.sources.choose(None);
        let mut attempts = Attempts::default();
        let mut delays = Vec::new();
        tracing::subscriber::with_default(journal.clone(), || {
            for round in 0..100 {
                let error = if round % 2 == 0 { failed("broken pipe") } else { timed_out() };
                let source = Scripted::boxed([Ok(Delivery::Frame), Err(error)]);
                let end = Session::new(&capture, source, &chosen, &mut attempts).run();
                let End::Failed(error) = end else { panic!("it failed") };
                let lost = Instant::now();
                let retry_at = capture.lost(&chosen, &error, &mut attempts);
                delays.push(retry_at.saturating_duration_since(lost).as_secs_f32());
            }
        });
        let told = lock(&journal.0);
        let count = |level: tracing::Level| told.get(&level).copied().unwrap_or_default();
        assert_eq!(count(tracing::Level::INFO), 1, "opened");
        assert_eq!(count(tracing::Level::WARN), 2, "lost, for one reason and for another");
        assert!(delays[0] >= 0.25 && delays[50..].iter().all(|delay| *delay >= 10.0), "{delays:?}");
    }

    #[test]
    fn what_fails_after_a_minute_of_pictures_is_told_and_tried_again_at_once() {
        let capture = capture("camera");
        let chosen = capture.sources.choose(None);
        let mut attempts = Attempts::default();
        for _ in 0..9 {
            capture.lost(&chosen, &timed_out(), &mut attempts);
        }
        let mut session = Session::new(&capture, Scripted::boxed([]), &chosen, &mut attempts);
        let start = Instant::now();
        session.note_whole(start);
        session.note_whole(start + STEADY);
        assert!(!session.attempts.lost.is_new(), "not yet");
        session.note_whole(start + STEADY + Duration::from_millis(1));
        drop(session);
        assert!(attempts.lost.is_new());
        assert_eq!(attempts.backoff.next_delay(), Duration::from_millis(250));
    }

    #[test]
    fn every_way_to_fail_is_shown_with_its_reason() {
        let broken = || SourceError::picture("/dev/gone", "no end");
        let more = BROKEN_IN_A_ROW as usize + 1;
        let format = SourceError::Format {
            name: "/dev/gone".into(),
            wanted: "YUYV 640 x 480".into(),
            given: "UYVY 640 x 480".into(),
            next: "set camera.formats".into(),
        };
        let cases = [
            (vec![Err(timed_out())], "gave no picture for 5.0 s; check its cable", true),
            (vec![Err(failed("no bandwidth"))], "failed: no bandwidth", false),
            (vec![Err(format)], "gives UYVY 640 x 480; set camera.formats", false),
            ((0..more).map(|_| Err(broken())).collect(), "another cable or port", false),
        ];
        for (script, says, is_absent) in cases {
            let capture = capture("camera");
            let chosen = capture.sources.choose(None);
            let mut attempts = Attempts::default();
            let script = [Ok(Delivery::Frame)].into_iter().chain(script);
            let end = Session::new(&capture, Scripted::boxed(script), &chosen, &mut attempts).run();
            assert!(capture.shared.with_health(|health| health.camera == CameraState::On));
            let End::Failed(error) = end else { panic!("{says}: it goes on") };
            capture.lost(&chosen, &error, &mut attempts);
            let CameraState::Lost { device, reason, absent, .. } = capture.shared.health().camera
            else {
                panic!("{says}: not lost")
            };
            assert_eq!((device.as_str(), absent), ("/dev/gone", is_absent), "{reason}");
            assert!(reason.contains(says), "{reason}");
        }
    }

    #[test]
    fn a_whole_picture_in_between_keeps_a_camera_that_breaks_others() {
        let capture = capture("camera");
        let chosen = capture.sources.choose(None);
        let mut attempts = Attempts::default();
        let broken = |_| Err(SourceError::picture("/dev/gone", "no end"));
        let some = || (0..BROKEN_IN_A_ROW).map(broken);
        let script = some().chain([Ok(Delivery::Frame)]).chain(some());
        let end = Session::new(&capture, Scripted::boxed(script), &chosen, &mut attempts).run();
        assert!(
            matches!(end, End::Failed(SourceError::TimedOut { .. })),
            "by the end of the script"
        );
        let broken = capture.shared.counters.broken.load(Ordering::Relaxed);
        assert_eq!(broken, u64::from(2 * BROKEN_IN_A_ROW));
    }

    #[test]
    fn no_picture_waits_for_the_network_while_the_camera_is_off() {
        let capture = capture("camera");
        let buffer = Taken::free(&capture.mailbox).expect("free memory");
        buffer.publish();
        capture.shared.switch_camera(false, SwitchedBy::Page);
        std::thread::scope(|scope| {
            scope.spawn(|| capture.run_with(|_| panic!("it is off")));
            let forgotten = capture.mailbox.wait_until_taken(Duration::from_secs(60));
            capture.shared.stop();
            assert!(forgotten, "it still waits");
        });
    }

    #[test]
    fn a_source_that_is_lost_is_opened_again() {
        let capture = capture("camera");
        let seen = Mutex::new(Vec::new());
        capture.run_with(|_| {
            let mut seen = lock(&seen);
            let captured = capture.shared.counters.captured.load(Ordering::Relaxed);
            seen.push((captured, capture.shared.health().camera));
            if seen.len() == 3 {
                capture.shared.stop();
            }
            Ok(Scripted::boxed([Ok(Delivery::Frame)]))
        });
        let seen = lock(&seen);
        assert_eq!(seen.iter().map(|(captured, _)| *captured).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(seen[0].1, CameraState::Starting);
        let is_lost = |(_, camera): &(u64, CameraState)| matches!(camera, CameraState::Lost { .. });
        assert!(seen[1..].iter().all(is_lost), "{seen:?}");
    }

    #[test]
    fn the_mirror_says_that_the_demo_stands_in_until_something_else_takes_its_place() {
        let capture = capture("demo");
        let shared = Arc::clone(&capture.shared);
        let play = |chosen: &Chosen| {
            let mut attempts = Attempts::default();
            shared.switch_camera(true, SwitchedBy::Page);
            let sensor = Box::new(Sensor::new(&shared));
            Session::new(&capture, sensor, chosen, &mut attempts).run();
            shared.with_health(|health| (health.demo, health.stands_in))
        };
        assert_eq!(play(&Chosen::stand_in()), (true, true));
        let asked_for = capture.sources.choose(None);
        capture.leave(&asked_for);
        assert!(!shared.with_health(|health| health.stands_in), "while the next one is opened");
        assert_eq!(play(&asked_for), (true, false));
    }

    #[test]
    fn a_file_whose_pictures_are_minutes_apart_does_not_keep_the_mirror_from_ending() {
        let folder = Folder::new("slow");
        let path = folder.path().join("slow.y4m");
        let picture = [&b"FRAME\n"[..], &[90; 16 * 8 * 3 / 2]].concat();
        let file = [&b"YUV4MPEG2 W16 H8 F1:600 Ip C420jpeg\n"[..], &picture, &picture].concat();
        std::fs::write(&path, file).expect("writable");
        let capture = Arc::new(capture(path.to_str().expect("plain")));
        let part = Arc::clone(&capture);
        let began = Instant::now();
        let thread = std::thread::spawn(move || part.run());
        while capture.shared.counters.captured.load(Ordering::Relaxed) == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "the first picture comes at once");
            capture.shared.sleep(Duration::from_millis(1));
        }
        capture.shared.stop();
        thread.join().expect("no panic").expect("no error");
        assert!(began.elapsed() < Duration::from_secs(60), "the next one is due in ten minutes");
    }

    #[test]
    fn a_name_is_not_told_twice() {
        let check = |message, expect| assert_eq!(without_name(message, "/dev/video0"), expect);
        check("cannot open /dev/video0: no such device", "no such device");
        check("/dev/video0 is gone: unplugged", "is gone: unplugged");
        check("something else", "something else");
    }
}
