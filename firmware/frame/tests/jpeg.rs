//! JPEG pictures, whole and broken.

use frame::jpeg::{JpegDecoder, size};
use frame::{FrameBuffer, FrameError, PixelFormat};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use proptest::prelude::*;

/// A picture of soft colours, which JPEG keeps well.
fn pixels(width: u16, height: u16) -> Vec<u8> {
    let colour = |x: u32, y: u32| {
        [x * 255 / u32::from(width), y * 255 / u32::from(height), 128].map(|value| value as u8)
    };
    let rows = 0..u32::from(height);
    rows.flat_map(|y| (0..u32::from(width)).flat_map(move |x| colour(x, y))).collect()
}

fn encode(width: u16, height: u16, set: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 95);
    set(&mut encoder);
    encoder.encode(&pixels(width, height), width, height, ColorType::Rgb).expect("in memory");
    file
}

fn usual() -> Vec<u8> {
    encode(64, 48, |encoder| encoder.set_sampling_factor(SamplingFactor::F_2_2))
}

fn check(file: &[u8], width: u16, height: u16) {
    let mut buffer = FrameBuffer::new();
    buffer.sequence = 7;
    let expected = Some((u32::from(width), u32::from(height)));
    JpegDecoder::new().decode(file, expected, &mut buffer).expect("whole");
    let layout = buffer.frame().layout();
    assert_eq!(layout.format(), PixelFormat::Rgb3);
    assert_eq!(Some((layout.width(), layout.height())), expected);
    assert_eq!(buffer.sequence, 7);
    let want = pixels(width, height);
    let off = buffer.frame().bytes().iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off < Some(24), "{off:?}");
}

#[test]
fn decodes_what_cameras_and_files_hold() {
    let samplings = [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2];
    for sampling in samplings {
        for (width, height) in [(64, 48), (61, 47), (8, 100)] {
            check(&encode(width, height, |e| e.set_sampling_factor(sampling)), width, height);
            check(&encode(width, height, |e| e.set_progressive(true)), width, height);
            check(&encode(width, height, |e| e.set_restart_interval(3)), width, height);
        }
    }
    let mut padded = usual();
    padded.extend([0; 100]);
    check(&padded, 64, 48);
}

#[test]
fn grey_becomes_colour() {
    let mut file = Vec::new();
    let encoder = Encoder::new(&mut file, 95);
    encoder.encode(&[77; 32 * 16], 32, 16, ColorType::Luma).expect("in memory");
    let mut buffer = FrameBuffer::new();
    JpegDecoder::new().decode(&file, None, &mut buffer).expect("whole");
    assert!(buffer.frame().bytes().iter().all(|value| value.abs_diff(77) < 3));
    assert_eq!(buffer.frame().bytes().len(), 32 * 16 * 3);
}

/// The middle pixel of a picture of one colour, with an Adobe segment that says how it is stored: 0 as it is given, 1 as YCbCr.
fn with_adobe(colour: &[u8], kind: ColorType, transform: u8) -> [u8; 3] {
    let mut file = Vec::new();
    let encoder = Encoder::new(&mut file, 100);
    encoder.encode(&colour.repeat(16 * 16), 16, 16, kind).expect("in memory");
    let adobe = [&b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0"[..], &[transform]].concat();
    let pixels = whole(&[&file[..2], &adobe, &file[2..]].concat());
    std::array::from_fn(|k| pixels[3 * (8 * 16 + 8) + k])
}

#[test]
fn colours_of_image_editors_are_told_by_their_segment() {
    let close = |given: [u8; 3], wanted: [u8; 3]| {
        assert!(
            given.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 6),
            "{given:?}, not {wanted:?}"
        );
    };
    // What is given as Y, Cb and Cr is stored as it is: here it is red, green and blue.
    close(with_adobe(&[200, 40, 90], ColorType::Ycbcr, 0), [200, 40, 90]);
    close(with_adobe(&[200, 40, 90], ColorType::Rgb, 1), [200, 40, 90]);
    // Ink, of which 255 is all that paper takes; the last one is black.
    close(with_adobe(&[55, 215, 165, 0], ColorType::Cmyk, 0), [200, 40, 90]);
    close(with_adobe(&[55, 215, 165, 128], ColorType::Cmyk, 0), [100, 20, 45]);
}

