//! The display part: newest view and the mirror's state, drawn and shown.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use display::{Display, DisplayError, DisplayRequest, DisplaySpec};
use overlay::{Canvas, Painter, Scene, Status};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::look::Look;
use crate::run::calm::{Calm, QUIET};
use crate::run::seldom::SeldomEach;
use crate::run::supervisor::STEADY;
use crate::shared::{
    CameraState, DisplayState, Health, ModelState, PairingCode, Shared, Topic, count, lock,
};
use crate::timings::Stage;
use crate::view::View;

/// Status screens are drawn anew this often, so that a count-down counts.
const IDLE_REFRESH: Duration = Duration::from_millis(250);

/// A mirror that started so lately shows where its page is: whoever sets it up is there.
const NEWLY_STARTED: Duration = Duration::from_secs(180);
/// So does one in front of which nobody was for this long: there the letters disturb nobody.
const NOBODY: Duration = Duration::from_secs(10);
/// Instead of a code that wrong guesses have ended.
const SPOILED: &str = "Wrong codes were typed. Ask for a new one.";
/// What to know before a page with the mirror's own certificate is opened.
const BROWSER_WARNS: &str = "Your browser warns once: go on, then compare the fingerprint.";

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

/// The attempts to open a display. One that comes and goes waits longer and longer.
struct Attempts {
    backoff: Backoff,
    /// When the next one is made.
    due: Instant,
    /// When the display that is open was opened.
    opened: Option<Instant>,
    told: Told,
}

/// What the journal has of displays: a contact that is loose must not fill it.
#[derive(Default)]
struct Told {
    open: SeldomEach,
    missing: SeldomEach,
}

impl Attempts {
    /// The first one is made at once.
    fn new(now: Instant) -> Attempts {
        Attempts { backoff: Backoff::new(), due: now, opened: None, told: Told::default() }
    }

    /// Notes an attempt.
    fn made(&mut self, is_open: bool, now: Instant) {
        self.due = now + self.backoff.next_delay();
        self.opened = is_open.then_some(now);
    }

