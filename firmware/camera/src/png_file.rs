//! PNG files of pictures: how they are read, what they say of their picture, and its pixels.

use std::io::Cursor;

use frame::{FrameBuffer, FrameError, Layout, MAX_SIDE, Orientation, PixelFormat, wipe};
use png::{Decoder, DecodingError, Info, Limits, Reader, Transformations};

use crate::exif::exif_orientation;

/// Memory for what is read beside the pixels.
const MOST_BYTES: usize = 3 * (MAX_SIDE as usize) * (MAX_SIDE as usize);

/// A PNG file up to its pixels, which come as `values` says.
///
/// # Errors
/// A file that is damaged, or that needs more memory than a picture has bytes.
pub fn png_reader(
    bytes: &[u8],
    values: Transformations,
) -> Result<Reader<Cursor<&[u8]>>, DecodingError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MOST_BYTES });
    decoder.set_transformations(values);
    // Texts and colour profiles are compressed and of no use here: what is not unpacked cannot burst.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.read_info()
}

/// The picture of a PNG file as packed RGB, as it lies, and how the file says that it is to be turned.
///
/// # Errors
/// [`FrameError::Size`] for a size that no picture may have.
pub fn png_said(info: &Info<'_>) -> Result<(Layout, Orientation), FrameError> {
    let (width, height) = info.size();
    let layout = Layout::new(PixelFormat::Rgb3, width, height, 0)?;
    let orientation = info.exif_metadata.as_deref().and_then(exif_orientation);
    Ok((layout, orientation.unwrap_or_default()))
}

/// Decodes a PNG file of at most `most` pixels as packed RGB; alpha is ignored, grey becomes colour. Its size is looked at before its
/// pixels are. Gives how the file says that its picture is to be turned, which it is not.
///
/// # Errors
/// [`FrameError::Png`] for a file that is damaged or has too many pixels, [`FrameError::Size`] for a size that no picture may have.
pub fn decode_png(
    bytes: &[u8],
    most: u64,
    into: &mut FrameBuffer,
) -> Result<Orientation, FrameError> {
    let failed = |e: &dyn std::fmt::Display| FrameError::Png(e.to_string());
    let mut reader =
        png_reader(bytes, Transformations::normalize_to_color8()).map_err(|e| failed(&e))?;
    let (layout, orientation) = png_said(reader.info())?;
    let (width, height) = (layout.width(), layout.height());
    if u64::from(width) * u64::from(height) > most {
        let text = format!("{width} x {height} pixels are too many; {most} are the most");
        return Err(FrameError::Png(text));
    }
    let size = reader.output_buffer_size().ok_or_else(|| failed(&"too large"))?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).map_err(|e| failed(&e))?;
    let samples = info.color_type.samples();
    let filled = into.fill_with(layout, |out| {
        for (rgb, pixel) in out.chunks_exact_mut(3).zip(pixels.chunks_exact(samples)) {
            match samples {
                1 | 2 => rgb.fill(pixel[0]),
                _ => rgb.copy_from_slice(&pixel[..3]),
            }
        }
        Ok::<(), FrameError>(())
    });
    // Memory that is freed holds no picture.
    wipe(&mut pixels);
    filled.map(|()| orientation)
}