/// Removes the Huffman tables, as USB cameras do that use the usual ones.
fn without_tables(file: &[u8]) -> Vec<u8> {
    let mut out = file[..2].to_vec();
    let mut at = 2;
    while file[at + 1] != 0xDA {
        let length = 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        if file[at + 1] != 0xC4 {
            out.extend_from_slice(&file[at..at + length]);
        }
        at += length;
    }
    out.extend_from_slice(&file[at..]);
    out
}

#[test]
fn the_usual_huffman_tables_may_be_missing() {
    let whole = usual();
    let short = without_tables(&whole);
    assert!(short.len() + 400 < whole.len(), "the tables were there");
    check(&short, 64, 48);
}

fn decode(file: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut buffer = FrameBuffer::new();
    JpegDecoder::new().decode(file, None, &mut buffer)?;
    Ok(buffer.frame().bytes().to_vec())
}

/// As [`decode`], for a picture that is whole.
fn whole(file: &[u8]) -> Vec<u8> {
    decode(file).expect("whole")
}

#[test]
fn a_picture_may_lack_its_end_marker_and_nothing_else() {
    let grey = |width: u16, height: u16| {
        let mut file = Vec::new();
        let pixels = vec![77; usize::from(width) * usize::from(height)];
        Encoder::new(&mut file, 95)
            .encode(&pixels, width, height, ColorType::Luma)
            .expect("in memory");
        file
    };
    for file in [
        usual(),
        encode(61, 47, |encoder| encoder.set_sampling_factor(SamplingFactor::F_1_1)),
        encode(64, 48, |encoder| encoder.set_restart_interval(1)),
        encode(64, 48, |encoder| encoder.set_restart_interval(8)),
        without_tables(&usual()),
        grey(8, 8),
        grey(64, 64),
    ] {
        let (pixels, data) = (whole(&file), file.len() - 2);
        for end in 0..file.len() {
            match decode(&file[..end]) {
                Ok(decoded) => {
                    assert!(end >= data && decoded == pixels, "cut after {end} of {}", file.len())
                }
                Err(error) => {
                    assert!(end < data, "{error}: all data are in the first {end} bytes");
                    assert!(error.to_string().contains("cut off"), "{error}");
                }
            }
        }
    }
}

/// Each scan of a progressive picture is complete in itself, and what others would add is not missed.
#[test]
fn a_progressive_picture_needs_its_end() {
    let file = encode(64, 48, |encoder| encoder.set_progressive(true));
    for end in 0..file.len() {
        assert!(decode(&file[..end]).is_err(), "cut after {end} of {}", file.len());
    }
}

#[test]
fn bytes_between_the_segments_are_passed_over() {
    let file = usual();
    let pixels = whole(&file);
    let tables = file.windows(2).position(|two| two == [0xFF, 0xDB]).expect("tables");
    let header = file.windows(2).position(|two| two == [0xFF, 0xC0]).expect("a header");
    for at in [2, tables, header, file.len() - 2] {
        for strays in [&b"\0"[..], b"some text", b"\xFF\0\x12", &[0; 3000]] {
            let flawed = [&file[..at], strays, &file[at..]].concat();
            assert_eq!(size(&flawed), Ok((64, 48)), "{at}");
            // Within the scan they are data, of which there may be too many.
            let decoded = decode(&flawed)
                .unwrap_or_else(|error| panic!("{error}: {} bytes at {at}", strays.len()));
            assert!(decoded == pixels, "{at}");
        }
    }
    let another = [&file[..tables], b"\xFF\xD8", &file[tables..]].concat();
    assert!(decode(&another).is_err(), "another picture begins inside");
    assert!(decode(b"hello").is_err());
}

/// Codes go on after a hole, as far as a decoder can tell: whoever carries the bytes has to say that some are missing.
#[test]
fn a_hole_in_the_scan_is_not_noticed_and_leaves_the_size() {
    let mut file = encode(640, 480, |encoder| encoder.set_sampling_factor(SamplingFactor::F_2_1));
    let middle = file.len() / 2;
    file.drain(middle..middle + 500);
    let mut buffer = FrameBuffer::new();
    JpegDecoder::new().decode(&file, Some((640, 480)), &mut buffer).expect("not noticed");
    assert_eq!(buffer.frame().bytes().len(), 640 * 480 * 3);
}

