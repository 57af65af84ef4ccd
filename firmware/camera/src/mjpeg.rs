//! Concatenated JPEG files (`.mjpeg`): where one ends and the next begins, and what each holds.

use std::ops::Range;

use frame::jpeg::{Scanner, size};
use frame::{FrameError, Layout, PixelFormat};

/// The bytes of the next whole JPEG file in `bytes`, as a range; `None` when there is no whole one.
///
/// Walks the segments by their lengths, so that thumbnails inside a segment are not taken for pictures; inside the
/// entropy-coded data only an end-of-image marker ends the file (ITU-T T.81, annex B).
///
/// A file that is cut off or broken, with another one after it, is passed over: one lost picture must not cost the rest.
pub fn next_picture(bytes: &[u8]) -> Option<Range<usize>> {
    Search::default().next(bytes)
}

/// The search for one file in bytes that arrive piece by piece; nothing is searched twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// Where the file begins, or where to look for its beginning.
    from: usize,
    /// The walk over the file, once its beginning was found.
    scanner: Option<Scanner>,
}

impl Search {
    /// Goes on where the last call stopped, as [`next_picture`]. `bytes` begin with the same byte at every call, until a
    /// file was found; for the next one a new search begins.
    pub fn next(&mut self, bytes: &[u8]) -> Option<Range<usize>> {
        // A loop and no recursion: noise may hold a beginning in every third byte.
        loop {
            let mut scanner = match self.scanner.take() {
                Some(scanner) => scanner,
                None => self.begin(bytes)?,
            };
            match scanner.scan(&bytes[self.from..]) {
                Ok(Some(length)) => return Some(self.from..self.from + length),
                Ok(None) => {
                    self.scanner = Some(scanner);
                    return None;
                }
                Err(broken) => self.from += broken.at,
            }
        }
    }

    /// Moves to the next beginning of a file.
    fn begin(&mut self, bytes: &[u8]) -> Option<Scanner> {
        let found = bytes.get(self.from..)?.windows(3).position(|w| w == [0xFF, 0xD8, 0xFF]);
        match found {
            Some(at) => {
                self.from += at;
                Some(Scanner::new())
            }
            None => {
                // The last two bytes may be the first of a beginning.
                self.from = self.from.max(bytes.len().saturating_sub(2));
                None
            }
        }
    }
}

/// Size of a JPEG file from its frame header, as the layout of a compressed picture.
pub(crate) fn jpeg_layout(bytes: &[u8]) -> Result<Layout, FrameError> {
    let (width, height) = size(bytes)?;
    Layout::new(PixelFormat::Mjpg, width, height, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jpeg_encoder::{ColorType, Encoder};

    fn jpeg(shade: u8) -> Vec<u8> {
        let rgb: Vec<u8> = (0..32 * 24 * 3).map(|i| shade ^ (i % 255) as u8).collect();
        let mut file = Vec::new();
        Encoder::new(&mut file, 80).encode(&rgb, 32, 24, ColorType::Rgb).expect("encodes");
        file
    }

    fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(range) = next_picture(bytes) {
            found.push(bytes[range.clone()].to_vec());
            bytes = &bytes[range.end..];
        }
        found
    }

    #[test]
    fn pictures_come_out_as_they_went_in() {
        let pictures: Vec<Vec<u8>> = [3, 90, 200].map(jpeg).to_vec();
        assert_eq!(split(&pictures.concat()), pictures);
        let padded = [&[0, 7, 0xFF][..], &pictures[0], &[0; 9], &pictures[1], &[0xFF]].concat();
        assert_eq!(split(&padded), pictures[..2]);
    }

    /// What was looked at is wiped out: nothing of it is needed again.
    #[test]
    fn bytes_that_arrive_piece_by_piece_are_looked_at_once() {
        let picture = jpeg(3);
        let file = [&[0, 7, 0xFF, 0xD8][..], &picture, &[0; 9]].concat();
        let (end, data) = (4 + picture.len(), picture.windows(2).position(|w| w == [0xFF, 0xDA]));
        let data = 4 + 14 + data.expect("a scan");
        for step in [1, 2, 3, 7, 100] {
            let (mut search, mut given, mut found) = (Search::default(), Vec::new(), None);
            for piece in file.chunks(step) {
                given.extend_from_slice(piece);
                found = search.next(&given);
                if found.is_some() {
                    break;
                }
                let seen = given.len() - given.len().min(2);
                if seen > data {
                    given[..seen].fill(0);
                }
            }
            assert_eq!(found, Some(4..end), "{step} bytes at a time");
        }
    }

    #[test]
    fn a_picture_that_is_cut_off_costs_no_other() {
        let (cut, whole) = (jpeg(3), jpeg(90));
        for kept in [3, cut.len() / 2, cut.len() - 2] {
            let file = [&cut[..kept], &whole, &whole].concat();
            let found = split(&file);
            assert_eq!(found.last(), Some(&whole), "{kept} bytes were kept");
        }
        assert_eq!(split(&[&cut[..cut.len() - 2], &whole[..]].concat()), [whole]);
    }

    #[test]
    fn any_number_of_beginnings_is_worked_off_without_depth() {
        for noise in [[0xFF, 0xD8, 0xFF, 0x00], [0xFF, 0xD8, 0xFF, 0xD8]] {
            assert_eq!(next_picture(&noise.repeat(1 << 20)), None);
        }
    }

    #[test]
    fn a_thumbnail_is_not_a_picture() {
        let (outer, inner) = (jpeg(3), jpeg(50));
        let length = u16::try_from(inner.len() + 2).expect("small").to_be_bytes();
        let mut file = outer[..2].to_vec();
        file.extend([0xFF, 0xE1]);
        file.extend(length);
        file.extend(&inner);
        file.extend(&outer[2..]);
        assert_eq!(split(&file), [file.clone()]);
    }

    #[test]
    fn no_truncation_and_no_noise_gives_a_whole_picture_or_a_panic() {
        let file = jpeg(3);
        assert!((0..file.len()).all(|n| next_picture(&file[..n]).is_none()));
        let mut state = 1u32;
        for _ in 0..300 {
            let noise: Vec<u8> = (0..400)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if state >> 30 == 0 { 0xFF } else { (state >> 20) as u8 }
                })
                .collect();
            if let Some(range) = next_picture(&noise) {
                assert!(noise[range].starts_with(&[0xFF, 0xD8]));
            }
        }
    }
}
