//! The marker structure of a JPEG picture (ITU-T T.81, annex B), without decoding it.

use crate::FrameError;

/// Start of image, end of image.
const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
/// Start of scan: entropy-coded data follow its header.
const SOS: u8 = 0xDA;
/// Define Huffman tables.
const DHT: u8 = 0xC4;

/// The bytes are no JPEG picture from `at` on; another picture can begin there at the earliest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Offset from the picture's start.
    pub at: usize,
    /// What was wrong.
    pub reason: &'static str,
}

impl From<Broken> for FrameError {
    fn from(broken: Broken) -> FrameError {
        FrameError::Jpeg(format!("{} at byte {}", broken.reason, broken.at))
    }
}

/// What comes next at the scanner's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Start,
    Marker,
    Entropy,
    Nothing,
}

/// Walks over one picture whose bytes may arrive piece by piece.
#[derive(Clone, Debug)]
pub struct Scanner {
    at: usize,
    next: Next,
    size: Option<(u32, u32)>,
    has_huffman_tables: bool,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner::new()
    }
}

impl Scanner {
    /// At the start of a picture.
    pub fn new() -> Scanner {
        Scanner { at: 0, next: Next::Start, size: None, has_huffman_tables: false }
    }

    /// Width and height in pixels, once the frame header was seen.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.size
    }

    /// Whether the picture brings Huffman tables; pictures of many USB cameras do not.
    pub fn has_huffman_tables(&self) -> bool {
        self.has_huffman_tables
    }

    /// Goes on where the last call stopped. `bytes` begin with the picture's first byte at every
    /// call. Gives the picture's length once its end was seen, and `None` when bytes are missing.
    ///
    /// # Errors
    /// Where and why this cannot be a JPEG picture.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        while !self.is_at_end() {
            if !self.step(bytes)? {
                return Ok(None);
            }
        }
        Ok(Some(self.at))
    }

    /// Goes over one marker with its segment, or one run of entropy-coded data; `false` when bytes are missing.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<bool, Broken> {
        match self.next {
            Next::Start => self.start(bytes),
            Next::Marker => self.marker(bytes),
            Next::Entropy => Ok(self.entropy(bytes)),
            Next::Nothing => Ok(true),
        }
    }

    /// Whether the picture's end was seen.
    pub(super) fn is_at_end(&self) -> bool {
        self.next == Next::Nothing
    }

    /// Whether entropy-coded data come next.
    pub(super) fn is_in_scan(&self) -> bool {
        self.next == Next::Entropy
    }

    /// Bytes that were gone over.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes to the next marker where other bytes lie before it, as readers of files do; `false` when there is none.
    pub(super) fn pass_strays(&mut self, bytes: &[u8]) -> bool {
        if self.next != Next::Marker {
            return false;
        }
        let is_marker = |two: &[u8]| two[0] == 0xFF && !matches!(two[1], 0x00 | 0xFF);
        let found = bytes[self.at..].windows(2).position(is_marker);
        self.at += found.unwrap_or(0);
        found.is_some_and(|strays| strays > 0)
    }

    fn broken<T>(&self, reason: &'static str) -> Result<T, Broken> {
        // Never 0 behind a start: whoever goes on from there makes progress.
        Err(Broken { at: self.at, reason })
    }

    fn start(&mut self, bytes: &[u8]) -> Result<bool, Broken> {
        match bytes {
            [0xFF, SOI, ..] => {
                self.at = 2;
                self.next = Next::Marker;
                Ok(true)
            }
            [] | [0xFF] => Ok(false),
            _ => self.broken("no start of a picture"),
        }
    }

    /// One marker with its segment.
    fn marker(&mut self, bytes: &[u8]) -> Result<bool, Broken> {
        let rest = &bytes[self.at..];
        match rest {
            // Any number of fill bytes may precede a marker.
            [0xFF, 0xFF, ..] => {
                self.at += 1;
                Ok(true)
            }
            [0xFF, EOI, ..] => {
                self.at += 2;
                self.next = Next::Nothing;
                Ok(true)
            }
            [0xFF, SOI, ..] => self.broken("another picture begins inside the picture"),
            [0xFF, 0x00, ..] => self.broken("data where a marker belongs"),
            // TEM and RST0 to RST7 stand alone.
            [0xFF, 0x01 | 0xD0..=0xD7, ..] => {
                self.at += 2;
                Ok(true)
            }
            [0xFF, marker, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                self.segment(*marker, length, &rest[2..])
            }
            [] | [0xFF, ..] => Ok(false),
            _ => self.broken("data where a marker belongs"),
        }
    }

    /// `segment` begins with the two bytes of its `length`, which count themselves.
    fn segment(&mut self, marker: u8, length: usize, segment: &[u8]) -> Result<bool, Broken> {
        if length < 2 {
            return self.broken("a segment shorter than its own length");
        }
        let Some(segment) = segment.get(..length) else { return Ok(false) };
        if is_frame_header(marker) {
            let [_, _, _precision, h1, h0, w1, w0, ..] = *segment else {
                return self.broken("a frame header that is too short");
            };
            let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
            self.size = Some((side(w1, w0), side(h1, h0)));
        }
        self.has_huffman_tables |= marker == DHT;
        self.next = if marker == SOS { Next::Entropy } else { Next::Marker };
        self.at += 2 + length;
        Ok(true)
    }

    /// Entropy-coded data end at the first marker that is no restart; 0xFF 0x00 is a data byte.
    fn entropy(&mut self, bytes: &[u8]) -> bool {
        while let Some(found) = bytes[self.at..].iter().position(|&byte| byte == 0xFF) {
            self.at += found;
            match bytes.get(self.at + 1) {
                None => return false,
                Some(0x00 | 0xD0..=0xD7) => self.at += 2,
                Some(0xFF) => self.at += 1,
                Some(_) => {
                    self.next = Next::Marker;
                    return true;
                }
            }
        }
        self.at = bytes.len();
        false
    }
}

