//! Rendered households, as `models/households/README.md` describes them: what mirrors would have been corrected on.

use std::path::{Path, PathBuf};

use frame::FrameBuffer;
use frame::jpeg::JpegDecoder;
use learn::edges::Digest;
use serde::Deserialize;

/// Why a folder of households cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum HouseholdError {
    #[error("cannot read {path}: {source}; `models/households` has the format")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no index of households: {reason}")]
    Index { path: PathBuf, reason: String },
    #[error("{0} is not the file that its index describes; fetch the folder again")]
    Pack(PathBuf),
    #[error("picture {picture} of household {household} is damaged: {reason}")]
    Picture { household: String, picture: usize, reason: String },
    #[error(
        "the folder has pictures of {actual:?} rows and columns, the network takes {expected:?}"
    )]
    Size { expected: (usize, usize), actual: (usize, usize) },
}

#[derive(Deserialize)]
struct RawIndex {
    format_version: u32,
    height: usize,
    width: usize,
    pack_bytes: usize,
    pack_sha256: String,
    households: Vec<RawHousehold>,
}

/// Only what is used here; the folder says more about its people.
#[derive(Deserialize)]
struct RawHousehold {
    name: String,
    corrections: usize,
    pictures: Vec<RawPicture>,
}

#[derive(Deserialize)]
struct RawPicture {
    image: (usize, usize),
    labels: (usize, usize),
}

/// One household of a folder.
pub struct Household {
    /// Its name.
    pub name: String,
    /// How many of its pictures, from the first, are meant to be learned from.
    pub corrections: usize,
    pictures: Vec<RawPicture>,
}

impl Household {
    /// Pictures in all.
    pub fn pictures(&self) -> usize {
        self.pictures.len()
    }
}

/// A picture with its mask, on the network's grid.
pub struct Corrected {
    /// R, G, B planes.
    pub pixels: Vec<u8>,
    /// Part of every pixel, 0 to 15.
    pub labels: Vec<u8>,
}

/// A folder of households, its pictures still encoded.
pub struct Households {
    /// Rows and columns of every picture.
    pub size: (usize, usize),
    /// The households.
    pub households: Vec<Household>,
    pack: Vec<u8>,
}

impl Households {
    /// Reads a folder and checks it against its index.
    pub fn read(folder: &Path) -> Result<Households, HouseholdError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| HouseholdError::Read { path, source })
        };
        let index: RawIndex = serde_json::from_slice(&read("index.json")?).map_err(|error| {
            HouseholdError::Index { path: folder.join("index.json"), reason: error.to_string() }
        })?;
        if index.format_version != 1 {
            let reason = format!("format {} is unknown", index.format_version);
            return Err(HouseholdError::Index { path: folder.join("index.json"), reason });
        }
        let pack = read("pictures.pack")?;
        let same =
            pack.len() == index.pack_bytes && Digest::of(&pack).to_string() == index.pack_sha256;
        if !same {
            return Err(HouseholdError::Pack(folder.join("pictures.pack")));
        }
        let household = |raw: RawHousehold| Household {
            name: raw.name,
            corrections: raw.corrections.min(raw.pictures.len()),
            pictures: raw.pictures,
        };
        Ok(Households {
            size: (index.height, index.width),
            households: index.households.into_iter().map(household).collect(),
            pack,
        })
    }

    /// Decodes one picture of a household.
    pub fn picture(
        &self,
        household: &Household,
        picture: usize,
    ) -> Result<Corrected, HouseholdError> {
        let damaged = |reason: String| HouseholdError::Picture {
            household: household.name.clone(),
            picture,
            reason,
        };
        let place = &household.pictures[picture];
        let bytes = |(start, length): (usize, usize)| {
            let end = start.checked_add(length);
            end.and_then(|end| self.pack.get(start..end))
                .ok_or_else(|| damaged("it lies outside the pack".into()))
        };
        let pixels = self.pixels(bytes(place.image)?).map_err(&damaged)?;
        let labels = self.labels(bytes(place.labels)?).map_err(&damaged)?;
        Ok(Corrected { pixels, labels })
    }

    fn pixels(&self, jpeg: &[u8]) -> Result<Vec<u8>, String> {
        let mut buffer = FrameBuffer::new();
        JpegDecoder::new().decode(jpeg, None, &mut buffer).map_err(|error| error.to_string())?;
        let frame = buffer.frame();
        let (width, height) = (frame.layout().width() as usize, frame.layout().height() as usize);
        if (height, width) != self.size || frame.bytes().len() != 3 * height * width {
            return Err(format!("it has {height} x {width} pixels"));
        }
        let mut planes = Vec::with_capacity(frame.bytes().len());
        for channel in 0..3 {
            planes.extend(frame.bytes().iter().skip(channel).step_by(3));
        }
        Ok(planes)
    }

    fn labels(&self, file: &[u8]) -> Result<Vec<u8>, String> {
        let (height, width) = self.size;
        let limits = png::Limits { bytes: 16 * height * width };
        let decoder = png::Decoder::new_with_limits(std::io::Cursor::new(file), limits);
        let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
        let info = reader.info();
        let grey =
            info.color_type == png::ColorType::Grayscale && info.bit_depth == png::BitDepth::Eight;
        if !grey || (info.height as usize, info.width as usize) != self.size {
            return Err("its labels are not 8-bit grey of the picture's size".into());
        }
        let mut labels = vec![0; height * width];
        reader.next_frame(&mut labels).map_err(|error| error.to_string())?;
        Ok(labels)
    }
}
