//! What a device says of itself, which devices are cameras, and what their errors mean.

use std::io;
use std::path::{Path, PathBuf};

use v4l::Device;
use v4l::capability::Flags as Capability;
use v4l::v4l_sys::{V4L2_CAP_IO_MC, v4l2_capability};
use v4l::v4l2::vidioc::VIDIOC_QUERYCAP;

/// Drivers whose nodes say that they capture, and give no picture without a program that feeds or wires them.
const NOT_CAMERAS: [&str; 3] = ["bcm2835-isp", "rp1-cfe", "unicam"];

/// The driver of bridges that other programs feed.
const BRIDGE: &str = "v4l2 loopback";
const UNFED: &str = "nothing feeds this bridge; start what feeds it";

/// How the names of USB's places begin.
const USB: &str = "usb-";

/// What errors mean depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On USB.
    Usb,
    /// Fed by another program.
    Bridge,
    /// Wired in.
    Other,
}

/// What a device says of itself.
pub struct Capabilities {
    driver: String,
    /// The device's name for people.
    pub card: String,
    bus: String,
    flags: Capability,
    /// Whether another program must choose its sensor and formats, through the media controller.
    is_wired_by_programs: bool,
}

impl Capabilities {
    /// With letters that are no UTF-8 replaced: the kernel cuts a long name anywhere, and `v4l` would panic.
    pub fn of(device: &Device) -> io::Result<Capabilities> {
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
    pub fn refusal(&self) -> Option<&'static str> {
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

    /// By its driver and its place.
    pub fn kind(&self) -> Kind {
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

/// Whether an error says that the device is not there.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT | libc::ENXIO))
}

/// Why an open camera fails; `begun`: it has given a picture already.
pub fn failure_in_words(error: &io::Error, kind: Kind, begun: bool) -> String {
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
}
