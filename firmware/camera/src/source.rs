//! What every source does.

use std::path::Path;
use std::time::Duration;

use frame::{FrameBuffer, Orientation, PixelFormat};

use crate::error::SourceError;

/// What is asked of a source. A camera gives the nearest it can; files ignore all but `rate`.
#[derive(Clone, Debug)]
pub struct CaptureRequest {
    /// Accepted pixel formats, most wanted first.
    pub formats: Vec<PixelFormat>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pictures a second; 0 lets files run as fast as they are asked for.
    pub rate: u32,
    /// Buffers that a camera's driver fills in turn, 2 to 32.
    pub buffers: u32,
}

/// What [`Source::next`] brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A picture.
    Frame,
    /// None yet: a file's next picture is due after the time-out. A camera that is late is an error.
    Later,
    /// The file has no more. Cameras and the demo never end.
    End,
}

/// A stream of pictures.
pub trait Source: Send {
    /// Waits for the next picture, at most about `timeout`, and copies it into `into` as it came (JPEG stays JPEG).
    /// Cameras give the newest picture and skip what is older; `sequence` shows the gap.
    ///
    /// # Errors
    /// [`SourceError::is_frame_only`] tells whether the source can go on; if not, it must be dropped.
    fn next(&mut self, into: &mut FrameBuffer, timeout: Duration) -> Result<Delivery, SourceError>;

    /// One line for logs, page and status screens, such as `/dev/video0 (UVC Camera), YUYV 640 x 480, 30 a second`.
    fn describe(&self) -> String;

    /// The file that the last picture came from, where every picture has its own.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// How that file says that its picture, which is delivered as it lies, is to be turned to be seen upright.
    fn orientation(&self) -> Orientation {
        Orientation::default()
    }

    /// Whether pictures come by themselves and are lost when nobody takes them: a sensor is looking.
    fn is_live(&self) -> bool;
}
