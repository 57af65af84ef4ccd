//! Picture files: JPEG and PNG in, label maps in and out, as files for the commands and in memory for the page, the fleet and folders.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use frame::jpeg::JpegDecoder;
use frame::{Frame, FrameBuffer, FrameError, Layout, Orientation, PixelFormat};
use png::{BitDepth, ColorType, Compression, Transformations};

use crate::private;

/// Largest number of pixels of a file on the command line.
const MOST_PIXELS: u64 = 8192 * 8192;

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

/// What a picture's file says of it before its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Width and height in pixels, as the file lies.
    pub size: (u32, u32),
    /// How it is turned to be seen upright.
    pub orientation: Orientation,
}

/// Reads what a JPEG or PNG file says of its picture.
///
/// # Errors
/// A file that cannot be read, is neither, or whose picture is too large; the message names it.
pub fn read_header(path: &Path) -> Result<Header> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    header(&bytes, MOST_PIXELS).with_context(|| path.display().to_string())
}

fn header(bytes: &[u8], most: u64) -> Result<Header> {
    let header = match bytes {
        [0xFF, 0xD8, ..] => Header {
            size: frame::jpeg::size(bytes)?,
            orientation: camera::jpeg_orientation(bytes).unwrap_or_default(),
        },
        [0x89, b'P', b'N', b'G', ..] => png_header(bytes)?,
        _ => bail!("neither a JPEG nor a PNG file; convert it first"),
    };
    check_size(header.size.0, header.size.1, most)?;
    Ok(header)
}

fn png_header(bytes: &[u8]) -> Result<Header> {
    let reader = camera::png_reader(bytes, Transformations::IDENTITY)?;
    let (layout, orientation) = camera::png_said(reader.info())?;
    Ok(Header { size: (layout.width(), layout.height()), orientation })
}

/// Reads a JPEG or PNG file as packed RGB, as people see it; alpha is ignored, grey becomes colour. Telephones leave pictures as
/// their sensor took them and note how they are to be turned, which is what this gives. Label maps of data sets are mostly drawn over the pixels of the file; for those there is [`turn_back`].
///
/// # Errors
/// A file that cannot be read or is neither; the message names it.
pub fn read_upright(path: &Path, into: &mut FrameBuffer) -> Result<Orientation> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    decode_upright(&bytes, MOST_PIXELS, into).with_context(|| path.display().to_string())
}

/// [`decode`], as people see it; see [`read_upright`].
///
/// # Errors
/// As [`decode`].
pub fn decode_upright(bytes: &[u8], most: u64, into: &mut FrameBuffer) -> Result<Orientation> {
    let orientation = header(bytes, most)?.orientation;
    if orientation == Orientation::default() {
        decode(bytes, most, into)?;
    } else {
        let mut lying = FrameBuffer::new();
        decode(bytes, most, &mut lying)?;
        turn(orientation, &lying.frame(), into)?;
    }
    Ok(orientation)
}

/// Labels of an upright picture, as its file of `width` x `height` pixels lies.
pub fn turn_back(
    orientation: Orientation,
    upright: Vec<u8>,
    (width, height): (u32, u32),
) -> Vec<u8> {
    if orientation == Orientation::default() {
        return upright;
    }
    let mut lying = vec![0; upright.len()];
    for (label, (x, y)) in upright.iter().zip(places(orientation, (width, height))) {
        lying[y as usize * width as usize + x as usize] = *label;
    }
    lying
}

/// For every pixel of an upright picture in turn, its column and row in the file of `width` x `height` pixels.
fn places(
    orientation: Orientation,
    (width, height): (u32, u32),
) -> impl Iterator<Item = (u32, u32)> {
    let (across, down) = orientation.upright_size(width, height);
    let upright = (0..down).flat_map(move |y| (0..across).map(move |x| (x, y)));
    upright.map(move |(x, y)| orientation.to_camera(x, y, width, height))
}

