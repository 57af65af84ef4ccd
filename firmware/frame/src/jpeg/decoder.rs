//! JPEG pictures to packed RGB.

use zune_jpeg::JpegDecoder as Zune;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::jpeg::Scanner;
use crate::jpeg::mend::Mended;
use crate::picture::MAX_SIDE;
use crate::{FrameBuffer, FrameError, Layout, PixelFormat, wipe};

/// Pixels that one byte of a picture can stand for at most: some component has a block for every
/// 8 x 8 pixels, and every block takes a bit at least.
const PIXELS_A_BYTE: u64 = 8 * 64;

/// An application segment by which motion JPEG says that it means the usual Huffman tables (OpenDML
/// AVI file format extensions; the tables are in ITU-T T.81, annex K.3).
const USUAL_TABLES: &[u8] = b"\xFF\xE0\0\x07AVI1\0";

/// Turns JPEG pictures into packed RGB.
///
/// A picture without Huffman tables gets the usual ones, as USB cameras expect.
#[derive(Debug, Default)]
pub struct JpegDecoder {
    /// A picture to which [`USUAL_TABLES`] were added.
    completed: Vec<u8>,
}

impl Drop for JpegDecoder {
    /// Memory that is freed holds no picture.
    fn drop(&mut self) {
        wipe(&mut self.completed);
    }
}

/// What the marker structure of a whole picture says.
struct Outline {
    size: (u32, u32),
    length: usize,
    has_huffman_tables: bool,
}

impl JpegDecoder {
    /// Without memory yet.
    pub fn new() -> JpegDecoder {
        JpegDecoder::default()
    }

    /// Decodes `bytes` to [`PixelFormat::Rgb3`]. Bytes after the picture's end are ignored. Flaws are passed over that common readers warn
    /// of and that cost no pixel: bytes that lie between segments, and a missing end marker where the one scan of a picture that is not
    /// progressive has all of its data.
    ///
    /// `into` keeps its memory, its `sequence` and its `captured_at`. After an error its pixels are
    /// undefined.
    ///
    /// # Errors
    /// [`FrameError::Jpeg`] for a picture that is cut off or whose structure is damaged,
    /// [`FrameError::Size`] for one that is too large, [`FrameError::JpegSize`] for one that differs
    /// from `expected`. A picture with a hole in its scan is decoded.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        expected: Option<(u32, u32)>,
        into: &mut FrameBuffer,
    ) -> Result<(), FrameError> {
        if let Ok(outline) = outline(bytes) {
            return self.decode_whole(bytes, &outline, expected, into);
        }
        let mended = Mended::of(bytes)?;
        let outline = outline(&mended.bytes)?;
        match self.decode_whole(&mended.bytes, &outline, expected, into) {
            Err(FrameError::Jpeg(_)) if mended.was_ended => Err(cut_off(bytes)),
            decoded => decoded,
        }
    }

    fn decode_whole(
        &mut self,
        bytes: &[u8],
        outline: &Outline,
        expected: Option<(u32, u32)>,
        into: &mut FrameBuffer,
    ) -> Result<(), FrameError> {
        let (given_width, given_height) = outline.size;
        let layout = Layout::new(PixelFormat::Rgb3, given_width, given_height, 0)?;
        if let Some((width, height)) = expected.filter(|&expected| expected != outline.size) {
            return Err(FrameError::JpegSize { width, height, given_width, given_height });
        }
        if u64::from(given_width) * u64::from(given_height) > PIXELS_A_BYTE * bytes.len() as u64 {
            let length = bytes.len();
            return Err(FrameError::Jpeg(format!(
                "{length} bytes are too few for {given_width} x {given_height} pixels"
            )));
        }
        let bytes = &bytes[..outline.length];
        let bytes = if outline.has_huffman_tables { bytes } else { self.complete(bytes) };
        into.fill_with(layout, |rgb| decode(bytes, outline.size, rgb))
    }

    /// The picture with the usual tables.
    fn complete(&mut self, bytes: &[u8]) -> &[u8] {
        let (start, rest) = bytes.split_at(2);
        let length = bytes.len() + USUAL_TABLES.len();
        // A larger picture gets memory of its own, and the old one's is left overwritten.
        if length > self.completed.capacity() {
            wipe(&mut self.completed);
        }
        self.completed.clear();
        self.completed.reserve(length);
        for part in [start, USUAL_TABLES, rest] {
            self.completed.extend_from_slice(part);
        }
        &self.completed
    }
}

/// Width and height of the JPEG picture that `bytes` begin with, both 1 to [`MAX_SIDE`].
///
/// Only the headers need to be there.
///
/// # Errors
/// [`FrameError::Jpeg`] when there is no frame header, [`FrameError::Size`] for a size that no
/// picture may have.
pub fn size(bytes: &[u8]) -> Result<(u32, u32), FrameError> {
    let mut scanner = Scanner::new();
    let mut scanned = scanner.scan(bytes);
    while scanned.is_err() && scanner.size().is_none() && scanner.pass_strays(bytes) {
        scanned = scanner.scan(bytes);
    }
    let Some((width, height)) = scanner.size() else {
        scanned?;
        return Err(FrameError::Jpeg("there is no frame header".into()));
    };
    Layout::new(PixelFormat::Rgb3, width, height, 0)?;
    Ok((width, height))
}

fn outline(bytes: &[u8]) -> Result<Outline, FrameError> {
    let mut scanner = Scanner::new();
    let Some(length) = scanner.scan(bytes)? else {
        return Err(cut_off(bytes));
    };
    let Some(size) = scanner.size() else {
        return Err(FrameError::Jpeg("there is no frame header".into()));
    };
    Ok(Outline { size, length, has_huffman_tables: scanner.has_huffman_tables() })
}

/// The picture ends before its end.
pub(super) fn cut_off(bytes: &[u8]) -> FrameError {
    FrameError::Jpeg(format!("it is cut off after {} bytes", bytes.len()))
}

fn decode(bytes: &[u8], size: (u32, u32), rgb: &mut [u8]) -> Result<(), FrameError> {
    // Strict: a picture whose end or structure is damaged is dropped, not shown half grey. Bytes that are missing inside a scan
    // cannot be noticed; a camera's driver marks such pictures.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = Zune::new_with_options(ZCursor::new(bytes), options);
    let failed = |error: zune_jpeg::errors::DecodeErrors| FrameError::Jpeg(error.to_string());
    decoder.decode_headers().map_err(failed)?;
    let given = decoder.info().map(|info| (u32::from(info.width), u32::from(info.height)));
    if given != Some(size) || decoder.output_buffer_size() != Some(rgb.len()) {
        return Err(FrameError::Jpeg("its headers contradict each other".into()));
    }
    decoder.decode_into(rgb).map_err(failed)
}
