//! What there is to show: plain borrowed data that the mirror program fills in without allocating.

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;
use std::time::Duration;

/// Everything a person may see at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scene<'a> {
    /// The parsed people; drawn while the status is [`Status::Running`].
    pub mask: Option<MaskView<'a>>,
    /// How the mirror is.
    pub status: Status<'a>,
    /// Whether the camera sees: the badge is drawn then, last and in every state.
    pub camera_active: bool,
    /// Whether somebody looks at its pictures elsewhere: the badge says so, in every state.
    pub watched: bool,
    /// Minutes for which nobody has looked at the same words: they are dark then and move a little, since they would light a bedroom
    /// and burn in. `None` is full light; the badge has it always.
    pub dimmed: Option<u32>,
    /// Pictures a second, drawn when given.
    pub fps: Option<f32>,
    /// A code to be typed, above the notice.
    pub code: Option<&'a str>,
    /// One sentence on the lower edge.
    pub notice: Option<&'a str>,
    /// Address of the local page, or who can open it; on the lower edge, beneath the notice.
    pub page_address: Option<&'a str>,
    /// What to know before opening it; one line beneath it.
    pub page_hint: Option<&'a str>,
}

impl Scene<'_> {
    /// A scene with a status and nothing else.
    pub fn of_status(status: Status<'_>) -> Scene<'_> {
        Scene {
            mask: None,
            status,
            camera_active: false,
            watched: false,
            dimmed: None,
            fps: None,
            code: None,
            notice: None,
            page_address: None,
            page_hint: None,
        }
    }

    /// The same number for scenes that look the same but for the people in them, on the same canvas. It allocates nothing.
    pub fn fingerprint(&self) -> u64 {
        // Every field by its name: none is to be forgotten.
        let Scene {
            mask,
            status,
            camera_active,
            watched,
            dimmed,
            fps,
            code,
            notice,
            page_address,
            page_hint,
        } = self;
        let mut hasher = DefaultHasher::new();
        (camera_active, watched, dimmed, code, notice, page_address, page_hint).hash(&mut hasher);
        mask.is_none_or(|mask| mask.is_consistent()).hash(&mut hasher);
        (discriminant(status), status.headline(), status.advice()).hash(&mut hasher);
        let mut texts = Hashed(hasher);
        status.write_detail(&mut texts);
        texts.end();
        status.write_countdown(&mut texts);
        texts.end();
        if let Some(fps) = fps {
            write_fps(*fps, &mut texts);
        }
        texts.0.finish()
    }
}

/// Takes texts that nobody reads.
struct Hashed(DefaultHasher);

impl Hashed {
    /// Between two texts: no letter has this byte.
    fn end(&mut self) {
        self.0.write_u8(0xFF);
    }
}

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// Appends pictures a second.
pub(crate) fn write_fps(fps: f32, out: &mut impl Write) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{fps:.1} fps");
}

/// What settings may change about the look. The camera badge is not among it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Brightness of the coloured parts, 0 to 1.
    pub opacity: f32,
}

impl Default for Style {
    fn default() -> Style {
        Style { opacity: 0.75 }
    }
}

/// A part of the grid, in grid pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Left column.
    pub x: u32,
    /// Top row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// With its left column and top row.
    pub const fn new(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    /// The column behind the last one; too many count as `u32::MAX`.
    pub fn right(&self) -> u32 {
        self.x.saturating_add(self.width)
    }

    /// The row beneath the last one, as [`Rect::right`].
    pub fn bottom(&self) -> u32 {
        self.y.saturating_add(self.height)
    }
}

/// A parsing on the network's grid. Left and right are the person's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskView<'a> {
    /// Columns of the grid.
    pub width: u32,
    /// Rows of the grid.
    pub height: u32,
    /// Part indices `0..16`, `width * height` of them, rows from the top.
    pub parts: &'a [u8],
    /// 0 for nobody, else the slot of the person at this place, `width * height` of them.
    pub person: &'a [u8],
    /// Where the upright picture lies in the grid.
    pub content: Rect,
    /// The people; labels of a slot that is not listed here are not drawn.
    pub people: &'a [PersonView],
}

impl MaskView<'_> {
    /// Whether slices and content rectangle fit the grid, and the grid is not empty.
    pub fn is_consistent(&self) -> bool {
        let count = self.width as usize * self.height as usize;
        let Rect { x, y, width, height } = self.content;
        let inside = |start: u32, length: u32, side: u32| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= side)
        };
        count > 0
            && self.parts.len() == count
            && self.person.len() == count
            && inside(x, width, self.width)
            && inside(y, height, self.height)
    }
}