/// Turns packed RGB into other memory, which keeps its `sequence` and its `captured_at`.
///
/// # Errors
/// A size that no picture has.
pub fn turn(
    orientation: Orientation,
    lying: &Frame<'_>,
    into: &mut FrameBuffer,
) -> Result<(), FrameError> {
    let layout = lying.layout();
    let (width, height) = (layout.width(), layout.height());
    let (across, down) = orientation.upright_size(width, height);
    into.fill_with(Layout::new(PixelFormat::Rgb3, across, down, 0)?, |rgb| {
        for (rgb, (x, y)) in rgb.chunks_exact_mut(3).zip(places(orientation, (width, height))) {
            let at = y as usize * layout.stride() + 3 * x as usize;
            rgb.copy_from_slice(&lying.bytes()[at..at + 3]);
        }
        Ok(())
    })
}

/// Decodes a JPEG or PNG file of at most `most` pixels as packed RGB. Its size is looked at before its pixels are.
///
/// # Errors
/// Bytes that are neither, that are damaged, or that have too many pixels.
pub fn decode(bytes: &[u8], most: u64, into: &mut FrameBuffer) -> Result<()> {
    header(bytes, most)?;
    match bytes {
        [0xFF, ..] => JpegDecoder::new().decode(bytes, None, into)?,
        _ => drop(camera::decode_png(bytes, most, into)?),
    }
    Ok(())
}

fn check_size(width: u32, height: u32, most: u64) -> Result<()> {
    let pixels = u64::from(width) * u64::from(height);
    ensure!(pixels <= most, "{width} x {height} pixels are too many; {most} are the most");
    Ok(())
}

/// Reads a map of class indices: a grey PNG, or the indices (not the colours) of a palette PNG.
///
/// # Errors
/// A file that cannot be read, or that has more than one value a pixel.
pub fn read_labels(path: &Path) -> Result<LabelMap> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    decode_labels(&bytes, MOST_PIXELS).with_context(|| path.display().to_string())
}

/// [`read_labels`] from memory, with at most `most` pixels.
///
/// # Errors
/// Bytes that are no map of class indices, or that have too many pixels.
pub fn decode_labels(bytes: &[u8], most: u64) -> Result<LabelMap> {
    let png = Png::decode(bytes, most)?;
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
    /// Values as the file has them.
    fn decode(bytes: &[u8], most: u64) -> Result<Png> {
        let mut reader = camera::png_reader(bytes, Transformations::IDENTITY)?;
        let (width, height) = reader.info().size();
        check_size(width, height, most)?;
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
    size: (u32, u32),
    colour: ColorType,
    palette: Option<Vec<u8>>,
    bytes: &[u8],
) -> Result<()> {
    let mut file = Vec::new();
    encode(&mut file, size, colour, palette, bytes)
        .with_context(|| format!("cannot write {}", path.display()))?;
    write_whole(path, &file)
}

/// Writes a result whole or not at all, also where the program is ended: whoever works with a folder of them takes none that was cut off
/// for one. A power cut soon after may leave it empty; then the picture is parsed once more.
///
/// # Errors
/// A file that cannot be written; what was there before is still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    private::put_whole(path, Path::new(&beside), bytes)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A map of class indices as a palette PNG in memory.
///
/// # Errors
/// Sides of zero.
pub fn coloured_png(
    (width, height): (u32, u32),
    labels: &[u8],
    palette: Vec<u8>,
) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    encode(&mut file, (width, height), ColorType::Indexed, Some(palette), labels)?;
    Ok(file)
}

/// A map of class indices as an 8-bit grey PNG in memory.
///
/// # Errors
/// Sides of zero.
pub fn grey_png((width, height): (u32, u32), labels: &[u8]) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    encode(&mut file, (width, height), ColorType::Grayscale, None, labels)?;
    Ok(file)
}

/// A picture, red, green and blue of every pixel, as a PNG in memory.
///
/// # Errors
/// Sides of zero.
pub fn rgb_png((width, height): (u32, u32), rgb: &[u8]) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    encode(&mut file, (width, height), ColorType::Rgb, None, rgb)?;
    Ok(file)
}

