//! The pictures' format: what is asked of a driver, and what is made of its answer.

use std::io;

use frame::{FrameError, Layout, PixelFormat};
use v4l::format::{Colorspace, Quantization};
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC};

use super::device::Kind;
use crate::error::SourceError;
use crate::source::CaptureRequest;

/// A format that comes at less than this share of the wanted rate is taken only where none comes faster: large pictures that are
/// not compressed come over a USB cable a few times a second.
const ENOUGH: f64 = 0.7;

/// What a device answers that was asked for a format.
enum Answer {
    /// No, as bridges do.
    Refused,
    /// With another one, or one that cannot be used.
    Other(Format),
    /// With this one, in the size that it has, at this rate where it knows one.
    Agreed(Layout, Option<f64>),
}

/// Asks for the wanted formats in turn, with the rate. A driver that refuses one or answers with another is asked for the next;
/// another size is believed, and a driver that knows no rates as well.
///
/// # Errors
/// A device that fails, or gives none of the formats.
pub fn agree(
    device: &Device,
    name: &str,
    kind: Kind,
    request: &CaptureRequest,
) -> Result<(Layout, Option<f64>), SourceError> {
    let ask_for =
        |wanted| ask_for(device, wanted, request).map_err(|error| SourceError::open(name, &error));
    let mut given = Vec::new();
    let mut fastest: Option<(PixelFormat, f64)> = None;
    for &wanted in &request.formats {
        match ask_for(wanted)? {
            Answer::Refused => {}
            Answer::Other(answer) => given.push(answer),
            Answer::Agreed(_, Some(rate)) if rate < ENOUGH * f64::from(request.rate) => {
                if fastest.is_none_or(|(_, before)| rate > before) {
                    fastest = Some((wanted, rate));
                }
            }
            Answer::Agreed(layout, rate) => return Ok((layout, rate)),
        }
    }
    // Once more: others were asked for since.
    match fastest.map(|(format, _)| ask_for(format)).transpose()? {
        Some(Answer::Agreed(layout, rate)) => Ok((layout, rate)),
        _ => Err(none_of_them(name, kind, request, &given)),
    }
}

fn ask_for(device: &Device, wanted: PixelFormat, request: &CaptureRequest) -> io::Result<Answer> {
    let format = Format::new(request.width, request.height, FourCC::new(&wanted.fourcc()));
    let answer = match device.set_format(&format) {
        Ok(answer) => answer,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Answer::Refused),
        Err(error) => return Err(error),
    };
    Ok(match layout_of(&answer).filter(|layout| layout.format() == wanted) {
        Some(layout) => Answer::Agreed(layout, set_rate(device, request.rate)),
        None => Answer::Other(answer),
    })
}

fn none_of_them(name: &str, kind: Kind, request: &CaptureRequest, given: &[Format]) -> SourceError {
    let wanted: Vec<String> = request.formats.iter().map(|f| f.to_string()).collect();
    let mut words: Vec<String> = given.iter().map(raw_words).collect();
    words.dedup();
    SourceError::Format {
        name: name.into(),
        wanted: wanted.join(" or "),
        given: if words.is_empty() { "nothing".into() } else { words.join(", ") },
        next: format_advice(kind, given),
    }
}

/// What to do about a device that gives these formats, none of which was wanted or can be used. A bridge offers what it is fed with.
pub fn format_advice(kind: Kind, given: &[Format]) -> String {
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

/// What the mirror makes of a format; `None` for one that it does not understand or cannot use.
pub fn layout_of(format: &Format) -> Option<Layout> {
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

/// A layout for people.
pub fn in_words(layout: &Layout) -> String {
    format!("{} {} x {}", layout.format(), layout.width(), layout.height())
}

/// A driver's format for people.
pub fn raw_words(format: &Format) -> String {
    format!("{} {} x {}", String::from_utf8_lossy(&format.fourcc.repr), format.width, format.height)
}

fn set_rate(device: &Device, rate: u32) -> Option<f64> {
    let wanted = if rate == 0 { 30 } else { rate };
    let given = device.set_params(&Parameters::with_fps(wanted)).ok()?.interval;
    (given.numerator > 0).then(|| f64::from(given.denominator) / f64::from(given.numerator))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        check(Kind::Bridge, &[format(b"YUYV", 640, 640)], "must have 1280");
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