/// One person of a parsing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PersonView {
    /// The value in [`MaskView::person`], 1 and up.
    pub slot: u8,
    /// The number under which the person is followed from picture to picture.
    pub track: u32,
    /// Everything with this slot.
    pub bounds: Rect,
}

/// How the mirror is. All but [`Status::Running`] are screens of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status<'a> {
    /// All is well: the overlay is drawn.
    Running,
    /// A code that somebody asked for, to be typed into a browser.
    Pairing {
        /// The digits, in groups.
        code: &'a str,
        /// Of the mirror's certificate.
        fingerprint: &'a str,
        /// Time for which the code is good; zero: wrong codes have ended it.
        left: Duration,
    },
    /// Not ready yet.
    Starting {
        /// What is going on, such as `opening the camera`.
        step: &'a str,
    },
    /// Somebody switched the camera off; a wish, not an error.
    CameraOff {
        /// Completes "Switched off ...", such as `in the settings` or `on the page`.
        by: &'a str,
        /// Whether somebody in front of the mirror can open its page, which has the switch.
        on_page: bool,
    },
    /// The camera was there and is not, or never was.
    CameraLost {
        /// Such as `/dev/video0`.
        device: &'a str,
        /// The last error.
        reason: &'a str,
        /// Whether its cable is worth a look: it is not there, or gives nothing.
        absent: bool,
        /// Time until the next attempt.
        retry_in: Duration,
    },
    /// No network could be loaded.
    NoModel {
        /// What is wrong with it.
        reason: &'a str,
        /// Whether it came with the program: then another installation brings it anew.
        built_in: bool,
    },
    /// Too hot; the network rests.
    Thermal {
        /// The temperature in degrees Celsius.
        celsius: f32,
    },
}

