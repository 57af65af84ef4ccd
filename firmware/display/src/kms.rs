//! DRM/KMS: dumb buffers and page flips on the first connected screen.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drm::Device as _;
use drm::DriverCapability;
use drm::buffer::{Buffer as _, DrmFourcc};
use drm::control::dumbbuffer::{DumbBuffer, DumbMapping};
use drm::control::{Device as _, Event, Mode, ModeTypeFlags, PageFlipFlags};
use drm::control::{ResourceHandles, connector, crtc, framebuffer};
use overlay::Canvas;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing::{debug, warn};

use crate::blit::{PixelLayout, Surface, blit};
use crate::{Display, DisplayError, Rotation, check_canvas, check_panel};

/// Longest wait for a page flip: many times the period of the slowest screen.
const FLIP_TIMEOUT: Duration = Duration::from_millis(500);
/// How often the connector is asked whether its screen is still there, and all of them for one while it is away.
const CONNECTOR_CHECK: Duration = Duration::from_secs(1);

/// The card's device file.
#[derive(Debug)]
struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

/// A screen on a DRM card, in its preferred mode.
///
/// Two buffers: one on the screen, one to copy the next canvas into. On drop the mode and the
/// picture that were there before come back.
pub struct DrmDisplay {
    device: PathBuf,
    card: Card,
    name: String,
    rotation: Rotation,
    connector: connector::Handle,
    connector_name: String,
    crtc: crtc::Handle,
    mode: Mode,
    before: Option<crtc::Info>,
    buffers: Vec<Buffer>,
    /// The buffer to copy the next canvas into.
    back: usize,
    /// A flip was asked for and has not been reported yet.
    flipping: bool,
    /// The mode is set and our picture is on the screen; otherwise the mode is set anew.
    shown: bool,
    /// The screen was unplugged. It may come back at another connector, and as another one.
    away: bool,
    checked: Instant,
}

/// A dumb buffer, registered for scan-out and mapped.
struct Buffer {
    dumb: DumbBuffer,
    framebuffer: framebuffer::Handle,
    mapping: DumbMapping<'static>,
    surface: Surface,
}

/// `/dev/dri/card0`, `card1` and so on, in order.
pub(crate) fn cards() -> Vec<PathBuf> {
    let Ok(folder) = fs::read_dir("/dev/dri") else { return Vec::new() };
    let is_card = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"card"))
    };
    let mut cards: Vec<PathBuf> =
        folder.flatten().map(|entry| entry.path()).filter(is_card).collect();
    cards.sort();
    cards
}

impl DrmDisplay {
    /// Opens `device`, becomes its master and switches the first connected screen to its preferred
    /// mode.
    ///
    /// # Errors
    /// A device that is missing, forbidden, in use or only computes; no connected screen.
    pub fn open(device: &Path, rotation: Rotation) -> Result<DrmDisplay, DisplayError> {
        let card = open_card(device)?;
        let resources = resources(&card, device)?;
        become_master(&card, device)?;
        let screen = connected(&card, device, &resources)?;
        let mode = preferred(device, &screen)?;
        let crtc = choose_crtc(&card, device, &resources, &screen)?;
        let connector_name = connector_name(&screen);
        let name = format!(
            "{} ({}), {connector_name}, {}",
            device.display(),
            driver_name(&card),
            mode_name(&mode)
        );
        let mut display = DrmDisplay {
            device: device.into(),
            before: card.get_crtc(crtc).ok(),
            card,
            name,
            rotation,
            connector: screen.handle(),
            connector_name,
            crtc,
            mode,
            buffers: Vec::with_capacity(2),
            back: 0,
            flipping: false,
            shown: false,
            away: false,
            checked: Instant::now(),
        };
        // From here on dropping `display` frees what was made so far.
        display.make_buffers()?;
        display.set_mode()?;
        Ok(display)
    }

    fn error(&self, action: &'static str, source: io::Error) -> DisplayError {
        device_error(&self.device, action, source)
    }

    fn make_buffers(&mut self) -> Result<(), DisplayError> {
        let (width, height) = self.mode.size();
        let size = (u32::from(width), u32::from(height));
        check_panel("the screen's mode", size)?;
        let layout = match self.make_buffer(size, PixelLayout::Bgrx) {
            Ok(()) => PixelLayout::Bgrx,
            Err(error) => {
                debug!("{}: no 32 bit buffer ({error}), trying RGB565", self.device.display());
                self.make_buffer(size, PixelLayout::Rgb565)
                    .map_err(|source| self.error("make a buffer", source))?;
                PixelLayout::Rgb565
            }
        };
        self.make_buffer(size, layout).map_err(|source| self.error("make a buffer", source))
    }

