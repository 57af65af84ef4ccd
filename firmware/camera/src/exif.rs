//! How a picture file says that its picture is to be turned.

use frame::{Orientation, Rotation};

/// How a JPEG is to be turned, if it says so.
pub fn jpeg_orientation(bytes: &[u8]) -> Option<Orientation> {
    exif_orientation(frame::jpeg::segment(bytes, 0xE1, b"Exif\0\0")?)
}

/// How a picture with these Exif data is to be turned (Exif 2.32, section 4.6.4, `Orientation`), if they say so.
pub fn exif_orientation(tiff: &[u8]) -> Option<Orientation> {
    let little = tiff.starts_with(b"II");
    let long = |at: usize| {
        let four = tiff.get(at..at + 4)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    };
    let table = long(4)? as usize;
    let entries = usize::from(number(tiff, table, little)?);
    let entry = (0..entries)
        .map(|k| table.saturating_add(2 + 12 * k))
        .find(|at| number(tiff, *at, little) == Some(0x0112))?;
    let (rotation, flip_horizontal) = match number(tiff, entry.checked_add(8)?, little)? {
        2 => (Rotation::None, true),
        3 => (Rotation::Half, false),
        4 => (Rotation::Half, true),
        5 => (Rotation::Clockwise90, true),
        6 => (Rotation::Clockwise90, false),
        7 => (Rotation::Clockwise270, true),
        8 => (Rotation::Clockwise270, false),
        _ => return None,
    };
    Some(Orientation { rotation, flip_horizontal })
}

/// Two bytes as a number.
fn number(bytes: &[u8], at: usize, little: bool) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(if little { u16::from_le_bytes(two) } else { u16::from_be_bytes(two) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a JPEG whose Exif data say this orientation, after another tag.
    fn exif(orientation: u16, little: bool) -> Vec<u8> {
        let two = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let four = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut tiff = if little { b"II".to_vec() } else { b"MM".to_vec() };
        tiff.extend(two(42));
        tiff.extend(four(8));
        tiff.extend(two(2));
        for (tag, value) in [(0x0100, 640), (0x0112, orientation)] {
            tiff.extend([two(tag), two(3)].concat());
            tiff.extend(four(1));
            tiff.extend([two(value), two(0)].concat());
        }
        let length = (8 + tiff.len() as u16).to_be_bytes();
        [&b"\xFF\xD8\xFF\xE0\0\x04ab\xFF\xE1"[..], &length, b"Exif\0\0", &tiff].concat()
    }

    #[test]
    fn a_telephone_s_picture_is_turned_as_it_says() {
        // Where the corners a b / c d of a file come to lie, by the number that the file has.
        let upright = [
            (1, "abcd"),
            (2, "badc"),
            (3, "dcba"),
            (4, "cdab"),
            (5, "acbd"),
            (6, "cadb"),
            (7, "dbca"),
            (8, "bdac"),
        ];
        for (number, expect) in upright {
            for little in [false, true] {
                let orientation = jpeg_orientation(&exif(number, little)).unwrap_or_default();
                let corners = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(x, y)| {
                    let (x, y) = orientation.to_camera(x, y, 2, 2);
                    b"abcd"[(2 * y + x) as usize] as char
                });
                assert_eq!(String::from_iter(corners), expect, "{number}");
            }
        }
    }

    #[test]
    fn broken_exif_data_turn_nothing() {
        let whole = exif(6, true);
        assert!(jpeg_orientation(&whole).is_some());
        for cut in 0..whole.len() {
            let _ = jpeg_orientation(&whole[..cut]);
        }
        let mut far = whole.clone();
        let table = far.windows(2).position(|two| two == b"II").expect("there") + 4;
        far[table..table + 4].fill(0xFF);
        assert_eq!(jpeg_orientation(&far), None);
        assert_eq!(jpeg_orientation(&exif(9, true)), None);
        assert_eq!(jpeg_orientation(b"\x89PNG"), None);
    }
}
