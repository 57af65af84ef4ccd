//! The public check that every mirror ships with: pictures of the built-in scene with the labels rendered with them.

use anyhow::{Context, Result, ensure};
use camera::mjpeg;
use frame::jpeg::JpegDecoder;
use frame::{FrameBuffer, Orientation};
use home::PublicCheck;
use vision::Parser;

use crate::parsed::Parsed;
use crate::pictures;
use crate::sources;

macro_rules! labels {
    ($($number:literal),*) => {
        [$(($number, include_bytes!(concat!("../../assets/demo-labels/", $number, ".png")))),*]
    };
}

/// Pictures of the scene, spread over its length, and their part maps as PNG files.
const LABELS: [(&str, &[u8]); 8] = {
    let all: [(&str, &'static [u8]); 8] =
        labels!["0004", "0014", "0024", "0034", "0044", "0054", "0064", "0074"];
    all
};

/// More pixels than any of them has.
const MOST_PIXELS: u64 = 1 << 22;

/// The check for a network, through the very conversion that the camera's pictures take.
///
/// # Errors
/// Only where the program's own assets are broken, which a test rules out.
pub fn pictures(parser: &mut Parser) -> Result<PublicCheck> {
    let (mut buffer, mut decoder) = (FrameBuffer::new(), JpegDecoder::new());
    let (mut at, mut number) = (0, 0);
    let mut pictures = Vec::new();
    while let Some(range) = mjpeg::next_picture(&sources::DEMO[at..]) {
        let picture = &sources::DEMO[at + range.start..at + range.end];
        at += range.end;
        let name = format!("{number:04}");
        number += 1;
        let Some((_, labels)) = LABELS.iter().find(|(known, _)| *known == name) else { continue };
        decoder.decode(picture, None, &mut buffer).context("the built-in scene")?;
        parser.parse(&buffer.frame()).context("the built-in scene")?;
        let parsed = Parsed::of(parser, &buffer.frame(), Orientation::default())?;
        let map = pictures::decode_labels(labels, MOST_PIXELS).context("the built-in labels")?;
        let mask = parsed.to_grid(&scaled(&map, parsed.size));
        pictures.push((parsed.pixels.clone(), mask));
    }
    ensure!(pictures.len() == LABELS.len(), "the built-in scene lacks pictures");
    Ok(PublicCheck { pictures })
}

/// A part map at another size, by the nearest pixel.
fn scaled(map: &pictures::LabelMap, (width, height): (u32, u32)) -> Vec<u8> {
    let near =
        |at: u32, size: u32, of: u32| u64::from(2 * at + 1) * u64::from(of) / u64::from(2 * size);
    let row = |y: u32| {
        (0..width).map(move |x| {
            let (from, row) = (near(x, width, map.width), near(y, height, map.height));
            map.labels[(row * u64::from(map.width) + from) as usize]
        })
    };
    (0..height).flat_map(row).collect()
}
