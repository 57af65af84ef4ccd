//! What the glass says: which status, whose code and which address, decided from the mirror's state alone.

use std::time::{Duration, Instant};

use overlay::Status;

use crate::shared::{CameraState, Health, ModelState, PairingCode};

/// A mirror that started so lately shows where its page is: whoever sets it up is there.
pub const NEWLY_STARTED: Duration = Duration::from_secs(180);
/// A mirror in front of which nobody was for this long shows where its page is, too: there the letters disturb nobody.
pub const NOBODY: Duration = Duration::from_secs(10);
/// Instead of a code that wrong guesses have ended.
const SPOILED: &str = "Wrong codes were typed. Ask for a new one.";
/// What to know before a page with the mirror's own certificate is opened.
pub const BROWSER_WARNS: &str = "Your browser warns once: go on, then compare the fingerprint.";
/// Where the page would be, for whoever looks after a mirror without a keyboard.
const ON_THIS_DEVICE: &str = "on this device only; page.access = \"paired\" lets phones in";
/// Where the page would be, of a mirror that no browser can reach.
const NO_NETWORK: &str = "out of reach: put this mirror on your network";

/// What decides whether somebody in front of the mirror can open its page.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// There is a desktop, and so a browser, beside the overlay.
    pub is_window: bool,
    /// Whether the settings let the home network in.
    pub paired: bool,
}

/// The code that is good now, or was a moment ago.
pub fn pairing(health: &Health) -> Option<&PairingCode> {
    health.pairing.as_ref().filter(|pairing| Instant::now() < pairing.until)
}

/// Beneath a code that is shown over people.
pub fn words(pairing: &PairingCode) -> &str {
    if pairing.spoiled { SPOILED } else { &pairing.words }
}

/// Whether where the page is may be shown over the overlay, and not only on status screens: a notice sends people there, or nobody is in
/// front of it.
pub fn is_page_shown(health: &Health, place: Place, is_anybody_there: bool) -> bool {
    let can_open = health.network.is_some() || place.is_window;
    health.notices.first_is_for_the_page() || can_open && !is_anybody_there
}

