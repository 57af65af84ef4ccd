//! Which source is behind a name.

use std::path::Path;

use crate::demo::DemoClip;
use crate::error::SourceError;
use crate::files;
use crate::folder::Folder;
use crate::source::{CaptureRequest, Source};
use crate::spec::SourceSpec;
use crate::v4l2;

/// Opens a source; of `request` a camera gives the nearest it can, and `demo` is what [`SourceSpec::Demo`] plays.
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