fn encode(
    out: impl std::io::Write,
    (width, height): (u32, u32),
    colour: ColorType,
    palette: Option<Vec<u8>>,
    bytes: &[u8],
) -> Result<()> {
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_color(colour);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use frame::Rotation;

    use super::*;
    use crate::run::counting;
    use crate::testing::Folder;

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
        let labels = |file: &[u8]| decode_labels(file, 64).expect("valid").labels;
        assert_eq!(labels(&png(ColorType::Indexed, BitDepth::Eight, 3, &[0, 15, 7])), [0, 15, 7]);
        assert_eq!(labels(&png(ColorType::Indexed, BitDepth::Four, 3, &[0x1F, 0x70])), [1, 15, 7]);
        assert_eq!(labels(&png(ColorType::Grayscale, BitDepth::One, 3, &[0b1010_0000])), [1, 0, 1]);
        assert_eq!(labels(&png(ColorType::Grayscale, BitDepth::Two, 3, &[0b1101_1000])), [3, 1, 2]);
    }

    #[test]
    fn colours_are_no_labels() {
        let file = png(ColorType::Rgb, BitDepth::Eight, 1, &[1, 2, 3]);
        let error = decode_labels(&file, 64).expect_err("three values a pixel").to_string();
        assert!(error.contains("8-bit grey"), "{error}");
    }

    #[test]
    fn every_png_becomes_rgb() {
        let rgb = |file: &[u8]| {
            let mut picture = FrameBuffer::new();
            decode(file, 64, &mut picture).expect("valid");
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
    fn a_png_is_turned_as_its_exif_data_say() {
        let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut info = png::Info::with_size(2, 1);
        (info.color_type, info.bit_depth) = (ColorType::Grayscale, BitDepth::Eight);
        info.exif_metadata = Some(exif.to_vec().into());
        let mut file = Vec::new();
        let mut writer =
            png::Encoder::with_info(&mut file, info).and_then(|e| e.write_header()).expect("valid");
        writer.write_image_data(b"ab").expect("two pixels");
        writer.finish().expect("in memory");
        let mut picture = FrameBuffer::new();
        let orientation = decode_upright(&file, 64, &mut picture).expect("valid");
        assert_eq!(orientation.rotation, Rotation::Clockwise90);
        assert_eq!(header(&file, 64).expect("valid"), Header { size: (2, 1), orientation });
        let layout = picture.frame().layout();
        assert_eq!((layout.width(), layout.height()), (1, 2));
        assert_eq!(picture.frame().bytes(), b"aaabbb");
    }

    #[test]
    fn a_file_without_its_end_marker_is_a_picture() {
        let mut jpeg = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
        encoder.encode(&[90; 16 * 8 * 3], 16, 8, jpeg_encoder::ColorType::Rgb).expect("encodes");
        let mut picture = FrameBuffer::new();
        decode_upright(&jpeg[..jpeg.len() - 2], 1000, &mut picture).expect("all of its pixels");
        assert!(decode_upright(&jpeg[..jpeg.len() - 6], 1000, &mut picture).is_err());
    }

    #[test]
    fn too_many_pixels_are_refused_before_they_are_decoded() {
        let mut picture = FrameBuffer::new();
        // Megapixels in a hundred bytes: headers only.
        let bomb = with_chunks((8000, 8000), &[(png::chunk::IDAT, &[0])]);
        let jpeg = b"\xFF\xD8\xFF\xE0\0\x04ab\xFF\xC0\0\x0B\x08\x1F\xFF\x1F\xFF\x01\x01\x11\0";
        let refused = decode(jpeg, 1000, &mut picture).expect_err("too many").to_string();
        assert!(refused.contains("8191 x 8191") && refused.contains("too many"), "{refused}");
        let refused = decode(&bomb, 1000, &mut picture).expect_err("too many").to_string();
        assert!(refused.contains("8000 x 8000 pixels are too many"), "{refused}");
        let refused = decode_labels(&bomb, 1000).expect_err("too many").to_string();
        assert!(refused.contains("8000 x 8000 pixels are too many"), "{refused}");
        for cut in 0..jpeg.len() {
            assert!(decode(&jpeg[..cut], 1000, &mut picture).is_err());
        }
    }

    /// A grey PNG of this size with these chunks and no others behind its header.
    fn with_chunks(
        (width, height): (u32, u32),
        chunks: &[(png::chunk::ChunkType, &[u8])],
    ) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer =
            png::Encoder::new(&mut file, width, height).write_header().expect("valid header");
        for (kind, content) in chunks {
            writer.write_chunk(*kind, content).expect("in memory");
        }
        drop(writer);
        file
    }

    /// Twenty million zeros as the chunks of a PNG hold them.
    fn many_zeros() -> Vec<u8> {
        let file = grey_png((5000, 4000), &vec![0; 5000 * 4000]).expect("encodes");
        let (mut at, mut packed) = (8, Vec::new());
        while at < file.len() {
            let four = file[at..at + 4].try_into().expect("four bytes");
            let content = at + 8..at + 8 + u32::from_be_bytes(four) as usize;
            if &file[at + 4..at + 8] == b"IDAT" {
                packed.extend_from_slice(&file[content.clone()]);
            }
            at = content.end + 4;
        }
        packed
    }

    #[test]
    fn what_bursts_when_it_is_unpacked_takes_no_memory() {
        let zeros = many_zeros();
        let profile = [&b"a\0\0"[..], &zeros].concat();
        let own = grey_png((8, 8), &[7; 64]).expect("encodes");
        let (from, to) = (8 + 25 + 8, own.len() - 12 - 4);
        let own = &own[from..to];
        let (iccp, text) = (png::chunk::iCCP, png::chunk::zTXt);
        for (chunks, shade) in [
            (vec![(png::chunk::IDAT, &zeros[..])], 0),
            (vec![(iccp, &profile[..]), (png::chunk::IDAT, own)], 7),
            (vec![(text, &profile[..]), (png::chunk::IDAT, own)], 7),
        ] {
            let bomb = with_chunks((8, 8), &chunks);
            assert!(bomb.len() < 200_000, "packed");
            let mut picture = FrameBuffer::new();
            let most = counting::largest_during(|| {
                decode(&bomb, 1000, &mut picture).expect("a picture of 8 x 8");
            });
            assert!(most < 1 << 20, "{most} bytes for {:?}", chunks[0].0);
            assert_eq!(picture.frame().bytes(), [shade; 8 * 8 * 3]);
        }
    }

    #[test]
    fn a_picture_that_is_laid_and_turned_is_what_it_was() {
        let upright: Vec<u8> = (0..3 * 7 * 5).collect();
        for degrees in [0, 90, 180, 270] {
            for flip_horizontal in [false, true] {
                let rotation = Rotation::from_degrees(degrees).expect("a quarter");
                let orientation = Orientation { rotation, flip_horizontal };
                let (mut laid, mut turned) = (FrameBuffer::new(), FrameBuffer::new());
                let layout = Layout::new(PixelFormat::Rgb3, 7, 5, 0).expect("small");
                let picture = Frame::new(layout, &upright).expect("whole");
                turn(orientation.inverse(), &picture, &mut laid).expect("small");
                let layout = laid.frame().layout();
                let lying = (layout.width(), layout.height());
                assert_eq!(lying, orientation.upright_size(7, 5));
                let reds = |picture: &FrameBuffer| -> Vec<u8> {
                    picture.frame().bytes().iter().step_by(3).copied().collect()
                };
                turn(orientation, &laid.frame(), &mut turned).expect("small");
                assert_eq!(turned.frame().bytes(), upright, "{orientation:?}");
                assert_eq!(turn_back(orientation, reds(&turned), lying), reds(&laid));
                let again = counting::during(|| {
                    turn(orientation, &laid.frame(), &mut turned).expect("small");
                });
                assert_eq!(again, 0, "allocations in memory that has its size");
            }
        }
    }

    #[test]
    fn what_is_no_picture_is_refused_by_name() {
        let folder = Folder::new("no-picture");
        let path = folder.path().join("text");
        fs::write(&path, "hello").expect("writable");
        let mut picture = FrameBuffer::new();
        let error = format!("{:#}", read_upright(&path, &mut picture).expect_err("a text"));
        assert!(error.contains("mirror-no-picture") && error.contains("JPEG"), "{error}");
        for broken in [&b"\x89PNG\r\n\x1a\n\0\0"[..], b"\xFF\xD8\xFF\xE0\0\x10JF"] {
            fs::write(&path, broken).expect("writable");
            assert!(read_upright(&path, &mut picture).is_err());
        }
    }
}
