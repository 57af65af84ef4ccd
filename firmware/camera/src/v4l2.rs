//! A V4L2 camera through the `v4l` crate (single-planar capture with memory-mapped buffers).
//!
//! What the crate's stream cannot do decides the shape of this module: after an error or a time-out it must not be
//! asked again (it would queue a buffer twice), so every such error ends the source, and whoever owns it opens a
//! new one. It also keeps giving the oldest picture, so the queue is drained to the newest first.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frame::{Frame, FrameBuffer, FrameError, Layout, PixelFormat};
use v4l::buffer::{Flags, Type};
use v4l::capability::Flags as Capability;
use v4l::device::Handle;
use v4l::format::{Colorspace, Quantization};
use v4l::io::traits::CaptureStream;
use v4l::prelude::MmapStream;
use v4l::v4l_sys::{V4L2_CAP_IO_MC, v4l2_capability};
use v4l::v4l2::vidioc::VIDIOC_QUERYCAP;
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC};

use crate::error::SourceError;
use crate::source::{CaptureRequest, Delivery, Source};

/// An open camera.
pub struct Camera {
    name: String,
    description: String,
    layout: Layout,
    kind: Kind,
    /// Declared before the device: streaming stops before the device is closed.
    stream: MmapStream<'static>,
    device: Device,
    sequence: u64,
    last_sequence: Option<u32>,
}

impl Camera {
    /// Opens a device and agrees on a format: the first of the request's that the driver gives.
    ///
    /// # Errors
    /// A device that is absent, busy, no camera, or gives none of the wanted formats.
    pub fn open(path: &Path, request: &CaptureRequest) -> Result<Camera, SourceError> {
        let name = path.display().to_string();
        let failed = |e: io::Error| SourceError::open(&name, &e);
        let device = Device::with_path(path).map_err(failed)?;
        let capabilities = Capabilities::of(&device).map_err(failed)?;
        if let Some(reason) = capabilities.refusal() {
            return Err(SourceError::Open { name, reason: reason.into() });
        }
        let kind = capabilities.kind();
        let (layout, rate) = agree(&device, &name, kind, request)?;
        let mut stream =
            MmapStream::with_buffers(&device, Type::VideoCapture, request.buffers.clamp(2, 32))
                .map_err(failed)?;
        stream.set_timeout(Duration::from_secs(1));
        let rate = rate.map_or(String::new(), |r| format!(", {r:.0} a second"));
        let (format, width, height) = (layout.format(), layout.width(), layout.height());
        let description =
            format!("{name} ({}), {format} {width} x {height}{rate}", capabilities.card);
        Ok(Camera {
            name,
            description,
            layout,
            kind,
            stream,
            device,
            sequence: 0,
            last_sequence: None,
        })
    }

    /// Whether a picture is ready now.
    fn ready(handle: &Handle) -> bool {
        handle.poll(libc::POLLIN, 0).is_ok_and(|count| count > 0)
    }

    fn failure(&self, error: &io::Error, waited: Duration) -> SourceError {
        let name = self.name.clone();
        if error.kind() == io::ErrorKind::TimedOut {
            // A driver that changes its format under us often just stops; say so if that is what happened.
            return match self.device.format() {
                Ok(format) if !self.is_agreed(&format) => self.changed(&format),
                _ => SourceError::TimedOut { name, waited },
            };
        }
        if is_absent(error) {
            return SourceError::Unplugged { name };
        }
        let reason = failure_in_words(error, self.kind, self.last_sequence.is_some());
        SourceError::Failed { name, reason }
    }

    fn is_agreed(&self, format: &Format) -> bool {
        layout_of(format).is_some_and(|layout| layout == self.layout)
    }

    fn changed(&self, format: &Format) -> SourceError {
        let name = self.name.clone();
        let (wanted, given) = (in_words(&self.layout), raw_words(format));
        let next = format_advice(self.kind, std::slice::from_ref(format));
        SourceError::Format { name, wanted, given, next }
    }
}

/// A format that comes at less than this share of the wanted rate is taken only where none comes faster: large pictures that are
/// not compressed come over a USB cable a few times a second.
const ENOUGH: f64 = 0.7;

