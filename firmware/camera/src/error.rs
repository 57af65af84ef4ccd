//! What a source can suffer, and which of it costs only one picture.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use frame::FrameError;
use thiserror::Error;

/// Why there is no picture. Every message names the device or file, but that of a single picture of a stream: whoever reads it knows
/// which stream that is.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum SourceError {
    #[error("cannot open {name}: no such device; is the camera plugged in?")]
    Absent { name: String },
    #[error("cannot open {name}: {reason}")]
    Open { name: String, reason: String },
    #[error("{name} was unplugged; plug it in again")]
    Unplugged { name: String },
    #[error("{name} failed: {reason}")]
    Failed { name: String, reason: String },
    #[error("{name} gave no picture for {:.1} s; check its cable, or try another port", waited.as_secs_f32())]
    TimedOut { name: String, waited: Duration },
    #[error("{name} was asked for {wanted} and gives {given}; {next}")]
    Format { name: String, wanted: String, given: String, next: String },
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("{path}: {reason}")]
    Picture { path: PathBuf, reason: String },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl SourceError {
    /// Whether only one picture is lost and the source can be kept. Everything else means: drop it, wait, open again.
    pub fn is_frame_only(&self) -> bool {
        matches!(self, SourceError::Frame(_) | SourceError::Picture { .. })
    }

    /// Whether it may be the cable: the device is not there, or gives nothing.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            SourceError::Absent { .. }
                | SourceError::Unplugged { .. }
                | SourceError::TimedOut { .. }
        )
    }

    pub(crate) fn open(name: impl Into<String>, error: &io::Error) -> SourceError {
        let name = name.into();
        let advice = match error.kind() {
            io::ErrorKind::NotFound => return SourceError::Absent { name },
            io::ErrorKind::PermissionDenied => {
                "permission denied; add this user to the group video".into()
            }
            io::ErrorKind::ResourceBusy => {
                "it is in use by another program, or nothing feeds its bridge; close or start that \
                 first"
                    .into()
            }
            _ if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
                return SourceError::Absent { name };
            }
            _ if error.raw_os_error() == Some(libc::ENOTTY) => {
                "it is no camera; name another with camera.device".into()
            }
            _ => error.to_string(),
        };
        SourceError::Open { name, reason: advice }
    }

    /// A picture that has a file of its own, or a place in one, and why it is lost.
    pub fn picture(path: impl Into<PathBuf>, reason: impl Into<String>) -> SourceError {
        SourceError::Picture { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl Into<String>) -> SourceError {
        SourceError::File { path: path.into(), reason: reason.into() }
    }
}
