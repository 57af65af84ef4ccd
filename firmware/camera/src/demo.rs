//! The built-in scene, played in a loop.

use std::time::{Duration, Instant};

use frame::{Frame, FrameBuffer, Layout};

use crate::error::SourceError;
use crate::mjpeg::{jpeg_layout, next_picture};
use crate::pace::Pace;
use crate::source::{Delivery, Source};

/// Pictures a second of the clip.
const CLIP_RATE: f64 = 10.0;

/// The clip's bytes: JPEG files one after the other. The program that ships it embeds it.
#[derive(Clone, Copy, Debug)]
pub struct DemoClip {
    bytes: &'static [u8],
}

impl DemoClip {
    /// From concatenated JPEG files.
    pub fn new(bytes: &'static [u8]) -> DemoClip {
        DemoClip { bytes }
    }

    /// Plays it at its own pace, or as fast as asked for when `rate` is 0.
    ///
    /// # Errors
    /// A clip without a picture.
    pub(crate) fn play(self, rate: u32) -> Result<Demo, SourceError> {
        let mut pictures = Vec::new();
        let mut at = 0;
        while let Some(range) = next_picture(&self.bytes[at..]) {
            pictures.push(&self.bytes[at + range.start..at + range.end]);
            at += range.end;
        }
        let unreadable =
            |reason: &str| SourceError::Open { name: "demo".into(), reason: reason.into() };
        let first = pictures.first().ok_or_else(|| unreadable("the clip has no picture"))?;
        let layout = jpeg_layout(first).map_err(|e| unreadable(&format!("the clip: {e}")))?;
        let pace = Pace::new(if rate == 0 { 0.0 } else { CLIP_RATE });
        Ok(Demo { pictures, layout, pace, sequence: 0 })
    }
}

/// The playing clip.
#[derive(Debug)]
pub(crate) struct Demo {
    pictures: Vec<&'static [u8]>,
    layout: Layout,
    pace: Pace,
    sequence: u64,
}

impl Source for Demo {
    fn next(&mut self, into: &mut FrameBuffer, timeout: Duration) -> Result<Delivery, SourceError> {
        if !self.pace.wait(timeout) {
            return Ok(Delivery::Later);
        }
        let position = self.sequence as usize % self.pictures.len();
        into.copy_from(Frame::new(self.layout, self.pictures[position])?);
        into.sequence = self.sequence;
        into.captured_at = Instant::now();
        self.sequence += 1;
        Ok(Delivery::Frame)
    }

    fn describe(&self) -> String {
        let (width, height) = (self.layout.width(), self.layout.height());
        format!("built-in demo scene, {width} x {height}, {CLIP_RATE} a second")
    }

    fn is_live(&self) -> bool {
        false
    }
}