    /// Notes that the display that was open cannot be kept.
    fn lost(&mut self, now: Instant) {
        let opened = self.opened.take();
        if opened.is_some_and(|opened| now.saturating_duration_since(opened) >= STEADY) {
            self.backoff.reset();
            self.due = now;
        }
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
                Some(panel) => self.show(panel, &mut attempts.told, &known, fresh),
                None => {
                    self.account(fresh && status(&known, self.place(false)) == Status::Running);
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
        Panel { display, canvas, painter, calm: Calm::default(), trouble: None }
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

    /// Draws and presents; false when the display must be opened again.
    fn show(&self, panel: &mut Panel, told: &mut Told, known: &Known, fresh: bool) -> bool {
        let started = Instant::now();
        let overlay = self.draw(panel, known, started);
        let drawn = Instant::now();
        if let Err(error) = panel.display.present(&panel.canvas) {
            self.account(fresh && overlay);
            return self.trouble(panel, &error, told);
        }
        if panel.trouble.take().is_some() {
            self.opened(panel.display.name(), told);
        }
        count(&self.shared.counters.shown);
        if fresh && overlay {
            self.shared.timings.record(Stage::Draw, drawn - started);
            self.shared.timings.record(Stage::Flip, drawn.elapsed());
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

    /// Draws the scene; true when it shows the overlay and not a status.
    fn draw(&self, panel: &mut Panel, known: &Known, now: Instant) -> bool {
        let health = &known.health;
        let place = self.place(panel.display.is_window());
        let status = status(known, place);
        let running = status == Status::Running;
        let code = pairing(health).filter(|_| running);
        let is_page_shown = !running || code.is_some() || self.is_page_shown(health, place);
        let page_address = page_address(health, place).filter(|_| is_page_shown);
        let is_https = |address: &&str| address.starts_with("https://");
        let mut scene = Scene {
            mask: if running { known.view.mask() } else { None },
            status,
            camera_active: health.sensor_open,
            watched: self.is_watched(health),
            dimmed: None,
            fps: (running && self.look.show_fps).then(|| self.shared.timings.fps()),
            code: code.filter(|code| !code.spoiled).map(|code| code.code.as_str()),
            notice: code.map_or_else(|| health.notices.first(), |code| Some(words(code))),
            page_address,
            page_hint: page_address.filter(is_https).map(|_| BROWSER_WARNS),
        };
        scene.dimmed = panel.calm.note(&scene, self.shared.person_within(QUIET), now);
        panel.painter.align(self.look.alignment(health.demo));
        panel.painter.draw(&scene, now, &mut panel.canvas);
        running
    }

    /// Whether somebody sees elsewhere what the camera sees, or saw: in the preview, or in the picture that is kept to be corrected.
    /// Nobody's home is in the demo scene.
    fn is_watched(&self, health: &Health) -> bool {
        let looks_on = health.sensor_open && self.shared.viewers.load(Ordering::Relaxed) > 0;
        !health.demo && (looks_on || self.shared.frozen.kept().is_some())
    }

    fn is_page_shown(&self, health: &Health, place: Place) -> bool {
        let is_new = self.shared.uptime() < NEWLY_STARTED;
        is_new || is_page_shown(health, place, self.shared.person_within(NOBODY))
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

/// What decides whether somebody in front of the mirror can open its page.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// There is a desktop, and so a browser, beside the overlay.
    is_window: bool,
    /// See [`Screen::paired`].
    paired: bool,
}

/// Where the page would be, for whoever looks after a mirror without a keyboard.
const ON_THIS_DEVICE: &str = "on this device only; page.access = \"paired\" lets phones in";

/// The same for one that no browser can reach.
const NO_NETWORK: &str = "out of reach: this mirror is in no network";

/// The code that is good now, or was a moment ago.
fn pairing(health: &Health) -> Option<&PairingCode> {
    health.pairing.as_ref().filter(|pairing| Instant::now() < pairing.until)
}

/// Beneath a code that is shown over people.
fn words(pairing: &PairingCode) -> &str {
    if pairing.spoiled { SPOILED } else { &pairing.words }
}

/// Whether where the page is may be shown over the overlay, and not only on status screens: a notice sends people there, or nobody is in
/// front of it.
fn is_page_shown(health: &Health, place: Place, is_anybody_there: bool) -> bool {
    let can_open = health.network.is_some() || place.is_window;
    health.notices.first_is_for_the_page() || can_open && !is_anybody_there
}

/// While a code is shown, where to type it; else where the home network finds the page or, where that is not let in, a browser
/// beside this window. A panel has none: no address of this machine's own can be opened there. Where there is none, why.
fn page_address(health: &Health, place: Place) -> Option<&str> {
    if let Some(pairing) = pairing(health) {
        return pairing.address.as_deref();
    }
    let Place { is_window, paired } = place;
    match (&health.network, &health.page) {
        (Some(network), _) => Some(network),
        (None, Some(page)) if is_window => Some(page),
        (None, Some(_)) if !paired => Some(ON_THIS_DEVICE),
        _ if health.alone => Some(NO_NETWORK),
        _ => None,
    }
}

/// Whether somebody in front of the mirror can open its page. A door that is wanted and not open yet counts: it is being opened, or
/// a notice says what keeps it.
fn has_page(health: &Health, place: Place) -> bool {
    let soon = place.paired && !health.alone;
    health.network.is_some() || health.page.is_some() && (place.is_window || soon)
}

/// The one thing a person should be told now.
fn status(known: &Known, place: Place) -> Status<'_> {
    let state = state(known, place);
    match pairing(&known.health) {
        // Anybody on the home network may ask for one, and nobody who trains in front of the mirror is to lose the overlay for that.
        Some(pairing) if pairing.at_device || state != Status::Running => {
            let left = match pairing.spoiled {
                true => Duration::ZERO,
                false => pairing.until.saturating_duration_since(Instant::now()),
            };
            Status::Pairing { code: &pairing.code, fingerprint: &pairing.fingerprint, left }
        }
        _ => state,
    }
}

/// What keeps the mirror from working, worst first.
fn state(known: &Known, place: Place) -> Status<'_> {
    let health = &known.health;
    // Whoever switched it off wants to see that it is.
    if let Some(by) = health.off_by() {
        return Status::CameraOff { by: by.words(), on_page: has_page(health, place) };
    }
    if let ModelState::Failed { reason } = &health.model {
        return Status::NoModel { reason };
    }
    match &health.camera {
        CameraState::Lost { device, reason, absent, retry_at } => {
            let retry_in = retry_at.saturating_duration_since(Instant::now());
            return Status::CameraLost { device, reason, absent: *absent, retry_in };
        }
        CameraState::Off { .. } | CameraState::Starting | CameraState::On | CameraState::Ended => {}
    }
    if let Some(celsius) = health.too_hot {
        return Status::Thermal { celsius: celsius as f32 };
    }
    if known.view.mask().is_some() {
        return Status::Running;
    }
    match (&health.model, &health.camera) {
        (ModelState::Loading, _) => Status::Starting { step: "loading the network" },
        (_, CameraState::Starting) => Status::Starting { step: "opening the camera" },
        _ => Status::Starting { step: "waiting for a picture" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::counting;
    use crate::shared::SwitchedBy;
    use display::HeadlessDisplay;
    use std::sync::atomic::AtomicBool;

    fn known(change: impl FnOnce(&mut Health)) -> Known {
        let shared = Shared::new(Instant::now(), None);
        let mut health = shared.health();
        change(&mut health);
        Known { health, seen: 0, view: View::new(), viewed_at: Instant::now() }
    }

    const WINDOW: Place = Place { is_window: true, paired: false };
    const PANEL: Place = Place { is_window: false, paired: false };

    fn status(known: &Known) -> Status<'_> {
        super::status(known, WINDOW)
    }

    #[test]
    fn what_is_worst_is_told_first() {
        let lost = CameraState::Lost {
            device: "/dev/video0".into(),
            reason: "gone".into(),
            absent: true,
            retry_at: Instant::now(),
        };
        let mut all = known(|health| {
            health.camera = lost;
            health.too_hot = Some(90.0);
            health.model = ModelState::Failed { reason: "broken".into() };
        });
        assert_eq!(status(&all), Status::NoModel { reason: "broken" });
        all.health.model = ModelState::Ready { name: "m".into() };
        assert!(matches!(status(&all), Status::CameraLost { device: "/dev/video0", .. }));
        all.health.camera = CameraState::On;
        assert_eq!(status(&all), Status::Thermal { celsius: 90.0 });
        all.health.too_hot = None;
        assert_eq!(status(&all), Status::Starting { step: "waiting for a picture" });
    }

    #[test]
    fn a_pairing_code_is_shown_until_it_is_no_longer_good() {
        let code = |until| PairingCode {
            code: "123 456".into(),
            address: Some("https://192.168.1.7:8443/".into()),
            fingerprint: "AB".into(),
            words: "if you asked for it".into(),
            at_device: true,
            until,
            spoiled: false,
        };
        let later = Instant::now() + Duration::from_secs(60);
        let mut shown = known(|health| health.pairing = Some(code(later)));
        assert!(matches!(status(&shown), Status::Pairing { code: "123 456", .. }));
        assert_eq!(page_address(&shown.health, PANEL), Some("https://192.168.1.7:8443/"));
        assert!(!format!("{:?}", shown.health).contains("123 456"), "no code in a log");
        shown.health.pairing = Some(PairingCode { spoiled: true, ..code(later) });
        assert!(matches!(status(&shown), Status::Pairing { left: Duration::ZERO, .. }));
        shown.health.pairing = Some(code(Instant::now()));
        assert!(matches!(status(&shown), Status::Starting { .. }));
        assert_eq!(page_address(&shown.health, PANEL), None);

        let asked_elsewhere = PairingCode { at_device: false, ..code(later) };
        shown.health.pairing = Some(asked_elsewhere.clone());
        assert!(matches!(status(&shown), Status::Pairing { .. }), "nothing else to see");
        shown.view.fill(&vision::Parsing::new(vision::GridSize { height: 64, width: 48 }));
        shown.health.camera = CameraState::On;
        assert_eq!(status(&shown), Status::Running, "the overlay stays");
        assert_eq!(words(&asked_elsewhere), "if you asked for it");
        assert_eq!(words(&PairingCode { spoiled: true, ..asked_elsewhere }), SPOILED);
        shown.health.pairing = Some(code(later));
        assert!(matches!(status(&shown), Status::Pairing { .. }), "asked for at the mirror");
    }

    #[test]
    fn a_running_mirror_says_where_its_page_is_when_somebody_needs_it_or_nobody_is_there() {
        let network =
            |health: &mut Health| health.network = Some("https://192.168.1.7:8443/".into());
        let mut shown = known(network).health;
        assert!(!is_page_shown(&shown, PANEL, true), "over somebody who trains");
        assert!(is_page_shown(&shown, PANEL, false));
        shown.notices.set(Topic::Learning, Some(crate::learning::NOT_ALL_DELETED.into()));
        assert!(is_page_shown(&shown, PANEL, true));
        shown.notices.set(Topic::Dark, Some("the camera sees only black".into()));
        assert!(!is_page_shown(&shown, PANEL, true), "another one is told first");
        shown.notices = Default::default();
        shown.network = None;
        assert!(!is_page_shown(&shown, PANEL, false), "no address all day that nobody can open");
    }

    #[test]
    fn the_address_is_one_that_somebody_in_the_room_can_open() {
        let mut shown = known(|health| health.page = Some("http://127.0.0.1:8080/".into()));
        assert_eq!(page_address(&shown.health, WINDOW), Some("http://127.0.0.1:8080/"));
        assert_eq!(page_address(&shown.health, PANEL), Some(ON_THIS_DEVICE));
        let soon = Place { paired: true, ..PANEL };
        assert_eq!(page_address(&shown.health, soon), None, "it is set already");
        shown.health.network = Some("https://192.168.1.7:8443/".into());
        for place in [WINDOW, PANEL, soon] {
            assert_eq!(page_address(&shown.health, place), Some("https://192.168.1.7:8443/"));
        }
        (shown.health.network, shown.health.page) = (None, None);
        assert_eq!(page_address(&shown.health, PANEL), None, "no page at all");
    }

    #[test]
    fn nobody_is_sent_to_a_page_that_nobody_there_can_open() {
        let off = |health: &mut Health| health.camera = CameraState::Off { by: SwitchedBy::Page };
        let mut shown = known(off);
        let on_page = |shown: &Known, place| {
            matches!(super::status(shown, place), Status::CameraOff { on_page: true, .. })
        };
        assert!(!on_page(&shown, WINDOW), "no page");
        shown.health.page = Some("http://127.0.0.1:8080/".into());
        assert!(on_page(&shown, WINDOW) && !on_page(&shown, PANEL));
        let soon = Place { paired: true, ..PANEL };
        assert!(on_page(&shown, soon));
        shown.health.alone = true;
        assert!(!on_page(&shown, soon) && on_page(&shown, WINDOW), "no phone reaches it");
        assert_eq!(page_address(&shown.health, soon), Some(NO_NETWORK));
        shown.health.alone = false;
        shown.health.network = Some("https://192.168.1.7:8443/".into());
        assert!(on_page(&shown, PANEL));
    }

    #[test]
    fn the_steps_of_a_start_are_told() {
        let loading = known(|_| {});
        assert_eq!(status(&loading), Status::Starting { step: "loading the network" });
        let opening = known(|health| health.model = ModelState::Ready { name: "m".into() });
        assert_eq!(status(&opening), Status::Starting { step: "opening the camera" });
        let mut off = known(|health| health.camera = CameraState::Off { by: SwitchedBy::Settings });
        let expected = Status::CameraOff { by: "in the settings", on_page: false };
        assert_eq!(status(&off), expected);
        off.health.model = ModelState::Failed { reason: "broken".into() };
        assert_eq!(status(&off), expected, "with no network, too");
    }

    /// A display whose monitor may be unplugged.
    struct Monitor {
        unplugged: Arc<AtomicBool>,
    }

    impl Display for Monitor {
        fn name(&self) -> String {
            "a monitor".into()
        }

        fn size(&self) -> (u32, u32) {
            (48, 64)
        }

        fn present(&mut self, _: &Canvas) -> Result<(), DisplayError> {
            if !self.unplugged.load(Ordering::SeqCst) {
                return Ok(());
            }
            let connector = "HDMI-A-1".into();
            Err(DisplayError::Unplugged { device: "/dev/dri/card0".into(), connector })
        }
    }

    /// For one overlay, and impatient.
    fn screen(shared: &Arc<Shared>, display: Opened) -> Screen {
        let settings = settings::Layers::defaults().and_then(settings::Layers::finish);
        Screen {
            shared: Arc::clone(shared),
            spec: DisplaySpec::Headless(None),
            request: DisplayRequest::default(),
            look: Look::new(&settings.expect("the defaults").settings),
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
                assert!(screen.show(&mut panel, &mut told, &shown, true));
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

    #[test]
    fn whoever_looks_on_from_elsewhere_is_shown_in_front_of_the_mirror() {
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let (screen, mut panel, mut shown) = drawn(&shared);
        let mut picture = |shown: &Known| {
            screen.draw(&mut panel, shown, Instant::now());
            panel.canvas.clone()
        };
        let alone = picture(&shown);
        shared.viewers.store(1, Ordering::Relaxed);
        let watched = picture(&shown);
        assert!(watched != alone, "the preview");
        shared.viewers.store(0, Ordering::Relaxed);
        assert!(picture(&shown) == alone);
        let frozen = shared.frozen.put(crate::parsed::Parsed::blank((6, 8))).keep();
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
    fn words_before_an_empty_room_grow_dark_until_somebody_comes() {
        // Switched on a day ago; nobody has been seen since.
        let shared = Arc::new(Shared::new(Instant::now() - Duration::from_secs(86_400), None));
        let (screen, mut panel, mut shown) = drawn(&shared);
        let start = Instant::now();
        let mut brightest = |shown: &Known, seconds| {
            screen.draw(&mut panel, shown, start + Duration::from_secs(seconds));
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
            screen.draw(&mut panel, &shown, start + Duration::from_secs(seconds));
            panel.canvas.pixels().iter().map(|&pixel| pixel & 0xFF).max().expect("pixels")
        };
        let full = brightest(0);
        assert!(full > 0xC0 && brightest(601) > 0xC0, "{full}");
    }

    #[test]
    fn a_display_that_comes_and_goes_is_opened_less_and_less_often() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        assert!(start >= attempts.due, "the first one at once");
        let mut now = start;
        let mut opened = 0;
        while now < start + Duration::from_secs(600) {
            if now >= attempts.due {
                attempts.made(true, now);
                attempts.lost(now + Duration::from_millis(100));
                opened += 1;
            }
            now += Duration::from_millis(100);
        }
        assert!(opened < 70, "{opened} times in ten minutes");
        now = attempts.due;
        attempts.made(true, now);
        now += STEADY;
        attempts.lost(now);
        assert_eq!(attempts.due, now, "one that had lasted is opened again at once");
        attempts.made(true, now);
        assert_eq!(attempts.due, now + Backoff::new().next_delay());
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
        let monitor = Monitor { unplugged: Arc::clone(&unplugged) };
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