/// While a code is shown, where to type it; else where the home network finds the page or, where that is not let in, a browser
/// beside this window. A panel has none: no address of this machine's own can be opened there. Where there is none, why.
pub fn page_address(health: &Health, place: Place) -> Option<&str> {
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

/// The one thing a person should be told now; `has_view` is whether there is an overlay to show.
pub fn status(health: &Health, has_view: bool, place: Place) -> Status<'_> {
    let state = state(health, has_view, place);
    match pairing(health) {
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
fn state(health: &Health, has_view: bool, place: Place) -> Status<'_> {
    // Whoever switched it off wants to see that it is.
    if let Some(by) = health.off_by() {
        return Status::CameraOff { by: by.words(), on_page: has_page(health, place) };
    }
    if let ModelState::Failed { reason, built_in } = &health.model {
        return Status::NoModel { reason, built_in: *built_in };
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
    if has_view {
        return Status::Running;
    }
    match (&health.model, &health.camera) {
        (ModelState::Loading, _) => Status::Starting { step: "loading the vision network" },
        (_, CameraState::Starting) => Status::Starting { step: "opening the camera" },
        _ => Status::Starting { step: "waiting for a picture" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{SwitchedBy, Topic};

    const WINDOW: Place = Place { is_window: true, paired: false };
    const PANEL: Place = Place { is_window: false, paired: false };

    /// A mirror that has just started, but for this.
    fn health(change: impl FnOnce(&mut Health)) -> Health {
        let mut health = Health::of_start(CameraState::Starting);
        change(&mut health);
        health
    }

    /// Beside a desktop, before the first picture.
    fn status(health: &Health) -> Status<'_> {
        super::status(health, false, WINDOW)
    }

    #[test]
    fn what_is_worst_is_told_first() {
        let lost = CameraState::Lost {
            device: "/dev/video0".into(),
            reason: "gone".into(),
            absent: true,
            retry_at: Instant::now(),
        };
        let mut all = health(|health| {
            health.camera = lost;
            health.too_hot = Some(90.0);
            health.model = ModelState::Failed { reason: "broken".into(), built_in: false };
        });
        assert_eq!(status(&all), Status::NoModel { reason: "broken", built_in: false });
        all.model = ModelState::Ready { name: "m".into() };
        assert!(matches!(status(&all), Status::CameraLost { device: "/dev/video0", .. }));
        all.camera = CameraState::On;
        assert_eq!(status(&all), Status::Thermal { celsius: 90.0 });
        all.too_hot = None;
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
        let mut shown = health(|health| health.pairing = Some(code(later)));
        assert!(matches!(status(&shown), Status::Pairing { code: "123 456", .. }));
        assert_eq!(page_address(&shown, PANEL), Some("https://192.168.1.7:8443/"));
        assert!(!format!("{:?}", shown).contains("123 456"), "no code in a log");
        shown.pairing = Some(PairingCode { spoiled: true, ..code(later) });
        assert!(matches!(status(&shown), Status::Pairing { left: Duration::ZERO, .. }));
        shown.pairing = Some(code(Instant::now()));
        assert!(matches!(status(&shown), Status::Starting { .. }));
        assert_eq!(page_address(&shown, PANEL), None);

        let asked_elsewhere = PairingCode { at_device: false, ..code(later) };
        shown.pairing = Some(asked_elsewhere.clone());
        assert!(matches!(status(&shown), Status::Pairing { .. }), "nothing else to see");
        shown.camera = CameraState::On;
        assert_eq!(super::status(&shown, true, WINDOW), Status::Running, "the overlay stays");
        assert_eq!(words(&asked_elsewhere), "if you asked for it");
        assert_eq!(words(&PairingCode { spoiled: true, ..asked_elsewhere }), SPOILED);
        shown.pairing = Some(code(later));
        let status = super::status(&shown, true, WINDOW);
        assert!(matches!(status, Status::Pairing { .. }), "asked for at the mirror");
    }

    #[test]
    fn a_running_mirror_says_where_its_page_is_when_somebody_needs_it_or_nobody_is_there() {
        let network =
            |health: &mut Health| health.network = Some("https://192.168.1.7:8443/".into());
        let mut shown = health(network);
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
        let mut shown = health(|health| health.page = Some("http://127.0.0.1:8080/".into()));
        assert_eq!(page_address(&shown, WINDOW), Some("http://127.0.0.1:8080/"));
        assert_eq!(page_address(&shown, PANEL), Some(ON_THIS_DEVICE));
        let soon = Place { paired: true, ..PANEL };
        assert_eq!(page_address(&shown, soon), None, "it is set already");
        shown.network = Some("https://192.168.1.7:8443/".into());
        for place in [WINDOW, PANEL, soon] {
            assert_eq!(page_address(&shown, place), Some("https://192.168.1.7:8443/"));
        }
        (shown.network, shown.page) = (None, None);
        assert_eq!(page_address(&shown, PANEL), None, "no page at all");
    }

    #[test]
    fn nobody_is_sent_to_a_page_that_nobody_there_can_open() {
        let off = |health: &mut Health| health.camera = CameraState::Off { by: SwitchedBy::Page };
        let mut shown = health(off);
        let on_page = |shown: &Health, place| {
            matches!(super::status(shown, false, place), Status::CameraOff { on_page: true, .. })
        };
        assert!(!on_page(&shown, WINDOW), "no page");
        shown.page = Some("http://127.0.0.1:8080/".into());
        assert!(on_page(&shown, WINDOW) && !on_page(&shown, PANEL));
        let soon = Place { paired: true, ..PANEL };
        assert!(on_page(&shown, soon));
        shown.alone = true;
        assert!(!on_page(&shown, soon) && on_page(&shown, WINDOW), "no phone reaches it");
        assert_eq!(page_address(&shown, soon), Some(NO_NETWORK));
        shown.alone = false;
        shown.network = Some("https://192.168.1.7:8443/".into());
        assert!(on_page(&shown, PANEL));
    }

    #[test]
    fn the_steps_of_a_start_are_told() {
        let loading = health(|_| {});
        assert_eq!(status(&loading), Status::Starting { step: "loading the vision network" });
        let opening = health(|health| health.model = ModelState::Ready { name: "m".into() });
        assert_eq!(status(&opening), Status::Starting { step: "opening the camera" });
        let mut off =
            health(|health| health.camera = CameraState::Off { by: SwitchedBy::Settings });
        let expected = Status::CameraOff { by: "in the settings", on_page: false };
        assert_eq!(status(&off), expected);
        off.model = ModelState::Failed { reason: "broken".into(), built_in: false };
        assert_eq!(status(&off), expected, "with no network, too");
    }
}
