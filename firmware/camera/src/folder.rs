//! A folder of JPEG and PNG pictures as a source, in the order of their names.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frame::{Frame, FrameBuffer, FrameError, MAX_SIDE, Orientation};

use crate::error::SourceError;
use crate::exif::jpeg_orientation;
use crate::mjpeg::jpeg_layout;
use crate::pace::Pace;
use crate::png_file::decode_png;
use crate::source::{Delivery, Source};

/// Pictures of a folder, one after the other.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    names: Vec<PathBuf>,
    pace: Pace,
    sequence: usize,
    /// Of the last picture.
    orientation: Orientation,
}

impl Folder {
    /// Lists a folder; its pictures come `rate` a second, or as fast as asked for when `rate` is 0.
    ///
    /// # Errors
    /// A folder that cannot be read or has no `.jpg`, `.jpeg` or `.png`.
    pub fn open(path: &Path, rate: u32) -> Result<Folder, SourceError> {
        let unreadable = |e: std::io::Error| SourceError::file(path, e.to_string());
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.path();
            if kind(&name).is_some() && name.is_file() {
                names.push(name);
            }
        }
        if names.is_empty() {
            return Err(SourceError::file(path, "no .jpg or .png picture in it"));
        }
        names.sort();
        let (pace, orientation) = (Pace::new(f64::from(rate)), Orientation::default());
        Ok(Folder { path: path.into(), names, pace, sequence: 0, orientation })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Jpeg,
    Png,
}

fn kind(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => Some(Kind::Jpeg),
        "png" => Some(Kind::Png),
        _ => None,
    }
}

impl Source for Folder {
    fn next(&mut self, into: &mut FrameBuffer, timeout: Duration) -> Result<Delivery, SourceError> {
        if !self.pace.wait(timeout) {
            return Ok(Delivery::Later);
        }
        let Some(name) = self.names.get(self.sequence) else { return Ok(Delivery::End) };
        (into.sequence, into.captured_at) = (self.sequence as u64, Instant::now());
        self.sequence += 1;
        let bytes = std::fs::read(name).map_err(|e| SourceError::picture(name, e.to_string()))?;
        let read = if kind(name) == Some(Kind::Png) {
            decode_png(&bytes, u64::from(MAX_SIDE).pow(2), into)
        } else {
            read_jpeg(&bytes, into)
        };
        self.orientation = read.map_err(|e| SourceError::picture(name, e.to_string()))?;
        Ok(Delivery::Frame)
    }

    fn describe(&self) -> String {
        format!("{}, {} pictures", self.path.display(), self.names.len())
    }

    fn file(&self) -> Option<&Path> {
        self.names.get(self.sequence.checked_sub(1)?).map(PathBuf::as_path)
    }

    fn orientation(&self) -> Orientation {
        self.orientation
    }

    fn is_live(&self) -> bool {
        false
    }
}

/// A JPEG file as it is, which is decoded later, and how it says that it is to be turned.
fn read_jpeg(bytes: &[u8], into: &mut FrameBuffer) -> Result<Orientation, FrameError> {
    into.copy_from(Frame::new(jpeg_layout(bytes)?, bytes)?);
    Ok(jpeg_orientation(bytes).unwrap_or_default())
}