/// Writes another size into the frame header.
fn claiming(width: u16, height: u16) -> Vec<u8> {
    let mut file = usual();
    let at = file.windows(2).position(|two| two == [0xFF, 0xC0]).expect("baseline") + 5;
    file[at..at + 2].copy_from_slice(&height.to_be_bytes());
    file[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
    file
}

#[test]
fn sizes_are_checked_before_memory_is_taken() {
    let refused = |file: &[u8], expected| {
        let mut buffer = FrameBuffer::new();
        let error = JpegDecoder::new().decode(file, expected, &mut buffer).expect_err("a lie");
        assert_eq!(buffer.frame().bytes().len(), 3, "nothing was reserved");
        error
    };
    let promised = refused(&usual(), Some((640, 480)));
    assert_eq!(promised.to_string(), "JPEG frame is 64 x 48, the camera promised 640 x 480");
    assert!(matches!(refused(&claiming(0, 48), None), FrameError::Size { .. }));
    assert!(matches!(refused(&claiming(64, 0), None), FrameError::Size { .. }));
    assert!(matches!(refused(&claiming(65535, 65535), None), FrameError::Size { .. }));
    let few = refused(&claiming(8192, 8192), None).to_string();
    assert!(few.contains("too few for 8192 x 8192"), "{few}");
}

#[test]
fn the_size_needs_the_headers_only() {
    let file = usual();
    let scan = file.windows(2).position(|two| two == [0xFF, 0xDA]).expect("a scan");
    assert_eq!(size(&file[..scan]), Ok((64, 48)));
    assert!(matches!(size(&file[..20]), Err(FrameError::Jpeg(_))));
    assert!(matches!(size(b"hello"), Err(FrameError::Jpeg(_))));
    assert!(matches!(size(&claiming(9000, 10)), Err(FrameError::Size { .. })));
}

/// The picture with these bytes before every restart marker.
fn with_strays(file: &[u8], strays: &[u8]) -> Vec<u8> {
    let scan = file.windows(2).position(|two| two == [0xFF, 0xDA]).expect("a scan");
    let (mut out, mut found) = (file[..scan].to_vec(), 0);
    for (at, byte) in file.iter().enumerate().skip(scan) {
        if *byte == 0xFF && matches!(file.get(at + 1), Some(0xD0..=0xD7)) {
            out.extend_from_slice(strays);
            found += 1;
        }
        out.push(*byte);
    }
    assert!(found > 1, "restarts");
    out
}

proptest! {
    /// Webcams write such bytes; libjpeg tells of "extraneous bytes before marker" and goes on.
    #[test]
    fn bytes_before_a_restart_marker_are_passed_over(
        noise in prop::collection::vec(any::<u8>(), 90 * 50 * 3),
        sampling in 0..3_usize,
        interval in 1..12_u16,
        quality in 5..100_u8,
        strays in prop::collection::vec(0..0xFF_u8, 1..20),
    ) {
        let sampling = [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_2_2][sampling];
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, quality);
        encoder.set_sampling_factor(sampling);
        encoder.set_restart_interval(interval);
        encoder.encode(&noise, 90, 50, ColorType::Rgb).expect("in memory");
        for file in [without_tables(&file), file] {
            prop_assert!(whole(&with_strays(&file, &strays)) == whole(&file));
        }
    }

    #[test]
    fn damage_never_panics_and_never_changes_the_size(
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut file = usual();
        for (spot, value) in spots {
            let at = spot.index(file.len());
            file[at] = value;
        }
        file.truncate(cut.index(2 * file.len()).max(1));
        let mut buffer = FrameBuffer::new();
        if JpegDecoder::new().decode(&file, Some((64, 48)), &mut buffer).is_ok() {
            let layout = buffer.frame().layout();
            prop_assert_eq!((layout.width(), layout.height()), (64, 48));
        }
    }

    #[test]
    fn noise_is_no_picture(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
    }
}
