//! Picture files for `mirror parse` and `mirror eval`: JPEG and PNG in, label maps in and out.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use frame::jpeg::JpegDecoder;
use frame::{FrameBuffer, Layout, PixelFormat};
use png::{BitDepth, ColorType, Compression, Transformations};

/// Largest number of bytes a PNG may decode to: 8192 x 8192 pixels of 8 bytes.
const MOST_BYTES: usize = 8192 * 8192 * 8;

/// A map of class indices, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width * height` indices.
    pub labels: Vec<u8>,
}

/// Reads a JPEG or PNG file as packed RGB; alpha is ignored, grey becomes colour.
///
/// # Errors
/// A file that cannot be read or is neither; the message names it.
pub fn read_picture(path: &Path, into: &mut FrameBuffer) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let decoded = match bytes.as_slice() {
        [0xFF, 0xD8, ..] => decode_jpeg(&bytes, into),
        [0x89, b'P', b'N', b'G', ..] => decode_png(&bytes, into),
        _ => Err(anyhow::anyhow!("neither a JPEG nor a PNG file; convert it first")),
    };
    decoded.with_context(|| path.display().to_string())
}

fn decode_jpeg(bytes: &[u8], into: &mut FrameBuffer) -> Result<()> {
    Ok(JpegDecoder::new().decode(bytes, None, into)?)
}

fn decode_png(bytes: &[u8], into: &mut FrameBuffer) -> Result<()> {
    let png = Png::decode(bytes, Transformations::normalize_to_color8())?;
    let channels = png.colour.samples();
    let layout = Layout::new(PixelFormat::Rgb3, png.width, png.height, 0)?;
    into.fill_with(layout, |rgb| {
        for (rgb, pixel) in rgb.chunks_exact_mut(3).zip(png.bytes.chunks_exact(channels)) {
            match channels {
                1 | 2 => rgb.fill(pixel[0]),
                _ => rgb.copy_from_slice(&pixel[..3]),
            }
        }
        Ok(())
    })
}

/// Reads a map of class indices: a grey PNG, or the indices (not the colours) of a palette PNG.
///
/// # Errors
/// A file that cannot be read, or that has more than one value a pixel.
pub fn read_labels(path: &Path) -> Result<LabelMap> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    decode_labels(&bytes).with_context(|| path.display().to_string())
}

fn decode_labels(bytes: &[u8]) -> Result<LabelMap> {
    let png = Png::decode(bytes, Transformations::IDENTITY)?;
    ensure!(
        matches!(png.colour, ColorType::Grayscale | ColorType::Indexed),
        "a label map has one value a pixel, this file has {}; save it as 8-bit grey",
        png.colour.samples()
    );
    let bits = match png.depth {
        BitDepth::One => 1,
        BitDepth::Two => 2,
        BitDepth::Four => 4,
        BitDepth::Eight => 8,
        BitDepth::Sixteen => bail!("a label map has 8 bits a pixel, this file has 16"),
    };
    let (width, height) = (png.width, png.height);
    let mut labels = Vec::with_capacity(width as usize * height as usize);
    for row in png.bytes.chunks_exact(png.stride) {
        labels.extend((0..width as usize).map(|x| unpack(row, x, bits)));
    }
    Ok(LabelMap { width, height, labels })
}

/// The `x`-th value of a row of `bits` a value, most significant bits first (PNG specification,
/// section 7.2).
fn unpack(row: &[u8], x: usize, bits: usize) -> u8 {
    let bit = x * bits;
    let shifted = row[bit / 8] >> (8 - bits - bit % 8);
    shifted & (u8::MAX >> (8 - bits))
}

struct Png {
    width: u32,
    height: u32,
    colour: ColorType,
    depth: BitDepth,
    /// Bytes of a row.
    stride: usize,
    bytes: Vec<u8>,
}

impl Png {
    fn decode(bytes: &[u8], transformations: Transformations) -> Result<Png> {
        let mut decoder = png::Decoder::new_with_limits(
            std::io::Cursor::new(bytes),
            png::Limits { bytes: MOST_BYTES },
        );
        decoder.set_transformations(transformations);
        let mut reader = decoder.read_info()?;
        let size = reader.output_buffer_size().unwrap_or(usize::MAX);
        ensure!(size <= MOST_BYTES, "the picture is too large; 8192 x 8192 pixels are the most");
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes)?;
        Ok(Png {
            width: info.width,
            height: info.height,
            colour: info.color_type,
            depth: info.bit_depth,
            stride: info.line_size,
            bytes,
        })
    }
}

