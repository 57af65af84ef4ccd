//! Displays: DRM/KMS, fbdev, X11 window, PNG files, behind one trait.
//!
//! Every display shows a *panel*: the pixels as the hardware (or the window, or the PNG file)
//! holds them. What is presented is a [`Canvas`]; the [`Rotation`] says how the canvas is turned
//! on its way to the panel, in the one copy that every picture needs anyway.
//!
//! Invariant: this crate does not depend on `frame` or `camera`; no camera picture reaches it.

pub mod blit;
mod console;
mod error;
mod fbdev;
mod headless;
mod kms;
mod mapping;
mod rotation;
mod spec;
mod stretch;
mod window;

use std::path::{Path, PathBuf};

use overlay::Canvas;

use fbdev::FbdevDisplay;
use kms::DrmDisplay;

pub use error::{Attempt, DisplayError};
pub use headless::HeadlessDisplay;
pub use rotation::Rotation;
pub use spec::{DisplaySpec, SpecError};
pub use window::WindowDisplay;

/// Longest side of a panel that is accepted, in pixels.
pub const MAX_SIDE: u32 = 16384;

/// Something that shows canvases.
pub trait Display: Send {
    /// What this is, for logs and the page: "/dev/dri/card0 (vc4), HDMI-A-1, 1080 x 1920 at 60 Hz".
    fn name(&self) -> String;

    /// Width and height in pixels of the canvas to draw: the panel's, turned back by the rotation.
    /// It never changes while the display is open.
    fn size(&self) -> (u32, u32);

    /// Shows `canvas`. Waits until the picture before it is on the screen, for a bounded time.
    ///
    /// # Errors
    /// [`DisplayError::Size`] for a canvas of another size, and whatever keeps the picture from
    /// being shown. After an error with [`DisplayError::is_transient`] a later call may succeed;
    /// after any other the display is to be opened again.
    fn present(&mut self, canvas: &Canvas) -> Result<(), DisplayError>;

    /// Whether what was presented last is to be presented again, since something has covered it or given it another size. Always false
    /// where there is no window.
    fn is_spoiled(&mut self) -> bool {
        false
    }

    /// Whether the person closed the window. Always false where there is no window.
    fn closed(&mut self) -> bool {
        false
    }

    /// Whether it is a window, with a desktop beside it.
    fn is_window(&self) -> bool {
        false
    }
}

/// How a display is opened. Parts that do not concern the chosen kind are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayRequest {
    /// DRM device. With `auto` the other cards are tried after it; with `drm` only where this one is missing or has no screen.
    pub drm_device: PathBuf,
    /// Frame buffer device.
    pub fbdev_device: PathBuf,
    /// Turn of the canvas on the panel.
    pub rotation: Rotation,
    /// Width and height of a window's panel in pixels, 1 to [`MAX_SIDE`]. The window starts
    /// smaller where the desktop has less room, and shows the panel scaled.
    pub window_size: (u32, u32),
    /// X11 display as in `DISPLAY`, which is used if this is `None`.
    pub x11_display: Option<String>,
    /// Width and height of the headless panel in pixels, 1 to [`MAX_SIDE`].
    pub headless_size: (u32, u32),
    /// Every how many presented canvases a PNG is written, 1 and up; the first one always is.
    pub headless_every: u32,
}

impl Default for DisplayRequest {
    fn default() -> DisplayRequest {
        DisplayRequest {
            drm_device: "/dev/dri/card0".into(),
            fbdev_device: "/dev/fb0".into(),
            rotation: Rotation::None,
            window_size: (540, 960),
            x11_display: None,
            headless_size: (1080, 1920),
            headless_every: 1,
        }
    }
}

/// Opens the display that `spec` names.
///
/// `auto` tries DRM, then fbdev, then a window, and takes the first that opens. It leaves fbdev
/// out when another program owns the DRM device, because that program would draw over it.
///
/// # Errors
/// Why the display cannot be used, and the next step; for `auto` everything that was tried.
pub fn open(
    spec: &DisplaySpec,
    request: &DisplayRequest,
) -> Result<Box<dyn Display>, DisplayError> {
    match spec {
        DisplaySpec::Auto => open_auto(request),
        DisplaySpec::Drm => open_some_drm(request),
        DisplaySpec::Fbdev => open_fbdev(request),
        DisplaySpec::Window => open_window(request),
        DisplaySpec::Headless(folder) => {
            Ok(Box::new(HeadlessDisplay::open(folder.as_deref(), request)?))
        }
    }
}

