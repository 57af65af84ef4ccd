//! What the parts of a running mirror tell each other.
//!
//! Every part owns its own work; here are only the small facts that others must see: switches,
//! states, timings, and the slots through which the newest view and preview travel.

mod freeze;
mod health;
mod presence;
mod slot;
mod stop;
mod switch;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};

use crate::frozen::Frozen;
use crate::parsed::Parsed;
use crate::timings::Timings;
use crate::view::{PreviewInput, View};

use freeze::Freeze;
pub use health::{CameraState, DisplayState, Health, ModelState, PairingCode, Topic};
use presence::{Moment, Presence};
use slot::Slot;
use stop::Stop;
use switch::Switch;
pub use switch::SwitchedBy;

/// Locks, and goes on with the data of a thread that died holding the lock: every value behind
/// these locks is replaced as a whole, so it is never half-written.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever looks at a picture elsewhere, however shortly, is told of on the glass for so long: time enough to see it.
const LEAST_EYE: Duration = Duration::from_secs(5);

/// Numbers that only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pictures that the source delivered.
    pub captured: AtomicU64,
    /// Pictures dropped because they were broken.
    pub broken: AtomicU64,
    /// Pictures overtaken by a newer one.
    pub overtaken: AtomicU64,
    /// Pictures that the vision part has taken, parsed or not.
    pub taken: AtomicU64,
    /// Pictures that were parsed.
    pub parsed: AtomicU64,
    /// Parsings whose overlay the display shows, drawn anew or not, or, without one, is ready for the page.
    pub overlays: AtomicU64,
    /// Rounds of the display part, shown or not.
    pub rounds: AtomicU64,
    /// Parts that were started again after a failure.
    pub restarts: AtomicU64,
}

/// Adds one.
pub fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

/// A preview picture as a JPEG file.
pub type Jpeg = Arc<[u8]>;

/// Facts shared by all parts.
pub struct Shared {
    started: Instant,
    stop: Stop,
    /// Wakes the page when the mirror stops.
    pub page_stop: Notify,
    switch: Mutex<Switch>,
    health: Mutex<Health>,
    health_changes: AtomicU64,
    /// Durations by stage.
    pub timings: Timings,
    /// Events so far.
    pub counters: Counters,
    view: Slot<View>,
    preview: Slot<PreviewInput>,
    /// The newest preview picture; `None` while there is nothing that may be shown.
    pub preview_jpeg: watch::Sender<Option<Jpeg>>,
    /// Browsers that watch the preview.
    pub viewers: AtomicUsize,
    /// People in the newest picture.
    pub people: AtomicUsize,
    first_overlay: Moment,
    presence: Presence,
    freeze: Freeze,
    /// The picture that somebody corrects now.
    pub frozen: Frozen,
}

impl Shared {
    /// The state of a mirror that starts now; `off_by` says who wants the camera off, if someone
    /// does.
    pub fn new(started: Instant, off_by: Option<SwitchedBy>) -> Shared {
        let camera = match off_by {
            Some(by) => CameraState::Off { by },
            None => CameraState::Starting,
        };
        Shared {
            started,
            stop: Stop::default(),
            page_stop: Notify::new(),
            switch: Mutex::new(Switch::new(off_by, started)),
            health: Mutex::new(Health::of_start(camera)),
            health_changes: AtomicU64::new(1),
            timings: Timings::new(),
            counters: Counters::default(),
            view: Slot::default(),
            preview: Slot::default(),
            preview_jpeg: watch::Sender::new(None),
            viewers: AtomicUsize::new(0),
            people: AtomicUsize::new(0),
            first_overlay: Moment::default(),
            presence: Presence::default(),
            freeze: Freeze::default(),
            frozen: Frozen::default(),
        }
    }

    /// Time since the program started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Asks every part to end.
    pub fn stop(&self) {
        self.stop.set();
        self.view.wake();
        self.preview.wake();
        self.page_stop.notify_one();
    }

    /// The flag that [`Shared::stop`] sets, for whoever cannot ask [`Shared::is_stopping`].
    pub fn stop_flag(&self) -> &AtomicBool {
        self.stop.flag()
    }

    /// Notes that somebody is in front of the mirror: a camera sees them. Whoever is in a file or the demo scene is not there.
    pub fn note_person(&self) {
        self.presence.seen.note(self.started);
    }

    /// Notes that somebody there has come or moved lately.
    pub fn note_movement(&self) {
        self.presence.moved.note(self.started);
    }

    /// Whether somebody was seen within `time`.
    pub fn person_within(&self, time: Duration) -> bool {
        self.presence.seen.is_within(time, self.started)
    }

    /// Whether somebody was seen to come or move within `time`; a thing that is taken for a person does not count.
    pub fn movement_within(&self, time: Duration) -> bool {
        self.presence.moved.is_within(time, self.started)
    }

