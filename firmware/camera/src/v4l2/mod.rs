//! A V4L2 camera through the `v4l` crate (single-planar capture with memory-mapped buffers).
//!
//! What the crate's stream cannot do decides the shape of this module: after an error or a time-out it must not be
//! asked again (it would queue a buffer twice), so every such error ends the source, and whoever owns it opens a
//! new one. It also keeps giving the oldest picture, so the queue is drained to the newest first.

mod device;
mod format;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use frame::{Frame, FrameBuffer, Layout};
use v4l::buffer::{Flags, Type};
use v4l::device::Handle;
use v4l::io::traits::CaptureStream;
use v4l::prelude::MmapStream;
use v4l::video::Capture;
use v4l::{Device, Format};

use crate::error::SourceError;
use crate::source::{CaptureRequest, Delivery, Source};
use device::{Capabilities, Kind, failure_in_words, is_absent};
use format::{agree, format_advice, in_words, layout_of, raw_words};

pub use device::{first_camera, may_be_camera, usb_camera};

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
