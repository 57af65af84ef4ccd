//! Corrections: the picture as the network saw it and the parts as the household painted them, sealed together.
//!
//! Plain form: `MHC1`, number (8), wall time (8), lived seconds (8), height (4), width (4), R, G, B planes, mask; all
//! little-endian.

use std::collections::BTreeMap;
use std::ops::Range;

use learn::edges::{EdgeError, Timestamp};
use learn::head::{IGNORE, PARTS, TargetError, is_held_back};
use serde::Serialize;
use vision::GridSize;
use zeroize::Zeroizing;

use crate::error::HomeError;
use crate::options::Limits;
use crate::vault::Vault;

const MAGIC: &[u8; 4] = b"MHC1";
const HEADER_BYTES: usize = 36;
pub(crate) const PREFIX: &str = "correction-";

/// A correction in the list; its picture and mask stay sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CorrectionInfo {
    /// Its number, never used twice.
    pub number: u64,
    /// When it was saved, by the device's clock; `None` where it cannot be opened.
    pub saved_at: Option<Timestamp>,
    /// Bytes on the disk.
    pub bytes: u64,
    /// For judging and never for training.
    pub held_back: bool,
    /// It cannot be opened: changed, or of another device. It can be deleted.
    pub damaged: bool,
    #[serde(skip)]
    pub(crate) lived: u64,
}

/// A picture as the network sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// R, G, B planes, 3 x height x width.
    pub planes: Vec<u8>,
}

impl Picture {
    /// The picture as R, G, B of every pixel, height x width x 3.
    pub fn interleaved(&self) -> Vec<u8> {
        let area = self.height * self.width;
        (0..area).flat_map(|at| [0, 1, 2].map(|plane| self.planes[plane * area + at])).collect()
    }
}

/// A corrected part map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Part of every pixel, 0 to 15, or 255 for "not said".
    pub labels: Vec<u8>,
}

/// What is stored, against what may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// Corrections.
    pub corrections: usize,
    /// Their bytes on the disk.
    pub bytes: u64,
    /// The limits.
    pub limits: Limits,
}

/// A correction opened for training or showing. Wiped when dropped.
pub(crate) struct Opened {
    plain: Zeroizing<Vec<u8>>,
    pub size: GridSize,
    pub saved_at: Timestamp,
    lived: u64,
}

impl Opened {
    pub fn pixels(&self) -> &[u8] {
        &self.plain[HEADER_BYTES..HEADER_BYTES + 3 * self.size.area()]
    }

    pub fn labels(&self) -> &[u8] {
        &self.plain[HEADER_BYTES + 3 * self.size.area()..]
    }
}

pub(crate) fn name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

/// The list, in memory; every number is a sealed file.
#[derive(Default)]
pub(crate) struct Corrections {
    entries: BTreeMap<u64, CorrectionInfo>,
}

impl Corrections {
    /// Opens every file once, to learn its age and whether it is whole.
    pub fn load(vault: &Vault) -> Result<Corrections, EdgeError> {
        let mut entries = BTreeMap::new();
        for file in vault.names()? {
            let number = file.strip_prefix(PREFIX).and_then(|digits| digits.parse::<u64>().ok());
            let Some(number) = number.filter(|&number| name(number) == file) else { continue };
            let opened = open(vault, number).ok();
            let info = CorrectionInfo {
                number,
                saved_at: opened.as_ref().map(|opened| opened.saved_at),
                // What cannot even be measured must not keep the others from being shown and deleted.
                bytes: vault.sealed_bytes(&file).unwrap_or(0),
                held_back: is_held_back(number as usize),
                damaged: opened.is_none(),
                // Of what cannot be read now nobody knows the age; it is shown as damaged and can be deleted.
                lived: opened.map_or(u64::MAX, |opened| opened.lived),
            };
            entries.insert(number, info);
        }
        if entries.values().any(|entry| entry.damaged) {
            // Without a number: how often a household corrects does not belong into the journal.
            tracing::warn!("stored corrections cannot be read; the mirror's page shows which");
        }
        Ok(Corrections { entries })
    }

    pub fn list(&self) -> Vec<CorrectionInfo> {
        self.entries.values().cloned().collect()
    }

