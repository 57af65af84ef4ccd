//! The display part: newest view and the mirror's state, drawn and shown.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use display::{Display, DisplayError, DisplayRequest, DisplaySpec};
use overlay::{Canvas, Painter, Scene, Status};
use tracing::{debug, info, warn};

use crate::look::Look;
use crate::run::calm::{Calm, QUIET};
use crate::run::glass::{self, Place};
use crate::run::reopen::{Attempts, Told};
use crate::run::same::{Same, Seen};
use crate::shared::{CameraState, DisplayState, Health, Shared, Topic, count, lock};
use crate::timings::Stage;
use crate::view::View;

/// How often to look whether the glass is to show something else, such as the next number of a count-down.
const IDLE_REFRESH: Duration = Duration::from_millis(250);

/// Longest wait for the sensor to close when the mirror stops; the parts have 800 ms.
const CLOSING: Duration = Duration::from_millis(500);

/// A display that opened already, or why it did not.
pub type Opened = Result<Box<dyn Display>, DisplayError>;

/// What the display part needs to know.
pub struct Screen {
    /// The mirror's common state.
    pub shared: Arc<Shared>,
    /// What to open.
    pub spec: DisplaySpec,
    /// How to open it.
    pub request: DisplayRequest,
    /// How it looks.
    pub look: Look,
    /// Stop after this many overlays.
    pub frames: Option<u64>,
    /// A camera that has given nothing for so long shows nobody.
    pub stale_after: Duration,
    /// Whether the settings let the home network in.
    pub paired: bool,
    /// The first attempt to open it, made while the mirror started.
    pub first: Mutex<Option<Opened>>,
}

/// An open display with what is drawn on it.
struct Panel {
    display: Box<dyn Display>,
    canvas: Canvas,
    painter: Painter,
    /// For how long it has said the same.
    calm: Calm,
    /// What it shows now.
    same: Same,
    /// The passing trouble that it has now, so that it is told once.
    trouble: Option<String>,
}

/// What the display part knows of the mirror: its own copy of the states, and the newest view.
struct Known {
    health: Health,
    seen: u64,
    view: View,
    /// When the view came.
    viewed_at: Instant,
}

impl Known {
    fn status(&self, place: Place) -> Status<'_> {
        glass::status(&self.health, self.view.mask().is_some(), place)
    }
}

impl Screen {
    /// Runs until the mirror stops, the window is closed, or the wanted overlays were shown.
    ///
    /// Without a display it waits for one and goes on counting: the page shows the same overlay.
    ///
    /// # Errors
    /// None at present; a display that fails is opened again.
    pub fn run(&self) -> Result<()> {
        let (mut panel, mut attempts) = (None, Attempts::new(Instant::now()));
        let (health, viewed_at) = (self.shared.health(), Instant::now());
        let mut known = Known { health, seen: 0, view: View::new(), viewed_at };
        // The first screen is shown at once: nobody looks at a black mirror and wonders.
        let mut patience = Duration::ZERO;
        while !self.shared.is_stopping() {
            if panel.is_none() && Instant::now() >= attempts.due {
                panel = self.open(&mut attempts.told);
                attempts.made(panel.is_some(), Instant::now());
            }
            let fresh = self.shared.receive_view(&mut known.view, patience);
            patience = IDLE_REFRESH;
            if fresh {
                known.viewed_at = Instant::now();
            }
            self.put_stale_away(&mut known);
            self.shared.refresh_health(&mut known.health, &mut known.seen);
            let keep = match &mut panel {
                Some(panel) => self.show(panel, &mut attempts.told, &known, fresh, Instant::now()),
                None => {
                    self.account(fresh && known.status(self.place(false)) == Status::Running);
                    true
                }
            };
            if !keep {
                panel = None;
                attempts.lost(Instant::now());
            }
            self.end_with_the_file(fresh, &known.health);
            count(&self.shared.counters.rounds);
        }
        self.wait_for_the_sensor();
        // Leave nothing of the last person standing there. PNG files are for looking at later.
        if let Some(mut panel) = panel
            && !matches!(self.spec, DisplaySpec::Headless(_))
        {
            panel.canvas.clear();
            let _ = panel.display.present(&panel.canvas);
        }
        Ok(())
    }