    fn make_buffer(&mut self, size: (u32, u32), layout: PixelLayout) -> io::Result<()> {
        let (fourcc, depth, bits) = match layout {
            PixelLayout::Rgb565 => (DrmFourcc::Rgb565, 16, 16),
            _ => (DrmFourcc::Xrgb8888, 24, 32),
        };
        let card = &self.card;
        let dumb = card.create_dumb_buffer(size, fourcc, bits)?;
        let made = card.add_framebuffer(&dumb, depth, bits).and_then(|framebuffer| {
            match map(card, dumb) {
                Ok(mapping) => Ok((framebuffer, mapping)),
                Err(error) => {
                    card.destroy_framebuffer(framebuffer)?;
                    Err(error)
                }
            }
        });
        let (framebuffer, mapping) = match made {
            Ok(made) => made,
            Err(error) => {
                card.destroy_dumb_buffer(dumb)?;
                return Err(error);
            }
        };
        let surface = Surface { size, stride: dumb.pitch() as usize, layout };
        self.buffers.push(Buffer { dumb, framebuffer, mapping, surface });
        Ok(())
    }

    /// Shows the back buffer by setting the mode: at the start, and after a flip or the mastership
    /// was lost.
    fn set_mode(&mut self) -> Result<(), DisplayError> {
        become_master(&self.card, &self.device)?;
        let framebuffer = Some(self.buffers[self.back].framebuffer);
        let connectors = [self.connector];
        self.card
            .set_crtc(self.crtc, framebuffer, (0, 0), &connectors, Some(self.mode))
            .map_err(|source| self.error("set the screen's mode", source))?;
        // A flip that was waited for in vain is done by now. Its event would pass for that of the next one.
        self.take_events().map_err(|source| self.error("read its events", source))?;
        self.shown = true;
        self.flipping = false;
        self.back = 1 - self.back;
        Ok(())
    }

    fn flip(&mut self) -> Result<(), DisplayError> {
        let framebuffer = self.buffers[self.back].framebuffer;
        let flipped = self.card.page_flip(self.crtc, framebuffer, PageFlipFlags::EVENT, None);
        if let Err(source) = flipped {
            self.shown = false;
            return Err(self.error("flip to the picture", source));
        }
        self.flipping = true;
        self.back = 1 - self.back;
        Ok(())
    }

    /// Waits until the last flip is done, and with it the back buffer off the screen.
    fn finish_flip(&mut self) -> Result<(), DisplayError> {
        let deadline = Instant::now() + FLIP_TIMEOUT;
        while self.flipping {
            let left = deadline.saturating_duration_since(Instant::now());
            let ready = self
                .wait_readable(left)
                .map_err(|source| self.error("wait for the picture", source))?;
            if !ready {
                // Setting the mode waits for the hardware itself, and starts over.
                (self.flipping, self.shown) = (false, false);
                let milliseconds = FLIP_TIMEOUT.as_millis();
                return Err(DisplayError::TimedOut { device: self.device.clone(), milliseconds });
            }
            self.take_events().map_err(|source| self.error("read its events", source))?;
        }
        Ok(())
    }