    pub fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes).sum()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Corrections with this number or a later one, without damaged ones: no run uses those.
    pub fn count_from(&self, number: u64) -> u32 {
        self.entries.range(number..).filter(|(_, entry)| !entry.damaged).count() as u32
    }

    /// The oldest usable correction from this number on.
    pub fn oldest_from(&self, number: u64) -> Option<&CorrectionInfo> {
        self.entries.range(number..).map(|(_, entry)| entry).find(|entry| !entry.damaged)
    }

    /// Whether one more of `bytes` sealed bytes fits the limits.
    pub fn check_room(&self, bytes: u64, limits: &Limits) -> Result<(), HomeError> {
        if self.len() >= limits.corrections {
            return Err(HomeError::TooMany { stored: self.len() });
        }
        if self.bytes() + bytes > limits.bytes {
            let (stored, limit) = (self.bytes(), limits.bytes);
            return Err(HomeError::TooLarge { bytes, stored, limit });
        }
        Ok(())
    }

    pub fn insert(&mut self, info: CorrectionInfo) {
        self.entries.insert(info.number, info);
    }

    /// Notes that a correction could not be opened: no run is planned with it any more.
    pub fn mark_damaged(&mut self, number: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.damaged = true;
        }
    }

    /// Those with these numbers were saved so many seconds lived later than they know themselves.
    pub fn put_later(&mut self, numbers: Range<u64>, seconds: u64) {
        for entry in self.entries.values_mut().filter(|entry| numbers.contains(&entry.number)) {
            entry.lived = entry.lived.saturating_add(seconds);
        }
    }

    /// The largest time lived at which one was saved that can be opened.
    pub fn newest_lived(&self) -> Option<u64> {
        self.entries.values().filter(|entry| !entry.damaged).map(|entry| entry.lived).max()
    }

    pub fn contains(&self, number: u64) -> bool {
        self.entries.contains_key(&number)
    }

    /// Removes the file first, so that an entry never outlives a failure to delete.
    pub fn remove(&mut self, vault: &Vault, number: u64) -> Result<(), HomeError> {
        vault.remove(&name(number))?;
        self.entries.remove(&number);
        Ok(())
    }

    /// Numbers to train on and numbers to judge on, oldest first.
    pub fn roles(&self) -> (Vec<u64>, Vec<u64>) {
        let whole = self.entries.values().filter(|entry| !entry.damaged);
        let (judged, trained): (Vec<_>, Vec<_>) = whole.partition(|entry| entry.held_back);
        let numbers = |entries: Vec<&CorrectionInfo>| entries.iter().map(|e| e.number).collect();
        (numbers(trained), numbers(judged))
    }
}

/// Checks picture and mask against the network's input, and packs them.
pub(crate) fn pack(
    number: u64,
    saved_at: Timestamp,
    lived: u64,
    size: GridSize,
    pixels: &[u8],
    labels: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HomeError> {
    check_mask(size, labels)?;
    let GridSize { height, width } = size;
    if pixels.len() != 3 * size.area() {
        return Err(HomeError::PictureSize { actual: pixels.len(), height, width });
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + 4 * size.area()));
    plain.extend_from_slice(MAGIC);
    for word in [number, saved_at.0, lived] {
        plain.extend_from_slice(&word.to_le_bytes());
    }
    for side in [height, width] {
        plain.extend_from_slice(&(side as u32).to_le_bytes());
    }
    plain.extend_from_slice(pixels);
    plain.extend_from_slice(labels);
    Ok(plain)
}

/// Refuses a mask that is not of this size, has unknown classes, or says nothing.
pub(crate) fn check_mask(size: GridSize, labels: &[u8]) -> Result<(), HomeError> {
    if labels.len() != size.area() {
        let GridSize { height, width } = size;
        return Err(HomeError::MaskSize { actual: labels.len(), height, width });
    }
    let known = |value: u8| usize::from(value) < PARTS || value == IGNORE;
    if let Some(index) = labels.iter().position(|&value| !known(value)) {
        return Err(TargetError::Class { index, value: labels[index] }.into());
    }
    if labels.iter().all(|&value| value == IGNORE) {
        return Err(TargetError::Empty.into());
    }
    Ok(())
}

/// Opens a correction and checks that it is whole.
pub(crate) fn open(vault: &Vault, number: u64) -> Result<Opened, HomeError> {
    let plain = match vault.get(&name(number)) {
        Ok(Some(plain)) => plain,
        Ok(None) => return Err(HomeError::NoCorrection(number)),
        // One that the disk does not give back is as good as damaged: the others are learnt from.
        Err(_) => return Err(HomeError::Damaged(number)),
    };
    let damaged = HomeError::Damaged(number);
    if plain.len() < HEADER_BYTES || plain[..4] != *MAGIC {
        return Err(damaged);
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| plain[at + index]));
    let side = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| plain[at + index]));
    let (own, saved_at, lived) = (word(4), Timestamp(word(12)), word(20));
    let (height, width) = (side(28) as usize, side(32) as usize);
    let area = height.checked_mul(width);
    let expected = area.and_then(|area| area.checked_mul(4)).map(|bytes| bytes + HEADER_BYTES);
    if own != number || expected != Some(plain.len()) {
        return Err(damaged);
    }
    Ok(Opened { plain, size: GridSize { height, width }, saved_at, lived })
}