/// Asks for the wanted formats in turn, with the rate. A driver that refuses one, as bridges do, or answers with another is asked
/// for the next; another size is believed, and a driver that knows no rates as well.
fn agree(
    device: &Device,
    name: &str,
    kind: Kind,
    request: &CaptureRequest,
) -> Result<(Layout, Option<f64>), SourceError> {
    let mut given = Vec::new();
    let mut fastest: Option<(PixelFormat, f64)> = None;
    for &wanted in &request.formats {
        let answer = match negotiate(device, wanted, request) {
            Ok(answer) => answer,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => continue,
            Err(error) => return Err(SourceError::open(name, &error)),
        };
        let Some(layout) = layout_of(&answer).filter(|layout| layout.format() == wanted) else {
            given.push(answer);
            continue;
        };
        match set_rate(device, request.rate) {
            Some(rate) if rate < ENOUGH * f64::from(request.rate) => {
                if fastest.is_none_or(|(_, before)| rate > before) {
                    fastest = Some((wanted, rate));
                }
            }
            rate => return Ok((layout, rate)),
        }
    }
    if let Some((format, _)) = fastest {
        let answer =
            negotiate(device, format, request).map_err(|error| SourceError::open(name, &error))?;
        if let Some(layout) = layout_of(&answer).filter(|layout| layout.format() == format) {
            return Ok((layout, set_rate(device, request.rate)));
        }
    }
    let wanted: Vec<String> = request.formats.iter().map(|f| f.to_string()).collect();
    let mut words: Vec<String> = given.iter().map(raw_words).collect();
    words.dedup();
    Err(SourceError::Format {
        name: name.into(),
        wanted: wanted.join(" or "),
        given: if words.is_empty() { "nothing".into() } else { words.join(", ") },
        next: format_advice(kind, &given),
    })
}

/// What to do about a device that gives these formats, none of which was wanted or can be used. A bridge offers what it is fed with.
fn format_advice(kind: Kind, given: &[Format]) -> String {
    if let Some(flaw) = given.iter().find_map(flaw) {
        return format!("{flaw}; set camera.width and camera.height to another size");
    }
    let is_known = |format: &Format| PixelFormat::from_fourcc(format.fourcc.repr).is_some();
    let advice = match kind {
        Kind::Bridge => {
            "it must give YUYV, NV12, MJPG or RGB3: set camera.formats, or convert in the bridge"
        }
        _ if given.iter().any(is_known) => "set camera.formats to what it offers",
        _ => {
            "it must give YUYV, NV12, MJPG or RGB3: set camera.formats, or convert in a bridge \
             (gstreamer and v4l2loopback)"
        }
    };
    advice.into()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::ENXIO))
}

/// Why an open camera fails; `begun`: it has given a picture already.
fn failure_in_words(error: &io::Error, kind: Kind, begun: bool) -> String {
    let words = match (error.raw_os_error(), kind) {
        (Some(libc::ENOSPC), _) => {
            "its USB port has no bandwidth left; put MJPG first in camera.formats, lower \
             camera.width, or use another port"
        }
        (Some(libc::EPIPE), Kind::Other) => {
            "no sensor is wired to it; name another with camera.device, or bridge this one to one \
             that is (libcamera through gstreamer and v4l2loopback)"
        }
        (Some(libc::EIO), Kind::Bridge) if !begun => UNFED,
        _ => return error.to_string(),
    };
    words.into()
}

fn negotiate(device: &Device, wanted: PixelFormat, request: &CaptureRequest) -> io::Result<Format> {
    device.set_format(&Format::new(request.width, request.height, FourCC::new(&wanted.fourcc())))
}

fn layout_of(format: &Format) -> Option<Layout> {
    let layout = checked_layout(format)?.ok()?;
    Some(layout.with_full_range(is_full_range(format)))
}

/// Why a format that the mirror understands cannot be used: its sides or its lines.
fn flaw(format: &Format) -> Option<FrameError> {
    checked_layout(format)?.err()
}

/// `None` for a format that the mirror does not understand.
fn checked_layout(format: &Format) -> Option<Result<Layout, FrameError>> {
    let pixels = PixelFormat::from_fourcc(format.fourcc.repr)?;
    let stride = if pixels == PixelFormat::Mjpg { 0 } else { format.stride };
    Some(Layout::new(pixels, format.width, format.height, stride))
}

/// What the driver declares; by V4L2's default for YUV only the colour space of JPEG is of full range.
fn is_full_range(format: &Format) -> bool {
    match format.quantization {
        Quantization::FullRange => true,
        Quantization::LimitedRange => false,
        Quantization::Default => matches!(format.colorspace, Colorspace::JPEG),
    }
}

fn in_words(layout: &Layout) -> String {
    format!("{} {} x {}", layout.format(), layout.width(), layout.height())
}

fn raw_words(format: &Format) -> String {
    format!("{} {} x {}", String::from_utf8_lossy(&format.fourcc.repr), format.width, format.height)
}