    /// Whoever a camera or a network that hangs has shown last may be gone by now.
    fn put_stale_away(&self, known: &mut Known) {
        // Not of a file, which has its own pace, nor while the network rests.
        let health = &known.health;
        let sees =
            health.camera == CameraState::On && health.sensor_open && health.too_hot.is_none();
        let hangs = sees && known.viewed_at.elapsed() > self.stale_after;
        if hangs && known.view.mask().is_some() {
            warn!(
                "no picture came for {:.0} s; what was shown is put away",
                self.stale_after.as_secs_f32()
            );
            self.shared.forget_pictures();
            known.view.clear();
        }
    }

    /// The badge stays until the sensor is closed, unless that hangs.
    fn wait_for_the_sensor(&self) {
        let began = Instant::now();
        while self.shared.with_health(|health| health.sensor_open) && began.elapsed() < CLOSING {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn open(&self, told: &mut Told) -> Option<Panel> {
        let first = lock(&self.first).take();
        let opened = first.unwrap_or_else(|| display::open(&self.spec, &self.request));
        match opened {
            Ok(display) => Some(self.panel(display, told)),
            Err(error) => {
                self.missing(&error, told);
                None
            }
        }
    }

    fn panel(&self, display: Box<dyn Display>, told: &mut Told) -> Panel {
        self.opened(display.name(), told);
        let (width, height) = display.size();
        let misfit = self.look.misfit((width, height));
        self.shared.set_notice(Topic::Screen, misfit.as_deref());
        let canvas = Canvas::new(width, height);
        let painter = Painter::new(width, height, self.look.style(), self.look.alignment(false));
        let (calm, same) = (Calm::default(), Same::default());
        Panel { display, canvas, painter, calm, same, trouble: None }
    }

    fn opened(&self, name: String, told: &mut Told) {
        told.open.tell_opened("display", &name);
        self.shared.update_health(|health| health.display = DisplayState::Open { name });
    }

    /// Notes why there is no display; told once, not at every attempt.
    fn missing(&self, error: &DisplayError, told: &mut Told) {
        let reason = error.to_string();
        let state = DisplayState::Missing { reason: reason.clone() };
        if self.shared.with_health(|health| health.display == state) {
            return;
        }
        told.missing.tell_lost(&reason, None);
        self.shared.update_health(|health| health.display = state);
    }

    /// Draws and presents what is not shown yet; false when the display must be opened again.
    fn show(
        &self,
        panel: &mut Panel,
        told: &mut Told,
        known: &Known,
        fresh: bool,
        now: Instant,
    ) -> bool {
        let scene = self.scene(panel, known, now);
        let is_demo = known.health.demo;
        let (seen, overlay) = (Seen::of(&scene, is_demo), scene.status == Status::Running);
        if panel.display.is_spoiled() || panel.same.is_due(seen, fresh, now) {
            self.draw(panel, &scene, is_demo, now);
            let drawn = Instant::now();
            if let Err(error) = panel.display.present(&panel.canvas) {
                panel.same.forget();
                self.account(fresh && overlay);
                return self.trouble(panel, &error, told);
            }
            panel.same.note(seen, now);
            if panel.trouble.take().is_some() {
                self.opened(panel.display.name(), told);
            }
            if fresh && overlay {
                self.shared.timings.record(Stage::Draw, drawn.saturating_duration_since(now));
                self.shared.timings.record(Stage::Flip, drawn.elapsed());
            }
        }
        self.account(fresh && overlay);
        if panel.display.closed() {
            info!("the window was closed");
            self.shared.stop();
        }
        true
    }

    fn place(&self, is_window: bool) -> Place {
        Place { is_window, paired: self.paired }
    }

    /// What there is to show.
    fn scene<'a>(&self, panel: &mut Panel, known: &'a Known, now: Instant) -> Scene<'a> {
        let health = &known.health;
        let place = self.place(panel.display.is_window());
        let status = known.status(place);
        let running = status == Status::Running;
        let code = glass::pairing(health).filter(|_| running);
        let is_page_shown = !running || code.is_some() || self.is_page_shown(health, place);
        let page_address = glass::page_address(health, place).filter(|_| is_page_shown);
        let is_https = |address: &&str| address.starts_with("https://");
        let mut scene = Scene {
            mask: if running { known.view.mask() } else { None },
            status,
            camera_active: health.sensor_open,
            watched: self.is_watched(health),
            dimmed: None,
            fps: (running && self.look.show_fps).then(|| self.shared.timings.fps()),
            code: code.filter(|code| !code.spoiled).map(|code| code.code.as_str()),
            notice: code.map_or_else(|| health.notices.first(), |code| Some(glass::words(code))),
            page_address,
            page_hint: page_address.filter(is_https).map(|_| glass::BROWSER_WARNS),
        };
        scene.dimmed = panel.calm.note(&scene, self.shared.person_within(QUIET), now);
        scene
    }

