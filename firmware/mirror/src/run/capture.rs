//! The capture part: from the source to the mailbox, through every trouble a camera can have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use camera::backoff::Backoff;
use camera::mailbox::Mailbox;
use camera::{Delivery, Source, SourceError};
use tracing::{debug, info, warn};

use crate::run::seldom::Seldom;
use crate::run::taken::Taken;
use crate::shared::{CameraState, Shared, Topic, count};
use crate::sources::{Chosen, Sources};
use crate::timings::Stage;

/// How often a broken picture may repeat before the source is opened anew.
const BROKEN_IN_A_ROW: u32 = 30;

/// How often to look for a camera while the demo scene stands in for it.
const CAMERA_CHECK: Duration = Duration::from_secs(2);

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
            health.notices.set(Topic::Source, next.notice());
            if health.camera == CameraState::On {
                health.camera = CameraState::Starting;
            }
        });
        self.shared.forget_pictures();
    }

    /// The camera is closed here: its own light is off, too.
    fn wait_while_off(&self) {
        info!("the camera is off (switched off {})", self.shared.camera_switched_by());
        self.mailbox.forget();
        while !self.shared.camera_wanted() && !self.shared.sleep(Duration::from_millis(50)) {}
    }

    fn session(&self, chosen: &Chosen, backoff: &mut Backoff, dropped: &mut Seldom) -> End {
        match self.sources.open(chosen) {
            Ok(source) => {
                // Declared in this order: the source is closed first, then the badge goes.
                let _sensor = SensorOpen::new(&self.shared, source.is_live());
                let mut source = source;
                self.deliver(source.as_mut(), chosen, backoff, dropped)
            }
            Err(error) => End::Failed(error),
        }
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
            health.demo = chosen.is_demo();
            health.notices.set(Topic::Source, chosen.notice());
        });
        let mut decoder = self.sources.decoder(chosen);
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
            match decoder.next(source, &mut buffer, self.sources.timeout) {
                Ok(Delivery::Frame) => {
                    self.shared.timings.record(Stage::Capture, started.elapsed());
                    self.publish(source.is_live(), buffer);
                    backoff.reset();
                    broken = 0;
                }
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
                    self.drop_broken(&description, &error, dropped);
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

    fn drop_broken(&self, description: &str, error: &SourceError, dropped: &mut Seldom) {
        count(&self.shared.counters.broken);
        match dropped.note(Instant::now()) {
            Some(1) => warn!("{description}: picture dropped: {error}"),
            Some(more) => {
                warn!("{description}: {more} pictures dropped lately; the last one: {error}")
            }
            None => debug!("{description}: picture dropped: {error}"),
        }
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
    use super::*;

    #[test]
    fn a_name_is_not_told_twice() {
        let check = |message, expect| assert_eq!(without_name(message, "/dev/video0"), expect);
        check("cannot open /dev/video0: no such device", "no such device");
        check("/dev/video0 is gone: unplugged", "is gone: unplugged");
        check("something else", "something else");
    }
}