/// Writes a map of class indices as an 8-bit grey PNG.
///
/// # Errors
/// A file that cannot be written.
pub fn write_labels(path: &Path, map: &LabelMap) -> Result<()> {
    write(path, (map.width, map.height), ColorType::Grayscale, None, &map.labels)
}

/// Writes a map of class indices as a palette PNG, red, green and blue for each index.
///
/// # Errors
/// A file that cannot be written.
pub fn write_coloured(path: &Path, map: &LabelMap, palette: Vec<u8>) -> Result<()> {
    write(path, (map.width, map.height), ColorType::Indexed, Some(palette), &map.labels)
}

fn write(
    path: &Path,
    (width, height): (u32, u32),
    colour: ColorType,
    palette: Option<Vec<u8>>,
    bytes: &[u8],
) -> Result<()> {
    let save = || -> Result<()> {
        let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width, height);
        encoder.set_color(colour);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Fast);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(bytes)?;
        Ok(writer.finish()?)
    };
    save().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(colour: ColorType, depth: BitDepth, width: u32, bytes: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, 1);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            encoder.set_palette(vec![9; 48]);
        }
        let mut writer = encoder.write_header().expect("valid header");
        writer.write_image_data(bytes).expect("as many bytes as the header says");
        writer.finish().expect("in memory");
        file
    }

    #[test]
    fn palette_files_give_their_indices() {
        let labels = |file: &[u8]| decode_labels(file).expect("valid").labels;
        assert_eq!(labels(&png(ColorType::Indexed, BitDepth::Eight, 3, &[0, 15, 7])), [0, 15, 7]);
        assert_eq!(labels(&png(ColorType::Indexed, BitDepth::Four, 3, &[0x1F, 0x70])), [1, 15, 7]);
        assert_eq!(labels(&png(ColorType::Grayscale, BitDepth::One, 3, &[0b1010_0000])), [1, 0, 1]);
        assert_eq!(labels(&png(ColorType::Grayscale, BitDepth::Two, 3, &[0b1101_1000])), [3, 1, 2]);
    }

    #[test]
    fn colours_are_no_labels() {
        let file = png(ColorType::Rgb, BitDepth::Eight, 1, &[1, 2, 3]);
        let error = decode_labels(&file).expect_err("three values a pixel").to_string();
        assert!(error.contains("8-bit grey"), "{error}");
    }

    #[test]
    fn every_png_becomes_rgb() {
        let rgb = |file: &[u8]| {
            let mut picture = FrameBuffer::new();
            decode_png(file, &mut picture).expect("valid");
            picture.frame().bytes().to_vec()
        };
        assert_eq!(rgb(&png(ColorType::Rgb, BitDepth::Eight, 1, &[1, 2, 3])), [1, 2, 3]);
        assert_eq!(rgb(&png(ColorType::Rgba, BitDepth::Eight, 1, &[1, 2, 3, 0])), [1, 2, 3]);
        assert_eq!(rgb(&png(ColorType::Grayscale, BitDepth::Eight, 1, &[7])), [7, 7, 7]);
        assert_eq!(rgb(&png(ColorType::GrayscaleAlpha, BitDepth::Eight, 1, &[7, 1])), [7, 7, 7]);
        assert_eq!(rgb(&png(ColorType::Rgb, BitDepth::Sixteen, 1, &[5, 0, 6, 0, 7, 0])), [5, 6, 7]);
        assert_eq!(rgb(&png(ColorType::Indexed, BitDepth::Eight, 1, &[3])), [9, 9, 9]);
    }

    #[test]
    fn what_is_no_picture_is_refused_by_name() {
        let path = std::env::temp_dir().join(format!("mirror-no-picture-{}", std::process::id()));
        fs::write(&path, "hello").expect("writable");
        let mut picture = FrameBuffer::new();
        let error = format!("{:#}", read_picture(&path, &mut picture).expect_err("a text"));
        assert!(error.contains("mirror-no-picture") && error.contains("JPEG"), "{error}");
        for broken in [&b"\x89PNG\r\n\x1a\n\0\0"[..], b"\xFF\xD8\xFF\xE0\0\x10JF"] {
            fs::write(&path, broken).expect("writable");
            assert!(read_picture(&path, &mut picture).is_err());
        }
        fs::remove_file(&path).expect("ours");
    }
}