    fn draw(&self, panel: &mut Panel, scene: &Scene<'_>, is_demo: bool, now: Instant) {
        panel.painter.align(self.look.alignment(is_demo));
        panel.painter.draw(scene, now, &mut panel.canvas);
    }

    /// Whether somebody sees elsewhere what the camera sees, or saw, or did a moment ago: in the preview, or in the picture that is
    /// kept to be corrected. Nobody's home is in the demo scene.
    fn is_watched(&self, health: &Health) -> bool {
        let shared = &self.shared;
        let looks_on = health.sensor_open && shared.viewers.load(Ordering::Relaxed) > 0;
        let is_kept = || shared.frozen.kept().is_some();
        !health.demo && (looks_on || is_kept() || shared.was_shown_elsewhere())
    }

    fn is_page_shown(&self, health: &Health, place: Place) -> bool {
        let is_new = self.shared.uptime() < glass::NEWLY_STARTED;
        is_new || glass::is_page_shown(health, place, self.shared.person_within(glass::NOBODY))
    }

    /// Whether the display can be kept after this error. Even then nothing is seen on it for now; a passing trouble (a
    /// monitor that is unplugged) is told once.
    fn trouble(&self, panel: &mut Panel, error: &DisplayError, told: &mut Told) -> bool {
        let text = error.to_string();
        if panel.trouble.as_ref() == Some(&text) {
            debug!("{text}");
        } else {
            self.missing(error, told);
            panel.trouble = Some(text);
        }
        error.is_transient()
    }

    fn account(&self, overlay: bool) {
        if !overlay {
            return;
        }
        let shared = &self.shared;
        shared.timings.record_shown();
        shared.note_overlay();
        let overlays = count(&shared.counters.overlays);
        if self.frames.is_some_and(|frames| overlays >= frames) {
            shared.stop();
        }
    }

