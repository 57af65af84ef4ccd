//! Rendered households as pictures and labels; `models/households/README.md` has the format.

use std::error::Error;
use std::path::Path;

use frame::jpeg::JpegDecoder;
use frame::{Frame, FrameBuffer};
use serde_json::Value;

type Answer<T> = Result<T, Box<dyn Error>>;

/// A picture and the part of every pixel.
pub struct Labelled {
    pub picture: FrameBuffer,
    pub parts: Vec<u8>,
}

/// A household of a folder.
pub struct Household {
    /// To learn from.
    pub corrections: Vec<Labelled>,
    /// To judge by.
    pub others: Vec<Labelled>,
}

/// The households of a folder; its README has the format.
pub fn read(folder: &Path) -> Answer<Vec<Household>> {
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("index.json"))?)?;
    let pack = std::fs::read(folder.join("pictures.pack"))?;
    let households = index["households"].as_array().ok_or("index.json has no households")?;
    households.iter().map(|household| read_household(household, &pack)).collect()
}

fn read_household(household: &Value, pack: &[u8]) -> Answer<Household> {
    let pictures = household["pictures"].as_array().ok_or("a household without pictures")?;
    let mut corrections: Vec<Labelled> =
        pictures.iter().map(|picture| read_picture(picture, pack)).collect::<Answer<_>>()?;
    let count = household["corrections"].as_u64().ok_or("a household without corrections")?;
    let others = corrections.split_off(count as usize);
    Ok(Household { corrections, others })
}

fn read_picture(entry: &Value, pack: &[u8]) -> Answer<Labelled> {
    let slice = |key: &str| {
        let at = |index: usize| entry[key][index].as_u64().map(|value| value as usize);
        let (start, length) = at(0).zip(at(1))?;
        pack.get(start..start.checked_add(length)?)
    };
    let mut picture = FrameBuffer::new();
    let image = slice("image").ok_or("an image outside the pack")?;
    JpegDecoder::new().decode(image, None, &mut picture)?;
    let labels = slice("labels").ok_or("labels outside the pack")?;
    let mut reader = png::Decoder::new(std::io::Cursor::new(labels)).read_info()?;
    let mut parts = vec![0; reader.output_buffer_size().ok_or("labels are too large")?];
    reader.next_frame(&mut parts)?;
    let frame: Frame<'_> = picture.frame();
    if parts.len() != frame.layout().width() as usize * frame.layout().height() as usize {
        return Err("labels of another size than their picture".into());
    }
    Ok(Labelled { picture, parts })
}