    /// Notes that somebody elsewhere is given a picture of the camera, or that one is kept for them: the glass shows an eye from here on,
    /// for `LEAST_EYE` at least.
    pub fn note_shown_elsewhere(&self) {
        let is_told = self.was_shown_elsewhere();
        self.presence.shown_elsewhere.note(self.started);
        if !is_told {
            self.wake_display();
        }
    }

    /// Whether that was noted within `LEAST_EYE`.
    pub fn was_shown_elsewhere(&self) -> bool {
        self.presence.shown_elsewhere.is_within(LEAST_EYE, self.started)
    }

    /// Asks for the next picture with its parsing; `None` while somebody else waits for it.
    pub fn ask_to_freeze(&self) -> Option<oneshot::Receiver<Parsed>> {
        self.freeze.ask()
    }

    /// Whether somebody waits for a picture.
    pub fn is_asked_to_freeze(&self) -> bool {
        self.freeze.is_asked()
    }

    /// Whoever waits for a picture, if one may be shown now.
    pub fn take_freeze(&self) -> Option<oneshot::Sender<Parsed>> {
        self.freeze.take(|| self.may_show())
    }

    /// Whether parts should end.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_set()
    }

    /// Sleeps, but no longer than until [`Shared::stop`]; true when stopping.
    pub fn sleep(&self, duration: Duration) -> bool {
        self.stop.sleep(duration)
    }

    /// Switches the camera on or off. From "off" on no picture is shown any more, not even while
    /// the capture part is still closing the device, and the one that somebody corrects is forgotten.
    pub fn switch_camera(&self, on: bool, by: SwitchedBy) {
        let changes = lock(&self.switch).turn(on, by);
        if !changes {
            return;
        }
        let camera = if on { CameraState::Starting } else { CameraState::Off { by } };
        self.update_health(|health| health.camera = camera);
        if !on {
            self.forget_pictures();
            self.frozen.forget_picture();
        }
    }

    /// Whether the camera should be on.
    pub fn camera_wanted(&self) -> bool {
        lock(&self.switch).is_on
    }

    /// Since when pictures may be shown. One from before is of a time that somebody has ended with the switch, or of another source.
    pub fn fresh_since(&self) -> Instant {
        lock(&self.switch).fresh_since
    }

    /// Nothing of the source before is shown, or given to whoever corrects it, from here on: not even what is being parsed.
    pub fn leave_source(&self) {
        lock(&self.switch).fresh_since = Instant::now();
        self.forget_pictures();
    }

    /// Who used the switch last, if anybody did.
    pub fn camera_switched_by(&self) -> Option<SwitchedBy> {
        lock(&self.switch).by
    }

    /// Whether a picture may be shown now: the camera is wanted and has delivered it.
    pub fn may_show(&self) -> bool {
        let delivers =
            |health: &Health| matches!(health.camera, CameraState::On | CameraState::Ended);
        self.camera_wanted() && self.with_health(delivers)
    }

    /// A copy of the states.
    pub fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// Copies the states into `copy` if they changed since `seen`, which is updated.
    pub fn refresh_health(&self, copy: &mut Health, seen: &mut u64) {
        let changes = self.health_changes.load(Ordering::Acquire);
        if changes != *seen {
            *seen = changes;
            copy.clone_from(&lock(&self.health));
        }
    }

    /// Grows with every change of the states.
    pub fn health_version(&self) -> u64 {
        self.health_changes.load(Ordering::Acquire)
    }

    /// Looks at the states without copying them.
    pub fn with_health<T>(&self, look: impl FnOnce(&Health) -> T) -> T {
        look(&lock(&self.health))
    }

    /// Changes the states.
    pub fn update_health(&self, change: impl FnOnce(&mut Health)) {
        let mut health = lock(&self.health);
        change(&mut health);
        self.health_changes.fetch_add(1, Ordering::Release);
    }

    /// Replaces the notice on a topic. Whether that changed it: nothing else is a change of the states, and nothing is allocated
    /// where it is the same.
    pub fn set_notice(&self, topic: Topic, notice: Option<&str>) -> bool {
        let mut health = lock(&self.health);
        let changed = !health.notices.has(topic, notice);
        if changed {
            health.notices.set(topic, notice.map(str::to_owned));
            self.health_changes.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Hands the newest view to the display, unless nothing may be shown; `back` receives a used
    /// view to be filled next time. Returns whether it was handed on.
    pub fn publish_view(&self, back: &mut View) -> bool {
        // Asked under the lock that `forget_pictures` takes: a picture taken before "camera off"
        // never appears after it.
        self.view.publish(back, |view| {
            let may_show = self.may_show();
            if may_show {
                self.people.store(view.people(), Ordering::Relaxed);
            }
            may_show
        })
    }

    /// Lets the display look at the states now.
    pub fn wake_display(&self) {
        self.view.wake();
    }

    /// Swaps a newer view into `front`, waiting for one at most `timeout`; false when there is none.
    pub fn receive_view(&self, front: &mut View, timeout: Duration) -> bool {
        self.view.receive(front, timeout, || self.is_stopping())
    }

    /// Hands a picture with its parsing to the preview's encoder, as [`Shared::publish_view`] does.
    pub fn publish_preview(&self, back: &mut PreviewInput) {
        self.preview.publish(back, |_| self.may_show());
    }

    /// Swaps a newer preview picture into `front`; false when there is none within `timeout`.
    pub fn receive_preview(&self, front: &mut PreviewInput, timeout: Duration) -> bool {
        self.preview.receive(front, timeout, || self.is_stopping())
    }

    /// Hands an encoded preview picture to the page, unless nothing may be shown.
    pub fn publish_jpeg(&self, jpeg: Jpeg) {
        self.preview_jpeg.send_if_modified(|slot| {
            let may_show = self.may_show();
            if may_show {
                *slot = Some(jpeg);
            }
            may_show
        });
    }

    /// Drops every picture and parsing that waits: nothing old may be shown later.
    pub fn forget_pictures(&self) {
        self.preview.replace(false, PreviewInput::forget);
        self.preview_jpeg.send_replace(None);
        self.freeze.forget();
        self.view.replace(true, |view| {
            self.people.store(0, Ordering::Relaxed);
            view.clear();
        });
    }

    /// Notes the moment of the first overlay; later calls change nothing.
    pub fn note_overlay(&self) {
        self.first_overlay.note_first(self.started);
    }

    /// Time from start to the first overlay, once there was one.
    pub fn first_overlay(&self) -> Option<Duration> {
        self.first_overlay.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_hides_at_once_what_was_there() {
        let shared = Shared::new(Instant::now(), None);
        shared.update_health(|health| health.camera = CameraState::On);
        shared.preview_jpeg.send_replace(Some(Arc::from([1, 2, 3])));
        let frozen = shared.frozen.put(Parsed::blank((6, 8))).expect("the first").keep();
        assert!(shared.may_show());
        shared.switch_camera(false, SwitchedBy::Page);
        assert!(!shared.may_show());
        assert!(shared.preview_jpeg.borrow().is_none());
        assert!(shared.frozen.get(frozen).is_none(), "nor is one kept to be corrected");
        assert_eq!(shared.health().camera, CameraState::Off { by: SwitchedBy::Page });
        let mut view = View::new();
        assert!(shared.receive_view(&mut view, Duration::ZERO), "the display must redraw");
        assert!(view.mask().is_none());
    }

    #[test]
    fn a_copy_of_the_states_is_made_only_after_changes() {
        let shared = Shared::new(Instant::now(), None);
        let (mut copy, mut seen) = (shared.health(), 0);
        shared.set_notice(Topic::Page, Some("second"));
        shared.set_notice(Topic::Storage, Some("first"));
        shared.refresh_health(&mut copy, &mut seen);
        assert_eq!(copy.notices.first(), Some("first"));
        copy.source = "kept".into();
        shared.refresh_health(&mut copy, &mut seen);
        assert_eq!(copy.source, "kept");
    }

    #[test]
    fn a_notice_that_is_there_already_changes_nothing() {
        let shared = Shared::new(Instant::now(), None);
        let set = |notice| {
            let before = shared.health_version();
            (shared.set_notice(Topic::Dark, notice), shared.health_version() - before)
        };
        assert_eq!([set(None), set(Some("dark"))], [(false, 0), (true, 1)]);
        assert_eq!([set(Some("dark")), set(Some("darker"))], [(false, 0), (true, 1)]);
        assert_eq!([set(None), set(None)], [(true, 1), (false, 0)]);
    }

    #[test]
    fn the_glass_is_told_of_whoever_looked_on_for_a_while() {
        let minute = Duration::from_secs(60);
        let shared = Shared::new(Instant::now() - minute, None);
        assert!(!shared.was_shown_elsewhere(), "nobody has");
        let shown_ago = |ago| shared.presence.shown_elsewhere.note(Instant::now() - (minute - ago));
        shown_ago(LEAST_EYE + Duration::from_secs(1));
        assert!(!shared.was_shown_elsewhere());
        shared.note_shown_elsewhere();
        assert!(shared.was_shown_elsewhere());
    }

    #[test]
    fn a_stop_ends_every_sleep() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let stopper = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            stopper.stop();
        });
        assert!(shared.sleep(Duration::from_secs(600)));
        assert!(shared.uptime() < Duration::from_secs(60));
        thread.join().expect("no panic");
    }
}
