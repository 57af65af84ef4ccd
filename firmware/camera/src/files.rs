//! Video files as sources.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frame::{Frame, FrameBuffer};
use tracing::warn;

use crate::error::SourceError;
use crate::mjpeg::{Search, jpeg_layout};
use crate::pace::Pace;
use crate::source::{Delivery, Source};
use crate::y4m::{Header, LONGEST_LINE};

/// A Y4M file, read picture by picture.
#[derive(Debug)]
pub struct Y4mFile {
    path: PathBuf,
    reader: BufReader<File>,
    header: Header,
    planar: Vec<u8>,
    pace: Pace,
    sequence: u64,
}

impl Y4mFile {
    /// Opens a file; `rate` 0 plays it as fast as asked for.
    ///
    /// # Errors
    /// A file that cannot be read, or whose header is not understood.
    pub fn open(path: &Path, rate: u32) -> Result<Y4mFile, SourceError> {
        let file = File::open(path).map_err(|e| SourceError::file(path, e.to_string()))?;
        let mut reader = BufReader::new(file);
        let line = read_line(&mut reader).map_err(|e| SourceError::file(path, e))?;
        let header = Header::parse(&line).map_err(|e| SourceError::file(path, e))?;
        let wanted = if header.rate > 0.0 { header.rate } else { f64::from(rate) };
        let pace = Pace::new(if rate == 0 { 0.0 } else { wanted });
        let planar = vec![0; header.picture_bytes()];
        Ok(Y4mFile { path: path.into(), reader, header, planar, pace, sequence: 0 })
    }

    /// The next picture's planes; false at the end of the file. The error says what is wrong with it.
    fn read_picture(&mut self) -> Result<bool, String> {
        if self.reader.fill_buf().map_err(|e| e.to_string())?.is_empty() {
            return Ok(false);
        }
        let line = read_line(&mut self.reader)?;
        if line.split(' ').next() != Some("FRAME") {
            return Err(format!("picture {} does not begin with FRAME", self.sequence));
        }
        let cut_off = |_| format!("picture {} is cut off; the file is incomplete", self.sequence);
        self.reader.read_exact(&mut self.planar).map_err(cut_off)?;
        Ok(true)
    }
}

/// What is wrong with a file after its first picture ends it: opened anew, it would begin once more.
fn ended(path: &Path, sequence: u64, reason: String) -> Result<Delivery, SourceError> {
    if sequence == 0 {
        return Err(SourceError::file(path, reason));
    }
    warn!("{}: {reason}; it ends here", path.display());
    Ok(Delivery::End)
}

/// One line without its newline.
fn read_line(reader: &mut impl BufRead) -> Result<String, String> {
    let mut line = Vec::new();
    let mut limited = reader.take(LONGEST_LINE as u64);
    limited.read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
    if line.pop() != Some(b'\n') {
        return Err("a header line does not end; the file is damaged".into());
    }
    String::from_utf8(line).map_err(|_| "not a YUV4MPEG2 file".into())
}

impl Source for Y4mFile {
    fn next(&mut self, into: &mut FrameBuffer, timeout: Duration) -> Result<Delivery, SourceError> {
        if !self.pace.wait(timeout) {
            return Ok(Delivery::Later);
        }
        match self.read_picture() {
            Ok(true) => {}
            Ok(false) => return Ok(Delivery::End),
            Err(reason) => return ended(&self.path, self.sequence, reason),
        }
        let header = self.header;
        into.fill_with(header.layout()?, |out| {
            header.interleave(&self.planar, out);
            Ok::<(), SourceError>(())
        })?;
        (into.sequence, into.captured_at) = (self.sequence, Instant::now());
        self.sequence += 1;
        Ok(Delivery::Frame)
    }

    fn describe(&self) -> String {
        format!("{}, Y4M {} x {}", self.path.display(), self.header.width, self.header.height)
    }

    fn is_live(&self) -> bool {
        false
    }
}

/// How much of an MJPEG file is read at a time.
const CHUNK: u64 = 1 << 16;
/// A picture longer than this is not one.
const LONGEST_PICTURE: usize = 32 << 20;

/// An MJPEG file: JPEG files one after the other.
#[derive(Debug)]
pub struct MjpegFile {
    path: PathBuf,
    file: File,
    waiting: Vec<u8>,
    search: Search,
    pace: Pace,
    sequence: u64,
}

impl MjpegFile {
    /// Opens a file; its pictures come `rate` a second, or as fast as asked for when `rate` is 0.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(path: &Path, rate: u32) -> Result<MjpegFile, SourceError> {
        let file = File::open(path).map_err(|e| SourceError::file(path, e.to_string()))?;
        let pace = Pace::new(f64::from(rate));
        let (waiting, search) = (Vec::new(), Search::default());
        Ok(MjpegFile { path: path.into(), file, waiting, search, pace, sequence: 0 })
    }

    /// Where the next picture lies in `waiting`; none at the end of the file. The error says what is wrong with it.
    fn read_picture(&mut self) -> Result<Option<Range<usize>>, String> {
        loop {
            if let Some(range) = self.search.next(&self.waiting) {
                return Ok(Some(range));
            }
            if self.waiting.len() > LONGEST_PICTURE {
                return Err("no whole picture in 32 MiB; the file is damaged or not MJPEG".into());
            }
            let read = (&mut self.file).take(CHUNK).read_to_end(&mut self.waiting);
            if read.map_err(|e| e.to_string())? > 0 {
                continue;
            }
            return match self.sequence {
                0 => Err("no whole picture in it; not an MJPEG file".into()),
                _ => Ok(None),
            };
        }
    }
}

impl Source for MjpegFile {
    fn next(&mut self, into: &mut FrameBuffer, timeout: Duration) -> Result<Delivery, SourceError> {
        if !self.pace.wait(timeout) {
            return Ok(Delivery::Later);
        }
        let range = match self.read_picture() {
            Ok(Some(range)) => range,
            Ok(None) => return Ok(Delivery::End),
            Err(reason) => return ended(&self.path, self.sequence, reason),
        };
        let picture = &self.waiting[range.clone()];
        let read = jpeg_layout(picture)
            .and_then(|layout| Frame::new(layout, picture))
            .map(|frame| into.copy_from(frame));
        self.waiting.drain(..range.end);
        self.search = Search::default();
        (into.sequence, into.captured_at) = (self.sequence, Instant::now());
        self.sequence += 1;
        read.map_err(|e| {
            SourceError::picture(&self.path, format!("picture {}: {e}", self.sequence))
        })?;
        Ok(Delivery::Frame)
    }

    fn describe(&self) -> String {
        format!("{}, MJPEG", self.path.display())
    }

    fn is_live(&self) -> bool {
        false
    }
}
