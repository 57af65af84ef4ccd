//! JPEG pictures with small flaws, made whole for a decoder that forgives none.

use crate::jpeg::Scanner;
use crate::jpeg::decoder::cut_off;
use crate::{FrameError, wipe};

/// Markers of pictures that are not progressive: baseline, and extended sequential.
const SEQUENTIAL: [u8; 2] = [0xC0, 0xC1];
/// Start of scan.
const SOS: u8 = 0xDA;

/// Put before the end marker that a picture lacks: bits of one, stuffed as data are. They fill up a last byte, as they do in every
/// picture; as a code they are none (ITU-T T.81, annex C.2), so that a scan that still wants data cannot be decoded.
const NO_CODE: [u8; 32] = *b"\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0\xFF\0";
/// End of image.
const END: [u8; 2] = *b"\xFF\xD9";

/// A picture without what lay between its segments, and with an end.
pub(super) struct Mended {
    /// The whole picture.
    pub bytes: Vec<u8>,
    /// Whether the end was missing. If the picture cannot be decoded then, it was cut off.
    pub was_ended: bool,
}

impl Drop for Mended {
    /// Memory that is freed holds no picture.
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

impl Mended {
    /// A copy of the picture that `bytes` begin with.
    ///
    /// # Errors
    /// [`FrameError::Jpeg`] for a picture that is broken otherwise, or cut off where nothing would tell what is missing: outside of a scan,
    /// and in pictures whose pixels take more than one.
    pub fn of(bytes: &[u8]) -> Result<Mended, FrameError> {
        // Room for an end, so that a picture is never left in memory that is too small.
        let room = Vec::with_capacity(bytes.len() + NO_CODE.len() + END.len());
        let mut mended = Mended { bytes: room, was_ended: false };
        let mut scanner = Scanner::new();
        let (mut components, mut whole_in_one_scan) = (None, false);
        while !scanner.is_at_end() {
            let from = scanner.at();
            match scanner.step(bytes) {
                Ok(true) => {}
                Ok(false) if scanner.is_in_scan() && whole_in_one_scan => {
                    mended.end(&bytes[from..]);
                    return Ok(mended);
                }
                Ok(false) => return Err(cut_off(bytes)),
                Err(_) if scanner.pass_strays(bytes) => continue,
                Err(broken) => return Err(broken.into()),
            }
            let gone_over = &bytes[from..scanner.at()];
            match *gone_over {
                [0xFF, marker, _, _, _, _, _, _, _, count, ..] if SEQUENTIAL.contains(&marker) => {
                    components = Some(count)
                }
                [0xFF, SOS, _, _, count, ..] => whole_in_one_scan = components == Some(count),
                _ => {}
            }
            mended.bytes.extend_from_slice(gone_over);
        }
        Ok(mended)
    }

    /// With the last data of the scan, which may end in half a marker.
    fn end(&mut self, data: &[u8]) {
        let data = data.strip_suffix(b"\xFF").unwrap_or(data);
        for part in [data, &NO_CODE, &END] {
            self.bytes.extend_from_slice(part);
        }
        self.was_ended = true;
    }
}