/// The first card that has a screen; if none has, what is wrong with the wanted one.
fn open_some_drm(request: &DisplayRequest) -> Result<Box<dyn Display>, DisplayError> {
    first_with_a_screen(cards_to_try(&request.drm_device), |card| open_drm(card, request))
}

fn first_with_a_screen<T>(
    cards: Vec<PathBuf>,
    open: impl Fn(&Path) -> Result<T, DisplayError>,
) -> Result<T, DisplayError> {
    let mut cards = cards.into_iter();
    let wanted = cards.next().unwrap_or_default();
    let error = match open(&wanted) {
        Err(
            error @ (DisplayError::Missing { .. }
            | DisplayError::Unsuitable { .. }
            | DisplayError::NotConnected { .. }),
        ) => error,
        result => return result,
    };
    cards.find_map(|card| open(&card).ok()).ok_or(error)
}

fn open_drm(device: &Path, request: &DisplayRequest) -> Result<Box<dyn Display>, DisplayError> {
    Ok(Box::new(DrmDisplay::open(device, request.rotation)?))
}

fn open_fbdev(request: &DisplayRequest) -> Result<Box<dyn Display>, DisplayError> {
    Ok(Box::new(FbdevDisplay::open(&request.fbdev_device, request.rotation)?))
}

fn open_window(request: &DisplayRequest) -> Result<Box<dyn Display>, DisplayError> {
    Ok(Box::new(WindowDisplay::open(request)?))
}

fn open_auto(request: &DisplayRequest) -> Result<Box<dyn Display>, DisplayError> {
    let mut tried = Vec::new();
    for device in cards_to_try(&request.drm_device) {
        match open_drm(&device, request) {
            Ok(display) => return Ok(display),
            Err(error) => tried.push(Attempt::new("drm", error)),
        }
    }
    let owned = tried.iter().any(|attempt| matches!(attempt.error, DisplayError::Busy { .. }));
    if !owned {
        match open_fbdev(request) {
            Ok(display) => return Ok(display),
            Err(error) => tried.push(Attempt::new("fbdev", error)),
        }
    }
    match open_window(request) {
        Ok(display) => Ok(display),
        Err(error) => {
            tried.push(Attempt::new("window", error));
            Err(DisplayError::NoDisplay { tried })
        }
    }
}

/// The wanted card first, then the others: boards number them differently, and the first may be
/// the one that only computes.
fn cards_to_try(wanted: &Path) -> Vec<PathBuf> {
    let mut cards = vec![wanted.to_path_buf()];
    cards.extend(kms::cards().into_iter().filter(|card| card != wanted));
    cards
}

/// Refuses panels without pixels and panels of absurd size.
fn check_panel(what: &'static str, size: (u32, u32)) -> Result<(), DisplayError> {
    let valid = 1..=MAX_SIDE;
    if valid.contains(&size.0) && valid.contains(&size.1) {
        return Ok(());
    }
    let reason = format!("{} x {} pixels; each side must be 1 to {MAX_SIDE}", size.0, size.1);
    Err(DisplayError::Request { what, reason })
}

/// Refuses a canvas that is not of the display's size.
fn check_canvas(canvas: &Canvas, wanted: (u32, u32)) -> Result<(), DisplayError> {
    let given = (canvas.width(), canvas.height());
    if given == wanted { Ok(()) } else { Err(DisplayError::Size { given, wanted }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_card_is_taken_only_where_the_wanted_one_has_no_screen() {
        let cards = || ["card0", "card1", "card2"].map(PathBuf::from).to_vec();
        let empty = |card: &Path| DisplayError::NotConnected {
            device: card.into(),
            connectors: "HDMI-A-1".into(),
        };
        let screen_at = |place: &'static str| {
            first_with_a_screen(cards(), |card| {
                if card == Path::new(place) { Ok(card.to_owned()) } else { Err(empty(card)) }
            })
        };
        assert_eq!(screen_at("card0").expect("the wanted one"), Path::new("card0"));
        assert_eq!(screen_at("card2").expect("another one"), Path::new("card2"));
        let error = screen_at("none").expect_err("no screen").to_string();
        assert!(error.starts_with("card0"), "{error}");
        let busy = first_with_a_screen(cards(), |card| {
            if card != Path::new("card0") {
                return Ok(());
            }
            Err(DisplayError::Busy { device: card.into() })
        });
        assert!(matches!(busy, Err(DisplayError::Busy { .. })), "somebody else draws there");
    }
}
