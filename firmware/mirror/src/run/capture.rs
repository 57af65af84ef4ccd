//! The capture part: from the source to the mailbox, through every trouble a camera can have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use camera::mailbox::Mailbox;
use camera::{Delivery, Source, SourceError};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::run::seldom::Seldom;
use crate::run::taken::Taken;
use crate::shared::{CameraState, Shared, Topic, count};
use crate::sources::{Chosen, Sources};
use crate::timings::Stage;

/// How often a broken picture may repeat before the source is opened anew.
const BROKEN_IN_A_ROW: u32 = 30;

/// How often to look for a camera while the demo scene stands in for it.
const CAMERA_CHECK: Duration = Duration::from_secs(2);

/// Longest wait for the next picture of a file before looking whether to stop: some come seconds apart.
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

impl Capture {
    /// Runs until the mirror stops or a file source ends.
    ///
    /// # Errors
    /// None at present; a source that fails is opened again.
    pub fn run(&self) -> Result<()> {
        let _leaves = Leaves(&self.shared);
        let (mut backoff, mut dropped) = (Backoff::new(), Seldom::default());
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
            match self.session(&chosen, &mut backoff, &mut dropped) {
                End::Done => return Ok(()),
                End::Again => {}
                End::Failed(error) => self.lost(&chosen, &error, backoff.next_delay()),
            }
        }
        Ok(())
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
        info!("the camera is off (switched off {})", self.shared.camera_switched_by());
        self.mailbox.forget();
        while !self.shared.camera_wanted() && !self.shared.sleep(Duration::from_millis(50)) {}
    }

    fn session(&self, chosen: &Chosen, backoff: &mut Backoff, dropped: &mut Seldom) -> End {
        match self.sources.open(chosen) {
            Ok(source) => self.watch(source, chosen, backoff, dropped),
            Err(error) => End::Failed(error),
        }
    }

    fn watch(
        &self,
        source: Box<dyn Source>,
        chosen: &Chosen,
        backoff: &mut Backoff,
        dropped: &mut Seldom,
    ) -> End {
        // Declared in this order: the source is closed first, then the badge goes.
        let _sensor = SensorOpen::new(&self.shared, source.is_live());
        let mut source = source;
        self.deliver(source.as_mut(), chosen, backoff, dropped)
    }

    fn deliver(
        &self,
        source: &mut dyn Source,
        chosen: &Chosen,
        backoff: &mut Backoff,
        dropped: &mut Seldom,
    ) -> End {
        let description = source.describe();
        info!("source: {description}");
        self.shared.update_health(|health| {
            health.source.clone_from(&description);
            (health.demo, health.stands_in) = (chosen.is_demo(), chosen.stands_in());
            health.notices.set(Topic::Source, chosen.notice());
        });
        let mut decoder = self.sources.decoder(chosen);
        let patience = if source.is_live() { self.sources.timeout } else { FILE_PATIENCE };
        let (mut broken, mut looked) = (0, Instant::now());
        while !self.shared.is_stopping() {
            if !self.shared.camera_wanted() {
                return End::Again;
            }
            if looked.elapsed() > CAMERA_CHECK {
                looked = Instant::now();
                if self.sources.choose(Some(chosen)) != *chosen {
                    return End::Again;
                }
            }
            let Some(mut buffer) = Taken::free(&self.mailbox) else {
                // Every buffer is with the network; the next picture is soon enough.
                self.shared.sleep(Duration::from_millis(1));
                continue;
            };
            let started = Instant::now();
            match decoder.next(source, &mut buffer, patience) {
                Ok(Delivery::Frame) => {
                    self.shared.timings.record(Stage::Capture, started.elapsed());
                    self.publish(source.is_live(), buffer);
                    backoff.reset();
                    broken = 0;
                }
                Ok(Delivery::Later) => {}
                Ok(Delivery::End) => {
                    drop(buffer);
                    self.ended();
                    return End::Done;
                }
                // Opened anew, a file would begin once more; it has an end, whatever is in it.
                Err(error)
                    if error.is_frame_only() && (broken < BROKEN_IN_A_ROW || !source.is_live()) =>
                {
                    broken += 1;
                    count(&self.shared.counters.broken);
                    dropped.tell_dropped(&description, &error);
                }
                Err(error) if error.is_frame_only() => {
                    return End::Failed(hopeless(chosen.name(), &error));
                }
                Err(error) => return End::Failed(error),
            }
        }
        End::Done
    }

    fn publish(&self, is_live: bool, buffer: Taken<'_>) {
        // A file has no picture to lose: wait until the network has taken the last one.
        while !is_live && self.mailbox.has_unseen() && !self.shared.is_stopping() {
            self.shared.sleep(Duration::from_millis(1));
        }
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

    fn lost(&self, chosen: &Chosen, error: &SourceError, delay: Duration) {
        let device = chosen.name();
        let reason = without_name(&error.to_string(), &device).to_owned();
        let known = self.shared.with_health(|health| {
            matches!(&health.camera, CameraState::Lost { reason: old, .. } if *old == reason)
        });
        if known {
            debug!("{error}; tried again in {:.1} s", delay.as_secs_f32());
        } else {
            warn!("{error}; tried again in {:.1} s, and so on", delay.as_secs_f32());
        }
        let until = Instant::now() + delay;
        self.shared.update_health(|health| {
            if self.shared.camera_wanted() {
                let absent = error.is_absence();
                health.camera = CameraState::Lost { device, reason, absent, retry_at: until };
            }
        });
        self.shared.forget_pictures();
        while Instant::now() < until && self.shared.camera_wanted() {
            if self.shared.sleep(Duration::from_millis(50)) {
                return;
            }
        }
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
    use std::sync::Mutex;

    use frame::{FrameBuffer, Layout, PixelFormat};
    use settings::Layers;

    use super::*;
    use crate::run::counting;
    use crate::shared::lock;

    fn capture(source: &str) -> Capture {
        let mut settings = Layers::defaults().and_then(Layers::finish).expect("valid").settings;
        settings.camera.source = source.into();
        settings.camera.device = "/dev/gone".into();
        let sources = Sources::new(&settings.camera).expect("a source");
        let shared = Arc::new(Shared::new(Instant::now(), None));
        Capture { shared, mailbox: Arc::new(Mailbox::new(4)), sources }
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
                self.shared.switch_camera(false, "by a test");
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
        let (mut backoff, mut dropped) = (Backoff::new(), Seldom::default());
        let end = capture.watch(Box::new(sensor), &chosen, &mut backoff, &mut dropped);
        assert!(matches!(end, End::Again), "switched off, it may be wanted again");
        assert_eq!(*lock(&closed), Some(true), "closed while the badge was lit");
        let health = capture.shared.health();
        assert!(!health.sensor_open && health.camera == CameraState::Off { by: "by a test" });
        let counts = lock(&allocated);
        assert_eq!(counts.len(), PICTURES as usize);
        assert!(counts[0] < counts[8], "the counter counts");
        assert_eq!(counts[8], counts[39], "once every buffer has its size nothing is allocated");
    }

    #[test]
    fn the_mirror_says_that_the_demo_stands_in_until_something_else_takes_its_place() {
        let capture = capture("demo");
        let shared = Arc::clone(&capture.shared);
        let play = |chosen: &Chosen| {
            let (mut backoff, mut dropped) = (Backoff::new(), Seldom::default());
            shared.switch_camera(true, "by a test");
            let sensor = Sensor::new(&shared);
            capture.watch(Box::new(sensor), chosen, &mut backoff, &mut dropped);
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
        let path = std::env::temp_dir().join(format!("mirror-slow-{}.y4m", std::process::id()));
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
        std::fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn a_name_is_not_told_twice() {
        let check = |message, expect| assert_eq!(without_name(message, "/dev/video0"), expect);
        check("cannot open /dev/video0: no such device", "no such device");
        check("/dev/video0 is gone: unplugged", "is gone: unplugged");
        check("something else", "something else");
    }
}
