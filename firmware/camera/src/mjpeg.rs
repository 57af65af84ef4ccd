//! Concatenated JPEG files (`.mjpeg`): where one ends and the next begins.

/// The bytes of the next whole JPEG file in `bytes`, as a range; `None` when there is no whole one.
///
/// Walks the segments by their lengths, so that thumbnails inside a segment are not taken for pictures; inside the
/// entropy-coded data only an end-of-image marker ends the file (ITU-T T.81, annex B).
///
/// A file that is cut off or broken, with another one after it, is passed over: one lost picture must not cost the rest.
pub fn next_picture(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut from = 0;
    // A loop and no recursion: noise may hold a beginning in every third byte.
    loop {
        let start = from + bytes.get(from..)?.windows(3).position(|w| w == [0xFF, 0xD8, 0xFF])?;
        match end_of_picture(bytes, start + 2)? {
            Ok(end) => return Some(start..end),
            Err(broken) => from = broken,
        }
    }
}

/// Where the file whose segments begin at `at` ends, or from where to look for another one; `None` when the bytes end first.
fn end_of_picture(bytes: &[u8], mut at: usize) -> Option<Result<usize, usize>> {
    loop {
        // Fill bytes may precede a marker.
        while *bytes.get(at)? == 0xFF && *bytes.get(at + 1)? == 0xFF {
            at += 1;
        }
        let marker = (*bytes.get(at)?, *bytes.get(at + 1)?);
        match marker {
            (0xFF, 0xD9) => return Some(Ok(at + 2)),
            // A beginning before the end: this file was cut off.
            (0xFF, 0xD8) => return Some(Err(at)),
            (0xFF, 0x01 | 0xD0..=0xD7) => at += 2,
            (0xFF, code) if code >= 0xC0 => {
                let length =
                    usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
                // Less than its own two bytes is no length.
                if length < 2 {
                    return Some(Err(at + 2));
                }
                at += 2 + length;
                if code == 0xDA {
                    at = end_of_scan(bytes, at)?;
                }
            }
            _ => return Some(Err(at + 1)),
        }
    }
}

/// Position of the first marker after entropy-coded data that is neither stuffing nor a restart.
fn end_of_scan(bytes: &[u8], from: usize) -> Option<usize> {
    let scan = bytes.get(from..)?;
    let marker = |pair: &[u8]| pair[0] == 0xFF && !matches!(pair[1], 0x00 | 0xD0..=0xD7 | 0xFF);
    scan.windows(2).position(marker).map(|at| from + at)
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
