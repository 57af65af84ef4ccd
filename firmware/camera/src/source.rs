//! What every source does, and how one is opened.

use std::path::Path;
use std::time::Duration;

use frame::{FrameBuffer, Orientation, PixelFormat};

use crate::demo::DemoClip;
use crate::error::SourceError;
use crate::files;
use crate::folder::Folder;
use crate::spec::SourceSpec;
use crate::v4l2;

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

/// Opens a source. [`SourceSpec::Auto`] takes the first camera that can capture, otherwise the demo.
///
/// # Errors
/// What cannot be opened, why, and the next step.
pub fn open(
    spec: &SourceSpec,
    request: &CaptureRequest,
    demo: DemoClip,
) -> Result<Box<dyn Source>, SourceError> {
    match spec {
        SourceSpec::Demo => Ok(Box::new(demo.play(request.rate)?)),
        SourceSpec::Camera(device) => Ok(Box::new(v4l2::Camera::open(device, request)?)),
        SourceSpec::Path(path) => open_path(path, request),
        SourceSpec::Auto => match v4l2::first_camera() {
            Some(device) => Ok(Box::new(v4l2::Camera::open(&device, request)?)),
            None => Ok(Box::new(demo.play(request.rate)?)),
        },
    }
}

fn open_path(path: &Path, request: &CaptureRequest) -> Result<Box<dyn Source>, SourceError> {
    if path.is_dir() {
        return Ok(Box::new(Folder::open(path, request.rate)?));
    }
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("y4m") => Ok(Box::new(files::Y4mFile::open(path, request.rate)?)),
        Some("mjpeg" | "mjpg") => Ok(Box::new(files::MjpegFile::open(path, request.rate)?)),
        _ => Err(SourceError::file(
            path,
            "not a folder and neither .y4m nor .mjpeg; convert it, e.g. with ffmpeg",
        )),
    }
}