    fn wait_readable(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut wanted = [PollFd::new(&self.card, PollFlags::IN)];
        match poll(&mut wanted, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            // A signal: look at the clock and wait on.
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn take_events(&mut self) -> io::Result<()> {
        // After a signal in `wait_readable`, or in `set_mode`, there may be nothing to read.
        if !self.is_readable()? {
            return Ok(());
        }
        for event in self.card.receive_events()? {
            if let Event::PageFlip(event) = event
                && event.crtc == self.crtc
            {
                self.flipping = false;
            }
        }
        Ok(())
    }

    fn is_readable(&self) -> io::Result<bool> {
        let mut wanted = [PollFd::new(&self.card, PollFlags::IN)];
        match poll(&mut wanted, Some(&Timespec::default())) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks once a second whether the screen is still there, or a screen is there again.
    fn check_connector(&mut self) -> Result<(), DisplayError> {
        if self.checked.elapsed() >= CONNECTOR_CHECK {
            self.checked = Instant::now();
            if self.away {
                self.look_for_a_screen()?;
            } else {
                self.away = self.is_unplugged()?;
            }
        }
        if !self.away {
            return Ok(());
        }
        self.shown = false;
        let (device, connector) = (self.device.clone(), self.connector_name.clone());
        Err(DisplayError::Unplugged { device, connector })
    }

    fn is_unplugged(&self) -> Result<bool, DisplayError> {
        let screen = self.card.get_connector(self.connector, false);
        let screen = screen.map_err(|source| self.error("ask for the screen", source))?;
        Ok(screen.state() == connector::State::Disconnected)
    }

    /// An error when any connector has a screen: connector, mode and pipe are to be chosen anew.
    fn look_for_a_screen(&self) -> Result<(), DisplayError> {
        let resources = resources(&self.card, &self.device)?;
        match connected(&self.card, &self.device, &resources) {
            Ok(screen) if screen.state() == connector::State::Connected => {
                let (device, connector) = (self.device.clone(), connector_name(&screen));
                Err(DisplayError::Returned { device, connector })
            }
            _ => Ok(()),
        }
    }

    fn restore(&mut self) {
        if let Err(error) = self.finish_flip() {
            debug!("{error}");
        }
        let Some(before) = self.before.take() else { return };
        let (mode, framebuffer) = (before.mode(), before.framebuffer());
        let connectors = [self.connector];
        let connectors = if mode.is_some() { &connectors[..] } else { &[] };
        let restored =
            self.card.set_crtc(self.crtc, framebuffer, before.position(), connectors, mode);
        if let Err(error) = restored {
            // The program that made that picture may be gone; the kernel's console comes back by
            // itself when the device is closed.
            debug!("{}: the picture before does not come back: {error}", self.device.display());
        }
    }
}

impl Display for DrmDisplay {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn size(&self) -> (u32, u32) {
        let (width, height) = self.mode.size();
        self.rotation.turn((u32::from(width), u32::from(height)))
    }

    fn present(&mut self, canvas: &Canvas) -> Result<(), DisplayError> {
        check_canvas(canvas, self.size())?;
        self.check_connector()?;
        if self.shown {
            self.finish_flip()?;
        }
        let Buffer { mapping, surface, .. } = &mut self.buffers[self.back];
        blit(canvas, self.rotation, surface, mapping.as_mut());
        if self.shown { self.flip() } else { self.set_mode() }
    }
}

impl Drop for DrmDisplay {
    fn drop(&mut self) {
        if self.shown {
            self.restore();
        }
        for Buffer { dumb, framebuffer, mapping, .. } in self.buffers.drain(..) {
            drop(mapping);
            let freed = self.card.destroy_framebuffer(framebuffer);
            if let Err(error) = freed.and_then(|()| self.card.destroy_dumb_buffer(dumb)) {
                warn!("{}: cannot free a buffer: {error}", self.device.display());
            }
        }
    }
}

fn open_card(device: &Path) -> Result<Card, DisplayError> {
    let opened = File::options().read(true).write(true).open(device);
    opened.map(Card).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            DisplayError::Missing { device: device.into(), next: other_cards(device) }
        }
        io::ErrorKind::PermissionDenied => DisplayError::Permission { device: device.into() },
        _ => device_error(device, "open it", source),
    })
}

fn other_cards(device: &Path) -> String {
    let others: Vec<String> = cards()
        .into_iter()
        .filter(|card| card != device)
        .map(|card| card.display().to_string())
        .collect();
    if others.is_empty() {
        return "load the screen's driver (no card is in /dev/dri)".to_string();
    }
    format!("set display.drm_device to another card ({})", others.join(", "))
}

fn resources(card: &Card, device: &Path) -> Result<ResourceHandles, DisplayError> {
    let unsuitable = |reason: &str| DisplayError::Unsuitable {
        device: device.into(),
        reason: reason.into(),
        next: other_cards(device),
    };
    let resources = card
        .resource_handles()
        .map_err(|_| unsuitable("it drives no screens, it only computes"))?;
    match card.get_driver_capability(DriverCapability::DumbBuffer) {
        Ok(1) => Ok(resources),
        _ => Err(unsuitable("its driver has no dumb buffers")),
    }
}

/// The first program to open a card is its master, and only a master may show pictures. Asking
/// again also takes the card back after a switch of consoles.
fn become_master(card: &Card, device: &Path) -> Result<(), DisplayError> {
    card.acquire_master_lock().map_err(|source| match source.raw_os_error() {
        Some(code) if code == Errno::BUSY.raw_os_error() => busy(device),
        _ => device_error(device, "become master of the device", source),
    })
}