    /// After a file's last picture was shown there is nothing left to do.
    fn end_with_the_file(&self, fresh: bool, health: &Health) {
        if !fresh && health.camera == CameraState::Ended {
            let overlays = self.shared.counters.overlays.load(Ordering::Relaxed);
            info!("the source has ended after {overlays} overlays");
            self.shared.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::counting;
    use crate::testing::settings;
    use display::HeadlessDisplay;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    const TENTH: Duration = Duration::from_millis(100);

    fn known(change: impl FnOnce(&mut Health)) -> Known {
        let shared = Shared::new(Instant::now(), None);
        let mut health = shared.health();
        change(&mut health);
        Known { health, seen: 0, view: View::new(), viewed_at: Instant::now() }
    }

    /// A monitor that counts what it is given, and may be unplugged.
    #[derive(Clone, Default)]
    struct Monitor {
        presented: Arc<AtomicU64>,
        spoiled: Arc<AtomicBool>,
        unplugged: Arc<AtomicBool>,
        closed: Arc<AtomicBool>,
    }

    impl Display for Monitor {
        fn name(&self) -> String {
            "a monitor".into()
        }

        fn size(&self) -> (u32, u32) {
            (48, 64)
        }

        fn present(&mut self, _: &Canvas) -> Result<(), DisplayError> {
            self.presented.fetch_add(1, Ordering::SeqCst);
            if !self.unplugged.load(Ordering::SeqCst) {
                return Ok(());
            }
            let connector = "HDMI-A-1".into();
            Err(DisplayError::Unplugged { device: "/dev/dri/card0".into(), connector })
        }

        fn is_spoiled(&mut self) -> bool {
            self.spoiled.load(Ordering::SeqCst)
        }

        fn closed(&mut self) -> bool {
            self.closed.load(Ordering::SeqCst)
        }
    }

    /// For one overlay, and impatient.
    fn screen(shared: &Arc<Shared>, display: Opened) -> Screen {
        Screen {
            shared: Arc::clone(shared),
            spec: DisplaySpec::Headless(None),
            request: DisplayRequest::default(),
            look: Look::new(&settings()),
            frames: Some(1),
            stale_after: Duration::from_secs(5),
            paired: false,
            first: Mutex::new(Some(display)),
        }
    }

    /// A parsing with one person.
    fn somebody() -> vision::Parsing {
        let mut parsing = vision::Parsing::new(vision::GridSize { height: 256, width: 192 });
        let bounds = vision::Rect { x: 40, y: 30, width: 60, height: 200 };
        let person = vision::Person { slot: 1, track: 1, score: 1.0, bounds, pixels: 12_000 };
        parsing.persons.push(person).expect("room for one");
        for y in 30..230 {
            for at in y * 192 + 40..y * 192 + 100 {
                (parsing.parts[at], parsing.person[at]) = (3, 1);
            }
        }
        parsing
    }

    #[test]
    fn drawing_and_showing_allocate_nothing() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let request = DisplayRequest { headless_size: (540, 960), ..DisplayRequest::default() };
        let display = HeadlessDisplay::open(None, &request).expect("nothing to open");
        let unused = DisplayError::Unplugged { device: "card0".into(), connector: "unused".into() };
        let mut screen = screen(&shared, Err(unused));
        (screen.look.show_fps, screen.frames) = (true, None);
        let mut told = Told::default();
        let mut panel = screen.panel(Box::new(display), &mut told);
        // Letters are rasterised when they are first seen: show every digit once.
        for fps in [1234.5, 6789.0] {
            let scene = Scene { fps: Some(fps), ..Scene::of_status(Status::Running) };
            panel.painter.draw(&scene, Instant::now(), &mut panel.canvas);
        }
        let parsing = somebody();
        let mut shown = known(|health| {
            (health.camera, health.sensor_open, health.demo) = (CameraState::On, true, true);
        });
        shown.view.fill(&parsing);
        let mut show = || {
            counting::during(|| {
                assert!(screen.show(&mut panel, &mut told, &shown, true, Instant::now()));
            })
        };
        assert!(show() > 0, "the counter counts");
        let steady: u64 = (0..20).map(|_| show()).sum();
        assert_eq!(steady, 0, "allocations in 20 overlays");
        assert_eq!(shared.counters.overlays.load(Ordering::Relaxed), 21);
    }

    /// A screen that a test draws on, with what it knows of a camera that sees nobody.
    fn drawn(shared: &Arc<Shared>) -> (Screen, Panel, Known) {
        let request = DisplayRequest { headless_size: (270, 480), ..DisplayRequest::default() };
        let display = HeadlessDisplay::open(None, &request).expect("nothing to open");
        let unused = DisplayError::Unplugged { device: "card0".into(), connector: "unused".into() };
        let screen = screen(shared, Err(unused));
        let panel = screen.panel(Box::new(display), &mut Told::default());
        let mut shown = known(|health| {
            (health.camera, health.sensor_open) = (CameraState::On, true);
            health.network = Some("https://192.168.1.7:8443/".into());
        });
        shown.view.fill(&vision::Parsing::new(vision::GridSize { height: 64, width: 48 }));
        (screen, panel, shown)
    }

    fn draw(screen: &Screen, panel: &mut Panel, shown: &Known, now: Instant) {
        let scene = screen.scene(panel, shown, now);
        screen.draw(panel, &scene, shown.health.demo, now);
    }

    #[test]
    fn what_stays_the_same_is_drawn_once_a_second_and_what_changes_at_once() {
        let shared = Arc::new(Shared::new(Instant::now() - Duration::from_secs(86_400), None));
        let (mut screen, _, mut shown) = drawn(&shared);
        screen.frames = None;
        let (monitor, mut told) = (Monitor::default(), Told::default());
        let mut panel = screen.panel(Box::new(monitor.clone()), &mut told);
        let start = Instant::now();
        // How often it is presented in ten rounds within 0.9 s, of which every one brings a view or none does.
        let mut rounds = |shown: &Known, fresh: bool, seconds: u64| {
            let before = monitor.presented.load(Ordering::SeqCst);
            let tenths = |tenth: u32| start + Duration::from_secs(seconds) + tenth * TENTH;
            for tenth in 0..10 {
                assert!(screen.show(&mut panel, &mut told, shown, fresh, tenths(tenth)));
            }
            monitor.presented.load(Ordering::SeqCst) - before
        };
        assert_eq!(rounds(&shown, true, 0), 1, "an empty room");
        assert_eq!(rounds(&shown, false, 1), 1, "again after a second");
        assert_eq!(shared.counters.overlays.load(Ordering::Relaxed), 10, "it counts all the same");
        shown.view.fill(&somebody());
        assert_eq!(rounds(&shown, true, 1), 10, "somebody moves");
        assert_eq!(rounds(&shown, false, 2), 1, "no picture comes");
        shown.health.notices.set(Topic::Learning, Some("a notice".into()));
        assert_eq!(rounds(&shown, false, 2), 1, "another word");
        shared.viewers.store(1, Ordering::Relaxed);
        assert_eq!(rounds(&shown, false, 2), 1, "an eye");
        monitor.spoiled.store(true, Ordering::SeqCst);
        assert_eq!(rounds(&shown, false, 2), 10, "covered again and again");
        monitor.spoiled.store(false, Ordering::SeqCst);
        assert_eq!(rounds(&shown, false, 2), 0);
        shown.health.camera = CameraState::Lost {
            device: "/dev/video0".into(),
            reason: "gone".into(),
            absent: true,
            retry_at: Instant::now(),
        };
        monitor.unplugged.store(true, Ordering::SeqCst);
        assert_eq!(rounds(&shown, false, 3), 10, "unplugged, until it shows again");
        monitor.unplugged.store(false, Ordering::SeqCst);
        assert_eq!(rounds(&shown, false, 3), 1);
        assert!(!shared.is_stopping());
        monitor.closed.store(true, Ordering::SeqCst);
        assert_eq!(rounds(&shown, false, 3), 0);
        assert!(shared.is_stopping(), "the window's events are looked at all the same");
    }

    #[test]
    fn whoever_looks_on_from_elsewhere_is_shown_in_front_of_the_mirror() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let (screen, mut panel, mut shown) = drawn(&shared);
        let mut picture = |shown: &Known| {
            draw(&screen, &mut panel, shown, Instant::now());
            panel.canvas.clone()
        };
        let alone = picture(&shown);
        shared.viewers.store(1, Ordering::Relaxed);
        let watched = picture(&shown);
        assert!(watched != alone, "the preview");
        shared.viewers.store(0, Ordering::Relaxed);
        assert!(picture(&shown) == alone);
        let frozen =
            shared.frozen.put(crate::parsed::Parsed::blank((6, 8))).expect("the first").keep();
        assert!(picture(&shown) == watched, "a picture to be corrected");
        assert!(screen.is_watched(&shown.health));
        shown.health.sensor_open = false;
        assert!(screen.is_watched(&shown.health), "it is kept while the camera is away");
        shared.frozen.forget(frozen);
        shared.viewers.store(1, Ordering::Relaxed);
        assert!(!screen.is_watched(&shown.health), "there is nothing to see");
        (shown.health.sensor_open, shown.health.demo) = (true, true);
        assert!(!screen.is_watched(&shown.health), "a scene");
    }