/// What follows `name` in the first segment of this marker that begins with it, such as Exif data in APP1 (0xE1). Only segments before
/// the first scan are looked at.
pub fn segment<'b>(bytes: &'b [u8], marker: u8, name: &[u8]) -> Option<&'b [u8]> {
    let mut scanner = Scanner::new();
    scanner.start(bytes).ok().filter(|begun| *begun)?;
    while scanner.next == Next::Marker {
        let at = scanner.at;
        match scanner.marker(bytes) {
            Ok(true) => {}
            Err(_) if scanner.pass_strays(bytes) => continue,
            _ => return None,
        }
        if let [0xFF, found, _, _, content @ ..] = &bytes[at..scanner.at]
            && *found == marker
            && let Some(rest) = content.strip_prefix(name)
        {
            return Some(rest);
        }
    }
    None
}

/// SOF0 to SOF15 without DHT, JPG and DAC, which share the range.
fn is_frame_header(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Start, a comment that looks like an end, a frame header of 5 x 3, a scan with a stuffed byte
    /// and a restart, an end, and what does not belong to the picture any more.
    const PICTURE: &[u8] = b"\xFF\xD8\xFF\xFE\0\x04\xFF\xD9\xFF\xFF\xC0\0\x08\x08\0\x03\0\x05\x01\
        \xFF\xDA\0\x02data\xFF\0data\xFF\xD3data\xFF\xD9rest";

    #[test]
    fn finds_end_and_size_however_the_bytes_arrive() {
        let end = PICTURE.len() - 4;
        for step in 1..PICTURE.len() {
            let mut scanner = Scanner::new();
            let mut given = 0;
            let length = loop {
                given = (given + step).min(PICTURE.len());
                if let Some(length) = scanner.scan(&PICTURE[..given]).expect("well formed") {
                    break length;
                }
                assert!(given < end, "an end was there");
            };
            assert_eq!((length, scanner.size()), (end, Some((5, 3))));
        }
    }

    #[test]
    fn no_end_without_an_end() {
        for end in 0..PICTURE.len() - 4 {
            assert_eq!(Scanner::new().scan(&PICTURE[..end]), Ok(None), "cut after {end} bytes");
        }
    }

    #[test]
    fn a_segment_is_found_by_its_name() {
        let bytes =
            b"\xFF\xD8\xFF\xE1\0\x05xml\xFF\xFF\xE1\0\x06Exif\xFF\xE1\0\x07Exif1\xFF\xDA\0\x02\
            \xFF\xE1\0\x04ab\xFF\xD9";
        assert_eq!(segment(bytes, 0xE1, b"Exif"), Some(&b""[..]), "the first one");
        assert_eq!(segment(bytes, 0xE1, b"xm"), Some(&b"l"[..]));
        assert_eq!(segment(bytes, 0xE2, b"xml"), None);
        assert_eq!(segment(bytes, 0xE1, b"ab"), None, "behind the scan");
        for cut in 0..bytes.len() {
            let found = segment(&bytes[..cut], 0xE1, b"Exif");
            assert_eq!(found.is_some(), cut >= 18, "cut after {cut} bytes");
        }
        assert_eq!(segment(b"\x89PNG", 0xE1, b""), None);
    }

    #[test]
    fn says_where_it_broke() {
        let broken = |bytes: &[u8]| Scanner::new().scan(bytes).expect_err("no picture").at;
        assert_eq!(broken(b"GIF89a"), 0);
        assert_eq!(broken(b"\xFF\xD8junk"), 2);
        assert_eq!(broken(b"\xFF\xD8\xFF\x00"), 2);
        assert_eq!(broken(b"\xFF\xD8\xFF\xE0\0\x01\0"), 2);
        assert_eq!(broken(b"\xFF\xD8\xFF\xDA\0\x02data\xFF\xD8\xFF"), 10);
        assert_eq!(broken(b"\xFF\xD8\xFF\xC0\0\x03\x08"), 2);
    }
}