fn busy(device: &Path) -> DisplayError {
    DisplayError::Busy { device: device.into() }
}

fn device_error(device: &Path, action: &'static str, source: io::Error) -> DisplayError {
    // On an open card the kernel forbids only what takes a master.
    if source.kind() == io::ErrorKind::PermissionDenied {
        return busy(device);
    }
    DisplayError::Device { device: device.into(), action, source }
}

/// The first connector with a screen; failing that, one whose driver cannot tell.
fn connected(
    card: &Card,
    device: &Path,
    resources: &ResourceHandles,
) -> Result<connector::Info, DisplayError> {
    let probe = |&handle: &connector::Handle| card.get_connector(handle, true).ok();
    let connectors: Vec<connector::Info> =
        resources.connectors().iter().filter_map(probe).collect();
    for state in [connector::State::Connected, connector::State::Unknown] {
        let usable = |info: &&connector::Info| info.state() == state && !info.modes().is_empty();
        if let Some(info) = connectors.iter().find(usable) {
            return Ok(info.clone());
        }
    }
    let names: Vec<String> = connectors.iter().map(connector_name).collect();
    let connectors = if names.is_empty() { "none".into() } else { names.join(", ") };
    Err(DisplayError::NotConnected { device: device.into(), connectors })
}

fn preferred(device: &Path, screen: &connector::Info) -> Result<Mode, DisplayError> {
    let modes = screen.modes();
    let preferred = modes.iter().find(|mode| mode.mode_type().contains(ModeTypeFlags::PREFERRED));
    preferred.or(modes.first()).copied().ok_or_else(|| DisplayError::NotConnected {
        device: device.into(),
        connectors: connector_name(screen),
    })
}

/// The one that already drives the screen, so that nothing else moves; else the first that can.
fn choose_crtc(
    card: &Card,
    device: &Path,
    resources: &ResourceHandles,
    screen: &connector::Info,
) -> Result<crtc::Handle, DisplayError> {
    let current = screen.current_encoder().and_then(|encoder| card.get_encoder(encoder).ok());
    if let Some(crtc) = current.and_then(|encoder| encoder.crtc()) {
        return Ok(crtc);
    }
    let encoders = screen.encoders().iter().filter_map(|&encoder| card.get_encoder(encoder).ok());
    encoders.flat_map(|encoder| resources.filter_crtcs(encoder.possible_crtcs())).next().ok_or_else(
        || DisplayError::Unsuitable {
            device: device.into(),
            reason: format!("no display pipe is free for {}", connector_name(screen)),
            next: "unplug other screens".into(),
        },
    )
}

fn map(card: &Card, mut dumb: DumbBuffer) -> io::Result<DumbMapping<'static>> {
    let mapping = card.map_dumb_buffer(&mut dumb)?;
    // SAFETY: the lifetime ties the mapping to the handle `dumb`, but the mapping refers to no
    // byte of it: it is memory of its own, which the kernel keeps until it is unmapped on drop.
    Ok(unsafe { std::mem::transmute::<DumbMapping<'_>, DumbMapping<'static>>(mapping) })
}

fn connector_name(screen: &connector::Info) -> String {
    format!("{}-{}", screen.interface().as_str(), screen.interface_id())
}

fn mode_name(mode: &Mode) -> String {
    let (width, height) = mode.size();
    format!("{width} x {height} at {} Hz", mode.vrefresh())
}

fn driver_name(card: &Card) -> String {
    match card.get_driver() {
        Ok(driver) => driver.name().to_string_lossy().into_owned(),
        Err(_) => "unknown driver".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_wrong_device_names_the_next_step() {
        let missing = Path::new("/dev/dri/card-none");
        let Err(error) = DrmDisplay::open(missing, Rotation::None) else { panic!("opened") };
        assert!(matches!(error, DisplayError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("/dev/dri"), "{error}");
        let Err(error) = DrmDisplay::open(Path::new("/dev/null"), Rotation::None) else {
            panic!("opened")
        };
        assert!(error.to_string().contains("it only computes"), "{error}");
    }

    #[test]
    fn a_screen_that_is_away_is_waited_for_and_one_that_is_back_is_opened_anew() {
        let (device, connector) = (PathBuf::from("/dev/dri/card0"), String::from("HDMI-A-1"));
        let away = DisplayError::Unplugged { device: device.clone(), connector: connector.clone() };
        assert!(away.is_transient(), "{away}");
        let back = DisplayError::Returned { device, connector };
        assert!(!back.is_transient(), "{back}");
    }
}