    #[test]
    fn whoever_looked_on_between_two_rounds_is_shown_all_the_same() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let (screen, mut panel, mut shown) = drawn(&shared);
        let mut picture = |shown: &Known| {
            draw(&screen, &mut panel, shown, Instant::now());
            panel.canvas.clone()
        };
        let alone = picture(&shown);
        shared.note_shown_elsewhere();
        assert!(picture(&shown) != alone);
        shown.health.sensor_open = false;
        assert!(screen.is_watched(&shown.health), "of a camera that was on a moment ago, too");
        shown.health.demo = true;
        assert!(!screen.is_watched(&shown.health), "a scene");
    }

    #[test]
    fn words_before_an_empty_room_grow_dark_until_somebody_comes() {
        // Switched on a day ago; nobody has been seen since.
        let shared = Arc::new(Shared::new(Instant::now() - Duration::from_secs(86_400), None));
        let (screen, mut panel, mut shown) = drawn(&shared);
        let start = Instant::now();
        let mut brightest = |shown: &Known, seconds| {
            draw(&screen, &mut panel, shown, start + Duration::from_secs(seconds));
            // Below the badge.
            let rows = &panel.canvas.pixels()[270 * 100..];
            rows.iter().map(|&pixel| pixel & 0xFF).max().expect("pixels")
        };
        let full = brightest(&shown, 0);
        assert!(full > 0xC0, "where the page is: {full}");
        assert_eq!(brightest(&shown, 599), full);
        assert!(brightest(&shown, 600) < full / 3);
        shown.health.notices.set(Topic::Learning, Some("a notice".into()));
        assert!(brightest(&shown, 601) > 0xC0, "another word");
        assert!(brightest(&shown, 1300) < full / 3);
        shared.note_person();
        assert!(brightest(&shown, 1301) > 0xC0, "somebody came");
    }

    #[test]
    fn people_of_a_scene_are_not_dimmed_though_no_camera_sees_them() {
        let shared = Arc::new(Shared::new(Instant::now() - Duration::from_secs(86_400), None));
        let (screen, mut panel, mut shown) = drawn(&shared);
        (shown.health.sensor_open, shown.health.demo) = (false, true);
        shown.view.fill(&somebody());
        let start = Instant::now();
        let mut brightest = |seconds| {
            draw(&screen, &mut panel, &shown, start + Duration::from_secs(seconds));
            panel.canvas.pixels().iter().map(|&pixel| pixel & 0xFF).max().expect("pixels")
        };
        let full = brightest(0);
        assert!(full > 0xC0 && brightest(601) > 0xC0, "{full}");
    }

    #[test]
    fn what_a_camera_that_hangs_has_shown_last_is_put_away() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let connector =
            || DisplayError::Unplugged { device: "card0".into(), connector: "x".into() };
        let screen = screen(&shared, Err(connector()));
        let is_shown = |camera: CameraState, age| {
            let mut shown = known(|health| (health.camera, health.sensor_open) = (camera, true));
            shown.view.fill(&vision::Parsing::new(vision::GridSize { height: 64, width: 48 }));
            shown.viewed_at = Instant::now() - Duration::from_secs(age);
            screen.put_stale_away(&mut shown);
            shown.view.mask().is_some()
        };
        assert!(is_shown(CameraState::On, 4) && !is_shown(CameraState::On, 6));
        assert!(is_shown(CameraState::Ended, 60), "the last picture of a file stays");
    }

    /// Shows one overlay, with `--frames 1`, on a monitor that is unplugged at first; `meanwhile` it may be plugged in.
    fn show_one(meanwhile: impl FnOnce(&Shared, &AtomicBool)) -> DisplayState {
        let unplugged = Arc::new(AtomicBool::new(true));
        let monitor = Monitor { unplugged: Arc::clone(&unplugged), ..Monitor::default() };
        let shared = Arc::new(Shared::new(Instant::now(), None));
        shared.update_health(|health| health.camera = CameraState::On);
        let screen = screen(&shared, Ok(Box::new(monitor)));
        let showing = std::thread::spawn(move || screen.run());
        meanwhile(&shared, &unplugged);
        let mut view = View::new();
        view.fill(&vision::Parsing::new(vision::GridSize { height: 64, width: 48 }));
        assert!(shared.publish_view(&mut view));
        assert!(shared.sleep(Duration::from_secs(30)), "it does not end");
        showing.join().expect("no panic").expect("no error");
        shared.health().display
    }

    fn wait_for(shared: &Shared, wanted: impl Fn(&DisplayState) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !shared.with_health(|health| wanted(&health.display)) {
            assert!(Instant::now() < deadline, "the display is {:?}", shared.health().display);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_missing(state: &DisplayState) -> bool {
        matches!(state, DisplayState::Missing { reason } if reason.contains("HDMI-A-1"))
    }

    #[test]
    fn a_display_that_shows_nothing_for_now_is_missing_and_overlays_count_all_the_same() {
        let state = show_one(|shared, _| wait_for(shared, is_missing));
        assert!(is_missing(&state), "{state:?}");
    }

    #[test]
    fn a_display_that_shows_again_is_open_again() {
        let open = DisplayState::Open { name: "a monitor".into() };
        let state = show_one(|shared, unplugged| {
            wait_for(shared, is_missing);
            unplugged.store(false, Ordering::SeqCst);
            wait_for(shared, |state| *state == open);
        });
        assert_eq!(state, open);
    }
}