fn set_rate(device: &Device, rate: u32) -> Option<f64> {
    let wanted = if rate == 0 { 30 } else { rate };
    let given = device.set_params(&Parameters::with_fps(wanted)).ok()?.interval;
    (given.numerator > 0).then(|| f64::from(given.denominator) / f64::from(given.numerator))
}

impl Source for Camera {
    fn next(&mut self, into: &mut FrameBuffer, timeout: Duration) -> Result<Delivery, SourceError> {
        let began = Instant::now();
        self.stream.set_timeout(timeout.clamp(Duration::from_millis(1), Duration::from_secs(3600)));
        let handle = self.device.handle();
        loop {
            let (bytes, meta) = match CaptureStream::next(&mut self.stream) {
                Ok((bytes, meta)) => (bytes, *meta),
                Err(error) => return Err(self.failure(&error, began.elapsed())),
            };
            if Self::ready(&handle) && began.elapsed() < timeout {
                continue;
            }
            let used = (meta.bytesused as usize).min(bytes.len());
            self.sequence += u64::from(
                self.last_sequence.map_or(0, |last| meta.sequence.wrapping_sub(last)).min(1 << 20),
            );
            self.last_sequence = Some(meta.sequence);
            (into.sequence, into.captured_at) = (self.sequence, Instant::now());
            if meta.flags.contains(Flags::ERROR) {
                return Err(SourceError::picture(
                    &self.name,
                    "the driver marks a picture as damaged",
                ));
            }
            into.copy_from(Frame::new(self.layout, &bytes[..used])?);
            return Ok(Delivery::Frame);
        }
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn is_live(&self) -> bool {
        true
    }
}

/// The first `/dev/videoN` that is a camera, one on the USB bus before others.
pub fn first_camera() -> Option<PathBuf> {
    usb_camera().or_else(|| cameras().next().map(|(path, _)| path))
}

/// The first on USB, whose names change when they are plugged in again.
pub fn usb_camera() -> Option<PathBuf> {
    let mut found = cameras().filter(|(_, capabilities)| capabilities.kind() == Kind::Usb);
    found.next().map(|(path, _)| path)
}

fn cameras() -> impl Iterator<Item = (PathBuf, Capabilities)> {
    (0..64)
        .map(|n| PathBuf::from(format!("/dev/video{n}")))
        .filter(|path| path.exists())
        .filter_map(|path| ask(&path).ok().map(|capabilities| (path, capabilities)))
        .filter(|(_, capabilities)| capabilities.is_camera())
}

/// Whether a device file is there and may be a camera: one that cannot be asked, because it is busy or forbidden, may be.
/// On some boards the first ones are codecs and scalers.
pub fn may_be_camera(path: &Path) -> bool {
    path.exists() && ask(path).map_or(true, |capabilities| capabilities.is_camera())
}

/// Drivers whose nodes say that they capture, and give no picture without a program that feeds or wires them.
const NOT_CAMERAS: [&str; 3] = ["bcm2835-isp", "rp1-cfe", "unicam"];

/// The driver of bridges that other programs feed.
const BRIDGE: &str = "v4l2 loopback";
const UNFED: &str = "nothing feeds this bridge; start what feeds it";

/// How the names of USB's places begin.
const USB: &str = "usb-";

/// What errors mean depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Usb,
    /// Fed by another program.
    Bridge,
    Other,
}

/// What a device says of itself.
struct Capabilities {
    driver: String,
    card: String,
    bus: String,
    flags: Capability,
    /// Whether another program must choose its sensor and formats, through the media controller.
    is_wired_by_programs: bool,
}

impl Capabilities {
    /// With letters that are no UTF-8 replaced: the kernel cuts a long name anywhere, and `v4l` would panic.
    fn of(device: &Device) -> io::Result<Capabilities> {
        // SAFETY: the structure is plain numbers, for which zero is a value.
        let mut raw: v4l2_capability = unsafe { std::mem::zeroed() };
        let place: *mut v4l2_capability = &mut raw;
        // SAFETY: the device is open, and VIDIOC_QUERYCAP fills in one such structure.
        unsafe { v4l::v4l2::ioctl(device.handle().fd(), VIDIOC_QUERYCAP, place.cast()) }?;
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
        };
        Ok(Capabilities {
            driver: text(&raw.driver),
            card: text(&raw.card),
            bus: text(&raw.bus_info),
            flags: Capability::from(raw.device_caps),
            is_wired_by_programs: raw.device_caps & V4L2_CAP_IO_MC != 0,
        })
    }

    fn captures(&self) -> bool {
        self.flags.contains(Capability::VIDEO_CAPTURE | Capability::STREAMING)
    }

    /// Why it cannot be opened. What another program has to wire is not refused: that may have been done.
    fn refusal(&self) -> Option<&'static str> {
        if self.captures() {
            return None;
        }
        if self.kind() == Kind::Bridge {
            return Some(UNFED);
        }
        Some(
            "it is not a single-planar streaming camera; name another with camera.device, or bridge this one to one that is \
             (libcamera or rkisp through gstreamer and v4l2loopback)",
        )
    }

    fn kind(&self) -> Kind {
        match (self.driver.as_str(), self.bus.starts_with(USB)) {
            (BRIDGE, _) => Kind::Bridge,
            (_, true) => Kind::Usb,
            _ => Kind::Other,
        }
    }

    fn is_camera(&self) -> bool {
        let gives_pictures =
            !self.is_wired_by_programs && !NOT_CAMERAS.contains(&self.driver.as_str());
        self.captures() && gives_pictures
    }
}