impl<'a> Status<'a> {
    /// A few plain words, or a code; empty while running.
    pub fn headline(&self) -> &'a str {
        match *self {
            Status::Running => "",
            Status::Pairing { code, .. } => code,
            Status::Starting { .. } => "Good to see you",
            Status::CameraOff { .. } => "Camera is off",
            Status::CameraLost { absent: true, .. } => "Camera not found",
            Status::CameraLost { absent: false, .. } => "No picture yet",
            Status::NoModel { .. } => "Cannot see you yet",
            Status::Thermal { .. } => "Cooling down",
        }
    }

    /// One line on what happens next or what to do; empty while running.
    pub fn advice(&self) -> &'static str {
        match self {
            Status::Running => "",
            Status::Pairing { left: Duration::ZERO, .. } => {
                "Wrong codes were typed. Ask for a new one."
            }
            Status::Pairing { .. } => "Type this code into your browser.",
            Status::Starting { .. } => "The mirror is waking up.",
            Status::CameraOff { on_page: true, .. } => "Switch it on again on the mirror's page.",
            Status::CameraOff { on_page: false, .. } => {
                "Whoever looks after the mirror can switch it on."
            }
            Status::CameraLost { absent: true, .. } => "Please check that its cable is plugged in.",
            Status::CameraLost { absent: false, .. } => "The mirror goes on trying by itself.",
            Status::NoModel { built_in: true, .. } => "Install the mirror's software again.",
            Status::NoModel { built_in: false, .. } => {
                "Whoever looks after the mirror can mend it."
            }
            Status::Thermal { .. } => "Give the mirror some air. It goes on by itself.",
        }
    }

    /// Appends what whoever repairs the mirror wants to know; nothing while running.
    pub(crate) fn write_detail(&self, out: &mut impl Write) {
        // Writing to memory cannot fail.
        let _ = match self {
            Status::Running => Ok(()),
            Status::Pairing { fingerprint, .. } => write!(out, "Certificate {fingerprint}"),
            Status::Starting { step } => write!(out, "{step}…"),
            Status::CameraOff { by, .. } => write!(out, "Switched off {by}."),
            Status::CameraLost { device, reason, .. } => write!(out, "{device}: {reason}"),
            Status::NoModel { reason, .. } => write!(out, "{reason}"),
            Status::Thermal { celsius } => write!(out, "{celsius:.0} °C inside"),
        };
    }

    /// Appends when the mirror tries again, or how long a code is good; whole seconds, rounded up.
    pub(crate) fn write_countdown(&self, out: &mut impl Write) {
        let whole = |time: &Duration| time.as_millis().div_ceil(1000);
        let (words, seconds) = match self {
            Status::CameraLost { retry_in, .. } => ("Trying again in", whole(retry_in)),
            Status::Pairing { left, .. } => ("Good for", whole(left)),
            _ => return,
        };
        // Writing to memory cannot fail.
        let _ = match (seconds, self) {
            (0, Status::CameraLost { .. }) => write!(out, "Trying again now"),
            (0, _) => write!(out, "No longer good"),
            (1, _) => write!(out, "{words} 1 second"),
            (seconds, _) => write!(out, "{words} {seconds} seconds"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consistent_only_when_everything_fits() {
        let labels = [0; 12];
        let mask = MaskView {
            width: 4,
            height: 3,
            parts: &labels,
            person: &labels,
            content: Rect::new(1, 0, 3, 3),
            people: &[],
        };
        assert!(mask.is_consistent());
        assert!(!MaskView { parts: &labels[1..], ..mask }.is_consistent());
        assert!(!MaskView { person: &[], ..mask }.is_consistent());
        assert!(!MaskView { width: 0, ..mask }.is_consistent());
        assert!(!MaskView { content: Rect::new(2, 0, 3, 3), ..mask }.is_consistent());
        assert!(!MaskView { content: Rect::new(0, 0, 0, 3), ..mask }.is_consistent());
        assert!(!MaskView { content: Rect::new(0, u32::MAX, 1, 1), ..mask }.is_consistent());
    }

    #[test]
    fn scenes_have_the_same_fingerprint_only_if_they_look_the_same() {
        let lost = |millis, reason: &'static str| {
            let retry_in = Duration::from_millis(millis);
            Status::CameraLost { device: "/dev/video0", reason, absent: true, retry_in }
        };
        let scene = Scene { fps: Some(9.96), ..Scene::of_status(lost(2900, "gone")) };
        let people = [PersonView::default()];
        let mask = MaskView {
            width: 1,
            height: 1,
            parts: &[0],
            person: &[0],
            content: Rect::new(0, 0, 1, 1),
            people: &people,
        };
        let same = [
            Scene { status: lost(2100, "gone"), ..scene },
            Scene { fps: Some(10.04), ..scene },
            Scene { mask: Some(mask), ..scene },
        ];
        let other = [
            Scene { status: lost(1900, "gone"), ..scene },
            Scene { status: lost(2900, "away"), ..scene },
            Scene { status: Status::Thermal { celsius: 81.0 }, ..scene },
            Scene { status: Status::Thermal { celsius: 82.0 }, ..scene },
            Scene { mask: Some(MaskView { parts: &[], ..mask }), ..scene },
            Scene { camera_active: true, ..scene },
            Scene { watched: true, ..scene },
            Scene { dimmed: Some(0), ..scene },
            Scene { dimmed: Some(1), ..scene },
            Scene { fps: Some(10.06), ..scene },
            Scene { fps: None, ..scene },
            Scene { code: Some("a"), ..scene },
            Scene { notice: Some("a"), ..scene },
            Scene { page_address: Some("a"), ..scene },
            Scene { page_hint: Some("a"), ..scene },
        ];
        let first = scene.fingerprint();
        assert!(same.iter().all(|scene| scene.fingerprint() == first));
        let mut seen = std::collections::BTreeSet::from([first]);
        for scene in other {
            assert!(seen.insert(scene.fingerprint()), "{scene:?}");
        }
    }

    #[test]
    fn only_a_network_that_came_with_the_program_comes_again_with_it() {
        let advice = |built_in| Status::NoModel { reason: "", built_in }.advice();
        assert!(advice(true).contains("Install"));
        assert!(advice(false).contains("Whoever looks after"));
    }

    #[test]
    fn countdown_counts_whole_seconds() {
        let text = |millis| {
            let mut text = String::new();
            let retry_in = Duration::from_millis(millis);
            Status::CameraLost { device: "", reason: "", absent: true, retry_in }
                .write_countdown(&mut text);
            text
        };
        assert_eq!(text(0), "Trying again now");
        assert_eq!(text(1), "Trying again in 1 second");
        assert_eq!(text(1001), "Trying again in 2 seconds");
        let mut silent = String::new();
        Status::Running.write_countdown(&mut silent);
        Status::Running.write_detail(&mut silent);
        assert!(silent.is_empty());
    }
}