fn ask(path: &Path) -> io::Result<Capabilities> {
    Capabilities::of(&Device::with_path(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(driver: &str, flags: Capability) -> Capabilities {
        Capabilities {
            driver: driver.into(),
            card: "card".into(),
            bus: "bus".into(),
            flags,
            is_wired_by_programs: false,
        }
    }

    #[test]
    fn receivers_that_other_programs_wire_are_no_cameras() {
        let captures = Capability::VIDEO_CAPTURE | Capability::STREAMING;
        assert!(device("uvcvideo", captures).is_camera());
        assert!(!device("unicam", captures).is_camera());
        let wired = Capabilities { is_wired_by_programs: true, ..device("other", captures) };
        assert!(!wired.is_camera());
        assert_eq!(wired.refusal(), None, "it may have been wired, and is named");
        let broken = io::Error::from_raw_os_error(libc::EPIPE);
        let words = failure_in_words(&broken, Kind::Other, false);
        assert!(words.contains("libcamera") && words.contains("camera.device"), "{words}");
        assert!(!failure_in_words(&broken, Kind::Usb, false).contains("libcamera"), "a cable");
    }

    #[test]
    fn a_bridge_that_nothing_feeds_says_so() {
        let output = Capability::VIDEO_OUTPUT | Capability::STREAMING;
        assert_eq!(device(BRIDGE, output).refusal(), Some(UNFED));
        assert!(device("codec", output).refusal().is_some_and(|words| words != UNFED));
        let error = io::Error::from_raw_os_error(libc::EIO);
        assert_eq!(failure_in_words(&error, Kind::Bridge, false), UNFED);
        assert_ne!(failure_in_words(&error, Kind::Bridge, true), UNFED);
        assert_ne!(failure_in_words(&error, Kind::Usb, false), UNFED);
    }

    #[test]
    fn what_is_advised_about_formats_can_be_followed() {
        let format = |fourcc: &[u8; 4], width, stride| {
            let format = Format::new(width, 480, FourCC::new(fourcc));
            Format { stride, ..format }
        };
        let (known, unknown) = (format(b"NV12", 640, 640), format(b"UYVY", 640, 1280));
        let check = |kind, given: &[Format], says: &str| {
            let advice = format_advice(kind, given);
            assert!(advice.contains(says), "{kind:?}: {advice}");
        };
        check(Kind::Bridge, &[unknown], "convert in the bridge");
        check(Kind::Usb, &[unknown, known], "to what it offers");
        check(Kind::Usb, &[unknown], "v4l2loopback");
        check(Kind::Other, &[], "v4l2loopback");
        // A setting that names formats helps with neither of these.
        check(Kind::Usb, &[format(b"YUYV", 641, 1282)], "needs an even width");
        check(Kind::Bridge, &[format(b"YUYV", 640, 640)], "too short");
    }

    #[test]
    fn the_declared_range_of_yuv_is_kept() {
        let given = |fourcc: &[u8; 4], quantization, colorspace| {
            let format = Format::new(640, 480, FourCC::new(fourcc));
            let layout = layout_of(&Format { quantization, colorspace, ..format });
            layout.is_some_and(|layout| layout.full_range())
        };
        assert!(given(b"YUYV", Quantization::FullRange, Colorspace::SRGB));
        assert!(given(b"NV12", Quantization::Default, Colorspace::JPEG));
        assert!(!given(b"YUYV", Quantization::Default, Colorspace::SRGB));
        assert!(!given(b"YUYV", Quantization::LimitedRange, Colorspace::JPEG));
        assert!(!given(b"MJPG", Quantization::FullRange, Colorspace::JPEG), "its decoder knows");
    }
}
